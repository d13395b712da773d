"""Ways to run VideoCLIP: compiled, checkpointed, in half precision, by another attention function."""

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
    tiny_texts,
    tiny_video_clip,
    tiny_videos,
)

from kinetext import VideoCLIPModel
from kinetext.modeling.configuration_video_clip import TEMPORAL_POOLINGS

LABELS = torch.tensor([2, 0])


@pytest.fixture(autouse=True)
def _fresh_compiler() -> Iterator[None]:
    yield
    torch._dynamo.reset()


def small_model(pooling: str) -> VideoCLIPModel:
    """One layer each, because compiling takes its time per layer."""
    one = {"num_hidden_layers": 1}
    return tiny_video_clip(pooling, text_config=one, vision_config=one, temporal_num_layers=1)


def ragged_inputs() -> dict[str, Any]:
    mask = torch.ones(2, 8, dtype=torch.long)
    mask[0, 5:] = 0
    return {"pixel_values": tiny_videos(), "frame_mask": mask, "labels": LABELS, **tiny_texts()}


@pytest.mark.parametrize("pooling", TEMPORAL_POOLINGS)
@pytest.mark.parametrize("call", ["ragged", "text_bank", "other length"])
def test_compiled_forward_has_no_graph_break_and_equals_eager(pooling: str, call: str) -> None:
    model = small_model(pooling)
    inputs = {
        "ragged": ragged_inputs(),
        "text_bank": {"pixel_values": tiny_videos(), "text_bank": model.encode_texts(**tiny_texts())},
        "other length": {"pixel_values": tiny_videos(2, 5), **tiny_texts()},
    }[call]
    expected = model(**inputs)
    got = torch.compile(model, fullgraph=True, backend="eager")(**inputs)
    for name, value in expected.items():
        assert largest_difference(got[name], value) <= 1e-5, name


@pytest.mark.parametrize("pooling", ["transformer", "joint"])
def test_compiled_training_step_equals_eager(pooling: str) -> None:
    model = small_model(pooling).train()
    model(**ragged_inputs()).loss.backward()
    expected = gradients(model)
    model.zero_grad()
    torch.compile(model, fullgraph=True, backend="aot_eager")(**ragged_inputs()).loss.backward()
    assert_equal_gradients(expected, gradients(model))


def test_compiled_model_refuses_the_bank_of_other_text_weights() -> None:
    model = small_model("mean")
    bank = model.encode_texts(**tiny_texts())
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    assert compiled(pixel_values=tiny_videos(), text_bank=bank).logits_per_video.shape == (2, 3)
    with pytest.raises(Exception, match="this TextBank was made by text weights 000000000000"):
        wrong = dataclasses.replace(bank, text_fingerprint="0" * 64)
        compiled(pixel_values=tiny_videos(), text_bank=wrong)


@pytest.mark.parametrize("use_reentrant", [False, True])
@pytest.mark.parametrize(("pooling", "blocks"), [("mean", 5), ("transformer", 7), ("joint", 5)])
def test_gradient_checkpointing_changes_no_gradient(pooling: str, blocks: int, use_reentrant: bool) -> None:
    model = tiny_video_clip(pooling).train()
    loss = model(**ragged_inputs()).loss
    loss.backward()
    expected = gradients(model)
    model.zero_grad()
    model.activation_checkpointing_enable({"use_reentrant": use_reentrant})
    calls = []
    for module in model.modules():
        if type(module).__name__ == "CLIPAttention":
            module.register_forward_hook(lambda *_: calls.append(1))
    checkpointed = model(**ragged_inputs()).loss
    checkpointed.backward()
    assert len(calls) == 2 * blocks, "every block runs again in the backward pass"
    assert largest_difference(loss, checkpointed) == 0
    assert_equal_gradients(expected, gradients(model))


@pytest.mark.parametrize("pooling", TEMPORAL_POOLINGS)
def test_sdpa_equals_eager_also_when_switched_later(pooling: str) -> None:
    fused, eager = (tiny_video_clip(pooling, attn_implementation=name) for name in ("sdpa", "eager"))
    switched = tiny_video_clip(pooling, attn_implementation="sdpa")
    switched.set_attn_implementation("eager")
    seen = []
    for module in switched.modules():
        if type(module).__name__ == "CLIPAttention":
            module.register_forward_hook(lambda _, __, output: seen.append(output[1] is not None))
    outputs = [model(**ragged_inputs()) for model in (fused, eager, switched)]
    assert seen and all(seen), "eager attention shows its weights, in every block"
    for output in outputs[1:]:
        assert largest_difference(output.logits_per_video, outputs[0].logits_per_video) <= 1e-5


@pytest.mark.parametrize("pooling", TEMPORAL_POOLINGS)
@pytest.mark.parametrize("how", ["weights", "autocast"])
def test_bf16_is_near_fp32(pooling: str, how: str) -> None:
    model = tiny_video_clip(pooling)
    expected = model(**ragged_inputs())
    if how == "weights":
        got = model.bfloat16()(**ragged_inputs())
        assert got.logits_per_video.dtype == torch.bfloat16
    else:
        with torch.autocast("cpu", torch.bfloat16):
            got = model(**ragged_inputs())
    got.loss.backward()
    scale = expected.logits_per_video.abs().max().item()
    assert largest_difference(got.logits_per_video, expected.logits_per_video) <= 0.05 * scale
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters() if p.requires_grad)
