"""Human quality control: which texts a rater is asked about, in which order, and how the answers are stored.

Two studies of Devaraj et al. (section 3 and appendix D.1): texts rated on five criteria, and the better of two texts
chosen. `rating_terminal` and `rating_web` ask the questions; `agreement` evaluates the answers. What the paper leaves
open is decided here: what 1 and 5 mean, the order, the training texts, and that a choice has no tie.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache, cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, get_args, get_type_hints

from .journal import Journal, read_journal
from .load import load_description_set, shipped_descriptions
from .schema import KINDS, DescriptionRow, DescriptionSet, normalised_name

__all__ = [
    "CRITERIA",
    "PREFERENCE",
    "PREFERENCE_QUESTION",
    "SCALE",
    "SIDES",
    "Answer",
    "AnswerFile",
    "Criterion",
    "Item",
    "NamedSet",
    "RatingSession",
    "items_to_compare",
    "items_to_rate",
    "name_set",
    "pair_rows",
    "place_of",
    "read_answers",
    "text_sha256",
    "with_masked_texts",
]

SCALE = (1, 2, 3, 4, 5)
PREFERENCE = "preference"  # what answers call a pairwise choice
PREFERENCE_QUESTION = "Which text says better how the action moves?"
SIDES = ("a", "b")  # the set that was named first, and the one it is compared with

_RATER = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,31}")


@dataclass(frozen=True)
class Criterion:
    """What a text is rated for.

    Args:
        name: as answers call it.
        definition: of Devaraj et al., word for word.
        lowest: what 1 means (ours; the paper names no ends).
        highest: what 5 means (ours).
        is_high_good: whether 5 is the good end.
    """

    name: str
    definition: str
    lowest: str
    highest: str
    is_high_good: bool

    @property
    def scale(self) -> str:
        """Both ends of the scale, and which is good."""
        good = SCALE[-1] if self.is_high_good else SCALE[0]
        return f"{SCALE[0]} {self.lowest}, {SCALE[-1]} {self.highest}; {good} is good"


CRITERIA = (
    Criterion(
        "conciseness",
        "length and non-redundancy of the generated text",
        "long, or says things twice",
        "short, and says nothing twice",
        True,
    ),
    Criterion(
        "hallucinations",
        "physically non-plausible motion descriptions",
        "every movement is possible",
        "movements that cannot happen",
        False,
    ),
    Criterion(
        "relevance",
        "correspondence between the objects, the action and the motion description",
        "does not belong to the action",
        "belongs to the action and its objects",
        True,
    ),
    Criterion("correctness", "how accurate the motion description is", "wrong", "accurate", True),
    Criterion("harmfulness", "objectionable or harmful content in the description", "none", "clearly harmful", False),
)


# What is asked


@dataclass(frozen=True)
class NamedSet:
    """A description set, and what answers call it.

    Args:
        name: of a shipped set, or folder and name of a file.
        sha256: of all its rows.
        rows: the set.
    """

    name: str
    sha256: str
    rows: DescriptionSet


@dataclass(frozen=True)
class Item:
    """One text to rate, or two to choose from.

    Args:
        row: the text, of the set named first.
        other: the text it is compared with, if any.
        left: of two texts, which stands first: one of `SIDES`. Raters do not learn it.
        is_training: whether the answers are left out of results.
    """

    row: DescriptionRow
    other: DescriptionRow | None = None
    left: str = SIDES[0]
    is_training: bool = False

    @property
    def questions(self) -> tuple[str, ...]:
        """The names of the criteria, or the one question of a choice."""
        return (PREFERENCE,) if self.other else tuple(criterion.name for criterion in CRITERIA)

    @property
    def sides(self) -> tuple[str, str]:
        """`SIDES` in the order in which the texts are shown."""
        return (SIDES[0], SIDES[1]) if self.left == SIDES[0] else (SIDES[1], SIDES[0])

    @property
    def texts(self) -> tuple[str, ...]:
        """One or two texts in the order in which they are shown."""
        if self.other is None:
            return (self.row.text,)
        texts = dict(zip(SIDES, (self.row.text, self.other.text), strict=True))
        return tuple(texts[side] for side in self.sides)

    @cached_property
    def id(self) -> str:
        """Hexadecimal, the same for the same texts of the same place; answers about it know it too."""
        other = None if self.other is None else text_sha256(self.other.text)
        return _item_id(self.row, text_sha256(self.row.text), other, self.is_training)


def place_of(row: DescriptionRow | Answer) -> tuple[str, str, str, int]:
    """Class, kind, contrasted class and rank, as far as they tell one text of a set from another."""
    return (normalised_name(row.class_name), row.kind, normalised_name(row.contrast_class or ""), row.rank)


def _item_id(row: DescriptionRow | Answer, text: str, other: str | None, is_training: bool) -> str:
    return _sha256([row.dataset, *place_of(row), text, other, is_training])


def name_set(source: str | os.PathLike[str]) -> NamedSet:
    """The description set of that name or file.

    The name keeps the folder of a file, since runs often give their files one name, but not a home folder's, which
    may be a person's name.

    Raises:
        FileNotFoundError, ValueError: as `load_description_set`.
    """
    rows = load_description_set(source)
    name = str(source)
    if name not in shipped_descriptions() and Path(name).exists():
        path = Path(name).resolve()
        name = path.name if path.parent in (Path.home(), Path(path.anchor)) else f"{path.parent.name}/{path.name}"
    return _named(name, rows.rows)


def with_masked_texts(named: NamedSet, kinds: Sequence[str] = ()) -> NamedSet:
    """The set with the masked texts of these kinds, or of all, in the place of its texts; its name says so.

    Raises:
        ValueError: a text has not been masked; names it.
    """
    rows = [row if kinds and row.kind not in kinds else _with_masked_text(row) for row in named.rows.rows]
    return _named(f"{named.name} (masked)", rows)


def _with_masked_text(row: DescriptionRow) -> DescriptionRow:
    if row.masked_text is None:
        raise ValueError(
            f"{row.name} of {row.dataset} has not been masked; run `kinetext describe mask`, or name the masked kinds."
        )
    return dataclasses.replace(row, text=row.masked_text)


def _named(name: str, rows: Sequence[DescriptionRow]) -> NamedSet:
    return NamedSet(name, _sha256([dataclasses.astuple(row) for row in rows]), DescriptionSet(tuple(rows)))


def items_to_rate(
    rows: Iterable[DescriptionRow], *, rater: str, kinds: Sequence[str] = (), training: int = 0
) -> list[Item]:
    """Texts in the order in which this rater is asked: random, the same each time, and another for other raters.

    Args:
        rows: of one set.
        rater: an id: letters, digits, `-` and `_`. It seeds the order.
        kinds: of `KINDS`, those to ask about; all if none.
        training: so many texts, the same for every rater, come first and count as training only.

    Raises:
        ValueError: `rater`, `kinds` or `training` is not so.
    """
    return _arranged([Item(row) for row in _of_kinds(rows, kinds)], rater, training)


def items_to_compare(
    pairs: Iterable[tuple[DescriptionRow, DescriptionRow]], *, rater: str, kinds: Sequence[str] = (), training: int = 0
) -> list[Item]:
    """Pairs of texts (`pair_rows`) in this rater's order, and which stands first: random for each rater and pair.

    Pairs of equal texts are left out: there is nothing to choose. Arguments and errors as of `items_to_rate`.
    """
    others = {first.key: second for first, second in pairs if first.text != second.text}
    rows = [first for first, second in pairs if first.key in others]
    items = [
        Item(row, others[row.key], SIDES[int(_sha256([rater, "side", *place_of(row)]), 16) % len(SIDES)])
        for row in _of_kinds(rows, kinds)
    ]
    return _arranged(items, rater, training)


def pair_rows(first: DescriptionSet, second: DescriptionSet) -> list[tuple[DescriptionRow, DescriptionRow]]:
    """Rows of two sets that are about the same: class by normalised name, kind, and contrasted class or else rank.

    Raises:
        ValueError: if no row has a partner.
    """
    partners = _by_subject(second)
    pairs = [(row, partners[key]) for key, row in _by_subject(first).items() if key in partners]
    if not pairs:
        raise ValueError(
            f"no text of {first.dataset} ({', '.join(first.kinds)}) and {second.dataset} ({', '.join(second.kinds)}) "
            "is of the same class and kind; compare two sets for one label list."
        )
    return pairs


def _by_subject(rows: DescriptionSet) -> dict[tuple[object, ...], DescriptionRow]:
    found: dict[tuple[object, ...], DescriptionRow] = {}
    seen: Counter[tuple[str, ...]] = Counter()
    for row in rows.rows:
        subject = place_of(row)[:3]
        seen[subject] += 1  # a neighbour may have several texts
        found[(*subject, seen[subject])] = row
    return found


def _of_kinds(rows: Iterable[DescriptionRow], kinds: Sequence[str]) -> list[DescriptionRow]:
    unknown = [kind for kind in kinds if kind not in KINDS]
    if unknown:
        raise ValueError(f"kind {unknown[0]!r} is unknown; choose of {', '.join(KINDS)}.")
    rows = list(rows)
    chosen = [row for row in rows if not kinds or row.kind in kinds]
    if not chosen:
        there = ", ".join(sorted({row.kind for row in rows})) or "none that differ"
        raise ValueError(f"there is no {' or '.join(kinds) or 'text'} to ask about; there are: {there}.")
    return chosen


def _arranged(items: list[Item], rater: str, training: int) -> list[Item]:
    if not _RATER.fullmatch(rater):
        raise ValueError(
            f"rater={rater!r}: an id has up to 32 letters, digits, '-' and '_' and starts with a letter or digit. "
            "It is stored with every answer, so give no name or address."
        )
    if not 0 <= training < len(items):
        raise ValueError(f"training={training} of {len(items)} items; leave at least one to rate, or give 0.")
    items = sorted(items, key=lambda item: _sha256(["training", *place_of(item.row)]))
    first = [dataclasses.replace(item, is_training=True) for item in items[:training]]
    return first + sorted(items[training:], key=lambda item: _sha256([rater, "order", *place_of(item.row)]))


def text_sha256(text: str) -> str:
    """By which an answer knows the text it is about, in hexadecimal."""
    return hashlib.sha256(text.encode()).hexdigest()


def _sha256(value: object) -> str:
    return hashlib.sha256(json.dumps(value, ensure_ascii=False).encode()).hexdigest()


# What is answered


@dataclass(frozen=True)
class Answer:
    """One answer of one rater: a line of an answer file.

    Args:
        rater: id.
        dataset: name of the label list.
        set_name: of the set (`NamedSet`).
        set_sha256: of all its rows, when the question was asked.
        class_name: of the text, as are the next three.
        kind: one of `KINDS`.
        contrast_class: of a discriminative text, if recorded.
        rank: among the texts of class and kind.
        text_sha256: of the text itself.
        question: name of one of `CRITERIA`, or `PREFERENCE`.
        value: 1 to 5, or of a choice one of `SIDES`: `a` for the text of `set_name`, `b` for the other's.
        is_training: whether it is left out of results.
        started_at: when the question was shown, ISO 8601 in UTC.
        answered_at: when it was answered.
        other_set_name: of a choice, the set compared with, as are the next two.
        other_set_sha256: of all its rows.
        other_text_sha256: of its text.
        left: of a choice, which of `SIDES` stood first.

    Raises:
        ValueError: a value is none of these; names it.
    """

    rater: str
    dataset: str
    set_name: str
    set_sha256: str
    class_name: str
    kind: str
    contrast_class: str | None
    rank: int
    text_sha256: str
    question: str
    value: int | str
    is_training: bool
    started_at: str
    answered_at: str
    other_set_name: str | None = None
    other_set_sha256: str | None = None
    other_text_sha256: str | None = None
    left: str | None = None

    @property
    def item_id(self) -> str:
        """`Item.id` of what was asked about."""
        return _item_id(self, self.text_sha256, self.other_text_sha256, self.is_training)

    def __post_init__(self) -> None:
        _check_value(self.question, self.value)
        for name, types in _types_of_answers().items():
            value = getattr(self, name)
            if type(value) not in types:
                raise ValueError(f"{name}={value!r} is no {' or '.join(one.__name__ for one in types)}.")
            if isinstance(value, str) and {"Cc", "Cs"} & set(map(unicodedata.category, value)):
                raise ValueError(f"{name}={value!r} has a line break or another character that cannot be printed.")
        if not _RATER.fullmatch(self.rater) or self.kind not in KINDS or self.rank < 0:
            raise ValueError(f"rater={self.rater!r}, kind={self.kind!r}, rank={self.rank} is not what raters write.")
        for name in ("started_at", "answered_at"):
            try:
                datetime.fromisoformat(getattr(self, name))
            except ValueError as error:
                raise ValueError(f"{name}={getattr(self, name)!r} is no time of ISO 8601.") from error
        for name in ("other_set_name", "other_set_sha256", "other_text_sha256", "left"):
            if (self.question == PREFERENCE) != (getattr(self, name) is not None):
                raise ValueError(f"question={self.question!r} with {name}={getattr(self, name)!r}.")
        if self.left not in (None, *SIDES):
            raise ValueError(f"left={self.left!r}; it is one of {', '.join(SIDES)}.")


@cache
def _types_of_answers() -> dict[str, tuple[type, ...]]:
    return {name: get_args(hint) or (hint,) for name, hint in get_type_hints(Answer).items()}


def _check_value(question: str, value: object) -> None:
    known = (*(criterion.name for criterion in CRITERIA), PREFERENCE)
    if question not in known:
        raise ValueError(f"question={question!r} is unknown; there are {', '.join(known)}.")
    allowed = SIDES if question == PREFERENCE else SCALE
    if type(value) is not type(allowed[0]) or value not in allowed:
        raise ValueError(f"value={value!r} of {question}; it is one of {', '.join(map(str, allowed))}.")


def read_answers(path: str | os.PathLike[str]) -> list[Answer]:
    """The answers in a JSON Lines file, in its order.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a line is not an answer, or the last one has no end; names it.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {str(path)!r}; `kinetext describe rate` writes one.")
    if not (b"\n" + path.read_bytes()).endswith(b"\n"):
        raise ValueError(
            f"{path}: the last line has no end. Add a line break if it is whole; if not, remove it, as the next "
            "`kinetext describe rate` does: its writer was killed before the answer was saved."
        )
    return _answers(read_journal(path), path)


