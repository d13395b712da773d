"""`transformers.pipeline(...)` for videos: "zero-shot-video-classification", and "video-classification" by our models.

    videos ──processor──► views ─┐
                                 ├─► model ─► log-probabilities ─► temperature ─► [{"score": …, "label": …}, …]
    labels, descriptions ─► bank ┘                  (mean over views and templates)      abstention

`import kinetext` registers both tasks with transformers, which loads this module when such a pipeline is made.

Legend: B videos, V views (clips x crops), T frames, S pixels, N classes, M templates.
"""

from __future__ import annotations

import operator
import os
import weakref
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModel
from transformers.pipelines.base import Pipeline
from transformers.pipelines.video_classification import VideoClassificationPipeline
from transformers.utils import cached_file, logging

from .evaluation.calibration import (
    CALIBRATION_FILE,
    Calibration,
    check_temperature,
    check_threshold,
    check_weights,
    scaled,
)
from .evaluation.class_texts import (
    check_descriptions,
    check_motion_frames,
    descriptions_of,
    encode_class_texts,
    join_banks,
    parse_labels,
)
from .evaluation.classify import check_whole
from .evaluation.evaluator import Scoring, score_clips
from .evaluation.protocol import parse_views
from .modeling.configuration_video_text import class_names_of, is_classifier
from .modeling.modeling_video_clip import VideoCLIPModel
from .modeling.modeling_video_text import TextBank
from .processing.processing_video_text import VideoTextProcessor, as_batch
from .processing.video_decoding import DECODERS

__all__ = [
    "AnyVideoClassificationPipeline",
    "VideoClassifierPipeline",
    "VideoTextModel",
    "ZeroShotVideoClassificationPipeline",
]

logger = logging.get_logger(__name__)

_MAX_BANKS = 8  # lists of class texts that a pipeline remembers

# Weights that a model was loaded without. A loader that raised would send `pipeline` on to transformers' own classes.
_missing_weights: weakref.WeakKeyDictionary[Any, list[str]] = weakref.WeakKeyDictionary()


class VideoTextModel:
    """Loads the model of a zero-shot pipeline, and remembers which of its weights the folder lacks."""

    @classmethod
    def from_pretrained(cls, name: str, **kwargs: Any) -> Any:
        """As `AutoModel.from_pretrained`; of a plain CLIP the mean over frames, as `load_model` has it."""
        model, report = AutoModel.from_pretrained(name, output_loading_info=True, **kwargs)
        if model.config.model_type == "clip":
            model = _mean_over_frames(model)
        _missing_weights[model] = sorted(report["missing_keys"])
        return model


def _mean_over_frames(clip: Any) -> VideoCLIPModel:
    """The same weights in the same precision; what it says of where they come from finds the processor."""
    model = VideoCLIPModel.from_clip(clip).to(clip.dtype)
    model.name_or_path = clip.name_or_path
    model.config._commit_hash = getattr(clip.config, "_commit_hash", None)
    return model


_Pipeline: Any = Pipeline  # transformers types the steps by the inputs and outputs of its own


