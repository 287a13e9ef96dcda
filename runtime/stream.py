"""A stream of images through a network: decoded ahead, embedded in batches, in input order and bounded memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, islice
from typing import TYPE_CHECKING, Any

import numpy as np

from .errors import ImageError, UsageError
from .fidelity import Vectors
from .preprocessing import Pixels, Preprocessing, is_image, prepare

if TYPE_CHECKING:
    from concurrent.futures import Future

ERRORS = ("collect", "skip", "raise")

# A worker takes its part of a batch in so many turns: with fewer the last one keeps the others waiting, and each turn
# costs about .1 ms.
SHARES = 4


@dataclass(frozen=True)
class Chunk:
    """A batch of a stream: `vectors[i]` is the embedding of `sources[i]`; what could not be read is in `errors`."""

    sources: list[Any]
    vectors: Vectors
    errors: list[tuple[Any, ImageError]]


Run = Callable[[Pixels], Vectors]


def stream_chunks(
    run: Run, preprocessing: Preprocessing, sources: Iterable[Any], batch_size: int, workers: int, errors: str
) -> Iterator[Chunk]:
    """`Encoder.stream`, for any `run` of prepared pixels. Two batches are held at a time: one decoded, one embedded."""
    check_many(sources)
    if batch_size < 1 or workers < 1 or errors not in ERRORS:
        raise UsageError(
            f"stream(batch_size={batch_size}, workers={workers}, errors={errors!r}): the numbers are 1 or more, errors "
            f"is one of {', '.join(ERRORS)}"
        )
    return _stream(run, preprocessing, sources, batch_size, workers, errors)


def check_many(sources: object) -> None:
    """Raises UsageError for one image, whose rows, bytes or letters would be taken for images."""
    if is_image(sources):
        raise UsageError(f"a {type(sources).__name__} is one image: give a list (find_images lists a folder's)")


def _stream(
    run: Run, preprocessing: Preprocessing, sources: Iterable[Any], batch_size: int, workers: int, errors: str
) -> Iterator[Chunk]:
    from concurrent.futures import ThreadPoolExecutor

    share = max(1, batch_size // (SHARES * workers))
    pool = ThreadPoolExecutor(workers, "byol-edge-decode")
    try:
        waiting: list[tuple[tuple[Any, ...], Future[list[Pixels | ImageError]]]] = []
        for batch in chain(batches(sources, batch_size), [()]):  # the empty one sends the last batch out
            ready, waiting = (
                waiting,
                [(some, pool.submit(_decode, some, preprocessing)) for some in batches(batch, share)],
            )
            if ready:
                decoded = [pair for some, future in ready for pair in zip(some, future.result(), strict=True)]
                yield _finish(run, preprocessing.image_size, decoded, errors)
    finally:  # also when nobody asks for the rest
        pool.shutdown(cancel_futures=True)


def _decode(sources: tuple[Any, ...], preprocessing: Preprocessing) -> list[Pixels | ImageError]:
    found: list[Pixels | ImageError] = []
    for source in sources:
        try:
            found.append(prepare(source, preprocessing))
        except ImageError as error:
            # A new one: an error that was raised holds on to what was decoded by then.
            found.append(ImageError(str(error)))
    return found


def _finish(run: Run, side: int, decoded: list[tuple[Any, Pixels | ImageError]], errors: str) -> Chunk:
    failed = [(source, found) for source, found in decoded if isinstance(found, ImageError)]
    if failed and errors == "raise":
        raise failed[0][1]
    sources = [source for source, found in decoded if not isinstance(found, ImageError)]
    pixels = [found for _, found in decoded if not isinstance(found, ImageError)]
    prepared = np.stack(pixels) if pixels else np.zeros((0, side, side, 3), np.uint8)
    return Chunk(sources, run(prepared), failed if errors == "collect" else [])


def batches(sources: Iterable[Any], size: int) -> Iterator[tuple[Any, ...]]:
    """Successive tuples of `size` items, the last one shorter."""
    iterator = iter(sources)
    while batch := tuple(islice(iterator, size)):
        yield batch
