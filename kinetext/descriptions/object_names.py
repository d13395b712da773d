"""Names of objects in English texts about human actions: where they stand, and which words belong to them.

Rules over the vocabulary of `object_nouns`: words that are nouns and verbs are told apart by the words around them ("a
bow", "bows the head"), and each name takes its article and adjectives, names joined to it, and parts and portions.
"""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass
from functools import cache

from .object_nouns import (
    ADVERBS,
    ARRANGEMENTS,
    BODY_PARTS,
    CAUSATIVES,
    COMPOUNDS,
    CONJUNCTIONS,
    DETERMINERS,
    FUNCTION_WORDS,
    GROUND_COVERS,
    INTENSIFIERS,
    LIQUIDS,
    LOOKS,
    MODIFIERS,
    MOTION_NOUNS,
    NOT_OBJECTS,
    OBJECT_NOUNS,
    PARTS,
    PEOPLE,
    PLURAL_DETERMINERS,
    PLURAL_ONLY,
    PORTIONS,
    POSSESSIVES,
    PREPOSITIONS,
    PRONOUNS,
    SINGULAR_DETERMINERS,
    SUBJECTS,
    VERBS_TOO,
)

__all__ = ["BODY_FORMS", "Name", "Reading", "Word", "find_names", "is_gerund", "words_of"]


_WORD = re.compile(r"[^\W\d_]+(?:[-'’][^\W\d_]+)*")

_IRREGULAR_PLURALS = {
    "goose": "geese", "knife": "knives", "leaf": "leaves", "loaf": "loaves", "mouse": "mice", "ox": "oxen",
    "scarf": "scarves", "shelf": "shelves", "tooth": "teeth", "foot": "feet", "wolf": "wolves", "hoof": "hooves",
    "calf": "calves", "hive": "hives", "potato": "potatoes", "tomato": "tomatoes", "mango": "mangoes",
    "cactus": "cactuses", "domino": "dominoes",
}  # fmt: skip
_SAME_PLURALS = frozenset(
    ["aircraft", "apparatus", "deer", "equipment", "fish", "moose", "salmon", "sheep", "shrimp", "squid", "tuna"]
)


@dataclass(frozen=True)
class Word:
    """A word and where it stands in the text."""

    text: str
    start: int
    end: int

    @property
    def lower(self) -> str:
        """In lower case."""
        return self.text.lower().replace("’", "'")

    @property
    def base(self) -> str:
        """In lower case, without a possessive 's."""
        return self.lower.removesuffix("'s")

    @property
    def is_possessive(self) -> bool:
        """Whether it ends with a possessive 's."""
        return self.lower.endswith("'s")


def words_of(text: str) -> list[Word]:
    """The words of a text; marks and numbers are none."""
    return [Word(match.group(), *match.span()) for match in _WORD.finditer(text)]


def is_gerund(word: str) -> bool:
    """Whether a word in lower case ends with the -ing of verbs: "turning", not "swing"."""
    return re.search("[aeiouy].*ing$", word) is not None


def _plural(noun: str) -> str:
    if noun in _IRREGULAR_PLURALS:
        return _IRREGULAR_PLURALS[noun]
    if noun in _SAME_PLURALS or noun in PLURAL_ONLY:
        return noun
    if noun.endswith(("s", "x", "z", "ch", "sh")):
        return noun + "es"
    return noun[:-1] + "ies" if noun.endswith("y") and noun[-2] not in "aeiou" else noun + "s"


def _forms(nouns: frozenset[str]) -> dict[str, tuple[str, bool]]:
    """Each form, singular or plural, with its singular and whether it is a plural."""
    plurals = {_plural(noun): (noun, True) for noun in nouns}
    return plurals | {noun: (noun, noun in PLURAL_ONLY) for noun in nouns}


_OBJECTS = _forms(OBJECT_NOUNS | PLURAL_ONLY)
BODY_FORMS = _forms(BODY_PARTS)
_PERSONS = _forms(PEOPLE)
_MOTIONS = _forms(MOTION_NOUNS)
_PORTIONS = _forms(PORTIONS)
_HEADS_OF_LONGER_NAMES = ("ball", "board", "stick", "brush", "rope", "boat", "bike", "shoe")  # "paddleboard"
_NOT_LONGER_NAMES = frozenset(("aboard", "onboard", "overboard", "starboard", "slapstick"))


