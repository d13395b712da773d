"""Whole videos, one frame at a time: for work that reads every frame of files of any length.

`load_video` gives tensors of frames, and those of an hour do not fit in memory. This is the same reference decoding.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing

import torch

from ..processing.pyav_reader import PyAVReader
from ..processing.video_frames import frame_rate, output_timestamps
from ..processing.video_sources import resolve_source

__all__ = ["FrameReader"]


class FrameReader:
    """One pass over a video, as `load_video` decodes it with PyAV; iterating gives its upright frames.

    Args:
        source: as of `load_video`.

    Attributes:
        timestamps: seconds of all frames in output order, as of `VideoFrames`; after the pass.
        fps: see there; before the pass, what the header tells (NaN if nothing).
        rotation: see there.
        shape: (H,W) of the upright frames, after the pass.

    Raises:
        VideoDecodeError, OSError: as `load_video` does, some while frames are read.
    """

    timestamps: list[float]
    rotation: int
    shape: tuple[int, int]

    def __init__(self, source: str | os.PathLike[str] | bytes) -> None:
        self._reader = PyAVReader(resolve_source(source))
        self.fps = frame_rate(self._reader.stream, ())

    def __iter__(self) -> Iterator[torch.Tensor]:
        """Each frame, uint8 (H,W,3), RGB, upright."""
        return (torch.from_numpy(self._reader.to_rgb(frame).copy()) for frame in self._frames())

    def read_through(self) -> int:
        """The number of frames, none of which is made into a picture."""
        return sum(1 for _ in self._frames())

    def _frames(self) -> Iterator[object]:
        reader = self._reader
        with closing(reader):
            yield from reader.frames()
            self.fps = frame_rate(reader.stream, reader.timestamps)
            self.timestamps = output_timestamps(reader.timestamps, self.fps)
            self.rotation = -reader.turns * 90 % 360
            assert reader.size is not None  # of a video without frames, which is an error
            self.shape = reader.size if reader.turns % 2 else (reader.size[1], reader.size[0])
