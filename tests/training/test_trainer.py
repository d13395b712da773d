"""The trainer on real clips: it learns, and processes, workers, accumulation and interruptions change nothing."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from testing_utils import tiny_config, tiny_moted

from kinetext import MotedModel, VideoTextProcessor, VideoTextTrainer, VideoTextTrainingArguments, XCLIPModel
from kinetext.data.annotations import ClipList, read_clips, text_of_class
from kinetext.data.datasets import Augmentation, EvalClips, TrainClips
from kinetext.data.motion_shapes import SEEN_CLASSES, write_motion_shapes
from kinetext.data.small_tokenizer import small_tokenizer
from kinetext.descriptions import load_descriptions
from kinetext.training.trainer import _check_world_size

REPOSITORY = Path(__file__).resolve().parents[2]
CLASSES = ("growing", "moving_left", "shrinking")


@pytest.fixture(scope="session")
def clips_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("motion") / "clips"
    write_motion_shapes(root, train_per_class=3, validation_per_class=2, unseen_per_class=1, size=32, num_frames=8)
    return root


@pytest.fixture(scope="session")
def processor() -> VideoTextProcessor:
    return VideoTextProcessor(small_tokenizer(SEEN_CLASSES), num_frames=4, crop_size=32, short_side=36)


def make_trainer(root: Path, processor: VideoTextProcessor, output: Path, **settings) -> VideoTextTrainer:
    train_text = settings.pop("train_text", False)
    everything = read_clips("train", data_root=root)
    index_of = {name: index for index, name in enumerate(everything.class_names)}
    kept = tuple(clip for clip in everything.clips if clip.label in {index_of[name] for name in CLASSES})
    clips = ClipList(kept, everything.class_names)
    torch.manual_seed(0)
    model = XCLIPModel(tiny_config(text={"vocab_size": len(processor.tokenizer)}))
    options = {"per_device_train_batch_size": 3, "num_train_epochs": 2, "report_to": "none", "disable_tqdm": True}
    options |= {"save_strategy": "no", "eval_strategy": "no", "learning_rate": 1e-3, "use_cpu": True, **settings}
    return VideoTextTrainer(
        model,
        VideoTextTrainingArguments(output_dir=str(output), **options),
        processing_class=processor,
        class_texts=[text_of_class(name) for name in clips.class_names],
        train_dataset=TrainClips(clips, processor, seed=0, augmentation=Augmentation()),
        eval_dataset=EvalClips(clips, processor),
        train_text=train_text,
    )


def make_moted_trainer(root: Path, processor: VideoTextProcessor, output: Path, **settings) -> VideoTextTrainer:
    clips = read_clips("validation", data_root=root)
    moving = VideoTextProcessor(processor.tokenizer, **{**processor.contract, "motion_frame_ratio": 2})
    options = {"per_device_train_batch_size": 8, "max_steps": 2, "report_to": "none", "disable_tqdm": True}
    options |= {"save_strategy": "no", "eval_strategy": "no", "learning_rate": 1e-3, "use_cpu": True, **settings}
    return VideoTextTrainer(
        tiny_moted(num_frames=4, vocab_size=len(processor.tokenizer), max_tokens=77),
        VideoTextTrainingArguments(output_dir=str(output), **options),
        processing_class=moving,
        class_texts=[text_of_class(name) for name in clips.class_names],
        descriptions=load_descriptions("motion_shapes").for_classes(clips.class_names),
        train_dataset=TrainClips(clips, moving, seed=0),
        eval_dataset=EvalClips(clips, moving),
    )


def weights(trainer: VideoTextTrainer) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in trainer.model.state_dict().items()}


def test_training_lowers_the_loss_and_leaves_the_frozen_text_alone(clips_root, processor, tmp_path) -> None:
    trainer = make_trainer(clips_root, processor, tmp_path, num_train_epochs=20, logging_steps=3, learning_rate=3e-3)
    before = weights(trainer)
    trainer.train()
    after = weights(trainer)

    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert sum(losses[-3:]) < 0.75 * sum(losses[:3])
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed and not any(name.startswith(("text_model", "text_projection", "logit_scale")) for name in changed)


def test_training_the_text_changes_it_too(clips_root, processor, tmp_path) -> None:
    trainer = make_trainer(clips_root, processor, tmp_path, train_text=True, max_steps=2)
    before = weights(trainer)["text_projection.weight"]
    trainer.train()

    assert not torch.equal(before, weights(trainer)["text_projection.weight"])


def test_moted_trains_all_it_adds_and_encodes_its_texts_once(clips_root, processor, tmp_path, monkeypatch) -> None:
    trainer = make_moted_trainer(clips_root, processor, tmp_path, warmup_steps=0)
    before = weights(trainer)
    encoded = []
    original = MotedModel.encode_texts
    monkeypatch.setattr(MotedModel, "encode_texts", lambda *args, **kw: encoded.append(kw) or original(*args, **kw))
    trainer.train()
    trainer.evaluate()
    after = weights(trainer)

    changed = {name for name in before if not torch.equal(before[name], after[name])}
    # The bias of keys moves every logit of a query alike, and has no gradient but rounding.
    trained = {*trainer.model.new_parameter_names(), "logit_scale"}
    assert changed <= trained and not [name for name in trained - changed if not name.endswith("k_proj.bias")]
    assert len(encoded) == 1 and encoded[0]["description_input_ids"].shape[:2] == (16, 6)


def test_moted_keeps_its_text_tower(clips_root, processor, tmp_path) -> None:
    with pytest.raises(ValueError, match="train_text is for X-CLIP; the text tower of MoTED stays frozen"):
        VideoTextTrainer(
            tiny_moted(num_frames=4),
            VideoTextTrainingArguments(output_dir=str(tmp_path), use_cpu=True),
            processing_class=processor,
            class_texts=["a", "b"],
            train_text=True,
        )


def test_accumulating_small_batches_equals_one_large_batch(clips_root, processor, tmp_path) -> None:
    large = make_trainer(clips_root, processor, tmp_path / "a", per_device_train_batch_size=9, max_steps=3)
    small = make_trainer(
        clips_root, processor, tmp_path / "b", per_device_train_batch_size=3, gradient_accumulation_steps=3, max_steps=3
    )
    large.train()
    small.train()

    one, other = weights(large), weights(small)
    assert max(float((one[name] - other[name]).abs().max()) for name in one) < 2e-4


def test_workers_change_nothing(clips_root, processor, tmp_path) -> None:
    alone = make_trainer(clips_root, processor, tmp_path / "a")
    helped = make_trainer(clips_root, processor, tmp_path / "b", dataloader_num_workers=2)
    alone.train()
    helped.train()

    assert all(torch.equal(value, weights(helped)[name]) for name, value in weights(alone).items())


def test_a_checkpoint_continues_as_if_never_stopped(clips_root, processor, tmp_path) -> None:
    whole = make_trainer(clips_root, processor, tmp_path / "a", max_steps=6)
    whole.train()
    first = make_trainer(clips_root, processor, tmp_path / "b", max_steps=6, save_strategy="steps", save_steps=4)
    first.train()
    resumed = make_trainer(clips_root, processor, tmp_path / "b", max_steps=6)
    resumed.train(resume_from_checkpoint=str(tmp_path / "b" / "checkpoint-4"))

    assert all(torch.equal(value, weights(resumed)[name]) for name, value in weights(whole).items())


def test_evaluation_counts_every_clip_once(clips_root, processor, tmp_path) -> None:
    metrics = make_trainer(clips_root, processor, tmp_path).evaluate()

    assert metrics["eval_num_listed"] == metrics["eval_num_decoded"] == 9
    assert metrics["eval_top1"] == metrics["eval_top1_count"] / 9


def test_processes_that_do_not_know_each_other_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    args = VideoTextTrainingArguments(output_dir=str(tmp_path), use_cpu=True)
    assert args.world_size == 1  # fixed here, before the launcher's variable appears
    monkeypatch.setenv("WORLD_SIZE", "2")

    with pytest.raises(RuntimeError, match="the launcher started 2 processes but torch sees 1"):
        _check_world_size(args)


TINY_RECIPE = """
model_config:
  projection_dim: 32
  prompt_num_attention_heads: 2
  text_config: {hidden_size: 32, intermediate_size: 64, num_hidden_layers: 1, num_attention_heads: 2}
  vision_config: {hidden_size: 32, intermediate_size: 64, num_hidden_layers: 1, num_attention_heads: 2, image_size: 32,
                  patch_size: 16, mit_hidden_size: 32, mit_intermediate_size: 64, mit_num_attention_heads: 2}
