"""Results of several protocols in one card: apart from each other, read by the Hub, and of these weights alone."""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from huggingface_hub import ModelCard, parse_eval_result_entries
from safetensors.torch import load_file
from synthetic_results import synthetic_protocol, synthetic_result
from testing_utils import tiny_model

from kinetext import VideoTextProcessor
from kinetext.data.small_tokenizer import small_tokenizer
from kinetext.evaluation.protocol import Protocol, Split
from kinetext.evaluation.results import model_facts, read_result
from kinetext.hub_cards.measured import add_results, index_entries, measured_section
from kinetext.hub_cards.model_card import write_model_card

CLASSES = ("growing", "moving left", "shrinking")
ZERO_SHOT = synthetic_protocol(CLASSES, splits=(Split("1", (), num_clips=18), Split("2", (), num_clips=18)))
RETRIEVAL = synthetic_protocol(
    CLASSES, name="motion", dataset="own shapes", task="retrieval", distractors=("a dog",), note="Read *this*.\n"
)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("runs") / "my model"
    tiny_model().save_pretrained(path)
    VideoTextProcessor(small_tokenizer(CLASSES), num_frames=8, crop_size=32).save_pretrained(path)
    return path


@pytest.fixture
def folder(weights: Path) -> Path:
    write_model_card(weights, class_texts=CLASSES, settings={}, result=None, license="mit")
    return weights


@pytest.fixture
def write(folder: Path, tmp_path: Path) -> Callable[..., Path]:
    def write_result(
        protocol: Protocol, name: str, *, of: dict[str, torch.Tensor] | None = None, **options: Any
    ) -> Path:
        facts = model_facts(f"/home/me/{name}", "xclip", of or load_file(folder / "model.safetensors"))
        splits = tuple(replace(split, num_clips=18) for split in protocol.splits)
        result = synthetic_result(replace(protocol, splits=splits), **options)
        replace(result, model=facts).write(tmp_path / name)
        return tmp_path / name

    return write_result


def section_of(folder: Path, heading: str) -> str:
    card = (folder / "README.md").read_text("utf-8")
    return card.split(f"### {heading}, version 1\n")[1].split("\n#")[0]


def test_results_of_two_protocols_stand_apart_with_their_hashes(folder: Path, write: Callable[..., Path]) -> None:
    sources = [write(ZERO_SHOT, "a", failed={"growing/00.avi": "broken"}), write(RETRIEVAL, "b")]
    add_results(folder, [sources[0], sources[1] / "results.json"])
    zero_shot, retrieval = (read_result(source) for source in sources)
    card = (folder / "README.md").read_text("utf-8")
    assert card.count("## Measured\n") == 1 and "not evaluated" not in card and "## Training" in card
    one, other = section_of(folder, "shapes-zero-shot"), section_of(folder, "motion")
    for text, own, another in ((one, zero_shot, retrieval), (other, retrieval, zero_shot)):
        assert f"SHA-256 `{own.protocol.sha256}`" in text and another.protocol.sha256 not in text
        assert text.count("|---|") > 0 and len(re.findall(r"^\|---", text, re.MULTILINE)) == 1  # one table
    assert "| `1` | 18 | 17 |" in one and "| `2` | 18 | 17 |" in one
    mean, std = zero_shot.metrics(), zero_shot.std()
    assert f"| {mean['top1']:.4f} ± {std['top1']:.4f} | {mean['top5']:.4f} ± {std['top5']:.4f} |" in one
    metrics = retrieval.metrics()
    count = retrieval.split_metrics()["all"]["recall_at_1_count"]
    assert f"| `all` | 18 | 18 | {metrics['recall_at_1']:.4f} ({count}) |" in other and "top-1" not in other
    assert "3 classes and 1 distractors; chance is 0.2500." in other and "Read *this*." in other


def test_splits_of_different_candidates_state_theirs_and_no_chance() -> None:
    splits = (Split("base"), Split("novel", classes=CLASSES[:2]))
    own = synthetic_protocol(CLASSES, splits=splits, distractors=("a dog",))
    text = measured_section([synthetic_result(own)])
    assert "3 classes in `base`, 2 classes in `novel` and 1 distractors in each. 1x1 views" in text
    assert "chance" not in text


