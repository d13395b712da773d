"""Values as Markdown, whatever they contain."""

from __future__ import annotations

from typing import Any

__all__ = ["cell", "code", "duration", "one_line"]


def one_line(value: Any) -> str:
    """A value as one line of text."""
    return " ".join(str(value).split())


def code(value: Any) -> str:
    """A value as Markdown code, in one line."""
    text = one_line(value)
    fence = "`"
    while fence in text:
        fence += "`"
    space = " " if "`" in text or not text else ""  # between a fence and a backtick, and to show an empty text
    return f"{fence}{space}{text}{space}{fence}"


def cell(value: Any) -> str:
    """A value as Markdown code inside a table."""
    return code(value).replace("|", "\\|")  # a bare one would end the cell, even inside code


def duration(seconds: float) -> str:
    """A duration in hours, minutes and seconds, e.g. 1 h 02 min 03 s."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02} min {rest:02} s"
    return f"{minutes} min {rest:02} s" if minutes else f"{rest} s"