num_frames: 4
train: validation
eval: validation
num_train_epochs: 1
per_device_train_batch_size: 4
report_to: none
save_strategy: "no"
eval_strategy: "no"
use_cpu: true
"""


def launch(folder: Path, data_root: Path, name: str, *launcher: str) -> dict:
    """Runs train.py as a user would; returns its results."""
    recipe = folder / "recipe.yaml"
    recipe.write_text(TINY_RECIPE)
    command = [*launcher, str(REPOSITORY / "train.py"), str(recipe)]
    command += ["--data_root", str(data_root), "--output_dir", str(folder / name)]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, cwd=folder)
    assert done.returncode == 0, done.stderr[-3000:]
    return {"output": done.stdout, **json.loads((folder / name / "results.json").read_text())}


@pytest.mark.slow
def test_two_processes_share_the_clips_and_evaluate_each_once(clips_root: Path, tmp_path: Path) -> None:
    accelerate = [str(Path(sys.executable).with_name("accelerate")), "launch", "--multi_gpu", "--num_processes", "2"]
    one = launch(tmp_path, clips_root, "one", sys.executable)
    two = launch(tmp_path, clips_root, "two", *accelerate)

    assert one["output"].startswith("1 process(es), 16 classes, 32 clips to train on, 32 to evaluate")
    assert two["output"].startswith("2 process(es), 16 classes, 32 clips to train on, 32 to evaluate")
    ids = [prediction["clip_id"] for prediction in one["predictions"]]
    assert len(set(ids)) == 32
    assert [prediction["clip_id"] for prediction in two["predictions"]] == ids
    for name in ("README.md", "model.safetensors", "processor_config.json", "modeling_xclip.py"):
        assert (tmp_path / "two" / name).is_file()
