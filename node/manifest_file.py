"""The swarm manifest as a file."""

from __future__ import annotations

from pathlib import Path

from node.exits import Exit, Refusal
from protocols.manifest import Manifest, parse_manifest


def load_manifest(path: Path) -> Manifest:
    """Read the swarm manifest. Raises `Refusal` naming file and field."""
    try:
        return parse_manifest(path.read_bytes())
    except OSError as error:
        raise Refusal(Exit.CONFIG, f"cannot read the manifest {path}: {error.strerror}; run `swarm init`") from error
    except ValueError as error:
        raise Refusal(Exit.CONFIG, f"the manifest {path} is not valid: {error}; correct it") from error
