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
from kinetext.descriptions.engine import Endpoint, EndpointError, Outcome, Request, forecast_requests, run_requests
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
        stub.has_batches = True
        for body in ({}, "<html>", 501):
            answer = stub.new_batch
            stub.new_batch = lambda asked, body=body: body  # type: ignore[misc]
            with pytest.raises(EndpointError, match=r"has no Batch API \(HTTP 501\); run without --batch"):
                outcomes(stub, tmp_path / "journal.jsonl")
            stub.new_batch = answer  # type: ignore[method-assign]
        assert all(outcome.is_accepted for outcome in outcomes(stub, tmp_path / "journal.jsonl", is_batch=False))


# Jobs that are lost, foreign or odd


def test_a_refusal_while_a_job_is_looked_for_does_not_pay_for_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = tmp_path / "journal.jsonl"
    with LlmStub() as stub:
        killed_when(stub, "POST /v1/batches", journal)
        monkeypatch.setenv("STUB_API_KEY", "sk-wrong-one")
        with pytest.raises(
            EndpointError, match=r"HTTP 401.*The journal waits for a batch with the token \w+\. If there"
        ):
            outcomes(stub, journal)
        monkeypatch.setenv("STUB_API_KEY", KEY)
        assert all(outcome.is_accepted for outcome in outcomes(stub, journal))
        assert len(stub.batches) == 1 and most_paid(stub) == 1


def test_a_job_that_may_have_been_made_is_waited_for(tmp_path: Path) -> None:
    journal = tmp_path / "journal.jsonl"
    with LlmStub() as stub:
        new_batch = stub.new_batch

        def lost(asked: dict[str, Any]) -> int:
            new_batch(asked)
            stub.key = "sk-changed-meanwhile"
            return 500

        stub.new_batch = lost  # type: ignore[assignment, method-assign]
        with pytest.raises(EndpointError, match="HTTP 401"):
            outcomes(stub, journal)
        stub.key, stub.new_batch = KEY, new_batch  # type: ignore[method-assign]
        assert all(outcome.is_accepted for outcome in outcomes(stub, journal))
        assert len(stub.batches) == 1 and most_paid(stub) == 1


def test_a_job_that_was_never_made_is_begun_anew_with_what_is_asked_for_now(tmp_path: Path) -> None:
    journal = tmp_path / "journal.jsonl"
    with LlmStub() as stub:
        killed_when(stub, "POST /v1/files", journal)
        other = Endpoint("big", "stub", stub.url, params={"temperature": 1.5}, timeout_s=5.0)
        made = run_requests(questions(5), other, journal, is_batch=True)
        assert [outcome.model for outcome in made] == ["big-2026-01-01"] * 5
        asked = {row["requested"]: row["params"] for row in read_journal(journal)[-5:] if row["record"] == "answer"}
        assert asked == {"big": {"temperature": 1.5}}
        assert [{line["body"]["model"] for line in lines} for lines in uploads(stub)] == [{"big"}]
        outcomes(stub, tmp_path / "other.jsonl", count=1)
        killed_when(stub, "POST /v1/files", tmp_path / "other.jsonl")
        outcomes(stub, tmp_path / "other.jsonl", count=1)
        assert len(stub.batches) == 1, "an empty job"


def test_a_job_of_another_host_is_not_looked_for_here(tmp_path: Path) -> None:
    journal = tmp_path / "journal.jsonl"
    with LlmStub() as stub, LlmStub() as other:
        killed_when(stub, "POST /v1/batches", journal)
        with pytest.raises(
            ValueError, match=rf"waits for a batch of {stub.url[7:-3]}, not {other.url[7:-3]}; give its"
        ):
            outcomes(other, journal)
        assert other.entries() == []


