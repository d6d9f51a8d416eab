"""Text and tokens of a causal model: the prefix all prompts share, where a completion ends, who can read whose ids."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile
from typing import Any

import msgspec

from protocols.identifiers import Digest, body_digest
from protocols.manifest import GameSpec


class TokenText:
    """A tokenizer as one game uses it.

    Raises ValueError where no token of the tokenizer holds the game's stop text.
    """

    def __init__(self, tokenizer: Any, game: GameSpec) -> None:
        self.tokenizer = tokenizer
        self.size = len(tokenizer)
        self.prefix = self._first() + self.encode(game.examples)
        self.stops = stop_ids(tokenizer, game.stop)
        self._stop = game.stop
        self._ends = [text for text in (game.stop, tokenizer.eos_token) if text]
        self._max_prompt = game.max_prompt

    def encode(self, text: str) -> list[int]:
        """Return the ids of a text, without special tokens added."""
        return list(self.tokenizer(text, add_special_tokens=False).input_ids) if text else []

    def bounded(self, prompt: list[int]) -> list[int]:
        """Return the last `max_prompt` ids of a question: its end is where the answer begins."""
        return prompt[-self._max_prompt :]

    def text(self, tokens: Sequence[int]) -> str:
        """Return the text of a completion up to its stop text. Raises ValueError for an id that is none."""
        if not all(0 <= token < self.size for token in tokens):
            raise ValueError(f"ids go from 0 to {self.size - 1}")
        text = str(self.tokenizer.decode(tokens, skip_special_tokens=False, clean_up_tokenization_spaces=False))
        return text[: min((text.index(end) for end in self._ends if end in text), default=len(text))]

    def shown(self, tokens: Sequence[int]) -> str:
        """Return the text of what an engine sampled that knows the model's rows only: one that is no id is shown as
        U+FFFD, and nothing behind it."""
        known = list(takewhile(lambda token: 0 <= token < self.size, tokens))
        return self.text(known) + "\ufffd" * (len(known) < len(tokens))

    def completion(self, text: str, finished: bool) -> list[int]:
        """Return the ids of a completion that came as text, with its stop where it ended by itself.

        Nothing follows the first stop: the sampler would have ended there.
        """
        ids = self.encode(text + self._stop * finished)
        if finished and (not ids or ids[-1] not in self.stops):
            ids.append(self.stops[0])
        first = next((place for place, token in enumerate(ids) if token in self.stops), len(ids))
        return ids[: first + 1]

    def _first(self) -> list[int]:
        """Return the token that this tokenizer puts before every text, if it has such a one."""
        first = self.tokenizer("a").input_ids[:1]
        return list(first) if first and first[0] == self.tokenizer.bos_token_id else []


def stop_ids(tokenizer: Any, stop: str) -> list[int]:
    """Return every id whose text holds `stop` (a newline may be glued to a full stop), and the end of text.

    Raises ValueError where `stop` spans several tokens.
    """
    texts = tokenizer.batch_decode([[i] for i in range(len(tokenizer))], skip_special_tokens=False)
    found = {i for i, text in enumerate(texts) if stop and stop in text}
    if stop and not found:
        raise ValueError(f"game.stop: no token of this model holds {stop!r}: choose a stop text of one token")
    return sorted(found | ({tokenizer.eos_token_id} - {None}))


def fingerprint(tokenizer: Any) -> Digest:
    """Return the digest under which two tokenizers give and read the same ids."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    rules = msgspec.json.decode(backend.to_str()) if backend else {"vocabulary": tokenizer.get_vocab()}
    for transient in ("truncation", "padding"):
        rules.pop(transient, None)
    return body_digest(msgspec.json.encode(rules, order="sorted"))
