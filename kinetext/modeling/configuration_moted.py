"""MoTED configuration (https://github.com/kinetext/kinetext): a CLIP's, and what is added to it.

MoTED: "Enhanced Motion-Text Alignment for Image-to-Video Transfer Learning", CVPR 2024.
This file is saved beside each checkpoint: it loads with `trust_remote_code=True` where kinetext is not installed.
"""

# Without `from __future__ import annotations`: `strict` checks the types of fields, and strings would tell it none.

from typing import Any

from huggingface_hub.dataclasses import strict
from transformers import PreTrainedConfig
from transformers.models.clip import configuration_clip as stock

from .configuration_video_text import (
    HEAD_DIM,
    CheckedConfigMixin,
    published_clip,
    require_divisible,
    tower_fields,
    with_overrides,
)

MOTED_PRESETS = ("base-patch16", "large-patch14", "large-patch14-336")
MOTION_ENCODERS = ("parallel", "serial", "none")
INFERENCE_LOGITS = ("video", "motion", "sum")

# Motion widths by image width that meet the published parameters and multiply-accumulates; half of it for other CLIPs.
_MOTION_WIDTHS = {768: 384, 1024: 320}


@strict
class MotedConfig(CheckedConfigMixin, stock.CLIPConfig):
    """Configuration of [`MotedModel`]: the fields of `CLIPConfig` and those of the motion and text modules.

    The paper leaves sizes and many details open; the README beside this file says which values are the paper's and
    which are kinetext's.

    Args:
        num_frames: T, sparse frames per clip in training, which the image tower sees; others work too.
        motion_frame_ratio: alpha; the motion encoder sees alpha * T frames (paper §3.3.2: 2).
        motion_hidden_size: W, width of the motion encoder.
        motion_num_attention_heads: of its attentions.
        motion_max_key_tokens: M, to how many the keys of the joint space-time attention are merged.
        joint_num_attention_heads: of text adapter and fusions, which work at the joint width.
        motion_encoder: "parallel" to the image tower (MoTED), "serial" inside it (Table 3b), or "none".
        use_conceptual: use the first description of each class (Table 3a).
        use_discriminative: use the others (Table 3a). With neither, the class name stands in for the descriptions.
        use_text_adapter: attend over the descriptions of a class before averaging them (Table 3b).
        fuse_text: fuse descriptions into the class-name embedding (Table 3c).
        fuse_video: fuse motion into the image features (Table 3c).
        inference_logits: what `logits_per_video` is: "video", "motion" or their "sum".

    Raises:
        TypeError: for a keyword that is no field. (A `config.json` with unknown keys loads, with a warning.)
        huggingface_hub.errors.StrictDataclassError: for a value of another type, outside its choices or range, and for
            widths that their heads do not divide.

    Example:
        >>> config = MotedConfig.preset("base-patch16", num_frames=8)
        >>> config.motion_hidden_size
        384
    """

    model_type = "moted"

    num_frames: int = 8
    motion_frame_ratio: int = 2
    motion_hidden_size: int = 384
    motion_num_attention_heads: int = 6
    motion_max_key_tokens: int = 1568
    joint_num_attention_heads: int = 8
    motion_encoder: str = "parallel"
    use_conceptual: bool = True
    use_discriminative: bool = True
    use_text_adapter: bool = True
    fuse_text: bool = True
    fuse_video: bool = True
    inference_logits: str = "video"

    def validate_choices(self) -> None:
        """Each choice is one of those there are."""
        for name, choices in (("motion_encoder", MOTION_ENCODERS), ("inference_logits", INFERENCE_LOGITS)):
            if getattr(self, name) not in choices:
                raise ValueError(f"{name}={getattr(self, name)!r} is unknown; choose one of {', '.join(choices)}.")

    def validate_sizes(self) -> None:
        """Counts are at least 1, and heads divide their width."""
        for name in ("num_frames", "motion_frame_ratio", "motion_hidden_size", "motion_max_key_tokens"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must be at least 1.")
        text: Any = self.text_config
        vision: Any = self.vision_config
        joint_width: Any = self.projection_dim
        for name, width, heads in (
            ("text_config.hidden_size", text.hidden_size, text.num_attention_heads),
            ("vision_config.hidden_size", vision.hidden_size, vision.num_attention_heads),
            ("motion_hidden_size", self.motion_hidden_size, self.motion_num_attention_heads),
            ("projection_dim", joint_width, self.joint_num_attention_heads),
        ):
            require_divisible(name, width, heads)

    @property
    def uses_descriptions(self) -> bool:
        """Whether any description reaches the model; class names alone do otherwise (Table 3a)."""
        return self.use_conceptual or self.use_discriminative

    @classmethod
    def from_clip_config(cls, clip_config: PreTrainedConfig, *, num_frames: int = 8, **overrides: Any) -> "MotedConfig":
        """MoTED on top of a CLIP of any size.

        Args:
            clip_config: a `transformers.CLIPConfig`.
            num_frames: T, sparse frames per clip in training.
            overrides: other fields of this class, such as `motion_hidden_size`.
        """
        image_width = clip_config.vision_config.hidden_size
        motion_width = overrides.get("motion_hidden_size") or _MOTION_WIDTHS.get(image_width, max(1, image_width // 2))
        fields = {
            "projection_dim": clip_config.projection_dim,
            "logit_scale_init_value": clip_config.logit_scale_init_value,
            "num_frames": num_frames,
            "motion_hidden_size": motion_width,
            "motion_num_attention_heads": _num_heads(motion_width),
            "joint_num_attention_heads": _num_heads(clip_config.projection_dim),
            **tower_fields(clip_config, cls),
        }
        return cls(**with_overrides(fields, overrides))

    @classmethod
    def preset(cls, name: str, *, num_frames: int = 8) -> "MotedConfig":
        """The configuration of a published size, without a download.

        Args:
            name: one of "base-patch16", "large-patch14", "large-patch14-336".
            num_frames: T; published are 8, 16 and 32.

        Raises:
            ValueError: for another name.
        """
        return cls.from_clip_config(published_clip(name, MOTED_PRESETS, "MoTED"), num_frames=num_frames)


def _num_heads(width: int) -> int:
    """The largest number of heads of at least 64 channels that divides `width`; 1 for narrower ones."""
    return max((heads for heads in range(1, width // HEAD_DIM + 1) if width % heads == 0), default=1)


MotedConfig.register_for_auto_class("AutoConfig")
