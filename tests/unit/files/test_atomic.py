"""Files that are there whole or not at all."""

import os
import stat
from pathlib import Path

import pytest

from node.files.atomic import create_file, draft_of, remove_drafts, replace_directory, replace_file, replace_link
from node.files.private import create_private, replace_private


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


@pytest.mark.parametrize("durable", [True, False])
def test_a_file_takes_the_place_of_another(tmp_path: Path, durable: bool) -> None:
    """Nothing else stays in the directory, even where an earlier process of this number left a draft."""
    path = tmp_path / "status.json"
    draft_of(path).write_bytes(b"half")
    replace_file(path, b"one", durable=durable)
    replace_file(path, b"two", durable=durable)
    assert path.read_bytes() == b"two"
    assert names(tmp_path) == ["status.json"]


def test_a_new_file_replaces_nothing(tmp_path: Path) -> None:
    """The file that is there keeps its content, and no draft stays."""
    path = tmp_path / "key"
    create_file(path, b"first")
    with pytest.raises(FileExistsError):
        create_file(path, b"second")
    assert path.read_bytes() == b"first"
    assert names(tmp_path) == ["key"]


def test_what_cannot_be_written_leaves_the_file_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that fails at the last moment costs the new content, not the old."""
    path = tmp_path / "file"
    replace_file(path, b"old")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        replace_file(path, b"new")
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["file"]


def test_private_files_are_their_owners(tmp_path: Path) -> None:
    """Mode 0600 from the first byte on, in a directory of mode 0700 where there was none."""
    create_private(tmp_path / "keys" / "one", b"1")
    replace_private(tmp_path / "keys" / "two", b"2")
    assert {stat.S_IMODE((tmp_path / "keys" / name).stat().st_mode) for name in ("one", "two")} == {0o600}
    assert stat.S_IMODE((tmp_path / "keys").stat().st_mode) == 0o700


def test_a_directory_that_is_not_finished_changes_nothing(tmp_path: Path) -> None:
    """An error while it is filled leaves the one before; success replaces it whole."""
    model = tmp_path / "model"
    with replace_directory(model) as fresh:
        (fresh / "a").write_bytes(b"1")
    with pytest.raises(FileNotFoundError), replace_directory(model) as fresh:
        (fresh / "missing" / "b").write_bytes(b"2")
    assert names(model) == ["a"]
    assert names(tmp_path) == ["model"]


def test_drafts_of_others_are_removed(tmp_path: Path) -> None:
    """Files, links and directories that a killed process left; only those of the name asked for."""
    (tmp_path / ".model.1.new").mkdir()
    (tmp_path / ".model.2.new").symlink_to("nowhere")
    (tmp_path / ".model.3.new").write_bytes(b"half")
    (tmp_path / ".other.1.new").write_bytes(b"half")
    remove_drafts(tmp_path, "model")
    assert names(tmp_path) == [".other.1.new"]


def test_a_link_moves_at_once(tmp_path: Path) -> None:
    """It is relative, so that the whole may be moved."""
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    replace_link(tmp_path / "current", tmp_path / "one")
    replace_link(tmp_path / "current", tmp_path / "two")
    assert os.readlink(tmp_path / "current") == "two"
