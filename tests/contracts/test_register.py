"""Who owns which node: delegations, renewals, revocations, and what strangers can do with them."""

from __future__ import annotations

import time

import pytest
from msgspec.structs import astuple, replace

from node.chain.contract.swarm import signed_words
from node.chain.relay.batch_calls import registrations_call, revocations_call
from node.chain.relay.signatures import sign
from node.localnet.local_chain import LocalChain
from protocols.signed_messages import SignedDelegation, SignedRevocation
from protocols.typed_data import Delegation, Revocation, TypedMessage
from tests.contracts.conftest import Refused, Swarm, key, parameters, skipped

pytestmark = pytest.mark.integration

OWNER, NODE, STRANGER = 20, 1, 30
HONEST, REFUSING, REVERTING, BURNING, FLOODING, SHORT = range(6)
FOR_EVER = 2**32 - 1


def submit(swarm: Swarm, signed: SignedDelegation) -> None:
    swarm.send(9, "register", signed_words(signed))


def entry(swarm: Swarm, node: int) -> tuple[str, int, int, int]:
    found: tuple[str, int, int, int] = swarm.view("nodes", swarm.accounts[node])
    return found


def test_a_node_is_registered_for_its_owner(swarm: Swarm) -> None:
    """Anybody submits it; owner and node need no money; the event carries what a leaderboard needs."""
    for number in (OWNER, NODE):
        swarm.chain.call("anvil_setBalance", swarm.accounts[number], "0x0")
    expiry = swarm.now() + 1000
    (event,) = swarm.register(NODE, OWNER, expiry)
    assert (event.name, event.fields) == (
        "PeerRegistered",
        {"node": swarm.accounts[NODE], "owner": swarm.accounts[OWNER], "since": 1, "expiry": expiry},
    )
    assert entry(swarm, NODE)[:3] == (swarm.accounts[OWNER], 1, expiry)
    assert swarm.view("registeredCount") == 1


def test_an_owner_has_many_nodes(swarm: Swarm) -> None:
    """Each with a delegation of its own; ending one leaves the others."""
    for node in (1, 2, 3):
        swarm.register(node, OWNER)
    swarm.submit(revocations_call([swarm.revocation(2, OWNER)]))
    assert [entry(swarm, node)[2] == FOR_EVER for node in (1, 2, 3)] == [True, False, True]


def test_a_node_without_an_owner_is_its_own(swarm: Swarm) -> None:
    """One signature is enough where both keys are the same."""
    signed = replace(swarm.delegation(NODE), node_signature=b"")
    submit(swarm, signed)
    assert entry(swarm, NODE)[0] == swarm.accounts[NODE]


def test_a_registration_counts_from_the_next_round(swarm: Swarm) -> None:
    """While the next seed is unknown, a key can't have been made for it."""
    swarm.register(NODE)
    assert entry(swarm, NODE)[1] == 1


def test_keys_ground_for_easy_questions_are_worth_nothing(swarm: Swarm) -> None:
    """Once the next seed may be known, who registers counts a round later: for a seed that nobody knows."""
    swarm.register(1)
    swarm.next_stage()
    swarm.mine(3)
    swarm.register(2)
    swarm.wait(100_000)
    swarm.register(3)
    assert [entry(swarm, node)[1] for node in (1, 2, 3)] == [1, 2, 2]


@pytest.mark.parametrize(
    ("owner", "node", "error"),
    [
        (STRANGER, NODE, "BadSignature"),
        (OWNER, STRANGER, "BadNodeSignature"),
    ],
)
def test_both_have_to_sign(swarm: Swarm, owner: int, node: int, error: str) -> None:
    """Nobody takes a key that is not theirs, nor gives a node to who does not want it."""
    said = swarm.delegation(NODE, OWNER).delegation
    with pytest.raises(Refused, match=error):
        submit(swarm, SignedDelegation.of(said, swarm.sign(owner, said), swarm.sign(node, said)))


