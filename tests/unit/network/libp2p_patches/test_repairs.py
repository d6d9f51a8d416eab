"""The register of repairs against the installed library: names, signatures, callers, and that nothing is left out."""

from __future__ import annotations

import ast
import inspect
from pathlib import Path

import pytest
from libp2p.pubsub.gossipsub import GossipSub
from libp2p.pubsub.pubsub import Pubsub

import node.network
from node.exits import Refusal
from node.network.libp2p_patches import repairs
from node.network.libp2p_patches.repair import Repair
from node.network.libp2p_patches.repairs import OVERRIDDEN, REPAIRS, REPLACED, USED, install
from node.network.pubsub.pubsub import SafePubsub
from node.network.pubsub.router import SafeGossipSub
from tests.unit.network.libp2p_patches.pristine import pristine, references, tree_of

ROOM = Path(node.network.__file__).parent
CALLERS = {
    "run": "libp2p.tools.anyio_service.trio_manager",
    "run_task": "libp2p.pubsub.pubsub",
    "upgrade_security": "libp2p.network.swarm",
    "_stop_event": "libp2p.tools.timed_cache.base_timed_cache",
}
"""Where the library refers to a name, if not in the module that has it."""
SUBCLASSES: dict[type, type] = {GossipSub: SafeGossipSub, Pubsub: SafePubsub}


def name_of(repair: Repair) -> str:
    return f"{repair.target}.{repair.name}"


@pytest.mark.parametrize("repair", REPAIRS, ids=name_of)
def test_the_name_exists(repair: Repair) -> None:
    """Every name is in the library: on its class or module, or assigned in a constructor of its module."""
    assigned = {
        each.attr
        for each in ast.walk(tree_of(CALLERS.get(repair.name, repair.target.partition(":")[0])))
        if isinstance(each, ast.Attribute) and isinstance(each.ctx, ast.Store)
    }
    assert hasattr(repair.owner, repair.name) or repair.name in assigned


@pytest.mark.parametrize("repair", REPAIRS, ids=name_of)
def test_the_library_still_uses_the_name(repair: Repair) -> None:
    """What the library does not refer to any more, a repair of it would do nothing for."""
    assert references(CALLERS.get(repair.name, repair.target.partition(":")[0]), repair.name)


@pytest.mark.parametrize("repair", [*OVERRIDDEN, *REPLACED], ids=name_of)
def test_signatures_agree(repair: Repair) -> None:
    """A repair has the parameters of what it stands for, by name and order."""
    module, _, class_name = repair.target.partition(":")
    unpatched = pristine(module)
    theirs = getattr(getattr(unpatched, class_name) if class_name else unpatched, repair.name)
    ours = repair.replacement if repair in REPLACED else getattr(SUBCLASSES[repair.owner], repair.name)
    assert callable(ours) == callable(theirs)
    if inspect.isfunction(theirs):
        assert list(inspect.signature(ours).parameters) == list(inspect.signature(theirs).parameters)


@pytest.mark.parametrize("base", SUBCLASSES)
def test_every_override_is_marked_and_registered(base: type) -> None:
    """Methods of our subclasses that the library has too are exactly those of the register, and type checked."""
    subclass = SUBCLASSES[base]
    found = {name for name, value in vars(subclass).items() if inspect.isfunction(value) and hasattr(base, name)}
    registered = {each.name for each in OVERRIDDEN if each.owner is base}
    assert found - {"__init__"} == registered
    assert all(getattr(vars(subclass)[name], "__override__", False) for name in registered)


def test_every_private_name_in_use_is_registered() -> None:
    """Names with an underscore that node.network reaches for in objects of the library stand in the register, and the
    register has none that is not reached for."""
    reached = {name for path in ROOM.rglob("*.py") for name in private_names(ast.parse(path.read_text()))}
    assert reached <= {each.name for each in REPAIRS}
    assert {each.name for each in USED if each.name.startswith("_")} <= reached


def private_names(tree: ast.Module) -> set[str]:
    """Return the private attributes of objects of the library: of others than `self`, inherited, or of the `self` of a
    function that replaces a method."""
    inherited = {name for base in SUBCLASSES for name in dir(base)}
    inherited |= {
        each.attr
        for function in tree.body
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
        for each in ast.walk(function)
        if isinstance(each, ast.Attribute)
    }
    return {
        each.attr
        for each in ast.walk(tree)
        if isinstance(each, ast.Attribute) and each.attr.startswith("_") and not each.attr.startswith("__")
        if not (isinstance(each.value, ast.Name) and each.value.id in ("self", "cls")) or each.attr in inherited
    }


def test_installing_twice_changes_nothing() -> None:
    """Every process-wide replacement is in place, once."""
    install()
    first = [getattr(each.owner, each.name) for each in REPLACED]
    install()
    assert [getattr(each.owner, each.name) for each in REPLACED] == first == [each.replacement for each in REPLACED]


def test_another_version_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """The line says which version is needed and why."""
    monkeypatch.setattr(repairs, "REQUIRED_VERSION", "0.0.1")
    with pytest.raises(Refusal, match=r"libp2p 0\.8\.1 is installed; .* repairs defects of 0\.0\.1"):
        install()
