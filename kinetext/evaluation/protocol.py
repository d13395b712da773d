"""Protocols: what fixes an accuracy besides the model, with a name, a version and a SHA-256.

    protocols/<name>.yaml or a file of yours ──load_protocol──► Protocol ──read_split──► clips of each split
                                                                   │
                                        model's frames and pixels ─┴─bound──► the Protocol that a result carries

Numbers of different hashes are not compared, merged or tabled together. What belongs to a model does not count: the
statistics of its pixels, its weights, or the descriptions that it reads beside the class texts (MoTED).
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..data.annotations import MAX_FAILED_SHARE, read_clips
from ..data.clip_lists import ClipList
from ..data.datasets import EvalClips
from ..data.label_lists import load_label_list
from ..data.list_facts import list_fingerprint
from ..data.prompt_templates import load_templates
from ..data.settings_files import nearest, read_layers
from ..descriptions import load_descriptions
from ..processing.frame_sampling import SAMPLINGS
from ..processing.processing_video_text import VideoTextProcessor

__all__ = [
    "Protocol",
    "Split",
    "load_protocol",
    "own_clips",
    "parse_views",
    "protocol_of",
    "read_split",
    "shipped_protocols",
]

TASKS = ("classification", "retrieval", "multi_label")
AVERAGES = ("probabilities", "features")
FAILED_CLIPS = ("left_out", "wrong")
MEANS = ("arithmetic", "harmonic")

SHIPPED_PROTOCOLS = Path(__file__).parent / "protocols"
_FORMAT = 1  # of what is hashed; another number where evaluation itself gives other results
_OF_THE_MODEL = (
    "num_frames",
    "sampling",
    "stride",
    "short_side",
    "crop_size",
)  # filled in where a protocol leaves them


@dataclass(frozen=True)
class Split:
    """Some clips of a protocol; a result is given for each split, and their mean.

    Attributes:
        name: of the split, e.g. "split 1".
        clips: what `read_clips` takes; of several, the first that is there.
        classes: the candidates of this split, of those of the protocol; None for all of them.
        num_clips: clips it has; None where copies of the data differ.
        clips_sha256: `list_fingerprint` of the official list; None where copies of the data differ.
    """

    name: str
    clips: tuple[str, ...] = (".",)
    classes: tuple[str, ...] | None = None
    num_clips: int | None = None
    clips_sha256: str | None = None


@dataclass(frozen=True)
class Protocol:
    """How a number comes about.

    Attributes:
        name: of the protocol; letters, digits, dots, hyphens and underscores.
        version: raised whenever a change of the protocol changes numbers.
        dataset: what the clips are of, as the Hub calls it.
        classes: N candidates, as written in the data.
        class_texts: N texts that stand for them.
        task: "classification", "retrieval" of the right text (ranks are reported), or "multi_label" (mAP).
        listed_classes: what the lists of clips count in, if that is more than `classes`: clips of others are left out.
        distractors: further texts, which are right for no clip.
        templates: M texts with `{}` for the class text; an ensemble if there are several; the model's where it is None.
        template_average: of an ensemble, average "probabilities", or the "features" of the texts (CLIP's way).
        num_frames: frames per clip; this and the next four, too, are the model's where they are None.
        sampling: "segments", "uniform" or "dense".
        stride: distance of neighbouring frames in "dense"; None with another sampling.
        short_side: pixels of the shorter side before a centre crop.
        crop_size: pixels of the square that the model sees.
        num_clips: clips per video.
        num_crops: crops per clip, 1 or 3.
        view_average: average "probabilities" of views (X-CLIP, ViFi-CLIP), or "features" (Text4Vis).
        failed_clips: those that cannot be decoded are "left_out" of the accuracy, or "wrong". Both bounds are reported.
        split_mean: of accuracies over the splits, "arithmetic" or "harmonic" (base-to-novel).
        splits: at least one.
        note: what a reader of the numbers should know; not hashed.
    """

    name: str
    version: int
    dataset: str
    classes: tuple[str, ...]
    class_texts: tuple[str, ...]
    task: str = TASKS[0]
    listed_classes: tuple[str, ...] | None = None
    distractors: tuple[str, ...] = ()
    templates: tuple[str, ...] | None = None
    template_average: str = AVERAGES[0]
    num_frames: int | None = None
    sampling: str | None = None
    stride: int | None = None
    short_side: int | None = None
    crop_size: int | None = None
    num_clips: int = 1
    num_crops: int = 1
    view_average: str = AVERAGES[0]
    failed_clips: str = FAILED_CLIPS[0]
    split_mean: str = MEANS[0]
    splits: tuple[Split, ...] = (Split("all"),)
    note: str = ""

    def __post_init__(self) -> None:
        self._check_types()
        for name, choices in (
            ("task", TASKS),
            ("template_average", AVERAGES),
            ("view_average", AVERAGES),
            ("failed_clips", FAILED_CLIPS),
            ("split_mean", MEANS),
            ("sampling", (None, *SAMPLINGS)),
            ("num_crops", (1, 3)),
        ):
            if getattr(self, name) not in choices:
                raise ValueError(
                    f"protocol {self.name!r}: {name}={getattr(self, name)!r}; choose one of "
                    f"{', '.join(str(choice) for choice in choices if choice is not None)}."
                )
        for name in ("version", "num_frames", "stride", "short_side", "crop_size", "num_clips", "num_crops"):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
                raise ValueError(f"protocol {self.name!r}: {name}={value!r} must be a whole number of at least 1.")
        if self.task == "multi_label" and self.failed_clips == "wrong":
            raise ValueError(
                f"protocol {self.name!r}: failed_clips='wrong' has no meaning where clips are ranked for each class "
                "(multi_label); use left_out."
            )
        self._check_texts()
        self._check_splits()

    def _check_types(self) -> None:
        where = f"protocol {self.name!r}"
        for field in ("name", "dataset", "note"):
            _check_string(f"{where}: {field}", getattr(self, field))
        for field in ("classes", "class_texts", "listed_classes", "distractors", "templates"):
            _check_strings(f"{where}: {field}", getattr(self, field))
        for split in self.splits:
            _check_string(f"{where}: the name of a split", split.name)
            for field in ("clips", "classes"):
                _check_strings(f"{where}, {split.name}: {field}", getattr(split, field))
            if split.clips_sha256 is not None:
                _check_string(f"{where}, {split.name}: clips_sha256", split.clips_sha256)

    def _check_texts(self) -> None:
        if not re.fullmatch(r"[\w.-]+", self.name):
            raise ValueError(f"the protocol name {self.name!r} holds more than letters, digits, dots, hyphens and _.")
        if len(self.classes) < 2 or len(set(self.classes)) < len(self.classes):
            raise ValueError(f"protocol {self.name!r}: classes must be at least two, each once; got {self.classes}.")
        if len(self.class_texts) != len(self.classes):
            raise ValueError(
                f"protocol {self.name!r}: {len(self.class_texts)} class_texts for {len(self.classes)} classes."
            )
        read = [_as_read(text) for text in self.class_texts]
        for text, count in Counter([*read, *map(_as_read, self.distractors)]).items():
            if count > 1:
                of_text = [name for name, own in zip(self.classes, read, strict=True) if own == text]
                what = (
                    f"the classes {of_text} have the same text" if len(of_text) > 1 else "a distractor is there twice"
                )
                raise ValueError(
                    f"{what}, {text!r}; give each its own (class_texts), as nothing else tells them apart: case and "
                    "spaces do not count."
                )
        if self.templates is not None and (not self.templates or any(each.count("{}") != 1 for each in self.templates)):
            raise ValueError(
                f"protocol {self.name!r}: templates={self.templates}: each needs {{}} once, for the class."
            )

    def _check_splits(self) -> None:
        names = [split.name for split in self.splits]
        if not names or len(set(names)) < len(names):
            raise ValueError(f"protocol {self.name!r} must have splits of different names; got {names}.")
        for split in self.splits:
            if unknown := sorted(set(split.classes or ()) - set(self.classes)):
                raise ValueError(f"protocol {self.name!r}, {split.name}: {unknown} are none of its classes.")
            if not self.split_classes(split) or len(self.split_texts(split)) < 2:
                raise ValueError(
                    f"protocol {self.name!r}, {split.name}: its classes={split.classes} and the distractors are not "
                    "two texts, so nothing is chosen between; give it another class, or the protocol distractors."
                )
        listed = Counter(self.listed_classes or ())
        if twice := [name for name, count in listed.items() if count > 1]:
            raise ValueError(f"protocol {self.name!r}: listed_classes names {twice} twice; name each once.")
        if self.listed_classes is not None and (unknown := sorted(set(self.classes) - set(self.listed_classes))):
            raise ValueError(f"protocol {self.name!r}: the classes {unknown} are none of listed_classes.")

    @property
    def content(self) -> dict[str, Any]:
        """Every field by its name, as JSON has them."""
        return json.loads(json.dumps(dataclasses.asdict(self)))

    @property
    def sha256(self) -> str:
        """The hash, in hexadecimal: of all fields but the note; the same on every machine."""
        hashed = {name: value for name, value in self.content.items() if name != "note"} | {"format": _FORMAT}
        return hashlib.sha256(json.dumps(hashed, sort_keys=True).encode()).hexdigest()

    @property
    def views(self) -> str:
        """Clips x crops per video, e.g. "4x3"."""
        return f"{self.num_clips}x{self.num_crops}"

    def split_classes(self, split: Split) -> tuple[str, ...]:
        """The candidates of a split, in the order of `classes`."""
        return self.classes if split.classes is None else tuple(name for name in self.classes if name in split.classes)

    def split_texts(self, split: Split) -> tuple[str, ...]:
        """The texts of these candidates, and then the distractors."""
        of_class = dict(zip(self.classes, self.class_texts, strict=True))
        return (*(of_class[name] for name in self.split_classes(split)), *self.distractors)

    @property
    def chance(self) -> float | None:
        """What guessing reaches at the primary metric; None for mAP, and where splits differ in how many texts."""
        counts = {len(self.split_texts(split)) for split in self.splits}
        return 1 / counts.pop() if len(counts) == 1 and self.task != "multi_label" else None

    def processor(self, processor: VideoTextProcessor) -> VideoTextProcessor:
        """A processor like this one that takes frames and pixels as the protocol says."""
        given = {name: getattr(self, name) for name in _OF_THE_MODEL if getattr(self, name) is not None}
        return VideoTextProcessor(processor.tokenizer, **{**processor.contract, **given})

    def bound(self, processor: VideoTextProcessor, clips: Sequence[ClipList]) -> Protocol:
        """The protocol that a result carries: with the frames and pixels of a model, and the clips that were there.

        Args:
            processor: as of `processor`.
            clips: of each split.
        """
        used = {name: getattr(processor, name) for name in _OF_THE_MODEL}
        used["templates"] = self.templates or (processor.template,)
        if processor.sampling != "dense":
            used["stride"] = None  # which only dense sampling looks at
        splits = tuple(
            replace(split, clips=(), num_clips=len(own), clips_sha256=list_fingerprint(own))
            for split, own in zip(self.splits, clips, strict=True)
        )
        return replace(self, **used, splits=splits)


def _as_read(text: str) -> str:
    """A text without case and spaces that tokenizers do not see."""
    return " ".join(text.casefold().split())


def _check_string(what: str, value: Any) -> None:
    if not isinstance(value, str):
        raise ValueError(
            f"{what}={value!r} must be text; write it in quotes, as YAML reads bare yes, no, null, numbers, dates and "
            "`a: b` as something else."
        )


def _check_strings(what: str, values: Any) -> None:
    if values is None:  # where a field may be left out
        return
    if isinstance(values, str) or not isinstance(values, Sequence):
        raise ValueError(f"{what}={values!r} must be a list.")
    for value in values:
        _check_string(f"an entry of {what}", value)


def own_clips(class_names: Sequence[str], class_texts: Sequence[str], **fields: Any) -> Protocol:
    """The protocol of clips that are evaluated as they are given, as training does.

    Args:
        class_names: N names in label order.
        class_texts: N texts that stand for them, before the template; the names where the model reads no texts.
        fields: others of [`Protocol`], such as the views.
    """
    return Protocol("own-clips", 1, "own clips", tuple(class_names), tuple(class_texts), **fields)


def protocol_of(dataset: EvalClips, class_texts: Sequence[str]) -> Protocol:
    """The bound protocol of clips that are evaluated as they are given, with the processor and the views of `dataset`.

    Args:
        dataset: of the evaluation.
        class_texts: as of `own_clips`.
    """
    views = {"num_clips": dataset.num_clips, "num_crops": dataset.num_crops}
    return own_clips(dataset.clips.class_names, class_texts, **views).bound(dataset.processor, [dataset.clips])


# Clips --------------------------------------------------------------------------------------------------------------


def read_split(
    protocol: Protocol,
    split: Split,
    *,
    data_root: str | os.PathLike[str],
    lists_root: str | os.PathLike[str] | None = None,
    max_failed_share: float = MAX_FAILED_SHARE,
) -> ClipList:
    """The clips of a split, whose labels count in its candidates.

    Args:
        protocol: what to read by.
        split: one of its splits.
        data_root: folder of the videos, which lists are relative to.
        lists_root: folder of the lists, where it is another one.
        max_failed_share: more of a list than this must not be missing on disk.

    Raises:
        FileNotFoundError: if there is no such list, or too much of what it lists is missing.
        ValueError: if it lists other clips than the official one, or none of the candidates.
    """
    listed = protocol.listed_classes or protocol.classes
    source = _existing(split, Path(data_root), Path(lists_root or data_root))
    every = read_clips(
        source,
        data_root=Path(data_root),
        class_names=listed,
        max_missing_share=max_failed_share,
        multi_label=protocol.task == "multi_label",
    )
    candidates = protocol.split_classes(split)
    new_label = {listed.index(name): label for label, name in enumerate(candidates)}
    kept = []
    for clip in every.clips:
        labels = [new_label[label] for label in (clip.label, *clip.other_labels) if label in new_label]
        if labels:
            kept.append(replace(clip, label=labels[0], other_labels=tuple(labels[1:])))
    clips = ClipList(tuple(kept), candidates)
    _check_clips(protocol, split, clips, source)
    return clips


def _existing(split: Split, data_root: Path, lists_root: Path) -> str:
    """The first source of a split that is there, as `read_clips` takes it: below the lists, else below the videos."""
    tried = []
    for source in split.clips:
        if source.startswith("hub:"):
            return source
        for root in dict.fromkeys((data_root,) if source == "." else (lists_root, data_root)):
            path = root / source
            whole, colon, _ = str(path).rpartition(":")  # `folder:part`
            if path.exists() or (colon and Path(whole).exists()):
                return str(path.absolute())
            tried.append(str(path))
    raise FileNotFoundError(
        f"{split.name}: there is no list of its clips; looked for {' and '.join(tried) or 'none, as none is named'}. "
        "Say where the lists are (--lists), or name yours in a protocol of your own (base: NAME, and its splits)."
    )


def _check_clips(protocol: Protocol, split: Split, clips: ClipList, source: str) -> None:
    """Raises ValueError unless these are the clips that the protocol fixes."""
    where = f"protocol {protocol.name!r}, {split.name}"
    if not len(clips):
        raise ValueError(f"{where}: {source} lists no clip of its {len(clips.class_names)} classes.")
    if split.num_clips is not None and len(clips) != split.num_clips:
        raise ValueError(
            f"{where} has {split.num_clips} clips, {source} lists {len(clips)}: it is another list, and its numbers "
            "would not compare. Use the official list, or a protocol of your own."
        )
    if split.clips_sha256 is not None and list_fingerprint(clips) != split.clips_sha256:
        raise ValueError(
            f"{where}: {source} lists as many clips as the official list, but others, or with other classes "
            f"(SHA-256 {list_fingerprint(clips)[:12]}, wanted {split.clips_sha256[:12]}). Use the official list."
        )


# Files --------------------------------------------------------------------------------------------------------------


def shipped_protocols() -> list[str]:
    """Names of the protocols that come with kinetext, in order."""
    return sorted(path.stem for path in SHIPPED_PROTOCOLS.glob("[!_]*.yaml"))


def load_protocol(source: str | os.PathLike[str]) -> Protocol:
    """A shipped protocol by its name, or one from a YAML file.

    The keys of a file are the fields of [`Protocol`], with these short forms, and `base` for what it is based on (a
    file, relative to it, or a shipped name):

    - `classes`, `listed_classes` and the `classes` of a split: a label list by its name, file or Hub id.
    - `class_texts`: "names" (as in the data), "spoken" (as in a sentence; the default), or a mapping with
      `descriptions` (a set by its name, file or Hub id), `kind` ("characteristic") and `masked` (false).
    - `distractors`: a mapping as of `class_texts`, with `classes`, the list of those whose texts are taken.
    - `templates`: the name of a template set, or one template.

    Raises:
        FileNotFoundError: if there is no such protocol or file.
        ValueError: for keys or values that are no protocol.
    """
    path = Path(source)
    if str(source) in shipped_protocols():
        path = SHIPPED_PROTOCOLS / f"{source}.yaml"
    elif not path.suffix and not path.exists():
        raise FileNotFoundError(
            f"there is no protocol {str(source)!r}{nearest(str(source), shipped_protocols())} Those that come with "
            f"kinetext: {', '.join(shipped_protocols())}. One of your own is a YAML file."
        )
    settings: dict[str, Any] = {}
    for file, layer in read_layers(path, "protocol", shipped=SHIPPED_PROTOCOLS):
        for key in layer:
            if key not in _FIELDS:
                raise ValueError(f"{file}: unknown setting {key!r}{nearest(str(key), [*_FIELDS, 'base'])}")
        settings |= layer
    try:
        return _protocol(path, {key: value for key, value in settings.items() if value is not None})
    except (TypeError, ValueError, FileNotFoundError) as error:
        kind = FileNotFoundError if isinstance(error, FileNotFoundError) else ValueError
        raise kind(f"{path}: {error}") from error


_FIELDS = tuple(item.name for item in dataclasses.fields(Protocol))


def parse_views(views: str) -> dict[str, Any]:
    """num_clips and num_crops of "4x3"; ValueError for another form."""
    counts = re.fullmatch(r"([1-9]\d*)x([13])", views)
    if counts is None:
        raise ValueError(f"views={views!r} is not understood; write clips x crops with 1 or 3 crops, e.g. 4x3.")
    return {"num_clips": int(counts[1]), "num_crops": int(counts[2])}


def _protocol(path: Path, settings: Mapping[str, Any]) -> Protocol:
    fields = {"name": path.stem, "version": 1, **settings}
    for needed in ("dataset", "classes"):
        if needed not in fields:
            raise ValueError(f"it does not say {needed}.")
    listed = _class_names(fields["classes"])
    fields["class_texts"] = _class_texts(fields.get("class_texts", "spoken"), fields["classes"], listed)
    fields["classes"] = listed
    if "listed_classes" in fields:
        fields["listed_classes"] = _class_names(fields["listed_classes"], "listed_classes")
    fields["distractors"] = _distractors(fields.get("distractors", []))
    if "templates" in fields:
        fields["templates"] = _templates(fields["templates"])
    if "splits" in fields:
        fields["splits"] = tuple(_split(split) for split in _listed("splits", fields["splits"]))
    return Protocol(**fields)


def _split(settings: Any) -> Split:
    names = [item.name for item in dataclasses.fields(Split)]
    if not isinstance(settings, dict) or "name" not in settings or not set(settings) <= set(names):
        raise ValueError(f"a split is a mapping with a name and some of {', '.join(names)}; got {settings!r}.")
    fields = dict(settings)
    if "clips" in fields:
        clips = fields["clips"]
        fields["clips"] = (clips,) if isinstance(clips, str) else _texts("clips", clips)
    if fields.get("classes") is not None:
        fields["classes"] = _class_names(fields["classes"])
    return Split(**fields)


def _listed(name: str, value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise ValueError(f"{name}={value!r} must be a list.")
    return value


def _texts(name: str, value: Any) -> tuple[str, ...]:
    _check_strings(name, _listed(name, value))
    return tuple(value)


def _class_names(value: Any, name: str = "classes") -> tuple[str, ...]:
    if isinstance(value, str):
        return load_label_list(value).class_names
    return _texts(name, value)


def _class_texts(value: Any, classes: Any, names: tuple[str, ...]) -> tuple[str, ...]:
    if isinstance(value, dict):
        return _descriptions(value, names)
    if isinstance(value, list):
        return _texts("class_texts", value)
    if value == "names" or (value == "spoken" and not isinstance(classes, str)):
        return names
    if value == "spoken":
        return load_label_list(classes).spoken_names
    raise ValueError(
        f"class_texts={value!r} is not understood; write names, spoken, a list, or a mapping with descriptions."
    )


def _distractors(value: Any) -> tuple[str, ...]:
    if isinstance(value, dict):
        settings = dict(value)
        return _descriptions(settings, _texts("classes of distractors", settings.pop("classes", None)))
    return _texts("distractors", value)


def _descriptions(settings: Mapping[str, Any], names: tuple[str, ...]) -> tuple[str, ...]:
    """One description of each class."""
    if unknown := sorted(set(settings) - {"descriptions", "kind", "masked"}):
        raise ValueError(f"texts from descriptions have no setting {unknown[0]!r}; use descriptions, kind and masked.")
    if "descriptions" not in settings:
        raise ValueError(f"{dict(settings)} are texts from descriptions and do not name their descriptions.")
    kind, masked = settings.get("kind", "characteristic"), settings.get("masked", False)
    if not isinstance(masked, bool):
        raise ValueError(f"masked={masked!r} must be true or false, without quotes.")
    loaded = load_descriptions(settings["descriptions"], kinds=[kind], masked=masked)
    texts = loaded.for_classes(names)
    for name, of_class in zip(names, texts, strict=True):
        if len(of_class) != 1:
            raise ValueError(f"{name!r} has {len(of_class)} descriptions of kind {kind}, and one is its text.")
    return tuple(of_class[0] for of_class in texts)


def _templates(value: Any) -> tuple[str, ...]:
    if isinstance(value, str):
        return (value,) if "{}" in value else load_templates(value)
    return _texts("templates", value)
