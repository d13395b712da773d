"""Training steps of X-CLIP with the published recipe, against the same steps written down in plain torch.

The reference takes nothing from kinetext but weights, clips and sizes: blending, smoothing, the model, the loss, AdamW
and its rates are written here from the papers' formulas, in float64, each as directly as it reads.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from testing_utils import tiny_model
from transformers import TrainerCallback

from kinetext import VideoTextProcessor, VideoTextTrainer, VideoTextTrainingArguments
from kinetext.data.annotations import ClipList, read_clips, text_of_class
from kinetext.data.datasets import TrainClips
from kinetext.data.motion_shapes import write_motion_shapes
from kinetext.data.small_tokenizer import small_tokenizer
from kinetext.training import trainer as trainer_module
from kinetext.training.mixing import MixDraw

Tensors = Mapping[str, torch.Tensor]

# The model (FACTS 2.2 to 2.5). w: its weights by name; x: (..., tokens, width).


def linear(w: Tensors, name: str, x: torch.Tensor) -> torch.Tensor:
    out = x @ w[f"{name}.weight"].T
    return out + w[f"{name}.bias"] if f"{name}.bias" in w else out


def layer_norm(w: Tensors, name: str, x: torch.Tensor) -> torch.Tensor:
    centred = x - x.mean(-1, keepdim=True)
    return centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt() * w[f"{name}.weight"] + w[f"{name}.bias"]


def quick_gelu(x: torch.Tensor) -> torch.Tensor:
    return x * torch.sigmoid(1.702 * x)


def attend(
    w: Tensors,
    name: str,
    queries: torch.Tensor,
    others: torch.Tensor,
    heads: int,
    *,
    out: str = "out_proj",
    causal=False,
) -> torch.Tensor:
    head_dim = queries.shape[-1] // heads
    q, k, v = (
        linear(w, f"{name}.{part}_proj", x).unflatten(-1, (heads, head_dim)).transpose(-2, -3)
        for part, x in (("q", queries), ("k", others), ("v", others))
    )  # (..., heads, tokens, head_dim)
    scores = q @ k.transpose(-1, -2) / math.sqrt(head_dim)
    if causal:
        scores = scores + torch.full_like(scores, -math.inf).triu(1)
    return linear(w, f"{name}.{out}", (scores.softmax(-1) @ v).transpose(-2, -3).flatten(-2))


def mlp(w: Tensors, name: str, x: torch.Tensor, *, first: str = "fc1", second: str = "fc2") -> torch.Tensor:
    return linear(w, f"{name}.{second}", quick_gelu(linear(w, f"{name}.{first}", x)))


def transformer_block(w: Tensors, name: str, x: torch.Tensor, heads: int, *, causal: bool = False) -> torch.Tensor:
    normed = layer_norm(w, f"{name}.layer_norm1", x)
    x = x + attend(w, f"{name}.self_attn", normed, normed, heads, causal=causal)
    return x + mlp(w, f"{name}.mlp", layer_norm(w, f"{name}.layer_norm2", x))


def text_features(w: Tensors, config: Any, input_ids: torch.Tensor) -> torch.Tensor:
    """(N, L) -> (N, E), read at the end token, which has the largest id."""
    text = config.text_config
    x = w["text_model.embeddings.token_embedding.weight"][input_ids]
    x = x + w["text_model.embeddings.position_embedding.weight"][: input_ids.shape[1]]
    for index in range(text.num_hidden_layers):
        x = transformer_block(w, f"text_model.encoder.layers.{index}", x, text.num_attention_heads, causal=True)
    x = layer_norm(w, "text_model.final_layer_norm", x)
    return linear(w, "text_projection", x[torch.arange(len(x)), input_ids.argmax(-1)])


def frame_tokens(w: Tensors, config: Any, videos: torch.Tensor) -> torch.Tensor:
    """(B, T, 3, S, S) -> (B, T, 1+K, D) after the last block of the vision tower."""
    vision = config.vision_config
    patch, heads = vision.patch_size, vision.num_attention_heads
    patches = videos.unflatten(-1, (-1, patch)).unflatten(-3, (-1, patch))  # (B, T, 3, rows, P, columns, P)
    patches = patches.permute(0, 1, 3, 5, 2, 4, 6).flatten(4).flatten(2, 3)  # (B, T, K, 3·P·P)
    x = patches @ w["vision_model.embeddings.patch_embedding.weight"].flatten(1).T
    class_token = w["vision_model.embeddings.class_embedding"].expand(*x.shape[:2], 1, -1)
    x = torch.cat([class_token, x], dim=2) + w["vision_model.embeddings.position_embedding.weight"]
    x = layer_norm(w, "vision_model.pre_layernorm", x)
    for index in range(vision.num_hidden_layers):
        name = f"vision_model.encoder.layers.{index}"
        messages = linear(w, f"{name}.message_fc", x[:, :, 0])  # (B, T, D)
        normed = layer_norm(w, f"{name}.message_ln", messages)
        messages = messages + attend(w, f"{name}.message_attn", normed, normed, heads)
        x = torch.cat([x, messages.unsqueeze(2)], dim=2)
        normed = layer_norm(w, f"{name}.layer_norm1", x)
        x = (x + attend(w, f"{name}.self_attn", normed, normed, heads))[:, :, :-1]
        x = x + mlp(w, f"{name}.mlp", layer_norm(w, f"{name}.layer_norm2", x))
    return x


def xclip_logits(w: Tensors, config: Any, videos: torch.Tensor, input_ids: torch.Tensor) -> torch.Tensor:
    """Logits (B, N)."""
    tokens = frame_tokens(w, config, videos)
    frames = linear(w, "visual_projection", layer_norm(w, "vision_model.post_layernorm", tokens[:, :, 0]))  # (B, T, E)
    x = frames + w["mit.position_embedding"]
    for index in range(config.vision_config.mit_num_hidden_layers):
        x = transformer_block(w, f"mit.encoder.layers.{index}", x, config.vision_config.mit_num_attention_heads)
    video = (x + frames).mean(1)  # (B, E)

    patches = layer_norm(w, "prompts_visual_layernorm", tokens[:, :, 1:]) @ w["prompts_visual_projection"]
    patches = layer_norm(w, "prompts_generator.layernorm", patches.mean(1))  # (B, K, E)
    text = text_features(w, config, input_ids).expand(len(videos), -1, -1)  # (B, N, E)
    s = text
    for index in range(config.prompt_layers):
        name = f"prompts_generator.decoder.{index}"
        normed = layer_norm(w, f"{name}.norm1", s)
        s = s + attend(w, f"{name}.cross_attn", normed, patches, config.prompt_num_attention_heads, out="proj")
        s = s + mlp(w, f"{name}.mlp", layer_norm(w, f"{name}.norm3", s), first="0", second="3")
    text = text + w["prompts_generator.alpha"] * s

    cosine = torch.nn.functional.cosine_similarity(video.unsqueeze(1), text, dim=-1)
    return w["logit_scale"].exp() * cosine


# The recipe (FACTS 2.9 to 2.11)


def blended(videos: torch.Tensor, labels: torch.Tensor, num_classes: int, draw: MixDraw) -> tuple[torch.Tensor, ...]:
    """Clips blended with their neighbours, and their targets: 0.1 of each label spread over all classes."""
    partners = [1, 0, 3, 2]
    smooth = torch.full((len(labels), num_classes), 0.1 / num_classes, dtype=torch.float64)
    smooth[range(len(labels)), labels] = 0.9 + 0.1 / num_classes
    if draw.box is None:
        share = draw.own_share
        mixed = share * videos + (1 - share) * videos[partners]
    else:
        top, left, bottom, right = draw.box
        share = 1 - (bottom - top) * (right - left) / (videos.shape[-1] * videos.shape[-2])
        is_partners = torch.zeros(videos.shape[-2:], dtype=torch.bool)
        is_partners[top:bottom, left:right] = True
        mixed = torch.where(is_partners, videos[partners], videos)
    return mixed, share * smooth + (1 - share) * smooth[partners]


def published_rate(step: int, *, base: float, steps: int, warmup: int, floor: float) -> float:
    if step < warmup:
        return base * step / warmup
    return floor + 0.5 * (base - floor) * (1 + math.cos(math.pi * step / steps))


def is_new(name: str) -> bool:
    """By the names of the original's optimiser: its message, MIT and prompt parameters."""
    return any(word in name for word in ("message_", "mit.", "prompts_"))


