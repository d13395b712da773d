"""Rating: what is asked and in which order, what is stored, and whole sessions in the terminal and on the web page."""

import http.client
import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from testing_utils import run_cli
from typer.testing import Result

from kinetext.descriptions.files import write_jsonl
from kinetext.descriptions.rating import (
    CRITERIA,
    PREFERENCE_QUESTION,
    Answer,
    AnswerFile,
    RatingSession,
    items_to_compare,
    items_to_rate,
    name_set,
    pair_rows,
    read_answers,
    text_sha256,
)
from kinetext.descriptions.rating_web import RatingServer
from kinetext.descriptions.schema import DescriptionRow, DescriptionSet

NAMES = [criterion.name for criterion in CRITERIA]
REPOSITORY = Path(__file__).resolve().parents[2]
CLASSES = ["bend", "jack", "jump", "run", "side", "skip", "walk", "wave"]


def row(class_id: int, name: str, text: str, *, kind: str = "characteristic", **fields: object) -> DescriptionRow:
    return DescriptionRow("toy", class_id, name, kind, fields.pop("against", None), fields.pop("rank", 0), text)  # type: ignore[arg-type]


def description_set(verb: str = "moves", names: list[str] = CLASSES) -> DescriptionSet:
    return DescriptionSet(tuple(row(number, name, f"{name} {verb}") for number, name in enumerate(names)))


def written(path: Path, descriptions: DescriptionSet) -> Path:
    write_jsonl(descriptions, path)
    return path


def kinetext(*arguments: object, keys: str = "") -> Result:
    return run_cli("describe", *arguments, keys=keys)


# What is asked


def test_criteria_say_which_end_is_good() -> None:
    assert NAMES == ["conciseness", "hallucinations", "relevance", "correctness", "harmfulness"]
    assert [criterion.name for criterion in CRITERIA if not criterion.is_high_good] == ["hallucinations", "harmfulness"]
    assert CRITERIA[1].scale == "1 every movement is possible, 5 movements that cannot happen; 1 is good"


def order(rater: str, **arguments: object) -> list[str]:
    items = items_to_rate(description_set().rows, rater=rater, **arguments)  # type: ignore[arg-type]
    return [item.row.class_name for item in items]


def test_order_is_random_but_the_raters_own() -> None:
    assert sorted(order("r1")) == CLASSES
    assert order("r1") == order("r1") != order("r2")
    assert CLASSES not in (order("r1"), order("r2"))


def test_order_stays_when_a_text_changes_or_one_is_added() -> None:
    changed = [replace(one, text="something else") for one in description_set().rows]
    assert [item.row.class_name for item in items_to_rate(changed, rater="r1")] == order("r1")
    more = description_set(names=[*CLASSES, "hop"]).rows
    assert [item.row.class_name for item in items_to_rate(more, rater="r1") if item.row.class_name != "hop"] == order(
        "r1"
    )


