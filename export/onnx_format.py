"""The ONNX variants: FP32 by torch's exporter, INT8 by ONNX Runtime's quantiser."""

from __future__ import annotations

import ast
import contextlib
import io
import json
import logging
import tempfile
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
import torch
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantFormat, QuantType, quantize_static
from timm.utils import reparameterize_model  # pyright: ignore[reportPrivateImportUsage]
from torch import Tensor, nn

from ..models.network import InferenceNetwork
from ..runtime.bundle import METADATA_KEY
from ..runtime.errors import RunError
from ..runtime.preprocessing import Pixels

# Old enough for engines of 2023, new enough for torch's exporter.
OPSET = 18


@dataclass(frozen=True)
class Graph:
    """An ONNX model, and the names of the nodes that belong to the backbone: the only ones that may be quantised.

    A node of the backbone is named after its module: "layer1.0.bn1" is what comes out of that batch norm, which is
    folded into the convolution before it. Further nodes of one module are numbered: "layer1.0.se", "layer1.0.se:2".
    """

    model: onnx.ModelProto
    backbone_nodes: frozenset[str]


def trace(network: InferenceNetwork) -> Graph:
    """The network as ONNX, any batch size, parallel branches merged (RepVGG, MobileOne) and batch norms folded.

    Raises RunError if torch cannot trace it.
    """
    merged = reparameterize_model(network)  # a copy
    _replace_pools(merged)
    side = network.image_size
    example = torch.zeros(2, side, side, 3, dtype=torch.uint8)  # a batch of one would be taken for a constant
    try:
        with quiet(), torch.no_grad():
            program = torch.onnx.export(
                merged,
                (example,),
                dynamo=True,
                opset_version=OPSET,
                input_names=["images"],
                output_names=["embeddings"],
                dynamic_shapes=({0: torch.export.Dim("batch")},),
                external_data=False,
            )
    except Exception as error:  # the exporter's own exception types are many
        raise RunError(f"torch cannot trace this backbone to ONNX: {str(error).splitlines()[0]}") from error
    assert program is not None
    model = program.model_proto
    nodes = _name_after_modules(model)
    _clean(model)
    return Graph(model, nodes)


def quantise(graph: Graph, calibrate: Pixels) -> onnx.ModelProto:
    """INT8 in QDQ form: static, per channel, min-max ranges over `calibrate`; u8 activations, s8 weights."""
    others = [node.name for node in graph.model.graph.node if node.name not in graph.backbone_nodes]
    with tempfile.TemporaryDirectory() as folder, quiet():
        path = Path(folder, "int8.onnx")
        quantize_static(
            graph.model,
            path,
            _Reader(calibrate),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod.MinMax,
            nodes_to_exclude=others,
        )
        model = onnx.load(path)
    _clean(model)
    return model


def serialise(model: onnx.ModelProto, essentials: dict[str, Any]) -> bytes:
    """The .onnx file's bytes, with the manifest's essentials in its metadata so that it also works alone."""
    del model.metadata_props[:]
    model.metadata_props.add(key=METADATA_KEY, value=json.dumps(essentials, sort_keys=True))
    return model.SerializeToString(deterministic=True)


class _Reader(CalibrationDataReader):
    """Feeds images to the quantiser a few at a time."""

    def __init__(self, images: Pixels, batch_size: int = 8) -> None:
        self._batches = iter([images[start : start + batch_size] for start in range(0, len(images), batch_size)])

    def get_next(self) -> Any:
        batch = next(self._batches, None)
        return None if batch is None else {"images": batch}


class _Mean(nn.Module):
    def forward(self, features: Tensor) -> Tensor:
        return features.mean((2, 3), keepdim=True)


def _replace_pools(network: nn.Module) -> None:
    """Writes pooling to one pixel as a mean; of it, torch's exporter makes nine nodes, with a gather."""
    for module in network.modules():
        for name, child in module.named_children():
            if isinstance(child, nn.AdaptiveAvgPool2d) and child.output_size in (1, (1, 1)):
                setattr(module, name, _Mean())


def _name_after_modules(model: onnx.ModelProto) -> frozenset[str]:
    """Renames the backbone's nodes by the module that each came from, which torch notes; returns their names."""
    counts: Counter[str] = Counter()
    names = []
    for node in model.graph.node:
        noted = next((entry.value for entry in node.metadata_props if entry.key == "pkg.torch.onnx.name_scopes"), "[]")
        modules = [scope for scope in ast.literal_eval(noted) if scope.split(".")[0] == "backbone"]
        if modules:
            module = modules[-1].removeprefix("backbone.")
            counts[module] += 1
            node.name = module if counts[module] == 1 else f"{module}:{counts[module]}"
            names.append(node.name)
    return frozenset(names)


def _clean(model: onnx.ModelProto) -> None:
    """Takes out what the exporter notes of the machine: stack traces with paths, module names, doc strings."""
    graph = model.graph
    for part in (model, graph, *graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer):
        del part.metadata_props[:]
        part.doc_string = ""


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keeps what exporters and quantisers print and log from the user, short of errors."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
