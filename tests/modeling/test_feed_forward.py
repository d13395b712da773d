"""Feed-forward layers go row by row where nothing is kept for a backward pass, and nobody sees a difference."""

import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from testing_utils import tiny_model, tiny_moted, tiny_texts, tiny_video_clip, tiny_videos

MANY = 64  # videos of 8 frames of 5 tokens: more rows than go through a layer at once, also of every second frame
MAKERS = [tiny_model, tiny_moted, tiny_video_clip]


def feed_forward_layers(model: torch.nn.Module) -> list[Any]:
    return [module for name, module in model.named_modules() if name.endswith(".mlp") and "decoder" not in name]


def most_rows_at_once(model: torch.nn.Module, call: Callable[[], Any]) -> int:
    """Rows of the largest hidden activation that any feed-forward layer held during a call."""
    rows: list[int] = []
    hooks = [
        layer.activation_fn.register_forward_hook(lambda *arguments: rows.append(arguments[2].shape[:-1].numel()))
        for layer in feed_forward_layers(model)
    ]
    call()
    for hook in hooks:
        hook.remove()
    return max(rows)


@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_features_are_the_same_bit_for_bit(make: Callable[[], Any], dtype: torch.dtype) -> None:
    model = make().eval().to(dtype)
    videos = tiny_videos(MANY).to(dtype)
    whole = model.get_video_features(videos).pooler_output
    with torch.inference_mode():
        in_rows = model.get_video_features(videos).pooler_output
    assert torch.equal(in_rows, whole)


@pytest.mark.parametrize("make", MAKERS)
def test_activations_stay_small_in_inference(make: Callable[[], Any]) -> None:
    model = make().eval()
    videos = tiny_videos(MANY)
    with torch.no_grad():
        rows = most_rows_at_once(model, lambda: model.get_video_features(videos))
    assert 512 <= rows <= 1024


def test_a_backward_pass_keeps_whole_activations() -> None:
    model = tiny_model()
    assert most_rows_at_once(model, lambda: model.get_video_features(tiny_videos(MANY))) > 1024


def test_autocast_is_kept() -> None:
    model = tiny_model().eval()
    with torch.autocast("cpu", torch.bfloat16):
        whole = model.get_video_features(tiny_videos(MANY)).pooler_output
        with torch.inference_mode():
            in_rows = model.get_video_features(tiny_videos(MANY)).pooler_output
    assert in_rows.dtype == whole.dtype
    assert torch.equal(in_rows, whole)


def test_layers_of_another_shape_of_input_are_taken() -> None:
    layer = feed_forward_layers(tiny_model())[0]
    states = torch.randn(3, 500, layer.fc1.in_features)
    with torch.inference_mode():
        assert layer(states).shape == states.shape
        assert layer(states[0]).shape == states[0].shape
        assert layer(states[:0]).shape == states[:0].shape


def test_every_layer_of_both_towers_takes_part_and_a_pickled_model_too() -> None:
    model = pickle.loads(pickle.dumps(tiny_model()))
    layers = feed_forward_layers(model)
    assert len(layers) == 2 + 3 + 1  # texts, frames, MIT
    assert {type(layer).__name__ for layer in layers} == {"XCLIPMLPInRows"}
    with torch.no_grad():
        model(**tiny_texts(), pixel_values=tiny_videos())
