"""INT8 for OpenVINO, by NNCF: per-channel weights; the backbone alone."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field, replace
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
    from nncf.quantization.advanced_parameters import (
        AdvancedQuantizationParameters,
        OverflowFix,
        QuantizationParameters,
    )
    from nncf.quantization.range_estimator import RangeEstimatorParameters, RangeEstimatorParametersSet

MIN_MAX, HISTOGRAM = RangeEstimatorParametersSet.MINMAX, RangeEstimatorParametersSet.HISTOGRAM


@dataclass(frozen=True)
class Options:
    """How NNCF quantizes. Defaults are its own, among them symmetric activations.

    `per_channel`: the inputs of depthwise convolutions have a range for each channel.
    """

    ranges: RangeEstimatorParameters = field(default_factory=RangeEstimatorParameters)
    asymmetric: bool = False
    full_correction: bool = False
    per_channel: bool = True


def list_methods(graph: Graph, calibrate: Pixels, target: str) -> list[list[Method[IR]]]:
    """Ways to quantize with `calibrate` uint8 `[N, H, W, 3]`, those to try side by side together.

    All but the first with asymmetric activations, which kept more neighbors on every network trained here.
    """
    ir = convert(graph)

    def by(ranges: RangeEstimatorParameters, full_correction: bool = False) -> partial[IR]:
        return partial(_quantize, ir, calibrate, target, Options(ranges, target != "arm", full_correction))

    return [
        [
            Method("NNCF's defaults", partial(_quantize, ir, calibrate, target, Options())),
            Method("min-max ranges", by(MIN_MAX)),
        ],
        [
            Method("min-max ranges, full bias correction", by(MIN_MAX, full_correction=True)),
            Method("histogram ranges, full bias correction", by(HISTOGRAM, full_correction=True)),
        ],
    ]


def quick_method(graph: Graph, calibrate: Pixels, target: str) -> Method[IR]:
    """One that goes well with images of another kind than will come: no channel has a range of its own.

    Calibrated on crops of two photographs, EfficientNet-Lite0 had a cosine of 0.987 with a range per channel on
    others, and of 0.996 without.
    """
    options = Options(MIN_MAX, target != "arm", full_correction=True, per_channel=False)
    return Method(
        "min-max ranges per tensor, full bias correction",
        partial(_quantize, convert(graph), calibrate, target, options),
    )


def _quantize(ir: IR, calibrate: Pixels, target: str, options: Options, in_float: Collection[str]) -> IR:
    shared_core()  # NNCF makes Cores of its own and lets them go
    ignored = [*outside_backbone(ir), *_convolutions(ir, in_float)]
    images = nncf.Dataset([calibrate[index : index + 1] for index in range(len(calibrate))])
    with quiet():
        quantized = nncf.quantize(
            ir.model,
            images,
            preset=nncf.QuantizationPreset.MIXED if options.asymmetric else None,
            subset_size=len(calibrate),
            fast_bias_correction=not options.full_correction,
            ignored_scope=nncf.IgnoredScope(names=ignored),
            advanced_parameters=AdvancedQuantizationParameters(
                overflow_fix=OverflowFix.ENABLE if target == "cpu-avx2" else OverflowFix.DISABLE,
                activations_range_estimator_params=options.ranges,
                activations_quantization_params=None
                if options.per_channel
                else QuantizationParameters(per_channel=False),
            ),
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
    """Names of the operations around the backbones: those that no layer leads to, or that lead to no layer.

    The converter renames and adds operations, so they are found by where they stand in the graph.
    """
    operations = ir.model.get_ordered_ops()
    layers = {each.get_friendly_name() for each in operations if _is_layer(each, ir.layers)}
    behind, before = set(layers), set(layers)
    for operation in operations:
        sources = [value.get_source_output().get_node() for value in operation.inputs()]
        if any(each.get_friendly_name() in behind for each in sources):
            behind.add(operation.get_friendly_name())
    for operation in reversed(operations):
        if any(each.get_friendly_name() in before for each in _find_followers(operation)):
            before.add(operation.get_friendly_name())
    passive = {"Parameter", "Result", "Constant"}
    return sorted(
        each.get_friendly_name()
        for each in operations
        if each.get_type_name() not in passive and each.get_friendly_name() not in before & behind
    )


def _is_layer(operation: Any, layers: frozenset[str]) -> bool:
    """The converter gives a layer's name to its bias, where it has one."""
    names = [each.get_friendly_name() for each in (operation, *_find_followers(operation))]
    return names[0] in layers or (_has_weights(operation) and not layers.isdisjoint(names))


def _find_followers(operation: Any) -> list[Any]:
    return [target.get_node() for output in operation.outputs() for target in output.get_target_inputs()]


def _has_weights(operation: Any) -> bool:
    return operation.get_type_name() in ("Convolution", "GroupConvolution", "MatMul")
