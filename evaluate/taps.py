"""The values inside a model file while it runs: one function per file format."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnxruntime

from ..runtime.backend import ModelBytes
from ..runtime.openvino_backend import import_openvino, shared_core
from ..runtime.preprocessing import Pixels

# The name of what comes last.
END = "embeddings"


@dataclass(frozen=True)
class Tap:
    """`read`: from pixels uint8 `[1, H, W, 3]` to the values after each of `names`, in that order.

    `names`: END, and the layers that the model has of those asked for. Values include the rounding of a quantizer.
    """

    names: list[str]
    read: Callable[[Pixels], Sequence[Any]]


def tap(model: ModelBytes, layers: Collection[str]) -> Tap:
    """Opens a model so that the values after these layers can be read."""
    return TAPS[model.format](model, layers)


def _tap_onnx(source: ModelBytes, layers: Collection[str]) -> Tap:
    model = onnx.load_from_string(source.parts[0])
    rounded = {node.input[0]: node.output[0] for node in model.graph.node if node.op_type == "QuantizeLinear"}
    restored = {node.input[0]: node.output[0] for node in model.graph.node if node.op_type == "DequantizeLinear"}
    outputs = {node.name: node.output[0] for node in model.graph.node if node.name in layers}
    tapped = [restored.get(rounded.get(output, ""), output) for output in outputs.values()]
    given = {output.name for output in model.graph.output}  # a feature map may be one of them
    model.graph.output.extend(onnx.ValueInfoProto(name=output) for output in tapped if output not in given)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return Tap([END, *outputs], lambda pixels: session.run([END, *tapped], {"images": pixels}))


def _tap_openvino(source: ModelBytes, layers: Collection[str]) -> Tap:
    openvino = import_openvino()
    model = shared_core().read_model(source.parts[0], openvino.Tensor(np.frombuffer(source.parts[1], np.uint8)))
    operations = {each.get_friendly_name(): each for each in model.get_ordered_ops()}
    outputs = {name: each.output(0) for name, each in operations.items() if name in layers}
    tapped = []
    for output in outputs.values():
        followers = [each.get_node() for each in output.get_target_inputs()]
        tapped += [next((each.output(0) for each in followers if each.get_type_name() == "FakeQuantize"), output)]
    added = model.add_outputs(tapped)  # what is an output already, as a feature map is, stays the only one
    places = [0, *(model.outputs.index(each) for each in added)]
    model.reshape([1, *list(model.input(0).partial_shape)[1:]])
    compiled = shared_core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})

    def read(pixels: Pixels) -> list[Any]:
        values = list(compiled([pixels]).values())
        return [values[place] for place in places]

    return Tap([END, *outputs], read)


# By the format of ModelBytes; a new one is one entry.
TAPS: dict[str, Callable[[ModelBytes, Collection[str]], Tap]] = {"onnx": _tap_onnx, "xml": _tap_openvino}
