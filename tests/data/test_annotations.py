"""Lists of clips from folders, CSV files and datasets: what is read, in which order, and what is refused."""

import re
from pathlib import Path
from typing import Any

import pytest
from rendered_clips import render_clip

from kinetext import VideoTextProcessor
from kinetext.data.annotations import clips_from_csv, clips_from_folder, read_clips, text_of_class
from kinetext.data.clip_lists import Clip, ClipList
from kinetext.data.datasets import EvalClips, video_of
from kinetext.data.saved_datasets import clips_from_dataset, open_dataset


def touch(root: Path, *names: str) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def write_csv(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def ids_and_labels(clips: ClipList) -> list[tuple[str, int]]:
    return [(clip.clip_id, clip.label) for clip in clips.clips]


# -------------------------------------------------------------------------------------------------------- folders


def test_folders_are_classes_and_the_order_is_that_of_the_names(tmp_path: Path) -> None:
    touch(tmp_path, "wave/b.mp4", "wave/a.AVI", "jump/10.webm", "jump/9.gif", "jump/ä ö.mov")
    clips = clips_from_folder(tmp_path)
    assert clips.class_names == ("jump", "wave")
    assert ids_and_labels(clips) == [
        ("jump/10.webm", 0),
        ("jump/9.gif", 0),
        ("jump/ä ö.mov", 0),
        ("wave/a.AVI", 1),
        ("wave/b.mp4", 1),
    ]
    assert [clip.source for clip in clips.clips] == [str(tmp_path / clip.clip_id) for clip in clips.clips]
    assert len(clips) == 5


def test_what_is_no_clip_is_left_aside(tmp_path: Path) -> None:
    touch(tmp_path, "a/x.mp4", "a/notes.txt", "a/._x.mp4", ".cache/y.mp4", "z.mp4", "a/deep/z.mp4", "a/mp4")
    (tmp_path / "a/folder.mp4").mkdir()
    clips = clips_from_folder(tmp_path)
    assert (ids_and_labels(clips), clips.class_names) == ([("a/x.mp4", 0)], ("a",))


def test_given_class_names_fix_the_labels(tmp_path: Path) -> None:
    touch(tmp_path, "wave/a.mp4", "jump/b.mp4")
    clips = clips_from_folder(tmp_path, class_names=["wave", "run", "jump"])
    assert ids_and_labels(clips) == [("jump/b.mp4", 2), ("wave/a.mp4", 0)]
    assert clips.class_names == ("wave", "run", "jump")


def test_a_class_outside_the_list_is_an_error(tmp_path: Path) -> None:
    touch(tmp_path, "wave/a.mp4", "jump/b.mp4")
    message = "jump/b.mp4 has the class 'jump', which is none of the 2 classes ('wave', 'run')."
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        clips_from_folder(tmp_path, class_names=["wave", "run"])


def test_a_folder_without_clips_is_an_error(tmp_path: Path) -> None:
    touch(tmp_path, "x.mp4")
    with pytest.raises(ValueError, match=f"^{re.escape(str(tmp_path))} holds no video in the layout <class>/<clip>"):
        clips_from_folder(tmp_path)


def test_videos_and_folders_that_are_left_out_are_reported(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    touch(tmp_path, "a/x.mp4", "a/deep/y.mp4", "z.mp4", "docs/notes.txt", ".git/notes.txt")
    assert ids_and_labels(clips_from_folder(tmp_path)) == [("a/x.mp4", 0)]
    layout = "they are not in the layout <class>/<clip>"
    assert caplog.messages == [
        f"2 videos in {tmp_path} are left out, e.g. z.mp4: {layout}.",
        f"1 folders in {tmp_path} are no classes, e.g. docs: no video lies in them.",
    ]


def test_links_to_nowhere_are_reported_as_missing(tmp_path: Path) -> None:
    touch(tmp_path, "a/x.mp4", "b/x.mp4")
    (tmp_path / "a/y.mp4").symlink_to(tmp_path / "gone.mp4")
    with pytest.raises(FileNotFoundError, match=re.escape(f"1 of the 3 clips that {tmp_path} lists are not on disk")):
        read_clips(tmp_path)
    assert len(read_clips(tmp_path, max_missing_share=0.5)) == 3


@pytest.mark.parametrize("stray", ["download.tar", "original.tar.gz", "descriptions.parquet"])
def test_folders_of_classes_stay_such_beside_another_file(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, stray: str
) -> None:
    touch(tmp_path, "a/x.mp4", "b/x.mp4", stray)
    assert len(read_clips(tmp_path)) == 2
    assert caplog.messages == [f"{tmp_path} is read as a folder of <class>/<clip>, not its 1 data files: {stray}."]


# ------------------------------------------------------------------------------------------------------------ CSV


@pytest.mark.parametrize(
    "content",
    [
        "path,label\nb.mp4,wave\na b.mp4,jump\n",
        "path,label\nb.mp4,wave\na b.mp4,jump",  # no newline at the end
        b"\xef\xbb\xbfpath,label\r\nb.mp4,wave\r\na b.mp4,jump\r\n",
        "path , label \n b.mp4 , wave \n\n a b.mp4 , jump \n , \n\n",
        'label,split,path\nwave,1,"b.mp4"\njump,,"a b.mp4"\n',
    ],
    ids=["plain", "no last newline", "BOM and CRLF", "spaces and empty lines", "quotes and other columns"],
)
def test_csv_files_of_every_make_are_read_alike(tmp_path: Path, content: str | bytes) -> None:
    clips = clips_from_csv(write_csv(tmp_path / "list.csv", content), data_root=tmp_path / "videos")
    assert clips.clips == (  # in the order of the file
        Clip("b.mp4", str(tmp_path / "videos/b.mp4"), 1),
        Clip("a b.mp4", str(tmp_path / "videos/a b.mp4"), 0),
    )
    assert clips.class_names == ("jump", "wave")


def test_absolute_paths_in_a_csv_stay_as_they_are(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "list.csv", "path,label\n/videos/a.mp4,x\n")
    assert clips_from_csv(path, data_root=tmp_path).clips[0].source == "/videos/a.mp4"


def test_numbers_in_a_csv_are_indices_into_given_class_names(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "list.csv", "path,label\na,1\nb,0\nc,jump\n")
    clips = clips_from_csv(path, data_root="", class_names=["wave", "jump"])
    assert [clip.label for clip in clips.clips] == [1, 0, 1]


def test_a_class_that_is_called_like_a_number_is_meant_by_its_name(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "list.csv", "path,label\na,1\nb,0\nc,2\n")
    assert [c.label for c in clips_from_csv(path, data_root="", class_names=["1", "0", "x"]).clips] == [0, 1, 2]


def test_numbers_without_class_names_are_an_error(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "list.csv", "path,label\na,10\nb,0\nc,2\n")
    message = (
        f"{path} gives classes by their numbers (0, 2, 10, ...): say which list they count in, by `classes` in a "
        'recipe or class_names=load_label_list("ucf101").class_names.'
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        clips_from_csv(path, data_root="")
    with pytest.raises(ValueError, match=re.escape("the data set gives classes by their numbers (0, 2, ...)")):
        clips_from_dataset(make_dataset(["a.mp4", "b.mp4"], [2, 0]))


def test_classes_are_found_however_their_names_are_spelt(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "list.csv", "path,label\na,kick_ball\nb,Kick\nc,ApplyEyeMakeup\nd,a_b\ne,a-b\n")
    names = ["kick", "kick ball", "Apply Eye Makeup", "a-b", "a_b"]
    assert [clip.label for clip in clips_from_csv(path, data_root="", class_names=names).clips] == [1, 0, 2, 4, 3]
    either = write_csv(tmp_path / "either.csv", "path,label\na,a b\n")
    with pytest.raises(ValueError, match="a has the class 'a b', which is none of the 5 classes"):
        clips_from_csv(either, data_root="", class_names=names)


CSV_ENDING = (
    " or those of Kinetics, youtube_id,time_start,time_end. (A list without a first line is read if its name ends in "
    ".txt.)"
)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "{path} starts with []; its first line must name the columns path,label" + CSV_ENDING),
        (
            "a.mp4,wave\n",
            "{path} starts with ['a.mp4', 'wave']; its first line must name the columns path,label" + CSV_ENDING,
        ),
        (
            "path;label\na;b\n",
            "{path} starts with ['path;label']; its first line must name the columns path,label" + CSV_ENDING,
        ),
        ("path,label\n", "{path} lists no clip."),
        (
            "path,label\na,x\n\nb, \n",
            "{path}, line 4: path or label is empty: {{'path': 'b', 'label': ''}}.",
        ),
        (
            "path,label\n,x\n",
            "{path}, line 2: path or label is empty: {{'path': '', 'label': 'x'}}.",
        ),
        (
            "path,label\na\n",
            "{path}, line 2: 1 cells for the 2 columns ['path', 'label']: ['a']. "
            "Put a cell that holds a comma in double quotes.",
        ),
        (
            "path,label\nrun, then jump.mp4,x\n",
            "{path}, line 2: 3 cells for the 2 columns ['path', 'label']: ['run', 'then jump.mp4', 'x']. "
            "Put a cell that holds a comma in double quotes.",
        ),
        (
            "path,label\na,x\nb,x\na,y\n",
            "the clip 'a' is listed as 'x' and as 'y'; list every clip once. (A list in which clips show several "
            "classes is read with multi_label=True.)",
        ),
    ],
)
def test_a_csv_that_does_not_fit_is_an_error(tmp_path: Path, content: str, message: str) -> None:
    path = write_csv(tmp_path / "list.csv", content)
    with pytest.raises(ValueError, match=f"^{re.escape(message.format(path=path))}$"):
        clips_from_csv(path, data_root=tmp_path)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b'path,label\na,x\nb,"y\nc,z\n', ", line 4: unexpected end of data; is there a double quote too many?"),
        (b'path,label\na,"x\nb,"y\n', ", line 3: ',' expected after '\"'; is there a double quote too many?"),
        ("path,label\na,läuft\n".encode("latin-1"), " is no list of clips: it is not UTF-8 text ("),
        ("path,label\na,x\n".encode("utf-16"), " is no list of clips: it is not UTF-8 text ("),
    ],
    ids=["open to the end", "open to the next quote", "Latin-1", "UTF-16"],
)
def test_a_csv_that_cannot_be_read_is_named(tmp_path: Path, content: bytes, reason: str) -> None:
    path = write_csv(tmp_path / "list.csv", content)
    with pytest.raises(ValueError, match=f"^{re.escape(f'{path}{reason}')}"):
        clips_from_csv(path, data_root=tmp_path)


