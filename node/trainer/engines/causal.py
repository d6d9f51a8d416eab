"""The engine for any causal language model of transformers: Llama, Qwen, SmolLM, Mistral, ..."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from copy import deepcopy
from pathlib import Path
from typing import Any, Self

import torch
from safetensors.torch import load_file
from torch import Tensor

from node.trainer.engines.causal_attention import ATTENTION
from node.trainer.engines.causal_load import ADAPTER_WEIGHTS, adapters_off, load_adapters, load_model, prepare, read
from node.trainer.engines.causal_text import TokenText, fingerprint
from node.trainer.engines.decoder_sampler import DecoderSampler
from node.trainer.engines.engine import TrainingGroup
from node.trainer.engines.process_group import full_tensor
from node.trainer.engines.sampler import Sampler
from node.trainer.engines.tree_attention import AttentionPlan
from node.trainer.engines.tree_engine import TreeEngine
from node.trainer.engines.weight_layout import laid_out, pays
from node.trainer.memory.memory_plan import SCORES_BYTES
from node.trainer.memory.placement import FLOAT32, Placement, Site, choose_site, free_bytes, shape_of
from node.trainer.messages import TrainerSettings
from protocols.manifest import GameSpec


class CausalEngine(TreeEngine):
    """A causal LM behind the `Engine` protocol; transformers computes the layers, attention is by token tree.

    It is `node.trainer.engines.sampler.ServedModel` too.
    """

    @classmethod
    def load(cls, settings: TrainerSettings, game: GameSpec, sampler: type[Sampler] = DecoderSampler) -> Self:
        """Plan the memory for training and a sampler of this class, then load `settings.model`.

        The engine decodes by itself until it is told to use another sampler. Raises ValueError with one line that says
        what is wrong.
        """
        source = read(settings)
        settings = source.settings
        vocabulary = TokenText(source.tokenizer, game)
        site = choose_site(settings, game, shape_of(source.config), len(vocabulary.prefix), sampler)
        engine = cls(load_model(source, site.placement), vocabulary, site, settings, game)
        engine.source = source.base
        return engine

    @classmethod
    def adopt(cls, model: Any, tokenizer: Any, settings: TrainerSettings, game: GameSpec) -> Self:
        """Take over a model that lies in memory already. Raises ValueError."""
        vocabulary = TokenText(tokenizer, game)
        site = choose_site(settings, game, shape_of(model.config), len(vocabulary.prefix), DecoderSampler)
        return cls(prepare(model, settings, site.placement), vocabulary, site, settings, game)

    def __init__(
        self, model: Any, vocabulary: TokenText, site: Site, settings: TrainerSettings, game: GameSpec
    ) -> None:
        super().__init__(game, vocabulary.prefix, vocabulary.stops, site.placement.device)
        self._model, self._vocabulary = model, vocabulary
        self._placement: Placement = site.placement
        self.memory_plan = site.plan
        self.source = str(model.name_or_path)
        self._settings = settings
        self.micro_batch_tokens, self.sampler.max_num_seqs = site.plan.micro_batch_tokens, site.plan.max_num_seqs
        self.half_precision = site.placement.half
        self.shape = shape_of(self._model.config)
        self.parameter_count = self.shape.parameters
        self.fingerprint = fingerprint(self._vocabulary.tokenizer)
        _silence_dropout(self._model)
        self._refuse_windows()
        self._take_over_attention()
        self._reference = deepcopy(self._model).requires_grad_(False) if settings.beta and not settings.lora else None
        self._use_gradient_checkpointing()

    # --- text -----------------------------------------------------------------------------------------------------

    def encode(self, text: str) -> list[int]:
        """Return the ids of a text, without special tokens added."""
        return self._vocabulary.encode(text)

    def decode(self, tokens: Sequence[int]) -> str:
        """Return the text of a completion's ids up to its stop text. Raises ValueError for an unknown id."""
        return self._vocabulary.text(tokens)

    def completion_ids(self, text: str, finished: bool) -> list[int]:
        """Return the ids of a completion that came as text, the stop behind it where it finished by itself."""
        return self._vocabulary.completion(text, finished)

    def shown(self, tokens: Sequence[int]) -> str:
        """Return the text of a completion's ids; U+FFFD stands for an id that the tokenizer does not have."""
        return self._vocabulary.shown(tokens)

    def texts(self, rows: list[list[int]]) -> list[str]:
        """Return the texts of completions' ids up to their stop text."""
        return [self._vocabulary.text(row) for row in rows]

    # --- computation ----------------------------------------------------------------------------------------------

    def forward(self, ids: Tensor, positions: Tensor, plan: AttentionPlan) -> Tensor:
        """Return the last hidden states [N, width] of ids [N] at positions [N] that attend as `plan` says."""
        out = self._model.base_model(input_ids=ids[None], position_ids=positions[None], use_cache=False, plan=plan)
        hidden: Tensor = out.last_hidden_state[0]
        return hidden

    def logits(self, hidden: Tensor) -> Tensor:
        """Return logits [n, vocabulary] of hidden states [n, width], with the scaling some families add.

        Many models have more rows than their tokenizer has ids: these are left out, in sampling as in the update.
        """
        config = self._model.config
        logits: Tensor = self._model.get_output_embeddings()(hidden)[..., : self._vocabulary.size]
        logits = logits * (getattr(config, "logit_scale", None) or 1.0) / (getattr(config, "logits_scaling", None) or 1)
        cap = getattr(config, "final_logit_softcapping", None)
        return cap * torch.tanh(logits / cap) if cap else logits

    def _recomputes_logits(self, targets: int) -> bool:
        return 4 * targets * int(self._model.config.vocab_size) > SCORES_BYTES

    def _arithmetic(self) -> AbstractContextManager[Any]:
        kind = self._placement.autocast
        return torch.autocast(self.device.type, kind) if kind else nullcontext()

    @property
    def dtype(self) -> torch.dtype:
        """Type of the arithmetic."""
        return self._placement.dtype

    def _laid_out(self) -> AbstractContextManager[None]:
        return laid_out(self._model, self.dtype) if pays(self.device, self.dtype) else nullcontext()

    @contextmanager
    def _as_reference(self) -> Iterator[None]:
        if self._settings.lora:
            with adapters_off(self._model):
                yield
            return
        if self._reference is None:
            raise RuntimeError("no reference model was kept: trainer.beta is 0")
        self._model, trained = self._reference, self._model
        try:
            yield
        finally:
            self._model = trained

    def _use_gradient_checkpointing(self) -> None:
        """Have the layers computed again in the backward pass where the memory plan says so."""
        if self.memory_plan.gradient_checkpointing and self._model.supports_gradient_checkpointing:
            self._model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})

    # --- weights --------------------------------------------------------------------------------------------------

    def parameters(self) -> Iterator[torch.nn.Parameter]:
        """Return the parameters that are trained."""
        return (parameter for parameter in self._model.parameters() if parameter.requires_grad)

    def save(self, directory: Path) -> None:
        """Write weights (safetensors, as they are trained; with LoRA the adapters alone), tokenizer and config."""
        self._model.save_pretrained(str(directory))
        self._vocabulary.tokenizer.save_pretrained(str(directory))

    def load_weights(self, directory: Path) -> None:
        """Read weights written by `save` into the parameters that exist. Raises ValueError where some lack."""
        if self._settings.lora:
            load_adapters(self._model, directory)
        else:
            self._load_whole(directory)
        self.weights_changed()

    def _load_whole(self, directory: Path) -> None:
        found = self._found(directory)
        missing, unexpected = self._model.load_state_dict(found, strict=False)
        tied = set(self._model.all_tied_weights_keys)
        if set(missing) - tied or unexpected:
            wrong = sorted({*missing, *unexpected} - tied)
            raise ValueError(f"{directory}: these are not the weights of this model ({wrong[0]}, {len(wrong)} in all)")
        self._model.tie_weights()

    def _found(self, directory: Path) -> dict[str, Tensor]:
        found: dict[str, Tensor] = {}
        for part in sorted(directory.glob("*.safetensors")):
            if part.name != ADAPTER_WEIGHTS:
                found |= load_file(part)
        return found

    @torch.no_grad()
    def named_weights(self) -> Iterator[tuple[str, Tensor]]:
        """Yield the weights under their names on disk, whole, in `dtype`; adapters are merged, tied copies left out."""
        tied = set(self._model.all_tied_weights_keys)
        modules = dict(self._model.named_modules())
        for name, weight in self._model.state_dict().items():
            if "lora_" in name or name in tied:
                continue
            place, _, leaf = name.rpartition(".")
            if place.endswith(".base_layer"):
                place = place.removesuffix(".base_layer")
                delta = modules[place].get_delta_weight(next(iter(modules[place].lora_A))) if leaf == "weight" else 0
                weight = weight + delta
            yield f"{place}.{leaf}", full_tensor(weight).to(self.dtype, copy=True)

    def train_mode(self, on: bool) -> Any:
        """Switch the layers' training mode (it permits recomputation; drop-out is off in both)."""
        return self._model.train(on)

    def use_float32(self) -> bool:
        """Compute in float32 from now on, in parts half as large; return False where it does already or where the
        wider weights would not fit. A 4-bit base stays as it is, only its arithmetic widens."""
        placement = self._placement
        wider = self.parameter_count * (4 - placement.weights.itemsize) * (self._settings.quantise == "none")
        if (placement.weights, placement.autocast) == (FLOAT32, None):
            return False
        if wider > free_bytes(self.device, self._settings.memory_limit_mib):
            return False
        self._model.float() if self._settings.quantise == "none" else _widen(self._model)
        self._placement = Placement(placement.device, FLOAT32, None)
        self.half_precision = False
        self.micro_batch_tokens = max(1, self.micro_batch_tokens // 2)
        self.sampler.max_num_seqs = max(1, self.sampler.max_num_seqs // 2)
        self.weights_changed()
        return True

    # --- checks ---------------------------------------------------------------------------------------------------

    def _refuse_windows(self) -> None:
        """Raise ValueError where the model attends to fewer tokens than the game's prompts and answers have."""
        config, game = self._model.config, self.game
        kinds = set(getattr(config, "layer_types", None) or ())
        window = getattr(config, "sliding_window", None) if "sliding_attention" in kinds else None
        longest = len(self._vocabulary.prefix) + game.max_prompt + game.max_completion
        if window and window < longest:
            raise ValueError(f"trainer.model: it attends to {window} tokens, the game needs {longest}: choose another")

    def _take_over_attention(self) -> None:
        """Have attention computed by token tree. Raises ValueError where that changes what the model says."""
        vocabulary = min(int(self._model.config.vocab_size), self._vocabulary.size)
        numbers = torch.randint(vocabulary, (14,), generator=torch.Generator().manual_seed(0)).tolist()
        prefix, prompt, completions = numbers[:5], numbers[5:8], [numbers[8:12], numbers[12:]]
        group = TrainingGroup(prompt, completions, [[], []], [0.0, 0.0], external=False)
        self._model.eval()
        with torch.inference_mode():
            plain = torch.cat([self._plain_logps(prefix + prompt, completion) for completion in completions])
            try:
                self._model.set_attn_implementation(ATTENTION)
                ours = self._logps(prefix, [group])
            except (ValueError, TypeError, AttributeError, RuntimeError, IndexError) as fault:
                raise ValueError(f"trainer.model: {type(self._model).__name__} can't share its prompt") from fault
        tolerance = 1e-3 if self._placement[1:] == (FLOAT32, None) and self._settings.quantise == "none" else 0.3
        if not torch.allclose(plain, ours, atol=tolerance):
            raise ValueError(f"trainer.model: {type(self._model).__name__} can't share its prompt: choose another")

    def _plain_logps(self, prompt: list[int], completion: list[int]) -> Tensor:
        """Return log-probabilities by the model's own forward pass, prompt and all."""
        ids = torch.tensor([prompt + completion], device=self.device)
        with self._arithmetic():
            logits: Tensor = self._model(ids, use_cache=False).logits[0, len(prompt) - 1 : -1].float()
            logits = logits[:, : self._vocabulary.size]
        logps = (logits / self.game.temperature).log_softmax(-1)
        return logps.gather(1, ids[0, len(prompt) :, None])[:, 0]


def _silence_dropout(model: Any) -> None:
    """Turn drop-out off: a policy gradient compares probabilities of one and the same policy."""
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0


def _widen(model: Any) -> None:
    """Have the matrices of a 4-bit base, and all else of the model, compute in float32."""
    for module in model.modules():
        if hasattr(module, "compute_dtype"):
            module.compute_dtype = FLOAT32
    for parameter in model.parameters():
        if parameter.is_floating_point():
            parameter.data = parameter.data.float()