def test_training_texts_come_first_and_are_the_same_for_all() -> None:
    first, second = (items_to_rate(description_set().rows, rater=rater, training=3) for rater in ("r1", "r2"))
    assert [item.row for item in first[:3]] == [item.row for item in second[:3]]
    assert [item.is_training for item in first] == [True] * 3 + [False] * 5
    assert sorted(item.row.class_name for item in first) == CLASSES


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"rater": "ann@example.org"}, "rater='ann@example.org'.*give no name or address"),
        ({"rater": ""}, "rater=''"),
        ({"training": 8}, "training=8 of 8 items; leave at least one"),
        ({"training": -1}, "training=-1"),
        ({"kinds": ["action"]}, "there is no action to ask about; there are: characteristic"),
        ({"kinds": ["verbs"]}, "kind 'verbs' is unknown; choose of conceptual"),
    ],
)
def test_wrong_questions_are_refused(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        items_to_rate(description_set().rows, **{"rater": "r1", **arguments})  # type: ignore[arg-type]


def test_texts_are_paired_by_class_kind_and_contrasted_class() -> None:
    kind = "discriminative"
    first = DescriptionSet(
        (
            row(0, "Wave One", "a0"),
            row(0, "Wave One", "near run", kind=kind, against="run"),
            row(0, "Wave One", "near jump", kind=kind, against="jump", rank=1),
            row(1, "hop", "a1"),
        )
    )
    second = DescriptionSet(
        (
            row(0, "wave_one", "NEAR JUMP", kind=kind, against="jump"),
            row(0, "wave_one", "NEAR RUN", kind=kind, against="Run", rank=1),
            row(0, "wave_one", "A0"),
            row(0, "wave_one", "A0 once more", rank=1),
        )
    )
    assert {(one.text, other.text) for one, other in pair_rows(first, second)} == {
        ("a0", "A0"),
        ("near run", "NEAR RUN"),
        ("near jump", "NEAR JUMP"),
    }
    with pytest.raises(ValueError, match="no text of toy .* is of the same class and kind"):
        pair_rows(first, description_set())


def test_sides_are_random_for_each_rater_and_pair_and_equal_texts_left_out() -> None:
    names = [f"class {number}" for number in range(60)]
    first, second = description_set(names=names), description_set("shakes", names)
    same = DescriptionSet((first.rows[0], *second.rows[1:]))
    lefts = {}
    for rater in ("r1", "r2"):
        items = items_to_compare(pair_rows(first, same), rater=rater)
        lefts[rater] = {item.row.class_name: item.left for item in items}
        assert len(items) == 59 and "class 0" not in lefts[rater]
        assert min(Counter(lefts[rater].values()).values()) > 15
        for item in items:
            assert item.texts[item.sides.index("a")].endswith("moves")
    assert lefts["r1"] != lefts["r2"]


def test_sets_are_named_without_a_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert name_set("weizmann").name == "weizmann"
    path = written(tmp_path / "run7" / "set.jsonl", description_set())
    assert name_set(path).name == "run7/set.jsonl"
    monkeypatch.setenv("HOME", str(path.parent))
    assert name_set(path).name == "set.jsonl"
    changed = written(tmp_path / "other.jsonl", description_set("stirs"))
    assert name_set(path).sha256 != name_set(changed).sha256


# What is stored


def session_on(path: Path, file: AnswerFile, *, rater: str = "r1", training: int = 0) -> RatingSession:
    named = name_set(path)
    return RatingSession(items_to_rate(named.rows.rows, rater=rater, training=training), file, rater=rater, first=named)


def rate_next(session: RatingSession, value: int = 3) -> str:
    item = session.item
    assert item is not None
    session.record(item, dict.fromkeys(item.questions, value))
    session.advance()
    return item.row.class_name


def test_an_answer_says_who_when_what_and_about_which_text(tmp_path: Path) -> None:
    path = written(tmp_path / "set.jsonl", description_set())
    with AnswerFile(tmp_path / "r.jsonl") as file:
        name = rate_next(session_on(path, file, training=1), value=4)
    answers = read_answers(tmp_path / "r.jsonl")
    assert [answer.question for answer in answers] == NAMES
    first = answers[0]
    assert (first.rater, first.dataset, first.class_name, first.kind, first.rank) == (
        "r1",
        "toy",
        name,
        "characteristic",
        0,
    )
    assert (first.value, first.is_training, first.text_sha256) == (4, True, text_sha256(f"{name} moves"))
    assert (first.set_name, first.set_sha256) == (name_set(path).name, name_set(path).sha256)
    assert first.started_at <= first.answered_at and first.answered_at.endswith("+00:00")


def test_session_goes_on_and_asks_about_changed_texts_again(tmp_path: Path) -> None:
    path, out = written(tmp_path / "set.jsonl", description_set()), tmp_path / "r.jsonl"
    with AnswerFile(out) as file:
        session = session_on(path, file)
        done = [rate_next(session) for _ in range(3)]
    rows = description_set().rows
    written(path, DescriptionSet(tuple(replace(one, text="new") if one.class_name == done[1] else one for one in rows)))
    with AnswerFile(out) as file:
        session = session_on(path, file)
        assert session.num_done == 2
        assert rate_next(session) == done[1]
        assert [rate_next(session) for _ in range(5)] == order("r1")[3:]
        assert session.item is None
        assert session_on(path, file, rater="r2").num_done == 0


def test_skipped_items_are_asked_in_the_next_session_and_back_returns(tmp_path: Path) -> None:
    path = written(tmp_path / "set.jsonl", description_set(names=CLASSES[:3]))
    with AnswerFile(tmp_path / "r.jsonl") as file:
        session = session_on(path, file)
        first = rate_next(session, value=2)
        skipped = session.item
        session.skip()
        rate_next(session)
        assert session.item is None and session.num_done == 2
        session.back()
        session.back()
        assert session.item is skipped
        session.back()
        assert session.item is not None and session.item.row.class_name == first
        assert dict(session.values(session.item)) == dict.fromkeys(NAMES, 2)
        again = session_on(path, file)
        assert again.item is not None and skipped is not None and again.item.id == skipped.id


def test_a_finished_item_is_not_skipped_and_time_runs_anew_after_going_back(tmp_path: Path) -> None:
    path = written(tmp_path / "set.jsonl", description_set(names=CLASSES[:2]))
    with AnswerFile(tmp_path / "r.jsonl") as file:
        session = session_on(path, file)
        rate_next(session)
        assert session.item is not None  # shown, and left again
        time.sleep(0.01)
        session.back()
        session.skip()
        assert not session.skipped
        left = file.answers[-1].answered_at
        time.sleep(0.01)
        rate_next(session)
        assert left < file.answers[-1].started_at and session.item is None


def test_wrong_values_are_not_stored(tmp_path: Path) -> None:
    path = written(tmp_path / "set.jsonl", description_set())
    with AnswerFile(tmp_path / "r.jsonl") as file:
        session = session_on(path, file)
        assert session.item is not None
        for values in ({"relevance": 6}, {"relevance": "a"}, {"relevance": True}, {"preference": 1}, {"beauty": 1}):
            with pytest.raises(ValueError, match="it is one of|is unknown"):
                session.record(session.item, values)
    assert read_answers(tmp_path / "r.jsonl") == []


def test_a_line_cut_short_is_mended_and_refused_by_readers(tmp_path: Path) -> None:
    path, out = written(tmp_path / "set.jsonl", description_set()), tmp_path / "r.jsonl"
    with AnswerFile(out) as file:
        rate_next(session_on(path, file))
    whole = out.read_bytes()
    out.write_bytes(whole + whole[:40])
    with pytest.raises(ValueError, match=r"r.jsonl: the last line has no end"):
        read_answers(out)
    with AnswerFile(out) as file:
        assert len(file.answers) == 5
        rate_next(session_on(path, file))
    assert out.read_bytes().startswith(whole) and len(read_answers(out)) == 10


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"value": 7}, "line 1 is no answer: value=7 of relevance; it is one of 1, 2, 3, 4, 5"),
        ({"question": "beauty"}, "question='beauty' is unknown"),
        ({"question": "preference", "value": "a"}, "question='preference' with other_set_name=None"),
        ({"value": 3.0}, "value=3.0 of relevance"),
        ({"value": [1]}, r"value=\[1\] of relevance"),
        ({"question": ["relevance"]}, "is unknown"),
        ({"class_name": None}, "class_name=None is no str"),
        ({"rater": 5}, "rater=5 is no str"),
        ({"rater": "<b>"}, "rater='<b>'.* is not what raters write"),
        ({"rank": "z"}, "rank='z' is no int"),
        ({"rank": -1}, "rank=-1"),
        ({"text_sha256": None}, "text_sha256=None is no str"),
        ({"is_training": "no"}, "is_training='no' is no bool"),
        ({"answered_at": None}, "answered_at=None is no str"),
        ({"answered_at": "later"}, "answered_at='later' is no time"),
        ({"set_name": "a\x1b[2J"}, "set_name='a.x1b.2J' has a line break or another character"),
        ({"left": "a"}, "question='relevance' with left='a'"),
        ({"mood": "good"}, "these columns are missing or unknown: mood"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, change: dict[str, object], message: str) -> None:
    path, out = written(tmp_path / "set.jsonl", description_set()), tmp_path / "r.jsonl"
    with AnswerFile(out) as file:
        session = session_on(path, file)
        assert session.item is not None
        session.record(session.item, {"relevance": 1})
    out.write_text(json.dumps({**json.loads(out.read_text()), **change}) + "\n")
    with pytest.raises(ValueError, match=message):
        read_answers(out)
    with pytest.raises(ValueError, match=message), AnswerFile(out):
        pass
    with pytest.raises(FileNotFoundError, match="rate` writes one"):
        read_answers(tmp_path / "missing.jsonl")


