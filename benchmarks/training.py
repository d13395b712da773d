"""What a training step costs beside transformers' own X-CLIP, how long it waits for data, and how fast it is on a GPU.

python -m benchmarks.training [--data-root ../shared/data/weizmann]

The wait for data is measured where the recipes of Weizmann can run: with its clips, and with the models of `make demo`.
The last part needs a GPU.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch.utils.flop_counter import FlopCounterMode
from transformers.models.x_clip.configuration_x_clip import XCLIPConfig as StockConfig
from transformers.models.x_clip.modeling_x_clip import XCLIPModel as StockModel

from kinetext import MotedConfig, MotedModel, XCLIPConfig, XCLIPModel
from kinetext.training.arguments import parse_recipe
from kinetext.training.optimisation import parameter_groups
from kinetext.training.run import run_training

from .harness import REPOSITORY, Benchmark, Subject, run, writing

BATCH_SIZE, NUM_TOKENS = 4, 16
CLASS_COUNTS = (10, 400)  # Weizmann, Kinetics-400

WEIZMANN = REPOSITORY.parent / "shared" / "data" / "weizmann"
RECIPES = tuple(REPOSITORY / "recipes" / f"{name}.yaml" for name in ("weizmann_moted", "weizmann", "weizmann_mean"))
_NUM_STEPS, _LOGGED_STEPS = 120, 30  # the first logged ones also start the loader and decode the clips

GPU_BATCH_SIZE, GPU_DESCRIPTIONS = 16, 5 + 1
_GPU_PRESET, _GPU_CLASSES = "base-patch16", 400
_GPU_MODELS: dict[str, Callable[[str], Any]] = {
    "xclip": lambda preset: XCLIPModel(XCLIPConfig.preset(preset)),
    "moted": lambda preset: MotedModel(MotedConfig.preset(preset)),
}
_GPU_WARMUP, _GPU_STEPS = 5, 20  # the first compile
_MATMUL_SIDE, _MATMULS = 8192, 50


# A step of X-CLIP ---------------------------------------------------------------------------------------------------


def training_xclip(num_classes: int) -> Callable[[], Any]:
    """A step of X-CLIP-B/32 as `VideoTextTrainer` takes it: class texts as a bank, encoded once; fused AdamW."""
    model = XCLIPModel(XCLIPConfig.preset("base-patch32"))
    model.set_trainable()
    bank = model.encode_texts(_token_ids(num_classes))
    optimiser = torch.optim.AdamW(_groups(model), fused=True)
    pixel_values, labels = _clips()
    return _step(
        model, optimiser, lambda: model(pixel_values=pixel_values, text_bank=bank, labels=labels).loss, device="cpu"
    )


def training_plainly(num_classes: int) -> Callable[[], Any]:
    """The same step with transformers' X-CLIP as its documentation uses it: every step encodes the class texts.

    The text tower and the logit scale are frozen as above, so that both steps train the same weights.
    """
    model = StockModel(StockConfig(**XCLIPConfig.preset("base-patch32").to_dict()))
    for name, parameter in model.named_parameters():
        parameter.requires_grad = not name.startswith(("text_model", "text_projection", "logit_scale"))
    optimiser = torch.optim.AdamW([each for each in model.parameters() if each.requires_grad], lr=1e-6)
    (pixel_values, labels), input_ids = _clips(), _token_ids(num_classes)

    def loss() -> torch.Tensor:
        logits = model(input_ids=input_ids, pixel_values=pixel_values).logits_per_video
        return torch.nn.functional.cross_entropy(logits, labels)

    return _step(model, optimiser, loss, device="cpu")


def _token_ids(num_classes: int) -> torch.Tensor:
    return torch.randint(1, 400, (num_classes, NUM_TOKENS))


def _clips() -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(BATCH_SIZE, 8, 3, 224, 224), torch.arange(BATCH_SIZE)


def _groups(model: Any) -> list[dict[str, Any]]:
    return parameter_groups(model, learning_rate=1e-6, new_module_lr_factor=10.0, weight_decay=0.001)


def _step(
    model: Any, optimiser: torch.optim.Optimizer, loss: Callable[[], torch.Tensor], *, device: str
) -> Callable[[], Any]:
    """Forward in bf16 autocast, backward, AdamW."""
    model.train()

    def step() -> None:
        with torch.autocast(device, torch.bfloat16):
            value = loss()
        value.backward()
        optimiser.step()
        optimiser.zero_grad()

    return step


def step_benchmark(num_classes: int) -> Benchmark:
    """Our step against the plain one."""
    plain = "transformers, texts encoded every step"
    return Benchmark(
        f"training step of X-CLIP-B/32, 8 frames, {BATCH_SIZE} clips, bf16 autocast, {num_classes} class texts of "
        f"{NUM_TOKENS} tokens, text frozen",
        (
            Subject(plain, training_plainly, (num_classes,)),
            Subject("kinetext, text bank", training_xclip, (num_classes,), {"transformers": plain}),
        ),
        repeats=5,
        with_memory=True,
    )


BENCHMARKS = tuple(step_benchmark(num_classes) for num_classes in CLASS_COUNTS)


# Waiting for data ---------------------------------------------------------------------------------------------------


def data_wait(recipe: Path, data_root: Path, extra_arguments: tuple[str, ...] = ()) -> dict[str, Any]:
    """Share of the time that a recipe waits for data, after the first steps, and its clips per second."""
    length = ("--max_steps", str(_NUM_STEPS), "--warmup_steps", "10", "--logging_steps", str(_LOGGED_STEPS))
    saving = ("--save_strategy", "steps", "--save_steps", str(_NUM_STEPS), "--use_cpu")
    with tempfile.TemporaryDirectory() as folder:
        arguments = [str(recipe), "--data_root", str(data_root), "--output_dir", folder, *length, *saving]
        run_training(parse_recipe([*arguments, *extra_arguments]))
        state = Path(folder, f"checkpoint-{_NUM_STEPS}", "trainer_state.json")
        history = json.loads(state.read_text("utf-8"))["log_history"]
    logged = [entry for entry in history if entry["step"] > _LOGGED_STEPS and "data_wait" in entry]
    return {
        "recipe": recipe.name,
        "steps": [entry["step"] for entry in logged],
        "data_wait": [entry["data_wait"] for entry in logged],
        "clips_per_second": [entry["clips_per_second"] for entry in logged],
    }


# On a GPU -----------------------------------------------------------------------------------------------------------


def gpu_step(architecture: str, is_compiled: bool) -> Callable[[], Any]:
    """A step of X-CLIP-B/16 or MoTED-B/16 with 8 frames on synthetic clips, as their recipes train them, on the GPU."""
    with torch.device("cuda"):
        model: Any = _GPU_MODELS[architecture](_GPU_PRESET)
        texts = {"input_ids": _token_ids(_GPU_CLASSES)}
        if architecture == "moted":
            texts["description_input_ids"] = torch.randint(1, 400, (_GPU_CLASSES, GPU_DESCRIPTIONS, NUM_TOKENS))
        num_frames = 8 * getattr(model.config, "motion_frame_ratio", 1)
        pixel_values = torch.randn(GPU_BATCH_SIZE, num_frames, 3, 224, 224)
        labels = torch.arange(GPU_BATCH_SIZE)
    model.set_trainable()
    bank = model.encode_texts(**texts)
    optimiser = torch.optim.AdamW(_groups(model), fused=True)
    if is_compiled:
        model.compile()
    return _step(
        model, optimiser, lambda: model(pixel_values=pixel_values, text_bank=bank, labels=labels).loss, device="cuda"
    )


def gpu_rates() -> list[dict[str, Any]]:
    """Clips per second, peak memory and share of the measured rate of matrix products, of each model."""
    peak = matmul_rate()
    rows: list[dict[str, Any]] = [{"name": "matrix product", "side": _MATMUL_SIDE, "tflops": peak / 1e12}]
    for architecture in _GPU_MODELS:
        with FlopCounterMode(display=False) as counter:  # what torch.compile makes of it does the same work
            gpu_step(architecture, False)()
        flops = counter.get_total_flops()
        for is_compiled in (False, True):
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
            seconds = _gpu_seconds(gpu_step(architecture, is_compiled), _GPU_STEPS)
            rows.append(
                {
                    "name": f"{architecture} {_GPU_PRESET}, 8 frames{', compiled' if is_compiled else ''}",
                    "batch_size": GPU_BATCH_SIZE,
                    "step_s": seconds,
                    "clips_per_second": GPU_BATCH_SIZE / seconds,
                    "peak_gib": torch.cuda.max_memory_allocated() / 2**30,
                    "share_of_matmul_rate": flops / seconds / peak,
                }
            )
    return rows


def matmul_rate() -> float:
    """FLOPs per second of a large product of bf16 matrices."""
    matrix = torch.randn(_MATMUL_SIDE, _MATMUL_SIDE, dtype=torch.bfloat16, device="cuda")
    return 2 * _MATMUL_SIDE**3 / _gpu_seconds(lambda: matrix @ matrix, _MATMULS)


def _gpu_seconds(call: Callable[[], Any], repeats: int) -> float:
    """Mean seconds of a call, after others that do not count."""
    for _ in range(_GPU_WARMUP):
        call()
    torch.cuda.synchronize()
    started = time.perf_counter()
    for _ in range(repeats):
        call()
    torch.cuda.synchronize()
    return (time.perf_counter() - started) / repeats


def _model_of(recipe: Path) -> Path:
    return Path(str(parse_recipe([str(recipe), "--data_root", ".", "--output_dir", "."]).model.model))


def main() -> None:
    """Measures what can be measured here, and says what not."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.training", description="Measures training.")
    parser.add_argument("--data-root", type=Path, default=WEIZMANN, help="the Weizmann clips, <class>/<clip>")
    data_root = parser.parse_args().data_root
    console = Console()
    run("training", BENCHMARKS)
    models = {_model_of(recipe) for recipe in RECIPES}
    if data_root.is_dir() and all(model.is_dir() for model in models):
        with writing("training_data_wait") as results:
            results += [data_wait(recipe, data_root) for recipe in RECIPES]
    else:
        needed = ", ".join(sorted(map(str, models)))
        console.print(f"waiting for data: not measured, needs clips in {data_root}, and {needed} (make demo)")
    if torch.cuda.is_available():
        with writing("training_gpu") as results:
            results += gpu_rates()
    else:
        console.print("on a GPU: not measured, there is none")


if __name__ == "__main__":
    main()
