"""ONNX files, read without the onnx package, which no device needs.

External data has let a model read any file on the machine (onnx before 1.21: paths out of the folder, links); what this
project exports is always a single file. Only tags and lengths of the protobuf messages are read, not the weights.
"""

from __future__ import annotations

from collections.abc import Iterator

from .model_format import ModelFormat

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
PROPERTIES = 14  # of the model: pairs of key and value
MOST_NESTED = 50


def check(content: bytes) -> None:
    """Raises ValueError if this is not an .onnx file, or if it takes weights from other files, which nothing hashed."""
    try:
        external = has_external_data(content)
    except ValueError as error:
        raise ValueError(f"not an .onnx file ({error})") from error
    if external:
        raise ValueError("takes weights from another file (external data); do not trust this model")


def has_external_data(content: bytes) -> bool:
    """Whether a tensor of the model lies in another file. Raises ValueError if this is not a protobuf message."""
    return _search(memoryview(content), "Model", 0)


def read_metadata(content: bytes, key: str) -> str | None:
    """The value of a property of the model. Raises ValueError if this is not a protobuf message."""
    found = None
    for field, value in _fields(memoryview(content)):
        if field == PROPERTIES and isinstance(value, memoryview):
            entry = {number: part.tobytes().decode() for number, part in _fields(value) if isinstance(part, memoryview)}
            found = entry.get(2, "") if entry.get(1) == key else found
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
    """The fields of a protobuf message: numbers as their value, and whatever has a length as its bytes."""
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
    """A number stored in 7 bits per byte, and the place after it."""
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


ONNX = ModelFormat("onnx", (".onnx",), check, read_metadata)
