import json
import re
from collections import Counter
from pathlib import Path

import onnx
import pytest
from byol_edge.models.tracing import OPSET
from byol_edge.runtime.model_file import METADATA_KEY


def load(bundle: Path, name: str) -> onnx.ModelProto:
    return onnx.load(bundle / name)


@pytest.mark.parametrize("name", ["fp32.onnx", "int8.onnx"])
def test_the_interface_is_that_of_the_design(finished_bundle: Path, name: str):
    model = load(finished_bundle, name)
    onnx.checker.check_model(model, full_check=True)
    (images,), (embeddings,) = model.graph.input, model.graph.output
    assert (images.name, embeddings.name) == ("images", "embeddings")
    assert images.type.tensor_type.elem_type == onnx.TensorProto.UINT8
    assert embeddings.type.tensor_type.elem_type == onnx.TensorProto.FLOAT
    shape = images.type.tensor_type.shape.dim
    assert shape[0].dim_param  # any batch
    assert [dim.dim_value for dim in shape[1:]] == [32, 32, 3]
    assert {entry.domain: entry.version for entry in model.opset_import}[""] == OPSET


@pytest.mark.parametrize("name", ["fp32.onnx", "int8.onnx"])
def test_a_file_holds_its_essentials_and_nothing_of_this_machine(finished_bundle: Path, name: str):
    model = load(finished_bundle, name)
    metadata = {entry.key: json.loads(entry.value) for entry in model.metadata_props}
    assert metadata[METADATA_KEY]["variant"] == name
    assert metadata[METADATA_KEY]["embedding_size"] == 256
    assert not any(tensor.HasField("data_location") and tensor.data_location for tensor in model.graph.initializer)
    text = (finished_bundle / name).read_bytes()
    assert not re.search(rb"/home/|/root/|/tmp/|site-packages|\.py\b", text)


def test_batch_norm_is_folded_and_the_network_alone_is_quantized(finished_bundle: Path):
    fp32, int8 = (
        Counter(node.op_type for node in load(finished_bundle, name).graph.node) for name in ("fp32.onnx", "int8.onnx")
    )
    assert fp32["Conv"] == int8["Conv"] == 4
    assert fp32["BatchNormalization"] == 0
    assert fp32["QuantizeLinear"] == 0
    assert int8["QuantizeLinear"] >= 4

    model = load(finished_bundle, "int8.onnx")
    made_by = {output: node for node in model.graph.node for output in node.output}
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Conv":  # every convolution takes int8 weights, one scale per channel
            dequantize = made_by[node.input[1]]
            assert weights[dequantize.input[0]].data_type == onnx.TensorProto.INT8
            assert list(weights[dequantize.input[1]].dims) == [weights[dequantize.input[0]].dims[0]]
    # and the last step, to unit length, is in float
    assert made_by["embeddings"].op_type == "Div"
    assert made_by[made_by["embeddings"].input[1]].op_type not in ("DequantizeLinear", "QuantizeLinear")
