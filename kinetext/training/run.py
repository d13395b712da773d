"""One training run, from a recipe to a folder that others can load: model, processor, card and results."""

from __future__ import annotations

import re
from dataclasses import asdict
from pathlib import Path
from typing import Any

from transformers import AutoConfig, set_seed

from ..data.annotations import ClipList, read_clips
from ..data.datasets import Augmentation, EvalClips, TrainClips
from ..data.small_tokenizer import small_tokenizer
from ..evaluation.class_texts import encode_class_texts
from ..evaluation.classify import load_model
from ..evaluation.evaluator import EvaluationResult, evaluate_clips, write_json
from ..hub_cards.model_card import write_model_card
from ..modeling.configuration_xclip import XCLIPConfig
from ..modeling.modeling_xclip import XCLIPModel
from ..processing.processing_video_text import VideoTextProcessor
from .arguments import DataArguments, ModelArguments, Recipe, as_settings
from .trainer import VideoTextTrainer


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
    model, processor = build_model(recipe.model, texts)
    if eval_clips is None:
        args.eval_strategy = "no"
    trainer = VideoTextTrainer(
        model,
        args,
        processing_class=processor,
        class_texts=texts,
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
        _write_results(recipe, texts, result)
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
    num_clips, num_crops = map(int, counts.groups())
    train_clips, eval_clips = read_splits(recipe.data)
    clips = train_clips if eval_clips is None else eval_clips
    model, processor = load_model(str(recipe.model.model))
    texts = recipe.data.texts_of(clips.class_names)
    model.to(recipe.training.device)
    result = evaluate_clips(
        model,
        EvalClips(clips, processor, num_clips=num_clips, num_crops=num_crops, decoder=recipe.data.decoder),
        encode_class_texts(model, processor, texts),
        batch_size=recipe.training.per_device_eval_batch_size,
        num_workers=recipe.training.dataloader_num_workers,
    )
    settings = {"model": recipe.model.model, "views": views, **asdict(recipe.data), **_contract_of(processor)}
    write_json(_output_folder(recipe) / "results.json", {"settings": settings, **result.as_dict()})
    return result


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


def build_model(arguments: ModelArguments, texts: list[str]) -> tuple[XCLIPModel, VideoTextProcessor]:
    """The model and the processor that a recipe starts from.

    What a checkpoint says of frames, sampling and pixels is kept where the recipe says nothing. Models with random
    weights get a tokenizer learnt from the class texts, as none can be assumed.
    """
    if arguments.model is None:
        return _random_model(arguments, texts)
    saved = VideoTextProcessor.from_pretrained(arguments.model)
    contract = {**_contract_of(saved), **arguments.contract}
    processor = VideoTextProcessor(saved.tokenizer, **contract)
    model_type = AutoConfig.from_pretrained(arguments.model).model_type
    if model_type == "clip":
        return XCLIPModel.from_clip(arguments.model, num_frames=processor.num_frames), processor
    if model_type != "xclip":
        raise ValueError(f"{arguments.model} is a {model_type!r} model; an X-CLIP or a CLIP is wanted.")
    model = XCLIPModel.from_pretrained(arguments.model)
    model.set_num_frames(processor.num_frames)
    return model, processor


def _contract_of(processor: VideoTextProcessor) -> dict[str, Any]:
    """The saved parameters of a processor: which frames of a video, and which pixels of a frame."""
    names = ("num_frames", "sampling", "stride", "template", "crop_size", "short_side")
    return {name: getattr(processor, name) for name in (*names, "interpolation", "image_mean", "image_std")}


def _random_model(arguments: ModelArguments, texts: list[str]) -> tuple[XCLIPModel, VideoTextProcessor]:
    tokenizer = small_tokenizer(texts)
    frames = {} if arguments.num_frames is None else {"num_frames": arguments.num_frames}
    if arguments.preset is not None:
        config = XCLIPConfig.preset(arguments.preset, **frames)
    else:
        fields = arguments.config_fields
        text = {"vocab_size": len(tokenizer), **fields.pop("text_config", {})}
        config = XCLIPConfig(text_config=text, vision_config={**frames, **fields.pop("vision_config", {})}, **fields)
    vision: Any = config.vision_config
    contract = {"num_frames": vision.num_frames, **arguments.contract}
    return XCLIPModel(config), VideoTextProcessor(tokenizer, crop_size=vision.image_size, **contract)


def _output_folder(recipe: Recipe) -> Path:
    return Path(str(recipe.training.output_dir))  # never None: the arguments check it


def _write_results(recipe: Recipe, texts: list[str], result: EvaluationResult | None) -> None:
    folder = _output_folder(recipe)
    settings = as_settings(recipe)
    if result is None:
        (folder / "results.json").unlink(missing_ok=True)  # of an earlier run: it does not speak of these weights
    else:
        write_json(folder / "results.json", {"settings": settings, **result.as_dict()})
    write_model_card(folder, class_texts=texts, settings=settings, result=result)
