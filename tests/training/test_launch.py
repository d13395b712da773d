"""Launchers that start fewer processes than asked are found out, whatever they are called by."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from kinetext.training.launch import _asked_of_accelerate, check_processes

REPOSITORY = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
MULTI_CPU = "compute_environment: LOCAL_MACHINE\ndistributed_type: MULTI_CPU\nnum_processes: 3\nuse_cpu: true\n"

SCRIPT = """
import sys
from kinetext.training.arguments import VideoTextTrainingArguments
from kinetext.training.launch import check_processes

args = VideoTextTrainingArguments(output_dir="unused", use_cpu="--use_cpu" in sys.argv)
check_processes(args.world_size)
print(f"trains as one of {args.world_size}")
"""


@pytest.fixture
def script(tmp_path: Path) -> str:
    path = tmp_path / "script.py"
    path.write_text(SCRIPT)
    return str(path)


def launch(command: list[str], home: Path) -> subprocess.CompletedProcess[str]:
    """Runs a command of the environment, away from configurations of whoever runs the tests."""
    environment = {
        **{name: value for name, value in os.environ.items() if name != "WORLD_SIZE"},
        "PYTHONPATH": str(REPOSITORY),
        "OMP_NUM_THREADS": "1",
        "HF_HOME": str(home),
        "CUDA_VISIBLE_DEVICES": "",
    }
    with subprocess.Popen(
        [str(BIN / command[0]), *command[1:]],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            output, errors = process.communicate(timeout=120)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGTERM)  # a launcher that is killed leaves its workers behind
            raise
    return subprocess.CompletedProcess(command, process.returncode, output, errors)


def test_a_launcher_on_the_cpu_that_starts_one_process_of_two_is_refused(script: str, tmp_path: Path) -> None:
    result = launch(["accelerate", "launch", "--cpu", "--num_processes", "2", script, "--use_cpu"], tmp_path)

    assert result.returncode != 0
    assert "asked for 2 processes, and 1 would train together. On a CPU: accelerate launch --multi_gpu" in result.stderr
    assert "trains" not in result.stdout


@pytest.mark.slow
@pytest.mark.parametrize("options", [[], ["--num_machines", "1", "--mixed_precision", "no"]])
def test_a_configuration_of_several_cpu_processes_is_refused(options: list[str], script: str, tmp_path: Path) -> None:
    (tmp_path / "cpu.yaml").write_text(MULTI_CPU)
    result = launch(
        ["accelerate", "launch", "--config_file", str(tmp_path / "cpu.yaml"), *options, script, "--use_cpu"], tmp_path
    )

    assert result.returncode != 0 and "asked for 3 processes, and 1 would train together." in result.stderr


@pytest.mark.slow
def test_processes_that_do_not_know_each_other_are_refused(script: str, tmp_path: Path) -> None:
    command = ["accelerate", "launch", "--multi_gpu", "--num_processes", "2", "--main_process_port", "0", script]
    result = launch(command, tmp_path)

    assert result.returncode != 0
    assert "and 1 would train together; each would train alone and write the same files." in result.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    "command",
    [
        ["accelerate", "launch", "--multi_gpu", "--num_processes", "2", "--main_process_port", "0"],
        ["torchrun", "--standalone", "--nproc_per_node", "2"],
    ],
    ids=["accelerate", "torchrun"],
)
def test_launches_that_work_are_let_through(command: list[str], script: str, tmp_path: Path) -> None:
    result = launch([*command, script, "--use_cpu"], tmp_path)

    assert result.returncode == 0, result.stderr
    assert result.stdout.count("trains as one of 2") == 2


@pytest.mark.slow
@pytest.mark.parametrize("command", [["python"], ["accelerate", "launch", "--cpu"], ["accelerate", "launch"]])
def test_one_process_is_let_through(command: list[str], script: str, tmp_path: Path) -> None:
    result = launch([*command, script, "--use_cpu"], tmp_path)

    assert result.returncode == 0, result.stderr
    assert "trains as one of 1" in result.stdout


@pytest.mark.parametrize(
    "program",
    [
        ["/venv/bin/python3", "/venv/bin/accelerate", "launch"],
        ["accelerate", "launch"],
        ["/venv/bin/python3", "/venv/bin/accelerate-launch"],
        ["python", "-m", "accelerate.commands.launch"],
        ["python", "-m", "accelerate.commands.accelerate_cli", "launch"],
    ],
)
def test_every_spelling_of_the_launcher_is_read(program: list[str]) -> None:
    script = ["train.py", "recipe.yaml", "--num_processes", "7", "--use_cpu"]  # the script's own options are its own

    assert _asked_of_accelerate([*program, "--cpu", "--num-processes=2", *script]) == 2
    assert _asked_of_accelerate([*program, "--num_processes", "4", "-m", "package.module", *script[2:]]) == 4


@pytest.mark.parametrize(
    "command",
    [
        [],
        ["/bin/bash", "-c", "accelerate launch --num_processes 2 train.py"],
        ["python", "-m", "pytest", "-n", "2"],
        ["accelerate", "launch", "--num_processes", "2", "--option-of-another-version", "x", "train.py"],
        ["accelerate", "test"],
        ["accelerate", "launch", "--cpu", "train.py"],
    ],
)
def test_what_does_not_say_how_many_raises_no_alarm(command: list[str]) -> None:
    assert _asked_of_accelerate(command) is None


def test_a_configuration_says_how_many(tmp_path: Path) -> None:
    config = tmp_path / "cpu.yaml"
    config.write_text(MULTI_CPU)

    assert _asked_of_accelerate(["accelerate", "launch", "--config_file", str(config), "train.py"]) == 3
    assert (
        _asked_of_accelerate(["accelerate", "launch", "--config_file", str(config), "--num_processes", "1", "t"]) == 1
    )


def test_the_error_says_both_numbers_and_what_to_write(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    message = (
        "the launcher was asked for 2 processes, and 1 would train together; each would train alone and write the same "
        "files. On a CPU: accelerate launch --multi_gpu --num_processes 2 train.py ... --use_cpu. With GPUs: the same "
        "without --use_cpu, on a machine where torch sees 2."
    )

    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        check_processes(1)
    check_processes(2)
