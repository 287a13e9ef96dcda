"""What embeddings are worth where labels are known: nearest neighbours, no training."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..runtime.fidelity import Vectors, nearest

Hits = NDArray[np.float64]


@dataclass(frozen=True)
class Interval:
    """A mean and its 95 % interval."""

    mean: float
    lower: float
    upper: float


def knn_hits(vectors: Vectors, labels: NDArray[np.intp], neighbours: int = 5) -> Hits:
    """Leave-one-out k-NN by cosine: 1 for each row whose class the majority of its nearest rows gives, else 0.

    A tie goes to the class, among the tied, of the nearest row.
    """
    votes = labels[nearest(vectors, min(neighbours, len(vectors) - 1))]
    counts = (votes[:, :, None] == votes[:, None, :]).sum(2)
    winners = votes[np.arange(len(votes)), counts.argmax(1)]  # argmax takes the first, so the nearest, of equals
    return (winners == labels).astype(np.float64)


def few_shot_hits(vectors: Vectors, labels: NDArray[np.intp], shots: int, draws: int, seed: int) -> Hits:
    """Accuracy of 1-NN by cosine from `shots` labelled rows a class, all others classified: one value a draw."""
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True).clip(1e-12)
    random = np.random.default_rng(seed)
    rows = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    accuracies = np.empty(draws)
    for draw in range(draws):
        support = np.concatenate([random.choice(each, shots, replace=False) for each in rows])
        query = np.setdiff1d(np.arange(len(labels)), support)
        found = labels[support][(unit[query] @ unit[support].T).argmax(1)]
        accuracies[draw] = (found == labels[query]).mean()
    return accuracies


def mean_interval(values: Hits) -> Interval:
    """Mean of independent values, with ±1.96 standard errors. Differences of paired values make a paired interval."""
    half = 1.96 * float(values.std(ddof=1)) / len(values) ** 0.5 if len(values) > 1 else float("nan")
    mean = float(values.mean())
    return Interval(mean, mean - half, mean + half)