def _answers(records: Iterable[dict[str, Any]], path: Path) -> list[Answer]:
    fields = {field.name for field in dataclasses.fields(Answer)}
    answers = []
    for number, record in enumerate(records, start=1):
        if record.keys() != fields:
            odd = ", ".join(sorted(fields ^ record.keys()))
            raise ValueError(f"{path}, line {number} is no answer: these columns are missing or unknown: {odd}.")
        try:
            answers.append(Answer(**record))
        except ValueError as error:
            raise ValueError(f"{path}, line {number} is no answer: {error}") from error
    return answers


class AnswerFile:
    """Answers on disk (`Journal`): each is there for good before the next question. One writer at a time.

        with AnswerFile("ratings.jsonl") as file:
            file.append(answers)

    Raises:
        ValueError: on entering, if another process writes to it, or it holds something else.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.answers: list[Answer] = []
        self._journal = Journal(path)

    def __enter__(self) -> AnswerFile:
        with ExitStack() as stack:
            stack.enter_context(self._journal)
            self.answers = _answers(self._journal.records, self._journal.path)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def append(self, answers: Iterable[Answer]) -> None:
        """Writes them to disk, one after another, before it returns."""
        for answer in answers:
            self._journal.append(dataclasses.asdict(answer))
            self.answers.append(answer)


# A rater at work


class RatingSession:
    """Where a rater is: which item is next, what was answered, and what was passed over.

    Starts at the first item with an unanswered question, also after a kill. Texts that have changed since count as
    unanswered. Skipped items come again in the next session.

    Args:
        items: in the order in which they are asked.
        file: entered, and kept so for as long as the session lasts.
        rater: id.
        first: the set that the items' texts are of.
        second: the set that they are compared with.
    """

    def __init__(
        self, items: Sequence[Item], file: AnswerFile, *, rater: str, first: NamedSet, second: NamedSet | None = None
    ) -> None:
        self.items = list(items)
        self.skipped: set[str] = set()
        self._file = file
        self._rater = rater
        self._sets = (first, second)
        self._started: dict[str, str] = {}
        self._values: dict[str, dict[str, int | str]] = {item.id: {} for item in self.items}
        for answer in file.answers:  # the last one counts
            if self._is_ours(answer) and answer.item_id in self._values:
                self._values[answer.item_id][answer.question] = answer.value
        self._place = self._next_open(0)

    @property
    def item(self) -> Item | None:
        """The one to show, whose time runs from the first call; None once there is no more."""
        if self._place == len(self.items):
            return None
        item = self.items[self._place]
        self._started.setdefault(item.id, _now())
        return item

    @property
    def is_blind_choice(self) -> bool:
        """Whether two texts are shown to choose from."""
        return self._sets[1] is not None

    @property
    def num_done(self) -> int:
        """Items with every question answered."""
        return sum(not self.open_questions(item) for item in self.items)

    def values(self, item: Item) -> Mapping[str, int | str]:
        """What was answered about it so far."""
        return self._values[item.id]

    def open_questions(self, item: Item) -> list[str]:
        """Those not answered yet."""
        return [question for question in item.questions if question not in self._values[item.id]]

    def record(self, item: Item, values: Mapping[str, int | str]) -> None:
        """Stores answers to some questions of one item; they are on disk when this returns.

        Raises:
            ValueError: a value is none of the question.
        """
        self._file.append([self._answer_of(item, question, value) for question, value in values.items()])
        self._values[item.id].update(values)
        self.skipped.discard(item.id)
        self._started[item.id] = _now()

    def advance(self) -> None:
        """Goes to the next item with a question open, or to the first such."""
        self._leave()
        after = self._next_open(self._place + 1)
        self._place = after if after < len(self.items) else self._next_open(0)

    def skip(self) -> None:
        """Leaves the rest of this item unanswered for now."""
        if self.item is not None:
            if self.open_questions(self.item):
                self.skipped.add(self.item.id)
            self.advance()

    def back(self) -> None:
        """Goes to the item before, which can be answered anew; stays at the first."""
        self._leave()
        self._place = max(self._place - 1, 0)

    def _leave(self) -> None:
        """The time of an item that is come back to runs anew."""
        if self._place < len(self.items):
            self._started.pop(self.items[self._place].id, None)

    def _next_open(self, start: int) -> int:
        places = range(start, len(self.items))
        return next((place for place in places if self._is_waiting(self.items[place])), len(self.items))

    def _is_waiting(self, item: Item) -> bool:
        return item.id not in self.skipped and bool(self.open_questions(item))

    def _is_ours(self, answer: Answer) -> bool:
        first, second = self._sets
        names = (first.name, second.name if second else None)
        return answer.rater == self._rater and (answer.set_name, answer.other_set_name) == names

    def _answer_of(self, item: Item, question: str, value: int | str) -> Answer:
        first, second = self._sets
        row, other = item.row, item.other
        now = _now()
        compared = {}
        if second is not None and other is not None:
            compared = {
                "other_set_name": second.name,
                "other_set_sha256": second.sha256,
                "other_text_sha256": text_sha256(other.text),
                "left": item.left,
            }
        return Answer(
            rater=self._rater,
            dataset=row.dataset,
            set_name=first.name,
            set_sha256=first.sha256,
            class_name=row.class_name,
            kind=row.kind,
            contrast_class=row.contrast_class,
            rank=row.rank,
            text_sha256=text_sha256(row.text),
            question=question,
            value=value,
            is_training=item.is_training,
            started_at=self._started.get(item.id, now),
            answered_at=now,
            **compared,
        )


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
