"""Results of one protocol side by side: differences with paired intervals, McNemar's test, and which classes changed.

Results are compared on the clips that all of them decoded, or on all clips where the protocol counts failed ones as
wrong. Lists may spell clips differently: they are joined as `list_fingerprint` counts them. Intervals draw clips, not
rows: a clip that several splits hold is drawn in all of them or in none. In McNemar's test it counts once, for the
result that has it right in more splits, as its rows are not independent.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..data.list_facts import clip_keys
from .measures import class_values, is_counted, is_share, split_statistics
from .predictions import EvaluationResult, Prediction
from .protocol import Protocol
from .results import ProtocolResult
from .statistics import Statistic, bootstrap_interval, holm, mcnemar_p_value

__all__ = [
    "ClassChange",
    "Comparison",
    "Estimate",
    "PairedTest",
    "check_same_protocol",
    "compare_results",
    "names_of",
    "protocol_differences",
]

_NOT_HASHED = ("note",)
_SHOWN = 60  # characters of a value in an error


@dataclass(frozen=True)
class Estimate:
    """A value and the ends of its bootstrap interval, NaN where there is none."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class ClassChange:
    """How one class changed between two results.

    Attributes:
        class_name: the class.
        first: share of its common clips that the first result has right; multi-label, its average precision.
        second: of the second result.
        num_clips: of the class, in all splits.
    """

    class_name: str
    first: float
    second: float
    num_clips: int

    @property
    def difference(self) -> float:
        """Second less first."""
        return self.second - self.first


@dataclass(frozen=True)
class PairedTest:
    """Two results on the same clips.

    Attributes:
        first: name of the first result.
        second: name of the second.
        differences: metric -> second less first, with its paired interval.
        classes: every class with common clips, from the largest gain to the largest loss.
        only_first: clips that only the first has right; None where a clip is neither right nor wrong (multi-label).
        only_second: clips that only the second has right.
        p_value: of McNemar's exact test.
        corrected: that p-value after Holm's correction for all pairs of the comparison.
    """

    first: str
    second: str
    differences: Mapping[str, Estimate]
    classes: tuple[ClassChange, ...]
    only_first: int | None = None
    only_second: int | None = None
    p_value: float | None = None
    corrected: float | None = None


@dataclass(frozen=True)
class Comparison:
    """Results of one protocol on their common clips.

    Attributes:
        protocol: of all of them.
        num_common: clips, counted in each split, that all results decoded, or list where failed ones are wrong.
        num_listed: clips, counted in each split, that any result lists.
        not_common: result -> why a clip is missing there ("failed" or "not listed") -> how often.
        values: result -> metric -> mean over splits (the protocol's), of the common clips.
        pairs: tests of two results each.
    """

    protocol: Protocol
    num_common: int
    num_listed: int
    not_common: Mapping[str, Mapping[str, int]]
    values: Mapping[str, Mapping[str, Estimate]]
    pairs: tuple[PairedTest, ...]


def compare_results(results: Mapping[str, ProtocolResult], *, all_pairs: bool = False) -> Comparison:
    """Compares results, each with the first, or each with each.

    Args:
        results: name -> result, at least two.
        all_pairs: test every pair; the more are tested, the more evidence Holm's correction asks of each.

    Raises:
        ValueError: if their protocols differ, a clip has another class in one of them, or a split has no common clip.
    """
    if len(results) < 2:
        raise ValueError("a comparison needs at least two results.")
    check_same_protocol(results)
    paired = _PairedClips(results)
    values = {name: paired.values(name) for name in results}
    names = list(results)
    pairs = [(first, second) for place, first in enumerate(names) for second in names[place + 1 :]]
    tests = [paired.test(first, second) for first, second in (pairs if all_pairs else pairs[: len(names) - 1])]
    if all(test.p_value is not None for test in tests):
        corrected = holm([test.p_value for test in tests if test.p_value is not None])
        tests = [replace(test, corrected=value) for test, value in zip(tests, corrected, strict=True)]
    return Comparison(
        protocol=next(iter(results.values())).protocol,
        num_common=paired.num_common,
        num_listed=paired.num_listed,
        not_common=paired.not_common,
        values=values,
        pairs=tuple(tests),
    )


def check_same_protocol(results: Mapping[str, ProtocolResult]) -> None:
    """Raises ValueError, with every field that differs, unless all results have protocols of one hash."""
    (name, first), *others = results.items()
    for other_name, other in others:
        if first.protocol.sha256 == other.protocol.sha256:
            continue
        differences = protocol_differences(first.protocol.content, other.protocol.content)
        lines = [f"  {field}: {own} | {its}" for field, own, its in differences]
        raise ValueError(
            f"{name} and {other_name} are of different protocols ({_titled(first)} and {_titled(other)}), so their "
            "numbers do not compare. What differs:\n"
            + "\n".join(lines or ["  no field: other versions of kinetext made these results"])
            + "\nEvaluate both under one protocol."
        )


