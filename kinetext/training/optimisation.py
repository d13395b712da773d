"""AdamW's parameter groups and the learning-rate schedule, as published (VideoX `optimizer.py`)."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import torch

from .lora import adapter_parameter_names


def parameter_groups(
    model: Any, *, learning_rate: float, new_module_lr_factor: float, weight_decay: float, decay_all: bool = False
) -> list[dict[str, Any]]:
    """AdamW groups that hold each trainable parameter once: CLIP's or new, with or without weight decay.

    New is what the model names itself (`new_parameter_names`) and what LoRA adds. No decay on vectors (biases, norms,
    gains), the logit scale and position parameters (`position_parameter_names`). The original decays the logit scale
    where its text tower is trained; we don't. Empty groups are left out.

    Args:
        model: a model of this package, not wrapped.
        learning_rate: of what CLIP brings.
        new_module_lr_factor: rate of new parameters, times `learning_rate`.
        weight_decay: of those that decay.
        decay_all: decay everything, as Text4Vis and ViFi-CLIP do.

    Returns:
        Groups with params, lr, weight_decay and name: clip, clip_no_decay, new or new_no_decay.
    """
    new_names = model.new_parameter_names() | adapter_parameter_names(model)
    position_names = model.position_parameter_names()
    groups: dict[str, list[torch.Tensor]] = {name: [] for name in ("clip", "clip_no_decay", "new", "new_no_decay")}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            has_decay = decay_all or (parameter.ndim > 1 and name not in position_names)
            groups[("new" if name in new_names else "clip") + ("" if has_decay else "_no_decay")].append(parameter)
    return [
        {
            "name": name,
            "params": parameters,
            "lr": learning_rate * (new_module_lr_factor if name.startswith("new") else 1.0),
            "weight_decay": 0.0 if name.endswith("_no_decay") else weight_decay,
        }
        for name, parameters in groups.items()
        if parameters
    ]


def cosine_schedule(
    optimizer: torch.optim.Optimizer, *, num_steps: int, num_warmup_steps: int, min_learning_rate: float
) -> torch.optim.lr_scheduler.LambdaLR:
    """The published cosine (timm's, per iteration): update k, from 0, is made with the rate of step k.

    Linear warm-up from 0, which replaces the start of the cosine rather than delaying it: where it ends, the rate drops
    onto the curve (to 0.934 of the base rate with 5 of 30 epochs of warm-up, 0.505 with 5 of 10). The cosine ends at
    the same absolute floor in all groups, also in those with ten times the rate.

    Args:
        optimizer: its groups hold their highest rates.
        num_steps: updates of the whole run.
        num_warmup_steps: updates of the warm-up; a run that is shorter never leaves it.
        min_learning_rate: the floor.

    Raises:
        ValueError: for a run of no step, and for a floor that is negative or above the rate of a group.
    """
    if num_steps < 1:
        raise ValueError(f"num_steps={num_steps} must be at least 1.")
    rates = [group["lr"] for group in optimizer.param_groups]
    if not 0 <= min_learning_rate <= min(rates):
        raise ValueError(
            f"min_learning_rate={min_learning_rate} is the floor of all parameter groups, whose rates are "
            f"{sorted(set(rates))}; choose one from 0 to {min(rates)}."
        )
    factors: list[Callable[[int], float]] = [
        functools.partial(
            _rate_factor, num_steps=num_steps, num_warmup_steps=num_warmup_steps, floor=min_learning_rate / (rate or 1)
        )
        for rate in rates
    ]
    return torch.optim.lr_scheduler.LambdaLR(optimizer, factors)


def _rate_factor(step: int, *, num_steps: int, num_warmup_steps: int, floor: float) -> float:
    """Share of a group's highest rate at a step; `floor` is the share at the end."""
    if step < num_warmup_steps:
        return step / num_warmup_steps
    cosine = (1 + math.cos(math.pi * min(step, num_steps) / num_steps)) / 2
    return floor + (1 - floor) * cosine
