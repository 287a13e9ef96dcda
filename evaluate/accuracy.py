"""What embeddings are worth where labels are known, beside nearest neighbors: a linear probe, and verification."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..runtime.fidelity import Vectors, unit_rows
from .knn import Hits, Labels

# A class with fewer images has none in some folds of the linear probe.
FOLDS = 5
# Images to fit linear probes on, and to pair up; if there are more, this many are drawn.
MOST_FOR_PROBE, MOST_FOR_PAIRS = 4000, 1500
FALSE_MATCHES = 0.01


def probe_hits(vectors: Vectors, labels: Labels) -> Hits:
    """Linear probe: 1 for each row whose class a ridge regression on the other four fifths gives, else 0.

    The rows (4,000 at most) and folds are the same for all vectors of the same labels. Empty if a class has fewer than
    5 rows. A logistic regression is no more accurate here (0.441 instead of 0.449, and 0.476 instead of 0.481, on 372
    photographs). It either stops early, so that embeddings which differ by 1e-7 have accuracies which differ by 0.008,
    or takes minutes.
    """
    from sklearn.linear_model import RidgeClassifier
    from sklearn.model_selection import StratifiedKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    drawn = draw_rows(len(labels), MOST_FOR_PROBE)
    vectors, labels = vectors[drawn], labels[drawn]
    if np.bincount(labels).min() < FOLDS:
        return np.zeros(0)
    model = make_pipeline(StandardScaler(), RidgeClassifier(alpha=100))
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=0)
    found = np.asarray(cross_val_predict(model, vectors, labels, cv=folds))
    return (found == labels).astype(np.float64)


@dataclass(frozen=True)
class Verification:
    """Telling pairs of one class from pairs of two by their cosine.

    `auc`: the probability that a pair of one class is closer than a pair of two. `false_matches`: share of the pairs of
    two classes at or above the threshold. `misses`: share of the pairs of one class below it.
    """

    auc: float
    threshold: float
    false_matches: float
    misses: float


def verify(vectors: Vectors, labels: Labels, threshold: float | None = None) -> Verification:
    """How well a cosine, and one threshold on it, tell pairs of one class from pairs of two. Needs both kinds.

    Without a threshold: at the cosine that 1% of the pairs of two classes reach.
    """
    from sklearn.metrics import roc_auc_score

    drawn = _draw_for_pairs(labels)
    unit = unit_rows(vectors[drawn])
    first, second = np.triu_indices(len(drawn), 1)
    cosines, same = (unit @ unit.T)[first, second], labels[drawn][first] == labels[drawn][second]
    if threshold is None:
        threshold = float(np.quantile(cosines[~same], 1 - FALSE_MATCHES))
    return Verification(
        float(roc_auc_score(same, cosines)),
        threshold,
        float((cosines[~same] >= threshold).mean()),
        float((cosines[same] < threshold).mean()),
    )


def _draw_for_pairs(labels: Labels) -> NDArray[np.intp]:
    """All rows, or 1,500, drawn two by two from each class in turn, so that there are pairs of both kinds."""
    if len(labels) <= MOST_FOR_PAIRS:
        return np.arange(len(labels))
    shuffled = np.random.default_rng(0).permutation(len(labels))
    by_class = shuffled[np.argsort(labels[shuffled], kind="stable")]
    sizes = np.bincount(labels)
    turn = np.concatenate([np.arange(size) for size in sizes]) // 2
    return np.sort(by_class[np.argsort(turn, kind="stable")][:MOST_FOR_PAIRS])


def draw_rows(count: int, most: int) -> NDArray[np.intp]:
    """Indices of all rows, or of `most` of them, always the same."""
    return np.arange(count) if count <= most else np.sort(np.random.default_rng(0).choice(count, most, replace=False))
