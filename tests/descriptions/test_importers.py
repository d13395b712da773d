"""The released CSV files: counts, names found by name and never by row, what was taken away, what is refused."""

import csv
from collections import Counter
from pathlib import Path

import pytest
from testing_utils import run_cli
from typer.testing import Result

from kinetext.data.label_lists import load_label_list
from kinetext.descriptions.files import read_set, write_jsonl, write_parquet
from kinetext.descriptions.importers import Import, import_csv

NAMES = ("kick", "kick ball", "Sky Diving")
ROWS = ("kick, swinging the leg back.", "kick ball,running  to the ball.", 'SkyDiving,"falling, arms spread."')


def written(folder: Path, *lines: str, name: str = "set.csv", end: str = "\r\n", bom: bool = False) -> Path:
    path = folder / name
    path.write_bytes(("\ufeff" * bom + end.join([*lines, ""])).encode())
    return path


def imported(path: Path, *, class_names: tuple[str, ...] | None = NAMES, **arguments: object) -> Import:
    values = {"kind": "characteristic", "dataset": "three", **arguments}
    return import_csv(path, class_names=class_names, **values)  # type: ignore[arg-type]


def texts_of(result: Import) -> list[str]:
    return [row.text for row in result.descriptions.rows]


def test_texts_follow_the_label_list_whatever_the_order_of_the_file(tmp_path: Path) -> None:
    result = imported(written(tmp_path, ROWS[2], ROWS[0], ROWS[1]))
    texts = ["swinging the leg back.", "running to the ball.", "falling, arms spread."]
    assert result.descriptions.class_names == NAMES
    assert texts_of(result) == texts
    swapped = imported(written(tmp_path, *ROWS), class_names=("kick ball", "kick", "Sky Diving"))
    assert texts_of(swapped) == [texts[1], texts[0], texts[2]]
    unlisted = imported(written(tmp_path, *ROWS), class_names=None)
    assert unlisted.descriptions.class_names == ("kick", "kick ball", "SkyDiving")


def test_what_is_taken_away_is_accounted_for(tmp_path: Path) -> None:
    result = imported(written(tmp_path, " kick , swinging.", *ROWS[1:], bom=True))
    assert result.changes == {
        "byte order mark": 1,
        "line ends of Windows": 3,
        "spaces around a name": 1,
        "spaces or empty lines around a text": 1,
        "double spaces inside a text": 1,
    }
    assert [(name.line, name.written, name.class_name, name.how) for name in result.alignment] == [
        (1, " kick ", "kick", "trimmed"),
        (2, "kick ball", "kick ball", "exact"),
        (3, "SkyDiving", "Sky Diving", "normalised"),
    ]


def test_numbered_file_with_a_header_and_texts_over_several_lines(tmp_path: Path) -> None:
    lines = [
        "SNo,Class Name,GPT3 discription",
        '1,kick,"',
        "",
        "The leg goes",
        'up"',
        "2,kick ball,A run.",
        "3,Sky Diving,A fall.",
    ]
    result = imported(written(tmp_path, *lines, end="\n"))
    assert texts_of(result) == ["The leg goes up", "A run.", "A fall."]
    assert result.unfinished == ("kick",)  # kept as it is
    assert result.changes == {"header": 1, "spaces or empty lines around a text": 1, "line breaks inside a text": 1}


def test_one_column_of_name_and_text(tmp_path: Path) -> None:
    result = imported(
        written(tmp_path, '" kick: refers to: a leg. "', "Kick Ball: refers to a ball.", "skydiving: falls.")
    )
    assert texts_of(result) == ["refers to: a leg.", "refers to a ball.", "falls."]


@pytest.mark.parametrize("name", ["Action", "Label", "Class"])
def test_first_class_that_is_called_like_a_column_is_no_header(tmp_path: Path, name: str) -> None:
    result = imported(written(tmp_path, f"{name},the body moves.", "kick,a leg."), class_names=None)
    assert texts_of(result) == ["the body moves.", "a leg."]


