"""An .onnx file read without the onnx package, which no device needs: its properties, and whether it is all there.

External data has let a model read any file of the machine (onnx before 1.21: paths out of the folder, links); what this
project exports is always one file. Only the tags and lengths of the protobuf messages are read, not the weights.
"""

from __future__ import annotations

from collections.abc import Iterator

# Field numbers of onnx.proto by message: those that lead to tensors, and the message that each of them holds.
PATHS = {
    "Model": {7: "Graph", 20: "Training", 25: "Function"},
    "Training": {1: "Graph", 2: "Graph"},
    "Graph": {1: "Node", 5: "Tensor", 15: "SparseTensor"},
    "Function": {7: "Node", 11: "Attribute"},
    "Node": {5: "Attribute"},
    "Attribute": {5: "Tensor", 6: "Graph", 10: "Tensor", 11: "Graph", 22: "SparseTensor", 23: "SparseTensor"},
    "SparseTensor": {1: "Tensor", 2: "Tensor"},
}
EXTERNAL_DATA, DATA_LOCATION = 13, 14
PROPERTIES = 14  # of the model: entries of a key and a value
MOST_NESTED = 50


def has_external_data(content: bytes) -> bool:
    """Whether a tensor of the model lies in another file. Raises ValueError if this is no protobuf."""
    return _search(memoryview(content), "Model", 0)


def read_properties(content: bytes) -> dict[str, str]:
    """The model's metadata. Raises ValueError if this is no protobuf."""
    found = {}
    for field, value in _fields(memoryview(content)):
        if field == PROPERTIES and isinstance(value, memoryview):
            entry = {number: part.tobytes().decode() for number, part in _fields(value) if isinstance(part, memoryview)}
            found[entry.get(1)] = entry.get(2, "")
    return found


def _search(message: memoryview, kind: str, depth: int) -> bool:
    if depth > MOST_NESTED:
        raise ValueError("graphs nested too deep")
    for field, value in _fields(message):
        if kind == "Tensor":
            if field == EXTERNAL_DATA or (field == DATA_LOCATION and value != 0):
                return True
        elif isinstance(value, memoryview) and field in PATHS[kind] and _search(value, PATHS[kind][field], depth + 1):
            return True
    return False


def _fields(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """The fields of a protobuf message: a number's value, or the bytes of what has a length."""
    place = 0
    while place < len(message):
        tag, place = _varint(message, place)
        field, wire = tag >> 3, tag & 7
        if wire == 0:
            value, place = _varint(message, place)
            yield field, value
        elif wire == 2:
            length, place = _varint(message, place)
            if length > len(message) - place:
                raise ValueError("cut off")
            yield field, message[place : place + length]
            place += length
        elif wire in (1, 5):
            place += 8 if wire == 1 else 4
        else:
            raise ValueError("not a protobuf message")


def _varint(message: memoryview, place: int) -> tuple[int, int]:
    """A number of 7 bits a byte, and the place after it."""
    value = 0
    for shift in range(0, 70, 7):
        if place >= len(message):
            raise ValueError("cut off")
        byte = message[place]
        place += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, place
    raise ValueError("not a protobuf message")
