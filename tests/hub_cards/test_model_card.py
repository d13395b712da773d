"""The card a run writes of itself: the same bytes for the same run, valid, and nothing in it that was not measured."""

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import ModelCard
from rendered_clips import render_clip
from testing_utils import tiny_config, tiny_model, tiny_moted

from kinetext import VideoTextProcessor, XCLIPForVideoClassification
from kinetext.data.small_tokenizer import small_tokenizer
from kinetext.evaluation.predictions import EvaluationResult, Prediction
from kinetext.evaluation.protocol import own_clips
from kinetext.evaluation.results import ProtocolResult
from kinetext.hub_cards.model_card import RunFacts, write_model_card

TEXTS = ["moving left", "moving right", "growing", "shrinking"]
SETTINGS = {"learning_rate": 0.0003, "preset": "base-patch16", "hold_out": ["eli_*", "ira_*"]}
PREDICTIONS = (
    Prediction("a", 0, 0, 1),
    Prediction("b", 1, 0, 2),
    Prediction("c", 1, 0, 6),
    Prediction("d", 1, error="broken"),
)
PROTOCOL = own_clips(
    tuple(TEXTS),
    tuple(TEXTS),
    templates=("a video of {}",),
    **{"num_frames": 8, "sampling": "dense", "stride": 2, "short_side": 37, "crop_size": 32},
)


def result_of(*predictions: Prediction) -> ProtocolResult:
    return ProtocolResult(PROTOCOL, {"weights_sha256": "w" * 64}, {"all": EvaluationResult(tuple(TEXTS), predictions)})


RESULT = result_of(*PREDICTIONS)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("runs") / "my model"
    tiny_model().save_pretrained(path)
    VideoTextProcessor(
        small_tokenizer(TEXTS), num_frames=8, sampling="dense", crop_size=32, template="a video of {}"
    ).save_pretrained(path)
    return path


@pytest.fixture()
def write(folder: Path) -> Callable[..., str]:
    def write_card(**arguments: Any) -> str:
        write_model_card(folder, **{"class_texts": TEXTS, "settings": SETTINGS, "result": RESULT, **arguments})
        return (folder / "README.md").read_text(encoding="utf-8")

    return write_card


def table_rows(card: str, header: str) -> list[list[str]]:
    """Cells of the rows under a header line, split where GitHub splits them."""
    lines = card.splitlines()
    rows = []
    for line in lines[lines.index(header) + 2 :]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]])
    return rows


def test_the_same_run_gives_the_same_bytes(write: Callable[..., str], folder: Path) -> None:
    write()
    first = (folder / "README.md").read_bytes()
    write()
    assert (folder / "README.md").read_bytes() == first
    assert not [path for path in folder.iterdir() if path.name.endswith(".tmp")]


def test_the_header_is_valid_and_claims_nothing_unknown(write: Callable[..., str], folder: Path) -> None:
    card = write(result=None)
    assert card.startswith("---\n")
    header = yaml.safe_load(card.split("---\n")[1])
    assert header == {
        "library_name": "transformers",  # and no pipeline_tag: the Hub has none for zero-shot classification of videos
        "tags": ["kinetext", "x-clip", "zero-shot-video-classification"],
    }
    assert ModelCard.load(folder / "README.md").data.to_dict() == header


def test_the_measured_numbers_are_in_the_card_with_their_counts(write: Callable[..., str]) -> None:
    card = write()
    (row,) = table_rows(card, "| split | clips listed | decoded | top-1 | top-5 | mean class accuracy |")
    assert row == ["`all`", "4", "3", "0.3333 (1)", "0.6667 (2)", "0.5000"]
    assert "4 classes; chance is 0.2500." in card
    assert "1x1 views of 8 frames, dense sampling at stride 2, 32 px of 37; texts in `a video of {}`." in card
    assert "### own-clips, version 1\n" in card and f"SHA-256 `{PROTOCOL.sha256}`." in card


def test_the_measured_numbers_are_in_the_header(write: Callable[..., str], folder: Path) -> None:
    write()
    results = ModelCard.load(folder / "README.md").data.eval_results
    assert results is not None
    shown = [(one.metric_type, one.metric_name, one.metric_value) for one in results]
    assert shown == [
        ("accuracy", "top-1, protocol own-clips 1", 1 / 3),
        ("accuracy", "top-5, protocol own-clips 1", 2 / 3),
        ("mean_class_accuracy", "mean class accuracy, protocol own-clips 1", 0.5),
    ]
    assert {one.metric_args["sha256"] for one in results} == {PROTOCOL.sha256}


