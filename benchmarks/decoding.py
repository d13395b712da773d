"""Sparse frames: 8 of the 300 of a clip of 10 s, one in the middle of each eighth, by what people use today and by us.

python -m benchmarks.decoding
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import av
import numpy as np

from kinetext import load_video
from kinetext.processing.frame_sampling import sample_frames
from kinetext.processing.video_decoders import decoder_fault

from .harness import Benchmark, Subject, run
from .natural_clips import ClipSet

NUM_FRAMES = 8
SIZES = ((340, 256), (854, 480))
WHOLE_CLIP = 300
GROUPS = (12, 48, WHOLE_CLIP)  # frames from one key frame to the next


def ours(clips: ClipSet) -> Callable[[], Any]:
    """`load_video` as the processor calls it: the frames are chosen when the length is known."""
    (path,) = clips.paths()
    return lambda: load_video(path, indices=_wanted).frames


def by_decord(clips: ClipSet) -> Callable[[], Any]:
    """As decord's README has it, with its own number of threads."""
    (path,) = clips.paths()
    decord = importlib.import_module("decord")

    def decode() -> np.ndarray:
        reader = decord.VideoReader(str(path))
        return reader.get_batch(_wanted(len(reader))).asnumpy()

    return decode


def by_pyav(clips: ClipSet) -> Callable[[], Any]:
    """`read_video_pyav` of transformers' documentation, which decodes in order up to the last wanted frame."""
    (path,) = clips.paths()

    def decode() -> np.ndarray:
        frames = []
        with av.open(str(path)) as container:
            indices = _wanted(container.streams.video[0].frames)
            for position, frame in enumerate(container.decode(video=0)):
                if position > indices[-1]:
                    break
                if position >= indices[0] and position in indices:
                    frames.append(frame)
        return np.stack([frame.to_ndarray(format="rgb24") for frame in frames])

    return decode


def by_torchcodec(clips: ClipSet) -> Callable[[], Any]:
    """As torchcodec's documentation has it: exact, with one thread, its default."""
    (path,) = clips.paths()
    decoders = importlib.import_module("torchcodec.decoders")

    def decode() -> Any:
        decoder = decoders.VideoDecoder(str(path))
        return decoder.get_frames_at(_wanted(len(decoder))).data

    return decode


def _wanted(num_frames: int) -> list[int]:
    return sample_frames(num_frames, NUM_FRAMES)[0]


OTHERS = {"pyav": by_pyav, "decord": by_decord, "torchcodec": by_torchcodec}


def _comparison(width: int, height: int, gop: int) -> Benchmark:
    clips = ClipSet(width, height, 1, gop)
    others = {name: prepare for name, prepare in OTHERS.items() if decoder_fault(name) is None}
    subjects = [Subject(name, prepare, (clips,)) for name, prepare in others.items()]
    subjects.append(Subject("kinetext", ours, (clips,), {name: name for name in others}))
    length = "the whole clip" if gop == WHOLE_CLIP else f"{gop} frames"
    frames = f"{NUM_FRAMES} of {WHOLE_CLIP} frames"
    return Benchmark(
        f"{frames}, H.264 {width}x{height}, groups of {length}",
        tuple(subjects),
        headline=f"{frames}, {width}x{height}, groups of {length}",
    )


BENCHMARKS = tuple(_comparison(*size, gop) for size in SIZES for gop in GROUPS)

if __name__ == "__main__":
    run("decoding", BENCHMARKS)
