"""Every scenario file holds: the machine commands what stands below each block."""

from pathlib import Path

import pytest

from tests.scenarios.runner import run_file

FILES = sorted(Path(__file__).parent.glob("*.txt"))


@pytest.mark.parametrize("path", FILES, ids=[path.stem for path in FILES])
def test_scenario(path: Path, request: pytest.FixtureRequest) -> None:
    """The file reads the same after it was run; `--rewrite` makes it so."""
    written = path.read_text()
    happened = run_file(written)

    if request.config.getoption("--rewrite", default=False):
        path.write_text(happened)
    else:
        assert happened == written


def test_there_are_scenarios() -> None:
    """A wrong folder must not pass for success."""
    assert len(FILES) >= 60
