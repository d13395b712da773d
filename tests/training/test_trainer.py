"""The trainer on real clips: what learns, what is saved and evaluated, and what changes nothing."""

from __future__ import annotations

import json
import re
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from testing_utils import largest_difference, tiny_config, tiny_moted
from training_runs import checkpoint_content, render_clips
from transformers import TrainerCallback

from kinetext import MotedModel, VideoTextProcessor, VideoTextTrainer, VideoTextTrainingArguments, XCLIPModel
from kinetext.data.annotations import Clip, ClipList, read_clips, text_of_class
from kinetext.data.augmentation import Augmentation
from kinetext.data.datasets import EvalClips, TrainClips
from kinetext.data.motion_shapes import SEEN_CLASSES
from kinetext.data.small_tokenizer import small_tokenizer
from kinetext.descriptions import load_descriptions
from kinetext.training.arguments import ModelArguments
from kinetext.training.build import build_model
from kinetext.training.lora import add_lora


@pytest.fixture(scope="session")
def clips(tmp_path_factory: pytest.TempPathFactory) -> ClipList:
    """12 clips of 4 of the 16 classes."""
    root = render_clips(tmp_path_factory.mktemp("clips"), per_class=3)
    return read_clips("train", data_root=root, class_names=SEEN_CLASSES)


@pytest.fixture(scope="session")
def processor() -> VideoTextProcessor:
    return VideoTextProcessor(small_tokenizer(SEEN_CLASSES), num_frames=4, crop_size=32, short_side=36)


def make_trainer(
    clips: ClipList,
    processor: VideoTextProcessor,
    output: Path,
    *,
    model: Any = None,
    trained: dict[str, bool] | None = None,
    augment_on: str = "workers",
    seed: int = 0,
    **settings: Any,
) -> VideoTextTrainer:
    """A trainer of 12 clips in 3 steps an epoch; of a tiny X-CLIP unless another model is given."""
    if model is None:
        torch.manual_seed(0)
        model = XCLIPModel(tiny_config(text={"vocab_size": len(processor.tokenizer)}))
        model.set_trainable(**(trained or {}))
    options = {"per_device_train_batch_size": 4, "max_steps": 3, "warmup_steps": 1, "logging_steps": 1, "seed": seed}
    options |= {"save_strategy": "no", "eval_strategy": "no", "learning_rate": 1e-3, "use_cpu": True}
    return VideoTextTrainer(
        model,
        VideoTextTrainingArguments(
            output_dir=str(output), **{"report_to": "none", "disable_tqdm": True, **options, **settings}
        ),
        processing_class=processor,
        class_texts=[text_of_class(name) for name in clips.class_names],
        train_dataset=TrainClips(clips, processor, seed=seed, augmentation=Augmentation(), augment_on=augment_on),
        eval_dataset=EvalClips(clips, processor),
    )


def make_moted_trainer(clips: ClipList, processor: VideoTextProcessor, output: Path, **settings) -> VideoTextTrainer:
    moving = VideoTextProcessor(processor.tokenizer, **{**processor.contract, "motion_frame_ratio": 2})
    model = tiny_moted(num_frames=4, vocab_size=len(processor.tokenizer), max_tokens=77)
    trainer = make_trainer(clips, moving, output, model=model, **settings)
    trainer.descriptions = load_descriptions("motion_shapes").for_classes(clips.class_names)
    return trainer


def weights(trainer: VideoTextTrainer) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in trainer.model.state_dict().items()}


def losses(trainer: VideoTextTrainer) -> list[float]:
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


def assert_same_weights(one: VideoTextTrainer, other: VideoTextTrainer, *, tolerance: float = 0.0) -> None:
    left, right = weights(one), weights(other)
    assert left.keys() == right.keys()
    assert max(largest_difference(left[name], right[name]) for name in left) <= tolerance


# What learns


def test_training_lowers_the_loss_and_leaves_the_frozen_text_alone(clips, processor, tmp_path) -> None:
    trainer = make_trainer(clips, processor, tmp_path, max_steps=40)
    before = weights(trainer)
    trainer.train()
    after = weights(trainer)

    assert sum(losses(trainer)[-9:]) < 0.75 * sum(losses(trainer)[:9])
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed and not any(name.startswith(("text_model", "text_projection", "logit_scale")) for name in changed)


