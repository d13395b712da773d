"""An OpenAI-compatible endpoint, and calls to it that wait for rate limits, try again and give up with a clear message.

The client's own retries are off, for each of its calls waits alone: here a rate limit holds back all calls of a run.
"""

from __future__ import annotations

import asyncio
import contextlib
import email.utils
import ipaddress
import json
import math
import os
import random
import re
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar
from urllib.parse import urlsplit

__all__ = [
    "BrokenAnswerError",
    "Caller",
    "Endpoint",
    "EndpointError",
    "RequestFailedError",
    "checked_completion",
    "parse_params",
]

_BASE_URLS = {"openai": "https://api.openai.com/v1"}
_OURS = ("messages", "model", "n", "response_format", "stream")  # what a parameter may not be called
# Nor this: parameters are written to files. The extra_ ones are openai's own way to send headers and more.
_SECRET_NAME = re.compile(r"extra_(headers|body|query)|(.*[_-])?(api_?key|authorization|password|secret|token)", re.I)
_SHORTEST_SECRET = 12  # shorter keys are dummies of local servers, such as "none" or "ollama", and words of answers
_CONNECT_TIMEOUT_S = 10.0
_TRIES = 8
_TRIES_TIMED_OUT = 2  # for the endpoint may charge for what it was not waited for
_FIRST_BACK_OFF_S = 0.5  # doubles with every try
_LONGEST_BACK_OFF_S = 60.0
_LONGEST_WAIT_S = 600.0  # an endpoint that asks for more is done for today
_RATE_LIMITS = (429, 503)
_PASSING = (408, 409, 425, *_RATE_LIMITS)  # and all from 500 on but
_NOT_OFFERED = 501

Result = TypeVar("Result")


class EndpointError(OSError):
    """The endpoint refuses or does not answer, so the run stops; what it answered before is in the journal.

    Args:
        message: what happened and what to do.
        status: HTTP status with which it refused or failed last; 0 if it just did not answer.
    """

    def __init__(self, message: str, status: int = 0) -> None:
        super().__init__(message)
        self.status = status


class RequestFailedError(Exception):
    """This request got no answer, while others of the run did."""


@dataclass(frozen=True)
class Endpoint:
    """Whom to ask, and how.

    Args:
        model: as the endpoint calls it.
        provider: name of the endpoint, "openai" at api.openai.com only; its key is read from the environment variable
            `<PROVIDER>_API_KEY`.
        base_url: of its interface, e.g. `http://127.0.0.1:8000/v1`; None for `openai`'s own. One on this machine needs
            no key.
        params: further fields of the request, as they are; nothing else is sent.
        timeout_s: how long to wait for a whole answer.

    Raises:
        ValueError: the address is missing, carries more than host, port and path, or is another provider's; or a
            parameter is one that kinetext sets or a secret.
    """

    model: str
    provider: str = "openai"
    base_url: str | None = None
    params: Mapping[str, Any] = field(default_factory=dict)
    timeout_s: float = 120.0

    def __post_init__(self) -> None:
        if not self.model:
            raise ValueError("model is empty; name one as the endpoint calls it.")
        if self.base_url is None and self.provider not in _BASE_URLS:
            raise ValueError(f"provider={self.provider!r}: its address is not known; give the base URL (--base-url).")
        self._check_address()
        if not self.timeout_s > 0:
            raise ValueError(f"timeout_s={self.timeout_s}; it is more than 0.")
        taken = sorted(set(self.params) & set(_OURS))
        if taken:
            raise ValueError(f"the parameter {', '.join(taken)} is set by kinetext; leave it out.")
        secret = sorted(name for name in self.params if _SECRET_NAME.fullmatch(name))
        if secret:
            raise ValueError(
                f"the parameter {', '.join(secret)} may hold a secret, and parameters are written to files; "
                f"put the key into the environment variable {self.key_variable}."
            )
        if _has_secret(json.dumps(self.params) + self.url, self._given_key()):
            raise ValueError(
                f"the parameters or the base URL hold the key of {self.key_variable}; both are written to files."
            )

    def _check_address(self) -> None:
        """Complains of an address without quoting it."""
        try:
            address = urlsplit(self.url)
            is_whole = address.scheme in ("http", "https") and bool(address.hostname) and address.port != 0
        except ValueError:
            is_whole = False
        if not is_whole or re.search(r"\s", self.url):
            raise ValueError("the base URL is not one of http or https with a host, such as http://127.0.0.1:8000/v1.")
        if "@" in address.netloc or re.search("[?#;]", self.url):
            raise ValueError(
                f"the base URL at {address.hostname} carries a user, a password, a query or another extra; "
                f"put the key into the environment variable {self.key_variable}."
            )
        if self.provider == "openai" and address.hostname != urlsplit(_BASE_URLS["openai"]).hostname:
            raise ValueError(
                f"the base URL is at {address.hostname}, which would get OpenAI's key; name its provider "
                "(--provider NAME, whose key is in NAME_API_KEY)."
            )

    @property
    def url(self) -> str:
        """The address of the interface."""
        return self.base_url if self.base_url is not None else _BASE_URLS[self.provider]

    @property
    def host(self) -> str:
        """Host and port of the address."""
        return urlsplit(self.url).netloc

    @property
    def is_local(self) -> bool:
        """Whether it is on this machine."""
        host = urlsplit(self.url).hostname or ""
        try:
            return ipaddress.ip_address(host).is_loopback
        except ValueError:
            return host == "localhost" or host.endswith(".localhost")

    @property
    def key_variable(self) -> str:
        """Name of the environment variable with the key."""
        return re.sub(r"\W", "_", self.provider).upper() + "_API_KEY"

    def key(self) -> str:
        """The key; empty if there is none and the endpoint, on this machine, needs none.

        Raises:
            ValueError: there is none and the endpoint is elsewhere, or it is none that could be sent.
        """
        key = self._given_key()
        if not key and not self.is_local:
            raise ValueError(
                f"the environment variable {self.key_variable} is not set; it holds the key of {self.url}."
            )
        if not re.fullmatch(r"[!-~]*", key):
            raise ValueError(
                f"the environment variable {self.key_variable} holds what no key has: spaces or other characters."
            )
        return key

    def _given_key(self) -> str:
        return os.environ.get(self.key_variable, "").strip()


