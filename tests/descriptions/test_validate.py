"""What is wrong with a text and with a set: every rule on a text that breaks it, and on the released files."""

import csv
import time
from collections import Counter
from pathlib import Path

import pytest
from testing_utils import run_cli
from typer.testing import Result

from kinetext.data.small_tokenizer import small_tokenizer
from kinetext.descriptions import DescriptionRow, DescriptionSet
from kinetext.descriptions.files import write_jsonl
from kinetext.descriptions.validate import MAX_TOKENS, check_set, find_class_name, load_token_counter, text_faults

GOOD = "the arm swings up and down beside the body"


def faults(text: str, class_name: str = "clapping", kind: str = "characteristic") -> list[str]:
    return text_faults(text, kind=kind, class_name=class_name)


def row(class_id: int, kind: str, text: str, **fields: object) -> DescriptionRow:
    names = ("walk", "run", "jump")
    values = {"contrast_class": None, "rank": 0, **fields}
    return DescriptionRow("three", class_id, names[class_id], kind, text=text, **values)  # type: ignore[arg-type]


CLEAN = (
    row(0, "conceptual", "one foot is always on the ground"),
    row(0, "discriminative", "the feet take turns with the ground", contrast_class="jump"),
    row(1, "conceptual", "both feet leave it for a moment in each stride"),
    row(1, "discriminative", "its speed is higher, and knees rise further", contrast_class="walk"),
    row(2, "conceptual", "the body leaves it once and comes down again"),
    row(2, "discriminative", "up and down instead of along", contrast_class="run"),
)


def checked(*rows: DescriptionRow, **arguments: object) -> list[tuple[str, str, str, str]]:
    """The findings of CLEAN with `rows` in place of those that stand where they do."""
    kept = {each.key: each for each in (*CLEAN, *rows)}
    result = check_set(DescriptionSet(tuple(kept.values())), **arguments)  # type: ignore[arg-type]
    return [(finding.level, finding.class_name, finding.kind, finding.message) for finding in result.findings]


# One text


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "it is empty"),
        (" \n", "it is empty"),
        ("Teetering.", "it has only one word"),
        ("the arm\nswings", "it has more than one line"),
        (" the arm swings", "it has spaces around it"),
        ("I'm sorry, but I can't help with that.", "it refuses to answer"),
        ("I’m sorry", "it refuses to answer"),
        ("As an AI language model, I have no body.", "it refuses to answer"),
        ("It is not appropriate for me to describe this.", "it refuses to answer"),
        ("Unable to describe this action.", "it refuses to answer"),
        ("Unfortunately, I do not know.", "it refuses to answer"),
        ("Sure! The arm swings.", "it begins with 'Sure' instead of the description"),
        ("Sure, here it is: arms swing.", "it begins with 'Sure' instead of the description"),
        ("Here is how the arm swings.", "it begins with 'Here is' instead of the description"),
        ("A: the arm swings.", "it begins with 'A:' instead of the description"),
        ("the **arm** swings", "it contains the markup '**'"),
        ("- the arm swings", "it contains the markup '-'"),
        ("1. the arm swings", "it contains the markup '1.'"),
        ('"the arm swings"', "it stands in quotation marks"),
        ("lifting a object", "it says 'a object', which is not grammatical"),
        ("lifting an objects", "it says 'an objects', which is not grammatical"),
        ("the arm\u200bswings", "it contains the invisible character ZERO WIDTH SPACE"),
        ("the arm\u00a0swings", "it contains the invisible character NO-BREAK SPACE"),
        ("the arm\x07 swings", "it contains the invisible character U+0007"),
        (
            "the \N{CYRILLIC SMALL LETTER A}rm",
            "it contains 'а' (CYRILLIC SMALL LETTER A), which only looks like a Latin",
        ),
        ("the \N{LATIN SMALL LIGATURE FI}nger", "it contains 'ﬁ' (LATIN SMALL LIGATURE FI), which only looks like"),
        ("the armâ€™s swing", "it was decoded with the wrong encoding"),
        ("the arm\ufffds swing", "it contains the replacement character U+FFFD"),
        ("der Arm schwingt und die Hand folgt", "it is not in English"),
        ("le bras monte et la main suit", "it is not in English"),
        ("armarna svänger snabbt fram, tillbaka, uppåt, nedåt, utåt", "it is not in English"),
        ("手臂 上下 摆动", "it is not written in Latin letters"),
        ("clapping both hands", "it contains the class name 'clapping'"),
        ("claps with both hands", "it contains the class name 'clapping' as 'claps'"),
    ],
)
def test_what_is_wrong_with_a_text_is_said(text: str, fault: str) -> None:
    [found] = faults(text)
    assert found.startswith(fault)


