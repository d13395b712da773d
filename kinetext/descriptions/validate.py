"""What can be wrong with a text, and with a description set: the one home of these rules.

Generation and masking put the faults of an answer (`text_faults`) to the model as the reason for asking again;
`kinetext describe check` looks for the same faults in every text, and for those that only a whole set can have.
"""

from __future__ import annotations

import itertools
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from .schema import DescriptionRow, DescriptionSet, normalised_name, with_nearest

__all__ = [
    "DEFAULT_TOKENIZER",
    "MAX_TOKENS",
    "NEAR_DUPLICATE",
    "Finding",
    "KindSummary",
    "SetCheck",
    "check_set",
    "find_class_name",
    "load_token_counter",
    "text_faults",
]

DEFAULT_TOKENIZER = "openai/clip-vit-base-patch32"  # every CLIP of OpenAI has the same one
MAX_TOKENS = 77  # CLIP's context, start and end token included
NEAR_DUPLICATE = 0.75  # similarity from which two texts are reported; in a text of 20 words one may differ

_REFUSAL = re.compile(
    r"((i['’]?m|i am|we are|we['’]re) )?(very |so )?sorry\b"
    r"|(i['’]?m|i am|we are|we['’]re) (very |so )?(afraid|unable|not able)\b"
    r"|(unable|not able) to (help|assist|comply|provide|generate|describe)\b"
    r"|(it|this|that)( is|['’]s| would be| isn['’]t| wouldn['’]t be)( not)? (in)?appropriate\b"
    r"|(i|we) (can['’]?t|cannot|can not|won['’]?t|do not|don['’]?t|apologi[sz]e)\b"
    r"|(as|i am|i['’]m) (an? )(ai|artificial|(large )?language model)\b"
    r"|(my )?apologies\b|unfortunately,? (i|we)\b",
    re.IGNORECASE,
)
_PREAMBLE = re.compile(
    r"(sure|certainly|of course|absolutely)(?= *[,.:;!–—]| +(-|here\b))|(here (is|are)|the answer is)\b|(q|a|answer):",
    re.IGNORECASE,
)
_MARKUP = re.compile(r"\*\*|__|`|^#+ |^[-*•] |^\d+[.)] |</?\w+>|\{|\}")
_WRONG_ARTICLE = re.compile(r"\b(a object|an? objects|another objects|an other object)\b", re.IGNORECASE)
# Function words: those that English can hardly do without, and those of its neighbours that are no English words.
_ENGLISH = (
    "the a an and or of to in on with from by at as for into while then is are it its their his her one over up down "
    "out off back through between against toward towards around across along under above behind before after until "
    "both each other another without not that which this than often usually"
)
_FOREIGN = (
    "und der das den dem mit ein eine einem einen sich auf von zu le la les des une et du au aux sur dans avec el los "
    "las y una con del por hacia il lo gli della di che nel o os um uma para do da das het een en van de met op"
)


# One text


def text_faults(
    text: str, *, kind: str, class_name: str, count_tokens: Callable[[str], int] | None = None
) -> list[str]:
    """What is wrong with one text, each fault as a phrase that can be put to whoever wrote it.

    Args:
        text: as it came, or a masked text.
        kind: one of `KINDS`. All kinds have the same rules but for one: a discriminative text may be a list of
            features (MoTED Fig. 1), so it need not read as English prose.
        class_name: what the text must not contain, see `find_class_name`.
        count_tokens: of `load_token_counter`; without it lengths are not looked at.

    Returns:
        Phrases such as "it has 92 tokens, more than 77"; empty if nothing is wrong.
    """
    if not text.strip():
        return ["it is empty"]
    if _REFUSAL.match(text.strip()):
        return ["it refuses to answer"]
    faults = list(_form_faults(text))
    if count_tokens is not None and (count := count_tokens(text)) > MAX_TOKENS:
        faults.append(f"it has {count} tokens, more than {MAX_TOKENS}")
    if leak := find_class_name(text, class_name):
        inflected = "" if _words(leak) == _words(class_name) else f" as {leak!r}"
        faults.append(f"it contains the class name {class_name!r}{inflected}")
    if match := _WRONG_ARTICLE.search(text):
        faults.append(f"it says {match.group()!r}, which is not grammatical")
    faults += _character_faults(text)
    if fault := _language_fault(text, kind):
        faults.append(fault)
    return faults


