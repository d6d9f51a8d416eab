"""Runs a scenario file: feeds a machine with what the file says happened, writes down what it commands.

The format is described in README.md beside this file. The runner keeps the clock, the timers and the journal; at
every `restart` and at the end it checks that replaying the journal gives the same state and that a snapshot reads back.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from node.machine import commands as c
from node.machine import inputs as i
from node.machine import views
from node.machine.delegation import DAY
from node.machine.state import State, initial
from node.machine.step import step
from protocols import carried as p
from protocols.delegation import FOR_EVER
from protocols.identifiers import body_digest
from protocols.manifest import GameSpec, Limits, Manifest, StageSpec, VotingSpec
from protocols.wire import NOTHING

NAMES = ("me", "ada", "bob", "cyd", "dan", "eve")
ADDRESSES = {name: f"0x{number:040x}" for number, name in enumerate(NAMES, 1)}
BLOCK_END = "----"
UNSAID: tuple[tuple[str, object], ...] = (("quoted", ()), ("after", 0.0), ("relays", False), ("carries", ()))
"""Fields and values that go without saying."""

Options = dict[str, str]


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
        self.names: dict[object, str] = {address: name for name, address in ADDRESSES.items()} | {NOTHING: "nothing"}
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
        return [line for happened in INPUTS[verb](self, words, options) for line in self.feed(happened)]

    # --- commands of the runner -------------------------------------------------------------------------------------

    def swarm(self, words: list[str], options: Options) -> list[str]:
        """Describe the swarm; a new machine begins."""
        seconds = tuple(int(text) for text in options.get("stages", "60").split(","))
        manifest = Manifest(
            name="scenario",
            game=GameSpec(
                name=options.get("game", "share"),
                generated=int(options.get("generated", 16)),
                minimum=int(options.get("minimum", 2)),
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
        yield from self.feed(i.NodeStarted(listen="listen" in words))

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
                yield f"vote on {vote['round']}: {vote['phase']} {self.name(tuple(vote['winners']))}"
        elif word == "peers":
            for peer in value:
                standing = f", standing {peer['standing']:g}" if peer["standing"] < 0 else ""
                yield f"{self.name(peer['address'])}: {peer['groups']} groups, mean {peer['reward']:g}{standing}"
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
        """Step the machine; keep its timers; return its other commands as text."""
        stamped = i.Stamped(self.now, happened)
        self.journal.append(stamped)
        self.state, commands = step(self.state, stamped)
        for command in commands:
            if isinstance(command, c.SetTimer):
                self.timers[command.name] = command.at
        return [self.text(command) for command in commands]

    def text(self, command: c.AnyCommand) -> str:
        """Return a command as a line."""
        fields = msgspec.structs.asdict(command)
        words = [type(command).__name__]
        if "from_round" in fields:
            words.append(f"{fields.pop('from_round')}/{fields.pop('from_stage')} ->")
        if "stage" in fields:
            words.append(f"{fields.pop('round')}/{fields.pop('stage')}")
        fields.pop("size", None)
        if isinstance(command, c.PublishRollouts):
            fields["carries"] = tuple(each for each in command.carries if not isinstance(each, c.ReportReward))
        for name, value in fields.items():
            if (name, value) in UNSAID:
                continue
            words.append(self.name(value) if name == "name" else f"{name}={self.name(value)}")
        return " ".join(words)

    def name(self, value: Any) -> str:
        """Return a value as a scenario calls it."""
        if isinstance(value, tuple):
            return "[" + " ".join(self.name(each) for each in value) + "]"
        if isinstance(value, float):
            return f"{value:.4g}"
        if isinstance(value, p.Load):
            return self.name(value.peer)
        if isinstance(value, c.Command):
            return type(value).__name__
        if isinstance(value, (bytes, str)) and value in self.names:
            return self.names[value]
        return f'"{value}"' if isinstance(value, str) and " " in value else str(value)

    def called(self, name: str) -> bytes:
        """Return the 32 bytes that a scenario calls by this name."""
        value = body_digest(name.encode())
        self.names[value] = name
        return value

    def owner(self, options: Options) -> str:
        """Return the account behind a peer, if one is named."""
        if "owner" not in options:
            return ""
        address = "0x" + self.called(options["owner"]).hex()[:40]
        self.names[address] = options["owner"]
        return address

    def seed(self, round_number: int, options: Options) -> bytes:
        """Return the seed of a round: the one named, else the one that every round has by default."""
        return self.called(options.get("seed", f"seed{round_number}"))

    def body(self, peer: str, where: str, options: Options) -> bytes:
        """Return the digest of a peer's body."""
        return self.called(options.get("body", f"{peer}:{where}"))


