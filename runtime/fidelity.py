"""How close a variant's embeddings are to PyTorch's, and how close they have to be.

Every comparison in this project (export, validate, self-test, demo) is made here, with numpy only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

Vectors = NDArray[np.float32]

NEIGHBORS = 10
# The pairs of this many rows are enough for a rank correlation; with more, it takes long.
MOST_FOR_CORRELATION = 1000
# With fewer images, the ten nearest of a row are most of the set, and their overlap says nothing.
LEAST_FOR_OVERLAP = 50
# Feature maps are compared on so many images: each map holds a vector for every place.
MAP_IMAGES = 32


@dataclass(frozen=True)
class Fidelity:
    """Figures of N embeddings against their reference.

    `cosine_*`: true cosines, both norms divided out, as mean, 1st percentile and minimum over the rows. `angle_mean`:
    mean angle in degrees. `max_error`: largest absolute difference in any component. `overlap`: share of each row's ten
    nearest rows (by cosine) that both have in common, averaged. `rank_correlation`: Spearman's, between the cosines of
    all pairs of rows (of the first 1,000). `norm_error`: largest |norm − 1| of any row. Overlap and correlation are
    None for fewer than 50 images. NaN in any row makes the figures NaN, and a NaN passes no gate.
    """

    images: int
    cosine_mean: float
    cosine_p01: float
    cosine_min: float
    angle_mean: float
    max_error: float
    overlap: float | None
    rank_correlation: float | None
    norm_error: float

    def to_json(self) -> dict[str, Any]:
        """For a manifest: rounded, so that the last bits of a sum do not change a file."""
        return {name: value if value is None else round(value, 7) for name, value in asdict(self).items()}


def compare(reference: Vectors, vectors: Vectors) -> Fidelity:
    """Fidelity of `vectors` `[N, D]` to `reference` `[N, D]`, N ≥ 1. Raises ValueError if the shapes differ."""
    if reference.shape != vectors.shape:
        raise ValueError(f"embeddings of shape {vectors.shape} against a reference of shape {reference.shape}")
    cosine = cosines(reference, vectors)
    enough = len(vectors) >= LEAST_FOR_OVERLAP
    return Fidelity(
        images=len(vectors),
        cosine_mean=float(cosine.mean()),
        cosine_p01=float(np.percentile(cosine, 1)),
        cosine_min=float(cosine.min()),
        angle_mean=float(np.degrees(np.arccos(cosine.clip(-1, 1))).mean()),
        max_error=float(np.abs(reference - vectors).max()),
        overlap=neighbor_overlap(reference, vectors) if enough else None,
        rank_correlation=pair_correlation(reference, vectors) if enough else None,
        norm_error=float(np.abs(np.linalg.norm(vectors.astype(np.float64), axis=1) - 1).max()),
    )


@dataclass(frozen=True)
class MapFidelity:
    """How well a feature map of N images agrees with its reference: see agreement. Mean and minimum over the images."""

    images: int
    agreement_mean: float
    agreement_min: float

    def to_json(self) -> dict[str, Any]:
        """For a manifest, rounded."""
        return {name: round(value, 7) for name, value in asdict(self).items()}


def compare_maps(reference: NDArray[np.float32], maps: NDArray[np.float32]) -> MapFidelity:
    """Fidelity of `maps` `[N, C, H, W]` to `reference`, N ≥ 1. Raises ValueError if the shapes differ."""
    if reference.shape != maps.shape:
        raise ValueError(f"maps of shape {maps.shape} against a reference of shape {reference.shape}")
    agreements = [agreement(x, y) for x, y in zip(reference, maps, strict=True)]
    return MapFidelity(len(maps), float(np.mean(agreements)), float(np.min(agreements)))


def agreement(x: NDArray[np.float32], y: NDArray[np.float32]) -> float:
    """1 − ‖x − y‖² / (‖x‖² + ‖y‖²) of two maps `[C, H, W]`: 1 where they are equal, NaN where one holds a NaN.

    It is the cosine of the two, each flattened, if they are of one length, and less if not: what is done with the
    vectors at a map's places is to measure distances between them, which grow with their lengths.
    """
    a, b = x.astype(np.float64), y.astype(np.float64)
    lengths = float(np.square(a).sum() + np.square(b).sum())
    return 1 - float(np.square(a - b).sum()) / lengths if lengths else 1.0


def cosines(a: Vectors, b: Vectors) -> NDArray[np.float64]:
    """Cosine of each row of `a` with the same row of `b`, `[N]`; NaN where a row is zero.

    A dot product would do for rows of unit length, but would hide those that are not.
    """
    a64, b64 = a.astype(np.float64), b.astype(np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        return (a64 * b64).sum(1) / (np.linalg.norm(a64, axis=1) * np.linalg.norm(b64, axis=1))


def neighbor_overlap(a: Vectors, b: Vectors, neighbors: int = NEIGHBORS) -> float:
    """Share of each row's nearest rows that are the same in `a` and `b`, averaged, 0 to 1; NaN if a row is NaN."""
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        return float("nan")
    nearest_a, nearest_b = nearest(a, neighbors), nearest(b, neighbors)
    shared = [len(np.intersect1d(one, other)) for one, other in zip(nearest_a, nearest_b, strict=True)]
    return float(np.mean(shared) / neighbors)


