from pathlib import Path

import numpy as np
import onnx
import pytest
from byol_edge.export import bias_correction
from byol_edge.export.bias_correction import correct_biases
from byol_edge.export.config import ExportConfig
from byol_edge.export.onnx_format import OnnxFormat
from byol_edge.export.onnx_int8 import list_methods
from byol_edge.export.source import Source, load_source
from byol_edge.export.target import find_target
from byol_edge.models.tracing import Graph, trace
from byol_edge.runtime import compare
from byol_edge.runtime.onnxruntime_backend import OnnxRuntimeBackend
from onnx import numpy_helper


@pytest.fixture(scope="module")
def source(finished_run: Path) -> Source:
    return load_source(finished_run, ExportConfig())


@pytest.fixture(scope="module")
def graph(source: Source) -> Graph:
    return trace(source.network)


@pytest.fixture(scope="module")
def quantized(graph: Graph, source: Source) -> onnx.ModelProto:
    return list_methods(graph, source.calibrate, find_target())[0][0].quantize([])


def convolutions(model: onnx.ModelProto) -> list[str]:
    return [node.name for node in model.graph.node if node.op_type == "Conv"]


def largest_shift(graph: Graph, model: onnx.ModelProto, source: Source) -> float:
    """Of the channels' means from what they are in float, over all layers."""
    names, images = convolutions(model), source.calibrate[: bias_correction.IMAGES]
    expected, found = (bias_correction._measure_means(each, names, images) for each in (graph.model, model))
    assert list(expected) == names
    return max(float(np.abs(expected[name] - found[name]).max()) for name in names)


def cosine(model: onnx.ModelProto, source: Source) -> float:
    engine = OnnxRuntimeBackend.load(OnnxFormat().serialize(model), 1)
    return compare(source.reference, engine.run(source.judge)).cosine_mean


def bend(model: onnx.ModelProto, steps: int) -> onnx.ModelProto:
    """A copy whose first layer's biases are wrong by that many steps."""
    bent = onnx.ModelProto()
    bent.CopyFrom(model)
    bias = next(
        tensor for tensor in bent.graph.initializer if tensor.data_type == onnx.TensorProto.INT32 and tensor.dims
    )
    bias.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(bias) + np.int32(steps), bias.name))
    return bent


def test_channels_have_the_means_that_they_have_in_float(graph: Graph, quantized: onnx.ModelProto, source: Source):
    corrected = correct_biases(graph.model, quantized, source.calibrate)
    assert largest_shift(graph, corrected, source) < 0.2 * largest_shift(graph, quantized, source)


def test_wrong_biases_are_made_right(graph: Graph, quantized: onnx.ModelProto, source: Source):
    bent = bend(quantized, 3000)
    assert cosine(bent, source) < cosine(quantized, source) - 0.001
    corrected = correct_biases(graph.model, bent, source.calibrate)
    assert cosine(corrected, source) > cosine(quantized, source) - 0.0002


def test_biases_alone_are_changed(graph: Graph, quantized: onnx.ModelProto, source: Source):
    before = quantized.SerializeToString()
    corrected = correct_biases(graph.model, quantized, source.calibrate)
    assert quantized.SerializeToString() == before
    assert [node.SerializeToString() for node in corrected.graph.node] == [
        node.SerializeToString() for node in quantized.graph.node
    ]
    assert [output.name for output in corrected.graph.output] == ["embeddings"]
    pairs = zip(corrected.graph.initializer, quantized.graph.initializer, strict=True)
    changed = [new for new, old in pairs if new.SerializeToString() != old.SerializeToString()]
    assert changed
    assert {tensor.data_type for tensor in changed} == {onnx.TensorProto.INT32}


def test_a_layer_in_float_is_corrected_too(graph: Graph, source: Source):
    last = convolutions(graph.model)[-1]
    quantize = list_methods(graph, source.calibrate, find_target())[0][0].quantize
    mixed = quantize([last])
    corrected = correct_biases(graph.model, mixed, source.calibrate)
    assert largest_shift(graph, corrected, source) < 0.2 * largest_shift(graph, mixed, source)


def test_a_bias_that_layers_share_is_left_alone(graph: Graph, quantized: onnx.ModelProto, source: Source):
    shared = onnx.ModelProto()
    shared.CopyFrom(quantized)
    first, second = [node for node in shared.graph.node if node.op_type == "Conv"][:2]
    second.input[2] = first.input[2]
    corrected = bias_correction._find_biases(shared)
    assert not {first.name, second.name} & set(corrected)
    assert set(corrected) == set(convolutions(shared)[2:])
