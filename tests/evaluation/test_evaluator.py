"""Evaluation gives the same counts however it is cut into batches, workers and processes, and says what it left out."""

import json
import os
import re
import stat
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset
from rendered_clips import render_clip
from testing_utils import tiny_model

from kinetext import TextBank, VideoTextProcessor, XCLIPModel
from kinetext.data.annotations import Clip, ClipList
from kinetext.data.datasets import EvalClips
from kinetext.data.small_tokenizer import small_tokenizer
from kinetext.evaluation.evaluator import Scoring, evaluate_clips, write_json
from kinetext.evaluation.prediction_files import predictions_as_bytes, read_predictions
from kinetext.evaluation.predictions import EvaluationResult, Prediction

CLASS_NAMES = tuple(f"class {letter}" for letter in "abcdefg")
NUM_CLIPS = 7


@pytest.fixture(scope="module")
def processor() -> VideoTextProcessor:
    return VideoTextProcessor(small_tokenizer(CLASS_NAMES), num_frames=4, crop_size=32)


@pytest.fixture(scope="module")
def model(processor: VideoTextProcessor) -> XCLIPModel:
    return tiny_model(text={"vocab_size": len(processor.tokenizer), "max_position_embeddings": 77})


@pytest.fixture(scope="module")
def bank(model: XCLIPModel, processor: VideoTextProcessor) -> TextBank:
    return model.encode_texts(**processor(text=CLASS_NAMES), names=CLASS_NAMES)


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> ClipList:
    """Clips of different lengths; the third is corrupt."""
    folder = tmp_path_factory.mktemp("clips")
    paths = [render_clip(folder / f"{index}.mp4", 5 + 3 * index) for index in range(NUM_CLIPS)]
    paths[2].write_bytes(b"this is no video")
    return ClipList(tuple(Clip(path.name, str(path), i) for i, path in enumerate(paths)), CLASS_NAMES)


@pytest.fixture(scope="module")
def result(model: XCLIPModel, clips: ClipList, processor: VideoTextProcessor, bank: TextBank) -> EvaluationResult:
    return evaluate_clips(model, EvalClips(clips, processor), bank, batch_size=1, show_progress=False)


def assert_same(left: EvaluationResult, right: EvaluationResult) -> None:
    """Equal but for the last digits of the scores, which depend on how a batch is laid out."""
    assert left == right and left.metrics() == right.metrics()  # `==` leaves the scores aside
    for one, other in zip(left.decoded, right.decoded, strict=True):
        np.testing.assert_allclose(one.log_probabilities, other.log_probabilities, atol=1e-5)


# ------------------------------------------------------------------------------------------------ what is measured


def test_predictions_are_those_of_the_model(
    result: EvaluationResult, model: XCLIPModel, clips: ClipList, processor: VideoTextProcessor
) -> None:
    assert [prediction.clip_id for prediction in result.predictions] == [clip.clip_id for clip in clips.clips]
    for clip, prediction in zip(clips.clips, result.predictions, strict=True):
        if prediction.error is None:
            with torch.no_grad():
                scores = model(**processor(videos=clip.source, text=CLASS_NAMES)).logits_per_video[0].softmax(-1)
            order = scores.argsort(descending=True).tolist()
            assert prediction.label == clip.label
            assert prediction.predicted == order[0]
            assert prediction.score == pytest.approx(float(scores[order[0]]), abs=1e-5)
            np.testing.assert_allclose(prediction.log_probabilities, scores.log(), atol=1e-5)
            assert prediction.rank == order.index(clip.label) + 1


def test_a_corrupt_clip_counts_in_coverage_and_not_in_accuracy(result: EvaluationResult) -> None:
    broken = result.predictions[2]
    assert (broken.clip_id, broken.label) == ("2.mp4", 2)
    assert {broken.predicted, broken.score, broken.rank, broken.log_probabilities} == {None}
    assert broken.error is not None and "2.mp4" in broken.error and result.failed == {"2.mp4": broken.error}
    assert result.decoded == [prediction for index, prediction in enumerate(result.predictions) if index != 2]
    metrics = result.metrics()
    assert (metrics["num_listed"], metrics["num_decoded"]) == (NUM_CLIPS, NUM_CLIPS - 1)
    assert metrics["coverage"] == (NUM_CLIPS - 1) / NUM_CLIPS
    top1, top5 = (sum(one.rank <= k for one in result.decoded) for k in (1, 5))
    assert (metrics["top1_count"], metrics["top5_count"]) == (top1, top5)
    assert (metrics["top1"], metrics["top5"]) == (top1 / (NUM_CLIPS - 1), top5 / (NUM_CLIPS - 1))


