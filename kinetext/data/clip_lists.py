"""Labelled clips and lists of them: what every annotation format is read into."""

from __future__ import annotations

import fnmatch
import logging
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

from ..descriptions.schema import normalised_name

logger = logging.getLogger(__name__)

OTHER_ORDER = (
    "List and classes are in different orders: give the classes in the order that the list counts in (for the split "
    'files of HMDB-51 that is class_names=load_label_list("hmdb51").class_names, or `classes: hmdb51`), or write names '
    "instead of numbers."
)

VIDEO_SUFFIXES = frozenset(
    {".3gp", ".avi", ".flv", ".gif", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".webm", ".wmv"}
)


@dataclass(frozen=True)
class Clip:
    """One labelled video.

    Attributes:
        clip_id: its name in results, and the seed of its random choices; unique in a list.
        source: what `load_video` takes, or a function without arguments that returns it.
        label: index into the class names.
        group: the file that it shares with other clips, such as a tar shard, so that they can be read together.
        other_labels: what else it shows, indices in the order of the list; for evaluation with several labels alone.
    """

    clip_id: str
    source: Any
    label: int
    group: str | None = None
    other_labels: tuple[int, ...] = ()


@dataclass(frozen=True)
class ClipList:
    """Clips and the class names their labels point into.

    Attributes:
        clips: the clips, in a fixed order.
        class_names: N names, as written in the data.
    """

    clips: tuple[Clip, ...]
    class_names: tuple[str, ...]

    def __post_init__(self) -> None:
        seen: set[str] = set()
        for clip in self.clips:
            if clip.clip_id in seen:
                raise ValueError(f"the clip {clip.clip_id!r} is listed twice; list every clip once.")
            seen.add(clip.clip_id)

    def __len__(self) -> int:
        return len(self.clips)

    @property
    def groups(self) -> tuple[str | None, ...] | None:
        """The group of each clip, for `EpochSampler`; None if no clip has one."""
        groups = tuple(clip.group for clip in self.clips)
        return groups if any(groups) else None

    def split_by_name(self, patterns: Sequence[str]) -> tuple[ClipList, ClipList]:
        """(the others, those whose file name matches one of the shell-style patterns), e.g. to leave people out.

        Raises:
            ValueError: if a pattern matches nothing, or nothing is left.
        """
        matches = {
            pattern: {clip.clip_id for clip in self.clips if fnmatch.fnmatch(Path(clip.clip_id).name, pattern)}
            for pattern in patterns
        }
        for pattern, matched in matches.items():
            if not matched:
                raise ValueError(f"hold-out pattern {pattern!r} matches no file, e.g. not {self.clips[0].clip_id!r}.")
        held_out = set().union(*matches.values())
        rest = tuple(clip for clip in self.clips if clip.clip_id not in held_out)
        if not rest:
            raise ValueError(f"hold-out patterns {list(patterns)} match every clip; nothing is left to train on.")
        return replace(self, clips=rest), replace(
            self, clips=tuple(clip for clip in self.clips if clip.clip_id in held_out)
        )


@dataclass(frozen=True)
class Row:
    """What an annotation says of one clip.

    Attributes:
        clip_id: as in [`Clip`], and so are source and group.
        source: see there.
        name: the name of the class or, where class names are given, its index.
        group: see there.
    """

    clip_id: str
    source: Any
    name: str
    group: str | None = None


class ClassIndex:
    """Ids of classes by name, whatever the case, spaces, underscores and punctuation: `kick_ball` is "kick ball".

    Names that differ in nothing else are told apart as they are written.

    Args:
        class_names: N names in the order of their ids.
        numbered: whether a class may also be given by its id; one that is called "3" comes first.
    """

    def __init__(self, class_names: Sequence[str], *, numbered: bool = False) -> None:
        self._names = tuple(class_names)
        self._exact = {name: label for label, name in enumerate(class_names)}
        keys = [normalised_name(name) for name in class_names]
        counts = Counter(keys)
        self._normalised = {key: label for label, key in enumerate(keys) if counts[key] == 1}
        self._numbers = {str(label): label for label in range(len(class_names))} if numbered else {}

    def find(self, name: str) -> int | None:
        """The id of this class; None if there is none."""
        for ids, key in ((self._exact, str), (self._normalised, normalised_name), (self._numbers, str)):
            if (label := ids.get(key(name))) is not None:
                return label
        return None

    def label(self, clip_id: str, name: str) -> int:
        """The id of the class of this clip; raises ValueError if there is none."""
        label = self.find(name)
        if label is None:
            raise ValueError(
                f"{clip_id} has the class {name!r}, which is none of the {len(self._names)} classes {self._names}."
            )
        return label


