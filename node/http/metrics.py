"""Metrics for Prometheus, read from the node's status at each scrape."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Literal, get_args

import msgspec
from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from node.machine.status import Phase, Status

PREFIX = "swarm_"

Counters = Callable[[], Mapping[str, Mapping[str, int]]]
"""Counts kept outside the machine, by metric and label: `{"gossip_dropped": {"schema": 3}}`."""

Samples = list[tuple[tuple[str, ...], float]]


class Read(msgspec.Struct, frozen=True):
    """One metric of the status: name without prefix, help text, label names, and the function that reads it."""

    name: str
    help: str
    labels: tuple[str, ...]
    read: Callable[[Status], Samples]


def _single(read: Callable[[Status], float]) -> Callable[[Status], Samples]:
    return lambda status: [((), float(read(status)))]


def _phases(status: Status) -> Samples:
    return [((phase,), float(phase == status.phase)) for phase in get_args(Phase)]


def _refusals(status: Status) -> Samples:
    return [((reason,), float(count)) for reason, count in sorted(status.refused.items())]


def _services(status: Status) -> Samples:
    presence = {"chain": status.chain, "network": status.network, "trainer": status.trainer}
    return [((name,), float(value == "present")) for name, value in presence.items()]


GAUGES = (
    Read("phase", "1 for the phase the node is in, else 0", ("phase",), _phases),
    Read("round", "Current round; -1 before the first is known", (), _single(lambda s: s.round)),
    Read("stage", "Current stage of the round", (), _single(lambda s: s.stage)),
    Read(
        "stage_deadline_seconds", "Deadline of the stage, local Unix time in seconds", (), _single(lambda s: s.deadline)
    ),
    Read(
        "paused_until_seconds",
        "When the organiser's pause ends, local Unix time in seconds; 0 while the swarm runs",
        (),
        _single(lambda s: s.paused_until),
    ),
    Read("registered", "1 if the contract knows this node", (), _single(lambda s: s.registered)),
    Read(
        "delegated_until_seconds",
        "When the owner's delegation ends, local Unix time in seconds; 0 if it is not known or never ends",
        (),
        _single(lambda s: s.delegated_until),
    ),
    Read("service_up", "1 if chain, network or trainer is up", ("service",), _services),
    Read("connected_peers", "Peers connected over libp2p", (), _single(lambda s: s.connected)),
    Read("round_peers", "Peers that count in the current round", (), _single(lambda s: len(s.peers))),
    Read("reward", "Mean reward of the node's latest own rollouts, 0 to 1", (), _single(lambda s: s.reward)),
    Read("accuracy", "Latest held-out accuracy, 0 to 1; 0 before the first", (), _single(lambda s: s.accuracy)),
)
"""Every gauge."""

TOTALS = {
    "rounds_worked": "Rounds in which the node made updates or rollouts",
    "rounds_skipped": "Whole rounds skipped",
    "stages_skipped": "Stages skipped",
    "updates": "GRPO updates made",
    "own_groups": "Own groups trained on",
    "external_groups": "Groups of other peers trained on",
    "votes": "Votes that were mined",
    "votes_failed": "Votes that were refused or too late",
    "bodies_accepted": "Bodies of peers that passed every check",
}
"""Help text of the fields of `Totals` that are counters without labels (NAME_total), since the node's first start."""

LABELLED = (
    Read(
        "bodies_refused",
        "Bodies of peers that do not count, by reason (reasons.md), since the node's first start",
        ("reason",),
        _refusals,
    ),
)
"""Every counter of the status with labels."""

KINDS = {
    "grading": ("event", "Completions that exceeded their grader's limit of time, memory or size (gave_up)"),
    "gossip_dropped": ("reason", "Gossip messages dropped, by reason"),
    "connections": (
        "event",
        "Inbound connections accepted, established, ended; refused: full, ip-banned, peer-banned; lost before the end "
        "of the handshake: silent, evicted, handshake-failed",
    ),
    "body_store": ("event", "Bodies removed to make room on a full disk (removed), or not kept there (not_kept)"),
    "bus": ("event", "Inputs taken, dropped, coalesced or waited for, by source; events lost by slow subscribers"),
}
"""Label and help text of the counts kept outside the machine."""


class StatusCollector(Collector):
    """Turns status and counters into metric families at each scrape."""

    def __init__(self, status: Callable[[], Status], counters: Counters) -> None:
        self._status = status
        self._counters = counters

    def describe(self) -> list[Metric]:
        """Return nothing: the names are known only from a live status."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Yield every family."""
        status = self._status()
        for gauge in GAUGES:
            yield _filled(GaugeMetricFamily(PREFIX + gauge.name, gauge.help, labels=gauge.labels), gauge.read(status))
        for name, text in TOTALS.items():
            yield _filled(CounterMetricFamily(PREFIX + name, text), [((), float(getattr(status.totals, name)))])
        for each in LABELLED:
            yield _filled(CounterMetricFamily(PREFIX + each.name, each.help, labels=each.labels), each.read(status))
        for name, counts in self._counters().items():
            label, text = KINDS.get(name, ("kind", name.replace("_", " ")))
            samples: Samples = [((kind,), float(count)) for kind, count in sorted(counts.items())]
            yield _filled(CounterMetricFamily(PREFIX + _safe(name), text, labels=(label,)), samples)


def _filled(family: GaugeMetricFamily | CounterMetricFamily, samples: Samples) -> Metric:
    for labels, value in samples:
        family.add_metric(labels, value)
    return family


def _safe(name: str) -> str:
    return re.sub("[^a-zA-Z0-9_]", "_", name)


def registry_of(status: Callable[[], Status], counters: Counters) -> CollectorRegistry:
    """Return this node's registry: status, counters, and the process (memory, CPU, open files)."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(StatusCollector(status, counters))
    ProcessCollector(namespace="swarm", registry=registry)
    return registry


Kind = Literal["gauge", "counter"]


def documented() -> list[tuple[str, Kind, tuple[str, ...], str]]:
    """Return (name, kind, labels, help) of every metric of the node itself, for the reference."""
    rows: list[tuple[str, Kind, tuple[str, ...], str]] = [
        (PREFIX + gauge.name, "gauge", gauge.labels, gauge.help) for gauge in GAUGES
    ]
    rows += [(f"{PREFIX}{name}_total", "counter", (), text) for name, text in TOTALS.items()]
    rows += [(f"{PREFIX}{each.name}_total", "counter", each.labels, each.help) for each in LABELLED]
    rows += [(f"{PREFIX}{name}_total", "counter", (label,), text) for name, (label, text) in KINDS.items()]
    return rows
