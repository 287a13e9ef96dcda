"""The shards of a long embedding: what lies on the disk while it is at work, and what is left when it was stopped.

The shards of the file F lie in the folder F.parts, each renamed into place when it is whole, and are joined at the end.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import ByolEdgeError, OutputExistsError, VectorError
from .fidelity import Vectors
from .files import FolderKind, check_output, locked, to_json, whole_file
from .identity import Maker, check_maker
from .stream import Streamer
from .text import to_text
from .untrusted import MOST_JSON, load_arrays, parse_json, read_bytes
from .vectors import VectorFile, check_format, load_names, write_vectors

MARKER = "parts.json"
SHARDS = FolderKind("half-done embedding", MARKER, (MARKER, "*.npz"))


@dataclass(frozen=True)
class Shard:
    """Vectors float32 `[N, D]` of N `sources`; `stamps`: what these files were then; `failed`: unreadable sources."""

    vectors: Vectors
    sources: list[str]
    stamps: list[str]
    failed: list[str]


@dataclass(frozen=True)
class Held:
    """What the shards hold: source and stamp of each vector, sources that could not be read; the next one's number."""

    images: set[tuple[str, str]]
    failed: set[str]
    next_number: int


def check_free(out: Path, resume: bool, overwrite: bool) -> None:
    """Raises UsageError or OutputExistsError if `out` cannot be written, or is taken and nobody said what to do."""
    check_format(out)
    folder = shard_folder(out)
    if out.is_dir():
        raise OutputExistsError("{out} is a folder; choose another place", out=out)
    check_output(folder, True, SHARDS)
    if resume or overwrite:
        return
    if out.exists():
        raise OutputExistsError(
            "{out} exists already; choose another place, or replace it: {overwrite}", out=out, overwrite=True
        )
    if (folder / MARKER).exists():
        raise OutputExistsError(
            f"{folder} is unfinished; go on with it: {{resume}}, or begin again: {{overwrite}}",
            resume=True,
            overwrite=True,
        )


def is_finished(out: Path) -> bool:
    """Whether `out` is there and nothing is left to be joined into it."""
    return out.is_file() and not (shard_folder(out) / MARKER).exists()


def count_missing(out: Path, encoder: Streamer, paths: Iterable[Path]) -> int:
    """How many images a finished file does not hold. Raises VectorError if the encoder's vectors do not mix with it."""
    names = load_names(out)
    check_maker(out, names, encoder)
    held = {to_text(source) for source in names.sources}
    return sum(to_text(str(path)) not in held for path in paths)


def find_maker(out: Path) -> Maker | None:
    """What made the vectors that `out`, or else its shards, hold already; None where there are none."""
    if is_finished(out):
        names = load_names(out)
        return Maker(names.model, names.engine)
    marker = shard_folder(out) / MARKER
    return _read_marker(marker) if marker.is_file() else None


def discard_shards(out: Path) -> None:
    """Deletes what an earlier embedding left. Raises ByolEdgeError if it is still at work."""
    folder = shard_folder(out)
    if (folder / MARKER).exists():
        with hold_shards(out):
            delete_shards(folder)


def shard_folder(out: Path) -> Path:
    return out.with_name(f"{out.name}.parts")


@contextmanager
def hold_shards(out: Path) -> Iterator[Path]:
    """Keeps other processes off the folder of shards, which is made if need be; gives its marker file.

    Raises ByolEdgeError if another process holds it.
    """
    folder = shard_folder(out)
    folder.mkdir(parents=True, exist_ok=True)
    busy = ByolEdgeError(
        f"{{out}}: another `byol-edge embed` is at work on {folder}; wait for it, or choose another place", out=out
    )
    with locked(folder / MARKER, busy):
        yield folder / MARKER


def stamp_file(path: Path) -> str:
    """What tells a file from one that takes its place: the time of writing, and the size."""
    try:
        status = path.stat()
    except OSError:  # gone since it was found
        return ""
    return f"{status.st_mtime_ns}:{status.st_size}"


