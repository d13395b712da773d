"""What the READMEs print works as printed."""

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer
from testing_utils import tiny_clip_config, tiny_model
from transformers import CLIPModel

from kinetext import VideoTextProcessor, cli
from kinetext.data.small_tokenizer import small_tokenizer
from kinetext.descriptions import load_descriptions

REPOSITORY = Path(__file__).resolve().parents[1]
README = "README.md"
OF_MODELS = "kinetext/modeling/README.md"


def text_of(readme: str) -> str:
    return (REPOSITORY / readme).read_text("utf-8")


def code_blocks(readme: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", text_of(readme), flags=re.DOTALL)


def run_as_printed(code: str, folder: Path) -> str:
    """Standard output of `code` in a fresh interpreter, started in `folder`."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        env={"PYTHONPATH": str(REPOSITORY), "HF_HUB_OFFLINE": "1", "PATH": ""},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_quickstart_works_as_printed_on_a_real_clip(shared_dir: Path, tmp_path: Path) -> None:
    tokenizer = small_tokenizer(["waving"])
    tiny_model(text={"vocab_size": len(tokenizer), "max_position_embeddings": 77}).save_pretrained(
        tmp_path / "demo/xclip"
    )
    VideoTextProcessor(tokenizer, crop_size=32).save_pretrained(tmp_path / "demo/xclip")
    shutil.copy(shared_dir / "data/samples/SOX5yA1l24A.mp4", tmp_path / "clip.mp4")
    quickstart = next(block for block in code_blocks(README) if "clip.mp4" in block)
    assert len([line for line in quickstart.splitlines() if line.strip()]) == 5

    scores = eval(run_as_printed(quickstart, tmp_path))

    assert list(scores) == ["waving", "juggling a ball", "running"]
    assert abs(sum(scores.values()) - 1) < 1e-5


@pytest.mark.parametrize("readme", [README, OF_MODELS])
def test_moted_from_a_clip_works_as_printed(readme: str, shared_dir: Path, tmp_path: Path) -> None:
    tokenizer = small_tokenizer([text for texts in load_descriptions("motion_shapes").texts for text in texts])
    config = tiny_clip_config(vocab_size=len(tokenizer), max_tokens=tokenizer.model_max_length)
    CLIPModel(config).save_pretrained(tmp_path / "demo/clip")
    tokenizer.save_pretrained(tmp_path / "demo/clip")
    shutil.copy(shared_dir / "data/samples/SOX5yA1l24A.mp4", tmp_path / "clip.mp4")
    example = next(block for block in code_blocks(readme) if "MotedModel.from_clip" in block)

    shapes = "scores" if readme == README else "outputs.motion_logits_per_video"
    assert run_as_printed(f"{example}\nprint({shapes}.shape)", tmp_path).endswith("torch.Size([1, 3])\n")


def parse(arguments: list[str]) -> None:
    """Has the command line read these arguments, without running a verb."""
    command: Any = typer.main.get_command(cli.app)
    context: Any = command.make_context("kinetext", arguments)
    while hasattr(command, "resolve_command"):
        name, command, rest = command.resolve_command(context, [*context._protected_args, *context.args])
        context = command.make_context(name, rest, parent=context)


def test_commands_of_the_readme_are_understood() -> None:
    text = text_of(README).replace("\\\n", " ")
    lines = re.findall(r"^kinetext (.*?)(?:\s#.*)?$", text, flags=re.MULTILINE)
    lines = [line for line in lines if "…" not in line and "<" not in line]
    assert any(line.startswith("eval ") for line in lines)
    for line in lines:
        parse(shlex.split(line))
    with pytest.raises(Exception, match="No such option"):
        parse(["eval", "runs/x", "--protocol", "weizmann", "--data-root", ".", "--out", "x", "--protocols", "y"])


@pytest.mark.parametrize("readme", [README, OF_MODELS])
def test_paths_and_verbs_that_a_readme_names_exist(readme: str) -> None:
    text, folder = text_of(readme), (REPOSITORY / readme).parent
    for name in re.findall(r"\]\(([^)#:]+)\)", text):
        assert (folder / name).exists(), name
    for name in re.findall(r"\b(recipes/\w+\.yaml)", text):
        assert (REPOSITORY / name).exists(), name
    makefile = (REPOSITORY / "Makefile").read_text("utf-8")
    for verb in re.findall(r"^make ([a-z-]+)", text, flags=re.MULTILINE):
        assert f"\n{verb}:" in makefile, verb
