"""VideoCLIP: the plain ways to read videos with a CLIP, as baselines and as models of their own.

kinetext: https://github.com/kinetext/kinetext. This file is saved beside each checkpoint as remote code.

    pixel_values (B,T,3,H,W) -> image tower -> frame features (B,T,C) -> pooling over frames -> (B,C) --+
                                                                                                        +-> logits (B,N)
    input_ids (N,L) or TextBank -> text tower -> (N,C) ---------------------------------- scaled cosine -+

`config.temporal_pooling` says how:

- "mean": the projected features of the frames, not normalised, are averaged (vanilla CLIP; ViFi-CLIP, CVPR 2023).
- "transformer": six blocks attend over them first (Text4Vis, AAAI 2023).
- "one_frame": one frame is the video; of a longer clip the middle one (CLIP-One, X-CLIP supplement Table 2).
- "joint": the tokens of all frames go through the image tower together (CLIP-Joint, ibid.). Not published and ours: one
  class token per frame, whose features are averaged (so counted, the multiply-accumulates meet the printed ones), and
  temporal positions that start at zero.

The image tower is CLIP's, or another ViT of transformers with a new projection (`from_towers`; X-CLIP supplement,
Table 3): its feature of a frame is the class token after the last norm.

Legend: B videos, T frames, N classes, L tokens of a text, K patches, D image width, C joint width.
"""

from __future__ import annotations

import copy
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import reduce
from typing import Any

import torch
from torch import nn
from transformers import AutoModel, CLIPConfig, PreTrainedConfig, PreTrainedModel, initialization
from transformers.modeling_outputs import BaseModelOutputWithPooling, ImageClassifierOutput
from transformers.models.clip import configuration_clip
from transformers.models.clip import modeling_clip as stock
from transformers.utils.generic import ModelOutput, can_return_tuple

from .configuration_video_clip import CLIP_TOWER, VideoCLIPConfig, require_image_tower
from .modeling_video_text import (
    FreezesItselfMixin,
    PreTrainedMixin,
    TextBank,
    VideoClassificationMixin,
    VideoMixin,
    VideoTextMixin,
    check_frame_features,
    check_pixel_values,
    check_text_source,
    classification_loss,
    frame_attention_mask,
    init_clip_projections,
    init_linears,
    interpolate_temporal_positions,
    load_clip,
    load_clip_weights,
    mean_over_frames,
    require_all_weights,
    without_padding,
)

_FRAME_POSITIONS = 77  # of the transformer over frames: the context length of CLIP's text tower (Text4Vis)
_TEMPORAL_NORM_EPS = 1e-12  # of its LayerNorms (Text4Vis)
_POSITION_STD = 0.02
_SIZED_TOWERS = ("vit", "deit", "vit_msn")  # check the size of images; DINOv2 interpolates positions unasked
# Parts of a ViT's checkpoint beside its class token: heads of its training, and what only masked training uses.
_UNUSED_PARTS = re.compile(r"(^|\.)(pooler|classifier|cls_classifier|distillation_classifier|mask_token)(\.|$)")


@dataclass
class VideoCLIPOutput(ModelOutput):
    """What [`VideoCLIPModel`] returns.

    Attributes:
        loss: scalar, with `labels`: the cross-entropy over class texts.
        logits_per_video: (B, N).
        logits_per_text: (N, B), the transpose.
        text_embeds: (N, C), of unit length.
        video_embeds: (B, C), of unit length.
    """

    loss: torch.Tensor | None = None
    logits_per_video: torch.Tensor | None = None
    logits_per_text: torch.Tensor | None = None
    text_embeds: torch.Tensor | None = None
    video_embeds: torch.Tensor | None = None


class VideoCLIPPreTrainedModel(PreTrainedMixin, stock.CLIPPreTrainedModel):
    """Initialisation: CLIP's modules as in transformers, the blocks over frames as in Text4Vis, joint positions 0."""

    config_class = VideoCLIPConfig
    base_model_prefix = "video_clip"
    main_input_name = "pixel_values"
    input_modalities = ("video", "text")

    def save_pretrained(self, save_directory: str | os.PathLike[str], *args: Any, **kwargs: Any) -> None:
        """As in transformers, under the names that the parameters have.

        It would write a ViT's under older ones, which its trainer, when it goes on from a checkpoint, does not find.
        """
        super().save_pretrained(save_directory, *args, **{"save_original_format": False, **kwargs})

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, VideoCLIPTemporalTransformer):
            initialization.normal_(module.position_embedding.weight, std=_POSITION_STD)
            init_linears(module)
        elif isinstance(module, (VideoCLIPModel, VideoCLIPForVideoClassification)):
            init_clip_projections(module)
            if module.joint_position_embedding is not None:
                initialization.zeros_(module.joint_position_embedding)
            if isinstance(module, VideoCLIPForVideoClassification):
                init_linears(module.classifier)


