"""Recipes: YAML values are checked as on the command line, and wrong ones say what is wrong."""

import re
from pathlib import Path
from typing import Any

import pytest

from kinetext.training.arguments import ModelArguments, VideoTextTrainingArguments, as_settings, parse_recipe
from kinetext.training.build import build_model

COMPLETE = "preset: base-patch32\ndata_root: clips\noutput_dir: runs/x\nuse_cpu: true\n"


def recipe_file(folder: Path, text: str) -> str:
    path = folder / "recipe.yaml"
    path.write_text(COMPLETE + text, "utf-8")
    return str(path)


def test_yaml_values_become_what_the_field_says(tmp_path: Path) -> None:
    text = "learning_rate: 1e-4\nhold_out: [a_*, b_*]\ncolor_jitter: [0, 0.1, 1, 0]\nnum_train_epochs: 3\nbf16: true\n"
    recipe = parse_recipe([recipe_file(tmp_path, text)])

    assert recipe.training.learning_rate == 1e-4
    assert recipe.data.hold_out == ["a_*", "b_*"]
    assert recipe.data.color_jitter == [0.0, 0.1, 1.0, 0.0]
    assert recipe.training.bf16 is True
    assert recipe.training.num_train_epochs == 3


def test_the_command_line_wins_over_the_recipe(tmp_path: Path) -> None:
    path = recipe_file(tmp_path, "learning_rate: 1e-4\ndataloader_drop_last: true\ncrop: centre\n")
    recipe = parse_recipe([path, "--learning_rate", "2e-5", "--no_dataloader_drop_last", "--crop", "random_resized"])

    training = recipe.training
    assert (training.learning_rate, training.dataloader_drop_last, recipe.data.crop) == (2e-5, False, "random_resized")


@pytest.mark.parametrize(
    ("text", "flags", "expected"),
    [
        ("", [], None),
        ("train_text: true\n", [], True),
        ("train_text: false\n", [], False),
        ("train_text: null\n", [], None),
        ("", ["--train_text"], True),
        ("", ["--train_text", "true"], True),
        ("train_text: true\n", ["--train_text", "false"], False),
        ("train_text: false\n", ["--train_text"], True),
    ],
)
def test_what_may_be_left_to_the_model_is_set_both_ways(
    text: str, flags: list[str], expected: bool | None, tmp_path: Path
) -> None:
    assert parse_recipe([recipe_file(tmp_path, text), *flags]).model.train_text is expected


@pytest.mark.parametrize("text", ["hold_out: a_*\n", "hold_out: [a_*]\n"])
def test_one_value_of_a_list_needs_no_brackets(text: str, tmp_path: Path) -> None:
    assert parse_recipe([recipe_file(tmp_path, text)]).data.hold_out == ["a_*"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("save_strategy: no\n", "save_strategy=False is just a yes or no; YAML reads yes, no, on and off so: put such"),
        ("learning_rate: true\n", "learning_rate=True is just a yes or no"),
        ("bf16: 'yes'\n", "bf16='yes' is not a yes or no; write true or false."),
        ("model_overrides: [a]\n", "model_overrides=['a'] is a list, and one value is wanted."),
    ],
)
def test_values_that_yaml_reads_otherwise_than_meant_are_refused(text: str, message: str, tmp_path: Path) -> None:
    path = recipe_file(tmp_path, text)

    with pytest.raises(ValueError, match=re.escape(f"{path}: {message}")):
        parse_recipe([path])


