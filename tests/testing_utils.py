"""Tiny real models and inputs that all tests share; fast enough to be built in each."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn
from transformers import CLIPConfig, CLIPModel
from typer.testing import CliRunner, Result

from kinetext import MotedConfig, MotedModel, VideoCLIPConfig, VideoCLIPModel, XCLIPConfig, XCLIPModel, cli

TINY_FRAMES = 8
TINY_IMAGE_SIZE = 32
TINY_VOCABULARY = 99  # its last id is the end token: CLIP text towers read their feature at the largest id


def tiny_config(*, num_frames: int = TINY_FRAMES, text: Any = None, vision: Any = None, **fields: Any) -> XCLIPConfig:
    """An X-CLIP of 0.1 M parameters in which no two widths, depths or head counts are equal by chance.

    Args:
        num_frames: trained frames.
        text: fields of the text tower that differ.
        vision: fields of the vision tower and MIT that differ.
        fields: fields of the whole that differ.
    """
    text_config = {
        "hidden_size": 40,
        "intermediate_size": 72,
        "num_hidden_layers": 2,
        "num_attention_heads": 5,
        "vocab_size": TINY_VOCABULARY,
        "max_position_embeddings": 16,
    }
    vision_config = {
        "hidden_size": 48,
        "intermediate_size": 96,
        "num_hidden_layers": 3,
        "num_attention_heads": 6,
        "mit_hidden_size": 32,
        "mit_intermediate_size": 64,
        "mit_num_attention_heads": 4,
        "image_size": TINY_IMAGE_SIZE,
        "patch_size": 16,
        "num_frames": num_frames,
    }
    joint = {"projection_dim": 32, "prompt_num_attention_heads": 2}
    return XCLIPConfig(
        text_config={**text_config, **(text or {})},
        vision_config={**vision_config, **(vision or {})},
        **{**joint, **fields},
    )


def scatter_weights(model: nn.Module, *, scale: float = 0.1) -> None:
    """Moves every parameter away from its initial value, so that no zero bias or unit norm hides a fault."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator) * scale
            parameter.add_(noise.to(parameter))


def tiny_model(*, attn_implementation: str = "sdpa", **config: Any) -> XCLIPModel:
    """A tiny X-CLIP in evaluation mode with scattered weights; the same ones each time for the same arguments."""
    torch.manual_seed(0)
    model = XCLIPModel._from_config(tiny_config(**config), attn_implementation=attn_implementation)
    scatter_weights(model)
    return model.eval()


def tiny_clip_config(*, vocab_size: int = TINY_VOCABULARY, max_tokens: int = 16) -> CLIPConfig:
    """A CLIP of the sizes of `tiny_config`."""
    config = tiny_config(text={"vocab_size": vocab_size, "max_position_embeddings": max_tokens}).to_dict()
    names = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
    text = {name: config["text_config"][name] for name in (*names, "vocab_size", "max_position_embeddings")}
    text |= {"bos_token_id": vocab_size - 2, "eos_token_id": vocab_size - 1}
    vision = {name: config["vision_config"][name] for name in (*names, "image_size", "patch_size")}
    return CLIPConfig(text_config=text, vision_config=vision, projection_dim=config["projection_dim"])


def tiny_clip(config: CLIPConfig | None = None) -> CLIPModel:
    """A tiny CLIP in evaluation mode with scattered weights; the same ones each time for the same configuration."""
    torch.manual_seed(0)
    clip = CLIPModel(config or tiny_clip_config())
    scatter_weights(clip)
    return clip.eval()


def tiny_moted_config(
    *, num_frames: int = TINY_FRAMES, vocab_size: int = TINY_VOCABULARY, max_tokens: int = 16, **overrides: Any
) -> MotedConfig:
    """A MoTED on `tiny_clip_config`, its attentions with more than one head; `overrides` are fields that differ."""
    clip = tiny_clip_config(vocab_size=vocab_size, max_tokens=max_tokens)
    heads = {"motion_num_attention_heads": 3, "joint_num_attention_heads": 2}
    return MotedConfig.from_clip_config(clip, num_frames=num_frames, **{**heads, **overrides})


def tiny_moted(*, attn_implementation: str = "sdpa", **config: Any) -> MotedModel:
    """A tiny MoTED in evaluation mode with scattered weights; the same ones each time for the same arguments."""
    torch.manual_seed(0)
    model = MotedModel._from_config(tiny_moted_config(**config), attn_implementation=attn_implementation)
    scatter_weights(model)
    return model.eval()


