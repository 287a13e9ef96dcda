"""The neighbors of one image in a file of vectors."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .errors import ByolEdgeError, ImageError, UsageError
from .fidelity import Vectors
from .text import to_text
from .vectors import VectorFile


@dataclass(frozen=True)
class Neighbor:
    """An image, by its source, and the cosine of its vector to the query's."""

    source: str
    cosine: float


def find_neighbors(content: VectorFile, query: Vectors, count: int, leave_out: int | None = None) -> list[Neighbor]:
    """The `count` images whose vectors are nearest to `query` `[D]` by cosine, nearest first; fewer if there are fewer.

    `leave_out`: the row of the query itself. Of equals, the first is the nearer. Vectors that are zero or not finite
    are passed over. Raises ByolEdgeError where the query is such a one, or of another size, or no image is left.
    """
    if query.shape != content.vectors.shape[1:]:
        raise ByolEdgeError(f"a vector of {len(query)} numbers, among others of {content.vectors.shape[1]}")
    cosines = _cosines(content.vectors, query)
    if leave_out is not None:
        cosines[leave_out] = np.nan
    usable = int(np.isfinite(cosines).sum())
    if not usable:
        raise ByolEdgeError("there is no other image with a vector that a cosine can be taken of")
    rows = np.argsort(-cosines, kind="stable")[: min(count, usable)]  # NaN is sorted to the end
    return [Neighbor(content.sources[row], float(cosines[row])) for row in rows]


def _cosines(vectors: Vectors, query: Vectors) -> NDArray[np.float32]:
    """Cosines `[N]`; NaN where a vector is zero or not finite."""
    with np.errstate(all="ignore"):
        lengths = np.sqrt(np.einsum("ij,ij->i", vectors, vectors))  # without a second array of that size
        cosines = vectors @ query / (lengths * np.linalg.norm(query))
    return np.where(np.isfinite(cosines), cosines, np.nan).astype(np.float32)


def find_row(sources: Sequence[str], image: str) -> int | None:
    """The row of an image among sources: by its path, however spelled, or by the end of its path, if that is unique.

    None for another image that exists. Raises ImageError if there is none of that name, UsageError if several sources
    end in it.
    """
    names, name = [to_text(source) for source in sources], to_text(image)
    if name in names:
        return names.index(name)
    if Path(image).exists():  # an image of the same name elsewhere is another one
        place = os.path.realpath(image)
        return next((row for row, source in enumerate(sources) if os.path.realpath(source) == place), None)
    end = Path(name).parts
    found = [row for row, each in enumerate(names) if Path(each).parts[-len(end) :] == end]
    if len(found) > 1:
        raise UsageError(f"{image}: {len(found)} images are named so, such as {names[found[0]]}; give more of the path")
    if not found:
        raise ImageError(f"{image}: no such file, and no image with a vector is named so")
    return found[0]
