"""MoTED against its equations written out by hand on top of transformers' CLIP (DESIGN of the package, paper §3)."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from testing_utils import (
    largest_difference,
    scatter_weights,
    tiny_clip_config,
    tiny_descriptions,
    tiny_moted,
    tiny_texts,
    tiny_videos,
)
from torch.nn import functional
from transformers import CLIPModel

from kinetext import MotedModel
from kinetext.modeling.modeling_video_text import interpolate_temporal_positions

LABELS = torch.tensor([2, 0])


def attention(module: Any, queries: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
    """Of (Q, W) to (S, W), head by head."""
    width = queries.shape[-1] // module.num_heads
    q, k, v = module.q_proj(queries), module.k_proj(keys), module.v_proj(keys)
    heads = []
    for head in range(module.num_heads):
        part = slice(head * width, (head + 1) * width)
        weights = (q[:, part] @ k[:, part].T / math.sqrt(width)).softmax(dim=-1)
        heads.append(weights @ v[:, part])
    return module.out_proj(torch.cat(heads, dim=-1))


def temporal_block(block: Any, tokens: torch.Tensor, classes: torch.Tensor, times: torch.Tensor) -> torch.Tensor:
    """(G, W) from (G, W), class tokens (T, D) and positions (T, W)."""
    normed = block.local_layernorm(tokens)
    tokens = tokens + attention(block.local_motion, normed, normed)
    frames = block.class_projection(block.class_layernorm(classes)) + times
    normed = block.global_layernorm(frames)
    frames = frames + attention(block.global_motion, normed, normed)
    return tokens + attention(block.integration, block.query_layernorm(tokens), block.key_layernorm(frames))


def motion_tokens(encoder: Any, clip: torch.Tensor, classes: list[torch.Tensor], ratio: int) -> torch.Tensor:
    """(T, K, W) of one clip (aT, 3, H, W); the stem as a product of each cube with the weights."""
    patch = encoder.stem.kernel_size[-1]
    rows = []
    for start in range(0, len(clip), ratio):
        for top in range(0, clip.shape[-2], patch):
            for left in range(0, clip.shape[-1], patch):
                cube = clip[start : start + ratio, :, top : top + patch, left : left + patch].transpose(0, 1)
                rows.append((encoder.stem.weight * cube).sum(dim=(1, 2, 3, 4)) + encoder.stem.bias)
    num_frames = len(clip) // ratio
    tokens = torch.stack(rows).unflatten(0, (num_frames, -1))  # (T, K, W)
    times = encoder.temporal_position_embedding[0]
    tokens = (tokens + encoder.spatial_position_embedding + times[:, None]).flatten(0, 1)
    for block, class_tokens in zip(encoder.blocks, classes, strict=True):
        tokens = temporal_block(block, tokens, class_tokens, times)
    return encoder.layernorm(tokens).unflatten(0, (num_frames, -1))


def fusion(module: Any, queries: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
    normed_keys = (module.key_layernorm or module.query_layernorm)(keys)
    return queries + attention(module.attention, module.query_layernorm(queries), normed_keys)


def unit(features: torch.Tensor) -> torch.Tensor:
    return features / features.norm(dim=-1, keepdim=True)


def clip_of(model: MotedModel) -> CLIPModel:
    """transformers' CLIP with the weights of the towers."""
    clip = CLIPModel(tiny_clip_config()).eval()
    new = model.new_parameter_names()
    clip.load_state_dict({name: tensor for name, tensor in model.state_dict().items() if name not in new})
    return clip


