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
from .search import Method


def list_methods(graph: Graph, calibrate: Pixels, target: str) -> list[list[Method[onnx.ModelProto]]]:
    """Ways to find the activations' ranges on `calibrate` uint8 `[N, H, W, 3]`, those to try side by side together.

    Of ONNX Runtime's others, entropy gave min-max's ranges on every network it was tried on; percentiles took ten times
    as long and kept no more.
    """

    def by(**options: Any) -> partial[onnx.ModelProto]:
        return partial(_quantize, graph, calibrate, target, options)

    return [
        [Method("min-max ranges", by())],  # its own default
        [Method("averaged min-max ranges", by(CalibMovingAverage=True))],
    ]


def _quantize(
    graph: Graph,
    calibrate: Pixels,
    target: str,
    options: dict[str, Any],
    in_float: Collection[str],
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
            nodes_to_exclude=[*graph.outside, *in_float],
            extra_options={**options, "ActivationSymmetric": target == "arm"},
        )
        model = onnx.load(path)
    clean(model)
    return model


class Reader(CalibrationDataReader):
    """Feeds images to the quantizer a few at a time."""

    def __init__(self, images: Pixels) -> None:
        self._batches = iter([images[start : start + 8] for start in range(0, len(images), 8)])

    def get_next(self) -> Any:
        batch = next(self._batches, None)
        return None if batch is None else {"images": batch}
