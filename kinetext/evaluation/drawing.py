"""What the pictures of this package share: ink, fonts, text that fits its place, and writing the file."""

from __future__ import annotations

import functools
import io
import math
from pathlib import Path

from PIL import Image, ImageFont

from ..descriptions.files import write_atomically
from ..processing.video_decoding import VideoFrames

INK, GREY, PAPER = (32, 33, 36), (110, 113, 118), (255, 255, 255)
PALE_BAR, STRONG_BAR = (201, 211, 224), (66, 120, 196)


def check_picture_path(path: Path) -> None:
    """Raises ValueError unless the suffix is of a picture format that can be written."""
    if Image.registered_extensions().get(path.suffix.lower()) not in Image.SAVE:
        raise ValueError(f"{path.name!r} has no picture suffix; use for example .png.")


def save_picture(picture: Image.Image, path: Path) -> None:
    """Writes the picture, making its folder; an existing file is replaced only when the new one is complete."""
    check_picture_path(path)
    content = io.BytesIO()
    picture.save(content, format=Image.registered_extensions()[path.suffix.lower()])
    write_atomically(path, content.getvalue())


def frame_caption(frames: VideoFrames, index: int) -> str:
    """When a frame is shown, and its number in the video."""
    time = float(frames.timestamps[index])
    frame = f"frame {frames.indices[index]}"
    return frame if math.isnan(time) else f"{time:.2f} s · {frame}"


def fitted(text: str, width: int, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> str:
    """The text in one line, shortened from its end if it is wider than `width` pixels."""
    text = " ".join(text.encode(errors="replace").decode().split())  # file names may be no UTF-8
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "…") > width:
        text = text[:-1]
    return text + "…"


@functools.cache
def font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Pillow's own font at `size` pixels."""
    return ImageFont.load_default(size)