@torch.no_grad()
def by_hand(model: MotedModel, clips: torch.Tensor, names: dict[str, torch.Tensor], texts: list[Any]) -> dict[str, Any]:
    """The output of the parallel model; `texts` are the tokens and masks of the descriptions of each class."""
    clip, ratio = clip_of(model), model.config.motion_frame_ratio
    videos, motions = [], []
    for video in clips:
        seen = clip.vision_model(video[::ratio], output_hidden_states=True)
        frames = clip.visual_projection(seen.pooler_output)  # (T, C)
        classes = [states[:, 0] for states in seen.hidden_states[:-1]]  # X^(0) to X^(L-1)
        tokens = motion_tokens(model.motion_encoder, video, classes, ratio)
        motion = model.motion_projection(tokens.mean(dim=1))  # (T, C)
        videos.append(fusion(model.video_fusion, frames, motion).mean(dim=0))
        motions.append(motion.mean(dim=0))
    name_features = unit(clip.get_text_features(**names).pooler_output)
    fused, motion_texts = [], []
    for name, (input_ids, mask) in zip(name_features, texts, strict=True):
        described = unit(clip.get_text_features(input_ids, attention_mask=mask).pooler_output)
        described = fusion(model.text_adapter, described, described)
        fused.append(fusion(model.text_fusion, name[None], described)[0])
        motion_texts.append(described.mean(dim=0))
    video, motion, text, motion_text = (unit(torch.stack(rows)) for rows in (videos, motions, fused, motion_texts))
    scale = model.logit_scale.exp()
    logits, motion_logits = scale * video @ text.T, scale * motion @ motion_text.T
    return {
        "loss": functional.cross_entropy(logits, LABELS) + functional.cross_entropy(motion_logits, LABELS),
        "logits_per_video": logits,
        "video_logits_per_video": logits,
        "motion_logits_per_video": motion_logits,
        "logits_per_text": logits.T,
        "video_embeds": video,
        "text_embeds": text,
        "motion_embeds": motion,
        "motion_text_embeds": motion_text,
    }


@pytest.mark.parametrize("missing", [(), [(0, 1), (0, 2), (0, 3), (2, 0)]], ids=["all", "some"])
@pytest.mark.parametrize("ratio", [2, 3])
def test_model_equals_the_equations_by_hand(ratio: int, missing: Any) -> None:
    model = tiny_moted(num_frames=4, motion_frame_ratio=ratio)
    videos, names, descriptions = tiny_videos(2, 4 * ratio), tiny_texts(), tiny_descriptions(missing=missing)
    output = model(pixel_values=videos, labels=LABELS, **names, **descriptions)
    texts = []
    for input_ids, mask in zip(*descriptions.values(), strict=True):
        there = mask.any(dim=1)
        texts.append((input_ids[there], mask[there]))
    expected = by_hand(model, videos, names, texts)
    assert set(output) == set(expected)
    for name, value in expected.items():
        assert largest_difference(output[name], value) <= 1e-5, name


def test_temporal_block_with_nothing_merged_equals_plain_attention() -> None:
    model = tiny_moted()
    block = model.motion_encoder.blocks[1]
    generator = torch.Generator().manual_seed(0)
    tokens, classes, times = (torch.randn(shape, generator=generator) for shape in ((32, 24), (8, 48), (8, 24)))
    got = block(tokens[None], classes[None], times[None])[0]
    assert largest_difference(got, temporal_block(block, tokens, classes, times)) <= 1e-6


def test_serial_model_equals_the_equations_by_hand() -> None:
    model = tiny_moted(num_frames=4, motion_encoder="serial")
    videos, inputs = tiny_videos(2, 8), {**tiny_texts(), **tiny_descriptions()}
    output = model(pixel_values=videos, **inputs)
    tower, times = model.vision_model, model.motion_encoder.temporal_position_embedding[0]
    embeds = []
    for video in videos:
        states = tower.pre_layrnorm(tower.embeddings(video[::2]))  # (T, 1+K, D)
        for layer, adapter in zip(tower.encoder.layers, model.motion_encoder.adapters, strict=True):
            down = adapter.down_projection(adapter.layernorm(states[:, 1:])) + times[:, None]
            motion = temporal_block(adapter.block, down.flatten(0, 1), states[:, 0], times).view_as(down)
            patches = states[:, 1:] + adapter.up_projection(motion)
            states = layer(torch.cat([states[:, :1], patches], dim=1), None)
        embeds.append(model.visual_projection(tower.post_layernorm(states[:, 0])).mean(dim=0))
    video = unit(torch.stack(embeds))
    assert largest_difference(output.video_embeds, video) <= 1e-5
    assert torch.equal(output.motion_embeds, output.video_embeds), "one representation"
    scale = model.logit_scale.exp()
    assert largest_difference(output.motion_logits_per_video, scale * video @ output.motion_text_embeds.T) <= 1e-5
    assert largest_difference(output.video_logits_per_video, scale * video @ output.text_embeds.T) <= 1e-5


