"""Leave-one-group-out cross-validation: a fold trains on the clips of all groups but one and is evaluated on that one.

    recipes x groups ──► folds ──processes──► <output>/<recipe>/<group>/fold.json ──► table, confusion matrices, JSON

A group is what a regular expression finds in the file names, e.g. the person that is filmed. Finished folds are kept,
so a run that was stopped goes on where it was; a fold that was stopped goes on from its last checkpoint.
"""

from __future__ import annotations

import glob
import json
import multiprocessing
import os
import re
import statistics
import threading
import time
import traceback
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from ..data.annotations import ClipList
from ..descriptions.files import write_atomically
from ..evaluation.evaluator import write_json
from ..evaluation.plots import draw_confusion_matrix
from ..evaluation.predictions import EvaluationResult
from ..evaluation.results import read_result
from ..hub_cards.markdown import one_line
from .arguments import Recipe, as_settings, parse_recipe
from .clips import read_splits
from .run import run_training

__all__ = ["CrossValidation", "RecipeScores", "cross_validate"]

_FOLD, _LOG = "fold.json", "log.txt"


@dataclass(frozen=True)
class Fold:
    """One run: a recipe without the clips of one group."""

    recipe: str
    group: str
    arguments: tuple[str, ...]
    folder: Path

    @property
    def name(self) -> str:
        """What messages call it."""
        return f"{self.recipe}/{self.group}"

    @property
    def settings(self) -> dict[str, Any]:
        """What must not have changed where a finished fold is kept; the weights that `model` names are not read."""
        settings = as_settings(parse_recipe(list(self.arguments)))
        return {name: value for name, value in settings.items() if name not in ("output_dir", "resume")}


@dataclass(frozen=True)
class RecipeScores:
    """The finished folds of one recipe.

    Attributes:
        recipe: its name.
        class_names: N names, as written in the data.
        folds: group -> its result.
        durations_s: group -> seconds its training and evaluation took.
    """

    recipe: str
    class_names: tuple[str, ...]
    folds: Mapping[str, EvaluationResult]
    durations_s: Mapping[str, float]

    @property
    def pooled(self) -> EvaluationResult:
        """The predictions of all folds as one result."""
        predictions = tuple(prediction for result in self.folds.values() for prediction in result.predictions)
        return EvaluationResult(self.class_names, predictions)

    @property
    def fold_top1(self) -> dict[str, float]:
        """Top-1 of each group."""
        return {group: result.metrics()["top1"] for group, result in self.folds.items()}

    def as_dict(self) -> dict[str, Any]:
        """Everything but the predictions, which are in the folders of the folds."""
        confusion = self.pooled.confusion()
        return {
            "recipe": self.recipe,
            **self.pooled.metrics(),
            "fold_mean": statistics.mean(self.fold_top1.values()),
            "fold_std": _deviation(self.fold_top1.values()),
            "folds": {
                group: {"top1": top1, "duration_s": self.durations_s[group]} for group, top1 in self.fold_top1.items()
            },
            "class_accuracy": dict(zip(self.class_names, _class_accuracy(confusion), strict=True)),
            "confusion": confusion.tolist(),
        }


@dataclass(frozen=True)
class CrossValidation:
    """What came out of [`cross_validate`].

    Attributes:
        scores: of each recipe that has a finished fold.
        num_groups: folds of each recipe.
        failures: name of a fold -> why it failed.
        files: what was written about all folds together.
    """

    scores: tuple[RecipeScores, ...]
    num_groups: int
    failures: Mapping[str, str]
    files: tuple[Path, ...]

    def rows(self) -> list[tuple[str, ...]]:
        """A table: the recipes behind a first cell, then a line for each measure and each class."""
        details = [scores.as_dict() for scores in self.scores]
        return [
            ("top-1", *(each["recipe"] for each in details)),
            ("all clips", *(f"{each['top1']:.3f} ({each['top1_count']}/{each['num_decoded']})" for each in details)),
            ("mean ± std over folds", *(f"{each['fold_mean']:.3f} ± {each['fold_std']:.3f}" for each in details)),
            ("folds", *(f"{len(each['folds'])}/{self.num_groups}" for each in details)),
            ("time of all folds", *(_minutes(sum(scores.durations_s.values())) for scores in self.scores)),
            *(
                (name, *(_share(each["class_accuracy"][name]) for each in details))
                for name in (self.scores[0].class_names if self.scores else ())
            ),
        ]


