"""The benchmarks: Table 3 is complete, interrupted experiments go on, numbers come with what they depend on."""

import functools
import io
import operator
import re
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from testing_utils import tiny_clip_config, tiny_moted
from transformers import CLIPModel

from benchmarks import harness, moted_ablation
from benchmarks.__main__ import GROUPS
from benchmarks.harness import Benchmark, Subject
from benchmarks.moted_ablation import (
    SUB_TABLES,
    Difference,
    Row,
    Scale,
    Spread,
    load_results,
    missing_runs,
    render_splits,
    run_missing,
    settings_of_table,
    summary,
    train_and_test,
)
from kinetext.data.motion_shapes import SEEN_CLASSES, UNSEEN_CLASSES
from kinetext.data.small_tokenizer import small_tokenizer

TINY = Scale(
    num_steps=2,
    seeds=(0, 1),
    train_per_class=1,
    validation_per_class=1,
    unseen_per_class=1,
    batch_size=4,
    num_frames=2,
    motion_hidden_size=8,
    motion_num_attention_heads=2,
    joint_num_attention_heads=2,
    image_size=32,
)


def printed(renderable: Any) -> str:
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(renderable)
    return console.export_text()


# Table 3


def test_every_sub_table_ends_with_the_full_model_of_the_paper() -> None:
    for rows in SUB_TABLES.values():
        assert len(rows) == 4
        assert rows[-1].setting == "full"
        assert (rows[-1].ssv2, rows[-1].k400) == (70.1, 85.1)
        assert all(row.ssv2 < 70.1 and row.k400 < 85.1 for row in rows[:-1])


def test_twelve_rows_are_ten_models() -> None:
    assert len(settings_of_table()) == 10
    assert {row.setting for rows in SUB_TABLES.values() for row in rows} == set(settings_of_table())


def modules_of(row: Row) -> tuple[Any, ...]:
    """(which descriptions, motion encoder, text adapter, text fusion, video fusion) of the model of a row."""
    model = tiny_moted(**row.switches)
    own = (getattr(model, name) is not None for name in ("text_adapter", "text_fusion", "video_fusion"))
    config = model.config
    return ((config.use_conceptual, config.use_discriminative), config.motion_encoder, *own)


def test_rows_of_the_texts_differ_in_descriptions_alone() -> None:
    rows = [modules_of(row) for row in SUB_TABLES["3a texts"]]
    assert [row[0] for row in rows] == [(False, False), (True, False), (False, True), (True, True)]
    assert {row[1:] for row in rows} == {("parallel", True, True, True)}


def test_rows_of_the_encoder_differ_in_encoder_and_adapter() -> None:
    rows = [modules_of(row) for row in SUB_TABLES["3b motion encoder, text adapter"]]
    assert [row[1:3] for row in rows] == [("serial", False), ("parallel", False), ("serial", True), ("parallel", True)]
    assert {row[0] for row in rows} == {(True, True)}
    assert {row[3] for row in rows} == {True}


def test_rows_of_the_fusions_differ_in_fusions_alone() -> None:
    rows = [modules_of(row) for row in SUB_TABLES["3c text fusion, video fusion"]]
    assert [row[3:] for row in rows] == [(False, False), (True, False), (False, True), (True, True)]
    assert {row[:3] for row in rows} == {((True, True), "parallel", True)}


# Runs


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    tokenizer = small_tokenizer([*SEEN_CLASSES, *UNSEEN_CLASSES])
    CLIPModel(tiny_clip_config(vocab_size=len(tokenizer), max_tokens=77)).save_pretrained(tmp_path / "clip")
    tokenizer.save_pretrained(tmp_path / "clip")
    return tmp_path / "clip"


@pytest.mark.parametrize("setting", ["full", SUB_TABLES["3a texts"][0].setting])
def test_a_run_trains_and_counts_every_clip(setting: str, clip: Path) -> None:
    run = train_and_test(setting, 1, clip, render_splits(TINY), TINY)
    assert (run["setting"], run["seed"]) == (setting, 1)
    assert [entry["step"] for entry in run["training_loss"]] == [1, 2]
    for split, classes in (("validation", SEEN_CLASSES), ("unseen", UNSEEN_CLASSES)):
        assert run[split]["num_decoded"] == run[split]["num_listed"] == len(classes)
        assert all(0 <= run[split][logits] <= 1 for logits in ("video", "motion", "sum"))


def fake_run(setting: str, seed: int, top1: float = 0.5, **ignored: Any) -> dict[str, Any]:
    found = {"video": top1, "motion": top1, "sum": top1}
    return {
        "setting": setting,
        "seed": seed,
        "validation": found,
        "unseen": found,
        "training_loss": [{"step": 1, "loss": 1.0}],
        "seconds": 0.1,
    }


