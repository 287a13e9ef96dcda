"""From the numbers of views to pixels: what a renderer is, and the one that works on the loader's processes, by Pillow.

A renderer that works on the device, a batch at a time, has its pixels made by `finish` in place of `load`; it is
another file beside this one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
import torch
import torchvision.transforms.v2.functional as F
from PIL import Image, ImageFilter, ImageOps
from torch import Tensor

from ..runtime.preprocessing import Pixels, Preprocessing
from .views import Matrix, ViewParameters

# torchvision takes PIL images, too, whatever its annotations say.
CHANGES: tuple[Callable[[Any, float], Any], ...] = (
    F.adjust_brightness,
    F.adjust_contrast,
    F.adjust_saturation,
    F.adjust_hue,
)


class Renderer(Protocol):
    """Makes pixels of two views per image, in three steps. What passes between them is the renderer's own affair."""

    def load(self, image: Image.Image, views: tuple[ViewParameters, ViewParameters]) -> Any:
        """What the later steps need of an image, RGB: made in a worker, one image at a time."""
        ...

    def collate(self, loaded: list[Any]) -> Any:
        """Those of a part of a batch, as tensors in tuples, lists or dicts: made in a worker, too."""
        ...

    def finish(self, collated: Any, device: torch.device) -> tuple[Tensor, Tensor]:
        """Both views `[N, H, W, 3]`, 0 to 255, uint8 or float, on the device: made in the training process."""
        ...


class PillowRenderer:
    """Views by Pillow, in the workers; the training process only moves them to the device."""

    def __init__(self, preprocessing: Preprocessing) -> None:
        self._preprocessing = preprocessing

    def load(self, image: Image.Image, views: tuple[ViewParameters, ViewParameters]) -> tuple[Pixels, Pixels]:
        return render(image, views[0], self._preprocessing), render(image, views[1], self._preprocessing)

    def collate(self, loaded: list[tuple[Pixels, Pixels]]) -> tuple[Tensor, Tensor]:
        first, second = (torch.from_numpy(np.stack([each[which] for each in loaded])) for which in (0, 1))
        return first, second

    def finish(self, collated: tuple[Tensor, Tensor], device: torch.device) -> tuple[Tensor, Tensor]:
        return collated[0].to(device), collated[1].to(device)


def render(image: Image.Image, view: ViewParameters, preprocessing: Preprocessing) -> Pixels:
    """One view of an RGB image: uint8 `[image_size, image_size, 3]`."""
    image = _cut(image, view, preprocessing)
    if view.matrix is not None:
        image = _transform(image, view.matrix)
    if view.flip:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    for number in view.order:
        if view.colors[number] != (0 if number == 3 else 1):
            image = CHANGES[number](image, view.colors[number])
    if view.grayscale:
        image = image.convert("L").convert("RGB")
    if view.blur_sigma:
        image = image.filter(ImageFilter.GaussianBlur(view.blur_sigma))
    if view.solarize:
        image = ImageOps.solarize(image, 128)
    return np.asarray(image)


def _cut(image: Image.Image, view: ViewParameters, preprocessing: Preprocessing) -> Image.Image:
    """The view's box at the network's size; what lies beyond the image is border."""
    side, (left, top, right, bottom) = preprocessing.image_size, view.box
    if preprocessing.fit == "pad":
        longest = max(image.size)
        shifts = [(longest - each) / 2 for each in image.size]
        image = ImageOps.pad(image, (longest, longest), color=preprocessing.border)
        left, right = (min(max(each + shifts[0], 0), longest) for each in (left, right))
        top, bottom = (min(max(each + shifts[1], 0), longest) for each in (top, bottom))
    return image.resize((side, side), Image.Resampling.BICUBIC, box=(left, top, right, bottom))


def _transform(image: Image.Image, matrix: Matrix) -> Image.Image:
    a, b, c, d, e, f = matrix
    side = image.width
    middle = side / 2
    # Pillow's matrix is in pixels, from the corner.
    in_pixels = (a, b, side * c + middle - (a + b) * middle, d, e, side * f + middle - (d + e) * middle)
    fill = _find_background(image)
    return image.transform(image.size, Image.Transform.AFFINE, in_pixels, Image.Resampling.BICUBIC, fillcolor=fill)


def _find_background(image: Image.Image) -> tuple[int, ...]:
    """The median color of the border: what lies beyond a glyph's edge."""
    pixels = np.asarray(image)
    border = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    return tuple(int(value) for value in np.median(border, axis=0))
