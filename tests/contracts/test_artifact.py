"""The committed artifact is what the committed source compiles to."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from contracts import load_artifact
from node.localnet.npm_tools import ToolMissingError
from tools.compile_contracts import COMPILED, CONTRACTS, compile_source, find_or_install_solc, sources_of

MOST_BYTES = 24_576
"""EIP-170: the most that may be deployed."""

sources = pytest.mark.parametrize("source", COMPILED, ids=lambda source: source.stem)


@sources
def test_artifact_names_the_committed_source(source: Path) -> None:
    """A change of a source without `make contracts` is noticed even where there is no compiler."""
    artifact = load_artifact(str(COMPILED[source].relative_to(CONTRACTS).with_suffix("")))
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in sources_of(source)))
    assert artifact.source_sha256 == digest.hexdigest()


def test_the_coordinator_can_be_deployed_anywhere() -> None:
    """Its code is below the limit, and no source file is too long to be read in one go."""
    assert load_artifact().runtime_bytes < MOST_BYTES
    assert all(len(path.read_text().splitlines()) < 400 for path in CONTRACTS.glob("*.sol"))


@pytest.mark.integration
@sources
def test_recompiling_gives_the_same_bytes(source: Path) -> None:
    """The pinned compiler makes the committed artifact, byte for byte."""
    try:
        find_or_install_solc()
    except ToolMissingError as error:
        pytest.skip(f"the compiler is not here: {error}")
    assert compile_source(source=source) == COMPILED[source].read_text()
