"""Loading the configuration."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from node.config import KEYS, Config, load_config
from node.exits import Exit, Refusal


def load(tmp_path: Path, text: str = "", flags: Mapping[str, object] | None = None, **environ: str) -> Config:
    if text:
        (tmp_path / "swarm.toml").write_text(text)
    return load_config(tmp_path, flags or {}, environ)


def complaint(tmp_path: Path, text: str = "", flags: Mapping[str, object] | None = None, **environ: str) -> str:
    with pytest.raises(Refusal) as refused:
        load(tmp_path, text, flags, **environ)
    assert refused.value.code is Exit.CONFIG
    assert "\n" not in str(refused.value)
    return str(refused.value)


def test_nothing_given_is_the_default(tmp_path: Path) -> None:
    """Without file, variables and flags every key has its default."""
    assert load(tmp_path) == Config()


def test_flags_win_over_environment_over_file_over_default(tmp_path: Path) -> None:
    """Each layer overrides the one below, key by key."""
    text = '[http]\nport = 1\nhost = "file"\n[log]\nlevel = "error"'
    config = load(tmp_path, text, {"http.port": 3, "http.host": None}, SWARM_HTTP_PORT="2", SWARM_LOG_LEVEL="debug")
    assert (config.http.port, config.http.host, config.log.level, config.log.format) == (3, "file", "debug", "auto")


def test_text_becomes_the_key_s_type(tmp_path: Path) -> None:
    """Variables are text: numbers, floats and comma-separated lists are read from it."""
    config = load(
        tmp_path,
        SWARM_CHAIN_URLS="ws://a:1, http://b:2",
        SWARM_CHAIN_POLL_SECONDS="0.5",
        SWARM_TRAINER_THREADS="4",
        SWARM_IDENTITY="other.pem",
        SWARM_GOSSIP_ANNOUNCE="",
    )
    assert config.chain.urls == ("ws://a:1", "http://b:2")
    assert (config.chain.poll_seconds, config.trainer.threads, config.identity) == (0.5, 4, "other.pem")
    assert config.gossip.announce == ()


@pytest.mark.parametrize(
    ("text", "unknown", "nearest"),
    [
        ("[chain]\nulrs = []", "chain.ulrs", "chain.urls"),
        ("[chian]\ncontract = ''", "chian", "chain"),
        ("identiy = 'x'", "identiy", "identity"),
        ("port = 1", "port", "http.port"),
        ("[trainer]\nmodle = 'x'", "trainer.modle", "trainer.model"),
    ],
)
def test_an_unknown_key_names_the_nearest(tmp_path: Path, text: str, unknown: str, nearest: str) -> None:
    """A typo in the file is refused with file, key and what was probably meant."""
    line = complaint(tmp_path, text)
    assert f"unknown key {unknown}; did you mean {nearest}" in line
    assert "swarm.toml" in line


@pytest.mark.parametrize(
    ("variable", "nearest"),
    [("SWARM_HTTP_PROT", "SWARM_HTTP_PORT"), ("SWARM_CHAIN_URL", "SWARM_CHAIN_URLS"), ("SWARM_IDENTTY", "IDENTITY")],
)
def test_an_unknown_variable_names_the_nearest(tmp_path: Path, variable: str, nearest: str) -> None:
    """A typo in a variable is refused too, not ignored."""
    line = complaint(tmp_path, "", None, **{variable: "1"})
    assert variable in line
    assert nearest in line


def test_variables_of_others_are_left_alone(tmp_path: Path) -> None:
    """What an orchestrator or the command line sets under the same prefix does no harm."""
    assert load(tmp_path, SWARM_DATA_DIR="/x", SWARM_SERVICE_HOST="10.0.0.1", SWARM_PORT_80_TCP="tcp://x") == Config()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('[http]\nport = "8087"', "http.port: expected int, got str"),
        ("[http]\nport = 70000", "http.port: expected int <= 65535"),
        ("http = 3", "http: expected object, got int"),
        ("[log]\nlevel = 'loud'", "log.level: invalid enum value 'loud'"),
        ("[http", "not valid TOML"),
    ],
)
def test_a_wrong_value_is_named_in_one_line(tmp_path: Path, text: str, expected: str) -> None:
    """File, key, what is expected and what stands there."""
    line = complaint(tmp_path, text)
    assert expected in line
    assert "swarm.toml" in line


def test_a_wrong_flag_or_variable_is_named(tmp_path: Path) -> None:
    """The complaint names the variable or the flag, not the file."""
    assert "SWARM_HTTP_PORT in the environment: expected int" in complaint(tmp_path, SWARM_HTTP_PORT="many")
    assert "http.port among the flags" in complaint(tmp_path, flags={"http.port": "-1"})
    assert "did you mean http.port" in complaint(tmp_path, flags={"http.prot": "1"})


def test_a_section_that_is_no_table_stays_an_error_under_a_variable(tmp_path: Path) -> None:
    """A broken section is reported even where a variable sets a key in it."""
    assert "http" in complaint(tmp_path, "http = 3", SWARM_HTTP_PORT="1")


def test_no_two_keys_share_a_variable() -> None:
    """SECTION_KEY is unambiguous."""
    assert len({key.variable for key in KEYS.values()}) == len(KEYS)


def test_every_key_says_what_it_is_for() -> None:
    """The reference has a line for each key."""
    assert [key.name for key in KEYS.values() if not key.help] == []
