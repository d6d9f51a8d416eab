"""The import rules: which room may import which, and which libraries; the table of docs/architecture.md from it.

`tools/rooms.toml` has a row for each room. A room is a package or a module; the modules below it belong to it, but for
those of rooms of their own. `lint-imports` asks `RoomsContract` (import-linter's interface for own contract types).
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

import msgspec
from grimp import ImportGraph
from importlinter import Contract, ContractCheck, fields, output

PATH = Path(__file__).with_name("rooms.toml")
ROOTS = ("protocols", "contracts", "node", "tools", "configs")


class Room(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A row: what lives there, which rooms and third-party packages it may import.

    `stdlib` names the standard library's modules where a room may not use all of them: pure rooms have neither clock
    nor randomness nor input and output.
    """

    holds: str
    rooms: tuple[str, ...] = ()
    libraries: tuple[str, ...] = ()
    stdlib: tuple[str, ...] | None = None


Rooms = Mapping[str, Room]
Import = tuple[str, str]
"""Importing and imported module."""


def load_rooms(path: Path = PATH) -> dict[str, Room]:
    """Return the table. Raises msgspec.ValidationError where it is malformed."""
    return msgspec.toml.decode(path.read_bytes(), type=dict[str, Room])


def room_of(module: str, rooms: Iterable[str]) -> str | None:
    """Return the innermost room of a module, None where it is in none."""
    found = [room for room in rooms if module == room or module.startswith(f"{room}.")]
    return max(found, key=len, default=None)


def broken(rooms: Rooms, imports: Iterable[Import]) -> list[str]:
    """Return a line for each import that no row allows, and for each module of ours that is in no room."""
    lines = set()
    for importer, imported in imports:
        room = room_of(importer, rooms)
        if room is None:
            lines.add(f"{importer} is in no room of {PATH.name}")
        elif not _allowed(rooms, room, imported):
            lines.add(f"{importer} imports {imported}: {room} may not")
    return sorted(lines)


def unused(rooms: Rooms, imports: Iterable[Import]) -> list[str]:
    """Return a line for each permission that no import needs: a rule says no more than what is so."""
    used = {(room_of(importer, rooms), _target(rooms, imported)) for importer, imported in imports}
    return sorted(
        f"{name} may import {each}, and does not"
        for name, room in rooms.items()
        for each in (*room.rooms, *room.libraries, *(room.stdlib or ()))
        if (name, each) not in used
    )


def graph_imports(graph: ImportGraph) -> list[Import]:
    """Return every direct import of our modules."""
    ours = [module for module in graph.modules if module.partition(".")[0] in ROOTS]
    return [(module, each) for module in ours for each in graph.find_modules_directly_imported_by(module)]


def rooms_table(rooms: Rooms) -> str:
    """Return the table of docs/architecture.md."""
    lines = ["| Room | What lives there | May import |", "| --- | --- | --- |"]
    for name, room in rooms.items():
        allowed = [*(f"`{each}`" for each in room.rooms), *room.libraries]
        if room.stdlib is not None:
            allowed.append("a part of the standard library")
        lines.append(f"| `{name}` | {room.holds} | {', '.join(allowed) or '-'} |")
    return "\n".join(lines)


class RoomsContract(Contract):
    """Each room imports only what its row allows."""

    type_name = "rooms"

    broken_contract_guidance = fields.StringField(required=False)

    def check(self, graph: ImportGraph, verbose: bool) -> ContractCheck:
        """Return the lines of `broken`; `verbose` adds nothing."""
        lines = broken(load_rooms(), graph_imports(graph))
        return ContractCheck(kept=not lines, metadata={"lines": lines})

    def render_broken_contract(self, check: ContractCheck) -> None:
        """Print them."""
        for line in check.metadata["lines"]:
            output.print_error(line)


def _target(rooms: Rooms, imported: str) -> str:
    if imported.partition(".")[0] in ROOTS:
        return room_of(imported, rooms) or imported
    return imported.partition(".")[0]


def _allowed(rooms: Rooms, room: str, imported: str) -> bool:
    row, target = rooms[room], _target(rooms, imported)
    if target == room or target in row.rooms or target in row.libraries:
        return True
    return target in sys.stdlib_module_names and (row.stdlib is None or target in row.stdlib)
