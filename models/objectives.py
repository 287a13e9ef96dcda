"""The objectives there are, by name."""

from __future__ import annotations

from ..runtime.errors import UsageError
from .autoencoder import AutoencoderConfig
from .byol import BYOLConfig
from .distillation import DistillationConfig
from .guided_byol import GuidedBYOLConfig
from .infonce import InfoNCEConfig
from .objective import ObjectiveConfig

_ALL: tuple[type[ObjectiveConfig], ...] = (
    BYOLConfig,
    InfoNCEConfig,
    AutoencoderConfig,
    DistillationConfig,
    GuidedBYOLConfig,
)
OBJECTIVES = {each.name: each for each in _ALL}


def choose_objective(guided: bool) -> ObjectiveConfig:
    """What a run learns by if nobody says; `guided`: whether there are weights to learn from."""
    return DistillationConfig() if guided else BYOLConfig()


def find_objective(name: str) -> type[ObjectiveConfig]:
    """Raises UsageError for a name that is none."""
    if name not in OBJECTIVES:
        raise UsageError(f"no objective {name!r}; there are {', '.join(OBJECTIVES)}", objective=name)
    return OBJECTIVES[name]
