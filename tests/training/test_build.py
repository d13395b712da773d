"""Where a run starts from: architecture, head, what is trained, frames and pixels."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from testing_utils import tiny_clip_config, tiny_config, tiny_moted_fields, tiny_video_clip, tiny_videos
from transformers import BertConfig, CLIPModel, ViTConfig, ViTModel

from kinetext import (
    MotedModel,
    VideoCLIPForVideoClassification,
    VideoCLIPModel,
    VideoTextProcessor,
    XCLIPForVideoClassification,
    XCLIPModel,
)
from kinetext.data.small_tokenizer import small_tokenizer
from kinetext.training.arguments import ModelArguments
from kinetext.training.build import build_model

TEXTS = ["running", "waving"]
CLASS_NAMES = ["run", "wave"]


def learning(model: Any) -> set[str]:
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


def random_arguments(architecture: str, **fields: Any) -> ModelArguments:
    """Of a tiny model with random weights."""
    if architecture == "moted":
        return ModelArguments(model_config=tiny_moted_fields(), architecture="moted", **fields)
    config = (tiny_config() if architecture == "xclip" else tiny_clip_config()).to_dict()
    sizes = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
    mit = ("mit_hidden_size", "mit_intermediate_size", "mit_num_attention_heads")
    vision = (*sizes, "image_size", "patch_size", *(mit if architecture == "xclip" else ()))
    tiny = {
        "text_config": {name: config["text_config"][name] for name in sizes},
        "vision_config": {name: config["vision_config"][name] for name in vision},
        "projection_dim": 32,
        **({"prompt_num_attention_heads": 2} if architecture == "xclip" else {}),
    }
    return ModelArguments(model_config=json.dumps(tiny), architecture=architecture, **fields)


# From checkpoints


def test_fine_tuning_keeps_the_contract_of_the_checkpoint(checkpoint: str) -> None:
    saved = VideoTextProcessor.from_pretrained(checkpoint)
    _, processor = build_model(ModelArguments(model=checkpoint), TEXTS)

    assert processor.contract == saved.contract
    assert processor.tokenizer_fingerprint == saved.tokenizer_fingerprint


def test_another_number_of_frames_is_set_in_model_and_processor(checkpoint: str, tmp_path: Path) -> None:
    plain = XCLIPModel.from_pretrained(checkpoint).eval()
    model, processor = build_model(ModelArguments(model=checkpoint, num_frames=16), TEXTS)
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

    with pytest.raises(ValueError, match="is a 'bert' model; a CLIP or one of xclip, moted, video_clip is wanted"):
        build_model(ModelArguments(model=str(tmp_path)), TEXTS)


def test_a_clip_becomes_what_the_recipe_says(clip: str) -> None:
    plain, plain_processor = build_model(ModelArguments(model=clip, num_frames=4), TEXTS)
    assert isinstance(plain, XCLIPModel)
    assert (plain_processor.num_frames, plain_processor.motion_frame_ratio) == (4, 1)

    overrides = '{"motion_frame_ratio": 3, "use_discriminative": false}'
    arguments = ModelArguments(model=clip, num_frames=4, architecture="moted", model_overrides=overrides)
    model, processor = build_model(arguments, TEXTS)
    assert isinstance(model, MotedModel)
    assert (model.config.num_frames, model.config.use_discriminative, model.config.use_conceptual) == (4, False, True)
    assert (processor.num_frames, processor.motion_frame_ratio, processor.crop_size) == (4, 3, 32)


def test_a_misspelt_override_names_the_nearest(clip: str) -> None:
    arguments = ModelArguments(model=clip, architecture="moted", model_overrides='{"fuse_txt": false}')
    with pytest.raises(TypeError, match="unknown field `fuse_txt`; did you mean `fuse_text`"):
        build_model(arguments, TEXTS)


def test_a_saved_moted_stays_one_with_another_number_of_frames(moted: str) -> None:
    model, processor = build_model(ModelArguments(model=moted, num_frames=6), TEXTS)
    assert isinstance(model, MotedModel)
    assert (model.config.num_frames, processor.num_frames, processor.motion_frame_ratio) == (6, 6, 2)
    assert model.motion_encoder.temporal_position_embedding.shape[1] == 6


def test_what_contradicts_a_saved_model_is_refused(moted: str, checkpoint: str) -> None:
    for folder, model_type, other in ((moted, "moted", "xclip"), (checkpoint, "xclip", "moted")):
        message = f"{folder} is a '{model_type}' model, which cannot become architecture='{other}'"
        with pytest.raises(ValueError, match=re.escape(message)):
            build_model(ModelArguments(model=folder, architecture=other), TEXTS)
        assert build_model(ModelArguments(model=folder, architecture=model_type), TEXTS)
        message = f"{folder} is a '{model_type}' model and keeps its configuration."
        with pytest.raises(ValueError, match=re.escape(message)):
            build_model(ModelArguments(model=folder, model_overrides="{}"), TEXTS)


def test_random_weights_of_moted_tell_texts_apart() -> None:
    arguments = ModelArguments(model_config=tiny_moted_fields(), architecture="moted", num_frames=4)
    model, processor = build_model(arguments, TEXTS)
    assert (model.config.num_frames, processor.num_frames, processor.motion_frame_ratio) == (4, 4, 2)
    one, other = model.encode_texts(**processor(text=TEXTS)).text_embeds
    assert not torch.allclose(one, other)  # they are equal where the end token of the configuration does not occur


def test_a_clip_becomes_a_video_clip_with_what_the_recipe_says(clip: str) -> None:
    overrides = '{"temporal_pooling": "transformer", "temporal_num_layers": 2}'
    arguments = ModelArguments(model=clip, architecture="video_clip", num_frames=4, model_overrides=overrides)
    model, processor = build_model(arguments, TEXTS)
    assert isinstance(model, VideoCLIPModel)
    assert len(model.temporal_transformer.encoder.layers) == 2
    assert (model.config.num_frames, processor.num_frames, processor.motion_frame_ratio) == (4, 4, 1)
    assert model(pixel_values=tiny_videos(), **processor(text=TEXTS)).logits_per_video.shape == (2, 2)


def test_one_frame_needs_num_frames_1(clip: str) -> None:
    arguments: dict[str, Any] = {"architecture": "video_clip", "model_overrides": '{"temporal_pooling": "one_frame"}'}
    with pytest.raises(Exception, match="num_frames=8 with temporal_pooling='one_frame'.*set num_frames=1"):
        build_model(ModelArguments(model=clip, **arguments), TEXTS)
    _, processor = build_model(ModelArguments(model=clip, num_frames=1, **arguments), TEXTS)
    assert processor.num_frames == 1


def test_a_saved_video_clip_stays_one_with_another_number_of_frames(tmp_path: Path) -> None:
    tokenizer = small_tokenizer(TEXTS)
    saved = tiny_video_clip("joint", vocab_size=len(tokenizer), max_tokens=77, train_text=False)
    saved.save_pretrained(tmp_path)
    VideoTextProcessor(tokenizer, num_frames=8, crop_size=32, image_mean=[0.5] * 3).save_pretrained(tmp_path)
    model, processor = build_model(ModelArguments(model=str(tmp_path), num_frames=6), TEXTS)
    assert isinstance(model, VideoCLIPModel) and model.joint_position_embedding.shape[1] == 6
    assert (processor.num_frames, processor.image_mean) == (6, [0.5] * 3)
    assert learning(model) == learning(saved)


# Pixels


@pytest.mark.parametrize(
    ("settings", "mean", "interpolation"),
    [
        ({}, 0.485, "bilinear"),
        ({"architecture": "video_clip"}, 0.485, "bilinear"),
        ({"head": "linear"}, 0.485, "bilinear"),
        ({"architecture": "moted"}, 0.48145466, "bicubic"),  # OpenAI's: the folder names none
        ({"architecture": "video_clip", "train_vision": False}, 0.48145466, "bicubic"),
        ({"train_vision": False}, 0.48145466, "bicubic"),
        (
            {"architecture": "video_clip", "model_overrides": '{"temporal_pooling": "transformer"}'},
            0.48145466,
            "bicubic",
        ),
    ],
    ids=str,
)
def test_pixels_are_those_published_or_the_clips_own(
    clip: str, settings: dict[str, Any], mean: float, interpolation: str
) -> None:
    _, processor = build_model(ModelArguments(model=clip, **settings), TEXTS, class_names=CLASS_NAMES)
    assert (processor.image_mean[0], processor.interpolation) == (mean, interpolation)


# Another image tower than the CLIP's


@pytest.fixture
def tower(tmp_path: Path) -> str:
    """A ViT of 48 pixels, trained on pixels of its own."""
    sizes = {"hidden_size": 36, "intermediate_size": 60, "num_hidden_layers": 2, "num_attention_heads": 3}
    ViTModel(ViTConfig(**sizes, image_size=48, patch_size=16)).save_pretrained(tmp_path / "tower")
    own = {"image_mean": [0.5, 0.5, 0.4], "image_std": [0.25] * 3, "resample": 3, "size": 48}
    (tmp_path / "tower/preprocessor_config.json").write_text(json.dumps(own))
    return str(tmp_path / "tower")


@pytest.mark.parametrize("head", ["text", "linear"])
def test_another_image_tower_takes_the_place_of_the_clips(clip: str, tower: str, head: str) -> None:
    arguments = ModelArguments(model=clip, vision_tower=tower, architecture="video_clip", head=head, num_frames=4)
    model, processor = build_model(arguments, TEXTS, class_names=CLASS_NAMES)
    assert type(model) is (VideoCLIPModel if head == "text" else VideoCLIPForVideoClassification)
    state, own = model.state_dict(), ViTModel.from_pretrained(tower).state_dict()
    assert all(torch.equal(state[f"vision_model.{name}"], value) for name, value in own.items() if "pooler" not in name)
    assert (
        model.visual_projection.weight.shape == (32, 36) and "visual_projection.weight" in model.new_parameter_names()
    )
    texts = processor(text=TEXTS) if head == "text" else {}
    assert model(pixel_values=torch.rand(1, 4, 3, 48, 48), **texts)[0].shape == (1, 2)
    assert (model.config.num_frames, processor.num_frames) == (4, 4)
    assert (processor.crop_size, processor.short_side) == (48, 55)


def test_pixels_are_those_of_the_tower_or_imagenets(clip: str, tower: str) -> None:
    fields: dict[str, Any] = {"model": clip, "vision_tower": tower, "architecture": "video_clip"}
    _, processor = build_model(ModelArguments(**fields), TEXTS)
    assert (processor.image_mean, processor.image_std) == ([0.5, 0.5, 0.4], [0.25] * 3)
    assert processor.interpolation == "bicubic"
    (Path(tower) / "preprocessor_config.json").unlink()
    _, processor = build_model(ModelArguments(**fields, short_side=60, train_vision=False), TEXTS)
    assert (processor.image_mean, processor.image_std) == ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    assert (processor.interpolation, processor.short_side) == ("bilinear", 60)


def test_an_image_tower_where_there_can_be_none_is_refused(clip: str, tower: str, tmp_path: Path) -> None:
    message = f"vision_tower={tower!r} takes the place of a CLIP's image tower in a VideoCLIP; set architecture: "
    for fields in ({"model": clip}, {"model": clip, "architecture": "xclip"}, {"preset": "base-patch16"}):
        with pytest.raises(ValueError, match=f"^{re.escape(message)}video_clip, and model: the CLIP"):
            ModelArguments(vision_tower=tower, **fields)
    arguments: dict[str, Any] = {"vision_tower": tower, "architecture": "video_clip"}
    with pytest.raises(Exception, match="temporal_pooling='joint' needs CLIP's image tower"):
        build_model(ModelArguments(model=clip, model_overrides='{"temporal_pooling": "joint"}', **arguments), TEXTS)
    model, processor = build_model(ModelArguments(model=clip, **arguments), TEXTS)
    folder = str(tmp_path / "saved")
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    with pytest.raises(ValueError, match="is a 'video_clip' model and keeps its image tower"):
        build_model(ModelArguments(model=folder, **arguments), TEXTS)
    again, same = build_model(ModelArguments(model=folder, num_frames=4), TEXTS)
    assert same.contract == {**processor.contract, "num_frames": 4}
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in model.state_dict().items())


# What is trained


@pytest.mark.parametrize("source", ["clip", "random"])
@pytest.mark.parametrize(
    ("architecture", "settings", "learns"),
    [
        ("xclip", {}, {"vision_model", "visual_projection"}),
        ("xclip", {"train_text": True, "train_vision": False}, {"text_model", "text_projection", "logit_scale"}),
        ("moted", {}, {"logit_scale"}),
        ("video_clip", {"train_text": False}, {"vision_model", "visual_projection", "logit_scale"}),
        ("video_clip", {"train_vision": False, "train_logit_scale": False}, {"text_model", "text_projection"}),
    ],
)
def test_what_the_recipe_trains_learns_and_nothing_else_of_clip(
    source: str, architecture: str, settings: dict[str, Any], learns: set[str], clip: str
) -> None:
    arguments = (
        ModelArguments(model=clip, architecture=architecture, **settings)
        if source == "clip"
        else random_arguments(architecture, **settings)
    )
    model, _ = build_model(arguments, TEXTS)
    assert {name.partition(".")[0] for name in learning(model) - model.new_parameter_names()} == learns
    assert model.new_parameter_names() <= learning(model)


def test_towers_of_moted_are_not_trained(clip: str) -> None:
    with pytest.raises(ValueError, match="the image tower of MoTED stays frozen"):
        build_model(ModelArguments(model=clip, architecture="moted", train_vision=True), TEXTS)


@pytest.mark.parametrize(("alpha", "scale"), [(None, 2.0), (6.0, 3.0)])
def test_lora_takes_the_place_of_the_towers_that_learn(clip: str, alpha: float | None, scale: float) -> None:
    pytest.importorskip("peft", reason="LoRA is an extra: kinetext[lora]")
    model, _ = build_model(ModelArguments(model=clip, lora_rank=2, lora_alpha=alpha), TEXTS)
    adapters = learning(model) - model.new_parameter_names()
    assert adapters and all(re.search(r"vision_model\..*\.self_attn\..*lora_", name) for name in adapters)
    assert model.vision_model.encoder.layers[0].self_attn.q_proj.scaling == {"default": scale}


# Linear heads

CLASSIFIERS = {"xclip": XCLIPForVideoClassification, "video_clip": VideoCLIPForVideoClassification}


@pytest.mark.parametrize("source", ["clip", "random"])
@pytest.mark.parametrize("architecture", CLASSIFIERS)
def test_a_linear_head_has_the_classes_of_the_data(source: str, architecture: str, clip: str) -> None:
    arguments = (
        ModelArguments(model=clip, architecture=architecture, head="linear")
        if source == "clip"
        else random_arguments(architecture, head="linear")
    )
    model, processor = build_model(arguments, TEXTS, class_names=CLASS_NAMES)
    assert type(model) is CLASSIFIERS[architecture]
    assert model.config.id2label == {0: "run", 1: "wave"} and model.config.label2id == {"run": 0, "wave": 1}
    assert model(tiny_videos()).logits.shape == (2, 2)
    assert learning(model) == {name for name, _ in model.named_parameters()}
    assert processor.crop_size == 32


@pytest.mark.parametrize("architecture", CLASSIFIERS)
def test_a_saved_classifier_goes_on_with_its_own_classes_only(architecture: str, clip: str, tmp_path: Path) -> None:
    arguments = ModelArguments(model=clip, architecture=architecture, head="linear")
    model, processor = build_model(arguments, TEXTS, class_names=CLASS_NAMES)
    folder = str(tmp_path / "saved")
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    again, _ = build_model(ModelArguments(model=folder, head="linear", num_frames=4), TEXTS, class_names=CLASS_NAMES)
    assert torch.equal(again.classifier.weight, model.classifier.weight)
    message = f"{folder} tells apart ['run', 'wave'], the recipe ['wave', 'run']; bring them into the same order"
    with pytest.raises(ValueError, match=re.escape(message)):
        build_model(ModelArguments(model=folder, head="linear"), TEXTS, class_names=CLASS_NAMES[::-1])
    with pytest.raises(ValueError, match="is a classifier without a text tower; set head: linear"):
        build_model(ModelArguments(model=folder), TEXTS)


def test_a_saved_xclip_lends_its_video_side_to_a_linear_head(checkpoint: str) -> None:
    model, _ = build_model(ModelArguments(model=checkpoint, head="linear"), TEXTS, class_names=CLASS_NAMES)
    expected = XCLIPModel.from_pretrained(checkpoint).state_dict()
    assert type(model) is XCLIPForVideoClassification
    assert all(torch.equal(value, expected[name]) for name, value in model.state_dict().items() if name in expected)


def test_a_linear_head_that_cannot_be_is_refused(clip: str) -> None:
    with pytest.raises(ValueError, match="^there is no moted with head='linear'.*choose one of xclip, video_clip"):
        build_model(ModelArguments(model=clip, architecture="moted", head="linear"), TEXTS, class_names=CLASS_NAMES)
    with pytest.raises(ValueError, match="^head='linear' needs class_names"):
        build_model(ModelArguments(model=clip, head="linear"), TEXTS)
    with pytest.raises(ValueError, match="has no text tower and no logit scale to train"):
        build_model(ModelArguments(model=clip, head="linear", train_text=True), TEXTS, class_names=CLASS_NAMES)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_weights_learn_in_full_precision_whatever_they_were_saved_in(clip: str, checkpoint: str, dtype: Any) -> None:
    for folder, model_class in ((clip, CLIPModel), (checkpoint, XCLIPModel)):
        model_class.from_pretrained(folder).to(dtype).save_pretrained(folder)
        model, _ = build_model(ModelArguments(model=folder), TEXTS)
        assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
