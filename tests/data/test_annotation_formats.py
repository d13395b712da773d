"""The annotation files of published data sets: which clips, which files, which classes; and every fault by its name."""

import json
import re
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from kinetext.data.annotation_formats import find_files
from kinetext.data.annotations import read_clips
from kinetext.data.clip_lists import ClipList
from kinetext.data.label_lists import load_label_list


def write(path: Path, *lines: str, end: str = "\n") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}{end}" for line in lines), "utf-8", newline="")
    return path


def touch(root: Path, *names: str) -> None:
    for name in names:
        write(root / name)


def labels(clips: ClipList) -> dict[str, str]:
    return {clip.clip_id: clips.class_names[clip.label] for clip in clips.clips}


def sources(clips: ClipList, root: Path) -> list[str]:
    return [Path(clip.source).relative_to(root).as_posix() for clip in clips.clips]


# ------------------------------------------------------------------------------------------------------ text lists

UCF = ("Swing/v_Swing_g01_c01.avi", "Archery/v_Archery_g08_c01.avi", "YoYo/v_YoYo_g01_c02.avi")
UCF_NAMES = {UCF[0]: "Swing", UCF[1]: "Archery", UCF[2]: "YoYo"}


def test_ucf101_lists_count_from_one_and_test_lists_have_no_labels(tmp_path: Path) -> None:
    touch(tmp_path / "UCF-101", *UCF)
    write(tmp_path / "ucf/trainlist01.txt", f"{UCF[0]} 3", f"{UCF[1]} 1", f"{UCF[2]} 2", end="\r\n")
    write(tmp_path / "ucf/testlist01.txt", *UCF)
    train = read_clips("ucf/trainlist01.txt", data_root=tmp_path)
    assert (train.class_names, labels(train)) == (("Archery", "YoYo", "Swing"), UCF_NAMES)
    assert sources(train, tmp_path / "UCF-101") == list(UCF)
    test = read_clips("ucf/testlist01.txt", data_root=tmp_path)
    assert (test.class_names, labels(test)) == (("Archery", "Swing", "YoYo"), UCF_NAMES)
    write(tmp_path / "ucf/classInd.txt", "1 Archery", "2 YoYo", "3 Swing", "")
    assert read_clips("ucf/testlist01.txt", data_root=tmp_path).class_names == train.class_names
    write(tmp_path / "ucf/trainlist01.txt", f"{UCF[0]} 89", f"{UCF[1]} 3", f"{UCF[2]} 101", end="\r\n")
    for name in ("trainlist01", "testlist01"):
        shipped = read_clips(f"ucf/{name}.txt", data_root=tmp_path, class_names=load_label_list("ucf101").class_names)
        assert labels(shipped) == {UCF[0]: "Swing", UCF[1]: "Archery", UCF[2]: "Yo Yo"}


def test_mmaction_lists_name_files_with_or_without_ending(tmp_path: Path) -> None:
    touch(
        tmp_path,
        "kick/a.avi",
        "kick_ball/b 1.MP4",
        "wave/c.webm",
        "wave/d.avi",
        "wave/d.mp4",
        "wave/e.avi",
        "wave/e.mp4",
    )
    lines = ("kick/a 408 0", "kick_ball/b 1 394 1", "wave/c.mp4 17 2", "wave/d.mp4 17 2", "wave/e 9 2")
    write(tmp_path / "list.txt", *lines)
    clips = read_clips("list.txt", data_root=tmp_path)
    assert clips.class_names == ("kick", "kick_ball", "wave")
    assert list(labels(clips).values()) == ["kick", "kick_ball", "wave", "wave", "wave"]
    assert list(labels(clips)) == [line.rsplit(" ", 2)[0] for line in lines]
    assert sources(clips, tmp_path) == ["kick/a.avi", "kick_ball/b 1.MP4", "wave/c.webm", "wave/d.mp4", "wave/e.avi"]


