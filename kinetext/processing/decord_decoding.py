"""Frames by decord 0.6, read in order, of the files that it decodes exactly as PyAV does; it refuses the others.

Part of kinetext, CLIP on video as ordinary `transformers` models. This file travels to the Hub beside the checkpoints
that need it, so it imports only numpy and the standard library; the decoders are imported when they are used.

Shapes: T frames, H height, W width, 3 colours (RGB).
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import numpy as np

from .pyav_reader import PyAVReader
from .video_decoders import CONTENT_ERRORS, decode_error, import_decoder, reason_of
from .video_frames import VideoFrames, assemble, chosen_indices, frame_rate, require_within
from .video_sources import VideoContent

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


def load_with_decord(content: VideoContent, wanted: list[int] | Callable[[int], Sequence[int]] | None) -> VideoFrames:
    """As `load_video`, for a source that has been resolved and indices that have been checked."""
    decord = import_decoder("decord")
    plan = _decord_plan(content)
    total_frames = len(plan.timestamps)
    reads_to_end = wanted is None or callable(wanted)
    if wanted is None:
        wanted = list(range(total_frames))
    elif callable(wanted):
        wanted = chosen_indices(wanted, total_frames, content.name)
    num_read = total_frames if reads_to_end else min(max(wanted) + 1, total_frames)
    by_index = _decord_pictures(decord, content, plan, set(wanted), num_read)
    require_within(wanted, total_frames, content.name)
    return assemble(
        [by_index[index] for index in wanted],
        wanted,
        plan.timestamps,
        plan.fps,
        plan.turns,
        total_frames if reads_to_end else None,
    )


def _decord_pictures(
    decord: Any, content: VideoContent, plan: _DecordPlan, needed: set[int], num_read: int
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
    except (*CONTENT_ERRORS, base.DECORDError, base.DECORDLimitReachedError, StopIteration) as error:
        raise decode_error(content.name, "decord", reason_of(error)) from error
    return pictures


def _decord_plan(content: VideoContent) -> _DecordPlan:
    """What decord may be trusted with for this file, from its packets and its first frame alone.

    Raises:
        VideoDecodeError: the file is of a kind that decord does not decode exactly, or PyAV cannot open it.
    """
    with closing(PyAVReader(content, decoder="decord")) as probe:
        _require_decord_kind(probe)
        times = _packet_times(probe)
        if not probe.timestamps or probe.timestamps[0] != min(times):
            raise probe.error("it does not start with the frame that is shown first")
        if probe.rotation % 90:
            raise probe.error(f"it is turned by {probe.rotation} degrees")
        width, height = probe.size or (0, 0)
        shape = (width, height, 3) if probe.turns % 2 else (height, width, 3)
        return _DecordPlan(sorted(times), frame_rate(probe.stream, times), probe.turns, shape)


def _require_decord_kind(probe: PyAVReader) -> None:
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


def _packet_times(probe: PyAVReader) -> list[float]:
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


def _packet_time(probe: PyAVReader, packet: Any, position: int) -> float:
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
