"""What the papers say their models cost, to hold measured figures against."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..modeling.configuration_moted import MotedConfig
from ..modeling.configuration_video_clip import VideoCLIPConfig
from ..modeling.configuration_xclip import XCLIPConfig
from .cost import Cost, measure_cost

CONFIG_CLASSES: dict[str, Any] = {"xclip": XCLIPConfig, "moted": MotedConfig, "video_clip": VideoCLIPConfig}


@dataclass(frozen=True)
class PublishedCost:
    """A published figure.

    Attributes:
        architecture: "xclip" or "moted".
        preset: the size.
        num_frames: T; of MoTED the sparse frames.
        gmacs: 10⁹ multiply-accumulates of one view, which the papers call FLOPs.
        parameters: in millions, the least and the most: of X-CLIP all, of MoTED what it adds to CLIP (its Tables 4, 6).
    """

    architecture: str
    preset: str
    num_frames: int
    gmacs: float
    parameters: tuple[float, float]

    def measure(self) -> Cost:
        """The same, measured by kinetext, with 400 classes as in Kinetics."""
        config = CONFIG_CLASSES[self.architecture].preset(self.preset, num_frames=self.num_frames)
        return measure_cost(config, num_classes=400)


# X-CLIP: README of the original code and its composition; MoTED: Tables 4 and 6 (FLOPs), less the CLIP image tower.
PUBLISHED_COSTS = (
    PublishedCost("xclip", "base-patch32", 8, 39, (196.6, 196.6)),
    PublishedCost("xclip", "base-patch32", 16, 75, (196.6, 196.6)),
    PublishedCost("xclip", "base-patch16", 8, 145, (194.9, 194.9)),
    PublishedCost("xclip", "base-patch16", 16, 287, (194.9, 194.9)),
    PublishedCost("xclip", "base-patch16", 32, 571, (194.9, 194.9)),
    PublishedCost("xclip", "large-patch14", 8, 658, (575.7, 575.7)),
    PublishedCost("xclip", "large-patch14-336", 16, 3086, (576.0, 576.0)),
    PublishedCost("moted", "base-patch16", 8, 180, (25.8, 29.8)),
    PublishedCost("moted", "base-patch16", 16, 340, (25.8, 29.8)),
    PublishedCost("moted", "base-patch16", 32, 680, (25.8, 29.8)),
    PublishedCost("moted", "large-patch14", 8, 780, (42.0, 45.0)),
    PublishedCost("moted", "large-patch14", 16, 1490, (42.0, 45.0)),
    PublishedCost("moted", "large-patch14", 32, 2890, (42.0, 45.0)),
)
