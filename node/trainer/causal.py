"""The engine for any causal language model of transformers: Llama, Qwen, SmolLM, Mistral, ..."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer

from node.trainer.causal_attention import ATTENTION, Pair, Plan, PrefixPlan
from node.trainer.causal_decode import Row, Sampler, sample_rows
from node.trainer.causal_memory import Placement, activation_bytes, cache_bytes, choose_placement, free_bytes
from node.trainer.causal_text import Vocabulary, fingerprint
from node.trainer.causal_update import pack, token_logps
from node.trainer.engine import Sample, TrainingGroup
from node.trainer.frames import TrainerSettings
from protocols.manifest import GameSpec

CACHE_BYTES = 512 << 20
"""Key-value cache that sampling may take; more questions than fit are sampled in several batches."""

SCORES_BYTES = 512 << 20
"""Logits that an update keeps for its backward pass; beyond it they are computed again."""


class CausalEngine:
    """A causal LM behind the `Engine` protocol; transformers computes the layers, attention is by token tree.

    Log-probabilities are those of the game's temperature, in sampling and in the update alike.
    """

    @classmethod
    def load(cls, settings: TrainerSettings, game: GameSpec) -> CausalEngine:
        """Load `settings.model`: a directory (nothing is fetched) or a name that transformers resolves.

        Raises ValueError with one line that says what is wrong and what to do.
        """
        local = Path(settings.model).expanduser()
        place = str(local) if local.is_dir() else settings.model
        known: dict[str, Any] = {"local_files_only": local.is_dir(), "trust_remote_code": False}
        try:
            tokenizer = AutoTokenizer.from_pretrained(place, **known)
            model = AutoModelForCausalLM.from_pretrained(place, dtype=torch.float32, use_safetensors=True, **known)
        except (OSError, ValueError, KeyError) as fault:
            reason = next(iter(str(fault).splitlines()), type(fault).__name__)
            raise ValueError(f"trainer.model: {settings.model!r} does not load ({reason}): name a directory") from fault
        return cls(model, tokenizer, settings, game)

    def __init__(self, model: Any, tokenizer: Any, settings: TrainerSettings, game: GameSpec) -> None:
        if game.temperature <= 0:
            raise ValueError("game.temperature: must be above 0 (greedy sampling is for evaluation)")
        self.parameter_count = int(sum(parameter.numel() for parameter in model.parameters()))
        self._placement: Placement = choose_placement(settings, self.parameter_count)
        self.device = self._placement.device
        self.fingerprint = fingerprint(tokenizer)
        self._vocabulary = Vocabulary(tokenizer, game)
        self._game = game
        self._limit_mib = settings.memory_limit_mib
        self._model = model.to(device=self.device, dtype=self._placement.weights)
        self._model.config.use_cache = False
        self._prefix: dict[int, Pair] | None = None
        _silence_dropout(self._model)
        self._refuse_windows()
        self._take_over_attention()

    def encode(self, text: str) -> list[int]:
        """Return the ids of a text, without special tokens added."""
        return self._vocabulary.encode(text)

    def decode(self, tokens: Sequence[int]) -> str:
        """Return the text of a completion's ids up to its stop text. Raises ValueError for an unknown id."""
        return self._vocabulary.text(tokens)

    def completion_ids(self, text: str, finished: bool) -> list[int]:
        """Return the ids of a completion that came as text, the stop behind it where it finished by itself."""
        return self._vocabulary.completion(text, finished)

    def sample(
        self,
        questions: Sequence[str],
        group: int,
        rng: torch.Generator,
        cancelled: Callable[[], bool],
        *,
        greedy: bool = False,
        progress: Callable[[int, int], None] | None = None,
    ) -> list[list[Sample]]:
        """Sample `group` completions for each question text; `progress` hears of groups done and wanted.

        Raises `Cancelled` between two tokens.
        """
        limit = self._game.max_completion
        draws = torch.rand(len(questions), group, limit, generator=rng, device=rng.device)
        prompts = [self._vocabulary.bounded(self.encode(text)) for text in questions]
        made: list[list[Sample]] = []
        with torch.inference_mode(), self._arithmetic():
            how = self._sampler(cancelled, greedy)
            for start, stop in self._batches(prompts, group):

                def ended(rows: int, before: int = start) -> None:
                    if progress:
                        progress(before + rows // group, len(prompts))

                rows = sample_rows(how, prompts[start:stop], draws[start:stop], ended)
                made += [[self._sample_of(row) for row in some] for some in rows]
        return made

    def completion_logps(self, groups: Sequence[TrainingGroup]) -> Tensor:
        """Return, with gradient, the log-probability of every completion token [tokens].

        The common prefix is computed once for all groups, each question once for its group; tokens that predict
        nothing are not computed. Where memory asks, activations are computed again in the backward pass.
        """
        return self._logps(self._vocabulary.prefix, groups)

    def cost(self, group: TrainingGroup) -> int:
        """Return the tokens that a group costs in an update (the common prefix, paid once a micro-batch, apart)."""
        return len(self._vocabulary.bounded(group.prompt)) + sum(map(len, group.completions))

    def parameters(self) -> Iterator[torch.nn.Parameter]:
        """Return the parameters that are trained."""
        return (parameter for parameter in self._model.parameters() if parameter.requires_grad)

    def weights_changed(self) -> None:
        """Forget the prefix's keys and values."""
        self._prefix = None

    def save(self, directory: Path) -> None:
        """Write weights (safetensors, as they are trained), tokenizer and config as a Hugging Face directory."""
        self._model.save_pretrained(str(directory))
        self._vocabulary.tokenizer.save_pretrained(str(directory))

    def load_weights(self, directory: Path) -> None:
        """Read weights written by `save` into the parameters that exist. Raises ValueError where some lack."""
        read: dict[str, Tensor] = {}
        for part in sorted(directory.glob("*.safetensors")):
            read |= load_file(part)
        missing, unexpected = self._model.load_state_dict(read, strict=False)
        tied = set(self._model.all_tied_weights_keys)
        if set(missing) - tied or unexpected:
            wrong = sorted({*missing, *unexpected} - tied)
            raise ValueError(f"{directory}: these are not the weights of this model ({wrong[0]}, {len(wrong)} in all)")
        self._model.tie_weights()
        self.weights_changed()

    def train_mode(self, on: bool) -> Any:
        """Switch the layers' training mode (it permits recomputation; drop-out is off in both)."""
        return self._model.train(on)

    def _forward(self, ids: list[int], positions: list[int], plan: Plan) -> Tensor:
        """Return the last hidden states [N, width] of a flat row."""
        row, places = (torch.tensor([numbers], device=self.device) for numbers in (ids, positions))
        out = self._model.base_model(input_ids=row, position_ids=places, use_cache=False, plan=plan)
        hidden: Tensor = out.last_hidden_state[0]
        return hidden

    def _logits(self, hidden: Tensor) -> Tensor:
        """Return logits [n, vocabulary] of hidden states [n, width], with the scaling some families add."""
        config = self._model.config
        logits: Tensor = self._model.get_output_embeddings()(hidden)
        logits = logits * (getattr(config, "logit_scale", None) or 1.0) / (getattr(config, "logits_scaling", None) or 1)
        cap = getattr(config, "final_logit_softcapping", None)
        return cap * torch.tanh(logits / cap) if cap else logits

    def _logps(self, prefix: list[int], groups: Sequence[TrainingGroup]) -> Tensor:
        if not any(any(group.completions) for group in groups):
            return torch.zeros(0, device=self.device, requires_grad=True)
        prompts = [self._vocabulary.bounded(group.prompt) for group in groups]
        packed = pack(prefix, prompts, groups, self.device)
        self._spare_layers(len(packed.ids))
        kept = 4 * len(packed.targets) * int(self._model.config.vocab_size)
        with self._arithmetic():
            hidden = self._forward(packed.ids, packed.positions, packed.plan)
            return token_logps(hidden, packed, self._logits, self._game.temperature, kept > SCORES_BYTES)

    def _spare_layers(self, tokens: int) -> None:
        """Have the layers computed again in the backward pass if keeping them would take half of what is free."""
        width = 2 if torch.bfloat16 in (self._placement.weights, self._placement.autocast) else 4
        wanted = activation_bytes(self._model.config, tokens, width)
        if self._model.supports_gradient_checkpointing and wanted > free_bytes(self.device, self._limit_mib) // 2:
            self._model.train()
            self._model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        else:
            self._model.gradient_checkpointing_disable()

    def _sampler(self, cancelled: Callable[[], bool], greedy: bool) -> Sampler:
        game, prefix = self._game, self._vocabulary.prefix
        if self._prefix is None:
            plan = PrefixPlan(len(prefix), self.device)
            if prefix:
                self._forward(prefix, list(range(len(prefix))), plan)
            self._prefix = plan.pairs
        stops = torch.tensor(self._vocabulary.stops, device=self.device)
        limits = game.max_completion, game.temperature, greedy, cancelled
        return Sampler(self._forward, self._logits, self._prefix, len(prefix), stops, *limits)

    def _batches(self, prompts: Sequence[list[int]], group: int) -> Iterator[tuple[int, int]]:
        """Cut the questions into runs whose key-value cache fits, at least one question each."""
        width = torch.finfo(self._placement.autocast or self._placement.weights).bits // 8
        tokens = CACHE_BYTES // cache_bytes(self._model.config, width)
        each = max(map(len, prompts), default=0) + group * self._game.max_completion
        size = max(1, tokens // max(1, each))
        return ((start, min(start + size, len(prompts))) for start in range(0, len(prompts), size))

    def _sample_of(self, row: Row) -> Sample:
        return Sample(row.tokens, row.logps, self._vocabulary.text(row.tokens), row.finished)

    def _arithmetic(self) -> AbstractContextManager[Any]:
        kind = self._placement.autocast
        return torch.autocast(self.device.type, kind) if kind else nullcontext()

    def _refuse_windows(self) -> None:
        """Raise ValueError where the model attends to fewer tokens than the game's prompts and answers have."""
        config, game = self._model.config, self._game
        kinds = set(getattr(config, "layer_types", None) or ())
        window = getattr(config, "sliding_window", None) if "sliding_attention" in kinds else None
        longest = len(self._vocabulary.prefix) + game.max_prompt + game.max_completion
        if window and window < longest:
            raise ValueError(f"trainer.model: it attends to {window} tokens, the game needs {longest}: choose another")

    def _take_over_attention(self) -> None:
        """Have attention computed by token tree. Raises ValueError where that changes what the model says."""
        vocabulary = int(self._model.config.vocab_size)
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
        tolerance = 1e-3 if self._placement[1:] == (torch.float32, None) else 0.3
        if not torch.allclose(plain, ours, atol=tolerance):
            raise ValueError(f"trainer.model: {type(self._model).__name__} can't share its prompt: choose another")

    def _plain_logps(self, prompt: list[int], completion: list[int]) -> Tensor:
        """Return log-probabilities by the model's own forward pass, prompt and all."""
        ids = torch.tensor([prompt + completion], device=self.device)
        with self._arithmetic():
            logits: Tensor = self._model(ids, use_cache=False).logits[0, len(prompt) - 1 : -1].float()
        logps = (logits / self._game.temperature).log_softmax(-1)
        return logps.gather(1, ids[0, len(prompt) :, None])[:, 0]


def _silence_dropout(model: Any) -> None:
    """Turn drop-out off: a policy gradient compares probabilities of one and the same policy."""
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
