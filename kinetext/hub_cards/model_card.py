"""The model card: facts of the run, the saved configuration and the measured result, rendered by a template."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard, ModelCardData
from safetensors import safe_open

from .. import __version__
from ..evaluation.evaluator import EvaluationResult

_TEMPLATE = Path(__file__).parent / "templates" / "model_card.md"
_NUM_EXAMPLE_TEXTS = 3


def write_model_card(
    folder: str | os.PathLike[str],
    *,
    class_texts: Sequence[str],
    settings: Mapping[str, Any],
    result: EvaluationResult | None,
) -> None:
    """Writes README.md beside a saved model and processor; same inputs, same bytes.

    Args:
        folder: what `save_pretrained` of model and processor wrote.
        class_texts: N texts the model was trained on.
        settings: of the run, as name and value.
        result: the final evaluation, or None if there was none.
    """
    folder = Path(folder)
    processor = json.loads((folder / "processor_config.json").read_text("utf-8"))
    card = ModelCard.from_template(
        ModelCardData(library_name="transformers", pipeline_tag="video-classification", tags=["kinetext", "x-clip"]),
        template_path=str(_TEMPLATE),
        title=_one_line(folder.resolve().name),
        repository=json.dumps(folder.resolve().name, ensure_ascii=False),
        version=__version__,
        num_classes=len(class_texts),
        class_texts=", ".join(_code(text) for text in class_texts),
        example_texts=json.dumps(list(class_texts)[:_NUM_EXAMPLE_TEXTS], ensure_ascii=False),
        settings={_cell(name): _cell(value) for name, value in settings.items()},
        metrics=result.metrics() if result is not None else None,
        num_parameters=f"{_num_parameters(folder):,}",
        **{
            key: processor[key]
            for key in ("num_frames", "sampling", "short_side", "crop_size", "image_mean", "image_std")
        },
        template=_code(processor["template"]),
    )
    partial = folder / ".README.md.tmp"
    partial.write_text(str(card), encoding="utf-8")
    os.replace(partial, folder / "README.md")


def _one_line(value: Any) -> str:
    return " ".join(str(value).split())


def _code(value: Any) -> str:
    """A value as Markdown code, in one line."""
    text = _one_line(value)
    fence = "`"
    while fence in text:
        fence += "`"
    space = " " if "`" in text or not text else ""  # between a fence and a backtick, and to show an empty text
    return f"{fence}{space}{text}{space}{fence}"


def _cell(value: Any) -> str:
    return _code(value).replace("|", "\\|")  # a bare one would end the cell, even inside code


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
