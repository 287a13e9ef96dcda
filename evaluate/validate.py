"""Every variant of a bundle, on every engine, against PyTorch on a user's own images."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from ..models.network import InferenceNetwork, embed_pixels, map_pixels
from ..runtime.bundle import Bundle
from ..runtime.encoder import Encoder
from ..runtime.errors import UsageError
from ..runtime.fidelity import (
    GATES,
    LEAST_FOR_OVERLAP,
    MAP_IMAGES,
    Fidelity,
    MapFidelity,
    Vectors,
    choose_gates,
    compare,
    compare_maps,
    cosines,
    failed_gates,
    failed_map_gates,
    unmeasured_gates,
)
from ..runtime.golden import PYTORCH, read_golden
from ..runtime.preprocessing import Pixels
from ..runtime.reading import BATCH_SIZE, draw_from, read_images
from ..runtime.self_test import SelfTest
from ..runtime.text import count
from .diagnosis import find_cause
from .embedding import Embedded, embed_everywhere
from .scorer import Accuracy, Scorer, make_scorer


@dataclass(frozen=True)
class Limits:
    """Gates that a user sets instead of a precision's own. `max_accuracy_drop`: of 5-NN accuracy, 0 to 1."""

    min_cosine: float | None = None
    min_overlap: float | None = None
    max_accuracy_drop: float | None = None


@dataclass(frozen=True)
class ValidatedVariant:
    """A variant on an engine. `failures`: gates missed, on the images or the golden files; `cause`: the likeliest.

    `unmeasured`: gates that nothing was measured for, and that it therefore passes. `maps`: fidelity of each feature
    map, on some of the images.
    """

    name: str
    engine: str
    fidelity: Fidelity
    accuracy: Accuracy | None
    failures: tuple[str, ...]
    cause: str | None
    unmeasured: tuple[str, ...]
    maps: dict[str, MapFidelity]


@dataclass(frozen=True)
class Validation:
    """What a validation found. `labeled`: images of known class; without any, there are no accuracy and no floors.

    `accuracy`: PyTorch's. `floors`: what it has to beat. `difference`: how the weights that `against` names are not the
    bundle's. `around`: what is wrong with the bundle's weights or this machine's decoders, whatever the variant.
    `unreadable`: one message per image.
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
        """One line for all variants that fail alike: their names, figures and the likeliest cause."""
        alike: dict[str, list[str]] = {}
        for each in self.variants:
            if each.failures:
                text = "; ".join(each.failures) + (f". Likely cause: {each.cause}" if each.cause else "")
                alike.setdefault(text, []).append(f"{each.name} ({each.engine})")
        return [*self.around, *(f"{', '.join(names)}: {text}" for text, names in alike.items())]

    @property
    def worth(self) -> str:
        """In a sentence, whether 5-NN accuracy by PyTorch's embeddings beats the floors'; empty without classes."""
        own = self.accuracy.scores.get("knn") if self.accuracy else None
        changes = {name: each.scores["knn"].change for name, each in self.floors.items() if "knn" in each.scores}
        if own is None or not changes:
            return ""
        beaten = [name for name, change in changes.items() if change and change.upper < 0]
        others = [name for name in changes if name not in beaten]
        if not others:
            return f"5-NN accuracy is {own.value.mean:.3f}: this encoder is better here than {' and '.join(beaten)}."
        return (
            f"5-NN accuracy is {own.value.mean:.3f}: this encoder is not clearly better here than "
            f"{' and '.join(others)}, so it is not worth shipping for these classes yet."
        )

    @property
    def conclusion(self) -> str:
        """In a sentence, whether every variant is faithful, and the encoder worth shipping, as far as that is known."""
        variants, images = len(self.variants), count(self.images, "image")
        failing = sum(bool(each.failures) for each in self.variants)
        if self.around and not failing:
            return f"The bundle is not what was exported, or this machine reads images otherwise: {self.around[0]}."
        if failing:
            do, them = ("does", "it") if failing == 1 else ("do", "them")
            return f"{failing} of {variants} variants {do} not reproduce PyTorch on {images}: do not ship {them}."
        faithful = (
            f"{f'All {variants} variants reproduce' if variants > 1 else 'The variant reproduces'} PyTorch on {images}"
        )
        return f"{faithful}; {self.worth}" if self.worth else f"{faithful}."

    def to_json(self) -> dict[str, Any]:
        return {
            **asdict(self),
            "worth": self.worth,
            "conclusion": self.conclusion,
            "accuracy": _to_json(self.accuracy),
            "floors": {name: each.to_json() for name, each in self.floors.items()},
            "variants": [{**asdict(each), "accuracy": _to_json(each.accuracy)} for each in self.variants],
            "failures": self.failures,
        }


def validate(
    path: str | Path,
    data: str | Path,
    *,
    variant: str | None = None,
    labels: str | Path | None = None,
    against: str | Path | None = None,
    module: nn.Module | None = None,
    limits: Limits | None = None,
) -> Validation:
    """Embeds the images under `data` with PyTorch and with each variant of a bundle, and compares.

    `variant`: only this one, "fp32", "int8", or a name such as "int8.onnx". `labels`: a CSV file of classes; otherwise
    the sub-folders are. `against`: a run or checkpoint to compare with, instead of the bundle's own weights. `module`:
    a module to compare with; a bundle that was made from one of your own needs it again. Logs progress, and images
    that cannot be read. Raises BundleError, ImageError, EngineError, RunError, UsageError.

        result = validate("bundles/photos", "photos/test", limits=Limits(min_cosine=0.995))
        assert not result.failures, result.failures
    """
    embedded = embed_everywhere(
        Bundle.open(path),
        Path(data),
        variant,
        Path(labels) if labels else None,
        Path(against) if against else None,
        module,
    )
    return judge(embedded, limits or Limits())


def judge(embedded: Embedded, limits: Limits) -> Validation:
    """Compares each variant's embeddings with PyTorch's, and finds the cause where they differ."""
    scorer = make_scorer(embedded.of_pytorch, embedded.classes)
    _check_measurable(limits, embedded, scorer)
    tests = [encoder.self_test() for encoder in embedded.encoders]
    maps = _compare_maps(embedded)
    golden = [] if embedded.reference.against else _check_golden(embedded.bundle, embedded.reference.network)
    return Validation(
        images=len(embedded.paths),
        labeled=len(scorer.rows) if scorer else 0,
        classes=scorer.classes if scorer else 0,
        accuracy=scorer.accuracy if scorer else None,
        floors={name: scorer.score(vectors) for name, vectors in embedded.of_floors.items()} if scorer else {},
        variants=tuple(
            _judge_variant(embedded, encoder, test, vectors, its, scorer, limits)
            for encoder, test, vectors, its in zip(embedded.encoders, tests, embedded.of_variants, maps, strict=True)
        ),
        difference=embedded.reference.difference,
        around=(*golden, *tests[0].decoding),
        unreadable=tuple(embedded.unreadable),
    )


def _compare_maps(embedded: Embedded) -> list[dict[str, MapFidelity]]:
    """For each encoder, how well its feature maps agree with PyTorch's on some of the images."""
    names = [each.name for each in embedded.bundle.features]
    if not names:
        return [{} for _ in embedded.encoders]
    pixels = draw_from(embedded.paths, embedded.bundle.preprocessing, MAP_IMAGES).pixels
    reference = map_pixels(embedded.reference.network, pixels, names)
    found = (each.run_maps(pixels) for each in embedded.encoders)
    return [{name: compare_maps(reference[name], its[name]) for name in names} for its in found]