def find_class_name(text: str, class_name: str) -> str | None:
    """Where `text` names its class: the words of the whole name one after another, or an inflection of them.

    Case and punctuation do not count, words run together or apart are the same ("push-ups" names "pushup"), and what a
    name adds in brackets is left out. Inflections are those of regular English verbs and nouns (-s, -es, -ies, -ed,
    -ing; `_stem`), and the irregular ones of a few verbs; derived words ("climber" for "climb") are not.

    Returns:
        The words as the text has them; None if it does not name the class.
    """
    name = _words(class_name)
    if not name:
        return None
    words = _words(text)
    stems = [_stem(word) for word in words]
    name_stems = [_stem(word) for word in name]
    joined = _stem("".join(name))
    for start in range(len(words)):
        if stems[start : start + len(name)] == name_stems:
            return " ".join(words[start : start + len(name)])
        for length in range(1, min(len(name) + 2, len(words) - start) + 1):
            if _stem("".join(words[start : start + length])) == joined:
                return " ".join(words[start : start + length])
    return None


def load_token_counter(tokenizer: str) -> Callable[[str], int]:
    """A function that counts the tokens of a text, start and end token included.

    Args:
        tokenizer: folder or Hub id of a CLIP, or of its tokenizer.

    Raises:
        ValueError: it cannot be loaded.
    """
    from transformers import AutoTokenizer

    try:
        loaded = AutoTokenizer.from_pretrained(tokenizer)
    except (OSError, ValueError) as error:
        raise ValueError(
            f"the tokenizer {tokenizer!r} cannot be loaded; name a folder or a Hub id that can be reached, or do "
            f"without token counts with `--tokenizer none`. ({str(error).splitlines()[0]})"
        ) from error
    return lambda text: len(loaded(text, verbose=False)["input_ids"])


def _form_faults(text: str) -> Iterator[str]:
    stripped = text.strip()
    if len(stripped.splitlines()) > 1:
        yield "it has more than one line"
    elif stripped != text:
        yield "it has spaces around it"
    if len(_words(stripped)) < 2:
        yield "it has only one word"
    if match := _PREAMBLE.match(stripped):
        yield f"it begins with {match.group()!r} instead of the description"
    if match := _MARKUP.search(stripped):
        yield f"it contains the markup {match.group().strip()!r}"
    if len(stripped) > 1 and stripped[0] in "\"“'‘" and stripped[-1] in "\"”'’":
        yield "it stands in quotation marks"


def _character_faults(text: str) -> Iterator[str]:
    """Characters that a tokenizer reads as something else than a person does."""
    if text.isascii() and text.isprintable():
        return
    if _is_mojibake(text):
        yield "it was decoded with the wrong encoding"
        return
    for character in dict.fromkeys(text):
        name = unicodedata.name(character, f"U+{ord(character):04X}")
        if character == "\N{REPLACEMENT CHARACTER}":
            yield "it contains the replacement character U+FFFD: a letter was lost in decoding"
        elif not character.isprintable() and character not in "\n\r":
            yield f"it contains the invisible character {name}"
        elif character.isalpha() and not character.isascii() and _looks_latin_but_is_not(character, text):
            yield f"it contains {character!r} ({name}), which only looks like a Latin letter"


def _is_mojibake(text: str) -> bool:
    """Whether UTF-8 was read as Windows' code page: reading it back gives valid UTF-8, which no chance does."""
    try:
        return text.encode("cp1252").decode("utf-8") != text
    except UnicodeError:
        return False


def _looks_latin_but_is_not(character: str, text: str) -> bool:
    if unicodedata.name(character, "").startswith("LATIN "):
        return unicodedata.normalize("NFKC", character).isascii()  # ligatures such as the one of f and i
    return _latin_share(text) > 0.5  # a text in another alphabet is a fault of language


def _latin_share(text: str) -> float:
    letters = [character for character in text if character.isalpha()]
    latin = sum(unicodedata.name(character, "").startswith("LATIN ") for character in letters)
    return latin / len(letters) if letters else 1.0


