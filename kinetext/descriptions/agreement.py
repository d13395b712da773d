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
there is no interval, and a note says so. The name promises more than few texts keep: of 150 simulated studies of two
raters, this share of intervals (of 300 draws) held the truth, where ratings spread over the scale | where 9 of 10 are
the same. Below 20 texts (8: .84 to .89 | .53 to .81) none is given.

                20 texts       51 texts      101 texts
    mean        .92 | .84      .95 | .91     .94 | .89
    percentage  .94 | .93      .93 | .93     .91 | .94
    Cohen       .92 | .68      .95 | .85     .92 | .92
    quadratic   .93 | .68      .95 | .76     .93 | .86
    Fleiss      .91 | .67      .95 | .85     .93 | .93
    alpha       .94 | .69      .96 | .86     .94 | .91

What is counted is `count_answers`'.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, combinations
from typing import Any

import numpy as np
import numpy.typing as npt

from .files import write_atomically
from .rating import CRITERIA, PREFERENCE, SCALE, SIDES, Answer, pair_rows, place_of, text_sha256
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
_FEWEST_TEXTS = 20  # with an interval
_SAME = "undefined: all ratings are the same"

Matrix = npt.NDArray[np.float64]
_Names = tuple[str, str, str]  # label list, set, the set it was compared with if any
_Subject = tuple[object, ...]


@dataclass(frozen=True)
class Measure:
    """A figure and its interval.

    Args:
        value: None if there is none.
        low: lower end of the interval; None if there is none.
        high: upper end; None if there is no lower one.
        note: why there is no figure, or no interval; empty if both are there.
    """

    value: float | None = None
    low: float | None = None
    high: float | None = None
    note: str = ""


@dataclass(frozen=True)
class Agreement:
    """The measures of one question about one set, or about two.

    Args:
        dataset: name of the label list.
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

    dataset: str
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
        answers: one for each rater, question and text; the names of sets that are the same are the first's.
        num_training: of training texts.
        num_replaced: about texts in whose place another counts.
        num_repeated: that the same rater gave anew.
        notes: what whoever reads the figures should know of the files.
    """

    answers: tuple[Answer, ...]
    num_training: int
    num_replaced: int
    num_repeated: int
    notes: tuple[str, ...] = ()


# Which answers count


def count_answers(*files: Iterable[Answer]) -> Counted:
    """Leaves out training, replaced texts and what was answered again; the later answer counts, from whichever file.

    A text is known by its label list, place and words. Sets are one, whatever their names, if they are equal, or have a
    text in common and none that differs; so are two pairs of sets, also the other way round. Of several texts in one
    place of a set, that which most raters answered about counts, and of equals the latest.

    Args:
        files: of each its answers, in its order.
    """
    listed = [list(file) for file in files]
    real = [[answer for answer in file if not answer.is_training] for file in listed]
    ordered = _in_order(real)
    named = _as_first_named(ordered)
    current = _of_current_texts(named)
    last = {(answer.rater, answer.question, _names(answer), _subject(answer)): answer for answer in current}
    return Counted(
        tuple(last.values()),
        num_training=sum(map(len, listed)) - len(named),
        num_replaced=len(named) - len(current),
        num_repeated=len(current) - len(last),
        notes=(*_notes_on_raters(real), *_notes_on_names(ordered, named), *_notes_on_texts(named)),
    )


def _in_order(files: Iterable[Sequence[Answer]]) -> list[Answer]:
    """By time, but those of one file as they stand there, even if the clock was put back."""
    timed: list[tuple[str, Answer]] = []
    for file in files:
        timed += zip(accumulate((answer.answered_at for answer in file), max), file, strict=True)
    return [answer for _, answer in sorted(timed, key=lambda pair: pair[0])]


def _names(answer: Answer) -> _Names:
    return (answer.dataset, answer.set_name, answer.other_set_name or "")


def _place(answer: Answer) -> tuple[object, ...]:
    return (answer.dataset, *place_of(answer))


def _subject(answer: Answer) -> _Subject:
    """What was asked about: one text of a place; or two, whichever was named first, and where that one ranked."""
    if answer.other_text_sha256 is None:
        return (*_place(answer), answer.text_sha256)
    return (*_place(answer)[:-1], frozenset((answer.text_sha256, answer.other_text_sha256)))


