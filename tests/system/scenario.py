"""A wide-area scenario: `python -m tests.system.scenario NAME`, as root of a network namespace (`namespaces.INSIDE`).

It ends with 0 and a line per step, or with a failed assertion.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

import msgspec

from tests.system.namespaces import Network
from tests.system.wide_swarm import WideSwarm
from tests.system.wires import Rules

START_SECONDS = 120.0
WHOLE_ROUNDS = 3
VOTE_ROUNDS = 3
"""Rounds after which the vote on a round is over."""
FAR = Rules(delay=0.1, loss=0.02)
"""100 ms each way, and one packet of fifty is lost."""


class Scenario(msgspec.Struct, frozen=True):
    """A swarm of `members`, some behind NATs of their own; then perhaps a partition for two rounds."""

    members: int
    rules: Rules
    stage_seconds: int = 8
    behind_nat: frozenset[int] = frozenset()
    parts: tuple[tuple[int, ...], ...] = ()


SCENARIOS = {
    "far": Scenario(5, FAR),
    "partition": Scenario(5, Rules(delay=0.01), 30, parts=((1, 2), (3, 4, 5))),
    "nat": Scenario(5, Rules(delay=0.01), behind_nat=frozenset({5})),
    "nats": Scenario(5, Rules(delay=0.01), behind_nat=frozenset({4, 5})),
    "far nats": Scenario(5, FAR, behind_nat=frozenset({4, 5})),
    "everything": Scenario(5, FAR, 30, frozenset({4, 5}), ((1, 2, 4), (3, 5))),
}


def play(scenario: Scenario, home: Path) -> None:
    """Play a scenario in a directory. Raises AssertionError, with the end of the logs, where it fails."""
    with Network(scenario.members, scenario.behind_nat) as network:
        network.change(scenario.rules)
        with WideSwarm(network, home, scenario.members, scenario.stage_seconds) as swarm:
            for member in swarm.members:
                member.start()
            first = _start(swarm)
            whole = list(range(first, first + WHOLE_ROUNDS))
            _until(swarm, whole[-1] + 1)
            if scenario.parts:
                whole += _part(network, swarm, scenario)
            _assert_whole(swarm, whole)
            _until(swarm, whole[-1] + VOTE_ROUNDS)
            for number in whole:
                assert swarm.voters(number) == {member.address for member in swarm.members}, _why(swarm, number)
            _say(f"everybody has voted on rounds {whole}")


def _start(swarm: WideSwarm) -> int:
    """Wait until everybody counts; return the first whole round after that."""
    assert swarm.wait(START_SECONDS, lambda: len(swarm.registered()) == len(swarm.members)), _why(swarm)
    first = max(swarm.registered().values()) + 1
    _say(f"all registered in round {swarm.round()}, whole from round {first}")
    _until(swarm, first)
    return first


def _part(network: Network, swarm: WideSwarm, scenario: Scenario) -> list[int]:
    """Part the network for two rounds and join it again as a round opens; return the next round, which must be whole:
    one stage is enough to heal.
    """
    began = swarm.round()
    network.change(msgspec.structs.replace(scenario.rules, parts=scenario.parts))
    _until(swarm, began + 2)
    assert not swarm.is_whole(began + 1), "the partition parted nobody"
    network.change(scenario.rules)
    _say(f"parted in rounds {began} and {began + 1}, joined in round {swarm.round()}")
    _until(swarm, began + 4)
    return [began + 3]


def _assert_whole(swarm: WideSwarm, rounds: list[int]) -> None:
    """Every node ranks a round when the next one opens; the report is written moments later."""
    assert swarm.wait(swarm.stage_seconds, lambda: all(swarm.is_whole(number) for number in rounds)), _why(
        swarm, *rounds
    )
    _say(f"everybody had everybody's rollouts in rounds {rounds}")


def _until(swarm: WideSwarm, number: int) -> None:
    seconds = (number - swarm.round() + 2) * (swarm.stage_seconds + 6)
    assert swarm.wait(seconds, lambda: swarm.round() >= number), _why(swarm)


def _why(swarm: WideSwarm, *rounds: int) -> str:
    names = {member.address: number for number, member in enumerate(swarm.members, 1)}
    heard = {
        number: {names[who]: sorted(names[each] for each in whom) for who, whom in swarm.heard(number).items()}
        for number in rounds
    }
    votes = {number: sorted(names[each] for each in swarm.voters(number)) for number in rounds}
    warned = "\n".join(f"--- {member.home.name}\n{_warnings(member.home / 'log')}" for member in swarm.members)
    return f"{warned}\nround {swarm.round()}, heard {heard}, voted {votes}"


def _warnings(log: Path) -> str:
    lines = [line for line in log.read_text().splitlines() if '"level": "info"' not in line]
    return "\n".join(lines[-15:])


def _say(text: str) -> None:
    sys.stdout.write(f"{time.monotonic() - BEGAN:6.1f} s  {text}\n")
    sys.stdout.flush()


BEGAN = time.monotonic()

if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="system-") as directory:
        play(SCENARIOS[sys.argv[1]], Path(directory))
