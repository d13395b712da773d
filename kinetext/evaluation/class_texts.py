"""Class texts of a model and its processor, as one bank."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..modeling.modeling_video_text import TextBank
from ..processing.processing_video_text import VideoTextProcessor


def encode_class_texts(
    model: Any, processor: VideoTextProcessor, texts: Sequence[str], *, template: str | None = None
) -> TextBank:
    """The bank of N class texts, on the model's device, which knows the tokenizer it was made with."""
    tokens = processor(text=list(texts), template=template).to(model.device)
    return model.encode_texts(**tokens, names=texts, tokenizer_fingerprint=processor.tokenizer_fingerprint)
