"""`kinetext describe …`: motion descriptions generated, checked, masked, rated."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from itertools import groupby
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from typer.core import TyperGroup

from .console import report_errors, say, table_of

__all__ = ["Tokenizer", "describe", "token_counter"]

# Arguments and options that several verbs have.
_Labels = Annotated[str, typer.Argument(help="Label list: a file, a built-in name or a data set with a ClassLabel.")]
_Set = Annotated[str, typer.Argument(metavar="SET", help="Description set: a file, a built-in name or a Hub id.")]
Tokenizer = Annotated[
    str | None, typer.Option(help="Folder or Hub id of the CLIP whose tokens count, or none. Default: OpenAI's.")
]
_Provider = Annotated[str, typer.Option(help="The key is read from the variable <PROVIDER>_API_KEY.")]
_BaseUrl = Annotated[str | None, typer.Option(help="Of any OpenAI-compatible endpoint. Default: OpenAI's.")]
_Param = Annotated[
    list[str] | None, typer.Option(metavar="NAME=VALUE", help="Passed on, VALUE as JSON; may be repeated.")
]
_Concurrency = Annotated[int, typer.Option(help="Calls in flight at most.")]
_Timeout = Annotated[float, typer.Option(help="Seconds to wait for a whole answer.")]
_Price = Annotated[
    tuple[float, float] | None, typer.Option(metavar="IN OUT", help="USD per million tokens sent and received.")
]
_RetryRejected = Annotated[bool, typer.Option("--retry-rejected", help="Ask again for rejected texts.")]


class _LabelsOrVerb(TyperGroup):
    """A group whose verb may be left out: `describe ucf101 …` is `describe generate ucf101 …`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and args[0] not in self.commands and args[0] != "--help":
            args = ["generate", *args]
        return super().parse_args(ctx, args)


describe = typer.Typer(
    cls=_LabelsOrVerb,
    no_args_is_help=True,
    rich_markup_mode="rich",
    help="Motion descriptions: generate them with a language model, check, mask, rate and compare them. "
    "`kinetext describe LABELS ...` is `kinetext describe generate LABELS ...`.",
)


def token_counter(tokenizer: str | None) -> Any:
    """What counts the tokens of a text, by an option `Tokenizer`; None for `none`."""
    from ..descriptions.validate import DEFAULT_TOKENIZER, load_token_counter

    return None if tokenizer == "none" else load_token_counter(tokenizer or DEFAULT_TOKENIZER)


def _names_in(listed: str) -> list[str]:
    """The names in a list with commas."""
    return [name.strip() for name in listed.split(",") if name.strip()]


