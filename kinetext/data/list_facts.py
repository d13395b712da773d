"""What a list of clips is, whatever the file that it was read from."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Sequence

from ..descriptions.schema import normalised_name
from .clip_lists import VIDEO_SUFFIXES, ClipList

__all__ = ["clip_keys", "list_fingerprint"]


def list_fingerprint(clips: ClipList) -> str:
    """SHA-256, in hexadecimal, of which clips are listed with which classes.

    Clips count by their file names without folder and ending, classes by their names without case, spaces and
    punctuation; neither the order of the clips nor that of the classes counts, nor classes without clips. So the split
    files that a data set comes with and the lists that others made of them have one fingerprint. Folders count for
    clips of one file name, as many of the last ones as tell them apart. The videos are not read.

    Args:
        clips: the list; what else a clip shows (`other_labels`) counts too.
    """
    keys = sorted(
        (key, normalised_name(clips.class_names[label]))
        for clip, key in zip(clips.clips, clip_keys([clip.clip_id for clip in clips.clips]), strict=True)
        for label in (clip.label, *clip.other_labels)
    )
    lines = "".join(f"{key}\t{name}\n" for key, name in keys)
    return hashlib.sha256(lines.encode(errors="surrogateescape")).hexdigest()  # file names may be no UTF-8


def clip_keys(clip_ids: Sequence[str]) -> list[str]:
    """What each clip of a list counts by: its file name without ending, with as many folders as tell it apart.

    Args:
        clip_ids: of all clips of the list.
    """
    paths = [_without_ending(clip_id) for clip_id in clip_ids]
    uses = Counter(ending for path in set(paths) for ending in _endings(path))
    return [next((ending for ending in _endings(path) if uses[ending] == 1), path) for path in paths]


def _endings(path: str) -> list[str]:
    """`c`, `b/c` and `a/b/c` of `a/b/c`."""
    parts = path.split("/")
    return ["/".join(parts[-count:]) for count in range(1, len(parts) + 1)]


def _without_ending(clip_id: str) -> str:
    """`a/b.c` of `a/b.c.avi`."""
    stem, ending = os.path.splitext(clip_id)
    return stem if ending.lower() in VIDEO_SUFFIXES else clip_id
