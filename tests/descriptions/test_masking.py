"""Masking: what becomes of names, what a masked text may not be, sets, a model's answers, and the released files."""

import csv
import dataclasses
import difflib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from llm_stub import LlmStub
from testing_utils import run_cli
from typer.testing import Result

from kinetext.descriptions import DescriptionRow, DescriptionSet, load_description_set
from kinetext.descriptions.engine import Endpoint
from kinetext.descriptions.files import write_jsonl
from kinetext.descriptions.masking import (
    forecast_masking,
    mask_differences,
    mask_faults,
    mask_objects,
    mask_set,
    mask_set_by_model,
)
from kinetext.descriptions.object_nouns import BODY_PARTS, LIQUIDS, OBJECT_NOUNS, PEOPLE, VERBS_TOO

# Texts by rules


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        # articles and numbers
        ("lifting a brush", "lifting an object"),
        ("lifting brushes and turning", "lifting objects and turning"),
        ("The ball flies up", "The object flies up"),
        ("A ball flies up", "An object flies up"),
        ("grinding food with the teeth", "grinding an object with the teeth"),
        ("holding two knives and one leaf", "holding two objects and one object"),
        ("stepping onto each stair", "stepping onto each object"),
        ("scooping some flour", "scooping an object"),
        # names of several words, and the adjectives that belong to them
        ("striking the cue ball", "striking the object"),
        ("swinging a golf club", "swinging an object"),
        ("using table tennis rackets", "using objects"),
        ("along a narrow, elevated beam", "along an object"),
        ("a very long wooden pole bends", "an object bends"),
        ("pulling the elastic cord", "pulling the object"),
        ("jumping off a diving board", "jumping off an object"),
        ("paddling a paddleboard", "paddling an object"),
        # motion and arrangement stay
        ("jumping over a swinging rope", "jumping over a swinging object"),
        ("catching an incoming ball", "catching an incoming object"),
        ("an old spinning wheel", "a spinning object"),
        ("between two parallel bars", "between two parallel objects"),
        ("lifting the other paddle", "lifting the other object"),
        # possessives, parts, portions
        ("following the ball's path", "following the object's path"),
        ("gripping the horse's saddle", "gripping the object"),
        ("the dogs' paws", "the objects' paws"),
        ("plucking the strings of a guitar", "plucking the objects"),
        ("tilting the racket face", "tilting the object"),
        ("biting a slice of bread", "biting an object"),
        ("with a pair of scissors", "with an object"),
        ("lifting a pair of dumbbells", "lifting objects"),
        ("carrying a bucket of water", "carrying an object"),
        # names that are joined
        ("holding a brush or comb", "holding an object"),
        ("with scissors, clippers, and combs", "with objects"),
        ("the bat and ball meet", "the objects meet"),
        ("a knife and fork press down", "objects press down"),
        ("a knife and fork press into meat", "objects press into another object"),
        ("using utensils or hands", "using objects or hands"),
        ("the arms and club swing down", "the arms and object swing down"),
        # several objects
        ("hitting the ball with a racket", "hitting the object with another object"),
        ("blowing horns and striking drums", "blowing objects and striking other objects"),
        ("a ball hits a bat and the ball drops", "an object hits another object and the object drops"),
        ("a ball hits a bat and the bat drops", "an object hits another object and the other object drops"),
        ("a ball hits the other paddle", "an object hits another object"),
        ("grinding food, then swallowing food", "grinding an object, then swallowing the object"),
        # names that only say more about another noun
        ("the racket arm swings", "the arm swings"),
        ("an oar stroke", "a stroke"),
        ("with short brush strokes", "with short strokes"),
        # nouns that are verbs too
        ("drawing the bow and bowing", "drawing the object and bowing"),
        ("she cups a hand and lifts the cups", "she cups a hand and lifts the objects"),
        ("the leaves fall and she leaves the ground", "the objects fall and she leaves the ground"),
        ("the boat rocks from side to side", "the object rocks from side to side"),
        ("skis slide over the snow", "objects slide over the snow"),
        ("scooping snow with a shovel", "scooping an object with another object"),
        ("passing the ball hand to hand", "passing the object hand to hand"),
        ("making the ball spin", "making the object spin"),
        ("chopping and seasoning the chicken", "chopping and seasoning the object"),
        ("rising by building a tower", "rising by building an object"),
        ("to feed paper into a machine", "to feed an object into another object"),
    ],
)
def test_names_become_objects(text: str, masked: str) -> None:
    assert mask_objects(text) == masked
    assert mask_faults(text, masked) == []
    assert mask_objects(masked) == masked


