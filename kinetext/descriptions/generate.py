"""Descriptions of a list of classes, asked of a language model: which questions, and from their answers the files.

The folder of a run holds `journal.jsonl`, from which all else is made: `descriptions.jsonl` once every text is there
and accepted; until then `incomplete.jsonl` with the accepted ones and `rejected.jsonl` with the others and why. A run
may add rows to `descriptions.jsonl`; one that would take away or change any is refused.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from .engine import Endpoint, Forecast, Outcome, Request, Tally, cost, forecast_requests, run_requests
from .files import GENERATED_NAME, read_set, write_jsonl, write_records
from .prompts import PROMPTS
from .schema import KINDS, DescriptionRow, DescriptionSet, places_of
from .validate import text_faults

__all__ = [
    "ANSWER_TOKENS",
    "Generated",
    "KindForecast",
    "Question",
    "forecast_generation",
    "generate_descriptions",
    "plan_questions",
]

# Length of an answer with its JSON, for estimates; a model that thinks first is paid for its thoughts besides.
ANSWER_TOKENS = {"conceptual": 30, "discriminative": 45, "characteristic": 45}


@dataclass(frozen=True)
class Question:
    """A text that is wanted.

    Args:
        class_id: of the class it is about.
        class_name: as rows have it.
        spoken_name: as prompts have it.
        kind: one of `PROMPTS`.
        rank: 0, or the place of the neighbour.
        contrast_class: of a discriminative text, the neighbour; `spoken_contrast` is what prompts call it.
        spoken_contrast: see there.
    """

    class_id: int
    class_name: str
    spoken_name: str
    kind: str
    rank: int = 0
    contrast_class: str | None = None
    spoken_contrast: str | None = None

    @property
    def name(self) -> str:
        """The question for a reader."""
        against = f" against {self.contrast_class}" if self.contrast_class else ""
        return f"{self.class_name}, {self.kind}{against}"

    def request(self, count_tokens: Callable[[str], int] | None) -> Request:
        """The question as the engine takes it; no answer may name the class, as lists or as prompts have it."""
        prompt = PROMPTS[self.kind]
        names = {"name": self.spoken_name}
        if self.spoken_contrast is not None:
            names["contrast"] = self.spoken_contrast

        def faults_of(text: str) -> list[str]:
            faults = text_faults(text, kind=self.kind, class_name=self.spoken_name, count_tokens=count_tokens)
            return faults or text_faults(text, kind=self.kind, class_name=self.class_name)

        return Request(self.name, prompt.messages(**names), faults_of, prompt.cleaned)


@dataclass(frozen=True)
class Generated:
    """What a run leaves.

    Args:
        accepted: texts that can be used; `rejected` are outcomes of the others, with their questions.
        rejected: see there.
        path: the file of the accepted ones.
    """

    accepted: tuple[DescriptionRow, ...]
    rejected: tuple[tuple[Question, Outcome], ...]
    path: Path


@dataclass(frozen=True)
class KindForecast:
    """What a run would cost in texts of one kind.

    Args:
        kind: one of `PROMPTS`, or "all".
        calls: still to make, as far as is known; each answer with faults adds one.
        answered: in the journal.
        prompt_tokens: of these calls, estimated at 4 characters each; `completion_tokens` at `ANSWER_TOKENS` each.
        completion_tokens: see there.
    """

    kind: str
    calls: int
    answered: int
    prompt_tokens: int
    completion_tokens: int

    def cost(self, prices: tuple[float, float]) -> float:
        """For prices of a million tokens sent and received."""
        return cost((self.prompt_tokens, self.completion_tokens), prices)


def plan_questions(
    class_names: Sequence[str],
    spoken_names: Sequence[str],
    kinds: Iterable[str],
    *,
    k: int = 5,
    neighbours: Mapping[str, Sequence[str]] | None = None,
) -> tuple[Question, ...]:
    """A question for every text, in the order of class, kind and rank.

    Args:
        class_names: N names, as rows have them.
        spoken_names: how prompts call them.
        kinds: of `PROMPTS`.
        k: discriminative texts of each class.
        neighbours: of each class, the names of at least k others, nearest first (`read_neighbours`); needed for
            discriminative texts.

    Raises:
        ValueError: a kind has no prompt, or neighbours are missing, too few or no classes of the list.
    """
    kinds = tuple(dict.fromkeys(kinds))
    unknown = [kind for kind in kinds if kind not in PROMPTS]
    if unknown or not kinds:
        raise ValueError(f"kind {', '.join(unknown) or 'is empty'}: there are prompts for {', '.join(PROMPTS)}.")
    if "discriminative" in kinds:
        near = _near_places(class_names, k, neighbours)
    questions = []
    for class_id, (class_name, spoken_name) in enumerate(zip(class_names, spoken_names, strict=True)):
        own = (class_id, class_name, spoken_name)
        for kind in sorted(kinds, key=KINDS.index):
            if kind != "discriminative":
                questions.append(Question(*own, kind))
                continue
            for rank, other in enumerate(near[class_id]):
                questions.append(Question(*own, kind, rank, class_names[other], spoken_names[other]))
    return tuple(questions)


def _near_places(
    class_names: Sequence[str], k: int, neighbours: Mapping[str, Sequence[str]] | None
) -> list[tuple[int, ...]]:
    """Of each class, the places of its k neighbours."""
    way_out = "`kinetext describe neighbours LABELS --out FILE.csv` writes such a table (--neighbours FILE.csv)."
    if neighbours is None:
        raise ValueError(f"discriminative texts need to know which classes are near which; {way_out}")
    if k < 1:
        raise ValueError(f"k={k}; at least one discriminative text per class.")
    keys = list(neighbours)
    rows = _places_in_table(class_names, keys, way_out)
    near = []
    for place, (class_name, row) in enumerate(zip(class_names, rows, strict=True)):
        listed = list(neighbours[keys[row]])
        if len(listed) < k:
            raise ValueError(f"k={k}, but {class_name!r} has {len(listed)} neighbours in the table; {way_out}")
        others = tuple(_places_in_table(listed[:k], class_names, way_out))
        if place in others or len(set(others)) < k:
            raise ValueError(f"the neighbours of {class_name!r} hold the class itself or one twice: {listed[:k]}.")
        near.append(others)
    return near


def _places_in_table(wanted: Sequence[str], known: Sequence[str], way_out: str) -> list[int]:
    """As `places_of`, with what to do about names that are missing in a table of neighbours."""
    try:
        return places_of(wanted, known)
    except ValueError as error:
        raise ValueError(f"the table of neighbours does not fit the label list: {error} {way_out}") from error


def forecast_generation(
    questions: Sequence[Question],
    endpoint: Endpoint,
    out: str | os.PathLike[str],
    *,
    count_tokens: Callable[[str], int] | None = None,
) -> list[KindForecast]:
    """What `generate_descriptions` would ask for now, by kind and in all; nothing is sent or written.

    Raises:
        ValueError: the journal is damaged.
    """
    requests = [question.request(count_tokens) for question in questions]
    found = forecast_requests(requests, endpoint, _journal(out), distinct=True)
    kinds = {request.name: question.kind for request, question in zip(requests, questions, strict=True)}
    rows = [_forecast(kind, found, kinds) for kind in PROMPTS if kind in kinds.values()]
    return [
        *rows,
        KindForecast(
            "all",
            calls=sum(row.calls for row in rows),
            answered=sum(row.answered for row in rows),
            prompt_tokens=sum(row.prompt_tokens for row in rows),
            completion_tokens=sum(row.completion_tokens for row in rows),
        ),
    ]


def _forecast(kind: str, found: Forecast, kinds: Mapping[str, str]) -> KindForecast:
    calls = tuple(call for call in found.calls if kinds[call[0].name] == kind)
    answered = sum(kinds[request.name] == kind for request in found.answered)
    tokens = Forecast((), calls).prompt_tokens
    return KindForecast(kind, len(calls), answered, tokens, ANSWER_TOKENS[kind] * len(calls))


def generate_descriptions(
    dataset: str,
    questions: Sequence[Question],
    endpoint: Endpoint,
    out: str | os.PathLike[str],
    *,
    count_tokens: Callable[[str], int] | None = None,
    concurrency: int = 16,
    is_batch: bool = False,
    retry_rejected: bool = False,
    on_change: Callable[[Tally], None] | None = None,
) -> Generated:
    """Asks for every text that the journal in `out` does not have, and writes the files of this folder.

    Args:
        dataset: name of the label list.
        questions: of `plan_questions`.
        endpoint: whom to ask.
        out: folder; one that an earlier run left is gone on from.
        count_tokens: of `load_token_counter`; without it the length of answers is not looked at.
        concurrency: calls in flight at most.
        is_batch: uses the Batch API.
        retry_rejected: asks again for what stands rejected at the end.
        on_change: told where the run stands.

    Raises:
        ValueError: the folder has a set with rows that this run does not ask for (before anything is asked), or with
            others in their place, edited or masked.
        EndpointError, ValueError, OSError, KeyboardInterrupt: as `run_requests`; what was answered is in the journal.
    """
    earlier = _earlier_rows(dataset, questions, Path(out))
    requests = [question.request(count_tokens) for question in questions]
    outcomes = run_requests(
        requests,
        endpoint,
        _journal(out),
        concurrency=concurrency,
        distinct=True,
        is_batch=is_batch,
        retry_rejected=retry_rejected,
        on_change=on_change,
    )
    pairs = list(zip(questions, outcomes, strict=True))
    rows = tuple(_row(dataset, question, outcome) for question, outcome in pairs if outcome.is_accepted)
    rejected = tuple((question, outcome) for question, outcome in pairs if not outcome.is_accepted)
    if not rejected:
        _check_kept(earlier, rows, Path(out))
    return Generated(rows, rejected, _write_files(dataset, rows, rejected, Path(out)))


def _earlier_rows(dataset: str, questions: Sequence[Question], out: Path) -> tuple[DescriptionRow, ...]:
    """The rows of the set that is there."""
    path = _set(out)
    if not path.exists():
        return ()
    earlier = read_set(path).rows
    asked = {(dataset, q.class_id, q.class_name, q.kind, q.rank, q.contrast_class) for q in questions}
    for row in earlier:
        if (row.dataset, row.class_id, row.class_name, row.kind, row.rank, row.contrast_class) not in asked:
            raise ValueError(
                f"{path} has a {row.kind} text of {row.class_name!r} of {row.dataset}, which this run does not ask for "
                "and would take away; ask for all that is there and more, give another folder (--out), or move it away."
            )
    return earlier


def _check_kept(earlier: Iterable[DescriptionRow], rows: Iterable[DescriptionRow], out: Path) -> None:
    """Whether `rows` only add to those that were there."""
    kept = set(rows)
    for row in (row for row in earlier if row not in kept):
        raise ValueError(
            f"{_set(out)} has another {row.kind} text of {row.class_name!r} than this run, or it was edited or masked; "
            "it is left as it is. Move it away and run again, or give another folder (--out): the answers are in the "
            "journal."
        )


def _set(out: Path) -> Path:
    return out / GENERATED_NAME


def _journal(out: str | os.PathLike[str]) -> Path:
    return Path(out) / "journal.jsonl"


def _row(dataset: str, question: Question, outcome: Outcome) -> DescriptionRow:
    return DescriptionRow(
        dataset=dataset,
        class_id=question.class_id,
        class_name=question.class_name,
        kind=question.kind,
        contrast_class=question.contrast_class,
        rank=question.rank,
        text=outcome.text,
        provider=outcome.provider,
        model=outcome.model,
        prompt_id=PROMPTS[question.kind].prompt_id,
        prompt_sha256=outcome.prompt_sha256,
        params=outcome.params,
        created_at=outcome.created_at,
    )


def _write_files(
    dataset: str, rows: Sequence[DescriptionRow], rejected: Sequence[tuple[Question, Outcome]], out: Path
) -> Path:
    """Writes what there is and removes what is out of date; the file of the accepted texts."""
    complete, incomplete, bad = _set(out), out / "incomplete.jsonl", out / "rejected.jsonl"
    if not rejected:
        write_jsonl(DescriptionSet(tuple(rows)), complete)
        incomplete.unlink(missing_ok=True)
        bad.unlink(missing_ok=True)
        return complete
    write_records((asdict(row) for row in rows), incomplete)
    write_records((_rejected_record(dataset, question, outcome) for question, outcome in rejected), bad)
    return incomplete


def _rejected_record(dataset: str, question: Question, outcome: Outcome) -> dict[str, Any]:
    asked = {"class_id": question.class_id, "class_name": question.class_name, "kind": question.kind}
    against = {"contrast_class": question.contrast_class, "rank": question.rank}
    return {"dataset": dataset, **asked, **against, "text": outcome.text, "faults": list(outcome.faults)}
