"""The Batch API against a local endpoint: a job a round, found again after a kill at any step, nothing paid twice."""

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from llm_stub import KEY, LlmStub

from kinetext.descriptions import batch as batch_module
from kinetext.descriptions import endpoint as endpoint_module
from kinetext.descriptions.engine import Endpoint, EndpointError, Outcome, Request, run_requests
from kinetext.descriptions.journal import read_journal

COUNT = 30


@pytest.fixture(autouse=True)
def _fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STUB_API_KEY", KEY)
    monkeypatch.setattr(batch_module, "_SHORTEST_POLL_S", 0.02)
    monkeypatch.setattr(endpoint_module, "_FIRST_BACK_OFF_S", 0.01)


def questions(count: int = COUNT) -> list[Request]:
    return [
        Request(f"class {number}", ({"role": "user", "content": f"How does class {number} move?"},), lambda text: [])
        for number in range(count)
    ]


def outcomes(stub: LlmStub, journal: Path, *, is_batch: bool = True, count: int = COUNT, **more: Any) -> list[Outcome]:
    endpoint = Endpoint("tiny", "stub", stub.url, params={"temperature": 0.2}, timeout_s=5.0)
    return run_requests(questions(count), endpoint, journal, is_batch=is_batch, **more)


def uploads(stub: LlmStub) -> list[list[dict[str, Any]]]:
    """The lines of each job, in their order."""
    return [
        [json.loads(line) for line in stub.files[batch["input_file_id"]].splitlines()]
        for batch in stub.batches.values()
    ]


def most_paid(stub: LlmStub) -> int:
    return Counter(entry["body"] for entry in stub.entries("200")).most_common(1)[0][1]


def test_a_batch_gives_what_single_calls_give(tmp_path: Path) -> None:
    tallies: list[str] = []
    bad = {"refused": 0.2, "duplicate": 0.2, "malformed": 0.1}
    with LlmStub(bad_answers=bad) as stub:
        single = outcomes(stub, tmp_path / "single.jsonl", is_batch=False, distinct=True)
    with LlmStub(bad_answers=bad) as stub:
        jobs = outcomes(
            stub,
            tmp_path / "batch.jsonl",
            distinct=True,
            on_change=lambda tally: tallies.append(tally.waiting),
        )
        assert most_paid(stub) == 1
        first, *later = uploads(stub)
        assert len(stub.entries("200")) == 1 + sum(len(lines) for lines in (first, *later))  # the first call finds out
    assert len(first) == COUNT and 1 <= len(later) <= 2  # all others, and what the first call got a bad answer to
    assert first[0]["method"] == "POST" and first[0]["url"] == "/v1/chat/completions"
    assert set(first[0]["body"]) == {"model", "messages", "temperature", "response_format"}
    described = [[vars(outcome) | {"request": outcome.request.name} for outcome in run] for run in (single, jobs)]
    assert described[0] == described[1]
    assert any("batch_1: in_progress, 0 of 30 answered" in waiting for waiting in tallies)


def test_a_second_run_makes_no_job(tmp_path: Path) -> None:
    with LlmStub() as stub:
        first = outcomes(stub, tmp_path / "journal.jsonl")
        second = outcomes(stub, tmp_path / "journal.jsonl")
        assert len(stub.batches) == 1
    assert [outcome.text for outcome in first] == [outcome.text for outcome in second]


def test_lines_that_fail_go_into_the_next_job(tmp_path: Path) -> None:
    with LlmStub(batch_line_faults=0.4) as stub:
        assert all(outcome.is_accepted for outcome in outcomes(stub, tmp_path / "journal.jsonl"))
        assert len(stub.batches) > 1 and most_paid(stub) == 1
        sizes = [len(lines) for lines in uploads(stub)]
    assert sizes == sorted(sizes, reverse=True)


def test_lines_that_always_fail_are_reported(tmp_path: Path) -> None:
    with LlmStub(batch_line_faults=1.0) as stub:
        made = outcomes(stub, tmp_path / "journal.jsonl", count=3)
        assert len(stub.batches) == 1
    assert [outcome.is_accepted for outcome in made] == [True, False, False]
    assert made[1].faults == ("no answer: HTTP 500: The server had an error.",)


def test_large_rounds_are_split(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch_module, "_MAX_CALLS", 10)
    with LlmStub() as stub:
        assert all(outcome.is_accepted for outcome in outcomes(stub, tmp_path / "journal.jsonl"))
        assert [len(lines) for lines in uploads(stub)] == [10, 10, 9]


