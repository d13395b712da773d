"""Agreement of raters: worked examples of the literature, the paper's IAA, what is undefined, votes and selection."""

import json
import math
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from testing_utils import run_cli
from typer.testing import Result

from kinetext.descriptions import load_description_set, load_descriptions
from kinetext.descriptions.agreement import (
    Measure,
    count_answers,
    measure_agreement,
    measure_matrix,
    select_preferred,
    take_votes,
)
from kinetext.descriptions.files import write_jsonl
from kinetext.descriptions.rating import Answer, text_sha256
from kinetext.descriptions.schema import DescriptionRow, DescriptionSet
from kinetext.hub_cards.dataset_card import dataset_card

NAN = math.nan

# Krippendorff, "Computing Krippendorff's Alpha-Reliability" (2011), section C: 4 observers, 12 units, values missing.
KRIPPENDORFF = [
    [1, 2, 3, 3, 2, 1, 4, 1, 2, NAN, NAN, NAN],
    [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, NAN, 3],
    [NAN, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, NAN],
    [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, NAN],
]


def by_table(table: list[list[int]]) -> np.ndarray:
    """(2, items) ratings from 1 of which `table` counts each pair: first rater in rows, second in columns."""
    counts = np.asarray(table)
    first, second = np.indices(counts.shape)
    return np.stack([np.repeat(first.ravel(), counts.ravel()), np.repeat(second.ravel(), counts.ravel())]) + 1


def by_counts(counts: list[list[int]]) -> np.ndarray:
    """(raters, items) ratings from 1 of which `counts` says how many raters gave each item each value."""
    return np.array([np.repeat(np.arange(1, len(row) + 1), row) for row in counts]).T


def values(matrix: object, *, is_choice: bool = False) -> dict[str, float | None]:
    measured = measure_matrix(matrix, is_choice=is_choice, num_resamples=1)  # type: ignore[arg-type]
    return {name: measure.value for name, measure in measured.items()}


# Worked examples


@pytest.mark.parametrize(("is_choice", "alpha"), [(True, 0.743), (False, 0.815)], ids=["nominal", "ordinal"])
def test_krippendorffs_four_observers_with_missing_values(is_choice: bool, alpha: float) -> None:
    assert values(KRIPPENDORFF, is_choice=is_choice)["alpha"] == pytest.approx(alpha, abs=5e-4)


@pytest.mark.parametrize(
    ("first", "second", "alpha"),
    [
        ("0100000010", "1110010000", 0.095),  # the same paper, section A: Meg and Owen
        ("001132224330", "101112224333", 0.692),  # section B: Ben and Gerry, with a to e as 0 to 4
    ],
)
def test_krippendorffs_two_observers(first: str, second: str, alpha: float) -> None:
    matrix = [[int(value) for value in first], [int(value) for value in second]]
    assert values(matrix, is_choice=True)["alpha"] == pytest.approx(alpha, abs=5e-4)


@pytest.mark.parametrize(
    ("table", "kappa", "quadratic"),
    [
        # Fleiss, Levin & Paik, Statistical Methods for Rates and Proportions, 3rd ed., table 18.1: (.89 - .66) / .34.
        ([[75, 1, 4], [5, 4, 1], [0, 0, 10]], 0.676, None),
        # Artstein & Poesio, Inter-Coder Agreement for Computational Linguistics (2008), table 1.
        ([[20, 20], [10, 50]], 0.348, 0.348),
        # scikit-learn's test of cohen_kappa_score ("weighting example"), which has the same tables.
        ([[46, 0, 0], [4, 40, 0], [0, 0, 10]], 0.9315, 0.9541),
        # The 2 x 2 example of Wikipedia's article on Cohen's kappa.
        ([[20, 5], [10, 15]], 0.4, 0.4),
    ],
)
def test_cohens_kappa_of_worked_tables(table: list[list[int]], kappa: float, quadratic: float | None) -> None:
    found = values(by_table(table))
    assert found["cohen"] == pytest.approx(kappa, abs=5e-4)
    if quadratic is not None:
        assert found["cohen_quadratic"] == pytest.approx(quadratic, abs=5e-4)