def test_other_files_are_left_alone(tmp_path: Path) -> None:
    path = written(tmp_path / "set.jsonl", description_set())
    for content in (b"my notes", path.read_bytes(), path.read_bytes()[:-1], b'{"run": ["a leg moves"]}'):
        out = tmp_path / "other.jsonl"
        out.write_bytes(content)
        assert kinetext("rate", path, "--rater", "r1", "--out", out, keys="1\n").exit_code == 1
        assert out.read_bytes() == content


def test_two_writers_are_refused(tmp_path: Path) -> None:
    path, out = written(tmp_path / "set.jsonl", description_set()), tmp_path / "r.jsonl"
    with AnswerFile(out):
        code = f"from kinetext.descriptions.rating import AnswerFile\nwith AnswerFile({str(out)!r}): pass"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=REPOSITORY)
        assert done.returncode == 1 and "is being written by another" in done.stderr
    assert kinetext("rate", path, "--rater", "r2", "--out", out, keys="q\n").exit_code == 0


# In the terminal


def test_terminal_session_with_a_slip_back_skip_and_quit(tmp_path: Path) -> None:
    path, out = written(tmp_path / "set.jsonl", description_set(names=CLASSES[:3])), tmp_path / "r.jsonl"
    first = [*"41", "x", "3", "b", "2", *"51"]  # a slip, and relevance corrected from 3 to 2
    result = kinetext("rate", path, "--rater", "r1", "--out", out, keys="\n".join([*first, "s", "4", "q", ""]))
    assert result.exit_code == 0, result.output
    assert "physically non-plausible motion descriptions" in " ".join(result.output.replace("│", " ").split())
    assert "Please select one of the available options" in result.output
    assert "1 of 3 done, 1 skipped" in result.output and "goes on where you stopped" in result.output
    answers = read_answers(out)
    names = [item.row.class_name for item in items_to_rate(name_set(path).rows.rows, rater="r1")]
    assert [(answer.class_name, answer.question, answer.value) for answer in answers] == [
        (names[0], "conciseness", 4),
        (names[0], "hallucinations", 1),
        (names[0], "relevance", 3),
        (names[0], "relevance", 2),
        (names[0], "correctness", 5),
        (names[0], "harmfulness", 1),
        (names[2], "conciseness", 4),
    ]
    rest = kinetext("rate", path, "--rater", "r1", "--out", out, keys="1\n" * 9)
    assert "3 of 3 done; saved in" in rest.output
    assert Counter(answer.class_name for answer in read_answers(out)[7:]) == {names[1]: 5, names[2]: 4}


