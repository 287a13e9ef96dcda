"""Protobuf messages, read without a library and without a copy: tags, lengths and numbers."""

from __future__ import annotations

from collections.abc import Iterator

Field = tuple[int, int | memoryview]


def read_fields(message: memoryview) -> Iterator[Field]:
    """The fields of a message: a number as its value, a float as its bytes, and whatever has a length as its bytes.

    Raises ValueError where it is no message.
    """
    place = 0
    while place < len(message):
        tag, place = _read_number(message, place)
        field, kind = tag >> 3, tag & 7
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
        if length > len(message) - place or field == 0:
            raise ValueError("cut off")
        yield field, message[place : place + length]
        place += length


def read_numbers(values: list[int | memoryview]) -> list[int]:
    """The signed numbers of a repeated field, however they are packed."""
    numbers = []
    for value in values:
        if isinstance(value, int):
            numbers.append(value)
            continue
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
