"""Comparisons on hand-made predictions, against plain loops, and as `kinetext compare` prints them."""

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import typer
from synthetic_results import synthetic_protocol, synthetic_result
from typer.testing import CliRunner, Result

from kinetext.cli.compare import compare
from kinetext.evaluation.compare import compare_results, names_of, protocol_differences
from kinetext.evaluation.predictions import EvaluationResult, Prediction
from kinetext.evaluation.protocol import Protocol, Split
from kinetext.evaluation.results import ProtocolResult
from kinetext.evaluation.statistics import holm, mcnemar_p_value

NAMES = ("wave", "run [fast]", "jump")


def protocol_of_splits(*names: str, **fields: object) -> Protocol:
    return synthetic_protocol(NAMES, splits=tuple(Split(name) for name in names or ("all",)), **fields)


def result_of_ranks(protocol: Protocol, ranks: dict[str, Sequence[int | None]], name: str = "m") -> ProtocolResult:
    """Clip i of a split is of class i modulo 3; a rank of None is a clip that failed."""
    splits = {}
    for split, own in ranks.items():
        predictions = []
        for index, rank in enumerate(own):
            label, clip_id = index % 3, f"clip{index}"
            if rank is None:
                predictions.append(Prediction(clip_id, label, error="no frames"))
                continue
            scores = np.log(np.full(3, 1 / 3, dtype=np.float32))
            predictions.append(Prediction(clip_id, label, (label + rank - 1) % 3, rank, scores))
        splits[split] = EvaluationResult(NAMES, tuple(predictions))
    return ProtocolResult(protocol, {"name": name}, splits, {})


def test_differences_and_tests_are_those_of_the_common_clips() -> None:
    protocol = protocol_of_splits()
    first = result_of_ranks(protocol, {"all": [1, 1, 2, 1, None, 2, 1, 3, 1, 2]})
    second = result_of_ranks(protocol, {"all": [1, 2, 1, 1, 1, 1, 1, 1, None, 2]})
    done = compare_results({"A": first, "B": second})
    assert (done.num_common, done.num_listed) == (8, 10)
    assert done.not_common == {"A": {"failed": 1, "not listed": 0}, "B": {"failed": 1, "not listed": 0}}
    assert done.values["A"]["top1"].value == pytest.approx(4 / 8)
    assert done.values["B"]["top1"].value == pytest.approx(6 / 8)
    (pair,) = done.pairs
    assert (pair.only_first, pair.only_second) == (1, 3)
    assert pair.p_value == pair.corrected == mcnemar_p_value(1, 3)
    gain = pair.differences["top1"]
    assert gain.value == pytest.approx(2 / 8) and gain.low <= 0 < 0.25 < gain.high
    # wave: clips 0, 3, 6, 9; run: 1, 7; jump: 2, 5
    assert [(change.class_name, change.first, change.second, change.num_clips) for change in pair.classes] == [
        ("jump", 0.0, 1.0, 2),
        ("wave", 0.75, 0.75, 4),
        ("run [fast]", 0.5, 0.5, 2),
    ]
    assert done.values["A"]["mean_class_accuracy"].value == pytest.approx((0.75 + 0.5 + 0) / 3)


def test_a_result_and_itself_do_not_differ() -> None:
    result = synthetic_result(protocol_of_splits("split 1", "split 2"))
    (pair,) = compare_results({"A": result, "B": result}).pairs
    assert (pair.only_first, pair.only_second, pair.p_value) == (0, 0, 1.0)
    assert all((found.value, found.low, found.high) == (0, 0, 0) for found in pair.differences.values())


@pytest.mark.parametrize("mean", ["arithmetic", "harmonic"])
@pytest.mark.parametrize("task", ["classification", "retrieval", "multi_label"])
def test_values_are_those_of_the_results_where_every_clip_was_decoded(task: str, mean: str) -> None:
    names = tuple(f"class {index}" for index in range(13))
    splits = (Split("split 1"), Split("split 2", classes=names[2:]))
    protocol = synthetic_protocol(names, task=task, splits=splits, split_mean=mean, distractors=("nothing at all",))
    results = {"A": synthetic_result(protocol, skill=1), "B": synthetic_result(protocol, skill=2, seed=3)}
    done = compare_results(results)
    for name, result in results.items():
        for metric, found in done.values[name].items():
            assert found.value == pytest.approx(result.metrics()[metric]), (task, metric)
            assert found.low < found.high or metric == "recall_at_10"
    (pair,) = done.pairs
    for metric, found in pair.differences.items():
        assert found.value == pytest.approx(results["B"].metrics()[metric] - results["A"].metrics()[metric])
        assert found.low <= found.value <= found.high
    assert (pair.p_value is None) == (task == "multi_label")
    assert {change.class_name for change in pair.classes} == set(names)