def test_metrics_are_exact_counts() -> None:
    predictions = (
        Prediction("a", 0, 0, 1),
        Prediction("b", 1, 0, 5),
        Prediction("c", 1, 2, 6),  # a distractor came first
        Prediction("d", 1, error="broken"),
    )
    result = EvaluationResult(("x", "y"), predictions)
    assert result.confusion().tolist() == [[1, 0], [1, 0]]
    assert result.metrics() == {
        "top1": 1 / 3,
        "top5": 2 / 3,
        "top1_count": 1,
        "top5_count": 2,
        "num_decoded": 3,
        "num_listed": 4,
        "coverage": 0.75,
    }


@pytest.mark.parametrize(("num_clips", "num_crops"), [(2, 1), (2, 3)])
def test_views_are_averaged_as_probabilities(
    num_clips: int,
    num_crops: int,
    model: XCLIPModel,
    clips: ClipList,
    processor: VideoTextProcessor,
    bank: TextBank,
) -> None:
    dataset = EvalClips(clips, processor, num_clips=num_clips, num_crops=num_crops)
    found = evaluate_clips(model, dataset, bank, batch_size=3, show_progress=False)
    views = dataset[4]["pixel_values"]
    assert len(views) == num_clips * num_crops
    with torch.no_grad():
        each = [model(pixel_values=view[None], text_bank=bank).logits_per_video[0].softmax(-1) for view in views]
    mean = torch.stack(each).mean(0)
    assert found.predictions[4].predicted == int(mean.argmax())
    np.testing.assert_allclose(found.predictions[4].log_probabilities, mean.log(), atol=1e-5)


@pytest.mark.parametrize("is_multi_label", [False, True])
def test_probabilities_are_averaged_over_views_and_templates(is_multi_label: bool) -> None:
    logits = torch.randn(2 * 3, 5 * 4) * 30  # 2 clips of 3 views, 5 templates of 4 texts; 30: none may underflow
    each = logits.double().view(2, 3, 5, 4)
    each = each.sigmoid() if is_multi_label else each.softmax(-1)
    found = Scoring(num_templates=5, is_multi_label=is_multi_label).log_probabilities(logits, 2)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), each.mean((1, 2)).log(), atol=1e-4, rtol=1e-6)


def test_a_tie_counts_against_the_model(
    model: XCLIPModel, clips: ClipList, processor: VideoTextProcessor, bank: TextBank
) -> None:
    same = replace(bank, text_embeds=bank.text_embeds[:1].repeat(NUM_CLIPS, 1))
    found = evaluate_clips(model, EvalClips(clips, processor), same, show_progress=False)
    assert {prediction.rank for prediction in found.decoded} == {NUM_CLIPS}


def test_texts_behind_the_classes_are_distractors(
    model: XCLIPModel, clips: ClipList, processor: VideoTextProcessor, bank: TextBank, result: EvaluationResult
) -> None:
    two = tuple(replace(clip, label=clip.label % 2) for clip in clips.clips)
    dataset, scoring = EvalClips(ClipList(two, CLASS_NAMES[:2]), processor), Scoring(num_distractors=5)
    found = evaluate_clips(model, dataset, bank, scoring=scoring, show_progress=False)
    assert found.class_names == CLASS_NAMES[:2]
    assert [one.predicted for one in found.decoded] == [one.predicted for one in result.decoded]
    for one, whole in zip(found.decoded, result.decoded, strict=True):
        np.testing.assert_allclose(one.log_probabilities, whole.log_probabilities, atol=1e-5)
        assert one.rank == int((one.log_probabilities >= one.log_probabilities[one.label]).sum())


