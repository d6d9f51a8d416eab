"""A tokenizer of single letters, and of one token that ends in a newline."""

from __future__ import annotations

from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

LETTERS = [*"abcdefghijklmnopqrstuvwxyz0123456789?.", "Ġ", "Ċ", ".Ċ", "<eos>"]


def letter_tokenizer() -> PreTrainedTokenizerFast:
    """Return it, with `<eos>` at the end."""
    rules = Tokenizer(models.BPE(vocab={t: i for i, t in enumerate(LETTERS)}, merges=[(".", "Ċ")]))
    rules.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    rules.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=rules, eos_token="<eos>")  # type: ignore[no-untyped-call]