@pytest.mark.parametrize(
    "text",
    [
        "doing a swift swing of the arm, a roll and a stroke through the water",
        "the fingers drum on the knee while both hands cup the chin",
        "the dancer bows the head, then rocks back with a slow bow of the trunk",
        "to ski, to paddle and to row",
        "he saws and hammers, and they club each other",
        "plants one foot and rocks back",
        "the feet slip, sink and cut a track",
        "landing on the balls of the feet, shoulder blades together",
        "across the snow, over grass, on the ground, on the floor, through the air",
        "a hairdresser and a person stand near the opponent's arm",
        "extending the hands towards an incoming object, closing the fingers around it",
        "walking — 2 steps: left, right.",
        "",
    ],
)
def test_what_names_no_object_stays(text: str) -> None:
    assert mask_objects(text) == text


def test_vocabulary_is_consistent() -> None:
    assert len(OBJECT_NOUNS) > 1000
    assert VERBS_TOO <= OBJECT_NOUNS
    assert not OBJECT_NOUNS & (BODY_PARTS | PEOPLE | LIQUIDS)


# What a masked text may not be

TEXT = "holding a brush in one hand and sweeping it slowly over the teeth"
MASKED = "holding an object in one hand and sweeping it slowly over the teeth"


@pytest.mark.parametrize(
    ("masked", "fault"),
    [
        (TEXT, "it still names 'a brush'"),
        ("", "it is not one line of text without spaces around it"),
        (MASKED + "\nDone", "it is not one line of text without spaces around it"),
        (MASKED.replace("sweeping", "moving"), "it has 'moving' where the text has 'sweeping'"),
        (MASKED.replace("an object", "something"), "it has 'something' where the text has 'a brush'"),
        ("gently " + MASKED, "it adds 'gently'"),
        (MASKED + " with an object", "it adds 'with'"),
        (MASKED + " an object", "it adds 'an object' where the text names nothing"),
        (MASKED.replace("slowly ", ""), "it leaves out 'slowly'"),
        (MASKED.replace("the teeth", "the object"), "it leaves out 'teeth'"),
        (MASKED.replace("in one hand", "in one object"), "it leaves out 'hand'"),
        (MASKED.replace("sweeping it", "object"), "it leaves out 'sweeping'"),
        (MASKED.replace("an object", "a object"), "it has 'a object', which is not grammatical"),
        (MASKED.replace("an object", "an objects"), "it has 'an objects', which is not grammatical"),
        (MASKED.replace("an object", "an object or object"), "it has 'object or object', which is not grammatical"),
        (MASKED.replace("an object in", "an object , in"), "it has ' ,', which is not grammatical"),
        (MASKED + ".", "it ends with '.' where the text ends with 'h'"),
    ],
)
def test_faults_of_a_masked_text(masked: str, fault: str) -> None:
    assert fault in mask_faults(TEXT, masked)


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        (TEXT, MASKED),
        ("lifting two long oars", "lifting two objects"),
        ("turning a zorble around", "turning an object around"),  # a name that the rules do not know
        ("gliding a lipstick over the lips", "gliding an instrument over the lips"),  # as in the released files
        ("bending both knees", "bending both knees"),
    ],
)
def test_good_masked_texts_have_no_faults(text: str, masked: str) -> None:
    assert mask_faults(text, masked) == []


@pytest.mark.parametrize(
    ("text", "masked", "fault"),
    [
        ("an old rope swings", "an swinging object swings", "it has 'swinging' where the text has 'old rope'"),
        ("over an old flying rope", "over an flying object", "it has 'an flying', which is not grammatical"),
        ("lifting two oars", "lifting two object", "it has 'two object', which is not grammatical"),
    ],
)
def test_articles_and_numbers_have_to_agree(text: str, masked: str, fault: str) -> None:
    assert fault in mask_faults(text, masked)


