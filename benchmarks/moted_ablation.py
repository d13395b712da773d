"""Table 3 of the MoTED paper at a small scale: what descriptions, motion encoder, text adapter and fusions are worth.

python -m benchmarks.moted_ablation [--out FILE] [--clip FOLDER] [--workers N]

Ten settings, each trained from several seeds on the motion shapes, from one small CLIP pre-trained on still pictures.
Every finished run is written to FILE; launched again, the missing ones are run. Takes about 40 minutes on one core.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from transformers import PrinterCallback, set_seed
from transformers.utils.logging import disable_progress_bar

from kinetext.data.annotations import Clip, ClipList
from kinetext.data.augmentation import Augmentation
from kinetext.data.datasets import EvalClips, TrainClips
from kinetext.data.motion_shapes import SEEN_CLASSES, UNSEEN_CLASSES, clip_seed, render_clip
from kinetext.descriptions import load_descriptions
from kinetext.evaluation.class_texts import encode_class_texts
from kinetext.evaluation.evaluator import evaluate_clips, write_json
from kinetext.modeling.configuration_moted import INFERENCE_LOGITS
from kinetext.modeling.modeling_moted import MotedModel
from kinetext.processing.processing_video_text import VideoTextProcessor
from kinetext.training.arguments import VideoTextTrainingArguments
from kinetext.training.pretrain_clip import MANIFEST_NAME, pretrain_clip
from kinetext.training.trainer import VideoTextTrainer

from .harness import REPOSITORY, RESULTS, command, machine, source

OUT = RESULTS / "moted_ablation.json"
STILL = Augmentation("centre", flip_probability=0, color_jitter_probability=0, grayscale_probability=0)
CLIP = REPOSITORY / "runs" / "moted_ablation" / "clip"
DESCRIPTIONS = "motion_shapes"
CLASSES_OF_SPLIT = {"train": SEEN_CLASSES, "validation": SEEN_CLASSES, "unseen": UNSEEN_CLASSES}
NOISE = 2.8  # standard errors within which a difference says nothing: 95 % for two means of three seeds (4 d.o.f.)
COMPARED = ("video", "sum")  # by which logits the full model is compared with the other rows: the default and all


# Table 3 ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Row:
    """One line of a sub-table: its name, the fields of `MotedConfig` that make it, the paper's top-1."""

    name: str
    switches: dict[str, Any]
    ssv2: float
    k400: float

    @property
    def setting(self) -> str:
        """Names the model, which rows may share."""
        return ", ".join(f"{name}={value}" for name, value in self.switches.items()) or "full"


SUB_TABLES: dict[str, tuple[Row, ...]] = {
    "3a texts": (
        Row("names only", {"use_conceptual": False, "use_discriminative": False}, 65.7, 82.9),
        Row("+ conceptual", {"use_discriminative": False}, 66.0, 84.5),
        Row("+ discriminative", {"use_conceptual": False}, 69.9, 84.0),
        Row("+ both", {}, 70.1, 85.1),
    ),
    "3b motion encoder, text adapter": (
        Row("neither", {"motion_encoder": "serial", "use_text_adapter": False}, 64.3, 81.5),
        Row("encoder only", {"use_text_adapter": False}, 68.6, 83.4),
        Row("adapter only", {"motion_encoder": "serial"}, 66.2, 83.8),
        Row("both", {}, 70.1, 85.1),
    ),
    "3c text fusion, video fusion": (
        Row("neither", {"fuse_text": False, "fuse_video": False}, 68.3, 83.6),
        Row("text only", {"fuse_video": False}, 68.9, 84.2),
        Row("video only", {"fuse_text": False}, 69.5, 84.5),
        Row("both", {}, 70.1, 85.1),
    ),
}


def settings_of_table() -> dict[str, dict[str, Any]]:
    """The distinct models behind all rows: their switches by their names, the full one first."""
    switches = {row.setting: row.switches for rows in SUB_TABLES.values() for row in rows}
    return {"full": switches.pop("full"), **switches}


# Data ---------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Scale:
    """The size of the experiment, equal for all runs of a file."""

    num_steps: int = 600
    seeds: tuple[int, ...] = (0, 1, 2)
    train_per_class: int = 250
    validation_per_class: int = 25
    unseen_per_class: int = 50
    batch_size: int = 32
    learning_rate: float = 1e-3
    new_module_lr_factor: float = 1.0
    weight_decay: float = 0.05
    warmup_steps: float = 0.05
    max_grad_norm: float = 1.0
    num_frames: int = 8
    motion_frame_ratio: int = 2
    motion_hidden_size: int = 96
    motion_num_attention_heads: int = 3
    joint_num_attention_heads: int = 3
    image_size: int = 64
    data_seed: int = 0

    def as_json(self) -> dict[str, Any]:
        """As it is read back from a file."""
        return json.loads(json.dumps(asdict(self)))


