"""No gradient reaches CLIP's towers, and every other parameter gets one, whatever the configuration."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from testing_utils import (
    largest_difference,
    tiny_clip_config,
    tiny_descriptions,
    tiny_moted,
    tiny_texts,
    tiny_videos,
)
from transformers import AutoModel

from kinetext import MotedModel

TOWERS = ("text_model", "vision_model", "visual_projection", "text_projection")
LABELS = torch.tensor([2, 0])


def inputs() -> dict[str, torch.Tensor]:
    return {"pixel_values": tiny_videos(), "labels": LABELS, **tiny_texts(), **tiny_descriptions(missing=[(1, 2)])}


def in_tower(name: str) -> bool:
    return name.partition(".")[0] in TOWERS


def loaded(path: Path) -> MotedModel:
    tiny_moted().save_pretrained(path)
    return MotedModel.from_pretrained(path)


def auto_loaded(path: Path) -> Any:
    tiny_moted().save_pretrained(path)
    return AutoModel.from_pretrained(path)


def loaded_with_report(path: Path) -> MotedModel:
    tiny_moted().save_pretrained(path)
    return MotedModel.from_pretrained(path, output_loading_info=True)[0]


WAYS: dict[str, Callable[[Path], MotedModel]] = {
    "built": lambda _: tiny_moted(),
    "from_clip": lambda _: MotedModel.from_clip(tiny_clip_config()),
    "from_pretrained": loaded,
    "with report": loaded_with_report,
    "AutoModel": auto_loaded,
    "copied": lambda _: deepcopy(tiny_moted()),
    "trained": lambda _: tiny_moted().train(),
    "everything unfrozen": lambda _: tiny_moted().train().requires_grad_(True),
    "eager": lambda _: tiny_moted(attn_implementation="eager").train(),
}


@pytest.mark.parametrize("way", WAYS)
def test_no_parameter_of_a_tower_gets_a_gradient_and_every_other_does(way: str, tmp_path: Path) -> None:
    model = WAYS[way](tmp_path)
    if way != "everything unfrozen":
        trainable = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
        assert trainable == model.new_parameter_names() | {"logit_scale"}
    model(**inputs()).loss.backward()
    for name, parameter in model.named_parameters():
        assert (parameter.grad is None) == in_tower(name), name
    assert sum(map(in_tower, dict(model.named_parameters()))) > 50


@pytest.mark.parametrize("is_unfrozen", [False, True])
def test_towers_store_nothing_for_a_backward_pass(is_unfrozen: bool) -> None:
    model = tiny_moted().train()
    if is_unfrozen:
        model.requires_grad_(True)
    inside, stored, ran = [], [], set()

    def watch(name: str, module: torch.nn.Module) -> None:
        def left(_: Any, __: Any, output: Any) -> None:
            ran.add(name)
            inside.pop()
            tensor = output[0] if isinstance(output, (tuple, list)) else getattr(output, "last_hidden_state", output)
            assert tensor.grad_fn is None and not tensor.requires_grad, name

        module.register_forward_pre_hook(lambda *_: inside.append(name))
        module.register_forward_hook(left)

    for name, module in model.named_modules():
        if name and in_tower(name):
            watch(name, module)

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        if inside:
            stored.append((inside[-1], tuple(tensor.shape)))
        return tensor

    outside = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: (outside.append(1), pack(t))[1], lambda t: t):
        model(**inputs())
    assert stored == [] and outside
    assert {"vision_model.encoder.layers.2.mlp.fc1", "visual_projection", "text_model.encoder.layers.0"} <= ran


def test_features_of_unfrozen_towers_have_no_gradient_either() -> None:
    model = tiny_moted().train().requires_grad_(True)
    assert not model.get_text_features(**tiny_texts()).pooler_output.requires_grad
    assert model.get_motion_features(tiny_videos()).pooler_output.requires_grad
    model.get_video_features(tiny_videos()).pooler_output.sum().backward()
    assert all(parameter.grad is None for name, parameter in model.named_parameters() if in_tower(name))


def test_no_gradient_reaches_the_pixels_through_the_image_tower() -> None:
    model = tiny_moted()
    model.motion_encoder.stem.requires_grad_(False)
    videos = tiny_videos().requires_grad_()
    model(**{**inputs(), "pixel_values": videos}).loss.backward()
    assert (videos.grad != 0).any(), "the stem reads them too"
    model.zero_grad()
    videos.grad = None
    frames, _ = model._encode_videos(videos)
    assert frames.grad_fn is None


def test_weights_of_the_towers_do_not_change_in_training() -> None:
    model = tiny_moted().train()
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.1)
    for _ in range(2):
        optimiser.zero_grad()
        model(**inputs()).loss.backward()
        optimiser.step()
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, before[name]) == in_tower(name), name


def test_serial_adapters_learn_through_frozen_weights() -> None:
    model = tiny_moted(motion_encoder="serial").train()
    model(**inputs()).loss.backward()
    for name, parameter in model.named_parameters():
        assert (parameter.grad is None) == in_tower(name), name


def test_towers_stay_in_evaluation_mode() -> None:
    clip = tiny_clip_config()
    clip.text_config.attention_dropout = clip.vision_config.attention_dropout = 0.5
    torch.manual_seed(0)
    model = MotedModel.from_clip(clip)
    expected = model.eval()(**inputs())
    for mode in (True, False, True):
        assert model.train(mode) is model
        for name, module in model.named_modules():
            assert module.training == (mode and not in_tower(name)), name
    output = model(**inputs())
    for name, value in expected.items():
        assert torch.equal(output[name], value), f"{name}: dropout of a tower acts"


# Every setting trains, so DistributedDataParallel needs no search for unused parameters

SETTINGS = [
    *(
        {"motion_encoder": encoder, "use_text_adapter": adapter, "fuse_text": text, "fuse_video": video}
        for encoder, adapter, text, video in itertools.product(
            ("parallel", "serial", "none"), (True, False), (True, False), (True, False)
        )
    ),
    {"use_conceptual": False},
    {"use_discriminative": False},
    {"use_conceptual": False, "use_discriminative": False},
    {"motion_max_key_tokens": 5},
    {"motion_max_key_tokens": 1},
]


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: " ".join(map(str, setting.values())))
def test_every_trainable_parameter_gets_a_gradient_at_every_step(setting: dict[str, Any]) -> None:
    torch.manual_seed(0)
    heads = {"motion_num_attention_heads": 3, "joint_num_attention_heads": 2}
    model = MotedModel.from_clip(tiny_clip_config(), **heads, **setting).train()
    trainable = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    optimiser = torch.optim.AdamW(trainable.values(), lr=1e-2)
    for _ in range(3):
        optimiser.zero_grad()
        model(**inputs()).loss.backward()
        for name, parameter in trainable.items():
            assert parameter.grad is not None and parameter.grad.isfinite().all(), name
        optimiser.step()
    # Softmax does not feel what all keys share, and over a single key it feels nothing.
    is_single = not model.config.use_discriminative
    for name, parameter in trainable.items():
        feels_nothing = name.endswith("k_proj.bias")
        feels_nothing |= is_single and name.startswith("text_") and ("q_proj" in name or "k_proj" in name)
        feels_nothing |= is_single and name.startswith("text_fusion.query_layernorm")
        if setting.get("motion_max_key_tokens") == 1:
            feels_nothing |= "local_motion.q_proj" in name or "local_motion.k_proj" in name
        if not feels_nothing:
            assert (parameter.grad != 0).any(), f"{name} has not opened up after two steps"


# The way around, for explanations


def test_gradients_pass_through_the_towers_on_request_only() -> None:
    model = tiny_moted()
    seen = {}
    for name in ("vision_model.encoder.layers.0.mlp", "text_model.encoder.layers.0.mlp"):
        module = model.get_submodule(name)
        module.register_forward_hook(lambda _, __, output, name=name: seen.update({name: output}))
    videos = tiny_videos().requires_grad_()
    texts = {**tiny_texts(), **tiny_descriptions()}
    with model.gradients_through_towers():
        model.requires_grad_(True)
        logits = model(pixel_values=videos, **texts).logits_per_video
        for output in seen.values():
            output.retain_grad()
        logits[0, 0].backward()
        assert all((output.grad != 0).any() for output in seen.values()) and len(seen) == 2
        with torch.no_grad():
            assert not model(pixel_values=videos, **texts).logits_per_video.requires_grad
    expected = model(pixel_values=videos, **texts).logits_per_video
    assert largest_difference(logits, expected) <= 1e-6
    assert all(output.grad_fn is None for output in seen.values())
    with pytest.raises(ZeroDivisionError), model.gradients_through_towers():
        _ = 1 / 0
    model(pixel_values=videos, **texts)
    assert all(output.grad_fn is None for output in seen.values()), "also after an error"
