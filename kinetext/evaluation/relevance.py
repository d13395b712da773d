"""Relevance maps: which patches of which frames, and which words, the answer of a model rests on.

Chefer, Gur, Wolf, "Generic Attention-model Explainability", ICCV 2021, as its code applies it to CLIP. For a target
logit and the attention probabilities A (h,Q,K) of the last block of each tower:

    A-bar = mean over heads of max(0, dlogit/dA * A)        (rule 5)
    R = I,  R <- R + A-bar R  =  I + A-bar                  (rule 6; the last block only, as in its code for CLIP)

    image patches   R[class row, patch columns], of each frame
    motion tokens   mean over rows of R - I: these tokens are mean-pooled, there is no class token    (ours)
    words           R[end row, token columns] over their sum, then summed over the tokens of each word

| model | stream | target | patches of | words of |
|---|---|---|---|---|
| X-CLIP | image | its logit | image tower | class text |
| MoTED | image | video logit s*cos(v, e') | image tower | class text |
| MoTED | motion | motion logit s*cos(m, t) | motion encoder | descriptions, or the class text where there are none |

MoTED's Fig. 4 shows maps of "the final transformer block"; how its adapter and fusions enter them is not published.
Here they do by the gradient alone. What X-CLIP's message token carries belongs to no patch and is left out.

Relevance says what raised the one logit, right answer or wrong. It is not compared with other texts.

Legend: T frames, H and W pixels, P patch size, K patches of a frame, h heads, Q queries, M keys after merging,
N texts, L tokens.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from tokenizers.decoders import ByteLevel
from torch import nn

from ..processing.processing_video_text import VideoTextProcessor
from ..processing.video_decoding import DECODERS, VideoFrames
from .class_texts import check_motion_frames, uses_descriptions

logger = logging.getLogger(__name__)

_WORD_END = "</w>"  # ends the last piece of a word in CLIP's byte-level BPE
_MODEL_TYPES = ("xclip", "moted")


@dataclass(frozen=True)
class TextRelevance:
    """How much each word of a text counts for a logit.

    Attributes:
        text: the class text or description, as it was passed.
        words: (word, share) in the order of the text, as CLIP's tokenizer cuts it: lower case, punctuation apart, words
            of the template among them. Shares are >= 0; those of all texts of a stream sum to 1, or are all 0 where
            no word raised the logit.
    """

    text: str
    words: tuple[tuple[str, float], ...]


@dataclass(frozen=True, eq=False)
class StreamRelevance:
    """What a logit rests on, in one visual stream and in the texts it is compared with.

    Attributes:
        name: "image" or "motion".
        patches: (T, H/P, W/P) float32 on the CPU, >= 0; comparable within a stream, over all its frames.
        texts: the class text, or the descriptions the model uses, in the order they were passed.
    """

    name: str
    patches: torch.Tensor
    texts: tuple[TextRelevance, ...]


@dataclass(frozen=True, eq=False)
class Explanation:
    """What the answer of a model to one clip and one text rests on.

    Attributes:
        name: the path or URL of the clip, or its type where it was passed as bytes or frames.
        text: the class text, as it was passed.
        frames: the T frames the image tower saw, after resize and crop: uint8 (T,H,W,3).
        streams: "image"; of a MoTED with a parallel motion encoder also "motion".
    """

    name: str
    text: str
    frames: VideoFrames
    streams: tuple[StreamRelevance, ...]


@dataclass(frozen=True)
class _Stream:
    """A visual stream: its last attention, and the field of the model's output where its patches and texts meet."""

    name: str
    attention: nn.Module
    logits: str


@dataclass(frozen=True)
class _Text:
    """A text and its token ids (L,) from the start token to the end token, without padding."""

    text: str
    ids: torch.Tensor


@dataclass(frozen=True)
class _EncodedText:
    """A text that went through the text tower: its padded token ids (L,), and A-bar (L,L) of the last attention."""

    ids: torch.Tensor
    average: torch.Tensor


@dataclass(frozen=True)
class _Record:
    """What the last attentions returned in a forward pass: (output, probabilities A (N,h,Q,M), ...) of each run.

    Attributes:
        visual: of the one run of each stream, by its name.
        textual: of each run of the text tower.
        token_ids: (N,L) of each run of the text tower.
    """

    visual: dict[str, tuple[Any, ...]] = field(default_factory=dict)
    textual: list[tuple[Any, ...]] = field(default_factory=list)
    token_ids: list[torch.Tensor] = field(default_factory=list)


