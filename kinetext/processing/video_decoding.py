"""Video source to frames: `load_video` decodes a file, URL or bytes into upright uint8 RGB frames.

Part of kinetext, CLIP on video as ordinary `transformers` models. This file travels to the Hub beside the checkpoints
that need it, so it imports only torch, numpy and the standard library; the decoders are imported when they are used.

The rule of reference decoding: a frame's index is its position in the order in which the decoder puts frames out,
counted from the first one. Nothing seeks and no header is believed: seeking lands on wrong frames in XviD AVI and in
variable-rate files, and frame counts in headers are wrong in real files. PyAV is the reference; decord returns the
same frames, order, timestamps and count, or refuses the file.

Shapes: T frames, H height, W width, 3 colours (RGB).

    source ──resolve──► path or bytes ──decode in order──► keep the wanted ──convert, rotate──► VideoFrames
"""

from __future__ import annotations

import errno
import http.client
import importlib
import io
import math
import operator
import os
import stat
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from typing import Any, BinaryIO

import numpy as np
import torch

__all__ = ["DECODERS", "VideoDecodeError", "VideoFrames", "available_decoders", "load_video"]

DECODERS = ("pyav", "decord")
"""Decoders by name; the first is the default and the reference."""

MAX_HELD_BYTES = 512 * 2**20
"""Decoded frames kept while the length of a video is being found out; a longer video is decoded a second time."""

MAX_DOWNLOAD_BYTES = 2**30
"""Largest video fetched over http; it is held in memory."""

SOCKET_TIMEOUT_S = 20.0
"""Longest silence of a server."""

FETCH_DEADLINE_S = 300.0
"""Longest time a fetch may take in all, however steadily the server trickles."""

_MODULES = {"pyav": "av", "decord": "decord"}
_CHUNK_BYTES = 2**20
# The deepest reordering any codec allows: how far a timestamp can be displaced from its frame.
_READ_AHEAD_FRAMES = 16

_ACCEPTED_SOURCES = (
    "a path, an http(s):// or file:// URL, bytes, a binary file object, or a mapping with 'bytes' or 'path'"
)

_BYTES_TYPES = (bytes, bytearray, memoryview)

FrameIndices = Sequence[int] | Callable[[int], Sequence[int]] | None


class VideoDecodeError(Exception):
    """What a video's content did not allow: the only error that content can cause.

    It can be made from its message alone, as torch does when it carries an error out of a DataLoader worker; the
    attributes are then None and the message holds what they held.

    Args:
        message: The whole message.
        source: Path, URL or description of the video.
        reason: What is wrong with it.
        decoder: Name of the decoder that was used.
    """

    def __init__(
        self, message: str, *, source: str | None = None, reason: str | None = None, decoder: str | None = None
    ) -> None:
        super().__init__(message)
        self.source = source
        self.reason = reason
        self.decoder = decoder


@dataclass(frozen=True)
class VideoFrames:
    """Decoded frames and what is known of their time.

    Attributes:
        frames: uint8, (T,H,W,3), RGB, upright.
        timestamps: float64, (T,), seconds as the file states them (the first need not be 0). The video's sorted
            timestamps, given to its frames in output order; derived from `fps` where the file lacks some, and NaN
            where `fps` is NaN as well.
        fps: Frames per second: the average the file states, else the rate FFmpeg guesses, else the rate of the
            timestamps. NaN where none of them is finite and positive.
        rotation: Clockwise turn that the file's metadata asks for and that has been applied: 0, 90, 180 or 270.
        indices: Position of each frame in output order, T of them.
        total_frames: Frames in the whole video, counted by decoding it to its end; None if decoding stopped earlier.
    """

    frames: torch.Tensor
    timestamps: torch.Tensor
    fps: float
    rotation: int
    indices: list[int]
    total_frames: int | None


