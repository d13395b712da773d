"""Draws by their distributions, pixels against Pillow and colorsys, and the same numbers in any batch."""

import colorsys
import math
import pickle
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance

from kinetext.data.augmentation import (
    Augmentation,
    ClipDraw,
    crop_pixels,
    draw_clip,
    finish_pixels,
    flip_twins,
)
from kinetext.data.label_lists import load_label_list
from kinetext.processing.processing_video_text import IMAGENET_MEAN, IMAGENET_STD

SIZE, NUM_FRAMES = 24, 4
ADJUSTMENTS = ("brightness", "contrast", "saturation", "hue")
UNTOUCHED = ClipDraw(box=(0, 0, SIZE, SIZE), flip=False, jitter=(), grayscale=False)
WHOLE = (0.0,) * 3, (1 / 255,) * 3  # mean and standard deviation that leave 0..255


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def draws(count: int, *, height: int = 256, width: int = 340, size: int = 224, **changes: Any) -> list[ClipDraw]:
    """Draws of one stream."""
    stream, augmentation = generator(), Augmentation(**changes)
    return [draw_clip(augmentation, height, width, NUM_FRAMES, size, stream) for _ in range(count)]


def colourful(num_clips: int = 1, seed: int = 0) -> torch.Tensor:
    """uint8 (B,T,3,S,S) of random colours, with pure greys, black, white and full colours among them."""
    pixels = torch.randint(0, 256, (num_clips, NUM_FRAMES, 3, SIZE, SIZE), dtype=torch.uint8, generator=generator(seed))
    pixels[..., 0, :] = pixels[..., :1, 0, :]
    corners = [0, 255]
    pixels[..., 1, :8] = torch.cartesian_prod(*[torch.tensor(corners, dtype=torch.uint8)] * 3).T
    return pixels


def finished(pixels: torch.Tensor, *clip_draws: ClipDraw) -> torch.Tensor:
    """uint8 (B,T,3,S,S) after the draws."""
    values = finish_pixels(pixels, clip_draws, *WHOLE)
    assert torch.equal(values, values.round())
    return values.to(torch.uint8)


def jittered(*adjustments: tuple[str, float]) -> ClipDraw:
    """The same adjustments for every frame."""
    return replace(UNTOUCHED, jitter=(adjustments,) * NUM_FRAMES)


def images(clip: torch.Tensor) -> list[Image.Image]:
    return [Image.fromarray(frame.permute(1, 2, 0).numpy()) for frame in clip]


def pixels_of(frames: Sequence[Image.Image]) -> torch.Tensor:
    return torch.stack([torch.from_numpy(np.array(frame.convert("RGB"))).permute(2, 0, 1) for frame in frames])