def test_values_are_the_mean_of_splits_and_a_clip_of_several_splits_is_tested_once() -> None:
    protocol = protocol_of_splits("split 1", "split 2")
    first = result_of_ranks(protocol, {"split 1": [1, 1, 2, 1], "split 2": [1, 2]})
    second = result_of_ranks(protocol, {"split 1": [2, 2, 1, 1], "split 2": [2, 1]})
    done = compare_results({"A": first, "B": second})
    assert done.values["A"]["top1"].value == pytest.approx((3 / 4 + 1 / 2) / 2)
    (pair,) = done.pairs
    # clip0 is lost in both splits, clip1 lost and won, clip2 won
    assert (pair.only_first, pair.only_second) == (1, 1)


def test_intervals_draw_a_clip_in_all_its_splits_at_once() -> None:
    one = protocol_of_splits("split 1")
    three = protocol_of_splits("split 1", "split 2", "split 3")
    generator = np.random.default_rng(0)
    ranks = [[int(rank) for rank in generator.integers(1, 4, 90)] for _ in range(2)]

    def interval(protocol: Protocol) -> tuple[float, float]:
        splits = [split.name for split in protocol.splits]
        results = {name: result_of_ranks(protocol, dict.fromkeys(splits, own)) for name, own in zip("AB", ranks)}  # noqa: B905
        found = compare_results(results).pairs[0].differences["top1"]
        return found.low, found.high

    # Three copies of the same clips say no more than one.
    assert interval(three) == pytest.approx(interval(one))


def test_several_results_are_tested_against_the_first_or_each_against_each() -> None:
    protocol = protocol_of_splits()
    results = {
        name: synthetic_result(protocol, skill=skill, clips_per_class=40, seed=seed)
        for seed, (name, skill) in enumerate({"A": 0.0, "B": 1.5, "C": 3.0}.items())
    }
    against_first = compare_results(results)
    assert [(pair.first, pair.second) for pair in against_first.pairs] == [("A", "B"), ("A", "C")]
    each = compare_results(results, all_pairs=True)
    assert [(pair.first, pair.second) for pair in each.pairs] == [("A", "B"), ("A", "C"), ("B", "C")]
    for done in (against_first, each):
        assert [pair.corrected for pair in done.pairs] == holm([pair.p_value for pair in done.pairs])


# What is refused


