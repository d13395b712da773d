"""Scores of a model for a list of clips: each clip once, on any number of processes, and none of them lost."""

from __future__ import annotations

import functools
import json
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from accelerate.utils import gather_object
from rich.progress import track
from torch.utils.data import DataLoader, Subset

from ..data.datasets import EvalClips
from ..data.workers import ignore_sigterm, sigterm_held
from ..descriptions.files import write_atomically
from ..modeling.modeling_video_text import TextBank
from .bars import progress_console
from .metrics import label_ranks
from .predictions import EvaluationResult, Prediction

_MAX_FRAMES = 256  # of one forward pass: about 1.5 GB of activations in the largest tower
_MAX_SCORES = 16384  # of one forward pass: X-CLIP's prompts take memory by view and text


@dataclass(frozen=True)
class Scoring:
    """How the logits of a clip become its scores.

    Args:
        num_templates: M; the bank holds the N texts in the first template, then in the second, and so on.
        num_distractors: how many of the N texts, the last ones, are no classes.
        view_average: of views, "probabilities" or "features", as in a protocol.
        is_multi_label: probabilities of each class apart (sigmoid), instead of among all (softmax).
    """

    num_templates: int = 1
    num_distractors: int = 0
    view_average: str = "probabilities"
    is_multi_label: bool = False

    def log_probabilities(self, logits: torch.Tensor, num_clips: int) -> torch.Tensor:
        """(B, N) float32, the mean of the probabilities over views and templates, of logits (B*V, M*N)."""
        logits = logits.double().view(num_clips, -1, self.num_templates, logits.shape[-1] // self.num_templates)
        if self.is_multi_label:
            return _mean_log_sigmoid(logits.flatten(1, 2)).float()
        each = logits.log_softmax(dim=-1).flatten(1, 2)  # (B, V*M, N)
        return (each.logsumexp(dim=1) - math.log(each.shape[1])).float()


def _mean_log_sigmoid(logits: torch.Tensor) -> torch.Tensor:
    """Log of the mean over views of the sigmoid, (B, N) of (B, V, N); exact also where it is all but 0."""
    num_views = math.log(logits.shape[1])
    of_rest = torch.nn.functional.logsigmoid(-logits).logsumexp(dim=1) - num_views  # of 1 - mean
    usual = torch.nn.functional.logsigmoid(logits).logsumexp(dim=1) - num_views
    return torch.where(of_rest < -1, torch.log1p(-of_rest.exp()), usual)


PLAIN = Scoring()


@torch.inference_mode()
def evaluate_clips(
    model: Any,
    dataset: EvalClips,
    text_bank: TextBank | None,
    *,
    scoring: Scoring = PLAIN,
    batch_size: int = 8,
    num_workers: int = 0,
    process_index: int = 0,
    num_processes: int = 1,
    show_progress: bool = True,
    journal: Any = None,
) -> EvaluationResult:
    """Scores every clip once, whatever the number of processes, workers and clips per batch.

    A video classifier has its classes inside, and `text_bank` is None. Each process takes every num_processes-th clip
    and gets the results of all. Every module of the model is left in the mode it was in.

    Args:
        model: what scores.
        dataset: the clips, with processor and views.
        text_bank: of M*N texts, of which the first are the classes and the others distractors, as `scoring` says.
        scoring: how views and templates are averaged; probabilities over views by default, as in X-CLIP's `main.py`.
        batch_size: clips that are loaded together; so many views at once as fit go through the model.
        num_workers: processes that decode.
        process_index: which of `num_processes` this is.
        num_processes: which share the clips.
        show_progress: draw a bar, if there is a terminal.
        journal: a `ScoreJournal`, from which an interrupted evaluation goes on.

    Raises:
        ValueError: if there are no clips, bank and clips have different numbers of classes, or views are to be averaged
            as features by a model whose texts depend on the video.
    """
    if len(dataset) == 0:
        raise ValueError("there are no clips to evaluate.")
    class_names = dataset.clips.class_names
    num_texts = scoring.num_templates * (len(class_names) + scoring.num_distractors)
    if text_bank is not None and len(text_bank.names) != num_texts:
        raise ValueError(f"the bank has {len(text_bank.names)} texts, the clips {len(class_names)} classes.")
    _check_features(model, scoring)
    done = {} if journal is None else journal.read()
    waiting = [index for index in range(len(dataset)) if index not in done]
    loader = DataLoader(
        Subset(dataset, waiting[process_index::num_processes]),
        batch_size=batch_size,
        num_workers=num_workers,
        collate_fn=list,
        worker_init_fn=ignore_sigterm,
        generator=torch.Generator(),  # it draws a number, which must not be missing where training goes on
    )
    own: list[tuple[int, Prediction]] = []
    modes = [(module, module.training) for module in model.modules()]  # frozen parts may be in another than the rest
    model.eval()
    try:
        for samples in _batches(loader, show_progress):
            new = _predict(model, samples, dataset, text_bank, scoring)
            own += new
            if journal is not None:
                journal.add(new)
    finally:
        for module, was_training in modes:
            module.training = was_training
    by_index = done | dict(gather_object(own) if num_processes > 1 else own)
    names = class_names if text_bank is None else text_bank.names[: len(class_names)]
    return EvaluationResult(tuple(names), tuple(by_index[index] for index in range(len(dataset))))


def _batches(loader: DataLoader, show_progress: bool) -> Iterator[list[dict[str, Any]]]:
    console = progress_console()
    is_hidden = not (show_progress and console.is_terminal)
    if len(loader) == 0:
        return
    with sigterm_held():
        batches = iter(loader)  # which starts the workers
    yield from track(batches, "evaluating", total=len(loader), console=console, transient=True, disable=is_hidden)


def _check_features(model: Any, scoring: Scoring) -> None:
    if scoring.view_average == "features" and not hasattr(model, "score_features"):
        raise ValueError(
            f"view_average='features' does not fit a {type(model).__name__}: its views are not compared with one text "
            "embedding. Use view_average: probabilities."
        )


def _predict(
    model: Any, samples: list[dict[str, Any]], dataset: EvalClips, text_bank: TextBank | None, scoring: Scoring
) -> list[tuple[int, Prediction]]:
    """(index, prediction) of each sample, decoded or not."""
    predictions = []
    decoded = [sample for sample in samples if "error" not in sample]
    for sample in samples:
        if "error" in sample:
            clip = dataset.clips.clips[sample["index"]]
            reason = sample["error"].replace(str(clip.source), clip.clip_id)  # results go to the Hub, folders do not
            failed = Prediction(clip.clip_id, clip.label, other_labels=clip.other_labels, error=reason)
            predictions.append((sample["index"], failed))
    if not decoded:
        return predictions
    scores = score_clips(model, [sample["pixel_values"] for sample in decoded], text_bank, scoring)  # (B, N)
    ranks = label_ranks(scores, torch.tensor([sample["labels"] for sample in decoded])).tolist()
    for row, rank, sample in zip(scores, ranks, decoded, strict=True):
        clip = dataset.clips.clips[sample["index"]]
        prediction = Prediction(
            clip_id=clip.clip_id,
            label=clip.label,
            predicted=int(row.argmax()),
            rank=rank,
            log_probabilities=row.numpy(),
            other_labels=clip.other_labels,
        )
        predictions.append((sample["index"], prediction))
    return predictions


def score_clips(model: Any, clips: list[torch.Tensor], text_bank: TextBank | None, scoring: Scoring) -> torch.Tensor:
    """(B, N) on the CPU, of B clips (V, T, 3, S, S); clips of different T, as sampling="all" gives, go one by one."""
    if len({clip.shape[1] for clip in clips}) > 1:
        return torch.cat([score_clips(model, [clip], text_bank, scoring) for clip in clips])
    views = torch.cat(clips)  # (B*V, T, 3, S, S)
    if scoring.view_average == "features":
        features = _in_parts(lambda part: model.get_video_features(part).pooler_output, views, model, num_texts=1)
        features = features.view(len(clips), -1, features.shape[-1]).mean(dim=1)  # (B, C)
        logits = model.score_features(features, text_bank)
    elif text_bank is None:
        logits = _in_parts(lambda part: model(pixel_values=part).logits, views, model, num_texts=1)  # (B*V, N)
    else:
        score = functools.partial(_logits_of_texts, model, text_bank)
        logits = _in_parts(score, views, model, num_texts=len(text_bank.names))  # (B*V, M*N)
    return scoring.log_probabilities(logits.float().cpu(), len(clips))


def _logits_of_texts(model: Any, text_bank: TextBank, views: torch.Tensor) -> torch.Tensor:
    return model(pixel_values=views, text_bank=text_bank).logits_per_video


def _in_parts(forward: Any, views: torch.Tensor, model: Any, *, num_texts: int) -> torch.Tensor:
    """`forward` of all views, so many at a time as memory has room for; on a full accelerator, half as many."""
    device = next(model.parameters()).device
    size = max(1, min(_MAX_FRAMES // views.shape[1], _MAX_SCORES // num_texts))
    results: list[torch.Tensor] = []
    start = 0
    while start < len(views):
        try:
            results.append(forward(views[start : start + size].to(device)))
        except torch.OutOfMemoryError:
            if size == 1:
                raise
            torch.accelerator.memory.empty_cache()
            size //= 2
        else:
            start += size
    return torch.cat(results)


def write_json(path: str | os.PathLike[str], content: Any) -> None:
    """Writes JSON; a half-written file never replaces a good one."""
    write_atomically(path, (json.dumps(content, indent=2) + "\n").encode())
