"""The protocols that come with kinetext: their hashes, their lists against the published ones, what each fixes.

`protocol_hashes.json` holds version and SHA-256 of each. A protocol whose hash changes gives numbers that do not
compare with those that people have: change it back, or raise its version and write the file anew:

    .venv/bin/python tests/evaluation/test_protocols_shipped.py
"""

import dataclasses
import json
import os
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kinetext.data.annotation_formats import clips_from_list
from kinetext.data.class_facts import overlapping_classes, zero_shot_splits
from kinetext.data.clip_lists import Clip, ClipList
from kinetext.data.label_lists import load_label_list
from kinetext.data.list_facts import list_fingerprint
from kinetext.data.prompt_templates import load_templates
from kinetext.descriptions import load_descriptions
from kinetext.evaluation.protocol import Protocol, Split, load_protocol, read_split, shipped_protocols

HASHES = Path(__file__).with_name("protocol_hashes.json")
TEST_SIZES = {"ucf101": (3783, 3734, 3696), "hmdb51": (1530, 1530, 1530)}


def current_hashes() -> dict[str, dict[str, Any]]:
    protocols = [load_protocol(name) for name in shipped_protocols()]
    return {protocol.name: {"version": protocol.version, "sha256": protocol.sha256} for protocol in protocols}


def write_hashes() -> None:
    HASHES.write_text(json.dumps(current_hashes(), indent=2) + "\n")


# ---------------------------------------------------------------------------------------------------------- hashes


def test_hashes_are_those_that_numbers_were_published_with() -> None:
    assert current_hashes() == json.loads(HASHES.read_text())


def test_hashes_differ() -> None:
    assert len({entry["sha256"] for entry in current_hashes().values()}) == len(shipped_protocols())


def test_hashes_are_the_same_in_another_process(tmp_path: Path) -> None:
    code = (
        "from kinetext.evaluation.protocol import load_protocol as load\n"
        "print([load(name).sha256 for name in ('zero-shot-ucf101-clip', 'zero-shot-kinetics600-train')])"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "7", "LC_ALL": "C", "PYTHONPATH": os.getcwd()}
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True)
    golden = json.loads(HASHES.read_text())
    wanted = [golden[name]["sha256"] for name in ("zero-shot-ucf101-clip", "zero-shot-kinetics600-train")]
    assert done.stdout.strip() == str(wanted), done.stderr


SPLIT = Split("all", clips=("list.txt",), classes=("run", "wave"), num_clips=5, clips_sha256="ab")
PROTOCOL = Protocol(
    name="own",
    version=1,
    dataset="own",
    classes=("run", "wave"),
    class_texts=("running", "waving"),
    listed_classes=("run", "wave", "walk"),
    sampling="dense",
    stride=2,
    splits=(SPLIT,),
)
CHANGES: dict[str, Any] = {
    "name": "another",
    "version": 2,
    "dataset": "another",
    "classes": ("wave", "run"),
    "class_texts": ("waving", "running"),
    "task": "retrieval",
    "listed_classes": None,
    "distractors": ("walking",),
    "templates": ("a video of {}",),
    "template_average": "features",
    "num_frames": 8,
    "sampling": "segments",
    "stride": 3,
    "short_side": 256,
    "crop_size": 224,
    "num_clips": 4,
    "num_crops": 3,
    "view_average": "features",
    "failed_clips": "wrong",
    "split_mean": "harmonic",
    "splits": (SPLIT, Split("more")),
}
SPLIT_CHANGES: dict[str, Any] = {
    "name": "another",
    "clips": ("other.txt",),
    "classes": None,
    "num_clips": 6,
    "clips_sha256": "cd",
}


@pytest.mark.parametrize("field", [field.name for field in dataclasses.fields(Protocol) if field.name != "note"])
def test_changing_any_field_changes_the_hash(field: str) -> None:
    assert replace(PROTOCOL, **{field: CHANGES[field]}).sha256 != PROTOCOL.sha256


