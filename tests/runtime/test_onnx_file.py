from pathlib import Path

import numpy as np
import onnx
import pytest
from byol_edge.runtime import BundleError, Encoder
from byol_edge.runtime.onnx_file import has_external_data
from onnx import TensorProto, helper, numpy_helper


def external() -> TensorProto:
    tensor = numpy_helper.from_array(np.zeros(4, np.float32), "weights")
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../../etc/passwd")
    return tensor


def graph(*tensors: TensorProto, nodes: tuple[onnx.NodeProto, ...] = ()) -> onnx.GraphProto:
    return helper.make_graph(list(nodes), "g", [], [], list(tensors))


def in_a_constant() -> onnx.GraphProto:
    return graph(nodes=(helper.make_node("Constant", [], ["c"], value=external()),))


def in_a_branch() -> onnx.GraphProto:
    return graph(nodes=(helper.make_node("If", ["c"], ["o"], then_branch=graph(external()), else_branch=graph()),))


@pytest.mark.parametrize("hidden", [graph(external()), in_a_constant(), in_a_branch()])
def test_external_data_is_found_wherever_it_is(hidden: onnx.GraphProto):
    assert has_external_data(helper.make_model(hidden).SerializeToString())


def test_external_data_is_found_in_a_function():
    function = helper.make_function("d", "f", [], ["c"], list(in_a_constant().node), [helper.make_opsetid("", 18)])
    assert has_external_data(helper.make_model(graph(), functions=[function]).SerializeToString())


def test_what_is_exported_has_none(finished_bundle: Path):
    for name in ("fp32.onnx", "int8.onnx"):
        assert not has_external_data((finished_bundle / name).read_bytes())


@pytest.mark.parametrize("content", [b"\xff" * 100, b"junk", b"\x3a\xff\xff\xff\xff\x0f", b"\x08"])
def test_what_is_no_protobuf_is_said_to_be_none(content: bytes):
    with pytest.raises(ValueError, match=r"cut off|not a protobuf"):
        has_external_data(content)


def test_graphs_nested_without_end_are_refused():
    inner = graph()
    for _ in range(20):
        inner = graph(nodes=(helper.make_node("If", ["c"], ["o"], then_branch=inner, else_branch=graph()),))
    with pytest.raises(ValueError, match="too deep"):
        has_external_data(helper.make_model(inner).SerializeToString())


def test_an_encoder_refuses_it(bundle: Path):
    model = onnx.load(bundle / "fp32.onnx")
    model.graph.initializer.append(external())
    (bundle / "alone.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(BundleError, match=r"alone\.onnx: takes weights from another file"):
        Encoder(bundle / "alone.onnx")
