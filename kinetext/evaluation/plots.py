"""Diagrams of results: confusion matrices and curves, drawn by matplotlib without its global state.

matplotlib is imported where it draws, so that importing kinetext does not pay for it.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ..descriptions.files import write_atomically
from .drawing import GREY, INK, PALE_BAR, PAPER, STRONG_BAR

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = [
    "Confusion",
    "Panel",
    "draw_confusion_matrix",
    "draw_curves",
    "draw_hardest_confusions",
    "hardest_confusions",
]

_DPI = 144
_MAX_WRITTEN_COUNTS = 30  # classes; above, a cell has no room for its count
_MAX_NAMED = 101  # classes; above, names would lie on each other
_CELL = 0.42  # inches of a class, while counts are written
_SMALL_CELL = 0.13  # and where only its name is
_LARGEST_SIDE = 12.0  # inches of all classes together
_COLUMNS = 2
_PANEL_SIZE = (5.6, 2.7)  # inches
_FEW_POINTS = 40  # up to here every point is marked
_NUM_CONFUSIONS = 8
_MAX_LINES = 5  # of a class text
_LINE = 0.19  # inches of such a line
_PAIR_WIDTH = 10.0  # inches
_HALF = _PAIR_WIDTH / 2 - 0.2  # inches of a line of a class text
_TEXT_SIZE, _NAME_SIZE = 8.5, 9.5  # points
_COLOURS = ("#4278c4", "#d1603d", "#3d9970", "#8e5bb5", "#b8860b", "#5f6b7a")  # the first is STRONG_BAR


@dataclass(frozen=True)
class Panel:
    """One diagram of a figure.

    Attributes:
        title: what is drawn, with its unit.
        series: name -> (x, y), drawn as one line each.
        is_share: y are shares: the axis reads 0 to 100 %.
        is_log: y spans magnitudes: the axis is logarithmic.
    """

    title: str
    series: Mapping[str, tuple[Sequence[float], Sequence[float]]]
    is_share: bool = False
    is_log: bool = False


@dataclass(frozen=True)
class Confusion:
    """One class taken for another.

    Attributes:
        true: index of the class.
        predicted: index of what its clips were taken for.
        count: of these clips.
        total: clips of the class.
        reverse: clips of `predicted` that were taken for `true`.
    """

    true: int
    predicted: int
    count: int
    total: int
    reverse: int

    @property
    def share(self) -> float:
        """Of the clips of the class."""
        return self.count / self.total


def hardest_confusions(matrix: npt.ArrayLike, count: int = _NUM_CONFUSIONS) -> list[Confusion]:
    """The pairs of classes with the most clips of the one taken for the other; of as many, the larger share first.

    Args:
        matrix: (N, M) counts; row: true class, column: predicted class, and from N on what is no class (distractors).
        count: of pairs at most.
    """
    counts = np.asarray(matrix)
    num_classes = len(counts)
    totals = counts.sum(axis=1)
    pairs = [
        Confusion(
            true=int(true),
            predicted=int(predicted),
            count=int(counts[true, predicted]),
            total=int(totals[true]),
            reverse=int(counts[predicted, true]) if predicted < num_classes else 0,
        )
        for true, predicted in zip(*np.nonzero(counts), strict=True)
        if true != predicted
    ]
    return sorted(pairs, key=lambda pair: (-pair.count, -pair.share, pair.true, pair.predicted))[:count]


def draw_hardest_confusions(
    matrix: npt.ArrayLike, class_names: Sequence[str], texts: Sequence[str], path: str | os.PathLike[str], title: str
) -> None:
    """Writes a picture of the hardest confusions: a row for each, with the texts of both classes side by side.

    Args:
        matrix: (N, M) counts, as of `hardest_confusions`.
        class_names: M names.
        texts: M texts, as the model read them or as a reader should compare them; long ones are cut off.
        path: of the picture; the file type follows its suffix.
        title: above it.

    Raises:
        ValueError: if the numbers of names, texts and columns differ, no clip was taken for another class, or the
            suffix is of no picture format.
    """
    path = Path(path)
    _check_picture_path(path)
    counts = np.asarray(matrix)
    if not counts.shape[1] == len(class_names) == len(texts):
        raise ValueError(f"the matrix has the shape {counts.shape}; {len(class_names)} names, {len(texts)} texts.")
    pairs = hardest_confusions(counts)
    if not pairs:
        raise ValueError("no clip was taken for another class, so there is no confusion to draw.")
    wrapped = [tuple(_wrapped(texts[place], _TEXT_SIZE) for place in (pair.true, pair.predicted)) for pair in pairs]
    heights = [(2 + max(map(len, both))) * _LINE + 0.2 for both in wrapped]  # inches of each row
    figure = _figure(_PAIR_WIDTH, sum(heights))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, _PAIR_WIDTH), ylim=(sum(heights), 0))
    axes.axis("off")
    axes.set_title(_plain(title), loc="left", fontsize=11, pad=12, color=_hex(INK))
    top = 0.0
    for pair, both, height in zip(pairs, wrapped, heights, strict=True):
        _draw_confusion(axes, pair, class_names, both, top)
        top += height
    _save(figure, path)


def draw_confusion_matrix(
    matrix: npt.ArrayLike, class_names: Sequence[str], path: str | os.PathLike[str], title: str
) -> None:
    """Writes a picture of which class was taken for which: a row per true class, coloured by its share of the row.

    Counts stand in the cells where there is room, the share of each class that was right beside its row. A class
    without clips has an empty row.

    Args:
        matrix: (N, N) counts; row: true class, column: predicted class.
        class_names: N names.
        path: of the picture; the file type follows its suffix.
        title: above it.

    Raises:
        ValueError: if the matrix is not N x N, or the suffix is of no picture format.
    """
    path = Path(path)
    _check_picture_path(path)
    counts = np.asarray(matrix)
    num_classes = len(class_names)
    if counts.shape != (num_classes, num_classes):
        raise ValueError(f"the matrix has the shape {counts.shape}; {num_classes} classes need a square of that side.")
    has_counts = num_classes <= _MAX_WRITTEN_COUNTS
    side = num_classes * (_CELL if has_counts else min(_SMALL_CELL, _LARGEST_SIDE / num_classes))
    figure = _figure(side, side)
    axes = figure.add_axes((0, 0, 1, 1))  # exactly the cells; what stands around them widens the picture
    totals = counts.sum(axis=1, keepdims=True)
    shares = np.divide(counts, totals, out=np.zeros(counts.shape), where=totals > 0)
    axes.imshow(shares, cmap=_paper_to_blue(), vmin=0, vmax=1, aspect="equal", interpolation="nearest")
    axes.set(xlabel="predicted", ylabel="true")
    axes.set_title(_plain(title), loc="left", fontsize=11, pad=12)
    _name_classes(axes, class_names, shares, totals[:, 0], font_size=8.5 if has_counts else 5.5)
    if has_counts:
        _write_counts(axes, counts, shares)
    _save(figure, path)


def draw_curves(panels: Sequence[Panel], path: str | os.PathLike[str], title: str, *, x_label: str = "step") -> None:
    """Writes one picture of all panels, two to a row, over a common x axis; those without any point are left out.

    Values that are not finite leave a gap in their line.

    Raises:
        ValueError: if no panel has a point, or the suffix is of no picture format.
    """
    path = Path(path)
    _check_picture_path(path)
    drawn = [panel for panel in panels if any(len(x) for x, _ in panel.series.values())]
    if not drawn:
        raise ValueError("there is no point to draw.")
    columns = min(_COLUMNS, len(drawn))
    rows = -(-len(drawn) // columns)
    figure = _figure(_PANEL_SIZE[0] * columns, _PANEL_SIZE[1] * rows + 0.4, layout="constrained")
    grid = figure.subplots(rows, columns, sharex=True, squeeze=False).flatten()
    for axes, panel in zip(grid, drawn, strict=False):
        _draw_panel(axes, panel)
    for axes in grid[len(drawn) :]:
        axes.remove()
    for axes in grid[max(0, len(drawn) - columns) : len(drawn)]:  # the lowest of each column
        axes.tick_params(labelbottom=True)
        axes.set_xlabel(x_label)
    figure.suptitle(_plain(title), x=0.01, ha="left", fontsize=12, color=_hex(INK))
    _save(figure, path)


def _check_picture_path(path: Path) -> None:
    from matplotlib.backend_bases import FigureCanvasBase

    if path.suffix[1:].lower() not in FigureCanvasBase.get_supported_filetypes():
        raise ValueError(f"{path.name!r} has no picture suffix that matplotlib writes; use for example .png or .pdf.")


def _figure(width: float, height: float, **options: Any) -> Figure:
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=_DPI, facecolor=_hex(PAPER), **options)


def _save(figure: Figure, path: Path) -> None:
    picture = io.BytesIO()
    figure.savefig(picture, format=path.suffix[1:].lower(), bbox_inches="tight", pad_inches=0.15)
    write_atomically(path, picture.getvalue())


def _name_classes(
    axes: Axes, class_names: Sequence[str], shares: np.ndarray, totals: np.ndarray, *, font_size: float
) -> None:
    """Names on both axes where they have room, and how much of each class was right on the right-hand side."""
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_color(_hex(GREY))
    if len(class_names) > _MAX_NAMED:
        axes.set(xlabel="predicted class, by index", ylabel="true class, by index")
        return
    places, names = range(len(class_names)), [_plain(name) for name in class_names]
    axes.set_xticks(places, names, rotation=90, fontsize=font_size)
    axes.set_yticks(places, names, fontsize=font_size)
    right = axes.secondary_yaxis("right")
    right.tick_params(length=0)
    accuracies = [f"{shares[i, i]:.0%}" if totals[i] else "no clip" for i in places]
    right.set_yticks(places, accuracies, fontsize=font_size, color=_hex(GREY))


def _write_counts(axes: Axes, counts: np.ndarray, shares: np.ndarray) -> None:
    for row, column in zip(*np.nonzero(counts), strict=True):
        colour = PAPER if shares[row, column] > 0.4 else INK
        axes.text(column, row, f"{counts[row, column]:g}", ha="center", va="center", fontsize=8.5, color=_hex(colour))


def _draw_confusion(
    axes: Axes, pair: Confusion, class_names: Sequence[str], texts: Sequence[list[str]], top: float
) -> None:
    """One row: a bar for the share of clips, below it both classes with their texts; lengths are inches."""
    axes.barh(top + 0.04, _PAIR_WIDTH, height=0.05, left=0, color=_hex(PALE_BAR))
    axes.barh(top + 0.04, _PAIR_WIDTH * pair.share, height=0.05, left=0, color=_hex(STRONG_BAR))
    clips = "clip was" if pair.total == 1 else "clips were"
    counts = f"{pair.count} of {pair.total} {clips} taken for"
    back = f"{pair.reverse} the other way" if pair.reverse else "none the other way"
    columns = (
        (0.0, class_names[pair.true], counts, texts[0]),
        (_PAIR_WIDTH / 2, class_names[pair.predicted], back, texts[1]),
    )
    for left, name, numbers, lines in columns:
        (heading,) = _wrapped(name, _NAME_SIZE, max_lines=1, weight="bold")
        axes.text(left, top + 0.14, heading, va="top", fontsize=_NAME_SIZE, fontweight="bold", color=_hex(INK))
        axes.text(left, top + 0.14 + _LINE, numbers, va="top", fontsize=_TEXT_SIZE, color=_hex(GREY))
        axes.text(left, top + 0.14 + 2 * _LINE, "\n".join(lines), va="top", fontsize=_TEXT_SIZE, color=_hex(INK))


def _wrapped(text: str, size: float, *, max_lines: int = _MAX_LINES, weight: str = "normal") -> list[str]:
    """The text in lines that fit half the picture; the last one ends in … where there was more."""
    width = _text_width(size, weight)
    lines = [""]
    for word in _readable(text).split():
        if width(f"{lines[-1]} {word}") <= _HALF:
            lines[-1] = f"{lines[-1]} {word}".lstrip()
            continue
        lines.append("")
        for letter in word:  # which may be longer than a line
            if width(lines[-1] + letter) > _HALF:
                lines.append("")
            lines[-1] += letter
    lines = [line for line in lines if line] or [""]
    if len(lines) > max_lines:
        lines = [*lines[: max_lines - 1], f"{lines[max_lines - 1][:-1]}…"]
    return [_plain(line) for line in lines]


def _text_width(size: float, weight: str) -> Callable[[str], float]:
    """How wide, in inches, a line of text of that size (in points) is."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import TextToPath

    measure, font = TextToPath().get_text_width_height_descent, FontProperties(size=size, weight=weight)
    return lambda line: measure(line, font, ismath=False)[0] / 72


