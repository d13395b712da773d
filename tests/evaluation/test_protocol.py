"""Fingerprints: equal for what gives the same number, different for everything that could change it."""

from typing import Any

import pytest

from kinetext import VideoTextProcessor
from kinetext.data.annotations import Clip, ClipList
from kinetext.data.datasets import EvalClips
from kinetext.evaluation.protocol import clips_fingerprint, protocol_fingerprint

TEXTS = ["running", "waving"]
CLIPS = (Clip("running/a.mp4", "x", 0), Clip("waving/b.mp4", "y", 1), Clip("waving/\udcff.mp4", "z", 1))


def fingerprint(
    *,
    clips: tuple[Clip, ...] = CLIPS,
    texts: list[str] = TEXTS,
    num_clips: int = 1,
    num_crops: int = 1,
    **contract: Any,
) -> str:
    processor = VideoTextProcessor(None, **{"num_frames": 8, "crop_size": 32, **contract})
    dataset = EvalClips(ClipList(clips, tuple(TEXTS)), processor, num_clips=num_clips, num_crops=num_crops)
    return protocol_fingerprint(dataset, texts)


def test_a_fingerprint_is_the_same_in_every_process_and_version() -> None:
    assert fingerprint() == "cc33159dff0951dd13c2ef8c75fdf665034056c41b2440d35faf6ae7f91ba949"


@pytest.mark.parametrize(
    "change",
    [
        {"clips": CLIPS[:2]},
        {"clips": (Clip("running/other.mp4", "x", 0), *CLIPS[1:])},
        {"clips": (Clip("running/a.mp4", "x", 1), *CLIPS[1:])},
        {"texts": ["running", "waving a hand"]},
        {"texts": ["waving", "running"]},
        {"template": "a video of {}"},
        {"num_frames": 16},
        {"sampling": "uniform"},
        {"crop_size": 48},
        {"short_side": 64},
        {"num_clips": 4},
        {"num_crops": 3},
    ],
    ids=str,
)
def test_what_changes_the_number_changes_the_protocol(change: dict[str, Any]) -> None:
    assert fingerprint(**change) != fingerprint()


def test_the_stride_counts_where_sampling_looks_at_it() -> None:
    assert len({fingerprint(sampling="dense", stride=2), fingerprint(sampling="dense", stride=4)}) == 2


@pytest.mark.parametrize(
    "change",
    [
        {"clips": CLIPS[::-1]},
        {"clips": (Clip("running/a.mp4", "another copy", 0), *CLIPS[1:])},
        {"stride": 7},  # of segments there is none
        {"image_mean": [0.5] * 3, "image_std": [0.25] * 3, "interpolation": "bicubic"},
    ],
    ids=str,
)
def test_order_place_and_what_belongs_to_a_model_do_not(change: dict[str, Any]) -> None:
    assert fingerprint(**change) == fingerprint()


def test_clips_are_told_apart_by_name_label_and_class_names() -> None:
    names = ("running", "waving")
    same = clips_fingerprint(ClipList(CLIPS, names))
    assert clips_fingerprint(ClipList(CLIPS[::-1], names)) == same and len(same) == 64
    others = [
        ClipList(CLIPS[:2], names),
        ClipList(CLIPS, names[::-1]),
        ClipList((Clip("running/a.mp4", "x", 1), *CLIPS[1:]), names),
    ]
    assert len({same, *map(clips_fingerprint, others)}) == 4
