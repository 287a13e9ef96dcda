"""Accuracy of nearest neighbors by cosine: one vote, and the protocols that use it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..runtime.fidelity import Vectors, nearest, unit_rows

Hits = NDArray[np.float64]
Labels = NDArray[np.intp]

# The protocol of Wu et al. 2018 (arXiv 1805.01978, section 3.4).
NEIGHBORS, TEMPERATURE = 200, 0.1
# Queries at a time: the whole matrix of cosines may not fit.
BLOCK = 256


def knn_hits(vectors: Vectors, labels: Labels, neighbors: int = 5) -> Hits:
    """Leave-one-out k-NN: 1 for each row `[N, D]` whose class the majority of its nearest rows gives, else 0.

    A tie goes to the class, among the tied, of the nearest row.
    """
    found = nearest(vectors, min(neighbors, len(vectors) - 1))
    return (vote(labels[found], np.ones(found.shape)) == labels).astype(np.float64)


def bank_hits(bank: Vectors, labels: Labels, queries: Vectors, classes: Labels, neighbors: int = 5) -> Hits:
    """k-NN: 1 for each query `[N, D]` whose class the majority of its nearest rows of the bank gives, else 0.

    A tie goes as in knn_hits. Rows of unit length.
    """
    hits = np.empty(len(queries))
    for start in range(0, len(queries), BLOCK):
        cosines = queries[start : start + BLOCK] @ bank.T
        found = labels[np.argsort(-cosines, axis=1, kind="stable")[:, :neighbors]]
        hits[start : start + BLOCK] = vote(found, np.ones(found.shape)) == classes[start : start + BLOCK]
    return hits


def few_shot_hits(vectors: Vectors, labels: Labels, shots: int, draws: int, seed: int) -> Hits:
    """Accuracy of 1-NN from `shots` labeled rows per class, all others classified: one value per draw.

    The draws are the same for all vectors of the same labels.
    """
    unit = unit_rows(vectors)
    rng = np.random.default_rng(seed)
    rows = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    accuracies = np.empty(draws)
    for draw in range(draws):
        support = np.concatenate([rng.choice(each, shots, replace=False) for each in rows])
        query = np.setdiff1d(np.arange(len(labels)), support)
        found = labels[support][(unit[query] @ unit[support].T).argmax(1)]
        accuracies[draw] = (found == labels[query]).mean()
    return accuracies


def knn_classes(bank: Vectors, labels: Labels, queries: Vectors) -> Labels:
    """The class of each query by its 200 nearest of the bank, each voting with exp(cosine / 0.1). Rows of unit length.

    In a bank with fewer than 200 images per class, as many vote as a class has on average, or the larger classes would
    always win.
    """
    neighbors = _count_neighbors(labels)
    found = np.empty(len(queries), np.intp)
    for start in range(0, len(queries), BLOCK):
        cosines = queries[start : start + BLOCK] @ bank.T
        found[start : start + BLOCK] = _classes_of_nearest(cosines, labels, neighbors)
    return found


def leave_one_out_classes(vectors: Vectors, labels: Labels) -> Labels:
    """The class of each of two or more rows by the others, which vote as in knn_classes."""
    neighbors = min(_count_neighbors(labels), len(vectors) - 1)
    found = np.empty(len(vectors), np.intp)
    for start in range(0, len(vectors), BLOCK):
        cosines = vectors[start : start + BLOCK] @ vectors.T
        np.fill_diagonal(cosines[:, start:], -np.inf)
        found[start : start + BLOCK] = _classes_of_nearest(cosines, labels, neighbors)
    return found


def _count_neighbors(labels: Labels) -> int:
    return max(1, min(NEIGHBORS, len(labels) // (int(labels.max()) + 1)))


def _classes_of_nearest(cosines: Vectors, labels: Labels, neighbors: int) -> Labels:
    """The class of each query by its nearest of the bank; `cosines` `[queries, bank]`."""
    near = np.argpartition(-cosines, neighbors - 1, axis=1)[:, :neighbors]
    near = np.take_along_axis(near, np.argsort(-np.take_along_axis(cosines, near, 1), axis=1), 1)
    return vote(labels[near], np.exp(np.take_along_axis(cosines, near, 1) / TEMPERATURE))


def vote(classes: Labels, weights: NDArray[np.floating]) -> Labels:
    """The class of each row of neighbors `[N, k]`, nearest first, whose `weights` `[N, k]` add up to most.

    A tie goes to the class, among the tied, of the nearest neighbor.
    """
    count = int(classes.max()) + 1
    sums = np.stack([(weights * (classes == each)).sum(1) for each in range(count)], 1)
    of_neighbors = np.take_along_axis(sums, classes, 1)
    return classes[np.arange(len(classes)), of_neighbors.argmax(1)]  # argmax takes the first, so the nearest, of equals
