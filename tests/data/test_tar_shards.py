"""Clips in tar shards are clips like any other, and a damaged shard is named before training starts."""

import gzip
import io
import itertools
import re
import tarfile
from pathlib import Path
from typing import Any

import pytest
import torch
from rendered_clips import render_clip
from torch.utils.data import DataLoader

from kinetext import VideoDecodeError, VideoTextProcessor
from kinetext.data.annotations import read_clips
from kinetext.data.clip_lists import Clip, ClipList
from kinetext.data.datasets import EpochSampler, EvalClips, TrainClips, video_of
from kinetext.data.tar_shards import clips_from_shards, find_shards

Members = dict[str, bytes]


def write_shard(path: Path, members: Members) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, content in members.items():
            header = tarfile.TarInfo(name)
            header.size = len(content)
            archive.addfile(header, io.BytesIO(content))
    return path


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    folder = tmp_path_factory.mktemp("videos")
    return [render_clip(folder / f"{index}.mp4", 4 + index).read_bytes() for index in range(3)]


@pytest.fixture
def shards(tmp_path: Path, videos: list[bytes]) -> Path:
    """Three shards of four clips, whose classes stand in all three kinds of files."""
    for shard in range(3):
        members: Members = {}
        for clip in range(4):
            key, name = f"{shard}/clip{clip}", ("wave", "kick ball")[clip % 2]
            label = [("cls", name), ("txt", f"{name}\n"), ("json", f'{{"label": "{name}"}}'), ("JSON", '{"class": 1}')]
            ending, content = label[clip] if clip < 3 else ("cls", name)
            members |= {f"{key}.{ending}": content.encode(), f"{key}.mp4": videos[clip % 3]}
        write_shard(tmp_path / f"train/shard-{shard:04d}.tar", members)
    return tmp_path


PROCESSOR = VideoTextProcessor(num_frames=2, crop_size=16)


def test_clips_of_shards_have_bytes_labels_and_groups(shards: Path, videos: list[bytes]) -> None:
    by_range = read_clips("train/shard-{0000..0002}.tar", data_root=shards)
    assert by_range == read_clips("train", data_root=shards)
    assert by_range.class_names == ("kick ball", "wave")
    names = [clip.clip_id for clip in by_range.clips]
    assert names == [f"{shard}/clip{clip}" for shard in range(3) for clip in range(4)]
    assert [clip.label for clip in by_range.clips] == [1, 0] * 6
    assert by_range.groups == tuple(str(shards / f"train/shard-{s:04d}.tar") for s in range(3) for _ in range(4))
    for index, clip in enumerate(by_range.clips):
        value = video_of(clip)
        assert value["bytes"] == videos[index % 4 % 3]
        assert value["path"] == f"{clip.group}/{clip.clip_id}.mp4"
    one = read_clips("train/shard-0001.tar", data_root=shards, class_names=["wave", "kick_ball"])
    assert [clip.label for clip in one.clips] == [0, 1, 0, 1] and len(find_shards(shards / "train")) == 3


def test_clips_of_shards_are_seen_as_those_of_files(shards: Path, tmp_path: Path) -> None:
    in_tar = read_clips("train", data_root=shards)
    clips = []
    for clip in in_tar.clips:
        path = tmp_path / f"{clip.clip_id.replace('/', '_')}.mp4"
        path.write_bytes(video_of(clip)["bytes"])
        clips.append(Clip(clip.clip_id, str(path), clip.label))
    on_disk = ClipList(tuple(clips), in_tar.class_names)
    assert on_disk.groups is None
    for make in (lambda c: TrainClips(c, PROCESSOR, seed=0), lambda c: EvalClips(c, PROCESSOR)):
        left, right = make(in_tar), make(on_disk)
        key: Any = (2, 7) if isinstance(left, TrainClips) else 7
        assert left[key]["pixel_values"].equal(right[key]["pixel_values"])


