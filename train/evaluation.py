"""What the embeddings are like, measured on the same images from before the first step to the end."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch

from ..evaluate.intervals import bootstrap_interval
from ..evaluate.knn import Hits, Labels, knn_classes
from ..evaluate.rank import embedding_std, rank_me
from ..models.network import InferenceNetwork, embed_pixels
from ..runtime.interval import Interval
from ..runtime.preprocessing import Pixels, Preprocessing
from ..runtime.reading import read_images
from .dataset import ImageDataset, Labeled

MOST_BANK = 5000
MOST_BANK_BYTES = 256 * 2**20


@dataclass(frozen=True)
class Figures:
    """See runtime/run.py, Metrics."""

    rank: float
    embedding_std: float
    knn: float | None = None
    knn_gain: Interval | None = None


class Evaluation(Protocol):
    """What the loop measures the network with, after each epoch and before the first."""

    def measure(self, network: InferenceNetwork, with_knn: bool) -> Figures:
        """Embeds images with the backbone as it is now, batch norms in their inference mode."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """What it takes to compare with the network's start after a run was resumed: tensors by name."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


@dataclass(frozen=True)
class LabeledPixels:
    """Prepared images uint8 `[N, H, W, 3]` and their classes `[N]`."""

    images: Pixels
    labels: Labels


class EmbeddingEvaluation:
    """Rank and deviation on `images`; kNN accuracy of `queries` by `bank` where classes are known.

    The accuracy that is measured first, before training, is what later ones are compared with, query by query.
    """

    def __init__(self, images: Pixels, bank: LabeledPixels | None = None, queries: LabeledPixels | None = None) -> None:
        self.images, self.bank, self.queries = images, bank, queries
        self._start: Hits | None = None

    def measure(self, network: InferenceNetwork, with_knn: bool) -> Figures:
        training = network.backbone.training
        network.backbone.eval()
        embeddings = embed_pixels(network, self.images)
        hits = self._measure_hits(network) if with_knn else None
        network.backbone.train(training)
        rank, spread = rank_me(embeddings), embedding_std(embeddings)
        if hits is None:
            return Figures(rank, spread)
        self._start = hits if self._start is None else self._start
        return Figures(rank, spread, float(hits.mean()), bootstrap_interval(hits - self._start))

    def state_dict(self) -> dict[str, Any]:
        return {} if self._start is None else {"start": torch.from_numpy(self._start)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._start = state["start"].numpy() if "start" in state else None

    def _measure_hits(self, network: InferenceNetwork) -> Hits | None:
        if self.bank is None or self.queries is None:
            return None
        bank, queries = (embed_pixels(network, part.images) for part in (self.bank, self.queries))
        return (knn_classes(bank, self.bank.labels, queries) == self.queries.labels).astype(np.float64)


def prepare_evaluation(
    images: Pixels, dataset: ImageDataset, preprocessing: Preprocessing, seed: int
) -> EmbeddingEvaluation:
    """Reads the labeled images of a run, of the bank at most 5,000 or 256 MiB, drawn with the seed."""
    if dataset.bank is None or dataset.queries is None:
        return EmbeddingEvaluation(images)
    most = min(MOST_BANK, MOST_BANK_BYTES // (3 * preprocessing.image_size**2))
    drawn = np.random.default_rng(seed).permutation(len(dataset.bank.paths))[:most]
    bank = Labeled([dataset.bank.paths[index] for index in drawn], dataset.bank.labels[drawn])
    return EmbeddingEvaluation(images, _read(bank, preprocessing), _read(dataset.queries, preprocessing))


def _read(labeled: Labeled, preprocessing: Preprocessing) -> LabeledPixels | None:
    read = read_images(labeled.paths, preprocessing)  # training names the unreadable ones
    return LabeledPixels(read.pixels, labeled.labels[read.rows]) if read.rows else None
