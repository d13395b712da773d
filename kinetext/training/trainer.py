"""transformers' Trainer for videos and class texts, through its hooks.

TrainClips -> collate -> blend (Mixup, CutMix) -> model over class texts -> loss
                                                                           |
checkpoints, whole or not at all <- every step: rates, averages, failed clips, SIGTERM
"""

from __future__ import annotations

import contextlib
import json
import logging
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import gather_object
from safetensors.torch import load_file, save_file
from torch.distributed.fsdp import FSDPModule, register_fsdp_forward_method
from torch.utils.data import Sampler
from transformers import Trainer, TrainerCallback, TrainerState
from transformers.trainer import TRAINER_STATE_NAME

from ..data.annotations import MAX_FAILED_SHARE
from ..data.augmentation import finish_pixels
from ..data.datasets import EpochSampler, EvalClips, TrainClips, sample_generator
from ..data.streaming import StreamingClips
from ..data.workers import ignore_sigterm, sigterm_held
from ..evaluation.class_texts import encode_class_texts
from ..evaluation.evaluator import evaluate_clips, write_json
from ..evaluation.predictions import EvaluationResult
from ..modeling.modeling_video_text import TextBank
from ..processing.processing_video_text import VideoTextProcessor
from ..processing.video_decoding import VideoDecodeError
from .arguments import VideoTextTrainingArguments
from .checkpoints import CLIPS_KEY, check_same_run, fingerprint, keep_newest, partial_folder, publish, remove_partial
from .ema import ExponentialMovingAverage
from .launch import check_one_gpu, check_processes
from .mixing import draw_mix, mix, soft_targets
from .optimisation import cosine_schedule, parameter_groups
from .sharding import check_sharding, keep_name, make_cuttable, restore_scalars, whole_weights

logger = logging.getLogger(__name__)

_FEWEST_CLIPS = 100  # of a stream before its failures are judged as a share
_AVERAGES_NAME = "averages.safetensors"
_PROGRESS_NAME = "progress.json"

# Settings that change nothing of what is learnt, or only through what is compared elsewhere (the effective batch).
_FREE_SETTINGS = frozenset(
    {
        "output_dir", "resume", "resume_from_checkpoint", "per_device_train_batch_size",
        "gradient_accumulation_steps", "max_clips_per_device", "total_train_batch_size", "per_device_eval_batch_size",
        "eval_strategy", "eval_steps", "eval_delay", "eval_on_start", "save_strategy", "save_steps",
        "save_total_limit", "metric_for_best_model", "greater_is_better", "dataloader_num_workers",
        "dataloader_persistent_workers", "dataloader_prefetch_factor", "dataloader_pin_memory",
        "dataloader_multiprocessing_context", "report_to", "run_name", "project", "trackio_space_id",
        "logging_strategy", "logging_steps", "logging_first_step", "log_level", "log_level_replica", "disable_tqdm",
        "hub_model_id", "push_to_hub", "push_every_epochs", "hub_private_repo", "license",
        "ddp_timeout", "ddp_bucket_cap_mb", "local_rank", "accelerator_config",
    }
)  # fmt: skip


