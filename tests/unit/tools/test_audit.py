"""The audit compares pinned versions with advisories, offline."""

from __future__ import annotations

import pytest
from msgspec.structs import replace
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from tools import audit
from tools.audit import Advisory, AdvisoryFile, Pin, hits, line, npm_pins, pip_pins, read_pins, read_snapshot

BAD = Advisory(
    id="GHSA-test", package="example", affected=">=1.0,<2.0", fixed="2.0", severity="high", summary="it breaks"
)
LOCK = """# a comment
example==1.5 \\
    --hash=sha256:00
My_Other.Package[extra]==2.0.post1 ; python_version > "3"
"""
NPM_LOCK = """{"packages": {"": {"version": "9"}, "node_modules/@scope/one": {"version": "1.0.0"},
"node_modules/two/node_modules/example": {"version": "1.5.0"}}}"""


def example(version: str) -> Pin:
    return Pin("pypi", "example", version)


def test_a_requirements_file_is_read_package_by_package() -> None:
    """Names are normalised; digests, markers and extras are left out."""
    assert pip_pins(LOCK) == [example("1.5"), Pin("pypi", "my-other-package", "2.0.post1")]


def test_an_npm_lock_is_read_package_by_package() -> None:
    """Nested packages count, the project itself does not."""
    assert npm_pins(NPM_LOCK) == [Pin("npm", "@scope/one", "1.0.0"), Pin("npm", "example", "1.5.0")]


@pytest.mark.parametrize("version", ["1.0", "1.5", "1.99.post1", "1.6rc1"])
def test_a_version_in_the_range_is_a_hit(version: str) -> None:
    """The range's lower end belongs to it, as do pre-releases inside."""
    assert [hit.advisory for hit in hits([example(version)], [BAD])] == [BAD]


@pytest.mark.parametrize("version", ["0.9", "2.0", "2.1"])
def test_a_version_outside_the_range_is_none(version: str) -> None:
    """Neither what came before the defect nor the fixed version."""
    assert hits([example(version)], [BAD]) == []


def test_another_package_or_ecosystem_is_no_hit() -> None:
    """An npm package is not the Python package of the same name."""
    assert hits([Pin("npm", "example", "1.5"), Pin("pypi", "examples", "1.5")], [BAD]) == []


def test_an_npm_package_is_compared_too() -> None:
    """With the same kind of range."""
    assert len(hits(npm_pins(NPM_LOCK), [replace(BAD, ecosystem="npm")])) == 1


def test_a_line_says_what_where_and_what_to_do() -> None:
    """Package, version, advisory, severity, the fixed version, and whether anybody accepted it."""
    (hit,) = hits([example("1.5")], [BAD])
    expected = "example 1.5 (pypi): GHSA-test, high: it breaks; fixed in 2.0; NOT ACCEPTED"
    assert line(hit) == expected
    (taken,) = hits([example("1.5")], [replace(BAD, accepted="not reachable")])
    assert line(taken) == expected.replace("NOT ACCEPTED", "accepted: not reachable")


@pytest.mark.parametrize(("reason", "code"), [("", 1), ("not reachable", 0)])
def test_only_a_hit_that_nobody_accepted_fails(
    reason: str, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Accepted hits are printed as well; the last line says how old the advisories are."""
    date = read_snapshot().date
    monkeypatch.setattr(audit, "read_pins", lambda: [example("1.5")])
    monkeypatch.setattr(audit, "read_snapshot", lambda: AdvisoryFile(date, (replace(BAD, accepted=reason),)))
    assert audit.main() == code
    first, last = capsys.readouterr().out.splitlines()
    assert "GHSA-test" in first
    assert str(date) in last


def test_no_advisory_of_the_file_applies_to_the_lock_unless_accepted() -> None:
    """What `make audit` fails on."""
    assert [line(hit) for hit in hits(read_pins(), read_snapshot().advisory) if not hit.advisory.accepted] == []


def test_the_file_is_about_packages_that_are_pinned() -> None:
    """Every advisory's package is in a lock file, its fixed version is outside its range, and no id occurs twice."""
    pinned = {(pin.ecosystem, pin.name) for pin in read_pins()}
    advisories = read_snapshot().advisory
    for each in advisories:
        assert (each.ecosystem, each.package) in pinned, each.id
        assert each.package == canonicalize_name(each.package)
        assert each.fixed not in SpecifierSet(each.affected), each.id
    assert len({each.id for each in advisories}) == len(advisories)


def test_an_accepted_advisory_still_applies() -> None:
    """A reason that no longer has a hit is removed with the next lock."""
    accepted = {each.id for each in read_snapshot().advisory if each.accepted}
    assert accepted == {hit.advisory.id for hit in hits(read_pins(), read_snapshot().advisory)}
