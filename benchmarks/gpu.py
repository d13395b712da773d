"""Clips per second on one GPU, bf16: X-CLIP-B/16 and MoTED-B/16 beside transformers' X-CLIP, eager and compiled.

python -m benchmarks.gpu

100 % is the rate of a large product of bf16 matrices in the same run. Operations are those of the tables of
`kinetext cost`, without the text tower, which no way runs but "texts every time".
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import torch
from transformers.models.x_clip.configuration_x_clip import XCLIPConfig as StockConfig
from transformers.models.x_clip.modeling_x_clip import XCLIPModel as StockModel

from kinetext import MotedConfig, MotedModel, XCLIPConfig, XCLIPModel
from kinetext.evaluation.cost import measure_cost

from .harness import Benchmark, Subject, run

PRESET, BATCH_SIZE, NUM_FRAMES = "base-patch16", 16, 8
NUM_CLASSES, NUM_DESCRIPTIONS, NUM_TOKENS = 400, 6, 16
_SIDE = 8192
_STOCK = "transformers X-CLIP"


def multiplying() -> Callable[[], Any]:
    """A product of square matrices."""
    matrix = torch.randn(_SIDE, _SIDE, dtype=torch.bfloat16, device="cuda")
    return _finished(lambda: matrix @ matrix)


def stock() -> Callable[[], Any]:
    """transformers' X-CLIP, whose forward takes the ids of the class texts."""
    config = StockConfig(**XCLIPConfig.preset(PRESET, num_frames=NUM_FRAMES).to_dict())
    model: Any = StockModel(config).to("cuda", torch.bfloat16).eval()
    input_ids, pixel_values = _tokens(), _clips(NUM_FRAMES)
    return _finished(lambda: model(input_ids=input_ids, pixel_values=pixel_values))


def ours(architecture: str, is_compiled: bool) -> Callable[[], Any]:
    """A kinetext model with its class texts in a bank."""
    config = _config(architecture)
    model: Any = _MODELS[architecture](config).to("cuda", torch.bfloat16).eval()
    texts = {"input_ids": _tokens()}
    if architecture == "moted":
        texts["description_input_ids"] = torch.randint(1, 400, (NUM_CLASSES, NUM_DESCRIPTIONS, NUM_TOKENS)).cuda()
    with torch.inference_mode():
        bank = model.encode_texts(**texts)
    pixel_values = _clips(NUM_FRAMES * getattr(config, "motion_frame_ratio", 1))
    if is_compiled:
        model.compile()
    return _finished(lambda: model(pixel_values=pixel_values, text_bank=bank))


_MODELS: dict[str, Callable[[Any], Any]] = {"xclip": XCLIPModel, "moted": MotedModel}


def _config(architecture: str) -> Any:
    kinds: dict[str, Any] = {"xclip": XCLIPConfig, "moted": MotedConfig}
    return kinds[architecture].preset(PRESET, num_frames=NUM_FRAMES)


def _tokens() -> torch.Tensor:
    return torch.randint(1, 400, (NUM_CLASSES, NUM_TOKENS), device="cuda")


def _clips(num_frames: int) -> torch.Tensor:
    return torch.randn(BATCH_SIZE, num_frames, 3, 224, 224, dtype=torch.bfloat16, device="cuda")


def _finished(call: Callable[[], Any]) -> Callable[[], Any]:
    """The call, waited for."""

    @torch.inference_mode()
    def finish() -> None:
        call()
        torch.cuda.synchronize()

    return finish


def gpu_benchmark(architecture: str, name: str) -> Benchmark:
    """One of our models, eager and compiled, beside transformers'."""
    cost = measure_cost(_config(architecture), num_classes=NUM_CLASSES, num_tokens=NUM_TOKENS)
    stock_cost = measure_cost(_config("xclip"), num_classes=NUM_CLASSES, num_tokens=NUM_TOKENS)
    gflop = 2e-9 * BATCH_SIZE * cost.view_macs
    stock_gflop = 2e-9 * (BATCH_SIZE * stock_cost.view_macs + stock_cost.class_list_macs)
    product = Subject(f"product of side {_SIDE}", multiplying, work=2e-9 * _SIDE**3)
    return Benchmark(
        f"{name}-B/16, bf16, {BATCH_SIZE} clips of {NUM_FRAMES} frames, {NUM_CLASSES} class texts of {NUM_TOKENS} "
        f"tokens, {torch.cuda.get_device_name()}",
        (
            product,
            Subject(f"{_STOCK}, texts every time", stock, work=stock_gflop),
            *(
                Subject(
                    f"kinetext {name}{', compiled' if is_compiled else ''}",
                    ours,
                    (architecture, is_compiled),
                    {_STOCK: f"{_STOCK}, texts every time"},
                    gflop,
                )
                for is_compiled in (False, True)
            ),
        ),
        repeats=20,
        unit="GFLOP",
        ceiling=(product.name,),
        headline=f"{name}-B/16, bf16, {BATCH_SIZE} clips on a GPU",
    )


def main() -> None:
    """Measures where there is a GPU."""
    if not torch.cuda.is_available():
        sys.exit("benchmarks.gpu needs a CUDA GPU, and torch finds none here; nothing was measured.")
    run("gpu", [gpu_benchmark("xclip", "X-CLIP"), gpu_benchmark("moted", "MoTED")])


if __name__ == "__main__":
    main()
