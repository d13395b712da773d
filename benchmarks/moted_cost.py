"""What token merging saves in MoTED's motion encoder, and what a training step of MoTED costs beside X-CLIP.

python -m benchmarks.moted_cost
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from kinetext import MotedConfig, MotedModel, XCLIPConfig, XCLIPModel
from kinetext.training.optimisation import parameter_groups

from .harness import Benchmark, Subject, run

PRESET = "base-patch16"
NUM_BLOCKS = 2  # of the encoder's 12, which are alike: 12 at T = 32 take minutes on a CPU
FRAMES = (8, 16, 32)  # with 8, the 1568 tokens are as many as are left after merging
NO_CAP = 10**9
NUM_CLASSES, NUM_DESCRIPTIONS, NUM_TOKENS = 50, 5 + 1, 16


# Token merging ------------------------------------------------------------------------------------------------------


def encoding_motion(
    num_frames: int, is_merging: bool, with_backward: bool, attention: str = "sdpa"
) -> Callable[[], Any]:
    """The motion encoder of B/16 with fewer blocks, on one clip."""
    config = MotedConfig.preset(PRESET, num_frames=num_frames)
    config._attn_implementation = attention
    config.vision_config.num_hidden_layers, config.text_config.num_hidden_layers = NUM_BLOCKS, 1
    if not is_merging:
        config.motion_max_key_tokens = NO_CAP
    encoder = MotedModel(config).motion_encoder.train()
    pixel_values = torch.randn(1, num_frames * config.motion_frame_ratio, 3, 224, 224)
    class_tokens = [torch.randn(1, num_frames, config.vision_config.hidden_size) for _ in range(NUM_BLOCKS)]

    def forward() -> torch.Tensor:
        return encoder(pixel_values, class_tokens)

    def forward_and_backward() -> None:
        encoder.zero_grad(set_to_none=True)
        forward().square().mean().backward()

    return forward_and_backward if with_backward else torch.inference_mode()(forward)


def merging_benchmark(frames: tuple[int, ...], with_backward: bool, attention: str = "sdpa") -> Benchmark:
    """Merging against not merging at each number of frames, and both against the fewest frames."""
    cap = MotedConfig.motion_max_key_tokens
    return Benchmark(
        f"motion encoder of B/16, {NUM_BLOCKS} of 12 blocks, {attention}, "
        f"{'forward and backward' if with_backward else 'forward'}, 1 clip, 196 T tokens, keys merged to {cap}",
        tuple(
            Subject(
                _merging_name(num_frames, is_merging),
                encoding_motion,
                (num_frames, is_merging, with_backward, attention),
                _merging_references(num_frames, is_merging, frames[0]),
            )
            for num_frames in frames
            for is_merging in (False, True)
        ),
        repeats=3,
        with_memory=True,
    )


def _merging_name(num_frames: int, is_merging: bool) -> str:
    return f"T={num_frames}, {'merged' if is_merging else 'not merged'}"


def _merging_references(num_frames: int, is_merging: bool, fewest: int) -> dict[str, str]:
    references = {} if num_frames == fewest else {f"T={fewest}": _merging_name(fewest, is_merging)}
    return references | ({"not merged": _merging_name(num_frames, False)} if is_merging else {})


# Training step ------------------------------------------------------------------------------------------------------


def training_moted(with_bank: bool) -> Callable[[], Any]:
    """A training step of MoTED-B/16: motion and text modules learn, both towers are frozen."""
    model = MotedModel(MotedConfig.preset(PRESET))
    tokens = {
        "input_ids": torch.randint(1, 400, (NUM_CLASSES, NUM_TOKENS)),
        "description_input_ids": torch.randint(1, 400, (NUM_CLASSES, NUM_DESCRIPTIONS, NUM_TOKENS)),
    }
    texts = {"text_bank": model.encode_texts(**tokens)} if with_bank else tokens
    return _training_step(model, model.config.num_frames * model.config.motion_frame_ratio, texts)


def training_xclip() -> Callable[[], Any]:
    """A training step of X-CLIP-B/16 with frozen text: the image tower and all new modules learn."""
    model = XCLIPModel(XCLIPConfig.preset(PRESET))
    model.set_trainable()
    bank = model.encode_texts(torch.randint(1, 400, (NUM_CLASSES, NUM_TOKENS)))
    return _training_step(model, model.config.vision_config.num_frames, {"text_bank": bank})


def _training_step(model: Any, num_frames: int, texts: dict[str, Any]) -> Callable[[], Any]:
    """Forward, backward and AdamW on one clip."""
    model.train()
    groups = parameter_groups(model, learning_rate=1e-6, new_module_lr_factor=10.0, weight_decay=0.001)
    optimiser = torch.optim.AdamW(groups)
    pixel_values, labels = torch.randn(1, num_frames, 3, 224, 224), torch.zeros(1, dtype=torch.int64)

    def step() -> None:
        model(pixel_values=pixel_values, labels=labels, **texts).loss.backward()
        optimiser.step()
        optimiser.zero_grad()

    return step


_XCLIP, _BANK, _TOKENS = "X-CLIP, text bank", "MoTED, text bank", "MoTED, tokens every step"

BENCHMARKS = (
    merging_benchmark(FRAMES, with_backward=False),
    merging_benchmark(FRAMES, with_backward=True),
    merging_benchmark(FRAMES[1:2], with_backward=True, attention="eager"),  # for attention maps: keeps every weight
    Benchmark(
        f"training step of B/16, 1 clip, T=8, {NUM_CLASSES} classes; MoTED reads {NUM_DESCRIPTIONS} descriptions of "
        f"each; {NUM_TOKENS} tokens a text; text frozen",
        (
            Subject(_XCLIP, training_xclip),
            Subject(_BANK, training_moted, (True,), {"X-CLIP": _XCLIP, "tokens": _TOKENS}),
            Subject(_TOKENS, training_moted, (False,), {"X-CLIP": _XCLIP}),
        ),
        repeats=5,
        with_memory=True,
    ),
)

if __name__ == "__main__":
    run("moted_cost", BENCHMARKS)
