"""What must hold before a node takes part: contract and model named, manifest and contract agreed, an owner, questions.

Each refusal is a `Refusal`: one line for the operator, who alone can fix it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec
import structlog
import trio

from node.chain.contract.manifest_check import disagreement
from node.config import Config
from node.data.load import load_questions
from node.data.questions import Questions
from node.errors import describe
from node.exits import Exit, Refusal
from node.files.private import replace_private
from node.grading.registry import require_grader
from node.identity.key_owner_cases import OwnershipFacts, refuse_other_owner
from node.manifest_file import with_contract
from node.ports.chain import ChainUnavailableError
from protocols.deployment import CoordinatorFacts
from protocols.identifiers import Address
from protocols.manifest import Manifest, allows_model, manifest_digest

log = structlog.get_logger()

NO_OWNER = (
    "no owner has signed for this node, and a key keeps its first owner for good; run `swarm login`, or start with "
    "--own (own_owner = true) where the key shall own itself"
)

RETRY_SECONDS = 5.0
"""Pause between two attempts to read the contract while the node has never seen it."""


def resolve_config(config: Config, manifest: Manifest) -> Config:
    """Return the configuration, with the manifest's contract and model if it names none of its own.

    Raises `Refusal` if neither names a contract, and for a model that the manifest does not allow.
    """
    if not allows_model(manifest, config.trainer.model):
        raise Refusal(
            Exit.CONFIG,
            f"the swarm {manifest.name!r} does not play with the model {config.trainer.model!r}; "
            f"set trainer.model to one of {', '.join(dict.fromkeys((manifest.model, *manifest.models)))}",
        )
    config = with_contract(config, manifest)
    if not config.chain.contract:
        raise Refusal(
            Exit.CONFIG,
            "neither configuration (chain.contract) nor manifest (deployment) names a coordinator contract; "
            "give --contract",
        )
    trainer = msgspec.structs.replace(config.trainer, model=config.trainer.model or manifest.model)
    return msgspec.structs.replace(config, trainer=trainer)


async def read_facts(ask: Callable[[], Awaitable[CoordinatorFacts]], contract: Address, path: Path) -> CoordinatorFacts:
    """Ask what the contract fixed at deployment, and keep it at `path`; without the chain, return what was kept."""
    while True:
        try:
            facts = await ask()
        except ChainUnavailableError as error:
            kept = _kept_facts(contract, path)
            if kept is not None:
                return kept
            log.warning("chain.lost", reason=describe(error), retry_in=RETRY_SECONDS)
            await trio.sleep(RETRY_SECONDS)
        else:
            _keep_facts(path, facts)
            return facts


def _kept_facts(contract: Address, path: Path) -> CoordinatorFacts | None:
    """Return the stored facts of a contract; None if there are none, or none of this contract that can be read."""
    try:
        facts = msgspec.json.decode(path.read_bytes(), type=CoordinatorFacts)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        log.warning("chain.facts_unreadable", path=str(path), reason=describe(error))
        return None
    return facts if facts.contract == contract.lower() else None


def _keep_facts(path: Path, facts: CoordinatorFacts) -> None:
    """Keep facts for a start without the chain; a disk that fails costs that, not this start."""
    try:
        replace_private(path, msgspec.json.encode(facts))
    except OSError as error:
        log.warning("chain.facts_unwritable", path=str(path), reason=describe(error))


def require_agreement(manifest: Manifest, facts: CoordinatorFacts) -> None:
    """Raises `Refusal` if manifest and contract disagree; log what the contract does not fix."""
    problem = disagreement(manifest, facts)
    if problem:
        raise Refusal(Exit.MANIFEST, problem)
    if not facts.manifest_digest:
        digest = manifest_digest(manifest).hex()
        log.warning("chain.manifest_unbound", digest=digest, unchecked=["digest", "stage seconds"])


def refuse_unowned(facts: OwnershipFacts, *, has_owners: bool, is_known: bool, own_owner: bool) -> None:
    """Raises `Refusal` for a key that belongs to another owner, or that would become its own owner without `own_owner`.

    `has_owners`: the contract has owners at all; `is_known`: it knows the key.
    """
    refuse_other_owner(facts)
    if has_owners and facts.claimed is None and not is_known and not own_owner:
        raise Refusal(Exit.DELEGATION, NO_OWNER)


def open_questions(manifest: Manifest, config: Config) -> Questions:
    """Load this node's own copy of the data, and the grader. Raises `Refusal` naming what is wrong with either."""
    require_grader(manifest.game.grader)
    try:
        questions = load_questions(manifest.data, config.trainer.data, manifest.game.grader)
    except (OSError, ValueError) as error:
        raise Refusal(Exit.CONFIG, f"the questions can't be used: {error}; trainer.data names a good copy") from error
    if manifest.data.source.startswith("hub:") and not manifest.data.digest:
        log.warning(
            "data.unpinned", source=manifest.data.source, digest=questions.digest.hex(),
            reason="the manifest names no digest; nodes with another copy will reject this one's rollouts",
        )  # fmt: skip
    return questions
