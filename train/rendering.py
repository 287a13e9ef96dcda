"""From the numbers of views to pixels: what a renderer is, and the one that works on the loader's processes.

The one beside it (device_rendering.py) works on the device, for a whole batch at a time. They differ in who cuts a view
out of its image, Pillow or two products of matrices; what a view changes then is the same code (changes.py).
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..runtime.preprocessing import Pixels, Preprocessing
from .changes import apply, pack
from .resampling import find_background
from .views import Matrix, ViewParameters

# Values that are changed at once on a CPU: few enough to stay in its cache.
AT_ONCE = 2**16

Pair = tuple[ViewParameters, ViewParameters]


class Renderer(Protocol):
    """Makes pixels of two views per image, in three steps. What passes between them is the renderer's own affair.

    The boxes of the views are in pixels of the picture. Tensors that are collated into tuples, named or not, are pinned
    for a GPU.
    """

    def load(self, row: int, pixels: Pixels, views: Pair) -> Any:
        """What the later steps need of a picture, uint8 `[H, W, 3]`: made in a worker, one image at a time.

        `row`: its place in the run's list of images.
        """
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
        self._side = preprocessing.image_size

    def load(self, row: int, pixels: Pixels, views: Pair) -> list[tuple[Pixels, ViewParameters]]:
        return [(cut(pixels, view, self._side), view) for view in views]

    def collate(self, loaded: list[list[tuple[Pixels, ViewParameters]]]) -> tuple[Tensor, Tensor]:
        first, second = (_change([each[which] for each in loaded]) for which in (0, 1))
        return first, second

    def finish(self, collated: tuple[Tensor, Tensor], device: torch.device) -> tuple[Tensor, Tensor]:
        return collated[0].to(device, non_blocking=True), collated[1].to(device, non_blocking=True)


def _change(cuts: list[tuple[Pixels, ViewParameters]]) -> Tensor:
    """Views uint8 `[N, H, W, 3]` of what was cut."""
    step = max(1, AT_ONCE // cuts[0][0].size)
    return torch.cat([_change_some(cuts[start : start + step]) for start in range(0, len(cuts), step)])


def _change_some(cuts: list[tuple[Pixels, ViewParameters]]) -> Tensor:
    pixels = torch.from_numpy(np.stack([pixels for pixels, _ in cuts])).permute(0, 3, 1, 2)
    changed = apply(pack([view for _, view in cuts]), pixels.float().contiguous())
    return changed.round().byte().permute(0, 2, 3, 1)


def render(pixels: Pixels, view: ViewParameters, side: int) -> Pixels:
    """One view of a picture: uint8 `[side, side, 3]`."""
    return _change([(cut(pixels, view, side), view)])[0].numpy()


def cut(pixels: Pixels, view: ViewParameters, side: int) -> Pixels:
    """The view's box of a picture at the network's size, moved or mirrored: uint8 `[side, side, 3]`."""
    image = Image.fromarray(pixels).resize((side, side), Image.Resampling.BICUBIC, box=view.box)
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
