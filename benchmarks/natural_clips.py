"""Clips of 10 s to measure on, encoded as people's videos are: H.264 with B-frames, at x264's own settings.

Their pictures are those of the real clips in shared/data/samples, enlarged and shifted, forth and back until the clip
is full; where there are none, a drifting texture. Both are as hard to decode as video is, which rendered shapes are
not. They are written once per machine, into the temporary folder.
"""

from __future__ import annotations

import functools
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import torch
from rich.progress import track

from kinetext import load_video

from .harness import REPOSITORY

SAMPLES = REPOSITORY.parent / "shared" / "data" / "samples"
FOLDER = Path(tempfile.gettempdir()) / "kinetext_benchmark_clips_3"  # another number for other clips
ENCODER_GOP = 250  # x264's default
FPS = 30
_ENLARGED = 1.25  # room for the shifts that make each clip another one


@dataclass(frozen=True)
class ClipSet:
    """Clips of one kind.

    Args:
        width: pixels, even.
        height: pixels, even.
        num_clips: how many; the first ones are the same whatever the number.
        gop: longest distance of key frames, in frames. x264 sets more of them at cuts, but where the whole clip is one
            group: where `gop` is not below `num_frames`.
        num_frames: of each clip.
    """

    width: int
    height: int
    num_clips: int
    gop: int = ENCODER_GOP
    num_frames: int = 10 * FPS

    def paths(self) -> list[Path]:
        """The files, written now where they are not there yet."""
        FOLDER.mkdir(exist_ok=True)
        name = f"{self.width}x{self.height}_{self.num_frames}_gop{self.gop}"
        paths = [FOLDER / f"{name}_{number}.mp4" for number in range(self.num_clips)]
        missing = [(number, path) for number, path in enumerate(paths) if not path.exists()]
        for number, path in track(missing, f"writing {name}") if missing else ():
            self._write(number, path)
        return paths

    def _write(self, number: int, path: Path) -> None:
        unfinished = path.with_suffix(f".{os.getpid()}.tmp")
        # One slice a picture, as the x264 program writes them: PyAV's default would be a slice for each core.
        options = {"crf": "23", "x264-params": "sliced-threads=0"}
        if self.gop >= self.num_frames:
            options["sc_threshold"] = "0"
        with av.open(str(unfinished), "w", format="mp4") as container:
            stream = container.add_stream("libx264", rate=FPS, options=options)
            stream.width, stream.height, stream.pix_fmt, stream.gop_size = self.width, self.height, "yuv420p", self.gop
            for position, picture in enumerate(self._pictures(number)):
                frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
                frame.pts, frame.time_base = position, Fraction(1, FPS)
                container.mux(stream.encode(frame))
            container.mux(stream.encode())
        os.replace(unfinished, path)

    def _pictures(self, number: int) -> Iterator[np.ndarray]:
        """uint8 (H,W,3): the n-th part of the enlarged source, which runs forth and back from another frame on."""
        sources = _sources()
        source = sources[number % len(sources)]
        rng = np.random.default_rng(number)
        top, left = rng.random(2)
        start, is_mirrored = int(rng.integers(len(source))), bool(rng.integers(2))
        there_and_back = [*range(len(source)), *reversed(range(len(source)))]
        for position in range(self.num_frames):
            picture = source[there_and_back[(start + position) % len(there_and_back)]]
            picture = _enlarged(picture, self.height, self.width)
            y, x = (
                int((has - needs) * share)
                for has, needs, share in zip(picture.shape[:2], (self.height, self.width), (top, left), strict=True)
            )
            picture = picture[y : y + self.height, x : x + self.width]
            yield np.ascontiguousarray(picture[:, ::-1] if is_mirrored else picture)


def _enlarged(picture: np.ndarray, height: int, width: int) -> np.ndarray:
    scale = _ENLARGED * max(height / picture.shape[0], width / picture.shape[1])
    size = [round(side * scale) for side in picture.shape[:2]]
    channels_first = torch.from_numpy(picture).permute(2, 0, 1)[None]
    resized = torch.nn.functional.interpolate(channels_first, size, mode="bicubic", antialias=True)
    return resized[0].permute(1, 2, 0).numpy()


@functools.cache
def _sources() -> list[np.ndarray]:
    """uint8 (n,H,W,3) each."""
    return [load_video(path).frames.numpy() for path in sorted(SAMPLES.glob("*.mp4"))] or [_drifting_texture()]


def _drifting_texture(num_frames: int = 120, height: int = 240, width: int = 320) -> np.ndarray:
    """uint8 (n,H,W,3): blotches of several sizes, each drifting in its own direction, under fresh grain."""
    rng = np.random.default_rng(0)
    frames = np.full((num_frames, height, width, 3), 128, np.float32)
    for cells in (4, 16, 64):
        layer = torch.from_numpy(rng.normal(0, 25, (1, 3, cells, cells)).astype(np.float32))
        layer = torch.nn.functional.interpolate(layer, (height, width), mode="bicubic")[0].permute(1, 2, 0).numpy()
        speed = rng.normal(0, 2, 2)
        for index in range(num_frames):
            frames[index] += np.roll(layer, tuple(np.rint(index * speed).astype(int)), axis=(0, 1))
    frames += rng.normal(0, 3, frames.shape)
    return frames.clip(0, 255).astype(np.uint8)


def circumstances_of(paths: list[Path]) -> dict[str, float]:
    """What the speed of decoding depends on: mean bytes, and frames per key frame."""
    keys = frames = 0
    for path in paths:
        with av.open(str(path)) as container:
            packets = [packet for packet in container.demux(video=0) if packet.size]
        frames += len(packets)
        keys += sum(packet.is_keyframe for packet in packets)
    return {"mean_kib": sum(path.stat().st_size for path in paths) / len(paths) / 1024, "frames_per_key": frames / keys}