def claim_shards(marker: Path, encoder: Streamer) -> None:
    """Writes down what the shards are made by, or checks that those already here are the encoder's, on its engine.

    Another engine that agrees would do for a search, but the file would not be the same as without a stop.
    """
    made_by, wanted = _read_marker(marker), Maker.of(encoder)
    if made_by is None:
        marker.write_text(to_json(asdict(wanted)), encoding="utf-8")
    elif made_by != wanted:
        raise VectorError(
            f"{marker.parent} holds vectors by {made_by}, and these would be by {wanted}: they do not mix; write to "
            "another place, or begin again: {overwrite}",
            overwrite=True,
        )


def _read_marker(marker: Path) -> Maker | None:
    """None where nothing has been written yet."""
    text = read_bytes(marker, MOST_JSON)
    try:
        return Maker(**parse_json(text)) if text else None
    except (ValueError, TypeError) as error:
        raise ByolEdgeError(f"{marker}: damaged ({error}); begin again: {{overwrite}}", overwrite=True) from error


def read_held(folder: Path) -> Held:
    """What earlier runs left; their vectors stay on the disk. Raises ByolEdgeError."""
    files = _list_shards(folder)
    images: set[tuple[str, str]] = set()
    failed: set[str] = set()
    for file in files:
        with _reading(file):
            arrays = load_arrays(file, ("sources", "stamps", "failed"))
            pairs = _pairs_of(arrays)
            if len(set(pairs)) != len(pairs) or not images.isdisjoint(pairs):
                raise ValueError("it holds an image twice, or one of another shard")
        images.update(pairs)
        failed.update(map(str, arrays["failed"]))
    return Held(images, failed, int(files[-1].stem) + 1 if files else 0)


def save_shard(folder: Path, number: int, shard: Shard) -> None:
    sources, stamps, failed = (np.asarray(each, np.str_) for each in (shard.sources, shard.stamps, shard.failed))
    with whole_file(folder / f"{number:06}.npz") as part, part.open("wb") as open_file:
        np.savez(open_file, vectors=shard.vectors, sources=sources, stamps=stamps, failed=failed)


def join_shards(
    folder: Path, stale: Collection[tuple[str, str]], out: Path, shape: tuple[int, int], made_by: Maker
) -> None:
    """Writes the vectors of all shards, in the order in which they were made, except for images that are stale now.

    `shape`: `[N, D]` of all that are written. Raises ByolEdgeError.
    """
    write_vectors(out, _read_fresh(folder, stale, made_by), shape, made_by)


def _read_fresh(folder: Path, stale: Collection[tuple[str, str]], made_by: Maker) -> Iterator[VectorFile]:
    for file in _list_shards(folder):
        with _reading(file):
            arrays = load_arrays(file)
            pairs = _pairs_of(arrays)
            if len(arrays["vectors"]) != len(pairs):
                raise ValueError(f"{len(arrays['vectors'])} vectors of {len(pairs)} images")
        fresh = [row for row, pair in enumerate(pairs) if pair not in stale]
        if fresh:
            sources = [pairs[row][0] for row in fresh]
            yield VectorFile(arrays["vectors"][fresh], sources, made_by.model, made_by.engine)


def delete_shards(folder: Path) -> None:
    """Deletes the shards, the last one first and the marker last: whatever a kill leaves can be gone on with."""
    for file in sorted(folder.glob("*.npz"), reverse=True):
        file.unlink()
    (folder / MARKER).unlink()
    with suppress(OSError):  # somebody put something else into it
        folder.rmdir()


def _list_shards(folder: Path) -> list[Path]:
    """Only whole ones: a kill leaves a file with a dot before its name."""
    return sorted(file for file in folder.glob("*.npz") if file.stem.isdigit())


def _pairs_of(arrays: dict[str, NDArray[Any]]) -> list[tuple[str, str]]:
    """The source and the stamp of each vector. Raises KeyError or ValueError."""
    return [(str(source), str(stamp)) for source, stamp in zip(arrays["sources"], arrays["stamps"], strict=True)]


@contextmanager
def _reading(file: Path) -> Iterator[None]:
    try:
        yield
    except (KeyError, ValueError) as error:
        raise ByolEdgeError(
            f"{file}: damaged ({error}); delete it, and {{resume}} makes it again", resume=True
        ) from error
