"""Drawn images: what tests need beside fixtures."""

from __future__ import annotations

import numpy as np
from PIL import Image

SHAPES = ("disc", "stripes", "square")


def draw_shape(shape: str, random: np.random.Generator, width: int = 48, height: int = 40) -> Image.Image:
    """A colored shape somewhere on a colored ground, a little noisy."""
    y, x = np.mgrid[0:height, 0:width]
    cx, cy = random.uniform(0.3, 0.7) * width, random.uniform(0.3, 0.7) * height
    size = random.uniform(7, 14)
    mask = {
        "disc": (x - cx) ** 2 + (y - cy) ** 2 < size**2,
        "stripes": np.sin((x + y) * 2 * np.pi / size) > 0,
        "square": np.maximum(abs(x - cx), abs(y - cy)) < size,
    }[shape]
    ground, ink = random.uniform(0, 255, (2, 3))
    pixels = np.where(mask[:, :, None], ink, ground) + random.normal(0, 5, (height, width, 3))
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
