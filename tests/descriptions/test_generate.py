"""Generation end to end: which questions, what the folder holds, killed and resumed, on the command line."""

import json
import os
import random
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from llm_stub import BAD_ANSWERS, KEY, LlmStub
from testing_utils import run_cli
from typer.testing import Result

import kinetext.descriptions
from kinetext.data.label_lists import load_label_list
from kinetext.descriptions.engine import Endpoint
from kinetext.descriptions.files import read_set
from kinetext.descriptions.generate import Generated, forecast_generation, generate_descriptions, plan_questions
from kinetext.descriptions.journal import read_journal
from kinetext.descriptions.neighbours import Neighbour, write_neighbours
from kinetext.descriptions.prompts import messages_sha256

NAMES = ("walk", "ApplyEyeMakeup", "long jump", "wave1")
SPOKEN = ("walk", "apply eye makeup", "long jump", "waving with one hand")
KINDS = ("conceptual", "discriminative", "characteristic")
CONCURRENCY = 8


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STUB_API_KEY", KEY)


def rotated(names: Sequence[str], k: int) -> dict[str, list[str]]:
    """The k that follow each, as neighbours."""
    return {name: [names[(at + step) % len(names)] for step in range(1, k + 1)] for at, name in enumerate(names)}


def generated(stub: LlmStub, out: Path, *, kinds: Sequence[str] = KINDS, k: int = 2, **options: Any) -> Generated:
    questions = plan_questions(NAMES, SPOKEN, kinds, k=k, neighbours=rotated(NAMES, k))
    endpoint = Endpoint("tiny", "stub", stub.url, timeout_s=5.0)
    return generate_descriptions("actions", questions, endpoint, out, concurrency=CONCURRENCY, **options)


# Questions


def test_questions_come_in_the_order_of_class_kind_and_rank() -> None:
    questions = plan_questions(NAMES, SPOKEN, reversed(KINDS), k=2, neighbours=rotated(NAMES, 3))
    assert [question.name for question in questions[:5]] == [
        "walk, conceptual",
        "walk, discriminative against ApplyEyeMakeup",
        "walk, discriminative against long jump",
        "walk, characteristic",
        "ApplyEyeMakeup, conceptual",
    ]
    assert len(questions) == 4 * (1 + 2 + 1)
    asked = questions[1].request(None).messages[0]["content"]
    assert asked.endswith("the original class walk from the similar class apply eye makeup? A:")


@pytest.mark.parametrize("text", ["the wave1 arm goes up", "the body is waving with one hand", "one arm goes up"])
def test_no_text_may_name_its_class_as_lists_or_prompts_call_it(text: str) -> None:
    request = plan_questions(NAMES, SPOKEN, ["conceptual"])[3].request(None)
    assert request.faults_of(text) == [] if text == "one arm goes up" else "class name" in str(request.faults_of(text))


def test_neighbours_are_matched_by_normalised_name() -> None:
    table = {"Walk": ["Long_Jump"], "apply eye makeup": ["walk"], "LongJump": ["WAVE1"], "wave 1": ["walk"]}
    questions = plan_questions(NAMES, SPOKEN, ["discriminative"], k=1, neighbours=table)
    assert [question.contrast_class for question in questions] == ["long jump", "walk", "wave1", "walk"]


