"""Class texts of a model and its processor, as one bank."""

from __future__ import annotations

import csv
import logging
import os
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import torch

from ..descriptions import load_descriptions
from ..modeling.configuration_video_text import class_names_of
from ..modeling.modeling_video_text import TextBank
from ..processing.processing_video_text import VideoTextProcessor

logger = logging.getLogger(__name__)


def uses_descriptions(model: Any) -> bool:
    """Whether descriptions change what the model says: those of MoTED do, unless its configuration leaves them out."""
    return getattr(model.config, "uses_descriptions", False)


def check_descriptions(model: Any, descriptions: Any) -> None:
    """Raises ValueError for descriptions that the model does not read."""
    if descriptions is not None and not uses_descriptions(model):
        raise ValueError(f"this {model.config.model_type} reads class names only; leave the descriptions out.")


def check_motion_frames(model: Any, processor: VideoTextProcessor) -> None:
    """Raises ValueError unless the processor gives as many motion frames as the model takes."""
    wanted = getattr(model.config, "motion_frame_ratio", 1)
    if processor.motion_frame_ratio != wanted:
        raise ValueError(
            f"the processor has motion_frame_ratio={processor.motion_frame_ratio}, the {model.config.model_type} model "
            f"takes {wanted}: it would see other frames than it was made for. Pass motion_frame_ratio={wanted} to the "
            "processor."
        )


def parse_labels(labels: str | Iterable[str]) -> tuple[str, ...]:
    """N class names, of several texts or of one with commas between them (a name with a comma in double quotes).

    Raises:
        TypeError: for anything else.
        ValueError: if a name is empty or there twice, or a double quote is not closed.
    """
    if isinstance(labels, str):
        try:
            labels = next(csv.reader([labels], skipinitialspace=True, strict=True), [])
        except csv.Error as error:
            raise ValueError(f"labels={labels!r} cannot be told apart at the commas: {error}.") from error
    labels = list(labels) if isinstance(labels, Iterable) else labels
    if not isinstance(labels, list) or not all(isinstance(label, str) for label in labels):
        raise TypeError(f"labels={labels!r} are no list of texts, and no text with commas between the names.")
    names = tuple(str(label).strip() for label in labels)
    if not names or not all(names):
        raise ValueError(f"labels {list(names)} hold an empty name, or none at all; name the classes.")
    if len(set(names)) < len(names):
        raise ValueError(f"labels name a class twice: {list(names)}; its score would be split.")
    return names


def descriptions_of(source: Any, class_names: Sequence[str]) -> Sequence[Sequence[str]] | None:
    """N lists of descriptions in the order of `class_names`.

    Args:
        source: what `load_descriptions` takes (a shipped name, a file, a folder, a Hub id) or what it gave, or N lists,
            which are returned as they are, or None.
        class_names: N names.
    """
    if isinstance(source, (str, os.PathLike)):
        source = load_descriptions(source)
    return source.for_classes(class_names) if hasattr(source, "for_classes") else source


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
            f"this {type(model).__name__} reads no class texts: it tells apart {class_names_of(model.config)}. "
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


def join_banks(banks: Sequence[TextBank]) -> TextBank:
    """M banks of N texts as one of M*N, one bank after the other, for `Scoring(num_templates=M)`."""
    tensors: dict[str, Any] = {
        name: None if getattr(banks[0], name) is None else torch.cat([getattr(bank, name) for bank in banks])
        for name in ("text_embeds", "description_embeds", "description_mask")
    }
    return replace(banks[0], names=tuple(name for bank in banks for name in bank.names), **tensors)
