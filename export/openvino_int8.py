"""INT8 for OpenVINO, by NNCF: per-channel weights; the backbone alone."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from functools import partial
from typing import Any

from ..models.tracing import Graph, quiet
from ..runtime.openvino_backend import import_openvino, shared_core
from ..runtime.preprocessing import Pixels
from .openvino_format import IR, convert
from .search import Method

import_openvino()  # before nncf, which has telemetry of its own
with quiet():
    import nncf
    from nncf.quantization.advanced_parameters import AdvancedQuantizationParameters, OverflowFix
    from nncf.quantization.range_estimator import RangeEstimatorParameters, RangeEstimatorParametersSet


def list_methods(graph: Graph, calibrate: Pixels, target: str) -> list[list[Method[IR]]]:
    """Ways to find the activations' ranges on `calibrate` uint8 `[N, H, W, 3]`, those to try side by side together.

    All but the first with asymmetric activations, which kept more neighbors on every network it was tried on.
    """
    ir = convert(graph)

    def by(ranges: RangeEstimatorParameters, **options: Any) -> partial[IR]:
        return partial(_quantize, ir, calibrate, target, ranges, options)

    asymmetric = {} if target == "arm" else {"preset": nncf.QuantizationPreset.MIXED}
    full = {**asymmetric, "fast_bias_correction": False}
    return [
        [
            Method("NNCF's defaults", by(RangeEstimatorParameters())),
            Method("min-max ranges", by(RangeEstimatorParametersSet.MINMAX, **asymmetric)),
        ],
        [
            Method("histogram ranges", by(RangeEstimatorParametersSet.HISTOGRAM, **asymmetric)),
            Method("min-max ranges, full bias correction", by(RangeEstimatorParametersSet.MINMAX, **full)),
            Method("histogram ranges, full bias correction", by(RangeEstimatorParametersSet.HISTOGRAM, **full)),
        ],
    ]


def _quantize(
    ir: IR,
    calibrate: Pixels,
    target: str,
    ranges: RangeEstimatorParameters,
    options: dict[str, Any],
    in_float: Collection[str],
) -> IR:
    shared_core()  # NNCF makes Cores of its own and lets them go
    ignored = [*outside_backbone(ir), *_convolutions(ir, in_float)]
    images = nncf.Dataset([calibrate[index : index + 1] for index in range(len(calibrate))])
    with quiet():
        quantized = nncf.quantize(
            ir.model,
            images,
            subset_size=len(calibrate),
            ignored_scope=nncf.IgnoredScope(names=ignored),
            advanced_parameters=AdvancedQuantizationParameters(
                overflow_fix=OverflowFix.ENABLE if target == "cpu-avx2" else OverflowFix.DISABLE,
                activations_range_estimator_params=ranges,
            ),
            **options,
        )
    return replace(ir, model=quantized)


def _convolutions(ir: IR, layers: Collection[str]) -> list[str]:
    """What NNCF is to be told to leave alone: the converter gives a layer's name to its bias, where it has one."""
    names = []
    for operation in ir.model.get_ordered_ops():
        if operation.get_friendly_name() in layers:
            sources = [value.get_source_output().get_node() for value in operation.inputs()]
            weighted = [each for each in (operation, *sources) if _has_weights(each)]
            names += [each.get_friendly_name() for each in weighted]
    return names


def outside_backbone(ir: IR) -> list[str]:
    """Names of the operations before and after the backbone.

    The converter renames and adds operations, so they are found by walking in from both ends of the graph.
    """
    found: dict[str, Any] = {}
    front = list(ir.model.get_parameters())
    while front:
        operation = front.pop()
        found[operation.get_friendly_name()] = operation
        followers = [target.get_node() for output in operation.outputs() for target in output.get_target_inputs()]
        front += [each for each in followers if _is_new(each, found, ir.layers)]
    front = list(ir.model.get_results())
    while front:
        operation = front.pop()
        found[operation.get_friendly_name()] = operation
        sources = [value.get_source_output().get_node() for value in operation.inputs()]
        front += [each for each in sources if _is_new(each, found, ir.layers)]
    passive = {"Parameter", "Result", "Constant"}
    return sorted(name for name, operation in found.items() if operation.get_type_name() not in passive)


def _is_new(operation: Any, found: dict[str, Any], layers: frozenset[str]) -> bool:
    """Whether a walk goes on here. The converter may move a layer's name to its bias, but what has weights is known."""
    name = operation.get_friendly_name()
    return name not in found and name not in layers and not _has_weights(operation)


def _has_weights(operation: Any) -> bool:
    return operation.get_type_name() in ("Convolution", "GroupConvolution", "MatMul")
