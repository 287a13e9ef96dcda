"""Scores: what embeddings are worth by the classes of their images, each set compared with PyTorch's image by image."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ..runtime.fidelity import Vectors
from .accuracy import Verification, probe_hits, verify
from .intervals import Interval, bootstrap_interval
from .knn import Hits, Labels, knn_hits


@dataclass(frozen=True)
class Figure:
    """An accuracy. `hits`: from embeddings `[N, D]` and classes `[N]` to what is right, 0 to 1, per image or per draw.

    The images and draws are the same for all embeddings of the same classes. Empty where the classes are too small.
    """

    name: str
    title: str
    hits: Callable[[Vectors, Labels], Hits]


# What `validate` measures. A new figure is one entry.
FIGURES = (Figure("knn", "5-NN", knn_hits), Figure("probe", "probe", probe_hits))


@dataclass(frozen=True)
class Score:
    """A figure. `change`: its paired difference to PyTorch's, None for PyTorch's own. Both with 95% intervals."""

    value: Interval
    change: Interval | None


@dataclass(frozen=True)
class Accuracy:
    """What embeddings are worth. `scores`: by the figure's name; without those that the classes are too small for."""

    scores: dict[str, Score]
    verification: Verification

    def to_json(self) -> dict[str, Any]:
        """With all figures of `validate`, None where they were not measured."""
        scores = {each.name: self.scores.get(each.name) for each in FIGURES}
        changes = {name: score.change if score else None for name, score in scores.items()}
        return {
            **{name: score.value.mean if score else None for name, score in scores.items()},
            "verification": asdict(self.verification),
            **{f"{name}_change": asdict(change) if change else None for name, change in changes.items()},
        }


@dataclass(frozen=True)
class Scorer:
    """`rows`: the images of known class, `labels` theirs. `hits` (by the figure's name) and `accuracy`: PyTorch's."""

    figures: Sequence[Figure]
    rows: Labels
    labels: Labels
    hits: dict[str, Hits]
    accuracy: Accuracy

    @property
    def classes(self) -> int:
        return int(self.labels.max()) + 1

    def score(self, vectors: Vectors) -> Accuracy:
        """Figures of embeddings `[N, D]`, compared with PyTorch's image by image."""
        known = np.nan_to_num(vectors[self.rows])
        hits = measure_hits(self.figures, known, self.labels)
        scores = {
            name: Score(bootstrap_interval(its), bootstrap_interval(its - self.hits[name]))
            for name, its in hits.items()
        }
        return Accuracy(scores, verify(known, self.labels, self.accuracy.verification.threshold))


def make_scorer(
    of_pytorch: Vectors, names: Sequence[str | None] | None, figures: Sequence[Figure] = FIGURES
) -> Scorer | None:
    """A scorer for embeddings of the same images as PyTorch's `[N, D]`; `names`: their classes, None where unknown.

    None without two classes, or without two images of one.
    """
    found = find_known(names)
    if found is None:
        return None
    rows, labels = found
    known = of_pytorch[rows]
    hits = measure_hits(figures, known, labels)
    scores = {name: Score(bootstrap_interval(its), None) for name, its in hits.items()}
    return Scorer(figures, rows, labels, hits, Accuracy(scores, verify(known, labels)))


def find_known(names: Sequence[str | None] | None) -> tuple[Labels, Labels] | None:
    """The places of the images whose class is known, and these classes, from 0; None without two classes, or without
    two images of one."""
    rows = np.array([row for row, name in enumerate(names or []) if name is not None], np.intp)
    classes, labels = np.unique([str(name) for name in names or [] if name is not None], return_inverse=True)
    return (rows, labels) if len(classes) >= 2 and len(rows) > len(classes) else None


def measure_hits(figures: Sequence[Figure], vectors: Vectors, labels: Labels) -> dict[str, Hits]:
    """What is right, by the figure's name, of embeddings `[N, D]` of known classes; without figures that need more."""
    hits = {each.name: each.hits(vectors, labels) for each in figures}
    return {name: its for name, its in hits.items() if len(its)}
