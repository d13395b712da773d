"""The main job end to end on rendered clips: no network, no key, no GPU.

Render, train a small X-CLIP, evaluate on held-out clips and on classes never trained on, save with a card, load the
folder in a fresh process, classify a clip there and draw what the model saw.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from .data.annotations import read_clips, text_of_class
from .data.datasets import EvalClips
from .data.motion_shapes import write_motion_shapes
from .evaluation.class_texts import encode_class_texts
from .evaluation.classify import load_model
from .evaluation.evaluator import EvaluationResult, evaluate_clips
from .training.arguments import parse_recipe
from .training.run import run_training

RECIPE = Path(__file__).parent / "demo.yaml"
_TRAIN_CLIPS_PER_CLASS = 800  # with 200, the small model learns the clips instead of the motions


def run_demo(folder: Path, extra_arguments: list[str]) -> dict[str, float]:
    """Runs everything inside `folder` and returns the measured accuracies.

    Args:
        folder: receives clips/, model/ and classified.png.
        extra_arguments: settings that override the recipe, as on the command line of train.py.
    """
    # One thread here and one in the worker that decodes: two fill two cores, while three wait for each other, and far
    # longer where anything else runs on the machine.
    torch.set_num_threads(1)
    console = Console()
    clips, model, picture = folder / "clips", folder / "model", folder / "classified.png"
    started = time.monotonic()
    with _step(console, "1/4 Render clips in which only motion tells the classes apart"):
        write_motion_shapes(clips, train_per_class=_TRAIN_CLIPS_PER_CLASS)
    with _step(console, "2/4 Train a small X-CLIP, evaluate it, save it with its card"):
        arguments = [str(RECIPE), "--data_root", str(clips), "--output_dir", str(model), *extra_arguments]
        seen = run_training(parse_recipe(arguments))
    with _step(console, "3/4 Evaluate on motions it never saw, by their names alone"):
        unseen = _evaluate_unseen(clips, model)
    with _step(console, "4/4 Classify a clip in a fresh process, through AutoModel and AutoProcessor"):
        _classify_in_fresh_process(clips, model, picture)
    assert seen is not None  # the recipe has evaluation clips
    console.print(_summary(seen, unseen, model, picture, time.monotonic() - started))
    return {"seen_top1": seen.metrics()["top1"], "unseen_top1": unseen.metrics()["top1"]}


@contextmanager
def _step(console: Console, title: str) -> Iterator[None]:
    console.rule(f"[bold]{title}", align="left")
    started = time.monotonic()
    yield
    console.print(f"[dim]{time.monotonic() - started:.0f} s")


def _evaluate_unseen(clips: Path, folder: Path) -> EvaluationResult:
    model, processor = load_model(str(folder))
    listed = read_clips("unseen", data_root=clips)
    names = [text_of_class(name) for name in listed.class_names]
    return evaluate_clips(model, EvalClips(listed, processor), encode_class_texts(model, processor, names))


def _classify_in_fresh_process(clips: Path, model: Path, picture: Path) -> None:
    listed = read_clips("validation", data_root=clips)
    labels = ",".join(text_of_class(name) for name in listed.class_names)
    command = [sys.executable, "-m", "kinetext.cli", "classify", listed.clips[0].source]
    subprocess.run([*command, "--labels", labels, "--model", str(model), "--save", str(picture)], check=True)


def _summary(seen: EvaluationResult, unseen: EvaluationResult, model: Path, picture: Path, duration_s: float) -> Table:
    table = Table(title=f"kinetext demo, {duration_s:.0f} s")
    for column in ("clips", "classes", "top-1", "correct", "chance"):
        table.add_column(column, justify="left" if column == "clips" else "right")
    for name, result in (("held out", seen), ("held out, unseen motions (zero-shot)", unseen)):
        metrics, classes = result.metrics(), len(result.class_names)
        counts = f"{metrics['top1_count']:.0f}/{metrics['num_decoded']:.0f}"
        table.add_row(name, str(classes), f"{metrics['top1']:.3f}", counts, f"{1 / classes:.3f}")
    table.caption = f"model, processor, card and results: {model}\npicture: {picture}"
    return table