@describe.command(
    epilog="Example:  kinetext describe ucf101 --kind conceptual,characteristic --model gpt-5-mini --out ucf --dry-run"
)
@report_errors
def generate(
    labels: _Labels,
    model: Annotated[str, typer.Option(help="As the endpoint calls it.")],
    out: Annotated[Path, typer.Option(help="Folder of journal and result; one of an earlier run is gone on from.")],
    kind: Annotated[str, typer.Option(help="Of conceptual, discriminative, characteristic, separated by commas.")] = (
        "conceptual,discriminative"
    ),
    k: Annotated[int, typer.Option(help="Discriminative texts per class.")] = 5,
    near: Annotated[
        Path | None, typer.Option("--neighbours", help="CSV of `describe neighbours`; discriminative texts need it.")
    ] = None,
    provider: _Provider = "openai",
    base_url: _BaseUrl = None,
    param: _Param = None,
    concurrency: _Concurrency = 16,
    timeout: _Timeout = 120.0,
    tokenizer: Tokenizer = None,
    price: _Price = None,
    batch: Annotated[bool, typer.Option("--batch", help="Send the calls as jobs of the Batch API.")] = False,
    retry_rejected: _RetryRejected = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show calls, tokens and cost; send nothing.")] = False,
) -> None:
    """Ask a language model for motion descriptions; run again to go on. Exit code 1 if some texts are bad."""
    from ..data.label_lists import load_label_list
    from ..descriptions.endpoint import Endpoint, parse_params
    from ..descriptions.engine import Tally
    from ..descriptions.generate import forecast_generation, generate_descriptions, plan_questions
    from ..descriptions.neighbours import read_neighbours
    from .progress import show_tally

    _check_paid_options(price, dry_run, retry_rejected)
    listed = load_label_list(labels)
    table = None if near is None else read_neighbours(near)
    kinds = _names_in(kind)
    questions = plan_questions(listed.class_names, listed.spoken_names, kinds, k=k, neighbours=table)
    endpoint = Endpoint(model, provider, base_url, parse_params(param or ()), timeout)
    counter = token_counter(tokenizer)
    if dry_run:
        _show_forecast(forecast_generation(questions, endpoint, out, count_tokens=counter), price)
        return
    tally = Tally()
    try:
        with show_tally(price) as show:

            def note(current: Tally) -> None:
                nonlocal tally
                tally = current
                show(current)

            made = generate_descriptions(
                listed.name,
                questions,
                endpoint,
                out,
                count_tokens=counter,
                concurrency=concurrency,
                is_batch=batch,
                retry_rejected=retry_rejected,
                on_change=note,
            )
    except KeyboardInterrupt:
        say(f"stopped; {tally.done} answers are in {escape(str(out))}, and the same command goes on from there.")
        raise typer.Exit(130) from None
    _show_generated(made, tally, price)
    if made.rejected:
        raise typer.Exit(1)


def _check_paid_options(price: tuple[float, float] | None, dry_run: bool, retry_rejected: bool) -> None:
    if price is not None and not all(0 <= usd < float("inf") for usd in price):
        raise ValueError(f"--price {price[0]} {price[1]}: a price is a number of USD, 0 or more.")
    if dry_run and retry_rejected:
        raise ValueError(
            "--dry-run does not foresee --retry-rejected, which asks once or twice for each text that is rejected; "
            "leave one of them out."
        )


def _show_forecast(rows: list[Any], price: tuple[float, float] | None) -> None:
    table = table_of("kind", "to ask#", "answered#", "tokens sent#", "received#", "USD#")
    for row in rows:
        counts = (row.calls, row.answered, row.prompt_tokens, row.completion_tokens)
        cost = "?" if price is None else f"{row.cost(price):.4f}"
        table.add_row(row.kind, *(f"{count:,}" for count in counts), cost)
    Console().print(table)
    say(
        "Estimated: 4 characters a token sent; received, 30 to 45 tokens an answer, more from models that think first. "
        "An answer with faults adds a call. Nothing was sent."
    )
    if price is None:
        say("For the cost give --price IN OUT, USD per million tokens, from the endpoint's price list.")


def _show_generated(made: Any, tally: Any, price: tuple[float, float] | None) -> None:
    from .progress import spent

    table = table_of("kind", "accepted#", "rejected#")
    kinds = dict.fromkeys([row.kind for row in made.accepted] + [question.kind for question, _ in made.rejected])
    for kind in kinds:
        accepted = sum(row.kind == kind for row in made.accepted)
        table.add_row(kind, str(accepted), str(sum(question.kind == kind for question, _ in made.rejected)))
    Console().print(table)
    say(f"{tally.new} calls now, {tally.done - tally.new} before; {spent(tally, price)}; {tally.retries} retries")
    if made.rejected:
        faults = table_of("rejected", "text", "why")
        for question, outcome in made.rejected:
            faults.add_row(escape(question.name), _shortened(outcome.text), _shortened("; ".join(outcome.faults)))
        Console().print(faults)
        say(
            f"{len(made.rejected)} texts are missing: they are in rejected.jsonl, the others in "
            f"{escape(str(made.path))}. The same command asks again for those without an answer, --retry-rejected for "
            "the others; or choose another model."
        )
    else:
        say(f"{len(made.accepted)} texts saved in {escape(str(made.path))}")