@pytest.mark.parametrize("header", ["activity,description", "id,Class Name,motion_description", "verb,Caption"])
def test_header_is_known_by_its_column_of_texts(tmp_path: Path, header: str) -> None:
    rows = [f"{number},{row}" if header.count(",") == 2 else row for number, row in enumerate(ROWS)]
    result = imported(written(tmp_path, header, *rows))
    assert result.changes["header"] == 1 and len(result.alignment) == 3


def test_one_column_may_hold_commas_that_nobody_quoted(tmp_path: Path) -> None:
    result = imported(written(tmp_path, "kick: a leg, fast.", "kick ball: runs, then kicks.", "Sky Diving: falls."))
    assert texts_of(result) == ["a leg, fast.", "runs, then kicks.", "falls."]


@pytest.mark.parametrize("separator", ["\u2028", "\x1c", "\x85"])
def test_only_line_ends_end_a_row(tmp_path: Path, separator: str) -> None:
    result = imported(written(tmp_path, f"kick,a{separator}leg.", *ROWS[1:]))
    assert texts_of(result)[0] == "a leg." and result.changes["line breaks inside a text"] == 1


def test_texts_that_tell_classes_apart_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="kind='discriminative': .* choose of conceptual, characteristic, action"):
        imported(written(tmp_path, *ROWS), kind="discriminative")


def test_masked_texts_join_by_name(tmp_path: Path) -> None:
    masked = ["Sky Diving,falling.", "kick,swinging the  object back.", "kick ball,running to the object."]
    result = imported(written(tmp_path, *ROWS), masked_path=written(tmp_path, *masked, name="masked.csv"))
    assert [row.masked_text for row in result.descriptions.rows] == [
        "swinging the object back.", "running to the object.", "falling."
    ]  # fmt: skip
    assert result.changes["double spaces inside a text"] == 2
    with pytest.raises(ValueError, match=r"masked\.csv does not have each class .* 1 without a text: 'Sky Diving'"):
        imported(written(tmp_path, *ROWS), masked_path=written(tmp_path, *masked[1:], name="masked.csv"))


def test_provenance_is_the_repository_for_known_files_and_the_name_for_others(tmp_path: Path) -> None:
    row = imported(written(tmp_path, *ROWS)).descriptions.rows[0]
    assert (row.provider, row.model, row.kind, row.dataset) == ("set.csv", "", "characteristic", "three")
    row = imported(written(tmp_path, *ROWS), provider="me", model="none").descriptions.rows[0]
    assert (row.provider, row.model) == ("me", "none")


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([], "holds no descriptions"),
        (["name,description"], "holds no descriptions"),
        (["kick,a,b,c"], r"line 1: 4 columns, \['kick', 'a', 'b', 'c'\]; wanted is name,description; number"),
        (["x,kick,a"], "line 1: 3 columns"),
        (["kick,"], "line 1: the name is 'kick' and the description ''; both are needed"),
        (["kick"], "line 1: the name is 'kick' and the description ''"),
        ([",a"], "line 1: the name is '' and the description 'a'"),
        ([*ROWS, "Kick,again."], r"1 named twice: 'kick' \(line 1\) and 'Kick' \(line 4\)"),
        ([*ROWS, "kicks,again."], r"1 not in the label list: 'kicks' \(nearest: 'kick', 'kick ball'\) in line 4"),
        (ROWS[:2], r"1 without a text: 'Sky Diving' \(nothing like it\)"),
        (
            [f"class {letter},a" for letter in "abcdefghijkl"],
            "12 not in the label list: .* and 2 more. 3 without a text",
        ),
        (['kick,"open'], "line 1: unexpected end of data"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, lines: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=rf"set\.csv.*{message}"):
        imported(written(tmp_path, *lines))


