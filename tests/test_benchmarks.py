"""The benchmarks: Table 3 is complete, interrupted experiments go on, numbers come with what they depend on.

What is compared computes the same, and what is forbidden, a crash or growing memory, would be seen.
"""

import functools
import io
import operator
import re
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import pytest
import torch
from rendered_clips import render_clip
from rich.console import Console
from testing_utils import scatter_weights, tiny_clip_config, tiny_config, tiny_moted
from transformers import CLIPModel

from benchmarks import end_to_end, fuzz, harness, memory, moted_ablation, natural_clips, report, tower
from benchmarks.__main__ import GROUPS, SIDE_BY_SIDE
from benchmarks.end_to_end import Ours, Stock, StockWithTextsKept, differences_of
from benchmarks.fuzz import DAMAGES, Corpus
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
from benchmarks.natural_clips import ClipSet
from kinetext import VideoTextProcessor, XCLIPConfig, XCLIPModel
from kinetext.data.motion_shapes import SEEN_CLASSES, UNSEEN_CLASSES
from kinetext.data.small_tokenizer import small_tokenizer
from kinetext.evaluation.cost import measure_cost

README = harness.REPOSITORY / "README.md"
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
    rounds = harness.rounds_in_turn({name: functools.partial(order.append, name) for name in "ab"}, 2)
    assert order == list("ababab")
    assert {name: len(timed) for name, timed in rounds.items()} == {"a": 2, "b": 2}


SORTING = Benchmark(
    "sorting",
    (
        Subject("short", functools.partial, (sorted, range(10)), work=10),
        Subject("long", functools.partial, (sorted, range(100_000)), {"short": "short"}, work=100_000),
    ),
    repeats=3,
    unit="numbers",
    ceiling=("short", "long"),
    headline="sorting in Python",
)


def test_a_measurement_has_every_repetition_the_median_ratio_of_its_rounds_rate_and_share() -> None:
    result = harness.measure(SORTING)
    short, long = result["measurements"]
    assert len(short["seconds"]) == len(long["seconds"]) == 3
    rounds = sorted(own / other for own, other in zip(long["seconds"], short["seconds"], strict=True))
    assert long["relative_to"] == {"short": {"subject": "short", "time": rounds[1]}}
    assert rounds[1] > 1
    assert long["rate"] == 100_000 / sorted(long["seconds"])[1]
    assert max(short["share"], long["share"]) == 1
    shown = printed(harness.table_of(result))
    assert re.search(r"long .*s to .*s\) +│ .* × short .* │ +100% │", shown)
    assert "1 threads" in shown
    assert "numbers/s" in shown


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def threads_seen(seen: list[int]) -> Any:
    return lambda: seen.append(torch.get_num_threads())


def test_a_benchmark_runs_on_its_number_of_threads_and_says_so(two_threads: None) -> None:
    seen: list[int] = []
    result = harness.measure(Benchmark("threads", (Subject("any", threads_seen, (seen,)),), repeats=1, threads=2))
    assert seen == [2, 2]
    assert result["threads"] == 2


class InStages:
    def __call__(self) -> None:
        self.work()
        self.work()
        time.sleep(0.01)

    def work(self) -> None:
        time.sleep(0.02)


def test_marked_stages_are_counted_per_call() -> None:
    call = InStages()
    harness.mark_stage(call, "work", "working")
    for timed in harness.rounds_in_turn({"call": call}, 2)["call"]:
        assert 0.04 <= timed.stages["working"] < timed.seconds - 0.005


@pytest.mark.slow
def test_peak_memory_is_that_of_one_call() -> None:
    size = 50 * 2**20
    assert harness.peak_memory(functools.partial, (operator.mul, b"x", size)) == pytest.approx(size, rel=0.05)


def test_a_result_names_its_circumstances() -> None:
    known = harness.circumstances()
    wanted = {"processor", "instructions", "cores", "threads", "python", "torch", "transformers", "av", "libavcodec"}
    assert wanted <= set(known["machine"])
    assert re.match(r"[0-9a-f]{40}( with uncommitted .+)?$", known["source"])


CLIP_SET = ClipSet(96, 48, 2, gop=10, num_frames=30)
SIDE_BY_SIDE_BENCHMARKS = [
    *(benchmark for group in SIDE_BY_SIDE.values() for benchmark in group),
    end_to_end.end_to_end(CLIP_SET),
]


@pytest.mark.parametrize("benchmark", SIDE_BY_SIDE_BENCHMARKS, ids=lambda benchmark: benchmark.title[:40])
def test_every_subject_is_divided_by_subjects_of_its_benchmark(benchmark: Benchmark) -> None:
    names = [subject.name for subject in benchmark.subjects]
    assert len(set(names)) == len(names)
    assert {other for subject in benchmark.subjects for other in subject.relative_to.values()} <= set(names)
    assert set(benchmark.ceiling) <= set(names)
    assert not benchmark.ceiling or all(subject.work > 0 for subject in benchmark.subjects)
    assert bool(benchmark.unit) == any(subject.work > 0 for subject in benchmark.subjects)


