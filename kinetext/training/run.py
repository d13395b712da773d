"""One training run, from a recipe to a folder that others can load: model, processor, card and results."""

from __future__ import annotations

import itertools
import logging
import re
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from transformers import AutoConfig, set_seed

from ..data.annotations import ClipList, read_clips
from ..data.datasets import Augmentation, EvalClips, TrainClips
from ..data.small_tokenizer import small_tokenizer
from ..evaluation.class_texts import encode_class_texts, uses_descriptions
from ..evaluation.classify import load_model
from ..evaluation.evaluator import EvaluationResult, evaluate_clips, write_json
from ..hub_cards.model_card import write_model_card
from ..modeling.configuration_moted import MotedConfig
from ..modeling.configuration_xclip import XCLIPConfig
from ..modeling.modeling_moted import MotedModel
from ..modeling.modeling_xclip import XCLIPModel
from ..processing.processing_video_text import XCLIP_PIXELS, VideoTextProcessor
from .arguments import ARCHITECTURES, DataArguments, ModelArguments, Recipe, as_settings
from .trainer import VideoTextTrainer

logger = logging.getLogger(__name__)

_CLASSES: dict[str, tuple[Any, Any]] = {"xclip": (XCLIPConfig, XCLIPModel), "moted": (MotedConfig, MotedModel)}


def run_training(recipe: Recipe) -> EvaluationResult | None:
    """Trains, saves model, processor, `results.json` and card into `output_dir`, and returns the final evaluation.

    The final weights are evaluated, as in the original X-CLIP, unless `load_best_model_at_end` is set. Without
    evaluation clips there is no result.
    """
    args = recipe.training
    set_seed(args.seed)
    train_clips, eval_clips = read_splits(recipe.data)
    texts = recipe.data.texts_of(train_clips.class_names)
    if len(texts) < 2:
        raise ValueError(f"the clips have the single class {texts}; there is nothing to tell apart.")
    descriptions = recipe.data.descriptions_of(train_clips.class_names)
    model, processor = build_model(recipe.model, [*texts, *itertools.chain(*(descriptions or []))])
    _check_descriptions(model, recipe.data.descriptions)
    if eval_clips is None:
        args.eval_strategy = "no"
    trainer = VideoTextTrainer(
        model,
        args,
        processing_class=processor,
        class_texts=texts,
        descriptions=descriptions,
        train_dataset=TrainClips(
            train_clips,
            processor,
            seed=args.seed,
            augmentation=Augmentation(recipe.data.multi_scale_crop, recipe.data.flip_probability),
            decoder=recipe.data.decoder,
        ),
        eval_dataset=None if eval_clips is None else EvalClips(eval_clips, processor, decoder=recipe.data.decoder),
        train_text=recipe.model.train_text,
    )
    if trainer.is_world_process_zero():
        held_out = 0 if eval_clips is None else len(eval_clips)
        print(
            f"{args.world_size} process(es), {len(texts)} classes, {len(train_clips)} clips to train on, "
            f"{held_out} to evaluate; output in {args.output_dir}"
        )
    resume = args.resume_from_checkpoint
    trainer.train(resume_from_checkpoint=True if str(resume).lower() in ("true", "auto") else resume)
    result = None if eval_clips is None else trainer.evaluation_result()
    trainer.save_model(args.output_dir)
    if trainer.is_world_process_zero():
        _write_results(recipe, texts, descriptions, result)
    trainer.accelerator.wait_for_everyone()  # without it, a process that ends early takes the others down
    trainer.accelerator.end_training()
    return result


def evaluate_model(recipe: Recipe, *, views: str = "1x1") -> EvaluationResult:
    """Evaluates `model` of a recipe on its evaluation clips (all clips where it has none); writes `results.json`.

    Frames, sampling and size are those saved with the model.

    Args:
        recipe: says which model, clips and class texts, and `output_dir`.
        views: clips x crops per video, e.g. "4x3".
    """
    counts = re.fullmatch(r"([1-9]\d*)x([13])", views)
    if counts is None:
        raise ValueError(f"views={views!r} is not understood; write clips x crops with 1 or 3 crops, e.g. 4x3.")
    if recipe.model.contract:
        raise ValueError(f"{recipe.model.contract} would change what the model was saved with; leave it out of eval.")
    for name in ("architecture", "model_overrides"):
        if getattr(recipe.model, name) is not None:
            raise ValueError(
                f"{name}={getattr(recipe.model, name)!r} says how a CLIP is trained; leave it out of eval."
            )
    num_clips, num_crops = map(int, counts.groups())
    train_clips, eval_clips = read_splits(recipe.data)
    clips = train_clips if eval_clips is None else eval_clips
    model, processor = load_model(str(recipe.model.model))
    texts = recipe.data.texts_of(clips.class_names)
    data = _usable_data(recipe.data, model)
    descriptions = data.descriptions_of(clips.class_names)
    model.to(recipe.training.device)
    result = evaluate_clips(
        model,
        EvalClips(clips, processor, num_clips=num_clips, num_crops=num_crops, decoder=recipe.data.decoder),
        encode_class_texts(model, processor, texts, descriptions=descriptions),
        batch_size=recipe.training.per_device_eval_batch_size,
        num_workers=recipe.training.dataloader_num_workers,
    )
    settings = {"model": recipe.model.model, "views": views, **asdict(data), **processor.contract}
    write_json(_output_folder(recipe) / "results.json", {"settings": settings, **result.as_dict()})
    return result


def _usable_data(data: DataArguments, model: Any) -> DataArguments:
    """The arguments without descriptions that the model would not use, so that results name only what counted."""
    if data.descriptions is None or uses_descriptions(model):
        return data
    logger.warning(
        "descriptions=%r are left out: this %s reads class texts only.", data.descriptions, model.config.model_type
    )
    return replace(data, descriptions=None)