@cache
def _object_form(word: str) -> tuple[str, bool] | None:
    """Name and number of the object that `word` can name; None if it names none."""
    if word in _OBJECTS:
        return _OBJECTS[word]
    if "-" in word:
        *before, last = word.split("-")
        if found := _compound((*before, last)) or _OBJECTS.get(last):
            return found
    for head in _HEADS_OF_LONGER_NAMES:
        if len(word) > len(head) + 2 and word.endswith((head, _plural(head))) and word not in _NOT_LONGER_NAMES:
            return (word, not word.endswith(head))
    return None


@cache
def _compound(words: tuple[str, ...]) -> tuple[str, bool] | None:
    """Name and number of the compound name that these words are."""
    for name in COMPOUNDS:
        if words == name:
            return (name[-1], False)
        if words == (*name[:-1], _plural(name[-1])):
            return (name[-1], True)
    return None


# Which words name objects


class Reading:
    """Words of one text, and which of them name objects."""

    def __init__(self, words: list[Word], text: str) -> None:
        self.words = words
        self.text = text
        self.names = [False] * len(words)
        kept = self._idioms()
        for place in range(len(words)):
            if self.names[place] or place in kept:
                continue
            if length := self._compound_at(place):
                self.names[place : place + length] = [True] * length
            else:
                self.names[place] = self._is_name(place)

    def gap(self, place: int) -> str:
        """What stands between the word at `place` and the one before."""
        return self.text[self.words[place - 1].end : self.words[place].start]

    def before(self, place: int) -> str | None:
        """The word before in the same clause."""
        return self.words[place - 1].lower if place > 0 and self.gap(place).isspace() else None

    def after(self, place: int) -> str | None:
        """The word after in the same clause."""
        following = place + 1
        return self.words[following].lower if following < len(self.words) and self.gap(following).isspace() else None

    def number(self, place: int) -> tuple[str, bool]:
        """Name and number of the word at `place`."""
        return _object_form(self.words[place].base) or (self.words[place].base, False)

    def _idioms(self) -> set[int]:
        places: set[int] = set()
        lower = [word.lower for word in self.words]
        for start in range(len(lower)):
            for phrase in NOT_OBJECTS:
                if tuple(lower[start : start + len(phrase)]) == phrase:
                    places |= set(range(start, start + len(phrase)))
        return places

    def _compound_at(self, place: int) -> int:
        """How many words from `place` on are one compound name."""
        for length in (3, 2):
            group = self.words[place : place + length]
            joined = all(self.gap(place + offset).isspace() for offset in range(1, len(group)))
            if len(group) == length and joined and _compound(tuple(word.base for word in group)):
                return length
        return 0

    def _is_name(self, place: int) -> bool:
        word = self.words[place]
        form = _object_form(word.base)
        if form is None or (form[0] in GROUND_COVERS and self._is_ground(place)):
            return False
        if form[0] not in VERBS_TOO or word.is_possessive:
            return True
        return self._reads_as_noun(place, is_s_form=word.lower != form[0])

    def _is_ground(self, place: int) -> bool:
        before = self.before(place)
        if before == "the":
            before = self.before(place - 1)
        return before in PREPOSITIONS and before not in ("of", "with", "using")

    def _reads_as_noun(self, place: int, *, is_s_form: bool) -> bool:
        """Whether a word that is noun and verb is a noun here."""
        before, after = self.before(place), self.after(place)
        opens_phrase = after in DETERMINERS or after in PRONOUNS  # "bows the head"
        if opens_phrase and is_gerund(self.words[place].lower):
            return False  # "building a wall"
        if before is None:
            return self._is_noun_after_pause(place, opens_phrase=opens_phrase, is_s_form=is_s_form)
        if before == "that":
            return not is_s_form
        if before in SUBJECTS:
            return before == "to" and is_s_form
        if before in DETERMINERS or before.endswith("'s"):
            return True
        if before in CONJUNCTIONS:
            return not opens_phrase and (place < 2 or self._is_noun_like(place - 2, is_s_form=is_s_form))
        if before in ADVERBS or before.endswith("ly"):
            return not (opens_phrase or is_s_form)
        if before in PREPOSITIONS or before in LOOKS or before in MODIFIERS or before in ARRANGEMENTS:
            return True
        return self._is_noun_after_noun(place, before, is_s_form=is_s_form)

    def _is_noun_after_pause(self, place: int, *, opens_phrase: bool, is_s_form: bool) -> bool:
        if opens_phrase:
            return False
        if place == 0 or self.names[place - 1]:
            return True
        # ", drums with" against ", oars and"; without an article a singular after a comma is a verb: ", sink and cut"
        return is_s_form and (self.after(place) is None or self.after(place) in CONJUNCTIONS)

    def _is_noun_like(self, place: int, *, is_s_form: bool) -> bool:
        """Whether what "and" joins the next word to is a noun: "hands and oars" against "stands and rocks"."""
        word = self.words[place].base
        if self.names[place]:
            return True
        if body_or_person := BODY_FORMS.get(word) or _PERSONS.get(word):
            return body_or_person[1] or not is_s_form  # not "plants one foot and rocks back"
        return is_s_form and not word.endswith("s") and word not in ADVERBS and word not in PRONOUNS

    def _is_noun_after_noun(self, place: int, before: str, *, is_s_form: bool) -> bool:
        known = BODY_FORMS.get(before) or _PERSONS.get(before)
        if known:
            return False  # "the hand drums", "hands drum", "a fist pump"
        if before == "objects" or (self.names[place - 1] and self.number(place - 1)[1]):
            return False  # "balls rock"
        if before == "object" or self.names[place - 1]:
            return not (is_s_form and self._has_article(place - 1))  # "the boat rocks" against "golf ball racks"
        is_person = before.endswith(("er", "or", "ist")) and self.before(place - 1) in DETERMINERS
        return not (is_s_form and is_person)  # "the player bows"

    def _has_article(self, place: int) -> bool:
        while place > 0 and (self.names[place] or self.words[place].lower in LOOKS | {"object", "other"}):
            place -= 1
        return self.words[place].lower in DETERMINERS