def test_files_that_are_not_there_or_not_text_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere.csv"):
        imported(tmp_path / "nowhere.csv")
    path = tmp_path / "set.csv"
    path.write_bytes("kick,naïve".encode("latin-1"))
    with pytest.raises(ValueError, match="is not UTF-8 text"):
        imported(path)


# The released files

RELEASED = [
    ("kinetics400_motion_descriptions.csv", "kinetics400", {"exact": 400}),
    ("Kinetics400_action_descrptions.csv", "kinetics400", {"exact": 100, "trimmed": 26, "normalised": 274}),
    ("uc101_motion.csv", "ucf101", {"exact": 100, "normalised": 1}),
    ("ucf101_without_objectname.csv", "ucf101", {"exact": 100, "normalised": 1}),
    ("ucf_descriptions.csv", "ucf101", {"exact": 100, "normalised": 1}),
    ("ucf_motion_alternate_version.csv", "ucf101", {"exact": 100, "normalised": 1}),
    ("hmdb51_motion_with_objectname.csv", "hmdb51", {"exact": 51}),
    ("HMDB51_without_objectname.csv", "hmdb51", {"exact": 51}),
    ("hmdb_descriptions.csv", "hmdb51", {"exact": 51}),
    ("hmdb51_motion_alternate_version.csv", "hmdb51", {"exact": 51}),
]


@pytest.mark.parametrize(("name", "labels", "how"), RELEASED)
def test_released_file_keeps_every_word_under_its_own_class(
    shared_dir: Path, tmp_path: Path, name: str, labels: str, how: dict[str, int]
) -> None:
    path = shared_dir / "data/descriptions/devaraj" / name
    names = load_label_list(labels).class_names
    result = import_csv(path, kind="characteristic", dataset=labels, class_names=names)
    assert len(result.descriptions.rows) == {"kinetics400": 400, "ucf101": 101, "hmdb51": 51}[labels]
    assert result.descriptions.class_names == names
    assert Counter(name.how for name in result.alignment) == how
    for row in result.descriptions.rows:
        assert row.text == " ".join(row.text.split()) and row.text.isprintable()
        assert (row.provider, row.model) == ("chinmayad/motiondescriptions", "gpt-4")
    # By another way through the file: every text is found with its own name, word for word.
    raw = path.read_bytes().decode("utf-8-sig")
    said = {
        "".join(row[0].partition(":")[0].lower().split()): " ".join(
            (row[1] if row[1:] else row[0].partition(":")[2]).split()
        )
        for row in csv.reader(raw.splitlines())
    }
    assert {"".join(row.class_name.lower().split()): row.text for row in result.descriptions.rows} == said

    write_jsonl(result.descriptions, tmp_path / "set.jsonl")
    write_parquet(result.descriptions, tmp_path / "set.parquet")
    assert read_set(tmp_path / "set.jsonl") == read_set(tmp_path / "set.parquet") == result.descriptions


def test_released_names_are_found_in_the_original_spelling_of_ucf(shared_dir: Path) -> None:
    """The label files of UCF-101 write names in CamelCase."""
    names = load_label_list(shared_dir / "data/labels/ucf101.txt").class_names
    path = shared_dir / "data/descriptions/devaraj/uc101_motion.csv"
    result = import_csv(path, kind="characteristic", dataset="ucf101", class_names=names)
    assert Counter(name.how for name in result.alignment) == {"exact": 25, "normalised": 76}
    assert result.alignment[0].written == "Apply Eye Makeup"
    assert result.alignment[0].class_name == "ApplyEyeMakeup"
    assert result.changes == {
        "line ends of Windows": 101, "spaces or empty lines around a text": 75, "double spaces inside a text": 9
    }  # fmt: skip


