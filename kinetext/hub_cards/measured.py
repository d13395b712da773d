"""Results in a model card: a section that people read, `model-index` and `.eval_results` that the Hub reads."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import EvalResult, EvalResultEntry, ModelCard, eval_result_entries_to_yaml
from safetensors.torch import load_file

from ..descriptions.files import write_atomically
from ..evaluation.evaluator import write_json
from ..evaluation.measures import METRIC_TITLES, primary_metric
from ..evaluation.protocol import Protocol
from ..evaluation.results import ProtocolResult, model_facts, read_result
from .markdown import cell, code, one_line

__all__ = ["EVALUATION_FILES", "HUB_RESULTS", "add_results", "index_entries", "measured_section"]

EVALUATION_FILES = "evaluation_*.json"  # copies of results, beside the card
HUB_RESULTS = ".eval_results/kinetext.yaml"

_TASKS = {"classification": "video-classification", "retrieval": "video-text-retrieval"}
_SECTION = re.compile(r"^## Measured[ \t]*$.*?(?=^## |\Z)", re.MULTILINE | re.DOTALL)
_NO_PARAGRAPH = re.compile(r"^(?=#|```|~~~)")  # what makes a heading or code of a text


def add_results(folder: str | os.PathLike[str], sources: Sequence[str | os.PathLike[str]]) -> None:
    """Has the card of a saved model show these results instead of those it showed, and puts copies of them beside it.

    Args:
        folder: of the model, with its README.md.
        sources: results.json of `kinetext eval`, or folders of them.

    Raises:
        FileNotFoundError: if there is no such result or no card.
        ValueError: if a result is of other weights, two are of one protocol, or the card has no section for them.
    """
    folder, results = Path(folder), [read_result(source) for source in sources]
    _check_weights(folder, results, sources)
    hashes = [result.protocol.sha256 for result in results]
    if len(set(hashes)) < len(hashes):
        names = sorted({result.protocol.name for result in results if hashes.count(result.protocol.sha256) > 1})
        raise ValueError(f"two results are of the protocol {', '.join(names)}; give one of each.")
    card = ModelCard.load(folder / "README.md")
    if not _SECTION.search(card.text):
        raise ValueError(f"{folder / 'README.md'} has no section `## Measured`; write it anew, or add the heading.")
    section = f"## Measured\n\n{measured_section(results)}\n\n"
    card.text = _SECTION.sub(lambda _: section, card.text, count=1)
    card.data.model_name = card.data.model_name or one_line(folder.resolve().name)
    card.data.eval_results = index_entries(results) or None
    for stale in folder.glob(EVALUATION_FILES):
        stale.unlink()
    for result in results:
        name = f"evaluation_{result.protocol.name}_{result.protocol.sha256[:8]}.json"
        model = {**result.model, "name": card.data.model_name}  # not by its place on this machine
        write_json(folder / name, replace(result, model=model).as_dict())
    entries = eval_result_entries_to_yaml([_entry(result) for result in results if _has_value(result)])
    write_atomically(folder / HUB_RESULTS, yaml.safe_dump(entries, sort_keys=False, allow_unicode=True).encode())
    write_atomically(folder / "README.md", str(card).encode())


def measured_section(results: Sequence[ProtocolResult]) -> str:
    """Markdown: each result under its protocol's name, version and hash; never two protocols in one table."""
    return "\n\n".join(_of_protocol(result) for result in results)


def index_entries(results: Sequence[ProtocolResult]) -> list[EvalResult]:
    """The results as `model-index` has them: means over splits."""
    return [
        EvalResult(
            task_type=_TASKS.get(result.protocol.task, "video-classification"),
            dataset_type=re.sub(r"\s+", "-", result.protocol.dataset),
            dataset_name=result.protocol.dataset,
            dataset_split=", ".join(result.splits),
            metric_type="accuracy" if name.startswith("top") else name,
            metric_name=f"{METRIC_TITLES[name]}, protocol {result.protocol.name} {result.protocol.version}",
            metric_value=value,
            metric_args=_identity(result),
        )
        for result in results
        for name, value in _shown(result.metrics()).items()
        if value == value  # of no decoded clip it is NaN
    ]


def _identity(result: ProtocolResult) -> dict[str, Any]:
    protocol = result.protocol
    return {"protocol": protocol.name, "version": protocol.version, "sha256": protocol.sha256}


