"""`kinetext export`: a model with its class texts as one graph."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from .console import report_errors, say, sigterm_as_ctrl_c

__all__ = ["export"]


@report_errors
def export(
    model: Annotated[str, typer.Argument(help="Folder or Hub id of a video-text model or a classifier.")],
    out: Annotated[Path, typer.Argument(help="Folder to make.")],
    labels: Annotated[
        str | None,
        typer.Option(help="Class names, separated by commas; one with a comma in double quotes. A classifier has its."),
    ] = None,
    file_format: Annotated[str, typer.Option("--format", help="onnx, or pt2 for torch.export.load.")] = "onnx",
    descriptions: Annotated[
        str | None, typer.Option(help="How the classes move, for MoTED: a file, a built-in name or a Hub id.")
    ] = None,
    template: Annotated[str | None, typer.Option(help="What names are put into, at {}; as saved by default.")] = None,
    num_frames: Annotated[int | None, typer.Option(help="Frames of a clip; as saved by default.", min=1)] = None,
) -> None:
    """Write a graph from pixels to scores of fixed class texts, for servers without kinetext; checked before kept."""
    from ..evaluation.class_texts import check_descriptions, descriptions_of, encode_class_texts, parse_labels
    from ..evaluation.classify import load_model
    from ..serving.export import export_model

    loaded, processor = load_model(model)
    bank = None
    if labels is not None:
        names = parse_labels(labels)
        check_descriptions(loaded, descriptions)
        texts = descriptions_of(descriptions, names)
        bank = encode_class_texts(loaded, processor, names, descriptions=texts, template=template)
    with sigterm_as_ctrl_c():
        done = export_model(loaded, processor, bank, out, file_format=file_format, num_frames=num_frames)
    graph = done.folder / done.manifest["graph"]
    frames = done.manifest["inputs"]["pixel_values"]["shape"][1]
    say(f"{escape(str(graph))}: {graph.stat().st_size / 1e6:.1f} MB, {frames} frames, {len(done.class_names)} classes")
    say(f"logits differ from the model's by at most {done.manifest['largest_difference']:.1g}")
