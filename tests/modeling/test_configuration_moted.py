"""Fields, presets and files of the MoTED configuration."""

from __future__ import annotations

import json
import logging
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from testing_utils import tiny_clip_config, tiny_config, tiny_moted_config
from transformers import AutoConfig, CLIPConfig

from kinetext import MotedConfig, MotedModel
from kinetext.modeling import configuration_video_text
from kinetext.modeling.configuration_moted import INFERENCE_LOGITS, MOTED_PRESETS, MOTION_ENCODERS

# preset, frames: all parameters and trainable ones
PARAMETERS = {
    ("base-patch16", 8): (178_531_969, 28_911_233),
    ("base-patch16", 32): (178_541_185, 28_920_449),
    ("large-patch14", 8): (472_985_537, 45_369_025),
    ("large-patch14-336", 16): (473_418_177, 45_473_985),
}


def meta_model(config: MotedConfig) -> MotedModel:
    with torch.device("meta"):
        return MotedModel(config)


@pytest.mark.parametrize(("name", "num_frames"), PARAMETERS)
def test_preset_has_this_number_of_parameters(name: str, num_frames: int) -> None:
    config = MotedConfig.preset(name, num_frames=num_frames)
    parameters = list(meta_model(config).parameters())
    trainable = sum(parameter.numel() for parameter in parameters if parameter.requires_grad)
    assert (sum(parameter.numel() for parameter in parameters), trainable) == PARAMETERS[name, num_frames]
    assert config.num_frames == num_frames


# Image tower and all that is added, in millions: paper Tables 4 and 6, which do not say where they differ.
@pytest.mark.parametrize(("name", "ssv2", "k400"), [("base-patch16", 112, 116), ("large-patch14", 346, 349)])
def test_parameters_are_within_5_percent_of_the_published_ones(name: str, ssv2: int, k400: int) -> None:
    model = meta_model(MotedConfig.preset(name))
    text = {"text_model", "text_projection"}
    millions = sum(p.numel() for n, p in model.named_parameters() if n.partition(".")[0] not in text) / 1e6
    assert 0.95 * k400 <= millions <= 1.05 * ssv2
    image = sum(p.numel() for n, p in model.named_parameters() if n.startswith(("vision_model", "visual_proj"))) / 1e6
    extra = millions - image
    assert 0.95 * (k400 - image) <= extra <= 1.05 * (k400 - image)


@pytest.mark.parametrize(
    ("name", "size", "patch", "joint", "widths"),
    [
        ("base-patch16", 224, 16, (512, 8), (384, 6)),
        ("large-patch14", 224, 14, (768, 12), (320, 5)),
        ("large-patch14-336", 336, 14, (768, 12), (320, 5)),
    ],
)
def test_preset_sizes(name: str, size: int, patch: int, joint: tuple[int, int], widths: tuple[int, int]) -> None:
    config = MotedConfig.preset(name)
    assert (config.vision_config.image_size, config.vision_config.patch_size) == (size, patch)
    assert (config.projection_dim, config.joint_num_attention_heads) == joint
    assert (config.motion_hidden_size, config.motion_num_attention_heads) == widths
    assert config.text_config.num_attention_heads == config.text_config.hidden_size // 64
    assert config.vision_config.num_attention_heads == config.vision_config.hidden_size // 64
    assert config.logit_scale_init_value == pytest.approx(4.6052)
    assert (config.motion_frame_ratio, config.motion_max_key_tokens, config.num_frames) == (2, 1568, 8)
    assert (config.motion_encoder, config.inference_logits) == ("parallel", "video")
    assert config.use_conceptual and config.use_discriminative and config.use_text_adapter
    assert config.fuse_text and config.fuse_video


def test_presets_are_the_published_ones_and_share_no_state() -> None:
    assert MOTED_PRESETS == ("base-patch16", "large-patch14", "large-patch14-336")
    MotedConfig.preset("base-patch16").vision_config.patch_size = 7
    assert MotedConfig.preset("base-patch16").vision_config.patch_size == 16


