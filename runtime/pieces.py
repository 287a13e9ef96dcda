"""A long embedding, kept in pieces as it goes, so that a kill or a full disk costs a few seconds and not the night.

The pieces of F lie in the folder F.parts, each renamed into place when it is whole; at the end they are joined into F.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .encoder import Encoder
from .errors import ByolEdgeError, ImageError, OutputExistsError
from .fidelity import Vectors
from .files import load_arrays, to_json, whole_file, write_text
from .stream import Chunk
from .vectors import VectorFile, check_format, write_vectors

# Images in a piece, or a few more: whole batches.
PIECE = 1024
MARKER = "parts.json"


@dataclass(frozen=True)
class Piece:
    """Vectors float32 `[N, D]` of N `sources`; `failed`: why each of the others could not be read."""

    vectors: Vectors
    sources: list[str]
    failed: dict[str, str]


@dataclass(frozen=True)
class Embedded:
    """What was written: how many vectors, and why each of the others is missing: `path: why`."""

    count: int
    errors: list[str]


def check_free(out: Path, overwrite: bool) -> None:
    """Raises OutputExistsError if `out` is taken, or an earlier embedding of that name was left unfinished."""
    check_format(out)
    if out.is_dir():
        raise OutputExistsError(f"{out} is a folder; choose another --out")
    if out.exists() and not overwrite:
        raise OutputExistsError(f"{out} exists already; choose another --out, or replace it with --overwrite")
    parts = parts_of(out)
    if parts.exists() and not (parts / MARKER).exists() and any(parts.iterdir()):
        raise OutputExistsError(f"{parts} is in the way, and was not made by `byol-edge embed`; choose another --out")
    if parts.exists() and not overwrite:
        raise OutputExistsError(f"{parts} is unfinished: go on with --resume, or begin again with --overwrite")


def is_finished(out: Path) -> bool:
    """Whether `out` is there and nothing is left to be joined into it."""
    return out.is_file() and not parts_of(out).exists()


def discard_pieces(out: Path) -> None:
    """Deletes what an earlier embedding left."""
    if parts_of(out).exists():
        shutil.rmtree(parts_of(out))


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
    same, byte for byte, however often it was interrupted. Images that cannot be read are left out; with `strict`,
    nothing is written then. Raises ByolEdgeError: also if the pieces are of another model.
    """
    parts = parts_of(out)
    number = _claim(parts, encoder.id)
    done = {source for piece in _read_pieces(parts) for source in (*piece.sources, *piece.failed)}
    rest = [path for path in paths if str(path) not in done]
    finished = len(paths) - len(rest)
    watch(finished, [])
    group: list[Chunk] = []
    for chunk in encoder.stream(rest, batch_size):
        group.append(chunk)
        finished += len(chunk.sources) + len(chunk.errors)
        watch(finished, [str(error) for _, error in chunk.errors])
        if len(group) * batch_size >= PIECE or finished == len(paths):
            _save_piece(parts / f"{number:06}.npz", _to_piece(group))
            number += 1
            group = []
    return _join(parts, out, encoder, {str(path) for path in paths}, strict)


def _join(parts: Path, out: Path, encoder: Encoder, wanted: set[str], strict: bool) -> Embedded:
    """Writes `out` from its pieces, without those images that were deleted between two starts, and removes these."""
    count, errors = 0, []
    for piece in _read_pieces(parts):
        count += sum(source in wanted for source in piece.sources)
        errors += [why for source, why in piece.failed.items() if source in wanted]
    if not count or (errors and strict):
        hint = ""
        if count:
            hint = "; --resume, without --strict, writes the others"
        else:
            shutil.rmtree(parts)
        raise ImageError(f"{len(errors)} of {len(wanted)} images cannot be read; {out} was not written{hint}")
    files = (_choose(piece, wanted, encoder.id) for piece in _read_pieces(parts))
    write_vectors(out, files, (count, encoder.embedding_size), encoder.id)
    shutil.rmtree(parts)
    return Embedded(count, errors)


def _choose(piece: Piece, wanted: set[str], model: str) -> VectorFile:
    rows = [row for row, source in enumerate(piece.sources) if source in wanted]
    return VectorFile(piece.vectors[rows], [piece.sources[row] for row in rows], model)


def _claim(parts: Path, model: str) -> int:
    """Makes the folder, or makes sure that its pieces are of this model; returns the next piece's number."""
    marker = parts / MARKER
    if not marker.exists():
        parts.mkdir(parents=True, exist_ok=True)
        write_text(marker, to_json({"model": model}))
    try:
        made_by = json.loads(marker.read_text(encoding="utf-8"))["model"]
    except (ValueError, KeyError, TypeError) as error:
        raise ByolEdgeError(f"{marker}: damaged ({error}); begin again with --overwrite") from error
    if made_by != model:
        raise ByolEdgeError(
            f"{parts} holds vectors of {made_by}, and these would be of {model}: they do not mix; choose another "
            "--out, or begin again with --overwrite"
        )
    return max((int(file.stem) for file in _list_pieces(parts)), default=-1) + 1


def _to_piece(chunks: list[Chunk]) -> Piece:
    return Piece(
        np.concatenate([chunk.vectors for chunk in chunks]),
        [str(source) for chunk in chunks for source in chunk.sources],
        {str(source): str(error) for chunk in chunks for source, error in chunk.errors},
    )


def _save_piece(file: Path, piece: Piece) -> None:
    names = (piece.sources, list(piece.failed), list(piece.failed.values()))
    sources, failed, why = (np.asarray(each, np.str_) for each in names)
    with whole_file(file) as part, part.open("wb") as open_file:
        np.savez(open_file, vectors=piece.vectors, sources=sources, failed=failed, why=why)


def _list_pieces(parts: Path) -> list[Path]:
    """Whole ones alone: a kill leaves a file with a dot before its name."""
    return sorted(file for file in parts.glob("*.npz") if file.stem.isdigit())


def _read_pieces(parts: Path) -> Iterator[Piece]:
    """One at a time, in the order in which they were made. Raises ByolEdgeError."""
    for file in _list_pieces(parts):
        try:
            arrays = load_arrays(file)
            sources, failed, why = ([str(each) for each in arrays[key]] for key in ("sources", "failed", "why"))
            yield Piece(arrays["vectors"], sources, dict(zip(failed, why, strict=True)))
        except (KeyError, ValueError) as error:
            raise ByolEdgeError(f"{file}: damaged ({error}); delete it, and --resume makes it again") from error
