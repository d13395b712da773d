"""A stream gives every clip once, in an order and with an augmentation that nothing but seed and step decide."""

import itertools
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from rendered_clips import render_clip

from kinetext import VideoTextProcessor
from kinetext.data.saved_datasets import open_dataset
from kinetext.data.streaming import StreamingClips

datasets = pytest.importorskip("datasets")

NUM_CLIPS = 23
STEP = 6  # clips of an optimiser step; 3 steps and 5 clips a pass


@pytest.fixture(scope="module")
def parquet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of four parquet files with 23 clips of three classes; clips 4 and 9 are no videos."""
    folder = tmp_path_factory.mktemp("parquet")
    content = [render_clip(folder / f"{index}.mp4", 4 + index).read_bytes() for index in range(2)]
    rows = [
        {
            "video": {"bytes": b"no video" if index in (4, 9) else content[index % 2], "path": f"{index}.mp4"},
            "label": index % 3,
        }
        for index in range(NUM_CLIPS)
    ]
    features = datasets.Features(
        {"video": datasets.Video(decode=False), "label": datasets.ClassLabel(names=["run", "jump", "kick ball"])}
    )
    for part in range(4):
        datasets.Dataset.from_list(rows[part::4], features=features).to_parquet(folder / f"{part}.parquet")
    return folder


def stream(folder: Path, **options: Any) -> StreamingClips:
    processor = VideoTextProcessor(num_frames=2, crop_size=16)
    options = {"seed": 0, "total_batch_size": STEP, "buffer_size": 5, **options}
    return StreamingClips(open_dataset(folder, streaming=True), processor, **options)


def take(batches: Iterator[dict[str, Any]] | Any, count: int) -> list[dict[str, Any]]:
    return list(itertools.islice(batches, count))


def joined(parts: Sequence[Sequence[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Micro-batches of several processes in the order of the one process that would have done all."""
    return [batch for batches in zip(*parts, strict=True) for batch in batches]


def numbers(batches: Sequence[dict[str, Any]]) -> list[int]:
    """The numbers of the listed clips, as their file names say."""
    return [int(Path(clip_id.partition(" ")[2]).stem) for batch in batches for clip_id in batch["clip_ids"]]


def assert_same(left: Sequence[dict[str, Any]], right: Sequence[dict[str, Any]]) -> None:
    """Equal clips, pixels, labels and failures in equal order, however they are cut into micro-batches."""
    for key in ("clip_ids", "failures"):
        assert [x for batch in left for x in batch[key]] == [x for batch in right for x in batch[key]]
    for key in ("pixel_values", "labels"):
        assert torch.cat([batch[key] for batch in left]).equal(torch.cat([batch[key] for batch in right]))


def test_a_pass_holds_every_clip_once_but_for_the_rest_that_fills_no_step(parquet: Path) -> None:
    batches = take(stream(parquet), 9)
    passes = [numbers(batches[start : start + 3]) for start in (0, 3, 6)]
    for one in passes:
        assert len(one) == len(set(one)) == 18 and set(one) < set(range(NUM_CLIPS))
    assert len({tuple(one) for one in passes}) == len({frozenset(one) for one in passes}) == 3
    assert [clip_id.split("/")[0] for batch in batches for clip_id in batch["clip_ids"]] == ["0"] * 18 + ["1"] * 18 + [
        "2"
    ] * 18
    everything = take(stream(parquet, total_batch_size=NUM_CLIPS), 2)
    assert [sorted(numbers([batch])) for batch in everything] == [list(range(NUM_CLIPS))] * 2


def test_batches_are_those_of_the_collator(parquet: Path) -> None:
    clips = stream(parquet)
    (batch,) = take(clips, 1)
    assert batch["pixel_values"].shape == (STEP, 2, 3, 16, 16) and batch["pixel_values"].dtype == torch.float32
    assert clips.class_names == ("run", "jump", "kick ball")
    assert batch["labels"].tolist() == [number % 3 for number in numbers([batch])]
    (raw,) = take(stream(parquet, augment_on="accelerator"), 1)
    assert raw["pixel_values"].dtype == torch.uint8 and len(raw["draws"]) == STEP


@pytest.mark.parametrize("num_workers", [1, 2])
def test_workers_change_nothing(parquet: Path, num_workers: int) -> None:
    options = {"batch_size": 2}
    assert_same(take(stream(parquet, **options).loader(num_workers), 13), take(stream(parquet, **options).loader(), 13))


@pytest.mark.parametrize(("num_processes", "batch_size", "num_workers"), [(2, 3, 0), (3, 2, 0), (3, 1, 0), (2, 1, 2)])
def test_processes_and_micro_batches_change_nothing(
    parquet: Path, num_processes: int, batch_size: int, num_workers: int
) -> None:
    per_process = 4 * STEP // (num_processes * batch_size)  # micro-batches of 4 steps
    parts = [
        take(
            stream(parquet, batch_size=batch_size, process_index=index, num_processes=num_processes).loader(
                num_workers
            ),
            per_process,
        )
        for index in range(num_processes)
    ]
    assert_same(joined(parts), take(stream(parquet), 4))


