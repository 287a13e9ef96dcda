"""Images to calibrate with where there are none: crops of the two photographs that scikit-learn brings along.

They are used here and stored nowhere. (china.jpg by danielbuechele, flower.jpg by vultilion, CC BY 2.0.)
"""

from __future__ import annotations

import math

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

from ..runtime.preprocessing import Pixels
from .golden import synthetic_images

# The smallest crop's side, in pixels of photographs 427 high: smaller ones are a blur.
LEAST_SIDE = 48
# Brightness, contrast and color are changed by up to half.
JITTER = 0.5


def make_stand_ins(count: int, side: int) -> tuple[Pixels, str]:
    """Images uint8 `[count, side, side, 3]`, the same every time, and in words what they are."""
    try:
        from sklearn.datasets import load_sample_images
    except ImportError:
        return synthetic_images(count, side), "drawn images"
    photographs = [Image.fromarray(pixels) for pixels in load_sample_images().images]
    rng = np.random.default_rng(0)
    crops = [_crop(photographs[number % len(photographs)], side, rng) for number in range(count)]
    return np.stack(crops), "crops of two photographs"


def _crop(photograph: Image.Image, side: int, rng: np.random.Generator) -> Pixels:
    """A square of any size at any place, half of them mirrored, in other light and colors: uint8 `[side, side, 3]`."""
    width, height = photograph.size
    size = int(math.exp(rng.uniform(math.log(LEAST_SIDE), math.log(min(width, height)))))
    left, top = int(rng.integers(0, width - size + 1)), int(rng.integers(0, height - size + 1))
    box = (left, top, left + size, top + size)
    image = photograph.resize((side, side), Image.Resampling.BICUBIC, box=box)
    if rng.uniform() < 0.5:
        image = ImageOps.mirror(image)
    for enhance in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color):
        image = enhance(image).enhance(rng.uniform(1 - JITTER, 1 + JITTER))
    return np.asarray(image)
