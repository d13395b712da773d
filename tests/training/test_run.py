"""Where a run starts from and what it leaves behind."""

import json
import logging
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from rendered_clips import render_clip
from testing_utils import tiny_clip_config, tiny_config, tiny_moted, tiny_videos
from transformers import BertConfig, CLIPModel

import kinetext.training.run as run
from kinetext import MotedModel, VideoTextProcessor, XCLIPModel
from kinetext.data.small_tokenizer import small_tokenizer
from kinetext.evaluation.class_texts import encode_class_texts
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

    assert processor.contract == saved.contract
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

    with pytest.raises(ValueError, match="is a 'bert' model; a CLIP or one of xclip, moted is wanted"):
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


# MoTED


@pytest.fixture
def clip(tmp_path: Path) -> str:
    tokenizer = small_tokenizer(TEXTS)
    CLIPModel(tiny_clip_config(vocab_size=len(tokenizer), max_tokens=77)).save_pretrained(tmp_path / "clip")
    tokenizer.save_pretrained(tmp_path / "clip")
    return str(tmp_path / "clip")


@pytest.fixture
def moted(tmp_path: Path) -> str:
    tokenizer = small_tokenizer(TEXTS)
    tiny_moted(num_frames=4, vocab_size=len(tokenizer), max_tokens=77).save_pretrained(tmp_path / "moted")
    VideoTextProcessor(tokenizer, num_frames=4, crop_size=32, motion_frame_ratio=2).save_pretrained(tmp_path / "moted")
    return str(tmp_path / "moted")


def test_a_clip_becomes_what_the_recipe_says(clip: str) -> None:
    plain, plain_processor = run.build_model(ModelArguments(model=clip, num_frames=4), TEXTS)
    assert isinstance(plain, XCLIPModel)
    assert (plain_processor.num_frames, plain_processor.motion_frame_ratio) == (4, 1)

    overrides = '{"motion_frame_ratio": 3, "use_discriminative": false}'
    arguments = ModelArguments(model=clip, num_frames=4, architecture="moted", model_overrides=overrides)
    model, processor = run.build_model(arguments, TEXTS)
    assert isinstance(model, MotedModel)
    assert (model.config.num_frames, model.config.use_discriminative, model.config.use_conceptual) == (4, False, True)
    assert (processor.num_frames, processor.motion_frame_ratio, processor.crop_size) == (4, 3, 32)


def test_pixels_are_the_clips_for_its_frozen_tower_and_the_published_ones_for_xclip(clip: str) -> None:
    _, moted = run.build_model(ModelArguments(model=clip, architecture="moted"), TEXTS)
    _, xclip = run.build_model(ModelArguments(model=clip), TEXTS)
    assert (moted.image_mean[0], moted.interpolation) == (0.48145466, "bicubic")  # OpenAI's: the folder names none
    assert (xclip.image_mean[0], xclip.interpolation) == (0.485, "bilinear")


def test_a_misspelt_override_names_the_nearest(clip: str) -> None:
    arguments = ModelArguments(model=clip, architecture="moted", model_overrides='{"fuse_txt": false}')
    with pytest.raises(TypeError, match="unknown field `fuse_txt`; did you mean `fuse_text`"):
        run.build_model(arguments, TEXTS)


def test_a_saved_moted_stays_one_with_another_number_of_frames(moted: str) -> None:
    model, processor = run.build_model(ModelArguments(model=moted, num_frames=6), TEXTS)
    assert isinstance(model, MotedModel)
    assert (model.config.num_frames, processor.num_frames, processor.motion_frame_ratio) == (6, 6, 2)
    assert model.motion_encoder.temporal_position_embedding.shape[1] == 6


def test_what_contradicts_a_saved_model_is_refused(moted: str, checkpoint: str) -> None:
    for folder, model_type, other in ((moted, "moted", "xclip"), (checkpoint, "xclip", "moted")):
        message = f"{folder} is a '{model_type}' model, which cannot become architecture='{other}'"
        with pytest.raises(ValueError, match=re.escape(message)):
            run.build_model(ModelArguments(model=folder, architecture=other), TEXTS)
        assert run.build_model(ModelArguments(model=folder, architecture=model_type), TEXTS)
        message = f"{folder} is a '{model_type}' model and keeps its configuration."
        with pytest.raises(ValueError, match=re.escape(message)):
            run.build_model(ModelArguments(model=folder, model_overrides="{}"), TEXTS)


def moted_fields(**fields: Any) -> str:
    config = tiny_clip_config(vocab_size=99, max_tokens=77).to_dict()
    sizes = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
    text = {name: config["text_config"][name] for name in sizes}
    vision = {name: config["vision_config"][name] for name in (*sizes, "image_size", "patch_size")}
    motion = {"motion_hidden_size": 24, "motion_num_attention_heads": 2, "joint_num_attention_heads": 2}
    return json.dumps({"text_config": text, "vision_config": vision, "projection_dim": 32, **motion, **fields})


