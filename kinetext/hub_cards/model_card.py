"""The model card: facts of the run, the saved configuration and the measured result, rendered by a template."""

from __future__ import annotations

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
from ..evaluation.evaluator import EvaluationResult
from . import citations
from .markdown import cell, code, one_line

_TEMPLATE = Path(__file__).parent / "templates" / "model_card.md"
_NUM_EXAMPLE_TEXTS = 3


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

_FAMILIES = {"xclip": _XCLIP, "moted": _MOTED}


def write_model_card(
    folder: str | os.PathLike[str],
    *,
    class_texts: Sequence[str],
    settings: Mapping[str, Any],
    result: EvaluationResult | None,
    descriptions: Sequence[Sequence[str]] | None = None,
    description_source: str | None = None,
) -> None:
    """Writes README.md beside a saved model and processor; same inputs, same bytes.

    Args:
        folder: what `save_pretrained` of model and processor wrote.
        class_texts: N texts the model was trained on.
        settings: of the run, as name and value.
        result: the final evaluation, or None if there was none.
        descriptions: N lists of descriptions, in the order of `class_texts`, if the model was trained on any.
        description_source: where they come from, as in the settings.
    """
    folder = Path(folder)
    family = _FAMILIES[json.loads((folder / "config.json").read_text("utf-8"))["model_type"]]
    processor = json.loads((folder / "processor_config.json").read_text("utf-8"))
    card = ModelCard.from_template(
        ModelCardData(library_name="transformers", pipeline_tag="video-classification", tags=["kinetext", family.tag]),
        template_path=str(_TEMPLATE),
        title=one_line(folder.resolve().name),
        repository=json.dumps(folder.resolve().name, ensure_ascii=False),
        version=__version__,
        summary=family.summary,
        stock_note=family.stock_note.format(num_frames=processor["num_frames"]),
        citation=family.citation,
        num_classes=len(class_texts),
        class_texts=", ".join(code(text) for text in class_texts),
        example_texts=json.dumps(list(class_texts)[:_NUM_EXAMPLE_TEXTS], ensure_ascii=False),
        example_descriptions=_example_descriptions(descriptions),
        descriptions=_described(class_texts, descriptions, description_source),
        settings={cell(name): cell(value) for name, value in settings.items()},
        metrics=result.metrics() if result is not None else None,
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
    """How many descriptions of which class, and where from; "" where there are none."""
    if descriptions is None:
        return ""
    counts = [len(texts) for texts in descriptions]
    number = (
        f"{counts[0]} of each class"
        if len(set(counts)) == 1
        else ", ".join(f"{count} of {code(text)}" for text, count in zip(class_texts, counts, strict=True))
    )
    return f"{number}, from {code(source)}" if source is not None else number


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
