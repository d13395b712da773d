"""K clips of every class: nested, decided by the seed, and by nothing else."""

import re
from collections import Counter

import pytest

from kinetext.data.clip_lists import Clip, ClipList
from kinetext.data.few_shot import few_shot

CLIPS = ClipList(
    tuple(Clip(f"{name}/{index}.mp4", "", label) for label, name in enumerate("abc") for index in range(20)),
    ("a", "b", "c"),
)


def ids(clips: ClipList) -> set[str]:
    return {clip.clip_id for clip in clips.clips}


def test_every_class_has_k_clips_and_smaller_sets_are_inside_larger_ones() -> None:
    previous: set[str] = set()
    for shots in (1, 2, 4, 8, 16, 20):
        chosen = few_shot(CLIPS, shots, seed=0)
        assert Counter(clip.label for clip in chosen.clips) == {0: shots, 1: shots, 2: shots}
        assert chosen.class_names == CLIPS.class_names and set(chosen.clips) <= set(CLIPS.clips)
        assert previous < ids(chosen)
        previous = ids(chosen)


def test_the_choice_depends_on_the_seed_and_not_on_the_list() -> None:
    chosen = few_shot(CLIPS, 4, seed=0)
    assert few_shot(ClipList(CLIPS.clips[::-1], CLIPS.class_names), 4, seed=0) == chosen
    assert len({frozenset(ids(few_shot(CLIPS, 4, seed=seed))) for seed in range(5)}) == 5
    left = ClipList(tuple(clip for clip in CLIPS.clips if clip not in chosen.clips[:2]), CLIPS.class_names)
    assert ids(chosen) - ids(few_shot(left, 4, seed=0)) == {clip.clip_id for clip in chosen.clips[:2]}
    # Pinned: papers name a seed, not a list.
    assert sorted(ids(few_shot(CLIPS, 2, seed=1))) == [
        "a/1.mp4",
        "a/19.mp4",
        "b/16.mp4",
        "b/3.mp4",
        "c/16.mp4",
        "c/7.mp4",
    ]


def test_every_clip_has_the_same_chance() -> None:
    counts = Counter(name for seed in range(300) for name in ids(few_shot(CLIPS, 5, seed=seed)))
    assert counts.total() == 300 * 15 and len(counts) == 60
    assert all(45 <= count <= 108 for count in counts.values())  # 75 expected, standard deviation 7.5


def test_too_few_clips_are_an_error() -> None:
    message = "the class 'a' has 20 clips, fewer than shots=21; list more of it."
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        few_shot(CLIPS, 21, seed=0)
    with pytest.raises(ValueError, match="the class 'd' has 0 clips, fewer than shots=1; list more of it."):
        few_shot(ClipList(CLIPS.clips, ("a", "b", "c", "d")), 1, seed=0)
    with pytest.raises(ValueError, match="shots=0 must be at least 1."):
        few_shot(CLIPS, 0, seed=0)
