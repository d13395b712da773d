"""X-CLIP configuration of kinetext (https://github.com/kinetext/kinetext): transformers' own, checked and with presets.

X-CLIP: "Expanding Language-Image Pretrained Models for General Video Recognition", ECCV 2022.
This file is saved beside each checkpoint: it loads with `trust_remote_code=True` where kinetext is not installed.
"""

from __future__ import annotations

from typing import Any

from huggingface_hub.dataclasses import strict
from transformers import PreTrainedConfig
from transformers.models.x_clip import configuration_x_clip as stock

from .configuration_video_text import (
    CLIP_TOWERS,
    HEAD_DIM,
    CheckedConfigMixin,
    published_clip,
    require_divisible,
    tower_fields,
    with_overrides,
)

PRESETS = tuple(CLIP_TOWERS)  # X-CLIP adds the message, MIT and prompt modules to each


@strict
class XCLIPConfig(CheckedConfigMixin, stock.XCLIPConfig):
    """Configuration of [`XCLIPModel`]: the fields of transformers' `XCLIPConfig`, with unknown ones refused.

    Fields, defaults and `config.json` are transformers' own, so a folder saved by either loads in the other. The
    trained number of frames is `vision_config.num_frames`; the model itself takes any number of frames.

    Raises:
        TypeError: for a keyword that is no field. (A `config.json` with unknown keys loads, with a warning.)
        ValueError: when widths and head counts do not fit together.

    Example:
        >>> config = XCLIPConfig.preset("base-patch16", num_frames=8)
        >>> config.vision_config.patch_size
        16
    """

    def validate_widths(self) -> None:
        """Widths that meet must be equal, and heads must divide their width."""
        text: Any = self.text_config
        vision: Any = self.vision_config
        if vision.mit_hidden_size != self.projection_dim:
            raise ValueError(
                f"vision_config.mit_hidden_size={vision.mit_hidden_size} must equal projection_dim="
                f"{self.projection_dim}: the MIT works on projected frame features. Set both to the same value."
            )
        for name, width, heads in (
            ("text_config.hidden_size", text.hidden_size, text.num_attention_heads),
            ("vision_config.hidden_size", vision.hidden_size, vision.num_attention_heads),
            ("vision_config.mit_hidden_size", vision.mit_hidden_size, vision.mit_num_attention_heads),
            ("projection_dim", self.projection_dim, self.prompt_num_attention_heads),
        ):
            require_divisible(name, width, heads)
        if vision.num_frames < 1:
            raise ValueError(f"vision_config.num_frames={vision.num_frames} must be at least 1.")

    @classmethod
    def from_clip_config(cls, clip_config: PreTrainedConfig, *, num_frames: int = 8, **overrides: Any) -> XCLIPConfig:
        """X-CLIP on top of a CLIP of any size (VideoX `xclip.py`).

        Args:
            clip_config: a `transformers.CLIPConfig`.
            num_frames: frames per clip in training; the length of the temporal position embedding.
            overrides: other fields of this class, such as `prompt_alpha`.
        """
        width = clip_config.projection_dim
        heads = max(1, width // HEAD_DIM)
        towers = tower_fields(clip_config, cls)
        towers["vision_config"].update(
            num_frames=num_frames,
            mit_hidden_size=width,
            mit_intermediate_size=4 * width,
            mit_num_attention_heads=heads,
        )
        fields = {
            "projection_dim": width,
            "prompt_num_attention_heads": heads,
            "logit_scale_init_value": clip_config.logit_scale_init_value,
            **towers,
        }
        return cls(**with_overrides(fields, overrides))

    @classmethod
    def preset(cls, name: str, *, num_frames: int = 8) -> XCLIPConfig:
        """The configuration of a published size, without a download.

        Args:
            name: one of "base-patch32", "base-patch16", "large-patch14", "large-patch14-336".
            num_frames: trained frames per clip; published are 8, 16 and 32.

        Raises:
            ValueError: for another name.
        """
        return cls.from_clip_config(published_clip(name, PRESETS, "X-CLIP"), num_frames=num_frames)


XCLIPConfig.register_for_auto_class("AutoConfig")
