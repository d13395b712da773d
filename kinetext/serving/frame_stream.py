"""Frames of a file, a stream or a camera, one after the other; nothing of those before is kept.

`load_video` answers with the frames of a whole file and reads web addresses into memory; here a source may never end.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..processing.video_decoders import CONTENT_ERRORS, decode_error, import_decoder, reason_of
from ..processing.video_frames import frame_rate, quarter_turns

__all__ = ["Picture", "read_stream"]

SILENCE_S = 20.0
"""Longest silence of a server or camera, when it is opened and between packets."""


@dataclass(frozen=True)
class Picture:
    """A frame whose picture is made only if it is asked for.

    Attributes:
        timestamp: seconds.
        picture: gives (H, W, 3) uint8 RGB, upright; only before the next frame is read.
    """

    timestamp: float
    picture: Callable[[], Any]


def read_stream(source: Any, *, input_format: str | None = None) -> Iterator[Picture]:
    """The frames of `source` in output order, decoded in one pass and with one thread.

    Times are those of the stream. Where it has none, or an AVI may have swapped them, frames are counted at its rate.

    Args:
        source: path, URL or binary file object, or a device with `input_format`.
        input_format: FFmpeg's name of the kind of input; None lets FFmpeg find out.

    Raises:
        VideoDecodeError: if a file cannot be decoded, is cut off, or holds no video.
        ConnectionError: if a URL or device cannot be opened, or fails on the way.
        FileNotFoundError, IsADirectoryError, PermissionError: if a path cannot be read.
        TypeError: for a source of another type.
    """
    if not isinstance(source, (str, os.PathLike)) and not hasattr(source, "read"):
        raise TypeError(
            f"a stream of type {type(source).__name__} cannot be read; pass a path, a URL or a binary file object, "
            "of bytes io.BytesIO(...)."
        )
    name = os.fspath(source) if isinstance(source, (str, os.PathLike)) else repr(source)
    is_live = input_format is not None or "://" in name
    if isinstance(source, (str, os.PathLike)) and not is_live:
        if not Path(source).is_fifo():  # which would lose its reader, and then block for ever
            open(source, "rb").close()  # the system's own errors name the path
        source = os.path.abspath(source)  # FFmpeg takes what stands before a colon for a protocol
    av = import_decoder("pyav")
    with _faults_of(name, is_live, av):
        container = av.open(source, format=input_format, metadata_errors="replace", timeout=SILENCE_S)
    with container:
        if not container.streams.video:
            raise decode_error(name, "pyav", "it has no video stream")
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        frames = _decoded(container, stream)
        clock = _Clock(container, stream)
        while True:
            with _faults_of(name, is_live, av):
                frame = next(frames, None)
                if frame is None:
                    break
                picture = Picture(clock.time_of(frame), functools.partial(_to_rgb, frame))
            yield picture
        if clock.num_frames == 0:
            raise decode_error(name, "pyav", "it holds no frame that can be decoded")


def _decoded(container: Any, stream: Any) -> Iterator[Any]:
    """Every `av.VideoFrame`; raises EOFError where the last packet is not whole."""
    is_cut_off = False
    for packet in container.demux(stream):
        is_cut_off = packet.is_corrupt if packet.size else is_cut_off
        yield from packet.decode()
    if is_cut_off:
        raise EOFError("it is cut off")


class _Clock:
    """Seconds of frames in output order."""

    def __init__(self, container: Any, stream: Any) -> None:
        self.num_frames = 0
        self._first: float | None = None
        self._stream = stream
        # AVI stores no times, and FFmpeg guesses wrong with B-frames (see `PyAVReader`).
        self._counts = container.format.name == "avi" and stream.codec_context.has_b_frames

    def time_of(self, frame: Any) -> float:
        """Of the next frame."""
        position, self.num_frames = self.num_frames, self.num_frames + 1
        if self._first is None:
            self._first = frame.time or 0.0
        if frame.time is not None and not self._counts:
            return float(frame.time)
        rate = frame_rate(self._stream, ())
        if not rate > 0:
            raise ValueError("its frames have no times, and it has no frame rate")
        return self._first + position / rate


def _to_rgb(frame: Any) -> np.ndarray:
    return np.ascontiguousarray(np.rot90(frame.to_ndarray(format="rgb24"), k=quarter_turns(frame.rotation)))


@contextmanager
def _faults_of(name: str, is_live: bool, av: Any) -> Iterator[None]:
    """Turns what FFmpeg raises over a source into the error of its kind."""
    try:
        yield
    except (*CONTENT_ERRORS, av.error.FFmpegError) as error:
        if isinstance(error, av.error.ExitError):  # what FFmpeg calls it when time is up
            raise ConnectionError(f"{name} cannot be read: nothing came for {SILENCE_S:g} s") from error
        if is_live:
            raise ConnectionError(f"{name} cannot be read: {reason_of(error)}") from error
        raise decode_error(name, "pyav", reason_of(error)) from error