@pytest.mark.parametrize(
    ("kinds", "k", "table", "message"),
    [
        (["action"], 2, None, "kind action: there are prompts for conceptual, discriminative, characteristic"),
        ([], 2, None, "kind is empty"),
        (["discriminative"], 2, None, "need to know which classes are near which; `kinetext describe neighbours"),
        (["discriminative"], 0, rotated(NAMES, 2), "k=0; at least one"),
        (["discriminative"], 3, rotated(NAMES, 2), "k=3, but 'walk' has 2 neighbours .*describe neighbours"),
        (["discriminative"], 1, rotated(NAMES[:3], 1), "does not fit the label list: 1 of 4 classes"),
        (["discriminative"], 1, {**rotated(NAMES, 1), "walk": ["swim"]}, "does not fit the label list: .*'swim'"),
        (["discriminative"], 1, {**rotated(NAMES, 1), "walk": ["WALK"]}, "'walk' hold the class itself"),
        (["discriminative"], 2, {**rotated(NAMES, 2), "walk": ["wave1", "wave 1"]}, "or one twice"),
    ],
)
def test_wrong_plans_are_refused(kinds: list[str], k: int, table: dict[str, list[str]] | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        plan_questions(NAMES, SPOKEN, kinds, k=k, neighbours=table)


# Files


def test_the_set_has_every_text_with_its_provenance(tmp_path: Path) -> None:
    with LlmStub() as stub:
        made = generated(stub, tmp_path)
    assert made.path == tmp_path / "descriptions.jsonl" and made.rejected == ()
    loaded = read_set(made.path)
    assert loaded.rows == made.accepted
    assert loaded.class_names == NAMES and loaded.dataset == "actions" and len(loaded.rows) == 16
    row = loaded.rows[1]
    assert (row.kind, row.contrast_class, row.rank) == ("discriminative", "ApplyEyeMakeup", 0)
    assert (row.provider, row.model, row.prompt_id) == ("stub", "tiny-2026-01-01", "moted-discriminative-1")
    sent = plan_questions(NAMES, SPOKEN, ["discriminative"], k=1, neighbours=rotated(NAMES, 1))[0].request(None)
    assert row.prompt_sha256 == messages_sha256(sent.messages)
    assert row.created_at.startswith("202") and row.params == '{"response_format": "json_schema"}'
    assert [len(texts) for texts in loaded.texts().texts] == [3] * 4


@pytest.mark.parametrize("bad", BAD_ANSWERS)
def test_no_bad_answer_gets_into_the_set(tmp_path: Path, bad: str) -> None:
    with LlmStub(bad_answers={bad: 1.0}) as stub:
        made = generated(stub, tmp_path, kinds=["conceptual"], count_tokens=lambda text: len(text.split()) + 2)
        asked_again = [row["messages"][-1]["content"] for row in read_journal(tmp_path / "journal.jsonl")[-3:]]
    assert made.rejected == () and len({row.text for row in made.accepted}) == 4
    reasons = {
        "malformed": "it is not the JSON object",
        "refusal": "it refuses to answer",
        "refused": "it refuses to answer",
        "empty": "it is empty",
        "long": "it has 166 tokens, more than 77",
        "duplicate": "it repeats the text already given for walk, conceptual",
        "leak": "it contains the class name '",
    }
    assert all(f"cannot be used: {reasons[bad]}" in content for content in asked_again), asked_again


def test_rejected_texts_are_reported_and_leave_a_good_set_alone(tmp_path: Path) -> None:
    with LlmStub() as stub:
        stub._bad_answer = lambda messages, digest: "refused" if "run? A" in str(messages) else None  # type: ignore
        questions = plan_questions(("walk", "run"), ("walk", "run"), ["conceptual"])
        endpoint = Endpoint("tiny", "stub", stub.url)
        good = generate_descriptions("actions", questions[:1], endpoint, tmp_path).path.read_bytes()
        made = generate_descriptions("actions", questions, endpoint, tmp_path)
        assert made.path == tmp_path / "incomplete.jsonl"
        assert [json.loads(line)["class_name"] for line in made.path.open()] == ["walk"]
        (rejected,) = (json.loads(line) for line in (tmp_path / "rejected.jsonl").open())
        assert (tmp_path / "descriptions.jsonl").read_bytes() == good
        assert rejected == {
            "dataset": "actions",
            "class_id": 1,
            "class_name": "run",
            "kind": "conceptual",
            "contrast_class": None,
            "rank": 0,
            "text": "I'm sorry, I can't help with that.",
            "faults": ["it refuses to answer"],
        }
        stub._bad_answer = lambda messages, digest: None  # type: ignore[method-assign]
        made = generate_descriptions("actions", questions, endpoint, tmp_path, retry_rejected=True)
    assert read_set(made.path).class_names == ("walk", "run")
    assert sorted(path.name for path in tmp_path.glob("*.jsonl")) == ["descriptions.jsonl", "journal.jsonl"]


def _masked(content: str) -> str:
    return content.replace('"masked_text": null', '"masked_text": "an object moves."', 1)


@pytest.mark.parametrize(
    ("dataset", "names", "kinds", "edit", "message"),
    [
        (
            "actions",
            NAMES,
            ["conceptual"],
            str,
            "has a characteristic text of 'walk' of actions, which this run does not",
        ),
        (
            "actions",
            NAMES[:2],
            KINDS,
            str,
            "'long jump' of actions, which this run does not ask for and would take away",
        ),
        ("others", NAMES, KINDS, str, "of actions, which this run does not ask for"),
        (
            "actions",
            NAMES,
            KINDS,
            _masked,
            "another conceptual text of 'walk' than this run, or it was edited or masked",
        ),
        ("actions", NAMES, KINDS, str, None),
    ],
)
def test_a_set_is_added_to_but_never_replaced(
    tmp_path: Path,
    dataset: str,
    names: Sequence[str],
    kinds: list[str],
    edit: Callable[[str], str],
    message: str | None,
) -> None:
    with LlmStub() as stub:
        path = generated(stub, tmp_path, kinds=["conceptual", "characteristic"]).path
        path.write_text(edit(path.read_text()))
        before, asked = path.read_bytes(), len(stub.entries())
        questions = plan_questions(names, SPOKEN[: len(names)], kinds, k=1, neighbours=rotated(names, 1))
        if message is None:
            earlier = set(read_set(path).rows)
            generate_descriptions(dataset, questions, Endpoint("tiny", "stub", stub.url), tmp_path)
            assert set(read_set(path).rows) > earlier
            return
        with pytest.raises(ValueError, match=message):
            generate_descriptions(dataset, questions, Endpoint("tiny", "stub", stub.url), tmp_path)
        assert path.read_bytes() == before
        assert len(stub.entries()) == asked or edit is _masked


def test_forecast_counts_by_kind(tmp_path: Path) -> None:
    with LlmStub(bad_answers={"refused": 1.0}) as stub:
        generated(stub, tmp_path, kinds=["conceptual"])
        questions = plan_questions(NAMES, SPOKEN, KINDS, k=2, neighbours=rotated(NAMES, 2))
        rows = forecast_generation(questions, Endpoint("tiny", "stub", stub.url), tmp_path)
    found = {row.kind: (row.calls, row.answered) for row in rows}
    assert found == {"conceptual": (0, 8), "discriminative": (8, 0), "characteristic": (4, 0), "all": (12, 8)}
    assert rows[-1].prompt_tokens == rows[1].prompt_tokens + rows[2].prompt_tokens > 12 * 60
    assert rows[-1].completion_tokens == 12 * 45
    assert rows[-1].cost((2.0, 10.0)) == pytest.approx((rows[-1].prompt_tokens * 2 + 12 * 45 * 10) / 1e6)


# Killed and resumed

_PROGRAM = """
import json, sys
from descriptions.engine import Endpoint
from descriptions.generate import generate_descriptions, plan_questions
names, kinds, neighbours, url, out, concurrency = json.loads(sys.argv[1])
questions = plan_questions(names, names, kinds, k=2, neighbours=neighbours)
endpoint = Endpoint("tiny", "stub", url, timeout_s=1.0)
generate_descriptions("actions", questions, endpoint, out, concurrency=concurrency)
"""


def program(names: Sequence[str], url: str, out: Path) -> list[str]:
    """Generation in a process that starts fast: the folder alone, without the rest of kinetext."""
    settings = (names, KINDS, rotated(names, 2), url, str(out), CONCURRENCY)
    return [sys.executable, "-c", _PROGRAM, json.dumps(settings)]


def environment() -> dict[str, str]:
    package = Path(kinetext.descriptions.__file__).parents[1]
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(package), str(package.parent)])}


