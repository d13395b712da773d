"""Parameter groups and learning rates: as published, for every trainable parameter and at every step."""

import io
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from testing_utils import tiny_config, tiny_model, tiny_moted, tiny_video_clip

from kinetext import XCLIPForVideoClassification
from kinetext.training.optimisation import cosine_schedule, parameter_groups

RATES = {"clip": 1e-3, "clip_no_decay": 1e-3, "new": 1e-2, "new_no_decay": 1e-2}
DECAYS = {"clip": 0.1, "clip_no_decay": 0.0, "new": 0.1, "new_no_decay": 0.0}


def groups_of(model: Any, **options: Any) -> list[dict[str, Any]]:
    return parameter_groups(model, learning_rate=1e-3, new_module_lr_factor=10.0, weight_decay=0.1, **options)


def group_names(model: Any, groups: list[dict[str, Any]]) -> dict[str, str]:
    """The group of each trainable parameter; fails unless each is in exactly one."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    placed = [(names[id(parameter)], group["name"]) for group in groups for parameter in group["params"]]
    assert sorted(name for name, _ in placed) == sorted(
        name for name, parameter in model.named_parameters() if parameter.requires_grad
    )
    return dict(placed)


# Groups


@pytest.mark.parametrize("train_text", [False, True])
def test_groups_hold_every_trainable_parameter_once_with_its_rate_and_decay(train_text: bool) -> None:
    model = tiny_model()
    model.set_trainable(text=train_text)
    groups = groups_of(model)

    expected = {
        "vision_model.embeddings.class_embedding": "clip_no_decay",
        "vision_model.embeddings.patch_embedding.weight": "clip",
        "vision_model.embeddings.position_embedding.weight": "clip_no_decay",
        "vision_model.encoder.layers.0.mlp.fc1.weight": "clip",
        "vision_model.encoder.layers.0.mlp.fc1.bias": "clip_no_decay",
        "vision_model.encoder.layers.0.message_fc.weight": "new",
        "vision_model.encoder.layers.0.message_ln.weight": "new_no_decay",
        "visual_projection.weight": "clip",
        "mit.position_embedding": "new_no_decay",
        "mit.encoder.layers.0.self_attn.q_proj.weight": "new",
        "prompts_visual_projection": "new",
        "prompts_visual_layernorm.weight": "new_no_decay",
        "prompts_generator.alpha": "new_no_decay",
    }
    if train_text:
        expected |= {
            "text_model.embeddings.token_embedding.weight": "clip",
            "text_model.embeddings.position_embedding.weight": "clip_no_decay",
            "text_projection.weight": "clip",
            "logit_scale": "clip_no_decay",
        }
    placed = group_names(model, groups)
    assert {name: placed.get(name) for name in expected} == expected
    assert ("logit_scale" in placed) == train_text
    assert {group["name"]: (group["lr"], group["weight_decay"]) for group in groups} == {
        name: (RATES[name], DECAYS[name]) for name in RATES
    }


def test_groups_follow_modules_not_words_in_names() -> None:
    model = tiny_model()
    model.set_trainable(text=False)
    model.vision_model.message_of_ours = torch.nn.Linear(4, 4)  # sounds new and has positions in a name
    model.vision_model.message_of_ours.position_embedding = torch.nn.Parameter(torch.zeros(4, 4))

    placed = group_names(model, groups_of(model))
    assert placed["vision_model.message_of_ours.weight"] == "clip"
    assert placed["vision_model.message_of_ours.position_embedding"] == "clip"


def test_moted_trains_what_it_adds_and_the_scale() -> None:
    model = tiny_moted()
    model.set_trainable()
    placed = group_names(model, groups_of(model))

    assert set(placed) == {*model.new_parameter_names(), "logit_scale"}
    assert placed["logit_scale"] == "clip_no_decay"
    assert placed["motion_encoder.temporal_position_embedding"] == "new_no_decay"
    assert placed["motion_projection.weight"] == "new"


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        (
            lambda: tiny_video_clip("transformer"),
            {
                "vision_model.embeddings.position_embedding.weight": "clip_no_decay",
                "visual_projection.weight": "clip",
                "temporal_transformer.position_embedding.weight": "new_no_decay",
                "logit_scale": "clip_no_decay",
            },
        ),
        (lambda: tiny_video_clip("joint"), {"joint_position_embedding": "new_no_decay"}),
        (
            lambda: XCLIPForVideoClassification(tiny_config(num_labels=3)),
            {"classifier.weight": "new", "classifier.bias": "new_no_decay", "mit.position_embedding": "new_no_decay"},
        ),
    ],
    ids=["VideoCLIP", "VideoCLIP, joint", "classifier"],
)
def test_other_models_say_what_is_new_and_what_is_a_position(
    model: Callable[[], Any], expected: dict[str, str]
) -> None:
    made = model()
    placed = group_names(made, groups_of(made))
    assert {name: placed.get(name) for name in expected} == expected


def test_decay_of_everything() -> None:
    model = tiny_model()
    model.set_trainable(text=True)
    groups = groups_of(model, decay_all=True)

    assert set(group_names(model, groups).values()) == {"clip", "new"}
    assert [group["weight_decay"] for group in groups] == [0.1, 0.1]


def test_empty_groups_are_left_out() -> None:
    model = tiny_moted()
    model.requires_grad_(False)
    model.logit_scale.requires_grad_(True)

    assert [group["name"] for group in groups_of(model)] == ["clip_no_decay"]


# Schedule


def published_rate(step: int, *, base: float, steps: int, warmup: int, floor: float) -> float:
    """timm's `CosineLRScheduler` with one cycle, `warmup_lr_init=0` and no warm-up prefix, as formula."""
    if step < warmup:
        return base * step / warmup
    return floor + 0.5 * (base - floor) * (1 + math.cos(math.pi * step / steps))


