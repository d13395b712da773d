"""What a description set is: a table, one row per text, that knows its classes and where every text came from."""

from __future__ import annotations

import difflib
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

__all__ = ["KINDS", "MOTED_KINDS", "DescriptionRow", "DescriptionSet", "Descriptions", "name_fault", "normalised_name"]

KINDS = ("conceptual", "discriminative", "characteristic", "action")
MOTED_KINDS = ("conceptual", "discriminative")  # the k + 1 texts of a class that MoTED reads, in this order


def normalised_name(name: str) -> str:
    """What is left of a class name when case, spaces, underscores, punctuation and the form of Unicode do not count."""
    folded = unicodedata.normalize("NFKC", name).casefold()
    # Combining marks are vowels in the scripts of India.
    return "".join(each for each in folded if each.isalnum() or unicodedata.category(each).startswith("M"))


def name_fault(name: object) -> str | None:
    """Why `name` cannot name a class, such as "has no letter or digit"; None if it can."""
    if not isinstance(name, str) or not normalised_name(name):
        return "has no letter or digit"
    return None if _is_plain_line(name) else "has a line break or another control character"


def _is_plain_line(text: str) -> bool:
    """Whether nothing in `text` breaks a line, controls a terminal, or is half a character (a surrogate)."""
    return not any(unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp") for character in text)


@dataclass(frozen=True)
class DescriptionRow:
    """One text about one class, and how it was made; a value that is not as said here is a `ValueError`.

    Args:
        dataset: name of the label list, e.g. `ucf101`.
        class_id: 0 to N - 1, the place of the class in that list.
        class_name: as the list writes it.
        kind: one of `KINDS`.
        contrast_class: of a discriminative text, the class it tells this one from; None where nobody recorded it.
        rank: 0 for the first text of its class and kind; for discriminative ones 0 is the nearest neighbour.
        text: one line, not empty.
        masked_text: the text with object names replaced by "object" (Devaraj et al.); None if nobody made it.
        provider: who wrote it: `openai` or another endpoint, or a person or project.
        model: name of the model, as the endpoint calls it; empty if there was none.
        prompt_id: the versioned prompt (`kinetext.descriptions.prompts`); empty if there was none.
        prompt_sha256: hash of the prompt as it was sent, in hexadecimal; empty if there was none.
        params: parameters of the call as JSON with sorted keys, `{}` if there were none.
        created_at: ISO 8601 in UTC, or a date; for generated texts when the endpoint says that it answered.
    """

    dataset: str
    class_id: int
    class_name: str
    kind: str
    contrast_class: str | None
    rank: int
    text: str
    masked_text: str | None = None
    provider: str = ""
    model: str = ""
    prompt_id: str = ""
    prompt_sha256: str = ""
    params: str = "{}"
    created_at: str = ""

    def __post_init__(self) -> None:
        where = f"{self.kind} text {self.rank!r} of {self.class_name!r}"
        if self.kind not in KINDS:
            raise ValueError(f"{where}: kind={self.kind!r} is unknown; choose one of {', '.join(KINDS)}.")
        if fault := name_fault(self.class_name):
            raise ValueError(f"class_name={self.class_name!r} {fault}; name the class.")
        if self.contrast_class is not None:
            if self.kind != "discriminative":
                raise ValueError(
                    f"{where}: contrast_class={self.contrast_class!r}; only discriminative texts have one."
                )
            if fault := name_fault(self.contrast_class):
                raise ValueError(f"{where}: contrast_class={self.contrast_class!r} {fault}; name the class or none.")
        for name in ("class_id", "rank"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 0:
                raise ValueError(f"{where}: {name}={value!r}; a whole number that counts from 0 is wanted.")
        for name in ("dataset", "provider", "model", "prompt_id", "prompt_sha256", "params", "created_at"):
            value = getattr(self, name)
            if not isinstance(value, str) or not _is_plain_line(value):
                raise ValueError(f"{where}: {name}={value!r}; a text of one line is wanted, which may be empty.")
        self._check_texts(where)

    def _check_texts(self, where: str) -> None:
        for name in ("text", "masked_text"):
            value = getattr(self, name)
            if value is None and name == "masked_text":
                continue
            if not isinstance(value, str) or not value.strip():
                raise ValueError(f"{where}: {name}={value!r} is empty; write a text or leave the row out.")
            if value != value.strip() or len(value.splitlines()) > 1:
                raise ValueError(f"{where}: {name}={value!r} has spaces around it or more than one line.")

    @property
    def key(self) -> tuple[int, int, int]:
        """Where the row stands in its set: class, kind, rank."""
        return (self.class_id, KINDS.index(self.kind), self.rank)

    @property
    def name(self) -> str:
        """The row for a reader: class, kind, and against which class or which of several."""
        against = f" against {self.contrast_class}" if self.contrast_class else f" {self.rank}" if self.rank else ""
        return f"{self.class_name}, {self.kind}{against}"


@dataclass(frozen=True)
class Descriptions:
    """The texts of N classes, as a model reads them.

    Args:
        class_names: N names, as they were written.
        texts: of each class, in the same order; the conceptual one first. Classes may have different numbers.
    """

    class_names: tuple[str, ...]
    texts: list[list[str]]

    def for_classes(self, class_names: Sequence[str]) -> list[list[str]]:
        """The texts of each of `class_names`, in their order.

        Names match whatever their case, spaces, underscores and punctuation.

        Raises:
            ValueError: if classes have no descriptions; lists them, each with the nearest names that have.
        """
        if isinstance(class_names, str):
            raise ValueError(f"class_names={class_names!r} is one text; a list of names is wanted: [{class_names!r}].")
        places = places_of(class_names, self.class_names)
        return [list(self.texts[place]) for place in places]


@dataclass(frozen=True)
class DescriptionSet:
    """All texts about the classes of one label list, in the order of class, kind and rank.

    Args:
        rows: of one `dataset`; class ids count from 0 without a gap, each with one name; no two rows of a class have
            the same kind and rank.

    Raises:
        ValueError: if they are not so; names the row.
    """

    rows: tuple[DescriptionRow, ...]

    def __post_init__(self) -> None:
        if not self.rows:
            raise ValueError("a description set needs at least one row.")
        object.__setattr__(self, "rows", tuple(sorted(self.rows, key=lambda row: row.key)))
        datasets = sorted({row.dataset for row in self.rows})
        if len(datasets) > 1:
            raise ValueError(
                f"the rows belong to {len(datasets)} label lists ({', '.join(datasets)}); keep them apart."
            )
        for previous, row in zip(self.rows, self.rows[1:], strict=False):
            if previous.key == row.key:
                raise ValueError(f"{row.name}: two rows have rank {row.rank}: {previous.text!r} and {row.text!r}.")
        self._check_classes()

    def _check_classes(self) -> None:
        names: dict[int, str] = {}
        ids: dict[str, int] = {}
        for row in self.rows:
            if names.setdefault(row.class_id, row.class_name) != row.class_name:
                raise ValueError(
                    f"class {row.class_id} is {names[row.class_id]!r} in one row, {row.class_name!r} in another."
                )
            if ids.setdefault(normalised_name(row.class_name), row.class_id) != row.class_id:
                raise ValueError(
                    f"{row.class_name!r} is class {ids[normalised_name(row.class_name)]} and {row.class_id}."
                )
        missing = sorted(set(range(len(names))) - set(names))
        if missing:
            raise ValueError(f"class ids go up to {max(names)} but these have no row: {missing}.")

    @property
    def dataset(self) -> str:
        """Name of the label list."""
        return self.rows[0].dataset

    @cached_property
    def class_names(self) -> tuple[str, ...]:
        """N names; the index is the class id."""
        return tuple(dict.fromkeys(row.class_name for row in self.rows))

    @cached_property
    def kinds(self) -> tuple[str, ...]:
        """Those of `KINDS` that there are rows of."""
        return tuple(kind for kind in KINDS if any(row.kind == kind for row in self.rows))

    def texts(self, kinds: Iterable[str] = MOTED_KINDS, *, masked: bool = False) -> Descriptions:
        """The texts of every class, ordered as `kinds` and by rank.

        Args:
            kinds: of `KINDS`; every class must have a text of each. Of MoTED's two, the default, only the conceptual
                one: k may be 0.
            masked: the texts without object names instead.

        Raises:
            ValueError: a kind is unknown, a class has no such text, or a text has not been masked; says which.
        """
        if isinstance(kinds, str):
            raise ValueError(f"kinds={kinds!r} is one text; a list of kinds is wanted: [{kinds!r}].")
        kinds = tuple(dict.fromkeys(kinds))
        if not kinds or not set(kinds) <= set(KINDS):
            raise ValueError(f"kinds={kinds!r}; choose one or more of {', '.join(KINDS)}.")
        self._check_coverage(kinds[:1] if kinds == MOTED_KINDS else kinds)
        texts: list[list[str]] = [[] for _ in self.class_names]
        asked_for = [row for row in self.rows if row.kind in kinds]
        for row in sorted(asked_for, key=lambda row: kinds.index(row.kind)):
            text = row.masked_text if masked else row.text
            if text is None:
                raise ValueError(f"{row.name} of {self.dataset} has not been masked; run `kinetext describe mask`.")
            texts[row.class_id].append(text)
        return Descriptions(self.class_names, texts)

    def _check_coverage(self, kinds: Iterable[str]) -> None:
        for kind in kinds:
            if kind not in self.kinds:
                raise ValueError(
                    f"{self.dataset} has no {kind} texts; ask for kinds={self.kinds!r} or some of them, which it has."
                )
            covered = {row.class_id for row in self.rows if row.kind == kind}
            bare = [name for class_id, name in enumerate(self.class_names) if class_id not in covered]
            if bare:
                raise ValueError(f"{len(bare)} classes of {self.dataset} have no {kind} text: {', '.join(bare)}.")


def places_of(wanted: Sequence[str], known: Sequence[str]) -> list[int]:
    """Where each of the class names `wanted` stands among those `known`, matched by `normalised_name`.

    Raises:
        ValueError: if some are not there; lists them, each with the nearest names that are. Or one is no text.
    """
    for name in wanted:
        if not isinstance(name, str):
            raise ValueError(f"{name!r} among the class names is no text; write names only.")
    places = {normalised_name(name): place for place, name in enumerate(known)}
    missing = [name for name in wanted if normalised_name(name) not in places]
    if missing:
        listed = "; ".join(with_nearest(name, known) for name in missing)
        raise ValueError(
            f"{len(missing)} of {len(wanted)} classes have no descriptions: {listed}. "
            "Add them to the file, or rename the classes."
        )
    return [places[normalised_name(name)] for name in wanted]


def with_nearest(name: str, known: Sequence[str]) -> str:
    """A name that is missing among those known, for a message: in quotes, with the nearest of these."""
    originals = {normalised_name(other): other for other in known}
    nearest = difflib.get_close_matches(normalised_name(name), list(originals), n=3)
    names = ", ".join(repr(originals[near]) for near in nearest)
    return f"{name!r} (nearest: {names})" if names else f"{name!r} (nothing like it)"