def test_the_operations_of_the_tower_are_those_of_the_table_of_costs() -> None:
    """`kinetext cost` counts messages, image tower and MIT of one view in multiply-accumulates."""
    cost = measure_cost(XCLIPConfig.preset(tower.PRESET, num_frames=tower.NUM_FRAMES))
    macs = sum(each.macs for each in cost.towers if each.tower in ("image tower", "messages", "MIT"))
    assert tower.tower_gflop() == pytest.approx(2e-9 * tower.BATCH_SIZE * macs, rel=1e-6)


# Clips


@pytest.fixture
def clips(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Path]]:
    monkeypatch.setattr(natural_clips, "FOLDER", tmp_path / "rendered")
    monkeypatch.setattr(natural_clips, "SAMPLES", tmp_path / "absent")
    natural_clips._sources.cache_clear()
    yield CLIP_SET.paths()
    natural_clips._sources.cache_clear()


def test_rendered_clips_are_as_described_and_written_once(clips: list[Path]) -> None:
    known = natural_clips.circumstances_of(clips)
    assert known["frames_per_key"] <= CLIP_SET.gop
    with av.open(str(clips[0])) as container:
        stream = container.streams.video[0]
        assert (stream.width, stream.height, stream.frames) == (96, 48, CLIP_SET.num_frames)
        assert stream.codec_context.has_b_frames
    before = [path.stat().st_mtime_ns for path in clips]
    assert [path.stat().st_mtime_ns for path in CLIP_SET.paths()] == before
    assert clips[0].read_bytes() != clips[1].read_bytes()


def test_a_clip_of_one_group_has_one_key_frame(clips: list[Path]) -> None:
    whole = replace(CLIP_SET, gop=CLIP_SET.num_frames)
    assert natural_clips.circumstances_of(whole.paths())["frames_per_key"] == whole.num_frames


# From file to probabilities


@pytest.fixture
def checkpoint(tmp_path: Path) -> str:
    """A tiny X-CLIP for pictures of 224 pixels, as transformers' image processor makes them."""
    tokenizer = small_tokenizer(end_to_end.CLASS_NAMES)
    text = {"vocab_size": len(tokenizer), "max_position_embeddings": 77}
    model = XCLIPModel(tiny_config(text=text, vision={"image_size": 224, "patch_size": 56}))
    scatter_weights(model)
    model.save_pretrained(tmp_path / "model")
    VideoTextProcessor(tokenizer, short_side=224).save_pretrained(tmp_path / "model")
    return str(tmp_path / "model")


def test_all_ways_give_the_same_probabilities(checkpoint: str, clips: list[Path]) -> None:
    ways = (Stock(checkpoint), StockWithTextsKept(checkpoint), Ours(checkpoint), Ours(checkpoint, torch.bfloat16))
    apart = differences_of(clips[0], *ways)
    assert apart["largest probability"] > 1.2 / len(end_to_end.CLASS_NAMES)
    assert apart["transformers' probabilities, texts kept by hand or not"] < 1e-6
    assert apart["probabilities from the same pixels"] < 1e-6
    assert apart["pixels, levels of 255"] < 3
    assert apart["pixels, levels of 255, mean"] < 0.6


# Damaged clips and memory


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    folder = tmp_path_factory.mktemp("damaged")
    b_frames = {"bf": "2"}
    paths = [
        render_clip(folder / "h264.mp4", gop=12, codec_options=b_frames),
        render_clip(folder / "one_gop.mkv", gop=250, codec_options=b_frames),
        render_clip(folder / "mpeg4.avi", codec="mpeg4"),
    ]
    return Corpus.of(paths, folder)


def test_a_case_is_the_same_each_time_and_differs_from_its_source(corpus: Corpus) -> None:
    num_same = 0
    for case in range(40):
        source, damage, data = corpus.damaged(case)
        assert corpus.damaged(case)[1:] == (damage, data)
        assert damage == [*DAMAGES][case % len(DAMAGES)]
        num_same += data == source.path.read_bytes()
    assert num_same <= 3  # zeros over zeros


