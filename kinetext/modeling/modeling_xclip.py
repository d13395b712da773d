"""X-CLIP for any number of frames, with class texts, labels and ragged clips, on top of transformers' own modules.

kinetext: https://github.com/kinetext/kinetext. This file is saved beside each checkpoint as remote code.

X-CLIP: "Expanding Language-Image Pretrained Models for General Video Recognition", ECCV 2022. State-dict keys are
transformers' keys and the mathematics at the trained frame count is transformers' own, so weights move both ways
without a converter. What differs: the frame count comes from the input, temporal position embeddings are
interpolated, drop path acts on all three residuals with a rising rate, new modules start as in the original code,
`labels` give a classification loss, and class texts can come from a [`TextBank`].

    pixel_values (B,T,3,H,W) -> vision tower, frames exchange messages
        class features (B,T,E) -> MIT -------------------> video embedding (B,E) ---------------+
        patch features (B,K,E), mean over T -> prompt generator --+                              +-> logits (B,N)
    input_ids (N,L) or TextBank -> text features (N,E) ----------> + alpha * prompt -> (B,N,E) --+

Legend: B videos, T frames, N classes, L tokens, K patches, D image width, E joint width.
"""

from __future__ import annotations

import copy
import functools
import logging
import os
import weakref
from typing import Any

import torch
from torch import nn
from transformers import CLIPConfig, initialization
from transformers.modeling_outputs import BaseModelOutputWithPooling, ImageClassifierOutput
from transformers.models.x_clip import modeling_x_clip as stock
from transformers.utils.generic import can_return_tuple

from .configuration_xclip import XCLIPConfig
from .modeling_video_text import (
    PreTrainedMixin,
    TextBank,
    VideoClassificationMixin,
    VideoMixin,
    VideoTextMixin,
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
    versions_of,
    without_padding,
)

logger = logging.getLogger(__name__)

# bank -> (what its queries were made with, queries (N, E)): follows from bank and weights, so it is never saved.
_queries_of_banks: weakref.WeakKeyDictionary[TextBank, tuple[Any, torch.Tensor]] = weakref.WeakKeyDictionary()

_POSITION_STD = 0.02  # of the MIT in the original code (VideoX code)
_FAR_EXTRAPOLATION = 4  # times the trained frame count, from which on we warn


class XCLIPPreTrainedModel(PreTrainedMixin, stock.XCLIPPreTrainedModel):
    """Initialisation: CLIP-named modules as in transformers, new modules as in the original code (VideoX code)."""

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, XCLIPVisionEncoderLayer):
            _init_message_modules(module)
        elif isinstance(module, XCLIPMultiframeIntegrationTransformer):
            initialization.trunc_normal_(module.position_embedding, std=_POSITION_STD)
            _init_mit_layers(module)
        elif isinstance(module, stock.XCLIPPromptGenerator):
            initialization.constant_(module.alpha, self.config.prompt_alpha)
            init_linears(module)
        elif isinstance(module, XCLIPModel):
            initialization.normal_(module.prompts_visual_projection)
            initialization.constant_(module.logit_scale, self.config.logit_scale_init_value)
        elif isinstance(module, XCLIPForVideoClassification):
            init_clip_projections(module)
            init_linears(module.classifier)


def _init_attention_inputs(attention: Any) -> None:
    """Xavier-uniform of the fused (3D, D) input projection of `nn.MultiheadAttention`, for q, k and v apart."""
    width = attention.q_proj.in_features
    bound = (6 / (4 * width)) ** 0.5
    for projection in (attention.q_proj, attention.k_proj, attention.v_proj):
        initialization.uniform_(projection.weight, -bound, bound)
        initialization.zeros_(projection.bias)


def _init_message_modules(layer: Any) -> None:
    """PyTorch's defaults, as the original never calls its own initialisation of these."""
    _init_attention_inputs(layer.message_attn)
    for linear, has_zero_bias in ((layer.message_fc, False), (layer.message_attn.out_proj, True)):
        bound = linear.in_features**-0.5
        initialization.uniform_(linear.weight, -bound, bound)
        if has_zero_bias:
            initialization.zeros_(linear.bias)
        else:
            initialization.uniform_(linear.bias, -bound, bound)


