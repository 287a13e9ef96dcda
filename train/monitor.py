"""What an epoch was like: the figures of a line of metrics.jsonl."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

from ..evaluate.evidence import Evidence

T = TypeVar("T")


@dataclass(frozen=True)
class Metrics:
    """Figures of one epoch. `epoch` counts from 1; 0 is the untrained network, where what training alone has is None.

    `projection_std`: per-dimension standard deviation of the unit-length projections, times √D: 1 when they fill the
    sphere, near .7–.8 in a healthy run, 0 when they are all equal. `rank`, `embedding_std`, `knn`: see Evidence;
    `knn` is None where it was not measured. `waiting`: share of the time in which no batch was ready.
    """

    epoch: int
    step: int
    loss: float | None
    tau: float | None
    learning_rate: float | None
    projection_std: float | None
    rank: float
    embedding_std: float
    knn: float | None
    images_per_s: float | None
    waiting: float | None
    seconds: float
    unreadable: int


@dataclass(frozen=True)
class Moment:
    """Where a training is: `epoch` and `step` are finished and count from 1."""

    epoch: int
    step: int
    tau: float
    learning_rate: float


class EpochMonitor:
    """Gathers figures step by step, on the device: nothing is read back before it is asked for."""

    def __init__(self) -> None:
        self.start_epoch()

    def start_epoch(self) -> None:
        self._start = time.perf_counter()
        self._losses: list[Tensor] = []
        self._spreads: list[Tensor] = []
        self._steps: list[int] = []
        self._images = 0
        self._waited = 0.0

    def watch(self, batches: Iterable[T]) -> Iterator[T]:
        """The same batches; counts the time that is spent waiting for them."""
        source = iter(batches)
        while True:
            asked = time.perf_counter()
            try:
                batch = next(source)
            except StopIteration:
                return
            self._waited += time.perf_counter() - asked
            yield batch

    def add(self, step: int, loss: Tensor, projections: Tensor) -> None:
        """One batch's loss (scalar) and online projections `[N, D]`; `step` counts from 1."""
        self._steps.append(step)
        self._losses.append(loss.detach())
        self._spreads.append(projection_std(projections))
        self._images += len(projections)

    @property
    def has_steps(self) -> bool:
        return bool(self._steps)

    def first_bad_step(self) -> tuple[int, float] | None:
        """The first step of this epoch with a loss that is no finite number, and that loss."""
        losses = torch.stack(self._losses).tolist() if self._losses else []
        return next(
            ((step, loss) for step, loss in zip(self._steps, losses, strict=True) if not math.isfinite(loss)), None
        )

    def seconds(self) -> float:
        return time.perf_counter() - self._start

    def summarize(self, moment: Moment, seconds: float, evidence: Evidence, unreadable: int) -> Metrics:
        """The line of an epoch that took `seconds`, the measuring of `evidence` apart."""
        return Metrics(
            epoch=moment.epoch,
            step=moment.step,
            loss=float(torch.stack(self._losses).mean()),
            tau=moment.tau,
            learning_rate=moment.learning_rate,
            projection_std=float(torch.stack(self._spreads).mean()),
            rank=evidence.rank,
            embedding_std=evidence.embedding_std,
            knn=evidence.knn,
            images_per_s=self._images / seconds,
            waiting=self._waited / seconds,
            seconds=seconds,
            unreadable=unreadable,
        )


def untrained_metrics(evidence: Evidence) -> Metrics:
    """The line of epoch 0."""
    return Metrics(
        0, 0, None, None, None, None, evidence.rank, evidence.embedding_std, evidence.knn, None, None, 0.0, 0
    )


def projection_std(projections: Tensor) -> Tensor:
    """Mean over dimensions of the standard deviation over the batch of unit-length projections `[N, D]`, times √D."""
    return F.normalize(projections.float(), dim=1).std(0).mean() * projections.shape[1] ** 0.5
