"""`swarm status`."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path

import click
import httpx
import msgspec

from node.cli.options import data_dir_option, expanded
from node.exits import Exit, Refusal
from node.machine.status import PeerStatus, Presence, Status

TIMEOUT_SECONDS = 3.0
DAY_SECONDS = 86_400
VOTES_SHOWN = 3
PEERS_SHOWN = 12


class RunningNode(msgspec.Struct):
    """The part of http.json that is needed here."""

    url: str
    pid: int


@click.command()
@data_dir_option
@click.option("--json", "as_json", is_flag=True, help="Print the status as one JSON object.")
def status(data_dir: Path, as_json: bool) -> None:
    """Print the status of the node on this data directory."""
    body = fetch(expanded(data_dir))
    if as_json:
        click.echo(body.decode())
    else:
        click.echo(text_of(msgspec.json.decode(body, type=Status), time.time()))


def fetch(home: Path) -> bytes:
    """Return the running node's status. Raises `Refusal` if no node runs on `home` or it does not answer."""
    try:
        endpoint = msgspec.json.decode((home / "http.json").read_bytes(), type=RunningNode)
    except FileNotFoundError as error:
        raise Refusal(Exit.NOT_RUNNING, f"no node runs on {home}; start it with `swarm run`") from error
    except (OSError, ValueError) as error:
        raise Refusal(Exit.NOT_RUNNING, f"cannot read {home / 'http.json'}: {error}; check --data-dir") from error
    try:
        answer = httpx.get(f"{endpoint.url}/status.json", timeout=TIMEOUT_SECONDS, trust_env=False)
        answer.raise_for_status()
    except httpx.HTTPError as error:
        raise Refusal(
            Exit.NOT_RUNNING,
            f"the node on {home} (process {endpoint.pid}) does not answer at {endpoint.url}: "
            f"{type(error).__name__}; if that process is gone, start it with `swarm run`",
        ) from error
    return answer.content


def text_of(status: Status, now: float) -> str:
    """Return a status as text; `now` is Unix time in seconds."""
    totals = status.totals
    rows = [
        ("node", status.address),
        ("name", status.name),
        ("peer id", status.peer_id),
        ("phase", status.phase),
        ("round, stage", f"{status.round}, {status.stage}" if status.round >= 0 else "not known yet"),
        ("deadline", remaining(status.deadline - now) if status.deadline else "not known yet"),
        *([("paused", f"ends {remaining(status.paused_until - now)}")] if status.paused_until else []),
        ("registered", "yes" if status.registered else "no"),
        *([("delegation", f"ends {remaining(status.delegated_until - now)}")] if status.delegated_until else []),
        ("chain", presence(status.chain)),
        ("network", f"{presence(status.network)}, {status.connected} connected"),
        ("trainer", presence(status.trainer)),
        ("own reward", f"{status.reward:.3f}"),
        ("accuracy", f"{status.accuracy:.1%} held out" if status.curve else "not measured yet"),
        ("rounds", f"{totals.rounds_worked} worked, {totals.rounds_skipped} skipped"),
        (
            "trained on",
            f"{totals.own_groups} own and {totals.external_groups} external groups in {totals.updates} updates",
        ),
        ("peers' work", f"{totals.bodies_accepted} bodies passed{refusals(status.refused)}"),
        ("votes", f"{totals.votes} mined, {totals.votes_failed} failed"),
        *[(f"vote {vote.round}", f"{vote.phase}, {len(vote.winners)} winners") for vote in status.votes[-VOTES_SHOWN:]],
        *[("peer", peer_line(peer)) for peer in status.peers[:PEERS_SHOWN]],
    ]
    hidden = len(status.peers) - PEERS_SHOWN
    rows += [("", f"and {hidden} more peers")] if hidden > 0 else []
    rows += [("last skip", status.last_skip)] if status.last_skip else []
    rows += [("note", status.note)] if status.note else []
    return "\n".join(f"{title:<13} {value}" for title, value in rows)


def refusals(refused: Mapping[str, int]) -> str:
    """Return the numbers of bodies that do not count, by reason, the most frequent first; "" if there are none."""
    counts = sorted(refused.items(), key=lambda each: (-each[1], each[0]))
    return "; not: " + ", ".join(f"{reason} {count}" for reason, count in counts) if counts else ""


def peer_line(peer: PeerStatus) -> str:
    """Return what is known of a peer; its score only if it is negative."""
    score = f" score {peer.peer_score:.0f}" if peer.peer_score <= -1 else ""
    return f"{peer.address} {peer.groups:>4} groups {peer.reward:.3f}{score}"


def remaining(seconds: float) -> str:
    """Return the time until a deadline, or since; in days if it is more than two."""
    if abs(seconds) > 2 * DAY_SECONDS:
        days = round(abs(seconds) / DAY_SECONDS)
        return f"in {days} days" if seconds >= 0 else f"passed {days} days ago"
    return f"in {seconds:.0f} s" if seconds >= 0 else f"passed {-seconds:.0f} s ago"


def presence(value: Presence) -> str:
    """Return a presence as text."""
    return {"present": "up", "absent": "away", "unknown": "not known yet"}[value]
