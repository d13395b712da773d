"""What a list of clips is, whatever the file that it was read from."""

from __future__ import annotations

import hashlib
import os
from collections import Counter

from ..descriptions.schema import normalised_name
from .clip_lists import VIDEO_SUFFIXES, ClipList

__all__ = ["list_fingerprint"]


def list_fingerprint(clips: ClipList) -> str:
    """SHA-256, in hexadecimal, of which clips are listed with which classes.

    Clips count by their file names without folder and ending, classes by their names without case, spaces and
    punctuation; neither the order of the clips nor that of the classes counts, nor classes without clips. So the split
    files that a data set comes with and the lists that others made of them have one fingerprint. Folders count for
    files of one class and one name, which nothing else tells apart. The videos are not read.

    Args:
        clips: the list; what else a clip shows (`other_labels`) counts too.
    """
    pairs = [
        (clip.clip_id, normalised_name(clips.class_names[label]))
        for clip in clips.clips
        for label in (clip.label, *clip.other_labels)
    ]
    counts = Counter((_file(clip_id), name) for clip_id, name in pairs)
    keys = sorted(
        (_file(clip_id) if counts[_file(clip_id), name] == 1 else _without_ending(clip_id), name)
        for clip_id, name in pairs
    )
    lines = "".join(f"{key}\t{name}\n" for key, name in keys)
    return hashlib.sha256(lines.encode(errors="surrogateescape")).hexdigest()  # file names may be no UTF-8


def _file(clip_id: str) -> str:
    """`v_a_g01` of `Archery/v_a_g01.avi`."""
    return _without_ending(clip_id.rpartition("/")[2])


def _without_ending(clip_id: str) -> str:
    stem, ending = os.path.splitext(clip_id)
    return stem if ending.lower() in VIDEO_SUFFIXES else clip_id