@pytest.mark.parametrize(
    "text",
    [
        GOOD,
        "surely the arm swings",  # no "sure"
        "I-shaped: arms along the body",
        "an object is moved past other objects, or into another object",
        "the hand's edge – “flat”, naïve – moves to the café’s door…",  # beyond ASCII, but what it seems to be
        "Sure-footed steps lead up the slope",
        "absolutely still, the body waits for a sign",
        "afraid, the body shrinks and the arms cover the head",
        "unable to keep still, the feet tap the floor",
        "arms swing quickly",  # short texts may have no function word
    ],
)
def test_a_text_without_faults_has_none(text: str) -> None:
    assert faults(text) == []


def test_lists_of_features_need_not_read_as_prose_if_they_tell_classes_apart() -> None:
    text = "Direction; Hand position; Contact surface; Number; Force applied; Speed; Rhythm"
    assert faults(text) == ["it is not in English"]
    assert faults(text, kind="discriminative") == []


@pytest.mark.parametrize(
    ("text", "class_name", "found"),
    [
        ("juggling balls high up", "juggling balls", "juggling balls"),
        ("JUGGLED ball", "Juggling_Balls", "juggled ball"),
        ("balls being juggled", "juggling balls", None),  # other order
        ("juggling three balls", "juggling balls", None),  # not one after another
        ("brushes the teeth", "BrushingTeeth", None),
        ("brushes teeth", "BrushingTeeth", "brushes teeth"),
        ("push-ups on a mat", "pushup", "push ups"),
        ("pushups on a mat", "Push Ups", "pushups"),
        ("the hand writes", "writing", "writes"),
        ("words written in ink", "writing", "written"),
        ("carried boxes", "carrying box", "carried boxes"),
        ("knits a scarf", "knitting", "knits"),
        ("the king's crown", "king", "king"),
        ("a climber rises", "climb", None),  # derived, not inflected
        ("the arms wander", "wand", None),
        ("swinging", "swing", "swinging"),
        ("a ring", "rings", "ring"),
        ("hugs a friend", "hugging (not baby)", "hugs"),
        ("the wall", "walking", None),
        ("glasses on a table", "glass", "glasses"),
        ("tied ties", "tying tie", "tied ties"),
        ("skied downhill", "skiing", "skied"),
        ("the flame dies", "dying", "dies"),
        ("lay or lies down", "lying", "lies"),
    ],
)
def test_the_class_name_is_found_whole_and_inflected(text: str, class_name: str, found: str | None) -> None:
    assert find_class_name(text, class_name) == found


def test_tokens_are_counted_with_start_and_end(tmp_path: Path) -> None:
    small_tokenizer([GOOD]).save_pretrained(tmp_path)
    count_tokens = load_token_counter(str(tmp_path))
    assert count_tokens("arm") == 3
    long = " ".join(["arm"] * (MAX_TOKENS - 2))
    assert text_faults(f"the {long[4:]}", kind="action", class_name="x", count_tokens=count_tokens) == []
    assert text_faults(f"the {long}", kind="action", class_name="x", count_tokens=count_tokens) == [
        "it has 78 tokens, more than 77"
    ]