def test_xclip_lists_may_hold_spaces_and_index_the_class_list(tmp_path: Path) -> None:
    touch(tmp_path, "train/my clip 3.mp4", "train/b.mp4")
    write(tmp_path / "list.txt", "train/my clip 3.mp4 1", "", "train/b.mp4\t0")
    clips = read_clips("list.txt", data_root=tmp_path, class_names=["jump", "run", "walk"])
    assert labels(clips) == {"train/my clip 3.mp4": "run", "train/b.mp4": "jump"}
    message = f"{tmp_path / 'list.txt'} gives classes by their numbers (0, 1, ...): say which list they count in"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        read_clips("list.txt", data_root=tmp_path)
    write(tmp_path / "high.txt", "train/b.mp4 3")
    with pytest.raises(ValueError, match="train/b.mp4 has the class '3', which is none of the 3 classes"):
        read_clips("high.txt", data_root=tmp_path, class_names=["jump", "run", "walk"])


def test_lists_without_endings_and_frames_and_lists_of_names(tmp_path: Path) -> None:
    touch(tmp_path, "a.mp4", "clip 7.mp4")
    write(tmp_path / "bare.txt", "a 1", "clip 7 0")
    assert labels(read_clips("bare.txt", data_root=tmp_path, class_names=["x", "y"])) == {"a": "y", "clip 7": "x"}
    write(tmp_path / "named.txt", "a.mp4 kick ball", "clip 7.mp4 sword")
    assert labels(read_clips("named.txt", data_root=tmp_path)) == {"a.mp4": "kick ball", "clip 7.mp4": "sword"}


HMDB_TRAP = ("kick/a.avi 1 20", "kick_ball/b.avi 1 21", "sword/c.avi 1 44", "sword_exercise/d.avi 1 45")


def swapped_hmdb51() -> list[str]:
    """The classes in the order of ViFi-CLIP's label file (FACTS 8.2)."""
    names = list(load_label_list("hmdb51").class_names)
    names[20], names[21], names[44], names[45] = names[21], names[20], names[45], names[44]
    return names


