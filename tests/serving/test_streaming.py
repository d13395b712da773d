"""Streams: the same scores as offline, at a cost that does not grow, with events that do not flicker."""

import contextlib
import itertools
import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from rendered_clips import index_picture, render_clip
from testing_utils import tiny_model, tiny_moted, tiny_video_clip

from kinetext import TextBank, VideoDecodeError, VideoTextProcessor, load_video
from kinetext.evaluation.calibration import Calibration
from kinetext.processing.video_decoders import import_decoder
from kinetext.serving import StreamingClassifier, StreamResult, frame_stream, merge_events, streaming
from kinetext.serving.frame_stream import Picture

NAMES = ("run", "jump", "sit down")
TOKENS = torch.tensor([[97, 3, 98, 98], [97, 4, 5, 98], [97, 7, 8, 98]])
FRAMES = 4
MODELS = {
    "xclip": lambda: tiny_model(),
    "moted": lambda: tiny_moted(motion_max_key_tokens=6),
    "serial moted": lambda: tiny_moted(motion_encoder="serial"),
    "mean": lambda: tiny_video_clip("mean"),
    "transformer": lambda: tiny_video_clip("transformer"),
    "one_frame": lambda: tiny_video_clip("one_frame"),
    "joint": lambda: tiny_video_clip("joint"),
}


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Tiny tensors gain nothing from a second thread and wait for it where other work runs beside."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def processor_of(model: Any) -> VideoTextProcessor:
    ratio = getattr(model.config, "motion_frame_ratio", 1)
    return VideoTextProcessor(num_frames=FRAMES, crop_size=32, motion_frame_ratio=ratio)


def encode(model: Any) -> TextBank:
    return model.encode_texts(TOKENS, names=NAMES)


def stream_of(model: Any, **settings: Any) -> StreamingClassifier:
    settings = {"frames_per_second": 10, **settings}
    return StreamingClassifier(model, processor_of(model), encode(model), **settings)


@torch.inference_mode()
def offline_logits(model: Any, frames: list[Any]) -> torch.Tensor:
    """(1, N) of a model for one window, as a whole."""
    pixel_values = processor_of(model)(videos=[frames], sampling="all")["pixel_values"]
    return model(pixel_values=pixel_values, text_bank=encode(model)).logits_per_video


