"""Runs on the Hub, by its real client against a local stand-in: what is pushed loads elsewhere, and is nothing else."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from synthetic_results import synthetic_protocol, synthetic_result
from testing_utils import tiny_model, tiny_videos

from kinetext import VideoTextProcessor
from kinetext.data.small_tokenizer import small_tokenizer
from kinetext.evaluation.evaluator import write_json
from kinetext.evaluation.results import model_facts
from kinetext.hub_cards.model_card import write_model_card
from kinetext.hub_cards.push import check_push
from kinetext.hub_cards.push_run import push_run

TEXTS = ["running", "waving"]
TOKEN = "tok-alice"
NOT_OURS = {"training_args.bin", "train.py", "notes.md", "requirements.txt", "private.json", "face.png"}

LOAD = """
import sys, torch, kinetext
from transformers import AutoModel, AutoProcessor
model, processor = AutoModel.from_pretrained("alice/run").eval(), AutoProcessor.from_pretrained("alice/run")
videos, expected = torch.load(sys.argv[1], weights_only=True)
with torch.no_grad():
    logits = model(pixel_values=videos, **processor(text=["running", "waving"])).logits_per_video
torch.testing.assert_close(logits, expected, atol=1e-4, rtol=0)
"""

PUSH = "import sys; from kinetext.hub_cards.push_run import push_run; push_run(sys.argv[1], sys.argv[2])"


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    """All that a run leaves behind, some of which must stay here."""
    folder, tokenizer = tmp_path / "my run", small_tokenizer(TEXTS)
    tiny_model(text={"vocab_size": len(tokenizer), "max_position_embeddings": 77}).save_pretrained(folder)
    VideoTextProcessor(tokenizer, num_frames=8, crop_size=32).save_pretrained(folder)
    write_json(folder / "results.json", {"metrics": {}})
    for name in ("report.md", "curves.png", "confusion.png"):
        (folder / name).write_bytes(b"x")
    write_model_card(folder, class_texts=TEXTS, settings={}, result=None, license="cc-by-nc-4.0")
    for name in NOT_OURS:
        (folder / name).write_bytes(f"it holds {TOKEN}".encode())
    for name in ("checkpoint-8/optimizer.pt", "checkpoint-8/model.safetensors", ".checkpoint-9.partial/a/config.json"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(TOKEN.encode())
    return folder


def saved_logits(folder: Path, path: Path) -> str:
    """Writes videos and what the model of the folder says of them; returns where."""
    from transformers import AutoModel, AutoProcessor

    videos = tiny_videos()
    with torch.no_grad():
        tokens = AutoProcessor.from_pretrained(folder)(text=TEXTS)
        torch.save(
            (videos, AutoModel.from_pretrained(folder).eval()(pixel_values=videos, **tokens).logits_per_video), path
        )
    return str(path)


def test_a_pushed_run_loads_elsewhere_and_brings_nothing_else(
    hub_client: Any, run_folder: Path, tmp_path: Path
) -> None:
    hub_client.run("-c", PUSH, str(run_folder), "alice/run")
    hub_client.run("-c", LOAD, saved_logits(run_folder, tmp_path / "logits.pt"))

    files = hub_client.hub.files("alice/run")
    own = {path.name for path in run_folder.iterdir() if path.is_file()} - NOT_OURS
    assert set(files) - {".gitattributes"} == own
    assert {"modeling_xclip.py", "report.md", "curves.png", "confusion.png", "results.json"} <= own
    assert not [name for name, content in files.items() if TOKEN.encode() in content]
    card = files["README.md"].decode()
    assert card.count('from_pretrained("alice/run")') == 2 and "# my run" in card
    assert "license: cc-by-nc-4.0" in card

    tiny_model().save_pretrained(run_folder / "again", max_shard_size="100KB")
    for name in ("model.safetensors", "results.json", "confusion.png", "curves.png"):
        (run_folder / name).unlink()
    for path in (run_folder / "again").glob("model*"):
        path.rename(run_folder / path.name)
    hub_client.run("-c", PUSH, str(run_folder), "alice/run")
    files = hub_client.hub.files("alice/run")
    assert len([name for name in files if name.endswith(".safetensors")]) > 1
    assert not {"model.safetensors", "results.json", "confusion.png", "curves.png"} & files.keys()


def test_a_push_that_fails_says_how_to_push_again(hub_client: Any, run_folder: Path) -> None:
    hub_client.run("-c", PUSH, str(run_folder), "alice/run")
    error = hub_client.run("-c", PUSH, str(run_folder), "alice/run", user="bob", fails=True)
    assert "PermissionError: the token may not write to alice/run" in error
    command = f"kinetext push model '{run_folder}' alice/run"
    assert error.splitlines()[-1] == f"The folder {run_folder} is complete; push it again with: {command}"
    verb = ("-m", "kinetext.cli", "push", "model", str(run_folder))
    assert "pushed to alice/again, commit" in hub_client.run(*verb, "alice/again", "--private", "--license", "mit")
    assert "license: mit" in hub_client.hub.files("alice/again")["README.md"].decode()
    assert "error: alice/run is there already and public" in hub_client.run(*verb, "alice/run", "--private", fails=True)


def test_weights_without_a_licence_are_not_pushed(run_folder: Path, tmp_path: Path) -> None:
    write_model_card(run_folder, class_texts=TEXTS, settings={}, result=None)
    before = (run_folder / "README.md").read_bytes()
    with pytest.raises(ValueError, match=r"README.md names no licence, .* give --license, e.g. apache-2.0"):
        push_run(run_folder, "alice/run")
    with pytest.raises(ValueError, match="license='My Own' is none of the Hub's ids"):
        push_run(run_folder, "alice/run", license="My Own")
    protocol = synthetic_protocol(TEXTS)
    facts = model_facts("m", "xclip", load_file(run_folder / "model.safetensors"))
    replace(synthetic_result(protocol), model=facts).write(tmp_path / "result")
    with pytest.raises(ValueError, match="names no licence"):
        push_run(run_folder, "alice/run", results=[tmp_path / "result"])
    assert (run_folder / "README.md").read_bytes() == before
    assert not [*run_folder.glob("evaluation_*"), *run_folder.glob(".eval_results")]


@pytest.mark.parametrize("name", ["config.json", "processor_config.json", "model.safetensors", "README.md"])
def test_an_incomplete_folder_is_not_pushed(run_folder: Path, name: str) -> None:
    (run_folder / name).unlink()
    with pytest.raises(ValueError, match=rf"has no .*{name.replace('model', '')}; push the output folder"):
        push_run(run_folder, "alice/run")


def test_pushing_again_leaves_a_card_as_it_is_also_where_it_was_edited(hub_client: Any, run_folder: Path) -> None:
    card = run_folder / "README.md"
    text = card.read_text("utf-8").replace("## Limits", "## Intended use\n\nFun.\n\n## Limits")
    card.write_text(text, "utf-8")
    hub_client.run("-c", PUSH, str(run_folder), "alice/run")
    assert card.read_text("utf-8") == text.replace('from_pretrained("my run")', 'from_pretrained("alice/run")')


CHECK = "import sys; from kinetext.hub_cards.push import check_push; check_push(sys.argv[1])"


def test_what_would_fail_after_training_is_found_before(hub_client: Any) -> None:
    hub_client.run("-c", CHECK, "alice/run")
    for token in ("wrong", ""):
        error = hub_client.run("-c", CHECK, "alice/run", HF_TOKEN=token, fails=True)
        assert "PermissionError: the Hub does not know who pushes alice/run: no token or a wrong one" in error
    error = hub_client.run("-c", CHECK, "alice/run", HF_ENDPOINT="http://127.0.0.1:9", fails=True)
    assert "ConnectionError: alice/run was not pushed, nothing was sent" in error


@pytest.mark.parametrize(
    ("repo_id", "message"), [("run", "'run' names no owner; write owner/name"), ("a b/c", "a b/c")]
)
def test_an_id_that_is_none_is_found_before_too(repo_id: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_push(repo_id)
