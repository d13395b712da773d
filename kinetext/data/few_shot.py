"""A few clips of every class, the same for everyone who names the same seed."""

from __future__ import annotations

from dataclasses import replace

import torch

from .clip_lists import Clip, ClipList
from .datasets import sample_generator


def few_shot(clips: ClipList, shots: int, seed: int) -> ClipList:
    """K clips of every class, by class and then by clip id.

    Every clip draws a number from the seed and its own id, and each class gives those with the smallest numbers. So the
    2-shot set is inside the 4-shot set, and neither the order of the list nor clips of other classes matter. Their ids
    do: a list that writes `UCF-101/run/a.avi` where another has `run/a.avi` gives another choice.

    Args:
        clips: to choose from.
        shots: K.
        seed: another seed, another choice.

    Raises:
        ValueError: if K is not positive, or a class has fewer clips.
    """
    if shots < 1:
        raise ValueError(f"shots={shots} must be at least 1.")
    of_class: list[list[Clip]] = [[] for _ in clips.class_names]
    for clip in clips.clips:
        of_class[clip.label].append(clip)
    for name, members in zip(clips.class_names, of_class, strict=True):
        if len(members) < shots:
            raise ValueError(f"the class {name!r} has {len(members)} clips, fewer than shots={shots}; list more of it.")

    def draw(clip: Clip) -> tuple[int, str]:
        generator = sample_generator(seed, 0, f"few-shot of {clip.clip_id}")
        return int(torch.randint(2**62, (), generator=generator)), clip.clip_id

    chosen = [sorted(members, key=draw)[:shots] for members in of_class]
    return replace(clips, clips=tuple(c for few in chosen for c in sorted(few, key=lambda clip: clip.clip_id)))