def test_terminal_goes_back_to_the_item_before(tmp_path: Path) -> None:
    path, out = written(tmp_path / "set.jsonl", description_set(names=CLASSES[:2])), tmp_path / "r.jsonl"
    kinetext("rate", path, "--rater", "r1", "--out", out, keys="\n".join(["3"] * 5 + ["b"] + ["4"] * 5 + ["5"] * 5))
    answers = read_answers(out)
    assert [answer.value for answer in answers] == [3] * 5 + [4] * 5 + [5] * 5
    assert answers[0].class_name == answers[5].class_name != answers[10].class_name


def test_terminal_stops_at_the_end_of_its_input_and_keeps_what_was_said(tmp_path: Path) -> None:
    path, out = written(tmp_path / "set.jsonl", description_set()), tmp_path / "r.jsonl"
    result = kinetext("rate", path, "--rater", "r1", "--out", out, keys="1\n2\n")
    assert result.exit_code == 0 and "0 of 8 done" in result.output
    assert [answer.value for answer in read_answers(out)] == [1, 2]


def test_terminal_shows_texts_as_they_are(tmp_path: Path) -> None:
    path = written(tmp_path / "set.jsonl", DescriptionSet((row(0, "a [red]b :cat:", "moves [bold]fast[/] :smile:"),)))
    result = kinetext("rate", path, "--rater", "r1", "--out", tmp_path / ":dog:.jsonl", keys="q\n")
    assert "a [red]b :cat:" in result.output and "moves [bold]fast[/] :smile:" in result.output
    assert ":dog:.jsonl" in result.output


