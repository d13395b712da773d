"""What encoded packets say of themselves: whether seeking among them can be exact. Nothing is decoded.

Each codec has a function that takes the stream's setup data (FFmpeg's `extradata`) and returns a `PacketRule`, which
reads one packet. Seeking is exact where each packet gives one frame, where decoding may start anew at known packets,
and where what is set for the packets that follow (parameter sets) stands in the setup data, so that nothing is missed
by leaving packets out.

Part of kinetext, CLIP on video as ordinary `transformers` models. This file travels to the Hub beside the checkpoints
that need it, so it imports only the standard library.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass

__all__ = ["PACKET_RULES", "NotSeekableError", "PacketRule"]


class NotSeekableError(Exception):
    """Why frames of a video must be reached by decoding it from its start, in one line."""


@dataclass(frozen=True)
class PacketRule:
    """How packets of one stream are read.

    Attributes:
        starts_anew: From a packet's bytes, None where it depends on packets before it; else what the frames from
            here on are like (their size, where the setup data does not fix it), which must not change.
        can_skip_unreferenced: Whether FFmpeg knows the frames that no other frame is predicted from and leaves them
            out exactly (`skip_frame` "NONREF").
        heeds_signature: From the first packet's bytes, whether the encoder has signed it in a way that FFmpeg acts on
            in all later ones, so that it must be decoded before any of them.

    Raises (when called):
        NotSeekableError: the packet breaks what seeking relies on.
    """

    starts_anew: Callable[[bytes], Hashable | None]
    can_skip_unreferenced: bool = False
    heeds_signature: Callable[[bytes], bool] = lambda first_packet: False


# H.264 and HEVC: NAL units, each behind its length ------------------------------------------------------------------

_H264_KIND = [first_byte & 31 for first_byte in range(256)]
_H264_IDR, _H264_PARAMETER_SETS = 5, (7, 8)
_HEVC_KIND = [first_byte >> 1 & 63 for first_byte in range(256)]
_HEVC_RANDOM_ACCESS, _HEVC_PARAMETER_SETS, _HEVC_SPS = range(16, 22), (32, 33, 34), 33


def _h264(setup: bytes) -> PacketRule:
    """ISO/IEC 14496-15, section 5.3.3.1: the setup data is an AVCDecoderConfigurationRecord."""
    if setup[:1] != b"\x01":
        raise NotSeekableError("its H.264 is not stored as in MP4")
    if setup[5] & 31 != 1:
        raise NotSeekableError(f"it has {setup[5] & 31} sequence parameter sets")
    length_bytes = (setup[4] & 3) + 1

    def starts_anew(packet: bytes) -> Hashable | None:
        kinds = _kinds(packet, length_bytes, _H264_KIND, _H264_PARAMETER_SETS, setup)
        return True if _H264_IDR in kinds else None  # other key frames may leave references to before them alive

    return PacketRule(starts_anew, can_skip_unreferenced=True, heeds_signature=_is_old_x264)


# FFmpeg decodes what x264 wrote before this version with the faults that it had (4:4:4, direct prediction).
_X264_WITHOUT_FAULTS = 151
_X264_SIGNATURE = re.compile(rb"x264 - core (\d+)")


def _is_old_x264(first_packet: bytes) -> bool:
    signature = _X264_SIGNATURE.search(first_packet)
    return signature is not None and int(signature[1]) < _X264_WITHOUT_FAULTS


def _hevc(setup: bytes) -> PacketRule:
    """ISO/IEC 14496-15, section 8.3.3.1: the setup data is an HEVCDecoderConfigurationRecord."""
    if setup[:1] != b"\x01":
        raise NotSeekableError("its HEVC is not stored as in MP4")
    sequence_sets = [unit for unit in _hevc_setup_units(setup) if _HEVC_KIND[unit[0]] == _HEVC_SPS]
    if len(sequence_sets) != 1:
        raise NotSeekableError(f"it has {len(sequence_sets)} sequence parameter sets")
    length_bytes = (setup[21] & 3) + 1
    # With sub-layers, frames that their own layer does not refer to may be referred to by the layers above it.
    has_sub_layers = bool(sequence_sets[0][2] >> 1 & 7)

    def starts_anew(packet: bytes) -> Hashable | None:
        kinds = _kinds(packet, length_bytes, _HEVC_KIND, _HEVC_PARAMETER_SETS, setup)
        return None if kinds.isdisjoint(_HEVC_RANDOM_ACCESS) else True

    return PacketRule(starts_anew, can_skip_unreferenced=not has_sub_layers)


def _hevc_setup_units(setup: bytes) -> Iterator[bytes]:
    """The NAL units in the arrays at the end of the setup data."""
    position = 23
    for _ in range(setup[22]):
        num_units = int.from_bytes(setup[position + 1 : position + 3], "big")
        position += 3
        for _ in range(num_units):
            end = position + 2 + int.from_bytes(setup[position : position + 2], "big")
            yield setup[position + 2 : end]
            position = end


def _kinds(
    packet: bytes, length_bytes: int, kind_of: Sequence[int], parameter_sets: Sequence[int], setup: bytes
) -> set[int]:
    """Kinds of the NAL units in a packet, whose parameter sets must stand in the setup data as well."""
    kinds = set()
    position, num_bytes = 0, len(packet)
    while position < num_bytes:
        start = position + length_bytes
        position = start + int.from_bytes(packet[position:start], "big")
        if position > num_bytes or position == start:
            raise NotSeekableError("a packet is damaged")
        kind = kind_of[packet[start]]
        kinds.add(kind)
        if kind in parameter_sets and packet[start:position] not in setup:
            raise NotSeekableError("its parameter sets change")
    return kinds


# VP8, VP9, AV1 ------------------------------------------------------------------------------------------------------


def _vp8(_: bytes) -> PacketRule:
    """RFC 6386, section 9.1."""

    def starts_anew(packet: bytes) -> Hashable | None:
        if not packet[0] >> 4 & 1:
            raise NotSeekableError("it has packets that are not shown")
        return None if packet[0] & 1 else packet[6:10]  # width and height

    return PacketRule(starts_anew)


_VP9_SYNC_CODE = b"\x49\x83\x42"


def _vp9(_: bytes) -> PacketRule:
    """VP9 bitstream specification, sections 6.2 and annex B."""

    def starts_anew(packet: bytes) -> Hashable | None:
        frames = _vp9_frames(packet)
        if any(frame[0] >> 6 != 2 for frame in frames):
            raise NotSeekableError("a packet is damaged")
        is_repeat = [bool(frame[0] & 0b1000) for frame in frames]  # show_existing_frame
        if sum(repeat or bool(frame[0] & 0b10) for frame, repeat in zip(frames, is_repeat, strict=True)) != 1:
            raise NotSeekableError("it has packets that do not show one frame")
        return None if is_repeat[0] or frames[0][0] & 0b100 else _vp9_size(frames[0])

    return PacketRule(starts_anew)


def _vp9_frames(packet: bytes) -> list[bytes]:
    """The frames in a packet, of which an index at its end tells where there are several."""
    marker = packet[-1]
    num_frames, size_bytes = (marker & 7) + 1, (marker >> 3 & 3) + 1
    start = len(packet) - 2 - num_frames * size_bytes
    if marker >> 5 != 0b110 or start < 0 or packet[start] != marker:
        return [packet]
    frames, position = [], 0
    for number in range(num_frames):
        field = start + 1 + number * size_bytes
        end = position + int.from_bytes(packet[field : field + size_bytes], "little")
        frames.append(packet[position:end])
        position = end
    if position > start or not all(frames):
        raise NotSeekableError("a packet is damaged")
    return frames


def _vp9_size(key_frame: bytes) -> Hashable:
    """Profile, colour and size: the bits behind the sync code up to the end of the height."""
    profile = key_frame[0] >> 5 & 1 | key_frame[0] >> 3 & 2
    if profile == 3 or key_frame[1:4] != _VP9_SYNC_CODE:
        raise NotSeekableError("a key frame is damaged or of VP9 profile 3")
    num_bits = (4, 7, 5)[profile] + 32
    return profile, int.from_bytes(key_frame[4:10], "big") >> 48 - num_bits


_AV1_SEQUENCE_HEADER, _AV1_FRAME_HEADERS = 1, (3, 6)


def _av1(_: bytes) -> PacketRule:
    """AV1 bitstream specification, sections 5.3 to 5.9. A packet is a temporal unit, which shows one frame.

    Decoding starts anew at a key frame behind a sequence header, which need not be the one of the setup data.
    """

    def starts_anew(packet: bytes) -> Hashable | None:
        sequence_header = None
        for kind, content in _av1_units(packet):
            if kind == _AV1_SEQUENCE_HEADER:
                sequence_header = content
            elif kind in _AV1_FRAME_HEADERS:
                is_shown_key_frame = content[0] >> 4 == 0b0001  # not a repeat, of type 0, shown
                return sequence_header if is_shown_key_frame else None
        return None

    return PacketRule(starts_anew)


def _av1_units(packet: bytes) -> Iterator[tuple[int, bytes]]:
    """Kind and content of the open bitstream units in a packet."""
    position = 0
    while position < len(packet):
        header = packet[position]
        position += 2 if header & 0b100 else 1
        size = len(packet) - position
        if header & 0b10:
            size, position = _leb128(packet, position)
        if position + size > len(packet) or header >> 7:
            raise NotSeekableError("a packet is damaged")
        yield header >> 3 & 15, packet[position : position + size]
        position += size


def _leb128(packet: bytes, position: int) -> tuple[int, int]:
    """A number of 7 bits a byte, lowest first, and the position behind it."""
    value = 0
    for shift in range(0, 56, 7):
        byte = packet[position]
        position += 1
        value |= (byte & 127) << shift
        if not byte & 128:
            return value, position
    raise NotSeekableError("a packet is damaged")


# MPEG-4 part 2: units between start codes ---------------------------------------------------------------------------

_START_CODE = b"\0\0\1"
_MPEG4_VOL, _MPEG4_VOP = range(0x20, 0x30), 0xB6
# The header alone of a frame that is not coded: with up to 8 seconds since the last one.
_MPEG4_NOT_CODED_BYTES = 12


def _mpeg4(setup: bytes) -> PacketRule:
    """ISO/IEC 14496-2, section 6.2."""

    def starts_anew(packet: bytes) -> Hashable | None:
        frames = []
        for unit in _start_code_units(packet):
            if unit[3] == _MPEG4_VOP:
                frames.append(unit)
            elif unit[3] in _MPEG4_VOL and unit.rstrip(b"\0") not in setup:
                raise NotSeekableError("its parameter sets change")
        if len(frames) != 1 or len(frames[0]) < _MPEG4_NOT_CODED_BYTES:
            raise NotSeekableError("it has packets that do not hold one coded frame")
        return None if frames[0][4] >> 6 else True  # coding type 0: predicted from no other frame

    # Version and inverse transform of XviD and others stand in the first packet.
    return PacketRule(starts_anew, can_skip_unreferenced=True, heeds_signature=lambda first_packet: True)


def _start_code_units(packet: bytes) -> Iterator[bytes]:
    start = packet.find(_START_CODE)
    while 0 <= start < len(packet) - 3:
        end = packet.find(_START_CODE, start + 3)
        yield packet[start : end if end >= 0 else len(packet)]
        start = end


PACKET_RULES: dict[str, Callable[[bytes], PacketRule]] = {
    "h264": _h264,
    "hevc": _hevc,
    "vp8": _vp8,
    "vp9": _vp9,
    "av1": _av1,
    "mpeg4": _mpeg4,
}
"""By FFmpeg's name of the codec: what makes the rule from the setup data."""