def test_tokenizer_out_of_reach_is_refused_with_the_way_out() -> None:
    with pytest.raises(ValueError, match="'nobody/nothing' cannot be loaded; .*`--tokenizer none`"):
        load_token_counter("nobody/nothing")


# The released files


def released(shared_dir: Path, name: str) -> list[tuple[str, str]]:
    text = (shared_dir / "data/descriptions/devaraj" / name).read_text("utf-8-sig")
    rows = list(csv.reader(text.splitlines()))
    pairs = [row[0].split(":", 1) if len(row) == 1 else row for row in rows]
    return [(name.strip(), " ".join(text.split())) for name, text in pairs]


@pytest.mark.parametrize(
    ("name", "verbatim", "inflected"),
    [
        (
            "kinetics400_motion_descriptions.csv",
            ["knitting", "vault", "welding", "writing"],
            ["ironing", "plastering", "sailing", "smoking", "spraying"],
        ),
        ("uc101_motion.csv", ["Diving", "Parallel Bars"], ["Drumming"]),
        ("hmdb51_motion_with_objectname.csv", [], []),
        ("ucf101_without_objectname.csv", [], []),
    ],
)
def test_released_texts_that_name_their_class(
    shared_dir: Path, name: str, verbatim: list[str], inflected: list[str]
) -> None:
    found = {each: find_class_name(text, each) for each, text in released(shared_dir, name)}
    assert [each for each, words in found.items() if words == each.casefold()] == verbatim
    assert [each for each, words in found.items() if words and words != each.casefold()] == inflected


def test_no_released_text_seems_to_be_anything_but_plain_english(shared_dir: Path) -> None:
    counts: Counter[str] = Counter()
    files = sorted((shared_dir / "data/descriptions/devaraj").glob("*.csv"))
    for path in files:
        for class_name, text in released(shared_dir, path.name):
            counts["texts"] += 1
            for fault in faults(text, class_name):
                counts[" ".join(fault.split()[:3])] += 1
    assert counts.pop("it contains the") > 0
    assert counts == {"texts": 1408, "it says 'a": 22}  # the masked files' "a object"


# A set


def test_a_clean_set_has_no_findings() -> None:
    assert checked(class_names=["Walk", "run", "jump"]) == []


def test_faults_of_texts_are_errors_in_a_set() -> None:
    assert checked(row(0, "conceptual", "walking on the ground")) == [
        ("error", "walk", "conceptual", "'walking on the ground': it contains the class name 'walk' as 'walking'")
    ]


def test_masked_texts_are_looked_at_and_identical_ones_once() -> None:
    masked = [DescriptionRow(**{**vars(each), "masked_text": each.text}) for each in CLEAN if each.kind == "conceptual"]
    assert checked(*masked) == []
    faulty = [*masked[:2], row(2, "conceptual", masked[2].text, masked_text="it leaves a object")]
    [(level, name, kind, message)] = checked(*faulty)
    assert (level, name, kind) == ("error", "jump", "conceptual (masked)")
    assert "'a object'" in message
    equal = [row(place, "conceptual", GOOD, masked_text=GOOD) for place in range(2)]
    assert [kind for *_, kind, _ in checked(*equal, masked[2])] == ["conceptual"]
    merged = [row(place, "conceptual", masked[place].text, masked_text=GOOD) for place in range(2)]
    assert [kind for *_, kind, _ in checked(*merged, masked[2])] == ["conceptual (masked)"]
    half = [*equal, row(2, "conceptual", "it lands on a mat", masked_text="it lands on an object")]
    assert [kind for *_, kind, _ in checked(*half)] == ["conceptual"]  # the equal ones are told once
    assert checked(*masked[:2]) == [("error", "jump", "conceptual", "1 of 3 texts have not been masked")]