def test_quadratic_kappa_equals_its_form_by_moments() -> None:
    # Fleiss & Cohen (1973): 1 - E(x - y)² / (var x + var y + (mean x - mean y)²).
    first, second = np.array([[1, 2, 2, 5, 4, 3, 3], [1, 3, 2, 4, 4, 1, 5]])
    expected = 1 - ((first - second) ** 2).mean() / (first.var() + second.var() + (first.mean() - second.mean()) ** 2)
    assert values([first, second])["cohen_quadratic"] == pytest.approx(expected)


def test_fleiss_kappa_of_ten_subjects_and_fourteen_raters() -> None:
    # The worked example of Wikipedia's article on Fleiss' kappa: 0.210.
    counts = [
        [0, 0, 0, 0, 14],
        [0, 2, 6, 4, 2],
        [0, 0, 3, 5, 6],
        [0, 3, 9, 2, 0],
        [2, 2, 8, 1, 1],
        [7, 7, 0, 0, 0],
        [3, 2, 6, 3, 0],
        [2, 5, 3, 2, 2],
        [6, 5, 2, 1, 0],
        [0, 2, 2, 3, 7],
    ]
    assert values(by_counts(counts))["fleiss"] == pytest.approx(0.210, abs=5e-4)


def test_fleiss_kappa_of_thirty_patients_and_six_psychiatrists() -> None:
    # Fleiss, Measuring Nominal Scale Agreement among Many Raters (1971), table 1: 0.430.
    patients = (
        "444444 222555 233335 555555 222444 113333 333355 113334 114444 555555 144444 124444 222333 144444 224445 "
        "333335 111455 111112 224444 133555 555555 244444 224555 114444 144445 222224 111155 224444 133333 555555"
    )
    matrix = np.array([[int(value) for value in patient] for patient in patients.split()]).T
    assert matrix.shape == (6, 30)
    assert values(matrix)["fleiss"] == pytest.approx(0.430, abs=5e-4)


def test_mean_and_percentage_of_a_small_table() -> None:
    # The paper's IAA: the share of descriptions with identical ratings; here the second, third and fifth of 6.
    found = values([[1, 2, 3, 4, 5, 5], [2, 2, 3, 5, 5, 4]])
    assert found["percentage"] == pytest.approx(50)
    assert found["mean"] == pytest.approx(41 / 12)


def test_percentage_of_three_raters_wants_all_alike_and_leaves_out_what_one_rated() -> None:
    found = values([[1, 2, 3, 4, 5], [1, 2, NAN, 4, NAN], [1, 3, 3, NAN, NAN]])
    assert found["percentage"] == pytest.approx(75)  # of the first four texts, all but the second
    assert found["mean"] == pytest.approx(29 / 11)
    assert found["fleiss"] is not None and found["cohen"] is None