def test_classes_in_another_order_than_a_list_counts_in_are_refused(tmp_path: Path) -> None:
    touch(tmp_path, *[line.split()[0] for line in HMDB_TRAP])
    path = write(tmp_path / "list.txt", *HMDB_TRAP)
    names = load_label_list("hmdb51").class_names
    clips = read_clips("list.txt", data_root=tmp_path, class_names=names)
    assert [clip.label for clip in clips.clips] == [20, 21, 44, 45]
    message = (
        f"{path}: kick/a.avi is in the folder 'kick' and has the number 20, and those in 'kick_ball' have 21, but "
        "among the classes given 'kick' is 21 and 'kick_ball' is 20. List and classes are in different orders: give "
        "the classes in the order that the list counts in"
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        read_clips("list.txt", data_root=tmp_path, class_names=swapped_hmdb51())
    write(tmp_path / "list.txt", *HMDB_TRAP[2:])
    with pytest.raises(ValueError, match="'sword' is 45 and 'sword_exercise' is 44"):
        read_clips("list.txt", data_root=tmp_path, class_names=swapped_hmdb51())
    by_itself = read_clips("list.txt", data_root=tmp_path)
    assert by_itself.class_names == ("sword", "sword_exercise")


@pytest.mark.parametrize("first", [0, 1, 17])
def test_lists_may_count_from_anywhere_and_leave_classes_out(tmp_path: Path, first: int) -> None:
    touch(tmp_path, "kick_ball/b.avi", "sword/c.avi", "wave/d.avi")
    lines = [f"{path} {first + place}" for place, path in enumerate(("kick_ball/b.avi", "sword/c.avi", "wave/d.avi"))]
    write(tmp_path / "list.txt", *lines)
    clips = read_clips("list.txt", data_root=tmp_path, class_names=load_label_list("hmdb51").class_names)
    assert list(labels(clips).values()) == ["kick ball", "sword", "wave"]


def test_a_number_that_means_another_class_than_the_folder_is_refused(tmp_path: Path) -> None:
    """Where folders and numbers do not even agree among themselves, the numbers count, so each must fit its folder."""
    touch(tmp_path, "kick/a.avi", "kick/b.avi", "wave/c.avi")
    path = write(tmp_path / "list.txt", "kick/a.avi 20", "kick/b.avi 21", "wave/c.avi 50")
    message = (
        f"{path}: kick/b.avi is in the folder 'kick' and has the number 21, which is 'kick ball' among the classes "
        "given, where 'kick' is 20. List and classes are in different orders: "
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        read_clips("list.txt", data_root=tmp_path, class_names=load_label_list("hmdb51").class_names)
    write(tmp_path / "list.txt", "kick/a.avi 20", "kick/b.avi 20", "wave/c.avi 20")
    with pytest.raises(ValueError, match=re.escape("wave/c.avi is in the folder 'wave' and has the number 20")):
        read_clips("list.txt", data_root=tmp_path, class_names=load_label_list("hmdb51").class_names)
    write(tmp_path / "list.txt", "kick/a.avi 20", "kick/b.avi 99", "wave/c.avi 50")
    with pytest.raises(ValueError, match="has the number 99, which is none of 51 among"):
        read_clips("list.txt", data_root=tmp_path, class_names=load_label_list("hmdb51").class_names)


def test_folders_that_are_no_class_say_nothing_about_numbers(tmp_path: Path) -> None:
    touch(tmp_path, "train/a.avi", "train/b.avi", "more/c.avi")
    write(tmp_path / "list.txt", "train/a.avi 20", "train/b.avi 21", "more/c.avi 50")
    clips = read_clips("list.txt", data_root=tmp_path, class_names=load_label_list("hmdb51").class_names)
    assert list(labels(clips).values()) == ["kick", "kick ball", "wave"]


def test_a_line_that_is_there_twice_counts_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    touch(tmp_path, "x/a.mp4", "x/b.mp4", "y/c.mp4")
    write(tmp_path / "list.txt", "x/a.mp4 0", "x/b.mp4 0", "x/./a.mp4 0", "y/c.mp4 1", "y/c.mp4 1")
    clips = read_clips("list.txt", data_root=tmp_path)
    assert labels(clips) == {"x/a.mp4": "x", "x/b.mp4": "x", "y/c.mp4": "y"}
    assert [record.getMessage() for record in caplog.records] == [
        "2 lines of the list repeat others and are left out, e.g. of the clip x/a.mp4."
    ]


def test_lines_of_one_clip_are_merged_in_lists_of_several_classes(tmp_path: Path) -> None:
    touch(tmp_path, "a.mp4", "b.mp4", "jump/c.mp4", "jump/d.mp4")
    lines = ("a.mp4 2", "b.mp4 1", "a.mp4 0", "a.mp4 2", "jump/c.mp4 0", "jump/c.mp4 1", "jump/d.mp4 2")
    write(tmp_path / "list.txt", *lines)
    names = ["jump", "run", "walk"]
    clips = read_clips("list.txt", data_root=tmp_path, class_names=names, multi_label=True)
    found = {clip.clip_id: (clip.label, clip.other_labels) for clip in clips.clips}
    assert found == {"a.mp4": (2, (0,)), "b.mp4": (1, ()), "jump/c.mp4": (0, (1,)), "jump/d.mp4": (2, ())}
    message = (
        "the clip 'a.mp4' is listed as 'walk' and as 'jump'; list every clip once. (A list in which clips show several "
        "classes is read with multi_label=True.)"
    )
    write(tmp_path / "list.txt", *lines[:4])
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        read_clips("list.txt", data_root=tmp_path, class_names=names)


def test_a_folder_that_is_no_class_is_an_error_where_others_are(tmp_path: Path) -> None:
    touch(tmp_path, "jump/a.mp4", "hop/b.mp4")
    write(tmp_path / "list.txt", "jump/a.mp4 0", "hop/b.mp4 1")
    with pytest.raises(ValueError, match=re.escape("hop/b.mp4 has the class 'hop', which is none of the 2 classes")):
        read_clips("list.txt", data_root=tmp_path, class_names=["jump", "run"])
    codes = read_clips("list.txt", data_root=tmp_path, class_names=["run", "walk"])  # no folder is a class
    assert labels(codes) == {"jump/a.mp4": "run", "hop/b.mp4": "walk"}


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ((), "{path} lists no clip."),
        (
            ("# comment", "more"),
            "{path}, line 1: '# comment' is no clip of a list; known lines are path frames label, ",
        ),
        (
            ("a.mp4 1", "b.mp4 2", "", "c.mp4"),
            "{path}, line 4: 'c.mp4' is no clip of a list; the others read as `path label`.",
        ),
        (("a.mp4", "x/b.mp4"), "{path} gives neither labels nor class folders: 'a.mp4'."),
        (
            ("x/a.mp4 run", "x/./a.mp4 jump"),
            "the clip 'x/a.mp4' is listed as 'run' and as 'jump'; list every clip once.",
        ),
    ],
)
def test_lists_that_do_not_fit_are_errors(tmp_path: Path, lines: tuple[str, ...], message: str) -> None:
    path = write(tmp_path / "list.txt", *lines)
    with pytest.raises(ValueError, match=f"^{re.escape(message.format(path=path))}"):
        read_clips(path, data_root=tmp_path)


