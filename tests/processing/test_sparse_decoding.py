"""Sparse frames by the packet index equal those of a decoding from the start, and the index refuses what it must."""

import random
from collections.abc import Callable, Sequence
from contextlib import closing
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from rendered_clips import drop_packets, join_clips, read_indices, render_clip
from torch.utils.data import DataLoader, Dataset

from kinetext.processing import packet_index, sparse_decoding, video_decoding
from kinetext.processing.coded_packets import PACKET_RULES, NotSeekableError
from kinetext.processing.packet_index import PacketIndex, index_packets
from kinetext.processing.pyav_reader import PyAVReader
from kinetext.processing.sparse_decoding import load_sparsely
from kinetext.processing.video_decoding import VideoDecodeError, VideoFrames, load_video
from kinetext.processing.video_sources import resolve_source

NUM_FRAMES = 40
FAST_VP9 = {"deadline": "realtime", "cpu-used": "8"}
OPEN_GROUPS = {"x264-params": "open-gop=1:keyint=12:min-keyint=12:bframes=3:scenecut=0"}
X265 = "log-level=none:keyint=12:min-keyint=12:bframes=3:scenecut=0"


STEADY = {"bf": "3", "sc_threshold": "0"}  # no key frames but those asked for


def with_frames(source: object, indices: Sequence[int] | None) -> VideoFrames:
    """The reference: every frame from the first one on is decoded and counted."""
    content = resolve_source(source)
    with closing(PyAVReader(content)) as reader:
        return video_decoding._load_in_order(reader, content, indices)


def by_index(source: object, indices: Sequence[int]) -> VideoFrames:
    """The way that is tested, which raises where `load_video` would fall back to the reference."""
    content = resolve_source(source)
    with closing(PyAVReader(content)) as reader:
        return load_sparsely(reader, content, indices)


