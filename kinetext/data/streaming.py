"""Training on a stream: a data set that is read as it comes, such as one on the Hub that does not fit the disk.

rows ─► buffer, shuffled ─► batches of a step ─► micro-batches ─► every P-th to a process, every W-th to a worker
(each worker of each process reads all of them, undecoded)         (which decodes it)
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from ..processing.processing_video_text import VideoTextProcessor
from ..processing.video_decoding import DECODERS
from .augmentation import Augmentation, flip_twins
from .clip_lists import ClassIndex, Clip
from .datasets import AUGMENT_ON, TrainCollator, TrainTransform, first_readable, sample_generator
from .saved_datasets import class_of, undecoded


class StreamingClips(IterableDataset[dict[str, Any]]):
    """Batches of augmented clips from a stream, without end: pass after pass, each in another order.

    Which clips make up a step, and how each is augmented, depends on the seed and the number of the step alone: not on
    processes and workers, nor on where training was resumed. Every clip of a pass goes to exactly one process and one
    worker, but for the rest that fills no step. The order is random as far as the buffer reaches, and that of the files
    in the stream. A clip that cannot be decoded is replaced by one of its class among those of the step and the buffer,
    where there is none by any of them, with its own label.

    What it costs: every worker of every process reads the whole stream and holds `buffer_size` + `total_batch_size`
    undecoded videos; resuming reads again, but does not decode, what went before. Where there are many processes or the
    data fit the disk, take a map-style data set or tar shards: they read each clip once.

    Args:
        dataset: a `datasets.IterableDataset` with a Video column and a label, e.g. of `open_dataset(streaming=True)`.
        processor: says which frames, which size, which mean and standard deviation.
        seed: of everything random.
        total_batch_size: clips of one optimiser step, over all processes.
        batch_size: clips of a micro-batch, which is what one iteration gives one process; all of its share by default.
        process_index: of this process.
        num_processes: P.
        first_step: optimiser steps that lie behind.
        class_names: the classes in label order; by default those of the ClassLabel column.
        buffer_size: clips among which the next one is drawn.
        augmentation: what is drawn for a clip; X-CLIP's by default.
        decoder: "pyav" or "decord".
        flip_swaps: classes that a mirrored clip changes into each other, as in `flip_twins`.
        augment_on: where the pixels are finished, as in [`TrainCollator`].
        video_column: of the data set.
        label_column: of the data set.

    Raises:
        ValueError: if `total_batch_size` is no multiple of `batch_size` times P, a column is missing, or nothing names
            the classes.
    """

    def __init__(
        self,
        dataset: Any,
        processor: VideoTextProcessor,
        *,
        seed: int,
        total_batch_size: int,
        batch_size: int | None = None,
        process_index: int = 0,
        num_processes: int = 1,
        first_step: int = 0,
        class_names: Sequence[str] | None = None,
        buffer_size: int = 256,
        augmentation: Augmentation | None = None,
        decoder: str = DECODERS[0],
        flip_swaps: str | Mapping[str, str] | None = None,
        augment_on: str = AUGMENT_ON[0],
        video_column: str = "video",
        label_column: str = "label",
    ) -> None:
        self._dataset, self._label_names = undecoded(dataset, video_column, label_column)
        names = self._label_names if class_names is None else class_names
        if names is None:
            raise ValueError(f"the column {label_column!r} does not name the classes; give them by class_names.")
        self.batch_size = total_batch_size // num_processes if batch_size is None else batch_size
        if not self.batch_size or total_batch_size % (self.batch_size * num_processes):
            raise ValueError(
                f"total_batch_size={total_batch_size} cannot be split into micro-batches of {self.batch_size} clips on "
                f"{num_processes} processes; choose a multiple of {max(1, self.batch_size) * num_processes}."
            )
        self.class_names = tuple(names)
        self.seed = seed
        self.total_batch_size = total_batch_size
        self.process_index = process_index
        self.num_processes = num_processes
        self.first_step = first_step
        self.buffer_size = buffer_size
        self.transform = TrainTransform(
            processor, augmentation or Augmentation(), decoder, flip_twins(flip_swaps or {}, names)
        )
        self.collate = TrainCollator(processor.image_mean, processor.image_std, augment_on)
        self._classes = ClassIndex(names, numbered=True)
        self._columns = (video_column, label_column)

    def loader(self, num_workers: int = 0, **options: Any) -> DataLoader:
        """A loader of these batches; `options` are those of `DataLoader`."""
        return DataLoader(self, batch_size=None, collate_fn=_as_it_is, num_workers=num_workers, **options)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Batches as [`TrainCollator`] makes them, those of this process and worker."""
        worker = get_worker_info()
        worker_index, num_workers = (0, 1) if worker is None else (worker.id, worker.num_workers)
        if worker is not None:
            import fsspec.asyn

            fsspec.asyn.reset_lock()  # which a fork leaves behind taken
        batches = (
            (pass_number, clips, pool)
            for pass_number, step, pool in itertools.islice(self._steps(), self.first_step, None)
            for clips in step[self.process_index :: self.num_processes]
        )
        for pass_number, clips, pool in itertools.islice(batches, worker_index, None, num_workers):
            yield self.collate([self._sample(pass_number, clip, pool) for clip in clips])

    def _sample(self, pass_number: int, listed: Clip, pool: Sequence[Clip]) -> dict[str, Any]:
        def read(clip: Clip) -> dict[str, Any]:
            return self.transform(clip.source, clip.label, sample_generator(self.seed, pass_number, listed.clip_id))

        sample, failures = first_readable(self._candidates(pass_number, listed, pool), read)
        return {**sample, "clip_id": listed.clip_id, "failures": failures}

    def _candidates(self, pass_number: int, listed: Clip, pool: Sequence[Clip]) -> Iterator[Clip]:
        """The listed clip, then the others of the pool in random order, those of its class first."""
        yield listed
        generator = sample_generator(self.seed, pass_number, f"replacements of {listed.clip_id}")
        others = [pool[place] for place in torch.randperm(len(pool), generator=generator).tolist()]
        others = [clip for clip in others if clip.clip_id != listed.clip_id]
        yield from sorted(others, key=lambda clip: clip.label != listed.label)

    def _steps(self) -> Iterator[tuple[int, list[list[Clip]], list[Clip]]]:
        """(pass, micro-batches, clips that can replace theirs) of one optimiser step after the other."""
        for pass_number in itertools.count():
            num_steps = 0
            clips: list[Clip] = []
            for clip, buffer in self._shuffled(pass_number):
                clips.append(clip)
                if len(clips) == self.total_batch_size:
                    starts = range(0, len(clips), self.batch_size)
                    yield pass_number, [clips[start : start + self.batch_size] for start in starts], clips + buffer
                    num_steps += 1
                    clips = []
            if not num_steps:
                raise ValueError(
                    f"the stream has {len(clips)} clips, which do not fill one batch of {self.total_batch_size}; lower "
                    "total_train_batch_size."
                )

    def _shuffled(self, pass_number: int) -> Iterator[tuple[Clip, list[Clip]]]:
        """(a clip drawn from the buffer, what is left in there) until a pass is over."""
        generator = sample_generator(self.seed, pass_number, "order of the stream")
        buffer: list[Clip] = []
        for clip in self._clips(pass_number):
            buffer.append(clip)
            if len(buffer) > self.buffer_size:
                yield _draw(buffer, generator), buffer
        while buffer:
            yield _draw(buffer, generator), buffer

    def _clips(self, pass_number: int) -> Iterator[Clip]:
        """The rows of a pass, files in random order, undecoded; their ids say pass and place."""
        seed = sample_generator(self.seed, pass_number, "order of the files").initial_seed()
        # Only the files are shuffled here: the buffer of `datasets` does not show what is in it. And not
        # `iter(dataset)`, which gives a worker some of the files.
        rows = self._dataset.shuffle(seed=seed, buffer_size=1, max_buffer_input_shards=1).iter(batch_size=1)
        video_column, label_column = self._columns
        for number, row in enumerate(rows):
            (video,), (label,) = row[video_column], row[label_column]
            clip_id = f"{pass_number}/{number:08d}"
            if isinstance(video, Mapping) and video.get("path"):
                clip_id += f" {video['path']}"
            yield Clip(clip_id, video, self._classes.label(clip_id, class_of(label, self._label_names)))


def _draw(buffer: list[Clip], generator: torch.Generator) -> Clip:
    """Takes a random clip out of the buffer."""
    place = int(torch.randint(len(buffer), (), generator=generator))
    buffer[place], buffer[-1] = buffer[-1], buffer[place]
    return buffer.pop()


def _as_it_is(batch: Any) -> Any:
    return batch
