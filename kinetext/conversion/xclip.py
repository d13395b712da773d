"""X-CLIP checkpoints of other projects to a kinetext folder, strictly: every key is used and every weight is filled.

    original project's .pth -> names and shapes checked; renamed, split, transposed -------+
                                                                                           +-> folder
    transformers xclip folder or Hub repository -> loaded, report of the loading checked --+

The folder has config, safetensors and code; transformers' own `XCLIPModel` loads it too. Key map: after
huggingface/transformers `convert_x_clip_original_pytorch_to_hf.py`; originals are files of microsoft/VideoX `X-CLIP`.

Legend: D image width, W text width, E joint width, K patches, P side of a patch, T frames, L tokens.
"""

from __future__ import annotations

import math
import os
import re
import tempfile
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial, reduce
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer, PreTrainedConfig
from transformers.utils.hub import cached_file

from ..modeling.configuration_video_text import HEAD_DIM
from ..modeling.configuration_xclip import XCLIPConfig
from ..modeling.modeling_xclip import XCLIPModel
from ..processing.processing_video_text import VideoTextProcessor

HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")  # owner/name
_TOKENIZER_FILES = ("tokenizer.json", "vocab.json")
# The original saves its yacs configuration beside the weights. Read as a plain mapping, no code of the file runs.
_INERT_GLOBALS: list[Any] = [(OrderedDict, "yacs.config.CfgNode")]

# original name -> transformers name, for single tensors
_TENSORS = {
    "token_embedding.weight": "text_model.embeddings.token_embedding.weight",
    "positional_embedding": "text_model.embeddings.position_embedding.weight",
    "text_projection": "text_projection.weight",
    "visual.class_embedding": "vision_model.embeddings.class_embedding",
    "visual.positional_embedding": "vision_model.embeddings.position_embedding.weight",
    "visual.conv1.weight": "vision_model.embeddings.patch_embedding.weight",
    "visual.proj": "visual_projection.weight",
    "prompts_visual_proj": "prompts_visual_projection",
    "prompts_generator.alpha": "prompts_generator.alpha",
    "mit.positional_embedding": "mit.position_embedding",
    "logit_scale": "logit_scale",
}
_TRANSPOSED = {"text_projection", "visual.proj"}  # parameters (in, out) there, weights of nn.Linear here

# the same for modules with weight and bias
_MODULES = {
    "ln_final": "text_model.final_layer_norm",
    "visual.ln_pre": "vision_model.pre_layernorm",
    "visual.ln_post": "vision_model.post_layernorm",
    "prompts_visual_ln": "prompts_visual_layernorm",
    "prompts_generator.norm": "prompts_generator.layernorm",
}
_BLOCK_MODULES = {
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
    "attn.out_proj": "self_attn.out_proj",
}
_MESSAGE_MODULES = ("message_fc", "message_ln", "message_attn.out_proj")  # same name in both
_PROMPT_MODULES = ("cross_attn.proj", "norm1", "norm3", "mlp.0", "mlp.3")

# stacks of equal layers: field of `_Depths` -> prefix of the original, prefix of transformers
_STACKS = {
    "text": ("transformer.resblocks.", "text_model.encoder.layers."),
    "vision": ("visual.transformer.resblocks.", "vision_model.encoder.layers."),
    "mit": ("mit.resblocks.", "mit.encoder.layers."),
    "prompt": ("prompts_generator.decoder.", "prompts_generator.decoder."),
}


@dataclass(frozen=True)
class Conversion:
    """What [`convert_checkpoint`] wrote.

    Attributes:
        destination: the folder.
        num_parameters: of the model in it.
        num_frames: frames per clip that the model was trained with.
        has_processor: whether the folder also has the processor; without a tokenizer it has not.
        notes: what the user should know, one sentence each.
    """

    destination: Path
    num_parameters: int
    num_frames: int
    has_processor: bool
    notes: tuple[str, ...] = ()