def patterns(num_frames: int) -> list[list[int]]:
    """Wanted frames: first, last, all, backwards, repeated, and random ones in random order."""
    draw = random.Random(num_frames)
    everything = list(range(num_frames))
    subsets = [[draw.randrange(num_frames) for _ in range(draw.randint(1, 8))] for _ in range(8)]
    return [[0], [num_frames - 1], everything, everything[::-1], [num_frames // 2] * 3, *subsets]


def require_exact(source: object, whole: VideoFrames) -> None:
    for wanted in patterns(len(whole.frames)):
        sparse = by_index(source, wanted)
        assert torch.equal(sparse.frames, whole.frames[wanted]), wanted
        assert torch.equal(sparse.timestamps, whole.timestamps[wanted]), wanted
        assert (sparse.indices, sparse.fps, sparse.rotation) == (wanted, whole.fps, whole.rotation)


def render_odd_size(path: Path, *, size: tuple[int, int], pixel_format: str, codec: str = "libx264") -> Path:
    """A clip of moving noise of any size and pixel format."""
    texture = np.random.default_rng(0).integers(0, 256, (size[1] + NUM_FRAMES, size[0] + NUM_FRAMES, 3), dtype=np.uint8)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25, options={"bf": "3"})
        (stream.width, stream.height), stream.pix_fmt, stream.gop_size = size, pixel_format, 12
        for index in range(NUM_FRAMES):
            moved = np.ascontiguousarray(texture[index : index + size[1], index : index + size[0]])
            container.mux(stream.encode(av.VideoFrame.from_ndarray(moved, format="rgb24")))
        container.mux(stream.encode())
    return path


def shift_times(path: Path, clip: Path, shift: int) -> Path:
    """Writes a clip whose frames come `shift` time units later, which may be before zero."""
    with av.open(str(clip)) as source, av.open(str(path), "w") as container:
        stream = container.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(source.streams.video[0]):
            if packet.size:
                packet.pts, packet.dts = packet.pts + shift, packet.dts + shift
                packet.stream = stream
                container.mux(packet)
    return path


# name: (file name, how it is rendered, number of key frames that decoding can start from)
EXACT = {
    "h264 gop 1": ("a.mp4", {"gop": 1}, 40),
    "h264 gop 12": ("a.mp4", {"gop": 12, "codec_options": STEADY}, 4),
    "h264 gop 250": ("a.mp4", {"gop": 250, "codec_options": STEADY}, 1),
    "h264 gop 12, more B-frames": (
        "a.mp4",
        {"codec_options": {"x264-params": "bframes=8:b-adapt=0:keyint=12:ref=4:scenecut=0"}},
        4,
    ),
    "h264 open groups": ("a.mp4", {"codec_options": OPEN_GROUPS}, 1),
    "h264 slices": ("a.mp4", {"gop": 12, "codec_options": {"x264-params": "slices=4:scenecut=0"}}, 4),
    "h264 repeated headers": ("a.mp4", {"gop": 12, "codec_options": {"x264-params": "repeat-headers=1:scenecut=0"}}, 4),
    "h264 gradual refresh": ("a.mp4", {"codec_options": {"x264-params": "intra-refresh=1:keyint=12:scenecut=0"}}, 1),
    "h264 fragments": (
        "a.mp4",
        {"gop": 12, "codec_options": STEADY, "container_options": {"movflags": "frag_keyframe+empty_moov"}},
        4,
    ),
    "h264 in mkv": ("a.mkv", {"gop": 12, "codec_options": STEADY}, 4),
    "hevc closed groups": ("a.mp4", {"codec": "libx265", "codec_options": {"x265-params": f"{X265}:open-gop=0"}}, 4),
    "hevc open groups": ("a.mp4", {"codec": "libx265", "codec_options": {"x265-params": f"{X265}:open-gop=1"}}, 3),
    "hevc sub-layers": (
        "a.mp4",
        {"codec": "libx265", "codec_options": {"x265-params": f"{X265}:open-gop=0:temporal-layers=3"}},
        4,
    ),
    "hevc in mkv": ("a.mkv", {"codec": "libx265", "codec_options": {"x265-params": f"{X265}:open-gop=0"}}, 4),
    "vp9": ("a.webm", {"codec": "libvpx-vp9", "gop": 12, "codec_options": FAST_VP9}, 4),
    "vp9, hidden frames": (
        "a.webm",
        {
            "codec": "libvpx-vp9",
            "gop": 12,
            "codec_options": {"cpu-used": "8", "auto-alt-ref": "1", "lag-in-frames": "8"},
        },
        4,
    ),
    "vp8": ("a.webm", {"codec": "libvpx", "gop": 12, "codec_options": FAST_VP9}, 4),
    "av1": ("a.mp4", {"codec": "libsvtav1", "gop": 12, "codec_options": {"preset": "12"}}, 4),
    "mpeg4 in mp4": ("a.mp4", {"codec": "mpeg4", "gop": 12}, 4),
    "mpeg4 in mp4, B-frames": ("a.mp4", {"codec": "mpeg4", "gop": 12, "codec_options": {"bf": "2"}}, 1),
    "variable rate": (
        "a.mp4",
        {"gop": 12, "codec_options": STEADY, "timestamps": [index + index // 3 * 2 for index in range(NUM_FRAMES)]},
        4,
    ),
    "late start": ("a.mp4", {"gop": 12, "codec_options": STEADY, "timestamps": range(50, 50 + NUM_FRAMES)}, 4),
    "turned": ("a.mp4", {"gop": 12, "codec_options": STEADY, "rotation": 270}, 4),
    "one frame": ("a.mp4", {"num_frames": 1}, 1),
    "two frames": ("a.mp4", {"num_frames": 2, "codec_options": STEADY}, 1),
}


@pytest.mark.parametrize("kind", EXACT)
def test_sparse_frames_equal_those_of_a_decoding_from_the_start(kind: str, tmp_path: Path) -> None:
    file_name, options, num_keyframes = EXACT[kind]
    path = render_clip(tmp_path / file_name, **{"num_frames": NUM_FRAMES, **options})
    whole = with_frames(path, None)

    index = index_packets(path)

    assert index.refusal is None
    assert len(index.keyframes) == num_keyframes
    assert index.timestamps.tolist() == whole.timestamps.tolist()
    assert (index.fps, index.rotation) == (whole.fps, whole.rotation)
    require_exact(path, whole)


@pytest.mark.parametrize(
    ("size", "pixel_format"),
    [
        ((97, 55), "yuv444p"),
        ((98, 54), "yuv420p10le"),
        ((16, 16), "yuv420p"),
        ((130, 66), "yuv422p"),
        ((2, 2), "yuv420p"),
    ],
)
def test_odd_sizes_and_pixel_formats_are_exact(size: tuple[int, int], pixel_format: str, tmp_path: Path) -> None:
    path = render_odd_size(tmp_path / "a.mp4", size=size, pixel_format=pixel_format)

    require_exact(path, with_frames(path, None))


@pytest.mark.parametrize("shift", [-3000, -512, 700])
@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_times_before_zero_and_edit_lists_give_the_frames_of_the_reference(
    shift: int, suffix: str, tmp_path: Path
) -> None:
    clip = render_clip(tmp_path / "clip.mp4", NUM_FRAMES, gop=12, codec_options={"bf": "3"})
    path = shift_times(tmp_path / f"shifted.{suffix}", clip, shift)
    whole = with_frames(path, None)

    for wanted in patterns(len(whole.frames)):
        video = load_video(path, indices=lambda total_frames, wanted=wanted: wanted)
        assert torch.equal(video.frames, whole.frames[wanted])
        assert torch.equal(video.timestamps, whole.timestamps[wanted])
        assert video.total_frames == len(whole.frames)


def real_files(shared_dir: Path) -> list[Path]:
    folders = ["odd", "samples", "weizmann/walk"]
    return [path for folder in folders for path in sorted((shared_dir / "data" / folder).iterdir())[:25]]


def test_real_files_give_the_frames_or_the_error_of_the_reference(shared_dir: Path) -> None:
    seekable = set()
    for path in real_files(shared_dir):
        try:
            whole = with_frames(path, None)
        except VideoDecodeError as error:
            with pytest.raises(VideoDecodeError) as caught:
                load_video(path, indices=lambda total_frames: [total_frames - 1])
            assert str(caught.value) == str(error)
            continue
        num_frames = len(whole.frames)
        for wanted in (
            [num_frames - 1, 0],
            [num_frames // 3] * 2,
            sorted(random.Random(0).choices(range(num_frames), k=4)),
        ):
            for video in (
                load_video(path, indices=wanted),
                load_video(path, indices=lambda total, wanted=wanted: wanted),
            ):
                assert torch.equal(video.frames, whole.frames[wanted])
                assert torch.equal(video.timestamps, whole.timestamps[wanted])
        if index_packets(path).refusal is None:
            seekable.add(path.name)
            for wanted in patterns(num_frames)[5:]:
                assert torch.equal(by_index(path, wanted).frames, whole.frames[wanted])
    assert {
        "SOX5yA1l24A.mp4",
        "ssv2_166766.mp4",
        "h265_video.mp4",
        "av1_video.mkv",
        "goldeneye-vfr-drop3.mp4",
    } <= seekable
    assert not {name for name in seekable if name.endswith((".avi", ".gif", ".flv"))}


# ------------------------------------------------------------------------------------------------ what is refused


@pytest.mark.parametrize(
    ("file_name", "options", "reason"),
    [
        ("a.avi", {"codec": "mpeg4", "codec_options": {"bf": "2"}}, "container is avi"),
        ("a.avi", {"codec": "mpeg4"}, "container is avi"),
        ("a.ts", {}, "container is mpegts"),
        ("a.mkv", {"codec": "mpeg2video"}, "codec is mpeg2video"),
        ("a.mp4", {"codec_options": {"x264-params": "tff=1"}}, "interlaced"),
    ],
)
def test_files_that_packets_do_not_prove_are_refused_and_decoded_from_the_start(
    file_name: str, options: dict, reason: str, tmp_path: Path
) -> None:
    path = render_clip(tmp_path / file_name, NUM_FRAMES, gop=12, **options)

    index = index_packets(path)

    assert reason in str(index.refusal)
    assert len(index.timestamps) == 0
    assert index.keyframe_distance is None
    assert read_indices(load_video(path, indices=[33, 5]).frames) == [33, 5]


def test_real_xvid_is_refused_by_the_index(shared_dir: Path) -> None:
    for name in ("RATRACE_wave_f_nm_np1_fr_goo_37.avi", "v_SoccerJuggling_g23_c01.avi"):
        assert "container is avi" in str(index_packets(shared_dir / "data/samples" / name).refusal)


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_xvid_in_another_container_is_refused_or_exact(suffix: str, shared_dir: Path, tmp_path: Path) -> None:
    """The frames of packed B-frames do not match their packets wherever they are put."""
    path = tmp_path / f"a.{suffix}"
    clip = shared_dir / "data/samples/RATRACE_wave_f_nm_np1_fr_goo_37.avi"
    with av.open(str(clip)) as source, av.open(str(path), "w") as container:
        stream = container.add_stream_from_template(source.streams.video[0])
        stream.codec_context.codec_tag = "mp4v" if suffix == "mp4" else "FMP4"
        for position, packet in enumerate(source.demux(source.streams.video[0])):
            if packet.size:
                packet.pts = packet.dts = position
                packet.time_base = Fraction(1, 30)
                packet.stream = stream
                container.mux(packet)

    assert "do not hold one coded frame" in str(index_packets(path).refusal)
    whole = with_frames(path, None)
    assert torch.equal(load_video(path, indices=[50, 20]).frames, whole.frames[[50, 20]])


@pytest.mark.parametrize(
    ("codec", "suffix"), [("libx264", ".mkv"), ("libx264", ".mp4"), ("mpeg4", ".mkv"), ("mpeg4", ".mp4")]
)
def test_times_that_were_guessed_when_frames_were_copied_out_of_avi_are_not_believed(
    codec: str, suffix: str, tmp_path: Path
) -> None:
    """They follow the order in the file, while the frames are reordered."""
    b_frames = {**STEADY, **({"x264-params": "b-adapt=0"} if codec == "libx264" else {})}
    clip = render_clip(tmp_path / "clip.mp4", codec=codec, num_frames=NUM_FRAMES, gop=10, codec_options=b_frames)
    assert index_packets(clip).refusal is None
    copied = in_file_order(tmp_path / f"copied{suffix}", clip)
    refusal = index_packets(copied).refusal
    assert refusal is not None and "its times are in file order" in refusal
    whole = load_video(copied)
    for wanted in [[index] for index in range(NUM_FRAMES)] + patterns(NUM_FRAMES):
        for indices in (wanted, lambda _, wanted=wanted: wanted):
            sparse = load_video(copied, indices=indices)
            assert torch.equal(sparse.frames, whole.frames[wanted])
            assert torch.equal(sparse.timestamps, whole.timestamps[wanted])


def in_file_order(path: Path, clip: Path) -> Path:
    """A copy of a clip in which each packet is shown when it is decoded."""
    with av.open(str(clip)) as source, av.open(str(path), "w") as container:
        stream = container.add_stream_from_template(source.streams.video[0])
        packets = [packet for packet in source.demux(source.streams.video[0]) if packet.size]
        for packet, time in zip(packets, sorted(packet.pts for packet in packets), strict=True):
            packet.pts = packet.dts = time
            packet.stream = stream
            container.mux(packet)
    return path


def test_a_file_that_is_replaced_while_it_is_read_is_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Threads open it anew: their packets are those of the file before."""
    clip, other = (
        render_clip(tmp_path / name, num_frames=NUM_FRAMES, gop=10, codec_options={"bf": "0", "x264-params": search})
        for name, search in (("clip.mp4", "me=dia:subme=1"), ("other.mp4", "me=umh:subme=7"))
    )
    expected = load_video(other).frames[[1, 31]]
    monkeypatch.setattr(sparse_decoding, "THREADED_PIXELS", 1)
    monkeypatch.setattr(sparse_decoding, "_num_threads", lambda *arguments: 2)
    shares = sparse_decoding._shares

    def replace_then_share(*arguments: object) -> object:
        if other.exists():
            other.replace(clip)
        return shares(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(sparse_decoding, "_shares", replace_then_share)
    assert torch.equal(load_video(clip, indices=lambda _: [1, 31]).frames, expected)


def test_frames_that_change_size_are_refused(tmp_path: Path) -> None:
    for suffix, options, reason in (
        ("mp4", {"codec_options": {"bf": "0", "x264-params": "repeat-headers=1"}}, "parameter sets change"),
        ("webm", {"codec": "libvpx-vp9", "codec_options": FAST_VP9}, "frame size changes"),
        ("webm", {"codec": "libvpx", "codec_options": FAST_VP9}, "frame size changes"),
    ):
        wide = render_clip(tmp_path / f"wide.{suffix}", 12, **options)
        tall = render_clip(tmp_path / f"tall.{suffix}", 12, rotation=90, **options)
        joined = join_clips(tmp_path / f"joined.{suffix}", wide, tall)

        assert reason in str(index_packets(joined).refusal)
        with pytest.raises(VideoDecodeError, match="frame size changes from 160x96 to 96x160"):
            load_video(joined, indices=[23])


@pytest.mark.parametrize(
    ("suffix", "reason"), [("mp4", "is not meant to be shown"), ("mkv", "does not start with a key")]
)
def test_a_clip_cut_out_between_key_frames_is_refused(suffix: str, reason: str, tmp_path: Path) -> None:
    clip = render_clip(tmp_path / "whole.mp4", 60, codec_options=OPEN_GROUPS)
    cut = drop_packets(tmp_path / f"cut.{suffix}", clip, 5)

    assert reason in str(index_packets(cut).refusal)
    whole = with_frames(cut, None)
    assert torch.equal(load_video(cut, indices=[20, 3]).frames, whole.frames[[20, 3]])


CUTTABLE = {
    "a.mp4": {"container_options": {"movflags": "faststart"}},
    "b.mp4": {"container_options": {"movflags": "frag_keyframe+empty_moov"}, "gop": 10},
    "a.mkv": {},
    "a.webm": {"codec": "libvpx-vp9", "codec_options": FAST_VP9},
}


@pytest.mark.parametrize("file_name", CUTTABLE)
def test_a_file_cut_off_anywhere_gives_the_frames_or_the_error_of_the_reference(file_name: str, tmp_path: Path) -> None:
    data = render_clip(tmp_path / file_name, NUM_FRAMES, **CUTTABLE[file_name]).read_bytes()
    for percent in range(5, 100, 6):
        cut = data[: len(data) * percent // 100]
        for wanted in ([0, 3], [30, 4], [39]):
            assert outcome(lambda: load_video(cut, indices=wanted)) == outcome(lambda: with_frames(cut, wanted))  # noqa: B023


def outcome(load: Callable[[], VideoFrames]) -> object:
    """Frames as bytes, or the error."""
    try:
        return load().frames.numpy().tobytes()
    except (VideoDecodeError, IndexError) as error:
        return type(error), str(error)


def test_a_decoder_that_answers_with_other_frames_is_not_believed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With key frames where there are none, frames are missing or displaced: seeking says so, `load_video` is right."""
    path = render_clip(tmp_path / "a.mp4", NUM_FRAMES, gop=40, codec_options={"bf": "3"})
    honest = packet_index._keyframes
    monkeypatch.setattr(packet_index, "_keyframes", lambda *arguments: (*honest(*arguments), 17, 29))

    with pytest.raises((NotSeekableError, VideoDecodeError)):
        by_index(path, [31, 19])
    assert read_indices(load_video(path, indices=[31, 19]).frames) == [31, 19]


@pytest.mark.parametrize(
    ("codec", "setup", "packet"),
    [
        ("vp8", b"", bytes([0b0000_0001])),  # not shown
        ("vp9", b"", bytes([0b1000_0000])),  # not shown
        ("vp9", b"", bytes([0b1000_0010, 0b1000_0010, 0b1100_0001, 1, 1, 0b1100_0001])),  # shows two frames
        ("vp9", b"", bytes([0b0000_0010])),  # no frame marker
        ("vp9", b"", bytes([0b1000_0010, 0, 0, 0])),  # a key frame without sync code
        ("h264", b"\1d\0\x1f\xff\xe1\0", b"\0\0\0\x09\x65"),  # a unit longer than its packet
        ("h264", b"\1d\0\x1f\xff\xe1\0", b"\0\0\0\2\x67\1"),  # a new sequence parameter set
        ("h264", b"\1d\0\x1f\xff\xe2\0", b""),  # two of them
        ("h264", b"", b""),  # start codes instead of lengths
        ("hevc", b"", b""),
        ("hevc", b"\1" + bytes(22), b""),  # no sequence parameter set
        ("av1", b"", bytes([0b0011_0010, 9, 0])),  # a unit longer than its packet
        ("mpeg4", b"", b"\0\0\1\xb6\x50"),  # a frame that is not coded
        ("mpeg4", b"", b"\0\0\1\x20" + bytes(20)),  # a new header
        ("mpeg4", b"", (b"\0\0\1\xb6" + b"\x50" * 20) * 2),  # packed B-frames
    ],
)
def test_packets_that_break_what_seeking_relies_on_are_refused(codec: str, setup: bytes, packet: bytes) -> None:
    with pytest.raises(NotSeekableError):
        PACKET_RULES[codec](setup).starts_anew(packet)


def test_unreferenced_frames_are_left_out_only_where_they_are_known(tmp_path: Path) -> None:
    can_skip = {}
    for kind in ("h264 gop 12", "hevc closed groups", "hevc sub-layers", "vp9"):
        file_name, options, _ = EXACT[kind]
        path = render_clip(tmp_path / file_name, 3, **options)
        with closing(PyAVReader(resolve_source(path))) as reader:
            can_skip[kind] = packet_index.packet_rule(reader).can_skip_unreferenced
    assert can_skip == {"h264 gop 12": True, "hevc closed groups": True, "hevc sub-layers": False, "vp9": False}


def test_a_signature_is_heeded_where_ffmpeg_acts_on_it() -> None:
    setup = b"\1d\0\x1f\xff\xe1\0"
    heeds = PACKET_RULES["h264"](setup).heeds_signature
    assert [heeds(packet) for packet in (b"", b"x264 - core 165 r3", b"x264 - core 148 r2")] == [False, False, True]
    assert PACKET_RULES["mpeg4"](b"").heeds_signature(b"")
    assert not PACKET_RULES["vp9"](b"").heeds_signature(b"")


# ------------------------------------------------------------------------------------------------- how it is done


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return render_clip(tmp_path_factory.mktemp("clip") / "a.mp4", 60, gop=12, codec_options=STEADY)


def test_only_the_groups_that_hold_wanted_frames_are_decoded(clip: Path) -> None:
    """Whatever stands in the other groups is not looked at: here their bytes are zero, but for the lengths."""
    index = index_packets(clip)
    assert index.keyframes == (0, 12, 24, 36, 48)
    assert index.keyframe_distance == 12
    wanted = [29, 26]
    expected = with_frames(clip, wanted).frames
    data = bytearray(clip.read_bytes())
    with av.open(str(clip)) as container:
        packets = [packet for packet in container.demux(container.streams.video[0]) if packet.size]
    for packet in [*packets[1:24], *packets[36:]]:
        data[packet.pos + 8 : packet.pos + packet.size] = bytes(packet.size - 8)  # keeps a slice's length and kind

    sparse = load_video(bytes(data), indices=wanted)

    assert torch.equal(sparse.frames, expected)


def test_every_source_is_sought_in_alike(clip: Path) -> None:
    expected = with_frames(clip, [50, 7])
    for source in (clip, clip.read_bytes(), {"bytes": clip.read_bytes()}):
        assert torch.equal(by_index(source, [50, 7]).frames, expected.frames)
    with clip.open("rb") as file:
        assert torch.equal(by_index(file, [50, 7]).frames, expected.frames)


def test_the_length_given_to_a_function_is_that_of_the_reference(clip: Path) -> None:
    video = load_video(clip, indices=lambda total_frames: [total_frames - 1])

    assert video.total_frames == 60
    assert read_indices(video.frames) == [59]
    assert load_video(clip, indices=[59, 3]).total_frames is None


@pytest.mark.parametrize(
    "kind", ["h264 gop 12", "h264 gop 250", "hevc closed groups", "vp9", "av1", "mpeg4 in mp4, B-frames"]
)
def test_several_threads_give_the_same_pixels(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file_name, options, _ = EXACT[kind]
    path = render_clip(tmp_path / file_name, NUM_FRAMES, **options)
    whole = with_frames(path, None)
    monkeypatch.setattr(sparse_decoding, "_num_threads", lambda index, groups: 3)

    require_exact(path, whole)


def test_packets_too_many_to_hold_are_read_again(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = with_frames(clip, None)
    monkeypatch.setattr(packet_index, "MAX_HELD_PACKET_BYTES", 1000)

    require_exact(clip, expected)


class _Threads(Dataset):
    """Threads that decode a clip."""

    def __init__(self, clip: Path) -> None:
        self.index = index_packets(clip)

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> int:
        return sparse_decoding._num_threads(self.index, sparse_decoding._plan(self.index, [59]))


def test_loader_workers_and_small_groups_use_one_thread(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert _Threads(clip)[0] == 1
    monkeypatch.setattr(sparse_decoding, "THREADED_PIXELS", 1)
    monkeypatch.setattr(sparse_decoding.os, "sched_getaffinity", lambda process: set(range(5)), raising=False)
    assert _Threads(clip)[0] == 5
    assert list(DataLoader(_Threads(clip), batch_size=None, num_workers=1)) == [1]


def test_hundreds_of_decodings_need_no_more_memory(clip: Path) -> None:
    def resident() -> int:
        return int(Path("/proc/self/statm").read_text("ascii").split()[1]) * 4096

    if not Path("/proc/self/statm").exists():
        pytest.skip("memory is read from /proc")
    for _ in range(50):
        load_video(clip, indices=[5, 30, 55])
    before = resident()

    for _ in range(300):
        load_video(clip, indices=[5, 30, 55])

    assert resident() - before < 8 * 2**20


def test_an_index_says_what_demuxing_tells(clip: Path) -> None:
    index = index_packets(clip)

    assert isinstance(index, PacketIndex)
    assert (index.codec, index.pixel_format, index.width, index.height, index.rotation) == (
        "h264",
        "yuv420p",
        160,
        96,
        0,
    )
    assert index.container.startswith("mov,mp4")
    assert index.fps == 25.0
    np.testing.assert_array_equal(index.timestamps, np.arange(60) / 25)
    with pytest.raises(VideoDecodeError, match="Invalid data"):
        index_packets(b"not a video")
