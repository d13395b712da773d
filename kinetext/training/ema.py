"""Exponential moving average of the weights that are trained."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping

import torch
from torch import nn
from torch.optim.swa_utils import get_ema_multi_avg_fn


class ExponentialMovingAverage:
    """Averages the trainable parameters of a model: after each step, average ← decay·average + (1 - decay)·weight.

    The averages start as the weights are, stay in float32 whatever the precision of the weights, and live on the
    device of the parameters, so make it when these are where they are trained. Frozen parameters take no part.

    Args:
        model: without wrapper, so that the names are its own.
        decay: between 0 and 1, neither of them.

    Raises:
        ValueError: for another decay.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        if not 0 < decay < 1:
            raise ValueError(
                f"decay={decay} of the moving average must lie between 0, which averages nothing, and 1, which learns "
                "nothing; usual is 0.999 to 0.9999."
            )
        self._parameters = {name: value for name, value in model.named_parameters() if value.requires_grad}
        self._averages = {name: value.detach().float().clone() for name, value in self._parameters.items()}
        self._blend = get_ema_multi_avg_fn(decay)

    def update(self) -> None:
        """Takes in the present weights; call it once after each step of the optimiser."""
        weights = [parameter.detach().float() for parameter in self._parameters.values()]
        self._blend(list(self._averages.values()), weights, 0)  # without a use for the number of updates

    @contextlib.contextmanager
    def swapped(self) -> Iterator[None]:
        """The model has the averages inside the block, and afterwards its own weights again, to the bit."""
        weights = {name: parameter.detach().clone() for name, parameter in self._parameters.items()}
        _copy(self._averages, self._parameters)
        try:
            yield
        finally:
            _copy(weights, self._parameters)

    def state_dict(self) -> dict[str, torch.Tensor]:
        """The averages (float32) by name of the parameter; not a copy."""
        return dict(self._averages)

    def load_state_dict(self, state: Mapping[str, torch.Tensor]) -> None:
        """Goes on from averages that were saved.

        Raises:
            ValueError: if they are of other parameters, or of other shapes.
        """
        shapes = {name: tuple(average.shape) for name, average in self._averages.items()}
        others = {name: tuple(average.shape) for name, average in state.items()}
        if shapes != others:
            differing = sorted({name for name, _ in shapes.items() ^ others.items()})
            raise ValueError(
                f"the saved averages are not those of what is trained now: {differing[:5]} differ ({len(differing)} in "
                "all). Train the same parts of the same model as before."
            )
        _copy(state, self._averages)


@torch.no_grad()
def _copy(source: Mapping[str, torch.Tensor], target: Mapping[str, torch.Tensor]) -> None:
    for name, tensor in target.items():
        tensor.copy_(source[name])
