"""Description sets by name: those that ship with kinetext, files, and repositories of the Hub."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path

from .files import FILE_ENDINGS, find_set_files, read_folder, read_set
from .schema import MOTED_KINDS, Descriptions, DescriptionSet

__all__ = [
    "HUB_ID",
    "SHIPPED_SETS",
    "load_description_set",
    "load_descriptions",
    "shipped_descriptions",
    "two_meanings",
]

SHIPPED_SETS = Path(__file__).parent / "sets"
HUB_ID = re.compile(r"\w[\w.-]*/\w[\w.-]*")  # not ./folder, nor ../folder


def load_descriptions(
    source: str | os.PathLike[str],
    *,
    kinds: Iterable[str] = MOTED_KINDS,
    masked: bool = False,
    revision: str | None = None,
) -> Descriptions:
    """The texts of every class, in class order: N lists, for `VideoTextProcessor(descriptions=...)`.

    Args:
        source: a shipped name, a file, a folder or `owner/name` on the Hub, as of `load_description_set`.
        kinds: which texts, in this order; MoTED's conceptual and k discriminative ones by default. `characteristic`
            are those of Devaraj et al.
        masked: the texts with object names replaced instead.
        revision: branch, tag or commit of a Hub data set.

    Raises:
        FileNotFoundError: as `load_description_set`.
        ValueError: if the file is not what it should be, or a class has no such text; says where.
    """
    return load_description_set(source, revision=revision).texts(kinds, masked=masked)


def load_description_set(source: str | os.PathLike[str], *, revision: str | None = None) -> DescriptionSet:
    """A description set with every column.

    Args:
        source: the name of a shipped set (`shipped_descriptions`), a file (`read_set`), a folder (`read_folder`), or
            `owner/name` of a data set on the Hub with the columns of `DescriptionRow`.
        revision: branch, tag or commit of a Hub data set; its main branch by default.

    Raises:
        FileNotFoundError: if there is no such file, set or data set, or the Hub does not let you read it.
        ValueError: if the file is not what it should be, says where; if a shipped name is also that of a file or of a
            folder with a set; or if `revision` is given for what has none.
    """
    name, path = str(source), Path(source)
    if revision == "":
        raise ValueError("revision='' is empty; name a branch, a tag or a commit, or leave it out.")
    if name in shipped_descriptions():
        if path.is_file() or (path.is_dir() and find_set_files(path)):
            raise two_meanings(path)
        path = SHIPPED_SETS / f"{name}.jsonl"
    if HUB_ID.fullmatch(name) and path.suffix.lower() not in FILE_ENDINGS and not path.exists():
        return read_folder(_downloaded(name, revision))
    if revision is not None:
        raise ValueError(f"revision={revision!r}: {name!r} is not on the Hub, and only what is there has revisions.")
    if name and path.is_dir():
        return read_folder(path)
    if not path.is_file():
        raise FileNotFoundError(
            f"there is no file {name!r} and no shipped set of that name; "
            f"the shipped sets are: {', '.join(shipped_descriptions())}. What is on the Hub reads owner/name."
        )
    return read_set(path)


def shipped_descriptions() -> list[str]:
    """Names of the sets that come with kinetext, in order."""
    return sorted(path.stem for path in SHIPPED_SETS.glob("*.jsonl"))


def two_meanings(path: Path) -> ValueError:
    """What to raise where a shipped name could also mean this file or folder."""
    return ValueError(
        f"{str(path)!r} is shipped with kinetext, and something else of that name is at {path.absolute()}; "
        f"write {f'./{path}'!r} or that whole path for the latter, or rename it if you mean what is shipped."
    )


def _downloaded(repo_id: str, revision: str | None) -> str:
    """The folder of the local cache with the parquet files of a Hub data set."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError, RepositoryNotFoundError, RevisionNotFoundError

    try:
        return snapshot_download(repo_id, repo_type="dataset", revision=revision, allow_patterns="*.parquet")
    except RevisionNotFoundError as error:
        raise FileNotFoundError(f"the data set {repo_id} on the Hub has no revision {revision!r}.") from error
    except RepositoryNotFoundError as error:
        raise FileNotFoundError(
            f"there is no file {repo_id!r}, and no data set of that name on the Hub that you may read; "
            "look at its spelling, and log in with `hf auth login` if it is private."
        ) from error
    except LocalEntryNotFoundError as error:
        raise FileNotFoundError(
            f"there is no file {repo_id!r}, and no copy of a data set of that name; the Hub cannot be reached to look "
            f"there ({type(error.__cause__ or error).__name__})."
        ) from error
