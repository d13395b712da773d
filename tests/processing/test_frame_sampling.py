"""Which frames each sampling takes, for every small number of frames."""

import itertools
import math
import re
from fractions import Fraction

import pytest
import torch

from kinetext.processing.frame_sampling import SAMPLINGS, add_motion_frames, sample_frames

UP_TO = 40


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# ------------------------------------------------------------------------------------------------------ segments


def test_segments_take_the_frames_of_the_original_test_rule() -> None:
    for n in range(1, UP_TO + 1):
        for t in range(1, UP_TO + 1):
            expected = [math.floor(Fraction(i * n, t) + Fraction(n, 2 * t)) for i in range(t)]
            assert sample_frames(n, t) == [expected], (n, t)


def test_segments_of_as_many_frames_as_wanted_are_the_frames_themselves() -> None:
    for n in range(1, UP_TO + 1):
        assert sample_frames(n, n) == [list(range(n))]
        assert sample_frames(n, n, generator=seeded()) == [list(range(n))]


@pytest.mark.parametrize("generator_seed", [None, 0])
def test_segments_of_a_short_video_repeat_frames_in_place(generator_seed: int | None) -> None:
    for n in range(1, UP_TO):
        for t in range(n + 1, UP_TO + 1):
            generator = None if generator_seed is None else seeded(generator_seed)
            (clip,) = sample_frames(n, t, generator=generator)
            assert clip == sorted(clip) and set(clip) == set(range(n)), (n, t, clip)


