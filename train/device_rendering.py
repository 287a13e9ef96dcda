"""Views made on the device, a whole batch at a time; the loader's processes only decode."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..runtime.preprocessing import Pixels, Preprocessing
from .changes import Changes, apply, pack
from .rendering import Pair
from .resampling import axis_weights, resample, transform
from .views import ViewParameters


class Cuts(NamedTuple):
    """How a batch of views is cut, and what changes then.

    `boxes`: left, top, right and bottom `[N, 4]`; of a mirrored view, left and right have changed places. `matrices`:
    `[N, 6]` (see ViewParameters).
    """

    boxes: Tensor
    matrices: Tensor | None
    changes: Changes


class Collated(NamedTuple):
    """`images`: uint8 `[N, H, W, 3]`, as large as the largest, each in its upper left; `sizes` `[N, 2]`: their own."""

    images: Tensor
    sizes: Tensor
    views: tuple[Cuts, Cuts]


class DeviceRenderer:
    """The twin of WorkerRenderer."""

    def __init__(self, preprocessing: Preprocessing) -> None:
        self._side = preprocessing.image_size

    def load(self, row: int, pixels: Pixels, views: Pair) -> tuple[Pixels, Pair]:
        return pixels, views

    def collate(self, loaded: list[tuple[Pixels, Pair]]) -> Collated:
        sizes = np.array([pixels.shape[:2] for pixels, _ in loaded])
        images = np.zeros((len(loaded), *sizes.max(0), 3), np.uint8)
        for canvas, (pixels, _), (height, width) in zip(images, loaded, sizes, strict=True):
            canvas[:height, :width] = pixels
        return Collated(torch.from_numpy(images), torch.from_numpy(sizes), pack_pair([views for _, views in loaded]))

    def finish(self, collated: Collated, device: torch.device) -> tuple[Tensor, Tensor]:
        images, sizes = (each.to(device, non_blocking=True) for each in (collated.images, collated.sizes))
        return render_pair(images, sizes, collated.views, self._side)


def render_pair(images: Tensor, sizes: Tensor, views: tuple[Cuts, Cuts], side: int) -> tuple[Tensor, Tensor]:
    """Both views `[N, side, side, 3]` of images and sizes as in Collated, which are on the device."""
    planes = images.permute(0, 3, 1, 2).float().contiguous()
    first, second = (apply(each.changes, _cut(planes, sizes, each, side)) for each in views)
    return first.permute(0, 2, 3, 1), second.permute(0, 2, 3, 1)


def pack_pair(views: list[Pair]) -> tuple[Cuts, Cuts]:
    """The first views of all images, and the second ones."""
    first, second = (_pack_cuts([pair[which] for pair in views]) for which in (0, 1))
    return first, second


def _pack_cuts(views: list[ViewParameters]) -> Cuts:
    """All views of a batch have a matrix, or none has one."""
    boxes = torch.tensor([view.box for view in views])
    mirrored = torch.tensor([view.flip for view in views])
    matrices = [view.matrix for view in views if view.matrix is not None]
    boxes = torch.where(mirrored[:, None], boxes[:, [2, 1, 0, 3]], boxes)
    return Cuts(boxes, torch.tensor(matrices) if matrices else None, pack(views))


def _cut(images: Tensor, sizes: Tensor, cuts: Cuts, side: int) -> Tensor:
    """Views `[N, 3, side, side]` of images `[N, 3, H, W]`, before their colors change."""
    (heights, widths), (left, top, right, bottom) = sizes.T, cuts.boxes.to(images.device, non_blocking=True).T
    rows = axis_weights(top, bottom, heights, side, images.shape[2])
    columns = axis_weights(left, right, widths, side, images.shape[3])
    views = resample(images, rows, columns)
    return views if cuts.matrices is None else transform(views, cuts.matrices.to(images.device, non_blocking=True))
