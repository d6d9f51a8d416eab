"""Introductions: how often they are taken, and of whom. Over real streams they stand in tests/integration."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.identity import NodeKey
from node.identity.rsa import RsaIdentity
from node.machine.inputs import NodeIntroduced
from node.network.reqresp.introductions import IntroductionRate, introduced_by
from protocols.signed_messages import SignedDelegation
from protocols.typed_data import Domain
from protocols.wire import BoundDelegation, Malformed, encode
from tests.support.rsa_keys import stored

KEY, OTHER = NodeKey(bytes([1]) * 32), NodeKey(bytes([2]) * 32)
DOMAIN = Domain(1, "0x" + "c0" * 20, b"s" * 32)
DELEGATION = SignedDelegation(OTHER.address, KEY.address, 1, 2, bytes(65), bytes(65))


@given(st.lists(st.tuples(st.sampled_from("abcdef"), st.floats(0, 20)), max_size=80))
def test_nobody_is_taken_too_often(arrivals: list[tuple[str, float]]) -> None:
    """In any minute a peer is taken once at most, and all together as often as is allowed; else nobody is put off."""
    pace, now = IntroductionRate(60, 4), 0.0
    taken: list[tuple[str, float]] = []
    for peer, later in arrivals:
        now += later
        lately = [each for each, at in taken if now - at < 60]
        allowed = pace.allows(peer, now)
        assert allowed == (peer not in lately and len(lately) < 4)
        taken += [(peer, now)] if allowed else []


def test_a_newcomer_speaks_for_itself() -> None:
    """The delegation of the node that sent it is taken in."""
    assert introduced_by(KEY.peer_id, encode(DELEGATION), DOMAIN) == NodeIntroduced(KEY.address, DELEGATION)


@pytest.mark.parametrize(
    ("peer", "data", "code"),
    [
        (OTHER.peer_id, encode(DELEGATION), "node"),
        ("QmQ1cyNkEkEKajPmwRh4NwgpCjun8rVkmtAv8ttxXStKtA", encode(DELEGATION), "node"),
        (KEY.peer_id, encode(DELEGATION)[:-1], "schema"),
        (KEY.peer_id, bytes(4_000), "size"),
    ],
)
def test_what_is_not_a_newcomers_own_is_refused(peer: str, data: bytes, code: str) -> None:
    """Another node's delegation, and what is none, are counted under their reasons."""
    with pytest.raises(Malformed) as caught:
        introduced_by(peer, data, DOMAIN)
    assert caught.value.code == code


def test_a_newcomer_with_an_rsa_identity_speaks_for_itself() -> None:
    """What it shows under its old peer id is taken in; under another one, or bound for another node, it is refused."""
    rsa = RsaIdentity(stored())
    shown = encode(BoundDelegation(DELEGATION, rsa.bind(DOMAIN, KEY.address)))
    assert introduced_by(rsa.peer_id, shown, DOMAIN) == NodeIntroduced(KEY.address, DELEGATION)
    stolen = encode(BoundDelegation(DELEGATION, rsa.bind(DOMAIN, OTHER.address)))
    for peer, data, code in ((KEY.peer_id, shown, "node"), (rsa.peer_id, stolen, "session")):
        with pytest.raises(Malformed) as caught:
            introduced_by(peer, data, DOMAIN)
        assert caught.value.code == code
