"""Class texts of a model and its processor, as one bank."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from ..modeling.modeling_video_text import TextBank
from ..processing.processing_video_text import VideoTextProcessor

logger = logging.getLogger(__name__)


def uses_descriptions(model: Any) -> bool:
    """Whether descriptions change what the model says: those of MoTED do, unless its configuration leaves them out."""
    return getattr(model.config, "uses_descriptions", False)


def encode_class_texts(
    model: Any,
    processor: VideoTextProcessor,
    texts: Sequence[str],
    *,
    descriptions: Sequence[Sequence[str]] | None = None,
    template: str | None = None,
) -> TextBank:
    """The bank of N class texts, on the model's device, which knows the tokenizer it was made with.

    Args:
        model: a video-text model.
        processor: its processor.
        texts: N class names.
        descriptions: N lists of descriptions, in the order of `texts`, for a model that uses them (MoTED). Without
            them, class names stand in, which is logged as a warning.
        template: what the names are put into, at `{}`; the saved one by default.
    """
    if descriptions is None and uses_descriptions(model):
        logger.warning(
            "this %s was made to read descriptions of the classes and gets none, so class names stand in for them; "
            "pass `descriptions`.",
            model.config.model_type,
        )
    tokens = processor(text=list(texts), descriptions=descriptions, template=template).to(model.device)
    return model.encode_texts(**tokens, names=texts, tokenizer_fingerprint=processor.tokenizer_fingerprint)
