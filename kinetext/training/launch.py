"""Refuses to train when fewer processes know each other than were asked for, or one has several GPUs.

Without a GPU, `accelerate launch` does not say that it starts only one (`--cpu`, or a configuration of MULTI_CPU), or
several that each believe to be alone and write the same files (`--multi_gpu`, and a script that looks for GPUs).
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path


def check_processes(world_size: int) -> None:
    """Raises ValueError, with both numbers and a launch that works, unless all processes asked for train together.

    Args:
        world_size: processes that know each other.
    """
    started = os.environ.get("WORLD_SIZE")  # set by all that start several: torchrun, and accelerate through it
    asked = int(started) if started else _asked_of_accelerate(_parent_command())
    if asked in (None, world_size):
        return
    harm = "; each would train alone and write the same files" if started else ""
    raise ValueError(
        f"the launcher was asked for {asked} processes, and {world_size} would train together{harm}. "
        f"On a CPU: accelerate launch --multi_gpu --num_processes {asked} train.py ... --use_cpu. "
        f"With GPUs: the same without --use_cpu, on a machine where torch sees {asked}."
    )


def check_one_gpu(num_gpus: int) -> None:
    """Raises ValueError where torch would split each batch over several GPUs of one process (DataParallel).

    Args:
        num_gpus: that this process would use; 0 on a CPU.
    """
    if num_gpus > 1:
        raise ValueError(
            f"torch sees {num_gpus} GPUs in one process; use accelerate launch --multi_gpu --num_processes {num_gpus} "
            "train.py ..., or one of them: CUDA_VISIBLE_DEVICES=0."
        )


def _parent_command() -> list[str]:
    """The command line of the process that started this one; empty where the system does not tell."""
    import psutil  # comes with accelerate

    try:
        parent = psutil.Process().parent()
        return [] if parent is None else parent.cmdline()
    except psutil.Error:
        return []


def _asked_of_accelerate(command: Sequence[str]) -> int | None:
    """How many processes an `accelerate launch` names, itself or in its configuration; None where nothing does."""
    arguments = _launch_arguments(command)
    if arguments is None:
        return None
    from accelerate.commands.config.config_args import default_config_file, load_config_from_file
    from accelerate.commands.launch import launch_command_parser

    try:
        options = launch_command_parser().parse_args(arguments)
    except SystemExit:  # of another accelerate than ours, which took what ours does not know
        return None
    if options.num_processes is not None:
        return options.num_processes
    if options.config_file is not None or (Path(default_config_file).is_file() and not options.cpu):
        return load_config_from_file(options.config_file).num_processes
    return None


def _launch_arguments(command: Sequence[str]) -> list[str] | None:
    """What follows `accelerate launch`, `accelerate-launch` or `python -m accelerate.commands.launch`; else None."""
    for place, word in enumerate(command[:3]):
        name, rest = Path(word).name, list(command[place + 1 :])
        if name in ("accelerate-launch", "accelerate.commands.launch"):
            return rest
        if name in ("accelerate", "accelerate.commands.accelerate_cli") and rest[:1] == ["launch"]:
            return rest[1:]
    return None
