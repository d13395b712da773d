"""Everything a training run is made of: three dataclasses, filled from a recipe (YAML) and overridden by flags."""

from __future__ import annotations

import dataclasses
import difflib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from transformers import HfArgumentParser, TrainingArguments

from ..data.annotations import text_of_class
from ..descriptions import load_descriptions
from ..processing.processing_video_text import CONTRACT
from ..processing.video_decoding import DECODERS

ARCHITECTURES = ("xclip", "moted")


def _mapping(name: str, text: str | None) -> dict[str, Any]:
    """What a YAML mapping, or JSON on the command line, says; an empty one for nothing."""
    try:
        value = json.loads(text) if text else {}
    except json.JSONDecodeError as error:
        raise ValueError(f'{name}={text!r} is no JSON ({error}); write it as {{"name": "value"}}.') from error
    if not isinstance(value, dict):
        raise ValueError(f'{name}={text!r} is no mapping; write it as {{"name": "value"}}.')
    return value


@dataclass
class ModelArguments:
    """Where the weights come from: exactly one of `model`, `preset` and `model_config`."""

    model: str | None = field(
        default=None,
        metadata={
            "help": "Repository or folder of an X-CLIP or MoTED (fine-tuned further), or of a CLIP to start from."
        },
    )
    preset: str | None = field(
        default=None, metadata={"help": "Published size with random weights, e.g. base-patch16."}
    )
    model_config: str | None = field(
        default=None,
        metadata={"help": "Fields of XCLIPConfig or MotedConfig for random weights: a mapping in YAML, else JSON."},
    )
    architecture: str | None = field(
        default=None,
        metadata={"help": "What a CLIP, preset or model_config becomes: xclip (the default) or moted."},
    )
    model_overrides: str | None = field(
        default=None,
        metadata={"help": "Fields of the configuration that a CLIP gets, e.g. switches of MoTED: as model_config."},
    )
    num_frames: int | None = field(
        default=None, metadata={"help": "Frames per clip. This and the next four: as saved with `model` by default."}
    )
    sampling: str | None = field(default=None, metadata={"help": "segments, uniform or dense."})
    stride: int | None = field(default=None, metadata={"help": "Distance of neighbouring frames in dense sampling."})
    template: str | None = field(default=None, metadata={"help": "What class names are put into, at {}."})
    short_side: int | None = field(default=None, metadata={"help": "Pixels of the shorter side before cropping."})
    train_text: bool = field(
        default=False,
        metadata={"help": "Train the text tower and the logit scale too; frozen as in X-CLIP by default."},
    )

    def __post_init__(self) -> None:
        given = [name for name in ("model", "preset", "model_config") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"give exactly one of model, preset and model_config; got {given or 'none'}.")
        if self.architecture not in (None, *ARCHITECTURES):
            raise ValueError(
                f"architecture={self.architecture!r} is unknown; choose one of {', '.join(ARCHITECTURES)}."
            )
        if self.model_overrides is not None and self.model is None:
            raise ValueError(
                "model_overrides change what the CLIP of `model` becomes; without one, write these fields into "
                "model_config."
            )
        if self.sampling == "all":
            raise ValueError('sampling="all" gives clips of different lengths; train with segments, uniform or dense.')

    @property
    def contract(self) -> dict[str, Any]:
        """The arguments of `VideoTextProcessor` that were given."""
        return {name: getattr(self, name) for name in _GIVEN_CONTRACT if getattr(self, name) is not None}

    @property
    def config_fields(self) -> dict[str, Any]:
        """The fields of `model_config` as a dictionary."""
        return _mapping("model_config", self.model_config)

    @property
    def override_fields(self) -> dict[str, Any]:
        """The fields of `model_overrides` as a dictionary."""
        return _mapping("model_overrides", self.model_overrides)


# What a recipe can say of a processor; the rest belongs to the checkpoint or the model.
_GIVEN_CONTRACT = tuple(item.name for item in dataclasses.fields(ModelArguments) if item.name in CONTRACT)


