"""transformers' Trainer for videos and class texts, through its public hooks only."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import torch
from torch.utils.data import Sampler
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from ..data.datasets import EpochSampler, EvalClips, TrainClips, collate_train
from ..evaluation.class_texts import encode_class_texts
from ..evaluation.evaluator import EvaluationResult, evaluate_clips
from ..modeling.modeling_video_text import TextBank
from ..processing.processing_video_text import VideoTextProcessor
from .arguments import VideoTextTrainingArguments
from .optimisation import parameter_groups


class VideoTextTrainer(Trainer):
    """Fine-tunes a video-text model by classification over class texts.

    With a frozen text tower (the default) class texts and descriptions are encoded once; otherwise the texts in every
    step. The order of clips and all augmentation depend on seed, epoch and clip alone, so results do not depend on
    workers or processes.

    Args:
        model: an `XCLIPModel` or `MotedModel`.
        args: a [`VideoTextTrainingArguments`].
        processing_class: the processor, saved with every checkpoint.
        train_dataset: clips to train on; None for evaluation only.
        eval_dataset: clips to evaluate.
        class_texts: N texts in label order.
        descriptions: N lists of descriptions, in label order, for a model that uses them (MoTED).
        train_text: train the text tower and the logit scale of an X-CLIP too.
        kwargs: as in `transformers.Trainer`.

    Raises:
        ValueError: for `train_text` with a MoTED, whose text tower stays frozen.
        RuntimeError: if the launcher started other processes than torch knows of.
    """

    def __init__(
        self,
        model: Any,
        args: VideoTextTrainingArguments,
        *,
        processing_class: VideoTextProcessor,
        class_texts: Sequence[str],
        descriptions: Sequence[Sequence[str]] | None = None,
        train_dataset: TrainClips | None = None,
        eval_dataset: EvalClips | None = None,
        train_text: bool = False,
        **kwargs: Any,
    ) -> None:
        _check_world_size(args)
        self.class_texts = list(class_texts)
        self.descriptions = descriptions
        self.processor = processing_class
        self.train_text = train_text
        if train_text and model.config.model_type == "moted":
            raise ValueError("train_text is for X-CLIP; the text tower of MoTED stays frozen. Leave it out.")
        if not train_text:
            model.freeze_text()
        super().__init__(
            model=model,
            args=args,
            processing_class=processing_class,
            train_dataset=train_dataset,
            eval_dataset=eval_dataset,
            data_collator=collate_train,
            **kwargs,
        )
        self.train_sampler = EpochSampler(len(train_dataset), seed=args.seed) if train_dataset is not None else None
        if self.train_sampler is not None:
            self.add_callback(_SetSamplerEpoch(self.train_sampler))
        self._tokens: dict[str, Any] | None = None
        self._bank: TextBank | None = None

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        """AdamW over the groups of [`parameter_groups`]; Trainer adds schedule and scaling."""
        if self.optimizer is None:
            model = self.model if model is None else model
            args: Any = self.args  # a VideoTextTrainingArguments; the base class knows its own only
            groups = parameter_groups(
                model,
                learning_rate=args.learning_rate,
                new_module_lr_factor=args.new_module_lr_factor,
                weight_decay=args.weight_decay,
            )
            optimizer_class, options = self.get_optimizer_cls_and_kwargs(args, model)
            self.optimizer = optimizer_class(groups, **options)
        return self.optimizer

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """The model's own loss over the class texts."""
        outputs = model(**inputs, **self._class_inputs())
        return (outputs.loss, outputs) if return_outputs else outputs.loss

    def evaluate(
        self,
        eval_dataset: Any = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> dict[str, float]:
        """Metrics of the evaluation clips, with exact counts; the same on every process."""
        result = self.evaluation_result(eval_dataset)
        metrics = {f"{metric_key_prefix}_{name}": value for name, value in result.metrics().items()}
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def evaluation_result(self, eval_dataset: EvalClips | None = None) -> EvaluationResult:
        """Evaluates and keeps the predictions of every clip."""
        dataset: Any = self.eval_dataset if eval_dataset is None else eval_dataset
        if dataset is None:
            raise ValueError("there are no clips to evaluate; pass eval_dataset.")
        return evaluate_clips(
            self.accelerator.unwrap_model(self.model),
            dataset,
            self._text_bank(),
            batch_size=self.args.per_device_eval_batch_size,
            num_workers=self.args.dataloader_num_workers,
            process_index=self.args.process_index,
            num_processes=self.args.world_size,
            show_progress=not self.args.disable_tqdm and self.is_world_process_zero(),
        )

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler[tuple[int, int]] | None:
        return self.train_sampler

    def _class_inputs(self) -> dict[str, Any]:
        """The class texts as model inputs: tokens while the text tower learns, else a bank."""
        if not self.train_text:
            return {"text_bank": self._text_bank()}
        if self._tokens is None:
            self._tokens = dict(self.processor(text=self.class_texts).to(self.args.device))
        return self._tokens

    def _text_bank(self) -> TextBank:
        """The bank of the present text weights; made anew only when these have changed."""
        model: Any = self.accelerator.unwrap_model(self.model)
        if self._bank is None or self._bank.text_fingerprint != model.text_fingerprint():
            self._bank = encode_class_texts(model, self.processor, self.class_texts, descriptions=self.descriptions)
        return self._bank


class _SetSamplerEpoch(TrainerCallback):
    """Tells the sampler the epoch, also in the resumed part of one and on every process."""

    def __init__(self, sampler: EpochSampler) -> None:
        self.sampler = sampler

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.sampler.set_epoch(int(state.epoch or 0))


def _check_world_size(args: TrainingArguments) -> None:
    """Raises where processes were started that do not know each other."""
    launched = int(os.environ.get("WORLD_SIZE", "1"))
    if launched != args.world_size:
        raise RuntimeError(
            f"the launcher started {launched} processes but torch sees {args.world_size}: each would train alone and "
            "write the same files. On CPU use `accelerate launch --multi_gpu --num_processes N train.py ... --use_cpu`."
        )
