from types import SimpleNamespace
from typing import get_args

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.admission import REASONS, MessageAcceptance, Reason, check_announcement, slot_of
from protocols.manifest import Limits
from protocols.schedule import step_number
from protocols.signed_messages import SignedCommitment
from protocols.wire import NOTHING, Announcement

SWARM, BODY = bytes([7]) * 32, bytes([8]) * 32
ALICE, BOB = "0x" + "a" * 40, "0x" + "b" * 40
LIMITS = Limits()
STAGES = 3


def seed(round_number: int) -> bytes:
    return round_number.to_bytes(32, "big")


def window(round_number: int = 5, stage: int = 1, peers: tuple[str, ...] = (ALICE,)) -> SimpleNamespace:
    kept = range(max(0, round_number - 1), round_number + 1)
    return SimpleNamespace(
        swarm=SWARM, round=round_number, stage=stage, stages=STAGES,
        seeds={number: seed(number) for number in kept}, peers=frozenset(peers),
    )  # fmt: skip


def said(round_number: int = 5, stage: int = 1, **changes: object) -> Announcement:
    plain = Announcement(
        version=1,
        swarm=SWARM,
        round=round_number,
        stage=stage,
        seed=seed(round_number),
        body=BODY,
        size=100,
        inline=b"",
    )
    return msgspec.structs.replace(plain, **changes)


def check(message: Announcement, signer: str = ALICE, origin: str | None = ALICE, known: bytes | None = None) -> Reason:
    return check_announcement(message, signer, origin, window(), LIMITS, known)


@pytest.mark.parametrize(
    ("message", "acceptance", "reason"),
    [
        (said(), "accept", ""),
        (said(5, 0), "accept", ""),
        (said(4, 2), "accept", ""),
        (said(5, 2), "ignore", "early"),
        (said(6, 0), "ignore", "future"),
        (said(3, 2), "ignore", "round"),
        (said(5, 3), "reject", "stage"),
        (said(seed=seed(9)), "ignore", "seed"),
        (said(4, 2, seed=seed(5)), "ignore", "seed"),
        (said(swarm=bytes(32)), "reject", "swarm"),
        (said(size=LIMITS.body + 1), "reject", "size"),
        (said(inline=bytes(LIMITS.inline + 1)), "reject", "size"),
    ],
)
def test_each_rule_has_its_reason(message: Announcement, acceptance: str, reason: str) -> None:
    """In round 5, stage 1 of 3 each rule gives its own reason, from which GossipSub's verdict follows."""
    found = check(message)
    assert (found, REASONS[found].acceptance) == (reason, acceptance)


def test_only_registered_peers_speak() -> None:
    """A stranger is not accepted, and a signature that is not the publisher's is named as such."""
    assert check(said(), signer=BOB, origin=BOB) == "unregistered"
    assert check(said(), signer=BOB, origin=ALICE) == "signature"
    assert check(said(), signer=BOB, origin=None) == "unregistered"
    assert check(said(), signer=ALICE, origin=BOB) == ""


def test_the_next_round_may_have_new_peers() -> None:
    """A stranger's announcement of the next round's first stage is held: it may be registered by then."""
    last = window(stage=STAGES - 1)
    assert check_announcement(said(6, 0), BOB, BOB, last, LIMITS, None) == "early"
    assert check_announcement(said(6, 0), BOB, ALICE, last, LIMITS, None) == "signature"
    assert check_announcement(said(5, 2), BOB, BOB, window(stage=1), LIMITS, None) == "unregistered"


def test_a_slot_is_filled_once() -> None:
    """The same body again is a duplicate, another one for the same slot is an equivocation."""
    assert check(said(), known=BODY) == "duplicate"
    assert check(said(), known=bytes([9]) * 32) == "equivocation"


def test_an_announcement_without_rollouts_fills_the_slot_too() -> None:
    """Who said that it has none is accepted once, whatever it carries, and contradicts itself if it has some then."""
    cargo = (SignedCommitment(1, bytes(32), bytes(65)),)
    nothing = said(body=NOTHING, size=0, attached=cargo)
    assert check(nothing) == ""
    assert check(msgspec.structs.replace(nothing, attached=()), known=NOTHING) == "duplicate"
    assert check(said(), known=NOTHING) == "equivocation"
    assert check(nothing, known=BODY) == "equivocation"


@given(
    st.integers(0, 9), st.integers(0, 4), st.integers(0, 9), st.integers(0, STAGES - 1), st.integers(0, 9),
    st.sampled_from([ALICE, BOB]), st.sampled_from([ALICE, BOB, None]), st.booleans(),
)  # fmt: skip
def test_what_is_accepted_is_in_place(
    round_number: int,
    stage: int,
    now: int,
    now_stage: int,
    seed_round: int,
    signer: str,
    origin: str | None,
    swarm: bool,
) -> None:
    """Nothing is accepted or held but what has the right swarm, sender, seed and a step from the kept rounds to the
    next one; everything of that kind is."""
    message = said(round_number, stage, seed=seed(seed_round), swarm=SWARM if swarm else bytes(32))
    reason = check_announcement(message, signer, origin, window(now, now_stage), LIMITS, None)
    ahead = step_number(round_number, stage, STAGES) - step_number(now, now_stage, STAGES)
    placed = swarm and stage < STAGES and ahead <= 1 and now - 1 <= round_number
    seeded = seed_round == round_number or round_number > now
    known = signer == ALICE or (round_number > now and origin in (None, signer))
    assert (reason in ("", "early")) == (placed and seeded and known)
    assert reason != "" or ahead <= 0


@given(st.integers(0, 9), st.integers(0, STAGES - 1))
def test_what_is_held_is_accepted_one_step_later(now: int, now_stage: int) -> None:
    """A registered peer's announcement of the next step is held, and accepted when the window has moved there."""
    round_number, stage = divmod(step_number(now, now_stage, STAGES) + 1, STAGES)
    message = said(round_number, stage)
    assert check_announcement(message, ALICE, ALICE, window(now, now_stage), LIMITS, None) == "early"
    assert check_announcement(message, ALICE, ALICE, window(round_number, stage), LIMITS, None) == ""


def test_a_reorg_opens_a_new_slot() -> None:
    """The same peer, round and stage under another seed is another slot, so an honest repetition is no equivocation."""
    assert slot_of(said(), ALICE) != slot_of(said(seed=seed(9)), ALICE)
    assert slot_of(said(), ALICE) == slot_of(said(body=bytes(32)), ALICE)


def test_every_reason_has_a_rule() -> None:
    """The table covers exactly the reasons, those of the wire decoder among them; only the empty one accepts."""
    assert set(REASONS) == set(get_args(Reason))
    assert {"size", "schema", "version", "digest"} <= set(REASONS)
    assert [reason for reason, rule in REASONS.items() if rule.acceptance is MessageAcceptance.ACCEPT] == [""]


def test_who_is_rejected_answers_for_it() -> None:
    """A rejected message counts against its forwarder; an author answers for what it signed twice, and no other."""
    for reason, rule in REASONS.items():
        if rule.acceptance is MessageAcceptance.REJECT:
            assert rule.counts_against == "forwarder", reason
    assert {reason for reason, rule in REASONS.items() if rule.counts_against == "author"} == {"", "equivocation"}
