"""Paid requests to an OpenAI-compatible endpoint, asked once each: journal, resuming, asking again, outcomes.

    requests ──► judged against the journal ──► calls still to make ──► one by one, or as a batch ──► journal ──┐
                    ▲                                                                                           │
                    └───────────────────────────── until no call is left ◄──────────────────────────────────────┘

What becomes of each request follows from the journal alone, in the order of the requests and never in that in which
answers arrive. So a run that was killed and one that was not end with the same outcomes. A call's key is the hash of
messages, model, parameters and attempt; a key that has an answer is never sent again. What can be paid for without an
answer in the journal: calls in flight when the process is killed, and calls that time out.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import hashlib
import json
import os
import re
import signal
import tempfile
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .batch import begin_batch, open_batch, run_batch
from .endpoint import Caller, Endpoint, EndpointError, RequestFailedError
from .journal import Journal, read_journal
from .prompts import Messages, asked_again, messages_sha256
from .schema import normalised_name

__all__ = [
    "Endpoint",
    "EndpointError",
    "Forecast",
    "Outcome",
    "Request",
    "Tally",
    "cost",
    "forecast_requests",
    "run_requests",
]

# What a structured answer looks like: one string, so that nothing stands around the text.
_RESPONSE_FORMAT = {
    "type": "json_schema",
    "json_schema": {
        "name": "description",
        "strict": True,
        "schema": {
            "type": "object",
            "properties": {"text": {"type": "string"}},
            "required": ["text"],
            "additionalProperties": False,
        },
    },
}
_CHARACTERS_PER_TOKEN = 4  # of English, the usual rule of thumb
_MOST_FIRST_QUESTIONS = 3  # refused before the endpoint has answered any, until the run gives up
_PROBE_BYTES = 100_000  # some answers
_LATEST_S = 253_402_300_799  # the end of the year 9999; what is later is no time in seconds
_HALF_CHARACTER = re.compile("[\ud800-\udfff]")
_FIELDS: dict[str, dict[str, Any]] = {  # of the records of a journal, with their types
    "answer": {
        "key": str,
        "provider": str,
        "requested": str,
        "params": dict,
        "structured": bool,
        "content": str | None,
        "refusal": str | None,
        "finish_reason": str | None,
        "model": str,
        "created": int,
        "prompt_tokens": int,
        "completion_tokens": int,
    },
    "retry": {"key": str},
    "batch_begun": {"token": str, "settings": dict, "keys": list},
    "batch": {"token": str, "id": str},
    "batch_ended": {"token": str},
}


@dataclass(frozen=True)
class Request:
    """One question.

    Args:
        name: who it is, for reports: unique among the requests of a run, e.g. `clapping, conceptual`.
        messages: what is sent.
        faults_of: what is wrong with a text, each fault a phrase that can be put to the model; empty if nothing.
        cleaned: the text in an answer, without what models wrap it in.
    """

    name: str
    messages: Messages
    faults_of: Callable[[str], list[str]]
    cleaned: Callable[[str], str] = str.strip


@dataclass(frozen=True)
class Outcome:
    """What became of a request.

    Args:
        request: the one.
        text: the answer, cleaned; empty if there is none.
        faults: why it is not accepted although it was asked for once more, or why there is no answer; empty if it is.
        provider: who was asked.
        model: that answered, as the endpoint calls it.
        created_at: when the endpoint says that it answered, ISO 8601 in UTC; empty if it does not say.
        prompt_sha256: hash of the messages as they were sent.
        params: what was sent beside messages and model, as JSON with sorted keys.
    """

    request: Request
    text: str
    faults: tuple[str, ...]
    provider: str = ""
    model: str = ""
    created_at: str = ""
    prompt_sha256: str = ""
    params: str = "{}"

    @property
    def is_accepted(self) -> bool:
        """Whether the text can be used."""
        return not self.faults


@dataclass
class Tally:
    """Where a run stands.

    Args:
        total: calls known to be needed; grows when answers have to be asked for again.
        done: those with an answer, in this run or an earlier one.
        new: answers of this run.
        prompt_tokens: of all that are done, as the endpoint counts them; likewise `completion_tokens`.
        completion_tokens: see there.
        faulty: answers with faults, which are asked for again or rejected.
        retries: calls repeated after a passing failure.
        waiting: why calls wait or what a batch does, empty if nothing holds them up.
    """

    total: int = 0
    done: int = 0
    new: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    faulty: int = 0
    retries: int = 0
    waiting: str = ""

    def count(self, record: dict[str, Any]) -> None:
        """Adds an answer as the journal has it."""
        self.done += 1
        self.prompt_tokens += record["prompt_tokens"]
        self.completion_tokens += record["completion_tokens"]


def cost(tokens: tuple[int, int], prices: tuple[float, float]) -> float:
    """Of tokens sent and received, for the prices of a million each."""
    return (tokens[0] * prices[0] + tokens[1] * prices[1]) / 1e6


@dataclass(frozen=True)
class Forecast:
    """What a run would do now.

    Args:
        answered: the request of each answer in the journal that the run would use.
        calls: request and messages of each call that it would begin with, without those that a batch has been paid
            for already; answers with faults add to these.
    """

    answered: tuple[Request, ...]
    calls: tuple[tuple[Request, Messages], ...]

    @property
    def prompt_tokens(self) -> int:
        """Tokens to send, estimated at 4 characters each."""
        characters = sum(len(turn["content"]) for _, messages in self.calls for turn in messages)
        return round(characters / _CHARACTERS_PER_TOKEN)


def run_requests(
    requests: Sequence[Request],
    endpoint: Endpoint,
    journal_path: str | os.PathLike[str],
    *,
    concurrency: int = 16,
    distinct: bool = False,
    is_batch: bool = False,
    retry_rejected: bool = False,
    on_change: Callable[[Tally], None] | None = None,
) -> list[Outcome]:
    """An outcome for each request, in their order. What the journal answers is not asked again.

    An answer with faults is asked for once more, with the reasons as a further turn; if that has faults too, the
    outcome is not accepted. Structured output is asked for where the endpoint takes that: the first call finds out, and
    all others follow, in later runs too.

    Args:
        requests: with different names.
        endpoint: whom to ask.
        journal_path: of this run and those that it goes on from.
        concurrency: calls in flight at most.
        distinct: whether a text that an earlier request has already is a fault.
        is_batch: sends the calls of each round as one job of the Batch API instead.
        retry_rejected: asks again, from the start, for what stands rejected at the end.
        on_change: told where the run stands, after every answer and wait.

    Raises:
        EndpointError: the endpoint refuses the key or the model, or does not answer; the calls in flight are waited
            for.
        ValueError: two requests have one name, there is no key, or the journal is damaged, in use, of another provider
            or waiting for a batch.
        OSError: the folder of the journal cannot be written, found out before the first call, or its disk is full.
        KeyboardInterrupt: on Ctrl-C and SIGTERM; the calls in flight are lost, no others.
    """
    _check_names(requests)
    if concurrency < 1:
        raise ValueError(f"concurrency={concurrency}; at least one call has to be in flight.")
    endpoint.key()  # complains before anything is opened
    with _named_in_errors(journal_path), Journal(journal_path) as journal:
        _check_records(journal.records, journal.path, endpoint)
        job = open_batch(journal.records)
        if job is not None and not is_batch:
            raise ValueError(
                f"{journal_path} waits for a batch; run with --batch to collect it, after cancelling it there "
                "if you do not want the rest of it."
            )
        if job is not None and job["settings"].get("host") != endpoint.host:
            raise ValueError(
                f"{journal_path} waits for a batch of {job['settings'].get('host')}, not {endpoint.host}; give its "
                "base URL to collect it."
            )
        _check_disk(journal.path.parent)
        run = _Run(
            requests,
            endpoint,
            journal,
            concurrency=concurrency,
            distinct=distinct,
            is_batch=is_batch,
            on_change=on_change or (lambda tally: None),
        )
        return _finished(run.outcomes(retry_rejected=retry_rejected))


def forecast_requests(
    requests: Sequence[Request], endpoint: Endpoint, journal_path: str | os.PathLike[str], *, distinct: bool = False
) -> Forecast:
    """What `run_requests` would find in the journal and ask for; nothing is sent or written.

    Raises:
        ValueError: two requests have one name, or the journal is damaged or of another provider.
    """
    _check_names(requests)
    records = read_journal(journal_path)
    _check_records(records, journal_path, endpoint)
    verdict = _Judge(requests, endpoint, distinct).verdict(records)
    job = open_batch(records)
    paid = set() if job is None else set(job["keys"])
    calls = tuple((requests[ask.place], ask.messages) for ask in verdict.pending if ask.key not in paid)
    return Forecast(tuple(requests[place] for place in verdict.places_of_answers), calls)


def _check_names(requests: Sequence[Request]) -> None:
    names = [request.name for request in requests]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"two requests are called {twice!r}; names tell them apart in reports.")


def _check_records(records: Iterable[Mapping[str, Any]], path: str | os.PathLike[str], endpoint: Endpoint) -> None:
    """Whether each record has what its kind has, and answers of this model come from this provider."""
    for number, record in enumerate(records, start=1):
        fields = _FIELDS.get(str(record.get("record")), {"record": ()})
        wrong = [name for name, kind in fields.items() if name not in record or not isinstance(record[name], kind)]
        if wrong:
            raise ValueError(
                f"{path}, line {number} is damaged: {', '.join(wrong)} is missing or wrong; bring the file back from a "
                "copy, or remove that line: if it is an answer, it is then asked for again."
            )
        if _is_of(record, endpoint) and record["provider"] != endpoint.provider:
            raise ValueError(
                f"{path}, line {number} is an answer of {endpoint.model!r} at {record['provider']}, not "
                f"{endpoint.provider}; texts of two endpoints do not go into one set: name that provider "
                "(--provider), or choose another place (--out)."
            )


@contextlib.contextmanager
def _named_in_errors(path: str | os.PathLike[str]) -> Iterator[None]:
    """Puts the path into what the system says of a file without naming it, such as that its disk is full."""
    try:
        yield
    except OSError as error:
        if error.errno is None or error.filename is not None:
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error


def _check_disk(folder: Path) -> None:
    """Whether what is paid for can be written; found out before anything is."""
    try:
        with tempfile.TemporaryFile(dir=folder) as probe:
            probe.write(bytes(_PROBE_BYTES))
    except OSError as error:
        raise OSError(error.errno, f"{error.strerror}, so nothing was asked", str(folder)) from error


def _is_of(record: Mapping[str, Any], endpoint: Endpoint) -> bool:
    """Whether the model was asked for this answer."""
    return bool(record["record"] == "answer" and record["requested"] == endpoint.model)


def _finished(outcomes: Coroutine[Any, Any, list[Outcome]]) -> list[Outcome]:
    """The result of a coroutine, run so that SIGTERM ends it as Ctrl-C does."""

    async def interruptible() -> list[Outcome]:
        task = asyncio.current_task()
        assert task is not None
        with contextlib.suppress(NotImplementedError, RuntimeError, ValueError):  # Windows, or not the main thread
            asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
        return await outcomes

    try:
        return asyncio.run(interruptible())
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None
    except BaseExceptionGroup as group:  # several workers may fail at once, for the same reason
        raise group.exceptions[0] from None


# What the journal says


@dataclass(frozen=True)
class _Ask:
    """A call: of which request, in which attempt, whether it is the second of two, what it says and how."""

    place: int
    attempt: int
    is_second: bool
    messages: Messages
    is_structured: bool
    key: str


@dataclass(frozen=True)
class _Answered:
    ask: _Ask
    text: str
    faults: tuple[str, ...]
    record: dict[str, Any] | None  # None if there is no answer

    @property
    def said(self) -> str:
        """What the model said, word for word, without its thoughts."""
        return "" if self.record is None else _without_thoughts(self.record["content"] or self.record["refusal"] or "")


@dataclass
class _Verdict:
    """Where all requests stand: the last answer of each, accepted or not, and the calls still to make."""

    answers: dict[int, _Answered]
    pending: list[_Ask]
    places_of_answers: list[int]
    records: dict[str, dict[str, Any]]  # of the answers used, by key


def _structured_output_of(records: Iterable[Mapping[str, Any]], endpoint: Endpoint) -> bool | None:
    """Whether structured output is asked for, as of the first answer of this model; None if there is none yet."""
    return next((record["structured"] for record in records if _is_of(record, endpoint)), None)


class _Judge:
    """Decides, from the records of a journal alone, what became of requests and what is still to be asked."""

    def __init__(self, requests: Sequence[Request], endpoint: Endpoint, distinct: bool) -> None:
        self._requests = requests
        self._endpoint = endpoint
        self._distinct = distinct
        self.failed: dict[str, str] = {}  # why calls of this run got no answer, by key
        self._read: dict[tuple[str, int], tuple[str, tuple[str, ...]]] = {}

    def verdict(self, records: Sequence[dict[str, Any]]) -> _Verdict:
        """Where all requests stand by the records of a journal."""
        self._is_structured = _structured_output_of(records, self._endpoint) is not False
        self._answers = {record["key"]: record for record in records if record["record"] == "answer"}
        self._second_answers: dict[str, dict[str, Any]] = {}
        for record in self._answers.values():
            if len(record.get("messages", ())) > 1 and _is_of(record, self._endpoint):
                said = _hash((record["messages"][:-1], record["params"], record["structured"], record["attempt"]))
                self._second_answers.setdefault(said, record)
        opened = {record["key"] for record in records if record["record"] == "retry"}
        self._result = _Verdict({}, [], [], {})
        self._owners: dict[str, int] = {}  # whose text it is, by the text without case and punctuation
        places = list(range(len(self._requests)))
        attempt = 0
        while places:
            self._judge_attempt(places, attempt)
            rejected = [place for place in places if self._result.answers[place].faults] if self._is_complete else []
            attempt += 1
            places = [place for place in rejected if self.first_ask(place, attempt).key in opened]
        return self._result

    @property
    def _is_complete(self) -> bool:
        return not self._result.pending

    def _judge_attempt(self, places: Sequence[int], attempt: int) -> None:
        """First each answer by itself, then, once all are there, equal ones in the order of the requests."""
        answers = {place: self._answer(self.first_ask(place, attempt)) for place in places}
        for place, answer in answers.items():
            if answer is not None and answer.record and answer.faults:
                answers[place] = self._answer(self._second_ask(answer, answer.faults))
        if not self._is_complete:
            return
        repeated = {}
        for place, answer in answers.items():
            assert answer is not None
            fault = self._claim(place, answer)
            if fault and not answer.ask.is_second:
                repeated[place] = self._answer(self._second_ask(answer, (fault,)))
            else:
                self._result.answers[place] = _with_fault(answer, fault)
        if not self._is_complete:
            return
        for place, answer in repeated.items():
            assert answer is not None
            self._result.answers[place] = _with_fault(answer, self._claim(place, answer))

    def _claim(self, place: int, answer: _Answered) -> str | None:
        """Takes the text for this request, or says who has it."""
        if answer.faults or not self._distinct:
            return None
        owner = self._owners.setdefault(normalised_name(answer.text) or answer.text, place)
        return None if owner == place else f"it repeats the text already given for {self._requests[owner].name}"

    def first_ask(self, place: int, attempt: int, *, is_plain: bool = False) -> _Ask:
        """The call that an attempt at a request begins with; `is_plain` if it must not ask for structured output."""
        is_structured = self._is_structured and not is_plain
        return self._ask(place, attempt, False, self._requests[place].messages, is_structured)

    def _second_ask(self, answer: _Answered, reasons: Sequence[str]) -> _Ask:
        """The call for another answer; the one made earlier, if there was one, in whatever words the reasons were."""
        ask = answer.ask
        messages = asked_again(ask.messages, answer.said, reasons)
        made = self._ask(ask.place, ask.attempt, True, messages, ask.is_structured)
        said = _hash((messages[:-1], self._endpoint.params, ask.is_structured, ask.attempt))
        earlier = self._second_answers.get(said)
        if earlier is None or made.key in self._answers:
            return made
        return _Ask(ask.place, ask.attempt, True, tuple(earlier["messages"]), ask.is_structured, earlier["key"])

    def _ask(self, place: int, attempt: int, is_second: bool, messages: Messages, is_structured: bool) -> _Ask:
        content = {
            "messages": messages,
            "model": self._endpoint.model,
            "params": self._endpoint.params,
            "structured": is_structured,
            "attempt": attempt,
        }
        return _Ask(place, attempt, is_second, messages, is_structured, _hash(content))

    def _answer(self, ask: _Ask) -> _Answered | None:
        """The answer that the journal has; None, and a call to make, if it has none."""
        record = self._answers.get(ask.key)
        if record is not None:
            self._result.places_of_answers.append(ask.place)
            self._result.records[ask.key] = record
            return _Answered(ask, *self.read(record, ask.place), record)
        if ask.key in self.failed:
            return _Answered(ask, "", (self.failed[ask.key],), None)
        self._result.pending.append(ask)
        return None

    def read(self, record: dict[str, Any], place: int) -> tuple[str, tuple[str, ...]]:
        """Text and faults of an answer to a request."""
        known = (record["key"], place)
        if known not in self._read:
            self._read[known] = _text_and_faults(record, self._requests[place])
        return self._read[known]


def _with_fault(answer: _Answered, fault: str | None) -> _Answered:
    return answer if fault is None else _Answered(answer.ask, answer.text, (fault,), answer.record)


def _hash(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, ensure_ascii=False, sort_keys=True).encode()).hexdigest()


def _text_and_faults(record: Mapping[str, Any], request: Request) -> tuple[str, tuple[str, ...]]:
    if record["refusal"]:
        return request.cleaned(record["refusal"]), ("it refuses to answer",)
    content = _without_thoughts(record["content"] or "").strip()
    if record["finish_reason"] == "length":
        return request.cleaned(content), ("it was cut off at the limit of tokens",)
    if record["finish_reason"] == "content_filter":
        return request.cleaned(content), ("it was stopped by the endpoint's content filter",)
    if content.startswith("```") and content.endswith("```"):
        content = content.strip("`").removeprefix("json").strip()
    if record["structured"] and content.startswith("{"):  # some endpoints take the request and answer in plain words
        try:
            content = json.loads(content)["text"]
            is_asked = isinstance(content, str)
        except (ValueError, KeyError, RecursionError):
            is_asked = False
        if not is_asked:
            return request.cleaned(record["content"]), ('it is not the JSON object {"text": "..."} asked for',)
    text = request.cleaned(_HALF_CHARACTER.sub("\ufffd", content))
    if "\ufffd" in text:
        return text, ("it contains broken characters",)
    return text, tuple(request.faults_of(text) if text else ("it is empty",))


def _without_thoughts(answer: str) -> str:
    """An answer without what local servers leave in front of it."""
    return answer.rpartition("</think>")[2]


# The run


class _Run:
    """One run on an open journal."""

    def __init__(
        self,
        requests: Sequence[Request],
        endpoint: Endpoint,
        journal: Journal,
        *,
        concurrency: int,
        distinct: bool,
        is_batch: bool,
        on_change: Callable[[Tally], None],
    ) -> None:
        self._requests = requests
        self._endpoint = endpoint
        self._journal = journal
        self._concurrency = concurrency
        self._is_batch = is_batch
        self._on_change = on_change
        self._tally = Tally()
        self._judge = _Judge(requests, endpoint, distinct)

    async def outcomes(self, *, retry_rejected: bool) -> list[Outcome]:
        has_answered = any(
            _is_of(record, self._endpoint) and record["params"] == self._endpoint.params
            for record in self._journal.records
        )
        self._caller = Caller(self._endpoint, self._on_retry, has_answered=has_answered)
        try:
            verdict = await self._settled()
            rejected = [answer for answer in verdict.answers.values() if answer.faults and answer.record]
            if retry_rejected and rejected:
                for answer in rejected:
                    again = self._judge.first_ask(answer.ask.place, answer.ask.attempt + 1)
                    self._journal.append({"record": "retry", "name": self._name(again), "key": again.key})
                verdict = await self._settled()
        finally:
            await self._caller.close()
        return [self._outcome(verdict.answers[place]) for place in range(len(self._requests))]

    async def _settled(self) -> _Verdict:
        """Where all requests stand once no call is left to make."""
        while True:
            verdict = self._judge.verdict(self._journal.records)
            pending = list({ask.key: ask for ask in verdict.pending}.values())
            self._recount(verdict, len(pending))
            if self._is_batch and (job := open_batch(self._journal.records)) is not None:
                await self._collect(job, pending, None)
            elif not pending:
                return verdict
            elif _structured_output_of(self._journal.records, self._endpoint) is None:
                await self._find_out(pending)
            elif self._is_batch:
                await self._ask_batch(pending)
            else:
                await self._ask_all(pending)

    async def _find_out(self, pending: Sequence[_Ask]) -> None:
        """Makes the first call, with structured output, and without if that fails; of another request if it is refused.

        Raises:
            EndpointError: several requests are refused, or one for a reason that is not its own.
        """
        for number, ask in enumerate(pending[:_MOST_FIRST_QUESTIONS], start=1):
            try:
                return await self._ask_first(ask)
            except EndpointError as error:
                if error.status not in (400, 422) or number == min(len(pending), _MOST_FIRST_QUESTIONS):
                    raise

    async def _ask_first(self, ask: _Ask) -> None:
        try:
            await self._ask(ask)
        except EndpointError as error:
            if error.status in (0, 401, 402, 403, 429, 503):
                raise
            await self._ask(self._judge.first_ask(ask.place, ask.attempt, is_plain=True))

    async def _ask_all(self, pending: Sequence[_Ask]) -> None:
        """Makes the calls; if the endpoint refuses for good, no more, but those in flight are waited for."""
        left = iter(pending)
        ends: list[EndpointError] = []

        async def work() -> None:
            for ask in left:
                if ends:
                    return
                try:
                    await self._ask(ask)
                except RequestFailedError as error:
                    self._judge.failed[ask.key] = str(error)
                except EndpointError as error:
                    ends.append(error)
                    self._caller.stop()

        async with asyncio.TaskGroup() as workers:
            for _ in range(min(self._concurrency, len(pending))):
                workers.create_task(work())
        if ends:
            raise ends[0]

    async def _ask(self, ask: _Ask) -> None:
        completion = await self._caller.complete(self._body(ask), self._name(ask))
        self._keep(ask.key, completion, self._settings(ask), ask)

    async def _ask_batch(self, pending: Sequence[_Ask]) -> None:
        """Makes the calls as one job; what gets no answer is pending still, or failed if the job answers nothing."""
        asks = {ask.key: ask for ask in pending}
        bodies = {key: self._body(ask) for key, ask in asks.items()}
        job = begin_batch(self._journal, self._settings(pending[0]), asks)
        before = self._tally.new
        reasons = await self._collect(job, pending, bodies)
        if self._tally.new == before:
            self._judge.failed |= {key: f"no answer: {reasons.get(key, 'the batch left it out')}" for key in asks}

    async def _collect(
        self, job: Mapping[str, Any], pending: Sequence[_Ask], bodies: Mapping[str, dict[str, Any]] | None
    ) -> dict[str, str]:
        """Takes the answers of a job; why others are missing, as far as it says so, by key."""
        asks = {ask.key: ask for ask in pending}
        reasons = {}
        async for key, answer in run_batch(self._caller, self._journal, job, bodies, self._on_batch):
            if isinstance(answer, str):
                reasons[key] = answer
            else:
                self._keep(key, answer, job["settings"], asks.get(key))
        return reasons

    def _body(self, ask: _Ask) -> dict[str, Any]:
        """What is sent."""
        body = {"model": self._endpoint.model, "messages": list(ask.messages), **self._endpoint.params}
        return {**body, "response_format": _RESPONSE_FORMAT} if ask.is_structured else body

    def _settings(self, ask: _Ask) -> dict[str, Any]:
        """Who is asked and how, as the journal has it."""
        return {
            "provider": self._endpoint.provider,
            "host": self._endpoint.host,
            "requested": self._endpoint.model,
            "params": self._endpoint.params,
            "structured": ask.is_structured,
        }

    def _keep(self, key: str, completion: dict[str, Any], settings: Mapping[str, Any], ask: _Ask | None) -> None:
        """Puts an answer into the journal; `ask` is None for one to a batch that this run would not ask for.

        It has been paid for, so whatever is missing or odd in it is no reason to lose it.
        """
        choice = _part(completion.get("choices"), 0)
        message = _part(choice, "message")
        usage = completion.get("usage")
        content = _part(message, "content")
        if isinstance(content, list):
            content = "".join(_part(part, "text", "") for part in content)
        asked = {} if ask is None else {"name": self._name(ask), "attempt": ask.attempt, "messages": ask.messages}
        record = {
            "record": "answer",
            "key": key,
            **asked,
            **settings,
            "content": self._text(content),
            "refusal": self._text(_part(message, "refusal")),
            "finish_reason": self._text(_part(choice, "finish_reason")),
            "model": self._text(completion.get("model")) or settings["requested"],
            "created": _count(completion.get("created"), _LATEST_S),
            "prompt_tokens": _count(_part(usage, "prompt_tokens")),
            "completion_tokens": _count(_part(usage, "completion_tokens")),
        }
        self._journal.append(record)
        self._tally.count(record)
        self._tally.new += 1
        self._tally.waiting = ""
        if ask is not None and self._judge.read(record, ask.place)[1]:
            self._tally.faulty += 1
        self._on_change(self._tally)

    def _text(self, value: Any) -> str | None:
        """A text of the endpoint, without the key and half characters; None for anything else."""
        return self._caller.without_key(_HALF_CHARACTER.sub("\ufffd", value)) if isinstance(value, str) else None

    def _recount(self, verdict: _Verdict, pending: int) -> None:
        """Counts anew from the journal: answers with faults have brought further calls."""
        tally = self._tally
        tally.done = tally.prompt_tokens = tally.completion_tokens = 0
        for record in verdict.records.values():
            tally.count(record)
        tally.total = tally.done + pending
        self._on_change(tally)

    def _on_retry(self, why: str) -> None:
        self._tally.retries += 1
        self._tally.waiting = why
        self._on_change(self._tally)

    def _on_batch(self, status: str) -> None:
        self._tally.waiting = status
        self._on_change(self._tally)

    def _outcome(self, answer: _Answered) -> Outcome:
        request = self._requests[answer.ask.place]
        record = answer.record
        if record is None:
            return Outcome(request, "", answer.faults)
        sent = {**record["params"], **({"response_format": "json_schema"} if record["structured"] else {})}
        when = datetime.datetime.fromtimestamp(record["created"], datetime.UTC)
        return Outcome(
            request,
            answer.text,
            answer.faults,
            provider=record["provider"],
            model=record["model"],
            created_at=when.strftime("%Y-%m-%dT%H:%M:%SZ") if record["created"] else "",
            prompt_sha256=messages_sha256(answer.ask.messages),
            params=json.dumps(sent, ensure_ascii=False, sort_keys=True),
        )

    def _name(self, ask: _Ask) -> str:
        return self._requests[ask.place].name


def _part(whole: Any, key: int | str, default: Any = None) -> Any:
    """An item of a list or dict; the default if there is none or `whole` is something else."""
    try:
        return whole[key]
    except (LookupError, TypeError):
        return default


def _count(value: Any, most: int = 10**12) -> int:
    """A number as endpoints write it; 0 for what is none or out of bounds."""
    return int(value) if isinstance(value, (int, float)) and 0 <= value <= most else 0