def test_random_weights_of_moted_tell_texts_apart() -> None:
    arguments = ModelArguments(model_config=moted_fields(), architecture="moted", num_frames=4)
    model, processor = run.build_model(arguments, TEXTS)
    assert (model.config.num_frames, processor.num_frames, processor.motion_frame_ratio) == (4, 4, 2)
    one, other = model.encode_texts(**processor(text=TEXTS)).text_embeds
    assert not torch.allclose(one, other)  # they are equal where the end token of the configuration does not occur


@pytest.fixture
def waving_and_running(tmp_path: Path) -> Path:
    for name in ("running", "waving"):
        (tmp_path / "data" / name).mkdir(parents=True)
        for number in range(2):
            render_clip(tmp_path / "data" / name / f"{number}.mp4", 10)
    (tmp_path / "moves.yaml").write_text("running: [legs alternate, it travels]\nwaving: [a hand swings]\n", "utf-8")
    return tmp_path


def moted_recipe(folder: Path, *extra: str, model: str | None = None) -> Any:
    arguments = ["--model_config", moted_fields(), "--architecture", "moted", "--num_frames", "4"]
    arguments += ["--data_root", str(folder / "data"), "--output_dir", str(folder / "out"), "--use_cpu"]
    arguments += ["--hold_out", "1.mp4", "--max_steps", "1", "--report_to", "none", "--save_strategy", "no"]
    if model is not None:
        arguments = arguments[6:]
    return parse_recipe([*arguments, *extra], model=model)


def test_a_run_of_moted_can_be_evaluated_with_its_descriptions(
    waving_and_running: Path, caplog: pytest.LogCaptureFixture
) -> None:
    moves = str(waving_and_running / "moves.yaml")
    by_motion = moted_fields(inference_logits="motion")  # video logits are those of the names until it has learnt
    trained = run.run_training(moted_recipe(waving_and_running, "--descriptions", moves, "--model_config", by_motion))
    out = waving_and_running / "out"
    assert json.loads((out / "results.json").read_text())["settings"]["descriptions"] == moves
    assert f"Descriptions: 2 of `running`, 1 of `waving`, from `{moves}`." in (out / "README.md").read_text()

    recipe = moted_recipe(waving_and_running, "--descriptions", moves, model=str(out))
    again = run.evaluate_model(recipe)
    assert trained is not None
    assert [one.score for one in again.predictions] == pytest.approx([one.score for one in trained.predictions])
    settings = json.loads((out / "results.json").read_text())["settings"]
    assert (settings["descriptions"], settings["motion_frame_ratio"]) == (moves, 2)
    assert not caplog.records

    without = run.evaluate_model(moted_recipe(waving_and_running, model=str(out)))
    assert "gets none, so class names stand in for them" in caplog.text
    assert [one.score for one in without.predictions] != pytest.approx([one.score for one in again.predictions])


def test_moted_without_its_descriptions_is_refused(waving_and_running: Path) -> None:
    with pytest.raises(ValueError, match=r"the recipe names none: give `descriptions`.*or set use_conceptual and"):
        run.run_training(moted_recipe(waving_and_running))


def test_moted_that_reads_names_only_needs_no_descriptions(waving_and_running: Path) -> None:
    names_only = moted_fields(use_conceptual=False, use_discriminative=False)
    arguments = ["--model_config", names_only]
    assert run.run_training(moted_recipe(waving_and_running, *arguments)) is not None
    moves = str(waving_and_running / "moves.yaml")
    with pytest.raises(ValueError, match="would have no effect: this moted reads class texts only"):
        run.run_training(moted_recipe(waving_and_running, *arguments, "--descriptions", moves))


def test_descriptions_in_the_recipe_of_an_evaluated_xclip_are_left_out_and_said_so(
    checkpoint: str, waving_and_running: Path, caplog: pytest.LogCaptureFixture
) -> None:
    moves = str(waving_and_running / "moves.yaml")
    with caplog.at_level(logging.WARNING):
        run.evaluate_model(moted_recipe(waving_and_running, "--descriptions", moves, model=checkpoint))
    assert f"descriptions={moves!r} are left out: this xclip reads class texts only." in caplog.text
    assert json.loads((waving_and_running / "out/results.json").read_text())["settings"]["descriptions"] is None


def test_the_text_tower_of_moted_is_not_trained(waving_and_running: Path) -> None:
    moves = str(waving_and_running / "moves.yaml")
    with pytest.raises(ValueError, match="the text tower of MoTED stays frozen"):
        run.run_training(moted_recipe(waving_and_running, "--descriptions", moves, "--train_text"))


def test_motion_frames_of_model_and_processor_must_agree(clip: str) -> None:
    model, _ = run.build_model(ModelArguments(model=clip, architecture="moted"), TEXTS)
    plain = VideoTextProcessor.from_pretrained(clip)
    with pytest.raises(ValueError, match="motion_frame_ratio=1, the moted model takes 2"):
        encode_class_texts(model, plain, TEXTS, descriptions=[["a"], ["b"]])


def test_from_clip_refuses_a_configuration_of_its_own(clip: str) -> None:
    config = MotedModel.from_clip(clip).config
    with pytest.raises(TypeError, match="goes to its model's constructor"):
        MotedModel.from_clip(config)
