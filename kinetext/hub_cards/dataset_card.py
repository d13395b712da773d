"""A description set for the Hub: parquet with a card that says what the texts are, who wrote them, how good they are.

set ──► data/train-00000-of-00001.parquet ─┐
    └─► statistics, check, ratings ──► card ┴──► a folder ──► one commit
"""

from __future__ import annotations

import dataclasses
import inspect
import json
import os
import re
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from huggingface_hub import DatasetCard, DatasetCardData
from huggingface_hub.utils import validate_repo_id

from ..descriptions import load_description_set, shipped_descriptions
from ..descriptions.agreement import Measure, count_answers, measure_agreement
from ..descriptions.files import FILE_ENDINGS, write_atomically, write_parquet
from ..descriptions.load import SHIPPED_SETS
from ..descriptions.prompts import PROMPTS
from ..descriptions.rating import read_answers, text_sha256
from ..descriptions.schema import KINDS, DescriptionRow, DescriptionSet
from ..descriptions.statistics import kind_statistics
from ..descriptions.validate import Finding, check_set, load_token_counter
from . import citations
from .markdown import code, one_line
from .push import check_license, push_folder

__all__ = [
    "LICENSE_OF_SHIPPED_SETS",
    "dataset_card",
    "push_descriptions",
    "write_dataset_folder",
    "write_shipped_cards",
]

LICENSE_OF_SHIPPED_SETS = "apache-2.0"

_TEMPLATE = Path(__file__).parent / "templates" / "dataset_card.md"
_PARQUET = "data/train-00000-of-00001.parquet"
_OURS = "kinetext"  # provider of the texts that were written for this package
_KIND_MEANINGS = {
    "conceptual": "what the motion is, naming no object (MoTED §3.1)",
    "discriminative": "what tells the motion from that of `contrast_class`, a class it is confused with (MoTED §3.1)",
    "characteristic": "the motion of actors and objects; `masked_text` without the objects' names (Devaraj et al.)",
    "action": "what the action is, motion or not (Devaraj et al.)",
}
_CHECKED = "coverage, duplicates, leaks of the class name, encoding, language, masking"
_SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"))  # the Hub's own steps
_LARGEST_SIZE = "100K<n<1M"


def push_descriptions(
    source: str | os.PathLike[str],
    repo_id: str,
    *,
    license: str | None,
    private: bool = False,
    ratings: Sequence[Path] = (),
    count_tokens: Callable[[str], int] | None = None,
    with_faults: bool = False,
) -> str:
    """Pushes a set and its card to a data set of the Hub in one commit; returns the commit's hash.

    Args:
        source: the set, as of `load_description_set`.
        repo_id: `owner/name`; made if it is not there. Parquet files that it holds are replaced.
        license: licence id of the Hub; None only for a shipped set.
        private: make it private; an existing public repository is refused.
        ratings: files of `kinetext describe rate` to summarise in the card.
        count_tokens: of `load_token_counter`; without it lengths are not looked at.
        with_faults: also a set that does not pass `kinetext describe check`; the card lists what is wrong.

    Raises:
        ValueError: the set does not pass the check, `repo_id` or the licence is none, or none of the ratings is about
            these texts.
        OSError: as `push_folder`.
    """
    with tempfile.TemporaryDirectory() as folder:
        write_dataset_folder(
            source,
            repo_id,
            folder,
            license=license,
            ratings=ratings,
            count_tokens=count_tokens,
            with_faults=with_faults,
        )
        return push_folder(
            Path(folder),
            repo_id,
            repo_type="dataset",
            private=private,
            message="Motion descriptions",
            replaced="*.parquet",
        )


def write_dataset_folder(
    source: str | os.PathLike[str],
    repo_id: str,
    folder: str | os.PathLike[str],
    *,
    license: str | None,
    ratings: Sequence[Path] = (),
    count_tokens: Callable[[str], int] | None = None,
    with_faults: bool = False,
) -> None:
    """Writes into `folder`, which is new or empty, what `push_descriptions` pushes; arguments and errors as there."""
    folder = Path(folder)
    _check_repo_id(repo_id)
    if folder.is_dir() and any(folder.iterdir()):
        raise ValueError(f"{folder} is not empty; name a new folder, so that no file of yours is replaced.")
    descriptions = load_description_set(source)
    card = dataset_card(
        descriptions,
        repo_id=repo_id,
        license=_license(source, license),
        ratings=ratings,
        count_tokens=count_tokens,
        with_faults=with_faults,
    )
    write_parquet(descriptions, folder / _PARQUET)
    write_atomically(folder / "README.md", card.encode())


