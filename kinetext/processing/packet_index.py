"""`index_packets`: exact times and key frames of a video from one pass over its packets, or why they cannot be exact.

The rule of reference decoding stays (see `video_decoding`): a frame's index is its position in output order, counted
from the first frame. The index gives the same positions without decoding where the packets prove it; every other
video has a `refusal`, and its frames are counted by decoding.

Part of kinetext, CLIP on video as ordinary `transformers` models. This file travels to the Hub beside the checkpoints
that need it, so it imports only numpy and the standard library; PyAV is imported when it is used.

Shapes: P packets, of one frame each.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from .coded_packets import PACKET_RULES, NotSeekableError, PacketRule
from .pyav_reader import PyAVReader
from .video_decoders import VideoDecodeError
from .video_frames import frame_rate
from .video_sources import resolve_source

__all__ = ["PacketIndex", "index_packets"]

MAX_HELD_PACKET_BYTES = 256 * 2**20
"""Encoded bytes kept between indexing and decoding; a larger video is read a second time."""

# Containers that store a presentation time for each packet. AVI does not, and MPEG-TS may lose packets unseen.
_CONTAINERS = ("mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm")
# FFmpeg's `AVFieldOrder`: 0 is unknown, 1 progressive, others interlaced, where a packet may hold half a frame.
_MAX_PROGRESSIVE_FIELD_ORDER = 1


@dataclass(frozen=True)
class PacketIndex:
    """What the packets of a video tell. Where `refusal` is not None, times and key frames are empty.

    Attributes:
        timestamps: float64, (P,), seconds, of the frames in output order.
        keyframes: Positions in output order from which decoding can start exactly; the first is 0.
        refusal: Why frames must be reached by decoding from the start, in one line; None: seeking is exact.
        container: FFmpeg's name of the file format.
        codec: FFmpeg's name of the codec.
        pixel_format: FFmpeg's name; None where the header does not tell.
        width: Pixels, as stored, before rotation.
        height: Pixels, as stored, before rotation.
        fps: Frames per second as in `VideoFrames`.
        rotation: Clockwise turn that makes frames upright, 0, 90, 180 or 270; 0 where no frame could be decoded.
        packet_times: int64, (P,), presentation times in file order, in the stream's time base.
    """

    timestamps: np.ndarray
    keyframes: tuple[int, ...]
    refusal: str | None
    container: str
    codec: str
    pixel_format: str | None
    width: int
    height: int
    fps: float
    rotation: int
    packet_times: np.ndarray

    @property
    def keyframe_distance(self) -> int | None:
        """Frames in the largest group from one key frame to the next; None without key frames."""
        return int(np.diff([*self.keyframes, len(self.timestamps)]).max()) if self.keyframes else None


def index_packets(source: Any) -> PacketIndex:
    """Times and key frames of a video from one pass over its packets; only the first of them is decoded.

    Args:
        source: What `load_video` takes.

    Raises:
        VideoDecodeError: the content cannot be opened or has no video stream.
        OSError, TypeError, ValueError: `source` cannot be read, as in `load_video`.
    """
    with closing(PyAVReader(resolve_source(source))) as reader:
        try:
            return read_index_and_first_frame(reader)
        except (NotSeekableError, VideoDecodeError) as error:
            refusal = error.reason if isinstance(error, VideoDecodeError) else str(error)
            return _index(reader, np.zeros(0, np.int64), (), refusal)


def read_index_and_first_frame(reader: PyAVReader) -> PacketIndex:
    """The index of a reader that has not read yet, and its first frame, which tells the rotation.

    Raises:
        NotSeekableError, VideoDecodeError: the reason for which seeking need not be exact.
    """
    index, packets = read_index(reader)
    decode_first(reader, packets.first)
    return replace(index, rotation=-reader.turns * 90 % 360)


def read_index(reader: PyAVReader) -> tuple[PacketIndex, HeldPackets]:
    """The index, but for the rotation, and the packets of a reader that has not read yet. Nothing is decoded.

    Raises:
        NotSeekableError, VideoDecodeError: the reason for which seeking need not be exact.
    """
    packets = HeldPackets()
    packet_times, starts = _read_packets(reader, packet_rule(reader), packets)
    return _index(reader, packet_times, _keyframes(reader, packet_times, starts), None), packets


def packet_rule(reader: PyAVReader) -> PacketRule:
    """How the packets are read, from the headers alone.

    Raises:
        NotSeekableError: no packet needs to be looked at to refuse this kind of video.
    """
    container, codec = reader.container.format.name, reader.codec.codec.canonical_name
    if container not in _CONTAINERS:
        raise NotSeekableError(f"its container is {container}, which may not give each frame its own time")
    if codec not in PACKET_RULES:
        raise NotSeekableError(f"its codec is {codec}; frames are found by packets only in {', '.join(PACKET_RULES)}")
    if reader.codec.field_order > _MAX_PROGRESSIVE_FIELD_ORDER:
        raise NotSeekableError("its pictures are interlaced")
    with reader.content_faults():
        return PACKET_RULES[codec](reader.codec.extradata or b"")


class HeldPackets:
    """Packets (`av.Packet`) kept between indexing and decoding.

    Attributes:
        first: The first one.
        all: All in file order, None where they are larger than `MAX_HELD_PACKET_BYTES` together.
    """

    def __init__(self) -> None:
        self.first: Any = None
        self.all: list[Any] | None = []
        self._num_bytes = 0

    def add(self, packet: Any) -> None:
        """Keeps the next packet of the file."""
        self.first = self.first or packet
        self._num_bytes += packet.size
        if self._num_bytes > MAX_HELD_PACKET_BYTES:
            self.all = None
        if self.all is not None:
            self.all.append(packet)


def _read_packets(reader: PyAVReader, rule: PacketRule, packets: HeldPackets) -> tuple[np.ndarray, list[int]]:
    """Times of all packets in file order, int64 (P,), and the positions of those where decoding may start anew."""
    times: list[int] = []
    starts: list[int] = []
    likeness: Hashable | None = None
    with reader.content_faults():
        for position, packet in enumerate(_whole_packets(reader)):
            start = rule.starts_anew(bytes(packet))
            if start is not None and packet.is_keyframe:
                if likeness not in (None, start):
                    raise NotSeekableError("its frame size changes")
                likeness = start
                starts.append(position)
            times.append(packet.pts)
            packets.add(packet)
    if reader.is_shorter_than_announced():
        raise NotSeekableError(f"it is cut off after {len(times)} packets")
    return np.array(times, np.int64), starts


def _whole_packets(reader: PyAVReader) -> Iterator[Any]:
    """Every packet with content, each of which must have a time and be whole and shown."""
    is_over = False
    for position, packet in enumerate(reader.container.demux(reader.stream)):
        if not packet.size:  # FFmpeg's sign of the end
            is_over = True
            continue
        if fault := _fault(packet, is_over):
            raise NotSeekableError(f"its packet {position} {fault}")
        yield packet


def _fault(packet: Any, is_over: bool) -> str | None:
    if is_over:
        return "comes after an empty one"
    if packet.pts is None:
        return "has no time"
    if packet.is_discard:
        return "is not meant to be shown"
    if packet.is_corrupt:
        return "is damaged or cut off"
    if packet.has_sidedata("new_extradata"):
        return "brings another setup of the decoder"
    return None


def _keyframes(reader: PyAVReader, packet_times: np.ndarray, starts: list[int]) -> tuple[int, ...]:
    """Those of `starts` that no frame is shown across: their position is the same in file and output order.

    The leading pictures of an open group stand behind its key frame and are shown before it; such a key frame is
    not used.
    """
    if len(np.unique(packet_times)) != len(packet_times):
        raise NotSeekableError("two of its packets have the same time")
    ranks = np.argsort(np.argsort(packet_times))  # (P,) output position of each packet
    largest_so_far = np.maximum.accumulate(ranks)
    closed = tuple(start for start in starts if largest_so_far[start] == start == ranks[start])
    if not closed or closed[0] != 0:
        raise NotSeekableError("it does not start with a key frame that is shown first")
    # A decoder that reorders less deeply than the stream needs loses frames until it has learnt better.
    reorder_depth = int((np.arange(len(ranks)) - ranks).max())
    if reorder_depth > reader.codec.reorder_depth:
        raise NotSeekableError(f"its frames are reordered by {reorder_depth}, more than its header says")
    if (
        reader.codec.reorder_depth and not reorder_depth and len(ranks) > 2
    ):  # as after a copy out of AVI, which stores no times
        raise NotSeekableError("its header says that frames are reordered, and its times are in file order")
    return closed


def decode_first(reader: PyAVReader, packet: Any) -> None:
    """Decodes the first packet alone, which tells size and rotation, and carries the signature of the encoder.

    Raises:
        NotSeekableError: it does not give the frame that it should.
    """
    with reader.content_faults():
        frames = [*reader.codec.decode(packet), *reader.codec.decode(None)]
        reader.codec.flush_buffers()
    if [frame.pts for frame in frames] != [packet.pts]:
        raise NotSeekableError("its first packet does not give one frame")
    reader.require_same_size(frames[0])


def _index(
    reader: PyAVReader, packet_times: np.ndarray, keyframes: tuple[int, ...], refusal: str | None
) -> PacketIndex:
    time_base = reader.stream.time_base
    timestamps = np.sort(packet_times) * time_base.numerator / time_base.denominator
    return PacketIndex(
        timestamps=timestamps,
        keyframes=keyframes,
        refusal=refusal,
        container=reader.container.format.name,
        codec=reader.codec.codec.canonical_name,
        pixel_format=reader.codec.pix_fmt,
        width=reader.codec.width,
        height=reader.codec.height,
        fps=frame_rate(reader.stream, timestamps.tolist()),
        rotation=-reader.turns * 90 % 360,
        packet_times=packet_times,
    )
