"""An OpenAI-compatible endpoint, and calls to it that wait for rate limits, try again and give up with a clear message.

The client's own retries are off, for each of its calls waits alone: here a rate limit holds back all calls of a run.
"""

from __future__ import annotations

import asyncio
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

__all__ = ["Caller", "Endpoint", "EndpointError", "RequestFailedError", "parse_params"]

_BASE_URLS = {"openai": "https://api.openai.com/v1"}
_OURS = ("messages", "model", "n", "response_format", "stream")  # what a parameter may not be called
_CONNECT_TIMEOUT_S = 10.0
_TRIES = 8
_FIRST_BACK_OFF_S = 0.5  # doubles with every try
_LONGEST_BACK_OFF_S = 60.0
_LONGEST_WAIT_S = 600.0  # an endpoint that asks for more is done for today
_RATE_LIMITS = (429, 503)
_PASSING = (408, 409, 425, *_RATE_LIMITS)  # and all from 500 on

Result = TypeVar("Result")


class EndpointError(OSError):
    """The endpoint refuses or does not answer, so the run stops; what it answered before is in the journal.

    Args:
        message: what happened and what to do.
        status: HTTP status with which it refused; 0 if it just did not answer.
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
        provider: name of the endpoint; its key is read from the environment variable `<PROVIDER>_API_KEY`.
        base_url: of its interface, e.g. `http://127.0.0.1:8000/v1`; None for `openai`'s own. One on this machine needs
            no key.
        params: further fields of the request, as they are; nothing else is sent.
        timeout_s: how long to wait for an answer.

    Raises:
        ValueError: the address is missing or carries a password, or a parameter is one that kinetext sets.
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
        address = urlsplit(self.url)
        if address.scheme not in ("http", "https") or not address.hostname:
            raise ValueError("the base URL is not one of http or https with a host, such as http://127.0.0.1:8000/v1.")
        if address.username or address.password or address.query:
            raise ValueError(
                f"the base URL at {address.hostname} carries a user, a password or a query; "
                f"put the key into the environment variable {self.key_variable}."
            )
        if not self.timeout_s > 0:
            raise ValueError(f"timeout_s={self.timeout_s}; it is more than 0.")
        taken = sorted(set(self.params) & set(_OURS))
        if taken:
            raise ValueError(f"the parameter {', '.join(taken)} is set by kinetext; leave it out.")
        key = os.environ.get(self.key_variable)
        if key and key in json.dumps(self.params):
            raise ValueError(f"the parameters hold the key of {self.key_variable}; parameters are written to files.")

    @property
    def url(self) -> str:
        """The address of the interface."""
        return self.base_url if self.base_url is not None else _BASE_URLS[self.provider]

    @property
    def key_variable(self) -> str:
        """Name of the environment variable with the key."""
        return re.sub(r"\W", "_", self.provider).upper() + "_API_KEY"

    def key(self) -> str:
        """The key; empty if there is none and the endpoint, on this machine, needs none.

        Raises:
            ValueError: there is none and the endpoint is elsewhere.
        """
        key = os.environ.get(self.key_variable, "").strip()
        if not key and not _is_local(urlsplit(self.url).hostname or ""):
            raise ValueError(
                f"the environment variable {self.key_variable} is not set; it holds the key of {self.url}."
            )
        if not key.isascii():
            raise ValueError(f"the environment variable {self.key_variable} holds characters that no key has.")
        return key


def _is_local(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


class Caller:
    """The calls of one run; to be made inside its event loop, and closed.

    Args:
        endpoint: whom to call.
        on_retry: told why the run waits, e.g. "429, all calls wait 12 s", each time it does.
    """

    def __init__(self, endpoint: Endpoint, on_retry: Callable[[str], None]) -> None:
        from openai import AsyncOpenAI, Timeout

        self._endpoint = endpoint
        self.url = endpoint.url
        self._secret = endpoint.key()
        timeout = Timeout(endpoint.timeout_s, connect=min(_CONNECT_TIMEOUT_S, endpoint.timeout_s))
        self.client = AsyncOpenAI(api_key=self._secret or "none", base_url=endpoint.url, max_retries=0, timeout=timeout)
        if endpoint.provider != "openai":
            self.client.organization = self.client.project = None  # read from OPENAI_*; not the business of others
        self._on_retry = on_retry
        self._successes = 0
        self._held_until = 0.0  # time.monotonic()

    async def close(self) -> None:
        """Ends the connections."""
        await self.client.close()

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
            EndpointError: the key, the model or the very first request is refused, or nothing gets through; or
                anything else for good, if `is_vital`.
            RequestFailedError: this one gets no answer, but others did.
        """
        at_first = at_last_failure = self._successes
        tries = 0
        while True:
            await self._let_pass()
            try:
                result = await send()
            except Exception as error:
                failure = _Failure.of(error)
                if failure is None:
                    raise
                self._stop_if_final(failure, name, is_vital)
                is_crowded = failure.status in _RATE_LIMITS and self._successes > at_last_failure
                tries = 0 if is_crowded else tries + 1
                at_last_failure = self._successes
                if tries >= _TRIES:
                    self._give_up(failure, name, is_vital=is_vital or self._successes == at_first)
                await self._wait(failure, tries)
            else:
                self._successes += 1
                return result

    async def _let_pass(self) -> None:
        while (wait := self._held_until - time.monotonic()) > 0:
            await asyncio.sleep(wait)

    async def _wait(self, failure: _Failure, tries: int) -> None:
        back_off = min(_FIRST_BACK_OFF_S * 2 ** max(tries - 1, 0), _LONGEST_BACK_OFF_S) * random.uniform(0.75, 1.25)
        wait = back_off if failure.retry_after_s is None else failure.retry_after_s
        if failure.status in _RATE_LIMITS:
            self._held_until = max(self._held_until, time.monotonic() + wait)
            self._on_retry(f"{failure.status}, all calls wait {wait:.1f} s")
        else:
            self._on_retry(f"{failure.status or 'no answer'}, one call waits {wait:.1f} s")
            await asyncio.sleep(wait)

    def _stop_if_final(self, failure: _Failure, name: str, is_vital: bool) -> None:
        model, status = self._endpoint.model, failure.status
        said = self.redacted(failure.message)
        if status in (401, 403):  # what they say may quote the key, so it is not repeated
            what = "does not accept the key" if status == 401 else "forbids the request to the key"
            reason = f"{what} in {self._endpoint.key_variable} (HTTP {status}); check that variable, the model "
            reason += f"{model!r} and the account's rights."
        elif status == 404:
            reason = f"does not know what is asked for (HTTP 404): {said} Check the base URL, which often ends with "
            reason += f"/v1, and the model {model!r}."
        elif failure.code == "insufficient_quota":
            reason = f"says that the account's quota is used up: {said} Add to it and run again."
        elif (failure.retry_after_s or 0) > _LONGEST_WAIT_S:
            reason = f"asks to wait {failure.retry_after_s:.0f} s (HTTP {status}); run again after that."
        elif failure.is_passing:
            return
        elif self._successes and not is_vital:
            raise RequestFailedError(f"the endpoint refuses this request (HTTP {status}): {said}")
        else:
            reason = f"refuses {name!r} (HTTP {status}): {said}"
        raise EndpointError(f"{self.url} {reason}", status)

    def _give_up(self, failure: _Failure, name: str, *, is_vital: bool) -> None:
        last = f"after {_TRIES} tries, the last: {self.redacted(failure.message)}"
        if is_vital:
            raise EndpointError(
                f"{self.url} does not answer {name!r}, nor anything else meanwhile, {last} "
                "Run again when it does: nothing that was answered is lost."
            )
        raise RequestFailedError(f"no answer {last}")

    def redacted(self, text: str) -> str:
        """`text` on one line of at most 300 characters, without the key."""
        shown = " ".join((text.replace(self._secret, "***") if self._secret else text).split())
        shown = re.sub(r"\bsk-\S+", "sk-***", shown)
        return shown if len(shown) <= 300 else shown[:300] + "…"


