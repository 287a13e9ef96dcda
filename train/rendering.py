"""From the numbers of views to pixels: what a renderer is, and the one that works on the loader's processes.

The one beside it (device_rendering.py) works on the device, for a whole batch at a time. They differ in who cuts a view
out of its image, Pillow or two products of matrices; what a view changes then is the same code (changes.py).
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from ..runtime.preprocessing import Box, Pixels, Preprocessing
from .changes import apply, pack
from .resampling import find_background
from .views import Matrix, ViewParameters

# Values that are changed at once on a CPU: as many as its caches hold a few times.
CACHED = 2**16

Pair = tuple[ViewParameters, ViewParameters]


class Renderer(Protocol):
    """Makes pixels of two views per image, in three steps. What passes between them is the renderer's own affair."""

    def load(self, image: Image.Image, views: Pair) -> Any:
        """What the later steps need of an image, RGB: made in a worker, one image at a time."""
        ...

    def collate(self, loaded: list[Any]) -> Any:
        """Those of a part of a batch, as tensors in tuples, lists or dicts: made in a worker, too."""
        ...

    def finish(self, collated: Any, device: torch.device) -> tuple[Tensor, Tensor]:
        """Both views `[N, H, W, 3]`, 0 to 255, uint8 or float, on the device: made in the training process."""
        ...


class WorkerRenderer:
    """Views made in the workers; the training process only moves them to the device."""

    def __init__(self, preprocessing: Preprocessing) -> None:
        self._preprocessing = preprocessing

    def load(self, image: Image.Image, views: Pair) -> list[tuple[Pixels, ViewParameters]]:
        return [(cut(image, view, self._preprocessing), view) for view in views]

    def collate(self, loaded: list[list[tuple[Pixels, ViewParameters]]]) -> tuple[Tensor, Tensor]:
        first, second = (_change([each[which] for each in loaded]) for which in (0, 1))
        return first, second

    def finish(self, collated: tuple[Tensor, Tensor], device: torch.device) -> tuple[Tensor, Tensor]:
        return collated[0].to(device), collated[1].to(device)


def _change(cuts: list[tuple[Pixels, ViewParameters]]) -> Tensor:
    """Views uint8 `[N, H, W, 3]` of what was cut."""
    step = max(1, CACHED // cuts[0][0].size)
    return torch.cat([_change_some(cuts[start : start + step]) for start in range(0, len(cuts), step)])


def _change_some(cuts: list[tuple[Pixels, ViewParameters]]) -> Tensor:
    pixels = torch.from_numpy(np.stack([pixels for pixels, _ in cuts])).permute(0, 3, 1, 2)
    changed = apply(pack([view for _, view in cuts]), pixels.to(torch.float32, memory_format=torch.contiguous_format))
    return changed.round().byte().permute(0, 2, 3, 1)


def render(image: Image.Image, view: ViewParameters, preprocessing: Preprocessing) -> Pixels:
    """One view of an RGB image: uint8 `[image_size, image_size, 3]`."""
    return _change([(cut(image, view, preprocessing), view)])[0].numpy()


def cut(image: Image.Image, view: ViewParameters, preprocessing: Preprocessing) -> Pixels:
    """The view's box at the network's size, moved or mirrored: uint8 `[image_size, image_size, 3]`."""
    side = preprocessing.image_size
    box = place(view.box, image.size, preprocessing)
    image = square(image, preprocessing).resize((side, side), Image.Resampling.BICUBIC, box=box)
    if view.matrix is not None:
        image = _move(image, view.matrix)
    return np.asarray(image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if view.flip else image)


def _move(image: Image.Image, matrix: Matrix) -> Image.Image:
    a, b, c, d, e, f = matrix
    side = image.width
    middle = side / 2
    # Pillow's matrix is in pixels, from the corner.
    in_pixels = (a, b, side * c + middle - (a + b) * middle, d, e, side * f + middle - (d + e) * middle)
    background = find_background(torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].float())[0]
    fill = tuple(round(value) for value in background.tolist())
    return image.transform(image.size, Image.Transform.AFFINE, in_pixels, Image.Resampling.BICUBIC, fillcolor=fill)


def square(image: Image.Image, preprocessing: Preprocessing) -> Image.Image:
    """What boxes are cut from: the image; with "pad", the square around it."""
    longest = max(image.size)
    return ImageOps.pad(image, (longest, longest), color=preprocessing.border) if preprocessing.fit == "pad" else image


def place(box: Box, size: tuple[int, int], preprocessing: Preprocessing) -> Box:
    """Where the box of an image of `size` lies in what `square` makes of it."""
    if preprocessing.fit != "pad":
        return box
    longest = max(size)
    across, down = ((longest - each) / 2 for each in size)
    shifted = (edge + shift for edge, shift in zip(box, (across, down) * 2, strict=True))
    left, top, right, bottom = (min(max(edge, 0), longest) for edge in shifted)
    return left, top, right, bottom