def _init_mit_layers(mit: Any) -> None:
    init_linears(mit)
    for layer in mit.encoder.layers:
        _init_attention_inputs(layer.self_attn)


class XCLIPVisionEncoderLayer(stock.XCLIPVisionEncoderLayer):
    """Cross-frame block (`cct.py`): as transformers', with T from the caller and drop path on all three residuals."""

    def forward(  # type: ignore[override]
        self,
        hidden_states: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        num_frames: int | None = None,
        message_mask: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> torch.Tensor:
        """One block.

        Args:
            hidden_states: (B*T, 1+K, D), video-major.
            attention_mask: for the attention inside a frame; None in X-CLIP.
            num_frames: T; the trained number when not given, as in transformers.
            message_mask: for the attention between the frames of a video, where clips are padded.
            kwargs: for the attention function.

        Returns:
            (B*T, 1+K, D).
        """
        num_frames = num_frames or self.num_frames
        num_tokens, width = hidden_states.shape[1:]
        messages = self.message_fc(hidden_states[:, 0]).view(-1, num_frames, width)  # (B, T, D)
        update, _ = self.message_attn(self.message_ln(messages), attention_mask=message_mask, **kwargs)
        messages = (messages + self.drop_path(update)).view(-1, 1, width)  # (B*T, 1, D)

        hidden_states = torch.cat([hidden_states, messages], dim=1)  # (B*T, 1+K+1, D)
        update, _ = self.self_attn(self.layer_norm1(hidden_states), attention_mask=attention_mask, **kwargs)
        hidden_states = (hidden_states + self.drop_path(update))[:, :num_tokens]  # (B*T, 1+K, D): message dropped
        return hidden_states + self.drop_path(self.mlp(self.layer_norm2(hidden_states)))


class XCLIPVisionEncoder(stock.XCLIPVisionEncoder):
    """The cross-frame blocks, with drop path rising linearly from 0 to `drop_path_rate` (VideoX `cct.py`)."""

    def __init__(self, config: Any) -> None:
        nn.Module.__init__(self)
        self.config = config
        self.layers = nn.ModuleList([XCLIPVisionEncoderLayer(config) for _ in range(config.num_hidden_layers)])
        for index, layer in enumerate(self.layers):
            rate = config.drop_path_rate * index / max(1, config.num_hidden_layers - 1)
            layer.drop_path = stock.XCLIPDropPath(rate)
        self.gradient_checkpointing = False


class XCLIPVisionModel(XCLIPPreTrainedModel, stock.XCLIPVisionModel):
    """Vision tower: transformers' own with our encoder; `num_frames` and `message_mask` pass through to its blocks."""

    def __init__(self, config: Any) -> None:
        stock.XCLIPPreTrainedModel.__init__(self, config)
        self.embeddings = stock.XCLIPVisionEmbeddings(config)
        self.encoder = XCLIPVisionEncoder(config)
        self.post_layernorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.pre_layernorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.post_init()


class XCLIPMultiframeIntegrationTransformer(stock.XCLIPMultiframeIntegrationTransformer):
    """MIT (VideoX `mit.py`): transformers' own, for any number of frames and padded clips."""

    def forward(  # type: ignore[override]
        self, hidden_states: torch.Tensor, frame_mask: torch.Tensor | None = None, **kwargs: Any
    ) -> BaseModelOutputWithPooling:
        """Video features from projected frame features.

        Args:
            hidden_states: (B, T, E).
            frame_mask: (B, T), nonzero at frames.
            kwargs: for the attention function.

        Returns:
            last_hidden_state (B, T, E) and pooler_output (B, E), not normalised.
        """
        positions = interpolate_temporal_positions(self.position_embedding, hidden_states.shape[1], frame_mask)
        mask = frame_attention_mask(self.encoder.config, hidden_states, frame_mask)
        encoded = self.encoder(hidden_states + positions, attention_mask=mask, **kwargs).last_hidden_state
        features = encoded.type(hidden_states.dtype) + hidden_states  # residual without the positions
        return BaseModelOutputWithPooling(
            last_hidden_state=features, pooler_output=mean_over_frames(features, frame_mask)
        )


class XCLIPPromptGenerator(stock.XCLIPPromptGenerator):
    """Video-specific prompts (`prompt.py`): as transformers', but what texts alone decide is computed once.

    The first layer's queries do not depend on the video; a [`TextBank`] that is used again brings them along.
    """

    @property
    def is_plain(self) -> bool:
        """Whether queries follow from weights whose changes show: not with adapters, nor as inference tensors."""
        layers: list[Any] = list(self.decoder)[:1]
        modules = [module for layer in layers for module in (layer.norm1, layer.cross_attn.q_proj)]
        is_known = all(type(module) in (nn.LayerNorm, nn.Linear) for module in modules)
        return is_known and not any(weight.is_inference() for module in modules for weight in module.parameters())

    def queries_of(self, text: torch.Tensor) -> torch.Tensor:
        """What the texts (N, E) ask for in the first layer, (N, E)."""
        return _prompt_queries(self.decoder[0], text) if self.decoder else text

    def forward(  # type: ignore[override]
        self, text: torch.Tensor, visual: torch.Tensor, queries: torch.Tensor
    ) -> torch.Tensor:
        """Prompts (B, N, E), to be added to the texts.

        Args:
            text: (N, E).
            visual: (B, K, E) patch features.
            queries: (N, E), [`queries_of`] the texts.
        """
        visual = self.layernorm(visual)
        text, queries = (states.expand(visual.shape[0], -1, -1) for states in (text, queries))  # (B, N, E)
        layers: Any = self.decoder
        for index, layer in enumerate(layers):
            if index:
                queries = _prompt_queries(layer, text)
            text = text + _attend_to_patches(layer.cross_attn, queries, visual)
            text = text + layer.mlp(layer.norm3(text))
        return self.alpha * text


def _prompt_queries(layer: Any, text: torch.Tensor) -> torch.Tensor:
    return layer.cross_attn.q_proj(layer.norm1(text))


def _attend_to_patches(attention: Any, queries: torch.Tensor, patches: torch.Tensor) -> torch.Tensor:
    """The rest of transformers' `XCLIPCrossAttention`: (B, N, E) of projected queries and of patches (B, K, E)."""
    queries, keys, values = (
        states.unflatten(-1, (attention.num_heads, -1)).transpose(1, 2)  # (B, h, N or K, E / h)
        for states in (queries, attention.k_proj(patches), attention.v_proj(patches))
    )
    attend = stock.ALL_ATTENTION_FUNCTIONS.get_interface(
        attention.config._attn_implementation, stock.eager_attention_forward
    )
    dropout = attention.attn_drop if attention.training else 0.0
    output, _ = attend(attention, queries, keys, values, attention_mask=None, scaling=attention.scale, dropout=dropout)
    return attention.proj_drop(attention.proj(output.flatten(2)))  # (B, N, h, E / h) -> (B, N, E)


class XCLIPVideoMixin(VideoMixin):
    """The video side: image tower whose frames exchange messages, projection, and MIT over the frames (`mit`)."""

    config: Any
    mit: Any

    @classmethod
    def from_clip(cls: Any, clip: str | os.PathLike[str] | Any, *, num_frames: int = 8, **overrides: Any) -> Any:
        """An X-CLIP whose towers are a CLIP's; what X-CLIP adds starts as in the original code.

        Args:
            clip: a CLIP repository or folder, a `CLIPModel` (weights are copied), or a `CLIPConfig` (random weights).
            num_frames: trained frames per clip, the length of the temporal position embedding.
            overrides: other fields of [`XCLIPConfig`], such as `prompt_alpha`.

        Raises:
            TypeError: for another kind of `clip`.
            RuntimeError: if a weight of the CLIP has no place here, or one of our CLIP weights is not in it.
        """
        if isinstance(clip, CLIPConfig) and clip.model_type == "clip":  # a MotedConfig is a CLIPConfig too
            return cls(XCLIPConfig.from_clip_config(clip, num_frames=num_frames, **overrides))
        clip = load_clip(clip)
        model: Any = cls(XCLIPConfig.from_clip_config(clip.config, num_frames=num_frames, **overrides))
        model.to(clip.dtype)
        weights = {name.replace("pre_layrnorm", "pre_layernorm"): value for name, value in clip.state_dict().items()}
        load_clip_weights(model, weights)
        return model

    @torch.no_grad()
    def set_num_frames(self, num_frames: int) -> None:
        """Makes `num_frames` the trained number: interpolates the temporal positions and says so in the configuration.

        For training on with another number of frames; without it, positions are interpolated in every forward pass.
        """
        positions = interpolate_temporal_positions(self.mit.position_embedding, num_frames)
        self.mit.position_embedding = nn.Parameter(
            positions.clone(), requires_grad=self.mit.position_embedding.requires_grad
        )
        vision_config: Any = self.config.vision_config
        vision_config.num_frames = num_frames
        self.mit.encoder.config.num_frames = num_frames
        layers: Any = self.vision_model.encoder.layers
        for layer in layers:
            layer.num_frames = num_frames

    @can_return_tuple
    def get_video_features(
        self,
        pixel_values: torch.Tensor,
        frame_mask: torch.Tensor | None = None,
        *,
        interpolate_pos_encoding: bool = False,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
    ) -> BaseModelOutputWithPooling:
        """Video features in `pooler_output` (B, E), not normalised.

        A dot product of these with text features is not X-CLIP's score: it skips the video-specific prompt.

        Args: as in [`XCLIPModel.forward`].
        """
        recording = _recording(output_attentions, output_hidden_states)
        vision_outputs, mit_outputs = self._encode_videos(pixel_values, frame_mask, interpolate_pos_encoding, recording)
        vision_outputs.pooler_output = mit_outputs.pooler_output
        return vision_outputs

    def _new_parameters(self) -> list[nn.Parameter]:
        modules = [self.mit]
        for layer in self.vision_model.encoder.layers:
            modules += [layer.message_fc, layer.message_ln, layer.message_attn]
        return [*super()._new_parameters(), *(parameter for module in modules for parameter in module.parameters())]

    def _position_parameters(self) -> list[nn.Parameter]:
        return [*super()._position_parameters(), self.mit.position_embedding]

    def _encode_videos(
        self,
        pixel_values: torch.Tensor | None,
        frame_mask: torch.Tensor | None,
        interpolate_pos_encoding: bool,
        recording: dict[str, Any],
    ) -> tuple[Any, Any]:
        """Outputs of the vision tower, (B*T, 1+K, D), and of the MIT, (B, T, E)."""
        vision_config: Any = self.config.vision_config
        pixel_values = check_pixel_values(pixel_values, vision_config.num_channels)
        pixel_values = without_padding(pixel_values, frame_mask)
        batch_size, num_frames = pixel_values.shape[:2]
        trained_frames = vision_config.num_frames
        if num_frames > _FAR_EXTRAPOLATION * trained_frames and not torch.compiler.is_compiling():
            _warn_of_stretched_positions(num_frames, trained_frames)
        frames = pixel_values.flatten(0, 1)  # (B*T, 3, H, W)
        # `create_bidirectional_mask` reads only shape, dtype and device of its second argument.
        shape_like = self.visual_projection.weight.new_empty(batch_size, num_frames, 1)
        vision_outputs = self.vision_model(
            pixel_values=frames,
            interpolate_pos_encoding=interpolate_pos_encoding,
            num_frames=num_frames,
            message_mask=frame_attention_mask(vision_config, shape_like, frame_mask),
            **recording,
        )
        class_features = self.visual_projection(vision_outputs.pooler_output)
        class_features = class_features.view(batch_size, num_frames, -1)  # (B, T, E)
        return vision_outputs, self.mit(class_features, frame_mask)


class XCLIPModel(VideoTextMixin, XCLIPVideoMixin, XCLIPPreTrainedModel, stock.XCLIPModel):
    """X-CLIP: logits of videos over class texts that are refined by each video.

    Example:
        >>> import torch
        >>> one_layer = {"num_hidden_layers": 1}
        >>> model = XCLIPModel(XCLIPConfig(text_config=one_layer, vision_config=one_layer))
        >>> bank = model.encode_texts(torch.tensor([[0, 320, 2], [0, 539, 2]]), names=["run", "jump"])
        >>> model(pixel_values=torch.zeros(1, 4, 3, 224, 224), text_bank=bank).logits_per_video.shape
        torch.Size([1, 2])
    """

    config_class = XCLIPConfig

    def __init__(self, config: Any) -> None:
        stock.XCLIPPreTrainedModel.__init__(self, config)
        text, vision = config.text_config, config.vision_config
        self.projection_dim = config.projection_dim
        self.text_embed_dim = text.hidden_size
        self.vision_embed_dim = vision.hidden_size

        self.text_model = stock.XCLIPTextModel(text)
        self.vision_model = XCLIPVisionModel(vision)
        self.visual_projection = nn.Linear(vision.hidden_size, config.projection_dim, bias=False)
        self.text_projection = nn.Linear(text.hidden_size, config.projection_dim, bias=False)
        self.logit_scale = nn.Parameter(torch.tensor(config.logit_scale_init_value))
        self.prompts_visual_layernorm = nn.LayerNorm(vision.hidden_size, eps=vision.layer_norm_eps)
        self.prompts_visual_projection = nn.Parameter(torch.empty(vision.hidden_size, config.projection_dim))
        self.mit = XCLIPMultiframeIntegrationTransformer(_mit_config(vision))
        self.prompts_generator = XCLIPPromptGenerator(config)
        self._times_trained = 0
        self.post_init()

    def train(self, mode: bool = True) -> XCLIPModel:
        """As in torch; queries of text banks that were kept are made again."""
        self._times_trained += int(mode)
        return super().train(mode)

    def set_trainable(
        self, *, text: bool | None = None, vision: bool | None = None, logit_scale: bool | None = None
    ) -> None:
        """Says which parts of CLIP learn; new modules always do. Until it is called, everything does.

        Args:
            text: the text tower; X-CLIP's is frozen.
            vision: the image tower; X-CLIP's learns.
            logit_scale: as `text` when not given.
        """
        text = bool(text)
        self._let_learn(text=text, vision=vision is not False, logit_scale=text if logit_scale is None else logit_scale)

    def _new_parameters(self) -> list[nn.Parameter]:
        prompts = [*self.prompts_generator.parameters(), *self.prompts_visual_layernorm.parameters()]
        return [*super()._new_parameters(), *prompts, self.prompts_visual_projection]

    @can_return_tuple
    def get_text_features(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        *,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
    ) -> BaseModelOutputWithPooling:
        """Projected text features in `pooler_output` (N, E), not normalised, before the video-specific prompt.

        Args:
            input_ids: (N, L) int64.
            attention_mask: (N, L), 0 at padding.
            position_ids: (N, L) or (1, L).
            output_attentions: also return the attention maps.
            output_hidden_states: also return the states after every layer.
        """
        recording = _recording(output_attentions, output_hidden_states)
        outputs = self._encode_tokens(input_ids, attention_mask, position_ids, recording)
        outputs.pooler_output = self.text_projection(outputs.pooler_output)
        return outputs

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        pixel_values: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        return_loss: bool | None = None,
        interpolate_pos_encoding: bool = False,
        *,
        frame_mask: torch.Tensor | None = None,
        text_bank: TextBank | None = None,
        labels: torch.Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
    ) -> stock.XCLIPOutput:
        """Logits of B videos over N class texts.

        Args:
            input_ids: (N, L) int64 class texts; or give `text_bank`.
            pixel_values: (B, T, 3, H, W) float, any T >= 1.
            attention_mask: (N, L), 0 at padding of the texts.
            position_ids: (N, L) or (1, L).
            return_loss: loss is transformers' symmetric contrastive loss over the batch (needs B = N).
            interpolate_pos_encoding: take images of another size than the trained one.
            frame_mask: (B, T), 1 at frames and 0 at padding, for clips of different lengths.
            text_bank: class texts encoded by [`encode_texts`] of this model; results equal passing `input_ids`.
            labels: (B,) int64 class ids or (B, N) float probabilities; loss is the cross-entropy over class texts.
            output_attentions: also return the attention maps of the towers.
            output_hidden_states: also return the states after every layer of the towers.

        Returns:
            loss (scalar, with `labels` or `return_loss`), logits_per_video (B, N), logits_per_text (N, B),
            video_embeds (B, E) and text_embeds (B, N, E), both of unit length, and the outputs of towers and MIT.

        Raises:
            ValueError: for shapes that do not fit, for no class texts or two kinds of them, for two kinds of loss, and
                for a bank of other text weights.
            TypeError: for labels of a wrong dtype.
        """
        if return_loss and labels is not None:
            raise ValueError("return_loss=True and labels are two different losses; pass one of them.")
        recording = _recording(output_attentions, output_hidden_states)
        vision_outputs, mit_outputs = self._encode_videos(pixel_values, frame_mask, interpolate_pos_encoding, recording)
        text_features, text_outputs = self._class_texts(input_ids, attention_mask, position_ids, text_bank, recording)
        video_embeds = mit_outputs.pooler_output  # (B, E)
        patches = self._patch_features(vision_outputs.last_hidden_state, mit_outputs, frame_mask)  # (B, K, E)
        text_features = text_features.to(video_embeds)  # (N, E)
        queries = self._prompt_queries(text_features, text_bank)
        text_embeds = text_features + self.prompts_generator(text_features, patches, queries)  # (B, N, E)

        video_embeds = video_embeds / video_embeds.norm(dim=-1, keepdim=True)
        text_embeds = text_embeds / text_embeds.norm(dim=-1, keepdim=True)
        logits = torch.einsum("bd,bnd->bn", video_embeds, self.logit_scale.exp() * text_embeds)

        loss = None
        if labels is not None:
            loss = classification_loss(logits, labels)
        elif return_loss:
            loss = stock.image_text_contrastive_loss(logits.T)
        return stock.XCLIPOutput(
            loss=loss,
            logits_per_video=logits,
            logits_per_text=logits.T,
            text_embeds=text_embeds,
            video_embeds=video_embeds,
            text_model_output=text_outputs,
            vision_model_output=vision_outputs,
            mit_output=mit_outputs,
        )

    def _class_texts(
        self,
        input_ids: torch.Tensor | None,
        attention_mask: torch.Tensor | None,
        position_ids: torch.Tensor | None,
        text_bank: TextBank | None,
        recording: dict[str, Any],
    ) -> tuple[torch.Tensor, Any]:
        """Text features (N, E) from tokens or from a bank, and the output of the text tower where it ran."""
        check_text_source(input_ids, text_bank)
        if text_bank is not None:
            self.check_text_bank(text_bank)
            return text_bank.text_embeds, None
        outputs = self._encode_tokens(input_ids, attention_mask, position_ids, recording)
        return self.text_projection(outputs.pooler_output), outputs

    def _encode_tokens(
        self,
        input_ids: torch.Tensor | None,
        attention_mask: torch.Tensor | None,
        position_ids: torch.Tensor | None,
        recording: dict[str, Any],
    ) -> Any:
        return self.text_model(
            input_ids=input_ids, attention_mask=attention_mask, position_ids=position_ids, **recording
        )

    def _prompt_queries(self, text_features: torch.Tensor, text_bank: TextBank | None) -> torch.Tensor:
        """What class texts (N, E) ask of the patches, (N, E); kept for a bank where nothing learns.

        Weights that are changed behind autograd's back in evaluation mode (`parameter.data.add_(...)`) are not noticed.
        """
        generator: Any = self.prompts_generator
        is_for_once = self.training or torch.is_grad_enabled() or torch.compiler.is_compiling()
        if text_bank is None or is_for_once or not generator.is_plain:
            return generator.queries_of(text_features)
        device = text_features.device.type
        made_with = (
            self._times_trained,
            versions_of([*generator.decoder.parameters(), text_bank.text_embeds]),
            (text_features.dtype, text_features.device),
            torch.is_autocast_enabled(device) and torch.get_autocast_dtype(device),
        )
        kept = _queries_of_banks.get(text_bank)
        if kept is None or kept[0] != made_with:
            kept = _queries_of_banks[text_bank] = (made_with, generator.queries_of(text_features))
        return kept[1]

    def _patch_features(
        self, hidden_states: torch.Tensor, mit_outputs: Any, frame_mask: torch.Tensor | None
    ) -> torch.Tensor:
        """What the prompt generator reads (`prompt.py`): patch tokens (B*T, 1+K, D) -> (B, K, E), mean over frames."""
        batch_size, num_frames = mit_outputs.last_hidden_state.shape[:2]
        patches = self.prompts_visual_layernorm(hidden_states[:, 1:]) @ self.prompts_visual_projection
        patches = patches.view(batch_size, num_frames, -1, patches.shape[-1])  # (B, T, K, E)
        return mean_over_frames(patches, frame_mask)