def convert_checkpoint(
    source: str | os.PathLike[str],
    destination: str | os.PathLike[str],
    *,
    tokenizer: str | os.PathLike[str] | None = None,
    config: XCLIPConfig | None = None,
) -> Conversion:
    """Writes the X-CLIP of `source` as a folder that kinetext and transformers load; nothing is written on failure.

    Args:
        source: a `.pth` of the original project, a folder of transformers' or our X-CLIP, or its Hub id.
        destination: the folder to make; must not exist or be empty.
        tokenizer: folder or Hub id of the tokenizer to save with the model; needed for a `.pth`, which has none.
        config: replaces the configuration found in a folder, or inferred from the shapes in a `.pth`.

    Raises:
        FileNotFoundError: if there is no such source.
        FileExistsError: if `destination` has something in it.
        OSError: if a Hub repository cannot be read.
        ValueError: for a file or folder that is no X-CLIP, naming all missing and left-over keys and other shapes, and
            for a tokenizer that does not fit.
    """
    destination = Path(destination)
    _require_free(destination)
    if _is_original(source):
        model, notes = _load_original(Path(source), config), []
    else:
        model = _load_transformers(str(source), config)
        notes = _head_notes(model.config)
    model_config: Any = model.config
    processor = _processor(source, tokenizer, model_config)
    if processor is None:
        notes.append(
            "the source has no tokenizer, so no processor was saved; convert again with a tokenizer (--tokenizer): "
            "published X-CLIP models use CLIP's, openai/clip-vit-base-patch32."
        )
    with _new_folder(destination) as folder:
        model.save_pretrained(folder)
        if processor is not None:
            processor.save_pretrained(folder)
    num_frames = model_config.vision_config.num_frames
    return Conversion(destination, model.num_parameters(), num_frames, processor is not None, tuple(notes))


# Source and destination


def _is_original(source: str | os.PathLike[str]) -> bool:
    """Whether `source` is a file, hence of the original project; raises for what is neither file, folder nor Hub id."""
    path = Path(source)
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise ValueError(
                f"{path} is a folder without config.json; give a folder of transformers' X-CLIP, or a .pth."
            )
        return False
    if path.exists():
        return True
    if path.is_absolute() or path.suffix in (".pth", ".pt") or not HUB_ID.fullmatch(str(source)):
        raise FileNotFoundError(f"no file or folder {source}, and no Hub id (those read owner/name).")
    return False


def _require_free(destination: Path) -> None:
    if destination.is_dir() and not any(destination.iterdir()):
        return
    if destination.exists() or destination.is_symlink():
        raise FileExistsError(f"{destination} exists and is not an empty folder; name a new one.")


@contextmanager
def _new_folder(destination: Path) -> Iterator[Path]:
    """A folder beside `destination` to write into, which becomes `destination` only if the body succeeds."""
    destination.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=destination.parent, prefix=f".{destination.name}-") as scratch:
        partial = Path(scratch) / destination.name
        partial.mkdir()
        yield partial
        if destination.is_dir():  # empty, as checked; os.rename over it would fail on Windows
            destination.rmdir()
        partial.rename(destination)


def _has_tokenizer(source: str | os.PathLike[str]) -> bool:
    """Whether there are tokenizer files; where there are none, transformers would make a tokenizer of two tokens."""
    options = {"_raise_exceptions_for_missing_entries": False}
    return any(cached_file(os.fspath(source), name, **options) is not None for name in _TOKENIZER_FILES)


def _processor(
    source: str | os.PathLike[str], tokenizer: str | os.PathLike[str] | None, config: XCLIPConfig
) -> VideoTextProcessor | None:
    """The processor of `source`, with `tokenizer` in place of its own if one is named; None where there is neither.

    Raises:
        ValueError: if `tokenizer` names none, or if the model has no embedding for one of its tokens.
    """
    if tokenizer is not None and not _has_tokenizer(tokenizer):
        raise ValueError(f"{tokenizer} has no tokenizer (none of {', '.join(_TOKENIZER_FILES)}); name one that has.")
    if tokenizer is None and (_is_original(source) or not _has_tokenizer(source)):
        return None
    if _is_original(source):
        vision: Any = config.vision_config
        processor = VideoTextProcessor(num_frames=vision.num_frames, crop_size=vision.image_size)
    else:
        processor = VideoTextProcessor.from_pretrained(source)
    if tokenizer is not None:
        processor.tokenizer = AutoTokenizer.from_pretrained(tokenizer)
    _require_tokenizer_fits(processor.tokenizer, config.text_config)
    return processor


