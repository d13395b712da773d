"""The processor: every kind of input, the shapes it gives, the contract it saves, and what it refuses."""

import io
import json
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from rendered_clips import render_clip
from testing_utils import tiny_model
from transformers import AutoProcessor, CLIPConfig, CLIPTokenizer, XCLIPConfig

from kinetext import MotedConfig, VideoDecodeError, VideoTextProcessor, load_video
from kinetext.data.small_tokenizer import small_tokenizer
from kinetext.processing.video_transforms import centre_crop, normalise, resize_short_side

NUM_FRAMES, SIZE = 4, 32
CLASS_NAMES = ["wave", "jump", "walk slowly"]


@pytest.fixture(scope="module")
def tokenizer() -> CLIPTokenizer:
    return small_tokenizer(CLASS_NAMES)


@pytest.fixture(scope="module")
def processor(tokenizer: CLIPTokenizer) -> VideoTextProcessor:
    return VideoTextProcessor(tokenizer, num_frames=NUM_FRAMES, crop_size=SIZE)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return render_clip(tmp_path_factory.mktemp("clips") / "a clip.mp4", 20)


@pytest.fixture(scope="module")
def frames(clip: Path) -> torch.Tensor:
    return load_video(clip).frames  # uint8 (T,H,W,3)


@pytest.fixture(scope="module")
def expected(frames: torch.Tensor, processor: VideoTextProcessor) -> torch.Tensor:
    """The pixel values of the clip, by the plain steps."""
    chosen = frames[[2, 7, 12, 17]].permute(0, 3, 1, 2)
    views = centre_crop(resize_short_side(chosen, processor.short_side), SIZE)
    return normalise(views, processor.image_mean, processor.image_std)[None]


def assert_equal(left: torch.Tensor, right: torch.Tensor) -> None:
    torch.testing.assert_close(left, right, rtol=0, atol=0)


def dataset_row(path: Path) -> Any:
    datasets = pytest.importorskip("datasets")
    dataset = datasets.Dataset.from_dict({"video": [str(path)]}).cast_column("video", datasets.Video(decode=False))
    return dataset[0]["video"]


def read_only(array: np.ndarray) -> np.ndarray:
    array = array.copy()
    array.setflags(write=False)
    return array


# name -> the same clip from (its path, its frames)
KINDS: dict[str, Callable[[Path, torch.Tensor], Any]] = {
    "path": lambda path, frames: str(path),
    "pathlib path": lambda path, frames: path,
    "file URL": lambda path, frames: path.as_uri(),
    "bytes": lambda path, frames: path.read_bytes(),
    "memoryview": lambda path, frames: memoryview(path.read_bytes()),
    "file object": lambda path, frames: io.BytesIO(path.read_bytes()),
    "uint8 array": lambda path, frames: frames.numpy(),
    "read-only array": lambda path, frames: read_only(frames.numpy()),
    "array with reversed channels": lambda path, frames: frames.numpy()[..., ::-1].copy()[..., ::-1],
    "uint8 tensor": lambda path, frames: frames,
    "float tensor": lambda path, frames: frames.float() / 255,
    "float64 array of the other byte order": lambda path, frames: (frames.numpy() / 255).astype(">f8"),
    "float tensor with gradient": lambda path, frames: (frames.float() / 255).requires_grad_(),
    "PIL images": lambda path, frames: [Image.fromarray(frame) for frame in frames.numpy()],
    "(H,W,3) arrays": lambda path, frames: list(frames.numpy()),
    "(H,W,3) arrays with reversed channels": lambda path, frames: list(frames.numpy()[..., ::-1].copy()[..., ::-1]),
    "(H,W,3) tensors": lambda path, frames: tuple(frames),
    "images and arrays": lambda path, frames: [Image.fromarray(frames[0].numpy()), *frames[1:].numpy()],
    "mapping with bytes": lambda path, frames: {"bytes": path.read_bytes(), "path": None},
    "mapping with path": lambda path, frames: {"bytes": None, "path": str(path)},
    "row of datasets": lambda path, frames: dataset_row(path),
}


