"""`kinetext scan` and `kinetext prepare` as they are used, and manifests in training and evaluation."""

import os
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from rendered_clips import render_clip
from testing_utils import run_cli, tiny_model

from kinetext import VideoTextProcessor
from kinetext.data.annotations import MAX_FAILED_SHARE, clips_from_folder
from kinetext.data.manifest import Manifest, UnreadableVideo
from kinetext.data.reencode import MIN_PSNR_DB
from kinetext.data.small_tokenizer import small_tokenizer
from kinetext.training.arguments import DataArguments
from kinetext.training.clips import read_splits


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """clips/<class>/<number>.mp4 of two classes, three of them broken; recipe.yaml; a model."""
    folder = tmp_path_factory.mktemp("world")
    for number in range(5):
        name = ("running", "waving")[number % 2]
        (folder / "clips" / name).mkdir(parents=True, exist_ok=True)
        content = render_clip(
            folder / "clips" / name / f"{number}.mp4", 6 + number, codec_options={"bf": "0"}
        ).read_bytes()
    (folder / "clips/waving/cut.mp4").write_bytes(content[: len(content) // 2])
    (folder / "clips/waving/empty.mp4").write_bytes(b"")
    (folder / "clips/running/page.webm").write_text("<html>")
    (folder / "clips/list.csv").write_text("path,label\n")
    (folder / "recipe.yaml").write_text("model: none\ntrain: .\n")
    files = sorted((folder / "clips").glob("*/*.*"))
    (folder / "test.txt").write_text("".join(f"{file.parent.name}/{file.name} {file.parent.name}\n" for file in files))
    protocol = {"dataset": "my/clips", "classes": ["running", "waving"], "templates": "{}"}
    (folder / "protocol.yaml").write_text(
        yaml.safe_dump({**protocol, "splits": [{"name": "all", "clips": "test.txt"}]})
    )
    tokenizer = small_tokenizer(["running", "waving"])
    torch.manual_seed(0)
    tiny_model(num_frames=4, text={"vocab_size": len(tokenizer), "max_position_embeddings": 77}).save_pretrained(
        folder / "model"
    )
    VideoTextProcessor(tokenizer, num_frames=4, crop_size=32).save_pretrained(folder / "model")
    assert run_cli("scan", folder / "clips", "--out", folder / "manifest.parquet", "--jobs", 1).exit_code == 0
    return folder


def test_scan_says_what_there_is_and_names_what_is_broken(world: Path, tmp_path: Path) -> None:
    done = run_cli("scan", world / "clips", "--out", tmp_path / "m.parquet", columns=200)
    assert done.exit_code == 0, done.output
    assert "5 of 8 videos can be read (8 read now)" in done.output
    for shown in ("h264 (5)", "160x96 (5)", "waving/cut.mp4", "waving/empty.mp4", "running/page.webm", "median"):
        assert shown in done.output
    again = run_cli("scan", world / "clips", "--out", tmp_path / "m.parquet")
    assert "(0 read now)" in again.output
    assert sum(entry.readable for entry in Manifest.read(tmp_path / "m.parquet").entries.values()) == 5


def test_scan_of_nothing_is_an_error_of_one_line(tmp_path: Path) -> None:
    done = run_cli("scan", tmp_path, "--out", tmp_path / "m.parquet")
    assert done.exit_code == 1 and f"error: there is no video below {tmp_path}" in done.output
    assert not (tmp_path / "m.parquet").exists()


@pytest.mark.parametrize("protocol", [("recipe.yaml",), ("protocol.yaml", "--lists", ".")])
def test_results_are_the_same_with_and_without_a_manifest(
    protocol: tuple[str, ...], world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(world)
    written = {}
    for name, options in {"without": (), "told": ("--manifest", "manifest.parquet")}.items():
        places = ("--protocol", *protocol, "--data-root", "clips", "--out", tmp_path / name)
        done = run_cli("eval", "model", *places, *options)
        assert done.exit_code == 0, done.output
        written[name] = [(tmp_path / name / file).read_bytes() for file in ("results.json", "predictions.parquet")]
    assert written["without"] == written["told"]
    assert b"waving/cut.mp4" in written["told"][0]


def test_a_recipe_names_its_manifest(world: Path) -> None:
    places = {"data_root": str(world / "clips"), "train": "."}
    splits = read_splits(DataArguments(**places, manifest=str(world / "manifest.parquet"), hold_out=["[0c]*"]))
    assert splits.eval is not None
    both = [*splits.train.clips, *splits.eval.clips]
    broken = {clip.clip_id for clip in both if isinstance(clip.source, UnreadableVideo)}
    assert broken == {"waving/cut.mp4", "waving/empty.mp4", "running/page.webm"}
    with pytest.raises(ValueError, match="manifest needs a list of clips, and streaming has none"):
        read_splits(DataArguments(**places, manifest="any", streaming=True))
    with pytest.raises(FileNotFoundError, match="there is no manifest at none.parquet"):
        read_splits(DataArguments(**places, manifest="none.parquet"))


def test_prepare_says_what_it_did_and_what_it_bought(world: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = run_cli("prepare", world / "clips", out, "--short-side", 64, "--shards", 1, columns=200)
    assert done.exit_code == 1, done.output  # training on the rest would not be noticed
    assert f"error: 3 of 8 videos failed and are not in {out}: more than max_failed_share=0.1 of them" in done.output
    said = ("5 of 8 videos are in", "(5 encoded now)", "waving/cut.mp4", "1 lists stay where they are, e.g. list.csv")
    assert [text for text in (*said, "PSNR", "packed into 1 shards", "× as fast") if text not in done.output] == []
    assert len(clips_from_folder(out)) == 5
    refused = run_cli("prepare", world / "clips", out, "--short-side", 32)
    assert refused.exit_code == 1 and "short_side was 64, not 32" in refused.output


def test_prepare_succeeds_where_as_few_failed_as_training_allows(world: Path, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for number in range(10):
        os.link(world / "clips/waving/1.mp4", tmp_path / f"in/{number}.mp4")
    (tmp_path / "in/0.mp4").unlink()
    (tmp_path / "in/0.mp4").write_bytes(b"")
    done = run_cli("prepare", tmp_path / "in", tmp_path / "out", "--short-side", 32)
    assert done.exit_code == 0 and "9 of 10 videos" in done.output
    told = " ".join(run_cli("prepare", "--help").output.split())
    assert f"{MIN_PSNR_DB:g} dB" in told and MAX_FAILED_SHARE == 0.1 and "more than a tenth" in told


def test_prepare_checks_what_cannot_be_packed_before_it_encodes(world: Path, tmp_path: Path) -> None:
    (tmp_path / "flat").mkdir()
    shutil.copy(world / "clips/waving/1.mp4", tmp_path / "flat")
    done = run_cli("prepare", tmp_path / "flat", tmp_path / "out", "--shards", 1)
    assert done.exit_code == 1 and "1.mp4 is not <class>/<clip>" in done.output
    assert not (tmp_path / "out").exists()


def test_of_no_readable_video_prepare_fails(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a.mp4").write_bytes(b"")
    done = run_cli("prepare", tmp_path / "in", tmp_path / "out")
    assert done.exit_code == 1 and "0 of 1 videos" in done.output