def _has_secret(text: str, key: str) -> bool:
    """Whether `text` contains the key; short keys are none."""
    return len(key) >= _SHORTEST_SECRET and key in text


class Caller:
    """The calls of one run; to be made inside its event loop, and closed.

    Args:
        endpoint: whom to call.
        on_retry: told why the run waits, e.g. "429, all calls wait 12 s", each time it does.
        has_answered: whether the endpoint has answered such calls in an earlier run.
    """

    def __init__(self, endpoint: Endpoint, on_retry: Callable[[str], None], *, has_answered: bool = False) -> None:
        from openai import AsyncOpenAI, DefaultAsyncHttpxClient, Timeout

        self._endpoint = endpoint
        self.url = endpoint.url
        self._secret = endpoint.key()
        timeout = Timeout(endpoint.timeout_s, connect=min(_CONNECT_TIMEOUT_S, endpoint.timeout_s))
        self.client = AsyncOpenAI(
            api_key=self._secret or "none",
            base_url=endpoint.url,
            max_retries=0,
            timeout=timeout,
            http_client=DefaultAsyncHttpxClient(trust_env=not endpoint.is_local, timeout=timeout),  # no proxy to itself
        )
        if endpoint.provider != "openai":  # what is read from OPENAI_* is not the business of others
            self.client.organization = self.client.project = None
            self.client._custom_headers = {}
        self._on_retry = on_retry
        self._successes = int(has_answered)
        self._stopped = asyncio.Event()
        self._held_until = 0.0  # time.monotonic()

    async def close(self) -> None:
        """Ends the connections."""
        await self.client.close()

    def stop(self) -> None:
        """Ends the calls that wait before their next try; those in flight are not touched."""
        self._stopped.set()

    async def complete(self, body: Mapping[str, Any], name: str) -> dict[str, Any]:
        """The completion that answers `body`, as the endpoint writes it.

        Args:
            body: of a chat completion: model, messages and more.
            name: of the request, for messages.

        Raises:
            EndpointError, RequestFailedError: as `call`.
        """
        extra = {field: value for field, value in body.items() if field not in ("model", "messages")}

        async def send() -> dict[str, Any]:
            create = self.client.chat.completions.with_raw_response.create
            async with asyncio.timeout(self._endpoint.timeout_s):  # the client's own is for each piece of an answer
                raw = await create(model=body["model"], messages=body["messages"], extra_body=extra)
            return checked_completion(raw.text)

        return await self.call(send, name)

    async def call(self, send: Callable[[], Awaitable[Result]], name: str, *, is_vital: bool = False) -> Result:
        """What `send` returns, tried again after passing failures; a rate limit holds back every call of this run.

        While other calls get through, being refused for too many calls says nothing against this one: tries are
        counted anew.

        Args:
            send: makes the call.
            name: of the request, for messages.
            is_vital: whether the run cannot go on without this one.

        Raises:
            EndpointError: the key, the account or the very first request is refused, or nothing gets through; or
                anything else for good, if `is_vital`; or the run has been stopped.
            RequestFailedError: this one gets no answer, but others did.
        """
        at_first = at_last_failure = self._successes
        tries = timeouts = 0
        while True:
            await self._let_pass()
            try:
                result = await send()
            except Exception as error:
                failure = _Failure.of(error)
                if failure is None:
                    raise
                self._stop_if_final(failure, name, is_vital)
                timeouts += failure.is_timeout
                is_crowded = failure.status in _RATE_LIMITS and self._successes > at_last_failure
                tries = 0 if is_crowded else tries + 1
                at_last_failure = self._successes
                if tries >= _TRIES or timeouts >= _TRIES_TIMED_OUT:
                    self._give_up(failure, name, is_vital=is_vital or self._successes == at_first)
                await self._wait(failure, tries)
            else:
                self._successes += 1
                return result

    async def _let_pass(self) -> None:
        while (wait := self._held_until - time.monotonic()) > 0 and not self._stopped.is_set():
            await self._sleep(wait)
        if self._stopped.is_set():
            raise EndpointError(f"{self.url} is not asked any more.")

    async def _sleep(self, wait_s: float) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._stopped.wait(), wait_s)

    async def _wait(self, failure: _Failure, tries: int) -> None:
        back_off = min(_FIRST_BACK_OFF_S * 2 ** max(tries - 1, 0), _LONGEST_BACK_OFF_S) * random.uniform(0.75, 1.25)
        wait = max(back_off, failure.retry_after_s or 0.0)
        if failure.status in _RATE_LIMITS:
            self._held_until = max(self._held_until, time.monotonic() + wait)
            self._on_retry(f"{failure.status}, all calls wait {wait:.1f} s")
        else:
            self._on_retry(f"{failure.status or 'no answer'}, one call waits {wait:.1f} s")
            await self._sleep(wait)

    def _stop_if_final(self, failure: _Failure, name: str, is_vital: bool) -> None:
        model, status = self._endpoint.model, failure.status
        said = self.redacted(failure.message)
        is_first = is_vital or not self._successes
        if status == 401:  # what it says may quote a part of the key, so it is not repeated
            reason = f"does not accept the key in {self._endpoint.key_variable} (HTTP 401); check that variable."
        elif status == 402 or failure.code == "insufficient_quota":
            reason = f"says that the account's credit or quota is used up: {said} Add to it and run again."
        elif status == 403 and is_first:
            reason = f"forbids the request to the key in {self._endpoint.key_variable} (HTTP 403): {said} Check that "
            reason += f"variable, the model {model!r} and the account's rights."
        elif status == 404 and is_first:
            reason = f"does not know what is asked for (HTTP 404): {said} Check the base URL, which often ends with "
            reason += f"/v1, and the model {model!r}."
        elif (failure.retry_after_s or 0) > _LONGEST_WAIT_S:
            reason = f"asks to wait {failure.retry_after_s:.0f} s (HTTP {status}); run again after that."
        elif failure.is_passing:
            return
        elif not is_first:
            raise RequestFailedError(f"the endpoint refuses this request (HTTP {status}): {said}")
        else:
            reason = f"refuses {name!r} (HTTP {status}): {said}"
        raise EndpointError(f"{self.url} {reason}", status)

    def _give_up(self, failure: _Failure, name: str, *, is_vital: bool) -> None:
        if failure.is_timeout:
            last = f"{self.redacted(failure.message)} Raise --timeout; calls that timed out may have been charged."
        else:
            last = f"after {_TRIES} tries, the last: {self.redacted(failure.message)}"
        if is_vital:
            raise EndpointError(
                f"{self.url} does not answer {name!r}, nor anything else meanwhile: {last} "
                "Run again when it does: nothing that was answered is lost.",
                failure.status,
            )
        raise RequestFailedError(f"no answer: {last}")

    def without_key(self, text: str) -> str:
        """`text` with *** in place of the key."""
        return text.replace(self._secret, "***") if _has_secret(text, self._secret) else text

    def redacted(self, text: str) -> str:
        """`text` on one line of at most 300 characters, without the key."""
        shown = " ".join(self.without_key(text).split())
        shown = re.sub(r"\bsk-\S+", "sk-***", shown)
        return shown if len(shown) <= 300 else shown[:300] + "…"


