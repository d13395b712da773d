"""Samples of training and evaluation depend on nothing but themselves: not on workers, order, batches or processes."""

import itertools
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from rendered_clips import HEIGHT, WIDTH, render_clip
from torch.utils.data import DataLoader

from kinetext import VideoDecodeError, VideoTextProcessor
from kinetext.data.annotations import Clip, ClipList
from kinetext.data.augmentation import Augmentation, finish_pixels
from kinetext.data.datasets import GROUPS_AT_ONCE, EpochSampler, EvalClips, TrainClips, sample_generator

NUM_CLIPS = 5


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> ClipList:
    folder = tmp_path_factory.mktemp("clips")
    paths = [render_clip(folder / f"{index}.mp4", 10 + index) for index in range(NUM_CLIPS)]
    return ClipList(tuple(Clip(path.name, str(path), i % 2) for i, path in enumerate(paths)), ("even", "odd"))


@pytest.fixture(scope="module")
def processor() -> VideoTextProcessor:
    return VideoTextProcessor(num_frames=2, crop_size=24)


def with_corrupt(clips: ClipList, tmp_path: Path) -> ClipList:
    (tmp_path / "corrupt.mp4").write_bytes(b"this is no video")
    broken = (Clip("corrupt", str(tmp_path / "corrupt.mp4"), 1), Clip("missing", str(tmp_path / "none.mp4"), 0))
    return ClipList((clips.clips[0], *broken, clips.clips[1]), clips.class_names)


# ----------------------------------------------------------------------------------------------- random streams


def test_the_stream_of_a_sample_depends_on_each_part_of_its_name() -> None:
    keys = itertools.product((0, 1), (0, 1, 10), ("a", "b", "a1"), (0, 1, 10))
    first_draws = [torch.randint(0, 2**62, (), generator=sample_generator(*key)).item() for key in keys]
    assert len(set(first_draws)) == len(first_draws) == 54


def test_the_stream_of_a_sample_is_the_same_every_time() -> None:
    first = torch.rand(3, generator=sample_generator(1, 2, "clip", 3))
    torch.manual_seed(5)
    assert torch.equal(torch.rand(3, generator=sample_generator(1, 2, "clip", 3)), first)
    # Pinned: runs that are resumed years later draw the same.
    assert torch.randint(0, 1000, (4,), generator=sample_generator(0, 0, "clip")).tolist() == [375, 483, 621, 628]


def test_file_names_that_are_no_utf8_have_a_stream() -> None:
    name = b"caf\xe9.mp4".decode("utf-8", "surrogateescape")
    assert torch.rand((), generator=sample_generator(0, 0, name)) >= 0


# ------------------------------------------------------------------------------------------------------- training


def load_epoch(dataset: TrainClips, epoch: int, *, rank: int = 0, num_ranks: int = 1, **options: Any) -> dict[str, Any]:
    """What one process sees of an epoch, batches of 2 clips: their pixels and labels by clip id."""
    sampler = EpochSampler(len(dataset), seed=0)
    sampler.set_epoch(epoch)
    order = list(sampler)
    assert order != sorted(order)
    seen: dict[str, Any] = {}
    for batch in DataLoader(dataset, 2, sampler=order[rank::num_ranks], collate_fn=dataset.collate, **options):
        for clip_id, *sample in zip(batch["clip_ids"], batch["pixel_values"], batch["labels"], strict=True):
            seen[clip_id] = sample
    return seen


@pytest.mark.parametrize("augment_on", ["workers", "accelerator"])
def test_training_samples_do_not_depend_on_workers_and_processes(
    clips: ClipList, processor: VideoTextProcessor, tmp_path: Path, augment_on: str
) -> None:
    damaged = with_corrupt(clips, tmp_path)
    dataset = TrainClips(damaged, processor, seed=7, flip_swaps={"even": "odd"}, augment_on=augment_on)
    alone = load_epoch(dataset, 3)
    assert alone.keys() == {clip.clip_id for clip in damaged.clips}
    for num_workers, num_ranks in [(1, 1), (2, 1), (0, 2), (0, 3), (2, 2)]:
        seen = [load_epoch(dataset, 3, rank=r, num_ranks=num_ranks, num_workers=num_workers) for r in range(num_ranks)]
        assert sum(map(len, seen)) == len(dataset)
        for clip_id, (pixels, label) in {key: value for part in seen for key, value in part.items()}.items():
            assert pixels.equal(alone[clip_id][0]) and label == alone[clip_id][1]


