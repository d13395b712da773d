"""On the same weights our X-CLIP gives what `transformers.XCLIPModel` gives, and each loads what the other saves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from testing_utils import largest_difference, scatter_weights, tiny_config, tiny_texts, tiny_videos
from torch import nn
from transformers.initialization import no_init_weights
from transformers.models.x_clip import configuration_x_clip, modeling_x_clip

from kinetext import XCLIPConfig, XCLIPModel

StockModel = modeling_x_clip.XCLIPModel
OUTPUTS = ("logits_per_video", "logits_per_text", "video_embeds", "text_embeds")


def stock_config(config: XCLIPConfig) -> Any:
    fields = {
        key: value for key, value in config.to_dict().items() if key not in ("model_type", "transformers_version")
    }
    return configuration_x_clip.XCLIPConfig(**fields)


def fill(model: nn.Module, deviation: float) -> None:
    """Gives every parameter a random value around 0, or around 1 for the weights of norms and 2 for the logit scale."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            centre = 2.0 if name == "logit_scale" else float(parameter.ndim == 1 and name.endswith("weight"))
            parameter.uniform_(centre - 1.7 * deviation, centre + 1.7 * deviation, generator=generator)


def same_weights(config: XCLIPConfig, attn_implementation: str = "sdpa", *, deviation: float = 0.2) -> tuple[Any, Any]:
    """transformers' model and ours, in evaluation mode."""
    with no_init_weights():  # saves seconds at the size of B/32
        stock = StockModel._from_config(stock_config(config), attn_implementation=attn_implementation)
        ours = XCLIPModel._from_config(config, attn_implementation=attn_implementation)
    fill(stock, deviation)
    ours.load_state_dict(stock.state_dict())
    return stock.eval(), ours.eval()


@pytest.fixture(params=["sdpa", "eager"])
def pair(request: pytest.FixtureRequest) -> tuple[Any, Any]:
    return same_weights(tiny_config(), request.param)


def assert_equal_outputs_and_gradients(stock: Any, ours: Any, inputs: dict[str, torch.Tensor]) -> None:
    gradients = []
    outputs = []
    for model in (stock, ours):
        output = model(**inputs)
        weights = torch.linspace(-1, 2, output.logits_per_video.numel()).view_as(output.logits_per_video)
        (output.logits_per_video * weights).sum().backward()
        gradients.append({name: parameter.grad for name, parameter in model.named_parameters()})
        outputs.append(output)
    for name in OUTPUTS:
        assert largest_difference(outputs[0][name], outputs[1][name]) <= 1e-5, name
    assert gradients[0].keys() == gradients[1].keys()
    largest = max(gradient.norm().item() for gradient in gradients[0].values())
    for name, expected in gradients[0].items():
        # Key biases have no gradient but rounding error: attention does not depend on them. Sums over videos are taken
        # in another order than transformers takes them.
        tolerance = 1e-4 * expected.norm().item() + 5e-8 * largest
        assert (gradients[1][name] - expected).norm().item() <= tolerance, name


def test_outputs_and_gradients_of_a_tiny_model(pair: tuple[Any, Any]) -> None:
    assert_equal_outputs_and_gradients(*pair, {"pixel_values": tiny_videos(), **tiny_texts()})


def b32_pair_and_inputs() -> tuple[Any, Any, dict[str, torch.Tensor]]:
    stock, ours = same_weights(XCLIPConfig.preset("base-patch32", num_frames=8), deviation=0.02)
    end = 49407
    inputs = {
        "pixel_values": tiny_videos(1, 8, size=224),
        "input_ids": torch.tensor([[49406, 320, 1125, 539, 320, 2368, end], [49406, 320, 1929, end, end, end, end]]),
        "attention_mask": torch.tensor([[1] * 7, [1] * 4 + [0] * 3]),
    }
    return stock, ours, inputs


def test_outputs_at_the_size_of_b32() -> None:
    stock, ours, inputs = b32_pair_and_inputs()
    with torch.no_grad():
        expected, got = stock(**inputs), ours(**inputs)
    for name in OUTPUTS:
        assert largest_difference(expected[name], got[name]) <= 1e-5, name


@pytest.mark.slow  # 10 s on two free cores, 40 s where other work runs beside
def test_outputs_and_gradients_at_the_size_of_b32() -> None:
    stock, ours, inputs = b32_pair_and_inputs()
    assert_equal_outputs_and_gradients(stock, ours, inputs)


def test_return_loss_is_the_contrastive_loss_of_transformers(pair: tuple[Any, Any]) -> None:
    stock, ours = pair
    inputs = {"pixel_values": tiny_videos(3), **tiny_texts(3), "return_loss": True}
    assert largest_difference(stock(**inputs).loss, ours(**inputs).loss) <= 1e-6