def cross_validate(
    recipes: Sequence[Path], *, data_root: Path, output_dir: Path, group_by: str, jobs: int = 1
) -> CrossValidation:
    """Trains every recipe once for every group of clips, and writes table, confusion matrices and JSON.

    Args:
        recipes: YAML files, whose `hold_out` does not matter here.
        data_root: as in a recipe.
        output_dir: receives <recipe>/<group>/ (a whole run, its log and fold.json), cross_validation.json and .md, and
            confusion_<recipe>.png.
        group_by: regular expression; what its first parentheses match in the name of a clip's file is its group.
        jobs: folds that run at the same time, each with an equal share of the cores.

    Raises:
        ValueError: where recipes or groups make no sense, or a finished fold was made with other settings.
    """
    names = [recipe.stem for recipe in recipes]
    if len(set(names)) < len(names):
        raise ValueError(f"two recipes have one name: {names}; it names their folders, so give each its own.")
    started = time.monotonic()
    clips = _common_clips(recipes, data_root, output_dir)
    groups = group_clips(clips, group_by)
    folds = [
        _fold(recipe, data_root, output_dir, group, file_names)
        for recipe in recipes
        for group, file_names in groups.items()
    ]
    waiting = [fold for fold in folds if not _is_finished(fold)]
    failures = _run_folds(waiting, jobs)
    scores = [_read_scores(name, clips.class_names, folds) for name in names]
    finished = tuple(each for each in scores if each.folds)
    validation = CrossValidation(finished, len(groups), failures, _files(output_dir, finished))
    run = {"folds_run": len(waiting), "jobs": jobs, "duration_s": time.monotonic() - started}
    _write(validation, output_dir, {"group_by": group_by, "groups": list(groups), **run})
    return validation


def group_clips(clips: ClipList, group_by: str) -> dict[str, list[str]]:
    """The file names of each group, both sorted.

    Raises:
        ValueError: if the expression is none or has no parentheses, a clip has no group, or there is only one.
    """
    try:
        pattern = re.compile(group_by)
    except re.error as error:
        raise ValueError(f"group_by={group_by!r} is no regular expression: {error}.") from error
    if not pattern.groups:
        raise ValueError(f"group_by={group_by!r} has no parentheses; put them around what names the group.")
    groups: dict[str, list[str]] = {}
    for clip in clips.clips:
        file_name = Path(clip.clip_id).name
        found = pattern.search(file_name)
        if found is None or not found[1]:
            raise ValueError(f"group_by={group_by!r} finds no group in {file_name!r}; it must find one in every name.")
        groups.setdefault(found[1], []).append(file_name)
    if len(groups) < 2:
        raise ValueError(f"group_by={group_by!r} finds the single group {[*groups]}; none would be left to train on.")
    return {group: sorted(set(groups[group])) for group in sorted(groups)}


def _common_clips(recipes: Sequence[Path], data_root: Path, output_dir: Path) -> ClipList:
    """The clips that all recipes train on."""
    lists = {recipe: _all_clips(recipe, data_root, output_dir) for recipe in recipes}
    first, *others = lists
    for other in others:
        if lists[other] != lists[first]:
            raise ValueError(f"{first} and {other} name different clips or classes; one table is for the same ones.")
    return lists[first]


def _all_clips(path: Path, data_root: Path, output_dir: Path) -> ClipList:
    recipe = _parse(path, data_root, output_dir)
    if recipe.data.eval is not None:
        raise ValueError(
            f"{path} names clips of its own to evaluate on (eval); here each group is, in turn. Leave it out."
        )
    if recipe.training.hub_model_id is not None:
        raise ValueError(
            f"{path} pushes to {recipe.training.hub_model_id} (push_to_hub), where the folds would replace each other. "
            "Leave it out."
        )
    return read_splits(replace(recipe.data, hold_out=[])).train


def _parse(path: Path, data_root: Path, output_dir: Path) -> Recipe:
    return parse_recipe([str(path), "--data_root", str(data_root), "--output_dir", str(output_dir / path.stem)])


def _fold(path: Path, data_root: Path, output_dir: Path, group: str, file_names: Sequence[str]) -> Fold:
    folder = output_dir / path.stem / group
    settings = ("--data_root", str(data_root), "--output_dir", str(folder), "--resume", "auto")
    held_out = ("--hold_out", *(glob.escape(name) for name in file_names))
    return Fold(path.stem, group, (str(path), *settings, *held_out), folder)


# Running ------------------------------------------------------------------------------------------------------------


def _is_finished(fold: Fold) -> bool:
    """Whether the fold was run before; raises where that was with other settings."""
    path = fold.folder / _FOLD
    if not path.exists():
        return False
    made, wanted = json.loads(path.read_text("utf-8"))["settings"], json.loads(json.dumps(fold.settings))
    differences = [
        f"{name} is {made.get(name)!r} there, {wanted.get(name)!r} wanted"
        for name in sorted(made.keys() | wanted.keys())
        if made.get(name) != wanted.get(name)
    ]
    if differences:
        raise ValueError(
            f"{path} was made with other settings: {'; '.join(differences)}. Delete {fold.folder.parent}, choose "
            "another output_dir, or ask for the same settings."
        )
    return True