class VideoCLIPTemporalTransformer(VideoCLIPPreTrainedModel):
    """Pre-norm blocks over the frames of a video, with a residual from before them (Text4Vis `video_clip.py`)."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)  # a `CLIPVisionConfig`, see `_temporal_config`
        self.position_embedding = nn.Embedding(_FRAME_POSITIONS, config.hidden_size)
        self.encoder = stock.CLIPEncoder(config)
        self.post_init()

    def forward(self, frames: torch.Tensor, frame_mask: torch.Tensor | None = None) -> torch.Tensor:
        """Frame features (B, T, C) that have seen each other, of (B, T, C); frame_mask (B, T) is 0 at padding.

        The positions are a table, whose first T rows a clip gets; clips of more than 77 frames stretch it.
        """
        table: Any = self.position_embedding.weight.unsqueeze(0)  # (1, 77, C)
        positions = interpolate_temporal_positions(table, frames.shape[1], frame_mask, only_stretch=True)
        mask = frame_attention_mask(self.config, frames, frame_mask)
        return frames + self.encoder(frames + positions, attention_mask=mask).last_hidden_state


class VideoCLIPVideoMixin(FreezesItselfMixin, VideoMixin):
    """The video side: image tower, projection, and pooling over frames."""

    config: Any
    temporal_transformer: Any
    joint_position_embedding: Any

    def _add_video_side(self, config: Any) -> None:
        vision = config.vision_config
        self.vision_model = _image_tower(vision)
        self.visual_projection = nn.Linear(vision.hidden_size, config.projection_dim, bias=False)
        self.temporal_transformer = None
        self.joint_position_embedding = None
        if config.temporal_pooling == "transformer":
            self.temporal_transformer = VideoCLIPTemporalTransformer(_temporal_config(config))
        elif config.temporal_pooling == "joint":
            self.joint_position_embedding = nn.Parameter(torch.empty(1, config.num_frames, vision.hidden_size))

    @classmethod
    def from_clip(cls: Any, clip: str | os.PathLike[str] | Any, *, num_frames: int = 8, **overrides: Any) -> Any:
        """A VideoCLIP whose towers are a CLIP's.

        Args:
            clip: a CLIP repository or folder, a `CLIPModel` (weights are copied), or a `CLIPConfig` (random weights).
            num_frames: T, frames per clip in training.
            overrides: other fields of [`VideoCLIPConfig`], such as `temporal_pooling`.

        Raises:
            TypeError: for another kind of `clip`.
            RuntimeError: if a weight of the CLIP has no place here, or one of our CLIP weights is not in it.
        """
        if isinstance(clip, CLIPConfig) and clip.model_type == "clip":  # a VideoCLIPConfig is a CLIPConfig too
            return cls(VideoCLIPConfig.from_clip_config(clip, num_frames=num_frames, **overrides))
        clip = load_clip(clip)
        model: Any = cls(VideoCLIPConfig.from_clip_config(clip.config, num_frames=num_frames, **overrides))
        model.to(clip.dtype)
        load_clip_weights(model, clip.state_dict())
        return model

    @classmethod
    def from_towers(
        cls: Any,
        vision: str | os.PathLike[str] | Any,
        clip: str | os.PathLike[str] | Any = None,
        *,
        num_frames: int = 8,
        **overrides: Any,
    ) -> Any:
        """A VideoCLIP on another image tower than CLIP's, e.g. one trained on ImageNet, with a CLIP's text tower.

        Args:
            vision: a ViT of transformers: a repository or folder, a model (weights are copied), or a configuration
                (random weights). What it has beside the class token after its last norm is left out.
            clip: as in [`from_clip`]; a classifier takes its joint width alone, and does without.
            num_frames: T, frames per clip in training.
            overrides: other fields of [`VideoCLIPConfig`], such as `temporal_pooling`.

        Raises:
            TypeError: for another kind of `vision` or `clip`.
            ValueError: for a tower without such a class token, and without a CLIP where texts are read.
            RuntimeError: if a weight of the towers has no place here, or one of ours is not in them.
        """
        if clip is None and issubclass(cls, VideoTextMixin):
            raise ValueError(f"{cls.__name__} reads class texts: name the CLIP whose text tower it gets, as clip=...")
        vision, vision_weights = _load_tower(vision)
        text_weights: Mapping[str, torch.Tensor] = {}
        if clip is not None and not isinstance(clip, CLIPConfig):
            clip = load_clip(clip)
            text_weights = clip.state_dict() if issubclass(cls, VideoTextMixin) else {}
            clip = clip.config
        model: Any = cls(VideoCLIPConfig.from_towers(vision, clip, num_frames=num_frames, **overrides))
        weights = {f"vision_model.{name}": value for name, value in vision_weights.items()}
        weights |= {name: value for name, value in text_weights.items() if not name.startswith("vis")}
        if weights:  # in their widest precision
            model.to(reduce(torch.promote_types, (value.dtype for value in weights.values())))
        given = {name.partition(".")[0] for name in weights}
        missing, unexpected = model.load_state_dict(weights, strict=False)
        missing = {name for name in missing if name.partition(".")[0] in given}
        require_all_weights(missing - model.new_parameter_names(), unexpected)
        return model

    @torch.no_grad()
    def set_num_frames(self, num_frames: int) -> None:
        """Makes `num_frames` the trained number: says so in the configuration, and interpolates joint positions.

        For training on with another number of frames; without it, positions are interpolated in every forward pass.

        Raises:
            huggingface_hub.errors.StrictDataclassError: if `num_frames` is below 1, or above it with "one_frame".
        """
        config = copy.copy(self.config)
        config.num_frames = num_frames
        config.validate()
        self.config = config
        old = self.joint_position_embedding
        if old is not None:
            positions = interpolate_temporal_positions(old, num_frames).clone()
            self.joint_position_embedding = nn.Parameter(positions, requires_grad=old.requires_grad)

    @property
    def can_encode_frames(self) -> bool:
        """Whether [`encode_frames`] is possible: in "joint", frames go through the image tower together."""
        return self.config.temporal_pooling != "joint"

    def _require_frames_apart(self) -> None:
        if not self.can_encode_frames:
            raise ValueError('temporal_pooling="joint" encodes all frames of a clip together; pass pixel_values.')

    def encode_frames(self, pixel_values: torch.Tensor, *, interpolate_pos_encoding: bool = False) -> torch.Tensor:
        """Features (B, T, C) of frames (B, T, 3, H, W), each by itself: `frame_features` of clips they are in.

        Raises:
            ValueError: for another shape, and with temporal_pooling="joint".
        """
        self._require_frames_apart()
        pixel_values = check_pixel_values(pixel_values, self.config.vision_config.num_channels)
        return self.visual_projection(self._class_tokens(pixel_values, None, interpolate_pos_encoding))

    @can_return_tuple
    def get_video_features(
        self,
        pixel_values: torch.Tensor | None = None,
        frame_mask: torch.Tensor | None = None,
        *,
        interpolate_pos_encoding: bool = False,
        frame_features: torch.Tensor | None = None,
    ) -> BaseModelOutputWithPooling:
        """The video embedding in `pooler_output` (B, C), not normalised, and its frames (B, T, C).

        Args: as in [`VideoCLIPModel.forward`].
        """
        if frame_features is None:
            frames = check_pixel_values(pixel_values, self.config.vision_config.num_channels)
        elif pixel_values is None:
            self._require_frames_apart()
            frames = check_frame_features(frame_features, ("B", "T", self.config.projection_dim))
        else:
            raise ValueError("pass the frames as pixel_values or as frame_features; both were given.")
        frames = without_padding(frames, frame_mask)
        if self.config.temporal_pooling == "one_frame":
            frames, frame_mask = _middle_frames(frames, frame_mask), None
        if frame_features is None:
            frames = self.visual_projection(self._class_tokens(frames, frame_mask, interpolate_pos_encoding))
        if self.temporal_transformer is not None:
            frames = self.temporal_transformer(frames, frame_mask)
        return BaseModelOutputWithPooling(last_hidden_state=frames, pooler_output=mean_over_frames(frames, frame_mask))

    def _class_tokens(
        self, pixel_values: torch.Tensor, frame_mask: torch.Tensor | None, interpolate_pos_encoding: bool
    ) -> torch.Tensor:
        """The class token of each frame after the image tower, (B, T, D), frames apart or together."""
        tower, num_frames = self.vision_model, pixel_values.shape[1]
        images = pixel_values.flatten(0, 1)  # (B*T, 3, H, W)
        if self.config.vision_config.model_type != CLIP_TOWER:
            features = _class_tokens_of_vit(tower, images, interpolate_pos_encoding)
            return features.unflatten(0, (-1, num_frames))
        if self.joint_position_embedding is None:
            features = tower(images, interpolate_pos_encoding=interpolate_pos_encoding).pooler_output
            return features.unflatten(0, (-1, num_frames))
        tokens = tower.embeddings(images, interpolate_pos_encoding=interpolate_pos_encoding)
        tokens = tokens.unflatten(0, (-1, num_frames))  # (B, T, 1+K, D)
        times = interpolate_temporal_positions(self.joint_position_embedding, num_frames, frame_mask)  # (1 or B, T, D)
        tokens = tower.pre_layrnorm(tokens + times.unsqueeze(2))
        hidden_states = tokens.flatten(1, 2)  # (B, T*(1+K), D)
        token_mask = None if frame_mask is None else frame_mask.repeat_interleave(tokens.shape[2], dim=1)
        mask = frame_attention_mask(self.config.vision_config, hidden_states, token_mask)
        hidden_states = tower.encoder(hidden_states, attention_mask=mask).last_hidden_state
        return tower.post_layernorm(hidden_states.unflatten(1, (num_frames, -1))[:, :, 0])

    def _new_parameters(self) -> list[nn.Parameter]:
        added = [] if self.temporal_transformer is None else list(self.temporal_transformer.parameters())
        if self.config.vision_config.model_type != CLIP_TOWER:
            added.append(self.visual_projection.weight)
        if self.joint_position_embedding is not None:
            added.append(self.joint_position_embedding)
        return [*super()._new_parameters(), *added]

    def _position_parameters(self) -> list[nn.Parameter]:
        own = [] if self.temporal_transformer is None else [self.temporal_transformer.position_embedding.weight]
        if self.joint_position_embedding is not None:
            own.append(self.joint_position_embedding)
        return [*super()._position_parameters(), *own]

    def _note(self, **train: bool | None) -> None:
        """Writes what is to be trained into the configuration, its own copy, where it is given."""
        self.config = copy.copy(self.config)
        for name, learns in train.items():
            if learns is not None:
                setattr(self.config, name, learns)


def _image_tower(config: Any) -> Any:
    """CLIP's image tower, or another ViT without what its class token does not need."""
    if config.model_type == CLIP_TOWER:
        return stock.CLIPVisionModel._from_config(config)
    tower = AutoModel.from_config(config)
    tower.pooler = None
    tower.embeddings.mask_token = None
    return tower


