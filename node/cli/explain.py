"""`swarm explain`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

from node.cli.options import config_flags, config_from, data_dir_option, expanded
from node.config import Config
from node.exits import Exit, Refusal

if TYPE_CHECKING:
    from node.explain.regrade import Regraded
    from node.explain.round_facts import Explanation, PeerActivity, PeerFact
    from node.machine.round_report import RoundReport
    from protocols.manifest import Manifest

ADDRESS = re.compile("0x[0-9a-fA-F]{4,40}[….]*")
"""An address, or the beginning of one as shown in the overview."""


@click.command(short_help="Show how a round's numbers came about.")
@data_dir_option
@click.option("--round", "number", type=click.IntRange(min=0), help="The round; default: the last one voted on.")
@click.option("--peer", default="", metavar="NAME|ID|0x...", help="One peer: its bodies, and its groups graded again.")
@click.option("--offline", is_flag=True, help="Do not read the chain: no tally, and no other nodes' transactions.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@config_flags("identity", "chain.urls", "chain.contract", "trainer.data")
def explain(data_dir: Path, number: int | None, peer: str, offline: bool, as_json: bool, **flags: Any) -> None:
    """Show how a round's numbers came about: rollouts, rewards, ranks, this node's vote and where it is on chain.

    It works with or without a running node, for the last 512 rounds that this node has ranked.
    """
    from node.explain.report_text import overview, peer_text
    from node.manifest_file import load_manifest

    home = expanded(data_dir)
    config = config_from(home, flags)
    account = kept(home, number)
    manifest = load_manifest(home / config.manifest)
    facts = gathered(home, config, manifest, account, offline)
    if not peer:
        click.echo(as_text(facts) if as_json else overview(facts))
        return
    found = peer_named(facts, peer)
    again = graded(home, config, manifest, account, found)
    click.echo(as_text({"peer": found, "graded": again}) if as_json else peer_text(facts, found, again))


def kept(home: Path, number: int | None) -> RoundReport:
    """Return the report of a round. Raises `Refusal` that says which rounds are kept."""
    from node.store.round_reports import FILE, kept_rounds, read_round

    account = read_round(home / FILE, number)
    if account is not None:
        return account
    rounds = kept_rounds(home / FILE)
    if not rounds:
        text = f"{home} has no round reports; a node saves each one when the next round begins; check --data-dir"
    elif number is not None and number > rounds[-1]:
        text = f"this node has not ranked round {number} yet; the last one it ranked is {rounds[-1]}"
    else:
        text = f"round {number} is not kept here; there are {len(rounds)} of the rounds {rounds[0]} to {rounds[-1]}"
    raise Refusal(Exit.UNKNOWN, text)


def gathered(home: Path, config: Config, manifest: Manifest, account: RoundReport, offline: bool) -> Explanation:
    """Return the facts from disk, and from the chain if it can be read."""
    from node.chain.transactions.tx_queue import QueuedTransaction, decode_record
    from node.cli.owner import node_key, peer_id_of
    from node.explain.round_facts import explanation, messages
    from node.machine.transaction_keys import BaseKey, encode_key
    from node.store.outbox import read_records

    stages = [stage.name for stage in manifest.stages]
    keys = [encode_key(each.key) for each in messages(account, stages)]
    kept = map(decode_record, read_records(home / "outbox.sqlite", keys).values())
    records: dict[BaseKey, QueuedTransaction] = {record.key: record for record in kept}
    seen, why = None, "not read (--offline)"
    if not offline:
        try:
            seen = asked(config, manifest, account)
        except Refusal as refused:
            why = f"not known: {refused}"
    peer_id = peer_id_of(home, node_key(home, config.identity))
    return explanation(account, stages, records, seen, peer_id, "" if seen else why)


def asked(config: Config, manifest: Manifest, account: RoundReport) -> PeerActivity:
    """Return the chain's facts about a round. Raises `Refusal`."""
    from node.cli.chain_history import ChainHistory
    from node.cli.onchain import connect
    from node.manifest_file import with_contract

    chain = connect(with_contract(config, manifest).chain)
    history = ChainHistory(chain.request, chain.contract, chain.deployed)
    seen = history.of_round(account, [stage.seconds for stage in manifest.stages])
    owners = {entry.peer: entry.owner for entry in account.entries if entry.owner}
    for node in {node for vote in seen.votes for node in (vote.voter, *vote.winners)} - set(owners):
        owners[node] = chain.entry(node).owner or node
    return msgspec.structs.replace(seen, owners=owners)


def peer_named(facts: Explanation, asked_for: str) -> PeerFact:
    """Return the peer of a round with this name, peer id or address. Raises `Refusal` if there is none or several."""
    wanted = " ".join(asked_for.split())
    found = [
        peer
        for peer in facts.peers
        if wanted == peer.peer_id
        or wanted.lower() == peer.node.name.lower()
        or (ADDRESS.fullmatch(wanted) and peer.node.address.startswith(wanted.lower().rstrip("….")))
    ]
    if len(found) == 1:
        return found[0]
    if found:
        several = ", ".join(peer.node.address for peer in found)
        raise Refusal(Exit.UNKNOWN, f"{len(found)} peers match {asked_for!r}: {several}; give the address of one")
    raise Refusal(
        Exit.UNKNOWN,
        f"no peer of round {facts.round} matches {asked_for!r}; give a three-word name, a peer id or an address from "
        f"`swarm explain --round {facts.round}`",
    )


def graded(
    home: Path, config: Config, manifest: Manifest, account: RoundReport, peer: PeerFact
) -> tuple[Regraded, ...]:
    """Return the peer's bodies graded again, or a note why not: it needs this node's questions."""
    from node.data.load import load_questions
    from node.explain.regrade import Regraded, regrade
    from node.grading.registry import prepare_grader
    from node.store.body_store import BodyReader

    try:
        prepare_grader(manifest.game.grader)
        questions = load_questions(manifest.data, config.trainer.data, manifest.game.grader)
    except (OSError, ValueError) as error:
        note = f"can't be graded again: {error}"
        return tuple(Regraded(stage=stage.stage, note=note if stage.size else "") for stage in peer.stages)
    return regrade(manifest, questions, BodyReader(home / "bodies"), account, peer.node.address, peer.stages)


def as_text(value: object) -> str:
    """Return a value as formatted JSON."""
    return msgspec.json.format(msgspec.json.encode(value), indent=2).decode()
