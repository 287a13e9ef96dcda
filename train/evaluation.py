"""What the embeddings are like, measured on the same images from before the first step to the end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from ..evaluate.few_labels import add_labels, average_precision, can_choose
from ..evaluate.intervals import bootstrap_interval
from ..evaluate.knn import Hits, Labels, knn_classes, leave_one_out_classes
from ..evaluate.label_free import Views, draw_views, measure_consistency
from ..evaluate.rank import embedding_std, rank_me
from ..evaluate.raw import embed_raw
from ..models.network import InferenceNetwork, inference_mode
from ..runtime.errors import RunError
from ..runtime.fidelity import Vectors, cosines, unit_rows
from ..runtime.interval import Interval
from ..runtime.preprocessing import Pixels, Preprocessing
from ..runtime.reading import draw_from, read_images
from .dataset import ImageDataset, Labeled
from .ranks import embed_together

MOST_BANK = 5000
MOST_BANK_BYTES = 256 * 2**20
# Images whose views judge a run: with fewer than the least, those that are held out are left to kNN.
LEAST_TO_JUDGE, MOST_TO_JUDGE = 50, 400
# What the start's and raw pixels' view consistency are called in a checkpoint.
CONSISTENCY, RAW_CONSISTENCY = "consistency", "raw consistency"


@dataclass(frozen=True)
class Figures:
    """See runtime/run.py, Metrics."""

    rank: float
    embedding_std: float
    knn: float | None = None
    knn_gain: Interval | None = None
    knn_raw: float | None = None
    knn_lead: Interval | None = None
    moved: float | None = None


class Evaluation(Protocol):
    """What the loop measures the network with, after each epoch and before the first."""

    def measure(self, network: InferenceNetwork, with_knn: bool) -> Figures:
        """Embeds images with the backbone as it is now, batch norms in their inference mode."""
        ...

    def measure_consistency(self, network: InferenceNetwork) -> Hits:
        """The label-free figure of the network as it is now, image by image (evaluate/label_free.py)."""
        ...

    def score(self, network: InferenceNetwork, consistency: Hits) -> float:
        """What networks are chosen by, given their label-free figure: its mean, and what a handful of labels adds."""
        ...

    def floors(self, consistency: Hits) -> tuple[Hits, Hits]:
        """That of the network before training and of raw pixels, of the same images."""
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
    """Rank and deviation on `images`; kNN accuracy of `queries`, where there are some, by `bank`, else by one another.

    `views`: of images that show, without classes, what an encoder is worth; `validation`: a handful of known class,
    which help to choose a network. What is measured first, before training, is what later networks are compared with:
    image by image, query by query. Where several processes train, each embeds its share; all have to call the same.
    """

    def __init__(
        self,
        images: Pixels,
        views: Views,
        bank: LabeledPixels | None = None,
        queries: LabeledPixels | None = None,
        validation: LabeledPixels | None = None,
    ) -> None:
        self.images, self.views, self.bank, self.queries, self.validation = images, views, bank, queries, validation
        self._start: dict[str, NDArray[Any]] = {}

    def measure(self, network: InferenceNetwork, with_knn: bool) -> Figures:
        with inference_mode(network):
            return self._measure(network, with_knn)

    def _measure(self, network: InferenceNetwork, with_knn: bool) -> Figures:
        embeddings = embed_together(network, self.images)
        if CONSISTENCY not in self._start:
            self._start[CONSISTENCY] = measure_consistency(partial(embed_together, network), self.views)
        start = self._compared_with("embeddings", embeddings)
        figures = Figures(
            rank_me(embeddings), embedding_std(embeddings), moved=float(1 - np.nanmean(cosines(start, embeddings)))
        )
        if with_knn and self.queries is not None:
            hits = _measure_hits(partial(embed_together, network), self.bank, self.queries)
            figures = self._compare(figures, hits, self.queries)
        return figures

    def measure_consistency(self, network: InferenceNetwork) -> Hits:
        """View consistency of the network as it is now, image by image."""
        with inference_mode(network):
            return measure_consistency(partial(embed_together, network), self.views)

    def score(self, network: InferenceNetwork, consistency: Hits) -> float:
        """Mean view consistency; with validation images, the mean of that and of their mean average precision."""
        if self.validation is None:
            return float(consistency.mean())
        with inference_mode(network):
            vectors = embed_together(network, self.validation.images)
        return float(add_labels(consistency, average_precision(vectors, self.validation.labels)).mean())

    def floors(self, consistency: Hits) -> tuple[Hits, Hits]:
        """That of the network before training and of raw pixels. Raises RunError if it was on other images."""
        if RAW_CONSISTENCY not in self._start:
            self._start[RAW_CONSISTENCY] = measure_consistency(embed_raw, self.views)
        return self._compared_with(CONSISTENCY, consistency), self._compared_with(RAW_CONSISTENCY, consistency)

    def _compare(self, figures: Figures, hits: Hits, queries: LabeledPixels) -> Figures:
        start = self._compared_with("hits", hits)
        if "raw" not in self._start:
            self._start["raw"] = _measure_hits(embed_raw, self.bank, queries)
        raw = self._compared_with("raw", hits)
        return replace(
            figures,
            knn=float(hits.mean()),
            knn_gain=bootstrap_interval(hits - start),
            knn_raw=float(raw.mean()),
            knn_lead=bootstrap_interval(hits - raw),
        )

    def _compared_with(self, name: str, now: NDArray[Any]) -> NDArray[Any]:
        """What was measured first under a name, which is `now` if nothing was. Raises RunError if it was on others."""
        start = self._start.setdefault(name, now)
        if start.shape != now.shape or start.dtype != now.dtype:
            was = f"{start.dtype} {list(start.shape)}, now {now.dtype} {list(now.shape)}"
            raise RunError(
                f"{name} were measured on other images before training ({was}): some can be read no more, or again; "
                "put them back, or start again with {overwrite}",
                overwrite=True,
            )
        return start

    def state_dict(self) -> dict[str, Any]:
        return {name: torch.from_numpy(values) for name, values in self._start.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._start = {name: values.numpy() for name, values in state.items()}


def _measure_hits(embed: Callable[[Pixels], Vectors], bank: LabeledPixels | None, queries: LabeledPixels) -> Hits:
    vectors = unit_rows(embed(queries.images))
    if bank is None:
        found = leave_one_out_classes(vectors, queries.labels)
    else:
        found = knn_classes(unit_rows(embed(bank.images)), bank.labels, vectors)
    return (found == queries.labels).astype(np.float64)


def prepare_evaluation(
    images: Pixels, dataset: ImageDataset, preprocessing: Preprocessing, seed: int, mirrored: float = 0.5
) -> EmbeddingEvaluation:
    """Reads the labeled images of a run, of the bank at most 5,000 or 256 MiB, drawn with the seed.

    Views are of images that are not trained on, if there are enough of these, else of training images. `mirrored`: the
    chance that one is a mirror image.
    """
    unseen = [path for each in (dataset.queries, dataset.validation) if each for path in each.paths]
    judged = unseen if len(unseen) >= LEAST_TO_JUDGE else dataset.paths
    views = draw_views(draw_from(judged, preprocessing, MOST_TO_JUDGE, seed).sources, preprocessing, mirrored, seed)
    validation = _read(dataset.validation, preprocessing) if dataset.validation else None
    if validation is not None and not can_choose(validation.labels):  # some could not be read
        validation = None
    if dataset.queries is None:
        return EmbeddingEvaluation(images, views, validation=validation)
    queries = _read(dataset.queries, preprocessing)
    if dataset.bank is None:
        comparable = queries is not None and len(queries.images) > 1
        return EmbeddingEvaluation(images, views, None, queries if comparable else None, validation)
    most = min(MOST_BANK, MOST_BANK_BYTES // (3 * preprocessing.image_size**2))
    drawn = np.random.default_rng(seed).permutation(len(dataset.bank.paths))[:most]
    bank = Labeled([dataset.bank.paths[index] for index in drawn], dataset.bank.labels[drawn])
    return EmbeddingEvaluation(images, views, _read(bank, preprocessing), queries)


def _read(labeled: Labeled, preprocessing: Preprocessing) -> LabeledPixels | None:
    read = read_images(labeled.paths, preprocessing)  # training names the unreadable ones
    return LabeledPixels(read.pixels, labeled.labels[read.rows]) if read.rows else None