def test_swapped_label_orders_give_the_same_texts_per_class(shared_dir: Path) -> None:
    path = shared_dir / "data/descriptions/devaraj/hmdb51_motion_with_objectname.csv"
    names = list(load_label_list("hmdb51").class_names)
    swapped = list(names)
    for one, other in (("kick", "kick ball"), ("sword", "sword exercise")):  # as X-CLIP's label file has them
        swapped[names.index(one)], swapped[names.index(other)] = other, one
    results = [
        import_csv(path, kind="characteristic", dataset="hmdb51", class_names=each).descriptions
        for each in (names, swapped)
    ]
    texts = [{row.class_name: row.text for row in result.rows} for result in results]
    assert texts[0] == texts[1]
    assert results[1].class_names[20] == "kick ball"
    assert texts[0]["kick ball"].startswith("running towards the ball")


@pytest.mark.parametrize(
    ("plain", "masked", "labels", "differing"),
    [
        ("uc101_motion.csv", "ucf101_without_objectname.csv", "ucf101", 54),
        ("hmdb51_motion_with_objectname.csv", "HMDB51_without_objectname.csv", "hmdb51", 21),
    ],
)
def test_released_masked_files_join_their_plain_ones(
    shared_dir: Path, plain: str, masked: str, labels: str, differing: int
) -> None:
    folder = shared_dir / "data/descriptions/devaraj"
    names = load_label_list(labels).class_names
    arguments = {"kind": "characteristic", "dataset": labels, "class_names": names}
    joined = import_csv(folder / plain, masked_path=folder / masked, **arguments).descriptions
    alone = import_csv(folder / masked, **arguments).descriptions
    assert [row.masked_text for row in joined.rows] == [row.text for row in alone.rows]
    assert sum(row.masked_text != row.text for row in joined.rows) == differing


def test_numbered_file_of_ez_clip(shared_dir: Path) -> None:
    path = shared_dir / "data/descriptions/ezclip/Something_gpt_Class_discription_new.csv"
    names = load_label_list("ssv2").class_names
    result = import_csv(path, kind="action", dataset="ssv2", class_names=names)
    assert len(result.descriptions.rows) == 174
    assert Counter(name.how for name in result.alignment) == {"exact": 174}
    assert result.changes == {"header": 1, "spaces or empty lines around a text": 174}
    assert len(result.unfinished) == 127
    first = result.descriptions.rows[0]
    assert first.text.startswith("Approaching something with a camera is") and first.text.endswith("image is properly")
    assert (first.provider, first.model) == ("Shahzadnit/EZ-CLIP", "gpt-3")


# The verb


def describe(*arguments: object) -> Result:
    return run_cli("describe", "import", *arguments)


def test_verb_writes_the_set_and_prints_what_was_normalised(tmp_path: Path) -> None:
    (tmp_path / "three.txt").write_text("\n".join(NAMES))
    path = written(tmp_path, ROWS[0].rstrip("."), *ROWS[1:])
    masked = written(tmp_path, *ROWS, name="masked.csv")
    out = tmp_path / "set.jsonl"
    result = describe(path, "--kind", "action", "--labels", tmp_path / "three.txt", "--masked", masked, "--out", out)
    assert result.exit_code == 0, result.output
    read = read_set(out)
    assert (read.dataset, read.class_names, read.kinds) == ("three", NAMES, ("action",))
    assert read.rows[1].masked_text == "running to the ball."
    assert "│    3 │ 'SkyDiving' │ Sky Diving │ normalised │" in result.output
    assert "'kick'" not in result.output
    assert "3 classes aligned by name: 2 exact, 1 normalised" in result.output
    assert "taken away: line ends of Windows, 6 times" in result.output
    assert "warning: 1 texts end without a full stop, perhaps cut short: kick\n" in result.output


def test_verb_writes_nothing_if_the_names_do_not_fit(tmp_path: Path) -> None:
    path, out = written(tmp_path, *ROWS), tmp_path / "set.jsonl"
    result = describe(path, "--kind", "action", "--labels", "weizmann", "--out", out)
    assert result.exit_code == 1
    assert not out.exists()
    assert describe(path, "--kind", "action", "--labels", "weizmann", "--out", tmp_path / "set.csv").exit_code == 1
