"""Batches of views, in an order and with random draws that depend on the seed alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from ..runtime.errors import ImageError
from ..runtime.preprocessing import Pixels, Preprocessing, open_image
from .recipe import Settings
from .views import draw_view


@dataclass(frozen=True)
class Batch:
    """Two views of N images, uint8 `[N, H, W, 3]`, and what could not be read: a message an image.

    One of `accumulate` parts of an optimizer step.
    """

    epoch: int
    first: Tensor
    second: Tensor
    errors: list[str]


@dataclass(frozen=True)
class Draw:
    """Which image to draw views of, and in which epoch."""

    epoch: int
    index: int


# An epoch, and two views of an image or the message of why it cannot be read.
Item = tuple[int, Pixels, Pixels] | tuple[int, str]


class Views(Dataset[Item]):
    """The images of a run as items, addressed by Draw."""

    def __init__(self, paths: list[Path], settings: Settings, preprocessing: Preprocessing) -> None:
        self._paths = paths
        self._settings = settings
        self._preprocessing = preprocessing

    def __getitem__(self, draw: Draw) -> Item:
        settings = self._settings
        random = np.random.default_rng((settings.seed, draw.epoch, draw.index))
        try:
            image = open_image(self._paths[draw.index])
        except ImageError as error:
            return draw.epoch, str(error)
        first, second = (draw_view(image, view, self._preprocessing, random) for view in settings.views)
        return draw.epoch, first, second


class Order(Sampler[list[Draw]]):
    """All batches from `first_epoch` on: each epoch a fresh order of the whole set, its short last batch left out."""

    def __init__(self, images: int, settings: Settings, first_epoch: int) -> None:
        self._images = images
        self._settings = settings
        self._first_epoch = first_epoch

    def __iter__(self) -> Iterator[list[Draw]]:
        settings = self._settings
        used = self._images // settings.batch_size * settings.batch_size
        size = settings.batch_size // settings.accumulate
        for epoch in range(self._first_epoch, settings.epochs):
            order = np.random.default_rng((settings.seed, epoch)).permutation(self._images)
            for start in range(0, used, size):
                yield [Draw(epoch, int(index)) for index in order[start : start + size]]


def load_batches(
    paths: list[Path], settings: Settings, preprocessing: Preprocessing, first_epoch: int
) -> Iterator[Batch]:
    """All batches from `first_epoch` on, decoded and drawn in `settings.workers` processes."""
    loader = DataLoader(
        Views(paths, settings, preprocessing),
        batch_sampler=Order(len(paths), settings, first_epoch),
        num_workers=settings.workers,
        collate_fn=_collate,
        worker_init_fn=_one_thread,
        generator=torch.Generator(),  # its own, so that starting workers draws nothing from the global one
    )
    return iter(loader)


def _collate(items: list[Item]) -> Batch:
    views = [item for item in items if len(item) == 3]
    errors = [item[1] for item in items if len(item) == 2]
    first, second = (
        torch.from_numpy(np.stack([item[which] for item in views])) if views else torch.empty(0) for which in (1, 2)
    )
    return Batch(items[0][0], first, second, errors)


def _one_thread(_: int) -> None:
    torch.set_num_threads(1)
