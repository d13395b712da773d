"""One video re-encoded so that training reads it fast, and compared with its source frame by frame.

    source ──decode, resize, yuv420p──► H.264 ──► mp4 in memory ──► decoded again ◄──compared── source, decoded again,
                                                      └── good enough? else encoded once more, better ──┘  yuv420p, RGB

H.264 in mp4, yuv420p, upright, short closed groups, no B-frames, without arithmetic coding and deblocking
(`tune=fastdecode`): on 340x256 pixels, reading 8 frames took half of the time that it takes with them, and 0.8 of that
with two B-frames; files are 14 % larger. The times of frames are kept, also where the rate varies; sound is left out.
A source gives the same bytes every time; for that, x264 does without macroblock trees (0 to 20 % larger files), which
on a busy machine came out differently in one of ten runs.
"""

from __future__ import annotations

import importlib
import io
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import torch

from ..processing.video_transforms import resize
from .frame_reader import FrameReader

__all__ = ["MIN_PSNR_DB", "TIME_TOLERANCE_S", "EncodeSettings", "Encoded", "QualityError", "compare", "reencode"]

MIN_PSNR_DB = 30.0
"""What every frame must reach, over its RGB values, against the source as `video_transforms.resize` scales it and 4:2:0
holds it: pictures whose colours change from pixel to pixel lose more by that than by encoding, and no crf helps."""

TIME_TOLERANCE_S = 1e-3
"""How far the time of a frame may be off."""

_TIME_BASE = Fraction(1, 90000)  # the clock of MPEG: divides 24, 25, 30 and 60 frames per second
_PIXEL_FORMAT = "yuv420p"  # what every decoder reads
_BETTER_CRF = 6  # a step of this halves the error, roughly
_NUM_TRIES = 3
_USUAL_FPS = 25.0  # where a file does not tell; only x264's choice of quality depends on it
_MAX_PSNR_DB = 100.0  # of frames that are equal


@dataclass(frozen=True)
class EncodeSettings:
    """How videos are encoded.

    Args:
        short_side: pixels of the shorter side; smaller videos keep their size. Sides are rounded to even numbers.
        gop: most frames from one key frame to the next.
        crf: x264's constant rate factor, from 1 (best) to 51.

    Raises:
        ValueError: for values that make no sense.
    """

    short_side: int = 256
    gop: int = 12
    crf: int = 18

    def __post_init__(self) -> None:
        for name, value, least, most in (
            ("short_side", self.short_side, 2, 2**14),
            ("gop", self.gop, 1, 2**10),
            ("crf", self.crf, 1, 51),
        ):
            if not least <= value <= most:
                raise ValueError(f"{name}={value} must be from {least} to {most}.")

    def size(self, height: int, width: int) -> tuple[int, int]:
        """(height, width) of what becomes of a video of this size."""
        scale = min(1.0, self.short_side / min(height, width))
        return _even(height * scale), _even(width * scale)


@dataclass(frozen=True)
class Quality:
    """How near a copy is to its source.

    Attributes:
        num_frames: of both.
        duration_s: from the first frame to the last.
        min_psnr_db: of the worst frame; 100 where all are equal.
        mean_psnr_db: over all frames.
    """

    num_frames: int
    duration_s: float
    min_psnr_db: float
    mean_psnr_db: float


@dataclass(frozen=True)
class Encoded:
    """A copy that was compared with its source.

    Attributes:
        content: the mp4 file.
        crf: with which it was good enough.
        quality: how good.
    """

    content: bytes
    crf: int
    quality: Quality


class QualityError(Exception):
    """A copy is not what its source is; the message says in which."""


def reencode(source: str, settings: EncodeSettings) -> Encoded:
    """A copy of a video whose frames and times are those of the source; in memory, whatever its length.

    Where a frame is worse than `MIN_PSNR_DB`, it is encoded again at a better quality, twice at most.

    Raises:
        VideoDecodeError, OSError: if the source cannot be decoded to its end.
        QualityError: if the copy does not have the source's frames and times, or is not good enough at any quality.
    """
    tries = [max(1, settings.crf - step * _BETTER_CRF) for step in range(_NUM_TRIES)]
    for crf in dict.fromkeys(tries):
        content = _encode(source, settings, crf)
        quality = compare(source, content, settings)
        if quality.min_psnr_db >= MIN_PSNR_DB:
            return Encoded(content, crf, quality)
    raise QualityError(
        f"a frame has {quality.min_psnr_db:.1f} dB PSNR, less than {MIN_PSNR_DB:g}, even at crf={crf}; "
        + ("give a lower crf" if crf > 1 else "give another short_side, or leave it out")
    )