def _language_fault(text: str, kind: str) -> str | None:
    """Whether a text is English, by its letters and its function words.

    It is not if eight or more words hold none of English's function words, or if two or more of the function words of
    German, French, Spanish, Italian, Portuguese or Dutch outnumber them. Of the 1408 released texts none is so.
    """
    if _latin_share(text) <= 0.5:
        return "it is not written in Latin letters"
    words = _words(text)
    english = len(set(_ENGLISH.split()).intersection(words))
    foreign = len(set(_FOREIGN.split()).intersection(words))
    is_list = kind == "discriminative" and ";" in text
    if (foreign >= 2 and foreign > english) or (len(words) >= 8 and not english and not is_list):
        return "it is not in English"
    return None


# A set


@dataclass(frozen=True)
class Finding:
    """Something wrong with a set.

    Args:
        level: `error` for what makes a text or the set unfit for use, `warning` for what a person should look at.
        class_name: of the class; empty if it is about the whole set.
        kind: of the texts; empty if it is about the whole set.
        message: what is wrong, naming the text.
    """

    level: str
    class_name: str
    kind: str
    message: str


@dataclass(frozen=True)
class KindSummary:
    """The texts of one kind in numbers.

    Args:
        kind: one of `KINDS`, with " (masked)" after it for the masked texts.
        num_covered: classes that have a text.
        num_classes: classes that should.
        num_texts: in all.
        longest: tokens of the longest text, start and end token included; None if tokens were not counted.
        longest_class: the class it is of.
        num_duplicates: texts equal to another of the kind or class.
        num_near_duplicates: texts that resemble another of the kind or class, see `NEAR_DUPLICATE`.
        num_leaks: texts that contain the name of their class.
    """

    kind: str
    num_covered: int
    num_classes: int
    num_texts: int
    longest: int | None
    longest_class: str
    num_duplicates: int
    num_near_duplicates: int
    num_leaks: int


@dataclass(frozen=True)
class SetCheck:
    """What `check_set` found: a summary per kind, and every finding, errors first."""

    summaries: tuple[KindSummary, ...]
    findings: tuple[Finding, ...]

    @property
    def errors(self) -> tuple[Finding, ...]:
        """The findings that make the set unfit for use."""
        return tuple(finding for finding in self.findings if finding.level == "error")


@dataclass(frozen=True)
class _Text:
    """A text or masked text of a row."""

    row: DescriptionRow
    text: str
    is_masked: bool

    @property
    def kind(self) -> str:
        return f"{self.row.kind} (masked)" if self.is_masked else self.row.kind

    @property
    def is_unchanged(self) -> bool:
        """Whether masking found nothing to replace."""
        return self.is_masked and self.text == self.row.text

    def finding(self, level: str, message: str) -> Finding:
        return Finding(level, self.row.class_name, self.kind, message)


def check_set(
    descriptions: DescriptionSet,
    *,
    count_tokens: Callable[[str], int] | None = None,
    class_names: Sequence[str] | None = None,
) -> SetCheck:
    """Looks at every text and masked text of a set (`text_faults`), and at the set as a whole.

    Errors are: a class without texts of a kind that others have, or with fewer of them; a kind masked in part; texts
    of one kind, or of one class, that are equal but for case, spaces and punctuation; a discriminative text against
    its own class, against one that is not in the list, or against the same one twice. Warnings are near duplicates,
    double spaces, characters beyond ASCII such as curly quotes, and texts that name the class they are told from.

    Near duplicates are texts of one kind whose sets of words and of pairs of neighbouring words together have a Jaccard
    index (shared / all) of `NEAR_DUPLICATE` or more. The pairs make the order of words count; still, texts of opposite
    motions that differ in "left" and "right" alone are near duplicates, and rightly so for a text encoder.

    Args:
        descriptions: N classes.
        count_tokens: of `load_token_counter`; without it lengths are not looked at.
        class_names: the label list that the set should cover; by default the classes that it has.
    """
    listed = tuple(class_names or descriptions.class_names)
    texts = [_Text(row, row.text, is_masked=False) for row in descriptions.rows]
    masked = [_Text(row, row.masked_text, is_masked=True) for row in descriptions.rows if row.masked_text is not None]
    lengths = {} if count_tokens is None else {text.text: count_tokens(text.text) for text in [*texts, *masked]}
    findings = [
        *_class_findings(descriptions.class_names, listed),
        *_coverage_findings(descriptions),
        *_masking_findings(descriptions),
        *_contrast_findings(descriptions, listed),
    ]
    summaries = []
    for group in (texts, masked):
        for kind in dict.fromkeys(text.kind for text in group):
            of_kind = [text for text in group if text.kind == kind]
            if all(text.is_unchanged for text in of_kind):
                continue  # all has been said of the texts themselves
            equal, similar = _duplicates(of_kind, group), _near_duplicates(of_kind)
            findings += [finding for text in of_kind for finding in _text_findings(text, lengths)] + equal + similar
            summaries.append(_summary(of_kind, lengths, len(listed), len(equal), len(similar)))
    findings.sort(key=lambda finding: finding.level)  # "error" comes before "warning"
    return SetCheck(tuple(summaries), tuple(findings))


