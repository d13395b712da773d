"""Video sources: from a path, URL, bytes, file object or mapping to bytes that a decoder can open.

Part of kinetext, CLIP on video as ordinary `transformers` models. This file travels to the Hub beside the checkpoints
that need it, so it imports only the standard library and its neighbours.
"""

from __future__ import annotations

import errno
import http.client
import io
import os
import stat
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, BinaryIO

from .video_decoders import reason_of

MAX_DOWNLOAD_BYTES = 2**30
"""Largest video fetched over http; it is held in memory."""

SOCKET_TIMEOUT_S = 20.0
"""Longest silence of a server."""

FETCH_DEADLINE_S = 300.0
"""Longest time a fetch may take in all, however steadily the server trickles."""

_CHUNK_BYTES = 2**20

_ACCEPTED_SOURCES = (
    "a path, an http(s):// or file:// URL, bytes, a binary file object, or a mapping with 'bytes' or 'path'"
)

_BYTES_TYPES = (bytes, bytearray, memoryview)


@dataclass(frozen=True)
class VideoContent:
    """Where the bytes of a video are: a checked path, or the bytes themselves; `name` is what errors call it."""

    name: str
    path: str | None = None
    data: bytes = field(default=b"", repr=False)

    def open_bytes(self) -> BinaryIO:
        """A file object over the bytes."""
        return open(self.path, "rb") if self.path is not None else io.BytesIO(self.data)

    def identity(self) -> tuple[int, ...]:
        """What is another one after the file at the path has been replaced or written to."""
        if self.path is None:
            return ()
        status = os.stat(self.path)
        return status.st_ino, status.st_size, status.st_mtime_ns

    def open(self) -> Any:
        """What a decoder opens: the path, or a fresh file object over the bytes."""
        return self.path if self.path is not None else self.open_bytes()


def resolve_source(source: Any) -> VideoContent:
    """`source` as a readable path or bytes, fetched where it is a web address."""
    if isinstance(source, Mapping):
        return _resolve_mapping(source)
    if isinstance(source, _BYTES_TYPES):
        return _resolve_bytes(source)
    if isinstance(source, str) and (scheme := _url_scheme(source)):
        if scheme == "file":
            return _resolve_path(_path_of_file_url(source))
        return VideoContent(source, data=_fetch(source))
    if isinstance(source, (str, os.PathLike)):
        return _resolve_path(os.fsdecode(source))
    if hasattr(source, "read"):
        return _resolve_file_object(source)
    raise TypeError(f"a video source of type {type(source).__name__} cannot be read; pass {_ACCEPTED_SOURCES}")


def _resolve_bytes(data: bytes | bytearray | memoryview, name: str | None = None) -> VideoContent:
    data = bytes(data)
    return VideoContent(name or f"<{len(data)} bytes>", data=data)


def _resolve_mapping(value: Mapping[str, Any]) -> VideoContent:
    data, path = value.get("bytes"), value.get("path")
    if data is not None:
        if not isinstance(data, _BYTES_TYPES):
            raise TypeError(f"'bytes' of a mapping as video source is of type {type(data).__name__}, not bytes")
        return _resolve_bytes(data, os.fsdecode(path) if path else None)
    if path is not None:
        return resolve_source(path)
    raise TypeError(f"a mapping as video source needs 'bytes' or 'path', got the keys {sorted(map(str, value))}")


def _resolve_file_object(file: Any) -> VideoContent:
    data = file.read()
    if not isinstance(data, _BYTES_TYPES):
        raise TypeError(
            f"the file object {file!r} gave {type(data).__name__}, not bytes; open it in binary mode ('rb')"
        )
    file_name = getattr(file, "name", None)
    return _resolve_bytes(data, file_name if isinstance(file_name, str) else None)


def _resolve_path(path: str) -> VideoContent:
    """`path`, after making sure that it is a file which can be read: such faults are not the content's."""
    mode = os.stat(path).st_mode  # FileNotFoundError names the path
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(f"{path} is a directory; pass the path of one video file")
    if not stat.S_ISREG(mode):  # a pipe would block for ever
        raise OSError(f"{path} is not a regular file; pass a video file, or an open binary file object")
    with open(path, "rb"):  # PermissionError names the path
        pass
    # Absolute, or FFmpeg takes what stands before a colon for a protocol.
    return VideoContent(path, path=os.path.abspath(path))


def _url_scheme(text: str) -> str:
    scheme, separator, _ = text.partition("://")
    return scheme.lower() if separator and scheme.lower() in ("http", "https", "file") else ""


def _path_of_file_url(url: str) -> str:
    parts = urllib.parse.urlsplit(url)
    if parts.netloc not in ("", "localhost"):
        raise ValueError(f"{url} names the machine {parts.netloc!r}; file URLs of this machine start with file:///")
    return urllib.request.url2pathname(parts.path)


def _fetch(url: str) -> bytes:
    """The bytes behind a web address.

    Raises:
        ConnectionError: no connection, an HTTP error status, or a body shorter than announced.
        TimeoutError: silence of `SOCKET_TIMEOUT_S`, or `FETCH_DEADLINE_S` in all.
        OSError: more than `MAX_DOWNLOAD_BYTES`.
    """
    # In a thread, because socket timeouts bound neither name look-up nor a server that sends a byte now and then.
    outcome: list[bytes | Exception] = []
    deadline = time.monotonic() + FETCH_DEADLINE_S
    thread = threading.Thread(target=_fetch_into, args=(outcome, url, deadline), daemon=True)
    thread.start()
    thread.join(FETCH_DEADLINE_S)
    if not outcome:
        raise TimeoutError(f"{url} was not fetched within {FETCH_DEADLINE_S:g} s; download it and pass the path")
    if isinstance(outcome[0], Exception):
        raise outcome[0]
    return outcome[0]


def _fetch_into(outcome: list[bytes | Exception], url: str, deadline: float) -> None:
    try:
        outcome.append(_read_url(url, deadline))
    except TimeoutError as error:
        outcome.append(TimeoutError(f"{url} was not fetched in time: {error}"))
    except urllib.error.URLError as error:
        kind = TimeoutError if isinstance(error.reason, TimeoutError) else ConnectionError
        outcome.append(kind(f"{url} cannot be fetched: {error}"))
    except (OSError, http.client.HTTPException) as error:
        too_large = getattr(error, "errno", None) == errno.EFBIG
        outcome.append(error if too_large else ConnectionError(f"{url} cannot be fetched: {reason_of(error)}"))
    except Exception as error:  # whatever else it is belongs to the caller's thread
        outcome.append(error)


def _read_url(url: str, deadline: float) -> bytes:
    """Reads chunk by chunk and stops at the deadline, the size limit or the end."""
    body = bytearray()
    with urllib.request.urlopen(url, timeout=SOCKET_TIMEOUT_S) as response:
        announced = response.length  # None where the server does not say
        while chunk := response.read1(_CHUNK_BYTES):
            body += chunk
            if len(body) > MAX_DOWNLOAD_BYTES:
                limit = (
                    f"larger than {MAX_DOWNLOAD_BYTES} bytes, the limit for one fetch; download it and pass the path"
                )
                raise OSError(errno.EFBIG, limit, url)
            if time.monotonic() > deadline:
                raise TimeoutError(f"deadline of {FETCH_DEADLINE_S:g} s passed after {len(body)} bytes")
    if announced is not None and len(body) < announced:
        raise ConnectionError(f"the connection ended after {len(body)} of {announced} bytes")
    return bytes(body)
