"""A model under a protocol: from their names to results, predictions and a report.

protocol ──► clips of its splits ─────────┐
   │                                      ├──► scores (kept while it runs) ──► results.json, predictions.parquet
   └──► class texts, templates ──► bank ──┘                                   report.html, pictures, run.json
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState

from .. import __version__
from ..data.annotations import MAX_FAILED_SHARE
from ..data.clip_lists import Clip, ClipList
from ..data.datasets import EvalClips
from ..data.manifest import Manifest
from ..modeling.configuration_video_text import CLIP_TOWERS, class_names_of
from ..modeling.modeling_video_clip import VideoCLIPConfig, VideoCLIPModel
from ..modeling.modeling_video_text import TextBank
from ..processing.processing_video_text import VideoTextProcessor
from ..processing.video_decoding import DECODERS
from .class_texts import encode_class_texts, join_banks, uses_descriptions
from .classify import load_model
from .evaluator import Scoring, evaluate_clips, write_json
from .plots import draw_confusion_matrix, draw_hardest_confusions
from .predictions import EvaluationResult
from .protocol import Protocol, Split, read_split
from .report_page import REPORT_PAGE_NAME, write_report_page
from .results import PREDICTIONS_NAME, RESULTS_NAME, ProtocolResult, model_facts
from .score_journal import ScoreJournal

__all__ = ["FROZEN_CLIP", "Loading", "evaluate_model", "evaluate_with_baseline", "processes", "read_clips_of"]

logger = logging.getLogger(__name__)

FROZEN_CLIP = "frozen-clip"
_CONFUSION_NAME, _HARDEST_NAME = "confusion.png", "hardest_confusions.png"
_RUN_NAME, _BASELINE = "run.json", "baseline"
_UNFINISHED = "unfinished"


@dataclass(frozen=True)
class Loading:
    """How clips get to the model: metrics do not depend on it, scores in their last digits on the batch size.

    Args:
        batch_size: clips that are loaded together.
        num_workers: processes that decode, of each process.
        decoder: "pyav" or "decord".
    """

    batch_size: int = 8
    num_workers: int = 0
    decoder: str = DECODERS[0]

    def __post_init__(self) -> None:
        if self.decoder not in DECODERS:
            raise ValueError(f"decoder={self.decoder!r} is unknown; choose one of {', '.join(DECODERS)}.")


def processes() -> PartialState:
    """The processes of this launch, which know each other on machines without an accelerator too."""
    return PartialState(cpu=not torch.accelerator.is_available())


def read_clips_of(
    protocol: Protocol,
    *,
    data_root: str | os.PathLike[str],
    lists_root: str | os.PathLike[str] | None = None,
    max_failed_share: float = MAX_FAILED_SHARE,
    manifest: str | os.PathLike[str] | None = None,
) -> list[ClipList]:
    """The clips of every split; arguments and errors as of `read_split`.

    Clips that `manifest`, a file of `kinetext scan`, calls unreadable are not tried: they count as failed.
    """
    places: dict[str, Any] = {"data_root": data_root, "lists_root": lists_root, "max_failed_share": max_failed_share}
    lists = [read_split(protocol, split, **places) for split in protocol.splits]
    if manifest is None:
        return lists
    known = Manifest.read(manifest)
    return [known.mark_unreadable(clips, data_root) for clips in lists]


def evaluate_with_baseline(
    model: str,
    protocol: Protocol,
    clips: Sequence[ClipList],
    output_dir: str | os.PathLike[str],
    *,
    baseline: str | None = None,
    descriptions: Sequence[Sequence[str]] | None = None,
    settings: Mapping[str, Any] | None = None,
    loading: Loading | None = None,
) -> tuple[ProtocolResult, ProtocolResult | None]:
    """Evaluates a model, and a baseline under the same protocol, and writes all there is to see into a folder.

    `output_dir` gets results.json, predictions.parquet, report.html with its pictures, and run.json with what took how
    long; the folder `baseline` in it the results of that. Every process of a launch calls it; it uses all of them. What
    is done is kept, so that after an interruption the same call goes on.

    Args:
        model: folder or Hub id of a video-text model, of a video classifier, or of a plain CLIP.
        protocol: what to do.
        clips: of each of its splits.
        output_dir: receives the files.
        baseline: as `model`, or "frozen-clip": the CLIP whose towers a MoTED has, or the published one of that size.
        descriptions: N lists that a MoTED reads beside class names, in the order of the protocol's classes. They are
            left out, which is logged, by other models and where texts are retrieved: there the text stands for both.
        settings: where the descriptions are from, named in the results of models that read them.
        loading: how clips get to the model.

    Raises:
        OSError: if there is no such model.
        ValueError: if a model does not fit the protocol.
    """
    out, state = Path(output_dir), processes()
    loaded, processor = load_model(model)
    compared = None if baseline is None else _load_baseline(baseline, loaded, processor)
    if compared is not None:
        _check_same_size(loaded, compared[0])
    _check_writable(out)
    started = time.monotonic()
    texts: dict[str, Any] = {"descriptions": descriptions, "settings": settings}
    result = evaluate_model(loaded, processor, protocol, clips, name=model, folder=out, loading=loading, **texts)
    base, place = None, out / _BASELINE
    if compared is None and state.is_main_process:
        for stale in (RESULTS_NAME, PREDICTIONS_NAME):  # of an earlier evaluation
            (place / stale).unlink(missing_ok=True)
    if compared is not None:
        if not uses_descriptions(compared[0]):
            texts = {}
        same = result.protocol  # with the frames, pixels and templates of the model: else the numbers do not compare
        base = evaluate_model(*compared, same, clips, name=str(baseline), folder=place, loading=loading, **texts)
    if state.is_main_process:
        seconds = time.monotonic() - started
        run = {"duration_s": seconds, "num_processes": state.num_processes, "device": str(state.device)}
        write_json(out / _RUN_NAME, run | vars(loading or Loading()))
        _write_report(out, result, base, run, descriptions if uses_descriptions(loaded) else None)
    state.wait_for_everyone()
    return result, base


def evaluate_model(
    model: Any,
    processor: VideoTextProcessor,
    protocol: Protocol,
    clips: Sequence[ClipList],
    *,
    name: str,
    folder: Path,
    descriptions: Sequence[Sequence[str]] | None = None,
    settings: Mapping[str, Any] | None = None,
    loading: Loading | None = None,
) -> ProtocolResult:
    """The result of a loaded model, also written into `folder`.

    Args:
        model: a video-text model or a classifier.
        processor: its processor.
        protocol: what to do.
        clips: of each of its splits.
        name: of the model, for the result.
        folder: receives results.json and predictions.parquet.
        descriptions: as of `evaluate_with_baseline`.
        settings: see there.
        loading: see there.

    Raises:
        ValueError: if the model does not fit the protocol.
    """
    loading, state = loading or Loading(), processes()
    fitted = protocol.processor(processor)
    bound = protocol.bound(fitted, clips)
    model.to(state.device).eval()
    texts = _Texts(model, fitted, bound, descriptions)
    facts = model_facts(name, model.config.model_type, model.state_dict())
    about_the_model = [facts["weights_sha256"], model.config.to_json_string(), fitted.contract, texts.read]
    identity = [__version__, bound.sha256, *about_the_model, loading.decoder]
    results: dict[str, EvaluationResult] = {}
    journals: list[ScoreJournal] = []
    for split, own in zip(bound.splits, clips, strict=True):
        bank, scoring = texts.encode(split)
        tokenizer = None if bank is None else bank.tokenizer_fingerprint
        key = _sha256([*identity, tokenizer, split.name, [_stamp(clip) for clip in own.clips]])[:16]
        journal = ScoreJournal(folder / _UNFINISHED / key, barrier=state.wait_for_everyone)
        journals.append(journal)
        dataset = EvalClips(own, fitted, num_clips=bound.num_clips, num_crops=bound.num_crops, decoder=loading.decoder)
        try:
            results[split.name] = evaluate_clips(
                model,
                dataset,
                bank,
                scoring=scoring,
                batch_size=loading.batch_size,
                num_workers=loading.num_workers,
                process_index=state.process_index,
                num_processes=state.num_processes,
                journal=journal,
            )
        finally:
            journal.write()
    result = ProtocolResult(bound, facts, results, dict(settings or {}) if texts.reads_given else {})
    state.wait_for_everyone()  # until all journals are written
    if state.is_main_process:
        _remove_stale(folder)
        result.write(folder)
        _remove_journals(folder, journals)
    state.wait_for_everyone()
    return result


def _remove_journals(folder: Path, journals: Sequence[ScoreJournal]) -> None:
    for journal in journals:
        shutil.rmtree(journal.folder, ignore_errors=True)
    with contextlib.suppress(OSError):  # another evaluation has something there, or nothing was ever written
        (folder / _UNFINISHED).rmdir()


def _stamp(clip: Clip) -> list[Any]:
    """What tells a video from another that takes its place: its file with size and time, else its name alone."""
    if not isinstance(clip.source, (str, os.PathLike)) or not os.path.exists(clip.source):
        return [clip.clip_id]
    status = os.stat(clip.source)
    return [clip.clip_id, os.path.realpath(clip.source), status.st_size, status.st_mtime_ns]


def _remove_stale(folder: Path) -> None:
    """Removes what an earlier evaluation left there, but for what is replaced as a whole."""
    for name in (REPORT_PAGE_NAME, _RUN_NAME, _CONFUSION_NAME, _HARDEST_NAME):
        (folder / name).unlink(missing_ok=True)


def _check_writable(folder: Path) -> None:
    """Makes the folder; raises OSError if nothing can be written there, before anything is computed."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder):
        pass


