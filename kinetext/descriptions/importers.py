"""Description sets from the CSV files that others released, aligned with a label list by name.

Two forms are read. Devaraj et al. (`chinmayad/motiondescriptions`): no header, a name and a description, or both in
one cell as "name: refers to ...". EZ-CLIP (`Shahzadnit/EZ-CLIP`): a header, a number, a name and a description. A first
row is a header if its last cell is "description", "text" or "caption", with one word before it or none. What is not
part of a text (byte order mark, line ends, spaces around and doubled) is taken away and accounted for; words are left
as they are, wrong or cut short.
"""

from __future__ import annotations

import csv
import hashlib
import io
import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from .schema import KINDS, DescriptionRow, DescriptionSet, normalised_name, with_nearest

__all__ = ["AlignedName", "Import", "import_csv"]

_HEADER = re.compile(r"(\w+[ _])?(desc|d[ei]scriptions?|texts?|captions?)", re.IGNORECASE)  # above the descriptions
_FORMS = "name,description; number,name,description; or one column of 'name: description'"
# Who released a file, and the model that wrote it, by the first digits of its SHA-256: files are easily renamed.
_DEVARAJ = "9bbfa17d be151032 acb2b8ba 1d14d817 4577affb baa08310 7e8d3406 384eccd3 b6b0dfe6 b8ba1976"
_SOURCES = {
    **dict.fromkeys(_DEVARAJ.split(), ("chinmayad/motiondescriptions", "gpt-4")),
    "d0783aee": ("Shahzadnit/EZ-CLIP", "gpt-3"),
}


@dataclass(frozen=True)
class AlignedName:
    """How a name of a file found its class.

    Args:
        line: of the file, from 1.
        written: the name as the file has it.
        class_name: as the label list has it.
        how: `exact`; `trimmed`, if spaces around it had to go; or `normalised`, if case, spaces inside or punctuation
            differ.
    """

    line: int
    written: str
    class_name: str
    how: str


@dataclass(frozen=True)
class Import:
    """A set that was imported, and the account of what was done.

    Args:
        descriptions: the set.
        alignment: one entry per class, in the order of the file.
        changes: what was taken away from the file, and from how many rows; masked texts count of their own.
        unfinished: classes whose text does not end with a full stop, a question or an exclamation mark.
    """

    descriptions: DescriptionSet
    alignment: tuple[AlignedName, ...]
    changes: dict[str, int]
    unfinished: tuple[str, ...]


@dataclass(frozen=True)
class _Cell:
    """A row of a file."""

    line: int
    name: str
    text: str


def import_csv(
    path: str | os.PathLike[str],
    *,
    kind: str,
    dataset: str,
    class_names: Sequence[str] | None = None,
    masked_path: str | os.PathLike[str] | None = None,
    provider: str | None = None,
    model: str | None = None,
) -> Import:
    """The texts of one kind from a released CSV file.

    Args:
        path: the file; see the module for its forms.
        kind: of `KINDS`, of all its texts; not discriminative, for a file does not say what its texts tell apart.
        dataset: name of the label list.
        class_names: of that list: the classes of the set, in this order, whatever the order of the file. By default
            those of the file, numbered as they come.
        masked_path: a file of the same classes whose texts name no objects, to become `masked_text`.
        provider: who wrote the texts; by default the repository that released the file, or the name of a file that
            is not known.
        model: that wrote them; by default that of the released file, or none.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the texts are said to be discriminative; or a file is not UTF-8, has another form, a row without
            name or text, a class twice, or other classes than the list; names the line, or the classes with the
            nearest names.
    """
    if kind == "discriminative":
        others = ", ".join(name for name in KINDS if name != kind)
        raise ValueError(
            f"kind={kind!r}: {path} does not say which class a text tells its own from; choose of {others}."
        )
    changes: Counter[str] = Counter()
    cells = _read_cells(Path(path), changes)
    names = tuple(class_names or (cell.name.strip() for cell in cells))
    alignment = _aligned(cells, names, Path(path))
    texts = _texts_by_class(cells, alignment, changes)
    masked: dict[str, str] = {}
    if masked_path is not None:
        masked_cells = _read_cells(Path(masked_path), changes)
        masked = _texts_by_class(masked_cells, _aligned(masked_cells, names, Path(masked_path)), changes)
    source, source_model = _source_of(Path(path))
    rows = tuple(
        DescriptionRow(
            dataset=dataset,
            class_id=class_id,
            class_name=name,
            kind=kind,
            contrast_class=None,
            rank=0,
            text=texts[name],
            masked_text=masked.get(name),
            provider=source if provider is None else provider,
            model=source_model if model is None else model,
        )
        for class_id, name in enumerate(names)
    )
    unfinished = tuple(name for name in names if not texts[name].endswith((".", "!", "?")))
    return Import(DescriptionSet(rows), tuple(alignment), dict(+changes), unfinished)  # + leaves out what is 0