def _class_findings(own: Sequence[str], listed: Sequence[str]) -> Iterator[Finding]:
    keys = {normalised_name(name) for name in own}
    wanted = [normalised_name(name) for name in listed]
    for name, key in zip(listed, wanted, strict=True):
        if key not in keys:
            yield Finding("error", name, "", f"is not among the classes of the set: {with_nearest(name, own)}")
    for name in own:
        if normalised_name(name) not in wanted:
            yield Finding("error", name, "", f"is not in the label list: {with_nearest(name, listed)}")
    if keys == set(wanted) and [normalised_name(name) for name in own] != wanted:
        yield Finding("warning", "", "", "the classes are in another order than in the label list")


def _coverage_findings(descriptions: DescriptionSet) -> Iterator[Finding]:
    for kind in descriptions.kinds:
        counts = Counter(row.class_name for row in descriptions.rows if row.kind == kind)
        usual = Counter(counts.values()).most_common(1)[0][0]
        for name in descriptions.class_names:
            if not counts[name]:
                yield Finding("error", name, kind, "has no text of this kind")
            elif counts[name] != usual:
                yield Finding("error", name, kind, f"has {counts[name]} texts; most classes have {usual}")


def _masking_findings(descriptions: DescriptionSet) -> Iterator[Finding]:
    for kind in descriptions.kinds:
        rows = [row for row in descriptions.rows if row.kind == kind]
        bare = [row for row in rows if row.masked_text is None]
        if 0 < len(bare) < len(rows):
            yield Finding("error", bare[0].class_name, kind, f"{len(bare)} of {len(rows)} texts have not been masked")


def _contrast_findings(descriptions: DescriptionSet, listed: Sequence[str]) -> Iterator[Finding]:
    known = {normalised_name(name) for name in listed}
    seen = set()
    for row in descriptions.rows:
        if row.contrast_class is None:
            continue
        other = normalised_name(row.contrast_class)
        fault = ""
        if other not in known:
            fault = f"is told from {row.contrast_class!r}, which is no class of the list"
        elif other == normalised_name(row.class_name):
            fault = "is told from itself"
        elif (row.class_id, other) in seen:
            fault = f"is told from {row.contrast_class!r} twice"
        seen.add((row.class_id, other))
        if fault:
            yield Finding("error", row.class_name, row.kind, fault)
        elif leak := find_class_name(row.text, row.contrast_class):
            yield Finding(
                "warning", row.class_name, row.kind, f"{row.text!r} names the class it is told from: {leak!r}"
            )


def _text_findings(text: _Text, lengths: dict[str, int]) -> Iterator[Finding]:
    if text.is_unchanged:
        return  # said of the text itself
    count_tokens = lengths.__getitem__ if lengths else None
    row = text.row
    for fault in text_faults(text.text, kind=row.kind, class_name=row.class_name, count_tokens=count_tokens):
        yield text.finding("error", f"{text.text!r}: {fault}")
    if "  " in text.text:
        yield text.finding("warning", f"{text.text!r}: it has two spaces in a row")
    beyond = "".join(dict.fromkeys(character for character in text.text if not character.isascii()))
    if beyond and not list(_character_faults(text.text)):
        yield text.finding("warning", f"{text.text!r}: it has characters beyond ASCII: {beyond}")


def _duplicates(of_kind: Sequence[_Text], group: Sequence[_Text]) -> list[Finding]:
    """Texts of a kind that are the same as an earlier one of `group` of their kind or class."""
    first: dict[tuple[str, str | int], _Text] = {}
    for text in group:
        for scope in (text.kind, text.row.class_id):
            first.setdefault((normalised_name(text.text), scope), text)
    findings = []
    for text in of_kind:
        earlier = (first[normalised_name(text.text), scope] for scope in (text.kind, text.row.class_id))
        other = next((other for other in earlier if other is not text), text)
        if other is not text and not (text.is_unchanged and other.is_unchanged):
            findings.append(text.finding("error", f"{text.text!r} is also the text of {other.row.name}"))
    return findings