def test_files_that_are_no_text_are_errors(tmp_path: Path) -> None:
    (tmp_path / "clip.mp4").write_bytes(b"\x00\x00\x00\x18ftyp\xff\xfe")
    with pytest.raises(ValueError, match=re.escape(f"{tmp_path / 'clip.mp4'} is no list of clips: it is not UTF-8")):
        read_clips("clip.mp4", data_root=tmp_path)


# ------------------------------------------------------------------------------------------------- shared splits


@pytest.mark.parametrize(
    ("data_set", "sizes"),
    [
        ("ucf101", {"train": (9537, 9586, 9624), "val": (3783, 3734, 3696)}),
        ("hmdb51", {"train": (3570, 3570, 3570), "val": (1530, 1530, 1530)}),
    ],
)
def test_published_splits_are_read_in_full(
    shared_dir: Path, tmp_path: Path, data_set: str, sizes: dict[str, tuple[int, ...]]
) -> None:
    names = load_label_list(data_set).class_names
    published = [name for name in (shared_dir / f"data/labels/{data_set}.txt").read_text().split("\n") if name]
    for side, split in ((side, split) for side in sizes for split in (1, 2, 3)):
        listing = shared_dir / f"data/splits/{data_set}_{side}_rgb_split_{split}.txt"
        lines = [line.rsplit(" ", 2) for line in listing.read_text().split("\n") if line]
        touch(tmp_path, *[f"{path}.avi" for path, _, _ in lines])
        clips = read_clips(listing, data_root=tmp_path, class_names=names)
        assert len(clips) == sizes[side][split - 1]
        assert [clip.label for clip in clips.clips] == [int(label) for _, _, label in lines]
        assert [published[clip.label] for clip in clips.clips] == [clip.clip_id.split("/")[0] for clip in clips.clips]
        assert read_clips(listing, data_root=tmp_path).class_names == tuple(published)
        if data_set == "hmdb51":
            with pytest.raises(ValueError, match="'kick' is 21 and 'kick_ball' is 20"):
                read_clips(listing, data_root=tmp_path, class_names=swapped_hmdb51())
    if data_set == "hmdb51":
        assert set(Counter(clip.label for clip in clips.clips).values()) == {30}


# -------------------------------------------------------------------------------------------------------- HMDB-51


def hmdb(root: Path) -> Path:
    for name, split in ((name, split) for name in ("kick", "kick_ball", "sword") for split in (1, 2, 3)):
        uses = [f"{name}_{clip} x.avi {(clip + split) % 3} " for clip in range(6)]
        write(root / f"splits/{name}_test_split{split}.txt", *uses)
        touch(root / "hmdb51_org", *[f"{name}/{name}_{clip} x.avi" for clip in range(6)])
    return root


def test_hmdb51_splits_say_which_clip_trains_and_which_tests(tmp_path: Path) -> None:
    hmdb(tmp_path)
    train, test = (read_clips(f"splits:{part}", data_root=tmp_path) for part in ("train1", "test1"))
    assert train.class_names == test.class_names == ("kick", "kick_ball", "sword")
    for clips, which in ((train, (0, 3)), (test, (1, 4))):
        assert labels(clips) == {f"{n}/{n}_{clip} x.avi": n for n in train.class_names for clip in which}
        assert sources(clips, tmp_path / "hmdb51_org") == [clip.clip_id for clip in clips.clips]
    others = [read_clips(f"splits:train{split}", data_root=tmp_path) for split in (2, 3)]
    assert len({frozenset(labels(clips)) for clips in (train, *others)}) == 3
    shipped = read_clips("splits:test1", data_root=tmp_path, class_names=load_label_list("hmdb51").class_names)
    assert {clip.label for clip in shipped.clips} == {20, 21, 44}