# Texts --------------------------------------------------------------------------------------------------------------


class _Texts:
    """What a model reads under a protocol.

    Attributes:
        read: the descriptions of each class that it reads beside the class texts, or None.
        reads_given: whether these are those that were given.
    """

    def __init__(
        self,
        model: Any,
        processor: VideoTextProcessor,
        protocol: Protocol,
        descriptions: Sequence[Sequence[str]] | None,
    ) -> None:
        self.model, self.processor, self.protocol = model, processor, protocol
        self.is_classifier = not hasattr(model, "encode_texts")
        self.reads_given = False
        self.read = self._read(descriptions)

    def encode(self, split: Split) -> tuple[TextBank | None, Scoring]:
        """The bank of a split's texts, None for a classifier, and how its scores are made."""
        protocol = self.protocol
        plain = Scoring(
            num_distractors=len(protocol.distractors),
            view_average=protocol.view_average,
            is_multi_label=protocol.task == "multi_label",
        )
        if self.is_classifier:
            self._check_classes(split)
            return None, plain
        assert protocol.templates is not None  # of a bound protocol
        banks = [self._bank(split, template) for template in protocol.templates]
        if len(banks) == 1:
            return banks[0], plain
        if protocol.template_average == "features":
            return _averaged(banks), plain
        return join_banks(banks), replace(plain, num_templates=len(banks))

    def _read(self, descriptions: Sequence[Sequence[str]] | None) -> list[list[str]] | None:
        reads_any = not self.is_classifier and uses_descriptions(self.model)
        is_retrieval = self.protocol.task == "retrieval"
        self.reads_given = descriptions is not None and reads_any and not is_retrieval
        if descriptions is not None and not self.reads_given:
            reason = "texts are retrieved, and each stands for itself" if reads_any else "it reads class texts only"
            logger.warning("the descriptions are left out for this %s model: %s.", self.model.config.model_type, reason)
        if reads_any and is_retrieval:  # the text is all there is: it stands for the name, too
            return [[text] for text in self.protocol.class_texts]
        return [list(texts) for texts in descriptions or ()] if self.reads_given else None

    def _bank(self, split: Split, template: str) -> TextBank:
        names = self.protocol.split_classes(split)
        descriptions = None
        if self.read is not None:
            of_class = dict(zip(self.protocol.classes, self.read, strict=True))
            descriptions = [*(of_class[name] for name in names), *([text] for text in self.protocol.distractors)]
        texts = self.protocol.split_texts(split)
        bank = encode_class_texts(self.model, self.processor, texts, descriptions=descriptions, template=template)
        return replace(bank, names=(*names, *self.protocol.distractors))

    def _check_classes(self, split: Split) -> None:
        """Raises ValueError unless a classifier tells apart the classes of the split, in their order."""
        own, wanted = class_names_of(self.model.config), list(self.protocol.split_classes(split))
        if self.protocol.distractors or own != wanted:
            raise ValueError(
                f"the classifier tells apart {own}, the clips have the classes {wanted}"
                f"{' and distractors' if self.protocol.distractors else ''}; bring them into its order with `classes`."
            )