def logits_of(result: StreamResult) -> torch.Tensor:
    """(1, N) up to a constant."""
    return torch.tensor([[result.scores[name] for name in NAMES]], dtype=torch.float64).log()


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("hop", [1, 3])
def test_stream_equals_the_model_on_the_same_windows(name: str, hop: int) -> None:
    model = MODELS[name]()
    length = FRAMES * processor_of(model).motion_frame_ratio
    rate = 10 * processor_of(model).motion_frame_ratio
    step = hop * processor_of(model).motion_frame_ratio
    stream, pictures = stream_of(model, hop=hop), [index_picture(index) for index in range(20)]
    results = [result for index, picture in enumerate(pictures) for result in stream.push(picture, index / rate)]
    starts = list(range(0, len(pictures) - length + 1, step))
    assert [round(result.start * rate) for result in results] == starts
    for start, result in zip(starts, results, strict=True):
        assert result.end == pytest.approx((start + length - 1) / rate)
        expected = offline_logits(model, pictures[start : start + length]).double().log_softmax(dim=-1)
        torch.testing.assert_close(logits_of(result), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize(("name", "ratio"), [("mean", 1), ("moted", 2)])
def test_each_frame_goes_through_the_image_tower_once(name: str, ratio: int) -> None:
    model = MODELS[name]()
    encoded = []
    model.vision_model.embeddings.register_forward_hook(lambda *parts: encoded.append(len(parts[2])))
    stream = stream_of(model)
    for index in range(20):
        stream.push(index_picture(index), index / (10 * ratio))
    assert encoded[0] == FRAMES and set(encoded[1:]) == {1} and sum(encoded) == 20 // ratio


def test_sampling_follows_the_clock_whatever_the_rate_of_the_stream() -> None:
    stream = stream_of(tiny_video_clip(), frames_per_second=2)
    times = [0.0, 0.1, 0.499, 0.7, 0.999, 1.3, 1.6, 1.7, 2.0, 2.3, 2.5]
    # One in each half second: 0.0; 0.499, which is rounded; 0.999; 1.6; 2.0; 2.5.
    results = [result for stamp in times for result in stream.push(index_picture(0), stamp)]
    assert [(result.start, result.end) for result in results] == [(0.0, 1.6), (0.499, 2.0), (0.999, 2.5)]


def test_dropped_frames_stretch_the_window_and_a_long_gap_begins_a_new_one() -> None:
    stream = stream_of(tiny_video_clip())
    times = [0.0, 0.1, 0.2, 0.5, 0.6, 1.1, 1.2, 1.3, 1.4]  # 0.5 s is longer than the window of 0.4 s
    results = [result for stamp in times for result in stream.push(index_picture(0), stamp)]
    assert [(result.start, result.end) for result in results] == [(0.0, 0.5), (0.1, 0.6), (1.1, 1.4)]


def test_time_that_runs_backwards_is_refused_until_reset() -> None:
    stream = stream_of(tiny_video_clip())
    stream.push(index_picture(0), 5.0)
    stream.push(index_picture(0), 5.0)  # the same moment twice is only useless
    with pytest.raises(ValueError, match=r"timestamp 4\.9 follows 5.*reset\(\)"):
        stream.push(index_picture(0), 4.9)
    with pytest.raises(ValueError, match="timestamp nan"):
        stream.push(index_picture(0), float("nan"))
    stream.reset()
    assert stream.push(index_picture(0), 4.9) == []


def test_finish_gives_what_is_left() -> None:
    model = tiny_video_clip()
    stream, pictures = stream_of(model, hop=3), [index_picture(index) for index in range(9)]
    assert stream.finish() == []
    for count, ends in ((4, []), (5, [0.4]), (7, []), (8, [0.7])):
        for index in range(count):
            stream.push(pictures[index], index / 10)
        assert [result.end for result in stream.finish()] == ends
    for index in range(2):  # fewer than a window: each frame twice
        assert stream.push(pictures[index], index / 10) == []
    (result,) = stream.finish()
    expected = offline_logits(model, [pictures[index] for index in (0, 0, 1, 1)]).double().log_softmax(dim=-1)
    torch.testing.assert_close(logits_of(result), expected, atol=1e-5, rtol=0)
    assert (result.start, result.end) == (0.0, 0.1)


def test_frames_come_as_arrays_tensors_or_pictures() -> None:
    picture = index_picture(3)
    scores = []
    for frame in (picture, torch.from_numpy(picture), Image.fromarray(picture)):
        stream = stream_of(tiny_video_clip())
        stream.push(frame, 0.0)
        scores.append(stream.finish()[0].scores)
    assert scores[0] == scores[1] == scores[2]
    with pytest.raises(ValueError, match=r"shape \(1, 96, 160, 3\); wanted \(H,W,3\)"):
        stream.push(picture[None], 0.0)


def test_file_is_read_as_load_video_reads_it(tmp_path: Path) -> None:
    model, path = tiny_video_clip(), render_clip(tmp_path / "clip.mp4", 40, fps=25, rotation=90)
    video = load_video(path)
    picked = [0, 3, 5, 8, 10, 13, 15, 18]  # the first frame of each tenth of a second
    results = list(stream_of(model).run(path))
    assert [result.start for result in results[:5]] == pytest.approx([video.timestamps[i].item() for i in picked[:5]])
    for number in range(5):
        window = [video.frames[index] for index in picked[number : number + FRAMES]]
        expected = offline_logits(model, window).double().log_softmax(dim=-1)
        torch.testing.assert_close(logits_of(results[number]), expected, atol=1e-5, rtol=0)
    assert results[-1].end == pytest.approx(video.timestamps[-2].item(), abs=0.05)


def ends(stream: StreamingClassifier, path: Path | str) -> list[float]:
    return [result.end for result in stream.run(path)]


@pytest.mark.parametrize("rate", [30, 60])
def test_times_rounded_to_milliseconds_are_sampled_evenly(tmp_path: Path, rate: int) -> None:
    path = render_clip(tmp_path / "clip.mkv", 120, fps=rate)
    times = ends(stream_of(tiny_video_clip(), frames_per_second=30), path)
    assert len(times) == 120 * 30 // rate - FRAMES + 1
    assert {round((after - before) * 30, 1) for before, after in itertools.pairwise(times)} == {1.0}


def test_frames_of_a_camera_that_jitters_are_all_taken() -> None:
    stream = stream_of(tiny_video_clip(), frames_per_second=30)
    stamps = [index / 30 + 0.003 * (-1) ** (index % 3) for index in range(60)]
    assert sum(len(stream.push(index_picture(0), stamp)) for stamp in stamps) == 60 - FRAMES + 1


def test_stream_slower_than_the_sampling_has_windows_and_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    stream = stream_of(tiny_video_clip(), frames_per_second=100)  # a window of 0.04 s
    results = [result for index in range(60) for result in stream.push(index_picture(0), index / 10)]
    assert len(results) == 60 - FRAMES  # the first interval may be a gap
    (record,) = caplog.records
    assert "frames_per_second=100 is more than the stream has, about 10:" in record.message
    assert "0.4 s instead of 0.04 s" in record.message
    results = [result for index in range(8) for result in stream.push(index_picture(0), 60 + index / 10)]
    assert results[0].start == 60  # a gap is still one
    assert len(caplog.records) == 1


def test_pause_after_the_first_frame_costs_no_others() -> None:
    stream = stream_of(tiny_video_clip())
    assert [stream.push(index_picture(0), stamp) for stamp in (0.0, 60.0, 60.1, 60.2)] == [[]] * 4
    assert len(stream.push(index_picture(0), 60.3)) == 1


def test_late_frames_of_a_stream_are_left_out_and_a_new_clock_starts_anew(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stamps = [0.0, 0.1, 0.2, 0.1, 0.3, 0.4, 90.0, 90.1, 0.0, 0.1, 0.2, 0.3]
    pictures = [Picture(stamp, lambda: index_picture(0)) for stamp in stamps]
    monkeypatch.setattr(streaming, "read_stream", lambda source, input_format: iter(pictures))
    results = list(stream_of(tiny_video_clip()).run("camera"))
    assert [(result.start, result.end) for result in results] == [(0.0, 0.3), (0.1, 0.4), (0.0, 0.3)]


def test_two_streams_behind_each_other_in_one_file_are_both_read(tmp_path: Path) -> None:
    content = render_clip(tmp_path / "one.ts", 25, fps=25).read_bytes()
    (tmp_path / "two.ts").write_bytes(content * 2)
    once, twice = (ends(stream_of(tiny_video_clip()), tmp_path / name) for name in ("one.ts", "two.ts"))
    assert twice == once * 2


def test_runs_of_one_classifier_do_not_meet(tmp_path: Path) -> None:
    path = render_clip(tmp_path / "clip.mp4", 25, fps=25)
    stream = stream_of(tiny_video_clip())
    stream.push(index_picture(0), 5.0)
    alone = list(stream_of(tiny_video_clip()).run(path))
    for one, other, expected in zip(stream.run(path), stream.run(path), alone, strict=True):
        assert one == other == expected
    assert stream.finish()[0].start == 5.0


def test_named_pipe_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frame_stream, "import_decoder", lambda name: time.sleep(0.1) or import_decoder(name))
    path, pipe = render_clip(tmp_path / "clip.ts", 25, fps=25), tmp_path / "pipe"
    os.mkfifo(pipe)
    found: list[float] = []
    reader = threading.Thread(target=lambda: found.extend(ends(stream_of(tiny_video_clip()), pipe)), daemon=True)
    reader.start()
    with pipe.open("wb") as writer, contextlib.suppress(BrokenPipeError):
        writer.write(path.read_bytes())
    reader.join(timeout=20)
    assert found == ends(stream_of(tiny_video_clip()), path)


def test_server_that_falls_silent_is_named_with_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frame_stream, "SILENCE_S", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}/camera.ts"
        with pytest.raises(ConnectionError, match=rf"{url} cannot be read: nothing came for 0\.3 s"):
            list(stream_of(tiny_video_clip()).run(url))


