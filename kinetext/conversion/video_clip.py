"""What ViFi-CLIP and Text4Vis share: they are VideoCLIPs, whose files lack parts of the CLIP they were made from."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import torch

from ..modeling.configuration_video_clip import VideoCLIPConfig
from ..modeling.modeling_video_clip import VideoCLIPModel
from ..modeling.modeling_video_text import load_clip
from .checkpoints import Checkpoint, fill_model
from .clip_keys import Rule, check_keys, convert_state


def load_named_clip(clip: str | os.PathLike[str] | None, *, checkpoint: Checkpoint, project: str, lacks: str) -> Any:
    """The CLIP that the user names.

    Raises:
        ValueError: if none is named.
    """
    if clip is None:
        raise ValueError(
            f"{checkpoint.path} is of {project}, which saves no {lacks}: name the CLIP that it was trained from "
            "(--clip), e.g. openai/clip-vit-base-patch16."
        )
    return load_clip(clip)


def video_clip_config(
    clip: Any, config: VideoCLIPConfig | None, checkpoint: Checkpoint, num_frames: int | None, published: int, **of: Any
) -> tuple[VideoCLIPConfig, tuple[str, ...]]:
    """The configuration of a checkpoint, and what to say of it.

    Args:
        clip: the CLIP it was trained from, which gives all sizes.
        config: replaces it.
        checkpoint: the file; some say their number of frames.
        num_frames: that the user names.
        published: the number of frames of the project's main models, taken where nobody says one.
        of: fields of the configuration.

    Raises:
        ValueError: for fewer frames than one.
    """
    if num_frames is not None and num_frames < 1:
        raise ValueError(f"num_frames={num_frames} must be at least 1.")
    if config is not None:
        return config, ()
    said = checkpoint.setting("DATA", "NUM_FRAMES")
    frames = (said if isinstance(said, int) and said > 0 else None) if num_frames is None else num_frames
    note = (
        f"the file does not say how many frames the model was trained with; {published} were written, as in most of "
        "the published models (--num-frames changes it)."
    )
    made = VideoCLIPConfig.from_clip_config(clip.config, num_frames=frames or published, **of)
    return made, () if frames else (note,)


def fill_video_clip(
    checkpoint: Checkpoint, project: str, config: VideoCLIPConfig, clip: Any, rules: Mapping[str, Rule]
) -> VideoCLIPModel:
    """The model with the tensors of the checkpoint, and those of the CLIP's text tower that it does not hold.

    Raises:
        ValueError: for weights that do not fit.
    """
    check_keys(checkpoint.path, project, checkpoint.state, rules)
    text_tower: dict[str, torch.Tensor] = {
        name: tensor
        for name, tensor in clip.state_dict().items()
        if name.startswith(("text_model.", "text_projection."))
    }
    weights = text_tower | convert_state(checkpoint.state, rules)
    return fill_model(VideoCLIPModel, config, weights, source=checkpoint.path, project=project)