# Motion


@pytest.mark.parametrize("motion_encoder", ["parallel", "serial"])
def test_order_of_frames_matters(motion_encoder: str) -> None:
    model = tiny_moted(motion_encoder=motion_encoder)
    videos = tiny_videos()
    motion = model.get_motion_features(videos).pooler_output
    assert largest_difference(motion, model.get_motion_features(videos.flip(1)).pooler_output) > 1e-2
    pairs = videos.unflatten(1, (-1, 2)).flip(1).flatten(1, 2)  # pairs stay, their order is reversed
    assert largest_difference(motion, model.get_motion_features(pairs).pooler_output) > 1e-3


def test_frames_without_motion_encoder_have_no_order() -> None:
    model = tiny_moted(motion_encoder="none")
    motion = model.get_motion_features(tiny_videos()).pooler_output
    pairs = tiny_videos().unflatten(1, (-1, 2)).flip(1).flatten(1, 2)
    assert largest_difference(motion, model.get_motion_features(pairs).pooler_output) <= 1e-6


def test_motion_sees_every_frame_and_the_image_tower_every_second() -> None:
    model = tiny_moted(fuse_video=False)
    videos = tiny_videos(1)
    video, motion = model.get_video_features(videos).pooler_output, model.get_motion_features(videos).pooler_output
    for frame in range(8):
        changed = videos.clone()
        changed[:, frame] += 1
        moved = largest_difference(video, model.get_video_features(changed).pooler_output) > 1e-4
        assert moved == (frame % 2 == 0)
        assert largest_difference(motion, model.get_motion_features(changed).pooler_output) > 1e-4


def test_motion_of_one_frame_reaches_the_others_by_local_motion_alone() -> None:
    model = tiny_moted()
    for block in model.motion_encoder.blocks:
        torch.nn.init.zeros_(block.integration.out_proj.weight)
        torch.nn.init.zeros_(block.integration.out_proj.bias)
    videos = tiny_videos(1)
    changed = videos.clone()
    changed[:, 7] += 1  # only the motion encoder sees it
    first, second = (model.get_motion_features(v).last_hidden_state[0, 0] for v in (videos, changed))
    assert largest_difference(first, second) > 1e-4


def test_video_alone_equals_video_in_a_batch() -> None:
    model = tiny_moted(motion_max_key_tokens=7)
    videos, texts = tiny_videos(3), {**tiny_texts(), **tiny_descriptions()}
    together = model(pixel_values=videos, **texts)
    for row in range(3):
        alone = model(pixel_values=videos[row : row + 1], **texts)
        for name in ("video_embeds", "motion_embeds", "video_logits_per_video", "motion_logits_per_video"):
            assert largest_difference(together[name][row : row + 1], alone[name]) <= 1e-5, name


# Merged keys


def test_merging_changes_nothing_where_tokens_are_equal() -> None:
    """A clip whose motion tokens come in equal pairs, and half as many keys as tokens."""
    model = tiny_moted()
    layer = model.motion_encoder.blocks[0].local_motion
    tokens = torch.randn(2, 6, 24, generator=torch.Generator().manual_seed(0)).repeat_interleave(2, dim=1)
    expected, _, merged_into = layer(tokens)
    assert merged_into is None
    model.config.motion_max_key_tokens = 6
    got, _, merged_into = layer(tokens)
    assert torch.equal(merged_into[:, ::2], merged_into[:, 1::2])
    assert largest_difference(got, expected) <= 1e-5


