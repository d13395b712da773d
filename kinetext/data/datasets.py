"""Clips as samples of training and evaluation, with randomness that depends on nothing but the sample.

Clip ──(cannot be decoded: another of its class)──► frames ─► resize ─► draw ─► crop ─► sample ─► batch
                                                                        (flip: the label of its twin)
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.utils.data import Dataset, Sampler

from ..processing.processing_video_text import VideoTextProcessor
from ..processing.video_decoding import DECODERS, VideoDecodeError, load_video
from ..processing.video_transforms import resize_short_side
from .augmentation import Augmentation, crop_pixels, draw_clip, finish_pixels, flip_twins
from .clip_lists import Clip, ClipList

AUGMENT_ON = ("workers", "accelerator")
GROUPS_AT_ONCE = 8  # shards whose clips are mixed: enough for a varied batch, few enough for reads to stay local

_READ_ERRORS = (VideoDecodeError, OSError)  # what a damaged or missing clip raises; all else is a fault of the program
_SHOWN_FAILURES = 3


def sample_generator(seed: int, epoch: int, clip_id: str, view: int = 0) -> torch.Generator:
    """The random stream of one view of one clip in one epoch: the same in any worker, rank and batch."""
    key = f"{seed}\0{epoch}\0{clip_id}\0{view}".encode(errors="surrogateescape")  # file names may be no UTF-8
    digest = hashlib.blake2b(key, digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "big") >> 1)


# Training -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class TrainTransform:
    """From a video to the sample that training sees, but for what is finished in batches ([`TrainCollator`]).

    Args:
        processor: says which frames, which size.
        augmentation: what is drawn.
        decoder: "pyav" or "decord".
        twins: class ids that a mirrored clip changes into each other ([`flip_twins`]).
    """

    processor: VideoTextProcessor
    augmentation: Augmentation = field(default_factory=Augmentation)
    decoder: str = DECODERS[0]
    twins: Mapping[int, int] = field(default_factory=dict)

    def __call__(self, video: Any, label: int, generator: torch.Generator) -> dict[str, Any]:
        """pixel_values uint8 (T,3,S,S), draw (`ClipDraw`) and labels, an int.

        Raises:
            VideoDecodeError, OSError: if the video cannot be read.
        """
        processor = self.processor
        clip = processor.read_clips(video, generator=generator, decoder=self.decoder)[0]
        frames = resize_short_side(clip.frames.permute(0, 3, 1, 2), processor.short_side, processor.interpolation)
        num_frames, _, height, width = frames.shape
        draw = draw_clip(self.augmentation, height, width, num_frames, processor.crop_size, generator)
        return {
            "pixel_values": crop_pixels(frames, draw, processor.crop_size, processor.interpolation),
            "draw": draw,
            "labels": self.twins.get(label, label) if draw.flip else label,
        }


@dataclass(frozen=True)
class TrainCollator:
    """Makes a batch of samples: of uint8 crops, and of the draws that are still to be applied to them.

    Args:
        mean: per channel, of values in [0,1].
        std: per channel, of values in [0,1].
        augment_on: "workers" finishes the pixels here; "accelerator" leaves it to the trainer, which calls
            `finish_pixels` with the same result: a quarter of the bytes to move, and the colours on the faster device.
    """

    mean: Sequence[float]
    std: Sequence[float]
    augment_on: str = AUGMENT_ON[0]

    def __post_init__(self) -> None:
        if self.augment_on not in AUGMENT_ON:
            raise ValueError(f"augment_on={self.augment_on!r} is unknown; choose one of {', '.join(AUGMENT_ON)}.")

    def __call__(self, samples: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """A batch of B samples.

        Returns:
            pixel_values: float32 (B,T,3,S,S), normalised; uint8 and not yet augmented on the accelerator.
            labels: int64 (B,).
            clip_ids: of the clips that were listed.
            failures: (clip id, reason) of all that could not be decoded, the replaced ones and others tried for them.
            draws: B draws, only on the accelerator.
        """
        pixel_values = torch.stack([sample["pixel_values"] for sample in samples])
        draws = [sample["draw"] for sample in samples]
        batch = {
            "pixel_values": pixel_values,
            "labels": torch.tensor([sample["labels"] for sample in samples]),
            "clip_ids": [sample["clip_id"] for sample in samples],
            "failures": [failure for sample in samples for failure in sample["failures"]],
        }
        if self.augment_on == "accelerator":
            return {**batch, "draws": draws}
        return {**batch, "pixel_values": finish_pixels(pixel_values, draws, self.mean, self.std)}


class TrainClips(Dataset[dict[str, Any]]):
    """Augmented clips, addressed by (epoch, index) as [`EpochSampler`] yields them; `collate` makes batches of them.

    A clip that cannot be decoded is replaced by one of its class: which one depends on seed, epoch and the clip alone,
    so every worker, process and run replaces it alike. The sample reports it.

    Args:
        clips: what to train on.
        processor: says which frames, which size, which mean and standard deviation.
        seed: of everything random.
        augmentation: what is drawn for a clip; X-CLIP's by default.
        decoder: "pyav" or "decord".
        flip_swaps: classes that a mirrored clip changes into each other, as in `flip_twins`: "ssv2", or names by names.
        cache_videos: keep the resized frames of every video, so that each is decoded once. For small sets only: a video
            takes frames x height x width x 3 bytes (10 seconds of 340 x 256 pixels: 65 MB), and every worker process
            has its own, for as long as it lives; so use no workers or persistent ones.
        augment_on: where the pixels are finished, as in [`TrainCollator`].
    """

    def __init__(
        self,
        clips: ClipList,
        processor: VideoTextProcessor,
        *,
        seed: int,
        augmentation: Augmentation | None = None,
        decoder: str = DECODERS[0],
        flip_swaps: str | Mapping[str, str] | None = None,
        cache_videos: bool = False,
        augment_on: str = AUGMENT_ON[0],
    ) -> None:
        if several := [clip.clip_id for clip in clips.clips if clip.other_labels]:
            raise ValueError(f"{len(several)} clips have several classes, e.g. {several[0]}; training takes one.")
        self.clips = clips
        self.seed = seed
        self.transform = TrainTransform(
            processor, augmentation or Augmentation(), decoder, flip_twins(flip_swaps or {}, clips.class_names)
        )
        self.collate = TrainCollator(processor.image_mean, processor.image_std, augment_on)
        self._videos: dict[str, torch.Tensor] | None = {} if cache_videos else None
        self._of_class: dict[int, list[Clip]] = {}
        for clip in sorted(clips.clips, key=lambda clip: clip.clip_id):
            self._of_class.setdefault(clip.label, []).append(clip)

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, key: tuple[int, int]) -> dict[str, Any]:
        """One sample.

        Returns:
            pixel_values: uint8 (T,3,S,S), cropped.
            draw: the random choices that are still to be applied (`finish_pixels`).
            labels: int; the twin of the clip's class where a flip makes it so.
            clip_id: of the clip that is listed there, also if another took its place.
            failures: (clip id, reason) of the clip, and of others tried for it, that could not be decoded.

        Raises:
            VideoDecodeError: if no clip of the class can be decoded.
        """
        epoch, index = key
        listed = self.clips.clips[index]

        def read(clip: Clip) -> dict[str, Any]:
            # The stream starts anew for a replacement: what a failing clip drew before it failed does not matter.
            return self.transform(self._video(clip), clip.label, sample_generator(self.seed, epoch, listed.clip_id))

        sample, failures = first_readable(self._candidates(epoch, listed), read)
        return {**sample, "clip_id": listed.clip_id, "failures": failures}

    def _candidates(self, epoch: int, listed: Clip) -> Iterator[Clip]:
        """The listed clip, then the others of its class in random order."""
        yield listed
        others = [clip for clip in self._of_class[listed.label] if clip.clip_id != listed.clip_id]
        generator = sample_generator(self.seed, epoch, f"replacements of {listed.clip_id}")
        yield from (others[place] for place in torch.randperm(len(others), generator=generator).tolist())

    def _video(self, clip: Clip) -> Any:
        if self._videos is None:
            return video_of(clip)
        if clip.clip_id not in self._videos:
            self._videos[clip.clip_id] = self._resized(video_of(clip))
        return self._videos[clip.clip_id]

    def _resized(self, video: Any) -> torch.Tensor:
        """All frames uint8 (n,H,W,3) with the short side that the transform would give them, so that it does not."""
        processor = self.transform.processor
        frames = load_video(video, decoder=self.transform.decoder).frames.permute(0, 3, 1, 2)  # (n,3,H,W)
        return resize_short_side(frames, processor.short_side, processor.interpolation).permute(0, 2, 3, 1)


def first_readable(
    candidates: Iterable[Clip], read: Callable[[Clip], dict[str, Any]]
) -> tuple[dict[str, Any], list[tuple[str, str]]]:
    """What `read` makes of the first clip it can read, and (clip id, reason) of those before it.

    Raises:
        VideoDecodeError: if it can read none.
    """
    failures: list[tuple[str, str]] = []
    for clip in candidates:
        try:
            return read(clip), failures
        except _READ_ERRORS as error:
            failures.append((clip.clip_id, str(error)))
    shown = "; ".join(reason for _, reason in failures[:_SHOWN_FAILURES])
    raise VideoDecodeError(
        f"{failures[0][0]} cannot be decoded, nor can any of the {len(failures) - 1} clips that could replace it: "
        f"{shown}{'; ...' if len(failures) > _SHOWN_FAILURES else ''}"
    )


class EpochSampler(Sampler[tuple[int, int]]):
    """(epoch, index) pairs in an order that depends on seed and epoch alone.

    The epoch travels with the index because workers copy the dataset; `set_epoch` is called by the trainer.

    Args:
        num_clips: indices go from 0 to num_clips - 1.
        seed: of the order.
        total_batch_size: clips of one optimiser step, over all processes; an epoch then holds only whole ones, and
            leaves out other clips each time. None for all clips.
        groups: the group of each clip, such as the tar shard it lies in: groups come in random order, and the clips of
            `GROUPS_AT_ONCE` neighbouring ones are mixed, so that reads stay local. None to mix all clips.

    Raises:
        ValueError: if the clips do not fill one batch, or `groups` are not one per clip.
    """

    def __init__(
        self,
        num_clips: int,
        *,
        seed: int,
        total_batch_size: int | None = None,
        groups: Sequence[Hashable] | None = None,
    ) -> None:
        if total_batch_size is not None and num_clips < total_batch_size:
            raise ValueError(
                f"{num_clips} clips do not fill one batch of {total_batch_size}, so an epoch would hold none: lower "
                "total_train_batch_size, list more clips, or keep the rest of an epoch (dataloader_drop_last: false)."
            )
        if groups is not None and len(groups) != num_clips:
            raise ValueError(f"groups has {len(groups)} entries for {num_clips} clips; give one per clip.")
        self.num_clips = num_clips - num_clips % (total_batch_size or 1)
        self.seed = seed
        self.epoch = 0
        members: dict[Hashable, list[int]] = {}
        for index in range(num_clips):
            members.setdefault(None if groups is None else groups[index], []).append(index)
        self._groups = [torch.tensor(indices) for indices in members.values()]

    def set_epoch(self, epoch: int) -> None:
        """Sets the epoch of the next iteration."""
        self.epoch = int(epoch)

    def __len__(self) -> int:
        return self.num_clips

    def __iter__(self) -> Iterator[tuple[int, int]]:
        generator = sample_generator(self.seed, self.epoch, "order of the epoch")
        places = torch.randperm(len(self._groups), generator=generator).split(GROUPS_AT_ONCE)
        order: list[int] = []
        for window in (torch.cat([self._groups[place] for place in some]) for some in places):
            order += window[torch.randperm(len(window), generator=generator)].tolist()
        return iter([(self.epoch, index) for index in order[: self.num_clips]])


# Evaluation ---------------------------------------------------------------------------------------------------------


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
        except _READ_ERRORS as error:
            return {**sample, "error": str(error)}
        return {**sample, "pixel_values": batch["pixel_values"].reshape(-1, *batch["pixel_values"].shape[-4:])}


def video_of(clip: Clip) -> Any:
    """What the processor takes: the clip's source, called if it is a function."""
    return clip.source() if callable(clip.source) else clip.source
