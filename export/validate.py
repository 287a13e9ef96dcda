"""Every variant of a bundle, on every engine, against PyTorch on a user's own images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from ..models.network import InferenceNetwork, embed_pixels
from ..runtime.bundle import GOLDEN, Bundle
from ..runtime.encoder import BACKENDS, BATCH_SIZE, Encoder, batches
from ..runtime.errors import BundleError, ImageError
from ..runtime.fidelity import GATES, Fidelity, Vectors, choose_gates, compare, failed_gates
from ..runtime.files import load_arrays
from ..runtime.images import find_images, folder_labels, read_labels
from ..runtime.preprocessing import Pixels, prepare
from ..runtime.self_test import SelfTest
from .diagnosis import find_cause
from .reference import load_reference, load_untrained
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
    """What a validation found. `accuracy`: PyTorch's; `floors`: what is to be beaten. All None without classes.

    `difference`: how the weights given to validate against are not the bundle's. `around`: what is wrong with the
    bundle's weights or this machine's decoders, whatever the variant. `unreadable`: a message an image.
    """

    images: int
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
    encoders = _load_encoders(bundle, variant)
    paths = find_images(data)
    names = read_labels(labels, paths, data) if labels else folder_labels(paths, data)
    floors = _floors(bundle) if names else {}
    embedded = _embed_all(bundle, reference.network, floors, encoders, paths, step)
    if not embedded.rows:
        raise ImageError(f"{data}: none of its {len(paths)} images can be read; the first: {embedded.unreadable[0]}")
    known = None if names is None else [names[row] for row in embedded.rows]
    scorer = make_scorer(embedded.of_pytorch, known)
    tests = [encoder.self_test() for encoder in encoders]
    variants = [
        _judge(bundle, reference.network, encoder, test, vectors, embedded, scorer, limits)
        for encoder, test, vectors in zip(encoders, tests, embedded.of_variants, strict=True)
    ]
    return Validation(
        images=len(embedded.rows),
        classes=scorer.classes if scorer else 0,
        accuracy=scorer.accuracy if scorer else None,
        floors={name: scorer.score(vectors) for name, vectors in embedded.of_floors.items()} if scorer else {},
        variants=tuple(variants),
        difference=reference.difference,
        around=(*([] if against else _check_golden(bundle, reference.network)), *tests[0].decoding),
        unreadable=tuple(embedded.unreadable),
    )


def _load_encoders(bundle: Bundle, variant: str | None) -> list[Encoder]:
    """Each variant that is here, or the ones meant by `variant`, on each engine that runs its format."""
    wanted = bundle.find(variant) if variant else [each for each in bundle.variants.values() if bundle.holds(each)]
    return [
        Encoder(bundle.path, each.name, engine.name)
        for each in wanted
        for engine in BACKENDS
        if each.format in engine.formats
    ]


@dataclass(frozen=True)
class Embedded:
    """The readable images (`rows`: their places in the list) as each network sees them, a row an image.

    `first`: the pixels of the first batch.
    """

    rows: list[int]
    unreadable: list[str]
    first: Pixels
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
    first = np.zeros((0, 0, 0, 3), np.uint8)
    for batch in batches(enumerate(paths), BATCH_SIZE):
        pixels = []
        for row, image in batch:
            try:
                pixels.append(prepare(image, bundle.preprocessing))
                rows.append(row)
            except ImageError as error:
                unreadable.append(str(error))
        if pixels:
            stacked = np.stack(pixels)
            first = first if len(first) else stacked
            for piece, way in zip(pieces, ways, strict=True):
                piece.append(way(stacked))
        step(len(rows) + len(unreadable), len(paths))
    of_pytorch, *others = [np.concatenate(piece) if piece else np.zeros((0, 0), np.float32) for piece in pieces]
    of_floors = dict(zip(floors, others, strict=False))
    return Embedded(rows, unreadable, first, of_pytorch, of_floors, others[len(floors) :])


def _floors(bundle: Bundle) -> dict[str, Callable[[Pixels], Vectors]]:
    """What an accuracy is to be put beside: embeddings that nothing was learnt for."""
    return {"untrained": partial(embed_pixels, load_untrained(bundle)), "raw pixels": _shrink}


def _shrink(pixels: Pixels) -> Vectors:
    """Images as vectors of 16 × 16 pixels, centred on grey: `[N, 768]`."""
    small = [Image.fromarray(each).resize((RAW_SIDE, RAW_SIDE), Image.Resampling.BOX) for each in pixels]
    return np.stack([np.asarray(each, np.float32).ravel() - 127.5 for each in small])


def _judge(
    bundle: Bundle,
    network: InferenceNetwork,
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
    moved = bool(test.moved)
    cause = find_cause(network, bundle, variant, encoder.run, embedded.first, moved) if failures or moved else None
    accuracy = scorer.score(vectors) if scorer else None
    if accuracy and accuracy.knn_change and limits.max_accuracy_drop is not None:
        drop = -accuracy.knn_change.mean
        if drop > limits.max_accuracy_drop:
            failures.append(f"5-NN accuracy falls by {drop:.4f}, may fall by {limits.max_accuracy_drop:g}")
    if not failures:
        failures += [f"on the golden images, {failure}" for failure in test.missed_gates]
    return ValidatedVariant(encoder.variant, encoder.engine, fidelity, accuracy, (*failures, *test.moved), cause)


def _check_golden(bundle: Bundle, network: InferenceNetwork) -> list[str]:
    """Whether PyTorch gives here what it gave at export: what a bundle's weights are held to."""
    try:
        golden = load_arrays(bundle.read(GOLDEN))
        vectors = embed_pixels(network, golden["images"])
        failures = failed_gates(compare(golden["pytorch"], vectors), GATES["fp32"])
    except (ValueError, KeyError) as error:
        raise BundleError(f"{bundle.path / GOLDEN}: lacks reference images or embeddings ({error})") from error
    what = "encoder.safetensors is not what the bundle was exported from, or golden.npz is not"
    return [f"{what}: {'; '.join(failures)}"] if failures else []
