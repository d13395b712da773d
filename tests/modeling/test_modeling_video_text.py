"""Labels, input checks and the bank of class texts."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
import resource
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
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

from kinetext import TextBank, XCLIPModel
from kinetext.modeling import modeling_video_text


def exactly(message: str) -> str:
    return f"^{re.escape(message)}$"


# Labels and losses


def test_hard_labels_give_the_cross_entropy_over_class_texts(model: XCLIPModel) -> None:
    labels = torch.tensor([2, 0])
    output = model(pixel_values=tiny_videos(), labels=labels, **tiny_texts())
    assert torch.equal(output.loss, functional.cross_entropy(output.logits_per_video, labels))
    output.loss.backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_soft_one_hot_labels_equal_hard_ones(model: XCLIPModel) -> None:
    inputs = {"pixel_values": tiny_videos(), **tiny_texts()}
    labels = torch.tensor([2, 0])
    hard = model(labels=labels, **inputs).loss
    soft = model(labels=functional.one_hot(labels, 3).double(), **inputs).loss
    assert largest_difference(hard, soft) <= 1e-6


def test_soft_labels_mix_the_losses_of_hard_ones(model: XCLIPModel) -> None:
    inputs = {"pixel_values": tiny_videos(), **tiny_texts()}
    first, second = torch.tensor([2, 0]), torch.tensor([1, 1])
    mixed = 0.3 * functional.one_hot(first, 3).float() + 0.7 * functional.one_hot(second, 3).float()
    expected = 0.3 * model(labels=first, **inputs).loss + 0.7 * model(labels=second, **inputs).loss
    assert largest_difference(model(labels=mixed, **inputs).loss, expected) <= 1e-5


@pytest.mark.parametrize("dtype", [torch.int32, torch.uint8])
def test_labels_of_other_integer_types_are_taken(model: XCLIPModel, dtype: torch.dtype) -> None:
    inputs = {"pixel_values": tiny_videos(), **tiny_texts()}
    labels = torch.tensor([2, 0])
    assert torch.equal(model(labels=labels.to(dtype), **inputs).loss, model(labels=labels, **inputs).loss)


def test_loss_is_none_without_labels(model: XCLIPModel) -> None:
    assert model(pixel_values=tiny_videos(), **tiny_texts()).loss is None


@pytest.mark.parametrize(
    ("labels", "error", "message"),
    [
        (
            torch.zeros(3, dtype=torch.long),
            ValueError,
            "labels has shape (3,); wanted (B,) = (2,) class ids or (B,N) = (2, 3) probabilities.",
        ),
        (
            torch.zeros(2, 4),
            ValueError,
            "labels has shape (2, 4); wanted (B,) = (2,) class ids or (B,N) = (2, 3) probabilities.",
        ),
        (torch.zeros(2), TypeError, "labels of shape (B,) are class ids and must be int64; got torch.float32."),
        (
            torch.zeros(2, dtype=torch.bool),
            TypeError,
            "labels of shape (B,) are class ids and must be int64; got torch.bool.",
        ),
        (
            torch.zeros(2, 3, dtype=torch.long),
            TypeError,
            "labels of shape (B,N) are probabilities and must be float; got torch.int64.",
        ),
        (torch.tensor([0, 3]), ValueError, "labels must lie in 0..2, the classes there are; got [0, 3]."),
        (torch.tensor([-100, 1]), ValueError, "labels must lie in 0..2, the classes there are; got [-100, 1]."),
    ],
    ids=str,
)
def test_labels_that_do_not_fit_raise(
    model: XCLIPModel, labels: torch.Tensor, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=exactly(message)):
        model(pixel_values=tiny_videos(), labels=labels, **tiny_texts())


def test_labels_and_return_loss_together_raise(model: XCLIPModel) -> None:
    message = "return_loss=True and labels are two different losses; pass one of them."
    with pytest.raises(ValueError, match=exactly(message)):
        model(pixel_values=tiny_videos(), labels=torch.tensor([0, 1]), return_loss=True, **tiny_texts())


# Inputs


@pytest.mark.parametrize("method", ["forward", "get_video_features", "get_text_features"])
def test_unknown_keyword_raises_and_is_named(model: XCLIPModel, method: str) -> None:
    with pytest.raises(TypeError, match="unexpected keyword argument 'label'"):
        getattr(model, method)(label=torch.tensor([0]))


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((8, 3, 32, 32), "pixel_values has shape (8, 3, 32, 32); wanted (B,T,3,H,W) with B, T >= 1."),
        ((2, 3, 8, 32, 32), "pixel_values has shape (2, 3, 8, 32, 32); wanted (B,T,3,H,W) with B, T >= 1."),
        ((2, 0, 3, 32, 32), "pixel_values has shape (2, 0, 3, 32, 32); wanted (B,T,3,H,W) with B, T >= 1."),
        ((0, 8, 3, 32, 32), "pixel_values has shape (0, 8, 3, 32, 32); wanted (B,T,3,H,W) with B, T >= 1."),
        (
            (2, 4, 8, 3, 32, 32),
            "pixel_values has shape (2, 4, 8, 3, 32, 32), (B,V,T,C,H,W) with V views; the model takes (B,T,C,H,W). "
            "Fold the views into the batch with pixel_values.flatten(0, 1) and average the V results of each video.",
        ),
    ],
    ids=str,
)
def test_pixel_values_of_another_shape_raise(model: XCLIPModel, shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValueError, match=exactly(message)):
        model(pixel_values=torch.zeros(shape), **tiny_texts())
    with pytest.raises(ValueError, match=exactly(message)):
        model.get_video_features(torch.zeros(shape))


def test_missing_pixel_values_raise(model: XCLIPModel) -> None:
    message = "pixel_values is missing; pass (B,T,3,H,W) floats, as the processor returns them."
    with pytest.raises(ValueError, match=exactly(message)):
        model(**tiny_texts())


@pytest.mark.parametrize(
    ("frame_mask", "message"),
    [
        (
            torch.ones(2, 7),
            "frame_mask has shape (2, 7); wanted (B,T) = (2, 8), 1 for a frame and 0 for padding.",
        ),
        (torch.ones(8), "frame_mask has shape (8,); wanted (B,T) = (2, 8), 1 for a frame and 0 for padding."),
        (
            torch.tensor([[1.0] * 8, [0.0] * 8]),
            "frame_mask has a row without any frame; every video needs at least one.",
        ),
    ],
    ids=["length", "dimensions", "empty"],
)
def test_frame_mask_that_does_not_fit_raises(model: XCLIPModel, frame_mask: torch.Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=exactly(message)):
        model(pixel_values=tiny_videos(), frame_mask=frame_mask, **tiny_texts())


@pytest.mark.parametrize("given", ["neither", "both"])
def test_class_texts_are_wanted_once(model: XCLIPModel, given: str) -> None:
    texts = tiny_texts()
    inputs = {} if given == "neither" else {**texts, "text_bank": model.encode_texts(**texts)}
    message = f"pass the class texts as input_ids or as text_bank; {given} were given."
    with pytest.raises(ValueError, match=exactly(message)):
        model(pixel_values=tiny_videos(), **inputs)


# The bank


def test_cached_texts_equal_uncached_ones(model: XCLIPModel) -> None:
    texts, videos, labels = tiny_texts(5), tiny_videos(), torch.tensor([4, 1])
    bank = model.encode_texts(**texts, names=list("abcde"))
    uncached = model(pixel_values=videos, labels=labels, **texts)
    cached = model(pixel_values=videos, labels=labels, text_bank=bank)
    for name in ("loss", "logits_per_video", "logits_per_text", "video_embeds", "text_embeds"):
        assert largest_difference(uncached[name], cached[name]) <= 1e-6, name
    assert cached.text_model_output is None
    assert (bank.names, len(bank), bank.tokenizer_fingerprint) == (("a", "b", "c", "d", "e"), 5, None)
    assert largest_difference(bank.text_embeds, model.get_text_features(**texts).pooler_output) <= 1e-6


def test_cached_output_can_be_a_tuple(model: XCLIPModel) -> None:
    bank = model.encode_texts(**tiny_texts())
    output = model(pixel_values=tiny_videos(), text_bank=bank, return_dict=False)
    assert torch.equal(output[0], model(pixel_values=tiny_videos(), text_bank=bank).logits_per_text)


def test_bank_carries_no_gradient_and_the_rest_still_learns(model: XCLIPModel) -> None:
    bank = model.encode_texts(**tiny_texts())
    assert not bank.text_embeds.requires_grad
    model(pixel_values=tiny_videos(), text_bank=bank, labels=torch.tensor([0, 1])).loss.backward()
    silent = {name for name, parameter in model.named_parameters() if parameter.grad is None}
    assert silent == {
        name for name, _ in model.named_parameters() if name.startswith(("text_model.", "text_projection."))
    }


def test_bank_does_not_depend_on_the_size_of_the_chunks(model: XCLIPModel, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = tiny_texts(7)
    whole = model.encode_texts(**texts).text_embeds
    for size in (1, 2, 7):
        monkeypatch.setattr(modeling_video_text, "_TEXTS_PER_FORWARD", size)
        assert largest_difference(model.encode_texts(**texts).text_embeds, whole) <= 1e-6
        without_mask = model.encode_texts(texts["input_ids"]).text_embeds
        assert largest_difference(without_mask, whole) <= 1e-5  # attention is causal, so padding is never seen


def test_bank_of_more_texts_than_one_chunk(model: XCLIPModel) -> None:
    assert modeling_video_text._TEXTS_PER_FORWARD == 256
    texts = tiny_texts(300)
    bank = model.encode_texts(**texts)
    assert bank.names[299] == "299"
    assert largest_difference(bank.text_embeds, model.get_text_features(**texts).pooler_output) <= 1e-5


def test_saved_bank_loads_equal(model: XCLIPModel, tmp_path: Path) -> None:
    bank = model.encode_texts(**tiny_texts(), names=["Grün", "走る", 'say "a"'], tokenizer_fingerprint="f" * 64)
    path = tmp_path / "new" / "bank.safetensors"
    bank.save(path)
    loaded = TextBank.load(str(path))
    assert torch.equal(loaded.text_embeds, bank.text_embeds)
    for field in ("names", "text_fingerprint", "tokenizer_fingerprint"):
        assert getattr(loaded, field) == getattr(bank, field), field
    assert [entry.name for entry in path.parent.iterdir()] == ["bank.safetensors"]
    expected = model(pixel_values=tiny_videos(), text_bank=bank).logits_per_video
    assert torch.equal(model(pixel_values=tiny_videos(), text_bank=loaded).logits_per_video, expected)


def test_bank_of_a_saved_model_serves_the_loaded_one(model: XCLIPModel, tmp_path: Path) -> None:
    bank = model.encode_texts(**tiny_texts())
    model.save_pretrained(tmp_path)
    assert XCLIPModel.from_pretrained(tmp_path).check_text_bank(bank)


def test_write_that_fails_leaves_the_old_bank(model: XCLIPModel, tmp_path: Path) -> None:
    path = tmp_path / "bank.safetensors"
    model.encode_texts(**tiny_texts(), names=["a", "b", "c"]).save(path)
    old = path.read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(old) + 1000, hard))  # as if the disk were full
    try:
        with pytest.raises(Exception, match="(?i)file too large"):
            model.encode_texts(**tiny_texts(200)).save(path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_bytes() == old
    assert [entry.name for entry in tmp_path.iterdir()] == ["bank.safetensors"]


def test_bank_of_other_text_weights_raises(model: XCLIPModel) -> None:
    other = tiny_model()
    scatter_weights(other)
    bank = other.encode_texts(**tiny_texts())
    message = (
        f"this TextBank was made by text weights {bank.text_fingerprint[:12]}, the model has "
        f"{model.text_fingerprint()[:12]}: its features would be wrong. Encode the class texts again with this model's "
        "encode_texts(...)."
    )
    with pytest.raises(ValueError, match=exactly(message)):
        model(pixel_values=tiny_videos(), text_bank=bank)


TEXT_WEIGHTS = [
    "text_model.embeddings.token_embedding.weight",
    "text_model.embeddings.position_embedding.weight",
    "text_model.encoder.layers.1.mlp.fc2.bias",
    "text_model.final_layer_norm.weight",
    "text_projection.weight",
]


@pytest.mark.parametrize("name", TEXT_WEIGHTS)
def test_change_of_text_weights_in_place_is_noticed(model: XCLIPModel, name: str) -> None:
    bank = model.encode_texts(**tiny_texts())
    assert model.check_text_bank(bank)
    with torch.no_grad():
        model.get_parameter(name).flatten()[0].add_(1)
    with pytest.raises(ValueError, match="made by text weights"):
        model(pixel_values=tiny_videos(), text_bank=bank)


def test_optimiser_step_on_the_text_tower_is_noticed(model: XCLIPModel) -> None:
    bank = model.encode_texts(**tiny_texts())
    model(pixel_values=tiny_videos(), labels=torch.tensor([0, 1]), **tiny_texts()).loss.backward()
    torch.optim.AdamW(model.text_model.parameters(), lr=0.1).step()
    with pytest.raises(ValueError, match="made by text weights"):
        model.check_text_bank(bank)


def test_loaded_or_replaced_text_weights_are_noticed(model: XCLIPModel) -> None:
    bank = model.encode_texts(**tiny_texts())
    weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    weights["text_projection.weight"] += 1
    model.load_state_dict(weights)
    with pytest.raises(ValueError, match="made by text weights"):
        model.check_text_bank(bank)
    weights["text_projection.weight"] -= 1
    model.load_state_dict(tiny_model().state_dict(), assign=True)
    assert model.check_text_bank(bank)


@pytest.mark.parametrize("encode_while_training", [False, True])
def test_steps_of_a_fused_optimiser_are_noticed(model: XCLIPModel, encode_while_training: bool) -> None:
    """They change tensors without counting up their versions."""
    optimizer = torch.optim.AdamW(model.text_projection.parameters(), lr=0.1, fused=True)
    bank = model.encode_texts(**tiny_texts())
    for _ in range(2):
        model.train()
        if encode_while_training:
            bank = model.encode_texts(**tiny_texts())
        model.get_text_features(**tiny_texts()).pooler_output.sum().backward()
        optimizer.step()
    model.eval()
    with pytest.raises(ValueError, match="made by text weights"):
        model.check_text_bank(bank)


def test_text_weights_that_cannot_learn_are_hashed_once(model: XCLIPModel, monkeypatch: pytest.MonkeyPatch) -> None:
    model.set_trainable(text=False)
    bank = model.encode_texts(**tiny_texts())
    monkeypatch.setattr(hashlib, "sha256", None)
    assert model.train().check_text_bank(bank) and model.eval().check_text_bank(bank)


def test_change_of_other_weights_is_allowed(model: XCLIPModel) -> None:
    bank = model.encode_texts(**tiny_texts())
    before = model.text_fingerprint()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if not name.startswith(("text_model.", "text_projection.")):
                parameter.add_(0.01)
    assert model.text_fingerprint() == before
    cached = model(pixel_values=tiny_videos(), text_bank=bank).logits_per_video
    assert largest_difference(cached, model(pixel_values=tiny_videos(), **tiny_texts()).logits_per_video) <= 1e-6


def test_bank_of_the_same_model_in_another_dtype_raises(model: XCLIPModel) -> None:
    texts = tiny_texts()
    bank = model.encode_texts(**texts)
    half_bank = model.bfloat16().encode_texts(**texts)
    assert half_bank.text_embeds.dtype == torch.bfloat16
    with pytest.raises(ValueError, match="made by text weights"):
        model.check_text_bank(bank)
    model.float()  # rounded now
    for stale in (bank, half_bank):
        with pytest.raises(ValueError, match="made by text weights"):
            model.check_text_bank(stale)


def test_bank_in_half_precision_serves_a_half_precision_model(model: XCLIPModel, tmp_path: Path) -> None:
    model.bfloat16()
    texts, videos = tiny_texts(), tiny_videos().bfloat16()
    model.encode_texts(**texts).save(tmp_path / "bank")
    bank = TextBank.load(tmp_path / "bank")
    cached = model(pixel_values=videos, text_bank=bank).logits_per_video
    assert largest_difference(cached, model(pixel_values=videos, **texts).logits_per_video) <= 1e-6


def test_features_of_another_dtype_are_cast(model: XCLIPModel) -> None:
    bank = model.encode_texts(**tiny_texts())
    double = dataclasses.replace(bank, text_embeds=bank.text_embeds.double())
    logits = model(pixel_values=tiny_videos(), text_bank=double).logits_per_video
    assert torch.equal(logits, model(pixel_values=tiny_videos(), text_bank=bank).logits_per_video)
    assert torch.equal(bank.to("cpu").text_embeds, bank.text_embeds)


def test_dropout_is_off_while_texts_are_encoded_and_every_mode_is_kept() -> None:
    model = tiny_model(text={"attention_dropout": 0.5}, vision={"attention_dropout": 0.5})
    texts = tiny_texts()
    expected = model.encode_texts(**texts)
    model.train()
    model.text_model.final_layer_norm.eval()  # as one freezes a part
    assert torch.equal(model.encode_texts(**texts).text_embeds, expected.text_embeds)
    modes = {name: module.training for name, module in model.named_modules()}
    assert {name for name, is_training in modes.items() if not is_training} == {"text_model.final_layer_norm"}
    features = [model.get_text_features(**texts).pooler_output for _ in range(2)]
    assert not torch.equal(*features), "dropout acts in training"


def test_modes_are_kept_when_encoding_fails(model: XCLIPModel) -> None:
    model.train()
    with pytest.raises(ValueError, match="Sequence length"):
        model.encode_texts(torch.zeros(1, 99, dtype=torch.long))
    assert model.text_model.training and model.text_model.encoder.layers[1].mlp.training


@pytest.mark.parametrize(
    ("input_ids", "names", "message"),
    [
        (torch.zeros(3, 4, dtype=torch.long), ["a"], "1 names were given for 3 rows of input_ids; give one per row."),
        (torch.zeros(3, 4, dtype=torch.long), [], "0 names were given for 3 rows of input_ids; give one per row."),
        (torch.zeros(4, dtype=torch.long), None, "input_ids must be (N, L), one row per class text; got (4,)."),
        (torch.zeros(0, 4, dtype=torch.long), None, "input_ids must be (N, L), one row per class text; got (0, 4)."),
        (
            torch.zeros(2, 3, 4, dtype=torch.long),
            None,
            "input_ids must be (N, L), one row per class text; got (2, 3, 4).",
        ),
    ],
    ids=["few", "none", "1-D", "empty", "3-D"],
)
def test_texts_that_do_not_fit_raise(
    model: XCLIPModel, input_ids: torch.Tensor, names: list[str] | None, message: str
) -> None:
    with pytest.raises(ValueError, match=exactly(message)):
        model.encode_texts(input_ids, names=names)


def test_loading_a_bank_that_is_not_there_raises(tmp_path: Path) -> None:
    message = f"no text bank at {tmp_path / 'no'}; make one with model.encode_texts(...).save(path)."
    with pytest.raises(FileNotFoundError, match=exactly(message)):
        TextBank.load(tmp_path / "no")


def write_safetensors(path: Path, **metadata: str) -> None:
    save_file({"text_embeds": torch.zeros(1, 2)}, path, metadata=metadata or None)


@pytest.mark.parametrize("content", ["random bytes", "", "weights", "no names", "bad names", "no features"])
def test_loading_what_is_no_bank_raises(model: XCLIPModel, tmp_path: Path, content: str) -> None:
    path = tmp_path / "bank"
    whole: dict[str, Any] = {
        "format": "kinetext-text-bank-1",
        "names": json.dumps(["a"]),
        "text_fingerprint": "f",
        "tokenizer_fingerprint": "null",
    }
    if content in ("random bytes", ""):
        path.write_bytes(content.encode())
    elif content == "weights":
        write_safetensors(path)
    elif content == "no names":
        write_safetensors(path, **{key: value for key, value in whole.items() if key != "names"})
    elif content == "bad names":
        write_safetensors(path, **{**whole, "names": "["})
    else:
        save_file({"others": torch.zeros(1, 2)}, path, metadata=whole)
    with pytest.raises(ValueError, match=re.escape(str(path))):
        TextBank.load(path)


def test_a_whole_bank_written_by_hand_loads(tmp_path: Path) -> None:
    names = {"names": json.dumps(["a"]), "tokenizer_fingerprint": "null", "text_fingerprint": "f"}
    write_safetensors(tmp_path / "bank", format="kinetext-text-bank-1", **names)
    assert TextBank.load(tmp_path / "bank").names == ("a",)
    assert set(load_file(tmp_path / "bank")) == {"text_embeds"}


def test_banks_can_be_compared_and_hashed(model: XCLIPModel) -> None:
    first, second = model.encode_texts(**tiny_texts()), model.encode_texts(**tiny_texts())
    assert first == first and first != second and len({first, second}) == 2


def test_a_bank_and_its_names_must_fit() -> None:
    message = "a TextBank has one name per row of text_embeds (N, C); got 1 names for shape (2, 3)."
    with pytest.raises(ValueError, match=exactly(message)):
        TextBank(torch.zeros(2, 3), ("a",), "f")


# The bank with descriptions


def described_bank(**fields: Any) -> TextBank:
    texts = {**tiny_texts(), **tiny_descriptions(missing=[(0, 3), (2, 1)])}
    return tiny_moted().encode_texts(**texts, **fields)


def test_bank_holds_the_features_of_every_description_and_zeros_where_there_is_none() -> None:
    model = tiny_moted()
    descriptions = tiny_descriptions(missing=[(0, 3), (2, 1)])
    descriptions["description_attention_mask"][1, 0, 0] = 0  # padding at the left, which the causal tower would read
    bank = model.encode_texts(**tiny_texts(), **descriptions)
    assert bank.description_embeds.shape == (3, 4, 32) and bank.description_mask.dtype == torch.bool
    assert (~bank.description_mask).nonzero().tolist() == [[0, 3], [2, 1]]
    assert not bank.description_embeds.requires_grad
    for row in range(3):
        for column in range(4):
            embeds = bank.description_embeds[row, column]
            if not bank.description_mask[row, column]:
                assert (embeds == 0).all()
                continue
            one = (tensor[row, column].unsqueeze(0) for tensor in descriptions.values())
            assert largest_difference(embeds, model.get_text_features(*one).pooler_output[0]) <= 1e-6
    assert torch.equal(bank.text_embeds, model.encode_texts(**tiny_texts()).text_embeds)


def test_bank_of_descriptions_without_a_mask_has_them_all() -> None:
    descriptions = tiny_descriptions()
    bank = tiny_moted().encode_texts(**tiny_texts(), description_input_ids=descriptions["description_input_ids"])
    assert bank.description_mask.shape == (3, 4) and bank.description_mask.all()
    masked = tiny_moted().encode_texts(**tiny_texts(), **descriptions)
    assert largest_difference(bank.description_embeds, masked.description_embeds) <= 1e-5


def test_bank_with_descriptions_does_not_depend_on_the_size_of_the_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = described_bank()
    for size in (1, 5, 12):
        monkeypatch.setattr(modeling_video_text, "_TEXTS_PER_FORWARD", size)
        assert largest_difference(described_bank().description_embeds, whole.description_embeds) <= 1e-6


def test_saved_bank_with_descriptions_loads_equal(tmp_path: Path) -> None:
    bank = described_bank(names=["a", "b", "c"], tokenizer_fingerprint="f" * 64)
    bank.save(tmp_path / "bank")
    loaded = TextBank.load(tmp_path / "bank")
    for field in dataclasses.fields(TextBank):
        left, right = getattr(loaded, field.name), getattr(bank, field.name)
        assert torch.equal(left, right) if isinstance(right, torch.Tensor) else left == right, field.name
    assert loaded.description_mask.dtype == torch.bool
    bare = dataclasses.replace(bank, description_embeds=None, description_mask=None)
    bare.save(tmp_path / "bank")
    assert TextBank.load(tmp_path / "bank").description_embeds is None
    assert set(load_file(tmp_path / "bank")) == {"text_embeds"}


def test_bank_moves_as_a_whole() -> None:
    bank = described_bank(names=["a", "b", "c"])
    moved = bank.to("meta")
    for name in ("text_embeds", "description_embeds", "description_mask"):
        tensor, before = getattr(moved, name), getattr(bank, name)
        assert tensor.device.type == "meta" and (tensor.shape, tensor.dtype) == (before.shape, before.dtype)
    assert (moved.names, moved.text_fingerprint) == (bank.names, bank.text_fingerprint)
    assert bank.description_embeds.device.type == "cpu"
    assert tiny_moted().encode_texts(**tiny_texts()).to("meta").description_mask is None


def test_model_that_reads_class_names_only_ignores_descriptions(model: XCLIPModel) -> None:
    bare = model.encode_texts(**tiny_texts())
    bank = model.encode_texts(**tiny_texts(), **tiny_descriptions())
    assert bank.description_embeds is not None
    expected = model(pixel_values=tiny_videos(), text_bank=bare).logits_per_video
    assert torch.equal(model(pixel_values=tiny_videos(), text_bank=bank).logits_per_video, expected)


@pytest.mark.parametrize(
    ("embeds", "mask"),
    [((3, 4, 32), (3, 5)), ((2, 4, 32), (2, 4)), ((3, 4, 31), (3, 4)), ((3, 32), (3,)), ((3, 4, 32), (3, 4, 1))],
)
def test_descriptions_that_do_not_fit_the_names_are_refused(embeds: tuple[int, ...], mask: tuple[int, ...]) -> None:
    message = (
        f"description_embeds must be (N, k+1, C) beside text_embeds (N, C) = (3, 32) and description_mask (N, k+1); "
        f"got {embeds} and {mask}."
    )
    with pytest.raises(ValueError, match=exactly(message)):
        TextBank(torch.zeros(3, 32), ("a", "b", "c"), "f", None, torch.zeros(embeds), torch.ones(mask).bool())


def test_descriptions_and_their_mask_belong_together(tmp_path: Path) -> None:
    bank = described_bank()
    message = "description_embeds and description_mask belong together; give both or neither."
    for name in ("description_embeds", "description_mask"):
        with pytest.raises(ValueError, match=exactly(message)):
            dataclasses.replace(bank, **{name: None})


@pytest.mark.parametrize("where", ["encode_texts", "forward"])
def test_description_tokens_that_do_not_fit_are_refused(where: str) -> None:
    model, names = tiny_moted(), tiny_texts()
    call: Any = model.encode_texts
    if where == "forward":
        names = {**names, "pixel_values": tiny_videos()}
        call = model
    message = "description_input_ids must be (N, k+1, L) with N = 3, the class names; got (2, 4, 9)."
    with pytest.raises(ValueError, match=exactly(message)):
        call(**names, **tiny_descriptions(2))
