"""One training run, from a recipe to a folder that others can load: model, processor, card, report and results."""

from __future__ import annotations

import itertools
import logging
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

from transformers import set_seed
from transformers.integrations import get_available_reporting_integrations

from ..data.clip_lists import ClipList
from ..data.datasets import EvalClips
from ..evaluation.class_texts import uses_descriptions
from ..evaluation.evaluate import Loading, evaluate_with_baseline
from ..evaluation.predictions import EvaluationResult
from ..evaluation.protocol import own_clips, parse_views
from ..evaluation.results import ProtocolResult
from ..hub_cards.push import check_license, check_push
from .arguments import DataArguments, ModelArguments, Recipe, VideoTextTrainingArguments, as_settings
from .build import build_model
from .checkpoints import checkpoint_to_resume
from .clips import read_splits, train_dataset
from .launch import check_one_gpu, check_processes
from .progress import headline, show_progress
from .pushing import PushCallback
from .run_folder import RunFolder
from .trainer import VideoTextTrainer

logger = logging.getLogger(__name__)

_OF_THE_TEXTS = ("descriptions", "description_kinds", "descriptions_masked")
_TERMINATED = 143  # exit status of a program that ended because of SIGTERM


def run_training(recipe: Recipe) -> EvaluationResult | None:
    """Trains, saves model, processor, results, card and report into `output_dir`, and returns the final evaluation.

    The final weights are evaluated, as in the original X-CLIP, unless `load_best_model_at_end` is set. Without
    evaluation clips there is no result.

    Raises:
        SystemExit: with 143 after SIGTERM, when the checkpoint is saved.
    """
    args = recipe.training
    _check_settings(recipe)
    checkpoint = checkpoint_to_resume(str(args.output_dir), args.resume)
    if args.hub_model_id is not None:
        check_push(args.hub_model_id)
    set_seed(args.seed)
    splits = read_splits(recipe.data)
    texts = recipe.data.texts_of(splits.class_names)
    if len(texts) < 2:
        raise ValueError(f"the clips have the single class {texts}; there is nothing to tell apart.")
    if recipe.model.head == "text":
        _check_texts(texts, splits.class_names)
    descriptions = recipe.data.descriptions_of(splits.class_names)
    model, processor = build_model(
        recipe.model, [*texts, *itertools.chain(*(descriptions or []))], class_names=splits.class_names
    )
    _check_descriptions(model, recipe.data, descriptions)
    if splits.eval is None:
        args.eval_strategy = "no"
    settings = as_settings(recipe)  # before the trainer: it makes arguments anew, which resets accelerate's state
    trainer = VideoTextTrainer(
        model,
        args,
        processing_class=processor,
        class_texts=texts if recipe.model.head == "text" else None,
        descriptions=descriptions,
        train_dataset=train_dataset(recipe, splits, processor),
        eval_dataset=None if splits.eval is None else EvalClips(splits.eval, processor, decoder=recipe.data.decoder),
        max_failed_share=recipe.data.max_failed_share,
        settings=_identity(recipe),
    )
    folder = RunFolder(recipe, trainer, splits, texts, settings)
    if args.push_every_epochs is not None:
        trainer.add_callback(PushCallback(folder.write_last, folder.push, every_epochs=args.push_every_epochs))
    if trainer.is_world_process_zero():
        print(headline(args, **folder.counts()), flush=True)
    with show_progress(trainer):
        trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
    if trainer.was_terminated:
        _say_goodbye(trainer)
    folder.write(None)  # what was learnt is safe, whatever becomes of the evaluation
    result = None
    if splits.eval is not None:
        result = trainer.evaluation_result()
        folder.write(result)
    if args.hub_model_id is not None and trainer.is_world_process_zero():
        folder.push("Trained with kinetext")
    trainer.accelerator.wait_for_everyone()  # without it, a process that ends early takes the others down
    trainer.accelerator.end_training()
    return result


def _say_goodbye(trainer: VideoTextTrainer) -> None:
    """Ends the process as one that SIGTERM ended; the checkpoint is saved."""
    if trainer.is_world_process_zero():
        print(f"SIGTERM: saved after step {trainer.state.global_step}; go on with --resume auto.", file=sys.stderr)
    trainer.accelerator.wait_for_everyone()
    trainer.accelerator.end_training()
    raise SystemExit(_TERMINATED)


def _check_settings(recipe: Recipe) -> None:
    """Raises before anything is loaded for what would stop a run later, or be without effect.

    Raises:
        ImportError: for a tracker that is not installed.
        ValueError: for settings or a launch that do not fit together.
    """
    args, data = recipe.training, recipe.data
    check_processes(args.world_size)
    check_one_gpu(args.n_gpu)
    if args.license is not None:
        check_license(args.license)
    available = get_available_reporting_integrations()
    unknown = [name for name in args.report_to or [] if name not in available]
    if unknown:
        raise ImportError(f"report_to={unknown} is not installed; here is {', '.join(available)}, or write none.")
    evaluates = data.eval is not None or bool(data.hold_out)
    if args.load_best_model_at_end and not evaluates:
        raise ValueError("load_best_model_at_end needs clips to evaluate; give eval or hold_out, or leave it out.")
    if data.streaming:
        _check_no_epochs(args, evaluates=evaluates)


