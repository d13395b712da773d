"""What a recipe starts from: a model in which what is to be trained learns, and its processor."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from PIL import Image
from transformers import AutoConfig, PreTrainedConfig
from transformers.models.auto.image_processing_auto import get_image_processor_config

from ..data.small_tokenizer import small_tokenizer
from ..evaluation.classify import check_whole
from ..modeling.configuration_moted import MotedConfig
from ..modeling.configuration_video_clip import VideoCLIPConfig
from ..modeling.configuration_video_text import class_names_of, is_classifier
from ..modeling.configuration_xclip import XCLIPConfig
from ..modeling.modeling_moted import MotedModel
from ..modeling.modeling_video_clip import VideoCLIPForVideoClassification, VideoCLIPModel
from ..modeling.modeling_xclip import XCLIPForVideoClassification, XCLIPModel
from ..processing.processing_video_text import XCLIP_PIXELS, VideoTextProcessor
from .arguments import ARCHITECTURES, ModelArguments
from .lora import add_lora

_ALPHA_PER_RANK = 2.0  # of LoRA, where the recipe says none


class _Family(NamedTuple):
    """The classes of an architecture: configuration, model over class texts, and model with a linear layer."""

    config: Any
    text: Any
    linear: Any


_FAMILIES = {
    "xclip": _Family(XCLIPConfig, XCLIPModel, XCLIPForVideoClassification),
    "moted": _Family(MotedConfig, MotedModel, None),
    "video_clip": _Family(VideoCLIPConfig, VideoCLIPModel, VideoCLIPForVideoClassification),
}


def build_model(
    arguments: ModelArguments, texts: Sequence[str], *, class_names: Sequence[str] | None = None
) -> tuple[Any, VideoTextProcessor]:
    """The model and the processor that a recipe starts from.

    What a checkpoint says of frames, sampling and pixels is kept where the recipe says nothing. On a CLIP, models are
    trained with the pixel values they are published with: X-CLIP, ViFi-CLIP and the other VideoCLIPs with ImageNet's
    statistics, Text4Vis and every model with a frozen image tower with CLIP's own. Another image tower is trained with
    its own, which its folder has beside it, else with ImageNet's; its images have the size it takes.

    Args:
        arguments: of the recipe.
        texts: class texts and descriptions; models with random weights get a tokenizer learnt from them, as none can be
            assumed.
        class_names: N names in label order, for a linear head.

    Raises:
        ValueError: if the checkpoint is no CLIP and no model of kinetext, lacks weights, or is not what `architecture`
            and `head` say;
            and if the recipe trains what the model has not, or always freezes.
        ImportError: for `lora_rank` without peft.
    """
    labels = _label_fields(arguments, class_names)
    if arguments.model is None:
        model, processor = _random_model(arguments, texts, labels)
    else:
        saved = VideoTextProcessor.from_pretrained(arguments.model)
        contract = {**saved.contract, **arguments.contract}
        config = AutoConfig.from_pretrained(arguments.model)
        model = _pretrained_model(arguments, config, contract["num_frames"], labels)
        if arguments.vision_tower is not None:
            contract |= _tower_contract(arguments, model)
        elif config.model_type == "clip":
            contract |= _published_pixels(model)
        processor = _processor(saved.tokenizer, model, contract)
    model.float()  # weights learn in fp32, whatever they are saved in: a small step is lost on bf16
    if arguments.lora_rank is not None:
        alpha = arguments.lora_alpha or _ALPHA_PER_RANK * arguments.lora_rank
        add_lora(model, rank=arguments.lora_rank, alpha=alpha)
    return model, processor


def _label_fields(arguments: ModelArguments, class_names: Sequence[str] | None) -> dict[str, Any]:
    """What the configuration of a classifier says of its classes; nothing for a model over class texts."""
    if arguments.head == "text":
        return {}
    if class_names is None:
        raise ValueError(f"head={arguments.head!r} needs class_names, one for each output.")
    names = list(class_names)
    return {"id2label": dict(enumerate(names)), "label2id": {name: index for index, name in enumerate(names)}}


def _model_class(architecture: str, head: str) -> Any:
    model_class = getattr(_FAMILIES[architecture], head)
    if model_class is None:
        possible = [name for name, family in _FAMILIES.items() if getattr(family, head) is not None]
        raise ValueError(
            f"there is no {architecture} with head={head!r}: it learns from class texts; choose one of "
            f"{', '.join(possible)}, or head='text'."
        )
    return model_class


def _let_learn(model: Any, arguments: ModelArguments) -> Any:
    """The model, in which what the recipe trains gets gradients, and nothing else of CLIP."""
    model.set_trainable(
        text=arguments.train_text, vision=arguments.train_vision, logit_scale=arguments.train_logit_scale
    )
    return model


def _pretrained_model(
    arguments: ModelArguments, config: PreTrainedConfig, num_frames: int, labels: dict[str, Any]
) -> Any:
    """The model of a checkpoint, or a new one around its CLIP, set to this number of frames."""
    name: Any = arguments.model
    if config.model_type == "clip":
        model_class = _model_class(arguments.architecture or ARCHITECTURES[0], arguments.head)
        fields = {"num_frames": num_frames, **arguments.override_fields, **labels}
        if arguments.vision_tower is None:
            return _let_learn(model_class.from_clip(name, **fields), arguments)
        return _let_learn(model_class.from_towers(arguments.vision_tower, name, **fields), arguments)
    _check_saved(arguments, config, labels)
    model_class = _model_class(config.model_type, arguments.head)
    model, loading = model_class.from_pretrained(name, output_loading_info=True, **labels)
    is_new_head = bool(labels) and not is_classifier(config)
    check_whole(name, [key for key in loading["missing_keys"] if not (is_new_head and key.startswith("classifier."))])
    model.set_num_frames(num_frames)
    return _let_learn(model, arguments)


def _check_saved(arguments: ModelArguments, config: PreTrainedConfig, labels: dict[str, Any]) -> None:
    """Raises ValueError where a recipe asks a saved model to be what it is not."""
    name, model_type = arguments.model, config.model_type
    if model_type not in _FAMILIES:
        raise ValueError(f"{name} is a {model_type!r} model; a CLIP or one of {', '.join(_FAMILIES)} is wanted.")
    if arguments.architecture not in (None, model_type):
        raise ValueError(
            f"{name} is a {model_type!r} model, which cannot become architecture={arguments.architecture!r}; "
            "leave architecture out, or start from a CLIP."
        )
    if arguments.vision_tower is not None:
        raise ValueError(
            f"vision_tower takes the place of a CLIP's; {name} is a {model_type!r} model and keeps its image tower."
        )
    if arguments.model_overrides is not None:
        raise ValueError(
            f"model_overrides change what a CLIP becomes; {name} is a {model_type!r} model and keeps its configuration."
        )
    if not is_classifier(config):
        return
    if arguments.head == "text":
        raise ValueError(f"{name} is a classifier without a text tower; set head: linear.")
    if config.id2label != labels["id2label"]:
        raise ValueError(
            f"{name} tells apart {class_names_of(config)}, the recipe "
            f"{list(labels['id2label'].values())}; bring them into the same order, or start from a CLIP."
        )


def _random_model(
    arguments: ModelArguments, texts: Sequence[str], labels: dict[str, Any]
) -> tuple[Any, VideoTextProcessor]:
    tokenizer = small_tokenizer(texts)
    architecture = arguments.architecture or ARCHITECTURES[0]
    model_class = _model_class(architecture, arguments.head)
    config = _random_config(arguments, architecture, tokenizer)
    for name, value in labels.items():
        setattr(config, name, value)
    num_frames = (config.vision_config if architecture == "xclip" else config).num_frames
    contract = {"num_frames": num_frames, "crop_size": config.vision_config.image_size, **arguments.contract}
    model = _let_learn(model_class(config), arguments)
    return model, _processor(tokenizer, model, contract)


def _random_config(arguments: ModelArguments, architecture: str, tokenizer: Any) -> Any:
    """The configuration of a preset or of `model_config`, with the tokenizer's special tokens.

    CLIP text towers read their feature at the end token; where that of the configuration does not occur, they read it
    at the start token, and all texts are the same.
    """
    config_class = _FAMILIES[architecture].config
    frames = {} if arguments.num_frames is None else {"num_frames": arguments.num_frames}
    tokens = {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    if arguments.preset is not None:
        config = config_class.preset(arguments.preset, **frames)
        config.text_config.update(tokens)
        return config
    fields = arguments.config_fields
    fields["text_config"] = {"vocab_size": len(tokenizer), **tokens, **fields.get("text_config", {})}
    if architecture == "xclip":  # whose number of frames is a field of the vision tower
        fields["vision_config"] = {**frames, **fields.get("vision_config", {})}
        return config_class(**fields)
    return config_class(**{**frames, **fields})


def _published_pixels(model: Any) -> dict[str, Any]:
    """The pixel values that models on a CLIP are trained with, where these are not CLIP's own.

    X-CLIP's and ViFi-CLIP's data code is the same and takes ImageNet's; a tower that does not learn needs its own.
    """
    is_text4vis = getattr(model.config, "temporal_pooling", None) == "transformer"
    learns = model.visual_projection.weight.requires_grad
    return XCLIP_PIXELS if learns and not is_text4vis else {}


def _tower_contract(arguments: ModelArguments, model: Any) -> dict[str, Any]:
    """The sizes and pixel values of an image tower that is not the CLIP's; the short side is the recipe's, if given."""
    own = get_image_processor_config(str(arguments.vision_tower))
    is_bicubic = own.get("resample") == Image.Resampling.BICUBIC
    return {
        "crop_size": model.config.vision_config.image_size,
        "short_side": arguments.short_side,
        **XCLIP_PIXELS,
        **{name: own[name] for name in ("image_mean", "image_std") if name in own},
        "interpolation": "bicubic" if is_bicubic else "bilinear",
    }


def _processor(tokenizer: Any, model: Any, contract: dict[str, Any]) -> VideoTextProcessor:
    """The processor of a model: as the contract says, with as many motion frames as the model takes."""
    own = {"motion_frame_ratio": model.config.motion_frame_ratio} if model.config.model_type == "moted" else {}
    return VideoTextProcessor(tokenizer, **{**contract, **own})
