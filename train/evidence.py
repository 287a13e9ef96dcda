"""Evidence: what the embeddings are like, measured on the same images from before the first step to the end."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..models.network import InferenceNetwork, embed_pixels
from ..runtime.cpus import available_cpus
from ..runtime.errors import ImageError
from ..runtime.fidelity import Vectors
from ..runtime.preprocessing import Pixels, Preprocessing, prepare
from .sets import ImageSet, Labeled

MOST_BANK = 5000
MOST_BANK_BYTES = 256 * 2**20
NEIGHBORS, TEMPERATURE = 200, 0.1


@dataclass(frozen=True)
class LabeledPixels:
    """Prepared images uint8 `[N, H, W, 3]` and their classes `[N]`."""

    images: Pixels
    labels: NDArray[np.intp]


@dataclass(frozen=True)
class Probe:
    """What is measured on: `images` always, `bank` and `queries` where classes are known."""

    images: Pixels
    bank: LabeledPixels | None
    queries: LabeledPixels | None


@dataclass(frozen=True)
class Evidence:
    """`rank`: RankMe, 1 to D. `embedding_std`: standard deviation times √D, 0 to 1. `knn`: accuracy, or None."""

    rank: float
    embedding_std: float
    knn: float | None


def prepare_probe(images: Pixels, sets: ImageSet, preprocessing: Preprocessing, seed: int) -> Probe:
    """Prepares the labeled images of a run, of the bank at most 5,000 or 256 MiB, drawn with the seed."""
    if sets.bank is None or sets.queries is None:
        return Probe(images, None, None)
    most = min(MOST_BANK, MOST_BANK_BYTES // (3 * preprocessing.image_size**2))
    drawn = np.random.default_rng(seed).permutation(len(sets.bank.paths))[:most]
    bank = Labeled([sets.bank.paths[index] for index in drawn], sets.bank.labels[drawn])
    return Probe(images, _prepare(bank, preprocessing), _prepare(sets.queries, preprocessing))


def _prepare(labeled: Labeled, preprocessing: Preprocessing) -> LabeledPixels | None:
    def attempt(path: object) -> Pixels | None:
        try:
            return prepare(path, preprocessing)  # type: ignore[arg-type]
        except ImageError:  # training names it
            return None

    with ThreadPoolExecutor(available_cpus()) as pool:
        images = list(pool.map(attempt, labeled.paths))
    readable = [index for index, image in enumerate(images) if image is not None]
    if not readable:
        return None
    return LabeledPixels(np.stack([images[index] for index in readable]), labeled.labels[readable])  # type: ignore[arg-type]


def measure(network: InferenceNetwork, probe: Probe, with_knn: bool) -> Evidence:
    """Embeds the probe with the backbone as it is now, batch norms in their inference mode."""
    training = network.backbone.training
    network.backbone.eval()
    embeddings = embed_pixels(network, probe.images)
    knn = None
    if with_knn and probe.bank is not None and probe.queries is not None:
        bank, queries = (embed_pixels(network, part.images) for part in (probe.bank, probe.queries))
        knn = float((knn_classes(bank, probe.bank.labels, queries) == probe.queries.labels).mean())
    network.backbone.train(training)
    return Evidence(rank_me(embeddings), embedding_std(embeddings), knn)


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


def knn_classes(bank: Vectors, labels: NDArray[np.intp], queries: Vectors) -> NDArray[np.intp]:
    """The class of each query by its 200 nearest of the bank, each voting with exp(cosine / 0.1). Rows of unit length.

    The protocol of Wu et al. 2018 (arXiv 1805.01978, section 3.4). In a bank with fewer than 200 images a class, as
    many vote as a class has on average, or the larger classes would always win.
    """
    classes = int(labels.max()) + 1
    neighbors = max(1, min(NEIGHBORS, len(bank) // classes))
    found = np.empty(len(queries), np.intp)
    for start in range(0, len(queries), 256):  # a block at a time: the whole matrix may not fit
        cosines = queries[start : start + 256] @ bank.T
        nearest = np.argpartition(-cosines, neighbors - 1, axis=1)[:, :neighbors]
        weights = np.exp(np.take_along_axis(cosines, nearest, 1) / TEMPERATURE)
        votes = np.stack([(weights * (labels[nearest] == label)).sum(1) for label in range(classes)], 1)
        found[start : start + 256] = votes.argmax(1)
    return found
