"""MoTED on top of a CLIP: the start is frozen CLIP, whatever the descriptions; initial values; files."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from testing_utils import (
    largest_difference,
    tiny_clip,
    tiny_clip_config,
    tiny_config,
    tiny_descriptions,
    tiny_moted,
    tiny_texts,
    tiny_videos,
)
from torch import nn
from torch.nn import functional
from transformers import AutoModel, CLIPConfig, CLIPModel

from kinetext import MotedModel

SWITCHES = ("use_conceptual", "use_discriminative", "use_text_adapter", "fuse_text", "fuse_video")


def zero_shot_logits(clip: CLIPModel, sparse_frames: torch.Tensor, texts: dict[str, torch.Tensor]) -> torch.Tensor:
    """Logits (B, N) of frozen CLIP: features of frames (B, T, 3, H, W), averaged, against those of class names."""
    size = clip.config.vision_config.image_size
    with torch.no_grad():
        frames = clip.get_image_features(
            sparse_frames.flatten(0, 1), interpolate_pos_encoding=sparse_frames.shape[-1] != size
        )
        videos = frames.pooler_output.unflatten(0, sparse_frames.shape[:2]).mean(dim=1)
        names = clip.get_text_features(**texts).pooler_output
        return clip.logit_scale.exp() * functional.cosine_similarity(videos[:, None], names[None], dim=-1)


# The start is frozen CLIP


@pytest.mark.parametrize("off", [(), *[(name,) for name in SWITCHES], SWITCHES[:2], SWITCHES], ids=str)
@pytest.mark.parametrize("motion_encoder", ["parallel", "serial", "none"])
def test_video_logits_start_as_those_of_mean_pooled_clip(motion_encoder: str, off: tuple[str, ...]) -> None:
    clip = tiny_clip()
    switches = dict.fromkeys(off, False)
    model = MotedModel.from_clip(clip, num_frames=4, motion_encoder=motion_encoder, **switches).eval()
    videos, texts = tiny_videos(2, 8), tiny_texts()
    expected = zero_shot_logits(clip, videos[:, ::2], texts)
    assert expected.std() > 0.1
    for descriptions in (tiny_descriptions(), tiny_descriptions(count=2), tiny_descriptions(missing=[(0, 2), (1, 3)])):
        logits = model(pixel_values=videos, **texts, **descriptions).logits_per_video
        assert largest_difference(logits, expected) <= 1e-5
    if model.config.uses_descriptions:
        assert largest_difference(model(pixel_values=videos, **texts).logits_per_video, expected) <= 1e-5


OTHER_SIZES = {
    "patches of 8": CLIPConfig(
        text_config={
            "hidden_size": 24,
            "intermediate_size": 36,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "vocab_size": 99,
            "max_position_embeddings": 16,
            "eos_token_id": 98,
        },
        vision_config={
            "hidden_size": 30,
            "intermediate_size": 44,
            "num_hidden_layers": 2,
            "num_attention_heads": 3,
            "image_size": 24,
            "patch_size": 8,
        },
        projection_dim=20,
    ),
    "several heads": CLIPConfig(
        text_config={
            "hidden_size": 64,
            "intermediate_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "vocab_size": 99,
            "max_position_embeddings": 16,
            "eos_token_id": 98,
            "hidden_act": "gelu",
        },
        vision_config={
            "hidden_size": 256,
            "intermediate_size": 64,
            "num_hidden_layers": 1,
            "num_attention_heads": 4,
            "image_size": 16,
            "patch_size": 4,
            "layer_norm_eps": 1e-3,
        },
        projection_dim=128,
        logit_scale_init_value=4.0,
    ),
}


@pytest.mark.parametrize("name", OTHER_SIZES)
@pytest.mark.parametrize(("ratio", "num_frames"), [(1, 3), (2, 1), (3, 2)])
def test_any_clip_and_any_frame_ratio_start_as_frozen_clip(name: str, ratio: int, num_frames: int) -> None:
    clip = tiny_clip(OTHER_SIZES[name])
    model = MotedModel.from_clip(clip, num_frames=8, motion_frame_ratio=ratio, motion_max_key_tokens=5).eval()
    videos = tiny_videos(2, ratio * num_frames, size=clip.config.vision_config.image_size)
    logits = model(pixel_values=videos, **tiny_texts(), **tiny_descriptions()).logits_per_video
    expected = zero_shot_logits(clip, videos[:, ::ratio], tiny_texts())
    assert largest_difference(logits, expected) <= 1e-5 * clip.logit_scale.exp().item()


def test_other_image_sizes_start_as_clip_with_interpolated_positions() -> None:
    clip = tiny_clip()
    model = MotedModel.from_clip(clip).eval()
    videos = tiny_videos(1, 4, size=48)
    logits = model(pixel_values=videos, **tiny_texts()).logits_per_video
    assert largest_difference(logits, zero_shot_logits(clip, videos[:, ::2], tiny_texts())) <= 1e-5


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.bfloat16, 0.05), (torch.float16, 0.01)])
def test_half_precision_starts_near_clip_in_full_precision(dtype: torch.dtype, tolerance: float) -> None:
    clip = tiny_clip()
    expected = zero_shot_logits(clip, tiny_videos()[:, ::2], tiny_texts())
    model = MotedModel.from_clip(clip.to(dtype)).eval()
    assert {parameter.dtype for parameter in model.parameters()} == {dtype}
    output = model(pixel_values=tiny_videos().to(dtype), **tiny_texts(), **tiny_descriptions(missing=[(0, 1)]))
    assert output.logits_per_video.dtype == dtype and output.motion_logits_per_video.isfinite().all()
    assert largest_difference(output.logits_per_video, expected) <= tolerance * clip.logit_scale.exp().item()


def test_trained_video_logits_are_no_longer_those_of_clip() -> None:
    """So that the equalities above are not those of a model that never looks at motion and descriptions."""
    inputs = {"pixel_values": tiny_videos(), **tiny_texts()}
    model = tiny_moted()
    logits = model(**inputs, **tiny_descriptions()).logits_per_video
    assert largest_difference(logits, model(**inputs, **tiny_descriptions(count=3)).logits_per_video) > 1e-3
    later = inputs["pixel_values"].clone()
    later[:, 1::2] += 1  # frames that only the motion encoder sees
    assert largest_difference(logits, model(pixel_values=later, **tiny_texts(), **tiny_descriptions()).logits_per_video)


# Initial values


def assert_starts(name: str, tensor: torch.Tensor) -> None:
    """Norms as such, fusions and what leaves a serial adapter at 0, stem 0.02, positions waves, the rest Xavier."""
    assert tensor.isfinite().all(), name
    starts_at_zero = re.match(r"(text_adapter|text_fusion|video_fusion)\.attention\.out_proj\.weight", name)
    if "layernorm" in name:
        assert (tensor == float(name.endswith("weight"))).all(), name
    elif name.endswith("bias") or "up_projection" in name or starts_at_zero:
        assert (tensor == 0).all(), name
    else:
        if "position_embedding" in name:  # sine and cosine of every period, from 0 on, no two places alike
            places = tensor[0]
            assert (places.square().sum(dim=1) - tensor.shape[-1] / 2).abs().max() < 1e-4, name
            assert set(places[0].tolist()) == {0.0, 1.0} and len(places.unique(dim=0)) == len(places), name
            return
        if "stem" in name:
            deviation = 0.02
        else:
            bound = math.sqrt(6 / sum(tensor.shape))
            deviation = bound / math.sqrt(3)
            assert tensor.abs().max() <= bound * (1 + 1e-6), name
        measured = tensor.square().mean().sqrt().item()
        assert abs(measured / deviation - 1) <= 6 / math.sqrt(2 * tensor.numel()), (name, measured, deviation)
        assert tensor.unique().numel() > 0.9 * tensor.numel(), name


def assert_is_built_on(model: MotedModel, clip: CLIPModel) -> None:
    ours = dict(model.named_parameters())
    for name, parameter in clip.named_parameters():
        assert torch.equal(ours.pop(name), parameter), name
    assert set(ours) == model.new_parameter_names() and ours
    for name, parameter in ours.items():
        assert_starts(name, parameter.detach())


@pytest.mark.parametrize("motion_encoder", ["parallel", "serial", "none"])
def test_from_clip_model_copies_the_towers_and_starts_the_rest(motion_encoder: str) -> None:
    clip = tiny_clip()
    model = MotedModel.from_clip(clip, motion_encoder=motion_encoder)
    assert_is_built_on(model, clip)
    assert not {p.data_ptr() for p in model.parameters()} & {p.data_ptr() for p in clip.parameters()}


def test_from_clip_folder_equals_from_the_model_saved_there(tmp_path: Path) -> None:
    clip = tiny_clip()
    clip.save_pretrained(tmp_path)
    for folder in (tmp_path, str(tmp_path)):
        assert_is_built_on(MotedModel.from_clip(folder), clip)


def test_from_clip_config_gives_random_weights() -> None:
    model = MotedModel.from_clip(tiny_clip_config(), num_frames=5, inference_logits="sum")
    for name in model.new_parameter_names():
        assert_starts(name, model.get_parameter(name).detach())
    assert model.motion_encoder.temporal_position_embedding.shape == (1, 5, 24)
    assert (model.config.num_frames, model.config.inference_logits) == (5, "sum")
    assert model.vision_model.encoder.layers[0].mlp.fc1.weight.std() > 0
    assert model.logit_scale.item() == pytest.approx(2.6592)


def test_from_clip_refuses_other_things() -> None:
    message = "clip must be a name, a folder, a CLIPConfig or a CLIPModel; got XCLIPConfig."
    with pytest.raises(TypeError, match=f"^{re.escape(message)}"):
        MotedModel.from_clip(tiny_config())


def test_from_clip_refuses_weights_that_are_missing_or_left_over(tmp_path: Path) -> None:
    clip = tiny_clip()
    clip.extra = nn.Linear(2, 2, bias=False)
    message = "not the weights of a CLIP of this size: missing [], left over ['extra.weight']."
    with pytest.raises(RuntimeError, match=f"^{re.escape(message)}$"):
        MotedModel.from_clip(clip)
    del clip.extra
    clip.save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    del weights["visual_projection.weight"]
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    message = "not the weights of a CLIP of this size: missing ['visual_projection.weight'], left over []."
    with pytest.raises(RuntimeError, match=f"^{re.escape(message)}$"):
        MotedModel.from_clip(tmp_path)


def test_modules_that_the_configuration_leaves_out_are_not_there() -> None:
    parts = ("motion_encoder", "motion_projection", "video_fusion", "text_adapter", "text_fusion")

    def absent(**overrides: Any) -> set[str]:
        model = tiny_moted(**overrides)
        names = {name.partition(".")[0] for name in model.new_parameter_names()}
        assert names == {part for part in parts if getattr(model, part) is not None}
        return set(parts) - names

    assert absent() == set()
    assert absent(use_text_adapter=False) == {"text_adapter"}
    assert absent(fuse_text=False) == {"text_fusion"}
    assert absent(fuse_video=False) == {"video_fusion"}
    assert absent(motion_encoder="serial") == {"motion_projection", "video_fusion"}
    assert absent(motion_encoder="none") == {"motion_encoder", "motion_projection", "video_fusion"}


# Files


@pytest.mark.parametrize("motion_encoder", ["parallel", "serial", "none"])
def test_saved_model_loads_equal(motion_encoder: str, tmp_path: Path) -> None:
    model = tiny_moted(motion_encoder=motion_encoder, inference_logits="sum", motion_max_key_tokens=9)
    model.save_pretrained(tmp_path)
    inputs = {"pixel_values": tiny_videos(), **tiny_texts(), **tiny_descriptions(missing=[(1, 1)])}
    expected = model(**inputs)
    for loaded in (MotedModel.from_pretrained(tmp_path), AutoModel.from_pretrained(tmp_path)):
        assert type(loaded) is MotedModel and not loaded.training
        output = loaded(**inputs)
        for name, value in expected.items():
            assert torch.equal(output[name], value), name
        for name, buffer in model.named_buffers():
            assert torch.equal(loaded.get_buffer(name), buffer), name


@pytest.mark.parametrize("motion_encoder", ["parallel", "serial"])
def test_a_clip_checkpoint_loads_with_all_new_modules_started(motion_encoder: str, tmp_path: Path) -> None:
    model = tiny_moted(motion_encoder=motion_encoder)
    model.save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    assert set(weights) == {name for name, _ in model.named_parameters()}
    new = model.new_parameter_names()
    rest = {name: tensor for name, tensor in weights.items() if name not in new}
    save_file(rest, tmp_path / "model.safetensors", {"format": "pt"})
    loaded, report = MotedModel.from_pretrained(tmp_path, output_loading_info=True)
    assert set(report["missing_keys"]) == new
    for name, parameter in loaded.named_parameters():
        if name in new:
            assert_starts(name, parameter.detach())
        else:
            assert torch.equal(parameter, weights[name]), name


@pytest.mark.parametrize(
    "name",
    [
        "logit_scale",
        "motion_projection.weight",
        "motion_encoder.blocks.1.local_motion.k_proj.weight",
        "motion_encoder.blocks.2.class_projection.weight",
        "motion_encoder.blocks.0.integration.out_proj.bias",
        "motion_encoder.spatial_position_embedding",
        "video_fusion.attention.out_proj.weight",
        "video_fusion.attention.q_proj.weight",
        "text_adapter.query_layernorm.weight",
    ],
)
def test_one_missing_key_is_started_and_no_other_touched(name: str, tmp_path: Path) -> None:
    model = tiny_moted()
    model.save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    del weights[name]
    save_file(weights, tmp_path / "model.safetensors", {"format": "pt"})
    loaded = MotedModel.from_pretrained(tmp_path).state_dict()
    started = loaded.pop(name)
    if name == "logit_scale":
        assert started.item() == pytest.approx(2.6592)
    else:
        assert_starts(name, started)
    assert all(torch.equal(tensor, weights[key]) for key, tensor in loaded.items())