def test_masked_texts_are_asked_about(tmp_path: Path) -> None:
    rows = [replace(one, masked_text=f"object {one.class_id} moves") for one in description_set().rows]
    path = written(tmp_path / "set.jsonl", DescriptionSet((*rows, row(0, "bend", "bends", kind="action"))))
    arguments = ("rate", path, "--rater", "r1", "--out", tmp_path / "r.jsonl", "--masked")
    refused = kinetext(*arguments)
    assert refused.exit_code == 1 and "bend, action of toy has not been masked; run" in refused.output
    result = kinetext(*arguments, "--kind", "characteristic", keys="1\n" * 5)
    assert "object" in result.output and "1 of 8 done" in result.output
    answers = read_answers(tmp_path / "r.jsonl")
    assert {one.set_name for one in answers} == {f"{name_set(path).name} (masked)"}
    assert answers[0].text_sha256 == text_sha256(f"object {CLASSES.index(answers[0].class_name)} moves")


@pytest.mark.parametrize("port", ["99999", "-1"])
def test_ports_that_are_none_are_refused(tmp_path: Path, port: str) -> None:
    result = kinetext("rate", "weizmann", "--rater", "r1", "--out", tmp_path / "r.jsonl", "--web", "--port", port)
    assert result.exit_code == 2 and not (tmp_path / "r.jsonl").exists()


def test_terminal_choice_is_blind_and_stored_by_set(tmp_path: Path) -> None:
    first = written(tmp_path / "one.jsonl", description_set())
    second = written(tmp_path / "two.jsonl", description_set("shakes", [*CLASSES[1:], CLASSES[0]]))
    arguments = ("rate", first, "--against", second, "--rater", "r1", "--out", tmp_path / "r.jsonl")
    result = kinetext(*arguments, keys="1\n" * 8)
    assert result.exit_code == 0, result.output
    assert "8 of 8 done" in result.output
    asked = result.output.partition("saved in")[0]
    assert "one.jsonl" not in asked and "two.jsonl" not in asked
    answers = read_answers(tmp_path / "r.jsonl")
    assert {answer.value for answer in answers} == {"a", "b"}  # always the first shown, so both sets
    shown = [line.split()[-1] for line in asked.splitlines() if line.startswith("  1 ")]
    assert [{"moves": "a", "shakes": "b"}[verb] for verb in shown] == [answer.value for answer in answers]
    assert all(answer.left == answer.value and answer.question == "preference" for answer in answers)
    assert all(answer.other_text_sha256 == text_sha256(f"{answer.class_name} shakes") for answer in answers)


# On the web page


