"""What a bundle says of two encoders that were fused into one."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from .preprocessing import Preprocessing
from .run import EncoderSpec


@dataclass(frozen=True)
class FusionSpec:
    """Two encoders, apart from their weights. The cosine of two images is `weight` of the first's, 0 to 1, and the rest
    of the second's.

    Both take the same images, but may scale their pixels each in its own way.
    """

    first: EncoderSpec
    second: EncoderSpec
    weight: float
    embedding_size: int

    @property
    def preprocessing(self) -> Preprocessing:
        """How an image becomes pixels; mean and standard deviation are the first's."""
        return self.first.preprocessing

    def __str__(self) -> str:
        told = [f"{each.backbone}, {each.stem} stem" for each in (self.first, self.second)]
        return f"{told[0]} ({self.weight:g}) and {told[1]} ({1 - self.weight:g})"

    def to_json(self) -> dict[str, Any]:
        """For a manifest, which says the embedding's size elsewhere."""
        return {name: each for name, each in asdict(self).items() if name != "embedding_size"}

    @staticmethod
    def from_json(value: dict[str, Any], embedding_size: int) -> FusionSpec:
        """Raises KeyError, TypeError or ValueError for anything else."""
        first, second = (EncoderSpec.from_json(value[name]) for name in ("first", "second"))
        weight = value["weight"]
        if not isinstance(weight, float) or not 0 < weight < 1:
            raise ValueError(f"a weight of {str(weight)[:40]}")
        if not takes_same_images(first.preprocessing, second.preprocessing):
            raise ValueError("two encoders of other images")
        return FusionSpec(first, second, weight, embedding_size)


def takes_same_images(first: Preprocessing, second: Preprocessing) -> bool:
    """Whether an image becomes the same pixels for both, before these are scaled."""
    borders = first.border == second.border or first.fit != "pad"
    return borders and (first.image_size, first.fit) == (second.image_size, second.fit)
