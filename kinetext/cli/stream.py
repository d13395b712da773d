"""`kinetext stream`: what happens in a long video, or in front of a camera, while it happens."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.live import Live
from rich.markup import escape

from .console import report_errors, sigterm_as_ctrl_c, table_of

if TYPE_CHECKING:
    from ..serving.streaming import StreamEvent, StreamResult

__all__ = ["stream"]

_SHOWN_CLASSES = 5


@report_errors
def stream(
    source: Annotated[str, typer.Argument(help="Video file, URL (http, rtsp, ...), or a device with --input-format.")],
    labels: Annotated[str, typer.Option(help="Class names, separated by commas; one with a comma in double quotes.")],
    model: Annotated[str, typer.Option(help="Folder or Hub id of a video-text model.")],
    frames_per_second: Annotated[
        float, typer.Option(help="Sampled frames in a second; a model of T frames sees T / this seconds at a time.")
    ],
    hop: Annotated[int, typer.Option(help="Sampled frames from one answer to the next.", min=1)] = 1,
    enter: Annotated[float, typer.Option(help="Score from which a class comes on.")] = 0.5,
    leave: Annotated[float, typer.Option(help="Score below which it goes off.")] = 0.3,
    min_duration: Annotated[float, typer.Option(help="Seconds; shorter events are left out.", min=0)] = 0.0,
    as_json: Annotated[bool, typer.Option("--json", help="A line of JSON for each event, as soon as it ends.")] = False,
    input_format: Annotated[str | None, typer.Option(help="FFmpeg's input format, e.g. v4l2 for /dev/video0.")] = None,
    descriptions: Annotated[
        str | None, typer.Option(help="How the classes move, for MoTED: a file, a built-in name or a Hub id.")
    ] = None,
    template: Annotated[str | None, typer.Option(help="What names are put into, at {}; as saved by default.")] = None,
) -> None:
    """Tell which classes are on from when to when, in a sliding window over a long video or a camera."""
    from ..evaluation.calibration import CALIBRATION_FILE, Calibration
    from ..evaluation.class_texts import check_descriptions, descriptions_of, encode_class_texts, parse_labels
    from ..evaluation.classify import load_model
    from ..serving.streaming import StreamingClassifier, merge_events

    names = parse_labels(labels)
    loaded, processor = load_model(model)
    if not hasattr(loaded, "encode_texts"):
        raise ValueError(
            f"{model} is a classifier of fixed classes; a video-text model, which reads labels, is wanted."
        )
    check_descriptions(loaded, descriptions)
    texts = descriptions_of(descriptions, names)
    bank = encode_class_texts(loaded, processor, names, descriptions=texts, template=template)
    has_calibration = (Path(model) / CALIBRATION_FILE).is_file()
    classifier = StreamingClassifier(
        loaded,
        processor,
        bank,
        frames_per_second=frames_per_second,
        hop=hop,
        enter=enter,
        leave=leave,
        calibration=Calibration.load(model) if has_calibration else None,
    )
    results = _until_interrupted(classifier.run(source, input_format=input_format))
    if as_json:
        for event in merge_events(results, min_duration=min_duration):
            typer.echo(json.dumps(asdict(event)))
        return
    console = Console()
    with Live(console=console, transient=True) as live:
        for event in merge_events(_shown(results, live), min_duration=min_duration):
            console.print(_line(event), highlight=False, emoji=False)


def _until_interrupted(results: Iterable[StreamResult]) -> Iterator[StreamResult]:
    """The results until Ctrl-C or SIGTERM, the usual ends of a camera: what is on then is an event, too."""
    try:
        with sigterm_as_ctrl_c():
            yield from results
    except KeyboardInterrupt:
        return


def _shown(results: Iterable[StreamResult], live: Live) -> Iterator[StreamResult]:
    """The results, each shown as it passes."""
    for result in results:
        live.update(_table(result), refresh=True)
        yield result


def _table(result: StreamResult) -> Any:
    table = table_of(f"{result.start:.1f} to {result.end:.1f} s", "score#")
    for label, score in result.ranked()[:_SHOWN_CLASSES]:
        style = "bold" if label == result.label else "none"
        table.add_row(f"[{style}]{escape(label)}[/]", f"{score:.4f}")
    return table


def _line(event: StreamEvent) -> str:
    return f"{event.start:9.2f} to {event.end:9.2f} s  [bold]{escape(event.label)}[/]  {event.score:.4f}"
