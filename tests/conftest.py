"""Which tests share a worker, where several workers run beside each other (`make test`)."""

from __future__ import annotations

import pytest


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep the tests of a file together, for their fixtures, and all whole swarms, which come first, on one worker.

    Swarms wait more than they compute; two at a time would take each other's stages.
    """
    items.sort(key=lambda item: item.get_closest_marker("swarm") is None)
    for item in items:
        together = "swarms" if item.get_closest_marker("swarm") else str(item.path)
        item.add_marker(pytest.mark.xdist_group(together))