def test_a_recipe_overrides_its_bases_and_these_each_other(tmp_path: Path) -> None:
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared/deep.yaml").write_text(f"{COMPLETE}seed: 1\nnum_train_epochs: 1\nlearning_rate: 1\nshots: 2\n")
    (tmp_path / "shared/method.yaml").write_text("base: deep.yaml\nseed: 2\nnum_train_epochs: 2\n")
    (tmp_path / "shared/data.yaml").write_text("seed: 3\ntrain: a.csv\n")
    path = tmp_path / "recipe.yaml"
    path.write_text("base: [shared/method.yaml, shared/data.yaml]\nnum_train_epochs: 4\nshots: null\n")
    recipe = parse_recipe([str(path), "--warmup_epochs", "0"])

    training = recipe.training
    assert (training.seed, training.num_train_epochs, training.learning_rate) == (3, 4, 1)
    assert (recipe.data.train, recipe.data.shots, recipe.model.preset) == ("a.csv", None, "base-patch32")


def test_an_unknown_key_of_a_base_names_the_file_it_is_in(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text("learnin_rate: 1\n")
    path = recipe_file(tmp_path, "base: base.yaml\n")

    with pytest.raises(
        ValueError, match=re.escape(f"{tmp_path / 'base.yaml'}: unknown setting 'learnin_rate'; did you")
    ):
        parse_recipe([path])
    with pytest.raises(ValueError, match="unknown setting 'bases'; did you mean 'base'?"):
        parse_recipe([recipe_file(tmp_path, "bases: base.yaml\n")])


def test_a_recipe_that_is_its_own_base_is_refused(tmp_path: Path) -> None:
    (tmp_path / "other.yaml").write_text("base: recipe.yaml\n")

    with pytest.raises(ValueError, match=r"recipe\.yaml is its own base, through .*recipe\.yaml and .*other\.yaml\."):
        parse_recipe([recipe_file(tmp_path, "base: other.yaml\n")])


def test_two_bases_may_share_one(tmp_path: Path) -> None:
    (tmp_path / "common.yaml").write_text("seed: 5\n")
    for name in ("a", "b"):
        (tmp_path / f"{name}.yaml").write_text("base: common.yaml\n")

    assert parse_recipe([recipe_file(tmp_path, "base: [a.yaml, b.yaml]\n")]).training.seed == 5


def test_a_missing_base_is_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no recipe at .*none.yaml"):
        parse_recipe([recipe_file(tmp_path, "base: none.yaml\n")])


@pytest.mark.parametrize(
    ("processes", "most", "expected"),
    [(1, None, (64, 1)), (1, 8, (8, 8)), (4, 8, (8, 2)), (32, 8, (2, 1)), (8, 3, (2, 4))],
)
def test_every_step_sees_the_same_clips_on_any_number_of_processes(
    processes: int, most: int | None, expected: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(VideoTextTrainingArguments, "world_size", processes)
    args = VideoTextTrainingArguments(
        output_dir="x", use_cpu=True, total_train_batch_size=64, max_clips_per_device=most
    )

    assert (args.per_device_train_batch_size, args.gradient_accumulation_steps) == expected
    assert args.effective_batch_size == 64


@pytest.mark.parametrize(
    ("total", "most", "blends", "expected"),
    [
        (12, 3, True, (2, 6)),  # 3 clips would leave one without a partner
        (12, 3, False, (3, 4)),
        (12, 1, True, (1, 12)),  # as asked
        (9, 3, True, (3, 3)),  # no even part: the trainer refuses it
    ],
)
def test_clips_that_are_blended_two_by_two_are_split_evenly_where_that_can_be(
    total: int, most: int, blends: bool, expected: tuple[int, int]
) -> None:
    args = VideoTextTrainingArguments(
        output_dir="x",
        use_cpu=True,
        total_train_batch_size=total,
        max_clips_per_device=most,
        mixup_alpha=0.8 * blends,
        cutmix_alpha=0.0,
    )

    assert (args.per_device_train_batch_size, args.gradient_accumulation_steps) == expected


def test_a_batch_that_processes_cannot_share_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(VideoTextTrainingArguments, "world_size", 6)

    with pytest.raises(ValueError, match="total_train_batch_size=64 cannot be split evenly over 6 devices"):
        VideoTextTrainingArguments(output_dir="x", use_cpu=True, total_train_batch_size=64)


@pytest.mark.parametrize(
    ("setting", "num_steps", "expected"),
    [
        ({"num_train_epochs": 30}, 3000, 500),
        ({"num_train_epochs": 10, "warmup_epochs": 2.5}, 40, 10),
        ({"warmup_steps": 0.05}, 200, 10),
        ({"warmup_steps": 7}, 200, 7),
        ({"max_steps": 100}, 100, 0),
    ],
)
def test_warm_up_is_counted_in_steps(setting: dict, num_steps: int, expected: int) -> None:
    args = VideoTextTrainingArguments(output_dir="x", use_cpu=True, **setting)

    assert args.get_warmup_steps(num_steps) == expected


def test_a_warm_up_that_never_ends_is_refused() -> None:
    args = VideoTextTrainingArguments(output_dir="x", use_cpu=True, num_train_epochs=5)

    with pytest.raises(ValueError, match="warm-up takes 10 of 10 steps, so the rate would never come down"):
        args.get_warmup_steps(10)


def test_texts_may_be_the_descriptions(tmp_path: Path) -> None:
    text = "class_texts: descriptions\ndescriptions: weizmann\ndescription_kinds: characteristic\n"
    data = parse_recipe([recipe_file(tmp_path, text)]).data

    texts = data.texts_of(["walk", "run"])
    assert all(len(text.split()) > 5 for text in texts) and texts[0] != texts[1]
    assert data.descriptions_of(["walk", "run"]) is None
    with pytest.raises(ValueError, match="'walk' has 6 descriptions, and its text can be only one"):
        parse_recipe(
            [recipe_file(tmp_path, text), "--description_kinds", "conceptual", "discriminative"]
        ).data.texts_of(["walk", "run"])
    with pytest.raises(ValueError, match='class_texts="descriptions" needs `descriptions`'):
        parse_recipe([recipe_file(tmp_path, "class_texts: descriptions\n")])


def test_a_misspelt_field_of_a_configuration_is_the_users_error(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text("model_config: {vision_confg: {}}\ndata_root: x\noutput_dir: y\nuse_cpu: true\n")

    with pytest.raises(ValueError, match="unknown field `vision_confg`; did you mean `vision_config`?"):
        build_model(parse_recipe([str(path)]).model, ["run", "walk"])


def test_nested_settings_arrive_as_mappings(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text("model_config: {projection_dim: 8}\ndata_root: x\noutput_dir: y\nclass_texts: {run: running}\n")
    recipe = parse_recipe([str(path)])

    assert recipe.model.config_fields == {"projection_dim": 8}
    assert recipe.data.texts_of(["moving_up", "run"]) == ["moving up", "running"]


def test_a_misspelt_key_names_the_nearest(tmp_path: Path) -> None:
    path = recipe_file(tmp_path, "learning_rat: 1\n")

    with pytest.raises(
        ValueError, match=re.escape(f"{path}: unknown setting 'learning_rat'; did you mean 'learning_rate'?")
    ):
        parse_recipe([path])


def test_a_value_of_a_wrong_type_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse_recipe([recipe_file(tmp_path, "num_frames: eight\n")])
    assert "invalid int value: 'eight'" in capsys.readouterr().err


def test_the_source_of_the_weights_must_be_one(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=re.escape("exactly one of model, preset and model_config; got ['model', 'pr")):
        parse_recipe([recipe_file(tmp_path, "model: somewhere\n")])


def test_an_evaluated_model_replaces_the_recipes_source(tmp_path: Path) -> None:
    recipe = parse_recipe([recipe_file(tmp_path, "shots: 2\n"), "--output_dir", "results"], model="runs/trained")

    assert (recipe.model.model, recipe.model.preset, recipe.data.shots) == ("runs/trained", None, None)


def test_an_evaluation_never_goes_where_the_recipe_trains(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="output_dir is missing"):
        parse_recipe([recipe_file(tmp_path, "")], model="runs/trained")


@pytest.mark.parametrize("words", [["--learning_rat", "3"], ["--learning_rat=3"]])
def test_an_unknown_or_abbreviated_flag_names_the_nearest(words: list[str], tmp_path: Path) -> None:
    message = "unknown argument '--learning_rat'; did you mean '--learning_rate'?"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        parse_recipe([recipe_file(tmp_path, ""), *words])


def test_a_recipes_contract_does_not_reach_a_trained_model(tmp_path: Path) -> None:
    text = "num_frames: 16\nsampling: dense\nhead: linear\nlora_rank: 2\ntrain_text: false\n"
    recipe = parse_recipe([recipe_file(tmp_path, text), "--output_dir", "results"], model="runs/trained")

    assert recipe.model == ModelArguments(model="runs/trained")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a: [1\n", "while parsing a flow sequence"),
        (b"seed: 1\nseed: 2\n", "'seed' is there twice"),
        (b"model_config: {a: 1, a: 2}\n", "'a' is there twice"),
        (b"seed: \xff\n", "'utf-8' codec can't decode byte 0xff"),
    ],
)
def test_broken_yaml_names_the_file(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_bytes(content)

    with pytest.raises(ValueError, match=rf"recipe\.yaml cannot be read: {message}"):
        parse_recipe([str(path)])


@pytest.mark.parametrize("text", ["walk: go", '["a"]'])
def test_class_texts_that_are_no_mapping_say_how_to_write_them(tmp_path: Path, text: str) -> None:
    recipe = parse_recipe([recipe_file(tmp_path, ""), "--class_texts", text])

    with pytest.raises(ValueError, match="write it as"):
        recipe.data.texts_of(["walk"])


def test_settings_on_the_card_are_only_those_that_differ(tmp_path: Path) -> None:
    settings = as_settings(parse_recipe([recipe_file(tmp_path, "learning_rate: 1e-4\nsave_strategy: steps\n")]))

    assert settings == {
        "preset": "base-patch32",
        "data_root": "clips",
        "output_dir": "runs/x",
        "learning_rate": 1e-4,
        "save_strategy": "steps",
    }
    assert type(settings["save_strategy"]) is str


def test_a_missing_recipe_is_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no recipe at"):
        parse_recipe([str(tmp_path / "none.yaml")])


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"remove_unused_columns": True}, "would drop the videos"),
        ({"label_smoothing_factor": 0.1}, "use label_smoothing."),
        ({"resume_from_checkpoint": "x"}, "use resume: auto"),
        ({"push_every_epochs": 1}, "has no effect without push_to_hub"),
        ({"min_learning_rate": 0.0, "lr_scheduler_type": "linear"}, "is of lr_scheduler_type: cosine, not of linear"),
        ({"mixup_alpha": -1.0}, "mixup_alpha=-1.0 must not be negative, and be finite."),
        ({"label_smoothing": 1.5}, "label_smoothing=1.5 must be a share from 0 to 1."),
        ({"max_clips_per_device": 2}, "max_clips_per_device splits total_train_batch_size; set that too."),
        ({"max_clips_per_device": 0, "total_train_batch_size": 2}, "max_clips_per_device=0 must be at least 1."),
        ({"hub_token": "tok-alice"}, "log in with `hf auth login` instead"),
        ({"output_dir": None}, "output_dir is missing"),
        ({"output_dir": ""}, "output_dir is missing"),
        ({"output_dir": __file__}, "is a file; name a folder, which need not exist."),
        ({"save_only_model": True}, "writes checkpoints that no run can go on from"),
        ({"ignore_data_skip": True}, "has a run that goes on see the first clips of its epoch again"),
        ({"auto_find_batch_size": True}, "lower max_clips_per_device instead"),
        ({"learning_rate": 0.0}, "learning_rate=0.0 must be above 0, and finite."),
        ({"learning_rate": float("nan")}, "learning_rate=nan must be above 0, and finite."),
        ({"num_train_epochs": 0}, "num_train_epochs=0 must be above 0, and finite."),
        ({"num_train_epochs": -1}, "num_train_epochs=-1 must be above 0, and finite."),
        ({"gradient_accumulation_steps": 0}, "gradient_accumulation_steps=0 must be at least 1."),
        ({"weight_decay": -1}, "weight_decay=-1 must not be negative, and be finite."),
        ({"ema_decay": 1.0}, "ema_decay=1.0 must lie between 0 and 1, and be neither."),
        ({"metric_for_best_model": "loss"}, "choose one of top1, top5."),
    ],
)
def test_settings_that_would_do_harm_are_refused(setting: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        VideoTextTrainingArguments(**{"output_dir": "x", "use_cpu": True, **setting})


def test_class_texts_for_unknown_classes_are_refused(tmp_path: Path) -> None:
    recipe = parse_recipe([recipe_file(tmp_path, "class_texts: {runn: running}\n")])

    with pytest.raises(ValueError, match="which are none of the classes"):
        recipe.data.texts_of(["run"])


@pytest.mark.parametrize(("probability", "expected"), [(0.5, {"a": "b"}), (0, None)])
def test_without_mirroring_no_classes_are_swapped(probability: float, expected: Any, tmp_path: Path) -> None:
    text = f"flip_swaps: {{a: b}}\nflip_probability: {probability}\n"

    assert parse_recipe([recipe_file(tmp_path, text)]).data.swaps == expected


def test_what_a_model_becomes_is_said_by_name_and_by_a_mapping(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(
        "model: clip\ndata_root: x\noutput_dir: y\narchitecture: moted\nuse_cpu: true\n"
        "model_overrides: {motion_encoder: none}\n"
    )
    recipe = parse_recipe([str(path)])

    assert (recipe.model.architecture, recipe.model.override_fields) == ("moted", {"motion_encoder": "none"})
    assert {"architecture": "moted", "model_overrides": '{"motion_encoder": "none"}'}.items() <= as_settings(
        recipe
    ).items()
    evaluated = parse_recipe([str(path), "--output_dir", "results"], model="runs/trained").model
    assert (evaluated.architecture, evaluated.override_fields) == (None, {})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("architecture: moteed\n", "architecture='moteed' is unknown; choose one of xclip, moted, video_clip."),
        ("head: cosine\n", "head='cosine' is unknown; choose one of text, linear."),
        ("lora_alpha: 4\n", "lora_alpha=4.0 has no effect without lora_rank; set that too."),
        ("crop: center\n", "unknown crop 'center'; choose one of multi_scale, random_resized, centre."),
        ("augment_on: gpu\n", "augment_on='gpu' is unknown; choose one of workers, accelerator."),
        ("max_failed_share: 5\n", "max_failed_share=5.0 must be a share from 0 to 1."),
        ("lora_rank: 2\nlora_alpha: 0\n", "lora_alpha=0.0 must be above 0, and finite."),
        (
            "model_overrides: {fuse_text: false}\n",
            "model_overrides change what the CLIP of `model` becomes; without one, write these fields into "
            "model_config.",
        ),
    ],
)
def test_settings_of_model_and_data_that_do_not_fit_are_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        parse_recipe([recipe_file(tmp_path, text)])


def test_descriptions_come_in_the_order_of_the_classes(tmp_path: Path) -> None:
    (tmp_path / "moves.yaml").write_text("moving up: [rises]\nwave: [goes left and right, quickly]\n", "utf-8")
    recipe = parse_recipe([recipe_file(tmp_path, f"descriptions: {tmp_path / 'moves.yaml'}\n")])

    assert recipe.data.descriptions_of(["wave", "moving_up"]) == [["goes left and right", "quickly"], ["rises"]]
    assert parse_recipe([recipe_file(tmp_path, "")]).data.descriptions_of(["wave"]) is None
    with pytest.raises(ValueError, match="1 of 2 classes have no descriptions: 'run'"):
        recipe.data.descriptions_of(["wave", "run"])
