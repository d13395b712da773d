"""`kinetext push …`: to the Hub, in one commit, with a card."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from .console import report_errors, say
from .describe import Tokenizer, token_counter

__all__ = ["push"]

push = typer.Typer(no_args_is_help=True, rich_markup_mode="rich", help="Push to the Hub, in one commit, with a card.")


@push.command(epilog="Example:  kinetext push descriptions runs/ucf101/descriptions.jsonl you/ucf101-motion --private")
@report_errors
def descriptions(
    source: Annotated[str, typer.Argument(metavar="SET", help="A description set: file, folder or built-in name.")],
    repo_id: Annotated[str, typer.Argument(metavar="ORG/NAME", help="The data set on the Hub; made if not there.")],
    private: Annotated[bool, typer.Option("--private", help="Make the data set private.")] = False,
    dry_run: Annotated[
        Path | None, typer.Option("--dry-run", help="Write what would be pushed into this folder; push nothing.")
    ] = None,
    license: Annotated[
        str | None, typer.Option(help="Licence id of the Hub, e.g. cc-by-4.0; needed unless the set is kinetext's own.")
    ] = None,
    ratings: Annotated[
        list[Path] | None, typer.Option(help="Ratings of `kinetext describe rate`, for the card; may be repeated.")
    ] = None,
    tokenizer: Tokenizer = None,
    with_faults: Annotated[
        bool, typer.Option("--with-faults", help="Push although `describe check` finds errors; the card lists them.")
    ] = False,
) -> None:
    """Push motion descriptions as parquet with a card, readable by `datasets.load_dataset("org/name")`."""
    from ..hub_cards.dataset_card import push_descriptions, write_dataset_folder

    settings: dict[str, Any] = {"license": license, "ratings": ratings or [], "with_faults": with_faults}
    settings["count_tokens"] = token_counter(tokenizer)
    if dry_run is not None:
        write_dataset_folder(source, repo_id, dry_run, **settings)
        say(f"nothing was pushed; {escape(str(dry_run))} holds what would be")
        return
    commit = push_descriptions(source, repo_id, private=private, **settings)
    say(f"pushed to {escape(repo_id)}, commit {commit}")


@push.command(epilog="Example:  kinetext push model runs/ucf101 you/xclip-ucf101 --license cc-by-nc-4.0")
@report_errors
def model(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="The output folder of a finished run.")],
    repo_id: Annotated[str, typer.Argument(metavar="ORG/NAME", help="The model on the Hub; made if not there.")],
    private: Annotated[bool, typer.Option("--private", help="Make the model private.")] = False,
    license: Annotated[
        str | None, typer.Option(help="Licence id of the Hub, e.g. apache-2.0; needed unless the card names one.")
    ] = None,
    results: Annotated[
        list[Path] | None, typer.Option(help="results.json of `kinetext eval`, for the card; may be repeated.")
    ] = None,
) -> None:
    """Push a trained model with its processor, code, card, report and results; no checkpoints, no optimizer states."""
    from ..hub_cards.push_run import push_run

    commit = push_run(folder, repo_id, private=private, license=license, results=results or [])
    say(f"pushed to {escape(repo_id)}, commit {commit}")
