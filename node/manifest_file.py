"""The swarm manifest as a file."""

from __future__ import annotations

from pathlib import Path

import msgspec

from node.config import Config
from node.exits import Exit, Refusal
from node.runtime.game_plugins import load_games
from protocols.manifest import Manifest
from protocols.manifest_rules import parse_manifest


def load_manifest(path: Path) -> Manifest:
    """Read the swarm manifest; its game may come from an installed package. Raises `Refusal` naming file and field."""
    load_games()
    try:
        return parse_manifest(path.read_bytes())
    except OSError as error:
        raise Refusal(Exit.CONFIG, f"cannot read the manifest {path}: {error.strerror}; run `swarm init`") from error
    except ValueError as error:
        raise Refusal(Exit.CONFIG, f"the manifest {path} is not valid: {error}; correct it") from error


def with_contract(config: Config, manifest: Manifest) -> Config:
    """Return the configuration, with the manifest's contract if the configuration names none."""
    if config.chain.contract or manifest.deployment is None:
        return config
    chain = msgspec.structs.replace(config.chain, contract=manifest.deployment.contract)
    return msgspec.structs.replace(config, chain=chain)
