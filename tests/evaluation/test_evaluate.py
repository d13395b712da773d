"""Models under protocols, end to end: the same bytes however a result is made, and what each makes of scores."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from evaluation_runs import evaluate, evaluate_slowly
from rendered_clips import render_clip
from testing_utils import run_cli, tiny_clip, tiny_clip_config, tiny_config, tiny_model, tiny_moted, tiny_video_clip
from training_runs import _free_port, start, wait_until

from kinetext import VideoCLIPModel, VideoTextProcessor, XCLIPForVideoClassification
from kinetext.data.clip_lists import Clip, ClipList
from kinetext.data.small_tokenizer import small_tokenizer
from kinetext.evaluation import evaluator
from kinetext.evaluation.classify import load_model
from kinetext.evaluation.evaluate import Loading, evaluate_model, evaluate_with_baseline
from kinetext.evaluation.evaluator import Scoring
from kinetext.evaluation.metrics import mean_average_precision
from kinetext.evaluation.prediction_files import predictions_as_bytes, read_predictions
from kinetext.evaluation.predictions import EvaluationResult, Prediction
from kinetext.evaluation.protocol import Protocol, Split
from kinetext.evaluation.results import ProtocolResult, read_result

CLASSES = ("jumping", "running", "waving")
TEXTS = ("someone jumps", "someone runs", "someone waves")
TEMPLATES = ("{}", "a video of {}", "{} in a clip")
DESCRIPTIONS = [["both feet leave the ground", "it goes up"], ["legs alternate"], ["a hand swings", "it greets"]]
TOKENIZER = small_tokenizer([*TEXTS, *TEMPLATES, "nobody sits", *(text for texts in DESCRIPTIONS for text in texts)])
SIZES = {"vocab_size": len(TOKENIZER), "max_tokens": 77}
CONTRACT: dict[str, Any] = {"num_frames": 4, "crop_size": 32}
NUM_CLIPS = 7  # and a broken one
MODELS: dict[str, Callable[[], Any]] = {
    "xclip": lambda: tiny_model(num_frames=4, text={"vocab_size": len(TOKENIZER), "max_position_embeddings": 77}),
    "video_clip": lambda: tiny_video_clip(num_frames=4, **SIZES),
    "moted": lambda: tiny_moted(num_frames=4, inference_logits="motion", **SIZES),
    "classifier": lambda: _classifier(),
    "clip": lambda: tiny_clip(tiny_clip_config(**SIZES)),
}


def _classifier() -> Any:
    torch.manual_seed(0)
    return XCLIPForVideoClassification(tiny_config(num_frames=4, id2label=dict(enumerate(CLASSES)))).eval()


def processor_of(name: str, **contract: Any) -> VideoTextProcessor:
    return VideoTextProcessor(TOKENIZER, **{**CONTRACT, "motion_frame_ratio": 2 if name == "moted" else 1, **contract})


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """clips/<class>/<number>.mp4, test.txt, mine.yaml, and folders of the models."""
    folder = tmp_path_factory.mktemp("world")
    lines = []
    for index in range(NUM_CLIPS):
        name = CLASSES[index % 3]
        (folder / "clips" / name).mkdir(parents=True, exist_ok=True)
        render_clip(folder / "clips" / name / f"{index}.mp4", 5 + 3 * index)
        lines.append(f"{name}/{index}.mp4 {name}")
    (folder / "clips/waving/broken.mp4").write_bytes(b"no video")
    lines.insert(4, "waving/broken.mp4 waving")
    (folder / "test.txt").write_text("\n".join([*lines, lines[2]]) + "\n")  # one of them twice
    settings = {
        "dataset": "my/clips",
        "classes": list(CLASSES),
        "class_texts": list(TEXTS),
        "templates": "a video of {}",
    }
    split = {"name": "all", "clips": "test.txt"}
    (folder / "mine.yaml").write_text(yaml.safe_dump({**settings, "splits": [split]}))
    for name, make in MODELS.items():
        make().save_pretrained(folder / name)
        if name == "clip":
            TOKENIZER.save_pretrained(folder / name)
        else:
            processor_of(name).save_pretrained(folder / name)
    return folder


@pytest.fixture(scope="module")
def clips(world: Path) -> ClipList:
    lines = [line.split() for line in (world / "test.txt").read_text().splitlines()[:-1]]
    return ClipList(
        tuple(Clip(path, str(world / "clips" / path), CLASSES.index(name)) for path, name in lines), CLASSES
    )


def words(world: Path, out: Path, *options: object, model: str = "xclip") -> list[str]:
    places = ("--protocol", world / "mine.yaml", "--data-root", world / "clips", "--lists", world, "--out", out)
    return [str(word) for word in (world / model, *places, *options)]


def evaluated(world: Path, out: Path, *options: object, model: str = "xclip") -> ProtocolResult:
    done = run_cli("eval", *words(world, out, *options, model=model))
    assert done.exit_code == 0, done.output
    return read_result(out)


@pytest.fixture(scope="module")
def out(world: Path) -> Path:
    """What one process wrote, clip by clip."""
    evaluated(world, world / "out", "--batch-size", 1)
    return world / "out"


def protocol(**fields: Any) -> Protocol:
    named = {"name": "mine", "version": 1, "dataset": "my/clips", "classes": CLASSES, "class_texts": TEXTS}
    return Protocol(**{**named, "templates": ("{}",), **fields})


def run(
    folder: Path, clips: ClipList, name: str = "xclip", *, contract: Any = None, more: Any = None, **fields: Any
) -> ProtocolResult:
    """The result of a fresh model under a protocol with these fields."""
    processor = processor_of(name, **(contract or {}))
    return evaluate_model(
        MODELS[name](), processor, protocol(**fields), [clips], name=name, folder=folder, **more or {}
    )


def scores_of(result: ProtocolResult) -> np.ndarray:
    """(B, N) log-probabilities of the decoded clips."""
    return np.stack([prediction.log_probabilities for each in result.splits.values() for prediction in each.decoded])


def logits_by_hand(
    name: str, clips: ClipList, texts: Any, *, template: str = "{}", views: tuple[int, int] = (1, 1), **more: Any
) -> torch.Tensor:
    """(B, V, N) of the decoded clips, each view alone."""
    model, processor = MODELS[name](), processor_of(name)
    tokens = processor(text=list(texts), template=template, **more)
    rows = []
    for clip in clips.clips:
        if "broken" in clip.clip_id:
            continue
        pixels = processor(videos=[clip.source], num_clips=views[0], num_crops=views[1])["pixel_values"]
        pixels = pixels.reshape(-1, *pixels.shape[-4:])
        with torch.inference_mode():
            rows.append(torch.cat([model(pixel_values=view[None], **tokens).logits_per_video for view in pixels]))
    return torch.stack(rows)


def assert_close(result: ProtocolResult, probabilities: torch.Tensor) -> None:
    """The scores are these (B, N) probabilities, and ranks, labels and predictions follow from them."""
    np.testing.assert_allclose(np.exp(scores_of(result)), probabilities.numpy(), atol=1e-5)
    (split,) = result.splits.values()
    for prediction, row in zip(split.decoded, scores_of(result), strict=True):
        assert prediction.predicted == row.argmax() and prediction.rank == (row >= row[prediction.label]).sum()


# ------------------------------------------------------------------------------------------- the same bytes each time


def assert_same_files(folder: Path, out: Path, *, num_processes: int) -> None:
    for name in ("results.json", "predictions.parquet"):
        assert (folder / name).read_bytes() == (out / name).read_bytes()
    assert json.loads((folder / "run.json").read_text())["num_processes"] == num_processes
    assert sorted(path.name for path in folder.iterdir()) == sorted(path.name for path in out.iterdir())


def test_one_process_or_three_give_the_same_bytes(world: Path, out: Path, tmp_path: Path) -> None:
    arguments = words(world, tmp_path / "out", "--batch-size", 1)
    process = start(tmp_path / "log.txt", *arguments, num_processes=3, job=evaluate)
    process.finish()
    assert process.output().count("report:") == 1  # one process speaks
    assert_same_files(tmp_path / "out", out, num_processes=3)


@pytest.mark.slow
def test_processes_that_accelerate_launches_give_the_same_bytes(world: Path, out: Path, tmp_path: Path) -> None:
    launcher = [str(Path(sys.executable).with_name("accelerate")), "launch", "--multi_gpu", "--num_processes", "3"]
    command = [*launcher, "--main_process_port", str(_free_port()), "-m", "kinetext.cli", "eval"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "HF_HOME": str(tmp_path / "home")}
    arguments = words(world, tmp_path / "out", "--batch-size", 1)
    done = subprocess.run([*command, *arguments], env=environment, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr[-3000:]
    assert_same_files(tmp_path / "out", out, num_processes=3)


def test_batches_and_workers_do_not_matter(world: Path, out: Path, tmp_path: Path) -> None:
    again = evaluated(world, tmp_path, "--batch-size", 7, "--num-workers", 2)
    assert (tmp_path / "results.json").read_bytes() == (out / "results.json").read_bytes()
    assert again.splits == read_result(out).splits
    np.testing.assert_allclose(scores_of(again), scores_of(read_result(out)), atol=1e-5)


@pytest.mark.parametrize("num_processes", [1, 3])
def test_what_was_killed_goes_on_and_ends_the_same(
    num_processes: int, world: Path, out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = words(world, tmp_path / "out", "--batch-size", 1)
    process = start(tmp_path / "log.txt", *arguments, num_processes=num_processes, job=evaluate_slowly)
    assert wait_until(lambda: len(kept_in(tmp_path / "out")) >= 3, process), process.output()
    process.kill()
    kept = kept_in(tmp_path / "out")
    assert 3 <= len(kept) < NUM_CLIPS and not (tmp_path / "out/results.json").exists()
    tried = record_tried(monkeypatch)
    evaluated(world, tmp_path / "out", "--batch-size", 1)
    assert sorted([*tried, *(one.clip_id for one in kept if one.error is None)]) == sorted(ids_of(out))
    for name in ("results.json", "predictions.parquet"):
        assert (tmp_path / "out" / name).read_bytes() == (out / name).read_bytes()
    assert not (tmp_path / "out/unfinished").exists()


def kept_in(folder: Path) -> list[Prediction]:
    """What an unfinished evaluation has kept."""
    files = folder.glob("unfinished/*/*.parquet")
    return [prediction for path in files for _, _, prediction in read_predictions(path)]


def ids_of(folder: Path) -> list[str]:
    (split,) = read_result(folder).splits.values()
    return [prediction.clip_id for prediction in split.predictions]


def record_tried(monkeypatch: pytest.MonkeyPatch, *, until: int = 1000) -> list[str]:
    """Ids of the clips that are evaluated from now on; before one more than `until`, it is interrupted."""
    tried: list[str] = []
    predict = evaluator._predict

    def predict_and_record(model: Any, samples: Any, dataset: Any, *others: Any) -> Any:
        if len(tried) >= until:
            raise KeyboardInterrupt
        tried.extend(dataset.clips.clips[sample["index"]].clip_id for sample in samples)
        return predict(model, samples, dataset, *others)

    monkeypatch.setattr(evaluator, "_predict", predict_and_record)
    return tried


def interrupted(folder: Path, clips: ClipList, monkeypatch: pytest.MonkeyPatch, name: str = "xclip") -> None:
    """An evaluation that ends after five clips, of which one is broken."""
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        record_tried(patch, until=5)
        run(folder, clips, name, more={"loading": Loading(batch_size=1)})
    assert len(kept_in(folder)) == 5


def test_what_was_interrupted_goes_on_and_failed_clips_are_tried_again(
    clips: ClipList, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupted(tmp_path, clips, monkeypatch)
    tried = record_tried(monkeypatch)
    result = run(tmp_path, clips)
    assert tried == ["waving/broken.mp4", *(clip.clip_id for clip in clips.clips[5:])]
    assert_close(result, logits_by_hand("xclip", clips, TEXTS)[:, 0].softmax(-1))


@pytest.mark.parametrize(
    "change",
    [
        {"weights": 0.1},
        {"num_clips": 2},
        {"class_texts": TEXTS[::-1]},
        {"contract": {"image_mean": [0.1] * 3}},
        {"contract": {"tokenizer": small_tokenizer(["other words", *TEXTS])}},
        {"name": "video_clip", "config": {"temporal_pooling": "one_frame", "num_frames": 1}},
        {"order": -1},
    ],
    ids=str,
)
def test_what_another_evaluation_kept_is_neither_used_nor_removed(
    change: dict[str, Any], clips: ClipList, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = change.get("name", "xclip")
    interrupted(tmp_path, clips, monkeypatch, name)
    kept = sorted((tmp_path / "unfinished").rglob("*"))
    model = MODELS[name]()
    if "weights" in change:
        with torch.no_grad():
            next(model.parameters()).view(-1)[0] += change["weights"]
    for field, value in change.get("config", {}).items():
        setattr(model.config, field, value)
    contract = {**CONTRACT, **change.get("contract", {})}
    processor = VideoTextProcessor(contract.pop("tokenizer", TOKENIZER), **contract)
    others = ClipList(clips.clips[:: change.get("order", 1)], CLASSES)
    fields = {field: change[field] for field in ("num_clips", "class_texts") if field in change}
    tried = record_tried(monkeypatch)
    evaluate_model(model, processor, protocol(**fields), [others], name=name, folder=tmp_path)
    assert tried == [clip.clip_id for clip in others.clips]
    assert sorted((tmp_path / "unfinished").rglob("*")) == kept


def test_scores_of_a_video_that_has_changed_are_not_used(
    clips: ClipList, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "clips"
    folder.mkdir()
    own = tuple(replace(clip, source=str(shutil.copy(clip.source, folder))) for clip in clips.clips)
    copies = ClipList(own, CLASSES)
    interrupted(tmp_path, copies, monkeypatch, "xclip")
    os.utime(own[0].source, (1, 1))
    processor = VideoTextProcessor(TOKENIZER, **CONTRACT)
    tried = record_tried(monkeypatch)
    evaluate_model(MODELS["xclip"](), processor, protocol(), [copies], name="xclip", folder=tmp_path)
    assert tried == [clip.clip_id for clip in own]


def test_a_place_that_cannot_be_written_is_found_before_anything_is_computed(
    clips: ClipList, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    tiny_clip().save_pretrained(tmp_path / "clip")
    TOKENIZER.save_pretrained(tmp_path / "clip")
    tried = record_tried(monkeypatch)
    with pytest.raises(OSError):
        evaluate_with_baseline(str(tmp_path / "clip"), protocol(), [clips], tmp_path / "file")
    assert tried == []


# ------------------------------------------------------------------------------------------------- what is counted


def test_a_clip_listed_twice_counts_once_and_a_broken_one_is_reported(out: Path) -> None:
    result = read_result(out)
    metrics = json.loads((out / "results.json").read_text())["metrics"]
    assert ids_of(out).count("waving/2.mp4") == 1
    assert (metrics["num_listed"], metrics["num_decoded"]) == (NUM_CLIPS + 1, NUM_CLIPS)
    assert metrics["coverage"] == NUM_CLIPS / (NUM_CLIPS + 1)
    right = int(metrics["top1_count"])
    assert metrics["top1"] == right / NUM_CLIPS
    assert metrics["top1_worst"] == right / (NUM_CLIPS + 1) and metrics["top1_best"] == (right + 1) / (NUM_CLIPS + 1)
    (split,) = json.loads((out / "results.json").read_text())["splits"]
    assert list(split["failed"]) == ["waving/broken.mp4"] and "broken.mp4" in split["failed"]["waving/broken.mp4"]
    assert "waving/broken.mp4" in (out / "report.html").read_text()
    low, high = split["intervals"]["top1"]
    assert low <= metrics["top1"] <= high
    of_class = {name: [] for name in CLASSES}
    for prediction in result.splits["all"].decoded:
        of_class[CLASSES[prediction.label]].append(prediction.rank == 1)
    assert split["class_accuracy"] == {name: np.mean(hits) for name, hits in of_class.items()}
    assert metrics["mean_class_accuracy"] == pytest.approx(np.mean([np.mean(hits) for hits in of_class.values()]))


@pytest.mark.parametrize(("failed_clips", "total"), [("left_out", NUM_CLIPS), ("wrong", NUM_CLIPS + 1)])
def test_failed_clips_are_left_out_or_wrong(failed_clips: str, total: int, clips: ClipList, tmp_path: Path) -> None:
    for task, name in (("classification", "top1"), ("retrieval", "recall_at_1")):
        metrics = run(tmp_path, clips, failed_clips=failed_clips, task=task).metrics()
        assert metrics[name] == metrics[f"{name}_count"] / total
        assert metrics[f"{name}_worst"] == metrics[f"{name}_count"] / (NUM_CLIPS + 1)
    ranks = [one.rank for one in read_result(tmp_path).splits["all"].decoded]
    assert metrics["median_rank"] == np.median([*ranks, *[len(CLASSES) + 1] * (total - NUM_CLIPS)])


def test_of_no_decoded_clip_there_is_no_number(clips: ClipList, tmp_path: Path) -> None:
    broken = ClipList(tuple(clip for clip in clips.clips if "broken" in clip.clip_id), CLASSES)

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    for task in ("classification", "retrieval", "multi_label"):
        result = run(tmp_path, broken, task=task)
        content = json.loads((tmp_path / "results.json").read_text(), parse_constant=refuse)
        primary = {"classification": "top1", "retrieval": "recall_at_1", "multi_label": "map"}[task]
        assert content["metrics"][primary] is None and np.isnan(result.metrics()[primary])
        assert content["metrics"]["coverage"] == 0
        assert read_result(tmp_path).splits == result.splits


def test_several_splits_are_averaged_each_among_its_candidates(clips: ClipList, tmp_path: Path) -> None:
    few = ("running", "waving")
    mine = protocol(splits=(Split("all"), Split("few", classes=few)))
    kept = tuple(replace(clip, label=clip.label - 1) for clip in clips.clips if clip.label > 0)
    lists = [clips, ClipList(kept, few)]
    result = evaluate_model(MODELS["xclip"](), processor_of("xclip"), mine, lists, name="x", folder=tmp_path)
    every, some = result.split_metrics().values()
    mean, std = result.metrics(), result.std()
    assert mean["top1"] == pytest.approx((every["top1"] + some["top1"]) / 2)
    assert std["top1"] == pytest.approx(abs(every["top1"] - some["top1"]) / np.sqrt(2))
    assert [len(one.log_probabilities) for one in result.splits["few"].decoded] == [2] * len(
        result.splits["few"].decoded
    )
    again = read_result(tmp_path / "results.json")
    assert again.splits == result.splits and again.protocol == result.protocol and again.metrics() == result.metrics()

    harmonic = replace(result, protocol=replace(result.protocol, split_mean="harmonic"))
    shares = (every["top1"], some["top1"])
    assert harmonic.metrics()["top1"] == pytest.approx(2 * shares[0] * shares[1] / sum(shares) if sum(shares) else 0)
    assert harmonic.metrics()["num_decoded"] == mean["num_decoded"] and harmonic.std()["top1"] is None
    assert harmonic.protocol.sha256 != result.protocol.sha256


# ------------------------------------------------------------------------------------------- against the same by hand


@pytest.mark.parametrize("name", ["xclip", "video_clip"])
def test_views_are_averaged_as_probabilities(name: str, clips: ClipList, tmp_path: Path) -> None:
    result = run(tmp_path, clips, name, num_clips=2, num_crops=3)
    logits = logits_by_hand(name, clips, TEXTS, views=(2, 3))
    assert logits.shape == (NUM_CLIPS, 6, 3)
    assert_close(result, logits.softmax(-1).mean(1))


def test_views_are_averaged_as_features(clips: ClipList, tmp_path: Path) -> None:
    result = run(tmp_path, clips, "video_clip", num_clips=2, num_crops=3, view_average="features")
    model, processor = MODELS["video_clip"](), processor_of("video_clip")
    bank = model.encode_texts(**processor(text=list(TEXTS)), names=TEXTS)
    texts = bank.text_embeds / bank.text_embeds.norm(dim=-1, keepdim=True)
    rows = []
    with torch.inference_mode():
        for clip in clips.clips:
            if "broken" not in clip.clip_id:
                views = processor(videos=[clip.source], num_clips=2, num_crops=3)["pixel_values"].reshape(
                    6, 4, 3, 32, 32
                )
                mean = model.get_video_features(views).pooler_output.mean(0)
                rows.append(model.logit_scale.exp() * (mean / mean.norm()) @ texts.T)
    assert_close(result, torch.stack(rows).softmax(-1))
    plain = run(tmp_path, clips, "video_clip", num_clips=2, num_crops=3)
    assert np.abs(scores_of(plain) - scores_of(result)).max() > 1e-4
    for refuses in ("xclip", "classifier"):
        with pytest.raises(ValueError, match="view_average='features' does not fit a XCLIP"):
            run(tmp_path, clips, refuses, view_average="features")


@pytest.mark.parametrize("name", ["xclip", "video_clip", "moted"])
def test_templates_are_averaged_as_probabilities(name: str, clips: ClipList, tmp_path: Path) -> None:
    result = run(tmp_path, clips, name, templates=TEMPLATES, num_clips=2)
    each = [logits_by_hand(name, clips, TEXTS, template=one, views=(2, 1)).softmax(-1) for one in TEMPLATES]
    assert_close(result, torch.stack(each).mean((0, 2)))


def test_templates_are_averaged_as_features(clips: ClipList, tmp_path: Path) -> None:
    result = run(tmp_path, clips, "video_clip", templates=TEMPLATES, template_average="features")
    model, processor = MODELS["video_clip"](), processor_of("video_clip")
    each = [model.encode_texts(**processor(text=list(TEXTS), template=one), names=TEXTS) for one in TEMPLATES]
    directions = torch.stack([bank.text_embeds / bank.text_embeds.norm(dim=-1, keepdim=True) for bank in each])
    mean = directions.mean(0)
    mean = mean / mean.norm(dim=-1, keepdim=True)
    rows = []
    with torch.inference_mode():
        for clip in clips.clips:
            if "broken" not in clip.clip_id:
                video = model.get_video_features(processor(videos=[clip.source])["pixel_values"]).pooler_output[0]
                rows.append(model.logit_scale.exp() * (video / video.norm()) @ mean.T)
    assert_close(result, torch.stack(rows).softmax(-1).detach())


def test_distractors_are_candidates_that_are_never_right(clips: ClipList, tmp_path: Path) -> None:
    result = run(tmp_path, clips, distractors=("nobody sits",), task="retrieval")
    assert_close(result, logits_by_hand("xclip", clips, (*TEXTS, "nobody sits"))[:, 0].softmax(-1))
    split = result.splits["all"]
    num_taken = sum(prediction.predicted == len(CLASSES) for prediction in split.decoded)
    assert split.class_names == CLASSES and split.confusion().sum() == NUM_CLIPS - num_taken
    assert read_result(tmp_path).splits == result.splits


def test_where_texts_are_retrieved_ranks_are_reported(clips: ClipList, tmp_path: Path) -> None:
    metrics = run(tmp_path, clips, task="retrieval").metrics()
    probabilities = logits_by_hand("xclip", clips, TEXTS)[:, 0].softmax(-1)
    labels = [clip.label for clip in clips.clips if "broken" not in clip.clip_id]
    ranks = np.array([int((row >= row[label]).sum()) for row, label in zip(probabilities, labels, strict=True)])
    assert metrics["recall_at_1"] == pytest.approx((ranks <= 1).mean()) and metrics["median_rank"] == np.median(ranks)
    assert (metrics["recall_at_5"], metrics["recall_at_10"]) == (1.0, 1.0)
    assert not {"top1", "map", "mean_class_accuracy"} & metrics.keys()


def test_clips_of_several_classes_are_ranked_for_each_class(clips: ClipList, tmp_path: Path) -> None:
    several = tuple(
        replace(clip, other_labels=((clip.label + 1) % 3,) if i % 2 else ()) for i, clip in enumerate(clips.clips)
    )
    result = run(tmp_path, ClipList(several, CLASSES), task="multi_label", num_clips=2)
    probabilities = logits_by_hand("xclip", clips, TEXTS, views=(2, 1)).sigmoid().mean(1)
    assert_close(result, probabilities)
    relevant = torch.zeros(NUM_CLIPS, 3, dtype=torch.bool)
    for row, clip in enumerate(clip for clip in several if "broken" not in clip.clip_id):
        relevant[row, [clip.label, *clip.other_labels]] = True
    assert result.metrics()["map"] == pytest.approx(mean_average_precision(probabilities, relevant))
    assert not {"top1", "recall_at_1"} & result.metrics().keys()
    assert read_result(tmp_path).splits == result.splits


# ---------------------------------------------------------------------------------------------------- kinds of models


def test_a_moted_reads_descriptions_and_its_baseline_is_the_clip_inside(
    world: Path, clips: ClipList, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    moves = {name: texts for name, texts in zip(CLASSES, DESCRIPTIONS, strict=True)}
    (tmp_path / "moves.yaml").write_text(yaml.safe_dump(moves))
    options = ("--descriptions", tmp_path / "moves.yaml", "--baseline", "frozen-clip")
    result = evaluated(world, tmp_path / "out", *options, model="moted")
    assert "left out for" not in caplog.text and "class names stand in" not in caplog.text
    by_hand = logits_by_hand("moted", clips, TEXTS, template="a video of {}", descriptions=DESCRIPTIONS)
    assert_close(result, by_hand[:, 0].softmax(-1))
    assert result.settings == {"descriptions": str(tmp_path / "moves.yaml")}

    baseline = read_result(tmp_path / "out/baseline")
    assert baseline.protocol == result.protocol and baseline.settings == {}
    assert (baseline.model["name"], baseline.model["model_type"]) == ("frozen-clip", "video_clip")
    moted = MODELS["moted"]()
    clip = tiny_clip(tiny_clip_config(**SIZES))
    own = moted.state_dict()
    clip.load_state_dict({name: own[name] for name in clip.state_dict()})
    towers, processor = VideoCLIPModel.from_clip(clip).eval(), processor_of("video_clip")
    tokens = processor(text=list(TEXTS), template="a video of {}")
    with torch.inference_mode():
        rows = [
            towers(**processor(videos=[clip.source]), **tokens).logits_per_video[0].softmax(-1)
            for clip in clips.clips
            if "broken" not in clip.clip_id
        ]
    assert_close(baseline, torch.stack(rows))
    assert "frozen-clip" in (tmp_path / "out/report.html").read_text()


def test_where_texts_are_retrieved_a_moted_reads_the_candidate_alone(
    clips: ClipList, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = {"descriptions": DESCRIPTIONS, "settings": {"descriptions": "moves.yaml"}}
    result = run(tmp_path, clips, "moted", task="retrieval", distractors=("nobody sits",), more=settings)
    assert "left out for this moted model: texts are retrieved, and each stands for itself" in caplog.text
    assert "class names stand in" not in caplog.text  # nothing is missing
    assert result.settings == {}
    candidates = (*TEXTS, "nobody sits")
    by_hand = logits_by_hand("moted", clips, candidates, descriptions=[[text] for text in candidates])
    assert_close(result, by_hand[:, 0].softmax(-1))


def test_descriptions_are_left_out_by_models_that_read_none(
    clips: ClipList, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    more = {"descriptions": DESCRIPTIONS, "settings": {"descriptions": "moves.yaml"}}
    for name in ("xclip", "classifier"):
        caplog.clear()
        assert run(tmp_path, clips, name, more=more).settings == {}
        assert "the descriptions are left out for this xclip model: it reads class texts only." in caplog.text


def test_a_plain_clip_is_evaluated_as_the_mean_over_frames(world: Path, clips: ClipList, tmp_path: Path) -> None:
    result = evaluated(world, tmp_path, model="clip")
    processor = load_model(str(world / "clip"))[1]
    towers = VideoCLIPModel.from_clip(tiny_clip(tiny_clip_config(**SIZES))).eval()
    assert result.model["model_type"] == "video_clip"
    assert (result.protocol.num_frames, result.protocol.crop_size) == (processor.num_frames, 32)
    tokens = processor(text=list(TEXTS), template="a video of {}")
    with torch.inference_mode():
        rows = [
            towers(**processor(videos=[clip.source]), **tokens).logits_per_video[0].softmax(-1)
            for clip in clips.clips
            if "broken" not in clip.clip_id
        ]
    assert_close(result, torch.stack(rows))


def test_a_classifier_is_evaluated_on_its_classes_alone(clips: ClipList, tmp_path: Path) -> None:
    result = run(tmp_path, clips, "classifier")
    model, processor = MODELS["classifier"](), processor_of("classifier")
    with torch.inference_mode():
        rows = [
            model(**processor(videos=[clip.source])).logits[0].softmax(-1)
            for clip in clips.clips
            if "broken" not in clip.clip_id
        ]
    assert_close(result, torch.stack(rows))
    message = r"the classifier tells apart \['jumping', 'running', 'waving'\], the clips have the classes \['waving'"
    with pytest.raises(ValueError, match=message):
        run(tmp_path, ClipList(clips.clips, CLASSES[::-1]), "classifier", classes=CLASSES[::-1])
    with pytest.raises(ValueError, match="'waving'] and distractors; bring them into its order"):
        run(tmp_path, clips, "classifier", distractors=("nobody sits",))


# --------------------------------------------------------------------------------------------------------- baselines


def test_a_baseline_sees_the_frames_and_templates_of_the_model(world: Path, clips: ClipList, tmp_path: Path) -> None:
    processor_of("video_clip", num_frames=8, template="so {}").save_pretrained(tmp_path / "other")
    MODELS["video_clip"]().save_pretrained(tmp_path / "other")
    model, other = str(world / "xclip"), str(tmp_path / "other")
    result, base = evaluate_with_baseline(model, protocol(templates=None), [clips], tmp_path / "out", baseline=other)
    assert base is not None and base.protocol == result.protocol
    assert (base.protocol.num_frames, base.protocol.templates) == (4, ("{}",))
    assert read_result(tmp_path / "out/baseline").model["name"] == other


def test_a_size_that_no_published_clip_has_needs_a_folder(world: Path, clips: ClipList, tmp_path: Path) -> None:
    message = r"no published CLIP has the size of this model \(hidden_size 48, patch_size 16, image_size 32\); name the"
    with pytest.raises(ValueError, match=message):
        evaluate_with_baseline(str(world / "xclip"), protocol(), [clips], tmp_path, baseline="frozen-clip")


# ---------------------------------------------------------------------------------------------------------- the verb


def test_the_verb_prints_every_split_and_says_what_it_refuses(world: Path, out: Path, tmp_path: Path) -> None:
    done = run_cli("eval", *words(world, tmp_path / "out", "--views", "2x1"))
    result = read_result(tmp_path / "out")
    assert done.exit_code == 0 and result.protocol.views == "2x1" and f"SHA-256 {result.protocol.sha256}" in done.output
    assert f"{result.metrics()['top1']:.4f}" in done.output and "7 / 8" in done.output
    assert f"report: {tmp_path / 'out/report.html'}" in done.output
    assert result.protocol.sha256 != read_result(out).protocol.sha256
    for options, message in (
        (("--views", "2x2"), "error: views='2x2' is not understood"),
        (("--protocol", "mine"), "error: there is no protocol 'mine'"),
        (
            ("--lists", tmp_path),
            f"looked for {tmp_path / 'test.txt'} and {world / 'clips/test.txt'}. Say where the lists",
        ),
        (("--decoder", "ffmpeg"), "ffmpeg"),
    ):
        done = run_cli("eval", *words(world, tmp_path / "refused", *options))
        assert done.exit_code == 1 and message in done.output and not (tmp_path / "refused").exists()


def test_the_verb_takes_a_recipe_for_its_clips(world: Path, tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump({"model": "none", "train": ".", "max_failed_share": 1.0}))
    places = ("--protocol", tmp_path / "recipe.yaml", "--data-root", world / "clips", "--out")
    done = run_cli("eval", world / "xclip", *places, tmp_path / "out", "--batch-size", 1)
    assert done.exit_code == 0, done.output
    result = read_result(tmp_path / "out")
    assert (result.protocol.name, result.protocol.class_texts) == ("own-clips", CLASSES)
    assert (result.metrics()["num_listed"], result.metrics()["num_decoded"]) == (NUM_CLIPS + 1, NUM_CLIPS)
    three = (world / "xclip", *places, tmp_path / "three", "--batch-size", 1)
    start(tmp_path / "log.txt", *three, num_processes=3, job=evaluate).finish()
    assert_same_files(tmp_path / "three", tmp_path / "out", num_processes=3)
    done = run_cli("eval", world / "xclip", *places, tmp_path / "none", "--lists", tmp_path)
    assert done.exit_code == 1 and "has no meaning with the recipe" in done.output


# ------------------------------------------------------------------------------------------------------------ reading


def test_a_result_that_was_changed_is_refused(out: Path, tmp_path: Path) -> None:
    def changed(edit: Callable[[dict[str, Any]], None], **names: bytes) -> Path:
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        folder.mkdir()
        content = json.loads((out / "results.json").read_text())
        edit(content)
        (folder / "results.json").write_text(json.dumps(content))
        (folder / "predictions.parquet").write_bytes(
            names.get("predictions", (out / "predictions.parquet").read_bytes())
        )
        return folder

    assert read_result(changed(lambda content: None)).splits == read_result(out).splits
    with pytest.raises(ValueError, match="are not of the same evaluation, or were changed by hand"):
        read_result(changed(lambda content: content["protocol"]["content"].update(num_frames=8)))
    edits: list[Callable[[dict[str, Any]], Any]] = [
        lambda content: content["splits"][0]["metrics"].update(top1=0.99),
        lambda content: content["metrics"].update(top1=0.99),
        lambda content: content["splits"][0].update(name="other"),
        lambda content: content["splits"].clear(),
        lambda content: content["splits"][0]["intervals"].update(top1=[0.0, 1.0]),
        lambda content: content.update(predictions_sha256="0" * 64),
    ]
    for edit in edits:
        with pytest.raises(
            ValueError, match="are not of the same evaluation, or were changed by hand. Evaluate again."
        ):
            read_result(changed(edit))
    (split,) = read_result(out).splits.values()
    others = [("all", index, replace(one, rank=1)) for index, one in enumerate(split.predictions) if one.error is None]
    with pytest.raises(ValueError, match="are not of the same evaluation"):
        read_result(changed(lambda content: None, predictions=predictions_as_bytes(others)))
    with pytest.raises(
        ValueError, match=r"is no whole result of `kinetext eval` \(KeyError\('model'\)\); evaluate again"
    ):
        read_result(changed(lambda content: content.pop("model")))
    with pytest.raises(ValueError, match=r"is no result of `kinetext eval` in the format 1; evaluate again\."):
        read_result(changed(lambda content: content.update(format=0)))
    (tmp_path / "results.json").write_text("{")
    with pytest.raises(ValueError, match="results.json is no JSON: "):
        read_result(tmp_path)
    alone = changed(lambda content: None)
    (alone / "predictions.parquet").unlink()
    with pytest.raises(FileNotFoundError, match="predictions.parquet is missing: it lies beside results.json"):
        read_result(alone)
    with pytest.raises(FileNotFoundError, match="there is no result at .*; give the results.json of `kinetext eval`"):
        read_result(tmp_path / "nowhere")


def test_failed_clips_that_are_wrong_are_no_hits_at_any_rank() -> None:
    right = Prediction("right", 0, predicted=0, rank=1, log_probabilities=np.zeros(2, np.float32))
    failed = Prediction("failed", 1, error="broken")
    names = ("no", "yes")
    wrong = Protocol("own", 1, "own", names, names, failed_clips="wrong", splits=(Split("all", num_clips=2),))
    metrics = ProtocolResult(wrong, {}, {"all": EvaluationResult(names, (right, failed))}).metrics()
    assert (metrics["top1"], metrics["top5"], metrics["top5_count"]) == (0.5, 0.5, 1)
    assert metrics["mean_class_accuracy"] == 0.5  # of the class of the failed clip it is 0


def test_bounds_of_a_harmonic_mean_hold_it() -> None:
    names = ("no", "yes")
    scores = np.zeros(2, np.float32)
    right = [Prediction(f"clip {i}", 0, predicted=0, rank=1, log_probabilities=scores) for i in range(4)]
    splits = {
        "base": EvaluationResult(names, (right[0], Prediction("failed", 1, error="broken"))),
        "novel": EvaluationResult(names, tuple(right)),
    }
    harmonic = Protocol(
        "own",
        1,
        "own",
        names,
        names,
        failed_clips="wrong",
        split_mean="harmonic",
        splits=(Split("base"), Split("novel")),
    )
    metrics = ProtocolResult(harmonic, {}, splits).metrics()
    assert metrics["top1_worst"] <= metrics["top1"] <= metrics["top1_best"]


def test_scores_of_several_labels_keep_their_order_near_one() -> None:
    logits = torch.tensor([[39.0, 36.0, 33.0], [40.0, 35.0, 34.0]])  # (V, N)
    scores = Scoring(is_multi_label=True).log_probabilities(logits, 1)[0]
    exact = torch.log1p(-logits.double().neg().sigmoid().mean(dim=0))
    assert torch.allclose(scores.double(), exact, rtol=1e-6, atol=0)
    assert len(set(scores.tolist())) == 3
