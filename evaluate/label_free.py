"""Which encoder is better for these images, without labels: what it makes of a view (a crop, other colors) of an image.

Two things count, half and half. The view has to lead back to its image, among all images: raw pixels mistake it for
one that is as bright, and an encoder that has forgotten what tells these images apart mistakes it, too. And the view
has to have its image's neighbors. That is what an encoder gains that learns what kinds of images there are, even if
it tells single images apart no better.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image, ImageEnhance

from ..runtime.fidelity import Vectors, unit_rows
from ..runtime.preprocessing import Pixels, Preprocessing, Source, prepare
from .accuracy import draw_rows

# If there are more images, this many are drawn: the intervals are then narrow enough.
MOST_IMAGES = 1000
NEIGHBORS = 10
# A crop's share of the image, and its ratio of width to height.
AREA, RATIO = (0.2, 1.0), (3 / 4, 4 / 3)
# BYOL's changes of color (paper, appendix B, table 6), and how often there is one, or no color at all.
BRIGHTNESS, CONTRAST, SATURATION, HUE = 0.4, 0.4, 0.2, 0.1
JITTERED, GRAY = 0.8, 0.2
# A crop is cut from the image at this many times the network's side, so that it is sharp.
MARGIN = 2
# Digits of a cosine: sums of a thousand products in float32 have no more, so that equal images differ beyond them.
DIGITS = 5


@dataclass(frozen=True)
class Views:
    """Images as an encoder sees them, and two views of each; each uint8 `[N, image_size, image_size, 3]`."""

    whole: Pixels
    first: Pixels
    second: Pixels


def draw_views(images: Sequence[Source], preprocessing: Preprocessing, mirrored: float = 0.5, seed: int = 0) -> Views:
    """Views of all images, or of 1,000 of them (`draw_rows`). Raises ImageError at the first unreadable one.

    Crops and colors depend on the seed and the image's place alone, so that encoders of several sizes see the same.
    `mirrored`: the share of mirror images; 0 where these are another thing, as with letters.
    """
    large = replace(preprocessing, image_size=MARGIN * preprocessing.image_size)
    views: list[list[Pixels]] = []
    for row in draw_rows(len(images), MOST_IMAGES):
        square, rng = Image.fromarray(prepare(images[row], large)), np.random.default_rng((seed, int(row)))
        drawn = [_draw_view(square, preprocessing.image_size, mirrored, rng) for _ in range(2)]
        views.append([prepare(images[row], preprocessing), *drawn])
    whole, first, second = (np.stack(each) for each in zip(*views, strict=True))
    return Views(whole, first, second)


def measure_consistency(embed: Callable[[Pixels], Vectors], views: Views) -> NDArray[np.float64]:
    """view_consistency of an encoder, by what it makes of the views: `[N]`."""
    return view_consistency(*(embed(each) for each in (views.whole, views.first, views.second)))


def view_consistency(whole: Vectors, *views: Vectors) -> NDArray[np.float64]:
    """How much of an image is left in its views, 0 to 1, `[N]`: the label-free figure; embeddings `[N, D]` of each.

    For each view, the mean of two values. Recognition: 1 − log(1 + r) / log N, where r is how many images are nearer to
    the view than its own, by cosine; of those at the same distance, half. Neighbors kept: the share of the image's ten
    nearest that are the view's, too, less what any other image's view has of them, or an encoder to which a few images
    are near all others would do well. Little is expected of chance: half of 1 / ln N. An image of which an embedding is
    zero or not finite has 0, as has the only one. The difference of two encoders' values is a paired one.
    """
    if len(whole) < 2:
        return np.zeros(len(whole))
    valid = np.all([np.isfinite(each).all(1) & each.any(1) for each in (whole, *views)], axis=0)
    unit, *others = (unit_rows(np.where(valid[:, None], each, 0).astype(np.float32)) for each in (whole, *views))
    near = _find_near(_cosines(unit, unit))
    cosines = [_cosines(each, unit) for each in others]
    values = [(_recognize(each) + _keep(near, _find_near(each))) / 2 for each in cosines]
    return np.where(valid, np.mean(values, axis=0).clip(0, 1), 0.0)


def _cosines(one: Vectors, other: Vectors) -> Vectors:
    return np.round(one @ other.T, DIGITS)


def _recognize(cosines: Vectors) -> NDArray[np.float64]:
    """Recognition of the views, one per row; its own image is on the diagonal."""
    own = np.diag(cosines)[:, None]
    nearer = (cosines > own).sum(1)
    equal = (cosines == own).sum(1) - 1  # without itself
    return 1 - np.log1p(nearer + equal / 2) / np.log(len(cosines))


def _find_near(cosines: Vectors) -> NDArray[np.float64]:
    """1 for the ten images that are nearest to each row's, itself left out, else 0: `[N, N]`; of few images, half."""
    count = min(NEIGHBORS, len(cosines) // 2)
    others = cosines.copy()
    np.fill_diagonal(others, -np.inf)
    near = np.zeros(cosines.shape)
    np.put_along_axis(near, np.argsort(-others, axis=1, kind="stable")[:, :count], 1.0, 1)
    return near


def _keep(near: NDArray[np.float64], of_views: NDArray[np.float64]) -> NDArray[np.float64]:
    """Share of each row's nearest that are in the same row of `of_views`, less that of all rows on average."""
    return ((near * of_views).sum(1) - near @ of_views.mean(0)) / near.sum(1)


def _draw_view(image: Image.Image, side: int, mirrored: float, rng: Generator) -> Pixels:
    """One view of a square image; the numbers that are drawn do not depend on any size."""
    area, ratio = rng.uniform(*AREA), np.exp(rng.uniform(*np.log(RATIO)))
    width, height = min(1.0, np.sqrt(area * ratio)), min(1.0, np.sqrt(area / ratio))
    left, top = rng.uniform(0, 1 - width), rng.uniform(0, 1 - height)
    mirror, jittered, gray = rng.random(3) < (mirrored, JITTERED, GRAY)
    factors = 1 + rng.uniform(-1, 1, 3) * (BRIGHTNESS, CONTRAST, SATURATION)
    hue = rng.uniform(-HUE, HUE)
    box = [float(share * image.width) for share in (left, top, left + width, top + height)]
    view = image.resize((side, side), Image.Resampling.BICUBIC, box=(box[0], box[1], box[2], box[3]))
    if mirror:
        view = view.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    if jittered:
        view = _change_colors(view, factors.tolist(), hue)
    return np.asarray(view.convert("L").convert("RGB") if gray else view)


def _change_colors(image: Image.Image, factors: list[float], hue: float) -> Image.Image:
    """Brightness, contrast and saturation times a factor; the hue turned by a share of the circle."""
    changes = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)
    for change, factor in zip(changes, factors, strict=True):
        image = change(image).enhance(factor)
    turned = np.array(image.convert("HSV"))
    turned[:, :, 0] += np.uint8(round(hue * 255) % 256)
    return Image.fromarray(turned, "HSV").convert("RGB")