@dataclass
class DataArguments:
    """Which clips, and what their classes are called."""

    data_root: str = field(metadata={"help": "Folder that `train`, `eval` and paths in CSV files are relative to."})
    train: str = field(default=".", metadata={"help": "Folder of <class>/<clip>, CSV of path,label, or saved dataset."})
    eval: str | None = field(default=None, metadata={"help": "As train, for evaluation; or use hold_out."})
    hold_out: list[str] = field(
        default_factory=list,
        metadata={"help": "File name patterns of `train` that are evaluated instead of trained on."},
    )
    class_texts: str | None = field(
        default=None, metadata={"help": "Text of each class name where it is not the name itself: a mapping, as YAML."}
    )
    descriptions: str | None = field(
        default=None, metadata={"help": "How the classes move, for MoTED: a file, a built-in name or a Hub id."}
    )
    multi_scale_crop: bool = field(default=True, metadata={"help": "MultiScaleCrop as in X-CLIP, else centre crop."})
    flip_probability: float = field(
        default=0.5, metadata={"help": "Mirror whole clips; 0 where sides tell classes apart."}
    )
    decoder: str = field(default="pyav", metadata={"help": "pyav or decord."})

    def __post_init__(self) -> None:
        if not 0 <= self.flip_probability <= 1:
            raise ValueError(f"flip_probability={self.flip_probability} is no probability; give one from 0 to 1.")
        if self.decoder not in DECODERS:
            raise ValueError(f"decoder={self.decoder!r} is unknown; choose one of {', '.join(DECODERS)}.")

    def texts_of(self, class_names: Sequence[str]) -> list[str]:
        """The text of each class: what `class_texts` says, else the name with spaces for underscores.

        Raises:
            ValueError: if `class_texts` names a class that is not there.
        """
        given = _mapping("class_texts", self.class_texts)
        unknown = sorted(set(given) - set(class_names))
        if unknown:
            raise ValueError(f"class_texts names {unknown}, which are none of the classes {list(class_names)}.")
        return [given.get(name, text_of_class(name)) for name in class_names]

    def descriptions_of(self, class_names: Sequence[str]) -> list[list[str]] | None:
        """The descriptions of each class, or None where the recipe names none; errors as of `load_descriptions`."""
        return None if self.descriptions is None else load_descriptions(self.descriptions).for_classes(class_names)


@dataclass
class VideoTextTrainingArguments(TrainingArguments):
    """transformers' arguments with X-CLIP's defaults (`optimizer.py`, supplement table 1) and what video needs."""

    learning_rate: float = field(default=8e-6, metadata={"help": "Base rate, of what CLIP brings."})
    total_train_batch_size: int | None = field(
        default=None,
        metadata={"help": "Clips per step over all processes; sets per_device_train_batch_size."},
    )
    new_module_lr_factor: float = field(default=10.0, metadata={"help": "Rate of new modules, times the base rate."})
    weight_decay: float = field(default=0.001, metadata={"help": "Not of 1-D tensors, biases and position embeddings."})
    adam_beta2: float = field(default=0.98, metadata={"help": "Second beta of AdamW."})
    lr_scheduler_type: str = field(default="cosine_with_min_lr", metadata={"help": "Name of a transformers schedule."})
    lr_scheduler_kwargs: dict | str | None = field(
        default_factory=lambda: {"min_lr_rate": 0.01}, metadata={"help": "Arguments of the schedule, as JSON."}
    )
    warmup_steps: float = field(
        default=0.1, metadata={"help": "Steps of linear warm-up; below 1 a share of all steps."}
    )
    max_grad_norm: float = field(default=0.0, metadata={"help": "Clip gradients to this norm; 0 does not, as X-CLIP."})
    eval_strategy: str = field(default="epoch", metadata={"help": "When to evaluate: no, steps, epoch."})
    save_strategy: str = field(default="epoch", metadata={"help": "When to save: no, steps, epoch."})
    save_total_limit: int | None = field(default=2, metadata={"help": "Checkpoints to keep."})
    # The order of the union is transformers' own: its argument parser reads the first members only.
    report_to: None | str | list[str] = field(default="tensorboard", metadata={"help": "Trackers."})  # noqa: RUF036
    ddp_find_unused_parameters: bool | None = field(
        default=False, metadata={"help": "Not needed: what is not trained is frozen."}
    )
    remove_unused_columns: bool = field(default=False, metadata={"help": "Must stay False: it would drop the videos."})

    def __post_init__(self) -> None:
        if self.output_dir is None:
            raise ValueError("output_dir is missing; say where checkpoints and results go.")
        if self.remove_unused_columns:
            raise ValueError("remove_unused_columns=True would drop the videos; leave it False.")
        if self.label_smoothing_factor:
            raise ValueError("label_smoothing_factor takes the labels away from the model; it is not supported here.")
        if self.hub_token:
            raise ValueError("hub_token would be written into training_args.bin; log in with `hf auth login` instead.")
        super().__post_init__()
        if self.total_train_batch_size is not None:
            self.per_device_train_batch_size = self._clips_per_device(self.total_train_batch_size)

    def _clips_per_device(self, total: int) -> int:
        parts = self.world_size * max(1, self.n_gpu) * self.gradient_accumulation_steps
        if total < 1 or total % parts:
            raise ValueError(
                f"total_train_batch_size={total} is not divisible by {parts} (processes x accumulation steps); "
                "choose a multiple, or set per_device_train_batch_size instead."
            )
        return total // parts


