"""Conversion of X-CLIP checkpoints: against the original's own logits, by the documented map, and every way to fail."""

import json
import pickle
import re
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from testing_utils import largest_difference, tiny_config, tiny_model, tiny_texts, tiny_videos

from kinetext import VideoCLIPConfig, VideoTextProcessor, XCLIPModel
from kinetext.conversion.checkpoints import read_checkpoint
from kinetext.conversion.convert import convert_checkpoint
from kinetext.data.small_tokenizer import small_tokenizer

# Widths that are multiples of 64, so that the head counts of the original follow from them: 2, 3 and 1.
WIDTHS = {
    "text": {"hidden_size": 128, "num_attention_heads": 2, "vocab_size": 600},
    "vision": {"hidden_size": 192, "num_attention_heads": 3, "mit_hidden_size": 64, "mit_num_attention_heads": 1},
    "projection_dim": 64,
    "prompt_num_attention_heads": 1,
}

# transformers' names to the original's, written down apart from the table that is under test
RENAMES = (
    (r"^text_model\.embeddings\.token_embedding", "token_embedding"),
    (r"^text_model\.embeddings\.position_embedding\.weight", "positional_embedding"),
    (r"^text_model\.final_layer_norm", "ln_final"),
    (r"^text_model\.encoder\.layers", "transformer.resblocks"),
    (r"^text_projection\.weight", "text_projection"),
    (r"^vision_model\.embeddings\.class_embedding", "visual.class_embedding"),
    (r"^vision_model\.embeddings\.position_embedding\.weight", "visual.positional_embedding"),
    (r"^vision_model\.embeddings\.patch_embedding", "visual.conv1"),
    (r"^vision_model\.(pre|post)_layernorm", r"visual.ln_\1"),
    (r"^vision_model\.encoder\.layers", "visual.transformer.resblocks"),
    (r"^visual_projection\.weight", "visual.proj"),
    (r"^prompts_visual_projection", "prompts_visual_proj"),
    (r"^prompts_visual_layernorm", "prompts_visual_ln"),
    (r"^prompts_generator\.layernorm", "prompts_generator.norm"),
    (r"^mit\.position_embedding", "mit.positional_embedding"),
    (r"^mit\.encoder\.layers", "mit.resblocks"),
    (r"layer_norm(\d)", r"ln_\1"),
    (r"mlp\.fc1", "mlp.c_fc"),
    (r"mlp\.fc2", "mlp.c_proj"),
    (r"self_attn", "attn"),
)


def original_state(model: XCLIPModel) -> dict[str, torch.Tensor]:
    """The state dict that the original project would save of these weights."""
    state = {}
    for name, tensor in model.state_dict().items():
        if name in ("text_projection.weight", "visual_projection.weight"):
            tensor = tensor.T.contiguous()
        for pattern, replacement in RENAMES:
            name = re.sub(pattern, replacement, name)
        state[name] = tensor
    for name in [name for name in state if ".q_proj." in name and "cross_attn" not in name]:
        parts = [state.pop(name.replace(".q_proj.", f".{part}_proj.")) for part in "qkv"]
        state[name.replace(".q_proj.", ".in_proj_")] = torch.cat(parts)
    return state


@pytest.fixture
def model() -> XCLIPModel:
    return tiny_model(**WIDTHS)


@pytest.fixture
def state(model: XCLIPModel) -> dict[str, torch.Tensor]:
    return original_state(model)


@pytest.fixture
def save(tmp_path: Path) -> Callable[..., Path]:
    """Writes a `.pth` as the original project does."""

    def save_state(state: object, **others: object) -> Path:
        path = tmp_path / "original.pth"
        torch.save({"model": state, **others}, path)
        return path

    return save_state


def assert_same_weights(folder: Path, model: XCLIPModel) -> None:
    converted, wanted = load_file(folder / "model.safetensors"), model.state_dict()
    assert converted.keys() == wanted.keys()
    assert [name for name in wanted if not torch.equal(converted[name], wanted[name])] == []


# The original project's files


