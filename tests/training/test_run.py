"""What a run leaves behind."""

import json
import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from rendered_clips import render_clip
from safetensors.torch import load_file
from testing_utils import tiny_moted_fields
from training_runs import CLASSES, REPOSITORY, render_clips, write_recipe
from transformers import AutoModel, AutoModelForVideoClassification, AutoProcessor

import kinetext.training.run as run
from kinetext import MotedModel, VideoTextProcessor, XCLIPForVideoClassification, XCLIPModel
from kinetext.evaluation.class_texts import encode_class_texts
from kinetext.evaluation.classify import load_model
from kinetext.evaluation.predictions import EvaluationResult
from kinetext.evaluation.results import ProtocolResult, read_result
from kinetext.training.arguments import ModelArguments, parse_recipe
from kinetext.training.build import build_model

TEXTS = ["running", "waving"]


def test_training_on_one_class_is_refused(tmp_path: Path) -> None:
    (tmp_path / "clips/running").mkdir(parents=True)
    (tmp_path / "clips/running/a.mp4").write_bytes(b"")
    arguments = ["--preset", "base-patch32", "--data_root", str(tmp_path / "clips"), "--use_cpu"]
    recipe = parse_recipe([*arguments, "--output_dir", str(tmp_path / "out")])

    with pytest.raises(ValueError, match=r"single class \['running'\]"):
        run.run_training(recipe)


def test_evaluation_refuses_settings_that_the_model_brings(checkpoint: str, tmp_path: Path) -> None:
    arguments = ["--data_root", str(tmp_path), "--output_dir", str(tmp_path / "out"), "--use_cpu"]
    recipe = parse_recipe([*arguments, "--num_frames", "4"], model=checkpoint)

    with pytest.raises(ValueError, match="would change what the model was saved with"):
        run.evaluate_recipe(recipe)
    with pytest.raises(ValueError, match="views='2x2' is not understood"):
        run.evaluate_recipe(parse_recipe(arguments, model=checkpoint), views="2x2")


# From a recipe to a folder


@pytest.fixture(scope="module")
def clips_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return render_clips(tmp_path_factory.mktemp("clips"), per_class=2)


def train(folder: Path, clips_root: Path, **settings: Any) -> EvaluationResult | None:
    short = {"max_steps": 2, "warmup_steps": 1, "save_steps": 1, "dataloader_num_workers": 0}
    recipe = write_recipe(folder / "recipe.yaml", **{**short, **settings})
    arguments = [str(recipe), "--data_root", str(clips_root), "--output_dir", str(folder / "out")]
    return run.run_training(parse_recipe(arguments))


def test_a_run_leaves_a_model_that_others_load_with_card_report_and_results(clips_root: Path, tmp_path: Path) -> None:
    result = train(tmp_path, clips_root)
    out = tmp_path / "out"
    model, processor = AutoModel.from_pretrained(out).eval(), AutoProcessor.from_pretrained(out)

    assert isinstance(model, XCLIPModel) and isinstance(processor, VideoTextProcessor) and result is not None
    video = processor(videos=[str(clips_root / "train/growing/000.mp4")])
    with torch.inference_mode():
        logits = model(**video, **processor(text=list(CLASSES))).logits_per_video
    saved = read_result(out)
    (prediction,) = (one for one in saved.splits["all"].predictions if one.clip_id == "growing/000.mp4")
    assert logits.softmax(-1).max().item() == pytest.approx(prediction.score, abs=1e-5)
    assert saved.settings["ema_decay"] == 0.8 and saved.metrics()["num_decoded"] == 8
    assert saved.protocol.sha256 in (out / "README.md").read_text() and saved.model["name"] == "out"
    assert {"README.md", "report.md", "curves.png", "modeling_xclip.py", "checkpoint-2"} <= {
        one.name for one in out.iterdir()
    }
    assert "top-1" in (out / "report.md").read_text()


def test_what_is_saved_at_the_end_are_the_averages(clips_root: Path, tmp_path: Path) -> None:
    train(tmp_path, clips_root)
    final = load_file(tmp_path / "out/model.safetensors")
    averages = load_file(tmp_path / "out/checkpoint-2/averages.safetensors")
    raw = load_file(tmp_path / "out/checkpoint-2/model.safetensors")

    assert all(torch.equal(final[name], value) for name, value in averages.items())
    assert any(not torch.equal(raw[name], value) for name, value in averages.items())


