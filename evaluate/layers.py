"""Where along the network a variant departs from FP32: the signal to noise after each layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from torch import nn

from ..models.network import InferenceNetwork
from ..models.tracing import WEIGHTED, trace
from ..runtime.backend import ModelBytes
from ..runtime.bundle import Bundle, Variant
from ..runtime.images import find_images
from ..runtime.preprocessing import Pixels
from ..runtime.reading import draw_from
from .reference import load_reference
from .taps import END, TAPS, tap

# Enough images: each ratio is a mean over all of a layer's activations, and moves little with more.
IMAGES = 32
# What a quantizer merges into the layer before it.
MERGED = ("Relu", "Clip")
# A float32 layer is right above this many dB: rounding alone leaves about 120.
RIGHT = 60.0
FILE_IS_RIGHT = "the file is right where its layers are read one by one: the engine computes otherwise"


@dataclass(frozen=True)
class Layer:
    """What a variant computes (y) beside FP32 (x) after a layer with weights, the rounding of its output included.

    `signal_to_noise`: 10 log10(Σ x² / Σ (x − y)²) in dB, over all activations of all images. `scale`: Σ x y / Σ x², 1
    where both are alike.
    """

    name: str
    signal_to_noise: float
    scale: float

    @property
    def correlation(self) -> float:
        """Σ x y / √(Σ x² Σ y²): 1 where one is a multiple of the other."""
        noise = 10 ** (-self.signal_to_noise / 10)
        return self.scale / max(noise - 1 + 2 * self.scale, 1e-12) ** 0.5


def measure_layers(
    path: str | Path, data: str | Path, *, variant: str | None = None, module: nn.Module | None = None
) -> dict[str, list[Layer]]:
    """The layers, in the network's order, of each variant of a bundle that is here, or of those meant by `variant`.

    `module`: what the bundle was made from, if that is a user's own. Measured on 32 of the images under `data` that can
    be read. Raises BundleError, EngineError, ImageError, UsageError.
    """
    bundle = Bundle.open(path)
    network = load_reference(bundle, module=module).network
    return measure_network(network, bundle, bundle.choose(variant), find_images(data))


def measure_network(
    network: InferenceNetwork, bundle: Bundle, variants: Sequence[Variant], paths: Sequence[Path]
) -> dict[str, list[Layer]]:
    """The same of variants of a network, on 32 images of `paths`; without those whose file format has no tap."""
    pixels = draw_from(paths, bundle.preprocessing, IMAGES).pixels
    model = trace(network).model
    measured = {each.name: compare_layers(model, bundle.model(each).bytes, pixels) for each in variants}
    return {name: layers for name, layers in measured.items() if layers}


def compare_layers(model: onnx.ModelProto, source: ModelBytes, pixels: Pixels) -> list[Layer]:
    """A variant's layers beside those of the network as it was traced, on `pixels` uint8 `[N, H, W, 3]`.

    Layers are known by their names: one that the variant lacks, or has in another shape, is left out. The embeddings
    are the last. Empty for a file format that has no tap (see taps.py).
    """
    if source.format not in TAPS:
        return []
    following = {node.input[0]: node.name for node in model.graph.node if node.op_type in MERGED}
    weighted = {node.name: following.get(node.output[0]) for node in model.graph.node if node.op_type in WEIGHTED}
    found = tap(source, {*weighted, *filter(None, weighted.values())})
    # An activation that is not in the file was merged into its layer, whose values are then those after it.
    beside = {name: after if after and after not in found.names else name for name, after in weighted.items()}
    layers = [name for name in weighted if name in found.names] + [END]
    known = tap(ModelBytes("onnx", (model.SerializeToString(),)), set(beside.values()))
    sums: dict[str, NDArray[np.float64]] = {}
    for image in pixels[:, None]:  # one by one: all activations of a batch take gigabytes
        expected, values = (dict(zip(each.names, each.read(image), strict=True)) for each in (known, found))
        for name in layers:
            x, y = expected[beside.get(name, END)].astype(np.float64), values[name].astype(np.float64)
            if x.shape == y.shape:
                sums[name] = sums.get(name, 0) + np.array([(x * x).sum(), np.square(x - y).sum(), (x * y).sum()])
    with np.errstate(divide="ignore", invalid="ignore"):
        return [
            Layer(name, float(10 * np.log10(signal / noise)), float(product / signal))
            for name, (signal, noise, product) in sums.items()
        ]


def locate_departure(layers: Sequence[Layer], quantized: bool) -> str:
    """In words, where a variant that is wrong goes wrong: by its layers with weights, and its embeddings."""
    if not layers:
        return "unknown: the layers of this file format cannot be read"
    *inside, end = layers
    if not inside:
        return "its layers have other names than encoder.safetensors: another network, or exported by other means"
    if quantized:
        return _locate_fall(layers)
    wrong = next((place for place, layer in enumerate(inside) if not layer.signal_to_noise >= RIGHT), None)
    if wrong is None and end.signal_to_noise >= RIGHT:
        return FILE_IS_RIGHT
    if wrong is None:
        return "each layer of the backbone is right, what follows is not: a layer too many, such as the projector"
    times = _describe_scale(inside[wrong])
    if wrong == 0:
        return f"wrong from the first layer on{times}: other weights than encoder.safetensors, or other preprocessing"
    return f"right up to layer {inside[wrong - 1].name}, wrong after {inside[wrong].name}{times}"


def _locate_fall(layers: Sequence[Layer]) -> str:
    """The layer at which signal to noise falls furthest below what it was at any layer before."""
    lowest = np.minimum.accumulate([layer.signal_to_noise for layer in layers])
    place = int(np.argmax(lowest[:-1] - lowest[1:])) + 1
    ratios = f"from {lowest[place - 1]:.0f} to {lowest[place]:.0f} dB"
    return f"signal to noise falls {ratios} at layer {layers[place].name}{_describe_scale(layers[place])}"


def _describe_scale(layer: Layer) -> str:
    if abs(layer.scale - 1) < 0.1 or layer.correlation < 0.8:
        return ""
    return f", where values are {layer.scale:.2f} times PyTorch's"
