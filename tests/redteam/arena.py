"""One swarm with honest nodes and every attacker at once, and the record of what came of it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

import httpx
import msgspec

from node.data.arithmetic import Draws, problems
from node.localnet.demo_watch import NodeReader, VoteReader, node_url
from node.machine.status import Status
from protocols.identifiers import Address
from protocols.manifest import DataSpec, GameSpec, Limits, Manifest, StageSpec, VotingSpec
from protocols.tally import Voted, leaders, tally
from tests.integration.small_swarm import Member, SmallSwarm
from tests.redteam.attacks import ATTACKS, Attack
from tests.redteam.ring import Ring

HONEST = 4
STAGE_SECONDS = 10
START_SECONDS = 90.0
PEACE, FLOOD = 3, 3
"""Rounds of play before the flood and with it, at least; votes on the last ones are not waited for."""
PATIENCE = 8
"""Rounds more in which honest nodes may find attackers out: who has had a body refused is not asked for some rounds."""
FLOODED = ("rate-limit", "frame-size", "ip-banned")
"""What honest nodes count of a flood."""
TICKS = os.sysconf("SC_CLK_TCK")
_REFUSED = re.compile(r'^swarm_gossip_dropped_total\{\w+="([^"]+)"\} ([0-9.e+]+)$', re.MULTILINE)

REMARK = (
    "Let us write down what the question tells, then take one step after the other, each on a line of its own, and "
    "close with the number that was asked for."
)
"""What makes a solution long enough to be recognised; those of the built-in problems are not."""


def manifest_for(questions: Path) -> Manifest:
    """Return the manifest of a swarm with the questions of a file, whose solutions are long and public."""
    return Manifest(
        name="red team",
        data=DataSpec(source=f"jsonl:{questions}", held_out=4),
        game=GameSpec(num_prompts=6, min_prompts=4, common=2, num_generations=8, local_groups=4, external_groups=8),
        stages=(StageSpec(name="play", seconds=STAGE_SECONDS),),
        voting=VotingSpec(winners=2, minimum_groups=2),
        limits=Limits(inline=16, turn_seconds=1),
    )


def write_questions(path: Path) -> None:
    """Write generated problems with worded solutions as JSON lines."""
    drawn = islice(problems(Draws("red team"), held_out=False), 512)
    held_out = islice(problems(Draws("red team"), held_out=True), 64)
    found = {each.question: f"{REMARK}\n{each.answer}" for each in (*drawn, *held_out)}
    path.write_bytes(msgspec.json.Encoder().encode_lines([{"question": q, "answer": a} for q, a in found.items()]))


class Usage(msgspec.Struct, frozen=True):
    """What a node's process used: the largest resident memory in bytes, the share of one core."""

    memory: int
    cpu: float


class Refused(msgspec.Struct, frozen=True):
    """A line of a node's log that says that a body counts for nothing."""

    peer: Address
    reason: str


class Record(msgspec.Struct, kw_only=True):
    """The swarm after its last round. `played` are the rounds in which everybody counted and whose votes are closed."""

    honest: tuple[Address, ...]
    attackers: dict[str, Address]
    ring: tuple[Address, ...]
    owners: dict[Address, Address]
    votes: tuple[Voted, ...]
    played: range
    statuses: tuple[Status, ...]
    counted: Counter[str]
    reasons: dict[Address, set[str]]
    logs: str
    peace: tuple[Usage, ...]
    flood: tuple[Usage, ...]
    wall: float

    def votes_for(self, attacker: str) -> list[Voted]:
        """Return the honest votes that name an attacker."""
        address = self.attackers[attacker]
        return [vote for vote in self.votes if vote.voter in self.honest and address in vote.winners]

    def undetected(self, attacker: str) -> list[str]:
        """Return what an attacker should have made honest nodes say, and has not."""
        return undetected(ATTACKS[attacker], self.counted, self.reasons.get(self.attackers[attacker], set()))

    def led(self, attacker: str) -> list[int]:
        """Return the rounds that an attacker won, by everybody's votes."""
        return [number for number in self.played if self.attackers[attacker] in self.winners(number)]

    def winners(self, round_number: int) -> tuple[Address, ...]:
        """Return who leads a round by everybody's votes."""
        return leaders(tally([vote for vote in self.votes if vote.round == round_number], self.owners))


