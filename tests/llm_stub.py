"""A local stand-in for an OpenAI-compatible endpoint, for tests that must not touch the network. Standard library only.

    with LlmStub(faults={"500": 0.05}, log=path) as llm: ...    # llm.url, llm.entries()
    python tests/llm_stub.py --port 8765 --fault 500=0.05       # prints its address first

What is said follows from the prompt alone, so that two runs that ask the same get the same: a sentence about a motion,
or for a share of first questions (`bad_answers`) one that cannot be used: malformed, refusal, refused, empty, long,
duplicate, leak. Failures on the way (`faults`: 429, 500, 503, hang, broken) come by a counter and a seed: a call that
is sent again may get through, and one that hung does not hang again. A prompt that contains "stubborn" is refused
whatever else is said.

Every request is in the log, a JSON line each, before it is answered: path, hash of the body, hash of the messages,
outcome; 200 means that the answer was begun, and would be paid for. Routes: /v1/chat/completions, /v1/files,
/v1/files/ID/content, /v1/batches, /v1/batches/ID.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import re
import sys
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

KEY = "sk-stub-5e3a9c"
FAULTS = ("429", "500", "503", "hang", "broken")
BAD_ANSWERS = ("malformed", "refusal", "refused", "empty", "long", "duplicate", "leak")
_PARTS = ("arm", "hand", "wrist", "knee", "hip", "shoulder", "foot", "elbow", "head", "waist", "palm", "ankle")
_WAYS = ("slowly", "steadily", "sharply", "smoothly", "evenly", "briefly", "gently", "suddenly", "calmly", "firmly")
_VERBS = ("raises", "lowers", "turns", "tilts", "bends", "straightens", "swings", "circles", "shakes", "shifts")
_PATHS = ("upwards", "downwards", "to the side", "forwards", "backwards", "in an arc", "across the body", "in place")


class LlmStub:
    """The server, as a context manager; it runs in threads of this process.

    Args:
        key: that requests have to carry; "" accepts any.
        structured: what happens to `response_format`: "yes" it is honoured, "refuse" HTTP 400, "ignore" plain text.
        faults: share of calls with each of `FAULTS`.
        bad_answers: share of first questions answered with each of `BAD_ANSWERS`.
        seed: of the failures on the way.
        latency_s: before each answer.
        hang_s: how long a hanging call takes to end without an answer.
        retry_after_s: what 429 and 503 say.
        batch_end: status that batches end with.
        batch_line_faults: share of the lines of a batch that fail.
        log: file of the log; without it `entries` are in memory only.
    """

    def __init__(
        self,
        *,
        key: str = KEY,
        port: int = 0,
        structured: str = "yes",
        faults: dict[str, float] | None = None,
        bad_answers: dict[str, float] | None = None,
        seed: int = 0,
        latency_s: float = 0.0,
        hang_s: float = 3.0,
        retry_after_s: float = 0.2,
        batch_end: str = "completed",
        batch_line_faults: float = 0.0,
        log: Path | None = None,
    ) -> None:
        self.key, self.structured, self.latency_s, self.hang_s = key, structured, latency_s, hang_s
        self.faults, self.bad_answers, self.retry_after_s = faults or {}, bad_answers or {}, retry_after_s
        self.batch_end, self.batch_line_faults = batch_end, batch_line_faults
        self.has_batches = True
        self.has_more = False  # what the list of batches says
        self.trickle_s = 0.0  # between blanks before an answer
        self.last_headers: dict[str, str] = {}
        self.files: dict[str, bytes] = {}
        self.batches: dict[str, dict[str, Any]] = {}
        self.before_reply: Callable[[str, str], None] | None = None  # method and path; for tests that interrupt
        self.in_flight = self.most_in_flight = 0
        self._random = random.Random(seed)
        self._entries: list[dict[str, Any]] = []
        self._log = log
        self._lock = threading.RLock()
        stub = self

        class Handler(_Handler):
            llm = stub

        self._server = _Server(("127.0.0.1", port), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/v1"

    def __enter__(self) -> LlmStub:
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def serve(self) -> None:
        self._server.serve_forever()

    def entries(self, outcome: str | None = None) -> list[dict[str, Any]]:
        """The log so far, all of it or what had one outcome."""
        with self._lock:
            return [entry for entry in self._entries if outcome in (None, entry["outcome"])]

    def note(self, path: str, outcome: str, body: dict[str, Any] | None = None) -> None:
        entry = {"path": path, "outcome": outcome, "time": time.time()}
        if body is not None:
            entry |= {"body": _sha256(body), "messages": _sha256(body["messages"])}
        with self._lock:
            self._entries.append(entry)
            if self._log is not None:
                with self._log.open("a") as file:
                    file.write(json.dumps(entry) + "\n")

    def fault(self) -> str | None:
        """What goes wrong with the next call on its way."""
        with self._lock:
            drawn = self._random.random()
        for name, share in self.faults.items():
            if drawn < share:
                return name
            drawn -= share
        return None

    def entered(self, step: int) -> None:
        with self._lock:
            self.in_flight += step
            self.most_in_flight = max(self.most_in_flight, self.in_flight)

    # What is said

    def completion(self, body: dict[str, Any]) -> dict[str, Any]:
        """The completion that answers a body, the same for the same body."""
        digest = int(_sha256(body["messages"]), 16)
        bad = self._bad_answer(body["messages"], digest)
        message: dict[str, Any] = {"role": "assistant", "refusal": None}
        text = self._text(body["messages"][0]["content"], bad, digest)
        is_structured = "response_format" in body and self.structured == "yes"
        if bad == "refused":
            message |= {"content": None, "refusal": "I'm sorry, I can't help with that."}
        elif is_structured:
            content = json.dumps({"text": text})
            message["content"] = content[:-4] if bad == "malformed" else content
        else:
            message["content"] = "" if bad == "malformed" else text
        sent = sum(len(turn["content"]) for turn in body["messages"]) // 4
        received = len(message["content"] or "") // 4
        return {
            "id": f"chatcmpl-{digest % 10**12}",
            "object": "chat.completion",
            "created": 1_700_000_000 + digest % 10_000_000,
            "model": f"{body['model']}-2026-01-01",
            "choices": [{"index": 0, "message": message, "finish_reason": "stop", "logprobs": None}],
            "usage": {"prompt_tokens": sent, "completion_tokens": received, "total_tokens": sent + received},
        }

    def _bad_answer(self, messages: list[dict[str, str]], digest: int) -> str | None:
        question = messages[0]["content"].rpartition("\n\n")[2]
        if "stubborn" in question:
            return "refused"
        if len(messages) > 1:  # asked again, it does better
            return None
        drawn = digest % 10_000 / 10_000
        for name, share in self.bad_answers.items():
            if drawn < share:
                return name
            drawn -= share
        return None

    def _text(self, prompt: str, bad: str | None, digest: int) -> str:
        if bad == "refusal":
            return "I'm sorry, but I cannot describe this."
        if bad == "empty":
            return "  "
        if bad == "long":
            return "the arm moves " + "up and down and " * 40 + "stops."
        if bad == "duplicate":
            return "the whole body moves to the side and back again at an even pace."
        if bad == "leak":
            question = prompt.rpartition("\n\n")[2]
            found = re.search(r"video of (.*)\? A:|original class (.*) from the similar|of action (.*)\.$", question)
            return f"this is {next(name for name in found.groups() if name) if found else '?'}, done at an even pace."
        picked = []
        for words in (_PARTS, _VERBS, _WAYS, _PATHS, _PARTS, _VERBS, _WAYS, _PATHS, _PARTS, _WAYS):
            digest, index = divmod(digest, len(words))
            picked.append(words[index])
        return "the {} {} {} {} while the {} {} {} {}, and the {} {} comes to rest at the end.".format(*picked)

    # Batches

    def new_batch(self, asked: dict[str, Any]) -> dict[str, Any]:
        number = f"batch_{len(self.batches) + 1}"
        lines = [json.loads(line) for line in self.files[asked["input_file_id"]].splitlines()]
        self.batches[number] = {
            "id": number,
            "object": "batch",
            "endpoint": asked["endpoint"],
            "input_file_id": asked["input_file_id"],
            "completion_window": asked["completion_window"],
            "status": "validating",
            "metadata": asked.get("metadata"),
            "created_at": int(time.time()),
            "request_counts": {"total": len(lines), "completed": 0, "failed": 0},
        }
        return self.batches[number]

    def moved_on(self, batch: dict[str, Any]) -> dict[str, Any]:
        """A batch, one step further each time somebody looks."""
        following = {"validating": "in_progress", "in_progress": "finalizing", "finalizing": self.batch_end}
        batch["status"] = following.get(batch["status"], batch["status"])
        if batch["status"] == self.batch_end and "output_file_id" not in batch:
            self._finish(batch)
        return batch

    def _finish(self, batch: dict[str, Any]) -> None:
        batch["output_file_id"] = batch["error_file_id"] = None
        if self.batch_end == "failed":
            batch["errors"] = {"object": "list", "data": [{"code": "bad", "message": f"line 1 is bad, key {self.key}"}]}
            return
        lines = [json.loads(line) for line in self.files[batch["input_file_id"]].splitlines()]
        lines = lines if self.batch_end == "completed" else lines[: len(lines) // 2]
        done, failed = [], []
        for line in lines:
            if self._random.random() < self.batch_line_faults:
                error = {"error": {"message": "The server had an error.", "code": "server_error"}}
                response = {"status_code": 500, "body": error}
                failed.append({"custom_id": line["custom_id"], "response": response, "error": None})
                continue
            self.note("batch line", "200", line["body"])
            response = {"status_code": 200, "body": self.completion(line["body"])}
            done.append({"custom_id": line["custom_id"], "response": response, "error": None})
        random.Random(1).shuffle(done)  # the order is not that of the input
        for name, results in (("output", done), ("error", failed)):
            if results:
                batch[f"{name}_file_id"] = f"file-{batch['id']}-{name}"
                self.files[f"file-{batch['id']}-{name}"] = "".join(json.dumps(r) + "\n" for r in results).encode()
        batch["request_counts"] |= {"completed": len(done), "failed": len(failed)}


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), ConnectionError):  # clients get killed
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    llm: LlmStub
    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments: object) -> None:
        pass

    def do_POST(self) -> None:
        length = int(self.headers.get("content-length", 0))
        content = self.rfile.read(length)
        if len(content) < length:  # the client has been killed
            self.close_connection = True
            return
        if not self._is_allowed() or not self._is_known():
            return
        if self.path == "/v1/chat/completions":
            self._chat(json.loads(content))
        elif self.path == "/v1/files":
            number = f"file-{len(self.llm.files) + 1}"
            boundary = re.search(r"boundary=(\S+)", self.headers["content-type"])
            assert boundary is not None
            parts = content.split(b"--" + boundary.group(1).encode())
            (self.llm.files[number],) = (part.split(b"\r\n\r\n", 1)[1][:-2] for part in parts if b"filename=" in part)
            self._reply(
                200, {"id": number, "object": "file", "bytes": len(content), "created_at": 1, "purpose": "batch"}
            )
        elif self.path == "/v1/batches":
            made = self.llm.new_batch(json.loads(content))
            self._fail(made, "no batch") if isinstance(made, int) else self._reply(200, made)
        else:
            self._fail(404, f"Invalid URL (POST {self.path})")

    def do_GET(self) -> None:
        if not self._is_allowed() or not self._is_known():
            return
        path = self.path.partition("?")[0]
        if path == "/v1/batches":
            found = list(self.llm.batches.values())[::-1]
            self._reply(200, {"object": "list", "data": found, "has_more": self.llm.has_more})
        elif (number := path.removeprefix("/v1/batches/")) in self.llm.batches:
            self._reply(200, self.llm.moved_on(self.llm.batches[number]))
        elif (number := path.removeprefix("/v1/files/").removesuffix("/content")) in self.llm.files:
            self._send(200, self.llm.files[number], "application/octet-stream")
        else:
            self._fail(404, f"Invalid URL (GET {path})")

    def _is_allowed(self) -> bool:
        given = self.headers.get("authorization", "").removeprefix("Bearer ")
        if not self.llm.key or given == self.llm.key:
            return True
        self._fail(401, f"Incorrect API key provided: {given}.")
        return False

    def _is_known(self) -> bool:
        if self.llm.has_batches or "batches" not in self.path:
            return True
        self._fail(404, f"Invalid URL ({self.command} {self.path})")
        return False

    def _chat(self, body: dict[str, Any]) -> None:
        self.llm.last_headers = dict(self.headers.items())
        self.llm.entered(1)
        try:
            time.sleep(self.llm.latency_s)
            self._answer(body)
        finally:
            self.llm.entered(-1)

    def _answer(self, body: dict[str, Any]) -> None:
        fault = self.llm.fault()
        if body["model"] == "missing":
            self._fail(404, "The model `missing` does not exist", body)
        elif "response_format" in body and self.llm.structured == "refuse":
            self._fail(400, "response_format is not supported", body)
        elif any("forbidden" in turn["content"] for turn in body["messages"]):
            self._fail(400, f"The prompt of {self.llm.key} was stopped by the content filter", body)
        elif fault in ("429", "503"):
            headers = {"retry-after": str(self.llm.retry_after_s)}
            self._fail(int(fault), "Rate limit reached", body, headers)
        elif fault == "quota":
            self._fail(429, "You exceeded your current quota", body, code="insufficient_quota")
        elif fault == "500":
            self._fail(500, "The server had an error", body)
        elif fault == "hang" and not any(entry["body"] == _sha256(body) for entry in self.llm.entries("hang")):
            self.llm.note(self.path, "hang", body)
            time.sleep(self.llm.hang_s)
            self.close_connection = True
        elif fault == "broken":
            self.llm.note(self.path, "broken", body)
            self._send(200, b'{"choices": [', "application/json")
        else:
            self.llm.note(self.path, "200", body)
            self._reply(200, self.llm.completion(body))

    def _fail(
        self,
        status: int,
        message: str,
        body: dict[str, Any] | None = None,
        headers: dict[str, str] | None = None,
        code: str | None = None,
    ) -> None:
        self.llm.note(self.path, str(status), body)
        error = {"message": message, "type": "error", "param": None, "code": code}
        self._send(status, json.dumps({"error": error}).encode(), "application/json", headers)

    def _reply(self, status: int, content: dict[str, Any]) -> None:
        self._send(status, json.dumps(content).encode(), "application/json")

    def _send(self, status: int, content: bytes, kind: str, headers: dict[str, str] | None = None) -> None:
        if self.llm.before_reply is not None:
            self.llm.before_reply(self.command, self.path)
        try:
            self.send_response(status)
            for name, value in {"content-type": kind, "content-length": str(len(content)), **(headers or {})}.items():
                self.send_header(name, value)
            self.end_headers()
            for _ in range(20 if self.llm.trickle_s else 0):
                self.wfile.write(b" ")
                time.sleep(self.llm.trickle_s)
            self.wfile.write(content)
        except (BrokenPipeError, ConnectionResetError):  # the client has been killed
            self.close_connection = True


def _sha256(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, ensure_ascii=False, sort_keys=True).encode()).hexdigest()


def _shares(pairs: list[str]) -> dict[str, float]:
    return {name: float(share) for name, _, share in (pair.partition("=") for pair in pairs)}


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--key", default="", help="that requests have to carry; any by default")
    parser.add_argument("--structured", choices=("yes", "refuse", "ignore"), default="yes")
    parser.add_argument("--fault", action="append", default=[], help="NAME=SHARE, e.g. 500=0.05")
    parser.add_argument("--bad-answer", action="append", default=[], help="NAME=SHARE, e.g. refusal=0.02")
    parser.add_argument("--latency", type=float, default=0.0)
    parser.add_argument("--log", type=Path)
    given = parser.parse_args()
    server = LlmStub(
        port=given.port,
        key=given.key,
        structured=given.structured,
        faults=_shares(given.fault),
        bad_answers=_shares(given.bad_answer),
        latency_s=given.latency,
        log=given.log,
    )
    print(server.url, flush=True)
    server.serve()
