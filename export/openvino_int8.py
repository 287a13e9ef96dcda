"""INT8 for OpenVINO, by NNCF: per-channel weights; the backbone alone."""

from __future__ import annotations

from collections.abc import Collection
from functools import partial
from typing import Any

from ..models.tracing import Graph, quiet
from ..runtime.openvino_backend import import_openvino, shared_core
from ..runtime.preprocessing import Pixels
from .openvino_format import convert
from .search import Attempt

openvino = import_openvino()  # before nncf, which has telemetry of its own
with quiet():
    import nncf
    from nncf.quantization.advanced_parameters import AdvancedQuantizationParameters, OverflowFix
    from nncf.quantization.range_estimator import RangeEstimatorParameters, RangeEstimatorParametersSet


def attempts(graph: Graph, calibrate: Pixels, target: str) -> list[list[Attempt[Any]]]:
    """Ways to find the activations' ranges on `calibrate` uint8 `[N, H, W, 3]`, those to try side by side together.

    All but the first with asymmetric activations, which kept more neighbors on every network it was tried on.
    """

    model = convert(graph)

    def by(ranges: RangeEstimatorParameters, **options: Any) -> partial[Any]:
        return partial(_quantize, model, graph.backbone_nodes, calibrate, target, ranges, options)

    asymmetric = {} if target == "arm" else {"preset": nncf.QuantizationPreset.MIXED}
    full = {**asymmetric, "fast_bias_correction": False}
    return [
        [
            Attempt("NNCF's defaults", by(RangeEstimatorParameters())),
            Attempt("min-max ranges", by(RangeEstimatorParametersSet.MINMAX, **asymmetric)),
        ],
        [
            Attempt("histogram ranges", by(RangeEstimatorParametersSet.HISTOGRAM, **asymmetric)),
            Attempt("min-max ranges, full bias correction", by(RangeEstimatorParametersSet.MINMAX, **full)),
            Attempt("histogram ranges, full bias correction", by(RangeEstimatorParametersSet.HISTOGRAM, **full)),
        ],
    ]


def _quantize(
    model: Any,
    backbone_nodes: frozenset[str],
    calibrate: Pixels,
    target: str,
    ranges: RangeEstimatorParameters,
    options: dict[str, Any],
    in_float: Collection[str],
) -> Any:
    shared_core()  # NNCF makes Cores of its own and lets them go
    ignored = [*outside_backbone(model, backbone_nodes), *_convolutions(model, in_float)]
    images = nncf.Dataset([calibrate[index : index + 1] for index in range(len(calibrate))])
    with quiet():
        return nncf.quantize(
            model,
            images,
            subset_size=len(calibrate),
            ignored_scope=nncf.IgnoredScope(names=ignored),
            advanced_parameters=AdvancedQuantizationParameters(
                overflow_fix=OverflowFix.ENABLE if target == "cpu-avx2" else OverflowFix.DISABLE,
                activations_range_estimator_params=ranges,
            ),
            **options,
        )


def _convolutions(model: Any, layers: Collection[str]) -> list[str]:
    """What NNCF is to be told to leave alone: the converter gives a layer's name to its bias, where it has one."""
    names = []
    for operation in model.get_ordered_ops():
        if operation.get_friendly_name() in layers:
            sources = [value.get_source_output().get_node() for value in operation.inputs()]
            weighted = [each for each in (operation, *sources) if _has_weights(each)]
            names += [each.get_friendly_name() for each in weighted]
    return names


def outside_backbone(model: Any, backbone_nodes: frozenset[str]) -> list[str]:
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
    return name not in found and name not in backbone_nodes and not _has_weights(operation)


def _has_weights(operation: Any) -> bool:
    return operation.get_type_name() in ("Convolution", "GroupConvolution", "MatMul")
