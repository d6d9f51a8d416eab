"""Which questions a peer answers."""

from collections import Counter
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from protocols.assignment import EVERYBODY, assigned_question, assignment

DATA = bytes(range(32))
digests = st.binary(min_size=32, max_size=32)
peers = st.integers(1, 2**160 - 1).map(lambda number: f"0x{number:040x}")


@given(digests, digests, peers, peers, st.integers(0, 9), st.integers(1, 20_000), st.integers(0, 16))
def test_the_common_slots_are_everybodys_and_the_others_a_peers_own(
    data: bytes, seed: bytes, one: str, other: str, stage: int, size: int, common: int
) -> None:
    """Two peers share the first slots, whoever they are; a peer's own slots do not depend on how many are common."""
    mine, theirs = (assignment(data, seed, peer, stage, 16, size, common) for peer in (one, other))

    assert mine[:common] == theirs[:common] == assignment(data, seed, EVERYBODY, stage, common, size)
    assert mine[common:] == assignment(data, seed, one, stage, 16, size)[common:]
    assert all(0 <= question < size for question in mine)


@given(digests, peers, st.integers(0, 3), st.integers(0, 31))
def test_every_part_of_the_key_matters(seed: bytes, peer: str, stage: int, slot: int) -> None:
    """Another data set, seed, peer, stage or slot is another draw; 2**62 questions leave no room for chance."""
    other = f"0x{int(peer, 16) ^ 1:040x}"
    flipped = bytes([seed[0] ^ 1]) + seed[1:]
    keys = [
        (DATA, seed, peer, stage, slot), (bytes(32), seed, peer, stage, slot), (DATA, flipped, peer, stage, slot),
        (DATA, seed, other, stage, slot), (DATA, seed, peer, stage + 1, slot), (DATA, seed, peer, stage, slot + 1),
    ]  # fmt: skip

    assert len({assigned_question(*key, 2**62) for key in keys}) == len(keys)


def chi_square(counts: Counter[int], cells: int) -> float:
    expected = counts.total() / cells
    return sum((counts[cell] - expected) ** 2 / expected for cell in range(cells))


def drawn(size: int) -> list[int]:
    return [
        question
        for number in range(200)
        for peer in range(1, 9)
        for question in assignment(DATA, number.to_bytes(32, "big"), f"0x{peer:040x}", 0, 16, size)
    ]


def test_questions_are_spread_evenly() -> None:
    """25,600 draws over 100 questions: chi-square with 99 degrees of freedom stays below its 99.99 % point (161)."""
    assert chi_square(Counter(drawn(100)), 100) < 161


def test_neighbouring_slots_peers_and_rounds_are_independent() -> None:
    """Pairs of draws over 10 x 10 cells, at each distance that a slot, a peer or a round makes: below 161 again."""
    found = drawn(10)
    for distance in (1, 16, 128):
        pairs = Counter(10 * one + other for one, other in zip(found, found[distance:], strict=False))
        assert chi_square(pairs, 100) < 161
    assert any(one != other for one, other in pairwise(found))