@pytest.mark.parametrize("field", [field.name for field in dataclasses.fields(Split)])
def test_changing_any_field_of_a_split_changes_the_hash(field: str) -> None:
    changed = replace(SPLIT, **{field: SPLIT_CHANGES[field]})
    assert replace(PROTOCOL, splits=(changed,)).sha256 != PROTOCOL.sha256


def test_what_a_reader_is_told_changes_nothing() -> None:
    assert replace(PROTOCOL, note="read this").sha256 == PROTOCOL.sha256


# ----------------------------------------------------------------------------------------------- published splits


def published(shared_dir: Path, data_set: str, side: str, split: int) -> ClipList:
    path = shared_dir / f"data/splits/{data_set}_{side}_rgb_split_{split}.txt"
    return clips_from_list(path, data_root=shared_dir / "none", class_names=load_label_list(data_set).class_names)


def of_classes(clips: ClipList, names: tuple[str, ...]) -> ClipList:
    return replace(clips, clips=tuple(clip for clip in clips.clips if clips.class_names[clip.label] in names))


ON_TEST_SPLITS = [name for name in shipped_protocols() if "-ucf101" in name or "-hmdb51" in name]


@pytest.mark.parametrize("name", [name for name in ON_TEST_SPLITS if not name.endswith("full")])
def test_pinned_lists_are_the_published_ones(shared_dir: Path, name: str) -> None:
    protocol = load_protocol(name)
    places = (1, 2, 3) if len(protocol.splits) == 3 else (1,) * len(protocol.splits)
    for split, place in zip(protocol.splits, places, strict=True):
        clips = of_classes(published(shared_dir, protocol.dataset, "val", place), protocol.split_classes(split))
        assert (split.num_clips, split.clips_sha256) == (len(clips), list_fingerprint(clips))
        assert all(source.removesuffix(".txt").removesuffix("_videos")[-1] == str(place) for source in split.clips)
    whole = TEST_SIZES[protocol.dataset]
    sizes = [split.num_clips for split in protocol.splits]
    if name.startswith("base-to-novel"):
        assert sum(size or 0 for size in sizes) == whole[0]
    elif not name.endswith("strict"):
        assert sizes == list(whole[: len(sizes)])


def test_full_protocols_have_every_clip(shared_dir: Path) -> None:
    lists = [published(shared_dir, "ucf101", side, 1) for side in ("train", "val")]
    every = replace(lists[0], clips=lists[0].clips + lists[1].clips)
    (split,) = load_protocol("zero-shot-ucf101-full").splits
    assert (split.num_clips, split.clips_sha256) == (13320, list_fingerprint(every))
    (split,) = load_protocol("zero-shot-hmdb51-full").splits
    assert (split.num_clips, split.clips_sha256) == (6766, None)  # the splits use 6,371 of them


def test_split_files_as_published_are_read_and_checked(shared_dir: Path, tmp_path: Path) -> None:
    """HMDB-51's own files, made from the published list; one clip less is another list."""
    protocol = load_protocol("few-shot-hmdb51")
    clips = published(shared_dir, "hmdb51", "val", 1)
    uses: dict[str, list[str]] = {}
    for clip in clips.clips:
        folder, file = clip.clip_id.split("/")
        uses.setdefault(folder, []).append(f"{file}.avi 2 ")
        path = tmp_path / "hmdb51_org" / folder / f"{file}.avi"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    folder = tmp_path / "testTrainMulti_7030_splits"
    folder.mkdir()
    for name, lines in uses.items():
        (folder / f"{name}_test_split1.txt").write_text("\n".join(lines))
    read = read_split(protocol, protocol.splits[0], data_root=tmp_path)
    assert len(read) == 1530
    assert set(Counter(clip.label for clip in read.clips).values()) == {30}
    (folder / "kick_test_split1.txt").write_text("\n".join(uses["kick"][1:]))
    with pytest.raises(ValueError, match="has 1530 clips, .* lists 1529"):
        read_split(protocol, protocol.splits[0], data_root=tmp_path)


