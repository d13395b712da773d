"""Prepared clips packed into tar shards, which `tar_shards` reads: `kinetext prepare --shards`.

Which clip lies where depends on the names and sizes of the clips alone. They are mixed, because training reads
neighbours together: in the order of a hash of their names.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from ..descriptions.files import write_atomically
from .manifest import readable_name
from .output import writing
from .prepared_layout import SHARDS_FOLDER

__all__ = ["INDEX_NAME", "pack_shards", "shard_keys"]

INDEX_NAME = "index.json"


def pack_shards(out: str | os.PathLike[str], paths: Sequence[str], max_bytes: int) -> list[Path]:
    """Writes `out/shards/shard-000000.tar` and so on, and `index.json`, which says what lies where.

    The shards appear together, when all are written; those of an earlier call go.

    Args:
        out: a folder of prepared clips.
        paths: of the clips in it, `<class>/<clip>.mp4`.
        max_bytes: of the clips of a shard; one that is larger gets a shard of its own.

    Raises:
        ValueError: as of `shard_keys`.
        OutputError: if the shards cannot be written.
    """
    folder, keys = Path(out) / SHARDS_FOLDER, shard_keys(paths)
    with writing(folder):
        return _pack(folder, keys, max_bytes)


def _pack(folder: Path, keys: Mapping[str, str], max_bytes: int) -> list[Path]:
    out = folder.parent
    folder.mkdir(exist_ok=True)
    for leftover in folder.glob(".shard-*"):
        leftover.unlink()
    index: dict[str, list[str]] = {}
    hidden: list[Path] = []
    for number, shard in enumerate(_shards(out, keys, max_bytes)):
        path = folder / f".shard-{number:06d}.tar"
        _write_tar(path, {keys[name]: out / name for name in shard})
        hidden.append(path)
        index[path.name.removeprefix(".")] = [readable_name(keys[name]) for name in shard]
    _replace(folder, hidden, index)
    return [folder / name for name in index]


def _replace(folder: Path, hidden: Sequence[Path], index: Mapping[str, Any]) -> None:
    """Puts new shards in the place of old ones; between the two there is no index."""
    (folder / INDEX_NAME).unlink(missing_ok=True)
    for old in folder.glob("shard-*.tar"):
        old.unlink()
    for path in hidden:
        path.replace(folder / path.name.removeprefix("."))
    write_atomically(folder / INDEX_NAME, (json.dumps({"shards": index}, indent=2) + "\n").encode())


def shard_keys(paths: Sequence[str]) -> dict[str, str]:
    """The name in a shard of each clip, `<class>/<clip>`, in the order in which clips are packed.

    Raises:
        ValueError: if a path has another depth, or two clips would get one name.
    """
    of_key: dict[str, str] = {}
    for path in paths:
        folder, *rest = PurePosixPath(path).parts
        if len(rest) != 1 or folder == SHARDS_FOLDER:
            raise ValueError(
                f"{path} is not <class>/<clip>, so no class can be packed with it; lay out clips like that."
            )
        key = f"{folder}/{PurePosixPath(path).stem.replace('.', '_')}"  # a key ends at the first full stop
        if (other := of_key.setdefault(key, path)) != path:
            raise ValueError(f"{other} and {path} would both be {key} in a shard; rename one.")
    return {of_key[key]: key for key in sorted(of_key, key=lambda key: hashlib.blake2b(os.fsencode(key)).digest())}


def _shards(out: Path, paths: Iterable[str], max_bytes: int) -> Iterator[list[str]]:
    """The paths of each shard."""
    shard: list[str] = []
    size = 0
    for path in paths:
        num_bytes = (out / path).stat().st_size
        if shard and size + num_bytes > max_bytes:
            yield shard
            shard, size = [], 0
        shard.append(path)
        size += num_bytes
    if shard:
        yield shard


def _write_tar(path: Path, files: Mapping[str, Path]) -> None:
    """A tar file of clips by their keys and of their classes, the same whenever and by whomever it is written."""
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as archive:
        for key, file in files.items():
            label = os.fsencode(PurePosixPath(key).parent)
            with open(file, "rb") as video:
                _add(archive, f"{key}.mp4", file.stat().st_size, video)
            _add(archive, f"{key}.cls", len(label), io.BytesIO(label))


def _add(archive: tarfile.TarFile, name: str, size: int, content: BinaryIO) -> None:
    header = tarfile.TarInfo(name)
    header.size = size
    archive.addfile(header, content)
