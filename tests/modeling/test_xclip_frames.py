"""Any number of frames, padded clips, and videos that do not see each other."""

from __future__ import annotations

import logging

import pytest
import torch
from testing_utils import largest_difference, tiny_model, tiny_texts, tiny_videos
from torch.nn import functional

from kinetext import XCLIPModel
from kinetext.modeling import modeling_xclip
from kinetext.modeling.modeling_xclip import interpolate_temporal_positions

POSITIONS = torch.randn(1, 8, 5, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("num_frames", [1, 4, 6, 8, 16, 32])
def test_model_trained_with_8_frames_takes(num_frames: int, model: XCLIPModel) -> None:
    output = model(pixel_values=tiny_videos(2, num_frames), **tiny_texts(3))
    assert output.logits_per_video.shape == (2, 3)
    assert output.mit_output.last_hidden_state.shape == (2, num_frames, 32)
    assert output.logits_per_video.isfinite().all()


@pytest.mark.parametrize("num_frames", [1, 2, 4, 6, 7, 9, 16, 32, 100])
def test_positions_of_another_length_are_interpolated_linearly(num_frames: int) -> None:
    expected = functional.interpolate(POSITIONS.mT, size=num_frames, mode="linear", align_corners=False).mT
    assert largest_difference(interpolate_temporal_positions(POSITIONS, num_frames), expected) <= 3e-6


def test_positions_of_the_trained_length_are_the_parameter_itself(model: XCLIPModel) -> None:
    parameter = model.mit.position_embedding
    assert interpolate_temporal_positions(parameter, 8) is parameter


def test_positions_of_padded_clips_are_those_of_their_own_length() -> None:
    mask = torch.tensor([[1, 1, 1, 1, 1, 0, 0, 0, 0], [0, 1, 0, 1, 1, 0, 0, 1, 0], [1] * 9])
    positions = interpolate_temporal_positions(POSITIONS, 9, mask)
    for row in range(3):
        length = int(mask[row].sum())
        expected = interpolate_temporal_positions(POSITIONS, length)[0]
        assert largest_difference(positions[row][mask[row].bool()], expected) <= 3e-6


def test_model_uses_interpolated_positions(model: XCLIPModel) -> None:
    videos, texts = tiny_videos(1, 16), tiny_texts()
    expected = model(pixel_values=videos, **texts).logits_per_video
    stretched = interpolate_temporal_positions(model.mit.position_embedding, 16)
    model.mit.position_embedding = torch.nn.Parameter(stretched.detach().clone())
    assert largest_difference(expected, model(pixel_values=videos, **texts).logits_per_video) <= 1e-6


def padded(videos: list[torch.Tensor], places: list[list[int]], num_frames: int, garbage: float) -> torch.Tensor:
    """(B, T, 3, H, W): the frames of each video at its places, `garbage` everywhere else."""
    batch = torch.full((len(videos), num_frames, *videos[0].shape[1:]), garbage)
    for row, (video, indices) in enumerate(zip(videos, places, strict=True)):
        batch[row, indices] = video
    return batch


PLACES = {
    "suffix": [[0, 1, 2], [0, 1, 2, 3, 4, 5, 6, 7], [0, 1, 2, 3, 4]],
    "anywhere": [[1, 4, 9], [0, 1, 2, 4, 5, 7, 8, 9], [2, 3, 5, 7, 8]],
}


@pytest.mark.parametrize("garbage", [0.0, 7.0, 1e30, float("nan"), float("inf")])
@pytest.mark.parametrize("where", PLACES)
@pytest.mark.parametrize("attn_implementation", ["sdpa", "eager"])
def test_padded_clips_with_a_mask_equal_unpadded_ones(attn_implementation: str, where: str, garbage: float) -> None:
    model = tiny_model(attn_implementation=attn_implementation)
    places = PLACES[where]
    videos = [video[: len(indices)] for video, indices in zip(tiny_videos(3, 10), places, strict=True)]
    texts = tiny_texts()
    frame_mask = torch.zeros(3, 10)
    for row, indices in enumerate(places):
        frame_mask[row, indices] = 1
    output = model(pixel_values=padded(videos, places, 10, garbage), frame_mask=frame_mask, **texts)
    output.logits_per_video.square().sum().backward()
    gradients = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}
    model.zero_grad()
    for row, video in enumerate(videos):
        alone = model(pixel_values=video.unsqueeze(0), **texts)
        assert largest_difference(output.logits_per_video[row : row + 1], alone.logits_per_video) <= 1e-5
        assert largest_difference(output.video_embeds[row : row + 1], alone.video_embeds) <= 1e-5
        assert largest_difference(output.text_embeds[row : row + 1], alone.text_embeds) <= 1e-5
        alone.logits_per_video.square().sum().backward()
    largest = max(gradient.norm().item() for gradient in gradients.values())
    for name, parameter in model.named_parameters():
        difference = (gradients[name] - parameter.grad).norm().item()
        assert difference <= 1e-4 * parameter.grad.norm().item() + 1e-6 * largest, name


