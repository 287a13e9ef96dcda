from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from byol_edge.runtime import BundleError, Encoder
from byol_edge.runtime.onnx_file import check
from onnx import TensorProto, helper, numpy_helper

Change = Callable[[onnx.ModelProto], object]


@pytest.fixture(scope="module")
def exported(finished_bundle: Path) -> bytes:
    return (finished_bundle / "fp32.onnx").read_bytes()


def external() -> TensorProto:
    tensor = numpy_helper.from_array(np.zeros(4, np.float32), "outside")
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../../etc/passwd")
    return tensor


def graph(*nodes: onnx.NodeProto) -> onnx.GraphProto:
    return helper.make_graph(list(nodes), "g", [], [], [])


def add(*nodes: onnx.NodeProto) -> Change:
    return lambda model: model.graph.node.extend(nodes)


def lengthen(model: onnx.ModelProto) -> None:
    model.graph.initializer[0].dims[0] += 1


def claim_more_than_there_is(model: onnx.ModelProto) -> None:
    model.graph.initializer[0].dims[:] = [2**20, 2**20]
    model.graph.initializer[0].ClearField("raw_data")


def take_away(model: onnx.ModelProto) -> None:
    del model.graph.node[1]


def turn_round(model: onnx.ModelProto) -> None:
    nodes = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend(nodes[::-1])


def take_floats(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.FLOAT


def take_two(model: onnx.ModelProto) -> None:
    model.graph.input.append(helper.make_tensor_value_info("more", TensorProto.UINT8, [1, 8, 8, 3]))


def give_two(model: onnx.ModelProto) -> None:
    model.graph.output.append(model.graph.output[0])


def give_nothing(model: onnx.ModelProto) -> None:
    model.graph.output.append(helper.make_tensor_value_info("nowhere", TensorProto.FLOAT, ["n", 3, 4, 4]))


def give_a_map(model: onnx.ModelProto) -> None:
    value = next(node.output[0] for node in model.graph.node if node.op_type == "Conv")
    model.graph.output.append(helper.make_tensor_value_info(value, TensorProto.FLOAT, ["n", 3, 4, 4]))


def give_it_twice(model: onnx.ModelProto) -> None:
    give_a_map(model)
    give_a_map(model)


def give_it_first(model: onnx.ModelProto) -> None:
    give_a_map(model)
    outputs = [onnx.ValueInfoProto.FromString(each.SerializeToString()) for each in model.graph.output]
    del model.graph.output[:]
    model.graph.output.extend(outputs[::-1])


def give_many(model: onnx.ModelProto) -> None:
    for number in range(100):
        model.graph.node.append(helper.make_node("Relu", ["images"], [f"more{number}"]))
        model.graph.output.append(helper.make_tensor_value_info(f"more{number}", TensorProto.FLOAT, ["n", 3, 4, 4]))


def give_bytes(model: onnx.ModelProto) -> None:
    model.graph.output.append(helper.make_tensor_value_info("images", TensorProto.UINT8, ["n", 8, 8, 3]))


def stretch(model: onnx.ModelProto) -> None:
    (strides,) = [each for node in model.graph.node[:5] for each in node.attribute if each.name == "strides"][:1]
    strides.ints[0] = 2**40


def know_another_set(model: onnx.ModelProto) -> None:
    model.opset_import.append(helper.make_opsetid("com.example", 1))


def define(model: onnx.ModelProto) -> None:
    opset = helper.make_opsetid("", 18)
    model.functions.append(helper.make_function("d", "f", [], ["c"], [helper.make_node("Relu", ["c"], ["d"])], [opset]))


def thin_out(model: onnx.ModelProto) -> None:
    model.graph.sparse_initializer.append(
        helper.make_sparse_tensor(
            helper.make_tensor("values", TensorProto.FLOAT, [1], [1.0]),
            helper.make_tensor("places", TensorProto.INT64, [1], [0]),
            [2**40],
        )
    )


def grow(operator: str, *operands: str) -> Change:
    def change(model: onnx.ModelProto) -> None:
        model.graph.initializer.append(helper.make_tensor("sizes", TensorProto.INT64, [2], [2**16, 2**15]))
        model.graph.initializer.append(numpy_helper.from_array(np.array([1, 2**31]), "raw"))
        model.graph.node.append(helper.make_node(operator, list(operands), ["grown"]))

    return change


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda model: model.graph.initializer.append(external()), "external data"),
        (add(helper.make_node("Constant", [], ["c"], value=external())), "external data"),
        (add(helper.make_node("Loop", [], ["c"], body=graph())), "operator 'Loop'"),
        (add(helper.make_node("If", ["images"], ["c"], then_branch=graph(), else_branch=graph())), "operator 'If'"),
        (add(helper.make_node("Relu", ["images"], ["c"], body=graph())), "a graph of its own"),
        (add(helper.make_node("Relu", ["images"], ["c"], domain="com.example")), "operator 'Relu'"),
        (add(helper.make_node("Relu", ["nowhere"], ["c"])), "does not come before it"),
        (add(helper.make_node("Relu", ["images"], ["embeddings"])), "another's name"),
        (add(helper.make_node("Relu", ["images"], [])), "or none"),
        (lengthen, "not as long as it says"),
        (claim_more_than_there_is, "not as long as it says"),
        (take_away, "does not come before it"),
        (turn_round, "does not come before it"),
        (take_floats, "one batch of images"),
        (take_two, "one batch of images"),
        (give_two, "one vector per image"),
        (give_nothing, "one that nothing computes"),
        (give_it_twice, "an output twice"),
        (give_it_first, "one vector per image"),
        (give_many, "too many"),
        (give_bytes, "one vector per image"),
        (stretch, "out of range"),
        (know_another_set, "an operator set"),
        (define, "functions of its own"),
        (thin_out, "sparse tensors"),
        (grow("ConstantOfShape", "sizes"), "more numbers than any network has"),
        (grow("Expand", "images", "raw"), "more numbers than any network has"),
        (grow("Tile", "images", "sizes"), "more numbers than any network has"),
        (grow("Resize", "images", "", "", "raw"), "more numbers than any network has"),
    ],
)
def test_what_is_not_of_the_kind_that_is_exported_is_refused(exported: bytes, change: Change, reason: str):
    model = onnx.load_model_from_string(exported)
    change(model)
    with pytest.raises(ValueError, match=reason):
        check([model.SerializeToString()])


