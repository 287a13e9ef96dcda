"""How fast encoders are, side by side."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
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
    side = image_size
    pixels = np.random.default_rng(0).integers(0, 256, (batch_size, side, side, 3), dtype=np.uint8)
    samples: list[list[float]] = [[] for _ in runs]
    for _ in range(ROUNDS):
        for run, taken in zip(runs, samples, strict=True):
            time.sleep(REST)
            run(pixels)
            run(pixels)
            end = time.perf_counter() + seconds / ROUNDS
            taken += [_time(run, pixels) / batch_size]
            while time.perf_counter() < end:
                taken += [_time(run, pixels) / batch_size]
    return [_summarize(taken) for taken in samples]


def _summarize(taken: Sequence[float]) -> Timing:
    lower, _, upper = quantiles(taken, n=4)
    return Timing(median(taken), lower, upper, min(taken))


def _time(run: Callable[[Pixels], object], pixels: Pixels) -> float:
    """One call, in milliseconds."""
    start = time.perf_counter()
    run(pixels)
    return (time.perf_counter() - start) * 1000
