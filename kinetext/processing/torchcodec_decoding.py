"""Frames by torchcodec, of the files that it decodes exactly as PyAV does; it refuses the others.

The index of the packets says which frames there are and when they are shown; torchcodec seeks by itself and must
answer with those times. CUDA is left out on purpose: its colours differ from those of the processor.

Part of kinetext, CLIP on video as ordinary `transformers` models. This file travels to the Hub beside the checkpoints
that need it, so it imports only torch, numpy and the standard library; the decoders are imported when they are used.

Shapes: T frames, H height, W width, 3 colours (RGB).
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from contextlib import closing

import torch

from .coded_packets import NotSeekableError
from .packet_index import PacketIndex, read_index_and_first_frame
from .pyav_reader import PyAVReader
from .video_decoders import CONTENT_ERRORS, decode_error, import_decoder, reason_of
from .video_frames import VideoFrames, chosen_indices, require_within
from .video_sources import VideoContent

# The codecs whose standard fixes every bit, and the pixels that every version of FFmpeg converts alike: torchcodec
# brings no FFmpeg and uses that of the system.
_CODECS = ("h264", "hevc", "vp8", "vp9", "av1")
_PIXEL_FORMATS = ("yuv420p", "yuvj420p")


def load_with_torchcodec(
    content: VideoContent, wanted: list[int] | Callable[[int], Sequence[int]] | None
) -> VideoFrames:
    """As `load_video`, for a source that has been resolved and indices that have been checked."""
    import_decoder("torchcodec")
    index = _trusted_index(content)
    num_frames = len(index.timestamps)
    if wanted is None:
        chosen = list(range(num_frames))
    else:
        chosen = chosen_indices(wanted, num_frames, content.name) if callable(wanted) else wanted
    require_within(chosen, num_frames, content.name)
    needed = sorted(set(chosen))
    frames = _frames(content, index, needed)
    place = {position: row for row, position in enumerate(needed)}
    return VideoFrames(
        frames=frames if chosen == needed else frames[[place[position] for position in chosen]],  # (T,H,W,3)
        timestamps=torch.from_numpy(index.timestamps[chosen]),  # (T,)
        fps=index.fps,
        rotation=index.rotation,
        indices=list(chosen),
        total_frames=num_frames if wanted is None or callable(wanted) else None,
    )


def _trusted_index(content: VideoContent) -> PacketIndex:
    """The index of a video that torchcodec may be trusted with.

    Raises:
        VideoDecodeError: the file is of a kind that torchcodec does not decode exactly, or PyAV cannot open it.
    """
    with closing(PyAVReader(content, decoder="torchcodec")) as reader:
        try:
            index = read_index_and_first_frame(reader)
        except NotSeekableError as error:
            raise reader.error(str(error)) from error
        for what, value, exact in (
            ("codec", index.codec, _CODECS),
            ("pixel format", index.pixel_format, _PIXEL_FORMATS),
        ):
            if value not in exact:
                raise reader.error(f"its {what} is {value}, and torchcodec is exact only for {', '.join(exact)}")
        return index


def _frames(content: VideoContent, index: PacketIndex, needed: list[int]) -> torch.Tensor:
    """Upright frames, uint8 (T,H,W,3), at sorted positions."""
    decoders = importlib.import_module("torchcodec.decoders")
    try:
        decoder = decoders.VideoDecoder(
            content.path or content.data, dimension_order="NHWC", num_ffmpeg_threads=1, seek_mode="exact"
        )
        if len(decoder) != len(index.timestamps):
            raise ValueError(f"torchcodec counts {len(decoder)} frames where the file has {len(index.timestamps)}")
        batch = decoder.get_frames_at(needed)
        if not torch.equal(batch.pts_seconds, torch.from_numpy(index.timestamps[needed])):
            raise ValueError("torchcodec answers with frames of other times")
    except CONTENT_ERRORS as error:
        raise decode_error(content.name, "torchcodec", reason_of(error)) from error
    return batch.data