def test_sizes_of_merged_keys_count_in_the_attention() -> None:
    model = tiny_moted(motion_max_key_tokens=1)
    layer = model.motion_encoder.blocks[0].local_motion
    tokens = torch.randn(2, 9, 24, generator=torch.Generator().manual_seed(0))
    got, _, merged_into = layer(tokens)
    assert (merged_into == 0).all()
    expected = layer.out_proj(layer.v_proj(tokens).mean(dim=1, keepdim=True)).expand_as(got)
    assert largest_difference(got, expected) <= 1e-5, "one key is the mean of all"

    model.config.motion_max_key_tokens = 4
    got, _, merged_into = layer(tokens)
    for row in range(2):
        groups = [merged_into[row] == place for place in range(4)]
        sizes = torch.tensor([float(group.sum()) for group in groups])
        assert sizes.max() > 1
        q = layer.q_proj(tokens[row]).unflatten(-1, (3, 8)).transpose(0, 1)
        k, v = (
            torch.stack([projection(tokens[row])[group].mean(dim=0) for group in groups])
            .unflatten(-1, (3, 8))
            .transpose(0, 1)
            for projection in (layer.k_proj, layer.v_proj)
        )
        weights = (q @ k.mT / math.sqrt(8) + sizes.log()).softmax(dim=-1)
        expected = layer.out_proj((weights @ v).transpose(0, 1).flatten(1))
        assert largest_difference(got[row], expected) <= 1e-5


@pytest.mark.parametrize("cap", [32, 31, 5, 1])
def test_as_many_motion_tokens_come_out_as_go_in(cap: int) -> None:
    model = tiny_moted(motion_max_key_tokens=cap)
    shapes = []
    model.motion_encoder.register_forward_hook(lambda _, __, output: shapes.append(tuple(output.shape)))
    features = [model.get_motion_features(tiny_videos(2, 16)).pooler_output]
    assert shapes == [(2, 8, 4, 24)] and features[0].isfinite().all()
    plain = tiny_moted().get_motion_features(tiny_videos(2, 16)).pooler_output
    assert (largest_difference(features[0], plain) <= 1e-6) == (cap == 32)


# Any number of frames, any size


@pytest.mark.parametrize("motion_encoder", ["parallel", "serial", "none"])
@pytest.mark.parametrize("num_frames", [1, 2, 5, 8, 16])
def test_model_trained_with_8_frames_takes(num_frames: int, motion_encoder: str) -> None:
    model = tiny_moted(motion_encoder=motion_encoder, motion_max_key_tokens=20)
    output = model(pixel_values=tiny_videos(2, 2 * num_frames), **tiny_texts(), **tiny_descriptions())
    assert output.logits_per_video.shape == output.motion_logits_per_video.shape == (2, 3)
    assert output.logits_per_video.isfinite().all() and output.motion_logits_per_video.isfinite().all()


@pytest.mark.parametrize("motion_encoder", ["parallel", "serial"])
@pytest.mark.parametrize("num_frames", [3, 16])
def test_set_num_frames_is_interpolation_made_permanent(num_frames: int, motion_encoder: str) -> None:
    model = tiny_moted(motion_encoder=motion_encoder)
    videos = tiny_videos(1, 2 * num_frames)
    before = model.get_motion_features(videos).pooler_output
    old = model.motion_encoder.temporal_position_embedding.detach().clone()
    model.set_num_frames(num_frames)
    positions = model.motion_encoder.temporal_position_embedding
    assert positions.shape[1] == model.config.num_frames == num_frames and positions.requires_grad
    stretched = functional.interpolate(old.mT, size=num_frames, mode="linear", align_corners=False).mT
    assert largest_difference(positions, stretched) <= 1e-6
    assert positions.is_leaf and any(positions is parameter for parameter in model.parameters())
    assert largest_difference(before, model.get_motion_features(videos).pooler_output) <= 1e-6
    unchanged = positions.detach().clone()
    model.set_num_frames(num_frames)
    assert torch.equal(model.motion_encoder.temporal_position_embedding, unchanged)


