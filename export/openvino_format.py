"""The OpenVINO variants: FP32 by its converter, INT8 by NNCF."""

from __future__ import annotations

import errno
import json
from pathlib import Path
from typing import Any

from ..runtime.bundle import METADATA_KEY
from ..runtime.openvino_backend import import_openvino, shared_core
from ..runtime.preprocessing import Pixels
from .onnx_format import quiet

openvino = import_openvino()  # before nncf, which has telemetry of its own
with quiet():
    import nncf
    from nncf.quantization.advanced_parameters import AdvancedQuantizationParameters
    from nncf.quantization.range_estimator import RangeEstimatorParametersSet


def convert(onnx_file: Path) -> Any:
    """An FP32 .onnx file as an OpenVINO model."""
    with quiet():
        # Not Core().read_model: NNCF corrects no bias in what that gives.
        return openvino.convert_model(onnx_file)


def quantise(model: Any, backbone_nodes: frozenset[str], calibrate: Pixels) -> Any:
    """INT8 by NNCF, the backbone alone: per-channel weights, min-max ranges, fast bias correction.

    Min-max keeps more neighbours than NNCF's default ranges (ResNet-18: .95 against .92).
    """
    shared_core()  # NNCF makes Cores of its own and lets them go
    ignored = nncf.IgnoredScope(names=_outside_backbone(model, backbone_nodes))
    images = nncf.Dataset([calibrate[index : index + 1] for index in range(len(calibrate))])
    with quiet():
        return nncf.quantize(
            model,
            images,
            subset_size=len(calibrate),
            ignored_scope=ignored,
            advanced_parameters=AdvancedQuantizationParameters(
                activations_range_estimator_params=RangeEstimatorParametersSet.MINMAX
            ),
        )


def save(model: Any, xml: Path, essentials: dict[str, Any], backbone_nodes: frozenset[str]) -> None:
    """Writes the .xml and the .bin beside it, with the manifest's essentials in `rt_info`."""
    # Names that OpenVINO makes up count on through a process; by place in the graph, the same model is the same bytes.
    for place, operation in enumerate(model.get_ordered_ops()):
        kind = operation.get_type_name()
        if kind not in ("Parameter", "Result") and operation.get_friendly_name() not in backbone_nodes:
            operation.set_friendly_name(f"{kind}_{place}")
    model.set_rt_info(json.dumps(essentials, sort_keys=True), METADATA_KEY)
    try:
        openvino.save_model(model, xml, compress_to_fp16=False)
    except RuntimeError as error:  # the same for a full disk as for anything else
        raise OSError(errno.EIO, f"OpenVINO cannot write it ({error}); is the disk full?", str(xml)) from error


def _outside_backbone(model: Any, backbone_nodes: frozenset[str]) -> list[str]:
    """Names of the operations before and after the backbone.

    The converter renames and adds operations, so they are found by walking in from both ends of the graph.
    """
    found: dict[str, Any] = {}
    front = list(model.get_parameters())
    while front:
        operation = front.pop()
        found[operation.get_friendly_name()] = operation
        followers = [target.get_node() for output in operation.outputs() for target in output.get_target_inputs()]
        front += [each for each in followers if _is_new(each, found, backbone_nodes)]
    front = list(model.get_results())
    while front:
        operation = front.pop()
        found[operation.get_friendly_name()] = operation
        sources = [value.get_source_output().get_node() for value in operation.inputs()]
        front += [each for each in sources if _is_new(each, found, backbone_nodes)]
    passive = {"Parameter", "Result", "Constant"}
    return sorted(name for name, operation in found.items() if operation.get_type_name() not in passive)


def _is_new(operation: Any, found: dict[str, Any], backbone_nodes: frozenset[str]) -> bool:
    """Whether a walk goes on here. The converter may move a layer's name to its bias, but what has weights is known."""
    name = operation.get_friendly_name()
    has_weights = operation.get_type_name() in ("Convolution", "GroupConvolution", "MatMul")
    return name not in found and name not in backbone_nodes and not has_weights
