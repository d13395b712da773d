"""What the configurations of all kinetext models share: the published CLIP sizes, and fields that must exist.

kinetext: https://github.com/kinetext/kinetext. This file is saved beside each checkpoint as remote code.
"""

from __future__ import annotations

import dataclasses
import difflib
import logging
from collections.abc import Iterable, Mapping
from typing import Any

from transformers import CLIPConfig, CLIPTextConfig, PreTrainedConfig

HEAD_DIM = 64  # width of one attention head in CLIP, in every X-CLIP module and in every MoTED module
_OPENAI_LOGIT_SCALE = 4.6052  # ln 100, the value in OpenAI's CLIP checkpoints

# Keyword arguments that `PreTrainedConfig` understands although they are no dataclass fields, and old spellings.
_BASE_KEYS = {"name_or_path", "torch_dtype", "attn_implementation", "auto_map", "model_type", "num_labels", "use_cache"}
_LEGACY_KEYS = {"text_config_dict", "vision_config_dict"}

# Fields of the towers of OpenAI's CLIPs that differ from transformers' defaults, by published name.
CLIP_TOWERS: dict[str, dict[str, dict[str, Any]]] = {
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
CLIP_TOWERS["large-patch14-336"] = {
    "text": CLIP_TOWERS["large-patch14"]["text"],
    "vision": {**CLIP_TOWERS["large-patch14"]["vision"], "image_size": 336},
}


def published_clip(name: str, presets: Iterable[str], model: str) -> CLIPConfig:
    """The configuration of OpenAI's CLIP of that name.

    Raises:
        ValueError: if `name` is none of the `presets` of the model called `model`.
    """
    if name not in presets:
        raise ValueError(f"unknown {model} preset {name!r}; choose one of {', '.join(presets)}.")
    text = CLIPTextConfig(**CLIP_TOWERS[name]["text"])
    return CLIPConfig(
        text_config=text.to_dict(),
        vision_config=dict(CLIP_TOWERS[name]["vision"]),
        projection_dim=text.hidden_size,  # in every OpenAI CLIP the joint width is the text width
        logit_scale_init_value=_OPENAI_LOGIT_SCALE,
    )


def tower_fields(clip_config: PreTrainedConfig, config_class: Any) -> dict[str, dict[str, Any]]:
    """The towers of a CLIP's configuration, by name, with the fields that `config_class` has for them."""
    towers = {
        name: {key: value for key, value in clip_config.to_dict()[name].items() if key in fields_of(tower_class)}
        for name, tower_class in config_class.sub_configs.items()
    }
    for tower in towers.values():
        tower.pop("transformers_version", None)
    return towers


def with_overrides(fields: dict[str, Any], overrides: dict[str, Any]) -> dict[str, Any]:
    """Fields with some replaced; a mapping for a nested configuration replaces single fields of that one."""
    merged = dict(fields)
    for name, value in overrides.items():
        is_nested = isinstance(fields.get(name), dict) and isinstance(value, dict)
        merged[name] = {**fields[name], **value} if is_nested else value
    return merged


def require_divisible(name: str, width: int, heads: int) -> None:
    """Raises ValueError unless `heads` attention heads fit the width called `name`."""
    if heads < 1 or width % heads:
        raise ValueError(f"{name}={width} is not divisible by its {heads} attention heads.")


def is_classifier(config: PreTrainedConfig) -> bool:
    """Whether a saved configuration is that of a model with a linear head, which has no text tower."""
    return any(name.endswith("ForVideoClassification") for name in config.architectures or [])


def class_names_of(config: PreTrainedConfig) -> list[str]:
    """The names of a classifier's outputs in their order; `id2label` may have another: files sort 10 before 2.

    Raises:
        ValueError: if an output has no name.
    """
    names = {int(index): name for index, name in (config.id2label or {}).items()}
    ids = list(range(config.num_labels or 0))
    if sorted(names) != ids:
        raise ValueError(f"id2label names the classes {sorted(names)}; {len(ids)} classes have the ids {ids}.")
    return [names[index] for index in ids]


def fields_of(config_class: type) -> set[str]:
    """Names of the fields of a configuration class."""
    return {field.name for field in dataclasses.fields(config_class)}


def _is_known(key: str, config_class: type) -> bool:
    return key.startswith("_") or key in _BASE_KEYS or key in fields_of(config_class)


class UnknownFieldError(TypeError, ValueError):
    """Python's error for an unknown argument, and that of a wrong value: recipes and files hold such fields, too."""


def _check_keys(owner: str, keys: Iterable[str], config_class: Any, sub_classes: dict[str, type]) -> None:
    """Raises UnknownFieldError for a key that `config_class` does not have; the base class would keep it silently."""
    for key in keys:
        if _is_known(key, config_class):
            continue
        closest = difflib.get_close_matches(key, sorted(fields_of(config_class)), n=1)
        hint = f"did you mean `{closest[0]}`?" if closest else f"`help({config_class.__name__})` lists the fields."
        for name, sub_class in sub_classes.items():
            if key in fields_of(sub_class):
                hint = f"it is a field of {name}: pass {name}={{'{key}': ...}}."
        raise UnknownFieldError(f"{owner} got an unknown field `{key}`; {hint}")


class CheckedConfigMixin:
    """Refuses unknown fields, also in the nested configurations; comes before the base class of transformers."""

    sub_configs: dict[str, type]  # nested configuration classes by field name, as transformers declares them

    def __post_init__(self, **kwargs: Any) -> None:
        own_class = type(self)
        _check_keys(own_class.__name__, kwargs.keys() - _LEGACY_KEYS, own_class, self.sub_configs)
        for name in self.sub_configs:
            value = getattr(self, name)
            if isinstance(value, dict):
                config_class = self.nested_class(name, value)
                _check_keys(name, value, config_class, {})
                if config_class is not self.sub_configs[name]:  # the base class knows that one only
                    setattr(self, name, config_class(**value))
        super().__post_init__(**kwargs)  # type: ignore[misc]

    @classmethod
    def nested_class(cls, name: str, fields: Mapping[str, Any]) -> Any:
        """The class of the nested configuration called `name` that has these fields."""
        return cls.sub_configs[name]

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> Any:
        """As in the base class; what a file holds beyond our fields is kept with a warning instead of refused."""
        config_dict = dict(config_dict)
        extra_keys = [key for key in config_dict if not _is_known(key, cls) and key not in _LEGACY_KEYS]
        extra = {key: config_dict.pop(key) for key in extra_keys}
        for name in cls.sub_configs:
            fields = config_dict.get(name)
            if isinstance(fields, dict):  # stock classes take the many legacy keys of old files
                config_dict[name] = cls.nested_class(name, fields)(**fields)
        result = super().from_dict(config_dict, **kwargs)  # type: ignore[misc]
        config = result[0] if isinstance(result, tuple) else result
        for key, value in extra.items():
            setattr(config, key, value)
        if extra:
            logging.getLogger(cls.__module__).warning(
                "config.json has fields unknown to %s; kept, without effect: %s", cls.__name__, sorted(extra)
            )
        return result
