"""The page that an evaluation leaves beside its numbers: what they are, how sure, and where the model goes wrong.

One HTML file that asks the network for nothing: styles inside, diagrams as SVG inside, no script. All text is escaped
by the template; names that are no UTF-8 are written with their bytes.
"""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..descriptions.files import write_atomically
from .compare import check_same_protocol, compare_results
from .measures import METRIC_TITLES, primary_metric
from .plots import Confusion, hardest_confusions
from .protocol import Protocol
from .results import ProtocolResult

__all__ = ["REPORT_PAGE_NAME", "write_report_page"]

REPORT_PAGE_NAME = "report.html"
_TEMPLATE = Path(__file__).parent / "templates" / "report.html"
_NUM_CONFUSIONS = 8
_NUM_CHANGES = 5  # classes that gained most, and as many that lost most
_MAX_WRITTEN_COUNTS = 30  # classes; above, a cell of the matrix has no room for its count
_MAX_NAMED = 101  # classes; above, names would lie on each other
_COUNT_SUFFIX = "_count"
_TASKS = {
    "classification": "Classification: a clip is right if the text of its class scores highest.",
    "retrieval": "Retrieval: the rank of the right text among all texts.",
    "multi_label": "Multi-label: clips show several classes, and are ranked for each of them.",
}
_AVERAGES = {
    "probabilities": "The probabilities are averaged.",
    "features": "The features are averaged before they are compared.",
}


def write_report_page(
    path: str | os.PathLike[str],
    result: ProtocolResult,
    *,
    texts: Sequence[str],
    baseline: ProtocolResult | None = None,
    run: Mapping[str, Any] | None = None,
) -> None:
    """Writes the page of a result; a half-written one never replaces a good one.

    Args:
        path: of the file.
        result: what is reported.
        texts: N texts in the order of the protocol's classes, to compare where classes are confused: descriptions of
            them, or the class texts.
        baseline: another result of the same protocol, which is shown beside.
        run: facts of the run that are in no result, such as command, device and time, by name.

    Raises:
        ValueError: if there are not N texts, or the baseline is of another protocol.
    """
    if len(texts) != len(result.protocol.classes):
        raise ValueError(f"{len(texts)} texts for {len(result.protocol.classes)} classes; one for each is wanted.")
    page = _template().render(_context(result, tuple(texts), baseline, run or {}))
    write_atomically(Path(path), page.encode(errors="backslashreplace"))


@functools.cache
def _template() -> Any:
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters.update(percent=_percent, signed=_signed, value=_value, metric=_title, plain=_plain)
    return environment.from_string(_TEMPLATE.read_text("utf-8"))


def _context(
    result: ProtocolResult, texts: tuple[str, ...], baseline: ProtocolResult | None, run: Mapping[str, Any]
) -> dict[str, Any]:
    """Everything the template reads."""
    protocol, content = result.protocol, result.as_dict()
    primary = primary_metric(protocol)
    matrix = None if protocol.task == "multi_label" else result.confusion()
    names = {True: _name(baseline), False: _name(result)} if baseline is not None else {False: _name(result)}
    if baseline is not None and names[True] == names[False]:
        names = {True: f"{names[True]} (baseline)", False: names[False]}
    return {
        "title": names[False],
        "protocol": protocol,
        "primary": primary,
        "chance": protocol.chance,
        "content": content,
        "metrics": _shown_metrics(content["metrics"]),
        "interval": content["splits"][0]["intervals"].get(primary) if len(content["splits"]) == 1 else None,
        "num_decoded": sum(split["metrics"]["num_decoded"] for split in content["splits"]),
        "num_listed": sum(split["metrics"]["num_listed"] for split in content["splits"]),
        "baseline": None if baseline is None else _baseline(names, result, baseline),
        "classes": _class_bars(result, baseline),
        "matrix": _matrix(matrix, protocol),
        "confusions": _confusions(matrix, protocol, texts),
        "num_wrong": _num_wrong(matrix),
        "failed": [(split["name"], *pair) for split in content["splits"] for pair in split["failed"].items()],
        "fields": [(label, tell(protocol)) for label, tell in _FIELDS.values()],
        "facts": {
            "Model": _flat(content["model"]),
            "Settings": _flat(content["settings"]),
            "Run": _flat(run),
            "Versions": _flat(content["versions"]),
        },
    }


def _name(result: ProtocolResult) -> str:
    return str(result.model["name"])


# Numbers