class Page(HTMLParser):
    """What a browser would make of a page: the form's fields, the choices, and the words."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.hidden: dict[str, str] = {}
        self.choices: dict[str, list[str]] = {}
        self.checked: dict[str, str] = {}
        self.legends: list[str] = []
        self.described: list[str] = []
        self.ids: list[str] = []
        self.tags: Counter[str] = Counter()
        self.links: list[str] = []
        self.open: list[str] = []
        self.words: list[str] = []
        self.feed(source)
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        own = {name: value or "" for name, value in attributes}
        self.tags[tag] += 1
        self.ids += [own["id"]] if "id" in own else []
        self.links += [own[name] for name in ("src", "href", "action", "formaction") if name in own]
        self.described += own.get("aria-describedby", "").split()
        assert not [name for name in own if name.startswith("on")]
        if tag == "input" and own["type"] == "hidden":
            self.hidden[own["name"]] = own["value"]
        if tag == "input" and own["type"] == "radio":
            assert self.open[-1] == "label" and "required" in own
            self.choices.setdefault(own["name"], []).append(own["value"])
            if "checked" in own:
                self.checked[own["name"]] = own["value"]
        if tag not in ("meta", "link", "input"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not {"script", "style"} & set(self.open):
            self.words.append(data)


class Rater:
    """A rater's browser."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.headers: dict[str, str] = {}
        self.page = self.look()

    def look(self) -> Page:
        with urllib.request.urlopen(self.url, timeout=20) as response:
            assert response.headers["Content-Security-Policy"].startswith("default-src 'none'")
            self.source = response.read().decode()
        self.page = Page(self.source)
        return self.page

    def post(self, action: str, **values: object) -> int:
        """Sends the form of the page last seen to `action` and shows what comes; its status."""
        form = urllib.parse.urlencode({**self.page.hidden, **values}).encode()
        request = urllib.request.Request(f"{self.url}{action}", form, self.headers)
        try:
            with urllib.request.urlopen(request, timeout=20) as response:
                self.source, status = response.read().decode(), response.status
        except urllib.error.HTTPError as error:
            self.source, status = error.read().decode(), error.code
        if "<form" in self.source or "Saved" in self.source:
            self.page = Page(self.source)
        return status


@contextmanager
def serving(session: RatingSession) -> Iterator[Rater]:
    with RatingServer(session) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield Rater(server.url)
        finally:
            server.shutdown()
            thread.join()


def test_page_is_complete_and_labelled(tmp_path: Path) -> None:
    path = written(tmp_path / "set.jsonl", description_set())
    with AnswerFile(tmp_path / "r.jsonl") as file, serving(session_on(path, file, training=1)) as rater:
        page = rater.page
    assert page.open == []
    assert page.choices == {name: ["1", "2", "3", "4", "5"] for name in NAMES}
    assert page.tags["legend"] == page.tags["fieldset"] == 5 and page.tags["label"] == 25
    assert set(page.described) <= set(page.ids) and len(page.ids) == len(set(page.ids)) == 10
    for criterion in CRITERIA:
        ends = [f"1: {criterion.lowest}", f"5: {criterion.highest}"]
        ends[criterion.is_high_good] += " (good)"
        assert f"{criterion.name} {criterion.definition} 1 2 3 4 5 {' '.join(ends)}" in page.text
    assert "Training: this answer does not count." in page.text and "0 of 8 done" in page.text
    assert all(link in ("data:,", "answer", "back", "skip", "stop") for link in page.links)
    assert '<meta name="viewport" content="width=device-width' in rater.source
    assert "prefers-color-scheme: dark" in rater.source


def test_whole_web_session(tmp_path: Path) -> None:
    path, out = written(tmp_path / "set.jsonl", description_set(names=CLASSES[:3])), tmp_path / "r.jsonl"
    names = [item.row.class_name for item in items_to_rate(name_set(path).rows.rows, rater="r1")]
    good = dict(zip(NAMES, (4, 1, 3, 5, 1), strict=True))
    with AnswerFile(out) as file, serving(session_on(path, file)) as rater:
        assert f"{names[0]} moves" in rater.page.text
        assert rater.post("answer", conciseness=4, relevance=3) == 400
        assert "an answer is missing: hallucinations, correctness, harmfulness" in rater.page.text
        assert rater.page.checked == {"conciseness": "4", "relevance": "3"}
        assert read_answers(out) == []
        assert rater.post("answer", **good) == 200
        assert [answer.value for answer in read_answers(out)] == [4, 1, 3, 5, 1]
        assert f"{names[1]} moves" in rater.page.text and "1 of 3 done" in rater.page.text
        rater.post("skip")
        assert f"{names[2]} moves" in rater.page.text and "1 skipped" in rater.page.text
        rater.post("answer", **good)
        assert (
            "No more texts" in rater.page.text
            and "1 skipped: the same command asks about them again" in rater.page.text
        )
        rater.post("back")
        assert rater.page.checked == {name: str(value) for name, value in good.items()}
        rater.post("answer", **{**good, "correctness": 2})
        assert len(read_answers(out)) == 15 and read_answers(out)[-2].value == 2
        assert rater.post("stop") == 200
        assert "2 of 3 done. You can close this page; the same command goes on" in rater.page.text