def test_classes_without_texts_of_a_kind_or_with_another_number_are_errors() -> None:
    extra = row(1, "discriminative", "both arms pump beside the trunk", rank=1, contrast_class="jump")
    assert checked(extra) == [("error", "run", "discriminative", "has 2 texts; most classes have 1")]
    assert checked(row(2, "action", "one leaves the ground")) == [
        ("error", "walk", "action", "has no text of this kind"),
        ("error", "run", "action", "has no text of this kind"),
    ]


def test_the_label_list_is_what_must_be_covered() -> None:
    assert checked(class_names=["walk", "run", "jump", "jumps", "skip"]) == [
        ("error", "jumps", "", "is not among the classes of the set: 'jumps' (nearest: 'jump')"),
        ("error", "skip", "", "is not among the classes of the set: 'skip' (nothing like it)"),
    ]
    assert checked(class_names=["walk", "run"]) == [
        ("error", "jump", "", "is not in the label list: 'jump' (nothing like it)"),
        ("error", "walk", "discriminative", "is told from 'jump', which is no class of the list"),
    ]
    [(level, _, _, message)] = checked(class_names=["run", "walk", "jump"])
    assert (level, message) == ("warning", "the classes are in another order than in the label list")


def test_errors_come_first() -> None:
    findings = checked(row(0, "conceptual", "walking on the ground"), class_names=["run", "walk", "jump"])
    assert [level for level, *_ in findings] == ["error", "warning"]


def test_equal_texts_are_errors_within_a_kind_and_within_a_class() -> None:
    same = row(2, "conceptual", "One foot is always on the ground.")
    assert checked(same) == [("error", "jump", "conceptual", f"{same.text!r} is also the text of walk, conceptual")]
    again = row(0, "discriminative", CLEAN[0].text, contrast_class="jump")
    assert checked(again) == [
        ("error", "walk", "discriminative", f"{again.text!r} is also the text of walk, conceptual")
    ]
    elsewhere = row(1, "discriminative", CLEAN[0].text, contrast_class="walk")
    assert checked(elsewhere) == []


def test_nearly_equal_texts_are_warned_of_and_the_order_of_words_counts() -> None:
    words = "in a slow wide turn the left arm swings past the head and comes to rest on top"
    near = [row(0, "conceptual", words), row(1, "conceptual", words.replace("left", "right"))]
    [(level, name, kind, message)] = checked(*near)
    assert (level, name, kind) == ("warning", "run", "conceptual")
    assert message.endswith(f"is nearly the text of walk, conceptual: {words!r} (similarity 0.84)")
    kept = [row(each.class_id, "conceptual", each.text, masked_text=each.text) for each in near]
    other = row(2, "conceptual", "it lands on a mat", masked_text="it lands on an object")
    assert [kind for *_, kind, _ in checked(*kept, other)] == ["conceptual"]
    turned = " ".join(reversed(words.split()))
    assert checked(near[0], row(1, "conceptual", turned)) == []


@pytest.mark.parametrize(
    ("contrast", "text", "level", "message"),
    [
        ("hop", "up and down", "error", "is told from 'hop', which is no class of the list"),
        ("Jump", "up and down", "error", "is told from itself"),
        ("run", "the body is up longer than in running", "warning", "names the class it is told from: 'running'"),
    ],
)
def test_discriminative_texts_tell_from_another_class_of_the_list(
    contrast: str, text: str, level: str, message: str
) -> None:
    [(found, name, kind, said)] = checked(row(2, "discriminative", text, contrast_class=contrast))
    assert (found, name, kind) == (level, "jump", "discriminative")
    assert said.endswith(message)


