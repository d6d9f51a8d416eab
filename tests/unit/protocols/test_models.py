"""Rules that all peers must agree on, against small models written another way: they must agree on every input."""

from __future__ import annotations

import math
import struct
from collections import defaultdict
from fractions import Fraction
from itertools import pairwise

import pytest
from eth_abi.abi import encode as abi_encode
from hypothesis import given
from hypothesis import strategies as st

from protocols.delegation import FOR_EVER, renews
from protocols.identifiers import keccak256, swarm_id
from protocols.likeness import ALIKE, LONG, NGRAM, are_alike, is_recital, nearness, parts, sketch
from protocols.logps import CERTAIN_LEAST, are_certain, are_possible
from protocols.lots import OWNER_PLACES, by_lot, lot
from protocols.ranking import Score, ranked, round_score, winners
from protocols.schedule import (
    MAX_RELAYERS,
    RELAY_END,
    RELAY_START,
    RELAY_TURNS,
    commit_step,
    relay_turns,
    reveal_step,
    step_number,
    turn_delay,
    turn_order,
)
from protocols.session import statement_bytes
from protocols.tally import (
    ONE_VOTE,
    LeaderboardEntry,
    Registered,
    Rewarded,
    Voted,
    leaderboard,
    leaders,
    read_votes,
    tally,
)
from protocols.typed_data import Delegation, Domain
from protocols.voting import COMMIT_DOMAIN, vote_commitment, vote_salt
from protocols.wire import Completion

PEERS = st.integers(1, 12).map(lambda number: f"0x{number:040x}")
MANY_PEERS = st.sets(st.integers(1, 2**160 - 1), max_size=40).map(lambda found: {f"0x{each:040x}" for each in found})
HASHES = st.binary(min_size=32, max_size=32)
SCORES = st.lists(
    st.builds(Score, PEERS, st.integers(0, 6), st.integers(-8, 24).map(lambda n: n / 4)),
    max_size=12,
    unique_by=lambda score: score.peer,
)


# --- ranking ----------------------------------------------------------------------------------------------------------


@given(SCORES, PEERS, st.integers(0, 4))
def test_a_ranking_is_what_comparing_every_two_gives(scores: list[Score], me: str, least: int) -> None:
    """A peer's rank is the number of peers that beat it: a higher mean, or the same and a lower address."""
    able = [each for each in scores if each.peer != me and each.groups >= least and each.reward > 0]

    def beats(one: Score, other: Score) -> bool:
        left, right = (Fraction(each.reward) / each.groups if each.groups else Fraction() for each in (one, other))
        return left > right or (left == right and one.peer < other.peer)

    for rank, score in enumerate(ranked(scores, me, least)):
        assert sum(beats(other, score) for other in able if other is not score) == rank
    assert len(ranked(scores, me, least)) == len(able)


@given(SCORES, PEERS, st.integers(0, 5), st.integers(0, 4))
def test_winners_are_the_first_of_the_ranking_in_the_contracts_order(
    scores: list[Score], me: str, most: int, least: int
) -> None:
    """Ascending addresses, none twice, never the voter, and nobody outside is better than anybody inside."""
    chosen = winners(scores, me, most, least)
    order = [score.peer for score in ranked(scores, me, least)]
    assert set(chosen) == set(order[:most])
    assert all(one < other for one, other in pairwise(chosen))
    assert me not in chosen


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 20).map(lambda n: n / 4)), min_size=1, max_size=4))
def test_a_round_is_worth_the_mean_of_its_stages(stages: list[tuple[int, float]]) -> None:
    """A stage that was not played counts as zero: leaving one out never pays."""
    played = [(count, reward if count else 0.0) for count, reward in stages]
    score = round_score("0x1", played)
    means = [reward / count if count else 0.0 for count, reward in played]
    assert score.groups == sum(count for count, _ in played)
    if score.groups:
        assert score.mean == pytest.approx(sum(means) / len(means))
    for left_out in range(len(played)):
        fewer = [(0, 0.0) if at == left_out else each for at, each in enumerate(played)]
        assert round_score("0x1", fewer).mean <= score.mean + 1e-9


