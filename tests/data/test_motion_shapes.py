"""What the rendered clips promise: motion tells the class, a single frame does not, and the folder can be trusted.

Motion is measured in the rendered pixels, as their difference from the background, which the seed alone determines.
"""

from __future__ import annotations

import json
from pathlib import Path

import av
import numpy as np
import pytest

from kinetext.data import motion_shapes
from kinetext.data.motion_shapes import (
    FORMAT_VERSION,
    SEEN_CLASSES,
    UNSEEN_CLASSES,
    clip_seed,
    clip_trajectory,
    render_clip,
    write_clip,
    write_motion_shapes,
)

DIRECTIONS = {  # (right, down) of each translation
    "moving left": (-1, 0),
    "moving right": (1, 0),
    "moving up": (0, -1),
    "moving down": (0, 1),
    "moving up and left": (-1, -1),
    "moving up and right": (1, -1),
    "moving down and left": (-1, 1),
    "moving down and right": (1, 1),
}
TINY = {"train_per_class": 2, "validation_per_class": 1, "unseen_per_class": 1, "size": 32, "num_frames": 4}
SEEDS = range(12)


# Measurements on pixels ---------------------------------------------------------------------------------------------


def shape_masks(class_name: str, seed: int) -> np.ndarray:
    """How much each pixel belongs to the shape, (T,H,W), as its difference from the background."""
    background = motion_shapes._appearance(np.random.default_rng((seed, 0)), 64).background * 255
    difference = np.abs(render_clip(class_name, seed) - background).mean(-1)
    return np.where(difference > 4, difference, 0.0)


def torus_steps(masks: np.ndarray) -> np.ndarray:
    """The step of the shape from frame to frame, (T-1,2), right and down, in fractions of the frame."""
    waves = np.exp(2j * np.pi * np.arange(masks.shape[-1]) / masks.shape[-1])
    positions = np.stack([masks.sum(1) @ waves, masks.sum(2) @ waves], axis=1)
    return np.angle(positions[1:] * positions[:-1].conj()) / (2 * np.pi)


