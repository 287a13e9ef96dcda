"""ONNX files, read without the onnx package: what is safe to hand to an engine, and what a file says of itself.

An engine parses a model in C++, and believes it. So a model has to be of the kind that this project exports: one graph
of known operators in order, without loops, branches or functions, one image tensor in, one of floats out, and after it
those of feature maps, if any, and every tensor in the file itself, which is all that a hash vouches for, and as long as
it says. What an operator computes is not checked: docs/security.md says what that leaves.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from math import prod

from .feature_maps import MOST_MAPS
from .model_format import ModelFormat
from .protobuf import Value, read_fields, read_numbers

# What this project's exports are made of, and what other networks of timm's are.
OPERATORS = frozenset(
    """
    Abs Add And ArgMax AveragePool BatchNormalization Cast Ceil Clip Concat Constant ConstantOfShape Conv
    ConvTranspose Cos CumSum DepthToSpace DequantizeLinear Div Einsum Elu Equal Erf Exp Expand Flatten Floor Gather
    GatherElements GatherND Gelu Gemm GlobalAveragePool GlobalMaxPool Greater GreaterOrEqual GroupNormalization
    HardSigmoid HardSwish Identity InstanceNormalization LayerNormalization LeakyRelu Less LessOrEqual Log
    LogSoftmax LpNormalization MatMul Max MaxPool Mean Min Mish Mod Mul Neg Not Or PRelu Pad Pow QuantizeLinear
    Range Reciprocal ReduceL1 ReduceL2 ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum ReduceSumSquare Relu
    Reshape Resize Round ScatterElements ScatterND Selu Shape Sigmoid Sign Sin Slice Softmax Softplus SpaceToDepth
    Split Sqrt Squeeze Sub Sum Tanh Tile TopK Transpose Trilu Unsqueeze Where
    """.split()  # noqa: SIM905
)
DOMAINS = (b"", b"ai.onnx")
OPSETS = range(13, 27)

# Field numbers of onnx.proto, by message.
GRAPH, OPSET, PROPERTIES, TRAINING, FUNCTIONS = 7, 8, 14, 20, 25
NODE, INITIALIZER, SPARSE, INPUT, OUTPUT = 1, 5, 15, 11, 12
NODE_INPUT, NODE_OUTPUT, OPERATOR, ATTRIBUTE, DOMAIN = 1, 2, 4, 5, 7
ATTRIBUTE_NAME, ATTRIBUTE_TENSOR, ATTRIBUTE_TYPE = 1, 5, 20
DIMS, DATA_TYPE, RAW, EXTERNAL, LOCATION = 1, 2, 9, 13, 14

# The field of an attribute that holds its value, by its type: a float, a whole number, text, a tensor, and lists.
VALUE_FIELDS = {1: 2, 2: 3, 3: 4, 4: 5, 6: 7, 7: 8, 8: 9}
# Bytes of a number, by the data type of a tensor.
SIZES = {1: 4, 2: 1, 3: 1, 4: 2, 5: 2, 6: 4, 7: 8, 9: 1, 10: 2, 11: 8, 12: 4, 13: 8, 16: 2}
FLOAT, UINT8, INT64 = 1, 2, 7
# Where a tensor's numbers lie if not as raw bytes: floats, int32 (and what is shorter), int64, doubles, uint64.
WIDTHS = {4: 4, 10: 8}
INT64_DATA = 7
VARINTS = (5, INT64_DATA, 11)
MOST_RANK, MOST_NUMBER = 8, 2**31

# Which operand says how far an operator grows a tensor, and to how many numbers it may: half a gigabyte of floats.
# Where a graph computes that operand, nothing is known of it here.
GROWING = {"ConstantOfShape": 0, "Expand": 1, "Tile": 1, "Pad": 1, "Resize": 3}
MOST_GROWN = 2**27

Message = dict[int, list[Value]]


def check(parts: Sequence[bytes]) -> int:
    """How many feature maps a model gives beside its embeddings.

    Raises ValueError, with a reason, for what is not an .onnx file, or not safe to hand to an engine.
    """
    try:
        model = _read(memoryview(parts[0]))
        graph = _read(_only(model, GRAPH))
    except ValueError as error:
        raise ValueError(f"not an .onnx file ({error})") from error
    try:
        if model.keys() & {TRAINING, FUNCTIONS}:
            raise ValueError("functions of its own, or a training graph")
        for opset in map(_message, model[OPSET]):
            if _text(opset, 1) not in DOMAINS or _number(opset, 2) not in OPSETS:
                raise ValueError("an operator set that this byol-edge does not know")
        return _check_graph(graph)
    except ValueError as error:
        raise ValueError(f"not a model of the kind that byol-edge exports: {error}; do not trust it") from error


def read_metadata(content: bytes, key: str) -> str | None:
    """The value of a property of the model. Raises ValueError if this is not a protobuf message."""
    found = None
    for entry in map(_message, _read(memoryview(content))[PROPERTIES]):
        found = _text(entry, 2).decode() if _text(entry, 1) == key.encode() else found
    return found


def _check_graph(graph: Message) -> int:
    """How many outputs follow the embeddings."""
    tensors = [_message(each) for each in graph[INITIALIZER]]
    if graph[SPARSE]:
        raise ValueError("sparse tensors")
    for tensor in tensors:
        _check_tensor(tensor)
    known = {_text(tensor, 8) for tensor in tensors}
    sizes = {_text(tensor, 8): _size_of(tensor) for tensor in tensors if _number(tensor, DATA_TYPE) == INT64}
    inputs = [_message(each) for each in graph[INPUT]]
    inputs = [each for each in inputs if _text(each, 1) not in known]
    if [_type_of(each) for each in inputs] != [(UINT8, 4)]:
        raise ValueError("takes something else than one batch of images")
    known |= {_text(each, 1) for each in inputs} | {b""}
    for node in map(_message, graph[NODE]):
        known |= _check_node(node, known, sizes)
    outputs = [_message(each) for each in graph[OUTPUT]]
    maps = len(outputs) - 1
    if [_type_of(each) for each in outputs] != [(FLOAT, 2), *[(FLOAT, 4)] * maps]:
        raise ValueError("gives something else than one vector per image, and feature maps")
    names = {_text(each, 1) for each in outputs}
    if len(names) < len(outputs) or maps > MOST_MAPS or not names <= known:
        raise ValueError("an output twice, too many, or one that nothing computes")
    return maps


def _check_node(node: Message, known: set[bytes], sizes: dict[bytes, int]) -> set[bytes]:
    """The names of what a node computes, from what is `known` before it. `sizes`: what shapes in the file amount to."""
    operator = _text(node, OPERATOR).decode(errors="replace")
    if operator not in OPERATORS or _text(node, DOMAIN) not in DOMAINS:
        raise ValueError(f"the operator {operator[:40]!r}")
    inputs = [bytes(_bytes(name)) for name in node[NODE_INPUT]]
    if not set(inputs) <= known:
        raise ValueError(f"a {operator} of something that does not come before it")
    if any(sizes.get(name, 0) > MOST_GROWN for name in inputs[GROWING.get(operator, len(inputs)) :][:1]):
        raise ValueError(f"a {operator} to more numbers than any network has")
    for attribute in map(_message, node[ATTRIBUTE]):
        _check_attribute(attribute, operator)
    outputs = [bytes(_bytes(name)) for name in node[NODE_OUTPUT]]
    named = {name for name in outputs if name}
    if not named or len(named) < len([name for name in outputs if name]) or named & known:
        raise ValueError(f"a {operator} whose result has another's name, or none")
    return named


def _check_attribute(attribute: Message, operator: str) -> None:
    field = VALUE_FIELDS.get(_number(attribute, ATTRIBUTE_TYPE))
    held = attribute.keys() & set(range(2, 24)) - {13, ATTRIBUTE_TYPE}
    # An empty list has no field, and nothing else may have one: a graph, a reference.
    if field is None or not held <= {field} or (field < 6 and len(attribute[field]) != 1):
        raise ValueError(f"an attribute of {operator} that is none, or a graph of its own")
    if field == ATTRIBUTE_TENSOR:
        _check_tensor(_message(attribute[field][0]))
    elif field in (3, 8) and any(abs(number) > MOST_NUMBER for number in read_numbers(attribute[field])):
        raise ValueError(f"an attribute of {operator} out of range")


def _check_tensor(tensor: Message) -> None:
    if tensor[EXTERNAL] or _number(tensor, LOCATION):
        raise ValueError("takes weights from another file (external data)")
    dims, kind = read_numbers(tensor[DIMS]), _number(tensor, DATA_TYPE)
    if kind not in SIZES or len(dims) > MOST_RANK or min(dims, default=0) < 0:
        raise ValueError("a tensor of an unknown kind or shape")
    if tensor[RAW]:
        counts = [len(_text(tensor, RAW)) / SIZES[kind]]
    else:
        counts = [sum(map(_length, tensor[field])) / width for field, width in WIDTHS.items()]
        counts += [len(read_numbers(tensor[field])) for field in VARINTS]
    if [count for count in counts if count] != ([prod(dims)] if prod(dims) else []):
        raise ValueError("a tensor that is not as long as it says")


def _size_of(shape: Message) -> int:
    """The product of the whole numbers of a tensor, as a shape."""
    values = memoryview(_text(shape, RAW)).cast("q") if shape[RAW] else read_numbers(shape[INT64_DATA])
    return prod(max(1, abs(value)) for value in values) if len(values) <= MOST_RANK else 0


def _type_of(value: Message) -> tuple[int, int]:
    """The data type and the number of dimensions of a graph's input or output."""
    tensor = _read(_only(_read(_only(value, 2)), 1))
    return _number(tensor, 1), len(_read(_only(tensor, 2))[1])


