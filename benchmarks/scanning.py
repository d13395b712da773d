"""A scan of many small files: some broken, one that never ends, killed in the middle and resumed.

python -m benchmarks.scanning [--files 10000]

The clips are copies of a few rendered ones. One in a hundred is cut off, empty or no video. One is a hole of 4 TiB that
cannot be read to its end. The first run is killed with -9 when half of the files
are done, and the second one goes on; a third one, of `--quick`, starts anew.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import track

from kinetext.data.isolated import default_jobs
from kinetext.data.manifest import Manifest
from kinetext.data.motion_shapes import render_clip, write_clip

from .harness import writing

FILES = 10_000
TIME_LIMIT_S = 10
_KINDS = ("growing", "moving left", "orbiting clockwise", "shrinking")
_FRAMES, _SIZE, _SOURCES = 16, 64, 20


def write_files(root: Path, num_files: int) -> None:
    """Clips of four classes, of which every hundredth is broken, and the one without an end."""
    sources = []
    for number in range(_SOURCES):
        path = root.parent / f"source{number}.mp4"
        frames = render_clip(_KINDS[number % len(_KINDS)], number, num_frames=_FRAMES, size=_SIZE)
        write_clip(frames, path, fps=8)
        sources.append(path.read_bytes())
    for number in track(range(num_files), "writing files", transient=True):
        folder = root / _KINDS[number % len(_KINDS)]
        folder.mkdir(parents=True, exist_ok=True)
        content = sources[number % _SOURCES]
        if number % 100 == 50:
            content = [content[: len(content) // 2], b"", b"<html>404 Not Found</html>"][number // 100 % 3]
        (folder / f"{number:06d}.mp4").write_bytes(content)
    with open(root / _KINDS[0] / "000000_endless.mp4", "wb") as file:
        file.truncate(2**42)


def start(root: Path, out: Path, *options: str) -> subprocess.Popen[bytes]:
    """`kinetext scan`."""
    command = [sys.executable, "-m", "kinetext.cli", "scan", str(root), "--out", str(out), *options]
    command += ["--time-limit", str(TIME_LIMIT_S)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def num_journaled(journal: Path) -> int:
    """Lines of a journal."""
    return journal.read_bytes().count(b"\n") if journal.exists() else 0


def bench(num_files: int = FILES) -> None:
    """Runs all three, and writes what they took."""
    with tempfile.TemporaryDirectory() as folder, writing("scanning") as results:
        root, out = Path(folder, "clips"), Path(folder, "manifest.parquet")
        write_files(root, num_files)
        journal = Path(f"{out}.journal")
        begin = time.monotonic()
        run = start(root, out)
        while num_journaled(journal) < num_files / 2:
            assert run.poll() is None, "the scan ended before it could be killed"
            time.sleep(0.01)
        run.kill()
        run.wait()
        first_s, kept = time.monotonic() - begin, num_journaled(journal)
        begin = time.monotonic()
        assert start(root, out).wait() == 0
        second_s = time.monotonic() - begin
        entries = Manifest.read(out).entries
        begin = time.monotonic()
        assert start(root, Path(folder, "quick.parquet"), "--quick").wait() == 0
        quick_s = time.monotonic() - begin
        reasons = [str(entry.error) for entry in entries.values() if not entry.readable]
        assert len(entries) == num_files + 1 and len(reasons) == num_files // 100 + 1
        figures: dict[str, Any] = {
            "files": f"{len(entries):,}",
            "processes": default_jobs(),
            "until it was killed": f"{first_s:.1f} s, {kept:,} files kept",
            "the rest": f"{second_s:.1f} s",
            "in all": f"{first_s + second_s:.1f} s",
            "anew with --quick": f"{quick_s:.1f} s",
            "readable": len(entries) - len(reasons),
            "took too long": sum(reason.startswith("took longer") for reason in reasons),
        }
        results.append(
            {"benchmark": "scan", "figures": [{"name": name, "value": value} for name, value in figures.items()]}
        )
        Console().print(figures)


def main() -> None:
    """Takes the number of files."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scanning")
    parser.add_argument("--files", type=int, default=FILES)
    bench(parser.parse_args().files)


if __name__ == "__main__":
    main()
