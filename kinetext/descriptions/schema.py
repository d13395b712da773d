"""What a description set is: a table, one row per text, that knows its classes and where every text came from."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

__all__ = ["KINDS", "MOTED_KINDS", "DescriptionRow", "DescriptionSet", "Descriptions", "normalised_name"]

KINDS = ("conceptual", "discriminative", "characteristic", "action")
MOTED_KINDS = ("conceptual", "discriminative")  # the k + 1 texts of a class that MoTED reads, in this order


def normalised_name(name: str) -> str:
    """What is left of a class name when case, spaces, underscores and punctuation do not count."""
    return "".join(character for character in name.casefold() if character.isalnum())


@dataclass(frozen=True)
class DescriptionRow:
    """One text about one class, and how it was made.

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
        if not isinstance(self.class_name, str) or not normalised_name(self.class_name):
            raise ValueError(f"class_name={self.class_name!r} has no letter or digit; name the class.")
        for name in ("class_id", "rank"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 0:
                raise ValueError(f"{where}: {name}={value!r}; it counts from 0.")
        for name in ("text", "masked_text"):
            value = getattr(self, name)
            if value is None and name == "masked_text":
                continue
            if not isinstance(value, str) or not value.strip():
                raise ValueError(f"{where}: {name}={value!r} is empty; write a text or leave the row out.")
            if value != value.strip() or len(value.splitlines()) > 1:
                raise ValueError(f"{where}: {name}={value!r} has spaces around it or more than one line.")
        if self.contrast_class is not None and self.kind != "discriminative":
            raise ValueError(f"{where}: contrast_class={self.contrast_class!r}; only discriminative texts have one.")

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
            kinds: of `KINDS`.
            masked: the texts without object names instead.

        Raises:
            ValueError: a kind is unknown, a class has no such text, or a text has not been masked; says which.
        """
        kinds = tuple(kinds)
        for kind in kinds:
            if kind not in KINDS:
                raise ValueError(f"kind {kind!r} is unknown; choose of {', '.join(KINDS)}.")
        if not set(kinds) & set(self.kinds):
            raise ValueError(
                f"{self.dataset} has no {' or '.join(kinds)} texts; ask for kinds={self.kinds!r}, which it has."
            )
        texts: list[list[str]] = [[] for _ in self.class_names]
        for row in sorted(self.rows, key=lambda row: (row.class_id, *_place(row.kind, kinds), row.rank)):
            if row.kind not in kinds:
                continue
            if masked and row.masked_text is None:
                raise ValueError(f"{row.name} of {self.dataset} has not been masked; run `kinetext describe mask`.")
            texts[row.class_id].append(row.masked_text if masked and row.masked_text else row.text)
        bare = [name for name, own in zip(self.class_names, texts, strict=True) if not own]
        if bare:
            raise ValueError(
                f"{len(bare)} classes of {self.dataset} have no {' or '.join(kinds)} text: {', '.join(bare)}."
            )
        return Descriptions(self.class_names, texts)

    def replace(self, **values: str) -> DescriptionSet:
        """The same texts with these columns changed in every row."""
        return DescriptionSet(tuple(dataclasses.replace(row, **values) for row in self.rows))  # type: ignore[arg-type]


def _place(kind: str, kinds: tuple[str, ...]) -> tuple[int, ...]:
    return (kinds.index(kind),) if kind in kinds else (len(kinds),)


def places_of(wanted: Sequence[str], known: Sequence[str]) -> list[int]:
    """Where each of the class names `wanted` stands among those `known`, matched by `normalised_name`.

    Raises:
        ValueError: if some are not there; lists them, each with the nearest names that are.
    """
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