# --- schedule ---------------------------------------------------------------------------------------------------------


@given(st.integers(0, 1000), st.integers(1, 8))
def test_a_rounds_votes_lie_behind_all_its_stages(number: int, stages: int) -> None:
    """The clock counts stages without gaps; the vote is cast in the step after the last, and revealed in the next."""
    steps = [step_number(number, stage, stages) for stage in range(stages)]
    assert steps == list(range(number * stages, (number + 1) * stages))
    assert commit_step(number, stages) == steps[-1] + 1 == step_number(number + 1, 0, stages)
    assert reveal_step(number, stages) == commit_step(number, stages) + 1


@given(MANY_PEERS, HASHES, st.integers(0, 99), st.integers(0, 3))
def test_everybody_has_one_turn_and_a_later_peer_never_an_earlier_one(
    peers: set[str], seed: bytes, number: int, stage: int
) -> None:
    """Turns are an order of all peers, the same for every order in which they are known; delays grow to a limit."""
    order = turn_order(sorted(peers), seed, number, stage)
    assert order == turn_order(sorted(peers, reverse=True), seed, number, stage)
    assert set(order) == peers
    delays = [turn_delay(peer, order, 2.0) for peer in order]
    assert delays == [2.0 * min(place, MAX_RELAYERS) for place in range(len(order))]
    assert turn_delay("0xoutsider", order, 2.0) == 2.0 * min(len(order), MAX_RELAYERS)


@given(MANY_PEERS, HASHES, st.integers(0, 99))
def test_relayers_divide_the_stage_among_them(peers: set[str], seed: bytes, number: int) -> None:
    """At each turn exactly one relayer submits; the turns lie evenly in their part of the stage."""
    every = sorted(turn for peer in peers for turn in relay_turns(peer, peers, seed, number, 0))
    drawn = min(len(peers), MAX_RELAYERS)
    assert len(every) == (max(RELAY_TURNS, drawn) if drawn else 0)
    assert all(RELAY_START <= turn < RELAY_END for turn in every)
    gaps = {round(later - earlier, 9) for earlier, later in pairwise(every)}
    assert len(gaps) <= 1


@given(MANY_PEERS, HASHES)
def test_a_lot_depends_on_nothing_but_seed_and_peer(peers: set[str], seed: bytes) -> None:
    """Whoever else takes part: of owners with a few keys each, two peers are always in the same order."""
    owners = {peer: peer for peer in peers}
    order = by_lot(peers, owners, seed)
    assert order == sorted(peers, key=lambda peer: lot(seed, peer))
    assert by_lot(order[::2], owners, seed) == order[::2]
    crowd = dict.fromkeys(peers, "0xone")
    assert by_lot(peers, crowd, seed) == order, "one owner's keys among themselves, in turns of OWNER_PLACES"
    assert OWNER_PLACES > 1


# --- votes ------------------------------------------------------------------------------------------------------------


@given(HASHES, HASHES, PEERS, st.lists(PEERS, max_size=5, unique=True), st.integers(0, 2**64 - 1))
def test_a_commitment_is_what_the_contract_computes(
    seed: bytes, salt: bytes, voter: str, named: list[str], number: int
) -> None:
    """The hash of `abi.encode` of its parts, by the library that contracts are called with."""
    packed = b"".join(abi_encode(["address"], [each]) for each in named)
    types = ["bytes32", "uint256", "bytes32", "address", "bytes32", "bytes32"]
    expected = keccak256(abi_encode(types, [COMMIT_DOMAIN, number, seed, voter, keccak256(packed), salt]))
    assert vote_commitment(number, seed, voter, named, salt) == expected