def _load_tower(vision: Any) -> tuple[Any, dict[str, torch.Tensor]]:
    """The configuration and the weights of a ViT, given by name, as a model, or as a configuration without weights."""
    if isinstance(vision, PreTrainedConfig):
        return vision, {}
    left_over: list[str] = []
    if isinstance(vision, (str, os.PathLike)):
        loaded: Any = AutoModel.from_pretrained(vision, output_loading_info=True)
        vision, report = loaded
        require_image_tower(vision.config.model_type)
        missing = {name for name in report["missing_keys"] if not _UNUSED_PARTS.search(name)}
        left_over = [name for name in report["unexpected_keys"] if not _UNUSED_PARTS.search(name)]
        require_all_weights(missing, left_over)
    if not isinstance(vision, PreTrainedModel):
        raise TypeError(f"vision must be a name, a folder, a configuration or a ViT; got {type(vision).__name__}.")
    vision = vision.base_model  # of an image classifier its tower
    weights = {name: value for name, value in vision.state_dict().items() if not _UNUSED_PARTS.search(name)}
    return vision.config, weights


def _class_tokens_of_vit(tower: Any, images: torch.Tensor, interpolate_pos_encoding: bool) -> torch.Tensor:
    """The class token (R, D) after the last norm of each image (R, 3, H, W).

    Raises:
        ValueError: for images of another size than the trained one, unless positions are to be interpolated.
    """
    config = tower.config
    if config.model_type in _SIZED_TOWERS:
        return tower(images, interpolate_pos_encoding=interpolate_pos_encoding).last_hidden_state[:, 0]
    size, (height, width) = config.image_size, images.shape[-2:]
    trained = (size, size) if isinstance(size, int) else tuple(size)
    if not interpolate_pos_encoding and (height, width) != trained:
        raise ValueError(f"Input image size ({height}*{width}) doesn't match model ({trained[0]}*{trained[1]}).")
    return tower(images).last_hidden_state[:, 0]