def _shortened(text: str) -> str:
    """A text of a model for the terminal: at most 300 characters, none of which moves the cursor."""
    shown = "".join(character if character.isprintable() else " " for character in text[:300])
    return escape(shown + "…" * (len(text) > 300))


@describe.command(epilog="Example:  kinetext describe neighbours ucf101 --out neighbours.csv")
@report_errors
def neighbours(
    labels: _Labels,
    out: Annotated[Path, typer.Option(help="CSV to write: class, neighbour, rank, similarity. Edit it as you like.")],
    encoder: Annotated[
        str, typer.Option(help="Folder or Hub id of a CLIP or another text encoder.")
    ] = "openai/clip-vit-base-patch16",
    k: Annotated[int, typer.Option(help="Neighbours per class.")] = 5,
) -> None:
    """Find the classes whose names lie nearest: those that discriminative descriptions are written against."""
    from ..data.label_lists import load_label_list
    from ..descriptions.neighbours import nearest_neighbours, write_neighbours
    from ..evaluation.name_embeddings import embed_names

    if out.exists():
        raise ValueError(f"--out {out} is there already, perhaps edited; remove it or give another name.")
    listed = load_label_list(labels)
    pairs = nearest_neighbours(listed.class_names, embed_names(listed.spoken_names, encoder), k)
    write_neighbours(pairs, out)
    table = table_of("class", f"{k} nearest, with cosine similarity")
    for start in range(0, len(pairs), k):
        own = pairs[start : start + k]
        table.add_row(escape(own[0].class_name), escape(", ".join(f"{p.neighbour} {p.similarity:.2f}" for p in own)))
    Console().print(table)
    say(f"{len(pairs)} pairs saved in {escape(str(out))}")


@describe.command(epilog="Example:  kinetext describe check set.jsonl --labels ucf101")
@report_errors
def check(
    source: _Set,
    labels: Annotated[str | None, typer.Option(help="Label list whose every class the set should cover.")] = None,
    tokenizer: Tokenizer = None,
) -> None:
    """Look for missing, over-long, equal, name-leaking and garbled texts; exit code 1 if there are errors."""
    from ..data.label_lists import load_label_list
    from ..descriptions import load_description_set
    from ..descriptions.validate import check_set

    names = None if labels is None else load_label_list(labels).class_names
    checked = check_set(load_description_set(source), count_tokens=token_counter(tokenizer), class_names=names)
    table = table_of("kind", "classes#", "texts#", "most tokens#", "in", "equal#", "similar#", "leaks#")
    for kind in checked.summaries:
        covered = f"{kind.num_covered}/{kind.num_classes}"
        longest = "–" if kind.longest is None else str(kind.longest)
        counts = map(str, (kind.num_duplicates, kind.num_near_duplicates, kind.num_leaks))
        table.add_row(kind.kind, covered, str(kind.num_texts), longest, escape(kind.longest_class), *counts)
    Console().print(table)
    styles = {"error": "bold red", "warning": "yellow"}
    for finding in checked.findings:
        message = ": ".join(part for part in (finding.class_name, finding.kind, finding.message) if part)
        say(f"[{styles[finding.level]}]{finding.level}:[/] {escape(message)}")
    say(f"{len(checked.errors)} errors, {len(checked.findings) - len(checked.errors)} warnings")
    if checked.errors:
        raise typer.Exit(1)