# Names with the words that belong to them


@dataclass(frozen=True)
class Name:
    """The words `start` to `end` (not included) that name one object or several of a kind.

    Args:
        determiner: place of "a", "the", "two" ...; None if there is none.
        kept: places of words between it and the name that stay.
        names: what the objects are called.
        is_plural: its number.
        is_modifier: it only says more about the noun that follows.
    """

    start: int
    end: int
    determiner: int | None
    kept: tuple[int, ...]
    names: frozenset[str]
    is_plural: bool
    is_modifier: bool = False


def find_names(reading: Reading) -> list[Name]:
    """The names of objects in a text, in their order; names joined by "or", "and" and "of" are one."""
    names = []
    place = 0
    while place < len(reading.words):
        if reading.names[place]:
            names.append(_name_at(reading, place))
            place = names[-1].end
        else:
            place += 1
    return _joined(names, reading)


def _name_at(reading: Reading, place: int) -> Name:
    """The name whose first noun is at `place`."""
    end = place + 1
    while end < len(reading.words) and _continues(reading, end) and _is_further_noun(reading, end):
        end += 1
    length = next((n for n in (3, 2) if end - n >= place and _compound_form(reading, end - n, end)), 0)
    form = _compound_form(reading, end - length, end) if length else reading.number(end - 1)
    assert form is not None
    is_plural = form[1]
    if end < len(reading.words) and _continues(reading, end) and _absorbs_part(reading, end, is_plural=is_plural):
        is_plural = reading.words[end].lower.endswith("s")
        end += 1
    return _with_left(reading, place, end, form[0], is_plural)


def _is_further_noun(reading: Reading, place: int) -> bool:
    """Whether the word goes on with a compound name: "cue ball", "table tennis racket"."""
    is_sport = reading.words[place].lower in MODIFIERS and place + 1 < len(reading.words) and reading.names[place + 1]
    return reading.names[place] or is_sport


def _compound_form(reading: Reading, start: int, end: int) -> tuple[str, bool] | None:
    return _compound(tuple(word.base for word in reading.words[start:end]))


def _continues(reading: Reading, place: int) -> bool:
    return reading.gap(place).isspace() and not reading.words[place - 1].is_possessive


def _absorbs_part(reading: Reading, place: int, *, is_plural: bool) -> bool:
    """Whether the word at `place` is a part of the object just named: "racket face", not "side to side"."""
    word = reading.words[place].lower
    if is_plural or not (word in PARTS or (word.endswith("s") and word[:-1] in PARTS)):
        return False
    return reading.after(place) not in ("to", "over", "by", "first", "on", "high", "down", "up", "of")


