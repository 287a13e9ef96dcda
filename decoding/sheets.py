"""Pictures of what decoders make of vectors: reconstructions, steps from one image to another, means of groups."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..runtime.contact_sheet import Strip, draw_strips
from ..runtime.fidelity import Vectors, unit_rows
from ..runtime.files import whole_file
from ..runtime.preprocessing import Pixels
from ..runtime.text import count
from .images import Images
from .likeness import squared_errors, to_decibels
from .results import MEANS, RECONSTRUCTIONS, STEPS, Decoding
from .training import VectorDecoder

# Pictures in a row; pairs of images, and steps from one to the other; nearest images shown of a group.
ACROSS, PAIRS, NEAREST = 8, 4, 3
# Vectors drawn of a file.
MOST_VECTORS = 8 * ACROSS
# Vectors that agree so far are those of equal images.
DIGITS = 4


def draw_decoded(
    result: Decoding, images: Images, decoder: VectorDecoder, decoded: Mapping[str, Pixels], folder: Path
) -> None:
    """Draws the three sheets into a folder. `decoder`: of the first row; `decoded`: the held-out images by row."""
    vectors = images.vectors[result.rows[0].name]
    save_sheet(draw_reconstructions(result, images.pixels[images.held], decoded), folder / RECONSTRUCTIONS)
    held = images.held[: 2 * PAIRS]
    save_sheet(draw_steps(result, images.pixels[held], vectors[held], decoder), folder / STEPS)
    labels = images.labels[images.train] if images.labels is not None else None
    save_sheet(
        draw_means(images.pixels[images.train], vectors[images.train], labels, images.classes, decoder, result),
        folder / MEANS,
    )


def draw_reconstructions(result: Decoding, images: Pixels, decoded: Mapping[str, Pixels]) -> Image.Image:
    """Images, and what each row's decoder makes of their vectors, with the PSNR of each."""
    shown = f"{min(ACROSS, len(images))} of {count(len(images), 'held-out image')} of {result.data}, the first drawn"
    title = f"{shown}, and what decoders make of their vectors alone, in dB of PSNR. By {result.source}."
    true = images[:ACROSS]
    strips = [Strip(f"image, {result.side} px", list(true))]
    for row in result.rows:
        found = decoded[row.name][:ACROSS]
        figures = [f"{each:.1f} dB" for each in to_decibels(squared_errors(true, found))]
        strips.append(Strip(_name(row.name, row.numbers), list(found), figures))
    return draw_strips(title, strips)


def draw_steps(result: Decoding, images: Pixels, vectors: Vectors, decoder: VectorDecoder) -> Image.Image:
    """Pairs of images with the steps between their vectors, decoded. An even number of images."""
    shares = np.linspace(0, 1, ACROSS - 2)
    strips = []
    for at in range(0, len(images) - 1, 2):
        between = decoder.decode(interpolate(vectors[at], vectors[at + 1], shares))
        cosine = float(vectors[at] @ vectors[at + 1])
        figures = ["image", *(f"{share:.0%}" for share in shares), "image"]
        strips.append(Strip(f"cosine {cosine:.2f}", [images[at], *between, images[at + 1]], figures))
    what = (
        "From one held-out image's vector to another's, by equal angles, decoded; at both ends, the images themselves."
    )
    title = f"{what} By {result.rows[0].name} of {result.source}."
    return draw_strips(title, strips)


def draw_means(
    images: Pixels,
    vectors: Vectors,
    labels: NDArray[np.intp] | None,
    classes: Sequence[str],
    decoder: VectorDecoder,
    result: Decoding,
) -> Image.Image:
    """The mean vector of each class, or of groups of near vectors, decoded; below, what it is the mean of."""
    groups = labels if labels is not None else find_groups(vectors)
    sizes = np.bincount(groups)
    largest = np.sort(np.argsort(-sizes, kind="stable")[:ACROSS])
    largest = largest[sizes[largest] > 0]
    members = [np.flatnonzero(groups == each) for each in largest]
    means = unit_rows(np.stack([vectors[rows].mean(0) for rows in members]))
    nearest = [
        rows[np.argsort(-(vectors[rows] @ mean), kind="stable")] for rows, mean in zip(members, means, strict=True)
    ]
    names = [f"{classes[each] if labels is not None else 'group ' + str(each + 1)}, {sizes[each]}" for each in largest]
    averages = [images[rows].mean(0, dtype=np.float64).round().astype(np.uint8) for rows in members]
    strips = [
        Strip("mean vector,\ndecoded", list(decoder.decode(means)), names),
        Strip("mean of the pixels", averages),
    ]
    for place in range(NEAREST):
        tiles = [images[rows[place]] if place < len(rows) else None for rows in nearest]
        strips.append(Strip("nearest images" if place == 0 else "", tiles))
    what = "class" if labels is not None else "group of near vectors (k-means)"
    shown = f"The {len(largest)} largest of {len(classes)} classes: the" if len(classes) > len(largest) else "The"
    title = (
        f"{shown} mean vector of each {what}, decoded, with the number of its images; below, the mean of their pixels "
        f"and the images whose vectors are nearest. By {result.rows[0].name} of {result.source}."
    )
    return draw_strips(title, strips)


def draw_vectors(title: str, images: Pixels, names: Sequence[str]) -> Image.Image:
    """Decoded images in rows, each with its name."""
    starts = range(0, len(images), ACROSS)
    return draw_strips(title, [Strip("", list(images[at:][:ACROSS]), names[at:][:ACROSS]) for at in starts])


def interpolate(first: Vectors, last: Vectors, shares: NDArray[np.float64]) -> Vectors:
    """Vectors of unit length `[len(shares), D]` on the way between two such, by shares of the angle (Shoemake 1985).

    Of opposite vectors, which have no one way, or equal ones: the straight line, brought to unit length.
    """
    angle = np.arccos(np.clip(float(first @ last), -1, 1))
    if np.sin(angle) < 1e-3:
        mixed = np.outer(1 - shares, first) + np.outer(shares, last)
    else:
        mixed = np.outer(np.sin((1 - shares) * angle), first) + np.outer(np.sin(shares * angle), last)
    return unit_rows(mixed.astype(np.float32))


def find_groups(vectors: Vectors) -> NDArray[np.intp]:
    """Up to eight groups of near vectors, by k-means: the group of each of `[N, D]`."""
    from sklearn.cluster import KMeans

    distinct = len(np.unique(vectors.round(DIGITS), axis=0))
    return np.asarray(KMeans(min(ACROSS, distinct), random_state=0).fit_predict(vectors)).astype(np.intp)


def save_sheet(sheet: Image.Image, file: Path) -> None:
    with whole_file(file) as part:
        sheet.save(part, "PNG")


def _name(row: str, numbers: int) -> str:
    return f"{row},\n{numbers} numbers" if numbers else row
