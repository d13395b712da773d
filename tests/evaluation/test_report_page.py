"""The report page: its numbers, its escaping, and that neither its text nor a browser finds a request in it."""

import dataclasses
import re
import shutil
import subprocess
from dataclasses import dataclass, field, replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from synthetic_results import synthetic_protocol, synthetic_result

from kinetext.evaluation import report_page
from kinetext.evaluation.predictions import EvaluationResult, Prediction
from kinetext.evaluation.protocol import Protocol, Split
from kinetext.evaluation.report_page import write_report_page
from kinetext.evaluation.results import ProtocolResult

NAMES = ("wave <b>&amp;</b>", 'run "fast"\nor slow', b"sk\xefp".decode(errors="surrogateescape"), "walk")
TEXTS = ("one arm <moves>", "legs & 'feet' alternate", "both <script>alert(1)</script> feet", "a\nstep")
VOID = {"meta", "link", "br"}
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")


@dataclass
class Page(HTMLParser):
    """The elements of a page, its text, and what it would load."""

    source: str
    tags: list[str] = field(default_factory=list)
    addresses: list[str] = field(default_factory=list)
    open_tags: list[str] = field(default_factory=list)
    texts: list[tuple[str, str]] = field(default_factory=list)  # (element, its text)

    def __post_init__(self) -> None:
        super().__init__()
        self.feed(self.source)
        self.close()
        assert self.open_tags == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in VOID:
            self.open_tags.append(tag)
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "action", "data")]

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open_tags.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open_tags and data.strip():
            self.texts.append((self.open_tags[-1], " ".join(data.split())))

    @property
    def text(self) -> str:
        return " ".join(text for tag, text in self.texts if tag != "style").replace("\N{NO-BREAK SPACE}", " ")


def written(tmp_path: Path, result: ProtocolResult, **settings: Any) -> Page:
    path = tmp_path / "new" / "report.html"
    write_report_page(path, result, **{"texts": TEXTS[: len(result.protocol.classes)], **settings})
    return Page(path.read_text("utf-8"))


def odd_protocol(**fields: Any) -> Protocol:
    return synthetic_protocol(NAMES, note="<i>note</i>", **fields)


def percent(value: float) -> str:
    return f"{100 * value:.2f} %"


# Safety


@pytest.mark.parametrize("task", ["classification", "retrieval", "multi_label"])
def test_a_page_asks_the_network_for_nothing_and_escapes_everything(task: str, tmp_path: Path) -> None:
    protocol = odd_protocol(task=task, distractors=("a <dog> & http://example.org",))
    failed = {f"{NAMES[2]}/01.avi": "<img src=http://example.org/x> broken"}
    result = synthetic_result(protocol, failed=failed, skill=1, name="org/<model>")
    baseline = synthetic_result(protocol, seed=2, skill=0)
    page = written(tmp_path, result, baseline=baseline, run={"<command>": "eval <x>", "device": {"name": "<cpu>"}})
    assert set(page.addresses) == {"data:,"}
    assert not {"script", "img", "iframe", "object", "b-", "i", "dog", "here"} & set(page.tags)
    assert "@import" not in page.source and "url(" not in page.source
    assert re.search(r"default-src 'none'; style-src 'unsafe-inline'; img-src data:", page.source)
    for shown in ("wave <b>&amp;</b>", 'run "fast" or slow', r"sk\udcefp", "org/<model>", "<i>note</i>", "eval <x>"):
        assert shown in page.text, shown
    assert "<img src=http://example.org/x> broken" in page.text and '{"name": "<cpu>"}' in page.text


def test_the_same_result_gives_the_same_page(tmp_path: Path) -> None:
    first, second = (written(tmp_path, synthetic_result(odd_protocol())).source for _ in range(2))
    assert first == second


@pytest.mark.slow  # starts a browser
@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium or Chrome")
def test_a_browser_logs_no_error(tmp_path: Path) -> None:
    def messages(path: Path) -> list[str]:
        options = ("--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--dump-dom")
        command = [str(CHROMIUM), *options, f"--user-data-dir={tmp_path}/chrome", path.as_uri()]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
        assert "</html>" in done.stdout, done.stderr
        return [line for line in done.stderr.splitlines() if "CONSOLE" in line]

    page = written(tmp_path, synthetic_result(odd_protocol()), baseline=synthetic_result(odd_protocol(), seed=1))
    good = tmp_path / "new" / "report.html"
    assert messages(good) == []
    bad = tmp_path / "bad.html"  # what the page forbids is noticed, so silence means that nothing was asked for
    bad.write_text(page.source.replace("</main>", "<img src='http://127.0.0.1:9/x.png'></main>"), "utf-8")
    assert len(messages(bad)) == 1


# Numbers


