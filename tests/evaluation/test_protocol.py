"""Protocols: what a file of one may say, which clips its splits hold, and what it is bound to by a model."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from kinetext import VideoTextProcessor
from kinetext.data.annotations import Clip, ClipList
from kinetext.data.datasets import EvalClips
from kinetext.data.label_lists import load_label_list
from kinetext.data.list_facts import list_fingerprint
from kinetext.data.prompt_templates import load_templates
from kinetext.evaluation.protocol import (
    Protocol,
    Split,
    load_protocol,
    own_clips,
    parse_views,
    protocol_of,
    read_split,
    shipped_protocols,
)

NAMES, TEXTS = ("running", "waving"), ("to run", "to wave")
CLIPS = (Clip("running/a.mp4", "x", 0), Clip("waving/b.mp4", "y", 1), Clip("waving/\udcff.mp4", "z", 1))


def protocol(**fields: Any) -> Protocol:
    return Protocol(**{"name": "mine", "version": 1, "dataset": "d", "classes": NAMES, "class_texts": TEXTS, **fields})


def processor(**contract: Any) -> VideoTextProcessor:
    return VideoTextProcessor(None, **{"num_frames": 8, "crop_size": 32, **contract})


def clip_list(*clips: Clip) -> ClipList:
    return ClipList(clips, NAMES)


# What a protocol may be


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"task": "guess"}, "task='guess'; choose one of classification, retrieval, multi_label."),
        ({"template_average": "mean"}, "template_average='mean'; choose one of probabilities, features."),
        ({"view_average": "mean"}, "view_average='mean'; choose one of probabilities, features."),
        ({"split_mean": "geometric"}, "split_mean='geometric'; choose one of arithmetic, harmonic."),
        ({"failed_clips": "right"}, "failed_clips='right'; choose one of left_out, wrong."),
        ({"sampling": "often"}, "sampling='often'; choose one of segments, uniform, dense"),
        ({"num_crops": 2}, "num_crops=2; choose one of 1, 3."),
        ({"version": 0}, "version=0 must be a whole number of at least 1."),
        ({"num_frames": 8.0}, "num_frames=8.0 must be a whole number of at least 1."),
        ({"stride": True}, "stride=True must be a whole number of at least 1."),
        ({"short_side": -1}, "short_side=-1 must be"),
        ({"crop_size": "big"}, "crop_size='big' must be"),
        ({"num_clips": 0}, "num_clips=0 must be"),
        (
            {"task": "multi_label", "failed_clips": "wrong"},
            "failed_clips='wrong' has no meaning where clips are ranked",
        ),
        ({"name": "a b"}, "the protocol name 'a b' holds more than letters, digits, dots, hyphens and _."),
        ({"classes": ("one",), "class_texts": ("a",)}, "classes must be at least two, each once; got ('one',)."),
        ({"classes": ("one", "one")}, "classes must be at least two, each once; got ('one', 'one')."),
        ({"class_texts": ("a",)}, "1 class_texts for 2 classes."),
        ({"class_texts": ("a", "a")}, "the classes ['running', 'waving'] have the same text, 'a'; give each its own"),
        ({"distractors": ("a", "a")}, "a distractor is there twice, 'a'; give each its own"),
        ({"distractors": ("to run",)}, "a distractor is there twice, 'to run'"),
        ({"templates": ()}, "templates=(): each needs {} once, for the class."),
        ({"templates": ("a {} {}",)}, "templates=('a {} {}',): each needs {} once"),
        ({"splits": ()}, "must have splits of different names; got []."),
        ({"splits": (Split("a"), Split("a"))}, "must have splits of different names; got ['a', 'a']."),
        ({"splits": (Split("a", classes=("jumping",)),)}, "a: ['jumping'] are none of its classes."),
        ({"listed_classes": ("running",)}, "the classes ['waving'] are none of listed_classes."),
        ({"listed_classes": (*NAMES, "running")}, "listed_classes names ['running'] twice; name each once."),
        ({"class_texts": ("Wave", "wave ")}, "have the same text, 'wave'; give each its own (class_texts), as"),
        ({"distractors": ("To  run",)}, "a distractor is there twice, 'to run'"),
        ({"splits": (Split("a", classes=("running",)),)}, "a: its classes=('running',) and the distractors are not"),
        ({"splits": (Split("a", classes=()),), "distractors": ("x", "y")}, "a: its classes=() and the distractors"),
        ({"num_crops": True}, "num_crops=True must be a whole number"),
        ({"name": 7}, "protocol 7: name=7 must be text; write it in quotes, as YAML reads bare yes, no, null"),
        ({"dataset": True}, "dataset=True must be text; write it in quotes"),
        ({"note": 1.5}, "note=1.5 must be text; write it in quotes"),
        ({"classes": "ab"}, "classes='ab' must be a list."),
        ({"class_texts": (True, False)}, "an entry of protocol 'mine': class_texts=True must be text"),
        ({"splits": (Split(1),)}, "the name of a split=1 must be text; write it in quotes"),  # type: ignore[arg-type]
        ({"splits": (Split("a", clips_sha256=12),)}, "a: clips_sha256=12 must be text"),  # type: ignore[arg-type]
    ],
    ids=str,
)
def test_what_is_no_protocol_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        protocol(**fields)


def test_candidates_and_texts_of_a_split_are_in_the_order_of_the_protocol() -> None:
    mine = protocol(
        classes=("a", "b", "c"),
        class_texts=("A", "B", "C"),
        distractors=("D",),
        splits=(Split("few", classes=("c", "a")), Split("all")),
        num_clips=4,
        num_crops=3,
    )
    few, every = mine.splits
    assert (mine.split_classes(few), mine.split_texts(few)) == (("a", "c"), ("A", "C", "D"))
    assert mine.split_texts(every) == ("A", "B", "C", "D")
    assert mine.views == "4x3"


def test_chance_is_that_of_all_splits_or_none() -> None:
    three = {"classes": ("a", "b", "c"), "class_texts": ("A", "B", "C")}
    assert protocol(**three, distractors=("D",), splits=(Split("1"), Split("2"))).chance == 1 / 4
    assert protocol(**three, splits=(Split("1"), Split("2", classes=("a", "b")))).chance is None
    assert protocol(**three, task="multi_label").chance is None


@pytest.mark.parametrize("views", ["4", "4x2", "0x1", "x3", "4x3x1", "04x1"])
def test_views_that_are_none_are_refused(views: str) -> None:
    assert parse_views("10x3") == {"num_clips": 10, "num_crops": 3}
    with pytest.raises(ValueError, match=f"views='{views}' is not understood; write clips x crops with 1 or 3 crops"):
        parse_views(views)


# What a model makes of it


def test_a_protocol_is_bound_to_the_frames_and_pixels_of_a_model() -> None:
    own = processor(num_frames=4, sampling="dense", stride=3, short_side=40, template="a video of {}")
    bound = protocol(num_frames=16).bound(protocol(num_frames=16).processor(own), [clip_list(*CLIPS)])
    used = (bound.num_frames, bound.sampling, bound.stride, bound.short_side, bound.crop_size, bound.templates)
    assert used == (16, "dense", 3, 40, 32, ("a video of {}",))
    assert bound.splits == (Split("all", (), None, 3, list_fingerprint(clip_list(*CLIPS))),)
    assert bound.bound(bound.processor(own), [clip_list(*CLIPS)]) == bound  # so a baseline can be given the same
    plain = protocol(templates=("{}",)).bound(processor(stride=3), [clip_list(*CLIPS)])
    assert (plain.stride, plain.templates) == (None, ("{}",))  # stride is for dense sampling alone


def test_a_protocol_leaves_what_belongs_to_a_model() -> None:
    own = processor(image_mean=[0.1] * 3, interpolation="bicubic", template="a video of {}")
    fitted = protocol(crop_size=48, short_side=64, sampling="uniform", templates=("{}",)).processor(own)
    changed = {"crop_size": 48, "short_side": 64, "sampling": "uniform"}
    assert fitted.contract == {**own.contract, **changed}


def hash_of(
    *, clips: tuple[Clip, ...] = CLIPS, texts: tuple[str, ...] = TEXTS, views: tuple[int, int] = (1, 1), **contract: Any
) -> str:
    dataset = EvalClips(clip_list(*clips), processor(**contract), num_clips=views[0], num_crops=views[1])
    return protocol_of(dataset, texts).sha256


def test_the_hash_of_clips_as_they_are_is_the_same_in_every_process_and_version() -> None:
    assert hash_of() == "71f00dca217eb9f24a14a43d1624f219e20429ffd5f5a2642d148e355d91b14f"


@pytest.mark.parametrize(
    "change",
    [
        {"clips": CLIPS[:2]},
        {"clips": (Clip("running/other.mp4", "x", 0), *CLIPS[1:])},
        {"clips": (Clip("running/a.mp4", "x", 1), *CLIPS[1:])},
        {"texts": ("to run", "to wave a hand")},
        {"texts": ("to wave", "to run")},
        {"template": "a video of {}"},
        {"num_frames": 16},
        {"sampling": "uniform"},
        {"sampling": "dense"},
        {"crop_size": 48},
        {"short_side": 64},
        {"views": (4, 1)},
        {"views": (1, 3)},
    ],
    ids=str,
)
def test_what_changes_the_number_changes_the_protocol(change: dict[str, Any]) -> None:
    assert hash_of(**change) != hash_of()


def test_the_stride_counts_where_sampling_looks_at_it() -> None:
    assert len({hash_of(sampling="dense", stride=2), hash_of(sampling="dense", stride=4)}) == 2


@pytest.mark.parametrize(
    "change",
    [
        {"clips": CLIPS[::-1]},
        {"clips": (Clip("running/a.mp4", "another copy", 0), *CLIPS[1:])},
        {"stride": 7},  # of segments there is none
        {"image_mean": [0.5] * 3, "image_std": [0.25] * 3, "interpolation": "bicubic"},
    ],
    ids=str,
)
def test_order_place_and_what_belongs_to_a_model_do_not(change: dict[str, Any]) -> None:
    assert hash_of(**change) == hash_of()


def test_clips_as_they_are_evaluated_in_training_and_after_it_have_one_protocol() -> None:
    dataset = EvalClips(clip_list(*CLIPS), processor(), num_clips=2)
    assert protocol_of(dataset, TEXTS) == own_clips(NAMES, TEXTS, num_clips=2).bound(processor(), [dataset.clips])


# Files


def written(folder: Path, name: str = "mine.yaml", **settings: Any) -> Path:
    path = folder / name
    path.write_text(yaml.safe_dump(settings), "utf-8")
    return path


def test_a_protocol_of_ones_own_names_what_it_needs(tmp_path: Path) -> None:
    found = load_protocol(written(tmp_path, "my-data.yaml", dataset="d", classes=["run", "wave"]))
    assert found == Protocol("my-data", 1, "d", ("run", "wave"), ("run", "wave"))


def test_short_forms_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("run\nwave\n")
    moves = "run: {characteristic: [the {legs} alternate]}\nwave: {characteristic: [a {hand} swings]}\n"
    (tmp_path / "moves.yaml").write_text(moves)
    settings = {"dataset": "d", "classes": str(tmp_path / "names.txt"), "templates": "clip_ucf101"}
    split = {"name": "one", "clips": "list.txt", "classes": ["wave", "run"], "num_clips": 2}
    mine = load_protocol(written(tmp_path, **settings, splits=[split, {"name": "two", "clips": ["a", "b"]}]))
    assert (mine.classes, mine.templates) == (("run", "wave"), load_templates("clip_ucf101"))
    assert mine.splits == (Split("one", ("list.txt",), ("wave", "run"), 2), Split("two", ("a", "b")))
    assert load_protocol(written(tmp_path, **{**settings, "templates": "a {} clip"})).templates == ("a {} clip",)

    ucf101 = load_label_list("ucf101")
    listed = {"dataset": "ucf101", "classes": "ucf101"}
    assert load_protocol(written(tmp_path, **listed)).class_texts == ucf101.spoken_names
    assert load_protocol(written(tmp_path, **listed, class_texts="names")).class_texts == ucf101.class_names
    texts = {"descriptions": "weizmann", "kind": "characteristic"}
    described = load_protocol(written(tmp_path, dataset="weizmann", classes="weizmann", class_texts=texts))
    assert described == replace(load_protocol("weizmann"), name="mine", **changes_to(described))
    distracting = {**texts, "classes": ["bend", "run"]}
    own_texts = load_protocol(written(tmp_path, **{**settings, "distractors": distracting}))
    assert own_texts.distractors == tuple(described.class_texts[described.classes.index(n)] for n in ("bend", "run"))


def changes_to(described: Protocol) -> dict[str, Any]:
    """The fields in which the file above differs from the shipped protocol: all but name, classes and data set."""
    names = ("class_texts", "num_frames", "sampling", "stride", "splits", "note", "templates", "version")
    return {name: getattr(described, name) for name in names}


def test_a_file_is_based_on_others_and_on_shipped_protocols(tmp_path: Path) -> None:
    written(tmp_path, "first.yaml", dataset="d", classes=["run", "wave"], num_frames=8, num_clips=4)
    mine = load_protocol(written(tmp_path, "second.yaml", base="first.yaml", num_frames=16, num_clips=None))
    assert (mine.name, mine.dataset, mine.num_frames, mine.num_clips) == ("second", "d", 16, 1)  # null: as by default
    shipped = load_protocol(written(tmp_path, base="weizmann", num_clips=4, num_crops=3))
    assert shipped == replace(load_protocol("weizmann"), name="mine", num_clips=4, num_crops=3)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"dataset": None}, "it does not say dataset."),
        ({"classes": None}, "it does not say classes."),
        ({"classes": "nowhere"}, "nowhere"),
        ({"classes": 3}, "classes=3 must be a list."),
        ({"num_frame": 8}, "unknown setting 'num_frame'; did you mean 'num_frames'?"),
        ({"class_texts": "short"}, "class_texts='short' is not understood; write names, spoken, a list, or a mapping"),
        ({"splits": {"name": "x"}}, "splits={'name': 'x'} must be a list."),
        ({"splits": [{"clips": "x"}]}, "a split is a mapping with a name and some of name, clips, classes, num_clips"),
        ({"splits": [{"name": "x", "clip": 3}]}, "got {'clip': 3, 'name': 'x'}."),
        ({"splits": [{"name": "x", "clips": 3}]}, "clips=3 must be a list."),
        ({"templates": "nothing"}, "nothing"),
        ({"templates": 3}, "templates=3 must be a list."),
        ({"class_texts": {"descriptions": "x", "kinds": "y"}}, "texts from descriptions have no setting 'kinds'; use"),
        (
            {"class_texts": {"descriptions": "weizmann", "kind": "discriminative"}, "classes": "weizmann"},
            "descriptions of kind discriminative, and one is its text.",
        ),
        ({"class_texts": {"kind": "characteristic"}}, "do not name their descriptions."),
        ({"distractors": {"descriptions": "weizmann"}}, "classes of distractors=None must be a list."),
        ({"distractors": "one text"}, "distractors='one text' must be a list."),
        ({"class_texts": [True, False]}, "an entry of class_texts=True must be text; write it in quotes, as YAML"),
        ({"classes": [None, 7]}, "an entry of classes=None must be text"),
        ({"listed_classes": ["a", "b", 7]}, "an entry of listed_classes=7 must be text"),
        ({"templates": [{"a video of": {}}]}, "an entry of templates={'a video of': {}} must be text"),
        ({"distractors": [7]}, "an entry of distractors=7 must be text"),
        ({"distractors": {"descriptions": "weizmann", "classes": [7]}}, "classes of distractors=7 must be text"),
        ({"splits": [{"name": "x", "clips": [7]}]}, "an entry of clips=7 must be text"),
        ({"splits": [{"name": "x", "classes": [7]}]}, "an entry of classes=7 must be text"),
        ({"splits": [{"name": 1}]}, "the name of a split=1 must be text"),
        ({"dataset": 101}, "dataset=101 must be text"),
        (
            {"class_texts": {"descriptions": "weizmann", "masked": "no"}, "classes": "weizmann"},
            "masked='no' must be true or false, without quotes.",
        ),
        ({"base": "weizman"}, "no protocol at"),
        ({"base": "mine.yaml"}, "is its own base"),
    ],
    ids=str,
)  # fmt: skip
def test_a_file_that_is_no_protocol_says_why(tmp_path: Path, settings: dict[str, Any], message: str) -> None:
    path = written(tmp_path, **{"dataset": "d", "classes": ["a", "b"], **settings})
    with pytest.raises((ValueError, FileNotFoundError), match=re.escape(message)) as caught:
        load_protocol(path)
    assert str(path) in str(caught.value) or "base" in settings


def test_a_name_that_is_none_names_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(
        FileNotFoundError, match=r"no protocol 'weizman'; did you mean 'weizmann'\?.*zero-shot-ucf101"
    ) as e:
        load_protocol("weizman")
    assert all(name in str(e.value) for name in shipped_protocols()) and "_weizmann" not in str(e.value)
    with pytest.raises(FileNotFoundError, match=f"no protocol at {tmp_path / 'none.yaml'}"):
        load_protocol(tmp_path / "none.yaml")


# Clips


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """<class>/<clip> and two lists of them; nothing is decoded."""
    for name in ("running/a.mp4", "running/b.mp4", "waving/c.mp4", "jumping/d.mp4"):
        (tmp_path / "data" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "data" / name).touch()
    (tmp_path / "lists").mkdir()
    lines = "running/a.mp4 running\njumping/d.mp4 jumping\nwaving/c.mp4 waving\n"
    (tmp_path / "lists/test.txt").write_text(lines)
    (tmp_path / "data/shows.csv").write_text(
        "path,label\nrunning/a.mp4,jumping;waving;running\njumping/d.mp4,jumping\n"
    )
    return tmp_path


LISTED = ("jumping", "running", "waving")


def labelled(clips: ClipList) -> list[tuple[str, int, tuple[int, ...]]]:
    return [(clip.clip_id, clip.label, clip.other_labels) for clip in clips.clips]


def test_a_split_holds_the_clips_of_its_candidates(data: Path) -> None:
    mine = protocol(
        classes=LISTED, class_texts=LISTED, splits=(Split("all"), Split("two", classes=("waving", "jumping")))
    )
    every, two = (read_split(mine, split, data_root=data / "data") for split in mine.splits)
    assert every.class_names == LISTED and len(every) == 4
    assert two.class_names == ("jumping", "waving")
    assert labelled(two) == [("jumping/d.mp4", 0, ()), ("waving/c.mp4", 1, ())]
    fewer = protocol(listed_classes=LISTED, splits=(Split("all", ("test.txt",)),))
    found = read_split(fewer, fewer.splits[0], data_root=data / "data", lists_root=data / "lists")
    assert (found.class_names, labelled(found)) == (NAMES, [("running/a.mp4", 0, ()), ("waving/c.mp4", 1, ())])
    assert found.clips[0].source == str(data / "data/running/a.mp4")


def test_a_clip_of_several_classes_counts_for_those_that_are_candidates(data: Path) -> None:
    mine = protocol(listed_classes=LISTED, task="multi_label", splits=(Split("all", ("shows.csv",)),))
    found = read_split(mine, mine.splits[0], data_root=data / "data")
    assert labelled(found) == [("running/a.mp4", 1, (0,))]  # its first class, jumping, is none


def test_the_first_list_that_is_there_counts(data: Path) -> None:
    mine = protocol(classes=LISTED, class_texts=LISTED, splits=(Split("all", ("none.txt", "test.txt", ".")),))
    (split,) = mine.splits
    assert len(read_split(mine, split, data_root=data / "data", lists_root=data / "lists")) == 3
    assert len(read_split(mine, split, data_root=data / "data")) == 4  # no list beside the data: their folders
    with pytest.raises(FileNotFoundError, match="data has no part 'test'"):  # found, as what may have parts
        read_split(mine, Split("part", ("data:test", "lists/test.txt")), data_root=data / "data", lists_root=data)


def test_clips_that_are_not_those_of_the_protocol_are_refused(data: Path) -> None:
    def read(split: Split, **fields: Any) -> ClipList:
        mine = protocol(classes=LISTED, class_texts=LISTED, splits=(split,), **fields)
        return read_split(mine, split, data_root=data / "data", lists_root=data / "lists", max_failed_share=0.5)

    fingerprint = list_fingerprint(read(Split("all", ("test.txt",))))
    assert len(read(Split("all", ("test.txt",), None, 3, fingerprint))) == 3
    with pytest.raises(FileNotFoundError, match=r"all: there is no list of its clips; looked for .*/x and .*/y\. Say"):
        read(Split("all", ("x", "y")))
    with pytest.raises(FileNotFoundError, match="looked for none, as none is named"):
        read(Split("all", ()))
    with pytest.raises(ValueError, match=r"protocol 'mine', all has 2 clips, .*test.txt lists 3: it is another list"):
        read(Split("all", ("test.txt",), None, 2))
    with pytest.raises(
        ValueError, match=rf"lists as many clips as the official list, .*{fingerprint[:12]}, wanted abc\)"
    ):
        read(Split("all", ("test.txt",), None, 3, "abc"))
    (data / "lists/other.txt").write_text("running/a.mp4 running\n")
    with pytest.raises(ValueError, match=r"protocol 'mine', few: .*other.txt lists no clip of its 2 classes\."):
        read(Split("few", ("other.txt",), classes=("waving", "jumping")))
    (data / "lists/gone.txt").write_text("running/a.mp4 running\nrunning/x.mp4 running\nrunning/y.mp4 running\n")
    with pytest.raises(FileNotFoundError, match="2 of"):
        read(Split("all", ("gone.txt",)))
