"""X-CLIP configuration of kinetext (https://github.com/kinetext/kinetext): transformers' own, checked and with presets.

X-CLIP: "Expanding Language-Image Pretrained Models for General Video Recognition", ECCV 2022.
This file is saved beside each checkpoint: it loads with `trust_remote_code=True` where kinetext is not installed.
"""

from __future__ import annotations

import dataclasses
import difflib
import logging
from typing import Any

from huggingface_hub.dataclasses import strict
from transformers import PreTrainedConfig
from transformers.models.x_clip import configuration_x_clip as stock

logger = logging.getLogger(__name__)

HEAD_DIM = 64  # width of one attention head in CLIP and in every X-CLIP module (heads = width // 64)

# Keyword arguments that `PreTrainedConfig` understands although they are no dataclass fields, and old spellings.
_BASE_KEYS = {"name_or_path", "torch_dtype", "attn_implementation", "auto_map", "model_type", "num_labels", "use_cache"}
_LEGACY_KEYS = {"text_config_dict", "vision_config_dict"}

# CLIP towers by their published names; X-CLIP adds the message, MIT and prompt modules to each.
_CLIP_TOWERS: dict[str, dict[str, dict[str, Any]]] = {
    "base-patch32": {"text": {}, "vision": {"patch_size": 32}},
    "base-patch16": {"text": {}, "vision": {"patch_size": 16}},
    "large-patch14": {
        "text": {"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12},
        "vision": {
            "hidden_size": 1024,
            "intermediate_size": 4096,
            "num_hidden_layers": 24,
            "num_attention_heads": 16,
            "patch_size": 14,
        },
    },
}
_CLIP_TOWERS["large-patch14-336"] = {
    "text": _CLIP_TOWERS["large-patch14"]["text"],
    "vision": {**_CLIP_TOWERS["large-patch14"]["vision"], "image_size": 336},
}
PRESETS = tuple(_CLIP_TOWERS)
_OPENAI_LOGIT_SCALE = 4.6052  # ln 100, the value in OpenAI's CLIP checkpoints


def _fields(config_class: type) -> set[str]:
    return {field.name for field in dataclasses.fields(config_class)}


def _is_known(key: str, config_class: type) -> bool:
    return key.startswith("_") or key in _BASE_KEYS or key in _fields(config_class)


def _check_keys(owner: str, keys: Any, config_class: type) -> None:
    """Raises TypeError for a key that `config_class` does not have; the base class would keep it silently."""
    for key in keys:
        if _is_known(key, config_class):
            continue
        closest = difflib.get_close_matches(key, sorted(_fields(config_class)), n=1)
        hint = f"did you mean `{closest[0]}`?" if closest else f"`help({config_class.__name__})` lists the fields."
        if owner == "XCLIPConfig":
            for name, sub_class in XCLIPConfig.sub_config_classes().items():
                if key in _fields(sub_class):
                    hint = f"it is a field of {name}: pass {name}={{'{key}': ...}}."
        raise TypeError(f"{owner} got an unknown field `{key}`; {hint}")


@strict
class XCLIPConfig(stock.XCLIPConfig):
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

    def __post_init__(self, **kwargs: Any) -> None:
        _check_keys("XCLIPConfig", kwargs.keys() - _LEGACY_KEYS, XCLIPConfig)
        for name, config_class in self.sub_config_classes().items():
            value = getattr(self, name)
            if isinstance(value, dict):
                _check_keys(name, value, config_class)
        super().__post_init__(**kwargs)

    @staticmethod
    def sub_config_classes() -> dict[str, type[PreTrainedConfig]]:
        """The classes of the two nested configurations, by field name."""
        return {"text_config": stock.XCLIPTextConfig, "vision_config": stock.XCLIPVisionConfig}

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> Any:
        """As in the base class; what a file holds beyond our fields is kept with a warning instead of refused."""
        config_dict = dict(config_dict)
        extra_keys = [key for key in config_dict if not _is_known(key, cls) and key not in _LEGACY_KEYS]
        extra = {key: config_dict.pop(key) for key in extra_keys}
        for name, config_class in cls.sub_config_classes().items():
            if isinstance(config_dict.get(name), dict):  # stock classes take the many legacy keys of old files
                config_dict[name] = config_class(**config_dict[name])
        result = super().from_dict(config_dict, **kwargs)
        config = result[0] if isinstance(result, tuple) else result
        for key, value in extra.items():
            setattr(config, key, value)
        if extra:
            logger.warning("config.json has fields unknown to XCLIPConfig; kept, without effect: %s", sorted(extra))
        return result

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
            if heads < 1 or width % heads:
                raise ValueError(f"{name}={width} is not divisible by its {heads} attention heads.")
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
        towers = {
            name: {key: value for key, value in clip_config.to_dict()[name].items() if key in _fields(config_class)}
            for name, config_class in cls.sub_config_classes().items()
        }
        for tower in towers.values():
            tower.pop("transformers_version", None)
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
        for name, value in overrides.items():  # a nested mapping changes single fields of a tower
            fields[name] = {**fields[name], **value} if name in towers and isinstance(value, dict) else value
        return cls(**fields)

    @classmethod
    def preset(cls, name: str, *, num_frames: int = 8) -> XCLIPConfig:
        """The configuration of a published size, without a download.

        Args:
            name: one of "base-patch32", "base-patch16", "large-patch14", "large-patch14-336".
            num_frames: trained frames per clip; published are 8, 16 and 32.

        Raises:
            ValueError: for another name.
        """
        if name not in _CLIP_TOWERS:
            raise ValueError(f"unknown X-CLIP preset {name!r}; choose one of {', '.join(PRESETS)}.")
        towers = _CLIP_TOWERS[name]
        text = stock.XCLIPTextConfig(**towers["text"])
        clip_like = stock.XCLIPConfig(
            text_config=text.to_dict(),
            vision_config=dict(towers["vision"]),
            projection_dim=text.hidden_size,  # in every OpenAI CLIP the joint width is the text width
            logit_scale_init_value=_OPENAI_LOGIT_SCALE,
        )
        return cls.from_clip_config(clip_like, num_frames=num_frames)


XCLIPConfig.register_for_auto_class("AutoConfig")