def test_random_segments_hold_one_frame_each() -> None:
    generator = seeded()
    for n in range(1, UP_TO + 1):
        for t in range(1, n + 1):
            (clip,) = sample_frames(n, t, generator=generator)
            assert [index // (n // t) for index in clip] == list(range(t)), (n, t, clip)


def test_random_segments_reach_every_frame_of_their_segments() -> None:
    drawn = [sample_frames(13, 4, generator=seeded(seed))[0] for seed in range(60)]
    assert [sorted(set(column)) for column in zip(*drawn, strict=True)] == [
        [0, 1, 2],
        [3, 4, 5],
        [6, 7, 8],
        [9, 10, 11],  # the last n mod T frames are never drawn (VideoX `pipeline.py`)
    ]


def test_random_segments_depend_on_the_generator_alone() -> None:
    first = sample_frames(100, 8, num_clips=3, generator=seeded(5))
    torch.manual_seed(1)
    assert sample_frames(100, 8, num_clips=3, generator=seeded(5)) == first
    assert sample_frames(100, 8, num_clips=3, generator=seeded(6)) != first
    assert len({tuple(clip) for clip in first}) == 3  # each clip is drawn anew


def test_clips_of_segments_are_spread_and_distinct_where_there_are_frames_for_it() -> None:
    assert sample_frames(24, 4, num_clips=3) == [[1, 7, 13, 19], [3, 9, 15, 21], [5, 11, 17, 23]]
    for n in range(1, UP_TO + 1):
        for t in range(1, 9):
            for v in range(2, 5):
                clips = sample_frames(n, t, num_clips=v)
                together = [index for frames_of_segment in zip(*clips, strict=True) for index in frames_of_segment]
                assert together == sorted(together) and 0 <= together[0] and together[-1] < n
                if n >= v * t:
                    assert len(set(together)) == v * t, (n, t, v)


# ------------------------------------------------------------------------------------------------- uniform, dense


def test_uniform_goes_from_the_first_to_the_last_frame_in_equal_steps() -> None:
    assert sample_frames(11, 5, sampling="uniform") == [[0, 3, 5, 8, 10]]  # 2.5 and 7.5 are rounded up
    for n in range(1, UP_TO + 1):
        for t in range(2, UP_TO + 1):
            (clip,) = sample_frames(n, t, sampling="uniform")
            assert clip[0] == 0 and clip[-1] == n - 1
            assert all(abs(index - i * (n - 1) / (t - 1)) <= 0.5 for i, index in enumerate(clip))


def test_uniform_takes_the_middle_as_its_only_frame() -> None:
    assert [sample_frames(n, 1, sampling="uniform") for n in (1, 2, 3, 10)] == [[[0]], [[0]], [[1]], [[4]]]


def test_clips_of_uniform_share_out_equal_steps() -> None:
    assert sample_frames(9, 3, sampling="uniform", num_clips=3) == [[0, 3, 6], [1, 4, 7], [2, 5, 8]]


@pytest.mark.parametrize("sampling", ["uniform", "all"])
def test_samplings_with_nothing_to_draw_ignore_the_generator(sampling: str) -> None:
    assert sample_frames(30, 4, sampling=sampling, generator=seeded()) == sample_frames(30, 4, sampling=sampling)


def test_dense_takes_the_middle_window_at_its_stride() -> None:
    assert sample_frames(20, 4, sampling="dense") == [[8, 9, 10, 11]]
    assert sample_frames(20, 4, sampling="dense", stride=3) == [[5, 8, 11, 14]]
    assert sample_frames(10, 4, sampling="dense", stride=3) == [[0, 3, 6, 9]]  # fits exactly


def test_dense_clips_are_spread_from_the_first_to_the_last_window() -> None:
    assert sample_frames(20, 4, sampling="dense", stride=2, num_clips=3) == [
        [0, 2, 4, 6],
        [6, 8, 10, 12],
        [13, 15, 17, 19],
    ]


def test_random_dense_windows_reach_every_place_and_nothing_else() -> None:
    starts = set()
    for seed in range(80):
        (clip,) = sample_frames(12, 4, sampling="dense", stride=2, generator=seeded(seed))
        assert [after - before for before, after in itertools.pairwise(clip)] == [2, 2, 2]
        starts.add(clip[0])
    assert starts == set(range(6))


@pytest.mark.parametrize("generator_seed", [None, 0])
def test_dense_falls_back_to_uniform_where_the_window_does_not_fit(generator_seed: int | None) -> None:
    generator = None if generator_seed is None else seeded(generator_seed)
    assert sample_frames(9, 4, sampling="dense", stride=3, generator=generator) == [[0, 3, 5, 8]]
    assert sample_frames(2, 4, sampling="dense", generator=generator) == [[0, 0, 1, 1]]


def test_all_takes_every_frame_once() -> None:
    assert sample_frames(5, 3, sampling="all") == [[0, 1, 2, 3, 4]]


# ------------------------------------------------------------------------------------------------ common to them


@pytest.mark.parametrize("sampling", [name for name in SAMPLINGS if name != "all"])
@pytest.mark.parametrize("num_clips", [1, 3])
@pytest.mark.parametrize("generator_seed", [None, 0])
def test_every_clip_has_its_frames_in_order_and_inside_the_video(
    sampling: str, num_clips: int, generator_seed: int | None
) -> None:
    generator = None if generator_seed is None else seeded(generator_seed)
    for n in range(1, 25):
        for t in range(1, 25):
            clips = sample_frames(n, t, sampling=sampling, stride=2, num_clips=num_clips, generator=generator)
            assert [len(clip) for clip in clips] == [t] * num_clips
            assert all(clip == sorted(clip) and 0 <= clip[0] and clip[-1] < n for clip in clips), (n, t, clips)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"total_frames": 0}, "total_frames=0 must be at least 1."),
        ({"num_frames": 0}, "num_frames=0 must be at least 1."),
        ({"stride": -1}, "stride=-1 must be at least 1."),
        ({"num_clips": 0}, "num_clips=0 must be at least 1."),
        ({"motion_frame_ratio": 0}, "motion_frame_ratio=0 must be at least 1."),
        ({"sampling": "tsn"}, "unknown sampling 'tsn'; choose one of segments, uniform, dense, all."),
        (
            {"sampling": "all", "num_clips": 2},
            'sampling="all" takes every frame once; num_clips=2 has no meaning with it.',
        ),
    ],
)
def test_arguments_out_of_range_are_errors(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        sample_frames(**{"total_frames": 10, "num_frames": 4, **arguments})  # type: ignore[arg-type]


# ------------------------------------------------------------------------------------------------- motion frames


@pytest.mark.parametrize("sampling", ["segments", "uniform", "dense"])
@pytest.mark.parametrize("ratio", [1, 2, 3])
@pytest.mark.parametrize("generator_seed", [None, 0])
def test_every_a_th_frame_is_the_one_sampled_without_motion_frames(
    sampling: str, ratio: int, generator_seed: int | None
) -> None:
    for n, t, num_clips in itertools.product(range(1, 25), range(1, 13), (1, 3)):
        plain, moving = (
            sample_frames(
                n,
                t,
                sampling=sampling,
                stride=2,
                num_clips=num_clips,
                motion_frame_ratio=a,
                generator=None if generator_seed is None else seeded(generator_seed),
            )
            for a in (1, ratio)
        )
        assert [clip[::ratio] for clip in moving] == plain
        for clip in moving:
            assert len(clip) == ratio * t and clip == sorted(clip) and 0 <= clip[0] and clip[-1] < n, (n, t, clip)


@pytest.mark.parametrize(
    ("indices", "total_frames", "ratio", "expected"),
    [
        ([2, 7, 12, 17], 20, 2, [2, 4, 7, 9, 12, 14, 17, 19]),  # half of a gap of 5, rounded down
        ([2, 8], 20, 3, [2, 4, 6, 8, 10, 12]),
        ([0, 5, 12], 20, 2, [0, 2, 5, 8, 12, 15]),  # the last step is that of the gap before
        ([0, 10, 19], 20, 2, [0, 5, 10, 14, 19, 19]),  # nothing after the last frame of the video
        ([4], 20, 2, [4, 12]),  # T = 1: the rest of the video
        ([4], 20, 4, [4, 8, 12, 16]),
        ([0, 0, 1, 1], 2, 2, [0, 0, 0, 0, 1, 1, 1, 1]),  # shorter than the clip
        ([0], 1, 3, [0, 0, 0]),
        ([3, 5], 9, 1, [3, 5]),
    ],
)
def test_motion_frames_lie_in_equal_steps_behind_each_frame(
    indices: list[int], total_frames: int, ratio: int, expected: list[int]
) -> None:
    assert add_motion_frames(indices, total_frames, ratio) == expected


@pytest.mark.parametrize(
    ("total_frames", "ratio", "expected"),
    [(4, 2, [0, 1, 2, 3]), (5, 2, [0, 1, 2, 3, 4, 4]), (1, 3, [0, 0, 0]), (4, 3, [0, 1, 2, 3, 3, 3])],
)
def test_all_frames_are_motion_frames_and_the_last_is_repeated(
    total_frames: int, ratio: int, expected: list[int]
) -> None:
    assert sample_frames(total_frames, 8, sampling="all", motion_frame_ratio=ratio) == [expected]
