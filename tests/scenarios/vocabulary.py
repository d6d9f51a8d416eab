"""What can happen in a scenario, by the word that it uses: each line makes inputs of the machine."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from node.machine import inputs as i
from node.machine import transaction_keys as k
from node.machine.delegation import DAY
from node.machine.state import State
from protocols import signed_messages as p
from protocols.delegation import FOR_EVER
from protocols.wire import NOTHING
from tests.scenarios.names import ADDRESSES, Names, Options


class Moment(NamedTuple):
    """When a line is read: the node's clock, the chain's, the machine's state, and what is named so far."""

    now: float
    chain: float
    state: State
    names: Names


Maker = Callable[[Moment, list[str], Options], list[i.AnyInput]]


def place(where: str) -> tuple[int, int]:
    """Return round and stage of "7/0"."""
    round_text, _, stage_text = where.partition("/")
    return int(round_text), int(stage_text)


def delegation(name: str) -> p.SignedDelegation:
    """Return what an owner signs for a peer."""
    return p.SignedDelegation(ADDRESSES["eve"], ADDRESSES[name], 1, 2_000_000_000, bytes(65), bytes(65))


def signed_message(text: str) -> p.SignedMessage:
    """Return the message of "commit:7", "reveal:7", "vote:7", "reward:8/0", "delegation:ada" or "revocation:ada"."""
    kind, _, about = text.partition(":")
    winners = (ADDRESSES["cyd"],)
    match kind:
        case "commit":
            return p.SignedCommitment(int(about), bytes(32), bytes(65))
        case "reveal":
            return p.VoteReveal(int(about), winners, bytes(32))
        case "vote":
            return p.SignedVote(int(about), winners, bytes(65))
        case "reward":
            return p.SignedReward(*place(about), 250_000, bytes(65))
        case "delegation":
            return delegation(about)
        case "revocation":
            return p.SignedRevocation(ADDRESSES["eve"], ADDRESSES[about], 2, bytes(65))
    raise ValueError(f"no such message: {text}")


def key(at: Moment, text: str, options: Options) -> k.TransactionKey:
    """Return the key of "register", "renew:5", "advance:7:0", "commit:7", "reveal:7", "vote:7" or "reward:8:0"."""
    kind, *parts = text.split(":")
    numbers = [int(part) for part in parts]
    match kind:
        case "register":
            return k.RegistrationKey()
        case "renew":
            return k.RenewalKey(*numbers)
        case "advance":
            return k.AdvanceKey(*numbers)
        case "reward":
            return k.MessageKey(p.MessageTopic(p.MessageKind.REWARD, *numbers))
        case _:
            topic = p.MessageTopic(p.MessageKind(kind), *numbers)
            return k.MessageKey(topic, at.names.seed(topic.round, options))


def _start(at: Moment, words: list[str], options: Options) -> list[i.AnyInput]:
    return [i.NodeStarted(doppelganger_protection="doppelganger-protection" in words)]


def _drain(at: Moment, words: list[str], options: Options) -> list[i.AnyInput]:
    return [i.DrainRequested()]


def _stop(at: Moment, words: list[str], options: Options) -> list[i.AnyInput]:
    return [i.StopRequested()]


def _chain(at: Moment, words: list[str], options: Options) -> list[i.AnyInput]:
    if words[0] == "lost":
        return [i.ChainLost("connection refused")]
    return [i.ChainRestored(float(options.get("offset", 0)))]


def _stage(at: Moment, words: list[str], options: Options) -> list[i.AnyInput]:
    round_number, stage = place(words[0])
    seconds = float(options.get("lasts", at.state.parameters.seconds[stage]))
    opened = at.chain - float(options.get("ago", 0))
    return [
        i.StageOpened(
            round_number,
            stage,
            at.names.seed(round_number, options),
            deadline=int(opened + seconds),
            opened=int(opened),
            block=0,
            rewound="rewound" in words,
        )
    ]


def _paused(at: Moment, words: list[str], options: Options) -> list[i.AnyInput]:
    seconds = int(words[0])
    until = int(at.chain) + seconds
    late = at.chain >= at.state.deadline
    return [i.PauseChanged(at.state.round, at.state.stage, until, at.state.deadline + (0 if late else seconds))]


def _resumed(at: Moment, words: list[str], options: Options) -> list[i.AnyInput]:
    until = int(at.chain)
    left = max(0, at.state.paused_until - until)
    return [i.PauseChanged(at.state.round, at.state.stage, until, at.state.deadline - left)]


def _peer(at: Moment, words: list[str], options: Options) -> list[i.AnyInput]:
    since, owner = int(options.get("since", 0)), at.names.owner(options)
    return [i.PeerRegistered(ADDRESSES[name], since, owner) for name in words]


def _funds(at: Moment, words: list[str], options: Options) -> list[i.AnyInput]:
    return [i.FundsChanged({"on": True, "off": False}[words[0]])]