@pytest.mark.parametrize("name", ["base-patch32", "base"])
def test_unknown_preset_lists_the_known_ones(name: str) -> None:
    message = f"unknown MoTED preset '{name}'; choose one of base-patch16, large-patch14, large-patch14-336."
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        MotedConfig.preset(name)


def test_defaults_are_those_of_base_patch16_on_transformers_clip() -> None:
    fields = {name: value for name, value in MotedConfig().to_dict().items() if name in MotedConfig.__annotations__}
    preset = MotedConfig.preset("base-patch16").to_dict()
    assert fields.pop("model_type", "moted") == "moted"
    assert len(fields) == 13 and fields == {name: preset[name] for name in fields}


# On top of a CLIP


def test_from_clip_config_keeps_the_towers_and_fits_the_rest() -> None:
    clip = CLIPConfig(
        text_config={"hidden_size": 40, "num_attention_heads": 5, "vocab_size": 99, "eos_token_id": 98},
        vision_config={"hidden_size": 256, "num_attention_heads": 4, "patch_size": 8, "image_size": 24},
        projection_dim=192,
        logit_scale_init_value=3.5,
    )
    config = MotedConfig.from_clip_config(clip, num_frames=5)
    for tower in ("text_config", "vision_config"):
        assert getattr(config, tower).to_dict() == getattr(clip, tower).to_dict()
    assert (config.projection_dim, config.logit_scale_init_value, config.num_frames) == (192, 3.5, 5)
    assert (config.motion_hidden_size, config.motion_num_attention_heads) == (128, 2)
    assert config.joint_num_attention_heads == 3


@pytest.mark.parametrize(
    ("image_width", "motion_width", "heads"), [(768, 384, 6), (1024, 320, 5), (512, 256, 4), (48, 24, 1), (200, 100, 1)]
)
def test_motion_width_follows_the_image_width(image_width: int, motion_width: int, heads: int) -> None:
    clip = CLIPConfig(vision_config={"hidden_size": image_width, "num_attention_heads": 1})
    config = MotedConfig.from_clip_config(clip)
    assert (config.motion_hidden_size, config.motion_num_attention_heads) == (motion_width, heads)


def test_overrides_replace_single_fields() -> None:
    config = MotedConfig.from_clip_config(
        tiny_clip_config(), motion_hidden_size=128, motion_encoder="serial", vision_config={"num_hidden_layers": 1}
    )
    assert (config.motion_hidden_size, config.motion_num_attention_heads) == (128, 2)
    assert config.motion_encoder == "serial"
    assert (config.vision_config.num_hidden_layers, config.vision_config.hidden_size) == (1, 48)
    assert MotedConfig.from_clip_config(tiny_clip_config(), num_frames=3).num_frames == 3