def load_video(source: Any, *, indices: FrameIndices = None, decoder: str = DECODERS[0]) -> VideoFrames:
    """Frames of one video, all of them or those asked for, with their timestamps.

    Nothing stays open after the call; call it inside `Dataset.__getitem__` rather than keep a reader there.

    Args:
        source: Path, http(s):// or file:// URL, bytes, binary file object (read from where it stands to its end and
            left open), or a mapping {"bytes": ..., "path": ...} such as an undecoded `datasets` Video value (the
            bytes win where they are not None).
        indices: Positions of the wanted frames in output order: None for every frame; a sequence in any order, with
            or without repeats, answered in that order; or a function from the number of frames to such a sequence.
            A sequence reads the video only as far as its largest index, the other two read it to its end.
        decoder: One of `DECODERS`.

    Returns:
        `VideoFrames` with T = number of wanted frames.

    Raises:
        VideoDecodeError: the content cannot be decoded, holds no frame, is cut off before the last wanted frame,
            changes its frame size, or is of a kind that `decoder` does not decode exactly.
        FileNotFoundError, IsADirectoryError, PermissionError: the path cannot be read.
        ConnectionError, TimeoutError: the URL cannot be fetched; OSError: it is larger than `MAX_DOWNLOAD_BYTES`.
        IndexError: an index is negative or beyond the last frame.
        TypeError: `source` or an index is of another type.
        ValueError: no index at all, an unknown decoder, a file URL of another machine.
        ImportError: `decoder` is not installed.
    """
    if decoder not in DECODERS:
        raise ValueError(f"decoder={decoder!r} is unknown; use one of {', '.join(map(repr, DECODERS))}")
    wanted = indices if indices is None or callable(indices) else _checked_indices(indices)
    content = _resolve(source)
    load = _load_with_pyav if decoder == "pyav" else _load_with_decord
    return load(content, wanted)


def available_decoders() -> dict[str, str | None]:
    """Version of each decoder by name, None for one that cannot be imported. Never raises."""
    return {name: _decoder_version(name) for name in DECODERS}


def _decoder_version(name: str) -> str | None:
    try:
        return str(importlib.import_module(_MODULES[name]).__version__)
    except Exception:  # a broken native library raises OSError, RuntimeError and others, not only ImportError
        return None


def _import_decoder(name: str) -> Any:
    try:
        return importlib.import_module(_MODULES[name])
    except (ImportError, OSError, RuntimeError) as error:
        others = " or ".join(f"decoder={other!r}" for other in DECODERS if other != name)
        raise ImportError(
            f"decoder {name!r} cannot be imported ({error}); run `pip install {_MODULES[name]}`, or use {others}"
        ) from error


# ------------------------------------------------------------------------------------------------------- errors


def _decode_error(name: str, decoder: str, reason: str) -> VideoDecodeError:
    if decoder != DECODERS[0]:
        reason = f"{reason}; use decoder={DECODERS[0]!r}"
    return VideoDecodeError(
        f"cannot decode {name} with decoder={decoder!r}: {reason}", source=name, reason=reason, decoder=decoder
    )


# With each library's own, all that a file's content is known to raise.
_CONTENT_ERRORS = (ValueError, LookupError, ArithmeticError, RuntimeError, OSError, EOFError, AssertionError)


def _reason(error: Exception) -> str:
    """What a library says of a fault, in one line and without its source files and stack."""
    text = getattr(error, "strerror", None) or str(error).partition("Stack trace")[0]
    return f"{type(error).__name__}: {' '.join(text.split()) or 'no message'}"


# ------------------------------------------------------------------------------------------------------ indices


def _checked_indices(indices: Iterable[int]) -> list[int]:
    """`indices` as a list of non-negative ints, before the number of frames is known."""
    if isinstance(indices, (str, bytes)) or not isinstance(indices, Iterable):
        raise TypeError(
            f"indices must be None, a sequence of ints or a function that returns one, got {type(indices).__name__}"
        )
    checked = [_checked_index(index) for index in indices]
    if not checked:
        raise ValueError("indices is empty; ask for at least one frame, or pass None for all of them")
    return checked


def _checked_index(index: Any) -> int:
    try:
        if isinstance(index, (bool, np.bool_)):
            raise TypeError
        number = operator.index(index)
    except TypeError as error:
        raise TypeError(f"frame index {index!r} is of type {type(index).__name__}; indices must be ints") from error
    if number < 0:
        raise IndexError(f"frame index {number} is negative; frames are counted from 0 at the start of the video")
    return number


def _require_within(wanted: Sequence[int], total_frames: int, name: str) -> None:
    if max(wanted) >= total_frames:
        raise IndexError(
            f"frame index {max(wanted)} is beyond the end of {name}, which has {total_frames} frames"
            f" (0 to {total_frames - 1})"
        )