def test_features_are_averaged_only_where_texts_do_not_depend_on_the_video(
    model: XCLIPModel, clips: ClipList, processor: VideoTextProcessor, bank: TextBank
) -> None:
    message = "view_average='features' does not fit a XCLIPModel: its views are not compared with one text embedding."
    with pytest.raises(ValueError, match=f"^{re.escape(message)} Use view_average: probabilities."):
        evaluate_clips(model, EvalClips(clips, processor), bank, scoring=Scoring(view_average="features"))


def test_clips_of_different_lengths_are_evaluated_with_all_their_frames(
    model: XCLIPModel, clips: ClipList, processor: VideoTextProcessor, bank: TextBank
) -> None:
    all_frames = VideoTextProcessor(processor.tokenizer, num_frames=4, sampling="all", crop_size=32)
    dataset = EvalClips(clips, all_frames)
    assert [dataset[index]["pixel_values"].shape[1] for index in (0, 1)] == [5, 8]
    one_by_one = evaluate_clips(model, dataset, bank, batch_size=1, show_progress=False)
    assert_same(evaluate_clips(model, dataset, bank, batch_size=4, show_progress=False), one_by_one)


# ---------------------------------------------------------------------------------------------- independence of how


@pytest.mark.parametrize(("batch_size", "num_workers"), [(2, 0), (100, 0), (3, 2)])
def test_results_do_not_depend_on_batches_and_workers(
    batch_size: int,
    num_workers: int,
    result: EvaluationResult,
    model: XCLIPModel,
    clips: ClipList,
    processor: VideoTextProcessor,
    bank: TextBank,
) -> None:
    found = evaluate_clips(
        model,
        EvalClips(clips, processor),
        bank,
        batch_size=batch_size,
        num_workers=num_workers,
        show_progress=False,
    )
    assert_same(found, result)


