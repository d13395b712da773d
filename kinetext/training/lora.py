"""LoRA through peft: small adapters are trained in place of CLIP's weights, then folded into them.

"LoRA: Low-Rank Adaptation of Large Language Models", ICLR 2022: W x becomes W x + (alpha / rank) B A x, W frozen.
peft only replaces the layers, so the model keeps its class; nothing of peft is in what is saved after [`merge_lora`].
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn


def add_lora(
    model: Any,
    *,
    rank: int,
    alpha: float,
    targets: Sequence[str] = ("q_proj", "k_proj", "v_proj", "out_proj", "o_proj"),
) -> None:
    """Freezes the CLIP towers that are to be trained and gives their attention projections adapters, in place.

    What is frozen already stays so without adapters: the text tower of an X-CLIP unless its text is trained. New
    modules and the logit scale are trained as before.

    Args:
        model: a model of this package after `set_trainable`.
        rank: of the adapters.
        alpha: adapters are scaled by alpha / rank.
        targets: names of the linear layers that get one, as they are called in their attention.

    Raises:
        ImportError: without peft.
        ValueError: if no trainable layer of CLIP has such a name: in a MoTED, whose towers are always frozen.
    """
    peft = _import_peft()
    new_names = model.new_parameter_names()
    adapted = [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear)
        and name.rpartition(".")[2] in targets
        and module.weight.requires_grad
        and f"{name}.weight" not in new_names
    ]
    if not adapted:
        raise ValueError(
            f"LoRA found nothing to adapt in {type(model).__name__}: no layer of CLIP named {' or '.join(targets)} is "
            "trained. Train a tower (set_trainable), or leave LoRA out where the towers stay frozen, as in MoTED."
        )
    kept = [
        parameter
        for name, parameter in model.named_parameters()
        if parameter.requires_grad and (name in new_names or name == "logit_scale")
    ]
    peft.inject_adapter_in_model(peft.LoraConfig(r=rank, lora_alpha=alpha, target_modules=adapted), model)
    for parameter in kept:  # peft froze all but its own
        parameter.requires_grad_(True)


def adapter_parameter_names(model: Any) -> set[str]:
    """Names of the parameters that [`add_lora`] has added; none without it."""
    added = {id(parameter) for _, layer in _adapted_layers(model) for parameter in _adapter_parameters(layer)}
    return {name for name, parameter in model.named_parameters() if id(parameter) in added}


def merge_lora(model: Any) -> Any:
    """Folds the adapters into the weights, in place: an ordinary model with the ordinary keys, which it returns.

    To save a model that is trained on, merge a copy: `merge_lora(copy.deepcopy(model)).save_pretrained(folder)`.

    Raises:
        ValueError: if a merged weight is not finite.
    """
    for name, layer in _adapted_layers(model):
        layer.merge(safe_merge=True)
        model.set_submodule(name, layer.get_base_layer())
    if hasattr(model, "peft_config"):
        del model.peft_config
    return model


def _adapted_layers(model: Any) -> list[tuple[str, Any]]:
    if not hasattr(model, "peft_config"):  # peft's mark on a model that it has changed
        return []
    layer_type = _import_peft().tuners.lora.LoraLayer
    return [(name, module) for name, module in model.named_modules() if isinstance(module, layer_type)]


def _adapter_parameters(layer: Any) -> list[nn.Parameter]:
    base = {id(parameter) for parameter in layer.get_base_layer().parameters()}
    return [parameter for parameter in layer.parameters() if id(parameter) not in base]


def _import_peft() -> Any:
    try:
        import peft
    except ImportError as error:
        raise ImportError(f'LoRA needs peft ({error}); install it with: pip install "kinetext[lora]"') from error
    return peft
