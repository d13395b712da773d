"""Long videos and cameras: the classes of a sliding window, window by window, at a cost that does not grow.

    frames ──one in 1/(a f) seconds──► ring buffer of a*T ──every `hop` frames──► model ──► scores, label, since when
                                                                                            merge_events ──► events

Kept of a frame are its pixels as the model sees them and, where the image tower sees each frame by itself, its
features: a VideoCLIP (but "joint") and a MoTED (but "serial") encode every frame once, whatever windows it is in. In an
X-CLIP frames exchange messages, so each window is computed anew.

Legend: T sampled frames of a window, a motion frame ratio (1 but for MoTED), f sampled frames per second, N classes,
S side of the square a model sees.
"""

from __future__ import annotations

import copy
import logging
import math
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from statistics import median_low
from typing import Any

import numpy as np
import torch

from ..evaluation.calibration import Calibration, check_threshold, check_weights, scaled
from ..evaluation.class_texts import check_motion_frames
from ..modeling.modeling_video_text import TextBank
from ..processing.processing_video_text import VideoTextProcessor
from .frame_stream import Picture, read_stream

__all__ = ["StreamEvent", "StreamResult", "StreamingClassifier", "merge_events"]

logger = logging.getLogger(__name__)

# How much earlier than its time on the sampling grid a frame may come, of the usual interval between frames, at most of
# a step of the grid. Timestamps are rounded and cameras jitter. With a half, a stream sampled 2 in 5 would be in doubt.
_EARLINESS = 0.4
_INTERVALS = 16  # between frames, the last ones, whose median is the usual one
_GAP = 4  # usual intervals without a frame
_TOLERANCE = 1.1  # by which the measured rate may be off


@dataclass(frozen=True)
class StreamResult:
    """What the model says of one window.

    Attributes:
        start: time of the first frame of the window, in seconds.
        end: time of its last frame.
        scores: probability of each class, by name.
        label: the class that is on, or None (see [`StreamingClassifier`]).
        since: start of the first window of the event that this one belongs to; None without a label.
    """

    start: float
    end: float
    scores: dict[str, float]
    label: str | None
    since: float | None

    def ranked(self) -> list[tuple[str, float]]:
        """(class name, score), highest first."""
        return sorted(self.scores.items(), key=lambda pair: -pair[1])


@dataclass(frozen=True)
class StreamEvent:
    """A class that was on for a while.

    Attributes:
        label: the class.
        start: time of the first frame of the first window, in seconds.
        end: time of the last frame of the last window.
        score: the highest score of the class in these windows.
    """

    label: str
    start: float
    end: float
    score: float


@dataclass(eq=False)
class _Frame:
    """A sampled frame: seconds, (3, S, S) as the model sees it, and its features (F,) once they were needed."""

    timestamp: float
    pixels: torch.Tensor
    features: torch.Tensor | None = None