def test_the_same_contrast_twice_is_an_error() -> None:
    extra = [
        row(class_id, "discriminative", f"{GOOD} {class_id}", rank=1, contrast_class=contrast)
        for class_id, contrast in enumerate(("run", "walk", "walk"))
    ]
    messages = [message for level, _, _, message in checked(*extra) if level == "error"]
    assert messages == ["is told from 'walk' twice"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("one  foot is down", "it has two spaces in a row"),
        ("one foot’s on the ground – always", "it has characters beyond ASCII: ’–"),
    ],
)
def test_oddities_a_tokenizer_reads_right_are_warnings(text: str, message: str) -> None:
    assert checked(row(0, "conceptual", text)) == [("warning", "walk", "conceptual", f"{text!r}: {message}")]


def test_summary_counts_texts_and_names_the_longest() -> None:
    rows = (*CLEAN, row(0, "action", "walking along"), row(1, "action", "one two three four"), row(2, "action", "a b"))
    result = check_set(
        DescriptionSet(rows),
        count_tokens=lambda text: len(text.split()) + 2,
        class_names=["walk", "run", "jump", "hop"],
    )
    [action] = [summary for summary in result.summaries if summary.kind == "action"]
    unchanged = DescriptionSet((row(0, "action", GOOD, masked_text=GOOD), row(1, "action", "b c", masked_text="b d")))
    assert [each.kind for each in check_set(unchanged).summaries] == ["action", "action (masked)"]
    unchanged = DescriptionSet(unchanged.rows[:1])
    assert [each.kind for each in check_set(unchanged).summaries] == ["action"]
    assert (action.num_covered, action.num_classes, action.num_texts) == (3, 4, 3)
    assert (action.longest, action.longest_class, action.num_leaks) == (6, "run", 1)


@pytest.mark.slow
def test_two_thousand_texts_take_seconds() -> None:
    verbs = ["swings", "lifts", "turns", "pulls", "drops", "bends", "spins"]
    parts = ["arm", "leg", "head", "hand", "foot", "trunk", "wrist", "knee", "elbow", "hip", "shoulder"]
    rows = tuple(
        DescriptionRow(
            "many", index // 5, f"class {index // 5}", "discriminative", None, index % 5,
            f"the {parts[index % 11]} {verbs[index % 7]} {index} times while the {parts[index % 9]} "
            f"{verbs[index % 5]} past line {index % 83} and comes back to mark {index % 97} near the ground",
        )
        for index in range(2000)
    )  # fmt: skip
    start = time.perf_counter()
    check_set(DescriptionSet(rows))
    assert time.perf_counter() - start < 20  # about 3 on one core


# The verb


def describe(*arguments: object) -> Result:
    return run_cli("describe", *arguments)


def test_verb_prints_table_and_findings_and_fails_on_errors(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("walk\nrun\njump\n")
    write_jsonl(DescriptionSet(CLEAN), tmp_path / "clean.jsonl")
    result = describe("check", tmp_path / "clean.jsonl", "--labels", tmp_path / "list.txt", "--tokenizer", "none")
    assert result.exit_code == 0, result.output
    assert "conceptual     │     3/3 │     3 │           – │" in result.output
    assert result.output.endswith("0 errors, 0 warnings\n")

    (tmp_path / "list.txt").write_text("walk\nrun\njump\n[hop]\n")
    result = describe("check", tmp_path / "clean.jsonl", "--labels", tmp_path / "list.txt", "--tokenizer", "none")
    assert result.exit_code == 1
    assert "error: [hop]: is not among the classes" in result.output
    assert result.output.endswith("1 errors, 0 warnings\n")


def test_verb_counts_tokens_with_the_tokenizer_named(tmp_path: Path) -> None:
    small_tokenizer([each.text for each in CLEAN]).save_pretrained(tmp_path / "tokenizer")
    write_jsonl(DescriptionSet(CLEAN), tmp_path / "clean.jsonl")
    result = describe("check", tmp_path / "clean.jsonl", "--tokenizer", tmp_path / "tokenizer")
    assert result.exit_code == 0, result.output
    assert "12 │ run" in result.output
    result = describe("check", tmp_path / "clean.jsonl", "--tokenizer", tmp_path / "nowhere")
    assert result.exit_code == 1
