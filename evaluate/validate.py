"""Every variant of a bundle, on every engine, against PyTorch on a user's own images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..models.network import InferenceNetwork, embed_pixels
from ..runtime.bundle import Bundle
from ..runtime.encoder import BATCH_SIZE, Encoder, find_pairs
from ..runtime.errors import ImageError, UsageError
from ..runtime.fidelity import (
    GATES,
    LEAST_FOR_OVERLAP,
    Fidelity,
    Vectors,
    choose_gates,
    compare,
    cosines,
    failed_gates,
)
from ..runtime.golden import PYTORCH, read_golden
from ..runtime.images import find_images, folder_labels, read_labels
from ..runtime.preprocessing import Pixels, prepare
from ..runtime.reading import batched
from ..runtime.self_test import SelfTest
from .diagnosis import find_cause
from .reference import Reference, load_reference, load_untrained
from .scorer import Accuracy, Scorer, make_scorer

# Side of the images that stand for "raw pixels": larger ones are no better a floor, and slow to compare.
RAW_SIDE = 16


@dataclass(frozen=True)
class Limits:
    """Gates that a user sets instead of a precision's own. `max_accuracy_drop`: of 5-NN accuracy, 0 to 1."""

    min_cosine: float | None = None
    min_overlap: float | None = None
    max_accuracy_drop: float | None = None


@dataclass(frozen=True)
class ValidatedVariant:
    """A variant on an engine. `failures`: gates missed, on the images or the golden files; `cause`: the likeliest."""

    name: str
    engine: str
    fidelity: Fidelity
    accuracy: Accuracy | None
    failures: tuple[str, ...]
    cause: str | None


@dataclass(frozen=True)
class Validation:
    """What a validation found. `labeled`: images of known class; without, there are no accuracy and no floors.

    `accuracy`: PyTorch's. `floors`: what is to be beaten.

    `difference`: how the weights given to validate against are not the bundle's. `around`: what is wrong with the
    bundle's weights or this machine's decoders, whatever the variant. `unreadable`: a message an image.
    """

    images: int
    labeled: int
    classes: int
    accuracy: Accuracy | None
    floors: dict[str, Accuracy]
    variants: tuple[ValidatedVariant, ...]
    difference: str
    around: tuple[str, ...]
    unreadable: tuple[str, ...]

    @property
    def failures(self) -> list[str]:
        """A line for all variants that fail alike: their names, figures and the likeliest cause."""
        alike: dict[str, list[str]] = {}
        for each in self.variants:
            if each.failures:
                text = "; ".join(each.failures) + (f". Likely cause: {each.cause}" if each.cause else "")
                alike.setdefault(text, []).append(f"{each.name} ({each.engine})")
        return [*self.around, *(f"{', '.join(names)}: {text}" for text, names in alike.items())]


def validate(
    path: Path,
    data: Path,
    variant: str | None = None,
    labels: Path | None = None,
    against: Path | None = None,
    limits: Limits | None = None,
    step: Callable[[int, int], None] = lambda done, of: None,
) -> Validation:
    """Embeds the images under `data` with PyTorch and with each variant (or with the one named), and compares.

    `labels`: a CSV file of classes, else the sub-folders are. `against`: a run or checkpoint to compare with, in place
    of the bundle's own weights. `step` is told how many images of how many are done. Raises BundleError, ImageError,
    EngineError, RunError, UsageError.
    """
    limits = limits or Limits()
    bundle = Bundle.open(path)
    reference = load_reference(bundle, against)
    encoders = [Encoder(bundle.path, name, engine) for name, engine in find_pairs(bundle, variant)]
    paths = find_images(data)
    names = read_labels(labels, paths, data) if labels else folder_labels(paths, data)
    floors = _floors(bundle) if names else {}
    embedded = _embed_all(bundle, reference.network, floors, encoders, paths, step)
    if not embedded.rows:
        raise ImageError(f"{data}: none of its {len(paths)} images can be read; the first: {embedded.unreadable[0]}")
    known = None if names is None else [names[row] for row in embedded.rows]
    scorer = make_scorer(embedded.of_pytorch, known)
    _check_measurable(limits, len(embedded.rows), scorer)
    tests = [encoder.self_test() for encoder in encoders]
    variants = [
        _judge(bundle, reference, encoder, test, vectors, embedded, scorer, limits)
        for encoder, test, vectors in zip(encoders, tests, embedded.of_variants, strict=True)
    ]
    return Validation(
        images=len(embedded.rows),
        labeled=len(scorer.rows) if scorer else 0,
        classes=scorer.classes if scorer else 0,
        accuracy=scorer.accuracy if scorer else None,
        floors={name: scorer.score(vectors) for name, vectors in embedded.of_floors.items()} if scorer else {},
        variants=tuple(variants),
        difference=reference.difference,
        around=(*([] if against else _check_golden(bundle, reference.network)), *tests[0].decoding),
        unreadable=tuple(embedded.unreadable),
    )