def test_results_of_different_protocols_are_refused_with_every_difference() -> None:
    first = synthetic_result(protocol_of_splits())
    second = replace(first, protocol=replace(first.protocol, num_frames=16, classes=("wave", "run", "jump"), version=2))
    hashes = [result.protocol.sha256[:12] for result in (first, second)]
    message = (
        f"A and B are of different protocols (shapes-zero-shot version 1, {hashes[0]} and shapes-zero-shot version 2, "
        f"{hashes[1]}), so their numbers do not compare. What differs:\n"
        "  version: 1 | 2\n"
        "  classes.1: 'run [fast]' | 'run'\n"
        "  num_frames: 8 | 16\n"
        "Evaluate both under one protocol."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        compare_results({"A": first, "B": second})


def test_notes_are_no_difference() -> None:
    first, second = protocol_of_splits(note="one"), protocol_of_splits(note="two")
    assert compare_results({"A": synthetic_result(first), "B": synthetic_result(second)}).pairs
    assert protocol_differences(first.content, second.content) == []


def test_differences_of_long_and_nested_fields_are_named() -> None:
    first = protocol_of_splits("split 1", "split 2").content
    second = protocol_of_splits("split 1", "split 2", distractors=("x" * 100,), templates=("{}",), stride=4).content
    second["splits"][0]["num_clips"], second["splits"][1]["num_clips"] = 6, 7
    second["new"] = True
    assert protocol_differences(first, second) == [
        ("distractors, length", "0", "1"),
        ("templates, length", "2", "1"),
        ("templates.0", "'a video of {}.'", "'{}'"),
        ("stride", "None", "4"),
        ("splits.0.num_clips", "None", "6"),
        ("splits.1.num_clips", "None", "7"),
        ("new", "absent", "True"),
    ]
    first["note"], first["class_texts"] = "", ["y" * 100, *first["class_texts"][1:]]
    assert ("class_texts.0", "'" + "y" * 58 + "…", "'wave'") in protocol_differences(first, second)


def test_a_clip_with_two_labels_in_two_results_is_refused() -> None:
    protocol = protocol_of_splits()
    first = result_of_ranks(protocol, {"all": [1, 1]})
    moved = replace(first.splits["all"].predictions[1], label=2)
    second = replace(first, splits={"all": EvaluationResult(NAMES, (first.splits["all"].predictions[0], moved))})
    message = r"the clip 'clip1' of 'all' is of \['run \[fast\]'\] in A and of \['jump'\] in B: one of them"
    with pytest.raises(ValueError, match=message):
        compare_results({"A": first, "B": second})


def test_nothing_to_compare_is_refused() -> None:
    protocol = protocol_of_splits("split 1", "split 2")
    first = result_of_ranks(protocol, {"split 1": [1, 1], "split 2": [1, None]})
    second = result_of_ranks(protocol, {"split 1": [1, 1], "split 2": [None, 1]})
    with pytest.raises(ValueError, match="nothing to compare in 'split 2': no clip of it was decoded by all results"):
        compare_results({"A": first, "B": second})
    with pytest.raises(ValueError, match="at least two results"):
        compare_results({"A": first})


def test_clips_that_one_result_does_not_list_are_counted() -> None:
    protocol = protocol_of_splits()
    first = result_of_ranks(protocol, {"all": [1, 1, 1]})
    second = result_of_ranks(protocol, {"all": [1, None]})
    done = compare_results({"A": first, "B": second})
    assert (done.num_common, done.num_listed) == (1, 3)
    assert done.not_common["B"] == {"failed": 1, "not listed": 1}


@pytest.mark.parametrize("task", ["classification", "retrieval"])
def test_failed_clips_are_wrong_where_the_protocol_says_so(task: str) -> None:
    protocol = protocol_of_splits("split 1", "split 2", failed_clips="wrong", task=task)
    first = synthetic_result(protocol, failed={"wave/00.avi": "no frames", "jump/01.avi": "no frames"})
    results = {"A": first, "B": synthetic_result(protocol, failed={"wave/00.avi": "no frames"})}
    done = compare_results(results)
    assert done.num_common == done.num_listed == 36
    assert done.not_common["A"] == {"failed": 0, "not listed": 0}
    for name, result in results.items():
        values = {metric: found.value for metric, found in done.values[name].items()}
        assert values == pytest.approx({metric: result.metrics()[metric] for metric in values})
    (pair,) = done.pairs
    assert (pair.only_first, pair.only_second) == (0, 1)  # jump/01, in both splits
    assert {change.class_name: change.first for change in pair.classes} == {
        name: value for name, (value, _) in first.class_values().items()
    }
    assert {num_clips for _, num_clips in first.class_values().values()} == {12}


def test_lists_that_spell_clips_in_other_ways_are_joined() -> None:
    protocol = protocol_of_splits("split 1", "split 2")
    first, second = synthetic_result(protocol), synthetic_result(protocol, skill=0, seed=7)
    expected = compare_results({"A": first, "B": second})

    def respelt(prediction: Prediction) -> Prediction:
        return replace(prediction, clip_id=f"videos/{prediction.clip_id.removesuffix('.avi')}")

    splits = {
        name: EvaluationResult(split.class_names, tuple(map(respelt, split.predictions)))
        for name, split in second.splits.items()
    }
    assert compare_results({"A": first, "B": replace(second, splits=splits)}) == expected
    assert expected.num_common == expected.num_listed == 36


def test_a_clip_that_is_listed_twice_counts_twice() -> None:
    protocol = protocol_of_splits()
    result = result_of_ranks(protocol, {"all": [1, 2, 1]})
    predictions = result.splits["all"].predictions
    twice = replace(result, splits={"all": EvaluationResult(NAMES, (*predictions, predictions[1]))})
    other = replace(result, splits={"all": EvaluationResult(NAMES, (predictions[1], *predictions))})
    done = compare_results({"A": twice, "B": other})
    assert (done.num_common, done.values["A"]["top1"].value) == (4, twice.metrics()["top1"])


def test_names_are_those_of_models_or_of_folders() -> None:
    protocol = protocol_of_splits()
    results = [result_of_ranks(protocol, {"all": [1]}, name) for name in ("a", "b", "a")]
    assert names_of(["x", "y"], results[:2]) == ["a", "b"]
    assert names_of(["x", "y/results.json", "z"], results) == ["x", "y/results.json", "z"]
    with pytest.raises(ValueError, match="a result is given twice"):
        names_of(["x", "x/results.json"], results[:2])


# The verb


def kinetext_compare(*arguments: object) -> Result:
    app = typer.Typer()
    app.command()(compare)
    return CliRunner().invoke(app, [str(argument) for argument in arguments], env={"COLUMNS": "200"})


def test_the_verb_prints_values_differences_tests_and_classes(tmp_path: Path) -> None:
    protocol = protocol_of_splits("split 1", "split 2")
    old = synthetic_result(protocol, skill=0, clips_per_class=30, name="org/[old]")
    old.write(tmp_path / "a")
    failed = {"wave/00.avi": "no frames"}
    synthetic_result(protocol, skill=3, clips_per_class=30, seed=5, failed=failed, name="org/new").write(tmp_path / "b")
    shown = kinetext_compare(tmp_path / "a", tmp_path / "b" / "results.json")
    assert shown.exit_code == 0, shown.output
    text = shown.output
    assert (
        f"protocol shapes-zero-shot version 1, SHA-256 {old.protocol.sha256[:12]}; 178 of 180 clips are common" in text
    )
    assert "not common: org/new: 2 failed" in text and "not common: org/[old]" not in text
    assert re.search(r"org/\[old\] +│ 0\.\d{4} \[0\.\d{4}, 0\.\d{4}\]", text)
    assert re.search(r"top-1 +│ +\+0\.\d{4} │ \[\+0\.\d{4}, \+0\.\d{4}\]", text)
    assert re.search(
        r"right in one only: \d+ clips in org/\[old\], \d+ in org/new; McNemar's exact test: p < 0.0001\n", text
    )
    assert "run [fast]" in text and "tested: org/new as good as org/[old]" in text and "Holm" not in text


def test_the_verb_says_what_was_corrected_for(tmp_path: Path) -> None:
    for name in "abc":
        synthetic_result(protocol_of_splits(), seed=ord(name), skill=1, clips_per_class=30).write(tmp_path / name)
    shown = kinetext_compare(*(tmp_path / name for name in "abc"), "--all-pairs", "--classes", 1)
    assert shown.exit_code == 0, shown.output
    assert "corrected for 3 tests by Holm's method" in shown.output
    assert len(re.findall(r"McNemar's exact test: p = [\d.]+, corrected p = [\d.]+\n", shown.output)) == 3


def test_the_verb_refuses_what_cannot_be_compared(tmp_path: Path) -> None:
    synthetic_result(protocol_of_splits()).write(tmp_path / "a")
    synthetic_result(protocol_of_splits(num_frames=16)).write(tmp_path / "b")
    alone = kinetext_compare(tmp_path / "a")
    assert alone.exit_code == 1 and "two results at least" in alone.output
    other = kinetext_compare(tmp_path / "a", tmp_path / "b")
    assert other.exit_code == 1 and "num_frames: 8 | 16" in other.output
    assert kinetext_compare(tmp_path / "a", tmp_path / "none").exit_code == 1


def test_the_verb_of_clips_with_several_classes_tests_nothing(tmp_path: Path) -> None:
    for name in "ab":
        synthetic_result(protocol_of_splits(task="multi_label"), seed=ord(name)).write(tmp_path / name)
    shown = kinetext_compare(tmp_path / "a", tmp_path / "b")
    assert shown.exit_code == 0 and "McNemar" not in shown.output and "not tested: clips have several" in shown.output
