"""What all models of kinetext share: what is trained, the bank of class texts, input checks, the classification loss.

kinetext: https://github.com/kinetext/kinetext. This file is saved beside each checkpoint as remote code.

Legend: B videos, T frames, N classes, k+1 descriptions of a class, L tokens, C joint width.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
import weakref
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn
from transformers import CLIPModel, initialization
from transformers.masking_utils import create_bidirectional_mask
from transformers.modeling_outputs import ImageClassifierOutput

from .feed_forward import feed_forward_in_rows

_NEW_MODULE_STD = 0.02  # of MIT and prompt generator (VideoX code), and of Text4Vis's transformer
_BANK_FORMAT = "kinetext-text-bank-1"
_TEXTS_PER_FORWARD = 256  # bounds the memory of `encode_texts`; the result does not depend on it

# model -> (versions of its text tensors, digest): hashing 63 M parameters takes 0.2 s, comparing versions 0.1 ms.
_fingerprints: weakref.WeakKeyDictionary[nn.Module, tuple[tuple[Any, ...], str]] = weakref.WeakKeyDictionary()


@dataclass(frozen=True, eq=False)  # two banks are equal only if they are one: tensors have no truth value
class TextBank:
    """Class texts encoded once: features before any video-specific prompt, and the identity of their maker.

    Made by `model.encode_texts(...)`, used by `model(pixel_values=..., text_bank=bank)`, which equals passing the
    tokens. A model with other text weights, and a processor with another tokenizer, refuse it.

    Attributes:
        text_embeds: (N, C) projected features of the class names, not normalised.
        names: N class names in class order.
        text_fingerprint: SHA-256 of the text weights that made the features.
        tokenizer_fingerprint: SHA-256 of the tokenizer, or None if it was not told.
        description_embeds: (N, k+1, C) projected features of the descriptions of each class, not normalised, 0 where a
            class has fewer; None without descriptions. Models that read class names only ignore them.
        description_mask: (N, k+1) bool, False where a class has fewer.
    """

    text_embeds: torch.Tensor
    names: tuple[str, ...]
    text_fingerprint: str
    tokenizer_fingerprint: str | None = None
    description_embeds: torch.Tensor | None = None
    description_mask: torch.Tensor | None = None

    def __post_init__(self) -> None:
        if self.text_embeds.ndim != 2 or len(self.text_embeds) != len(self.names):
            raise ValueError(
                f"a TextBank has one name per row of text_embeds (N, C); "
                f"got {len(self.names)} names for shape {tuple(self.text_embeds.shape)}."
            )
        if (self.description_embeds is None) != (self.description_mask is None):
            raise ValueError("description_embeds and description_mask belong together; give both or neither.")
        if self.description_embeds is not None and self.description_mask is not None:
            shape, mask_shape = tuple(self.description_embeds.shape), tuple(self.description_mask.shape)
            if len(shape) != 3 or shape[:2] != mask_shape or (shape[0], shape[2]) != tuple(self.text_embeds.shape):
                raise ValueError(
                    f"description_embeds must be (N, k+1, C) beside text_embeds (N, C) = "
                    f"{tuple(self.text_embeds.shape)} and description_mask (N, k+1); got {shape} and {mask_shape}."
                )

    def __len__(self) -> int:
        return len(self.names)

    def to(self, device: torch.device | str) -> TextBank:
        """The same bank with its features on `device`."""
        moved: dict[str, Any] = {name: tensor.to(device) for name, tensor in self._tensors().items()}
        return replace(self, **moved)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes one safetensors file; an existing one is replaced only when the new one is complete."""
        path = Path(path)
        metadata = {
            "format": _BANK_FORMAT,
            "names": json.dumps(self.names),
            "text_fingerprint": self.text_fingerprint,
            "tokenizer_fingerprint": json.dumps(self.tokenizer_fingerprint),
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}-") as folder:
            partial = Path(folder) / path.name
            tensors = {name: tensor.detach().contiguous().cpu() for name, tensor in self._tensors().items()}
            save_file(tensors, partial, metadata=metadata)
            os.replace(partial, path)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> TextBank:
        """Reads what [`save`] wrote, on the CPU.

        Raises:
            FileNotFoundError: if there is no such file.
            ValueError: if the file is no text bank.
        """
        if not Path(path).is_file():
            raise FileNotFoundError(f"no text bank at {path}; make one with model.encode_texts(...).save(path).")
        try:
            with safe_open(path, framework="pt") as file:
                metadata = file.metadata() or {}
                if metadata.get("format") != _BANK_FORMAT:
                    raise ValueError(f"{path} is a safetensors file but no text bank (no format={_BANK_FORMAT!r}).")
                return cls(
                    **{name: file.get_tensor(name) for name in file.keys()},  # noqa: SIM118 - it is no dict
                    names=tuple(json.loads(metadata["names"])),
                    text_fingerprint=metadata["text_fingerprint"],
                    tokenizer_fingerprint=json.loads(metadata["tokenizer_fingerprint"]),
                )
        except (SafetensorError, KeyError, TypeError, json.JSONDecodeError) as error:
            raise ValueError(f"{path} is not a readable text bank: {error}") from error

    def _tensors(self) -> dict[str, torch.Tensor]:
        tensors = {
            "text_embeds": self.text_embeds,
            "description_embeds": self.description_embeds,
            "description_mask": self.description_mask,
        }
        return {name: tensor for name, tensor in tensors.items() if tensor is not None}