def assert_killing_changes_nothing(
    command: Callable[[str, Path], list[str]], folder: Path, *, total: int, kills: int, concurrency: int, **stub: Any
) -> None:
    """Runs `command` (of an address and a folder) once undisturbed and once killed at random moments."""

    def finished(url: str, out: Path) -> bytes:
        done = subprocess.run(command(url, out), env=environment(), capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        assert KEY not in done.stdout + done.stderr
        return (out / "descriptions.jsonl").read_bytes()

    with LlmStub(seed=1, **stub) as llm:
        undisturbed = finished(llm.url, folder / "undisturbed")
    chance = random.Random(5)
    moments = sorted(chance.sample(range(1, int(0.9 * total)), kills))
    known: list[tuple[int, set[str]]] = []  # at each kill: requests so far, and questions with an answer on disk
    journal = folder / "killed" / "journal.jsonl"
    with LlmStub(seed=2, **stub) as llm:
        for moment in moments:
            process = subprocess.Popen(
                command(llm.url, folder / "killed"), env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT
            )
            while len(llm.entries("200")) < moment:
                assert process.poll() is None, process.communicate()
                time.sleep(0.002)
            time.sleep(chance.uniform(0, 0.01))
            process.kill()
            process.communicate()
            while llm.in_flight:
                time.sleep(0.01)
            kept = {messages_sha256(row["messages"]) for row in read_journal(journal) if row["record"] == "answer"}
            known.append((len(llm.entries()), kept))
        killed = finished(llm.url, folder / "killed")
        entries = llm.entries()
        # Nothing but what goes wrong by design went wrong.
        assert {entry["outcome"] for entry in entries} <= {"200", *stub.get("faults", {})}
    assert killed == undisturbed
    for count, kept in known:
        assert [entry for entry in entries[count:] if entry["messages"] in kept] == [], "asked again after its answer"
    paid = Counter(entry["body"] for entry in entries if entry["outcome"] == "200")
    again = sum(count - 1 for count in paid.values())
    print(f"{len(entries)} requests, {sum(paid.values())} answers begun, {again} of them again, {kills} kills")
    assert again <= kills * concurrency
    assert len(paid) == len([row for row in read_journal(journal) if row["record"] == "answer"])
    assert all(KEY.encode() not in path.read_bytes() for path in folder.rglob("*") if path.is_file())


def test_killed_three_times_and_resumed_equals_undisturbed(tmp_path: Path) -> None:
    names = [f"action {number}" for number in range(20)]
    assert_killing_changes_nothing(
        lambda url, out: program(names, url, out),
        tmp_path,
        total=80,
        kills=3,
        concurrency=CONCURRENCY,
        faults={"429": 0.02, "500": 0.02, "broken": 0.02, "hang": 0.005},
        bad_answers=dict.fromkeys(("malformed", "refusal", "refused", "duplicate", "leak"), 0.06),
        hang_s=1.2,
        latency_s=0.01,
    )


@pytest.mark.slow
def test_kinetics_killed_ten_times_and_resumed_equals_undisturbed(tmp_path: Path) -> None:
    names = load_label_list("kinetics400").class_names
    assert len(names) == 400
    near = [Neighbour(name, other, at, 0.5) for name, own in rotated(names, 5).items() for at, other in enumerate(own)]
    write_neighbours(near, tmp_path / "near.csv")

    def command(url: str, out: Path) -> list[str]:
        options = {"kind": "conceptual,discriminative", "k": 5, "neighbours": tmp_path / "near.csv", "model": "tiny"}
        options |= {"provider": "stub", "base-url": url, "out": out, "tokenizer": "none", "timeout": 1}
        words = [str(word) for name, value in options.items() for word in (f"--{name}", value)]
        return [sys.executable, "-m", "kinetext.cli", "describe", "kinetics400", *words]

    assert_killing_changes_nothing(
        command,
        tmp_path,
        total=2400,
        kills=10,
        concurrency=16,
        faults={"429": 0.01, "503": 0.005, "500": 0.02, "broken": 0.02, "hang": 0.004},
        bad_answers=dict.fromkeys(("malformed", "refusal", "refused", "empty", "duplicate", "leak"), 0.02),
        hang_s=1.5,
        latency_s=0.01,
    )
    rows = read_set(tmp_path / "killed" / "descriptions.jsonl").rows
    assert len(rows) == len({row.text for row in rows}) == 2400


# Two at once


def test_a_second_run_in_the_same_folder_is_refused(tmp_path: Path) -> None:
    names = [f"action {number}" for number in range(25)]
    with LlmStub(latency_s=0.1) as stub:
        process = subprocess.Popen(program(names, stub.url, tmp_path), env=environment())
        try:
            while not stub.entries("200"):
                assert process.poll() is None
                time.sleep(0.01)
            before = len(stub.entries())
            questions = plan_questions(("walk",), ("walk",), ["conceptual"])
            with pytest.raises(ValueError, match=r"journal.jsonl is being written by another process"):
                generate_descriptions("actions", questions, Endpoint("tiny", "stub", stub.url), tmp_path)
            assert not any("walk" in str(row.get("messages")) for row in read_journal(tmp_path / "journal.jsonl"))
            assert process.wait(timeout=60) == 0 and len(stub.entries()) > before
        finally:
            process.kill()
    assert len(read_set(tmp_path / "descriptions.jsonl").class_names) == 25


# The command line


def run(*arguments: object) -> Result:
    return run_cli(*arguments)


def describe(stub: LlmStub, out: Path, *more: object, kind: str = "conceptual,characteristic") -> Result:
    labels = out.parent / "actions.txt"
    labels.write_text("\n".join(NAMES))
    common = ("--model", "tiny", "--provider", "stub", "--base-url", stub.url, "--out", out, "--tokenizer", "none")
    return run("describe", labels, "--kind", kind, *common, *more)


def test_describe_writes_a_set_and_says_what_it_took(tmp_path: Path) -> None:
    with LlmStub() as stub:
        done = describe(stub, tmp_path / "out", "--price", 1, 2, "--param", "temperature=0.3")
        assert done.exit_code == 0, done.output
        assert re.search(r"conceptual +│ +4 │ +0 │", done.output)
        assert re.search(r"8 calls now, 0 before; \d+ \+ \d+ tokens, 0.00\d\d USD; 0 retries", done.output)
        assert json.loads(read_set(tmp_path / "out" / "descriptions.jsonl").rows[0].params)["temperature"] == 0.3
        done = describe(stub, tmp_path / "out", "--param", "temperature=0.3")
        assert "0 calls now, 8 before" in done.output
        assert len(stub.entries()) == 8


def test_dry_run_estimates_and_sends_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("STUB_API_KEY")
    with LlmStub() as stub:
        done = describe(stub, tmp_path / "out", "--dry-run")
        assert done.exit_code == 0 and stub.entries() == [] and not (tmp_path / "out").exists()
        assert re.search(r"all +│ +8 │ +0 │ +\d+ │ +300 │ +\? │", done.output)
        assert "4 characters a token" in done.output and "For the cost give --price IN OUT" in done.output
        assert re.search(r"all .*│ +0\.00\d\d │", describe(stub, tmp_path / "out", "--dry-run", "--price", 1, 2).output)


def test_describe_reports_rejected_texts_with_exit_code_1(tmp_path: Path) -> None:
    with LlmStub() as stub:
        stub._bad_answer = lambda messages, digest: "refused" if "jump" in str(messages) else None  # type: ignore
        done = describe(stub, tmp_path / "out", kind="conceptual")
        assert done.exit_code == 1
        assert re.search(r"long jump, conceptual +│ I'm sorry, .* │ it refuses to answer", done.output)
        assert "1 texts are missing" in done.output and "--retry-rejected" in done.output
        stub._bad_answer = lambda messages, digest: None  # type: ignore[method-assign]
        assert describe(stub, tmp_path / "out", kind="conceptual").exit_code == 1
        assert describe(stub, tmp_path / "out", "--retry-rejected", kind="conceptual").exit_code == 0


def test_rejected_texts_are_shown_shortened_and_without_control_characters(tmp_path: Path) -> None:
    with LlmStub(structured="refuse") as stub:
        stub._text = lambda *given: "\x1b]0;mine\x07 " + "y " * 5000  # type: ignore[method-assign]
        done = describe(stub, tmp_path / "out", kind="conceptual")
    assert done.exit_code == 1 and "\x1b]0" not in done.output and "\x07" not in done.output
    assert 100 < done.output.count("y ") < 4 * 160 and "The same command asks again" in done.output


def test_describe_with_a_wrong_key_says_so_without_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STUB_API_KEY", "sk-wrong-one")
    with LlmStub() as stub:
        done = describe(stub, tmp_path / "out")
    assert done.exit_code == 1
    assert "error:" in done.output and "does not accept the key in STUB_API_KEY" in done.output
    assert "sk-wrong" not in done.output
    assert all(b"sk-wrong" not in path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--kind", "discriminative"), "`kinetext describe neighbours LABELS --out FILE.csv` writes such a table"),
        (("--param", "effort=low"), "'low' is not JSON; a text stands in double quotes: 'effort=\"low\"'"),
        (("--concurrency", 0), "concurrency=0; at least one call"),
        (("--price", -1, 1), "--price -1.0 1.0: a price is a number of USD, 0 or more"),
        (("--price", 1, "nan"), "--price 1.0 nan: a price is"),
        (("--dry-run", "--retry-rejected"), "--dry-run does not foresee --retry-rejected"),
        (("--provider", "openai"), "would get OpenAI's key; name its provider"),
    ],
)
def test_describe_refuses_what_cannot_work(tmp_path: Path, more: tuple[object, ...], message: str) -> None:
    with LlmStub() as stub:
        done = describe(stub, tmp_path / "out", *more)
        assert done.exit_code == 1 and message in done.output
        assert stub.entries() == []


def test_discriminative_texts_read_the_table_of_neighbours(tmp_path: Path) -> None:
    pairs = [Neighbour(name, other, 0, 0.5) for name, (other,) in rotated(NAMES, 1).items()]
    write_neighbours(pairs, tmp_path / "near.csv")
    with LlmStub() as stub:
        done = describe(
            stub, tmp_path / "out", "--k", 1, "--neighbours", tmp_path / "near.csv", kind="conceptual,discriminative"
        )
    assert done.exit_code == 0, done.output
    assert [len(texts) for texts in read_set(tmp_path / "out" / "descriptions.jsonl").texts().texts] == [2] * 4
