"""Ways to run MoTED: compiled, checkpointed, in half precision, by another attention function."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from testing_utils import (
    assert_equal_gradients,
    gradients,
    largest_difference,
    tiny_descriptions,
    tiny_moted,
    tiny_texts,
    tiny_videos,
)

from kinetext import MotedModel

LABELS = torch.tensor([2, 0])


@pytest.fixture(autouse=True)
def _fresh_compiler() -> Iterator[None]:
    yield
    torch._dynamo.reset()


def small_model(**overrides: Any) -> MotedModel:
    """One layer of each tower, because compiling takes its time per layer; keys are merged."""
    config = {"text_config": {"num_hidden_layers": 1}, "vision_config": {"num_hidden_layers": 1}}
    return tiny_moted(**{**config, "motion_max_key_tokens": 6, **overrides})


def class_texts() -> dict[str, torch.Tensor]:
    return {**tiny_texts(), **tiny_descriptions(missing=[(0, 2), (2, 1)])}


# Compiled


@pytest.mark.parametrize(
    ("call", "setting"),
    [
        ("tokens", {}),
        ("text_bank", {}),
        ("text_bank", {"motion_encoder": "serial"}),
        ("names only", {"motion_encoder": "none"}),
        ("other length", {"use_text_adapter": False, "fuse_text": False, "fuse_video": False}),
    ],
)
def test_compiled_forward_has_no_graph_break_and_equals_eager(call: str, setting: dict[str, Any]) -> None:
    model = small_model(**setting)
    inputs: dict[str, Any] = {"pixel_values": tiny_videos(2, 6 if call == "other length" else 8)}
    if call == "text_bank":
        inputs["text_bank"] = model.encode_texts(**class_texts())
    else:
        inputs |= tiny_texts() if call == "names only" else class_texts()
    expected = model(**inputs)
    got = torch.compile(model, fullgraph=True, backend="eager")(**inputs)
    for name, value in expected.items():
        assert largest_difference(got[name], value) <= 1e-5, name


def test_compiled_training_step_with_a_bank_equals_eager() -> None:
    model = small_model().train()
    inputs = {"pixel_values": tiny_videos(), "labels": LABELS, "text_bank": model.encode_texts(**class_texts())}
    loss = model(**inputs).loss
    loss.backward()
    expected = gradients(model)
    model.zero_grad()
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")(**inputs).loss
    compiled.backward()
    assert largest_difference(loss, compiled) <= 1e-5
    assert_equal_gradients(expected, gradients(model))


def test_compiled_model_refuses_the_bank_of_other_text_weights_and_takes_other_classes() -> None:
    model = small_model()
    bank = model.encode_texts(**class_texts())
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    assert compiled(pixel_values=tiny_videos(), text_bank=bank).logits_per_video.shape == (2, 3)
    wrong = dataclasses.replace(bank, text_fingerprint="0" * 64)
    with pytest.raises(Exception, match="this TextBank was made by text weights 000000000000"):
        compiled(pixel_values=tiny_videos(), text_bank=wrong)
    others = model.encode_texts(**tiny_texts(5), **tiny_descriptions(5, count=2))
    expected = model(pixel_values=tiny_videos(), text_bank=others)
    got = compiled(pixel_values=tiny_videos(), text_bank=others)
    assert largest_difference(got.logits_per_video, expected.logits_per_video) <= 1e-5
    assert largest_difference(got.motion_logits_per_video, expected.motion_logits_per_video) <= 1e-5


# Checkpointed


@pytest.mark.parametrize("use_reentrant", [False, True])
@pytest.mark.parametrize("motion_encoder", ["parallel", "serial"])
def test_gradient_checkpointing_changes_no_gradient(motion_encoder: str, use_reentrant: bool) -> None:
    model = tiny_moted(motion_encoder=motion_encoder, motion_max_key_tokens=6).train()
    inputs = {"pixel_values": tiny_videos(), "labels": LABELS, **class_texts()}
    loss = model(**inputs).loss
    loss.backward()
    expected = gradients(model)
    model.zero_grad()
    model.activation_checkpointing_enable({"use_reentrant": use_reentrant})
    calls = []
    blocks = [module for module in model.modules() if type(module).__name__ == "MotedTemporalBlock"]
    for block in blocks:
        block.local_motion.register_forward_hook(lambda *_: calls.append(1))
    checkpointed = model(**inputs).loss
    checkpointed.backward()
    assert len(blocks) == 3 and len(calls) == 2 * len(blocks), "every block runs again in the backward pass"
    assert largest_difference(loss, checkpointed) == 0
    assert_equal_gradients(expected, gradients(model))


# Attention functions


@pytest.mark.parametrize("motion_encoder", ["parallel", "serial"])
@pytest.mark.parametrize("cap", [1568, 6])
def test_sdpa_equals_eager(cap: int, motion_encoder: str) -> None:
    settings: dict[str, Any] = {"motion_encoder": motion_encoder, "motion_max_key_tokens": cap}
    inputs = {"pixel_values": tiny_videos(), "labels": LABELS, **class_texts()}
    outputs, grads = [], []
    for implementation in ("sdpa", "eager"):
        model = tiny_moted(attn_implementation=implementation, **settings)
        assert model.config._attn_implementation == implementation
        outputs.append(model(**inputs))
        outputs[-1].loss.backward()
        grads.append(gradients(model))
    for name, value in outputs[0].items():
        assert largest_difference(outputs[1][name], value) <= 1e-5, name
    assert_equal_gradients(*grads)


def test_eager_attention_shows_its_weights() -> None:
    model = tiny_moted(attn_implementation="eager", motion_max_key_tokens=6)
    seen: list[Any] = []
    model.motion_encoder.blocks[2].local_motion.register_forward_hook(lambda _, __, output: seen.append(output))
    model.motion_encoder.blocks[2].integration.register_forward_hook(lambda _, __, output: seen.append(output))
    model(pixel_values=tiny_videos(), **class_texts())
    (_, weights, merged_into), (_, integration) = seen
    assert weights.shape == (2, 3, 16, 6) and merged_into.shape == (2, 16) and integration.shape == (2, 3, 16, 4)
    for attention in (weights, integration):
        assert largest_difference(attention.sum(dim=-1), torch.ones(attention.shape[:-1])) <= 1e-5


@pytest.mark.parametrize("implementation", ["flash_attention_2", "flex_attention"])
def test_attention_functions_without_a_bias_on_keys_are_refused(implementation: str) -> None:
    with pytest.raises(Exception, match="does not support"):
        tiny_moted(attn_implementation=implementation)


# Half precision


@pytest.mark.parametrize("how", ["weights", "autocast"])
@pytest.mark.parametrize("motion_encoder", ["parallel", "serial"])
def test_bf16_is_near_fp32(motion_encoder: str, how: str) -> None:
    model = tiny_moted(motion_encoder=motion_encoder)
    inputs = {"pixel_values": tiny_videos(), "labels": LABELS, **class_texts()}
    expected = model(**inputs)
    if how == "weights":
        got = model.bfloat16()(**inputs)
        assert got.logits_per_video.dtype == torch.bfloat16
    else:
        with torch.autocast("cpu", torch.bfloat16):
            got = model(**inputs)
    got.loss.backward()
    for name in ("video_logits_per_video", "motion_logits_per_video"):
        scale = expected[name].abs().max().item()
        assert largest_difference(got[name], expected[name]) <= 0.05 * max(scale, 1), name
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in trained)


@pytest.mark.parametrize("how", ["weights", "autocast"])
def test_bf16_with_merged_keys_is_finite(how: str) -> None:
    model = tiny_moted(motion_max_key_tokens=3).train()
    if how == "weights":
        model.bfloat16()
    with torch.autocast("cpu", torch.bfloat16, enabled=how == "autocast"):
        output = model(pixel_values=tiny_videos(), labels=LABELS, **class_texts())
    output.loss.backward()
    assert output.loss.isfinite()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.requires_grad)


def test_black_clip_is_finite_in_every_precision() -> None:
    """All patches of a frame are equal, so ties decide which tokens are merged."""
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        model = tiny_moted(motion_max_key_tokens=2).to(dtype)
        output = model(pixel_values=torch.zeros(1, 8, 3, 32, 32), **class_texts())
        assert all(value.isfinite().all() for value in output.values()), dtype