@pytest.mark.parametrize("end", ["failed", "expired", "cancelled"])
def test_a_job_that_does_not_complete_stops_the_run_and_keeps_its_answers(tmp_path: Path, end: str) -> None:
    journal = tmp_path / "journal.jsonl"
    message = {
        "failed": r"batch batch_1 has failed: line 1 is bad, key \*\*\*\. .* run again",
        "expired": r"batch batch_1 has expired\. Its answers, if any, are in the journal; run again for the rest",
        "cancelled": "batch batch_1 was cancelled",
    }[end]
    with LlmStub(batch_end=end) as stub:
        with pytest.raises(EndpointError, match=message) as caught:
            outcomes(stub, journal)
        assert KEY not in str(caught.value)
        answered = sum(row["record"] == "answer" for row in read_journal(journal))
        assert answered == 1 + (0 if end == "failed" else 14)
        stub.batch_end = "completed"
        assert all(outcome.is_accepted for outcome in outcomes(stub, journal))
        assert [len(lines) for lines in uploads(stub)] == [29, 30 - answered] and most_paid(stub) == 1


_PROGRAM = """
import sys
from descriptions import batch
from descriptions.engine import Endpoint, Request, run_requests
batch._SHORTEST_POLL_S = 0.02
requests = [
    Request(f"class {n}", ({"role": "user", "content": f"How does class {n} move?"},), lambda text: [])
    for n in range(30)
]
endpoint = Endpoint("tiny", "stub", sys.argv[1], params={"temperature": 0.2})
run_requests(requests, endpoint, sys.argv[2], is_batch=True)
"""


@pytest.mark.parametrize(
    "moment",
    ["POST /v1/files", "POST /v1/batches", "GET /v1/batches/batch_1", "GET /v1/files/file-batch_1-output/content"],
)
def test_a_run_killed_at_any_step_finds_its_job_again(tmp_path: Path, moment: str) -> None:
    """The kill falls when the endpoint has done what it was asked and the client does not know it yet."""
    journal = tmp_path / "journal.jsonl"
    with LlmStub() as stub:
        process = killed_when(stub, moment, journal)
        assert process.returncode == -signal.SIGKILL
        assert len(stub.batches) == (moment != "POST /v1/files")
        with pytest.raises(ValueError, match="waits for a batch; run with --batch to collect it"):
            outcomes(stub, journal, is_batch=False)
        assert all(outcome.is_accepted for outcome in outcomes(stub, journal))
        assert len(stub.batches) == 1 and most_paid(stub) == 1
        outcomes(stub, journal, is_batch=False)  # nothing is waited for any more


def killed_when(stub: LlmStub, moment: str, journal: Path) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(Path(batch_module.__file__).parents[1])}  # without the rest: fast
    command = [sys.executable, "-c", _PROGRAM, stub.url, str(journal)]
    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)

    def kill(method: str, path: str) -> None:
        if f"{method} {path.partition('?')[0]}" == moment:
            process.kill()
            process.wait()

    stub.before_reply = kill
    _, errors = process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL, errors
    stub.before_reply = None
    return process


def test_a_run_killed_while_answers_are_taken_takes_the_others(tmp_path: Path) -> None:
    journal = tmp_path / "journal.jsonl"
    with LlmStub() as stub:
        whole = outcomes(stub, journal)
        lines = journal.read_bytes().splitlines(keepends=True)
        kinds = [json.loads(line)["record"] for line in lines]
        assert kinds == ["answer", "batch_begun", "batch", *["answer"] * 29, "batch_ended"]
        for kept in (3, 12, 32):  # no answer taken, some, all but not noted
            journal.write_bytes(b"".join(lines[:kept]))
            assert [outcome.text for outcome in outcomes(stub, journal)] == [outcome.text for outcome in whole]
            assert [json.loads(line)["record"] for line in journal.open()] == kinds
        assert len(stub.batches) == 1


def test_answers_to_questions_no_longer_asked_are_kept(tmp_path: Path) -> None:
    journal = tmp_path / "journal.jsonl"
    with LlmStub() as stub:
        killed_when(stub, "GET /v1/batches/batch_1", journal)
        few = outcomes(stub, journal, count=5)
        assert len(stub.batches) == 1 and len(few) == 5
        assert sum(row["record"] == "answer" for row in read_journal(journal)) == COUNT
        assert all(outcome.text.startswith("the ") for outcome in outcomes(stub, journal))
        assert len(stub.batches) == 1 and most_paid(stub) == 1


def test_an_endpoint_without_batches_is_named(tmp_path: Path) -> None:
    with LlmStub() as stub:
        stub.has_batches = False
        with pytest.raises(EndpointError, match=rf"{stub.url} has no Batch API \(HTTP 404\); run without --batch"):
            outcomes(stub, tmp_path / "journal.jsonl")
        assert all(outcome.is_accepted for outcome in outcomes(stub, tmp_path / "journal.jsonl", is_batch=False))