def test_headline_interval_and_bounds_are_those_of_the_result(tmp_path: Path) -> None:
    result = synthetic_result(
        odd_protocol(), clips_per_class=20, failed={"walk/03.avi": "no frames", "walk/04.avi": "x"}
    )
    page, metrics = written(tmp_path, result), result.metrics()
    (low, high) = result.as_dict()["splits"][0]["intervals"]["top1"]
    assert ("b", percent(metrics["top1"])) in [(tag, text.replace("\xa0", " ")) for tag, text in page.texts]
    assert f"95 % interval {percent(low)} to {percent(high)}; chance 25.00 %" in page.text
    assert "78 of 80 clips decoded" in page.text
    worst, best = percent(metrics["top1_worst"]), percent(metrics["top1_best"])
    assert f"top-1 is {worst} if the others were wrong, {best} if they were right" in page.text
    assert "walk/03.avi no frames" in page.text and result.protocol.sha256 in page.text


def test_several_splits_are_shown_each_and_as_mean_with_deviation(tmp_path: Path) -> None:
    protocol = odd_protocol(splits=(Split("split 1"), Split("split <2>")))
    result = synthetic_result(protocol, clips_per_class=15, skill=1)
    page = written(tmp_path, result)
    assert "top-1, mean of 2 splits" in page.text and "split <2>" in page.text
    deviation = f"± {100 * (result.std()['top1'] or 0):.2f}"
    assert ("small", deviation) in page.texts and f"{percent(result.metrics()['top1'])} {deviation}" in page.text
    harmonic = written(tmp_path, replace(result, protocol=replace(result.protocol, split_mean="harmonic"))).text
    assert "top-1, harmonic mean of 2 splits" in harmonic and "no interval" not in harmonic
    assert "Mean of splits The harmonic mean." in harmonic and "±" not in harmonic
    for metrics in result.split_metrics().values():
        assert percent(metrics["top1"]) in page.text and percent(metrics["mean_class_accuracy"]) in page.text


def test_every_field_of_the_protocol_is_told() -> None:
    assert list(report_page._FIELDS) == [one.name for one in dataclasses.fields(Protocol)]


def test_the_protocol_is_told_in_words(tmp_path: Path) -> None:
    protocol = odd_protocol(
        num_frames=None,
        templates=tuple(f"t{i} {{}}" for i in range(5)),
        num_clips=4,
        failed_clips="wrong",
        sampling=None,
    )
    text = written(tmp_path, synthetic_result(protocol)).text
    assert "Frames As the model was saved with." in text and "Sampling As the model was saved with." in text
    assert "5 templates, with {} for the class text: t0 {}" in text
    assert "Clips per video 4" in text and "Average of views The probabilities are averaged." in text
    assert "Clips that cannot be decoded count as wrong." in text
    own = written(tmp_path, synthetic_result(odd_protocol(templates=None, distractors=("x",)))).text
    assert "Templates As the model was saved with." in own and "1 further texts, right for no clip: x" in own


def test_a_baseline_stands_beside_with_the_paired_difference(tmp_path: Path) -> None:
    protocol = odd_protocol()
    result = synthetic_result(protocol, skill=3, clips_per_class=30)
    baseline = synthetic_result(protocol, skill=1, clips_per_class=30, seed=9, name="clip <frozen>")
    text = written(tmp_path, result, baseline=baseline).text
    gain = 100 * (result.metrics()["top1"] - baseline.metrics()["top1"])
    assert "Beside clip <frozen>" in text and f"{gain:+.2f}" in text and "McNemar's exact test: p < 0.0001" in text
    same = written(tmp_path, result, baseline=replace(baseline, model=result.model)).text
    assert "Beside org/model (baseline)" in same


def test_what_does_not_belong_together_is_refused(tmp_path: Path) -> None:
    result = synthetic_result(odd_protocol())
    with pytest.raises(ValueError, match="3 texts for 4 classes; one for each is wanted"):
        written(tmp_path, result, texts=TEXTS[:3])
    with pytest.raises(ValueError, match="num_frames: 16 | 8"):
        written(tmp_path, result, baseline=synthetic_result(odd_protocol(num_frames=16)))
    assert not [*tmp_path.iterdir()]


# Classes


def hand_made(protocol: Protocol, pairs: dict[str, list[tuple[int, int]]]) -> ProtocolResult:
    """Clips as (label, predicted) of each split, counted in its candidates and then the distractors."""
    splits = {}
    for split in protocol.splits:
        names = protocol.split_classes(split)
        scores = np.zeros(len(names) + len(protocol.distractors), dtype=np.float32)
        predictions = [
            Prediction(f"clip{i}", label, predicted, 1 if label == predicted else 2, scores)
            for i, (label, predicted) in enumerate(pairs[split.name])
        ]
        splits[split.name] = EvaluationResult(names, tuple(predictions))
    return ProtocolResult(protocol, {"name": "m"}, splits, {})


