"""Frames that the image tower has seen before: the same logits, and no shape that only seems to fit."""

from typing import Any

import pytest
import torch
from testing_utils import tiny_moted, tiny_texts, tiny_video_clip, tiny_videos

POOLINGS = ("mean", "transformer", "one_frame")
MASK = torch.tensor([[1] * 8, [1] * 5 + [0] * 3])


def test_moted_gives_the_same_logits() -> None:
    model, videos = tiny_moted().eval(), tiny_videos()
    features = model.encode_frames(videos[:, :: model.config.motion_frame_ratio])
    given = model(pixel_values=videos, frame_features=features, **tiny_texts()).logits_per_video
    assert torch.equal(given, model(pixel_values=videos, **tiny_texts()).logits_per_video)


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("mask", [None, MASK])
def test_video_clip_gives_the_same_logits(pooling: str, mask: Any) -> None:
    model, videos = tiny_video_clip(pooling).eval(), tiny_videos()
    features = model.encode_frames(videos)
    if mask is not None:  # what stands at padding does not matter
        features = features.masked_fill(mask[..., None] == 0, torch.nan)
    given = model(frame_features=features, frame_mask=mask, **tiny_texts()).logits_per_video
    expected = model(pixel_values=videos, frame_mask=mask, **tiny_texts()).logits_per_video
    assert (given - expected).abs().max() <= 1e-5


@pytest.mark.parametrize("part", [slice(1), (slice(None), slice(1)), (..., slice(5)), (0,)])
def test_moted_refuses_features_of_other_frames(part: Any) -> None:
    model, videos = tiny_moted().eval(), tiny_videos()
    features = model.encode_frames(videos[:, :: model.config.motion_frame_ratio])
    with pytest.raises(ValueError, match="frame_features has shape"):
        model(pixel_values=videos, frame_features=features[part], **tiny_texts())


@pytest.mark.parametrize("pooling", POOLINGS)
def test_video_clip_refuses_what_does_not_fit(pooling: str) -> None:
    model, videos = tiny_video_clip(pooling).eval(), tiny_videos()
    features = model.encode_frames(videos)
    for other in (features[..., :5], features[0], features[:, :0]):
        with pytest.raises(ValueError, match="frame_features has shape"):
            model(frame_features=other, **tiny_texts())
    with pytest.raises(ValueError, match="both were given"):
        model(pixel_values=videos, frame_features=features, **tiny_texts())
    for mask in (MASK[:1], MASK[:, :5], MASK * 0):
        with pytest.raises(ValueError, match="frame_mask has"):
            model(frame_features=features, frame_mask=mask, **tiny_texts())


def test_towers_that_see_frames_together_refuse_them() -> None:
    videos = tiny_videos()
    features = tiny_moted().encode_frames(videos[:, ::2])
    with pytest.raises(ValueError, match="encodes the frames of a clip together"):
        tiny_moted(motion_encoder="serial")(pixel_values=videos, frame_features=features, **tiny_texts())
    with pytest.raises(ValueError, match="encodes all frames of a clip together"):
        tiny_video_clip("joint").encode_frames(videos)
    with pytest.raises(ValueError, match="encodes all frames of a clip together"):
        tiny_video_clip("joint")(frame_features=tiny_video_clip().encode_frames(videos), **tiny_texts())