def _chosen(choose: Callable[[int], Sequence[int]], total_frames: int, name: str) -> list[int]:
    """What the caller's function wants of a video of `total_frames` frames, checked."""
    wanted = _checked_indices(choose(total_frames))
    _require_within(wanted, total_frames, name)
    return wanted


# ------------------------------------------------------------------------------------------------------ sources


@dataclass(frozen=True)
class _Content:
    """Where the bytes of a video are: a checked path, or the bytes themselves; `name` is what errors call it."""

    name: str
    path: str | None = None
    data: bytes = field(default=b"", repr=False)

    def open_bytes(self) -> BinaryIO:
        """A file object over the bytes."""
        return open(self.path, "rb") if self.path is not None else io.BytesIO(self.data)

    def open(self) -> Any:
        """What a decoder opens: the path, or a fresh file object over the bytes."""
        return self.path if self.path is not None else self.open_bytes()


def _resolve(source: Any) -> _Content:
    """`source` as a readable path or bytes, fetched where it is a web address."""
    if isinstance(source, Mapping):
        return _resolve_mapping(source)
    if isinstance(source, _BYTES_TYPES):
        return _resolve_bytes(source)
    if isinstance(source, str) and (scheme := _url_scheme(source)):
        if scheme == "file":
            return _resolve_path(_path_of_file_url(source))
        return _Content(source, data=_fetch(source))
    if isinstance(source, (str, os.PathLike)):
        return _resolve_path(os.fsdecode(source))
    if hasattr(source, "read"):
        return _resolve_file_object(source)
    raise TypeError(f"a video source of type {type(source).__name__} cannot be read; pass {_ACCEPTED_SOURCES}")


def _resolve_bytes(data: bytes | bytearray | memoryview, name: str | None = None) -> _Content:
    data = bytes(data)
    return _Content(name or f"<{len(data)} bytes>", data=data)


def _resolve_mapping(value: Mapping[str, Any]) -> _Content:
    data, path = value.get("bytes"), value.get("path")
    if data is not None:
        if not isinstance(data, _BYTES_TYPES):
            raise TypeError(f"'bytes' of a mapping as video source is of type {type(data).__name__}, not bytes")
        return _resolve_bytes(data, os.fsdecode(path) if path else None)
    if path is not None:
        return _resolve(path)
    raise TypeError(f"a mapping as video source needs 'bytes' or 'path', got the keys {sorted(map(str, value))}")


def _resolve_file_object(file: Any) -> _Content:
    data = file.read()
    if not isinstance(data, _BYTES_TYPES):
        raise TypeError(
            f"the file object {file!r} gave {type(data).__name__}, not bytes; open it in binary mode ('rb')"
        )
    file_name = getattr(file, "name", None)
    return _resolve_bytes(data, file_name if isinstance(file_name, str) else None)


def _resolve_path(path: str) -> _Content:
    """`path`, after making sure that it is a file which can be read: such faults are not the content's."""
    mode = os.stat(path).st_mode  # FileNotFoundError names the path
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(f"{path} is a directory; pass the path of one video file")
    if not stat.S_ISREG(mode):  # a pipe would block for ever
        raise OSError(f"{path} is not a regular file; pass a video file, or an open binary file object")
    with open(path, "rb"):  # PermissionError names the path
        pass
    # Absolute, or FFmpeg takes what stands before a colon for a protocol.
    return _Content(path, path=os.path.abspath(path))


def _url_scheme(text: str) -> str:
    scheme, separator, _ = text.partition("://")
    return scheme.lower() if separator and scheme.lower() in ("http", "https", "file") else ""


def _path_of_file_url(url: str) -> str:
    parts = urllib.parse.urlsplit(url)
    if parts.netloc not in ("", "localhost"):
        raise ValueError(f"{url} names the machine {parts.netloc!r}; file URLs of this machine start with file:///")
    return urllib.request.url2pathname(parts.path)


# ----------------------------------------------------------------------------------------------------- fetching


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
        outcome.append(error if too_large else ConnectionError(f"{url} cannot be fetched: {_reason(error)}"))
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


# --------------------------------------------------------------------------------------------- time and rotation


