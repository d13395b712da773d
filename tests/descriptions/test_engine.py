"""The engine against a local endpoint: asked once, asked again, held back, given up; what the journal remembers."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from llm_stub import KEY, LlmStub

from kinetext.descriptions import endpoint as endpoint_module
from kinetext.descriptions.endpoint import parse_params
from kinetext.descriptions.engine import (
    Endpoint,
    EndpointError,
    Outcome,
    Request,
    Tally,
    forecast_requests,
    run_requests,
)
from kinetext.descriptions.journal import read_journal


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STUB_API_KEY", KEY)
    monkeypatch.setattr(endpoint_module, "_FIRST_BACK_OFF_S", 0.01)


def endpoint(stub: LlmStub, **fields: Any) -> Endpoint:
    return Endpoint(**{"model": "tiny", "provider": "stub", "base_url": stub.url, "timeout_s": 5.0, **fields})


def no_faults(text: str) -> list[str]:
    return ["it is empty"] if not text else []


def question(name: str, faults_of: Callable[[str], list[str]] = no_faults) -> Request:
    return Request(name, ({"role": "user", "content": f"How does {name} move?"},), faults_of)


def questions(count: int) -> list[Request]:
    return [question(f"class {number}") for number in range(count)]


def texts(outcomes: list[Outcome]) -> list[str]:
    assert all(outcome.is_accepted for outcome in outcomes), outcomes
    return [outcome.text for outcome in outcomes]


def calls(stub: LlmStub) -> int:
    return len(stub.entries("200"))


# Asked once


def test_answers_come_in_the_order_of_the_requests_and_say_how_they_were_made(tmp_path: Path) -> None:
    with LlmStub() as stub:
        outcomes = run_requests(
            questions(20), endpoint(stub, params={"temperature": 0.5, "seed": 3}), tmp_path / "journal.jsonl"
        )
    assert [outcome.request.name for outcome in outcomes] == [f"class {number}" for number in range(20)]
    assert len(set(texts(outcomes))) == 20
    assert outcomes[0].provider == "stub" and outcomes[0].model == "tiny-2026-01-01"
    assert outcomes[0].params == '{"response_format": "json_schema", "seed": 3, "temperature": 0.5}'
    assert re.fullmatch(r"202[34]-\d\d-\d\dT\d\d:\d\d:\d\dZ", outcomes[0].created_at)
    assert {row["messages"] for row in stub.entries("200")} == {outcome.prompt_sha256 for outcome in outcomes}


def test_nothing_is_sent_that_was_not_asked_for(tmp_path: Path) -> None:
    seen = []
    with LlmStub() as stub:
        completion = stub.completion
        stub.completion = lambda body: seen.append(body) or completion(body)  # type: ignore[method-assign, func-returns-value]
        run_requests(questions(1), endpoint(stub, params={"top_k": 3, "x": [1, {}]}), tmp_path / "journal.jsonl")
    assert set(seen[0]) == {"model", "messages", "response_format", "top_k", "x"}
    assert seen[0]["top_k"] == 3 and seen[0]["x"] == [1, {}]


def test_a_second_run_asks_only_for_what_is_new(tmp_path: Path) -> None:
    tallies: list[Tally] = []
    with LlmStub() as stub:
        first = run_requests(questions(3), endpoint(stub), tmp_path / "journal.jsonl")
        both = run_requests(questions(5), endpoint(stub), tmp_path / "journal.jsonl", on_change=tallies.append)
        assert calls(stub) == 5
        other = endpoint(stub, params={"temperature": 1})
        assert forecast_requests(questions(5), other, tmp_path / "journal.jsonl").answered == ()
    assert texts(both)[:3] == texts(first)
    assert (tallies[-1].total, tallies[-1].done, tallies[-1].new) == (5, 5, 2)
    assert tallies[-1].prompt_tokens == 5 * (len("How does class 0 move?") // 4)


def test_equal_questions_are_paid_for_once(tmp_path: Path) -> None:
    twins = [Request(name, ({"role": "user", "content": "How?"},), no_faults) for name in ("one", "two")]
    with LlmStub() as stub:
        one, two = texts(run_requests(twins, endpoint(stub), tmp_path / "journal.jsonl"))
        assert calls(stub) == 1
    assert one == two


def test_concurrency_is_bounded_and_used(tmp_path: Path) -> None:
    with LlmStub(latency_s=0.05) as stub:
        run_requests(questions(24), endpoint(stub), tmp_path / "journal.jsonl", concurrency=4)
        assert stub.most_in_flight == 4


def test_forecast_sends_and_writes_nothing(tmp_path: Path) -> None:
    with LlmStub() as stub:
        forecast = forecast_requests(questions(4), endpoint(stub), tmp_path / "journal.jsonl")
        assert stub.entries() == [] and list(tmp_path.iterdir()) == []
    assert len(forecast.calls) == 4 and forecast.answered == ()
    assert forecast.prompt_tokens == round(4 * len("How does class 0 move?") / 4)


# Structured output


@pytest.mark.parametrize(
    ("offers", "requests", "params"),
    [
        ("yes", 3, '{"response_format": "json_schema"}'),
        ("refuse", 4, "{}"),
        ("ignore", 3, '{"response_format": "json_schema"}'),
    ],
)
def test_structured_output_is_used_where_it_is_offered_and_that_is_remembered(
    tmp_path: Path, offers: str, requests: int, params: str
) -> None:
    with LlmStub(structured=offers) as stub:
        outcomes = run_requests(questions(3), endpoint(stub), tmp_path / "journal.jsonl")
        assert len(stub.entries()) == requests
        run_requests(questions(5), endpoint(stub), tmp_path / "journal.jsonl")
        assert len(stub.entries()) == requests + 2, "it was found out again"
    assert texts(outcomes)[0].endswith("comes to rest at the end.")
    assert {outcome.params for outcome in outcomes} == {params}


@pytest.mark.parametrize("status", ["404", "500", "501"])
def test_structured_output_is_left_out_however_it_is_refused(tmp_path: Path, status: str) -> None:
    with LlmStub() as stub:
        completion = stub.completion
        error = {"error": {"message": "no response_format", "code": int(status)}}
        stub.completion = lambda body: error if "response_format" in body else completion(body)  # type: ignore
        assert {o.params for o in run_requests(questions(3), endpoint(stub), tmp_path / "journal.jsonl")} == {"{}"}


@pytest.mark.parametrize("form", ["```json\n{}\n```", "Okay.\n</think>\n{}", "{}"])
def test_structured_answers_are_read_in_whatever_stands_around_them(tmp_path: Path, form: str) -> None:
    with LlmStub() as stub:
        completion = stub.completion

        def wrapped(body: dict[str, Any]) -> dict[str, Any]:
            made = completion(body)
            message = made["choices"][0]["message"]
            message["content"] = form.replace("{}", message["content"])
            return made

        stub.completion = wrapped  # type: ignore[method-assign]
        assert texts(run_requests(questions(2), endpoint(stub), tmp_path / "journal.jsonl"))[0].startswith("the ")
        assert calls(stub) == 2


def test_thoughts_before_a_plain_answer_are_left_out(tmp_path: Path) -> None:
    with LlmStub(structured="ignore") as stub:
        text = stub._text
        stub._text = lambda *given: f"<think>\nHm.\n</think>\n\n{text(*given)}"  # type: ignore[method-assign]
        (outcome,) = run_requests(questions(1), endpoint(stub), tmp_path / "journal.jsonl")
        assert outcome.text.startswith("the ")
        request = question("class 9", lambda text: [] if "always" in text else ["no"])
        run_requests([request], endpoint(stub), tmp_path / "journal.jsonl")
    assert "think" not in str(read_journal(tmp_path / "journal.jsonl")[-1]["messages"])


# Asked again


@pytest.mark.parametrize(
    ("bad", "structured", "reason"),
    [
        ("malformed", "yes", 'it is not the JSON object {"text": "..."} asked for'),
        ("refused", "yes", "it refuses to answer"),
        ("refused", "refuse", "it refuses to answer"),
        ("empty", "refuse", "it is empty"),
    ],
)
def test_bad_answers_are_asked_for_again_with_the_reason(
    tmp_path: Path, bad: str, structured: str, reason: str
) -> None:
    with LlmStub(bad_answers={bad: 1.0}, structured=structured) as stub:
        outcomes = run_requests(questions(3), endpoint(stub), tmp_path / "journal.jsonl")
        assert calls(stub) == 6
    texts(outcomes)
    second = [row["messages"] for row in read_journal(tmp_path / "journal.jsonl")][-1]
    assert second[-1] == {
        "role": "user",
        "content": f"This answer cannot be used: {reason}. Answer the question again without this fault, with the "
        "description alone, on one line.",
    }


def test_what_was_asked_again_is_not_asked_a_third_time_in_other_words(tmp_path: Path) -> None:
    with LlmStub(bad_answers={"long": 1.0}) as stub:
        for count in (92, 95):  # as two tokenizers count
            faults = [f"it has {count} tokens, more than 77"]
            request = question("walk", lambda text, faults=faults: faults if "up and down and" in text else [])  # type: ignore[misc]
            texts(run_requests([request], endpoint(stub), tmp_path / "journal.jsonl"))
        assert calls(stub) == 2


_STRUCTURED = '{"text": "the arm moves"}'


@pytest.mark.parametrize(
    ("change", "text", "fault"),
    [
        ({"created": 1_700_000_000_000}, "the arm moves", ""),
        ({"created": 10**30}, "the arm moves", ""),
        ({"created": "2026-01-01T00:00:00Z"}, "the arm moves", ""),
        ({"usage": [1]}, "the arm moves", ""),
        ({"usage": {"prompt_tokens": {"a": 1}, "completion_tokens": -1}}, "the arm moves", ""),
        ({"model": 7}, "the arm moves", ""),
        ({"choices": []}, "", "it is empty"),
        ({"choices": [{"finish_reason": "content_filter"}]}, "", "content filter"),
        ({"choices": [{"message": {"content": None, "tool_calls": [{}]}}]}, "", "it is empty"),
        ({"content": [{"type": "text", "text": "the arm"}, {"type": "text", "text": " moves"}]}, "the arm moves", ""),
        ({"content": "the arm \ud83d moves"}, "the arm \ufffd moves", "it contains broken characters"),
        ({"content": '{"text": "the arm \\ud83d moves"}'}, "the arm \ufffd moves", "it contains broken characters"),
        ({"content": '{"text": ' + "[" * 100_000}, None, "it is not the JSON object"),
        ({"content": '{"text":' + "\n" * 200_000}, None, "it is not the JSON object"),
        ({"content": f"{KEY} moves"}, "*** moves", ""),
    ],
)
def test_whatever_was_paid_for_is_kept_and_can_be_read(
    tmp_path: Path, change: dict[str, Any], text: str | None, fault: str
) -> None:
    journal = tmp_path / "journal.jsonl"
    with LlmStub() as stub:
        completion = stub.completion

        def odd(body: dict[str, Any]) -> dict[str, Any]:
            made = completion(body) | {key: value for key, value in change.items() if key != "content"}
            if "choices" not in change:
                made["choices"][0]["message"]["content"] = change.get("content", _STRUCTURED)
            return made

        stub.completion = odd  # type: ignore[method-assign]
        for _ in range(2):
            (outcome,) = run_requests(questions(1), endpoint(stub), journal)
            assert calls(stub) == len(read_journal(journal)) == (2 if fault else 1)
        assert text is None or outcome.text == text
        assert fault in str(outcome.faults) and outcome.is_accepted == (not fault)
        assert KEY not in journal.read_text()


@pytest.mark.parametrize(
    ("reason", "said"), [("length", "it was cut off at the limit of tokens"), ("content_filter", "content filter")]
)
def test_an_answer_cut_off_is_a_bad_one(tmp_path: Path, reason: str, said: str) -> None:
    with LlmStub() as stub:
        completion = stub.completion

        def cut(body: dict[str, Any]) -> dict[str, Any]:
            made = completion(body)
            made["choices"][0]["finish_reason"] = reason
            return made

        stub.completion = cut  # type: ignore[method-assign]
        (outcome,) = run_requests(questions(1), endpoint(stub), tmp_path / "journal.jsonl")
        assert calls(stub) == 2
    assert said in outcome.faults[0]


def test_what_is_bad_twice_is_rejected_and_asked_for_again_only_on_demand(tmp_path: Path) -> None:
    journal = tmp_path / "journal.jsonl"
    requests = [question("walk"), question("stubborn one"), question("run")]
    with LlmStub() as stub:
        outcomes = run_requests(requests, endpoint(stub), journal)
        assert [outcome.faults for outcome in outcomes] == [(), ("it refuses to answer",), ()]
        assert calls(stub) == 4
        run_requests(requests, endpoint(stub), journal)
        assert calls(stub) == 4
        run_requests(requests, endpoint(stub), journal, retry_rejected=True)
        assert calls(stub) == 6
        run_requests(requests, endpoint(stub), journal, retry_rejected=True)
        assert calls(stub) == 8
        stub._bad_answer = lambda messages, digest: None  # type: ignore[method-assign]
        again = run_requests(requests, endpoint(stub), journal, retry_rejected=True)
        assert calls(stub) == 9
        assert texts(again) == texts(run_requests(requests, endpoint(stub), journal))
        assert calls(stub) == 9


def test_a_retry_that_was_interrupted_is_gone_on_with(tmp_path: Path) -> None:
    journal = tmp_path / "journal.jsonl"
    requests = [question("stubborn one"), question("stubborn two")]
    with LlmStub() as stub:
        run_requests(requests, endpoint(stub), journal)
        run_requests(requests, endpoint(stub), journal, retry_rejected=True)
        lines = journal.read_bytes().splitlines(keepends=True)
        journal.write_bytes(b"".join(lines[: 4 + 2]))  # as if killed when the retry had begun
        stub._bad_answer = lambda messages, digest: None  # type: ignore[method-assign]
        texts(run_requests(requests, endpoint(stub), journal))


@pytest.mark.parametrize("slow", ["class 0", "class 2"])
def test_of_equal_texts_the_first_in_order_stays_however_they_arrive(tmp_path: Path, slow: str) -> None:
    with LlmStub(bad_answers={"duplicate": 1.0}) as stub:
        completion = stub.completion

        def late(body: dict[str, Any]) -> dict[str, Any]:
            time.sleep(0.2 * (slow in body["messages"][0]["content"]))
            return completion(body)

        stub.completion = late  # type: ignore[method-assign]
        outcomes = run_requests(questions(3), endpoint(stub), tmp_path / "journal.jsonl", distinct=True)
        assert calls(stub) == 5
    assert len(set(texts(outcomes))) == 3
    assert outcomes[0].text == "the whole body moves to the side and back again at an even pace."
    reasons = [row["messages"][-1]["content"] for row in read_journal(tmp_path / "journal.jsonl")[-2:]]
    assert all("it repeats the text already given for class 0. " in reason for reason in reasons)


def test_equal_texts_after_asking_again_are_rejected_unless_they_may_be_equal(tmp_path: Path) -> None:
    with LlmStub() as stub:
        stub._text = lambda *given: "The same, always!"  # type: ignore[method-assign]
        kept = run_requests(questions(2), endpoint(stub), tmp_path / "journal.jsonl")
        assert texts(kept) == ["The same, always!"] * 2
        outcomes = run_requests(questions(2), endpoint(stub), tmp_path / "journal.jsonl", distinct=True)
        assert calls(stub) == 3
    assert [outcome.faults for outcome in outcomes] == [(), ("it repeats the text already given for class 0",)]


# Failures on the way


@pytest.mark.parametrize("fault", ["429", "500", "503", "broken", "hang"])
def test_passing_failures_are_retried_until_all_is_there(tmp_path: Path, fault: str) -> None:
    tallies: list[Tally] = []
    with LlmStub(faults={fault: 0.3}, retry_after_s=0.02, hang_s=3) as stub:
        ask = endpoint(stub, timeout_s=2)  # long enough for answers on a machine where much else runs
        texts(run_requests(questions(20), ask, tmp_path / "journal.jsonl", on_change=tallies.append))
        failures = len(stub.entries(fault))
    assert failures > 0 and tallies[-1].retries >= failures
    assert Counter(entry["body"] for entry in stub.entries("200")).most_common(1)[0][1] == 1


def test_a_rate_limit_holds_back_every_call(tmp_path: Path) -> None:
    with LlmStub(latency_s=0.01, retry_after_s=0.5) as stub:
        limited = threading.Event()
        fault = stub.fault

        def once() -> str | None:
            if calls(stub) >= 8 and not limited.is_set():
                limited.set()
                return "429"
            return fault()

        stub.fault = once  # type: ignore[method-assign]
        run_requests(questions(30), endpoint(stub), tmp_path / "journal.jsonl", concurrency=4)
        (refused,) = stub.entries("429")
        after = [entry["time"] - refused["time"] for entry in stub.entries("200") if entry["time"] > refused["time"]]
    assert len(after) >= 19
    assert [wait for wait in after if 0.1 < wait < 0.45] == []  # those in flight end, and then nothing until 0.5 s


@pytest.mark.parametrize("wait", [0, -5])
def test_a_rate_limit_that_asks_for_no_wait_is_waited_for(tmp_path: Path, wait: int) -> None:
    began = time.monotonic()
    with LlmStub(retry_after_s=wait) as stub:
        stub.fault = lambda: "429" if time.monotonic() < began + 0.4 else None  # type: ignore[method-assign]
        texts(run_requests(questions(1), endpoint(stub), tmp_path / "journal.jsonl"))


def test_calls_crowded_out_by_others_do_not_give_up(tmp_path: Path) -> None:
    lock = threading.Lock()
    passed = [0.0]

    def one_at_a_time() -> str | None:
        with lock:
            if time.monotonic() < passed[0] + 0.03:
                return "429"
            passed[0] = time.monotonic()
            return None

    with LlmStub(retry_after_s=0.03) as stub:
        stub.fault = one_at_a_time  # type: ignore[method-assign]
        texts(run_requests(questions(40), endpoint(stub), tmp_path / "journal.jsonl", concurrency=16))
        assert len(stub.entries("429")) > 100


def test_an_endpoint_that_only_fails_stops_the_run(tmp_path: Path) -> None:
    with (
        LlmStub(faults={"500": 1.0}) as stub,
        pytest.raises(EndpointError, match=r"does not answer 'class 0', nor anything else .* 8 tries, .* had an error"),
    ):
        run_requests(questions(9), endpoint(stub), tmp_path / "journal.jsonl")
    assert len(stub.entries()) == 16  # with and without structured output


def test_no_server_stops_the_run(tmp_path: Path) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/v1"
    with pytest.raises(EndpointError, match=r"does not answer .*no connection"):
        run_requests(questions(2), Endpoint("tiny", "stub", url), tmp_path / "journal.jsonl")


def test_a_call_that_is_refused_among_others_is_reported_and_asked_for_in_the_next_run(tmp_path: Path) -> None:
    requests = [question("walk"), question("forbidden"), question("run")]
    with LlmStub() as stub:
        outcomes = run_requests(requests, endpoint(stub), tmp_path / "journal.jsonl", concurrency=1)
        assert [outcome.is_accepted for outcome in outcomes] == [True, False, True]
        assert outcomes[1].faults == (
            "the endpoint refuses this request (HTTP 400): The prompt of *** was stopped by the content filter",
        )
        assert len(stub.entries("400")) == 1
        forecast = forecast_requests(requests, endpoint(stub), tmp_path / "journal.jsonl")
        assert [request.name for request, _ in forecast.calls] == ["forbidden"]


@pytest.mark.parametrize(
    ("settings", "model", "message"),
    [
        ({"faults": {"quota": 1.0}}, "tiny", r"quota is used up: You exceeded your current quota"),
        ({"faults": {"429": 1.0}, "retry_after_s": 9000}, "tiny", r"asks to wait 9000 s \(HTTP 429\); run again after"),
        ({}, "missing", r"does not know what is asked for \(HTTP 404\): The model `missing` .* ends with /v1"),
    ],
)
def test_what_does_not_pass_stops_the_run_at_once(
    tmp_path: Path, settings: dict[str, Any], model: str, message: str
) -> None:
    with LlmStub(**settings) as stub, pytest.raises(EndpointError, match=message):
        run_requests(questions(9), endpoint(stub, model=model), tmp_path / "journal.jsonl")
    assert len(stub.entries()) == (2 if model == "missing" else 1)  # a 404 may mean structured output


def test_requests_that_are_all_wrong_from_the_start_stop_the_run(tmp_path: Path) -> None:
    wrong = [question(f"forbidden {number}") for number in range(5)]
    with LlmStub() as stub, pytest.raises(EndpointError, match=r"refuses 'forbidden 2' \(HTTP 400\): The prompt of"):
        run_requests(wrong, endpoint(stub), tmp_path / "journal.jsonl")
    assert len(stub.entries()) == 3 * 2  # with and without structured output


@pytest.mark.parametrize("place", [0, 4])
def test_one_request_that_is_refused_does_not_hold_up_the_others(tmp_path: Path, place: int) -> None:
    journal = tmp_path / "journal.jsonl"
    requests = questions(12)
    requests.insert(place, question("forbidden"))
    with LlmStub(latency_s=0.05) as stub:
        run_requests(requests[: place // 2], endpoint(stub), journal)
        outcomes = run_requests(requests, endpoint(stub), journal)
        assert [outcome.is_accepted for outcome in outcomes] == [at != place for at in range(13)]
        assert calls(stub) == sum(row["record"] == "answer" for row in read_journal(journal)) == 12
        again = run_requests(requests, endpoint(stub), journal)
        assert calls(stub) == 12 and again[place].faults == outcomes[place].faults


@pytest.mark.parametrize(("status", "message"), [(402, "credit or quota is used up: busy"), (500, "had an error")])
def test_calls_in_flight_are_waited_for_when_the_run_stops(tmp_path: Path, status: int, message: str) -> None:
    journal = tmp_path / "journal.jsonl"
    with LlmStub() as stub:
        run_requests(questions(1), endpoint(stub), journal)
        completion = stub.completion

        def slow(body: dict[str, Any]) -> dict[str, Any]:
            if "class 5" in str(body):
                return {"error": {"message": "busy", "code": status}}
            time.sleep(0.3)
            return completion(body)

        stub.completion = slow  # type: ignore[method-assign]
        if status == 402:
            with pytest.raises(EndpointError, match=message):
                run_requests(questions(30), endpoint(stub), journal, concurrency=8)
            assert len(read_journal(journal)) == calls(stub) - 1 == 8
        else:  # one that fails while others get through
            outcomes = run_requests(questions(8), endpoint(stub), journal)
            assert sum(outcome.is_accepted for outcome in outcomes) == 7
            assert outcomes[5].faults == ("no answer: after 8 tries, the last: busy",)


@pytest.mark.parametrize("status", [403, 404])
def test_what_is_forbidden_among_answers_concerns_that_request(tmp_path: Path, status: int) -> None:
    with LlmStub() as stub:
        completion = stub.completion
        refusal = {"error": {"message": f"flagged, {KEY}", "code": status}}
        stub.completion = lambda body: refusal if "class 3" in str(body) else completion(body)  # type: ignore
        outcomes = run_requests(questions(6), endpoint(stub), tmp_path / "journal.jsonl")
    assert [outcome.is_accepted for outcome in outcomes] == [True] * 3 + [False] + [True] * 2
    assert f"(HTTP {status}): flagged, ***" in outcomes[3].faults[0]


@pytest.mark.parametrize("kind", ["late", "trickling"])
def test_calls_that_time_out_are_made_twice_at_most(tmp_path: Path, kind: str) -> None:
    with LlmStub() as stub:
        run_requests(questions(1), endpoint(stub), tmp_path / "journal.jsonl")
        if kind == "late":
            stub.latency_s = 1.0
        else:
            stub.trickle_s = 0.1
        with pytest.raises(EndpointError, match=r"timed out\. Raise --timeout; calls that timed out may have been"):
            run_requests(questions(2), endpoint(stub, timeout_s=0.3), tmp_path / "journal.jsonl")
        while stub.in_flight:
            time.sleep(0.01)
        assert calls(stub) == 1 + 2


# The key


def test_a_wrong_key_is_named_by_its_variable_and_shown_nowhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("STUB_API_KEY", "sk-wrong-one")
    caplog.set_level("DEBUG")
    with LlmStub() as stub, pytest.raises(EndpointError) as caught:
        run_requests(questions(9), endpoint(stub), tmp_path / "journal.jsonl")
    assert f"{stub.url} does not accept the key in STUB_API_KEY (HTTP 401)" in str(caught.value)
    assert len(stub.entries()) == 1
    assert "sk-wrong" not in f"{caught.value!r} {caplog.text}"
    assert all(b"sk-wrong" not in file.read_bytes() for file in tmp_path.rglob("*"))


def test_what_openai_is_told_of_the_account_is_not_told_to_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_ORG_ID", "org-mine")
    monkeypatch.setenv("OPENAI_PROJECT_ID", "proj-mine")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-openai")
    monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", "X-Own: header-mine")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")  # nor is what is on this machine a proxy's
    with LlmStub() as stub:
        run_requests(questions(1), endpoint(stub), tmp_path / "journal.jsonl")
        assert "mine" not in str(stub.last_headers) and "sk-openai" not in str(stub.last_headers)


@pytest.mark.parametrize("status", ["broken", "400"])
def test_an_endpoint_that_repeats_the_key_is_not_quoted_with_it(tmp_path: Path, status: str) -> None:
    with LlmStub() as stub:
        if status == "broken":
            stub.completion = lambda body: {"your key": KEY}  # type: ignore[method-assign]
        request = question("walk" if status == "broken" else "forbidden")
        with pytest.raises(EndpointError) as caught:
            run_requests([request], endpoint(stub), tmp_path / "journal.jsonl")
    assert KEY not in str(caught.value) and "***" in str(caught.value)


def test_a_missing_key_is_asked_for_only_by_other_machines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("STUB_API_KEY")
    with LlmStub(key="") as stub:
        texts(run_requests(questions(1), endpoint(stub), tmp_path / "journal.jsonl"))
    with pytest.raises(ValueError, match=r"variable MY_LLM_API_KEY is not set; it holds the key of https://a.example/"):
        run_requests(questions(1), Endpoint("m", "my-llm", "https://a.example/v1"), tmp_path / "other.jsonl")
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(ValueError, match=r"OPENAI_API_KEY is not set; it holds the key of https://api.openai.com/v1\."):
        run_requests(questions(1), Endpoint("m"), tmp_path / "other.jsonl")
    assert not (tmp_path / "other.jsonl").exists()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"model": ""}, "model is empty"),
        ({"provider": "other"}, r"provider='other': its address is not known; give the base URL \(--base-url\)"),
        ({"base_url": "localhost:80"}, "base URL is not one of http or https"),
        ({"base_url": "https://me:hidden@a.example/v1"}, "carries a user, a password, a query or .* put the key into"),
        ({"base_url": "https://@a.example/v1"}, "carries a user"),
        ({"base_url": "https://a.example/v1;key=hidden"}, "carries a user"),
        ({"base_url": "https://a.example/v1#hidden"}, "carries a user"),
        ({"base_url": "http://me:hidden/v1"}, "base URL is not one of http or https"),
        ({"base_url": "http://a.example/ hidden/v1"}, "base URL is not one of http or https"),
        ({"base_url": "http://[::1"}, "base URL is not one of http or https"),
        ({"base_url": "https://a.example/v1"}, r"a\.example, which would get OpenAI's key; name its provider \(--prov"),
        ({"base_url": f"http://[::1]/{KEY}/v1", "provider": "stub"}, "base URL hold the key of STUB_API_KEY"),
        ({"params": {"api_key": "hidden", "max_tokens": 1}}, "parameter api_key may hold"),
        ({"params": {"extra_headers": {"Authorization": "hidden"}}}, "parameter extra_headers may hold"),
        ({"params": {"x-auth-Token": "hidden"}}, "parameter x-auth-Token may hold"),
        ({"timeout_s": 0}, "timeout_s=0; it is more than 0"),
        ({"params": {"n": 2, "stream": True}}, "parameter n, stream is set by kinetext"),
        ({"params": {"user": KEY}, "provider": "stub", "base_url": "http://[::1]/v1"}, "hold the key of STUB_API_KEY"),
    ],
)
def test_wrong_endpoints_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        Endpoint(**{"model": "tiny", **fields})
    assert "hidden" not in str(caught.value) and KEY not in str(caught.value)


@pytest.mark.parametrize("key", ["sk-one-long-key\nsk-another-key", "sk-one key", "sk-one\x07key", "sk-é"])
def test_a_key_that_could_not_be_sent_is_not_shown(monkeypatch: pytest.MonkeyPatch, key: str) -> None:
    monkeypatch.setenv("STUB_API_KEY", key)
    with pytest.raises(ValueError, match="variable STUB_API_KEY holds what no key has") as caught:
        Endpoint("tiny", "stub", "http://127.0.0.1/v1").key()
    assert "sk-" not in str(caught.value)


def test_a_key_with_a_line_break_at_its_end_is_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STUB_API_KEY", KEY + "\n")
    assert Endpoint("tiny", "stub", "http://127.0.0.1/v1", params={"max_tokens": 9}).key() == KEY
    with pytest.raises(ValueError, match="hold the key of STUB_API_KEY"):
        Endpoint("tiny", "stub", "http://127.0.0.1/v1", params={"user": KEY})


def test_a_short_word_for_a_key_is_left_in_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STUB_API_KEY", "the")
    with LlmStub(key="") as stub:
        assert texts(run_requests(questions(1), endpoint(stub), tmp_path / "journal.jsonl"))[0].startswith("the ")


def test_parameters_are_json() -> None:
    with pytest.raises(ValueError, match="parameter 'temperature=NaN': 'NaN' is not JSON"):
        parse_params(["temperature=NaN"])
    assert parse_params(["temperature=0.7", 'effort="low"', "x=[1]"]) == {"temperature": 0.7, "effort": "low", "x": [1]}
    for pair in ("temperature", "=1", "effort=low"):
        with pytest.raises(ValueError, match=f"parameter '{pair}': "):
            parse_params([pair])
    with pytest.raises(ValueError, match="each name once"):
        parse_params(["a=1", "a=2"])


def test_names_tell_requests_apart(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="two requests are called 'walk'"):
        run_requests([question("walk"), question("walk")], Endpoint("m"), tmp_path / "journal.jsonl")


# The journal


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ({}, "line 2 is damaged: record is missing"),
        ({"record": "answr"}, "line 2 is damaged: record is missing or wrong"),
        ({"record": "answer", "key": "a"}, "line 2 is damaged: provider, requested, params, .* is missing"),
        ({"record": "batch_begun"}, "line 2 is damaged: token, settings, keys is missing"),
        ({"prompt_tokens": None}, "line 2 is damaged: prompt_tokens is missing or wrong"),
        ({"provider": "other"}, r"line 2 is an answer of 'tiny' at other, not stub; .* \(--provider\)"),
    ],
)
def test_a_damaged_record_is_named(tmp_path: Path, line: dict[str, Any], message: str) -> None:
    journal = tmp_path / "journal.jsonl"
    with LlmStub() as stub:
        run_requests(questions(1), endpoint(stub), journal)
        (good,) = read_journal(journal)
        damaged = line if "record" in line or not line else good | line
        journal.write_bytes(journal.read_bytes() + json.dumps(damaged).encode() + b"\n")
        for look in (run_requests, forecast_requests):
            with pytest.raises(ValueError, match=message):
                look(questions(2), endpoint(stub), journal)  # type: ignore[operator]
        assert calls(stub) == 1


def test_a_folder_that_cannot_be_written_is_found_before_the_first_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import resource

    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))  # as on a full disk
    try:
        with LlmStub() as stub:
            with pytest.raises(OSError, match=f"too large, so nothing was asked: '{tmp_path}'"):
                run_requests(questions(9), endpoint(stub), tmp_path / "journal.jsonl")
            assert stub.entries() == []
            monkeypatch.setattr("kinetext.descriptions.engine._PROBE_BYTES", 1)
            with pytest.raises(OSError, match=r"too large: '.*journal\.jsonl'"):
                run_requests(questions(90), endpoint(stub), tmp_path / "journal.jsonl")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


# Interrupted

_PROGRAM = """
import sys
from descriptions.engine import Endpoint, Request, run_requests
requests = [
    Request(f"class {n}", ({"role": "user", "content": f"How does class {n} move?"},), lambda text: [])
    for n in range(60)
]
try:
    run_requests(requests, Endpoint("tiny", "stub", sys.argv[1]), sys.argv[2], concurrency=4)
