"""What made vectors, and whether others mix with them: a search among vectors of two models finds nothing of use."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from .errors import VectorError
from .stream import Streamer

# The keys, in a table's metadata, of what made its vectors.
MODEL_KEY, ENGINE_KEY = "byol_edge.model", "byol_edge.engine"
UNNAMED = "does not say which encoder made its vectors; embed the images again"


class Made(Protocol):
    """What says by what vectors were made: `model` is an `Encoder.id`, `engine` an `Encoder.engine`."""

    @property
    def model(self) -> str: ...
    @property
    def engine(self) -> str: ...


@dataclass(frozen=True)
class Maker:
    """What made vectors, and nothing else."""

    model: str
    engine: str

    def __str__(self) -> str:
        return f"{self.model} on {self.engine}"

    @staticmethod
    def of(encoder: Streamer) -> Maker:
        return Maker(encoder.id, encoder.engine)

    @staticmethod
    def from_metadata(told: Mapping[str, str]) -> Maker:
        """What a table's metadata say, as to_metadata wrote them. Raises VectorError if they do not say it."""
        if not {MODEL_KEY, ENGINE_KEY} <= told.keys():
            raise VectorError(UNNAMED)
        return Maker(told[MODEL_KEY], told[ENGINE_KEY])


def to_metadata(made: Made) -> dict[str, str]:
    """What made vectors, for the metadata of a table that holds them."""
    return {MODEL_KEY: made.model, ENGINE_KEY: made.engine}


def check_maker(name: object, made: Made, encoder: Streamer) -> None:
    """Raises VectorError if the vectors called `name` are not of the encoder's model, or of an engine that does not
    agree with the encoder's."""
    if made.model != encoder.id:
        raise VectorError(
            f"{name}: its vectors are by {made.model}, this encoder is {encoder.id}, and vectors of two models do not "
            "mix: take the encoder that made them, or embed all images again"
        )
    if not encoder.agrees_with(made.engine):
        raise VectorError(
            f"{name}: its vectors are by {made.model} on {made.engine}, this encoder runs on {encoder.engine}, and no "
            f"export has found that the two agree: take {{backend}}, or embed all images again",
            backend=made.engine,
        )