@pytest.mark.parametrize(
    ("matrix", "is_choice", "message"),
    [
        ([[1, 2], [1, 9]], False, "9 in the matrix is not one of 1, 2, 3, 4, 5"),
        ([[1, 2.5], [1, 2]], False, "2.5 in the matrix"),
        ([[0, -1], [0, 1]], True, "-1 in the matrix is not a category"),
        ([[NAN, NAN], [NAN, NAN]], False, "0 values"),
        ([1, 2, 3], False, r"wanted is \(raters, texts\)"),
    ],
)
def test_other_matrices_are_refused(matrix: object, is_choice: bool, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        measure_matrix(matrix, is_choice=is_choice)  # type: ignore[arg-type]


def test_categories_beyond_the_scale_are_told_apart() -> None:
    assert values([[0, 6, 9, 9], [0, 6, 9, 6]], is_choice=True)["cohen"] == pytest.approx(0.6364, abs=5e-4)


# What is undefined says so


def test_all_ratings_the_same() -> None:
    found = measure_matrix([[1] * 20, [1] * 20])
    assert found["mean"] == Measure(1, 1, 1)
    assert found["percentage"] == Measure(100, 100, 100)
    for name in ("cohen", "cohen_quadratic", "fleiss", "alpha"):
        assert found[name] == Measure(note="undefined: all ratings are the same")


def test_one_rater_has_a_mean_and_nothing_else() -> None:
    found = measure_matrix([[1, 2, 4]])
    assert found.pop("mean").value == pytest.approx(7 / 3)
    assert set(found.values()) == {Measure(note="needs two raters")}


def test_raters_without_a_text_in_common() -> None:
    found = measure_matrix([[1, 2, NAN, NAN], [NAN, NAN, 3, 3]])
    assert found["mean"].value == pytest.approx(9 / 4)
    assert found["percentage"].note == found["alpha"].note == "needs a text that two raters rated"
    assert found["cohen"].note == found["fleiss"].note == "needs a text that all raters rated"


def test_a_choice_has_no_mean_and_no_order_and_three_raters_have_no_cohen() -> None:
    assert values([[0, 1, 1], [0, 0, 1]], is_choice=True)["mean"] is None
    assert values([[0, 1, 1], [0, 0, 1]], is_choice=True)["cohen_quadratic"] is None
    assert measure_matrix([[1, 2], [2, 2], [1, 3]])["cohen"].note.startswith("of two raters; see Fleiss")


def test_no_interval_where_too_many_draws_are_undefined() -> None:
    found = measure_matrix([[1] * 19 + [2], [1] * 19 + [2]])  # 36 % of the draws miss the last text
    assert found["alpha"].value == pytest.approx(1)
    assert (found["alpha"].low, found["alpha"].high) == (None, None)
    assert "no interval: all ratings are the same in" in found["alpha"].note
    assert found["mean"].low is not None


def test_nothing_is_nan() -> None:
    matrices = ([[1, 1], [1, 1]], [[1], [2]], [[3]], [[1, NAN], [NAN, 2]], [[1, 1, 1], [5, 5, 5]], KRIPPENDORFF)
    for matrix in matrices:
        for measure in measure_matrix(matrix, num_resamples=50).values():
            numbers = (measure.value, measure.low, measure.high)
            assert all(number is None or math.isfinite(number) for number in numbers)
            assert (None in numbers) == bool(measure.note)


def test_missing_libraries_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "krippendorff", None)
    with pytest.raises(ImportError, match=r"krippendorff and statsmodels; .*pip install 'kinetext\[descriptions\]'"):
        measure_matrix([[1, 2], [1, 2]])


# Intervals


def noisy(num_texts: int, seed: int = 0) -> np.ndarray:
    generator = np.random.default_rng(seed)
    truth = generator.integers(1, 6, num_texts)
    return np.stack([np.clip(truth + generator.integers(-1, 2, num_texts), 1, 5) for _ in range(2)])


@pytest.mark.parametrize("num_texts", [19, 20])
def test_few_texts_have_no_interval(num_texts: int) -> None:
    note = "no interval: fewer than 20 texts" if num_texts < 20 else ""
    assert {one.note for one in measure_matrix(noisy(num_texts), num_resamples=50).values()} == {note}


def test_intervals_are_the_same_for_a_seed_and_hold_the_figure() -> None:
    first, again, other = (measure_matrix(noisy(60), seed=seed, num_resamples=300) for seed in (1, 1, 2))
    assert first == again
    assert first["alpha"] != other["alpha"]
    for measure in first.values():
        assert measure.low < measure.value < measure.high  # type: ignore[operator]


def test_interval_of_the_mean_is_that_of_the_normal_law() -> None:
    matrix = noisy(400)
    of_texts = matrix.mean(axis=0)
    measure = measure_matrix(matrix)["mean"]
    half = 1.96 * of_texts.std() / math.sqrt(len(of_texts))
    assert measure.low == pytest.approx(of_texts.mean() - half, abs=0.1 * half)
    assert measure.high == pytest.approx(of_texts.mean() + half, abs=0.1 * half)


# From answers