@dataclass(frozen=True)
class _Failure:
    """Why a call got no answer; `status` 0 if there was none."""

    status: int
    message: str
    code: str | None = None
    retry_after_s: float | None = None
    is_timeout: bool = False  # the endpoint got the call

    @property
    def is_passing(self) -> bool:
        return self.status == 0 or self.status in _PASSING or (self.status >= 500 and self.status != _NOT_OFFERED)

    @classmethod
    def of(cls, error: Exception) -> _Failure | None:
        """The failure of a call; None for an error that is not one."""
        from openai import APIConnectionError, APIStatusError, APITimeoutError

        cause = type(error.__cause__).__name__
        if isinstance(error, (APITimeoutError, TimeoutError)) and cause not in ("ConnectTimeout", "PoolTimeout"):
            return cls(0, "it timed out.", is_timeout=True)
        if isinstance(error, APIConnectionError):  # an error about what we would send may quote it
            return cls(0, f"no connection ({cause if 'Local' in cause else error.__cause__ or error}).")
        if isinstance(error, BrokenAnswerError):
            return cls(error.status, str(error), error.code)
        if not isinstance(error, APIStatusError):
            return None
        body = error.body
        said = body.get("message") if isinstance(body, dict) else body
        return cls(error.status_code, f"{said or error.message}", error.code, _retry_after_s(error.response.headers))