def render_splits(scale: Scale) -> dict[str, ClipList]:
    """The clips of each split, rendered into memory: uint8 arrays, which forked processes share."""
    return {
        split: ClipList(tuple(_rendered(split, getattr(scale, f"{split}_per_class"), scale)), CLASSES_OF_SPLIT[split])
        for split in CLASSES_OF_SPLIT
    }


def _rendered(split: str, per_class: int, scale: Scale) -> Iterator[Clip]:
    for label, name in enumerate(CLASSES_OF_SPLIT[split]):
        for index in range(per_class):
            seed = clip_seed(scale.data_seed, split, name, index)
            frames = render_clip(
                name, seed, num_frames=scale.num_frames * scale.motion_frame_ratio, size=scale.image_size
            )
            yield Clip(f"{split}/{name}/{index}", frames, label)


# One run ------------------------------------------------------------------------------------------------------------


def train_and_test(
    setting: str, seed: int, clip_folder: str | Path, clips: dict[str, ClipList], scale: Scale
) -> dict[str, Any]:
    """One model, trained and evaluated: what the result file holds of it."""
    started = time.perf_counter()
    set_seed(seed)
    switches = settings_of_table()[setting]
    sizes = ("num_frames", "motion_frame_ratio", "motion_hidden_size")
    heads = ("motion_num_attention_heads", "joint_num_attention_heads")
    model = MotedModel.from_clip(clip_folder, **{name: getattr(scale, name) for name in sizes + heads}, **switches)
    processor = _processor(clip_folder, scale)
    losses = _train(model, processor, clips["train"], scale, seed)
    return {
        "setting": setting,
        "seed": seed,
        "switches": switches,
        "trainable_parameters": sum(weight.numel() for weight in model.parameters() if weight.requires_grad),
        **{split: _top1(model, processor, clips[split]) for split in ("validation", "unseen")},
        "training_loss": losses,
        "seconds": round(time.perf_counter() - started, 1),
    }


def _processor(clip_folder: str | Path, scale: Scale) -> VideoTextProcessor:
    return VideoTextProcessor(
        VideoTextProcessor.from_pretrained(clip_folder).tokenizer,
        num_frames=scale.num_frames,
        motion_frame_ratio=scale.motion_frame_ratio,
        crop_size=scale.image_size,
        short_side=scale.image_size,
    )


