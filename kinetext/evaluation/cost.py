"""What a model costs: parameters and multiply-accumulates by tower, counted without allocating a weight.

One forward of one view runs on the meta device, where tensors have shapes only, under torch's FLOP counter; a
multiply-accumulate (MAC) is two FLOPs. Matrix products and convolutions count; norms, activations and softmax do not.
So do the papers: their "FLOPs" are MACs of one view, with about 400 classes and without the text tower.

Legend: T frames, N classes, L tokens.
"""

from __future__ import annotations

import copy
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from ..modeling.modeling_moted import MotedModel
from ..modeling.modeling_video_clip import VideoCLIPModel
from ..modeling.modeling_xclip import XCLIPModel

TEXT_TOWER = "text tower"
TEXT_MODULES = "text modules"
_PER_CLASS_LIST = (TEXT_TOWER, TEXT_MODULES)  # what depends on the class list alone
_DESCRIPTIONS = 6  # of a class: one conceptual and k = 5 discriminative ones (MoTED paper §3.1)

# model_type -> (model class, its towers: name and pattern that starts the paths of its modules and parameters)
_TOWERS: dict[str, tuple[type[Any], dict[str, str]]] = {
    "xclip": (
        XCLIPModel,
        {
            "image tower": r"visual_projection|vision_model(?!\.encoder\.layers\.\d+\.message_)",
            "messages": r"vision_model\.encoder\.layers\.\d+\.message_",
            "MIT": r"mit\b",
            # $ is the model itself: the projection of patch features, a bare parameter, and the product with the texts.
            "prompts and logits": r"prompts_|logit_scale$|$",
            TEXT_TOWER: r"text_model|text_projection",
        },
    ),
    "moted": (
        MotedModel,
        {
            "image tower": r"visual_projection|vision_model",
            "motion encoder": r"motion_encoder|motion_projection",
            "video fusion and logits": r"video_fusion|logit_scale$|$",
            TEXT_MODULES: r"text_adapter|text_fusion",
            TEXT_TOWER: r"text_model|text_projection",
        },
    ),
    "video_clip": (
        VideoCLIPModel,
        {
            "image tower": r"visual_projection|vision_model|joint_position_embedding",
            "transformer over frames": r"temporal_transformer",
            "logits": r"logit_scale$|$",
            TEXT_TOWER: r"text_model|text_projection",
        },
    ),
}


@dataclass(frozen=True)
class TowerCost:
    """What one tower costs.

    Attributes:
        tower: its name.
        parameters: number of its parameters.
        macs: multiply-accumulates of one view; of the whole class list in the text tower.
        is_per_view: False for what depends on the class list alone, such as the text tower (see `TextBank`).
    """

    tower: str
    parameters: int
    macs: int
    is_per_view: bool


@dataclass(frozen=True)
class Cost:
    """What a model costs, by tower, and the sizes that this was counted for.

    Attributes:
        towers: one entry per tower; together they are the whole model and the whole forward.
        num_frames: T of the view.
        num_classes: N of the class list.
        num_tokens: L of a class text.
        trainable_parameters: those that the model itself does not freeze.
    """

    towers: tuple[TowerCost, ...]
    num_frames: int
    num_classes: int
    num_tokens: int
    trainable_parameters: int

    @property
    def parameters(self) -> int:
        """Parameters of the model."""
        return sum(tower.parameters for tower in self.towers)

    @property
    def view_macs(self) -> int:
        """Multiply-accumulates that every view costs: all but the text side, as published figures count."""
        return sum(tower.macs for tower in self.towers if tower.is_per_view)

    @property
    def class_list_macs(self) -> int:
        """Multiply-accumulates of encoding the class list once."""
        return sum(tower.macs for tower in self.towers if not tower.is_per_view)


