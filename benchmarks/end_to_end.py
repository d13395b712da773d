"""From an mp4 file to the probabilities of 400 classes: transformers' documented recipe, and ours.

python -m benchmarks.end_to_end [--clips 20]

X-CLIP-B/32, 8 frames, one clip at a time, all on the same files, frames and weights (random: speed does not depend on
them). Every clip is measured with each way in turn:

- transformers: what the documentation of its X-CLIP shows. A loop over PyAV's frames, `XCLIPProcessor` (its pixels by
  PIL, as everywhere without torchvision), `XCLIPModel` with the ids of all class names, every time.
- the same with the output of the text tower kept, and the rest of its forward written out.
- kinetext: `VideoTextProcessor` and `XCLIPModel` with a `TextBank`; in fp32 and in bf16.

How far apart the probabilities are is part of the result.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
from rich.console import Console
from transformers.models.videomae.image_processing_pil_videomae import VideoMAEImageProcessorPil
from transformers.models.x_clip.modeling_x_clip import XCLIPModel as StockModel
from transformers.models.x_clip.processing_x_clip import XCLIPProcessor
from transformers.utils import logging

from kinetext import VideoTextProcessor, XCLIPConfig, XCLIPModel
from kinetext.data.label_lists import load_label_list
from kinetext.data.small_tokenizer import small_tokenizer
from kinetext.processing.frame_sampling import sample_frames
from kinetext.processing.processing_video_text import IMAGENET_MEAN, IMAGENET_STD

from .harness import Benchmark, Subject, mark_stage, measure, stage, table_of, writing
from .natural_clips import ClipSet, circumstances_of

NUM_FRAMES, THREADS = 8, 2
PRESET = "base-patch32"
CLASS_NAMES = load_label_list("kinetics400").spoken_names
SIZES = ((340, 256), (854, 480))
CLIPS, CLIPS_OF_MAKE_BENCH = 20, 4  # of each size; a clip takes transformers' recipe seconds
SHORT_GOP = 12  # as `kinetext prepare` writes for training: what seeking gains at most
_MAX_TOKENS = 4096  # enough for the words of the class names, so that there are about as many tokens as in CLIP's
_TOLERANCE = 1e-4  # of probabilities from the same pixels
_DECODE, _PREPROCESS, _TEXT, _IMAGE, _PROMPTS = "decode", "preprocess", "text", "image tower", "prompts"


@functools.cache
def _checkpoint() -> tempfile.TemporaryDirectory[str]:
    """Random weights and a tokenizer, which both libraries load; removed when Python ends.

    The short side is 224 before the crop, as in the checkpoints published for transformers; our default is 256.
    """
    folder = tempfile.TemporaryDirectory()
    torch.manual_seed(0)
    XCLIPModel(XCLIPConfig.preset(PRESET, num_frames=NUM_FRAMES)).save_pretrained(folder.name)
    tokenizer = small_tokenizer(CLASS_NAMES, max_tokens=_MAX_TOKENS)
    VideoTextProcessor(tokenizer, num_frames=NUM_FRAMES, short_side=224).save_pretrained(folder.name)
    return folder


# The ways -----------------------------------------------------------------------------------------------------------


def read_video_pyav(container: Any, indices: Sequence[int]) -> np.ndarray:
    """As in transformers' documentation: decodes from the start and keeps the wanted frames."""
    frames = []
    container.seek(0)
    start_index = indices[0]
    end_index = indices[-1]
    for i, frame in enumerate(container.decode(video=0)):
        if i > end_index:
            break
        if i >= start_index and i in indices:
            frames.append(frame)
    return np.stack([x.to_ndarray(format="rgb24") for x in frames])


class Stock:
    """transformers' recipe; the frames are ours, so that both see the same."""

    def __init__(self, checkpoint: str) -> None:
        tokenizer = VideoTextProcessor.from_pretrained(checkpoint).tokenizer
        statistics = {"image_mean": IMAGENET_MEAN, "image_std": IMAGENET_STD}  # as the checkpoints say
        self.processor = XCLIPProcessor(VideoMAEImageProcessorPil(**statistics), tokenizer)
        self.model = StockModel.from_pretrained(checkpoint).eval()
        mark_stage(self.model.text_model, "forward", _TEXT)
        mark_stage(self.model.vision_model, "forward", _IMAGE)
        mark_stage(self.model.prompts_generator, "forward", _PROMPTS)

    def frames(self, path: Path) -> list[np.ndarray]:
        with stage(_DECODE), av.open(str(path)) as container:
            total_frames = container.streams.video[0].frames
            return list(read_video_pyav(container, sample_frames(total_frames, NUM_FRAMES)[0]))

    def probabilities(self, path: Path) -> torch.Tensor:
        """(400,), with the class names tokenised and encoded anew."""
        video = self.frames(path)
        with stage(_PREPROCESS):
            inputs = self.processor(text=list(CLASS_NAMES), videos=video, return_tensors="pt", padding=True)
        with torch.no_grad():
            outputs = self.model(**inputs)
        return outputs.logits_per_video.softmax(dim=1)[0]