@describe.command(epilog="Example:  kinetext describe statistics weizmann set.jsonl --tokenizer none")
@report_errors
def statistics(
    sources: Annotated[list[str], typer.Argument(metavar="SET...", help="Sets: files, built-in names or Hub ids.")],
    tokenizer: Tokenizer = None,
) -> None:
    """Show sentences, words, verbs and tokens per description of each kind, the sets beside each other."""
    from ..descriptions import KINDS, load_description_set
    from ..descriptions.statistics import kind_statistics

    count_tokens = token_counter(tokenizer)
    measured = [
        (source, kind)
        for source in sources
        for kind in kind_statistics(load_description_set(source), count_tokens=count_tokens)
    ]
    measured.sort(key=lambda pair: (KINDS.index(pair[1].kind.split()[0]), pair[1].kind))
    for name, group in groupby(measured, key=lambda pair: pair[1].kind):
        table = table_of("set", "texts#", "sent.#", "words#", "range#", "verbs#", "in all#", "tokens#")
        table.title, table.title_justify = name, "left"
        for source, kind in group:
            averages = (f"{kind.sentences:.2f}", f"{kind.words:.1f}", f"{kind.fewest_words}-{kind.most_words}")
            longest = "–" if kind.longest is None else str(kind.longest)
            verbs = (f"{kind.verbs:.1f}", str(kind.num_verbs))
            table.add_row(escape(source), str(kind.num_texts), *averages, *verbs, longest)
        Console().print(table)
    say("Sentences, words (with their range) and verbs are per text, on average; tokens are those of the longest text.")