class XCLIPForVideoClassification(VideoClassificationMixin, XCLIPVideoMixin, XCLIPPreTrainedModel):
    """X-CLIP's video encoder with one linear layer instead of class texts (supplement, Table 4).

    `config.num_labels` classes. The layer reads what the text side would: the output of the MIT, not normalised, which
    the supplement leaves open.

    Example:
        >>> import torch
        >>> model = XCLIPForVideoClassification(XCLIPConfig(vision_config={"num_hidden_layers": 1}, num_labels=5))
        >>> model(pixel_values=torch.zeros(1, 4, 3, 224, 224)).logits.shape
        torch.Size([1, 5])
    """

    config_class = XCLIPConfig
    main_input_name = "pixel_values"
    input_modalities = ("video",)  # type: ignore[assignment]

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        vision = config.vision_config
        self.vision_model = XCLIPVisionModel(vision)
        self.visual_projection = nn.Linear(vision.hidden_size, config.projection_dim, bias=False)
        self.mit = XCLIPMultiframeIntegrationTransformer(_mit_config(vision))
        self.classifier = nn.Linear(config.projection_dim, config.num_labels)
        self.post_init()

    def set_trainable(
        self, *, text: bool | None = None, vision: bool | None = None, logit_scale: bool | None = None
    ) -> None:
        """Says whether the image tower learns (it does when not given); the rest always does.

        Raises:
            ValueError: if text or logit scale are to learn: there are none.
        """
        self._refuse_text(text, logit_scale)
        self._let_learn(vision=vision is not False)

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

        Args: as in [`XCLIPModel.forward`].

        Raises:
            ValueError: for shapes that do not fit.
            TypeError: for labels of a wrong dtype.
        """
        video = self.get_video_features(
            pixel_values, frame_mask, interpolate_pos_encoding=interpolate_pos_encoding
        ).pooler_output
        return self._classify(video, labels)


@functools.cache
def _warn_of_stretched_positions(num_frames: int, trained_frames: int) -> None:
    """Once per process and pair of numbers, not once per batch."""
    logger.warning(
        "%d frames given to a model trained with %d: temporal positions are stretched more than %d-fold.",
        num_frames,
        trained_frames,
        _FAR_EXTRAPOLATION,
    )


def _recording(output_attentions: bool | None, output_hidden_states: bool | None) -> dict[str, Any]:
    """Arguments for a tower; what is None is left out, and so left to the configuration, as in transformers."""
    asked = {"output_attentions": output_attentions, "output_hidden_states": output_hidden_states}
    return {"return_dict": True, **{name: value for name, value in asked.items() if value is not None}}


def _mit_config(vision_config: Any) -> Any:
    """The vision configuration with the MIT's sizes in place of the tower's, as transformers makes it."""
    config = copy.copy(vision_config)
    config.hidden_size = vision_config.mit_hidden_size
    config.intermediate_size = vision_config.mit_intermediate_size
    config.num_hidden_layers = vision_config.mit_num_hidden_layers
    config.num_attention_heads = vision_config.mit_num_attention_heads
    return config


XCLIPModel.register_for_auto_class("AutoModel")
XCLIPForVideoClassification.register_for_auto_class("AutoModelForVideoClassification")
