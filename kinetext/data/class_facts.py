"""What is known of the classes of published data sets beside their names: which they share, which were renamed."""

from __future__ import annotations

import os
from collections.abc import Mapping

from ..descriptions.schema import normalised_name
from .label_lists import load_label_list

__all__ = ["KINETICS600_RENAMED", "overlapping_classes", "zero_shot_splits"]

# Kinetics-600 name: Kinetics-400 name. The 600 without the 400 are 231 by name; without these 11 they are the 220 that
# zero-shot tests are made of (DeLightCMU/ElaborativeRehearsal). The pairing of old and new names is ours.
KINETICS600_RENAMED: Mapping[str, str] = {
    "changing wheel (not on bike)": "changing wheel",
    "cooking sausages (not on barbeque)": "cooking sausages",
    "dyeing hair": "dying hair",
    "hugging (not baby)": "hugging",
    "inflating balloons": "balloon blowing",
    "making the bed": "making bed",
    "opening bottle (not wine)": "opening bottle",
    "person collecting garbage": "garbage collecting",
    "throwing ball (not baseball or American football)": "throwing ball",
    "tying necktie": "tying tie",
    "waking up": "baby waking up",
}

_ZERO_SHOT = "kinetics600_zero_shot"


def overlapping_classes(one: str | os.PathLike[str], other: str | os.PathLike[str]) -> tuple[str, ...]:
    """The classes of one label list that another has too, whatever the case, spaces and punctuation of their names.

    A model trained on the other has seen them, so a test on them is no zero-shot test. Classes that mean the same under
    another name, such as those renamed in Kinetics-600, are not found.

    Args:
        one: a label list (`load_label_list`), whose spelling and order is kept.
        other: another one.
    """
    known = {normalised_name(name) for name in load_label_list(other).class_names}
    return tuple(name for name in load_label_list(one).class_names if normalised_name(name) in known)


def zero_shot_splits() -> tuple[tuple[tuple[str, ...], tuple[str, ...]], ...]:
    """(160 test classes, 60 validation classes) of Kinetics-600, three times: the draws of ElaborativeRehearsal.

    They are drawn from the 220 classes that Kinetics-400 lacks, in whose order they are.
    """
    new = load_label_list(_ZERO_SHOT).class_names
    draws = (load_label_list(f"{_ZERO_SHOT}_test{draw}").class_names for draw in (1, 2, 3))
    return tuple((test, tuple(name for name in new if name not in test)) for test in draws)