@dataclass(frozen=True)
class _Failure:
    """Why a call got no answer; `status` 0 if there was none."""

    status: int
    message: str
    code: str | None = None
    retry_after_s: float | None = None

    @property
    def is_passing(self) -> bool:
        return self.status == 0 or self.status in _PASSING or self.status >= 500

    @classmethod
    def of(cls, error: Exception) -> _Failure | None:
        """The failure of a call; None for an error that is not one."""
        from openai import APIConnectionError, APIStatusError, APITimeoutError

        if isinstance(error, APITimeoutError):
            return cls(0, "it timed out.")
        if isinstance(error, APIConnectionError):
            return cls(0, f"no connection ({error.__cause__ or error}).")
        if isinstance(error, BrokenAnswerError):
            return cls(0, str(error))
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
    """The endpoint answered with something that is no completion."""


def checked_completion(text: str) -> dict[str, Any]:
    """The completion in the body of an answer.

    Raises:
        BrokenAnswerError: it is none.
    """
    try:
        body = json.loads(text)
    except ValueError:
        raise BrokenAnswerError(f"its answer is not JSON: {text!r}.") from None
    try:
        is_completion = isinstance(body["choices"][0]["message"], dict)
    except (KeyError, IndexError, TypeError):
        is_completion = False
    if not is_completion:
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
            params[name] = json.loads(value)
        except ValueError:
            raise ValueError(
                f"parameter {pair!r}: {value!r} is not JSON; a text stands in double quotes: '{name}=\"{value}\"'."
            ) from None
    return params