def _check_no_epochs(args: VideoTextTrainingArguments, *, evaluates: bool) -> None:
    """Raises ValueError for what a stream, whose only epoch is the whole run, would do at its end alone."""
    way_out = {"save_strategy": "save_strategy: steps, save_steps: 1000"}
    if evaluates:
        way_out["eval_strategy"] = "eval_strategy: steps, eval_steps: 1000"
    for name, instead in way_out.items():
        if getattr(args, name) == "epoch":
            raise ValueError(f"{name}: epoch never comes in a stream, which has none; write e.g. {instead}.")
    if args.push_every_epochs is not None:
        raise ValueError(f"push_every_epochs={args.push_every_epochs}: a stream has no epochs; leave it out.")


def _check_texts(texts: Sequence[str], class_names: Sequence[str]) -> None:
    """Raises ValueError for classes of one text, which nothing could tell apart."""
    for text, count in Counter(texts).items():
        if count > 1:
            same = [name for name, its_text in zip(class_names, texts, strict=True) if its_text == text]
            raise ValueError(f"the classes {same} have the same text, {text!r}; give each its own in class_texts.")


def evaluate_recipe(
    recipe: Recipe, *, views: str = "1x1", baseline: str | None = None, loading: Loading | None = None
) -> tuple[ProtocolResult, ProtocolResult | None]:
    """Evaluates `model` of a recipe, and a baseline, on its evaluation clips, or on all where it has none.

    Frames, sampling and size are those saved with the model. What is written is said in `evaluate_with_baseline`.

    Args:
        recipe: says which model, clips and class texts, and `output_dir`.
        views: clips x crops per video, e.g. "4x3".
        baseline: as of `evaluate_with_baseline`.
        loading: how clips get to the model; the recipe says which decoder.
    """
    if recipe.model.contract:
        raise ValueError(f"{recipe.model.contract} would change what the model was saved with; leave it out of eval.")
    untouched = ModelArguments(model=recipe.model.model)
    for name, value in asdict(recipe.model).items():
        if value != getattr(untouched, name):
            raise ValueError(f"{name}={value!r} says how a model is trained; leave it out of eval.")
    counts = parse_views(views)
    splits = read_splits(recipe.data)
    clips = splits.train if splits.eval is None else splits.eval
    if not isinstance(clips, ClipList):
        raise ValueError("a stream cannot be evaluated, as its clips cannot be counted; leave streaming out.")
    protocol = own_clips(clips.class_names, recipe.data.texts_of(clips.class_names), **counts)
    return evaluate_with_baseline(
        str(recipe.model.model),
        protocol,
        [clips],
        str(recipe.training.output_dir),
        baseline=baseline,
        descriptions=recipe.data.descriptions_of(clips.class_names),
        settings={name: getattr(recipe.data, name) for name in _OF_THE_TEXTS},
        loading=replace(loading or Loading(), decoder=recipe.data.decoder),
    )


def _check_descriptions(model: Any, data: DataArguments, descriptions: Sequence[Sequence[str]] | None) -> None:
    """Raises ValueError where a model learns from descriptions and the recipe names none, or the other way round."""
    if uses_descriptions(model) and data.texts_are_descriptions:
        raise ValueError(
            "class_texts: descriptions has the descriptions stand in for the class names, and this MoTED learns from "
            "both; leave class_texts out."
        )
    if uses_descriptions(model) and descriptions is None:
        raise ValueError(
            "this MoTED learns from descriptions of its classes and the recipe names none: give `descriptions`, a file "
            "or a built-in name, or set use_conceptual and use_discriminative to false (in model_config, or in "
            "model_overrides where a CLIP is the start)."
        )
    if descriptions is not None and not uses_descriptions(model):
        raise ValueError(
            f"descriptions would have no effect: this {model.config.model_type} reads class texts only. Leave them "
            "out, make them the texts (class_texts: descriptions), or train a MoTED that uses them (architecture: "
            "moted)."
        )


def _identity(recipe: Recipe) -> dict[str, Any]:
    """What of a recipe, besides the training arguments, must stay the same for a run to go on.

    Not where the clips lie: they may have moved, and are compared themselves, unless they come as a stream.
    """
    places = {"data_root", "eval", "hold_out", "manifest", "max_failed_share", "cache_videos", "augment_on"}
    if not recipe.data.streaming:
        places.add("train")
    return {
        **asdict(recipe.model),
        **{name: value for name, value in asdict(recipe.data).items() if name not in places},
    }