def test_page_escapes_what_texts_hold(tmp_path: Path) -> None:
    name, text = (
        '<b>bold</b> & "co"',
        "</blockquote><script>alert('1')</script> {{ token }} <img src=x onerror=alert(1)>",
    )
    path = written(tmp_path / "set.jsonl", DescriptionSet((row(0, name, text),)))
    with AnswerFile(tmp_path / "r.jsonl") as file, serving(session_on(path, file)) as rater:
        assert name in rater.page.text and text in rater.page.text
        assert rater.page.tags["script"] == 1 and not rater.page.tags["b"] and not rater.page.tags["img"]
        assert rater.post("answer", **dict.fromkeys(NAMES, "<i>")) == 400
        assert rater.post("answer", **{**dict.fromkeys(NAMES, 1), "relevance": "9" * 5000}) == 400
        assert rater.post("answer", **dict.fromkeys(NAMES, "<i>")) == 400
        assert "there is no value='<i>' of conciseness" in rater.page.text and not rater.page.tags["i"]


def test_web_choice_is_blind(tmp_path: Path) -> None:
    first = name_set(written(tmp_path / "one.jsonl", description_set()))
    second = name_set(written(tmp_path / "two.jsonl", description_set("shakes")))
    items = items_to_compare(pair_rows(first.rows, second.rows), rater="r1")
    with AnswerFile(tmp_path / "r.jsonl") as file:
        with serving(RatingSession(items, file, rater="r1", first=first, second=second)) as rater:
            for item in items:
                assert rater.page.choices == {"preference": ["1", "2"]}
                assert f"{PREFERENCE_QUESTION} 1 {' 2 '.join(item.texts)}" in rater.page.text
                assert "one.jsonl" not in rater.source and "two.jsonl" not in rater.source
                assert rater.post("answer", preference="b") == 400
                rater.post("answer", preference=1 + item.sides.index("b"))
        answers = read_answers(tmp_path / "r.jsonl")
    assert [(answer.value, answer.left) for answer in answers] == [("b", item.left) for item in items]
    assert {answer.other_set_name for answer in answers} == {second.name}


@pytest.mark.parametrize(
    ("secret", "headers", "status"),
    [
        ("", {}, 403),
        ("guessed/", {}, 403),
        (None, {"Origin": "https://evil.example"}, 403),
        (None, {"Origin": "null"}, 403),
        (None, {"Host": "evil.example"}, 403),
        (None, {}, 200),
    ],
)
def test_answers_from_elsewhere_are_refused(
    tmp_path: Path, secret: str | None, headers: dict[str, str], status: int
) -> None:
    path, out = written(tmp_path / "set.jsonl", description_set()), tmp_path / "r.jsonl"
    with AnswerFile(out) as file, serving(session_on(path, file)) as rater:
        rater.headers = headers
        if secret is not None:
            rater.url = urllib.parse.urljoin(rater.url, "/") + secret
            with pytest.raises(urllib.error.HTTPError, match="403"):
                rater.look()
        assert rater.post("answer", **dict.fromkeys(NAMES, 1)) == status
    assert len(read_answers(out)) == (5 if status == 200 else 0)


