"""How pixels are normalized: what is chosen is checked, and what is not said by anybody is ImageNet's."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..runtime.errors import UsageError
from ..runtime.preprocessing import Preprocessing

if TYPE_CHECKING:
    from .starts import Start

Channels = tuple[float, float, float]


def check_normalization(mean: Sequence[float] | None, std: Sequence[float] | None) -> None:
    """Raises UsageError where what is given is not three numbers up to 1, those of `std` above 0."""
    for name, values, least in (("mean", mean, -math.inf), ("std", std, 0)):
        if values is None:
            continue
        if not (len(values) == 3 and all(_is_number_above(least, each) for each in values)):
            above = "" if name == "mean" else " above 0"
            raise UsageError(f"{{{name}}}: has to be three numbers{above}, of red, green and blue", **{name: values})
        if max(values) > 1:
            raise UsageError(f"{{{name}}}: is of pixels from 0 to 1; divide yours by 255", **{name: values})


def _is_number_above(least: float, value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and least < value < math.inf


def choose_normalization(
    start: Start | None, mean: Sequence[float] | None, std: Sequence[float] | None
) -> tuple[Channels, Channels, tuple[str, ...]]:
    """Mean and deviation as chosen, else as a start says, else ImageNet's; and, in words, what that assumes."""
    said = {"mean": mean or (start and start.mean), "std": std or (start and start.std)}
    guessed = " and ".join(name for name, value in said.items() if value is None)
    assumed = (f"{guessed} of its images: ImageNet's",) if guessed else ()
    return as_channels(said["mean"] or Preprocessing.mean), as_channels(said["std"] or Preprocessing.std), assumed


def as_channels(values: Sequence[float]) -> Channels:
    first, second, third = map(float, values)
    return first, second, third
