"""Description sets through the real Hub clients against a local stand-in: pushed whole or not at all."""

import dataclasses
import json
import re
import signal
import time
from pathlib import Path

import pytest
import yaml
from huggingface_hub import DatasetCard

from kinetext.descriptions import (
    DescriptionRow,
    DescriptionSet,
    load_description_set,
    load_descriptions,
    shipped_descriptions,
)
from kinetext.descriptions.files import read_folder, write_jsonl
from kinetext.hub_cards.dataset_card import dataset_card, write_dataset_folder

REPOSITORY = Path(__file__).resolve().parents[2]
PUSH = ("-m", "kinetext.cli", "push", "descriptions", "--tokenizer", "none")
LOAD = "import sys, json; from kinetext.descriptions import load_descriptions as l; print(json.dumps(l({}).texts))"
NAME = "alice/weizmann-motion"


def texts_loaded(hub_client, call: str, **options: str) -> list[list[str]]:
    return json.loads(hub_client.run("-c", LOAD.format(call), **options).splitlines()[-1])


@pytest.mark.parametrize("private", [False, True])
def test_pushed_texts_load_with_kinetext_and_with_plain_datasets(hub_client, private: bool) -> None:
    output = hub_client.run(*PUSH, "weizmann", NAME, *(["--private"] if private else []))
    assert "pushed to alice/weizmann-motion, commit" in output
    assert set(hub_client.hub.files(NAME, "datasets")) == {"README.md", "data/train-00000-of-00001.parquet"}
    assert texts_loaded(hub_client, repr(NAME)) == load_descriptions("weizmann").texts
    code = f"""
from datasets import load_dataset
whole = load_dataset({NAME!r}, split="train")
streamed = list(load_dataset({NAME!r}, split="train", streaming=True))
assert list(whole) == streamed
print(len(streamed), streamed[0]["text"], whole.features["rank"].dtype)
"""
    rows = load_description_set("weizmann").rows
    assert hub_client.run("-c", code).splitlines()[-1] == f"{len(rows)} {rows[0].text} int64"
    stranger = {"user": "bob", "cache": "bob"}
    if private:
        errors = hub_client.run("-c", LOAD.format(repr(NAME)), fails=True, **stranger)
        assert "no data set of that name on the Hub that you may read" in errors
    else:
        assert texts_loaded(hub_client, repr(NAME), **stranger) == load_descriptions("weizmann").texts


def test_a_revision_pins_the_texts(hub_client, tmp_path: Path) -> None:
    hub_client.run(*PUSH, "weizmann", NAME)
    tag = f"from huggingface_hub import HfApi as A; A().create_tag({NAME!r}, tag='v1', repo_type='dataset')"
    hub_client.run("-c", tag)
    rows = tuple(row for row in load_description_set("weizmann").rows if row.kind == "conceptual")
    write_jsonl(DescriptionSet(rows), tmp_path / "weizmann.jsonl")
    hub_client.run(*PUSH, str(tmp_path / "weizmann.jsonl"), NAME, "--license", "mit")
    assert texts_loaded(hub_client, repr(NAME)) == [[row.text] for row in rows]
    assert texts_loaded(hub_client, f"{NAME!r}, revision='v1'") == load_descriptions("weizmann").texts
    errors = hub_client.run("-c", LOAD.format(f"{NAME!r}, revision='v2'"), fails=True)
    assert f"the data set {NAME} on the Hub has no revision 'v2'" in errors


def test_the_card_is_valid_and_says_what_is_inside(hub_client) -> None:
    hub_client.run(*PUSH, "ucf101", "alice/ucf101-motion")
    card = DatasetCard(hub_client.hub.files("alice/ucf101-motion", "datasets")["README.md"].decode())
    assert card.data.license == "apache-2.0" and card.data.size_categories == "n<1K"
    assert card.data.configs[0]["data_files"][0]["path"] == "data/train-00000-of-00001.parquet"
    assert ("POST", "/api/validate-yaml", 200) in hub_client.hub.requests
    for column in ("class_name", "contrast_class", "prompt_sha256", "created_at"):
        assert re.search(rf"^\| `{column}` \| string \| \S", card.text, re.MULTILINE)
    assert "| discriminative | 505 | 5 | 1.0 |" in card.text
    assert "@inproceedings{moted2024" in card.text and "@article{devaraj2024" in card.text
    assert "None" not in card.text.replace("None if", "").replace("None where", "") and "{{" not in card.text