def pixels_of(dataset: TrainClips, epoch: int, index: int) -> torch.Tensor:
    return dataset.collate([dataset[epoch, index]])["pixel_values"][0]


def test_training_samples_change_with_epoch_and_seed(clips: ClipList, processor: VideoTextProcessor) -> None:
    first = TrainClips(clips, processor, seed=7)
    assert pixels_of(first, 0, 0).equal(pixels_of(TrainClips(clips, processor, seed=7), 0, 0))
    assert not pixels_of(first, 0, 0).equal(pixels_of(first, 1, 0))
    assert not pixels_of(first, 0, 0).equal(pixels_of(TrainClips(clips, processor, seed=8), 0, 0))


def test_training_samples_depend_on_the_clip_id_not_on_its_place(
    clips: ClipList, processor: VideoTextProcessor, tmp_path: Path
) -> None:
    damaged = with_corrupt(clips, tmp_path)
    reordered = ClipList(damaged.clips[::-1], damaged.class_names)
    forwards, backwards = (TrainClips(some, processor, seed=0) for some in (damaged, reordered))
    for index in range(len(damaged)):
        left, right = forwards[0, index], backwards[0, len(damaged) - 1 - index]
        assert left.pop("pixel_values").equal(right.pop("pixel_values"))
        assert left == right


def test_samples_hold_crops_and_what_is_still_to_be_done(clips: ClipList, processor: VideoTextProcessor) -> None:
    sample = TrainClips(clips, processor, seed=0)[2, 1]
    assert (sample["clip_id"], sample["labels"], sample["failures"]) == ("1.mp4", 1, [])
    assert sample["pixel_values"].shape == (2, 3, 24, 24) and sample["pixel_values"].dtype == torch.uint8
    top, left, height, width = sample["draw"].box
    assert top + height <= processor.short_side and left + width <= round(processor.short_side * WIDTH / HEIGHT)
    centre = Augmentation("centre", flip_probability=0, color_jitter_probability=0, grayscale_probability=0)
    plain = TrainClips(clips, VideoTextProcessor(num_frames=11, crop_size=24), seed=0, augmentation=centre)
    expected = plain.transform.processor(videos=clips.clips[1].source)["pixel_values"][0]  # 11 frames: nothing to draw
    torch.testing.assert_close(pixels_of(plain, 5, 1), expected)


def test_batches_are_the_same_where_ever_they_are_finished(clips: ClipList, processor: VideoTextProcessor) -> None:
    in_workers, on_accelerator = (
        TrainClips(clips, processor, seed=0, augment_on=where) for where in ("workers", "accelerator")
    )
    keys = [(1, index) for index in range(NUM_CLIPS)]
    finished = in_workers.collate([in_workers[key] for key in keys])
    batch = on_accelerator.collate([on_accelerator[key] for key in keys])
    assert batch["pixel_values"].dtype == torch.uint8 and len(batch["draws"]) == NUM_CLIPS
    pixels = finish_pixels(batch["pixel_values"], batch["draws"], processor.image_mean, processor.image_std)
    assert finished["pixel_values"].equal(pixels) and pixels.dtype == torch.float32
    assert pixels.shape == (NUM_CLIPS, 2, 3, 24, 24)
    assert finished["labels"].tolist() == [0, 1, 0, 1, 0] and finished["labels"].dtype == torch.int64
    assert finished["clip_ids"] == [clip.clip_id for clip in clips.clips] and finished["failures"] == []
    assert "draws" not in finished
    with pytest.raises(ValueError, match="augment_on='gpu' is unknown; choose one of workers, accelerator."):
        TrainClips(clips, processor, seed=0, augment_on="gpu")