class _VideoPipeline(_Pipeline):
    """What both pipelines share: videos in, calibrated scores out."""

    _load_processor = None  # if there is none that transformers can load, `_own_processor` finds one
    _load_image_processor = False
    _load_video_processor = False
    _load_feature_extractor = False
    _load_tokenizer = False

    _SETTINGS: Mapping[str, Sequence[str]] = {  # settings of each step, by their names in a call
        "preprocess": ("num_frames", "views", "decoder"),
        "forward": (),
        "postprocess": ("top_k", "temperature", "abstain"),
    }

    def __init__(
        self,
        model: Any,
        *,
        processor: Any = None,
        calibration: Calibration | str | os.PathLike[str] | bool | None = None,
        **kwargs: Any,
    ) -> None:
        for name in ("tokenizer", "feature_extractor", "image_processor", "video_processor", "local_files_only"):
            kwargs.pop(name, None)  # the processor has all there is
        if not hasattr(model, "get_video_features"):
            raise ValueError(
                f"{type(model).__name__} is no video model of kinetext; load an xclip, moted or video_clip one, by its "
                "folder or Hub id, or with kinetext's classes."
            )
        processor = _own_processor(processor, model)
        check_motion_frames(model, processor)
        self.calibration = _find_calibration(calibration, model)
        super().__init__(model.eval(), processor=processor, **kwargs)

    def __call__(
        self, videos: Any, *, num_workers: int | None = None, batch_size: int | None = None, **kwargs: Any
    ) -> Any:
        """Answers for one video or for several; see the class."""
        answering = {**self._postprocess_params, **self._sanitize_parameters(**kwargs)[2]}
        self._threshold(answering.get("abstain"), answering.get("temperature"))  # refused before a video is read
        if isinstance(videos, Sequence) and not isinstance(videos, (str, bytes, bytearray, memoryview, list, tuple)):
            videos = list(videos)  # a column of `datasets`
        batch = as_batch(videos)
        if len(batch) != 1 or batch[0] is not videos:
            return super().__call__(batch, num_workers=num_workers, batch_size=batch_size, **kwargs)
        one = tuple(videos) if isinstance(videos, list) else videos  # a list of pictures is one video, not several
        return super().__call__(one, num_workers=num_workers, batch_size=batch_size, **kwargs)

    def _sanitize_parameters(self, **kwargs: Any) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        """The settings of each step among those of a call."""
        known = [name for names in self._SETTINGS.values() for name in names]
        if unknown := sorted(set(kwargs) - set(known)):
            raise TypeError(
                f"{type(self).__name__} got an unexpected keyword argument {unknown[0]!r}; it takes "
                f"{', '.join(dict.fromkeys(known))}, batch_size and num_workers."
            )
        if kwargs.get("views") is not None:
            if not isinstance(kwargs["views"], str):
                raise TypeError(f'views={kwargs["views"]!r} is no text; write clips x crops, e.g. "4x3".')
            parse_views(kwargs["views"])
        if kwargs.get("top_k") is not None and not _is_count(kwargs["top_k"]):
            raise ValueError(f"top_k={kwargs['top_k']!r} must be a whole number of at least 1.")
        if kwargs.get("temperature") is not None:
            check_temperature(kwargs["temperature"])
        if not isinstance(kwargs.get("abstain", False), (bool, type(None))):
            check_threshold("abstain", kwargs["abstain"])
        preprocess, forward, postprocess = (
            {name: kwargs[name] for name in names if name in kwargs} for names in self._SETTINGS.values()
        )
        return preprocess, forward, postprocess

    def preprocess(
        self, video: Any, num_frames: int | None = None, views: str = "1x1", decoder: str = DECODERS[0]
    ) -> dict[str, Any]:
        """{"views": [(V, T, 3, S, S)]}; in a list, so that transformers does not pad what it makes a batch of."""
        counts = parse_views(views)
        clips = self.processor.read_clips(video, num_frames=num_frames, num_clips=counts["num_clips"], decoder=decoder)
        return {"views": [self.processor.transform(clips, counts["num_crops"])]}

    def _scores(self, inputs: dict[str, Any], bank: TextBank | None, scoring: Scoring) -> dict[str, Any]:
        """{"log_probabilities": (B, N)} of what `preprocess` gave for one video, or for B put together."""
        clips = [views[0] if isinstance(views, list) else views for views in inputs["views"]]
        return {"log_probabilities": score_clips(self.model, clips, bank, scoring)}

    def _answer(
        self, scores: torch.Tensor, labels: Sequence[str], top_k: int | None, threshold: float | None
    ) -> list[dict[str, Any]]:
        """The labels with the highest scores (N,), first; before them an entry without label if the model abstains."""
        ranked = sorted(zip(scores.tolist(), labels, strict=True), key=lambda pair: -pair[0])
        best = ranked[0][0]
        silence = [] if threshold is None or best >= threshold else [{"score": best, "label": None}]
        return silence + [{"score": score, "label": label} for score, label in ranked[:top_k]]

    def _temperature(self, temperature: float | None) -> float:
        return self.calibration.temperature if temperature is None else temperature

    def _threshold(self, abstain: bool | float | None, temperature: float | None) -> float | None:
        """The score below which nothing is said, or None."""
        if abstain is None or abstain is False:
            return None
        if abstain is not True:
            return float(abstain)
        if self.calibration.threshold is None:
            raise ValueError(
                "abstain=True takes the threshold of a calibration, and there is none: fit one with `kinetext "
                "calibrate RESULTS --model FOLDER --accuracy 0.9`, or give the score to abstain below: abstain=0.5."
            )
        if self._temperature(temperature) != self.calibration.temperature:
            raise ValueError(
                f"abstain=True takes the threshold that was fitted at temperature {self.calibration.temperature:g}; "
                f"with temperature={temperature:g}, give the score to abstain below: abstain=0.5."
            )
        return self.calibration.threshold

    def save_pretrained(self, save_directory: str | os.PathLike[str], **kwargs: Any) -> None:
        """Saves model, processor and, where there is one, calibration; without one none stays in the folder."""
        self.model.save_pretrained(save_directory, **kwargs)
        self.processor.save_pretrained(save_directory, **kwargs)
        if self.calibration != Calibration():
            self.calibration.save(Path(save_directory))
        else:
            (Path(save_directory) / CALIBRATION_FILE).unlink(missing_ok=True)