def _judge_variant(
    embedded: Embedded,
    encoder: Encoder,
    test: SelfTest,
    vectors: Vectors,
    maps: dict[str, MapFidelity],
    scorer: Scorer | None,
    limits: Limits,
) -> ValidatedVariant:
    bundle, reference = embedded.bundle, embedded.reference
    variant = bundle.variants[encoder.variant]
    fidelity = compare(embedded.of_pytorch, vectors)
    gates = choose_gates(variant.precision, limits.min_cosine, limits.min_overlap)
    failures = failed_gates(fidelity, gates)
    cause = None
    if reference.difference and failures:
        cause = f"{reference.against} holds other weights than the bundle"
    elif test.moved or failed_gates(fidelity, GATES[variant.precision]):  # a stricter gate needs no cause
        pixels = _prepare_worst(embedded, cosines(embedded.of_pytorch, vectors))
        cause = find_cause(reference.network, bundle, variant, encoder.run, pixels, bool(test.moved))
    accuracy = scorer.score(vectors) if scorer else None
    failures += [*failed_map_gates(maps, variant.precision), *_missed_accuracy(accuracy, limits)]
    if not failures:
        failures += [f"on the golden images, {failure}" for failure in (*test.missed_gates, *test.missed_maps)]
    return ValidatedVariant(
        name=encoder.variant,
        engine=encoder.engine,
        fidelity=fidelity,
        accuracy=accuracy,
        failures=(*failures, *test.moved),
        cause=cause,
        unmeasured=tuple(unmeasured_gates(fidelity, gates)),
        maps=maps,
    )


def _missed_accuracy(accuracy: Accuracy | None, limits: Limits) -> list[str]:
    change = accuracy.scores["knn"].change if accuracy else None
    if limits.max_accuracy_drop is None or change is None:
        return []
    drop = -change.mean
    missed = f"5-NN accuracy falls by {drop:.4f}, may fall by {limits.max_accuracy_drop:g}"
    return [missed] if drop > limits.max_accuracy_drop else []


def _prepare_worst(embedded: Embedded, cosine: NDArray[np.float64]) -> Pixels:
    """A batch of images with the one that differs most."""
    paths = embedded.paths
    worst = int(np.nan_to_num(cosine, nan=-2).argmin())
    start = max(0, min(worst // BATCH_SIZE * BATCH_SIZE, len(paths) - BATCH_SIZE))
    return read_images(paths[start : start + BATCH_SIZE], embedded.bundle.preprocessing).pixels


def _check_measurable(limits: Limits, embedded: Embedded, scorer: Scorer | None) -> None:
    """A gate that was asked for must not pass because nothing was measured."""
    if limits.max_accuracy_drop is not None and scorer is None:
        raise UsageError(
            "{max_accuracy_drop} needs classes: one sub-folder per class, with two or more images, or {labels}",
            max_accuracy_drop=limits.max_accuracy_drop,
            labels="FILE.csv",
        )
    if limits.min_overlap is not None and len(embedded.paths) < LEAST_FOR_OVERLAP:
        raise UsageError(
            f"{{min_overlap}} needs {LEAST_FOR_OVERLAP} or more images, {{data}} has {len(embedded.paths)}",
            min_overlap=limits.min_overlap,
            data=embedded.data,
        )


def _check_golden(bundle: Bundle, network: InferenceNetwork) -> list[str]:
    """Whether PyTorch gives here what it gave at export: what a bundle's weights are held to."""
    golden = read_golden(bundle)
    failures = failed_gates(compare(golden.embeddings[PYTORCH], embed_pixels(network, golden.images)), GATES["fp32"])
    of = "encoder.safetensors" if bundle.module is None else "the module"
    what = f"{of} is not what the bundle was exported from, or golden.npz is not"
    return [f"{what}: {'; '.join(failures)}"] if failures else []


def _to_json(accuracy: Accuracy | None) -> dict[str, Any] | None:
    return accuracy.to_json() if accuracy else None