# ------------------------------------------------------------------------------------------------------- families


@pytest.mark.parametrize(("data_set", "left"), [("ucf101", 79), ("hmdb51", 49)])
def test_strict_protocols_have_no_class_of_kinetics400(data_set: str, left: int) -> None:
    strict, whole = (load_protocol(f"zero-shot-{data_set}{end}") for end in ("-strict", ""))
    seen = overlapping_classes(data_set, "kinetics400")
    assert strict.classes == tuple(name for name in whole.classes if name not in seen)
    assert (len(strict.classes), strict.listed_classes) == (left, whole.classes)
    assert set(strict.class_texts) < set(whole.class_texts)


def test_zero_shot_protocols_are_those_of_the_papers() -> None:
    for data_set in ("ucf101", "hmdb51"):
        plain, vifi, clip, ensemble = (
            load_protocol(f"zero-shot-{data_set}{end}") for end in ("", "-vifi", "-clip", "-templates16")
        )
        for protocol in (plain, vifi, clip, ensemble):
            assert (protocol.num_frames, protocol.sampling, protocol.views) == (32, "segments", "1x1")
            assert [split.name for split in protocol.splits] == ["split 1", "split 2", "split 3"]
        assert plain.templates == ("{}",)
        assert vifi.templates == ("a photo of a {}.",)
        assert (len(clip.templates), clip.template_average) == (48 if data_set == "ucf101" else 28, "features")
        assert (ensemble.templates, ensemble.template_average) == (load_templates("xclip_16"), "probabilities")
    assert load_protocol("zero-shot-ucf101").class_texts[0] == "Apply Eye Makeup"
    for name in ("zero-shot-ucf101-joined", "zero-shot-ucf101-vifi", "few-shot-ucf101-vifi", "base-to-novel-ucf101"):
        joined = load_protocol(name)
        assert joined.class_texts == tuple(text.replace(" ", "") for text in joined.classes)


def test_the_two_lineages_of_kinetics600_differ_in_clips() -> None:
    train, validation = (load_protocol(f"zero-shot-kinetics600-{side}") for side in ("train", "validation"))
    for protocol in (train, validation):
        assert [protocol.split_classes(split) for split in protocol.splits] == [test for test, _ in zero_shot_splits()]
        assert len(protocol.classes) == 220
        assert protocol.listed_classes == load_label_list("kinetics600").class_names
    assert not {source for split in train.splits for source in split.clips} & set(validation.splits[0].clips)


def test_kinetics600_lists_give_the_clips_of_the_candidates_alone(tmp_path: Path) -> None:
    protocol = load_protocol("zero-shot-kinetics600-validation")
    for folder in ("abseiling", "arguing", "winking", "yarn spinning"):  # of Kinetics-400; of all draws; of the first
        (tmp_path / "val" / folder).mkdir(parents=True)
        (tmp_path / "val" / folder / "a.mp4").touch()
    listed = [read_split(protocol, split, data_root=tmp_path) for split in protocol.splits]
    names = [[clips.class_names[clip.label] for clip in clips.clips] for clips in listed]
    assert names == [["arguing", "winking", "yarn spinning"], ["arguing", "winking"], ["arguing", "winking"]]
    assert {len(clips.class_names) for clips in listed} == {160}


@pytest.mark.parametrize(
    ("data_set", "sizes"), [("kinetics400", (200, 200)), ("hmdb51", (26, 25)), ("ucf101", (51, 50)), ("ssv2", (87, 87))]
)
def test_base_and_novel_classes_are_all_classes(data_set: str, sizes: tuple[int, int]) -> None:
    protocol = load_protocol(f"base-to-novel-{data_set}")
    base, novel = (protocol.split_classes(split) for split in protocol.splits)
    assert [split.name for split in protocol.splits] == ["base", "novel"]
    assert (len(base), len(novel)) == sizes
    assert {*base, *novel} == set(protocol.classes)
    if data_set != "ucf101":
        assert base + novel == protocol.classes
    assert (protocol.templates, protocol.num_frames) == (("a photo of a {}.",), 32)


