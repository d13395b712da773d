"""The command line: what verbs print, how they fail, and that help is instant."""

import ast
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import typer
from rendered_clips import render_clip
from testing_utils import run_cli, tiny_config, tiny_model, tiny_moted
from training_runs import render_clips, write_recipe
from typer.testing import CliRunner, Result

from kinetext import VideoTextProcessor, cli, doctor
from kinetext.cli.console import _message, report_errors
from kinetext.data.small_tokenizer import small_tokenizer
from kinetext.evaluation.classify import classify_clips, load_model
from kinetext.processing.video_decoding import VideoDecodeError

REPOSITORY = Path(__file__).resolve().parents[1]
VERBS = sorted(command.name or command.callback.__name__ for command in cli.app.registered_commands)
NOT_AT_HELP = ("av", "decord", "datasets", "safetensors.torch", "transformers.modeling_utils", "tensorboard")


def kinetext(*arguments: object) -> Result:
    return run_cli(*arguments)


def test_help_lists_the_verbs() -> None:
    result = kinetext("--help")
    assert result.exit_code == 0
    assert [verb for verb in VERBS if verb not in result.output] == []


@pytest.mark.parametrize("verb", VERBS)
def test_help_of_each_verb_shows_an_example(verb: str) -> None:
    result = kinetext(verb, "--help")
    assert result.exit_code == 0
    assert f"kinetext {verb}" in result.output.partition("Example:")[2]


@pytest.mark.parametrize("path", sorted((REPOSITORY / "kinetext/cli").glob("*.py")), ids=lambda path: path.name)
def test_module_imports_nothing_heavy_at_the_top(path: Path) -> None:
    modules = set()
    for node in ast.parse(path.read_text("utf-8")).body:
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            modules.add("its own" if node.level == 1 else node.module or "")
    assert {name.split(".")[0] for name in modules} - sys.stdlib_module_names <= {"its own", "typer", "rich"}


