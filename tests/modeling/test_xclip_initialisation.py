"""Initial values by tensor, building on a CLIP, and what loading does with keys that a file lacks."""

from __future__ import annotations

import math
import re
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from testing_utils import scatter_weights, tiny_config, tiny_texts, tiny_videos
from torch import nn
from transformers import CLIPConfig, CLIPModel

from kinetext import XCLIPConfig, XCLIPModel

# What a tensor starts as: ("constant", value), ("normal", standard deviation) or ("uniform", bound).
Start = tuple[str, float]


def documented_start(name: str, config: Any) -> Start:
    """VideoX code: CLIP-named tensors as transformers starts them, the rest as the original code does."""
    text, vision = config.text_config, config.vision_config
    if name == "logit_scale":
        return "constant", config.logit_scale_init_value
    if name == "prompts_generator.alpha":
        return "constant", config.prompt_alpha
    if name == "prompts_visual_projection":
        return "normal", 1.0
    if re.search(r"norm\d?\.|message_ln\.", name):
        return "constant", float(name.endswith("weight"))
    if name.startswith(("mit.", "prompts_generator.")):
        if name.endswith("bias"):
            return "constant", 0.0
        if re.search(r"self_attn\.[qkv]_proj", name):
            return "uniform", math.sqrt(6 / (4 * vision.mit_hidden_size))  # xavier of the fused (3D, D)
        return "normal", 0.02
    if "message_" in name:
        if name.endswith("bias") and "message_attn" in name:
            return "constant", 0.0
        if re.search(r"[qkv]_proj", name):
            return "uniform", math.sqrt(6 / (4 * vision.hidden_size))
        return "uniform", vision.hidden_size**-0.5
    if name.endswith("bias"):
        return "constant", 0.0
    if name == "vision_model.embeddings.class_embedding":
        return "normal", vision.hidden_size**-0.5
    if ".embeddings." in name:
        return "normal", 0.02
    tower = text if name.startswith("text") else vision
    depth = (2 * tower.num_hidden_layers) ** -0.5
    if re.search(r"[qkv]_proj|fc2", name):
        return "normal", tower.hidden_size**-0.5 * depth
    if "fc1" in name:
        return "normal", (2 * tower.hidden_size) ** -0.5
    assert re.search(r"out_proj|text_projection|visual_projection", name), name
    return "normal", tower.hidden_size**-0.5


def assert_starts_as(name: str, tensor: torch.Tensor, start: Start) -> None:
    kind, value = start
    assert tensor.isfinite().all(), name
    if kind == "constant":
        assert torch.equal(tensor, torch.full_like(tensor, value)), name
        return
    deviation = value / math.sqrt(3) if kind == "uniform" else value
    measured = tensor.square().mean().sqrt().item()
    assert abs(measured / deviation - 1) <= 6 / math.sqrt(2 * tensor.numel()), (name, measured, deviation)
    assert tensor.unique().numel() > 0.9 * tensor.numel(), name
    if kind == "uniform":
        assert tensor.abs().max() <= value * (1 + 1e-6), name


def test_every_parameter_starts_as_documented() -> None:
    config = tiny_config(prompt_alpha=0.3, logit_scale_init_value=1.5)
    for name, parameter in XCLIPModel(config).named_parameters():
        assert_starts_as(name, parameter.detach(), documented_start(name, config))


def test_clip_towers_start_as_in_transformers() -> None:
    """The same table holds for transformers' own CLIP, so it says the same of CLIP-named tensors."""
    clip = CLIPModel(tiny_clip_config())
    for name, parameter in clip.named_parameters():
        if "patch_embedding" in name or "position_embedding" in name:
            continue  # CLIP's own start differs from transformers' X-CLIP's only by the same factor
        assert_starts_as(name, parameter.detach(), documented_start(name, clip.config))


# On top of a CLIP


def tiny_clip_config(**fields: Any) -> CLIPConfig:
    config = tiny_config()
    tower_fields = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
    text = {
        name: getattr(config.text_config, name) for name in (*tower_fields, "vocab_size", "max_position_embeddings")
    }
    vision = {name: getattr(config.vision_config, name) for name in (*tower_fields, "image_size", "patch_size")}
    text["eos_token_id"] = config.text_config.vocab_size - 1
    return CLIPConfig(text_config=text, vision_config=vision, **{"projection_dim": 128, **fields})


@pytest.fixture
def clip() -> CLIPModel:
    model = CLIPModel(tiny_clip_config(logit_scale_init_value=3.0))
    scatter_weights(model)
    return model.eval()


def our_name(clip_name: str) -> str:
    return clip_name.replace("pre_layrnorm", "pre_layernorm")


def assert_is_built_on(model: XCLIPModel, clip: CLIPModel) -> None:
    ours = dict(model.named_parameters())
    for name, parameter in clip.named_parameters():
        assert torch.equal(ours.pop(our_name(name)), parameter), name
    assert set(ours) == model.new_parameter_names()
    for name, parameter in ours.items():
        assert_starts_as(name, parameter.detach(), documented_start(name, model.config))
    output = model(pixel_values=tiny_videos(), **tiny_texts())
    assert output.logits_per_video.isfinite().all() and output.video_embeds.isfinite().all()


def test_from_clip_model_copies_the_towers_and_starts_the_rest(clip: CLIPModel) -> None:
    model = XCLIPModel.from_clip(clip, num_frames=8)
    assert_is_built_on(model, clip)
    assert not {p.data_ptr() for p in model.parameters()} & {p.data_ptr() for p in clip.parameters()}


def test_from_clip_folder_equals_from_the_model_saved_there(clip: CLIPModel, tmp_path: Path) -> None:
    clip.save_pretrained(tmp_path)
    for folder in (tmp_path, str(tmp_path)):
        assert_is_built_on(XCLIPModel.from_clip(folder), clip)


