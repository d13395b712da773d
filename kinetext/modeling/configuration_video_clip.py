"""VideoCLIP configuration (https://github.com/kinetext/kinetext): a CLIP's, and how its frames become a video.

The plain ways to read videos with a CLIP: vanilla CLIP and ViFi-CLIP (mean over frames), Text4Vis (a transformer over
frames), and CLIP-One and CLIP-Joint of the X-CLIP supplement. The image tower may be another ViT than CLIP's, such as
one trained on ImageNet (supplement, Table 3).
This file is saved beside each checkpoint: it loads with `trust_remote_code=True` where kinetext is not installed.
"""

# Without `from __future__ import annotations`: `strict` checks the types of fields, and strings would tell it none.

from collections.abc import Mapping
from typing import Any

from huggingface_hub.dataclasses import strict
from transformers import CONFIG_MAPPING, PreTrainedConfig
from transformers.models.clip import configuration_clip as stock

from .configuration_video_text import (
    CLIP_TOWERS,
    HEAD_DIM,
    CheckedConfigMixin,
    fields_of,
    published_clip,
    require_divisible,
    tower_fields,
    with_overrides,
)

VIDEO_CLIP_PRESETS = tuple(CLIP_TOWERS)
TEMPORAL_POOLINGS = ("mean", "transformer", "one_frame", "joint")
CLIP_TOWER = "clip_vision_model"  # model types of image towers: CLIP's, and the ViTs of transformers whose output is
IMAGE_TOWERS = ("vit", "deit", "vit_msn", "dinov2")  # normed, the class token first