def test_shards_are_read_exactly_once_by_workers_and_processes(shards: Path) -> None:
    clips = read_clips("train", data_root=shards)
    dataset = TrainClips(clips, PROCESSOR, seed=0)
    sampler = EpochSampler(len(clips), seed=0, groups=clips.groups)
    seen: list[tuple[str, torch.Tensor]] = []
    for rank in range(2):
        order = list(sampler)[rank::2]
        for batch in DataLoader(dataset, 2, sampler=order, collate_fn=dataset.collate, num_workers=2):
            seen += zip(batch["clip_ids"], batch["pixel_values"], strict=True)
    assert sorted(name for name, _ in seen) == sorted(clip.clip_id for clip in clips.clips)
    alone = {dataset[0, i]["clip_id"]: dataset.collate([dataset[0, i]])["pixel_values"][0] for i in range(len(clips))}
    assert all(pixels.equal(alone[name]) for name, pixels in seen)


def test_numbers_are_indices_into_given_classes(tmp_path: Path) -> None:
    shard = write_shard(tmp_path / "a.tar", {"x.mp4": b"", "x.cls": b"1", "y.mp4": b"", "y.json": b'{"label": 0}'})
    clips = read_clips(shard, class_names=["wave", "jump"])
    assert [clip.label for clip in clips.clips] == [1, 0]
    with pytest.raises(ValueError, match=re.escape(f"{shard} gives classes by their numbers (0, 1, ...)")):
        read_clips(shard)


def test_what_is_neither_video_nor_label_is_left_aside(tmp_path: Path) -> None:
    members = {"./d/x.seg.mp4": b"1", "./d/x.cls": b"a", "d/x.jpg": b"", "d/._x.mp4": b"", "README": b""}
    (clip,) = read_clips(write_shard(tmp_path / "a.tar", members)).clips
    assert (clip.clip_id, video_of(clip)["bytes"]) == ("d/x", b"1")


@pytest.mark.parametrize(
    ("members", "message"),
    [
        (
            {"a.mp4": b""},
            "{shard}: 'a' has no label: give it a a.cls or a.txt with its class, or a a.json with one of ",
        ),
        ({"a.mp4": b"", "a.cls": b" \n"}, "{shard}: 'a' has no label: "),
        ({"a.mp4": b"", "a.json": b'{"caption": "x"}'}, "{shard}: 'a' has no label: "),
        ({"a.mp4": b"", "a.json": b'{"label": null}'}, "{shard}: 'a' has no label: "),
        ({"a.mp4": b"", "a.json": b"7"}, "{shard}: a.json cannot be read: it holds 7, wanted an object of fields."),
        ({"a.mp4": b"", "a.json": b"{"}, "{shard}: a.json cannot be read: "),
        ({"a.mp4": b"", "a.txt": b"\xff\xfe"}, "{shard}: a.txt cannot be read: "),
        ({"a.cls": b"x"}, "{shard}: 'a' has a label and no video (.3gp, .avi, "),
        ({"a.mp4": b"", "a.webm": b"", "a.cls": b"x"}, "{shard}: the key 'a' has two videos, a.mp4 and a.webm."),
        ({"readme.md": b""}, "{shard}: there is no video (.3gp, .avi, "),
    ],
)
def test_members_that_make_no_clip_are_errors(tmp_path: Path, members: Members, message: str) -> None:
    shard = write_shard(tmp_path / "a.tar", members)
    with pytest.raises(ValueError, match=f"^{re.escape(message.format(shard=shard))}"):
        read_clips(shard)


def test_a_key_in_two_shards_is_an_error(tmp_path: Path) -> None:
    first, second = (write_shard(tmp_path / name, {"a.mp4": b"", "a.cls": b"x"}) for name in ("1.tar", "2.tar"))
    message = f"the key 'a' is in {first} and in {second}; keys name clips once."
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        clips_from_shards([first, second])


