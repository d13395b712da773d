"""Recipes say what was published (FACTS: section in the table below), on any number of processes, and need no more."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from rendered_clips import render_clip
from testing_utils import tiny_clip_config, tiny_config, tiny_video_clip_config
from transformers import AutoModel, AutoModelForVideoClassification, CLIPModel, ViTConfig, ViTModel

from kinetext.data.label_lists import load_label_list
from kinetext.data.small_tokenizer import small_tokenizer
from kinetext.descriptions import load_descriptions
from kinetext.evaluation.classify import load_model
from kinetext.training.arguments import Recipe, VideoTextTrainingArguments, as_settings, parse_recipe
from kinetext.training.run import run_training

REPOSITORY = Path(__file__).resolve().parents[2]
RECIPES = REPOSITORY / "recipes"
CLIPS = {"B/32": "base-patch32", "B/16": "base-patch16", "L/14": "large-patch14", "L/14@336": "large-patch14-336"}
CLASSES = {"kinetics400": 400, "kinetics600": 600, "hmdb51": 51, "ucf101": 101, "ssv2": 174}


def names(pattern: str) -> list[str]:
    """Recipes, without what only serves as their base."""
    files = (path for path in RECIPES.glob(pattern) if not path.name.startswith("_"))
    return sorted(path.relative_to(RECIPES).with_suffix("").as_posix() for path in files)


PAPERS = names("*/*.yaml")


@cache
def recipe_of(name: str) -> Recipe:
    return parse_recipe([str(RECIPES / f"{name}.yaml"), "--data_root", "clips", "--use_cpu"])


def training_on(processes: int, name: str, monkeypatch: pytest.MonkeyPatch) -> VideoTextTrainingArguments:
    """How a recipe splits its batch over so many processes."""
    monkeypatch.setattr(VideoTextTrainingArguments, "world_size", processes)
    training = recipe_of(name).training
    fields = ("output_dir", "use_cpu", "total_train_batch_size", "max_clips_per_device")
    return VideoTextTrainingArguments(**{field: getattr(training, field) for field in fields})


@dataclass(frozen=True)
class Published:
    """What FACTS says of an experiment; floor, warm-up and decay are of the method."""

    arch: str
    data: str
    frames: int
    batch: int
    on_8_gpus: tuple[int, int]  # clips per GPU, accumulation steps
    epochs: float
    rate: float  # of what CLIP brings
    new_rate: float


# FACTS 2.12 (configurations, table 1 of the supplement)
XCLIP = {
    "k400_b32_8f": Published("B/32", "kinetics400", 8, 256, (8, 4), 30, 8e-6, 8e-5),
    "k400_b32_16f": Published("B/32", "kinetics400", 16, 256, (8, 4), 30, 8e-6, 8e-5),
    "k400_b16_8f": Published("B/16", "kinetics400", 8, 256, (8, 4), 30, 8e-6, 8e-5),
    "k400_b16_16f": Published("B/16", "kinetics400", 16, 256, (4, 8), 30, 8e-6, 8e-5),
    "k400_b16_32f": Published("B/16", "kinetics400", 32, 256, (4, 8), 30, 8e-6, 8e-5),
    "k400_l14_8f": Published("L/14", "kinetics400", 8, 256, (4, 8), 30, 8e-6, 8e-5),
    "k400_l14_336_16f": Published("L/14@336", "kinetics400", 16, 256, (1, 32), 30, 8e-6, 8e-5),
    "k600_b16_8f": Published("B/16", "kinetics600", 8, 256, (8, 4), 30, 8e-6, 8e-5),
    "k600_b16_16f": Published("B/16", "kinetics600", 16, 256, (4, 8), 30, 8e-6, 8e-5),
    "k600_l14_8f": Published("L/14", "kinetics600", 8, 256, (4, 8), 30, 8e-6, 8e-5),
    "zero_shot_b16_32f": Published("B/16", "kinetics400", 32, 256, (4, 8), 10, 8e-6, 8e-5),
    **{
        f"{data}_{shots}_shot": Published("B/16", data, 32, 64, (4, 2), 50, 2e-6, 2e-5)
        for data in ("hmdb51", "ucf101")
        for shots in (2, 4, 8, 16)
    },
    # FACTS 2.19, table 4: 100 epochs at 1e-4, the rest as in 2.12; one rate for all is ours
    "scratch_b32_8f": Published("B/32", "kinetics400", 8, 256, (8, 4), 100, 1e-4, 1e-4),
    "scratch_b32_mean_8f": Published("B/32", "kinetics400", 8, 256, (8, 4), 100, 1e-4, 1e-4),
    # FACTS 2.19, table 3: as 2.12 is inferred
    **{
        f"imagenet{data}{text}_b16_8f": Published("B/16", "kinetics400", 8, 256, (8, 4), 30, 8e-6, 8e-5)
        for data in ("21k", "1k")
        for text in ("", "_no_text")
    },
}
# FACTS 3.9 (backbones and frames) and 3.13 (DiST: the rest; clips per GPU are ours)
MOTED = {
    f"{short}_{arch.lower().replace('/', '')}_{frames}f": Published(
        arch, data, frames, 256, (clips, 32 // clips), 36, 3.2e-5, 3.2e-4
    )
    for short, data in (("k400", "kinetics400"), ("ssv2", "ssv2"))
    for arch, frames, clips in (
        ("B/16", 8, 32), ("B/16", 16, 32), ("B/16", 32, 16), ("L/14", 8, 16), ("L/14", 16, 16), ("L/14", 32, 8)
    )
}  # fmt: skip
# FACTS 4.8; 20 clips on each of 4 GPUs is inferred
DEVARAJ = {"k400_b16_8f": Published("B/16", "kinetics400", 8, 80, (10, 1), 10, 5e-6, 5e-5)}
# FACTS 5.2
VIFI_CLIP = {
    **{
        f"zero_shot{kind}_b16_32f": Published("B/16", "kinetics400", 32, 256, (4, 8), 10, 8e-6, 8e-5)
        for kind in ("", "_image", "_text")
    },
    "k400_b16_16f": Published("B/16", "kinetics400", 16, 512, (4, 16), 30, 2.2e-5, 2.2e-4),
    "k400_image_b16_16f": Published("B/16", "kinetics400", 16, 256, (4, 8), 30, 8e-6, 8e-5),
    "k400_text_b16_16f": Published("B/16", "kinetics400", 16, 256, (4, 8), 30, 8e-6, 8e-5),
    **{
        f"{data}_{shots}_shot": Published("B/16", data, 32, 64, (4, 2), 50, 2e-6, 2e-5)
        for data in ("hmdb51", "ucf101", "ssv2")
        for shots in (2, 4, 8, 16)
    },
    "base_to_novel": Published("B/16", "", 32, 64, (4, 2), 11, 2e-6, 2e-5),
    "base_to_novel_ssv2": Published("B/16", "", 32, 64, (4, 2), 11, 2e-6, 2e-5),
}
# FACTS 5.1
TEXT4VIS = {
    "k400_b32_8f": Published("B/32", "kinetics400", 8, 256, (32, 1), 30, 5e-6, 5e-5),
    "k400_b32_16f": Published("B/32", "kinetics400", 16, 256, (32, 1), 30, 5e-6, 5e-5),
    "k400_b16_8f": Published("B/16", "kinetics400", 8, 256, (32, 1), 30, 5e-6, 5e-5),
    "k400_b16_16f": Published("B/16", "kinetics400", 16, 256, (16, 2), 30, 5e-6, 5e-5),
    "k400_l14_8f": Published("L/14", "kinetics400", 8, 128, (8, 2), 30, 5e-6, 5e-5),
    "k400_l14_336_8f": Published("L/14@336", "kinetics400", 8, 64, (2, 4), 30, 5e-6, 5e-5),
    "k400_l14_336_32f": Published("L/14@336", "kinetics400", 32, 64, (1, 8), 30, 5e-6, 5e-5),
}
METHODS = {"xclip": XCLIP, "moted": MOTED, "devaraj": DEVARAJ, "vifi_clip": VIFI_CLIP, "text4vis": TEXT4VIS}
PUBLISHED = {f"{method}/{name}": facts for method, table in METHODS.items() for name, facts in table.items()}


def test_the_table_has_every_recipe() -> None:
    assert set(PUBLISHED) == set(PAPERS)


@pytest.mark.parametrize("name", PAPERS)
def test_a_recipe_says_what_was_published(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    facts, recipe = PUBLISHED[name], recipe_of(name)
    training, source = recipe.training, recipe.model.model or recipe.model.preset
    on_8_gpus = training_on(8, name, monkeypatch)

    assert (source or "").removeprefix("openai/clip-vit-") == CLIPS[facts.arch]
    assert (recipe.data.classes or "", recipe.model.num_frames) == (facts.data, facts.frames)
    assert (on_8_gpus.per_device_train_batch_size, on_8_gpus.gradient_accumulation_steps) == facts.on_8_gpus
    assert (training.num_train_epochs, training.learning_rate) == (facts.epochs, facts.rate)
    assert training.learning_rate * training.new_module_lr_factor == pytest.approx(facts.new_rate)
    assert (recipe.model.short_side, training.optim) == (384 if "336" in facts.arch else None, "adamw_torch_fused")


@pytest.mark.parametrize("name", PAPERS)
@pytest.mark.parametrize("processes", [1, 8, 32])
def test_the_effective_batch_does_not_depend_on_processes(
    name: str, processes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    if PUBLISHED[name].batch % processes:
        with pytest.raises(ValueError, match="cannot be split evenly over 32 devices"):
            training_on(processes, name, monkeypatch)
        return

    training = training_on(processes, name, monkeypatch)
    assert training.effective_batch_size == PUBLISHED[name].batch
    assert training.per_device_train_batch_size <= (training.max_clips_per_device or 0)


# Of each method: floor of the rates over the base rate, warm-up epochs, weight decay, decay of everything, second beta,
# label smoothing, Mixup, CutMix, crop, and probabilities of flip, colour jitter and grayscale.
METHOD_SETTINGS = {
    "xclip": (0.01, 5, 0.001, False, 0.98, 0.1, 0.8, 1.0, "multi_scale", 0.5, 0.8, 0.2),  # 2.8, 2.9, 2.10, 2.12
    "moted": (0.0, 6, 1e-4, False, 0.999, 0.1, 0.8, 1.0, "random_resized", 0.5, 0.0, 0.2),  # 3.13 (DiST)
    "devaraj": (0.0, 5, 0.2, True, 0.999, 0.0, 0.0, 0.0, "random_resized", 0.5, 0.0, 0.2),  # 4.8, 5.1
    "vifi_clip": (0.01, 5, 0.001, True, 0.98, 0.1, 0.8, 1.0, "multi_scale", 0.5, 0.8, 0.2),  # 5.2
    "text4vis": (0.0, 5, 0.2, True, 0.999, 0.0, 0.0, 0.0, "random_resized", 0.5, 0.0, 0.2),  # 5.1
}


@pytest.mark.parametrize("name", [name for name in PAPERS if name != "vifi_clip/base_to_novel_ssv2"])
def test_a_recipe_has_the_settings_of_its_method(name: str) -> None:
    recipe = recipe_of(name)
    data, training = recipe.data, recipe.training
    floor = training.learning_rate / 100 if training.min_learning_rate is None else training.min_learning_rate

    assert (
        round(floor / training.learning_rate, 9),
        training.warmup_epochs,
        training.weight_decay,
        training.decay_all,
        training.adam_beta2,
        training.label_smoothing,
        training.mixup_alpha,
        training.cutmix_alpha,
        data.crop,
        data.flip_probability,
        data.color_jitter_probability,
        data.grayscale_probability,
    ) == METHOD_SETTINGS[name.split("/")[0]]
    assert (training.adam_beta1, training.adam_epsilon, training.max_grad_norm, training.lr_scheduler_type) == (
        0.9, 1e-8, 0.0, "cosine"
    )  # fmt: skip
    assert training.cutmix_probability == 0.5 and (training.max_steps, training.warmup_steps) == (-1, 0)


@pytest.mark.parametrize("name", PAPERS)
def test_what_is_trained_and_what_it_reads(name: str) -> None:
    recipe = recipe_of(name)
    model, data = recipe.model, recipe.data
    method, experiment = name.split("/")
    trained = (model.train_vision, model.train_text, model.train_logit_scale)
    architecture, expected, template = {  # (image tower, text tower, logit scale); None: the model's own, as published
        "xclip": ("xclip", (None, None, None), None),
        "moted": ("moted", (None, None, None), "{}"),
        "devaraj": ("video_clip", (None, False, False), None),
        "vifi_clip": ("video_clip", (True, True, True), "a photo of a {}."),
        "text4vis": ("video_clip", (True, False, True), "a video of a person {}."),
    }[method]
    if "_image" in experiment:
        expected = (True, False, False)
    if "_text" in experiment:
        expected = (False, True, False)
    if experiment == "scratch_b32_mean_8f":
        architecture = "video_clip"
    if "imagenet" in experiment:  # FACTS 2.19, table 3: CLIP's text supervises, or there is none
        architecture, expected = "video_clip", (True, False, False)

    assert (model.architecture, trained, model.template) == (architecture, expected, template)
    assert model.head == ("linear" if "scratch" in name or "no_text" in name else "text")
    towers = {"imagenet21k": "google/vit-base-patch16-224-in21k", "imagenet1k": "facebook/deit-base-patch16-224"}
    assert model.vision_tower == towers.get(experiment.split("_")[0])
    assert model.override_fields == ({"temporal_pooling": "transformer"} if method == "text4vis" else {})
    assert (data.flip_swaps is not None) == (data.classes == "ssv2")
    assert data.texts_are_descriptions == (method == "devaraj")
    assert (data.descriptions is not None) == (method in ("moted", "devaraj"))
    shots = re.search(r"(\d+)_shot", experiment)
    assert data.shots == (int(shots[1]) if shots else 16 if "base_to_novel" in name else None)


@pytest.mark.parametrize("name", PAPERS)
def test_the_command_in_the_header_is_all_that_is_needed(name: str) -> None:
    header = (RECIPES / f"{name}.yaml").read_text("utf-8").split("\nbase:")[0]
    command = re.search(r"^# accelerate launch (.+)$", header, re.MULTILINE)

    assert command is not None, header
    script, file, *flags = command[1].split()
    assert (script, file) == ("train.py", f"recipes/{name}.yaml")
    assert parse_recipe([str(REPOSITORY / file), *flags, "--use_cpu"]).training.output_dir == f"runs/{name}"


@pytest.mark.parametrize(("name", "count"), CLASSES.items())
def test_class_lists_are_whole(name: str, count: int) -> None:
    data = parse_recipe([str(RECIPES / f"_{name}.yaml"), "--preset", "x", "--data_root", "x", "--output_dir", "x"]).data

    assert len(load_label_list(str(data.classes)).class_names) == count


@pytest.mark.parametrize("name", ["moted/k400_b16_8f", "moted/ssv2_b16_8f", "devaraj/k400_b16_8f"])
def test_descriptions_cover_the_classes(name: str) -> None:
    data = recipe_of(name).data
    class_names = load_label_list(str(data.classes)).class_names

    if data.texts_are_descriptions:
        assert data.texts_of(class_names) == [
            text for (text,) in load_descriptions("kinetics400", kinds=["characteristic"]).for_classes(class_names)
        ]
    else:
        assert {len(texts) for texts in data.descriptions_of(class_names) or []} == {6}  # 1 + k, k = 5 (FACTS 3.2)


def test_every_unpublished_line_of_moted_is_marked_as_ours() -> None:
    lines = (RECIPES / "moted/_base.yaml").read_text("utf-8").splitlines()

    assert {line.split(":")[0] for line in lines if ":" in line and "# ours" not in line and line[0] != "#"} == {
        "architecture"
    }


@pytest.mark.parametrize("path", [*RECIPES.glob("[!_]*.yaml"), REPOSITORY / "kinetext/demo.yaml"], ids=lambda p: p.stem)
def test_other_recipes_parse(path: Path) -> None:
    recipe = parse_recipe([str(path), "--data_root", "clips", "--output_dir", "runs/x", "--use_cpu"])

    assert "output_dir" in as_settings(recipe)


# Training by them: every kind of recipe, on the sizes of a test.

ACTIONS = ["abseiling", "air drumming", "clapping"]
DESCRIPTION_KINDS = ("conceptual", "discriminative", "characteristic")
MIRRORED = ["Pulling something from left to right", "Pulling something from right to left", "Opening something"]
KINDS = {  # what of CLIP is trained: image tower, text tower, logit scale
    "xclip/k400_b16_8f": (True, False, False),
    "xclip/k400_l14_336_16f": (True, False, False),
    "xclip/ucf101_2_shot": (True, False, False),
    "moted/k400_b16_8f": (False, False, True),
    "moted/ssv2_b16_8f": (False, False, True),
    "devaraj/k400_b16_8f": (True, False, False),
    "vifi_clip/k400_b16_16f": (True, True, True),
    "vifi_clip/k400_image_b16_16f": (True, False, False),
    "vifi_clip/k400_text_b16_16f": (False, True, False),
    "vifi_clip/ssv2_2_shot": (True, True, True),
    "text4vis/k400_b16_8f": (True, False, True),
}
ON_IMAGENET = ["xclip/imagenet21k_b16_8f", "xclip/imagenet21k_no_text_b16_8f", "xclip/imagenet1k_no_text_b16_8f"]


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A CLIP whose tokenizer knows the words of the descriptions, which would be too long otherwise."""
    folder = str(tmp_path_factory.mktemp("clip"))
    sets = [load_descriptions(name, kinds=DESCRIPTION_KINDS) for name in ("kinetics400", "ssv2")]
    classes = [ACTIONS, MIRRORED]
    texts = [text for one, names in zip(sets, classes, strict=True) for of in one.for_classes(names) for text in of]
    tokenizer = small_tokenizer([*ACTIONS, *MIRRORED, *texts])
    CLIPModel(tiny_clip_config(vocab_size=len(tokenizer), max_tokens=77)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def one_per_method(kinds: Iterable[str]) -> list[Any]:
    """Recipes to run: the first of each method always, the others among the slow tests."""
    first = {name.split("/")[0]: name for name in reversed(list(kinds))}
    return [name if name in first.values() else pytest.param(name, marks=pytest.mark.slow) for name in kinds]


def write_clips(folder: Path, class_names: list[str]) -> None:
    for name in class_names:
        (folder / name).mkdir(parents=True)
        for number in range(4):
            render_clip(folder / name / f"{number}.mp4", 6)


def small_run(name: str, folder: Path, **settings: Any) -> Path:
    """Two steps by a recipe on rendered clips: folders for annotation files, and less of everything."""
    class_names = MIRRORED if "ssv2" in name else ACTIONS
    write_clips(folder / "clips", class_names)
    small: dict[str, Any] = dict(data_root=str(folder / "clips"), train=".", eval=None, classes=None, num_frames=2)
    small |= dict(short_side=36, total_train_batch_size=4, max_clips_per_device=2, max_steps=2, learning_rate=1e-3)
    small |= dict(output_dir=str(folder / "out"), eval_strategy="no", save_strategy="no", logging_steps=1)
    small |= dict(use_cpu=True, bf16=False, dataloader_num_workers=0, report_to="none", disable_tqdm=True)
    small |= {"base": str(RECIPES / f"{name}.yaml"), **settings}
    (folder / "small.yaml").write_text(yaml.safe_dump(small))
    run_training(parse_recipe([str(folder / "small.yaml")]))
    return folder / "out"


@pytest.mark.parametrize("name", one_per_method(KINDS))
def test_a_recipe_trains_what_it_says(name: str, clip: str, tmp_path: Path) -> None:
    before = CLIPModel.from_pretrained(clip).state_dict()
    after = load_model(str(small_run(name, tmp_path, model=clip)))[0].state_dict()

    changed = {weight for weight, value in before.items() if weight in after and not torch.equal(value, after[weight])}
    assert (
        any(weight.startswith("vision_model.encoder") for weight in changed),
        any(weight.startswith("text_model.encoder") for weight in changed),
        "logit_scale" in changed,
    ) == KINDS[name]


@pytest.mark.parametrize("name", one_per_method(ON_IMAGENET))
def test_a_recipe_on_another_image_tower_trains_it_and_no_text(name: str, clip: str, tmp_path: Path) -> None:
    sizes = {"hidden_size": 36, "intermediate_size": 60, "num_hidden_layers": 2, "num_attention_heads": 3}
    tower = ViTModel(ViTConfig(**sizes, image_size=32, patch_size=16))
    tower.save_pretrained(tmp_path / "tower")
    output = small_run(name, tmp_path, model=clip, vision_tower=str(tmp_path / "tower"))

    after = (AutoModelForVideoClassification if "no_text" in name else AutoModel).from_pretrained(output).state_dict()
    before = tower.state_dict()
    assert not torch.equal(after["vision_model.layers.1.mlp.fc1.weight"], before["layers.1.mlp.fc1.weight"])
    text = {weight: value for weight, value in CLIPModel.from_pretrained(clip).state_dict().items() if "text" in weight}
    assert all(torch.equal(after[weight], value) for weight, value in text.items() if "no_text" not in name)
    assert any("text" in weight for weight in after) == ("no_text" not in name)


@pytest.mark.parametrize("name", one_per_method(["xclip/scratch_b32_8f", "xclip/scratch_b32_mean_8f"]))
def test_a_recipe_without_text_trains(name: str, tmp_path: Path) -> None:
    config = tiny_config() if name == "xclip/scratch_b32_8f" else tiny_video_clip_config()
    fields = {part: getattr(config, part).to_diff_dict() for part in ("vision_config", "text_config")}
    output = small_run(name, tmp_path, preset=None, model_config={**fields, "projection_dim": config.projection_dim})

    model = AutoModelForVideoClassification.from_pretrained(output)
    assert list(model.config.id2label.values()) == ACTIONS
    assert not any("text" in weight for weight in model.state_dict())