def test_a_mirrored_clip_has_the_label_of_its_twin(clips: ClipList, processor: VideoTextProcessor) -> None:
    names = ("left", "right", "stay")
    labelled = ClipList(tuple(replace(clip, label=i % 3) for i, clip in enumerate(clips.clips)), names)
    dataset = TrainClips(labelled, processor, seed=0, flip_swaps={"left": "right"})
    samples = [dataset[epoch, index] for epoch in range(6) for index in range(3)]
    twin = {0: 1, 1: 0, 2: 2}
    labels = [twin[index % 3] if sample["draw"].flip else index % 3 for index, sample in enumerate(samples)]
    assert [sample["labels"] for sample in samples] == labels
    assert {(sample["draw"].flip, sample["labels"]) for sample in samples} == set(itertools.product((0, 1), range(3)))
    with pytest.raises(ValueError, match="the flip twin 'up' is none of the 3 classes"):
        TrainClips(labelled, processor, seed=0, flip_swaps={"up": "left"})


def test_cached_videos_give_the_same_samples_and_are_decoded_once(
    clips: ClipList, processor: VideoTextProcessor
) -> None:
    opened: list[str] = []

    def counting(path: str) -> Any:
        return lambda: opened.append(path) or path

    counted = ClipList(tuple(replace(c, source=counting(c.source)) for c in clips.clips), clips.class_names)
    cached, plain = TrainClips(counted, processor, seed=0, cache_videos=True), TrainClips(clips, processor, seed=0)
    for epoch, index in itertools.product(range(2), range(NUM_CLIPS)):
        left, right = cached[epoch, index], plain[epoch, index]
        assert left.pop("pixel_values").equal(right.pop("pixel_values")) and left == right
    assert sorted(opened) == sorted(clip.source for clip in clips.clips)


# ------------------------------------------------------------------------------------------------- replaced clips

STILL = Augmentation("centre", flip_probability=0, color_jitter_probability=0, grayscale_probability=0)


def coloured(class_of: str, tmp_path: Path, broken: Sequence[int] = ()) -> ClipList:
    """Clip i is one colour, 10 i, and of class `class_of[i]`; the `broken` ones are files that are no videos."""

    def clip(index: int) -> Clip:
        source: Any = torch.full((3, 30, 40, 3), 10 * index, dtype=torch.uint8)
        if index in broken:
            source = tmp_path / f"broken {index}.mp4"
            source.write_bytes(b"this is no video")
        return Clip(f"clip {index}", lambda: source, int(class_of[index]))

    return ClipList(tuple(map(clip, range(len(class_of)))), ("zero", "one"))