def measure_cost(config: Any, *, num_frames: int | None = None, num_classes: int = 400, num_tokens: int = 77) -> Cost:
    """Parameters and multiply-accumulates of the model that `config` describes; seconds for the largest, no memory.

    Args:
        config: configuration of a kinetext model, such as `XCLIPConfig.preset("base-patch16")`; not changed.
        num_frames: T of the view, for MoTED its sparse frames; the trained number when not given.
        num_classes: N.
        num_tokens: L, tokens of a class text; the original pads to 77, which this package does not.
            MoTED is counted with six descriptions a class, of as many tokens each.

    Raises:
        ValueError: for another kind of configuration, for a count below 1, and for texts longer than the model takes.

    Example:
        >>> from kinetext import XCLIPConfig
        >>> cost = measure_cost(XCLIPConfig.preset("base-patch32"), num_classes=400)
        >>> cost.parameters, round(cost.view_macs / 1e9, 1)
        (196585729, 38.2)
    """
    if config.model_type not in _TOWERS:
        raise ValueError(f"no cost table for model type {config.model_type!r}; there is one for {', '.join(_TOWERS)}.")
    if num_frames is None:
        num_frames = (config if hasattr(config, "num_frames") else config.vision_config).num_frames
    _check_counts(num_frames=num_frames, num_classes=num_classes, num_tokens=num_tokens)
    context_length = config.text_config.max_position_embeddings
    if num_tokens > context_length:
        raise ValueError(f"num_tokens={num_tokens} is more than the {context_length} that the model takes; lower it.")

    model_class, towers = _TOWERS[config.model_type]
    with torch.device("meta"):
        # Eager, because the fused attention of some devices is no entry of torch's FLOP table and would count as 0.
        model = model_class._from_config(copy.deepcopy(config), attn_implementation="eager").eval()
        inputs = _view_and_texts(config, num_frames, num_classes, num_tokens)
    parameters = _by_tower({name: tensor.numel() for name, tensor in model.named_parameters()}, towers)
    flops = _by_tower(_own_flops(model, inputs), towers)
    rows = [TowerCost(name, parameters[name], flops[name] // 2, name not in _PER_CLASS_LIST) for name in towers]
    trainable = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    return Cost(tuple(rows), num_frames, num_classes, num_tokens, trainable)


def _check_counts(**counts: int) -> None:
    for name, count in counts.items():
        if count < 1:
            raise ValueError(f"{name}={count} must be at least 1.")


def _view_and_texts(config: Any, num_frames: int, num_classes: int, num_tokens: int) -> dict[str, torch.Tensor]:
    """Inputs of the right shapes, on the device of the context: one view, (1, T, 3, H, W), and class texts, (N, L)."""
    vision = config.vision_config
    size = vision.image_size
    height, width = (size, size) if isinstance(size, int) else size
    motion_frame_ratio = getattr(config, "motion_frame_ratio", 1)
    inputs = {
        "pixel_values": torch.empty(1, motion_frame_ratio * num_frames, vision.num_channels, height, width),
        "input_ids": torch.empty(num_classes, num_tokens, dtype=torch.long),
    }
    if getattr(config, "uses_descriptions", False):
        inputs["description_input_ids"] = inputs["input_ids"].new_empty(num_classes, _DESCRIPTIONS, num_tokens)
    return inputs


def _own_flops(model: nn.Module, inputs: Mapping[str, torch.Tensor]) -> dict[str, int]:
    """FLOPs of one forward by module path, each without those of the modules inside it; "" is the model itself."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(**inputs)
    root = type(model).__name__
    inclusive = {
        path.removeprefix(root).removeprefix("."): sum(by_operation.values())
        for path, by_operation in counter.get_flop_counts().items()
        if path != "Global"
    }
    own = Counter(inclusive)
    for path, flops in inclusive.items():
        if path:
            own[_nearest_ancestor(path, inclusive)] -= flops
    return dict(own)


def _nearest_ancestor(path: str, paths: Mapping[str, int]) -> str:
    """The innermost of `paths` around `path`; containers such as `layers` are never called and have no entry."""
    parent = path.rpartition(".")[0]
    while parent not in paths:
        parent = parent.rpartition(".")[0]
    return parent


def _by_tower(counts: Mapping[str, int], towers: Mapping[str, str]) -> Counter[str]:
    """`counts` by path of module or parameter, summed by tower."""
    total: Counter[str] = Counter()
    for path, count in counts.items():
        (tower,) = [name for name, pattern in towers.items() if re.match(pattern, path)]
        total[tower] += count
    return total
