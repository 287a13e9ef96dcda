"""INT8 in ONNX, by ONNX Runtime's quantizer: QDQ form, static, per channel; the backbone alone."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Collection
from functools import partial
from pathlib import Path
from typing import Any

import onnx
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantFormat, QuantType, quantize_static

from ..models.tracing import Graph, clean, quiet
from ..runtime.preprocessing import Pixels
from .bias_correction import correct_biases
from .onnx_input import scale_by_rows
from .search import Method

AVERAGED = {"CalibMovingAverage": True}


def list_methods(graph: Graph, calibrate: Pixels, target: str) -> list[list[Method[onnx.ModelProto]]]:
    """Ways to quantize with `calibrate` uint8 `[N, H, W, 3]`, those to try side by side together.

    Of ONNX Runtime's other ranges, entropy gave min-max's on every network it was tried on; percentiles took ten times
    as long and kept no more.
    """
    return [
        [Method("min-max ranges", partial(_quantize, graph, calibrate, target, {}))],  # its own default
        [
            Method("min-max ranges, bias correction", partial(_quantize_corrected, graph, calibrate, target, {})),
            quick_method(graph, calibrate, target),
        ],
    ]


def quick_method(graph: Graph, calibrate: Pixels, target: str) -> Method[onnx.ModelProto]:
    """The one that lost least on most networks."""
    return Method(
        "averaged min-max ranges, bias correction", partial(_quantize_corrected, graph, calibrate, target, AVERAGED)
    )


def _quantize_corrected(
    graph: Graph, calibrate: Pixels, target: str, options: dict[str, Any], in_float: Collection[str]
) -> onnx.ModelProto:
    quantized = _quantize(graph, calibrate, target, options, in_float)
    return correct_biases(graph.model, quantized, calibrate)


def _quantize(
    graph: Graph, calibrate: Pixels, target: str, options: dict[str, Any], in_float: Collection[str]
) -> onnx.ModelProto:
    with tempfile.TemporaryDirectory() as folder, quiet():
        path = Path(folder, "int8.onnx")
        quantize_static(
            copy.deepcopy(graph.model),  # it would be changed
            path,
            Reader(calibrate),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            # Without VNNI, products of 8-bit numbers are added up in 16 bits, which 7 bits of weight cannot overflow.
            reduce_range=target == "cpu-avx2",
            activation_type=QuantType.QInt8 if target == "arm" else QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod.MinMax,
            nodes_to_exclude=[*graph.outside, *in_float, *_find_cut(graph.model)],
            extra_options={**options, "ActivationSymmetric": target == "arm"},
        )
        model = onnx.load(path)
    clean(model)
    scale_by_rows(model)
    return model


def _find_cut(model: onnx.ModelProto) -> list[str]:
    """Activations behind a feature map: the quantizer would give the map their range, and cut off what is negative."""
    outputs = {output.name for output in model.graph.output}
    return [node.name for node in model.graph.node if node.op_type in ("Relu", "Clip") and node.input[0] in outputs]


class Reader(CalibrationDataReader):
    """Feeds images to the quantizer a few at a time."""

    def __init__(self, images: Pixels) -> None:
        self._batches = iter([images[start : start + 8] for start in range(0, len(images), 8)])

    def get_next(self) -> Any:
        batch = next(self._batches, None)
        return None if batch is None else {"images": batch}