class ZeroShotVideoClassificationPipeline(_VideoPipeline):
    """Scores videos against any class names: `pipeline("zero-shot-video-classification", model=…)`.

    Made with `model` (a folder or Hub id, also of a plain CLIP, or an X-CLIP, MoTED or VideoCLIP with `processor=`,
    which is put in evaluation mode), `device`, `dtype`, `batch_size`, and `calibration`: a file or folder of `kinetext
    calibrate`, a `Calibration`, False for none, or True to insist on `calibration.json` beside the model's weights,
    which is used by default if it is there and was fitted on these weights. Settings of a call can be given here, too.

    Args:
        videos: what `VideoTextProcessor` takes: a path, URL, bytes, array, list of pictures, …, or a list of these;
            also a generator or a `torch` data set of them, whose answers come one by one.
        candidate_labels: N class names, several texts, or one with commas between them.
        template: what names are put into, at `{}`; as saved with the processor by default.
        templates: M templates instead, whose probabilities are averaged.
        descriptions: for MoTED: a shipped set, a file or a Hub id, as of `load_descriptions`, or N lists of texts in
            the order of the labels they are given with.
        num_frames: frames of a clip; as saved with the processor by default.
        views: clips x crops of a video, whose probabilities are averaged, e.g. "4x3".
        decoder: "pyav" or "decord".
        top_k: how many labels to answer with; all by default.
        temperature: logits are divided by it; that of the calibration by default, 1 without one.
        abstain: the score, after the temperature, below which the model gives no label, or True for that of the
            calibration. An answer that abstains begins with `{"score": best score, "label": None}`; the labels
            follow as ever.
        batch_size: videos that go through the model together; changes the scores by no more than rounding.
        num_workers: processes that decode.

    Returns:
        `[{"score": …, "label": …}, …]` with the highest score first; for a list of videos, a list of these.

    Raises:
        VideoDecodeError: if a video cannot be decoded; names it.
        TypeError: for an unknown setting.

    Example:
        >>> from transformers import pipeline
        >>> import kinetext
        >>> classify = pipeline("zero-shot-video-classification", model="demo/xclip")  # doctest: +SKIP
        >>> classify("clip.mp4", candidate_labels="waving, running", top_k=1)  # doctest: +SKIP
        [{'score': 0.93, 'label': 'waving'}]
    """

    _SETTINGS = {
        **_VideoPipeline._SETTINGS,
        "forward": ("candidate_labels", "template", "templates", "descriptions"),
        "postprocess": (*_VideoPipeline._SETTINGS["postprocess"], "candidate_labels"),
    }

    def __init__(self, model: Any, **kwargs: Any) -> None:
        missing = _missing_weights.get(model, [])
        if hasattr(model, "classifier") or (missing and is_classifier(model.config)):
            raise ValueError(
                f"{model.name_or_path or type(model).__name__} is a classifier of its own {model.config.num_labels} "
                'classes, without a text tower; use pipeline("video-classification", model=…).'
            )
        check_whole(model.name_or_path, missing)
        if not hasattr(model, "encode_texts"):
            raise ValueError(
                f"{type(model).__name__} reads no class texts as kinetext's models do; load it by its folder or Hub "
                "id, or with XCLIPModel, MotedModel or VideoCLIPModel of kinetext."
            )
        self._banks: dict[Any, TextBank] = {}
        super().__init__(model, **kwargs)

    def __call__(
        self,
        videos: Any,
        candidate_labels: str | Iterable[str] | None = None,
        *,
        num_workers: int | None = None,
        batch_size: int | None = None,
        **kwargs: Any,
    ) -> Any:
        """Scores of each video over the labels; see the class for the settings."""
        if candidate_labels is not None:
            kwargs["candidate_labels"] = candidate_labels
        given = self._sanitize_parameters(**kwargs)[1]
        texts = {**self._forward_params, **given}
        if texts.get("candidate_labels") is None:
            raise ValueError("candidate_labels are missing; say which classes there may be, as a list of names.")
        kwargs["candidate_labels"] = texts["candidate_labels"]
        if texts.get("descriptions") is not None:
            first, now = self._forward_params.get("candidate_labels") or (), texts["candidate_labels"]
            if "descriptions" not in given and _is_ordered(texts["descriptions"]) and first != now:
                raise ValueError(
                    f"the descriptions that this pipeline was made with are in the order of the labels {list(first)}, "
                    f"this call has {list(now)}: pass descriptions in the order of these labels."
                )
            texts["descriptions"] = descriptions_of(texts["descriptions"], texts["candidate_labels"])
            kwargs["descriptions"] = texts["descriptions"]
        self._bank(**texts)  # so that what is wrong with them is said before a video is read
        return super().__call__(videos, num_workers=num_workers, batch_size=batch_size, **kwargs)

    def _sanitize_parameters(self, **kwargs: Any) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        if kwargs.get("candidate_labels") is not None:
            kwargs["candidate_labels"] = parse_labels(kwargs["candidate_labels"])
        return super()._sanitize_parameters(**kwargs)

    def _forward(self, inputs: dict[str, Any], **texts: Any) -> dict[str, Any]:
        templates = texts.get("templates")
        return self._scores(inputs, self._bank(**texts), Scoring(num_templates=len(templates) if templates else 1))

    def postprocess(
        self,
        outputs: dict[str, Any],
        candidate_labels: Sequence[str],
        top_k: int | None = None,
        temperature: float | None = None,
        abstain: bool | float | None = None,
    ) -> list[dict[str, Any]]:
        """The answer for one video."""
        scores = scaled(outputs["log_probabilities"], self._temperature(temperature))[0].exp()  # (N,)
        return self._answer(scores, candidate_labels, top_k, self._threshold(abstain, temperature))

    def _bank(
        self,
        candidate_labels: Sequence[str],
        template: str | None = None,
        templates: Sequence[str] | None = None,
        descriptions: Sequence[Sequence[str]] | None = None,
    ) -> TextBank:
        """The bank of the class texts; encoded again only for other texts, weights, or another tokenizer or device."""
        if templates is not None and (template is not None or isinstance(templates, str) or not templates):
            raise ValueError("pass one template, or a list of at least one as templates.")
        check_descriptions(self.model, descriptions)
        chosen = [self.processor.template if template is None else template] if templates is None else list(templates)
        texts = None if descriptions is None else tuple(map(tuple, descriptions))
        tokenizer = self.processor.tokenizer  # itself, as its fingerprint takes longer than a video
        key = (candidate_labels, tuple(chosen), texts, self.model.text_fingerprint(), self.model.device, tokenizer)
        if key not in self._banks:
            banks = [
                encode_class_texts(
                    self.model, self.processor, candidate_labels, descriptions=descriptions, template=each
                )
                for each in chosen
            ]
            if len(self._banks) >= _MAX_BANKS:
                self._banks.pop(next(iter(self._banks)))
            self._banks[key] = banks[0] if len(banks) == 1 else join_banks(banks)
        return self._banks[key]


