"""A stream of images through a network: read ahead, embedded in batches, in input order, in bounded memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from .errors import ImageError, UsageError
from .fidelity import Vectors
from .preprocessing import Pixels, Preprocessing, is_image
from .reading import read_batches

ERRORS = ("collect", "skip", "raise")

Run = Callable[[Pixels], Vectors]


@dataclass(frozen=True)
class Chunk:
    """A batch of a stream: `vectors[i]` is the embedding of `sources[i]`, which is number `rows[i]` of the input.

    `errors`: the sources that could not be read, and why.
    """

    sources: list[Any]
    vectors: Vectors
    errors: list[tuple[Any, ImageError]]
    rows: list[int]


class Streamer(Protocol):
    """What embeds a stream of images: an Encoder, or a network that was not exported."""

    id: str
    engine: str
    embedding_size: int

    def agrees_with(self, engine: str) -> bool: ...

    def stream(self, sources: Iterable[Any], batch_size: int) -> Iterator[Chunk]: ...


def stream_chunks(
    run: Run, preprocessing: Preprocessing, sources: Iterable[Any], batch_size: int, workers: int, errors: str
) -> Iterator[Chunk]:
    """`Encoder.stream`, for any `run` on prepared pixels. It holds two batches: one being decoded, one embedded."""
    check_many(sources)
    for name, value in (("batch_size", batch_size), ("workers", workers)):
        if value < 1:
            raise UsageError(f"{{{name}}}: has to be 1 or more", **{name: value})
    if errors not in ERRORS:
        raise UsageError("{errors}: " + f"has to be one of {', '.join(ERRORS)}", errors=repr(errors))
    return _stream(run, preprocessing, sources, batch_size, workers, errors)


def embed_one(encoder: Streamer, image: Any) -> Vectors:
    """The vector `[D]` of one image. Raises ImageError if it cannot be read."""
    (chunk,) = encoder.stream([image], 1)
    for _, error in chunk.errors:
        raise error
    return np.asarray(chunk.vectors[0])


def check_many(sources: object) -> None:
    """Raises UsageError for a single image, whose rows, bytes or letters would be taken for images."""
    if is_image(sources):
        raise UsageError(f"a {type(sources).__name__} is one image: give a list (find_images lists a folder's)")


def _stream(
    run: Run, preprocessing: Preprocessing, sources: Iterable[Any], batch_size: int, workers: int, errors: str
) -> Iterator[Chunk]:
    for batch in read_batches(sources, preprocessing, batch_size, workers):
        if batch.unreadable and errors == "raise":
            raise batch.unreadable[0].error
        failed = [(each.source, each.error) for each in batch.unreadable] if errors == "collect" else []
        yield Chunk(batch.sources, run(batch.pixels), failed, batch.rows)