def _has_value(result: ProtocolResult) -> bool:
    value = result.metrics()[primary_metric(result.protocol)]
    return value == value  # of no decoded clip it is NaN


def _entry(result: ProtocolResult) -> EvalResultEntry:
    protocol, metrics = result.protocol, result.metrics()
    name = primary_metric(protocol)
    return EvalResultEntry(
        dataset_id=re.sub(r"\s+", "-", protocol.dataset),
        task_id=protocol.name,
        value=metrics[name],
        notes=(
            f"{METRIC_TITLES[name]} as a share; kinetext protocol {protocol.name} {protocol.version}, "
            f"SHA-256 {protocol.sha256}; coverage {metrics['coverage']:.4f}"
        ),
    )


def _of_protocol(result: ProtocolResult) -> str:
    protocol = result.protocol
    lines = [
        f"### {protocol.name}, version {protocol.version}",
        _table(result),
        f"{_candidates(protocol)}. {_clips_and_views(result)} {_counted(protocol)}",
        f"Protocol, without which these numbers compare to no others: SHA-256 {code(protocol.sha256)}.",
        *([_NO_PARAGRAPH.sub(lambda _: "\\", one_line(protocol.note))] if protocol.note.strip() else []),
    ]
    return "\n\n".join(lines)


def _candidates(protocol: Protocol) -> str:
    counts = {split.name: len(protocol.split_classes(split)) for split in protocol.splits}
    if len(set(counts.values())) == 1:
        text = f"{next(iter(counts.values()))} classes"
    else:
        text = ", ".join(f"{count} classes in {code(name)}" for name, count in counts.items())
    if protocol.distractors:
        text += f" and {len(protocol.distractors)} distractors" + (" in each" if len(set(counts.values())) > 1 else "")
    return text if protocol.chance is None else f"{text}; chance is {protocol.chance:.4f}"


def _counted(protocol: Protocol) -> str:
    """Over which clips the numbers are."""
    if protocol.task == "multi_label":
        return "Measured over decoded clips."
    if protocol.failed_clips == "wrong":
        return "In brackets: how many clips, counted over listed ones; one that cannot be decoded is wrong."
    return "In brackets: how many clips, counted over decoded ones."


def _clips_and_views(result: ProtocolResult) -> str:
    protocol = result.protocol
    sampling = f"{protocol.sampling} sampling" + (f" at stride {protocol.stride}" if protocol.stride else "")
    templates = ", ".join(code(template) for template in (protocol.templates or ())[:3])
    more = len(protocol.templates or ()) - 3
    return (
        f"{protocol.views} views of {protocol.num_frames} frames, {sampling}, {protocol.crop_size} px of "
        f"{protocol.short_side}; texts in {templates}{f' and {more} more' if more > 0 else ''}."
    )


def _table(result: ProtocolResult) -> str:
    each = result.split_metrics()
    names = list(_shown(next(iter(each.values()))))
    rows = [["split", "clips listed", "decoded", *(METRIC_TITLES[name] for name in names)]]
    for split, metrics in each.items():
        counts = [str(metrics["num_listed"]), str(metrics["num_decoded"])]
        rows.append([cell(split), *counts, *(_number(name, metrics) for name in names)])
    if len(each) > 1:
        title, means = result.summary()
        rows.append([title, "", "", *(means[name] for name in names)])
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([lines[0], "|" + "---|" * len(rows[0]), *lines[1:]])


def _shown(metrics: Mapping[str, float]) -> dict[str, float]:
    return {name: metrics[name] for name in METRIC_TITLES if name in metrics}


def _number(name: str, metrics: Mapping[str, float]) -> str:
    if metrics[name] != metrics[name]:
        return "no clip decoded"
    count = metrics.get(f"{name}_count")
    return f"{metrics[name]:.4f}" + ("" if count is None else f" ({count})")


def _check_weights(folder: Path, results: Sequence[ProtocolResult], sources: Sequence[Any]) -> None:
    """Raises ValueError for a result of other weights than those in the folder."""
    weights = {name: value for path in folder.glob("*.safetensors") for name, value in load_file(path).items()}
    own = model_facts(folder.name, "", weights)["weights_sha256"]
    for result, source in zip(results, sources, strict=True):
        if result.model["weights_sha256"] != own:
            raise ValueError(
                f"{source} was measured on other weights (SHA-256 {result.model['weights_sha256'][:12]}) than those in "
                f"{folder} ({own[:12]}); evaluate this folder."
            )
