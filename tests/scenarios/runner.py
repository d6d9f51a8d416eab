"""Runs a scenario file: feeds a machine with what the file says happened, writes down what it commands.

The format is described in README.md beside this file. The runner keeps the clock, the timers and the journal; at
every `restart` and at the end it checks that replaying the journal gives the same state and that a snapshot reads back.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from typing import Any

import msgspec

from node.machine import commands as c
from node.machine import inputs as i
from node.machine import views
from node.machine.state import Output, State, initial
from node.machine.step import step
from protocols.manifest import GameSpec, Limits, Manifest, StageSpec, VotingSpec
from tests.scenarios.names import ADDRESSES, Names, Options
from tests.scenarios.vocabulary import INPUTS, Moment

BLOCK_END = "----"
UNSAID: tuple[tuple[str, object], ...] = (("quoted", ()), ("after", 0.0), ("relays", False), ("attached", ()))
"""Fields and values that go without saying."""


def run_file(text: str) -> str:
    """Return the text of a scenario file with every expectation as the machine fulfils it now."""
    scenario = Scenario()
    out = [scenario.run_block(block) for block in blocks(text)]
    scenario.check_replay()
    return "\n".join(out)


def blocks(text: str) -> Iterator[list[str]]:
    """Yield each block's own lines, without its expectation: comments and commands between empty lines."""
    block: list[str] = []
    expected = False
    for line in (*text.splitlines(), ""):
        if not line.strip():
            if block:
                yield block
            block, expected = [], False
        elif line == BLOCK_END:
            expected = True
        elif not expected:
            block.append(line)


