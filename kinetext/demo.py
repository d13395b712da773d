"""The main job end to end on rendered clips: no network, no key, no GPU.

Render, pre-train a small CLIP on captioned stills, train X-CLIP and MoTED from it on the same clips for the same steps,
evaluate both on held-out clips, on clips and their reverses, and on classes never trained on; save with cards, load the
folder in fresh processes, classify a clip there, and draw what the model saw and what its score rests on.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from .data.annotations import Clip, ClipList, read_clips, text_of_class
from .data.datasets import EvalClips
from .data.motion_shapes import REVERSED_CLASSES, write_motion_shapes
from .descriptions import load_descriptions
from .evaluation.class_texts import encode_class_texts, uses_descriptions
from .evaluation.classify import load_model
from .evaluation.evaluator import evaluate_clips
from .evaluation.predictions import EvaluationResult
from .modeling.modeling_moted import MotedModel
from .processing.processing_video_text import VideoTextProcessor
from .processing.video_decoding import load_video
from .training.arguments import parse_recipe
from .training.pretrain_clip import pretrain_clip
from .training.run import run_training

RECIPE = Path(__file__).parent / "demo.yaml"
DESCRIPTIONS = "motion_shapes"
_TRAIN_CLIPS_PER_CLASS = 800  # with 200, the small model learns the clips instead of the motions

# Settings by model, beside those of the recipe that they share; heads of 32 channels as in the small CLIP. X-CLIP's are
# those it did best with in as many steps (docs/log.md).
_XCLIP_FIELDS = {"prompt_num_attention_heads": 3, "vision_config": {"mit_num_attention_heads": 3}}
_MOTED_FIELDS = {"motion_hidden_size": 96, "motion_num_attention_heads": 3, "joint_num_attention_heads": 3}
_MODELS = {
    "xclip": ["--train_text", "--new_module_lr_factor", "10", "--model_overrides", json.dumps(_XCLIP_FIELDS)],
    "moted": [
        *("--architecture", "moted", "--descriptions", DESCRIPTIONS),
        *("--model_overrides", json.dumps(_MOTED_FIELDS)),
    ],
}
_FROZEN = "frozen CLIP, mean over frames"
_TITLES = {"xclip": "X-CLIP", "moted": "MoTED"}


def run_demo(folder: Path, extra_arguments: list[str]) -> dict[str, dict[str, float]]:
    """Runs everything inside `folder` and returns the measured accuracies of each model.

    Args:
        folder: receives clips/, clip/ (the small CLIP), xclip/, moted/, classified.png and explained.png.
        extra_arguments: settings that override the recipe of both models, as on the command line of train.py.
    """
    # One thread here and one in the worker that decodes: two fill two cores, while three wait for each other, and far
    # longer where anything else runs on the machine.
    torch.set_num_threads(1)
    console = Console()
    clips, clip = folder / "clips", folder / "clip"
    started = time.monotonic()
    with _step(console, "1/6 Render clips in which only motion tells the classes apart"):
        write_motion_shapes(clips, train_per_class=_TRAIN_CLIPS_PER_CLASS)
    with _step(console, "2/6 Pre-train a small CLIP on captioned stills of the same shapes"):
        retrieval = pretrain_clip(clip)
        console.print(f"finds the caption of a held-out picture among 100: {retrieval:.2f}")
    for place, name in enumerate(_MODELS, start=3):
        with _step(console, f"{place}/6 Train {_TITLES[name]} from it, evaluate, save with its card"):
            arguments = [
                str(RECIPE),
                "--model",
                str(clip),
                "--data_root",
                str(clips),
                "--output_dir",
                str(folder / name),
            ]
            run_training(parse_recipe([*arguments, *_MODELS[name], *extra_arguments]))
    with _step(console, "5/6 Compare: held-out clips, clips played backwards, motions never seen"):
        rows = {_FROZEN: _measure(clips, *_frozen_clip(clip))}
        rows |= {_TITLES[name]: _measure(clips, *load_model(str(folder / name))) for name in _MODELS}
    with _step(console, "6/6 Classify and explain a clip in fresh processes, through AutoModel and AutoProcessor"):
        pictures = _draw_in_fresh_processes(clips, folder)
    console.print(_summary(rows, folder, pictures, time.monotonic() - started))
    return {
        title: {name: result.metrics()["top1"] for name, result in results.items()} for title, results in rows.items()
    }


@contextmanager
def _step(console: Console, title: str) -> Iterator[None]:
    console.rule(f"[bold]{title}", align="left")
    started = time.monotonic()
    yield
    console.print(f"[dim]{time.monotonic() - started:.0f} s")


def _frozen_clip(clip: Path) -> tuple[Any, VideoTextProcessor]:
    """The small CLIP as it is: MoTED without any module, whose video logits are those of mean-pooled frozen CLIP."""
    model = MotedModel.from_clip(clip, motion_encoder="none", use_conceptual=False, use_discriminative=False)
    saved = VideoTextProcessor.from_pretrained(clip)
    contract = {**saved.contract, "short_side": saved.crop_size, "motion_frame_ratio": model.config.motion_frame_ratio}
    return model.eval(), VideoTextProcessor(saved.tokenizer, **contract)


def _measure(clips: Path, model: Any, processor: VideoTextProcessor) -> dict[str, EvaluationResult]:
    """Results on held-out clips, on the order of frames (see `_forwards_and_backwards`), and on unseen classes."""
    held_out = read_clips("validation", data_root=clips)
    unseen = read_clips("unseen", data_root=clips)
    pairs = [_forwards_and_backwards(held_out, pair) for pair in REVERSED_CLASSES]
    order = [_evaluate(model, processor, pair) for pair in pairs]
    predictions = tuple(prediction for result in order for prediction in result.predictions)
    return {
        "held out": _evaluate(model, processor, held_out),
        "order": EvaluationResult(("forwards", "backwards"), predictions),
        "unseen": _evaluate(model, processor, unseen),
    }


def _evaluate(model: Any, processor: VideoTextProcessor, clips: ClipList) -> EvaluationResult:
    names = [text_of_class(name) for name in clips.class_names]
    descriptions = load_descriptions(DESCRIPTIONS).for_classes(names) if uses_descriptions(model) else None
    bank = encode_class_texts(model, processor, names, descriptions=descriptions)
    return evaluate_clips(model, EvalClips(clips, processor), bank, batch_size=50, show_progress=False)


def _forwards_and_backwards(clips: ClipList, pair: Sequence[str]) -> ClipList:
    """Every clip of two classes that are each other's reverse, as it is and played backwards, to be told apart."""
    labels = {clips.class_names.index(name.replace(" ", "_")): place for place, name in enumerate(pair)}
    forwards = [replace(clip, label=labels[clip.label]) for clip in clips.clips if clip.label in labels]
    backwards = [_backwards(clip) for clip in forwards]
    return ClipList((*forwards, *backwards), tuple(pair))