def test_paths_win_over_the_columns_of_kinetics(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "list.csv", "path,label,youtube_id,time_start,time_end\na.mp4,run,abc,0,10\n")
    assert clips_from_csv(path, data_root=tmp_path).clips == (Clip("a.mp4", str(tmp_path / "a.mp4"), 0),)


def test_one_file_in_two_spellings_is_one_clip(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "list.csv", "path,label\na/x.mp4,run\n./a/../a//x.mp4,jump\n")
    with pytest.raises(ValueError, match=re.escape("the clip 'a/x.mp4' is listed as 'run' and as 'jump'; list every")):
        clips_from_csv(path, data_root=tmp_path)


def test_numbers_in_a_csv_must_fit_the_class_folders(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "list.csv", "path,label\nkick/a.mp4,0\nkick_ball/b.mp4,1\nclips/c.mp4,0\n")
    named = clips_from_csv(path, data_root="", class_names=["kick", "kick ball"])
    assert [clip.label for clip in named.clips] == [0, 1, 0]
    message = (
        f"{path}: kick/a.mp4 is in the folder 'kick' and has the number 0, which is 'kick ball' among the classes "
        "given, where 'kick' is 1. List and classes are in different orders: "
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        clips_from_csv(path, data_root="", class_names=["kick ball", "kick"])
    called = clips_from_csv(path, data_root="", class_names=["1", "0", "kick", "kick ball"])  # names, not numbers
    assert [clip.label for clip in called.clips] == [1, 0, 1]


def test_a_csv_of_several_classes_has_semicolons_or_several_rows(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "list.csv", "path,label\na.mp4,run; wave ;run\nb.mp4,jump\nb.mp4,run\n")
    clips = clips_from_csv(path, data_root="", multi_label=True)
    assert clips.class_names == ("jump", "run", "wave")
    assert [(clip.clip_id, clip.label, clip.other_labels) for clip in clips.clips] == [
        ("a.mp4", 1, (2,)),
        ("b.mp4", 0, (1,)),
    ]
    numbered = write_csv(tmp_path / "numbered.csv", "path,label\na.mp4,1;0\n")
    assert clips_from_csv(numbered, data_root="", class_names=["run", "wave"], multi_label=True).clips == (
        Clip("a.mp4", "a.mp4", 1, other_labels=(0,)),
    )
    with pytest.raises(ValueError, match="gives classes by their numbers"):
        clips_from_csv(numbered, data_root="", multi_label=True)
    empty = write_csv(tmp_path / "empty.csv", "path,label\na.mp4,run;;wave\n")
    with pytest.raises(ValueError, match="the label 'run;;wave' of a.mp4 has an empty name between semicolons"):
        clips_from_csv(empty, data_root="", multi_label=True)
    assert clips_from_csv(empty, data_root="").class_names == ("run;;wave",)


def test_a_list_of_kinetics_may_give_clips_several_classes(tmp_path: Path) -> None:
    row = "abc,0,10\n"
    path = write_csv(tmp_path / "list.csv", f"label,youtube_id,time_start,time_end\nrun,{row}wave,{row}")
    (clip,) = clips_from_csv(path, data_root=tmp_path, multi_label=True).clips
    assert (clip.label, clip.other_labels) == (0, (1,))
    with pytest.raises(ValueError, match="is listed as 'run' and as 'wave'"):
        clips_from_csv(path, data_root=tmp_path)


def test_classes_that_differ_in_case_alone_are_an_error(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "list.csv", "path,label\na,Run\nb,run\nc,jump\n")
    message = "the classes 'Run' and 'run' differ in case alone; write them alike, or give both in class_names."
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        clips_from_csv(path, data_root=tmp_path)
    assert [clip.label for clip in clips_from_csv(path, data_root="", class_names=["run", "Run", "jump"]).clips] == [
        1,
        0,
        2,
    ]


@pytest.mark.parametrize("label", ["3", "-1", "²", "wave jump"])
def test_a_label_that_is_neither_class_nor_index_is_an_error(tmp_path: Path, label: str) -> None:
    path = write_csv(tmp_path / "list.csv", f"path,label\na,{label}\n")
    message = f"a has the class {label!r}, which is none of the 3 classes ('run', 'wave', 'jump')."
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        clips_from_csv(path, data_root="", class_names=["run", "wave", "jump"])


# ------------------------------------------------------------------------------------------------------- datasets


def make_dataset(videos: list[Any], labels: list[Any], label_feature: Any = None, *, decode: bool = True) -> Any:
    datasets = pytest.importorskip("datasets")
    dataset = datasets.Dataset.from_dict({"video": videos, "label": labels})
    dataset = dataset.cast_column("video", datasets.Video(decode=decode))
    return dataset if label_feature is None else dataset.cast_column("label", label_feature)


def test_datasets_give_clips_that_are_read_when_they_are_needed(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    path = render_clip(tmp_path / "a.mp4", 6)
    dataset = make_dataset([str(path), str(path)], [1, 0], datasets.ClassLabel(names=["wave", "jump"]))
    clips = clips_from_dataset(dataset)
    assert ids_and_labels(clips) == [("00000000", 1), ("00000001", 0)]
    assert clips.class_names == ("wave", "jump")
    value = video_of(clips.clips[0])
    assert value["path"] == str(path)
    processor = VideoTextProcessor(num_frames=2, crop_size=16)
    by_dataset, by_path = EvalClips(clips, processor)[1], EvalClips(clips_of(path), processor)[0]
    assert by_dataset["pixel_values"].equal(by_path["pixel_values"])


def clips_of(*paths: Path) -> ClipList:
    return ClipList(tuple(Clip(path.name, str(path), 0) for path in paths), ("a",))


def test_datasets_with_class_names_or_plain_numbers_as_labels() -> None:
    by_name = clips_from_dataset(make_dataset(["a.mp4", "b.mp4"], ["wave", "jump"], decode=False))
    assert (by_name.class_names, [clip.label for clip in by_name.clips]) == (("jump", "wave"), [1, 0])
    numbered = make_dataset(["a.mp4", "b.mp4"], [2, 0])
    by_number = clips_from_dataset(numbered, class_names=["run", "wave", "jump"])
    assert (by_number.class_names, [clip.label for clip in by_number.clips]) == (("run", "wave", "jump"), [2, 0])


def test_class_names_given_beside_a_class_label_are_matched_by_name() -> None:
    datasets = pytest.importorskip("datasets")
    dataset = make_dataset(["a.mp4", "b.mp4"], [1, 0], datasets.ClassLabel(names=["wave", "jump"]))
    clips = clips_from_dataset(dataset, class_names=["jump", "run", "wave"])
    assert [clip.label for clip in clips.clips] == [0, 2]


def test_columns_can_be_named_and_missing_ones_are_errors() -> None:
    dataset = make_dataset(["a.mp4"], ["x"]).rename_columns({"video": "clip", "label": "action"})
    assert len(clips_from_dataset(dataset, video_column="clip", label_column="action")) == 1
    with pytest.raises(ValueError, match=re.escape("the dataset has the columns ['clip', 'action'], none is 'video'.")):
        clips_from_dataset(dataset)
    with pytest.raises(ValueError, match=re.escape("the dataset has the columns ['clip', 'action'], none is 'label'.")):
        clips_from_dataset(dataset, video_column="clip")


# ------------------------------------------------------------------------------------------ read_clips and splits


def test_read_clips_recognises_what_it_is_given(tmp_path: Path) -> None:
    touch(tmp_path, "folder/wave/a.mp4")
    write_csv(tmp_path / "list.csv", "path,label\nfolder/wave/a.mp4,wave\n")
    make_dataset([str(tmp_path / "folder/wave/a.mp4")], ["wave"]).save_to_disk(tmp_path / "saved")
    by_folder = read_clips("folder", data_root=tmp_path)
    by_csv = read_clips("list.csv", data_root=tmp_path)
    by_dataset = read_clips("saved", data_root=tmp_path)
    assert {clips.class_names for clips in (by_folder, by_csv, by_dataset)} == {("wave",)}
    assert by_folder.clips[0].source == by_csv.clips[0].source == str(tmp_path / "folder/wave/a.mp4")
    assert video_of(by_dataset.clips[0]) == {"bytes": b"", "path": "a.mp4"}  # save_to_disk takes the files in
    assert read_clips(tmp_path / "folder") == by_folder


def test_read_clips_names_the_path_that_does_not_exist(tmp_path: Path) -> None:
    message = f"no clips at {tmp_path / 'none'}; give a folder of <class>/<clip>, a CSV file with path,label, an annota"
    for source in ("none", "none:train"):
        with pytest.raises(FileNotFoundError, match=f"^{re.escape(message.replace('none', source))}"):
            read_clips(source, data_root=tmp_path)
    touch(tmp_path, "folder/wave/a.mp4")
    with pytest.raises(FileNotFoundError, match="folder has no part 'train': it is a folder of <class>/<clip>"):
        read_clips("folder:train", data_root=tmp_path)


def test_listed_clips_that_are_not_on_disk_are_reported(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    touch(tmp_path, *[f"{index}.mp4" for index in range(18)])
    rows = "".join(f"{index}.mp4,x\n" for index in range(20))
    write_csv(tmp_path / "list.csv", f"path,label\n{rows}")
    clips = read_clips("list.csv", data_root=tmp_path)  # a tenth: as many as may be missing
    assert [clip.clip_id for clip in clips.clips] == [f"{index}.mp4" for index in range(20)]
    report = (
        f"2 of the 20 clips that {tmp_path / 'list.csv'} lists are not on disk, e.g. {tmp_path / '18.mp4'}, "
        f"{tmp_path / '19.mp4'}: "
    )
    assert caplog.messages == [
        f"{report}training replaces them by clips of their class, evaluation counts them as failed."
    ]
    message = f"{report}more than max_failed_share=0.05 of them. Set data_root to where they are, list what is there"
    with pytest.raises(FileNotFoundError, match=f"^{re.escape(message)}"):
        read_clips("list.csv", data_root=tmp_path, max_missing_share=0.05)
    with pytest.raises(FileNotFoundError, match="20 of the 20 clips"):
        (tmp_path / "other").mkdir()
        read_clips(tmp_path / "list.csv", data_root=tmp_path / "other", max_missing_share=1.0)


def test_saved_splits_and_parquet_files_are_named_and_read(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    path = render_clip(tmp_path / "a.mp4", 4)
    rows = make_dataset([{"bytes": path.read_bytes(), "path": "a.mp4"}], ["wave"], decode=False)
    datasets.DatasetDict({"train": rows, "test": rows}).save_to_disk(tmp_path / "saved")
    (tmp_path / "parquet").mkdir()
    rows.to_parquet(tmp_path / "parquet/0.parquet")
    processor = VideoTextProcessor(num_frames=2, crop_size=16)
    expected = EvalClips(clips_of(path), processor)[0]["pixel_values"]
    for source in ("saved:test", "parquet"):
        clips = read_clips(source, data_root=tmp_path)
        assert (ids_and_labels(clips), clips.class_names) == ([("00000000", 0)], ("wave",))
        assert EvalClips(clips, processor)[0]["pixel_values"].equal(expected)
    for source, message in (
        ("saved", "saved has the splits train, test; write which one, e.g. "),
        ("saved:dev", "saved has the splits train, test; write which one, e.g. "),
    ):
        with pytest.raises(ValueError, match=re.escape(message)):
            read_clips(source, data_root=tmp_path)
    rows.save_to_disk(tmp_path / "plain")
    with pytest.raises(ValueError, match="plain has no splits; leave :test out."):
        read_clips("plain:test", data_root=tmp_path)
    with pytest.raises(FileNotFoundError, match="none is no data set; give hub:owner/name, a saved one or parquet"):
        open_dataset("none", data_root=tmp_path)


@pytest.mark.parametrize("streaming", [False, True])
def test_splits_of_parquet_files_are_told_apart_by_their_names(tmp_path: Path, streaming: bool) -> None:
    (tmp_path / "parquet").mkdir()
    video = {"bytes": b"v", "path": "v.mp4"}
    train, validation = (make_dataset([video] * n, ["x"] * n, decode=False) for n in (2, 1))
    train.to_parquet(tmp_path / "parquet/train-00000-of-00001.parquet")
    validation.to_parquet(tmp_path / "parquet/validation-00000-of-00001.parquet")

    touch(tmp_path / "parquet", "README.md", "test.csv", "notes.csv")  # which are no data of it

    def rows(source: str) -> int:
        return sum(1 for _ in open_dataset(source, data_root=tmp_path, streaming=streaming).select_columns("label"))

    assert (rows("parquet:train"), rows("parquet:validation")) == (2, 1)
    with pytest.raises(ValueError, match="parquet has the splits train, validation; write which one, e.g. "):
        rows("parquet")
    (tmp_path / "parquet/validation-00000-of-00001.parquet").unlink()
    assert rows("parquet") == 2  # the only split is meant


def test_data_sets_of_the_hub_are_read_by_their_id(tmp_path: Path, hub_client: Any) -> None:
    path = render_clip(tmp_path / "a.mp4", 4)
    push = (
        "import datasets\n"
        "names = datasets.ClassLabel(names=['b', 'a'])\n"
        "features = datasets.Features({'video': datasets.Video(decode=False), 'label': names})\n"
        f"row = {{'video': {{'bytes': open({str(path)!r}, 'rb').read(), 'path': 'a.mp4'}}, 'label': 0}}\n"
        "for split in ('train', 'test'):\n"
        "    rows = datasets.Dataset.from_list([row] * (1 + (split == 'test')), features=features)\n"
        "    rows.push_to_hub('alice/clips', split=split)\n"
    )
    hub_client.run("-c", push, HF_HUB_DISABLE_XET="1")
    read = (
        "from kinetext.data.annotations import read_clips\n"
        "from kinetext.data.datasets import video_of\n"
        "for source in ('hub:alice/clips', 'hub:alice/clips:test'):\n"
        "    clips = read_clips(source, data_root='/nowhere')\n"
        "    value = video_of(clips.clips[0])\n"
        "    print(len(clips), clips.class_names, clips.clips[0].label, len(value['bytes']), value['path'])\n"
    )
    size = path.stat().st_size
    output = hub_client.run("-c", read, cache="other", HF_HUB_DISABLE_XET="1")
    assert output.splitlines() == [f"{n} ('b', 'a') 0 {size} a.mp4" for n in (1, 2)]


@pytest.mark.parametrize("label", [-1, None])
def test_clips_without_a_label_are_errors(label: int | None) -> None:
    datasets = pytest.importorskip("datasets")
    dataset = make_dataset(["a.mp4", "b.mp4"], [0, label], datasets.ClassLabel(names=["wave", "jump"]))
    message = f"the data set has a clip with the label {label}, which is no class; leave such clips out."
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        clips_from_dataset(dataset)


NAMED = ClipList(
    tuple(Clip(f"{c}/{who}_{c}.avi", "", label) for label, c in enumerate(("jump", "wave")) for who in ("eli", "ira")),
    ("jump", "wave"),
)


def test_split_by_name_keeps_order_and_classes() -> None:
    rest, held_out = NAMED.split_by_name(["eli_*"])
    assert [clip.clip_id for clip in rest.clips] == ["jump/ira_jump.avi", "wave/ira_wave.avi"]
    assert [clip.clip_id for clip in held_out.clips] == ["jump/eli_jump.avi", "wave/eli_wave.avi"]
    assert rest.class_names == held_out.class_names == NAMED.class_names
    rest, held_out = NAMED.split_by_name(["ira_wave.avi", "eli_w*"])
    assert [clip.clip_id for clip in held_out.clips] == ["wave/eli_wave.avi", "wave/ira_wave.avi"]


@pytest.mark.parametrize(
    ("patterns", "message"),
    [
        (["eli_*", "moshe_*"], "hold-out pattern 'moshe_*' matches no file, e.g. not 'jump/eli_jump.avi'."),
        (["eli_*", "ira_*"], "hold-out patterns ['eli_*', 'ira_*'] match every clip; nothing is left to train on."),
    ],
)
def test_splits_that_leave_a_side_empty_are_errors(patterns: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        NAMED.split_by_name(patterns)


def test_a_clip_list_holds_every_clip_once() -> None:
    with pytest.raises(ValueError, match=re.escape("the clip 'a' is listed twice; list every clip once.")):
        ClipList((Clip("a", "x", 0), Clip("a", "y", 0)), ("c",))


def test_text_of_class_reads_as_words() -> None:
    names = {"clean_and_jerk": "clean and jerk", "push-up": "push up", "_wave_": "wave", "Tai Chi": "Tai Chi"}
    assert {name: text_of_class(name) for name in names} == names
