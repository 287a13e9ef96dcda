"""A stream of images through a network: decoded ahead, embedded in batches, in input order and bounded memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any

import numpy as np

from .errors import ImageError, UsageError
from .fidelity import Vectors
from .preprocessing import Pixels, Preprocessing, prepare

ERRORS = ("collect", "skip", "raise")


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
    if isinstance(sources, (str, bytes)):
        raise UsageError("stream takes many sources (find_images lists a folder's); embed takes one")
    if batch_size < 1 or workers < 1 or errors not in ERRORS:
        raise UsageError(
            f"stream(batch_size={batch_size}, workers={workers}, errors={errors!r}): the numbers are 1 or more, errors "
            f"is one of {', '.join(ERRORS)}"
        )
    return _stream(run, preprocessing, sources, batch_size, workers, errors)


def _stream(
    run: Run, preprocessing: Preprocessing, sources: Iterable[Any], batch_size: int, workers: int, errors: str
) -> Iterator[Chunk]:
    pool = ThreadPoolExecutor(workers, "byol-edge-decode")
    try:
        waiting: list[tuple[Any, Future[Pixels]]] = []
        for batch in chain(batches(sources, batch_size), [()]):  # the empty one sends the last batch out
            ready, waiting = waiting, [(source, pool.submit(prepare, source, preprocessing)) for source in batch]
            if ready:
                yield _finish(run, preprocessing.image_size, ready, errors)
    finally:  # also when nobody asks for the rest
        pool.shutdown(cancel_futures=True)


def _finish(run: Run, side: int, decoded: list[tuple[Any, Future[Pixels]]], errors: str) -> Chunk:
    sources, pixels, failed = [], [], []
    for source, future in decoded:
        try:
            pixels.append(future.result())
            sources.append(source)
        except ImageError as error:
            if errors == "raise":
                raise
            failed.append((source, error))
    prepared = np.stack(pixels) if pixels else np.zeros((0, side, side, 3), np.uint8)
    return Chunk(sources, run(prepared), failed if errors == "collect" else [])


def batches(sources: Iterable[Any], size: int) -> Iterator[tuple[Any, ...]]:
    """Successive tuples of `size` items, the last one shorter."""
    iterator = iter(sources)
    while batch := tuple(islice(iterator, size)):
        yield batch
