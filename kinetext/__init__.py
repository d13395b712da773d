"""kinetext: CLIP learns to read motion. X-CLIP, MoTED and VideoCLIP for transformers, from a video file to the Hub.

Importing the package registers its classes with the Auto classes of transformers and loads nothing heavy; names are
loaded when first used.
"""

from __future__ import annotations

import importlib
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

from ._registration import register_auto_classes

if TYPE_CHECKING:
    from .modeling.configuration_moted import MotedConfig
    from .modeling.configuration_video_clip import VideoCLIPConfig
    from .modeling.configuration_xclip import XCLIPConfig
    from .modeling.modeling_moted import MotedModel
    from .modeling.modeling_video_clip import VideoCLIPForVideoClassification, VideoCLIPModel
    from .modeling.modeling_video_text import TextBank
    from .modeling.modeling_xclip import XCLIPForVideoClassification, XCLIPModel
    from .processing.processing_video_text import VideoTextProcessor
    from .processing.video_decoding import VideoDecodeError, VideoFrames, load_video
    from .training.arguments import VideoTextTrainingArguments
    from .training.trainer import VideoTextTrainer

try:
    __version__ = version("kinetext")
except PackageNotFoundError:  # a bare checkout
    __version__ = "0+unknown"

_HOME_OF = {
    "MotedConfig": "modeling.configuration_moted",
    "MotedModel": "modeling.modeling_moted",
    "VideoCLIPConfig": "modeling.configuration_video_clip",
    "VideoCLIPForVideoClassification": "modeling.modeling_video_clip",
    "VideoCLIPModel": "modeling.modeling_video_clip",
    "XCLIPConfig": "modeling.configuration_xclip",
    "XCLIPForVideoClassification": "modeling.modeling_xclip",
    "XCLIPModel": "modeling.modeling_xclip",
    "TextBank": "modeling.modeling_video_text",
    "VideoTextProcessor": "processing.processing_video_text",
    "VideoDecodeError": "processing.video_decoding",
    "VideoFrames": "processing.video_decoding",
    "load_video": "processing.video_decoding",
    "VideoTextTrainingArguments": "training.arguments",
    "VideoTextTrainer": "training.trainer",
}

__all__ = [
    "MotedConfig",
    "MotedModel",
    "TextBank",
    "VideoCLIPConfig",
    "VideoCLIPForVideoClassification",
    "VideoCLIPModel",
    "VideoDecodeError",
    "VideoFrames",
    "VideoTextProcessor",
    "VideoTextTrainer",
    "VideoTextTrainingArguments",
    "XCLIPConfig",
    "XCLIPForVideoClassification",
    "XCLIPModel",
    "load_video",
]

register_auto_classes()


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f".{_HOME_OF[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
