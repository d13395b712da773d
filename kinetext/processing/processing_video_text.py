"""From video files, class names and descriptions to the tensors of a video-text model.

Decode, sample, transform, tokenise.

kinetext: https://github.com/kinetext/kinetext. This file is saved beside each checkpoint as remote code.

Legend: B videos, V views (clips x crops), T frames, N class texts, K descriptions of a class, L tokens, S the side of
the square a model sees. With motion frames, read a*T for T in shapes, a being `motion_frame_ratio`.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers import BatchFeature, CLIPImageProcessorPil, PreTrainedConfig
from transformers.processing_utils import ProcessorMixin

from .frame_sampling import SAMPLINGS, sample_frames
from .video_decoding import DECODERS, VideoFrames, load_video
from .video_transforms import INTERPOLATIONS, centre_crop, normalise, resize_short_side, three_crops

IMAGENET_MEAN = (0.485, 0.456, 0.406)  # X-CLIP is trained with ImageNet's statistics, not CLIP's (VideoX `build.py`)
IMAGENET_STD = (0.229, 0.224, 0.225)
XCLIP_PIXELS = {"image_mean": list(IMAGENET_MEAN), "image_std": list(IMAGENET_STD), "interpolation": "bilinear"}
_FROZEN_CLIPS = ("clip", "moted")  # model types whose image tower needs the pixels it was pre-trained on
_EMPTY_VOCABULARY = 3  # tokens of a `CLIPTokenizer` made from nothing: start, end, padding
_SHORT_SIDE_RATIO = 256 / 224  # short side before the crop : side of the crop

_ACCEPTED = (
    "a path, URL, bytes, file object, (T,H,W,3) uint8 array or tensor, (T,H,W,3) float one in [0,1], "
    "list of PIL images, undecoded `datasets` Video value, or a list of these"
)
_WANTED_DTYPES = "wanted uint8 in 0..255 or floats in [0,1]"

# What a processor saves: which frames of a video, which pixels of a frame, which text of a name.
CONTRACT = (
    "num_frames",
    "motion_frame_ratio",
    "sampling",
    "stride",
    "crop_size",
    "short_side",
    "interpolation",
    "image_mean",
    "image_std",
    "template",
)


class VideoTextProcessor(ProcessorMixin):
    """Everything between files and tensors; saved with a checkpoint, so that it carries its own temporal contract.

    Args:
        tokenizer: tokenizer of the class texts; may be missing when only videos are processed.
        num_frames: T, sampled frames of a clip.
        sampling: "segments", "uniform", "dense" or "all" (see `frame_sampling`).
        stride: distance of neighbouring frames in "dense".
        crop_size: S, pixels.
        short_side: pixels of the shorter side before a single centre crop; three crops use `crop_size` (`build.py`).
        interpolation: "bilinear" or "bicubic", always antialiased.
        image_mean: per channel, of values in [0,1].
        image_std: per channel, of values in [0,1].
        template: what class names are put into, at `{}`.
        motion_frame_ratio: a, frames of `pixel_values` per sampled frame: 1, or MoTED's `motion_frame_ratio`, whose
            motion encoder sees frames between the sampled ones (see `frame_sampling`).

    Example:
        >>> import numpy as np
        >>> processor = VideoTextProcessor(num_frames=4)
        >>> processor(videos=np.zeros((10, 120, 160, 3), dtype=np.uint8))["pixel_values"].shape
        torch.Size([1, 4, 3, 224, 224])
    """

    def __init__(
        self,
        tokenizer: Any = None,
        num_frames: int = 8,
        sampling: str = "segments",
        stride: int = 1,
        crop_size: int = 224,
        short_side: int | None = None,
        interpolation: str = "bilinear",
        image_mean: Sequence[float] = IMAGENET_MEAN,
        image_std: Sequence[float] = IMAGENET_STD,
        template: str = "{}",
        motion_frame_ratio: int = 1,
        **kwargs: Any,
    ) -> None:
        _check_choice("sampling", sampling, SAMPLINGS)
        _check_choice("interpolation", interpolation, INTERPOLATIONS)
        _check_template(template)
        for name, value in (
            ("num_frames", num_frames),
            ("stride", stride),
            ("crop_size", crop_size),
            ("motion_frame_ratio", motion_frame_ratio),
        ):
            if value < 1:
                raise ValueError(f"{name}={value} must be at least 1.")
        if not all(value > 0 for value in image_std):
            raise ValueError(f"image_std={list(image_std)} must be positive: pixels are divided by it.")
        self.num_frames = num_frames
        self.sampling = sampling
        self.stride = stride
        self.crop_size = crop_size
        self.short_side = round(crop_size * _SHORT_SIDE_RATIO) if short_side is None else short_side
        if self.short_side < crop_size:
            raise ValueError(f"short_side={self.short_side} is smaller than crop_size={crop_size}; raise it.")
        self.interpolation = interpolation
        self.image_mean = list(image_mean)
        self.image_std = list(image_std)
        self.template = template
        self.motion_frame_ratio = motion_frame_ratio
        super().__init__(tokenizer, **kwargs)

    def check_argument_for_proper_class(self, argument_name: str, argument: Any) -> Any:
        """As in the base class, but the tokenizer may be None."""
        if argument is None:
            return None
        return super().check_argument_for_proper_class(argument_name, argument)

    @classmethod
    def get_processor_dict(
        cls, pretrained_model_name_or_path: str | os.PathLike[str], **kwargs: Any
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Our saved parameters; in a repository that is not ours, frame counts and size come from its `config.json`.

        Of a plain CLIP also mean, standard deviation and interpolation: those it was trained with.
        """
        hub_kwargs = dict(kwargs)
        processor_dict, kwargs = super().get_processor_dict(pretrained_model_name_or_path, **kwargs)
        if "num_frames" not in processor_dict:
            config, _ = PreTrainedConfig.get_config_dict(pretrained_model_name_or_path, **hub_kwargs)
            vision = config.get("vision_config", {})
            processor_dict = {
                "num_frames": config.get("num_frames", vision.get("num_frames", 8)),  # MoTED's, X-CLIP's
                "motion_frame_ratio": config.get("motion_frame_ratio", 1),
                "crop_size": vision.get("image_size", 224),
                **(
                    _clip_pixels(pretrained_model_name_or_path, hub_kwargs)
                    if config.get("model_type") in _FROZEN_CLIPS
                    else {}
                ),
            }
        return processor_dict, kwargs

    @classmethod
    def from_pretrained(
        cls, pretrained_model_name_or_path: str | os.PathLike[str], *args: Any, **kwargs: Any
    ) -> VideoTextProcessor:
        """As in transformers; also from repositories of stock X-CLIP and CLIP.

        Raises:
            OSError: if there is no tokenizer in the repository (transformers would make an empty one).
        """
        processor = super().from_pretrained(pretrained_model_name_or_path, *args, **kwargs)
        if len(processor.tokenizer) <= _EMPTY_VOCABULARY:
            raise OSError(f"{pretrained_model_name_or_path} has no tokenizer files (tokenizer.json or vocabulary).")
        return processor

    def save_pretrained(self, save_directory: str | os.PathLike, push_to_hub: bool = False, **kwargs: Any) -> Any:
        """As in transformers, with this code beside the files.

        Raises:
            ValueError: if the processor has no tokenizer.
        """
        self._require_tokenizer()
        return super().save_pretrained(save_directory, push_to_hub=push_to_hub, **kwargs)

    @property
    def tokenizer_fingerprint(self) -> str:
        """SHA-256 of everything that decides how this tokenizer turns a text into ids."""
        state = json.loads(self._require_tokenizer().backend_tokenizer.to_str())
        state.update(padding=None, truncation=None, length=self._max_tokens())  # the first two change with every call
        return hashlib.sha256(json.dumps(state, sort_keys=True).encode()).hexdigest()

    @property
    def contract(self) -> dict[str, Any]:
        """What is saved besides the tokenizer, by the names of the constructor."""
        return {name: getattr(self, name) for name in CONTRACT}

    @property
    def model_input_names(self) -> list[str]:
        """Names of the tensors a call can return."""
        descriptions = ["description_input_ids", "description_attention_mask"]
        return ["pixel_values", "frame_mask", "input_ids", "attention_mask", *descriptions, "text_bank"]

    def __call__(
        self,
        videos: Any = None,
        text: str | Sequence[str] | None = None,
        *,
        descriptions: Sequence[Sequence[str]] | None = None,
        text_bank: Any = None,
        template: str | None = None,
        num_frames: int | None = None,
        sampling: str | None = None,
        stride: int | None = None,
        num_clips: int = 1,
        num_crops: int = 1,
        generator: torch.Generator | None = None,
        decoder: str = DECODERS[0],
        padding: bool | str = True,
        return_tensors: str = "pt",
    ) -> BatchFeature:
        """Model inputs of videos, class texts with or without descriptions, or both.

        Args:
            videos: a path, URL, bytes, file object, (T,H,W,3) uint8 array or tensor, (T,H,W,3) float one in [0,1], list
                of PIL images or of (H,W,3) arrays, undecoded `datasets` Video value, or a list of these, mixed.
            text: N class names.
            descriptions: N lists of 1 to K texts that say how a class moves, in class order; for MoTED the conceptual
                one first, then the discriminative ones. They are taken as they are, without the template.
            text_bank: class texts encoded before, instead of `text` and `descriptions`; checked against this tokenizer
                and passed on.
            template: replaces the saved one, e.g. "a video of {}".
            num_frames: replaces the saved T; so do `sampling` and `stride`. Motion frames are added to these.
            sampling: as in `frame_sampling`; "all" takes every frame and pads shorter clips (see `frame_mask`).
            stride: distance of neighbouring frames in "dense".
            num_clips: clips per video.
            num_crops: 1 (centre) or 3 (along the longer side).
            generator: makes the sampling random, as in training.
            decoder: "pyav" or "decord".
            padding: of the texts, as in any tokenizer.
            return_tensors: only "pt".

        Returns:
            pixel_values: float32 (B,T,3,S,S), or (B,V,T,3,S,S) with V = num_clips * num_crops > 1 (crops outermost).
            frame_mask: (B,T) 1 at frames, only where clips have different lengths.
            input_ids, attention_mask: (N,L) int64.
            description_input_ids, description_attention_mask: (N,K,L) int64, K the longest list; in a class with fewer
                descriptions the rest is padding, its mask zero.
            text_bank: the one passed in.

        Raises:
            VideoDecodeError: if a file cannot be decoded.
            FileNotFoundError: if it does not exist.
            TypeError: for an input of another kind.
            ValueError: for arrays, texts or options that do not fit.
        """
        if return_tensors != "pt":
            raise ValueError(f'return_tensors={return_tensors!r} is not supported; only "pt" is.')
        if videos is None and text is None and descriptions is None and text_bank is None:
            raise ValueError("nothing to process: pass videos, text, or both.")
        if text_bank is not None and not (text is None and descriptions is None):
            raise ValueError("pass class texts as text (and descriptions) or as text_bank, not both.")
        data: dict[str, Any] = {}
        if videos is not None:
            options: dict[str, Any] = {
                "num_frames": num_frames,
                "sampling": sampling,
                "stride": stride,
                "num_clips": num_clips,
                "generator": generator,
                "decoder": decoder,
            }
            views = [self.transform(self.read_clips(video, **options), num_crops) for video in as_batch(videos)]
            data.update(_stack_views(views))
        names = None if text is None else [text] if isinstance(text, str) else list(text)
        if names is not None:
            data.update(self._tokenise_names(names, template, padding))
        if descriptions is not None:
            data.update(self._tokenise_descriptions(descriptions, names, padding))
        if text_bank is not None:
            self.check_text_bank(text_bank)
        batch = BatchFeature(data)
        if text_bank is not None:
            batch["text_bank"] = text_bank
        return batch

    def read_clips(
        self,
        video: Any,
        *,
        num_frames: int | None = None,
        sampling: str | None = None,
        stride: int | None = None,
        num_clips: int = 1,
        generator: torch.Generator | None = None,
        decoder: str = DECODERS[0],
    ) -> list[VideoFrames]:
        """The sampled frames of one video before any transform, one entry per clip; arguments as in a call."""
        counts: list[int] = []

        def choose(total_frames: int) -> list[int]:
            clips = sample_frames(
                total_frames,
                self.num_frames if num_frames is None else num_frames,
                sampling=self.sampling if sampling is None else sampling,
                stride=self.stride if stride is None else stride,
                num_clips=num_clips,
                motion_frame_ratio=self.motion_frame_ratio,
                generator=generator,
            )
            counts.append(len(clips[0]))
            return [index for clip in clips for index in clip]

        frames = _read_frames(video, choose, decoder)
        return _split(frames, counts[0])

    def check_text_bank(self, text_bank: Any) -> None:
        """Raises ValueError if the bank was made with another tokenizer (a bank that names none is taken)."""
        made_with = text_bank.tokenizer_fingerprint
        if made_with is not None and made_with != self.tokenizer_fingerprint:
            raise ValueError(
                f"this TextBank was made with tokenizer {made_with[:12]}, the processor has "
                f"{self.tokenizer_fingerprint[:12]}; encode the class texts again with this processor."
            )

    def transform(self, clips: Sequence[VideoFrames], num_crops: int = 1) -> torch.Tensor:
        """The views of a video whose frames are chosen, as a call makes them.

        Args:
            clips: what `read_clips` gave.
            num_crops: 1 (centre) or 3 (along the longer side).

        Returns:
            float32 (V,T,3,S,S), crops outermost.
        """
        if num_crops not in (1, 3):
            raise ValueError(f"num_crops={num_crops} is not supported; choose 1 (centre) or 3 (along the longer side).")
        crops: list[list[torch.Tensor]] = []
        for clip in clips:
            frames = _channels_first(clip.frames)  # (T,3,H,W)
            if num_crops == 1:
                frames = resize_short_side(frames, self.short_side, self.interpolation)
                crops.append([centre_crop(frames, self.crop_size)])
            else:
                frames = resize_short_side(frames, self.crop_size, self.interpolation)
                crops.append(three_crops(frames, self.crop_size))
        views = torch.stack([clip[crop] for crop in range(num_crops) for clip in crops])  # (V,T,3,S,S)
        return normalise(views, self.image_mean, self.image_std)

    def _tokenise_names(self, names: list[str], template: str | None, padding: bool | str) -> dict[str, torch.Tensor]:
        template = self.template if template is None else template
        _check_template(template)
        for index, name in enumerate(names):
            if not isinstance(name, str) or not name.strip():
                raise ValueError(f"text[{index}] = {name!r} is no class name; pass non-empty strings.")
        if not names:
            raise ValueError("text is empty; pass at least one class name.")
        texts = [template.replace("{}", name) for name in names]
        return self._tokenise(texts, [f"text[{index}]" for index in range(len(texts))], padding)

    def _tokenise_descriptions(
        self, descriptions: Sequence[Sequence[str]], names: list[str] | None, padding: bool | str
    ) -> dict[str, torch.Tensor]:
        """Tensors (N,K,L): the tokens of all descriptions at their class and rank, padding elsewhere."""
        _check_descriptions(descriptions, names)
        places = [(index, rank) for index, texts in enumerate(descriptions) for rank in range(len(texts))]
        tokens = self._tokenise(
            [descriptions[index][rank] for index, rank in places],
            [f"descriptions[{index}][{rank}]" for index, rank in places],
            padding,
        )  # (M,L), M descriptions in all
        shape = (len(descriptions), max(map(len, descriptions)), tokens["input_ids"].shape[1])
        rows = tuple(torch.tensor(places).T)  # (M,) classes, (M,) ranks
        padding_ids = torch.full(shape, self._require_tokenizer().pad_token_id)
        return {
            "description_input_ids": padding_ids.index_put(rows, tokens["input_ids"]),
            "description_attention_mask": torch.zeros(shape, dtype=torch.int64).index_put(
                rows, tokens["attention_mask"]
            ),
        }

    def _tokenise(self, texts: list[str], labels: list[str], padding: bool | str) -> dict[str, torch.Tensor]:
        """Tensors (M,L) of M texts; `labels` say in an error which one is too long."""
        tokens = self._require_tokenizer()(texts, padding=padding, return_tensors="pt")
        lengths = tokens["attention_mask"].sum(dim=1)
        longest = int(lengths.argmax())
        if lengths[longest] > self._max_tokens():
            raise ValueError(
                f"{labels[longest]} has {int(lengths[longest])} tokens, the model takes {self._max_tokens()}; shorten "
                f"it (nothing is cut silently): {texts[longest][:200]!r}"
            )
        return {"input_ids": tokens["input_ids"], "attention_mask": tokens["attention_mask"]}

    def _require_tokenizer(self) -> Any:
        if getattr(self, "tokenizer", None) is None:
            raise ValueError("this processor has no tokenizer; build it with VideoTextProcessor(tokenizer=...).")
        return self.tokenizer

    def _max_tokens(self) -> int:
        return self._require_tokenizer().model_max_length