@pytest.mark.parametrize("reader", fuzz.readers())
def test_outcomes_are_told_apart(reader: str, corpus: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    shorter = render_clip(corpus.folder / "shorter.mp4", 30).read_bytes()
    case = [*DAMAGES].index("truncated")
    source = corpus.damaged(case)[0]
    sound = source.path.read_bytes()
    for data, outcome in ((sound, fuzz.UNHARMED), (shorter, fuzz.SHORTENED), (bytes(100), fuzz.REFUSED)):
        monkeypatch.setitem(DAMAGES, "truncated", lambda *of_case, data=data: data)
        assert fuzz.attempt(corpus, (case, reader)) == ("truncated", outcome)

    other_source = replace(source, pictures=source.pictures[::-1])
    monkeypatch.setattr(Corpus, "damaged", lambda self, number: (other_source, "truncated", sound))
    assert fuzz.attempt(corpus, (case, reader)) == ("truncated", fuzz.WRONG)


def test_damaged_clips_end_as_frames_or_errors(corpus: Corpus) -> None:
    result = fuzz.fuzz(corpus, range(60), jobs=2)
    assert result["failures"] == []
    for counted in result["readers"].values():
        assert sum(counted.values()) == 60
        assert counted["refused"] > 0
        assert counted["unharmed"] > 0


def raising(corpus: Corpus, item: tuple[int, str]) -> tuple[str, str]:
    raise KeyError("not a decoding error")


def test_another_exception_is_a_failure(corpus: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fuzz, "attempt_quietly", raising)
    result = fuzz.fuzz(corpus, [3], jobs=1)
    assert [failure["case"] for failure in result["failures"]] == [3] * len(fuzz.readers())
    assert "KeyError" in result["failures"][0]["reason"]


@pytest.mark.slow
def test_2000_damaged_real_clips_end_as_frames_or_errors(shared_dir: Path, tmp_path: Path) -> None:
    assert fuzz.fuzz(Corpus.of(fuzz.real_files(), tmp_path), range(fuzz.CASES))["failures"] == []


def test_decoding_again_and_again_leaves_memory_flat(corpus: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "WARM_UP", 60)
    damaged = corpus.folder / "cut.mp4"
    damaged.write_bytes(corpus.sources[0].path.read_bytes()[:2000])
    run = memory.decode_again_and_again([*(source.path for source in corpus.sources), damaged], 300, "pyav")
    assert run["decodes"] > 280
    assert run["refused"] > 0
    assert max(memory.growth_mib(run).values()) < 5


def test_a_leak_is_seen() -> None:
    run = {"passes_of_warm_up": 2, "peak_of_warm_up_mib": 150.0, "peak_after_mib": 150.0}
    assert memory.growth_mib({**run, "resident_mib": [100.0 + number for number in range(10)]})["median"] == 4
    assert memory.growth_mib({**run, "resident_mib": [100.0] * 10, "peak_after_mib": 180.0})["peak"] == 30


# Summary


def test_the_summary_says_how_many_times_as_fast(tmp_path: Path) -> None:
    result = {
        "benchmark": "reading",
        "unit": "clips",
        "headline": "reading",
        "measurements": [
            {"name": "theirs", "seconds": [2.0, 3.0, 4.0], "median_s": 3.0, "rate": 1 / 3, "relative_to": {}},
            {
                "name": "kinetext",
                "seconds": [1.0, 1.0, 1.0],
                "median_s": 1.0,
                "rate": 1.0,
                "relative_to": {"theirs": {"subject": "theirs", "time": 1 / 3}},
            },
        ],
    }
    figures = {"benchmark": "b", "headline": "damaged clips", "figures": [{"name": "pyav", "value": "none"}]}
    unlisted = {"benchmark": "b", "headline": "", "measurements": result["measurements"]}
    machine = {"processor": "A", "cores": 2, "instructions": "avx2", "torch": "1"}
    harness.write_json(tmp_path / "tower.json", {"machine": machine, "results": [result, unlisted]})
    harness.write_json(tmp_path / "fuzz.json", {"machine": {**machine, "processor": "B"}, "results": [figures]})
    shown = report.markdown(tmp_path)
    assert "| reading | 1 clips/s | theirs: 0.333 clips/s | **3.00** (2.00 to 4.00) |" in shown
    assert "| damaged clips, pyav | none |  |  |" in shown
    assert shown.count("| measured |") == 2  # a table for each machine
    assert len(re.findall(r"^\| reading", shown, re.MULTILINE)) == 1

    readme = tmp_path / "README.md"
    readme.write_text("before\n<!-- benchmarks -->\nold\n<!-- /benchmarks -->\nafter\n", "utf-8")
    report.fill(readme, tmp_path)
    assert readme.read_text("utf-8") == f"before\n<!-- benchmarks -->\n{shown}\n<!-- /benchmarks -->\nafter\n"
    readme.write_text("no place", "utf-8")
    with pytest.raises(ValueError, match="needs one <!-- benchmarks -->"):
        report.fill(readme, tmp_path)


def test_every_group_has_a_place_in_the_summary() -> None:
    assert set(GROUPS) <= {*report.NAMES, "augmentation"}  # which is measured only where kornia is installed


def test_the_table_of_the_readme_is_that_of_the_results() -> None:
    """To make it so: `python -m benchmarks.report --readme README.md`."""
    found = re.search(r"<!-- benchmarks -->\n(.*)\n<!-- /benchmarks -->", README.read_text("utf-8"), re.DOTALL)
    assert found is not None
    assert found[1] == report.markdown()
