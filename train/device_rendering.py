"""Views made on the device, a whole batch at a time; the loader's processes only decode."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..runtime.preprocessing import Box, Pixels, Preprocessing
from .changes import Changes, apply, pack
from .rendering import Pair, place, square
from .resampling import axis_weights, resample, transform
from .views import ViewParameters

# An image that views are cut from keeps this many times the network's side.
MARGIN = 2


@dataclass(frozen=True)
class Loaded:
    """An image that is no larger than its views need, uint8 `[H, W, 3]`; `boxes` are in pixels of it."""

    pixels: Pixels
    boxes: tuple[Box, Box]
    views: Pair


@dataclass(frozen=True)
class Cuts:
    """How a batch of views is cut, and what changes then.

    `boxes`: left, top, right and bottom `[N, 4]`; of a mirrored view, left and right have changed places. `matrices`:
    `[N, 6]` (see ViewParameters).
    """

    boxes: Tensor
    matrices: Tensor | None
    changes: Changes


@dataclass(frozen=True)
class Collated:
    """`images`: uint8 `[N, H, W, 3]`, as large as the largest, each in its upper left; `sizes` `[N, 2]`: their own."""

    images: Tensor
    sizes: Tensor
    views: tuple[Cuts, Cuts]


class DeviceRenderer:
    """The twin of WorkerRenderer.

    An image keeps at most twice the network's side. Views of it are a little less sharp than those of the original: for
    phone photographs at 64 px and crops from 0.2 of the image, values differ by 0.9 of 255 on average, and 99 % of them
    by 8 or less.
    """

    def __init__(self, preprocessing: Preprocessing) -> None:
        self._preprocessing = preprocessing

    def load(self, image: Image.Image, views: Pair) -> Loaded:
        whole = square(image, self._preprocessing)
        pixels = shrink(whole, MARGIN * self._preprocessing.image_size)
        height, width, _ = pixels.shape
        across, down = width / whole.width, height / whole.height
        first, second = (
            (left * across, top * down, right * across, bottom * down)
            for left, top, right, bottom in (place(view.box, image.size, self._preprocessing) for view in views)
        )
        return Loaded(pixels, (first, second), views)

    def collate(self, loaded: list[Loaded]) -> Collated:
        sizes = np.array([each.pixels.shape[:2] for each in loaded])
        images = np.zeros((len(loaded), *sizes.max(0), 3), np.uint8)
        for canvas, each in zip(images, loaded, strict=True):
            height, width, _ = each.pixels.shape
            canvas[:height, :width] = each.pixels
        first, second = (
            _pack_cuts([each.boxes[which] for each in loaded], [each.views[which] for each in loaded])
            for which in (0, 1)
        )
        return Collated(torch.from_numpy(images), torch.from_numpy(sizes), (first, second))

    def finish(self, collated: Collated, device: torch.device) -> tuple[Tensor, Tensor]:
        images, sizes = collated.images.to(device).permute(0, 3, 1, 2).float(), collated.sizes.to(device)
        side = self._preprocessing.image_size
        first, second = (apply(each.changes, _cut(images, sizes, each, side)) for each in collated.views)
        return first.permute(0, 2, 3, 1), second.permute(0, 2, 3, 1)


def shrink(image: Image.Image, longest: int) -> Pixels:
    """An image, each of its sides at most `longest`: uint8 `[H, W, 3]`."""
    size = min(image.width, longest), min(image.height, longest)
    return np.asarray(image if size == image.size else image.resize(size, Image.Resampling.BICUBIC))


def _pack_cuts(boxes: list[Box], views: list[ViewParameters]) -> Cuts:
    """All views of a batch have a matrix, or none has one."""
    mirrored = [
        (right, top, left, bottom) if view.flip else (left, top, right, bottom)
        for (left, top, right, bottom), view in zip(boxes, views, strict=True)
    ]
    matrices = [view.matrix for view in views if view.matrix is not None]
    return Cuts(torch.tensor(mirrored), torch.tensor(matrices) if matrices else None, pack(views))


def _cut(images: Tensor, sizes: Tensor, cuts: Cuts, side: int) -> Tensor:
    """Views `[N, 3, side, side]` of images `[N, 3, H, W]`, before their colors change."""
    (heights, widths), (left, top, right, bottom) = sizes.T, cuts.boxes.to(images.device).T
    rows = axis_weights(top, bottom, heights, side, images.shape[2])
    columns = axis_weights(left, right, widths, side, images.shape[3])
    views = resample(images, rows, columns)
    return views if cuts.matrices is None else transform(views, cuts.matrices.to(images.device))
