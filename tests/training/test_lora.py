"""LoRA: what is adapted and trained, what stays, and that a merged model is an ordinary one."""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from testing_utils import (
    largest_difference,
    scatter_weights,
    tiny_config,
    tiny_model,
    tiny_moted,
    tiny_texts,
    tiny_video_clip,
    tiny_video_clip_config,
    tiny_videos,
)
from transformers import AutoModel

from kinetext import VideoCLIPForVideoClassification, XCLIPForVideoClassification
from kinetext.training.lora import adapter_parameter_names, add_lora, merge_lora
from kinetext.training.optimisation import parameter_groups

PROJECTIONS = ("q_proj", "k_proj", "v_proj", "out_proj")


def adapted_model(*, text: bool = False, vision: bool | None = None, **options: Any) -> Any:
    model = tiny_model()
    model.set_trainable(text=text, vision=vision)
    add_lora(model, rank=2, alpha=4, **options)
    return model


def inputs_of(model: Any) -> dict[str, torch.Tensor]:
    return {"pixel_values": tiny_videos(), **(tiny_texts() if hasattr(model, "text_model") else {})}


def train_step(model: Any) -> dict[str, torch.Tensor]:
    """One large step over all that is trainable; returns its gradients."""
    labels = torch.tensor([0, 2])
    for _ in range(2):  # the first only moves B: A has no gradient while B is 0
        model.zero_grad()
        model(**inputs_of(model), labels=labels).loss.backward()
        gradients = {name: value.grad for name, value in model.named_parameters() if value.grad is not None}
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.grad is not None:
                    parameter.sub_(parameter.grad * 0.1)
    return gradients


def logits_of(model: Any) -> torch.Tensor:
    with torch.no_grad():
        outputs = model(**inputs_of(model))
    return outputs["logits_per_video" if hasattr(model, "text_model") else "logits"]


@pytest.mark.parametrize(
    ("towers", "adapted_prefixes"),
    [
        ({"text": False}, ("vision_model",)),
        ({"text": True}, ("vision_model", "text_model")),
        ({"text": True, "vision": False}, ("text_model",)),
    ],
)
def test_attention_of_the_towers_in_training_is_adapted_and_nothing_else(
    towers: dict[str, bool], adapted_prefixes: tuple[str, ...]
) -> None:
    plain = tiny_model()
    expected = {
        f"{name}.lora_{matrix}.default.weight"
        for name, module in plain.named_modules()
        for matrix in "AB"
        if name.startswith(adapted_prefixes) and ".self_attn." in name and name.endswith(PROJECTIONS)
    }
    model = adapted_model(**towers)

    assert adapter_parameter_names(model) == expected and expected
    trainable = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    scale = {"logit_scale"} if towers["text"] else set()
    assert trainable == expected | model.new_parameter_names() | scale
    assert model.new_parameter_names() == plain.new_parameter_names()


def test_other_layers_can_be_chosen() -> None:
    names = adapter_parameter_names(adapted_model(targets=("fc1",)))
    assert {name.partition(".lora")[0].rpartition(".")[2] for name in names} == {"fc1"}


def test_a_fresh_adapter_changes_nothing() -> None:
    assert torch.equal(logits_of(adapted_model()), logits_of(tiny_model()))


def test_gradients_reach_every_adapter_and_new_module_and_no_frozen_weight() -> None:
    model = adapted_model()
    gradients = train_step(model)

    assert set(gradients) == adapter_parameter_names(model) | model.new_parameter_names()
    without = {name for name, gradient in gradients.items() if not gradient.any()}
    assert not without & adapter_parameter_names(model)


def test_gradient_checkpointing_gives_the_same_gradients() -> None:
    plain, saving = adapted_model().train(), adapted_model().train()
    saving.load_state_dict(plain.state_dict())
    saving.activation_checkpointing_enable()
    expected = train_step(plain)
    for name, gradient in train_step(saving).items():
        torch.testing.assert_close(gradient, expected.pop(name), rtol=1e-5, atol=1e-7)
    assert not expected


def test_adapters_learn_at_the_rate_of_new_modules() -> None:
    model = adapted_model()
    groups = parameter_groups(model, learning_rate=1e-3, new_module_lr_factor=10.0, weight_decay=0.1)

    names = {id(parameter): name for name, parameter in model.named_parameters()}
    assert {group["name"] for group in groups} == {"new", "new_no_decay"}
    assert {names[id(p)] for p in groups[0]["params"]} >= adapter_parameter_names(model)