def answer(rater: str, class_name: str, value: int | str, *, question: str = "relevance", **fields: object) -> Answer:
    is_choice = question == "preference"
    base = Answer(
        rater=rater,
        dataset="toy",
        set_name="one.jsonl",
        set_sha256="0",
        class_name=class_name,
        kind="characteristic",
        contrast_class=None,
        rank=0,
        text_sha256=text_sha256(f"{class_name} moves"),
        question=question,
        value=value,
        is_training=False,
        started_at="2026-01-01T00:00:00.000+00:00",
        answered_at="2026-01-01T00:00:01.000+00:00",
        other_set_name="two.jsonl" if is_choice else None,
        other_set_sha256="1" if is_choice else None,
        other_text_sha256=text_sha256(f"{class_name} shakes") if is_choice else None,
        left="a" if is_choice else None,
    )
    return replace(base, **fields)  # type: ignore[arg-type]


def test_answers_become_one_row_per_set_and_question() -> None:
    answers = [answer("r1", "run", 4), answer("r2", "run", 4), answer("r1", "jump", 2), answer("r2", "walk", 3)]
    answers += [
        answer("r1", "run", 5, question="correctness"),
        answer("r1", "run", 1, set_name="two.jsonl", set_sha256="2"),
    ]
    answers[-1] = replace(answers[-1], text_sha256=text_sha256("run shakes"))
    measured = measure_agreement(count_answers(answers).answers, num_resamples=5)
    assert [(one.set_name, one.question) for one in measured] == [
        ("one.jsonl", "relevance"),
        ("one.jsonl", "correctness"),
        ("two.jsonl", "relevance"),
    ]
    first = measured[0]
    assert (first.num_raters, first.num_texts, first.num_shared, first.num_complete, first.num_answers) == (
        2,
        3,
        1,
        1,
        4,
    )
    assert first.mean.value == pytest.approx(13 / 4)
    assert first.percentage.value == 100


def test_ranks_of_a_class_are_texts_of_their_own() -> None:
    answers = [answer(rater, "run", rank + 1, rank=rank) for rater in ("r1", "r2") for rank in (0, 1)]
    assert measure_agreement(count_answers(answers).answers, num_resamples=5)[0].alpha.value == 1


def test_training_repeated_and_replaced_answers_do_not_count() -> None:
    later = {"answered_at": "2026-01-02T00:00:00.000+00:00"}
    kept = [answer("r1", "run", 4, **later), answer("r2", "walk", 1, text_sha256=text_sha256("new"), **later)]
    dropped = [
        answer("r1", "jump", 1, is_training=True),
        answer("r1", "run", 2),  # answered anew later
        answer("r1", "walk", 5),  # about a text that was changed since
    ]
    for files in ([kept, dropped], [dropped, kept], [[*dropped, *kept]]):
        counted = count_answers(*files)
        assert set(counted.answers) == set(kept)
        assert (counted.num_training, counted.num_repeated, counted.num_replaced) == (1, 1, 1)


def test_in_one_file_the_last_line_counts_even_if_the_clock_was_put_back() -> None:
    back = answer("r1", "run", 5, answered_at="2020-01-01T00:00:00.000+00:00")
    assert count_answers([answer("r1", "run", 2), back]).answers == (back,)


def test_sets_are_known_by_their_texts_not_by_their_names() -> None:
    copies = {"anna/set.jsonl": "1", "bob/set.jsonl": "1", "masked.jsonl": "2"}  # the last has another column
    texts = {"run": 1, "jump": 2, "walk": 4}
    files = [
        [answer(f"r{number}", name, value, set_name=copy, set_sha256=sha256) for name, value in texts.items()]
        for number, (copy, sha256) in enumerate(copies.items())
    ]
    counted = count_answers(*files)
    measured = measure_agreement(counted.answers, num_resamples=5)
    assert [(one.set_name, one.num_raters, one.num_complete) for one in measured] == [("anna/set.jsonl", 3, 3)]
    assert len(counted.notes) == 2
    apart = count_answers(files[0][:1], files[1][1:])  # of equal sets, but no text in common
    assert [one.num_raters for one in measure_agreement(apart.answers, num_resamples=5)] == [2]
    assert counted.notes[1] == "masked.jsonl counts as anna/set.jsonl: the texts are the same."