def _retry_after_s(headers: Mapping[str, str]) -> float | None:
    """Seconds to wait by `retry-after-ms` or `retry-after`, a number or a date; None if they do not say."""
    for name, unit in (("retry-after-ms", 1000.0), ("retry-after", 1.0)):
        try:
            wait = float(headers[name]) / unit
        except (KeyError, ValueError):
            continue
        return max(wait, 0.0) if math.isfinite(wait) else None
    try:
        return max(email.utils.parsedate_to_datetime(headers["retry-after"]).timestamp() - time.time(), 0.0)
    except (KeyError, ValueError, TypeError):
        return None


class BrokenAnswerError(Exception):
    """The endpoint answered HTTP 200 with something that is no answer; status and code are those that it means."""

    def __init__(self, message: str, status: int = 0, code: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code


def checked_completion(text: str) -> dict[str, Any]:
    """The completion in the body of an answer; it may lack a message, but it has been paid for.

    Raises:
        BrokenAnswerError: it is none, or an error.
    """
    try:
        body = json.loads(text)
    except (ValueError, RecursionError):
        raise BrokenAnswerError(f"its answer is not JSON: {text!r}.") from None
    if isinstance(body, dict) and body.get("error") and not body.get("choices"):
        error = body["error"] if isinstance(body["error"], dict) else {"message": body["error"]}
        code = error.get("code")
        status = code if isinstance(code, int) and 400 <= code < 600 else 0
        raise BrokenAnswerError(f"{error.get('message')}", status, code if isinstance(code, str) else None)
    if not isinstance(body, dict) or not (body.get("usage") or isinstance(body.get("choices"), list)):
        raise BrokenAnswerError(f"its answer is no chat completion: {text!r}.")
    return body


def parse_params(pairs: Iterable[str]) -> dict[str, Any]:
    """The parameters in `NAME=VALUE`, values as JSON.

    Raises:
        ValueError: one does not read so, or a name is there twice.
    """
    params: dict[str, Any] = {}
    for pair in pairs:
        name, sign, value = pair.partition("=")
        if not sign or not name or name in params:
            raise ValueError(f"parameter {pair!r}: NAME=VALUE is wanted, each name once, e.g. temperature=0.7.")
        try:
            params[name] = json.loads(value, parse_constant=_no_number)
        except ValueError:
            raise ValueError(
                f"parameter {pair!r}: {value!r} is not JSON; a text stands in double quotes: '{name}=\"{value}\"'."
            ) from None
    return params


def _no_number(name: str) -> None:
    raise ValueError(f"{name} is no number of JSON")
