"""Crops and affine transforms of a whole batch, on any device, with Pillow's two cubic filters.

A crop's rows and columns are weighted sums of the image's, so a batch of crops is two products. The weights are those
of `Image.resize(..., Image.Resampling.BICUBIC, box=...)`: as wide as four pixels of the view or of the image, whichever
are larger, and cut off at the image's edge.
"""

from __future__ import annotations

import torch
from torch import Tensor

# The slope of the cubic at 1: Pillow resizes with one, and transforms with the other.
RESIZING, TRANSFORMING = -0.5, -1.0


def cubic(distances: Tensor, slope: float) -> Tensor:
    """The weight at a distance in pixels, 0 from 2 on (Keys 1981)."""
    x = distances.abs()
    near = ((slope + 2) * x - (slope + 3)) * x * x + 1
    far = slope * (((x - 5) * x + 8) * x - 4)
    return torch.where(x < 1, near, torch.where(x < 2, far, 0.0))


def axis_weights(begins: Tensor, ends: Tensor, sizes: Tensor, side: int, length: int) -> Tensor:
    """Weights `[N, side, length]` of an image's pixels in a view's, along one axis.

    `begins`, `ends` `[N]`: the edges of the box in the image's pixels; an end before its begin mirrors the view.
    `sizes` `[N]`: of the images; pixels from there up to `length` have no weight.
    """
    step = (ends - begins) / side
    middles = begins[:, None] + (torch.arange(side, device=begins.device) + 0.5) * step[:, None]
    pixels = torch.arange(length, device=begins.device)
    distances = (pixels + 0.5 - middles[:, :, None]) / step.abs().clamp(min=1)[:, None, None]
    weights = cubic(distances, RESIZING) * (pixels < sizes[:, None])[:, None, :]
    return weights / weights.sum(2, keepdim=True)


def resample(images: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Views `[N, C, side, side]` of images `[N, C, H, W]`, both 0 to 255, by the weights of their rows and columns.

    As in Pillow, columns come first, and no step leaves the range.
    """
    count, channels, height, width = images.shape
    wide = (images.reshape(count, channels * height, width) @ columns.mT).clamp(0, 255)
    return (rows[:, None] @ wide.reshape(count, channels, height, -1)).clamp(0, 255)


def transform(images: Tensor, matrices: Tensor) -> Tensor:
    """Square images `[N, C, S, S]` by their affine matrices `[N, 6]` (see ViewParameters), as `Image.transform` does.

    What lies beyond an image is the median color of its border.
    """
    count, channels, side, _ = images.shape
    places = (torch.arange(side, device=images.device, dtype=images.dtype) + 0.5) / side - 0.5
    a, b, c, d, e, f = (matrices.T.to(images.dtype))[:, :, None, None]
    across = (a * places + b * places[:, None] + c + 0.5) * side
    down = (d * places + e * places[:, None] + f + 0.5) * side
    inside = (across >= 0) & (across < side) & (down >= 0) & (down < side)
    flat, moved = images.reshape(count, channels, side * side), images.new_zeros(count, channels, side * side)
    for row in range(-1, 3):
        y = (down - 0.5).floor() + row
        for column in range(-1, 3):
            x = (across - 0.5).floor() + column
            weights = cubic(across - 0.5 - x, TRANSFORMING) * cubic(down - 0.5 - y, TRANSFORMING)
            where = (y.clamp(0, side - 1) * side + x.clamp(0, side - 1)).long().reshape(count, 1, -1)
            moved += flat.gather(2, where.expand(-1, channels, -1)) * weights.reshape(count, 1, -1)
    moved = moved.reshape(images.shape).clamp(0, 255)
    return torch.where(inside[:, None], moved, find_background(images)[:, :, None, None])


def find_background(images: Tensor) -> Tensor:
    """The median color `[N, C]` of each image's border: what lies beyond a glyph's edge."""
    edges = (images[:, :, 0], images[:, :, -1], images[:, :, :, 0], images[:, :, :, -1])
    border = torch.cat(edges, 2).sort(2).values
    middle = border.shape[2] // 2
    return (border[:, :, middle - 1] + border[:, :, middle]) / 2