def decays(name: str, parameter: torch.Tensor) -> bool:
    return parameter.ndim > 1 and "position_embedding" not in name


def has_no_gradient(name: str) -> bool:
    """In exact arithmetic.

    The bias of keys moves all scores of a query alike. In the first block the class token, hence the message, is the
    same in all frames, so it does not matter which of them attends to which.
    """
    in_first_block = "layers.0.message_attn.q_proj", "layers.0.message_attn.k_proj"
    return name.endswith("k_proj.bias") or any(part in name for part in in_first_block)


def adamw(weight: torch.Tensor, gradients: list[torch.Tensor], rates: list[float], weight_decay: float) -> torch.Tensor:
    """The weight after as many updates as there are gradients."""
    mean, square = torch.zeros_like(weight), torch.zeros_like(weight)
    for step, (gradient, rate) in enumerate(zip(gradients, rates, strict=True), start=1):
        mean = 0.9 * mean + 0.1 * gradient
        square = 0.98 * square + 0.02 * gradient**2
        direction = (mean / (1 - 0.9**step)) / ((square / (1 - 0.98**step)).sqrt() + 1e-8)
        weight = weight - rate * weight_decay * weight - rate * direction
    return weight


# The trainer's steps


class Recorder(TrainerCallback):
    """Keeps what every update is made of, and stops after as many as asked for."""

    def __init__(self, stop_after: int | None = None) -> None:
        self.stop_after = stop_after
        self.gradients: list[dict[str, torch.Tensor]] = []
        self.weights: list[dict[str, torch.Tensor]] = []
        self.rates: list[dict[str, float]] = []
        self.decays: dict[str, float] = {}

    def on_train_begin(self, args, state, control, model=None, **kwargs) -> None:
        self.weights.append(detached(model))

    def on_pre_optimizer_step(self, args, state, control, model=None, optimizer=None, **kwargs) -> None:
        names = {id(parameter): name for name, parameter in model.named_parameters()}
        self.gradients.append({name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None})
        groups = {names[id(parameter)]: group for group in optimizer.param_groups for parameter in group["params"]}
        self.rates.append({name: group["lr"] for name, group in groups.items()})
        self.decays = {name: group["weight_decay"] for name, group in groups.items()}

    def on_step_end(self, args, state, control, model=None, **kwargs) -> None:
        self.weights.append(detached(model))
        if state.global_step == self.stop_after:
            control.should_training_stop = True


