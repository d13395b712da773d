"""ViFi-CLIP checkpoints: files of muzairkhattak/ViFi-CLIP, a fine-tuned CLIP whose frames are averaged.

"Fine-tuned CLIP Models are Efficient Video Learners", CVPR 2023. The file has both towers less the token embeddings,
which are never trained and come from the CLIP it was made from, and the class texts it was trained on, embedded. These
are not needed, but tell whether that CLIP is the right one.

Legend: N classes, L tokens, W text width.
"""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Any

import torch

from ..modeling.configuration_video_clip import VideoCLIPConfig
from ..processing.processing_video_text import XCLIP_PIXELS
from .checkpoints import Checkpoint, Converted, require_fit, shape_fault
from .clip_keys import Rule, text_rules, vision_rules
from .video_clip import fill_video_clip, load_named_clip, video_clip_config

PROJECT = "ViFi-CLIP"
TEMPLATE = "a photo of a {}."
_PUBLISHED_FRAMES = 16  # of its fully supervised models; zero- and few-shot ones have 32
_CLASS_TEXTS = "prompt_learner.complete_text_embeddings"
_PROMPTS = ("prompt_learner.ctx", "prompt_learner.token_prefix", "prompt_learner.token_suffix")  # of PROMPT_MODEL
_ROUNDING = 2e-3  # of the largest value: class texts may have been saved in half precision
# Its setting USE -> what was not trained.
_FROZEN = {
    "image": {"train_text": False, "train_logit_scale": False},
    "text": {"train_vision": False, "train_logit_scale": False},
}


def convert_vifi_clip(
    checkpoint: Checkpoint,
    clip: str | os.PathLike[str] | None,
    *,
    num_frames: int | None,
    config: VideoCLIPConfig | None,
) -> Converted:
    """The model of a file: a VideoCLIP that pools by "mean".

    Raises:
        ValueError: for learned prompts, without a CLIP, for one it was not made from, and for weights that do not fit.
    """
    _refuse_prompts(checkpoint)
    source = load_named_clip(clip, checkpoint=checkpoint, project=PROJECT, lacks="token embeddings")
    trained = _FROZEN.get(str(checkpoint.setting("TRAINER", "ViFi_CLIP", "USE")), {})
    config, notes = video_clip_config(source, config, checkpoint, num_frames, _PUBLISHED_FRAMES, **trained)
    towers: Any = config
    state = dict(checkpoint.state)
    class_texts = state.pop(_CLASS_TEXTS, None)
    rules = {
        "logit_scale": Rule(("logit_scale",)),
        **vision_rules(towers.vision_config.num_hidden_layers, "image_encoder."),
        **text_rules(towers.text_config.num_hidden_layers, "text_encoder."),
    }
    model = fill_video_clip(replace(checkpoint, state=state), PROJECT, config, source, rules)
    if class_texts is not None:
        _check_token_embeddings(checkpoint, class_texts, source, clip)
    crop_size = towers.vision_config.image_size
    contract = {"num_frames": towers.num_frames, "crop_size": crop_size, "template": TEMPLATE, **XCLIP_PIXELS}
    return Converted(model, contract, notes)


def _refuse_prompts(checkpoint: Checkpoint) -> None:
    """Raises ValueError for a model that learnt contexts (PROMPT_MODEL) instead of weights."""
    found = sorted(key for key in checkpoint.state if key in _PROMPTS or "VPT" in key)
    if found:
        raise ValueError(
            f"{checkpoint.path} has learned prompts ({', '.join(found)}): it was trained with PROMPT_MODEL, which "
            "leaves CLIP as it is and adds contexts that VideoCLIP has no place for. Only fine-tuned ViFi-CLIPs are "
            "converted."
        )


def _check_token_embeddings(checkpoint: Checkpoint, class_texts: torch.Tensor, clip: Any, name: Any) -> None:
    """Raises ValueError unless the first tokens of the class texts (N, L, W) are among the CLIP's embeddings."""
    table = clip.text_model.embeddings.token_embedding.weight.detach().float()  # (vocabulary, W)
    wanted = (
        class_texts.shape[0] if class_texts.ndim else 1,
        *clip.text_model.embeddings.position_embedding.weight.shape,
    )
    if tuple(class_texts.shape) != wanted:
        require_fit(checkpoint.path, PROJECT, shapes=[shape_fault(_CLASS_TEXTS, class_texts.shape, wanted)])
    for token in class_texts[0, :2].float():
        distance = (table - token).abs().amax(dim=1).min().item()
        if distance > _ROUNDING * token.abs().max().item():
            raise ValueError(
                f"the class texts in {checkpoint.path} were embedded by another CLIP than {name}; name the one that it "
                "was trained from."
            )