def test_hmdb51_faults(tmp_path: Path) -> None:
    hmdb(tmp_path)
    parts = "train1, train2, train3, test1, test2, test3"
    for part, shown in (("", None), (":train", "train"), (":train4", "train4")):
        message = (
            f"{tmp_path / 'splits'} has the parts {parts}, not {shown!r}; write e.g. {tmp_path / 'splits'}:train1."
        )
        with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
            read_clips(f"splits{part}", data_root=tmp_path)
    one = tmp_path / "splits/kick_test_split1.txt"
    message = f"{one} is a part of HMDB-51's splits; give its folder and which, e.g. {tmp_path / 'splits'}:train1."
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        read_clips(one, data_root=tmp_path)
    write(one, "a.avi 1", "b.avi 3")
    with pytest.raises(ValueError, match=re.escape(f"{one}, line 2: 'b.avi 3' is not a file followed by 0, 1 or 2.")):
        read_clips("splits:train1", data_root=tmp_path)
    for name in ("kick", "kick_ball", "sword"):
        write(tmp_path / f"splits/{name}_test_split1.txt", "a.avi 2")
    with pytest.raises(ValueError, match="splits lists no clip for train1."):
        read_clips("splits:train1", data_root=tmp_path)


# -------------------------------------------------------------------------------------------------------- Kinetics

KINETICS = (
    "label,youtube_id,time_start,time_end,split",
    '"eating spaghetti",---QUuC4vJs,84,94,train',
    '"massaging person\'s head",-0a_b,5,15,train',
    "zumba,0-,100000,100010.0,train",
)
KINETICS_IDS = ["---QUuC4vJs_000084_000094", "-0a_b_000005_000015", "0-_100000_100010"]


@pytest.mark.parametrize(
    "folders",
    [
        ("eating spaghetti/", "massaging person's head/", "zumba/"),
        ("eating_spaghetti/", "massaging_person's_head/", "zumba/"),
        ("", "", ""),
    ],
)
def test_kinetics_clips_are_found_by_id_and_times(tmp_path: Path, folders: tuple[str, ...]) -> None:
    write(tmp_path / "train.csv", *KINETICS)
    endings = (".mp4", ".mkv", ".webm")
    files = [folder + stem + ending for folder, stem, ending in zip(folders, KINETICS_IDS, endings, strict=True)]
    touch(tmp_path / "k400/train", *files)
    clips = read_clips(tmp_path / "train.csv", data_root=tmp_path / "k400")
    assert labels(clips) == dict(
        zip(KINETICS_IDS, ["eating spaghetti", "massaging person's head", "zumba"], strict=True)
    )
    assert sources(clips, tmp_path / "k400/train") == files
    shipped = load_label_list("kinetics400").class_names
    assert labels(read_clips(tmp_path / "train.csv", data_root=tmp_path / "k400", class_names=shipped)) == labels(clips)


def test_kinetics_faults(tmp_path: Path) -> None:
    path = write(tmp_path / "test.csv", "youtube_id,time_start,time_end,split", "abc,1,11,test")
    with pytest.raises(ValueError, match=re.escape(f"{path}: abc has no label; the test list of Kinetics cannot be")):
        read_clips(path, data_root=tmp_path)
    path = write(tmp_path / "odd.csv", KINETICS[0], "zumba,abc,soon,later,train")
    with pytest.raises(ValueError, match=re.escape(f"{path}: abc has times that are no numbers: could not convert")):
        read_clips(path, data_root=tmp_path)


# ----------------------------------------------------------------------------------------- Something-Something V2


def something(root: Path, entries: Any) -> Path:
    return write(root / "labels/train.json", json.dumps(entries))


SOMETHING = [
    {"id": "78687", "label": "holding potato next to vicks", "template": "Holding [something] next to [something]"},
    {"id": "42326", "label": "pushing a cup", "template": "Pushing [something] from left to right"},
]


