"""Text4Vis checkpoints: files of whwu95/Text4Vis, whose image tower and transformer over frames were trained.

"Revisiting Classifier: Transferring Vision-Language Models for Video Recognition", AAAI 2023. The text tower stays that
of the CLIP it was made from, and is not in the file.
"""

from __future__ import annotations

import os
from typing import Any

from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD

from ..modeling.configuration_video_clip import VideoCLIPConfig
from .checkpoints import Checkpoint, Converted
from .clip_keys import Rule, block_rules, count_layers, vision_rules
from .video_clip import fill_video_clip, load_named_clip, video_clip_config

PROJECT = "Text4Vis"
TEMPLATE = "a video of a person {}."
_PUBLISHED_FRAMES = 8  # of most of its models; others have 16 or 32
_HEADER = "fusion_model."
_LAYERS = f"{_HEADER}transformer.resblocks."
_SCALED_SIZE = (
    224  # images of this size are cut from frames of 256, others from frames of their size (`Augmentation.py`)
)
_NOTE = (
    "the original takes the first frame of each segment when it evaluates, and averages features over views; kinetext "
    "takes the middle one and averages what the protocol says."
)


def convert_text4vis(
    checkpoint: Checkpoint,
    clip: str | os.PathLike[str] | None,
    *,
    num_frames: int | None,
    config: VideoCLIPConfig | None,
) -> Converted:
    """The model of a file: a VideoCLIP that pools by "transformer", or by "mean" where the file has none.

    Raises:
        ValueError: without a CLIP, and for weights that do not fit.
    """
    source = load_named_clip(clip, checkpoint=checkpoint, project=PROJECT, lacks="text tower")
    pooling = _pooling(checkpoint)
    config, notes = video_clip_config(
        source, config, checkpoint, num_frames, _PUBLISHED_FRAMES, **pooling, train_text=False
    )
    fields: Any = config
    rules = {
        "logit_scale": Rule(("logit_scale",)),
        **vision_rules(fields.vision_config.num_hidden_layers),
        **(_header_rules(fields.temporal_num_layers) if fields.temporal_pooling == "transformer" else {}),
    }
    model = fill_video_clip(checkpoint, PROJECT, config, source, rules)
    return Converted(model, _contract(fields), (*notes, _NOTE))


def _pooling(checkpoint: Checkpoint) -> dict[str, Any]:
    """The fields of the configuration that say how frames are pooled."""
    if not any(key.startswith(_HEADER) for key in checkpoint.state):
        return {"temporal_pooling": "mean"}
    return {"temporal_pooling": "transformer", "temporal_num_layers": count_layers(checkpoint.state, _LAYERS)}


def _header_rules(num_layers: int) -> dict[str, Rule]:
    """Of the transformer over frames."""
    rules = {f"{_HEADER}frame_position_embeddings.weight": Rule(("temporal_transformer.position_embedding.weight",))}
    for index in range(num_layers):
        rules |= block_rules(f"{_LAYERS}{index}.", f"temporal_transformer.encoder.layers.{index}.")
    return rules


def _contract(config: Any) -> dict[str, Any]:
    size = config.vision_config.image_size
    return {
        "num_frames": config.num_frames,
        "crop_size": size,
        "short_side": None if size == _SCALED_SIZE else size,
        "template": TEMPLATE,
        "image_mean": OPENAI_CLIP_MEAN,
        "image_std": OPENAI_CLIP_STD,
        "interpolation": "bicubic",
    }
