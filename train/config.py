"""A --config file: config by name, in TOML."""

from __future__ import annotations

import difflib
import tomllib
from pathlib import Path
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints

from ..runtime.errors import UsageError
from .recipe import TrainConfig

IN_WORDS = {dict: "a table", str: "text in quotes", float: "a number", int: "a whole number"}


def read_config(file: Path) -> dict[str, Any]:
    """The config that a TOML file sets, by the names of TrainConfig. Raises UsageError, naming the file and the key.

    A file may hold, for example:

        recipe = "photographs"
        epochs = 200
        learning_rate = 5e-4
        [views]             # both views; [view_1] and [view_2] change one
        area = [0.2, 1.0]
        hue = 0
    """
    try:
        content = tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"{file}: cannot be read ({error.strerror})") from error
    except ValueError as error:  # broken TOML, or not UTF-8
        raise UsageError(f"{file}: not TOML ({error})") from error
    kinds = {name: _kinds(hint) for name, hint in get_type_hints(TrainConfig).items()}
    for name, value in content.items():
        if name not in kinds:
            near = difflib.get_close_matches(name, kinds, n=1)
            hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(kinds)}"
            raise UsageError(f"{file}: no setting {name!r}; {hint}")
        if type(value) not in kinds[name]:
            raise UsageError(f"{file}: {name} = {value!r} is not {IN_WORDS[kinds[name][0]]}")
    return content


def _kinds(hint: Any) -> tuple[type, ...]:
    """The types that a value of this annotation may have; where a number is asked for, a whole one will do."""
    kinds = tuple(get_origin(each) or each for each in (get_args(hint) if get_origin(hint) is UnionType else (hint,)))
    return (*kinds, int) if float in kinds else kinds
