"""MoTED: two frozen CLIP towers, a motion encoder beside the image tower, and motion descriptions beside class names.

kinetext: https://github.com/kinetext/kinetext. This file is saved beside each checkpoint as remote code.

MoTED: "Enhanced Motion-Text Alignment for Image-to-Video Transfer Learning", CVPR 2024. No code was published; what the
paper leaves open is decided here and listed in the README of this folder.

    pixel_values (B,aT,3,H,W)
      |- every a-th frame -> image tower (frozen) -> frame features (B,T,C) -----------> video fusion -> v (B,C)
      |                         | class tokens X of each layer (B,T,D)                        ^
      '- all frames -> 3D stem -> L temporal blocks -> motion tokens (B,T,K,W) -> (B,T,C) ----+-> mean -> m (B,C)
    class names (N,L) ---------------> text tower (frozen) -> (N,C) ----------------> text fusion -> e' (N,C)
    descriptions (N,k+1,L) ----------> text tower (frozen) -> (N,k+1,C) -> text motion adapter --+-> mean -> t (N,C)

    video logits = s cos(v, e'), motion logits = s cos(m, t), loss = cross-entropy of both (paper Eq. 3-5)

Legend: B videos, T sparse frames, a motion frame ratio, K patches, D image width, W motion width, C joint width,
N classes, k discriminative descriptions, L tokens of a text or layers of the image tower, G = T * K motion tokens,
M keys left after merging.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import CLIPConfig, initialization
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.clip import modeling_clip as stock
from transformers.utils.generic import ModelOutput, can_return_tuple

from .configuration_moted import MotedConfig
from .modeling_video_text import (
    FreezesItselfMixin,
    PreTrainedMixin,
    TextBank,
    VideoTextMixin,
    check_class_texts,
    check_frame_features,
    check_pixel_values,
    classification_loss,
    init_clip_projections,
    interpolate_temporal_positions,
    load_clip,
    load_clip_weights,
)
from .token_merging import merge_keys_values

_STEM_STD = 0.02


@dataclass
class MotedOutput(ModelOutput):
    """What [`MotedModel`] returns.

    Attributes:
        loss: scalar, with `labels`: cross-entropy of video logits plus that of motion logits.
        logits_per_video: (B, N), which of the next two `config.inference_logits` says, or their sum.
        video_logits_per_video: (B, N), s cos(v, e').
        motion_logits_per_video: (B, N), s cos(m, t).
        logits_per_text: (N, B), the transpose of `logits_per_video`.
        video_embeds: (B, C), v of unit length.
        text_embeds: (N, C), e' of unit length.
        motion_embeds: (B, C), m of unit length.
        motion_text_embeds: (N, C), t of unit length.
    """

    loss: torch.Tensor | None = None
    logits_per_video: torch.Tensor | None = None
    video_logits_per_video: torch.Tensor | None = None
    motion_logits_per_video: torch.Tensor | None = None
    logits_per_text: torch.Tensor | None = None
    video_embeds: torch.Tensor | None = None
    text_embeds: torch.Tensor | None = None
    motion_embeds: torch.Tensor | None = None
    motion_text_embeds: torch.Tensor | None = None


class MotedAttention(nn.Module):
    """Multi-head attention from queries to keys, by the attention function of the configuration."""

    is_causal = False

    def __init__(self, config: Any, width: int, num_heads: int) -> None:
        super().__init__()
        self.config = config
        self.num_heads = num_heads
        self.scaling = (width // num_heads) ** -0.5
        self.q_proj = nn.Linear(width, width)
        self.k_proj = nn.Linear(width, width)
        self.v_proj = nn.Linear(width, width)
        self.out_proj = nn.Linear(width, width)

    def forward(
        self, queries: torch.Tensor, keys: torch.Tensor, bias: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """(B, Q, width) from queries (B, Q, width) and keys (B, S, width), and the weights (B, h, Q, S) where eager.

        Args:
            queries: what asks.
            keys: what is attended to; values are made of it too.
            bias: (B, S) float, added to the logits of each key.
        """
        return self.attend(self.heads(self.q_proj(queries)), *self.keys_and_values(keys), bias)

    def keys_and_values(self, hidden_states: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys and values, each (B, h, S, d)."""
        return self.heads(self.k_proj(hidden_states)), self.heads(self.v_proj(hidden_states))

    def heads(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """(B, S, h*d) -> (B, h, S, d)."""
        return hidden_states.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)

    def attend(
        self, queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, bias: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """The attention itself, of (B, h, ·, d); as [`forward`]."""
        function = ALL_ATTENTION_FUNCTIONS.get_interface(
            self.config._attn_implementation, stock.eager_attention_forward
        )
        mask = None if bias is None else bias.to(queries.dtype)[:, None, None, :]  # (B, 1, 1, S)
        output, weights = function(self, queries, keys, values, mask, scaling=self.scaling)
        return self.out_proj(output.flatten(2)), weights  # (B, Q, h, d) -> (B, Q, width)


class MotedLocalMotion(MotedAttention):
    """Joint space-time self-attention over all motion tokens with merged keys and values (paper §3.3.2, LME).

    Queries stay unmerged, so T * K tokens come out as Eq. 2 says, and the cost grows linearly with T.
    """

    def forward(  # type: ignore[override]
        self, hidden_states: torch.Tensor, num_frames: int = 1
    ) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None]:
        """One attention.

        Args:
            hidden_states: (B, G, W), frame after frame.
            num_frames: T.

        Returns:
            (B, G, W), the weights (B, h, G, M) where attention is eager, and for each token the key it was merged
            into (B, G) int64, or None where nothing was merged.
        """
        keys, values, sizes, merged_into = merge_keys_values(
            *self.keys_and_values(hidden_states), self.config.motion_max_key_tokens, num_frames=num_frames
        )
        bias = None if sizes is None else sizes.log()  # a key that stands for s tokens counts s times
        output, weights = self.attend(self.heads(self.q_proj(hidden_states)), keys, values, bias)
        return output, weights, merged_into


class MotedTemporalBlock(GradientCheckpointingLayer):
    """Local motion, global motion, and the integration of both (paper §3.3.2, Eq. 2): residual, no feed-forward."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        vision = config.vision_config
        width, num_heads, eps = config.motion_hidden_size, config.motion_num_attention_heads, vision.layer_norm_eps
        self.local_layernorm = nn.LayerNorm(width, eps=eps)
        self.local_motion = MotedLocalMotion(config, width, num_heads)
        self.class_layernorm = nn.LayerNorm(vision.hidden_size, eps=eps)
        self.class_projection = nn.Linear(vision.hidden_size, width)
        self.global_layernorm = nn.LayerNorm(width, eps=eps)
        self.global_motion = MotedAttention(config, width, num_heads)
        self.query_layernorm = nn.LayerNorm(width, eps=eps)
        self.key_layernorm = nn.LayerNorm(width, eps=eps)
        self.integration = MotedAttention(config, width, num_heads)

    def forward(
        self, hidden_states: torch.Tensor, class_tokens: torch.Tensor, temporal_positions: torch.Tensor
    ) -> torch.Tensor:
        """Motion tokens (B, G, W) after the block.

        Args:
            hidden_states: (B, G, W).
            class_tokens: (B, T, D) of the image layer below.
            temporal_positions: (1, T, W), without which the frames of global motion would have no order.
        """
        num_frames = class_tokens.shape[1]
        hidden_states = hidden_states + self.local_motion(self.local_layernorm(hidden_states), num_frames)[0]
        frames = self.class_projection(self.class_layernorm(class_tokens)) + temporal_positions  # (B, T, W)
        normed = self.global_layernorm(frames)
        frames = frames + self.global_motion(normed, normed)[0]
        return hidden_states + self.integration(self.query_layernorm(hidden_states), self.key_layernorm(frames))[0]


class MotedMotionEncoder(nn.Module):
    """The motion stream beside the image tower: 3D stem and one temporal block per image layer (paper §3.3.2)."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        vision = config.vision_config
        width, patch = config.motion_hidden_size, vision.patch_size
        kernel = (config.motion_frame_ratio, patch, patch)
        self.grid = (vision.image_size // patch, vision.image_size // patch)
        self.stem = nn.Conv3d(vision.num_channels, width, kernel_size=kernel, stride=kernel)
        self.spatial_position_embedding = nn.Parameter(torch.empty(1, self.grid[0] * self.grid[1], width))
        self.temporal_position_embedding = nn.Parameter(torch.empty(1, config.num_frames, width))
        self.blocks = nn.ModuleList([MotedTemporalBlock(config) for _ in range(vision.num_hidden_layers)])
        self.layernorm = nn.LayerNorm(width, eps=vision.layer_norm_eps)

    def forward(self, pixel_values: torch.Tensor, class_tokens: list[torch.Tensor]) -> torch.Tensor:
        """Motion tokens (B, T, K, W), normalised.

        Args:
            pixel_values: (B, aT, 3, H, W).
            class_tokens: X^(0) to X^(L-1), each (B, T, D).
        """
        tokens = self.stem(pixel_values.to(self.stem.weight.dtype).transpose(1, 2))  # (B, W, T, H/P, W/P)
        num_frames, *grid = tokens.shape[2:]
        tokens = tokens.flatten(3).permute(0, 2, 3, 1)  # (B, T, K, W)
        times = interpolate_temporal_positions(self.temporal_position_embedding, num_frames)  # (1, T, W)
        tokens = tokens + self._spatial_positions((grid[0], grid[1])).unsqueeze(1) + times.unsqueeze(2)
        hidden_states = tokens.flatten(1, 2)  # (B, T*K, W)
        for block, classes in zip(self.blocks, class_tokens, strict=True):
            hidden_states = block(hidden_states, classes, times)
        return self.layernorm(hidden_states).unflatten(1, (num_frames, -1))  # (B, T, K, W)

    def _spatial_positions(self, grid: tuple[int, int]) -> torch.Tensor:
        """(1, K, W) for a grid of patches, by bicubic interpolation as CLIP's own positions are."""
        positions = self.spatial_position_embedding
        if grid == self.grid:
            return positions
        image = positions.unflatten(1, self.grid).permute(0, 3, 1, 2)  # (1, W, h, w)
        image = nn.functional.interpolate(image, size=grid, mode="bicubic", align_corners=False)
        return image.flatten(2).transpose(1, 2)


class MotedSerialAdapter(nn.Module):
    """One dynamic module of the serial motion encoder: a temporal block at width W inside the image tower."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        image_width, width = config.vision_config.hidden_size, config.motion_hidden_size
        self.layernorm = nn.LayerNorm(image_width, eps=config.vision_config.layer_norm_eps)
        self.down_projection = nn.Linear(image_width, width)
        self.block = MotedTemporalBlock(config)
        self.up_projection = nn.Linear(width, image_width)

    def forward(self, hidden_states: torch.Tensor, temporal_positions: torch.Tensor) -> torch.Tensor:
        """Tokens of the image tower (B, T, 1+K, D) with motion added to the patches; the class token is left alone."""
        class_tokens, patches = hidden_states[:, :, :1], hidden_states[:, :, 1:]
        tokens = self.down_projection(self.layernorm(patches)) + temporal_positions.unsqueeze(2)  # (B, T, K, W)
        motion = self.block(tokens.flatten(1, 2), class_tokens.squeeze(2), temporal_positions)  # (B, T*K, W)
        patches = patches + self.up_projection(motion).view_as(patches)
        return torch.cat([class_tokens, patches], dim=2)


class MotedSerialMotionEncoder(nn.Module):
    """The "no encoder" of Table 3b: dynamic modules between the blocks of the image tower, one representation."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.temporal_position_embedding = nn.Parameter(torch.empty(1, config.num_frames, config.motion_hidden_size))
        self.adapters = nn.ModuleList(
            [MotedSerialAdapter(config) for _ in range(config.vision_config.num_hidden_layers)]
        )

    def forward(self, hidden_states: torch.Tensor, layer: int, num_frames: int) -> torch.Tensor:
        """Input of image layer number `layer`: (B*T, 1+K, D) with the motion of the adapter before it."""
        times = interpolate_temporal_positions(self.temporal_position_embedding, num_frames)  # (1, T, W)
        clips = hidden_states.unflatten(0, (-1, num_frames))  # (B, T, 1+K, D)
        return self.adapters[layer](clips, times).flatten(0, 1)


class MotedFusion(nn.Module):
    """x + attention of x to keys, pre-LayerNorm; starts as the identity, its output projection at zero.

    Text motion adapter (keys are x itself), text fusion and video fusion (paper §3.2, §3.4).
    """

    def __init__(self, config: Any, *, is_self: bool = False) -> None:
        super().__init__()
        width = config.projection_dim
        eps = config.vision_config.layer_norm_eps
        self.query_layernorm = nn.LayerNorm(width, eps=eps)
        self.key_layernorm = None if is_self else nn.LayerNorm(width, eps=eps)
        self.attention = MotedAttention(config, width, config.joint_num_attention_heads)

    def forward(
        self, queries: torch.Tensor, keys: torch.Tensor | None = None, mask: torch.Tensor | None = None
    ) -> torch.Tensor:
        """(B, Q, C) from queries (B, Q, C) and keys (B, S, C); mask (B, S) is False at keys that are not there."""
        normed = self.query_layernorm(queries)
        normed_keys = normed if self.key_layernorm is None else self.key_layernorm(keys)
        bias = None
        if mask is not None:
            bias = torch.zeros_like(mask, dtype=queries.dtype).masked_fill(~mask, torch.finfo(queries.dtype).min)
        return queries + self.attention(normed, normed_keys, bias)[0]


class MotedPreTrainedModel(PreTrainedMixin, stock.CLIPPreTrainedModel):
    """Initialisation: CLIP's modules as in transformers; attention Xavier-uniform; fusions start as the identity.

    Positions start as VideoMAE's sines and cosines, as large as the tokens: small models learn far sooner with them
    than with random ones (docs/log.md).
    """

    config_class = MotedConfig
    base_model_prefix = "moted"
    main_input_name = "pixel_values"
    input_modalities = ("video", "text")
    _no_split_modules = [*stock.CLIPPreTrainedModel._no_split_modules, "MotedTemporalBlock", "MotedSerialAdapter"]
    _supports_flash_attn = False  # it takes no bias on single keys, which merged keys need
    _supports_flex_attn = False

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, MotedAttention):
            for projection in (module.q_proj, module.k_proj, module.v_proj, module.out_proj):
                _init_linear(projection)
        elif isinstance(module, MotedTemporalBlock):
            _init_linear(module.class_projection)
        elif isinstance(module, MotedMotionEncoder):
            stem: Any = module.stem
            initialization.trunc_normal_(stem.weight, std=_STEM_STD)
            initialization.zeros_(stem.bias)
            initialization.copy_(module.spatial_position_embedding, _spatial_waves(module.grid, stem.out_channels))
            _init_temporal_positions(module)
        elif isinstance(module, MotedSerialMotionEncoder):
            _init_temporal_positions(module)
        elif isinstance(module, MotedSerialAdapter):
            _init_linear(module.down_projection)
            initialization.zeros_(module.up_projection.weight)
            initialization.zeros_(module.up_projection.bias)
        elif isinstance(module, MotedFusion):
            initialization.zeros_(module.attention.out_proj.weight)
        elif isinstance(module, MotedModel):
            init_clip_projections(module)
            if module.motion_projection is not None:
                _init_linear(module.motion_projection)


def _init_linear(linear: Any) -> None:
    initialization.xavier_uniform_(linear.weight)
    initialization.zeros_(linear.bias)


def _init_temporal_positions(encoder: Any) -> None:
    num_frames, width = encoder.temporal_position_embedding.shape[1:]
    initialization.copy_(encoder.temporal_position_embedding, _waves(num_frames, width).unsqueeze(0))


def _spatial_waves(grid: tuple[int, int], width: int) -> torch.Tensor:
    """(1, K, W): the waves of the row in one half of the channels, those of the column in the other."""
    rows, columns = _waves(grid[0], width // 2), _waves(grid[1], width - width // 2)
    rows, columns = rows[:, None].expand(-1, grid[1], -1), columns[None].expand(grid[0], -1, -1)  # (h, w, ·)
    return torch.cat([rows, columns], dim=-1).flatten(0, 1).unsqueeze(0)


def _waves(num_positions: int, width: int) -> torch.Tensor:
    """(n, width): sines and cosines of geometrically growing periods, as large as the tokens they are added to."""
    num_periods = (width + 1) // 2
    frequencies = 10000.0 ** (-torch.arange(num_periods) / num_periods)
    angles = torch.arange(num_positions)[:, None] * frequencies
    return torch.cat([angles.sin(), angles.cos()], dim=1)[:, :width]


class MotedModel(FreezesItselfMixin, VideoTextMixin, MotedPreTrainedModel):
    """MoTED: logits of videos over classes that are given by their names and by descriptions of their motion.

    Both CLIP towers are frozen: no gradient reaches them, and the image tower stores nothing for a backward pass.

    Example:
        >>> import torch
        >>> one_layer = {"num_hidden_layers": 1}
        >>> model = MotedModel(MotedConfig(text_config=one_layer, vision_config=one_layer)).eval()
        >>> names, descriptions = torch.tensor([[0, 320, 2], [0, 539, 2]]), torch.full((2, 3, 5), 7)
        >>> bank = model.encode_texts(names, description_input_ids=descriptions, names=["run", "jump"])
        >>> model(pixel_values=torch.zeros(1, 8, 3, 224, 224), text_bank=bank).logits_per_video.shape
        torch.Size([1, 2])
    """

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.text_model = stock.CLIPTextModel._from_config(config.text_config)
        self.vision_model = stock.CLIPVisionModel._from_config(config.vision_config)
        width = config.projection_dim
        self.visual_projection = nn.Linear(config.vision_config.hidden_size, width, bias=False)
        self.text_projection = nn.Linear(config.text_config.hidden_size, width, bias=False)
        self.logit_scale = nn.Parameter(torch.tensor(config.logit_scale_init_value))

        is_parallel = config.motion_encoder == "parallel"
        self.motion_encoder: Any = None
        if is_parallel:
            self.motion_encoder = MotedMotionEncoder(config)
        elif config.motion_encoder == "serial":
            self.motion_encoder = MotedSerialMotionEncoder(config)
        self.motion_projection: Any = nn.Linear(config.motion_hidden_size, width) if is_parallel else None
        self.video_fusion = MotedFusion(config) if is_parallel and config.fuse_video else None
        self.text_adapter = MotedFusion(config, is_self=True) if config.use_text_adapter else None
        self.text_fusion = MotedFusion(config) if config.fuse_text else None
        self._towers_record_gradients = False
        self.post_init()
        self.set_trainable()

    @classmethod
    def from_clip(cls, clip: str | os.PathLike[str] | Any, *, num_frames: int = 8, **overrides: Any) -> MotedModel:
        """A MoTED whose towers are a CLIP's; at the start its video logits are those of mean-pooled frozen CLIP.

        Args:
            clip: a CLIP repository or folder, a `CLIPModel` (weights are copied), or a `CLIPConfig` (random weights).
            num_frames: T, sparse frames per clip in training.
            overrides: other fields of [`MotedConfig`], such as `motion_encoder`.

        Raises:
            TypeError: for another kind of `clip`.
            RuntimeError: if a weight of the CLIP has no place here, or one of our CLIP weights is not in it.
        """
        if isinstance(clip, CLIPConfig) and clip.model_type == "clip":  # a MotedConfig is a CLIPConfig too
            return cls(MotedConfig.from_clip_config(clip, num_frames=num_frames, **overrides))
        clip = load_clip(clip)
        model: Any = cls(MotedConfig.from_clip_config(clip.config, num_frames=num_frames, **overrides))
        model.to(clip.dtype)
        load_clip_weights(model, clip.state_dict())
        return model

    def train(self, mode: bool = True) -> MotedModel:
        """As in the base class, but the frozen towers stay in evaluation mode: their dropout is never on."""
        super().train(mode)
        for tower in self._towers():
            tower.eval()
        return self

    @torch.no_grad()
    def set_num_frames(self, num_frames: int) -> None:
        """Makes `num_frames` (T) the trained number: interpolates the temporal positions and says so in the config.

        For training on with another number of frames; without it, positions are interpolated in every forward pass.

        Raises:
            ValueError: if `num_frames` is below 1.
        """
        if num_frames < 1:
            raise ValueError(f"num_frames={num_frames} must be at least 1.")
        if self.motion_encoder is not None:
            old = self.motion_encoder.temporal_position_embedding
            positions = interpolate_temporal_positions(old, num_frames).clone()
            self.motion_encoder.temporal_position_embedding = nn.Parameter(positions, requires_grad=old.requires_grad)
        self.config.num_frames = num_frames

    def set_trainable(
        self, *, text: bool | None = None, vision: bool | None = None, logit_scale: bool | None = None
    ) -> None:
        """Says which parts of CLIP learn: of MoTED only the logit scale, unless it is False.

        Raises:
            ValueError: if a tower is to learn.
        """
        for name, tower, learns in (("train_text", "text", text), ("train_vision", "image", vision)):
            if learns:
                raise ValueError(f"the {tower} tower of MoTED stays frozen; leave {name} out.")
        self._let_learn(text=False, vision=False, logit_scale=logit_scale is not False)

    def _new_parameters(self) -> list[nn.Parameter]:
        modules = (self.motion_encoder, self.motion_projection, self.video_fusion, self.text_adapter, self.text_fusion)
        return [parameter for module in modules if module is not None for parameter in module.parameters()]

    def _position_parameters(self) -> list[nn.Parameter]:
        names = ("spatial_position_embedding", "temporal_position_embedding")  # a serial encoder has no spatial ones
        own = [getattr(self.motion_encoder, name, None) for name in names]
        return [*super()._position_parameters(), *(positions for positions in own if positions is not None)]

    @contextlib.contextmanager
    def gradients_through_towers(self) -> Iterator[None]:
        """Lets gradients pass through both towers to their attention maps and inputs: for explanations, not training.

        The text tower then has to run, so class texts come as tokens, not as a [`TextBank`].
        """
        before = self._towers_record_gradients
        self._towers_record_gradients = True
        try:
            yield
        finally:
            self._towers_record_gradients = before

    @can_return_tuple
    def get_text_features(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None = None
    ) -> BaseModelOutputWithPooling:
        """CLIP's projected text features in `pooler_output` (N, C), not normalised, of input_ids (N, L) int64."""
        with self._tower_gradients():
            outputs = self.text_model(input_ids=input_ids, attention_mask=attention_mask)
            outputs.pooler_output = self.text_projection(outputs.pooler_output)
        return outputs

    @property
    def can_encode_frames(self) -> bool:
        """Whether [`encode_frames`] is possible: the serial motion encoder stands inside the image tower."""
        return self.config.motion_encoder != "serial"

    def encode_frames(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """What the image tower says of frames (B, T, 3, H, W), each by itself: `frame_features` of clips they are in.

        Returns:
            (B, T, F), F = C + L*D: the projected features, and X^(0) to X^(L-1).

        Raises:
            ValueError: for another shape, and with motion_encoder="serial".
        """
        self._require_frames_apart()
        vision: Any = self.config.vision_config
        with self._tower_gradients():
            frames, class_tokens = self._encode_frames(check_pixel_values(pixel_values, vision.num_channels))
        return torch.cat([frames, *class_tokens], dim=-1)

    def _require_frames_apart(self) -> None:
        if not self.can_encode_frames:
            raise ValueError('motion_encoder="serial" encodes the frames of a clip together; pass pixel_values alone.')

    def _unpacked(
        self, frame_features: torch.Tensor, batch_size: int, num_frames: int
    ) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """What [`encode_frames`] packed: projected features (B, T, C), and class tokens, each (B, T, D)."""
        self._require_frames_apart()
        vision: Any = self.config.vision_config
        sizes = [self.config.projection_dim, *[vision.hidden_size] * vision.num_hidden_layers]
        check_frame_features(frame_features, (batch_size, num_frames, sum(sizes)))
        frames, *class_tokens = frame_features.split(sizes, dim=-1)
        return frames, class_tokens

    @can_return_tuple
    def get_video_features(self, pixel_values: torch.Tensor) -> BaseModelOutputWithPooling:
        """The video embedding v in `pooler_output` (B, C), not normalised, and its frames (B, T, C).

        Args:
            pixel_values: (B, aT, 3, H, W), as in [`forward`].
        """
        frames, motion = self._encode_videos(pixel_values)
        frames = self._fused_frames(frames, motion)
        return BaseModelOutputWithPooling(last_hidden_state=frames, pooler_output=frames.mean(dim=1))

    @can_return_tuple
    def get_motion_features(self, pixel_values: torch.Tensor) -> BaseModelOutputWithPooling:
        """The motion embedding m in `pooler_output` (B, C), not normalised, and its frames (B, T, C).

        Without a parallel motion encoder there is one representation, and m is v.

        Args:
            pixel_values: (B, aT, 3, H, W), as in [`forward`].
        """
        frames, motion = self._encode_videos(pixel_values)
        frames = frames if motion is None else motion
        return BaseModelOutputWithPooling(last_hidden_state=frames, pooler_output=frames.mean(dim=1))

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        pixel_values: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        *,
        description_input_ids: torch.Tensor | None = None,
        description_attention_mask: torch.Tensor | None = None,
        text_bank: TextBank | None = None,
        labels: torch.Tensor | None = None,
        frame_mask: torch.Tensor | None = None,
        frame_features: torch.Tensor | None = None,
    ) -> MotedOutput:
        """Logits of B videos over N classes.

        Args:
            input_ids: (N, L) int64 class names; or give `text_bank`.
            pixel_values: (B, aT, 3, H, W) float, any T >= 1; a is `config.motion_frame_ratio`, and every a-th frame,
                from the first on, is what the image tower sees. H and W are multiples of the patch size.
            attention_mask: (N, L), 0 at padding.
            description_input_ids: (N, k+1, L) int64, the conceptual description of each class, then discriminative
                ones. Without any, the class name stands in as the only description.
            description_attention_mask: (N, k+1, L), 0 at padding, all 0 for a description that is not there.
            text_bank: class names and descriptions encoded by [`encode_texts`]; results equal passing the tokens.
            labels: (B,) int64 class ids or (B, N) float probabilities.
            frame_mask: refused: clips of one batch must have equal lengths here.
            frame_features: (B, T, F) of [`encode_frames`] of the sparse frames, pixel_values[:, ::a], encoded before;
                the image tower then does not run. The motion encoder reads pixel_values all the same.

        Raises:
            ValueError: for shapes that do not fit, for a frame_mask, for no class names or two kinds of them, for a
                class without any description that the configuration uses, and for a bank of other text weights.
            TypeError: for labels of a wrong dtype.
        """
        if frame_mask is not None:
            raise ValueError(
                'MoTED takes no frame_mask: pass clips of equal length, or one at a time with sampling="all".'
            )
        frames, motion = self._encode_videos(pixel_values, frame_features)  # (B, T, C), (B, T, C) or None
        video = self._fused_frames(frames, motion).mean(dim=1)  # (B, C)
        motion = video if motion is None else motion.mean(dim=1)  # (B, C)
        names, descriptions, mask = self._class_texts(
            input_ids, attention_mask, description_input_ids, description_attention_mask, text_bank
        )
        text, motion_text = self._class_embeddings(names.to(video), descriptions, mask)  # (N, C) each

        video, text, motion, motion_text = map(_unit, (video, text, motion, motion_text))
        scale = self.logit_scale.exp()
        video_logits = scale * video @ text.T  # (B, N)
        motion_logits = scale * motion @ motion_text.T  # (B, N)
        loss = None
        if labels is not None:
            loss = classification_loss(video_logits, labels) + classification_loss(motion_logits, labels)
        logits = {"video": video_logits, "motion": motion_logits, "sum": video_logits + motion_logits}
        logits_per_video = logits[self.config.inference_logits]
        return MotedOutput(
            loss=loss,
            logits_per_video=logits_per_video,
            video_logits_per_video=video_logits,
            motion_logits_per_video=motion_logits,
            logits_per_text=logits_per_video.T,
            video_embeds=video,
            text_embeds=text,
            motion_embeds=motion,
            motion_text_embeds=motion_text,
        )

    def _towers(self) -> tuple[nn.Module, ...]:
        """What is CLIP's and frozen."""
        return self.text_model, self.vision_model, self.visual_projection, self.text_projection

    def _tower_gradients(self) -> Any:
        return torch.set_grad_enabled(self._towers_record_gradients and torch.is_grad_enabled())

    def _encode_videos(
        self, pixel_values: torch.Tensor | None, frame_features: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Projected features of the sparse frames (B, T, C), and of their motion (B, T, C) where it is apart."""
        pixel_values = self._check_clips(pixel_values)
        sparse = pixel_values[:, :: self.config.motion_frame_ratio]  # (B, T, 3, H, W)
        if frame_features is not None:
            frames, class_tokens = self._unpacked(frame_features, *sparse.shape[:2])
        elif self.config.motion_encoder == "serial":
            return self._encode_frames(sparse)[0], None
        else:
            with self._tower_gradients():
                frames, class_tokens = self._encode_frames(sparse)
        if self.motion_encoder is None:
            return frames, None
        tokens = self.motion_encoder(pixel_values, class_tokens)  # (B, T, K, W)
        return frames, self.motion_projection(tokens.mean(dim=2))

    def _check_clips(self, pixel_values: torch.Tensor | None) -> torch.Tensor:
        vision: Any = self.config.vision_config
        pixel_values = check_pixel_values(pixel_values, vision.num_channels)
        ratio, patch = self.config.motion_frame_ratio, vision.patch_size
        num_frames, _, height, width = pixel_values.shape[1:]
        if num_frames % ratio:
            raise ValueError(
                f"pixel_values has {num_frames} frames, no multiple of motion_frame_ratio={ratio}: MoTED takes {ratio} "
                f"frames for each of T sparse ones. VideoTextProcessor(motion_frame_ratio={ratio}) makes them."
            )
        if height % patch or width % patch:
            raise ValueError(f"images of {height}x{width} pixels are not divisible by the patch size {patch}.")
        return pixel_values

    def _encode_frames(self, frames: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """Image tower, layer by layer, so that only class tokens are kept.

        Args:
            frames: (B, T, 3, H, W).

        Returns:
            Projected class tokens (B, T, C), and X^(0) to X^(L-1), the class tokens that enter each layer (B, T, D).
        """
        tower: Any = self.vision_model
        num_frames, _, height, width = frames.shape[1:]
        size = tower.config.image_size
        hidden_states = tower.embeddings(
            frames.flatten(0, 1), interpolate_pos_encoding=(height, width) != (size, size)
        )  # (B*T, 1+K, D)
        hidden_states = tower.pre_layrnorm(hidden_states)
        class_tokens = []
        for index, layer in enumerate(tower.encoder.layers):
            class_tokens.append(hidden_states[:, 0].unflatten(0, (-1, num_frames)))  # (B, T, D)
            if self.config.motion_encoder == "serial":
                hidden_states = self.motion_encoder(hidden_states, index, num_frames)
            hidden_states = layer(hidden_states, None)
        features = self.visual_projection(tower.post_layernorm(hidden_states[:, 0]))  # (B*T, C)
        return features.unflatten(0, (-1, num_frames)), class_tokens

    def _fused_frames(self, frames: torch.Tensor, motion: torch.Tensor | None) -> torch.Tensor:
        """Frame features (B, T, C) that have attended to the motion of all frames (paper §3.4)."""
        return frames if self.video_fusion is None else self.video_fusion(frames, motion)

    def _class_texts(
        self,
        input_ids: torch.Tensor | None,
        attention_mask: torch.Tensor | None,
        description_input_ids: torch.Tensor | None,
        description_attention_mask: torch.Tensor | None,
        bank: TextBank | None,
    ) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None]:
        """CLIP features of names (N, C) and used descriptions (N, k+1, C) or None, and which are there (or None)."""
        if bank is not None:
            tokens = (input_ids, attention_mask, description_input_ids, description_attention_mask)
            if any(tensor is not None for tensor in tokens):
                raise ValueError("pass the class texts as tokens or as text_bank; both were given.")
            self.check_text_bank(bank)
            return bank.text_embeds, *self._used(bank.description_embeds, bank.description_mask)
        if input_ids is None:
            raise ValueError("pass the class names as input_ids, or class texts as text_bank; neither was given.")
        check_class_texts(input_ids, description_input_ids, description_attention_mask)
        with self._tower_gradients():
            names = self.encode_rows(input_ids, attention_mask)
            descriptions, mask = self.encode_descriptions(description_input_ids, description_attention_mask)
        return names, *self._used(descriptions, mask)

    def _used(
        self, descriptions: torch.Tensor | None, mask: torch.Tensor | None
    ) -> tuple[torch.Tensor | None, torch.Tensor | None]:
        """The columns of descriptions (N, k+1, C) and mask (N, k+1) that the configuration uses (Table 3a)."""
        config: Any = self.config
        if descriptions is None or not config.uses_descriptions:
            return None, None
        columns = slice(0 if config.use_conceptual else 1, None if config.use_discriminative else 1)
        descriptions, mask = descriptions[:, columns], None if mask is None else mask[:, columns]
        lacking: list[int] = []
        if mask is not None and not torch.compiler.is_compiling():
            lacking = (~mask.any(dim=1)).nonzero().flatten().tolist()
        if lacking or descriptions.shape[1] == 0:
            raise ValueError(
                f"the classes {lacking or 'all'} have no description left with use_conceptual={config.use_conceptual}, "
                f"use_discriminative={config.use_discriminative}; give each class one of that kind."
            )
        return descriptions, mask

    def _class_embeddings(
        self, names: torch.Tensor, descriptions: torch.Tensor | None, mask: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Embeddings e' and t, (N, C) each, from CLIP features of class names and descriptions (paper §3.2, §3.4)."""
        names = _unit(names).unsqueeze(1)  # (N, 1, C)
        if descriptions is None:  # the name is its only description
            descriptions = names
        descriptions, mask = _unit(descriptions.to(names)), None if mask is None else mask.to(names.device)
        if self.text_adapter is not None:
            descriptions = self.text_adapter(descriptions, mask=mask)  # (N, k+1, C)
        if self.text_fusion is not None:
            names = self.text_fusion(names, descriptions, mask)  # (N, 1, C)
        if mask is None:
            return names.squeeze(1), descriptions.mean(dim=1)
        weights = mask.to(descriptions.dtype) / mask.sum(dim=1, keepdim=True).clamp(min=1)  # (N, k+1)
        return names.squeeze(1), torch.einsum("nk,nkc->nc", weights, descriptions)


def _unit(features: torch.Tensor) -> torch.Tensor:
    """Of unit length along the last dimension; 0, of a missing text, stays 0."""
    return nn.functional.normalize(features, dim=-1, eps=max(1e-12, torch.finfo(features.dtype).tiny))  # float16 > 0


MotedModel.register_for_auto_class("AutoModel")