def test_what_was_signed_can_not_be_changed(swarm: Swarm) -> None:
    """Another expiry, node or owner is another message."""
    signed = swarm.delegation(NODE, OWNER, swarm.now() + 100)
    for changed in (
        replace(signed, expiry=signed.expiry + 1),
        replace(signed, node=swarm.accounts[2]),
        replace(signed, owner=swarm.accounts[21]),
        replace(signed, serial=signed.serial + 1),
    ):
        with pytest.raises(Refused, match="Bad"):
            submit(swarm, changed)


def test_signatures_are_of_one_deployment(chain: LocalChain, swarm: Swarm) -> None:
    """Not of another contract, another chain, nor a chain afresh on which the same contract has the same address."""
    other = Swarm(chain, parameters())
    said = swarm.delegation(NODE, OWNER).delegation
    domains = [
        other.domain,
        replace(swarm.domain, chain_id=1),
        replace(swarm.domain, salt=other.domain.salt),
        replace(swarm.domain, contract=other.address),
    ]
    assert swarm.domain.salt != other.domain.salt
    for domain in domains:
        forged = SignedDelegation.of(said, sign(domain, said, key(OWNER)), sign(domain, said, key(NODE)))
        with pytest.raises(Refused, match="BadNodeSignature"):
            submit(swarm, forged)


def test_a_chain_afresh_makes_another_salt() -> None:
    """A local chain that starts a second later repeats id and addresses, and still takes none of the old signatures."""
    domains = []
    now = int(time.time())
    for started in (now, now + 1):
        with LocalChain(block_seconds=None, accounts=40, arguments=("--timestamp", str(started))) as chain:
            domains.append(Swarm(chain, parameters()).domain)
    first, second = domains
    assert first.salt != second.salt
    assert replace(first, salt=second.salt) == second


def test_the_same_key_under_another_owner_is_refused(swarm: Swarm) -> None:
    """Whoever has registered a node keeps it, even against the node's own signature."""
    swarm.register(NODE, OWNER)
    with pytest.raises(Refused, match="OtherOwner"):
        swarm.register(NODE, STRANGER)


def test_a_renewal_needs_the_owner_alone(swarm: Swarm) -> None:
    """A newer delegation moves the expiry, both ways."""
    swarm.register(NODE, OWNER, swarm.now() + 1000)
    for expiry in (swarm.now() + 5000, swarm.now() + 500):
        signed = replace(swarm.delegation(NODE, OWNER, expiry), node_signature=b"")
        swarm.submit(registrations_call([signed]))
        assert entry(swarm, NODE)[2] == expiry


def test_older_messages_are_refused(swarm: Swarm) -> None:
    """A delegation that a thief has kept does not undo a newer one."""
    old = swarm.delegation(NODE, OWNER, 2**64 - 1)
    swarm.register(NODE, OWNER, swarm.now() + 1000)
    with pytest.raises(Refused, match="OldSerial"):
        submit(swarm, old)


def test_a_revocation_ends_a_delegation_at_once(swarm: Swarm) -> None:
    """The node's next vote is refused; an old delegation does not restore it, a new one of the owner does."""
    swarm.counted(2)
    old = swarm.delegation(NODE, OWNER)
    submit(swarm, old)
    swarm.next_round()
    now, stage, seed = swarm.view("current")[:3]
    (event,) = swarm.send(8, "revoke", revocation_words(swarm.revocation(NODE, OWNER)))
    assert event.fields == {"node": swarm.accounts[NODE], "owner": swarm.accounts[OWNER]}
    with pytest.raises(Refused, match="DelegationOver"):
        swarm.send(NODE, "submitReward", now, stage, seed, 1)
    with pytest.raises(Refused, match="DelegationOver"):
        submit(swarm, old)
    swarm.register(NODE, OWNER)
    swarm.send(NODE, "submitReward", now, stage, seed, 1)


def revocation_words(signed: SignedRevocation) -> tuple[object, ...]:
    return astuple(signed.revocation), signed.owner_signature