def test_sets_that_differ_and_label_lists_are_kept_apart() -> None:
    new = {"set_name": "new.jsonl", "set_sha256": "2"}
    answers = [answer("r1", "run", 1), answer("r1", "jump", 1), answer("r1", "run", 1, dataset="other")]
    answers += [answer("r2", "run", 5, **new), answer("r2", "jump", 5, text_sha256=text_sha256("new"), **new)]
    counted = count_answers(answers)
    measured = measure_agreement(counted.answers, num_resamples=5)
    found = [(one.dataset, one.set_name, one.num_raters, one.num_texts) for one in measured]
    assert found == [("other", "one.jsonl", 1, 1), ("toy", "new.jsonl", 1, 2), ("toy", "one.jsonl", 1, 2)]
    assert counted.num_replaced == 0
    assert counted.notes == ("one.jsonl and new.jsonl have 1 texts in common and are kept apart, since others differ.",)


def test_card_of_a_set_lists_each_criterion_once(tmp_path: Path) -> None:
    rows = load_description_set("weizmann").rows
    files = [
        write_answers(
            tmp_path / f"{number}.jsonl",
            [answer("r1", row.class_name, 3, kind=row.kind, set_name=name, set_sha256=name, **text_of(row))],
        )
        for number, (name, row) in enumerate(zip(["anna/set.jsonl", "bob/set.jsonl"], rows, strict=False))
    ]
    card = dataset_card(load_description_set("weizmann"), repo_id="you/set", license="mit", ratings=files)
    lines = [line for line in card.splitlines() if line.startswith("| relevance")]
    assert [[cell.strip() for cell in line.split("|")[1:5]] for line in lines] == [["relevance", "1", "2", "3.00"]]


def text_of(row: DescriptionRow) -> dict[str, object]:
    return {"contrast_class": row.contrast_class, "rank": row.rank, "text_sha256": text_sha256(row.text)}


def test_an_outdated_copy_does_not_replace_what_others_rated() -> None:
    current = [answer(rater, "run", 3) for rater in ("r1", "r2")]
    late = {"text_sha256": text_sha256("old"), "answered_at": "2026-02-01T00:00:00.000+00:00"}
    counted = count_answers(current, [answer("r3", "run", 1, **late)])
    assert set(counted.answers) == set(current) and counted.num_replaced == 1
    assert counted.notes[0].startswith("one.jsonl: the texts of 1 places were not the same for all answers.")


def test_one_id_in_two_files_is_noted() -> None:
    counted = count_answers([answer("r1", "run", 3), answer("r1", "jump", 3)], [answer("r1", "run", 4)])
    assert len(counted.answers) == 2
    assert counted.notes[0].startswith("r1 answered 1 questions in more than one file, and the later answers count.")


def test_no_answers_are_refused() -> None:
    with pytest.raises(ValueError, match="no answers that count; training texts do not"):
        measure_agreement(count_answers([answer("r1", "run", 1, is_training=True)]).answers)


# Votes


def votes_of(**choices: str) -> list[Answer]:
    """One answer per letter: rater 0 chose the first letter, rater 1 the second."""
    return [
        answer(f"r{number}", name, side, question="preference")
        for name, sides in choices.items()
        for number, side in enumerate(sides)
    ]


def test_majority_decides_and_even_votes_stay_open() -> None:
    votes = take_votes(count_answers(votes_of(run="aab", jump="abb", walk="ab", skip="bbbbb")).answers)
    found = {vote.about.class_name: (vote.num_a, vote.num_b, vote.winner) for vote in votes}
    assert found == {"run": (2, 1, "a"), "jump": (1, 2, "b"), "walk": (1, 1, None), "skip": (0, 5, "b")}


def turned(one: Answer) -> Answer:
    """What its rater would have answered, had he named the other set first."""
    return replace(
        one,
        set_name="there/2.jsonl",
        other_set_name="there/1.jsonl",
        set_sha256=one.other_set_sha256,
        other_set_sha256="3",
        text_sha256=one.other_text_sha256,
        other_text_sha256=one.text_sha256,
        rank=1,
        value={"a": "b", "b": "a"}[str(one.value)],
        left={"a": "b", "b": "a"}[str(one.left)],
    )


