"""The model card: facts of the run, the saved configuration and the measured result, rendered by a template."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard, ModelCardData
from safetensors import safe_open

from .. import __version__
from ..descriptions.files import write_atomically
from ..evaluation.results import ProtocolResult
from . import citations
from .markdown import cell, code, duration, one_line
from .measured import index_entries, measured_section
from .push import check_license

_TEMPLATE = Path(__file__).parent / "templates" / "model_card.md"
_NUM_EXAMPLE_TEXTS = 3

CURVES_NAME = "curves.png"  # what the report of a run draws


@dataclass(frozen=True)
class _Family:
    """What the card says of every model of one type.

    Attributes:
        tag: on the Hub, besides "kinetext".
        summary: what it is, in a sentence or two.
        stock_note: whether and how transformers' own classes load it.
        citation: a BibTeX entry.
    """

    tag: str
    summary: str
    stock_note: str
    citation: str


_XCLIP = _Family(
    tag="x-clip",
    summary=(
        "X-CLIP: CLIP with messages between frames, a multi-frame integration transformer and video-specific prompts."
    ),
    stock_note="Stock `transformers.XCLIPModel` loads the weights too, for clips of {num_frames} frames.",
    citation=citations.XCLIP,
)

_MOTED = _Family(
    tag="moted",
    summary=(
        "MoTED: a frozen CLIP with a motion encoder beside its image tower, and an adapter for descriptions that say "
        "how each class moves."
    ),
    stock_note="There is no MoTED in transformers itself.",
    citation=citations.MOTED,
)

_VIDEO_CLIP = _Family(
    tag="video-clip",
    summary=(
        "VideoCLIP: CLIP, with its frames pooled over time as `temporal_pooling` in `config.json` says: their mean "
        "(ViFi-CLIP), a transformer over them (Text4Vis), one frame, or all of them together in the image tower."
    ),
    stock_note="There is no VideoCLIP in transformers itself.",
    citation=f"{citations.VIFI_CLIP}\n\n{citations.TEXT4VIS}",
)

_FAMILIES = {"xclip": _XCLIP, "moted": _MOTED, "video_clip": _VIDEO_CLIP}


@dataclass(frozen=True)
class RunFacts:
    """What a run was besides its settings, for its card and its report.

    Attributes:
        num_train_clips: clips listed for training, or seen of a stream.
        num_eval_clips: clips listed for evaluation.
        data_fingerprint: of the training clips, as of `list_fingerprint`; None of a stream.
        protocol: SHA-256 of that of the evaluation; None without one.
        environment: machine, device, processes and versions, as name and value.
        duration_s: of training.
        num_failed_clips: training clips that could not be decoded.
    """

    num_train_clips: int
    num_eval_clips: int
    data_fingerprint: str | None
    protocol: str | None
    environment: Mapping[str, Any]
    duration_s: float
    num_failed_clips: int = 0


def write_model_card(
    folder: str | os.PathLike[str],
    *,
    class_texts: Sequence[str],
    settings: Mapping[str, Any],
    result: ProtocolResult | None,
    descriptions: Sequence[Sequence[str]] | None = None,
    description_source: str | None = None,
    facts: RunFacts | None = None,
    license: str | None = None,
) -> None:
    """Writes README.md beside a saved model and processor; same inputs, same bytes.

    Curves (`CURVES_NAME`) that lie in the folder are shown.

    Args:
        folder: what `save_pretrained` of model and processor wrote.
        class_texts: N texts the model was trained on.
        settings: of the run, as name and value.
        result: the final evaluation, or None if there was none.
        descriptions: N lists of descriptions, in the order of `class_texts`, if the model was trained on any.
        description_source: where they come from, as in the settings.
        facts: of the run, if they are known.
        license: licence id of the Hub for the weights, if it is known.

    Raises:
        ValueError: if `license` is no such id.
    """
    folder = Path(folder)
    if license is not None:
        check_license(license)
    config = json.loads((folder / "config.json").read_text("utf-8"))
    family = _FAMILIES[config["model_type"]]
    processor = json.loads((folder / "processor_config.json").read_text("utf-8"))
    is_classifier = config["architectures"][0].endswith("ForVideoClassification")
    title = one_line(folder.resolve().name)
    entries = [] if result is None else index_entries([result])
    card = ModelCard.from_template(
        ModelCardData(
            library_name="transformers",
            tags=["kinetext", family.tag, *([] if is_classifier else ["zero-shot-video-classification"])],
            pipeline_tag="video-classification" if is_classifier else None,
            license=license,
            model_name=title if entries else None,
            eval_results=entries or None,
        ),
        template_path=str(_TEMPLATE),
        title=title,
        repository=json.dumps(folder.resolve().name, ensure_ascii=False),
        version=__version__,
        summary=family.summary,
        is_classifier=is_classifier,
        stock_note=family.stock_note.format(num_frames=processor["num_frames"]),
        citation=family.citation,
        num_classes=len(class_texts),
        class_texts=", ".join(code(text) for text in class_texts),
        example_texts=json.dumps(list(class_texts)[:_NUM_EXAMPLE_TEXTS], ensure_ascii=False),
        example_descriptions=_example_descriptions(descriptions),
        descriptions=_described(class_texts, descriptions, description_source),
        settings={cell(name): cell(value) for name, value in settings.items()},
        measured="" if result is None else measured_section([result]),
        facts=facts,
        duration=duration(facts.duration_s) if facts is not None else "",
        environment={} if facts is None else {cell(name): cell(value) for name, value in facts.environment.items()},
        curves=CURVES_NAME if (folder / CURVES_NAME).is_file() else "",
        license=license,
        num_parameters=f"{_num_parameters(folder):,}",
        **{**processor, "template": code(processor["template"])},
    )
    write_atomically(folder / "README.md", str(card).encode())


def _example_descriptions(descriptions: Sequence[Sequence[str]] | None) -> str:
    """Descriptions of the example texts as Python code; "" where there are none."""
    if descriptions is None:
        return ""
    return json.dumps([list(texts) for texts in descriptions[:_NUM_EXAMPLE_TEXTS]], ensure_ascii=False, indent=4)


def _described(class_texts: Sequence[str], descriptions: Sequence[Sequence[str]] | None, source: str | None) -> str:
    """How many descriptions of which class, where from, and a hash that tells their revision; "" without any."""
    if descriptions is None:
        return ""
    counts = [len(texts) for texts in descriptions]
    number = (
        f"{counts[0]} of each class"
        if len(set(counts)) == 1
        else ", ".join(f"{count} of {code(text)}" for text, count in zip(class_texts, counts, strict=True))
    )
    origin = f", from {code(source)}" if source is not None else ""
    texts = hashlib.sha256(json.dumps([list(one) for one in descriptions]).encode()).hexdigest()
    return f"{number}{origin}. SHA-256 of their texts: {code(texts)}"


def _num_parameters(folder: Path) -> int:
    total = 0
    for path in folder.glob("*.safetensors"):
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118 - a safetensors file is no dict
                count = 1
                for side in file.get_slice(name).get_shape():
                    count *= side
                total += count
    return total