def test_bytes_are_no_stream() -> None:
    with pytest.raises(TypeError, match=r"type bytes cannot be read.*io\.BytesIO"):
        list(stream_of(tiny_video_clip()).run(b"rtsp://"))


def test_model_that_changed_below_is_noticed() -> None:
    model = tiny_video_clip()
    stream = stream_of(model)
    stream.push(index_picture(0), 0.0)
    model.train()
    with pytest.raises(ValueError, match="training mode"):
        stream.finish()
    model.eval()
    with torch.no_grad():
        next(model.vision_model.parameters()).fill_(float("nan"))
    stream.reset()
    stream.push(index_picture(0), 0.0)
    with pytest.raises(FloatingPointError, match="no numbers"):
        stream.finish()


def test_times_of_an_avi_with_b_frames_do_not_run_backwards(tmp_path: Path) -> None:
    path = render_clip(tmp_path / "clip.avi", 30, codec="mpeg4", codec_options={"bf": "2"}, fps=25)
    results = list(stream_of(tiny_video_clip(), frames_per_second=25).run(path))
    assert len(results) == 30 - FRAMES + 1
    assert results[-1].end - results[0].start == pytest.approx(29 / 25, abs=1e-6)


def test_sources_that_cannot_be_read_are_told_apart(tmp_path: Path) -> None:
    stream = stream_of(tiny_video_clip())
    with pytest.raises(FileNotFoundError):
        list(stream.run(tmp_path / "missing.mp4"))
    (tmp_path / "text.mp4").write_text("no video")
    with pytest.raises(VideoDecodeError, match="text.mp4"):
        list(stream.run(tmp_path / "text.mp4"))
    with pytest.raises(ConnectionError, match="rtsp://127.0.0.1:9/none"):
        list(stream.run("rtsp://127.0.0.1:9/none"))


