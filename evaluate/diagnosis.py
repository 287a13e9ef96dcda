"""Why a variant is not what PyTorch computes: the mistake that gives the same embeddings when PyTorch makes it too."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from ..models.network import InferenceNetwork, embed_pixels
from ..models.tracing import trace
from ..runtime.bundle import Bundle, Variant
from ..runtime.fidelity import Vectors, cosines
from ..runtime.preprocessing import Pixels, Preprocessing
from .layers import FILE_IS_RIGHT, compare_layers, locate_departure

# A mistake explains a difference if making it removes this share of it; INT8 leaves the rest.
SHARE_EXPLAINED = 0.75
# Images to find the layer that is wrong with, and to embed alone.
FEW = 8


def find_cause(
    network: InferenceNetwork,
    bundle: Bundle,
    variant: Variant,
    run: Callable[[Pixels], Vectors],
    pixels: Pixels,
    moved: bool,
) -> str:
    """The likeliest cause, in words, why `run`, a variant on an engine, gives other embeddings than `network`.

    `pixels`: one batch of images that differ, uint8 `[N, H, W, 3]`. `moved`: whether it also gives other embeddings
    than it gave at export.
    """
    found = run(pixels)
    expected = embed_pixels(network, pixels)
    finite = np.isfinite(found).all(1)
    if not finite.all():
        rows = ", ".join(str(row) for row in np.flatnonzero(~finite)[:5])
        return f"row {rows} of a batch of {len(found)} is not finite: an overflow, or a fault of the engine's"
    apart = 1 - cosines(expected, found)
    lengths = np.linalg.norm(found, axis=1)
    if np.abs(lengths - 1).max() > 0.02 and apart.max() < 1e-3:  # bf16 alone makes 0.004
        return f"directions are right, lengths are not (mean {lengths.mean():.3g}): the graph's last step is missing"
    order = (found @ expected.T).argmax(1)
    if sorted(order) == list(range(len(found))) and (order != np.arange(len(found))).any():
        in_order = 1 - cosines(expected[order], found)
        if in_order.mean() < (1 - SHARE_EXPLAINED) * apart.mean():
            return f"the right embeddings in another order: row 0 holds that of image {order[0]}"
    alone = np.concatenate([run(each[None]) for each in pixels[:FEW]])
    if (1 - cosines(alone, found[:FEW])).mean() > (1 - SHARE_EXPLAINED) * apart.mean():
        return "an image's embedding depends on the others of its batch: batch norm is in training mode"
    mistakes = _mistakes(network, bundle.preprocessing, pixels)
    left = {cause: (1 - cosines(vectors, found)).mean() for cause, vectors in mistakes}
    cause = min(left, key=lambda each: left[each])
    if left[cause] < (1 - SHARE_EXPLAINED) * apart.mean():
        return cause
    if variant.precision != "fp32" and not moved:
        return "quantization itself: the variant gives what it gave at export; a comparison by layer shows where"
    layers = compare_layers(trace(network).model, bundle.model(variant).bytes, pixels[:FEW])
    place = locate_departure(layers, quantized=variant.precision != "fp32")
    if place == FILE_IS_RIGHT and _is_as_far_as_bf16(network, pixels, expected, apart):
        return "as far off as bf16 arithmetic is: the engine computes with less than float32"
    return place


def _mistakes(network: InferenceNetwork, preprocessing: Preprocessing, pixels: Pixels) -> Iterator[tuple[str, Vectors]]:
    """What PyTorch gives when it makes each mistake."""
    mean, std = preprocessing.mean, preprocessing.std
    yield "red and blue are swapped", embed_pixels(network, pixels[..., ::-1])
    yield "images are mirrored", embed_pixels(network, pixels[:, :, ::-1])
    yield (
        "red and blue are swapped after mean and standard deviation are applied",
        embed_pixels(InferenceNetwork(network.backbone, _reverse(preprocessing), network.tail), pixels[..., ::-1]),
    )
    half = (0.5, 0.5, 0.5)
    for cause, wrong in (
        ("mean and standard deviation are 0.5, not the bundle's", replace(preprocessing, mean=half, std=half)),
        ("mean and standard deviation are swapped", replace(preprocessing, mean=std, std=mean)),
        ("mean and standard deviation are left out", replace(preprocessing, mean=(0, 0, 0), std=(1, 1, 1))),
        ("mean and standard deviation are in the order of blue, green, red", _reverse(preprocessing)),
    ):
        yield cause, embed_pixels(InferenceNetwork(network.backbone, wrong, network.tail), pixels)
    yield "height and width are swapped", embed_pixels(network, pixels.swapaxes(1, 2))


def _reverse(preprocessing: Preprocessing) -> Preprocessing:
    (a, b, c), (d, e, f) = preprocessing.mean, preprocessing.std
    return replace(preprocessing, mean=(c, b, a), std=(f, e, d))


def _is_as_far_as_bf16(
    network: InferenceNetwork, pixels: Pixels, expected: Vectors, apart: NDArray[np.float64]
) -> bool:
    """Whether a difference is small and of the size that bf16 causes; its sign depends on the engine."""
    with torch.autocast("cpu", torch.bfloat16):
        in_bf16 = embed_pixels(network, pixels)
    usual = (1 - cosines(expected, in_bf16)).mean()
    return bool(usual / 30 < apart.mean() < 3 * usual)