except KeyboardInterrupt:
    print("interrupted")
"""


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_signals_lose_at_most_the_calls_in_flight(tmp_path: Path, sent: signal.Signals) -> None:
    journal = tmp_path / "journal.jsonl"
    with LlmStub(latency_s=0.05) as stub:
        command = [sys.executable, "-c", _PROGRAM, stub.url, str(journal)]
        environment = {**os.environ, "PYTHONPATH": str(Path(endpoint_module.__file__).parents[1])}  # without the rest
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
        while calls(stub) < 12:
            assert process.poll() is None, process.communicate()
            time.sleep(0.01)
        process.send_signal(sent)
        output, errors = process.communicate(timeout=20)
        assert output == ("" if sent == signal.SIGKILL else "interrupted\n"), errors
        time.sleep(0.1)
        assert calls(stub) - 4 <= len(read_journal(journal)) < 60
        kept = len(read_journal(journal))
        again = calls(stub)
        texts(run_requests(questions(60), endpoint(stub), journal))
        assert calls(stub) - again == 60 - kept


def test_the_journal_is_json_lines_without_the_key(tmp_path: Path) -> None:
    with LlmStub(faults={"500": 0.2}) as stub:
        run_requests(questions(5), endpoint(stub), tmp_path / "journal.jsonl")
    content = (tmp_path / "journal.jsonl").read_text()
    rows = [json.loads(line) for line in content.splitlines()]
    assert KEY not in content and stub.url not in content
    assert rows[0]["messages"] == [{"role": "user", "content": "How does class 0 move?"}]