def compare(source: str, copy: bytes, settings: EncodeSettings) -> Quality:
    """How near a copy is to its source, frame by frame, each as `FrameReader` gives it from yuv420p.

    Raises:
        VideoDecodeError, OSError: if one of them cannot be decoded to its end.
        QualityError: if they differ in number or size of frames, or in a time by more than `TIME_TOLERANCE_S`.
    """
    originals, copies = FrameReader(source), FrameReader(copy)
    try:
        values = [_psnr_db(_subsampled(one, settings), other) for one, other in zip(originals, copies, strict=True)]
    except ValueError as error:  # of zip
        raise QualityError("the copy has another number of frames") from error
    times, copied = (torch.tensor(stream.timestamps, dtype=torch.float64) for stream in (originals, copies))
    worst = (_from_zero(times) - copied).abs().max().item()
    if not worst <= TIME_TOLERANCE_S:
        raise QualityError(f"the time of a frame is off by {1e3 * worst:.1f} ms")
    return Quality(len(values), (times[-1] - times[0]).item(), min(values), sum(values) / len(values))


def _encode(source: str, settings: EncodeSettings, crf: int) -> bytes:
    """The mp4 file. Packets wait for their times, which are known once all frames were decoded."""
    av = importlib.import_module("av")
    frames, file, packets = FrameReader(source), io.BytesIO(), []
    fps = frames.fps if math.isfinite(frames.fps) else _USUAL_FPS
    # Without the second one, a start other than 0 is rounded to milliseconds.
    options = {"video_track_timescale": "90000", "movie_timescale": "90000"}
    with av.open(file, "w", format="mp4", options=options) as container:
        stream = None
        for number, frame in enumerate(frames):
            picture = _picture(frame, settings)
            if stream is None:
                stream = _add_stream(container, settings, crf, picture.height, picture.width)
            picture.pts, picture.time_base = round(number / fps / _TIME_BASE), _TIME_BASE
            packets += stream.encode(picture)
        assert stream is not None  # a video without frames is an error
        packets += stream.encode(None)
        for packet, time in zip(packets, _ticks(frames.timestamps), strict=True):
            packet.pts = packet.dts = time
            packet.duration = round(1 / fps / _TIME_BASE)  # counts for the last one alone
            container.mux(packet)
    return file.getvalue()


def _add_stream(container: Any, settings: EncodeSettings, crf: int, height: int, width: int) -> Any:
    options = {
        "crf": str(crf),
        "preset": "medium",
        "tune": "fastdecode",
        "bf": "0",
        "g": str(settings.gop),
        "x264-params": "open-gop=0:mbtree=0",
    }
    stream = container.add_stream("libx264", options=options)
    stream.width, stream.height, stream.pix_fmt = width, height, _PIXEL_FORMAT
    stream.codec_context.time_base = stream.time_base = _TIME_BASE
    stream.codec_context.thread_count = 1  # files are encoded side by side
    return stream


def _picture(frame: torch.Tensor, settings: EncodeSettings) -> Any:
    """The `av.VideoFrame` that is encoded of a frame uint8 (H,W,3): in its size, in yuv420p."""
    size = settings.size(*frame.shape[:2])
    pixels = resize(frame.permute(2, 0, 1)[None], *size)[0].permute(1, 2, 0).contiguous()
    picture = importlib.import_module("av").VideoFrame.from_ndarray(pixels.numpy(), format="rgb24")
    return picture.reformat(format=_PIXEL_FORMAT, threads=1)


def _subsampled(frame: torch.Tensor, settings: EncodeSettings) -> torch.Tensor:
    """What a copy without loss would show of a frame uint8 (H,W,3); alike."""
    return torch.from_numpy(_picture(frame, settings).reformat(format="rgb24", threads=1).to_ndarray())


def _psnr_db(one: torch.Tensor, other: torch.Tensor) -> float:
    """Peak signal-to-noise ratio of two frames uint8 (H,W,3), over all their values."""
    if one.shape != other.shape:
        raise QualityError(f"the copy has frames of {tuple(other.shape[:2])}, not {tuple(one.shape[:2])}")
    error = (one.float() - other.float()).square().mean().item()
    return _MAX_PSNR_DB if error == 0 else min(_MAX_PSNR_DB, 10 * math.log10(255**2 / error))


def _ticks(timestamps: Sequence[float]) -> list[int]:
    """Seconds on the clock of the copy."""
    times = _from_zero(torch.tensor(timestamps, dtype=torch.float64))
    if times.isnan().any():
        raise QualityError("its frames have no times, and it does not tell its rate")
    ticks = [round(time / _TIME_BASE) for time in times.tolist()]
    if any(later <= earlier for earlier, later in itertools.pairwise(ticks)):
        raise QualityError("two of its frames are less than 11 microseconds apart")
    return ticks


def _from_zero(times: torch.Tensor) -> torch.Tensor:
    """Times that begin before 0, which mp4 would hide, moved to begin there; others as they are."""
    return times - times[0].clamp(max=0)


def _even(length: float) -> int:
    return max(2, 2 * round(length / 2))