def test_classes_stand_best_first_and_those_without_clips_last(tmp_path: Path) -> None:
    protocol = synthetic_protocol(("a", "b", "c", "d"))
    page = written(tmp_path, hand_made(protocol, {"all": [(0, 0), (0, 1), (2, 2), (3, 0)]}))
    bars = page.text.partition("Accuracy of each class")[2].partition("Which class")[0]
    assert bars.endswith("c 100.0 % of 1 clip a 50.0 % of 2 clips d 0.0 % of 1 clip b no clip ")
    assert "3 of 4 classes have decoded clips" in bars


def test_confusions_of_splits_with_other_candidates_are_added_by_class(tmp_path: Path) -> None:
    splits = (Split("split 1", classes=("b", "c")), Split("split 2", classes=("a", "c", "d")))
    protocol = synthetic_protocol(("a", "b", "c", "d"), splits=splits, distractors=("a <dog>",), task="retrieval")
    # b as c; c as c, c as the distractor | c as d, twice; a as a
    result = hand_made(protocol, {"split 1": [(0, 1), (1, 1), (1, 2)], "split 2": [(1, 2), (1, 2), (0, 0)]})
    assert result.confusion().tolist() == [
        [1, 0, 0, 0, 0],
        [0, 0, 1, 0, 0],
        [0, 0, 1, 2, 1],
        [0, 0, 0, 0, 0],
    ]
    page = written(tmp_path, result)
    confusions = page.text.partition("Hardest confusions")[2].partition("Protocol")[0]
    assert "All together 4 clips were taken for another text." in confusions
    assert f"2 of 4 clips (50 %) clips of c {TEXTS[2]} taken for d a step" in confusions
    assert f"1 of 4 clips (25 %) clips of c {TEXTS[2]} taken for a distractor a <dog>" in confusions
    titles = [text for tag, text in page.texts if tag == "title"][1:]
    assert titles == ["1 of a: a", "1 of b: c", "1 of c: c", "2 of c: d", "1 of c: a distractor"]


def test_a_page_of_clips_with_several_classes_has_no_confusions(tmp_path: Path) -> None:
    result = synthetic_result(odd_protocol(task="multi_label"))
    text = written(tmp_path, result, baseline=synthetic_result(odd_protocol(task="multi_label"), seed=1)).text
    assert "Average precision of each class" in text and percent(result.metrics()["map"]) in text
    assert "Hardest confusions" not in text and "Which class was taken" not in text and "McNemar" not in text


def test_ranks_of_retrieval_are_no_percentages(tmp_path: Path) -> None:
    result = synthetic_result(odd_protocol(task="retrieval"), skill=0, clips_per_class=21)
    page = written(tmp_path, result, baseline=synthetic_result(odd_protocol(task="retrieval"), clips_per_class=21))
    assert ("b", f"{result.metrics()['median_rank']:g}") in page.texts and "R@10" in page.text
    beside = re.search(r"median rank 1 ([\d.]+) \+([\d.]+) \+[\d.]+ to \+[\d.]+ Differences", page.text)
    assert beside is not None and float(beside[1]) == result.metrics()["median_rank"] == 1 + float(beside[2])


def test_a_result_of_no_decoded_clip_has_a_page(tmp_path: Path) -> None:
    protocol = odd_protocol()
    failed = {f"{name}/{place:02}.avi": "no frames" for name in NAMES for place in range(2)}
    text = written(tmp_path, synthetic_result(protocol, clips_per_class=2, failed=failed)).text
    assert "0 of 8 clips decoded" in text and "–" in text and "no interval" in text
    assert "0 of 4 classes have decoded clips" in text
    beside = written(
        tmp_path,
        synthetic_result(protocol, clips_per_class=2, failed=failed),
        baseline=synthetic_result(protocol, clips_per_class=2),
    )
    assert "Not compared: there is nothing to compare in 'all'" in beside.text


@pytest.mark.parametrize(
    ("num_classes", "has_counts", "has_names"), [(30, True, True), (31, False, True), (102, False, False)]
)
def test_what_has_no_room_in_the_matrix_is_left_out(
    tmp_path: Path, num_classes: int, has_counts: bool, has_names: bool
) -> None:
    protocol = synthetic_protocol(tuple(f"class {i}" for i in range(num_classes)))
    page = written(tmp_path, synthetic_result(protocol, clips_per_class=3, skill=9), texts=protocol.classes)
    drawn = [text for tag, text in page.texts if tag == "text"]
    assert ("3" in drawn) == has_counts and ("class 7" in drawn) == has_names
