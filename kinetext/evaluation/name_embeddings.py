"""Embeddings of class names under a CLIP or any other text encoder, for finding confusable classes."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from transformers import AutoModel, AutoTokenizer

__all__ = ["embed_names"]

_BATCH = 64


def embed_names(names: Sequence[str], encoder: str | os.PathLike[str]) -> np.ndarray:
    """One embedding per name, as the encoder's own text features.

    Args:
        names: N texts.
        encoder: folder or Hub id. A model with `get_text_features` (CLIP, X-CLIP, SigLIP …) gives its projected
            features; of others the last hidden states are averaged over the tokens, as sentence encoders do.

    Returns:
        (N,D) float32.

    Raises:
        OSError: there is no such model, or it has no tokenizer.
    """
    tokenizer = AutoTokenizer.from_pretrained(encoder)
    model = AutoModel.from_pretrained(encoder).eval()
    batches = [list(names[start : start + _BATCH]) for start in range(0, len(names), _BATCH)]
    with torch.inference_mode():
        embeddings = [
            _embed(model, tokenizer(batch, padding=True, truncation=True, return_tensors="pt")) for batch in batches
        ]
    return torch.cat(embeddings).float().numpy()


def _embed(model: Any, tokens: dict[str, torch.Tensor]) -> torch.Tensor:
    if hasattr(model, "get_text_features"):
        features = model.get_text_features(input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"])
        return features if isinstance(features, torch.Tensor) else features.pooler_output
    hidden = model(**tokens).last_hidden_state  # (N,L,D)
    mask = tokens["attention_mask"].unsqueeze(-1)  # (N,L,1)
    return (hidden * mask).sum(dim=1) / mask.sum(dim=1)
