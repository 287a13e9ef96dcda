"""What an epoch was like: the figures of a line of metrics.jsonl."""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Metrics:
    """Figures of one epoch; `epoch` counts from 1.

    `projection_std`: per-dimension standard deviation of the unit-length projections, times √D: 1 when they fill the
    sphere, near .7–.8 in a healthy run, 0 when the network has collapsed to a constant.
    """

    epoch: int
    step: int
    loss: float
    tau: float
    learning_rate: float
    projection_std: float
    images_per_s: float
    seconds: float
    unreadable: int


class EpochMonitor:
    """Gathers figures step by step, on the device: nothing is read back before the epoch ends."""

    def __init__(self) -> None:
        self._start = time.perf_counter()
        self._losses: list[Tensor] = []
        self._spreads: list[Tensor] = []
        self._images = 0

    def add(self, loss: Tensor, projections: Tensor) -> None:
        """One step's loss (scalar) and online projections `[N, D]`."""
        self._losses.append(loss.detach())
        self._spreads.append(projection_std(projections))
        self._images += len(projections)

    def summarise(self, epoch: int, step: int, tau: float, learning_rate: float, unreadable: int) -> Metrics:
        seconds = time.perf_counter() - self._start
        return Metrics(
            epoch=epoch,
            step=step,
            loss=_mean(self._losses),
            tau=tau,
            learning_rate=learning_rate,
            projection_std=_mean(self._spreads),
            images_per_s=self._images / seconds,
            seconds=seconds,
            unreadable=unreadable,
        )


def projection_std(projections: Tensor) -> Tensor:
    """Mean over dimensions of the standard deviation over the batch of unit-length projections `[N, D]`, times √D."""
    return F.normalize(projections.float(), dim=1).std(0).mean() * projections.shape[1] ** 0.5


def _mean(values: list[Tensor]) -> float:
    return float(torch.stack(values).mean()) if values else float("nan")
