"""Files of vectors: what `byol-edge embed` writes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .errors import ByolEdgeError
from .files import load_arrays, whole_file


@dataclass(frozen=True)
class VectorFile:
    """`vectors`: float32 `[N, D]`. `sources`: N names. `model`: the `Encoder.id` that made them."""

    vectors: NDArray[np.float32]
    sources: list[str]
    model: str


def save_vectors(path: str | Path, content: VectorFile) -> None:
    """Writes an .npz (no pickles) whole or not at all."""
    with whole_file(Path(path)) as part, part.open("wb") as file:
        np.savez(
            file,
            vectors=content.vectors,
            sources=np.asarray(content.sources, dtype=np.str_),
            model=np.asarray(content.model),
        )


def load_vectors(path: str | Path) -> VectorFile:
    """Reads a file of vectors. Raises ByolEdgeError, naming the file."""
    try:
        arrays = load_arrays(Path(path))
        vectors, sources = arrays["vectors"], [str(name) for name in arrays["sources"]]
        if vectors.ndim != 2 or len(vectors) != len(sources):
            raise ValueError(f"{vectors.shape} vectors of {len(sources)} sources")
        return VectorFile(vectors, sources, str(arrays["model"]))
    except (KeyError, TypeError, ValueError) as error:
        raise ByolEdgeError(f"{path}: not a file of vectors written by `byol-edge embed` ({error})") from error
