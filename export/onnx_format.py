"""ONNX files: what is written into them, and their weights in half precision."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from ..runtime.model_file import METADATA_KEY

FLOAT = onnx.TensorProto.FLOAT
# Small tensors (scales, shifts) are not worth a rounding; what float16 cannot hold stays as it is.
LEAST_TO_HALVE, LARGEST_HALF = 64, 65504


def halve(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same network with its weights stored in float16: half the size, computed in float32 as before.

    Engines turn the weights back when they load the file, as they do with OpenVINO's compressed IR.
    """
    halved = onnx.ModelProto()
    halved.CopyFrom(model)
    casts = []
    for tensor in halved.graph.initializer:
        values = numpy_helper.to_array(tensor)
        if values.dtype == np.float32 and values.size >= LEAST_TO_HALVE and np.abs(values).max() < LARGEST_HALF:
            name = tensor.name
            tensor.CopyFrom(numpy_helper.from_array(values.astype(np.float16), f"{name}:half"))
            casts.append(onnx.helper.make_node("Cast", [tensor.name], [name], name=f"{name}:cast", to=FLOAT))
    nodes = [*casts, *halved.graph.node]
    del halved.graph.node[:]
    halved.graph.node.extend(nodes)
    return halved


def serialize(model: onnx.ModelProto, essentials: dict[str, Any]) -> bytes:
    """The .onnx file's bytes, with the manifest's essentials in its metadata so that it also works alone."""
    labeled = onnx.ModelProto()
    labeled.CopyFrom(model)
    del labeled.metadata_props[:]
    labeled.metadata_props.add(key=METADATA_KEY, value=json.dumps(essentials, sort_keys=True))
    return labeled.SerializeToString(deterministic=True)
