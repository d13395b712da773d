"""The video tower beside the machine's own matrix products, memory of long clips, and what texts and frames cost.

python -m benchmarks.tower

The tower is what makes video features of pixels: image tower with messages between frames, projection, integration
over frames. Its operations are counted on transformers' modules, and taken for ours too, whatever ours leaves out.
100 % is the best rate that any large product of the same type reached in the same run, the tower's own among them.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers.models.x_clip.configuration_x_clip import XCLIPConfig as StockConfig
from transformers.models.x_clip.modeling_x_clip import XCLIPModel as StockModel

from kinetext import XCLIPConfig, XCLIPModel

from .harness import Benchmark, Subject, run

THREADS = 2
PRESET, NUM_FRAMES, BATCH_SIZE = "base-patch16", 8, 2
SMALL_PRESET = "base-patch32"
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
_ROWS = BATCH_SIZE * NUM_FRAMES * 197  # tokens of the tower
# rows, inner side, columns
PRODUCTS = ((4096, 4096, 4096), (2048, 2048, 2048), (_ROWS, 768, 3072), (_ROWS, 3072, 768), (_ROWS, 768, 768))
CLASS_COUNTS = (10, 400, 4000)
FRAME_COUNTS = (8, 16, 32)
NUM_TOKENS = 10  # to which the names of Kinetics-400 are padded

_OURS, _STOCK = "kinetext", "transformers"


def build(library: str, preset: str, num_frames: int, dtype: torch.dtype = torch.float32) -> Any:
    """An X-CLIP with random weights of one of the libraries, in evaluation mode."""
    config = XCLIPConfig.preset(preset, num_frames=num_frames)
    model: Any = XCLIPModel(config) if library == _OURS else StockModel(StockConfig(**config.to_dict()))
    return model.to(dtype).eval()


def _clips(batch_size: int, num_frames: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(batch_size, num_frames, 3, 224, 224, dtype=dtype)


def _tokens(num_classes: int) -> torch.Tensor:
    return torch.randint(1, 400, (num_classes, NUM_TOKENS))


# Share of the machine's rate ----------------------------------------------------------------------------------------


def multiplying(rows: int, inner: int, columns: int, dtype: torch.dtype) -> Callable[[], Any]:
    """A linear layer without bias, as models multiply."""
    left, right = torch.randn(rows, inner, dtype=dtype), torch.randn(columns, inner, dtype=dtype)
    return torch.inference_mode()(lambda: torch.nn.functional.linear(left, right))


def encoding_videos(
    library: str, dtype: torch.dtype, preset: str, batch_size: int, num_frames: int
) -> Callable[[], Any]:
    """The tower, by the name that both libraries have for it."""
    model, pixel_values = build(library, preset, num_frames, dtype), _clips(batch_size, num_frames, dtype)
    return torch.inference_mode()(lambda: model.get_video_features(pixel_values=pixel_values))


@functools.cache
def tower_gflop() -> float:
    """Of the tower of `PRESET` on `BATCH_SIZE` clips of `NUM_FRAMES` frames."""
    config = XCLIPConfig.preset(PRESET, num_frames=NUM_FRAMES)
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        # Eager, because fused attention is no entry of torch's table on every device.
        model = StockModel._from_config(StockConfig(**config.to_dict()), attn_implementation="eager").eval()
        with torch.no_grad():
            model.get_video_features(pixel_values=_clips(BATCH_SIZE, NUM_FRAMES))
    return counter.get_total_flops() / 1e9


def tower_benchmark(name: str) -> Benchmark:
    """Both libraries and the machine's matrix products in one number type."""
    dtype, gflop, shape = DTYPES[name], tower_gflop(), (PRESET, BATCH_SIZE, NUM_FRAMES)
    products = tuple(
        Subject("product " + "x".join(map(str, sides)), multiplying, (*sides, dtype), work=2e-9 * _product(sides))
        for sides in PRODUCTS
    )
    towers = (
        Subject(_STOCK, encoding_videos, (_STOCK, dtype, *shape), work=gflop),
        Subject(_OURS, encoding_videos, (_OURS, dtype, *shape), {"transformers": _STOCK}, work=gflop),
    )
    return Benchmark(
        f"video tower of X-CLIP-B/16, {name}, {BATCH_SIZE} clips of {NUM_FRAMES} frames, {gflop:.0f} GFLOP",
        (*products, *towers),
        repeats=5,
        threads=THREADS,
        unit="GFLOP",
        ceiling=tuple(product.name for product in products),
        headline=f"video tower, B/16, {NUM_FRAMES} frames, {name}",
    )


