"""VideoCLIP: each pooling against the formula, any number of frames, padding, class texts and labels."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from testing_utils import (
    largest_difference,
    scatter_weights,
    tiny_clip,
    tiny_clip_config,
    tiny_texts,
    tiny_video_clip,
    tiny_videos,
)
from torch import nn
from torch.nn import functional

from kinetext import VideoCLIPModel
from kinetext.modeling.configuration_video_clip import TEMPORAL_POOLINGS

LABELS = torch.tensor([2, 0])


def exactly(message: str) -> str:
    return f"^{re.escape(message)}$"


def clip_features(clip: Any, videos: torch.Tensor) -> torch.Tensor:
    """Projected features (B, T, C) of each frame alone, as CLIP makes them."""
    with torch.no_grad():
        return clip.get_image_features(videos.flatten(0, 1)).pooler_output.unflatten(0, videos.shape[:2])


def expected_logits(clip: Any, features: torch.Tensor) -> torch.Tensor:
    """(B, N) of video embeddings (B, C) over `tiny_texts`, as CLIP scores them."""
    with torch.no_grad():
        texts = clip.get_text_features(**tiny_texts()).pooler_output
        return clip.logit_scale.exp() * functional.cosine_similarity(features[:, None], texts[None], dim=-1)


# The poolings


@pytest.mark.parametrize("num_frames", [1, 5, 8])
def test_mean_is_the_mean_of_clips_features(num_frames: int) -> None:
    clip, videos = tiny_clip(), tiny_videos(2, num_frames)
    output = VideoCLIPModel.from_clip(clip).eval()(pixel_values=videos, **tiny_texts())
    mean = clip_features(clip, videos).mean(dim=1)
    assert largest_difference(output.video_embeds, functional.normalize(mean, dim=-1)) <= 1e-6
    assert largest_difference(output.logits_per_video, expected_logits(clip, mean)) <= 1e-5
    normalised_first = functional.normalize(clip_features(clip, videos), dim=-1).mean(dim=1)
    if num_frames > 1:  # or the test would not see the order of mean and norm
        assert largest_difference(output.logits_per_video, expected_logits(clip, normalised_first)) > 1e-4


@pytest.mark.parametrize(("num_frames", "seen"), [(1, 0), (2, 1), (5, 2), (8, 4)])
def test_one_frame_is_the_middle_one(num_frames: int, seen: int) -> None:
    clip, videos = tiny_clip(), tiny_videos(2, num_frames)
    model = VideoCLIPModel.from_clip(clip, num_frames=1, temporal_pooling="one_frame").eval()
    logits = model(pixel_values=videos, **tiny_texts()).logits_per_video
    assert largest_difference(logits, expected_logits(clip, clip_features(clip, videos)[:, seen])) <= 1e-5


def test_transformer_is_text4vis_header_on_clips_features() -> None:
    """Written out: positions, pre-norm attention and MLP with QuickGELU, residual of the input, mean."""
    model = tiny_video_clip("transformer")
    videos = tiny_videos(2, 5)
    with torch.no_grad():
        tower = model.vision_model(videos.flatten(0, 1)).pooler_output
        features = model.visual_projection(tower).unflatten(0, (2, 5))
        header: Any = model.temporal_transformer
        states = features + header.position_embedding.weight[:5]
        for layer in header.encoder.layers:
            normed = functional.layer_norm(states, (32,), layer.layer_norm1.weight, layer.layer_norm1.bias, 1e-12)
            attention = layer.self_attn
            query, key, value = (
                part(normed).unflatten(-1, (2, 16)).transpose(1, 2)
                for part in (attention.q_proj, attention.k_proj, attention.v_proj)
            )
            weights = (query @ key.mT / 16**0.5).softmax(dim=-1)
            states = states + attention.out_proj((weights @ value).transpose(1, 2).flatten(2))
            normed = functional.layer_norm(states, (32,), layer.layer_norm2.weight, layer.layer_norm2.bias, 1e-12)
            hidden = layer.mlp.fc1(normed)
            states = states + layer.mlp.fc2(hidden * torch.sigmoid(1.702 * hidden))
        expected = (states + features).mean(dim=1)
    assert hidden.shape[-1] == 4 * 32
    assert largest_difference(model.get_video_features(videos).pooler_output, expected) <= 1e-5


def test_frames_of_the_transformer_have_the_first_positions_of_a_table() -> None:
    model = tiny_video_clip("transformer")
    before = model.get_video_features(tiny_videos(1, 5)).pooler_output
    with torch.no_grad():
        model.temporal_transformer.position_embedding.weight[5:] += 1
    assert torch.equal(model.get_video_features(tiny_videos(1, 5)).pooler_output, before)
    with torch.no_grad():
        model.temporal_transformer.position_embedding.weight[4] += 1
    assert largest_difference(model.get_video_features(tiny_videos(1, 5)).pooler_output, before) > 1e-4


def test_clips_longer_than_the_table_stretch_it() -> None:
    header: Any = tiny_video_clip("transformer").temporal_transformer
    seen: dict[str, torch.Tensor] = {}
    header.encoder.register_forward_pre_hook(lambda _, args: seen.update(states=args[0]))
    header(torch.zeros(1, 100, 32))
    table = header.position_embedding.weight.detach().T.unsqueeze(0)
    expected = functional.interpolate(table, size=100, mode="linear", align_corners=False)[0].T
    assert largest_difference(seen["states"][0], expected) <= 1e-5


def test_joint_is_the_image_tower_over_the_tokens_of_all_frames() -> None:
    """Written out with modules of CLIP: 1+4 tokens a frame, temporal positions on each, one sequence."""
    model = tiny_video_clip("joint", num_frames=5)
    videos, tower = tiny_videos(2, 5), model.vision_model
    with torch.no_grad():
        frames = [tower.embeddings(videos[:, t]) + model.joint_position_embedding[:, t] for t in range(5)]
        states = tower.pre_layrnorm(torch.cat(frames, dim=1))  # (B, 25, D)
        for layer in tower.encoder.layers:
            states = layer(states, None)
        class_tokens = torch.stack([states[:, 5 * t] for t in range(5)], dim=1)
        expected = model.visual_projection(tower.post_layernorm(class_tokens)).mean(dim=1)
    assert largest_difference(model.get_video_features(videos).pooler_output, expected) <= 1e-5


@pytest.mark.parametrize("pooling", ["mean", "one_frame", "joint"])
def test_a_still_video_starts_as_its_image_in_clip(pooling: str) -> None:
    clip, image = tiny_clip(), tiny_videos(2, 1)
    model = VideoCLIPModel.from_clip(clip, num_frames=1, temporal_pooling=pooling).eval()
    expected = expected_logits(clip, clip_features(clip, image)[:, 0])
    for num_frames in (1, 6):
        logits = model(pixel_values=image.expand(-1, num_frames, -1, -1, -1), **tiny_texts()).logits_per_video
        assert largest_difference(logits, expected) <= 1e-5


@pytest.mark.parametrize(("pooling", "sees_order"), [("mean", False), ("transformer", True), ("joint", True)])
def test_order_of_frames_matters_where_frames_have_positions(pooling: str, sees_order: bool) -> None:
    model, videos = tiny_video_clip(pooling), tiny_videos(1)
    logits = model(pixel_values=videos, **tiny_texts()).logits_per_video
    flipped = model(pixel_values=videos.flip(1), **tiny_texts()).logits_per_video
    assert (largest_difference(logits, flipped) > 1e-4) == sees_order


# Frames


@pytest.mark.parametrize("pooling", TEMPORAL_POOLINGS)
@pytest.mark.parametrize("num_frames", [1, 6, 8, 80])
def test_model_takes_any_number_of_frames(pooling: str, num_frames: int) -> None:
    output = tiny_video_clip(pooling)(pixel_values=tiny_videos(2, num_frames), **tiny_texts(3))
    assert output.logits_per_video.shape == output.logits_per_text.T.shape == (2, 3)
    assert output.video_embeds.shape == (2, 32) and output.text_embeds.shape == (3, 32)
    assert output.logits_per_video.isfinite().all()


@pytest.mark.parametrize("pooling", TEMPORAL_POOLINGS)
@pytest.mark.parametrize("garbage", [0.0, float("nan")])
@pytest.mark.parametrize("attn_implementation", ["sdpa", "eager"])
def test_padded_clips_equal_unpadded_ones(pooling: str, garbage: float, attn_implementation: str) -> None:
    model = tiny_video_clip(pooling, attn_implementation=attn_implementation)
    places = [[1, 4, 5], [0, 1, 2, 3, 4, 6, 7, 8], [2, 3]]
    batch, mask = torch.full((3, 9, 3, 32, 32), garbage), torch.zeros(3, 9)
    videos = [video[: len(frames)] for video, frames in zip(tiny_videos(3, 8), places, strict=True)]
    for row, (video, frames) in enumerate(zip(videos, places, strict=True)):
        batch[row, frames] = video
        mask[row, frames] = 1
    together = model(pixel_values=batch, frame_mask=mask, **tiny_texts())
    for row, video in enumerate(videos):
        alone = model(pixel_values=video.unsqueeze(0), **tiny_texts())
        assert largest_difference(together.logits_per_video[row : row + 1], alone.logits_per_video) <= 1e-5


def test_padding_of_clips_longer_than_the_table_changes_nothing() -> None:
    model = tiny_video_clip("transformer")
    batch, mask = tiny_videos(2, 80), torch.ones(2, 80)
    mask[1, 6:] = 0
    together = model(pixel_values=batch, frame_mask=mask, **tiny_texts()).logits_per_video
    for row, length in enumerate((80, 6)):
        alone = model(pixel_values=batch[row : row + 1, :length], **tiny_texts()).logits_per_video
        assert largest_difference(together[row : row + 1], alone) <= 1e-5


def test_frame_mask_that_does_not_fit_raises() -> None:
    message = "frame_mask has shape (2, 7); wanted (B,T) = (2, 8), 1 for a frame and 0 for padding."
    with pytest.raises(ValueError, match=exactly(message)):
        tiny_video_clip()(pixel_values=tiny_videos(), frame_mask=torch.ones(2, 7), **tiny_texts())


@pytest.mark.parametrize("pooling", ["mean", "transformer", "joint"])
def test_another_trained_number_of_frames_keeps_the_results(pooling: str) -> None:
    model, videos = tiny_video_clip(pooling), tiny_videos(1, 12)
    expected = model(pixel_values=videos, **tiny_texts()).logits_per_video
    model.set_num_frames(12)
    assert model.config.num_frames == 12
    assert largest_difference(model(pixel_values=videos, **tiny_texts()).logits_per_video, expected) <= 1e-5
    if pooling == "joint":
        assert model.joint_position_embedding.shape == (1, 12, 48) and model.joint_position_embedding.requires_grad


@pytest.mark.parametrize(("pooling", "num_frames"), [("mean", 0), ("one_frame", 2)])
def test_a_number_of_frames_that_cannot_be_is_refused_and_changes_nothing(pooling: str, num_frames: int) -> None:
    model = tiny_video_clip(pooling)
    before = model.config.num_frames
    with pytest.raises(Exception, match=f"num_frames={num_frames}"):
        model.set_num_frames(num_frames)
    assert model.config.num_frames == before


@pytest.mark.parametrize("pooling", TEMPORAL_POOLINGS)
def test_other_image_sizes_are_taken_when_asked_for(pooling: str) -> None:
    model = tiny_video_clip(pooling)
    videos = tiny_videos(1, 4, size=48)
    output = model(pixel_values=videos, interpolate_pos_encoding=True, **tiny_texts())
    assert output.logits_per_video.isfinite().all()
    with pytest.raises(ValueError, match=r"Input image size \(48\*48\) doesn't match model \(32\*32\)"):
        model(pixel_values=videos, **tiny_texts())


# Inputs, class texts, labels


@pytest.mark.parametrize("method", ["forward", "get_video_features", "get_text_features"])
def test_unknown_keyword_raises_and_is_named(method: str) -> None:
    with pytest.raises(TypeError, match="unexpected keyword argument 'label'"):
        getattr(tiny_video_clip(), method)(label=LABELS)


@pytest.mark.parametrize("pixel_values", [None, torch.zeros(2, 3, 8, 32, 32), torch.zeros(2, 4, 8, 3, 32, 32)])
def test_pixel_values_of_another_shape_raise(pixel_values: torch.Tensor | None) -> None:
    with pytest.raises(ValueError, match="^pixel_values "):
        tiny_video_clip()(pixel_values=pixel_values, **tiny_texts())


@pytest.mark.parametrize("given", ["neither", "both"])
def test_class_texts_are_wanted_once(given: str) -> None:
    model, texts = tiny_video_clip(), tiny_texts()
    inputs = {} if given == "neither" else {**texts, "text_bank": model.encode_texts(**texts)}
    message = f"pass the class texts as input_ids or as text_bank; {given} were given."
    with pytest.raises(ValueError, match=exactly(message)):
        model(pixel_values=tiny_videos(), **inputs)


@pytest.mark.parametrize("pooling", TEMPORAL_POOLINGS)
def test_cached_texts_equal_uncached_ones(pooling: str) -> None:
    model, texts = tiny_video_clip(pooling), tiny_texts()
    bank = model.encode_texts(**texts, names=list("abc"))
    uncached = model(pixel_values=tiny_videos(), labels=LABELS, **texts)
    cached = model(pixel_values=tiny_videos(), labels=LABELS, text_bank=bank)
    assert len(uncached) == 5
    for name, value in uncached.items():
        assert largest_difference(cached[name], value) <= 1e-6, name


def test_bank_of_other_text_weights_raises() -> None:
    model, other = tiny_video_clip(), tiny_video_clip()
    scatter_weights(other)
    with pytest.raises(ValueError, match="this TextBank was made by text weights"):
        model(pixel_values=tiny_videos(), text_bank=other.encode_texts(**tiny_texts()))


def test_labels_give_the_cross_entropy() -> None:
    model = tiny_video_clip()
    hard = model(pixel_values=tiny_videos(), labels=LABELS, **tiny_texts())
    assert torch.equal(hard.loss, functional.cross_entropy(hard.logits_per_video, LABELS))
    soft = model(pixel_values=tiny_videos(), labels=functional.one_hot(LABELS, 3).float(), **tiny_texts())
    assert largest_difference(soft.loss, hard.loss) <= 1e-6
    assert model(pixel_values=tiny_videos(), **tiny_texts()).loss is None
    with pytest.raises(TypeError, match="labels of shape"):
        model(pixel_values=tiny_videos(), labels=LABELS.float(), **tiny_texts())


def test_a_video_alone_equals_it_in_a_batch() -> None:
    for pooling in TEMPORAL_POOLINGS:
        model, videos = tiny_video_clip(pooling), tiny_videos(3)
        together = model(pixel_values=videos, **tiny_texts()).logits_per_video
        for row in range(3):
            alone = model(pixel_values=videos[row : row + 1], **tiny_texts()).logits_per_video
            assert largest_difference(together[row : row + 1], alone) <= 1e-5


def test_output_can_be_a_tuple() -> None:
    model = tiny_video_clip()
    output = model(pixel_values=tiny_videos(), return_dict=False, **tiny_texts())
    assert torch.equal(output[0], model(pixel_values=tiny_videos(), **tiny_texts()).logits_per_video)


def test_from_clip_refuses_a_configuration_of_its_own_and_other_weights() -> None:
    with pytest.raises(TypeError, match="goes to its model's constructor"):
        VideoCLIPModel.from_clip(tiny_video_clip().config)
    clip: Any = tiny_clip(tiny_clip_config())
    clip.extra = nn.Linear(2, 2, bias=False)
    with pytest.raises(RuntimeError, match=r"left over \['extra.weight'\]"):
        VideoCLIPModel.from_clip(clip)
