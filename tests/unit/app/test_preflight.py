"""What a node refuses before it plays: a contract, a model or a grader that is not its manifest's."""

from pathlib import Path

import msgspec
import pytest
import trio
from trio.testing import MockClock

from node.app.preflight import open_questions, read_facts, refuse_unowned, require_agreement, resolve_config
from node.chain.rpc.client import ConnectionLostError
from node.config import ChainSettings, Config, TrainerSettings
from node.exits import Exit, Refusal
from node.identity.key_owner_cases import OwnershipFacts
from protocols.deployment import CoordinatorFacts
from protocols.manifest import DataSpec, Deployment, GameSpec, Manifest, StageSpec, manifest_digest

CONTRACT, OTHER = "0x" + "ab" * 20, "0x" + "cd" * 20
MANIFEST = Manifest(name="a", deployment=Deployment(chain=5, contract="0x" + "AB" * 20))
FACTS = CoordinatorFacts(
    chain_id=5, contract=CONTRACT, deployment_block=1, deployment_block_hash=bytes(32),
    manifest_digest=manifest_digest(MANIFEST), stage_seconds=(60,), voting_mode="sealed",
)  # fmt: skip


def refusal(manifest: Manifest, facts: CoordinatorFacts) -> str:
    with pytest.raises(Refusal) as caught:
        require_agreement(manifest, facts)
    assert caught.value.code == Exit.MANIFEST
    return str(caught.value)


def test_the_contracts_own_manifest_is_played_wherever_it_says_it_is() -> None:
    """With the deployment named, in any spelling of the address, and without."""
    require_agreement(MANIFEST, FACTS)
    require_agreement(msgspec.structs.replace(MANIFEST, deployment=None), FACTS)


def test_another_manifest_is_refused_with_both_digests_named() -> None:
    """One changed rule is another digest; the operator reads both, and whom to ask."""
    changed = msgspec.structs.replace(MANIFEST, game=GameSpec(num_generations=4))
    said = refusal(changed, FACTS)

    assert manifest_digest(changed).hex()[:16] in said
    assert FACTS.manifest_digest.hex()[:16] in said
    assert "get the swarm's current manifest from its organiser" in said


class Chain:
    """A contract that answers, until it is away."""

    def __init__(self, facts: CoordinatorFacts | None = None) -> None:
        self.facts = facts

    async def read_facts(self) -> CoordinatorFacts:
        if self.facts is None:
            raise ConnectionLostError("away")
        return self.facts


async def kept(path: Path, contract: str = CONTRACT) -> CoordinatorFacts | None:
    """Return the facts that a node starts with while the chain is away; None where it waits for the chain."""
    found: list[CoordinatorFacts] = []
    with trio.move_on_after(60):
        found.append(await read_facts(Chain().read_facts, contract, path))
    return found[0] if found else None


async def test_facts_are_kept_for_a_start_without_the_chain(tmp_path: Path, autojump_clock: MockClock) -> None:
    """Those of this contract that can be read: a file that was cut off, or another contract's, is as good as none."""
    path = tmp_path / "coordinator.json"
    assert await kept(path) is None
    assert await read_facts(Chain(FACTS).read_facts, FACTS.contract, path) == FACTS
    assert await kept(path, FACTS.contract) == FACTS
    assert await kept(path, OTHER) is None
    for cut in (b"", path.read_bytes()[:50], b"\xff"):
        path.write_bytes(cut)
        assert await kept(path, FACTS.contract) is None


async def test_facts_that_can_not_be_kept_are_used_all_the_same(tmp_path: Path) -> None:
    """A disk that fails costs the copy, not the start."""
    (tmp_path / "coordinator.json").mkdir()
    assert await read_facts(Chain(FACTS).read_facts, FACTS.contract, tmp_path / "coordinator.json") == FACTS


