"""OpenVINO's IR: its converter from ONNX, and what is written into the files. OpenVINO runs them."""

from __future__ import annotations

import errno
import json
import logging
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

from ..models.tracing import Graph, quiet
from ..runtime.backend import Backend, ModelBytes
from ..runtime.model_file import METADATA_KEY
from ..runtime.model_format import ModelFormat
from ..runtime.openvino_backend import OpenVinoBackend, import_openvino
from ..runtime.openvino_file import OPENVINO_IR
from ..runtime.preprocessing import Pixels
from .search import Method

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class IR:
    """An OpenVINO model. `layers`: names of the backbone's nodes. `half`: weights are stored in float16."""

    model: Any
    layers: frozenset[str]
    half: bool = False


class OpenVinoFormat:
    name: ClassVar[str] = "openvino"
    engine: ClassVar[str] = "OpenVINO"
    file: ClassVar[ModelFormat] = OPENVINO_IR
    backend: ClassVar[type[Backend]] = OpenVinoBackend
    requires: ClassVar[tuple[str, ...]] = ("openvino", "nncf")

    def convert(self, graph: Graph) -> IR:
        log.info("converting to OpenVINO")
        return convert(graph)

    def halve(self, model: IR) -> IR:
        return replace(model, half=True)

    def methods(self, graph: Graph, calibrate: Pixels, target: str) -> list[list[Method[IR]]]:
        from .openvino_int8 import list_methods  # NNCF takes seconds to import

        return list_methods(graph, calibrate, target)

    def quick_method(self, graph: Graph, calibrate: Pixels, target: str) -> Method[IR]:
        from .openvino_int8 import quick_method

        return quick_method(graph, calibrate, target)

    def label(self, model: IR, essentials: dict[str, Any]) -> IR:
        labeled = model.model.clone()
        _name_by_place(labeled, model.layers)
        labeled.set_rt_info(json.dumps(essentials, sort_keys=True), METADATA_KEY)
        return replace(model, model=labeled)

    def serialize(self, model: IR) -> ModelBytes:
        with tempfile.TemporaryDirectory() as folder:
            xml = Path(folder, "model.xml")
            try:
                import_openvino().save_model(model.model, xml, compress_to_fp16=model.half)
            except RuntimeError as error:  # the same for a full disk as for anything else
                raise OSError(errno.EIO, f"OpenVINO cannot write it ({error}); is the disk full?", str(xml)) from error
            return ModelBytes(OPENVINO_IR.name, (xml.read_bytes(), xml.with_suffix(".bin").read_bytes()))


def convert(graph: Graph) -> IR:
    """An FP32 ONNX model as an OpenVINO model, the backbone's layers under their names."""
    with tempfile.TemporaryDirectory() as folder, quiet():
        file = Path(folder, "model.onnx")
        file.write_bytes(graph.model.SerializeToString())
        # Not Core().read_model: NNCF corrects no bias in what that gives.
        model = import_openvino().convert_model(file)
    # It calls what makes an output by the output's name, where it is a layer of the backbone, too.
    makers = {node.output[0]: node.name for node in graph.model.graph.node if node.name in graph.backbone_nodes}
    for result in model.get_results():
        source = result.input(0).get_source_output()
        name = next((makers[name] for name in source.get_names() if name in makers), None)
        if name is not None:
            source.get_node().set_friendly_name(name)
    _name_by_place(model, graph.backbone_nodes)  # NNCF writes the names of what it leaves in float into the IR
    return IR(model, graph.backbone_nodes)


def _name_by_place(model: Any, layers: frozenset[str]) -> None:
    """Names that OpenVINO makes up count on through a process; by place in the graph, equal models are equal bytes."""
    for place, operation in enumerate(model.get_ordered_ops()):
        kind = operation.get_type_name()
        if kind not in ("Parameter", "Result") and operation.get_friendly_name() not in layers:
            operation.set_friendly_name(f"{kind}_{place}")
