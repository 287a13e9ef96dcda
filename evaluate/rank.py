"""How many dimensions embeddings use, and how far they are spread."""

from __future__ import annotations

import numpy as np

from ..runtime.fidelity import Vectors


def rank_me(embeddings: Vectors) -> float:
    """RankMe, the effective number of dimensions: exp of the entropy of the normalized singular values of `[N, D]`.

    From 1 (all rows lie on a line) to min(N, D). Garrido et al. 2023, arXiv 2210.02885, eq. 1.
    """
    values = np.linalg.svd(embeddings.astype(np.float64), compute_uv=False)
    shares = values / max(values.sum(), 1e-12) + 1e-12
    return float(np.exp(-(shares * np.log(shares)).sum()))


def embedding_std(embeddings: Vectors) -> float:
    """Mean over dimensions of the standard deviation of unit-length rows `[N, D]`, times √D: 0 when all are equal."""
    return float(embeddings.std(0).mean() * embeddings.shape[1] ** 0.5)
