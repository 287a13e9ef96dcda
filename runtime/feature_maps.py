"""Feature maps: what a backbone's inner modules give, as further outputs of a model. What a bundle says of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Float32 [N, C, H, W], by the names of the modules that gave them.
Maps = dict[str, NDArray[np.float32]]

# What a model may give beside its embeddings, and the longest side or number of channels of it.
MOST_MAPS, MOST_LENGTH = 64, 2**16
MOST_NAME = 200
# Taken by a model's input and its first output.
RESERVED = ("images", "embeddings")


@dataclass(frozen=True)
class FeatureMap:
    """A map that a model gives beside its embeddings: float32 `[N, channels, height, width]`.

    `name`: of the backbone's module that it is the output of, "layer2".
    """

    name: str
    channels: int
    height: int
    width: int

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.channels, self.height, self.width

    def __str__(self) -> str:
        return f"{self.name} {list(self.shape)}"


def read_features(content: Mapping[str, Any]) -> tuple[FeatureMap, ...]:
    """The maps that a manifest or a model's metadata names; without any, none. Raises TypeError or ValueError."""
    listed = content.get("features", [])
    if not isinstance(listed, list) or len(listed) > MOST_MAPS:
        raise ValueError(f"features {str(listed)[:40]}")
    features = tuple(FeatureMap(**entry) for entry in listed)
    for each in features:
        if not isinstance(each.name, str) or not each.name.isprintable() or not 0 < len(each.name) <= MOST_NAME:
            raise ValueError(f"a feature map's name {str(each.name)[:40]!r}")
        if not all(type(length) is int and 1 <= length <= MOST_LENGTH for length in each.shape):
            raise ValueError(f"a feature map of {str(each.shape)[:40]}")
    if len({*RESERVED, *(each.name for each in features)}) < len(RESERVED) + len(features):
        raise ValueError("two feature maps of one name, or one of an input's or output's")
    return features


def list_features(features: tuple[FeatureMap, ...]) -> dict[str, Any]:
    """What a manifest or a model's metadata says of the maps; nothing where there are none."""
    return {"features": [asdict(each) for each in features]} if features else {}