# What cannot be


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"fuse_texts": True}, "MotedConfig got an unknown field `fuse_texts`; did you mean `fuse_text`?"),
        (
            {"patch_size": 16},
            "MotedConfig got an unknown field `patch_size`; it is a field of vision_config: "
            "pass vision_config={'patch_size': ...}.",
        ),
        ({"qqq": 1}, "MotedConfig got an unknown field `qqq`; `help(MotedConfig)` lists the fields."),
        (
            {"vision_config": {"num_frames": 4}},
            "vision_config got an unknown field `num_frames`; did you mean `num_channels`?",
        ),
    ],
)
def test_unknown_field_raises_and_names_the_closest(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(TypeError, match=f"^{re.escape(message)}$"):
        MotedConfig(**fields)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"motion_encoder": "paralel"},
            "motion_encoder='paralel' is unknown; choose one of parallel, serial, none.",
        ),
        ({"inference_logits": "both"}, "inference_logits='both' is unknown; choose one of video, motion, sum."),
        ({"num_frames": 0}, "num_frames=0 must be at least 1."),
        ({"motion_frame_ratio": 0}, "motion_frame_ratio=0 must be at least 1."),
        ({"motion_hidden_size": -2}, "motion_hidden_size=-2 must be at least 1."),
        ({"motion_max_key_tokens": 0}, "motion_max_key_tokens=0 must be at least 1."),
        ({"motion_num_attention_heads": 5}, "motion_hidden_size=24 is not divisible by its 5 attention heads."),
        ({"joint_num_attention_heads": 3}, "projection_dim=32 is not divisible by its 3 attention heads."),
        ({"text_config": {"num_attention_heads": 3}}, "(40) is not a multiple of the number of attention heads (3)"),
        ({"vision_config": {"num_attention_heads": 5}}, "(48) is not a multiple of the number of attention heads (5)"),
    ],
)
def test_values_that_do_not_fit_raise(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(Exception, match=re.escape(message)):
        tiny_moted_config(**fields)


@pytest.mark.parametrize(
    "fields",
    [{"num_frames": "8"}, {"fuse_text": "false"}, {"motion_hidden_size": 2.5}, {"inference_logits": 1}],
    ids=str,
)
def test_wrong_type_raises(fields: dict[str, Any]) -> None:
    ((name, value),) = fields.items()
    message = f"Field '{name}' expected .*, got {type(value).__name__}"
    with pytest.raises(Exception, match=message):
        MotedConfig(**fields)
    config = tiny_moted_config()
    with pytest.raises(Exception, match=message):
        setattr(config, name, value)


def test_every_choice_is_taken() -> None:
    for name, choices in (("motion_encoder", MOTION_ENCODERS), ("inference_logits", INFERENCE_LOGITS)):
        for choice in choices:
            assert getattr(tiny_moted_config(**{name: choice}), name) == choice


@pytest.mark.parametrize(
    ("conceptual", "discriminative", "expected"),
    [(True, True, True), (True, False, True), (False, True, True), (False, False, False)],
)
def test_descriptions_are_used_with_either_kind(conceptual: bool, discriminative: bool, expected: bool) -> None:
    config = tiny_moted_config(use_conceptual=conceptual, use_discriminative=discriminative)
    assert config.uses_descriptions is expected


# Files

CHANGED = {
    "num_frames": 4,
    "motion_frame_ratio": 3,
    "motion_hidden_size": 12,
    "motion_num_attention_heads": 2,
    "motion_max_key_tokens": 7,
    "joint_num_attention_heads": 4,
    "motion_encoder": "serial",
    "use_conceptual": False,
    "use_discriminative": False,
    "use_text_adapter": False,
    "fuse_text": False,
    "fuse_video": False,
    "inference_logits": "sum",
}


def test_save_then_load_is_equal(tmp_path: Path) -> None:
    config = tiny_moted_config(**CHANGED)
    config.save_pretrained(tmp_path)
    loaded = MotedConfig.from_pretrained(tmp_path)
    assert type(loaded) is MotedConfig and type(AutoConfig.from_pretrained(tmp_path)) is MotedConfig
    assert {name: getattr(loaded, name) for name in CHANGED} == CHANGED
    assert loaded.to_dict() == {**config.to_dict(), "auto_map": {"AutoConfig": "configuration_moted.MotedConfig"}}
    assert MotedConfig.from_dict(config.to_dict()).to_dict() == config.to_dict()
    assert json.loads((tmp_path / "config.json").read_text())["model_type"] == "moted"


def test_keyword_of_from_pretrained_overrides_the_file(tmp_path: Path) -> None:
    tiny_moted_config().save_pretrained(tmp_path)
    assert MotedConfig.from_pretrained(tmp_path, inference_logits="motion").inference_logits == "motion"


def test_file_with_unknown_fields_loads_with_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    tiny_moted_config().save_pretrained(tmp_path)
    fields = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**fields, "fuse_audio": True}))
    loggers = (MotedConfig.__module__, configuration_video_text.__name__)
    with caplog.at_level(logging.WARNING):
        config = MotedConfig.from_pretrained(tmp_path)
    assert config.fuse_audio is True
    messages = [record.getMessage() for record in caplog.records if record.name in loggers]
    assert messages == ["config.json has fields unknown to MotedConfig; kept, without effect: ['fuse_audio']"]


def test_another_models_configuration_is_no_clip() -> None:
    message = "clip must be a name, a folder, a CLIPConfig or a CLIPModel; got XCLIPConfig."
    with pytest.raises(TypeError, match=f"^{re.escape(message)}"):
        MotedModel.from_clip(tiny_config())