def dataset_card(
    descriptions: DescriptionSet,
    *,
    repo_id: str | None,
    license: str,
    ratings: Sequence[Path] = (),
    count_tokens: Callable[[str], int] | None = None,
    with_faults: bool = False,
) -> str:
    """The card of a set; same inputs, same text.

    Args:
        descriptions: the set.
        repo_id: `owner/name` it is pushed to; None for a set that ships with kinetext.
        license: licence id of the Hub.
        ratings: files of answers; those about other texts are left out.
        count_tokens: of `load_token_counter`.
        with_faults: lists the errors that `check_set` finds, instead of refusing.

    Raises:
        ValueError: the set does not pass `check_set`, or none of the ratings is about these texts.
    """
    check = check_set(descriptions, count_tokens=count_tokens)
    if check.errors and not with_faults:
        first = check.errors[0]
        raise ValueError(
            f"{len(check.errors)} errors in the texts of {descriptions.dataset}, the first of {first.class_name!r}: "
            f"{first.message}. `kinetext describe check` lists them; --with-faults lists them in the card instead."
        )
    example = [row for row in descriptions.rows if row.class_id == 0]
    card = DatasetCard.from_template(
        _card_data(descriptions, license, with_files=repo_id is not None),
        template_path=str(_TEMPLATE),
        title=f"Motion descriptions of {descriptions.dataset}",
        dataset=code(descriptions.dataset),
        repo_id=repo_id,
        source=json.dumps(repo_id or descriptions.dataset),
        num_classes=len(descriptions.class_names),
        num_texts=len(descriptions.rows),
        kinds_argument=""
        if set(descriptions.kinds) & {"conceptual", "discriminative"}
        else _kinds_argument(descriptions),
        columns=list(_columns()),
        kinds=list(_kind_rows(descriptions, count_tokens)),
        kind_meanings=[f"{kind}: {_KIND_MEANINGS[kind]}" for kind in descriptions.kinds],
        example_class=code(example[0].class_name),
        examples=[(_spoken_kind(row), code(row.text)) for row in example],
        provenance=list(_provenance(descriptions)),
        prompts=list(_prompts(descriptions)),
        checked=_CHECKED if count_tokens is None else f"length, {_CHECKED}",
        errors=[_finding_line(finding) for finding in check.errors],
        num_warnings=len(check.findings) - len(check.errors),
        ratings=_rating_rows(descriptions, ratings),
        is_ours=_is_ours(descriptions),
        license=license,
        citations=list(_citations(descriptions)),
    )
    return str(card)


def write_shipped_cards(tokenizer: str) -> None:
    """Writes the cards of the sets that ship with kinetext beside them; after a change of texts or template.

    Args:
        tokenizer: folder or Hub id of a CLIP, whose tokens are counted.
    """
    count_tokens = load_token_counter(tokenizer)
    for name in shipped_descriptions():
        card = dataset_card(
            load_description_set(name), repo_id=None, license=LICENSE_OF_SHIPPED_SETS, count_tokens=count_tokens
        )
        write_atomically(SHIPPED_SETS / f"{name}.md", card.encode())


def _check_repo_id(repo_id: str) -> None:
    validate_repo_id(repo_id)
    if "/" not in repo_id or repo_id.endswith(FILE_ENDINGS):
        raise ValueError(f"{repo_id!r} is no id of a data set: it reads owner/name, and does not end like a file.")


def _finding_line(finding: Finding) -> str:
    return f"{code(finding.class_name)}, {finding.kind}: {one_line(finding.message)}"


def _license(source: str | os.PathLike[str], license: str | None) -> str:
    if license is not None:
        check_license(license)
        return license
    if str(source) not in shipped_descriptions():
        raise ValueError(
            "say under which licence others may use the texts, e.g. --license cc-by-4.0 (the Hub's ids; imported texts "
            "have that of their source, generated ones what the provider's terms allow)."
        )
    return LICENSE_OF_SHIPPED_SETS


def _card_data(descriptions: DescriptionSet, license: str, *, with_files: bool) -> DatasetCardData:
    files = [{"config_name": "default", "data_files": [{"split": "train", "path": _PARQUET}]}]
    return DatasetCardData(
        language="en",
        license=license,
        pretty_name=f"Motion descriptions of {descriptions.dataset}",
        size_categories=next((name for size, name in _SIZES if len(descriptions.rows) < size), _LARGEST_SIZE),
        task_categories=["video-classification", "zero-shot-classification"],
        language_creators="machine-generated" if any(row.model for row in descriptions.rows) else "found",
        tags=["kinetext", "motion-descriptions", "action-recognition", descriptions.dataset],
        configs=files if with_files else None,
    )