@pytest.mark.parametrize(("first_step", "num_workers"), [(1, 0), (2, 2), (5, 0)])
def test_a_resumed_stream_goes_on_where_it_was(parquet: Path, first_step: int, num_workers: int) -> None:
    whole = take(stream(parquet), 8)
    rest = take(stream(parquet, first_step=first_step).loader(num_workers), 8 - first_step)
    assert_same(rest, whole[first_step:])


def test_what_lies_behind_is_not_decoded(parquet: Path) -> None:
    resumed = stream(parquet, first_step=4)
    decoded: list[int] = []
    transform = resumed.transform
    resumed.transform = lambda *arguments: decoded.append(1) or transform(*arguments)  # type: ignore[assignment]
    (batch,) = take(resumed, 1)
    assert len(decoded) == STEP + len(batch["failures"])


def test_seed_and_buffer_change_the_order(parquet: Path) -> None:
    orders = [numbers(take(stream(parquet, **options), 3)) for options in ({}, {"seed": 1}, {"buffer_size": 20})]
    assert len({tuple(order) for order in orders}) == 3
    torch.manual_seed(5)
    assert numbers(take(stream(parquet), 3)) == orders[0]


def test_damaged_clips_are_replaced_by_clips_of_their_class(parquet: Path) -> None:
    batches = take(stream(parquet, total_batch_size=NUM_CLIPS, buffer_size=1), 3)  # classes of 4 and 9: jump, run
    for batch in batches:
        failed = [failed_id.partition(" ")[2] for failed_id, _ in batch["failures"]]
        assert set(failed) == {"4.mp4", "9.mp4"}
        assert batch["labels"].tolist() == [number % 3 for number in numbers([batch])]
        assert all("cannot decode" in reason for _, reason in batch["failures"])


def test_where_the_class_is_not_at_hand_a_replacement_brings_its_own_label(parquet: Path) -> None:
    batches = take(
        stream(parquet, total_batch_size=2, buffer_size=0), 44
    )  # two clips, of two classes more often than not
    labels = [
        (n % 3, label) for batch in batches for n, label in zip(numbers([batch]), batch["labels"].tolist(), strict=True)
    ]
    swapped = [pair for pair in labels if pair[0] != pair[1]]
    failures = [failure for batch in batches for failure in batch["failures"]]
    assert 0 < len(swapped) <= len(failures)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"batch_size": 4},
            "total_batch_size=6 cannot be split into micro-batches of 4 clips on 1 processes; choose a multiple of 4.",
        ),
        (
            {"num_processes": 4},
            "total_batch_size=6 cannot be split into micro-batches of 1 clips on 4 processes; choose a multiple of 4.",
        ),
        (
            {"num_processes": 7},
            "total_batch_size=6 cannot be split into micro-batches of 0 clips on 7 processes; choose a multiple of 7.",
        ),
        ({"augment_on": "gpu"}, "augment_on='gpu' is unknown; choose one of workers, accelerator."),
        ({"video_column": "clip"}, "the dataset has the columns ['video', 'label'], none is 'clip'."),
    ],
)
def test_streams_that_do_not_fit_are_errors(parquet: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        stream(parquet, **options)


def test_fewer_clips_than_one_step_are_an_error(parquet: Path) -> None:
    message = "the stream has 23 clips, which do not fill one batch of 24; lower total_train_batch_size."
    with pytest.raises(ValueError, match=re.escape(message)):
        next(iter(stream(parquet, total_batch_size=24)))


def test_streams_come_from_saved_data_and_classes_from_lists(parquet: Path, tmp_path: Path) -> None:
    open_dataset(parquet).cast_column("label", datasets.Value("int64")).save_to_disk(tmp_path / "saved")
    dataset = open_dataset("saved", data_root=tmp_path, streaming=True)
    processor = VideoTextProcessor(num_frames=2, crop_size=16)
    options: dict[str, Any] = {"seed": 0, "total_batch_size": NUM_CLIPS}
    with pytest.raises(ValueError, match="the column 'label' does not name the classes; give them by class_names."):
        StreamingClips(dataset, processor, **options)
    batches = take(StreamingClips(dataset, processor, class_names=["a", "b", "c"], **options), 2)
    for batch in batches:
        assert batch["labels"].tolist() == [number % 3 for number in numbers([batch])]
    assert numbers(batches[:1]) != numbers(batches[1:])  # it has one file only: the buffer alone mixes
    other_order = stream(parquet, class_names=["kick_ball", "Jump", "run"], total_batch_size=NUM_CLIPS)
    (batch,) = take(other_order, 1)
    assert batch["labels"].tolist() == [(2, 1, 0)[number % 3] for number in numbers([batch])]
    short = stream(parquet, class_names=["run", "jump"])
    with pytest.raises(
        ValueError, match=r"has the class 'kick ball', which is none of the 2 classes \('run', 'jump'\)."
    ):
        take(short, 3)
