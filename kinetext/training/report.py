"""The report that a run leaves beside its model: what was trained, how it went, what it scores, which clips failed."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from .. import __version__
from ..data.annotations import ClipList
from ..data.datasets import EvalClips
from ..data.list_facts import list_fingerprint
from ..descriptions.files import write_atomically
from ..doctor import machine
from ..evaluation.plots import Panel, draw_confusion_matrix, draw_curves
from ..evaluation.predictions import EvaluationResult
from ..evaluation.protocol import protocol_of
from ..hub_cards.markdown import cell, duration, one_line
from ..hub_cards.model_card import CURVES_NAME, RunFacts
from .arguments import VideoTextTrainingArguments
from .progress import device_name, group_rates, precision_name

__all__ = ["REPORT_NAME", "gather_facts", "write_report"]

REPORT_NAME = "report.md"
_CONFUSION_NAME = "confusion.png"


def gather_facts(
    args: VideoTextTrainingArguments,
    *,
    train_clips: ClipList | None,
    clips_seen: int,
    eval_dataset: EvalClips | None,
    class_texts: Sequence[str],
    duration_s: float,
    failures: Mapping[str, str],
) -> RunFacts:
    """What the card and the report say of a run on this machine.

    Args:
        args: of the run.
        train_clips: clips it was trained on; None for a stream.
        clips_seen: in all steps together, which is what is known of a stream.
        eval_dataset: clips it was evaluated on, if any.
        class_texts: N texts in label order.
        duration_s: of training.
        failures: training clip -> why it could not be decoded.
    """
    return RunFacts(
        num_train_clips=clips_seen if train_clips is None else len(train_clips),
        num_eval_clips=0 if eval_dataset is None else len(eval_dataset),
        data_fingerprint=None if train_clips is None else list_fingerprint(train_clips),
        protocol=None if eval_dataset is None else protocol_of(eval_dataset, class_texts).sha256,
        environment={
            "device": device_name(args),
            "processes": args.world_size,
            "precision": precision_name(args),
            **machine(),
            "kinetext": __version__,
        },
        duration_s=duration_s,
        num_failed_clips=len(failures),
    )


def write_report(
    output_dir: str | os.PathLike[str],
    *,
    log_history: Sequence[Mapping[str, Any]],
    settings: Mapping[str, Any],
    facts: RunFacts,
    result: EvaluationResult | None,
    failures: Mapping[str, str],
) -> None:
    """Writes `report.md` into the folder of a run, with `curves.png` and `confusion.png` where there is what to draw.

    Args:
        output_dir: of the run; also where the pictures of an earlier run are replaced or removed.
        log_history: of transformers' `TrainerState`, which is saved with checkpoints: a resumed run has all of it.
        settings: that differ from the defaults, as name and value.
        facts: of the run.
        result: the final evaluation, or None if there was none.
        failures: training clip -> why it could not be decoded.
    """
    folder = Path(output_dir)
    for name in (CURVES_NAME, _CONFUSION_NAME):
        (folder / name).unlink(missing_ok=True)
    panels = _panels(log_history)
    title = folder.resolve().name
    if any(panel.series for panel in panels):
        draw_curves(panels, folder / CURVES_NAME, title)
    if result is not None and result.decoded:
        draw_confusion_matrix(
            result.confusion(), result.class_names, folder / _CONFUSION_NAME, f"{title}, evaluation clips"
        )
    pictures = {name for name in (CURVES_NAME, _CONFUSION_NAME) if (folder / name).is_file()}
    lines = [
        f"# {one_line(title)}",
        *_outcome(facts, result, pictures),
        *_course(log_history, pictures),
        "## Settings",
        "Those that differ from kinetext's defaults.",
        *_table(("setting", "value"), settings.items()),
        *_data(facts, failures),
        *_not_evaluated(result),
        "## Environment",
        *_table(("", ""), facts.environment.items()),
    ]
    write_atomically(folder / REPORT_NAME, "\n\n".join(lines).encode(errors="replace") + b"\n")


def _outcome(facts: RunFacts, result: EvaluationResult | None, pictures: set[str]) -> Iterator[str]:
    yield "## Result"
    if result is None:
        yield "Nothing was evaluated."
        return
    metrics = result.metrics()
    if not result.decoded:
        yield f"None of the {metrics['num_listed']} clips listed could be decoded."
        return
    scores = ", ".join(f"{name} {metrics[key]:.4f} ({metrics[f'{key}_count']})" for key, name in _SCORES.items())
    yield (
        f"{scores}; {metrics['num_decoded']} of {metrics['num_listed']} clips decoded (coverage "
        f"{metrics['coverage']:.4f}), {len(result.class_names)} classes, chance {1 / len(result.class_names):.4f}."
    )
    yield f"Protocol: SHA-256 `{facts.protocol}`. Numbers of other protocols do not compare to these."
    if _CONFUSION_NAME in pictures:
        yield f"![Which class was taken for which]({_CONFUSION_NAME})"


_SCORES = {"top1": "top-1", "top5": "top-5"}


def _course(log_history: Sequence[Mapping[str, Any]], pictures: set[str]) -> Iterator[str]:
    yield "## Training"
    if CURVES_NAME in pictures:
        yield f"![Loss, learning rates, accuracy and speed over the steps]({CURVES_NAME})"
    rows = [entry for entry in log_history if "eval_top1" in entry]
    if rows:
        yield "\n".join(
            [
                "| epoch | step | top-1 | top-5 | coverage |",
                "|---|---|---|---|---|",
                *(
                    f"| {row.get('epoch', 0):.2f} | {row['step']} | {row['eval_top1']:.4f} | {row['eval_top5']:.4f} "
                    f"| {row['eval_coverage']:.4f} |"
                    for row in rows
                ),
            ]
        )


def _data(facts: RunFacts, failures: Mapping[str, str]) -> Iterator[str]:
    yield "## Data"
    yield (
        f"{facts.num_train_clips} clips to train on, {facts.num_eval_clips} to evaluate; trained for "
        f"{duration(facts.duration_s)}."
    )
    if facts.data_fingerprint is None:
        yield "The training clips came as a stream: clips are counted as often as they were seen."
    else:
        yield f"SHA-256 of the names and labels of the training clips: `{facts.data_fingerprint}`."
    if not failures:
        yield "Every training clip that was drawn could be decoded."
        return
    yield (
        f"{len(failures)} training clips could not be decoded; wherever one was drawn, another of its class took its "
        "place."
    )
    yield from _table(("training clip", "reason"), sorted(failures.items()))


def _not_evaluated(result: EvaluationResult | None) -> Iterator[str]:
    """The clips that the result does not speak of."""
    failed = [] if result is None else [one for one in result.predictions if one.error is not None]
    if failed:
        yield f"{len(failed)} evaluation clips could not be decoded and are in no accuracy."
        yield from _table(("evaluation clip", "reason"), ((one.clip_id, one.error) for one in failed))


def _table(header: tuple[str, str], rows: Any) -> Iterator[str]:
    lines = [f"| {cell(name)} | {cell(value)} |" for name, value in rows]
    if lines:
        yield "\n".join([f"| {header[0]} | {header[1]} |", "|---|---|", *lines])


# Curves


def _panels(log_history: Sequence[Mapping[str, Any]]) -> list[Panel]:
    steps = [entry for entry in log_history if "loss" in entry]  # not the summary that ends a run
    rates = [{"step": entry["step"], **group_rates(entry)} for entry in steps]
    groups = dict.fromkeys(name for entry in rates for name in entry if name != "step")
    return [
        Panel("loss", _series(steps, {"loss": "loss"})),
        Panel("learning rate", _series(rates, {name: name for name in groups}), is_log=True),
        Panel("evaluation clips that were right", _series(log_history, _EVAL_KEYS), is_share=True),
        Panel("gradient norm", _series(steps, {"gradient norm": "grad_norm"})),
        Panel("clips per second", _series(steps, {"clips per second": "clips_per_second"})),
        Panel("share of the time spent waiting for data", _series(steps, {"waiting": "data_wait"}), is_share=True),
    ]


_EVAL_KEYS = {name: f"eval_{key}" for key, name in _SCORES.items()}


def _series(
    log_history: Sequence[Mapping[str, Any]], keys: Mapping[str, str]
) -> dict[str, tuple[list[float], list[float]]]:
    """(steps, values) by name, of the keys that were logged."""
    series = {}
    for name, key in keys.items():
        points = [(entry["step"], float(entry[key])) for entry in log_history if key in entry]
        if points:
            series[name] = ([step for step, _ in points], [value for _, value in points])
    return series
