"""How fast encoders are, side by side."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median, quantiles

import numpy as np

from .preprocessing import Pixels


@dataclass(frozen=True)
class Timing:
    """Milliseconds an image: the median of the rounds, and the quartiles as its spread."""

    median: float
    lower: float
    upper: float


def time_interleaved(
    runs: Sequence[Callable[[Pixels], object]], image_size: int, batch_size: int = 1, seconds: float = 1.0
) -> list[Timing]:
    """Times functions from pixels `[batch_size, H, W, 3]` to embeddings, in turn, for about `seconds` each.

    In turn, so that a machine that slows down slows them all; a round of each warms up first and is not counted.
    """
    side = image_size
    pixels = np.random.default_rng(0).integers(0, 256, (batch_size, side, side, 3), dtype=np.uint8)
    for run in runs:
        for _ in range(3):
            run(pixels)
    samples: list[list[float]] = [[] for _ in runs]
    end = time.perf_counter() + seconds * len(runs)
    while time.perf_counter() < end or len(samples[0]) < 5:
        for run, taken in zip(runs, samples, strict=True):
            start = time.perf_counter()
            run(pixels)
            taken.append((time.perf_counter() - start) * 1000 / batch_size)
    return [Timing(median(taken), *quantiles(taken, n=4)[::2]) for taken in samples]
