"""Description sets: what is read, how classes are matched, what is refused, and what the shipped sets promise."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import kinetext.descriptions
from kinetext.data.motion_shapes import SEEN_CLASSES, UNSEEN_CLASSES
from kinetext.data.small_tokenizer import small_tokenizer
from kinetext.descriptions import Descriptions, load_descriptions, shipped_descriptions

WEIZMANN = ("bend", "jack", "jump", "pjump", "run", "side", "skip", "walk", "wave1", "wave2")
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
    with pytest.raises(FileNotFoundError, match=r"no file 'wiezmann' .* sets are: motion_shapes, weizmann\."):
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


# The shipped sets


@pytest.mark.parametrize(
    ("name", "classes"), [("motion_shapes", SEEN_CLASSES + UNSEEN_CLASSES), ("weizmann", WEIZMANN)]
)
def test_shipped_set_has_four_texts_of_its_own_for_every_class(name: str, classes: tuple[str, ...]) -> None:
    loaded = load_descriptions(name)
    assert set(loaded.class_names) == set(classes)
    assert all(len(texts) == len(set(texts)) == 4 for texts in loaded.texts)
    conceptual = [texts[0] for texts in loaded.texts]
    assert len(set(conceptual)) == len(conceptual)
    assert len({frozenset(texts) for texts in loaded.texts}) == len(classes)


def test_shipped_sets_are_all_listed() -> None:
    assert shipped_descriptions() == ["motion_shapes", "weizmann"]


@pytest.mark.parametrize("name", ["motion_shapes", "weizmann"])
def test_shipped_texts_are_far_shorter_than_the_context(name: str) -> None:
    texts = [text for texts in load_descriptions(name).texts for text in texts]
    lengths = [len(ids) for ids in small_tokenizer(texts)(texts)["input_ids"]]
    assert max(lengths) <= 40


def test_unseen_motions_are_described_in_words_of_seen_ones() -> None:
    loaded = load_descriptions("motion_shapes")
    words = [
        {word.strip(",;") for text in texts for word in text.split()} for texts in loaded.for_classes(SEEN_CLASSES)
    ]
    seen = set().union(*words)
    unseen = {word.strip(",;") for texts in loaded.for_classes(UNSEEN_CLASSES) for t in texts for word in t.split()}
    assert unseen - seen <= {"grows", "shrinks"}


@pytest.mark.parametrize(
    ("one", "other", "swaps"),
    [
        ("moving left", "moving right", {"left": "right"}),
        ("moving up and left", "moving up and right", {"left": "right"}),
        ("rotating clockwise", "rotating counterclockwise", {"clockwise": "counterclockwise"}),
        ("growing", "shrinking", {"larger": "smaller"}),
        ("orbiting clockwise", "orbiting counterclockwise", {"clockwise": "counterclockwise"}),
    ],
)
def test_a_motion_and_its_reverse_are_conceived_alike(one: str, other: str, swaps: dict[str, str]) -> None:
    [[concept, *_], [reverse, *_]] = load_descriptions("motion_shapes").for_classes([one, other])
    assert " ".join(swaps.get(word, word) for word in concept.split()) == reverse
