"""X-CLIP checkpoints: files of microsoft/VideoX `X-CLIP`, and folders of transformers' own X-CLIP.

What is converted is loaded by transformers' own `XCLIPModel`, too. Key map: after huggingface/transformers
`convert_x_clip_original_pytorch_to_hf.py`.

Legend: E joint width, T frames.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedConfig

from ..modeling.configuration_video_text import HEAD_DIM
from ..modeling.configuration_xclip import XCLIPConfig
from ..modeling.modeling_xclip import XCLIPModel
from .checkpoints import Checkpoint, Converted, fill_model, require_fit, require_weights, shape_fault
from .clip_keys import (
    TEXT_LAYERS,
    Rule,
    Shapes,
    attention_rules,
    block_rules,
    check_keys,
    convert_state,
    count_layers,
    infer_text,
    infer_vision,
    module_rules,
    num_heads,
    text_rules,
    vision_rules,
)

PROJECT = "X-CLIP"

# original name -> transformers name, of what CLIP has not; first single tensors
_TENSORS = {
    "token_embedding.weight": "text_model.embeddings.token_embedding.weight",
    "prompts_visual_proj": "prompts_visual_projection",
    "prompts_generator.alpha": "prompts_generator.alpha",
    "mit.positional_embedding": "mit.position_embedding",
    "logit_scale": "logit_scale",
}
# the same for modules with weight and bias
_MODULES = {"prompts_visual_ln": "prompts_visual_layernorm", "prompts_generator.norm": "prompts_generator.layernorm"}
_MESSAGE_MODULES = ("message_fc", "message_ln", "message_attn.out_proj")  # same name in both
_PROMPT_MODULES = ("cross_attn.proj", "norm1", "norm3", "mlp.0", "mlp.3")
_MIT_LAYERS = "mit.resblocks."
_PROMPT_LAYERS = "prompts_generator.decoder."


@dataclass(frozen=True)
class _Depths:
    """Numbers of layers."""

    text: int
    vision: int
    mit: int
    prompt: int


# Transformers' folders


def load_folder(source: str, config: XCLIPConfig | None) -> Converted:
    """The model of a folder or repository, with its own head counts, if it fits without remainder.

    Raises:
        ValueError: for another model, and for weights that do not fit, or can be none.
    """
    found, _ = PreTrainedConfig.get_config_dict(source)
    if found.get("model_type") != XCLIPConfig.model_type:
        raise ValueError(f"{source} holds a model of type {found.get('model_type')!r}; `xclip` is wanted.")
    loaded: Any = XCLIPModel.from_pretrained(
        source,
        config=config or XCLIPConfig.from_pretrained(source),
        output_loading_info=True,
        ignore_mismatched_sizes=True,  # so that they are reported with the rest; `require_fit` raises
    )
    model, report = loaded
    require_fit(
        source,
        PROJECT,
        missing=report["missing_keys"],
        # Without the `position_ids` that older versions saved: transformers itself leaves these buffers out.
        left_over=report["unexpected_keys"],
        shapes=[shape_fault(*mismatch) for mismatch in report["mismatched_keys"]],
    )
    require_weights(source, model.state_dict())
    return Converted(model, _contract(model.config), tuple(_head_notes(model.config)))


def _contract(config: Any) -> dict[str, Any]:
    vision = config.vision_config
    return {"num_frames": vision.num_frames, "crop_size": vision.image_size}


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


def convert_xclip(checkpoint: Checkpoint, config: XCLIPConfig | None) -> Converted:
    """The model of a file, its sizes inferred where `config` does not give them.

    Raises:
        ValueError: for weights that do not fit.
    """
    path, state = checkpoint.path, checkpoint.state
    depths = _depths_of_keys(state) if config is None else _depths_of_config(config)
    rules = key_rules(depths)
    check_keys(path, PROJECT, state, rules)
    config = config or _infer_config(checkpoint, depths)
    weights = convert_state(state, rules)
    model = fill_model(XCLIPModel, config, weights, source=path, project=PROJECT)
    return Converted(model, _contract(model.config))


def _depths_of_keys(keys: Iterable[str]) -> _Depths:
    keys = list(keys)
    return _Depths(
        text=count_layers(keys, TEXT_LAYERS),
        vision=count_layers(keys, f"visual.{TEXT_LAYERS}"),
        mit=count_layers(keys, _MIT_LAYERS),
        prompt=count_layers(keys, _PROMPT_LAYERS),
    )


def _depths_of_config(config: XCLIPConfig) -> _Depths:
    text: Any = config.text_config
    vision: Any = config.vision_config
    return _Depths(
        text=text.num_hidden_layers,
        vision=vision.num_hidden_layers,
        mit=vision.mit_num_hidden_layers,
        prompt=config.prompt_layers,
    )


def key_rules(depths: _Depths) -> dict[str, Rule]:
    """The whole key map for a model of these depths: original name -> where it goes."""
    rules = {key: Rule((target,)) for key, target in _TENSORS.items()}
    rules |= module_rules("", "", _MODULES) | text_rules(depths.text)
    rules |= vision_rules(depths.vision, first_norm="pre_layernorm")
    for index in range(depths.vision):
        layer, target = f"visual.{TEXT_LAYERS}{index}.", f"vision_model.encoder.layers.{index}."
        rules |= module_rules(layer, target, {name: name for name in _MESSAGE_MODULES})
        rules |= attention_rules(f"{layer}message_attn", f"{target}message_attn")
    for index in range(depths.mit):
        rules |= block_rules(f"{_MIT_LAYERS}{index}.", f"mit.encoder.layers.{index}.")
    for index in range(depths.prompt):
        rules |= _prompt_layer_rules(f"{_PROMPT_LAYERS}{index}.")
    return rules


def _prompt_layer_rules(layer: str) -> dict[str, Rule]:
    """Names are the same in both."""
    projections = [f"{layer}cross_attn.{part}_proj.weight" for part in "qkv"]
    return module_rules(layer, layer, {name: name for name in _PROMPT_MODULES}) | {
        key: Rule((key,)) for key in projections
    }


def _infer_config(checkpoint: Checkpoint, depths: _Depths) -> XCLIPConfig:
    """The configuration from shapes; heads are 64 wide, as everywhere in the original (X-CLIP supplement, 1.1)."""
    shape = Shapes(checkpoint.path, checkpoint.state)
    joint_width = shape("text_projection", "W, E")[1]
    logit_scale = checkpoint.state["logit_scale"]
    return XCLIPConfig(
        projection_dim=joint_width,
        prompt_layers=depths.prompt,
        prompt_num_attention_heads=num_heads(joint_width),
        logit_scale_init_value=float(logit_scale) if logit_scale.numel() == 1 else 0.0,  # else its shape is reported
        text_config=infer_text(shape, depths.text),
        vision_config={
            **infer_vision(shape, depths.vision),
            "num_frames": shape("mit.positional_embedding", "1, T, E")[1],
            "mit_hidden_size": joint_width,
            "mit_intermediate_size": shape("mit.resblocks.0.mlp.c_fc.weight", "4E, E")[0],
            "mit_num_hidden_layers": depths.mit,
            "mit_num_attention_heads": num_heads(joint_width),
        },
    )
