"""Sparse frames by PyAV: index the packets, then decode only the groups that hold wanted frames.

A "seek" hands the decoder the packets from a key frame on, which the index pass has kept; the container is not asked
to seek. A group ends with the last packet that a wanted frame needs, and the decoder is then drained. Frames that no
other one is predicted from are left out unless they are wanted. What comes out is compared with what the index says.

Part of kinetext, CLIP on video as ordinary `transformers` models. This file travels to the Hub beside the checkpoints
that need it, so it imports only torch, numpy and the standard library.

Shapes: T frames, H height, W width, 3 colours (RGB), P packets.
"""

from __future__ import annotations

import os
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import torch.utils.data

from .coded_packets import NotSeekableError
from .packet_index import HeldPackets, PacketIndex, decode_first, packet_rule, read_index
from .pyav_reader import PyAVReader
from .video_frames import VideoFrames, assemble, chosen_indices, require_within
from .video_sources import VideoContent

__all__ = ["load_sparsely"]

THREADED_PIXELS = 3_000_000
"""Pixels to decode from which a second thread gains more than opening the video once more costs."""

MAX_THREADS = 8


@dataclass(frozen=True)
class _Group:
    """Packets start to stop - 1 in file order, of which a key frame is the first.

    Attributes:
        start: Position in file order.
        stop: Position behind the last packet that a wanted frame needs.
        times: Presentation times of these packets, sorted.
        wanted: Index of each wanted frame by its presentation time.
    """

    start: int
    stop: int
    times: list[int]
    wanted: dict[int, int]


def load_sparsely(
    reader: PyAVReader, content: VideoContent, wanted: list[int] | Callable[[int], Sequence[int]]
) -> VideoFrames:
    """The wanted frames, by the index of the video's packets.

    Args:
        reader: One that has not read yet.
        content: What it reads.
        wanted: Positions, or a function from the number of frames.

    Raises:
        NotSeekableError, VideoDecodeError: the video must be decoded from its start.
        IndexError: an index is beyond the last frame.
    """
    index, packets = read_index(reader)
    num_frames = len(index.timestamps)
    chosen = chosen_indices(wanted, num_frames, content.name) if callable(wanted) else wanted
    require_within(chosen, num_frames, content.name)
    groups = _plan(index, chosen)
    if packets.all is None:
        with _opened_again(reader, content) as second:
            pictures = _pictures(reader, packets.first, second.packets(), groups)
    else:
        pictures = _pictures_by_threads(reader, content, packets, groups, _num_threads(index, groups))
    return assemble(
        [pictures[position] for position in chosen],
        chosen,
        index.timestamps.tolist(),
        index.fps,
        reader.turns,
        num_frames if callable(wanted) else None,
    )


@contextmanager
def _opened_again(reader: PyAVReader, content: VideoContent) -> Iterator[PyAVReader]:
    """A second reader of the file.

    Raises:
        NotSeekableError: it is another file by now.
    """
    with closing(PyAVReader(content)) as again:
        if not again.reads_the_same_as(reader):
            raise NotSeekableError("it was replaced while it was read")
        yield again


def _plan(index: PacketIndex, wanted: Sequence[int]) -> list[_Group]:
    """The groups to decode, in file order."""
    file_positions = np.argsort(index.packet_times)  # (P,) file position of each output position
    by_start: dict[int, list[int]] = {}
    for position in sorted(set(wanted)):
        start = index.keyframes[bisect_right(index.keyframes, position) - 1]
        by_start.setdefault(start, []).append(position)
    groups = []
    for start, positions in by_start.items():
        stop = int(file_positions[positions].max()) + 1
        times = index.packet_times[file_positions[positions]].tolist()
        wanted_times = dict(zip(times, positions, strict=True))
        groups.append(_Group(start, stop, np.sort(index.packet_times[start:stop]).tolist(), wanted_times))
    return groups


