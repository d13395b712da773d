"""`kinetext prepare`: videos re-encoded for training."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from .console import report_errors, say, table_of
from .progress import show_files
from .scan import show_failures

__all__ = ["prepare"]


@report_errors
def prepare(
    root: Annotated[Path, typer.Argument(help="Folder whose videos are re-encoded, at any depth.")],
    out: Annotated[Path, typer.Argument(help="Folder for them: same paths, suffix .mp4.")],
    short_side: Annotated[int, typer.Option(help="Pixels of the shorter side; smaller videos keep theirs.")] = 256,
    gop: Annotated[int, typer.Option(help="Most frames from one key frame to the next.")] = 12,
    crf: Annotated[int, typer.Option(help="Quality of x264: 1 (best) to 51; better where a frame needs it.")] = 18,
    shards: Annotated[
        int | None, typer.Option(min=1, help="Also pack them into tar shards of so many MiB, in OUT/shards.")
    ] = None,
    jobs: Annotated[int | None, typer.Option(min=1, help="Files encoded at the same time; all processors.")] = None,
    time_limit: Annotated[float, typer.Option(min=0.1, help="Seconds that a file may take.")] = 600.0,
) -> None:
    """Re-encode videos so that training reads them fast: H.264, small, short groups, the same frames at the same times.

    Every file is compared with its source, frame by frame: at least 30 dB PSNR against what 4:2:0 can hold of the
    source at that size. What was interrupted goes on, and what failed is tried again.

    Exit code 1 where more videos failed than training allows to be missing: more than a tenth. The others are there.
    """
    from ..data.annotations import MAX_FAILED_SHARE
    from ..data.isolated import default_jobs
    from ..data.manifest import readable_name
    from ..data.prepare import measure_speed_up, prepare_folder
    from ..data.reencode import EncodeSettings
    from ..data.scan import find_videos
    from ..data.shard_packing import pack_shards, shard_keys

    if shards is not None:
        shard_keys(find_videos(root))  # its errors, before anything is encoded
    settings = EncodeSettings(short_side=short_side, gop=gop, crf=crf)
    with show_files("encoding") as on_progress:
        done = prepare_folder(
            root, out, settings, jobs=jobs or default_jobs(), time_limit_s=time_limit, on_progress=on_progress
        )
    show_failures({readable_name(name): reason for name, reason in done.failures.items()})
    total = len(done.clips) + len(done.failures)
    say(
        f"[bold]{len(done.clips):,}[/] of {total:,} videos are in {escape(str(out))} ({done.num_encoded:,} encoded now)"
    )
    if done.lists:
        shown = escape(readable_name(done.lists[0]))
        say(
            f"{len(done.lists):,} lists stay where they are, e.g. {shown}; with data_root={escape(str(out))} their "
            "videos are found, whose names now end in .mp4"
        )
    if not done.clips:
        raise typer.Exit(1)
    worst = min(done.clips.values(), key=lambda row: row["min_psnr_db"])
    mean = sum(row["mean_psnr_db"] for row in done.clips.values()) / len(done.clips)
    table = table_of("", "source#", "prepared#", "ratio#")
    sizes = done.total("source_bytes"), done.total("bytes")
    table.add_row("MB", *(f"{size / 1e6:,.1f}" for size in sizes), f"{sizes[1] / sizes[0]:.2f}")
    Console().print(table)
    say(
        f"PSNR of frames: {mean:.1f} dB, the worst {worst['min_psnr_db']:.1f} in {escape(readable_name(worst['path']))}"
    )
    if shards is not None:
        paths = pack_shards(out, [row["path"] for row in done.clips.values()], shards * 2**20)
        say(f"packed into {len(paths):,} shards: {escape(str(paths[0].parent))}")
    if (speed_up := measure_speed_up(root, out, done)) is not None:
        say(f"a training sample of 8 frames is read [bold]{speed_up:.1f} ×[/] as fast as from the source (median)")
    if len(done.failures) > MAX_FAILED_SHARE * total:
        raise ValueError(
            f"{len(done.failures):,} of {total:,} videos failed and are not in {out}: more than "
            f"max_failed_share={MAX_FAILED_SHARE:g} of them. Repair or remove these, or train on the others."
        )