def _product(sides: tuple[int, ...]) -> int:
    rows, inner, columns = sides
    return rows * inner * columns


# Memory, texts, frames ----------------------------------------------------------------------------------------------


def classifying(library: str, preset: str, num_frames: int, num_classes: int, has_bank: bool) -> Callable[[], Any]:
    """One clip against the class texts: as ids, or from a bank."""
    model, pixel_values = build(library, preset, num_frames), _clips(1, num_frames)
    texts = {"input_ids": _tokens(num_classes)}
    if has_bank:
        with torch.inference_mode():
            texts = {"text_bank": model.encode_texts(**texts)}
    return torch.inference_mode()(lambda: model(pixel_values=pixel_values, **texts))


def encoding_texts(num_classes: int) -> Callable[[], Any]:
    """Making the bank, which is done once."""
    model, input_ids = build(_OURS, SMALL_PRESET, NUM_FRAMES), _tokens(num_classes)
    return torch.inference_mode()(lambda: model.encode_texts(input_ids))


def memory_benchmark() -> Benchmark:
    """Peak of a long clip in the largest model: what one forward needs beyond its weights."""
    arguments = ("large-patch14", FRAME_COUNTS[-1], CLASS_COUNTS[0])
    return Benchmark(
        f"forward of X-CLIP-L/14, fp32, 1 clip of {FRAME_COUNTS[-1]} frames, {CLASS_COUNTS[0]} class texts",
        (
            Subject(_STOCK, classifying, (_STOCK, *arguments, False)),
            Subject(_OURS, classifying, (_OURS, *arguments, True), {"transformers": _STOCK}),
        ),
        repeats=0,
        with_memory=True,
        threads=THREADS,
        headline=f"peak memory of a forward, L/14, {FRAME_COUNTS[-1]} frames",
    )


def text_benchmark(num_classes: int) -> Benchmark:
    """What class texts add to a clip; the bank is made once for all of them."""
    arguments = (SMALL_PRESET, NUM_FRAMES, num_classes)
    return Benchmark(
        f"X-CLIP-B/32, fp32, 1 clip of {NUM_FRAMES} frames, {num_classes} class texts of {NUM_TOKENS} tokens",
        (
            Subject(_STOCK, classifying, (_STOCK, *arguments, False)),
            Subject(f"{_OURS}, text bank", classifying, (_OURS, *arguments, True), {"transformers": _STOCK}),
            Subject(f"{_OURS}, making the bank, once", encoding_texts, (num_classes,)),
        ),
        repeats=1 if num_classes == CLASS_COUNTS[-1] else 5,
        threads=THREADS,
        headline=f"pixels to logits, X-CLIP-B/32, {num_classes} classes",
    )


def frames_benchmark(num_frames: int) -> Benchmark:
    """The tower on clips of other lengths."""
    arguments = (torch.float32, SMALL_PRESET, 1, num_frames)
    return Benchmark(
        f"video tower of X-CLIP-B/32, fp32, 1 clip of {num_frames} frames",
        (
            Subject(_STOCK, encoding_videos, (_STOCK, *arguments), work=1),
            Subject(_OURS, encoding_videos, (_OURS, *arguments), {"transformers": _STOCK}, work=1),
        ),
        repeats=5,
        threads=THREADS,
        unit="clips",
        headline=f"video tower, B/32, {num_frames} frames, fp32",
    )


BENCHMARKS = (
    *(tower_benchmark(name) for name in DTYPES),
    *(text_benchmark(num_classes) for num_classes in CLASS_COUNTS),
    *(frames_benchmark(num_frames) for num_frames in FRAME_COUNTS),
    memory_benchmark(),
)

if __name__ == "__main__":
    run("tower", BENCHMARKS)
