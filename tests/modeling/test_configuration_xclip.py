"""XCLIPConfig: transformers' fields and files, unknown fields refused, presets with the published sizes."""

from __future__ import annotations

import json
import logging
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from testing_utils import tiny_config
from transformers.models.x_clip import configuration_x_clip as stock

from kinetext import XCLIPConfig, XCLIPModel
from kinetext.modeling import configuration_xclip

PARAMETERS = {
    ("base-patch32", 8): 196_585_729,
    ("base-patch32", 16): 196_589_825,
    ("base-patch16", 8): 194_929_153,
    ("base-patch16", 16): 194_933_249,
    ("base-patch16", 32): 194_941_441,
    ("large-patch14", 8): 575_673_601,
    ("large-patch14-336", 16): 576_007_425,
}


@pytest.mark.parametrize(("name", "num_frames"), PARAMETERS)
def test_preset_has_the_published_number_of_parameters(name: str, num_frames: int) -> None:
    config = XCLIPConfig.preset(name, num_frames=num_frames)
    with torch.device("meta"):
        model = XCLIPModel(config)
    assert sum(parameter.numel() for parameter in model.parameters()) == PARAMETERS[name, num_frames]
    assert config.vision_config.num_frames == num_frames


@pytest.mark.parametrize("name", configuration_xclip.PRESETS)
def test_every_attention_of_a_preset_has_heads_of_64(name: str) -> None:
    config = XCLIPConfig.preset(name)
    text, vision = config.text_config, config.vision_config
    assert text.num_attention_heads == text.hidden_size // 64
    assert vision.num_attention_heads == vision.hidden_size // 64
    assert vision.mit_num_attention_heads == vision.mit_hidden_size // 64
    assert config.prompt_num_attention_heads == config.projection_dim // 64


def test_preset_sizes() -> None:
    sizes = {}
    for name in configuration_xclip.PRESETS:
        config = XCLIPConfig.preset(name)
        vision = config.vision_config
        sizes[name] = (vision.image_size, vision.patch_size, config.projection_dim, vision.mit_num_hidden_layers)
        assert vision.mit_intermediate_size == 4 * vision.mit_hidden_size
        assert config.logit_scale_init_value == pytest.approx(4.6052)
    assert sizes == {
        "base-patch32": (224, 32, 512, 1),
        "base-patch16": (224, 16, 512, 1),
        "large-patch14": (224, 14, 768, 1),
        "large-patch14-336": (336, 14, 768, 1),
    }


def test_presets_do_not_share_state() -> None:
    XCLIPConfig.preset("base-patch16").vision_config.patch_size = 7
    assert XCLIPConfig.preset("base-patch16").vision_config.patch_size == 16


