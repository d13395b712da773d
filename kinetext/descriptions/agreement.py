"""Whether raters agree, what they think of the texts, and which of two sets they prefer.

Measures, of each criterion and of the choice between two sets:

- mean of all ratings, as Devaraj et al. report it;
- percentage agreement, their IAA: of the texts that two or more rated, the percentage on which all their raters gave
  the same rating. With two raters that is the paper's share of descriptions with identical ratings; with more it is
  stricter (every one of them the same), so it falls with the number of raters;
- Cohen's kappa of two raters, also with quadratic weights (Cohen 1960, 1968), over the texts both rated;
- Fleiss' kappa (1971), over the texts that all raters rated;
- Krippendorff's alpha, ordinal for ratings and nominal for choices, over the texts that two or more rated.

Intervals are percentile bootstraps over texts: of `NUM_RESAMPLES` draws of as many texts with replacement, all ratings
of a text together, the middle 95 %. A draw in which a measure is undefined is left out; if that is more than 1 of 20,
there is no interval, and a note says so. Of training texts, answers given again, and texts replaced since (of one place
in a set, only the text that was asked about last) nothing is counted.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from .files import write_atomically
from .rating import CRITERIA, PREFERENCE, SCALE, SIDES, Answer, Item, pair_rows, place_of
from .schema import DescriptionRow, DescriptionSet

__all__ = [
    "CONFIDENCE",
    "NUM_RESAMPLES",
    "Agreement",
    "Counted",
    "Measure",
    "Selection",
    "Vote",
    "count_answers",
    "measure_agreement",
    "measure_matrix",
    "select_preferred",
    "take_votes",
    "write_json",
]

NUM_RESAMPLES = 2000
CONFIDENCE = 0.95

_MAX_UNDEFINED = 0.05  # of the draws; with more, the interval would be of the fortunate ones
_SAME = "undefined: all ratings are the same"

Matrix = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Measure:
    """A figure and its interval, or why there is none.

    Args:
        value: None if `note` says why.
        low: lower end of the interval; None if `note` says why.
        high: upper end.
        note: empty if all is there.
    """

    value: float | None = None
    low: float | None = None
    high: float | None = None
    note: str = ""


@dataclass(frozen=True)
class Agreement:
    """The measures of one question about one set, or about two.

    Args:
        set_name: of the set.
        other_set_name: what it was compared with; None for ratings.
        question: the criterion, or `preference`.
        num_raters: with an answer that counts.
        num_texts: with an answer that counts; of pairs for a choice.
        num_shared: texts that two or more raters answered about.
        num_complete: texts that all of them answered about.
        num_answers: that count.
        mean: of ratings, 1 to 5.
        percentage: of shared texts with identical answers, 0 to 100.
        cohen: Cohen's kappa.
        cohen_quadratic: the same with quadratic weights.
        fleiss: Fleiss' kappa.
        alpha: Krippendorff's.
    """

    set_name: str
    other_set_name: str | None
    question: str
    num_raters: int
    num_texts: int
    num_shared: int
    num_complete: int
    num_answers: int
    mean: Measure
    percentage: Measure
    cohen: Measure
    cohen_quadratic: Measure
    fleiss: Measure
    alpha: Measure


@dataclass(frozen=True)
class Counted:
    """The answers that count, and how many do not.

    Args:
        answers: one for each rater, question and text.
        num_training: of training texts.
        num_replaced: about texts in whose place another was rated since.
        num_repeated: that the same rater gave anew.
    """

    answers: tuple[Answer, ...]
    num_training: int
    num_replaced: int
    num_repeated: int


# Which answers count


def count_answers(answers: Iterable[Answer]) -> Counted:
    """Leaves out training, replaced texts and what was answered again; the later answer counts, from whichever file."""
    everything = sorted(answers, key=lambda answer: answer.answered_at)
    real = [answer for answer in everything if not answer.is_training]
    newest = {_place(answer): _texts(answer) for answer in real}
    current = [answer for answer in real if newest[_place(answer)] == _texts(answer)]
    last = {(answer.rater, answer.question, _place(answer)): answer for answer in current}
    return Counted(
        tuple(last.values()),
        num_training=len(everything) - len(real),
        num_replaced=len(real) - len(current),
        num_repeated=len(current) - len(last),
    )


def _place(answer: Answer) -> tuple[object, ...]:
    return (answer.dataset, answer.set_name, answer.other_set_name, *place_of(answer))


def _texts(answer: Answer) -> tuple[str, str | None]:
    return (answer.text_sha256, answer.other_text_sha256)


# Agreement


def measure_agreement(
    answers: Iterable[Answer], *, seed: int = 0, num_resamples: int = NUM_RESAMPLES
) -> list[Agreement]:
    """The measures of every set (or pair of sets) and question, in that order.

    Args:
        answers: as `count_answers` leaves them.
        seed: of the draws.
        num_resamples: number of draws.

    Raises:
        ValueError: there are no answers.
    """
    groups: dict[tuple[str, str, int], list[Answer]] = defaultdict(list)
    order = [*(criterion.name for criterion in CRITERIA), PREFERENCE]
    for answer in answers:
        groups[(answer.set_name, answer.other_set_name or "", order.index(answer.question))].append(answer)
    if not groups:
        raise ValueError(
            "there are no answers that count; training texts do not. Rate first: `kinetext describe rate`."
        )
    return [_agreement(groups[key], seed, num_resamples) for key in sorted(groups)]


def _agreement(answers: list[Answer], seed: int, num_resamples: int) -> Agreement:
    first = answers[0]
    matrix = _matrix(answers)
    counts = np.isfinite(matrix).sum(axis=0)
    return Agreement(
        set_name=first.set_name,
        other_set_name=first.other_set_name,
        question=first.question,
        num_raters=len(matrix),
        num_texts=len(counts),
        num_shared=int((counts >= 2).sum()),
        num_complete=int((counts == len(matrix)).sum()),
        num_answers=int(counts.sum()),
        **measure_matrix(matrix, is_choice=first.question == PREFERENCE, seed=seed, num_resamples=num_resamples),
    )


def _matrix(answers: Sequence[Answer]) -> Matrix:
    """(raters, texts) of 1 to 5, or of 0 and 1 for the sides of a choice; NaN where a rater gave no answer."""
    raters = {rater: row for row, rater in enumerate(sorted({answer.rater for answer in answers}))}
    places = {place: column for column, place in enumerate(dict.fromkeys(map(_place, answers)))}
    matrix = np.full((len(raters), len(places)), np.nan)
    for answer in answers:
        value = SIDES.index(answer.value) if isinstance(answer.value, str) else answer.value
        matrix[raters[answer.rater], places[_place(answer)]] = value
    return matrix


def measure_matrix(
    matrix: npt.ArrayLike, *, is_choice: bool = False, seed: int = 0, num_resamples: int = NUM_RESAMPLES
) -> dict[str, Measure]:
    """The measures of one question, by the names that `Agreement` gives them.

    Args:
        matrix: (raters, texts) of ratings 1 to 5, or of categories counted from 0 if `is_choice`; NaN where missing.
        is_choice: whether the values have no order.
        seed: of the draws; each measure starts from it, so none depends on the others.
        num_resamples: number of draws.

    Raises:
        ImportError: krippendorff or statsmodels is not installed.
    """
    _check_libraries()
    ratings: Matrix = np.asarray(matrix, dtype=np.float64)
    counts = np.isfinite(ratings).sum(axis=0)
    shared, complete = ratings[:, counts >= 2], ratings[:, counts == len(ratings)]

    def interval_of(statistic: Callable[[Matrix], float], used: Matrix, *, needs_variation: bool = False) -> Measure:
        generator = np.random.default_rng(seed)
        return _with_interval(statistic, used, generator, num_resamples, needs_variation=needs_variation)

    def kappa_of(statistic: Callable[[Matrix], float], used: Matrix, missing: str) -> Measure:
        if missing:
            return Measure(note=missing)
        return Measure(note=_SAME) if _is_constant(used) else interval_of(statistic, used, needs_variation=True)

    one = "needs two raters" if len(ratings) < 2 else ""
    unshared = one or ("" if shared.size else "needs a text that two raters rated")
    incomplete = one or ("" if complete.size else "needs a text that all raters rated")
    pair = one or ("of two raters; see Fleiss' kappa" if len(ratings) > 2 else incomplete)
    return {
        "mean": Measure(note="a choice has no mean; see the votes") if is_choice else interval_of(np.nanmean, ratings),
        "percentage": Measure(note=unshared) if unshared else interval_of(_percentage, shared),
        "cohen": kappa_of(_cohen, complete, pair),
        "cohen_quadratic": kappa_of(_cohen_quadratic, complete, "a choice has no order" if is_choice else pair),
        "fleiss": kappa_of(_fleiss, complete, incomplete),
        "alpha": kappa_of(_alpha_nominal if is_choice else _alpha_ordinal, shared, unshared),
    }


def _with_interval(
    statistic: Callable[[Matrix], float],
    ratings: Matrix,
    generator: np.random.Generator,
    num_resamples: int,
    *,
    needs_variation: bool,
) -> Measure:
    value = float(statistic(ratings))
    num_texts = ratings.shape[1]
    if num_texts < 2:
        return Measure(value, note="an interval needs two texts")
    draws = (ratings[:, generator.integers(num_texts, size=num_texts)] for _ in range(num_resamples))
    values = [float(statistic(draw)) for draw in draws if not (needs_variation and _is_constant(draw))]
    undefined = num_resamples - len(values)
    if undefined > _MAX_UNDEFINED * num_resamples:
        share = f"{undefined} of {num_resamples} draws"
        return Measure(value, note=f"no interval: all ratings are the same in {share}")
    low, high = np.quantile(values, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Measure(value, float(low), float(high))


def _check_libraries() -> None:
    try:
        import krippendorff  # noqa: F401
        import statsmodels  # noqa: F401
    except ImportError as error:
        raise ImportError(
            "measuring agreement needs krippendorff and statsmodels; install them with: pip install "
            "'kinetext[descriptions]'"
        ) from error


def _is_constant(ratings: Matrix) -> bool:
    return bool(np.nanmin(ratings) == np.nanmax(ratings))


def _percentage(ratings: Matrix) -> float:
    return 100 * float((np.nanmin(ratings, axis=0) == np.nanmax(ratings, axis=0)).mean())


def _cohen(ratings: Matrix) -> float:
    from statsmodels.stats.inter_rater import cohens_kappa

    return cohens_kappa(_contingency(ratings), return_results=False)


def _cohen_quadratic(ratings: Matrix) -> float:
    from statsmodels.stats.inter_rater import cohens_kappa

    return cohens_kappa(_contingency(ratings), wt="quadratic", return_results=False)


def _contingency(ratings: Matrix) -> npt.NDArray[np.int64]:
    """(6, 6) texts by the ratings of the first and of the second rater; unused ratings change no kappa."""
    size = SCALE[-1] + 1
    first, second = ratings.astype(np.int64)
    return np.bincount(first * size + second, minlength=size * size).reshape(size, size)


def _fleiss(ratings: Matrix) -> float:
    from statsmodels.stats.inter_rater import fleiss_kappa

    return fleiss_kappa(_value_counts(ratings))


def _alpha_ordinal(ratings: Matrix) -> float:
    return _alpha(ratings, "ordinal")


def _alpha_nominal(ratings: Matrix) -> float:
    return _alpha(ratings, "nominal")


def _alpha(ratings: Matrix, level: Any) -> float:
    import krippendorff

    return krippendorff.alpha(value_counts=_value_counts(ratings), level_of_measurement=level)


def _value_counts(ratings: Matrix) -> npt.NDArray[np.int64]:
    """(texts, values) raters who gave each text each value."""
    values = np.arange(np.nanmin(ratings), np.nanmax(ratings) + 1)
    return (ratings.T[..., None] == values).sum(axis=1)


# The choice between two sets


@dataclass(frozen=True)
class Vote:
    """What the raters chose between two texts.

    Args:
        about: one of their answers, for what it was asked about.
        num_a: raters for the text of `about.set_name`.
        num_b: raters for the text of `about.other_set_name`.
    """

    about: Answer
    num_a: int
    num_b: int

    @property
    def winner(self) -> str | None:
        """The one of `SIDES` with more votes; None if they are even."""
        if self.num_a == self.num_b:
            return None
        return SIDES[0] if self.num_a > self.num_b else SIDES[1]


def take_votes(answers: Iterable[Answer]) -> list[Vote]:
    """One vote for every pair of texts that raters chose from, in the order in which they were first answered.

    Args:
        answers: as `count_answers` leaves them; ratings among them are passed over.
    """
    by_pair: dict[str, dict[str, Answer]] = defaultdict(dict)
    for answer in answers:
        if answer.question == PREFERENCE:
            by_pair[answer.item_id][answer.rater] = answer
    votes = []
    for by_rater in by_pair.values():
        counts = Counter(answer.value for answer in by_rater.values())
        votes.append(Vote(next(iter(by_rater.values())), num_a=counts[SIDES[0]], num_b=counts[SIDES[1]]))
    return votes


@dataclass(frozen=True)
class Selection:
    """The preferred texts of two sets as one set.

    Args:
        rows: those of the first set, except where the other's won.
        num_first: pairs that the first set won.
        num_second: pairs that the other won.
        ties: pairs with even votes, which keep the first set's text.
        unvoted: rows of the first set whose pair nobody voted on, which keep it too.
        num_equal: pairs of equal texts.
        num_alone: rows of the first set without a partner in the other, which it keeps.
    """

    rows: DescriptionSet
    num_first: int
    num_second: int
    ties: tuple[Vote, ...]
    unvoted: tuple[DescriptionRow, ...]
    num_equal: int
    num_alone: int


def select_preferred(first: DescriptionSet, second: DescriptionSet, answers: Iterable[Answer]) -> Selection:
    """The first set with those texts of the second that most raters preferred.

    A text replaces another only by a majority: on even votes, and where nobody voted, the first set's stays, and is
    listed. A row that is taken over keeps how it was made (provider, model, prompt, date), and gets the name, id and
    rank of its class in the first set.

    Args:
        first: the set named first when the raters chose.
        second: the set it was compared with.
        answers: as `count_answers` leaves them.

    Raises:
        ValueError: no vote is about texts of these two sets, so that they changed or were named the other way round.
    """
    votes = {vote.about.item_id: vote for vote in take_votes(answers)}
    partners = {row.key: other for row, other in pair_rows(first, second)}
    rows: list[DescriptionRow] = []
    found: list[Vote] = []
    unvoted: list[DescriptionRow] = []
    for row in first.rows:
        other = partners.get(row.key, row)
        vote = votes.get(Item(row, other).id)
        if vote is not None:
            found.append(vote)
        elif other.text != row.text:
            unvoted.append(row)
        rows.append(_in_place_of(row, other) if vote is not None and vote.winner == SIDES[1] else row)
    if not found:
        raise ValueError(
            "no vote is about the texts of these two sets; name them in the order in which they were compared, "
            "and rate texts that have changed again."
        )
    winners = Counter(vote.winner for vote in found)
    return Selection(
        DescriptionSet(tuple(rows)),
        num_first=winners[SIDES[0]],
        num_second=winners[SIDES[1]],
        ties=tuple(vote for vote in found if vote.winner is None),
        unvoted=tuple(unvoted),
        num_equal=sum(partners[row.key].text == row.text for row in first.rows if row.key in partners),
        num_alone=len(first.rows) - len(partners),
    )


def _in_place_of(row: DescriptionRow, other: DescriptionRow) -> DescriptionRow:
    names = ("dataset", "class_id", "class_name", "contrast_class", "rank")
    return dataclasses.replace(other, **{name: getattr(row, name) for name in names})


def write_json(
    path: str | os.PathLike[str],
    counted: Counted,
    measured: Sequence[Agreement],
    votes: Sequence[Vote],
    *,
    seed: int = 0,
    num_resamples: int = NUM_RESAMPLES,
) -> None:
    """Writes every figure, what was not counted, and how the intervals were made."""
    content = {
        "not_counted": {
            "training": counted.num_training,
            "replaced": counted.num_replaced,
            "repeated": counted.num_repeated,
        },
        "intervals": {
            "method": "percentile bootstrap over texts",
            "confidence": CONFIDENCE,
            "num_resamples": num_resamples,
            "seed": seed,
        },
        "agreement": [dataclasses.asdict(one) for one in measured],
        "votes": [_vote_record(vote) for vote in votes],
    }
    write_atomically(path, (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode())


def _vote_record(vote: Vote) -> dict[str, object]:
    names = ("set_name", "other_set_name", "class_name", "kind", "contrast_class", "rank")
    about = {name: getattr(vote.about, name) for name in names}
    return {**about, "num_a": vote.num_a, "num_b": vote.num_b, "winner": vote.winner}
