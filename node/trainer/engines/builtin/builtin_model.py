"""The built-in model: Qwen2's architecture at 345,216 parameters, in plain torch.

Names and file formats are those of transformers, so that `AutoModelForCausalLM` loads what is saved here; the child
itself gets by without importing transformers. Architecture: Qwen2 technical report, arXiv 2407.10671.
"""

from __future__ import annotations

from pathlib import Path

import msgspec
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

from node.trainer.engines.tree_attention import AttentionPlan

MARKER = "swarm_builtin"
"""Key in `config.json` that tells a built-in model from any other Qwen2."""

WEIGHTS = "model.safetensors"
CONFIG = "config.json"


class BuiltinShape(msgspec.Struct, frozen=True, kw_only=True):
    """The part of `config.json` that this code reads."""

    vocab_size: int = 512
    hidden_size: int = 96
    intermediate_size: int = 256
    num_hidden_layers: int = 3
    num_attention_heads: int = 3
    num_key_value_heads: int = 1
    max_position_embeddings: int = 512
    rms_norm_eps: float = 1e-6
    rope_theta: float = 10_000.0
    initializer_range: float = 0.05

    @property
    def head_dim(self) -> int:
        """Width of one attention head."""
        return self.hidden_size // self.num_attention_heads

    @property
    def key_value_size(self) -> int:
        """Width of all key (or value) heads."""
        return self.num_key_value_heads * self.head_dim


class Attention(nn.Module):
    """The projections of one attention block."""

    def __init__(self, shape: BuiltinShape) -> None:
        super().__init__()
        self.q_proj = nn.Linear(shape.hidden_size, shape.hidden_size)
        self.k_proj = nn.Linear(shape.hidden_size, shape.key_value_size)
        self.v_proj = nn.Linear(shape.hidden_size, shape.key_value_size)
        self.o_proj = nn.Linear(shape.hidden_size, shape.hidden_size, bias=False)


class Mlp(nn.Module):
    """The gated feed-forward block."""

    def __init__(self, shape: BuiltinShape) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(shape.hidden_size, shape.intermediate_size, bias=False)
        self.up_proj = nn.Linear(shape.hidden_size, shape.intermediate_size, bias=False)
        self.down_proj = nn.Linear(shape.intermediate_size, shape.hidden_size, bias=False)


class Layer(nn.Module):
    """One transformer block."""

    def __init__(self, shape: BuiltinShape) -> None:
        super().__init__()
        self.self_attn = Attention(shape)
        self.mlp = Mlp(shape)
        self.input_layernorm = nn.RMSNorm(shape.hidden_size, eps=shape.rms_norm_eps)
        self.post_attention_layernorm = nn.RMSNorm(shape.hidden_size, eps=shape.rms_norm_eps)


class FusedLayer(msgspec.Struct, frozen=True):
    """One block's weights as the forward pass uses them: q, k, v in one matrix, gate and up in one.

    The norms' weights and the scale of the attention's scores are multiplied into the matrices.
    """

    qkv: Tensor
    qkv_bias: Tensor
    out: Tensor
    gate_up: Tensor
    down: Tensor


def fuse(layer: Layer, shape: BuiltinShape) -> FusedLayer:
    """Return the block's fused weights; differentiable, so that training may use them too."""
    attention, mlp = layer.self_attn, layer.mlp
    scale = shape.head_dim**-0.5
    matrices = (attention.q_proj.weight * scale, attention.k_proj.weight, attention.v_proj.weight)
    biases = (attention.q_proj.bias * scale, attention.k_proj.bias, attention.v_proj.bias)
    return FusedLayer(
        qkv=torch.cat(matrices) * layer.input_layernorm.weight,
        qkv_bias=torch.cat(biases),
        out=attention.o_proj.weight,
        gate_up=torch.cat([mlp.gate_proj.weight, mlp.up_proj.weight]) * layer.post_attention_layernorm.weight,
        down=mlp.down_proj.weight,
    )


class Fused(msgspec.Struct, frozen=True):
    """The whole model's: blocks, and the head with the last norm's weight in it."""

    layers: list[FusedLayer]
    head: Tensor


class DecoderStack(nn.Module):
    """Embedding, blocks and last norm; named as in transformers."""

    def __init__(self, shape: BuiltinShape) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(shape.vocab_size, shape.hidden_size)
        self.layers = nn.ModuleList(Layer(shape) for _ in range(shape.num_hidden_layers))
        self.norm = nn.RMSNorm(shape.hidden_size, eps=shape.rms_norm_eps)