@strict
class VideoCLIPConfig(CheckedConfigMixin, stock.CLIPConfig):
    """Configuration of [`VideoCLIPModel`]: the fields of `CLIPConfig`, how frames are pooled, and what is trained.

    Args:
        temporal_pooling: "mean" of frame features (vanilla CLIP, ViFi-CLIP), "transformer" over them (Text4Vis),
            "one_frame" (CLIP-One) or "joint" attention over the tokens of all frames (CLIP-Joint).
        num_frames: T, frames per clip in training; others work too. Of "one_frame" it is 1: which frame of a video
            that is, is the sampler's choice, a random one in training.
        temporal_num_layers: of the transformer over frames.
        temporal_num_attention_heads: of the transformer over frames.
        train_vision: train the image tower.
        train_text: train the text tower, less its token embeddings (ViFi-CLIP).
        train_logit_scale: train the logit scale.
        vision_config: of the image tower: a `CLIPVisionConfig`, or that of a ViT (`model_type` "vit", "deit", "vit_msn"
            or "dinov2"), which the visual projection is new for.

    Raises:
        TypeError: for a keyword that is no field. (A `config.json` with unknown keys loads, with a warning.)
        huggingface_hub.errors.StrictDataclassError: for a value of another type, outside its choices or range, and for
            widths that their heads do not divide.

    Example:
        >>> config = VideoCLIPConfig.preset("large-patch14", temporal_pooling="transformer")
        >>> config.temporal_num_attention_heads
        12
    """

    model_type = "video_clip"

    vision_config: dict | PreTrainedConfig | None = None  # type: ignore[assignment] # wider than a CLIP's
    temporal_pooling: str = "mean"
    num_frames: int = 8
    temporal_num_layers: int = 6
    temporal_num_attention_heads: int = 8
    train_vision: bool = True
    train_text: bool = True
    train_logit_scale: bool = True

    @classmethod
    def nested_class(cls, name: str, fields: Mapping[str, Any]) -> Any:
        """As in the base class; of an image tower that its `model_type` names."""
        model_type = fields.get("model_type")
        if name != "vision_config" or model_type in (None, CLIP_TOWER):
            return super().nested_class(name, fields)
        require_image_tower(model_type)
        return CONFIG_MAPPING[model_type]

    def validate_choices(self) -> None:
        """Pooling and image tower are of those there are, and go together."""
        tower: Any = self.vision_config
        if tower.model_type != CLIP_TOWER:
            require_image_tower(tower.model_type)
            if self.temporal_pooling == "joint":
                raise ValueError(
                    f"temporal_pooling='joint' needs CLIP's image tower, and this one is a {tower.model_type!r}: "
                    "choose mean, transformer or one_frame."
                )
        if self.temporal_pooling not in TEMPORAL_POOLINGS:
            raise ValueError(
                f"temporal_pooling={self.temporal_pooling!r} is unknown; choose one of {', '.join(TEMPORAL_POOLINGS)}."
            )

    def validate_sizes(self) -> None:
        """Counts are at least 1, one frame is one, and heads divide their width."""
        for name in ("num_frames", "temporal_num_layers"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must be at least 1.")
        if self.temporal_pooling == "one_frame" and self.num_frames != 1:
            raise ValueError(
                f"num_frames={self.num_frames} with temporal_pooling='one_frame': only one would be seen; set "
                "num_frames=1, and the sampler draws it from the whole video."
            )
        joint_width: Any = self.projection_dim
        require_divisible("projection_dim", joint_width, self.temporal_num_attention_heads)

    @classmethod
    def from_clip_config(
        cls, clip_config: PreTrainedConfig, *, num_frames: int = 8, **overrides: Any
    ) -> "VideoCLIPConfig":
        """VideoCLIP on top of a CLIP of any size.

        Args:
            clip_config: a `transformers.CLIPConfig`.
            num_frames: T, frames per clip in training.
            overrides: other fields of this class, such as `temporal_pooling`.
        """
        return cls(**with_overrides({**_clip_fields(clip_config, cls), "num_frames": num_frames}, overrides))

    @classmethod
    def from_towers(
        cls, vision: PreTrainedConfig, clip: PreTrainedConfig | None = None, *, num_frames: int = 8, **overrides: Any
    ) -> "VideoCLIPConfig":
        """VideoCLIP on another image tower than CLIP's.

        Args:
            vision: configuration of a ViT, such as a `transformers.ViTConfig`.
            clip: a `transformers.CLIPConfig`, whose text tower and joint width are taken. Without it a classifier's,
                which has no text tower and the joint width of OpenAI's base models.
            num_frames: T, frames per clip in training.
            overrides: other fields of this class, such as `temporal_pooling`.

        Raises:
            ValueError: for a tower that is none of these ViTs.
        """
        require_image_tower(vision.model_type)
        own = {name for name in fields_of(type(vision)) - fields_of(PreTrainedConfig) if not name.startswith("_")}
        tower = {"model_type": vision.model_type, **{name: getattr(vision, name) for name in sorted(own)}}
        text = {} if clip is None else _clip_fields(clip, cls)
        return cls(**with_overrides({**text, "vision_config": tower, "num_frames": num_frames}, overrides))

    @classmethod
    def preset(cls, name: str, *, num_frames: int = 8, **overrides: Any) -> "VideoCLIPConfig":
        """The configuration on top of an OpenAI CLIP, without a download.

        Args:
            name: one of "base-patch32", "base-patch16", "large-patch14", "large-patch14-336".
            num_frames: T, frames per clip in training.
            overrides: other fields of this class, such as `temporal_pooling`.

        Raises:
            ValueError: for another name.
        """
        clip = published_clip(name, VIDEO_CLIP_PRESETS, "VideoCLIP")
        return cls.from_clip_config(clip, num_frames=num_frames, **overrides)


def require_image_tower(model_type: str) -> None:
    """Raises ValueError unless it is a ViT that [`VideoCLIPModel`] can read frames with in place of CLIP's tower."""
    if model_type not in IMAGE_TOWERS:
        raise ValueError(
            f"an image tower of type {model_type!r} cannot take the place of CLIP's: the feature of a frame is the "
            f"class token after the last norm, as in {', '.join(IMAGE_TOWERS)}. (A whole CLIP goes to from_clip.)"
        )


def _clip_fields(clip_config: Any, config_class: Any) -> dict[str, Any]:
    """What a CLIP's configuration says of a VideoCLIP."""
    return {
        "projection_dim": clip_config.projection_dim,
        "logit_scale_init_value": clip_config.logit_scale_init_value,
        "temporal_num_attention_heads": max(1, clip_config.text_config.hidden_size // HEAD_DIM),  # as Text4Vis
        **tower_fields(clip_config, config_class),
    }


VideoCLIPConfig.register_for_auto_class("AutoConfig")