def _with_left(reading: Reading, place: int, end: int, name: str, is_plural: bool) -> Name:
    """Adds determiner and adjectives to the nouns `place` to `end`."""
    start = _start_of_phrase(reading, place)
    before = start - 1 if start > 0 and _is_adjectival_gap(reading, start) else None
    determiner = before if before is not None and _determines(reading, before, is_plural=is_plural) else None
    if determiner is not None:
        is_plural = is_plural or reading.words[determiner].lower in PLURAL_DETERMINERS
    elif before is None or not reading.words[before].is_possessive:
        start = _start_of_adjectives(reading, place)
    is_modifier = not is_plural and _modifies_next(reading, start, end, determiner)
    kept = tuple(k for k in range(start, place) if is_modifier or _stays(reading, k))
    first = start if determiner is None else determiner
    return Name(first, end, determiner, kept, frozenset((name,)), is_plural, is_modifier)


def _determines(reading: Reading, place: int, *, is_plural: bool) -> bool:
    word = reading.words[place].lower
    if word == "that" and reading.before(place) == "so":
        return False
    return word in DETERMINERS and not (is_plural and word in SINGULAR_DETERMINERS)


def _start_of_phrase(reading: Reading, place: int) -> int:
    """Where the words begin that stand between a determiner, or what comes before a phrase, and the noun at `place`."""
    start = place
    while start > 0 and _is_adjectival_gap(reading, start):
        word = reading.words[start - 1]
        joins = word.lower in ("and", "or") and all(_is_participle(reading, at) for at in (start - 2, start))
        if not joins and _ends_phrase(reading, start - 1):
            break
        start -= 1
    return start


def _ends_phrase(reading: Reading, place: int) -> bool:
    """Whether the word cannot stand between a determiner and its noun."""
    word = reading.words[place]
    if word.lower in FUNCTION_WORDS or word.is_possessive or (reading.names[place] and not _is_adjective(word)):
        return True
    ends_with_s = word.lower.endswith("s") and len(word.text) > 3  # a verb or a plural
    is_other_noun = word.lower in BODY_FORMS or word.lower in _PERSONS or ends_with_s
    return is_other_noun and not _is_adjective(word)


def _is_participle(reading: Reading, place: int) -> bool:
    return place >= 0 and (reading.words[place].lower.endswith("ed") or is_gerund(reading.words[place].lower))


def _start_of_adjectives(reading: Reading, place: int) -> int:
    """The same where there is no determiner, so that only what can be nothing but an adjective counts."""
    start = place
    while start > 0 and _is_adjectival_gap(reading, start):
        word, before = reading.words[start - 1], reading.before(start - 1)
        is_attribute = before is not None and ((before in PREPOSITIONS and before != "to") or is_gerund(before))
        is_verb = word.lower in FUNCTION_WORDS or is_gerund(word.lower) or word.lower in BODY_FORMS
        if not (_is_adjective(word) or (is_attribute and not is_verb)):
            break
        start -= 1
    return start


def _is_adjective(word: Word) -> bool:
    lower = word.lower
    is_past = lower.endswith("ed") and not lower.endswith("eed")  # "heated", not "feed"
    return lower in LOOKS or lower in MODIFIERS or lower in ARRANGEMENTS or is_past


def _stays(reading: Reading, place: int) -> bool:
    """Whether a word before a name stays: it says how the object moves or stands, not what it looks like."""
    word = reading.words[place].lower
    if word in LOOKS or word in MODIFIERS or (word in INTENSIFIERS and not _stays(reading, place + 1)):
        return False
    if "-" in word:
        return not word.endswith(("ed", "shaped", "like", "sized"))
    return word in ARRANGEMENTS or word.endswith("ly") or is_gerund(word)


def _is_adjectival_gap(reading: Reading, place: int) -> bool:
    """Space, or a comma between two adjectives."""
    gap = reading.gap(place)
    if gap.isspace():
        return True
    both = (reading.words[place - 1], reading.words[place])
    return gap == ", " and all(_is_adjective(word) for word in both)