def _shown_metrics(metrics: Mapping[str, Any]) -> list[str]:
    """The metrics that are columns: not counts, coverage and bounds, which stand elsewhere."""
    hidden = (_COUNT_SUFFIX, "_worst", "_best", "coverage", "num_decoded", "num_listed")
    return [name for name in metrics if not name.endswith(hidden)]


def _baseline(names: Mapping[bool, str], result: ProtocolResult, baseline: ProtocolResult) -> dict[str, Any]:
    results = {names[True]: baseline, names[False]: result}
    check_same_protocol(results)
    try:
        compared = compare_results(results)
    except ValueError as error:  # such as no clip that both decoded; the page is wanted all the same
        return {"name": names[True], "fault": str(error)}
    (pair,) = compared.pairs
    gains = [change for change in pair.classes if change.difference > 0][:_NUM_CHANGES]
    losses = [change for change in reversed(pair.classes) if change.difference < 0][:_NUM_CHANGES]
    changes = [*gains, *reversed(losses)]
    return {"name": names[True], "fault": None, "compared": compared, "pair": pair, "changes": changes}


@dataclass(frozen=True)
class _ClassBar:
    name: str
    share: float | None  # None without clips
    num_clips: int
    baseline: float | None


def _class_bars(result: ProtocolResult, baseline: ProtocolResult | None) -> list[_ClassBar]:
    """Every class, the best first, those without clips last."""
    own = result.class_values()
    other = {} if baseline is None else baseline.class_values()
    bars = []
    for name in result.protocol.classes:
        share, num_clips = own.get(name, (None, 0))
        beside, _ = other.get(name, (None, 0))
        bars.append(_ClassBar(name, share, num_clips, beside))
    return sorted(bars, key=lambda bar: (bar.share is None, -(bar.share or 0), bar.name))


# Confusions


def _num_wrong(matrix: np.ndarray | None) -> int:
    return 0 if matrix is None else int(matrix.sum() - np.trace(matrix))


def _confusions(
    matrix: np.ndarray | None, protocol: Protocol, texts: tuple[str, ...]
) -> list[tuple[Confusion, str, str, str, str]]:
    """(confusion, true class, its text, what it was taken for, the text of that)."""
    if matrix is None:
        return []
    names = (*protocol.classes, *("a distractor" for _ in protocol.distractors))
    read = (*texts, *protocol.distractors)
    return [
        (pair, names[pair.true], read[pair.true], names[pair.predicted], read[pair.predicted])
        for pair in hardest_confusions(matrix, _NUM_CONFUSIONS)
    ]