class VideoClassifierPipeline(_VideoPipeline):
    """Scores videos over the classes of a classifier of kinetext: `pipeline("video-classification", model=…)`.

    It samples as the processor was saved, over the whole video; transformers' own pipeline takes the first frames.
    How it is made, its settings and answers are those of `ZeroShotVideoClassificationPipeline` without the texts, and

    Args:
        top_k: how many labels to answer with; 5 by default, as in transformers.
        function_to_apply: "softmax", or "sigmoid" for scores of each class apart; as the configuration's `problem_type`
            says by default. Calibration and temperature are of "softmax".
    """

    _SETTINGS = {
        **_VideoPipeline._SETTINGS,
        "forward": ("function_to_apply",),
        "postprocess": (*_VideoPipeline._SETTINGS["postprocess"], "function_to_apply"),
    }

    def __init__(self, model: Any, **kwargs: Any) -> None:
        was_text_model = model.config.architectures and not is_classifier(model.config)
        names = class_names_of(model.config)
        if was_text_model and names == [f"LABEL_{index}" for index in range(len(names))]:
            raise ValueError(
                f"{model.name_or_path or type(model).__name__} has no trained classes of its own; use "
                'pipeline("zero-shot-video-classification", model=…) with candidate_labels, or train a classifier.'
            )
        super().__init__(model, **kwargs)

    def _sanitize_parameters(self, **kwargs: Any) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        function = kwargs.get("function_to_apply")
        if function not in (None, "softmax", "sigmoid"):
            raise ValueError(f'function_to_apply={function!r} is unknown; choose "softmax" or "sigmoid".')
        return super()._sanitize_parameters(**kwargs)

    def _forward(self, inputs: dict[str, Any], function_to_apply: str | None = None) -> dict[str, Any]:
        return self._scores(inputs, None, Scoring(is_multi_label=self._is_multi_label(function_to_apply)))

    def postprocess(
        self,
        outputs: dict[str, Any],
        top_k: int | None = 5,
        temperature: float | None = None,
        abstain: bool | float | None = None,
        function_to_apply: str | None = None,
    ) -> list[dict[str, Any]]:
        """The answer for one video."""
        log_probabilities = outputs["log_probabilities"]  # (1, N)
        if not self._is_multi_label(function_to_apply):
            log_probabilities = scaled(log_probabilities, self._temperature(temperature))
        elif temperature is not None or abstain is True:
            raise ValueError("temperature and abstain=True are of softmax; leave them out with sigmoid.")
        threshold = self._threshold(abstain, temperature)
        return self._answer(log_probabilities[0].exp(), class_names_of(self.model.config), top_k, threshold)

    def _is_multi_label(self, function_to_apply: str | None) -> bool:
        if function_to_apply is None:
            return self.model.config.problem_type == "multi_label_classification"
        return function_to_apply == "sigmoid"