def test_differences_join_to_both_texts() -> None:
    parts = mask_differences(TEXT, MASKED)
    assert "".join(part.removed for part in parts) == TEXT
    assert "".join(part.added for part in parts) == MASKED
    assert [(part.removed, part.added) for part in parts if part.is_change] == [(" a brush", " an object")]


# Sets

ROWS = (
    DescriptionRow("two", 0, "brush", "characteristic", None, 0, TEXT),
    DescriptionRow("two", 0, "brush", "conceptual", None, 0, "moving a comb"),
    DescriptionRow("two", 1, "wave", "characteristic", None, 0, "moving one hand", masked_text="by hand"),
    DescriptionRow("two", 1, "wave", "conceptual", None, 0, "turning a palm"),
)


def masks(descriptions: DescriptionSet) -> list[str | None]:
    return [row.masked_text for row in descriptions.rows]  # by class, then conceptual before characteristic


def test_a_set_is_masked_where_it_is_not_yet() -> None:
    described = DescriptionSet(ROWS)
    assert masks(mask_set(described)) == ["moving an object", MASKED, "turning a palm", "by hand"]
    assert masks(mask_set(described, ["characteristic"])) == [None, MASKED, None, "by hand"]
    assert masks(mask_set(described, replace=True))[-1] == "moving one hand"
    unmasked = [dataclasses.replace(row, masked_text=None) for row in mask_set(described).rows]
    assert unmasked == [dataclasses.replace(row, masked_text=None) for row in described.rows]


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("action", "two has no texts of kind 'action'; it has conceptual, characteristic"),
        ("motion", "two has no texts of kind 'motion'; choose of conceptual, "),
    ],
)
def test_kinds_that_a_set_does_not_have_are_refused(kind: str, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        mask_set(DescriptionSet(ROWS), [kind])


# By a language model


class MaskingStub(LlmStub):
    """An endpoint that masks: at first wrongly where a text has "hand", always wrongly where it has "comb"."""

    def completion(self, body: dict[str, Any]) -> dict[str, Any]:
        messages = body["messages"]
        text = messages[0]["content"].rpartition("Sentence: ")[2].removesuffix("\nRewritten:")
        is_wrong = "comb" in text or ("hand" in text and len(messages) == 1)
        self.conversations = [*getattr(self, "conversations", []), messages]
        answer = super().completion(body)
        content = json.dumps({"text": text.replace("a ", "a object ") if is_wrong else mask_objects(text)})
        answer["choices"][0]["message"] |= {"content": content, "refusal": None}
        return answer


@pytest.fixture()
def stub() -> Iterator[MaskingStub]:
    with MaskingStub(key="") as server:
        yield server


def test_a_models_answers_are_checked_asked_for_again_and_kept(stub: MaskingStub, tmp_path: Path) -> None:
    described, endpoint, journal = DescriptionSet(ROWS), Endpoint("m", "local", stub.url), tmp_path / "journal.jsonl"
    assert len(forecast_masking(described, endpoint, journal).calls) == 3
    made = mask_set_by_model(described, endpoint, journal, concurrency=1)
    assert masks(made.descriptions) == [None, MASKED, "turning a palm", "by hand"]
    [rejected] = made.rejected
    assert rejected.request.name == "brush, conceptual"
    assert "it still names 'a object comb'" in rejected.faults
    [again] = [turns for turns in stub.conversations if len(turns) == 3 and TEXT in turns[0]["content"]]
    assert "it still names 'a object brush'" in again[2]["content"]

    calls = len(stub.entries())
    assert mask_set_by_model(described, endpoint, journal).descriptions == made.descriptions
    assert len(stub.entries()) == calls  # nothing is paid for twice
    mask_set_by_model(described, endpoint, journal, retry_rejected=True)
    assert len(stub.entries()) == calls + 2


def run(*arguments: object) -> Result:
    return run_cli("describe", "mask", *arguments, columns=200)


def test_the_verb_masks_by_rules_and_shows_what_changed(tmp_path: Path) -> None:
    source, out = tmp_path / "set.jsonl", tmp_path / "masked.jsonl"
    write_jsonl(DescriptionSet(ROWS), source)
    result = run(source, "--out", out, "--kind", "characteristic", "--diff")
    assert result.exit_code == 0
    assert "  holding [-a brush-] {+an object+} in one hand and" in result.output
    assert "2 texts: 1 masked now, 1 masked before and the same now; 2 of the masked ones name objects" in result.output
    assert f"4 rows saved in {out}\n" in result.output
    assert masks(load_description_set(out)) == [None, MASKED, None, "by hand"]

    again = run(out, "--out", out, "--replace")
    assert "2 masked now, 1 masked anew and changed, 1 masked before and the same now" in again.output
    assert "in place of the file that was there" in again.output
    assert "[-a comb-] {+an object+}" in run(out, "--diff").output
    assert "comb" not in run(out, "--diff", "--kind", "characteristic").output


def test_the_verb_asks_a_model(stub: MaskingStub, tmp_path: Path) -> None:
    source, out = tmp_path / "set.jsonl", tmp_path / "masked.jsonl"
    write_jsonl(DescriptionSet(ROWS), source)
    asked = (source, "--out", out, "--model", "m", "--provider", "local", "--base-url", stub.url)
    assert "3 calls to make, about" in run(*asked, "--dry-run").output
    assert stub.entries() == []
    result = run(*asked)
    assert result.exit_code == 1
    assert "1 answers were rejected" in result.output
    assert "1 without a masked text" in result.output
    assert masks(load_description_set(out)) == [None, MASKED, "turning a palm", "by hand"]
    assert "3 answered before" not in run(*asked, "--dry-run").output
    rest = run(out, "--out", out)
    assert rest.exit_code == 0
    assert masks(load_description_set(out))[0] == "moving an object"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "give --out FILE.jsonl, or --diff alone"),
        (("--diff", "--model", "m"), "give --out FILE.jsonl"),
        (("--out", "masked.csv"), "masked.csv does not end with .jsonl"),
        (("--diff", "--kind", "action"), "two has no texts of kind 'action'"),
    ],
)
def test_the_verb_refuses_what_it_cannot_do(tmp_path: Path, arguments: tuple[str, ...], message: str) -> None:
    write_jsonl(DescriptionSet(ROWS), tmp_path / "set.jsonl")
    result = run(tmp_path / "set.jsonl", *arguments)
    assert result.exit_code == 1
    assert message in result.output


