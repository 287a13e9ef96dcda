"""Images by their vectors: a dozen to ask about, their nearest, near-duplicates, outliers, and what INT8 moves."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from ..runtime.fidelity import NEIGHBORS, Vectors, cosines, nearest, unit_rows
from .findings import Moved, Neighbors, Outlier, Pair, Query

Rows = NDArray[np.intp]

QUERIES = 12
# Images shown of those that INT8 moves most, and of outliers; pairs shown of near-duplicates.
SHOWN = 12
# From these cosines on, by an encoder and by raw pixels, two images are nearly the same. Both have to say so: encoders
# take two photographs of one shirt for the same, and a collapsed one takes all images for it (docs/report.md).
ALIKE, ALIKE_RAW = 0.95, 0.90
# Pairs that are listed: the frames of a film have millions.
MOST_PAIRS = 10_000
BLOCK = 1024
# Vectors that agree so far are those of equal images.
DIGITS = 4


def choose_queries(vectors: Vectors) -> list[int]:
    """A dozen rows that stand for all: the nearest to the center of each of twelve clusters, larger clusters first."""
    from sklearn.cluster import KMeans

    unit, count = unit_rows(vectors), min(QUERIES, len(vectors))
    distinct = len(np.unique(unit.round(DIGITS), axis=0))
    clusters = KMeans(min(count, distinct), random_state=0)
    labels = np.asarray(clusters.fit_predict(unit))
    found = []
    for each in np.argsort(-np.bincount(labels), kind="stable"):
        members = np.flatnonzero(labels == each)
        distances = np.linalg.norm(unit[members] - clusters.cluster_centers_[each], axis=1)
        found.append(int(members[distances.argmin()]))
    return found


def ask(queries: Sequence[int], by: Mapping[str, Vectors]) -> tuple[Query, ...]:
    """The ten nearest of each query, or all others if there are fewer, by each encoder."""
    rows = np.array(queries, np.intp)
    answers = {name: _find_nearest(vectors, rows) for name, vectors in by.items()}
    return tuple(
        Query(query, tuple(Neighbors(name, *_row(*found, place)) for name, found in answers.items()))
        for place, query in enumerate(queries)
    )


def find_moved(reference: Vectors, vectors: Vectors) -> tuple[Moved, ...]:
    """The dozen images whose vectors are farthest from the reference's, farthest first."""
    cosine = cosines(reference, vectors)
    rows = np.argsort(cosine, kind="stable")[:SHOWN]
    (before, _), (after, _) = _find_nearest(reference, rows), _find_nearest(vectors, rows)
    kept = [len(np.intersect1d(one, other)) for one, other in zip(before, after, strict=True)]
    return tuple(
        Moved(int(row), float(cosine[row]), each, before.shape[1]) for row, each in zip(rows, kept, strict=True)
    )


def find_outliers(vectors: Vectors) -> tuple[Outlier, ...]:
    """The dozen images, or a tenth of few, with the lowest mean cosine to their ten nearest, lowest first."""
    _, cosine = _find_nearest(vectors, np.arange(len(vectors)))
    means = cosine.mean(1)
    rows = np.argsort(means, kind="stable")[: min(SHOWN, max(1, len(vectors) // 10))]
    return tuple(Outlier(int(row), float(means[row])) for row in rows)


def find_duplicates(vectors: Vectors, raw: Vectors) -> tuple[tuple[Pair, ...], int]:
    """Pairs of images that are nearly the same, nearest first, 10,000 at most, and how many there are."""
    found, count = np.zeros((0, 3)), 0
    for some in _find_alike(unit_rows(vectors), unit_rows(raw)):
        found, count = np.concatenate([found, some]), count + len(some)
        found = found[np.argsort(-found[:, 2], kind="stable")[:MOST_PAIRS]]
    return tuple(Pair(int(first), int(second), float(cosine)) for first, second, cosine in found), count


def _find_alike(unit: Vectors, raw: Vectors) -> Iterator[NDArray[np.float64]]:
    """Pairs, block by block: `[N, 3]`, the two rows and their cosine."""
    for start in range(0, len(unit), BLOCK):
        cosine = unit[start : start + BLOCK] @ unit[start:].T
        alike = np.triu(cosine >= ALIKE, 1) & (raw[start : start + BLOCK] @ raw[start:].T >= ALIKE_RAW)
        first, second = np.nonzero(alike)
        yield np.stack([start + first, start + second, np.minimum(cosine[first, second], 1)], 1).astype(np.float64)


def _find_nearest(vectors: Vectors, rows: Rows) -> tuple[Rows, NDArray[np.float32]]:
    """The ten nearest of these rows, or all others if there are fewer, and their cosines: `[len(rows), 10]` each."""
    found, unit = nearest(vectors, min(NEIGHBORS, len(vectors) - 1), rows), unit_rows(vectors)
    blocks = range(0, len(rows), BLOCK)  # the neighbors' vectors of all rows take gigabytes
    parts = [np.einsum("nd,nkd->nk", unit[rows[at : at + BLOCK]], unit[found[at : at + BLOCK]]) for at in blocks]
    return found, np.concatenate(parts)


def _row(images: Rows, cosine: NDArray[np.float32], place: int) -> tuple[tuple[int, ...], tuple[float, ...]]:
    return tuple(images[place].tolist()), tuple(cosine[place].tolist())
