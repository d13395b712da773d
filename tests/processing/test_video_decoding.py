"""Frames, order, times and errors of `load_video`, with both decoders, on rendered and on awkward real files."""

import http.server
import io
import math
import pickle
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from rendered_clips import HEIGHT, WIDTH, drop_packets, join_clips, read_indices, render_clip
from torch.utils.data import DataLoader, Dataset

from kinetext.processing import (
    decord_decoding,
    matroska,
    video_decoders,
    video_decoding,
    video_frames,
    video_sources,
)
from kinetext.processing.video_decoders import decoder_fault
from kinetext.processing.video_decoding import (
    DECODERS,
    VideoDecodeError,
    VideoFrames,
    available_decoders,
    load_video,
)

LOADED = [name for name in DECODERS if decoder_fault(name) is None]

NUM_FRAMES = 40
WANTED = {
    "sorted": [0, 7, 20, 39],
    "unsorted": [31, 2, 39, 0, 18],
    "repeated": [5, 5, 30, 5, 12, 12],
    "last only": [39],
}
BOTH = ("decord", "torchcodec")
FAST_VP9 = {"deadline": "realtime", "cpu-used": "8"}
VARIABLE_TIMES = [index + index // 3 * 2 for index in range(NUM_FRAMES)]

# name: (file name, how it is rendered, the decoders beside PyAV that decode it exactly)
KINDS = {
    "h264 gop 1": ("a.mp4", {"gop": 1}, BOTH),
    "h264 gop 30, B-frames": ("a.mp4", {"gop": 30, "codec_options": {"bf": "3"}}, BOTH),
    "h264 gop 250, B-frames": ("a.mp4", {"gop": 250, "codec_options": {"bf": "3"}}, BOTH),
    "h264 in mkv": ("a.mkv", {"codec_options": {"bf": "3"}}, BOTH),
    "hevc": ("a.mp4", {"codec": "libx265", "codec_options": {"x265-params": "log-level=none:open-gop=1"}}, BOTH),
    "vp9": ("a.webm", {"codec": "libvpx-vp9", "codec_options": FAST_VP9}, BOTH),
    "mpeg4 avi": ("a.avi", {"codec": "mpeg4"}, ("decord",)),
    "mpeg4 avi, B-frames": ("a.avi", {"codec": "mpeg4", "codec_options": {"bf": "2"}}, ()),
    "h264 avi, B-frames": ("a.avi", {"codec_options": {"bf": "3"}}, ()),
    "variable rate": ("a.mp4", {"timestamps": VARIABLE_TIMES}, BOTH),
    "late start": ("a.mp4", {"timestamps": range(50, 50 + NUM_FRAMES)}, BOTH),
    "turned 90": ("a.mp4", {"rotation": 90}, BOTH),
    "turned 180": ("a.mp4", {"rotation": 180}, BOTH),
    "turned 270": ("a.mp4", {"rotation": 270}, BOTH),
}


@pytest.fixture(scope="session")
def clip_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Path of a clip of `NUM_FRAMES` index pictures, rendered once per kind."""
    paths: dict[str, Path] = {}

    def render(kind: str) -> Path:
        if kind not in paths:
            file_name, options, _ = KINDS[kind]
            paths[kind] = render_clip(tmp_path_factory.mktemp("clip") / file_name, NUM_FRAMES, **options)
        return paths[kind]

    return render


@pytest.fixture(scope="session")
def clip(clip_of: Callable[[str], Path]) -> Path:
    return clip_of("h264 gop 30, B-frames")


def needing(decoder: str, *values: object) -> object:
    """Parameters of a test of a decoder, which is skipped where it does not load."""
    fault = decoder_fault(decoder)
    return pytest.param(
        *values, marks=pytest.mark.skipif(fault is not None, reason=f"{decoder} does not load: {fault}")
    )


EACH_DECODER = [needing(decoder, decoder) for decoder in DECODERS]


def decodings() -> list[object]:
    """Every (kind, decoder) that must give frames."""
    return [needing(decoder, kind, decoder) for kind in KINDS for decoder in (DECODERS[0], *KINDS[kind][2])]


def require_equal(one: VideoFrames, other: VideoFrames) -> None:
    assert torch.equal(one.frames, other.frames)
    assert torch.equal(one.timestamps, other.timestamps)
    assert (one.fps, one.rotation, one.indices, one.total_frames) == (
        other.fps,
        other.rotation,
        other.indices,
        other.total_frames,
    )


# ---------------------------------------------------------------------------------------------- frames and order


@pytest.mark.parametrize(("kind", "decoder"), decodings())
def test_every_frame_comes_in_order_with_its_time(kind: str, decoder: str, clip_of: Callable[[str], Path]) -> None:
    video = load_video(clip_of(kind), decoder=decoder)

    assert video.frames.shape == (NUM_FRAMES, HEIGHT, WIDTH, 3)
    assert video.frames.dtype == torch.uint8
    assert video.frames.is_contiguous()
    assert read_indices(video.frames) == list(range(NUM_FRAMES))
    assert video.indices == list(range(NUM_FRAMES))
    assert video.total_frames == NUM_FRAMES
    assert video.rotation == KINDS[kind][1].get("rotation", 0)
    assert video.timestamps.dtype == torch.float64
    assert video.timestamps.shape == (NUM_FRAMES,)
    assert (video.timestamps.diff() > 0).all()


@pytest.mark.parametrize("wanted", WANTED.values(), ids=WANTED)
@pytest.mark.parametrize(("kind", "decoder"), decodings())
def test_wanted_frames_come_in_the_order_asked_for(
    kind: str, decoder: str, wanted: list[int], clip_of: Callable[[str], Path]
) -> None:
    path = clip_of(kind)

    video = load_video(path, indices=wanted, decoder=decoder)

    assert read_indices(video.frames) == wanted
    assert video.indices == wanted
    assert video.total_frames is None
    whole = load_video(path)
    assert torch.equal(video.frames, whole.frames[wanted])
    assert torch.equal(video.timestamps, whole.timestamps[wanted])
    assert video.fps == whole.fps


@pytest.mark.parametrize("decoder", EACH_DECODER)
def test_a_function_chooses_frames_once_the_length_is_known(decoder: str, clip: Path) -> None:
    lengths = []

    def last_and_first(total_frames: int) -> list[int]:
        lengths.append(total_frames)
        return [total_frames - 1, 0]

    video = load_video(clip, indices=last_and_first, decoder=decoder)

    assert lengths == [NUM_FRAMES]
    assert read_indices(video.frames) == [NUM_FRAMES - 1, 0]
    assert video.total_frames == NUM_FRAMES


@pytest.mark.parametrize(
    "wanted",
    [(3, 1), range(3), np.array([3, 1]), torch.tensor([3, 1]), [np.int64(3), 1]],
    ids=["tuple", "range", "array", "tensor", "numpy int"],
)
def test_any_sequence_of_ints_is_taken(wanted: object, clip: Path) -> None:
    video = load_video(clip, indices=wanted)

    assert read_indices(video.frames) == [int(index) for index in wanted]
    assert all(type(index) is int for index in video.indices)


@pytest.mark.parametrize("kind", ["mpeg4 avi", "mpeg4 avi, B-frames", "h264 avi, B-frames"])
def test_frames_too_many_to_hold_are_fetched_in_a_second_pass(
    kind: str, clip_of: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = [39, 3, 3, 17]
    held = load_video(clip_of(kind), indices=lambda total_frames: wanted)
    readers = []
    reader_class = video_decoding.PyAVReader
    monkeypatch.setattr(
        video_decoding, "PyAVReader", lambda content: readers.append(reader_class(content)) or readers[-1]
    )
    monkeypatch.setattr(video_decoding, "MAX_HELD_BYTES", 10 * WIDTH * HEIGHT)

    fetched = load_video(clip_of(kind).read_bytes(), indices=lambda total_frames: wanted)

    assert len(readers) == 2
    assert read_indices(fetched.frames) == wanted
    require_equal(fetched, held)


@pytest.mark.parametrize(("kind", "wanted"), [("h264 gop 30, B-frames", [*range(7)]), ("mpeg4 avi, B-frames", [6, 2])])
def test_a_plain_list_decodes_no_further_than_its_last_frame(
    kind: str, wanted: list[int], clip_of: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    readers = []
    reader_class = video_decoding.PyAVReader
    monkeypatch.setattr(
        video_decoding, "PyAVReader", lambda content: readers.append(reader_class(content)) or readers[-1]
    )

    load_video(clip_of(kind), indices=wanted)

    (reader,) = readers
    assert 7 <= reader.num_decoded <= 7 + reader.has_displaced_timestamps * video_decoding._READ_AHEAD_FRAMES


# ------------------------------------------------------------------------------------------------- time and rate


@pytest.mark.parametrize("decoder", EACH_DECODER)
def test_times_and_rate_are_those_of_the_file(decoder: str, clip_of: Callable[[str], Path]) -> None:
    steady = load_video(clip_of("h264 gop 1"), decoder=decoder)
    late = load_video(clip_of("late start"), decoder=decoder)
    variable = load_video(clip_of("variable rate"), decoder=decoder)

    torch.testing.assert_close(steady.timestamps, torch.arange(NUM_FRAMES, dtype=torch.float64) / 25)
    torch.testing.assert_close(late.timestamps, torch.arange(50, 50 + NUM_FRAMES, dtype=torch.float64) / 25)
    torch.testing.assert_close(variable.timestamps, torch.tensor(VARIABLE_TIMES, dtype=torch.float64) / 25)
    assert steady.fps == late.fps == 25.0
    assert 14 < variable.fps < 16


@pytest.mark.parametrize(
    ("stamps", "fps", "expected"),
    [
        ([0.0, 0.5, 1.0], 2.0, [0.0, 0.5, 1.0]),
        ([0.1, 0.4, 0.3, 0.6], 10.0, [0.1, 0.3, 0.4, 0.6]),
        ([0.5, None, 1.5], 2.0, [0.5, 1.0, 1.5]),
        ([0.5, 0.5, 1.5], 2.0, [0.5, 1.0, 1.5]),
        ([None, None], 4.0, [0.0, 0.25]),
    ],
    ids=["plain", "swapped", "one missing", "one twice", "none"],
)
def test_times_are_sorted_or_counted_from_the_rate(
    stamps: list[float | None], fps: float, expected: list[float]
) -> None:
    assert video_frames.output_timestamps(stamps, fps) == expected


class _Stream:
    def __init__(self, average_rate: object, guessed_rate: object) -> None:
        self.average_rate, self.guessed_rate = average_rate, guessed_rate


@pytest.mark.parametrize(
    ("stream", "stamps", "expected"),
    [
        (_Stream(30, 25), [0.0, 1.0], 30.0),
        (_Stream(None, 25), [0.0, 1.0], 25.0),
        (_Stream(0, 0), [0.0, 0.5, 1.0], 2.0),
        (_Stream(None, None), [1.0, None, 0.5], 2.0),
        (_Stream(None, None), [0.0], math.nan),
        (_Stream(math.inf, None), [], math.nan),
    ],
)
def test_rate_is_the_average_else_the_guess_else_that_of_the_times_else_nan(
    stream: _Stream, stamps: list[float | None], expected: float
) -> None:
    np.testing.assert_equal(video_frames.frame_rate(stream, stamps), expected)


# -------------------------------------------------------------------------------------------------------- sources


class _PathLike:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __fspath__(self) -> str:
        return str(self.path)


SOURCES = {
    "str": str,
    "Path": lambda path: path,
    "PathLike": _PathLike,
    "file URL": lambda path: path.as_uri(),
    "bytes": lambda path: path.read_bytes(),
    "bytearray": lambda path: bytearray(path.read_bytes()),
    "memoryview": lambda path: memoryview(path.read_bytes()),
    "BytesIO": lambda path: io.BytesIO(path.read_bytes()),
    "mapping with bytes": lambda path: {"bytes": path.read_bytes(), "path": "bare_name.mp4"},
    "mapping with bytes only": lambda path: {"bytes": path.read_bytes()},
    "mapping with path": lambda path: {"bytes": None, "path": str(path)},
}


@pytest.mark.parametrize("decoder", EACH_DECODER)
@pytest.mark.parametrize("make", SOURCES.values(), ids=SOURCES)
def test_every_kind_of_source_gives_the_same_frames(make: Callable[[Path], object], decoder: str, clip: Path) -> None:
    require_equal(load_video(make(clip), decoder=decoder), load_video(clip))


@pytest.mark.parametrize("decoder", EACH_DECODER)
def test_an_open_file_is_read_and_left_open(decoder: str, clip: Path) -> None:
    with clip.open("rb") as file:
        video = load_video(file, indices=[4], decoder=decoder)

        assert not file.closed
        assert read_indices(video.frames) == [4]


@pytest.mark.parametrize("decoder", EACH_DECODER)
@pytest.mark.parametrize("name", ["a:b.mp4", "frame%03d.mp4", "100% – 日本.mp4", "http:example.mp4"])
def test_file_names_are_never_taken_for_protocols_or_patterns(
    name: str, decoder: str, clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / name).write_bytes(clip.read_bytes())
    monkeypatch.chdir(tmp_path)

    assert read_indices(load_video(name, indices=[3], decoder=decoder).frames) == [3]
    assert read_indices(load_video((tmp_path / name).as_uri(), indices=[3], decoder=decoder).frames) == [3]


@pytest.mark.parametrize("source", [3, None, ["a.mp4"], np.zeros(3)], ids=["int", "None", "list", "array"])
def test_a_source_of_another_type_is_refused_with_what_is_accepted(source: object) -> None:
    with pytest.raises(TypeError, match=rf"type {type(source).__name__} .*path.*URL.*bytes.*file object.*mapping"):
        load_video(source)


def test_mappings_and_text_files_without_video_bytes_are_refused(clip: Path) -> None:
    with pytest.raises(TypeError, match=r"needs 'bytes' or 'path', got the keys \['video'\]"):
        load_video({"video": 1})
    with pytest.raises(TypeError, match="'bytes' of a mapping .* type str"):
        load_video({"bytes": "a.mp4"})
    with pytest.raises(TypeError, match=r"gave str, not bytes; open it in binary mode \('rb'\)"):
        load_video(io.StringIO("text"))


@pytest.mark.parametrize("decoder", EACH_DECODER)
def test_faults_of_the_path_are_not_faults_of_the_content(decoder: str, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere.mp4"):
        load_video(tmp_path / "nowhere.mp4", decoder=decoder)
    with pytest.raises(FileNotFoundError, match="nowhere.mp4"):
        load_video((tmp_path / "nowhere.mp4").as_uri(), decoder=decoder)
    with pytest.raises(IsADirectoryError, match="is a directory"):
        load_video(tmp_path, decoder=decoder)
    with pytest.raises(OSError, match="is not a regular file"):
        load_video("/dev/null", decoder=decoder)
    with pytest.raises(ValueError, match=r"names the machine 'elsewhere'; .* file:///"):
        load_video("file://elsewhere/a.mp4", decoder=decoder)


# ----------------------------------------------------------------------------------------------------------- http


class _Handler(http.server.BaseHTTPRequestHandler):
    """Serves the clip, and every way in which a server can fail."""

    body = b""
    released = threading.Event()

    def do_GET(self) -> None:
        if self.path == "/missing.mp4":
            self.send_error(404)
        elif self.path == "/moved.mp4":
            self.send_response(302)
            self.send_header("Location", "/clip.mp4")
            self.end_headers()
        elif self.path == "/silent.mp4":
            self.released.wait(20)
        elif self.path == "/trickle.mp4":
            self._trickle()
        else:
            self._send(len(self.body) + 1000 * (self.path == "/short.mp4"))

    def _send(self, announced: int) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(announced))
        self.end_headers()
        self.wfile.write(self.body)

    def _trickle(self) -> None:
        """A header that never ends: each byte restarts the timeout of the socket."""
        try:
            self.wfile.write(b"HTTP/1.0 200 OK\r\nX: ")
            while not self.released.wait(0.05):
                self.wfile.write(b"x")
        except OSError:
            pass

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def server(clip: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Address of a local server."""
    monkeypatch.setenv("no_proxy", "*")
    _Handler.body = clip.read_bytes()
    _Handler.released.clear()
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        _Handler.released.set()
        server.shutdown()


@pytest.mark.parametrize("decoder", EACH_DECODER)
@pytest.mark.parametrize("page", ["clip.mp4", "moved.mp4"])
def test_a_web_address_gives_the_same_frames(page: str, decoder: str, server: str, clip: Path) -> None:
    require_equal(load_video(f"{server}/{page}", decoder=decoder), load_video(clip))


@pytest.mark.parametrize(("page", "says"), [("missing.mp4", "404"), ("short.mp4", "the connection ended after")])
def test_a_failed_fetch_is_a_connection_error_that_names_the_address(page: str, says: str, server: str) -> None:
    with pytest.raises(ConnectionError, match=rf"{server}/{page} cannot be fetched: .*{says}"):
        load_video(f"{server}/{page}")


def test_a_server_that_is_not_there_is_a_connection_error() -> None:
    with pytest.raises(ConnectionError, match="http://127.0.0.1:9/a.mp4 cannot be fetched"):
        load_video("http://127.0.0.1:9/a.mp4")


def test_a_silent_server_is_given_up(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(video_sources, "SOCKET_TIMEOUT_S", 0.2)
    with pytest.raises(TimeoutError, match=f"{server}/silent.mp4"):
        load_video(f"{server}/silent.mp4")


def test_a_server_that_trickles_is_given_up_at_the_deadline(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(video_sources, "FETCH_DEADLINE_S", 0.5)
    start = time.monotonic()
    with pytest.raises(TimeoutError, match=f"{server}/trickle.mp4 was not fetched within 0.5 s"):
        load_video(f"{server}/trickle.mp4")
    assert time.monotonic() - start < 5


def test_a_download_over_the_limit_is_refused(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(video_sources, "MAX_DOWNLOAD_BYTES", 1000)
    with pytest.raises(OSError, match=f"larger than 1000 bytes.*download it.*{server}/clip.mp4"):
        load_video(f"{server}/clip.mp4")


# --------------------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize("decoder", EACH_DECODER)
@pytest.mark.parametrize(
    ("indices", "error", "says"),
    [
        ([], ValueError, "indices is empty"),
        ([2, -1], IndexError, "frame index -1 is negative"),
        ([1.0], TypeError, "frame index 1.0 is of type float"),
        ([True], TypeError, "frame index True is of type bool"),
        ("12", TypeError, "got str"),
        (5, TypeError, "got int"),
        ([3, 40], IndexError, "frame index 40 is beyond the end of .*, which has 40 frames"),
        (lambda total: [total], IndexError, "frame index 40 is beyond the end of .*, which has 40 frames"),
        (lambda total: [], ValueError, "indices is empty"),
        (lambda total: [-1], IndexError, "frame index -1 is negative"),
    ],
)
def test_wrong_indices_are_named(indices: object, error: type, says: str, decoder: str, clip: Path) -> None:
    with pytest.raises(error, match=says):
        load_video(clip, indices=indices, decoder=decoder)


def test_a_fault_of_the_callers_function_stays_its_own(clip: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        load_video(clip, indices=lambda total_frames: [1 // 0])


def test_an_unknown_decoder_is_refused_with_the_known_ones(clip: Path) -> None:
    with pytest.raises(ValueError, match="decoder='opencv' is unknown; use one of 'pyav', 'decord'"):
        load_video(clip, decoder="opencv")


@pytest.mark.parametrize("decoder", EACH_DECODER)
def test_content_that_is_no_video_names_source_decoder_and_reason(decoder: str, tmp_path: Path) -> None:
    path = tmp_path / "notes.mp4"
    path.write_text("not a video")

    with pytest.raises(VideoDecodeError) as caught:
        load_video(path, decoder=decoder)

    error = caught.value
    assert (error.source, error.decoder) == (str(path), decoder)
    assert "Invalid data found" in error.reason
    assert all(part in str(error) for part in (str(path), repr(decoder), error.reason))


@pytest.mark.parametrize("decoder", EACH_DECODER)
def test_empty_content_is_a_decode_error(decoder: str) -> None:
    with pytest.raises(VideoDecodeError, match="<0 bytes>"):
        load_video(b"", decoder=decoder)


@pytest.mark.parametrize(
    ("kind", "decoder"),
    [needing(name, kind, name) for kind in KINDS for name in DECODERS[1:] if name not in KINDS[kind][2]],
)
def test_decoders_refuse_what_they_do_not_decode_exactly(
    kind: str, decoder: str, clip_of: Callable[[str], Path]
) -> None:
    with pytest.raises(VideoDecodeError, match=r"(exact only for|container is avi).*use decoder='pyav'") as caught:
        load_video(clip_of(kind), decoder=decoder)
    assert caught.value.decoder == decoder


def test_decord_raises_where_it_would_repeat_a_frame(shared_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """XviD with packed B-frames holds 72 frames in 73 packets; decord alone answers 73, the last one twice."""
    monkeypatch.setattr(decord_decoding, "_DECORD_MPEG4_TAGS", ("DX50",))
    path = shared_dir / "data/samples/RATRACE_wave_f_nm_np1_fr_goo_37.avi"

    with pytest.raises(VideoDecodeError, match="use decoder='pyav'"):
        load_video(path, decoder="decord")


@pytest.mark.parametrize(
    ("suffix", "reason"),
    [("mp4", "packet 1 is not meant to be shown"), ("mkv", "does not start with the frame that is shown first")],
)
def test_a_clip_cut_out_between_key_frames_has_fewer_frames_than_packets(
    suffix: str, reason: str, tmp_path: Path
) -> None:
    options = {"x264-params": "open-gop=1:keyint=20:min-keyint=20:bframes=3:scenecut=0"}
    clip = render_clip(tmp_path / "whole.mp4", 60, codec_options=options)
    cut = drop_packets(tmp_path / f"cut.{suffix}", clip, 5)

    video = load_video(cut)

    assert read_indices(video.frames) == list(range(20, 60))
    with pytest.raises(VideoDecodeError, match=f"{reason}; use decoder='pyav'"):
        load_video(cut, decoder="decord")


CUTTABLE = {
    "mp4, index in front": ("a.mp4", {"container_options": {"movflags": "faststart"}}),
    "mp4, fragments": ("a.mp4", {"container_options": {"movflags": "frag_keyframe+empty_moov"}, "gop": 10}),
    "mkv": ("a.mkv", {}),
    "webm": ("a.webm", {"codec": "libvpx-vp9", "codec_options": FAST_VP9}),
    "avi": ("a.avi", {"codec": "mpeg4"}),
}


@pytest.mark.parametrize("kind", CUTTABLE)
def test_a_file_cut_off_is_an_error_wherever_its_length_is_needed(kind: str, tmp_path: Path) -> None:
    file_name, options = CUTTABLE[kind]
    whole = render_clip(tmp_path / file_name, NUM_FRAMES, **options).read_bytes()
    cut = whole[: len(whole) * 2 // 3]
    assert load_video(whole).total_frames == NUM_FRAMES

    for indices in (None, lambda total_frames: [0], [0, NUM_FRAMES - 1]):
        for decoder in LOADED:
            with pytest.raises(VideoDecodeError):
                load_video(cut, indices=indices, decoder=decoder)
    video = load_video(cut, indices=[0])
    assert read_indices(video.frames) == [0]


@pytest.mark.parametrize("decoder", EACH_DECODER)
@pytest.mark.parametrize(
    ("suffix", "options"),
    [
        ("mp4", {"codec_options": {"bf": "0", "x264-params": "repeat-headers=1"}}),
        ("mkv", {"codec_options": {"bf": "0", "x264-params": "repeat-headers=1"}}),
        ("webm", {"codec": "libvpx-vp9", "codec_options": FAST_VP9}),
    ],
)
def test_frames_that_change_size_are_an_error(suffix: str, options: dict, decoder: str, tmp_path: Path) -> None:
    wide = render_clip(tmp_path / f"wide.{suffix}", 12, **options)
    tall = render_clip(tmp_path / f"tall.{suffix}", 12, rotation=90, **options)
    joined = join_clips(tmp_path / f"joined.{suffix}", wide, tall)

    with pytest.raises(VideoDecodeError, match="frame size changes|parameter sets change"):
        load_video(joined, decoder=decoder)


def test_a_matroska_size_is_read_as_the_standard_says() -> None:
    header = b"\x1a\x45\xdf\xa3\x82ab\x18\x53\x80\x67"
    assert matroska.matroska_size(header + b"\x85") == 12 + 5
    assert matroska.matroska_size(header + b"\x40\x05") == 13 + 5
    assert matroska.matroska_size(header + b"\x01" + bytes(5) + b"\x01\x00") == 19 + 256
    assert matroska.matroska_size(header + b"\xff") is None  # unknown, as in live streams
    assert matroska.matroska_size(header + b"\x01" + b"\xff" * 7) is None
    assert matroska.matroska_size(header + b"\x40") is None
    assert matroska.matroska_size(b"RIFF") is None


def test_a_decode_error_survives_pickling() -> None:
    error = VideoDecodeError("cannot decode a.mp4", source="a.mp4", reason="broken", decoder="pyav")

    copy = pickle.loads(pickle.dumps(error))

    assert type(copy) is VideoDecodeError
    assert str(copy) == "cannot decode a.mp4"
    assert (copy.source, copy.reason, copy.decoder) == ("a.mp4", "broken", "pyav")


# ---------------------------------------------------------------------------------------------- missing decoders


def test_versions_of_the_decoders_are_reported() -> None:
    versions = available_decoders()

    assert list(versions) == list(DECODERS)
    assert versions["pyav"] == av.__version__


def test_a_decoder_that_cannot_be_imported_is_none_and_says_how_to_get_it(
    clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "decord", None)

    assert available_decoders()["decord"] is None
    with pytest.raises(ImportError, match=r"decoder 'decord' .*pip install decord`, or use decoder='pyav'"):
        load_video(clip, decoder="decord")
    assert load_video(clip, indices=[0]).frames.shape == (1, HEIGHT, WIDTH, 3)


@pytest.mark.parametrize("error", [ImportError, OSError, RuntimeError, AttributeError])
def test_a_decoder_that_breaks_on_import_does_not_break_the_report(
    error: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(name: str) -> None:
        raise error("broken library")

    monkeypatch.setattr(video_decoders.importlib, "import_module", broken)
    assert available_decoders() == dict.fromkeys(DECODERS)


# ------------------------------------------------------------------------------------------------- awkward files

REFUSED = "use decoder='pyav'"
# name: frames, or what the error says, by PyAV, decord and torchcodec. Frames were counted by FFmpeg through
# PyAV and, where decord can open the file, by decord as well.
ODD = {
    "FlashVideo.flv": ("End of file", REFUSED, REFUSED),
    "audio_only.wav": ("no video stream", REFUSED, REFUSED),
    "av1_video.mkv": (125, "codec is libdav1d", 125),
    "bbb_sunflower_QCIF_30fps_h263_noaudio_1f.3gp": (1, "codec is h263", REFUSED),
    "bipbop_cbcs_video_init.mp4": ("no frame", REFUSED, REFUSED),
    "bitmap.mp4": (5, "pixel format is yuv444p", "pixel format is yuv444p"),
    "bt709_full_range.mp4": (30, 30, 30),
    "chunk_out_of_range.mp4": ("Invalid data", REFUSED, REFUSED),
    "corrupted.mp4": ("Invalid data .*after 28 frames", REFUSED, REFUSED),
    "delayed_start.mp4": (24, 24, "codec is mpeg4"),
    "goldeneye-vfr-drop3.mp4": (160, 160, 160),
    "h264_10bits.mp4": (30, "pixel format is yuv420p10le", "pixel format is yuv420p10le"),
    "h265_video.mp4": (10, 10, 10),
    "invalid_userdata.mp4": ("no frame", REFUSED, REFUSED),
    "latin1_metadata.avi": (83, "MPEG-4 tagged", REFUSED),
    "newtonscradle.gif": (36, "container is gif", REFUSED),
    "no_duration.webm": (74, REFUSED, 74),
    "no_timescale.mp4": ("Invalid data .*after 8 frames", REFUSED, REFUSED),
    "realshort.mp4": (36, 36, 36),
    "tiny_8x8.webm": (1, "codec is vp8", 1),
    "video_0.mov": (3, 3, 3),
    "video_270.mov": (3, 3, 3),
    "video_90.mov": (3, 3, 3),
    "video_with_failing_audio.mp4": (280, 280, 280),
}


def plain_decode(path: Path) -> list[np.ndarray]:
    """Every frame by the shortest PyAV program there is, not upright."""
    with av.open(str(path), metadata_errors="replace") as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


@pytest.fixture(scope="session")
def odd_dir(shared_dir: Path) -> Path:
    return shared_dir / "data/odd"


def test_the_table_names_every_awkward_file(odd_dir: Path) -> None:
    assert {path.name for path in odd_dir.iterdir()} == set(ODD)


@pytest.mark.parametrize("decoder", EACH_DECODER)
@pytest.mark.parametrize("name", ODD)
def test_awkward_files_give_their_frames_or_say_why_not(name: str, decoder: str, odd_dir: Path) -> None:
    expected = ODD[name][DECODERS.index(decoder)]
    start = time.monotonic()

    if isinstance(expected, str):
        with pytest.raises(VideoDecodeError, match=expected) as caught:
            load_video(odd_dir / name, decoder=decoder)
        assert str(odd_dir / name) in str(caught.value)
        return
    video = load_video(odd_dir / name, decoder=decoder)

    assert time.monotonic() - start < 10
    assert len(video.frames) == video.total_frames == expected
    assert (video.timestamps.diff() > 0).all()
    turns = {0: 0, 90: 3, 180: 2, 270: 1}[video.rotation]  # counter-clockwise
    for frame, plain in zip(video.frames, plain_decode(odd_dir / name), strict=True):
        assert np.array_equal(frame, np.rot90(plain, k=turns))


@pytest.mark.parametrize(("name", "rotation"), [("video_0.mov", 0), ("video_90.mov", 90), ("video_270.mov", 270)])
def test_rotation_of_real_clips_is_applied_and_stated_clockwise(name: str, rotation: int, odd_dir: Path) -> None:
    video = load_video(odd_dir / name)

    assert video.rotation == rotation
    assert video.frames.shape == ((3, 320, 568, 3) if rotation == 0 else (3, 568, 320, 3))


@pytest.mark.parametrize("decoder", ["pyav", "decord"])  # torchcodec needs packets without a fault
def test_early_frames_of_a_damaged_file_are_given(decoder: str, odd_dir: Path) -> None:
    path = odd_dir / "corrupted.mp4"
    with av.open(str(path)) as container:
        plain = [frame.to_ndarray(format="rgb24") for _, frame in zip(range(21), container.decode(video=0))]  # noqa: B905

    video = load_video(path, indices=[20, 0], decoder=decoder)

    assert np.array_equal(video.frames[0], plain[20])
    assert np.array_equal(video.frames[1], plain[0])


SAMPLES = {
    "samples/RATRACE_wave_f_nm_np1_fr_goo_37.avi": (72, ()),
    "samples/SOX5yA1l24A.mp4": (332, BOTH),
    "samples/ssv2_166766.mp4": (49, BOTH),
    "samples/v_SoccerJuggling_g23_c01.avi": (240, ()),
    "weizmann/walk/denis_walk.avi": (68, ("decord",)),
    "odd/latin1_metadata.avi": (83, ()),
    "odd/h265_video.mp4": (10, BOTH),
}


@pytest.mark.parametrize("name", SAMPLES)
def test_real_clips_give_the_same_frames_however_they_are_asked_for(name: str, shared_dir: Path) -> None:
    path, (total_frames, exact) = shared_dir / "data" / name, SAMPLES[name]
    wanted = [round(position * (total_frames - 1) / 7) for position in (5, 1, 7, 0, 3, 3)]
    whole = load_video(path)
    assert whole.total_frames == total_frames
    assert all(map(np.array_equal, whole.frames, plain_decode(path)))

    for decoder in (name for name in LOADED if name == DECODERS[0] or name in exact):
        for indices in (wanted, lambda total: wanted, wanted[1:2] * 6):
            video = load_video(path, indices=indices, decoder=decoder)

            assert torch.equal(video.frames, whole.frames[video.indices])
            assert torch.equal(video.timestamps, whole.timestamps[video.indices])


# -------------------------------------------------------------------------------------------------------- workers


class _Videos(Dataset):
    """Loads a video per index; gives errors as values where `catches`."""

    def __init__(self, jobs: list[tuple[object, str]], *, catches: bool = True) -> None:
        self.jobs, self.catches = jobs, catches

    def __len__(self) -> int:
        return len(self.jobs)

    def __getitem__(self, index: int) -> tuple[int, object, float]:
        start = time.monotonic()
        source, decoder = self.jobs[index]
        try:
            outcome: object = load_video(source, decoder=decoder).total_frames
        except VideoDecodeError as error:
            if not self.catches:
                raise
            outcome = error
        return index, outcome, time.monotonic() - start


def test_awkward_files_behave_the_same_in_loader_workers(odd_dir: Path) -> None:
    jobs = [(odd_dir / name, decoder) for name in ODD for decoder in LOADED]

    outcomes = list(DataLoader(_Videos(jobs), batch_size=None, num_workers=2, timeout=30))

    assert [index for index, _, _ in outcomes] == list(range(len(jobs)))
    for (path, decoder), (_, outcome, seconds) in zip(jobs, outcomes, strict=True):
        expected = ODD[path.name][DECODERS.index(decoder)]
        assert seconds < 10
        assert isinstance(outcome, VideoDecodeError) if isinstance(expected, str) else outcome == expected


@pytest.mark.parametrize("decoder", EACH_DECODER)
def test_a_decode_error_comes_out_of_a_loader_worker_as_itself(decoder: str) -> None:
    loader = DataLoader(_Videos([(b"not a video", decoder)], catches=False), batch_size=None, num_workers=2)

    with pytest.raises(VideoDecodeError, match=rf"<11 bytes> with decoder='{decoder}'.*Invalid data"):
        list(loader)


def test_workers_decode_after_the_parent_has_decoded(clip: Path) -> None:
    for decoder in LOADED:
        load_video(clip, decoder=decoder)
    jobs = [(clip, decoder) for decoder in LOADED] * 3

    outcomes = list(DataLoader(_Videos(jobs), batch_size=None, num_workers=2, timeout=30))

    assert [outcome for _, outcome, _ in outcomes] == [NUM_FRAMES] * len(jobs)