def test_from_clip_config_gives_random_weights(clip: CLIPModel) -> None:
    model = XCLIPModel.from_clip(clip.config, num_frames=5, prompt_alpha=0.2)
    config = model.config
    for name, parameter in model.named_parameters():
        assert_starts_as(name, parameter.detach(), documented_start(name, config))
    assert config.vision_config.num_frames == model.mit.position_embedding.shape[1] == 5
    assert (config.prompt_alpha, config.logit_scale_init_value) == (0.2, 3.0)
    assert (config.projection_dim, config.vision_config.mit_hidden_size) == (128, 128)
    assert (config.vision_config.mit_num_attention_heads, config.prompt_num_attention_heads) == (2, 2)
    assert config.vision_config.mit_intermediate_size == 512


def test_from_clip_keeps_the_dtype(clip: CLIPModel) -> None:
    model = XCLIPModel.from_clip(clip.to(torch.bfloat16))
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}


def test_from_clip_features_are_the_features_of_clip(clip: CLIPModel) -> None:
    texts = tiny_texts()
    model = XCLIPModel.from_clip(clip).eval()
    expected = clip.get_text_features(**texts).pooler_output
    assert torch.allclose(model.get_text_features(**texts).pooler_output, expected, atol=1e-5)


def test_from_clip_refuses_other_things() -> None:
    message = "clip must be a name, a folder, a CLIPConfig or a CLIPModel; got XCLIPConfig."
    with pytest.raises(TypeError, match=f"^{re.escape(message)}"):
        XCLIPModel.from_clip(tiny_config())


def test_from_clip_refuses_weights_that_are_missing_or_left_over(clip: CLIPModel, tmp_path: Path) -> None:
    clip.extra = nn.Linear(2, 2, bias=False)
    message = "not the weights of a CLIP of this size: missing [], left over ['extra.weight']."
    with pytest.raises(RuntimeError, match=f"^{re.escape(message)}$"):
        XCLIPModel.from_clip(clip)
    del clip.extra

    clip.save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    weights["left.over"] = weights.pop("text_projection.weight")
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    message = "not the weights of a CLIP of this size: missing ['text_projection.weight'], left over ['left.over']."
    with pytest.raises(RuntimeError, match=f"^{re.escape(message)}$"):
        XCLIPModel.from_clip(tmp_path)


def test_new_parameters_are_exactly_those_that_clip_lacks(clip: CLIPModel) -> None:
    model = XCLIPModel.from_clip(clip)
    expected = {name for name, _ in model.named_parameters()} - {our_name(name) for name, _ in clip.named_parameters()}
    assert model.new_parameter_names() == expected
    assert len(expected) > 40


# Loading what is incomplete


ONE_LAYER = {"num_hidden_layers": 1}


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved")
    model = XCLIPModel(tiny_config(prompt_alpha=0.3, prompt_layers=1, text=ONE_LAYER, vision=ONE_LAYER))
    scatter_weights(model)
    model.save_pretrained(folder)
    return folder


def test_every_missing_key_is_initialised_and_no_other_touched(saved: Path, tmp_path: Path) -> None:
    config = XCLIPConfig.from_pretrained(saved)
    weights = load_file(saved / "model.safetensors")
    assert set(weights) == set(XCLIPModel(config).state_dict())
    for missing in weights:
        rest = {name: tensor for name, tensor in weights.items() if name != missing}
        save_file(rest, tmp_path / "model.safetensors", metadata={"format": "pt"})
        config.save_pretrained(tmp_path)
        model, report = XCLIPModel.from_pretrained(tmp_path, output_loading_info=True)
        assert set(report["missing_keys"]) == {missing}
        loaded = model.state_dict()
        assert_starts_as(missing, loaded.pop(missing), documented_start(missing, config))
        for name, tensor in loaded.items():
            assert torch.equal(tensor, weights[name]), f"{name} changed when {missing} was missing"


def test_a_clip_checkpoint_loads_with_all_new_modules_as_documented(saved: Path, tmp_path: Path) -> None:
    config = XCLIPConfig.from_pretrained(saved)
    new = XCLIPModel(config).new_parameter_names()
    weights = load_file(saved / "model.safetensors")
    save_file({k: v for k, v in weights.items() if k not in new}, tmp_path / "model.safetensors", {"format": "pt"})
    config.save_pretrained(tmp_path)
    model = XCLIPModel.from_pretrained(tmp_path)
    for name, parameter in model.named_parameters():
        if name in new:
            assert_starts_as(name, parameter.detach(), documented_start(name, config))
        else:
            assert torch.equal(parameter, weights[name]), name


def test_buffers_are_right_after_loading(saved: Path) -> None:
    model = XCLIPModel.from_pretrained(saved)
    expected = dict(XCLIPModel(model.config).named_buffers())
    assert len(expected) == 2
    for name, buffer in model.named_buffers():
        assert torch.equal(buffer, torch.arange(buffer.shape[-1]).unsqueeze(0)), name
        assert torch.equal(buffer, expected[name]), name


def test_save_then_load_is_bit_equal(saved: Path, tmp_path: Path) -> None:
    first = XCLIPModel.from_pretrained(saved)
    first.save_pretrained(tmp_path)
    second = XCLIPModel.from_pretrained(tmp_path)
    inputs = {"pixel_values": tiny_videos(), **tiny_texts()}
    assert torch.equal(first(**inputs).logits_per_video, second(**inputs).logits_per_video)
    assert torch.equal(first(**inputs).logits_per_video, deepcopy(first)(**inputs).logits_per_video)
