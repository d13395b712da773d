"""Clips inside tar files laid out as WebDataset does: `shard-{0000..0099}.tar` with members `key.mp4` and `key.cls`.

The headers of all shards are read once; a clip is then a file, an offset and a size, read when it is wanted. So shards
are a list of clips like any other, with exact counts, splits over processes and resuming. `Clip.group` is the shard:
given to `EpochSampler` as groups, it keeps the reads of a while within a few files.
"""

from __future__ import annotations

import json
import re
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from tqdm.auto import tqdm

from .clip_lists import VIDEO_SUFFIXES, ClipList, Row, check_named, label_rows

LABEL_ENDINGS = ("cls", "json", "txt")  # the first one that is there counts
JSON_LABELS = ("label", "class", "class_name")
_NUMBER_RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")
_SHARD_NAME = re.compile(r".+\.(?:tar|tar\.\w+|tgz)", re.IGNORECASE)
_COMPRESSED = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstd"}  # by first bytes
_PROGRESS_AFTER_S = 2


@dataclass(frozen=True)
class TarMember:
    """Where a video lies in a tar file; calling it reads the bytes, as a `datasets` video value.

    Args:
        shard: path of the tar file.
        name: of the member.
        offset: of its first byte in the file.
        size: in bytes.
    """

    shard: str
    name: str
    offset: int
    size: int

    def __call__(self) -> dict[str, bytes | str]:
        """The bytes of the video and where they come from; raises OSError where they are not there any more."""
        with open(self.shard, "rb") as file:
            file.seek(self.offset)
            data = file.read(self.size)
        if len(data) < self.size:
            raise OSError(f"{self.shard} ends within {self.name}; it was cut off after it was listed.")
        return {"bytes": data, "path": f"{self.shard}/{self.name}"}


@dataclass
class _Entry:
    """The members of one key."""

    video: TarMember | None = None
    labels: dict[str, bytes] = field(default_factory=dict)  # by ending


def find_shards(path: Path) -> list[Path]:
    """The tar files that a path means: itself, the ones in a folder, or `name-{0000..0012}.tar`; none if it is neither.

    Raises:
        FileNotFoundError: if one of a range does not exist.
    """
    match = _NUMBER_RANGE.search(path.name)
    if match is None:
        files = sorted(path.iterdir()) if path.is_dir() else [path]
        return [file for file in files if _SHARD_NAME.fullmatch(file.name) and not file.name.startswith(".")]
    first, last = match.groups()
    numbers = [f"{number:0{len(first)}d}" for number in range(int(first), int(last) + 1)]
    shards = [path.with_name(path.name[: match.start()] + number + path.name[match.end() :]) for number in numbers]
    missing = [shard.name for shard in shards if not shard.is_file()]
    if missing or not shards:
        raise FileNotFoundError(
            f"{path} stands for {len(shards)} shards, of which {len(missing)} do not exist: {', '.join(missing[:3])}."
        )
    return shards


def clips_from_shards(shards: Sequence[Path], *, class_names: Sequence[str] | None = None) -> ClipList:
    """Clips of tar files, in the order of files and members.

    Of each `key.<video ending>` the class is what `key.cls`, `key.json` (its field label, class or class_name) or
    `key.txt` says: a name, or an index into `class_names`, which are then needed.

    Raises:
        ValueError: if a shard is cut off, compressed, or no tar file, or a key occurs twice, or lacks video or label.
    """
    rows: list[Row] = []
    shard_of: dict[str, Path] = {}
    for shard in tqdm(shards, desc="Indexing shards", unit="shard", delay=_PROGRESS_AFTER_S):
        for key, entry in _entries(shard).items():
            if key in shard_of:
                raise ValueError(f"the key {key!r} is in {shard_of[key]} and in {shard}; keys name clips once.")
            if entry.video is None:
                raise ValueError(f"{shard}: {key!r} has a label and no video ({', '.join(sorted(VIDEO_SUFFIXES))}).")
            shard_of[key] = shard
            rows.append(Row(key, entry.video, _label(entry, key, shard), str(shard)))
    if not rows:
        raise ValueError(f"{', '.join(map(str, shards[:3]))}: there is no video ({', '.join(sorted(VIDEO_SUFFIXES))}).")
    if class_names is None:
        check_named([row.name for row in rows], shards[0])
    return label_rows(rows, class_names)


def _entries(shard: Path) -> dict[str, _Entry]:
    """The videos and labels of a shard by key: the name of the member up to the first dot of its last part."""
    entries: dict[str, _Entry] = {}
    for member, content in _members(shard):
        folder, name = PurePosixPath(member.name).parent, PurePosixPath(member.name).name
        stem, _, ending = name.partition(".")
        ending = ending.lower()
        if not stem:  # a hidden file
            continue
        key = (folder / stem).as_posix()
        is_video = f".{ending.rpartition('.')[2]}" in VIDEO_SUFFIXES
        if (is_video or ending in LABEL_ENDINGS) and (not member.isfile() or member.issparse()):
            raise ValueError(
                f"{shard}: {member.name} is a link or a sparse file; pack the content itself (tar --dereference "
                "--hard-dereference, without --sparse)."
            )
        if is_video:
            entry = entries.setdefault(key, _Entry())
            if entry.video is not None:
                raise ValueError(f"{shard}: the key {key!r} has two videos, {entry.video.name} and {member.name}.")
            entry.video = TarMember(str(shard), member.name, member.offset_data, member.size)
        elif ending in LABEL_ENDINGS:
            entries.setdefault(key, _Entry()).labels[ending] = content
    return entries


def _members(shard: Path) -> Iterator[tuple[tarfile.TarInfo, bytes]]:
    """What is in a shard but folders, with its content if it is a label; raises unless it ends as tar files do."""
    with open(shard, "rb") as file:
        try:
            with tarfile.open(fileobj=file, mode="r:") as archive:
                for member in archive:
                    if not member.isdir():
                        is_label = member.name.lower().endswith(tuple(f".{ending}" for ending in LABEL_ENDINGS))
                        content = archive.extractfile(member) if is_label and member.isfile() else None
                        yield member, b"" if content is None else content.read()
                file.seek(archive.offset)
        except tarfile.TarError as error:
            file.seek(0)
            start = file.read(max(map(len, _COMPRESSED)))
            for signature, compression in _COMPRESSED.items():
                if start.startswith(signature):
                    raise ValueError(
                        f"{shard} is compressed ({compression}), so no clip can be read alone: decompress it first."
                    ) from error
            raise ValueError(f"{shard} is cut off, or no tar file: {error}; copy it again.") from error
        if file.read(tarfile.BLOCKSIZE) != tarfile.NUL * tarfile.BLOCKSIZE:
            raise ValueError(f"{shard} is cut off: it does not end as tar files do; copy it again.")


def _label(entry: _Entry, key: str, shard: Path) -> str:
    """What names or numbers the class."""
    for ending in LABEL_ENDINGS:
        if ending not in entry.labels:
            continue
        try:
            text = entry.labels[ending].decode("utf-8-sig").strip()
            if ending == "json":
                fields = json.loads(text)
                if not isinstance(fields, dict):
                    raise ValueError(f"it holds {text}, wanted an object of fields")
                text = next((str(fields[name]) for name in JSON_LABELS if fields.get(name) is not None), "")
        except ValueError as error:
            raise ValueError(f"{shard}: {key}.{ending} cannot be read: {error}.") from error
        if text:
            return text
    raise ValueError(
        f"{shard}: {key!r} has no label: give it a {key}.cls or {key}.txt with its class, or a {key}.json with one of "
        f"{', '.join(JSON_LABELS)}."
    )
