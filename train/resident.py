"""A cache's pictures on the device from the start, where that has room for all: nothing is read or copied any more."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..runtime.errors import ImageError
from ..runtime.preprocessing import Pixels, Preprocessing
from ..runtime.progress import Progress, report_progress
from .cache import Cache
from .data import PictureSource
from .device_rendering import Cuts, pack_pair, render_pair
from .loop import Training
from .pictures import Picture, is_readable, read_picture
from .renderers import DEVICE
from .rendering import Pair

log = logging.getLogger(__name__)

# Of a GPU's free memory, what pictures may take; the rest is the network's.
SHARE = 0.25
# Pictures that are copied at once.
CHUNK = 256


@dataclass(frozen=True)
class Outlines:
    """Stands in for a cache whose pixels are on the device: pictures of the right size, without content."""

    cache: Cache
    preprocessing: Preprocessing

    def read(self, row: int) -> Picture:
        """Raises ImageError for an image that was unreadable when the pictures were copied."""
        if self.cache.shard[row] < 0:
            path = self.cache.paths[row]
            read_picture(path, self.preprocessing)  # says why
            raise ImageError(f"{path}: could not be read when the training began")
        shape, (width, height) = self.cache.shapes[row].tolist(), self.cache.sizes[row].tolist()
        return Picture(np.broadcast_to(np.uint8(0), (*shape, 3)), (width, height))


class Loaded(NamedTuple):
    """`rows` `[N]`: of the set; `sizes` `[N, 2]`: height and width of the pictures there."""

    rows: Tensor
    sizes: Tensor
    views: tuple[Cuts, Cuts]


class ResidentRenderer:
    """Views of pictures that are on the device already: uint8 `[N, H, W, 3]`, each in its upper left."""

    def __init__(self, preprocessing: Preprocessing, pictures: Tensor) -> None:
        self._side = preprocessing.image_size
        self._pictures = pictures

    def __getstate__(self) -> dict[str, Any]:
        """What a worker needs: nothing that is on the device."""
        return {**self.__dict__, "_pictures": None}

    def load(self, row: int, pixels: Pixels, views: Pair) -> tuple[int, tuple[int, ...], Pair]:
        return row, pixels.shape[:2], views

    def collate(self, loaded: list[tuple[int, tuple[int, ...], Pair]]) -> Loaded:
        rows, sizes = torch.tensor([row for row, _, _ in loaded]), torch.tensor([size for _, size, _ in loaded])
        return Loaded(rows, sizes, pack_pair([views for _, _, views in loaded]))

    def finish(self, collated: Loaded, device: torch.device) -> tuple[Tensor, Tensor]:
        height, width = collated.sizes.max(0).values.tolist()  # of this batch
        images = self._pictures[:, :height, :width][collated.rows.to(device, non_blocking=True)]
        return render_pair(images, collated.sizes.to(device, non_blocking=True), collated.views, self._side)


def move_to_device(training: Training, room: int) -> tuple[Training, PictureSource | None]:
    """A training, and where its pictures come from: the device, if `room` bytes there are enough, else its cache.

    Only views that the device makes can come from there.
    """
    cache, preprocessing = training.cache, training.spec.preprocessing
    if cache is None or room <= 0 or training.settings.augment != DEVICE:
        return training, cache
    lacking = (cache.paths[row] for row in np.flatnonzero(cache.shard < 0).tolist())
    if any(map(is_readable, lacking)):  # there was no room on the disk
        return training, cache
    pictures = copy_pictures(cache, training.network.scale.device, room)
    if pictures is None:
        return training, cache
    log.info(f"{len(pictures)} pictures lie on the device, {pictures.nbytes / 1e9:.2g} GB")
    return replace(training, renderer=ResidentRenderer(preprocessing, pictures)), Outlines(cache, preprocessing)


def copy_pictures(cache: Cache, device: torch.device, room: int) -> Tensor | None:
    """All pictures of a cache, uint8 `[N, H, W, 3]`, on the device; None if they take more bytes than `room`.

    Those of images that cannot be read are black. None, too, if the cache lacks one by now.
    """
    height, width = cache.shapes.max(0).tolist()
    if 3 * len(cache.shard) * height * width > room:
        return None
    pictures = torch.zeros((len(cache.shard), height, width, 3), dtype=torch.uint8, device=device)
    held = np.flatnonzero(cache.shard >= 0)
    for start in range(0, len(held), CHUNK):
        rows = held[start : start + CHUNK]
        some = _read_some(cache, rows, (height, width))
        if some is None:
            return None
        pictures[torch.from_numpy(rows).to(device)] = torch.from_numpy(some).to(device)
        report_progress(Progress("copying", start + len(rows), len(held)))
    return pictures


def _read_some(cache: Cache, rows: NDArray[np.int64], shape: tuple[int, int]) -> Pixels | None:
    some = np.zeros((len(rows), *shape, 3), np.uint8)
    for canvas, row in zip(some, rows.tolist(), strict=True):
        picture = cache.read(row)
        if picture is None:
            return None
        height, width, _ = picture.pixels.shape
        canvas[:height, :width] = picture.pixels
    return some


def find_room(device: torch.device) -> int:
    """Bytes that pictures may take on a device: none on a CPU, whose memory has what is read often anyway."""
    return int(SHARE * torch.cuda.mem_get_info(device)[0]) if device.type == "cuda" else 0