def _read(message: memoryview) -> Message:
    fields: Message = defaultdict(list)
    for field, value in read_fields(message):
        fields[field].append(value)
    return fields


def _message(value: Value) -> Message:
    return _read(_bytes(value))


def _only(message: Message, field: int) -> memoryview:
    if len(message[field]) != 1:
        raise ValueError("not one graph, or a value without a type")
    return _bytes(message[field][0])


def _text(message: Message, field: int) -> bytes:
    """A text's bytes, the last one's where it is given several times; empty where it is missing."""
    return bytes(_bytes(message[field][-1])) if message[field] else b""


def _number(message: Message, field: int) -> int:
    """A number, the last one where it is given several times; 0 where it is missing."""
    values = message[field]
    if not all(isinstance(value, int) for value in values):
        raise ValueError("not a protobuf message")
    return int(values[-1]) if values else 0


def _length(value: Value) -> int:
    if isinstance(value, int):
        raise ValueError("not a protobuf message")
    return len(value)


def _bytes(value: Value) -> memoryview:
    # An engine passes over a field of another form, so that it must not stand for one that the engine reads.
    if not isinstance(value, memoryview):
        raise ValueError("not a protobuf message")
    return value


ONNX = ModelFormat("onnx", (".onnx",), check, read_metadata)
