"""Reading many images: decoded by threads ahead of use, in order, in bounded memory; those that fail are set apart."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .cpus import available_cpus
from .errors import ImageError
from .images import find_images
from .preprocessing import Pixels, Preprocessing, prepare

if TYPE_CHECKING:
    from concurrent.futures import Future

log = logging.getLogger(__name__)

BATCH_SIZE = 32

# A worker takes its part of a batch in this many turns: with fewer, the others wait for the last one, and each turn
# costs about 0.1 ms.
SHARES = 4


@dataclass(frozen=True)
class Unreadable:
    """An image that cannot be read: its place in the input, what was given, and why."""

    row: int
    source: Any
    error: ImageError


@dataclass(frozen=True)
class ReadImages:
    """Images in order. `rows`: their places in the input; `pixels`: uint8 `[N, image_size, image_size, 3]`."""

    rows: list[int]
    sources: list[Any]
    pixels: Pixels
    unreadable: list[Unreadable]


def read_batches(
    sources: Iterable[Any], preprocessing: Preprocessing, batch_size: int = BATCH_SIZE, workers: int | None = None
) -> Iterator[ReadImages]:
    """Any number of images as batches of up to `batch_size`; one is decoded, by `workers` threads, while one is used.

    `workers`: by default, all CPUs that this process may use. A batch of which no image could be read is empty.
    """
    from concurrent.futures import ThreadPoolExecutor

    workers = workers or available_cpus()
    share = max(1, batch_size // (SHARES * workers))
    pool = ThreadPoolExecutor(workers, "byol-edge-decode")
    try:
        waiting: list[tuple[tuple[Any, ...], Future[list[Pixels | ImageError]]]] = []
        first = 0
        for batch in chain(batched(sources, batch_size), [()]):  # the empty one sends the last batch out
            ready, waiting = (
                waiting,
                [(some, pool.submit(_decode, some, preprocessing)) for some in batched(batch, share)],
            )
            if ready:
                decoded = [pair for some, future in ready for pair in zip(some, future.result(), strict=True)]
                yield _sort_out(decoded, first, preprocessing.image_size)
                first += len(decoded)
    finally:  # also when nobody asks for the rest
        pool.shutdown(cancel_futures=True)


def read_images(sources: Iterable[Any], preprocessing: Preprocessing, most: int | None = None) -> ReadImages:
    """The same in one go, all in memory. With `most`, reading ends as soon as that many were read."""
    batches = []
    count = 0
    for batch in read_batches(sources, preprocessing):
        batches.append(batch)
        count += len(batch.rows)
        if most is not None and count >= most:
            break
    side = preprocessing.image_size
    pixels = [batch.pixels for batch in batches]
    rows = [row for batch in batches for row in batch.rows]
    end = rows[most - 1] if most and most <= len(rows) else float("inf")  # what comes later was not needed
    return ReadImages(
        rows[:most],
        [source for batch in batches for source in batch.sources][:most],
        np.concatenate(pixels)[:most] if pixels else np.zeros((0, side, side, 3), np.uint8),
        [each for batch in batches for each in batch.unreadable if each.row < end],
    )


def draw_images(folder: Path, preprocessing: Preprocessing, most: int) -> Pixels:
    """Up to `most` images from all over a folder, always the same ones, uint8 `[N, image_size, image_size, 3]`.

    Warns of those that cannot be read. Raises ImageError if none can.
    """
    read = draw_from(find_images(folder), preprocessing, most)
    for each in read.unreadable:
        log.warning("left out: %s", each.error)
    return read.pixels


def draw_from(paths: Sequence[Path], preprocessing: Preprocessing, most: int, seed: int = 0) -> ReadImages:
    """Up to `most` images drawn with the seed from a list of files. Raises ImageError if none can be read."""
    drawn = (paths[place] for place in np.random.default_rng(seed).permutation(len(paths)))
    read = read_images(drawn, preprocessing, most)
    if not read.rows:
        raise ImageError(f"none of the {len(paths)} images can be read; the first: {read.unreadable[0].error}")
    return read


def batched(sources: Iterable[Any], size: int) -> Iterator[tuple[Any, ...]]:
    """Successive tuples of `size` items; the last one may be shorter."""
    iterator = iter(sources)
    while batch := tuple(islice(iterator, size)):
        yield batch


def _decode(sources: tuple[Any, ...], preprocessing: Preprocessing) -> list[Pixels | ImageError]:
    found: list[Pixels | ImageError] = []
    for source in sources:
        try:
            found.append(prepare(source, preprocessing))
        except ImageError as error:
            # A new one, because an error that was raised keeps alive what was decoded by then.
            found.append(ImageError(str(error)))
    return found


def _sort_out(decoded: list[tuple[Any, Pixels | ImageError]], first: int, side: int) -> ReadImages:
    read: list[tuple[int, Any, Pixels]] = []
    unreadable = []
    for row, (source, found) in enumerate(decoded, first):
        if isinstance(found, ImageError):
            unreadable.append(Unreadable(row, source, found))
        else:
            read.append((row, source, found))
    pixels = np.stack([pixels for _, _, pixels in read]) if read else np.zeros((0, side, side, 3), np.uint8)
    return ReadImages([row for row, _, _ in read], [source for _, source, _ in read], pixels, unreadable)
