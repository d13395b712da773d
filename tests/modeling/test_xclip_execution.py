"""Ways to run the model: compiled, checkpointed, in half precision, with drop path."""

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
    tiny_config,
    tiny_model,
    tiny_texts,
    tiny_videos,
)
from torch import nn

from kinetext import XCLIPModel

LABELS = torch.tensor([2, 0])


@pytest.fixture(autouse=True)
def _fresh_compiler() -> Iterator[None]:
    yield
    torch._dynamo.reset()


def frame_mask() -> torch.Tensor:
    mask = torch.ones(2, 8, dtype=torch.long)
    mask[0, 5:] = 0
    return mask


def small_model(**options: Any) -> XCLIPModel:
    """Two vision layers and one of the rest, because compiling takes its time per layer."""
    one = {"num_hidden_layers": 1}
    return tiny_model(text=one, vision={"num_hidden_layers": 2, **options}, prompt_layers=1)


CALLS = ["input_ids", "text_bank", "frame_mask", "labels", "other length"]


def inputs_of(call: str, model: XCLIPModel) -> dict[str, Any]:
    inputs: dict[str, Any] = {"pixel_values": tiny_videos(2, 5 if call == "other length" else 8)}
    if call == "text_bank":
        return {**inputs, "text_bank": model.encode_texts(**tiny_texts())}
    if call == "frame_mask":
        inputs["frame_mask"] = frame_mask()
    if call == "labels":
        inputs["labels"] = LABELS
    return {**inputs, **tiny_texts()}


@pytest.mark.parametrize("call", CALLS)
def test_compiled_forward_has_no_graph_break_and_equals_eager(call: str) -> None:
    model = small_model()
    inputs = inputs_of(call, model)
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    expected, got = model(**inputs), compiled(**inputs)
    assert largest_difference(got.logits_per_video, expected.logits_per_video) <= 1e-5
    assert largest_difference(got.text_embeds, expected.text_embeds) <= 1e-5
    if call == "labels":
        assert largest_difference(got.loss, expected.loss) <= 1e-5


def test_compiled_training_step_equals_eager() -> None:
    model = small_model().train()
    inputs = {"pixel_values": tiny_videos(), "frame_mask": frame_mask(), "labels": LABELS, **tiny_texts()}
    model(**inputs).loss.backward()
    expected = gradients(model)
    model.zero_grad()
    torch.compile(model, fullgraph=True, backend="aot_eager")(**inputs).loss.backward()
    assert_equal_gradients(expected, gradients(model))


def test_compiled_model_refuses_the_bank_of_other_text_weights() -> None:
    model = small_model()
    bank = model.encode_texts(**tiny_texts())
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    assert compiled(pixel_values=tiny_videos(), text_bank=bank).logits_per_video.shape == (2, 3)
    wrong = dataclasses.replace(bank, text_fingerprint="0" * 64)
    with pytest.raises(Exception, match="this TextBank was made by text weights 000000000000"):
        compiled(pixel_values=tiny_videos(), text_bank=wrong)
    other_classes = model.encode_texts(**tiny_texts(5))
    expected = model(pixel_values=tiny_videos(), text_bank=other_classes).logits_per_video
    got = compiled(pixel_values=tiny_videos(), text_bank=other_classes).logits_per_video
    assert largest_difference(got, expected) <= 1e-5


@pytest.mark.parametrize("use_reentrant", [False, True])
def test_gradient_checkpointing_changes_no_gradient(use_reentrant: bool) -> None:
    model = tiny_model().train()
    inputs = {"pixel_values": tiny_videos(), "frame_mask": frame_mask(), "labels": LABELS, **tiny_texts()}
    loss = model(**inputs).loss
    loss.backward()
    expected = gradients(model)
    model.zero_grad()
    model.activation_checkpointing_enable({"use_reentrant": use_reentrant})
    calls = []
    for layer in model.vision_model.encoder.layers:
        layer.message_attn.register_forward_hook(lambda *_: calls.append(1))
    checkpointed = model(**inputs).loss
    checkpointed.backward()
    assert len(calls) == 2 * len(model.vision_model.encoder.layers), "every block runs again in the backward pass"
    assert largest_difference(loss, checkpointed) == 0
    assert_equal_gradients(expected, gradients(model))


@pytest.mark.parametrize("how", ["weights", "autocast"])
def test_bf16_is_near_fp32(model: XCLIPModel, how: str) -> None:
    inputs = {"pixel_values": tiny_videos(), "frame_mask": frame_mask(), "labels": LABELS, **tiny_texts()}
    expected = model(**inputs)
    if how == "weights":
        got = model.bfloat16()(**inputs)
        assert got.logits_per_video.dtype == torch.bfloat16
    else:
        with torch.autocast("cpu", torch.bfloat16):
            got = model(**inputs)
            bank = model.encode_texts(**tiny_texts())
            cached = model(pixel_values=inputs["pixel_values"], frame_mask=frame_mask(), text_bank=bank)
        assert largest_difference(cached.logits_per_video, got.logits_per_video) <= 1e-6
    got.loss.backward()
    scale = expected.logits_per_video.abs().max().item()
    assert largest_difference(got.logits_per_video, expected.logits_per_video) <= 0.05 * scale
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in model.parameters())


# Drop path


def drop_rates(model: XCLIPModel) -> list[float]:
    return [layer.drop_path.drop_prob for layer in model.vision_model.encoder.layers]


@pytest.mark.parametrize(
    ("num_layers", "rate", "expected"),
    [(1, 0.4, [0.0]), (2, 0.4, [0.0, 0.4]), (5, 0.4, [0.0, 0.1, 0.2, 0.3, 0.4]), (3, 0.0, [0.0, 0.0, 0.0])],
)
def test_drop_path_rises_linearly_from_zero(num_layers: int, rate: float, expected: list[float]) -> None:
    config = tiny_config(vision={"num_hidden_layers": num_layers, "drop_path_rate": rate})
    assert drop_rates(XCLIPModel(config)) == pytest.approx(expected)


def test_drop_path_acts_in_training_only() -> None:
    inputs = {"pixel_values": tiny_videos(), **tiny_texts()}
    expected = tiny_model()(**inputs).logits_per_video
    model = tiny_model(vision={"drop_path_rate": 0.5})
    assert torch.equal(model(**inputs).logits_per_video, expected)
    model.train()
    assert not torch.equal(model(**inputs).logits_per_video, expected)


class Recorder(nn.Module):
    """Stands where drop path stands, notes the shapes that pass and lets nothing through."""

    def __init__(self) -> None:
        super().__init__()
        self.shapes: list[tuple[int, ...]] = []

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        self.shapes.append(tuple(hidden_states.shape))
        return torch.zeros_like(hidden_states)


def test_drop_path_acts_on_messages_attention_and_mlp(model: XCLIPModel) -> None:
    layer = model.vision_model.encoder.layers[1]
    layer.drop_path = Recorder()
    tokens = torch.randn(2 * 8, 5, 48)
    output = layer(tokens, None, num_frames=8)
    assert layer.drop_path.shapes == [(2, 8, 48), (16, 6, 48), (16, 5, 48)]
    assert torch.equal(output, tokens), "a block whose residuals are all dropped is the identity"


def test_dropped_residuals_leave_the_block_out() -> None:
    model = tiny_model(vision={"drop_path_rate": 1 - 1e-7}).train()
    states = model.vision_model.encoder.layers
    seen: dict[str, torch.Tensor] = {}
    states[2].register_forward_hook(lambda _, args, output: seen.update(before=args[0], after=output))
    model.get_video_features(tiny_videos())
    assert torch.equal(seen["before"], seen["after"])