def optimizer_of_rates(*rates: float) -> torch.optim.Optimizer:
    return torch.optim.AdamW([{"params": [torch.nn.Parameter(torch.ones(2))], "lr": rate} for rate in rates])


def rates_of(optimizer: torch.optim.Optimizer) -> list[float]:
    return [group["lr"] for group in optimizer.param_groups]


def take_steps(optimizer: torch.optim.Optimizer, schedule: Any, count: int) -> list[list[float]]:
    """The rates each update is made with."""
    used = []
    for _ in range(count):
        used.append(rates_of(optimizer))
        optimizer.step()
        schedule.step()
    return used


@pytest.mark.parametrize(("steps", "warmup"), [(30, 5), (10, 5), (7, 0), (3, 5), (1, 0)])
def test_rates_of_all_groups_equal_the_published_formula_at_every_step(steps: int, warmup: int) -> None:
    optimizer = optimizer_of_rates(8e-6, 8e-5)
    schedule = cosine_schedule(optimizer, num_steps=steps, num_warmup_steps=warmup, min_learning_rate=8e-8)

    expected = [
        [published_rate(step, base=base, steps=steps, warmup=warmup, floor=8e-8) for base in (8e-6, 8e-5)]
        for step in range(steps)
    ]
    for used, wanted in zip(take_steps(optimizer, schedule, steps), expected, strict=True):
        assert used == pytest.approx(wanted, rel=1e-12, abs=0)


@pytest.mark.parametrize(("epochs", "share"), [(30, 0.934), (50, 0.976), (10, 0.505)])
def test_after_warm_up_the_rate_drops_onto_the_cosine(epochs: int, share: float) -> None:
    optimizer = optimizer_of_rates(8e-6, 8e-5)
    schedule = cosine_schedule(optimizer, num_steps=epochs * 100, num_warmup_steps=5 * 100, min_learning_rate=8e-8)
    used = take_steps(optimizer, schedule, 501)

    assert used[0] == [0.0, 0.0]
    assert used[499][0] == pytest.approx(8e-6 * 499 / 500)
    assert used[500][0] / 8e-6 == pytest.approx(share, abs=5e-4)


def test_the_floor_is_one_rate_for_all_groups_and_holds_after_the_end() -> None:
    optimizer = optimizer_of_rates(8e-6, 8e-5)
    schedule = cosine_schedule(optimizer, num_steps=10, num_warmup_steps=2, min_learning_rate=8e-8)
    take_steps(optimizer, schedule, 10)
    assert rates_of(optimizer) == pytest.approx([8e-8, 8e-8], rel=1e-9)
    take_steps(optimizer, schedule, 3)
    assert rates_of(optimizer) == pytest.approx([8e-8, 8e-8], rel=1e-9)


def test_a_group_of_rate_0_stays_at_0() -> None:
    optimizer = optimizer_of_rates(8e-6, 0.0)
    schedule = cosine_schedule(optimizer, num_steps=4, num_warmup_steps=1, min_learning_rate=0.0)
    assert [rate for _, rate in take_steps(optimizer, schedule, 4)] == [0.0] * 4


def test_a_resumed_schedule_goes_on_to_the_bit() -> None:
    def fresh() -> tuple[torch.optim.Optimizer, Any]:
        optimizer = optimizer_of_rates(8e-6, 8e-5)
        return optimizer, cosine_schedule(optimizer, num_steps=12, num_warmup_steps=3, min_learning_rate=8e-8)

    whole = take_steps(*fresh(), 12)
    for stop in (1, 3, 7):
        optimizer, schedule = fresh()
        used = take_steps(optimizer, schedule, stop)
        saved = io.BytesIO()
        torch.save({"optimizer": optimizer.state_dict(), "schedule": schedule.state_dict()}, saved)
        saved.seek(0)
        state = torch.load(saved, weights_only=True)
        optimizer, schedule = fresh()
        optimizer.load_state_dict(state["optimizer"])
        schedule.load_state_dict(state["schedule"])
        assert used + take_steps(optimizer, schedule, 12 - stop) == whole


@pytest.mark.parametrize("floor", [-1e-9, 9e-6])
def test_floor_below_zero_or_above_a_rate_is_refused(floor: float) -> None:
    optimizer = optimizer_of_rates(8e-6, 8e-5)
    with pytest.raises(ValueError, match=rf"min_learning_rate={floor} .* from 0 to 8e-06"):
        cosine_schedule(optimizer, num_steps=10, num_warmup_steps=2, min_learning_rate=floor)


def test_a_run_of_no_step_is_refused() -> None:
    with pytest.raises(ValueError, match="num_steps=0 must be at least 1"):
        cosine_schedule(optimizer_of_rates(8e-6), num_steps=0, num_warmup_steps=0, min_learning_rate=0.0)
