"""The result of a protocol: what was measured on each split, with the protocol that fixes it; one JSON, one parquet."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import os
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from .. import __version__
from ..descriptions.files import write_atomically
from .evaluator import write_json
from .measures import class_values, counted, is_share, split_metrics, split_statistics
from .prediction_files import predictions_as_bytes, read_predictions, readable
from .predictions import EvaluationResult, Prediction
from .protocol import Protocol, Split
from .statistics import bootstrap_interval, mean_and_std

__all__ = [
    "PREDICTIONS_NAME",
    "RESULTS_NAME",
    "ProtocolResult",
    "model_facts",
    "read_result",
]

RESULTS_NAME, PREDICTIONS_NAME = "results.json", "predictions.parquet"
_FORMAT = 1  # of results.json
_COMPUTED = ("metrics", "std", "splits", "predictions_sha256")  # of results.json: what follows from the predictions
_PACKAGES = ("torch", "transformers", "av")


@dataclass(frozen=True)
class ProtocolResult:
    """What a model reaches under a protocol.

    Attributes:
        protocol: bound: with the frames, pixels and clips that were used.
        model: its name, type, size and the hash of its weights (`model_facts`).
        splits: name -> predictions of its clips.
        settings: what else was chosen, such as the descriptions that the model read.
    """

    protocol: Protocol
    model: Mapping[str, Any]
    splits: Mapping[str, EvaluationResult]
    settings: Mapping[str, Any] = field(default_factory=dict)

    def split_metrics(self) -> dict[str, dict[str, float]]:
        """Split -> its metrics, by name; NaN where no clip could be decoded."""
        return {name: split_metrics(self.protocol, result) for name, result in self.splits.items()}

    def metrics(self) -> dict[str, float]:
        """The mean of every metric over the splits, of shares the harmonic one where the protocol says so."""
        return {name: mean for name, (mean, _) in self._over_splits().items()}

    def std(self) -> dict[str, float | None]:
        """The sample standard deviation of every metric over the splits; None for one, and with a harmonic mean."""
        return {name: std for name, (_, std) in self._over_splits().items()}

    def class_values(self) -> dict[str, tuple[float, int]]:
        """Class -> (share of its clips that are right, how many there are in all splits), as `measures` counts."""
        return class_values(self.protocol, self.splits.values())

    def confusion(self) -> np.ndarray:
        """(N, N + D) counts of all splits together; row: true class, column: predicted class or distractor."""
        protocol = self.protocol
        place = {name: index for index, name in enumerate(protocol.classes)}
        counts = np.zeros((len(place), len(place) + len(protocol.distractors)), dtype=int)
        for split in protocol.splits:
            candidates = [place[name] for name in protocol.split_classes(split)]
            columns = [*candidates, *range(len(place), counts.shape[1])]
            for prediction in self.splits[split.name].decoded:
                if prediction.predicted is not None:
                    counts[candidates[prediction.label], columns[prediction.predicted]] += 1
        return counts

    def summary(self) -> tuple[str, dict[str, str]]:
        """What the mean over splits is called, and what it is of each metric, for people to read."""
        mean, std = self.metrics(), self.std()
        texts = {name: f"{mean[name]:.4f}" + ("" if std[name] is None else f" ± {std[name]:.4f}") for name in mean}
        return ("harmonic mean" if self.protocol.split_mean == "harmonic" else "mean ± std"), texts

    def _over_splits(self) -> dict[str, tuple[float, float | None]]:
        each = list(self.split_metrics().values())
        values = {name: [metrics[name] for metrics in each] for name in each[0]}
        if self.protocol.split_mean == "harmonic":
            return {name: (_harmonic_mean(name, own), None) for name, own in values.items()}
        return {name: mean_and_std(own) for name, own in values.items()}

    def as_dict(self) -> dict[str, Any]:
        """Everything but the predictions, ready for JSON, where an accuracy over no clip is null."""
        protocol = self.protocol
        identity = {"name": protocol.name, "version": protocol.version, "sha256": protocol.sha256}
        metrics = self.split_metrics()
        splits = [
            {
                "name": name,
                "metrics": metrics[name],
                "intervals": _intervals(protocol, result),
                "class_accuracy": _class_accuracy(protocol, result),
                "failed": {readable(clip_id): readable(reason) for clip_id, reason in result.failed.items()},
            }
            for name, result in self.splits.items()
        ]
        content = {
            "format": _FORMAT,
            "protocol": identity | {"content": protocol.content},
            "model": dict(self.model),
            "settings": dict(self.settings),
            "metrics": self.metrics(),
            "std": self.std(),
            "splits": splits,
            "predictions_sha256": _predictions_sha256(self.splits),
            "versions": {"kinetext": __version__} | {package: version(package) for package in _PACKAGES},
        }
        return _without_nan(content)

    def write(self, folder: str | os.PathLike[str]) -> None:
        """Writes results.json and predictions.parquet into a folder, each whole."""
        rows = [
            (name, index, prediction)
            for name, result in self.splits.items()
            for index, prediction in enumerate(result.predictions)
        ]
        write_atomically(Path(folder) / PREDICTIONS_NAME, predictions_as_bytes(rows))
        write_json(Path(folder) / RESULTS_NAME, self.as_dict())


def read_result(source: str | os.PathLike[str]) -> ProtocolResult:
    """The result that `ProtocolResult.write` wrote.

    Args:
        source: its results.json, or the folder of that; predictions.parquet lies beside it.

    Raises:
        FileNotFoundError: if one of the two is not there.
        ValueError: if they are no result of kinetext, or of another version of the format, or do not belong together.
    """
    path = Path(source)
    path = path / RESULTS_NAME if path.is_dir() else path
    if not path.is_file():
        raise FileNotFoundError(f"there is no result at {path}; give the {RESULTS_NAME} of `kinetext eval`.")
    try:
        content = json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is no JSON: {error}.") from error
    if not isinstance(content, dict) or content.get("format") != _FORMAT:
        raise ValueError(f"{path} is no result of `kinetext eval` in the format {_FORMAT}; evaluate again.")
    predictions = path.with_name(PREDICTIONS_NAME)
    if not predictions.is_file():
        raise FileNotFoundError(f"{predictions} is missing: it lies beside {RESULTS_NAME} and holds its predictions.")
    try:
        result = _restored(content, read_predictions(predictions))
        written = {name: content[name] for name in _COMPUTED}
        own = {name: value for name, value in result.as_dict().items() if name in _COMPUTED}
        is_whole = own == written and result.protocol.sha256 == content["protocol"]["sha256"]
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is no whole result of `kinetext eval` ({error!r}); evaluate again.") from error
    if not is_whole:
        raise ValueError(
            f"{path} and {predictions} are not of the same evaluation, or were changed by hand. Evaluate again."
        )
    return result


def _restored(content: Mapping[str, Any], rows: Sequence[tuple[str, int, Prediction]]) -> ProtocolResult:
    protocol = _protocol(content["protocol"]["content"])
    splits = {
        split.name: EvaluationResult(
            protocol.split_classes(split), tuple(prediction for name, _, prediction in rows if name == split.name)
        )
        for split in protocol.splits
    }
    return ProtocolResult(protocol, content["model"], splits, content["settings"])


def _predictions_sha256(splits: Mapping[str, EvaluationResult]) -> str:
    """SHA-256 of what was predicted, but for the scores, whose last digits depend on how clips are batched."""
    rows = [
        [split, readable(each.clip_id), each.label, *each.other_labels, each.predicted, each.rank]
        for split, result in splits.items()
        for each in result.predictions
    ]
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()


def model_facts(name: str, model_type: str, weights: Mapping[str, torch.Tensor]) -> dict[str, Any]:
    """What a result says of its model.

    Args:
        name: its folder or Hub id.
        model_type: of its configuration.
        weights: its state dict, or what its files hold.
    """
    return {
        "name": name,
        "model_type": model_type,
        "num_parameters": sum(tensor.numel() for tensor in weights.values()),
        "weights_sha256": _weights_sha256(weights),
    }


def _weights_sha256(weights: Mapping[str, torch.Tensor]) -> str:
    """SHA-256 of names, dtypes, shapes and values, in the order of the names."""
    digest = hashlib.sha256()
    for name, tensor in sorted(weights.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        values: Any = tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy()
        digest.update(memoryview(values))
    return digest.hexdigest()


def _harmonic_mean(name: str, values: Sequence[float]) -> float:
    """Of a share; of ranks and counts the arithmetic mean."""
    return statistics.harmonic_mean(values) if is_share(name) else statistics.fmean(values)


def _class_accuracy(protocol: Protocol, result: EvaluationResult) -> dict[str, float | None]:
    """Class -> share of its clips whose label comes first, None without any; nothing where clips have several."""
    if protocol.task == "multi_label":
        return {}
    values = class_values(protocol, [result])
    return {name: values[name][0] if name in values else None for name in result.class_names}


def _intervals(protocol: Protocol, result: EvaluationResult) -> dict[str, list[float]]:
    """Metric -> 95 % bootstrap interval over clips."""
    num_clips = len(counted(protocol, result))
    of_metric = split_statistics(protocol, result)
    return {name: list(bootstrap_interval(statistic, num_clips)) for name, statistic in of_metric.items()}


# JSON ---------------------------------------------------------------------------------------------------------------


def _protocol(content: Mapping[str, Any]) -> Protocol:
    """The protocol of its `content`."""
    fields = {name: _tuples(value) for name, value in content.items()}
    fields["splits"] = tuple(
        Split(**{name: _tuples(value) for name, value in split.items()}) for split in content["splits"]
    )
    known = {item.name for item in dataclasses.fields(Protocol)}
    return Protocol(**{name: value for name, value in fields.items() if name in known})


def _tuples(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _without_nan(value: Any) -> Any:
    """The same with None for NaN, which JSON has not."""
    if isinstance(value, dict):
        return {name: _without_nan(each) for name, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_nan(each) for each in value]
    return None if isinstance(value, float) and math.isnan(value) else value