def turning_steps(masks: np.ndarray) -> np.ndarray:
    """The turn of the shape from frame to frame, (T-1,), in degrees clockwise, by a third moment of its pixels."""
    size = masks.shape[-1]
    waves = np.exp(2j * np.pi * np.arange(size) / size)
    moments = []
    for mask in masks:
        x, y = (np.angle(mask.sum(axis) @ waves) / (2 * np.pi) * size for axis in (0, 1))
        centred = np.roll(mask, (size // 2 - round(y), size // 2 - round(x)), axis=(0, 1))
        rows, columns = np.indices(centred.shape)
        offset = columns + 1j * rows
        offset = offset - (centred * offset).sum() / centred.sum()
        moments.append((centred * offset**2 * offset.conj()).sum())
    return np.degrees(np.angle(np.array(moments[1:]) / np.array(moments[:-1])))


def growth(masks: np.ndarray) -> float:
    """How many times longer the shape is at the end than at the start."""
    areas = masks.sum((1, 2))
    return float(np.sqrt(areas[-1] / areas[0]))


# Motion -------------------------------------------------------------------------------------------------------------


def test_class_names_are_the_twenty_published_ones() -> None:
    assert len(set(SEEN_CLASSES)) == len(SEEN_CLASSES) == 16
    assert len(UNSEEN_CLASSES) == 4
    assert set(DIRECTIONS) < set(SEEN_CLASSES)
    assert not set(SEEN_CLASSES) & set(UNSEEN_CLASSES)


def test_unseen_classes_are_named_in_words_of_seen_ones() -> None:
    words_seen = {word for name in SEEN_CLASSES for word in name.split()}
    assert {word for name in UNSEEN_CLASSES for word in name.split()} <= words_seen


@pytest.mark.parametrize(("class_name", "direction"), DIRECTIONS.items())
def test_translation_goes_where_its_name_says(class_name: str, direction: tuple[int, int]) -> None:
    for seed in SEEDS:
        displacement = torus_steps(shape_masks(class_name, seed)).sum(0)
        distance = np.linalg.norm(displacement)
        assert 0.33 < distance < 0.82
        np.testing.assert_allclose(displacement / distance, direction / np.linalg.norm(direction), atol=0.06)


@pytest.mark.parametrize(
    ("class_name", "sign"),
    [
        ("rotating clockwise", 1),
        ("rotating counterclockwise", -1),
        ("rotating clockwise and moving up", 1),
        ("rotating counterclockwise and moving down", -1),
    ],
)
def test_rotation_turns_as_the_viewer_sees_it(class_name: str, sign: int) -> None:
    turns = np.array([turning_steps(shape_masks(class_name, seed)).sum() for seed in range(30)])
    assert np.all(sign * turns > 100)
    assert np.all(sign * turns < 290)


@pytest.mark.parametrize("outline", motion_shapes._OUTLINES)
def test_every_outline_shows_its_rotation(outline: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(motion_shapes, "_OUTLINES", {outline: motion_shapes._OUTLINES[outline]})
    assert turning_steps(shape_masks("rotating clockwise", 3)).sum() > 100


@pytest.mark.parametrize("class_name", ["rotating clockwise", "growing", "shrinking"])
def test_what_happens_in_place_stays_in_place(class_name: str) -> None:
    for seed in SEEDS:
        assert np.abs(torus_steps(shape_masks(class_name, seed)).sum(0)).max() < 0.04


def test_growing_grows_and_shrinking_shrinks() -> None:
    for seed in SEEDS:
        assert 1.8 < growth(shape_masks("growing", seed)) < 3.1
        assert 1.8 < 1 / growth(shape_masks("shrinking", seed)) < 3.1


@pytest.mark.parametrize(("class_name", "sign"), [("orbiting clockwise", 1), ("orbiting counterclockwise", -1)])
def test_orbit_bends_one_way_for_about_a_turn(class_name: str, sign: int) -> None:
    for seed in SEEDS:
        steps = torus_steps(shape_masks(class_name, seed)) @ (1, 1j)
        bends = sign * np.degrees(np.angle(steps[1:] / steps[:-1]))
        assert 245 < bends.sum() < 430


def test_bouncing_goes_up_and_down_twice_and_returns() -> None:
    for seed in SEEDS:
        right, down = torus_steps(shape_masks("bouncing", seed)).T
        assert np.abs(right).max() < 0.02
        assert abs(down.sum()) < 0.03
        assert 3 <= np.count_nonzero(np.diff(np.sign(down))) <= 4


def test_zigzagging_goes_to_either_side_with_turns_up_and_down() -> None:
    sides = set()
    for seed in SEEDS:
        right, down = torus_steps(shape_masks("zigzagging", seed)).T
        assert 0.42 < abs(right.sum()) < 0.83
        assert abs(down.sum()) < 0.03
        assert np.ptp(np.cumsum(down)) > 0.15
        sides.add(np.sign(right.sum()))
    assert sides == {-1, 1}


def test_shape_fits_into_the_frame_in_every_class() -> None:
    for class_name in SEEN_CLASSES + UNSEEN_CLASSES:
        radii = np.concatenate([clip_trajectory(class_name, seed).radius for seed in range(100)])
        assert radii.min() > 0.09
        assert radii.max() < 0.42


# Appearance ---------------------------------------------------------------------------------------------------------


def test_clip_is_a_pure_function_of_its_arguments() -> None:
    clip = render_clip("growing", 5, num_frames=6, size=48)
    assert clip.dtype == np.uint8 and clip.shape == (6, 48, 48, 3)
    np.testing.assert_array_equal(clip, render_clip("growing", 5, num_frames=6, size=48))
    assert not np.array_equal(clip, render_clip("growing", 6, num_frames=6, size=48))


def test_trajectory_is_the_rendered_one() -> None:
    path = clip_trajectory("moving down and left", 8)
    steps = np.diff(np.stack([path.x, path.y], axis=1), axis=0)
    np.testing.assert_allclose(torus_steps(shape_masks("moving down and left", 8)), steps, atol=0.01)


def test_shape_stands_out_from_the_background() -> None:
    luma = np.array([0.299, 0.587, 0.114])
    for seed in range(100):
        look = motion_shapes._appearance(np.random.default_rng(seed), 64)
        assert np.abs(look.background @ luma - look.colour @ luma).min() > 0.15


def test_unknown_class_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"'moving sideways'.*moving left.*growing and moving right"):
        render_clip("moving sideways", 0)


def test_pose_in_a_random_frame_is_distributed_alike_in_all_classes() -> None:
    def poses(class_name: str) -> np.ndarray:
        paths = [clip_trajectory(class_name, clip_seed(0, "pose", class_name, index)) for index in range(400)]
        values = [np.concatenate([getattr(path, name) for path in paths]) for name in ("x", "y", "angle", "radius")]
        return np.stack([values[0] % 1, values[1] % 1, values[2] / (2 * np.pi) % 1, values[3]])

    pooled = {class_name: poses(class_name) for class_name in SEEN_CLASSES}
    quantiles = np.linspace(0.05, 0.95, 19)
    everywhere = np.quantile(np.concatenate(list(pooled.values()), axis=1), quantiles, axis=1)  # (19,4)
    for values in pooled.values():
        shares = (values[:, None, :] <= everywhere.T[:, :, None]).mean(-1)  # (4,19)
        assert np.abs(shares - quantiles).max() < 0.1


def test_single_frame_says_nothing_but_motion_does() -> None:
    clips_per_class, num_classes = 30, len(SEEN_CLASSES)
    labels = np.repeat(np.arange(num_classes), clips_per_class)
    is_train = np.tile(np.arange(clips_per_class) < clips_per_class // 2, num_classes)
    rng = np.random.default_rng(0)
    frames, motions = [], []
    for class_name in SEEN_CLASSES:
        for index in range(clips_per_class):
            clip = render_clip(class_name, clip_seed(0, "probe", class_name, index))
            frame = clip[rng.integers(len(clip))].astype(float)
            frame = np.abs(frame - np.median(frame, axis=(0, 1)))  # so that the probe sees a shape, whatever its colour
            frames.append(frame.mean(-1).reshape(16, 4, 16, 4).mean((1, 3)).ravel())
            motions.append(clip.astype(float))

    assert probe_accuracy(np.stack(frames), labels, is_train) <= 0.15  # chance: 0.0625

    correct = []
    for label, clip in zip(labels, motions, strict=True):
        if label < 2:  # left or right
            difference = np.abs(clip - np.median(clip, axis=0)).mean(-1)
            correct.append((torus_steps(difference).sum(0)[0] > 0) == (label == 1))
    assert np.mean(correct) > 0.9


def probe_accuracy(features: np.ndarray, labels: np.ndarray, is_train: np.ndarray) -> float:
    """The better of nearest centroid and ridge regression, fitted on one half, tested on the other."""
    features = (features - features[is_train].mean(0)) / (features[is_train].std() + 1e-6)
    train, test, one_hot = features[is_train], features[~is_train], np.eye(labels.max() + 1)[labels[is_train]]
    centroids = one_hot.T @ train / one_hot.sum(0)[:, None]
    nearest = np.linalg.norm(test[:, None] - centroids, axis=-1).argmin(1)
    weights = np.linalg.solve(train.T @ train + 10 * np.eye(train.shape[1]), train.T @ (one_hot - one_hot.mean(0)))
    linear = (test @ weights).argmax(1)
    return max(float((guess == labels[~is_train]).mean()) for guess in (nearest, linear))


# Files --------------------------------------------------------------------------------------------------------------


def decode(path: Path) -> np.ndarray:
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def contents(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def tiny_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("motion_shapes")
    write_motion_shapes(root, **TINY, workers=1)
    return root


def test_written_clip_decodes_to_nearly_the_same_frames(tmp_path: Path) -> None:
    frames = render_clip("zigzagging", 1)
    write_clip(frames, tmp_path / "clip.mp4", fps=16)
    decoded = decode(tmp_path / "clip.mp4")
    assert decoded.shape == frames.shape
    assert np.abs(decoded.astype(int) - frames).mean() < 4
    assert [path.name for path in tmp_path.iterdir()] == ["clip.mp4"]


def test_failed_write_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "clip.mp4").mkdir()  # so that the last step, the renaming, fails
    with pytest.raises(OSError):
        write_clip(render_clip("growing", 1), tmp_path / "clip.mp4", fps=16)
    assert [path.name for path in tmp_path.iterdir()] == ["clip.mp4"]


def test_folder_is_laid_out_as_documented(tiny_root: Path) -> None:
    clips = sorted(str(path.relative_to(tiny_root)) for path in tiny_root.rglob("*.mp4"))
    assert len(clips) == 16 * (2 + 1) + 4 * 1
    assert "train/moving_up_and_left/moving_up_and_left_00001.mp4" in clips
    folders = {
        split: {path.name for path in (tiny_root / split).iterdir()} for split in ("train", "validation", "unseen")
    }
    assert folders["train"] == folders["validation"] == {name.replace(" ", "_") for name in SEEN_CLASSES}
    assert folders["unseen"] == {name.replace(" ", "_") for name in UNSEEN_CLASSES}
    assert decode(tiny_root / clips[0]).shape == (4, 32, 32, 3)
    manifest = json.loads((tiny_root / "motion_shapes.json").read_text())
    assert manifest == TINY | {"format_version": FORMAT_VERSION, "seed": 0, "fps": 16}
    assert len(list(tiny_root.iterdir())) == 4


def test_no_two_clips_share_a_seed() -> None:
    seeds = {
        clip_seed(seed, split, class_name, index)
        for seed in (0, 1)
        for split in ("train", "validation")
        for class_name in SEEN_CLASSES
        for index in range(50)
    }
    assert len(seeds) == 2 * 2 * 16 * 50


def test_second_call_touches_nothing(tiny_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = {path: path.stat().st_mtime_ns for path in tiny_root.rglob("*")}
    monkeypatch.setattr(motion_shapes, "render_clip", None)
    write_motion_shapes(tiny_root, **TINY)
    assert {path: path.stat().st_mtime_ns for path in tiny_root.rglob("*")} == before


def test_number_of_workers_does_not_change_a_byte(
    tiny_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(motion_shapes, "CLIPS_PER_WORKER", 1)
    write_motion_shapes(tmp_path, **TINY, workers=2)
    assert contents(tmp_path) == contents(tiny_root)


def test_interrupted_run_continues(tiny_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(frames: np.ndarray, path: Path, *, fps: int) -> None:
        if len(list(tmp_path.rglob("*.mp4"))) == 5:
            raise KeyboardInterrupt
        write_clip(frames, path, fps=fps)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(motion_shapes, "write_clip", interrupt)
        write_motion_shapes(tmp_path, **TINY, workers=1)
    assert not (tmp_path / "motion_shapes.json").exists()
    kept = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.mp4")}
    assert len(kept) == 5

    with pytest.raises(ValueError, match="seed is 0 there, 1 wanted"):
        write_motion_shapes(tmp_path, **TINY, seed=1)
    write_motion_shapes(tmp_path, **TINY, workers=1)
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    assert contents(tmp_path) == contents(tiny_root)


def test_deleted_clip_is_rendered_again(tmp_path: Path) -> None:
    write_motion_shapes(tmp_path, **TINY, workers=1)
    before = contents(tmp_path)
    (tmp_path / "validation/growing/growing_00000.mp4").unlink()
    write_motion_shapes(tmp_path, **TINY, workers=1)
    assert contents(tmp_path) == before


def test_other_parameters_are_refused_with_the_way_out(tiny_root: Path) -> None:
    with pytest.raises(ValueError, match=r"train_per_class is 2 there, 3 wanted\. Delete .*, choose another folder"):
        write_motion_shapes(tiny_root, **TINY | {"train_per_class": 3})


def test_folder_of_somebody_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    with pytest.raises(ValueError, match=r"'train' but no motion_shapes\.json; choose an empty folder"):
        write_motion_shapes(tmp_path, **TINY)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"size": 33}, "size must be even"),
        ({"size": 8}, "size must be at least 16, got 8"),
        ({"num_frames": 1}, "num_frames must be at least 2, got 1"),
        ({"fps": 0}, "fps must be at least 1, got 0"),
        ({"unseen_per_class": -1}, "unseen_per_class must be at least 0, got -1"),
    ],
)
def test_parameters_out_of_range_are_refused(tmp_path: Path, wrong: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        write_motion_shapes(tmp_path / "new", **TINY | wrong)
    assert not (tmp_path / "new").exists()
