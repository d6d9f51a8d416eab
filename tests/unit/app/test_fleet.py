"""One peer per GPU: the plan."""

from __future__ import annotations

from pathlib import Path

import pytest

from node.app.fleet import chosen_gpus, environment_of, plan_peers, prepare
from node.cli.run import given
from node.config import Config, GossipSettings, HttpSettings, load_config
from node.exits import Exit, Refusal
from node.identity.secret import SECRET_VARIABLES

HOME = Path("/data")


@pytest.mark.parametrize(
    ("choice", "count", "visible", "expected"),
    [
        ("all", 3, "", ["0", "1", "2"]),
        ("0,2", 3, "", ["0", "2"]),
        ("all", 8, "5,7", ["5", "7"]),
        ("1", 8, "5,7", ["7"]),
        ("all", 0, "GPU-1a2b", ["GPU-1a2b"]),
    ],
)
def test_gpus_are_chosen_among_the_visible_ones(choice: str, count: int, visible: str, expected: list[str]) -> None:
    """CUDA_VISIBLE_DEVICES names them; numbers count among these."""
    assert chosen_gpus(choice, count, visible) == expected


@pytest.mark.parametrize(("choice", "count"), [("all", 0), ("3", 3), ("0,0", 3), ("none", 3), ("", 3), ("-1", 3)])
def test_gpus_that_are_not_there_are_refused(choice: str, count: int) -> None:
    """The line says what may be written."""
    with pytest.raises(Refusal, match="--gpus") as refused:
        chosen_gpus(choice, count, "")
    assert refused.value.code == Exit.USAGE


def test_each_peer_has_a_directory_a_gpu_and_ports_of_its_own() -> None:
    """Ports count up, a port that is left to the system stays so."""
    config = Config(
        http=HttpSettings(port=8087), gossip=GossipSettings(listen=("/ip4/0.0.0.0/tcp/38331", "/ip6/::/tcp/0"))
    )
    first, second = plan_peers(["0", "5"], HOME, config, ["--model", "x"])
    assert (first.name, first.directory, first.environment) == ("gpu-0", HOME / "gpu-0", {"CUDA_VISIBLE_DEVICES": "0"})
    assert first.flags == (
        "--model", "x", "--http-port", "8087", "--listen", "/ip4/0.0.0.0/tcp/38331", "--listen", "/ip6/::/tcp/0",
    )  # fmt: skip
    assert (second.name, second.environment) == ("gpu-5", {"CUDA_VISIBLE_DEVICES": "5"})
    assert second.flags[3:6] == ("8088", "--listen", "/ip4/0.0.0.0/tcp/38332")


def test_peers_can_not_share_a_key() -> None:
    """Two nodes with one key would vote twice."""
    with pytest.raises(Refusal, match="can't be the key of several peers"):
        plan_peers(["0", "1"], HOME, Config(identity="/keys/swarm.pem"), [])


def test_peers_share_configuration_and_manifest(tmp_path: Path) -> None:
    """A change above reaches every peer; preparing again changes nothing."""
    (tmp_path / "swarm.toml").write_text("[trainer]\nlora = 8\n")
    (tmp_path / "manifest.toml").write_text("")
    peer = plan_peers(["0"], tmp_path, Config(), [])[0]
    for _ in range(2):
        prepare(peer, tmp_path, Config())
        assert peer.directory.stat().st_mode & 0o777 == 0o700
    assert load_config(peer.directory, {}, {}).trainer.lora == 8
    assert (peer.directory / "manifest.toml").read_text() == ""
    assert not (peer.directory / "swarm.toml").readlink().is_absolute()


def test_the_environment_s_directory_is_no_peer_s() -> None:
    """Everything else is passed on but the owner's secrets; the GPU is set, and the safe path."""
    peer = plan_peers(["3"], HOME, Config(), [])[0]
    environ = {"SWARM_DATA_DIR": "/x", "SWARM_HTTP_PORT": "1", "CUDA_VISIBLE_DEVICES": "1,3", "HOME": "/root"}
    environ |= dict.fromkeys(SECRET_VARIABLES, "secret")
    assert environment_of(peer, environ) == {"CUDA_VISIBLE_DEVICES": "3", "HOME": "/root", "PYTHONSAFEPATH": "1"}


def test_the_operator_s_flags_are_passed_on() -> None:
    """Whatever is not a peer's own."""
    flags = {
        "trainer__model": "m", "chain__urls": ("ws://a", "ws://b"), "http__port": "9",
        "gossip__listen": ("/ip4/0/tcp/1",), "settings": ("trainer.lora=8",), "log__level": None,
    }  # fmt: skip
    assert given(flags) == ["--chain-url", "ws://a", "--chain-url", "ws://b", "--model", "m", "--set", "trainer.lora=8"]