# -------------------------------------------------------------------------------------------------- kinds of input


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_input_gives_the_same_pixel_values(
    kind: str, clip: Path, frames: torch.Tensor, processor: VideoTextProcessor, expected: torch.Tensor
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert_equal(processor(videos=KINDS[kind](clip, frames))["pixel_values"], expected)
        assert_equal(processor(videos=[KINDS[kind](clip, frames)])["pixel_values"], expected)


def test_kinds_can_be_mixed_in_a_list(
    clip: Path, frames: torch.Tensor, processor: VideoTextProcessor, expected: torch.Tensor
) -> None:
    videos = [make(clip, frames) for make in KINDS.values()]
    assert_equal(processor(videos=videos)["pixel_values"], expected.expand(len(KINDS), -1, -1, -1, -1))


@pytest.mark.parametrize("kind", [torch.Tensor, np.ndarray])
def test_an_array_of_five_axes_is_a_batch(
    kind: type, frames: torch.Tensor, processor: VideoTextProcessor, expected: torch.Tensor
) -> None:
    videos = torch.stack([frames, frames])
    batch = processor(videos=videos if kind is torch.Tensor else videos.numpy())
    assert_equal(batch["pixel_values"], expected.expand(2, -1, -1, -1, -1))


def test_both_decoders_give_the_same(clip: Path, processor: VideoTextProcessor, expected: torch.Tensor) -> None:
    pytest.importorskip("decord")
    assert_equal(processor(videos=clip, decoder="decord")["pixel_values"], expected)


def test_images_of_any_mode_become_rgb(processor: VideoTextProcessor) -> None:
    images = [Image.new("L", (40, 40), level) for level in (0, 80, 160, 240)]
    assert_equal(
        processor(videos=images)["pixel_values"],
        processor(videos=[image.convert("RGB") for image in images])["pixel_values"],
    )


def test_a_float_video_is_not_changed_in_place(frames: torch.Tensor, processor: VideoTextProcessor) -> None:
    video = frames.float() / 255
    before = video.clone()
    processor(videos=video)
    assert_equal(video, before)


# --------------------------------------------------------------------------------------------------------- shapes


@pytest.mark.parametrize(
    ("num_clips", "num_crops", "shape"),
    [
        (1, 1, (2, NUM_FRAMES, 3, SIZE, SIZE)),
        (2, 1, (2, 2, NUM_FRAMES, 3, SIZE, SIZE)),
        (1, 3, (2, 3, NUM_FRAMES, 3, SIZE, SIZE)),
        (2, 3, (2, 6, NUM_FRAMES, 3, SIZE, SIZE)),
    ],
)
def test_shapes_of_views(
    num_clips: int, num_crops: int, shape: tuple[int, ...], frames: torch.Tensor, processor: VideoTextProcessor
) -> None:
    batch = processor(videos=[frames, frames[:7]], num_clips=num_clips, num_crops=num_crops)
    assert batch["pixel_values"].shape == shape
    assert batch["pixel_values"].dtype == torch.float32
    assert set(batch) == {"pixel_values"}


def test_crops_are_outermost_in_the_order_of_views(processor: VideoTextProcessor) -> None:
    # Red counts the frames, green is the column of a wide video.
    video = torch.zeros(20, SIZE, 3 * SIZE, 3, dtype=torch.uint8)
    video[..., 0] = torch.arange(20, dtype=torch.uint8)[:, None, None]
    video[..., 1] = torch.arange(3 * SIZE, dtype=torch.uint8)
    views = processor(videos=video, num_clips=2, num_crops=3)["pixel_values"][0]  # (V,T,3,S,S)
    std, mean = (torch.tensor(values).view(3, 1, 1) for values in (processor.image_std, processor.image_mean))
    levels = ((views * std + mean) * 255).round().int()
    assert [(int(view[0, 0, 0, 0]), int(view[0, 1, 0, 0])) for view in levels] == [
        (1, 0),
        (3, 0),
        (1, SIZE),
        (3, SIZE),
        (1, 2 * SIZE),
        (3, 2 * SIZE),
    ]


@pytest.mark.parametrize("num_crops", [1, 3])
def test_all_frames_of_videos_of_different_lengths_are_padded_and_masked(
    num_crops: int, frames: torch.Tensor, processor: VideoTextProcessor
) -> None:
    batch = processor(videos=[frames[:3], frames[:5]], sampling="all", num_crops=num_crops)
    views = (num_crops,) if num_crops > 1 else ()
    assert batch["pixel_values"].shape == (2, *views, 5, 3, SIZE, SIZE)
    assert batch["frame_mask"].tolist() == [[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]]
    alone = processor(videos=frames[:3], sampling="all", num_crops=num_crops)
    assert set(alone) == {"pixel_values"}  # no mask where nothing is padded
    assert_equal(batch["pixel_values"][:1, ..., :3, :, :, :], alone["pixel_values"])
    assert not batch["pixel_values"][0, ..., 3:, :, :, :].any()


def test_arguments_of_a_call_replace_the_saved_ones(frames: torch.Tensor, processor: VideoTextProcessor) -> None:
    chosen = [
        ({}, [2, 7, 12, 17]),
        ({"num_frames": 2}, [5, 15]),
        ({"sampling": "uniform"}, [0, 6, 13, 19]),
        ({"sampling": "dense", "stride": 2}, [6, 8, 10, 12]),
        ({"sampling": "all"}, list(range(20))),
    ]
    for arguments, indices in chosen:
        (read,) = processor.read_clips(frames, **arguments)
        assert read.indices == indices
        assert_equal(read.frames, frames[indices])
    saved = VideoTextProcessor(num_frames=2, sampling="dense", stride=5)
    assert saved.read_clips(frames)[0].indices == [7, 12]
    assert saved.read_clips(frames, stride=1)[0].indices == [9, 10]


def test_clips_of_a_file_carry_their_times(clip: Path, processor: VideoTextProcessor) -> None:
    first, second = processor.read_clips(clip, num_clips=2)
    assert (first.indices, second.indices) == ([1, 6, 11, 16], [3, 8, 13, 18])
    assert second.timestamps.tolist() == pytest.approx([0.12, 0.32, 0.52, 0.72])
    assert (first.total_frames, first.fps) == (20, 25)


def test_a_generator_makes_the_frames_random_and_repeatable(
    frames: torch.Tensor, processor: VideoTextProcessor
) -> None:
    drawn = [
        processor.read_clips(frames, generator=torch.Generator().manual_seed(seed))[0].indices for seed in (1, 1, 2)
    ]
    assert drawn[0] == drawn[1] != drawn[2]


# -------------------------------------------------------------------------------------------------- motion frames


@pytest.fixture(scope="module")
def moving(tokenizer: CLIPTokenizer) -> VideoTextProcessor:
    return VideoTextProcessor(tokenizer, num_frames=NUM_FRAMES, crop_size=SIZE, motion_frame_ratio=2)


def test_motion_frames_stand_between_the_frames_of_a_call_without_them(
    clip: Path, moving: VideoTextProcessor, expected: torch.Tensor
) -> None:
    assert moving.read_clips(clip)[0].indices == [2, 4, 7, 9, 12, 14, 17, 19]
    pixel_values = moving(videos=clip)["pixel_values"]
    assert pixel_values.shape == (1, 2 * NUM_FRAMES, 3, SIZE, SIZE)
    assert_equal(pixel_values[:, ::2], expected)
    assert not torch.equal(pixel_values[:, 1::2], expected)


@pytest.mark.parametrize("num_crops", [1, 3])
@pytest.mark.parametrize("sampling", ["segments", "uniform", "dense"])
def test_views_with_motion_frames_hold_those_without(
    sampling: str, num_crops: int, frames: torch.Tensor, moving: VideoTextProcessor, processor: VideoTextProcessor
) -> None:
    options = {"sampling": sampling, "num_clips": 2, "num_crops": num_crops}
    pixel_values = moving(videos=[frames, frames[:5]], **options)["pixel_values"]
    assert pixel_values.shape == (2, 2 * num_crops, 2 * NUM_FRAMES, 3, SIZE, SIZE)
    assert_equal(pixel_values[:, :, ::2], processor(videos=[frames, frames[:5]], **options)["pixel_values"])


def test_all_frames_are_masked_by_their_number_with_the_last_one_repeated(
    frames: torch.Tensor, moving: VideoTextProcessor
) -> None:
    batch = moving(videos=[frames[:3], frames[:6]], sampling="all")
    assert batch["frame_mask"].tolist() == [[1, 1, 1, 1, 0, 0], [1] * 6]
    assert_equal(batch["pixel_values"][0, 2], batch["pixel_values"][0, 3])


def test_drawn_frames_are_the_same_with_motion_frames(
    clip: Path, moving: VideoTextProcessor, processor: VideoTextProcessor
) -> None:
    drawn, plain = (
        one.read_clips(clip, generator=torch.Generator().manual_seed(3))[0].frames for one in (moving, processor)
    )
    assert len(drawn) == 2 * NUM_FRAMES
    assert torch.equal(drawn[::2], plain)


@pytest.mark.parametrize("num_crops", [1, 3])
def test_chosen_frames_are_transformed_as_in_a_call(num_crops: int, clip: Path, moving: VideoTextProcessor) -> None:
    views = moving.transform(moving.read_clips(clip, num_clips=2), num_crops)
    assert_equal(views[None], moving(videos=clip, num_clips=2, num_crops=num_crops)["pixel_values"])


# ------------------------------------------------------------------------------------------------- saved contract

CONTRACT = {
    "num_frames": 6,
    "motion_frame_ratio": 2,
    "sampling": "dense",
    "stride": 3,
    "crop_size": 48,
    "short_side": 50,
    "interpolation": "bicubic",
    "image_mean": [0.1, 0.2, 0.3],
    "image_std": [0.4, 0.5, 0.6],
    "template": "a video of {}",
}


def test_the_contract_survives_saving(tmp_path: Path, tokenizer: CLIPTokenizer, frames: torch.Tensor) -> None:
    saved = VideoTextProcessor(tokenizer, **CONTRACT)
    saved.save_pretrained(tmp_path)
    for loaded in (AutoProcessor.from_pretrained(tmp_path), VideoTextProcessor.from_pretrained(tmp_path)):
        assert type(loaded) is VideoTextProcessor
        assert {name: getattr(loaded, name) for name in CONTRACT} == CONTRACT
        assert loaded.tokenizer_fingerprint == saved.tokenizer_fingerprint
        batch, wanted = (one(videos=frames, text=CLASS_NAMES) for one in (loaded, saved))
        assert set(batch) == set(wanted)
        for name in wanted:
            assert_equal(batch[name], wanted[name])
    written = json.loads((tmp_path / "processor_config.json").read_text())
    assert {name: written[name] for name in CONTRACT} == CONTRACT == saved.contract


def test_the_contract_survives_being_saved_twice(tmp_path: Path, processor: VideoTextProcessor) -> None:
    processor.save_pretrained(tmp_path / "once")
    AutoProcessor.from_pretrained(tmp_path / "once").save_pretrained(tmp_path / "twice")
    for file in ("processor_config.json", "tokenizer.json"):
        assert (tmp_path / "once" / file).read_text() == (tmp_path / "twice" / file).read_text()


def test_keywords_of_from_pretrained_replace_what_was_saved(tmp_path: Path, processor: VideoTextProcessor) -> None:
    processor.save_pretrained(tmp_path)
    assert VideoTextProcessor.from_pretrained(tmp_path, num_frames=7).num_frames == 7


def test_defaults_are_those_of_xclip() -> None:
    processor = VideoTextProcessor()
    assert (processor.num_frames, processor.sampling, processor.template) == (8, "segments", "{}")
    assert (processor.short_side, processor.crop_size, processor.interpolation) == (256, 224, "bilinear")
    assert processor.motion_frame_ratio == 1
    assert processor.image_mean == [0.485, 0.456, 0.406]
    assert processor.image_std == [0.229, 0.224, 0.225]
    assert VideoTextProcessor(crop_size=336).short_side == 384


@pytest.mark.parametrize(
    ("saved", "mean", "interpolation"),
    [
        (None, 0.48145466, "bicubic"),  # OpenAI's
        ({"image_mean": [0.4] * 3, "image_std": [0.2] * 3, "resample": 2}, 0.4, "bilinear"),
    ],
)
def test_a_clip_folder_gives_the_pixels_its_tower_was_trained_on(
    tmp_path: Path, tokenizer: CLIPTokenizer, saved: dict | None, mean: float, interpolation: str
) -> None:
    CLIPConfig(vision_config={"image_size": 64}).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    if saved is not None:
        (tmp_path / "preprocessor_config.json").write_text(json.dumps(saved))
    processor = VideoTextProcessor.from_pretrained(tmp_path)
    assert (processor.crop_size, processor.image_mean[0], processor.interpolation) == (64, mean, interpolation)


def test_a_stock_xclip_folder_gives_frames_and_size_by_its_config(tmp_path: Path, tokenizer: CLIPTokenizer) -> None:
    config = XCLIPConfig(vision_config={"num_frames": 16, "image_size": 336})
    config.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text(  # as in microsoft/xclip-*
        json.dumps({"image_processor_type": "VideoMAEFeatureExtractor", "size": 336, "image_mean": [0.5, 0.5, 0.5]})
    )
    processor = VideoTextProcessor.from_pretrained(tmp_path)
    assert (processor.num_frames, processor.crop_size, processor.short_side) == (16, 336, 384)
    assert processor.image_mean == [0.485, 0.456, 0.406]
    fresh = VideoTextProcessor(tokenizer)
    assert_equal(processor(text=CLASS_NAMES)["input_ids"], fresh(text=CLASS_NAMES)["input_ids"])


def test_a_folder_with_a_moted_alone_gives_frames_by_the_top_of_its_config(
    tmp_path: Path, tokenizer: CLIPTokenizer
) -> None:
    MotedConfig(vision_config={"image_size": 32}, num_frames=16, motion_frame_ratio=3).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    processor = VideoTextProcessor.from_pretrained(tmp_path)
    assert (processor.num_frames, processor.motion_frame_ratio, processor.crop_size) == (16, 3, 32)


def test_a_folder_without_tokenizer_is_refused(tmp_path: Path) -> None:
    XCLIPConfig().save_pretrained(tmp_path)
    message = f"{tmp_path} has no tokenizer files (tokenizer.json or vocabulary)."
    with pytest.raises(OSError, match=f"^{re.escape(message)}$"):
        VideoTextProcessor.from_pretrained(tmp_path)


def test_a_processor_without_tokenizer_does_videos_only(tmp_path: Path, frames: torch.Tensor) -> None:
    processor = VideoTextProcessor(num_frames=NUM_FRAMES, crop_size=SIZE)
    assert processor(videos=frames)["pixel_values"].shape == (1, NUM_FRAMES, 3, SIZE, SIZE)
    message = "this processor has no tokenizer; build it with VideoTextProcessor(tokenizer=...)."
    for use in (
        lambda: processor(text=CLASS_NAMES),
        lambda: processor.save_pretrained(tmp_path),
        lambda: processor.tokenizer_fingerprint,
    ):
        with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
            use()
    assert not list(tmp_path.iterdir())


# ---------------------------------------------------------------------------------------------------------- texts


def test_texts_are_those_of_the_tokenizer(processor: VideoTextProcessor, tokenizer: CLIPTokenizer) -> None:
    wanted = tokenizer(CLASS_NAMES, padding=True, return_tensors="pt")
    batch = processor(text=CLASS_NAMES)
    assert set(batch) == {"input_ids", "attention_mask"}
    for name in batch:
        assert_equal(batch[name], wanted[name])
    assert_equal(processor(text="wave")["input_ids"], tokenizer(["wave"], return_tensors="pt")["input_ids"])
    assert processor(text=CLASS_NAMES, padding="max_length")["input_ids"].shape == (3, 77)


def test_names_go_into_the_template(tokenizer: CLIPTokenizer) -> None:
    processor = VideoTextProcessor(tokenizer, template="a video of {}.")
    wanted = {"a video of {}.": "a video of jump.", "{}": "jump", "{}, or: {}": "jump, or: jump"}
    for template, text in wanted.items():
        expected = tokenizer([text], return_tensors="pt")["input_ids"]
        assert_equal(processor(text="jump", template=template)["input_ids"], expected)
    saved = tokenizer(["a video of {}."], return_tensors="pt")["input_ids"]
    assert_equal(processor(text="{}")["input_ids"], saved)  # a name is never taken for a template
    assert_equal(processor(text="jump")["input_ids"], processor(text="jump", template="a video of {}.")["input_ids"])


def test_a_template_without_place_is_refused(processor: VideoTextProcessor, tokenizer: CLIPTokenizer) -> None:
    message = re.escape("template='a video' has no place for the class name; write it as {}.")
    with pytest.raises(ValueError, match=f"^{message}$"):
        VideoTextProcessor(tokenizer, template="a video")
    with pytest.raises(ValueError, match=f"^{message}$"):
        processor(text="jump", template="a video")


def test_a_text_that_is_too_long_is_refused_and_never_cut(processor: VideoTextProcessor) -> None:
    fits, too_long = " ".join(["wave"] * 75), " ".join(["wave"] * 76)
    assert processor(text=fits)["input_ids"].shape == (1, 77)
    message = "text[1] has 78 tokens, the model takes 77; shorten it (nothing is cut silently): " + repr(too_long[:200])
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        processor(text=["wave", too_long, fits])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ([], "text is empty; pass at least one class name."),
        ("", "text[0] = '' is no class name; pass non-empty strings."),
        (["wave", " \n"], "text[1] = ' \\n' is no class name; pass non-empty strings."),
        (["wave", None], "text[1] = None is no class name; pass non-empty strings."),
        ([["wave"]], "text[0] = ['wave'] is no class name; pass non-empty strings."),
    ],
)
def test_empty_names_are_refused(text: Any, message: str, processor: VideoTextProcessor) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        processor(text=text)