class VideoTextTrainer(Trainer):
    """Fine-tunes a video-text model by classification over class texts, or a video classifier.

    What requires a gradient is trained: call `model.set_trainable()` before, for what is published to be trained. With
    a frozen text tower class texts and descriptions are encoded once, otherwise the texts in every step. The order of
    clips and all random choices but drop path depend on seed, epoch and clip alone, so results do not depend on workers
    or processes, and a run that was killed goes on bit by bit as if it had not been.

    Args:
        model: one of kinetext's models.
        args: a [`VideoTextTrainingArguments`].
        processing_class: the processor, saved with every checkpoint.
        train_dataset: clips to train on, listed or as a stream (which needs `max_steps`); None for evaluation only.
        eval_dataset: clips to evaluate.
        class_texts: N texts in label order; None for a classifier, which reads none.
        descriptions: N lists of descriptions, in label order, for a model that uses them (MoTED).
        max_failed_share: stop when more than this share of the training clips cannot be decoded.
        settings: what else must be the same for a run to go on from a checkpoint, such as the rest of a recipe.
        kwargs: as in `transformers.Trainer`.

    Raises:
        ValueError: if fewer processes train together than the launcher was asked for, or one has several GPUs; if clips
            are blended and a process takes an odd number at once, or the clips do not fill a batch.
    """

    args: VideoTextTrainingArguments

    def __init__(
        self,
        model: Any,
        args: VideoTextTrainingArguments,
        *,
        processing_class: VideoTextProcessor,
        class_texts: Sequence[str] | None,
        descriptions: Sequence[Sequence[str]] | None = None,
        train_dataset: TrainClips | StreamingClips | None = None,
        eval_dataset: EvalClips | None = None,
        max_failed_share: float = MAX_FAILED_SHARE,
        settings: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        check_processes(args.world_size)
        check_one_gpu(args.n_gpu)
        _check_pairs(args)
        if isinstance(train_dataset, StreamingClips):
            args.ignore_data_skip = True  # the stream itself begins where a run goes on
        self.class_texts = None if class_texts is None else list(class_texts)
        self.descriptions = descriptions
        self.processor = processing_class
        self.folder = Path(args.output_dir or "")  # never None: the arguments check it
        self.max_failed_share = max_failed_share
        self.failed_clips: dict[str, str] = {}
        self.was_terminated = False  # what all processes have agreed on; one alone knows only `_is_asked_to_stop`
        self._evaluated: tuple[int, EvaluationResult] | None = None  # after which step, with what result
        self.averages: ExponentialMovingAverage | None = None
        self.rates: dict[str, float] = {}
        self.meter = _Meter()
        self._is_asked_to_stop = False
        self._begun = time.perf_counter()
        self._earlier_s = 0.0
        self._new_failures: dict[str, str] = {}
        self._settings = dict(settings or {})
        self._resumed_from: Path | None = None
        self._saved_into: Path | None = None
        self._tokens: dict[str, Any] | None = None
        self._bank: TextBank | None = None
        super().__init__(
            model=model,
            args=args,
            processing_class=processing_class,
            train_dataset=train_dataset,
            eval_dataset=eval_dataset,
            data_collator=None if train_dataset is None else train_dataset.collate,
            **kwargs,
        )
        self.train_sampler: EpochSampler | None = None
        if isinstance(train_dataset, TrainClips):
            self.train_sampler = EpochSampler(
                len(train_dataset),
                seed=args.seed,
                total_batch_size=args.effective_batch_size if args.dataloader_drop_last else None,
                groups=train_dataset.clips.groups,
            )
        self.add_callback(_Hooks(self))

    # Optimisation

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        """AdamW over the groups of [`parameter_groups`]."""
        if self.optimizer is None:
            model = self.model if model is None else model
            groups = parameter_groups(
                model,
                learning_rate=self.args.learning_rate,
                new_module_lr_factor=self.args.new_module_lr_factor,
                weight_decay=self.args.weight_decay,
                decay_all=self.args.decay_all,
            )
            optimizer_class, options = self.get_optimizer_cls_and_kwargs(self.args, model)
            self.optimizer = optimizer_class(groups, **options)
        return self.optimizer

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        """The published cosine ([`cosine_schedule`]), or what `lr_scheduler_type` names of transformers' schedules."""
        if self.args.lr_scheduler_type != "cosine":
            return super().create_scheduler(num_training_steps, optimizer)
        if self.lr_scheduler is None:
            floor = self.args.min_learning_rate
            self.lr_scheduler = cosine_schedule(
                optimizer or self.optimizer,  # type: ignore[arg-type]
                num_steps=num_training_steps,
                num_warmup_steps=self.args.get_warmup_steps(num_training_steps),
                min_learning_rate=self.args.learning_rate / 100 if floor is None else floor,
            )
            self._created_lr_scheduler = True
        return self.lr_scheduler

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """The model's own loss over the class texts, on blended clips and soft labels.

        Raises:
            FloatingPointError: if it is not finite; names the clips of the batch.
        """
        pixel_values, targets = self._blended(inputs)
        outputs = model(pixel_values=pixel_values, labels=targets, **self._class_inputs())
        self._new_failures.update(inputs["failures"])
        if not torch.isfinite(outputs.loss):
            raise FloatingPointError(
                f"the loss is {outputs.loss.item()} at step {self.state.global_step} on process "
                f"{self.args.process_index}, clips {inputs['clip_ids']}. Lower the learning rate, use bf16 "
                "instead of fp16, set max_grad_norm, or look at these clips."
            )
        return (outputs.loss, outputs) if return_outputs else outputs.loss

    def _blended(self, inputs: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
        """Pixel values (B,T,3,H,W) and targets, (B,) class ids or (B,N) probabilities, as the recipe says."""
        pixel_values, labels = inputs["pixel_values"], inputs["labels"]
        if "draws" in inputs:  # colours are left to the accelerator
            processor = self.processor
            pixel_values = finish_pixels(pixel_values, inputs["draws"], processor.image_mean, processor.image_std)
        args = self.args
        if not (args.label_smoothing or args.mixup_alpha or args.cutmix_alpha):
            return pixel_values, labels
        targets = soft_targets(labels, self._num_classes(), args.label_smoothing)
        if not (args.mixup_alpha or args.cutmix_alpha):
            return pixel_values, targets
        height, width = pixel_values.shape[-2:]
        draw = draw_mix(
            sample_generator(args.seed, 0, f"blend of step {self.state.global_step}"),
            mixup_alpha=args.mixup_alpha,
            cutmix_alpha=args.cutmix_alpha,
            cutmix_probability=args.cutmix_probability,
            height=height,
            width=width,
        )
        return mix(pixel_values, targets, draw)

    def _num_classes(self) -> int:
        model: Any = self.accelerator.unwrap_model(self.model)
        return model.config.num_labels if self.class_texts is None else len(self.class_texts)

    def _class_inputs(self) -> dict[str, Any]:
        """The class texts as model inputs: tokens while the text tower learns, else a bank; nothing of a classifier."""
        if self.class_texts is None:
            return {}
        if not self._trains_text():
            return {"text_bank": self._text_bank()}
        if self._tokens is None:
            self._tokens = dict(self.processor(text=self.class_texts).to(self.args.device))
        return self._tokens

    def _trains_text(self) -> bool:
        model: Any = self.accelerator.unwrap_model(self.model)
        modules = (model.text_model, model.text_projection)
        return any(parameter.requires_grad for module in modules for parameter in module.parameters())

    def _text_bank(self) -> TextBank:
        """The bank of the present text weights; made anew only when these have changed, or learn."""
        model: Any = self.accelerator.unwrap_model(self.model)
        if self._bank is None or self._trains_text() or self._bank.text_fingerprint != model.text_fingerprint():
            self._bank = encode_class_texts(
                model, self.processor, self.class_texts or [], descriptions=self.descriptions
            )
        return self._bank

    # Data

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler[tuple[int, int]] | None:
        return self.train_sampler

    def get_train_dataloader(self) -> Any:
        """As in the base class; a stream splits itself over processes and workers, and begins where a run goes on."""
        stream: Any = self.train_dataset
        if not isinstance(stream, StreamingClips):
            loader: Any = super().get_train_dataloader()
            loader.base_dataloader.worker_init_fn = ignore_sigterm  # the base class has its own, which seeds
            return loader
        if self._resumed_from is not None:
            state = TrainerState.load_from_json(str(self._resumed_from / TRAINER_STATE_NAME))
            stream.first_step = state.global_step
        return stream.loader(
            self.args.dataloader_num_workers,
            pin_memory=self.args.dataloader_pin_memory,
            worker_init_fn=ignore_sigterm,
        )

    def get_batch_samples(self, *args: Any, **kwargs: Any) -> Any:
        """As in the base class, measuring how long the data took; an epoch's first call starts the workers."""
        with self.meter.waiting(), sigterm_held():
            return super().get_batch_samples(*args, **kwargs)

    # Evaluation

    def evaluate(
        self,
        eval_dataset: Any = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> dict[str, float]:
        """Metrics of the evaluation clips, with exact counts; the same on every process."""
        result = self.evaluation_result(eval_dataset)
        self._evaluated = self.state.global_step, result
        metrics = {f"{metric_key_prefix}_{name}": value for name, value in result.metrics().items()}
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    @property
    def last_result(self) -> EvaluationResult | None:
        """The last evaluation that training made, if no step has been taken since."""
        step, result = self._evaluated or (None, None)
        return result if step == self.state.global_step else None

    def evaluation_result(self, eval_dataset: EvalClips | None = None) -> EvaluationResult:
        """Evaluates, averaged weights where there are any, and keeps the predictions of every clip."""
        dataset: Any = self.eval_dataset if eval_dataset is None else eval_dataset
        if dataset is None:
            raise ValueError("there are no clips to evaluate; pass eval_dataset.")
        with self.averaged_weights(), self._whole_weights():
            return evaluate_clips(
                self.accelerator.unwrap_model(self.model),
                dataset,
                None if self.class_texts is None else self._text_bank(),
                batch_size=self.args.per_device_eval_batch_size,
                num_workers=self.args.dataloader_num_workers,
                process_index=self.args.process_index,
                num_processes=self.args.world_size,
                show_progress=not self.args.disable_tqdm and self.is_world_process_zero(),
            )

    @contextlib.contextmanager
    def averaged_weights(self) -> Iterator[None]:
        """The model with the averaged weights, those to evaluate and publish; as it is without `ema_decay`."""
        with contextlib.nullcontext() if self.averages is None else self.averages.swapped():
            yield

    # Weights in parts

    def _prepare_for_training(self, *args: Any, **kwargs: Any) -> Any:
        """As in the base class; before FSDP2 cuts the model, what needs it whole (`sharding.py`).

        Raises:
            ValueError: if something was asked for that does not work on weights in parts.
        """
        if not self.is_fsdp_enabled or isinstance(self.model, FSDPModule):
            return super()._prepare_for_training(*args, **kwargs)
        model: Any = self.model
        kind, reads_texts = type(model), self.class_texts is not None
        check_sharding(model, self.accelerator.state.fsdp_plugin, self.args)
        model.to(self.args.device)
        trains_text = reads_texts and self._trains_text()
        if reads_texts and not trains_text:
            self._text_bank()
        make_cuttable(model, trains_text=trains_text)
        prepared = super()._prepare_for_training(*args, **kwargs)
        keep_name(model, kind)
        if reads_texts:
            register_fsdp_forward_method(model, "encode_texts")
        return prepared

    def _whole_weights(self) -> contextlib.AbstractContextManager[None]:
        """The model with all its weights on every process, where FSDP2 has cut it."""
        if not isinstance(self.model, FSDPModule):
            return contextlib.nullcontext()
        plugin: Any = self.accelerator.state.fsdp_plugin
        return whole_weights(self.model, reshard_after_forward=plugin.reshard_after_forward)

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        if state_dict is not None:
            restore_scalars(state_dict)
        super()._save(output_dir, state_dict)

    # Going on after a stop

    def train(self, resume_from_checkpoint: Any = None, trial: Any = None, ignore_keys_for_eval: Any = None) -> Any:
        """As in the base class.

        Raises:
            ValueError: if the checkpoint was written by a run with other settings, texts or clips.
        """
        self._resumed_from = None if resume_from_checkpoint is None else Path(resume_from_checkpoint)
        if self._resumed_from is not None:
            check_same_run(self._resumed_from, self.run_identity())
            progress = json.loads((self._resumed_from / _PROGRESS_NAME).read_text("utf-8"))
            self.failed_clips, self._earlier_s = progress["failed_clips"], progress["duration_s"]
        if self.is_world_process_zero():
            remove_partial(self.folder)
        self._begun = time.perf_counter()
        with _sigterm(self):
            return super().train(resume_from_checkpoint, trial, ignore_keys_for_eval)

    def run_identity(self) -> dict[str, Any]:
        """What a run is made of: two runs with the same identity learn the same."""
        arguments = {name: value for name, value in self.args.to_dict().items() if name not in _FREE_SETTINGS}
        dataset = self.train_dataset
        clips = [(clip.clip_id, clip.label) for clip in dataset.clips.clips] if isinstance(dataset, TrainClips) else []
        return {
            **arguments,
            **self._settings,
            "effective_batch_size": self.args.effective_batch_size,
            "blends_pairs": self.args.train_batch_size > 1,
            "class_texts": fingerprint([self.class_texts, self.descriptions]),
            CLIPS_KEY: fingerprint(clips),
        }

    @property
    def duration_s(self) -> float:
        """Time spent on training so far, also before a checkpoint that it went on from."""
        return self._earlier_s + time.perf_counter() - self._begun

    def _get_output_dir(self, trial: Any) -> str:
        return str(self._saved_into or self.folder)

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """As in the base class, but into a folder that becomes the checkpoint when it is whole."""
        name = f"checkpoint-{self.state.global_step}"
        final, partial = self.folder / name, partial_folder(self.folder, name)
        if self.is_world_process_zero():
            remove_partial(self.folder)
        self.accelerator.wait_for_everyone()
        self._saved_into = partial
        try:
            super()._save_checkpoint(model, trial)
        finally:
            self._saved_into = None
        self.accelerator.wait_for_everyone()
        if self.state.best_global_step:  # the base class looks for it where nothing stays
            best = final.parent / f"checkpoint-{self.state.best_global_step}"
            self.state.best_model_checkpoint = str(best) if best == final or best.is_dir() else None
        if self.is_world_process_zero():
            self._complete(partial / name, final)
        self.accelerator.wait_for_everyone()

    def _complete(self, partial: Path, final: Path) -> None:
        """Adds what the base class knows nothing of, publishes the checkpoint and removes those above the limit."""
        self.state.save_to_json(str(partial / "trainer_state.json"))
        if self.averages is not None:
            save_file(self.averages.state_dict(), partial / _AVERAGES_NAME)
        write_json(partial / _PROGRESS_NAME, {"failed_clips": self.failed_clips, "duration_s": self.duration_s})
        publish(partial, final, self.run_identity())
        remove_partial(final.parent)
        if self.args.save_total_limit is not None:
            keep_newest(final.parent, self.args.save_total_limit, best=self.state.best_model_checkpoint)

    def _load_best_model(self) -> None:
        super()._load_best_model()
        if self.averages is not None:
            self.averages.load_state_dict(load_file(Path(str(self.state.best_model_checkpoint)) / _AVERAGES_NAME))

    def _run_epoch(self, *args: Any, **kwargs: Any) -> None:
        # The base class takes one more step when it goes on from the last one and that is not the end of an epoch.
        if self.state.global_step < self.state.max_steps:
            super()._run_epoch(*args, **kwargs)

    # Every step; called by _Hooks

    def _begin(self) -> None:
        """Before the first step: averages, which start at the present weights or those of the checkpoint."""
        if self.args.ema_decay is None:
            return
        self.averages = ExponentialMovingAverage(self.accelerator.unwrap_model(self.model), self.args.ema_decay)
        if self._resumed_from is not None:
            self.averages.load_state_dict(load_file(self._resumed_from / _AVERAGES_NAME))

    def _end_step(self) -> None:
        """Tells the processes of each other: which clips failed, and whether one of them was asked to stop."""
        told = torch.tensor([float(self._is_asked_to_stop), float(len(self._new_failures))], device=self.args.device)
        stops, failures = self.accelerator.reduce(told, reduction="sum").tolist()
        self.was_terminated = stops > 0
        if failures:
            self._add_failures()

    def _add_failures(self) -> None:
        """Collects the failed clips of all processes.

        Raises:
            VideoDecodeError: if they are too many.
        """
        new = list(self._new_failures.items())
        self._new_failures = {}
        self.failed_clips.update(dict(gather_object(new) if self.args.world_size > 1 else new))
        num_clips = self._num_clips()
        if len(self.failed_clips) > self.max_failed_share * num_clips:
            listed = "\n".join(f"  {clip_id}: {reason}" for clip_id, reason in sorted(self.failed_clips.items()))
            raise VideoDecodeError(
                f"{len(self.failed_clips)} of {num_clips} training clips cannot be decoded, more than "
                f"max_failed_share={self.max_failed_share}:\n{listed}\nRepair or leave out these files, or raise it."
            )

    def _num_clips(self) -> int:
        """Clips that the failed ones are a share of: those listed, or those of a stream so far, not too few."""
        if isinstance(self.train_dataset, TrainClips):
            return len(self.train_dataset)
        return max(_FEWEST_CLIPS, (self.state.global_step + 1) * self.args.effective_batch_size)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """As in the base class; steps also say their speed, rates, memory, and how many clips failed so far."""
        if "loss" in logs:
            logs = {**logs, **self.rates, **self.meter.read(), "failed_clips": len(self.failed_clips)}
            if torch.cuda.is_available():
                logs["gpu_memory_gib"] = torch.cuda.max_memory_allocated() / 2**30
        super().log(logs, start_time)


def _check_pairs(args: VideoTextTrainingArguments) -> None:
    """Raises ValueError where Mixup or CutMix would leave one clip of several without its partner.

    A process that takes one at once blends it with itself, as X-CLIP's L/14 at 336 pixels was trained: a warning.
    """
    if not (args.mixup_alpha or args.cutmix_alpha):
        return
    if args.train_batch_size == 1:
        logger.warning(
            "a process takes one clip at once, so Mixup and CutMix have no other to blend it with and change nothing; "
            "let it take two (max_clips_per_device, per_device_train_batch_size), or set mixup_alpha and cutmix_alpha "
            "to 0."
        )
    elif args.train_batch_size % 2:
        raise ValueError(
            f"Mixup and CutMix blend clips two by two, but a process takes {args.train_batch_size} at once: make that "
            "even (total_train_batch_size, max_clips_per_device, per_device_train_batch_size), or set mixup_alpha and "
            "cutmix_alpha to 0."
        )


class _Hooks(TrainerCallback):
    """What happens between steps, in the order transformers calls it."""

    def __init__(self, trainer: VideoTextTrainer) -> None:
        self.trainer = trainer

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.trainer._begin()

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        # Also in the resumed part of an epoch and on every process, where the library does not tell the sampler.
        if self.trainer.train_sampler is not None:
            self.trainer.train_sampler.set_epoch(int(state.epoch or 0))

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, optimizer: Any = None, **kwargs: Any) -> None:
        self.trainer.rates = {f"learning_rate/{group['name']}": group["lr"] for group in optimizer.param_groups}

    def on_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.trainer.averages is not None:
            self.trainer.averages.update()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.trainer.meter.end_step(args.effective_batch_size)
        self.trainer._end_step()
        control.should_training_stop |= self.trainer.was_terminated
        _log_what_is_saved(control)

    def on_epoch_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        # Also called where training stops in the middle of an epoch.
        if self.trainer.was_terminated:
            control.should_save = True
            control.should_evaluate &= float(state.epoch).is_integer()
        _log_what_is_saved(control)


def _log_what_is_saved(control: Any) -> None:
    """Has the losses up to a checkpoint logged before it: a run that goes on from there does not know them."""
    control.should_log |= control.should_save


@dataclass
class _Meter:
    """Time of optimiser steps, and how much of it was spent waiting for data."""

    started: float | None = None
    spent: float = 0.0
    waited: float = 0.0
    clips: int = 0

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        begin = time.perf_counter()
        if self.started is None:  # the first wait of a step; evaluation and saving lie before it
            self.started = begin
        yield
        self.waited += time.perf_counter() - begin

    def end_step(self, clips: int) -> None:
        if self.started is not None:
            self.spent += time.perf_counter() - self.started
            self.clips += clips
            self.started = None

    def read(self) -> dict[str, float]:
        """Clips per second over all processes, and the share of time this one waited, since the last call."""
        if not self.spent:
            return {}
        figures = {"clips_per_second": self.clips / self.spent, "data_wait": self.waited / self.spent}
        self.spent, self.waited, self.clips = 0.0, 0.0, 0
        return figures


@contextlib.contextmanager
def _sigterm(trainer: VideoTextTrainer) -> Iterator[None]:
    """SIGTERM lets the step end, has a checkpoint saved and stops, instead of killing the process."""

    def remember(number: int, frame: Any) -> None:
        trainer._is_asked_to_stop = True

    try:
        before = signal.signal(signal.SIGTERM, remember)
    except ValueError:  # not the main thread, which alone gets signals
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