def _run_folds(folds: Sequence[Fold], jobs: int) -> dict[str, str]:
    """Runs the folds and returns why which of them failed; the others go on. All end with this process, or an error."""
    threads = max(1, (os.cpu_count() or 1) // jobs)
    context = multiprocessing.get_context("spawn")
    theirs, ours = context.Pipe(duplex=False)
    pool = ProcessPoolExecutor(jobs, mp_context=context, initializer=_begin_worker, initargs=(threads, theirs))
    failures: dict[str, str] = {}
    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with theirs, pool, ours, Progress(*columns, console=Console(stderr=True)) as progress:
        bar = progress.add_task(f"folds, {jobs} at a time", total=len(folds))
        futures = {pool.submit(_run_fold, fold): fold for fold in folds}
        for future in as_completed(futures):
            fold, error = futures[future], future.exception()
            if error is not None:
                failures[fold.name] = f"{type(error).__name__}: {error} (log: {fold.folder / _LOG})"
            outcome = f"top-1 {future.result():.3f}" if error is None else "[red]failed[/]"
            progress.update(bar, advance=1, description=f"{fold.name}: {outcome}")
        pool.shutdown()  # in peace; after an error or Ctrl-C `ours` is closed before
    return failures


def _begin_worker(threads: int, parent: Connection) -> None:
    """Makes a process that runs folds end as soon as the other end of `parent` is closed, be it by a kill -9."""
    torch.set_num_threads(threads)
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: Connection) -> None:
    parent.poll(None)  # nothing is ever sent: it waits for the end
    os._exit(1)


def _run_fold(fold: Fold) -> float:
    """Trains and evaluates one fold in this process, whose output goes into a file; returns top-1."""
    fold.folder.mkdir(parents=True, exist_ok=True)
    with open(fold.folder / _LOG, "wb") as log:
        for stream in (1, 2):  # also of loader workers
            os.dup2(log.fileno(), stream)
    started = time.monotonic()
    try:
        result = run_training(parse_recipe(list(fold.arguments)))
    except BaseException:
        traceback.print_exc()
        raise
    assert result is not None  # there are held-out clips
    write_json(fold.folder / _FOLD, {"settings": fold.settings, "duration_s": time.monotonic() - started})
    return result.metrics()["top1"]


# Results ------------------------------------------------------------------------------------------------------------


def _read_scores(recipe: str, class_names: tuple[str, ...], folds: Sequence[Fold]) -> RecipeScores:
    results, durations = {}, {}
    for fold in folds:
        if fold.recipe == recipe and (fold.folder / _FOLD).exists():
            content = json.loads((fold.folder / _FOLD).read_text("utf-8"))
            (results[fold.group],) = read_result(fold.folder).splits.values()
            durations[fold.group] = content["duration_s"]
    return RecipeScores(recipe, class_names, results, durations)


def _files(output_dir: Path, scores: Sequence[RecipeScores]) -> tuple[Path, ...]:
    pictures = (output_dir / f"confusion_{each.recipe}.png" for each in scores)
    return (output_dir / "cross_validation.md", output_dir / "cross_validation.json", *pictures)


def _write(validation: CrossValidation, output_dir: Path, circumstances: Mapping[str, Any]) -> None:
    page, results, *pictures = validation.files
    for scores, picture in zip(validation.scores, pictures, strict=True):
        metrics = scores.pooled.metrics()
        title = f"{scores.recipe}: {metrics['top1']:.3f} top-1 over {len(scores.folds)} folds"
        draw_confusion_matrix(scores.pooled.confusion(), scores.class_names, picture, title)
    content = {
        **circumstances,
        "failures": dict(validation.failures),
        "recipes": [scores.as_dict() for scores in validation.scores],
    }
    write_json(results, content)
    write_atomically(page, _page(validation, circumstances, pictures).encode())


def _page(validation: CrossValidation, circumstances: Mapping[str, Any], pictures: Sequence[Path]) -> str:
    failed = [f"- {name}: {reason}" for name, reason in validation.failures.items()]
    parts = [
        "# Cross-validation",
        f"Each of the {validation.num_groups} groups of clips (`{circumstances['group_by']}` in the file names: "
        f"{', '.join(circumstances['groups'])}) is evaluated by a model that was trained on the others. "
        f"{circumstances['folds_run']} folds ran in {_minutes(circumstances['duration_s'])}, "
        f"{circumstances['jobs']} at a time.",
        _markdown_table(validation.rows()),
        *(["## Failed", "\n".join(failed)] if failed else []),
        *(f"![{picture.stem}]({picture.name})" for picture in pictures),
    ]
    return "\n\n".join(parts) + "\n"


def _markdown_table(rows: Sequence[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(one_line(cell).replace("|", "\\|") for cell in row) + " |" for row in rows]
    return "\n".join([lines[0], "|---" + "|---:" * (len(rows[0]) - 1) + "|", *lines[1:]])


def _class_accuracy(confusion: np.ndarray) -> list[float | None]:
    """Of each class; None for one without clips."""
    return [float(row[label] / row.sum()) if row.sum() else None for label, row in enumerate(confusion)]


def _deviation(values: Any) -> float:
    values = list(values)
    return statistics.stdev(values) if len(values) > 1 else 0.0


def _share(accuracy: float | None) -> str:
    return "–" if accuracy is None else f"{accuracy:.3f}"


def _minutes(seconds: float) -> str:
    return f"{int(seconds) // 60} min {int(seconds) % 60} s"
