"""How long descriptions are and how much happens in them: sentences, words, verbs and tokens of each kind.

The figures are those that Devaraj et al. print of their sets (chinmayad/motiondescriptions, "User_Study_Dataset
Statistics"): descriptions, words and verbs per description, verbs in all.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from .schema import DescriptionSet

__all__ = ["KindStatistics", "count_sentences", "count_verbs", "kind_statistics"]

_SENTENCE_END = re.compile(r"[.!?]+(?=\s|$)")
_TOKEN = re.compile(r"\w+(?:[-'’]\w+)*|[^\w\s]")  # a word with its hyphens and apostrophes, or a punctuation mark


@dataclass(frozen=True)
class KindStatistics:
    """The texts of one kind in numbers.

    Args:
        kind: one of `KINDS`, with " (masked)" after it for the masked texts.
        num_texts: how many there are.
        sentences: per text, on average (`count_sentences`).
        words: per text, on average; words are what white space separates.
        fewest_words: of a text.
        most_words: of a text.
        num_verbs: in all texts together (`count_verbs`).
        longest: tokens of the longest text, start and end token included; None if tokens were not counted.
    """

    kind: str
    num_texts: int
    sentences: float
    words: float
    fewest_words: int
    most_words: int
    num_verbs: int
    longest: int | None

    @property
    def verbs(self) -> float:
        """Verbs per text, on average."""
        return self.num_verbs / self.num_texts


def kind_statistics(
    descriptions: DescriptionSet, *, count_tokens: Callable[[str], int] | None = None
) -> tuple[KindStatistics, ...]:
    """The numbers of each kind of a set, the masked texts of a kind after its texts if masking changed any.

    Args:
        descriptions: N classes.
        count_tokens: of `validate.load_token_counter`; without it tokens are not counted.

    Raises:
        ImportError: HanTa, which finds the verbs, is not installed.
    """
    summaries = []
    for kind in descriptions.kinds:
        rows = [row for row in descriptions.rows if row.kind == kind]
        summaries.append(_statistics(kind, [row.text for row in rows], count_tokens))
        masked = [row.masked_text for row in rows if row.masked_text is not None]
        if any(row.masked_text not in (None, row.text) for row in rows):
            summaries.append(_statistics(f"{kind} (masked)", masked, count_tokens))
    return tuple(summaries)


def count_sentences(text: str) -> int:
    """Full stops, exclamation and question marks before a space or the end; one more if text follows the last."""
    ends = list(_SENTENCE_END.finditer(text))
    rest = text[ends[-1].end() :] if ends else text
    return len(ends) + bool(rest.strip())


def count_verbs(text: str) -> int:
    """The words that the part-of-speech tagger HanTa tags as verbs, auxiliaries included.

    Against the published counts of the released motion descriptions (taggers differ, and the published one is not
    named): HMDB-51 164 of 164, UCF-101 335 of 325, Kinetics-400 1484 of 1371.

    Raises:
        ImportError: HanTa is not installed.
    """
    tagged = _tagger().tag_sent(_TOKEN.findall(text))
    return sum(tag.startswith("V") for _, _, tag in tagged)  # C5 tags of the British National Corpus: VVG, VBZ, ...


@cache
def _tagger() -> Any:
    try:
        from HanTa.HanoverTagger import HanoverTagger
    except ImportError as error:
        raise ImportError(
            "counting verbs needs HanTa; install it with: pip install 'kinetext[descriptions]'"
        ) from error
    return HanoverTagger("morphmodel_en.pgz")  # comes with the package


def _statistics(kind: str, texts: Sequence[str], count_tokens: Callable[[str], int] | None) -> KindStatistics:
    words = [len(text.split()) for text in texts]
    return KindStatistics(
        kind=kind,
        num_texts=len(texts),
        sentences=sum(map(count_sentences, texts)) / len(texts),
        words=sum(words) / len(words),
        fewest_words=min(words),
        most_words=max(words),
        num_verbs=sum(map(count_verbs, texts)),
        longest=None if count_tokens is None else max(map(count_tokens, texts)),
    )
