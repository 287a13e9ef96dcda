"""Stored vectors, decoded: what a file of them shows of the images that it was made of."""

from __future__ import annotations

from pathlib import Path

from ..runtime.encoder import find_problem
from ..runtime.errors import OutputExistsError, UsageError, VectorError
from ..runtime.fidelity import Vectors
from ..runtime.text import count, to_text
from ..runtime.vectors import load_vectors
from .decoder_file import load_decoder
from .sheets import MOST_VECTORS, draw_vectors, save_sheet


def decode_vectors(decoded: str | Path, vectors: str | Path, out: str | Path, *, overwrite: bool = False) -> int:
    """Draws the images that a decoder makes of a file of vectors, of the first 64 of more; returns how many it drew.

    `decoded`: a folder that `decode` wrote. `out`: a .png file. Raises OutputExistsError, UsageError for another
    suffix, ByolEdgeError for a file that cannot be read, VectorError for vectors that are not of the decoder's encoder.
    """
    out = Path(out)
    if out.suffix.lower() != ".png":
        raise UsageError("{out}: the picture is written as .png; name the file so", out=out)
    if out.exists() and not overwrite:
        raise OutputExistsError(
            "{out} exists already; choose another place, or replace it: {overwrite}", out=out, overwrite=True
        )
    kept, content = load_decoder(Path(decoded)), load_vectors(vectors)
    kept.check(vectors, content)
    shown = content.vectors[:MOST_VECTORS]
    _check(vectors, shown, kept.decoder.embedding_size)
    title = (
        f"{len(shown)} of {count(len(content.sources), 'vector')} of {to_text(str(vectors))}, decoded at "
        f"{kept.decoder.side} px by the decoder in {to_text(str(decoded))}, without reading an image."
    )
    save_sheet(draw_vectors(title, kept.decoder.decode(shown), content.sources), out)
    return len(shown)


def _check(file: str | Path, vectors: Vectors, size: int) -> None:
    """Raises VectorError for vectors that no encoder gave."""
    if not len(vectors):
        raise VectorError(f"{file}: holds no vectors")
    if vectors.shape[1] != size:
        raise VectorError(f"{file}: vectors of {vectors.shape[1]} numbers, where the decoder takes {size}")
    if problem := find_problem(vectors):
        raise VectorError(f"{file}: holds {problem}; embed the images again")
