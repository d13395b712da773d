"""Which clips a recipe trains on and evaluates, as data sets."""

from __future__ import annotations

from typing import Any, NamedTuple

from ..data.annotations import read_clips
from ..data.clip_lists import ClipList
from ..data.datasets import TrainClips
from ..data.few_shot import few_shot
from ..data.label_lists import load_label_list
from ..data.manifest import Manifest
from ..data.saved_datasets import open_dataset
from ..data.streaming import StreamingClips
from ..processing.processing_video_text import VideoTextProcessor
from .arguments import DataArguments, Recipe, VideoTextTrainingArguments


class Splits(NamedTuple):
    """What a recipe trains on, a list or a stream of `datasets`, and evaluates, with the same class names."""

    train: ClipList | Any
    eval: ClipList | None
    class_names: tuple[str, ...]


def read_splits(data: DataArguments) -> Splits:
    """The clips of a recipe; few-shot leaves those to evaluate whole.

    Raises:
        ValueError: for settings that contradict each other, and as of `read_clips`.
    """
    if data.eval is not None and data.hold_out:
        raise ValueError("give the evaluation clips by eval or by hold_out, not both.")
    given = None if data.classes is None else load_label_list(data.classes).class_names
    if data.streaming:
        return _open_stream(data, given)
    train = _read(data, data.train, given)
    held_out = None
    if data.hold_out:
        train, held_out = train.split_by_name(data.hold_out)
    elif data.eval is not None:
        held_out = _read(data, data.eval, train.class_names)
    if data.shots is not None:
        train = few_shot(train, data.shots, data.shots_seed)
    return Splits(train, held_out, train.class_names)


def train_dataset(recipe: Recipe, splits: Splits, processor: VideoTextProcessor) -> TrainClips | StreamingClips:
    """The training clips as the recipe augments them."""
    data, args = recipe.data, recipe.training
    options: dict[str, Any] = {
        "seed": args.seed,
        "augmentation": data.augmentation,
        "decoder": data.decoder,
        "flip_swaps": data.swaps,
        "augment_on": data.augment_on,
    }
    if isinstance(splits.train, ClipList):
        return TrainClips(splits.train, processor, cache_videos=data.cache_videos, **options)
    return StreamingClips(splits.train, processor, class_names=splits.class_names, **_share(args), **options)


def _share(args: VideoTextTrainingArguments) -> dict[str, Any]:
    """Which part of a stream this process takes."""
    return {
        "total_batch_size": args.effective_batch_size,
        "batch_size": args.train_batch_size,
        "process_index": args.process_index,
        "num_processes": args.world_size,
    }


def _read(data: DataArguments, source: str, class_names: tuple[str, ...] | None) -> ClipList:
    clips = read_clips(
        source, data_root=data.data_root, class_names=class_names, max_missing_share=data.max_failed_share
    )
    return clips if data.manifest is None else Manifest.read(data.manifest).mark_unreadable(clips, data.data_root)


def _open_stream(data: DataArguments, class_names: tuple[str, ...] | None) -> Splits:
    for name in ("hold_out", "shots", "cache_videos", "manifest"):
        if getattr(data, name):
            raise ValueError(f"{name} needs a list of clips, and streaming has none; leave one of them out.")
    stream = open_dataset(data.train, data_root=data.data_root, streaming=True)
    names = class_names or getattr(stream.features["label"], "names", None)
    if names is None:
        raise ValueError(f"{data.train} does not name its classes; give them by `classes`.")
    held_out = None if data.eval is None else _read(data, data.eval, tuple(names))
    return Splits(stream, held_out, tuple(names))
