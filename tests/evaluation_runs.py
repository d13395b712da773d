"""`kinetext eval` in processes that are started and killed."""

from __future__ import annotations

import time


def evaluate(arguments: list[str]) -> None:
    """`kinetext eval` with these arguments."""
    from kinetext.cli import app

    app(["eval", *arguments], standalone_mode=False)


def evaluate_slowly(arguments: list[str]) -> None:
    """`kinetext eval` with these arguments; it keeps every batch and then rests, so that it can be killed between."""
    from kinetext.evaluation import score_journal

    write = score_journal.ScoreJournal.write

    def write_and_rest(journal: score_journal.ScoreJournal) -> None:
        write(journal)
        time.sleep(0.1)

    score_journal._SECONDS = 0
    score_journal.ScoreJournal.write = write_and_rest  # type: ignore[method-assign]
    evaluate(arguments)