@pytest.mark.parametrize("num_processes", [2, 3, 10])  # with 10, some have no clip
def test_processes_share_the_clips_between_them(
    num_processes: int,
    result: EvaluationResult,
    model: XCLIPModel,
    clips: ClipList,
    processor: VideoTextProcessor,
    bank: TextBank,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One process after the other; the last one gathers what all of them sent."""
    sent: list[list[Any]] = []

    def gather(own: list[Any]) -> list[Any]:
        sent.append(own)
        is_last = len(sent) == num_processes
        return [item for part in sent for item in part] if is_last else list(enumerate(result.predictions))

    monkeypatch.setattr("kinetext.evaluation.evaluator.gather_object", gather)
    dataset = EvalClips(clips, processor)
    for process_index in range(num_processes):
        found = evaluate_clips(
            model,
            dataset,
            bank,
            process_index=process_index,
            num_processes=num_processes,
            show_progress=False,
        )
    assert [sorted(index for index, _ in part) for part in sent] == [
        list(range(process_index, NUM_CLIPS, num_processes)) for process_index in range(num_processes)
    ]
    assert_same(found, result)


@pytest.mark.slow
def test_two_real_processes_get_the_same_results(
    result: EvaluationResult,
    model: XCLIPModel,
    clips: ClipList,
    processor: VideoTextProcessor,
    bank: TextBank,
    tmp_path: Path,
) -> None:
    model.save_pretrained(tmp_path / "model")
    processor.save_pretrained(tmp_path / "model")
    bank.save(tmp_path / "bank.safetensors")
    write_json(tmp_path / "clips.json", [[clip.clip_id, clip.source, clip.label] for clip in clips.clips])
    subprocess.run([sys.executable, "-c", TWO_PROCESSES, str(tmp_path)], check=True, timeout=300)
    for rank in (0, 1):
        rows = read_predictions(tmp_path / f"result-{rank}.parquet")
        assert_same(EvaluationResult(CLASS_NAMES, tuple(prediction for _, _, prediction in rows)), result)


TWO_PROCESSES = """
import json, sys
from pathlib import Path
from accelerate import PartialState, debug_launcher
from kinetext import TextBank
from kinetext.data.annotations import Clip, ClipList
from kinetext.data.datasets import EvalClips
from kinetext.evaluation.classify import load_model
from kinetext.evaluation.evaluator import evaluate_clips
from kinetext.evaluation.prediction_files import predictions_as_bytes

folder = Path(sys.argv[1])

def evaluate():
    state = PartialState(cpu=True)
    assert state.num_processes == 2
    model, processor = load_model(str(folder / "model"))
    bank = TextBank.load(folder / "bank.safetensors")
    clips = ClipList(tuple(Clip(*row) for row in json.loads((folder / "clips.json").read_text())), bank.names)
    result = evaluate_clips(
        model, EvalClips(clips, processor), bank, process_index=state.process_index, num_processes=2,
        show_progress=False,
    )
    rows = [("all", index, prediction) for index, prediction in enumerate(result.predictions)]
    (folder / f"result-{state.process_index}.parquet").write_bytes(predictions_as_bytes(rows))

if __name__ == "__main__":
    debug_launcher(evaluate, num_processes=2)
"""


@pytest.mark.parametrize("fails", [False, True])
def test_every_module_is_left_in_its_mode(
    fails: bool, clips: ClipList, processor: VideoTextProcessor, bank: TextBank, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny_model(text={"vocab_size": len(processor.tokenizer), "max_position_embeddings": 77})
    model.train()
    model.text_model.eval()  # as of a frozen tower
    modes = {name: module.training for name, module in model.named_modules()}
    seen = []

    def forward(**inputs: Any) -> Any:
        seen.append(any(module.training for module in model.modules()))
        if fails:
            raise RuntimeError("out of memory")
        return type(model).forward(model, **inputs)

    monkeypatch.setattr(model, "forward", forward)
    try:
        evaluate_clips(model, EvalClips(clips, processor), bank, show_progress=False)
    except RuntimeError:
        assert fails
    assert seen == [False]
    assert {name: module.training for name, module in model.named_modules()} == modes


# ----------------------------------------------------------------------------------------------- errors and results


def test_nothing_to_evaluate_is_an_error(model: XCLIPModel, processor: VideoTextProcessor, bank: TextBank) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape('there are no clips to evaluate.')}$"):
        evaluate_clips(model, EvalClips(ClipList((), CLASS_NAMES), processor), bank)


def test_a_bank_of_other_classes_is_an_error(
    model: XCLIPModel, clips: ClipList, processor: VideoTextProcessor, bank: TextBank
) -> None:
    fewer = ClipList(clips.clips[:2], CLASS_NAMES[:2])
    with pytest.raises(ValueError, match=f"^{re.escape('the bank has 7 texts, the clips 2 classes.')}$"):
        evaluate_clips(model, EvalClips(fewer, processor), bank)


def test_predictions_survive_as_parquet(result: EvaluationResult, tmp_path: Path) -> None:
    odd = Prediction("\udcff|a.mp4", 1, error="\udcfe", other_labels=(3, 0))
    rows = [("one", 3, odd), *(("split 1", index, each) for index, each in enumerate(result.predictions))]
    (tmp_path / "predictions.parquet").write_bytes(predictions_as_bytes(rows))
    first, *others = read_predictions(tmp_path / "predictions.parquet")
    assert first == ("one", 3, replace(odd, clip_id="\\udcff|a.mp4", error="\\udcfe"))  # bytes written out
    assert others == rows[1:]
    for (_, _, read), (_, _, written) in zip(others, rows[1:], strict=True):
        assert np.array_equal(read.log_probabilities, written.log_probabilities)
    table = Dataset.from_parquet(str(tmp_path / "predictions.parquet"), cache_dir=str(tmp_path))  # as others read it
    assert table["labels"][:2] == [[1, 3, 0], [0]] and table["error"][0] == "\\udcfe" and table["rank"][0] is None


def test_json_is_written_completely_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "result.json"
    write_json(path, {"good": 1})
    with pytest.raises(TypeError):
        write_json(path, {"half": [1, 2, object()]})

    def no_space(descriptor: int) -> None:
        os.ftruncate(descriptor, 3)
        raise OSError("no space left")

    monkeypatch.setattr(os, "fsync", no_space)
    with pytest.raises(OSError, match="no space left"):
        write_json(path, {"better": 2})
    assert json.loads(path.read_text()) == {"good": 1}
    assert os.listdir(tmp_path) == ["result.json"]


def test_json_can_be_read_by_others(tmp_path: Path) -> None:
    write_json(tmp_path / "result.json", {})
    (tmp_path / "plain").touch()
    modes = {stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("result.json", "plain")}
    assert len(modes) == 1