class AnyVideoClassificationPipeline(VideoClassificationPipeline):
    """What "video-classification" makes: our pipeline of our classifiers, transformers' own of every other model."""

    def __new__(cls, model: Any, **kwargs: Any) -> Any:
        """A pipeline of one of the two classes, never of this one."""
        is_ours = hasattr(model, "get_video_features") and hasattr(model, "classifier")
        return (VideoClassifierPipeline if is_ours else VideoClassificationPipeline)(model=model, **kwargs)


def _own_processor(processor: Any, model: Any) -> Any:
    """The processor, if it reads videos as ours does, else ours of the repository that processor or model is from."""
    if hasattr(processor, "read_clips"):
        return processor
    name = processor if isinstance(processor, (str, os.PathLike)) else model.name_or_path
    if not name:
        raise ValueError("a model that was not loaded from a folder needs processor=VideoTextProcessor(…).")
    revision = None if name is processor else getattr(model.config, "_commit_hash", None)
    return VideoTextProcessor.from_pretrained(name, revision=revision)


def _is_count(value: Any) -> bool:
    try:
        return operator.index(value) >= 1
    except TypeError:
        return False


def _is_ordered(descriptions: Any) -> bool:
    """Whether these are lists of texts, which belong to labels by their order and not by name."""
    return not isinstance(descriptions, (str, os.PathLike)) and not hasattr(descriptions, "for_classes")


def _find_calibration(source: Calibration | str | os.PathLike[str] | bool | None, model: Any) -> Calibration:
    """The calibration that `source` names, or by default that beside the model's weights; else one of no effect."""
    if source is False:
        return Calibration()
    if isinstance(source, (Calibration, str, os.PathLike)):
        calibration = source if isinstance(source, Calibration) else Calibration.load(source)
        check_weights(calibration, model)
        return calibration
    if source is not None and source is not True:
        raise TypeError(f"calibration={source!r} is no path, Calibration, True, False or None; try Calibration(2.0).")
    path = None
    if model.name_or_path:
        revision = getattr(model.config, "_commit_hash", None)
        path = cached_file(
            model.name_or_path,
            CALIBRATION_FILE,
            revision=revision,
            _raise_exceptions_for_gated_repo=False,
            _raise_exceptions_for_missing_entries=False,
            _raise_exceptions_for_connection_errors=False,
        )
    if path is None:
        if source is True:
            raise ValueError(
                f"calibration=True: there is no {CALIBRATION_FILE} beside the model {model.name_or_path!r}."
            )
        return Calibration()
    calibration = Calibration.load(path)
    try:
        check_weights(calibration, model)
    except ValueError as error:
        if source is True:
            raise
        logger.warning(f"{path} is not used: {error}")
        return Calibration()
    logger.info(f"scores are calibrated by {path}: temperature {calibration.temperature:g}")
    return calibration