def test_a_text_tower_that_learns_is_encoded_in_every_step(clips, processor, tmp_path) -> None:
    trainer = make_trainer(clips, processor, tmp_path, trained={"text": True})
    before = weights(trainer)
    trainer.train()

    after = weights(trainer)
    for name in ("text_projection.weight", "text_model.encoder.layers.0.mlp.fc1.weight", "logit_scale"):
        assert not torch.equal(before[name], after[name])


def test_what_a_text_tower_has_learnt_since_the_last_evaluation_counts(clips, processor, tmp_path) -> None:
    # transformers' default optimiser is fused, and PyTorch does not count what it does to a tensor.
    trainer = make_trainer(clips, processor, tmp_path, trained={"text": True}, optim="adamw_torch_fused")
    trainer.evaluate()
    trainer.train()
    result = trainer.evaluation_result()
    trainer.save_model(str(tmp_path / "model"))

    other = make_trainer(clips, processor, tmp_path, model=XCLIPModel.from_pretrained(tmp_path / "model"))
    assert result == other.evaluation_result()


def test_moted_trains_all_it_adds_and_encodes_its_texts_once(clips, processor, tmp_path, monkeypatch) -> None:
    trainer = make_moted_trainer(clips, processor, tmp_path, warmup_steps=0, max_steps=2, warmup_epochs=0)
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


def test_a_linear_classifier_learns_without_texts(clips, tmp_path) -> None:
    from training_runs import TINY_MODEL

    arguments = ModelArguments(model_config=json.dumps(TINY_MODEL), head="linear", num_frames=4, short_side=36)
    model, own = build_model(arguments, clips.class_names, class_names=clips.class_names)
    trainer = make_trainer(clips, own, tmp_path, model=model)
    trainer.class_texts = None
    before = weights(trainer)["classifier.weight"]
    trainer.train()

    assert not torch.equal(before, weights(trainer)["classifier.weight"])
    assert trainer.evaluate()["eval_num_decoded"] == 12


# What changes nothing


def test_workers_change_nothing(clips, processor, tmp_path) -> None:
    alone = make_trainer(clips, processor, tmp_path / "a", max_steps=5)
    helped = make_trainer(clips, processor, tmp_path / "b", max_steps=5, dataloader_num_workers=2)
    alone.train()
    helped.train()

    assert_same_weights(alone, helped)


def test_finishing_pixels_on_the_accelerator_changes_nothing(clips, processor, tmp_path) -> None:
    in_workers = make_trainer(clips, processor, tmp_path / "a")
    there = make_trainer(clips, processor, tmp_path / "b", augment_on="accelerator")
    in_workers.train()
    there.train()

    assert losses(there) == losses(in_workers)
    assert_same_weights(there, in_workers)


