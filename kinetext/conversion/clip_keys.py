"""Names of CLIP's tensors: OpenAI's, which the projects built on its code keep, to those of transformers.

Key map: after huggingface/transformers `convert_x_clip_original_pytorch_to_hf.py`, whose towers are CLIP's.

Legend: D image width, W text width, E joint width, K patches, P side of a patch, L tokens.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from ..modeling.configuration_video_text import HEAD_DIM
from .checkpoints import require_fit

TEXT_LAYERS = "transformer.resblocks."  # of the text tower, and with `visual.` in front, of the image tower

# modules with weight and bias in a layer: original -> transformers
_BLOCK_MODULES = {
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
    "attn.out_proj": "self_attn.out_proj",
}


@dataclass(frozen=True)
class Rule:
    """Where one tensor of the original goes: to one place, or in equal blocks of rows to several."""

    targets: tuple[str, ...]
    is_transposed: bool = False  # a parameter (in, out) there, the weight of an nn.Linear here

    def convert(self, tensor: torch.Tensor) -> dict[str, torch.Tensor]:
        """The tensors by their name here, each with memory of its own."""
        if self.is_transposed and tensor.ndim == 2:
            tensor = tensor.T
        blocks = [tensor] if len(self.targets) == 1 else torch.atleast_1d(tensor).tensor_split(len(self.targets))
        copies = [block.clone(memory_format=torch.contiguous_format) for block in blocks]
        return dict(zip(self.targets, copies, strict=True))


def convert_state(state: Mapping[str, torch.Tensor], rules: Mapping[str, Rule]) -> dict[str, torch.Tensor]:
    """The tensors of `state`, whose keys are those of `rules`, by their names here."""
    return {name: part for key, tensor in state.items() for name, part in rules[key].convert(tensor).items()}


def check_keys(path: Path, project: str, keys: Iterable[str], rules: Mapping[str, Rule]) -> None:
    """Raises ValueError, naming missing and left-over ones, unless `keys` are those of `rules`."""
    keys = set(keys)
    missing = [f"{key} (for {', '.join(rules[key].targets)})" for key in rules.keys() - keys]
    require_fit(path, project, missing=missing, left_over=keys - rules.keys())


def count_layers(keys: Iterable[str], prefix: str) -> int:
    """Number of layers from their highest index; at least 1, so that a stack that is not there is missed."""
    pattern = re.compile(re.escape(prefix) + r"(\d+)\.")
    return max((int(match[1]) for match in map(pattern.match, keys) if match), default=0) + 1


# Rules


def text_rules(num_layers: int, prefix: str = "") -> dict[str, Rule]:
    """Of a text tower, its names behind `prefix`, less the token embeddings, which not every project saves."""
    rules = {
        f"{prefix}positional_embedding": Rule(("text_model.embeddings.position_embedding.weight",)),
        f"{prefix}text_projection": Rule(("text_projection.weight",), is_transposed=True),
        **module_rules(prefix, "text_model.", {"ln_final": "final_layer_norm"}),
    }
    for index in range(num_layers):
        rules |= block_rules(f"{prefix}{TEXT_LAYERS}{index}.", f"text_model.encoder.layers.{index}.")
    return rules


def vision_rules(num_layers: int, prefix: str = "visual.", *, first_norm: str = "pre_layrnorm") -> dict[str, Rule]:
    """Of an image tower; `first_norm` is what transformers calls its first norm, misspelt in CLIP."""
    embeddings = "vision_model.embeddings."
    rules = {
        f"{prefix}class_embedding": Rule((f"{embeddings}class_embedding",)),
        f"{prefix}positional_embedding": Rule((f"{embeddings}position_embedding.weight",)),
        f"{prefix}conv1.weight": Rule((f"{embeddings}patch_embedding.weight",)),
        f"{prefix}proj": Rule(("visual_projection.weight",), is_transposed=True),
        **module_rules(prefix, "vision_model.", {"ln_pre": first_norm, "ln_post": "post_layernorm"}),
    }
    for index in range(num_layers):
        rules |= block_rules(f"{prefix}{TEXT_LAYERS}{index}.", f"vision_model.encoder.layers.{index}.")
    return rules


def block_rules(layer: str, target: str) -> dict[str, Rule]:
    """Of one layer of a tower."""
    return module_rules(layer, target, _BLOCK_MODULES) | attention_rules(f"{layer}attn", f"{target}self_attn")


def module_rules(prefix: str, target_prefix: str, modules: Mapping[str, str]) -> dict[str, Rule]:
    """Of modules with weight and bias."""
    return {
        f"{prefix}{module}.{kind}": Rule((f"{target_prefix}{target}.{kind}",))
        for module, target in modules.items()
        for kind in ("weight", "bias")
    }


def attention_rules(attention: str, target: str) -> dict[str, Rule]:
    """The fused input projection (3D, D) of `nn.MultiheadAttention`: query, key and value from top to bottom."""
    return {
        f"{attention}.in_proj_{kind}": Rule(tuple(f"{target}.{part}_proj.{kind}" for part in "qkv"))
        for kind in ("weight", "bias")
    }


# Sizes


@dataclass(frozen=True)
class Shapes:
    """The shapes of a file's tensors."""

    path: Path
    state: Mapping[str, torch.Tensor]

    def __call__(self, key: str, letters: str) -> tuple[int, ...]:
        """The shape of a tensor that must have as many dimensions as `letters` names."""
        found = tuple(self.state[key].shape)
        if len(found) != len(letters.split(",")):
            raise ValueError(f"{key} in {self.path} has shape {found}; wanted ({letters}).")
        return found


def infer_text(shape: Shapes, num_layers: int) -> dict[str, int]:
    """Fields of a `CLIPTextConfig`; heads are 64 wide, as in every OpenAI CLIP."""
    vocab_size, width = shape("token_embedding.weight", "vocabulary, W")
    return {
        "vocab_size": vocab_size,
        "max_position_embeddings": shape("positional_embedding", "L, W")[0],
        "hidden_size": width,
        "intermediate_size": shape("transformer.resblocks.0.mlp.c_fc.weight", "4W, W")[0],
        "num_hidden_layers": num_layers,
        "num_attention_heads": num_heads(width),
    }


def infer_vision(shape: Shapes, num_layers: int) -> dict[str, int]:
    """Fields of a `CLIPVisionConfig`."""
    width, num_channels, _, patch_size = shape("visual.conv1.weight", "D, 3, P, P")
    num_patches = shape("visual.positional_embedding", "1+K, D")[0] - 1
    side = math.isqrt(max(num_patches, 0))
    if side < 1 or side**2 != num_patches:
        raise ValueError(f"visual.positional_embedding has rows for {num_patches} patches, which fill no square image.")
    return {
        "hidden_size": width,
        "intermediate_size": shape("visual.transformer.resblocks.0.mlp.c_fc.weight", "4D, D")[0],
        "num_hidden_layers": num_layers,
        "num_attention_heads": num_heads(width),
        "num_channels": num_channels,
        "patch_size": patch_size,
        "image_size": side * patch_size,
    }


def num_heads(width: int) -> int:
    """Attention heads of that width in all."""
    return max(1, width // HEAD_DIM)
