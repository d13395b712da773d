"""The Batch API: many calls uploaded as one job, which the endpoint answers within a day, often at a lower price.

A job leaves three records in the journal: that it begins, with the keys of its calls and under a token of its own that
also goes into the job's metadata; its id; that it has ended and all its answers are in the journal. A run killed
between any two of these finds the job by its token, and no other job is made meanwhile.
"""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from typing import Any, Final

from .endpoint import BrokenAnswerError, Caller, EndpointError, checked_completion
from .journal import Journal

__all__ = ["begin_batch", "open_batch", "run_batch"]

_MAX_CALLS = 50_000  # of one job; the rest waits for the next
_PATH: Final = "/v1/chat/completions"
_TOKEN = "kinetext"  # name of the metadata field
_SHORTEST_POLL_S = 0.5  # doubles up to
_LONGEST_POLL_S = 60.0
_RUNNING = ("validating", "in_progress", "finalizing", "cancelling")
_ENDED = ("completed", "failed", "expired", "cancelled")
_REFUSALS = (400, 404, 405, 422, 501)  # statuses that say that no job has been made


def open_batch(records: Iterable[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """The record of the job that was begun and of which not all answers are there: its calls must not be made again."""
    records = list(records)
    ended = {record["token"] for record in records if record["record"] == "batch_ended"}
    begun = (record for record in records if record["record"] == "batch_begun")
    return next((record for record in begun if record["token"] not in ended), None)


def begin_batch(journal: Journal, settings: Mapping[str, Any], keys: Iterable[str]) -> Mapping[str, Any]:
    """The record of a new job, which is on disk before the endpoint hears of it.

    Args:
        journal: where it is noted.
        settings: of its calls.
        keys: of its calls; those that are too many for one job are left out.
    """
    job = {"token": uuid.uuid4().hex, "settings": settings, "keys": list(keys)[:_MAX_CALLS]}
    journal.append({"record": "batch_begun", **job})
    return job


async def run_batch(
    caller: Caller,
    journal: Journal,
    job: Mapping[str, Any],
    bodies: Mapping[str, Mapping[str, Any]] | None,
    on_status: Callable[[str], None],
) -> AsyncIterator[tuple[str, dict[str, Any] | str]]:
    """The answers of a job.

    Args:
        caller: to the endpoint.
        journal: told what the job is called, and when all its answers have been taken.
        job: of `begin_batch` or `open_batch`.
        bodies: of the calls, by key, from which a new job is made; None for one that an earlier run began. If the
            endpoint does not know that one, it has ended, without answers.
        on_status: told what the job does.

    Yields:
        Key, and the completion or why there is none; of keys of the job without an answer in the journal only, each
        once.

    Raises:
        EndpointError: the endpoint has no Batch API, or the job failed, expired, was cancelled or is gone; what it
            answered has been handed on before.
    """
    token = job["token"]

    def end(status: str) -> None:
        journal.append({"record": "batch_ended", "token": token, "status": status})

    batch_id = next((r["id"] for r in journal.records if r["record"] == "batch" and r["token"] == token), None)
    if batch_id is None:
        try:
            batch_id = await _find(caller, token) if bodies is None else await _create(caller, job, bodies)
        except _NotMadeError as error:
            end(f"not made: {error}")
            if error.status not in (404, 405, 501):
                raise
            said = f"has no Batch API (HTTP {error.status}); run without --batch."
            raise EndpointError(f"{caller.url} {said}", error.status) from None
        if batch_id is None:
            end("not made")
            return
        journal.append({"record": "batch", "token": token, "id": batch_id})
    try:
        batch = await _ended_batch(caller, batch_id, on_status)
        wanted = set(job["keys"]) - {record["key"] for record in journal.records if record["record"] == "answer"}
        for file_id in (batch.output_file_id, batch.error_file_id):
            if file_id:
                for key, answer in await _answers(caller, file_id, on_status):
                    if key in wanted:
                        wanted.remove(key)
                        yield key, answer
    except EndpointError as error:
        if error.status != 404:
            raise
        end("gone")
        raise EndpointError(
            f"batch {batch_id} or its file is gone: {error} It is not waited for any more: run again to ask anew for "
            "what is missing.",
            404,
        ) from None
    end(batch.status)
    if batch.status != "completed":
        raise EndpointError(_failure(batch, caller))


class _NotMadeError(EndpointError):
    """The endpoint refuses, and it is certain that no job has been made."""


async def _create(caller: Caller, job: Mapping[str, Any], bodies: Mapping[str, Mapping[str, Any]]) -> str:
    """The id of a new job. A call that failed may have made it all the same, so before the next it is looked for."""
    from openai import APIStatusError

    lines = (
        json.dumps({"custom_id": key, "method": "POST", "url": _PATH, "body": bodies[key]}) + "\n"
        for key in job["keys"]
    )
    content = "".join(lines).encode()
    is_made = False  # whether it may be

    async def send() -> str:
        nonlocal is_made
        if is_made and (found := await _listed(caller, job["token"])) is not None:
            return found
        is_made = False
        name = f"kinetext-{job['token']}.jsonl"
        uploaded = await caller.client.files.create(file=(name, content), purpose="batch")
        is_made = True
        try:
            created = await caller.client.batches.create(
                input_file_id=uploaded.id,
                endpoint=_PATH,
                completion_window="24h",
                metadata={_TOKEN: job["token"]},
            )
        except APIStatusError as error:
            is_made = error.status_code not in _REFUSALS
            raise
        if not isinstance(getattr(created, "id", None), str):
            is_made = False
            raise BrokenAnswerError(f"its answer is no batch: {created!r}.", 501)
        return created.id

    try:
        return await caller.call(send, "the batch", is_vital=True)
    except EndpointError as error:
        if is_made:
            raise
        raise _NotMadeError(str(error), error.status) from None


async def _find(caller: Caller, token: str) -> str | None:
    """The id of the job with this token; None if the endpoint has none."""
    try:
        return await caller.call(lambda: _listed(caller, token), "the list of batches", is_vital=True)
    except EndpointError as error:
        raise EndpointError(
            f"{error} The journal waits for a batch with the token {token}. If there is none, remove the line "
            "batch_begun with this token from the journal; otherwise its calls would be paid for again.",
            error.status,
        ) from None


async def _listed(caller: Caller, token: str) -> str | None:
    seen = set()
    async for batch in caller.client.batches.list(limit=100):
        number = getattr(batch, "id", None)
        if number in seen:  # the list goes round in circles
            break
        seen.add(number)
        if (getattr(batch, "metadata", None) or {}).get(_TOKEN) == token and isinstance(number, str):
            return number
    return None


async def _ended_batch(caller: Caller, batch_id: str, on_status: Callable[[str], None]) -> Any:
    async def send() -> Any:
        batch = await caller.client.batches.retrieve(batch_id)
        if not isinstance(getattr(batch, "status", None), str):
            raise BrokenAnswerError(f"its answer is no batch: {batch!r}.")
        return batch

    wait = _SHORTEST_POLL_S
    while True:
        batch = await caller.call(send, f"batch {batch_id}", is_vital=True)
        batch.status = batch.status.casefold()
        counts = batch.request_counts
        progress = "" if counts is None else f", {counts.completed} of {counts.total} answered, {counts.failed} failed"
        on_status(f"batch {batch_id}: {batch.status}{progress}")
        if batch.status in _ENDED:
            return batch
        if batch.status not in _RUNNING:
            raise EndpointError(f"batch {batch_id} has the status {batch.status!r}, which kinetext does not know.")
        await asyncio.sleep(wait)
        wait = min(2 * wait, _LONGEST_POLL_S)


async def _answers(
    caller: Caller, file_id: str, on_status: Callable[[str], None]
) -> list[tuple[str, dict[str, Any] | str]]:
    """Key, and the completion or why there is none, of each line of a job's output or error file that can be read."""

    async def send() -> str:
        return (await caller.client.files.content(file_id)).text

    lines = (await caller.call(send, f"file {file_id}", is_vital=True)).split("\n")
    answers = []
    for number, line in enumerate(lines, start=1):
        try:
            if line.strip():
                answers.append(_answer(json.loads(line), caller))
        except (ValueError, RecursionError, TypeError, KeyError, AttributeError):
            on_status(f"line {number} of {file_id} is no answer: {caller.redacted(line[:80])}")
    return answers


def _answer(line: dict[str, Any], caller: Caller) -> tuple[str, dict[str, Any] | str]:
    key = str(line["custom_id"])
    response = line.get("response")
    if not isinstance(response, dict):
        return key, caller.redacted(f"{line.get('error')}")
    body = response.get("body")
    if not line.get("error") and response.get("status_code") == 200:
        try:
            return key, checked_completion(json.dumps(body))
        except BrokenAnswerError as broken:
            return key, caller.redacted(str(broken))
    error = line.get("error") or (body.get("error") if isinstance(body, dict) else body)
    said = error.get("message") if isinstance(error, dict) else error
    return key, caller.redacted(f"HTTP {response.get('status_code', 'unknown')}: {said}")


def _failure(batch: Any, caller: Caller) -> str:
    reasons = "; ".join(error.message or "" for error in (batch.errors.data or [])) if batch.errors else ""
    said = f": {caller.redacted(reasons)}" if reasons else ""
    return (
        f"batch {batch.id} {'has ' if batch.status != 'cancelled' else 'was '}{batch.status}{said}. "
        "Its answers, if any, are in the journal; run again for the rest."
    )
