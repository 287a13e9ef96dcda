"""How fast encoders are, side by side."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import median, quantiles

import numpy as np

from .preprocessing import Pixels

ROUNDS = 10
# ONNX Runtime's threads spin for a while after a call, and would slow down whatever runs next.
REST = 0.05  # seconds
# With nothing else to do, medians were 1.02 to 1.23 times the least (conv4, MobileNetV3, ResNet-18; two cores).
SPREAD = 1.5
# A network this many times as fast as another is the faster one; less is noise.
LEAD = 1.10


@dataclass(frozen=True)
class Timing:
    """Milliseconds per image: the median of all calls, with the quartiles as their spread, and the least."""

    median: float
    lower: float
    upper: float
    least: float

    @property
    def spreads(self) -> bool:
        """Whether other work on the machine took so much of the time that the median says little."""
        return self.median > SPREAD * self.least


def time_in_turn(
    runs: Sequence[Callable[[Pixels], object]], image_size: int, batch_size: int = 1, seconds: float = 1.0
) -> list[Timing]:
    """Times functions from pixels `[batch_size, H, W, 3]` to embeddings, in turn, for about `seconds` each.

    Each gets ten turns, so that a machine that slows down slows all of them; the first calls of a turn do not count.
    """
    pixels = draw_noise(image_size, batch_size)
    return time_calls([partial(run, pixels) for run in runs], batch_size, seconds)


def draw_noise(image_size: int, batch_size: int = 1) -> Pixels:
    """Random images to time networks with, always the same, uint8 `[batch_size, image_size, image_size, 3]`."""
    return np.random.default_rng(0).integers(0, 256, (batch_size, image_size, image_size, 3), dtype=np.uint8)


def time_calls(calls: Sequence[Callable[[], object]], images: int = 1, seconds: float = 1.0) -> list[Timing]:
    """The same of functions that hold their own pixels, `images` of them, so that networks of several sizes compare."""
    samples: list[list[float]] = [[] for _ in calls]
    for _ in range(ROUNDS):
        for call, taken in zip(calls, samples, strict=True):
            time.sleep(REST)
            call()
            call()
            end = time.perf_counter() + seconds / ROUNDS
            taken += [_time(call) / images]
            while time.perf_counter() < end:
                taken += [_time(call) / images]
    return [_summarize(taken) for taken in samples]


def _summarize(taken: Sequence[float]) -> Timing:
    lower, _, upper = quantiles(taken, n=4)
    return Timing(median(taken), lower, upper, min(taken))


def _time(call: Callable[[], object]) -> float:
    """One call, in milliseconds."""
    start = time.perf_counter()
    call()
    return (time.perf_counter() - start) * 1000
