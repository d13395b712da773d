"""Object names replaced by "object" (Devaraj et al.): by rules, or by a language model whose answers rules check.

The rules find names of objects by a lexicon (`object_nouns`), tell nouns from verbs by the words around ("a bow" and
"bows the head"), and replace each name with the words that belong to it. What looks and materials say goes with the
name ("a small wooden ball" becomes "an object"), what says how it moves stays ("a swinging rope" becomes "a swinging
object"). Body parts, people, ground, air and water are no objects here.
"""

from __future__ import annotations

import dataclasses
import difflib
import itertools
import os
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial

from .engine import Endpoint, Forecast, Outcome, Request, Tally, forecast_requests, run_requests
from .object_names import BODY_FORMS, Name, Reading, Word, find_names, is_gerund, words_of
from .object_nouns import ADVERBS, ARTICLES, CONJUNCTIONS, DETERMINERS, PREPOSITIONS, PRONOUNS
from .prompts import MASKING
from .schema import KINDS, DescriptionRow, DescriptionSet

__all__ = [
    "Difference",
    "MaskedSet",
    "forecast_masking",
    "mask_differences",
    "mask_faults",
    "mask_objects",
    "mask_set",
    "mask_set_by_model",
]


# Sets


def mask_set(
    descriptions: DescriptionSet, kinds: Iterable[str] | None = None, *, replace: bool = False
) -> DescriptionSet:
    """The set with `masked_text` made by `mask_objects`; equal to the text where it names no object.

    Args:
        descriptions: any set.
        kinds: of `KINDS`; all that the set has by default. Rows of others stay as they are.
        replace: also where there is a masked text already, which otherwise stays.

    Raises:
        ValueError: a kind is unknown, or the set has no text of it.
    """
    wanted = _unmasked(descriptions, kinds, replace=replace)
    return _with_masks(descriptions, {row.key: mask_objects(row.text) for row in wanted})


@dataclass(frozen=True)
class MaskedSet:
    """What a language model made of a set.

    Args:
        descriptions: the set; rows whose answers were rejected are as they were.
        rejected: outcomes of these rows, with their faults.
    """

    descriptions: DescriptionSet
    rejected: tuple[Outcome, ...]


def mask_set_by_model(
    descriptions: DescriptionSet,
    endpoint: Endpoint,
    journal_path: str | os.PathLike[str],
    kinds: Iterable[str] | None = None,
    *,
    replace: bool = False,
    concurrency: int = 16,
    retry_rejected: bool = False,
    on_change: Callable[[Tally], None] | None = None,
) -> MaskedSet:
    """The set with `masked_text` written by a language model and checked by `mask_faults`.

    An answer with faults is asked for once more with the reasons, then rejected. What the journal has is not paid for
    again (`run_requests`).

    Args:
        descriptions: any set.
        endpoint: whom to ask.
        journal_path: file of this run; one that an earlier run left is gone on from.
        kinds: of `KINDS`; all that the set has by default.
        replace: also where there is a masked text already, which otherwise stays.
        concurrency: calls in flight at most.
        retry_rejected: asks again for what stands rejected at the end.
        on_change: told where the run stands.

    Raises:
        ValueError: a kind is unknown, the set has no text of it, or as `run_requests`.
        EndpointError, KeyboardInterrupt: as `run_requests`.
    """
    wanted = _unmasked(descriptions, kinds, replace=replace)
    outcomes = run_requests(
        [_request(row) for row in wanted],
        endpoint,
        journal_path,
        concurrency=concurrency,
        retry_rejected=retry_rejected,
        on_change=on_change,
    )
    pairs = list(zip(wanted, outcomes, strict=True))
    masks = {row.key: outcome.text for row, outcome in pairs if outcome.is_accepted}
    return MaskedSet(_with_masks(descriptions, masks), tuple(o for o in outcomes if not o.is_accepted))


