"""`kinetext describe …`: motion descriptions generated, checked, masked, rated."""

from __future__ import annotations

import typer
from typer.core import TyperGroup

__all__ = ["describe"]


class _LabelsOrVerb(TyperGroup):
    """A group whose verb may be left out: `describe ucf101 …` is `describe generate ucf101 …`."""

    def parse_args(self, ctx: typer.Context, args: list[str]) -> list[str]:
        if args and args[0] not in self.commands and args[0] != "--help":
            args = ["generate", *args]
        return super().parse_args(ctx, args)


describe = typer.Typer(
    cls=_LabelsOrVerb,
    no_args_is_help=True,
    rich_markup_mode="rich",
    help="Motion descriptions: generate them with a language model, check, mask, rate and compare them.",
)
