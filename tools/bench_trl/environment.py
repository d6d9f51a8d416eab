"""An environment of its own for TRL: made once, used again."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import click

from tools.bench_trl.cases import TRL

ROOT = Path(__file__).parents[2]
BESIDE = (
    "torch",
    "transformers",
    "safetensors",
    "tokenizers",
    "numpy",
    "msgspec",
    "structlog",
    "eth-hash[pycryptodome]",
)
"""What our own modules need there; in the versions of the lock, so that both sides run on the same libraries."""

INSTALL_SECONDS = 1800


def python_with_trl(directory: Path) -> str:
    """Return the Python of an environment that has TRL, made in `directory` unless it is there.

    Raises `click.ClickException` in one line where pip can't make it.
    """
    python = directory / "bin" / "python"
    wanted = TRL.partition("==")[2]
    if (
        python.exists()
        and _said(str(python), "from importlib.metadata import version; print(version('trl'))") == wanted
    ):
        return str(python)
    subprocess.run([sys.executable, "-m", "venv", str(directory)], check=True)
    command = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    command += ["--constraint", str(ROOT / "requirements.lock"), TRL, *BESIDE]
    done = subprocess.run(command, capture_output=True, text=True, timeout=INSTALL_SECONDS, check=False)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise click.ClickException(f"pip could not install {TRL} into {directory} ({reason}): check the network")
    return str(python)


def _said(python: str, code: str) -> str:
    return subprocess.run([python, "-c", code], capture_output=True, text=True, check=False).stdout.strip()
