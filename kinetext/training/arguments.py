"""Everything a training run is made of: three dataclasses, filled from a recipe (YAML) and overridden by flags."""

from __future__ import annotations

import dataclasses
import enum
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from transformers import HfArgumentParser, TrainingArguments
from transformers.hf_argparser import string_to_bool

from ..data.annotations import MAX_FAILED_SHARE, text_of_class
from ..data.augmentation import CROPS, Augmentation
from ..data.datasets import AUGMENT_ON
from ..data.settings_files import nearest, read_layers
from ..descriptions import load_descriptions
from ..processing.processing_video_text import CONTRACT
from ..processing.video_decoding import DECODERS

ARCHITECTURES = ("xclip", "moted", "video_clip")
HEADS = ("text", "linear")
BEST_METRICS = ("top1", "top5")
_PUBLISHED = Augmentation()

# What a value must be, where it is given: NaN is nothing of this.
_RANGES: tuple[tuple[str, Callable[[float], bool], tuple[str, ...]], ...] = (
    (
        "must be a share from 0 to 1",
        lambda value: 0 <= value <= 1,
        ("label_smoothing", "cutmix_probability", "max_failed_share"),
    ),
    ("must lie between 0 and 1, and be neither", lambda value: 0 < value < 1, ("ema_decay",)),
    (
        "must be above 0, and finite",
        lambda value: 0 < value < math.inf,
        ("learning_rate", "num_train_epochs", "lora_alpha"),
    ),
    (
        "must not be negative, and be finite",
        lambda value: 0 <= value < math.inf,
        (
            *("mixup_alpha", "cutmix_alpha", "warmup_epochs", "new_module_lr_factor"),
            *("min_learning_rate", "weight_decay", "max_grad_norm"),
        ),
    ),
    (
        "must be at least 1",
        lambda value: value >= 1,
        (
            *("total_train_batch_size", "max_clips_per_device", "gradient_accumulation_steps"),
            *("per_device_train_batch_size", "per_device_eval_batch_size", "push_every_epochs"),
        ),
    ),
)

# Settings of transformers that must stay off, and why.
_HARMFUL = {
    "remove_unused_columns": "would drop the videos; leave it False",
    "label_smoothing_factor": "takes the labels away from the model; use label_smoothing",
    "resume_from_checkpoint": "checks nothing; use resume: auto, or resume: FOLDER",
    "save_only_model": "writes checkpoints that no run can go on from; leave it out, and use the finished folder",
    "ignore_data_skip": "has a run that goes on see the first clips of its epoch again; leave it out",
    "auto_find_batch_size": "changes the batch, and the results with it; lower max_clips_per_device instead",
    "hub_token": "would be written into training_args.bin; log in with `hf auth login` instead",
}


