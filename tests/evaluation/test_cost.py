"""Parameters and multiply-accumulates, against the published figures."""

import copy

import pytest
import torch
from testing_utils import tiny_config, tiny_model, tiny_moted, tiny_moted_config

from kinetext import MotedConfig, VideoCLIPConfig, XCLIPConfig
from kinetext.evaluation.cost import Cost, TowerCost, measure_cost

# preset, frames, parameters, G of the original's README for 400 classes (“FLOPs”, in fact MACs)
PUBLISHED = [
    ("base-patch32", 8, 196_585_729, 39),
    ("base-patch32", 16, 196_589_825, 75),
    ("base-patch16", 8, 194_929_153, 145),
    ("base-patch16", 16, 194_933_249, 287),
    ("base-patch16", 32, 194_941_441, 571),
    ("large-patch14", 8, 575_673_601, 658),
    ("large-patch14-336", 16, 576_007_425, 3086),
]


@pytest.mark.parametrize(("preset", "num_frames", "parameters", "published_gmacs"), PUBLISHED)
def test_presets_cost_what_was_published(preset: str, num_frames: int, parameters: int, published_gmacs: int) -> None:
    cost = measure_cost(XCLIPConfig.preset(preset, num_frames=num_frames), num_classes=400)
    assert cost.parameters == parameters
    assert cost.view_macs / 1e9 == pytest.approx(published_gmacs, rel=0.025)


def test_towers_of_base_patch16_are_those_of_the_composition_by_hand() -> None:
    cost = measure_cost(XCLIPConfig.preset("base-patch16"), num_classes=400)
    rows = {tower.tower: tower for tower in cost.towers}
    assert {name: row.parameters for name, row in rows.items()} == {  # VideoX X-CLIP README
        "image tower": 194_929_153 - 45_308_416 - 63_428_096 - 1,
        "messages": 35_453_952,
        "MIT": 3_156_480,
        "prompts and logits": 6_303_232 + 394_752 + 1,
        "text tower": 63_428_096,  # of CLIP B
    }
    gmacs = {name: round(row.macs / 1e9, 2) for name, row in rows.items()}
    # By hand: CLIP tower 140.5 and what the message token adds inside the frames; messages 8 frames x 12 layers.
    assert gmacs["image tower"] == pytest.approx(140.5, rel=0.005)
    assert gmacs["prompts and logits"] == pytest.approx(0.62 + 2.46, rel=0.01)
    assert (gmacs["MIT"], gmacs["text tower"]) == (0.03, pytest.approx(1192, rel=0.001))


def test_attention_between_frames_is_counted() -> None:
    """Exactly, so that a kernel unknown to torch's FLOP table, which counts as nothing, would be seen."""
    config = tiny_config()
    vision, num_frames = config.vision_config, 8
    width = vision.hidden_size
    projections = 5 * width**2 * num_frames  # message_fc; query, key, value, output
    products = 2 * num_frames**2 * width
    messages = next(tower for tower in measure_cost(config, num_tokens=8).towers if tower.tower == "messages")
    assert messages.macs == vision.num_hidden_layers * (projections + products)


def test_only_the_text_tower_depends_on_tokens_and_is_not_per_view() -> None:
    config = tiny_config()
    short, long = measure_cost(config, num_tokens=4), measure_cost(config, num_tokens=16)
    assert [tower.tower for tower in short.towers if not tower.is_per_view] == ["text tower"]
    assert short.view_macs == long.view_macs
    assert short.class_list_macs < long.class_list_macs


def test_towers_add_up_to_the_real_model() -> None:
    model = tiny_model()
    assert measure_cost(model.config, num_tokens=16).parameters == sum(p.numel() for p in model.parameters())


def test_frames_default_to_the_trained_number_and_may_differ_from_it() -> None:
    config = tiny_config(num_frames=4)
    assert measure_cost(config, num_tokens=8) == measure_cost(config, num_frames=4, num_tokens=8)
    twice = measure_cost(config, num_frames=8, num_tokens=8)
    image = [
        next(t.macs for t in cost.towers if t.tower == "image tower")
        for cost in (measure_cost(config, num_tokens=8), twice)
    ]
    assert image[1] == 2 * image[0]
    assert twice.parameters == measure_cost(config, num_tokens=8).parameters