@pytest.fixture
def experiment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A result file whose runs cost nothing."""
    (tmp_path / "clip").mkdir()
    (tmp_path / "clip" / moted_ablation.MANIFEST_NAME).write_text("{}", "utf-8")
    monkeypatch.setattr(moted_ablation, "train_and_test", fake_run)
    monkeypatch.setattr(moted_ablation, "pretrain_clip", lambda folder: 1.0)
    monkeypatch.setattr(moted_ablation, "render_splits", lambda scale: {})
    return tmp_path / "results.json"


def test_an_interrupted_experiment_runs_only_what_is_missing(experiment: Path, capfd: Any) -> None:
    complete = run_missing(experiment, TINY, experiment.parent / "clip", 1)
    assert len(complete["runs"]) == 20
    assert len(complete["summary"]) == 12
    assert missing_runs(complete) == []
    complete["runs"] = complete["runs"][:3]
    harness.write_json(experiment, complete)
    capfd.readouterr()
    continued = run_missing(experiment, TINY, experiment.parent / "clip", 2)
    assert len(continued["runs"]) == len(load_results(experiment, TINY)["runs"]) == 20
    assert capfd.readouterr().out.count("runs left") == 17


def test_all_settings_of_a_seed_come_before_the_next_seed() -> None:
    order = missing_runs({"scale": TINY.as_json(), "runs": [fake_run("full", 0)]})
    assert [seed for _, seed in order] == [0] * 9 + [1] * 10


def test_runs_of_another_scale_machine_or_clip_are_not_mixed(experiment: Path) -> None:
    results = run_missing(experiment, TINY, experiment.parent / "clip", 1)
    with pytest.raises(ValueError, match="another scale.*Give another --out"):
        load_results(experiment, Scale())
    results["runs"].pop()
    harness.write_json(experiment, {**results, "clip": {"retrieval_top1": 0.1}})
    with pytest.raises(ValueError, match="another clip"):
        run_missing(experiment, TINY, experiment.parent / "clip", 1)
    harness.write_json(experiment, {**results, "machine": {"cores": 1000}})
    with pytest.raises(ValueError, match="another machine"):
        run_missing(experiment, TINY, experiment.parent / "clip", 1)


def test_a_complete_file_is_read_on_any_machine(experiment: Path) -> None:
    results = run_missing(experiment, TINY, experiment.parent / "clip", 1)
    harness.write_json(experiment, {**results, "machine": {"cores": 1000}})
    assert len(run_missing(experiment, TINY, experiment.parent / "nothing", 1)["runs"]) == 20


# Means


def test_mean_and_deviation_over_seeds() -> None:
    assert Spread.of([0.5, 0.6, 0.7]) == Spread(pytest.approx(0.6), pytest.approx(0.1), 3)
    assert Spread.of([0.5]) == Spread(0.5, None, 1)


@pytest.mark.parametrize(
    ("row", "verdict"),
    [(0.5, "as the paper"), (0.55, "within noise"), (0.65, "within noise"), (0.8, "opposite")],
)
def test_a_difference_says_something_beyond_the_noise(row: float, verdict: str) -> None:
    full, own = Spread(0.6, 0.03, 3), Spread(row, 0.04, 3)
    found = Difference.of(full, own)
    assert found == Difference(pytest.approx(0.6 - row), pytest.approx(0.05 / 3**0.5), verdict)
    assert Difference.of(full, Spread(row, None, 1)).verdict == "one seed"


def test_the_printed_tables_hold_the_papers_numbers_and_ours(capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    top1 = {"full": 0.8, SUB_TABLES["3a texts"][0].setting: 0.7}
    runs = [fake_run(name, seed, top1.get(name, 0.8) + seed / 100) for name in settings_of_table() for seed in (0, 1)]
    moted_ablation.print_tables({"runs": runs})
    shown = capsys.readouterr().out
    assert re.search(r"names only +│ +65\.7 +│ +82\.9 +│ +70\.5 ± 0\.7 ", shown)
    assert "+10.0 ± 0.7" in shown
    assert "video logits: names only: as the paper; + conceptual: within noise; + discriminative: within noise" in shown


def test_rows_without_runs_are_left_out() -> None:
    assert [line["row"] for line in summary([fake_run("full", 0)])] == ["+ both", "both", "both"]


# Harness


def test_calls_are_measured_in_turn_after_one_round_that_does_not_count() -> None:
    order: list[str] = []
    seconds = harness.seconds_in_turn({name: functools.partial(order.append, name) for name in "ab"}, 2)
    assert order == list("ababab")
    assert {name: len(times) for name, times in seconds.items()} == {"a": 2, "b": 2}


def test_a_measurement_has_every_repetition_and_the_median_ratio_of_its_rounds() -> None:
    benchmark = Benchmark(
        "sorting",
        (
            Subject("short", functools.partial, (sorted, range(10))),
            Subject("long", functools.partial, (sorted, range(100_000)), {"short": "short"}),
        ),
        repeats=3,
    )
    result = harness.measure(benchmark)
    short, long = result["measurements"]
    assert len(short["seconds"]) == len(long["seconds"]) == 3
    rounds = sorted(own / other for own, other in zip(long["seconds"], short["seconds"], strict=True))
    assert long["relative_to"] == {"short": {"time": rounds[1]}}
    assert rounds[1] > 1
    assert re.search(r"long .* × short", printed(harness.table_of(result)))


@pytest.mark.slow
def test_peak_memory_is_that_of_one_call() -> None:
    size = 50 * 2**20
    assert harness.peak_memory(functools.partial, (operator.mul, b"x", size)) == pytest.approx(size, rel=0.05)


def test_a_result_names_its_circumstances() -> None:
    assert {"processor", "cores", "threads", "python", "torch", "transformers", "av"} <= set(harness.machine())
    assert re.match(r"[0-9a-f]{40}( with uncommitted .+)?$", harness.source())


def test_every_subject_is_divided_by_subjects_of_its_benchmark() -> None:
    for benchmark in (benchmark for group in GROUPS.values() for benchmark in group):
        names = [subject.name for subject in benchmark.subjects]
        assert len(set(names)) == len(names)
        assert {other for subject in benchmark.subjects for other in subject.relative_to.values()} <= set(names)
