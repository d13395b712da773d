"""A small CLIP from random weights, pre-trained on captioned pictures of shapes: `python -m … FOLDER`.

Stands in for OpenAI's CLIP where nothing can be downloaded: it knows how shapes look and where they are, in pictures
and in words, and nothing of motion. Saved as an ordinary CLIP folder (model, tokenizer, image processor).

    captioned_still(seed) ──► frames   ──► image tower ─┐
                          └─► captions ──► text tower ──┴──► CLIPModel's own symmetric contrastive loss
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import track
from transformers import CLIPConfig, CLIPImageProcessorPil, CLIPModel, CLIPTokenizer, get_cosine_schedule_with_warmup

from ..data.motion_shapes import SEEN_CLASSES, UNSEEN_CLASSES, clip_seed
from ..data.shape_captions import CaptionedStill, captioned_still
from ..data.small_tokenizer import small_tokenizer
from ..descriptions import load_descriptions
from ..processing.processing_video_text import IMAGENET_MEAN, IMAGENET_STD
from ..processing.video_transforms import normalise

__all__ = ["MANIFEST_NAME", "demo_texts", "pretrain_clip"]

MANIFEST_NAME = "pretraining.json"
FORMAT_VERSION = 2  # raise it whenever the same parameters would give other weights

IMAGE_SIZE = 64
_PATCH_SIZES = (8, 16, 32)
_WIDTH, _HEADS, _TEXT_LAYERS = 96, 3, 2
_MAX_TOKENS = 1536  # enough for nearly every word of `demo_texts` to be one token
_CAPTIONS_FOR_TOKENIZER = 300  # these hold every word of the captions; more would outweigh the other texts

_LARGEST_BATCH = 1024
_POSITION_SIZE = 0.5  # standard deviation; that of embedded patches is about 0.4
_LEARNING_RATE = 2e-3
_BETAS = (0.9, 0.98)
_WEIGHT_DECAY = 0.05
_WARMUP = 0.1  # share of the steps
_MAX_GRAD_NORM = 1.0
_LARGEST_LOGIT_SCALE = 100.0  # as in CLIP

_GALLERY = 100  # pictures and captions that retrieval chooses among
_NUM_GALLERIES = 8


def pretrain_clip(
    folder: str | os.PathLike[str],
    *,
    patch_size: int = 16,
    num_layers: int = 2,
    num_pairs: int = 16000,
    num_steps: int = 650,
    batch_size: int = 64,
    seed: int = 0,
) -> float:
    """Trains a small CLIP and saves it as `folder`, which appears complete or not at all; does nothing if it is there.

    The weights are a function of the arguments on the same machine with the same number of threads.

    Args:
        folder: the folder to make; `CLIPModel.from_pretrained` and `XCLIPModel.from_clip` read it.
        patch_size: of the image tower: 8, 16 or 32.
        num_layers: of the image tower.
        num_pairs: pictures to train on.
        num_steps: batches to train on.
        batch_size: pairs in a batch, no two with the same size, colour, outline and place.
        seed: any integer; another one gives other weights and other pictures.

    Returns:
        How often, of 0 to 1, the caption of a held-out picture is found among those of 100.

    Raises:
        ValueError: a parameter is out of range, or `folder` holds something else: a CLIP made with other parameters, or
            files that this function did not write.
    """
    texts = demo_texts()
    parameters = {
        "format_version": FORMAT_VERSION,
        "patch_size": patch_size,
        "num_layers": num_layers,
        "num_pairs": num_pairs,
        "num_steps": num_steps,
        "batch_size": batch_size,
        "seed": seed,
        "texts_sha256": hashlib.sha256("\n".join(texts).encode()).hexdigest(),
    }
    _check_ranges(parameters)
    folder = Path(folder)
    finished = _read_finished(folder, parameters)
    if finished is not None:
        return finished
    pairs = _render(seed, "train", num_pairs)
    tokenizer = small_tokenizer(
        [*texts, *(pair.caption for pair in pairs[:_CAPTIONS_FOR_TOKENIZER])], max_tokens=_MAX_TOKENS
    )
    with torch.random.fork_rng(devices=[]):  # the caller's random numbers stay as they are
        torch.manual_seed(seed)
        model = _random_model(_config(tokenizer, patch_size, num_layers))
        _train(model, _tensors(pairs, tokenizer), _batches(pairs, batch_size, seed), num_steps)
    top1 = _retrieval_top1(model, tokenizer, _render(seed, "validation", 2 * _GALLERY * _NUM_GALLERIES))
    _save(folder, model, tokenizer, {"parameters": parameters, "retrieval_top1": top1})
    return top1


def demo_texts() -> list[str]:
    """The class names and descriptions that models made from this CLIP will read, for its tokenizer to know."""
    sets = [load_descriptions(name) for name in ("motion_shapes", "weizmann")]
    described = [text for loaded in sets for texts in loaded.texts for text in texts]
    return [*SEEN_CLASSES, *UNSEEN_CLASSES, *(name for loaded in sets for name in loaded.class_names), *described]


def _config(tokenizer: CLIPTokenizer, patch_size: int, num_layers: int) -> CLIPConfig:
    tower = {"hidden_size": _WIDTH, "intermediate_size": 4 * _WIDTH, "num_attention_heads": _HEADS}
    text = {
        "vocab_size": len(tokenizer),
        "max_position_embeddings": tokenizer.model_max_length,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        "num_hidden_layers": _TEXT_LAYERS,
    }
    vision = {"image_size": IMAGE_SIZE, "patch_size": patch_size, "num_hidden_layers": num_layers}
    return CLIPConfig(text_config=tower | text, vision_config=tower | vision, projection_dim=_WIDTH)


def _random_model(config: CLIPConfig) -> CLIPModel:
    """CLIP's initial weights, but for the positions of patches.

    CLIP's own, N(0, 0.02²), drown in the patches (0.4): the class token learns size and colour, but no place.
    """
    model = CLIPModel(config)
    with torch.no_grad():
        positions = model.vision_model.embeddings.position_embedding.weight
        positions[1:] = _initial_positions(math.isqrt(len(positions) - 1))  # the first is the class token's
    return model


def _initial_positions(side: int) -> torch.Tensor:
    """(side²,D) embeddings of patches row by row: random mixtures of waves along rows and columns."""
    frequencies = torch.arange(1, min(4, side // 2) + 1)  # more would repeat themselves on so few patches
    angles = 2 * math.pi * (torch.arange(side) + 0.5)[:, None] / side * frequencies
    waves = torch.cat([angles.cos() / frequencies, angles.sin() / frequencies], dim=1)  # (side,2F); long ones dominate
    both = torch.cat([waves.repeat_interleave(side, dim=0), waves.repeat(side, 1)], dim=1)  # (side²,4F)
    mixture = torch.randn(both.shape[1], _WIDTH)
    return _POSITION_SIZE * both @ mixture / math.sqrt(2 * sum(1 / frequencies**2))


# Data ---------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Tensors:
    """N pairs: frames uint8 (N,3,H,W), input_ids and attention_mask int64 (N,L)."""

    frames: torch.Tensor
    input_ids: torch.Tensor
    attention_mask: torch.Tensor

    def batch(self, indices: Sequence[int]) -> dict[str, torch.Tensor]:
        """Arguments of `CLIPModel` for B of the pairs, cut to the longest caption among them."""
        chosen = torch.tensor(indices)
        mask = self.attention_mask[chosen]
        length = int(mask.sum(1).max())
        return {
            "pixel_values": normalise(self.frames[chosen], IMAGENET_MEAN, IMAGENET_STD),
            "input_ids": self.input_ids[chosen, :length],
            "attention_mask": mask[:, :length],
        }


def _render(seed: int, split: str, count: int) -> list[CaptionedStill]:
    seeds = [clip_seed(seed, split, "captioned still", index) for index in range(count)]
    return [captioned_still(each, size=IMAGE_SIZE) for each in _progress(seeds, f"Drawing {split} pictures")]


def _tensors(pairs: Sequence[CaptionedStill], tokenizer: CLIPTokenizer) -> _Tensors:
    tokens = tokenizer([pair.caption for pair in pairs], padding=True, return_tensors="pt")
    frames = torch.from_numpy(np.stack([pair.frame for pair in pairs])).permute(0, 3, 1, 2)
    return _Tensors(frames, tokens["input_ids"], tokens["attention_mask"])


def _batches(pairs: Sequence[CaptionedStill], batch_size: int, seed: int) -> Iterator[list[int]]:
    """Batches of indices without end; in none do two pairs have equal facts, as each would be right for the other."""
    rng = np.random.default_rng(seed)
    while True:
        waiting = [int(index) for index in rng.permutation(len(pairs))]
        while batch := _take_distinct(pairs, waiting, batch_size):
            yield batch


def _take_distinct(pairs: Sequence[CaptionedStill], waiting: list[int], count: int) -> list[int]:
    """Takes `count` indices of pairs with different facts from the end of `waiting`; none if there are too few."""
    taken: dict[tuple[str, ...], int] = {}
    passed_over = []
    while waiting and len(taken) < count:
        index = waiting.pop()
        if pairs[index].facts in taken:
            passed_over.append(index)
        else:
            taken[pairs[index].facts] = index
    waiting.extend(passed_over)
    return list(taken.values()) if len(taken) == count else []


# Training -----------------------------------------------------------------------------------------------------------


def _train(model: CLIPModel, tensors: _Tensors, batches: Iterator[list[int]], num_steps: int) -> None:
    model.train()
    optimiser = torch.optim.AdamW(_parameter_groups(model), lr=_LEARNING_RATE, betas=_BETAS)
    schedule = get_cosine_schedule_with_warmup(optimiser, math.ceil(_WARMUP * num_steps), num_steps)
    for _ in _progress(range(num_steps), "Pre-training CLIP"):
        model(**tensors.batch(next(batches)), return_loss=True).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), _MAX_GRAD_NORM)
        optimiser.step()
        schedule.step()
        optimiser.zero_grad()
        with torch.no_grad():
            model.logit_scale.clamp_(max=math.log(_LARGEST_LOGIT_SCALE))
    model.eval()


def _parameter_groups(model: CLIPModel) -> list[dict[str, Any]]:
    """Weight decay for matrices only; not for embeddings, where it would shrink those of words in no caption."""
    embeddings = {id(module.weight) for module in model.modules() if isinstance(module, torch.nn.Embedding)}
    matrices = [weight for weight in model.parameters() if weight.ndim > 1 and id(weight) not in embeddings]
    chosen = {id(weight) for weight in matrices}
    others = [weight for weight in model.parameters() if id(weight) not in chosen]
    return [{"params": matrices, "weight_decay": _WEIGHT_DECAY}, {"params": others, "weight_decay": 0.0}]


@torch.no_grad()
def _retrieval_top1(model: CLIPModel, tokenizer: CLIPTokenizer, pairs: Sequence[CaptionedStill]) -> float:
    """The share of pictures whose own caption scores highest, in galleries of pairs with different facts."""
    tensors = _tensors(pairs, tokenizer)
    waiting = list(range(len(pairs)))
    found = []
    for _ in range(_NUM_GALLERIES):
        best = model(**tensors.batch(_take_distinct(pairs, waiting, _GALLERY))).logits_per_image.argmax(1)
        found.append((best == torch.arange(_GALLERY)).float().mean().item())
    return float(np.mean(found))


def _progress(steps: Sequence[Any], title: str) -> Iterator[Any]:
    """`steps` behind a progress bar, which shows on a terminal only."""
    console = Console(stderr=True)
    yield from track(steps, description=title, console=console, disable=not console.is_terminal)


# Files --------------------------------------------------------------------------------------------------------------


def _check_ranges(parameters: dict[str, Any]) -> None:
    for name in ("num_layers", "num_steps"):
        if parameters[name] < 1:
            raise ValueError(f"{name} must be at least 1, got {parameters[name]}")
    if parameters["patch_size"] not in _PATCH_SIZES:
        raise ValueError(f"patch_size must be one of {_PATCH_SIZES}, got {parameters['patch_size']}")
    if not 2 <= parameters["batch_size"] <= _LARGEST_BATCH:
        raise ValueError(
            f"batch_size must be from 2 to {_LARGEST_BATCH}, got {parameters['batch_size']}: "
            "one is no contrast, and more pictures than that are rarely all different"
        )
    if parameters["num_pairs"] < 4 * parameters["batch_size"]:
        raise ValueError(
            f"num_pairs must be at least 4 x batch_size, got {parameters['num_pairs']}: "
            "batches of different pictures are drawn from them"
        )


def _read_finished(folder: Path, parameters: dict[str, Any]) -> float | None:
    """The retrieval of the CLIP in `folder`, None if there is nothing yet; raises if it is another one, or no CLIP."""
    manifest = folder / MANIFEST_NAME
    if not manifest.exists():
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise ValueError(f"{folder} exists and has no {MANIFEST_NAME}; choose a new folder")
        return None
    content = json.loads(manifest.read_text("utf-8"))
    found = content["parameters"]
    differences = [
        f"{name} is {found.get(name)} there, {parameters.get(name)} wanted"
        for name in sorted(found.keys() | parameters.keys())
        if found.get(name) != parameters.get(name)
    ]
    if differences:
        raise ValueError(
            f"{manifest} was made with other parameters: {'; '.join(differences)}. "
            f"Delete {folder}, choose another folder, or ask for the same parameters"
        )
    return float(content["retrieval_top1"])


def _save(folder: Path, model: CLIPModel, tokenizer: CLIPTokenizer, manifest: dict[str, Any]) -> None:
    unfinished = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    unfinished.mkdir(parents=True)
    try:
        model.save_pretrained(unfinished)
        tokenizer.save_pretrained(unfinished)
        CLIPImageProcessorPil(
            size={"shortest_edge": IMAGE_SIZE},
            crop_size={"height": IMAGE_SIZE, "width": IMAGE_SIZE},
            image_mean=list(IMAGENET_MEAN),
            image_std=list(IMAGENET_STD),
        ).save_pretrained(unfinished)
        (unfinished / MANIFEST_NAME).write_text(json.dumps(manifest, indent=2) + "\n", "utf-8")
        if folder.exists():
            folder.rmdir()  # empty, as was checked
        os.replace(unfinished, folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _main() -> None:
    parser = argparse.ArgumentParser(description="Pre-trains a small CLIP on captioned pictures of shapes.")
    parser.add_argument("folder", type=Path, help="receives the model, its tokenizer and its image processor")
    folder = parser.parse_args().folder
    torch.set_num_threads(1)  # one thread is as fast at this size, and the weights do not depend on the machine's cores
    top1 = pretrain_clip(folder)
    Console().print(f"{folder}: finds the caption of a held-out picture among {_GALLERY} in {top1:.1%} of cases")


if __name__ == "__main__":
    _main()