def test_without_evaluation_clips_results_of_an_earlier_run_go(clips_root: Path, tmp_path: Path) -> None:
    stale = ("results.json", "predictions.parquet", "evaluation_mine_12345678.json", ".eval_results/kinetext.yaml")
    for name in stale:
        (tmp_path / "out" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "out" / name).write_text("{}")

    assert train(tmp_path, clips_root, eval=None) is None
    assert not [name for name in stale if (tmp_path / "out" / name).exists()]
    assert (tmp_path / "out/model.safetensors").is_file()


def test_a_linear_classifier_is_trained_saved_and_evaluated(clips_root: Path, tmp_path: Path) -> None:
    trained = train(tmp_path, clips_root, head="linear")
    out = tmp_path / "out"
    model = AutoModelForVideoClassification.from_pretrained(out)
    assert isinstance(model, XCLIPForVideoClassification) and tuple(model.config.id2label.values()) == CLASSES

    arguments = [
        "--data_root",
        str(clips_root),
        "--train",
        "train",
        "--output_dir",
        str(tmp_path / "again"),
        "--use_cpu",
    ]
    again, _ = run.evaluate_recipe(parse_recipe(arguments, model=str(out)))
    assert_as_trained(again, trained, out)


def assert_as_trained(again: ProtocolResult, trained: EvaluationResult | None, out: Path) -> None:
    """What was evaluated after training is what the run evaluated, of the same weights under the same protocol."""
    (found,) = again.splits.values()
    assert trained is not None
    assert [one.score for one in found.predictions] == pytest.approx([one.score for one in trained.predictions])
    written = read_result(out)
    assert again.protocol == written.protocol
    assert {**again.model, "name": "out"} == dict(written.model)


def test_lora_is_merged_into_what_is_saved(clips_root: Path, tmp_path: Path) -> None:
    train(tmp_path, clips_root, lora_rank=2)
    names = load_file(tmp_path / "out/model.safetensors").keys()
    raw = load_file(tmp_path / "out/checkpoint-2/model.safetensors").keys()

    assert not any("lora" in name for name in names) and any("lora" in name for name in raw)
    assert AutoModel.from_pretrained(tmp_path / "out", output_loading_info=True)[1]["missing_keys"] in ([], set())
    message = (
        r"checkpoint-2 lacks \d+ weights of its model, such as .*with lora_rank.* use the folder that the finished"
    )
    unmerged = str(tmp_path / "out/checkpoint-2")
    with pytest.raises(ValueError, match=message):
        load_model(unmerged)
    with pytest.raises(ValueError, match=message):
        build_model(ModelArguments(model=unmerged), CLASSES)


def test_class_texts_that_are_trained_reach_the_model(clips_root: Path, tmp_path: Path) -> None:
    train(tmp_path, clips_root, train_text=True, class_texts={"growing": "a swelling shape"})

    assert "a swelling shape" in (tmp_path / "out/README.md").read_text()


# MoTED


@pytest.fixture
def waving_and_running(tmp_path: Path) -> Path:
    for name in ("running", "waving"):
        (tmp_path / "data" / name).mkdir(parents=True)
        for number in range(2):
            render_clip(tmp_path / "data" / name / f"{number}.mp4", 10)
    (tmp_path / "moves.yaml").write_text("running: [legs alternate, it travels]\nwaving: [a hand swings]\n", "utf-8")
    return tmp_path


def moted_recipe(folder: Path, *extra: str, model: str | None = None) -> Any:
    arguments = ["--model_config", tiny_moted_fields(), "--architecture", "moted", "--num_frames", "4"]
    arguments += ["--data_root", str(folder / "data"), "--output_dir", str(folder / "out"), "--use_cpu"]
    arguments += ["--hold_out", "1.mp4", "--max_steps", "1", "--report_to", "none", "--save_strategy", "no"]
    arguments += ["--total_train_batch_size", "2", "--disable_tqdm", "true"]
    if model is not None:
        arguments = arguments[6:]
    return parse_recipe([*arguments, *extra], model=model)