def test_choices_count_whichever_set_was_named_first() -> None:
    answers = votes_of(run="aab", jump="abb", walk="ab")
    counted = count_answers([turned(one) if one.rater == "r1" else one for one in answers])
    assert {(one.set_name, one.other_set_name) for one in counted.answers} == {("one.jsonl", "two.jsonl")}
    chosen = {(one.rater, one.class_name): (one.value, one.left) for one in counted.answers}
    assert chosen == {(one.rater, one.class_name): (one.value, one.left) for one in answers}
    votes = take_votes(counted.answers)
    assert {vote.about.class_name: (vote.num_a, vote.num_b) for vote in votes} == {
        "run": (2, 1),
        "jump": (1, 2),
        "walk": (1, 1),
    }
    assert [one.num_raters for one in measure_agreement(counted.answers, num_resamples=5)] == [3]
    first, second = (description_set(verb, ["run", "jump", "walk"]) for verb in ("moves", "shakes"))
    texts = [row.text for row in select_preferred(second, first, counted.answers).rows.rows]
    assert texts == ["run moves", "jump shakes", "walk shakes"]


def description_set(verb: str, names: list[str], **fields: object) -> DescriptionSet:
    return DescriptionSet(
        tuple(
            DescriptionRow("toy", number, name, "characteristic", None, 0, f"{name} {verb}", **fields)  # type: ignore[arg-type]
            for number, name in enumerate(names)
        )
    )


def test_selected_set_takes_the_winners_with_how_they_were_made() -> None:
    names = ["run", "jump", "walk", "skip", "bend", "wave"]
    first = description_set("moves", names, provider="ours")
    rows = description_set("shakes", ["Jump", "run", "walk", "skip", "bend"], provider="theirs", model="m-2").rows
    second = DescriptionSet(
        (*(replace(row, text=row.text.lower()) for row in rows[:4]), replace(rows[4], text="bend moves"))
    )
    chosen = select_preferred(first, second, count_answers(votes_of(run="aab", jump="abb", walk="ab")).answers)
    assert [row.text for row in chosen.rows.rows] == [
        "run moves",
        "jump shakes",
        "walk moves",
        "skip moves",
        "bend moves",
        "wave moves",
    ]
    jump = chosen.rows.rows[1]
    assert (jump.class_id, jump.class_name, jump.provider, jump.model) == (1, "jump", "theirs", "m-2")
    assert {row.provider for row in chosen.rows.rows if row != jump} == {"ours"}
    assert (chosen.num_first, chosen.num_second, chosen.num_equal, chosen.num_alone) == (1, 1, 1, 1)
    assert [vote.about.class_name for vote in chosen.ties] == ["walk"]
    assert [row.class_name for row in chosen.unvoted] == ["skip"]


def test_votes_on_other_texts_are_refused() -> None:
    first, second = description_set("moves", ["run"]), description_set("shakes", ["run"])
    answers = count_answers(votes_of(run="bbb")).answers
    assert select_preferred(first, second, answers).num_second == 1
    with pytest.raises(ValueError, match="no vote is about the texts of these two sets; rate texts that have changed"):
        select_preferred(first, description_set("stirs", ["run"]), answers)


# The verbs


def kinetext(*arguments: object) -> Result:
    return run_cli("describe", *arguments)


def write_answers(path: Path, answers: list[Answer]) -> Path:
    path.write_text("".join(json.dumps(one.__dict__) + "\n" for one in answers))
    return path


