"""Views: what the two networks see of one image. BYOL learns whatever two views of an image have in common.

Every parameter is drawn for each image and view from a generator of its own, so a view depends on the seed, the epoch
and the image alone, not on the batch, the number of workers or where a run was resumed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torchvision.transforms.v2.functional as F
from numpy.random import Generator
from PIL import Image, ImageFilter, ImageOps

from ..runtime.errors import UsageError
from ..runtime.preprocessing import Pixels, Preprocessing, prepare


@dataclass(frozen=True)
class RandomCrop:
    """A crop of `area` (share of the image) and `ratio` (width to height), resized: for photographs."""

    area: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)


@dataclass(frozen=True)
class RandomAffine:
    """The whole image, a little turned, scaled, sheared and moved: for glyphs, where a part is another thing.

    `rotation` and `shear`: degrees either way. `scale`: factor. `shift`: share of the side, either way.
    """

    rotation: float
    scale: tuple[float, float]
    shear: float
    shift: float


@dataclass(frozen=True)
class ColorJitter:
    """Strengths of the color jitter, as torchvision's ColorJitter takes them, applied in random order."""

    brightness: float = 0.4
    contrast: float = 0.4
    saturation: float = 0.2
    hue: float = 0.1


@dataclass(frozen=True)
class View:
    """How one view is drawn: its geometry, then the chance of each change.

    The defaults are those of the recipe of record (paper, appendix B, table 6); `blur` and `solarize` differ between
    the two views.
    """

    geometry: RandomCrop | RandomAffine = RandomCrop()
    flip: float = 0.5
    jitter: float = 0.8
    color_jitter: ColorJitter = ColorJitter()
    grayscale: float = 0.2
    blur: float = 0.0
    blur_sigma: tuple[float, float] = (0.1, 2.0)
    solarize: float = 0.0


def change_view(view: View, changes: dict[str, Any]) -> View:
    """The same view with other values, by their names in View, in its geometry and in ColorJitter.

    `change_view(View(), {"blur": 0.5, "area": (0.2, 1.0), "hue": 0})`. Raises UsageError for a name that is none of
    them or a value of another kind.
    """
    parts = (view, view.geometry, view.color_jitter)
    known = [field.name for part in parts for field in fields(part) if field.name not in ("geometry", "color_jitter")]
    for name in changes:
        if name not in known:
            raise UsageError(f"a view has no {name!r}; there are {', '.join(known)}")
    whole, geometry, color_jitter = (
        {
            field.name: _same_kind(field.name, getattr(part, field.name), changes[field.name])
            for field in fields(part)
            if field.name in changes
        }
        for part in parts
    )
    return replace(
        view,
        **whole,
        geometry=replace(view.geometry, **geometry),
        color_jitter=replace(view.color_jitter, **color_jitter),
    )


def _same_kind(name: str, old: Any, new: Any) -> Any:
    """`new` as a number or a pair of numbers, as `old` is. Raises UsageError."""
    values = list(new) if isinstance(new, (list, tuple)) else [new]
    numbers = all(isinstance(each, (int, float)) and not isinstance(each, bool) and each >= 0 for each in values)
    pair = isinstance(old, tuple)
    if not numbers or isinstance(new, (list, tuple)) != pair or (pair and (len(values) != 2 or values[0] > values[1])):
        wanted = "two numbers, the smaller first" if pair else "a number from 0"
        raise UsageError(f"view: {name} = {new!r}, needs {wanted}")
    return tuple(values) if pair else new


def draw_view(image: Image.Image, view: View, preprocessing: Preprocessing, random: Generator) -> Pixels:
    """One view of an RGB image: uint8 `[image_size, image_size, 3]`."""
    if isinstance(view.geometry, RandomCrop):
        image = _crop(image, view.geometry, preprocessing, random)
    else:
        image = _affine(image, view.geometry, preprocessing, random)
    if random.random() < view.flip:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    if random.random() < view.jitter:
        image = _jitter(image, view.color_jitter, random)
    if random.random() < view.grayscale:
        image = image.convert("L").convert("RGB")
    if random.random() < view.blur:
        image = image.filter(ImageFilter.GaussianBlur(random.uniform(*view.blur_sigma)))
    if random.random() < view.solarize:
        image = ImageOps.solarize(image, 128)
    return np.asarray(image)


def _crop(image: Image.Image, crop: RandomCrop, preprocessing: Preprocessing, random: Generator) -> Image.Image:
    if preprocessing.fit == "pad":
        longest = max(image.size)
        image = ImageOps.pad(image, (longest, longest), color=preprocessing.border)
    # To a network that sees squashed images, the image is a square.
    width, height = (1, 1) if preprocessing.fit == "squash" else image.size
    for _ in range(10):
        area = width * height * random.uniform(*crop.area)
        ratio = math.exp(random.uniform(*np.log(crop.ratio)))
        w, h = math.sqrt(area * ratio), math.sqrt(area / ratio)
        if w <= width and h <= height:
            left, top = random.uniform(0, width - w), random.uniform(0, height - h)
            break
    else:  # a very long image: its largest part of an allowed ratio, from the middle
        w = min(width, height * crop.ratio[1])
        h = min(height, width / crop.ratio[0])
        left, top = (width - w) / 2, (height - h) / 2
    across, down = image.width / width, image.height / height
    box = (left * across, top * down, min((left + w) * across, image.width), min((top + h) * down, image.height))
    side = preprocessing.image_size
    return image.resize((side, side), Image.Resampling.BICUBIC, box=box)


def _affine(image: Image.Image, affine: RandomAffine, preprocessing: Preprocessing, random: Generator) -> Image.Image:
    side = preprocessing.image_size
    image = Image.fromarray(prepare(image, preprocessing))
    angle, shear = np.radians([random.uniform(-limit, limit) for limit in (affine.rotation, affine.shear)])
    scale = random.uniform(*affine.scale)
    shift = random.uniform(-affine.shift, affine.shift, 2) * side
    # Pillow wants the way back, from a view's pixel to the image's, here about the middle.
    turn = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
    back = turn @ np.array([[1, math.tan(shear)], [0, 1]]) / scale
    middle = np.full(2, side / 2)
    offset = middle - back @ (middle + shift)
    matrix = (back[0, 0], back[0, 1], offset[0], back[1, 0], back[1, 1], offset[1])
    fill = _background(image)
    return image.transform((side, side), Image.Transform.AFFINE, matrix, Image.Resampling.BICUBIC, fillcolor=fill)


def _background(image: Image.Image) -> tuple[int, ...]:
    """The median color of the border: what lies beyond a glyph's edge."""
    pixels = np.asarray(image)
    border = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    return tuple(int(value) for value in np.median(border, axis=0))


def _jitter(image: Image.Image, color_jitter: ColorJitter, random: Generator) -> Image.Image:
    changes = [
        (F.adjust_brightness, 1 + random.uniform(-color_jitter.brightness, color_jitter.brightness)),
        (F.adjust_contrast, 1 + random.uniform(-color_jitter.contrast, color_jitter.contrast)),
        (F.adjust_saturation, 1 + random.uniform(-color_jitter.saturation, color_jitter.saturation)),
        (F.adjust_hue, random.uniform(-color_jitter.hue, color_jitter.hue)),
    ]
    for number in random.permutation(len(changes)):
        change, amount = changes[number]
        image = change(image, amount)
    return image
