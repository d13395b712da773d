"""VideoCLIP on top of a CLIP: copied towers, initial values of what is new, files."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from testing_utils import tiny_clip, tiny_clip_config, tiny_texts, tiny_video_clip, tiny_videos
from transformers import AutoModel, CLIPModel

from kinetext import VideoCLIPModel
from kinetext.modeling.configuration_video_clip import TEMPORAL_POOLINGS


def assert_starts(name: str, tensor: torch.Tensor) -> None:
    """Joint positions and biases 0, norms as such, the rest normal with 0.02 (Text4Vis)."""
    if "layer_norm" in name:
        assert (tensor == float(name.endswith("weight"))).all(), name
    elif name.endswith("bias") or name == "joint_position_embedding":
        assert (tensor == 0).all(), name
    else:
        deviation = tensor.square().mean().sqrt().item()
        assert abs(deviation / 0.02 - 1) <= 6 / (2 * tensor.numel()) ** 0.5, (name, deviation)


def from_clip(pooling: str, clip: object = None) -> VideoCLIPModel:
    num_frames = 1 if pooling == "one_frame" else 8
    return VideoCLIPModel.from_clip(clip or tiny_clip(), num_frames=num_frames, temporal_pooling=pooling)


@pytest.mark.parametrize("pooling", TEMPORAL_POOLINGS)
def test_from_clip_copies_the_towers_and_starts_the_rest(pooling: str, tmp_path: Path) -> None:
    clip = tiny_clip()
    clip.save_pretrained(tmp_path)
    for source in (clip, tmp_path, str(tmp_path)):
        model = from_clip(pooling, source)
        ours = dict(model.named_parameters())
        for name, parameter in clip.named_parameters():
            assert torch.equal(ours.pop(name), parameter), name
        assert set(ours) == model.new_parameter_names()
        assert bool(ours) == (pooling in ("transformer", "joint"))
        for name, parameter in ours.items():
            assert_starts(name, parameter.detach())
        assert not {p.data_ptr() for p in model.parameters()} & {p.data_ptr() for p in clip.parameters()}


def test_transformer_has_six_layers_of_text_width_over_64_heads() -> None:
    header = from_clip("transformer").temporal_transformer
    assert len(header.encoder.layers) == 6 and header.encoder.layers[0].self_attn.num_heads == 1
    assert header.position_embedding.weight.shape == (77, 32)
    norms = [norm for layer in header.encoder.layers for norm in (layer.layer_norm1, layer.layer_norm2)]
    assert {norm.eps for norm in norms} == {1e-12}


def test_start_of_the_transformer_does_not_depend_on_that_of_the_towers() -> None:
    config = tiny_clip_config()
    config.vision_config.initializer_range = 0.5
    model = from_clip("transformer", config)
    for name in model.new_parameter_names():
        assert_starts(name, model.get_parameter(name).detach())


def test_from_clip_config_gives_random_weights_like_clips() -> None:
    torch.manual_seed(0)
    clip = dict(CLIPModel(tiny_clip_config()).named_parameters())
    model = from_clip("joint", tiny_clip_config())
    for name, parameter in model.named_parameters():
        if name in clip and parameter.numel() > 500:
            ratio = parameter.std().item() / clip[name].std().item()
            assert 0.8 < ratio < 1.25, (name, ratio)
    assert model.logit_scale.item() == pytest.approx(2.6592)


@pytest.mark.parametrize("pooling", TEMPORAL_POOLINGS)
def test_saved_model_loads_equal(pooling: str, tmp_path: Path) -> None:
    model = tiny_video_clip(pooling)
    model.save_pretrained(tmp_path)
    assert set(load_file(tmp_path / "model.safetensors")) == {name for name, _ in model.named_parameters()}
    inputs = {"pixel_values": tiny_videos(), **tiny_texts()}
    expected = model(**inputs)
    for loaded in (VideoCLIPModel.from_pretrained(tmp_path), AutoModel.from_pretrained(tmp_path)):
        assert type(loaded) is VideoCLIPModel
        output = loaded(**inputs)
        assert all(torch.equal(output[name], value) for name, value in expected.items())
        assert all(torch.equal(loaded.get_buffer(name), buffer) for name, buffer in model.named_buffers())


@pytest.mark.parametrize("pooling", ["mean", "transformer", "joint"])
def test_keys_of_the_towers_are_clips(pooling: str) -> None:
    model = tiny_video_clip(pooling)
    assert set(model.state_dict()) - model.new_parameter_names() == set(tiny_clip().state_dict())


@pytest.mark.parametrize(
    ("pooling", "name"),
    [
        ("mean", "logit_scale"),
        ("mean", "visual_projection.weight"),
        ("transformer", "temporal_transformer.position_embedding.weight"),
        ("transformer", "temporal_transformer.encoder.layers.1.self_attn.q_proj.weight"),
        ("transformer", "temporal_transformer.encoder.layers.0.mlp.fc2.bias"),
        ("transformer", "temporal_transformer.encoder.layers.0.layer_norm1.weight"),
        ("joint", "joint_position_embedding"),
    ],
)
def test_one_missing_key_is_started_and_no_other_touched(pooling: str, name: str, tmp_path: Path) -> None:
    tiny_video_clip(pooling).save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    del weights[name]
    save_file(weights, tmp_path / "model.safetensors", {"format": "pt"})
    loaded = VideoCLIPModel.from_pretrained(tmp_path).state_dict()
    started = loaded.pop(name)
    if name == "logit_scale":
        assert started.item() == pytest.approx(2.6592)
    elif name == "visual_projection.weight":
        assert started.std().item() == pytest.approx(48**-0.5, rel=0.15)
    else:
        assert_starts(name, started)
    assert all(torch.equal(tensor, weights[key]) for key, tensor in loaded.items())