def _delegation(at: Moment, words: list[str], options: Options) -> list[i.AnyInput]:
    expiry = int(at.chain + DAY * float(words[0])) if words[0] != "forever" else FOR_EVER
    return [i.DelegationRead(expiry, int(options.get("renewal", 0)))]


def _introduced(at: Moment, words: list[str], options: Options) -> list[i.AnyInput]:
    return [i.NodeIntroduced(ADDRESSES[name], delegation(name)) for name in words]


def _settled(at: Moment, words: list[str], options: Options) -> list[i.AnyInput]:
    text, outcome, *_ = words
    kind, ok = text.partition(":")[0], outcome == "ok"
    return [i.TransactionSettled(key(at, text, options), ok, f"tx-{kind}" if ok else "", "" if ok else outcome)]


def _announced(at: Moment, words: list[str], options: Options) -> list[i.AnyInput]:
    peer, where = words[:2]
    body, size = (NOTHING, 0) if "nothing" in words else (at.names.body(peer, where, options), 1000)
    message_pool = tuple(signed_message(text) for text in options.get("attached", "").split(",") if text)
    late = "late" in words
    return [
        i.RolloutsAnnounced(ADDRESSES[peer], *place(where), body, size, False, "relays" in words, message_pool, late)
    ]


def _doppelganger(at: Moment, words: list[str], options: Options) -> list[i.AnyInput]:
    round_number, stage = place(words[0])
    body = at.names.body("me", words[0], options)
    return [i.DoppelgangerDetected(round_number, stage, at.names.seed(round_number, options), body)]


def _arrived(at: Moment, words: list[str], options: Options) -> list[i.AnyInput]:
    peer, where = words[:2]
    groups, reward = int(options.get("groups", 16)), float(options.get("reward", 4))
    alike = tuple(ADDRESSES[name] for name in options.get("alike", "").split(",") if name)
    where_from = (ADDRESSES[peer], *place(where), at.names.body(peer, where, options))
    return [i.RolloutsArrived(*where_from, groups, reward, alike, options.get("doubt", ""))]


def _refused(at: Moment, words: list[str], options: Options) -> list[i.AnyInput]:
    peer, where, reason = words[:3]
    missing = tuple(at.names.called(name) for name in options.get("missing", "").split(",") if name)
    return [i.RolloutsRefused(ADDRESSES[peer], *place(where), at.names.body(peer, where, options), reason, missing)]


def _network(at: Moment, words: list[str], options: Options) -> list[i.AnyInput]:
    return [i.NetworkChanged(int(words[0]))]


def _trainer(at: Moment, words: list[str], options: Options) -> list[i.AnyInput]:
    if words[0] == "lost":
        return [i.TrainerLost(words[1] if len(words) > 1 else "killed by signal 9")]
    return [i.TrainerReady(350_000, "cpu", -1)]


def made_under(at: Moment, options: Options) -> bytes:
    """Return the seed that work was done under: the one named, else none, as in old journals."""
    return at.names.called(options["seed"]) if "seed" in options else b""


def _generated(at: Moment, words: list[str], options: Options) -> list[i.AnyInput]:
    groups, seconds = int(options.get("groups", 16)), float(options.get("seconds", 10))
    reward = float(options.get("reward", groups / 4))
    body = at.names.body("me", words[0], options)
    seed = made_under(at, options)
    return [i.RolloutsGenerated(*place(words[0]), body, 1000, groups, reward, seconds, seed=seed)]


def _announced_before(at: Moment, words: list[str], options: Options) -> list[i.AnyInput]:
    where = place(words[0])
    body = NOTHING if "nothing" in words else at.names.body("me", words[0], options)
    size = 0 if "nothing" in words or "gone" in words else 1000
    return [i.AnnouncedBefore(*where, at.names.seed(where[0], options), body, size)]


def _trained(at: Moment, words: list[str], options: Options) -> list[i.AnyInput]:
    own, external = int(options.get("own", 8)), int(options.get("external", 8))
    seconds = float(options.get("seconds", 5))
    off_policy = tuple(at.names.called(name) for name in options.get("off_policy", "").split(",") if name)
    return [i.TrainingFinished(*place(words[0]), 1, own, external, 0.1, seconds, off_policy)]


def _failed(at: Moment, words: list[str], options: Options) -> list[i.AnyInput]:
    return [i.WorkFailed(words[0], *place(words[1]), words[2], made_under(at, options))]


def _evaluated(at: Moment, words: list[str], options: Options) -> list[i.AnyInput]:
    return [i.EvaluationFinished(int(words[0]), float(words[1]), 400, 3.0)]


def _saved(at: Moment, words: list[str], options: Options) -> list[i.AnyInput]:
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
    "delegation": _delegation,
    "introduced": _introduced,
    "settled": _settled,
    "announced": _announced,
    "doppelganger": _doppelganger,
    "arrived": _arrived,
    "refused": _refused,
    "network": _network,
    "trainer": _trainer,
    "generated": _generated,
    "announced-before": _announced_before,
    "trained": _trained,
    "failed": _failed,
    "evaluated": _evaluated,
    "saved": _saved,
}