def _clip_pixels(name: str | os.PathLike[str], hub_kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """What the pixels of a CLIP repository are: as its image processor says, else as OpenAI's."""
    try:
        saved, _ = CLIPImageProcessorPil.get_image_processor_dict(name, **hub_kwargs)
    except OSError:  # it has none
        saved = {}
    processor = CLIPImageProcessorPil(
        **{key: saved[key] for key in ("image_mean", "image_std", "resample") if key in saved}
    )
    is_bicubic = processor.resample == Image.Resampling.BICUBIC
    return {
        "image_mean": list(processor.image_mean),
        "image_std": list(processor.image_std),
        "interpolation": "bicubic" if is_bicubic else "bilinear",
    }


def _check_choice(name: str, value: str, choices: Sequence[str]) -> None:
    if value not in choices:
        raise ValueError(f"{name}={value!r} is unknown; choose one of {', '.join(choices)}.")


def _check_template(template: str) -> None:
    if "{}" not in template:
        raise ValueError(f"template={template!r} has no place for the class name; write it as {{}}.")


def _check_descriptions(descriptions: Any, names: list[str] | None) -> None:
    """Raises ValueError unless there is one non-empty list of non-empty strings per class."""
    if not _is_list(descriptions) or not descriptions or not all(_is_list(texts) for texts in descriptions):
        raise ValueError(
            "descriptions are no list of lists; pass one list of strings per class: [[...], ...], the conceptual "
            "description first."
        )
    if names is not None and len(descriptions) != len(names):
        raise ValueError(
            f"descriptions has {len(descriptions)} lists for {len(names)} class names; pass one list per class, in "
            "class order."
        )
    for index, texts in enumerate(descriptions):
        if not texts:
            raise ValueError(f"descriptions[{index}] is empty; pass at least one description of each class.")
        for rank, text in enumerate(texts):
            if not isinstance(text, str) or not text.strip():
                raise ValueError(
                    f"descriptions[{index}][{rank}] = {text!r} is no description; pass non-empty strings, and leave "
                    "out one that is missing."
                )


def _is_list(value: Any) -> bool:
    return isinstance(value, (list, tuple))


def _is_array(value: Any) -> bool:
    return isinstance(value, (np.ndarray, torch.Tensor))


def _is_image(value: Any) -> bool:
    return hasattr(value, "convert") and hasattr(value, "getbands")  # PIL.Image.Image, without importing PIL


def as_batch(videos: Any) -> list[Any]:
    """A list of single videos, whatever was passed; a list of images or of (H,W,3) arrays is one video."""
    if _is_array(videos) and videos.ndim == 5:
        videos = list(videos)
    if not isinstance(videos, (list, tuple)):
        return [videos]
    if not videos:
        raise ValueError("videos is empty; pass at least one video.")
    if all(_is_image(item) or (_is_array(item) and item.ndim == 3) for item in videos):
        return [videos]
    return list(videos)


def _read_frames(video: Any, choose: Callable[[int], list[int]], decoder: str) -> VideoFrames:
    """The chosen frames of one video of any accepted kind."""
    if isinstance(video, (list, tuple)):
        video = _stack_images(video)
    if _is_array(video):
        frames = _as_uint8_frames(video)
        indices = list(choose(len(frames)))
        return VideoFrames(
            frames=frames[indices],
            timestamps=torch.full((len(indices),), torch.nan, dtype=torch.float64),  # an array has no clock
            fps=float("nan"),
            rotation=0,
            indices=indices,
            total_frames=len(frames),
        )
    if isinstance(video, (str, bytes, bytearray, memoryview, os.PathLike, Mapping)) or hasattr(video, "read"):
        return load_video(video, indices=choose, decoder=decoder)
    raise TypeError(f"a video of type {type(video).__name__} is not understood; pass {_ACCEPTED}.")


def _split(video: VideoFrames, clip_length: int) -> list[VideoFrames]:
    """One entry per clip of `clip_length` frames."""
    spans = [slice(start, start + clip_length) for start in range(0, len(video.frames), clip_length)]
    return [
        replace(video, frames=video.frames[span], timestamps=video.timestamps[span], indices=video.indices[span])
        for span in spans
    ]


def _stack_images(images: Sequence[Any]) -> np.ndarray | torch.Tensor:
    """A list of PIL images or (H,W,3) arrays as one (T,H,W,3)."""
    if not images:
        raise ValueError("a video is an empty list of frames; pass at least one frame.")
    arrays = [np.array(image.convert("RGB")) if _is_image(image) else image for image in images]
    for index, array in enumerate(arrays):
        if not _is_array(array):
            raise TypeError(f"frame {index} of a list is a {type(array).__name__}; a frame is a PIL image or an array.")
        if tuple(array.shape) != tuple(arrays[0].shape):
            raise ValueError(
                f"frame {index} has shape {tuple(array.shape)}, frame 0 has {tuple(arrays[0].shape)}; "
                "all frames of a video need one size."
            )
    return torch.stack([_as_tensor(array) for array in arrays])


def _as_tensor(array: np.ndarray | torch.Tensor) -> torch.Tensor:
    """A tensor on the CPU of any tensor or array, also of reversed (`frame[..., ::-1]`) and read-only ones."""
    if isinstance(array, torch.Tensor):
        return array.detach().cpu()
    if array.dtype.kind not in "biuf":
        raise ValueError(f"a video array has dtype {array.dtype}; {_WANTED_DTYPES}.")
    native = array.astype(array.dtype.newbyteorder("="), copy=False)
    return torch.from_numpy(native if min(native.strides) >= 0 and native.flags.writeable else native.copy())


def _as_uint8_frames(video: np.ndarray | torch.Tensor) -> torch.Tensor:
    """Frames as uint8 (T,H,W,3), from uint8 or from floats in [0,1] (rounded to 1/255)."""
    frames = _as_tensor(video)
    shape = tuple(frames.shape)
    if frames.ndim != 4 or shape[-1] != 3 or 0 in shape:
        hint = " It looks like (T,3,H,W): permute it to (T,H,W,3)." if len(shape) == 4 and shape[1] == 3 else ""
        raise ValueError(f"a video array has shape {shape}; wanted (T,H,W,3) with at least one frame.{hint}")
    if frames.dtype == torch.uint8:
        return frames
    if not frames.is_floating_point():
        raise ValueError(f"a video array has dtype {frames.dtype}; {_WANTED_DTYPES}.")
    low, high = float(frames.min()), float(frames.max())
    if not (low >= 0.0 and high <= 1.0):
        raise ValueError(
            f"a float video has values from {low:.4g} to {high:.4g}; wanted [0,1]. Pass raw frames: "
            "the processor normalises them itself."
        )
    return (frames * 255).round().to(torch.uint8)


def _channels_first(frames: torch.Tensor) -> torch.Tensor:
    return frames.permute(0, 3, 1, 2)  # (T,H,W,3) -> (T,3,H,W)


def _stack_views(videos: list[torch.Tensor]) -> dict[str, torch.Tensor]:
    """Views of B videos, each (V,T,3,S,S), as pixel_values, with a frame_mask where T differs."""
    lengths = [video.shape[1] for video in videos]
    longest = max(lengths)
    pixel_values = torch.stack([_padded(video, longest) for video in videos])  # (B,V,T,3,S,S)
    if pixel_values.shape[1] == 1:
        pixel_values = pixel_values.squeeze(1)  # (B,T,3,S,S)
    if len(set(lengths)) == 1:
        return {"pixel_values": pixel_values}
    frame_mask = torch.tensor([[int(t < length) for t in range(longest)] for length in lengths])  # (B,T)
    return {"pixel_values": pixel_values, "frame_mask": frame_mask}


def _padded(video: torch.Tensor, num_frames: int) -> torch.Tensor:
    """Views (V,T,3,S,S) with zeros behind, up to `num_frames`; the same ones if nothing is missing."""
    missing = num_frames - video.shape[1]
    if not missing:
        return video
    return torch.cat([video, video.new_zeros(len(video), missing, *video.shape[2:])], dim=1)


VideoTextProcessor.register_for_auto_class("AutoProcessor")