def detached(model: Any) -> dict[str, torch.Tensor]:
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> ClipList:
    root = tmp_path_factory.mktemp("motion") / "clips"
    write_motion_shapes(root, train_per_class=1, validation_per_class=1, unseen_per_class=1, size=40, num_frames=8)
    everything = read_clips("train", data_root=root)
    return ClipList(everything.clips[:8], everything.class_names)


def make_trainer(clips: ClipList, output: Path, recorder: Recorder, **settings: Any) -> VideoTextTrainer:
    """The published recipe (the defaults of the arguments), in batches of 4, on a tiny X-CLIP.

    With a logit scale of e the loss and all gradients are of order 1 and below, where float32 can be held to 1e-6.
    """
    texts = [text_of_class(name) for name in clips.class_names]
    processor = VideoTextProcessor(small_tokenizer(texts), num_frames=4, crop_size=32, short_side=36)
    text = {"vocab_size": len(processor.tokenizer), "max_position_embeddings": 77}
    model = tiny_model(num_frames=4, text=text, logit_scale_init_value=1.0)
    options = {"save_strategy": "no", "eval_strategy": "no", "report_to": [], "disable_tqdm": True, "use_cpu": True}
    model.set_trainable()
    return VideoTextTrainer(
        model,
        VideoTextTrainingArguments(output_dir=str(output), total_train_batch_size=4, **options, **settings),
        processing_class=processor,
        class_texts=texts,
        train_dataset=TrainClips(clips, processor, seed=0),
        callbacks=[recorder],
    )


