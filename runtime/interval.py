"""A figure and how sure it is."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Interval:
    """A mean and its 95 % interval."""

    mean: float
    lower: float
    upper: float
