"""Models with a linear layer in place of class texts: X-CLIP's and VideoCLIP's video sides."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from testing_utils import (
    assert_equal_gradients,
    gradients,
    largest_difference,
    scatter_weights,
    tiny_clip,
    tiny_clip_config,
    tiny_config,
    tiny_model,
    tiny_texts,
    tiny_video_clip,
    tiny_video_clip_config,
    tiny_videos,
)
from torch.nn import functional
from transformers import AutoConfig, AutoModelForVideoClassification

from kinetext import VideoCLIPForVideoClassification, XCLIPForVideoClassification
from kinetext.modeling.configuration_video_text import is_classifier

NAMES = {0: "run", 1: "jump", 2: "sit", 3: "wave", 4: "bend"}
LABELS = torch.tensor([4, 0])

CLASSES: dict[str, Any] = {"xclip": XCLIPForVideoClassification, "video_clip": VideoCLIPForVideoClassification}
CONFIGS: dict[str, Callable[..., Any]] = {"xclip": tiny_config, "video_clip": tiny_video_clip_config}
OVER_TEXTS: dict[str, Callable[[], Any]] = {"xclip": tiny_model, "video_clip": tiny_video_clip}


@pytest.fixture(autouse=True)
def _fresh_compiler() -> Iterator[None]:
    yield
    torch._dynamo.reset()


@pytest.fixture(params=list(CLASSES))
def family(request: pytest.FixtureRequest) -> str:
    return request.param


def classifier(family: str, **fields: Any) -> Any:
    """In evaluation mode with scattered weights, five classes."""
    torch.manual_seed(0)
    label2id = {name: index for index, name in NAMES.items()}
    model = CLASSES[family](CONFIGS[family](id2label=NAMES, label2id=label2id, **fields))
    scatter_weights(model)
    return model.eval()


def test_logits_are_the_layer_on_the_video_embedding_of_the_model_over_texts(family: str) -> None:
    model, over_texts = classifier(family), OVER_TEXTS[family]()
    missing, unexpected = over_texts.load_state_dict(model.state_dict(), strict=False)
    assert set(unexpected) == {"classifier.weight", "classifier.bias"}
    assert all(name.startswith(("text_", "logit_scale", "prompts_")) for name in missing)
    for num_frames in (1, 5, 8, 16):
        videos = tiny_videos(2, num_frames)
        embedding = over_texts.get_video_features(videos).pooler_output
        expected = functional.linear(embedding, model.classifier.weight, model.classifier.bias)
        assert largest_difference(model(videos).logits, expected) <= 1e-5
        normed = over_texts(pixel_values=videos, **tiny_texts()).video_embeds
        assert largest_difference(normed, embedding / embedding.norm(dim=-1, keepdim=True)) <= 1e-6


@pytest.mark.parametrize("pooling", ["transformer", "joint", "one_frame"])
def test_other_poolings_can_be_classified_too(pooling: str) -> None:
    torch.manual_seed(0)
    model = VideoCLIPForVideoClassification(tiny_video_clip_config(pooling, num_labels=5)).eval()
    assert model(pixel_values=tiny_videos(), labels=LABELS).logits.shape == (2, 5)


def test_labels_give_the_cross_entropy_hard_or_soft(family: str) -> None:
    model, videos = classifier(family), tiny_videos()
    hard = model(pixel_values=videos, labels=LABELS)
    assert hard.logits.shape == (2, 5)
    assert torch.equal(hard.loss, functional.cross_entropy(hard.logits, LABELS))
    soft = model(pixel_values=videos, labels=functional.one_hot(LABELS, 5).float())
    assert largest_difference(soft.loss, hard.loss) <= 1e-6
    assert model(pixel_values=videos).loss is None
    hard.loss.backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_what_does_not_fit_is_refused(family: str) -> None:
    model = classifier(family)
    message = "labels must lie in 0..4, the classes there are; got [5, 0]."
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        model(pixel_values=tiny_videos(), labels=torch.tensor([5, 0]))
    with pytest.raises(ValueError, match="^pixel_values is missing"):
        model()
    with pytest.raises(TypeError, match="unexpected keyword argument 'input_ids'"):
        model(pixel_values=tiny_videos(), **tiny_texts())


def test_padded_clips_equal_unpadded_ones(family: str) -> None:
    model, videos = classifier(family), tiny_videos(2)
    mask = torch.ones(2, 8)
    mask[1, 3:] = 0
    together = model(pixel_values=videos, frame_mask=mask).logits
    assert largest_difference(together[:1], model(videos[:1]).logits) <= 1e-5
    assert largest_difference(together[1:], model(videos[1:, :3]).logits) <= 1e-5


# Files and initial values


def test_saved_model_loads_equal_by_its_auto_class(family: str, tmp_path: Path) -> None:
    model = classifier(family)
    model.save_pretrained(tmp_path)
    for loaded in (
        AutoModelForVideoClassification.from_pretrained(tmp_path),
        CLASSES[family].from_pretrained(tmp_path),
    ):
        assert type(loaded) is CLASSES[family]
        assert (loaded.config.id2label, loaded.config.label2id["wave"], loaded.config.num_labels) == (NAMES, 3, 5)
        assert torch.equal(loaded(tiny_videos()).logits, model(tiny_videos()).logits)
    assert is_classifier(AutoConfig.from_pretrained(tmp_path))
    assert type(AutoModelForVideoClassification.from_config(model.config)) is CLASSES[family]
    OVER_TEXTS[family]().save_pretrained(tmp_path / "texts")
    assert not is_classifier(AutoConfig.from_pretrained(tmp_path / "texts"))


def test_a_saved_model_over_texts_lends_its_video_side(family: str, tmp_path: Path) -> None:
    over_texts = OVER_TEXTS[family]()
    over_texts.save_pretrained(tmp_path)
    model, report = CLASSES[family].from_pretrained(tmp_path, id2label=NAMES, output_loading_info=True)
    assert set(report["missing_keys"]) == {"classifier.weight", "classifier.bias"}
    ours, theirs = (one.get_video_features(tiny_videos()).pooler_output for one in (model, over_texts))
    assert torch.equal(ours, theirs)
    assert model.config.num_labels == 5
    assert_classifier_starts(model)


def assert_classifier_starts(model: Any) -> None:
    weight, bias = model.classifier.weight, model.classifier.bias
    assert (bias == 0).all() and weight.abs().max() > 0
    assert weight.std().item() == pytest.approx(0.02, rel=6 / (2 * weight.numel()) ** 0.5)


def test_from_clip_copies_the_image_tower_and_starts_the_rest(family: str, tmp_path: Path) -> None:
    clip = tiny_clip()
    clip.save_pretrained(tmp_path)
    for source in (clip, tmp_path):
        model = CLASSES[family].from_clip(source, num_frames=4, id2label=NAMES)
        weights = {name.replace("pre_layernorm", "pre_layrnorm"): value for name, value in model.named_parameters()}
        shared = {name for name, _ in clip.named_parameters() if name.startswith("vis")}
        assert set(weights) - shared == model.new_parameter_names()
        for name in shared:
            assert torch.equal(weights[name], clip.get_parameter(name)), name
        assert_classifier_starts(model)
    random = CLASSES[family].from_clip(tiny_clip_config(), num_labels=5)
    assert random.visual_projection.weight.std().item() == pytest.approx(48**-0.5, rel=0.15)


@pytest.mark.parametrize("name", ["classifier.weight", "visual_projection.weight", "vision_model.post_layernorm.bias"])
def test_one_missing_key_is_started_and_no_other_touched(family: str, name: str, tmp_path: Path) -> None:
    classifier(family).save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    del weights[name]
    save_file(weights, tmp_path / "model.safetensors", {"format": "pt"})
    loaded = CLASSES[family].from_pretrained(tmp_path).state_dict()
    started = loaded.pop(name)
    deviation = {"classifier.weight": 0.02, "visual_projection.weight": 48**-0.5}.get(name, 0)
    assert started.square().mean().sqrt().item() == pytest.approx(deviation, rel=6 / (2 * started.numel()) ** 0.5)
    assert all(torch.equal(tensor, weights[key]) for key, tensor in loaded.items())


def test_trained_number_of_frames_can_be_changed(family: str) -> None:
    model, videos = classifier(family), tiny_videos(1, 12)
    expected = model(videos).logits
    model.set_num_frames(12)
    assert largest_difference(model(videos).logits, expected) <= 1e-5


# Execution


def test_compiled_training_step_equals_eager(family: str) -> None:
    model = classifier(family, **{"vision" if family == "xclip" else "vision_config": {"num_hidden_layers": 1}}).train()
    model(pixel_values=tiny_videos(), labels=LABELS).loss.backward()
    expected = gradients(model)
    model.zero_grad()
    torch.compile(model, fullgraph=True, backend="aot_eager")(pixel_values=tiny_videos(), labels=LABELS).loss.backward()
    assert_equal_gradients(expected, gradients(model))


def test_gradient_checkpointing_changes_no_gradient(family: str) -> None:
    model = classifier(family).train()
    model(pixel_values=tiny_videos(), labels=LABELS).loss.backward()
    expected = gradients(model)
    model.zero_grad()
    model.activation_checkpointing_enable()
    calls = []
    for layer in model.vision_model.encoder.layers:
        layer.self_attn.register_forward_hook(lambda *_: calls.append(1))
    model(pixel_values=tiny_videos(), labels=LABELS).loss.backward()
    assert len(calls) == 2 * len(model.vision_model.encoder.layers)
    assert_equal_gradients(expected, gradients(model))


def test_images_of_another_size_are_taken_when_asked(family: str) -> None:
    model = classifier(family)
    videos = torch.rand(1, 3, 3, 48, 48)
    with pytest.raises(ValueError, match="size"):
        model(videos)
    expected = model.classifier(model.get_video_features(videos, interpolate_pos_encoding=True).pooler_output)
    assert largest_difference(model(videos, interpolate_pos_encoding=True).logits, expected) == 0