# Settings


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("crop", "center", "unknown crop 'center'; choose one of multi_scale, random_resized, centre."),
        ("color_jitter_per", "video", "unknown color_jitter_per 'video'; choose one of frame, clip."),
        ("flip_probability", 1.5, "flip_probability=1.5 is no probability; choose one between 0 and 1."),
        ("color_jitter_probability", -0.1, "color_jitter_probability=-0.1 is no probability"),
        ("grayscale_probability", math.nan, "grayscale_probability=nan is no probability"),
        ("random_resized_scale", (0.0, 1.0), "random_resized_scale=(0.0, 1.0) must be the smallest and the largest"),
        ("random_resized_scale", (0.5, 0.4), "0 < a <= b <= 1."),
        ("random_resized_scale", (0.5,), "random_resized_scale=(0.5,) must be"),
        ("color_jitter", (0.4, 0.4, 0.2), "color_jitter=(0.4, 0.4, 0.2) must be four strengths of at least 0"),
        ("color_jitter", (0.4, -0.4, 0.2, 0.1), "must be four strengths of at least 0"),
        ("color_jitter", (0.4, 0.4, 0.2, 0.6), "hue, the last at most 0.5"),
    ],
)
def test_settings_that_mean_nothing_are_refused(field: str, value: Any, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        Augmentation(**{field: value})


# Draws


@pytest.mark.parametrize("probability", [0.0, 0.25, 1.0])
@pytest.mark.parametrize("choice", ["flip", "color_jitter", "grayscale"])
def test_every_choice_comes_with_its_probability(choice: str, probability: float) -> None:
    name = {"flip": "flip", "color_jitter": "jitter", "grayscale": "grayscale"}[choice]
    share = sum(bool(getattr(draw, name)) for draw in draws(2000, **{f"{choice}_probability": probability})) / 2000
    assert share == pytest.approx(probability, abs=0.03 if 0 < probability < 1 else 0)


def test_the_defaults_are_those_of_xclip() -> None:
    drawn = draws(3000)
    shares = np.mean([(draw.flip, bool(draw.jitter), draw.grayscale) for draw in drawn], axis=0)
    assert shares == pytest.approx([0.5, 0.8, 0.2], abs=0.03)
    assert len({draw.box[2:] for draw in drawn}) == 10


def test_choices_are_drawn_independently() -> None:
    counts = Counter(
        (draw.flip, bool(draw.jitter), draw.grayscale)
        for draw in draws(4000, color_jitter_probability=0.5, grayscale_probability=0.5)
    )
    assert len(counts) == 8
    assert all(count / 4000 == pytest.approx(1 / 8, abs=0.02) for count in counts.values())


def factors_of(draw: ClipDraw) -> list[list[float]]:
    """(T,4) in the order of ADJUSTMENTS."""
    return [[dict(frame)[name] for name in ADJUSTMENTS] for frame in draw.jitter]


def test_factors_fill_their_ranges_uniformly() -> None:
    strengths = (0.4, 1.5, 0.2, 0.1)
    factors = np.array([factors_of(draw) for draw in draws(2000, color_jitter_probability=1, color_jitter=strengths)])
    for drawn, (low, high) in zip(
        factors.reshape(-1, 4).T, ((0.6, 1.4), (0.0, 2.5), (0.8, 1.2), (-0.1, 0.1)), strict=True
    ):
        assert low <= drawn.min() + 1e-6 and drawn.max() <= high + 1e-6
        quartiles = np.quantile(drawn, [0.25, 0.5, 0.75])
        assert quartiles == pytest.approx(np.linspace(low, high, 5)[1:4], abs=0.02 * (high - low))


def test_all_orders_of_the_adjustments_are_equally_likely() -> None:
    orders = Counter(
        tuple(name for name, _ in frame) for draw in draws(1500, color_jitter_probability=1) for frame in draw.jitter
    )
    assert len(orders) == 24
    assert all(set(order) == set(ADJUSTMENTS) for order in orders)
    assert all(count / 6000 == pytest.approx(1 / 24, abs=0.015) for count in orders.values())


def test_colours_are_drawn_per_frame_or_per_clip() -> None:
    for draw in draws(20, color_jitter_probability=1, color_jitter_per="frame"):
        assert len(draw.jitter) == len(set(draw.jitter)) == NUM_FRAMES
    per_clip = draws(20, color_jitter_probability=1, color_jitter_per="clip")
    assert all(len(draw.jitter) == NUM_FRAMES and len(set(draw.jitter)) == 1 for draw in per_clip)
    assert len({draw.jitter for draw in per_clip}) == 20


def test_draws_depend_on_their_generator_alone() -> None:
    augmentation = Augmentation()
    first, same, other = (draw_clip(augmentation, 256, 340, NUM_FRAMES, 224, generator(seed)) for seed in (1, 1, 2))
    torch.manual_seed(5)
    assert first == same == draw_clip(augmentation, 256, 340, NUM_FRAMES, 224, generator(1))
    assert first != other
    assert pickle.loads(pickle.dumps(first)) == first  # they travel from workers


# Crops


def five_places(height: int, width: int, crop_height: int, crop_width: int) -> set[tuple[int, int]]:
    row, column = (height - crop_height) // 4, (width - crop_width) // 4
    return {(y * row, x * column) for y, x in ((0, 0), (0, 4), (4, 0), (4, 4), (2, 2))}


@pytest.mark.parametrize(("height", "width"), [(256, 256), (256, 341), (341, 256)], ids=str)
def test_multi_scale_crop_takes_ten_sizes_at_five_places(height: int, width: int) -> None:
    boxes = Counter(draw.box for draw in draws(6000, height=height, width=width))
    sides = [256, 224, 192, 168]  # VideoX `build.py`
    sizes = [(h, w) for i, h in enumerate(sides) for w in sides[max(0, i - 1) : i + 2]]
    assert len(sizes) == 10
    assert set(boxes) == {(*place, *size) for size in sizes for place in five_places(height, width, *size)}
    of_sizes = Counter({size: sum(n for box, n in boxes.items() if box[2:] == size) for size in sizes})
    assert all(count / 6000 == pytest.approx(0.1, abs=0.02) for count in of_sizes.values())
    small = {box: count for box, count in boxes.items() if box[2:] == (192, 192)}
    assert all(count / sum(small.values()) == pytest.approx(0.2, abs=0.06) for count in small.values())


def test_multi_scale_crop_snaps_sides_close_to_the_wanted_one() -> None:
    assert {draw.box[3] for draw in draws(200, height=38, width=38, size=32)} == {38, 32, 28, 25}  # 33 became 32
    assert {draw.box[3] for draw in draws(200, height=40, width=40, size=32)} == {40, 35, 30, 26} - {35, 30} | {32}


def test_multi_scale_crop_does_not_snap_beyond_the_frame() -> None:
    assert {draw.box[2] for draw in draws(200, height=30, width=60, size=32)} == {30, 26, 22, 19}


def published_random_resized_box(height: int, width: int, scale: tuple[float, float], chances: Any) -> tuple[int, ...]:
    """torchvision's RandomResizedCrop, written down again with another random stream."""
    for _ in range(10):
        area = height * width * chances.uniform(*scale)
        ratio = math.exp(chances.uniform(math.log(3 / 4), math.log(4 / 3)))
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            return int(chances.integers(0, height - h + 1)), int(chances.integers(0, width - w + 1)), h, w
    if width / height < 3 / 4:
        h, w = round(width / (3 / 4)), width
    elif width / height > 4 / 3:
        h, w = height, round(height * (4 / 3))
    else:
        h, w = height, width
    return (height - h) // 2, (width - w) // 2, h, w


@pytest.mark.parametrize(("height", "width"), [(256, 340), (340, 256), (100, 300)], ids=str)
@pytest.mark.parametrize("scale", [(0.08, 1.0), (0.4, 1.0), (0.9, 1.0)], ids=str)
def test_random_resized_crop_is_distributed_as_in_torchvision(
    scale: tuple[float, float], height: int, width: int
) -> None:
    drawn = draws(2000, height=height, width=width, crop="random_resized", random_resized_scale=scale)
    chances = np.random.default_rng(0)
    ours = np.array([draw.box for draw in drawn])
    theirs = np.array([published_random_resized_box(height, width, scale, chances) for _ in range(8000)])
    for own, published in zip(ours.T, theirs.T, strict=True):
        places = np.arange(max(height, width) + 1)
        distance = [np.searchsorted(np.sort(values), places, side="right") / len(values) for values in (own, published)]
        assert np.abs(distance[0] - distance[1]).max() < 0.05
    assert (ours[:, 0] + ours[:, 2] <= height).all() and (ours[:, 1] + ours[:, 3] <= width).all()


@pytest.mark.parametrize(
    ("height", "width", "box"), [(20, 400, (0, 186, 20, 27)), (400, 20, (186, 0, 27, 20)), (1, 1, (0, 0, 1, 1))]
)
def test_random_resized_crop_falls_back_to_the_centre(height: int, width: int, box: tuple[int, ...]) -> None:
    drawn = draws(20, height=height, width=width, crop="random_resized", random_resized_scale=(1.0, 1.0))
    assert {draw.box for draw in drawn} == {box}


def test_the_centre_crop_draws_nothing() -> None:
    assert {draw.box for draw in draws(5, crop="centre")} == {(16, 58, 224, 224)}
    assert {draw.box for draw in draws(5, crop="centre", height=100, width=340)} == {(0, 58, 100, 224)}


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_the_drawn_box_is_cut_out_and_resized(interpolation: str) -> None:
    frames = torch.linspace(0, 255, 60 * 80).view(1, 1, 60, 80).expand(NUM_FRAMES, 3, 60, 80).to(torch.uint8)
    crop = crop_pixels(frames, replace(UNTOUCHED, box=(5, 10, 40, 30)), SIZE, interpolation)
    assert (crop.dtype, crop.shape) == (torch.uint8, (NUM_FRAMES, 3, SIZE, SIZE))
    way = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}[interpolation]
    expected = [image.crop((10, 5, 40, 45)).resize((SIZE, SIZE), way) for image in images(frames)]
    assert (crop.int() - pixels_of(expected).int()).abs().max() <= 1