def _averaged(banks: Sequence[TextBank]) -> TextBank:
    """The mean of the directions of each text, as in CLIP, with the mean length, which X-CLIP's prompts look at."""
    embeds = torch.stack([bank.text_embeds for bank in banks])  # (M, N, C)
    lengths = embeds.norm(dim=-1, keepdim=True)
    mean = (embeds / lengths).mean(dim=0)  # (N, C)
    mean = mean / mean.norm(dim=-1, keepdim=True) * lengths.mean(dim=0)
    return replace(banks[0], text_embeds=mean)


# Baselines ----------------------------------------------------------------------------------------------------------


def _load_baseline(name: str, model: Any, processor: VideoTextProcessor) -> tuple[Any, VideoTextProcessor]:
    """(model, processor) of a baseline, see `evaluate_with_baseline`."""
    if name != FROZEN_CLIP:
        return load_model(name)
    if model.config.model_type == "moted":
        return _towers_of(model), VideoTextProcessor(
            processor.tokenizer, **processor.contract | {"motion_frame_ratio": 1}
        )
    return load_model(_published_name(model))


def _check_same_size(model: Any, baseline: Any) -> None:
    """Raises ValueError unless both take images of one size, without which there is no common protocol."""
    size, other = (each.config.vision_config.image_size for each in (model, baseline))
    if size != other:
        raise ValueError(f"the baseline takes images of {other} px, the model of {size} px; name one of the same size.")


