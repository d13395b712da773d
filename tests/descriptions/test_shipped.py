"""What the shipped sets promise: every class, every kind, no fault that `describe check` finds."""

import pytest

from kinetext.data.label_lists import load_label_list
from kinetext.data.motion_shapes import SEEN_CLASSES, UNSEEN_CLASSES
from kinetext.descriptions import load_description_set, load_descriptions, shipped_descriptions
from kinetext.descriptions.validate import check_set

CLASSES = {name: load_label_list(name).class_names for name in ("hmdb51", "kinetics400", "ssv2", "ucf101", "weizmann")}
CLASSES |= {"motion_shapes": SEEN_CLASSES + UNSEEN_CLASSES}
MOST_WORDS = 30  # of the texts of 30 words the longest has 38 of CLIP's 77 tokens


def test_shipped_sets_are_all_listed() -> None:
    assert shipped_descriptions() == sorted(CLASSES)


@pytest.mark.parametrize("name", CLASSES)
def test_every_class_has_one_conceptual_five_discriminative_and_one_characteristic_text(name: str) -> None:
    described = load_description_set(name)
    assert described.class_names == CLASSES[name] and described.dataset == name
    wanted = {"conceptual": [0], "discriminative": [0, 1, 2, 3, 4], "characteristic": [0]}
    for class_name in CLASSES[name]:
        own = [row for row in described.rows if row.class_name == class_name]
        assert {kind: [row.rank for row in own if row.kind == kind] for kind in wanted} == wanted
    assert [len(texts) for texts in load_descriptions(name).texts] == [6] * len(CLASSES[name])


@pytest.mark.parametrize("name", CLASSES)
def test_check_finds_no_error(name: str) -> None:
    assert [finding for finding in check_set(load_description_set(name), class_names=CLASSES[name]).errors] == []


@pytest.mark.parametrize("name", CLASSES)
def test_every_text_is_far_shorter_than_the_context_and_says_where_it_is_from(name: str) -> None:
    for row in load_description_set(name).rows:
        assert len(row.text.split()) <= MOST_WORDS, row
        assert (row.provider, row.model, row.created_at[:4]) == ("kinetext", "Claude", "2026")


@pytest.mark.parametrize("name", CLASSES)
def test_masked_texts_differ_by_object_words_alone(name: str) -> None:
    for row in load_description_set(name).rows:
        assert row.masked_text is not None
        if row.kind != "characteristic":
            assert row.masked_text == row.text  # these kinds name no object


# MotionShapes: what the demo rests on


def test_unseen_motions_are_described_in_words_of_seen_ones() -> None:
    loaded = load_descriptions("motion_shapes")
    words = [
        {word.strip(",;") for text in texts for word in text.split()} for texts in loaded.for_classes(SEEN_CLASSES)
    ]
    seen = set().union(*words)
    unseen = {word.strip(",;") for texts in loaded.for_classes(UNSEEN_CLASSES) for t in texts for word in t.split()}
    assert unseen - seen <= {"grows", "shrinks"}


@pytest.mark.parametrize(
    ("one", "other", "swaps"),
    [
        ("moving left", "moving right", {"left": "right"}),
        ("moving up and left", "moving up and right", {"left": "right"}),
        ("rotating clockwise", "rotating counterclockwise", {"clockwise": "counterclockwise"}),
        ("growing", "shrinking", {"larger": "smaller"}),
        ("orbiting clockwise", "orbiting counterclockwise", {"clockwise": "counterclockwise"}),
    ],
)
def test_a_motion_and_its_reverse_are_conceived_alike(one: str, other: str, swaps: dict[str, str]) -> None:
    [[concept, *_], [reverse, *_]] = load_descriptions("motion_shapes").for_classes([one, other])
    assert " ".join(swaps.get(word, word) for word in concept.split()) == reverse