def _frame_rate(stream: Any, timestamps: Sequence[float | None]) -> float:
    """Frames per second of a PyAV stream; NaN where neither its header nor its timestamps tell."""
    known = sorted(stamp for stamp in timestamps if stamp is not None)
    span = known[-1] - known[0] if known else 0.0
    from_timestamps = (len(known) - 1) / span if span > 0 else None
    for rate in (stream.average_rate, stream.guessed_rate, from_timestamps):
        if rate and math.isfinite(rate) and rate > 0:
            return float(rate)
    return math.nan


def _output_timestamps(timestamps: Sequence[float | None], fps: float) -> list[float]:
    """One increasing time per frame in output order, from the times the decoder put on them.

    Sorted, because XviD AVI comes out in the right order with swapped times (1, 4, 3, 6, 5, ...). Where a time is
    missing or stands on two frames, all are counted from the first one known at `fps`.
    """
    known = sorted(stamp for stamp in timestamps if stamp is not None)
    if len(set(known)) == len(timestamps):
        return known
    start = known[0] if known else 0.0
    return [start + position / fps for position in range(len(timestamps))]


def _quarter_turns(rotation: int) -> int:
    """Counter-clockwise quarter turns that make a frame upright, from PyAV's `frame.rotation` in degrees.

    Other angles leave the picture as it is; broken files give values such as -2**31.
    """
    return rotation // 90 % 4 if rotation % 90 == 0 else 0


# ------------------------------------------------------------------------------------------------------ Matroska

_MATROSKA_HEAD_BYTES = 4096
_EBML_ID, _SEGMENT_ID = b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"


def _matroska_size(head: bytes) -> int | None:
    """Bytes a Matroska file announces, from its first ones; None where it does not say (RFC 9559, section 5.1).

    The file is an EBML header and one Segment, each written as an identifier of 4 bytes, its size, and its content.
    """
    start = 0
    for identifier in (_EBML_ID, _SEGMENT_ID):
        if head[start : start + 4] != identifier:
            return None
        size = _ebml_size(head[start + 4 : start + 12])
        if size is None:
            return None
        start += 4 + size[0] + size[1]
    return start


def _ebml_size(field: bytes) -> tuple[int, int] | None:
    """Length of an EBML size field and the size it states; None if unknown or incomplete (RFC 8794, section 4).

    The number of leading zero bits is the number of bytes that follow the first; all value bits set is "unknown".
    """
    length = 9 - field[0].bit_length() if field else 9
    if length > len(field):
        return None
    unknown = (1 << 7 * length) - 1
    value = int.from_bytes(field[:length], "big") & unknown
    return None if value == unknown else (length, value)


# --------------------------------------------------------------------------------------------------------- PyAV


