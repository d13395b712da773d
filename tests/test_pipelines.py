"""`transformers.pipeline(...)` on rendered clips: every family, every kind of input, and what is refused."""

from __future__ import annotations

import io
import json
import math
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset
from PIL import Image
from rendered_clips import render_clip
from testing_utils import (
    scatter_weights,
    tiny_clip,
    tiny_clip_config,
    tiny_config,
    tiny_model,
    tiny_moted,
    tiny_video_clip,
    tiny_video_clip_config,
)
from transformers import (
    VideoMAEConfig,
    VideoMAEForVideoClassification,
    VideoMAEImageProcessorPil,
    XCLIPProcessor,
    pipeline,
)
from transformers import XCLIPModel as StockXCLIPModel
from transformers.pipelines.video_classification import VideoClassificationPipeline

import kinetext
from kinetext import VideoDecodeError, VideoTextProcessor, load_video
from kinetext.data.small_tokenizer import small_tokenizer
from kinetext.descriptions import load_descriptions
from kinetext.evaluation.calibration import Calibration
from kinetext.evaluation.results import model_facts
from kinetext.modeling.configuration_video_text import class_names_of
from kinetext.pipelines import VideoClassifierPipeline, ZeroShotVideoClassificationPipeline

LABELS = ["wave", "jump", "run"]
MOVES = [["a hand goes left and right"], ["both feet leave the ground", "it goes up and down"], ["legs alternate"]]
NAMES = {0: "run", 1: "jump", 2: "sit", 3: "wave", 4: "bend", 5: "walk"}
TASK = "zero-shot-video-classification"


def processor_of(family: str, **settings: Any) -> VideoTextProcessor:
    ratio = 2 if family == "moted" else 1
    fields = {"num_frames": 4, "crop_size": 32, "motion_frame_ratio": ratio, **settings}
    return VideoTextProcessor(small_tokenizer(LABELS), **fields)


def over_texts(family: str) -> Any:
    size = {"vocab_size": len(small_tokenizer(LABELS)), "max_tokens": 77}
    if family == "xclip":
        text = {"vocab_size": size["vocab_size"], "max_position_embeddings": size["max_tokens"]}
        return tiny_model(num_frames=4, text=text)
    return tiny_moted(num_frames=4, **size) if family == "moted" else tiny_video_clip(num_frames=4, **size)


def classifier(family: str, **fields: Any) -> Any:
    torch.manual_seed(0)
    label2id = {name: index for index, name in NAMES.items()}
    config = {"xclip": tiny_config, "video_clip": tiny_video_clip_config}[family](
        id2label=NAMES, label2id=label2id, **fields
    )
    name = {"xclip": "XCLIPForVideoClassification", "video_clip": "VideoCLIPForVideoClassification"}[family]
    model = getattr(kinetext, name)(config)
    scatter_weights(model)
    return model.eval()


