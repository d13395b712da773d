"""`kinetext compare …`: results of one protocol side by side."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape

from .console import report_errors, say, table_of

if TYPE_CHECKING:
    from ..evaluation.compare import Comparison, Estimate, PairedTest

__all__ = ["compare"]


@report_errors
def compare(
    results: Annotated[
        list[Path], typer.Argument(help="Two or more results.json of `kinetext eval`, or their folders.")
    ],
    classes: Annotated[int, typer.Option(help="Classes to show of each pair, gains and losses apart.", min=0)] = 5,
    all_pairs: Annotated[
        bool, typer.Option("--all-pairs", help="Test each against each, not only against the first.")
    ] = False,
) -> None:
    """Compare results of one protocol on the clips that all decoded: differences with intervals, tests, classes."""
    from ..evaluation.compare import compare_results, names_of
    from ..evaluation.results import read_result

    if len(results) < 2:
        raise ValueError("compare needs two results at least; give their folders, one after the other.")
    read = [read_result(path) for path in results]
    comparison = compare_results(dict(zip(names_of(results, read), read, strict=True)), all_pairs=all_pairs)
    _say_protocol(comparison)
    _show_values(comparison)
    for pair in comparison.pairs:
        _show_pair(pair, is_corrected=len(comparison.pairs) > 1)
        _show_classes(pair, classes)
    _say_tests(comparison)


def _say_protocol(comparison: Comparison) -> None:
    protocol = comparison.protocol
    say(
        f"protocol [bold]{escape(protocol.name)}[/] version {protocol.version}, SHA-256 {protocol.sha256[:12]}; "
        f"{comparison.num_common} of {comparison.num_listed} clips are common to all"
    )
    for name, reasons in comparison.not_common.items():
        missing = ", ".join(f"{count} {reason}" for reason, count in reasons.items() if count)
        if missing:
            say(f"[yellow]not common:[/] {escape(name)}: {missing}")


def _show_values(comparison: Comparison) -> None:
    from ..evaluation.measures import METRIC_TITLES

    metrics = list(next(iter(comparison.values.values())))
    table = table_of("result", *(f"{METRIC_TITLES[metric]}#" for metric in metrics))
    for name, values in comparison.values.items():
        table.add_row(escape(name), *(_estimate(values[metric]) for metric in metrics))
    Console().print(table)


def _show_pair(pair: PairedTest, *, is_corrected: bool) -> None:
    from ..evaluation.measures import METRIC_TITLES

    say(f"[bold]{escape(pair.second)}[/] less [bold]{escape(pair.first)}[/]")
    table = table_of("metric", "difference#", "95 % interval")
    for metric, found in pair.differences.items():
        table.add_row(METRIC_TITLES[metric], f"{found.value:+.4f}", escape(f"[{found.low:+.4f}, {found.high:+.4f}]"))
    Console().print(table)
    if pair.p_value is not None:
        corrected = f", corrected p {_p_value(pair.corrected)}" if is_corrected else ""
        say(
            f"right in one only: {pair.only_first} clips in {escape(pair.first)}, {pair.only_second} in "
            f"{escape(pair.second)}; McNemar's exact test: p {_p_value(pair.p_value)}{corrected}"
        )


def _show_classes(pair: PairedTest, count: int) -> None:
    gains = [change for change in pair.classes if change.difference > 0][:count]
    losses = [change for change in reversed(pair.classes) if change.difference < 0][:count]
    if not gains and not losses:
        return
    table = table_of("class", "clips#", f"{escape(pair.first)}#", f"{escape(pair.second)}#", "difference#")
    for part in (gains, losses):
        for change in part:
            shares = (f"{change.first:.4f}", f"{change.second:.4f}", f"{change.difference:+.4f}")
            table.add_row(escape(change.class_name), str(change.num_clips), *shares)
        table.add_section()
    Console().print(table)


def _say_tests(comparison: Comparison) -> None:
    tested = [pair for pair in comparison.pairs if pair.p_value is not None]
    if not tested:
        say("not tested: clips have several classes, so none is right or wrong as a whole; the interval speaks")
        return
    pairs = "; ".join(f"{escape(pair.second)} as good as {escape(pair.first)}" for pair in tested)
    holm = "" if len(tested) == 1 else f", corrected for {len(tested)} tests by Holm's method"
    say(f"tested: {pairs} (clips right at rank 1{holm}); intervals and classes are shown, not tested")


def _estimate(found: Estimate) -> str:
    return escape(f"{found.value:.4f} [{found.low:.4f}, {found.high:.4f}]")


def _p_value(value: float | None) -> str:
    return "unknown" if value is None else f"= {value:.2g}" if value >= 1e-4 else "< 0.0001"
