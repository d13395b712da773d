"""FSDP2: what is otherwise while the weights of a model are cut into parts, one for each process."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, MutableMapping
from typing import Any

import torch
from torch.distributed.fsdp import FSDPModule, StateDictType

from .arguments import VideoTextTrainingArguments
from .lora import adapter_parameter_names


def check_sharding(model: Any, plugin: Any, args: VideoTextTrainingArguments) -> None:
    """Raises ValueError for what does not work, or was never tried, on weights in parts.

    Args:
        model: not cut yet.
        plugin: accelerate's settings of FSDP.
        args: of the run.
    """
    obstacles = {
        "fsdp_version: 1, the older FSDP": plugin.fsdp_version != 2,
        "torch_compile: never tried": args.torch_compile,
        "ema_decay: the averages would be in parts too, and saved as such": args.ema_decay is not None,
        "lora_rank: adapters are merged into whole weights": bool(adapter_parameter_names(model)),
        "fsdp_state_dict_type other than FULL_STATE_DICT: checkpoints would lack the model": (
            plugin.state_dict_type is not StateDictType.FULL_STATE_DICT
        ),
        "fsdp_cpu_ram_efficient_loading: class texts are encoded on every process": plugin.cpu_ram_efficient_loading,
    }
    found = [f"- {obstacle}" for obstacle, is_there in obstacles.items() if is_there]
    if found:
        listed = "\n".join(found)
        raise ValueError(
            f"Training on weights in parts (FSDP2) does not go together with\n{listed}\nLeave it out "
            "(configs/accelerate/fsdp2.yaml has what works), or train with configs/accelerate/ddp.yaml: every "
            "published size fits one GPU."
        )


def make_cuttable(model: Any, *, trains_text: bool) -> None:
    """Prepares a whole model: nothing that would be cut twice, no scalars, and text weights that are not hashed.

    accelerate cuts the input embeddings by themselves, besides the modules that must not be split. FSDP2 cuts along the
    first dimension, which `logit_scale` lacks; `restore_scalars` undoes it in what is saved. Parts have no fingerprint:
    a frozen tower keeps that of the whole, and banks of one that learns are good for no other model.
    """
    embeddings = model.get_input_embeddings()
    model._no_split_modules -= {type(module).__name__ for module in model.modules() if embeddings in module.children()}
    if not hasattr(model, "logit_scale"):
        return
    model.logit_scale.data = model.logit_scale.data.reshape(1)
    fingerprint = "weights in parts" if trains_text else model.text_fingerprint()
    model.text_fingerprint = lambda: fingerprint


def keep_name(model: Any, kind: type) -> None:
    """Gives the class that FSDP2 derived of `kind` its name, by which a model and its code are saved."""
    type(model).__name__, type(model).__module__ = kind.__name__, kind.__module__


def restore_scalars(state: MutableMapping[str, torch.Tensor]) -> None:
    """Gives whole weights the shapes of a model that was not cut."""
    if "logit_scale" in state:
        state["logit_scale"] = state["logit_scale"].reshape(())


@contextlib.contextmanager
def whole_weights(model: Any, *, reshard_after_forward: bool) -> Iterator[None]:
    """Every process has all weights inside the block, so that each may run the model as often as it likes.

    Otherwise each forward pass waits for one of every other process.

    Args:
        model: cut by FSDP2.
        reshard_after_forward: what its layers do outside the block.
    """
    parts = [module for module in model.modules() if isinstance(module, FSDPModule)]
    model.set_reshard_after_forward(False)
    for part in parts:
        part.unshard()
    try:
        yield
    finally:
        for part in parts:
            part.reshard()
        model.set_reshard_after_forward(reshard_after_forward)
        model.set_reshard_after_forward(False, recurse=False)  # its own weights are needed at once for the backward