class Arena:
    """The swarm under attack. Use as a context manager: every process is ended."""

    def __init__(self, home: Path) -> None:
        self.names = list(ATTACKS)
        write_questions(home / "questions.jsonl")
        manifest = manifest_for(home / "questions.jsonl")
        self.swarm = SmallSwarm(manifest, home, (0.02,) * (HONEST + len(self.names)))
        self._processes: list[subprocess.Popen[bytes]] = []
        self._reader = NodeReader()

    @contextmanager
    def running(self) -> Iterator[Arena]:
        """Start honest nodes, then the attackers; end all."""
        with self.swarm:
            try:
                for member in self.honest:
                    member.start()
                for name, member in zip(self.names, self.attackers, strict=True):
                    (member.home / "attack").write_text(name)
                self.spawn("tests.redteam.hostile_node", *(str(member.home) for member in self.attackers))
                self.spawn("tests.redteam.load", "eclipse", str(self.honest[-1].home))
                self.spawn("tests.redteam.load", "flood", *(str(member.home) for member in self.honest))
                yield self
            finally:
                for process in self._processes:
                    os.killpg(process.pid, signal.SIGKILL)
                    process.wait()
                self._reader.close()

    @property
    def honest(self) -> list[Member]:
        """The honest members."""
        return self.swarm.members[:HONEST]

    @property
    def attackers(self) -> list[Member]:
        """The attackers, in the order of their names."""
        return self.swarm.members[HONEST:]

    def spawn(self, module: str, *arguments: str) -> None:
        """Start a module of this package in a process group of its own. Not in a session: Linux shares the processor
        out by session, and eleven attackers with one node's share would be too slow to be found out."""
        log = (self.honest[0].home.parent / f"{module}-{arguments[0].replace('/', '-')[-20:]}.log").open("wb")
        self._processes.append(
            subprocess.Popen(
                [sys.executable, "-m", module, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                process_group=0,
            )
        )

    def play(self) -> Record:
        """Play all rounds and return what came of them."""
        began = time.monotonic()
        swarm, ring = self.swarm, Ring(self.swarm)
        ring.register()
        registered = len(swarm.members) + len(ring.addresses)
        assert swarm.wait(START_SECONDS, lambda: len(swarm.registered()) == registered), self.logs()[-1500:]
        first, accomplice = max(swarm.registered().values()), self.attackers[self.names.index("liar")].address
        self.until(first + 1)
        ring.commit(first, accomplice)
        self.until(first + 2)
        ring.reveal(first, accomplice)
        peace = self.measured(first + PEACE)
        self.play_until(self.all_found)
        (self.honest[0].home.parent / "flood").touch()
        flood = self.measured(swarm.round() + FLOOD)
        self.play_until(lambda: self.counted().keys() >= set(FLOODED))
        votes = VoteReader(swarm.chain.url, swarm.contract.address).votes()
        peers = swarm.contract.events.PeerRegistered().get_logs(from_block=0)
        owners = {str(log["args"]["node"]).lower(): str(log["args"]["owner"]).lower() for log in peers}
        return Record(
            honest=tuple(member.address for member in self.honest),
            attackers={name: member.address for name, member in zip(self.names, self.attackers, strict=True)},
            owners=owners,
            votes=tuple(Voted(vote.round, vote.voter, vote.winners) for vote in votes),
            ring=ring.addresses,
            played=range(first, swarm.round() - 2),
            statuses=tuple(self.status(member) for member in self.honest),
            counted=self.counted(),
            reasons=self.reasons(),
            logs=self.logs(),
            peace=peace,
            flood=flood,
            wall=time.monotonic() - began,
        )

    def counted(self) -> Counter[str]:
        """Return what honest nodes have refused on the network, by reason."""
        return sum((refused_by(member) for member in self.honest), Counter())

    def reasons(self) -> dict[Address, set[str]]:
        """Return for which reasons bodies of each peer count for nothing, as honest nodes have logged."""
        found: defaultdict[Address, set[str]] = defaultdict(set)
        for line in self.logs().splitlines():
            if '"rollouts.refused"' in line or '"rollouts.uncounted"' in line:
                told = msgspec.json.decode(line, type=Refused)
                found[told.peer].add(told.reason)
        return dict(found)

    def all_found(self) -> bool:
        """Return True if every attacker has been found out."""
        counted, reasons = self.counted(), self.reasons()
        return not any(
            undetected(ATTACKS[name], counted, reasons.get(member.address, set()))
            for name, member in zip(self.names, self.attackers, strict=True)
        )

    def play_until(self, holds: Callable[[], bool]) -> None:
        """Play some rounds more, while something does not hold yet."""
        for _ in range(PATIENCE):
            if holds():
                return
            self.until(self.swarm.round() + 1)

    def until(self, round_number: int) -> None:
        """Wait for a round."""
        patience = (round_number - self.swarm.round() + 2) * (STAGE_SECONDS + 8)
        assert self.swarm.wait(patience, lambda: self.swarm.round() >= round_number), self.logs()[-1500:]

    def measured(self, until: int) -> tuple[Usage, ...]:
        """Wait for a round; return what each honest node used meanwhile."""
        pids = [member.process.pid for member in self.honest if member.process]
        before, began = [cpu_seconds(pid) for pid in pids], time.monotonic()
        peaks = dict.fromkeys(pids, 0)

        def watched() -> bool:
            for pid in pids:
                peaks[pid] = max(peaks[pid], resident(pid))
            return self.swarm.round() >= until

        assert self.swarm.wait((until - self.swarm.round() + 2) * (STAGE_SECONDS + 8), watched), self.logs()[-1500:]
        took = time.monotonic() - began
        return tuple(
            Usage(peaks[pid], (cpu_seconds(pid) - used) / took) for pid, used in zip(pids, before, strict=True)
        )

    def status(self, member: Member) -> Status:
        """Return what an honest node says of itself."""
        status = self._reader.status(member.home)
        assert status is not None
        return status

    def logs(self) -> str:
        """Return what the honest nodes have logged."""
        return "\n".join((member.home / "log").read_text() for member in self.honest if (member.home / "log").exists())


def undetected(attack: Attack, counted: Counter[str], reasons: set[str]) -> list[str]:
    """Return what an attack should have made honest nodes say, and has not."""
    return [each for each in attack.counted if not counted[each]] + [
        each for each in attack.reasons if each not in reasons
    ]


def refused_by(member: Member) -> Counter[str]:
    """Return what a node has refused, by reason, as its metrics say."""
    text = httpx.get(f"{node_url(member.home)}/metrics", timeout=5.0, trust_env=False).text
    return Counter({reason: int(float(count)) for reason, count in _REFUSED.findall(text)})


def cpu_seconds(pid: int) -> float:
    """Return the processor time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def resident(pid: int) -> int:
    """Return the resident memory of a process in bytes."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