def forecast_masking(
    descriptions: DescriptionSet,
    endpoint: Endpoint,
    journal_path: str | os.PathLike[str],
    kinds: Iterable[str] | None = None,
    *,
    replace: bool = False,
) -> Forecast:
    """What `mask_set_by_model` would find in the journal and ask for; nothing is sent or written.

    Raises:
        ValueError: a kind is unknown, the set has no text of it, or the journal is damaged.
    """
    requests = [_request(row) for row in _unmasked(descriptions, kinds, replace=replace)]
    return forecast_requests(requests, endpoint, journal_path)


def _request(row: DescriptionRow) -> Request:
    return Request(row.name, MASKING.messages(text=row.text), partial(mask_faults, row.text), MASKING.cleaned)


def _unmasked(descriptions: DescriptionSet, kinds: Iterable[str] | None, *, replace: bool) -> list[DescriptionRow]:
    """The rows to mask."""
    chosen = descriptions.kinds if kinds is None else tuple(kinds)
    for kind in chosen:
        if kind not in descriptions.kinds:
            known = f"it has {', '.join(descriptions.kinds)}" if kind in KINDS else f"choose of {', '.join(KINDS)}"
            raise ValueError(f"{descriptions.dataset} has no texts of kind {kind!r}; {known}.")
    return [row for row in descriptions.rows if row.kind in chosen and (replace or row.masked_text is None)]


def _with_masks(descriptions: DescriptionSet, masks: dict[tuple[int, int, int], str]) -> DescriptionSet:
    rows = (dataclasses.replace(r, masked_text=masks[r.key]) if r.key in masks else r for r in descriptions.rows)
    return DescriptionSet(tuple(rows))


@dataclass(frozen=True)
class Difference:
    """A stretch of a text and its masked text: `removed` and `added` are equal where nothing changed."""

    removed: str
    added: str

    @property
    def is_change(self) -> bool:
        """Whether something changed."""
        return self.removed != self.added


def mask_differences(text: str, masked: str) -> list[Difference]:
    """What became of each stretch of `text`, word by word; each side, joined, is its text."""
    old, new = _PIECE.findall(text), _PIECE.findall(masked)
    matcher = difflib.SequenceMatcher(None, _stripped(old), _stripped(new), autojunk=False)
    found = []
    for tag, i1, i2, j1, j2 in matcher.get_opcodes():
        added = "".join(new[j1:j2])
        found.append(Difference(added if tag == "equal" else "".join(old[i1:i2]), added))
    return found


def _stripped(pieces: list[str]) -> list[str]:
    return [piece.strip() for piece in pieces]


_PIECE = re.compile(r"\s*(?:[\w'’-]+|[^\w\s])")  # a word or a mark, with the space before it


# Texts


def mask_objects(text: str) -> str:
    """`text` with names of objects replaced by "object", every other word as it was.

    The first object is "an object" or "the object", one with another name "another object" or "other objects", and a
    name that comes again "the object" or "the other object". Names joined by "or" or "and" become one, as do parts and
    portions of an object ("the handle of a racket", "a slice of bread"). A name that only says which hand or stroke is
    meant goes ("the racket arm" becomes "the arm").
    """
    words = words_of(text)
    pieces = []
    place = 0
    for start, end, replacement in _replacements(words, text):
        pieces += [text[place:start], replacement]
        place = end
    return "".join([*pieces, text[place:]])


# What names become


def _replacements(words: list[Word], text: str) -> Iterator[tuple[int, int, str]]:
    """From, to (places in `text`) and the words to put there."""
    reading = Reading(words, text)
    known: list[frozenset[str]] = []
    for name in find_names(reading):
        start, end = words[name.start].start, words[name.end - 1].end
        if name.is_modifier:
            replacement = _without(name, reading)
            end = words[name.end].start
        else:
            replacement = _object_words(name, reading, known)
            if words[name.end - 1].is_possessive:
                replacement += "'s"
            known.append(name.names)
        if words[name.start].text[0].isupper() and replacement:
            replacement = replacement[0].upper() + replacement[1:]
        yield start, end, replacement


