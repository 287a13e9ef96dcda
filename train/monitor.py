"""What an epoch was like: its figures, gathered step by step."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

import torch
from torch import Tensor

from ..models.objective import Outcome
from ..runtime.run import Metrics
from .evaluation import Figures

log = logging.getLogger(__name__)
T = TypeVar("T")

# Seconds of training after which it is said how long the rest will take.
SECONDS_TO_TELL = 10


class Monitor:
    """Gathers figures on the device: nothing is read back before it is asked for. An epoch's end starts the next."""

    def __init__(self) -> None:
        self._unreadable: set[str] = set()
        self._first_step: tuple[int, float] | None = None
        self._told = False
        self.start_epoch()

    def start_epoch(self) -> None:
        self._start = time.perf_counter()
        self._outcomes: list[tuple[int, Outcome]] = []
        self._moment: dict[str, float] = {}
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

    def tell_duration(self, done: int, steps: int) -> None:
        """Says, once that can be known, how long the steps that are left will take."""
        now = time.perf_counter()
        if self._first_step is None:  # what comes before it, such as starting the workers, is not its speed
            self._first_step = done, now
        elif not self._told and now - self._first_step[1] >= SECONDS_TO_TELL:
            self._told = True
            left = (now - self._first_step[1]) / (done - self._first_step[0]) * (steps - done)
            log.info("training will take about %s more", describe_duration(left))

    def warn(self, errors: Iterable[str]) -> None:
        """Names each image that cannot be read, once."""
        for message in sorted(set(errors) - self._unreadable):
            self._unreadable.add(message)
            log.warning("left out: %s", message)

    def add(self, step: int, images: int, outcome: Outcome) -> None:
        """What came of a part of a batch; `step` counts from 0."""
        self._outcomes.append(
            (step, Outcome(outcome.loss.detach(), {name: each.detach() for name, each in outcome.diagnostics.items()}))
        )
        self._images += images

    def add_moment(self, figures: dict[str, float]) -> None:
        """Figures of a step that the epoch's last one stands for."""
        self._moment = figures

    @property
    def has_steps(self) -> bool:
        return bool(self._outcomes)

    @property
    def unreadable(self) -> int:
        return len(self._unreadable)

    def first_bad_step(self) -> tuple[int, float] | None:
        """The first step of this epoch with a loss that is no finite number, and that loss."""
        losses = torch.stack([each.loss for _, each in self._outcomes]).tolist() if self._outcomes else []
        steps = [step for step, _ in self._outcomes]
        return next(((step, loss) for step, loss in zip(steps, losses, strict=True) if not math.isfinite(loss)), None)

    def seconds(self) -> float:
        return time.perf_counter() - self._start

    def summarize(self, epoch: int, steps: int, rate: float, seconds: float, figures: Figures) -> Metrics:
        """The figures after `epoch` epochs and `steps` steps; this one took `seconds`, measuring `figures` apart."""
        names = self._outcomes[0][1].diagnostics
        return Metrics(
            epoch=epoch,
            step=steps,
            loss=_mean([each.loss for _, each in self._outcomes]),
            learning_rate=rate,
            diagnostics={
                **{name: _mean([each.diagnostics[name] for _, each in self._outcomes]) for name in names},
                **self._moment,
            },
            **vars(figures),
            images_per_s=self._images / seconds,
            waiting=self._waited / seconds,
            seconds=seconds,
            unreadable=self.unreadable,
        )


def start_metrics(figures: Figures) -> Metrics:
    """The line of epoch 0."""
    return Metrics(epoch=0, **vars(figures))


def describe_epoch(metrics: Metrics) -> str:
    """One line for a person."""
    figures = f"rank {metrics.rank:.0f}" + ("" if metrics.knn is None else f", kNN {metrics.knn:.3f}")
    if metrics.epoch == 0:
        return f"before training: {figures}" + (
            "" if metrics.knn_raw is None else f" (raw pixels {metrics.knn_raw:.3f})"
        )
    line = f"epoch {metrics.epoch}: loss {metrics.loss:.3f}, {figures}, {metrics.images_per_s:.0f} images/s"
    waiting = metrics.waiting or 0.0
    return line + (f", {waiting:.0%} waiting for images" if waiting > 0.1 else "")


def describe_duration(seconds: float) -> str:
    """ "40 s", "12 min", "3.5 h"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 90 * 60 else f"{seconds / 3600:.1f} h"


def _mean(values: list[Tensor]) -> float:
    return float(torch.stack(values).mean())
