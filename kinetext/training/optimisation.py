"""Parameter groups."""

from __future__ import annotations

from typing import Any

import torch


def parameter_groups(
    model: Any, *, learning_rate: float, new_module_lr_factor: float, weight_decay: float
) -> list[dict[str, Any]]:
    """AdamW groups of what is trainable (VideoX `optimizer.py`): CLIP or new modules, with or without weight decay.

    New modules are those the model names itself (`new_parameter_names`). No decay on 1-D tensors (biases, norms, gains)
    and position embeddings. Empty groups are left out.
    """
    new_names = model.new_parameter_names()
    groups: dict[tuple[bool, bool], list[torch.Tensor]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            has_decay = parameter.ndim > 1 and "position_embedding" not in name
            groups.setdefault((name in new_names, has_decay), []).append(parameter)
    return [
        {
            "params": parameters,
            "lr": learning_rate * (new_module_lr_factor if is_new else 1.0),
            "weight_decay": weight_decay if has_decay else 0.0,
        }
        for (is_new, has_decay), parameters in sorted(groups.items(), key=lambda item: item[0])
    ]