def explain_clip(
    model: Any,
    processor: VideoTextProcessor,
    clip: Any,
    text: str,
    *,
    descriptions: Sequence[str] | None = None,
    decoder: str = DECODERS[0],
) -> Explanation:
    """Relevance of patches and words for the logit of one clip and one text; the model is left as it was.

    For the duration of the call the model is in evaluation mode, has eager attention (others keep no probabilities)
    and frozen parameters: the gradient goes back to the last blocks and no further, so that this costs little more
    than a forward pass.

    Args:
        model: an X-CLIP or MoTED.
        processor: its processor.
        clip: a video of any kind that the processor takes.
        text: a class name; the processor's template is put around it.
        descriptions: texts that say how the class moves, for MoTED. Without them, the class name stands in, which is
            logged as a warning.
        decoder: "pyav" or "decord".

    Raises:
        ValueError: for another model, if `text` is not one non-empty string, for descriptions with a model that reads
            none, and if an attention gives no probabilities.
        VideoDecodeError: if the clip cannot be decoded.
    """
    streams = _streams_of(model)
    _check_texts(model, text, descriptions)
    check_motion_frames(model, processor)
    read = processor.read_clips(clip, decoder=decoder)[0]
    pixel_values = processor.transform([read])  # (1, a*T, 3, H, W): a batch of one clip
    tokens = processor(text=[text], descriptions=None if descriptions is None else [list(descriptions)])
    frames = _seen_frames(read, pixel_values[0], processor, getattr(model.config, "motion_frame_ratio", 1))
    patch_size = model.config.vision_config.patch_size
    grid = (len(frames.frames), *(side // patch_size for side in frames.frames.shape[1:3]))  # T, H/P, W/P
    class_text, described = _texts(text, descriptions or (), tokens)

    with _prepared(model), _recording(model, streams) as record:
        outputs = model(pixel_values=pixel_values.to(model.device), **tokens.to(model.device))
        averages = [_averages(stream, outputs[stream.logits][0, 0], record) for stream in streams]
    found = []
    for stream, (visual, rows) in zip(streams, averages, strict=True):
        run = record.visual[stream.name]
        patches = _motion_relevance(visual, run) if stream.name == "motion" else _image_relevance(visual, grid)
        read_texts = (stream.name == "motion" and _used(model.config, described)) or [class_text]
        total = sum(float(_end_row(one, rows).sum()) for one in read_texts)
        texts = tuple(_text_relevance(one, rows, total, processor) for one in read_texts)
        found.append(StreamRelevance(stream.name, patches.reshape(grid).cpu(), texts))
    name = str(clip) if isinstance(clip, (str, os.PathLike)) else type(clip).__name__
    return Explanation(name, text, frames, tuple(found))


def _streams_of(model: Any) -> list[_Stream]:
    """The visual streams of a model; ValueError unless it is one whose attentions are known here."""
    model_type = getattr(getattr(model, "config", None), "model_type", type(model).__name__)
    if model_type not in _MODEL_TYPES:
        raise ValueError(f"relevance maps read {' and '.join(_MODEL_TYPES)} models; this is a {model_type!r}.")
    image = model.vision_model.encoder.layers[-1].self_attn
    if model_type == "xclip":
        return [_Stream("image", image, "logits_per_video")]
    streams = [_Stream("image", image, "video_logits_per_video")]
    if model.config.motion_encoder == "parallel":
        streams.append(_Stream("motion", model.motion_encoder.blocks[-1].local_motion, "motion_logits_per_video"))
    return streams


def _check_texts(model: Any, text: Any, descriptions: Any) -> None:
    """Raises ValueError unless there is one text, and descriptions (a list of texts) only where they are read."""
    if not isinstance(text, str) or not text.strip():
        raise ValueError(f"text={text!r} is not one text; pass one non-empty string, and call again for another one.")
    if descriptions is None:
        if uses_descriptions(model):
            logger.warning(
                "this %s was made to read descriptions of the class and gets none, so the class name stands in for "
                "them; pass `descriptions`.",
                model.config.model_type,
            )
        return
    if model.config.model_type != "moted":
        raise ValueError(
            f"descriptions were given to a {model.config.model_type!r} model, which reads the class text only; leave "
            "them out, or explain a MoTED."
        )
    if isinstance(descriptions, str):
        raise ValueError(f"descriptions={descriptions!r} is one string; pass a list of them, the conceptual one first.")


def _texts(text: str, descriptions: Sequence[str], tokens: Any) -> tuple[_Text, list[_Text]]:
    """The class text and the descriptions with their tokens: (1,L) and (1,k+1,L) as the processor gives them."""

    def unpadded(text: str, ids: torch.Tensor, mask: torch.Tensor) -> _Text:
        return _Text(text, ids[mask.bool()])

    class_text = unpadded(text, tokens["input_ids"][0], tokens["attention_mask"][0])
    if not descriptions:
        return class_text, []
    ids, masks = tokens["description_input_ids"][0], tokens["description_attention_mask"][0]
    return class_text, [unpadded(*one) for one in zip(descriptions, ids, masks, strict=True)]


def _seen_frames(
    read: VideoFrames, pixel_values: torch.Tensor, processor: VideoTextProcessor, step: int
) -> VideoFrames:
    """Every step-th frame as the model saw it, uint8 again.

    Args:
        read: the a*T frames before any transform.
        pixel_values: (a*T,3,H,W), the same ones after it.
        processor: what normalised them.
        step: a, frames per frame of the image tower.
    """
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (processor.image_mean, processor.image_std))
    frames = ((pixel_values * std + mean) * 255).round().clamp(0, 255).to(torch.uint8)[::step]  # (T, 3, H, W)
    return replace(
        read,
        frames=frames.permute(0, 2, 3, 1),
        timestamps=read.timestamps[::step],
        indices=read.indices[::step],
    )


def _averages(stream: _Stream, logit: torch.Tensor, record: _Record) -> tuple[torch.Tensor, list[_EncodedText]]:
    """A-bar (N,Q,M) of a stream's last attention, and A-bar of every encoded text; float32, rule 5."""
    maps = [_probabilities(run) for run in (record.visual[stream.name], *record.textual)]
    gradients = torch.autograd.grad(logit, maps, retain_graph=True, allow_unused=True)
    visual, *textual = [_head_average(*pair) for pair in zip(maps, gradients, strict=True)]
    encoded = []
    for token_ids, averages in zip(record.token_ids, textual, strict=True):
        encoded += [_EncodedText(*row) for row in zip(token_ids.cpu(), averages.cpu(), strict=True)]
    return visual, encoded


def _head_average(probabilities: torch.Tensor, gradient: torch.Tensor | None) -> torch.Tensor:
    """Mean over heads of max(0, gradient * A): (N,h,Q,M) -> (N,Q,M); 0 where A plays no part in the logit (None)."""
    if gradient is None:
        return torch.zeros_like(probabilities[:, 0], dtype=torch.float32)
    return (gradient.float() * probabilities.detach().float()).clamp(min=0).mean(dim=1)


def _probabilities(run: tuple[Any, ...]) -> torch.Tensor:
    if run[1] is None:
        raise ValueError(
            "an attention gave no probabilities under attn_implementation='eager', so there are no relevance maps; "
            "load the model with kinetext or transformers as it is, without replaced attention modules."
        )
    return run[1]


def _image_relevance(average: torch.Tensor, grid: tuple[int, ...]) -> torch.Tensor:
    """(T,K): the class row at the patch columns of A-bar (T,Q,Q); tokens are class, patches, X-CLIP's message."""
    return average[:, 0, 1 : 1 + grid[1] * grid[2]]


def _motion_relevance(average: torch.Tensor, run: tuple[Any, ...]) -> torch.Tensor:
    """(T*K,): the mean row of A-bar (1,T*K,M); a merged key shares its relevance equally among its tokens."""
    keys = average[0].mean(dim=0)  # (M,)
    if run[2] is None:  # nothing was merged
        return keys
    merged_into = run[2][0]  # (T*K,)
    return (keys / merged_into.bincount(minlength=len(keys)))[merged_into]


def _end_row(text: _Text, encoded: Sequence[_EncodedText]) -> torch.Tensor:
    """(L-2,): A-bar from the end token of a text to its tokens before; a text in two roles counts in both."""
    end = len(text.ids) - 1
    rows = [one.average[end, 1:end] for one in encoded if torch.equal(one.ids[: end + 1], text.ids)]
    return torch.stack(rows).sum(dim=0)


def _used(config: Any, descriptions: Sequence[_Text]) -> Sequence[_Text]:
    """The descriptions that a MoTED of this configuration reads (its Table 3a): the conceptual one, others, or both."""
    return descriptions[0 if config.use_conceptual else 1 : None if config.use_discriminative else 1]


def _text_relevance(
    text: _Text, encoded: Sequence[_EncodedText], total: float, processor: VideoTextProcessor
) -> TextRelevance:
    """Words with their shares of `total`, the relevance of all texts of the stream: shares of texts can be compared."""
    relevance = _end_row(text, encoded)
    shares = relevance / total if total > 0 else relevance
    pieces = processor.tokenizer.convert_ids_to_tokens(text.ids[1:-1].tolist())
    return TextRelevance(text.text, join_pieces(pieces, shares.tolist()))


def join_pieces(pieces: Sequence[str], shares: Sequence[float]) -> tuple[tuple[str, float], ...]:
    """(word, sum of its shares) of CLIP's byte-level BPE pieces; a word goes on until a piece ends in `</w>`.

    Raises:
        ValueError: if the last piece ends no word, so that these are pieces of another kind of tokenizer.
    """
    decoder = ByteLevel()
    words: list[tuple[str, float]] = []
    begun, sum_of_shares = "", 0.0
    for piece, share in zip(pieces, shares, strict=True):
        begun, sum_of_shares = begun + piece, sum_of_shares + share
        if begun.endswith(_WORD_END):
            words.append((decoder.decode([begun.removesuffix(_WORD_END)]), sum_of_shares))
            begun, sum_of_shares = "", 0.0
    if begun:
        raise ValueError(f"piece {piece!r} ends a text and not a word (no {_WORD_END!r}): use a CLIP tokenizer.")
    return tuple(words)


@contextlib.contextmanager
def _prepared(model: Any) -> Iterator[None]:
    """The model in evaluation mode, with eager attention, frozen parameters and towers that record; as before after."""
    config = model.config
    names = ["", *(name for name in config.sub_configs if getattr(config, name) is not None)]
    attention = {name: (getattr(config, name) if name else config)._attn_implementation for name in names}
    modes = [(module, module.training) for module in model.modules()]
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    towers_record = getattr(model, "gradients_through_towers", contextlib.nullcontext)  # MoTED's stand in no_grad
    try:
        model.set_attn_implementation("eager")
        model.eval().requires_grad_(False)
        with torch.inference_mode(False), torch.enable_grad(), towers_record():
            yield
    finally:
        model.set_attn_implementation(attention)
        for module, was_training in modes:
            module.training = was_training
        for parameter in trained:
            parameter.requires_grad_(True)


@contextlib.contextmanager
def _recording(model: Any, streams: Sequence[_Stream]) -> Iterator[_Record]:
    """Fills the record during forward passes of the model inside."""
    record = _Record()

    def keep_token_ids(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        record.token_ids.append(kwargs["input_ids"])

    def keep_visual(name: str, module: nn.Module, args: tuple[Any, ...], output: tuple[Any, ...]) -> None:
        record.visual[name] = output

    def keep_textual(module: nn.Module, args: tuple[Any, ...], output: tuple[Any, ...]) -> None:
        record.textual.append(output)

    text_attention = model.text_model.encoder.layers[-1].self_attn
    handles = [model.text_model.register_forward_pre_hook(keep_token_ids, with_kwargs=True)]
    for attention in (text_attention, *(stream.attention for stream in streams)):
        handles.append(attention.register_forward_pre_hook(_begin_graph, with_kwargs=True))
    handles.append(text_attention.register_forward_hook(keep_textual))
    for stream in streams:
        handles.append(stream.attention.register_forward_hook(functools.partial(keep_visual, stream.name)))
    try:
        yield record
    finally:
        for handle in handles:
            handle.remove()


def _begin_graph(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any]:
    """Arguments whose float tensors are leaves: below frozen parameters, the probabilities are no graph nodes else."""

    def as_leaf(value: Any) -> Any:
        is_float = isinstance(value, torch.Tensor) and value.is_floating_point()
        return value.detach().requires_grad_() if is_float else value

    return tuple(map(as_leaf, args)), {name: as_leaf(value) for name, value in kwargs.items()}
