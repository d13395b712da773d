"""MotionShapes: labelled clips in which appearance says nothing and motion says everything.

One random shape moves over one random, static background. What it does is its class. A clip is an appearance and a
trajectory, drawn from two independent random streams:

    seed ──► appearance: outline, colours, background ─────┐
    seed ──► trajectory: x, y, angle, radius per frame ────┴──► frames (T,H,W,3) ──H.264──► one mp4 per clip
                 ▲
    class name ──┘

No class can be told from one frame taken at random: the frame is a torus (what leaves on the right enters on the
left), every clip starts anywhere, in any orientation, and the size of a shape that keeps it is distributed like that of
one that grows, seen at a random moment. Directions are the viewer's: "up" is towards row 0, "clockwise" is as on a
clock's face.

The folder that `write_motion_shapes` fills holds `{train,validation,unseen}/<class_name>/<class_name>_<index>.mp4` and,
once complete, `motion_shapes.json` with the parameters it was made from.
"""

from __future__ import annotations

import functools
import hashlib
import json
import multiprocessing
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import av
import numpy as np
from PIL import Image, ImageDraw
from rich.console import Console
from rich.progress import track

from .isolated import default_jobs

__all__ = [
    "SEEN_CLASSES",
    "UNSEEN_CLASSES",
    "Still",
    "Trajectory",
    "clip_seed",
    "clip_trajectory",
    "render_clip",
    "render_still",
    "write_clip",
    "write_motion_shapes",
]

FORMAT_VERSION = 2  # raise it whenever the same parameters would give other files
MANIFEST_NAME = "motion_shapes.json"
UNFINISHED_MANIFEST_NAME = "motion_shapes.unfinished.json"

SUPERSAMPLING = 4  # shapes are drawn this many times larger, then averaged: positions are exact to 1/4 pixel
# H.264 at a quality whose artefacts are the only noise in the data. "ultrafast" is more than a saving: x264's faster
# motion searches (seen with "veryfast", PyAV 18.1) give other bytes for the same frames from call to call.
ENCODER_OPTIONS = {"preset": "ultrafast", "crf": "18"}
CLIPS_PER_WORKER = 64  # starting a process costs about as much as writing this many clips


# Trajectories -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Trajectory:
    """Where a shape is in each of T frames, in units that do not depend on the frame's size.

    Args:
        x: (T,) centre, from left to right, as a fraction of the width; taken modulo 1.
        y: (T,) centre, from top to bottom, as a fraction of the height; taken modulo 1.
        angle: (T,) orientation in radians, clockwise.
        radius: (T,) distance from the centre to the farthest point, as a fraction of the width.
    """

    x: np.ndarray
    y: np.ndarray
    angle: np.ndarray
    radius: np.ndarray


Motion = Callable[[Trajectory, np.ndarray, np.random.Generator], Trajectory]
"""Adds one motion to a trajectory, given the time of each frame, (T,) from 0 to 1, and the clip's random numbers."""


def _resting(time: np.ndarray, rng: np.random.Generator) -> Trajectory:
    """A shape anywhere, in any orientation, as large as a growing one is at a random moment, that does not move."""
    x, y, turn = rng.random(3)
    still = np.ones_like(time)
    return Trajectory(x * still, y * still, 2 * np.pi * turn * still, _radius_at(rng.random() * still, rng))


