"""A compiled model: equal to what it was, and compiled once."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from testing_utils import tiny_model, tiny_moted, tiny_video_clip, tiny_videos
from torch._dynamo.utils import counters

from kinetext import TextBank, VideoTextProcessor
from kinetext.serving import compile_model

FRAMES = 4
MODELS = {
    "xclip": tiny_model,
    "moted": lambda: tiny_moted(motion_max_key_tokens=10),
    "transformer": lambda: tiny_video_clip("transformer"),
}


@pytest.fixture(autouse=True)
def _clean_compiler() -> Iterator[None]:
    torch._dynamo.reset()
    counters.clear()
    yield
    torch._dynamo.reset()


def encode(model: Any, num_classes: int) -> TextBank:
    tokens = torch.tensor([[97, index, 98, 98] for index in range(num_classes)])
    described = {"description_input_ids": tokens[:, None].expand(-1, 3, -1)} if hasattr(model, "text_adapter") else {}
    return model.encode_texts(tokens, **described)


def processor_of(model: Any) -> VideoTextProcessor:
    ratio = getattr(model.config, "motion_frame_ratio", 1)
    return VideoTextProcessor(num_frames=FRAMES, crop_size=32, motion_frame_ratio=ratio)


@pytest.mark.slow  # the compiler takes half a minute and more
@pytest.mark.parametrize("name", MODELS)
def test_compiled_once_for_all_numbers_of_videos_and_classes(name: str) -> None:
    eager, model = MODELS[name](), MODELS[name]()
    made_by = processor_of(model)
    assert compile_model(model, made_by, encode(model, 5)) is model
    assert counters["stats"]["unique_graphs"] == 1 and not counters["graph_break"]
    for batch_size, num_classes in ((2, 5), (3, 7), (5, 2), (4, 20)):
        bank = encode(model, num_classes)
        with torch.inference_mode():
            videos = tiny_videos(batch_size, FRAMES * made_by.motion_frame_ratio)
            compiled = model(pixel_values=videos, text_bank=bank).logits_per_video
            expected = eager(pixel_values=videos, text_bank=bank).logits_per_video
        torch.testing.assert_close(compiled, expected, atol=1e-4, rtol=0)
    assert counters["stats"]["unique_graphs"] == 1
    with torch.inference_mode(), pytest.raises(ValueError, match="made by text weights"):
        model(pixel_values=videos, text_bank=encode(tiny_video_clip("mean", num_frames=3), 5))


def test_what_cannot_be_compiled_is_refused() -> None:
    model = tiny_video_clip()
    with pytest.raises(ValueError, match="training mode"):
        compile_model(tiny_video_clip().train(), processor_of(model), encode(model, 5))
    with pytest.raises(ValueError, match="one class"):
        compile_model(model, processor_of(model), encode(model, 1))