def test_the_fingerprint_depends_on_the_tokenizer_and_not_on_its_use(
    tmp_path: Path, processor: VideoTextProcessor
) -> None:
    before = processor.tokenizer_fingerprint
    processor(text=CLASS_NAMES)
    processor(text="wave", padding="max_length")
    processor.tokenizer("wave", truncation=True, max_length=5)
    assert processor.tokenizer_fingerprint == before
    processor.save_pretrained(tmp_path)
    loaded = AutoProcessor.from_pretrained(tmp_path)
    assert loaded.tokenizer_fingerprint == before
    assert VideoTextProcessor(small_tokenizer(["another text"])).tokenizer_fingerprint != before
    loaded.tokenizer.model_max_length = 40
    assert loaded.tokenizer_fingerprint != before


def test_a_text_bank_of_this_tokenizer_passes_through_to_the_model(
    processor: VideoTextProcessor, frames: torch.Tensor
) -> None:
    model = tiny_model(text={"vocab_size": len(processor.tokenizer), "max_position_embeddings": 77})
    texts = processor(text=CLASS_NAMES)
    wanted = model(**processor(videos=frames), **texts).logits_per_video
    for fingerprint in (processor.tokenizer_fingerprint, None):
        bank = model.encode_texts(**texts, names=CLASS_NAMES, tokenizer_fingerprint=fingerprint)
        batch = processor(videos=frames, text_bank=bank)
        assert batch["text_bank"] is bank
        torch.testing.assert_close(model(**batch).logits_per_video, wanted)
        torch.testing.assert_close(model(**batch.to("cpu")).logits_per_video, wanted)