def _backwards(clip: Clip) -> Clip:
    frames = load_video(clip.source).frames.flip(0)
    return Clip(f"{clip.clip_id} backwards", frames, 1 - clip.label)


def _draw_in_fresh_processes(clips: Path, folder: Path) -> list[Path]:
    listed = read_clips("validation", data_root=clips)
    clip = next(clip for clip in listed.clips if listed.class_names[clip.label] == "growing")
    labels = ",".join(text_of_class(name) for name in listed.class_names)
    common = ["--model", str(folder / "moted"), "--descriptions", DESCRIPTIONS]
    pictures = {"classify": folder / "classified.png", "explain": folder / "explained.png"}
    options = {"classify": ["--labels", labels], "explain": ["--text", "growing"]}
    for verb, picture in pictures.items():
        command = [sys.executable, "-m", "kinetext.cli", verb, clip.source, *common, *options[verb]]
        subprocess.run([*command, "--save", str(picture)], check=True)
    return list(pictures.values())


def _summary(
    rows: dict[str, dict[str, EvaluationResult]], folder: Path, pictures: Sequence[Path], duration_s: float
) -> Table:
    table = Table(title=f"kinetext demo, {duration_s:.0f} s")
    table.add_column("top-1")
    first = next(iter(rows.values()))
    for heading, name in (("held out", "held out"), ("forwards or backwards", "order"), ("unseen motions", "unseen")):
        table.add_column(f"{heading}\n{len(first[name].class_names)} classes", justify="right")
    for title, results in rows.items():
        table.add_row(title, *(_accuracy(result) for result in results.values()))
    table.add_section()
    table.add_row("chance", *(f"{1 / len(result.class_names):.3f}" for result in first.values()))
    drawn = "\n".join(f"picture: {picture}" for picture in pictures)
    table.caption = f"models, processors, cards and results: {folder}\n{drawn}"
    return table


def _accuracy(result: EvaluationResult) -> str:
    metrics = result.metrics()
    return f"{metrics['top1']:.3f} ({metrics['top1_count']:.0f}/{metrics['num_decoded']:.0f})"