@given(st.lists(st.binary(min_size=96, max_size=96), min_size=2, max_size=8, unique=True))
def test_no_two_rounds_swarms_or_nodes_share_a_salt(parts_of: list[bytes]) -> None:
    """Else the reveal of one vote would open another."""
    salts = {vote_salt(each[:32], each[32:64], each[64:]) for each in parts_of}
    assert len(salts) == len(parts_of)


VOTES = st.lists(
    st.builds(Voted, st.integers(0, 3), PEERS, st.sets(PEERS, min_size=1, max_size=4).map(lambda s: tuple(sorted(s)))),
    max_size=14,
    unique_by=lambda vote: (vote.round, vote.voter),
)
OWNED = st.dictionaries(PEERS, st.integers(100, 104).map(lambda n: f"0x{n:040x}"), min_size=0, max_size=12).map(
    lambda found: {f"0x{number:040x}": f"0x{100 + number % 5:040x}" for number in range(1, 13)} | found
)


@given(VOTES, OWNED, st.integers(1, 3))
def test_a_tally_adds_up_owner_by_owner(votes: list[Voted], owners: dict[str, str], per_owner: int) -> None:
    """Each owner has `per_owner` votes to divide among its voters, at most one each; none for its own nodes."""
    votes = [vote for vote in votes if vote.round == 0]
    expected: dict[str, int] = defaultdict(int)
    for owner in set(owners.values()):
        voters = [vote for vote in votes if owners[vote.voter] == owner]
        for vote in voters:
            for winner in vote.winners:
                if owners[winner] != owner:
                    expected[winner] += min(ONE_VOTE, math.floor(Fraction(ONE_VOTE * per_owner, len(voters))))
    assert tally(votes, owners, per_owner) == dict(expected)


@given(VOTES, OWNED)
def test_a_leaderboard_is_the_sum_of_its_rounds(votes: list[Voted], owners: dict[str, str]) -> None:
    """In whatever order the events are given, and however often; each round's leaders are counted once."""
    registered = [Registered(node, owner) for node, owner in owners.items()]
    rewards = [Rewarded(vote.round, 0, vote.voter, 7) for vote in votes]
    board = leaderboard(registered, votes, rewards)
    assert board == leaderboard(registered[::-1], [*votes[::-1], *votes], [*rewards, *rewards])
    rounds = [tally([vote for vote in votes if vote.round == number], owners) for number in range(4)]
    for entry in board:
        assert entry.votes == sum(each.get(entry.node, 0) for each in rounds)
        assert entry.led == sum(entry.node in leaders(each) for each in rounds)
        assert entry.reward == 7 * sum(vote.voter == entry.node for vote in votes)
    assert sorted(board, key=_best_first) == list(board)


def _best_first(entry: LeaderboardEntry) -> tuple[int, int, str]:
    return -entry.votes, -entry.led, entry.node


@given(VOTES)
def test_votes_are_read_as_the_contract_packs_them(votes: list[Voted]) -> None:
    """Node, number of winners, and each winner's place in the list of names."""
    names = sorted({winner for vote in votes for winner in vote.winners})
    packed = b"".join(
        bytes.fromhex(vote.voter[2:])
        + bytes([len(vote.winners)])
        + b"".join(struct.pack("!H", names.index(winner)) for winner in vote.winners)
        for vote in votes
    )
    assert [(each.voter, each.winners) for each in read_votes(5, names, packed)] == [
        (vote.voter, vote.winners) for vote in votes
    ]
    for cut in range(1, len(packed)):
        try:
            assert len(read_votes(5, names, packed[:cut])) < len(votes)
        except ValueError:
            continue


# --- delegations, sessions, swarms ------------------------------------------------------------------------------------


@given(st.integers(0, 9), st.integers(0, 9), st.integers(0, 9), st.integers(0, 9))
def test_a_renewal_is_later_and_longer(serial: int, expiry: int, known: int, until: int) -> None:
    """Neither alone is worth a transaction; one for ever can't be renewed."""
    new = Delegation("0x" + "1" * 40, "0x" + "2" * 40, serial, expiry)
    assert renews(new, known, until) == (serial > known and expiry > until)
    assert not renews(new, known, FOR_EVER)


