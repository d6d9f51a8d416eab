"""What every attacker achieves against honest nodes, all at once, on a real chain; docs/threat-model.md."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from protocols.tally import tally
from tests.redteam.arena import FLOODED, HONEST, Arena, Record, Usage

pytestmark = [pytest.mark.integration, pytest.mark.swarm]

MEMORY = 256 << 20
"""Bytes that an honest node without a model may have resident, flooded or not; it has about 130 MiB in peace."""
CPU = 0.5
"""Share of one core that it may use; it uses about 0.1."""


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Record]:
    """The swarm after its last round."""
    arena = Arena(tmp_path_factory.mktemp("redteam"))
    with arena.running():
        yield arena.play()


def assert_fruitless(record: Record, attacker: str) -> None:
    """No honest node voted for the attacker, it leads no round, and was found out as `tests.redteam.attacks` says."""
    assert record.votes_for(attacker) == []
    assert record.led(attacker) == []
    assert record.undetected(attacker) == [], (record.counted, record.reasons)


def test_honest_nodes_win_and_skip_nothing(record: Record) -> None:
    """Attackers or not: every honest node works in every round and votes in it, each round's winner is honest."""
    for status in record.statuses:
        assert (status.totals.rounds_skipped, status.totals.stages_skipped) == (0, 0), status.last_skip
        assert status.totals.votes_failed == 0
    for number in record.played:
        voters = {vote.voter for vote in record.votes if vote.round == number}
        assert set(record.honest) <= voters
        assert set(record.winners(number)) <= set(record.honest)


def test_honest_rollouts_arrive(record: Record) -> None:
    """Every honest node has trained on others' groups, and has at least the bodies of the other honest ones."""
    for status in record.statuses:
        assert status.totals.external_groups > 0
        assert status.totals.bodies_accepted >= (HONEST - 1) * len(record.played)


def test_a_liar_gains_nothing(record: Record) -> None:
    """It reports full reward for worthless rollouts: receivers recompute, and its report decides nothing."""
    assert_fruitless(record, "liar")


def test_a_forger_gains_nothing(record: Record) -> None:
    """Altered and unsigned announcements, messages in others' names, bodies that are not what was announced."""
    assert_fruitless(record, "forger")


def test_a_replayer_gains_nothing(record: Record) -> None:
    """What was said before is a duplicate, then of a past round; its own rollouts of the last round are refused."""
    assert_fruitless(record, "replayer")


def test_an_equivocator_gains_nothing(record: Record) -> None:
    """Two bodies for one stage: all learn of both, and credit neither."""
    assert_fruitless(record, "equivocator")


def test_a_selective_server_gains_nothing(record: Record) -> None:
    """What it announces and lets drip comes to nobody; others' bodies do not wait for it."""
    assert_fruitless(record, "selective server")


def test_a_prompt_tamperer_gains_nothing(record: Record) -> None:
    """Right answers to other questions than those assigned are refused."""
    assert_fruitless(record, "prompt tamperer")


def test_a_cherry_picker_gains_nothing(record: Record) -> None:
    """Hidden completions are noticed, and hidden groups."""
    assert_fruitless(record, "cherry-picker")


def test_a_free_rider_gains_nothing(record: Record) -> None:
    """Another's rollouts under one's own name answer questions that were not one's own."""
    assert_fruitless(record, "free rider")


def test_a_poisoner_gains_nothing(record: Record) -> None:
    """Right answers behind endless repetition are refused, and so not trained on."""
    assert_fruitless(record, "poisoner")


def test_an_oracle_gains_nothing(record: Record) -> None:
    """The data set's own solutions, where they are long enough to be known again, are refused."""
    assert_fruitless(record, "oracle")


def test_a_copier_gains_nothing(record: Record) -> None:
    """Another's completions of the common questions, announced seconds after them, are refused."""
    assert_fruitless(record, "copier")
    assert sum(status.refused.get("copy", 0) for status in record.statuses) > 0, [s.refused for s in record.statuses]


def test_a_ring_of_twenty_keys_weighs_as_one(record: Record) -> None:
    """Twenty keys of one owner bring their accomplice one vote; that they are silent delays nobody's stage."""
    votes = [vote for vote in record.votes if vote.round == record.played[0]]
    assert set(record.ring) <= {vote.voter for vote in votes}
    accomplice = record.attackers["liar"]
    ring_only = [vote for vote in votes if vote.voter in record.ring]
    assert tally(ring_only, record.owners) == {accomplice: 1_000_000}
    assert accomplice not in record.winners(record.played[0])


def test_an_eclipse_from_one_address_fails(record: Record) -> None:
    """The node that twenty strangers on one address crowd gets and gives what the others do."""
    victim = record.statuses[-1]
    assert victim.totals.bodies_accepted >= (HONEST - 1) * len(record.played)
    assert any(record.honest[-1] in vote.winners for vote in record.votes if vote.voter in record.honest)


def test_a_flood_is_shut_out(record: Record) -> None:
    """Too many messages and too large frames cost their senders the connection, new names then the address."""
    assert min(record.counted[reason] for reason in FLOODED) > 0, record.counted


@pytest.mark.parametrize("when", ["peace", "flood"])
def test_memory_and_processor_stay_bounded(record: Record, when: str) -> None:
    """With content attackers, ring and crowd, and with the flood on top."""
    used: tuple[Usage, ...] = getattr(record, when)
    assert max(each.memory for each in used) < MEMORY, used
    assert max(each.cpu for each in used) < CPU, used
