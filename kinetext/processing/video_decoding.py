"""Video source to frames: `load_video` decodes a file, URL or bytes into upright uint8 RGB frames.

Part of kinetext, CLIP on video as ordinary `transformers` models. This file travels to the Hub beside the checkpoints
that need it, so it imports only numpy, the standard library and its neighbours; the decoders are imported when they
are used.

The rule of reference decoding: a frame's index is its position in the order in which the decoder puts frames out,
counted from the first one. No header is believed: seeking lands on wrong frames in XviD AVI and in variable-rate
files, and frame counts in headers are wrong in real files. Where the packets of a file prove it (`packet_index`),
sparse frames are reached without decoding what lies between them, and are the same. PyAV is the reference; the other
decoders return the same frames, order, timestamps and count, or refuse the file.

    source ─resolve─► path or bytes ─┬─ index packets, decode wanted groups ─┬─ convert, rotate ─► VideoFrames
                                     └─ decode in order, keep the wanted ────┘
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from typing import Any

import numpy as np

from .coded_packets import NotSeekableError
from .decord_decoding import load_with_decord
from .packet_index import packet_rule
from .pyav_reader import PyAVReader
from .sparse_decoding import load_sparsely
from .torchcodec_decoding import load_with_torchcodec
from .video_decoders import DECODERS, VideoDecodeError, available_decoders
from .video_frames import FrameIndices, VideoFrames, checked_indices, chosen_indices, require_within
from .video_sources import VideoContent, resolve_source

__all__ = ["DECODERS", "VideoDecodeError", "VideoFrames", "available_decoders", "load_video"]

MAX_HELD_BYTES = 512 * 2**20
"""Decoded frames kept while the length of a video is being found out; a longer video is decoded a second time."""

# The deepest reordering any codec allows: how far a timestamp can be displaced from its frame.
_READ_AHEAD_FRAMES = 16

_logger = logging.getLogger(__name__)


def load_video(source: Any, *, indices: FrameIndices = None, decoder: str = DECODERS[0]) -> VideoFrames:
    """Frames of one video, all of them or those asked for, with their timestamps.

    Sparse frames are reached by decoding only the groups of frames that hold them, where an index of the packets
    proves that these are the frames a decoding from the start gives; else the video is decoded from its start. Damage
    in what is not decoded is then not seen: frames behind it are given, and frames that it destroyed are counted, which
    a decoding from the start would leave out. All frames (None) are always decoded, and any damage that the decoder
    sees is an error.

    Nothing stays open after the call; call it inside `Dataset.__getitem__` rather than keep a reader there.

    Args:
        source: Path, http(s):// or file:// URL, bytes, binary file object (read from where it stands to its end and
            left open), or a mapping {"bytes": ..., "path": ...} such as an undecoded `datasets` Video value (the
            bytes win where they are not None).
        indices: Positions of the wanted frames in output order: None for every frame; a sequence in any order, with
            or without repeats, answered in that order; or a function from the number of frames to such a sequence.
            The function gets the number of frames that decoding to the end would give: counted in the packets
            where these prove it, else by decoding.
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
    wanted = indices if indices is None or callable(indices) else checked_indices(indices)
    return _LOADERS[decoder](resolve_source(source), wanted)


def _load_with_pyav(content: VideoContent, wanted: list[int] | Callable[[int], Sequence[int]] | None) -> VideoFrames:
    with closing(PyAVReader(content)) as reader:
        if wanted is None or not (callable(wanted) or _are_sparse(wanted)):
            return _load_in_order(reader, content, wanted)
        try:
            packet_rule(reader)
        except NotSeekableError:  # said by the headers: nothing has been read yet
            return _load_in_order(reader, content, wanted)
        try:
            return load_sparsely(reader, content, wanted)
        except (NotSeekableError, VideoDecodeError) as error:
            _logger.debug("%s is decoded from its start: %s", content.name, error)
    with closing(PyAVReader(content)) as reader:
        return _load_in_order(reader, content, wanted)


def _are_sparse(wanted: Sequence[int]) -> bool:
    """Whether most frames up to the last wanted one are not wanted; else an index would not pay."""
    return max(wanted) >= 2 * len(set(wanted))


def _load_in_order(
    reader: PyAVReader, content: VideoContent, wanted: list[int] | Callable[[int], Sequence[int]] | None
) -> VideoFrames:
    """The reference: decodes from the start and counts frames. `reader` has not read yet."""
    if wanted is None:
        pictures = [reader.to_rgb(frame) for frame in reader.frames()]
        return reader.result(pictures, list(range(len(pictures))), len(pictures))
    if callable(wanted):
        return _choose_in_order(reader, content, wanted)
    by_index = _pictures_in_order(reader, wanted)
    return reader.result([by_index[index] for index in wanted], wanted, None)


def _pictures_in_order(reader: PyAVReader, wanted: Sequence[int]) -> dict[int, np.ndarray]:
    """Pictures (H,W,3) of the wanted frames by index, decoding no further than their times require."""
    needed, last = set(wanted), max(wanted)
    pictures: dict[int, np.ndarray] = {}
    frames = reader.frames()
    for index, frame in enumerate(frames):
        if index in needed:
            pictures[index] = reader.to_rgb(frame)
        if index == last:
            break
    require_within(wanted, reader.num_decoded, reader.name)
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


def _choose_in_order(reader: PyAVReader, content: VideoContent, choose: Callable[[int], Sequence[int]]) -> VideoFrames:
    """The frames that `choose` picks once the length is known; decoded once where all of them fit in memory."""
    held: list[Any] = []  # av.VideoFrame, not yet RGB: half the size, and most are never converted
    held_bytes = 0
    for frame in reader.frames():
        held_bytes += sum(plane.buffer_size for plane in frame.planes)
        if held_bytes <= MAX_HELD_BYTES:
            held.append(frame)
        else:
            held.clear()
    wanted = chosen_indices(choose, reader.num_decoded, reader.name)
    if held_bytes <= MAX_HELD_BYTES:
        by_index = {index: reader.to_rgb(held[index]) for index in set(wanted)}
    else:
        with closing(PyAVReader(content)) as second:
            by_index = _pictures_in_order(second, wanted)
    return reader.result([by_index[index] for index in wanted], wanted, reader.num_decoded)


_LOADERS = {"pyav": _load_with_pyav, "decord": load_with_decord, "torchcodec": load_with_torchcodec}