@pytest.mark.parametrize("name", ["fp32.onnx", "int8.onnx"])
def test_what_is_exported_is_let_through(finished_bundle: Path, mapped_bundle: Path, name: str):
    assert check([(finished_bundle / name).read_bytes()]) == 0
    assert check([(mapped_bundle / name).read_bytes()]) == 2


@pytest.mark.parametrize("content", [b"\xff" * 100, b"junk", b"\x3a\xff\xff\xff\xff\x0f", b"\x08", b""])
def test_what_is_no_protobuf_is_said_to_be_none(content: bytes):
    with pytest.raises(ValueError, match=r"not an \.onnx file"):
        check([content])


def test_a_graph_that_is_given_twice_is_refused(exported: bytes):
    with pytest.raises(ValueError, match="not one graph"):
        check([exported + exported])  # parsers of protobuf join them


def test_a_field_whose_number_overflows_is_refused(exported: bytes):
    """An engine keeps 32 bits of a tag: it would read a second graph here, merged into the first."""
    more = graph(helper.make_node("Loop", [], ["x"])).SerializeToString()
    tag = b"\xba\x80\x80\x80\x10"  # field 7 + 2**29, of bytes
    onnxruntime.InferenceSession(exported + tag + b"\0", providers=["CPUExecutionProvider"])
    with pytest.raises(ValueError, match=r"not an \.onnx file"):
        check([exported + tag + bytes([len(more)]) + more])


@pytest.mark.parametrize("other_form", [b"\x25Relu", b"\x21Identity", b"\x20\x01"])
def test_an_operator_is_not_hidden_behind_a_field_that_engines_pass_over(exported: bytes, other_form: bytes):
    node = helper.make_node("Loop", [], ["x"]).SerializeToString() + other_form
    model = onnx.load_model_from_string(exported)
    nodes = model.graph.SerializeToString() + b"\x0a" + bytes([len(node)]) + node
    model.ClearField("graph")
    length = bytes(
        [len(nodes) & 127 | 128, len(nodes) >> 7 & 127 | 128, len(nodes) >> 14 & 127 | 128, len(nodes) >> 21]
    )
    with pytest.raises(ValueError, match="not a protobuf message"):
        check([model.SerializeToString() + b"\x3a" + length + nodes])


def test_no_byte_makes_the_check_raise_anything_else(exported: bytes):
    refused = 0
    # The structure of the file lies between its weights; those make up most of it.
    places = [place for place in range(len(exported) - 12) if exported[place : place + 12].isascii()][::7]
    for place in places[:400]:
        broken = bytearray(exported)
        broken[place] ^= 0xFF
        try:
            check([bytes(broken)])
        except ValueError:
            refused += 1
    assert refused > 100


def test_an_encoder_refuses_it_by_name(bundle: Path):
    model = onnx.load(bundle / "fp32.onnx")
    model.graph.initializer.append(external())
    (bundle / "alone.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(BundleError, match=r"alone\.onnx: .*takes weights from another file"):
        Encoder(bundle / "alone.onnx")