@pytest.fixture(scope="module", params=["xclip", "moted", "video_clip"])
def family(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module", params=["xclip", "video_clip"])
def classifying(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved classifier."""
    folder = tmp_path_factory.mktemp(request.param)
    classifier(request.param).save_pretrained(folder)
    processor_of(request.param, sampling="uniform").save_pretrained(folder)
    return folder


def save(family: str, folder: Path) -> Path:
    over_texts(family).save_pretrained(folder)
    processor_of(family).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Saved models, by family."""
    root = tmp_path_factory.mktemp("models")
    return lambda family: root / family if (root / family).is_dir() else save(family, root / family)


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("clips")
    return [render_clip(folder / f"{length}.mp4", length) for length in (20, 3, 33, 9, 14)]


@pytest.fixture(scope="module")
def classify(folders: Callable[[str], Path]) -> Any:
    """The zero-shot pipeline of an X-CLIP."""
    return pipeline(TASK, model=str(folders("xclip")), device="cpu")


def expected(model: Any, processor: VideoTextProcessor, clip: Any, **options: Any) -> dict[str, float]:
    """Scores by hand, mean of the probabilities of the views."""
    with torch.inference_mode():
        batch = processor(videos=clip, text=LABELS, **options)
        pixel_values = batch.pop("pixel_values").flatten(0, -5)  # (V, T, 3, S, S)
        logits = model(pixel_values=pixel_values, **batch).logits_per_video
    return dict(zip(LABELS, logits.softmax(dim=-1).mean(dim=0).tolist(), strict=True))


def as_dict(answer: list[dict[str, Any]]) -> dict[str, float]:
    scores = [entry["score"] for entry in answer]
    assert scores == sorted(scores, reverse=True) and all(set(entry) == {"score", "label"} for entry in answer)
    return {entry["label"]: entry["score"] for entry in answer}


def assert_same(answer: Any, other: Any) -> None:
    """Of one or of several videos: the same labels in the same order, scores but for rounding."""
    assert type(answer) is type(other) is list and len(answer) == len(other)
    for one, two in zip(answer, other, strict=True):
        if isinstance(one, list):
            assert_same(one, two)
        else:
            assert one == {"label": two["label"], "score": pytest.approx(two["score"], abs=1e-5)}


# Zero-shot: scores --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"num_frames": 7}, {"views": "2x3"}, {"template": "a video of {}"}], ids=str)
def test_scores_are_those_of_model_and_processor(
    family: str, options: dict[str, Any], folders: Callable[[str], Path], clips: list[Path]
) -> None:
    texts = {"descriptions": MOVES} if family == "moted" else {}
    classify = pipeline(TASK, model=str(folders(family)))
    assert type(classify) is ZeroShotVideoClassificationPipeline
    answer = classify(str(clips[0]), candidate_labels=LABELS, **texts, **options)
    by_hand = {**options, **({"num_clips": 2, "num_crops": 3} if "views" in options else {})}
    by_hand.pop("views", None)
    scores = expected(over_texts(family), processor_of(family), clips[0], **texts, **by_hand)
    assert as_dict(answer) == pytest.approx(scores, abs=1e-6)
    assert max(scores.values()) - min(scores.values()) > 1e-3  # else any answer would do


def test_a_loaded_model_is_taken_with_its_processor_or_finds_it(
    family: str, folders: Callable[[str], Path], clips: list[Path]
) -> None:
    scores = pipeline(TASK, model=str(folders(family)))(clips[0], LABELS)
    model = over_texts(family).train()
    assert_same(pipeline(TASK, model=model, processor=processor_of(family))(clips[0], LABELS), scores)
    assert not model.training
    loaded = getattr(kinetext, type(model).__name__).from_pretrained(folders(family))
    assert_same(pipeline(TASK, model=loaded)(clips[0], LABELS), scores)


def test_a_repository_of_transformers_own_xclip_is_taken(folders: Callable[[str], Path], tmp_path: Path) -> None:
    StockXCLIPModel.from_pretrained(folders("xclip")).save_pretrained(tmp_path)
    processor_of("xclip").tokenizer.save_pretrained(tmp_path)
    classify = pipeline(TASK, model=str(tmp_path))
    assert type(classify.model) is kinetext.XCLIPModel
    assert (classify.processor.num_frames, classify.processor.crop_size) == (4, 32)
    stock = XCLIPProcessor(VideoMAEImageProcessorPil(), processor_of("xclip").tokenizer)
    assert type(pipeline(TASK, model=str(tmp_path), processor=stock).processor) is VideoTextProcessor


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_plain_clip_is_the_mean_over_frames(dtype: torch.dtype, clips: list[Path], tmp_path: Path) -> None:
    clip = tiny_clip(tiny_clip_config(vocab_size=len(small_tokenizer(LABELS)), max_tokens=77))
    clip.save_pretrained(tmp_path)
    small_tokenizer(LABELS).save_pretrained(tmp_path)
    classify = pipeline(TASK, model=str(tmp_path), dtype=dtype)
    assert classify.dtype == dtype
    model, processor = kinetext.VideoCLIPModel.from_clip(clip).eval(), VideoTextProcessor.from_pretrained(tmp_path)
    scores = expected(model, processor, clips[0])
    error = 1e-6 if dtype == torch.float32 else 0.05
    assert as_dict(classify(clips[0], LABELS)) == pytest.approx(scores, abs=error)


def test_templates_average_probabilities(classify: Any, clips: list[Path]) -> None:
    templates = ["{}", "a video of {}", "someone does {}"]
    each = [as_dict(classify(clips[0], LABELS, template=template)) for template in templates]
    assert len({one["wave"] for one in each}) == 3
    mean = {label: sum(one[label] for one in each) / 3 for label in LABELS}
    assert as_dict(classify(clips[0], LABELS, templates=templates)) == pytest.approx(mean, abs=1e-6)


def test_descriptions_are_taken_by_the_name_of_a_set(clips: list[Path]) -> None:
    names = ["wave1", "jack", "run"]
    texts = load_descriptions("weizmann").for_classes(names)
    tokenizer = small_tokenizer([*names, *(text for each in texts for text in each)])
    model = tiny_moted(num_frames=4, vocab_size=len(tokenizer), max_tokens=77)
    processor = VideoTextProcessor(tokenizer, num_frames=4, crop_size=32, motion_frame_ratio=2)
    classify = pipeline(TASK, model=model, processor=processor)
    by_name = classify(clips[0], names, descriptions="weizmann")
    assert_same(by_name, classify(clips[0], names, descriptions=texts))
    assert as_dict(by_name) != pytest.approx(as_dict(classify(clips[0], names)), abs=1e-4)
    every = ["{}", "a video of {}"]
    each = [as_dict(classify(clips[0], names, descriptions=texts, template=template)) for template in every]
    mean = {name: (each[0][name] + each[1][name]) / 2 for name in names}
    ensemble = as_dict(classify(clips[0], names, descriptions=texts, templates=every))
    assert ensemble == pytest.approx(mean, abs=1e-6)


def test_labels_are_a_list_or_one_text(classify: Any, clips: list[Path]) -> None:
    for labels in ("wave, jump ,run", tuple(LABELS)):
        assert_same(classify(clips[0], labels), classify(clips[0], LABELS))
    with_comma = classify(clips[0], 'wave, "jump, high"')
    assert {entry["label"] for entry in with_comma} == {"wave", "jump, high"}


def test_settings_given_first_are_the_default_of_later_calls(folders: Callable[[str], Path], clips: list[Path]) -> None:
    classify = pipeline(TASK, model=str(folders("xclip")), candidate_labels=LABELS, top_k=2, views="2x1")
    assert_same(classify(clips[0]), pipeline(TASK, model=str(folders("xclip")))(clips[0], LABELS, views="2x1")[:2])
    assert len(classify(clips[0], top_k=1)) == 1
    assert classify(clips[0], views="1x1")[0]["score"] != pytest.approx(classify(clips[0])[0]["score"], abs=1e-4)


def test_labels_are_any_texts_one_after_the_other(classify: Any, clips: list[Path]) -> None:
    scores = classify(clips[0], LABELS)
    for labels in (np.array(LABELS), dict.fromkeys(LABELS).keys(), iter(LABELS)):
        assert_same(classify(clips[0], labels), scores)
    assert all(type(entry["label"]) is str for entry in classify(clips[0], np.array(LABELS)))


def test_descriptions_of_the_first_labels_are_not_those_of_others(
    folders: Callable[[str], Path], clips: list[Path]
) -> None:
    model = str(folders("moted"))
    classify = pipeline(TASK, model=model, candidate_labels=LABELS, descriptions=MOVES)
    scores = pipeline(TASK, model=model)(clips[0], LABELS, descriptions=MOVES)
    assert_same(classify(clips[0]), scores)
    assert_same(classify(clips[0], "wave, jump, run"), scores)
    assert_same(classify(clips[0], LABELS[::-1], descriptions=MOVES[::-1]), scores)
    assert_same(classify(clips[0], descriptions=MOVES), scores)
    for made in (classify, pipeline(TASK, model=model, descriptions=MOVES)):
        with pytest.raises(ValueError, match="pass descriptions in the order of these labels"):
            made(clips[0], LABELS[::-1])


def test_half_precision_gives_nearly_the_same(family: str, folders: Callable[[str], Path], clips: list[Path]) -> None:
    whole = pipeline(TASK, model=str(folders(family)))
    half = pipeline(TASK, model=str(folders(family)), dtype=torch.bfloat16)
    assert half.dtype == torch.bfloat16
    assert as_dict(half(clips[0], LABELS)) == pytest.approx(as_dict(whole(clips[0], LABELS)), abs=0.05)


# Zero-shot: inputs --------------------------------------------------------------------------------------------------


def test_every_kind_of_video_gives_the_same_scores(classify: Any, clips: list[Path]) -> None:
    frames = load_video(clips[0]).frames  # (T, H, W, 3)
    pictures = [Image.fromarray(frame.numpy()) for frame in frames]
    scores = classify(str(clips[0]), LABELS)
    content = clips[0].read_bytes()
    kinds = [clips[0], content, io.BytesIO(content), frames, frames.numpy(), pictures, list(frames), {"bytes": content}]
    for video in kinds:
        assert_same(classify(video, LABELS), scores)
    assert_same(classify([str(clips[0]), content, frames, pictures], LABELS), [scores] * 4)
    assert_same(classify(np.stack([frames, frames]), LABELS), [scores] * 2)
    assert_same(classify([str(clips[0])], LABELS), [scores])


def test_a_column_of_datasets_is_a_list_of_videos(classify: Any, clips: list[Path]) -> None:
    column = Dataset.from_dict({"video": [str(clip) for clip in clips[:2]]})["video"]
    assert not isinstance(column, list)
    assert_same(classify(column, LABELS), [classify(clip, LABELS) for clip in clips[:2]])


def test_generators_and_data_sets_answer_one_by_one(classify: Any, clips: list[Path]) -> None:
    scores = classify([str(clip) for clip in clips], LABELS)
    stream = classify((str(clip) for clip in clips), LABELS)
    assert not isinstance(stream, list)
    assert_same(list(stream), scores)

    class Clips(torch.utils.data.Dataset):
        def __len__(self) -> int:
            return len(clips)

        def __getitem__(self, index: int) -> str:
            return str(clips[index])

    answers = classify(Clips(), LABELS, batch_size=2)
    assert not isinstance(answers, list)
    assert_same(list(answers), scores)


@pytest.mark.parametrize("sampling", ["segments", "all"])
@pytest.mark.parametrize("batch_size", [3, 8])
def test_batching_changes_nothing(family: str, sampling: str, batch_size: int, clips: list[Path]) -> None:
    classify = pipeline(TASK, model=over_texts(family), processor=processor_of(family, sampling=sampling))
    settings = {"descriptions": MOVES} if family == "moted" else {}
    one_by_one = [classify(clip, LABELS, **settings) for clip in clips]
    assert_same(classify(clips, LABELS, batch_size=batch_size, **settings), one_by_one)
    assert len({round(as_dict(answer)["wave"], 4) for answer in one_by_one}) == len(clips)


def test_views_are_kept_apart_in_a_batch(classify: Any, clips: list[Path]) -> None:
    alone = [classify(clip, LABELS, views="2x3") for clip in clips[:3]]
    assert_same(classify(clips[:3], LABELS, views="2x3", batch_size=2), alone)


def test_workers_decode(classify: Any, clips: list[Path]) -> None:
    names = [str(clip) for clip in clips]
    assert_same(classify(names, LABELS, num_workers=2), classify(names, LABELS))


def test_class_texts_are_encoded_once(
    folders: Callable[[str], Path], clips: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    classify = pipeline(TASK, model=str(folders("xclip")))
    calls = []
    encode = classify.model.encode_texts
    monkeypatch.setattr(classify.model, "encode_texts", lambda *a, **k: calls.append(k["names"]) or encode(*a, **k))
    classify(clips, LABELS)
    classify(clips[0], "wave,jump,run", batch_size=2)
    assert calls == [tuple(LABELS)]
    first = as_dict(classify(clips[0], LABELS))
    classify(clips[0], LABELS[:2])
    assert len(calls) == 2
    with torch.no_grad():
        classify.model.text_projection.weight.add_(0.5)
    assert as_dict(classify(clips[0], LABELS)) != pytest.approx(first, abs=1e-5)
    assert len(calls) == 3


def test_class_texts_are_encoded_again_with_another_processor(
    folders: Callable[[str], Path], clips: list[Path]
) -> None:
    classify = pipeline(TASK, model=str(folders("xclip")))
    plain, framed = (classify(clips[0], LABELS, template=template) for template in ("{}", "a video of {}"))
    classify(clips[0], LABELS)
    classify.processor.template = "a video of {}"
    assert_same(classify(clips[0], LABELS), framed)
    classify.processor = VideoTextProcessor(small_tokenizer(LABELS[:1]), num_frames=4, crop_size=32, template="{}")
    assert as_dict(classify(clips[0], LABELS)) != pytest.approx(as_dict(plain), abs=1e-5)


# Zero-shot: what is refused -----------------------------------------------------------------------------------------


def test_a_video_that_cannot_be_read_is_named(classify: Any, clips: list[Path], tmp_path: Path) -> None:
    (tmp_path / "broken.mp4").write_bytes(b"this is no video")
    with pytest.raises(VideoDecodeError, match="broken.mp4"):
        classify([str(clips[0]), str(tmp_path / "broken.mp4")], LABELS, batch_size=2)
    with pytest.raises(FileNotFoundError, match="missing.mp4"):
        classify(str(tmp_path / "missing.mp4"), LABELS)


REFUSED = [
    (
        {"candidate_label": LABELS},
        TypeError,
        "got an unexpected keyword argument 'candidate_label'; it takes num_frames",
    ),
    ({"hypothesis_template": "{}"}, TypeError, "got an unexpected keyword argument 'hypothesis_template'"),
    ({"candidate_labels": None}, ValueError, "candidate_labels are missing; say which classes there may be"),
    ({"candidate_labels": []}, ValueError, "labels [] hold an empty name, or none at all; name the classes."),
    ({"candidate_labels": "wave,,run"}, ValueError, "labels ['wave', '', 'run'] hold an empty name"),
    ({"candidate_labels": ["a", "a"]}, ValueError, "labels name a class twice: ['a', 'a']; its score would be split."),
    ({"candidate_labels": [1, 2]}, TypeError, "labels=[1, 2] are no list of texts"),
    (
        {"candidate_labels": 'wave, "run, jump'},
        ValueError,
        "cannot be told apart at the commas: unexpected end of data",
    ),
    ({"candidate_labels": 5}, TypeError, "labels=5 are no list of texts"),
    ({"views": (4, 3)}, TypeError, 'views=(4, 3) is no text; write clips x crops, e.g. "4x3".'),
    ({"top_k": 1.0}, ValueError, "top_k=1.0 must be a whole number of at least 1."),
    ({"temperature": 1e-320}, ValueError, "is too low: logits divided by it are no numbers any more."),
    ({"views": "4x2"}, ValueError, "views='4x2' is not understood; write clips x crops"),
    ({"top_k": 0}, ValueError, "top_k=0 must be a whole number of at least 1."),
    ({"temperature": 0}, ValueError, "temperature=0 must be a positive number; 1 leaves the scores as they are."),
    ({"temperature": math.nan}, ValueError, "temperature=nan must be a positive number"),
    ({"abstain": 1.5}, ValueError, "abstain=1.5 must be a score from 0 to 1; clips whose best is below get no label."),
    ({"abstain": True}, ValueError, "abstain=True takes the threshold of a calibration, and there is none"),
    ({"template": "no place"}, ValueError, "template='no place' has no place for the class name"),
    ({"templates": ["{}", "no place"]}, ValueError, "template='no place' has no place for the class name"),
    ({"templates": []}, ValueError, "pass one template, or a list of at least one as templates."),
    ({"templates": "{}"}, ValueError, "pass one template, or a list of at least one as templates."),
    ({"templates": ["{}"], "template": "{}"}, ValueError, "pass one template, or a list of at least one"),
    ({"descriptions": MOVES}, ValueError, "this xclip reads class names only; leave the descriptions out."),
]


@pytest.mark.parametrize(("settings", "error", "message"), REFUSED, ids=lambda value: str(value)[:40])
def test_a_wrong_setting_is_refused_before_a_video_is_read(
    settings: dict[str, Any], error: type[Exception], message: str, classify: Any
) -> None:
    with pytest.raises(error, match=re.escape(message)):
        classify("there is no such file.mp4", **{"candidate_labels": LABELS, **settings})


def test_a_wrong_setting_is_refused_when_the_pipeline_is_made(folders: Callable[[str], Path]) -> None:
    with pytest.raises(TypeError, match="unexpected keyword argument 'colour'"):
        pipeline(TASK, model=str(folders("xclip")), colour="red")
    with pytest.raises(TypeError, match="unexpected keyword argument 'function_to_apply'"):
        pipeline(TASK, model=str(folders("xclip")), function_to_apply="softmax")


def test_other_models_are_refused(classifying: Path, folders: Callable[[str], Path], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=re.escape('own 6 classes, without a text tower; use pipeline("video-class')):
        pipeline(TASK, model=str(classifying))
    with pytest.raises(ValueError, match="without a text tower"):
        pipeline(TASK, model=classifier("xclip"), processor=processor_of("xclip"))
    stock = StockXCLIPModel.from_pretrained(folders("xclip"))
    with pytest.raises(ValueError, match="XCLIPModel reads no class texts as kinetext's models do"):
        pipeline(TASK, model=stock, processor=processor_of("xclip"))
    with pytest.raises(ValueError, match=r"motion_frame_ratio=1, the moted model takes 2"):
        pipeline(TASK, model=over_texts("moted"), processor=processor_of("xclip"))
    with pytest.raises(ValueError, match=r"a model that was not loaded from a folder needs processor="):
        pipeline(TASK, model=over_texts("xclip"))
    model = over_texts("xclip")
    weights = {name: value for name, value in model.state_dict().items() if name != "text_projection.weight"}
    model.save_pretrained(tmp_path, state_dict=weights)
    processor_of("xclip").save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"lacks 1 weights of its model, such as text_projection.weight"):
        pipeline(TASK, model=str(tmp_path))


# Calibration and abstention -----------------------------------------------------------------------------------------


def with_calibration(folder: Path, tmp_path: Path, **fields: Any) -> str:
    """A copy of a saved model with a calibration beside it."""
    for path in folder.iterdir():
        (tmp_path / path.name).symlink_to(path)
    Calibration(**fields).save(tmp_path)
    return str(tmp_path)


def test_temperature_divides_the_logits(classify: Any, clips: list[Path]) -> None:
    scores = as_dict(classify(clips[0], LABELS))
    scaled = {label: score ** (1 / 3) for label, score in scores.items()}
    total = sum(scaled.values())
    wanted = {label: score / total for label, score in scaled.items()}
    assert as_dict(classify(clips[0], LABELS, temperature=3)) == pytest.approx(wanted, abs=1e-6)
    assert as_dict(classify(clips[0], LABELS, temperature=1)) == pytest.approx(scores, abs=1e-6)


def test_a_calibration_beside_the_model_is_used(
    classify: Any, folders: Callable[[str], Path], clips: list[Path], tmp_path: Path
) -> None:
    folder = with_calibration(folders("xclip"), tmp_path, temperature=3.0, threshold=0.6)
    calibrated = pipeline(TASK, model=folder)
    at_three = classify(clips[0], LABELS, temperature=3)
    assert_same(calibrated(clips[0], LABELS), at_three)
    assert_same(calibrated(clips[0], LABELS, temperature=1), classify(clips[0], LABELS))
    assert_same(pipeline(TASK, model=folder, calibration=False)(clips[0], LABELS), classify(clips[0], LABELS))
    plain = str(folders("xclip"))
    for source in (folder, f"{folder}/calibration.json", Calibration(3.0, 0.6)):
        assert_same(pipeline(TASK, model=plain, calibration=source)(clips[0], LABELS), at_three)
    with pytest.raises(FileNotFoundError, match=r"there is no calibration at .*calibration.json; `kinetext calibrate"):
        pipeline(TASK, model=plain, calibration=plain)
    with pytest.raises(
        ValueError, match=r"abstain=True takes the threshold that was fitted at temperature 3; with temp"
    ):
        calibrated(clips[0], LABELS, temperature=1, abstain=True)


def test_an_answer_that_abstains_begins_without_a_label(classify: Any, clips: list[Path]) -> None:
    scores = classify(clips[0], LABELS)
    best = scores[0]["score"]
    silent = {"score": best, "label": None}
    assert_same(classify(clips[0], LABELS, abstain=best - 1e-6), scores)
    assert_same(classify(clips[0], LABELS, abstain=best + 1e-6), [silent, *scores])
    assert_same(classify(clips[0], LABELS, abstain=1.0, top_k=1), [silent, scores[0]])
    assert_same(classify(clips[0], LABELS, abstain=False), scores)
    numbers = {"abstain": np.float32(1), "top_k": np.int64(1), "temperature": np.float32(1)}
    assert_same(classify(clips[0], LABELS, **numbers), [silent, scores[0]])


def test_the_threshold_of_the_calibration_is_that_of_abstain_true(
    folders: Callable[[str], Path], clips: list[Path], tmp_path: Path
) -> None:
    plain = pipeline(TASK, model=str(folders("xclip")))
    scores = plain(clips, LABELS, temperature=2)
    best = sorted(answer[0]["score"] for answer in scores)
    threshold = (best[1] + best[2]) / 2
    folder = with_calibration(folders("xclip"), tmp_path, temperature=2.0, threshold=threshold)
    classify = pipeline(TASK, model=folder)
    assert all(answer[0]["label"] is not None for answer in classify(clips, LABELS))
    answers = classify(clips, LABELS, abstain=True)
    assert [answer[0]["label"] is None for answer in answers] == [answer[0]["score"] < threshold for answer in scores]
    assert sum(answer[0]["label"] is None for answer in answers) == 2


def test_a_saved_pipeline_is_whole(folders: Callable[[str], Path], clips: list[Path], tmp_path: Path) -> None:
    first = pipeline(TASK, model=str(folders("moted")), calibration=Calibration(3.0))
    first.save_pretrained(tmp_path)
    assert_same(pipeline(TASK, model=str(tmp_path))(clips[0], LABELS), first(clips[0], LABELS))
    plain = pipeline(TASK, model=str(folders("moted")))
    plain.save_pretrained(tmp_path)
    assert_same(pipeline(TASK, model=str(tmp_path))(clips[0], LABELS), plain(clips[0], LABELS))


def test_a_calibration_of_other_weights_is_not_applied(
    folders: Callable[[str], Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    foreign = {"model": {"name": "another", "weights_sha256": "ab" * 32}}
    folder = with_calibration(folders("xclip"), tmp_path, temperature=3.0, fitted_on=foreign)
    assert pipeline(TASK, model=folder).calibration == Calibration()
    assert "is not used: the calibration was fitted on weights abababababab, the model has" in caplog.text
    for source in (folder, True, Calibration(3.0, None, foreign)):
        with pytest.raises(ValueError, match="the temperature of one model does not fit another"):
            pipeline(TASK, model=folder, calibration=source)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_calibration_of_these_weights_is_applied_in_any_precision(
    dtype: torch.dtype, folders: Callable[[str], Path], tmp_path: Path
) -> None:
    facts = model_facts("mine", "xclip", over_texts("xclip").state_dict())
    folder = with_calibration(folders("xclip"), tmp_path, temperature=3.0, fitted_on={"model": facts})
    assert pipeline(TASK, model=folder, dtype=dtype, calibration=True).calibration.temperature == 3
    changed = kinetext.XCLIPModel.from_pretrained(folder, dtype=dtype)
    with torch.no_grad():
        changed.text_projection.weight.add_(1)
    with pytest.raises(ValueError, match="the temperature of one model does not fit another"):
        pipeline(TASK, model=changed, processor=processor_of("xclip"), calibration=True)


@pytest.mark.parametrize("source", [{"temperature": 2}, 2.0, 1])
def test_what_is_no_calibration_is_refused(source: Any, folders: Callable[[str], Path]) -> None:
    with pytest.raises(TypeError, match=r"is no path, Calibration, True, False or None; try Calibration\(2.0\)"):
        pipeline(TASK, model=str(folders("xclip")), calibration=source)


# Classifiers --------------------------------------------------------------------------------------------------------


def classified(folder: Path, clip: Any, **options: Any) -> dict[str, float]:
    model = (
        kinetext.XCLIPForVideoClassification if "xclip" in folder.name else kinetext.VideoCLIPForVideoClassification
    ).from_pretrained(folder)
    processor = VideoTextProcessor.from_pretrained(folder)
    with torch.inference_mode():
        pixel_values = processor(videos=clip, **options)["pixel_values"].flatten(0, -5)
        scores = model(pixel_values=pixel_values).logits.softmax(dim=-1).mean(dim=0)
    return dict(zip(NAMES.values(), scores.tolist(), strict=True))


def test_a_classifier_scores_as_model_and_processor(classifying: Path, clips: list[Path]) -> None:
    classify = pipeline("video-classification", model=str(classifying))
    assert type(classify) is VideoClassifierPipeline
    scores = classified(classifying, clips[2])
    assert as_dict(classify(str(clips[2]), top_k=6)) == pytest.approx(scores, abs=1e-6)
    assert [entry["label"] for entry in classify(str(clips[2]))] == sorted(NAMES.values(), key=lambda n: -scores[n])[:5]
    more = {"num_frames": 6}
    assert as_dict(classify(clips[2], top_k=6, views="2x3", **more)) == pytest.approx(
        classified(classifying, clips[2], num_clips=2, num_crops=3, **more), abs=1e-6
    )
    both = classify([clips[2], clips[0]], batch_size=2, top_k=6)
    for answer, clip in zip(both, (clips[2], clips[0]), strict=True):
        assert as_dict(answer) == pytest.approx(classified(classifying, clip), abs=1e-5)


def test_a_classifier_sees_the_whole_video(classifying: Path, tmp_path: Path) -> None:
    frames = load_video(render_clip(tmp_path / "a.mp4", 40)).frames
    changed = frames.clone()
    changed[20:] = 255 - changed[20:]
    classify = pipeline("video-classification", model=str(classifying))
    assert as_dict(classify(frames)) != pytest.approx(as_dict(classify(changed)), abs=1e-4)


def test_a_classifier_abstains_and_applies_a_sigmoid(classifying: Path, clips: list[Path]) -> None:
    classify = pipeline("video-classification", model=str(classifying), calibration=Calibration(2.0, 1.0))
    assert classify(clips[0], abstain=True)[0]["label"] is None
    apart = as_dict(classify(clips[0], top_k=6, function_to_apply="sigmoid"))
    ratios = {label: math.log(score / (1 - score)) for label, score in apart.items()}  # the logits
    total = sum(math.exp(logit) for logit in ratios.values())
    together = {label: math.exp(logit) / total for label, logit in ratios.items()}
    assert together == pytest.approx(classified(classifying, clips[0]), abs=1e-5)
    with pytest.raises(ValueError, match="temperature and abstain=True are of softmax; leave them out with sigmoid"):
        classify(clips[0], function_to_apply="sigmoid", temperature=2)
    with pytest.raises(ValueError, match=re.escape("function_to_apply='none' is unknown; choose \"softmax\" or")):
        classify(clips[0], function_to_apply="none")
    with pytest.raises(TypeError, match="unexpected keyword argument 'frame_sampling_rate'"):
        classify(clips[0], frame_sampling_rate=2)


def test_classes_have_the_order_of_their_ids(clips: list[Path], tmp_path: Path) -> None:
    names = {index: f"class {index}" for index in range(12)}
    config = tiny_config(id2label=names, label2id={name: index for index, name in names.items()})
    model = kinetext.XCLIPForVideoClassification(config).eval()
    scatter_weights(model)
    model.save_pretrained(tmp_path)
    processor = processor_of("xclip")
    processor.save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "config.json").read_text())
    saved["id2label"] = dict(sorted(saved["id2label"].items()))  # 0, 1, 10, 11, 2, as other programs save it
    (tmp_path / "config.json").write_text(json.dumps(saved))
    classify = pipeline("video-classification", model=str(tmp_path))
    assert list(classify.model.config.id2label) != list(names)
    assert class_names_of(classify.model.config) == list(names.values())
    with torch.inference_mode():
        scores = model(**processor(videos=clips[0])).logits.softmax(dim=-1)[0].tolist()
    wanted = dict(zip(names.values(), scores, strict=True))
    assert as_dict(classify(clips[0], top_k=12)) == pytest.approx(wanted, abs=1e-6)
    classify.model.config.id2label = {0: "a", 2: "c"}
    with pytest.raises(ValueError, match=re.escape("id2label names the classes [0, 2]; 2 classes have the ids [0, 1]")):
        classify(clips[0])


def test_a_loaded_classifier_is_taken_too(classifying: Path, clips: list[Path]) -> None:
    scores = pipeline("video-classification", model=str(classifying))(clips[0])
    loaded = pipeline("video-classification", model=str(classifying)).model
    assert_same(pipeline("video-classification", model=loaded)(clips[0]), scores)
    family = "xclip" if "xclip" in classifying.name else "video_clip"
    processor = processor_of(family, sampling="uniform")
    given = pipeline("video-classification", model=classifier(family), processor=processor)
    assert_same(given(clips[0]), scores)


def test_a_model_over_texts_is_no_classifier(folders: Callable[[str], Path]) -> None:
    with pytest.raises(ValueError, match=r"has no trained classes of its own; use pipeline\(\"zero-shot-video-class"):
        pipeline("video-classification", model=str(folders("xclip")))


@pytest.fixture
def other_model(tmp_path: Path) -> Path:
    """A video classifier of transformers."""
    config = VideoMAEConfig(
        image_size=32,
        patch_size=16,
        num_frames=4,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        id2label={0: "yes", 1: "no"},
        label2id={"yes": 0, "no": 1},
    )
    VideoMAEForVideoClassification(config).save_pretrained(tmp_path)
    size = {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}}
    VideoMAEImageProcessorPil(**size).save_pretrained(tmp_path)
    return tmp_path


def test_other_classifiers_keep_the_pipeline_of_transformers(other_model: Path, clips: list[Path]) -> None:
    classify = pipeline("video-classification", model=str(other_model))
    assert type(classify) is VideoClassificationPipeline
    direct = VideoClassificationPipeline(
        model=classify.model, image_processor=classify.image_processor, task="video-classification"
    )
    assert classify(str(clips[0])) == direct(str(clips[0]))


# Registration -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "imports",
    ["import kinetext\nfrom transformers import pipeline", "from transformers import pipeline\nimport kinetext"],
)
def test_a_program_that_imports_kinetext_has_both_tasks(
    imports: str, classify: Any, folders: Callable[[str], Path], clips: list[Path], tmp_path: Path
) -> None:
    classifier("xclip").save_pretrained(tmp_path)
    processor_of("xclip").save_pretrained(tmp_path)
    program = f"""{imports}
import json, sys
assert "kinetext.pipelines" not in sys.modules
zero_shot = pipeline("zero-shot-video-classification", model={str(folders("xclip"))!r}, trust_remote_code=True)
classifier = pipeline("video-classification", model={str(tmp_path)!r})
print(json.dumps([zero_shot({str(clips[0])!r}, {LABELS!r}), classifier({str(clips[0])!r})]))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    over_labels, over_classes = json.loads(done.stdout)
    assert_same(over_labels, classify(clips[0], LABELS))
    assert_same(over_classes, pipeline("video-classification", model=str(tmp_path))(clips[0]))


LOOKED_UP = """
import importlib.util
assert importlib.util.find_spec("transformers.pipelines") is not None
assert importlib.util.find_spec("transformers.models.auto.modeling_auto") is not None
"""
FAILED = """
sys.modules["transformers.pipelines.base"] = None
try:
    import transformers.pipelines
    raise SystemExit("it was to fail")
except ImportError:
    del sys.modules["transformers.pipelines.base"]
"""


@pytest.mark.parametrize("before", [LOOKED_UP, FAILED, LOOKED_UP + FAILED], ids=["looked up", "failed", "both"])
def test_registration_outlasts_a_look_and_a_failed_import(before: str) -> None:
    program = f"""import sys, kinetext
{before}
from transformers.pipelines import PIPELINE_REGISTRY
from transformers import AutoModel
tasks = PIPELINE_REGISTRY.supported_tasks
assert "zero-shot-video-classification" in tasks
assert tasks["video-classification"]["impl"].startswith("kinetext.")
assert kinetext.XCLIPConfig in AutoModel._model_mapping
assert not [finder for finder in sys.meta_path if getattr(finder, "module_name", "") == "transformers.pipelines"]
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr


def test_without_a_model_the_task_asks_for_one() -> None:
    with pytest.raises(ValueError, match="default"):
        pipeline(TASK)
