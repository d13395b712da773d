"""Motion-description retrieval (Devaraj et al., Tables 2 and 3) at small scale: which text fits a clip of Weizmann?

kinetext cross-validate recipes/weizmann_{moted,8f,mean,devaraj}.yaml --data-root ../shared/data/weizmann \\
    --output-dir runs/loso --group-by '([a-z]+)_' --jobs 2
python -m benchmarks.motion_retrieval --runs runs/loso

Each of the nine people is evaluated by models that were trained on the other eight, so every clip counts once and the
people are the splits. What is trained starts from the small CLIP of `make demo`, which has seen rendered shapes alone:
the numbers compare these models with each other, and with no published one.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import track
from rich.table import Table

from kinetext.data.clip_lists import ClipList
from kinetext.descriptions import load_descriptions
from kinetext.evaluation.classify import load_model
from kinetext.evaluation.evaluate import evaluate_model, read_clips_of
from kinetext.evaluation.protocol import Protocol, load_protocol
from kinetext.training.cross_validation import group_clips

from .harness import REPOSITORY, writing

WEIZMANN = REPOSITORY.parent / "shared" / "data" / "weizmann"
VANILLA = REPOSITORY / "demo" / "clip"
PROTOCOLS = {
    "names": "weizmann",
    "object": "motion-retrieval-weizmann",
    "masked object": "motion-retrieval-weizmann-masked",
    "with distractors": "motion-retrieval-weizmann-distractors",
}
# name in the table -> folder of its runs, one for each person; None for the CLIP that all were made from
METHODS = {
    "vanilla CLIP, mean over frames": None,
    "CLIP fine-tuned on names, mean over frames": "weizmann_mean",
    "X-CLIP, trained on names": "weizmann_8f",
    "MoTED, trained on names and descriptions": "weizmann_moted",
    "Devaraj et al., trained on descriptions": "weizmann_devaraj",
}
_PERSON = "([a-z]+)_"


def measure(method: str, runs: Path, protocol_name: str, data_root: Path) -> dict[str, Any]:
    """Metrics of one method under one protocol: of each person, their mean and deviation, and of all clips."""
    protocol = load_protocol(PROTOCOLS[protocol_name])
    (every,) = read_clips_of(protocol, data_root=data_root)
    people = group_clips(every, _PERSON)
    of_person = {person: _evaluate(method, runs, person, files, every, protocol) for person, files in people.items()}
    primary = "recall_at_1" if protocol.task == "retrieval" else "top1"
    right = sum(result[f"{primary}_count"] for result in of_person.values())
    shares = [result[primary] for result in of_person.values()]
    listed = sum(result["num_listed"] for result in of_person.values())
    return {
        "method": method,
        "protocol": PROTOCOLS[protocol_name],
        "texts": len(protocol.split_texts(protocol.splits[0])),
        "right": right,
        "listed": listed,
        "mean": statistics.fmean(shares),
        "std": statistics.stdev(shares),
        "of_person": of_person,
    }


def _evaluate(
    method: str, runs: Path, person: str, files: Sequence[str], every: ClipList, protocol: Protocol
) -> dict[str, float]:
    """Metrics of the clips of a person, by the model that did not see them."""
    folder = VANILLA if METHODS[method] is None else runs / METHODS[method] / person
    model, processor = load_model(str(folder))
    own = replace(every, clips=tuple(clip for clip in every.clips if Path(clip.clip_id).name in files))
    split = replace(protocol.splits[0], name=person, num_clips=len(own), clips_sha256=None)
    of_person = replace(protocol, splits=(split,))
    read = load_descriptions("weizmann").for_classes(protocol.classes)
    with tempfile.TemporaryDirectory() as out:
        result = evaluate_model(
            model,
            processor,
            of_person,
            [own],
            name=method,
            folder=Path(out),
            descriptions=read if model.config.model_type == "moted" else None,
        )
    return result.metrics()


def table_of(rows: Sequence[dict[str, Any]]) -> Table:
    """A row for each method, a column for each protocol: the share of clips whose text came first."""
    table = Table(title="first text right, % of clips: mean ± std over nine people", title_justify="left")
    table.add_column("method")
    for name in PROTOCOLS:
        table.add_column(name, justify="right")
    for method in METHODS:
        own = {row["protocol"]: row for row in rows if row["method"] == method}
        cells = [own[protocol] for protocol in PROTOCOLS.values()]
        table.add_row(method, *(f"{100 * row['mean']:.1f} ± {100 * row['std']:.1f}" for row in cells))
    texts = {row["protocol"]: row["texts"] for row in rows}
    table.add_section()
    table.add_row("chance", *(f"{100 / texts[protocol]:.1f}" for protocol in PROTOCOLS.values()))
    return table


def main() -> None:
    """Measures every method under every protocol and writes results/motion_retrieval.json."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.motion_retrieval", description="Retrieves descriptions."
    )
    parser.add_argument("--runs", type=Path, default=REPOSITORY / "runs" / "loso", help="of `kinetext cross-validate`")
    parser.add_argument("--data-root", type=Path, default=WEIZMANN, help="the Weizmann clips, <class>/<clip>")
    arguments = parser.parse_args()
    pairs = [(method, name) for name in PROTOCOLS for method in METHODS]
    with writing("motion_retrieval") as results:
        for method, name in track(pairs, "evaluating"):
            results.append(measure(method, arguments.runs, name, arguments.data_root))
    Console().print(table_of(results))


if __name__ == "__main__":
    main()
