"""Several encoders on a user's own images: embedded, judged with and without classes, paired, timed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..runtime.encoder import find_problem
from ..runtime.errors import EngineError, ImageError, UsageError
from ..runtime.fidelity import Vectors, cosines
from ..runtime.images import find_images, folder_labels, read_labels
from ..runtime.preprocessing import Pixels, Preprocessing
from ..runtime.progress import Progress, report_progress
from ..runtime.reading import BATCH_SIZE
from ..runtime.timing import draw_noise, time_calls
from .candidates import Candidate, open_candidates
from .comparison import CONSISTENCY, FEW_LABELS, KNN, Compared, Comparison
from .embedding import embed_images
from .few_labels import add_labels, are_few, average_precision, can_choose
from .intervals import bootstrap_interval
from .label_free import draw_views, measure_consistency
from .scorer import FIGURES, Figure, find_known, measure_hits

Values = NDArray[np.float64]


@dataclass(frozen=True)
class EmbeddedByAll:
    """Images that all candidates could be given: their places in the list, their paths, and vectors `[N, D]` by name.

    `unreadable`: one message per image that was left out for all.
    """

    rows: list[int]
    paths: list[Path]
    vectors: dict[str, Vectors]
    unreadable: tuple[str, ...]


def compare_encoders(sources: Sequence[str], data: str | Path, *, labels: str | Path | None = None) -> Comparison:
    """Embeds the images under `data` with each encoder, compares them, and times each on this machine.

    `sources`: "raw", or a bundle, an .onnx file of one, a run, or a start such as "imagenet". `labels`: a CSV file of
    classes; otherwise the sub-folders are. Logs progress, and images that cannot be read. Raises BundleError,
    ImageError, EngineError, RunError, UsageError.

        print(compare_encoders(["raw", "imagenet", "bundles/photos"], "photos/test").advice)
    """
    paths = find_images(data)
    classes = read_labels(labels, paths, data) if labels else folder_labels(paths, data)
    candidates = open_candidates(sources)
    if len(candidates) < 2:
        raise UsageError(f"{' '.join(sources) or 'no source'} alone: give something to compare it with, such as raw")
    return add_timings(compare_candidates(candidates, paths, classes), candidates)


def compare_candidates(
    candidates: Sequence[Candidate],
    paths: Sequence[Path],
    classes: Sequence[str | None] | None = None,
    figures: Sequence[Figure] = FIGURES,
) -> Comparison:
    """Two or more encoders on the same images, paired by image.

    `classes`: one per image, None where it is not known. `figures`: accuracies to measure, 5-NN among them, where there
    are classes; a handful of labels, fewer than the images, decides and measures none. Raises ImageError if fewer than
    two images can be read, EngineError if vectors are not usable.
    """
    embedded = embed_candidates(candidates, paths)
    for name, its in embedded.vectors.items():
        check_vectors(name, its)
    return compare_vectors(candidates, embedded, classes, figures)


def check_vectors(name: str, vectors: Vectors) -> None:
    """Raises EngineError, naming the encoder, where its vectors cannot be compared."""
    if problem := find_problem(vectors):
        raise EngineError(f"{name} gives {problem}, which cannot be compared")


def compare_vectors(
    candidates: Sequence[Candidate],
    embedded: EmbeddedByAll,
    classes: Sequence[str | None] | None = None,
    figures: Sequence[Figure] = FIGURES,
) -> Comparison:
    """The same of images that were embedded already; `classes`: one per image that was given, read or not."""
    vectors, rows = embedded.vectors, embedded.rows
    free = _judge_without_labels(candidates, embedded.paths)
    known = find_known([classes[row] for row in rows]) if classes else None
    figure, hits, deciding = CONSISTENCY, {}, free
    if known and len(known[0]) < len(rows) and are_few(known[1]) and can_choose(known[1]):
        precisions = {name: average_precision(vectors[name][known[0]], known[1]) for name in free}
        figure, deciding = FEW_LABELS, {name: add_labels(free[name], its) for name, its in precisions.items()}
    elif known:
        hits = {name: measure_hits(figures, vectors[name][known[0]], known[1]) for name in free}
        figure, deciding = KNN, {name: its[KNN] for name, its in hits.items()}
    gaps = _find_gaps(deciding)
    return Comparison(
        images=len(rows),
        classes=int(known[1].max()) + 1 if known else 0,
        figure=figure,
        judged=len(known[0]) if known else len(free[candidates[0].name]),
        encoders=tuple(
            Compared(
                name=each.name,
                engine=each.engine,
                image_size=each.preprocessing.image_size,
                embedding_size=vectors[each.name].shape[1],
                consistency=bootstrap_interval(free[each.name]),
                accuracy={name: bootstrap_interval(its) for name, its in hits.get(each.name, {}).items()},
                deciding=bootstrap_interval(deciding[each.name]),
                gap=bootstrap_interval(gaps[each.name]) if each.name in gaps else None,
                size=each.size,
                fidelity=float(cosines(vectors[each.original], vectors[each.name]).mean()) if each.original else None,
            )
            for each in candidates
        ),
        unreadable=embedded.unreadable,
    )


def add_timings(comparison: Comparison, candidates: Sequence[Candidate]) -> Comparison:
    """The same with milliseconds per image, one at a time, all encoders in turn, for about a second each."""
    timed = [each for each in candidates if each.size is not None]
    calls = [partial(each.run, draw_noise(each.preprocessing.image_size)) for each in timed]
    timings = dict(zip([each.name for each in timed], time_calls(calls), strict=True))
    encoders = tuple(replace(each, timing=timings.get(each.name)) for each in comparison.encoders)
    return replace(comparison, encoders=encoders)


def embed_candidates(candidates: Sequence[Candidate], paths: Sequence[Path]) -> EmbeddedByAll:
    """Embeds images with each candidate; those that share their preprocessing are given the same pixels, read once.

    Raises ImageError if fewer than two images can be read.
    """
    rows = list(range(len(paths)))
    vectors: dict[str, Vectors] = {}
    unreadable: list[str] = []
    for preprocessing, group in _by_preprocessing(candidates):
        networks = [each.run for each in group]
        found, read, errors = embed_images(networks, [paths[row] for row in rows], preprocessing, "comparing")
        unreadable += errors
        if len(read) < 2:
            first = f"; the first that cannot be read: {unreadable[0]}" if unreadable else ""
            raise ImageError(f"it takes two images to compare encoders, here {len(read)} of {len(paths)} can be{first}")
        vectors = {name: its[read] for name, its in vectors.items()}
        vectors |= {each.name: its for each, its in zip(group, found, strict=True)}
        rows = [rows[place] for place in read]
    return EmbeddedByAll(rows, [paths[row] for row in rows], vectors, tuple(unreadable))


def _judge_without_labels(candidates: Sequence[Candidate], paths: Sequence[Path]) -> dict[str, Values]:
    """View consistency of each encoder, by its name, image by image."""
    values: dict[str, Values] = {}
    for preprocessing, group in _by_preprocessing(candidates):
        views = draw_views(paths, preprocessing)
        for each in group:
            values[each.name] = measure_consistency(partial(_run, each), views)
            done, total = (len(several) * len(views.whole) for several in (values, candidates))
            report_progress(Progress("other views", done, total))
    return values


def _run(candidate: Candidate, pixels: Pixels) -> Vectors:
    """A few images at a time, since an engine's memory grows with them."""
    return np.concatenate([candidate.run(pixels[at : at + BATCH_SIZE]) for at in range(0, len(pixels), BATCH_SIZE)])


def _by_preprocessing(candidates: Sequence[Candidate]) -> Iterator[tuple[Preprocessing, list[Candidate]]]:
    """Encoders that are given the same pixels, which are then prepared once."""
    for preprocessing in dict.fromkeys(each.preprocessing for each in candidates):
        yield preprocessing, [each for each in candidates if each.preprocessing == preprocessing]


def _find_gaps(deciding: Mapping[str, Values]) -> dict[str, Values]:
    """Differences to the best encoder, image by image, of all others by name; of equals, the first is the best."""
    best = max(deciding, key=lambda name: deciding[name].mean())
    return {name: its - deciding[best] for name, its in deciding.items() if name != best}
