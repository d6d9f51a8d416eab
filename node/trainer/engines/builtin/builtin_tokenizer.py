"""The built-in model's tokenizer: byte-level BPE of 512 entries, single digits, trained on generated problems."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

import msgspec
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from node.data.arithmetic import Draws, problems
from protocols.identifiers import Digest, body_digest

PAD, START, END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
VOCABULARY = 512
RECORDS = 4000
FILE = "tokenizer.json"

CHAT_TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


class BuiltinTokenizer:
    """Text to ids and back."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self.end = self.token(END)
        self.pad = self.token(PAD)

    def token(self, text: str) -> int:
        """Return the id of a text that is one entry of the vocabulary. Raises ValueError where it is not."""
        found = self._tokenizer.encode(text, add_special_tokens=False).ids
        if len(found) != 1:
            raise ValueError(f"the built-in model needs a stop text that is one token, {text!r} is {len(found)}")
        return int(found[0])

    def encode(self, text: str) -> list[int]:
        """Return the ids of a text; special tokens in it are recognised, none is added."""
        return list(self._tokenizer.encode(text, add_special_tokens=False).ids)

    def decode(self, rows: Sequence[Sequence[int]]) -> list[str]:
        """Return the text of each row of ids; special tokens show as they are written."""
        return list(self._tokenizer.decode_batch([list(row) for row in rows], skip_special_tokens=False))

    @property
    def fingerprint(self) -> Digest:
        """Digest over vocabulary and merges: equal where the same text has the same ids."""
        model = msgspec.json.decode(self._tokenizer.to_str().encode())["model"]
        return body_digest(msgspec.json.encode([model["vocab"], model["merges"]], order="sorted"))

    def save(self, directory: Path) -> None:
        """Write the tokenizer in the format of transformers."""
        directory.mkdir(parents=True, exist_ok=True)
        self._tokenizer.save(str(directory / FILE))
        config = {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "eos_token": END,
            "pad_token": PAD,
            "padding_side": "left",
            "chat_template": CHAT_TEMPLATE,
            "clean_up_tokenization_spaces": False,
        }
        encoded = msgspec.json.format(msgspec.json.encode(config), indent=2)
        (directory / "tokenizer_config.json").write_bytes(encoded)


def load_tokenizer(directory: Path) -> BuiltinTokenizer:
    """Read a tokenizer written by `BuiltinTokenizer.save`."""
    return BuiltinTokenizer(Tokenizer.from_file(str(directory / FILE)))


def train_tokenizer() -> BuiltinTokenizer:
    """Train the tokenizer; the same on every machine, so that peers may exchange ids. About a second."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[PAD, START, END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_texts(), trainer)
    return BuiltinTokenizer(tokenizer)


def _texts() -> Iterator[str]:
    for problem in islice(problems(Draws("swarm/arithmetic/1/tokenizer"), held_out=False), RECORDS):
        yield from (problem.question, problem.answer, "user\n", "assistant\n")
