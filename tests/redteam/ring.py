"""A ring of twenty keys under one owner: registered on chain like anybody's, silent in gossip, all voting for one."""

from __future__ import annotations

import time
from typing import Any

from eth_account import Account

from node.chain.relay.batch_calls import commitments_call, registrations_call, reveals_call
from node.chain.relay.signatures import sign
from protocols.identifiers import Address
from protocols.signed_messages import SignedCommitment, SignedDelegation, VoteReveal
from protocols.typed_data import Commitment, Delegation, Domain
from protocols.voting import vote_commitment
from tests.integration.small_swarm import SmallSwarm

KEYS = 20
SALT = b"r" * 32


class Ring:
    """The keys, and what they send; the transactions are paid for by one of the chain's own accounts."""

    def __init__(self, swarm: SmallSwarm) -> None:
        self._swarm = swarm
        self._keys = [Account.from_key(bytes([200]) * 31 + bytes([number])) for number in range(KEYS)]
        _, _, _, chain_id, contract, salt, _ = swarm.contract.functions.eip712Domain().call()
        self._domain = Domain(chain_id, contract.lower(), bytes(salt))

    @property
    def addresses(self) -> tuple[Address, ...]:
        """The keys' addresses."""
        return tuple(str(key.address).lower() for key in self._keys)

    def register(self) -> None:
        """Register all under one owner."""
        owner = Account.from_key(b"\xc9" * 32)
        said = [
            Delegation(owner.address.lower(), node, int(time.time() * 1000) + place, 2**40)
            for place, node in enumerate(self.addresses)
        ]
        self._submit(registrations_call([
            SignedDelegation.of(each, sign(self._domain, each, owner), sign(self._domain, each, key))
            for each, key in zip(said, self._keys, strict=True)
        ]))  # fmt: skip

    def commit(self, round_number: int, winner: Address) -> None:
        """Commit all votes on a round."""
        seed = bytes(self._swarm.contract.functions.seedOf(round_number).call())
        said = [
            Commitment(round_number, seed, vote_commitment(round_number, seed, node, (winner,), SALT))
            for node in self.addresses
        ]
        pairs = zip(said, self._keys, strict=True)
        signed = [SignedCommitment.of(each, sign(self._domain, each, key)) for each, key in pairs]
        self._submit(commitments_call(round_number, signed))

    def reveal(self, round_number: int, winner: Address) -> None:
        """Reveal them."""
        self._submit(
            reveals_call(round_number, [(node, VoteReveal(round_number, (winner,), SALT)) for node in self.addresses])
        )

    def _submit(self, data: str) -> None:
        chain: Any = self._swarm.chain
        call = {"from": chain.call("eth_accounts")[5], "to": self._swarm.contract.address, "data": data}
        sent = chain.call("eth_sendTransaction", {**call, "gas": hex(12_000_000)})
        assert self._swarm.wait(10.0, lambda: chain.call("eth_getTransactionReceipt", sent) is not None)
        assert chain.call("eth_getTransactionReceipt", sent)["status"] == "0x1"