def _as_first_named(answers: Sequence[Answer]) -> list[Answer]:
    """The answers in their order; where sets are the same, by the names and the order that were given first."""
    named = list(answers)
    by_names: dict[_Names, list[int]] = defaultdict(list)
    for index, answer in enumerate(answers):
        by_names[_names(answer)].append(index)
    studies: list[list[int]] = []
    for own in by_names.values():
        mine = [named[index] for index in own]
        for study in studies:
            first = [named[index] for index in study]
            if _is_same(first, mine):
                for index, answer in zip(own, _as_named_in(first, mine), strict=True):
                    named[index] = answer
                study += own
                break
        else:
            studies.append(own)
    return named


def _is_same(study: Sequence[Answer], own: Sequence[Answer]) -> bool:
    if _sets(study) & _sets(own):
        return True
    texts, others = _texts_by_place(study), _texts_by_place(own)
    is_common = not {*map(_subject, study)}.isdisjoint(map(_subject, own))
    return is_common and all(texts[place] & others[place] for place in texts.keys() & others.keys())


def _sets(answers: Iterable[Answer]) -> set[frozenset[str | None]]:
    return {frozenset((answer.set_sha256, answer.other_set_sha256)) for answer in answers}


def _texts_by_place(answers: Iterable[Answer]) -> dict[tuple[object, ...], set[_Subject]]:
    texts: dict[tuple[object, ...], set[_Subject]] = defaultdict(set)
    for answer in answers:
        texts[(answer.question == PREFERENCE, *_place(answer))].add(_subject(answer))
    return texts


def _as_named_in(study: Sequence[Answer], own: Sequence[Answer]) -> list[Answer]:
    first = {_subject(answer): answer.text_sha256 for answer in study}
    others = {answer.other_set_sha256 for answer in study}
    is_turned = any(
        answer.set_sha256 in others or first.get(_subject(answer), "") == answer.other_text_sha256 for answer in own
    )
    name, other = study[0].set_name, study[0].other_set_name
    turned = map(_turned, own) if is_turned else own
    return [dataclasses.replace(answer, set_name=name, other_set_name=other) for answer in turned]


def _turned(answer: Answer) -> Answer:
    """The same choice, had the other set been named first."""
    turned = dict(zip(SIDES, reversed(SIDES), strict=True))
    assert answer.other_set_sha256 is not None and answer.other_text_sha256 is not None
    return dataclasses.replace(
        answer,
        set_sha256=answer.other_set_sha256,
        other_set_sha256=answer.set_sha256,
        text_sha256=answer.other_text_sha256,
        other_text_sha256=answer.text_sha256,
        value=turned[str(answer.value)],
        left=turned[str(answer.left)],
    )


def _of_current_texts(answers: Sequence[Answer]) -> list[Answer]:
    raters: dict[tuple[object, ...], set[str]] = defaultdict(set)
    for answer in answers:
        raters[(_names(answer), _subject(answer))].add(answer.rater)
    current: dict[tuple[object, ...], _Subject] = {}
    for answer in answers:
        names, place, subject = _names(answer), _place(answer), _subject(answer)
        rival = current.get((names, place), subject)
        if len(raters[(names, subject)]) >= len(raters[(names, rival)]):
            current[(names, place)] = subject
    return [answer for answer in answers if current[(_names(answer), _place(answer))] == _subject(answer)]


def _notes_on_raters(files: Iterable[Sequence[Answer]]) -> Iterator[str]:
    in_files = Counter(key for file in files for key in {(one.rater, one.question, _subject(one)) for one in file})
    twice = Counter(rater for (rater, _, _), number in in_files.items() if number > 1)
    for rater, number in twice.items():
        yield (
            f"{rater} answered {number} questions in more than one file, and the later answers count. If these are "
            "two people, give each an id of his own in one of the files."
        )


def _notes_on_names(ordered: Iterable[Answer], named: Iterable[Answer]) -> Iterator[str]:
    pairs = dict.fromkeys((_names(old), _names(new)) for old, new in zip(ordered, named, strict=True))
    for old, new in pairs:
        if old != new:
            yield f"{_spoken(old)} counts as {_spoken(new)}: the texts are the same."


def _notes_on_texts(named: Sequence[Answer]) -> Iterator[str]:
    subjects: dict[_Names, set[_Subject]] = defaultdict(set)
    by_place: dict[_Names, dict[tuple[object, ...], set[_Subject]]] = defaultdict(lambda: defaultdict(set))
    for answer in named:
        subjects[_names(answer)].add(_subject(answer))
        by_place[_names(answer)][_place(answer)].add(_subject(answer))
    for study, places in by_place.items():
        mixed = sum(len(texts) > 1 for texts in places.values())
        if mixed:
            yield (
                f"{_spoken(study)}: the texts of {mixed} places were not the same for all answers. In each that counts "
                "about which most raters answered, and of equals the latest."
            )
    for one, other in combinations(subjects, 2):
        common = len(subjects[one] & subjects[other])
        if common:
            names = f"{_spoken(one)} and {_spoken(other)}"
            yield f"{names} have {common} texts in common and are kept apart, since others differ."