def test_activation_checkpointing_changes_nothing(clips, processor, tmp_path) -> None:
    plain = make_trainer(clips, processor, tmp_path / "a")
    saving = make_trainer(clips, processor, tmp_path / "b", activation_checkpointing=True)
    plain.train()
    saving.train()

    assert saving.model.is_activation_checkpointing and not plain.model.is_activation_checkpointing
    assert losses(saving) == pytest.approx(losses(plain), abs=1e-6)
    assert_same_weights(saving, plain, tolerance=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_compiling_changes_nothing_but_rounding(clips, processor, tmp_path, backend) -> None:
    plain = make_trainer(clips, processor, tmp_path / "a", adam_epsilon=1e-6)
    compiled = make_trainer(
        clips, processor, tmp_path / "b", adam_epsilon=1e-6, torch_compile=True, torch_compile_backend=backend
    )
    plain.train()
    compiled.train()

    assert losses(compiled) == pytest.approx(losses(plain), abs=1e-5)
    assert_same_weights(compiled, plain, tolerance=1e-4)


def test_bf16_trains_on_a_cpu_close_to_fp32(clips, processor, tmp_path) -> None:
    full = make_trainer(clips, processor, tmp_path / "a")
    half = make_trainer(clips, processor, tmp_path / "b", bf16=True)
    full.train()
    half.train()

    assert losses(half) != losses(full)
    assert losses(half) == pytest.approx(losses(full), abs=0.1)
    assert all(value.dtype == torch.float32 for value in weights(half).values() if value.is_floating_point())


def test_the_seed_decides(clips, processor, tmp_path) -> None:
    one, other = (make_trainer(clips, processor, tmp_path / str(seed), seed=seed) for seed in (0, 1))
    one.train()
    other.train()

    assert losses(one) != losses(other)


# Batches


def test_each_epoch_is_in_another_order_and_leaves_out_what_fills_no_batch(clips, processor, tmp_path) -> None:
    trainer = make_trainer(clips, processor, tmp_path, per_device_train_batch_size=10, max_steps=3)
    seen: list[tuple[str, ...]] = []
    blended = trainer._blended
    trainer._blended = lambda inputs: seen.append(tuple(inputs["clip_ids"])) or blended(inputs)  # type: ignore[assignment]
    trainer.train()

    assert [len(set(epoch)) for epoch in seen] == [10, 10, 10]
    everything = {clip.clip_id for clip in clips.clips}
    assert len({frozenset(everything - set(epoch)) for epoch in seen}) > 1  # other clips are left out
    assert len(set(seen)) == 3


def test_the_last_batch_is_kept_on_request(clips, processor, tmp_path) -> None:
    options = {"per_device_train_batch_size": 8, "max_steps": -1, "num_train_epochs": 1, "warmup_epochs": 0}
    kept = make_trainer(clips, processor, tmp_path / "a", dataloader_drop_last=False, warmup_steps=0, **options)
    dropped = make_trainer(clips, processor, tmp_path / "b", warmup_steps=0, **options)
    kept.train()
    dropped.train()

    assert (kept.state.global_step, dropped.state.global_step) == (2, 1)


def test_clips_that_fill_no_batch_are_refused(clips, processor, tmp_path) -> None:
    with pytest.raises(ValueError, match="12 clips do not fill one batch of 16, so an epoch would hold none"):
        make_trainer(clips, processor, tmp_path, per_device_train_batch_size=16)


def test_clips_that_are_blended_come_in_pairs(clips, processor, tmp_path) -> None:
    message = "blend clips two by two, but a process takes 3 at once"
    with pytest.raises(ValueError, match=message):
        make_trainer(clips, processor, tmp_path, per_device_train_batch_size=3)
    make_trainer(clips, processor, tmp_path, per_device_train_batch_size=3, mixup_alpha=0.0, cutmix_alpha=0.0)


def test_a_clip_that_is_blended_with_itself_is_said_so(clips, processor, tmp_path, caplog) -> None:
    make_trainer(clips, processor, tmp_path, per_device_train_batch_size=1, mixup_alpha=0.0, cutmix_alpha=0.0)
    assert not caplog.records
    make_trainer(clips, processor, tmp_path, per_device_train_batch_size=1)
    assert "takes one clip at once, so Mixup and CutMix have no other to blend it with" in caplog.text


# A loss that is not finite


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_stops_and_names_the_clips(clips, processor, tmp_path, value) -> None:
    trainer = make_trainer(clips, processor, tmp_path, max_steps=3)

    def spoil(module: Any, inputs: Any, output: Any) -> None:
        if trainer.state.global_step == 1:
            output.loss.fill_(value)

    trainer.model.register_forward_hook(spoil)
    seen: list[list[str]] = []
    blended = trainer._blended
    trainer._blended = lambda inputs: seen.append(inputs["clip_ids"]) or blended(inputs)  # type: ignore[assignment]
    message = f"the loss is {value} at step 1 on process 0, clips "
    with pytest.raises(FloatingPointError, match=re.escape(message)) as stopped:
        trainer.train()
    assert str(seen[-1]) in str(stopped.value) and len(seen) == 2


def test_weights_that_are_not_finite_stop_the_run_before_a_checkpoint(clips, processor, tmp_path) -> None:
    trainer = make_trainer(clips, processor, tmp_path, save_strategy="steps", save_steps=1)
    with torch.no_grad():
        trainer.model.visual_projection.weight.fill_(float("nan"))

    with pytest.raises(FloatingPointError, match="the loss is nan at step 0"):
        trainer.train()
    assert not list(tmp_path.glob("checkpoint-*"))


# Gradients and averages


def test_gradients_are_clipped_to_their_norm(clips, processor, tmp_path) -> None:
    def norms(limit: float) -> list[float]:
        """Of the gradients that the optimizer gets."""
        trainer = make_trainer(clips, processor, tmp_path, max_grad_norm=limit)
        found = []
        parameters = [parameter for parameter in trainer.model.parameters() if parameter.requires_grad]
        trainer.create_optimizer().register_step_pre_hook(
            lambda *_: found.append(float(torch.nn.utils.get_total_norm([one.grad for one in parameters])))
        )
        trainer.train()
        return found

    assert norms(0.01) == [pytest.approx(0.01, rel=1e-3)] * 3
    assert all(norm > 0.1 for norm in norms(0.0))


def test_averages_are_evaluated_and_saved_and_checkpoints_hold_both(clips, processor, tmp_path) -> None:
    plain = make_trainer(clips, processor, tmp_path / "plain", save_strategy="steps", save_steps=1, save_total_limit=9)
    plain.train()
    averaged = make_trainer(
        clips, processor, tmp_path / "averaged", ema_decay=0.75, save_strategy="steps", save_steps=3
    )
    averaged.train()

    name = "visual_projection.weight"
    torch.manual_seed(0)
    expected = XCLIPModel(tiny_config(text={"vocab_size": len(processor.tokenizer)})).state_dict()[name]
    for step in (1, 2, 3):
        raw = load_file(tmp_path / f"plain/checkpoint-{step}/model.safetensors")[name]
        expected = 0.75 * expected + 0.25 * raw
    saved = load_file(tmp_path / "averaged/checkpoint-3/averages.safetensors")
    assert largest_difference(saved[name], expected) < 1e-6
    assert saved.keys() == {key for key, value in averaged.model.named_parameters() if value.requires_grad}
    assert torch.equal(load_file(tmp_path / "averaged/checkpoint-3/model.safetensors")[name], raw)

    assert_same_weights(averaged, plain)
    scores = [one.score for one in averaged.evaluation_result().predictions]
    with averaged.averaged_weights():
        inside = averaged.evaluation_result()
        averaged.save_model(str(tmp_path / "final"))
    assert torch.equal(load_file(tmp_path / "final/model.safetensors")[name], saved[name])
    assert scores == [one.score for one in inside.predictions]
    assert scores != [one.score for one in plain.evaluation_result().predictions]


# Checkpoints


def test_a_checkpoint_continues_as_if_never_stopped(clips, processor, tmp_path) -> None:
    """Also with LoRA, and a text tower that learns; kills and processes are in test_resume."""
    for name in ("lora", "text"):
        trainers = []
        for part, save_steps in (("whole", 6), ("half", 4)):
            torch.manual_seed(0)
            model = XCLIPModel(tiny_config(text={"vocab_size": len(processor.tokenizer)}))
            model.set_trainable(text=name == "text")
            if name == "lora":
                add_lora(model, rank=2, alpha=4)
            folder = tmp_path / name / part
            options = {"max_steps": 6, "save_strategy": "steps", "save_steps": save_steps, "ema_decay": 0.5}
            trainers.append(make_trainer(clips, processor, folder, model=model, **options))
        whole, half = trainers
        whole.train()
        half.train()
        torch.manual_seed(9)
        model = XCLIPModel(tiny_config(text={"vocab_size": len(processor.tokenizer)}))
        model.set_trainable(text=name == "text")
        if name == "lora":
            add_lora(model, rank=2, alpha=4)
        resumed = make_trainer(clips, processor, half.args.output_dir, model=model, **options)
        resumed.train(resume_from_checkpoint=f"{half.args.output_dir}/checkpoint-4")
        assert_same_weights(resumed, whole)
        left, right = resumed.averages.state_dict(), whole.averages.state_dict()
        assert all(torch.equal(value, right[key]) for key, value in left.items())


def test_a_finished_run_takes_no_further_step(clips, processor, tmp_path) -> None:
    options = {"max_steps": 4, "save_strategy": "steps", "save_steps": 4}  # in the middle of the second epoch
    whole = make_trainer(clips, processor, tmp_path, **options)
    whole.train()
    again = make_trainer(clips, processor, tmp_path, **options)
    again.train(resume_from_checkpoint=str(tmp_path / "checkpoint-4"))

    assert again.state.global_step == 4
    assert_same_weights(again, whole)


@pytest.mark.parametrize("step, evaluations", [(1, 0), (3, 1)])
def test_a_run_that_is_asked_to_stop_evaluates_only_where_an_epoch_ends(
    clips, processor, tmp_path, step, evaluations
) -> None:
    trainer = make_trainer(clips, processor, tmp_path, max_steps=6, eval_strategy="epoch", save_strategy="epoch")

    class Asks(TrainerCallback):
        def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if state.global_step == step - 1:
                signal.raise_signal(signal.SIGTERM)

    trainer.add_callback(Asks())
    trainer.train()

    assert trainer.was_terminated and [path.name for path in tmp_path.iterdir()] == [f"checkpoint-{step}"]
    state = json.loads((tmp_path / f"checkpoint-{step}/trainer_state.json").read_text())
    assert sum("eval_top1" in entry for entry in state["log_history"]) == evaluations
    assert (state["best_metric"] is not None) == (evaluations == 1)


def test_the_best_checkpoint_is_kept_and_loaded_with_its_averages(clips, processor, tmp_path) -> None:
    options: dict[str, Any] = {"max_steps": 9, "save_strategy": "steps", "save_steps": 1, "eval_strategy": "steps"}
    options |= {"eval_steps": 1, "load_best_model_at_end": True, "save_total_limit": 2, "ema_decay": 0.5}
    trainer = make_trainer(clips, processor, tmp_path, **options)
    scores = iter([0.1, 0.2, 0.9, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8])
    evaluate = trainer.evaluate
    trainer.evaluate = lambda *args, **kw: {**evaluate(*args, **kw), "eval_top1": next(scores)}  # type: ignore[method-assign]
    trainer.train()

    assert {path.name for path in tmp_path.glob("checkpoint-*")} == {"checkpoint-3", "checkpoint-9"}
    assert trainer.state.best_model_checkpoint == str(tmp_path / "checkpoint-3")
    state = json.loads((tmp_path / "checkpoint-9/trainer_state.json").read_text())
    assert state["best_model_checkpoint"] == str(tmp_path / "checkpoint-3")
    assert checkpoint_content(tmp_path / "checkpoint-3")
    best = load_file(tmp_path / "checkpoint-3/averages.safetensors")
    with trainer.averaged_weights():
        now = weights(trainer)
    assert all(torch.equal(now[name], value) for name, value in best.items())


# Evaluation and launching


def test_evaluation_counts_every_clip_once(clips, processor, tmp_path) -> None:
    metrics = make_trainer(clips, processor, tmp_path).evaluate()

    assert metrics["eval_num_listed"] == metrics["eval_num_decoded"] == 12
    assert metrics["eval_top1"] == metrics["eval_top1_count"] / 12


def test_steps_say_speed_rates_and_failures(clips, processor, tmp_path) -> None:
    listed = ClipList((*clips.clips, Clip("gone.mp4", str(tmp_path / "gone.mp4"), 0)), clips.class_names)
    trainer = make_trainer(listed, processor, tmp_path, max_steps=6, dataloader_drop_last=False)
    trainer.max_failed_share = 1.0
    trainer.train()

    entries = [entry for entry in trainer.state.log_history if "loss" in entry]
    for entry in entries:
        assert entry["clips_per_second"] > 0 and 0 < entry["data_wait"] < 1
        assert entry["learning_rate/new"] == pytest.approx(entry["learning_rate/clip"] * 10, rel=0.2, abs=1e-4)
    assert entries[-1]["failed_clips"] == 1
    assert trainer.failed_clips.keys() == {"gone.mp4"} and "gone.mp4" in trainer.failed_clips["gone.mp4"]


def test_processes_that_do_not_know_each_other_are_refused(clips, processor, tmp_path, monkeypatch) -> None:
    args = VideoTextTrainingArguments(output_dir=str(tmp_path), use_cpu=True)
    assert args.world_size == 1  # fixed here, before the launcher's variable appears
    monkeypatch.setenv("WORLD_SIZE", "2")
    model = XCLIPModel(tiny_config(text={"vocab_size": len(processor.tokenizer)}))

    with pytest.raises(ValueError, match="2 processes.* 1 would train together"):
        VideoTextTrainer(model, args, processing_class=processor, class_texts=["a", "b"])


def test_a_result_is_of_the_weights_that_it_was_measured_on(clips, processor, tmp_path) -> None:
    trainer = make_trainer(clips, processor, tmp_path, max_steps=4, eval_strategy="steps", eval_steps=2)
    seen: dict[int, bool] = {}

    class Looks(TrainerCallback):
        def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            seen[state.global_step] = trainer.last_result is not None

    trainer.add_callback(Looks())
    trainer.train()
    assert seen == {0: False, 1: False, 2: True, 3: False}


def test_several_gpus_in_one_process_are_refused(clips, processor, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(VideoTextTrainingArguments, "n_gpu", 2)
    with pytest.raises(ValueError, match="torch sees 2 GPUs in one process; use accelerate launch --multi_gpu"):
        make_trainer(clips, processor, tmp_path)
