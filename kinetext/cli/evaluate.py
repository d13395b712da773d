"""`kinetext eval`: a model under a protocol."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

from .console import report_errors, say, table_of

__all__ = ["evaluate"]

_MAX_LISTED = 40  # splits of a table


@report_errors
def evaluate(
    model: Annotated[str, typer.Argument(help="Folder or Hub id of a video-text model, a classifier or a CLIP.")],
    protocol: Annotated[
        str, typer.Option(help="A protocol by its name, a YAML file of one, or a recipe, whose evaluation clips count.")
    ],
    data_root: Annotated[Path, typer.Option("--data-root", "--data_root", help="Folder of the videos.")],
    out: Annotated[Path, typer.Option("--out", "--output_dir", help="Folder for results, predictions and report.")],
    views: Annotated[str | None, typer.Option(help="Clips x crops per video, e.g. 4x3; as the protocol says.")] = None,
    baseline: Annotated[
        str | None, typer.Option(help="What else to evaluate: frozen-clip, or a folder or Hub id as of MODEL.")
    ] = None,
    lists: Annotated[Path | None, typer.Option(help="Folder of the lists of clips; DATA_ROOT by default.")] = None,
    descriptions: Annotated[
        str | None, typer.Option(help="What a MoTED reads beside class names: a file, a built-in name or a Hub id.")
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Clips that are loaded together.")] = 8,
    num_workers: Annotated[int, typer.Option(min=0, help="Processes that decode.")] = 0,
    decoder: Annotated[str | None, typer.Option(help="pyav (the default) or decord.")] = None,
    max_failed_share: Annotated[
        float | None, typer.Option(min=0, max=1, help="Stop when more than this share of a list is not on disk.")
    ] = None,
    manifest: Annotated[
        Path | None,
        typer.Option(help="File of `kinetext scan`: clips that it calls unreadable count as failed, untried."),
    ] = None,
) -> None:
    """Evaluate a model under a protocol: results, predictions of all clips, report. What was interrupted goes on."""
    from ..evaluation.evaluate import Loading, processes

    loading = Loading(batch_size=batch_size, num_workers=num_workers)
    places: dict[str, Any] = {"data_root": data_root}
    if max_failed_share is not None:
        places["max_failed_share"] = max_failed_share
    if manifest is not None:
        places["manifest"] = manifest
    if not _is_recipe(protocol):
        places["lists_root"] = lists
        loading = replace(loading, decoder=decoder or loading.decoder)
        told = {"baseline": baseline, "loading": loading}
        result, base = _by_protocol(model, protocol, places, out, views, descriptions, **told)
    elif lists is None:
        settings = places | {"output_dir": out, "descriptions": descriptions, "decoder": decoder}
        result, base = _by_recipe(model, protocol, settings, views, baseline=baseline, loading=loading)
    else:
        raise ValueError(f"lists={lists} has no meaning with the recipe {protocol}, which names its own.")
    if not processes().is_main_process:
        return
    show_results([result, *([] if base is None else [base])])
    say(f"report: {escape(str(out / 'report.html'))}")
    if not result.metrics()["num_decoded"]:
        say("[bold red]failed:[/] no clip could be decoded; the report says why of each.")
        raise typer.Exit(1)


def _is_recipe(source: str) -> bool:
    """Whether a file says where a model comes from, as recipes do and protocols do not."""
    from ..data.settings_files import read_layers

    path = Path(source)
    if path.suffix.lower() not in (".yaml", ".yml", ".json") or not path.is_file():
        return False
    from ..evaluation.protocol import SHIPPED_PROTOCOLS

    keys = {key for _, layer in read_layers(path, "protocol", shipped=SHIPPED_PROTOCOLS) for key in layer}
    return bool(keys & {"model", "preset", "model_config", "train"})


def _by_recipe(model: str, recipe: str, settings: dict[str, Any], views: str | None, **told: Any) -> Any:
    import torch

    from ..training.arguments import parse_recipe
    from ..training.run import evaluate_recipe

    given = {name: value for name, value in settings.items() if value is not None}
    if not torch.accelerator.is_available():
        given["use_cpu"] = True  # without it, processes on a CPU do not know each other
    words = [str(word) for name, value in given.items() for word in (f"--{name}", value)]
    return evaluate_recipe(parse_recipe([recipe, *words], model=model), views=views or "1x1", **told)


def _by_protocol(
    model: str,
    name: str,
    places: dict[str, Any],
    out: Path,
    views: str | None,
    descriptions: str | None,
    **told: Any,
) -> Any:
    from ..descriptions import load_descriptions
    from ..evaluation.evaluate import evaluate_with_baseline, read_clips_of
    from ..evaluation.protocol import load_protocol, parse_views

    protocol = load_protocol(name)
    if views is not None:
        protocol = replace(protocol, **parse_views(views))
    texts = None if descriptions is None else load_descriptions(descriptions).for_classes(protocol.classes)
    clips = read_clips_of(protocol, **places)
    settings = {"descriptions": descriptions}
    return evaluate_with_baseline(model, protocol, clips, out, descriptions=texts, settings=settings, **told)


def show_results(results: list[Any]) -> None:
    """Prints the results of one protocol: a row for each split of each model, and their means."""
    from ..evaluation.measures import METRIC_TITLES

    protocol = results[0].protocol
    say(f"[bold]{escape(protocol.name)}[/], version {protocol.version}, SHA-256 {protocol.sha256}")
    first = results[0].metrics()
    names = [name for name in METRIC_TITLES if name in first]
    table = table_of("model", "split", *(f"{METRIC_TITLES[name]}#" for name in names), "decoded / listed#")
    for result in results:
        for split, metrics in list(result.split_metrics().items())[:_MAX_LISTED]:
            counts = f"{metrics['num_decoded']:.0f} / {metrics['num_listed']:.0f}"
            table.add_row(escape(result.model["name"]), escape(split), *(f"{metrics[n]:.4f}" for n in names), counts)
        if len(result.splits) > 1:
            title, means = result.summary()
            table.add_row("", title, *(means[name] for name in names), "")
        table.add_section()
    Console().print(table)