def _radius_at(moment: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The radius of a growing shape at moments from 0 to 1: it grows 2 to 2.8 times, by a constant factor per frame.

    It stays below 0.42: a shape must fit into the frame, or it would meet itself around the torus.
    """
    middle, ratio = rng.uniform(0.17, 0.25), rng.uniform(2.0, 2.8)
    return middle * ratio ** (moment - 0.5)


def _moving(right: int, down: int) -> Motion:
    """Along a straight line, at a constant speed that is the same for straight and diagonal directions."""

    def motion(path: Trajectory, time: np.ndarray, rng: np.random.Generator) -> Trajectory:
        distance = rng.uniform(0.35, 0.8) * time / np.hypot(right, down)
        return replace(path, x=path.x + right * distance, y=path.y + down * distance)

    return motion


def _rotating(clockwise: int) -> Motion:
    """In place, by less than a turn, so that half of the frames still show the direction."""

    def motion(path: Trajectory, time: np.ndarray, rng: np.random.Generator) -> Trajectory:
        return replace(path, angle=path.angle + clockwise * np.radians(rng.uniform(120, 270)) * time)

    return motion


def _growing(path: Trajectory, time: np.ndarray, rng: np.random.Generator) -> Trajectory:
    return replace(path, radius=_radius_at(time, rng))


def _shrinking(path: Trajectory, time: np.ndarray, rng: np.random.Generator) -> Trajectory:
    return replace(path, radius=_radius_at(1 - time, rng))


def _orbiting(clockwise: int) -> Motion:
    """On a circle, about once around, without turning."""

    def motion(path: Trajectory, time: np.ndarray, rng: np.random.Generator) -> Trajectory:
        orbit = rng.uniform(0.15, 0.25)
        phase = 2 * np.pi * rng.random() + clockwise * np.radians(rng.uniform(270, 450)) * time
        return replace(path, x=path.x + orbit * np.cos(phase), y=path.y + orbit * np.sin(phase))

    return motion


def _bouncing(path: Trajectory, time: np.ndarray, rng: np.random.Generator) -> Trajectory:
    """Up and down twice, like a ball from a floor; ends where it started."""
    height = rng.uniform(0.3, 0.45) * np.abs(np.sin(np.pi * (2 * time + rng.random())))
    return replace(path, y=path.y - height)


def _zigzagging(path: Trajectory, time: np.ndarray, rng: np.random.Generator) -> Trajectory:
    """Steadily to one side, either one, and up and down twice on the way, in straight lines."""
    direction = rng.choice((-1, 1))
    phase = (2 * time + rng.random()) % 1
    height = rng.uniform(0.25, 0.35) * np.abs(2 * phase - 1)
    return replace(path, x=path.x + direction * rng.uniform(0.45, 0.8) * time, y=path.y + height)


_SEEN: dict[str, tuple[Motion, ...]] = {
    "moving left": (_moving(-1, 0),),
    "moving right": (_moving(1, 0),),
    "moving up": (_moving(0, -1),),
    "moving down": (_moving(0, 1),),
    "moving up and left": (_moving(-1, -1),),
    "moving up and right": (_moving(1, -1),),
    "moving down and left": (_moving(-1, 1),),
    "moving down and right": (_moving(1, 1),),
    "rotating clockwise": (_rotating(1),),
    "rotating counterclockwise": (_rotating(-1),),
    "growing": (_growing,),
    "shrinking": (_shrinking,),
    "orbiting clockwise": (_orbiting(1),),
    "orbiting counterclockwise": (_orbiting(-1),),
    "bouncing": (_bouncing,),
    "zigzagging": (_zigzagging,),
}
_UNSEEN: dict[str, tuple[Motion, ...]] = {
    "growing and moving right": (_growing, _moving(1, 0)),
    "shrinking and moving left": (_shrinking, _moving(-1, 0)),
    "rotating clockwise and moving up": (_rotating(1), _moving(0, -1)),
    "rotating counterclockwise and moving down": (_rotating(-1), _moving(0, 1)),
}
_MOTIONS = _SEEN | _UNSEEN

SEEN_CLASSES: tuple[str, ...] = tuple(_SEEN)
"""The classes of the train and validation splits."""

UNSEEN_CLASSES: tuple[str, ...] = tuple(_UNSEEN)
"""The classes of the unseen split: new combinations of motions, named in words that the seen classes use."""

REVERSED_CLASSES: tuple[tuple[str, str], ...] = (("moving left", "moving right"), ("growing", "shrinking"))
"""Seen classes that a clip played backwards changes between: only the order of its frames tells them apart."""


def clip_trajectory(class_name: str, seed: int, *, num_frames: int = 16) -> Trajectory:
    """The trajectory of the shape in the clip that `render_clip` draws from the same arguments.

    Raises:
        ValueError: the class is unknown.
    """
    if class_name not in _MOTIONS:
        raise ValueError(f"unknown class {class_name!r}; the classes are: {', '.join(_MOTIONS)}")
    rng = np.random.default_rng((seed, 1))
    time = np.linspace(0.0, 1.0, num_frames)
    path = _resting(time, rng)
    for motion in _MOTIONS[class_name]:
        path = motion(path, time, rng)
    return path


# Appearance ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Appearance:
    name: str  # of the outline
    outline: np.ndarray  # (P,2) polygon, centroid at 0, farthest point at distance 1
    colour: np.ndarray  # (3,) RGB from 0 to 1
    background: np.ndarray  # (H,W,3) RGB from 0 to 1


def _arc(start_deg: float, stop_deg: float, *, radius: float = 1.0, num_points: int = 24) -> list[tuple[float, float]]:
    angles = np.radians(np.linspace(start_deg, stop_deg, num_points))
    return [(radius * float(np.cos(angle)), radius * float(np.sin(angle))) for angle in angles]


def _centred(points: list[tuple[float, float]]) -> np.ndarray:
    """The polygon, moved and scaled: area centroid at 0, so that it rotates in place, farthest point at distance 1."""
    corners = np.array(points)
    following = np.roll(corners, -1, axis=0)
    cross = corners[:, 0] * following[:, 1] - following[:, 0] * corners[:, 1]
    centroid = ((corners + following) * cross[:, None]).sum(0) / (3 * cross.sum())
    corners = corners - centroid
    return corners / np.linalg.norm(corners, axis=1).max()


# No outline has a rotational symmetry: a rotation is always visible.
_OUTLINES: dict[str, np.ndarray] = {
    "arrow": _centred([(-5, -2), (0, -2), (0, -5), (6, 0), (0, 5), (0, 2), (-5, 2)]),
    "L": _centred([(0, 0), (4, 0), (4, 9), (10, 9), (10, 13), (0, 13)]),
    "T": _centred([(0, 0), (10, 0), (10, 4), (7, 4), (7, 13), (3, 13), (3, 4), (0, 4)]),
    "flag": _centred([(0, 0), (10, 0), (10, 7), (4, 7), (4, 14), (0, 14)]),
    "triangle": _centred([(0, 0), (7, 0), (3.5, 13)]),
    "half-disc": _centred(_arc(0, 180)),
    "drop": _centred([*_arc(-20, 200), (0.0, -2.2)]),
    "comma": _centred([*_arc(-90, 120), *_arc(120, 0, radius=0.45)]),
}


def _appearance(rng: np.random.Generator, size: int) -> _Appearance:
    """A bright shape on a muted, textured background: easy to find, so that what is left to learn is how it moves."""
    name = str(rng.choice(list(_OUTLINES)))
    outline = _OUTLINES[name] * (rng.choice((-1, 1)), 1)  # mirrored or not
    colour = _colour(rng.uniform(0.8, 0.95), rng)
    background = _colour(rng.uniform(0.3, 0.5), rng, saturation=0.3) + _texture(rng, size)
    return _Appearance(name, outline, colour, background.clip(0, 1))


def _colour(lightness: float, rng: np.random.Generator, *, saturation: float = 1.0) -> np.ndarray:
    """A random RGB colour, (3,), of roughly the given lightness."""
    tint = saturation * rng.uniform(-0.3, 0.3, 3)
    return np.clip(lightness + tint - tint @ (0.299, 0.587, 0.114), 0, 1)


def _texture(rng: np.random.Generator, size: int) -> np.ndarray:
    """A colour gradient and soft blotches, (H,W,3), at most 0.08 away from 0."""
    gradient, blotches = _upsampling(2, size), _upsampling(5, size)
    texture = sum(
        matrix @ rng.normal(0, strength, (3, matrix.shape[1], matrix.shape[1])) @ matrix.T
        for matrix, strength in ((gradient, 0.03), (blotches, 0.03))
    )
    return np.moveaxis(np.clip(texture, -0.08, 0.08), 0, -1)


@functools.cache
def _upsampling(num_knots: int, size: int) -> np.ndarray:
    """(size, num_knots) weights of the smooth interpolation (raised cosine) from knots to pixels."""
    distance = np.abs(np.linspace(0, num_knots - 1, size)[:, None] - np.arange(num_knots))
    return np.where(distance < 1, 0.5 + 0.5 * np.cos(np.pi * distance), 0.0)


# Rendering ----------------------------------------------------------------------------------------------------------


def render_clip(class_name: str, seed: int, *, num_frames: int = 16, size: int = 64) -> np.ndarray:
    """Frames of one clip, uint8 (T,H,W,3): a pure function of its arguments.

    The same seed with another class gives the same shape, colours and background.

    Args:
        class_name: one of `SEEN_CLASSES` or `UNSEEN_CLASSES`.
        seed: any integer from 0.
        num_frames: T, over which the motion as a whole is spread.
        size: H and W in pixels.

    Raises:
        ValueError: the class is unknown.
    """
    path = clip_trajectory(class_name, seed, num_frames=num_frames)
    return _draw(_appearance(np.random.default_rng((seed, 0)), size), path, size)


@dataclass(frozen=True)
class Still:
    """A picture of one resting shape, and what is true of it.

    Args:
        frame: uint8 (H,W,3).
        outline: name of the shape's outline.
        colour: (3,) of the shape, RGB from 0 to 1.
        background: (3,) mean colour of the background, RGB from 0 to 1.
        x: centre of the shape, from left to right, as a fraction of the width, in [0,1).
        y: centre of the shape, from top to bottom, as a fraction of the height, in [0,1).
        radius: distance from the centre to the farthest point, as a fraction of the width.
    """

    frame: np.ndarray
    outline: str
    colour: np.ndarray
    background: np.ndarray
    x: float
    y: float
    radius: float


def render_still(seed: int, *, size: int = 64) -> Still:
    """A resting shape with the looks and poses that the shapes of the clips have: a pure function of its arguments.

    Args:
        seed: any integer from 0.
        size: H and W in pixels.
    """
    look = _appearance(np.random.default_rng((seed, 0)), size)
    path = _resting(np.zeros(1), np.random.default_rng((seed, 1)))
    return Still(
        frame=_draw(look, path, size)[0],
        outline=look.name,
        colour=look.colour,
        background=look.background.mean((0, 1)),
        x=float(path.x[0] % 1),
        y=float(path.y[0] % 1),
        radius=float(path.radius[0]),
    )


def _draw(look: _Appearance, path: Trajectory, size: int) -> np.ndarray:
    """Frames, uint8 (T,H,W,3)."""
    coverage = _coverage(look.outline, path, size)[..., None]  # (T,H,W,1)
    frames = look.background.astype(np.float32) * (1 - coverage) + look.colour.astype(np.float32) * coverage
    return (frames * 255 + 0.5).astype(np.uint8)


def _coverage(outline: np.ndarray, path: Trajectory, size: int) -> np.ndarray:
    """The share of each pixel that the shape covers, float32 (T,H,W), on the torus.

    The shape is drawn around the middle of the frame, where it fits, and then rolled to its place in whole pixels.
    """
    centres = np.stack([path.x, path.y], axis=1) * size  # (T,2)
    shifts = np.floor(centres)
    middle = size // 2
    coverage = np.empty((len(centres), size, size), np.float32)
    for t, (angle, radius) in enumerate(zip(path.angle, path.radius, strict=True)):
        rotation = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])  # rows of y point down
        corners = outline @ rotation * (radius * size) + middle + centres[t] - shifts[t]
        down, right = int(shifts[t, 1]) - middle, int(shifts[t, 0]) - middle
        coverage[t] = np.roll(_polygon_coverage(corners, size), (down, right), axis=(0, 1))
    return coverage


def _polygon_coverage(corners: np.ndarray, size: int) -> np.ndarray:
    canvas = Image.new("L", (size * SUPERSAMPLING, size * SUPERSAMPLING))
    points = corners * SUPERSAMPLING - 0.5  # PIL counts from the centre of a pixel, the corners from its edge
    ImageDraw.Draw(canvas).polygon(points.ravel().tolist(), fill=255)
    return np.asarray(canvas.reduce(SUPERSAMPLING), np.float32) / 255


# Files --------------------------------------------------------------------------------------------------------------


def write_clip(frames: np.ndarray, path: str | os.PathLike[str], *, fps: int) -> None:
    """Writes uint8 frames (T,H,W,3), H and W even, as an H.264 mp4 that appears at `path` complete or not at all."""
    path = Path(path)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with av.open(str(unfinished), "w", format="mp4") as container:
            stream = container.add_stream("libx264", rate=fps, options=ENCODER_OPTIONS)
            stream.height, stream.width = frames.shape[1:3]
            stream.pix_fmt = "yuv420p"
            stream.thread_count = 1  # more threads gain nothing here and make the bytes depend on the machine
            for frame in frames:
                container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
            container.mux(stream.encode())
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


def clip_seed(seed: int, split: str, class_name: str, index: int) -> int:
    """The seed of one clip: a hash, so it depends on neither the other clips nor the order they are made in."""
    digest = hashlib.sha256(f"{seed}/{split}/{class_name}/{index}".encode()).digest()
    return int.from_bytes(digest[:8], "big")


def write_motion_shapes(
    root: str | os.PathLike[str],
    *,
    train_per_class: int = 200,
    validation_per_class: int = 25,
    unseen_per_class: int = 25,
    seed: int = 0,
    size: int = 64,
    num_frames: int = 16,
    fps: int = 16,
    workers: int | None = None,
) -> None:
    """Renders the whole data set below `root`; does nothing where it is complete, continues where it was interrupted.

    Args:
        root: folder to fill, made if absent.
        train_per_class: clips of each of `SEEN_CLASSES` in `train/`.
        validation_per_class: clips of each of `SEEN_CLASSES` in `validation/`.
        unseen_per_class: clips of each of `UNSEEN_CLASSES` in `unseen/`.
        seed: any integer; another one gives other clips.
        size: height and width in pixels, even.
        num_frames: frames per clip.
        fps: frames per second.
        workers: processes to render with; by default one per available core. The result does not depend on it.

    Raises:
        ValueError: a parameter is out of range, or `root` holds something else: the same data set made with other
            parameters, or folders that this function did not write.
    """
    parameters = {
        "format_version": FORMAT_VERSION,
        "train_per_class": train_per_class,
        "validation_per_class": validation_per_class,
        "unseen_per_class": unseen_per_class,
        "seed": seed,
        "size": size,
        "num_frames": num_frames,
        "fps": fps,
    }
    _check_ranges(parameters)
    root = Path(root)
    _check_folder(root, parameters)
    missing = [clip for clip in _planned_clips(root, parameters) if not clip.path.exists()]
    if not missing and (root / MANIFEST_NAME).exists():
        return
    _write_json(parameters, root / UNFINISHED_MANIFEST_NAME)
    (root / MANIFEST_NAME).unlink(missing_ok=True)  # it is there if somebody deleted clips
    for folder in {clip.path.parent for clip in missing}:
        folder.mkdir(parents=True, exist_ok=True)
    _write_clips(missing, workers=default_jobs() if workers is None else workers)
    _write_json(parameters, root / MANIFEST_NAME)
    (root / UNFINISHED_MANIFEST_NAME).unlink(missing_ok=True)


@dataclass(frozen=True)
class _Clip:
    """All that a worker needs to know to write one file."""

    path: Path
    class_name: str
    seed: int
    size: int
    num_frames: int
    fps: int

    def write(self) -> None:
        frames = render_clip(self.class_name, self.seed, num_frames=self.num_frames, size=self.size)
        write_clip(frames, self.path, fps=self.fps)


_CLASSES_OF_SPLIT = {"train": SEEN_CLASSES, "validation": SEEN_CLASSES, "unseen": UNSEEN_CLASSES}


def _planned_clips(root: Path, parameters: dict[str, int]) -> Iterator[_Clip]:
    for split, class_names in _CLASSES_OF_SPLIT.items():
        for class_name in class_names:
            name = class_name.replace(" ", "_")
            for index in range(parameters[f"{split}_per_class"]):
                yield _Clip(
                    path=root / split / name / f"{name}_{index:05d}.mp4",
                    class_name=class_name,
                    seed=clip_seed(parameters["seed"], split, class_name, index),
                    size=parameters["size"],
                    num_frames=parameters["num_frames"],
                    fps=parameters["fps"],
                )


def _write_clips(clips: list[_Clip], *, workers: int) -> None:
    workers = min(workers, -(-len(clips) // CLIPS_PER_WORKER))
    if workers <= 1:
        _run(map(_Clip.write, clips), total=len(clips))
        return
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        _run(pool.map(_Clip.write, clips, chunksize=16), total=len(clips))


def _run(steps: Iterator[None], *, total: int) -> None:
    """Exhausts `steps` behind a progress bar, which shows on a terminal only."""
    console = Console(stderr=True)
    for _ in track(steps, description="Rendering clips", total=total, console=console, disable=not console.is_terminal):
        pass


def _check_ranges(parameters: dict[str, int]) -> None:
    minimums = {"size": 16, "num_frames": 2, "fps": 1} | {f"{split}_per_class": 0 for split in _CLASSES_OF_SPLIT}
    for name, minimum in minimums.items():
        if parameters[name] < minimum:
            raise ValueError(f"{name} must be at least {minimum}, got {parameters[name]}")
    if parameters["size"] % 2:
        raise ValueError(f"size must be even, as H.264 with 4:2:0 colour needs it, got {parameters['size']}")


def _check_folder(root: Path, parameters: dict[str, int]) -> None:
    """Raises unless `root` is new, or was begun or finished with the same parameters."""
    for manifest in (root / MANIFEST_NAME, root / UNFINISHED_MANIFEST_NAME):
        if manifest.exists():
            _check_same(json.loads(manifest.read_text()), parameters, manifest)
            return
    foreign = [split for split in _CLASSES_OF_SPLIT if (root / split).exists()]
    if foreign:
        raise ValueError(f"{root} has a folder {foreign[0]!r} but no {MANIFEST_NAME}; choose an empty folder")


def _check_same(found: dict[str, int], wanted: dict[str, int], manifest: Path) -> None:
    differences = [
        f"{name} is {found.get(name)} there, {wanted.get(name)} wanted"
        for name in sorted(found.keys() | wanted.keys())
        if found.get(name) != wanted.get(name)
    ]
    if differences:
        raise ValueError(
            f"{manifest} was made with other parameters: {'; '.join(differences)}. "
            f"Delete {manifest.parent}, choose another folder, or ask for the same parameters"
        )


def _write_json(content: dict[str, int], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    unfinished.write_text(json.dumps(content, indent=2) + "\n")
    os.replace(unfinished, path)
