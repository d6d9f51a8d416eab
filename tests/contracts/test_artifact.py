"""The committed artifact is what the committed source compiles to."""

from __future__ import annotations

import hashlib

import pytest

from contracts import load_artifact
from tools.compile_contracts import ARTIFACT, SOURCE, compile_source, find_or_install_solc
from tools.node_packages import ToolMissingError


def test_artifact_names_the_committed_source() -> None:
    """A change of the source without `make contracts` is noticed even where there is no compiler."""
    assert load_artifact().source_sha256 == hashlib.sha256(SOURCE.read_bytes()).hexdigest()


@pytest.mark.integration
def test_recompiling_gives_the_same_bytes() -> None:
    """The pinned compiler makes the committed artifact, byte for byte."""
    try:
        find_or_install_solc()
    except ToolMissingError as error:
        pytest.skip(f"the compiler is not here: {error}")
    assert compile_source() == ARTIFACT.read_text()