def label_rows(rows: Sequence[Row], class_names: Sequence[str] | None, *, multi_label: bool = False) -> ClipList:
    """Clips with the labels of their classes; the classes are the sorted ones found, unless they are given.

    A row that says once more what another one says is left out, with a warning.

    Args:
        rows: what the annotation says.
        class_names: the classes in label order.
        multi_label: whether rows of one clip may give it several classes; the first is its label.

    Raises:
        ValueError: for a class that is neither one of `class_names` nor an index into them; without them, for classes
            that differ in case alone; for a clip of two classes unless `multi_label`.
    """
    names = tuple(class_names) if class_names is not None else _found_classes(rows)
    classes = ClassIndex(names, numbered=class_names is not None)
    first: dict[str, Row] = {}
    labels: dict[str, list[int]] = {}
    repeated: list[str] = []
    for row in rows:
        first.setdefault(row.clip_id, row)
        own, label = labels.setdefault(row.clip_id, []), classes.label(row.clip_id, row.name)
        if label in own:
            repeated.append(row.clip_id)
        elif own and not multi_label:
            raise ValueError(
                f"the clip {row.clip_id!r} is listed as {names[own[0]]!r} and as {names[label]!r}; list every clip "
                "once. (A list in which clips show several classes is read with multi_label=True.)"
            )
        else:
            own.append(label)
    if repeated:
        logger.warning(
            "%d lines of the list repeat others and are left out, e.g. of the clip %s.", len(repeated), repeated[0]
        )
    return ClipList(
        tuple(
            Clip(clip_id, row.source, labels[clip_id][0], row.group, tuple(labels[clip_id][1:]))
            for clip_id, row in first.items()
        ),
        names,
    )


def _found_classes(rows: Sequence[Row]) -> tuple[str, ...]:
    spellings: dict[str, str] = {}
    for name in sorted({row.name for row in rows}):
        if (other := spellings.setdefault(name.casefold(), name)) != name:
            raise ValueError(
                f"the classes {other!r} and {name!r} differ in case alone; write them alike, or give both in "
                "class_names."
            )
    return tuple(spellings.values())


def check_named(names: Iterable[str], source: object) -> None:
    """Raises ValueError if classes are given by numbers alone, which mean nothing without a list they count in."""
    names = list(names)
    if all(name.isdecimal() for name in names):
        raise ValueError(
            f"{source} gives classes by their numbers ({', '.join(sorted(set(names), key=int)[:3])}, ...): say which "
            'list they count in, by `classes` in a recipe or class_names=load_label_list("ucf101").class_names.'
        )


def check_folders(listed: Iterable[tuple[str, str]], class_names: Sequence[str], source: object) -> None:
    """Raises ValueError for a clip whose number means another class than the folder that it lies in.

    Lists of classes come in several orders (HMDB-51's kick, kick ball, sword and sword exercise in two), and a list of
    clips that is read by another order than its own gives them classes of others. Folders that are no class do not
    matter.

    Args:
        listed: (path, class) of clips; only classes that are given by their numbers are looked at.
        class_names: the classes that the numbers count in.
        source: the list, for the message.
    """
    classes = ClassIndex(class_names)
    for path, name in listed:
        if not name.isdecimal() or classes.find(name) is not None:  # a class may be called "3"
            continue
        folder = PurePosixPath(path).parent.name
        place = classes.find(folder)
        if place is None or place == int(name):
            continue
        meant = repr(class_names[int(name)]) if int(name) < len(class_names) else f"none of {len(class_names)}"
        raise ValueError(
            f"{source}: {path} is in the folder {folder!r} and has the number {int(name)}, which is {meant} among the "
            f"classes given, where {class_names[place]!r} is {place}. {OTHER_ORDER}"
        )


def locate(source: str | Path, data_root: str | Path) -> tuple[Path, str | None]:
    """(the path of a source, the part of it that is named after a colon); the path need not exist."""
    path = Path(data_root) / source
    name, separator, part = str(path).rpartition(":")
    return (Path(name), part) if separator and not path.exists() and Path(name).is_dir() else (path, None)
