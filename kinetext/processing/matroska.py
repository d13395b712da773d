"""What the head of a Matroska or WebM file announces, which FFmpeg does not tell.

Part of kinetext, CLIP on video as ordinary `transformers` models. This file travels to the Hub beside the checkpoints
that need it, so it imports only the standard library.
"""

from __future__ import annotations

MATROSKA_HEAD_BYTES = 4096
"""First bytes of a file that hold what is read here."""

_EBML_ID, _SEGMENT_ID = b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"


def matroska_size(head: bytes) -> int | None:
    """Bytes a Matroska file announces, from its first ones; None where it does not say (RFC 9559, section 5.1).

    The file is an EBML header and one Segment, each written as an identifier of 4 bytes, its size, and its content.
    """
    start = 0
    for identifier in (_EBML_ID, _SEGMENT_ID):
        if head[start : start + 4] != identifier:
            return None
        size = _ebml_size(head[start + 4 : start + 12])
        if size is None:
            return None
        start += 4 + size[0] + size[1]
    return start


def _ebml_size(field: bytes) -> tuple[int, int] | None:
    """Length of an EBML size field and the size it states; None if unknown or incomplete (RFC 8794, section 4).

    The number of leading zero bits is the number of bytes that follow the first; all value bits set is "unknown".
    """
    length = 9 - field[0].bit_length() if field else 9
    if length > len(field):
        return None
    unknown = (1 << 7 * length) - 1
    value = int.from_bytes(field[:length], "big") & unknown
    return None if value == unknown else (length, value)
