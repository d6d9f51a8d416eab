"""Modules of the library as they are on disk, whatever this process has replaced in the imported ones."""

from __future__ import annotations

import ast
import importlib.util
from functools import cache
from pathlib import Path
from typing import Any


@cache
def pristine(name: str) -> Any:
    """Return a second copy of a module, which nothing else imports."""
    spec = importlib.util.find_spec(name)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def references(module: str, name: str) -> int:
    """Return how often a module of the library reads a name, as a global or as an attribute of anything."""
    return sum(
        (isinstance(each, ast.Attribute) and each.attr == name) or (isinstance(each, ast.Name) and each.id == name)
        for each in ast.walk(tree_of(module))
        if isinstance(getattr(each, "ctx", None), ast.Load)
    )


@cache
def tree_of(module: str) -> ast.Module:
    spec = importlib.util.find_spec(module)
    assert spec is not None
    assert spec.origin is not None
    return ast.parse(Path(spec.origin).read_text())
