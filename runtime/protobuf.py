"""Protobuf messages, read without a library and without a copy: tags, lengths and numbers."""

from __future__ import annotations

from collections.abc import Iterator

# A number, what has a length, or the bytes of a float: a field is another one in another of these forms.
Value = int | memoryview | bytes


def read_fields(message: memoryview) -> Iterator[tuple[int, Value]]:
    """The fields of a message: a number as its value, what has a length as a view of it, and a float as its bytes.

    Raises ValueError where it is no message.
    """
    place = 0
    while place < len(message):
        tag, place = _read_number(message, place)
        field, kind = tag >> 3, tag & 7
        if not 0 < field < 2**29:  # an engine drops the bits beyond, and reads another field
            raise ValueError("not a protobuf message")
        if kind == 0:
            value, place = _read_number(message, place)
            yield field, value
            continue
        if kind == 2:
            length, place = _read_number(message, place)
        elif kind in (1, 5):
            length = 8 if kind == 1 else 4
        else:
            raise ValueError("not a protobuf message")
        if length > len(message) - place:
            raise ValueError("cut off")
        value = message[place : place + length]
        yield field, value if kind == 2 else bytes(value)
        place += length


def read_numbers(values: list[Value]) -> list[int]:
    """The signed numbers of a repeated field, however they are packed. Raises ValueError for floats."""
    numbers = []
    for value in values:
        if isinstance(value, int):
            numbers.append(value)
            continue
        if isinstance(value, bytes):
            raise ValueError("not a protobuf message")
        place = 0
        while place < len(value):
            number, place = _read_number(value, place)
            numbers.append(number)
    return [number - 2**64 if number >= 2**63 else number for number in numbers]


def _read_number(message: memoryview, place: int) -> tuple[int, int]:
    """A number stored in 7 bits per byte, and the place after it."""
    value = 0
    for shift in range(0, 70, 7):
        if place >= len(message):
            raise ValueError("cut off")
        byte = message[place]
        place += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value & (2**64 - 1), place
    raise ValueError("not a protobuf message")
