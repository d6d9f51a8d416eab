"""The committed artifact is what the committed source compiles to."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from contracts import load_artifact
from tools.compile_contracts import COMPILED, compile_source, find_or_install_solc
from tools.node_packages import ToolMissingError


@pytest.mark.parametrize(("source", "artifact"), COMPILED)
def test_artifact_names_the_committed_source(source: Path, artifact: Path) -> None:
    """A change of the source without `make contracts` is noticed even where there is no compiler."""
    assert load_artifact(artifact.stem).source_sha256 == hashlib.sha256(source.read_bytes()).hexdigest()


@pytest.mark.integration
@pytest.mark.parametrize(("source", "artifact"), COMPILED)
def test_recompiling_gives_the_same_bytes(source: Path, artifact: Path) -> None:
    """The pinned compiler makes the committed artifact, byte for byte."""
    try:
        find_or_install_solc()
    except ToolMissingError as error:
        pytest.skip(f"the compiler is not here: {error}")
    assert compile_source(source=source) == artifact.read_text()