def test_a_crop_of_the_right_size_holds_no_more_memory_than_it_needs() -> None:
    crop = crop_pixels(torch.zeros(NUM_FRAMES, 3, 60, 80, dtype=torch.uint8), UNTOUCHED, SIZE)
    assert crop.untyped_storage().nbytes() == NUM_FRAMES * 3 * SIZE**2


# Pixels


def test_nothing_drawn_is_normalisation_alone() -> None:
    pixels = colourful()
    values = finish_pixels(pixels, [UNTOUCHED], IMAGENET_MEAN, IMAGENET_STD)
    mean, std = (torch.tensor(statistic).view(3, 1, 1) for statistic in (IMAGENET_MEAN, IMAGENET_STD))
    assert (values.dtype, values.shape) == (torch.float32, pixels.shape)
    torch.testing.assert_close(values, (pixels / 255 - mean) / std, rtol=0, atol=1e-5)


def test_a_flip_mirrors_every_frame_and_twice_is_nothing() -> None:
    pixels, flip = colourful(), replace(UNTOUCHED, flip=True)
    once = finished(pixels, flip)
    assert pixels_of([image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) for image in images(pixels[0])]).equal(once[0])
    assert torch.equal(finished(once, flip), pixels)


def test_grayscale_is_pillows() -> None:
    gray = finished(colourful(), replace(UNTOUCHED, grayscale=True))
    assert torch.equal(gray[0], pixels_of([image.convert("L") for image in images(colourful()[0])]))