@pytest.mark.parametrize("prefix", ["", "module."])
def test_golden_checkpoint_gives_the_logits_of_the_original_code(shared_dir: Path, tmp_path: Path, prefix: str) -> None:
    state = torch.load(shared_dir / "golden/videox_xclip_T4.pth", weights_only=True)["model"]
    torch.save({"model": {prefix + key: tensor for key, tensor in state.items()}}, tmp_path / "golden.pth")
    convert_checkpoint(tmp_path / "golden.pth", tmp_path / "out")
    model = XCLIPModel.from_pretrained(tmp_path / "out").eval()
    recorded = load_file(shared_dir / "golden/videox_xclip_T4_io.safetensors")
    with torch.no_grad():
        logits = model(pixel_values=recorded["pixel_values"], input_ids=recorded["input_ids"]).logits_per_video
    assert largest_difference(logits, recorded["logits"]) <= 1e-4


def test_state_dict_written_by_the_documented_map_comes_back_equal(
    model: XCLIPModel, state: dict, save: Callable[..., Path], tmp_path: Path
) -> None:
    done = convert_checkpoint(save(state), tmp_path / "out")
    assert_same_weights(tmp_path / "out", model)
    assert (done.num_parameters, done.num_frames, done.has_processor) == (model.num_parameters(), 8, False)
    converted = XCLIPModel.from_pretrained(tmp_path / "out").eval()
    with torch.no_grad():
        logits = [m(pixel_values=tiny_videos(), **tiny_texts()).logits_per_video for m in (model, converted)]
    assert largest_difference(*logits) <= 1e-5


def test_sizes_and_heads_are_inferred_from_shapes(
    model: XCLIPModel, state: dict, save: Callable[..., Path], tmp_path: Path
) -> None:
    convert_checkpoint(save(state), tmp_path / "out")
    found, wanted = XCLIPModel.config_class.from_pretrained(tmp_path / "out"), model.config
    for tower in ("text_config", "vision_config"):
        own, other = getattr(found, tower).to_dict(), getattr(wanted, tower).to_dict()
        assert {key: own[key] for key in other if key != "dtype"} == {k: v for k, v in other.items() if k != "dtype"}
    assert found.vision_config.num_attention_heads == 3 and found.text_config.num_attention_heads == 2
    assert (found.projection_dim, found.prompt_layers, found.prompt_num_attention_heads) == (64, 2, 1)
    assert found.logit_scale_init_value == pytest.approx(model.logit_scale.item())


def test_config_given_replaces_the_inferred_one(tmp_path: Path, save: Callable[..., Path]) -> None:
    model = tiny_model()  # 5, 6, 4 and 2 heads, which no width tells
    convert_checkpoint(save(original_state(model)), tmp_path / "out", config=tiny_config())
    converted = XCLIPModel.from_pretrained(tmp_path / "out").eval()
    with torch.no_grad():
        logits = [m(pixel_values=tiny_videos(), **tiny_texts()).logits_per_video for m in (model, converted)]
    assert largest_difference(*logits) <= 1e-5


@pytest.mark.parametrize("config", [None, tiny_config(**WIDTHS, dtype="float32")], ids=["inferred", "given"])
def test_half_precision_stays_half_precision(
    state: dict, save: Callable[..., Path], tmp_path: Path, config: object
) -> None:
    convert_checkpoint(save({key: tensor.half() for key, tensor in state.items()}), tmp_path / "out", config=config)
    assert {tensor.dtype for tensor in load_file(tmp_path / "out/model.safetensors").values()} == {torch.float16}


def test_transformers_own_class_loads_the_folder_without_remainder(
    state: dict, save: Callable[..., Path], tmp_path: Path
) -> None:
    convert_checkpoint(save(state), tmp_path / "out")
    _, report = transformers.XCLIPModel.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not any(report.values()), report


