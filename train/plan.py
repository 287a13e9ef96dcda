"""The plan of a run: from the number of images to steps, rates and progress. Steps are the optimizer's, from 0."""

from __future__ import annotations

import math
from dataclasses import dataclass

# kNN accuracy is measured about this many times per run.
KNN_TIMES = 20


@dataclass(frozen=True)
class Plan:
    """How a run goes through its images. `accumulate`: parts that a batch is computed in; `learning_rate`: the peak."""

    images: int
    epochs: int
    batch_size: int
    accumulate: int
    learning_rate: float
    warmup_epochs: float

    @property
    def part_size(self) -> int:
        """Images that go through the networks at once."""
        return self.batch_size // self.accumulate

    @property
    def steps_per_epoch(self) -> int:
        """An epoch's short last batch is left out."""
        return self.images // self.batch_size

    @property
    def steps(self) -> int:
        return self.steps_per_epoch * self.epochs

    @property
    def warmup_steps(self) -> int:
        return round(self.warmup_epochs * self.steps_per_epoch)

    def steps_of(self, epoch: int) -> range:
        """The steps of an epoch, counted from 0."""
        return range(epoch * self.steps_per_epoch, (epoch + 1) * self.steps_per_epoch)

    def progress(self, step: int) -> float:
        """The share of the run that lies before a step, 0 to below 1."""
        return step / self.steps

    def rate(self, step: int) -> float:
        """The learning rate: a straight line from 0 up to the peak in warm-up, then half a cosine down to 0."""
        if step < self.warmup_steps:
            return self.learning_rate * (step + 1) / self.warmup_steps
        share = (step - self.warmup_steps) / max(1, self.steps - self.warmup_steps)
        return self.learning_rate * (1 + math.cos(math.pi * share)) / 2

    def measures_knn(self, epoch: int) -> bool:
        """Whether kNN accuracy is due after `epoch` (counted from 1)."""
        return epoch == self.epochs or epoch % max(1, self.epochs // KNN_TIMES) == 0
