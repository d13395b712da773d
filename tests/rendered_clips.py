"""Clips rendered by real encoders, whose frames carry their own index in the picture.

The upper half of a frame is a row of `NUM_BITS` bars, white for the ones of the index and black for the zeros, most
significant first. The lower half is noise, so that encoders have something to predict. A picture that is turned,
mirrored or scaled wrongly does not read back as its index.
"""

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import torch

NUM_BITS = 10
WIDTH, HEIGHT = 160, 96


def index_picture(index: int, *, width: int = WIDTH, height: int = HEIGHT) -> np.ndarray:
    """A picture (H,W,3) uint8 that carries `index`."""
    picture = np.random.default_rng(index).integers(0, 256, (height, width, 3), dtype=np.uint8) // 4 + 96
    bits = np.array([index >> bit & 1 for bit in reversed(range(NUM_BITS))], dtype=np.uint8)
    picture[: height // 2] = np.repeat(bits * 255, width // NUM_BITS)[None, :, None]
    return picture


def read_index(picture: torch.Tensor) -> int:
    """The index a picture (H,W,3) carries; -1 if its bars are neither black nor white."""
    height, width, _ = picture.shape
    bars = picture[: height // 2].double().mean(dim=(0, 2)).reshape(NUM_BITS, width // NUM_BITS)  # (bits, columns)
    levels = bars[:, 4:-4].mean(dim=1)
    if ((levels > 60) & (levels < 195)).any() or picture[height // 2 :].double().mean() > 195:
        return -1
    return sum(1 << NUM_BITS - 1 - bit for bit in range(NUM_BITS) if levels[bit] > 127)


def read_indices(frames: torch.Tensor) -> list[int]:
    """The indices that frames (T,H,W,3) carry."""
    return [read_index(picture) for picture in frames]


def render_clip(
    path: Path,
    num_frames: int = 40,
    *,
    codec: str = "libx264",
    codec_options: dict[str, str] | None = None,
    container_options: dict[str, str] | None = None,
    fps: int = 25,
    gop: int = 30,
    timestamps: Sequence[int] | None = None,
    rotation: int = 0,
) -> Path:
    """Writes a clip of upright index pictures and returns its path.

    Args:
        path: Its suffix chooses the container.
        num_frames: Frames with the indices 0 to num_frames - 1.
        codec: An FFmpeg encoder.
        codec_options: Options of the encoder.
        container_options: Options of the container.
        fps: Frames per second.
        gop: Frames from one key frame to the next.
        timestamps: Presentation times in units of 1/fps seconds; 0, 1, 2, ... by default.
        rotation: Degrees clockwise that players must turn the stored pictures: 0, 90, 180 or 270.
    """
    with av.open(str(path), "w", options=container_options or {}) as container:
        stream = container.add_stream(codec, rate=fps, options=codec_options or {})
        stream.width, stream.height = (HEIGHT, WIDTH) if rotation % 180 else (WIDTH, HEIGHT)
        stream.pix_fmt = "yuv420p"
        stream.gop_size = gop
        stream.codec_context.time_base = Fraction(1, fps)
        if rotation:
            stream.set_display_rotation(-rotation)
        for index in range(num_frames):
            stored = np.rot90(index_picture(index), k=rotation // 90)
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(stored), format="rgb24")
            frame.pts = index if timestamps is None else timestamps[index]
            frame.time_base = Fraction(1, fps)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def join_clips(path: Path, first: Path, second: Path) -> Path:
    """Writes the packets of two clips, without B-frames, behind each other into one stream; keeps the frame sizes."""
    with av.open(str(first)) as head, av.open(str(second)) as tail, av.open(str(path), "w") as container:
        stream = container.add_stream_from_template(head.streams.video[0])
        shift = 0
        for part in (head, tail):
            end = 0
            for packet in part.demux(part.streams.video[0]):
                if packet.size:
                    end = max(end, packet.pts + max(packet.duration or 0, 1))
                    packet.pts = packet.dts = packet.pts + shift
                    packet.stream = stream
                    container.mux(packet)
            shift = end
    return path


def drop_packets(path: Path, clip: Path, num_dropped: int) -> Path:
    """Writes the packets of a clip without the first ones, as cutting without re-encoding does."""
    with av.open(str(clip)) as source, av.open(str(path), "w") as container:
        stream = container.add_stream_from_template(source.streams.video[0])
        for position, packet in enumerate(source.demux(source.streams.video[0])):
            if packet.size and position >= num_dropped:
                packet.stream = stream
                container.mux(packet)
    return path
