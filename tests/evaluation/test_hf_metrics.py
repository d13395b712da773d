"""The metrics as modules of `evaluate`: loaded by path, offline, from anywhere."""

import ast
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from kinetext.evaluation.metrics import (
    METRICS,
    label_ranks,
    mean_average_precision,
    mean_class_accuracy,
    median_rank,
    path_of,
    recall_at,
)

REPOSITORY = Path(__file__).resolve().parents[2]
evaluate = pytest.importorskip("evaluate", reason="needs the extra kinetext[eval]")


@pytest.fixture
def load(tmp_path: Path) -> Callable[[str], Any]:
    """Loads a metric that keeps what it is given in a folder of the test."""
    return lambda name: evaluate.load(path_of(name), cache_dir=str(tmp_path))


SCORES = torch.tensor([[0.5, 0.3, 0.2], [0.2, 0.2, 0.6], [0.1, 0.1, 0.8], [0.4, 0.4, 0.2]])
LABELS = torch.tensor([0, 2, 1, 1])


def test_topk_accuracy_is_that_of_the_functions(load: Callable[[str], Any]) -> None:
    found = load("topk_accuracy").compute(predictions=SCORES, references=LABELS, k=[1, 2])
    ranks = label_ranks(SCORES, LABELS)
    expected = {"top1": 0.5, "top2": 0.75, "mean_class_accuracy": mean_class_accuracy(ranks == 1, LABELS, 3)}
    assert found == pytest.approx(expected)
    assert list(load("topk_accuracy").compute(predictions=SCORES, references=LABELS)) == [
        "top1",
        "top5",
        "mean_class_accuracy",
    ]


def test_text_retrieval_is_that_of_the_functions(load: Callable[[str], Any]) -> None:
    ranks = label_ranks(SCORES, LABELS)
    found = load("text_retrieval").compute(predictions=SCORES.tolist(), references=LABELS.tolist())
    recalls = {f"recall_at_{k}": recall_at(ranks, k) for k in (1, 5, 10)}
    assert found == {**recalls, "median_rank": median_rank(ranks)}


def test_multilabel_map_takes_any_number_of_classes_per_clip(load: Callable[[str], Any]) -> None:
    relevant = torch.tensor([[1, 0, 1], [0, 0, 0], [0, 1, 0], [1, 1, 0]]).bool()
    found = load("multilabel_map").compute(predictions=SCORES, references=[[0, 2], [], [1], [1, 0]])
    assert found == {"map": pytest.approx(mean_average_precision(SCORES, relevant))}
    with pytest.raises(ValueError, match="a clip shows the class 3, which has no score: with 3 scores"):
        load("multilabel_map").compute(predictions=SCORES, references=[[0], [3], [1], [1]])


def test_multilabel_map_refuses_columns_of_0_and_1(load: Callable[[str], Any]) -> None:
    with pytest.raises(
        ValueError, match=r"shows the classes \[1, 0, 1\], one of them twice; give ids, not 0/1 columns"
    ):
        load("multilabel_map").compute(predictions=SCORES, references=[[1, 0, 1], [0, 0, 0], [0, 1, 0], [1, 1, 0]])


@pytest.mark.parametrize("name", ["topk_accuracy", "text_retrieval"])
def test_k_is_one_or_several_whole_numbers(name: str, load: Callable[[str], Any]) -> None:
    metric = load(name)
    one = metric.compute(predictions=SCORES, references=LABELS, k=1)
    assert one == metric.compute(predictions=SCORES, references=LABELS, k=[1])
    for wrong in (0, [0], [1, -1], [1.5], [], None):
        with pytest.raises(ValueError, match=r"must be whole numbers of at least 1, such as \[1, 5\]"):
            metric.compute(predictions=SCORES, references=LABELS, k=wrong)


@pytest.mark.parametrize("name", METRICS)
def test_no_clips_are_refused(name: str, load: Callable[[str], Any]) -> None:
    with pytest.raises(ValueError, match="there are no clips to measure; predictions and references are empty"):
        load(name).compute(predictions=[], references=[])


@pytest.mark.parametrize("name", METRICS)
def test_clips_may_come_one_by_one_and_in_batches(name: str, load: Callable[[str], Any]) -> None:
    references: list[Any] = [[0], [2], [1], [1]] if name == "multilabel_map" else [0, 2, 1, 1]
    metric = load(name)
    whole = metric.compute(predictions=SCORES, references=references)
    metric.add(prediction=SCORES[0], reference=references[0])
    metric.add_batch(predictions=SCORES[1:], references=references[1:])
    assert metric.compute() == whole


@pytest.mark.parametrize("name", METRICS)
def test_a_module_tells_how_it_is_used_and_its_example_is_true(name: str, load: Callable[[str], Any]) -> None:
    metric = load(name)
    assert metric.description and "predictions: per clip" in metric.inputs_description
    *code, result = [line.strip() for line in metric.inputs_description.partition("Examples:")[2].strip().splitlines()]
    lines = [line.removeprefix(">>> ") for line in code]
    scope: dict[str, Any] = {"evaluate": evaluate, "path_of": path_of}
    exec("\n".join(lines[:-1]), scope)
    assert eval(lines[-1], scope) == ast.literal_eval(result)


def test_a_fresh_process_in_another_folder_loads_them_without_network(tmp_path: Path) -> None:
    code = """
import socket
def refuse(*arguments, **options):
    raise OSError("no network in this test")
socket.getaddrinfo = socket.socket.connect = refuse
import evaluate
from kinetext.evaluation.metrics import METRICS, path_of
for name in METRICS:
    references = [[0], [1]] if name == "multilabel_map" else [0, 1]
    print(evaluate.load(path_of(name)).compute(predictions=[[0.9, 0.1], [0.2, 0.8]], references=references))
"""
    environment = {**os.environ, "HF_HOME": str(tmp_path / "hf"), "PYTHONPATH": str(REPOSITORY)}
    environment.pop("HF_HUB_OFFLINE", None)  # what is local needs no such setting
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    shown = [ast.literal_eval(line) for line in done.stdout.splitlines()]
    assert len(shown) == len(METRICS) and {value for one in shown for value in one.values()} == {1.0}


def test_every_folder_is_a_metric() -> None:
    folders = [path.name for path in (REPOSITORY / "kinetext/evaluation/hf_metrics").iterdir() if path.is_dir()]
    assert sorted(set(folders) - {"__pycache__"}) == sorted(METRICS)
