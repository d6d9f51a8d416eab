"""What of other peers' work is trained on, and how much."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from node.trainer.worker.rollouts import most_external, reinforces_poison
from protocols.manifest import GameSpec
from protocols.wire import Completion


@given(st.integers(1, 32), st.integers(0, 32), st.integers(0, 32))
def test_the_share_of_external_groups_is_at_most_the_manifests(own: int, external: int, made: int) -> None:
    """Also where a node has made few groups of its own, or none."""
    game = GameSpec(local_groups=own, external_groups=external)
    made = min(made, own)
    most = most_external(game, made)

    assert most <= external
    assert most * (own + external) <= external * (most + made)


def test_a_swarm_that_trains_on_external_groups_only_is_not_bounded_by_own_ones() -> None:
    """Where the manifest gives own groups no part, the foreign ones have it all."""
    assert most_external(GameSpec(local_groups=0, external_groups=8), 0) == 8


def test_a_group_that_would_make_a_degenerate_completion_likelier_is_told() -> None:
    """Babble that is made less likely does no harm, endless text that is right would spread."""
    fine, endless = (Completion(text, bytes(400), b"", True) for text in ("3+4=7\n#### 7", "so " * 80 + "\n#### 7"))

    assert reinforces_poison((fine, endless), (-1.0, 1.0))
    assert not reinforces_poison((fine, endless), (1.0, -1.0))
    assert not reinforces_poison((fine, fine), (1.0, -1.0))
