"""Parameters and multiply-accumulates, against the published figures."""

import copy

import pytest
import torch
from testing_utils import tiny_config, tiny_model

from kinetext import XCLIPConfig
from kinetext.evaluation.cost import measure_cost

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
        ValueError, match="^no cost table for model type 'xclip_vision_model'; there is one for xclip, moted.$"
    ):
        measure_cost(tiny_config().vision_config)