def _train(
    model: Any, processor: VideoTextProcessor, clips: ClipList, scale: Scale, seed: int
) -> list[dict[str, float]]:
    """Trains the model; returns the mean loss of every tenth of the steps."""
    with tempfile.TemporaryDirectory() as folder:
        trainer = VideoTextTrainer(
            model,
            _arguments(folder, scale, seed),
            processing_class=processor,
            class_texts=clips.class_names,
            descriptions=_descriptions(model, clips.class_names),
            train_dataset=TrainClips(clips, processor, seed=seed, augmentation=STILL),
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    return [{"step": log["step"], "loss": log["loss"]} for log in trainer.state.log_history if "loss" in log]


def _arguments(folder: str, scale: Scale, seed: int) -> VideoTextTrainingArguments:
    same = ("learning_rate", "new_module_lr_factor", "weight_decay", "warmup_steps", "max_grad_norm")
    return VideoTextTrainingArguments(
        output_dir=folder,
        max_steps=scale.num_steps,
        label_smoothing=0.0,
        mixup_alpha=0.0,
        cutmix_alpha=0.0,
        per_device_train_batch_size=scale.batch_size,
        **{name: getattr(scale, name) for name in same},
        eval_strategy="no",
        save_strategy="no",
        logging_steps=max(1, scale.num_steps // 10),
        report_to="none",
        disable_tqdm=True,
        use_cpu=True,
        seed=seed,
    )


def _descriptions(model: Any, class_names: Sequence[str]) -> list[list[str]] | None:
    return load_descriptions(DESCRIPTIONS).for_classes(class_names) if model.config.uses_descriptions else None


def _top1(model: Any, processor: VideoTextProcessor, clips: ClipList) -> dict[str, float]:
    """Top-1 by video logits, motion logits and their sum, and how many clips it is of."""
    descriptions = _descriptions(model, clips.class_names)
    bank = encode_class_texts(model, processor, clips.class_names, descriptions=descriptions)
    found: dict[str, float] = {"num_listed": len(clips)}
    default = model.config.inference_logits
    for logits in INFERENCE_LOGITS:
        model.config.inference_logits = logits
        metrics = evaluate_clips(model, EvalClips(clips, processor), bank, batch_size=50, show_progress=False).metrics()
        found |= {logits: metrics["top1"], "num_decoded": metrics["num_decoded"]}
    model.config.inference_logits = default
    return found


# All runs -----------------------------------------------------------------------------------------------------------


def load_results(path: Path, scale: Scale) -> dict[str, Any]:
    """What is in the file, or the start of a new one.

    Raises:
        ValueError: if the file holds runs of another scale.
    """
    if not path.exists():
        return {"scale": scale.as_json(), "descriptions": DESCRIPTIONS, "runs": []}
    results = json.loads(path.read_text("utf-8"))
    if results["scale"] != scale.as_json():
        raise ValueError(f"{path} holds runs of another scale: {results['scale']}. Give another --out, or delete it.")
    return results


def missing_runs(results: dict[str, Any]) -> list[tuple[str, int]]:
    """(setting, seed) of the runs that are not there, all settings of a seed before the next seed."""
    done = {(run["setting"], run["seed"]) for run in results["runs"]}
    wanted = [(setting, seed) for seed in results["scale"]["seeds"] for setting in settings_of_table()]
    return [run for run in wanted if run not in done]


def run_missing(path: Path, scale: Scale, clip_folder: Path, num_workers: int) -> dict[str, Any]:
    """Runs what the file lacks, writing it after every run; returns its content.

    Raises:
        ValueError: if the file has runs on another machine or from another CLIP: their rows never share a table.
    """
    results = load_results(path, scale)
    missing = missing_runs(results)
    if missing:
        pretrain_clip(clip_folder)
        _check_same(results, "machine", machine())
        _check_same(results, "clip", json.loads((clip_folder / MANIFEST_NAME).read_text("utf-8")))
    circumstances = {"command": command(), "source": source()}
    for run in _runs(missing, num_workers, clip_folder=clip_folder, scale=scale):
        results["runs"].append({**run, **circumstances})
        _save(path, results)
        _tell(run, len(missing_runs(results)))
    _save(path, results)
    return results


def _check_same(results: dict[str, Any], name: str, value: Any) -> None:
    if results.setdefault(name, value) != value:
        raise ValueError(f"the file has runs with another {name}: {results[name]}, now {value}. Give another --out.")


def _save(path: Path, results: dict[str, Any]) -> None:
    results["runs"].sort(key=lambda run: (run["seed"], run["setting"]))
    results["summary"] = summary(results["runs"])
    write_json(path, results)


def _runs(missing: Sequence[tuple[str, int]], num_workers: int, **shared: Any) -> Iterator[dict[str, Any]]:
    """Finished runs, in forked processes, so that the clips are in memory once."""
    if not missing:
        return
    _SHARED.update(shared, clips=render_splits(shared["scale"]))
    fork = multiprocessing.get_context("fork")
    with ProcessPoolExecutor(num_workers, mp_context=fork, initializer=_one_thread) as pool:
        for future in as_completed([pool.submit(_run_shared, *run) for run in missing]):
            yield future.result()


_SHARED: dict[str, Any] = {}  # what forked processes find: clips, clip_folder, scale


def _one_thread() -> None:
    torch.set_num_threads(1)
    disable_progress_bar()  # of loading weights
    logging.disable(logging.WARNING)


def _run_shared(setting: str, seed: int) -> dict[str, Any]:
    return train_and_test(setting, seed, **_SHARED)


def _tell(run: dict[str, Any], num_left: int) -> None:
    loss = run["training_loss"][-1]["loss"]
    print(
        f"{time.strftime('%H:%M:%S')} seed {run['seed']} {run['setting']}: loss {loss:.3f}, "
        f"validation {run['validation']['video']:.3f}, unseen {run['unseen']['video']:.3f}, "
        f"{run['seconds']:.0f} s; {num_left} runs left",
        flush=True,
    )


# Summary ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Spread:
    """Mean and standard deviation over seeds."""

    mean: float
    std: float | None
    count: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Of one value or more; the deviation of a single one is not known."""
        return cls(statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None, len(values))


@dataclass(frozen=True)
class Difference:
    """What the full model has more than a row, the standard error of that over seeds, and what follows from both."""

    mean: float
    error: float | None
    verdict: str

    @classmethod
    def of(cls, full: Spread, row: Spread) -> Difference:
        """Of two means; in the paper, the full model is better than every other row."""
        mean = full.mean - row.mean
        if full.std is None or row.std is None:
            return cls(mean, None, "one seed")
        error = math.sqrt(full.std**2 / full.count + row.std**2 / row.count)
        if abs(mean) <= NOISE * error:
            return cls(mean, error, "within noise")
        return cls(mean, error, "as the paper" if mean > 0 else "opposite")


def summary(runs: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Of each row that has runs: means and deviations, and what the full model has more on seen classes."""
    return [
        _line(runs, sub_table, row, rows[-1])
        for sub_table, rows in SUB_TABLES.items()
        for row in rows
        if any(run["setting"] == row.setting for run in runs)
    ]


def _line(runs: Sequence[dict[str, Any]], sub_table: str, row: Row, full: Row) -> dict[str, Any]:
    own, best = ([run for run in runs if run["setting"] == each.setting] for each in (row, full))
    top1 = {split: _spreads(own, split) for split in ("validation", "unseen")}
    line = {
        "sub_table": sub_table,
        "row": row.name,
        "setting": row.setting,
        "paper": {"ssv2": row.ssv2, "k400": row.k400},
    }
    line |= {split: {logits: asdict(value) for logits, value in values.items()} for split, values in top1.items()}
    if row is not full and best:
        of_full = _spreads(best, "validation")
        line["full_minus_row"] = {
            logits: asdict(Difference.of(of_full[logits], value)) for logits, value in top1["validation"].items()
        }
    return line


def _spreads(runs: Sequence[dict[str, Any]], split: str) -> dict[str, Spread]:
    return {logits: Spread.of([run[split][logits] for run in runs]) for logits in INFERENCE_LOGITS}


def direction(lines: Sequence[dict[str, Any]], logits: str) -> str:
    """Whether the full model of a sub-table is best, as in the paper."""
    verdicts = {line["row"]: line["full_minus_row"][logits]["verdict"] for line in lines if "full_minus_row" in line}
    if set(verdicts.values()) == {"as the paper"}:
        return "the full model is best, as in the paper"
    return "; ".join(f"{row}: {word}" for row, word in verdicts.items()) or "nothing to compare yet"


def print_tables(results: dict[str, Any]) -> None:
    """One table per sub-table, the paper's numbers beside ours."""
    console, lines = Console(), summary(results["runs"])
    console.print(
        "Top-1 in %, mean ± standard deviation over seeds, by video logits (the model's default), motion logits and "
        "their sum.\nfull - row: on seen classes, ± standard error over seeds; noise: within "
        f"{NOISE} standard errors.\nWithout video fusion, the video embedding is that of the frozen CLIP, which sees "
        "single frames: chance on these clips, whatever is learnt.\n"
    )
    for sub_table in SUB_TABLES:
        own = [line for line in lines if line["sub_table"] == sub_table]
        console.print(_table(sub_table, own))
        for logits in COMPARED:
            console.print(f"{logits} logits: {direction(own, logits)}")
        console.print()


def _table(title: str, lines: Sequence[dict[str, Any]]) -> Table:
    table = Table(title=title, title_justify="left")
    seen = [f"seen\n{logits}" for logits in INFERENCE_LOGITS]
    more = [f"full - row\n{logits}" for logits in COMPARED]
    for name in ("row", "paper\nSSv2", "paper\nK400", *seen, "unseen\nvideo", *more):
        table.add_column(name, justify="left" if name == "row" else "right")
    for line in lines:
        own = [_percent(line["validation"][logits]) for logits in INFERENCE_LOGITS]
        cells = [f"{line['paper']['ssv2']}", f"{line['paper']['k400']}", *own, _percent(line["unseen"]["video"])]
        table.add_row(line["row"], *cells, *(_difference(line, logits) for logits in COMPARED))
    return table


def _percent(spread: dict[str, Any]) -> str:
    return f"{100 * spread['mean']:.1f}" + ("" if spread["std"] is None else f" ± {100 * spread['std']:.1f}")


def _difference(line: dict[str, Any], logits: str) -> str:
    if "full_minus_row" not in line:
        return ""
    more = line["full_minus_row"][logits]
    error = "" if more["error"] is None else f" ± {100 * more['error']:.1f}"
    return f"{100 * more['mean']:+.1f}{error}\n{more['verdict']}"


def main() -> None:
    """Runs what is missing and prints the tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.moted_ablation", description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, default=OUT, help="result file, continued where it exists")
    parser.add_argument("--clip", type=Path, default=CLIP, help="folder of the small CLIP, pre-trained if absent")
    parser.add_argument("--workers", type=int, choices=(1, 2), default=1, help="runs at a time, one core each")
    parser.add_argument("--steps", type=int, default=Scale.num_steps, help="training steps of a run")
    parser.add_argument("--train-per-class", type=int, default=Scale.train_per_class, help="training clips of a class")
    options = parser.parse_args()
    torch.set_num_threads(1)
    scale = Scale(num_steps=options.steps, train_per_class=options.train_per_class)
    print_tables(run_missing(options.out, scale, options.clip, options.workers))


if __name__ == "__main__":
    main()