def test_size_input_and_settings_are_those_of_the_saved_model(write: Callable[..., str]) -> None:
    card = write()
    num_parameters = sum(parameter.numel() for parameter in tiny_model().parameters())
    assert f"{num_parameters:,} parameters" in card
    assert (
        "8 frames per clip, sampling `dense`, short side 37 px, crop 32 px, mean [0.485, 0.456, 0.406], "
        "std [0.229, 0.224, 0.225]." in card
    )
    assert "Texts: `a video of {}` with the class name at `{}`." in card
    assert table_rows(card, "| setting | value |") == [
        ["`learning_rate`", "`0.0003`"],
        ["`preset`", "`base-patch16`"],
        ["`hold_out`", "`['eli_*', 'ira_*']`"],
    ]
    assert "Class texts: `moving left`, `moving right`, `growing`, `shrinking`." in card
    assert "# my model\n" in card


def test_a_card_without_result_states_no_number(write: Callable[..., str]) -> None:
    card = write(result=None)
    assert "<!-- not evaluated by this run -->" in card
    assert "top-1" not in card and "chance" not in card


def test_a_card_of_a_run_that_decoded_nothing_says_so(write: Callable[..., str]) -> None:
    card = write(result=result_of(PREDICTIONS[3]))
    (row,) = table_rows(card, "| split | clips listed | decoded | top-1 | top-5 | mean class accuracy |")
    assert row == ["`all`", "1", "0", "no clip decoded", "no clip decoded", "no clip decoded"]
    assert "nan" not in card and "model-index" not in card


def test_no_place_of_the_template_is_left_open(write: Callable[..., str]) -> None:
    for card in (write(), write(result=None), write(settings={}), write(facts=FACTS)):
        assert not re.search(r"{{|{%|undefined|None\b", card)


ODD_TEXTS = ["a|b", 'say "hi"', "two\nlines\n# heading", "{{ 1 + 1 }}{% raw %}", "`tick`", "---", "日本語", "\\ back"]


def test_odd_texts_do_not_break_the_card(write: Callable[..., str], folder: Path) -> None:
    card = write(class_texts=ODD_TEXTS, settings={"a|b": "c|d\ne", "empty": "", "tick": "`", "{{x}}": "{{ 1 + 1 }}"})
    assert ModelCard.load(folder / "README.md").data.to_dict()["tags"][:2] == ["kinetext", "x-clip"]
    plain = write(settings={"a": 1, "b": 2, "c": 3, "d": 4})
    headings = [line for line in plain.splitlines() if line.startswith("#")]
    assert [line for line in card.splitlines() if line.startswith("#")] == headings
    assert len(card.splitlines()) == len(plain.splitlines())
    assert table_rows(card, "| setting | value |") == [
        ["`a\\|b`", "`c\\|d e`"],
        ["`empty`", "`  `"],
        ["`tick`", "`` ` ``"],
        ["`{{x}}`", "`{{ 1 + 1 }}`"],
    ]
    assert (
        'Class texts: `a|b`, `say "hi"`, `two lines # heading`, `{{ 1 + 1 }}{% raw %}`, `` `tick` ``, `---`, `日本語`, '
        "`\\ back`." in card
    )


FACTS = RunFacts(
    num_train_clips=1000,
    num_eval_clips=4,
    data_fingerprint="d" * 64,
    protocol="p" * 64,
    environment={"processes": 2, "device": "cuda | H100", "torch": "2.13.0"},
    duration_s=3723.4,
    num_failed_clips=50,
)


def test_the_facts_of_the_run_are_in_the_card(write: Callable[..., str], folder: Path) -> None:
    card = write(facts=FACTS)
    assert f"1000 clips to train on, SHA-256 of their names and labels `{FACTS.data_fingerprint}`; 50 of them" in card
    assert "Trained for 1 h 02 min 03 s." in card
    assert table_rows(card, "| environment | |") == [
        ["`processes`", "`2`"],
        ["`device`", "`cuda \\| H100`"],
        ["`torch`", "`2.13.0`"],
    ]
    assert "curves.png" not in card
    (folder / "curves.png").touch()
    try:
        assert "](curves.png)\n\nSettings that differ" in write(facts=FACTS)
    finally:
        (folder / "curves.png").unlink()
    unmeasured = write(facts=replace(FACTS, protocol=None, num_failed_clips=0), result=None)
    assert "rotocol" not in unmeasured and "decoded" not in unmeasured


def test_a_licence_is_stated_where_it_is_known(write: Callable[..., str]) -> None:
    assert "Licence, data sheet and intended use are unknown" in write()
    card = write(license="cc-by-nc-4.0")
    assert yaml.safe_load(card.split("---\n")[1])["license"] == "cc-by-nc-4.0"
    assert "<!-- Data sheet and intended use are unknown" in card
    with pytest.raises(ValueError, match="license='CC BY' is none of the Hub's ids"):
        write(license="CC BY")


MOVES = [["goes left", "not right"], ["goes right"], ["gets larger"], ["gets smaller", 'odd "one"\n`x` | {{ 1 }}']]