def test_command_line_in_a_process_of_its_own() -> None:
    code = f"""
import sys
from kinetext.cli import app
try:
    app(["cost", "--help"])
except SystemExit as stop:
    assert stop.code == 0
print([name for name in {NOT_AT_HELP} if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "kinetext cost base-patch16" in done.stdout and done.stdout.splitlines()[-1] == "[]"


def test_error_in_a_process_of_its_own_is_one_line_and_no_traceback() -> None:
    command = [sys.executable, "-m", "kinetext.cli", "cost", "base-patch17"]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        "error: 'base-patch17' is no preset (base-patch32, base-patch16, large-patch14, large-patch14-336), "
        "no folder and no Hub id (those read owner/name).\n"
    )


def test_train_script_says_what_is_wrong_without_a_traceback(tmp_path: Path) -> None:
    command = [sys.executable, "train.py", str(tmp_path / "none.yaml"), "--output_dir", str(tmp_path / "out")]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1 and done.stderr.startswith("error: ") and "none.yaml" in done.stderr


def test_ctrl_c_ends_the_train_script_without_a_traceback(tmp_path: Path) -> None:
    clips = render_clips(tmp_path / "clips", per_class=2)
    recipe = write_recipe(tmp_path / "recipe.yaml", max_steps=100_000, save_strategy="no", eval_strategy="no")
    command = [
        sys.executable,
        "train.py",
        str(recipe),
        "--data_root",
        str(clips),
        "--output_dir",
        str(tmp_path / "out"),
    ]
    with subprocess.Popen(
        command, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        assert process.stdout is not None and "1 process on cpu" in process.stdout.readline()
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does, to data workers as well
        try:
            _, errors = process.communicate(timeout=120)
        finally:
            process.kill()
    assert process.returncode == 130 and errors.endswith("Aborted.\n") and "Traceback" not in errors


# Errors


@pytest.mark.parametrize(
    "error",
    [
        ValueError("bad [value]"),
        FileNotFoundError("no file"),
        VideoDecodeError("clip.mp4: no frames"),
        FloatingPointError("the loss is nan"),
    ],
)
def test_errors_a_user_can_cause_are_reported_without_traceback(error: Exception) -> None:
    app = typer.Typer()

    @app.command()
    @report_errors
    def fail() -> None:
        raise error

    result = CliRunner().invoke(app, [])
    assert (result.exit_code, result.stdout, result.stderr) == (1, "", f"error: {error}\n")


def test_faults_of_ours_keep_their_traceback() -> None:
    app = typer.Typer()

    @app.command()
    @report_errors
    def fail() -> None:
        raise KeyError("ours")

    assert isinstance(CliRunner().invoke(app, []).exception, KeyError)


def test_error_without_message_is_named() -> None:
    assert _message(ConnectionResetError()) == "ConnectionResetError"


# classify


def test_classify_reads_descriptions_from_a_file(tmp_path: Path) -> None:
    clip = render_clip(tmp_path / "a.mp4", 10)
    tokenizer = small_tokenizer(["wave", "run"])
    tiny_moted(num_frames=2, vocab_size=len(tokenizer), max_tokens=77).save_pretrained(tmp_path / "model")
    VideoTextProcessor(tokenizer, num_frames=2, crop_size=32, motion_frame_ratio=2).save_pretrained(tmp_path / "model")
    (tmp_path / "moves.yaml").write_text("run: [legs alternate]\nwave: [a hand swings, quickly]\n", "utf-8")
    arguments = ("classify", clip, "--labels", "wave,run", "--model", tmp_path / "model", "--descriptions")
    result = kinetext(*arguments, tmp_path / "moves.yaml")
    assert result.exit_code == 0, result.output
    loaded, processor = load_model(str(tmp_path / "model"))
    moves = [["a hand swings", "quickly"], ["legs alternate"]]
    (wanted,) = classify_clips(loaded, processor, [str(clip)], ["wave", "run"], descriptions=moves)
    assert all(f"{score:.4f}" in result.output for score in wanted.scores)
    result = kinetext(*arguments, tmp_path / "none.yaml")
    assert result.exit_code == 1 and f"error: there is no file '{tmp_path / 'none.yaml'}'" in result.stderr


# cost


def test_cost_of_a_preset_shows_towers_and_totals() -> None:
    result = kinetext("cost", "base-patch16", "--num-frames", 32)
    assert result.exit_code == 0, result.output
    for shown in ("32 frames, 400 classes, 77 tokens", "image tower", "messages", "MIT", "194,941,441", "569.35"):
        assert shown in result.output


def test_cost_of_a_folder_uses_its_frames_and_keeps_its_parameters(tmp_path: Path) -> None:
    model = tiny_model(num_frames=4)
    tiny_config(num_frames=4).save_pretrained(tmp_path)
    for options, frames in ((), 4), (("--num-frames", 6), 6):
        result = kinetext("cost", tmp_path, "--tokens", 8, "--classes", 5, *options)
        assert result.exit_code == 0, result.output
        assert f"{frames} frames, 5 classes, 8 tokens" in result.output
        assert f"{model.num_parameters():,}" in result.output


def test_cost_of_moted_counts_its_own_modules() -> None:
    result = kinetext("cost", "base-patch16", "--architecture", "moted", "--num-frames", 16)
    assert result.exit_code == 0, result.output
    assert "motion encoder" in result.output and "364.0" in result.output


def test_cost_published_shows_every_published_size(monkeypatch: pytest.MonkeyPatch) -> None:
    from kinetext.evaluation import published_costs

    rows = published_costs.PUBLISHED_COSTS
    assert {(row.architecture, row.preset) for row in rows} == {
        *(("xclip", name) for name in ("base-patch32", "base-patch16", "large-patch14", "large-patch14-336")),
        *(("moted", name) for name in ("base-patch16", "large-patch14")),
    }
    few = [row for row in rows if row.num_frames == 8 and row.preset == "base-patch16"]
    monkeypatch.setattr(published_costs, "PUBLISHED_COSTS", few)
    result = kinetext("cost", "--published")
    assert result.exit_code == 0, result.output
    assert "-0.6%" in result.output and "+0.5%" in result.output and "25.8 to 29.8" in result.output


def test_cost_reports_counts_that_do_not_fit() -> None:
    result = kinetext("cost", "base-patch32", "--classes", 0)
    assert (result.exit_code, result.stderr) == (1, "error: num_classes=0 must be at least 1.\n")


# convert


def test_convert_says_what_it_wrote_and_what_is_missing(shared_dir: Path, tmp_path: Path) -> None:
    result = kinetext("convert", shared_dir / "golden/videox_xclip_T4.pth", tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert f"model saved in {tmp_path / 'out'} (1,998,465 parameters, 4 frames)" in result.stdout
    assert "note: the source has no tokenizer" in result.stdout
    assert (tmp_path / "out/model.safetensors").is_file()


def test_convert_reports_what_it_refuses(tmp_path: Path) -> None:
    torch.save({"weights": {}}, tmp_path / "a.pth")
    result = kinetext("convert", tmp_path / "a.pth", tmp_path / "out")
    assert result.exit_code == 1
    assert result.stderr.startswith(f"error: {tmp_path / 'a.pth'} has no state dict under the key `model`")
    assert not (tmp_path / "out").exists()


# doctor


def test_doctor_shows_the_rows_and_fails_where_something_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [doctor.Check("torch", "2.13.0"), doctor.Check("torchvision", "0.28 [x]", "warning", "remove it")]
    monkeypatch.setattr(doctor, "diagnose", lambda: rows)
    result = kinetext("doctor")
    assert result.exit_code == 0
    assert all(text in result.output for text in ("2.13.0", "0.28 [x]", "warning", "remove it"))
    rows.append(doctor.Check("av", "not installed", "missing", "pip install av"))
    result = kinetext("doctor")
    assert result.exit_code == 1 and "pip install av" in result.output