class _PyAVReader:
    """One pass over a video with PyAV, from its start and in output order.

    Args:
        content: The video.
        decoder: The name that errors carry.

    Attributes:
        timestamps: Seconds, of each frame decoded so far, None where it has none.
        size: (W,H) of the frames before they are turned, known after the first one.
        rotation: PyAV's angle of the first frame in degrees, counter-clockwise.
    """

    def __init__(self, content: _Content, decoder: str = "pyav") -> None:
        self.av = _import_decoder("pyav")
        self.name = content.name
        self.decoder = decoder
        self.timestamps: list[float | None] = []
        self.size: tuple[int, int] | None = None
        self.rotation = 0
        self._content = content
        with self.content_faults():
            # Metadata in another encoding than UTF-8 is no reason to refuse the pictures.
            self.container = self.av.open(content.open(), metadata_errors="replace")
        if not self.container.streams.video:
            self.close()
            raise self.error("it has no video stream")
        self.stream = self.container.streams.video[0]
        # One thread for decoding and one converter for all frames: FFmpeg's automatic thread pools, set up anew for
        # each clip and frame, cost 6 and 30 times the work itself on 64x64 clips, and more beside DataLoader workers.
        self.stream.codec_context.thread_count = 1
        self.reformatter = importlib.import_module("av.video.reformatter").VideoReformatter()

    @contextmanager
    def content_faults(self) -> Iterator[None]:
        """Turns what FFmpeg raises over the file's content into `VideoDecodeError`."""
        try:
            yield
        except (*_CONTENT_ERRORS, self.av.error.FFmpegError) as error:
            progress = f" (after {self.num_decoded} frames)" if self.num_decoded else ""
            raise self.error(_reason(error) + progress) from error

    def error(self, reason: str) -> VideoDecodeError:
        return _decode_error(self.name, self.decoder, reason)

    def close(self) -> None:
        self.container.close()

    @property
    def turns(self) -> int:
        """Counter-clockwise quarter turns that make the frames upright."""
        return _quarter_turns(self.rotation)

    @property
    def num_decoded(self) -> int:
        return len(self.timestamps)

    @property
    def has_displaced_timestamps(self) -> bool:
        """Whether frames may carry each other's times: AVI stores none, and FFmpeg guesses wrong with B-frames."""
        return self.container.format.name == "avi" and self.stream.codec_context.has_b_frames

    def frames(self) -> Iterator[Any]:
        """Every `av.VideoFrame` in output order.

        The thread type stays PyAV's default: with "AUTO" a file that is cut off just ends.
        """
        is_cut_off = False
        with self.content_faults():
            for packet in self.container.demux(self.stream):
                is_cut_off = packet.is_corrupt if packet.size else is_cut_off  # of the last packet with content
                for frame in packet.decode():
                    self.register(frame)
                    yield frame
        if is_cut_off or self.is_shorter_than_announced():
            raise self.error(f"it is cut off after {self.num_decoded} frames")
        if not self.timestamps:
            raise self.error("it holds no frame that can be decoded")

    def is_shorter_than_announced(self) -> bool:
        """Whether a Matroska or WebM file lacks bytes at its end, where FFmpeg just stops."""
        if not self.container.format.name.startswith("matroska"):
            return False
        with self._content.open_bytes() as file:
            announced = _matroska_size(file.read(_MATROSKA_HEAD_BYTES))
            return announced is not None and file.seek(0, os.SEEK_END) < announced

    def to_rgb(self, frame: Any) -> np.ndarray:
        """An upright RGB picture, uint8, (H,W,3)."""
        with self.content_faults():
            picture = self.reformatter.reformat(frame, format="rgb24", threads=1)
            return np.rot90(picture.to_ndarray(), k=self.turns)

    def result(self, pictures: Sequence[np.ndarray], indices: list[int], total_frames: int | None) -> VideoFrames:
        """The pictures, T of (H,W,3) at the positions `indices`, with their times."""
        fps = _frame_rate(self.stream, self.timestamps)
        return _assemble(pictures, indices, _output_timestamps(self.timestamps, fps), fps, self.turns, total_frames)

    def register(self, frame: Any) -> None:
        """Takes note of a decoded frame's size, turn and time."""
        size = (frame.width, frame.height)
        if self.size is None:
            self.size, self.rotation = size, frame.rotation
        if size != self.size:
            raise self.error(
                f"its frame size changes from {self.size[0]}x{self.size[1]} to {size[0]}x{size[1]}; split or"
                " re-encode it"
            )
        self.timestamps.append(frame.time)


def _assemble(
    pictures: Sequence[np.ndarray],
    indices: list[int],
    timestamps: Sequence[float],
    fps: float,
    turns: int,
    total_frames: int | None,
) -> VideoFrames:
    """`VideoFrames` from T pictures (H,W,3), the positions of them, and the times of all decoded frames."""
    frames = np.empty((len(pictures), *pictures[0].shape), np.uint8)  # np.stack alone keeps the strides of turned ones
    return VideoFrames(
        frames=torch.from_numpy(np.stack(pictures, out=frames)),  # (T,H,W,3)
        timestamps=torch.tensor([timestamps[index] for index in indices], dtype=torch.float64),  # (T,)
        fps=fps,
        rotation=-turns * 90 % 360,
        indices=list(indices),
        total_frames=total_frames,
    )


def _load_with_pyav(content: _Content, wanted: list[int] | Callable[[int], Sequence[int]] | None) -> VideoFrames:
    with closing(_PyAVReader(content)) as reader:
        if wanted is None:
            pictures = [reader.to_rgb(frame) for frame in reader.frames()]
            return reader.result(pictures, list(range(len(pictures))), len(pictures))
        if callable(wanted):
            return _pyav_chosen(content, reader, wanted)
        by_index = _pyav_pictures(reader, wanted)
        return reader.result([by_index[index] for index in wanted], wanted, None)


