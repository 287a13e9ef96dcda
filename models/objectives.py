"""The objectives there are, by name."""

from __future__ import annotations

from ..runtime.errors import UsageError
from .byol import BYOLConfig
from .objective import ObjectiveConfig

OBJECTIVES: dict[str, type[ObjectiveConfig]] = {each.name: each for each in (BYOLConfig,)}


def find_objective(name: str) -> type[ObjectiveConfig]:
    """Raises UsageError for a name that is none."""
    if name not in OBJECTIVES:
        raise UsageError(f"no objective {name!r}; there are {', '.join(OBJECTIVES)}", objective=name)
    return OBJECTIVES[name]
