"""Recipes: YAML values are checked as on the command line, and wrong ones say what is wrong."""

import re
from pathlib import Path

import pytest

from kinetext.training.arguments import VideoTextTrainingArguments, as_settings, parse_recipe

REPOSITORY = Path(__file__).resolve().parents[2]
COMPLETE = "preset: base-patch32\ndata_root: clips\noutput_dir: runs/x\nuse_cpu: true\n"


def recipe_file(folder: Path, text: str) -> str:
    path = folder / "recipe.yaml"
    path.write_text(COMPLETE + text, "utf-8")
    return str(path)


def test_yaml_values_become_what_the_field_says(tmp_path: Path) -> None:
    text = "learning_rate: 1e-4\nhold_out: [a_*, b_*]\nmulti_scale_crop: false\nnum_train_epochs: 3\ntrain_text: true\n"
    recipe = parse_recipe([recipe_file(tmp_path, text)])

    assert recipe.training.learning_rate == 1e-4
    assert recipe.data.hold_out == ["a_*", "b_*"]
    assert recipe.data.multi_scale_crop is False
    assert recipe.model.train_text is True
    assert recipe.training.num_train_epochs == 3


def test_the_command_line_wins_over_the_recipe(tmp_path: Path) -> None:
    path = recipe_file(tmp_path, "learning_rate: 1e-4\nmulti_scale_crop: true\n")
    recipe = parse_recipe([path, "--learning_rate", "2e-5", "--no_multi_scale_crop", "--num_frames", "16"])

    assert (recipe.training.learning_rate, recipe.data.multi_scale_crop, recipe.model.num_frames) == (2e-5, False, 16)


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
    recipe = parse_recipe([recipe_file(tmp_path, "")], model="runs/trained")

    assert (recipe.model.model, recipe.model.preset) == ("runs/trained", None)


def test_an_abbreviated_flag_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="learning_rat"):
        parse_recipe([recipe_file(tmp_path, ""), "--learning_rat", "3"])


def test_a_recipes_contract_does_not_reach_a_trained_model(tmp_path: Path) -> None:
    recipe = parse_recipe([recipe_file(tmp_path, "num_frames: 16\nsampling: dense\n")], model="runs/trained")

    assert recipe.model.contract == {}


def test_broken_yaml_names_the_file(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"recipe\.yaml is no YAML"):
        parse_recipe([recipe_file(tmp_path, "a: [1\n")])


@pytest.mark.parametrize("text", ["walk: go", '["a"]'])
def test_class_texts_that_are_no_mapping_say_how_to_write_them(tmp_path: Path, text: str) -> None:
    recipe = parse_recipe([recipe_file(tmp_path, ""), "--class_texts", text])

    with pytest.raises(ValueError, match="write it as"):
        recipe.data.texts_of(["walk"])


def test_settings_on_the_card_are_only_those_that_differ(tmp_path: Path) -> None:
    settings = as_settings(parse_recipe([recipe_file(tmp_path, "learning_rate: 1e-4\n")]))

    assert settings == {
        "preset": "base-patch32",
        "data_root": "clips",
        "output_dir": "runs/x",
        "learning_rate": 1e-4,
    }


def test_a_missing_recipe_is_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no recipe at"):
        parse_recipe([str(tmp_path / "none.yaml")])


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"remove_unused_columns": True}, "would drop the videos"),
        ({"label_smoothing_factor": 0.1}, "not supported here"),
        ({"hub_token": "tok-alice"}, "log in with `hf auth login` instead"),
        ({"output_dir": None}, "output_dir is missing"),
    ],
)
def test_settings_that_would_do_harm_are_refused(setting: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        VideoTextTrainingArguments(**{"output_dir": "x", "use_cpu": True, **setting})


def test_class_texts_for_unknown_classes_are_refused(tmp_path: Path) -> None:
    recipe = parse_recipe([recipe_file(tmp_path, "class_texts: {runn: running}\n")])

    with pytest.raises(ValueError, match="which are none of the classes"):
        recipe.data.texts_of(["run"])


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
    evaluated = parse_recipe([str(path)], model="runs/trained").model
    assert (evaluated.architecture, evaluated.override_fields) == (None, {})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("architecture: moteed\n", "architecture='moteed' is unknown; choose one of xclip, moted."),
        (
            "model_overrides: {fuse_text: false}\n",
            "model_overrides change what the CLIP of `model` becomes; without one, write these fields into "
            "model_config.",
        ),
    ],
)
def test_an_architecture_that_does_not_fit_is_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        parse_recipe([recipe_file(tmp_path, text)])


def test_descriptions_come_in_the_order_of_the_classes(tmp_path: Path) -> None:
    (tmp_path / "moves.yaml").write_text("moving up: [rises]\nwave: [goes left and right, quickly]\n", "utf-8")
    recipe = parse_recipe([recipe_file(tmp_path, f"descriptions: {tmp_path / 'moves.yaml'}\n")])

    assert recipe.data.descriptions_of(["wave", "moving_up"]) == [["goes left and right", "quickly"], ["rises"]]
    assert parse_recipe([recipe_file(tmp_path, "")]).data.descriptions_of(["wave"]) is None
    with pytest.raises(ValueError, match="1 of 2 classes have no descriptions: 'run'"):
        recipe.data.descriptions_of(["wave", "run"])


@pytest.mark.parametrize("path", sorted([*REPOSITORY.glob("recipes/*.yaml"), REPOSITORY / "kinetext/demo.yaml"]))
def test_every_recipe_parses(path: Path) -> None:
    recipe = parse_recipe([str(path), "--data_root", "clips", "--output_dir", "runs/x", "--use_cpu"])

    assert "output_dir" in as_settings(recipe)