def test_what_numbers_are_over_follows_the_protocol() -> None:
    multi = measured_section([synthetic_result(synthetic_protocol(CLASSES, task="multi_label"))])
    assert "3 classes. 1x1 views" in multi and "Measured over decoded clips." in multi
    assert "chance" not in multi and "brackets" not in multi
    wrong = measured_section([synthetic_result(synthetic_protocol(CLASSES, failed_clips="wrong"))])
    assert "counted over listed ones; one that cannot be decoded is wrong." in wrong and "decoded ones" not in wrong
    assert "counted over decoded ones." in measured_section([synthetic_result(synthetic_protocol(CLASSES))])


def test_a_note_is_one_paragraph_and_leaves_nothing_behind(folder: Path, write: Callable[..., Path]) -> None:
    card = folder / "README.md"
    before = card.read_text("utf-8")
    noted = write(replace(RETRIEVAL, note="# Mine\n\n## Stale\nold text\n"), "a")
    add_results(folder, [noted])
    text = card.read_text("utf-8")
    assert "\n\n\\# Mine ## Stale old text\n\n## " in text
    assert [line for line in text.splitlines() if line.startswith("## ")] == [
        line for line in before.splitlines() if line.startswith("## ")
    ]
    add_results(folder, [write(ZERO_SHOT, "b")])
    assert "old text" not in card.read_text("utf-8")


def test_the_section_may_be_the_last_and_empty(folder: Path, write: Callable[..., Path]) -> None:
    card, source = folder / "README.md", write(ZERO_SHOT, "a")
    for end in ("", "\n", "\n\nOld text.\n"):
        card.write_text(f"---\nlicense: mit\n---\n# Mine\n\n## Measured{end}", "utf-8")
        add_results(folder, [source])
        text = card.read_text("utf-8")
        assert "### shapes-zero-shot, version 1" in text and "Old text" not in text and text.count("## Measured\n") == 1
        add_results(folder, [source])
        assert card.read_text("utf-8") == text


VALIDATE = "import sys; from huggingface_hub import ModelCard; ModelCard.load(sys.argv[1]).validate()"


def check_model_index(models: list[dict[str, Any]]) -> None:
    """What the Hub wants of it, which the stub does not look at."""
    (model,) = models
    assert model["name"] and model["results"]
    for result in model["results"]:
        assert result["task"]["type"] and result["dataset"]["name"] and result["metrics"]
        assert re.fullmatch(r"(?:[\w-]+/)?[\w.-]+", result["dataset"]["type"])
        assert all(one["type"] and isinstance(one["value"], float) for one in result["metrics"])


def test_the_header_is_what_the_hub_reads(hub_client: Any, folder: Path, write: Callable[..., Path]) -> None:
    sources = [write(ZERO_SHOT, "a"), write(RETRIEVAL, "b")]
    add_results(folder, sources)
    hub_client.run("-c", VALIDATE, str(folder / "README.md"))
    assert ("POST", "/api/validate-yaml", 200) in hub_client.hub.requests
    check_model_index(yaml.safe_load((folder / "README.md").read_text("utf-8").split("---\n")[1])["model-index"])

    data = ModelCard.load(folder / "README.md").data
    assert (data.model_name, data.license) == ("my model", "mit") and data.eval_results is not None
    results = [read_result(source) for source in sources]
    expected = {
        (result.protocol.sha256, one.metric_name): one.metric_value
        for result in results
        for one in index_entries([result])
    }
    assert {(one.metric_args["sha256"], one.metric_name): one.metric_value for one in data.eval_results} == expected
    top1 = next(one for one in data.eval_results if one.metric_name == "top-1, protocol shapes-zero-shot 1")
    assert top1.metric_value == pytest.approx(results[0].metrics()["top1"])
    assert (top1.task_type, top1.dataset_type, top1.dataset_split) == ("video-classification", "org/shapes", "1, 2")
    recall = next(one for one in data.eval_results if one.metric_type == "recall_at_1")
    assert (recall.task_type, recall.dataset_type, recall.dataset_name) == (
        "video-text-retrieval",
        "own-shapes",
        "own shapes",
    )


def test_the_hub_gets_the_primary_number_of_each(folder: Path, write: Callable[..., Path]) -> None:
    sources = [write(ZERO_SHOT, "a"), write(RETRIEVAL, "b")]
    add_results(folder, sources)
    entries = parse_eval_result_entries(yaml.safe_load((folder / ".eval_results/kinetext.yaml").read_text()))
    results = [read_result(source) for source in sources]
    assert [(one.dataset_id, one.task_id) for one in entries] == [
        ("org/shapes", "shapes-zero-shot"),
        ("own-shapes", "motion"),
    ]
    assert [one.value for one in entries] == [results[0].metrics()["top1"], results[1].metrics()["recall_at_1"]]
    for entry, result in zip(entries, results, strict=True):
        assert entry.notes is not None and result.protocol.sha256 in entry.notes and "as a share" in entry.notes


