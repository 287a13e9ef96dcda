"""Every variant of a bundle against PyTorch, on a user's own images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from ..models.network import InferenceNetwork
from ..models.weights import WEIGHTS, EncoderSpec, load_encoder
from ..runtime.bundle import Bundle
from ..runtime.encoder import BATCH_SIZE, Encoder, batches
from ..runtime.errors import ImageError
from ..runtime.fidelity import GATES, Fidelity, Vectors, compare, failed_gates
from ..runtime.images import find_images, folder_labels
from ..runtime.preprocessing import prepare
from .accuracy import knn_hits


@dataclass(frozen=True)
class ValidatedVariant:
    """A variant's figures. `accuracy`: leave-one-out 5-NN, None without class folders. `failures`: gates missed."""

    name: str
    engine: str
    fidelity: Fidelity
    accuracy: float | None
    failures: tuple[str, ...]


@dataclass(frozen=True)
class Validation:
    """What a validation found. `accuracy` is PyTorch's; `unreadable`: a message an image that was left out."""

    images: int
    classes: int
    accuracy: float | None
    variants: tuple[ValidatedVariant, ...]
    unreadable: tuple[str, ...]

    @property
    def failures(self) -> list[str]:
        """A line a missed gate, naming variant and figure."""
        return [f"{each.name} ({each.engine}): {failure}" for each in self.variants for failure in each.failures]


def validate(
    path: Path, data: Path, variant: str | None = None, step: Callable[[int, int], None] = lambda done, of: None
) -> Validation:
    """Embeds the images under `data` with PyTorch and with each variant (or with the one named), and compares.

    `step` is told how many images of how many are done. Raises BundleError, ImageError, EngineError, UsageError.
    """
    bundle = Bundle.open(path)
    network = load_network(bundle)
    chosen = bundle.find(variant) if variant else [each for each in bundle.variants.values() if bundle.holds(each)]
    encoders = [Encoder(path, each.name) for each in chosen]
    paths = find_images(data)
    readable, unreadable = [], []
    pieces: list[list[Vectors]] = [[] for _ in range(len(encoders) + 1)]
    for batch in batches(paths, BATCH_SIZE):
        pixels = []
        for image in batch:
            try:
                pixels.append(prepare(image, bundle.preprocessing))
                readable.append(image)
            except ImageError as error:
                unreadable.append(str(error))
        if pixels:
            stacked = np.stack(pixels)
            with torch.no_grad():
                pieces[0].append(network(torch.from_numpy(stacked)).numpy())
            for piece, encoder in zip(pieces[1:], encoders, strict=True):
                piece.append(encoder.run(stacked))
        step(len(readable) + len(unreadable), len(paths))
    if not readable:
        raise ImageError(f"{data}: none of its {len(paths)} images can be read; the first: {unreadable[0]}")
    reference, *vectors = [np.concatenate(piece) for piece in pieces]
    names = folder_labels(readable, data)
    labels = None if names is None else np.unique(names, return_inverse=True)[1]

    def accuracy(of: Vectors) -> float | None:
        return None if labels is None else float(knn_hits(of, labels).mean())

    variants = []
    for which, encoder, its in zip(chosen, encoders, vectors, strict=True):
        fidelity = compare(reference, its)
        failures = tuple(failed_gates(fidelity, GATES[which.precision]))
        variants.append(ValidatedVariant(which.name, encoder.engine, fidelity, accuracy(its), failures))
    classes = 0 if labels is None else len(np.unique(labels))
    return Validation(len(readable), classes, accuracy(reference), tuple(variants), tuple(unreadable))


def load_network(bundle: Bundle) -> InferenceNetwork:
    """PyTorch's reference: the bundle's own weights in the architecture that its manifest names, eager, FP32."""
    weights = bundle.read(WEIGHTS)
    backbone = load_encoder(weights, encoder_spec(bundle), str(bundle.path / WEIGHTS))
    return InferenceNetwork(backbone, bundle.preprocessing)


def encoder_spec(bundle: Bundle) -> EncoderSpec:
    """The architecture that the manifest names."""
    network = bundle.manifest["network"]
    return EncoderSpec(network["backbone"], network["stem"], bundle.embedding_size, bundle.preprocessing)