def test_only_the_owner_revokes(swarm: Swarm) -> None:
    """Not the node, not a stranger who signs for itself or for the owner, and nobody twice."""
    swarm.register(NODE, OWNER)
    said = swarm.revocation(NODE, OWNER).revocation
    for signer in (NODE, STRANGER):
        with pytest.raises(Refused, match="BadSignature"):
            swarm.send(9, "revoke", revocation_words(SignedRevocation.of(said, swarm.sign(signer, said))))
    with pytest.raises(Refused, match="OtherOwner"):
        swarm.send(9, "revoke", revocation_words(swarm.revocation(NODE, STRANGER)))
    with pytest.raises(Refused, match="NotRegistered"):
        swarm.send(9, "revoke", revocation_words(swarm.revocation(2, OWNER)))
    good = swarm.revocation(NODE, OWNER)
    swarm.send(9, "revoke", revocation_words(good))
    with pytest.raises(Refused, match="DelegationOver"):
        swarm.send(9, "revoke", revocation_words(good))


def test_delegations_expire(swarm: Swarm) -> None:
    """An expired one registers nothing, and a node whose delegation ran out does nothing until it is renewed."""
    swarm.register(NODE, OWNER, swarm.now() + 300)
    with pytest.raises(Refused, match="DelegationOver"):
        swarm.register(2, OWNER, swarm.now())
    swarm.next_round()
    now, stage, seed = swarm.view("current")[:3]
    swarm.wait(300)
    with pytest.raises(Refused, match="DelegationOver"):
        swarm.send(NODE, "submitReward", now, stage, seed, 1)


@pytest.mark.parametrize("serial", [0, 1_735_689_600_000, 2_000_000_000, 2**64 - 1, 4_000_000_000_000])
def test_serials_that_no_clock_shows_are_refused(swarm: Swarm, serial: int) -> None:
    """One in seconds, or of the far future after which no revocation could follow."""
    said = Delegation(swarm.accounts[OWNER], swarm.accounts[NODE], serial, 2**64 - 1)
    with pytest.raises(Refused, match="BadSerial"):
        submit(swarm, SignedDelegation.of(said, swarm.sign(OWNER, said), swarm.sign(NODE, said)))


@pytest.mark.parametrize("broken", ["high s", "v 0", "short", "long", "empty", "zero"])
def test_broken_signatures_are_refused(swarm: Swarm, broken: str) -> None:
    """The twin of a signature with a high s, and what is none."""
    said = swarm.delegation(NODE, OWNER).delegation
    good = swarm.sign(NODE, said)
    order = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
    twin = good[:32] + (order - int.from_bytes(good[32:64], "big")).to_bytes(32, "big") + bytes([55 - good[64]])
    bad = {
        "high s": twin,
        "v 0": good[:64] + bytes([good[64] - 27]),
        "short": good[:64],
        "long": good + b"\0",
        "empty": b"",
        "zero": bytes(65),
    }[broken]
    with pytest.raises(Refused, match="BadNodeSignature"):
        submit(swarm, SignedDelegation.of(said, swarm.sign(OWNER, said), bad))


def test_nobody_registers_the_zero_address(swarm: Swarm) -> None:
    """What no key signs is recovered as zero: it must not pass for a node, nor for an owner."""
    zero = "0x" + "00" * 20
    for owner, node in ((zero, zero), (swarm.accounts[OWNER], zero), (zero, swarm.accounts[NODE])):
        said = Delegation(owner, node, swarm.serial(), 2**64 - 1)
        with pytest.raises(Refused, match="Bad"):
            submit(swarm, SignedDelegation.of(said, bytes(65), swarm.sign(NODE, said)))


# --- contract wallets -------------------------------------------------------------------------------------------------


def wallet(swarm: Swarm, manner: int) -> str:
    """Deploy a wallet whose key is the owner's."""
    signer = bytes(12) + bytes.fromhex(swarm.accounts[OWNER][2:])
    return swarm.create("test/Wallet", signer, manner.to_bytes(32, "big"))


def by_wallet(swarm: Swarm, address: str, message: TypedMessage | None = None) -> SignedDelegation:
    said = message or Delegation(address, swarm.accounts[NODE], swarm.serial(), 2**64 - 1)
    assert isinstance(said, Delegation)
    return SignedDelegation.of(said, swarm.sign(OWNER, said), swarm.sign(NODE, said))


