"""What a relayer submits of owners' orders: what the contract would take, and nothing that it pays for in vain."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
import trio
from eth_account import Account

from node.chain.contract.abi import DecodedEvent
from node.chain.readers.swarm_reader import SwarmReader
from node.chain.relay.batcher import Batch, Batcher
from node.chain.relay.signatures import sign
from node.chain.rpc.client import connect
from node.machine.commands import RelayMessages
from protocols.signed_messages import RelayedMessage, SignedDelegation, SignedRevocation, topic_of
from protocols.typed_data import Delegation
from tests.contracts.conftest import Swarm, skipped

pytestmark = pytest.mark.integration

OWNER, STRANGER = 20, 22
HONEST, BURNING = 0, 3


def wallet(swarm: Swarm, manner: int) -> str:
    """Deploy a contract wallet whose key is the owner's."""
    signer = bytes(12) + bytes.fromhex(swarm.accounts[OWNER][2:])
    return swarm.create("test/Wallet", signer, manner.to_bytes(32, "big"))


def of_wallet(swarm: Swarm, address: str, node: int) -> SignedDelegation:
    said = Delegation(address, swarm.accounts[node], swarm.serial(), 2**64 - 1)
    return SignedDelegation.of(said, swarm.sign(OWNER, said), swarm.sign(node, said))


def forged(swarm: Swarm, owner: str, number: int) -> SignedDelegation:
    """Return a delegation that a made-up node has signed, and its alleged owner has not."""
    node = Account.from_key(bytes([1] * 31 + [number]))
    said = Delegation(owner, str(node.address).lower(), swarm.serial(), 2**64 - 1)
    return SignedDelegation.of(said, bytes(64) + b"\x1b", sign(swarm.domain, said, node))


def batch(swarm: Swarm, orders: Sequence[SignedDelegation | SignedRevocation], turn: int = 0) -> Batch:
    """Return what a relayer would submit of orders."""
    command = RelayMessages(
        topic_of(orders[0]), 0, 0, bytes(32), turn, tuple(RelayedMessage(order.node, order) for order in orders)
    )

    async def asked() -> Batch:
        async with connect(swarm.chain.url, math.inf) as endpoint:
            return await Batcher(SwarmReader(endpoint, swarm.address), swarm.domain).batch(command, ())

    return trio.run(asked)


def submitted(swarm: Swarm, orders: Sequence[SignedDelegation | SignedRevocation], turn: int = 0) -> list[DecodedEvent]:
    """Submit what a relayer would submit; return the events."""
    found = batch(swarm, orders, turn)
    return swarm.submit(found.call(found.size)) if found.size else []


def nodes_in(events: list[DecodedEvent], name: str = "PeerRegistered") -> list[str]:
    return [event.fields["node"] for event in events if event.name == name]


def test_forged_delegations_cost_a_relayer_no_gas(swarm: Swarm) -> None:
    """Beside a good one none of them is submitted: of a key that did not sign, of a wallet that burns what it gets,
    without the node's consent, of a node that is its own owner and signed nothing, over already."""
    good = swarm.delegation(3, OWNER)
    over = swarm.delegation(4, OWNER, expiry=swarm.now())
    alone = swarm.delegation(5, OWNER)
    unasked = SignedDelegation(alone.owner, alone.node, alone.serial, alone.expiry, alone.owner_signature, b"")
    itself = swarm.accounts[6]
    own = SignedDelegation(itself, itself, swarm.serial(), 2**64 - 1, bytes(64) + b"\x1b", b"")
    rubbish = [forged(swarm, owner, n) for n, owner in enumerate((swarm.accounts[STRANGER], wallet(swarm, BURNING)), 1)]

    events = submitted(swarm, [*rubbish, over, unasked, own, good])
    assert nodes_in(events) == [swarm.accounts[3]]
    assert skipped(events) == {}
    assert batch(swarm, [*rubbish, over, unasked, own]).size == 0


def test_a_forged_revocation_is_left_out(swarm: Swarm) -> None:
    """The owner's own is submitted beside it."""
    swarm.register(1, OWNER)
    swarm.register(2, OWNER)
    true, false = swarm.revocation(1, OWNER), swarm.revocation(2, STRANGER)
    owner = swarm.accounts[OWNER]
    orders = [
        SignedRevocation(owner, swarm.accounts[2], false.serial, false.owner_signature),
        SignedRevocation(owner, true.node, true.serial, true.owner_signature),
    ]
    events = submitted(swarm, orders)
    assert nodes_in(events, "DelegationRevoked") == [swarm.accounts[1]]
    assert skipped(events) == {}


def test_of_two_orders_for_a_node_one_is_submitted(swarm: Swarm) -> None:
    """The second would be skipped, or pay twice; a forged one before the true one does not take its place."""
    true, again = (swarm.delegation(3, OWNER) for _ in range(2))
    false = SignedDelegation(true.owner, true.node, again.serial, 2**63, true.owner_signature, true.node_signature)
    events = submitted(swarm, [false, true, again])
    assert nodes_in(events) == [swarm.accounts[3]]
    assert len(events) == 1


def test_a_contract_wallets_order_travels_alone(swarm: Swarm) -> None:
    """It may answer otherwise in the transaction: it is submitted when no key's order waits, each turn another one."""
    address = wallet(swarm, HONEST)
    first, second = of_wallet(swarm, address, 1), of_wallet(swarm, address, 2)
    by_key = swarm.delegation(3, OWNER)
    assert nodes_in(submitted(swarm, [first, by_key, second])) == [swarm.accounts[3]]
    assert nodes_in(submitted(swarm, [first, by_key, second], turn=0)) == [swarm.accounts[1]]
    assert batch(swarm, [second]).size == 1
    assert batch(swarm, [of_wallet(swarm, address, 4), second], turn=1).call(1) == batch(swarm, [second]).call(1)
