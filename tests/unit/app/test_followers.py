"""What a node starts beside the parts that decide."""

from pathlib import Path

import pytest

from node.app.node import Node
from node.config import ChainSettings, Config, HubSettings, TrackerSettings
from node.identity import load_or_create
from node.store.journal import Journal
from node.vote_protection import VoteProtection
from protocols.manifest import Manifest


@pytest.mark.parametrize(
    ("hub", "trackers", "wanted"),
    [
        (HubSettings(), TrackerSettings(), []),
        (HubSettings(repo="a/b"), TrackerSettings(), ["hub"]),
        (HubSettings(repo="a/b"), TrackerSettings(tensorboard=True), ["hub", "trackers"]),
    ],
)
def test_hub_and_trackers_run_only_where_configured(
    tmp_path: Path, hub: HubSettings, trackers: TrackerSettings, wanted: list[str]
) -> None:
    """By default neither is started: no child, no thread, no file."""
    config = Config(chain=ChainSettings(contract="0x" + "11" * 20), hub=hub, trackers=trackers)
    key = load_or_create(tmp_path / "swarm.pem")
    with VoteProtection(tmp_path / "votes.sqlite") as guard, Journal(tmp_path / "journal.sqlite") as journal:
        node = Node(config, tmp_path, Manifest(name="x"), key, None, journal, guard)
        assert [follower.name for follower in node._bus_followers() if follower.wanted] == wanted
