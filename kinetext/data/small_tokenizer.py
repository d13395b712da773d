"""A CLIP tokenizer learnt from a list of texts, for models trained from scratch without a download."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from tokenizers.pre_tokenizers import ByteLevel
from transformers import CLIPTokenizer

_CONTEXT_LENGTH = 77  # of every CLIP text tower
_BOS, _EOS = "<|startoftext|>", "<|endoftext|>"


def small_tokenizer(texts: Iterable[str], *, max_tokens: int = 1024) -> CLIPTokenizer:
    """A byte-level BPE tokenizer laid out as CLIP's: bytes, bytes at word ends, merges, start, end.

    Any text can be encoded; words of `texts` mostly become single tokens. The end token has the highest id, because
    CLIP text towers find their feature at the largest id (OpenAI CLIP).

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
    learnt = CLIPTokenizer().train_new_from_iterator(
        list(texts), vocab_size=max_tokens - len(alphabet), show_progress=False
    )
    merges: Any = [tuple(merge) for merge in json.loads(learnt.backend_tokenizer.to_str())["model"]["merges"]]
    tokens = [*alphabet, *(letter + "</w>" for letter in alphabet), *(first + second for first, second in merges)]
    tokens = [*dict.fromkeys(tokens), _BOS, _EOS]
    vocabulary = {token: index for index, token in enumerate(tokens)}
    return CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=_CONTEXT_LENGTH)