def test_base_classes_of_ucf101_are_the_frequent_ones(shared_dir: Path) -> None:
    """ViFi-CLIP counts 2,088 and 1,695 clips; what gives these are the classes with most clips to train on."""
    protocol = load_protocol("base-to-novel-ucf101")
    counts = Counter(clip.label for clip in published(shared_dir, "ucf101", "train", 1).clips)
    ranked = sorted(range(101), key=lambda label: (counts[label], label), reverse=True)
    base = {protocol.classes[label] for label in ranked[:51]}
    assert set(protocol.splits[0].classes or ()) == base
    assert [split.num_clips for split in protocol.splits] == [2088, 1695]


@pytest.mark.parametrize("data_set", ["ucf101", "hmdb51"])
def test_motion_retrieval_reads_the_shipped_descriptions(data_set: str) -> None:
    plain, masked = (load_protocol(f"motion-retrieval-{data_set}{end}") for end in ("", "-masked"))
    for protocol, is_masked in ((plain, False), (masked, True)):
        texts = load_descriptions(data_set, kinds=["characteristic"], masked=is_masked).texts
        assert protocol.class_texts == tuple(of_class[0] for of_class in texts)
        assert (protocol.task, protocol.num_frames, protocol.templates) == ("retrieval", 8, ("{}",))
        assert [split.name for split in protocol.splits] == ["split 1"]
    assert plain.class_texts != masked.class_texts


def test_weizmann_has_90_clips_and_distractors_of_other_actions(shared_dir: Path) -> None:
    names = ("weizmann", *(f"motion-retrieval-weizmann{end}" for end in ("", "-masked", "-distractors")))
    for name in names:
        protocol = load_protocol(name)
        assert (protocol.num_frames, protocol.sampling, protocol.stride) == (8, "dense", 4)
        for root in (shared_dir / "data", shared_dir / "data/weizmann"):
            assert len(read_split(protocol, protocol.splits[0], data_root=root)) == 90
    kinetics = load_descriptions("kinetics400", kinds=["characteristic"], masked=True).texts
    assert len(protocol.distractors) == 20
    assert set(protocol.distractors) <= {of_class[0] for of_class in kinetics}
    assert protocol.class_texts == load_protocol("motion-retrieval-weizmann").class_texts


def test_supervised_and_few_shot_protocols_test_once() -> None:
    for name in ("kinetics400", "kinetics600", "ssv2", "few-shot-ucf101", "few-shot-hmdb51", "few-shot-ssv2-vifi"):
        protocol = load_protocol(name)
        assert (len(protocol.splits), protocol.views, protocol.task) == (1, "1x1", "classification")
        assert protocol.num_frames == (32 if name.startswith("few-shot") else None)
    assert load_protocol("ssv2").splits[0].num_clips == 24777
    assert load_protocol("kinetics400-text4vis").view_average == "features"


def test_a_list_with_numbers_of_another_order_is_refused(tmp_path: Path) -> None:
    """As of ViFi-CLIP's label file of HMDB-51, which swaps kick and kick ball."""
    for clip in (Clip("kick/a.avi", "", 21), Clip("kick_ball/b.avi", "", 20)):
        (tmp_path / clip.clip_id).parent.mkdir()
        (tmp_path / clip.clip_id).touch()
    (tmp_path / "hmdb51_val_rgb_split_1.txt").write_text("kick/a.avi 21\nkick_ball/b.avi 20\n")
    protocol = load_protocol("few-shot-hmdb51")
    with pytest.raises(ValueError, match="among the classes given 'kick_ball' is 21 and 'kick' is 20"):
        read_split(protocol, protocol.splits[0], data_root=tmp_path)


if __name__ == "__main__":
    write_hashes()
