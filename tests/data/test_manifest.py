"""A manifest stands in for decoding what cannot be decoded: same failures, same replacements, as long as it holds."""

import logging
import os
import pickle
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from rendered_clips import render_clip

from kinetext import VideoDecodeError, VideoTextProcessor, load_video
from kinetext.data.annotations import read_clips
from kinetext.data.clip_lists import Clip, ClipList
from kinetext.data.datasets import EvalClips, TrainClips, video_of
from kinetext.data.manifest import Entry, Manifest, UnreadableVideo, file_sha256, readable_name
from kinetext.data.scan import scan_folder

PROCESSOR = VideoTextProcessor(num_frames=2, crop_size=24)
BROKEN = ("run/cut.mp4", "run/page.mp4", "wave/empty.mp4")


@pytest.fixture(scope="module")
def scanned(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Manifest]:
    """(a folder of clips of two classes, some broken; its manifest)."""
    root = tmp_path_factory.mktemp("clips")
    for number in range(6):
        name = ("run", "wave")[number % 2]
        (root / name).mkdir(exist_ok=True)
        content = render_clip(root / name / f"{number}.mp4", 6 + number).read_bytes()
    (root / "run/cut.mp4").write_bytes(content[: len(content) // 2])
    (root / "run/page.mp4").write_text("<html>404 Not Found</html>")
    (root / "wave/empty.mp4").write_bytes(b"")
    manifest = scan_folder(root, root.parent / "manifest.parquet", jobs=1).manifest
    assert {name for name, entry in manifest.entries.items() if not entry.readable} == set(BROKEN)
    return root, manifest


def sources(clips: ClipList) -> dict[str, object]:
    return {clip.clip_id: clip.source for clip in clips.clips}


def unreadable(clips: ClipList) -> set[str]:
    return {clip_id for clip_id, source in sources(clips).items() if isinstance(source, UnreadableVideo)}


def test_an_entry_keeps_every_column_in_parquet(tmp_path: Path) -> None:
    full = Entry("a", 1, 2, "c0", True, None, 3, 0.5, 25.0, 4, 5, "h264", "mov", 90, 12, True, "PyAV")
    manifest = Manifest("/clips", {"a": full, "b": Entry("b", 0, 0, None, False, "no")})
    manifest.write(tmp_path / "m.parquet")
    assert Manifest.read(tmp_path / "m.parquet") == manifest


def test_what_is_no_manifest_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="`kinetext scan ROOT --out"):
        Manifest.read(tmp_path / "none.parquet")
    (tmp_path / "other.parquet").write_text("text")
    with pytest.raises(ValueError, match="is no manifest of `kinetext scan`"):
        Manifest.read(tmp_path / "other.parquet")


def test_an_unreadable_video_fails_as_decoding_it_does(scanned: tuple[Path, Manifest]) -> None:
    root, manifest = scanned
    clips = read_clips(".", data_root=root)
    marked = manifest.mark_unreadable(clips, root)
    assert unreadable(marked) == set(BROKEN)
    assert [clip for clip in marked.clips if clip.clip_id not in BROKEN] == [
        clip for clip in clips.clips if clip.clip_id not in BROKEN
    ]
    for clip in marked.clips:
        if clip.clip_id in BROKEN:
            with pytest.raises(VideoDecodeError) as decoded:
                load_video(sources(clips)[clip.clip_id], indices=lambda number: [0])
            with pytest.raises(VideoDecodeError) as told:
                video_of(pickle.loads(pickle.dumps(clip)))
            assert str(told.value) == str(decoded.value) and vars(told.value) == vars(decoded.value)
            assert (
                os.path.samefile(clip.source, root / clip.clip_id) and str(clip.source) == sources(clips)[clip.clip_id]
            )


def test_training_and_evaluation_are_the_same_with_and_without(scanned: tuple[Path, Manifest]) -> None:
    root, manifest = scanned
    clips = read_clips(".", data_root=root)
    marked = manifest.mark_unreadable(clips, root)
    without, told = (TrainClips(some, PROCESSOR, seed=3) for some in (clips, marked))
    for epoch in range(3):
        for index in range(len(clips)):
            left, right = without[epoch, index], told[epoch, index]
            assert torch.equal(left.pop("pixel_values"), right.pop("pixel_values")) and left == right
    without_, told_ = (EvalClips(some, PROCESSOR) for some in (clips, marked))
    for index in range(len(clips)):
        left, right = without_[index], told_[index]
        assert left.keys() == right.keys() and left.get("error") == right.get("error")


def test_what_has_changed_is_tried_and_said_once(
    scanned: tuple[Path, Manifest], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root, manifest = scanned
    copy = Path(shutil.copytree(root, tmp_path / "copy"))
    manifest = replace(manifest, root=str(copy))
    for name in BROKEN:
        os.utime(copy / name, ns=(5, 5))
    shutil.copy(copy / "run/0.mp4", copy / "run/cut.mp4")
    size = (copy / "run/page.mp4").stat().st_size
    (copy / "run/page.mp4").write_bytes(b"x" * size)  # as large as before
    with caplog.at_level(logging.WARNING):
        marked = manifest.mark_unreadable(read_clips(".", data_root=copy), copy)
    assert unreadable(marked) == {"wave/empty.mp4"}  # another time, the same content
    assert [record.getMessage() for record in caplog.records] == [
        "2 clips that the manifest calls unreadable have changed since, e.g. run/cut.mp4; they are tried. Scan again."
    ]


def test_a_hash_counts_only_where_the_time_differs(tmp_path: Path) -> None:
    file = tmp_path / "a.mp4"
    file.write_bytes(b"abc")
    status = file.stat()
    assert Entry("a.mp4", 3, status.st_mtime_ns, None, False, "hung").holds_for(file)
    assert not Entry("a.mp4", 3, 1, None, False, "hung").holds_for(file)
    assert Entry("a.mp4", 3, 1, file_sha256(file), False).holds_for(file)
    assert not Entry("a.mp4", 3, 1, "0" * 64, False).holds_for(file)
    assert not Entry("a.mp4", 4, status.st_mtime_ns, file_sha256(file), False).holds_for(file)


def test_a_folder_that_was_moved_or_linked_is_known(scanned: tuple[Path, Manifest], tmp_path: Path) -> None:
    root, manifest = scanned
    moved = Path(shutil.copytree(root, tmp_path / "moved"))
    gone = replace(manifest, root="/nowhere/any/more")
    assert unreadable(gone.mark_unreadable(read_clips(".", data_root=moved), moved)) == set(BROKEN)
    link = tmp_path / "link"
    link.symlink_to(root)
    assert unreadable(manifest.mark_unreadable(read_clips(".", data_root=link), link)) == set(BROKEN)


def test_clips_that_are_no_files_stay_and_a_manifest_of_others_is_said(
    scanned: tuple[Path, Manifest], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    _, manifest = scanned
    clips = ClipList((Clip("a", {"bytes": b"x"}, 0), Clip("b", str(tmp_path / "run/cut.mp4"), 0)), ("run",))
    with caplog.at_level(logging.WARNING):
        assert manifest.mark_unreadable(clips, tmp_path) == clips
    assert re.search("names none of the 2 clips", caplog.text)


def test_names_that_are_no_utf8_are_found(tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "run").mkdir(parents=True)
    name = b"run/caf\xe9.mp4".decode("utf-8", "surrogateescape")
    with open(os.path.join(root, name), "wb") as file:
        file.write(b"no video")
    render_clip(root / "run/sound.mp4", 4)
    scan_folder(root, tmp_path / "m.parquet", jobs=1)
    manifest = Manifest.read(tmp_path / "m.parquet")
    assert readable_name(name) == "run/caf\\udce9.mp4" in manifest.entries
    assert unreadable(manifest.mark_unreadable(read_clips(".", data_root=root), root)) == {name}


def test_names_that_look_like_what_is_written_out_are_others() -> None:
    names = ["caf\udce9", r"caf\udce9", r"caf\\udce9", "caf\\\udce9", r"a\b", "a"]
    assert len({readable_name(name) for name in names}) == len(names)