def test_page_is_only_at_its_address(tmp_path: Path) -> None:
    path = written(tmp_path / "set.jsonl", description_set())
    with AnswerFile(tmp_path / "r.jsonl") as file, serving(session_on(path, file)) as rater:
        assert rater.url.startswith("http://127.0.0.1:")
        with pytest.raises(urllib.error.HTTPError, match="404"):
            urllib.request.urlopen(f"{rater.url}set.jsonl", timeout=20)
        assert rater.post("other") == 404
        rebound = urllib.request.Request(rater.url, headers={"Host": "evil.example"})
        with pytest.raises(urllib.error.HTTPError, match="403"):
            urllib.request.urlopen(rebound, timeout=20)
        address = urllib.parse.urlsplit(rater.url)
        for length in ("999999999", "9" * 5000, "-1"):
            connection = http.client.HTTPConnection(address.netloc, timeout=20)
            connection.request("POST", f"{address.path}answer", headers={"Content-Length": length})
            assert connection.getresponse().status == 413


def test_a_text_that_is_no_longer_asked_about_is_not_answered(tmp_path: Path) -> None:
    path, out = written(tmp_path / "set.jsonl", description_set()), tmp_path / "r.jsonl"
    with AnswerFile(out) as file, serving(session_on(path, file)) as rater:
        assert rater.post("answer", item="0" * 64, **dict.fromkeys(NAMES, 1)) == 409
        assert "Nothing was saved" in rater.page.text
        old = rater.page
        rater.post("answer", **dict.fromkeys(NAMES, 1))
        here = rater.page.hidden["item"]
        rater.page = old
        rater.post("skip")  # of a second window that still shows the first text
        assert rater.look().hidden["item"] == here
        rater.page = old
        rater.post("answer", **dict.fromkeys(NAMES, 1))  # sent twice
    assert len(read_answers(out)) == 5


def start_cli(*arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "kinetext.cli", "describe", *map(str, arguments)]
    environment = {**os.environ, "COLUMNS": "160", "PYTHONUNBUFFERED": "1"}
    return subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=REPOSITORY, env=environment
    )


def test_killed_web_session_goes_on_in_the_terminal(tmp_path: Path) -> None:
    path, out = written(tmp_path / "set.jsonl", description_set(names=CLASSES[:2])), tmp_path / "r.jsonl"
    with start_cli("rate", path, "--rater", "r1", "--out", out, "--web") as process:
        assert process.stdout is not None
        url = process.stdout.readline().split()[1]
        rater = Rater(url)
        rater.post("answer", **dict.fromkeys(NAMES, 2))
        process.send_signal(signal.SIGKILL)
    before = out.read_bytes()
    result = kinetext("rate", path, "--rater", "r1", "--out", out, keys="5\n" * 5)
    assert "2 of 2 done" in result.output
    assert out.read_bytes().startswith(before)
    assert [answer.value for answer in read_answers(out)] == [2] * 5 + [5] * 5


def test_killed_terminal_session_loses_no_answer(tmp_path: Path) -> None:
    path, out = written(tmp_path / "set.jsonl", description_set()), tmp_path / "r.jsonl"
    with start_cli("rate", path, "--rater", "r1", "--out", out) as process:
        assert process.stdin is not None
        process.stdin.write("3\n" * 7)
        process.stdin.flush()
        deadline = time.monotonic() + 60
        while not (out.exists() and out.read_bytes().count(b"\n") == 7) and time.monotonic() < deadline:
            time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
    assert len(read_answers(out)) == 7
    with AnswerFile(out) as file:
        session = session_on(path, file)
        assert session.num_done == 1 and session.item is not None
        assert session.open_questions(session.item) == NAMES[2:]


def test_answers_hold_nothing_else_about_the_rater() -> None:
    assert set(Answer.__dataclass_fields__) == {
        *("rater", "dataset", "set_name", "set_sha256", "class_name", "kind", "contrast_class", "rank", "text_sha256"),
        *("question", "value", "is_training", "started_at", "answered_at"),
        *("other_set_name", "other_set_sha256", "other_text_sha256", "left"),
    }