def _matrix(matrix: np.ndarray | None, protocol: Protocol) -> dict[str, Any] | None:
    """What the diagram draws: cells (row, column, share of the row, count), and how large all is, in SVG units."""
    if matrix is None:
        return None
    num_classes = len(protocol.classes)
    drawn, columns = matrix[:, :num_classes], [_short(name) for name in protocol.classes]
    if protocol.distractors:  # one column for all of them
        drawn = np.concatenate([drawn, matrix[:, num_classes:].sum(axis=1, keepdims=True)], axis=1)
        columns.append("a distractor")
    totals = matrix.sum(axis=1)
    has_counts = num_classes <= _MAX_WRITTEN_COUNTS
    cell = 28 if has_counts else max(2, min(9, 900 // num_classes))
    font = 12 if has_counts else 7
    return {
        "rows": columns[:num_classes],
        "columns": columns,
        "cells": [
            (int(row), int(column), float(drawn[row, column] / totals[row]), int(drawn[row, column]))
            for row, column in zip(*np.nonzero(drawn), strict=True)
        ],
        "cell": cell,
        "font": font,
        "margin": 8 if num_classes > _MAX_NAMED else round(0.63 * font * max(map(len, columns))) + 12,
        "has_counts": has_counts,
        "has_names": num_classes <= _MAX_NAMED,
    }


def _short(name: str, limit: int = 24) -> str:
    name = _plain(name)
    return name if len(name) <= limit else f"{name[: limit - 1]}…"


# The protocol in words: every field, in the order of `Protocol`


def _frames(protocol: Protocol) -> str:
    return _given(protocol.num_frames, "{} frames of each clip.")


def _given(value: Any, sentence: str) -> str:
    return "As the model was saved with." if value is None else sentence.format(value)


def _templates(protocol: Protocol) -> list[str]:
    if protocol.templates is None:
        return ["As the model was saved with."]
    if protocol.templates == ("{}",):
        return ["The class text as it is."]
    return [f"{len(protocol.templates)} templates, with {{}} for the class text:", *protocol.templates]


def _sampling(protocol: Protocol) -> str:
    kinds = {
        "segments": "Segments: one frame of each of as many equal parts of the video.",
        "uniform": "Uniform: from the first frame to the last in equal steps.",
        "dense": "Dense: neighbouring frames, a stride apart.",
        "all": "Every frame of the video.",
        None: _given(None, ""),
    }
    return kinds[protocol.sampling]


def _stride(protocol: Protocol) -> str:
    if protocol.sampling not in ("dense", None):
        return "Of dense sampling only."
    return _given(protocol.stride, "{} frames from one to the next.")


def _listed(protocol: Protocol) -> str:
    if protocol.listed_classes is None:
        return "The same; every clip that is listed counts."
    return f"The lists of clips count in {len(protocol.listed_classes)} classes; clips of the others are left out."


def _failed(protocol: Protocol) -> str:
    kinds = {
        "left_out": "Clips that cannot be decoded are left out of the accuracy.",
        "wrong": "Clips that cannot be decoded count as wrong.",
    }
    return kinds[protocol.failed_clips]


def _splits(protocol: Protocol) -> list[str]:
    lines = []
    for split in protocol.splits:
        clips = "clips as found" if split.num_clips is None else f"{split.num_clips} clips"
        digest = "" if split.clips_sha256 is None else f", SHA-256 of their list {split.clips_sha256[:12]}"
        lines.append(f"{split.name}: {clips} of {len(protocol.split_classes(split))} candidates{digest}")
    return lines


_FIELDS: dict[str, tuple[str, Callable[[Protocol], str | list[str]]]] = {
    "name": ("Name", lambda protocol: protocol.name),
    "version": ("Version", lambda protocol: str(protocol.version)),
    "dataset": ("Data set", lambda protocol: protocol.dataset),
    "classes": ("Candidates", lambda protocol: [f"{len(protocol.classes)} classes:", *protocol.classes]),
    "class_texts": (
        "Class texts",
        lambda protocol: (
            "The names of the classes."
            if protocol.class_texts == protocol.classes
            else ["One for each class, in their order:", *protocol.class_texts]
        ),
    ),
    "task": ("Task", lambda protocol: _TASKS[protocol.task]),
    "listed_classes": ("Classes of the lists", _listed),
    "distractors": (
        "Distractors",
        lambda protocol: (
            [f"{len(protocol.distractors)} further texts, right for no clip:", *protocol.distractors]
            if protocol.distractors
            else "None."
        ),
    ),
    "templates": ("Templates", _templates),
    "template_average": (
        "Average of templates",
        lambda protocol: (
            "One template." if len(protocol.templates or "1") == 1 else _AVERAGES[protocol.template_average]
        ),
    ),
    "num_frames": ("Frames", _frames),
    "sampling": ("Sampling", _sampling),
    "stride": ("Stride", _stride),
    "short_side": ("Resize", lambda protocol: _given(protocol.short_side, "The shorter side to {} pixels.")),
    "crop_size": ("Crop", lambda protocol: _given(protocol.crop_size, "A square of {} pixels.")),
    "num_clips": ("Clips per video", lambda protocol: str(protocol.num_clips)),
    "num_crops": ("Crops per clip", lambda protocol: str(protocol.num_crops)),
    "view_average": (
        "Average of views",
        lambda protocol: "One view." if protocol.views == "1x1" else _AVERAGES[protocol.view_average],
    ),
    "failed_clips": ("Failed clips", _failed),
    "split_mean": (
        "Mean of splits",
        lambda protocol: "One split." if len(protocol.splits) == 1 else f"The {protocol.split_mean} mean.",
    ),
    "splits": ("Splits", _splits),
    "note": ("Note", lambda protocol: protocol.note or "None."),
}


# Text


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{value:.2%}".replace("%", "\N{NO-BREAK SPACE}%")


def _signed(value: float, metric: str) -> str:
    """A difference: percentage points, or ranks."""
    if value != value:  # NaN
        return "–"
    return f"{value:+.1f}" if metric == "median_rank" else f"{100 * value:+.2f}"


def _value(value: float | None, metric: str) -> str:
    if value is None or value != value:
        return "–"
    return f"{value:g}" if metric == "median_rank" else _percent(value)


def _title(metric: str) -> str:
    return METRIC_TITLES.get(metric, metric.replace("_", " "))


def _plain(value: Any) -> str:
    """A value in one line."""
    return " ".join(str(value).split())


def _flat(facts: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(name, value as text) of facts, nested ones as JSON."""
    return [
        (name, value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str))
        for name, value in facts.items()
    ]