def _require_tokenizer_fits(tokenizer: Any, text_config: Any) -> None:
    """Raises ValueError for more tokens than embeddings, and lowers the longest text length to the model's."""
    if len(tokenizer) > text_config.vocab_size:
        raise ValueError(
            f"the tokenizer of {tokenizer.name_or_path} has {len(tokenizer)} tokens, the model embeds "
            f"{text_config.vocab_size}; give the tokenizer that it was trained with."
        )
    tokenizer.model_max_length = min(tokenizer.model_max_length, text_config.max_position_embeddings)


# Transformers' folders


def _load_transformers(source: str, config: XCLIPConfig | None) -> XCLIPModel:
    """The model of a folder or repository, with its own head counts, if it fits without remainder."""
    found, _ = PreTrainedConfig.get_config_dict(source)
    if found.get("model_type") != XCLIPConfig.model_type:
        raise ValueError(f"{source} holds a model of type {found.get('model_type')!r}; `xclip` is wanted.")
    loaded: Any = XCLIPModel.from_pretrained(
        source,
        config=config or XCLIPConfig.from_pretrained(source),
        output_loading_info=True,
        ignore_mismatched_sizes=True,  # so that they are reported with the rest; `_require_fit` raises
    )
    model, report = loaded
    _require_fit(
        source,
        missing=report["missing_keys"],
        # Without the `position_ids` that older versions saved: transformers itself leaves these buffers out.
        left_over=report["unexpected_keys"],
        shapes=[_shape_fault(*mismatch) for mismatch in report["mismatched_keys"]],
    )
    return model


def _head_notes(config: Any) -> list[str]:
    """Says where heads are not 64 wide, as in transformers' conversions of the L models (transformers 5.23)."""
    vision = config.vision_config
    attentions = {
        "vision_config.mit_num_attention_heads": (vision.mit_hidden_size, vision.mit_num_attention_heads),
        "prompt_num_attention_heads": (config.projection_dim, config.prompt_num_attention_heads),
    }
    return [
        f"{name}={heads} was kept from the source, so results equal transformers'; the original project has heads of "
        f"{HEAD_DIM}, which are {width // HEAD_DIM} here (pass config= to convert_checkpoint to change it)."
        for name, (width, heads) in attentions.items()
        if width >= HEAD_DIM and heads != width // HEAD_DIM
    ]


# The original project's files


@dataclass(frozen=True)
class _Depths:
    """Numbers of layers."""

    text: int
    vision: int
    mit: int
    prompt: int


@dataclass(frozen=True)
class _Rule:
    """Where one tensor of the original goes: to one place, or in equal blocks of rows to several."""

    targets: tuple[str, ...]
    is_transposed: bool = False

    def convert(self, tensor: torch.Tensor) -> dict[str, torch.Tensor]:
        """The tensors by their name here, each with memory of its own."""
        if self.is_transposed and tensor.ndim == 2:
            tensor = tensor.T
        blocks = [tensor] if len(self.targets) == 1 else torch.atleast_1d(tensor).tensor_split(len(self.targets))
        copies = [block.clone(memory_format=torch.contiguous_format) for block in blocks]
        return dict(zip(self.targets, copies, strict=True))


def _load_original(path: Path, config: XCLIPConfig | None) -> XCLIPModel:
    """The model of a `.pth`, its sizes inferred where `config` does not give them."""
    state = _read_state(path)
    depths = _depths_of_keys(state) if config is None else _depths_of_config(config)
    rules = key_rules(depths)
    missing = [f"{key} (for {', '.join(rules[key].targets)})" for key in rules.keys() - state.keys()]
    _require_fit(path, missing=missing, left_over=state.keys() - rules.keys())
    config = config or _infer_config(path, state, depths)
    weights = {name: part for key, tensor in state.items() for name, part in rules[key].convert(tensor).items()}
    with torch.device("meta"):
        wanted = {name: tensor.shape for name, tensor in XCLIPModel(config).state_dict().items()}
    faults = [
        _shape_fault(name, weights[name].shape, shape) for name, shape in wanted.items() if weights[name].shape != shape
    ]
    _require_fit(path, missing=wanted.keys() - weights.keys(), left_over=weights.keys() - wanted.keys(), shapes=faults)
    dtype = reduce(torch.promote_types, (tensor.dtype for tensor in weights.values()))
    return XCLIPModel.from_pretrained(None, config=config, state_dict=weights, dtype=dtype)


