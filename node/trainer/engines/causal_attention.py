"""Has transformers' models attend by token tree (`node.trainer.engines.tree_attention`)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from node.trainer.engines.tree_attention import AttentionPlan

ATTENTION = "swarm_tree"
"""Name under which transformers knows this attention."""


def tree_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    plan: AttentionPlan,
    scaling: float | None = None,
    **unused: Any,
) -> tuple[Tensor, None]:
    """Attend as `plan` says: transformers' attention interface, batch 1, [1, heads, N, d] in, [1, N, H, d] out.

    Under autocast the rotary embedding leaves queries and keys in the weights' type: they are brought to the values'.
    """
    q, k, v = (states[0].transpose(0, 1).to(value.dtype) for states in (query, key, value))
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    return plan.attend(int(module.layer_idx), q, k, v, scale).unsqueeze(0), None  # type: ignore[arg-type]


ALL_ATTENTION_FUNCTIONS.register(ATTENTION, tree_attention)