class StreamingClassifier:
    """Classifies a sliding window over frames that come one after the other.

    Time and memory of a frame depend on the window alone, not on how long the stream has been running.

    Frames are sampled by time: one in each 1 / (a f) seconds, so the rate of the stream may vary. The first window is
    complete after a*T samples; where none is, [`finish`] repeats frames in place. Frames that the stream drops are left
    out, and the window reaches further back; after a gap longer than a window, and than some of the stream's usual
    intervals, everything starts anew, as after [`reset`]. A stream of fewer than a*f frames per second gives longer
    windows than promised, which is logged as a warning.

    A class comes on where it has the highest score and at least `enter`, and stays on until its score is below `leave`
    or another comes on. Two thresholds keep it from flickering.

    Args:
        model: an X-CLIP, MoTED or VideoCLIP, in evaluation mode.
        processor: its processor; of its settings, how frames are sampled has no effect.
        text_bank: class texts from `model.encode_texts`.
        frames_per_second: f, sampled frames in a second. A window of T lasts T / f seconds: as long as the actions.
        hop: sampled frames between windows, an int. With 1 every sampled frame ends a window; the cost is divided by
            `hop`.
        enter: score from which a class comes on.
        leave: score below which it goes off; at most `enter`.
        calibration: what the scores are calibrated with; its threshold is a good `enter`.

    Example:
        >>> stream = StreamingClassifier(model, processor, bank, frames_per_second=4)  # doctest: +SKIP
        >>> for event in merge_events(stream.run("long.mp4")):  # doctest: +SKIP
        ...     print(event.label, event.start, event.end)
    """

    def __init__(
        self,
        model: Any,
        processor: VideoTextProcessor,
        text_bank: TextBank,
        *,
        frames_per_second: float,
        hop: int = 1,
        enter: float = 0.5,
        leave: float = 0.3,
        calibration: Calibration | None = None,
    ) -> None:
        if not 0 < frames_per_second < math.inf:
            raise ValueError(f"frames_per_second={frames_per_second!r} must be a positive number.")
        if not isinstance(hop, int) or hop < 1:
            raise ValueError(f"hop={hop!r} must be a whole number of at least 1.")
        check_threshold("enter", enter)
        check_threshold("leave", leave)
        if leave > enter:
            raise ValueError(f"leave={leave} is above enter={enter}: a class would go off as it comes on.")
        _check_evaluation_mode(model)
        check_motion_frames(model, processor)
        processor.check_text_bank(text_bank)
        model.check_text_bank(text_bank)
        if calibration is not None:
            check_weights(calibration, model)
        self.model = model
        self.text_bank = text_bank
        self.enter, self.leave = enter, leave
        self._temperature = 1.0 if calibration is None else calibration.temperature
        self._ratio = processor.motion_frame_ratio
        self._rate = frames_per_second * self._ratio
        self._hop = hop * self._ratio
        self._encodes_frames = getattr(model, "can_encode_frames", False)
        # A MoTED's motion encoder reads them, whatever was encoded before.
        self._reads_pixels = not self._encodes_frames or hasattr(model.config, "motion_frame_ratio")
        settings = processor.contract | {"sampling": "all", "motion_frame_ratio": 1}
        self._processor = VideoTextProcessor(**settings)  # of single frames
        self._length = processor.num_frames * self._ratio
        self.reset()

    def reset(self) -> None:
        """Forgets all frames: what follows is another stream, whose clock may start anew."""
        self._last_timestamp = -math.inf
        self._intervals: deque[float] = deque(maxlen=_INTERVALS)
        self._start_anew()

    def _start_anew(self) -> None:
        self._window: deque[_Frame] = deque(maxlen=self._length)
        self._origin: float | None = None  # time of the first sample, from which the grid is counted
        self._slot = -1  # of the last sample, on the grid
        self._waiting = self._length  # samples until the next window is complete
        self._label: str | None = None
        self._since: float | None = None

    def push(self, frame: Any, timestamp: float) -> list[StreamResult]:
        """What there is to say after one more frame: the result of a window that it completes, or nothing.

        Args:
            frame: (H, W, 3) uint8 array or tensor, RGB, or a PIL image.
            timestamp: seconds, not before that of the frame before.

        Raises:
            ValueError: if time runs backwards or is no number, for a frame of another shape, and if the model was put
                into training mode.
            FloatingPointError: if the scores are no numbers.
        """
        return self._push(Picture(float(timestamp), lambda: frame))

    def finish(self) -> list[StreamResult]:
        """The window of the last frames, if there were frames after the last one, or too few for one; then resets."""
        is_partial = 0 < len(self._window) < self._length
        has_more = bool(self._window) and self._waiting < self._hop  # than the last window
        results = [self._classify()] if is_partial or has_more else []
        self.reset()
        return results

    def run(self, source: Any, *, input_format: str | None = None) -> Iterator[StreamResult]:
        """The results of a whole video, while it is read; then, or when the loop is left, it is closed.

        Frames that come late are left out; a clock that jumps by more than a window starts anew. The frames are kept
        apart from those of [`push`] and of other runs.

        Args:
            source: path, URL (http, rtsp, udp, ...) or binary file object; with `input_format`, a device.
            input_format: FFmpeg's name of the kind of input, where the source does not tell: "v4l2" for /dev/video0.

        Raises:
            VideoDecodeError: if the content cannot be decoded.
            OSError: if the source cannot be opened.
            TypeError: for a source of another type.
            ValueError, FloatingPointError: as [`push`], of the model.
        """
        stream = copy.copy(self)
        stream.reset()
        for picture in read_stream(source, input_format=input_format):
            lateness = stream._last_timestamp - picture.timestamp
            if lateness * stream._rate > stream._length:
                stream.reset()
            elif lateness > 0:
                continue
            yield from stream._push(picture)
        yield from stream.finish()

    @torch.inference_mode()
    def _push(self, picture: Picture) -> list[StreamResult]:
        time = picture.timestamp
        if not time >= self._last_timestamp or math.isinf(time):
            raise ValueError(
                f"timestamp {time:g} follows {self._last_timestamp:g}, but time runs forward in a stream. For another "
                "stream, or where the clock starts anew, call reset() first."
            )
        interval, self._last_timestamp = time - self._last_timestamp, time
        if interval > max(self._length / self._rate, _GAP * self._usual_interval()):
            self._start_anew()
        if 0 < interval < math.inf:
            self._measure(interval)
        if self._origin is None:
            self._origin = time
        earliness = _EARLINESS * min(1.0, self._usual_interval() * self._rate)
        slot = math.floor((time - self._origin) * self._rate + earliness)
        if slot <= self._slot:
            return []
        self._slot = slot
        self._window.append(_Frame(time, self._pixels(picture.picture())))
        self._waiting -= 1
        if self._waiting > 0:
            return []
        self._waiting = self._hop
        return [self._classify()]

    def _usual_interval(self) -> float:
        """Seconds between frames; 0 before the second."""
        return median_low(self._intervals) if self._intervals else 0.0

    def _measure(self, interval: float) -> None:
        """Takes in the seconds between two frames; warns, once there are enough, if they are too many."""
        was_known = len(self._intervals) == _INTERVALS
        self._intervals.append(interval)
        if was_known or len(self._intervals) < _INTERVALS:
            return
        rate = 1 / self._usual_interval()
        if self._rate > rate * _TOLERANCE:
            wanted = f"{self._rate / self._ratio:g}" + (f" x motion_frame_ratio={self._ratio}" * (self._ratio > 1))
            logger.warning(
                "frames_per_second=%s is more than the stream has, about %.3g: a window of %d frames lasts %.3g s "
                "instead of %.3g s.",
                wanted,
                rate,
                self._length,
                self._length / rate,
                self._length / self._rate,
            )

    def _pixels(self, frame: Any) -> torch.Tensor:
        """(3, S, S) on the model's device."""
        if isinstance(frame, (np.ndarray, torch.Tensor)) and frame.ndim != 3:
            raise ValueError(f"a frame has shape {tuple(frame.shape)}; wanted (H,W,3), one picture at a time.")
        return self._processor(videos=[[frame]])["pixel_values"][0, 0].to(self.model.device)

    @torch.inference_mode()
    def _classify(self) -> StreamResult:
        """The result of the frames in the buffer, which become a window by repeating some where there are too few."""
        _check_evaluation_mode(self.model)
        frames = [self._window[place * len(self._window) // self._length] for place in range(self._length)]
        logits = self._logits(frames).float().cpu()  # (1, N)
        if not logits.isfinite().all():
            raise FloatingPointError(
                f"the {self.model.dtype} model gives scores that are no numbers; load its weights again, in float32 "
                "if they are of less precision."
            )
        scores = scaled(logits, self._temperature)[0].exp().tolist()
        by_name = dict(zip(self.text_bank.names, scores, strict=True))
        self._follow(by_name, frames[0].timestamp)
        return StreamResult(frames[0].timestamp, frames[-1].timestamp, by_name, self._label, self._since)

    def _logits(self, frames: list[_Frame]) -> torch.Tensor:
        inputs: dict[str, Any] = {"text_bank": self.text_bank}
        if self._reads_pixels:
            inputs["pixel_values"] = torch.stack([frame.pixels for frame in frames]).unsqueeze(0)  # (1, aT, 3, S, S)
        if self._encodes_frames:
            inputs["frame_features"] = self._features(frames[:: self._ratio]).unsqueeze(0)  # (1, T, F)
        return self.model(**inputs).logits_per_video

    def _features(self, frames: list[_Frame]) -> torch.Tensor:
        """(T, F), of which only those that are new are computed."""
        new = [frame for frame in dict.fromkeys(frames) if frame.features is None]
        if new:
            features = self.model.encode_frames(torch.stack([frame.pixels for frame in new]).unsqueeze(0))[0]
            for frame, own in zip(new, features, strict=True):
                frame.features = own
        return torch.stack([frame.features for frame in frames if frame.features is not None])

    def _follow(self, scores: dict[str, float], start: float) -> None:
        """Which class is on after these scores, and since when."""
        best = max(scores, key=lambda name: scores[name])
        if scores[best] >= self.enter:
            if best != self._label:
                self._label, self._since = best, start
        elif self._label is not None and scores[self._label] < self.leave:
            self._label = self._since = None


def _check_evaluation_mode(model: Any) -> None:
    if model.training:
        raise ValueError("the model is in training mode, in which dropout is random; call model.eval() first.")


def merge_events(results: Iterable[StreamResult], *, min_duration: float = 0.0) -> Iterator[StreamEvent]:
    """Each class that was on, from when to when, as soon as it is over.

    The windows of two events overlap where one follows the other at once, and so do their times. Where the results end
    with an error, or with Ctrl-C, the event that is on comes first. Results of several streams may follow each other.

    Args:
        results: what [`StreamingClassifier.run`] gives, or `push` and `finish` gave.
        min_duration: seconds; shorter events are left out.

    Raises:
        ValueError: if `min_duration` is negative or no number.
    """
    if not min_duration >= 0:
        raise ValueError(f"min_duration={min_duration!r} must be 0 or more seconds.")
    event: StreamEvent | None = None
    try:
        for result in results:
            if event is not None and not _goes_on(event, result):
                yield from _long_enough(event, min_duration)
                event = None
            if result.label is not None and result.since is not None:
                score = max(result.scores[result.label], 0.0 if event is None else event.score)
                event = StreamEvent(result.label, result.since, result.end, score)
    except (Exception, KeyboardInterrupt):
        yield from _long_enough(event, min_duration)
        raise
    yield from _long_enough(event, min_duration)


def _goes_on(event: StreamEvent, result: StreamResult) -> bool:
    return (result.label, result.since) == (event.label, event.start) and result.end > event.end


def _long_enough(event: StreamEvent | None, min_duration: float) -> list[StreamEvent]:
    return [event] if event is not None and event.end - event.start >= min_duration else []