def tiny_moted_fields(**fields: Any) -> str:
    """The `model_config` of a recipe for a tiny MoTED, as JSON; its vocabulary is that of the recipe's texts."""
    config = tiny_clip_config(max_tokens=77).to_dict()
    sizes = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
    text = {name: config["text_config"][name] for name in sizes}
    vision = {name: config["vision_config"][name] for name in (*sizes, "image_size", "patch_size")}
    motion = {"motion_hidden_size": 24, "motion_num_attention_heads": 2, "joint_num_attention_heads": 2}
    return json.dumps({"text_config": text, "vision_config": vision, "projection_dim": 32, **motion, **fields})


def tiny_video_clip_config(
    pooling: str = "mean",
    *,
    num_frames: int | None = None,
    vocab_size: int = TINY_VOCABULARY,
    max_tokens: int = 16,
    **overrides: Any,
) -> VideoCLIPConfig:
    """A VideoCLIP on `tiny_clip_config`; its transformer over frames has two layers of two heads."""
    clip = tiny_clip_config(vocab_size=vocab_size, max_tokens=max_tokens)
    fields = {"temporal_pooling": pooling, "temporal_num_layers": 2, "temporal_num_attention_heads": 2, **overrides}
    frames = num_frames or (1 if pooling == "one_frame" else TINY_FRAMES)
    return VideoCLIPConfig.from_clip_config(clip, num_frames=frames, **fields)


def tiny_video_clip(pooling: str = "mean", *, attn_implementation: str = "sdpa", **config: Any) -> VideoCLIPModel:
    """A tiny VideoCLIP in evaluation mode with scattered weights; the same ones each time for the same arguments."""
    torch.manual_seed(0)
    model = VideoCLIPModel._from_config(
        tiny_video_clip_config(pooling, **config), attn_implementation=attn_implementation
    )
    scatter_weights(model)
    return model.eval()


def tiny_videos(batch_size: int = 2, num_frames: int = TINY_FRAMES, *, size: int = TINY_IMAGE_SIZE) -> torch.Tensor:
    """(B, T, 3, H, W) noise, the same each time."""
    generator = torch.Generator().manual_seed(2)
    return torch.randn(batch_size, num_frames, 3, size, size, generator=generator)


def tiny_texts(num_classes: int = 3, *, length: int = 9) -> dict[str, torch.Tensor]:
    """`input_ids` and `attention_mask` (N, L) of texts of different lengths, each an end token and then padding."""
    generator = torch.Generator().manual_seed(3)
    input_ids = torch.randint(2, TINY_VOCABULARY - 1, (num_classes, length), generator=generator)
    attention_mask = torch.ones_like(input_ids)
    for row in range(num_classes):
        end = length - 1 - row % (length - 2)
        input_ids[row, end] = TINY_VOCABULARY - 1
        input_ids[row, end + 1 :] = 1
        attention_mask[row, end + 1 :] = 0
    return {"input_ids": input_ids, "attention_mask": attention_mask}


def tiny_descriptions(
    num_classes: int = 3, count: int = 4, *, missing: Iterable[tuple[int, int]] = ()
) -> dict[str, torch.Tensor]:
    """`description_input_ids` and its mask (N, count, L); `missing` are (class, description) that are not there."""
    texts = tiny_texts(num_classes * (count + 1))  # the first of them are the class names of `tiny_texts`
    input_ids, mask = (tensor[num_classes:].unflatten(0, (num_classes, count)) for tensor in texts.values())
    for row, column in missing:
        input_ids[row, column] = 1
        mask[row, column] = 0
    return {"description_input_ids": input_ids, "description_attention_mask": mask}


def largest_difference(left: torch.Tensor, right: torch.Tensor) -> float:
    """Of two tensors of one shape."""
    assert left.shape == right.shape, (left.shape, right.shape)
    return (left.detach().double() - right.detach().double()).abs().max().item()


def gradients(model: nn.Module) -> dict[str, torch.Tensor]:
    """Copies of the gradients there are, by the names of their parameters."""
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def assert_equal_gradients(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> None:
    """Equal up to rounding, for the same parameters, and some at all."""
    assert left.keys() == right.keys() and left
    largest = max(gradient.norm().item() for gradient in left.values())
    for name, gradient in left.items():
        difference = (gradient - right[name]).norm().item()
        assert difference <= 1e-4 * gradient.norm().item() + 1e-6 * largest, name


def run_cli(*arguments: object, keys: str = "", columns: int = 160) -> Result:
    """What `kinetext` with these arguments prints in a terminal so wide, given `keys`, and its exit code."""
    return CliRunner().invoke(cli.app, [str(one) for one in arguments], input=keys, env={"COLUMNS": str(columns)})
