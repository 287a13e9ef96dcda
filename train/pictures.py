"""What views are cut from: images, no larger than their views need."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from PIL import Image

from ..runtime.errors import ImageError
from ..runtime.preprocessing import Box, Pixels, Preprocessing, Source, describe, open_image, open_large
from .views import ViewParameters

# The side of a picture, in sides of the network's input. Crops are then a little less sharp than those of the original:
# of 47 phone photographs, at 64 px, crops from 0.2 of the image on, values differ by 0.9 of 255 on average, and 99 % of
# them by 8 or less; with 1, by 4.0 and 32. Decoding takes a fraction of the time.
MARGIN = 2
# How many times as long as that the long side of an image may be. What is wider is squashed.
WIDEST = 4


@dataclass(frozen=True)
class Picture:
    """An image uint8 `[H, W, 3]`, with "pad" the square around it; `size`: its width and height, up to a factor."""

    pixels: Pixels
    size: tuple[float, float]


def read_picture(source: Source, preprocessing: Preprocessing) -> Picture:
    """An image that is no larger than views of `image_size` need. Raises ImageError.

    With "crop", its short side is at most twice the network's, and its long side at most eight times. With "squash",
    each side is at most twice the network's, and so is the square around it with "pad".
    """
    longest = MARGIN * preprocessing.image_size
    image, box = open_large(source, longest)
    size = box[2] - box[0], box[3] - box[1]
    if 0 in image.size:
        raise ImageError(f"{describe(source)}: an image without pixels")
    if preprocessing.fit == "pad":
        return Picture(np.asarray(_pad(image, box, longest, preprocessing.border)), size)
    scale = min(1.0, longest / min(image.size)) if preprocessing.fit == "crop" else 1.0
    most = WIDEST * longest if preprocessing.fit == "crop" else longest
    target = min(round(image.width * scale), most), min(round(image.height * scale), most)
    whole = target == image.size and box == (0, 0, *image.size)
    return Picture(np.asarray(image if whole else image.resize(target, Image.Resampling.BICUBIC, box)), size)


def is_readable(source: Source) -> bool:
    """Whether an image can be decoded."""
    try:
        open_image(source)
    except ImageError:
        return False
    return True


def _pad(image: Image.Image, box: Box, longest: int, border: tuple[int, ...]) -> Image.Image:
    """The square around the image, made smaller before it is filled up."""
    side = min(max(image.size), longest)
    scale = side / max(image.size)
    # As even or odd as the square, so that the image is exactly in its middle.
    width, height = (side - 2 * round((side - each * scale) / 2) if scale < 1 else each for each in image.size)
    small = image.resize((max(1, width), max(1, height)), Image.Resampling.BICUBIC, box)
    square = Image.new("RGB", (side, side), border)
    square.paste(small, ((side - small.width) // 2, (side - small.height) // 2))
    return square


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
