"""The small CLIP: its folder loads everywhere a CLIP does, and it is made once, from its arguments alone."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import CLIPModel, CLIPProcessor

from kinetext import VideoTextProcessor, XCLIPModel
from kinetext.data.motion_shapes import SEEN_CLASSES
from kinetext.data.shape_captions import CaptionedStill, captioned_still
from kinetext.descriptions import load_descriptions
from kinetext.processing.processing_video_text import IMAGENET_MEAN, IMAGENET_STD
from kinetext.training import pretrain_clip as module
from kinetext.training.pretrain_clip import MANIFEST_NAME, demo_texts, pretrain_clip

TINY: dict[str, Any] = {"patch_size": 32, "num_layers": 1, "num_pairs": 400, "num_steps": 6, "batch_size": 32}


@pytest.fixture(scope="module", autouse=True)
def _fast() -> Iterator[None]:
    """One gallery."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_NUM_GALLERIES", 1)
        yield


@pytest.fixture(scope="module")
def tiny_clip(_fast: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clip") / "small"
    pretrain_clip(folder, **TINY)
    return folder


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return CLIPModel.from_pretrained(folder).state_dict()


def test_folder_is_an_ordinary_clip(tiny_clip: Path) -> None:
    model, processor = CLIPModel.from_pretrained(tiny_clip), CLIPProcessor.from_pretrained(tiny_clip)
    picture = captioned_still(0).frame
    inputs = processor(images=[picture], text=["a small arrow", "growing"], return_tensors="pt", padding=True)
    assert inputs["pixel_values"].shape == (1, 3, 64, 64)
    assert model(**inputs).logits_per_image.shape == (1, 2)


def test_x_clip_starts_from_the_folder(tiny_clip: Path) -> None:
    model = XCLIPModel.from_clip(tiny_clip, num_frames=4)
    patches = "vision_model.embeddings.patch_embedding.weight"
    torch.testing.assert_close(model.state_dict()[patches], weights(tiny_clip)[patches])


def test_images_and_videos_are_normalised_alike(tiny_clip: Path) -> None:
    stills = CLIPProcessor.from_pretrained(tiny_clip).image_processor
    videos = VideoTextProcessor.from_pretrained(tiny_clip)
    assert tuple(stills.image_mean) == tuple(videos.image_mean) == IMAGENET_MEAN
    assert tuple(stills.image_std) == tuple(videos.image_std) == IMAGENET_STD
    assert videos.crop_size == 64


def test_words_of_the_demo_are_single_tokens(tiny_clip: Path) -> None:
    tokenizer = VideoTextProcessor.from_pretrained(tiny_clip).tokenizer
    described = [text for texts in load_descriptions("motion_shapes").texts for text in texts]
    captions = [captioned_still(seed).caption for seed in range(100)]
    words = {word for text in (*SEEN_CLASSES, *described, *captions) for word in re.findall(r"\w+", text)}
    assert {word for word in words if len(tokenizer.tokenize(word)) > 1} == set()


def test_text_tower_reads_its_feature_at_the_end_token(tiny_clip: Path) -> None:
    model, tokenizer = CLIPModel.from_pretrained(tiny_clip), VideoTextProcessor.from_pretrained(tiny_clip).tokenizer
    ids = tokenizer(demo_texts(), padding=True, return_tensors="pt")
    assert ids["input_ids"].shape[1] < 77 // 2
    with torch.no_grad():
        together = model.get_text_features(**ids).pooler_output
        alone = model.get_text_features(**tokenizer(demo_texts()[:1], return_tensors="pt")).pooler_output
    torch.testing.assert_close(together[:1], alone, rtol=0, atol=1e-5)


def test_same_arguments_give_the_same_weights_and_another_seed_others(tiny_clip: Path, tmp_path: Path) -> None:
    torch.manual_seed(123)
    before = torch.get_rng_state()
    pretrain_clip(tmp_path / "again", **TINY)
    assert torch.equal(before, torch.get_rng_state())
    again = weights(tmp_path / "again")
    assert all(torch.equal(value, again[name]) for name, value in weights(tiny_clip).items())
    pretrain_clip(tmp_path / "other", **TINY, seed=1)
    patches = "vision_model.embeddings.patch_embedding.weight"
    assert not torch.equal(again[patches], weights(tmp_path / "other")[patches])


def test_training_lowers_the_loss(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    losses = []
    forward = CLIPModel.forward

    def recording(self: CLIPModel, *args: Any, **kwargs: Any) -> Any:
        out = forward(self, *args, **kwargs)
        if out.loss is not None:
            losses.append(out.loss.item())
        return out

    monkeypatch.setattr(CLIPModel, "forward", recording)
    pretrain_clip(tmp_path / "clip", **TINY | {"num_steps": 40, "batch_size": 16})
    assert len(losses) == 40
    assert sum(losses[-10:]) / 10 < sum(losses[:5]) / 5 - 0.2


def test_complete_folder_is_left_alone(tiny_clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = {path: path.stat().st_mtime_ns for path in tiny_clip.iterdir()}
    monkeypatch.setattr(module, "captioned_still", None)
    top1 = pretrain_clip(tiny_clip, **TINY)
    assert top1 == json.loads((tiny_clip / MANIFEST_NAME).read_text())["retrieval_top1"]
    assert {path: path.stat().st_mtime_ns for path in tiny_clip.iterdir()} == before
    assert [path.name for path in tiny_clip.parent.iterdir()] == [tiny_clip.name]


def test_other_parameters_are_refused_with_the_way_out(tiny_clip: Path) -> None:
    with pytest.raises(ValueError, match=r"num_steps is 6 there, 7 wanted\. Delete .*, choose another folder"):
        pretrain_clip(tiny_clip, **TINY | {"num_steps": 7})


def test_folder_of_somebody_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ValueError, match=r"has no pretraining\.json; choose a new folder"):
        pretrain_clip(tmp_path, **TINY)


def test_interrupted_run_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "clip").mkdir()  # empty: allowed
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(CLIPModel, "save_pretrained", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        pretrain_clip(tmp_path / "clip", **TINY)
    assert [path.name for path in tmp_path.rglob("*")] == ["clip"]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"patch_size": 24}, "patch_size must be one of (8, 16, 32), got 24"),
        ({"num_steps": 0}, "num_steps must be at least 1, got 0"),
        ({"batch_size": 1}, "batch_size must be from 2 to 1024, got 1"),
        ({"num_pairs": 100}, "num_pairs must be at least 4 x batch_size, got 100"),
    ],
)
def test_parameters_out_of_range_are_refused(tmp_path: Path, wrong: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        pretrain_clip(tmp_path / "new", **TINY | wrong)
    assert list(tmp_path.iterdir()) == []


def test_no_batch_holds_a_caption_that_is_right_for_two_pictures() -> None:
    pairs = [CaptionedStill(None, "", (str(index % 40), "", "", "")) for index in range(400)]  # type: ignore[arg-type]
    batches = module._batches(pairs, 32, seed=0)
    drawn = [next(batches) for _ in range(40)]
    assert all(len({pairs[index].facts for index in batch}) == len(batch) == 32 for batch in drawn)
    assert len({index for batch in drawn for index in batch}) > 390


@pytest.mark.parametrize("side", [2, 4, 8])
def test_patches_start_with_positions_of_their_own(side: int) -> None:
    positions = module._initial_positions(side)
    assert positions.shape == (side**2, 96)
    assert 0.3 < positions.std() < 0.7  # as loud as the patches
    directions = torch.nn.functional.normalize(positions, dim=1)
    alike = (directions @ directions.T).reshape(side, side, side, side)
    assert (alike.flatten(0, 1).flatten(1) - torch.eye(side**2)).max() < 0.9
    if side == 8:  # neighbours are more alike than strangers
        assert alike[2, 2, 2, 3] > alike[2, 2, 2, 6] and alike[2, 2, 3, 2] > alike[2, 2, 6, 2]
