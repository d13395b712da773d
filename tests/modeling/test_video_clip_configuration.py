"""Fields, presets and files of the VideoCLIP configuration."""

from __future__ import annotations

import json
import logging
import re
from pathlib import Path
from typing import Any

import pytest
from testing_utils import tiny_clip_config, tiny_video_clip_config
from transformers import AutoConfig, CLIPConfig

from kinetext import VideoCLIPConfig
from kinetext.modeling import configuration_video_text
from kinetext.modeling.configuration_video_clip import TEMPORAL_POOLINGS, VIDEO_CLIP_PRESETS


@pytest.mark.parametrize(
    ("name", "patch", "size", "joint", "heads"),
    [
        ("base-patch32", 32, 224, 512, 8),
        ("base-patch16", 16, 224, 512, 8),
        ("large-patch14", 14, 224, 768, 12),
        ("large-patch14-336", 14, 336, 768, 12),
    ],
)
def test_preset_sizes(name: str, patch: int, size: int, joint: int, heads: int) -> None:
    config = VideoCLIPConfig.preset(name, num_frames=16)
    assert (config.vision_config.patch_size, config.vision_config.image_size) == (patch, size)
    assert (config.projection_dim, config.temporal_num_attention_heads, config.num_frames) == (joint, heads, 16)
    assert (config.temporal_pooling, config.temporal_num_layers) == ("mean", 6)
    assert config.train_vision and config.train_text and config.train_logit_scale
    assert config.logit_scale_init_value == pytest.approx(4.6052)
    assert len(VIDEO_CLIP_PRESETS) == 4


def test_preset_takes_other_fields_and_names_the_known_ones() -> None:
    config = VideoCLIPConfig.preset("base-patch16", temporal_pooling="transformer", train_text=False)
    assert (config.temporal_pooling, config.train_text) == ("transformer", False)
    with pytest.raises(ValueError, match="^unknown VideoCLIP preset 'base'; choose one of base-patch32, base-patch16"):
        VideoCLIPConfig.preset("base")


def test_from_clip_config_keeps_the_towers_and_has_text4vis_heads() -> None:
    clip = CLIPConfig(
        text_config={"hidden_size": 192, "num_attention_heads": 4, "vocab_size": 99, "eos_token_id": 98},
        vision_config={"hidden_size": 256, "num_attention_heads": 4, "patch_size": 8, "image_size": 24},
        projection_dim=96,
        logit_scale_init_value=3.5,
    )
    config = VideoCLIPConfig.from_clip_config(clip, num_frames=5, vision_config={"num_hidden_layers": 1})
    assert config.text_config.to_dict() == clip.text_config.to_dict()
    assert (config.vision_config.num_hidden_layers, config.vision_config.hidden_size) == (1, 256)
    assert (config.projection_dim, config.logit_scale_init_value, config.num_frames) == (96, 3.5, 5)
    assert config.temporal_num_attention_heads == 3  # text width / 64
    assert VideoCLIPConfig.from_clip_config(tiny_clip_config()).temporal_num_attention_heads == 1


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"temporal_poling": "mean"},
            "VideoCLIPConfig got an unknown field `temporal_poling`; did you mean `temporal_pooling`?",
        ),
        (
            {"patch_size": 16},
            "VideoCLIPConfig got an unknown field `patch_size`; it is a field of vision_config: "
            "pass vision_config={'patch_size': ...}.",
        ),
    ],
)
def test_unknown_field_raises_and_names_the_closest(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(TypeError, match=f"^{re.escape(message)}$"):
        VideoCLIPConfig(**fields)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"temporal_pooling": "max"},
            "temporal_pooling='max' is unknown; choose one of mean, transformer, one_frame, joint.",
        ),
        ({"num_frames": 0}, "num_frames=0 must be at least 1."),
        ({"temporal_num_layers": 0}, "temporal_num_layers=0 must be at least 1."),
        ({"temporal_num_attention_heads": 3}, "projection_dim=32 is not divisible by its 3 attention heads."),
        (
            {"temporal_pooling": "one_frame", "num_frames": 8},
            "num_frames=8 with temporal_pooling='one_frame': only one would be seen; set num_frames=1",
        ),
    ],
)
def test_values_that_do_not_fit_raise(fields: dict[str, Any], message: str) -> None:
    clip = {**tiny_clip_config().to_dict(), "temporal_num_attention_heads": 2, **fields}
    with pytest.raises(Exception, match=re.escape(message)):
        VideoCLIPConfig.from_dict({**clip, "model_type": "video_clip"})


@pytest.mark.parametrize("fields", [{"num_frames": "8"}, {"train_text": "false"}, {"temporal_pooling": 1}], ids=str)
def test_wrong_type_raises(fields: dict[str, Any]) -> None:
    ((name, value),) = fields.items()
    with pytest.raises(Exception, match=f"Field '{name}' expected .*, got {type(value).__name__}"):
        VideoCLIPConfig(**fields)
    with pytest.raises(Exception, match=f"Field '{name}' expected .*, got {type(value).__name__}"):
        setattr(tiny_video_clip_config(), name, value)


CHANGED = {
    "temporal_pooling": "transformer",
    "num_frames": 4,
    "temporal_num_layers": 3,
    "temporal_num_attention_heads": 4,
    "train_vision": False,
    "train_text": False,
    "train_logit_scale": False,
}


def test_save_then_load_is_equal(tmp_path: Path) -> None:
    assert set(CHANGED) == set(VideoCLIPConfig.__annotations__) - {"model_type", "vision_config"}
    config = VideoCLIPConfig.from_clip_config(tiny_clip_config(), id2label={0: "run", 1: "jump", 2: "sit"}, **CHANGED)
    config.save_pretrained(tmp_path)
    loaded = AutoConfig.from_pretrained(tmp_path)
    assert type(loaded) is VideoCLIPConfig
    assert {name: getattr(loaded, name) for name in CHANGED} == CHANGED
    assert (loaded.num_labels, loaded.id2label[2]) == (3, "sit")
    assert json.loads((tmp_path / "config.json").read_text())["model_type"] == "video_clip"


def test_file_with_unknown_fields_loads_with_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    tiny_video_clip_config().save_pretrained(tmp_path)
    fields = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**fields, "fuse_audio": True}))
    with caplog.at_level(logging.WARNING):
        VideoCLIPConfig.from_pretrained(tmp_path)
    loggers = (VideoCLIPConfig.__module__, configuration_video_text.__name__)
    messages = [record.getMessage() for record in caplog.records if record.name in loggers]
    assert messages == ["config.json has fields unknown to VideoCLIPConfig; kept, without effect: ['fuse_audio']"]


def test_every_pooling_is_taken() -> None:
    for pooling in TEMPORAL_POOLINGS:
        assert tiny_video_clip_config(pooling).temporal_pooling == pooling