def test_a_dry_run_writes_the_same_and_asks_nobody(hub_client, tmp_path: Path) -> None:
    output = hub_client.run(*PUSH, "weizmann", NAME, "--dry-run", str(tmp_path / "dry"))
    assert "nothing was pushed" in output and hub_client.hub.requests == []
    assert read_folder(tmp_path / "dry") == load_description_set("weizmann")
    assert load_descriptions(tmp_path / "dry").texts == load_descriptions("weizmann").texts
    hub_client.run(*PUSH, "weizmann", NAME)
    assert hub_client.hub.files(NAME, "datasets")["README.md"] == (tmp_path / "dry/README.md").read_bytes()


# What goes wrong


@pytest.mark.parametrize(
    ("token", "name", "message"),
    [
        ("hf_mistyped", NAME, "no token or a wrong one; set HF_TOKEN"),
        ("tok-bob", NAME, "may not write to alice/weizmann-motion"),
        ("tok-alice", "alice/a b", "alice/a b"),
    ],
)
def test_who_may_not_push_is_told_why_and_nothing_is_made(hub_client, token: str, name: str, message: str) -> None:
    errors = hub_client.run(*PUSH, "weizmann", name, fails=True, HF_TOKEN=token)
    assert message in errors and "Traceback" not in errors and token not in errors
    assert hub_client.hub.state.repos == {}


def test_a_public_repository_is_not_taken_for_private_texts(hub_client) -> None:
    hub_client.run(*PUSH, "weizmann", NAME)
    errors = hub_client.run(*PUSH, "weizmann", NAME, "--private", fails=True)
    assert f"{NAME} is there already and public" in errors


@pytest.mark.parametrize("route", ["/commit/", "/info/lfs/objects/batch"])
def test_an_upload_that_is_cut_off_leaves_no_repository(hub_client, route: str) -> None:
    cut_off(hub_client.hub, route)
    errors = hub_client.run(*PUSH, "weizmann", NAME, fails=True)
    assert f"{NAME} was not pushed, nothing of it is on the Hub" in errors and "Traceback" not in errors
    assert hub_client.hub.state.repos == {}


def test_an_upload_that_is_cut_off_leaves_what_was_there(hub_client) -> None:
    hub_client.run(*PUSH, "weizmann", NAME)
    before = hub_client.hub.files(NAME, "datasets")
    cut_off(hub_client.hub, "/commit/")
    hub_client.run(*PUSH, "motion_shapes", NAME, fails=True)
    assert hub_client.hub.files(NAME, "datasets") == before


def test_ctrl_c_during_an_upload_leaves_no_repository(hub_client) -> None:
    waiting = cut_off(hub_client.hub, "/commit/", seconds=20)
    process = hub_client.start(*PUSH, "weizmann", NAME)
    while not waiting:
        time.sleep(0.05)
        assert process.poll() is None, process.communicate()
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode != 0 and hub_client.hub.state.repos == {}


def cut_off(hub, route: str, *, seconds: float = 0) -> list[str]:
    """Makes the stub close the connection, after a while, whenever `route` is asked for; lists these requests."""
    asked: list[str] = []

    class Handler(hub.server.RequestHandlerClass):
        def handle_request(self) -> None:
            if route not in self.path:
                return super().handle_request()
            asked.append(self.path)
            time.sleep(seconds)
            self.close_connection = True
            self.connection.close()

        do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = handle_request

    hub.server.RequestHandlerClass = Handler
    return asked