def assert_equal(name: str, got: torch.Tensor, expected: torch.Tensor, tolerance: float = 1e-6) -> None:
    torch.testing.assert_close(
        got.double(), expected.detach(), rtol=0, atol=tolerance, msg=lambda text: f"{name}: {text}"
    )


@pytest.mark.parametrize("draw", [MixDraw(0.7), MixDraw(1 - 12 * 20 / 32**2, (5, 0, 17, 20))], ids=["mixup", "cutmix"])
def test_loss_gradients_and_weights_of_the_published_recipe(
    clips: ClipList, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, draw: MixDraw
) -> None:
    """Two updates: the first is made with rate 0 and only fills AdamW's moments, the second moves all weights."""
    monkeypatch.setattr(trainer_module, "draw_mix", lambda *args, **kwargs: draw)
    recorder = Recorder(stop_after=2)
    trainer = make_trainer(clips, tmp_path, recorder, logging_steps=1)
    batches = list(trainer.get_train_dataloader())
    trainer.train()

    config, num_classes = trainer.model.config, len(clips.class_names)
    input_ids = trainer.processor(text=trainer.class_texts)["input_ids"]
    weights = {
        name: value.double().requires_grad_(not name.startswith(("text_", "logit_scale")))
        for name, value in recorder.weights[0].items()
    }
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    gradients = []
    for step in range(2):
        videos, targets = blended(batches[step]["pixel_values"].double(), batches[step]["labels"], num_classes, draw)
        loss = -(targets * xclip_logits(weights, config, videos, input_ids).log_softmax(-1)).sum(-1).mean()
        assert losses[step] == pytest.approx(loss.item(), abs=1e-6)
        trainable = {name: value for name, value in weights.items() if value.requires_grad}
        found = torch.autograd.grad(loss, list(trainable.values()))
        gradients.append(dict(zip(trainable, found, strict=True)))
        assert set(recorder.gradients[step]) == set(trainable)
        for name, gradient in gradients[step].items():
            assert_equal(f"gradient of {name}", recorder.gradients[step][name], gradient)

    first, after_first, after = recorder.weights
    assert all(torch.equal(first[name], after_first[name]) for name in first)
    for name, weight in weights.items():
        if not weight.requires_grad:
            assert torch.equal(first[name], after[name])
            continue
        rates = [
            published_rate(step, base=8e-5 if is_new(name) else 8e-6, steps=2 * 30, warmup=2 * 5, floor=8e-8)
            for step in range(2)
        ]
        decay = 0.001 if decays(name, weight) else 0.0
        assert recorder.decays[name] == decay  # at these rates it changes no bit of a weight
        if has_no_gradient(name):
            assert all(each[name].abs().max() < 1e-12 for each in gradients)
            assert_equal(name, after[name], weight, tolerance=1.1 * rates[1])  # rounding, which AdamW blows up
        else:
            expected = adamw(weight, [each[name] for each in gradients], rates, decay)
            assert_equal(name, after[name], expected, tolerance=2.5e-7)  # the smaller rate is 8e-7


def test_every_update_of_a_short_run_is_adamws_at_the_published_rates(clips: ClipList, tmp_path: Path) -> None:
    """From the gradients as they were: at rates this high, their rounding would grow from step to step."""
    recorder = Recorder()
    settings = {"learning_rate": 1e-3, "weight_decay": 0.1, "num_train_epochs": 3, "warmup_epochs": 1}
    make_trainer(clips, tmp_path, recorder, **settings).train()

    assert len(recorder.rates) == 6
    for name in recorder.gradients[0]:
        base = 1e-2 if is_new(name) else 1e-3
        rates = [published_rate(step, base=base, steps=6, warmup=2, floor=1e-5) for step in range(6)]
        assert [used[name] for used in recorder.rates] == pytest.approx(rates, rel=1e-12, abs=0)
        weight = recorder.weights[0][name].double()
        gradients = [each[name].double() for each in recorder.gradients]
        assert_equal(
            name, recorder.weights[-1][name], adamw(weight, gradients, rates, 0.1 if decays(name, weight) else 0.0)
        )
