"""Label lists: the shipped ones, files, data sets, and what is refused."""

from pathlib import Path

import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, Value

from kinetext.data.label_lists import load_label_list, shipped_label_lists

PUBLISHED = {"hmdb51": 51, "kinetics400": 400, "kinetics600": 600, "ssv2": 174, "ucf101": 101}
DRAWS = {f"kinetics600_zero_shot_test{draw}": 160 for draw in (1, 2, 3)}
SIZES = {**PUBLISHED, **DRAWS, "kinetics600_zero_shot": 220, "weizmann": 10}


def written(path: Path, content: str) -> Path:
    path.write_bytes(content.encode())
    return path


def test_the_shipped_lists_have_their_classes() -> None:
    assert {name: len(load_label_list(name).class_names) for name in shipped_label_lists()} == SIZES


def test_hmdb51_has_the_order_of_its_split_files() -> None:
    names = load_label_list("hmdb51").class_names
    assert [names[index] for index in (20, 21, 44, 45)] == ["kick", "kick ball", "sword", "sword exercise"]


def test_shipped_lists_agree_with_the_published_files(shared_dir: Path) -> None:
    for name in PUBLISHED:
        published = (shared_dir / f"data/labels/{name}.txt").read_text("utf-8").split("\n")
        squeezed = [line.replace("_", "").replace(" ", "") for line in published if line]
        assert [own.replace(" ", "") for own in load_label_list(name).class_names] == squeezed


def test_a_shipped_list_in_another_order_is_read_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    names = list(load_label_list("hmdb51").class_names)
    load_label_list(written(tmp_path / "same.txt", "\n".join(name.replace(" ", "_") for name in names)))
    load_label_list(written(tmp_path / "fewer.txt", "\n".join(reversed(names[:40]))))
    assert not caplog.records
    names[20], names[21] = names[21], names[20]
    path = written(tmp_path / "hmdb_51_labels.csv", "\n".join(["id,name", *(f"{i},{n}" for i, n in enumerate(names))]))
    assert load_label_list(path).class_names == tuple(names)
    assert [record.getMessage() for record in caplog.records] == [
        f"{path} has the classes of hmdb51 in another order than kinetext: 20 is 'kick ball' there and 'kick' here. "
        "Labels that are numbers mean other classes in the one than in the other."
    ]


def test_weizmann_has_words_for_its_folder_names() -> None:
    listed = load_label_list("weizmann")
    assert dict(zip(listed.class_names, listed.spoken_names, strict=True))["pjump"] == "jumping in place"
    assert load_label_list("ssv2").spoken_names == load_label_list("ssv2").class_names


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.txt", "waving\n\n hand stand \r\njump, high"),
        ("a.txt", "\ufeffwaving\nhand stand\njump, high\n"),
        ("a.csv", 'id,name\r\n0,waving\r\n1,hand stand\r\n2,"jump, high"\r\n'),
        ("a.csv", 'Label,clips\nwaving,4\nhand stand,5\n"jump, high",6\n'),
        ("a.csv", '1,waving\n2,hand stand\n3,"jump, high"\n'),
        ("a.csv", 'waving\nhand stand\n"jump, high"\n'),
        ("a.csv", 'name,clips,label\nwaving,7,0\nhand stand,9,1\n"jump, high",3,2\n'),
        ("a.csv", 'id,name\nn02,waving\nn01,hand stand\nn03,"jump, high"\n'),
        ("a.txt", "1 waving\r\n2 hand stand\r\n3 jump, high\r\n"),
        ("a.txt", "0\twaving\n1\thand stand\n2\tjump, high\n"),
    ],
)
def test_text_and_csv_files_are_read(name: str, content: str, tmp_path: Path) -> None:
    listed = load_label_list(written(tmp_path / name, content))
    assert (listed.name, listed.class_names) == ("a", ("waving", "hand stand", "jump, high"))


def test_numbers_that_count_nothing_belong_to_the_names(tmp_path: Path) -> None:
    names = ("3 point shot", "100 m sprint")
    assert load_label_list(written(tmp_path / "a.txt", "\n".join(names))).class_names == names


def test_spoken_names_stand_after_a_tab_in_text_files_alone(tmp_path: Path) -> None:
    assert load_label_list(written(tmp_path / "a.txt", "wave1\twaving\n")).spoken_names == ("waving",)
    with pytest.raises(ValueError, match="has a line break or another control character"):
        load_label_list(written(tmp_path / "a.csv", "name\nwave1\twaving\n"))


def test_shipped_name_that_is_also_a_file_or_a_data_set_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ucf101").mkdir()  # as of `describe ucf101 --out ucf101`, which may go on
    assert len(load_label_list("ucf101").class_names) == 101
    features = Features({"label": ClassLabel(names=["wave", "run"])})
    Dataset.from_dict({"label": [1]}, features=features).save_to_disk("ucf101")
    written(tmp_path / "ssv2", "wave")
    for name, own in (("ucf101", 2), ("ssv2", 1)):
        with pytest.raises(ValueError, match=rf"'{name}' is shipped with kinetext, .* write '\./{name}'"):
            load_label_list(name)
        assert len(load_label_list(f"./{name}").class_names) == own


@pytest.mark.parametrize("split", [True, False])
def test_the_class_label_of_a_saved_data_set_is_read(split: bool, tmp_path: Path) -> None:
    features = Features({"text": Value("string"), "label": ClassLabel(names=["wave", "run"])})
    data = Dataset.from_dict({"text": ["a"], "label": [1]}, features=features)
    (DatasetDict({"train": data}) if split else data).save_to_disk(str(tmp_path / "moves"))
    assert load_label_list(tmp_path / "moves").class_names == ("wave", "run")


def test_a_data_set_without_a_class_label_is_refused(tmp_path: Path) -> None:
    Dataset.from_dict({"label": [1]}).save_to_disk(str(tmp_path / "moves"))
    with pytest.raises(ValueError, match=r"moves has 0 ClassLabel columns \(none\)"):
        load_label_list(tmp_path / "moves")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", "\n \n", "the label list a is empty"),
        ("a.csv", "", "the label list a is empty"),
        ("a.txt", "push up\nPush-Up\n", "'push up' and 'Push-Up', the same class"),
        ("a.txt", "wave\n--\n", "'--', which has no letter"),
        ("a.csv", "0,wave\n2,run\n", "do not count from 0 or 1"),
        ("a.csv", "id,name\n2,run\n0,walk\n1,jump\n", "do not count from 0 or 1"),
        ("a.csv", "name,label\nrun,1\nwalk,0\n", "do not count from 0 or 1"),
        ("a.txt", "2 run\n1 walk\n", "do not count from 0 or 1"),
        ("a.csv", 'name\n"abc\ndef\nghi\n', "line 4: unexpected end of data"),
        ("a.csv", f"name\n{'b' * 200_000}\n", "line 2: field larger than field limit"),
        ("a.csv", "x,y,z\n1,2,3\n", "3 columns and none is called name"),
        ("a.csv", "id,name\n0,\n", "has no class name"),
    ],
)
def test_what_is_no_label_list_is_refused(name: str, content: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        load_label_list(written(tmp_path / name, content))


def test_latin_1_and_missing_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes("fl\xf6te".encode("latin-1"))
    with pytest.raises(ValueError, match="not UTF-8"):
        load_label_list(tmp_path / "a.txt")
    with pytest.raises(FileNotFoundError, match="shipped lists are: hmdb51, kinetics400"):
        load_label_list("ucf100")