@pytest.mark.parametrize("factor", [0.0, 0.3, 0.61, 1.0, 1.37, 2.0])
@pytest.mark.parametrize(
    ("name", "enhance"),
    [("brightness", ImageEnhance.Brightness), ("contrast", ImageEnhance.Contrast), ("saturation", ImageEnhance.Color)],
)
def test_factors_change_pixels_as_pillow_does(name: str, enhance: Any, factor: float) -> None:
    pixels = colourful()
    pixels[0, 1] //= 4  # frames of different means
    changed = finished(pixels, jittered((name, factor)))
    expected = pixels_of([enhance(image).enhance(factor) for image in images(pixels[0])])
    assert torch.equal(changed[0], expected)


@pytest.mark.parametrize("shift", [-0.5, -0.13, 0.07, 1 / 3, 0.5])
def test_hue_turns_as_in_colorsys(shift: float) -> None:
    pixels = colourful()
    changed = finished(pixels, jittered(("hue", shift)))
    for before, after in zip(
        *(each[0].movedim(1, -1).reshape(-1, 3).tolist() for each in (pixels, changed)), strict=True
    ):
        hue, saturation, value = colorsys.rgb_to_hsv(*(channel / 255 for channel in before))
        expected = [channel * 255 for channel in colorsys.hsv_to_rgb((hue + shift) % 1, saturation, value)]
        assert np.abs(np.array(after) - expected).max() <= 0.5 + 1e-3


@pytest.mark.parametrize("steps", [-25, 10, 64])
def test_hue_turns_as_in_pillow_within_its_rounding(steps: int) -> None:
    """Pillow keeps hue and saturation in whole 256ths, which costs it a few levels."""
    pixels = colourful()
    expected = []
    for image in images(pixels[0]):
        hue, saturation, value = image.convert("HSV").split()
        turned = Image.fromarray((np.array(hue, dtype=int) + steps).astype(np.uint8))
        expected.append(Image.merge("HSV", (turned, saturation, value)).convert("RGB"))
    distance = (finished(pixels, jittered(("hue", steps / 255)))[0].int() - pixels_of(expected).int()).abs()
    assert distance.max() <= 12 and distance.float().mean() < 1.5


@pytest.mark.parametrize("draw", [jittered(("hue", 0.0)), jittered(*((name, 1.0) for name in ADJUSTMENTS[:3]))])
def test_factors_of_one_and_no_turn_change_nothing(draw: ClipDraw) -> None:
    assert torch.equal(finished(colourful(), draw), colourful())


def test_adjustments_are_applied_in_the_drawn_order_of_each_frame() -> None:
    orders = [("brightness", "contrast"), ("contrast", "brightness"), ("hue", "saturation"), ("saturation", "hue")]
    factors = {"brightness": 1.4, "contrast": 0.6, "saturation": 1.9, "hue": 0.2}
    jitter = tuple(
        tuple((name, factors[name]) for name in (*first, *(each for each in ADJUSTMENTS if each not in first)))
        for first in orders
    )
    pixels = colourful()
    together = finished(pixels, replace(UNTOUCHED, jitter=jitter))
    for frame, adjustments in enumerate(jitter):
        alone = pixels
        for adjustment in adjustments:
            alone = finished(alone, jittered(adjustment))
        assert torch.equal(together[0, frame], alone[0, frame])
    assert not torch.equal(
        together, finished(pixels, replace(UNTOUCHED, jitter=jitter[1:] + jitter[:1]))
    )  # the order matters