class BuiltinModel(nn.Module):
    """The weights, and the forward pass over a flat row of tokens that sampling and training use."""

    def __init__(self, shape: BuiltinShape) -> None:
        super().__init__()
        self.shape = shape
        self.model = DecoderStack(shape)
        self.register_buffer("rotations", rotations(shape), persistent=False)
        self._fused: Fused | None = None

    def initialise(self, seed: int) -> None:
        """Set fresh weights: normal for matrices, zero for biases, one for norms."""
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for name, parameter in self.named_parameters():
                if parameter.ndim == 2:
                    parameter.normal_(0.0, self.shape.initializer_range, generator=generator)
                else:
                    parameter.fill_(0.0 if name.endswith("bias") else 1.0)

    def fused(self) -> Fused:
        """Return the fused weights; without gradient they are made once (until `forget`)."""
        if torch.is_grad_enabled():
            return self._fuse()
        if self._fused is None:
            self._fused = self._fuse()
        return self._fused

    def _fuse(self) -> Fused:
        layers = [fuse(layer, self.shape) for layer in self.model.layers if isinstance(layer, Layer)]
        return Fused(layers, self._fuse_head())

    def _fuse_head(self) -> Tensor:
        return self.model.embed_tokens.weight * self.model.norm.weight

    def forget(self) -> None:
        """Drop fused copies: the weights have changed."""
        self._fused = None

    def forward(self, ids: Tensor, positions: Tensor, plan: AttentionPlan) -> Tensor:
        """Return the last hidden states [N, hidden] of ids [N] at positions [N] that attend as `plan` says."""
        shape = self.shape
        rotation = self.get_buffer("rotations")[:, positions].unsqueeze(2)
        x = self.model.embed_tokens(ids)
        for number, layer in enumerate(self.fused().layers):
            query, key, value = project(shape, layer, x, rotation)
            mixed = plan.attend(number, query, key, value, 1.0)
            x = x + functional.linear(mixed.flatten(1), layer.out)
            gate, up = functional.linear(unit(x, shape.rms_norm_eps), layer.gate_up).chunk(2, -1)
            x = x + functional.linear(functional.silu(gate) * up, layer.down)
        return unit(x, shape.rms_norm_eps)

    def logits(self, hidden: Tensor) -> Tensor:
        """Return the logits of hidden states; the head is tied to the embedding."""
        head = self._fuse_head() if torch.is_grad_enabled() else self.fused().head
        return functional.linear(hidden, head)

    def save(self, directory: Path, end: int, pad: int) -> None:
        """Write weights and configuration in the format of transformers."""
        directory.mkdir(parents=True, exist_ok=True)
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in self.state_dict().items()}
        save_file(tensors, directory / WEIGHTS, metadata={"format": "pt"})
        (directory / CONFIG).write_bytes(config_json(self.shape, end, pad))

    def load(self, directory: Path) -> None:
        """Read weights written by `save`. Raises RuntimeError where they do not fit this shape."""
        self.load_state_dict(load_file(directory / WEIGHTS))


def rotations(shape: BuiltinShape) -> Tensor:
    """Return cosine and sine for every position: shape [2, positions, head / 2] (RoFormer, arXiv 2104.09864)."""
    exponents = torch.arange(0, shape.head_dim, 2).float() / shape.head_dim
    angles = torch.arange(shape.max_position_embeddings).float()[:, None] / shape.rope_theta**exponents
    return torch.stack([angles.cos(), angles.sin()])


def unit(x: Tensor, eps: float) -> Tensor:
    """Return x [N, width] over its root mean square (RMSNorm, arXiv 1910.07467; its weight is in the next matrix)."""
    norm: Tensor = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    return x * (norm.square() / x.shape[-1] + eps).rsqrt()


def rotate(x: Tensor, rotation: Tensor) -> Tensor:
    """Apply the rotary embedding [2, N, 1, head / 2] to queries or keys [N, heads, head]."""
    first, second = x.chunk(2, -1)
    cosine, sine = rotation
    return torch.cat([first * cosine - second * sine, second * cosine + first * sine], -1)


def project(shape: BuiltinShape, layer: FusedLayer, x: Tensor, rotation: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return rotated queries (scaled), rotated keys and values, each [N, heads, head], of states [N, hidden]."""
    queries, keys = shape.num_attention_heads, shape.num_key_value_heads
    joint = functional.linear(unit(x, shape.rms_norm_eps), layer.qkv, layer.qkv_bias)
    joint = joint.view(len(x), queries + 2 * keys, shape.head_dim)
    rotated = rotate(joint[:, : queries + keys], rotation)
    return rotated[:, :queries], rotated[:, queries:], joint[:, queries + keys :]


def config_json(shape: BuiltinShape, end: int, pad: int) -> bytes:
    """Return `config.json` as transformers reads it."""
    config = {
        "architectures": ["Qwen2ForCausalLM"],
        "model_type": "qwen2",
        MARKER: 1,
        **msgspec.to_builtins(shape),
        "bos_token_id": None,
        "eos_token_id": end,
        "pad_token_id": pad,
        "tie_word_embeddings": True,
        "use_sliding_window": False,
        "hidden_act": "silu",
        "dtype": "float32",
    }
    return msgspec.json.format(msgspec.json.encode(config), indent=2)


def read_shape(directory: Path) -> BuiltinShape | None:
    """Return the shape of the built-in model in a directory, or None where it holds another model or none."""
    path = directory / CONFIG
    if not path.is_file():
        return None
    raw = path.read_bytes()
    if MARKER not in msgspec.json.decode(raw, type=dict[str, object]):
        return None
    return msgspec.json.decode(raw, type=BuiltinShape)
