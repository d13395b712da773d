"""A model compiled once for every number of videos and classes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from ..modeling.modeling_video_text import TextBank
from ..processing.processing_video_text import VideoTextProcessor

__all__ = ["compile_model"]

_BATCH = 2  # sizes of 0 and 1 get graphs of their own
_BANK_TENSORS = ("text_embeds", "description_embeds", "description_mask")


def compile_model(model: Any, processor: VideoTextProcessor, text_bank: TextBank) -> Any:
    """Compiles the forward of a model, and runs it once, so that no later call has to wait.

    Under `torch.inference_mode()`, in which the videos are made, too, batches of B >= 2 videos and banks of N >= 2
    class texts of this model then run without compiling again. Other numbers of frames, other sizes of images, a batch
    of 1 and videos made outside of that mode do compile again, when they first come. Results differ by rounding.

    Args:
        model: an X-CLIP, MoTED or VideoCLIP in evaluation mode.
        processor: its processor, for the number of frames and the size.
        text_bank: class texts, as many as one likes, but at least 2; with descriptions if later banks have them.

    Returns:
        The model itself; its parameters, methods and files stay as they are.

    Raises:
        ValueError: for a model in training mode, and for a bank of one class.
    """
    if model.training:
        raise ValueError("the model is in training mode; call model.eval() first.")
    if len(text_bank) < _BATCH:
        raise ValueError("text_bank has one class, and a graph of its own; pass at least 2.")
    frames = processor.num_frames * processor.motion_frame_ratio
    bank = _of_any_length(text_bank)
    model.compile()
    with torch.inference_mode():
        side = processor.crop_size
        pixel_values = torch.zeros(_BATCH, frames, 3, side, side, device=model.device)
        torch._dynamo.mark_dynamic(pixel_values, 0)
        model(pixel_values=pixel_values, text_bank=bank)
    return model


def _of_any_length(bank: TextBank) -> TextBank:
    """The same bank with tensors whose first size, N, is not taken for a constant."""
    tensors: dict[str, Any] = {name: getattr(bank, name) for name in _BANK_TENSORS}
    tensors = {name: tensor.clone() for name, tensor in tensors.items() if tensor is not None}
    for tensor in tensors.values():
        torch._dynamo.mark_dynamic(tensor, 0)
    return replace(bank, **tensors)
