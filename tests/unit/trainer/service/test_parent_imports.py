"""The node's own process never loads torch: only the trainer's child does."""

from __future__ import annotations

import subprocess
import sys

from tests.support.paths import ROOT

CHILD_ONLY = ("worker", "engines", "learning", "memory", "checkpoints")
"""Rooms of `node.trainer` that run in the child, or in a command that works with a model."""

IMPORT_ALL = f"""
import importlib, pkgutil, sys
import node

child = tuple("node.trainer." + room for room in {CHILD_ONLY!r})
names = [each.name for each in pkgutil.walk_packages(node.__path__, "node.")]
parent = [name for name in names if not name.startswith(child) and not name.endswith("__main__")]
for name in parent:
    importlib.import_module(name)
print(len(parent), *sorted({{"torch", "transformers", "vllm"}} & set(sys.modules)))
"""


def test_no_module_of_the_node_s_process_imports_torch() -> None:
    """A fresh interpreter that has imported them all has loaded neither torch nor transformers."""
    done = subprocess.run(
        [sys.executable, "-c", IMPORT_ALL], cwd=ROOT, capture_output=True, text=True, timeout=120, check=True
    )
    imported, *loaded = done.stdout.split()
    assert int(imported) > 150
    assert loaded == []