class Scenario:
    """One machine with its clock, timers and journal."""

    def __init__(self) -> None:
        self.now = 0.0
        self.timers: dict[str, float] = {}
        self.journal: list[i.Stamped] = []
        self.names = Names()
        self.state = initial(ADDRESSES["me"], Manifest(name="scenario"))
        self.fresh = self.state
        self.offset = 0.0
        self.stopped = False

    def run_block(self, block: list[str]) -> str:
        """Run a block; return it with its output below the line."""
        said = [line for line in block if not line.startswith("#")]
        output = [line for command in said for line in self.run_line(command)]
        if not said:
            return "\n".join(block) + "\n"
        return "\n".join([*block, BLOCK_END, *output]) + "\n"

    def run_line(self, line: str) -> list[str]:
        """Run one command; return what it made the machine do. Raises ValueError for what the format does not know."""
        verb, *rest = shlex.split(line)
        words = [word for word in rest if "=" not in word]
        options = dict(word.split("=", 1) for word in rest if "=" in word)
        if verb in ("swarm", "wait", "restart", "show"):
            return list(
                {"swarm": self.swarm, "wait": self.wait, "restart": self.restart, "show": self.show}[verb](
                    words, options
                )
            )
        if verb not in INPUTS:
            raise ValueError(f"no such command: {line}")
        here = Moment(self.now, self.now + self.offset, self.state, self.names)
        return [line for happened in INPUTS[verb](here, words, options) for line in self.feed(happened)]

    # --- commands of the runner -------------------------------------------------------------------------------------

    def swarm(self, words: list[str], options: Options) -> list[str]:
        """Describe the swarm; a new machine begins."""
        seconds = tuple(int(text) for text in options.get("stages", "60").split(","))
        manifest = Manifest(
            name="scenario",
            game=GameSpec(
                name=options.get("game", "share"),
                num_prompts=int(options.get("generated", 16)),
                min_prompts=int(options.get("minimum", 2)),
            ),
            stages=tuple(
                StageSpec(name=f"stage-{n}", seconds=each, wait=float(options.get("wait", 0.25)))
                for n, each in enumerate(seconds)
            ),
            voting=VotingSpec(mode=options.get("voting", "sealed"), winners=int(options.get("winners", 5))),  # type: ignore[arg-type]
            limits=Limits(rounds_kept=int(options.get("kept", 1)), turn_seconds=int(options.get("turn", 3))),
            evaluate_every=int(options.get("evaluate", 100)),
        )
        self.fresh = self.state = initial(ADDRESSES["me"], manifest)
        return []

    def wait(self, words: list[str], options: Options) -> Iterator[str]:
        """Let seconds pass; timers fire in their order."""
        until = self.now + float(words[0])
        while due := [(at, name) for name, at in self.timers.items() if at <= until]:
            at, name = min(due)
            del self.timers[name]
            self.now = max(self.now, at)
            yield f"{self.now:g}s timer {name}"
            yield from self.feed(i.TimerFired(name))
        self.now = until

    def restart(self, words: list[str], options: Options) -> Iterator[str]:
        """Kill the node and start it again: timers are gone, the state comes from the journal."""
        self.check_replay()
        self.timers.clear()
        self.stopped = False
        self.now += float(options.get("after", 0))
        yield from self.feed(i.NodeStarted(doppelganger_protection="doppelganger-protection" in words))

    def show(self, words: list[str], options: Options) -> Iterator[str]:
        """Print fields of the status; without words the phase and the totals that are not zero."""
        status = msgspec.to_builtins(views.status(self.state))
        if not words:
            totals = " ".join(f"{name}={value}" for name, value in status["totals"].items() if value)
            yield f"{status['phase']} {status['round']}/{status['stage']} {totals}".rstrip()
        for word in words:
            yield from self._shown(word, status[word])

    def _shown(self, word: str, value: Any) -> Iterator[str]:
        if word == "votes":
            for vote in value:
                yield f"vote on {vote['round']}: {vote['phase']} {self.names.name(tuple(vote['winners']))}"
        elif word == "peers":
            for peer in value:
                score = f", score {peer['peer_score']:g}" if peer["peer_score"] < 0 else ""
                yield f"{self.names.name(peer['address'])}: {peer['groups']} groups, mean {peer['reward']:g}{score}"
        elif word == "refused":
            yield "refused " + (" ".join(f"{reason}={count}" for reason, count in value.items()) or "none")
        else:
            yield f"{word}: {value:g}" if isinstance(value, float) else f"{word}: {value}"

    def check_replay(self) -> None:
        """Assert that the journal alone gives the state, and that a snapshot of it reads back."""
        replayed = self.fresh
        for stamped in self.journal:
            replayed, _ = step(replayed, stamped)
        assert replayed == self.state
        assert msgspec.msgpack.decode(msgspec.msgpack.encode(self.state), type=State) == self.state

    # --- feeding the machine ----------------------------------------------------------------------------------------

    def feed(self, happened: i.AnyInput) -> list[str]:
        """Step the machine; keep its timers; return its outputs as text."""
        stamped = i.Stamped(self.now, happened)
        self.journal.append(stamped)
        if isinstance(happened, i.ChainRestored):
            self.offset = happened.offset
        self.state, outputs = step(self.state, stamped)
        for output in outputs:
            if isinstance(output, c.SetTimer):
                self.timers[output.name] = output.at
        return [self.text(output) for output in outputs]

    def text(self, output: Output) -> str:
        """Return a command or notice as a line."""
        fields = msgspec.structs.asdict(output)
        words = [type(output).__name__]
        if "from_round" in fields:
            words.append(f"{fields.pop('from_round')}/{fields.pop('from_stage')} ->")
        if "stage" in fields:
            words.append(f"{fields.pop('round')}/{fields.pop('stage')}")
        fields.pop("size", None)
        if isinstance(output, c.PublishRollouts):
            fields["attached"] = tuple(each for each in output.attached if not isinstance(each, c.ReportReward))
        for name, value in fields.items():
            if (name, value) in UNSAID:
                continue
            words.append(self.names.name(value) if name == "name" else f"{name}={self.names.name(value)}")
        return " ".join(words)
