"""A long embedding, kept in shards as it goes, so that a kill or a full disk costs seconds and not the night.

The shards of the file F lie in the folder F.parts, each renamed into place when it is whole, and are joined at the end.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from .errors import ByolEdgeError, ImageError, OutputExistsError, VectorError
from .fidelity import Vectors
from .files import FolderKind, check_output, locked, to_json, whole_file
from .identity import Maker, check_maker
from .progress import Progress, report_progress
from .stream import Chunk, Streamer
from .text import to_text
from .untrusted import MOST_JSON, load_arrays, parse_json, read_bytes
from .vectors import VectorFile, check_format, load_names, write_vectors

log = logging.getLogger(__name__)

# A shard is whole batches: of about this many images, or of this many seconds on a slow device.
SHARD_IMAGES = 1024
SHARD_SECONDS = 10.0
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
class Embedded:
    """What was written: the number of vectors, and a reason for each one that is missing, as `path: why`."""

    count: int
    errors: list[str]


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


def count_missing(out: Path, encoder: Streamer, paths: list[Path]) -> int:
    """How many images a finished file does not hold. Raises VectorError if its vectors are not the encoder's."""
    names = load_names(out)
    check_maker(out, names, encoder)
    return len({to_text(str(path)) for path in paths} - {to_text(source) for source in names.sources})


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
            _delete(folder)


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


def embed_files(encoder: Streamer, paths: list[Path], out: Path, batch_size: int, strict: bool = False) -> Embedded:
    """Embeds the images that no shard of `out` holds yet, and joins the shards into `out`.

    The file is the same, byte for byte, however often it was interrupted. An image that was replaced meanwhile is
    embedded again, and one that could not be read is tried again, last. Images that cannot be read are left out, with a
    warning each; with `strict`, nothing is written then. Raises ByolEdgeError, also if the shards are of another model
    or another process is at work on them.
    """
    folder = shard_folder(out)
    with hold_shards(out) as marker:
        _claim(marker, encoder)
        stamps = {str(path): _stamp(path) for path in paths}
        errors = _embed_rest(encoder, paths, stamps, folder, batch_size)
        count = sum(len(rows) for _, rows in _find_rows(folder, stamps))
        if not count or (errors and strict):
            if not count:
                _delete(folder)
            hint = "; {resume}, without {strict}, writes the others" if count else ""
            text = f"{len(errors)} of {len(paths)} images cannot be read; {out} was not written{hint}"
            raise ImageError(text, resume=True, strict=True)
        _join(folder, stamps, out, (count, encoder.embedding_size), Maker.of(encoder))
        _delete(folder)
    return Embedded(count, errors)


def _embed_rest(
    encoder: Streamer, paths: list[Path], stamps: dict[str, str], folder: Path, batch_size: int
) -> list[str]:
    """Adds shards until every image is in one or could not be read, and returns the reasons for the latter."""
    done: set[str] = set()
    failed: set[str] = set()
    for shard, rows in _find_rows(folder, stamps):
        done.update(shard.sources[row] for row in rows)
        failed.update(shard.failed)
    # Those that failed come last, so that the others are in the same batches as in a run without a stop.
    rest = [path for path in paths if str(path) not in done and str(path) not in failed]
    rest += [path for path in paths if str(path) not in done and str(path) in failed]
    number = max((int(file.stem) for file in _list_shards(folder)), default=-1) + 1
    finished, errors = len(paths) - len(rest), []
    report_progress(Progress("embedding", finished, len(paths)))
    chunks: list[Chunk] = []
    saved = time.monotonic()
    try:
        for chunk in encoder.stream(rest, batch_size):
            chunks.append(chunk)
            finished += len(chunk.sources) + len(chunk.errors)
            for _, error in chunk.errors:
                errors.append(str(error))
                log.warning("left out: %s", error)
            report_progress(Progress("embedding", finished, len(paths)))
            is_enough = len(chunks) * batch_size >= SHARD_IMAGES or time.monotonic() - saved >= SHARD_SECONDS
            if is_enough or finished == len(paths):
                _save_shard(folder / f"{number:06}.npz", _to_shard(chunks, stamps))
                number, chunks, saved = number + 1, [], time.monotonic()
    except KeyboardInterrupt:
        if chunks:
            _save_shard(folder / f"{number:06}.npz", _to_shard(chunks, stamps))
        raise
    return errors