def _without(name: Name, reading: Reading) -> str:
    kept = [reading.words[place].lower for place in name.kept]
    start = [] if name.determiner is None else [reading.words[name.determiner].lower]
    if start and start[0] in ARTICLES:
        start = [_article([*kept, reading.words[name.end].lower][0])]
    return "".join(f"{word} " for word in [*start, *kept])


def _object_words(name: Name, reading: Reading, known: list[frozenset[str]]) -> str:
    kept = [reading.words[place].text.lower() for place in name.kept]
    noun = "objects" if name.is_plural else "object"
    determiner = None if name.determiner is None else reading.words[name.determiner].lower
    order = list(dict.fromkeys(known))
    earlier = next((place for place, names in enumerate(order) if names & name.names), None)
    owned = name.start > 0 and reading.words[name.start - 1].is_possessive and reading.gap(name.start).isspace()
    if owned or _is_bare_gerund_object(name, reading) or _shares_determiner(name, reading):
        start = []
    elif determiner == "the":
        start = _definite(earlier, known=bool(order), is_plural=name.is_plural)
    elif determiner is None or determiner in ("some", "any", "more", *ARTICLES):
        start = _indefinite(determiner, earlier, known=bool(order), is_plural=name.is_plural)
    else:
        start = [determiner]
    if kept[:1] == ["other"]:
        start = [word for word in start if word != "other"]
        if start in (["an"], ["another"]):
            start, kept = ["another"], kept[1:]
    elif start == ["an"]:
        start = [_article([*kept, noun][0])]
    return " ".join([*start, *kept, noun])


def _definite(earlier: int | None, *, known: bool, is_plural: bool) -> list[str]:
    if not known or earlier == 0:
        return ["the"]
    return ["the", "other"] if is_plural or earlier is not None else ["another"]


def _indefinite(determiner: str | None, earlier: int | None, *, known: bool, is_plural: bool) -> list[str]:
    is_new = known and earlier is None
    quantity = [determiner] if determiner in ("some", "any", "more") else []
    if is_plural:
        return [*quantity, "other"] if is_new else quantity
    if determiner is None and earlier is not None:
        return ["the"] if earlier == 0 else ["the", "other"]
    return ["another"] if is_new or determiner == "more" else ["an"]


def _is_bare_gerund_object(name: Name, reading: Reading) -> bool:
    """Whether it is as in "ball handling", which becomes "object handling"."""
    after = reading.after(name.end - 1)
    if name.determiner is not None or name.is_plural or after is None or not is_gerund(after):
        return False
    before = reading.before(name.start)
    return before is None or before in CONJUNCTIONS or before in PREPOSITIONS


def _shares_determiner(name: Name, reading: Reading) -> bool:
    """Whether the article before a body part serves the object too: "the arms and club"."""
    place = name.start
    if name.determiner is not None or place < 3 or reading.before(place) not in ("and", "or"):
        return False
    return reading.words[place - 2].lower in BODY_FORMS and reading.before(place - 2) in DETERMINERS


def _article(word: str) -> str:
    """What stands before `word`: "a" or "an"."""
    if re.match(r"(one|once|uni|use|usu|eu|ukulele)", word):
        return "a"
    return "an" if word[0] in "aeiou" or re.match(r"(hour|honest|heir)", word) else "a"


# What is wrong with a masked text