def test_unknown_preset_lists_the_known_ones() -> None:
    message = (
        "unknown X-CLIP preset 'base-patch8'; choose one of "
        "base-patch32, base-patch16, large-patch14, large-patch14-336."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        XCLIPConfig.preset("base-patch8")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"prompt_layer": 3}, "XCLIPConfig got an unknown field `prompt_layer`; did you mean `prompt_layers`?"),
        (
            {"num_frames": 16},
            "XCLIPConfig got an unknown field `num_frames`; it is a field of vision_config: "
            "pass vision_config={'num_frames': ...}.",
        ),
        (
            {"vocab_size": 9},
            "XCLIPConfig got an unknown field `vocab_size`; it is a field of text_config: "
            "pass text_config={'vocab_size': ...}.",
        ),
        ({"qqq": 1}, "XCLIPConfig got an unknown field `qqq`; `help(XCLIPConfig)` lists the fields."),
        (
            {"vision_config": {"num_frame": 4}},
            "vision_config got an unknown field `num_frame`; did you mean `num_frames`?",
        ),
        (
            {"text_config": {"hiden_size": 4}},
            "text_config got an unknown field `hiden_size`; did you mean `hidden_size`?",
        ),
    ],
)
def test_unknown_field_raises_and_names_the_closest(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(TypeError, match=f"^{re.escape(message)}$"):
        XCLIPConfig(**fields)


@pytest.mark.parametrize(
    "fields",
    [
        {"vision_config": {"num_frames": "8"}},
        {"vision_config": {"num_frames": 8.5}},
        {"text_config": {"hidden_size": "512"}},
        {"projection_dim": "512"},
        {"prompt_alpha": "a"},
        {"prompt_layers": None},
    ],
)
def test_wrong_type_raises(fields: dict[str, Any]) -> None:
    name = (
        next(iter(next(iter(fields.values())))) if isinstance(next(iter(fields.values())), dict) else next(iter(fields))
    )
    with pytest.raises(Exception, match=name):
        XCLIPConfig(**fields)


def test_wrong_type_raises_at_assignment() -> None:
    config = tiny_config()
    with pytest.raises(Exception, match="prompt_layers"):
        config.prompt_layers = "2"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"vision": {"mit_hidden_size": 64}},
            "vision_config.mit_hidden_size=64 must equal projection_dim=32: the MIT works on projected frame features. "
            "Set both to the same value.",
        ),
        ({"text": {"num_attention_heads": 3}}, "text_config.hidden_size=40 is not divisible by its 3 attention heads."),
        (
            {"vision": {"num_attention_heads": 5}},
            "vision_config.hidden_size=48 is not divisible by its 5 attention heads.",
        ),
        (
            {"vision": {"mit_num_attention_heads": 5}},
            "vision_config.mit_hidden_size=32 is not divisible by its 5 attention heads.",
        ),
        ({"prompt_num_attention_heads": 0}, "projection_dim=32 is not divisible by its 0 attention heads."),
        ({"vision": {"num_frames": 0}}, "vision_config.num_frames=0 must be at least 1."),
    ],
)
def test_widths_that_do_not_fit_raise(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(Exception, match=re.escape(message)):
        tiny_config(**changes)


def test_fields_and_defaults_are_those_of_transformers() -> None:
    assert XCLIPConfig().to_dict() == stock.XCLIPConfig().to_dict()
    ours = tiny_config(prompt_alpha=0.3).to_dict()
    theirs = stock.XCLIPConfig(
        text_config=dict(ours["text_config"]),
        vision_config=dict(ours["vision_config"]),
        projection_dim=32,
        prompt_num_attention_heads=2,
        prompt_alpha=0.3,
    )
    assert ours == theirs.to_dict()


def test_save_then_load_is_equal(tmp_path: Path) -> None:
    config = tiny_config(prompt_layers=3, text={"eos_token_id": 98}, vision={"drop_path_rate": 0.2})
    config.save_pretrained(tmp_path)
    loaded = XCLIPConfig.from_pretrained(tmp_path)
    assert type(loaded) is XCLIPConfig
    assert loaded.to_dict() == {**config.to_dict(), "auto_map": {"AutoConfig": "configuration_xclip.XCLIPConfig"}}
    again = XCLIPConfig.from_dict(config.to_dict())
    assert again.to_dict() == config.to_dict()


def test_keyword_of_from_pretrained_overrides_the_file(tmp_path: Path) -> None:
    tiny_config().save_pretrained(tmp_path)
    assert XCLIPConfig.from_pretrained(tmp_path, prompt_alpha=0.7).prompt_alpha == 0.7
    config, unused = XCLIPConfig.from_pretrained(tmp_path, prompt_alfa=0.7, return_unused_kwargs=True)
    assert unused == {"prompt_alfa": 0.7} and not hasattr(config, "prompt_alfa")


OLD_FILE = {
    "architectures": ["XCLIPModel"],
    "initializer_factor": 1.0,
    "logit_scale_init_value": 2.6592,
    "model_type": "xclip",
    "projection_dim": 512,
    "prompt_alpha": 0.1,
    "text_config": {
        "_name_or_path": "",
        "add_cross_attention": False,
        "bad_words_ids": None,
        "diversity_penalty": 0.0,
        "early_stopping": False,
        "hidden_size": 512,
        "is_decoder": False,
        "length_penalty": 1.0,
        "max_length": 20,
        "model_type": "xclip_text_model",
        "num_beams": 1,
        "pruned_heads": {},
        "tie_word_embeddings": True,
        "torch_dtype": None,
        "transformers_version": "4.22.0.dev0",
        "use_bfloat16": False,
    },
    "text_config_dict": None,
    "torch_dtype": "float32",
    "transformers_version": None,
    "vision_config": {"do_sample": False, "model_type": "xclip_vision_model", "num_frames": 16, "patch_size": 16},
    "vision_config_dict": None,
}


def test_old_config_file_loads_with_a_warning_about_what_is_unknown(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "config.json").write_text(json.dumps({**OLD_FILE, "hidden_sise": 3, "use_cache_of_old": True}))
    with caplog.at_level(logging.WARNING, logger=configuration_xclip.__name__):
        config = XCLIPConfig.from_pretrained(tmp_path)
    assert (config.vision_config.num_frames, config.vision_config.patch_size, config.prompt_layers) == (16, 16, 2)
    assert config.use_cache_of_old is True
    messages = [record.getMessage() for record in caplog.records if record.name == configuration_xclip.__name__]
    expected = (
        "config.json has fields unknown to XCLIPConfig; kept, without effect: ['hidden_sise', 'use_cache_of_old']"
    )
    assert messages == [expected]


def test_old_config_file_without_unknown_fields_loads_in_silence(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "config.json").write_text(json.dumps(OLD_FILE))
    config = XCLIPConfig.from_pretrained(tmp_path)
    assert [record for record in caplog.records if record.name == configuration_xclip.__name__] == []
    theirs = stock.XCLIPConfig.from_pretrained(tmp_path)
    assert config.to_dict() == theirs.to_dict()


def test_legacy_sub_config_keywords_still_set_the_sub_configs() -> None:
    config = XCLIPConfig(vision_config_dict={"num_frames": 4}, text_config_dict={"vocab_size": 9})
    assert (config.vision_config.num_frames, config.text_config.vocab_size) == (4, 9)
