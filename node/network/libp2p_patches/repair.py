"""One row of the register of repairs (`node.network.libp2p_patches.repairs`)."""

from __future__ import annotations

from importlib import import_module
from typing import Any, Literal

import msgspec

Kind = Literal["replaced", "replaced on an object", "overridden", "used"]
"""How this node departs from the library's public interface: for the whole process, on single objects, in a subclass,
or by calling, reading or writing something private."""

NOT_REPORTED = "not reported"


class Repair(msgspec.Struct, frozen=True, kw_only=True):
    """One row. `target` is a module, or module and class with a colon between; `where` is the module of the repair.

    `upstream` names an issue of the library, or says that none is known. `replacement` is set for process-wide ones.
    """

    target: str
    name: str
    kind: Kind
    why: str
    where: str
    upstream: str = NOT_REPORTED
    replacement: Any = None

    @property
    def owner(self) -> Any:
        """The module or class that has the name."""
        module, _, class_name = self.target.partition(":")
        loaded = import_module(module)
        return getattr(loaded, class_name) if class_name else loaded


def used(target: str, where: str, why: str, *names: str) -> tuple[Repair, ...]:
    """Return a row for each private name that a repair calls, reads or writes."""
    return tuple(
        Repair(target=target, name=name, kind="used", why=why, where=where, upstream="no defect") for name in names
    )
