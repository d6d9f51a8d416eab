"""Weights laid out for sampling."""

import pytest
import torch
from torch import nn

from node.trainer.engines.weight_layout import laid_out, pays

CPU = torch.device("cpu")

pytestmark = pytest.mark.skipif(not pays(CPU, torch.float32), reason="torch was built without oneDNN")


@pytest.mark.parametrize("rows", [1, 8, 200])
def test_products_are_the_plain_ones(rows: int) -> None:
    """With a bias and without, whatever the number of rows; large matrices alone have another layout meanwhile."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(200, 400), nn.Linear(400, 300, bias=False), nn.Linear(300, 5))
    states = torch.randn(rows, 200)
    with torch.inference_mode():
        plain = model(states)
        with laid_out(model, torch.float32):
            assert [name for name, each in model.named_children() if "forward" in vars(each)] == ["0", "1"]
            torch.testing.assert_close(model(states), plain, atol=1e-5, rtol=1e-5)
        assert not any("forward" in vars(each) for each in model.children())
        assert torch.equal(model(states), plain)


@pytest.mark.skipif(not pays(CPU, torch.bfloat16), reason="this CPU packs no matrices in bfloat16")
def test_products_have_the_type_of_the_arithmetic() -> None:
    """float32 weights multiply in bfloat16 where that is the arithmetic."""
    torch.manual_seed(0)
    layer, states = nn.Linear(300, 300), torch.randn(8, 300)
    with torch.inference_mode(), laid_out(layer, torch.bfloat16):
        made = layer(states)
    assert made.dtype == torch.bfloat16
    torch.testing.assert_close(made.float(), layer(states), atol=0.05, rtol=0.05)


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16, torch.float16])
def test_a_type_pays_only_where_torch_can_pack_it(kind: torch.dtype) -> None:
    """What torch refuses on this CPU is never asked of it: the model then samples from its weights as they are."""
    weight = torch.zeros(300, 300, dtype=kind)
    try:
        torch.ops.mkldnn._reorder_linear_weight(weight, 32)
    except RuntimeError:
        assert not pays(CPU, kind)


def test_gradients_flow_again_afterwards() -> None:
    """Also where sampling ended with an error."""
    layer = nn.Linear(300, 300)
    with pytest.raises(KeyError), torch.inference_mode(), laid_out(layer, torch.float32):
        raise KeyError
    layer(torch.ones(1, 300)).sum().backward()
    assert layer.weight.grad is not None
