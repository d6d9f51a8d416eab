"""The manifest and the swarms that come along."""

from pathlib import Path

import msgspec
import pytest

from protocols.manifest import (
    DataSpec,
    Deployment,
    GameSpec,
    Manifest,
    allows_model,
    canonical_manifest,
    manifest_digest,
)
from protocols.manifest_rules import manifest_problems, parse_manifest
from tests.support.paths import ROOT

SWARMS = sorted((ROOT / "configs" / "swarms").glob("*.toml"))
CONTRACT = "0x" + "ab" * 20


@pytest.mark.parametrize("path", SWARMS, ids=lambda path: path.stem)
def test_every_swarm_that_comes_along_is_valid(path: Path) -> None:
    """Each file parses, is named after its swarm, and its digest is that of its canonical form."""
    manifest = parse_manifest(path.read_bytes())

    assert path.stem in (manifest.name, "local")
    assert manifest_digest(msgspec.json.decode(canonical_manifest(manifest), type=Manifest)) == manifest_digest(
        manifest
    )


def test_the_swarms_of_the_predecessor_are_among_them() -> None:
    """Math is GSM8K, Math Hard the whole English DAPO-Math-17K."""
    found = {path.stem: parse_manifest(path.read_bytes()).data for path in SWARMS}

    assert found["math"].source == "hub:openai/gsm8k"
    assert (found["math-hard"].source, found["math-hard"].config) == ("hub:open-r1/DAPO-Math-17k-Processed", "en")
    assert found["reasoning-gym"].source.startswith("reasoning-gym:")


def changed(manifest: msgspec.Struct) -> list[msgspec.Struct]:
    """Return the manifest with each field of it and of its sections changed, one at a time."""
    other: list[msgspec.Struct] = []
    for field in manifest.__struct_fields__:
        value = getattr(manifest, field)
        if field == "deployment":
            continue
        if isinstance(value, msgspec.Struct):
            found: list[object] = list(changed(value))
        elif isinstance(value, bool):
            found = [not value]
        elif isinstance(value, int | float):
            found = [value + 1]
        else:
            others: dict[type, object] = {str: f"{value}x", tuple: (*value, *value, "x"), dict: {"x": 1}}
            found = [others[type(value)]]
        other += [msgspec.structs.replace(manifest, **{field: each}) for each in found]
    return other


def test_the_digest_covers_every_field_but_the_deployment() -> None:
    """Any other rule is another swarm; where its contract is, is not: the digest is known before the contract."""
    plain = Manifest(name="a")
    deployed = msgspec.structs.replace(plain, deployment=Deployment(chain=1, contract=CONTRACT))
    digests = {manifest_digest(each) for each in [plain, *changed(plain)]}  # type: ignore[arg-type]

    assert len(digests) == len(changed(plain)) + 1 > 40
    assert manifest_digest(deployed) == manifest_digest(plain)


@pytest.mark.parametrize(
    ("toml", "said"),
    [
        ('source = "gsm8k"', "data.source: 'gsm8k' is not of the form"),
        ('source = "hub:openai/gsm8k"', "data.revision: a hub data set needs"),
        ('digest = "abc"', "data.digest: 64"),
        ('split = "test"', "data.split: needs a name that differs"),
        ("held_out = 0", "data.held_out"),
        ("unknown = 1", "unknown field `unknown`"),
        ('[game]\ngrader = "math"', "game.grader: 'math' is not of the form NAME/VERSION"),
        ("[game]\ncommon = 2", "game.common: at least 0, below game.min_prompts"),
        ("[deployment]\nchain = 0\ncontract = '0x12'", "deployment: a chain id above 0"),
        ("[deployment]\nchain = 1", "contract"),
    ],
)
def test_what_makes_no_sense_is_refused_by_its_key(toml: str, said: str) -> None:
    """Each complaint names the key and what it wants."""
    with pytest.raises(msgspec.ValidationError, match=said):
        parse_manifest(f'name = "a"\n[data]\n{toml}'.encode())


def test_a_deployed_manifest_says_where_its_contract_is() -> None:
    """Chain and contract are read, and a sensible manifest has no problem."""
    text = f'name = "a"\n[deployment]\nchain = 5\ncontract = "{CONTRACT}"\n[data.parameters]\nseed = 1'

    assert parse_manifest(text.encode()).deployment == Deployment(chain=5, contract=CONTRACT)
    assert manifest_problems(Manifest(name="a", data=DataSpec(), game=GameSpec())) == []


@pytest.mark.parametrize(
    ("model", "allowed"),
    [("", True), ("Qwen/Small", True), ("/models/small/", True), ("big", True), ("/models/other", False)],
)
def test_a_model_is_allowed_by_its_name_wherever_it_lies(model: str, allowed: bool) -> None:
    """The advised model and those listed may play; without a list any may."""
    strict = Manifest(name="a", model="Qwen/Big", models=("Qwen/Small",))

    assert allows_model(strict, model) == allowed
    assert allows_model(msgspec.structs.replace(strict, models=()), model)
