"""Two files of vectors, compared: what two machines made of the same images."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .errors import ByolEdgeError
from .fidelity import OWN_COSINE, Fidelity, compare, cosines
from .model_file import precision_of
from .vectors import load_vectors


@dataclass(frozen=True)
class VectorComparison:
    """Two files of vectors, matched by source. `worst`: the source with the lowest cosine. `failures`: gates missed."""

    models: tuple[str, str]
    engines: tuple[str, str]
    common: int
    only_first: int
    only_second: int
    fidelity: Fidelity
    worst: str
    failures: tuple[str, ...]


def compare_vector_files(first: Path, second: Path, min_cosine: float | None = None) -> VectorComparison:
    """Compares what two machines made of the same images: the lowest cosine has to be `min_cosine` or more.

    By default that is the precision's own tolerance: 0.99999 for FP32, 0.999 for FP16, 0.99 for INT8. Vectors of two
    models are compared too, and fail. Raises ByolEdgeError if a file is unreadable or the two have no source in common.
    """
    files = [load_vectors(path) for path in (first, second)]
    for path, file in zip((first, second), files, strict=True):
        if len(set(file.sources)) < len(file.sources):
            raise ByolEdgeError(f"{path}: names an image twice, so its vectors cannot be matched")
    named = [file.sources for file in files]
    if not set(named[0]) & set(named[1]):  # two machines keep the same images in different places
        named = [_below_common_folder(sources) for sources in named]
    places = [{source: row for row, source in enumerate(sources)} for sources in named]
    common = [source for source in named[0] if source in places[1]]
    if not common:
        raise ByolEdgeError(
            f"{first} and {second} have no image in common: they name {files[0].sources[:1]} and {files[1].sources[:1]}"
        )
    if files[0].vectors.shape[1] != files[1].vectors.shape[1]:
        sizes = " and ".join(str(file.vectors.shape[1]) for file in files)
        raise ByolEdgeError(f"{first} and {second} hold vectors of {sizes} numbers: they are of two models")
    a, b = (file.vectors[[where[source] for source in common]] for file, where in zip(files, places, strict=True))
    fidelity = compare(a, b)
    worst = common[int(np.nan_to_num(cosines(a, b), nan=-2).argmin())]
    models, engines = (files[0].model, files[1].model), (files[0].engine, files[1].engine)
    failures = []
    if models[0] != models[1]:
        failures.append(f"the vectors are of two models, {models[0]} and {models[1]}, and do not mix")
    limit = least_cosine(models) if min_cosine is None else min_cosine
    if not fidelity.cosine_min >= limit:
        failures.append(f"lowest cosine {fidelity.cosine_min:.6g} ({worst}), needs ≥ {limit:g}")
    missing = [len(file.sources) - len(common) for file in files]
    return VectorComparison(models, engines, len(common), missing[0], missing[1], fidelity, worst, tuple(failures))


def _below_common_folder(sources: list[str]) -> list[str]:
    absolute = [Path(source).absolute() for source in sources]
    folder = os.path.commonpath([source.parent for source in absolute]) if absolute else ""
    return [os.path.relpath(source, folder) for source in absolute]


def least_cosine(models: tuple[str, str]) -> float:
    """The lowest cosine that two devices may give for one image, by the precision of the models."""
    precisions = [precision_of(model) or "fp32" for model in models]
    return min(OWN_COSINE[precision] for precision in precisions)
