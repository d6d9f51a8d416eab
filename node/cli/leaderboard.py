"""`swarm leaderboard`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from node.cli.options import config_flags, config_from, data_dir_option, expanded

if TYPE_CHECKING:
    from node.cli.onchain import Chain
    from protocols.identifiers import Address
    from protocols.tally import Registered, Rewarded, Voted

ROUNDS = 100


@click.command(short_help="Count the votes on chain.")
@data_dir_option
@click.option(
    "--rounds", type=click.IntRange(min=0), default=ROUNDS, show_default=True, help="Newest rounds; 0 means all."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@config_flags("manifest", "chain.urls", "chain.contract")
def leaderboard(data_dir: Path, rounds: int, as_json: bool, **flags: Any) -> None:
    """Count the votes on chain, as anyone can: from the contract's events alone.

    The rules are in docs/votes.md. Names are those that this data directory knows; no node needs to run.
    """
    from node.cli.chain_history import ChainHistory
    from node.cli.explain import as_text
    from node.cli.known_names import known_peer_ids
    from node.cli.onchain import connect
    from node.explain.leaderboard_rows import Leaderboard, board_text, places_of
    from node.manifest_file import load_manifest, with_contract

    home = expanded(data_dir)
    config = config_from(home, flags)
    if not config.chain.contract and (home / config.manifest).exists():
        config = with_contract(config, load_manifest(home / config.manifest))
    chain = connect(config.chain)
    last = chain.round()
    first = max(0, last - rounds + 1) if rounds else 0
    registered, votes, rewards = ChainHistory(chain.request, chain.contract, chain.deployed).since_round(first)
    board = Leaderboard(
        contract=chain.contract,
        chain=chain.domain.chain_id,
        first=first,
        last=last,
        votes=len(set(votes)),
        places=places_of(owned(chain, registered, votes, rewards), votes, rewards, known_peer_ids(home, config)),
    )
    click.echo(as_text(board) if as_json else board_text(board))


def owned(chain: Chain, registered: list[Registered], votes: list[Voted], rewards: list[Rewarded]) -> list[Registered]:
    """Return the registrations, plus earlier ones that votes and rewards refer to, read from the contract."""
    from protocols.tally import Registered

    known = {one.node for one in registered}
    named: set[Address] = {node for vote in votes for node in (vote.voter, *vote.winners)}
    named |= {one.node for one in rewards}
    earlier = [Registered(node, chain.entry(node).owner or node) for node in sorted(named - known)]
    return [*registered, *earlier]
