"""Rating on a local web page: the standard library's server on 127.0.0.1, one page without anything from outside.

A page of another site, or another user of the machine, can neither see the page nor answer in the rater's name: its
address holds a secret that only the terminal shows, and requests must name our own host. The page has no cookies and
asks for nothing but the answers.
"""

from __future__ import annotations

import functools
import hmac
import secrets
import threading
from collections.abc import Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

from .rating import CRITERIA, PREFERENCE, PREFERENCE_QUESTION, SCALE, Item, RatingSession

__all__ = ["RatingServer"]

_ADDRESS = "127.0.0.1"
_PAGE = Path(__file__).with_name("rating_page.html")
_MAX_BYTES = 16_384  # of a form; ours have less than a thousand


class RatingServer(ThreadingHTTPServer):
    """Asks the questions of a session on a page at `url` until the rater stops it there.

    `serve_forever` runs it; use it as a context manager, which closes it.

    Args:
        session: what is asked. Requests are answered one after another.
        port: 0 takes a free one.

    Raises:
        OSError: if the port is taken.
    """

    daemon_threads = True  # a browser keeps idle connections open, and must not keep us from ending

    def __init__(self, session: RatingSession, port: int = 0) -> None:
        self.session = session
        self.secret = secrets.token_urlsafe()
        self.turn = threading.Lock()
        super().__init__((_ADDRESS, port), _Handler)

    @property
    def url(self) -> str:
        """Where the page is."""
        return f"http://{_ADDRESS}:{self.server_port}{self.path}"

    @property
    def path(self) -> str:
        """Of the page, with the secret in it."""
        return f"/{self.secret}/"

    @property
    def own_hosts(self) -> tuple[str, str]:
        """What a browser that means this server calls it."""
        return (f"{_ADDRESS}:{self.server_port}", f"localhost:{self.server_port}")


class _Handler(BaseHTTPRequestHandler):
    server: RatingServer
    timeout = 30  # seconds that a silent connection is kept

    def do_GET(self) -> None:
        if not self._is_for_us():
            return
        if self.path != self.server.path:
            self.send_error(HTTPStatus.NOT_FOUND)
            return
        with self.server.turn:
            self._send_page()

    def do_POST(self) -> None:
        if not self._is_for_us() or (form := self._form()) is None:
            return
        actions = {"answer": self._answer, "skip": self._skip, "back": self._back, "stop": self._stop}
        action = self.path.removeprefix(self.server.path)
        if action not in actions:
            self.send_error(HTTPStatus.NOT_FOUND)
            return
        with self.server.turn:
            actions[action](form)

    def log_message(self, format: str, *args: Any) -> None:
        """Requests are not logged: the terminal is for messages."""

    def _is_for_us(self) -> bool:
        """Refuses names that someone else's domain gave to our address, pages of other origins, and wrong secrets."""
        origin = self.headers.get("Origin")
        hosts = self.server.own_hosts
        if self.headers.get("Host") not in hosts or (origin and origin not in [f"http://{host}" for host in hosts]):
            self.send_error(HTTPStatus.FORBIDDEN, explain=f"This is {hosts[0]} and answers to no other name.")
            return False
        own = self.server.path.encode()
        if not hmac.compare_digest(self.path.encode()[: len(own)], own):
            self.send_error(HTTPStatus.FORBIDDEN, explain="Open the address that the terminal shows.")
            return False
        return True

    def _form(self) -> dict[str, str] | None:
        length = self.headers.get("Content-Length", "")
        if not length.isdecimal() or len(length) > len(str(_MAX_BYTES)) or int(length) > _MAX_BYTES:
            self.send_error(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
            return None
        body = self.rfile.read(int(length)).decode("utf-8", "replace")
        return {name: values[-1] for name, values in parse_qs(body).items()}

    def _answer(self, form: Mapping[str, str]) -> None:
        session = self.server.session
        item = _item_of(session, form)
        if item is None:
            self._send_page(HTTPStatus.CONFLICT, "That text is no longer asked about. Nothing was saved; go on here.")
            return
        given = {name: form[name] for name in item.questions if name in form}
        choices = {name: _choices(item, name) for name in item.questions}
        wrong = [f"value={value!r} of {name}" for name, value in given.items() if value not in choices[name]]
        if wrong:
            self._send_page(HTTPStatus.BAD_REQUEST, f"Not saved, there is no {wrong[0]}.")
            return
        values = {name: choices[name][value] for name, value in given.items()}
        if len(values) < len(item.questions):
            missing = ", ".join(name for name in item.questions if name not in values)
            self._send_page(HTTPStatus.BAD_REQUEST, f"Not saved yet, an answer is missing: {missing}.", values)
            return
        if session.values(item) != values:  # a form sent twice is saved once
            session.record(item, values)
        if session.item is item:
            session.advance()
        self._send_home()

    def _skip(self, form: Mapping[str, str]) -> None:
        if _item_of(self.server.session, form) is self.server.session.item:  # not twice on a double click
            self.server.session.skip()
        self._send_home()

    def _back(self, form: Mapping[str, str]) -> None:
        self.server.session.back()
        self._send_home()

    def _stop(self, form: Mapping[str, str]) -> None:
        self._send_page(is_stopped=True)
        self.server.shutdown()

    def _send_home(self) -> None:
        self.send_response(HTTPStatus.SEE_OTHER)
        self.send_header("Location", self.server.path)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _send_page(
        self,
        status: HTTPStatus = HTTPStatus.OK,
        problem: str = "",
        values: Mapping[str, int | str] | None = None,
        is_stopped: bool = False,
    ) -> None:
        nonce = secrets.token_urlsafe()
        page = _render(self.server, nonce, problem, values, is_stopped).encode()
        self.send_response(status)
        headers = {
            "Content-Type": "text/html; charset=utf-8",
            "Content-Length": str(len(page)),
            "Content-Security-Policy": f"default-src 'none'; style-src 'nonce-{nonce}'; script-src 'nonce-{nonce}'; "
            "img-src data:; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
            "X-Content-Type-Options": "nosniff",
            "Referrer-Policy": "same-origin",
            "Cache-Control": "no-store",
        }
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(page)


def _item_of(session: RatingSession, form: Mapping[str, str]) -> Item | None:
    return next((item for item in session.items if item.id == form.get("item")), None)


def _choices(item: Item, question: str) -> Mapping[str, int | str]:
    """What a form calls the values of a question: of a choice the numbers shown, which do not say the set."""
    values: tuple[int | str, ...] = item.sides if question == PREFERENCE else SCALE
    return {str(number): value for number, value in enumerate(values, start=1)}


def _render(
    server: RatingServer, nonce: str, problem: str, values: Mapping[str, int | str] | None, is_stopped: bool
) -> str:
    session = server.session
    item = None if is_stopped else session.item
    return _template().render(
        nonce=nonce,
        problem=problem,
        is_stopped=is_stopped,
        item=item,
        values={} if item is None else {**session.values(item), **(values or {})},
        criteria=CRITERIA,
        scale=SCALE,
        preference=PREFERENCE,
        preference_question=PREFERENCE_QUESTION,
        num_done=session.num_done,
        num_items=len(session.items),
        num_skipped=len(session.skipped),
    )


@functools.cache
def _template() -> Any:
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(_PAGE.read_text("utf-8"))