def _read_state(path: Path) -> dict[str, torch.Tensor]:
    """The tensors under `model`, without `module.` in front of their names; memory-mapped where the file allows it."""
    path.open("rb").close()  # raises OSError if it cannot be opened; what follows is then about its content
    try:
        with torch.serialization.safe_globals(_INERT_GLOBALS):
            loaded = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except Exception as error:  # a damaged or foreign file makes torch.load raise nearly anything
        raise ValueError(_unreadable(path, error)) from error
    state = loaded.get("model") if isinstance(loaded, Mapping) else None
    if not isinstance(state, Mapping):
        content = f"keys {sorted(map(str, loaded))}" if isinstance(loaded, Mapping) else f"a {type(loaded).__name__}"
        raise ValueError(
            f"{path} has no state dict under the key `model`, as the original project saves it; it has {content}."
        )
    if not state:
        raise ValueError(f"`model` in {path} is an empty state dict.")
    foreign = sorted(str(key) for key, value in state.items() if not isinstance(value, torch.Tensor))
    if foreign:
        raise ValueError(f"`model` in {path} is no state dict: not a tensor is {', '.join(foreign)}.")
    if all(key.startswith("module.") for key in state):  # saved from DistributedDataParallel
        return {key.removeprefix("module."): tensor for key, tensor in state.items()}
    return dict(state)


def _unreadable(path: Path, error: Exception) -> str:
    refused = re.search(r"GLOBAL (\S+)", str(error))
    if refused is None:
        return f"{path} is no readable PyTorch checkpoint ({type(error).__name__}); is the download complete?"
    return (
        f"{path} holds an object of {refused[1]}, which could run code when read, so it was not read. If you trust the "
        "file, load it where it came from and save its weights alone: torch.save({'model': checkpoint['model']}, ...)."
    )


def _depths_of_keys(keys: Iterable[str]) -> _Depths:
    """Numbers of layers from their highest index; at least 1, so that a stack that is not there is missed."""
    keys = list(keys)
    depths = {}
    for field, (prefix, _) in _STACKS.items():
        pattern = re.compile(re.escape(prefix) + r"(\d+)\.")
        indices = [int(match[1]) for match in map(pattern.match, keys) if match]
        depths[field] = max(indices, default=0) + 1
    return _Depths(**depths)


def _depths_of_config(config: XCLIPConfig) -> _Depths:
    text: Any = config.text_config
    vision: Any = config.vision_config
    return _Depths(
        text=text.num_hidden_layers,
        vision=vision.num_hidden_layers,
        mit=vision.mit_num_hidden_layers,
        prompt=config.prompt_layers,
    )


def key_rules(depths: _Depths) -> dict[str, _Rule]:
    """The whole key map for a model of these depths: original name -> where it goes."""
    rules = {key: _Rule((target,), is_transposed=key in _TRANSPOSED) for key, target in _TENSORS.items()}
    rules |= _module_rules("", "", _MODULES)
    for field, (prefix, target_prefix) in _STACKS.items():
        for index in range(getattr(depths, field)):
            layer, target = f"{prefix}{index}.", f"{target_prefix}{index}."
            if field == "prompt":
                rules |= _prompt_layer_rules(layer)
                continue
            rules |= _module_rules(layer, target, _BLOCK_MODULES) | _attention_rules(
                f"{layer}attn", f"{target}self_attn"
            )
            if field == "vision":
                rules |= _module_rules(layer, target, {name: name for name in _MESSAGE_MODULES})
                rules |= _attention_rules(f"{layer}message_attn", f"{target}message_attn")
    return rules


def _module_rules(prefix: str, target_prefix: str, modules: Mapping[str, str]) -> dict[str, _Rule]:
    return {
        f"{prefix}{module}.{kind}": _Rule((f"{target_prefix}{target}.{kind}",))
        for module, target in modules.items()
        for kind in ("weight", "bias")
    }


def _attention_rules(attention: str, target: str) -> dict[str, _Rule]:
    """The fused input projection (3D, D) of `nn.MultiheadAttention`: query, key and value from top to bottom."""
    return {
        f"{attention}.in_proj_{kind}": _Rule(tuple(f"{target}.{part}_proj.{kind}" for part in "qkv"))
        for kind in ("weight", "bias")
    }