def test_a_shard_that_is_cut_off_is_an_error_wherever_the_cut_is(tmp_path: Path) -> None:
    members = {
        f"{name}.{ending}": bytes([65 + i]) * 700
        for i, (name, ending) in enumerate(itertools.product("abc", ("mp4", "cls")))
    }
    whole = write_shard(tmp_path / "whole.tar", members).read_bytes()
    end = 6 * (512 + 1024)  # of the last member; tar files end with two blocks of zeros
    assert len(read_clips(tmp_path / "whole.tar").clips) == 3
    for length in (0, 1, 511, 512, 700, 1535, 1536, 1537, 3072, end - 1, end - 400, end, end + 511):
        shard = tmp_path / "cut.tar"
        shard.write_bytes(whole[:length])
        with pytest.raises(ValueError, match=rf"^{re.escape(str(shard))} is cut off[:,] .*; copy it again\.$"):
            read_clips(shard)
    damaged = tmp_path / "damaged.tar"
    damaged.write_bytes(whole[:1536] + b"not a header" * 50 + whole[2136:])
    with pytest.raises(ValueError, match="is cut off"):
        read_clips(damaged)


def test_compressed_shards_are_errors(tmp_path: Path, shards: Path) -> None:
    plain = (shards / "train/shard-0000.tar").read_bytes()
    for name in ("a.tar.gz", "a.tgz", "a.tar"):
        (tmp_path / name).write_bytes(gzip.compress(plain))
        message = f"{tmp_path / name} is compressed (gzip), so no clip can be read alone: decompress it first."
        with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
            read_clips(tmp_path / name)


def test_missing_shards_of_a_range_are_errors(shards: Path) -> None:
    message = "stands for 5 shards, of which 2 do not exist: shard-0003.tar, shard-0004.tar."
    with pytest.raises(FileNotFoundError, match=re.escape(message)):
        read_clips("train/shard-{0000..0004}.tar", data_root=shards)
    with pytest.raises(FileNotFoundError, match="stands for 0 shards"):
        read_clips("train/shard-{0002..0001}.tar", data_root=shards)


def test_a_shard_that_shrinks_later_costs_its_clips_only(shards: Path) -> None:
    clips = read_clips("train", data_root=shards)
    path = shards / "train/shard-0002.tar"
    path.write_bytes(path.read_bytes()[:600])
    sample = TrainClips(clips, PROCESSOR, seed=0)[0, 11]
    assert sample["clip_id"] == "2/clip3"
    assert sample["failures"][0] == ("2/clip3", f"{path} ends within 2/clip3.mp4; it was cut off after it was listed.")
    path.unlink()
    assert "error" in EvalClips(clips, PROCESSOR)[8]


def test_a_damaged_video_is_named_by_shard_and_member(tmp_path: Path) -> None:
    shard = write_shard(tmp_path / "a.tar", {"x.mp4": b"no video", "x.cls": b"a"})
    with pytest.raises(VideoDecodeError, match=re.escape(f"{shard}/x.mp4")):
        TrainClips(read_clips(shard), PROCESSOR, seed=0)[0, 0]


def test_a_plain_shard_may_start_with_any_name(tmp_path: Path) -> None:
    clips = read_clips(write_shard(tmp_path / "a.tar", {"BZh1.mp4": b"v", "BZh1.cls": b"x"}))
    assert [clip.clip_id for clip in clips.clips] == ["BZh1"]


def test_links_among_the_members_are_errors(tmp_path: Path) -> None:
    for kind in (tarfile.LNKTYPE, tarfile.SYMTYPE):
        shard = write_shard(tmp_path / "a.tar", {"a.mp4": b"v", "a.cls": b"x"})
        with tarfile.open(shard, "a") as archive:
            link = tarfile.TarInfo("b.mp4")
            link.type, link.linkname = kind, "a.mp4"
            archive.addfile(link)
        message = f"{shard}: b.mp4 is a link or a sparse file; pack the content itself"
        with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
            read_clips(shard)