def test_calibration_softens_the_scores() -> None:
    model = tiny_video_clip()
    plain, calibrated = stream_of(model), stream_of(model, calibration=Calibration(temperature=2.0))
    for stream in (plain, calibrated):
        stream.push(index_picture(1), 0.0)
    expected = (logits_of(plain.finish()[0]) / 2).softmax(dim=-1)
    torch.testing.assert_close(logits_of(calibrated.finish()[0]).exp(), expected)


def follow(scores: list[float], **settings: Any) -> list[str | None]:
    """The label after each score of "run", the rest going to "jump"."""
    stream = stream_of(tiny_video_clip(), **settings)
    labels = []
    for index, score in enumerate(scores):
        stream._follow({"run": score, "jump": 1 - score, "sit down": 0.0}, float(index))
        labels.append(stream._label)
    return labels


def test_label_stays_on_between_the_thresholds() -> None:
    assert follow([0.7, 0.85, 0.6, 0.45, 0.35, 0.7, 0.05], enter=0.8, leave=0.4) == [
        None,
        "run",
        "run",
        "run",
        None,
        None,
        "jump",
    ]


def test_another_class_takes_over_at_once() -> None:
    assert follow([0.9, 0.45, 0.55], enter=0.5, leave=0.3) == ["run", "jump", "run"]


def result(start: float, label: str | None, since: float | None, score: float = 0.5) -> StreamResult:
    return StreamResult(start, start + 2, {"run": score, "jump": 0.1}, label, since)


def test_windows_with_one_label_are_one_event_that_is_given_once_it_is_over() -> None:
    results = iter(
        [
            result(0, None, None),
            result(1, "run", 1, 0.6),
            result(2, "run", 1, 0.9),
            result(3, "jump", 3),
            result(4, None, None),
            result(5, "run", 5),
            result(9, "run", 9),
        ]
    )
    events = merge_events(results, min_duration=2.0)
    first = next(events)
    assert (first.label, first.start, first.end, first.score) == ("run", 1, 4, 0.9)
    assert next(results).start == 4  # nothing was read ahead
    assert [(event.label, event.start, event.end) for event in events] == [
        ("jump", 3, 5),
        ("run", 5, 7),
        ("run", 9, 11),
    ]
    assert list(merge_events([result(1, "run", 1)], min_duration=2.1)) == []


@pytest.mark.parametrize("error", [ConnectionError, KeyboardInterrupt])
def test_event_that_is_on_when_the_stream_fails_comes_before_the_error(error: type[BaseException]) -> None:
    def results() -> Iterator[StreamResult]:
        yield result(1, "run", 1)
        raise error

    events = merge_events(results())
    assert next(events).end == 3
    with pytest.raises(error):
        next(events)


def test_streams_behind_each_other_have_events_of_their_own() -> None:
    events = merge_events([result(0, "run", 0), result(1, "run", 0), result(0, "run", 0)])
    assert [(event.start, event.end) for event in events] == [(0, 3), (0, 2)]


@pytest.mark.parametrize("seconds", [-1.0, float("nan")])
def test_shortest_duration_is_a_number_of_seconds(seconds: float) -> None:
    with pytest.raises(ValueError, match=r"min_duration=.* must be"):
        list(merge_events([], min_duration=seconds))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"frames_per_second": 0}, "frames_per_second=0 must be"),
        ({"hop": 0}, "hop=0 must be"),
        ({"hop": 1.5}, r"hop=1\.5 must be"),
        ({"enter": 0.2, "leave": 0.3}, r"leave=0\.3 is above enter=0\.2"),
        ({"enter": 1.5}, "enter=1.5 must be"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        stream_of(tiny_video_clip(), **settings)


def test_bank_and_processor_of_another_model_are_refused() -> None:
    model = tiny_video_clip()
    with pytest.raises(ValueError, match="made by text weights"):
        StreamingClassifier(model, processor_of(model), encode(tiny_model()), frames_per_second=1)
    with pytest.raises(ValueError, match="motion_frame_ratio"):
        StreamingClassifier(model, processor_of(tiny_moted()), encode(model), frames_per_second=1)


@pytest.mark.slow  # a ratio of times
@pytest.mark.parametrize("name", ["xclip", "moted", "mean"])
def test_a_frame_costs_the_same_after_ten_thousand(name: str) -> None:
    stream, picture = stream_of(MODELS[name]()), index_picture(0)
    rate = stream._rate
    seconds = []
    for index in range(10_000 if name == "mean" else 1_000):
        before = time.perf_counter()
        stream.push(picture, index / rate)
        seconds.append(time.perf_counter() - before)
    early, late = (sorted(part)[50] for part in (seconds[50:150], seconds[-100:]))
    assert late <= 1.5 * early
    assert len(stream._window) == stream._length