def test_a_merged_model_scores_the_same_with_the_ordinary_keys(tmp_path: Path) -> None:
    model = adapted_model(text=True)
    train_step(model)
    before = logits_of(model)
    assert largest_difference(before, logits_of(tiny_model())) > 1e-2  # the step was no small one
    merged = merge_lora(copy.deepcopy(model))
    assert adapter_parameter_names(model) and torch.equal(logits_of(model), before)  # the copy left it alone

    assert set(merged.state_dict()) == set(tiny_model().state_dict())
    assert adapter_parameter_names(merged) == set()
    assert largest_difference(logits_of(merged), before) < 1e-5
    merged.save_pretrained(tmp_path)
    loaded, report = AutoModel.from_pretrained(tmp_path, output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"]
    assert torch.equal(logits_of(loaded.eval()), logits_of(merged))
    assert "peft" not in (tmp_path / "config.json").read_text()
    assert not list(tmp_path.glob("adapter*"))


def scattered(model: Any) -> Any:
    scatter_weights(model)
    return model.eval()


@pytest.mark.parametrize(
    ("make", "adapted_towers"),
    [
        (lambda: tiny_video_clip("transformer", train_text=False), {"vision_model"}),
        (lambda: tiny_video_clip("mean", train_text=True), {"vision_model", "text_model"}),
        (lambda: scattered(XCLIPForVideoClassification(tiny_config(num_labels=3))), {"vision_model"}),
        (
            lambda: scattered(VideoCLIPForVideoClassification(tiny_video_clip_config("transformer", num_labels=3))),
            {"vision_model"},
        ),
    ],
    ids=["VideoCLIP", "VideoCLIP with its text", "X-CLIP classifier", "VideoCLIP classifier"],
)
def test_other_models_are_adapted_and_merged_alike(
    make: Callable[[], Any], adapted_towers: set[str], tmp_path: Path
) -> None:
    torch.manual_seed(0)
    model = make()
    keys, new_names = set(model.state_dict()), model.new_parameter_names()
    add_lora(model, rank=2, alpha=4)
    before = logits_of(model)
    gradients = train_step(model)

    assert {name.partition(".")[0] for name in adapter_parameter_names(model)} == adapted_towers
    scale = {"logit_scale"} & {name for name, value in model.named_parameters() if value.requires_grad}
    assert set(gradients) == adapter_parameter_names(model) | new_names | scale
    after = logits_of(model)
    assert largest_difference(after, before) > 1e-3
    merge_lora(model).save_pretrained(tmp_path)
    assert set(model.state_dict()) == keys
    assert largest_difference(logits_of(model), after) < 1e-5
    assert torch.equal(logits_of(type(model).from_pretrained(tmp_path).eval()), logits_of(model))


def test_state_of_a_model_in_training_loads_into_one_with_fresh_adapters() -> None:
    model = adapted_model()
    train_step(model)
    resumed = adapted_model()
    resumed.load_state_dict({name: value.clone() for name, value in model.state_dict().items()}, strict=True)

    train_step(model)
    train_step(resumed)
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in resumed.state_dict().items())


def test_class_texts_are_encoded_as_without_adapters() -> None:
    model = adapted_model()
    bank = model.encode_texts(**tiny_texts())
    assert bank.text_fingerprint == tiny_model().text_fingerprint()
    train_step(model)
    logits = model(pixel_values=tiny_videos(), text_bank=bank).logits_per_video
    assert largest_difference(logits, logits_of(model)) < 1e-6


def test_adapters_of_the_text_tower_count_as_its_weights() -> None:
    model = adapted_model(text=True)
    bank = model.encode_texts(**tiny_texts())
    train_step(model)
    with pytest.raises(ValueError, match="made by text weights"):
        model(pixel_values=tiny_videos(), text_bank=bank)


def test_merging_weights_that_are_not_finite_is_refused() -> None:
    model = adapted_model()
    train_step(model)
    name = sorted(adapter_parameter_names(model))[0]
    with torch.no_grad():
        model.get_parameter(name)[0, 0] = torch.nan
    with pytest.raises(ValueError, match="NaNs detected in the merged weights"):
        merge_lora(model)


def test_merging_a_model_without_adapters_leaves_it_alone() -> None:
    model = tiny_model()
    assert merge_lora(model) is model
    assert torch.equal(logits_of(model), logits_of(tiny_model()))


def test_moted_has_nothing_to_adapt() -> None:
    model = tiny_moted()
    model.set_trainable()
    with pytest.raises(ValueError, match=r"nothing to adapt in MotedModel: .* leave LoRA out .* MoTED"):
        add_lora(model, rank=2, alpha=4)


def test_a_second_set_of_adapters_is_refused() -> None:
    model = adapted_model()
    with pytest.raises(ValueError, match="nothing to adapt in XCLIPModel"):
        add_lora(model, rank=2, alpha=4)


def test_without_peft_the_message_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(ImportError, match=r'pip install "kinetext\[lora\]"'):
        add_lora(tiny_model(), rank=2, alpha=4)
    assert adapter_parameter_names(tiny_model()) == set()
