"""`kinetext export` and `kinetext stream`: what they print, write and refuse."""

import contextlib
import errno
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer
from rendered_clips import render_clip
from testing_utils import run_cli, tiny_video_clip, tiny_video_clip_config

from kinetext import VideoCLIPForVideoClassification, VideoTextProcessor
from kinetext.cli.console import report_errors, sigterm_as_ctrl_c
from kinetext.data.small_tokenizer import small_tokenizer
from kinetext.evaluation.calibration import Calibration
from kinetext.evaluation.classify import classify_clips, load_model
from kinetext.serving import export, load_exported

NAMES = ("run", "sit, down")
_CHUNK = 2**14
LABELS = 'run,"sit, down"'


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "tiny"
    tokenizer = small_tokenizer(NAMES)
    tiny_video_clip(vocab_size=len(tokenizer), max_tokens=77).save_pretrained(folder)
    VideoTextProcessor(tokenizer, num_frames=4, crop_size=32).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return render_clip(tmp_path_factory.mktemp("clips") / "clip.mp4", 50, fps=25)


def test_export_writes_what_classifies_as_the_model_does(model_folder: Path, clip: Path, tmp_path: Path) -> None:
    result = run_cli("export", model_folder, tmp_path / "out", "--labels", LABELS, "--format", "pt2")
    assert result.exit_code == 0, result.output
    assert "model.pt2" in result.output and "4 frames, 2 classes" in result.output and "at most" in result.output
    (expected,) = classify_clips(*load_model(str(model_folder)), [str(clip)], NAMES)
    (answer,) = load_exported(tmp_path / "out")(clip)
    assert {one["label"]: one["score"] for one in answer} == pytest.approx(
        dict(zip(expected.labels, expected.scores, strict=True)), abs=1e-5
    )


def test_export_of_a_model_that_reads_texts_needs_labels(model_folder: Path, tmp_path: Path) -> None:
    result = run_cli("export", model_folder, tmp_path / "out")
    assert result.exit_code == 1 and "(--labels)" in result.output and not (tmp_path / "out").exists()


def stream(model_folder: Path, source: Path, *options: object) -> list[str]:
    options = ("--labels", LABELS, "--model", model_folder, "--frames-per-second", 5, *options)
    result = run_cli("stream", source, *options)
    assert result.exit_code == 0, result.output
    return result.stdout.splitlines()


def test_stream_prints_events_as_lines_or_json(model_folder: Path, clip: Path) -> None:
    (line,) = stream(model_folder, clip, "--enter", 0.4, "--leave", 0.1, "--json")
    event = json.loads(line)
    assert set(event) == {"label", "start", "end", "score"} and event["label"] in NAMES
    assert (event["start"], event["end"]) == (0.0, pytest.approx(1.8, abs=0.05))
    (line,) = stream(model_folder, clip, "--enter", 0.4, "--leave", 0.1)
    assert line.split() == ["0.00", "to", "1.80", "s", *event["label"].split(), f"{event['score']:.4f}"]
    assert stream(model_folder, clip, "--enter", 0.4, "--leave", 0.1, "--min-duration", 5) == []


def test_stream_uses_the_calibration_beside_the_model(model_folder: Path, clip: Path) -> None:
    (line,) = stream(model_folder, clip, "--enter", 0.4, "--json")
    calibration = Calibration(temperature=100.0).save(model_folder)
    try:
        (softened,) = stream(model_folder, clip, "--enter", 0.4, "--json")
    finally:
        calibration.unlink()
    assert json.loads(softened)["score"] == pytest.approx(0.5, abs=0.02)
    assert json.loads(line)["score"] > 0.55


def test_stream_wants_a_model_that_reads_texts(clip: Path, tmp_path: Path) -> None:
    VideoCLIPForVideoClassification(tiny_video_clip_config()).save_pretrained(tmp_path)
    VideoTextProcessor(small_tokenizer(NAMES), num_frames=4, crop_size=32).save_pretrained(tmp_path)
    result = run_cli("stream", clip, "--labels", LABELS, "--model", tmp_path, "--frames-per-second", 5)
    assert result.exit_code == 1 and "a video-text model" in result.output


def test_stream_that_fails_prints_the_event_that_is_on(model_folder: Path, tmp_path: Path) -> None:
    source = render_clip(tmp_path / "clip.mp4", 50, fps=25, container_options={"movflags": "faststart"})
    content = source.read_bytes()
    source.write_bytes(content[: len(content) * 3 // 4])
    options = ("--labels", LABELS, "--model", model_folder, "--frames-per-second", 5, "--enter", 0.4, "--json")
    result = run_cli("stream", source, *options)
    assert result.exit_code == 1 and "cannot decode" in result.stderr
    assert json.loads(result.stdout)["end"] > 0.5


def test_reader_that_leaves_ends_a_verb_quietly(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    @report_errors
    def verb() -> None:
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")

    app = typer.Typer()
    app.command()(verb)
    monkeypatch.setattr(sys, "stdout", sys.stdout)  # which typer replaces
    with pytest.raises(SystemExit):
        app([])
    assert capsys.readouterr().err == ""


def test_sigterm_is_ctrl_c_for_a_while() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt), sigterm_as_ctrl_c():
        signal.raise_signal(signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) is before


def test_sigterm_leaves_nothing_of_an_export(
    model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "_write_graph", lambda *parts: signal.getsignal(signal.SIGTERM)(signal.SIGTERM, None))
    result = run_cli("export", model_folder, tmp_path / "out", "--labels", LABELS, "--format", "pt2")
    assert result.exit_code == 130 and list(tmp_path.iterdir()) == []


@pytest.mark.slow  # a process of its own
@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_and_sigterm_end_a_stream_with_the_event_that_is_on(
    model_folder: Path, tmp_path: Path, end: signal.Signals
) -> None:
    pipe = tmp_path / "camera"
    os.mkfifo(pipe)
    command = [sys.executable, "-m", "kinetext.cli", "stream", str(pipe), "--labels", LABELS, "--json"]
    command += ["--model", str(model_folder), "--frames-per-second", "5", "--enter", "0.4", "--leave", "0.1"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    content = render_clip(tmp_path / "clip.ts", 500, fps=25).read_bytes()
    with pipe.open("wb") as camera, contextlib.suppress(BrokenPipeError):
        for start in range(0, len(content), _CHUNK):
            camera.write(content[start : start + _CHUNK])
            camera.flush()
            if start // _CHUNK == len(content) // _CHUNK // 2:
                process.send_signal(end)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert 1 < json.loads(output)["end"] < 15
