"""Scores: what a set of embeddings is worth by the classes of its images, all sets on the same images and folds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..runtime.fidelity import Vectors
from .accuracy import FOLDS, MOST_FOR_PROBE, Verification, draw_rows, probe_hits, verify
from .intervals import Interval, bootstrap_interval
from .knn import Hits, Labels, knn_hits


@dataclass(frozen=True)
class Accuracy:
    """What embeddings are worth. `knn`: leave-one-out 5-NN; `probe`: a linear probe's, None with too few a class.

    `*_change`: the difference to PyTorch's, image by image, with its 95 % interval; None for PyTorch's own.
    """

    knn: float
    probe: float | None
    verification: Verification
    knn_change: Interval | None = None
    probe_change: Interval | None = None


@dataclass(frozen=True)
class Scorer:
    """`rows`: the images of known class, `labels` theirs; `probed`: places in `rows` for the linear probe, maybe none.

    `*_hits` and `accuracy` are PyTorch's.
    """

    rows: Labels
    labels: Labels
    probed: Labels
    knn_hits: Hits
    probe_hits: Hits
    accuracy: Accuracy

    @property
    def classes(self) -> int:
        return int(self.labels.max()) + 1

    def score(self, vectors: Vectors) -> Accuracy:
        """Figures of embeddings `[N, D]`, compared with PyTorch's image by image."""
        known = np.nan_to_num(vectors[self.rows])
        knn = knn_hits(known, self.labels)
        probe = _probe(known, self.labels, self.probed)
        probed = len(self.probed) > 0
        return Accuracy(
            float(knn.mean()),
            float(probe.mean()) if probed else None,
            verify(known, self.labels, self.accuracy.verification.threshold),
            bootstrap_interval(knn - self.knn_hits),
            bootstrap_interval(probe - self.probe_hits) if probed else None,
        )


def make_scorer(of_pytorch: Vectors, names: Sequence[str | None] | None) -> Scorer | None:
    """A scorer for embeddings of the same images as PyTorch's `[N, D]`; `names`: their classes, None where unknown.

    None without two classes, or without two images of one.
    """
    rows = np.array([row for row, name in enumerate(names or []) if name is not None], np.intp)
    classes, labels = np.unique([str(name) for name in names or [] if name is not None], return_inverse=True)
    if len(classes) < 2 or len(rows) == len(classes):
        return None
    known = of_pytorch[rows]
    drawn = draw_rows(len(rows), MOST_FOR_PROBE)
    probed = drawn if np.bincount(labels[drawn]).min() >= FOLDS else drawn[:0]
    knn, probe = knn_hits(known, labels), _probe(known, labels, probed)
    accuracy = Accuracy(float(knn.mean()), float(probe.mean()) if len(probe) else None, verify(known, labels))
    return Scorer(rows, labels, probed, knn, probe, accuracy)


def _probe(known: Vectors, labels: Labels, probed: Labels) -> Hits:
    return probe_hits(known[probed], labels[probed]) if len(probed) else np.zeros(0)