def names_of(sources: Sequence[str | os.PathLike[str]], results: Sequence[ProtocolResult]) -> list[str]:
    """A name for each result: its model's, or where models share one, the folder it was read from.

    Args:
        sources: files or folders that the results were read from.
        results: of each.

    Raises:
        ValueError: if a source is given twice.
    """
    folders = [Path(source).resolve() for source in sources]
    folders = [path.parent if path.suffix == ".json" else path for path in folders]
    if len(set(folders)) < len(folders):
        raise ValueError(f"a result is given twice: {', '.join(str(source) for source in sources)}.")
    models = [str(result.model["name"]) for result in results]
    return models if len(set(models)) == len(models) else [str(Path(source)) for source in sources]


def protocol_differences(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """(field, value of the first, value of the second) wherever the contents of two protocols differ.

    A field inside another is named with dots, e.g. `splits.0.num_clips`. Of a list of many values, the first place that
    differs is named, and its length where that differs.

    Args:
        first: content of a protocol, as results.json has it.
        second: of another.
    """
    fields = dict.fromkeys([*first, *second])
    return [
        found for field in fields if field not in _NOT_HASHED for found in _differences(field, first, second, field)
    ]


class _PairedClips:
    """The clips that count in all results, in one order, split by split."""

    def __init__(self, results: Mapping[str, ProtocolResult]) -> None:
        protocol = next(iter(results.values())).protocol
        self.protocol = protocol
        class_names = {split.name: protocol.split_classes(split) for split in protocol.splits}
        by_name = {name: _by_clip(result) for name, result in results.items()}
        listed = list(dict.fromkeys(key for predictions in by_name.values() for key in predictions))
        self.not_common = {name: _missing(protocol, predictions, listed) for name, predictions in by_name.items()}
        counting = [{key for key, one in own.items() if is_counted(protocol, one)} for own in by_name.values()]
        common = [key for key in listed if all(key in own for own in counting)]
        self.num_listed, self.num_common = len(listed), len(common)
        clips = {key: next(iter(by_name.values()))[key].clip_id for key in common}  # as the first result spells them
        units = {clip_id: unit for unit, clip_id in enumerate(dict.fromkeys(clips.values()))}
        self.num_units = len(units)
        self.units = {
            name: np.array([units[clips[key]] for key in common if key[0] == name], dtype=np.int64)
            for name in class_names
        }
        for split, rows in self.units.items():
            if not len(rows):
                raise ValueError(f"there is nothing to compare in {split!r}: no clip of it was decoded by all results.")
        self.results = {
            name: {
                split: EvaluationResult(names, tuple(own[key] for key in common if key[0] == split))
                for split, names in class_names.items()
            }
            for name, own in by_name.items()
        }
        self._check_labels()

    def values(self, name: str) -> dict[str, Estimate]:
        """Every metric of one result."""
        return {metric: self._estimate(statistic) for metric, statistic in self._statistics(name).items()}

    def test(self, first: str, second: str) -> PairedTest:
        """Differences, test and classes of two results."""
        own, other = self._statistics(first), self._statistics(second)
        tested = PairedTest(
            first=first,
            second=second,
            differences={metric: self._estimate(_difference(own[metric], other[metric])) for metric in own},
            classes=self._class_changes(first, second),
        )
        if self.protocol.task == "multi_label":
            return tested
        only_first, only_second = self._discordant(first, second)
        p_value = mcnemar_p_value(only_first, only_second)
        return replace(tested, only_first=only_first, only_second=only_second, p_value=p_value)

    def _check_labels(self) -> None:
        (name, first), *others = self.results.items()
        for other_name, other in others:
            for split, result in first.items():
                for own, its in zip(result.predictions, other[split].predictions, strict=True):
                    if _labels(own) != _labels(its):
                        classes = [[result.class_names[label] for label in _labels(one)] for one in (own, its)]
                        raise ValueError(
                            f"the clip {own.clip_id!r} of {split!r} is of {classes[0]} in {name} and of {classes[1]} "
                            f"in {other_name}: one of them was evaluated with other labels."
                        )

    def _estimate(self, statistic: Statistic) -> Estimate:
        value = float(statistic(np.ones((1, self.num_units)))[0])
        return Estimate(value, *bootstrap_interval(statistic, self.num_units))

    def _statistics(self, name: str) -> dict[str, Statistic]:
        """Metric -> its mean over splits, as a statistic of how often each clip was drawn."""
        splits = [split_statistics(self.protocol, result) for result in self.results[name].values()]
        rows, is_harmonic = list(self.units.values()), self.protocol.split_mean == "harmonic"
        return {
            metric: _mean_over_splits(
                [split[metric] for split in splits], rows, is_harmonic=is_harmonic and is_share(metric)
            )
            for metric in splits[0]
        }

    def _discordant(self, first: str, second: str) -> tuple[int, int]:
        """(clips that the first has right in more splits than the second, the reverse)."""
        lead: Counter[int] = Counter()
        for split, units in self.units.items():
            predictions = (self.results[name][split].predictions for name in (first, second))
            for unit, own, its in zip(units.tolist(), *predictions, strict=True):
                lead[unit] += (its.rank == 1) - (own.rank == 1)
        return sum(value < 0 for value in lead.values()), sum(value > 0 for value in lead.values())

    def _class_changes(self, first: str, second: str) -> tuple[ClassChange, ...]:
        own, its = (class_values(self.protocol, self.results[name].values()) for name in (first, second))
        changes = [ClassChange(name, value, its[name][0], num_clips) for name, (value, num_clips) in own.items()]
        return tuple(sorted(changes, key=lambda change: -change.difference))


_Key = tuple[str, str, int]  # split, what a clip counts by in its list, and which one of those that count by the same


def _labels(prediction: Prediction) -> tuple[int, ...]:
    """The classes of a clip, the same however its list orders the others."""
    return (prediction.label, *sorted(prediction.other_labels))


def _by_clip(result: ProtocolResult) -> dict[_Key, Prediction]:
    found: dict[_Key, Prediction] = {}
    for split, evaluated in result.splits.items():
        predictions = evaluated.predictions
        keys = clip_keys([one.clip_id for one in predictions])
        place, seen = [0] * len(keys), Counter[str]()
        for row in sorted(range(len(keys)), key=lambda row: (_labels(predictions[row]), predictions[row].clip_id)):
            place[row] = seen[keys[row]]
            seen[keys[row]] += 1
        found |= {(split, key, number): one for key, number, one in zip(keys, place, predictions, strict=True)}
    return found


def _missing(protocol: Protocol, predictions: Mapping[_Key, Prediction], listed: Sequence[_Key]) -> dict[str, int]:
    """Why clips that some result lists have no prediction that counts here."""
    return {
        "failed": sum(not is_counted(protocol, one) for one in predictions.values()),
        "not listed": sum(key not in predictions for key in listed),
    }


def _mean_over_splits(statistics: Sequence[Statistic], units: Sequence[np.ndarray], *, is_harmonic: bool) -> Statistic:
    """Counts of clips (R, units) -> mean of the splits' statistics of their rows."""

    def mean(counts: np.ndarray) -> np.ndarray:
        values = np.stack([statistic(counts[:, rows]) for statistic, rows in zip(statistics, units, strict=True)])
        if not is_harmonic:
            return values.mean(axis=0)
        with np.errstate(divide="ignore"):  # the harmonic mean with a 0 is 0
            return len(values) / (1 / values).sum(axis=0)

    return mean


def _difference(first: Statistic, second: Statistic) -> Statistic:
    return lambda counts: second(counts) - first(counts)


def _titled(result: ProtocolResult) -> str:
    protocol = result.protocol
    return f"{protocol.name} version {protocol.version}, {protocol.sha256[:12]}"


# Differences of protocols


def _differences(key: Any, first: Any, second: Any, path: str) -> Iterator[tuple[str, str, str]]:
    own, its = _entry(first, key), _entry(second, key)
    if own == its:
        return
    if isinstance(own, dict) and isinstance(its, dict):
        for name in dict.fromkeys([*own, *its]):
            yield from _differences(name, own, its, f"{path}.{name}")
    elif isinstance(own, list) and isinstance(its, list):
        if len(own) != len(its):
            yield f"{path}, length", str(len(own)), str(len(its))
        places = [place for place, pair in enumerate(zip(own, its, strict=False)) if pair[0] != pair[1]]
        nested = [place for place in places if isinstance(own[place], dict)]
        for place in nested or places[:1]:
            yield from _differences(place, own, its, f"{path}.{place}")
    else:
        yield path, _shown(own), _shown(its)


_ABSENT = object()


def _entry(content: Any, key: Any) -> Any:
    return content.get(key, _ABSENT) if isinstance(content, Mapping) else content[key]


def _shown(value: Any) -> str:
    if value is _ABSENT:
        return "absent"
    if isinstance(value, (list, dict)):
        return f"{len(value)} entries"
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 1]}…"