@describe.command(
    "import", epilog="Example:  kinetext describe import hmdb.csv --kind characteristic --labels hmdb51 --out s.jsonl"
)
@report_errors
def import_released(
    file: Annotated[Path, typer.Argument(help="CSV of (number,) name, description, or of one column with both.")],
    kind: Annotated[str, typer.Option(help="What its texts are: conceptual, characteristic or action.")],
    labels: Annotated[str, typer.Option(help="Label list that its names belong to: a built-in name or a file.")],
    out: Annotated[Path, typer.Option(help="JSON Lines file to write.")],
    masked: Annotated[Path | None, typer.Option(help="CSV of the same texts without object names.")] = None,
    provider: Annotated[
        str | None, typer.Option(help="Who wrote them. Default: the source, if the file is a known one.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="That wrote them. Default: the source's, if known.")] = None,
) -> None:
    """Read descriptions that others released, align them with a label list by name, and say what was normalised."""
    from ..data.label_lists import load_label_list
    from ..descriptions.files import write_jsonl
    from ..descriptions.importers import import_csv

    if out.suffix != ".jsonl":
        raise ValueError(f"--out {out} ends with {out.suffix!r}; it is written as JSON Lines, so call it .jsonl.")
    listed = load_label_list(labels)
    imported = import_csv(
        file,
        kind=kind,
        dataset=listed.name,
        class_names=listed.class_names,
        masked_path=masked,
        provider=provider,
        model=model,
    )
    write_jsonl(imported.descriptions, out)
    changed = [name for name in imported.alignment if name.how != "exact"]
    if changed:
        table = table_of("line#", "written", "class", "name is")
        for name in changed:
            table.add_row(str(name.line), escape(repr(name.written)), escape(name.class_name), name.how)
        Console().print(table)
    total = len(imported.alignment)
    ways = Counter(name.how for name in imported.alignment)
    say(f"{total} classes aligned by name: {', '.join(f'{count} {how}' for how, count in ways.most_common())}")
    for change, count in imported.changes.items():
        say(f"taken away: {change}, {count} times")
    if imported.unfinished:
        cut = escape(", ".join(imported.unfinished))
        say(f"[yellow]warning:[/] {len(imported.unfinished)} texts end without a full stop, perhaps cut short: {cut}")
    say(f"{total} texts saved in {escape(str(out))}")


@describe.command(epilog="Example:  kinetext describe mask ucf.jsonl --kind characteristic --out masked.jsonl --diff")
@report_errors
def mask(
    source: _Set,
    out: Annotated[Path | None, typer.Option(help="JSONL file for the set with its masked texts.")] = None,
    kind: Annotated[str | None, typer.Option(help="Kinds, separated by commas. Default: all of the set.")] = None,
    diff: Annotated[bool, typer.Option("--diff", help="Show each masked text against the text.")] = False,
    replace: Annotated[bool, typer.Option("--replace", help="Also make anew the masked texts that are there.")] = False,
    model: Annotated[
        str | None, typer.Option(help="Ask this language model, as its endpoint calls it. Default: rules, no model.")
    ] = None,
    provider: _Provider = "openai",
    base_url: _BaseUrl = None,
    param: _Param = None,
    concurrency: _Concurrency = 16,
    timeout: _Timeout = 120.0,
    price: _Price = None,
    retry_rejected: _RetryRejected = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show a model's calls and tokens; send nothing.")] = False,
) -> None:
    """Replace object names by "object": by rules, or by a language model (--model) whose answers rules check."""
    from ..descriptions.endpoint import Endpoint, parse_params
    from ..descriptions.load import load_description_set
    from ..descriptions.masking import MaskedSet, forecast_masking, mask_set, mask_set_by_model
    from .progress import show_tally

    _check_paid_options(price, dry_run, retry_rejected)
    loaded = load_description_set(source)
    kinds = loaded.kinds if kind is None else tuple(_names_in(kind))
    if not kinds:
        raise ValueError(f"--kind {kind!r} names no kind; the set has {', '.join(loaded.kinds)}.")
    if model is None and (dry_run or retry_rejected or param or base_url or price):
        raise ValueError(
            "--dry-run, --retry-rejected, --param, --base-url and --price are for a model; give --model too."
        )
    if out is None and (model is not None or not diff):
        raise ValueError("there is no file for the result; give --out FILE.jsonl, or --diff alone to look at it.")
    if out is not None and out.suffix != ".jsonl":
        raise ValueError(f"--out {out} does not end with .jsonl, the format that it is written in.")
    if out is None or model is None:
        masked = MaskedSet(mask_set(loaded, kinds, replace=replace), ())
    else:
        endpoint = Endpoint(model, provider, base_url, parse_params(param or ()), timeout)
        journal = out.with_suffix(".journal.jsonl")
        if dry_run:
            forecast = forecast_masking(loaded, endpoint, journal, kinds, replace=replace)
            say(
                f"{len(forecast.calls)} calls to make, about {forecast.prompt_tokens:,} tokens to send at 4 characters "
                f"each; {len(forecast.answered)} answered before. Nothing was sent."
            )
            return
        try:
            with show_tally(price) as show:
                masked = mask_set_by_model(
                    loaded,
                    endpoint,
                    journal,
                    kinds,
                    replace=replace,
                    concurrency=concurrency,
                    retry_rejected=retry_rejected,
                    on_change=show,
                )
        except KeyboardInterrupt:
            say(f"stopped; the answers are in {escape(str(journal))}, and the same command goes on from there.")
            raise typer.Exit(130) from None
    if diff:
        _show_masks(masked.descriptions, kinds)
    _report_masks(loaded, masked.descriptions, kinds, out)
    if masked.rejected:
        _show_rejected_masks(masked.rejected)
        raise typer.Exit(1)


def _show_masks(masked: Any, kinds: tuple[str, ...]) -> None:
    """Each masked text that differs: on a terminal in colours, otherwise as [-removed-] {+added+}."""
    from rich.text import Text

    from ..descriptions.masking import mask_differences

    console = Console(soft_wrap=True)
    for row in masked.rows:
        if row.kind not in kinds or row.masked_text in (None, row.text):
            continue
        line = Text()
        for part in mask_differences(row.text, row.masked_text):
            if not part.is_change:
                line.append(part.added)
                continue
            for words, style, marks in ((part.removed, "red strike", "[-{}-]"), (part.added, "green", "{{+{}+}}")):
                if words:
                    line.append(words[: len(words) - len(words.lstrip())])
                    line.append(words.lstrip() if console.is_terminal else marks.format(words.lstrip()), style)
        console.print(Text(row.name, "bold"))
        console.print(Text("  ") + line)


def _report_masks(loaded: Any, masked: Any, kinds: tuple[str, ...], out: Path | None) -> None:
    from ..descriptions.files import write_jsonl

    pairs = [(old, new) for old, new in zip(loaded.rows, masked.rows, strict=True) if new.kind in kinds]
    earlier = [(old.masked_text, new.masked_text) for old, new in pairs if old.masked_text is not None]
    bare = sum(new.masked_text is None for _, new in pairs)
    changed = sum(old != new for old, new in earlier)
    counts = {
        "masked now": len(pairs) - len(earlier) - bare,
        "masked anew and changed": changed,
        "masked before and the same now": len(earlier) - changed,
        "without a masked text": bare,
    }
    named = sum(new.masked_text not in (None, new.text) for _, new in pairs)
    said = ", ".join(f"{count} {what}" for what, count in counts.items() if count)
    say(f"{len(pairs)} texts: {said}; {named} of the masked ones name objects")
    if out is not None:
        over = ", in place of the file that was there" if out.exists() else ""
        write_jsonl(masked, out)
        say(f"{len(masked.rows)} rows saved in {escape(str(out))}{over}")


def _show_rejected_masks(rejected: Any) -> None:
    table = table_of("rejected", "answer", "why")
    for outcome in rejected:
        table.add_row(escape(outcome.request.name), _shortened(outcome.text), _shortened("; ".join(outcome.faults)))
    Console().print(table)
    say(
        f"{len(rejected)} answers were rejected or did not come: the same command asks again for those that did not "
        "come, --retry-rejected for the others; the same verb on the file written, without --model, masks the rest by "
        "rules."
    )


@describe.command(epilog="Example:  kinetext describe rate ucf101 --kind characteristic --rater r1 --out ratings.jsonl")
@report_errors
def rate(
    source: _Set,
    rater: Annotated[str, typer.Option(help="Your id: letters, digits, - and _. It stands in every answer: no name.")],
    out: Annotated[Path, typer.Option(help="JSON Lines file of answers; an earlier session goes on where it stopped.")],
    against: Annotated[
        str | None, typer.Option(help="Choose the better of each text and this set's, blind, instead of rating.")
    ] = None,
    kind: Annotated[str, typer.Option(help="Kinds to ask about, separated by commas. Default: all.")] = "",
    masked: Annotated[bool, typer.Option("--masked", help="Ask about the texts that `describe mask` made.")] = False,
    training: Annotated[
        int,
        typer.Option(help="So many texts first, the same for every rater, do not count. Give all raters one number."),
    ] = 0,
    web: Annotated[
        bool, typer.Option("--web", help="On a web page of this machine instead of in the terminal.")
    ] = False,
    port: Annotated[int, typer.Option(help="Of the web page; 0 takes a free one.", min=0, max=65535)] = 0,
) -> None:
    """Rate texts on five criteria, or choose between two sets, one text at a time."""
    from ..descriptions.rating import (
        AnswerFile,
        RatingSession,
        items_to_compare,
        items_to_rate,
        name_set,
        pair_rows,
        with_masked_texts,
    )

    kinds = _names_in(kind)
    first, second = name_set(source), None if against is None else name_set(against)
    if masked:
        first, second = with_masked_texts(first, kinds), second and with_masked_texts(second, kinds)
    if second is None:
        items = items_to_rate(first.rows.rows, rater=rater, kinds=kinds, training=training)
    else:
        pairs = pair_rows(first.rows, second.rows)
        items = items_to_compare(pairs, rater=rater, kinds=kinds, training=training)
        partners = f"{len(pairs)} of {len(first.rows.rows)} texts have a partner"
        say(f"{partners}; {len(items)} pairs differ and are asked about.")
    with AnswerFile(out) as file:
        session = RatingSession(items, file, rater=rater, first=first, second=second)
        _rate_on_page(session, port) if web else _rate_here(session)
    skipped = f", {len(session.skipped)} skipped" if session.skipped else ""
    say(f"{session.num_done} of {len(items)} done{skipped}; saved in {escape(str(out))}")
    if session.num_done < len(items):
        say("The same command goes on where you stopped.")


def _rate_here(session: Any) -> None:
    from ..descriptions.rating_terminal import rate_in_terminal

    rate_in_terminal(session, Console())


def _rate_on_page(session: Any, port: int) -> None:
    from ..descriptions.rating_web import RatingServer

    with RatingServer(session, port) as server:
        say(f"Open {server.url} in a browser on this machine; Ctrl-C ends it. Every answer is saved at once.")
        with suppress(KeyboardInterrupt):
            server.serve_forever()


@describe.command(
    epilog="Example:  kinetext describe agreement ratings-r1.jsonl ratings-r2.jsonl --json agreement.json"
)
@report_errors
def agreement(
    ratings: Annotated[list[Path], typer.Argument(help="Files that `rate` wrote, of one or more raters.")],
    json_file: Annotated[Path | None, typer.Option("--json", help="File to write all figures to.")] = None,
    seed: Annotated[int, typer.Option(help="Of the bootstrap.")] = 0,
) -> None:
    """Show means, percentage agreement, kappas and Krippendorff's alpha with 95 % intervals, and the votes."""
    from ..descriptions.agreement import count_answers, measure_agreement, take_votes, write_json
    from ..descriptions.rating import read_answers

    if json_file is not None:
        _refuse_to_replace(json_file, ratings)
    counted = count_answers(*map(read_answers, ratings))
    with Console(stderr=True).status("Resampling texts for the intervals"):
        measured = measure_agreement(counted.answers, seed=seed)
    votes = take_votes(counted.answers)
    for names in dict.fromkeys(map(_set_names, measured)):
        _show_agreement([one for one in measured if _set_names(one) == names])
        _show_votes([vote for vote in votes if _set_names(vote.about) == names])
    _show_notes(counted)
    say(
        f"Not counted: {counted.num_training} training answers, {counted.num_replaced} about texts in whose place "
        f"another counts, {counted.num_repeated} given anew."
    )
    if json_file is not None:
        write_json(json_file, counted, measured, votes, seed=seed)
        say(f"saved in {escape(str(json_file))}")


def _refuse_to_replace(out: Path, sources: Iterable[str | Path]) -> None:
    for source in sources:
        if out.exists() and Path(source).exists() and out.samefile(source):
            raise ValueError(f"{out} is read by this command, and would be replaced; write to another file.")


_MEASURES = (  # row, field of `Agreement`, format of the figure and of its interval
    ("mean", "mean", ".2f", ".2f"),
    ("same %", "percentage", ".1f", ".0f"),
    ("Cohen", "cohen", "z.2f", "z.2f"),
    ("quadratic", "cohen_quadratic", "z.2f", "z.2f"),
    ("Fleiss", "fleiss", "z.2f", "z.2f"),
    ("alpha", "alpha", "z.2f", "z.2f"),
)


def _set_names(about: Any) -> tuple[str, str, str | None]:
    return (about.dataset, about.set_name, about.other_set_name)


def _show_notes(counted: Any) -> None:
    for note in counted.notes:
        say(f"[yellow]Note:[/] {escape(note)}")


def _show_agreement(measured: list[Any]) -> None:
    first = measured[0]
    against = f" against {first.other_set_name}" if first.other_set_name else ""
    say(f"[bold]{escape(first.set_name + against)}[/] ({escape(first.dataset)})")
    table = table_of("", *(f"{one.question}#" for one in measured))  # so it fits into 80 columns
    table.box, table.pad_edge, table.padding = None, False, (0, 1, 0, 0)
    table.add_row("raters", *(str(one.num_raters) for one in measured))
    table.add_row("texts", *(f"{one.num_shared} of {one.num_texts}" for one in measured))
    notes: dict[str, dict[str, list[str]]] = {}
    for name, field, figure, ends in _MEASURES:
        measures = [getattr(one, field) for one in measured]
        table.add_row(name, *(_figure(measure, figure, ends) for measure in measures))
        for one, measure in zip(measured, measures, strict=True):
            if measure.note:
                notes.setdefault(measure.note, {}).setdefault(name, []).append(one.question)
    Console().print(table)
    for note, found in notes.items():
        for questions in dict.fromkeys(map(tuple, found.values())):
            rows = ", ".join(name for name, own in found.items() if tuple(own) == questions)
            columns = "" if len(questions) == len(measured) else f" of {', '.join(questions)}"
            say(f"[dim]{escape(f'{note}: {rows}{columns}')}[/]")


def _figure(measure: Any, figure: str, ends: str) -> str:
    if measure.value is None:
        return "undefined" if measure.note.startswith("undefined") else "–"
    interval = "" if measure.low is None else f"\n{measure.low:{ends}} to {measure.high:{ends}}"
    return f"{measure.value:{figure}}{interval}"


def _show_votes(votes: list[Any]) -> None:
    if not votes:
        return
    about = votes[0].about
    winners = [vote.winner for vote in votes]
    table = table_of("majority for", "pairs#")
    table.add_row(escape(about.set_name), str(winners.count("a")))
    table.add_row(escape(about.other_set_name), str(winners.count("b")))
    table.add_row("neither (even votes)", str(winners.count(None)))
    Console().print(table)


@describe.command(
    epilog="Example:  kinetext describe select a.jsonl --against b.jsonl --ratings choices.jsonl --out chosen.jsonl"
)
@report_errors
def select(
    source: Annotated[str, typer.Argument(metavar="SET", help="The set whose texts stay where there is no majority.")],
    against: Annotated[str, typer.Option(help="The set it was compared with.")],
    ratings: Annotated[list[Path], typer.Option(help="File of `rate --against`; give the option once for each.")],
    out: Annotated[Path, typer.Option(help="Set to write, .jsonl or .parquet.")],
) -> None:
    """Write the set of the texts that most raters preferred; even votes keep the first set's text and are listed."""
    from ..descriptions.agreement import count_answers, select_preferred
    from ..descriptions.files import write_jsonl, write_parquet
    from ..descriptions.load import load_description_set
    from ..descriptions.rating import read_answers

    writers = {".jsonl": write_jsonl, ".parquet": write_parquet}
    if out.suffix not in writers:
        raise ValueError(f"out={str(out)!r}: sets are written as {' or '.join(writers)}.")
    _refuse_to_replace(out, [*ratings, source, against])
    counted = count_answers(*map(read_answers, ratings))
    chosen = select_preferred(load_description_set(source), load_description_set(against), counted.answers)
    table = table_of("texts", "rows#", "taken from")
    table.add_row("preferred", str(chosen.num_first), escape(source))
    table.add_row("preferred", str(chosen.num_second), escape(against))
    for what, number in (
        ("even votes", len(chosen.ties)),
        ("no vote", len(chosen.unvoted)),
        ("equal in both", chosen.num_equal),
        ("without a partner", chosen.num_alone),
    ):
        table.add_row(what, str(number), escape(source))
    Console().print(table)
    _show_notes(counted)
    for vote in chosen.ties:
        say(f"even votes, {vote.num_a} to {vote.num_b}: {escape(vote.about.class_name)}, {vote.about.kind}")
    for row in chosen.unvoted:
        say(f"no vote: {escape(row.name)}")
    writers[out.suffix](chosen.rows, out)
    say(f"{len(chosen.rows.rows)} rows saved in {escape(str(out))}")