def test_a_contract_wallet_owns_nodes(swarm: Swarm) -> None:
    """It says itself whether it signed (ERC-1271), for a revocation as well."""
    address = wallet(swarm, HONEST)
    submit(swarm, by_wallet(swarm, address))
    assert entry(swarm, NODE)[0] == address
    said = Revocation(address, swarm.accounts[NODE], swarm.serial())
    with pytest.raises(Refused, match="BadSignature"):
        swarm.send(9, "revoke", revocation_words(SignedRevocation.of(said, swarm.sign(STRANGER, said))))
    swarm.send(9, "revoke", revocation_words(SignedRevocation.of(said, swarm.sign(OWNER, said))))
    assert entry(swarm, NODE)[2] <= swarm.now()


@pytest.mark.parametrize("manner", [REFUSING, REVERTING, BURNING, SHORT])
def test_a_hostile_wallet_costs_little_and_sinks_nobody(swarm: Swarm, manner: int) -> None:
    """Beside one that burns all it gets, the others of a batch are registered, for a bounded price."""
    bad = by_wallet(swarm, wallet(swarm, manner))
    data = registrations_call([swarm.delegation(2, 21), bad, swarm.delegation(3, 22)])
    receipt = swarm._mined(9, {"to": swarm.address, "data": data})
    assert int(receipt["gasUsed"], 16) < 500_000
    assert [entry(swarm, node)[1] for node in (2, NODE, 3)] == [1, 0, 1]


def test_of_a_flood_one_word_is_taken(swarm: Swarm) -> None:
    """A wallet that answers with 60,000 bytes is believed, and its bytes are not paid for by copying them."""
    receipt = swarm.mined(9, "register", signed_words(by_wallet(swarm, wallet(swarm, FLOODING))))
    assert int(receipt["gasUsed"], 16) < 100_000


# --- batches ----------------------------------------------------------------------------------------------------------


def test_bad_entries_do_not_sink_a_batch(swarm: Swarm) -> None:
    """Each is told with its place and reason; the good ones count."""
    swarm.register(5, OWNER)
    stranger = swarm.delegation(6, STRANGER)
    batch = [
        swarm.delegation(1, OWNER),
        replace(stranger, owner_signature=bytes(65)),
        swarm.delegation(5, STRANGER),
        swarm.delegation(2),
        swarm.delegation(3, OWNER, expiry=1),
        replace(swarm.delegation(4, OWNER), owner_signature=b"x" * 5000),
    ]
    events = swarm.submit(registrations_call([*batch, batch[0]]))
    assert [event.fields["node"] for event in events if event.name == "PeerRegistered"] == [
        swarm.accounts[1],
        swarm.accounts[2],
    ]
    assert skipped(events) == {
        1: "BadSignature",
        2: "OtherOwner",
        4: "DelegationOver",
        5: "BadSignature",
        6: "OldSerial",
    }
    with pytest.raises(Refused, match="NothingCounted"):
        swarm.submit(registrations_call(batch[:3]))


def test_bad_revocations_do_not_sink_a_batch(swarm: Swarm) -> None:
    """Nor is one counted twice."""
    swarm.register(1, OWNER)
    swarm.register(2, OWNER)
    good = swarm.revocation(1, OWNER)
    events = swarm.submit(
        revocations_call([replace(good, owner_signature=b""), good, good, swarm.revocation(3, OWNER)])
    )
    assert skipped(events) == {0: "BadSignature", 2: "DelegationOver", 3: "NotRegistered"}
    assert entry(swarm, 2)[2] == FOR_EVER


def test_cost_does_not_grow_with_the_swarm(swarm: Swarm) -> None:
    """The thirtieth node pays for its registration what the third does, but for the zeros in its bytes."""
    used = [
        int(swarm.mined(9, "register", signed_words(swarm.delegation(node)))["gasUsed"], 16) for node in range(1, 31)
    ]
    assert max(used[1:]) - min(used[1:]) < 500
