"""What an epoch was like: its figures, gathered step by step."""

from __future__ import annotations

import logging
import math
import resource
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TypeVar

import torch
from torch import Tensor

from ..models.objective import Outcome
from ..runtime.cpus import available_cpus
from ..runtime.run import Metrics
from .evaluation import Figures

log = logging.getLogger(__name__)
T = TypeVar("T")

# Seconds of training after which it is said how long the rest will take.
SECONDS_TO_TELL = 10
# Seconds of waiting in an epoch that are worth doing something about.
SECONDS_TO_MIND = 5


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
        self._rendered = 0.0
        self._marks: list[tuple[torch.cuda.Event, torch.cuda.Event]] = []

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

    @contextmanager
    def rendering(self, device: torch.device) -> Iterator[None]:
        """Counts the time that the block takes on the device; of a GPU, that is read when the epoch ends."""
        if device.type == "cuda":
            marks = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            marks[0].record()
            yield
            marks[1].record()
            self._marks.append(marks)
        else:
            start = time.perf_counter()
            yield
            self._rendered += time.perf_counter() - start

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
    def unreadable(self) -> set[str]:
        """A message per image that could not be read."""
        return self._unreadable

    def first_bad_step(self) -> tuple[int, float] | None:
        """The first step of this epoch with a loss that is no finite number, and that loss."""
        losses = torch.stack([each.loss for _, each in self._outcomes]).tolist() if self._outcomes else []
        steps = [step for step, _ in self._outcomes]
        return next(((step, loss) for step, loss in zip(steps, losses, strict=True) if not math.isfinite(loss)), None)

    def seconds(self) -> float:
        return time.perf_counter() - self._start

    def summarize(self, epoch: int, steps: int, rate: float, seconds: float, figures: Figures) -> Metrics:
        """The figures after `epoch` epochs and `steps` steps; this one took `seconds`, measuring `figures` apart."""
        if self._marks:
            torch.cuda.synchronize()
        rendered = self._rendered + sum(begin.elapsed_time(end) for begin, end in self._marks) / 1000
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
            rendering=rendered / seconds,
            memory=_peak_memory(on_gpu=bool(self._marks)),
            seconds=seconds,
            unreadable=len(self._unreadable),
        )


def merge(shares: Sequence[Metrics]) -> Metrics:
    """The figures of an epoch, of what each process has of its share of every batch."""
    first = shares[0]

    def mean(values: Iterable[float | None]) -> float:
        known = [value for value in values if value is not None]
        return sum(known) / len(known)

    return replace(
        first,
        loss=mean(each.loss for each in shares),
        diagnostics={name: mean(each.diagnostics[name] for each in shares) for name in first.diagnostics},
        images_per_s=sum(each.images_per_s or 0 for each in shares),
        waiting=mean(each.waiting for each in shares),
        rendering=mean(each.rendering for each in shares),
        memory=max(each.memory or 0 for each in shares),
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
    for share, what in ((metrics.waiting, "waiting for images"), (metrics.rendering, "making views")):
        line += f", {share:.0%} {what}" if share is not None and share > 0.1 else ""
    return line + ("" if metrics.memory is None else f", {metrics.memory / 1e9:.1f} GB")


def advise(metrics: Metrics, workers: int, cached: bool) -> str | None:
    """What to do where the network waits for images; None if that is less than a third of an epoch, or five seconds."""
    if metrics.waiting is None or metrics.waiting < 1 / 3 or metrics.waiting * metrics.seconds < SECONDS_TO_MIND:
        return None
    waits, cpus = f"the network waits for images {metrics.waiting:.0%} of the time", available_cpus()
    if workers < cpus:
        return f"{waits}: {workers} processes decode them; there are {cpus} CPUs, so raise the number of workers"
    if not cached:
        return f"{waits}: keep decoded ones on disk, in a cache, for the next epochs and runs"
    return f"{waits}, though they are decoded: a faster disk may help, or another place to augment them in"


def describe_duration(seconds: float) -> str:
    """ "40 s", "12 min", "3.5 h"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 90 * 60 else f"{seconds / 3600:.1f} h"


def _peak_memory(on_gpu: bool) -> int:
    return torch.cuda.max_memory_allocated() if on_gpu else 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _mean(values: list[Tensor]) -> float:
    return float(torch.stack(values).mean())
