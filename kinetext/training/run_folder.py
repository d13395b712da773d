"""What a run leaves behind: the files of its output folder, each whole, and the same on the Hub."""

from __future__ import annotations

import copy
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from safetensors.torch import load_file

from ..data.clip_lists import ClipList
from ..evaluation.predictions import EvaluationResult
from ..evaluation.protocol import protocol_of
from ..evaluation.results import PREDICTIONS_NAME, RESULTS_NAME, ProtocolResult, model_facts
from ..hub_cards.measured import EVALUATION_FILES, HUB_RESULTS
from ..hub_cards.model_card import write_model_card
from ..hub_cards.push_run import push_run
from .arguments import Recipe
from .checkpoints import partial_folder
from .clips import Splits
from .lora import adapter_parameter_names, merge_lora
from .report import gather_facts, write_report
from .trainer import VideoTextTrainer

_OF_OTHER_WEIGHTS = (  # left by an earlier run, or by a push of it
    RESULTS_NAME, PREDICTIONS_NAME, "curves.png", "confusion.png", EVALUATION_FILES, HUB_RESULTS,
)  # fmt: skip
_PLACES = frozenset({"data_root", "output_dir"})  # on this machine: nothing for a card


class RunFolder:
    """Model, processor, code, card, report and results of a run: in `output_dir`, and on the Hub if the recipe says so.

    Args:
        recipe: of the run.
        trainer: of the run.
        splits: clips that it trains on and evaluates.
        class_texts: N texts in label order.
        settings: of the run, as name and value; those that name places on this machine are left out.
    """

    def __init__(
        self,
        recipe: Recipe,
        trainer: VideoTextTrainer,
        splits: Splits,
        class_texts: Sequence[str],
        settings: Mapping[str, Any],
    ) -> None:
        self.path = trainer.folder
        self.recipe = recipe
        self.trainer = trainer
        self.splits = splits
        self.class_texts = class_texts
        self.settings = {name: value for name, value in settings.items() if name not in _PLACES}

    def counts(self) -> dict[str, Any]:
        """How many clips of how many classes, as the first line of a run says it."""
        listed = self.splits.train if isinstance(self.splits.train, ClipList) else None
        return {
            "num_train_clips": None if listed is None else len(listed),
            "num_eval_clips": 0 if self.splits.eval is None else len(self.splits.eval),
            "num_classes": len(self.class_texts),
        }

    def write_last(self) -> None:
        """Writes in the middle of training, with its last evaluation if that is of the present weights."""
        self.write(self.trainer.last_result)

    def write(self, result: EvaluationResult | None) -> None:
        """Writes the present weights, averaged and merged, and all that is known of the run; call it on every process.

        Files are written aside and then put in place one by one, so that none is ever half-written.
        """
        aside = partial_folder(self.path, "run")
        folder = aside / self.path.resolve().name  # cards and reports are called as their folder
        self.trainer.accelerator.wait_for_everyone()
        self._save_model(folder)
        if self.trainer.is_world_process_zero():
            self._describe(folder, result)
            for pattern in _OF_OTHER_WEIGHTS:
                for stale in self.path.glob(pattern):
                    stale.unlink()
            for file in folder.iterdir():
                os.replace(file, self.path / file.name)
            shutil.rmtree(aside)
        self.trainer.accelerator.wait_for_everyone()

    def push(self, message: str) -> None:
        """Pushes what was written; errors as of `push_run`."""
        args = self.recipe.training
        push_run(
            self.path,
            str(args.hub_model_id),
            private=bool(args.hub_private_repo),
            message=message,
            license=args.license,
        )

    def _save_model(self, folder: Path) -> None:
        trainer = self.trainer
        with trainer.averaged_weights():
            model: Any = trainer.accelerator.unwrap_model(trainer.model)
            if not adapter_parameter_names(model):
                trainer.save_model(str(folder))
            elif trainer.is_world_process_zero():
                merge_lora(copy.deepcopy(model)).save_pretrained(folder)
                trainer.processor.save_pretrained(folder)

    def _describe(self, folder: Path, result: EvaluationResult | None) -> None:
        recipe, trainer, settings = self.recipe, self.trainer, self.settings
        eval_dataset: Any = trainer.eval_dataset
        facts = gather_facts(
            recipe.training,
            train_clips=self.splits.train if isinstance(self.splits.train, ClipList) else None,
            clips_seen=trainer.state.global_step * recipe.training.effective_batch_size,
            eval_dataset=eval_dataset,
            class_texts=self.class_texts,
            duration_s=trainer.duration_s,
            failures=trainer.failed_clips,
        )
        measured = None
        if result is not None:
            protocol = protocol_of(eval_dataset, self.class_texts)
            named = replace(result, class_names=protocol.classes)  # not by their texts
            splits = {split.name: named for split in protocol.splits}
            measured = ProtocolResult(protocol, self._model_facts(folder), splits, settings)
            measured.write(folder)
        write_report(
            folder,
            log_history=trainer.state.log_history,
            settings=settings,
            facts=facts,
            result=result,
            failures=trainer.failed_clips,
        )
        write_model_card(
            folder,
            class_texts=self.class_texts,
            descriptions=trainer.descriptions,
            description_source=recipe.data.descriptions,
            settings=settings,
            result=measured,
            facts=facts,
            license=recipe.training.license,
        )

    def _model_facts(self, folder: Path) -> dict[str, Any]:
        """Of the weights that were written, which may be averaged and merged."""
        weights = {name: value for path in folder.glob("*.safetensors") for name, value in load_file(path).items()}
        name = self.recipe.training.hub_model_id or self.path.resolve().name
        return model_facts(name, self.trainer.accelerator.unwrap_model(self.trainer.model).config.model_type, weights)
