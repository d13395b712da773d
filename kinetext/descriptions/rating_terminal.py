"""Rating in the terminal: one text at a time, answered by single keys."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .rating import CRITERIA, PREFERENCE, PREFERENCE_QUESTION, SCALE, Item, RatingSession

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["rate_in_terminal"]

_SKIP, _BACK, _QUIT = "s", "b", "q"
_KEYS = f"{_SKIP} skip, {_BACK} back, {_QUIT} quit"


def rate_in_terminal(session: RatingSession, console: Console) -> None:
    """Asks until there is nothing left, or the rater quits (also by Ctrl-C or Ctrl-D); every answer is stored at once.

    Args:
        session: what is asked.
        console: where, by `rich.prompt`.
    """
    _show_scales(session, console)
    try:
        while (item := session.item) is not None:
            _show(session, item, console)
            if not _ask_about(session, item, console):
                return
    except (KeyboardInterrupt, EOFError):
        console.print()


def _show_scales(session: RatingSession, console: Console) -> None:
    from rich.markup import escape
    from rich.table import Table

    if session.is_blind_choice:
        console.print(f"{PREFERENCE_QUESTION} Which set a text is from is hidden; there is no tie.")
        return
    table = Table("criterion", "what it means", f"{SCALE[0]}", f"{SCALE[-1]}", "good is")
    for criterion in CRITERIA:
        good = SCALE[-1] if criterion.is_high_good else SCALE[0]
        texts = (criterion.name, criterion.definition, criterion.lowest, criterion.highest, str(good))
        table.add_row(*(escape(text) for text in texts))
    console.print(table)


def _show(session: RatingSession, item: Item, console: Console) -> None:
    from rich.markup import escape

    training = ", training, does not count" if item.is_training else ""
    console.rule(f"{session.num_done} of {len(session.items)} done{training}; {_KEYS}")
    against = f" against [bold]{escape(item.row.contrast_class)}[/]" if item.row.contrast_class else ""
    console.print(f"[bold]{escape(item.row.class_name)}[/]{against} ({item.row.kind})", highlight=False, emoji=False)
    for number, text in enumerate(item.texts, start=1):
        mark = f"[bold]{number}[/] " if session.is_blind_choice else ""
        console.print(f"  {mark}{escape(text)}", highlight=False, emoji=False)


def _ask_about(session: RatingSession, item: Item, console: Console) -> bool:
    """Asks what is open, or, of an item that was come back to, everything anew; False if the rater quits."""
    questions = session.open_questions(item) or list(item.questions)
    number = 0
    while number < len(questions):
        answer = _ask(questions[number], console)
        if answer == _QUIT:
            return False
        if answer == _SKIP:
            session.skip()
            return True
        if answer == _BACK and number == 0:
            session.back()
            return True
        if answer == _BACK:
            number -= 1
            continue
        value = item.sides[int(answer) - 1] if session.is_blind_choice else int(answer)
        session.record(item, {questions[number]: value})
        number += 1
    session.advance()
    return True


def _ask(question: str, console: Console) -> str:
    from rich.prompt import Prompt

    scales = {criterion.name: criterion.scale for criterion in CRITERIA}
    numbers = ("1", "2") if question == PREFERENCE else tuple(map(str, SCALE))
    prompt = "better: 1 or 2" if question == PREFERENCE else f"[bold]{question}[/] ({scales[question]})"
    return Prompt.ask(prompt, console=console, choices=[*numbers, _SKIP, _BACK, _QUIT], show_choices=False)
