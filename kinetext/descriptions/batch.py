"""The Batch API: many calls uploaded as one job, which the endpoint answers within a day, often at a lower price.

A job leaves three records in the journal: that it begins, under a token of its own that also goes into the job's
metadata; its id; that it has ended and all its answers are in the journal. A run killed between any two of these finds
the job by its token, and no other job is made meanwhile.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import uuid
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any, Final

from .endpoint import BrokenAnswerError, Caller, EndpointError, checked_completion
from .journal import Journal

__all__ = ["begin_batch", "is_waiting_for_batch", "run_batch"]

_MAX_CALLS = 50_000  # of one job; the rest waits for the next
_PATH: Final = "/v1/chat/completions"
_TOKEN = "kinetext"  # name of the metadata field
_SHORTEST_POLL_S = 0.5  # doubles up to
_LONGEST_POLL_S = 60.0
_ENDED = ("completed", "failed", "expired", "cancelled")


def is_waiting_for_batch(journal: Journal) -> bool:
    """Whether a job has been begun of which not all answers have been taken: its calls must not be made otherwise."""
    return _open_batch(journal) is not None


def begin_batch(journal: Journal, settings: dict[str, Any]) -> dict[str, Any]:
    """The record of the job that the journal waits for, or of a new one.

    Args:
        journal: where it is noted before the endpoint hears of it.
        settings: of the calls of a new one, kept with it.
    """
    begun = _open_batch(journal)
    if begun is None:
        begun = {"record": "batch_begun", "token": uuid.uuid4().hex, "settings": settings}
        journal.append(begun)
    return begun


async def run_batch(
    caller: Caller,
    journal: Journal,
    job: Mapping[str, Any],
    bodies: Mapping[str, Mapping[str, Any]],
    on_status: Callable[[str], None],
) -> AsyncIterator[tuple[str, dict[str, Any] | str]]:
    """The answers of a job, which is made of `bodies` if the endpoint does not have it yet.

    Args:
        caller: to the endpoint.
        journal: told what the job is called, and when all its answers have been taken.
        job: of `begin_batch`.
        bodies: of the calls, by key.
        on_status: told what the job does.

    Yields:
        Key, and the completion or why there is none; of keys without an answer in the journal only.

    Raises:
        EndpointError: the endpoint has no Batch API, or the job failed, expired or was cancelled; what it answered
            has been handed on before.
    """
    token = job["token"]
    batch_id = next((r["id"] for r in journal.records if r["record"] == "batch" and r["token"] == token), None)
    if batch_id is None:
        try:
            batch_id = await _find_or_create(caller, token, bodies)
        except EndpointError as error:
            if error.status:  # it refuses, so there is no job to wait for
                journal.append({"record": "batch_ended", "token": token, "status": f"refused, HTTP {error.status}"})
            if error.status == 404:
                raise EndpointError(f"{caller.url} has no Batch API (HTTP 404); run without --batch.", 404) from None
            raise
        journal.append({"record": "batch", "token": token, "id": batch_id})
    batch = await _ended_batch(caller, batch_id, on_status)
    known = {record["key"] for record in journal.records if record["record"] == "answer"}
    for file_id in (batch.output_file_id, batch.error_file_id):
        if file_id:
            for key, answer in await _answers(caller, file_id):
                if key not in known:
                    yield key, answer
    journal.append({"record": "batch_ended", "token": token, "status": batch.status})
    if batch.status != "completed":
        raise EndpointError(_failure(batch, caller))


def _open_batch(journal: Journal) -> dict[str, Any] | None:
    """The record of the job that was begun and has not ended."""
    ended = {record["token"] for record in journal.records if record["record"] == "batch_ended"}
    begun = (record for record in journal.records if record["record"] == "batch_begun")
    return next((record for record in begun if record["token"] not in ended), None)


async def _find_or_create(caller: Caller, token: str, bodies: Mapping[str, Mapping[str, Any]]) -> str:
    """The job's id. A call that times out may have made it all the same, so it is looked for before each try."""
    lines = (
        json.dumps({"custom_id": key, "method": "POST", "url": _PATH, "body": body}) + "\n"
        for key, body in itertools.islice(bodies.items(), _MAX_CALLS)
    )
    content = "".join(lines).encode()
    batches, files = caller.client.batches, caller.client.files

    async def send() -> str:
        async for batch in batches.list(limit=100):
            if (batch.metadata or {}).get(_TOKEN) == token:
                return batch.id
        uploaded = await files.create(file=(f"kinetext-{token}.jsonl", content), purpose="batch")
        created = await batches.create(
            input_file_id=uploaded.id,
            endpoint=_PATH,
            completion_window="24h",
            metadata={_TOKEN: token},
        )
        return created.id

    return await caller.call(send, "the batch", is_vital=True)


async def _ended_batch(caller: Caller, batch_id: str, on_status: Callable[[str], None]) -> Any:
    wait = _SHORTEST_POLL_S
    while True:
        batch = await caller.call(lambda: caller.client.batches.retrieve(batch_id), f"batch {batch_id}", is_vital=True)
        counts = batch.request_counts
        progress = "" if counts is None else f", {counts.completed} of {counts.total} answered, {counts.failed} failed"
        on_status(f"batch {batch_id}: {batch.status}{progress}")
        if batch.status in _ENDED:
            return batch
        await asyncio.sleep(wait)
        wait = min(2 * wait, _LONGEST_POLL_S)


async def _answers(caller: Caller, file_id: str) -> list[tuple[str, dict[str, Any] | str]]:
    """Key, and the completion or why there is none, of each line of a job's output or error file."""

    async def send() -> str:
        return (await caller.client.files.content(file_id)).text

    lines = (await caller.call(send, f"file {file_id}", is_vital=True)).split("\n")
    return [_answer(json.loads(line), caller) for line in lines if line.strip()]


def _answer(line: dict[str, Any], caller: Caller) -> tuple[str, dict[str, Any] | str]:
    response = line.get("response") or {}
    body = response.get("body")
    if not line.get("error") and response.get("status_code") == 200:
        try:
            return line["custom_id"], checked_completion(json.dumps(body))
        except BrokenAnswerError as broken:
            return line["custom_id"], caller.redacted(str(broken))
    error = line.get("error") or (body or {}).get("error") or {}
    said = f"HTTP {response.get('status_code', 'unknown')}: {error.get('message', error)}"
    return line["custom_id"], caller.redacted(said)


def _failure(batch: Any, caller: Caller) -> str:
    reasons = "; ".join(error.message or "" for error in (batch.errors.data or [])) if batch.errors else ""
    said = f": {caller.redacted(reasons)}" if reasons else ""
    return (
        f"batch {batch.id} {'has ' if batch.status != 'cancelled' else 'was '}{batch.status}{said}. "
        "Its answers, if any, are in the journal; run again for the rest."
    )
