"""What views are cut from: images that are read once per view pair, no larger than views need them."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from PIL import Image, ImageOps

from ..runtime.errors import ImageError
from ..runtime.preprocessing import Pixels, Preprocessing, Source, describe, open_large
from .views import ViewParameters

# A side keeps this many times that of the network's input. Crops are then a little less sharp than those of the
# original: of 47 phone photographs, at 64 px, crops from 0.2 of the image on, values differ by 0.9 of 255 on average,
# and 99 % of them by 8 or less; with 1, 4.0 and 32. Decoding takes a fraction of the time.
MARGIN = 2


@dataclass(frozen=True)
class Picture:
    """An image uint8 `[H, W, 3]`, with "pad" the square around it; `size`: the width and height that it had."""

    pixels: Pixels
    size: tuple[float, float]


def read_picture(source: Source, preprocessing: Preprocessing) -> Picture:
    """An image with at most twice the network's side on each of its own; proportions may change. Raises ImageError."""
    longest = MARGIN * preprocessing.image_size
    image, box = open_large(source, longest)
    size = box[2] - box[0], box[3] - box[1]
    if 0 in image.size:
        raise ImageError(f"{describe(source)}: an image without pixels")
    if preprocessing.fit == "pad":
        side = max(image.size)
        image = ImageOps.pad(image, (side, side), color=preprocessing.border)
        box = (0, 0, side, side)
    target = min(image.width, longest), min(image.height, longest)
    whole = target == image.size and box == (0, 0, *image.size)
    return Picture(np.asarray(image if whole else image.resize(target, Image.Resampling.BICUBIC, box)), size)


def place(view: ViewParameters, picture: Picture, fit: str) -> ViewParameters:
    """The view with its box in the picture's pixels; beyond the square of "pad" there is nothing to see."""
    height, width, _ = picture.pixels.shape
    whole, shifts = picture.size, (0.0, 0.0)
    if fit == "pad":
        longest = max(picture.size)
        whole, shifts = (longest, longest), ((longest - whole[0]) / 2, (longest - whole[1]) / 2)
    across, down = width / whole[0], height / whole[1]
    left, right = ((edge + shifts[0]) * across for edge in view.box[::2])
    top, bottom = ((edge + shifts[1]) * down for edge in view.box[1::2])
    return replace(view, box=(max(left, 0), max(top, 0), min(right, width), min(bottom, height)))