def test_verb_prints_a_table_and_writes_every_figure(tmp_path: Path) -> None:
    one = write_answers(
        tmp_path / "r1.jsonl", [answer("r1", "run", 4), answer("r1", "jump", 2), answer("r1", "bend", 2)]
    )
    two = write_answers(tmp_path / "r2.jsonl", [answer("r2", "run", 4), answer("r2", "jump", 2), *votes_of(run="abb")])
    result = kinetext("agreement", one, two, "--json", tmp_path / "figures.json")
    assert result.exit_code == 0, result.output
    assert "nan" not in result.output.lower()
    assert [line.split() for line in result.output.splitlines()[:6]] == [
        ["one.jsonl", "(toy)"],
        ["relevance"],
        ["raters", "2"],
        ["texts", "2", "of", "3"],
        ["mean", "2.80"],
        ["same", "%", "100.0"],
    ]
    figures = json.loads((tmp_path / "figures.json").read_text())
    relevance, preference = figures["agreement"]
    assert relevance["alpha"]["value"] == pytest.approx(1) and relevance["mean"]["value"] == pytest.approx(2.8)
    assert (preference["question"], preference["num_raters"]) == ("preference", 3)
    assert [(vote["class_name"], vote["winner"]) for vote in figures["votes"]] == [("run", "b")]
    assert figures["intervals"]["confidence"] == 0.95


def test_table_fits_into_eighty_columns_and_shows_names_as_they_are(tmp_path: Path) -> None:
    questions = ["conciseness", "hallucinations", "relevance", "correctness", "harmfulness"]
    ratings = write_answers(
        tmp_path / "r.jsonl",
        [
            answer(rater, f"class {number}", 1 + (number + shift) % 5, question=question, set_name=":smile:/[b].jsonl")
            for shift, question in enumerate(questions)
            for number in range(120)
            for rater in ("r1", "r2")
        ]
        + [replace(one, set_name=":dog:.jsonl") for one in votes_of(run="a")],
    )
    result = run_cli("describe", "agreement", ratings, columns=80)
    assert ":smile:/[b].jsonl (toy)" in result.output and "│ :dog:.jsonl" in result.output
    table = result.output.partition(":smile:")[2].partition("Fleiss")[0].splitlines()
    assert max(map(len, table)) <= 80
    assert table[1].split() == questions
    assert ["mean", *["3.00"] * 5] in [line.split() for line in table]


def test_files_that_are_read_are_not_replaced(tmp_path: Path) -> None:
    write_jsonl(description_set("moves", ["run", "jump"]), tmp_path / "one.jsonl")
    write_jsonl(description_set("shakes", ["run", "jump"]), tmp_path / "two.jsonl")
    ratings = write_answers(tmp_path / "r.jsonl", votes_of(run="b", jump="ab"))
    link = tmp_path / "link.jsonl"
    link.symlink_to(ratings)
    select = ("select", tmp_path / "one.jsonl", "--against", tmp_path / "two.jsonl", "--ratings", ratings, "--out")
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    for arguments in (
        ("agreement", ratings, "--json", ratings),
        ("agreement", link, "--json", ratings),
        (*select, ratings),
        (*select, link),
        (*select, tmp_path / "two.jsonl"),
    ):
        refused = kinetext(*arguments)
        assert refused.exit_code == 1 and "is read by this command, and would be replaced" in refused.output
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_select_verb_writes_a_set_that_loads(tmp_path: Path) -> None:
    write_jsonl(description_set("moves", ["run", "jump"]), tmp_path / "one.jsonl")
    write_jsonl(description_set("shakes", ["run", "jump"]), tmp_path / "two.jsonl")
    ratings = write_answers(tmp_path / "r.jsonl", votes_of(run="b", jump="ab"))
    arguments = (tmp_path / "one.jsonl", "--against", tmp_path / "two.jsonl", "--ratings", ratings)
    result = kinetext("select", *arguments, "--out", tmp_path / "chosen.jsonl")
    assert result.exit_code == 0, result.output
    assert "even votes, 1 to 1: jump, characteristic" in result.output
    loaded = load_descriptions(tmp_path / "chosen.jsonl", kinds=["characteristic"])
    assert loaded.texts == [["run shakes"], ["jump moves"]]
    refused = kinetext("select", *arguments, "--out", tmp_path / "chosen.csv")
    assert refused.exit_code == 1 and "sets are written as .jsonl or .parquet" in refused.output