class PreTrainedMixin:
    """What all base classes of kinetext's models say to transformers; comes before its own."""

    accepts_loss_kwargs = False

    @classmethod
    def is_custom_code(cls) -> bool:
        """False, or transformers would skip `_init_weights` of modules that only hold others: layers, attentions.

        Its precaution is meant for an `_init_weights` that overwrites loaded weights; ours does not.
        """
        return False

    def post_init(self) -> None:
        """As in the base class; of the layers that must stay whole, those that this model has (FSDP refuses others).

        Feed-forward layers go row by row from here on, where that is faster.
        """
        super().post_init()  # type: ignore[misc]
        feed_forward_in_rows(self)  # type: ignore[arg-type]
        self._no_split_modules &= {type(module).__name__ for module in self.modules()}  # type: ignore[attr-defined]


class VideoMixin:
    """Which parameters of a model on an image tower (`vision_model`, `visual_projection`) are what."""

    # Modules; `Any` because transformers' own classes, the other base, declare them each in their way.
    vision_model: Any
    visual_projection: Any

    def new_parameter_names(self) -> set[str]:
        """Names of the parameters that the model adds to CLIP; they learn at a higher rate."""
        return self._names_of(self._new_parameters())

    def position_parameter_names(self) -> set[str]:
        """Names of the position embeddings; they are not decayed."""
        return self._names_of(self._position_parameters())

    def get_input_embeddings(self) -> nn.Module:
        """The first layer: of the text tower where there is one, else that of the patches."""
        return self._input_tower().get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replaces it."""
        self._input_tower().set_input_embeddings(value)

    def _input_tower(self) -> Any:
        return self.vision_model

    def _new_parameters(self) -> list[nn.Parameter]:
        return []

    def _position_parameters(self) -> list[nn.Parameter]:
        embeddings = self.vision_model.embeddings
        of_clip = getattr(embeddings, "position_embedding", None)  # a module; other ViTs have a parameter
        return [embeddings.position_embeddings if of_clip is None else of_clip.weight]

    def _clip_parts(self) -> dict[str, list[nn.Parameter]]:
        """What CLIP brings, by the names of `set_trainable`."""
        new = set(map(id, self._new_parameters()))
        tower = [*self.vision_model.parameters(), *self.visual_projection.parameters()]
        return {"vision": [parameter for parameter in tower if id(parameter) not in new]}

    def _let_learn(self, **parts: bool) -> None:
        """Sets which parts of CLIP get gradients; new modules are left alone."""
        parameters = self._clip_parts()
        for part, does_learn in parts.items():
            for parameter in parameters[part]:
                parameter.requires_grad_(does_learn)

    def _names_of(self, parameters: Iterable[nn.Parameter]) -> set[str]:
        wanted = set(map(id, parameters))
        model: Any = self
        return {name for name, parameter in model.named_parameters() if id(parameter) in wanted}


class FreezesItselfMixin:
    """Of models whose configuration or design says what is frozen: it is so from the start, also when loaded."""

    @classmethod
    def from_pretrained(cls, *args: Any, **kwargs: Any) -> Any:
        """As in transformers, which replaces the parameters while loading; what was frozen is frozen again."""
        loaded = super().from_pretrained(*args, **kwargs)  # type: ignore[misc]
        model: Any = loaded[0] if isinstance(loaded, tuple) else loaded
        model.set_trainable()
        return loaded


class VideoClassificationMixin(VideoMixin):
    """One linear layer, `classifier`, on the video embedding, and no text side."""

    classifier: Any

    def _new_parameters(self) -> list[nn.Parameter]:
        return [*super()._new_parameters(), *self.classifier.parameters()]

    def _refuse_text(self, text: bool | None, logit_scale: bool | None) -> None:
        if text or logit_scale:
            raise ValueError(
                f"{type(self).__name__} has no text tower and no logit scale to train; leave train_text and "
                "train_logit_scale out."
            )

    def _classify(self, video: torch.Tensor, labels: torch.Tensor | None) -> ImageClassifierOutput:
        """Logits (B, N) of video embeddings (B, C), and the loss where there are labels."""
        logits = self.classifier(video)
        loss = None if labels is None else classification_loss(logits, labels)
        return ImageClassifierOutput(loss=loss, logits=logits)


class VideoTextMixin(VideoMixin):
    """Class texts and loss of a model with a CLIP text tower (`text_model`, `text_projection`)."""

    text_model: Any
    text_projection: Any
    logit_scale: Any
    training: bool

    def _input_tower(self) -> Any:
        return self.text_model

    def _position_parameters(self) -> list[nn.Parameter]:
        return [*super()._position_parameters(), self.text_model.embeddings.position_embedding.weight]

    def _clip_parts(self) -> dict[str, list[nn.Parameter]]:
        text = [*self.text_model.parameters(), *self.text_projection.parameters()]
        return {**super()._clip_parts(), "text": text, "logit_scale": [self.logit_scale]}

    def text_fingerprint(self) -> str:
        """SHA-256 of the text weights (names, dtypes, shapes, values); hashed again only after they may have changed.

        They may have while they are trained: fused optimisers leave no trace in the versions of tensors. Changes made
        behind autograd's back in evaluation mode (`parameter.data.add_(...)`) are not noticed.
        """
        tensors = {
            f"{prefix}.{name}": tensor
            for prefix, module in (("text_model", self.text_model), ("text_projection", self.text_projection))
            for name, tensor in module.named_parameters()
        }
        is_learning = self.training and self._text_learns()
        versions = versions_of(tensors.values())
        cached = _fingerprints.get(self)  # type: ignore[call-overload]
        if not is_learning and cached is not None and cached[0] == versions:
            return cached[1]
        digest = hashlib.sha256()
        for name, tensor in tensors.items():
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(memoryview(tensor.detach().cpu().contiguous().view(torch.uint8).numpy()))
        if not is_learning:
            _fingerprints[self] = (versions, digest.hexdigest())  # type: ignore[index]
        return digest.hexdigest()

    def train(self, mode: bool = True) -> Any:
        """As in torch; what is known of text weights that learn is forgotten ([`text_fingerprint`])."""
        if mode and self._text_learns():
            _fingerprints.pop(self, None)  # type: ignore[call-overload]
        return super().train(mode)  # type: ignore[misc]

    def _text_learns(self) -> bool:
        return any(parameter.requires_grad for parameter in self._clip_parts()["text"])

    @torch.no_grad()
    def encode_texts(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        *,
        description_input_ids: torch.Tensor | None = None,
        description_attention_mask: torch.Tensor | None = None,
        names: Sequence[str] | None = None,
        tokenizer_fingerprint: str | None = None,
    ) -> TextBank:
        """The [`TextBank`] of N classes; no gradient, dropout off whatever the mode of the model.

        Args:
            input_ids: (N, L) int64, class names.
            attention_mask: (N, L), 0 at padding.
            description_input_ids: (N, k+1, L) int64, descriptions of each class, for models that read them (MoTED).
            description_attention_mask: (N, k+1, L), 0 at padding, all 0 for a description that is not there.
            names: N class names; "0", "1", ... when not given.
            tokenizer_fingerprint: `processor.tokenizer_fingerprint`, so that another tokenizer is noticed later.

        Raises:
            ValueError: for other shapes, or when the number of names is not N.
        """
        check_class_texts(input_ids, description_input_ids, description_attention_mask)
        names = tuple(names) if names is not None else tuple(str(index) for index in range(len(input_ids)))
        if len(names) != len(input_ids):
            raise ValueError(f"{len(names)} names were given for {len(input_ids)} rows of input_ids; give one per row.")
        with torch.inference_mode(False), torch.no_grad(), _evaluating(self.text_model):
            text_embeds = self.encode_rows(input_ids, attention_mask)  # (N, C)
            descriptions, mask = self.encode_descriptions(description_input_ids, description_attention_mask)
        if descriptions is not None and mask is None:
            mask = torch.ones(descriptions.shape[:2], dtype=torch.bool, device=descriptions.device)
        return TextBank(text_embeds, names, self.text_fingerprint(), tokenizer_fingerprint, descriptions, mask)

    def encode_rows(self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None) -> torch.Tensor:
        """Projected features (R, C) of R texts (R, L), a bounded number at a time."""
        chunks = []
        for start in range(0, len(input_ids), _TEXTS_PER_FORWARD):
            rows = slice(start, start + _TEXTS_PER_FORWARD)
            mask = None if attention_mask is None else attention_mask[rows]
            chunks.append(self.get_text_features(input_ids[rows], mask).pooler_output)  # type: ignore[attr-defined]
        return torch.cat(chunks)

    def encode_descriptions(
        self, input_ids: torch.Tensor | None, attention_mask: torch.Tensor | None
    ) -> tuple[torch.Tensor | None, torch.Tensor | None]:
        """Projected features (N, k+1, C) and which are there (N, k+1); None for no descriptions, and for all there."""
        if input_ids is None:
            return None, None
        if attention_mask is None:
            return self.encode_rows(input_ids.flatten(0, 1), None).unflatten(0, input_ids.shape[:2]), None
        is_there = attention_mask.bool().any(dim=-1)  # (N, k+1)
        readable = attention_mask.bool() | ~is_there.unsqueeze(-1)  # attention needs a token, also where there is none
        features = self.encode_rows(input_ids.flatten(0, 1), readable.flatten(0, 1).to(attention_mask))
        features = features.unflatten(0, is_there.shape)  # (N, k+1, C)
        return features.masked_fill(~is_there.unsqueeze(-1), 0), is_there

    def check_text_bank(self, text_bank: TextBank) -> bool:
        """True; raises ValueError if the bank was made by other text weights than this model's.

        In a compiled model it runs when the forward is traced, which a bank with another fingerprint causes anew. Text
        weights that change after tracing are not noticed there. In an export nothing is compared: the tensors that it
        traces with have no values.
        """
        fault = None if torch.compiler.is_exporting() else self._fault_of(text_bank.text_fingerprint)
        if fault is not None:
            raise ValueError(fault)
        return True

    @torch.compiler.assume_constant_result
    def _fault_of(self, fingerprint: str) -> str | None:  # not of the bank, or each would be compiled for
        """Returned, not raised: the compiler would report what is raised in here as a fault of its own."""
        own = self.text_fingerprint()
        if fingerprint == own:
            return None
        return (
            f"this TextBank was made by text weights {fingerprint[:12]}, the model has {own[:12]}: "
            "its features would be wrong. Encode the class texts again with this model's encode_texts(...)."
        )


def versions_of(tensors: Iterable[torch.Tensor]) -> tuple[Any, ...]:
    """What differs after tensors were replaced, moved or changed, but for what fused optimisers do."""
    return tuple((id(t), t.data_ptr(), 0 if t.is_inference() else t._version) for t in tensors)


@contextlib.contextmanager
def _evaluating(module: nn.Module) -> Iterator[None]:
    modes = [(part, part.training) for part in module.modules()]  # a frozen part may be in another mode than the rest
    module.eval()
    try:
        yield
    finally:
        for part, was_training in modes:
            part.training = was_training


def load_clip(clip: str | os.PathLike[str] | Any) -> Any:
    """A `CLIPModel`, by repository, folder or as it is.

    Raises:
        TypeError: for another kind of `clip`.
        RuntimeError: if the files lack a weight, or hold one too many; transformers would only log it.
    """
    if isinstance(clip, (str, os.PathLike)):
        loaded: Any = CLIPModel.from_pretrained(clip, output_loading_info=True)
        clip, report = loaded
        require_all_weights(set(report["missing_keys"]), report["unexpected_keys"])
    if not isinstance(clip, CLIPModel):
        raise TypeError(
            f"clip must be a name, a folder, a CLIPConfig or a CLIPModel; got {type(clip).__name__}. "
            "(A configuration of kinetext goes to its model's constructor.)"
        )
    return clip


def load_clip_weights(model: Any, weights: Mapping[str, torch.Tensor]) -> None:
    """Copies a CLIP's weights into a model that is built on it; only `model.new_parameter_names()` may be missing.

    A model without a text tower takes the image tower alone.

    Raises:
        RuntimeError: if another one is missing, or one is left over.
    """
    if not hasattr(model, "text_model"):
        text_side = ("text_model", "text_projection", "logit_scale")
        weights = {name: value for name, value in weights.items() if name.partition(".")[0] not in text_side}
    missing, unexpected = model.load_state_dict(weights, strict=False)
    require_all_weights(set(missing) - model.new_parameter_names(), unexpected)


def require_all_weights(missing: set[str], unexpected: Sequence[str]) -> None:
    """Raises RuntimeError, naming them, if weights of a CLIP are missing or left over."""
    if missing or unexpected:
        raise RuntimeError(
            f"not the weights of a CLIP of this size: missing {sorted(missing)}, left over {sorted(unexpected)}."
        )


def init_linears(module: Any) -> None:
    """Starts every linear layer in a new module: normal, 0.02, no bias."""
    for child in module.modules():
        if isinstance(child, nn.Linear):
            initialization.trunc_normal_(child.weight, std=_NEW_MODULE_STD)
            if child.bias is not None:
                initialization.zeros_(child.bias)


def init_clip_projections(model: Any) -> None:
    """Starts projections and logit scale, as many as there are, as `CLIPModel` starts its own."""
    for name in ("text_projection", "visual_projection"):
        projection = getattr(model, name, None)
        if projection is not None:
            std = projection.in_features**-0.5 * model.config.initializer_factor
            initialization.normal_(projection.weight, std=std)
    if hasattr(model, "logit_scale"):
        initialization.constant_(model.logit_scale, model.config.logit_scale_init_value)


def mean_over_frames(features: torch.Tensor, frame_mask: torch.Tensor | None) -> torch.Tensor:
    """(B, T, ..., E) -> (B, ..., E), over the frames that are not padding."""
    if frame_mask is None:
        return features.mean(dim=1)
    weights = frame_mask.bool().to(features.dtype)
    weights = weights / weights.sum(dim=1, keepdim=True)
    return torch.einsum("bt...,bt->b...", features, weights)


def frame_attention_mask(config: Any, frames: torch.Tensor, frame_mask: torch.Tensor | None) -> Any:
    """The mask that keeps attention over `frames` (B, T, width) off padding, as the attention function takes it."""
    if frame_mask is None:
        return None
    return create_bidirectional_mask(config, frames, frame_mask.bool())


def interpolate_temporal_positions(
    position_embedding: torch.Tensor,
    num_frames: int,
    frame_mask: torch.Tensor | None = None,
    *,
    only_stretch: bool = False,
) -> torch.Tensor:
    """Position embeddings for clips of another length, by linear interpolation over time.

    As `torch.nn.functional.interpolate(mode="linear", align_corners=False)`, but per clip: one with t frames that are
    not padding gets the positions of a clip of t frames, so padding changes nothing.

    Args:
        position_embedding: (1, T0, E), T0 the trained number of frames.
        num_frames: T, the number of frames of the padded clip.
        frame_mask: (B, T), nonzero at frames, or None if no clip is padded.
        only_stretch: clips of fewer than T0 frames get the first positions instead, as from a table.

    Returns:
        (1, T, E), or (B, T, E) with a mask; the very parameter when T = T0 and there is no mask.
    """
    trained_frames = position_embedding.shape[1]
    if frame_mask is None:
        if num_frames == trained_frames:
            return position_embedding
        frame_mask = torch.ones(1, num_frames, dtype=torch.bool, device=position_embedding.device)
    valid = frame_mask.bool()
    ranks = (valid.cumsum(dim=1) - 1).clamp(min=0)  # (B, T) place of each frame among those of its clip
    lengths = valid.sum(dim=1, keepdim=True)  # (B, 1)
    if only_stretch:
        lengths = lengths.clamp(min=trained_frames)
    source = ((ranks + 0.5) * trained_frames / lengths - 0.5).clamp(0, trained_frames - 1)  # (B, T) float
    lower = source.floor().long()
    upper = (lower + 1).clamp(max=trained_frames - 1)
    weight = (source - lower).to(position_embedding.dtype).unsqueeze(-1)  # (B, T, 1)
    table = position_embedding[0]  # (T0, E)
    return torch.lerp(table[lower], table[upper], weight)  # (B, T, E)


def check_class_texts(
    input_ids: torch.Tensor,
    description_input_ids: torch.Tensor | None = None,
    description_attention_mask: torch.Tensor | None = None,
) -> None:
    """Raises ValueError unless class names are (N, L) and descriptions, where given, (N, k+1, L) with their mask."""
    if input_ids.ndim != 2 or len(input_ids) == 0:
        raise ValueError(f"input_ids must be (N, L), one row per class text; got {tuple(input_ids.shape)}.")
    if description_input_ids is None:
        if description_attention_mask is not None:
            raise ValueError("description_attention_mask was given without description_input_ids.")
        return
    shape = tuple(description_input_ids.shape)
    if len(shape) != 3 or shape[0] != len(input_ids) or 0 in shape:
        raise ValueError(
            f"description_input_ids must be (N, k+1, L) with N = {len(input_ids)}, the class names; got {shape}."
        )
    if description_attention_mask is not None and tuple(description_attention_mask.shape) != shape:
        raise ValueError(
            f"description_attention_mask has shape {tuple(description_attention_mask.shape)}; wanted {shape}, that of "
            "description_input_ids."
        )


def check_pixel_values(pixel_values: torch.Tensor | None, num_channels: int) -> torch.Tensor:
    """`pixel_values`; raises ValueError unless it is (B, T, num_channels, H, W) with B, T >= 1."""
    if pixel_values is None:
        raise ValueError("pixel_values is missing; pass (B,T,3,H,W) floats, as the processor returns them.")
    shape = tuple(pixel_values.shape)
    if len(shape) == 6:
        raise ValueError(
            f"pixel_values has shape {shape}, (B,V,T,C,H,W) with V views; the model takes (B,T,C,H,W). "
            "Fold the views into the batch with pixel_values.flatten(0, 1) and average the V results of each video."
        )
    if len(shape) != 5 or shape[2] != num_channels or shape[1] < 1 or shape[0] < 1:
        raise ValueError(f"pixel_values has shape {shape}; wanted (B,T,{num_channels},H,W) with B, T >= 1.")
    return pixel_values


def check_frame_features(frame_features: torch.Tensor, shape: tuple[int | str, ...]) -> torch.Tensor:
    """`frame_features`; raises ValueError unless it has the shape, in which letters stand for any number >= 1."""
    own = tuple(frame_features.shape)
    fits = len(own) == len(shape) and all(
        got >= 1 if isinstance(wanted, str) else got == wanted for got, wanted in zip(own, shape, strict=True)
    )
    if not fits:
        wanted = ", ".join(map(str, shape))
        raise ValueError(f"frame_features has shape {own}; wanted ({wanted}), as encode_frames of this model gives.")
    return frame_features


def without_padding(frames: torch.Tensor, frame_mask: torch.Tensor | None) -> torch.Tensor:
    """Pixels or features (B, T, ...) with zeros for padding; raises ValueError for a mask that does not fit."""
    if frame_mask is None:
        return frames
    check_frame_mask(frame_mask, *frames.shape[:2])
    # Zero weight is not enough to keep NaN, or values that overflow to infinity, out of the result.
    return frames.masked_fill(~frame_mask.bool().view(*frame_mask.shape, *[1] * (frames.ndim - 2)), 0)


def check_text_source(input_ids: torch.Tensor | None, text_bank: TextBank | None) -> None:
    """Raises ValueError unless class texts are given once."""
    if (input_ids is None) == (text_bank is None):
        given = "neither" if input_ids is None else "both"
        raise ValueError(f"pass the class texts as input_ids or as text_bank; {given} were given.")


def check_frame_mask(frame_mask: torch.Tensor, batch_size: int, num_frames: int) -> None:
    """Raises ValueError unless `frame_mask` is (B, T) with a frame in every row."""
    if tuple(frame_mask.shape) != (batch_size, num_frames):
        raise ValueError(
            f"frame_mask has shape {tuple(frame_mask.shape)}; wanted (B,T) = ({batch_size}, {num_frames}), "
            "1 for a frame and 0 for padding."
        )
    if not torch.compiler.is_compiling() and not frame_mask.bool().any(dim=1).all():
        raise ValueError("frame_mask has a row without any frame; every video needs at least one.")


def classification_loss(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Cross-entropy over the classes, mean over the batch: the training loss of X-CLIP (VideoX `main.py`).

    Args:
        logits: (B, N).
        labels: (B,) int64 class ids, or (B, N) float probabilities (label smoothing, mixup).

    Raises:
        ValueError: for another shape, or an id outside 0..N-1.
        TypeError: for (B,) labels that are no integers, or (B, N) ones that are no floats.
    """
    batch_size, num_classes = logits.shape
    if tuple(labels.shape) not in ((batch_size,), (batch_size, num_classes)):
        raise ValueError(
            f"labels has shape {tuple(labels.shape)}; wanted (B,) = ({batch_size},) class ids "
            f"or (B,N) = ({batch_size}, {num_classes}) probabilities."
        )
    if labels.ndim == 2:
        if not labels.is_floating_point():
            raise TypeError(f"labels of shape (B,N) are probabilities and must be float; got {labels.dtype}.")
        return nn.functional.cross_entropy(logits, labels.to(logits.dtype))
    if labels.is_floating_point() or labels.dtype == torch.bool:
        raise TypeError(f"labels of shape (B,) are class ids and must be int64; got {labels.dtype}.")
    if not torch.compiler.is_compiling() and ((labels < 0) | (labels >= num_classes)).any():
        raise ValueError(f"labels must lie in 0..{num_classes - 1}, the classes there are; got {labels.tolist()}.")
    return nn.functional.cross_entropy(logits, labels.long())