# The released files

PAIRS = {
    "ucf101": ("uc101_motion.csv", "ucf101_without_objectname.csv"),
    "hmdb51": ("hmdb51_motion_with_objectname.csv", "HMDB51_without_objectname.csv"),
}


def released(path: Path) -> dict[str, str]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        return {name.strip(): " ".join(text.split()) for name, text in csv.reader(file)}


def normalised(text: str) -> str:
    """Without the released files' slips of grammar and spacing."""
    return re.sub(r"\ba object", "an object", text.lower()).replace(" ,", ",")


def without_articles(text: str) -> str:
    """With "an object", "the object", "another object", "objects" and "object of interest" made equal."""
    return re.sub(r"\b((an?|the|another|other) )*objects?\b( of interest)?", "object", normalised(text))


def replaced_words(text: str, masked: str) -> set[int]:
    """Places of the words, articles apart, that `masked` does not have."""
    old, new = (re.findall(r"[\w'-]+", each.lower()) for each in (text, masked))
    opcodes = difflib.SequenceMatcher(None, old, new, autojunk=False).get_opcodes()
    changed = {place for tag, i1, i2, _, _ in opcodes if tag in ("replace", "delete") for place in range(i1, i2)}
    return {place for place in changed if old[place] not in ("a", "an", "the")}


