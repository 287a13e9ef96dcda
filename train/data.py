"""Batches of views, in an order and with random draws that depend on the seed alone."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from ..runtime.errors import ImageError
from .pictures import Picture, place, read_picture
from .plan import Plan
from .ranks import local_world_size, rank, world_size
from .rendering import Renderer
from .settings import Settings
from .views import sample

CPU = torch.device("cpu")
# Nice value of the workers, where the network runs on the same CPU. On two cores, MobileNetV3-small at 64 px sees 339
# images/s with 10, 288 with 0 and 347 with 19; MobileNetV4-small 278, 257 and 305. With 19, other programs would leave
# a worker nearly nothing.
NICENESS = 10


class Batch(NamedTuple):
    """One of the parts of an optimizer step. `views`: of the images at `rows`, as the renderer collates them.

    `rows`: places in the run's list of images; `views` is None if there are none. `errors`: a message per image that
    could not be read. Where several processes share a batch, others stand in for these, since shares are of one size.
    """

    rows: list[int]
    views: Any
    errors: list[str]

    @property
    def images(self) -> int:
        return len(self.rows)


class PictureSource(Protocol):
    """Where pictures come from that need not be decoded: a cache."""

    def read(self, row: int) -> Picture | None:
        """The picture at a place in the run's list of images; None if it has to be decoded. Raises ImageError."""
        ...


@dataclass(frozen=True)
class Draw:
    """Which image to draw views of, and in which epoch."""

    epoch: int
    index: int


@dataclass(frozen=True)
class Item:
    """The image at a `row` of the run's list as the renderer loads it, or the message of why it cannot be read."""

    row: int
    loaded: Any
    error: str | None = None


class ViewDataset(Dataset[Item]):
    """The images of a run, addressed by Draw."""

    def __init__(
        self, paths: list[Path], settings: Settings, renderer: Renderer, pictures: PictureSource | None = None
    ) -> None:
        self._paths = paths
        self._pictures = pictures
        self._settings = settings
        self._renderer = renderer
        self._alone = world_size() == 1

    def __getitem__(self, draw: Draw) -> Item:
        settings = self._settings
        rng = np.random.default_rng((settings.seed, draw.epoch, draw.index))
        try:
            picture = self._read(draw.index)
        except ImageError as error:
            return Item(draw.index, None, str(error))
        drawn = (sample(view, picture.size, settings.fit, rng) for view in settings.views)
        first, second = (place(view, picture, settings.fit) for view in drawn)
        return Item(draw.index, self._renderer.load(draw.index, picture.pixels, (first, second)))

    def _read(self, index: int) -> Picture:
        found = None if self._pictures is None else self._pictures.read(index)
        return found or read_picture(self._paths[index], self._settings.preprocessing)

    def collate(self, items: list[Item]) -> Batch:
        read = [item for item in items if item.error is None]
        errors = [item.error for item in items if item.error is not None]
        if errors and not self._alone:
            read = list(islice(cycle(read), len(items)))
        views = self._renderer.collate([item.loaded for item in read]) if read else None
        return Batch([item.row for item in read], views, errors)


class BatchSampler(Sampler[list[Draw]]):
    """This process's share of the parts of all batches from `first_epoch` on: each epoch in a fresh order."""

    def __init__(self, plan: Plan, seed: int, first_epoch: int) -> None:
        self._plan = plan
        self._seed = seed
        self._first_epoch = first_epoch

    def __iter__(self) -> Iterator[list[Draw]]:
        plan = self._plan
        for epoch in range(self._first_epoch, plan.epochs):
            order = np.random.default_rng((self._seed, epoch)).permutation(plan.images)
            for start in range(0, plan.steps_per_epoch * plan.batch_size, plan.part_size):
                part = order[start : start + plan.part_size]
                yield [Draw(epoch, int(index)) for index in part[rank() :: world_size()]]


def load_batches(
    paths: list[Path],
    settings: Settings,
    renderer: Renderer,
    first_epoch: int,
    pictures: PictureSource | None = None,
    device: torch.device = CPU,
) -> Iterator[Batch]:
    """All parts of all batches from `first_epoch` (counted from 0) on, loaded in `settings.workers` processes.

    Where several processes train, each loads its share, with its share of the workers. `device`: where the network is;
    for a GPU, batches are in memory that it copies from while it computes.
    """
    dataset = ViewDataset(paths, settings, renderer, pictures)
    loader = DataLoader(
        dataset,
        batch_sampler=BatchSampler(settings.plan, settings.seed, first_epoch),
        num_workers=-(-settings.workers // local_world_size()),
        collate_fn=dataset.collate,
        pin_memory=device.type == "cuda",
        worker_init_fn=_start_worker if device.type == "cuda" else _start_nice_worker,
        generator=torch.Generator(),  # its own, so that starting workers draws nothing from the global one
    )
    return iter(loader)


def _start_nice_worker(number: int) -> None:
    """A worker that leaves a CPU to the network, whose threads wait for each other, and takes what these leave."""
    os.nice(NICENESS)
    _start_worker(number)


def _start_worker(_: int) -> None:
    torch.set_num_threads(1)
    # What a worker's images raise reaches the parent. What is left is a thread that hands over tensors, and loses the
    # parent when that is stopped: not worth a traceback.
    sys.excepthook = lambda *_: None
