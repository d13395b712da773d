"""A scan says of every file what it holds or why it cannot be read, survives any file, and does no work twice."""

import multiprocessing
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest
from isolated_functions import run_verb
from rendered_clips import HEIGHT, WIDTH, drop_packets, render_clip
from training_runs import REPOSITORY, start, wait_until

from kinetext import load_video
from kinetext.data.isolated import time_out_reason
from kinetext.data.manifest import Entry, Manifest, readable_name
from kinetext.data.output import OutputError
from kinetext.data.scan import find_videos, scan_folder

NO_UTF8 = b"wave/caf\xe9.mp4".decode("utf-8", "surrogateescape")


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sound and damaged videos of several kinds, and what is no video."""
    root = tmp_path_factory.mktemp("scanned")
    for name in ("wave", "run", ".hidden"):
        (root / name).mkdir()
    sound = render_clip(root / "wave/sound.mp4", 40, gop=12, codec_options={"sc_threshold": "0"})
    render_clip(root / "wave/turned.mov", 5, rotation=90)
    render_clip(root / "wave/varying.mkv", 10, timestamps=[number * number for number in range(10)])
    render_clip(root / "run/old.avi", 12, codec="mpeg4")
    shutil.copy(sound, root / ".hidden/sound.mp4")
    shutil.copy(sound, os.path.join(root, NO_UTF8))
    content = sound.read_bytes()
    (root / "run/cut.mp4").write_bytes(content[: len(content) // 2])
    (root / "run/empty.mp4").write_bytes(b"")
    (root / "run/page.webm").write_text("<html>404 Not Found</html>")
    (root / "run/nowhere.mp4").symlink_to("gone.mp4")
    (root / "run/labels.txt").write_text("run")
    drop_packets(root / "run/headless.mp4", render_clip(root / ".hidden/long.mp4", 30, gop=30), 5)
    return root


@pytest.fixture
def root(rendered: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(rendered, tmp_path / "root", symlinks=True))


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "manifest.parquet"


def scanned(root: Path, out: Path, **options: object) -> tuple[dict[str, Entry], int]:
    """The entries by path, read from the file, and how many files were read."""
    done = scan_folder(root, out, jobs=2, **options)  # type: ignore[arg-type]
    manifest = Manifest.read(out)
    assert manifest == done.manifest and manifest.root == str(root)
    return dict(manifest.entries), done.num_scanned


def test_every_file_has_an_entry_that_says_what_load_video_says(root: Path, out: Path) -> None:
    entries, num_scanned = scanned(root, out)
    assert list(entries) == sorted(map(readable_name, find_videos(root))) and num_scanned == len(entries) == 10
    for name in find_videos(root):
        entry, path = entries[readable_name(name)], root / name
        try:
            video = load_video(path)
        except Exception as error:
            assert not entry.readable and str(entry.error).rpartition(": ")[2] in str(error)
            continue
        assert (
            entry.readable
            and entry.error is None
            and (entry.bytes, entry.mtime_ns)
            == (
                path.stat().st_size,
                path.stat().st_mtime_ns,
            )
        )
        assert (entry.frames, entry.fps, entry.rotation) == (len(video.frames), video.fps, video.rotation)
        assert (entry.height, entry.width) == tuple(video.frames.shape[1:3])
        times = video.timestamps
        assert entry.duration == pytest.approx((times[-1] - times[0]).item() + 1 / video.fps)
    readable = {name for name, entry in entries.items() if entry.readable}
    assert {"wave/sound.mp4", "wave/turned.mov", "wave/varying.mkv", "run/old.avi", readable_name(NO_UTF8)} <= readable
    assert {"run/cut.mp4", "run/empty.mp4", "run/page.webm", "run/nowhere.mp4"}.isdisjoint(readable)


def test_what_packets_tell_is_there_too(root: Path, out: Path) -> None:
    entries, _ = scanned(root, out)
    sound, turned, old = (entries[name] for name in ("wave/sound.mp4", "wave/turned.mov", "run/old.avi"))
    assert (sound.codec, sound.keyframe_distance, sound.seekable) == ("h264", 12, True)
    assert (turned.rotation, turned.height, turned.width) == (90, HEIGHT, WIDTH)
    assert (old.codec, old.container, old.seekable) == ("mpeg4", "avi", False)
    assert sound.sha256 is not None and sound.sha256 == entries[readable_name(NO_UTF8)].sha256


def test_a_quick_scan_says_so_and_is_no_substitute_for_a_whole_one(root: Path, out: Path) -> None:
    quick, _ = scanned(root, out, is_quick=True)
    whole, num_scanned = scanned(root, out)
    assert num_scanned == len(whole)
    for name, entry in whole.items():
        assert entry.scanned_with != quick[name].scanned_with and "first and last" in quick[name].scanned_with
        if entry.readable:
            assert (entry.frames, entry.duration) == (quick[name].frames, quick[name].duration)
    again, num_scanned = scanned(root, out, is_quick=True)
    assert num_scanned == 1 and again == whole | {"run/nowhere.mp4": again["run/nowhere.mp4"]}


def test_only_what_is_new_or_has_changed_is_read_again(root: Path, out: Path) -> None:
    first, _ = scanned(root, out)
    (root / "run/nowhere.mp4").unlink()
    assert scanned(root, out)[1] == 0
    os.utime(root / "wave/sound.mp4", ns=(1, 1))  # another time, the same content
    entries, num_scanned = scanned(root, out)
    assert num_scanned == 0 and entries["wave/sound.mp4"].mtime_ns == 1
    shutil.copy(root / "wave/sound.mp4", root / "run/cut.mp4")
    shutil.copy(root / "wave/sound.mp4", root / "run/new.mp4")
    (root / "run/page.webm").unlink()
    entries, num_scanned = scanned(root, out)
    assert num_scanned == 2 and entries["run/cut.mp4"].readable
    assert entries.keys() == first.keys() - {"run/page.webm", "run/nowhere.mp4"} | {"run/new.mp4"}


def test_a_file_that_cannot_be_opened_is_tried_every_time(root: Path, out: Path) -> None:
    os.mkfifo(root / "run/pipe.mp4")
    entries, _ = scanned(root, out)
    assert entries["run/pipe.mp4"].error == "OSError: it is no regular file"
    assert scanned(root, out)[1] == 2  # and the link that leads nowhere
    assert not entries["run/nowhere.mp4"].holds_for(root / "run/nowhere.mp4")


def endless(path: Path) -> Path:
    """A file with a hole so large that it cannot be read in the time of a test."""
    with open(path, "wb") as file:
        file.truncate(2**42)
    return path


def test_a_file_that_takes_too_long_costs_its_time_and_one_entry(root: Path, out: Path) -> None:
    endless(root / "run/endless.mp4")
    entries, _ = scanned(root, out, time_limit_s=2)
    assert entries["run/endless.mp4"].error == time_out_reason(2)
    assert sum(entry.readable for entry in entries.values()) >= 5
    (root / "run/nowhere.mp4").unlink()
    assert scanned(root, out, time_limit_s=2)[1] == 0
    entries, num_scanned = scanned(root, out, time_limit_s=3)
    assert num_scanned == 1 and entries["run/endless.mp4"].error == time_out_reason(3)


def test_a_crash_costs_one_entry(tmp_path: Path, out: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    endless(root / "deadly.mp4")
    render_clip(root / "sound.mp4", 4)
    is_over = threading.Event()

    def crash() -> None:  # whichever child has the file
        while not is_over.wait(0.02):
            for child in multiprocessing.active_children():
                opened = {Path(file.path).name for file in psutil.Process(child.pid).open_files()}
                if "deadly.mp4" in opened:
                    os.kill(child.pid or 0, signal.SIGSEGV)

    thread = threading.Thread(target=crash)
    thread.start()
    try:
        entries, _ = scanned(root, out)
    finally:
        is_over.set()
        thread.join()
    assert entries["deadly.mp4"].error == f"the decoder crashed (signal {signal.SIGSEGV})"
    assert entries["sound.mp4"].readable


def test_a_scan_that_was_killed_goes_on_where_it_was(tmp_path: Path, out: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    clip = render_clip(root / "000.mp4", 4)
    for number in range(1, 60):
        os.link(clip, root / f"{number:03d}.mp4")
    endless(root / "059_endless.mp4")
    run = start(tmp_path / "log", "scan", root, "--out", out, "--jobs", 1, job=run_verb)
    journal = Path(f"{out}.journal")
    assert wait_until(lambda: journal.exists() and journal.read_bytes().count(b"\n") == 60, run)
    run.kill()
    assert not out.exists()
    with open(journal, "ab") as file:
        file.write(b'{"record": "entry", "ro')  # what a process that is killed while it writes leaves

    entries, num_scanned = scanned(root, out, time_limit_s=0.5)
    assert num_scanned == 1 and len(entries) == 61 and sum(entry.readable for entry in entries.values()) == 60
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith("manifest")] == [out.name]


@pytest.mark.slow
@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGINT])
def test_a_scan_that_is_stopped_leaves_no_process_and_no_manifest(stop: int, tmp_path: Path, out: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    endless(root / "endless.mp4")
    command = [sys.executable, "-m", "kinetext.cli", "scan", str(root), "--out", str(out), "--jobs", "1"]
    with subprocess.Popen(command, cwd=REPOSITORY, stderr=subprocess.PIPE, text=True, start_new_session=True) as run:
        until = time.monotonic() + 120
        while not _reading(root / "endless.mp4"):
            assert time.monotonic() < until and run.poll() is None
            time.sleep(0.1)
        os.killpg(run.pid, stop)  # as a terminal or a scheduler does
        _, errors = run.communicate(timeout=60)
    assert run.returncode == 128 + stop and "Traceback" not in errors
    until = time.monotonic() + 10
    while _reading(root / "endless.mp4"):
        assert time.monotonic() < until
        time.sleep(0.05)
    assert not out.exists()


def _reading(path: Path) -> list[int]:
    """Processes that have a file open."""
    found = []
    for process in psutil.process_iter():
        try:
            if any(Path(file.path) == path for file in process.open_files()):
                found.append(process.pid)
        except psutil.Error:
            continue
    return found


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda root: root.mkdir(), "there is no video below"),
        (lambda root: None, "is no folder; name the one"),
        (lambda root: root.write_bytes(b""), "is no folder; name the one"),
    ],
)
def test_a_folder_without_videos_is_an_error(make, message: str, tmp_path: Path, out: Path) -> None:
    make(tmp_path / "root")
    with pytest.raises((ValueError, OSError), match=message):
        scan_folder(tmp_path / "root", out, jobs=1)


def test_a_manifest_or_journal_of_another_folder_is_refused(root: Path, tmp_path: Path, out: Path) -> None:
    scanned(root, out)
    other = tmp_path / "other"
    other.mkdir()
    shutil.copy(root / "wave/sound.mp4", other)
    with pytest.raises(ValueError, match=re.escape(f"{out} is the manifest of {root}, not of {other}")):
        scan_folder(other, out, jobs=1)
    new = tmp_path / "new.parquet"
    Path(f"{new}.journal").write_text('{"record": "entry", "root": "/elsewhere", "entry": {}}\n')
    with pytest.raises(ValueError, match="unfinished scan of /elsewhere"):
        scan_folder(other, new, jobs=1)
    new.write_text("mine")
    Path(f"{new}.journal").unlink()
    with pytest.raises(ValueError, match="is no manifest of `kinetext scan`"):
        scan_folder(other, new, jobs=1)
    assert not list(tmp_path.glob("new.parquet.*"))  # what is refused leaves nothing


def test_a_place_where_no_manifest_can_be_is_named_with_the_way_out(root: Path, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(IsADirectoryError, match=r"folder is a folder; name a file .*: \S+/folder/manifest\.parquet"):
        scan_folder(root, tmp_path / "folder", jobs=1)
    assert not list(tmp_path.glob("folder.*"))
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match=r"file/m\.parquet\.journal cannot be written \(.*choose another place"):
        scan_folder(root, tmp_path / "file/m.parquet", jobs=1)


def test_links_to_folders_are_followed_each_once(root: Path) -> None:
    (root / "link").symlink_to(root / "wave")
    (root / "wave/back").symlink_to(root)
    names = find_videos(root)
    assert len(names) == 10 and {"link/sound.mp4"} <= set(names)  # `link` comes before `wave`
