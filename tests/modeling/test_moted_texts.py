"""Class names, descriptions and the bank of both; outputs, labels and inputs that do not fit."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from testing_utils import (
    largest_difference,
    scatter_weights,
    tiny_descriptions,
    tiny_model,
    tiny_moted,
    tiny_texts,
    tiny_videos,
)
from torch.nn import functional

from kinetext import MotedModel, TextBank

LABELS = torch.tensor([2, 0])
EMBEDS = ("text_embeds", "motion_text_embeds")
MISSING = [(0, 2), (0, 3), (2, 1)]


def exactly(message: str) -> str:
    return f"^{re.escape(message)}$"


def rows(texts: dict[str, torch.Tensor], part: slice) -> dict[str, torch.Tensor]:
    return {name: tensor[part] for name, tensor in texts.items()}


# Descriptions


@pytest.mark.parametrize("attn_implementation", ["sdpa", "eager"])
def test_class_with_fewer_descriptions_equals_the_same_class_without_padding(attn_implementation: str) -> None:
    model = tiny_moted(attn_implementation=attn_implementation)
    names, descriptions = tiny_texts(), tiny_descriptions(missing=MISSING)
    together = model(pixel_values=tiny_videos(), **names, **descriptions)
    for row in range(3):
        there = descriptions["description_attention_mask"][row].any(dim=-1)
        own = {name: tensor[row : row + 1, there] for name, tensor in descriptions.items()}
        alone = model(pixel_values=tiny_videos(), **rows(names, slice(row, row + 1)), **own)
        for name in EMBEDS:
            assert largest_difference(together[name][row : row + 1], alone[name]) <= 1e-5, (name, row)
        unmasked = {"description_input_ids": own["description_input_ids"]}  # attention in the text tower is causal
        alone = model(pixel_values=tiny_videos(), **rows(names, slice(row, row + 1)), **unmasked)
        assert largest_difference(together.motion_text_embeds[row : row + 1], alone.motion_text_embeds) <= 1e-5


def test_what_stands_in_padding_changes_nothing() -> None:
    model = tiny_moted()
    inputs = {"pixel_values": tiny_videos(), "labels": LABELS, **tiny_texts()}
    descriptions = tiny_descriptions(missing=MISSING)
    expected = model(**inputs, **descriptions)
    expected.loss.backward()
    gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    longer = {name: functional.pad(tensor, (0, 3, 0, 2)) for name, tensor in descriptions.items()}  # two more columns
    hidden = longer["description_attention_mask"] == 0
    hidden &= ~longer["description_attention_mask"].bool().any(dim=-1, keepdim=True)
    longer["description_input_ids"][hidden] = 57
    output = model(**inputs, **longer)
    for name, value in expected.items():
        assert largest_difference(output[name], value) <= 1e-5, name
    output.loss.backward()
    for name, gradient in gradients.items():
        assert largest_difference(model.get_parameter(name).grad, gradient) <= 1e-4, name


def test_order_of_the_descriptions_of_a_class_does_not_matter() -> None:
    model = tiny_moted()
    descriptions = tiny_descriptions()
    expected = model(pixel_values=tiny_videos(), **tiny_texts(), **descriptions)
    turned = {name: tensor.roll(1, dims=1) for name, tensor in descriptions.items()}
    output = model(pixel_values=tiny_videos(), **tiny_texts(), **turned)
    for name in EMBEDS:
        assert largest_difference(output[name], expected[name]) <= 1e-5, name


def test_classes_do_not_see_each_other() -> None:
    model = tiny_moted()
    names, descriptions = tiny_texts(4), tiny_descriptions(4)
    expected = model(pixel_values=tiny_videos(), **names, **descriptions)
    order = torch.tensor([2, 0, 3, 1])
    output = model(
        pixel_values=tiny_videos(), **{name: tensor[order] for name, tensor in {**names, **descriptions}.items()}
    )
    for name in EMBEDS:
        assert largest_difference(output[name], expected[name][order]) <= 1e-5, name


COLUMNS = {(True, True): slice(0, 4), (True, False): slice(0, 1), (False, True): slice(1, 4)}


@pytest.mark.parametrize("as_bank", [False, True])
@pytest.mark.parametrize("kinds", COLUMNS, ids=str)
def test_configuration_chooses_conceptual_or_discriminative_descriptions(
    kinds: tuple[bool, bool], as_bank: bool
) -> None:
    model = tiny_moted()
    names, descriptions = tiny_texts(), tiny_descriptions(missing=[(1, 2)])
    chosen = {name: tensor[:, COLUMNS[kinds]] for name, tensor in descriptions.items()}
    expected = model(pixel_values=tiny_videos(), **names, **chosen)
    model.config.use_conceptual, model.config.use_discriminative = kinds
    texts = {**names, **descriptions}
    output = model(pixel_values=tiny_videos(), **({"text_bank": model.encode_texts(**texts)} if as_bank else texts))
    for name, value in expected.items():
        assert largest_difference(output[name], value) <= 1e-5, name


def test_class_name_is_its_own_description_where_there_is_none() -> None:
    model = tiny_moted()
    names = tiny_texts()
    as_descriptions = {f"description_{name}": tensor.unsqueeze(1) for name, tensor in names.items()}
    expected = model(pixel_values=tiny_videos(), **names, **as_descriptions)
    without = model(pixel_values=tiny_videos(), **names)
    bank = model(pixel_values=tiny_videos(), text_bank=model.encode_texts(**names))
    model.config.use_conceptual = model.config.use_discriminative = False
    unused = model(pixel_values=tiny_videos(), **names, **tiny_descriptions())
    for name, value in expected.items():
        for output in (without, bank, unused):
            assert largest_difference(output[name], value) <= 1e-5, name


def test_without_adapter_the_motion_text_is_the_mean_of_unit_features() -> None:
    model = tiny_moted(use_text_adapter=False)
    descriptions = tiny_descriptions(missing=[(0, 3)])
    output = model(pixel_values=tiny_videos(), **tiny_texts(), **descriptions)
    for row in range(3):
        there = descriptions["description_attention_mask"][row].any(dim=-1)
        ids, mask = (tensor[row, there] for tensor in descriptions.values())
        features = functional.normalize(model.get_text_features(ids, mask).pooler_output, dim=-1)
        expected = functional.normalize(features.mean(dim=0), dim=-1)
        assert largest_difference(output.motion_text_embeds[row], expected) <= 1e-5


@pytest.mark.parametrize("as_bank", [False, True])
@pytest.mark.parametrize(
    ("fields", "count", "missing", "lacking"),
    [
        ({"use_conceptual": False}, 3, [(1, 1), (1, 2)], "[1]"),
        ({"use_discriminative": False}, 3, [(0, 0), (2, 0)], "[0, 2]"),
        ({}, 2, [(1, 0), (1, 1)], "[1]"),
        ({"use_conceptual": False}, 1, [], "all|[0, 1, 2]"),
    ],
)
def test_class_without_a_description_of_the_used_kind_is_refused(
    fields: dict[str, bool], count: int, missing: list[tuple[int, int]], lacking: str, as_bank: bool
) -> None:
    model = tiny_moted(**fields)
    texts: dict[str, Any] = {**tiny_texts(), **tiny_descriptions(count=count, missing=missing)}
    if as_bank:
        texts = {"text_bank": model.encode_texts(**texts)}
    config = model.config
    message = (
        f" have no description left with use_conceptual={config.use_conceptual}, "
        f"use_discriminative={config.use_discriminative}; give each class one of that kind."
    )
    which = "|".join(map(re.escape, lacking.split("|")))
    with pytest.raises(ValueError, match=f"^the classes ({which}){re.escape(message)}$"):
        model(pixel_values=tiny_videos(), **texts)


# The bank


@pytest.mark.parametrize("setting", [{}, {"use_conceptual": False}, {"motion_encoder": "serial"}, {"fuse_text": False}])
@pytest.mark.parametrize("missing", [(), [(0, 2), (2, 3)]], ids=["all", "some"])
def test_cached_texts_equal_uncached_ones(missing: Any, setting: dict[str, Any]) -> None:
    model = tiny_moted(**setting)
    texts = {**tiny_texts(), **tiny_descriptions(missing=missing)}
    bank = model.encode_texts(**texts, names=["a", "b", "c"])
    uncached = model(pixel_values=tiny_videos(), labels=LABELS, **texts)
    cached = model(pixel_values=tiny_videos(), labels=LABELS, text_bank=bank)
    for name, value in uncached.items():
        assert torch.equal(cached[name], value), name


def test_model_with_a_bank_never_runs_the_text_tower() -> None:
    model = tiny_moted()
    texts = {**tiny_texts(), **tiny_descriptions()}
    calls = []
    for module in (model.text_model, model.text_projection):
        module.register_forward_hook(lambda *_: calls.append(1))
    bank = model.encode_texts(**texts)
    assert calls == [1, 1] * 2, "once for names, once for descriptions"
    calls.clear()
    model(pixel_values=tiny_videos(), text_bank=bank, labels=LABELS).loss.backward()
    assert calls == []
    model(pixel_values=tiny_videos(), **texts)
    assert len(calls) == 4


def test_training_with_a_bank_gives_the_gradients_of_training_with_tokens() -> None:
    model = tiny_moted().train()
    texts = {**tiny_texts(), **tiny_descriptions(missing=[(1, 1)])}
    model(pixel_values=tiny_videos(), labels=LABELS, **texts).loss.backward()
    expected = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    model(pixel_values=tiny_videos(), labels=LABELS, text_bank=model.encode_texts(**texts)).loss.backward()
    assert expected
    for name, gradient in expected.items():
        assert largest_difference(model.get_parameter(name).grad, gradient) <= 1e-5, name


def test_bank_of_other_text_weights_is_refused(tmp_path: Path) -> None:
    model, other = tiny_moted(), tiny_moted()
    scatter_weights(other)
    bank = other.encode_texts(**tiny_texts(), **tiny_descriptions())
    message = (
        f"this TextBank was made by text weights {bank.text_fingerprint[:12]}, the model has "
        f"{model.text_fingerprint()[:12]}: its features would be wrong. Encode the class texts again with this model's "
        "encode_texts(...)."
    )
    with pytest.raises(ValueError, match=exactly(message)):
        model(pixel_values=tiny_videos(), text_bank=bank)
    with pytest.raises(ValueError, match="made by text weights"):
        model(pixel_values=tiny_videos(), text_bank=tiny_model().encode_texts(**tiny_texts()))


def test_saved_bank_serves_the_saved_model(tmp_path: Path) -> None:
    model = tiny_moted()
    bank = model.encode_texts(**tiny_texts(), **tiny_descriptions(missing=[(0, 1)]))
    expected = model(pixel_values=tiny_videos(), text_bank=bank).logits_per_video
    bank.save(tmp_path / "bank")
    model.save_pretrained(tmp_path / "model")
    loaded = MotedModel.from_pretrained(tmp_path / "model")
    logits = loaded(pixel_values=tiny_videos(), text_bank=TextBank.load(tmp_path / "bank")).logits_per_video
    assert torch.equal(logits, expected)


def test_trained_modules_leave_the_bank_valid() -> None:
    """Training changes no text weight, so one bank serves the whole run."""
    model = tiny_moted().train()
    bank = model.encode_texts(**tiny_texts(), **tiny_descriptions())
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-2)
    model(pixel_values=tiny_videos(), text_bank=bank, labels=LABELS).loss.backward()
    optimiser.step()
    assert model.check_text_bank(bank)


def test_bank_in_full_precision_serves_a_model_under_autocast() -> None:
    model = tiny_moted()
    texts = {**tiny_texts(), **tiny_descriptions(missing=[(0, 2)])}
    bank = model.encode_texts(**texts)
    expected = model(pixel_values=tiny_videos(), text_bank=bank)
    with torch.autocast("cpu", torch.bfloat16):
        output = model(pixel_values=tiny_videos(), text_bank=bank)
    for name, value in expected.items():
        assert largest_difference(output[name], value) <= 0.05 * max(1, value.abs().max().item()), name


# Outputs


def test_features_are_those_of_the_forward_pass() -> None:
    for motion_encoder in ("parallel", "serial", "none"):
        model = tiny_moted(motion_encoder=motion_encoder)
        videos, texts = tiny_videos(), tiny_texts()
        output = model(pixel_values=videos, **texts)
        video, motion = model.get_video_features(videos), model.get_motion_features(videos)
        for features, embeds in ((video, output.video_embeds), (motion, output.motion_embeds)):
            assert features.last_hidden_state.shape == (2, 4, 32)
            assert torch.equal(features.pooler_output, features.last_hidden_state.mean(dim=1))
            assert largest_difference(functional.normalize(features.pooler_output, dim=-1), embeds) <= 1e-6
        assert (largest_difference(output.video_embeds, output.motion_embeds) == 0) == (motion_encoder != "parallel")
        bank = model.encode_texts(**texts)
        assert torch.equal(model.get_text_features(**texts).pooler_output, bank.text_embeds)
        assert not bank.text_embeds.requires_grad
        for name in ("video_embeds", "text_embeds", "motion_embeds", "motion_text_embeds"):
            assert largest_difference(output[name].norm(dim=-1), torch.ones(len(output[name]))) <= 1e-5, name


@pytest.mark.parametrize("choice", ["video", "motion", "sum"])
def test_inference_logits_are_chosen_by_the_configuration(choice: str) -> None:
    model = tiny_moted(inference_logits=choice)
    output = model(pixel_values=tiny_videos(), labels=LABELS, **tiny_texts(), **tiny_descriptions())
    video = model.logit_scale.exp() * output.video_embeds @ output.text_embeds.T
    motion = model.logit_scale.exp() * output.motion_embeds @ output.motion_text_embeds.T
    assert largest_difference(video, motion) > 0.1
    assert largest_difference(output.video_logits_per_video, video) <= 1e-5
    assert largest_difference(output.motion_logits_per_video, motion) <= 1e-5
    expected = {"video": video, "motion": motion, "sum": video + motion}[choice]
    assert largest_difference(output.logits_per_video, expected) <= 1e-5
    assert torch.equal(output.logits_per_text, output.logits_per_video.T)
    loss = functional.cross_entropy(video, LABELS) + functional.cross_entropy(motion, LABELS)
    assert largest_difference(output.loss, loss) <= 1e-5, "whatever the logits of inference"


def test_soft_labels_give_the_cross_entropies_of_both_streams() -> None:
    model = tiny_moted()
    labels = torch.tensor([[0.2, 0.5, 0.3], [1.0, 0.0, 0.0]])
    output = model(pixel_values=tiny_videos(), labels=labels, **tiny_texts(), **tiny_descriptions())
    streams = (output.video_logits_per_video, output.motion_logits_per_video)
    expected = sum(-(labels * logits.log_softmax(dim=1)).sum(dim=1).mean() for logits in streams)
    assert largest_difference(output.loss, expected) <= 1e-5


def test_output_can_be_a_tuple_and_has_no_loss_without_labels() -> None:
    model = tiny_moted()
    inputs = {"pixel_values": tiny_videos(), **tiny_texts()}
    output = model(**inputs)
    assert output.loss is None
    as_tuple = model(**inputs, return_dict=False)
    assert all(torch.equal(left, right) for left, right in zip(as_tuple, output.to_tuple(), strict=True))


@pytest.mark.parametrize(
    ("labels", "error", "message"),
    [
        (
            torch.zeros(3, dtype=torch.long),
            ValueError,
            "labels has shape (3,); wanted (B,) = (2,) class ids or (B,N) = (2, 3) probabilities.",
        ),
        (torch.tensor([0, 3]), ValueError, "labels must lie in 0..2, the classes there are; got [0, 3]."),
        (torch.zeros(2), TypeError, "labels of shape (B,) are class ids and must be int64; got torch.float32."),
    ],
)
def test_labels_that_do_not_fit_raise(labels: torch.Tensor, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=exactly(message)):
        tiny_moted()(pixel_values=tiny_videos(), labels=labels, **tiny_texts())


# Inputs that do not fit


@pytest.mark.parametrize("method", ["forward", "get_video_features", "get_motion_features", "get_text_features"])
def test_unknown_keyword_raises_and_is_named(method: str) -> None:
    with pytest.raises(TypeError, match="unexpected keyword argument 'label'"):
        getattr(tiny_moted(), method)(label=torch.tensor([0]))


WRONG_VIDEOS: dict[tuple[int, ...] | None, str] = {
    None: "pixel_values is missing; pass (B,T,3,H,W) floats, as the processor returns them.",
    (2, 7, 3, 32, 32): (
        "pixel_values has 7 frames, no multiple of motion_frame_ratio=2: MoTED takes 2 frames for each of T sparse "
        "ones. VideoTextProcessor(motion_frame_ratio=2) makes them."
    ),
    (2, 1, 3, 32, 32): (
        "pixel_values has 1 frames, no multiple of motion_frame_ratio=2: MoTED takes 2 frames for each of T sparse "
        "ones. VideoTextProcessor(motion_frame_ratio=2) makes them."
    ),
    (2, 8, 3, 40, 32): "images of 40x32 pixels are not divisible by the patch size 16.",
    (2, 8, 3, 32, 33): "images of 32x33 pixels are not divisible by the patch size 16.",
    (8, 3, 32, 32): "pixel_values has shape (8, 3, 32, 32); wanted (B,T,3,H,W) with B, T >= 1.",
    (2, 0, 3, 32, 32): "pixel_values has shape (2, 0, 3, 32, 32); wanted (B,T,3,H,W) with B, T >= 1.",
    (2, 3, 8, 32, 32): "pixel_values has shape (2, 3, 8, 32, 32); wanted (B,T,3,H,W) with B, T >= 1.",
    (1, 2, 8, 3, 32, 32): (
        "pixel_values has shape (1, 2, 8, 3, 32, 32), (B,V,T,C,H,W) with V views; the model takes (B,T,C,H,W). "
        "Fold the views into the batch with pixel_values.flatten(0, 1) and average the V results of each video."
    ),
}


@pytest.mark.parametrize("motion_encoder", ["parallel", "none"])
@pytest.mark.parametrize("shape", WRONG_VIDEOS, ids=str)
def test_videos_that_do_not_fit_raise(shape: tuple[int, ...] | None, motion_encoder: str) -> None:
    model = tiny_moted(motion_encoder=motion_encoder)
    videos = None if shape is None else torch.zeros(shape)
    with pytest.raises(ValueError, match=exactly(WRONG_VIDEOS[shape])):
        model(pixel_values=videos, **tiny_texts())
    for method in (model.get_video_features, model.get_motion_features):
        with pytest.raises(ValueError, match=exactly(WRONG_VIDEOS[shape])):
            method(videos)


IDS = torch.full((3, 4, 9), 98)
WRONG_TEXTS: list[tuple[dict[str, torch.Tensor], str]] = [
    ({}, "pass the class names as input_ids, or class texts as text_bank; neither was given."),
    (
        {"description_input_ids": IDS},
        "pass the class names as input_ids, or class texts as text_bank; neither was given.",
    ),
    ({"input_ids": IDS[0, 0]}, "input_ids must be (N, L), one row per class text; got (9,)."),
    ({"input_ids": IDS[:0, 0]}, "input_ids must be (N, L), one row per class text; got (0, 9)."),
    (
        {"input_ids": IDS[:, 0], "description_input_ids": IDS[:2]},
        "description_input_ids must be (N, k+1, L) with N = 3, the class names; got (2, 4, 9).",
    ),
    (
        {"input_ids": IDS[:, 0], "description_input_ids": IDS.flatten(0, 1)},
        "description_input_ids must be (N, k+1, L) with N = 3, the class names; got (12, 9).",
    ),
    (
        {"input_ids": IDS[:, 0], "description_input_ids": IDS[:, :0]},
        "description_input_ids must be (N, k+1, L) with N = 3, the class names; got (3, 0, 9).",
    ),
    (
        {"input_ids": IDS[:, 0], "description_input_ids": IDS, "description_attention_mask": IDS[:, :, :8]},
        "description_attention_mask has shape (3, 4, 8); wanted (3, 4, 9), that of description_input_ids.",
    ),
    (
        {"input_ids": IDS[:, 0], "description_attention_mask": IDS},
        "description_attention_mask was given without description_input_ids.",
    ),
]


@pytest.mark.parametrize(("texts", "message"), WRONG_TEXTS, ids=[str(number) for number in range(len(WRONG_TEXTS))])
def test_class_texts_that_do_not_fit_raise(texts: dict[str, torch.Tensor], message: str) -> None:
    with pytest.raises(ValueError, match=exactly(message)):
        tiny_moted()(pixel_values=tiny_videos(), **texts)


@pytest.mark.parametrize("name", ["input_ids", "description_input_ids"])
def test_tokens_beside_a_bank_raise(name: str) -> None:
    model = tiny_moted()
    texts = {**tiny_texts(), **tiny_descriptions()}
    bank = model.encode_texts(**texts)
    message = "pass the class texts as tokens or as text_bank; both were given."
    with pytest.raises(ValueError, match=exactly(message)):
        model(pixel_values=tiny_videos(), text_bank=bank, **{name: texts[name]})


def test_a_frame_mask_is_refused_with_the_way_out() -> None:
    with pytest.raises(ValueError, match="equal length"):
        tiny_moted()(pixel_values=tiny_videos(), **tiny_texts(), frame_mask=torch.ones(2, 8))