def _pyav_pictures(reader: _PyAVReader, wanted: Sequence[int]) -> dict[int, np.ndarray]:
    """Pictures (H,W,3) of the wanted frames by index, decoding no further than their times require."""
    needed, last = set(wanted), max(wanted)
    pictures: dict[int, np.ndarray] = {}
    frames = reader.frames()
    for index, frame in enumerate(frames):
        if index in needed:
            pictures[index] = reader.to_rgb(frame)
        if index == last:
            break
    _require_within(wanted, reader.num_decoded, reader.name)
    if reader.has_displaced_timestamps:
        _read_ahead(frames)
    return pictures


def _read_ahead(frames: Iterator[Any]) -> None:
    """Lets the reader see the times that may belong to the wanted frames; damage behind them does not matter."""
    try:
        for _ in zip(range(_READ_AHEAD_FRAMES), frames, strict=False):
            pass
    except VideoDecodeError:
        pass


def _pyav_chosen(content: _Content, reader: _PyAVReader, choose: Callable[[int], Sequence[int]]) -> VideoFrames:
    """The frames that `choose` picks once the length is known; decoded once where all of them fit in memory."""
    held: list[Any] = []  # av.VideoFrame, not yet RGB: half the size, and most are never converted
    held_bytes = 0
    for frame in reader.frames():
        held_bytes += sum(plane.buffer_size for plane in frame.planes)
        if held_bytes <= MAX_HELD_BYTES:
            held.append(frame)
        else:
            held.clear()
    wanted = _chosen(choose, reader.num_decoded, reader.name)
    if held_bytes <= MAX_HELD_BYTES:
        by_index = {index: reader.to_rgb(held[index]) for index in set(wanted)}
    else:
        with closing(_PyAVReader(content)) as second:
            by_index = _pyav_pictures(second, wanted)
    return reader.result([by_index[index] for index in wanted], wanted, reader.num_decoded)


# ------------------------------------------------------------------------------------------------------- decord

# What decord 0.6 decodes exactly when read in order: codecs whose standard fixes every bit (the inverse transform of
# MPEG-4 and its elders differs between FFmpeg versions), in containers that store presentation times, 8 bit 4:2:0
# (its conversion of other formats differs).
_DECORD_CODECS = ("h264", "hevc", "vp9", "mpeg4")
_DECORD_CONTAINERS = ("mov", "matroska", "avi")
# MPEG-4 by other encoders than FFmpeg's own is left out: decord is off by one on packed B-frames (DivX, XviD), and its
# inverse transform of XviD differs by up to 2 levels.
_DECORD_MPEG4_TAGS = ("FMP4", "mp4v")
_DECORD_PIXEL_FORMATS = ("yuv420p", "yuvj420p")
# Any repeated frame is an error: without this, decord silently repeats the last good frame where one is missing.
_DECORD_FAULT_TOLERANCE = 1e-6


@dataclass(frozen=True)
class _DecordPlan:
    """What PyAV's demuxer says of a file that decord may decode: times of all its frames, rate, turns, (H,W,3)."""

    timestamps: list[float]
    fps: float
    turns: int
    picture_shape: tuple[int, int, int]


def _load_with_decord(content: _Content, wanted: list[int] | Callable[[int], Sequence[int]] | None) -> VideoFrames:
    decord = _import_decoder("decord")
    plan = _decord_plan(content)
    total_frames = len(plan.timestamps)
    reads_to_end = wanted is None or callable(wanted)
    if wanted is None:
        wanted = list(range(total_frames))
    elif callable(wanted):
        wanted = _chosen(wanted, total_frames, content.name)
    num_read = total_frames if reads_to_end else min(max(wanted) + 1, total_frames)
    by_index = _decord_pictures(decord, content, plan, set(wanted), num_read)
    _require_within(wanted, total_frames, content.name)
    return _assemble(
        [by_index[index] for index in wanted],
        wanted,
        plan.timestamps,
        plan.fps,
        plan.turns,
        total_frames if reads_to_end else None,
    )