def read_splits(data: DataArguments) -> tuple[ClipList, ClipList | None]:
    """(training clips, evaluation clips or None) with the same class names."""
    train_clips = read_clips(data.train, data_root=data.data_root)
    if data.eval is not None and data.hold_out:
        raise ValueError("give the evaluation clips by eval or by hold_out, not both.")
    if data.hold_out:
        return train_clips.split_by_name(data.hold_out)
    if data.eval is None:
        return train_clips, None
    return train_clips, read_clips(data.eval, data_root=data.data_root, class_names=train_clips.class_names)


def build_model(arguments: ModelArguments, texts: list[str]) -> tuple[Any, VideoTextProcessor]:
    """The model and the processor that a recipe starts from.

    What a checkpoint says of frames, sampling and pixels is kept where the recipe says nothing.

    Args:
        arguments: of the recipe.
        texts: class texts and descriptions; models with random weights get a tokenizer learnt from them, as none can be
            assumed.

    Raises:
        ValueError: if the checkpoint is no CLIP and no video-text model, or not what `architecture` says.
    """
    if arguments.model is None:
        return _random_model(arguments, texts)
    saved = VideoTextProcessor.from_pretrained(arguments.model)
    contract = {**saved.contract, **arguments.contract}
    model = _pretrained_model(arguments, contract["num_frames"])
    if model.config.model_type == "xclip" and AutoConfig.from_pretrained(arguments.model).model_type == "clip":
        contract |= XCLIP_PIXELS  # published X-CLIPs are trained from CLIP on these
    return model, _processor(saved.tokenizer, model, contract)


def _pretrained_model(arguments: ModelArguments, num_frames: int) -> Any:
    """The model of a checkpoint, or a new one around its CLIP, set to this number of frames."""
    name: Any = arguments.model
    model_type = AutoConfig.from_pretrained(name).model_type
    if model_type == "clip":
        _, model_class = _CLASSES[arguments.architecture or ARCHITECTURES[0]]
        return model_class.from_clip(name, num_frames=num_frames, **arguments.override_fields)
    if model_type not in _CLASSES:
        raise ValueError(f"{name} is a {model_type!r} model; a CLIP or one of {', '.join(_CLASSES)} is wanted.")
    if arguments.architecture not in (None, model_type):
        raise ValueError(
            f"{name} is a {model_type!r} model, which cannot become architecture={arguments.architecture!r}; "
            "leave architecture out, or start from a CLIP."
        )
    if arguments.model_overrides is not None:
        raise ValueError(
            f"model_overrides change what a CLIP becomes; {name} is a {model_type!r} model and keeps its configuration."
        )
    model = _CLASSES[model_type][1].from_pretrained(name)
    model.set_num_frames(num_frames)
    return model


def _random_model(arguments: ModelArguments, texts: list[str]) -> tuple[Any, VideoTextProcessor]:
    tokenizer = small_tokenizer(texts)
    architecture = arguments.architecture or ARCHITECTURES[0]
    config = _random_config(arguments, architecture, tokenizer)
    num_frames = (config.vision_config if architecture == "xclip" else config).num_frames
    contract = {"num_frames": num_frames, "crop_size": config.vision_config.image_size, **arguments.contract}
    _, model_class = _CLASSES[architecture]
    model = model_class(config)
    return model, _processor(tokenizer, model, contract)


def _random_config(arguments: ModelArguments, architecture: str, tokenizer: Any) -> Any:
    """The configuration of a preset or of `model_config`, with the tokenizer's special tokens.

    CLIP text towers read their feature at the end token; where that of the configuration does not occur, they read it
    at the start token, and all texts are the same.
    """
    config_class, _ = _CLASSES[architecture]
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


def _processor(tokenizer: Any, model: Any, contract: dict[str, Any]) -> VideoTextProcessor:
    """The processor of a model: as the contract says, with as many motion frames as the model takes."""
    own = {"motion_frame_ratio": model.config.motion_frame_ratio} if model.config.model_type == "moted" else {}
    return VideoTextProcessor(tokenizer, **{**contract, **own})


def _check_descriptions(model: Any, source: str | None) -> None:
    """Raises ValueError where a model learns from descriptions and the recipe names none, or the other way round."""
    if uses_descriptions(model) and source is None:
        raise ValueError(
            "this MoTED learns from descriptions of its classes and the recipe names none: give `descriptions`, a file "
            "or a built-in name, or set use_conceptual and use_discriminative to false (in model_config, or in "
            "model_overrides where a CLIP is the start)."
        )
    if source is not None and not uses_descriptions(model):
        raise ValueError(
            f"descriptions={source!r} would have no effect: this {model.config.model_type} reads class texts only. "
            "Leave them out, or train a MoTED that uses them (architecture: moted)."
        )


def _output_folder(recipe: Recipe) -> Path:
    return Path(str(recipe.training.output_dir))  # never None: the arguments check it


def _write_results(
    recipe: Recipe, texts: list[str], descriptions: Sequence[Sequence[str]] | None, result: EvaluationResult | None
) -> None:
    folder = _output_folder(recipe)
    settings = as_settings(recipe)
    if result is None:
        (folder / "results.json").unlink(missing_ok=True)  # of an earlier run: it does not speak of these weights
    else:
        write_json(folder / "results.json", {"settings": settings, **result.as_dict()})
    write_model_card(
        folder,
        class_texts=texts,
        descriptions=descriptions,
        description_source=recipe.data.descriptions,
        settings=settings,
        result=result,
    )