# --- what can happen, by the word that a scenario uses ---------------------------------------------------------------

Maker = Callable[[Scenario, list[str], Options], list[i.AnyInput]]


def place(where: str) -> tuple[int, int]:
    """Return round and stage of "7/0"."""
    round_text, _, stage_text = where.partition("/")
    return int(round_text), int(stage_text)


def delegation(name: str) -> p.CarriedDelegation:
    """Return what an owner signs for a peer."""
    return p.CarriedDelegation(ADDRESSES["eve"], ADDRESSES[name], 1, 2_000_000_000, bytes(65), bytes(65))


def carried(text: str) -> p.Carried:
    """Return the message of "commit:7", "reveal:7", "vote:7", "reward:8/0", "delegation:ada" or "revocation:ada"."""
    kind, _, about = text.partition(":")
    winners = (ADDRESSES["cyd"],)
    match kind:
        case "commit":
            return p.CarriedCommitment(int(about), bytes(32), bytes(65))
        case "reveal":
            return p.CarriedReveal(int(about), winners, bytes(32))
        case "vote":
            return p.CarriedVote(int(about), winners, bytes(65))
        case "reward":
            return p.CarriedReward(*place(about), 250_000, bytes(65))
        case "delegation":
            return delegation(about)
        case "revocation":
            return p.CarriedRevocation(ADDRESSES["eve"], ADDRESSES[about], 2, bytes(65))
    raise ValueError(f"no such message: {text}")


def _start(run: Scenario, words: list[str], options: Options) -> list[i.AnyInput]:
    return [i.NodeStarted(listen="listen" in words)]


def _drain(run: Scenario, words: list[str], options: Options) -> list[i.AnyInput]:
    return [i.DrainRequested()]


def _stop(run: Scenario, words: list[str], options: Options) -> list[i.AnyInput]:
    return [i.StopRequested()]


def _chain(run: Scenario, words: list[str], options: Options) -> list[i.AnyInput]:
    if words[0] == "lost":
        return [i.ChainLost("connection refused")]
    run.offset = float(options.get("offset", 0))
    return [i.ChainRestored(run.offset)]


def _stage(run: Scenario, words: list[str], options: Options) -> list[i.AnyInput]:
    round_number, stage = place(words[0])
    seconds = float(options.get("lasts", run.state.terms.seconds[stage]))
    opened = run.now + run.offset - float(options.get("ago", 0))
    return [
        i.StageOpened(
            round_number,
            stage,
            run.seed(round_number, options),
            deadline=int(opened + seconds),
            opened=int(opened),
            block=0,
            rewound="rewound" in words,
        )
    ]


def _paused(run: Scenario, words: list[str], options: Options) -> list[i.AnyInput]:
    seconds = int(words[0])
    until = int(run.now + run.offset) + seconds
    late = run.now + run.offset >= run.state.deadline
    return [i.PauseChanged(run.state.round, run.state.stage, until, run.state.deadline + (0 if late else seconds))]


def _resumed(run: Scenario, words: list[str], options: Options) -> list[i.AnyInput]:
    until = int(run.now + run.offset)
    left = max(0, run.state.paused_until - until)
    return [i.PauseChanged(run.state.round, run.state.stage, until, run.state.deadline - left)]


def _peer(run: Scenario, words: list[str], options: Options) -> list[i.AnyInput]:
    since, owner = int(options.get("since", 0)), run.owner(options)
    return [i.PeerRegistered(ADDRESSES[name], since, owner) for name in words]


def _funds(run: Scenario, words: list[str], options: Options) -> list[i.AnyInput]:
    return [i.FundsChanged({"on": True, "off": False}[words[0]])]


def _standing(run: Scenario, words: list[str], options: Options) -> list[i.AnyInput]:
    expiry = int(run.now + run.offset + DAY * float(words[0])) if words[0] != "forever" else FOR_EVER
    return [i.DelegationRead(expiry, int(options.get("renewal", 0)))]


def _introduced(run: Scenario, words: list[str], options: Options) -> list[i.AnyInput]:
    return [i.NodeIntroduced(ADDRESSES[name], delegation(name)) for name in words]