def _find_rows(folder: Path, stamps: dict[str, str]) -> Iterator[tuple[Shard, list[int]]]:
    """Each shard, with its rows of images that are still there and have not changed."""
    for shard in _read_shards(folder):
        known = enumerate(zip(shard.sources, shard.stamps, strict=True))
        yield shard, [row for row, (source, stamp) in known if stamps.get(source) == stamp]


def _join(folder: Path, stamps: dict[str, str], out: Path, shape: tuple[int, int], made_by: Maker) -> None:
    files = (
        VectorFile(shard.vectors[rows], [shard.sources[row] for row in rows], made_by.model, made_by.engine)
        for shard, rows in _find_rows(folder, stamps)
        if rows
    )
    write_vectors(out, files, shape, made_by)


def _stamp(path: Path) -> str:
    """What tells a file from one that takes its place: the time of writing, and the size."""
    try:
        status = path.stat()
    except OSError:  # gone since it was found
        return ""
    return f"{status.st_mtime_ns}:{status.st_size}"


def _claim(marker: Path, encoder: Streamer) -> None:
    """Writes down what the shards are made by, or checks that those already here are the encoder's, on its engine.

    Another engine that agrees would do for a search, but the file would not be the same as without a stop.
    """
    made_by = _read_marker(marker)
    if made_by is None:
        marker.write_text(to_json(asdict(Maker.of(encoder))), encoding="utf-8")
    elif made_by != Maker.of(encoder):
        raise VectorError(
            f"{marker.parent} holds vectors by {made_by.model} on {made_by.engine}, and these would be by {encoder.id} "
            f"on {encoder.engine}: they do not mix; write to another place, or begin again: {{overwrite}}",
            overwrite=True,
        )


def _read_marker(marker: Path) -> Maker | None:
    """None where nothing has been written yet."""
    text = read_bytes(marker, MOST_JSON)
    try:
        return Maker(**parse_json(text)) if text else None
    except (ValueError, TypeError) as error:
        raise ByolEdgeError(f"{marker}: damaged ({error}); begin again: {{overwrite}}", overwrite=True) from error


def _delete(folder: Path) -> None:
    """Deletes the shards, the last one first and the marker last: whatever a kill leaves can be gone on with."""
    for file in sorted(folder.glob("*.npz"), reverse=True):
        file.unlink()
    (folder / MARKER).unlink()
    with suppress(OSError):  # somebody put something else into it
        folder.rmdir()


def _to_shard(chunks: list[Chunk], stamps: dict[str, str]) -> Shard:
    sources = [str(source) for chunk in chunks for source in chunk.sources]
    return Shard(
        np.concatenate([chunk.vectors for chunk in chunks]),
        sources,
        [stamps[source] for source in sources],
        [str(source) for chunk in chunks for source, _ in chunk.errors],
    )


def _save_shard(file: Path, shard: Shard) -> None:
    sources, stamps, failed = (np.asarray(each, np.str_) for each in (shard.sources, shard.stamps, shard.failed))
    with whole_file(file) as part, part.open("wb") as open_file:
        np.savez(open_file, vectors=shard.vectors, sources=sources, stamps=stamps, failed=failed)


def _list_shards(folder: Path) -> list[Path]:
    """Only whole ones: a kill leaves a file with a dot before its name."""
    return sorted(file for file in folder.glob("*.npz") if file.stem.isdigit())


def _read_shards(folder: Path) -> Iterator[Shard]:
    """One at a time, in the order in which they were made. Raises ByolEdgeError."""
    for file in _list_shards(folder):
        try:
            arrays = load_arrays(file)
            sources, stamps, failed = ([str(each) for each in arrays[key]] for key in ("sources", "stamps", "failed"))
            if not len(arrays["vectors"]) == len(sources) == len(stamps):
                raise ValueError(f"{len(arrays['vectors'])} vectors of {len(sources)} images")
        except (KeyError, ValueError) as error:
            text = f"{file}: damaged ({error}); delete it, and {{resume}} makes it again"
            raise ByolEdgeError(text, resume=True) from error
        yield Shard(arrays["vectors"], sources, stamps, failed)