def test_video_features_of_padded_clips_equal_unpadded_ones(model: XCLIPModel) -> None:
    video = tiny_videos(1, 5)
    batch = torch.cat([video, torch.full((1, 3, *video.shape[2:]), 9.0)], dim=1)
    frame_mask = torch.tensor([[1, 1, 1, 1, 1, 0, 0, 0]])
    features = model.get_video_features(batch, frame_mask).pooler_output
    assert largest_difference(features, model.get_video_features(video).pooler_output) <= 1e-5


@pytest.mark.parametrize("num_frames", [1, 8, 12])
@pytest.mark.parametrize("dtype", [torch.bool, torch.int64, torch.float32])
def test_mask_of_all_ones_equals_no_mask(model: XCLIPModel, num_frames: int, dtype: torch.dtype) -> None:
    inputs = {"pixel_values": tiny_videos(2, num_frames), **tiny_texts()}
    masked = model(frame_mask=torch.ones(2, num_frames, dtype=dtype), **inputs)
    assert largest_difference(masked.logits_per_video, model(**inputs).logits_per_video) <= 1e-5


def test_any_nonzero_mask_value_counts_as_one_frame(model: XCLIPModel) -> None:
    inputs = {"pixel_values": tiny_videos(1, 4), **tiny_texts()}
    masked = model(frame_mask=torch.tensor([[1, 5, 255, 0]]), **inputs)
    expected = model(frame_mask=torch.tensor([[1, 1, 1, 0]]), **inputs)
    assert largest_difference(masked.logits_per_video, expected.logits_per_video) == 0


def test_video_alone_equals_video_in_a_batch(model: XCLIPModel) -> None:
    videos, texts = tiny_videos(4), tiny_texts()
    together = model(pixel_values=videos, **texts)
    for row in range(4):
        alone = model(pixel_values=videos[row : row + 1], **texts)
        assert largest_difference(together.logits_per_video[row : row + 1], alone.logits_per_video) <= 1e-5


def test_class_alone_equals_class_among_others(model: XCLIPModel) -> None:
    videos, texts = tiny_videos(2), tiny_texts(4)
    together = model(pixel_values=videos, **texts).logits_per_video
    for column in range(4):
        one = {name: value[column : column + 1] for name, value in texts.items()}
        alone = model(pixel_values=videos, **one).logits_per_video
        assert largest_difference(together[:, column : column + 1], alone) <= 1e-5


def test_order_of_frames_matters_and_frames_exchange_messages(model: XCLIPModel) -> None:
    videos, texts = tiny_videos(1), tiny_texts()
    output = model(pixel_values=videos, **texts)
    assert (
        largest_difference(output.logits_per_video, model(pixel_values=videos.flip(1), **texts).logits_per_video) > 1e-4
    )
    changed = videos.clone()
    changed[:, 7] += 1
    tokens = output.vision_model_output.last_hidden_state[0]  # of the first frame, which did not change
    assert (
        largest_difference(tokens, model(pixel_values=changed, **texts).vision_model_output.last_hidden_state[0]) > 1e-4
    )


def test_far_longer_clips_warn_once(model: XCLIPModel, caplog: pytest.LogCaptureFixture) -> None:
    modeling_xclip._warn_of_stretched_positions.cache_clear()
    with caplog.at_level(logging.WARNING, logger=modeling_xclip.__name__):
        for num_frames in (8, 32, 33, 33):
            model.get_video_features(tiny_videos(1, num_frames))
    messages = [record.getMessage() for record in caplog.records]
    expected = "33 frames given to a model trained with 8: temporal positions are stretched more than 4-fold."
    assert messages == [expected]