def _modifies_next(reading: Reading, start: int, end: int, determiner: int | None) -> bool:
    """Whether the name stands before a noun that stays: "the racket arm", "short brush strokes"."""
    if end >= len(reading.words) or not _continues(reading, end):
        return False
    word, after = reading.words[end].lower, reading.after(end)
    if word.removesuffix("'s") in _PERSONS or word.removesuffix("s") in ("object", "instrument"):
        return True
    if word in BODY_FORMS and word != "back":
        return after not in ("to", "over", "by", "after", "first", "high")  # "from hand to hand"
    joined = start > 0 and reading.words[start - 1].lower in CONJUNCTIONS and determiner is None
    if word not in _MOTIONS or after in DETERMINERS or after in ADVERBS or joined:
        return False  # a verb: "the bat and ball swing down"
    if _MOTIONS[word][1]:  # after a singular with article "rolls" is a verb
        return determiner is None or reading.words[determiner].lower in PLURAL_DETERMINERS | POSSESSIVES
    earlier = {word.lower for word in reading.words[max(0, start - 4) : start]}
    return not earlier & CAUSATIVES


# Names that become one


def _joined(names: list[Name], reading: Reading) -> list[Name]:
    names = [_with_portion(name, reading) for name in names]
    names = _merged_of(names, reading)
    return _merged_lists(names, reading)


def _with_portion(name: Name, reading: Reading) -> Name:
    """Takes "a slice of bread" for one name."""
    of = name.start - 1
    if of < 1 or reading.words[of].lower != "of" or reading.words[of - 1].lower not in _PORTIONS:
        return name
    portion, is_plural = _PORTIONS[reading.words[of - 1].lower]
    whole = _with_left(reading, of - 1, of, portion, is_plural)
    is_plural = is_plural or (portion == "pair" and not name.names & PLURAL_ONLY)
    return dataclasses.replace(whole, end=name.end, names=name.names, is_plural=is_plural, is_modifier=False)


def _merged_of(names: list[Name], reading: Reading) -> list[Name]:
    """Takes "the strings of a guitar" and "the horse's saddle" for one name each."""
    merged: list[Name] = []
    for name in names:
        previous = merged[-1] if merged else None
        if previous and previous.end + 1 == name.start and reading.words[previous.end].lower == "of":
            merged[-1] = dataclasses.replace(previous, end=name.end, names=previous.names | name.names)
        elif previous and previous.end == name.start and reading.words[name.start - 1].is_possessive:
            names_of_both = previous.names | name.names
            merged[-1] = dataclasses.replace(previous, end=name.end, names=names_of_both, is_plural=name.is_plural)
        else:
            merged.append(name)
    return [_with_object(_with_content(name, reading), reading) for name in merged]


def _with_content(name: Name, reading: Reading) -> Name:
    """Takes "a bucket of water" for one name."""
    rest = [word.lower for word in reading.words[name.end : name.end + 4]]
    if rest[:1] != ["of"] or name.is_modifier:
        return name
    content = next((place for place, word in enumerate(rest[1:], 1) if word not in LOOKS and word != "the"), None)
    if content is None or rest[content] not in LIQUIDS:
        return name
    return dataclasses.replace(name, end=name.end + content + 1)


def _with_object(name: Name, reading: Reading) -> Name:
    """Takes "balls or objects" for one name."""
    rest = [word.lower for word in reading.words[name.end : name.end + 2]]
    return dataclasses.replace(name, end=name.end + 2) if rest in (["or", "object"], ["or", "objects"]) else name


def _merged_lists(names: list[Name], reading: Reading) -> list[Name]:
    """Takes "a brush or comb" and "scissors, clippers, and combs" for one name each."""
    merged: list[Name] = []
    place = 0
    while place < len(names):
        length = _list_length(names[place:], reading)
        group = names[place : place + length]
        merged.append(_one_of(group, reading) if length > 1 else names[place])
        place += length
    return merged


def _list_length(names: list[Name], reading: Reading) -> int:
    """How many names from the first on are one list: joined by commas, and the last by "and" or "or"."""
    length = 1
    for count in range(2, len(names) + 1):
        previous, name = names[count - 2 : count]
        if previous.is_modifier or name.is_modifier or reading.words[previous.end - 1].is_possessive:
            break
        between = reading.text[reading.words[previous.end - 1].end : reading.words[name.start].start]
        link = re.sub(r"\s+", " ", between).strip(" ,")
        own = name.determiner is not None
        if link not in ("", "and", "or") or (link == "" and between.strip() != ",") or (link != "or" and own):
            break
        if link:
            length = count
            break
    return length


def _one_of(group: list[Name], reading: Reading) -> Name:
    first, last = group[0], group[-1]
    link = reading.words[last.start - 1].lower
    names = frozenset().union(*(name.names for name in group))
    is_plural = any(name.is_plural for name in group) if link == "or" else True
    return dataclasses.replace(first, end=last.end, names=names, is_plural=is_plural)