@pytest.fixture(scope="module")
def moted_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("runs") / "moted"
    tiny_moted(num_frames=4).save_pretrained(path)
    VideoTextProcessor(small_tokenizer(TEXTS), num_frames=4, crop_size=32, motion_frame_ratio=2).save_pretrained(path)
    return path


def moted_card(folder: Path, **arguments: Any) -> str:
    options = {"class_texts": TEXTS, "settings": SETTINGS, "result": RESULT, "descriptions": MOVES, **arguments}
    write_model_card(folder, **options)
    return (folder / "README.md").read_text(encoding="utf-8")


def test_the_card_of_a_moted_says_what_it_is_and_reads(moted_folder: Path) -> None:
    card = moted_card(moted_folder, description_source="moves.yaml")
    assert yaml.safe_load(card.split("---\n")[1])["tags"][:2] == ["kinetext", "moted"]
    assert "MoTED: a frozen CLIP with a motion encoder" in card
    assert "There is no MoTED in transformers itself." in card and "XCLIP" not in card and "X-CLIP" not in card
    assert "4 frames per clip, with the motion frames between them 8, sampling `segments`" in card
    assert (
        "Descriptions: 2 of `moving left`, 1 of `moving right`, 1 of `growing`, 2 of `shrinking`, from `moves.yaml`. "
        "SHA-256 of their texts: `" in card
    )
    assert "title = {Enhanced Motion-Text Alignment for Image-to-Video Transfer Learning}" in card
    assert "18504--18515" in card and "author" not in card


def test_descriptions_of_one_number_are_counted_once_and_none_not_at_all(
    moted_folder: Path, write: Callable[..., str]
) -> None:
    card = moted_card(moted_folder, descriptions=[["a", "b"]] * 4)
    assert "\nDescriptions: 2 of each class. SHA-256" in card
    hashes = {re.findall(r"of their texts: `(\w{64})`", one)[0] for one in (card, moted_card(moted_folder))}
    assert len(hashes) == 2
    plain = moted_card(moted_folder, descriptions=None)
    assert "escriptions:" not in plain and "descriptions=" not in plain
    headings = [line for line in write().splitlines() if line.startswith("#")][1:]
    for one in (card, plain):
        assert [line for line in one.splitlines() if line.startswith("#")][1:] == headings
        assert not re.search(r"{{|{%|undefined|None\b", one)


def test_the_code_of_the_card_passes_descriptions_on(moted_folder: Path) -> None:
    (code,) = re.findall(
        r"```python\n(.*?)```", moted_card(moted_folder, class_texts=TEXTS[::-1], descriptions=MOVES[::-1]), re.DOTALL
    )
    found: dict[str, Any] = {}
    start, end = code.index("descriptions = "), code.index("print(")
    exec(code[start:end], {"processor": lambda **arguments: found.update(arguments)})
    assert found == {"videos": "clip.mp4", "text": TEXTS[:0:-1], "descriptions": MOVES[:0:-1]}
    compile(code, "card", "exec")


@pytest.mark.parametrize("texts", [TEXTS, ODD_TEXTS, ODD_TEXTS[4:]])
def test_the_code_of_the_card_is_python(write: Callable[..., str], texts: list[str]) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", write(class_texts=texts), re.DOTALL)
    found: dict[str, Any] = {}
    (call,) = (line for line in code.splitlines() if line.startswith("batch = "))
    exec(call, {"processor": lambda **arguments: found.update(arguments)})
    assert found == {"videos": "clip.mp4", "text": texts[:3]}
    compile(code, "card", "exec")


def test_the_card_of_a_classifier_speaks_of_no_texts_and_its_code_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    labels = dict(enumerate(TEXTS))
    XCLIPForVideoClassification(tiny_config(id2label=labels)).save_pretrained(tmp_path / "classifier")
    VideoTextProcessor(small_tokenizer(TEXTS), num_frames=8, crop_size=32).save_pretrained(tmp_path / "classifier")
    write_model_card(tmp_path / "classifier", class_texts=TEXTS, settings=SETTINGS, result=RESULT)
    card = (tmp_path / "classifier/README.md").read_text("utf-8")
    assert "scores a video for the classes below, by a linear layer" in card
    header = yaml.safe_load(card.split("---\n")[1])
    assert (header["pipeline_tag"], header["tags"]) == ("video-classification", ["kinetext", "x-clip"])
    assert "Classes: `moving left`," in card and "lass texts" not in card.split("## Citation")[0]
    assert "XCLIPModel" not in card and not re.search(r"{{|{%|undefined|None\b", card)

    (code,) = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    render_clip(tmp_path / "clip.mp4", 10)
    exec(code, {})
    assert capsys.readouterr().out.strip() in TEXTS
