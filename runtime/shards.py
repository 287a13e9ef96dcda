"""A long embedding, kept in pieces as it goes, so that a kill or a full disk costs a few seconds and not the night.

The pieces of F lie in the folder F.parts, each renamed into place when it is whole; at the end they are joined into F.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .encoder import Encoder
from .errors import ByolEdgeError, ImageError, OutputExistsError
from .fidelity import Vectors
from .files import FolderKind, check_output, load_arrays, to_json, whole_file
from .stream import Chunk
from .vectors import VectorFile, check_format, load_names, write_vectors

# A piece is whole batches: of about so many images, or of so many seconds on a slow device.
PIECE = 1024
SECONDS = 10.0
MARKER = "parts.json"
PARTS = FolderKind("half-done embedding", MARKER, (MARKER, "*.npz"))


@dataclass(frozen=True)
class Piece:
    """Vectors float32 `[N, D]` of N `sources`, `stamps`: what the files were then; `failed`: sources without any."""

    vectors: Vectors
    sources: list[str]
    stamps: list[str]
    failed: list[str]


@dataclass(frozen=True)
class Embedded:
    """What was written: how many vectors, and why each of the others is missing: `path: why`."""

    count: int
    errors: list[str]


def check_free(out: Path, resume: bool, overwrite: bool) -> None:
    """Raises UsageError or OutputExistsError if `out` cannot be written, or must not without a word from the user."""
    check_format(out)
    parts = parts_of(out)
    if out.is_dir():
        raise OutputExistsError(f"{out} is a folder; choose another --out")
    check_output(parts, True, PARTS)
    if resume or overwrite:
        return
    if out.exists():
        raise OutputExistsError(f"{out} exists already; choose another --out, or replace it with --overwrite")
    if (parts / MARKER).exists():
        raise OutputExistsError(f"{parts} is unfinished: go on with --resume, or begin again with --overwrite")


def is_finished(out: Path) -> bool:
    """Whether `out` is there and nothing is left to be joined into it."""
    return out.is_file() and not (parts_of(out) / MARKER).exists()


def count_missing(out: Path, model: str, paths: list[Path]) -> int:
    """How many images a finished file does not hold. Raises ByolEdgeError if its vectors are of another model."""
    sources, made_by = load_names(out)
    _check_model(out, made_by, model)
    return len({str(path) for path in paths} - set(sources))


def discard_pieces(out: Path) -> None:
    """Deletes what an earlier embedding left. Raises ByolEdgeError if it is still at work."""
    parts = parts_of(out)
    if (parts / MARKER).exists():
        with _hold(parts):
            _delete(parts)


def parts_of(out: Path) -> Path:
    return out.with_name(f"{out.name}.parts")


def embed_files(
    encoder: Encoder,
    paths: list[Path],
    out: Path,
    batch_size: int,
    watch: Callable[[int, list[str]], None],
    strict: bool = False,
) -> Embedded:
    """Embeds what no piece of `out` holds yet, and joins the pieces into `out`.

    `watch` is told, batch by batch, how many images are done, and why some of these could not be read. The file is the
    same, byte for byte, however often it was interrupted; an image that was replaced meanwhile is embedded again, and
    one that could not be read is tried again, last. Images that cannot be read are left out; with `strict`, nothing is
    written then. Raises ByolEdgeError: also if the pieces are of another model, or another process is at work on them.
    """
    parts = parts_of(out)
    with _hold(parts) as marker:
        _claim(marker, encoder.id)
        stamps = {str(path): _stamp(path) for path in paths}
        errors = _embed_rest(encoder, paths, stamps, parts, batch_size, watch)
        count = sum(len(rows) for _, rows in _find_rows(parts, stamps))
        if not count or (errors and strict):
            if not count:
                _delete(parts)
            hint = "; --resume, without --strict, writes the others" if count else ""
            raise ImageError(f"{len(errors)} of {len(paths)} images cannot be read; {out} was not written{hint}")
        _join(parts, stamps, out, (count, encoder.embedding_size), encoder.id)
        _delete(parts)
    return Embedded(count, errors)


def _embed_rest(
    encoder: Encoder,
    paths: list[Path],
    stamps: dict[str, str],
    parts: Path,
    batch_size: int,
    watch: Callable[[int, list[str]], None],
) -> list[str]:
    """Adds pieces until every image is in one, or failed in this very run: why, is returned."""
    done: set[str] = set()
    failed: set[str] = set()
    for piece, rows in _find_rows(parts, stamps):
        done.update(piece.sources[row] for row in rows)
        failed.update(piece.failed)
    # Those that failed come last, so that the others stand in the same batches as in a run without a stop.
    rest = [path for path in paths if str(path) not in done and str(path) not in failed]
    rest += [path for path in paths if str(path) not in done and str(path) in failed]
    number = max((int(file.stem) for file in _list_pieces(parts)), default=-1) + 1
    finished, errors = len(paths) - len(rest), []
    watch(finished, [])
    group: list[Chunk] = []
    saved = time.monotonic()
    try:
        for chunk in encoder.stream(rest, batch_size):
            group.append(chunk)
            finished += len(chunk.sources) + len(chunk.errors)
            errors += [str(error) for _, error in chunk.errors]
            watch(finished, [str(error) for _, error in chunk.errors])
            is_enough = len(group) * batch_size >= PIECE or time.monotonic() - saved >= SECONDS
            if is_enough or finished == len(paths):
                _save_piece(parts / f"{number:06}.npz", _to_piece(group, stamps))
                number, group, saved = number + 1, [], time.monotonic()
    except KeyboardInterrupt:
        if group:
            _save_piece(parts / f"{number:06}.npz", _to_piece(group, stamps))
        raise
    return errors


def _find_rows(parts: Path, stamps: dict[str, str]) -> Iterator[tuple[Piece, list[int]]]:
    """Each piece, with its rows of images that are still there, and the same as they were."""
    for piece in _read_pieces(parts):
        known = enumerate(zip(piece.sources, piece.stamps, strict=True))
        yield piece, [row for row, (source, stamp) in known if stamps.get(source) == stamp]


def _join(parts: Path, stamps: dict[str, str], out: Path, shape: tuple[int, int], model: str) -> None:
    files = (
        VectorFile(piece.vectors[rows], [piece.sources[row] for row in rows], model)
        for piece, rows in _find_rows(parts, stamps)
        if rows
    )
    write_vectors(out, files, shape, model)


def _stamp(path: Path) -> str:
    """What tells a file from the one that takes its place: when it was written, and its size."""
    try:
        status = path.stat()
    except OSError:  # gone since it was found
        return ""
    return f"{status.st_mtime_ns}:{status.st_size}"


@contextmanager
def _hold(parts: Path) -> Iterator[Path]:
    """Keeps other processes off the folder, which is made if need be; gives its marker. Raises ByolEdgeError."""
    parts.mkdir(parents=True, exist_ok=True)
    marker = parts / MARKER
    busy = ByolEdgeError(f"another `byol-edge embed` is at work on {parts}; wait for it, or choose another --out")
    with marker.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise busy from None
        except OSError:  # a file system without locks
            pass
        if not marker.exists() or not os.path.samestat(marker.stat(), os.fstat(file.fileno())):
            raise busy  # it has just finished, and deleted the folder
        yield marker


def _claim(marker: Path, model: str) -> None:
    """Writes whose pieces these will be, or makes sure that those here are of this model."""
    text = marker.read_text(encoding="utf-8")
    if not text:
        marker.write_text(to_json({"model": model}), encoding="utf-8")
        return
    try:
        made_by = json.loads(text)["model"]
    except (ValueError, KeyError, TypeError) as error:
        raise ByolEdgeError(f"{marker}: damaged ({error}); begin again with --overwrite") from error
    _check_model(marker.parent, made_by, model)


def _check_model(path: Path, made_by: str, model: str) -> None:
    if made_by != model:
        raise ByolEdgeError(
            f"{path} holds vectors of {made_by}, and these would be of {model}: they do not mix; choose another "
            "--out, or begin again with --overwrite"
        )


def _delete(parts: Path) -> None:
    """Deletes the pieces, the last one first and the marker last: whatever a kill leaves can be gone on with."""
    for file in sorted(parts.glob("*.npz"), reverse=True):
        file.unlink()
    (parts / MARKER).unlink()
    with suppress(OSError):  # somebody put something else into it
        parts.rmdir()


def _to_piece(chunks: list[Chunk], stamps: dict[str, str]) -> Piece:
    sources = [str(source) for chunk in chunks for source in chunk.sources]
    return Piece(
        np.concatenate([chunk.vectors for chunk in chunks]),
        sources,
        [stamps[source] for source in sources],
        [str(source) for chunk in chunks for source, _ in chunk.errors],
    )


def _save_piece(file: Path, piece: Piece) -> None:
    sources, stamps, failed = (np.asarray(each, np.str_) for each in (piece.sources, piece.stamps, piece.failed))
    with whole_file(file) as part, part.open("wb") as open_file:
        np.savez(open_file, vectors=piece.vectors, sources=sources, stamps=stamps, failed=failed)


def _list_pieces(parts: Path) -> list[Path]:
    """Whole ones alone: a kill leaves a file with a dot before its name."""
    return sorted(file for file in parts.glob("*.npz") if file.stem.isdigit())


def _read_pieces(parts: Path) -> Iterator[Piece]:
    """One at a time, in the order in which they were made. Raises ByolEdgeError."""
    for file in _list_pieces(parts):
        try:
            arrays = load_arrays(file)
            sources, stamps, failed = ([str(each) for each in arrays[key]] for key in ("sources", "stamps", "failed"))
            if not len(arrays["vectors"]) == len(sources) == len(stamps):
                raise ValueError(f"{len(arrays['vectors'])} vectors of {len(sources)} images")
        except (KeyError, ValueError) as error:
            raise ByolEdgeError(f"{file}: damaged ({error}); delete it, and --resume makes it again") from error
        yield Piece(arrays["vectors"], sources, stamps, failed)
