"""Clips as samples of training and evaluation, with randomness that depends on nothing but the sample."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.data import Dataset, Sampler

from ..processing.processing_video_text import VideoTextProcessor
from ..processing.video_decoding import DECODERS, VideoDecodeError
from .annotations import Clip, ClipList


def sample_generator(seed: int, epoch: int, clip_id: str, view: int = 0) -> torch.Generator:
    """The random stream of one view of one clip in one epoch: the same in any worker, rank and batch."""
    key = f"{seed}\0{epoch}\0{clip_id}\0{view}".encode(errors="surrogateescape")  # file names may be no UTF-8
    digest = hashlib.blake2b(key, digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "big") >> 1)


@dataclass(frozen=True)
class Augmentation:
    """What training does to a clip besides random frames (VideoX `build.py`).

    Attributes:
        multi_scale_crop: X-CLIP's MultiScaleCrop instead of the centre crop.
        flip_probability: of mirroring a whole clip; 0 where left and right are different classes.
    """

    multi_scale_crop: bool = True
    flip_probability: float = 0.5


class TrainClips(Dataset[dict[str, Any]]):
    """Augmented clips, addressed by (epoch, index) as [`EpochSampler`] yields them."""

    def __init__(
        self,
        clips: ClipList,
        processor: VideoTextProcessor,
        *,
        seed: int,
        augmentation: Augmentation | None = None,
        decoder: str = DECODERS[0],
    ) -> None:
        self.clips = clips
        self.processor = processor
        self.seed = seed
        self.augmentation = augmentation or Augmentation()
        self.decoder = decoder

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, key: tuple[int, int]) -> dict[str, Any]:
        """pixel_values float32 (T,3,S,S) and labels, an int."""
        epoch, index = key
        clip = self.clips.clips[index]
        pixel_values = self.processor.train_clip(
            video_of(clip),
            sample_generator(self.seed, epoch, clip.clip_id),
            multi_scale_crop_enabled=self.augmentation.multi_scale_crop,
            flip_probability=self.augmentation.flip_probability,
            decoder=self.decoder,
        )
        return {"pixel_values": pixel_values, "labels": clip.label}


class EvalClips(Dataset[dict[str, Any]]):
    """Clips as they are evaluated: nothing random; one that cannot be decoded is reported, not replaced."""

    def __init__(
        self,
        clips: ClipList,
        processor: VideoTextProcessor,
        *,
        num_clips: int = 1,
        num_crops: int = 1,
        decoder: str = DECODERS[0],
    ) -> None:
        self.clips = clips
        self.processor = processor
        self.num_clips = num_clips
        self.num_crops = num_crops
        self.decoder = decoder

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """index, labels and either pixel_values (V,T,3,S,S) or error, the reason why there are none."""
        clip = self.clips.clips[index]
        sample: dict[str, Any] = {"index": index, "labels": clip.label}
        try:
            batch = self.processor(
                videos=[video_of(clip)], num_clips=self.num_clips, num_crops=self.num_crops, decoder=self.decoder
            )
        except (VideoDecodeError, OSError) as error:
            return {**sample, "error": str(error)}
        return {**sample, "pixel_values": batch["pixel_values"].reshape(-1, *batch["pixel_values"].shape[-4:])}


def video_of(clip: Clip) -> Any:
    """What the processor takes: the clip's source, called if it is a function."""
    return clip.source() if callable(clip.source) else clip.source


def collate_train(samples: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]:
    """pixel_values (B,T,3,S,S) and labels (B,) int64."""
    return {
        "pixel_values": torch.stack([sample["pixel_values"] for sample in samples]),
        "labels": torch.tensor([sample["labels"] for sample in samples]),
    }


class EpochSampler(Sampler[tuple[int, int]]):
    """(epoch, index) pairs in an order that depends on seed and epoch alone.

    The epoch travels with the index because workers copy the dataset; `set_epoch` is called by the trainer.
    """

    def __init__(self, num_clips: int, *, seed: int) -> None:
        self.num_clips = num_clips
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Sets the epoch of the next iteration."""
        self.epoch = int(epoch)

    def __len__(self) -> int:
        return self.num_clips

    def __iter__(self) -> Iterator[tuple[int, int]]:
        generator = sample_generator(self.seed, self.epoch, "order of the epoch")
        order = torch.randperm(self.num_clips, generator=generator).tolist()
        return iter([(self.epoch, index) for index in order])
