"""The import rules: what they refuse, and that they cover the code as it is."""

import ast
from collections import defaultdict
from pathlib import Path

import grimp
import pytest

from tests.support.paths import ROOT
from tools.import_rules import Import, Room, broken, graph_imports, load_rooms, room_of, unused

ROOMS = load_rooms()
MADE_UP = {
    "protocols": Room("rules", libraries=("msgspec",), stdlib=("math",)),
    "node.machine": Room("decides", rooms=("protocols",)),
    "node.chain": Room("service", rooms=("node.machine",), libraries=("trio",)),
    "node.chain.rpc": Room("client"),
}
MIRRORS = {
    "service": "the supervised service of each room",
    "backup": "identity: the file; cli: its command",
    "status": "machine: the struct; cli: its command",
    "worker": "grading: the pool's process; trainer: the folder of its process",
    "delegation": "machine: what it decides of the owner's delegation",
}
"""Base names that occur twice inside `node/`, each with what is the same on both sides."""


@pytest.fixture(scope="module")
def imports() -> list[Import]:
    return graph_imports(grimp.build_graph("protocols", "node", "contracts", "tools", include_external_packages=True))


def test_no_import_breaks_a_rule(imports: list[Import]) -> None:
    """What `lint-imports` checks."""
    assert broken(ROOMS, imports) == []


def test_no_rule_allows_more_than_is_used(imports: list[Import]) -> None:
    """A permission that nothing needs would let the wrong import in unseen."""
    assert unused(ROOMS, imports) == []


@pytest.mark.parametrize(
    ("importer", "imported", "line"),
    [
        ("protocols.wire", "math", ""),
        ("protocols.wire", "time", "protocols.wire imports time: protocols may not"),
        ("protocols.wire", "node.machine.state", "protocols.wire imports node.machine.state: protocols may not"),
        ("node.machine.step", "os", ""),
        ("node.machine.step", "trio", "node.machine.step imports trio: node.machine may not"),
        (
            "node.chain.service",
            "node.chain.rpc.client",
            "node.chain.service imports node.chain.rpc.client: node.chain may not",
        ),
        ("node.chain.rpc.client", "node.chain.rpc.blocks", ""),
        ("node.chain.rpc.client", "trio", "node.chain.rpc.client imports trio: node.chain.rpc may not"),
        ("node.new", "math", "node.new is in no room of rooms.toml"),
    ],
)
def test_each_kind_of_wrong_import_is_named(importer: str, imported: str, line: str) -> None:
    """Rooms, libraries and, for pure rooms, the standard library; a room inside another has a row of its own."""
    assert broken(MADE_UP, [(importer, imported)]) == ([line] if line else [])


def test_an_unused_permission_is_named() -> None:
    """Rooms and libraries alike."""
    lines = unused(MADE_UP, [("protocols.wire", "msgspec.json"), ("node.chain.service", "trio")])
    assert "node.machine may import protocols, and does not" in lines
    assert "node.chain may import node.machine, and does not" in lines
    assert not any("msgspec" in line or "trio" in line for line in lines)


def test_only_the_network_may_import_libp2p_and_only_the_worker_torch() -> None:
    """The two heavy libraries stay where they are."""
    assert all(name.startswith("node.network") for name, room in ROOMS.items() if "libp2p" in room.libraries)
    torch = {name for name, room in ROOMS.items() if "torch" in room.libraries}
    assert torch <= {f"node.trainer.{each}" for each in ("worker", "engines", "learning", "memory", "checkpoints")} | {
        "node.cli", "tools"
    }  # fmt: skip


def modules(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


def test_every_room_says_what_it_is_for() -> None:
    """Each package has an `__init__` with a docstring, each room of the table exists."""
    packages = {path.parent for path in modules("node")}
    silent = [path for path in packages if not (path / "__init__.py").read_text().startswith('"""')]
    assert silent == []
    for name in ROOMS:
        place = ROOT / name.replace(".", "/")
        assert place.is_dir() or place.with_suffix(".py").is_file(), name


def test_no_base_name_occurs_twice_inside_the_node() -> None:
    """A file name finds one file, but where two are the sides of one thing."""
    places = defaultdict(list)
    for path in modules("node"):
        if path.stem not in ("__init__", "__main__"):
            places[path.stem].append(path.relative_to(ROOT).as_posix())
    assert {name: found for name, found in places.items() if len(found) > 1 and name not in MIRRORS} == {}


def test_no_class_name_stands_for_two_things() -> None:
    """One word, one meaning: over the whole project."""
    places = defaultdict(list)
    for path in (path for package in ("node", "protocols", "contracts", "tools") for path in modules(package)):
        for each in ast.parse(path.read_text()).body:
            if isinstance(each, ast.ClassDef):
                places[each.name].append(path.relative_to(ROOT).as_posix())
    assert {name: found for name, found in places.items() if len(found) > 1} == {}


def test_unit_tests_mirror_the_rooms() -> None:
    """Below tests/unit each folder is a room's, or that of a single module, or of the documents."""
    folders = [path for path in (ROOT / "tests" / "unit").rglob("*") if path.is_dir() and any(path.glob("test_*.py"))]
    for folder in folders:
        name = folder.relative_to(ROOT / "tests" / "unit").as_posix()
        places = (ROOT / "node" / name, ROOT / name, ROOT / "node" / f"{name}.py")
        assert name == "docs" or any(place.exists() for place in places), name


def test_the_innermost_room_is_a_module_s() -> None:
    """A package inside a room's package may be a room of its own."""
    assert room_of("node.chain.rpc.client", MADE_UP) == "node.chain.rpc"
    assert room_of("node.chain.service", MADE_UP) == "node.chain"
    assert room_of("node.chains", MADE_UP) is None
