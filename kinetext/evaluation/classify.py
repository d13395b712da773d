"""Scores of single clips over class names, for the command line and for notebooks."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModel, AutoModelForVideoClassification, AutoProcessor

from ..descriptions.load import HUB_ID
from ..modeling.configuration_video_text import is_classifier
from ..modeling.modeling_video_clip import VideoCLIPModel
from ..processing.processing_video_text import VideoTextProcessor
from ..processing.video_decoding import DECODERS, VideoFrames
from .class_texts import check_descriptions, encode_class_texts
from .evaluator import PLAIN, score_clips


@dataclass(frozen=True)
class Classification:
    """What a model says of one clip.

    Attributes:
        name: the clip, as it was passed.
        labels: N class names.
        scores: N probabilities in the order of `labels`.
        frames: the sampled frames the model saw, before resize and crop.
    """

    name: str
    labels: tuple[str, ...]
    scores: tuple[float, ...]
    frames: VideoFrames

    def ranked(self) -> list[tuple[str, float]]:
        """(label, score), highest first."""
        return sorted(zip(self.labels, self.scores, strict=True), key=lambda pair: -pair[1])


def load_model(name: str) -> tuple[Any, VideoTextProcessor]:
    """(model in evaluation mode, processor) of a folder or Hub repository; of a plain CLIP the mean over frames.

    Raises:
        OSError: if there is no such folder or repository.
        ValueError: if it holds no model of kinetext, or lacks some of its weights.
    """
    if Path(name).exists() and not Path(name).is_dir():
        raise ValueError(f"{name} is a file; give the folder that save_pretrained wrote, or a Hub id.")
    if not Path(name).exists() and not HUB_ID.fullmatch(name):
        raise FileNotFoundError(f"there is no folder {name}, and it is no Hub id (those read owner/name).")
    config = AutoConfig.from_pretrained(name)
    if config.model_type == "clip":
        return VideoCLIPModel.from_clip(name).eval(), VideoTextProcessor.from_pretrained(name)
    auto_class = AutoModelForVideoClassification if is_classifier(config) else AutoModel
    model, loading = auto_class.from_pretrained(name, output_loading_info=True)
    if not hasattr(model, "get_video_features"):
        raise ValueError(f"{name} is a {model.config.model_type!r} model; a video-text model such as xclip is wanted.")
    check_whole(name, loading["missing_keys"])
    processor = AutoProcessor.from_pretrained(name)
    if not isinstance(processor, VideoTextProcessor):  # repositories saved by transformers name its own processor
        processor = VideoTextProcessor.from_pretrained(name)
    return model.eval(), processor


def check_whole(name: str, missing: Collection[str]) -> None:
    """Raises ValueError where a model would get random weights for those that its folder lacks.

    Args:
        name: folder or Hub repository.
        missing: names of these weights.
    """
    if missing:
        raise ValueError(
            f"{name} lacks {len(missing)} weights of its model, such as {min(missing)}. If it is a checkpoint of a run "
            "with lora_rank, whose adapters are not merged yet, use the folder that the finished run wrote."
        )


@torch.inference_mode()
def classify_clips(
    model: Any,
    processor: VideoTextProcessor,
    clips: Sequence[str],
    labels: Sequence[str],
    *,
    descriptions: Sequence[Sequence[str]] | None = None,
    template: str | None = None,
    decoder: str = DECODERS[0],
) -> list[Classification]:
    """Probabilities of each clip over the labels; the texts are encoded once.

    Args:
        model: a video-text model.
        processor: its processor.
        clips: paths or URLs.
        labels: N class names.
        descriptions: N lists of descriptions, in the order of `labels`, for a model that uses them (MoTED).
        template: what the names are put into, at `{}`; the saved one by default.
        decoder: "pyav" or "decord".

    Raises:
        ValueError: for descriptions that the model does not use, besides what the processor refuses.
    """
    check_descriptions(model, descriptions)
    bank = encode_class_texts(model, processor, labels, descriptions=descriptions, template=template)
    results = []
    for clip in clips:
        frames = processor.read_clips(clip, decoder=decoder)[0]
        scores = score_clips(model, [processor.transform([frames])], bank, PLAIN)[0].exp()  # (N,)
        results.append(Classification(str(clip), tuple(labels), tuple(scores.tolist()), frames))
    return results
