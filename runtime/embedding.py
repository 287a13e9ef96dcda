"""Embedding any number of images into one file, in shards, so that a kill costs seconds and not the night."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .errors import ImageError
from .identity import Maker
from .progress import Progress, report_progress
from .shards import (
    Held,
    Shard,
    claim_shards,
    delete_shards,
    hold_shards,
    join_shards,
    read_held,
    save_shard,
    shard_folder,
    stamp_file,
)
from .stream import Chunk, Streamer

log = logging.getLogger(__name__)

# A shard is whole batches: of about this many images, or of this many seconds on a slow device.
SHARD_IMAGES = 1024
SHARD_SECONDS = 10.0


@dataclass(frozen=True)
class Embedded:
    """What was written: the number of vectors, and a reason for each one that is missing, as `path: why`."""

    count: int
    errors: list[str]


def embed_files(
    encoder: Streamer, paths: Iterable[Path], total: int, out: Path, batch_size: int, strict: bool = False
) -> Embedded:
    """Embeds the images that no shard of `out` holds yet, and joins the shards into `out`.

    `paths`, each once, are taken as they are needed; `total`, how many there are, is for the progress alone. Of no
    images at all, the file holds no vectors.

    The file is the same, byte for byte, however often it was interrupted. An image that was replaced meanwhile is
    embedded again, and one that could not be read is tried again, last. Images that cannot be read are left out, with a
    warning each; with `strict`, or if none can be read, nothing is written then. Raises ByolEdgeError, also if the
    shards are of another model or another process is at work on them.
    """
    folder = shard_folder(out)
    with hold_shards(out) as marker:
        claim_shards(marker, encoder)
        held = read_held(folder)
        before = len(held.images)
        added, errors = _embed_rest(encoder, paths, total, held, folder, batch_size)
        stale = held.images
        count = before - len(stale) + added
        if errors and (strict or not count):
            if not count:
                delete_shards(folder)
            hint = "; {resume}, without {strict}, writes the others" if count else ""
            text = f"{len(errors)} of {count + len(errors)} images cannot be read; {out} was not written{hint}"
            raise ImageError(text, resume=True, strict=True)
        join_shards(folder, stale, out, (count, encoder.embedding_size), Maker.of(encoder))
        delete_shards(folder)
    return Embedded(count, errors)


def _embed_rest(
    encoder: Streamer, paths: Iterable[Path], total: int, held: Held, folder: Path, batch_size: int
) -> tuple[int, list[str]]:
    """Adds shards until every image is in one or could not be read: the number of vectors, the reasons for the latter.

    What is left in `held.images` then is of images that are gone or have changed.
    """
    before, number = len(held.images), held.next_number
    added, errors = 0, []
    stamps: dict[str, str] = {}
    chunks: list[Chunk] = []
    saved = time.monotonic()
    report_progress(Progress("embedding", before, total))
    try:
        for chunk in encoder.stream(_choose(paths, held, stamps), batch_size):
            chunks.append(chunk)
            added += len(chunk.sources)
            for _, error in chunk.errors:
                errors.append(str(error))
                log.warning("left out: %s", error)
            report_progress(Progress("embedding", before - len(held.images) + added + len(errors), total))
            if len(chunks) * batch_size >= SHARD_IMAGES or time.monotonic() - saved >= SHARD_SECONDS:
                save_shard(folder, number, _to_shard(chunks, stamps))
                number, chunks, saved = number + 1, [], time.monotonic()
    except KeyboardInterrupt:
        if chunks:
            save_shard(folder, number, _to_shard(chunks, stamps))
        raise
    if chunks:
        save_shard(folder, number, _to_shard(chunks, stamps))
    return added, errors


def _choose(paths: Iterable[Path], held: Held, stamps: dict[str, str]) -> Iterator[Path]:
    """The images that no shard holds as they are now; `held.images` loses those that one does.

    Those that failed before come last, so that the others are in the same batches as in a run without a stop.
    """
    failed: list[Path] = []
    for path in paths:
        if str(path) in held.failed:
            failed.append(path)
        elif _is_new(path, held, stamps):
            yield path
    for path in failed:
        if _is_new(path, held, stamps):
            yield path


def _is_new(path: Path, held: Held, stamps: dict[str, str]) -> bool:
    """Whether no shard holds an image as it is now. Its stamp is kept then.

    It is taken before the image is read: one that is replaced in between has the old stamp, and is embedded again.
    """
    source, stamp = str(path), stamp_file(path)
    if (source, stamp) in held.images:
        held.images.remove((source, stamp))
        return False
    stamps[source] = stamp
    return True


def _to_shard(chunks: list[Chunk], stamps: dict[str, str]) -> Shard:
    """The chunks as one shard; their stamps are not needed again."""
    sources = [str(source) for chunk in chunks for source in chunk.sources]
    failed = [str(source) for chunk in chunks for source, _ in chunk.errors]
    taken = {source: stamps.pop(source) for source in (*sources, *failed)}
    return Shard(
        np.concatenate([chunk.vectors for chunk in chunks]), sources, [taken[source] for source in sources], failed
    )
