"""OpenVINO's files: its converter from ONNX, and what is written into an IR."""

from __future__ import annotations

import errno
import json
import tempfile
from pathlib import Path
from typing import Any

from ..models.tracing import Graph, quiet
from ..runtime.backend import ModelBytes
from ..runtime.model_file import METADATA_KEY
from ..runtime.openvino_backend import import_openvino

openvino = import_openvino()


def convert(graph: Graph) -> Any:
    """An FP32 ONNX model as an OpenVINO model, the backbone's layers under their names."""
    with tempfile.TemporaryDirectory() as folder, quiet():
        file = Path(folder, "model.onnx")
        file.write_bytes(graph.model.SerializeToString())
        # Not Core().read_model: NNCF corrects no bias in what that gives.
        model = openvino.convert_model(file)
    _name_by_place(model, graph.backbone_nodes)  # NNCF writes the names of what it leaves in float into the IR
    return model


def contents(model: Any) -> ModelBytes:
    """What the .xml and the .bin file would hold, for an engine to load."""
    with tempfile.TemporaryDirectory() as folder:
        xml = Path(folder, "model.xml")
        openvino.save_model(model, xml, compress_to_fp16=False)
        return ModelBytes("xml", (xml.read_bytes(), xml.with_suffix(".bin").read_bytes()))


def save(model: Any, xml: Path, essentials: dict[str, Any], backbone_nodes: frozenset[str], half: bool) -> None:
    """Writes the .xml and the .bin beside it, with the manifest's essentials in `rt_info`. `half`: float16 weights."""
    _name_by_place(model, backbone_nodes)
    model.set_rt_info(json.dumps(essentials, sort_keys=True), METADATA_KEY)
    try:
        openvino.save_model(model, xml, compress_to_fp16=half)
    except RuntimeError as error:  # the same for a full disk as for anything else
        raise OSError(errno.EIO, f"OpenVINO cannot write it ({error}); is the disk full?", str(xml)) from error


def _name_by_place(model: Any, backbone_nodes: frozenset[str]) -> None:
    """Names that OpenVINO makes up count on through a process; by place in the graph, equal models are equal bytes."""
    for place, operation in enumerate(model.get_ordered_ops()):
        kind = operation.get_type_name()
        if kind not in ("Parameter", "Result") and operation.get_friendly_name() not in backbone_nodes:
            operation.set_friendly_name(f"{kind}_{place}")