def test_a_clip_that_cannot_be_decoded_is_replaced_by_one_of_its_class(
    processor: VideoTextProcessor, tmp_path: Path
) -> None:
    dataset = TrainClips(coloured("0101010101", tmp_path, broken=[1, 4, 7]), processor, seed=0, augmentation=STILL)
    replacements: dict[int, set[int]] = {1: set(), 4: set(), 7: set()}
    for epoch, index in itertools.product(range(20), replacements):
        sample = dataset[epoch, index]
        replacements[index].add(int(sample["pixel_values"].unique()) // 10)
        assert (sample["clip_id"], sample["labels"]) == (f"clip {index}", index % 2)
        assert [name for name, _ in sample["failures"]] in (
            [f"clip {index}"],
            ["clip 1", "clip 7"],
            ["clip 7", "clip 1"],
        )
        assert all(f"broken {name[5:]}.mp4" in reason for name, reason in sample["failures"])
    assert replacements == {1: {3, 5, 9}, 4: {0, 2, 6, 8}, 7: {3, 5, 9}}
    assert dataset[0, 3]["failures"] == []


def test_replacements_do_not_depend_on_the_order_of_the_list(processor: VideoTextProcessor, tmp_path: Path) -> None:
    clips = coloured("0" * 8, tmp_path, broken=[3])
    forwards, backwards = (
        TrainClips(some, processor, seed=0, augmentation=STILL)
        for some in (clips, ClipList(clips.clips[::-1], clips.class_names))
    )
    for epoch in range(8):
        assert forwards[epoch, 3]["pixel_values"].equal(backwards[epoch, 4]["pixel_values"])


def test_a_replacement_is_seen_as_the_clip_would_have_been(clips: ClipList, tmp_path: Path) -> None:
    """Frames and augmentation come from the stream of the listed clip, however far that was read before it failed."""
    whole = Path(render_clip(tmp_path / "cut.avi", 60, codec="mpeg4"))
    whole.write_bytes(whole.read_bytes()[: whole.stat().st_size * 2 // 3])
    processor = VideoTextProcessor(num_frames=2, crop_size=24)
    good = clips.clips[0]
    dataset = TrainClips(ClipList((Clip("cut", str(whole), 0), good), ("a",)), processor, seed=3)
    replaced = dataset[5, 0]
    expected = dataset.transform(good.source, 0, sample_generator(3, 5, "cut"))
    assert [name for name, _ in replaced["failures"]] == ["cut"]
    assert replaced["pixel_values"].equal(expected["pixel_values"]) and replaced["draw"] == expected["draw"]


def test_failures_ride_in_the_batch(processor: VideoTextProcessor, tmp_path: Path) -> None:
    dataset = TrainClips(coloured("0000", tmp_path, broken=[1, 2]), processor, seed=0)
    batch = dataset.collate([dataset[0, index] for index in range(4)])
    assert batch["clip_ids"] == [f"clip {index}" for index in range(4)]
    failed = [name for name, _ in batch["failures"]]
    assert set(failed) == {"clip 1", "clip 2"} and len(failed) >= 2


def test_a_class_of_which_nothing_can_be_decoded_stops_training(processor: VideoTextProcessor, tmp_path: Path) -> None:
    dataset = TrainClips(coloured("00111110", tmp_path, broken=[2, 3, 4, 5, 6]), processor, seed=0)
    message = r"^clip 4 cannot be decoded, nor can any of the 4 clips that could replace it: .*broken 4.mp4.*; \.\.\.$"
    with pytest.raises(VideoDecodeError, match=message):
        dataset[0, 4]
    assert dataset[0, 0]["failures"] == []


def test_faults_of_the_program_are_not_taken_for_corrupt_clips(processor: VideoTextProcessor) -> None:
    def faulty() -> None:
        raise KeyError("a mistake")

    dataset = TrainClips(ClipList((Clip("a", faulty, 0), Clip("b", faulty, 0)), ("x",)), processor, seed=0)
    with pytest.raises(KeyError, match="a mistake"):
        dataset[0, 0]


# ----------------------------------------------------------------------------------------------------- evaluation


@pytest.mark.parametrize("decoder", ["pyav", "decord"])
def test_evaluation_reports_a_clip_that_cannot_be_decoded(
    clips: ClipList, processor: VideoTextProcessor, tmp_path: Path, decoder: str
) -> None:
    if decoder == "decord":
        pytest.importorskip("decord")
    dataset = EvalClips(with_corrupt(clips, tmp_path), processor, decoder=decoder)
    samples = [dataset[index] for index in range(len(dataset))]
    assert [(sample["index"], sample["labels"]) for sample in samples] == [(0, 0), (1, 1), (2, 0), (3, 1)]
    assert ["error" in sample for sample in samples] == [False, True, True, False]
    assert ["pixel_values" in sample for sample in samples] == [True, False, False, True]
    assert "corrupt.mp4" in samples[1]["error"] and "none.mp4" in samples[2]["error"]


@pytest.mark.parametrize(("num_clips", "num_crops"), [(1, 1), (2, 1), (1, 3), (2, 3)])
def test_evaluation_gives_the_views_of_the_processor(
    clips: ClipList, processor: VideoTextProcessor, num_clips: int, num_crops: int
) -> None:
    sample = EvalClips(clips, processor, num_clips=num_clips, num_crops=num_crops)[1]
    expected = processor(videos=clips.clips[1].source, num_clips=num_clips, num_crops=num_crops)["pixel_values"]
    assert sample["pixel_values"].shape == (num_clips * num_crops, 2, 3, 24, 24)
    assert torch.equal(sample["pixel_values"], expected.reshape(sample["pixel_values"].shape))


# --------------------------------------------------------------------------------------------------- order of epochs


def epoch_order(num_clips: int, *, seed: int, epoch: int) -> list[tuple[int, int]]:
    sampler = EpochSampler(num_clips, seed=seed)
    sampler.set_epoch(epoch)
    return list(sampler)


def test_an_epoch_holds_every_clip_once_and_says_its_number() -> None:
    for num_clips in (1, 2, 50):
        for epoch in (0, 3):
            order = epoch_order(num_clips, seed=0, epoch=epoch)
            assert sorted(order) == [(epoch, index) for index in range(num_clips)]
    assert len(EpochSampler(50, seed=0)) == 50


def test_the_order_depends_on_seed_and_epoch_alone() -> None:
    orders = {
        key: tuple(index for _, index in epoch_order(50, seed=key[0], epoch=key[1]))
        for key in itertools.product((0, 1), (0, 1, 2))
    }
    assert len(set(orders.values())) == 6
    torch.manual_seed(99)
    sampler = EpochSampler(50, seed=1)
    for epoch in (2, 0, 1):  # in any order, with others before
        sampler.set_epoch(epoch)
        assert tuple(index for _, index in sampler) == tuple(index for _, index in sampler) == orders[1, epoch]


def test_drawing_an_order_leaves_the_global_stream_alone() -> None:
    torch.manual_seed(0)
    expected = torch.rand(2)
    torch.manual_seed(0)
    list(EpochSampler(10, seed=0))
    assert torch.equal(torch.rand(2), expected)


@pytest.mark.parametrize(("num_clips", "batch"), [(10, 3), (10, 10), (11, 5), (4, 1)])
def test_an_epoch_of_whole_batches_leaves_out_other_clips_each_time(num_clips: int, batch: int) -> None:
    sampler = EpochSampler(num_clips, seed=0, total_batch_size=batch)
    left_out = set()
    for epoch in range(10):
        sampler.set_epoch(epoch)
        order = list(sampler)
        assert len(order) == len(sampler) == num_clips // batch * batch
        assert order == epoch_order(num_clips, seed=0, epoch=epoch)[: len(order)]
        left_out.add(frozenset(range(num_clips)) - {index for _, index in order})
    assert len(left_out) == 1 if num_clips % batch == 0 else len(left_out) > 1


def test_fewer_clips_than_one_batch_are_an_error() -> None:
    message = re.escape(
        "7 clips do not fill one batch of 8, so an epoch would hold none: lower total_train_batch_size, list more "
        "clips, or keep the rest of an epoch (dataloader_drop_last: false)."
    )
    with pytest.raises(ValueError, match=f"^{message}$"):
        EpochSampler(7, seed=0, total_batch_size=8)


def test_clips_of_a_group_stay_near_each_other() -> None:
    num_groups, size = 5 * GROUPS_AT_ONCE, 6
    groups = [f"shard {index // size}" for index in range(num_groups * size)]
    sampler = EpochSampler(len(groups), seed=0, groups=groups)
    orders = []
    for epoch in range(3):
        sampler.set_epoch(epoch)
        order = [index for _, index in sampler]
        assert sorted(order) == list(range(len(groups)))
        window = GROUPS_AT_ONCE * size
        for start in range(0, len(order), window):
            within = order[start : start + window]
            assert len({groups[index] for index in within}) == GROUPS_AT_ONCE
            assert [groups[i] for i in within] != sorted(groups[i] for i in within)
        orders.append(order)
    windows = [{groups[index] for index in order[: GROUPS_AT_ONCE * size]} for order in orders]
    assert windows[0] != windows[1] != windows[2]  # other shards are neighbours
    with pytest.raises(ValueError, match="groups has 2 entries for 3 clips; give one per clip."):
        EpochSampler(3, seed=0, groups=["a", "b"])
