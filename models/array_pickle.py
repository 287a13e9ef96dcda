"""Pickles of arrays, read without running anything in them.

Python's own reader calls whatever a pickle names. Here `pickletools` takes the file apart into its steps, and only
those are carried out that make containers, plain values and arrays of numbers. Any other object stays a Mentioned: its
name, and what it would have been made of.
"""

from __future__ import annotations

import math
import pickletools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

# DeepMind's largest needs a tenth of this.
MOST_STEPS = 2**22
MOST_AXES = 8
# Packages whose objects lie in checkpoints of haiku's. Others are refused by name, though they would not be run.
PACKAGES = frozenset(
    ["__main__", "acme", "byol", "chex", "collections", "dill", "haiku", "jax", "jaxlib", "numpy", "optax"]
)
BUILTINS = frozenset(
    ["bool", "bytearray", "bytes", "complex", "dict", "float", "frozenset", "int", "list", "object", "set", "tuple"]
)
NUMBERS = frozenset(["f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "b1"])
ORDERS = frozenset(["<", ">", "=", "|"])


@dataclass(frozen=True)
class Name:
    """A class or function that a pickle names. `fields`: of a named tuple."""

    text: str
    fields: tuple[str, ...] = ()


@dataclass(eq=False)
class Mentioned:
    """An object that was not made. `parts`: what it would have been made of. `state`: what it was to be given then."""

    name: Name
    parts: tuple[Any, ...] = ()
    state: Any = None


@dataclass(eq=False)
class Array:
    """`values` is read-only, and None as long as the pickle has not said them."""

    values: NDArray[Any] | None = None


@dataclass(eq=False)
class _Type:
    code: Any
    order: Any = "|"


def read_pickle(content: bytes) -> Any:
    """What a pickle holds: dicts, lists, tuples, plain values, Array, Mentioned. Sets are read as lists.

    Raises ValueError, with a reason, for anything else that a pickle can hold, and for a damaged one.
    """
    try:
        return _Machine(content).run()
    except (IndexError, KeyError, TypeError, OverflowError, MemoryError) as error:
        raise ValueError(f"a damaged pickle ({type(error).__name__})") from error


class _Machine:
    """A pickle's steps, carried out one by one on a stack."""

    def __init__(self, content: bytes) -> None:
        self.content = content
        self.stack: list[Any] = []
        self.below: list[list[Any]] = []  # what lies under each mark
        self.memo: dict[int, Any] = {}
        self.left = len(content)  # bytes that may yet be made: a text in the file serves once

    def run(self) -> Any:
        for number, (code, value, _) in enumerate(pickletools.genops(self.content)):
            if number == MOST_STEPS:
                raise ValueError(f"a pickle of more than {MOST_STEPS} steps")
            if code.name == "STOP":
                return self.pop()
            if code.name in VALUES:
                self.push(value)
            elif code.name in STEPS:
                STEPS[code.name](self, value)
            else:
                raise ValueError(f"a pickle with {code.name}, which arrays do not need")
        raise ValueError("a pickle without an end")

    def push(self, value: object) -> None:
        self.stack.append(value)

    def pop(self) -> Any:
        return self.stack.pop()

    def mark(self) -> None:
        self.below.append(self.stack)
        self.stack = []

    def until_mark(self) -> list[Any]:
        found, self.stack = self.stack, self.below.pop()
        return found

    def make_tuple(self, count: int) -> None:
        items = tuple(self.pop() for _ in range(count))
        self.push(items[::-1])

    def make_dict(self) -> None:
        items = self.until_mark()
        self.push({})
        self.set_items(items)

    def set_items(self, items: list[Any]) -> None:
        found = self.stack[-1]
        for key, value in zip(items[::2], items[1::2], strict=True):
            if not isinstance(key, (str, int)):  # to hash a tuple, Python follows it down as deep as it goes
                raise ValueError("a pickle with keys that are no text")
            if isinstance(found, dict):
                found[key] = value

    def extend(self, items: list[Any]) -> None:
        found = self.stack[-1]
        if isinstance(found, list):
            found.extend(items)

    def keep(self, number: int | None) -> None:
        self.memo[len(self.memo) if number is None else number] = self.stack[-1]

    def recall(self, number: int) -> None:
        self.push(self.memo[number])

    def name(self, text: str) -> None:
        module, _, last = text.partition(" ")
        module = module.replace("__builtin__", "builtins")
        known = last in BUILTINS if module == "builtins" else module.split(".")[0] in PACKAGES
        if not known and (module, last) != ("_codecs", "encode"):
            raise ValueError(f"a pickle that names {module}.{last}, which arrays do not need; nothing of it was run")
        self.push(Name(f"{module}.{last}"))

    def name_from_stack(self) -> None:
        last, module = self.pop(), self.pop()
        if not (isinstance(module, str) and isinstance(last, str)):
            raise ValueError("a damaged pickle (a name that is no text)")
        self.name(f"{module} {last}")

    def call(self) -> None:
        arguments, function = self.pop(), self.pop()
        if not (isinstance(function, Name) and isinstance(arguments, tuple)):
            raise ValueError("a damaged pickle (a call of what has no name)")
        make = CALLS.get(function.text)
        self.push(Mentioned(function, arguments) if make is None else make(self, *arguments))

    def set_state(self) -> None:
        state, found = self.pop(), self.stack[-1]
        if isinstance(found, Array):
            found.values = _assemble(state)
        elif isinstance(found, _Type):
            found.order = state[1]
        elif isinstance(found, Mentioned):
            found.state = state
        else:
            raise ValueError("a damaged pickle (a state of what has none)")

    def encode(self, text: object, encoding: object) -> bytes:
        """Bytes, in the form that Python 2 could read."""
        if not isinstance(text, str) or encoding != "latin1":
            raise ValueError("a damaged pickle (bytes that are not latin1)")
        self.left -= len(text)
        if self.left < 0:
            raise ValueError("a pickle that unpacks to more than it is long")
        return text.encode("latin1")


def _assemble(state: Any) -> NDArray[Any]:
    """An array from what numpy's `__setstate__` is given: version, shape, type, order, bytes."""
    shape, kind, by_columns, data = state[-4:]
    if not (isinstance(kind, _Type) and isinstance(kind.code, str) and isinstance(kind.order, str)):
        raise ValueError("a damaged pickle (an array's type)")
    if kind.code not in NUMBERS or kind.order not in ORDERS:
        raise ValueError(f"a pickle with arrays of type {kind.code[:20]!r}, which are no numbers")
    if not isinstance(shape, tuple) or len(shape) > MOST_AXES or not all(type(each) is int for each in shape):
        raise ValueError("a damaged pickle (an array's shape)")
    dtype = np.dtype(kind.order.replace("|", "=") + kind.code)
    if not isinstance(data, bytes) or min(shape, default=0) < 0 or math.prod(shape) * dtype.itemsize != len(data):
        raise ValueError("a damaged pickle (an array of another length than its shape)")
    return np.frombuffer(data, dtype).reshape(shape, order="F" if by_columns else "C")


def _name_tuple(_: _Machine, name: Any, fields: Any, module: Any, *more: Any) -> Name:
    if not (isinstance(fields, tuple) and all(isinstance(each, str) for each in (name, module, *fields))):
        raise ValueError("a damaged pickle (the names of a tuple)")
    return Name(f"{module}.{name}", fields)


# What calls of a name make, from the machine and their arguments; of any other name, a Mentioned.
CALLS: dict[str, Callable[..., Any]] = {
    "_codecs.encode": _Machine.encode,
    "builtins.bytes": lambda machine: b"",
    "collections.OrderedDict": lambda machine: {},
    "dill._dill._create_array": lambda machine, function, arguments, state, *more: Array(_assemble(state)),
    "dill._dill._create_namedtuple": _name_tuple,
    "numpy._core.multiarray._reconstruct": lambda machine, *arguments: Array(),
    "numpy.core.multiarray._reconstruct": lambda machine, *arguments: Array(),
    "numpy.dtype": lambda machine, code, *flags: _Type(code),
}

# Steps that put the value beside them on the stack.
VALUES = frozenset(
    ["INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT", "UNICODE", "BINUNICODE"]
) | {"SHORT_BINUNICODE", "BINUNICODE8", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8"}
STEPS: dict[str, Callable[[_Machine, Any], object]] = {
    "PROTO": lambda machine, _: None,
    "FRAME": lambda machine, _: None,
    "MARK": lambda machine, _: machine.mark(),
    "POP": lambda machine, _: machine.pop(),
    "POP_MARK": lambda machine, _: machine.until_mark(),
    "NONE": lambda machine, _: machine.push(None),
    "NEWTRUE": lambda machine, _: machine.push(True),
    "NEWFALSE": lambda machine, _: machine.push(False),
    "EMPTY_DICT": lambda machine, _: machine.push({}),
    "EMPTY_LIST": lambda machine, _: machine.push([]),
    "EMPTY_SET": lambda machine, _: machine.push([]),
    "EMPTY_TUPLE": lambda machine, _: machine.push(()),
    "TUPLE": lambda machine, _: machine.push(tuple(machine.until_mark())),
    "TUPLE1": lambda machine, _: machine.make_tuple(1),
    "TUPLE2": lambda machine, _: machine.make_tuple(2),
    "TUPLE3": lambda machine, _: machine.make_tuple(3),
    "FROZENSET": lambda machine, _: machine.push(machine.until_mark()),
    "DICT": lambda machine, _: machine.make_dict(),
    "LIST": lambda machine, _: machine.push(machine.until_mark()),
    "APPEND": lambda machine, _: machine.extend([machine.pop()]),
    "APPENDS": lambda machine, _: machine.extend(machine.until_mark()),
    "ADDITEMS": lambda machine, _: machine.extend(machine.until_mark()),
    "SETITEM": lambda machine, _: machine.set_items([machine.pop(), machine.pop()][::-1]),
    "SETITEMS": lambda machine, _: machine.set_items(machine.until_mark()),
    "PUT": _Machine.keep,
    "BINPUT": _Machine.keep,
    "LONG_BINPUT": _Machine.keep,
    "MEMOIZE": _Machine.keep,
    "GET": _Machine.recall,
    "BINGET": _Machine.recall,
    "LONG_BINGET": _Machine.recall,
    "GLOBAL": _Machine.name,
    "STACK_GLOBAL": lambda machine, _: machine.name_from_stack(),
    "REDUCE": lambda machine, _: machine.call(),
    "NEWOBJ": lambda machine, _: machine.call(),
    "BUILD": lambda machine, _: machine.set_state(),
}