def agreement(plain: dict[str, str], masked: dict[str, str]) -> dict[str, float]:
    """Our rules against masked texts that others wrote.

    Of the rows that they changed: the share in which ours is equal (`normalised`), or equal but for articles and
    numbers; precision, recall and F1 of the words replaced, counted over all these rows; the share in which no word
    that they replaced stays. Of the rows that they left: the share that we change.
    """
    named = [name for name in plain if normalised(plain[name]) != normalised(masked[name])]
    ours = {name: mask_objects(text) for name, text in plain.items()}
    pairs = [(replaced_words(plain[n], ours[n]), replaced_words(plain[n], masked[n])) for n in named]
    hits = sum(len(own & theirs) for own, theirs in pairs)
    precision = hits / sum(len(own) for own, _ in pairs)
    recall = hits / sum(len(theirs) for _, theirs in pairs)
    left = [name for name in plain if name not in named]
    return {
        "rows": len(named),
        "equal": sum(normalised(ours[n]) == normalised(masked[n]) for n in named) / len(named),
        "equal_but_articles": sum(without_articles(ours[n]) == without_articles(masked[n]) for n in named) / len(named),
        "precision": precision,
        "recall": recall,
        "f1": 2 * precision * recall / (precision + recall),
        "nothing_stays": sum(theirs <= own for own, theirs in pairs) / len(named),
        "rows_left": len(left),
        "changed_of_left": sum(ours[n] != plain[n] for n in left) / len(left),
    }


# Measured on 2026-11-21; floors are a little below. What is left is mostly the release's own unevenness (it masks body
# parts as "region", leaves "weapon", "strings", "wall" and whole rows, and shortens phrases), not names we do not know.
# The vocabulary grew on descriptions of Kinetics-400. The released pairs had been read before, and about ten general
# faults seen in them and in our own UCF and HMDB texts were put right ("dice" as a verb, "roots" of hair, "the arms and
# club"), so none is strictly unseen. First figures, before that: ucf101 0.481 equal, F1 0.852; hmdb51 0.571, 0.933.
# The same measure on our own texts, masked by hand: ucf101 0.809, 0.955; hmdb51 0.867, 0.958; kinetics400 0.683, 0.926.
#         rows  equal  but articles  precision  recall  F1     nothing stays  rows left  of these changed
# ucf101    54  0.519         0.667      0.902   0.829  0.864          0.833         47             0.340
# hmdb51    21  0.571         0.762      0.897   0.972  0.933          0.952         30             0.000
@pytest.mark.parametrize(
    ("dataset", "rows", "floors", "changed_of_left"),
    [
        ("ucf101", (54, 47), {"equal": 0.5, "precision": 0.88, "recall": 0.81, "nothing_stays": 0.81}, 0.35),
        ("hmdb51", (21, 30), {"equal": 0.55, "precision": 0.88, "recall": 0.95, "nothing_stays": 0.94}, 0.0),
    ],
)
def test_agreement_with_the_released_masked_files(
    shared_dir: Path, dataset: str, rows: tuple[int, int], floors: dict[str, float], changed_of_left: float
) -> None:
    folder = shared_dir / "data/descriptions/devaraj"
    plain, masked = (released(folder / name) for name in PAIRS[dataset])
    found = agreement(plain, masked)
    print(dataset, {name: round(value, 3) for name, value in found.items()})
    assert (found["rows"], found["rows_left"]) == rows
    assert {name: found[name] for name in floors if found[name] < floors[name]} == {}
    assert found["changed_of_left"] <= changed_of_left


@pytest.mark.parametrize(
    "name", ["kinetics400_motion_descriptions.csv", *(plain for plain, _ in PAIRS.values()), "ucf_descriptions.csv"]
)
def test_rules_leave_no_fault_in_the_released_texts(shared_dir: Path, name: str) -> None:
    texts = released(shared_dir / "data/descriptions/devaraj" / name).values()
    masked = [(text, mask_objects(text)) for text in texts]
    assert [(text, faults) for text, own in masked if (faults := mask_faults(text, own))] == []
    assert [own for _, own in masked if mask_objects(own) != own] == []


@pytest.mark.parametrize("option", [["--dry-run"], ["--retry-rejected"], ["--price", "1", "2"], ["--param", "seed=1"]])
def test_options_of_a_model_are_refused_without_one(option: list[str], tmp_path: Path) -> None:
    result = run("weizmann", "--out", tmp_path / "m.jsonl", "--replace", *option)
    assert result.exit_code == 1 and "are for a model; give --model too" in result.stderr
    assert not (tmp_path / "m.jsonl").exists()


def test_an_empty_list_of_kinds_is_refused(tmp_path: Path) -> None:
    result = run("weizmann", "--out", tmp_path / "m.jsonl", "--kind", "")
    assert result.exit_code == 1 and "names no kind; the set has conceptual" in result.stderr