def test_a_set_with_errors_and_a_set_without_licence_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "moves.yaml"
    path.write_text(yaml.safe_dump({"wave": ["a hand waves from side to side"], "run": ["fast steps across the view"]}))
    with pytest.raises(ValueError, match="say under which licence"):
        write_dataset_folder(path, NAME, tmp_path / "out", license=None)
    with pytest.raises(ValueError, match=r"1 errors in the texts of moves, the first of 'wave': .*class name 'wave'"):
        write_dataset_folder(path, NAME, tmp_path / "out", license="mit")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("repo_id", "license", "message"),
    [
        ("weizmann", "mit", "'weizmann' is no id of a data set"),
        ("alice/moves.json", "mit", "does not end like a file"),
        ("alice/x y", "mit", "alice/x y"),
        (NAME, "not a licence", "license='not a licence' is none of the Hub's ids"),
    ],
)
def test_a_dry_run_refuses_what_a_push_would(tmp_path: Path, repo_id: str, license: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        write_dataset_folder("weizmann", repo_id, tmp_path / "out", license=license)
    assert not (tmp_path / "out").exists()


def test_a_dry_run_leaves_a_folder_with_files_alone(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("mine")
    with pytest.raises(ValueError, match="is not empty"):
        write_dataset_folder("weizmann", NAME, tmp_path, license=None)
    assert [path.name for path in tmp_path.iterdir()] == ["README.md"]


def test_the_card_lists_the_errors_of_a_set_pushed_with_them(tmp_path: Path) -> None:
    path = tmp_path / "moves.yaml"
    path.write_text(yaml.safe_dump({"wave": ["a hand waves from side to side"], "run": ["fast steps across the view"]}))
    write_dataset_folder(path, NAME, tmp_path / "out", license="mit", with_faults=True)
    card = (tmp_path / "out/README.md").read_text("utf-8")
    assert "finds 1 errors and 0 warnings:" in card
    assert "- `wave`, conceptual: 'a hand waves from side to side': it contains the class name 'wave'" in card


def test_parquet_files_that_were_there_are_replaced(hub_client) -> None:
    old = "from huggingface_hub import HfApi as A; a = A(); a.create_repo({0!r}, repo_type='dataset'); " + (
        "[a.upload_file(path_or_fileobj=b'x', path_in_repo=p, repo_id={0!r}, repo_type='dataset')"
        " for p in ('data/train-00000-of-00002.parquet', 'notes.txt')]"
    )
    hub_client.run("-c", old.format(NAME))
    hub_client.run(*PUSH, "weizmann", NAME)
    assert {"notes.txt", "README.md", "data/train-00000-of-00001.parquet"} == set(
        name for name in hub_client.hub.files(NAME, "datasets") if name != ".gitattributes"
    )
    assert texts_loaded(hub_client, repr(NAME)) == load_descriptions("weizmann").texts


def test_texts_made_alike_are_one_line_of_provenance() -> None:
    made = {"provider": "local", "model": "m", "prompt_id": "moted-conceptual-1", "params": '{"seed": 1}'}
    days = ("2026-11-02T01:00:00Z", "2026-11-01T23:00:00Z", "2026-11-03T00:00:00Z")
    texts = ("a hand goes from side to side", "fast steps across the view", "the trunk folds at the hips")
    rows = [
        DescriptionRow("moves", index, f"class {index}", "conceptual", None, 0, text, created_at=day, **made)
        for index, (text, day) in enumerate(zip(texts, days, strict=True))
    ]
    card = dataset_card(DescriptionSet(tuple(rows)), repo_id=None, license="mit")
    line = '- 3 conceptual, `local`, model `m`, prompt `moted-conceptual-1`, parameters `{"seed": 1}`, '
    assert f"{line}2026-11-01 to 2026-11-03\n" in card and card.count("`local`") == 1
    assert "Prompt `moted-conceptual-1`" in card and "Prompt `moted-discriminative-1`" not in card


def test_names_cannot_break_the_card(tmp_path: Path) -> None:
    rows = [
        dataclasses.replace(row, dataset="a`b|c", class_name=row.class_name.replace("bend", "be`nd | x"))
        for row in load_description_set("weizmann").rows
        if row.kind != "discriminative"
    ]
    card = dataset_card(DescriptionSet(tuple(rows)), repo_id=None, license="mit")
    assert "classes of `` a`b|c `` move" in card and "The first class, `` be`nd | x ``:" in card


# The cards of the shipped sets


@pytest.mark.parametrize("name", shipped_descriptions())
def test_each_shipped_set_has_its_card(name: str) -> None:
    """Written by `write_shipped_cards("openai/clip-vit-base-patch32")`; the tokenizer is not here."""
    card = (REPOSITORY / f"kinetext/descriptions/sets/{name}.md").read_text("utf-8")
    expected = dataset_card(load_description_set(name), repo_id=None, license="apache-2.0")
    assert without_tokens(card) == without_tokens(expected)
    assert "not counted" not in card and "check` (length, " in card


def without_tokens(card: str) -> str:
    return re.sub(r"\| (\d+|not counted) \|$", "|", card.replace("(length, ", "("), flags=re.MULTILINE)
