"""Top-1 and top-5 of a model on a list of clips, with exact counts and coverage, on any number of processes."""

from __future__ import annotations

import json
import math
import os
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from accelerate.utils import gather_object
from rich.progress import track
from torch.utils.data import DataLoader, Subset

from ..data.datasets import EvalClips
from ..data.workers import ignore_sigterm, sigterm_held
from ..descriptions.files import write_atomically
from ..modeling.modeling_video_text import TextBank
from .bars import progress_console
from .metrics import topk_hits


@dataclass(frozen=True)
class Prediction:
    """What the model said of one clip.

    Attributes:
        clip_id: the clip.
        label: its class, an index.
        predicted: the class with the highest score.
        score: probability of that class, mean over views.
        top1: whether the label scores highest.
        top5: whether it is among the five highest.
        error: why there is no prediction, or None; then all but clip_id and label are None.
    """

    clip_id: str
    label: int
    predicted: int | None = None
    score: float | None = None
    top1: bool | None = None
    top5: bool | None = None
    error: str | None = None


@dataclass(frozen=True)
class EvaluationResult:
    """Predictions of all listed clips, in list order, and what they add up to."""

    class_names: tuple[str, ...]
    predictions: tuple[Prediction, ...]

    @property
    def decoded(self) -> list[Prediction]:
        """The clips that could be decoded."""
        return [prediction for prediction in self.predictions if prediction.error is None]

    def metrics(self) -> dict[str, float]:
        """top1 and top5 over decoded clips, the counts behind them, and coverage = decoded / listed."""
        decoded = self.decoded
        top1 = sum(bool(prediction.top1) for prediction in decoded)
        top5 = sum(bool(prediction.top5) for prediction in decoded)
        return {
            "top1": top1 / len(decoded) if decoded else float("nan"),
            "top5": top5 / len(decoded) if decoded else float("nan"),
            "top1_count": top1,
            "top5_count": top5,
            "num_decoded": len(decoded),
            "num_listed": len(self.predictions),
            "coverage": len(decoded) / len(self.predictions),
        }

    def confusion(self) -> np.ndarray:
        """(N, N) counts of decoded clips; row: true class, column: predicted class."""
        counts = np.zeros((len(self.class_names), len(self.class_names)), dtype=int)
        for prediction in self.decoded:
            counts[prediction.label, prediction.predicted] += 1
        return counts

    def as_dict(self) -> dict[str, Any]:
        """Everything, ready for JSON, where an accuracy over no clip is null."""
        return {
            "metrics": {name: None if math.isnan(value) else value for name, value in self.metrics().items()},
            "class_names": list(self.class_names),
            "predictions": [asdict(prediction) for prediction in self.predictions],
        }


@torch.inference_mode()
def evaluate_clips(
    model: Any,
    dataset: EvalClips,
    text_bank: TextBank | None,
    *,
    batch_size: int = 8,
    num_workers: int = 0,
    process_index: int = 0,
    num_processes: int = 1,
    show_progress: bool = True,
) -> EvaluationResult:
    """Classifies every clip once, whatever the number of processes, workers and clips per batch.

    A video classifier has its classes inside, and `text_bank` is None.
    Probabilities are averaged over the views of a clip (`main.py`). Each process takes every num_processes-th clip
    and gets the results of all. Every module of the model is left in the mode it was in.

    Raises:
        ValueError: if there are no clips, or bank and clips have different numbers of classes.
    """
    if len(dataset) == 0:
        raise ValueError("there are no clips to evaluate.")
    class_names = dataset.clips.class_names if text_bank is None else text_bank.names
    if len(class_names) != len(dataset.clips.class_names):
        raise ValueError(f"the bank has {len(class_names)} texts, the clips {len(dataset.clips.class_names)} classes.")
    indices = range(process_index, len(dataset), num_processes)
    loader = DataLoader(
        Subset(dataset, indices),
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
        console = progress_console()
        is_hidden = not (show_progress and console.is_terminal)
        with sigterm_held():
            batches = iter(loader)  # which starts the workers
        for samples in track(
            batches, "evaluating", total=len(loader), console=console, transient=True, disable=is_hidden
        ):
            own += _predict(model, samples, dataset, text_bank)
    finally:
        for module, was_training in modes:
            module.training = was_training
    gathered = gather_object(own) if num_processes > 1 else own
    by_index = dict(gathered)
    return EvaluationResult(class_names, tuple(by_index[index] for index in range(len(dataset))))


def _predict(
    model: Any, samples: list[dict[str, Any]], dataset: EvalClips, text_bank: TextBank | None
) -> list[tuple[int, Prediction]]:
    """(index, prediction) of each sample; views of all clips of one length go through the model as one batch."""
    predictions = []
    decoded = [sample for sample in samples if "error" not in sample]
    for sample in samples:
        if "error" in sample:
            clip_id = dataset.clips.clips[sample["index"]].clip_id
            predictions.append((sample["index"], Prediction(clip_id, sample["labels"], error=sample["error"])))
    if not decoded:
        return predictions
    scores = _mean_probabilities(model, [sample["pixel_values"] for sample in decoded], text_bank)  # (B, N)
    labels = torch.tensor([sample["labels"] for sample in decoded])
    top1, top5 = topk_hits(scores, labels, 1), topk_hits(scores, labels, 5)
    for row, sample in enumerate(decoded):
        best = int(scores[row].argmax())
        predictions.append(
            (
                sample["index"],
                Prediction(
                    clip_id=dataset.clips.clips[sample["index"]].clip_id,
                    label=sample["labels"],
                    predicted=best,
                    score=float(scores[row, best]),
                    top1=bool(top1[row]),
                    top5=bool(top5[row]),
                ),
            )
        )
    return predictions


def _mean_probabilities(model: Any, clips: list[torch.Tensor], text_bank: TextBank | None) -> torch.Tensor:
    """(B, N) on the CPU, of B clips (V, T, 3, S, S); clips of different T, as sampling="all" gives, go one by one."""
    if len({clip.shape[1] for clip in clips}) > 1:
        return torch.cat([_mean_probabilities(model, [clip], text_bank) for clip in clips])
    views = torch.cat(clips).to(next(model.parameters()).device)  # (B*V, T, 3, S, S)
    if text_bank is None:
        logits = model(pixel_values=views).logits.float().cpu()  # (B*V, N)
    else:
        logits = model(pixel_values=views, text_bank=text_bank).logits_per_video.float().cpu()  # (B*V, N)
    return logits.softmax(dim=-1).view(len(clips), -1, logits.shape[-1]).mean(dim=1)


def write_json(path: str | os.PathLike[str], content: Any) -> None:
    """Writes JSON; a half-written file never replaces a good one."""
    write_atomically(path, (json.dumps(content, indent=2) + "\n").encode())
