"""What a handful of labels, such as five images per class, adds to the label-free figure.

That few are too few to measure an accuracy, but they help to choose: half of what decides is view consistency, half is
how well the labeled images find those of their own class. Labels that choose measure nothing that is printed.
"""

from __future__ import annotations

import numpy as np

from ..runtime.fidelity import Vectors, unit_rows
from .knn import Hits, Labels

# With fewer images per class than this, on average, labels are a handful: sub-folders are hardly classes then.
LEAST_PER_CLASS = 10


def are_few(labels: Labels) -> bool:
    """Whether labels `[N]` are too few to measure an accuracy."""
    return len(labels) < LEAST_PER_CLASS * len(np.unique(labels))


def can_choose(labels: Labels) -> bool:
    """Whether labels `[N]` say anything: it takes two classes with two images each."""
    return int((np.unique(labels, return_counts=True)[1] >= 2).sum()) >= 2


def average_precision(vectors: Vectors, labels: Labels) -> Hits:
    """How well each image `[N, D]` finds those of its class among all others by cosine: one value for each, 0 to 1.

    The mean, over the images of its class, of the share of its class among all that are as near (Manning et al.,
    Introduction to Information Retrieval, section 8.4). An image that is alone in its class has none, and is left out.
    """
    unit = unit_rows(np.nan_to_num(vectors))
    cosines = unit @ unit.T
    np.fill_diagonal(cosines, -np.inf)
    order = np.argsort(-cosines, axis=1, kind="stable")[:, :-1]
    same = labels[order] == labels[:, None]
    share = np.cumsum(same, axis=1) / np.arange(1, len(labels))
    own = same.sum(1)
    return (share * same).sum(1)[own > 0] / own[own > 0]


def add_labels(consistency: Hits, precision: Hits) -> Hits:
    """Values of both kinds of images, view consistency's and average precision's, whose mean is the mean of both means.

    The difference of two encoders' values is a paired one.
    """
    total = len(consistency) + len(precision)
    return np.concatenate([each * (total / len(each) / 2) for each in (consistency, precision)])
