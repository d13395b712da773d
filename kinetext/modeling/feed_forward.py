"""CLIP's feed-forward layers a few rows at a time, where nothing is kept for a backward pass on a CPU.

kinetext: https://github.com/kinetext/kinetext. This file is saved beside each checkpoint as remote code.

The rows of a feed-forward layer are independent, and between its two products stands an activation of four times the
width: 39 MB for two clips of 8 frames and a B/16 tower, written and read several times. In rows it stays in the cache.
The results are the same, and so are modules, parameters and names.
"""

from __future__ import annotations

import math

import torch
from torch import nn
from transformers.models.clip import modeling_clip as clip
from transformers.models.x_clip import modeling_x_clip as x_clip

_MOST_ROWS = 1024  # at once: fewer gain nothing more in float32 or bfloat16, and keep several cores less busy


class FeedForwardInRows(nn.Module):
    """What comes before a feed-forward layer of transformers in the order of inheritance."""

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """(..., D) of (..., D)."""
        forward = super().forward
        if torch.is_grad_enabled() or torch.compiler.is_compiling() or hidden_states.device.type != "cpu":
            return forward(hidden_states)
        rows = hidden_states.flatten(0, -2)  # (R, D)
        if len(rows) <= _MOST_ROWS:
            return forward(hidden_states)
        parts = rows.chunk(math.ceil(len(rows) / _MOST_ROWS))
        return torch.cat([forward(part) for part in parts]).view_as(hidden_states)


class CLIPMLPInRows(FeedForwardInRows, clip.CLIPMLP):
    """Of CLIP."""


class XCLIPMLPInRows(FeedForwardInRows, x_clip.XCLIPMLP):
    """Of X-CLIP."""


_IN_ROWS = {clip.CLIPMLP: CLIPMLPInRows, x_clip.XCLIPMLP: XCLIPMLPInRows}


def feed_forward_in_rows(model: nn.Module) -> None:
    """Lets the feed-forward layers in a model that are CLIP's or X-CLIP's go row by row; others stay as they are."""
    for module in model.modules():
        if type(module) in _IN_ROWS:  # the class alone, as torch's parametrisations do: nothing is made again
            module.__class__ = _IN_ROWS[type(module)]
