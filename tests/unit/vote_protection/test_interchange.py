"""The published form of a vote history."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.vote_protection import SignedHistory, SignedRecord, VoteProtection, decode_history, encode_history

VECTORS = json.loads((Path(__file__).parent / "vectors.json").read_text())
NODE = "0x" + "12" * 20
DEPLOYMENTS, ROUNDS = st.sampled_from([b"", b"d" * 32, b"e" * 32]), st.integers(0, 3)
SEEDS = st.sampled_from([bytes(32), b"s" * 32])
VOTES = st.builds(
    SignedRecord,
    DEPLOYMENTS, st.sampled_from(["commit", "reveal", "vote", "reward"]), ROUNDS, SEEDS, st.binary(max_size=3),
    st.just(1.5),
)  # fmt: skip
ANNOUNCEMENTS = st.builds(
    SignedRecord,
    DEPLOYMENTS, st.just("announce"), ROUNDS, SEEDS, st.binary(min_size=32, max_size=32), st.just(1.5),
    st.integers(0, 2),
)  # fmt: skip
HISTORIES = st.lists(st.one_of(VOTES, ANNOUNCEMENTS), max_size=8, unique_by=lambda signed: signed.place).map(tuple)


@given(HISTORIES)
def test_a_history_reads_back(signed: tuple[SignedRecord, ...]) -> None:
    """Writing and reading changes nothing but the order, and equal histories are equal files."""
    content = encode_history(SignedHistory(NODE, signed))
    read = decode_history(content)
    assert (read.node, set(read.signed)) == (NODE, set(signed))
    assert encode_history(SignedHistory(NODE, read.signed[::-1])) == content


@pytest.mark.parametrize("vector", VECTORS["good"], ids=lambda vector: vector["about"])
def test_good_vectors(vector: dict[str, object], tmp_path: Path) -> None:
    """Each document is taken; what may and may not be signed after its import is what the vector says."""
    history = decode_history(json.dumps(vector["document"]).encode())
    with VoteProtection(tmp_path / "votes.sqlite") as guard:
        guard.merge(history.signed)
        for asked in vector["then"]:  # type: ignore[attr-defined]
            guard.bind(bytes.fromhex(asked["deployment"]))
            seed, payload = bytes.fromhex(asked["seed"]), bytes.fromhex(asked["payload"])
            if asked["kind"] == "announce":
                allowed = guard.admit_announcement(asked["round"], asked["stage"], seed, payload) == payload
            else:
                allowed = guard.admit(asked["kind"], asked["round"], seed, payload)
            assert allowed is asked["allowed"], asked


@pytest.mark.parametrize("vector", VECTORS["bad"], ids=lambda vector: vector["about"])
def test_bad_vectors(vector: dict[str, object]) -> None:
    """Each document is refused as a whole."""
    with pytest.raises(ValueError):
        decode_history(json.dumps(vector["document"]).encode())


@given(st.binary(max_size=100))
def test_junk_is_a_value_error(content: bytes) -> None:
    """What is no such document is refused, whatever it is."""
    with pytest.raises(ValueError):
        decode_history(content)
