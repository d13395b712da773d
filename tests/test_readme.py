"""What the README prints works as printed."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import torch

from kinetext import VideoTextProcessor, XCLIPConfig, XCLIPModel
from kinetext.data.small_tokenizer import small_tokenizer

REPOSITORY = Path(__file__).resolve().parents[1]
README = (REPOSITORY / "README.md").read_text("utf-8")


def code_blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def test_quickstart_works_as_printed_on_a_real_clip(shared_dir: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    XCLIPModel(XCLIPConfig.preset("base-patch32", num_frames=8)).save_pretrained(tmp_path / "demo/model")
    VideoTextProcessor(small_tokenizer(["waving"])).save_pretrained(tmp_path / "demo/model")
    shutil.copy(shared_dir / "data/samples/SOX5yA1l24A.mp4", tmp_path / "clip.mp4")
    quickstart = next(block for block in code_blocks("python") if "clip.mp4" in block)
    assert len([line for line in quickstart.splitlines() if line.strip()]) == 5

    done = subprocess.run(
        [sys.executable, "-c", quickstart],
        cwd=tmp_path,
        env={"PYTHONPATH": str(REPOSITORY), "HF_HUB_OFFLINE": "1", "PATH": ""},
        capture_output=True,
        text=True,
        timeout=240,
    )

    assert done.returncode == 0, done.stderr[-3000:]
    scores = eval(done.stdout)
    assert list(scores) == ["waving", "juggling a ball", "running"]
    assert abs(sum(scores.values()) - 1) < 1e-5


def test_paths_and_verbs_that_the_readme_names_exist() -> None:
    for name in re.findall(r"\]\(([^)#:]+)\)", README) + re.findall(r"\b(recipes/\w+\.yaml)", README):
        assert (REPOSITORY / name).exists(), name
    makefile = (REPOSITORY / "Makefile").read_text("utf-8")
    for verb in re.findall(r"^make ([a-z-]+)", README, flags=re.MULTILINE):
        assert f"\n{verb}:" in makefile, verb