def test_copies_lie_beside_the_card_and_name_no_place_of_this_machine(folder: Path, write: Callable[..., Path]) -> None:
    source = write(ZERO_SHOT, "a")
    add_results(folder, [write(RETRIEVAL, "b")])
    add_results(folder, [source])
    (copy,) = folder.glob("evaluation_*.json")  # that of the first call is gone
    assert copy.name == f"evaluation_shapes-zero-shot_{read_result(source).protocol.sha256[:8]}.json"
    content, original = (json.loads(path.read_text()) for path in (copy, source / "results.json"))
    assert content.pop("model").pop("name") == "my model" and original.pop("model").pop("name") == "/home/me/a"
    assert content == original
    card = (folder / "README.md").read_text("utf-8")
    assert "### motion" not in card and "/home/me" not in card + copy.read_text()
    first = (folder / "README.md").read_bytes()
    add_results(folder, [source])
    assert (folder / "README.md").read_bytes() == first


def test_results_that_do_not_belong_to_the_card_are_refused(
    folder: Path, write: Callable[..., Path], tmp_path: Path
) -> None:
    own = load_file(folder / "model.safetensors")
    others = {name: tensor + (name == "logit_scale") for name, tensor in own.items()}
    before = (folder / "README.md").read_bytes()
    source = write(ZERO_SHOT, "other", of=others)
    with pytest.raises(
        ValueError, match=r"other was measured on other weights \(SHA-256 \w{12}\) than those in .*my model"
    ):
        add_results(folder, [source])
    with pytest.raises(ValueError, match="two results are of the protocol shapes-zero-shot; give one of each"):
        add_results(folder, [write(ZERO_SHOT, "a"), write(ZERO_SHOT, "b", seed=1)])
    with pytest.raises(FileNotFoundError, match="there is no result at .*nowhere"):
        add_results(folder, [tmp_path / "nowhere"])
    assert (folder / "README.md").read_bytes() == before and not [*folder.glob("evaluation_other*")]
    (folder / "README.md").write_text("---\nlicense: mit\n---\n# Mine\n\n## Results\n")
    with pytest.raises(ValueError, match=r"README.md has no section `## Measured`; write it anew, or add the heading"):
        add_results(folder, [write(ZERO_SHOT, "c")])


def test_a_result_without_a_decoded_clip_states_no_number(folder: Path, write: Callable[..., Path]) -> None:
    failed = {f"{name}/{row:02}.avi": "broken" for name in CLASSES for row in range(18)}
    add_results(folder, [write(RETRIEVAL, "a", failed=failed)])
    assert "no clip decoded" in section_of(folder, "motion") and "nan" not in (folder / "README.md").read_text()
    assert ModelCard.load(folder / "README.md").data.eval_results is None
    assert yaml.safe_load((folder / ".eval_results/kinetext.yaml").read_text()) == []


def test_a_model_is_pushed_with_exactly_its_results(hub_client: Any, folder: Path, write: Callable[..., Path]) -> None:
    sources = [write(ZERO_SHOT, "a"), write(RETRIEVAL, "b")]
    (folder / "evaluation_old_00000000.json").write_text("{}")
    given = [word for source in sources for word in ("--results", str(source))]
    printed = hub_client.run("-m", "kinetext.cli", "push", "model", str(folder), "alice/run", *given)
    assert "pushed to alice/run, commit" in printed
    files = hub_client.hub.files("alice/run")
    names = {f"evaluation_{r.protocol.name}_{r.protocol.sha256[:8]}.json" for r in map(read_result, sources)}
    assert {name for name in files if name.startswith("evaluation")} == names
    assert len(parse_eval_result_entries(yaml.safe_load(files[".eval_results/kinetext.yaml"]))) == 2
    card = files["README.md"].decode()
    assert "### shapes-zero-shot, version 1" in card and "### motion, version 1" in card
    assert not {"results.json", "predictions.parquet"} & files.keys()

    hub_client.run("-m", "kinetext.cli", "push", "model", str(folder), "alice/run", "--results", str(sources[0]))
    pushed = {name for name in hub_client.hub.files("alice/run") if name.startswith("evaluation")}
    assert len(pushed) == 1 and pushed < names  # the other one is replaced