def _decord_pictures(
    decord: Any, content: _Content, plan: _DecordPlan, needed: set[int], num_read: int
) -> dict[int, np.ndarray]:
    """Pictures (H,W,3) of the needed frames by index, reading `num_read` frames in order and never by index."""
    base = importlib.import_module("decord._ffi.base")
    pictures: dict[int, np.ndarray] = {}
    try:
        reader = decord.VideoReader(content.open(), ctx=decord.cpu(0), num_threads=1, fault_tol=_DECORD_FAULT_TOLERANCE)
        if len(reader) != len(plan.timestamps):
            raise ValueError(f"decord counts {len(reader)} frames where the file has {len(plan.timestamps)} packets")
        for index in range(num_read):
            frame = reader.next()
            if tuple(frame.shape) != plan.picture_shape:
                raise ValueError(f"frame {index} has the shape {tuple(frame.shape)}, not {plan.picture_shape}")
            if index in needed:
                pictures[index] = frame.asnumpy() if hasattr(frame, "asnumpy") else np.asarray(frame)
    except (*_CONTENT_ERRORS, base.DECORDError, base.DECORDLimitReachedError, StopIteration) as error:
        raise _decode_error(content.name, "decord", _reason(error)) from error
    return pictures


def _decord_plan(content: _Content) -> _DecordPlan:
    """What decord may be trusted with for this file, from its packets and its first frame alone.

    Raises:
        VideoDecodeError: the file is of a kind that decord does not decode exactly, or PyAV cannot open it.
    """
    with closing(_PyAVReader(content, decoder="decord")) as probe:
        _require_decord_kind(probe)
        times = _packet_times(probe)
        if not probe.timestamps or probe.timestamps[0] != min(times):
            raise probe.error("it does not start with the frame that is shown first")
        if probe.rotation % 90:
            raise probe.error(f"it is turned by {probe.rotation} degrees")
        width, height = probe.size or (0, 0)
        shape = (width, height, 3) if probe.turns % 2 else (height, width, 3)
        return _DecordPlan(sorted(times), _frame_rate(probe.stream, times), probe.turns, shape)


def _require_decord_kind(probe: _PyAVReader) -> None:
    codec = probe.stream.codec_context
    container = probe.container.format.name
    kinds = (
        ("container", container, container.split(",")[0], _DECORD_CONTAINERS),
        ("codec", codec.name, codec.name, _DECORD_CODECS),
        ("pixel format", codec.pix_fmt, codec.pix_fmt, _DECORD_PIXEL_FORMATS),
    )
    for what, shown, value, exact in kinds:
        if value not in exact:
            raise probe.error(f"its {what} is {shown}, and decord is exact only for {', '.join(exact)}")
    if codec.name == "mpeg4" and (codec.codec_tag not in _DECORD_MPEG4_TAGS or codec.has_b_frames):
        raise probe.error(f"it is MPEG-4 tagged {codec.codec_tag!r}, and decord is exact only for FFmpeg's own")
    if container == "avi" and codec.name != "mpeg4":
        raise probe.error(f"it is {codec.name} in AVI, and decord is exact only for MPEG-4 there")


def _packet_times(probe: _PyAVReader) -> list[float]:
    """Seconds of every packet, in file order. Decodes the key frames, where a new frame size begins: decord hides it.

    Raises:
        VideoDecodeError: packets and frames need not match one to one, or the frame size changes.
    """
    times: list[float] = []
    with probe.content_faults():
        for packet in probe.container.demux(probe.stream):
            if packet.is_keyframe or not packet.size:  # the one without content makes the decoder give up its last
                for frame in packet.decode():
                    probe.register(frame)
            if packet.size:
                times.append(_packet_time(probe, packet, len(times)))
    if probe.is_shorter_than_announced():
        raise probe.error(f"it is cut off after {len(times)} packets")
    if len(set(times)) != len(times):
        raise probe.error("two of its packets have the same time")
    return times


def _packet_time(probe: _PyAVReader, packet: Any, position: int) -> float:
    time = packet.pts
    if time is None and not probe.stream.codec_context.has_b_frames:
        time = packet.dts  # AVI gives only these; without B-frames both are the same
    for fault, is_present in (
        ("has no time", time is None),
        ("is not meant to be shown", packet.is_discard),
        ("is damaged or cut off", packet.is_corrupt),
    ):
        if is_present:
            raise probe.error(f"its packet {position} {fault}")
    return float(time * packet.time_base)