def test_a_run_of_moted_can_be_evaluated_with_its_descriptions(
    waving_and_running: Path, caplog: pytest.LogCaptureFixture
) -> None:
    moves = str(waving_and_running / "moves.yaml")
    by_motion = tiny_moted_fields(inference_logits="motion")  # video logits are those of the names until it has learnt
    trained = run.run_training(moted_recipe(waving_and_running, "--descriptions", moves, "--model_config", by_motion))
    out = waving_and_running / "out"
    assert json.loads((out / "results.json").read_text())["settings"]["descriptions"] == moves
    assert f"Descriptions: 2 of `running`, 1 of `waving`, from `{moves}`." in (out / "README.md").read_text()

    recipe = moted_recipe(waving_and_running, "--descriptions", moves, model=str(out))
    recipe.training.output_dir = str(waving_and_running / "again")
    again, _ = run.evaluate_recipe(recipe)
    assert_as_trained(again, trained, out)
    assert read_result(waving_and_running / "again").settings["descriptions"] == moves
    assert not caplog.records

    without, _ = run.evaluate_recipe(moted_recipe(waving_and_running, model=str(out)))
    assert "gets none, so class names stand in for them" in caplog.text
    scores = [[one.score for one in each.splits["all"].predictions] for each in (without, again)]
    assert scores[0] != pytest.approx(scores[1]) and without.settings == {}


def test_moted_without_its_descriptions_is_refused(waving_and_running: Path) -> None:
    with pytest.raises(ValueError, match=r"the recipe names none: give `descriptions`.*or set use_conceptual and"):
        run.run_training(moted_recipe(waving_and_running))


def test_moted_that_reads_names_only_needs_no_descriptions(waving_and_running: Path) -> None:
    names_only = tiny_moted_fields(use_conceptual=False, use_discriminative=False)
    arguments = ["--model_config", names_only]
    assert run.run_training(moted_recipe(waving_and_running, *arguments)) is not None
    moves = str(waving_and_running / "moves.yaml")
    with pytest.raises(ValueError, match="would have no effect: this moted reads class texts only"):
        run.run_training(moted_recipe(waving_and_running, *arguments, "--descriptions", moves))


def test_descriptions_in_the_recipe_of_an_evaluated_xclip_are_left_out_and_said_so(
    checkpoint: str, waving_and_running: Path, caplog: pytest.LogCaptureFixture
) -> None:
    moves = str(waving_and_running / "moves.yaml")
    with caplog.at_level(logging.WARNING):
        run.evaluate_recipe(moted_recipe(waving_and_running, "--descriptions", moves, model=checkpoint))
    assert "the descriptions are left out for this xclip model: it reads class texts only." in caplog.text
    assert read_result(waving_and_running / "out").settings == {}


def test_the_text_tower_of_moted_is_not_trained(waving_and_running: Path) -> None:
    moves = str(waving_and_running / "moves.yaml")
    with pytest.raises(ValueError, match="the text tower of MoTED stays frozen"):
        run.run_training(moted_recipe(waving_and_running, "--descriptions", moves, "--train_text"))


def test_motion_frames_of_model_and_processor_must_agree(clip: str) -> None:
    model, _ = build_model(ModelArguments(model=clip, architecture="moted"), TEXTS)
    plain = VideoTextProcessor.from_pretrained(clip)
    with pytest.raises(ValueError, match="motion_frame_ratio=1, the moted model takes 2"):
        encode_class_texts(model, plain, TEXTS, descriptions=[["a"], ["b"]])


def test_from_clip_refuses_a_configuration_of_its_own(clip: str) -> None:
    config = MotedModel.from_clip(clip).config
    with pytest.raises(TypeError, match="goes to its model's constructor"):
        MotedModel.from_clip(config)