def _read_cells(path: Path, changes: Counter[str]) -> list[_Cell]:
    """Names and texts as they stand in the file; empty rows and the header are left out."""
    content = path.read_bytes()
    try:
        decoded = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 text: {error}.") from error
    changes["byte order mark"] += content.startswith(b"\xef\xbb\xbf")
    changes["line ends of Windows"] += content.count(b"\r\n")
    reader = csv.reader(io.StringIO(decoded, newline=""), strict=True)
    try:
        rows = [(reader.line_num, row) for row in reader if any(cell.strip() for cell in row)]
    except csv.Error as error:
        raise ValueError(f"{path}, line {reader.line_num}: {error}.") from error
    if rows and len(rows[0][1]) in (2, 3) and _HEADER.fullmatch(rows[0][1][-1].strip()):
        rows = rows[1:]
        changes["header"] += 1
    if not rows:
        raise ValueError(f"{path} holds no descriptions; it should hold {_FORMS}.")
    if all(":" in row[0] for _, row in rows):  # one column, whose commas nobody quoted
        rows = [(line, [",".join(row)]) for line, row in rows]
    return [_cell(row, line, path) for line, row in rows]


def _cell(row: list[str], line: int, path: Path) -> _Cell:
    if len(row) == 1:
        name, _, text = row[0].partition(":")
    elif len(row) == 2 or (len(row) == 3 and row[0].strip().isdecimal()):
        name, text = row[-2:]
    else:
        raise ValueError(f"{path}, line {line}: {len(row)} columns, {row}; wanted is {_FORMS}.")
    if not normalised_name(name) or not text.strip():
        raise ValueError(f"{path}, line {line}: the name is {name!r} and the description {text!r}; both are needed.")
    return _Cell(line, name, text)


def _aligned(cells: Sequence[_Cell], class_names: Sequence[str], path: Path) -> list[AlignedName]:
    """The class of each cell.

    Raises:
        ValueError: a class is named twice, or not at all, or a name is none of the classes.
    """
    known = {normalised_name(name): name for name in class_names}
    lines: dict[str, list[_Cell]] = {}
    for cell in cells:
        lines.setdefault(normalised_name(cell.name), []).append(cell)
    written = [cell.name.strip() for cell in cells]
    twice = [
        " and ".join(f"{cell.name.strip()!r} (line {cell.line})" for cell in same)
        for same in lines.values()
        if len(same) > 1
    ]
    unknown = [
        f"{with_nearest(cell.name.strip(), class_names)} in line {cell.line}"
        for key, (cell, *_) in lines.items()
        if key not in known
    ]
    missing = [with_nearest(name, written) for key, name in known.items() if key not in lines]
    if twice or unknown or missing:
        faults = [
            *_listed(twice, "named twice"),
            *_listed(unknown, "not in the label list"),
            *_listed(missing, "without a text"),
        ]
        raise ValueError(
            f"{path} does not have each class of the label list once. {'. '.join(faults)}. "
            "Choose the list it was written for, or rename, add or remove these classes in the file."
        )
    pairs = [(cell, known[normalised_name(cell.name)]) for cell in cells]
    return [AlignedName(cell.line, cell.name, name, _how(cell.name, name)) for cell, name in pairs]


def _listed(names: Sequence[str], fault: str) -> list[str]:
    """One sentence, or none; names the first ten, for more than that is another list."""
    more = f" and {len(names) - 10} more" if len(names) > 10 else ""
    return [f"{len(names)} {fault}: {'; '.join(names[:10])}{more}"] if names else []


def _how(written: str, class_name: str) -> str:
    if written == class_name:
        return "exact"
    return "trimmed" if written.strip() == class_name else "normalised"


def _texts_by_class(cells: Sequence[_Cell], alignment: Sequence[AlignedName], changes: Counter[str]) -> dict[str, str]:
    """The text of each class on one line, single-spaced; counts what had to be done for that."""
    texts = {}
    for cell, aligned in zip(cells, alignment, strict=True):
        stripped = cell.text.strip()
        changes["spaces around a name"] += cell.name != cell.name.strip()
        changes["spaces or empty lines around a text"] += cell.text != stripped
        changes["line breaks inside a text"] += len(stripped.splitlines()) > 1
        changes["double spaces inside a text"] += "  " in stripped
        texts[aligned.class_name] = " ".join(stripped.split())
    return texts


def _source_of(path: Path) -> tuple[str, str]:
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return _SOURCES.get(digest[:8], (path.name, ""))
