"""One pass over a video with PyAV: the reference of reading, which the other files of this folder build on.

Part of kinetext, CLIP on video as ordinary `transformers` models. This file travels to the Hub beside the checkpoints
that need it, so it imports only torch, numpy and the standard library; PyAV is imported when it is used.

Shapes: T frames, H height, W width, 3 colours (RGB).
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from .matroska import MATROSKA_HEAD_BYTES, matroska_size
from .video_decoders import CONTENT_ERRORS, VideoDecodeError, decode_error, import_decoder, reason_of
from .video_frames import VideoFrames, assemble, frame_rate, output_timestamps, quarter_turns
from .video_sources import VideoContent


class PyAVReader:
    """One pass over a video with PyAV, from its start and in output order.

    Args:
        content: The video.
        decoder: The name that errors carry.

    Attributes:
        timestamps: Seconds, of each frame decoded so far, None where it has none.
        size: (W,H) of the frames before they are turned, known after the first one.
        rotation: PyAV's angle of the first frame in degrees, counter-clockwise.
    """

    def __init__(self, content: VideoContent, decoder: str = "pyav") -> None:
        self.av = import_decoder("pyav")
        self.name = content.name
        self.decoder = decoder
        self.timestamps: list[float | None] = []
        self.size: tuple[int, int] | None = None
        self.rotation = 0
        self._content = content
        self._has_reordered_packets = False
        self._identity = content.identity()
        with self.content_faults():
            # Metadata in another encoding than UTF-8 is no reason to refuse the pictures.
            self.container = self.av.open(content.open(), metadata_errors="replace")
        if not self.container.streams.video:
            self.close()
            raise self.error("it has no video stream")
        self.stream = self.container.streams.video[0]
        self.codec = self.stream.codec_context
        if self.codec is None:
            self.close()
            raise self.error("FFmpeg does not know its codec")
        # One thread for decoding and one converter for all frames: FFmpeg's automatic thread pools, set up anew for
        # each clip and frame, cost 6 and 30 times the work itself on 64x64 clips, and more beside DataLoader workers.
        self.codec.thread_count = 1
        self.reformatter = importlib.import_module("av.video.reformatter").VideoReformatter()

    @contextmanager
    def content_faults(self) -> Iterator[None]:
        """Turns what FFmpeg raises over the file's content into `VideoDecodeError`."""
        try:
            yield
        except (*CONTENT_ERRORS, self.av.error.FFmpegError) as error:
            progress = f" (after {self.num_decoded} frames)" if self.num_decoded else ""
            raise self.error(reason_of(error) + progress) from error

    def error(self, reason: str) -> VideoDecodeError:
        """The error that names this video and decoder."""
        return decode_error(self.name, self.decoder, reason)

    def reads_the_same_as(self, other: PyAVReader) -> bool:
        """Whether the file was not replaced or written to between the two openings."""
        return self._identity == other._identity

    def close(self) -> None:
        """Closes the file."""
        self.container.close()

    @property
    def turns(self) -> int:
        """Counter-clockwise quarter turns that make the frames upright."""
        return quarter_turns(self.rotation)

    @property
    def num_decoded(self) -> int:
        """Frames that have come out so far."""
        return len(self.timestamps)

    @property
    def has_displaced_timestamps(self) -> bool:
        """Whether frames may carry each other's times: they are reordered, and the times of packets are not.

        AVI stores no times, and FFmpeg guesses wrong with B-frames; files that were copied out of it keep the guesses,
        which with packed B-frames (DivX, XviD) are out of order too.
        """
        may_be_packed = self.codec.name == "mpeg4"
        return self.codec.has_b_frames and (may_be_packed or not self._has_reordered_packets)

    def frames(self) -> Iterator[Any]:
        """Every `av.VideoFrame` in output order."""
        is_cut_off, latest = False, None
        with self.content_faults():
            for packet in self.container.demux(self.stream):
                is_cut_off = packet.is_corrupt if packet.size else is_cut_off  # of the last packet with content
                if packet.pts is not None:
                    self._has_reordered_packets |= latest is not None and packet.pts < latest
                    latest = packet.pts
                for frame in packet.decode():
                    self.register(frame)
                    yield frame
        if is_cut_off or self.is_shorter_than_announced():
            raise self.error(f"it is cut off after {self.num_decoded} frames")
        if not self.timestamps:
            raise self.error("it holds no frame that can be decoded")

    def packets(self) -> Iterator[Any]:
        """Every `av.Packet` with content in file order; nothing is decoded."""
        return (packet for packet in self.container.demux(self.stream) if packet.size)

    def is_shorter_than_announced(self) -> bool:
        """Whether a Matroska or WebM file lacks bytes at its end, where FFmpeg just stops."""
        if not self.container.format.name.startswith("matroska"):
            return False
        with self._content.open_bytes() as file:
            announced = matroska_size(file.read(MATROSKA_HEAD_BYTES))
            return announced is not None and file.seek(0, os.SEEK_END) < announced

    def to_rgb(self, frame: Any) -> np.ndarray:
        """An upright RGB picture, uint8, (H,W,3)."""
        with self.content_faults():
            picture = self.reformatter.reformat(frame, format="rgb24", threads=1)
            return np.rot90(picture.to_ndarray(), k=self.turns)

    def result(self, pictures: Sequence[np.ndarray], indices: list[int], total_frames: int | None) -> VideoFrames:
        """The pictures, T of (H,W,3) at the positions `indices`, with their times."""
        fps = frame_rate(self.stream, self.timestamps)
        return assemble(pictures, indices, output_timestamps(self.timestamps, fps), fps, self.turns, total_frames)

    def register(self, frame: Any) -> None:
        """Takes note of a decoded frame's size, turn and time."""
        self.require_same_size(frame)
        self.timestamps.append(frame.time)

    def require_same_size(self, frame: Any) -> None:
        """Takes the size and turn of the first frame for those of the video, and refuses another size later."""
        size = (frame.width, frame.height)
        if self.size is None:
            self.size, self.rotation = size, frame.rotation
        if size != self.size:
            raise self.error(
                f"its frame size changes from {self.size[0]}x{self.size[1]} to {size[0]}x{size[1]}; split or"
                " re-encode it"
            )
