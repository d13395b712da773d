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


def check_motion_frames(model: Any, processor: VideoTextProcessor) -> None:
    """Raises ValueError unless the processor gives as many motion frames as the model takes."""
    wanted = getattr(model.config, "motion_frame_ratio", 1)
    if processor.motion_frame_ratio != wanted:
        raise ValueError(
            f"the processor has motion_frame_ratio={processor.motion_frame_ratio}, the {model.config.model_type} model "
            f"takes {wanted}: it would see other frames than it was made for. Pass motion_frame_ratio={wanted} to the "
            "processor."
        )


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

    Raises:
        ValueError: if model and processor do not agree on the motion frames, or the model is a classifier.
    """
    check_motion_frames(model, processor)
    if not hasattr(model, "encode_texts"):
        raise ValueError(
            f"this {type(model).__name__} reads no class texts: it tells apart {list(model.config.id2label.values())}. "
            "Evaluate it on clips of these classes, or take a model with a text tower."
        )
    if descriptions is None and uses_descriptions(model):
        logger.warning(
            "this %s was made to read descriptions of the classes and gets none, so class names stand in for them; "
            "pass `descriptions`.",
            model.config.model_type,
        )
    tokens = processor(text=list(texts), descriptions=descriptions, template=template).to(model.device)
    return model.encode_texts(**tokens, names=texts, tokenizer_fingerprint=processor.tokenizer_fingerprint)