def test_colours_change_after_the_flip_and_before_they_go() -> None:
    everything = replace(jittered(("saturation", 1.8), ("contrast", 0.5), ("hue", 0.2), ("brightness", 1.3)), flip=True)
    pixels = colourful()
    coloured = finished(pixels, everything)
    assert torch.equal(finished(pixels.flip(-1), replace(everything, flip=False)), coloured)
    gray = finished(pixels, replace(everything, grayscale=True))
    assert torch.equal(gray, finished(coloured, replace(UNTOUCHED, grayscale=True)))


@pytest.mark.parametrize("per", ["frame", "clip"])
def test_a_clip_is_the_same_in_any_batch_and_memory_layout(per: str) -> None:
    pixels, clip_draws = colourful(8), draws(8, color_jitter_per=per)
    assert 0 < sum(bool(draw.jitter) for draw in clip_draws) < 8
    whole = finish_pixels(pixels, clip_draws, IMAGENET_MEAN, IMAGENET_STD)
    for size in (1, 4):
        parts = [
            finish_pixels(pixels[at : at + size], clip_draws[at : at + size], IMAGENET_MEAN, IMAGENET_STD)
            for at in range(0, 8, size)
        ]
        assert torch.equal(torch.cat(parts), whole)
    channels_last = pixels.movedim(2, -1).contiguous().movedim(-1, 2)
    assert torch.equal(finish_pixels(channels_last, clip_draws, IMAGENET_MEAN, IMAGENET_STD), whole)


def test_the_crops_that_were_given_are_left_alone() -> None:
    pixels = colourful(8)
    finish_pixels(pixels, draws(8), IMAGENET_MEAN, IMAGENET_STD)
    assert torch.equal(pixels, colourful(8))


def test_every_clip_needs_its_draw() -> None:
    with pytest.raises(ValueError, match="2 clips and 1 draws; one draw belongs to each clip"):
        finish_pixels(colourful(2), [UNTOUCHED], *WHOLE)


@pytest.mark.gpu
def test_an_accelerator_gives_the_numbers_of_a_worker() -> None:
    pixels, clip_draws = colourful(16), draws(16)
    assert torch.equal(
        finish_pixels(pixels.cuda(), clip_draws, *WHOLE).cpu(), finish_pixels(pixels, clip_draws, *WHOLE)
    )


# Labels


def test_flip_twins_of_something_something_are_the_published_ids() -> None:
    twins = flip_twins("ssv2", load_label_list("ssv2").class_names)
    assert twins == {86: 87, 87: 86, 93: 94, 94: 93, 166: 167, 167: 166}  # DiST `dist.py`, Text4Vis


def test_no_other_class_of_something_something_names_a_side() -> None:
    names = load_label_list("ssv2").class_names
    sided = {index for index, name in enumerate(names) if {"left", "right"} & set(name.lower().split())}
    plugging = names.index("Plugging something into something but pulling it right out as you remove your hand")
    assert sided - {plugging} == set(flip_twins("ssv2", names))


def test_flip_twins_follow_the_names_whatever_their_order_and_spelling() -> None:
    names = ["roll_up", "swing_right", "walk", "swing_left"]
    assert flip_twins({"Swing left": "swing right"}, names) == {1: 3, 3: 1}
    assert flip_twins({}, names) == {}
    assert flip_twins({"wave +": "wave -"}, ["wave +", "wave -", "walk"]) == {0: 1, 1: 0}
    some = ["Pushing something from right to left", "walk", "Pushing [something] from left to right"]
    assert flip_twins("ssv2", some) == {0: 2, 2: 0}


@pytest.mark.parametrize(
    ("swaps", "message"),
    [
        ("k400", "no flip twins are known of 'k400'; choose ssv2 or map class names to class names."),
        (
            {"walk_left": "walk_rigth"},
            "the flip twin 'walk_rigth' is none of the 3 classes (the nearest is 'walk_right'): correct the name, or "
            "set flip_probability to 0 if the class is left out on purpose.",
        ),
        ({"Jump": "jump"}, "'jump' is named as its own flip twin; leave it out, it keeps its label anyway."),
        ({"walk_left": "walk_right", "jump": "walk_left"}, "'walk_left' cannot have two flip twins; name one of them."),
    ],
)
def test_flip_twins_that_cannot_be_are_refused(swaps: Any, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        flip_twins(swaps, ["walk_left", "walk_right", "jump"])


def test_half_a_pair_of_something_something_is_refused() -> None:
    base = load_label_list("ssv2").class_names[:87]  # base classes of ViFi-CLIP: the twin of the last one is novel
    with pytest.raises(ValueError, match="'Pulling something from right to left' is none of the 87 classes"):
        flip_twins("ssv2", base)