def _kinds_argument(descriptions: DescriptionSet) -> str:
    return f", kinds={list(descriptions.kinds)!r}"


def _columns() -> Iterator[tuple[str, str, str]]:
    """Name, type and meaning of every column, from the docstring of `DescriptionRow`."""
    arguments = (inspect.getdoc(DescriptionRow) or "").partition("Args:\n")[2]
    types = {"class_id": "int64", "rank": "int64"}
    for name, meaning in re.findall(r"^ {4}(\w+): (.+(?:\n {8}.+)*)", arguments, re.MULTILINE):
        yield (
            name,
            types.get(name, "string"),
            one_line(meaning).replace("`KINDS`", ", ".join(KINDS)).replace("|", "\\|"),
        )


def _kind_rows(descriptions: DescriptionSet, count_tokens: Callable[[str], int] | None) -> Iterator[dict[str, str]]:
    for numbers in kind_statistics(descriptions, count_tokens=count_tokens):
        yield {
            "kind": numbers.kind,
            "texts": str(numbers.num_texts),
            "per_class": f"{numbers.num_texts / len(descriptions.class_names):g}",
            "sentences": f"{numbers.sentences:.1f}",
            "words": f"{numbers.words:.1f} ({numbers.fewest_words}-{numbers.most_words})",
            "verbs": f"{numbers.verbs:.1f}",
            "longest": "not counted" if numbers.longest is None else str(numbers.longest),
        }


def _spoken_kind(row: DescriptionRow) -> str:
    return f"{row.kind}, against {code(row.contrast_class)}" if row.contrast_class else row.kind


def _provenance(descriptions: DescriptionSet) -> Iterator[str]:
    """One line for all texts that were made in the same way, with the first and the last day."""
    days = defaultdict(list)
    for row in descriptions.rows:
        days[row.kind, row.provider, row.model, row.prompt_id, row.params].append(row.created_at[:10])
    for (kind, provider, model, prompt_id, params), own in days.items():
        parts = [f"{len(own)} {kind}", code(provider) if provider else "unknown provider"]
        parts += [f"model {code(model)}"] if model else []
        parts += [f"prompt {code(prompt_id)}"] if prompt_id else []
        parts += [f"parameters {code(params)}"] if params != "{}" else []
        parts += [" to ".join(dict.fromkeys((min(own), max(own))))] if min(own) else []
        yield ", ".join(parts)


def _prompts(descriptions: DescriptionSet) -> Iterator[dict[str, str]]:
    used = {row.prompt_id for row in descriptions.rows}
    for prompt in PROMPTS.values():
        if prompt.prompt_id in used:
            names = {"name": "<class>", "contrast": "<neighbour>"}
            yield {"id": prompt.prompt_id, "text": prompt.messages(**names)[0]["content"]}


def _is_ours(descriptions: DescriptionSet) -> bool:
    return all(row.provider == _OURS for row in descriptions.rows)


def _citations(descriptions: DescriptionSet) -> Iterator[str]:
    if set(descriptions.kinds) & {"conceptual", "discriminative"}:
        yield citations.MOTED
    if set(descriptions.kinds) & {"characteristic", "action"}:
        yield citations.DEVARAJ


def _rating_rows(descriptions: DescriptionSet, paths: Sequence[Path]) -> list[list[str]]:
    """Criterion, raters, texts, mean, identical ratings, alpha; of the answers that are about texts of this set."""
    if not paths:
        return []
    own = {text_sha256(row.text) for row in descriptions.rows}
    files = [read_answers(path) for path in paths]
    about = [
        [
            # Whatever the raters' copies were called.
            dataclasses.replace(answer, dataset=descriptions.dataset, set_name=descriptions.dataset)
            for answer in file
            if answer.text_sha256 in own and answer.other_text_sha256 is None
        ]
        for file in files
    ]
    if not any(about):
        raise ValueError(
            f"none of the {sum(map(len, files))} answers in {', '.join(map(str, paths))} is about the texts of "
            f"{descriptions.dataset} as they are now; rate them with `kinetext describe rate`."
        )
    return [
        [
            measured.question,
            str(measured.num_raters),
            str(measured.num_texts),
            _figure(measured.mean, "{:.2f}"),
            _figure(measured.percentage, "{:.1f} %"),
            _figure(measured.alpha, "{:.2f}"),
        ]
        for measured in measure_agreement(count_answers(*about).answers)
    ]


def _figure(measure: Measure, pattern: str) -> str:
    if measure.value is None:
        return measure.note
    text = pattern.format(measure.value)
    return text if measure.low is None else f"{text} ({measure.low:.2f} to {measure.high:.2f})"