def _middle_frames(frames: torch.Tensor, frame_mask: torch.Tensor | None) -> torch.Tensor:
    """The middle frame of each clip (B, T, ...), of those that are not padding: (B, 1, ...)."""
    if frame_mask is None:
        middle = frames.shape[1] // 2
        return frames[:, middle : middle + 1]
    counts = frame_mask.bool().cumsum(dim=1)  # (B, T)
    middles = (counts == counts[:, -1:] // 2 + 1).int().argmax(dim=1)  # (B,): the first of the equal ones is a frame
    rows = torch.arange(len(middles), device=middles.device)
    return frames[rows, middles].unsqueeze(1)


def _temporal_config(config: Any) -> Any:
    """The configuration of the blocks over frames, which work at the joint width."""
    vision = config.vision_config
    if vision.model_type != CLIP_TOWER:  # other ViTs call its fields otherwise
        template: Any = configuration_clip.CLIPVisionConfig(dtype=vision.dtype)
        template._attn_implementation = vision._attn_implementation
        vision = template
    temporal = copy.deepcopy(vision)
    temporal.hidden_size = config.projection_dim
    temporal.intermediate_size = 4 * config.projection_dim
    temporal.num_hidden_layers = config.temporal_num_layers
    temporal.num_attention_heads = config.temporal_num_attention_heads
    temporal.hidden_act = "quick_gelu"
    temporal.layer_norm_eps = _TEMPORAL_NORM_EPS
    return temporal


class VideoCLIPModel(VideoTextMixin, VideoCLIPVideoMixin, VideoCLIPPreTrainedModel):
    """CLIP on videos: cosine similarity of pooled frames and class texts.

    What the configuration says is not trained is frozen from the start.

    Example:
        >>> import torch
        >>> one_layer = {"num_hidden_layers": 1}
        >>> model = VideoCLIPModel(VideoCLIPConfig(text_config=one_layer, vision_config=one_layer))
        >>> bank = model.encode_texts(torch.tensor([[0, 320, 2], [0, 539, 2]]), names=["run", "jump"])
        >>> model(pixel_values=torch.zeros(1, 4, 3, 224, 224), text_bank=bank).logits_per_video.shape
        torch.Size([1, 2])
    """

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.text_model = stock.CLIPTextModel._from_config(config.text_config)
        self._add_video_side(config)
        self.text_projection = nn.Linear(config.text_config.hidden_size, config.projection_dim, bias=False)
        self.logit_scale = nn.Parameter(torch.tensor(config.logit_scale_init_value))
        self.post_init()
        self.set_trainable()

    def set_trainable(
        self, *, text: bool | None = None, vision: bool | None = None, logit_scale: bool | None = None
    ) -> None:
        """Says which parts of CLIP learn, as the configuration does where it is not given; new modules always do.

        The configuration keeps what was said.

        Args:
            text: the text tower; its token embeddings never learn (ViFi-CLIP).
            vision: the image tower.
            logit_scale: the temperature.
        """
        self._note(train_text=text, train_vision=vision, train_logit_scale=logit_scale)
        config = self.config
        self._let_learn(text=config.train_text, vision=config.train_vision, logit_scale=config.train_logit_scale)
        self.text_model.embeddings.token_embedding.requires_grad_(False)

    @can_return_tuple
    def get_text_features(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None = None
    ) -> BaseModelOutputWithPooling:
        """CLIP's projected text features in `pooler_output` (N, C), not normalised, of input_ids (N, L) int64."""
        outputs = self.text_model(input_ids=input_ids, attention_mask=attention_mask)
        outputs.pooler_output = self.text_projection(outputs.pooler_output)
        return outputs

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        pixel_values: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        interpolate_pos_encoding: bool = False,
        *,
        frame_mask: torch.Tensor | None = None,
        text_bank: TextBank | None = None,
        labels: torch.Tensor | None = None,
        frame_features: torch.Tensor | None = None,
    ) -> VideoCLIPOutput:
        """Logits of B videos over N class texts.

        Args:
            input_ids: (N, L) int64 class texts; or give `text_bank`.
            pixel_values: (B, T, 3, H, W) float, any T >= 1.
            attention_mask: (N, L), 0 at padding of the texts.
            interpolate_pos_encoding: take images of another size than the trained one.
            frame_mask: (B, T), 1 at frames and 0 at padding, for clips of different lengths.
            text_bank: class texts encoded by [`encode_texts`] of this model; results equal passing `input_ids`.
            labels: (B,) int64 class ids or (B, N) float probabilities; loss is the cross-entropy over class texts.
            frame_features: (B, T, C) of [`encode_frames`], instead of pixel_values.

        Raises:
            ValueError: for shapes that do not fit, for no class texts or two kinds of them, and for a bank of other
                text weights.
            TypeError: for labels of a wrong dtype.
        """
        video = self.get_video_features(
            pixel_values,
            frame_mask,
            interpolate_pos_encoding=interpolate_pos_encoding,
            frame_features=frame_features,
        ).pooler_output  # (B, C)
        text = self._class_texts(input_ids, attention_mask, text_bank).to(video)  # (N, C)
        video, text = (features / features.norm(dim=-1, keepdim=True) for features in (video, text))
        logits = self._scaled_cosine(video, text)
        return VideoCLIPOutput(
            loss=None if labels is None else classification_loss(logits, labels),
            logits_per_video=logits,
            logits_per_text=logits.T,
            text_embeds=text,
            video_embeds=video,
        )

    def score_features(self, video_features: torch.Tensor, text_bank: TextBank) -> torch.Tensor:
        """Logits (B, N) of video embeddings (B, C), such as the mean over views of what `get_video_features` gives."""
        self.check_text_bank(text_bank)
        text = text_bank.text_embeds.to(video_features)  # (N, C)
        video, text = (features / features.norm(dim=-1, keepdim=True) for features in (video_features, text))
        return self._scaled_cosine(video, text)

    def _scaled_cosine(self, video: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
        return self.logit_scale.exp() * video @ text.T  # (B, N), of (B, C) and (N, C) of unit length

    def _class_texts(
        self, input_ids: torch.Tensor | None, attention_mask: torch.Tensor | None, text_bank: TextBank | None
    ) -> torch.Tensor:
        """Text features (N, C) from tokens or from a bank."""
        check_text_source(input_ids, text_bank)
        if text_bank is not None:
            self.check_text_bank(text_bank)
            return text_bank.text_embeds
        return self.get_text_features(input_ids, attention_mask).pooler_output


class VideoCLIPForVideoClassification(VideoClassificationMixin, VideoCLIPVideoMixin, VideoCLIPPreTrainedModel):
    """The video side of [`VideoCLIPModel`] with one linear layer instead of class texts (X-CLIP supplement, Table 4).

    `config.num_labels` classes. The layer reads what the text side would: the pooled, projected features, not
    normalised, which the supplement leaves open.

    Example:
        >>> import torch
        >>> config = VideoCLIPConfig(vision_config={"num_hidden_layers": 1}, num_labels=5)
        >>> model = VideoCLIPForVideoClassification(config)
        >>> model(pixel_values=torch.zeros(1, 4, 3, 224, 224)).logits.shape
        torch.Size([1, 5])
    """

    input_modalities = ("video",)  # type: ignore[assignment]

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self._add_video_side(config)
        self.classifier = nn.Linear(config.projection_dim, config.num_labels)
        self.post_init()
        self.set_trainable()

    def set_trainable(
        self, *, text: bool | None = None, vision: bool | None = None, logit_scale: bool | None = None
    ) -> None:
        """Says whether the image tower learns, as the configuration does when not given; the rest always does.

        Raises:
            ValueError: if text or logit scale are to learn: there are none.
        """
        self._refuse_text(text, logit_scale)
        self._note(train_vision=vision)
        self._let_learn(vision=self.config.train_vision)

    @can_return_tuple
    def forward(
        self,
        pixel_values: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        *,
        frame_mask: torch.Tensor | None = None,
        interpolate_pos_encoding: bool = False,
    ) -> ImageClassifierOutput:
        """Loss, with labels, and logits (B, num_labels).

        Args: as in [`VideoCLIPModel.forward`].

        Raises:
            ValueError: for shapes that do not fit.
            TypeError: for labels of a wrong dtype.
        """
        video = self.get_video_features(
            pixel_values, frame_mask, interpolate_pos_encoding=interpolate_pos_encoding
        ).pooler_output
        return self._classify(video, labels)


VideoCLIPModel.register_for_auto_class("AutoModel")
VideoCLIPForVideoClassification.register_for_auto_class("AutoModelForVideoClassification")