def _towers_of(model: Any) -> VideoCLIPModel:
    """The CLIP that a MoTED holds, averaged over frames."""
    clip = VideoCLIPModel(VideoCLIPConfig.from_clip_config(model.config))
    own = model.state_dict()
    clip.load_state_dict({name: own[name] for name in clip.state_dict()})
    return clip.eval()


def _published_name(model: Any) -> str:
    """The Hub id of OpenAI's CLIP whose image tower has the size of this model's."""
    vision = model.config.vision_config
    for name, towers in CLIP_TOWERS.items():
        sizes = {"hidden_size": 768, "image_size": 224, **towers["vision"]}
        if all(getattr(vision, field, None) == size for field, size in sizes.items()):
            return f"openai/clip-vit-{name}"
    raise ValueError(
        f"no published CLIP has the size of this model (hidden_size {vision.hidden_size}, patch_size "
        f"{vision.patch_size}, image_size {vision.image_size}); name the folder of the CLIP it was made from instead "
        f"of {FROZEN_CLIP}."
    )


def _write_report(
    out: Path,
    result: ProtocolResult,
    baseline: ProtocolResult | None,
    run: dict[str, Any],
    descriptions: Sequence[Sequence[str]] | None,
) -> None:
    """The page, and the pictures of the confusion matrix and of the hardest confusions with what the model read."""
    protocol = result.protocol
    texts = protocol.class_texts
    if descriptions is not None:
        texts = tuple("\n".join([text, *own]) for text, own in zip(texts, descriptions, strict=True))
    write_report_page(out / REPORT_PAGE_NAME, result, texts=texts, baseline=baseline, run=run)
    if protocol.task == "multi_label":
        return
    counts, title = result.confusion(), f"{result.model['name']}, protocol {protocol.name}"
    num_classes = len(protocol.classes)
    if counts.any():
        draw_confusion_matrix(counts[:, :num_classes], protocol.classes, out / _CONFUSION_NAME, title)
    if counts.sum() > counts.trace():
        names = (*protocol.classes, *("a distractor" for _ in protocol.distractors))
        in_a_row = tuple(text.replace("\n", "; ") for text in (*texts, *protocol.distractors))
        draw_hardest_confusions(counts, names, in_a_row, out / _HARDEST_NAME, title)


def _sha256(content: Any) -> str:
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()
