"""Description sets: what is read, how classes are matched, what is refused, and what the shipped sets promise."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import kinetext.descriptions
from kinetext.descriptions import DescriptionRow, Descriptions, DescriptionSet, load_description_set, load_descriptions
from kinetext.descriptions.files import write_atomically, write_jsonl, write_parquet
from kinetext.descriptions.schema import normalised_name

CONTENT = {"Waving one-hand": ["a hand goes from side to side", "one arm moves"], "push_up": ["the body rises"]}


def written(folder: Path, content: str, *, name: str = "set.yaml") -> Path:
    path = folder / name
    path.write_text(content, "utf-8")
    return path


def row(class_id: object, kind: str = "conceptual", **fields: object) -> DescriptionRow:
    values = {"dataset": "two", "class_name": f"class {class_id}", "contrast_class": None, "rank": 0, **fields}
    values = {"text": f"{kind} of {class_id}", **values}
    return DescriptionRow(class_id=class_id, kind=kind, **values)  # type: ignore[arg-type]


@pytest.mark.parametrize(("name", "dump"), [("set.yaml", yaml.safe_dump), ("set.JSON", json.dumps)])
def test_yaml_and_json_are_read_alike(tmp_path: Path, name: str, dump: object) -> None:
    loaded = load_descriptions(written(tmp_path, dump(CONTENT), name=name))  # type: ignore[operator]
    assert dict(zip(loaded.class_names, loaded.texts, strict=True)) == CONTENT


def test_texts_come_in_the_order_of_the_classes_asked_for() -> None:
    loaded = Descriptions(tuple(CONTENT), list(CONTENT.values()))
    assert loaded.for_classes(["PUSH-UP", "waving_one hand"]) == [["the body rises"], CONTENT["Waving one-hand"]]
    loaded.for_classes(["push up"])[0].append("changed")
    assert loaded.texts[1] == ["the body rises"]


def test_classes_without_descriptions_are_listed_with_the_nearest_names() -> None:
    loaded = Descriptions(tuple(CONTENT), list(CONTENT.values()))
    message = (
        "2 of 3 classes have no descriptions: 'push ups' (nearest: 'push_up'); '日本' (nothing like it). "
        "Add them to the file, or rename the classes."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        loaded.for_classes(["push ups", "push up", "日本"])


def test_missing_file_is_refused_with_the_shipped_names(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no file 'wiezmann' .* sets are: hmdb51, kinetics400, motion_shapes"):
        load_descriptions("wiezmann")
    with pytest.raises(ValueError, match="holds neither descriptions.jsonl"):
        load_descriptions(tmp_path)


@pytest.mark.parametrize("name", ["sets/mine.yaml", "./mine", "../mine", ""])
def test_what_can_be_no_name_on_the_hub_is_not_asked_for_there(name: str) -> None:
    with pytest.raises(FileNotFoundError, match=f"no file '{re.escape(name)}' and no shipped set"):
        load_descriptions(name)


def test_hub_out_of_reach_is_told_from_a_missing_data_set() -> None:
    with pytest.raises(FileNotFoundError, match="no file 'runs/ucf', and no copy .* the Hub cannot be reached"):
        load_descriptions("runs/ucf")
    with pytest.raises(ValueError, match="revision='' is empty"):
        load_descriptions("runs/ucf", revision="")


def test_folder_of_a_run_is_read_as_its_set(tmp_path: Path) -> None:
    described = DescriptionSet((row(0), row(1)))
    write_jsonl(described, tmp_path / "descriptions.jsonl")
    assert load_description_set(tmp_path) == described
    write_parquet(described, tmp_path / "data/train.parquet")
    with pytest.raises(ValueError, match=r"holds descriptions\.jsonl and parquet files"):
        load_description_set(tmp_path)


def test_shipped_name_that_is_also_a_file_or_a_folder_with_a_set_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ucf101").mkdir()
    (tmp_path / "ucf101/video.avi").touch()
    assert len(load_descriptions("ucf101").texts) == 101  # a folder of something else
    described = DescriptionSet((row(0),))
    write_jsonl(described, tmp_path / "ucf101/descriptions.jsonl")
    with pytest.raises(ValueError, match=r"'ucf101' is shipped with kinetext, and something else .* write '\./ucf101'"):
        load_descriptions("ucf101")
    assert load_description_set("./ucf101") == described
    (tmp_path / "weizmann").touch()
    with pytest.raises(ValueError, match="'weizmann' is shipped with kinetext"):
        load_descriptions("weizmann")


# Texts of the kinds asked for


def test_every_class_needs_every_kind_but_only_conceptual_ones_by_default() -> None:
    described = DescriptionSet((row(0), row(1), row(0, "discriminative"), row(1, "action")))
    assert described.texts().texts == [["conceptual of 0", "discriminative of 0"], ["conceptual of 1"]]
    with pytest.raises(ValueError, match="1 classes of two have no action text: class 0"):
        described.texts(["conceptual", "action"])
    with pytest.raises(ValueError, match="two has no characteristic texts; ask for kinds="):
        described.texts(["characteristic", "conceptual"])
    with pytest.raises(ValueError, match="1 classes of two have no conceptual text: class 1"):
        DescriptionSet((row(0), row(1, "discriminative"))).texts()


def test_kinds_come_in_the_order_asked_for() -> None:
    described = DescriptionSet((row(0), row(0, "action"), row(0, "action", rank=1, text="later")))
    assert described.texts(["action", "conceptual"]).texts == [["action of 0", "later", "conceptual of 0"]]


@pytest.mark.parametrize(
    ("kinds", "message"),
    [
        ("characteristic", r"kinds='characteristic' is one text; a list of kinds is wanted: \['characteristic'\]"),
        ((), r"kinds=\(\); choose one or more of conceptual"),
        (["motion"], r"kinds=\('motion',\); choose one or more of conceptual"),
    ],
)
def test_kinds_that_are_none_are_refused(kinds: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_descriptions("weizmann", kinds=kinds)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("names", "message"), [("Diving", r"one text; .*\['Diving'\]"), ([None], "None among the class names is no text")]
)
def test_class_names_that_are_none_are_refused(names: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Descriptions(("Diving",), [["down"]]).for_classes(names)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("Café", "cafe\u0301", True),  # composed and decomposed
        ("ＲＵＮ", "run", True),
        ("दौड़ना", "दौड़नी", False),  # vowels that are combining marks
        ("push_up", "Push-Up", True),
    ],
)
def test_names_are_compared_in_one_form_of_unicode(one: str, other: str, same: bool) -> None:
    assert (normalised_name(one) == normalised_name(other)) == same


# Files


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("- a\n- b", "holds a list; a mapping of class names"),
        ("", "holds nothing; a mapping"),
        ("{}", "holds nothing; a mapping"),
        ("run: []", "'run' has nothing; a list of one or more"),
        ("run:", "'run' has nothing; a list"),
        ("run: fast steps", "'run' has the text 'fast steps'; a list"),
        ("run: [fast, 3]", "description 1 of 'run' is a int; write a text"),
        ("run: [fast, order: left]", "description 1 of 'run' is a dict; .*colon"),
        ("run: [fast, ' ']", "description 1 of 'run' is an empty text"),
        ("yes: [fast]", "class name True is a bool; write a text, in quotes"),
        ("' ': [fast]", "class name ' ' is an empty text"),
        ("push_up: [a]\nPush-Up: [b]", "'push_up' and 'Push-Up' are the same class name"),
        ("run: [a]\nrun: [b]", "'run' is there twice; merge the two, or leave one out"),
        ("run: [a", "cannot be read: "),
        ("[" * 5000, "cannot be read: "),
        ('"run\\tfast": [a]', r"class name 'run\\tfast' has a line break or another control"),
    ],
)
def test_wrong_files_are_refused(tmp_path: Path, content: str, message: str) -> None:
    path = written(tmp_path, content)
    with pytest.raises(ValueError, match=f"^{re.escape(str(path))}.*{message}"):
        load_descriptions(path)


def test_keys_given_twice_are_refused_in_json_too(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="'run' is there twice"):
        load_descriptions(written(tmp_path, '{"run": ["a"], "run": ["b"]}', name="set.json"))


def test_other_endings_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"ends with '.csv'; description files end with .jsonl, .parquet, .yaml"):
        load_descriptions(written(tmp_path, "a,b", name="set.csv"))


def test_the_folder_runs_without_the_rest_of_kinetext_and_without_torch() -> None:
    folder = Path(kinetext.descriptions.__file__).parent
    code = "import descriptions as d, sys; d.load_descriptions('weizmann'); sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=folder.parent, env={"PYTHONPATH": str(folder.parent)})


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"dataset": None}, "dataset=None; a text of one line"),
        ({"created_at": None}, "created_at=None; a text of one line"),
        ({"params": {}}, r"params=\{\}; a text of one line"),
        ({"model": "a\nb"}, r"model='a\\nb'; a text of one line"),
        ({"rank": 0.0}, "rank=0.0; a whole number that counts from 0"),
        ({"class_id": True}, "class_id=True; a whole number"),
        ({"class_name": 5}, "class_name=5 has no letter or digit"),
        ({"class_name": "run\nfast"}, "has a line break or another control character"),
        ({"class_name": "run \x1b[31m"}, "has a line break or another control character"),
        ({"kind": "discriminative", "contrast_class": float("nan")}, "contrast_class=nan has no letter"),
        ({"kind": "discriminative", "contrast_class": 5}, "contrast_class=5 has no letter"),
    ],
)
def test_values_of_another_type_are_refused(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        row(**{"class_id": 0, **fields})  # type: ignore[arg-type]


def test_json_begins_with_a_byte_order_mark_or_not(tmp_path: Path) -> None:
    assert load_descriptions(written(tmp_path, '\ufeff{"run": ["a b"]}', name="set.json")).texts == [["a b"]]


def test_nesting_too_deep_to_read_is_refused(tmp_path: Path) -> None:
    deep = "[" * 100_000 + "]" * 100_000
    for name in ("set.json", "set.jsonl"):
        with pytest.raises(ValueError, match=rf"{name}(, line 1 is not JSON| cannot be read)"):
            load_descriptions(written(tmp_path, deep, name=name))


def test_files_are_written_through_a_symbolic_link_and_with_usual_permissions(tmp_path: Path) -> None:
    link, target = tmp_path / "link.jsonl", tmp_path / "kept/target.jsonl"
    link.symlink_to(target)
    write_atomically(link, b"new")
    assert link.is_symlink() and target.read_bytes() == b"new"
    os.umask(umask := os.umask(0))
    assert target.stat().st_mode & 0o777 == 0o666 & ~umask
    assert [path.name for path in target.parent.iterdir()] == ["target.jsonl"]