def test_checkpoint_with_the_originals_yacs_configuration_is_read_without_yacs(
    model: XCLIPModel, state: dict, save: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = type("CfgNode", (dict,), {"__module__": "yacs.config"})
    config = node(DATA=node(NUM_FRAMES=8))
    config.__dict__["__immutable__"] = True
    module = ModuleType("yacs.config")
    module.CfgNode = node  # type: ignore[attr-defined]
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "yacs", ModuleType("yacs"))
        patch.setitem(sys.modules, "yacs.config", module)
        path = save(state, config=config, epoch=3, max_accuracy=80.4)
    convert_checkpoint(path, tmp_path / "out")
    assert_same_weights(tmp_path / "out", model)


def test_file_of_the_old_torch_format_is_read(model: XCLIPModel, state: dict, tmp_path: Path) -> None:
    torch.save({"model": state}, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    convert_checkpoint(tmp_path / "old.pth", tmp_path / "out")
    assert_same_weights(tmp_path / "out", model)


# Errors of the original project's files


def failure(source: object, destination: Path, error: type[Exception] = ValueError, **options: object) -> str:
    """The message of a conversion that must fail, and must leave neither a folder nor scratch files behind."""
    before = sorted(destination.parent.iterdir())
    with pytest.raises(error) as caught:
        convert_checkpoint(source, destination, **options)
    assert sorted(destination.parent.iterdir()) == before
    return str(caught.value)


def test_missing_and_left_over_keys_are_all_named(state: dict, save: Callable[..., Path], tmp_path: Path) -> None:
    del state["visual.proj"], state["mit.resblocks.0.attn.in_proj_bias"]
    state["visual.head.weight"] = state["extra"] = torch.zeros(2)
    path = save(state)
    parts = ", ".join(f"mit.encoder.layers.0.self_attn.{part}_proj.bias" for part in "qkv")
    assert failure(path, tmp_path / "out") == (
        f"{path} does not fit X-CLIP; nothing was written.\n"
        f"missing (2): mit.resblocks.0.attn.in_proj_bias (for {parts}), visual.proj (for visual_projection.weight)\n"
        "left over (2): extra, visual.head.weight"
    )


def test_each_key_is_missed(
    state: dict, save: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, unnoticed = read_checkpoint(save(state)), []  # once: it would be read 150 times
    for key in state:
        rest = replace(whole, state={name: tensor for name, tensor in whole.state.items() if name != key})
        monkeypatch.setattr("kinetext.conversion.convert.read_checkpoint", lambda _, rest=rest: rest)
        if f"missing (1): {key} (for" not in failure(whole.path, tmp_path / "out"):
            unnoticed.append(key)
    assert unnoticed == []


def test_layer_left_out_in_the_middle_or_a_whole_stack_is_missed(
    state: dict, save: Callable[..., Path], tmp_path: Path
) -> None:
    path = save({key: tensor for key, tensor in state.items() if not key.startswith("visual.transformer.resblocks.1.")})
    message = failure(path, tmp_path / "out")
    assert "missing (20): " in message and "left over" not in message
    path = save({key: tensor for key, tensor in state.items() if not key.startswith("mit.resblocks.")})
    assert "missing (12): mit.resblocks.0.attn.in_proj_bias" in failure(path, tmp_path / "out")


def test_prefix_on_some_keys_only_is_refused(state: dict, save: Callable[..., Path], tmp_path: Path) -> None:
    path = save({("module." if key == "logit_scale" else "") + key: tensor for key, tensor in state.items()})
    assert "left over (1): module.logit_scale" in failure(path, tmp_path / "out")


def test_other_shapes_are_all_named(state: dict, save: Callable[..., Path], tmp_path: Path) -> None:
    state["visual.proj"] = state["visual.proj"][:, :-1]
    state["mit.resblocks.0.attn.in_proj_bias"] = torch.zeros(7)
    state["logit_scale"] = torch.zeros(2)
    path = save(state)
    bias = "mit.encoder.layers.0.self_attn.{}_proj.bias ({},) instead of (64,)"
    assert failure(path, tmp_path / "out") == (
        f"{path} does not fit X-CLIP; nothing was written.\n"
        f"other shapes (5): logit_scale (2,) instead of (), {bias.format('k', 2)}, {bias.format('q', 3)}, "
        f"{bias.format('v', 2)}, visual_projection.weight (63, 192) instead of (64, 192)"
    )


@pytest.mark.parametrize(
    ("key", "shape", "message"),
    [
        ("visual.conv1.weight", (3, 8), "visual.conv1.weight in .* has shape (3, 8); wanted (D, 3, P, P)."),
        (
            "visual.positional_embedding",
            (7, 192),
            "visual.positional_embedding has rows for 6 patches, which fill no square image.",
        ),
    ],
)
def test_shapes_that_tell_no_sizes_are_named(
    state: dict, save: Callable[..., Path], tmp_path: Path, key: str, shape: tuple, message: str
) -> None:
    state[key] = torch.zeros(shape)
    assert re.fullmatch(re.escape(message).replace(r"\.\*", ".*"), failure(save(state), tmp_path / "out"))


class Foreign:
    """What a checkpoint may not hold."""


def test_files_that_are_no_checkpoint_are_refused(state: dict, tmp_path: Path) -> None:
    path, out = tmp_path / "file.pth", tmp_path / "out"
    torch.save({"model": state, "args": Foreign()}, path)
    message = failure(path, out)
    assert message.startswith(
        f"{path} holds an object of {__name__}.Foreign, which could run code when read, so it was"
    )
    assert "weights_only" not in message  # torch's own advice is to switch the safety off
    for content in (b"", b"hello world", pickle.dumps({"model": 1}, protocol=2)[:-4], path.read_bytes()[:5000]):
        path.write_bytes(content)
        assert failure(path, out).startswith(f"{path} is no readable PyTorch checkpoint (")
    torch.save({"state_dict": state, "epoch": 1}, path)
    assert failure(path, out) == (
        f"{path} has no state dict under the key `model`, as X-CLIP and ViFi-CLIP save it, or `model_state_dict`, as "
        "Text4Vis does; it has keys ['epoch', 'state_dict']."
    )
    torch.save([1], path)
    assert failure(path, out).endswith("; it has a list.")
    torch.save({"model": {"a": torch.zeros(1), "b": 1}}, path)
    assert failure(path, out) == f"`model` in {path} is no state dict: not a tensor is b."
    torch.save({"model": {}}, path)
    assert failure(path, out) == f"`model` in {path} is an empty state dict."


def test_damaged_file_is_refused(state: dict, save: Callable[..., Path], tmp_path: Path) -> None:
    path = save(state)
    content = bytearray(path.read_bytes())
    weights = state["visual.proj"].numpy().tobytes()
    content[content.find(weights) + len(weights) // 2] ^= 0x40
    path.write_bytes(content)
    message = failure(path, tmp_path / "out")
    wanted = r" is no readable PyTorch checkpoint \(\w+/data/\d+ in it is damaged\); is the download complete\?"
    assert re.fullmatch(re.escape(str(path)) + wanted, message)


@pytest.mark.parametrize(
    ("tensor", "fault"),
    [
        (torch.tensor([1, torch.nan]), "has NaN or infinite values"),
        (torch.tensor([1, -torch.inf]).half(), "has NaN or infinite values"),
        (torch.tensor([1, 2]), "is of torch.int64"),
        (torch.zeros(2, dtype=torch.complex64), "is of torch.complex64"),
        (torch.zeros(2).to(torch.float8_e4m3fn), "is of torch.float8_e4m3fn"),
        (torch.eye(2).to_sparse(), "has the layout torch.sparse_coo"),
        (torch.zeros(2, device="meta"), "has no values"),
        (torch.zeros(0, 77, 8), "has no values"),
    ],
)
def test_tensors_that_can_be_no_weights_are_named(
    state: dict, save: Callable[..., Path], tmp_path: Path, tensor: torch.Tensor, fault: str
) -> None:
    path = save({**state, "logit_scale": tensor, "visual.proj": tensor})
    assert failure(path, tmp_path / "out") == (
        f"{path} has tensors that can be no weights (2): logit_scale {fault}, visual.proj {fault}."
    )


def test_keys_that_are_no_names_are_refused(state: dict, save: Callable[..., Path], tmp_path: Path) -> None:
    path = save({**state, 3: torch.zeros(1)})
    assert failure(path, tmp_path / "out") == f"`model` in {path} is no state dict: not a name is 3."


# Transformers' folders


@pytest.fixture
def stock_folder(tmp_path: Path) -> Path:
    """A tiny X-CLIP saved by transformers' own class, with a tokenizer."""
    folder = tmp_path / "stock"
    config = tiny_config(**{**WIDTHS, "prompt_num_attention_heads": 4}).to_dict()  # 4, where the original has 1
    stock = transformers.XCLIPModel(transformers.XCLIPConfig(**config))
    stock.save_pretrained(folder)
    small_tokenizer(["moving left"], max_tokens=600).save_pretrained(folder)
    return folder


def test_transformers_folder_keeps_logits_heads_and_tokenizer(stock_folder: Path, tmp_path: Path) -> None:
    done = convert_checkpoint(stock_folder, tmp_path / "out")
    stock, ours = (
        cls.from_pretrained(folder).eval()
        for cls, folder in ((transformers.XCLIPModel, stock_folder), (XCLIPModel, tmp_path / "out"))
    )
    inputs = {"pixel_values": tiny_videos(), **tiny_texts()}
    with torch.no_grad():
        assert largest_difference(stock(**inputs).logits_per_video, ours(**inputs).logits_per_video) <= 1e-5
    assert ours.config.prompt_num_attention_heads == 4
    assert done.notes == (
        "prompt_num_attention_heads=4 was kept from the source, so results equal transformers'; the original project "
        "has heads of 64, which are 1 here (pass config= to convert_checkpoint to change it).",
    )
    processor = VideoTextProcessor.from_pretrained(tmp_path / "out")
    assert (processor.num_frames, processor.crop_size, processor.tokenizer.model_max_length) == (8, 32, 16)
    assert len(processor.tokenizer) == len(transformers.AutoTokenizer.from_pretrained(stock_folder))


def edit_weights(folder: Path, change: Callable[[dict], None]) -> None:
    path = folder / "model.safetensors"
    weights = load_file(path)
    change(weights)
    save_file(weights, path, metadata={"format": "pt"})


def test_position_ids_of_older_versions_are_ignored(stock_folder: Path, tmp_path: Path) -> None:
    buffers = {f"{tower}.embeddings.position_ids": torch.arange(4)[None] for tower in ("text_model", "vision_model")}
    edit_weights(stock_folder, lambda weights: weights.update(buffers))
    convert_checkpoint(stock_folder, tmp_path / "out")
    assert not buffers.keys() & load_file(tmp_path / "out/model.safetensors").keys()


def test_transformers_folder_that_does_not_fit_is_refused(stock_folder: Path, tmp_path: Path) -> None:
    def spoil(weights: dict) -> None:
        del weights["text_projection.weight"]
        weights["extra"] = torch.zeros(1)
        weights["logit_scale"] = torch.zeros(3)

    edit_weights(stock_folder, spoil)
    assert failure(stock_folder, tmp_path / "out") == (
        f"{stock_folder} does not fit X-CLIP; nothing was written.\n"
        "missing (1): text_projection.weight\n"
        "left over (1): extra\n"
        "other shapes (1): logit_scale (3,) instead of ()"
    )


def test_transformers_folder_with_nan_is_refused(stock_folder: Path, tmp_path: Path) -> None:
    edit_weights(stock_folder, lambda weights: weights["logit_scale"].fill_(torch.nan))
    assert failure(stock_folder, tmp_path / "out") == (
        f"{stock_folder} has tensors that can be no weights (1): logit_scale has NaN or infinite values."
    )


def test_a_configuration_of_another_class_is_refused(
    state: dict, save: Callable[..., Path], stock_folder: Path, tmp_path: Path
) -> None:
    for source in (save(state), stock_folder):
        for config, name in (("x", "str"), (VideoCLIPConfig(), "VideoCLIPConfig")):
            message = failure(source, tmp_path / "out", TypeError, config=config)
            assert message == f"config must be a XCLIPConfig; got {name}."


def test_folder_of_another_model_is_refused(stock_folder: Path, tmp_path: Path) -> None:
    (stock_folder / "config.json").write_text(json.dumps({"model_type": "clip"}))
    message = failure(stock_folder, tmp_path / "out")
    assert message == f"{stock_folder} holds a model of type 'clip'; `xclip` is wanted."
    (stock_folder / "config.json").unlink()
    message = failure(stock_folder, tmp_path / "out")
    assert (
        message == f"{stock_folder} is a folder without config.json; give a folder of transformers' X-CLIP, or a .pth."
    )


# Tokenizer, source and destination


def test_pth_gets_the_tokenizer_it_is_given(
    state: dict, stock_folder: Path, save: Callable[..., Path], tmp_path: Path
) -> None:
    done = convert_checkpoint(save(state), tmp_path / "out", tokenizer=stock_folder)
    assert done.has_processor and done.notes == ()
    processor = VideoTextProcessor.from_pretrained(tmp_path / "out")
    assert (processor.num_frames, processor.crop_size) == (8, 32)
    assert processor(text=["moving left"])["input_ids"].shape[0] == 1
    own_code = json.loads((tmp_path / "out/processor_config.json").read_text())["auto_map"]
    assert own_code == {"AutoProcessor": "processing_video_text.VideoTextProcessor"}


def test_model_without_tokenizer_is_said_to_have_none(
    state: dict, save: Callable[..., Path], stock_folder: Path, tmp_path: Path
) -> None:
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (stock_folder / name).unlink()
    for source in (save(state), stock_folder):
        done = convert_checkpoint(source, tmp_path / "out")
        assert not done.has_processor and not (tmp_path / "out/tokenizer_config.json").exists()
        assert done.notes[-1].startswith("the source has no tokenizer, so no processor was saved;")
        shutil.rmtree(tmp_path / "out")


def test_tokenizer_that_does_not_fit_is_refused(state: dict, save: Callable[..., Path], tmp_path: Path) -> None:
    words = [f"{first}{second}" for first in "abcdefghijklmnop" for second in "qrstuvwxyz"] * 2
    small_tokenizer(words, max_tokens=650).save_pretrained(tmp_path / "large")
    (tmp_path / "none").mkdir()
    path = save(state)
    message = failure(path, tmp_path / "out", tokenizer=tmp_path / "large")
    assert re.fullmatch(
        r"the tokenizer of \S+/large has 6\d\d tokens, the model embeds 600; "
        r"give the tokenizer that it was trained with\.",
        message,
    )
    message = failure(path, tmp_path / "out", tokenizer=tmp_path / "none")
    assert message == f"{tmp_path / 'none'} has no tokenizer (none of tokenizer.json, vocab.json); name one that has."


def test_source_that_is_nowhere_is_named(tmp_path: Path) -> None:
    for source in (tmp_path / "missing.pth", "missing.pth", "folder/missing.pth", "no-owner"):
        message = failure(source, tmp_path / "out", FileNotFoundError)
        assert message == f"no file or folder {source}, and no Hub id (those read owner/name)."


def test_destination_with_content_is_left_untouched(state: dict, save: Callable[..., Path], tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "mine.txt").write_text("keep me")
    message = failure(save(state), out, FileExistsError)
    assert message == f"{out} exists and is not an empty folder; name a new one."
    assert [path.name for path in out.iterdir()] == ["mine.txt"]
    failure(save(state), out / "mine.txt", FileExistsError)


def test_empty_destination_and_missing_parents_are_fine(state: dict, save: Callable[..., Path], tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for out in (tmp_path / "empty", tmp_path / "a/b"):
        convert_checkpoint(save(state), out)
        assert {"config.json", "model.safetensors", "modeling_xclip.py"} <= {path.name for path in out.iterdir()}
    assert [path.name for path in tmp_path.rglob(".*")] == []


def test_write_that_breaks_off_leaves_nothing(
    state: dict, save: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save(state)

    def half_written(self: XCLIPModel, folder: Path) -> None:
        (folder / "config.json").write_text("{")
        raise OSError("No space left on device")

    monkeypatch.setattr(XCLIPModel, "save_pretrained", half_written)
    assert failure(path, tmp_path / "out", OSError) == "No space left on device"
