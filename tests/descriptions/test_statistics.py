"""Sentences, words and verbs: counted by hand on short texts, and beside the published figures of the released sets."""

import subprocess
import sys
from pathlib import Path

import pytest
from testing_utils import run_cli

from kinetext.data.small_tokenizer import small_tokenizer
from kinetext.descriptions import DescriptionRow, DescriptionSet
from kinetext.descriptions.files import write_jsonl
from kinetext.descriptions.importers import import_csv
from kinetext.descriptions.statistics import count_sentences, count_verbs, kind_statistics

TEXTS = ("lifting a glass to the lips. The head tilts back", "walking on", "the arm swings up, and falls!")


def a_set(*, masked: bool = False, names: str = "abc") -> DescriptionSet:
    return DescriptionSet(
        tuple(
            DescriptionRow(
                "three", place, name, "action", None, 0, text, text.replace("a glass", "an object") if masked else None
            )
            for place, (name, text) in enumerate(zip(names, TEXTS, strict=True))
        )
    )


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("the arm swings", 1),
        ("the arm swings.", 1),
        ("The arm swings. The hand stays.", 2),
        ("The arm swings. The hand stays", 2),
        ("Up! Down?! Again...", 3),
        ("about 1.5 metres high", 1),
    ],
)
def test_sentences_end_with_a_mark_before_a_space(text: str, count: int) -> None:
    assert count_sentences(text) == count


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("lifting a glass or cup to the lips, tilting the head back slightly, and swallowing the liquid.", 3),
        ("is holding a spray bottle or can, aiming it at a specific target", 3),  # auxiliaries count
        ("swinging the club in a controlled arc to hit the ball, walking or driving a cart", 4),
        ("Direction of motion; Hand position", 0),
        ("a quick run-up and a landing", 0),  # nouns
    ],
)
def test_verbs_are_words_tagged_as_verbs(text: str, count: int) -> None:
    assert count_verbs(text) == count


def test_a_kind_in_numbers() -> None:
    [action] = kind_statistics(a_set(), count_tokens=len)
    assert (action.kind, action.num_texts, action.longest) == ("action", 3, len(TEXTS[0]))
    assert (action.sentences, action.words) == (pytest.approx(4 / 3), 6)
    assert (action.fewest_words, action.most_words) == (2, 10)
    assert (action.num_verbs, action.verbs) == (5, pytest.approx(5 / 3))


def test_masked_texts_are_a_row_of_their_own_if_any_differs() -> None:
    plain, masked = kind_statistics(a_set(masked=True))
    assert (plain.kind, masked.kind, masked.longest) == ("action", "action (masked)", None)
    same = DescriptionSet((DescriptionRow("one", 0, "a", "action", None, 0, "arms rise", "arms rise"),))
    assert [each.kind for each in kind_statistics(same)] == ["action"]


@pytest.mark.parametrize(
    ("name", "words", "most_words", "verbs", "published"),
    [
        ("kinetics400_motion_descriptions.csv", 19.6, 44, 1484, 1371),
        ("uc101_motion.csv", 19.3, 33, 335, 325),
        ("hmdb51_motion_with_objectname.csv", 17.3, 31, 164, 164),
    ],
)
def test_released_sets_have_about_the_published_figures(
    shared_dir: Path, name: str, words: float, most_words: int, verbs: int, published: int
) -> None:
    path = shared_dir / "data/descriptions/devaraj" / name
    [numbers] = kind_statistics(import_csv(path, kind="characteristic", dataset="any").descriptions)
    assert round(numbers.words, 1) == words
    assert numbers.most_words == most_words
    assert numbers.num_verbs == verbs
    assert 0 <= verbs / published - 1 < 0.09  # the published tagger is not named


def test_missing_tagger_is_said_with_the_way_out() -> None:
    code = """
import sys
sys.modules["HanTa"] = None
from kinetext.descriptions.statistics import count_verbs
try:
    count_verbs("arms rise")
except ImportError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "counting verbs needs HanTa; install it with: pip install 'kinetext[descriptions]'\n"


def test_verb_shows_several_sets_side_by_side(tmp_path: Path) -> None:
    small_tokenizer(TEXTS).save_pretrained(tmp_path / "tokenizer")
    write_jsonl(a_set(masked=True), tmp_path / "one.jsonl")
    write_jsonl(a_set(), tmp_path / "[two].jsonl")
    arguments = ["describe", "statistics", "one.jsonl", "[two].jsonl", "--tokenizer", "tokenizer"]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        result = run_cli(*arguments, columns=80)
    assert result.exit_code == 0, result.output
    titles = [line.strip() for line in result.output.splitlines() if line.startswith("action")]
    assert titles == ["action", "action (masked)"]
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in result.output.splitlines() if "jsonl" in line]
    assert rows == [
        ["one.jsonl", "3", "1.33", "6.0", "2-10", "1.7", "5", "13"],
        ["[two].jsonl", "3", "1.33", "6.0", "2-10", "1.7", "5", "13"],
        ["one.jsonl", "3", "1.33", "6.0", "2-10", "1.7", "5", "19"],
    ]