class StockWithTextsKept(Stock):
    """The same for someone who has read `XCLIPModel.forward` and keeps what does not depend on the video."""

    def __init__(self, checkpoint: str) -> None:
        super().__init__(checkpoint)
        tokens = self.processor.tokenizer(list(CLASS_NAMES), return_tensors="pt", padding=True)
        with torch.inference_mode():
            self.text_features = self.model.get_text_features(**tokens).pooler_output  # (N, E)

    def pixel_values(self, path: Path) -> torch.Tensor:
        """(1, T, 3, 224, 224)."""
        video = self.frames(path)
        with stage(_PREPROCESS):
            return self.processor(videos=video, return_tensors="pt").pixel_values

    @torch.inference_mode()
    def probabilities(self, path: Path) -> torch.Tensor:
        """(400,)."""
        return self.logits(self.pixel_values(path)).softmax(dim=1)[0]

    def logits(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """(B, N): `XCLIPModel.forward` without its text tower."""
        model: Any = self.model
        batch_size, num_frames = pixel_values.shape[:2]
        vision_outputs = model.vision_model(pixel_values=pixel_values.flatten(0, 1))
        frame_features = model.visual_projection(vision_outputs.pooler_output).view(batch_size, num_frames, -1)
        video_embeds = model.mit(frame_features).pooler_output
        patches = model.prompts_visual_layernorm(vision_outputs.last_hidden_state[:, 1:])
        patches = patches @ model.prompts_visual_projection
        patches = patches.view(batch_size, num_frames, -1, patches.shape[-1]).mean(dim=1)
        text_embeds = self.text_features.expand(batch_size, -1, -1)
        text_embeds = text_embeds + model.prompts_generator(text_embeds, patches)
        video_embeds = video_embeds / video_embeds.norm(dim=-1, keepdim=True)
        text_embeds = text_embeds / text_embeds.norm(dim=-1, keepdim=True)
        return torch.einsum("bd,bkd->bk", video_embeds, model.logit_scale.exp() * text_embeds)


class Ours:
    """kinetext, with its class texts in a bank."""

    def __init__(self, checkpoint: str, dtype: torch.dtype = torch.float32) -> None:
        self.processor = VideoTextProcessor.from_pretrained(checkpoint)
        self.model = XCLIPModel.from_pretrained(checkpoint, dtype=dtype).eval()
        fingerprint = self.processor.tokenizer_fingerprint
        with torch.inference_mode():
            texts = self.processor(text=list(CLASS_NAMES))
            self.num_tokens = texts["input_ids"].shape[1]
            self.bank = self.model.encode_texts(**texts, names=CLASS_NAMES, tokenizer_fingerprint=fingerprint)
        mark_stage(self.processor, "read_clips", _DECODE)
        mark_stage(self.processor, "transform", _PREPROCESS)
        mark_stage(self.model.vision_model, "forward", _IMAGE)
        mark_stage(self.model.prompts_generator, "forward", _PROMPTS)

    @torch.inference_mode()
    def probabilities(self, path: Path) -> torch.Tensor:
        """(400,)."""
        inputs = self.processor(videos=path, text_bank=self.bank)
        return self.model(**inputs).logits_per_video.softmax(dim=1)[0]


_RECIPE, _KEPT = "transformers", "transformers, texts kept by hand"
_WAYS: dict[str, Callable[[], Any]] = {
    _RECIPE: Stock,
    _KEPT: StockWithTextsKept,
    "kinetext": Ours,
    "kinetext, bf16": functools.partial(Ours, dtype=torch.bfloat16),
}


# Comparing ----------------------------------------------------------------------------------------------------------


def classifying(way: str, clips: ClipSet) -> Callable[[], Any]:
    """A call that classifies the next clip, round and round."""
    paths, made = itertools.cycle(clips.paths()), _WAYS[way](_checkpoint().name)
    return lambda: made.probabilities(next(paths))


def end_to_end(clips: ClipSet, ways: Sequence[str] = tuple(_WAYS)) -> Benchmark:
    """Some ways on one set of clips; a round is a clip."""
    kind = f"{clips.width}x{clips.height}, GOP {clips.gop}"
    others = {word: way for word, way in (("transformers", _RECIPE), ("texts kept", _KEPT)) if way in ways}
    return Benchmark(
        f"mp4 to probabilities of {len(CLASS_NAMES)} classes, X-CLIP-B/32, {NUM_FRAMES} frames, fp32 where nothing "
        f"else is said, {clips.num_clips} clips of 10 s, {kind}",
        tuple(
            Subject(way, classifying, (way, clips), others if way.startswith("kinetext") else {}, work=1)
            for way in ways
        ),
        repeats=clips.num_clips,
        threads=THREADS,
        unit="clips",
        headline=f"mp4 to 400 probabilities, X-CLIP-B/32, {kind}",
    )


def differences(clips: ClipSet) -> dict[str, Any]:
    """How far ours is from transformers, over the clips.

    Raises:
        RuntimeError: if probabilities from the same pixels are further apart than rounding explains.
    """
    ways = [make(_checkpoint().name) for make in _WAYS.values()]
    figures: dict[str, float] = {}
    for path in clips.paths():
        for name, value in differences_of(path, *ways).items():
            figures[name] = max(value, figures.get(name, 0.0))
    if figures["probabilities from the same pixels"] > _TOLERANCE:
        raise RuntimeError(f"kinetext and transformers classify the same pixels differently: {figures}.")
    return {
        "benchmark": f"largest differences between kinetext and transformers, {clips.num_clips} clips of "
        f"{clips.width}x{clips.height}",
        "tokens_of_a_text": ways[-1].num_tokens,
        "figures": [{"name": name, "value": f"{value:.2g}"} for name, value in figures.items()],
    }


@torch.inference_mode()
def differences_of(path: Path, stock: Stock, kept: StockWithTextsKept, ours: Ours, half: Ours) -> dict[str, float]:
    """How far apart the ways are on one file."""

    def apart(first: torch.Tensor, second: torch.Tensor) -> float:
        return float((first.float() - second.float()).abs().max())

    wanted, pixel_values = stock.probabilities(path), kept.pixel_values(path)
    own = ours.processor(videos=path)["pixel_values"]
    same_pixels = ours.model(pixel_values=pixel_values, text_bank=ours.bank).logits_per_video
    levels = torch.tensor(ours.processor.image_std).view(3, 1, 1) * 255
    return {
        "transformers' probabilities, texts kept by hand or not": apart(kept.probabilities(path), wanted),
        "probabilities from the same pixels": apart(same_pixels.softmax(dim=1)[0], wanted),
        "logits from the same pixels": apart(same_pixels, kept.logits(pixel_values)),
        "pixels, levels of 255": apart(own * levels, pixel_values * levels),
        "pixels, levels of 255, mean": float(((own - pixel_values) * levels).abs().mean()),
        "probabilities from files": apart(ours.probabilities(path), wanted),
        "probabilities from files, bf16": apart(half.probabilities(path), wanted),
        "largest probability": float(wanted.max()),
    }


def bench(num_clips: int = CLIPS_OF_MAKE_BENCH) -> None:
    """Measures both sizes, and what short GOPs change; writes results/end_to_end.json."""
    logging.disable_progress_bar()
    with writing("end_to_end") as results:
        for benchmark, clips in _benchmarks(num_clips):
            results.append({**measure(benchmark), "clips": circumstances_of(clips.paths())})
            Console().print(table_of(results[-1]))
        for size in SIZES:
            results.append(differences(ClipSet(*size, max(1, num_clips // 4))))
            Console().print(results[-1])


def _benchmarks(num_clips: int) -> Iterator[tuple[Benchmark, ClipSet]]:
    for size in SIZES:
        clips = ClipSet(*size, num_clips)
        yield end_to_end(clips), clips
    for size in SIZES:
        clips = ClipSet(*size, min(num_clips, CLIPS_OF_MAKE_BENCH), gop=SHORT_GOP)
        yield end_to_end(clips, [way for way in _WAYS if way != _RECIPE]), clips


def main() -> None:
    """Measures; a run with all clips takes transformers' recipe minutes."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.end_to_end", description="From file to probabilities.")
    parser.add_argument("--clips", type=int, default=CLIPS, help=f"clips of each size, {CLIPS} by default")
    bench(parser.parse_args().clips)


if __name__ == "__main__":
    main()
