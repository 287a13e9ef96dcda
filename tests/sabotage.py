"""Ways to spoil a bundle or what is around it, for the tests of `validate`: each keeps every hash right."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from byol_edge.export.onnx_format import OnnxFormat
from byol_edge.models.tracing import trace
from byol_edge.models.weights import serialize_weights
from byol_edge.runtime.files import sha256
from byol_edge.runtime.model_file import METADATA_KEY
from onnx import numpy_helper
from torch import nn


def write_model(bundle: Path, variant: str, model: onnx.ModelProto) -> None:
    """Puts another model in place of an .onnx variant's, its metadata and its hash as they should be."""
    file = bundle / variant
    before = onnx.load(file)
    essentials = next(json.loads(entry.value) for entry in before.metadata_props if entry.key == METADATA_KEY)
    file.write_bytes(OnnxFormat().serialize(OnnxFormat().label(model, essentials)).parts[0])
    renew_hash(bundle, variant)


def write_network(bundle: Path, network: nn.Module) -> None:
    """Exports a network as the bundle's fp32.onnx."""
    write_model(bundle, "fp32.onnx", trace(network).model)  # type: ignore[arg-type]


def replace_weights(bundle: Path, backbone: nn.Module) -> None:
    (bundle / "encoder.safetensors").write_bytes(serialize_weights(backbone))
    renew_hash(bundle, "encoder.safetensors")


def renew_hash(bundle: Path, name: str) -> None:
    content = (bundle / name).read_bytes()
    change_manifest(bundle, lambda manifest: manifest["files"][name].update(sha256=sha256(content), size=len(content)))


def change_manifest(bundle: Path, change: Callable[[dict[str, Any]], object]) -> None:
    manifest = json.loads((bundle / "manifest.json").read_text())
    change(manifest)
    (bundle / "manifest.json").write_text(json.dumps(manifest))


def double_a_scale(bundle: Path) -> str:
    """Doubles the scales of one layer's weights in int8.onnx, and names it."""
    model = onnx.load(bundle / "int8.onnx")
    layer = [node for node in model.graph.node if node.op_type == "Conv"][2]
    restored = next(node for node in model.graph.node if node.output[0] == layer.input[1])
    scales = next(each for each in model.graph.initializer if each.name == restored.input[1])
    scales.CopyFrom(numpy_helper.from_array(2 * numpy_helper.to_array(scales), scales.name))
    write_model(bundle, "int8.onnx", model)
    return layer.name


def change_golden(bundle: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Changes arrays of golden.npz."""
    with np.load(bundle / "golden.npz") as file:
        arrays = dict(file)
    change(arrays)
    with (bundle / "golden.npz").open("wb") as file:
        np.savez(file, **arrays)
    renew_hash(bundle, "golden.npz")
