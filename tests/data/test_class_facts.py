"""Which classes data sets share, and the classes of Kinetics-600 that zero-shot tests are made on."""

import json
from pathlib import Path

import pytest

from kinetext.data.class_facts import KINETICS600_RENAMED, overlapping_classes, zero_shot_splits
from kinetext.data.label_lists import load_label_list

# FACTS 8.4
IN_KINETICS400 = (
    "Archery,Bowling,Brushing Teeth,Clean And Jerk,Hammer Throw,High Jump,Javelin Throw,Juggling Balls,Knitting,"
    "Long Jump,Mopping Floor,Playing Cello,Playing Flute,Playing Guitar,Playing Piano,Playing Violin,Pole Vault,"
    "Pull Ups,Shotput,Skate Boarding,Sky Diving,Tai Chi"
)


def test_classes_that_a_model_of_kinetics_has_seen() -> None:
    assert ",".join(overlapping_classes("ucf101", "kinetics400")) == IN_KINETICS400
    assert overlapping_classes("hmdb51", "kinetics400") == ("pushup", "situp")
    assert overlapping_classes("ssv2", "kinetics400") == overlapping_classes("weizmann", "kinetics400") == ()


def test_overlaps_of_lists_of_ones_own(tmp_path: Path) -> None:
    (tmp_path / "own.txt").write_text("Tai-Chi\nstanding still\nARCHERY\n")
    assert overlapping_classes(tmp_path / "own.txt", "ucf101") == ("Tai-Chi", "ARCHERY")
    assert overlapping_classes("ucf101", tmp_path / "own.txt") == ("Archery", "Tai Chi")


def test_kinetics600_has_220_new_classes_and_11_renamed_ones() -> None:
    old, all600 = (load_label_list(name).class_names for name in ("kinetics400", "kinetics600"))
    unseen = set(all600) - set(overlapping_classes("kinetics600", "kinetics400"))
    assert (len(unseen), len(KINETICS600_RENAMED)) == (231, 11)
    assert unseen - set(KINETICS600_RENAMED) == set(load_label_list("kinetics600_zero_shot").class_names)
    assert set(KINETICS600_RENAMED) < unseen
    assert set(KINETICS600_RENAMED.values()) < set(old)
    assert len(set(KINETICS600_RENAMED.values())) == 11


def test_three_draws_of_160_and_60_that_leave_three_classes_untested() -> None:
    new = load_label_list("kinetics600_zero_shot").class_names
    assert len(zero_shot_splits()) == 3
    for test, validation in zero_shot_splits():
        assert (len(test), len(validation)) == (160, 60)
        assert tuple(name for name in new if name in test or name in validation) == new
    tested = {name for test, _ in zero_shot_splits() for name in test}
    assert len(tested) == 217
    assert set(new) - tested == {"making horseshoes", "pillow fight", "spelunking"}


def test_zero_shot_classes_are_the_published_ones(shared_dir: Path) -> None:
    published = json.loads((shared_dir / "data/labels/k600_zero_shot.json").read_text("utf-8"))
    assert list(load_label_list("kinetics600_zero_shot").class_names) == published["new220"]
    draws = zip(published["test_splits_160"], published["val_splits_60"], strict=True)
    assert [(list(test), list(validation)) for test, validation in zero_shot_splits()] == list(draws)
    assert set(KINETICS600_RENAMED) == set(published["k600_renamed_from_k400_excluded"])


def test_a_list_that_is_not_there_is_an_error() -> None:
    with pytest.raises(FileNotFoundError, match="no shipped label list of that name"):
        overlapping_classes("ucf101", "kinetics4OO")