def test_another_place_or_pace_is_refused() -> None:
    """A contract elsewhere, and one that plays other stages than the manifest it names."""
    assert "connected to 0xcdcd" in refusal(MANIFEST, msgspec.structs.replace(FACTS, contract=OTHER))
    assert "on chain 6" in refusal(MANIFEST, msgspec.structs.replace(FACTS, chain_id=6))
    hasty = msgspec.structs.replace(FACTS, quorum=60, earliest=30)
    assert "closes stages early at 60 %" in refusal(MANIFEST, hasty)
    slower = msgspec.structs.replace(MANIFEST, stages=(StageSpec(name="play", seconds=90),))
    facts = msgspec.structs.replace(FACTS, manifest_digest=manifest_digest(slower))
    assert "stages of [60] s" in refusal(slower, facts)


def test_the_manifest_names_the_contract_where_the_configuration_does_not() -> None:
    """The configuration wins; with neither the node does not start."""
    given = Config(chain=ChainSettings(contract=OTHER))

    assert resolve_config(Config(), MANIFEST).chain.contract.lower() == CONTRACT
    assert resolve_config(given, MANIFEST).chain.contract == OTHER
    assert resolve_config(Config(), msgspec.structs.replace(MANIFEST, model="x/model")).trainer.model == "x/model"
    mine = Config(trainer=TrainerSettings(model="/my/model"))
    assert resolve_config(mine, msgspec.structs.replace(MANIFEST, model="x/model")).trainer.model == "/my/model"
    with pytest.raises(Refusal, match=r"names a coordinator contract; give --contract"):
        resolve_config(Config(), Manifest(name="a"))


def test_a_model_that_the_swarm_does_not_play_with_is_refused() -> None:
    """The line lists those it does."""
    strict = msgspec.structs.replace(MANIFEST, model="x/small", models=("x/large",))

    with pytest.raises(Refusal, match=r"the model 'y/other'; set trainer.model to one of x/small, x/large"):
        resolve_config(Config(trainer=TrainerSettings(model="y/other")), strict)


def test_a_grader_or_a_copy_that_is_missing_is_one_line() -> None:
    """Before anything is trained the operator learns what to install, or which file to get."""
    for manifest, said in (
        (Manifest(name="a", game=GameSpec(grader="magic/1")), "can't be graded here: the grader 'magic/1' is unknown"),
        (Manifest(name="a", data=DataSpec(source="jsonl:/nowhere.jsonl")), "the questions can't be used: .*nowhere"),
    ):
        with pytest.raises(Refusal, match=said) as caught:
            open_questions(manifest, Config())
        assert caught.value.code == Exit.CONFIG


def test_a_key_becomes_its_own_only_where_somebody_says_so() -> None:
    """New and unsigned it is refused; said, signed, known, or where the contract knows no owners, it is not."""
    new, signed = (
        OwnershipFacts(node=CONTRACT, claimed=None, registered=None),
        OwnershipFacts(node=CONTRACT, claimed=OTHER, registered=None),
    )
    with pytest.raises(Refusal, match="run `swarm login`, or start with --own") as caught:
        refuse_unowned(new, has_owners=True, is_known=False, own_owner=False)
    assert caught.value.code == Exit.DELEGATION
    refuse_unowned(new, has_owners=True, is_known=False, own_owner=True)
    refuse_unowned(signed, has_owners=True, is_known=False, own_owner=False)
    refuse_unowned(new, has_owners=True, is_known=True, own_owner=False)
    refuse_unowned(new, has_owners=False, is_known=False, own_owner=False)


def test_another_owners_key_is_refused_whatever_is_said() -> None:
    """The contract has the key under another owner than the one who has signed here."""
    taken = OwnershipFacts(node=CONTRACT, claimed=OTHER, registered=CONTRACT)
    with pytest.raises(Refusal) as caught:
        refuse_unowned(taken, has_owners=True, is_known=True, own_owner=True)
    assert caught.value.code == Exit.OTHER_OWNER