def _settled(run: Scenario, words: list[str], options: Options) -> list[i.AnyInput]:
    key, outcome, *_ = words
    kind, _, rest = key.partition(":")
    if kind in ("commit", "reveal", "vote"):
        key = f"{kind}:{rest}:{run.seed(int(rest), options).hex()}"
    ok = outcome == "ok"
    return [i.TransactionSettled(key, ok, f"tx-{kind}" if ok else "", "" if ok else outcome)]


def _announced(run: Scenario, words: list[str], options: Options) -> list[i.AnyInput]:
    peer, where = words[:2]
    body, size = (NOTHING, 0) if "nothing" in words else (run.body(peer, where, options), 1000)
    cargo = tuple(carried(text) for text in options.get("carries", "").split(",") if text)
    late = "late" in words
    return [i.RolloutsAnnounced(ADDRESSES[peer], *place(where), body, size, False, "relays" in words, cargo, late)]


def _heard(run: Scenario, words: list[str], options: Options) -> list[i.AnyInput]:
    round_number, stage = place(words[0])
    body = run.body("me", words[0], options)
    return [i.OwnMessageHeard(round_number, stage, run.seed(round_number, options), body)]


def _arrived(run: Scenario, words: list[str], options: Options) -> list[i.AnyInput]:
    peer, where = words[:2]
    groups, reward = int(options.get("groups", 16)), float(options.get("reward", 4))
    alike = tuple(ADDRESSES[name] for name in options.get("alike", "").split(",") if name)
    where_from = (ADDRESSES[peer], *place(where), run.body(peer, where, options))
    return [i.RolloutsArrived(*where_from, groups, reward, alike, options.get("doubt", ""))]


def _refused(run: Scenario, words: list[str], options: Options) -> list[i.AnyInput]:
    peer, where, reason = words[:3]
    missing = tuple(run.called(name) for name in options.get("missing", "").split(",") if name)
    return [i.RolloutsRefused(ADDRESSES[peer], *place(where), run.body(peer, where, options), reason, missing)]


def _network(run: Scenario, words: list[str], options: Options) -> list[i.AnyInput]:
    return [i.NetworkChanged(int(words[0]))]


def _trainer(run: Scenario, words: list[str], options: Options) -> list[i.AnyInput]:
    if words[0] == "lost":
        return [i.TrainerLost(words[1] if len(words) > 1 else "killed by signal 9")]
    return [i.TrainerReady(350_000, "cpu", -1)]


def _generated(run: Scenario, words: list[str], options: Options) -> list[i.AnyInput]:
    groups, seconds = int(options.get("groups", 16)), float(options.get("seconds", 10))
    reward = float(options.get("reward", groups / 4))
    body = run.body("me", words[0], options)
    return [i.RolloutsGenerated(*place(words[0]), body, 1000, groups, reward, seconds)]


def _trained(run: Scenario, words: list[str], options: Options) -> list[i.AnyInput]:
    own, external = int(options.get("own", 8)), int(options.get("external", 8))
    seconds = float(options.get("seconds", 5))
    incredible = tuple(run.called(name) for name in options.get("incredible", "").split(",") if name)
    return [i.TrainingFinished(*place(words[0]), 1, own, external, 0.1, seconds, incredible)]


def _failed(run: Scenario, words: list[str], options: Options) -> list[i.AnyInput]:
    return [i.WorkFailed(words[0], *place(words[1]), words[2])]


def _evaluated(run: Scenario, words: list[str], options: Options) -> list[i.AnyInput]:
    return [i.EvaluationFinished(int(words[0]), float(words[1]), 400, 3.0)]


def _saved(run: Scenario, words: list[str], options: Options) -> list[i.AnyInput]:
    return [i.CheckpointSaved(int(words[0]))]


INPUTS: dict[str, Maker] = {
    "start": _start,
    "drain": _drain,
    "stop": _stop,
    "chain": _chain,
    "stage": _stage,
    "paused": _paused,
    "resumed": _resumed,
    "peer": _peer,
    "funds": _funds,
    "standing": _standing,
    "introduced": _introduced,
    "settled": _settled,
    "announced": _announced,
    "heard": _heard,
    "arrived": _arrived,
    "refused": _refused,
    "network": _network,
    "trainer": _trainer,
    "generated": _generated,
    "trained": _trained,
    "failed": _failed,
    "evaluated": _evaluated,
    "saved": _saved,
}