@dataclass(frozen=True)
class Recipe:
    """A complete run."""

    model: ModelArguments
    data: DataArguments
    training: VideoTextTrainingArguments


def parse_recipe(arguments: list[str], *, model: str | None = None) -> Recipe:
    """A recipe from the command line: an optional YAML file first, then `--name value` which wins over the file.

    Args:
        arguments: as on the command line.
        model: takes the place of where the recipe gets its weights from.

    Raises:
        ValueError: for a key that is no setting (the nearest one is named), or values that do not fit together.
        FileNotFoundError: if the YAML file does not exist.
        SystemExit: for an unknown option or a value of a wrong type, as argparse does.
    """
    parts: Any = (ModelArguments, DataArguments, VideoTextTrainingArguments)
    parser = HfArgumentParser(parts, allow_abbrev=False, prog="train")
    parser.usage = "%(prog)s [RECIPE.yaml] [--name value ...]   (--help lists the names)"
    if arguments and not arguments[0].startswith("-"):
        _set_defaults(parser, Path(arguments[0]))
        arguments = arguments[1:]
    if model is not None:
        # A recipe's say how to train; a trained model has its own.
        own = dict.fromkeys(("preset", "model_config", "architecture", "model_overrides", *_GIVEN_CONTRACT))
        parser.set_defaults(model=model, **own)
    model_arguments, data, training = parser.parse_args_into_dataclasses(args=arguments)
    return Recipe(model_arguments, data, training)


def _set_defaults(parser: HfArgumentParser, path: Path) -> None:
    """Makes the values of a YAML file the parser's defaults, as strings, so that argparse converts and checks them."""
    if not path.is_file():
        raise FileNotFoundError(f"no recipe at {path}.")
    try:
        settings = yaml.safe_load(path.read_text("utf-8")) or {}
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is no YAML: {error}") from error
    if not isinstance(settings, dict):
        raise ValueError(f"{path} is no mapping of settings to values.")
    actions: dict[str, list[Any]] = {}
    for action in parser._actions:
        actions.setdefault(action.dest, []).append(action)
    for key, value in settings.items():
        if key not in actions:
            closest = difflib.get_close_matches(key, actions, n=1)
            raise ValueError(
                f"{path}: unknown setting {key!r}" + (f"; did you mean {closest[0]!r}?" if closest else ".")
            )
        for action in actions[key]:  # a boolean has two: --name and --no_name
            action.default = _as_argument(value, action)
            action.required = False


def _as_argument(value: Any, action: Any) -> Any:
    if value is None or isinstance(value, list):
        return value if value is None else [_convert(str(item), action) for item in value]
    if isinstance(value, dict):
        return json.dumps(value)
    if isinstance(value, bool):
        return value
    return str(value)


def _convert(value: str, action: Any) -> Any:
    return action.type(value) if action.type else value


def as_settings(recipe: Recipe) -> dict[str, Any]:
    """The settings of a run that differ from their defaults, for cards and results; no token is among them."""
    plain = VideoTextTrainingArguments(output_dir=recipe.training.output_dir, use_cpu=recipe.training.use_cpu)
    settings: dict[str, Any] = {}
    for part in (recipe.model, recipe.data, recipe.training):
        for item in dataclasses.fields(part):
            value = getattr(part, item.name)
            default = getattr(plain, item.name) if part is recipe.training else _default(item)
            is_plain = isinstance(value, (bool, int, float, str, list)) and "token" not in item.name
            if item.init and is_plain and (value != default or item.name == "output_dir"):
                settings[item.name] = value
    return settings


def _default(item: dataclasses.Field) -> Any:
    return item.default if item.default_factory is dataclasses.MISSING else item.default_factory()
