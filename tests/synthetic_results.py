"""Results of protocols as an evaluation would leave them, from random scores: no model, no clips."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch

from kinetext.evaluation.metrics import label_ranks
from kinetext.evaluation.predictions import EvaluationResult, Prediction
from kinetext.evaluation.protocol import Protocol, Split
from kinetext.evaluation.results import ProtocolResult


def synthetic_protocol(class_names: Sequence[str], *, task: str = "classification", **fields: object) -> Protocol:
    """A bound protocol of these classes, each its own text unless `class_texts` say otherwise."""
    settings: dict = {
        "name": "shapes-zero-shot",
        "version": 1,
        "dataset": "org/shapes",
        "classes": tuple(class_names),
        "class_texts": tuple(class_names),
        "task": task,
        "templates": ("a video of {}.", "{}"),
        "num_frames": 8,
        "sampling": "segments",
        "short_side": 224,
        "crop_size": 224,
    }
    return Protocol(**{**settings, **fields})


def synthetic_result(
    protocol: Protocol,
    *,
    skill: float = 2.0,
    clips_per_class: int = 6,
    seed: int = 0,
    failed: Mapping[str, str] | None = None,
    name: str = "org/model",
) -> ProtocolResult:
    """Scores in which the label is `skill` standard deviations above the others.

    Args:
        protocol: its splits hold the same clips if they have the same candidates.
        skill: of the model.
        clips_per_class: in each split.
        seed: of the scores.
        failed: clip -> why it could not be decoded, in every split.
        name: of the model.
    """
    splits = {
        split.name: _synthetic_split(protocol, split, skill, clips_per_class, seed + 1000 * place, failed or {})
        for place, split in enumerate(protocol.splits)
    }
    model = {"name": name, "model_type": "xclip", "num_parameters": 149_620_737, "weights_sha256": "0" * 64}
    bound = tuple(replace(split, num_clips=len(splits[split.name].predictions)) for split in protocol.splits)
    return ProtocolResult(replace(protocol, splits=bound), model, splits, {"decoder": "pyav"})


def _synthetic_split(
    protocol: Protocol, split: Split, skill: float, clips_per_class: int, seed: int, failed: Mapping[str, str]
) -> EvaluationResult:
    names = protocol.split_classes(split)
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(len(names)).repeat_interleave(clips_per_class)
    logits = torch.randn(len(labels), len(names) + len(protocol.distractors), generator=generator)
    logits[range(len(labels)), labels] += skill
    scores = logits.log_softmax(dim=-1)
    ranks = label_ranks(scores, labels).tolist()
    is_multi = protocol.task == "multi_label"
    predictions = []
    for row, label in enumerate(labels.tolist()):
        clip_id = f"{names[label]}/{row % clips_per_class:02}.avi"
        others = ((label + 1) % len(names),) if is_multi and row % 2 else ()
        if clip_id in failed:
            predictions.append(Prediction(clip_id, label, other_labels=others, error=failed[clip_id]))
            continue
        prediction = Prediction(
            clip_id=clip_id,
            label=label,
            predicted=int(scores[row].argmax()),
            rank=ranks[row],
            log_probabilities=scores[row].numpy().astype(np.float32),
            other_labels=others,
        )
        predictions.append(prediction)
    return EvaluationResult(names, tuple(predictions))
