"""The manifest check: whether manifest and contract describe the same swarm. Pure."""

from __future__ import annotations

from protocols.deployment import CoordinatorFacts
from protocols.manifest import Manifest, manifest_digest


def disagreement(manifest: Manifest, facts: CoordinatorFacts) -> str:
    """Return what an operator reads where manifest and contract differ; empty where they agree.

    What the contract does not fix (RL Swarm's: no digest, 0 seconds) can't differ.
    """
    place = manifest.deployment
    if place and (place.chain, place.contract.lower()) != (facts.chain_id, facts.contract.lower()):
        return (
            f"the manifest names contract {place.contract} on chain {place.chain}, this node is connected to "
            f"{facts.contract} on chain {facts.chain_id}; set chain.urls and chain.contract"
        )
    found, own = facts.manifest_digest, manifest_digest(manifest)
    if found and found != own:
        return (
            f"the manifest's digest {own.hex()[:16]} is not the contract's {found.hex()[:16]}; "
            "get the swarm's current manifest from its organiser"
        )
    seconds = tuple(stage.seconds for stage in manifest.stages)
    if len(facts.stage_seconds) != len(seconds):
        return f"the contract plays {len(facts.stage_seconds)} stages a round, the manifest {len(seconds)}; correct it"
    if facts.voting_mode != manifest.voting.mode and not found:
        return 'RL Swarm\'s contract takes open votes only; set mode = "open" under [voting] in the manifest'
    if facts.voting_mode != manifest.voting.mode or (
        any(facts.stage_seconds) and tuple(facts.stage_seconds) != seconds
    ):
        return (
            f"the contract plays stages of {list(facts.stage_seconds)} s with {facts.voting_mode} votes, "
            f"the manifest {list(seconds)} s with {manifest.voting.mode} votes; tell the organiser"
        )
    if found and (facts.quorum, facts.earliest) != (manifest.voting.quorum, manifest.voting.earliest):
        return (
            f"the contract closes stages early at {facts.quorum} % of the voters after {facts.earliest} s, "
            f"the manifest at {manifest.voting.quorum} % after {manifest.voting.earliest} s; tell the organiser"
        )
    return ""
