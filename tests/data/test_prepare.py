"""Prepared clips have the frames and times of their sources, or are not there; and are whole whenever the run ends."""

import json
import logging
import os
import random
import re
import shutil
import tarfile
import time
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from isolated_functions import run_verb
from rendered_clips import HEIGHT, WIDTH, read_indices, render_clip
from training_runs import start, wait_until

from kinetext import load_video
from kinetext.data import reencode as reencode_module
from kinetext.data.annotations import clips_from_folder, read_clips
from kinetext.data.datasets import video_of
from kinetext.data.list_facts import list_fingerprint
from kinetext.data.manifest import file_sha256
from kinetext.data.output import OutputError
from kinetext.data.prepare import Prepared, measure_speed_up, prepare_folder
from kinetext.data.prepared_layout import REPORT_NAME
from kinetext.data.reencode import TIME_TOLERANCE_S, EncodeSettings, QualityError, _encode, compare, reencode
from kinetext.data.shard_packing import pack_shards
from kinetext.processing.packet_index import index_packets

SETTINGS = EncodeSettings(short_side=64, gop=6)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sources of every awkward kind, in two classes, with a list beside them."""
    root = tmp_path_factory.mktemp("sources")
    for name in ("run", "wave"):
        (root / name).mkdir()
    render_clip(root / "run/plain.mp4", 20)
    render_clip(root / "run/old.avi", 12, codec="mpeg4", codec_options={"bf": "2"})
    render_clip(root / "run/turned.mov", 7, rotation=90)
    render_clip(root / "wave/varying.mkv", 12, timestamps=[3 + number * number for number in range(12)])
    render_clip(root / "wave/v.1.webm", 9, codec="libvpx-vp9")
    cut = render_clip(root / "wave/cut.mp4", 20).read_bytes()
    (root / "wave/cut.mp4").write_bytes(cut[: len(cut) // 2])
    (root / "list.csv").write_text("path,label\nrun/old.avi,run\n")
    return root


def prepared(root: Path, out: Path, settings: EncodeSettings = SETTINGS, **options: object) -> Prepared:
    return prepare_folder(root, out, settings, jobs=2, **options)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def done(root: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Prepared]:
    out = tmp_path_factory.mktemp("prepared") / "out"
    return out, prepared(root, out)


def files_of(folder: Path) -> dict[str, str]:
    """Contents of the files below a folder, as hashes, but of its report."""
    files = (path for path in folder.rglob("*") if path.is_file() and not path.name.startswith(REPORT_NAME))
    return {path.relative_to(folder).as_posix(): file_sha256(path) for path in files}


def test_frames_and_times_are_those_of_the_source(root: Path, done: tuple[Path, Prepared]) -> None:
    out, result = done
    assert result.num_encoded == len(result.clips) == 5 and result.lists == ["list.csv"]
    for name, row in result.clips.items():
        source, copy = load_video(root / name), load_video(out / row["path"])
        assert copy.frames.shape[:3] == (len(source.frames), 64, round(64 * WIDTH / HEIGHT / 2) * 2)
        assert (copy.timestamps - source.timestamps).abs().max() <= TIME_TOLERANCE_S
        assert copy.rotation == 0 and row["num_frames"] == len(copy.frames)
        wide = torch.nn.functional.interpolate(copy.frames.permute(0, 3, 1, 2).float(), (HEIGHT, WIDTH))
        assert read_indices(wide.permute(0, 2, 3, 1)) == list(range(len(source.frames)))
    assert result.clips["wave/varying.mkv"]["path"] == "wave/varying.mp4"


def test_groups_are_short_and_frames_can_be_reached(done: tuple[Path, Prepared]) -> None:
    out, result = done
    for row in result.clips.values():
        index = index_packets(out / row["path"])
        assert index.refusal is None and index.codec == "h264" and index.pixel_format == "yuv420p"
        assert index.keyframe_distance is not None and index.keyframe_distance <= SETTINGS.gop


def test_what_cannot_be_decoded_is_named_and_not_there(done: tuple[Path, Prepared]) -> None:
    out, result = done
    assert result.failures.keys() == {"wave/cut.mp4"} and "Invalid data" in result.failures["wave/cut.mp4"]
    assert sorted(files_of(out)) == sorted(row["path"] for row in result.clips.values())
    assert len(clips_from_folder(out)) == 5


@pytest.mark.parametrize(
    ("height", "width", "expected"),
    [(480, 854, (256, 456)), (853, 480, (454, 256)), (101, 57, (100, 56)), (1, 1, (2, 2)), (256, 300, (256, 300))],
)
def test_sizes_are_even_and_never_larger(height: int, width: int, expected: tuple[int, int]) -> None:
    assert EncodeSettings().size(height, width) == expected


# ---------------------------------------------------------------------------------------------------- comparison


def test_a_copy_that_lost_a_frame_or_its_times_or_size_is_found(root: Path) -> None:
    source = str(root / "run/plain.mp4")
    others = {
        "another number of frames": (20 - 1, {}),
        r"the time of a frame is off by 40\.0 ms": (20, {"timestamps": [*range(19), 20]}),
    }
    for message, (num_frames, options) in others.items():
        copy = render_clip(root.parent / "copy.mp4", num_frames, **options).read_bytes()  # type: ignore[arg-type]
        with pytest.raises(QualityError, match=message):
            compare(source, copy, EncodeSettings())
    with pytest.raises(QualityError, match=r"frames of \(64, 106\), not \(96, 160\)"):
        compare(source, _encode(source, SETTINGS, 18), EncodeSettings())


def test_a_copy_with_one_wrong_frame_is_far_below_the_bound(root: Path, tmp_path: Path) -> None:
    source = str(root / "run/plain.mp4")
    good = compare(source, _encode(source, EncodeSettings(), 18), EncodeSettings())
    assert good.min_psnr_db > reencode_module.MIN_PSNR_DB
    frames = load_video(source).frames
    swapped = frames[[*range(10), 9, *range(11, 20)]]  # one is shown twice, the next one missing
    worst = min(reencode_module._psnr_db(*pair) for pair in zip(frames, swapped, strict=True))
    assert worst < reencode_module.MIN_PSNR_DB


def graphics(path: Path, *, turned: bool = False) -> Path:
    """A clip without loss of what screens show: colours that change from pixel to pixel, and a disk that moves."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "bgr0"
        for number in range(8):
            disk = np.hypot(x - 40 - 4 * number, y - 48) < 30
            picture = 255 * np.stack([(x + number) % 2, y % 2, disk], axis=-1).astype(np.uint8)
            frame = av.VideoFrame.from_ndarray(picture[..., [1, 2, 0]] if turned else picture, format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def test_colours_that_420_cannot_hold_are_no_loss_of_the_encoder(tmp_path: Path) -> None:
    source, settings = str(graphics(tmp_path / "stripes.mkv")), EncodeSettings()
    encoded = reencode(source, settings)
    assert encoded.crf == settings.crf and encoded.quality.min_psnr_db > 35
    assert compare(source, _encode(source, settings, 1), settings).min_psnr_db > 50
    assert compare(source, _encode(source, settings, 51), settings).min_psnr_db < reencode_module.MIN_PSNR_DB
    others = str(graphics(tmp_path / "turned.mkv", turned=True))
    assert compare(source, _encode(others, settings, 1), settings).min_psnr_db < 15


def test_psnr_is_what_it_is_defined_as() -> None:
    one, other = torch.zeros(4, 4, 3, dtype=torch.uint8), torch.full((4, 4, 3), 5, dtype=torch.uint8)
    assert reencode_module._psnr_db(one, other) == pytest.approx(10 * np.log10(255**2 / 25))
    assert reencode_module._psnr_db(one, one) == 100


def test_what_is_not_good_enough_is_encoded_better_and_else_refused(root: Path) -> None:
    source = str(root / "run/plain.mp4")
    encoded = reencode(source, EncodeSettings(crf=34))
    assert encoded.crf < 34 and encoded.quality.min_psnr_db >= reencode_module.MIN_PSNR_DB
    with pytest.raises(QualityError, match=r"dB PSNR, less than 30, even at crf=39; give a lower crf"):
        reencode(source, EncodeSettings(crf=51))


@pytest.mark.parametrize(("name", "value"), [("crf", 0), ("crf", 52), ("gop", 0), ("short_side", 1)])
def test_settings_that_make_no_sense_are_refused(name: str, value: int) -> None:
    with pytest.raises(ValueError, match=f"{name}={value} must be from"):
        EncodeSettings(**{name: value})


# -------------------------------------------------------------------------------------------- going on, refusing


def test_only_what_is_new_changed_or_missing_is_encoded_again(
    root: Path, done: tuple[Path, Prepared], tmp_path: Path
) -> None:
    source, out = (Path(shutil.copytree(folder, tmp_path / folder.name)) for folder in (root, done[0]))
    text = (out / REPORT_NAME).read_text()
    (out / REPORT_NAME).write_text(text.replace(json.dumps(str(root)), json.dumps(str(source))))
    assert prepared(source, out).num_encoded == 0
    (out / "run/old.mp4").unlink()
    (out / "run/plain.mp4").write_bytes(b"cut")
    shutil.copy(source / "run/plain.mp4", source / "wave/new.mp4")
    (source / "wave/varying.mkv").write_bytes(b"no video any more")
    again = prepared(source, out)
    assert again.num_encoded == 3 and again.failures.keys() == {"wave/cut.mp4", "wave/varying.mkv"}
    assert not (out / "wave/varying.mp4").exists()  # nothing stays of what the source was
    assert files_of(done[0]).items() - files_of(out).items() == {
        ("wave/varying.mp4", file_sha256(done[0] / "wave/varying.mp4"))
    }


def test_other_settings_and_other_folders_are_refused(root: Path, done: tuple[Path, Prepared], tmp_path: Path) -> None:
    out, _ = done
    with pytest.raises(ValueError, match=r"with other settings: gop was 6, not 12; crf was 18, not 20\. Give these"):
        prepared(root, out, EncodeSettings(short_side=64, crf=20))
    with pytest.raises(ValueError, match="with other settings: root was"):
        prepared(Path(shutil.copytree(root, tmp_path / "elsewhere")), out)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.txt").write_text("")
    with pytest.raises(ValueError, match=r"holds thesis.txt and no prepared.jsonl; choose a folder that is empty"):
        prepared(root, tmp_path / "mine")
    with pytest.raises(NotADirectoryError, match=r"thesis.txt is no folder; choose one that is empty or new"):
        prepared(root, tmp_path / "mine/thesis.txt")
    for inside in (root, root / "out", root.parent):
        with pytest.raises(ValueError, match="lie within each other"):
            prepared(root, inside)


def test_two_sources_of_one_name_are_an_error_before_anything_is_done(root: Path, tmp_path: Path) -> None:
    for name in ("a.avi", "A.mp4"):
        (tmp_path / "in/x").mkdir(parents=True, exist_ok=True)
        shutil.copy(root / "run/plain.mp4", tmp_path / "in/x" / name)
    with pytest.raises(ValueError, match=re.escape("x/A.mp4 and x/a.avi would both become x/a.mp4; rename one")):
        prepared(tmp_path / "in", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_folder_that_cannot_be_written_ends_the_run_and_blames_no_source(root: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / REPORT_NAME).touch()
    for name in ("run", "wave"):
        (out / name).symlink_to("/proc/nothing")  # where even root makes no folder
    with pytest.raises(OutputError, match=rf"{out}/\S+\.mp4 cannot be written \(No such file .*choose another place"):
        prepared(root, out)
    assert [json.loads(line)["record"] for line in (out / REPORT_NAME).read_text().splitlines()] == ["settings"]
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match=r"file/out/prepared.jsonl cannot be written \(Not a directory\); make room"):
        prepared(root, tmp_path / "file/out")


def kill_at_random(root: Path, out: Path, tmp_path: Path, expected: dict[str, str], times: int) -> None:
    """Kills runs at random moments of their work, and looks at what they leave; then lets one finish."""
    randomness = random.Random(0)
    for number in range(times):
        log = tmp_path / f"log{number}"
        run = start(log, "prepare", root, out, "--short-side", 64, "--gop", 6, "--jobs", 2, job=run_verb)
        before = files_of(out) if out.exists() else {}
        wait_until(lambda: out.exists() and files_of(out).keys() > before.keys(), run)  # noqa: B023
        time.sleep(randomness.uniform(0, 0.1))
        run.kill()
        left = {name: content for name, content in files_of(out).items() if not Path(name).name.startswith(".")}
        assert left.items() <= expected.items()
        assert {clip.clip_id for clip in clips_from_folder(out).clips} == left.keys()
    (out / "run").mkdir(exist_ok=True)
    (out / f"run/.plain.mp4.{'0' * 32}").write_bytes(b"half")  # as a run leaves it that is killed while it writes
    prepared(root, out)
    assert files_of(out) == expected


def test_a_run_that_is_killed_leaves_whole_clips_only(root: Path, done: tuple[Path, Prepared], tmp_path: Path) -> None:
    kill_at_random(root, tmp_path / "out", tmp_path, files_of(done[0]), times=1)


@pytest.mark.slow
def test_a_run_that_is_killed_again_and_again_ends_the_same(tmp_path: Path) -> None:
    root = tmp_path / "root"
    for number in range(60):
        (root / str(number % 3)).mkdir(parents=True, exist_ok=True)
        render_clip(root / str(number % 3) / f"{number}.mp4", 60)
    prepared(root, tmp_path / "expected")
    kill_at_random(root, tmp_path / "out", tmp_path, files_of(tmp_path / "expected"), times=8)


# ------------------------------------------------------------------------------------- lists, shards, measurement


def test_lists_of_the_sources_find_the_copies_under_the_ids_that_they_list(
    root: Path, done: tuple[Path, Prepared], tmp_path: Path
) -> None:
    names = [*done[1].clips, "wave/cut.mp4"]
    (tmp_path / "list.csv").write_text("path,label\n" + "".join(f"{name},{name.split('/')[0]}\n" for name in names))
    (tmp_path / "testlist01.txt").write_text("".join(f"{name}\n" for name in names))
    for file in ("list.csv", "testlist01.txt"):
        of_sources, of_copies = (
            read_clips(tmp_path / file, data_root=folder, max_missing_share=0.5) for folder in (root, done[0])
        )
        assert [clip.clip_id for clip in of_copies.clips] == [clip.clip_id for clip in of_sources.clips]
        assert list_fingerprint(of_copies) == list_fingerprint(of_sources)  # what protocols fix
        assert {clip.source for clip in of_copies.clips if os.path.exists(clip.source)} == {
            str(done[0] / row["path"]) for row in done[1].clips.values()
        }
    (root / "wave/cut.mp4").rename(tmp_path / "cut.mp4")  # in class folders, too
    try:
        assert list_fingerprint(clips_from_folder(done[0])) == list_fingerprint(clips_from_folder(root))
    finally:
        (tmp_path / "cut.mp4").rename(root / "wave/cut.mp4")


def test_shards_hold_the_clips_by_class_and_name(
    done: tuple[Path, Prepared], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    out = Path(shutil.copytree(done[0], tmp_path / "out"))
    paths = [row["path"] for row in done[1].clips.values()]
    size = max((out / path).stat().st_size for path in paths)
    shards = pack_shards(out, paths, size)
    assert len(shards) > 1
    with caplog.at_level(logging.WARNING):
        assert len(read_clips(".", data_root=out)) == len(paths) and not caplog.records
    clips = read_clips("shards", data_root=out)
    contents = {clip.clip_id: (clips.class_names[clip.label], video_of(clip)["bytes"]) for clip in clips.clips}
    assert contents == {
        f"{path.partition('/')[0]}/{Path(path).stem.replace('.', '_')}": (
            path.partition("/")[0],
            (out / path).read_bytes(),
        )
        for path in paths
    }
    index = json.loads((out / "shards/index.json").read_text())["shards"]
    assert list(index) == [shard.name for shard in shards]
    for shard in shards:
        with tarfile.open(shard) as archive:
            assert archive.getnames() == [f"{key}.{ending}" for key in index[shard.name] for ending in ("mp4", "cls")]


def test_shards_are_the_same_whenever_they_are_packed_and_replace_older_ones(
    done: tuple[Path, Prepared], tmp_path: Path
) -> None:
    out = Path(shutil.copytree(done[0], tmp_path / "out"))
    paths = [row["path"] for row in done[1].clips.values()]
    first = [path.read_bytes() for path in pack_shards(out, paths, 2**30)]
    pack_shards(out, paths, 1)
    (out / "shards/.shard-000000.tar").write_bytes(b"half")
    os.utime(out / paths[0], ns=(1, 1))
    assert [path.read_bytes() for path in pack_shards(out, paths[::-1], 2**30)] == first
    assert sorted(path.name for path in (out / "shards").iterdir()) == ["index.json", "shard-000000.tar"]


def test_what_has_no_class_or_no_name_of_its_own_is_not_packed(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="a.mp4 is not <class>/<clip>"):
        pack_shards(tmp_path, ["a.mp4"], 1)
    with pytest.raises(ValueError, match=r"x/v.1.mp4 and x/v_1.mp4 would both be x/v_1 in a shard"):
        pack_shards(tmp_path, ["x/v.1.mp4", "x/v_1.mp4"], 1)


def test_the_speed_up_is_a_ratio_of_reads(root: Path, done: tuple[Path, Prepared]) -> None:
    ratio = measure_speed_up(root, done[0], done[1])
    assert ratio is not None and 0.05 < ratio < 50
    assert measure_speed_up(root, done[0], Prepared({}, {}, 0, [])) is None