def test_positional_arguments_have_the_same_meaning(pair: tuple[Any, Any]) -> None:
    stock, ours = pair
    texts = tiny_texts(2)
    positions = torch.arange(1, 10).unsqueeze(0)
    arguments = (texts["input_ids"], tiny_videos(2, size=48), texts["attention_mask"], positions, True, True)
    expected, got = stock(*arguments), ours(*arguments)
    assert largest_difference(expected.logits_per_video, got.logits_per_video) <= 1e-5
    assert largest_difference(expected.loss, got.loss) <= 1e-6


def test_features_are_those_of_transformers(pair: tuple[Any, Any]) -> None:
    stock, ours = pair
    texts = tiny_texts()
    expected, got = stock.get_text_features(**texts), ours.get_text_features(**texts)
    assert largest_difference(expected.pooler_output, got.pooler_output) <= 1e-5
    assert largest_difference(expected.last_hidden_state, got.last_hidden_state) <= 1e-5
    videos = tiny_videos()
    expected, got = stock.get_video_features(videos), ours.get_video_features(videos)
    assert largest_difference(expected.pooler_output, got.pooler_output) <= 1e-5
    assert largest_difference(expected.last_hidden_state, got.last_hidden_state) <= 1e-5


def assert_equal_trees(expected: Any, got: Any) -> None:
    if isinstance(expected, tuple):
        assert isinstance(got, tuple) and len(expected) == len(got)
        for left, right in zip(expected, got, strict=True):
            assert_equal_trees(left, right)
    else:
        assert largest_difference(expected, got) <= 1e-5


@pytest.mark.parametrize("options", [{}, {"return_loss": True}, {"output_hidden_states": True}], ids=str)
def test_return_dict_false_gives_the_same_tuple(pair: tuple[Any, Any], options: dict[str, bool]) -> None:
    stock, ours = pair
    inputs = {"pixel_values": tiny_videos(3), **tiny_texts(3), "return_dict": False, **options}
    assert_equal_trees(stock(**inputs), ours(**inputs))
    assert_equal_trees(
        stock.get_text_features(**tiny_texts(), return_dict=False),
        ours.get_text_features(**tiny_texts(), return_dict=False),
    )


@pytest.mark.parametrize("how", ["argument", "config"])
@pytest.mark.parametrize("name", ["attentions", "hidden_states"])
def test_attentions_and_hidden_states_are_recorded_alike(name: str, how: str) -> None:
    stock, ours = same_weights(tiny_config(), "eager")
    options = {}
    if how == "argument":
        options[f"output_{name}"] = True
    else:
        for model in (stock, ours):
            for tower in (model.text_model, model.vision_model):
                setattr(tower.config, f"output_{name}", True)
    inputs = {"pixel_values": tiny_videos(), **tiny_texts(), **options}
    expected, got = stock(**inputs), ours(**inputs)
    for tower in ("text_model_output", "vision_model_output"):
        assert len(expected[tower][name]) >= 2
        assert_equal_trees(expected[tower][name], got[tower][name])


def test_return_dict_false_in_the_config_is_honoured(pair: tuple[Any, Any]) -> None:
    stock, ours = pair
    for model in pair:
        for config in (model.config, model.config.text_config, model.config.vision_config):
            config.return_dict = False
    inputs = {"pixel_values": tiny_videos(), **tiny_texts()}
    got = ours(**inputs)
    assert isinstance(got, tuple)
    assert largest_difference(stock(**{**inputs, "return_dict": True}).logits_per_text, got[0]) <= 1e-5


def test_eager_and_sdpa_agree() -> None:
    model = same_weights(tiny_config())[1]
    inputs = {"pixel_values": tiny_videos(), **tiny_texts()}
    sdpa = model(**inputs)
    model.set_attn_implementation("eager")
    assert largest_difference(sdpa.logits_per_video, model(**inputs).logits_per_video) <= 1e-5


@pytest.mark.parametrize(("saved_by", "loaded_by"), [(StockModel, XCLIPModel), (XCLIPModel, StockModel)])
def test_checkpoints_move_both_ways(saved_by: Any, loaded_by: Any, tmp_path: Path) -> None:
    config = tiny_config() if saved_by is XCLIPModel else stock_config(tiny_config())
    source = saved_by(config).eval()
    scatter_weights(source)
    source.save_pretrained(tmp_path)
    loaded, report = loaded_by.from_pretrained(tmp_path, output_loading_info=True)
    assert type(loaded) is loaded_by
    assert not any(report[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys")), report
    inputs = {"pixel_values": tiny_videos(), **tiny_texts()}
    assert largest_difference(source(**inputs).logits_per_video, loaded(**inputs).logits_per_video) <= 1e-5
