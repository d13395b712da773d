"""The moving average against its formula, and what must not disturb it: frozen parameters, swapping, resuming."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from testing_utils import tiny_model, tiny_texts, tiny_videos

from kinetext.training.ema import ExponentialMovingAverage


def small_model() -> torch.nn.Module:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4), torch.nn.Linear(4, 2))
    model[0].bias.requires_grad_(False)
    return model


def train_steps(model: torch.nn.Module, ema: ExponentialMovingAverage, steps: range) -> None:
    """Moves what is trainable to a place that depends on the step alone, and averages."""
    for step in steps:
        generator = torch.Generator().manual_seed(step)
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.requires_grad:
                    parameter.copy_(torch.randn(parameter.shape, generator=generator))
        ema.update()


def weights_of(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def test_averages_follow_the_formula_from_the_first_weights_on() -> None:
    model = small_model()
    ema = ExponentialMovingAverage(model, decay=0.9)
    expected = {name: value.detach().double() for name, value in model.named_parameters() if value.requires_grad}
    for step in range(5):
        train_steps(model, ema, range(step, step + 1))
        parameters = dict(model.named_parameters())
        expected = {name: 0.9 * value + 0.1 * parameters[name].double() for name, value in expected.items()}

    averages = ema.state_dict()
    assert set(averages) == {"0.weight", "1.weight", "1.bias", "2.weight", "2.bias"}  # not the frozen 0.bias
    for name, value in expected.items():
        torch.testing.assert_close(averages[name].double(), value.detach(), rtol=0, atol=1e-6)


def test_swapping_gives_the_model_the_averages_and_then_its_weights_to_the_bit() -> None:
    model = small_model()
    ema = ExponentialMovingAverage(model, decay=0.9)
    train_steps(model, ema, range(3))
    before = weights_of(model)
    storages = [parameter.data_ptr() for parameter in model.parameters()]

    with ema.swapped():
        inside = weights_of(model)
    assert all(torch.equal(inside[name], average) for name, average in ema.state_dict().items())
    assert not torch.equal(inside["0.weight"], before["0.weight"])
    assert torch.equal(inside["0.bias"], before["0.bias"])
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert [parameter.data_ptr() for parameter in model.parameters()] == storages  # optimisers and DDP hold these


def test_swapping_ends_also_where_evaluation_fails() -> None:
    model = small_model()
    ema = ExponentialMovingAverage(model, decay=0.9)
    train_steps(model, ema, range(3))
    before = weights_of(model)

    with pytest.raises(RuntimeError, match="in evaluation"), ema.swapped():
        raise RuntimeError("in evaluation")
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_averages_resume_to_the_bit_from_safetensors(tmp_path: Path) -> None:
    model = small_model()
    ema = ExponentialMovingAverage(model, decay=0.999)
    train_steps(model, ema, range(3))
    save_file(ema.state_dict(), tmp_path / "ema.safetensors")
    train_steps(model, ema, range(3, 8))

    resumed_model = small_model()
    resumed = ExponentialMovingAverage(resumed_model, decay=0.999)
    resumed.load_state_dict(load_file(tmp_path / "ema.safetensors"))
    train_steps(resumed_model, resumed, range(3, 8))
    assert all(torch.equal(value, ema.state_dict()[name]) for name, value in resumed.state_dict().items())


def test_averages_of_half_precision_weights_move_by_less_than_their_rounding() -> None:
    model = torch.nn.Linear(1, 1, bias=False, dtype=torch.bfloat16)
    weight = torch.nn.init.ones_(model.weight)
    ema = ExponentialMovingAverage(model, decay=0.9999)
    torch.nn.init.constant_(weight, 2.0)
    ema.update()

    assert ema.state_dict()["weight"].item() == pytest.approx(1.0001, abs=1e-6)
    with ema.swapped():
        assert weight.dtype == torch.bfloat16 and weight.item() == 1.0
    assert weight.item() == 2.0


def test_scores_inside_are_those_of_the_averages_also_with_texts_encoded_before() -> None:
    model = tiny_model()
    model.set_trainable(text=True)
    ema = ExponentialMovingAverage(model, decay=0.5)
    inputs = {"pixel_values": tiny_videos(), **tiny_texts()}
    first = model(**inputs).logits_per_video
    bank = model.encode_texts(**tiny_texts())
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.01)
    ema.update()

    with ema.swapped():
        inside = model(**inputs).logits_per_video
        with pytest.raises(ValueError, match="made by text weights"):
            model(pixel_values=inputs["pixel_values"], text_bank=bank)
    assert not torch.equal(inside, first)
    assert not torch.equal(inside, model(**inputs).logits_per_video)


@pytest.mark.parametrize("decay", [0.0, 1.0, -0.1, 1.5])
def test_decay_outside_0_to_1_is_refused(decay: float) -> None:
    with pytest.raises(ValueError, match=f"decay={decay} .* must lie between 0"):
        ExponentialMovingAverage(small_model(), decay=decay)


@pytest.mark.parametrize(
    ("changed", "name"),
    [({"2.bias": None}, "2.bias"), ({"0.bias": torch.zeros(4)}, "0.bias"), ({"2.bias": torch.zeros(1)}, "2.bias")],
    ids=["missing", "unexpected", "of another shape"],  # which copying would broadcast
)
def test_averages_of_other_parameters_are_refused(changed: dict[str, torch.Tensor | None], name: str) -> None:
    ema = ExponentialMovingAverage(small_model(), decay=0.9)
    state = {key: value for key, value in (ema.state_dict() | changed).items() if value is not None}
    with pytest.raises(ValueError, match=rf"\['{name}'\] differ \(1 in all\)"):
        ema.load_state_dict(state)
