"""What every decoder answers: `VideoFrames`, and the rules of frame indices, times and rotation behind it.

Part of kinetext, CLIP on video as ordinary `transformers` models. This file travels to the Hub beside the checkpoints
that need it, so it imports only torch, numpy and the standard library.

Shapes: T frames, H height, W width, 3 colours (RGB).
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

FrameIndices = Sequence[int] | Callable[[int], Sequence[int]] | None
"""Wanted frames: None for all, positions, or a function from the number of frames to positions."""


@dataclass(frozen=True)
class VideoFrames:
    """Decoded frames and what is known of their time.

    Attributes:
        frames: uint8, (T,H,W,3), RGB, upright.
        timestamps: float64, (T,), seconds as the file states them (the first need not be 0). The video's sorted
            timestamps, given to its frames in output order; derived from `fps` where the file lacks some, and NaN
            where `fps` is NaN as well.
        fps: Frames per second: the average the file states, else the rate FFmpeg guesses, else the rate of the
            timestamps. NaN where none of them is finite and positive.
        rotation: Clockwise turn that the file's metadata asks for and that has been applied: 0, 90, 180 or 270.
        indices: Position of each frame in output order, T of them.
        total_frames: Frames in the whole video, counted by decoding it to its end; None if decoding stopped earlier.
    """

    frames: torch.Tensor
    timestamps: torch.Tensor
    fps: float
    rotation: int
    indices: list[int]
    total_frames: int | None


def assemble(
    pictures: Sequence[np.ndarray],
    indices: list[int],
    timestamps: Sequence[float],
    fps: float,
    turns: int,
    total_frames: int | None,
) -> VideoFrames:
    """`VideoFrames` from T pictures (H,W,3), the positions of them, and the times of all decoded frames."""
    frames = np.empty((len(pictures), *pictures[0].shape), np.uint8)  # np.stack alone keeps the strides of turned ones
    return VideoFrames(
        frames=torch.from_numpy(np.stack(pictures, out=frames)),  # (T,H,W,3)
        timestamps=torch.tensor([timestamps[index] for index in indices], dtype=torch.float64),  # (T,)
        fps=fps,
        rotation=-turns * 90 % 360,
        indices=list(indices),
        total_frames=total_frames,
    )


def checked_indices(indices: Iterable[int]) -> list[int]:
    """`indices` as a list of non-negative ints, before the number of frames is known."""
    if isinstance(indices, (str, bytes)) or not isinstance(indices, Iterable):
        raise TypeError(
            f"indices must be None, a sequence of ints or a function that returns one, got {type(indices).__name__}"
        )
    checked = [_checked_index(index) for index in indices]
    if not checked:
        raise ValueError("indices is empty; ask for at least one frame, or pass None for all of them")
    return checked


def _checked_index(index: Any) -> int:
    try:
        if isinstance(index, (bool, np.bool_)):
            raise TypeError
        number = operator.index(index)
    except TypeError as error:
        raise TypeError(f"frame index {index!r} is of type {type(index).__name__}; indices must be ints") from error
    if number < 0:
        raise IndexError(f"frame index {number} is negative; frames are counted from 0 at the start of the video")
    return number


def require_within(wanted: Sequence[int], total_frames: int, name: str) -> None:
    """Raises IndexError where an index is beyond the last frame."""
    if max(wanted) >= total_frames:
        raise IndexError(
            f"frame index {max(wanted)} is beyond the end of {name}, which has {total_frames} frames"
            f" (0 to {total_frames - 1})"
        )


def chosen_indices(choose: Callable[[int], Sequence[int]], total_frames: int, name: str) -> list[int]:
    """What the caller's function wants of a video of `total_frames` frames, checked."""
    wanted = checked_indices(choose(total_frames))
    require_within(wanted, total_frames, name)
    return wanted


def frame_rate(stream: Any, timestamps: Sequence[float | None]) -> float:
    """Frames per second of a PyAV stream; NaN where neither its header nor its timestamps tell."""
    known = sorted(stamp for stamp in timestamps if stamp is not None)
    span = known[-1] - known[0] if known else 0.0
    from_timestamps = (len(known) - 1) / span if span > 0 else None
    for rate in (stream.average_rate, stream.guessed_rate, from_timestamps):
        if rate and math.isfinite(rate) and rate > 0:
            return float(rate)
    return math.nan


def output_timestamps(timestamps: Sequence[float | None], fps: float) -> list[float]:
    """One increasing time per frame in output order, from the times the decoder put on them.

    Sorted, because XviD AVI comes out in the right order with swapped times (1, 4, 3, 6, 5, ...). Where a time is
    missing or stands on two frames, all are counted from the first one known at `fps`.
    """
    known = sorted(stamp for stamp in timestamps if stamp is not None)
    if len(set(known)) == len(timestamps):
        return known
    start = known[0] if known else 0.0
    return [start + position / fps for position in range(len(timestamps))]


def quarter_turns(rotation: int) -> int:
    """Counter-clockwise quarter turns that make a frame upright, from PyAV's `frame.rotation` in degrees.

    Other angles leave the picture as it is; broken files give values such as -2**31.
    """
    return rotation // 90 % 4 if rotation % 90 == 0 else 0
