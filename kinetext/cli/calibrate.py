"""`kinetext calibrate`: scores that mean what they say, from an evaluation."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from .console import report_errors, say, table_of

__all__ = ["calibrate"]


@report_errors
def calibrate(
    results: Annotated[Path, typer.Argument(help="Folder that `kinetext eval` wrote, of a validation set.")],
    model: Annotated[Path, typer.Option(help="Folder of the model that was evaluated; calibration.json goes there.")],
    accuracy: Annotated[
        float | None, typer.Option(help="Share of answers to be right: fits the score below which it abstains.")
    ] = None,
) -> None:
    """Fit a temperature, and a threshold to abstain below, on the predictions of an evaluation; pipelines use both."""
    from ..evaluation.calibration import calibrate_results, check_evaluated_model

    if not (model / "config.json").is_file():
        raise ValueError(f"--model {str(model)!r} is no folder with a saved model (it has no config.json).")
    calibration = calibrate_results(results, accuracy=accuracy)
    check_evaluated_model(calibration, model)
    facts = calibration.fitted_on
    table = table_of("on these clips", "as it was#", "calibrated#")
    table.add_row("negative log-likelihood", *(f"{value:.4f}" for value in facts["negative_log_likelihood"]))
    table.add_row("expected calibration error", *(f"{value:.4f}" for value in facts["expected_calibration_error"]))
    clips = f"{facts['num_clips']} clips of {facts['protocol']['name']}"
    say(f"temperature {calibration.temperature:.4f}, from {escape(clips)}")
    Console().print(table)
    if calibration.threshold is not None:
        say(
            f"threshold {calibration.threshold:.4f}: answers {facts['share_answered']:.1%} of the clips, "
            f"{facts['accuracy_of_answers']:.1%} of them right"
        )
    say(f"saved in {escape(str(calibration.save(model)))}")
