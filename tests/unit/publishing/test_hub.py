"""What the way to the hub and back decides without a network."""

from pathlib import Path

import pytest

from node.publishing.hub_push import CREDENTIAL, TokenError, find_token, line_of
from node.publishing.hub_service import RETRY, PushMark, public_name, read_mark
from node.trainer.engines.hub_download import is_whole


def test_pauses_double_up_to_an_hour() -> None:
    """A hub that is away for a day is not asked every minute."""
    assert [RETRY.pause(failures) for failures in range(1, 9)] == [60, 120, 240, 480, 960, 1920, 3600, 3600]


def test_a_directory_of_this_machine_is_not_published(tmp_path: Path) -> None:
    """Of a path only the last part goes into the card; a name on the hub stays."""
    assert public_name(str(tmp_path / "secret-user" / "model")) == "model"
    assert public_name("org/model") == "org/model"
    assert public_name("builtin") == "builtin"


def test_a_mark_of_another_repository_counts_for_nothing(tmp_path: Path) -> None:
    """Nor does a missing or damaged one: the count begins anew."""
    path = tmp_path / "hub.json"
    assert read_mark(path, "a/b") is None
    path.write_text("{")
    assert read_mark(path, "a/b") is None
    path.write_text('{"repo": "a/b", "round": 7}')
    assert read_mark(path, "a/b") == PushMark("a/b", 7)
    assert read_mark(path, "a/c") is None


def test_the_token_comes_from_environment_then_credentials_then_file(tmp_path: Path) -> None:
    """The first place that has one counts."""
    (tmp_path / CREDENTIAL).write_text("from-systemd\n")
    file = tmp_path / "token"
    file.write_text("from-file\n")
    file.chmod(0o600)
    environ = {"HF_TOKEN": "from-environment", "CREDENTIALS_DIRECTORY": str(tmp_path)}
    assert find_token(environ, str(file)) == "from-environment"
    del environ["HF_TOKEN"]
    assert find_token(environ, str(file)) == "from-systemd"
    assert find_token({}, str(file)) == "from-file"


def test_a_token_that_others_may_read_is_not_used(tmp_path: Path) -> None:
    """One line says which file and what to do; so it does for a missing or empty one."""
    file = tmp_path / "token"
    file.write_text("secret")
    file.chmod(0o644)
    with pytest.raises(TokenError, match="chmod 600"):
        find_token({}, str(file))
    with pytest.raises(TokenError, match="cannot read"):
        find_token({}, str(tmp_path / "none"))
    file.write_text("\n")
    file.chmod(0o600)
    with pytest.raises(TokenError, match="has no token"):
        find_token({}, str(file))


def test_an_error_never_shows_the_token() -> None:
    """Whatever a library puts into its message, what is logged is one bounded line without the token."""
    line = line_of(RuntimeError("bad header\n'Bearer hf_abc'" + "x" * 500), "hf_abc")
    assert "hf_abc" not in line
    assert "\n" not in line
    assert len(line) == 300


def test_a_fetch_that_was_cut_off_is_not_taken_for_a_model(tmp_path: Path) -> None:
    """Configuration and every part of the weights must be there."""
    assert not is_whole(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    assert not is_whole(tmp_path)
    (tmp_path / "model.safetensors.index.json").write_text(
        '{"weight_map": {"a": "1.safetensors", "b": "2.safetensors"}}'
    )
    (tmp_path / "1.safetensors").touch()
    assert not is_whole(tmp_path)
    (tmp_path / "2.safetensors").touch()
    assert is_whole(tmp_path)
