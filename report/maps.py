"""Maps of a set: its vectors in two dimensions."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..evaluate.accuracy import draw_rows
from ..runtime.fidelity import Vectors, unit_rows
from .findings import Map

# If there are more images, so many of them are on the map: t-SNE takes 20 seconds for these on two cores.
MOST_IMAGES = 10_000
# t-SNE sees the vectors' first principal components, which takes a fraction of the time (van der Maaten and Hinton
# 2008, section 4.1, take 30).
COMPONENTS = 50
# Beyond so many images, half the iterations: a map of 10,000 then has a divergence of 2.28 instead of 2.15.
MANY, ITERATIONS = 2000, (1000, 500)
# With fewer, there is no neighborhood to keep.
LEAST_FOR_TSNE = 10
# What equal images differ by, computed in float32: no map is made of it.
NOISE = 1e-5


def draw_maps(vectors: Vectors) -> tuple[Map, ...]:
    """t-SNE, which keeps neighbors together, and the first two principal components, which keep distances."""
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    rows = draw_rows(len(vectors), MOST_IMAGES)
    unit = unit_rows(vectors[rows])
    count = min(COMPONENTS, *unit.shape)
    with np.errstate(invalid="ignore"):  # of equal vectors, nothing varies
        components = PCA(count, svd_solver="randomized", random_state=0).fit_transform(unit)
    maps = [_make_map("PCA", rows, components, np.ptp(components[:, :2], axis=0).max())]
    if len(rows) >= LEAST_FOR_TSNE and components.shape[1] > 1 and components.std() > NOISE:
        iterations = ITERATIONS[len(rows) > MANY]
        tsne = TSNE(init="pca", perplexity=min(30, len(rows) / 4), max_iter=iterations, random_state=0, n_jobs=-1)
        flat = tsne.fit_transform(components)
        maps.insert(0, _make_map("t-SNE", rows, flat, np.ptp(flat, axis=0)))  # whose distances mean little
    return tuple(maps)


def _make_map(method: str, rows: NDArray[np.intp], components: Vectors, span: NDArray[np.float32]) -> Map:
    """The first two components, or one, in the middle of the unit square, scaled so that `span` fills it."""
    flat = np.zeros((len(rows), 2))
    flat[:, : components.shape[1]] = components[:, :2]
    places = 0.5 + (flat - (flat.min(0) + flat.max(0)) / 2) / np.maximum(span, 100 * NOISE)
    return Map(method, tuple(rows.tolist()), tuple((round(x, 4), round(y, 4)) for x, y in places.tolist()))