@pytest.mark.parametrize("num_frames", [0, -1])
def test_set_num_frames_refuses_less_than_one_frame_and_changes_nothing(num_frames: int) -> None:
    model = tiny_moted()
    with pytest.raises(ValueError, match=f"^num_frames={num_frames} must be at least 1.$"):
        model.set_num_frames(num_frames)
    assert model.config.num_frames == model.motion_encoder.temporal_position_embedding.shape[1] == 8


def test_set_num_frames_without_motion_encoder_sets_the_configuration() -> None:
    model = tiny_moted(motion_encoder="none")
    model.set_num_frames(3)
    assert model.config.num_frames == 3


def test_model_of_another_number_of_frames_is_saved_and_loaded(tmp_path: Any) -> None:
    model = tiny_moted()
    model.set_num_frames(5)
    model.save_pretrained(tmp_path)
    loaded = MotedModel.from_pretrained(tmp_path)
    inputs = {"pixel_values": tiny_videos(1, 10), **tiny_texts()}
    assert loaded.config.num_frames == 5
    assert torch.equal(loaded(**inputs).motion_logits_per_video, model(**inputs).motion_logits_per_video)


def test_positions_of_the_trained_sizes_are_the_parameters_themselves() -> None:
    encoder = tiny_moted().motion_encoder
    assert encoder._spatial_positions((2, 2)) is encoder.spatial_position_embedding
    assert interpolate_temporal_positions(encoder.temporal_position_embedding, 8) is encoder.temporal_position_embedding


def test_spatial_positions_of_another_grid_are_interpolated_with_rows_and_columns_apart() -> None:
    encoder = tiny_moted().motion_encoder
    with torch.no_grad():
        encoder.spatial_position_embedding.zero_()
        encoder.spatial_position_embedding[0, :2, 0] = 1  # the upper row
        encoder.spatial_position_embedding[0, 1::2, 1] = 1  # the right column
    wide = encoder._spatial_positions((4, 6))
    assert wide.shape == (1, 24, 24)
    grid = wide[0].unflatten(0, (4, 6))
    assert (grid[0, :, 0] > 0.8).all() and (grid[3, :, 0] < 0.2).all()
    assert (grid[:, 5, 1] > 0.8).all() and (grid[:, 0, 1] < 0.2).all()


@pytest.mark.parametrize("motion_encoder", ["parallel", "serial", "none"])
@pytest.mark.parametrize(("height", "width"), [(48, 32), (16, 64)])
def test_other_image_sizes_run(height: int, width: int, motion_encoder: str) -> None:
    model = tiny_moted(motion_encoder=motion_encoder)
    videos = torch.randn(1, 4, 3, height, width)
    output = model(pixel_values=videos, **tiny_texts())
    assert output.logits_per_video.isfinite().all() and output.motion_logits_per_video.isfinite().all()
    if motion_encoder == "parallel":
        tokens = model.motion_encoder(videos, [torch.zeros(1, 2, 48)] * 3)
        assert tokens.shape == (1, 2, height * width // 256, 24)


def test_scattered_weights_hide_no_module() -> None:
    """Each part of the model changes what comes out, so the equalities above are about all of them."""
    inputs = {"pixel_values": tiny_videos(), **tiny_texts(), **tiny_descriptions()}
    model = tiny_moted()
    expected = model(**inputs)
    for part in ("motion_encoder", "motion_projection", "video_fusion", "text_adapter", "text_fusion"):
        changed = tiny_moted()
        scatter_weights(getattr(changed, part))
        output = changed(**inputs)
        moved = max(
            largest_difference(output[name], expected[name])
            for name in ("video_logits_per_video", "motion_logits_per_video")
        )
        assert moved > 1e-3, part
