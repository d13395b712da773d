"""Saved models that recipes start from."""

from pathlib import Path

import pytest
import torch
from testing_utils import tiny_clip_config, tiny_config, tiny_moted
from transformers import CLIPModel

from kinetext import VideoTextProcessor, XCLIPModel
from kinetext.data.small_tokenizer import small_tokenizer

TEXTS = ["running", "waving"]


@pytest.fixture
def checkpoint(tmp_path: Path) -> str:
    """An X-CLIP of 8 frames, with a contract that differs from the defaults."""
    tokenizer = small_tokenizer(TEXTS)
    torch.manual_seed(0)
    XCLIPModel(tiny_config(text={"vocab_size": len(tokenizer)})).save_pretrained(tmp_path / "model")
    contract = {"num_frames": 8, "sampling": "dense", "stride": 2, "template": "a video of {}", "crop_size": 32}
    VideoTextProcessor(
        tokenizer, short_side=40, interpolation="bicubic", image_mean=[0.5] * 3, image_std=[0.5] * 3, **contract
    ).save_pretrained(tmp_path / "model")
    return str(tmp_path / "model")


@pytest.fixture
def clip(tmp_path: Path) -> str:
    """A plain CLIP with its tokenizer."""
    tokenizer = small_tokenizer(TEXTS)
    CLIPModel(tiny_clip_config(vocab_size=len(tokenizer), max_tokens=77)).save_pretrained(tmp_path / "clip")
    tokenizer.save_pretrained(tmp_path / "clip")
    return str(tmp_path / "clip")


@pytest.fixture
def moted(tmp_path: Path) -> str:
    """A MoTED of 4 sparse frames."""
    tokenizer = small_tokenizer(TEXTS)
    tiny_moted(num_frames=4, vocab_size=len(tokenizer), max_tokens=77).save_pretrained(tmp_path / "moted")
    VideoTextProcessor(tokenizer, num_frames=4, crop_size=32, motion_frame_ratio=2).save_pretrained(tmp_path / "moted")
    return str(tmp_path / "moted")
