"""ONNX files: what is written into them, and their weights in half precision. ONNX Runtime runs them."""

from __future__ import annotations

import json
from typing import Any, ClassVar

import numpy as np
import onnx
from onnx import numpy_helper

from ..models.tracing import Graph
from ..runtime.backend import Backend, ModelBytes
from ..runtime.model_file import METADATA_KEY
from ..runtime.model_format import ModelFormat
from ..runtime.onnx_file import ONNX
from ..runtime.onnxruntime_backend import OnnxRuntimeBackend
from ..runtime.preprocessing import Pixels
from . import onnx_int8
from .search import Method

# Small tensors (scales, shifts) are not worth a rounding; what float16 cannot hold stays as it is.
LEAST_TO_HALVE, LARGEST_HALF = 64, 65504


class OnnxFormat:
    name: ClassVar[str] = "onnx"
    engine: ClassVar[str] = "ONNX Runtime"
    file: ClassVar[ModelFormat] = ONNX
    backend: ClassVar[type[Backend]] = OnnxRuntimeBackend
    requires: ClassVar[tuple[str, ...]] = ()

    def convert(self, graph: Graph) -> onnx.ModelProto:
        return graph.model

    def halve(self, model: onnx.ModelProto) -> onnx.ModelProto:
        """Half the size, computed in float32 as before.

        Engines turn the weights back when they load the file, as they do with OpenVINO's compressed IR.
        """
        halved = _copy(model)
        casts = []
        for tensor in halved.graph.initializer:
            values = numpy_helper.to_array(tensor)
            if values.dtype == np.float32 and values.size >= LEAST_TO_HALVE and np.abs(values).max() < LARGEST_HALF:
                name = tensor.name
                tensor.CopyFrom(numpy_helper.from_array(values.astype(np.float16), f"{name}:half"))
                casts.append(
                    onnx.helper.make_node("Cast", [tensor.name], [name], name=f"{name}:cast", to=onnx.TensorProto.FLOAT)
                )
        nodes = [*casts, *halved.graph.node]
        del halved.graph.node[:]
        halved.graph.node.extend(nodes)
        return halved

    def methods(self, graph: Graph, calibrate: Pixels, target: str) -> list[list[Method[onnx.ModelProto]]]:
        return onnx_int8.list_methods(graph, calibrate, target)

    def quick_method(self, graph: Graph, calibrate: Pixels, target: str) -> Method[onnx.ModelProto]:
        return onnx_int8.quick_method(graph, calibrate, target)

    def label(self, model: onnx.ModelProto, essentials: dict[str, Any]) -> onnx.ModelProto:
        labeled = _copy(model)
        del labeled.metadata_props[:]
        labeled.metadata_props.add(key=METADATA_KEY, value=json.dumps(essentials, sort_keys=True))
        return labeled

    def serialize(self, model: onnx.ModelProto) -> ModelBytes:
        return ModelBytes(ONNX.name, (model.SerializeToString(deterministic=True),))


def _copy(model: onnx.ModelProto) -> onnx.ModelProto:
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    return copy
