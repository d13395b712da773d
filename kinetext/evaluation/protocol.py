"""Fingerprints of clips and of evaluations: what must be the same for two numbers to be compared."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any

from ..data.annotations import ClipList
from ..data.datasets import EvalClips

__all__ = ["clips_fingerprint", "protocol_fingerprint"]

_AVERAGING = "mean of the probabilities of the views"  # as `evaluate_clips` does


def clips_fingerprint(clips: ClipList) -> str:
    """SHA-256, in hexadecimal, of class names and of the names and labels of all clips, in whatever order they are.

    The videos themselves are not read: a copy of other quality under the same names has the same fingerprint.
    """
    return _sha256({"class_names": clips.class_names, "clips": _labels(clips)})


def protocol_fingerprint(dataset: EvalClips, class_texts: Sequence[str]) -> str:
    """SHA-256, in hexadecimal, of what fixes an accuracy besides the model: numbers of different ones do not compare.

    These are the class texts in their template, the names and labels of all clips, frames and how they are sampled,
    size and crop, views and how they are averaged. What belongs to a model, such as the normalisation of its pixels or
    the descriptions that it reads, does not count: models that differ in it are what a table compares.

    Args:
        dataset: the clips, with the processor and the views of the evaluation.
        class_texts: N texts in label order, before the template.
    """
    processor = dataset.processor
    return _sha256(
        {
            "texts": [processor.template.replace("{}", text) for text in class_texts],
            "clips": _labels(dataset.clips),
            "frames": [processor.num_frames, processor.sampling, _stride(processor)],
            "pixels": [processor.short_side, processor.crop_size],
            "views": [dataset.num_clips, dataset.num_crops, _AVERAGING],
        }
    )


def _labels(clips: ClipList) -> list[tuple[str, int]]:
    return sorted((clip.clip_id, clip.label) for clip in clips.clips)


def _stride(processor: Any) -> int | None:
    """The distance of frames, which only dense sampling looks at."""
    return processor.stride if processor.sampling == "dense" else None


def _sha256(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
