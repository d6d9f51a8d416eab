"""The option that writes what the machine does now into the scenario files."""

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--rewrite", action="store_true", help="rewrite the expectations of the scenario files")