def test_a_text_bank_of_another_tokenizer_is_refused(processor: VideoTextProcessor, frames: torch.Tensor) -> None:
    other = VideoTextProcessor(small_tokenizer(["another text"]))
    model = tiny_model(text={"vocab_size": len(processor.tokenizer), "max_position_embeddings": 77})
    bank = model.encode_texts(
        **processor(text=CLASS_NAMES), names=CLASS_NAMES, tokenizer_fingerprint=other.tokenizer_fingerprint
    )
    message = (
        f"this TextBank was made with tokenizer {other.tokenizer_fingerprint[:12]}, the processor has "
        f"{processor.tokenizer_fingerprint[:12]}; encode the class texts again with this processor."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        processor(videos=frames, text_bank=bank)


def test_the_call_documented_for_stock_xclip_works(
    processor: VideoTextProcessor, frames: torch.Tensor, expected: torch.Tensor
) -> None:
    video = frames[[2, 7, 12, 17]].numpy()
    inputs = processor(
        text=["playing sports", "eating spaghetti", "go shopping"],
        videos=list(video),
        return_tensors="pt",
        padding=True,
    )
    assert set(inputs) == {"pixel_values", "input_ids", "attention_mask"}
    assert_equal(inputs["pixel_values"], expected)


# --------------------------------------------------------------------------------------------------- descriptions

DESCRIPTIONS = [["the hand goes left and right", "slowly"], ["up, then down", "{}", "both feet"], ["step by step"]]


def test_descriptions_stand_at_their_class_and_rank_with_missing_ones_masked(
    processor: VideoTextProcessor, tokenizer: CLIPTokenizer
) -> None:
    batch = processor(text=CLASS_NAMES, descriptions=DESCRIPTIONS, template="a video of {}")
    ids, mask = batch["description_input_ids"], batch["description_attention_mask"]
    assert ids.shape == mask.shape and ids.shape[:2] == (3, 3)
    assert ids.dtype == mask.dtype == torch.int64
    for index, texts in enumerate(DESCRIPTIONS):
        for rank, text in enumerate(texts):  # as they are: no template
            wanted = tokenizer([text], return_tensors="pt")["input_ids"][0]
            assert_equal(ids[index, rank][mask[index, rank].bool()], wanted)
    assert mask.any(dim=-1).int().tolist() == [[1, 1, 0], [1, 1, 1], [1, 0, 0]]
    assert (ids[mask == 0] == tokenizer.pad_token_id).all()
    alone = processor(text=CLASS_NAMES, template="a video of {}")
    for name in alone:
        assert_equal(batch[name], alone[name])
    assert set(processor(descriptions=DESCRIPTIONS)) == {"description_input_ids", "description_attention_mask"}
    assert set(batch) <= set(processor.model_input_names)


def test_descriptions_are_padded_as_the_texts_are(processor: VideoTextProcessor) -> None:
    batch = processor(text=CLASS_NAMES, descriptions=DESCRIPTIONS, padding="max_length")
    assert batch["description_input_ids"].shape == (3, 3, 77)


NO_LISTS = (
    "descriptions are no list of lists; pass one list of strings per class: [[...], ...], the conceptual description "
    "first."
)
EMPTY_TEXT = "is no description; pass non-empty strings, and leave out one that is missing."


@pytest.mark.parametrize(
    ("descriptions", "message"),
    [
        ("a b c", NO_LISTS),
        (["up", "down", "left"], NO_LISTS),
        ([["up"], "down", ["left"]], NO_LISTS),
        ([], NO_LISTS),
        ([["up"], [], ["left"]], "descriptions[1] is empty; pass at least one description of each class."),
        ([["up"], ["down"], ["left", " "]], f"descriptions[2][1] = ' ' {EMPTY_TEXT}"),
        ([["up"], [None], ["left"]], f"descriptions[1][0] = None {EMPTY_TEXT}"),
        (
            [["up"], ["down"]],
            "descriptions has 2 lists for 3 class names; pass one list per class, in class order.",
        ),
    ],
)
def test_descriptions_that_do_not_fit_are_refused(
    descriptions: Any, message: str, processor: VideoTextProcessor
) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        processor(text=CLASS_NAMES, descriptions=descriptions)


def test_a_description_that_is_too_long_is_refused_and_never_cut(processor: VideoTextProcessor) -> None:
    too_long = " ".join(["wave"] * 76)
    message = "descriptions[1][1] has 78 tokens, the model takes 77; shorten it (nothing is cut silently): "
    with pytest.raises(ValueError, match=f"^{re.escape(message + repr(too_long[:200]))}$"):
        processor(descriptions=[["up"], ["down", too_long], ["left"]])


def test_descriptions_do_not_go_with_a_bank_that_has_its_own(processor: VideoTextProcessor) -> None:
    with pytest.raises(ValueError, match="pass class texts as text"):
        processor(descriptions=DESCRIPTIONS, text_bank=1)


# --------------------------------------------------------------------------------------------------------- errors

UINT8 = np.zeros((5, 40, 50, 3), dtype=np.uint8)
WANTED = "wanted (T,H,W,3) with at least one frame."
DTYPES = "wanted uint8 in 0..255 or floats in [0,1]."
FLOATS = "wanted [0,1]. Pass raw frames: the processor normalises them itself."

BAD_VIDEOS = {
    "channels first": (
        UINT8.transpose(0, 3, 1, 2),
        ValueError,
        f"a video array has shape (5, 3, 40, 50); {WANTED} It looks like (T,3,H,W): permute it to (T,H,W,3).",
    ),
    "one image": (UINT8[0], ValueError, f"a video array has shape (40, 50, 3); {WANTED}"),
    "grey": (UINT8[..., :1], ValueError, f"a video array has shape (5, 40, 50, 1); {WANTED}"),
    "alpha": (np.zeros((5, 40, 50, 4), np.uint8), ValueError, f"a video array has shape (5, 40, 50, 4); {WANTED}"),
    "grey frames": (list(UINT8[..., 0]), ValueError, f"a video array has shape (40, 50); {WANTED}"),
    "no frames": (UINT8[:0], ValueError, f"a video array has shape (0, 40, 50, 3); {WANTED}"),
    "no height": (UINT8[:, :0], ValueError, f"a video array has shape (5, 0, 50, 3); {WANTED}"),
    "six axes": (UINT8[None, None], ValueError, f"a video array has shape (1, 1, 5, 40, 50, 3); {WANTED}"),
    "int64": (UINT8.astype(np.int64), ValueError, f"a video array has dtype torch.int64; {DTYPES}"),
    "uint16": (UINT8.astype(np.uint16), ValueError, f"a video array has dtype torch.uint16; {DTYPES}"),
    "bool": (UINT8.astype(bool), ValueError, f"a video array has dtype torch.bool; {DTYPES}"),
    "objects": (UINT8.astype(object), ValueError, f"a video array has dtype object; {DTYPES}"),
    "complex": (torch.zeros(5, 40, 50, 3, dtype=torch.complex64), ValueError, None),
    "floats to 255": (
        UINT8.astype(np.float32) + 200,
        ValueError,
        f"a float video has values from 200 to 200; {FLOATS}",
    ),
    "normalised": (UINT8 - 1.5, ValueError, f"a float video has values from -1.5 to -1.5; {FLOATS}"),
    "NaN": (np.full(UINT8.shape, np.nan), ValueError, f"a float video has values from nan to nan; {FLOATS}"),
    "ragged frames": (
        [Image.new("RGB", (50, 40)), Image.new("RGB", (40, 50))],
        ValueError,
        "frame 1 has shape (50, 40, 3), frame 0 has (40, 50, 3); all frames of a video need one size.",
    ),
    "empty list": ([], ValueError, "videos is empty; pass at least one video."),
    "empty batch": (UINT8[None][:0], ValueError, "videos is empty; pass at least one video."),
    "empty video in a list": ([UINT8, []], ValueError, "a video is an empty list of frames; pass at least one frame."),
    "paths as frames": (
        [["a.png", "b.png"]],
        TypeError,
        "frame 0 of a list is a str; a frame is a PIL image or an array.",
    ),
    "number": (
        3,
        TypeError,
        "a video of type int is not understood; pass a path, URL, bytes, file object, (T,H,W,3) uint8 array or tensor, "
        "(T,H,W,3) float one in [0,1], list of PIL images, undecoded `datasets` Video value, or a list of these.",
    ),
    "missing file": ("no such file.mp4", FileNotFoundError, None),
    "no video": (b"this is no video", VideoDecodeError, None),
    "empty mapping": ({"bytes": None, "path": None}, TypeError, None),
}


@pytest.mark.parametrize("kind", BAD_VIDEOS)
def test_videos_that_do_not_fit_are_errors(kind: str, processor: VideoTextProcessor) -> None:
    videos, error, message = BAD_VIDEOS[kind]
    with pytest.raises(error, match=message and f"^{re.escape(message)}$") as raised:
        processor(videos=videos)
    assert type(raised.value) is error


@pytest.mark.parametrize("kind", ["missing file", "no video", "empty list", "NaN", "number"])
def test_one_bad_video_of_a_list_leaves_no_batch_without_pixels(kind: str, processor: VideoTextProcessor) -> None:
    videos, error, _ = BAD_VIDEOS[kind]
    with pytest.raises(error if kind != "empty list" else ValueError):
        processor(videos=[UINT8, videos])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "nothing to process: pass videos, text, or both."),
        ({"text": "a", "text_bank": 1}, "pass class texts as text (and descriptions) or as text_bank, not both."),
        ({"videos": UINT8, "return_tensors": "np"}, "return_tensors='np' is not supported; only \"pt\" is."),
        ({"videos": UINT8, "return_tensors": None}, 'return_tensors=None is not supported; only "pt" is.'),
        ({"videos": UINT8, "num_frames": 0}, "num_frames=0 must be at least 1."),
        ({"videos": UINT8, "stride": 0}, "stride=0 must be at least 1."),
        ({"videos": UINT8, "num_clips": 0}, "num_clips=0 must be at least 1."),
        ({"videos": UINT8, "sampling": ""}, "unknown sampling ''; choose one of segments, uniform, dense, all."),
        (
            {"videos": UINT8, "num_crops": 5},
            "num_crops=5 is not supported; choose 1 (centre) or 3 (along the longer side).",
        ),
    ],
)
def test_options_that_do_not_fit_are_errors(
    arguments: dict[str, Any], message: str, processor: VideoTextProcessor
) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        processor(**arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"sampling": "tsn"}, "sampling='tsn' is unknown; choose one of segments, uniform, dense, all."),
        ({"motion_frame_ratio": 0}, "motion_frame_ratio=0 must be at least 1."),
        ({"interpolation": "area"}, "interpolation='area' is unknown; choose one of bilinear, bicubic."),
        ({"crop_size": 64, "short_side": 63}, "short_side=63 is smaller than crop_size=64; raise it."),
    ],
)
def test_a_contract_that_does_not_fit_is_an_error(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        VideoTextProcessor(**arguments)


def test_unknown_keywords_are_errors(processor: VideoTextProcessor) -> None:
    with pytest.raises(TypeError, match="unexpected keyword argument 'images'"):
        processor(images=UINT8)
    with pytest.raises(TypeError, match="Unexpected keyword argument num_frame."):
        VideoTextProcessor(num_frame=8)