def _num_threads(index: PacketIndex, groups: list[_Group]) -> int:
    """One inside loader workers, which share the processor already, and for jobs too small to be worth more."""
    num_pixels = sum(group.stop - group.start for group in groups) * index.width * index.height
    if torch.utils.data.get_worker_info() is not None or num_pixels < THREADED_PIXELS:
        return 1
    # Cores that this process may use, where the system tells.
    num_cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(num_cores, MAX_THREADS)


def _shares(groups: list[_Group], num_threads: int) -> list[list[_Group]]:
    """The groups in at most so many shares, each of consecutive ones, with about as many packets in each."""
    num_packets = [group.stop - group.start for group in groups]
    middles = np.cumsum(num_packets) - np.array(num_packets) / 2  # of each group, counted in packets
    owners = (middles * num_threads / sum(num_packets)).astype(int).tolist()
    shares = [
        [group for group, owner in zip(groups, owners, strict=True) if owner == thread] for thread in range(num_threads)
    ]
    return [share for share in shares if share]


def _pictures_by_threads(
    reader: PyAVReader, content: VideoContent, packets: HeldPackets, groups: list[_Group], num_threads: int
) -> dict[int, np.ndarray]:
    """Pictures (H,W,3) by index. Threads share the groups, each with a decoder of its own, else the slices."""
    shares = _shares(groups, num_threads)
    threads_per_share = num_threads // len(shares)

    def decode(own: PyAVReader, share: list[_Group]) -> dict[int, np.ndarray]:
        own.codec.thread_count = threads_per_share
        return _pictures(own, packets.first, packets.all or (), share)

    def decode_anew(share: list[_Group]) -> dict[int, np.ndarray]:
        with _opened_again(reader, content) as own:
            return decode(own, share)

    if len(shares) == 1:
        return decode(reader, groups)
    with ThreadPoolExecutor(len(shares) - 1) as pool:
        others = [pool.submit(decode_anew, share) for share in shares[1:]]
        pictures = decode(reader, shares[0])
    for other in others:
        pictures |= other.result()
    return pictures


def _pictures(reader: PyAVReader, first: Any, packets: Iterable[Any], groups: list[_Group]) -> dict[int, np.ndarray]:
    """Pictures (H,W,3) by index; `packets` are all of the video's, in file order, and `first` is their first."""
    rule = packet_rule(reader)
    if rule.heeds_signature(bytes(first)):
        decode_first(reader, first)
    pictures: dict[int, np.ndarray] = {}
    remaining = iter(packets)
    position = 0
    for group in groups:
        of_group = islice(remaining, group.start - position, group.stop - position)
        position = group.stop
        with reader.content_faults():
            for frame in _checked_frames(
                _decode(reader.codec, of_group, group.wanted, rule.can_skip_unreferenced), group
            ):
                reader.require_same_size(frame)
                if frame.pts in group.wanted:
                    pictures[group.wanted[frame.pts]] = reader.to_rgb(frame)
    return pictures


def _decode(codec: Any, packets: Iterable[Any], wanted: dict[int, int], can_skip: bool) -> Iterator[Any]:
    """Frames of the packets from a key frame on, in output order; leaves the decoder ready for another group."""
    for packet in packets:
        codec.skip_frame = "NONREF" if can_skip and packet.pts not in wanted else "DEFAULT"
        yield from codec.decode(packet)
    yield from codec.decode(None)
    codec.flush_buffers()


def _checked_frames(frames: Iterator[Any], group: _Group) -> Iterator[Any]:
    """The frames, after checking that they are the group's, in order and whole, and that no wanted one is missing.

    Raises:
        NotSeekableError: the index was wrong about this video.
    """
    remaining = iter(group.times)
    missing = set(group.wanted)
    for frame in frames:
        if frame.pts not in remaining or frame.is_corrupt:  # `in` moves the iterator on: times must come in order
            raise NotSeekableError(f"a frame with the time {frame.pts} came out of turn")
        missing.discard(frame.pts)
        yield frame
    if missing:
        raise NotSeekableError(f"no frame with the time {min(missing)} came out")
