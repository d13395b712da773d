"""FSDP2 on two CPU processes: models whose weights are cut compute, train, evaluate and save as whole ones do."""

from __future__ import annotations

import copy
import csv
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate.utils import FullyShardedDataParallelPlugin
from safetensors.torch import load_file
from sharded_processes import compare_with_whole, train_in_parts
from testing_utils import largest_difference, tiny_model, tiny_moted_fields
from training_runs import TINY_MODEL, Run, last_checkpoint, logged_losses, render_clips, start, write_recipe
from transformers import AutoModel

from kinetext import VideoTextTrainingArguments
from kinetext.evaluation.results import read_result
from kinetext.training.lora import add_lora
from kinetext.training.sharding import check_sharding


def test_cut_models_have_the_loss_and_the_gradients_of_whole_ones(tmp_path: Path) -> None:
    start(tmp_path / "log", num_processes=2, job=compare_with_whole).finish()


@pytest.fixture(scope="module")
def clips_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """32 clips to train on; of these 5 to evaluate, so that processes have different numbers of batches."""
    root = render_clips(tmp_path_factory.mktemp("clips"))
    listed = sorted(root.glob("train/*/*.mp4"))[::7]
    with (root / "eval.csv").open("w", newline="") as file:
        rows = [(path.relative_to(root), path.parent.name) for path in listed]
        csv.writer(file).writerows([("path", "label"), *rows])
    return root


def model_fields() -> dict[str, Any]:
    fields = copy.deepcopy(TINY_MODEL)
    fields["vision_config"]["drop_path_rate"] = 0.0
    return fields


def begin(output: Path, clips_root: Path, num_processes: int, **settings: Any) -> Run:
    """4 steps with evaluation and a checkpoint after the second; on several processes under FSDP2."""
    recipe: dict[str, Any] = {"model_config": model_fields(), "eval": "eval.csv", "ema_decay": None, "max_steps": 4}
    recipe |= {"warmup_steps": 1, "save_steps": 2, "eval_steps": 2, "logging_steps": 1}
    recipe |= {"adam_epsilon": 1e-4}  # test_layouts.py says why
    recipe |= {"dataloader_num_workers": 0, "per_device_eval_batch_size": 1, "resume": "auto", **settings}
    arguments = [write_recipe(output.with_suffix(".yaml"), **recipe), "--data_root", clips_root]
    job: Any = {} if num_processes == 1 else {"job": train_in_parts}
    return start(output.with_suffix(".log"), *arguments, "--output_dir", output, num_processes=num_processes, **job)


def train(output: Path, clips_root: Path, num_processes: int, **settings: Any) -> Path:
    begin(output, clips_root, num_processes, **settings).finish()
    return output


def assert_same_run(whole: Path, cut: Path) -> None:
    for (step, loss, norm), (other_step, other_loss, other_norm) in zip(
        logged_losses(whole), logged_losses(cut), strict=True
    ):
        assert (other_step, other_loss, other_norm) == (step, pytest.approx(loss, rel=1e-5), pytest.approx(norm, 1e-4))
    weights, others = (load_file(folder / "model.safetensors") for folder in (whole, cut))
    assert weights.keys() == others.keys()
    assert max(largest_difference(value, others[name]) for name, value in weights.items()) <= 1e-5
    scores, other_scores = (
        [prediction.score for result in read_result(folder).splits.values() for prediction in result.predictions]
        for folder in (whole, cut)
    )
    assert len(scores) == 5 and other_scores == pytest.approx(scores, abs=1e-4)


def test_a_run_in_parts_learns_evaluates_and_saves_as_a_whole_one(clips_root: Path, tmp_path: Path) -> None:
    whole, cut = (train(tmp_path / str(count), clips_root, count) for count in (1, 2))

    assert_same_run(whole, cut)
    names, others = (sorted(path.name for path in folder.iterdir()) for folder in (whole, cut))
    assert others == names
    assert (cut / "config.json").read_text() == (whole / "config.json").read_text()
    assert AutoModel.from_pretrained(cut).logit_scale.shape == ()


MOTED = json.loads(tiny_moted_fields())
SETTINGS: dict[str, dict[str, Any]] = {
    "video_clip": {  # text tower and logit scale learn, too
        "architecture": "video_clip",
        "model_config": {name: MOTED[name] for name in ("projection_dim", "text_config", "vision_config")},
    },
    "linear": {"head": "linear"},
    "moted": {
        "architecture": "moted",
        "model_config": MOTED,
        "descriptions": "motion_shapes",
    },
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", SETTINGS)
def test_so_do_runs_of_other_models(kind: str, clips_root: Path, tmp_path: Path) -> None:
    whole, cut = (train(tmp_path / str(count), clips_root, count, **SETTINGS[kind]) for count in (1, 2))

    assert_same_run(whole, cut)


@pytest.mark.slow
def test_a_run_in_parts_goes_on_from_its_checkpoint(clips_root: Path, tmp_path: Path) -> None:
    output = train(tmp_path / "out", clips_root, 2, train_text=True)
    weights, losses = load_file(output / "model.safetensors"), logged_losses(output)
    shutil.rmtree(last_checkpoint(output))
    assert last_checkpoint(output).name == "checkpoint-2"

    train(tmp_path / "out", clips_root, 2, train_text=True)
    again = load_file(output / "model.safetensors")
    assert logged_losses(output) == losses
    assert all(torch.equal(value, again[name]) for name, value in weights.items())


@pytest.fixture
def check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """`check_sharding` of settings that work, but for what is given."""
    monkeypatch.setenv("FSDP_CPU_RAM_EFFICIENT_LOADING", "false")  # to be restored: the plugin sets it

    def check(model: Any = None, *, ema_decay: float | None = None, torch_compile: bool = False, **plugin: Any) -> None:
        working = {"fsdp_version": 2, "state_dict_type": "FULL_STATE_DICT", "cpu_ram_efficient_loading": False}
        options: dict[str, Any] = {"use_cpu": True, "ema_decay": ema_decay, "torch_compile": torch_compile}
        arguments = VideoTextTrainingArguments(output_dir=str(tmp_path), **options)
        check_sharding(model or tiny_model(), FullyShardedDataParallelPlugin(**{**working, **plugin}), arguments)

    return check


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"fsdp_version": 1}, "- fsdp_version: 1"),
        (
            {"state_dict_type": "SHARDED_STATE_DICT"},
            "- .* other than FULL_STATE_DICT: checkpoints would lack the model",
        ),
        ({"cpu_ram_efficient_loading": True}, "- fsdp_cpu_ram_efficient_loading: class texts"),
        ({"torch_compile": True}, "- torch_compile: never tried"),
        ({"ema_decay": 0.9}, "- ema_decay: the averages"),
    ],
)
def test_what_does_not_work_on_parts_is_refused(check: Any, settings: dict[str, Any], message: str) -> None:
    check()
    with pytest.raises(ValueError, match=message):
        check(**settings)


def test_adapters_are_refused(check: Any) -> None:
    model = tiny_model()
    add_lora(model, rank=2, alpha=4)
    with pytest.raises(ValueError, match="- lora_rank: adapters"):
        check(model)


def test_a_run_asks_before_it_cuts(clips_root: Path, tmp_path: Path) -> None:
    run = begin(tmp_path / "out", clips_root, 2, ema_decay=0.9)

    assert run.wait() == [1, 1]
    assert "- ema_decay: the averages would be in parts too" in run.output()