def _spoken(names: _Names) -> str:
    _, name, other = names
    return f"{name} against {other}" if other else name


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
    groups: dict[tuple[_Names, int], list[Answer]] = defaultdict(list)
    order = [*(criterion.name for criterion in CRITERIA), PREFERENCE]
    for answer in answers:
        groups[(_names(answer), order.index(answer.question))].append(answer)
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
        dataset=first.dataset,
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
    texts = {subject: column for column, subject in enumerate(dict.fromkeys(map(_subject, answers)))}
    matrix = np.full((len(raters), len(texts)), np.nan)
    for answer in answers:
        value = SIDES.index(answer.value) if isinstance(answer.value, str) else answer.value
        matrix[raters[answer.rater], texts[_subject(answer)]] = value
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
        ValueError: the matrix has another shape, no value, or one that is none of these.
    """
    _check_libraries()
    ratings: Matrix = np.asarray(matrix, dtype=np.float64)
    _check_matrix(ratings, is_choice)
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
    if num_texts < _FEWEST_TEXTS:
        return Measure(value, note=f"no interval: fewer than {_FEWEST_TEXTS} texts")
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


def _check_matrix(ratings: Matrix, is_choice: bool) -> None:
    values = ratings[~np.isnan(ratings)]
    if ratings.ndim != 2 or not values.size:
        raise ValueError(f"the matrix has shape {ratings.shape} and {values.size} values; wanted is (raters, texts).")
    wrong = values[(values < 0) | (values != np.round(values)) if is_choice else ~np.isin(values, SCALE)]
    if wrong.size:
        allowed = "a category, counted from 0" if is_choice else f"one of {', '.join(map(str, SCALE))}"
        raise ValueError(f"{wrong[0]:g} in the matrix is not {allowed}; missing values are NaN.")


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
    """(values, values) texts by the ratings of the first and of the second rater; unused ones change no kappa."""
    first, second = ratings.astype(np.int64)
    size = int(ratings.max()) + 1
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
    by_pair: dict[_Subject, dict[str, Answer]] = defaultdict(dict)
    for answer in answers:
        if answer.question == PREFERENCE:
            by_pair[_subject(answer)][answer.rater] = answer
    votes = []
    for by_rater in by_pair.values():
        about = next(iter(by_rater.values()))
        num_a = sum(_chosen(answer) == about.text_sha256 for answer in by_rater.values())
        votes.append(Vote(about, num_a=num_a, num_b=len(by_rater) - num_a))
    return votes


def _chosen(answer: Answer) -> str | None:
    """Hash of the text."""
    return answer.text_sha256 if answer.value == SIDES[0] else answer.other_text_sha256


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
        first: the set whose texts stay where there is no majority.
        second: the set it was compared with, or that was compared with it.
        answers: as `count_answers` leaves them.

    Raises:
        ValueError: no vote is about texts of these two sets as they are now.
    """
    votes = {_subject(vote.about): vote for vote in take_votes(answers)}
    partners = {row.key: other for row, other in pair_rows(first, second)}
    rows: list[DescriptionRow] = []
    ties: list[Vote] = []
    unvoted: list[DescriptionRow] = []
    wins = [0, 0]
    for row in first.rows:
        other = partners.get(row.key, row)
        texts = (text_sha256(row.text), text_sha256(other.text))
        vote = votes.get((row.dataset, *place_of(row)[:-1], frozenset(texts)))
        rows.append(row)
        if vote is None:
            unvoted += [row] if other.text != row.text else []
        elif vote.winner is None:
            ties.append(vote)
        else:
            is_second = (vote.winner == SIDES[1]) == (vote.about.text_sha256 == texts[0])
            wins[is_second] += 1
            rows[-1] = _in_place_of(row, other) if is_second else row
    if not ties and not any(wins):
        raise ValueError("no vote is about the texts of these two sets; rate texts that have changed again.")
    return Selection(
        DescriptionSet(tuple(rows)),
        num_first=wins[0],
        num_second=wins[1],
        ties=tuple(ties),
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
        "notes": counted.notes,
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
    names = ("dataset", "set_name", "other_set_name", "class_name", "kind", "contrast_class", "rank")
    about = {name: getattr(vote.about, name) for name in names}
    return {**about, "num_a": vote.num_a, "num_b": vote.num_b, "winner": vote.winner}
