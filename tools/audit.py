"""Compare the lock files with known advisories, offline: `python -m tools.audit`."""

from __future__ import annotations

import datetime
import re
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal

import msgspec
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parent.parent
ADVISORIES = Path(__file__).parent / "advisories.toml"
PIP_LOCKS = ("requirements.lock", "requirements-torch.txt", "node/localnet/nodejs.lock")
NPM_LOCKS = ("contracts/package-lock.json", "node/localnet/package-lock.json")

Ecosystem = Literal["pypi", "npm"]
Severity = Literal["low", "moderate", "high", "critical", "unrated"]


class Pin(msgspec.Struct, frozen=True):
    """A package that a lock file names. `name` is normalised as its registry compares it."""

    ecosystem: Ecosystem
    name: str
    version: str


class Advisory(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A published advisory. `affected` is a PEP 440 specifier; `accepted` says why the project lives with it."""

    id: str
    package: str
    affected: str
    fixed: str
    severity: Severity
    summary: str
    ecosystem: Ecosystem = "pypi"
    accepted: str = ""


class AdvisoryFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The advisories that were known on a date, as far as somebody looked them up."""

    date: datetime.date
    advisory: tuple[Advisory, ...]


class Hit(msgspec.Struct, frozen=True):
    """A pinned package that an advisory names."""

    pin: Pin
    advisory: Advisory


class _NpmPackage(msgspec.Struct, frozen=True):
    version: str = ""


class _NpmLock(msgspec.Struct, frozen=True):
    packages: dict[str, _NpmPackage]


def pip_pins(text: str) -> list[Pin]:
    """Return what a requirements file pins, a package each line that starts with NAME==VERSION."""
    found = re.findall(r"^([A-Za-z0-9._-]+)(?:\[[^\]]*\])?==([^\s;\\]+)", text, re.MULTILINE)
    return [Pin("pypi", canonicalize_name(name), version) for name, version in found]


def npm_pins(text: str) -> list[Pin]:
    """Return what a package-lock.json (lockfileVersion 3) pins. Raises `msgspec.DecodeError`."""
    packages = msgspec.json.decode(text, type=_NpmLock).packages
    # A package may lie inside another one's folder; the project itself is the one with an empty path.
    return [Pin("npm", path.rpartition("node_modules/")[2], each.version) for path, each in packages.items() if path]


def hits(pins: Iterable[Pin], advisories: Sequence[Advisory]) -> list[Hit]:
    """Return every pin that an advisory affects, in the order of the pins.

    Raises `packaging.specifiers.InvalidSpecifier`, `packaging.version.InvalidVersion`.
    """
    return [Hit(pin, advisory) for pin in pins for advisory in advisories if _affects(advisory, pin)]


def line(hit: Hit) -> str:
    """Return a hit in one line."""
    pin, advisory = hit.pin, hit.advisory
    verdict = f"accepted: {advisory.accepted}" if advisory.accepted else "NOT ACCEPTED"
    return (
        f"{pin.name} {pin.version} ({pin.ecosystem}): {advisory.id}, {advisory.severity}: {advisory.summary}; "
        f"fixed in {advisory.fixed}; {verdict}"
    )


def read_snapshot(path: Path = ADVISORIES) -> AdvisoryFile:
    """Return the advisories of a file. Raises `msgspec.DecodeError`."""
    return msgspec.toml.decode(path.read_bytes(), type=AdvisoryFile)


def read_pins(root: Path = ROOT) -> list[Pin]:
    """Return what this project's lock files pin."""
    pins = [pin for name in PIP_LOCKS for pin in pip_pins((root / name).read_text())]
    return pins + [pin for name in NPM_LOCKS for pin in npm_pins((root / name).read_text())]


def main() -> int:
    """Print one line for each hit, then how old the file is. Return 1 where a hit is not accepted."""
    snapshot, pins = read_snapshot(), read_pins()
    found = hits(pins, snapshot.advisory)
    for hit in found:
        print(line(hit))
    open_hits = sum(not hit.advisory.accepted for hit in found)
    print(
        f"{len(pins)} pinned packages against {len(snapshot.advisory)} advisories looked up by {snapshot.date}: "
        f"{len(found)} apply, {open_hits} of them not accepted"
    )
    return 1 if open_hits else 0


def _affects(advisory: Advisory, pin: Pin) -> bool:
    if (advisory.ecosystem, advisory.package) != (pin.ecosystem, pin.name):
        return False
    return SpecifierSet(advisory.affected).contains(Version(pin.version), prereleases=True)


if __name__ == "__main__":
    sys.exit(main())