def test_config_is_not_changed_and_no_weight_is_allocated() -> None:
    config = tiny_config()
    before = copy.deepcopy(config)
    allocated = []

    class Watch(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, function, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            result = function(*args, **(kwargs or {}))
            if isinstance(result, torch.Tensor) and result.device.type != "meta" and result.numel() > 1000:
                allocated.append(function)
            return result

    with Watch():
        measure_cost(config, num_tokens=8)
    assert allocated == []
    assert config.to_dict() == before.to_dict() and config._attn_implementation == before._attn_implementation


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ({"num_frames": 0}, "num_frames=0 must be at least 1."),
        ({"num_classes": 0}, "num_classes=0 must be at least 1."),
        ({"num_tokens": -1}, "num_tokens=-1 must be at least 1."),
        ({"num_tokens": 17}, "num_tokens=17 is more than the 16 that the model takes; lower it."),
    ],
)
def test_counts_that_do_not_fit_are_refused(counts: dict, message: str) -> None:
    with pytest.raises(ValueError) as caught:
        measure_cost(tiny_config(), **counts)
    assert str(caught.value) == message


def test_configuration_of_another_model_is_refused() -> None:
    with pytest.raises(
        ValueError,
        match="^no cost table for model type 'xclip_vision_model'; there is one for xclip, moted, video_clip.$",
    ):
        measure_cost(tiny_config().vision_config)


# MoTED: preset, frames, T of one view from Tables 4 and 6 of the paper, G counted here
MOTED = [
    ("base-patch16", 8, 0.18, 180.98),
    ("base-patch16", 16, 0.34, 364.08),
    ("base-patch16", 32, 0.68, 730.97),
    ("large-patch14", 8, 0.78, 730.46),
    ("large-patch14", 16, 1.49, 1466.26),
    ("large-patch14", 32, 2.89, 2939.38),
]


def by_name(cost: Cost) -> dict[str, TowerCost]:
    return {tower.tower: tower for tower in cost.towers}


@pytest.mark.parametrize(("preset", "num_frames", "published_tmacs", "gmacs"), MOTED)
def test_moted_costs_about_what_was_published(
    preset: str, num_frames: int, published_tmacs: float, gmacs: float
) -> None:
    config = MotedConfig.preset(preset, num_frames=num_frames)
    config.text_config.num_hidden_layers = 1  # no part of a view
    cost = measure_cost(config)
    assert cost.view_macs / 1e12 == pytest.approx(published_tmacs, rel=0.08)
    assert cost.view_macs / 1e9 == pytest.approx(gmacs, abs=0.01)


def test_towers_of_moted_are_those_of_the_composition_by_hand() -> None:
    cost = measure_cost(MotedConfig.preset("base-patch16"), num_classes=400)
    rows = by_name(cost)
    block = (3 * 4 * (384**2 + 384) + 768 * 384 + 384) + 2 * 768 + 4 * 2 * 384
    stem = 3 * 2 * 16 * 16 * 384 + 384
    fusion = 4 * (512**2 + 512)
    assert {name: row.parameters for name, row in rows.items()} == {
        "image tower": 85_799_424 + 768 * 512,
        "motion encoder": 12 * block + stem + (196 + 8 + 2) * 384 + 384 * 512 + 512,
        "video fusion and logits": fusion + 4 * 512 + 1,
        "text modules": 2 * fusion + (2 + 4) * 512,
        "text tower": 63_428_096,  # of CLIP B
    }
    assert cost.parameters == 178_531_969
    assert rows["image tower"].macs / 1e9 == pytest.approx(140.5, rel=0.005)
    # 400 names and 2400 descriptions; 1192 G for 400 texts in X-CLIP's table
    assert rows["text tower"].macs / 1e9 == pytest.approx(7 * 1192, rel=0.002)


def test_motion_encoder_is_counted_exactly_with_nothing_merged() -> None:
    config = tiny_moted_config()
    width, image_width, joint, tokens, frames = 24, 48, 32, 8 * 4, 8
    local = 4 * tokens * width**2 + 2 * tokens**2 * width
    everywhere = frames * image_width * width + 4 * frames * width**2 + 2 * frames**2 * width
    integration = 2 * (tokens + frames) * width**2 + 2 * tokens * frames * width
    stem = tokens * 3 * 2 * 16 * 16 * width
    projection = frames * width * joint
    rows = by_name(measure_cost(config, num_tokens=8))
    assert rows["motion encoder"].macs == stem + 3 * (local + everywhere + integration) + projection
    fusion = 4 * frames * joint**2 + 2 * frames**2 * joint
    logits = 2 * 400 * joint
    assert rows["video fusion and logits"].macs == fusion + logits


