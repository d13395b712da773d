"""The folder of a run as a model repository: weights, processor, code, card, report and results, and nothing else."""

from __future__ import annotations

import json
import os
import re
import shlex
from collections.abc import Sequence
from pathlib import Path

from huggingface_hub import ModelCard

from .. import modeling, processing
from ..descriptions.files import write_atomically
from .measured import EVALUATION_FILES, HUB_RESULTS, add_results
from .push import check_license, push_folder

__all__ = ["push_run"]

_WEIGHTS = ["model*.safetensors", "model.safetensors.index.json"]
_OF_AN_EVALUATION = [  # or of the course of a run; not always there
    "results.json", "predictions.parquet", "confusion.png", "curves.png", EVALUATION_FILES, HUB_RESULTS,
]  # fmt: skip

# What runs and `save_pretrained` write. All else stays here: checkpoints, pickles, and what others keep in the folder.
_OURS = [
    *_WEIGHTS, *_OF_AN_EVALUATION, "README.md", "report.md", "config.json", "processor_config.json",
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.json",
    "merges.txt", "chat_template.jinja",
    *(path.name for package in (modeling, processing) for path in Path(package.__path__[0]).glob("*.py")),
]  # fmt: skip
_NEEDED = ("config.json", "processor_config.json", "*.safetensors", "README.md")
_LOADED_NAME = re.compile(r'from_pretrained\("(?:[^"\\]|\\.)*"')


def push_run(
    folder: str | os.PathLike[str],
    repo_id: str,
    *,
    private: bool = False,
    message: str = "Trained with kinetext",
    license: str | None = None,
    results: Sequence[str | os.PathLike[str]] = (),
) -> str:
    """Pushes what a run wrote to a model repository in one commit; returns the commit's hash.

    Model, processor, their code, card, report, curves and results are pushed, and nothing else that lies in the
    folder. The card is changed there first: it names the licence and loads `repo_id`.

    Args:
        folder: with a saved model, its processor and card.
        repo_id: `owner/name`; made if it is not there. Weights and results that it holds are replaced.
        private: make it private; an existing public repository is refused.
        message: of the commit.
        license: licence id of the Hub for the weights; needed where the card names none.
        results: of `kinetext eval`, which the card shows instead of what it showed (`add_results`).

    Raises:
        ValueError: the folder holds no complete model, no licence is known, or `repo_id` is no id.
        PermissionError: as `push_folder`; says how to push again.
        ConnectionError: as `push_folder`; says how to push again.
    """
    folder = Path(folder)
    missing = [name for name in _NEEDED if not any(folder.glob(name))]
    if missing:
        raise ValueError(f"{folder} has no {', no '.join(missing)}; push the output folder of a finished run.")
    _check_licensed(folder / "README.md", license)
    if results:
        add_results(folder, results)
    _address_card(folder / "README.md", repo_id, license)
    names = sorted(
        {path.relative_to(folder).as_posix() for pattern in _OURS for path in folder.glob(pattern) if path.is_file()}
    )
    try:
        return push_folder(
            folder,
            repo_id,
            repo_type="model",
            private=private,
            message=message,
            replaced=[*_WEIGHTS, *_OF_AN_EVALUATION],
            only=names,
        )
    except (PermissionError, ConnectionError) as error:
        again = shlex.join(["kinetext", "push", "model", str(folder), repo_id, *(["--private"] if private else [])])
        raise type(error)(f"{error}\nThe folder {folder} is complete; push it again with: {again}") from error


def _check_licensed(path: Path, license: str | None) -> None:
    """Raises ValueError if `license` is no licence id, or neither it nor the card names one."""
    if license is not None:
        check_license(license)
    elif not ModelCard.load(path).data.license:
        raise ValueError(
            f"{path} names no licence, and without one nobody may use the weights: give --license, e.g. apache-2.0 or "
            "cc-by-nc-4.0 (the Hub's ids; data sets such as Kinetics may ask for a non-commercial one)."
        )


def _address_card(path: Path, repo_id: str, license: str | None) -> None:
    """Has the card name the licence that is given, and its code load the repository that it will lie in."""
    card = ModelCard.load(path)
    if license is not None:
        card.data.license = license
    card.text = _LOADED_NAME.sub(lambda _: f"from_pretrained({json.dumps(repo_id)}", card.text)
    write_atomically(path, str(card).encode())
