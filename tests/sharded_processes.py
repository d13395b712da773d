"""Two processes on a CPU whose models FSDP2 cuts; accelerate does so on accelerators only."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed
from accelerate import Accelerator
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.state import AcceleratorState, PartialState
from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin
from accelerate.utils.launch import prepare_multi_gpu_env
from testing_utils import (
    assert_equal_gradients,
    gradients,
    scatter_weights,
    tiny_config,
    tiny_descriptions,
    tiny_model,
    tiny_moted,
    tiny_texts,
    tiny_video_clip,
    tiny_videos,
)
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor
from training_runs import train

from kinetext import XCLIPForVideoClassification
from kinetext.training.sharding import make_cuttable, whole_weights

CONFIG = Path(__file__).resolve().parents[1] / "configs/accelerate/fsdp2.yaml"
LABELS = torch.tensor([0, 2])


def use_fsdp2() -> None:
    """Has accelerate do in this process what it does on GPUs with our configuration; all that follows is its own."""
    options, _, _ = _validate_launch_command(
        launch_command_parser().parse_args(["--config_file", str(CONFIG), "train.py"])
    )
    settings = prepare_multi_gpu_env(options)
    os.environ |= {name: settings[name] for name in settings if name.startswith(("FSDP_", "ACCELERATE_USE_FSDP"))}
    initialise = AcceleratorState.__init__

    def initialise_as_on_gpus(self: Any, *args: Any, fsdp_plugin: Any = None, **kwargs: Any) -> None:
        initialise(self, *args, fsdp_plugin=fsdp_plugin, **kwargs)
        if fsdp_plugin is not None:
            assert self.distributed_type == DistributedType.MULTI_CPU
            if self.mixed_precision != "no":
                fsdp_plugin.set_mixed_precision(self.mixed_precision)
            self.fsdp_plugin = fsdp_plugin
            self.distributed_type = PartialState._shared_state["distributed_type"] = DistributedType.FSDP

    AcceleratorState.__init__ = initialise_as_on_gpus


def _xclip_that_trains_its_texts() -> Any:
    model = tiny_model()
    model.set_trainable(text=True)
    return model


def _linear() -> Any:
    torch.manual_seed(0)
    model = XCLIPForVideoClassification(tiny_config(num_labels=3)).eval()
    scatter_weights(model)
    return model


MODELS: dict[str, tuple[Callable[[], Any], bool]] = {  # and whether their texts come from a bank
    "xclip": (_xclip_that_trains_its_texts, False),
    "moted": (tiny_moted, True),
    "video_clip": (lambda: tiny_video_clip("transformer"), False),
    "linear": (_linear, False),
}


def train_in_parts(arguments: list[str]) -> None:
    """What `accelerate launch --config_file configs/accelerate/fsdp2.yaml train.py` does with these arguments."""
    use_fsdp2()
    train(arguments)


def compare_with_whole(arguments: list[str]) -> None:
    """Fails unless every model, cut, computes what it does whole; for two processes with a clip each."""
    use_fsdp2()
    accelerator = Accelerator(cpu=True)
    for name, (make, has_bank) in MODELS.items():
        accelerator.state.fsdp_plugin = FullyShardedDataParallelPlugin()  # it keeps the layers of the last model
        _compare(name, make(), has_bank, accelerator)
    torch.distributed.destroy_process_group()


def _compare(name: str, model: Any, has_bank: bool, accelerator: Any) -> None:
    texts: Any = {} if name == "linear" else tiny_texts()
    if has_bank:
        texts = {"text_bank": model.encode_texts(**texts, **tiny_descriptions())}
    videos = tiny_videos()
    whole = model(pixel_values=videos, labels=LABELS, **texts)
    whole.loss.backward()
    expected = gradients(model)
    model.zero_grad()

    make_cuttable(model, trains_text=not has_bank)
    model, _ = accelerator.prepare(model, torch.optim.SGD(model.parameters()))
    assert all(isinstance(parameter, DTensor) for parameter in model.parameters())
    assert sum(isinstance(module, FSDPModule) for module in model.modules()) > 4
    rank = accelerator.process_index
    own = slice(rank, rank + 1)
    cut = model(pixel_values=videos[own], labels=LABELS[own], **texts)
    cut.loss.backward()
    loss = accelerator.reduce(cut.loss.detach(), reduction="mean")
    torch.testing.assert_close(loss, whole.loss.detach())
    found = {key: gradient.full_tensor() for key, gradient in gradients(model).items()}
    assert_equal_gradients({key: gradient.reshape(found[key].shape) for key, gradient in expected.items()}, found)
    assert name == "linear" or found["logit_scale"].abs() > 1e-3

    with torch.inference_mode(), whole_weights(model, reshard_after_forward=True):
        for _ in range(1 + rank):  # as often as each likes
            again = model(pixel_values=videos, labels=LABELS, **texts)
        torch.testing.assert_close(again.loss, whole.loss.detach())
    assert all(isinstance(parameter, DTensor) for parameter in model.parameters())