def _prompt_layer_rules(layer: str) -> dict[str, _Rule]:
    """Names are the same in both."""
    projections = [f"{layer}cross_attn.{part}_proj.weight" for part in "qkv"]
    return _module_rules(layer, layer, {name: name for name in _PROMPT_MODULES}) | {
        key: _Rule((key,)) for key in projections
    }


def _infer_config(path: Path, state: Mapping[str, torch.Tensor], depths: _Depths) -> XCLIPConfig:
    """The configuration from shapes; heads are 64 wide, as everywhere in the original (X-CLIP supplement, 1.1)."""
    shape = partial(_shape, path, state)
    joint_width = shape("text_projection", "W, E")[1]
    logit_scale = state["logit_scale"]
    return XCLIPConfig(
        projection_dim=joint_width,
        prompt_layers=depths.prompt,
        prompt_num_attention_heads=_num_heads(joint_width),
        logit_scale_init_value=float(logit_scale) if logit_scale.numel() == 1 else 0.0,  # else its shape is reported
        text_config=_infer_text(shape, depths.text),
        vision_config={
            **_infer_vision(shape, depths.vision),
            "num_frames": shape("mit.positional_embedding", "1, T, E")[1],
            "mit_hidden_size": joint_width,
            "mit_intermediate_size": shape("mit.resblocks.0.mlp.c_fc.weight", "4E, E")[0],
            "mit_num_hidden_layers": depths.mit,
            "mit_num_attention_heads": _num_heads(joint_width),
        },
    )


def _shape(path: Path, state: Mapping[str, torch.Tensor], key: str, letters: str) -> tuple[int, ...]:
    """The shape of a tensor that has as many dimensions as `letters` names."""
    found = tuple(state[key].shape)
    if len(found) != len(letters.split(",")):
        raise ValueError(f"{key} in {path} has shape {found}; wanted ({letters}).")
    return found


def _infer_text(shape: Callable[[str, str], tuple[int, ...]], num_layers: int) -> dict[str, int]:
    vocab_size, width = shape("token_embedding.weight", "vocabulary, W")
    return {
        "vocab_size": vocab_size,
        "max_position_embeddings": shape("positional_embedding", "L, W")[0],
        "hidden_size": width,
        "intermediate_size": shape("transformer.resblocks.0.mlp.c_fc.weight", "4W, W")[0],
        "num_hidden_layers": num_layers,
        "num_attention_heads": _num_heads(width),
    }


def _infer_vision(shape: Callable[[str, str], tuple[int, ...]], num_layers: int) -> dict[str, int]:
    width, num_channels, _, patch_size = shape("visual.conv1.weight", "D, 3, P, P")
    num_patches = shape("visual.positional_embedding", "1+K, D")[0] - 1
    side = math.isqrt(max(num_patches, 0))
    if side < 1 or side**2 != num_patches:
        raise ValueError(f"visual.positional_embedding has rows for {num_patches} patches, which fill no square image.")
    return {
        "hidden_size": width,
        "intermediate_size": shape("visual.transformer.resblocks.0.mlp.c_fc.weight", "4D, D")[0],
        "num_hidden_layers": num_layers,
        "num_attention_heads": _num_heads(width),
        "num_channels": num_channels,
        "patch_size": patch_size,
        "image_size": side * patch_size,
    }


def _num_heads(width: int) -> int:
    return max(1, width // HEAD_DIM)


# The one error for weights that do not fit


def _shape_fault(name: str, found: Iterable[int], wanted: Iterable[int]) -> str:
    return f"{name} {tuple(found)} instead of {tuple(wanted)}"


def _require_fit(
    source: Any, *, missing: Iterable[str] = (), left_over: Iterable[str] = (), shapes: Iterable[str] = ()
) -> None:
    """Raises ValueError with everything that does not fit, sorted, if anything does not."""
    faults = {"missing": sorted(missing), "left over": sorted(left_over), "other shapes": sorted(shapes)}
    lines = [f"{kind} ({len(names)}): {', '.join(names)}" for kind, names in faults.items() if names]
    if lines:
        raise ValueError("\n".join([f"{source} does not fit X-CLIP; nothing was written.", *lines]))
