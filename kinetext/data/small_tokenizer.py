"""A CLIP tokenizer learnt from a list of texts, for models trained from scratch without a download."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from tokenizers.pre_tokenizers import ByteLevel
from tokenizers.trainers import BpeTrainer
from transformers import CLIPTokenizer

_CONTEXT_LENGTH = 77  # of every CLIP text tower
_BOS, _EOS = "<|startoftext|>", "<|endoftext|>"


def small_tokenizer(texts: Iterable[str], *, max_tokens: int = 1024) -> CLIPTokenizer:
    """A byte-level BPE tokenizer laid out as CLIP's: bytes, bytes at word ends, merges, start, end.

    Any text can be encoded; words of `texts` mostly become single tokens. The end token has the highest id, because
    CLIP text towers find their feature at the largest id (OpenAI CLIP). The same texts give the same tokenizer, in any
    order and in any process.

    Args:
        texts: what the merges are learnt from.
        max_tokens: upper bound of the vocabulary, at least 514 (bytes twice, and the two special tokens).

    Raises:
        ValueError: if `max_tokens` is smaller.
    """
    alphabet = sorted(ByteLevel.alphabet())
    fewest = 2 * len(alphabet) + 2
    if max_tokens < fewest:
        raise ValueError(f"max_tokens={max_tokens} is too small; bytes and special tokens alone are {fewest}.")
    symbols = [*alphabet, *(letter + "</w>" for letter in alphabet)]
    merges: Any = _learn_merges(texts, symbols, max_tokens - 2)
    tokens = [*dict.fromkeys([*symbols, *(first + second for first, second in merges)]), _BOS, _EOS]
    vocabulary = {token: index for index, token in enumerate(tokens)}
    return CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=_CONTEXT_LENGTH)


def _learn_merges(texts: Iterable[str], symbols: list[str], max_tokens: int) -> list[tuple[str, str]]:
    """Pairs in the order they are merged, the most frequent first, until there are `max_tokens` with the symbols.

    The library breaks ties of frequency by the ids of a pair, and gives symbols ids in the order of a hash map, another
    one in each process, unless they have one already: as special tokens, which are numbered first.
    """
    tokenizer = CLIPTokenizer().backend_tokenizer
    trainer = BpeTrainer(vocab_size=max_tokens, special_tokens=symbols, end_of_word_suffix="</w>", show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)
    return [(first, second) for first, second in json.loads(tokenizer.to_str())["model"]["merges"]]
