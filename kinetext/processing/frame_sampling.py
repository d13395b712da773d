"""Which frames of a video a model sees: `segments`, `uniform`, `dense` or `all`, for one or several clips.

A model with a motion encoder sees motion frames too, between the sampled ones (see [`add_motion_frames`]).

kinetext: https://github.com/kinetext/kinetext. This file is saved beside each checkpoint as remote code.

A video with fewer frames than are asked for repeats frames in place, so order is kept and no frame follows a later one:
`segments` and `uniform` by their own formulas, `dense` by falling back to `uniform` when the video is shorter than the
window. Nothing wraps around to the start (the original X-CLIP code does in training, VideoX `pipeline.py`).

Legend: n frames of the video, T sampled frames of a clip, a the motion frame ratio, V clips.
"""

from __future__ import annotations

import itertools

import torch

SAMPLINGS = ("segments", "uniform", "dense", "all")


def sample_frames(
    total_frames: int,
    num_frames: int,
    *,
    sampling: str = "segments",
    stride: int = 1,
    num_clips: int = 1,
    motion_frame_ratio: int = 1,
    generator: torch.Generator | None = None,
) -> list[list[int]]:
    """Frame indices of each clip, V lists of a*T.

    Args:
        total_frames: n, frames in the video.
        num_frames: T, sampled frames of a clip; ignored by "all".
        sampling: "segments" (TSN: one frame of each of T equal segments, X-CLIP's way), "uniform" (first to last frame
            in equal steps), "dense" (T frames at `stride`), "all" (every frame).
        stride: distance of neighbouring frames in "dense".
        num_clips: V. Without a generator, clips are spread evenly; with one, "segments" and "dense" draw each anew.
        motion_frame_ratio: a; each sampled frame is followed by a - 1 motion frames. With "all", every frame is there
            already, and the last one is repeated until their number is divisible by a.
        generator: makes "segments" and "dense" random, as in training; "uniform" and "all" have nothing to draw.

    Raises:
        ValueError: for an unknown sampling, or a count below 1.
    """
    for name, value in (
        ("total_frames", total_frames),
        ("num_frames", num_frames),
        ("stride", stride),
        ("num_clips", num_clips),
        ("motion_frame_ratio", motion_frame_ratio),
    ):
        if value < 1:
            raise ValueError(f"{name}={value} must be at least 1.")
    if sampling == "all":
        if num_clips > 1:
            raise ValueError(f'sampling="all" takes every frame once; num_clips={num_clips} has no meaning with it.')
        return [[*range(total_frames), *[total_frames - 1] * (-total_frames % motion_frame_ratio)]]
    if sampling == "segments":
        clips = [_segment_indices(total_frames, num_frames, v, num_clips, generator) for v in range(num_clips)]
    elif sampling == "uniform":
        clips = _uniform_indices(total_frames, num_frames, num_clips)
    elif sampling == "dense":
        clips = [_dense_indices(total_frames, num_frames, stride, v, num_clips, generator) for v in range(num_clips)]
    else:
        raise ValueError(f"unknown sampling {sampling!r}; choose one of {', '.join(SAMPLINGS)}.")
    return [add_motion_frames(clip, total_frames, motion_frame_ratio) for clip in clips]


def add_motion_frames(indices: list[int], total_frames: int, ratio: int) -> list[int]:
    """The frames of one clip with motion frames between them, for a model with a motion encoder (MoTED).

    `result[::ratio] == indices`: an image tower that sees every ratio-th frame sees exactly what it would see without
    motion frames, so a frozen CLIP stays comparable and nothing else about the sampling changes. In training the
    sampled frames are drawn and these follow from them.

    Args:
        indices: T frames in order.
        total_frames: n, frames in the video.
        ratio: a; after each frame come a - 1 others, in equal steps (rounded down) towards the next one. After the last
            frame the step is that of the gap before it, and with T = 1 that of the rest of the video; no index exceeds
            n - 1, so motion frames are repeated where a video is short.

    Returns:
        a*T indices in order.
    """
    last_gap = indices[-1] - indices[-2] if len(indices) > 1 else total_frames - indices[0]
    gaps = [*(after - before for before, after in itertools.pairwise(indices)), last_gap]
    return [
        min(index + step * gap // ratio, total_frames - 1)
        for index, gap in zip(indices, gaps, strict=True)
        for step in range(ratio)
    ]


def _segment_indices(
    total_frames: int, num_frames: int, clip: int, num_clips: int, generator: torch.Generator | None
) -> list[int]:
    """One frame of each of T segments: random with a generator, else at (v + 1/2) / V of the segment."""
    segment_length = total_frames // num_frames
    if generator is not None and segment_length > 0:
        offsets = torch.randint(0, segment_length, (num_frames,), generator=generator)
        return [i * segment_length + offset for i, offset in enumerate(offsets.tolist())]
    # floor((i + (2v + 1) / 2V) * n / T) in integers; V = 1 is the original's test rule, floor(i n/T + n/2T)
    return [
        (2 * num_clips * i + 2 * clip + 1) * total_frames // (2 * num_clips * num_frames) for i in range(num_frames)
    ]


def _uniform_indices(total_frames: int, num_frames: int, num_clips: int) -> list[list[int]]:
    """V*T frames in equal steps from the first to the last, dealt out in turn: clip v gets v, v+V, v+2V, ..."""
    count = num_frames * num_clips
    if count == 1:
        return [[(total_frames - 1) // 2]]
    steps = [(2 * i * (total_frames - 1) + count - 1) // (2 * (count - 1)) for i in range(count)]  # round half up
    return [steps[v::num_clips] for v in range(num_clips)]


def _dense_indices(
    total_frames: int, num_frames: int, stride: int, clip: int, num_clips: int, generator: torch.Generator | None
) -> list[int]:
    """T frames at `stride`: window v of V spread evenly over the video (V = 1: the middle), or at a random place."""
    room = total_frames - (num_frames - 1) * stride - 1  # last possible start
    if room < 0:
        return _uniform_indices(total_frames, num_frames, 1)[0]
    if generator is not None:
        start = int(torch.randint(0, room + 1, (1,), generator=generator))
    elif num_clips == 1:
        start = room // 2
    else:
        start = clip * room // (num_clips - 1)
    return [start + i * stride for i in range(num_frames)]