def _near_duplicates(of_kind: Sequence[_Text]) -> list[Finding]:
    """Texts that resemble an earlier one, with the most similar of these."""
    words = [_words(text.text) for text in of_kind]
    grams = [frozenset([*each, *itertools.pairwise(each)]) for each in words]
    sizes = [len(each) for each in grams]
    findings = []
    for place, text in enumerate(of_kind):
        best, nearest = 0.0, text
        own, size = grams[place], sizes[place]
        for before, other in enumerate(of_kind[:place]):
            if size < NEAR_DUPLICATE * sizes[before] or sizes[before] < NEAR_DUPLICATE * size:
                continue  # not even if the longer one held the other whole
            shared = len(own & grams[before])
            similarity = shared / (size + sizes[before] - shared)
            if similarity > best and words[place] != words[before] and not (text.is_unchanged and other.is_unchanged):
                best, nearest = similarity, other
        if best >= NEAR_DUPLICATE:
            said = f"the text of {nearest.row.name}: {nearest.text!r} (similarity {best:.2f})"
            findings.append(text.finding("warning", f"{text.text!r} is nearly {said}"))
    return findings


def _summary(
    of_kind: Sequence[_Text], lengths: dict[str, int], num_classes: int, num_duplicates: int, num_near_duplicates: int
) -> KindSummary:
    longest = max(of_kind, key=lambda text: lengths.get(text.text, 0))
    return KindSummary(
        kind=of_kind[0].kind,
        num_covered=len({text.row.class_id for text in of_kind}),
        num_classes=num_classes,
        num_texts=len(of_kind),
        longest=lengths.get(longest.text),
        longest_class=longest.row.class_name if lengths else "",
        num_duplicates=num_duplicates,
        num_near_duplicates=num_near_duplicates,
        num_leaks=sum(find_class_name(text.text, text.row.class_name) is not None for text in of_kind),
    )


# Words and stems

_IRREGULAR = {
    form: verb
    for verb, forms in {
        "bend": "bent", "blow": "blew blown", "catch": "caught", "die": "died dying", "dive": "dove",
        "draw": "drew drawn", "drink": "drank drunk", "drive": "drove driven", "eat": "ate eaten",
        "fall": "fell fallen", "fly": "flew flown", "hold": "held", "kneel": "knelt", "lie": "lied lying lain",
        "make": "made", "ride": "rode ridden", "run": "ran", "shake": "shook shaken", "shoot": "shot",
        "sing": "sang sung", "sit": "sat", "ski": "skied", "speak": "spoke spoken", "spin": "spun",
        "stand": "stood", "swim": "swam swum", "swing": "swung", "throw": "threw thrown", "tie": "tied tying",
        "write": "wrote written",
    }.items()
    for form in forms.split()
}  # fmt: skip


def _words(text: str) -> list[str]:
    """The words in lower case, without punctuation and brackets; a possessive 's is dropped."""
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", re.sub(r"\([^)]*\)", " ", text))
    return re.findall(r"[^\W_]+", re.sub(r"['’]s\b", "", spaced.casefold()))


def _stem(word: str) -> str:
    """What the inflections of a word share: -s, -ed or -ing is cut off, then a doubled consonant halved or an e cut."""
    word = _IRREGULAR.get(word, word)
    if word.endswith("ies") and len(word) > 4:
        word = word[:-3] + "y"
    elif word.endswith(("sses", "shes", "ches", "xes", "zes")):
        word = word[:-2]
    elif word.endswith("s") and not word.endswith(("ss", "us", "is")) and len(word) > 3:
        word = word[:-1]
    if word.endswith("ied") and len(word) > 4:
        word = word[:-3] + "y"
    for ending in ("ing", "ed"):
        base = word.removesuffix(ending)
        if base != word and len(base) > 2 and re.search("[aeiouy]", base):
            return _without_last(base)
    return _without_last(word)


def _without_last(word: str) -> str:
    if len(word) > 3 and word[-1] == word[-2] and word[-1] not in "aeiou":
        return word[:-1]
    return word[:-1] if len(word) > 3 and word.endswith("e") else word