@pytest.mark.parametrize("is_whole", [True, False])
def test_a_job_that_is_gone_is_not_waited_for_any_more(tmp_path: Path, is_whole: bool) -> None:
    journal = tmp_path / "journal.jsonl"
    with LlmStub() as stub:
        killed_when(stub, "GET /v1/batches/batch_1", journal)
        if is_whole:
            stub.batches.clear()
        else:
            stub._finish = lambda batch: batch.update(output_file_id="file-lost")  # type: ignore[method-assign]
        with pytest.raises(EndpointError, match=r"batch batch_1 or its file is gone: .*404.* run again to ask anew"):
            outcomes(stub, journal)
        assert all(outcome.is_accepted for outcome in outcomes(stub, journal, is_batch=False))


def _lines(change: Any) -> Any:
    return lambda content: b"".join(
        json.dumps(change(json.loads(line))).encode() + b"\n" for line in content.splitlines()
    )


@pytest.mark.parametrize(
    ("changed", "jobs", "accepted"),
    [
        (lambda content: content + content, 1, True),
        (lambda content: content[:-50], 2, True),
        (lambda content: content + b"oops\n[]\n7\n" + b"[" * 100_000, 1, True),
        (_lines(lambda line: {**line, "error": "bad", "response": None}), 1, False),
        (_lines(lambda line: {**line, "response": {"status_code": 500, "body": "bad"}}), 1, False),
        (_lines(lambda line: {**line, "response": {"status_code": 500, "body": {"error": "bad"}}}), 1, False),
        (_lines(lambda line: {key: value for key, value in line.items() if key != "custom_id"}), 1, False),
        (_lines(lambda line: {**line, "custom_id": f"batch_req_{line['custom_id']}"}), 1, False),
    ],
)
def test_odd_answers_of_a_job_are_taken_line_by_line_and_once(
    tmp_path: Path, changed: Any, jobs: int, accepted: bool
) -> None:
    journal = tmp_path / "journal.jsonl"
    with LlmStub() as stub:
        finish = stub._finish

        def odd(batch: dict[str, Any]) -> None:
            finish(batch)
            if batch["id"] == "batch_1":
                stub.files[batch["output_file_id"]] = changed(stub.files[batch["output_file_id"]])

        stub._finish = odd  # type: ignore[method-assign]
        made = outcomes(stub, journal, count=5)
        assert len(stub.batches) == jobs
    assert [outcome.is_accepted for outcome in made] == [True] + [accepted] * 4
    kept = [row["key"] for row in read_journal(journal) if row["record"] == "answer"]
    assert len(kept) == len(set(kept)) == (5 if accepted else 1)


@pytest.mark.parametrize(
    ("status", "message"), [("COMPLETED", None), ("paused", "has the status 'paused', which kinet")]
)
def test_statuses_in_capitals_are_known_and_unknown_ones_named(
    tmp_path: Path, status: str, message: str | None
) -> None:
    with LlmStub() as stub:
        moved_on = stub.moved_on
        stub.moved_on = lambda batch: {  # type: ignore[method-assign]
            **(found := moved_on(batch)),
            "status": status if found["status"] == "completed" else found["status"].upper(),
        }
        if message is None:
            assert all(outcome.is_accepted for outcome in outcomes(stub, tmp_path / "journal.jsonl", count=3))
        else:
            with pytest.raises(EndpointError, match=message):
                outcomes(stub, tmp_path / "journal.jsonl", count=3)


def test_a_list_of_jobs_that_never_ends_is_left(tmp_path: Path) -> None:
    journal = tmp_path / "journal.jsonl"
    with LlmStub() as stub:
        outcomes(stub, tmp_path / "first.jsonl", count=3)
        killed_when(stub, "POST /v1/files", journal)
        stub.has_more = True
        assert all(outcome.is_accepted for outcome in outcomes(stub, journal, count=3))


def test_a_forecast_does_not_buy_what_a_job_has_been_paid_for(tmp_path: Path) -> None:
    journal = tmp_path / "journal.jsonl"
    with LlmStub() as stub:
        killed_when(stub, "GET /v1/batches/batch_1", journal)
        endpoint = Endpoint("tiny", "stub", stub.url, params={"temperature": 0.2})
        forecast = forecast_requests(questions(COUNT + 1), endpoint, journal)
    assert [request.name for request, _ in forecast.calls] == [f"class {COUNT}"]