def _check_ranges(arguments: Any) -> None:
    """Raises ValueError for a number that makes no sense."""
    for rule, holds, names in _RANGES:
        for name in names:
            value = getattr(arguments, name, None)
            if value is not None and not holds(value):
                raise ValueError(f"{name}={value} {rule}.")


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
        metadata={"help": "What a CLIP, preset or model_config becomes: xclip (the default), moted or video_clip."},
    )
    vision_tower: str | None = field(
        default=None,
        metadata={
            "help": "Repository or folder of a ViT, e.g. one trained on ImageNet, in place of the image tower of the "
            "CLIP that `model` names; of video_clip."
        },
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
    head: str = field(
        default="text", metadata={"help": "text (logits over class texts), or linear: one layer and no text tower."}
    )
    train_text: bool | None = field(
        default=None, metadata={"help": "Train the text tower. This and the next two: as the model is published."}
    )
    train_vision: bool | None = field(default=None, metadata={"help": "Train the image tower."})
    train_logit_scale: bool | None = field(default=None, metadata={"help": "Train the temperature."})
    lora_rank: int | None = field(
        default=None, metadata={"help": "Train the towers through LoRA of this rank; merged into what is saved."}
    )
    lora_alpha: float | None = field(default=None, metadata={"help": "Scale of LoRA; twice the rank by default."})

    def __post_init__(self) -> None:
        given = [name for name in ("model", "preset", "model_config") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"give exactly one of model, preset and model_config; got {given or 'none'}.")
        if self.architecture not in (None, *ARCHITECTURES):
            raise ValueError(
                f"architecture={self.architecture!r} is unknown; choose one of {', '.join(ARCHITECTURES)}."
            )
        if self.head not in HEADS:
            raise ValueError(f"head={self.head!r} is unknown; choose one of {', '.join(HEADS)}.")
        _check_ranges(self)
        if self.lora_alpha is not None and self.lora_rank is None:
            raise ValueError(f"lora_alpha={self.lora_alpha} has no effect without lora_rank; set that too.")
        if self.model_overrides is not None and self.model is None:
            raise ValueError(
                "model_overrides change what the CLIP of `model` becomes; without one, write these fields into "
                "model_config."
            )
        if self.vision_tower is not None and (self.model is None or self.architecture != "video_clip"):
            raise ValueError(
                f"vision_tower={self.vision_tower!r} takes the place of a CLIP's image tower in a VideoCLIP; set "
                "architecture: video_clip, and model: the CLIP whose text tower it gets."
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
    train: str = field(
        default=".",
        metadata={"help": "Folder of <class>/<clip>, CSV, official annotation file, tar shards, or data set."},
    )
    eval: str | None = field(default=None, metadata={"help": "As train, for evaluation; or use hold_out."})
    hold_out: list[str] = field(
        default_factory=list,
        metadata={"help": "File name patterns of `train` that are evaluated instead of trained on."},
    )
    classes: str | None = field(
        default=None, metadata={"help": "Class names in label order: a list that comes with kinetext, or a file."}
    )
    class_texts: str | None = field(
        default=None,
        metadata={
            "help": "Text of each class name where it is not the name itself: a mapping, as YAML; or the word "
            '"descriptions": the text of a class is its description.'
        },
    )
    descriptions: str | None = field(
        default=None, metadata={"help": "How the classes move: a file, a built-in name or a Hub id."}
    )
    description_kinds: list[str] | None = field(
        default=None, metadata={"help": "Kinds of description to use; conceptual and discriminative by default."}
    )
    descriptions_masked: bool = field(default=False, metadata={"help": "Use the texts with object names masked."})
    shots: int | None = field(default=None, metadata={"help": "Train on so many clips of each class (few-shot)."})
    shots_seed: int = field(default=0, metadata={"help": "Which ones; more shots contain fewer."})
    streaming: bool = field(
        default=False, metadata={"help": "Read the data set of `train` as a stream; needs max_steps."}
    )
    cache_videos: bool = field(
        default=False, metadata={"help": "Keep decoded videos in memory, in each worker; for small data sets."}
    )
    manifest: str | None = field(
        default=None,
        metadata={
            "help": "File of `kinetext scan`: clips that it calls unreadable are not tried; those of tar shards are."
        },
    )
    max_failed_share: float = field(
        default=MAX_FAILED_SHARE,
        metadata={"help": "Stop when more than this share of the training clips cannot be decoded."},
    )
    crop: str = field(default=_PUBLISHED.crop, metadata={"help": f"{', '.join(CROPS)}."})
    random_resized_scale: list[float] = field(
        default_factory=lambda: list(_PUBLISHED.random_resized_scale),
        metadata={"help": "Smallest and largest share of the area, of crop=random_resized."},
    )
    flip_probability: float = field(
        default=_PUBLISHED.flip_probability, metadata={"help": "Mirror whole clips; 0 where sides tell classes apart."}
    )
    flip_swaps: str | None = field(
        default=None,
        metadata={"help": "Classes that are each other mirrored: ssv2, or a mapping of names, as YAML."},
    )
    color_jitter_probability: float = field(
        default=_PUBLISHED.color_jitter_probability, metadata={"help": "Of jittering the colours of a clip."}
    )
    color_jitter: list[float] = field(
        default_factory=lambda: list(_PUBLISHED.color_jitter),
        metadata={"help": "How much: brightness, contrast, saturation, hue."},
    )
    color_jitter_per: str = field(
        default=_PUBLISHED.color_jitter_per, metadata={"help": "What gets factors of its own: frame or clip."}
    )
    grayscale_probability: float = field(
        default=_PUBLISHED.grayscale_probability, metadata={"help": "Of taking the colours of a clip away."}
    )
    augment_on: str = field(
        default=AUGMENT_ON[0], metadata={"help": "Where colours and pixel values are made: workers or accelerator."}
    )
    decoder: str = field(default="pyav", metadata={"help": "pyav or decord."})

    def __post_init__(self) -> None:
        if self.decoder not in DECODERS:
            raise ValueError(f"decoder={self.decoder!r} is unknown; choose one of {', '.join(DECODERS)}.")
        if self.augment_on not in AUGMENT_ON:
            raise ValueError(f"augment_on={self.augment_on!r} is unknown; choose one of {', '.join(AUGMENT_ON)}.")
        _check_ranges(self)
        if self.texts_are_descriptions and self.descriptions is None:
            raise ValueError('class_texts="descriptions" needs `descriptions`: a file or a built-in name.')
        _ = self.augmentation  # its own checks

    @property
    def augmentation(self) -> Augmentation:
        """What training does to a clip besides random frames."""
        values: dict[str, Any] = {item.name: getattr(self, item.name) for item in dataclasses.fields(Augmentation)}
        for name in ("random_resized_scale", "color_jitter"):
            values[name] = tuple(values[name])
        return Augmentation(**values)

    @property
    def texts_are_descriptions(self) -> bool:
        """Whether the text of a class is its description (Devaraj et al.) instead of its name."""
        return self.class_texts == "descriptions"

    @property
    def swaps(self) -> str | dict[str, str] | None:
        """`flip_swaps` as `flip_twins` takes it; None where no clip is mirrored."""
        if not self.flip_probability:
            return None
        if self.flip_swaps is None or not self.flip_swaps.startswith("{"):
            return self.flip_swaps
        return _mapping("flip_swaps", self.flip_swaps)

    def texts_of(self, class_names: Sequence[str]) -> list[str]:
        """The text of each class: what `class_texts` says, else the name with spaces for underscores.

        Raises:
            ValueError: if `class_texts` names a class that is not there, or a class has several descriptions where
                they are the texts.
        """
        if self.texts_are_descriptions:
            return _only_ones(self._load_descriptions(class_names), class_names)
        given = _mapping("class_texts", self.class_texts)
        unknown = sorted(set(given) - set(class_names))
        if unknown:
            raise ValueError(f"class_texts names {unknown}, which are none of the classes {list(class_names)}.")
        return [given.get(name, text_of_class(name)) for name in class_names]

    def descriptions_of(self, class_names: Sequence[str]) -> list[list[str]] | None:
        """The descriptions of each class, or None where the model reads none; errors as of `load_descriptions`."""
        if self.descriptions is None or self.texts_are_descriptions:
            return None
        return self._load_descriptions(class_names)

    def _load_descriptions(self, class_names: Sequence[str]) -> list[list[str]]:
        kinds: dict[str, Any] = {} if self.description_kinds is None else {"kinds": self.description_kinds}
        loaded = load_descriptions(str(self.descriptions), masked=self.descriptions_masked, **kinds)
        return loaded.for_classes(class_names)


def _only_ones(descriptions: Sequence[Sequence[str]], class_names: Sequence[str]) -> list[str]:
    """The one description of each class."""
    for name, texts in zip(class_names, descriptions, strict=True):
        if len(texts) != 1:
            raise ValueError(
                f"{name!r} has {len(texts)} descriptions, and its text can be only one; choose a kind that has one, "
                "e.g. description_kinds: [characteristic]."
            )
    return [texts[0] for texts in descriptions]


@dataclass
class VideoTextTrainingArguments(TrainingArguments):
    """transformers' arguments with X-CLIP's defaults (fully supervised, supplement table 1) and what video needs."""

    learning_rate: float = field(default=8e-6, metadata={"help": "Base rate, of what CLIP brings."})
    new_module_lr_factor: float = field(default=10.0, metadata={"help": "Rate of new modules, times the base rate."})
    lr_scheduler_type: str = field(
        default="cosine", metadata={"help": "cosine is X-CLIP's, to min_learning_rate; or a schedule of transformers."}
    )
    min_learning_rate: float | None = field(
        default=None, metadata={"help": "Where the cosine ends, for all parameters; a hundredth of learning_rate."}
    )
    warmup_epochs: float = field(
        default=5.0,
        metadata={
            "help": "Epochs of linear warm-up from 0, unless warmup_steps is above 0; with max_steps only that counts."
        },
    )
    num_train_epochs: float = field(default=30.0, metadata={"help": "Epochs; max_steps, where given, wins."})
    weight_decay: float = field(default=0.001, metadata={"help": "Not of 1-D tensors, biases and position embeddings."})
    decay_all: bool = field(default=False, metadata={"help": "Decay of those too."})
    adam_beta2: float = field(default=0.98, metadata={"help": "Second beta of AdamW."})
    total_train_batch_size: int | None = field(
        default=None,
        metadata={"help": "Clips per step over all processes; per_device_train_batch_size follows from it."},
    )
    max_clips_per_device: int | None = field(
        default=None,
        metadata={"help": "Most clips that a device takes at once; gradient_accumulation_steps follow from it."},
    )
    label_smoothing: float = field(default=0.1, metadata={"help": "Share of a label that is spread over all classes."})
    mixup_alpha: float = field(default=0.8, metadata={"help": "Of Mixup; 0 for none."})
    cutmix_alpha: float = field(default=1.0, metadata={"help": "Of CutMix; 0 for none."})
    cutmix_probability: float = field(default=0.5, metadata={"help": "Of CutMix where both are on, else Mixup."})
    max_grad_norm: float = field(default=0.0, metadata={"help": "Clip gradients to this norm; 0 does not, as X-CLIP."})
    ema_decay: float | None = field(
        default=None,
        metadata={"help": "Average trained weights with this decay per step; the average is evaluated and saved."},
    )
    dataloader_drop_last: bool = field(
        default=True, metadata={"help": "Leave out of an epoch what fills no batch, other clips in each."}
    )
    eval_strategy: str = field(default="epoch", metadata={"help": "When to evaluate: no, steps, epoch."})
    save_strategy: str = field(default="epoch", metadata={"help": "When to save: no, steps, epoch."})
    save_total_limit: int | None = field(default=2, metadata={"help": "Checkpoints to keep, the best among them."})
    metric_for_best_model: str | None = field(default="top1", metadata={"help": "What makes a checkpoint the best."})
    greater_is_better: bool | None = field(default=True, metadata={"help": "Whether more of it is better."})
    report_to: list[str] = field(
        default_factory=lambda: ["tensorboard"], metadata={"help": "Trackers, e.g. tensorboard, trackio, wandb; none."}
    )
    ddp_find_unused_parameters: bool | None = field(
        default=False, metadata={"help": "Not needed: what is not trained is frozen."}
    )
    remove_unused_columns: bool = field(default=False, metadata={"help": "Must stay False: it would drop the videos."})
    resume: str | None = field(
        default=None,
        metadata={"help": "auto: go on from the last checkpoint in output_dir, if there is one; or its folder."},
    )
    push_to_hub: str | None = field(  # type: ignore[assignment]
        default=None, metadata={"help": "Repository, owner/name, that the finished folder is pushed to."}
    )
    push_every_epochs: int | None = field(default=None, metadata={"help": "Push after every so many epochs too."})
    license: str | None = field(
        default=None, metadata={"help": "Licence of the weights, an id of the Hub; a push needs one."}
    )

    def __post_init__(self) -> None:
        if not self.output_dir:
            raise ValueError("output_dir is missing; say where checkpoints and results go.")
        if Path(self.output_dir).is_file():
            raise ValueError(f"output_dir={self.output_dir!r} is a file; name a folder, which need not exist.")
        for name, harm in _HARMFUL.items():
            if getattr(self, name):
                raise ValueError(f"{name} {harm}.")
        _check_ranges(self)
        if self.min_learning_rate is not None and self.lr_scheduler_type != "cosine":
            raise ValueError(
                f"min_learning_rate={self.min_learning_rate} is of lr_scheduler_type: cosine, not of "
                f"{self.lr_scheduler_type}; leave it out, or write what that schedule takes into lr_scheduler_kwargs."
            )
        if self.push_every_epochs is not None and self.push_to_hub is None:
            raise ValueError(f"push_every_epochs={self.push_every_epochs} has no effect without push_to_hub.")
        if self.push_to_hub and self.license is None:
            raise ValueError(
                f"push_to_hub={self.push_to_hub} needs a license, without which nobody may use the weights: e.g. "
                "license: apache-2.0, or cc-by-nc-4.0 where the data ask for it."
            )
        # transformers' own push would upload optimizer states and a pickle; ours is in run.py.
        self.hub_model_id, self.push_to_hub = self.push_to_hub, False  # type: ignore[assignment]
        super().__post_init__()
        if self.metric_for_best_model not in (None, *BEST_METRICS):
            raise ValueError(
                f"metric_for_best_model={self.metric_for_best_model!r} is not what makes a model the best; choose one "
                f"of {', '.join(BEST_METRICS)}."
            )
        if self.total_train_batch_size is not None:
            self._split_batch(self.total_train_batch_size)
        elif self.max_clips_per_device is not None:
            raise ValueError("max_clips_per_device splits total_train_batch_size; set that too.")

    @property
    def effective_batch_size(self) -> int:
        """Clips per optimiser step, over processes and accumulation."""
        return self.train_batch_size * self.world_size * self.gradient_accumulation_steps

    def get_warmup_steps(self, num_training_steps: int) -> int:
        """Steps of linear warm-up, by `warmup_steps` as in transformers or else by `warmup_epochs`.

        Raises:
            ValueError: if nothing would be left of the run after it.
        """
        steps = super().get_warmup_steps(num_training_steps)
        if not self.warmup_steps and self.max_steps <= 0:
            steps = round(self.warmup_epochs * num_training_steps / self.num_train_epochs)
        if steps >= num_training_steps:
            raise ValueError(
                f"warm-up takes {steps} of {num_training_steps} steps, so the rate would never come down: lower "
                f"warmup_epochs={self.warmup_epochs} (or warmup_steps={self.warmup_steps}), or train longer."
            )
        return steps

    def _split_batch(self, total: int) -> None:
        """Sets clips per device and accumulation steps so that each step sees `total` clips on any number of those.

        As many at once as may be; where clips are blended two by two, an even number if there is one.
        """
        devices = self.world_size * max(1, self.n_gpu)
        most = self.max_clips_per_device or total
        parts = {
            steps: total // (devices * steps)
            for steps in range(self.gradient_accumulation_steps, total + 1)
            if total % (devices * steps) == 0 and total // (devices * steps) <= most
        }
        if not parts:
            raise ValueError(
                f"total_train_batch_size={total} cannot be split evenly over {devices} devices, at most {most} clips "
                "at once each; choose a multiple of the number of devices."
            )
        blends = bool(self.mixup_alpha or self.cutmix_alpha)
        steps = min(parts, key=lambda steps: (blends and parts[steps] % 2, steps))
        self.gradient_accumulation_steps, self.per_device_train_batch_size = steps, parts[steps]


@dataclass(frozen=True)
class Recipe:
    """A complete run."""

    model: ModelArguments
    data: DataArguments
    training: VideoTextTrainingArguments


def parse_recipe(arguments: list[str], *, model: str | None = None) -> Recipe:
    """A recipe from the command line: an optional YAML file first, then `--name value` which wins over the file.

    A file may name another, or several, as its `base` (relative to itself): later ones win over earlier ones, and the
    file itself over all of them. `null` takes a setting of a base back.

    Args:
        arguments: as on the command line.
        model: takes the place of where the recipe gets its weights from.

    Raises:
        ValueError: for a name that is no setting (the nearest one is named), or values that do not fit together.
        FileNotFoundError: if a YAML file does not exist.
        SystemExit: for a value of a wrong type, as argparse does.
    """
    parts: Any = (ModelArguments, DataArguments, VideoTextTrainingArguments)
    parser = HfArgumentParser(parts, allow_abbrev=False, prog="train")
    parser.usage = "%(prog)s [RECIPE.yaml] [--name value ...]   (--help lists the names)"
    for action in parser._actions:
        if action.type is string_to_bool and action.nargs is None:  # a boolean that may also be None
            action.nargs, action.const = "?", True
    if arguments and not arguments[0].startswith("-"):
        _set_defaults(parser, Path(arguments[0]))
        arguments = arguments[1:]
    if model is not None:  # it is what it was trained to be; the recipe's say how to train another, and where it goes
        own = {item.name: _default(item) for item in dataclasses.fields(ModelArguments)}
        parser.set_defaults(**own | {"model": model, "shots": None, "output_dir": None})
    for word in parser.parse_known_args(arguments)[1]:
        name = word.partition("=")[0]
        raise ValueError(f"unknown argument {name!r}{nearest(name, parser._option_string_actions)}")
    model_arguments, data, training = parser.parse_args_into_dataclasses(args=arguments, look_for_args_file=False)
    return Recipe(model_arguments, data, training)


def _set_defaults(parser: HfArgumentParser, path: Path) -> None:
    """Makes the settings of a recipe the parser's defaults, as strings, so that argparse converts and checks them."""
    actions: dict[str, list[Any]] = {}
    for action in parser._actions:
        actions.setdefault(action.dest, []).append(action)
    settings: dict[str, tuple[Any, Path]] = {}
    for file, of_file in read_layers(path, "recipe"):
        for key, value in of_file.items():
            if key not in actions:
                raise ValueError(f"{file}: unknown setting {key!r}{nearest(str(key), [*actions, 'base'])}")
            settings[key] = value, file
    for key, (value, file) in settings.items():
        if value is None:
            continue
        for action in actions[key]:  # a boolean has two: --name and --no_name
            action.default = _as_argument(value, action, file)
            action.required = False


def _as_argument(value: Any, action: Any, file: Path) -> Any:
    """A value of a YAML file as argparse takes a default: what it converts is a string."""
    is_switch = action.type is string_to_bool or action.nargs == 0
    if isinstance(value, bool) != is_switch:
        way_out = "write true or false" if is_switch else "YAML reads yes, no, on and off so: put such a word in quotes"
        raise ValueError(f"{file}: {action.dest}={value!r} is {'not' if is_switch else 'just'} a yes or no; {way_out}.")
    if is_switch:
        return value
    if isinstance(value, dict):
        return json.dumps(value)
    if action.nargs == "+":
        return [action.type(str(item)) for item in (value if isinstance(value, list) else [value])]
    if isinstance(value, list):
        raise ValueError(f"{file}: {action.dest}={value!r} is a list, and one value is wanted.")
    return str(value)


def as_settings(recipe: Recipe) -> dict[str, Any]:
    """The settings of a run that differ from their defaults, for cards and results; no token is among them."""
    plain = VideoTextTrainingArguments(output_dir=recipe.training.output_dir, use_cpu=recipe.training.use_cpu)
    settings: dict[str, Any] = {}
    for part in (recipe.model, recipe.data, recipe.training):
        for item in dataclasses.fields(part):
            value = _plain(getattr(part, item.name))
            default = _plain(getattr(plain, item.name)) if part is recipe.training else _default(item)
            is_plain = isinstance(value, (bool, int, float, str, list)) and "token" not in item.name
            if item.init and is_plain and (value != default or item.name == "output_dir"):
                settings[item.name] = value
    return settings


def _default(item: dataclasses.Field) -> Any:
    return item.default if item.default_factory is dataclasses.MISSING else item.default_factory()


def _plain(value: Any) -> Any:
    """The value of an enumeration, where it is of one."""
    return value.value if isinstance(value, enum.Enum) else value
