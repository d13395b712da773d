"""Where a run starts from and what it leaves behind."""

from pathlib import Path

import pytest
import torch
from testing_utils import tiny_config, tiny_videos
from transformers import BertConfig

import kinetext.training.run as run
from kinetext import VideoTextProcessor, XCLIPModel
from kinetext.data.small_tokenizer import small_tokenizer
from kinetext.training.arguments import ModelArguments, parse_recipe

TEXTS = ["running", "waving"]


@pytest.fixture
def checkpoint(tmp_path: Path) -> str:
    tokenizer = small_tokenizer(TEXTS)
    torch.manual_seed(0)
    XCLIPModel(tiny_config(text={"vocab_size": len(tokenizer)})).save_pretrained(tmp_path / "model")
    contract = {"num_frames": 8, "sampling": "dense", "stride": 2, "template": "a video of {}", "crop_size": 32}
    VideoTextProcessor(
        tokenizer, short_side=40, interpolation="bicubic", image_mean=[0.5] * 3, image_std=[0.5] * 3, **contract
    ).save_pretrained(tmp_path / "model")
    return str(tmp_path / "model")


def test_fine_tuning_keeps_the_contract_of_the_checkpoint(checkpoint: str) -> None:
    saved = VideoTextProcessor.from_pretrained(checkpoint)
    _, processor = run.build_model(ModelArguments(model=checkpoint), TEXTS)

    assert run._contract_of(processor) == run._contract_of(saved)
    assert processor.tokenizer_fingerprint == saved.tokenizer_fingerprint


def test_another_number_of_frames_is_set_in_model_and_processor(checkpoint: str, tmp_path: Path) -> None:
    plain = XCLIPModel.from_pretrained(checkpoint).eval()
    model, processor = run.build_model(ModelArguments(model=checkpoint, num_frames=16), TEXTS)
    videos, ids = tiny_videos(num_frames=16), processor(text=TEXTS)

    assert (processor.num_frames, processor.sampling, model.config.vision_config.num_frames) == (16, "dense", 16)
    assert model.mit.position_embedding.shape[1] == 16
    with torch.no_grad():
        difference = (
            model.eval()(pixel_values=videos, **ids).logits_per_video
            - plain(pixel_values=videos, **ids).logits_per_video
        )
    assert difference.abs().max() < 1e-5

    model.save_pretrained(tmp_path / "longer")
    from transformers.models.x_clip.modeling_x_clip import XCLIPModel as StockModel

    stock, report = StockModel.from_pretrained(tmp_path / "longer", output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"] and not report["mismatched_keys"]
    assert stock(pixel_values=videos, **ids).logits_per_video.shape == (2, 2)


def test_a_model_of_another_kind_is_refused(tmp_path: Path) -> None:
    tokenizer = small_tokenizer(TEXTS)
    BertConfig().save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)

    with pytest.raises(ValueError, match="is a 'bert' model; an X-CLIP or a CLIP is wanted"):
        run.build_model(ModelArguments(model=str(tmp_path)), TEXTS)


def test_training_on_one_class_is_refused(tmp_path: Path) -> None:
    (tmp_path / "clips/running").mkdir(parents=True)
    (tmp_path / "clips/running/a.mp4").write_bytes(b"")
    arguments = ["--preset", "base-patch32", "--data_root", str(tmp_path / "clips"), "--use_cpu"]
    recipe = parse_recipe([*arguments, "--output_dir", str(tmp_path / "out")])

    with pytest.raises(ValueError, match=r"single class \['running'\]"):
        run.run_training(recipe)


def test_evaluation_refuses_settings_that_the_model_brings(checkpoint: str, tmp_path: Path) -> None:
    arguments = ["--data_root", str(tmp_path), "--output_dir", str(tmp_path / "out"), "--use_cpu"]
    recipe = parse_recipe([*arguments, "--num_frames", "4"], model=checkpoint)

    with pytest.raises(ValueError, match="would change what the model was saved with"):
        run.evaluate_model(recipe)
    with pytest.raises(ValueError, match="views='2x2' is not understood"):
        run.evaluate_model(parse_recipe(arguments, model=checkpoint), views="2x2")