# What may stand where a name was; the released files use the second ones besides.
_MASKS = ARTICLES | {"the", "another", "other", "some", "any", "object", "objects", "object's"}
_MASKS |= {"region", "person", "people", "instrument", "instruments", "of", "interest"}
_STAYING = (
    frozenset((*BODY_FORMS, "ground", "floor", "air", "water", "while", "then"))
    | PREPOSITIONS - {"of"}
    | ADVERBS
    | PRONOUNS
)
_UNGRAMMATICAL = (
    r"\ba object",
    r"\b(?:an?|another|this|each|every|one) (?:other )?objects\b(?!')",
    r"\b(?:these|those|two|three|four|several|many|multiple|both) (?:other )?object\b(?!')",
    r"\bobjects? (?:or|of) (?:an? |the )?(?:other )?objects?\b",
    r"\bobjects? (?:and )?objects?\b",
    r"\b(?:an?|the|another) (?:an?|the|another)\b",
    r"object's objects?\b",
    r"  | ,",
)


def mask_faults(text: str, masked: str) -> list[str]:
    """What is wrong with `masked` as the text without object names, each fault as a phrase for whoever wrote it.

    The two are aligned word by word (`difflib`). Where they differ, `masked` may have nothing but words such as "an
    object", `text` no body part, direction, preposition or verb of motion outside a name that the rules find; nothing
    else may be added or left out. No name may remain, and articles and numbers must agree.

    Returns:
        Phrases such as "it still names 'the brush'"; empty if nothing is wrong.
    """
    if not masked.strip() or masked != masked.strip() or len(masked.splitlines()) > 1:
        return ["it is not one line of text without spaces around it"]
    old, new = words_of(text), words_of(masked)
    faults = [f"it still names {name!r}" for name in _names_in(masked)]
    inside = {place for name in find_names(Reading(old, text)) for place in range(name.start, name.end)}
    matcher = difflib.SequenceMatcher(None, [w.lower for w in old], [w.lower for w in new], autojunk=False)
    for tag, i1, i2, j1, j2 in matcher.get_opcodes():
        if tag != "equal":
            faults += _change_faults(old[i1:i2], new[j1:j2], inside, i1, new[j2 : j2 + 3])
    for pattern in _UNGRAMMATICAL:
        for match in re.finditer(pattern, masked, re.IGNORECASE):
            if match.group() not in text:
                faults.append(f"it has {match.group()!r}, which is not grammatical")
    faults += _article_faults(new, text)
    if masked[-1] != text[-1] and not (masked[-1].isalpha() and text[-1].isalpha()):
        faults.append(f"it ends with {masked[-1]!r} where the text ends with {text[-1]!r}")
    return list(dict.fromkeys(faults))


def _names_in(text: str) -> list[str]:
    words = words_of(text)
    return [text[words[name.start].start : words[name.end - 1].end] for name in find_names(Reading(words, text))]


def _change_faults(
    removed: list[Word], added: list[Word], inside: set[int], first: int, following: list[Word]
) -> Iterator[str]:
    """Faults of one place where `removed`, the words from `first` on, became `added`."""
    quoted = " ".join(word.text for word in removed)
    if strange := [word.text for word in added if word.lower not in _MASKS]:
        yield f"it has {' '.join(strange)!r} where the text has {quoted!r}" if removed else f"it adds {strange[0]!r}"
        return
    if not removed:
        is_article = all(word.lower not in ("object", "objects", "object's") for word in added)
        if not (is_article and any(word.lower.startswith("object") for word in following)):
            yield f"it adds {' '.join(word.text for word in added)!r} where the text names nothing"
        return
    for word in (word for place, word in enumerate(removed, first) if place not in inside):
        if word.lower in _STAYING or is_gerund(word.lower) or (not added and word.lower not in DETERMINERS):
            yield f"it leaves out {word.text!r}"


def _article_faults(words: list[Word], text: str) -> Iterator[str]:
    for article, word in itertools.pairwise(words):
        pair = f"{article.text} {word.text}"
        is_new = pair not in text and not word.lower.startswith("object")  # these are in `_UNGRAMMATICAL`
        if is_new and article.lower in ARTICLES and article.lower != _article(word.lower):
            yield f"it has {pair!r}, which is not grammatical"
