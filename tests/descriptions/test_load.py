"""Description sets: what is read, how classes are matched, what is refused, and what the shipped sets promise."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import kinetext.descriptions
from kinetext.descriptions import Descriptions, load_descriptions

CONTENT = {"Waving one-hand": ["a hand goes from side to side", "one arm moves"], "push_up": ["the body rises"]}


def written(folder: Path, content: str, *, name: str = "set.yaml") -> Path:
    path = folder / name
    path.write_text(content, "utf-8")
    return path


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
    with pytest.raises(ValueError, match="holds no parquet file"):
        load_descriptions(tmp_path)
    with pytest.raises(FileNotFoundError, match="no file 'sets/mine.yaml'"):  # no request to the Hub
        load_descriptions("sets/mine.yaml")


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
        ("run: [a]\nrun: [b]", "'run' is there twice; merge the two lists"),
        ("run: [a", "cannot be read: "),
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