def test_merging_makes_the_cost_grow_linearly_with_frames() -> None:
    def motion(num_frames: int, cap: int) -> int:
        config = tiny_moted_config(motion_max_key_tokens=cap)
        return by_name(measure_cost(config, num_frames=num_frames, num_tokens=4, num_classes=1))["motion encoder"].macs

    assert motion(64, 8) < 0.8 * motion(64, 100_000)
    assert motion(64, 8) < motion(64, 100)


def test_text_side_of_moted_is_not_per_view() -> None:
    config = tiny_moted_config()
    short, long = measure_cost(config, num_tokens=4, num_classes=9), measure_cost(config, num_tokens=16, num_classes=9)
    assert [tower.tower for tower in short.towers if not tower.is_per_view] == ["text modules", "text tower"]
    assert short.view_macs == long.view_macs and short.class_list_macs < long.class_list_macs
    assert short.view_macs + short.class_list_macs == sum(tower.macs for tower in short.towers)


@pytest.mark.parametrize("motion_encoder", ["parallel", "serial", "none"])
def test_towers_of_moted_add_up_to_the_real_model(motion_encoder: str) -> None:
    for switches in ({}, {"use_text_adapter": False, "fuse_text": False, "fuse_video": False}):
        model = tiny_moted(motion_encoder=motion_encoder, **switches)
        cost = measure_cost(model.config, num_tokens=16, num_classes=9)
        assert cost.parameters == sum(p.numel() for p in model.parameters())
        assert (by_name(cost)["motion encoder"].macs > 0) == (motion_encoder != "none")
        assert (by_name(cost)["text modules"].macs > 0) == (not switches)


def test_descriptions_that_moted_does_not_use_are_not_counted() -> None:
    texts = {
        uses: by_name(
            measure_cost(tiny_moted_config(use_conceptual=uses, use_discriminative=uses), num_tokens=8, num_classes=9)
        )
        for uses in (True, False)
    }
    assert texts[True]["text tower"].macs == 7 * texts[False]["text tower"].macs


def test_frames_of_moted_default_to_the_trained_number() -> None:
    config = tiny_moted_config(num_frames=4)
    assert measure_cost(config, num_tokens=8, num_classes=9) == measure_cost(
        config, num_frames=4, num_tokens=8, num_classes=9
    )
    rows = [
        by_name(measure_cost(config, num_frames=frames, num_tokens=8, num_classes=9))["image tower"]
        for frames in (4, 8)
    ]
    assert rows[1].macs == 2 * rows[0].macs


# pooling, frames, G as published: ViFi-CLIP's README and the X-CLIP supplement (Table 2), whose CLIP-Joint counts the
# prompts of X-CLIP too, 3.08 G; the 14 G that it prints for CLIP-One are less than one image costs
@pytest.mark.parametrize(
    ("pooling", "num_frames", "published_gmacs"), [("mean", 16, 281), ("joint", 8, 184 - 3.08), ("one_frame", 1, 17.6)]
)
def test_video_clip_costs_what_was_published(pooling: str, num_frames: int, published_gmacs: float) -> None:
    config = VideoCLIPConfig.preset("base-patch16", num_frames=num_frames, temporal_pooling=pooling)
    cost = measure_cost(config)
    assert cost.view_macs / 1e9 == pytest.approx(published_gmacs, rel=0.003)
    positions = 8 * 768 if pooling == "joint" else 0
    assert cost.parameters == 149_620_737 + positions  # CLIP-B/16
    assert cost.parameters - cost.trainable_parameters == 49_408 * 512  # token embeddings


def test_transformer_over_frames_is_counted_by_hand() -> None:
    config = VideoCLIPConfig.preset("base-patch16", temporal_pooling="transformer")
    (row,) = [tower for tower in measure_cost(config).towers if tower.tower == "transformer over frames"]
    width, frames = 512, 8
    assert row.macs == 6 * (12 * width**2 * frames + 2 * frames**2 * width)
    assert row.parameters == 6 * (12 * width**2 + 13 * width) + 77 * width
