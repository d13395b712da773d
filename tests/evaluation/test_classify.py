"""Single clips: their probabilities, how checkpoints are loaded, and the picture that is drawn of them."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from rendered_clips import render_clip
from testing_utils import tiny_clip, tiny_clip_config, tiny_config, tiny_model, tiny_moted
from transformers import ViTConfig, ViTModel
from transformers import XCLIPModel as StockXCLIPModel

from kinetext import (
    MotedModel,
    VideoDecodeError,
    VideoFrames,
    VideoTextProcessor,
    XCLIPForVideoClassification,
    XCLIPModel,
    load_video,
)
from kinetext.data.small_tokenizer import small_tokenizer
from kinetext.evaluation.class_texts import encode_class_texts
from kinetext.evaluation.classify import Classification, classify_clips, load_model
from kinetext.evaluation.contact_sheet import draw_contact_sheet
from kinetext.evaluation.drawing import fitted, font

LABELS = ("wave", "jump", "run")


@pytest.fixture(scope="module")
def processor() -> VideoTextProcessor:
    return VideoTextProcessor(small_tokenizer(LABELS), num_frames=4, crop_size=32)


@pytest.fixture(scope="module")
def model(processor: VideoTextProcessor) -> XCLIPModel:
    return tiny_model(num_frames=4, text={"vocab_size": len(processor.tokenizer), "max_position_embeddings": 77})


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return render_clip(tmp_path_factory.mktemp("clips") / "a.mp4", 20)


# --------------------------------------------------------------------------------------------------- probabilities


@pytest.mark.parametrize("template", [None, "a video of {}"])
def test_scores_are_those_of_the_forward_by_hand(
    template: str | None, clip: Path, model: XCLIPModel, processor: VideoTextProcessor
) -> None:
    (result,) = classify_clips(model, processor, [str(clip)], LABELS, template=template)
    with torch.no_grad():
        logits = model(**processor(videos=clip, text=LABELS, template=template)).logits_per_video[0]
    assert result.name == str(clip) and result.labels == LABELS
    assert sum(result.scores) == pytest.approx(1, abs=1e-6)
    assert result.scores == pytest.approx(logits.softmax(-1).tolist(), abs=1e-6)
    assert result.frames.indices == [2, 7, 12, 17]
    assert torch.equal(result.frames.frames, load_video(clip).frames[[2, 7, 12, 17]])


@pytest.mark.parametrize("sampling", ["uniform", "dense", "all"])
def test_scores_follow_the_sampling_of_the_processor(sampling: str, clip: Path, model: XCLIPModel) -> None:
    processor = VideoTextProcessor(small_tokenizer(LABELS), num_frames=4, sampling=sampling, stride=2, crop_size=32)
    (result,) = classify_clips(model, processor, [str(clip)], LABELS)
    with torch.no_grad():
        logits = model(**processor(videos=clip, text=LABELS)).logits_per_video[0]
    assert result.scores == pytest.approx(logits.softmax(-1).tolist(), abs=1e-6)


MOVES = [["a hand goes left and right"], ["both feet leave the ground", "it goes up and down"], ["legs alternate"]]


@pytest.fixture(scope="module")
def moted(processor: VideoTextProcessor) -> MotedModel:
    return tiny_moted(num_frames=4, vocab_size=len(processor.tokenizer), max_tokens=77)


@pytest.mark.parametrize("sampling", ["segments", "dense", "all"])
def test_scores_of_moted_are_those_of_the_forward_by_hand(sampling: str, clip: Path, moted: MotedModel) -> None:
    processor = VideoTextProcessor(
        small_tokenizer(LABELS), num_frames=4, sampling=sampling, crop_size=32, motion_frame_ratio=2
    )
    (result,) = classify_clips(moted, processor, [str(clip)], LABELS, descriptions=MOVES)
    with torch.no_grad():
        logits = moted(**processor(videos=clip, text=LABELS, descriptions=MOVES)).logits_per_video[0]
    assert result.scores == pytest.approx(logits.softmax(-1).tolist(), abs=1e-6)
    assert len(result.frames.indices) == (20 if sampling == "all" else 8)


def test_moted_without_descriptions_is_warned_of(
    clip: Path, moted: MotedModel, processor: VideoTextProcessor, caplog: pytest.LogCaptureFixture
) -> None:
    moving = VideoTextProcessor(processor.tokenizer, **{**processor.contract, "motion_frame_ratio": 2})
    with_them = classify_clips(moted, moving, [str(clip)], LABELS, descriptions=MOVES)[0].scores
    assert not caplog.records
    without = classify_clips(moted, moving, [str(clip)], LABELS)[0].scores
    assert [record.getMessage() for record in caplog.records] == [
        "this moted was made to read descriptions of the classes and gets none, so class names stand in for them; "
        "pass `descriptions`."
    ]
    assert without != pytest.approx(with_them, abs=1e-4)


def test_descriptions_for_a_model_that_reads_names_only_are_refused(
    clip: Path, model: XCLIPModel, processor: VideoTextProcessor
) -> None:
    message = "this xclip reads class names only; leave the descriptions out."
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        classify_clips(model, processor, [str(clip)], LABELS, descriptions=MOVES)


def test_each_clip_has_its_own_result(
    clip: Path, tmp_path: Path, model: XCLIPModel, processor: VideoTextProcessor
) -> None:
    other = render_clip(tmp_path / "b.mp4", 3)
    both = classify_clips(model, processor, [str(clip), str(other)], LABELS)
    alone = [classify_clips(model, processor, [str(path)], LABELS)[0] for path in (clip, other)]
    assert [result.scores for result in both] == [result.scores for result in alone]
    assert both[1].frames.indices == [0, 1, 1, 2]


def test_labels_are_ranked_by_score() -> None:
    frames = VideoFrames(torch.zeros(1, 2, 2, 3, dtype=torch.uint8), torch.zeros(1), 1.0, 0, [0], 1)
    result = Classification("a.mp4", ("x", "y", "z"), (0.2, 0.7, 0.1), frames)
    assert result.ranked() == [("y", 0.7), ("x", 0.2), ("z", 0.1)]


def test_a_clip_that_cannot_be_decoded_is_an_error(
    tmp_path: Path, model: XCLIPModel, processor: VideoTextProcessor
) -> None:
    (tmp_path / "broken.mp4").write_bytes(b"this is no video")
    with pytest.raises(VideoDecodeError, match="broken.mp4"):
        classify_clips(model, processor, [str(tmp_path / "broken.mp4")], LABELS)


def test_a_saved_model_is_loaded_ready_to_classify(
    clip: Path, tmp_path: Path, model: XCLIPModel, processor: VideoTextProcessor
) -> None:
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    loaded, its_processor = load_model(str(tmp_path))
    assert not loaded.training
    expected = classify_clips(model, processor, [str(clip)], LABELS)[0].scores
    assert classify_clips(loaded, its_processor, [str(clip)], LABELS)[0].scores == expected


def test_a_folder_of_stock_xclip_is_loaded_as_ours(
    clip: Path, tmp_path: Path, model: XCLIPModel, processor: VideoTextProcessor
) -> None:
    model.save_pretrained(tmp_path / "ours")
    StockXCLIPModel.from_pretrained(tmp_path / "ours").save_pretrained(tmp_path / "stock")
    processor.tokenizer.save_pretrained(tmp_path / "stock")
    loaded, its_processor = load_model(str(tmp_path / "stock"))
    assert isinstance(loaded, XCLIPModel) and isinstance(its_processor, VideoTextProcessor)
    assert (its_processor.num_frames, its_processor.crop_size) == (4, 32)
    expected = classify_clips(model, processor, [str(clip)], LABELS)[0].scores
    assert classify_clips(loaded, its_processor, [str(clip)], LABELS)[0].scores == pytest.approx(expected, abs=1e-6)


def test_a_model_of_another_kind_is_an_error(tmp_path: Path) -> None:
    tower = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    ViTModel(ViTConfig(**tower, image_size=32)).save_pretrained(tmp_path)
    message = f"{tmp_path} is a 'vit' model; a video-text model such as xclip is wanted."
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        load_model(str(tmp_path))


def test_a_plain_clip_is_loaded_as_its_mean_over_frames(
    clip: Path, tmp_path: Path, processor: VideoTextProcessor
) -> None:
    plain = tiny_clip(tiny_clip_config(vocab_size=len(processor.tokenizer), max_tokens=77))
    plain.save_pretrained(tmp_path)
    processor.tokenizer.save_pretrained(tmp_path)
    loaded, its_processor = load_model(str(tmp_path))
    (result,) = classify_clips(loaded, its_processor, [str(clip)], LABELS)
    inputs = its_processor(videos=clip, text=LABELS)
    with torch.no_grad():
        texts = plain.get_text_features(inputs["input_ids"], inputs["attention_mask"]).pooler_output
        frames = plain.get_image_features(inputs["pixel_values"][0]).pooler_output  # (T, C)
    video = frames.mean(dim=0) / frames.mean(dim=0).norm()
    logits = plain.logit_scale.exp() * (texts / texts.norm(dim=-1, keepdim=True)) @ video
    assert result.scores == pytest.approx(logits.softmax(-1).tolist(), abs=1e-5)


# ---------------------------------------------------------------------------------------------------- contact sheet


def classified(
    num_frames: int = 8,
    *,
    height: int = 96,
    width: int = 160,
    name: str = "clips/a.mp4",
    labels: tuple[str, ...] = LABELS,
    has_times: bool = True,
) -> Classification:
    frames = torch.full((num_frames, height, width, 3), 90, dtype=torch.uint8)
    times = torch.arange(num_frames, dtype=torch.float64) / 7 if has_times else torch.full((num_frames,), torch.nan)
    video = VideoFrames(frames, times, 7.0, 0, list(range(num_frames)), num_frames)
    scores = tuple(2.0 ** -min(place + 1, len(labels) - 1) for place in range(len(labels)))
    return Classification(name, labels, scores, video)


def ink_columns(picture: Image.Image) -> tuple[int, int]:
    """First and last column that is not white."""
    drawn = (np.asarray(picture.convert("RGB")) != 255).any(axis=(0, 2)).nonzero()[0]
    return int(drawn[0]), int(drawn[-1])


@pytest.mark.parametrize("num_frames", [1, 8, 32])
@pytest.mark.parametrize(("height", "width"), [(96, 160), (20, 2000), (2000, 20), (1, 1)], ids=str)
def test_the_picture_has_a_sensible_size_for_any_frames(
    num_frames: int, height: int, width: int, tmp_path: Path
) -> None:
    path = tmp_path / "deep/er/sheet.png"
    draw_contact_sheet([classified(num_frames, height=height, width=width)], path)
    with Image.open(path) as picture:
        assert picture.format == "PNG"
        assert 350 <= picture.width <= 1600 and 170 <= picture.height <= 1300
        first, last = ink_columns(picture)
        assert first >= 16 and last < picture.width - 16
    assert [file.name for file in path.parent.iterdir()] == ["sheet.png"]


def test_frames_keep_their_ratio_of_sides(tmp_path: Path) -> None:
    for height, width, expected in ((96, 160, (112, 187)), (20, 2000, (3, 300)), (300, 30, (112, 11))):
        draw_contact_sheet([classified(1, height=height, width=width)], tmp_path / "sheet.png")
        with Image.open(tmp_path / "sheet.png") as picture:
            is_frame = (np.asarray(picture) == 90).all(axis=2)
        rows, columns = is_frame.any(axis=1).nonzero()[0], is_frame.any(axis=0).nonzero()[0]
        assert (len(rows), len(columns)) == expected


def test_every_frame_of_every_clip_is_in_the_picture(tmp_path: Path) -> None:
    results = [classified(1), classified(9, has_times=False)]
    draw_contact_sheet(results, tmp_path / "sheet.png")
    with Image.open(tmp_path / "sheet.png") as picture:
        num_pixels = int((np.asarray(picture) == 90).all(axis=2).sum())
    assert num_pixels == 10 * 112 * 187


def test_long_names_and_labels_stay_inside_the_picture(tmp_path: Path) -> None:
    labels = tuple(f"{place} a very long description of what is seen " * 9 + "日本語" for place in range(7))
    draw_contact_sheet([classified(1)], tmp_path / "short.png")
    draw_contact_sheet([classified(1, labels=labels, name="n" * 230 + ".mp4")], tmp_path / "long.png")
    with Image.open(tmp_path / "short.png") as short, Image.open(tmp_path / "long.png") as long:
        assert long.width == short.width
        assert ink_columns(long)[1] < long.width - 16


def test_texts_are_shortened_to_their_place() -> None:
    small = font(13)
    assert fitted("short", 200, small) == "short"
    assert fitted("two\nlines", 200, small) == "two lines"
    cut = fitted("x" * 500, 200, small)
    assert cut.endswith("x…") and 180 < small.getlength(cut) <= 200
    assert fitted("caf\udce9.mp4", 200, small) == "caf?.mp4"


@pytest.mark.parametrize("name", ["sheet.mp4", "sheet.mpg", "sheet", "sheet.psd"])
def test_a_suffix_that_is_no_picture_is_refused(name: str, tmp_path: Path) -> None:
    message = f"{name!r} has no picture suffix; use for example .png."
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        draw_contact_sheet([classified()], tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_a_picture_of_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape('there are no clips to draw.')}$"):
        draw_contact_sheet([], tmp_path / "sheet.png")


@pytest.mark.parametrize("suffix", [".jpg", ".JPEG", ".webp", ".bmp"])
def test_other_picture_files_can_be_written(suffix: str, tmp_path: Path) -> None:
    draw_contact_sheet([classified(2)], tmp_path / f"sheet{suffix}")
    with Image.open(tmp_path / f"sheet{suffix}") as picture:
        assert picture.width > 300


def test_a_classifier_is_told_by_its_classes_in_order(processor: VideoTextProcessor) -> None:
    classifier = XCLIPForVideoClassification(tiny_config(id2label={1: "jump", 0: "run"}))
    with pytest.raises(ValueError, match=re.escape("reads no class texts: it tells apart ['run', 'jump']. Evaluate")):
        encode_class_texts(classifier, processor, LABELS)
