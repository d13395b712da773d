"""`kinetext …`: each verb parses, builds, calls and prints; what it does lives in the module it calls.

Heavy imports stand inside the verbs, so that `--help` does not wait for them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

from .calibrate import calibrate
from .compare import compare
from .console import report_errors, say, table_of
from .describe import describe
from .evaluate import evaluate
from .export import export
from .prepare import prepare
from .push import push
from .scan import scan
from .stream import stream

app = typer.Typer(
    name="kinetext",
    help="CLIP that reads motion: video-text models for transformers, from video file to shared checkpoint.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)

app.add_typer(describe, name="describe")
app.add_typer(push, name="push")

_STATUS_STYLES = {"ok": "green", "missing": "bold red", "optional": "dim", "warning": "yellow"}


@app.callback()
def _options() -> None:
    """Keeps verbs as sub-commands, however many there are."""


_Descriptions = Annotated[
    str | None, typer.Option(help="How the classes move, for MoTED: a file, a built-in name or a Hub id.")
]
_TAKES_SETTINGS = {"allow_extra_args": True, "ignore_unknown_options": True}


@app.command(context_settings=_TAKES_SETTINGS, epilog="Example:  kinetext demo --out demo")
@report_errors
def demo(
    context: typer.Context,
    out: Annotated[Path, typer.Option(help="Folder for clips, model and picture.")] = Path("demo"),
) -> None:
    """Render clips, train X-CLIP and MoTED from a small CLIP, compare, classify, explain; settings as of train."""
    from ..demo import run_demo

    run_demo(out, context.args)


@app.command(epilog='Example:  kinetext classify clip.mp4 --labels "waving,running" --model demo/xclip --save out.png')
@report_errors
def classify(
    clips: Annotated[list[str], typer.Argument(help="Video files or URLs.")],
    labels: Annotated[str, typer.Option(help="Class names, separated by commas; one with a comma in double quotes.")],
    model: Annotated[str, typer.Option(help="Folder or Hub id of a video-text model.")],
    save: Annotated[Path | None, typer.Option(help="Picture to draw: the frames used, and the scores.")] = None,
    descriptions: _Descriptions = None,
    template: Annotated[str | None, typer.Option(help="What names are put into, at {}; as saved by default.")] = None,
    decoder: Annotated[str, typer.Option(help="pyav or decord.")] = "pyav",
) -> None:
    """Score clips against class names."""
    from ..descriptions import load_descriptions
    from ..evaluation.class_texts import parse_labels
    from ..evaluation.classify import classify_clips, load_model
    from ..evaluation.contact_sheet import check_picture_path, draw_contact_sheet

    names = parse_labels(labels)
    if save is not None:
        check_picture_path(save)
    texts = None if descriptions is None else load_descriptions(descriptions).for_classes(names)
    loaded, processor = load_model(model)
    results = classify_clips(loaded, processor, clips, names, descriptions=texts, template=template, decoder=decoder)
    for result in results:
        say(f"[bold]{escape(result.name)}[/]")
        table = table_of("class", "score#")
        for label, score in result.ranked():
            table.add_row(escape(label), f"{score:.4f}")
        Console().print(table)
    if save is not None:
        draw_contact_sheet(results, save)
        say(f"picture saved in {escape(str(save))}")


@app.command(
    context_settings=_TAKES_SETTINGS,
    epilog="Example:  kinetext train recipes/weizmann.yaml --data_root clips --output_dir runs/weizmann",
)
@report_errors
def train(
    context: typer.Context,
    recipe: Annotated[Path, typer.Argument(help="YAML file of settings; `--name value` after it overrides them.")],
) -> None:
    """Train from a recipe in one process; `accelerate launch train.py` takes the same arguments for several."""
    from ..training.arguments import parse_recipe
    from ..training.run import run_training

    run_training(parse_recipe([str(recipe), *context.args]))


app.command(
    "eval",
    epilog="Example:  kinetext eval runs/weizmann --protocol recipes/weizmann.yaml --data-root clips --out results",
)(evaluate)


app.command(epilog="Example:  kinetext scan clips --out manifest.parquet")(scan)
app.command(epilog="Example:  kinetext prepare clips clips_256 --short-side 256")(prepare)
app.command(epilog="Example:  kinetext compare results/moted results/xclip")(compare)
app.command(epilog="Example:  kinetext calibrate results --model runs/weizmann --accuracy 0.9")(calibrate)
app.command(epilog='Example:  kinetext export demo/xclip exported --labels "waving,running" --format onnx')(export)
app.command(
    epilog='Example:  kinetext stream long.mp4 --labels "waving,running" --model demo/xclip --frames-per-second 4'
)(stream)


@app.command(
    "cross-validate",
    epilog="Example:  kinetext cross-validate recipes/weizmann_moted.yaml recipes/weizmann.yaml --data-root clips "
    "--output-dir runs/loso --group-by '([a-z]+)_' --jobs 2",
)
@report_errors
def cross_validate(
    recipes: Annotated[list[Path], typer.Argument(help="YAML files of settings, as of train.")],
    data_root: Annotated[Path, typer.Option(help="Folder that the recipes' paths of clips are relative to.")],
    output_dir: Annotated[Path, typer.Option(help="Folder for runs, table and pictures; finished folds are kept.")],
    group_by: Annotated[str, typer.Option(help="Regular expression whose parentheses name the group of a file name.")],
    jobs: Annotated[int, typer.Option(help="Folds to run at the same time.", min=1)] = 1,
) -> None:
    """Train on all groups of clips but one and evaluate on that, each in turn; exit code 1 if a run fails."""
    from ..training.cross_validation import cross_validate

    done = cross_validate(recipes, data_root=data_root, output_dir=output_dir, group_by=group_by, jobs=jobs)
    heading, *rows = done.rows()
    table = table_of(heading[0], *(f"{escape(name)}#" for name in heading[1:]))
    for row in rows:
        table.add_row(*map(escape, row))
    Console().print(table)
    for path in done.files:
        say(f"written: {escape(str(path))}")
    for name, reason in done.failures.items():
        say(f"[bold red]failed:[/] {escape(f'{name}: {reason}')}")
    if done.failures:
        raise typer.Exit(1)


@app.command(epilog="Example:  kinetext convert k400_16_8.pth xclip-b16 --tokenizer openai/clip-vit-base-patch16")
@report_errors
def convert(
    source: Annotated[str, typer.Argument(help="A .pth of X-CLIP, ViFi-CLIP or Text4Vis, or a folder of an X-CLIP.")],
    destination: Annotated[Path, typer.Argument(help="Folder to make.")],
    tokenizer: Annotated[
        str | None,
        typer.Option(help="Folder or Hub id of the tokenizer, which a .pth has not. Default: that of --clip."),
    ] = None,
    clip: Annotated[
        str | None, typer.Option(help="Folder or Hub id of the CLIP that a ViFi-CLIP or Text4Vis was trained from.")
    ] = None,
    num_frames: Annotated[
        int | None, typer.Option(help="Frames per clip of a ViFi-CLIP or Text4Vis, where its file does not say.", min=1)
    ] = None,
) -> None:
    """Turn a checkpoint of another project into a folder that kinetext loads, strictly."""
    from ..conversion.convert import convert_checkpoint

    done = convert_checkpoint(source, destination, tokenizer=tokenizer, clip=clip, num_frames=num_frames)
    what = "model and processor" if done.has_processor else "model"
    trained = f"{done.num_parameters:,} parameters, {done.num_frames} frames"
    say(f"{what} saved in {escape(str(done.destination))} ({trained}), converted from {done.project}")
    for note in done.notes:
        say(f"[yellow]note:[/] {escape(note)}")


@app.command(epilog="Example:  kinetext cost base-patch16 --architecture moted --num-frames 32")
@report_errors
def cost(
    model: Annotated[str | None, typer.Argument(help="A preset such as base-patch16, or a folder or Hub id.")] = None,
    architecture: Annotated[str, typer.Option(help="What a preset is of: xclip or moted.")] = "xclip",
    num_frames: Annotated[
        int | None,
        typer.Option(help="Frames per view; of a preset also the trained number. Default: 8, or the model's."),
    ] = None,
    classes: Annotated[int, typer.Option(help="Class texts per view.")] = 400,
    tokens: Annotated[int, typer.Option(help="Tokens per class text.")] = 77,
    published: Annotated[bool, typer.Option("--published", help="All sizes beside the papers' figures.")] = False,
) -> None:
    """Show parameters and multiply-accumulates by tower; no weights are read."""
    from ..evaluation.cost import measure_cost

    if published:
        _show_published_costs()
        return
    if model is None:
        raise ValueError("say which model: a preset, a folder or a Hub id, or --published for all.")
    config = _config(model, architecture, num_frames)
    measured = measure_cost(config, num_frames=num_frames, num_classes=classes, num_tokens=tokens)
    sizes = f"{measured.num_frames} frames, {classes} classes, {tokens} tokens"
    table = table_of("tower", "parameters#", "GMACs#", "runs")
    for tower in measured.towers:
        runs = "per view" if tower.is_per_view else "once per class list"
        table.add_row(tower.tower, f"{tower.parameters:,}", f"{tower.macs / 1e9:,.2f}", runs)
    table.add_section()
    table.add_row("all, a view", f"{measured.parameters:,}", f"{measured.view_macs / 1e9:,.2f}", "without class texts")
    say(f"[bold]{escape(model)}[/]: {sizes}")
    Console().print(table)
    say("GMACs: 10⁹ multiply-accumulates, which published figures call FLOPs and give per view.")


def _show_published_costs() -> None:
    from rich.progress import track

    from ..evaluation.published_costs import PUBLISHED_COSTS

    table = table_of("model", "size", "frames#", "GMACs#", "paper#", "off#", "M parameters#", "paper#")
    for row in track(PUBLISHED_COSTS, description="Counting", transient=True):
        measured = row.measure()
        gmacs, parameters = measured.view_macs / 1e9, measured.trainable_parameters / 1e6
        paper = (
            f"{row.parameters[0]:g}"
            if row.parameters[0] == row.parameters[1]
            else "{:g} to {:g}".format(*row.parameters)
        )
        off = f"{gmacs / row.gmacs - 1:+.1%}"
        figures = (f"{gmacs:,.1f}", f"{row.gmacs:,g}", off, f"{parameters:.1f}", paper)
        table.add_row(row.architecture, row.preset, str(row.num_frames), *figures)
    Console().print(table)
    say("GMACs of one view, without class texts; parameters that are trainable before a recipe freezes any.")


def _config(name: str, architecture: str, num_frames: int | None) -> Any:
    """The configuration of a preset, a folder or a Hub repository."""
    from transformers import AutoConfig

    from ..descriptions.load import HUB_ID
    from ..evaluation.published_costs import CONFIG_CLASSES
    from ..modeling.configuration_video_text import CLIP_TOWERS

    if architecture not in CONFIG_CLASSES:
        raise ValueError(f"architecture={architecture!r} is unknown; choose one of {', '.join(CONFIG_CLASSES)}.")
    if name in CLIP_TOWERS:
        frames = {} if num_frames is None else {"num_frames": num_frames}
        return CONFIG_CLASSES[architecture].preset(name, **frames)
    if not Path(name).is_dir() and not HUB_ID.fullmatch(name):
        raise ValueError(
            f"{name!r} is no preset ({', '.join(CLIP_TOWERS)}), no folder and no Hub id (those read owner/name)."
        )
    return AutoConfig.from_pretrained(name)


@app.command(epilog="Example:  kinetext doctor")
@report_errors
def doctor() -> None:
    """Show versions, devices, decoders and what is missing; exit code 1 if something needed is."""
    from ..doctor import diagnose

    checks = diagnose()
    table = table_of("what", "found", "status", "hint")
    for check in checks:
        status = f"[{_STATUS_STYLES[check.status]}]{check.status}[/]"
        table.add_row(escape(check.name), escape(check.value), status, escape(check.hint))
    Console().print(table)
    if any(check.status == "missing" for check in checks):
        raise typer.Exit(1)


@app.command(epilog="Example:  kinetext explain clip.mp4 --text growing --model demo/moted --save out.png")
@report_errors
def explain(
    clip: Annotated[str, typer.Argument(help="Video file or URL.")],
    text: Annotated[str, typer.Option(help="Class name whose score is explained.")],
    model: Annotated[str, typer.Option(help="Folder or Hub id of an X-CLIP or MoTED.")],
    save: Annotated[Path, typer.Option(help="Picture to draw: heat maps over the frames, and bars for the words.")],
    descriptions: _Descriptions = None,
    decoder: Annotated[str, typer.Option(help="pyav or decord.")] = "pyav",
) -> None:
    """Show which patches of the frames and which words a score rests on."""
    from ..descriptions import load_descriptions
    from ..evaluation.classify import load_model
    from ..evaluation.drawing import check_picture_path
    from ..evaluation.relevance import explain_clip
    from ..evaluation.relevance_picture import draw_explanation

    check_picture_path(save)
    texts = None if descriptions is None else load_descriptions(descriptions).for_classes([text])[0]
    loaded, processor = load_model(model)
    explanation = explain_clip(loaded, processor, clip, text, descriptions=texts, decoder=decoder)
    for part in explanation.streams:
        for one in part.texts:
            say(f"[bold]{part.name} stream[/]: {escape(one.text)}")
            table = table_of("word", "relevance#")
            for word, share in one.words:
                table.add_row(escape(word), f"{share:.3f}")
            Console().print(table)
    draw_explanation(explanation, save)
    say(f"picture saved in {escape(str(save))}")
