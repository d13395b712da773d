"""Fingerprints of lists: the same for every form of a list, another for every other list."""

from pathlib import Path

import pytest

from kinetext.data.annotation_formats import clips_from_list
from kinetext.data.clip_lists import Clip, ClipList
from kinetext.data.label_lists import load_label_list
from kinetext.data.list_facts import list_fingerprint

NAMES = ("kick", "kick ball")
CLIPS = ClipList((Clip("kick/a.avi", "x", 0), Clip("kick_ball/b.avi", "y", 1), Clip("kick/\udcff.avi", "z", 0)), NAMES)


def test_a_fingerprint_is_the_same_in_every_process_and_version() -> None:
    assert list_fingerprint(CLIPS) == "18390be7b9ba1fffd06c4f543ff4d50b2cc792f065ee459f024061d731057e1c"


@pytest.mark.parametrize(
    "same",
    [
        ClipList(CLIPS.clips[::-1], NAMES),
        ClipList((Clip("hmdb51/kick/a", "", 0), Clip("b.MP4", "", 1), Clip("\udcff", "", 0)), ("Kick", "kick_ball")),
        ClipList((Clip("a", "", 2), Clip("b", "", 1), Clip("\udcff", "", 2)), ("unused", "KickBall", "kick")),
    ],
)
def test_folders_endings_spelling_and_orders_do_not_count(same: ClipList) -> None:
    assert list_fingerprint(same) == list_fingerprint(CLIPS)


@pytest.mark.parametrize(
    "other",
    [
        ClipList(CLIPS.clips[:2], NAMES),
        ClipList((Clip("kick/c.avi", "x", 0), *CLIPS.clips[1:]), NAMES),
        ClipList((Clip("kick/a.avi", "x", 1), *CLIPS.clips[1:]), NAMES),
        ClipList((Clip("kick/a.avi", "x", 0, None, (1,)), *CLIPS.clips[1:]), NAMES),
        ClipList((Clip("kick/a.b", "x", 0), *CLIPS.clips[1:]), NAMES),
        ClipList(CLIPS.clips, NAMES[::-1]),
    ],
)
def test_clips_and_classes_count(other: ClipList) -> None:
    assert list_fingerprint(other) != list_fingerprint(CLIPS)


def test_folders_tell_files_of_one_name_apart() -> None:
    ira, eli, lena = (
        ClipList((Clip("daria/run/1.avi", "", 0), Clip(f"{who}/run/1.avi", "", 0)), ("run",))
        for who in ("ira", "eli", "lena")
    )
    assert len({list_fingerprint(clips) for clips in (ira, eli, lena)}) == 3
    assert list_fingerprint(ira) == list_fingerprint(ClipList(tuple(reversed(ira.clips)), ("run",)))


def of(**labels: int) -> str:
    """The fingerprint of clips named with `_` for each folder."""
    clips = tuple(Clip(name.replace("_", "/") + ".mp4", "", label) for name, label in labels.items())
    return list_fingerprint(ClipList(clips, NAMES))


def test_labels_swapped_between_files_of_one_name_are_noticed() -> None:
    assert of(a_1=0, b_1=1) != of(a_1=1, b_1=0)
    assert of(a_c_1=0, b_c_1=1, d_1=1) != of(a_c_1=1, b_c_1=0, d_1=1)
    assert of(a_1=0, a_1_1=1, b_2=0) != of(a_1=1, a_1_1=0, b_2=0)


def test_only_the_folders_that_tell_files_apart_count() -> None:
    assert of(root_a_1=0, root_b_1=1, root_b_2=0) == of(a_1=0, b_1=1, c_2=0) != of(a_1=0, c_1=1, c_2=0)
    assert of(root_a_c_1=0, root_b_c_1=1, root_d_1=1) == of(a_c_1=0, b_c_1=1, d_1=1)


@pytest.mark.parametrize("split", [1, 2, 3])
def test_the_form_of_a_published_list_does_not_matter(shared_dir: Path, tmp_path: Path, split: int) -> None:
    names = load_label_list("ucf101").class_names
    source = shared_dir / f"data/splits/ucf101_val_rgb_split_{split}.txt"
    paths = [line.rsplit(" ", 2)[0] for line in source.read_text().split("\n") if line]
    (tmp_path / f"testlist0{split}.txt").write_text("".join(f"{path}.avi\r\n" for path in sorted(paths)))
    own, official = (
        clips_from_list(path, data_root=tmp_path, class_names=names)
        for path in (source, tmp_path / f"testlist0{split}.txt")
    )
    assert list_fingerprint(own) == list_fingerprint(official)
