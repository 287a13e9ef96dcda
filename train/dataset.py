"""The images of a run: those it trains on, and, where classes are known, those that say what it has learned.

A handful of labels chooses the network, more of them measure it: never both.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..evaluate.few_labels import LEAST_PER_CLASS, are_few, can_choose
from ..runtime.errors import ImageError
from ..runtime.images import find_images, folder_labels, read_labels

log = logging.getLogger(__name__)

MOST_QUERIES = 1000

Names = list[str | None]


@dataclass(frozen=True)
class Sources:
    """Where images and their classes come from: a folder, a CSV file of classes, a folder to measure kNN accuracy on.

    None of `images` is "where the run's are".
    """

    images: Path | None
    labels: Path | None = None
    evaluation: Path | None = None


@dataclass(frozen=True)
class Labeled:
    """Images of known class; `labels` `[N]` count from 0."""

    paths: list[Path]
    labels: NDArray[np.intp]


@dataclass(frozen=True)
class ImageDataset:
    """`paths` are trained on; `bank`, some or all of them, and `queries`, none of them, measure kNN accuracy.

    Without a bank, each query is classified by the other queries. `validation`: a handful of others of known class,
    which help to choose the network.
    """

    root: Path
    paths: list[Path]
    bank: Labeled | None = None
    queries: Labeled | None = None
    validation: Labeled | None = None

    @property
    def classes(self) -> int:
        labeled = self.bank or self.queries
        return len(set(labeled.labels.tolist())) if labeled else 0


def find_dataset(root: Path, labels: Path | None, evaluation: Path | None, seed: int) -> ImageDataset:
    """The images under `root`, with classes by sub-folder or by the CSV file `labels`.

    The queries are the images under `evaluation`, one folder per class, else a tenth of the labeled images, drawn with
    the seed and kept from training, at most 1,000. If `labels` names fewer than ten images per class, these are for
    validation, kept from training too, and measure nothing. Raises ImageError.
    """
    queried = [] if evaluation is None else find_images(evaluation)
    kept_back = {path.resolve() for path in queried}
    paths = find_images(root)
    if kept_back:
        paths = [path for path in paths if path.resolve() not in kept_back]
    names = _class_names(root, paths, labels)
    known = None if names is None else _labeled(paths, names)
    few = known is not None and are_few(known.labels)
    validation = None
    if few and labels is not None:
        assert known is not None and names is not None
        _check_few(known, len(paths), labels)
        validation = known
        paths, names = [path for path, name in zip(paths, names, strict=True) if name is None], None
    if evaluation is not None:
        found = _with_queries(root, paths, names, labels, queried, evaluation)
    elif names is None or few:
        if few and labels is None:
            log.info(f"folders of {root} hold fewer than {LEAST_PER_CLASS} images on average: no kNN is measured")
        found = ImageDataset(root, paths)
    else:
        found = _hold_out(root, paths, names, seed)
    return replace(found, validation=validation)


def _check_few(known: Labeled, images: int, labels: Path) -> None:
    """Raises ImageError if the classes of a handful of labeled images say nothing."""
    if not can_choose(known.labels):
        count = f"{len(known.paths)} of {images} images"
        raise ImageError(f"{labels}: labels {count}; label two or more of each of two classes or more")


def _hold_out(root: Path, paths: list[Path], names: Names, seed: int) -> ImageDataset:
    """The set with a tenth of the labeled images as its queries."""
    known = [index for index, name in enumerate(names) if name is not None]
    drawn = np.random.default_rng(seed).permutation(known)
    held_out = set(drawn[: min(MOST_QUERIES, len(known) // 10)].tolist())
    classes = _number(names)
    kept = [index for index in range(len(paths)) if index not in held_out]
    bank, queries = (
        _labeled([paths[index] for index in part], [names[index] for index in part], classes)
        for part in (kept, sorted(held_out))
    )
    return ImageDataset(root, [paths[index] for index in kept], bank, queries)


def _with_queries(
    root: Path, paths: list[Path], names: Names | None, labels: Path | None, queried: list[Path], evaluation: Path
) -> ImageDataset:
    """The set with the images `queried` of a folder of their own, one folder per class."""
    query_names = folder_labels(queried, evaluation)
    if query_names is None:
        raise ImageError("{evaluation}: does not hold one folder per class", evaluation=evaluation)
    if names is None or (labels is None and not set(names) & set(query_names)):  # its folders are other things
        return _with_queries_alone(root, paths, queried, query_names, evaluation)
    classes = _number(names)
    unknown = sorted(set(query_names) - classes.keys())
    if unknown:
        raise ImageError(f"{{evaluation}}: no training image is of class {unknown[0]!r}", evaluation=evaluation)
    bank, queries = _labeled(paths, names), _labeled(queried, list(query_names), classes)
    return ImageDataset(root, paths, bank, queries)


def _with_queries_alone(
    root: Path, paths: list[Path], queried: list[Path], query_names: list[str], evaluation: Path
) -> ImageDataset:
    """The set of images of unknown class, with queries that are classified by one another."""
    classes = _number(list(query_names))
    if len(queried) < 2 * len(classes):
        few = f"{len(queried)} images of {len(classes)} classes are too few to compare with one another"
        raise ImageError(f"{{evaluation}}: {few}; take two or more per class", evaluation=evaluation)
    return ImageDataset(root, paths, queries=_labeled(queried, list(query_names), classes))


def _class_names(root: Path, paths: list[Path], labels: Path | None) -> Names | None:
    if labels is not None:
        return read_labels(labels, paths, root)
    names = folder_labels(paths, root) if root.is_dir() else None
    return None if names is None else list(names)


def _number(names: Names) -> dict[str, int]:
    return {name: number for number, name in enumerate(sorted({name for name in names if name is not None}))}


def _labeled(paths: list[Path], names: Names, classes: dict[str, int] | None = None) -> Labeled:
    """The images whose class is known; `classes`: how they are numbered, if not by themselves."""
    numbers = classes or _number(names)
    known = [(path, numbers[name]) for path, name in zip(paths, names, strict=True) if name is not None]
    return Labeled([path for path, _ in known], np.array([label for _, label in known], np.intp))