@given(st.integers(0, 2**64), st.integers(0, 2**160 - 1), HASHES, st.integers(0, 2**160 - 1))
def test_a_session_and_a_swarm_are_bound_to_one_deployment(chain: int, contract: int, salt: bytes, key: int) -> None:
    """Another chain, contract, salt or key: other bytes to sign, another swarm."""
    place, session = Domain(chain, f"0x{contract:040x}", salt), f"0x{key:040x}"
    others = [
        Domain(chain + 1, place.contract, salt),
        Domain(chain, f"0x{contract ^ 1:040x}", salt),
        Domain(chain, place.contract, bytes(each ^ 255 for each in salt)),
    ]
    signed = {statement_bytes(each, session) for each in (place, *others)} | {
        statement_bytes(place, f"0x{key ^ 1:040x}")
    }
    assert len(signed) == 5
    assert len({swarm_id(each.chain_id, each.contract, each.salt) for each in (place, *others)}) == 4


# --- what a body claims -----------------------------------------------------------------------------------------------


FLOATS = st.floats(width=32, allow_nan=True, allow_infinity=True)


@given(st.lists(FLOATS, max_size=20))
def test_log_probabilities_are_possible_where_each_is(values: list[float]) -> None:
    """Finite and at most 0; the fast test on sign bytes agrees with looking at each number."""
    packed = struct.pack(f"<{len(values)}f", *values)
    assert are_possible(packed) == all(math.isfinite(value) and value <= 0 for value in values)


@given(st.lists(st.sampled_from([0.0, -0.5]), max_size=2 * CERTAIN_LEAST), st.integers(1, 4))
def test_certainty_is_a_matter_of_a_whole_body(values: list[float], shares: int) -> None:
    """Many tokens, all claimed with probability 1, over however many completions."""
    packed = [struct.pack(f"<{len(part)}f", *part) for part in (values[at::shares] for at in range(shares))]
    completions = [Completion("", b"", each, True) for each in packed]
    assert are_certain(completions) == (len(values) >= CERTAIN_LEAST and not any(values))


WORDS = st.lists(st.sampled_from("abcdefgh"), max_size=90)


@given(WORDS, WORDS)
def test_likeness_is_the_share_of_common_n_grams(one: list[str], other: list[str]) -> None:
    """Equal texts are alike; others only where both are long and share four fifths of the longer one's n-grams."""
    grams = [
        {tuple(words[at : at + NGRAM]) for at in range(len(words) - NGRAM + 1)} or {tuple(words)}
        for words in (one, other)
    ]
    small, large = sorted(grams, key=len)
    shared = len(small & large)
    expected = grams[0] == grams[1] or shared >= max(LONG, ALIKE * len(large))
    found = are_alike(sketch(" ".join(one)), sketch(" ".join(other)))
    assert found <= expected, "the pre-filter may miss a pair, and never makes one up"
    if grams[0] == grams[1]:
        assert found


@given(WORDS, st.integers(0, 89))
def test_a_recited_solution_is_near_wherever_it_is_cut(solution: list[str], end: int) -> None:
    """A beginning of the solution is the solution; texts too short to judge give no verdict."""
    text, whole = " ".join(solution[:end]), " ".join(solution)
    verdict = nearness(text, whole)
    assert verdict in (None, True)
    assert (verdict is None) == (min(len(parts(text)), len(parts(whole))) < 24)


@given(st.lists(st.booleans(), max_size=40))
def test_a_body_recites_where_most_of_enough_completions_do(near: list[bool]) -> None:
    """Eight at least, and more than half of them."""
    assert is_recital(near) == (len(near) >= 8 and near.count(True) > near.count(False))
