"""Views in numbers: what the networks see of one image. BYOL learns whatever two views of an image have in common.

`sample` draws the numbers of one view, from a generator of its own for each image, so that a view depends on the seed,
the epoch and the image alone, not on the batch, the number of workers or where a run was resumed. A renderer makes
pixels of them (rendering.py).
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.random import Generator

from ..runtime.errors import UsageError
from ..runtime.preprocessing import Box
from .spelling import suggest

Matrix = tuple[float, float, float, float, float, float]

# Fields of View that have fields of their own.
PARTS = ("geometry", "color_jitter")
# A crop is drawn so many times before a very long image gets its middle.
TRIES = 10


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


@dataclass(frozen=True)
class ViewParameters:
    """One view of one image, in numbers; applied in this order.

    `box`: the part of the image that is resized to the view, in the image's pixels; where it reaches beyond the image
    there is border. `matrix`: a, b, c, d, e, f, or None; the view's pixel (x, y) is then that of the resized part at
    (ax + by + c, dx + ey + f), both counted in sides from the middle. `flip`: mirrored; a matrix mirrors by itself.
    `colors`: factors of brightness, contrast and saturation, 1 for no change, and the turn of the hue, -0.5 to 0.5, 0
    for none; `order`: in which they are applied. `grayscale`. `blur_sigma`: in the view's pixels, 0 for none.
    `solarize`: inverted from 128.
    """

    box: Box
    matrix: Matrix | None
    flip: bool
    colors: tuple[float, float, float, float]
    order: tuple[int, ...]
    grayscale: bool
    blur_sigma: float
    solarize: bool


NO_COLORS = (1.0, 1.0, 1.0, 0.0)


def sample(view: View, size: tuple[float, float], fit: str, rng: Generator) -> ViewParameters:
    """The numbers of one view of an image of `size` (width, height), made square as `fit` says."""
    if isinstance(view.geometry, RandomCrop):
        box, matrix = _sample_crop(view.geometry, size, fit, rng), None
    else:
        box, matrix = _find_square(size, fit), _sample_affine(view.geometry, rng)
    flip = rng.random() < view.flip
    if flip and matrix is not None:  # one step mirrors and moves
        a, b, c, d, e, f = matrix
        matrix, flip = (-a, b, c, -d, e, f), False
    jittered = rng.random() < view.jitter
    colors, order = _sample_colors(view.color_jitter, rng) if jittered else (NO_COLORS, (0, 1, 2, 3))
    return ViewParameters(
        box=box,
        matrix=matrix,
        flip=flip,
        colors=colors,
        order=order,
        grayscale=rng.random() < view.grayscale,
        blur_sigma=rng.uniform(*view.blur_sigma) if rng.random() < view.blur else 0.0,
        solarize=rng.random() < view.solarize,
    )


def _sample_crop(crop: RandomCrop, size: tuple[float, float], fit: str, rng: Generator) -> Box:
    """A box inside the image; inside its padded square with "pad"."""
    outer = _find_square(size, "pad") if fit == "pad" else (0.0, 0.0, *map(float, size))
    outer_width, outer_height = outer[2] - outer[0], outer[3] - outer[1]
    # To a network that sees squashed images, the image is a square.
    width, height = (1.0, 1.0) if fit == "squash" else (outer_width, outer_height)
    for _ in range(TRIES):
        area = width * height * rng.uniform(*crop.area)
        ratio = math.exp(rng.uniform(*np.log(crop.ratio)))
        w, h = math.sqrt(area * ratio), math.sqrt(area / ratio)
        if w <= width and h <= height:
            left, top = rng.uniform(0, width - w), rng.uniform(0, height - h)
            break
    else:  # a very long image: its largest part of an allowed ratio, from the middle
        w = min(width, height * crop.ratio[1])
        h = min(height, width / crop.ratio[0])
        left, top = (width - w) / 2, (height - h) / 2
    across, down = outer_width / width, outer_height / height
    return (
        outer[0] + left * across,
        outer[1] + top * down,
        min(outer[0] + (left + w) * across, outer[2]),
        min(outer[1] + (top + h) * down, outer[3]),
    )


def _find_square(size: tuple[float, float], fit: str) -> Box:
    """The part of an image that a network sees: its central square, all of it, or the square around it."""
    width, height = size
    if fit == "squash":
        return (0.0, 0.0, float(width), float(height))
    side = max(size) if fit == "pad" else min(size)
    left, top = (width - side) / 2, (height - side) / 2
    return (left, top, left + side, top + side)


def _sample_affine(affine: RandomAffine, rng: Generator) -> Matrix:
    angle, shear = np.radians([rng.uniform(-limit, limit) for limit in (affine.rotation, affine.shear)])
    scale = rng.uniform(*affine.scale)
    shift = rng.uniform(-affine.shift, affine.shift, 2)
    # From a view's pixel back to the image's.
    turn = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
    back = turn @ np.array([[1, math.tan(shear)], [0, 1]]) / scale
    offset = -back @ shift
    (a, b), (d, e) = back.tolist()
    c, f = offset.tolist()
    return (a, b, c, d, e, f)


def _sample_colors(jitter: ColorJitter, rng: Generator) -> tuple[tuple[float, float, float, float], tuple[int, ...]]:
    brightness, contrast, saturation = (
        1 + rng.uniform(-limit, limit) for limit in (jitter.brightness, jitter.contrast, jitter.saturation)
    )
    hue = rng.uniform(-jitter.hue, jitter.hue)
    return (brightness, contrast, saturation, hue), tuple(rng.permutation(4).tolist())


def check_names(changes: Collection[str]) -> None:
    """Raises UsageError for a name that no view has, whatever its geometry."""
    parts = (View, RandomCrop, RandomAffine, ColorJitter)
    known = dict.fromkeys(each.name for part in parts for each in fields(part) if each.name not in PARTS)
    for name in changes:
        if name not in known:
            raise UsageError(f"a view has no {name!r}; {suggest(name, known)}")


def change_view(view: View, changes: dict[str, Any]) -> View:
    """The same view with other values, by their names in View, in its geometry and in ColorJitter.

    `change_view(View(), {"blur": 0.5, "area": (0.2, 1.0), "hue": 0})`. Raises UsageError for a name that is none of
    them or a value of another kind.
    """
    check_names(changes)
    parts = (view, view.geometry, view.color_jitter)
    known = [field.name for part in parts for field in fields(part) if field.name not in PARTS]
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
    numbers = all(
        isinstance(each, (int, float)) and not isinstance(each, bool) and 0 <= each < math.inf for each in values
    )
    pair = isinstance(old, tuple)
    if not numbers or isinstance(new, (list, tuple)) != pair or (pair and (len(values) != 2 or values[0] > values[1])):
        wanted = "two numbers, the smaller first" if pair else "a number from 0"
        raise UsageError(f"view: {name} = {new!r}, needs {wanted}")
    return tuple(values) if pair else new