@dataclass(frozen=True)
class Embedded:
    """The readable images (`paths`) as each network sees them, a row an image; `rows`: their places in the list."""

    paths: list[Path]
    rows: list[int]
    unreadable: list[str]
    of_pytorch: Vectors
    of_floors: dict[str, Vectors]
    of_variants: list[Vectors]


def _embed_all(
    bundle: Bundle,
    network: InferenceNetwork,
    floors: dict[str, Callable[[Pixels], Vectors]],
    encoders: list[Encoder],
    paths: list[Path],
    step: Callable[[int, int], None],
) -> Embedded:
    ways = [partial(embed_pixels, network), *floors.values(), *(encoder.run for encoder in encoders)]
    pieces: list[list[Vectors]] = [[] for _ in ways]
    rows: list[int] = []
    unreadable: list[str] = []
    for batch in batched(enumerate(paths), BATCH_SIZE):
        pixels = []
        for row, image in batch:
            try:
                pixels.append(prepare(image, bundle.preprocessing))
                rows.append(row)
            except ImageError as error:
                unreadable.append(str(error))
        if pixels:
            stacked = np.stack(pixels)
            for piece, way in zip(pieces, ways, strict=True):
                piece.append(way(stacked))
        step(len(rows) + len(unreadable), len(paths))
    of_pytorch, *others = [np.concatenate(piece) if piece else np.zeros((0, 0), np.float32) for piece in pieces]
    of_floors = dict(zip(floors, others, strict=False))
    return Embedded([paths[row] for row in rows], rows, unreadable, of_pytorch, of_floors, others[len(floors) :])


def _floors(bundle: Bundle) -> dict[str, Callable[[Pixels], Vectors]]:
    """What an accuracy is to be put beside: embeddings that nothing was learned for."""
    return {"untrained": partial(embed_pixels, load_untrained(bundle)), "raw pixels": _shrink}


def _shrink(pixels: Pixels) -> Vectors:
    """Images as vectors of 16 × 16 pixels, centered on gray: `[N, 768]`."""
    small = [Image.fromarray(each).resize((RAW_SIDE, RAW_SIDE), Image.Resampling.BOX) for each in pixels]
    return np.stack([np.asarray(each, np.float32).ravel() - 127.5 for each in small])


def _judge(
    bundle: Bundle,
    reference: Reference,
    encoder: Encoder,
    test: SelfTest,
    vectors: Vectors,
    embedded: Embedded,
    scorer: Scorer | None,
    limits: Limits,
) -> ValidatedVariant:
    variant = bundle.variants[encoder.variant]
    fidelity = compare(embedded.of_pytorch, vectors)
    failures = failed_gates(fidelity, choose_gates(variant.precision, limits.min_cosine, limits.min_overlap))
    cause = None
    if reference.difference and failures:
        cause = "--against holds other weights than the bundle"
    elif test.moved or failed_gates(fidelity, GATES[variant.precision]):  # a stricter gate needs no cause
        pixels = _prepare_worst(bundle, embedded.paths, cosines(embedded.of_pytorch, vectors))
        cause = find_cause(reference.network, bundle, variant, encoder.run, pixels, bool(test.moved))
    accuracy = scorer.score(vectors) if scorer else None
    if accuracy and accuracy.knn_change and limits.max_accuracy_drop is not None:
        drop = -accuracy.knn_change.mean
        if drop > limits.max_accuracy_drop:
            failures.append(f"5-NN accuracy falls by {drop:.4f}, may fall by {limits.max_accuracy_drop:g}")
    if not failures:
        failures += [f"on the golden images, {failure}" for failure in test.missed_gates]
    return ValidatedVariant(encoder.variant, encoder.engine, fidelity, accuracy, (*failures, *test.moved), cause)


def _prepare_worst(bundle: Bundle, paths: list[Path], cosine: NDArray[np.float64]) -> Pixels:
    """A batch of images with the one that differs most."""
    worst = int(np.nan_to_num(cosine, nan=-2).argmin())
    start = max(0, min(worst // BATCH_SIZE * BATCH_SIZE, len(paths) - BATCH_SIZE))
    return np.stack([prepare(path, bundle.preprocessing) for path in paths[start : start + BATCH_SIZE]])


def _check_measurable(limits: Limits, images: int, scorer: Scorer | None) -> None:
    """A gate that was asked for must not pass because nothing was measured."""
    if limits.max_accuracy_drop is not None and scorer is None:
        raise UsageError("--max-accuracy-drop needs classes: a sub-folder each with two or more images, or --labels")
    if limits.min_overlap is not None and images < LEAST_FOR_OVERLAP:
        raise UsageError(f"--min-overlap needs {LEAST_FOR_OVERLAP} or more images, --data has {images}")


def _check_golden(bundle: Bundle, network: InferenceNetwork) -> list[str]:
    """Whether PyTorch gives here what it gave at export: what a bundle's weights are held to."""
    golden = read_golden(bundle)
    failures = failed_gates(compare(golden.embeddings[PYTORCH], embed_pixels(network, golden.images)), GATES["fp32"])
    what = "encoder.safetensors is not what the bundle was exported from, or golden.npz is not"
    return [f"{what}: {'; '.join(failures)}"] if failures else []