def pair_correlation(a: Vectors, b: Vectors) -> float:
    """Spearman's rank correlation between the cosines of all pairs of rows in `a` and in `b`; NaN if a row is NaN."""
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        return float("nan")
    ranks = []
    for vectors in (a[:MOST_FOR_CORRELATION], b[:MOST_FOR_CORRELATION]):
        unit = unit_rows(vectors)
        pairs = (unit @ unit.T)[np.triu_indices(len(unit), 1)]
        ranks.append(np.argsort(np.argsort(pairs, kind="stable"), kind="stable").astype(np.float64))
    return float(np.corrcoef(*ranks)[0, 1])


def unit_rows(vectors: Vectors) -> Vectors:
    """Each row scaled to unit length; a row of zeros stays zero."""
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True).clip(1e-12)


def nearest(vectors: Vectors, neighbors: int, rows: NDArray[np.intp] | None = None) -> NDArray[np.intp]:
    """For each row, or each of `rows`, indices of the rows with the highest cosine, itself left out, nearest first:
    `[N, neighbors]`."""
    unit = unit_rows(vectors)
    found, rows = [], np.arange(len(unit)) if rows is None else rows
    for start in range(0, len(rows), 1024):  # in blocks: N × N does not fit for a large folder
        block = rows[start : start + 1024]
        similarity = unit[block] @ unit.T
        similarity[np.arange(len(block)), block] = -np.inf
        # Only the nearest are sorted, which takes a tenth of the time; of equals, the first row is the nearer.
        some = np.sort(np.argpartition(-similarity, neighbors - 1, axis=1)[:, :neighbors])
        order = np.argsort(-np.take_along_axis(similarity, some, 1), axis=1, kind="stable")
        found.append(np.take_along_axis(some, order, 1))
    return np.concatenate(found)


@dataclass(frozen=True)
class Gate:
    """A bound on one figure of Fidelity, or of MapFidelity."""

    figure: str
    limit: float
    at_least: bool

    def holds(self, fidelity: Fidelity | MapFidelity) -> bool:
        value = getattr(fidelity, self.figure)
        if value is None:  # not measured, on too few images
            return True
        return value >= self.limit if self.at_least else value <= self.limit


UNIT_LENGTH = Gate("norm_error", 1e-3, at_least=False)

GATES: dict[str, tuple[Gate, ...]] = {
    "fp32": (Gate("cosine_min", 0.99999, True), Gate("max_error", 1e-4, False), UNIT_LENGTH),
    "fp16": (Gate("cosine_min", 0.999, True), UNIT_LENGTH),
    "int8": (Gate("cosine_mean", 0.99, True), Gate("overlap", 0.90, True), UNIT_LENGTH),
}

# Of each feature map.
MAP_GATES: dict[str, tuple[Gate, ...]] = {
    "fp32": (Gate("agreement_min", 0.99999, True),),
    "fp16": (Gate("agreement_min", 0.999, True),),
    "int8": (Gate("agreement_mean", 0.99, True),),
}


def choose_gates(precision: str, min_cosine: float | None = None, min_overlap: float | None = None) -> tuple[Gate, ...]:
    """The gates of a precision, with other limits for its cosine (mean or lowest, whichever it has) and overlap."""
    changed = [
        replace(gate, limit=min_cosine) if min_cosine is not None and gate.figure.startswith("cosine") else gate
        for gate in GATES[precision]
        if min_overlap is None or gate.figure != "overlap"
    ]
    return (*changed, Gate("overlap", min_overlap, True)) if min_overlap is not None else tuple(changed)


# How far two CPUs or engines may be apart with the same variant: the lowest cosine between what they give for an image.
# Rounding in INT8 flips a few last bits; a wrong kernel or a wrong file changes much more.
OWN_COSINE = {"fp32": 0.99999, "fp16": 0.999, "int8": 0.99}

_NAMES = {
    "cosine_mean": "mean cosine to PyTorch",
    "cosine_min": "lowest cosine to PyTorch",
    "max_error": "largest error",
    "overlap": f"overlap of the {NEIGHBORS} nearest",
    "norm_error": "deviation from unit length",
    "agreement_mean": "mean agreement with PyTorch",
    "agreement_min": "lowest agreement with PyTorch",
}


def failed_gates(fidelity: Fidelity | MapFidelity, gates: Sequence[Gate]) -> list[str]:
    """What a variant falls short of: one phrase per gate that it misses."""
    failed = [gate for gate in gates if not gate.holds(fidelity)]
    return [
        f"{_NAMES[gate.figure]} {_format_missed(getattr(fidelity, gate.figure), gate)}, "
        f"needs {'≥' if gate.at_least else '≤'} {gate.limit:g}"
        for gate in failed
    ]


def failed_map_gates(maps: Mapping[str, MapFidelity], precision: str) -> list[str]:
    """The same of the feature maps of a variant, by their names."""
    return [f"{name}: {failure}" for name, each in maps.items() for failure in failed_gates(each, MAP_GATES[precision])]


def unmeasured_gates(fidelity: Fidelity, gates: Sequence[Gate]) -> list[str]:
    """What could not be measured, and so was not judged: one phrase per gate."""
    unmeasured = [gate.figure for gate in gates if getattr(fidelity, gate.figure) is None]
    return [f"{_NAMES[figure]} (it takes {LEAST_FOR_OVERLAP} images, not {fidelity.images})" for figure in unmeasured]


def _format_missed(value: float, gate: Gate) -> str:
    """With enough digits to show that it misses."""
    text = f"{value:.6f}" if gate.at_least else f"{value:.3g}"
    return str(value) if float(text) == gate.limit else text