def test_something_something_classes_are_templates_without_brackets(tmp_path: Path) -> None:
    something(tmp_path, SOMETHING)
    touch(tmp_path / "20bn-something-something-v2", "78687.webm", "42326.mp4")
    names = ["Pushing something from left to right", "Opening something", "Holding something next to something"]
    expected = {"78687": names[2], "42326": names[0]}
    with pytest.raises(ValueError, match=re.escape(f"there is no {tmp_path / 'labels/labels.json'}; put it there, or")):
        read_clips("labels/train.json", data_root=tmp_path)
    write(tmp_path / "labels/labels.json", json.dumps({names[2]: "2", names[0]: "0", names[1]: "1"}))
    clips = read_clips("labels/train.json", data_root=tmp_path)
    assert (labels(clips), clips.class_names) == (expected, tuple(names))
    assert sources(clips, tmp_path / "20bn-something-something-v2") == ["78687.webm", "42326.mp4"]
    shipped = read_clips("labels/train.json", data_root=tmp_path, class_names=load_label_list("ssv2").class_names)
    assert (labels(shipped), len(shipped.class_names)) == (expected, 174)


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ([{"id": "5"}], "{path}: 5 has no template; the test list of Something-Something cannot be used."),
        ({"5": 1}, "{path} is no list of clips with id and template, as Something-Something V2 is annotated."),
        ([], "{path} is no list of clips with id and template, as Something-Something V2 is annotated."),
        (["5"], "{path} is no list of clips with id and template, as Something-Something V2 is annotated."),
    ],
)
def test_other_json_files_are_errors(tmp_path: Path, entries: Any, message: str) -> None:
    path = something(tmp_path, entries)
    with pytest.raises(ValueError, match=f"^{re.escape(message.format(path=path))}$"):
        read_clips("labels/train.json", data_root=tmp_path)
    write(path, "{")
    with pytest.raises(ValueError, match=f"^{re.escape(str(path))} is no JSON: "):
        read_clips("labels/train.json", data_root=tmp_path)


# ----------------------------------------------------------------------------------------------------------- files


def test_files_are_looked_for_in_the_root_first_and_else_in_one_folder_of_it(tmp_path: Path) -> None:
    touch(tmp_path, "videos/x/a.avi", "other/y/b.avi")
    listed = [["x/a.avi"], ["x/none.avi"]]
    assert find_files(listed, tmp_path) == [str(tmp_path / "videos/x/a.avi"), str(tmp_path / "x/none.avi")]
    touch(tmp_path, "small/x/a.avi")
    message = (
        f"the listed clips lie in several folders of {tmp_path}: small, videos; set data_root to one of them and give "
        "the list by its whole path."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        find_files(listed, tmp_path)
    touch(tmp_path, "x/none.avi")
    assert find_files(listed, tmp_path) == [str(tmp_path / "x/a.avi"), str(tmp_path / "x/none.avi")]
    assert find_files([["a.avi"]], tmp_path / "nowhere") == [str(tmp_path / "nowhere/a.avi")]


def test_listed_files_that_are_missing_are_reported(tmp_path: Path) -> None:
    touch(tmp_path, "x/a.avi")
    write(tmp_path / "list.txt", "x/a 10 0", "y/b 10 1", "y/c 10 1")
    message = f"2 of the 3 clips that {tmp_path / 'list.txt'} lists are not on disk, e.g. {tmp_path / 'y/b'}, "
    with pytest.raises(FileNotFoundError, match=f"^{re.escape(message)}"):
        read_clips("list.txt", data_root=tmp_path)
    assert len(read_clips("list.txt", data_root=tmp_path, max_missing_share=0.7)) == 3


def test_a_root_that_holds_none_of_many_clips_is_searched_in_moments(tmp_path: Path) -> None:
    touch(tmp_path, *[f"class {index}/other.mp4" for index in range(200)])
    stems = [(f"class_{index % 200}", f"id{index:06d}_000000_000010") for index in range(20_000)]
    listed = [[f"{name}/{stem}.mp4", f"{stem}.mp4"] for name, stem in stems]
    start = time.process_time()
    assert find_files(listed, tmp_path)[0] == str(tmp_path / listed[0][0])
    assert time.process_time() - start < 5  # 20 s and more if every clip is looked for in every folder


def test_times_without_end_and_label_files_of_another_make_are_named(tmp_path: Path) -> None:
    path = write(tmp_path / "odd.csv", KINETICS[0], "zumba,abc,inf,10,train")
    with pytest.raises(ValueError, match=re.escape(f"{path}: abc has times that are no numbers: cannot convert")):
        read_clips(path, data_root=tmp_path)
    something(tmp_path, SOMETHING)
    for content in (["Pushing something"], {"Pushing something": "first"}, {"Pushing something": None}):
        beside = write(tmp_path / "labels/labels.json", json.dumps(content))
        with pytest.raises(ValueError, match=f"^{re.escape(str(beside))} does not map class names to numbers"):
            read_clips("labels/train.json", data_root=tmp_path)
