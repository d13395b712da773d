"""Which parts of each model learn, and which parameters are new or positions: by identity, not by name."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from testing_utils import (
    tiny_config,
    tiny_model,
    tiny_moted,
    tiny_texts,
    tiny_video_clip,
    tiny_video_clip_config,
    tiny_videos,
)

from kinetext import VideoCLIPForVideoClassification, VideoCLIPModel, XCLIPForVideoClassification

TEXT = ("text_model.", "text_projection.")
CLIP_VISION = ("vision_model.", "visual_projection.")


def learning(model: Any) -> set[str]:
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


def named(model: Any, *prefixes: str, new: bool = False) -> set[str]:
    """Names that start so; those of new modules among them only if asked for."""
    names = {name for name, _ in model.named_parameters() if name.startswith(prefixes)}
    return names if new else names - model.new_parameter_names()


MODELS: dict[str, Callable[[], Any]] = {
    "xclip": tiny_model,
    "moted": tiny_moted,
    "moted serial": lambda: tiny_moted(motion_encoder="serial"),
    "video_clip": tiny_video_clip,
    "video_clip transformer": lambda: tiny_video_clip("transformer"),
    "video_clip joint": lambda: tiny_video_clip("joint"),
    "xclip linear": lambda: XCLIPForVideoClassification(tiny_config()),
    "video_clip linear": lambda: VideoCLIPForVideoClassification(tiny_video_clip_config()),
}


# X-CLIP


def test_xclip_learns_all_until_told_then_all_but_text_and_logit_scale() -> None:
    model = tiny_model()
    every = {name for name, _ in model.named_parameters()}
    assert learning(model) == every
    model.set_trainable()
    assert learning(model) == every - named(model, *TEXT, "logit_scale")
    model.set_trainable(text=True)
    assert learning(model) == every
    model.set_trainable(text=True, logit_scale=False)
    assert learning(model) == every - {"logit_scale"}
    model.set_trainable(logit_scale=True)
    assert learning(model) == every - named(model, *TEXT)


def test_frozen_image_tower_of_xclip_keeps_its_messages_learning() -> None:
    model = tiny_model()
    model.set_trainable(vision=False)
    assert learning(model) == model.new_parameter_names()
    assert "vision_model.encoder.layers.1.message_fc.weight" in learning(model)
    model.set_trainable(vision=True)
    assert named(model, *CLIP_VISION) <= learning(model)


# MoTED


@pytest.mark.parametrize("motion_encoder", ["parallel", "serial", "none"])
def test_moted_learns_what_is_new_and_the_logit_scale(motion_encoder: str) -> None:
    model = tiny_moted(motion_encoder=motion_encoder)
    assert learning(model) == model.new_parameter_names() | {"logit_scale"}
    model.set_trainable(logit_scale=False)
    assert learning(model) == model.new_parameter_names()
    model.set_trainable(text=False, vision=False)
    assert learning(model) == model.new_parameter_names() | {"logit_scale"}


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"text": True}, "the text tower of MoTED stays frozen; leave train_text out."),
        ({"vision": True}, "the image tower of MoTED stays frozen; leave train_vision out."),
    ],
)
def test_towers_of_moted_are_not_trained(asked: dict[str, bool], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        tiny_moted().set_trainable(**asked)


# VideoCLIP


@pytest.mark.parametrize("text", [True, False])
@pytest.mark.parametrize("vision", [True, False])
@pytest.mark.parametrize("logit_scale", [True, False])
def test_video_clip_learns_what_its_configuration_says_also_when_loaded(
    text: bool, vision: bool, logit_scale: bool, tmp_path: Path
) -> None:
    settings = {"train_text": text, "train_vision": vision, "train_logit_scale": logit_scale}
    model = tiny_video_clip("transformer", **settings)
    tokens = {"text_model.embeddings.token_embedding.weight"}
    expected = model.new_parameter_names()
    expected |= named(model, *TEXT) - tokens if text else set()
    expected |= named(model, *CLIP_VISION) if vision else set()
    expected |= {"logit_scale"} if logit_scale else set()
    assert learning(model) == expected
    model.save_pretrained(tmp_path)
    assert learning(VideoCLIPModel.from_pretrained(tmp_path)) == expected
    assert learning(VideoCLIPModel.from_pretrained(tmp_path, output_loading_info=True)[0]) == expected


def test_what_video_clip_was_told_is_saved(tmp_path: Path) -> None:
    model = tiny_video_clip()
    model.set_trainable(text=False)
    model.set_trainable(logit_scale=False)
    assert learning(model) == named(model, *CLIP_VISION)
    model.save_pretrained(tmp_path)
    loaded = VideoCLIPModel.from_pretrained(tmp_path)
    assert learning(loaded) == learning(model)
    config = loaded.config
    assert (config.train_text, config.train_vision, config.train_logit_scale) == (False, True, False)


# Classifiers


@pytest.mark.parametrize("name", ["xclip linear", "video_clip linear"])
def test_classifiers_learn_all_or_all_but_the_image_tower(name: str) -> None:
    model = MODELS[name]()
    every = {name for name, _ in model.named_parameters()}
    model.set_trainable()
    assert learning(model) == every
    model.set_trainable(vision=False)
    assert learning(model) == model.new_parameter_names() and "classifier.weight" in learning(model)
    for asked in ({"text": True}, {"logit_scale": True}):
        with pytest.raises(ValueError, match="has no text tower and no logit scale to train; leave train_text and"):
            model.set_trainable(**asked)
    model.set_trainable(text=False, vision=True, logit_scale=False)
    assert learning(model) == every


# New parameters and positions

POSITIONS = {
    "xclip": {"mit.position_embedding"},
    "moted": {"motion_encoder.spatial_position_embedding", "motion_encoder.temporal_position_embedding"},
    "moted serial": {"motion_encoder.temporal_position_embedding"},
    "video_clip": set(),
    "video_clip transformer": {"temporal_transformer.position_embedding.weight"},
    "video_clip joint": {"joint_position_embedding"},
    "xclip linear": {"mit.position_embedding"},
    "video_clip linear": set(),
}


@pytest.mark.parametrize("name", MODELS)
def test_positions_are_those_of_the_towers_and_of_new_modules(name: str) -> None:
    model = MODELS[name]()
    towers = ["vision_model"] if name.endswith("linear") else ["vision_model", "text_model"]
    expected = POSITIONS[name] | {f"{tower}.embeddings.position_embedding.weight" for tower in towers}
    assert model.position_parameter_names() == expected
    assert {other for other, _ in model.named_parameters() if "position" in other} == expected


@pytest.mark.parametrize("name", MODELS)
def test_new_parameters_are_what_a_clip_lacks(name: str) -> None:
    model = MODELS[name]()
    words = r"mit\.|prompts|message|motion|fusion|adapter|temporal|joint_|classifier"
    assert model.new_parameter_names() == {other for other, _ in model.named_parameters() if re.search(words, other)}


@pytest.mark.parametrize("name", MODELS)
def test_names_follow_the_model_they_are_asked_of(name: str) -> None:
    """A copy, and parameters put in place of others, as `set_num_frames` does."""
    model = copy.deepcopy(MODELS[name]())
    new, positions = model.new_parameter_names(), model.position_parameter_names()
    model.set_num_frames(5)
    assert (model.new_parameter_names(), model.position_parameter_names()) == (new, positions)


@pytest.mark.parametrize("name", [name for name in MODELS if not name.endswith("linear")])
def test_gradients_reach_what_learns_and_nothing_else(name: str) -> None:
    model = MODELS[name]()
    model.set_trainable(logit_scale=True)
    model(pixel_values=tiny_videos(), labels=torch.tensor([0, 1]), **tiny_texts()).loss.backward()
    reached = {other for other, parameter in model.named_parameters() if parameter.grad is not None}
    assert reached == learning(model)


def test_what_one_model_is_told_reaches_no_other_of_its_configuration() -> None:
    config = tiny_video_clip_config()
    first = VideoCLIPModel(config)
    for model in (first, copy.deepcopy(first)):
        model.set_trainable(text=False)
        model.set_num_frames(3)
        assert (model.config.train_text, model.config.num_frames) == (False, 3)
    assert (config.train_text, config.num_frames) == (True, 8)
    assert learning(VideoCLIPModel(config)) >= named(first, "text_projection.")
