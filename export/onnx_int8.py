"""INT8 in ONNX, by ONNX Runtime's quantiser: QDQ form, static, per channel; the backbone alone."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Collection
from functools import partial
from pathlib import Path
from typing import Any

import onnx
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantFormat, QuantType, quantize_static

from ..runtime.preprocessing import Pixels
from .ladder import Attempt
from .onnx_format import Graph, clean, quiet


def attempts(graph: Graph, calibrate: Pixels, target: str) -> list[list[Attempt[onnx.ModelProto]]]:
    """Ways to find the activations' ranges on `calibrate` uint8 `[N, H, W, 3]`, those to try side by side together.

    ONNX Runtime's third, by entropy, gave min-max's ranges on every network it was tried on.
    """

    def by(method: CalibrationMethod, **options: Any) -> partial[onnx.ModelProto]:
        return partial(_quantise, graph, calibrate, target, method, options)

    return [
        [
            Attempt("min-max ranges", by(CalibrationMethod.MinMax)),
            Attempt("averaged min-max ranges", by(CalibrationMethod.MinMax, CalibMovingAverage=True)),
        ],
        [Attempt("percentile ranges", by(CalibrationMethod.Percentile, CalibPercentile=99.99))],
    ]


def _quantise(
    graph: Graph,
    calibrate: Pixels,
    target: str,
    method: CalibrationMethod,
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
            calibrate_method=method,
            nodes_to_exclude=[*graph.outside, *in_float],
            extra_options={**options, "ActivationSymmetric": target == "arm"},
        )
        model = onnx.load(path)
    clean(model)
    return model


class Reader(CalibrationDataReader):
    """Feeds images to the quantiser a few at a time, in batches of one size: percentiles take no other."""

    def __init__(self, images: Pixels) -> None:
        size = next(size for size in (8, 7, 6, 5, 4, 3, 2, 1) if len(images) % size == 0)
        self._batches = iter([images[start : start + size] for start in range(0, len(images), size)])

    def get_next(self) -> Any:
        batch = next(self._batches, None)
        return None if batch is None else {"images": batch}