def _draw_panel(axes: Axes, panel: Panel) -> None:
    from matplotlib.ticker import PercentFormatter

    for (name, (x, y)), colour in zip(panel.series.items(), _cycle(len(panel.series)), strict=True):
        marker = "o" if len(x) <= _FEW_POINTS else None
        axes.plot(x, y, label=_plain(name), color=colour, linewidth=1.4, marker=marker, markersize=3)
    axes.set_title(_plain(panel.title), loc="left", fontsize=9.5, color=_hex(INK))
    axes.grid(alpha=0.25, linewidth=0.6)
    axes.tick_params(labelsize=8, colors=_hex(GREY))
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    if panel.is_log and any(value > 0 for _, y in panel.series.values() for value in y):
        axes.set_yscale("log", nonpositive="mask")
    else:
        axes.set_ylim(bottom=0)
    if panel.is_share:
        axes.set_ylim(top=1.03)  # a point at 100 % is seen whole
        axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    if len(panel.series) > 1:
        axes.legend(fontsize=8, frameon=False)


def _cycle(count: int) -> list[str]:
    return [_COLOURS[index % len(_COLOURS)] for index in range(count)]


def _paper_to_blue() -> Any:
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list("paper to blue", [_hex(PAPER), _hex(STRONG_BAR), "#17386b"])


def _hex(colour: tuple[int, int, int]) -> str:
    return "#{:02x}{:02x}{:02x}".format(*colour)


def _plain(text: str) -> str:
    """The text in one line, with no dollar sign that matplotlib would read as mathematics."""
    return " ".join(_readable(text).split()).replace("$", r"\$")


def _readable(text: str) -> str:
    return text.encode(errors="replace").decode()  # names of folders may be no UTF-8