# What is refused before anything is loaded


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"report_to": "wandb"}, ImportError, r"report_to=\['wandb'\] is not installed; here is .*tensorboard"),
        ({"license": "My License"}, ValueError, "license='My License' is none of the Hub's ids"),
        (
            {"eval": None, "load_best_model_at_end": True, "eval_steps": 1, "save_steps": 1},
            ValueError,
            "load_best_model_at_end needs clips to evaluate; give eval or hold_out",
        ),
        (
            {"streaming": True, "save_strategy": "epoch"},
            ValueError,
            "save_strategy: epoch never comes in a stream, which has none; write e.g. save_strategy: steps, save_steps",
        ),
        ({"streaming": True, "eval_strategy": "epoch"}, ValueError, "eval_strategy: epoch never comes in a stream"),
        (
            {"streaming": True, "push_to_hub": "a/b", "push_every_epochs": 1, "license": "mit"},
            ValueError,
            "push_every_epochs=1: a stream has no epochs",
        ),
        (
            {"class_texts": {"growing": "it moves", "shrinking": "it moves"}},
            ValueError,
            r"the classes \['growing', 'shrinking'\] have the same text, 'it moves'; give each its own",
        ),
    ],
)
def test_what_would_only_show_later_is_refused_at_once(
    clips_root: Path, tmp_path: Path, settings: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        train(tmp_path, clips_root, **settings)
    assert not (tmp_path / "out").exists()


def test_a_stream_without_evaluation_clips_needs_no_eval_strategy(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path / "recipe.yaml", streaming=True, eval=None, eval_strategy="epoch")
    run._check_settings(parse_recipe([str(recipe), "--data_root", "clips", "--output_dir", str(tmp_path / "out")]))


@pytest.mark.parametrize(("streaming", "differs"), [(True, True), (False, False)])
def test_a_stream_goes_on_with_its_own_clips_only(tmp_path: Path, streaming: bool, differs: bool) -> None:
    recipe = write_recipe(tmp_path / "recipe.yaml", streaming=streaming)
    arguments = [str(recipe), "--data_root", "clips", "--output_dir", str(tmp_path / "out")]
    one, other = (run._identity(parse_recipe([*arguments, "--train", name])) for name in "ab")
    assert (one != other) == differs


# In the middle of a run


def test_an_evaluation_that_is_broken_off_leaves_what_was_learnt(
    clips_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def break_off(trainer: Any) -> EvaluationResult:
        raise KeyboardInterrupt

    monkeypatch.setattr(run.VideoTextTrainer, "evaluation_result", break_off)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, clips_root, save_strategy="no", eval_strategy="no")
    assert "not evaluated" in (tmp_path / "out/README.md").read_text()
    AutoModel.from_pretrained(tmp_path / "out")


def test_a_run_is_pushed_while_it_trains_and_says_nothing_of_this_machine(
    hub_client: Any, clips_root: Path, tmp_path: Path
) -> None:
    epochs = {"max_steps": -1, "num_train_epochs": 2, "save_strategy": "no", "eval_strategy": "epoch"}
    pushes = {"push_to_hub": "alice/run", "push_every_epochs": 1, "license": "mit"}
    recipe = write_recipe(tmp_path / "recipe.yaml", warmup_steps=1, dataloader_num_workers=0, **epochs, **pushes)  # type: ignore[arg-type]
    places = ["--data_root", str(clips_root), "--output_dir", str(tmp_path / "out")]
    hub_client.run(str(REPOSITORY / "train.py"), str(recipe), *places)

    commits = hub_client.hub.state.repos["models", "alice/run"].commits
    assert [commit.title for commit in commits.values()][-2:] == ["After epoch 1", "Trained with kinetext"]
    files = hub_client.hub.files("alice/run")
    assert {"results.json", "confusion.png", "model.safetensors"} <= files.keys()
    assert not [name for name, content in files.items() if str(tmp_path).encode() in content]
    assert not [name for name, content in files.items() if str(clips_root).encode() in content]


# Evaluation of what was saved


@pytest.mark.parametrize("given", [("--lora_rank", "2"), ("--train_vision", "false"), ("--head", "linear")])
def test_evaluation_refuses_settings_of_training(checkpoint: str, tmp_path: Path, given: tuple[str, str]) -> None:
    arguments = ["--data_root", str(tmp_path), "--output_dir", str(tmp_path / "out"), "--use_cpu", *given]
    with pytest.raises(ValueError, match=f"{given[0][2:]}=.* says how a model is trained; leave it out of eval"):
        run.evaluate_recipe(parse_recipe(arguments, model=checkpoint))


def test_clips_are_evaluated_with_the_decoder_of_the_recipe(
    checkpoint: str, waving_and_running: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoders = []
    monkeypatch.setattr(run, "evaluate_with_baseline", lambda *_, loading, **__: decoders.append(loading.decoder))
    for settings in ((), ("--decoder", "decord")):
        run.evaluate_recipe(moted_recipe(waving_and_running, *settings, model=checkpoint))
    assert decoders == ["pyav", "decord"]


def test_moted_whose_descriptions_are_its_class_texts_is_told_so(waving_and_running: Path) -> None:
    (waving_and_running / "one.yaml").write_text("running: [legs alternate]\nwaving: [a hand swings]\n", "utf-8")
    arguments = ["--descriptions", str(waving_and_running / "one.yaml"), "--class_texts", "descriptions"]
    with pytest.raises(ValueError, match="stand in for the class names, and this MoTED learns from both; leave class_"):
        run.run_training(moted_recipe(waving_and_running, *arguments))
