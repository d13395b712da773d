"""Diagrams: what is in them is read from matplotlib's own objects, the files are opened as pictures."""

import sys
from pathlib import Path
from typing import Any

import matplotlib.figure
import numpy as np
import pytest
from PIL import Image

from kinetext.evaluation.plots import (
    Panel,
    draw_confusion_matrix,
    draw_curves,
    draw_hardest_confusions,
    hardest_confusions,
)


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Every figure that was written to a file."""
    written: list[Any] = []
    save = matplotlib.figure.Figure.savefig

    def remember(self: Any, *arguments: Any, **options: Any) -> None:
        written.append(self)
        save(self, *arguments, **options)

    monkeypatch.setattr(matplotlib.figure.Figure, "savefig", remember)
    return written


NAMES = ["run", "pay $5 & $6", "wave"]
COUNTS = [[3, 1, 0], [0, 0, 0], [2, 0, 2]]


def test_cells_hold_counts_and_are_coloured_by_the_share_of_their_class(tmp_path: Path, figures: list[Any]) -> None:
    draw_confusion_matrix(COUNTS, NAMES, tmp_path / "new" / "confusion.png", "fold of $daria$")
    (axes,) = figures[0].axes
    (image,) = axes.images
    assert np.allclose(image.get_array(), [[0.75, 0.25, 0], [0, 0, 0], [0.5, 0, 0.5]])
    assert image.get_clim() == (0, 1)
    cells = {text.get_position(): text.get_text() for text in axes.texts}  # (column, row)
    assert cells == {(0, 0): "3", (1, 0): "1", (0, 2): "2", (2, 2): "2"}
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("predicted", "true")
    assert [label.get_text() for label in axes.get_yticklabels()] == ["run", r"pay \$5 & \$6", "wave"]
    (right,) = axes.child_axes
    assert [label.get_text() for label in right.get_yticklabels()] == ["75%", "no clip", "50%"]
    assert axes.get_title(loc="left") == r"fold of \$daria\$"
    Image.open(tmp_path / "new" / "confusion.png").verify()


@pytest.mark.parametrize(
    ("num_classes", "has_counts", "has_names"), [(30, True, True), (31, False, True), (102, False, False)]
)
def test_what_has_no_room_is_left_out(
    tmp_path: Path, figures: list[Any], num_classes: int, has_counts: bool, has_names: bool
) -> None:
    path = tmp_path / "confusion.png"
    draw_confusion_matrix(np.eye(num_classes), [f"class {i}" for i in range(num_classes)], path, "many")
    (axes,) = figures[0].axes
    assert bool(axes.texts) == has_counts
    assert (axes.get_xlabel() == "predicted") == has_names
    assert ("class 7" in [label.get_text() for label in axes.get_xticklabels()]) == has_names
    assert max(Image.open(path).size) < 2400


def test_a_matrix_of_another_size_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"the shape \(3, 3\); 2 classes need a square"):
        draw_confusion_matrix(COUNTS, NAMES[:2], tmp_path / "confusion.png", "")
    with pytest.raises(ValueError, match="'confusion' has no picture suffix"):
        draw_confusion_matrix(COUNTS, NAMES, tmp_path / "confusion", "")
    assert not [*tmp_path.iterdir()]


def test_pictures_are_of_the_formats_that_matplotlib_writes(tmp_path: Path) -> None:
    draw_confusion_matrix(COUNTS, NAMES, tmp_path / "confusion.svg", "")
    assert b"<svg" in (tmp_path / "confusion.svg").read_bytes()
    with pytest.raises(ValueError, match=r"'confusion\.bmp' has no picture suffix"):
        draw_confusion_matrix(COUNTS, NAMES, tmp_path / "confusion.bmp", "")


def test_names_that_are_no_utf8_are_drawn(tmp_path: Path) -> None:
    odd = b"w\xe4ve".decode(errors="surrogateescape")  # as a folder may be called
    draw_confusion_matrix(COUNTS, [odd, *NAMES[1:]], tmp_path / "confusion.png", odd)
    Image.open(tmp_path / "confusion.png").verify()


def test_curves_have_a_panel_for_each_that_has_points(tmp_path: Path, figures: list[Any]) -> None:
    panels = [
        Panel("loss", {"loss": ([1, 2, 3], [2.0, float("nan"), 1.0])}),
        Panel("nothing", {"none": ([], [])}),
        Panel("rate", {"clip": ([1, 2], [0.0, 1e-6]), "new": ([1, 2], [0.0, 1e-5])}, is_log=True),
        Panel("right", {"top-1": ([2], [0.5])}, is_share=True),
    ]
    draw_curves(panels, tmp_path / "curves.png", "a run", x_label="step")
    loss, rate, right = figures[0].axes
    assert [axes.get_title(loc="left") for axes in (loss, rate, right)] == ["loss", "rate", "right"]
    assert [line.get_label() for line in rate.lines] == ["clip", "new"]
    assert [text.get_text() for text in rate.get_legend().get_texts()] == ["clip", "new"] and loss.get_legend() is None
    assert (rate.get_yscale(), loss.get_yscale()) == ("log", "linear")
    assert loss.get_ylim()[0] == 0 and right.get_ylim() == (0, 1.03)
    assert [axes.get_xlabel() for axes in (loss, rate, right)] == ["", "step", "step"]  # the lowest of each column
    assert np.array_equal(loss.lines[0].get_ydata(), [2.0, np.nan, 1.0], equal_nan=True)
    Image.open(tmp_path / "curves.png").verify()


def test_curves_without_a_point_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="there is no point to draw"):
        draw_curves([Panel("loss", {}), Panel("rate", {"clip": ([], [])})], tmp_path / "curves.png", "a run")


def test_rates_of_zero_alone_are_drawn_without_a_warning(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    draw_curves([Panel("rate", {"clip": ([1], [0.0])}, is_log=True)], tmp_path / "curves.png", "one step")
    assert [str(warning.message) for warning in recwarn] == []


def test_a_picture_is_replaced_only_by_a_whole_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "confusion.png"
    draw_confusion_matrix(COUNTS, NAMES, path, "")
    before = path.read_bytes()

    def fail(*arguments: Any) -> None:
        raise OSError("no space left")

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(OSError, match="no space left"):
        draw_confusion_matrix(np.eye(3), NAMES, path, "")
    assert path.read_bytes() == before and [one.name for one in tmp_path.iterdir()] == ["confusion.png"]


def test_pyplot_and_its_global_state_are_not_used(tmp_path: Path) -> None:
    draw_confusion_matrix(COUNTS, NAMES, tmp_path / "confusion.png", "")
    assert "matplotlib.pyplot" not in sys.modules


# Hardest confusions


def test_the_hardest_confusions_are_those_of_most_clips() -> None:
    matrix = np.array([[5, 2, 1, 2], [2, 1, 0, 0], [0, 1, 0, 0]])  # the last column is a distractor
    found = [(one.true, one.predicted, one.count, one.total, one.reverse) for one in hardest_confusions(matrix, 4)]
    assert found == [(1, 0, 2, 3, 2), (0, 1, 2, 10, 2), (0, 3, 2, 10, 0), (2, 1, 1, 1, 0)]
    assert hardest_confusions(matrix)[0].share == pytest.approx(2 / 3)
    assert len(hardest_confusions(matrix)) == 5 and hardest_confusions(np.eye(3)) == []


def test_hardest_confusions_show_both_texts_side_by_side(tmp_path: Path, figures: list[Any]) -> None:
    texts = ["legs alternate, quickly", "costs $5", "one arm moves from side to side above the head " * 20]
    draw_hardest_confusions([[3, 1, 0], [0, 0, 0], [2, 0, 2]], NAMES, texts, tmp_path / "hard.png", "of $daria$")
    (axes,) = figures[0].axes
    left, right = (
        [text for text in axes.texts if (text.get_position()[0] == 0) == is_left] for is_left in (True, False)
    )
    assert [text.get_text() for text in left[:2]] == ["wave", "2 of 4 clips were taken for"]
    assert [text.get_text() for text in right[:3]] == ["run", "none the other way", texts[0]]
    assert left[2].get_text().count("\n") == 4 and left[2].get_text().endswith("…")
    assert [text.get_text() for text in (left[3], *right[3:])] == [
        "run", r"pay \$5 & \$6", "none the other way", r"costs \$5",
    ]  # fmt: skip
    assert [bar.get_width() for bar in axes.patches] == [10, 5, 10, 2.5]
    assert axes.get_title(loc="left") == r"of \$daria\$"
    Image.open(tmp_path / "hard.png").verify()


def test_texts_of_hardest_confusions_stay_in_their_half(tmp_path: Path, figures: list[Any]) -> None:
    names, texts = ["W" * 90, "m" * 90], ["wide " * 80, "x" * 400]
    draw_hardest_confusions([[1, 3], [2, 2]], names, texts, tmp_path / "hard.png", "")
    (axes,) = figures[0].axes
    pixels_per_inch = figures[0].dpi
    for text in axes.texts:
        box = text.get_window_extent()
        half = (0 if text.get_position()[0] == 0 else 5) * pixels_per_inch
        assert half - 1 <= box.x0 and box.x1 <= half + 5 * pixels_per_inch, text.get_text()


def test_hardest_confusions_that_do_not_fit_or_are_none_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "hard.png"
    with pytest.raises(ValueError, match="no clip was taken for another class"):
        draw_hardest_confusions(np.eye(3), NAMES, NAMES, path, "")
    with pytest.raises(ValueError, match=r"the shape \(3, 3\); 3 names, 2 texts"):
        draw_hardest_confusions(COUNTS, NAMES, NAMES[:2], path, "")
    with pytest.raises(ValueError, match="has no picture suffix"):
        draw_hardest_confusions(COUNTS, NAMES, NAMES, tmp_path / "hard", "")
    assert not [*tmp_path.iterdir()]
