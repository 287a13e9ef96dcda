"""What a report has found: everything on its page and in report.json, which `schema.json` describes."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from ..evaluate.comparison import Comparison
from ..evaluate.layers import Layer
from ..evaluate.validate import Validation
from ..runtime.run import Provenance
from ..runtime.timing import Timing
from ..train.plots import Curve

# Raised when a reader of report.json could no longer read it.
SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Neighbors:
    """The images that are nearest to one image by an encoder, nearest first, with their cosines to it."""

    encoder: str
    images: tuple[int, ...]
    cosines: tuple[float, ...]


@dataclass(frozen=True)
class Query:
    """An image and its nearest by each encoder; `by` has the same encoders, in the same order, in every query."""

    image: int
    by: tuple[Neighbors, ...]


@dataclass(frozen=True)
class Moved:
    """An image of which INT8 makes another vector. `cosine`: to PyTorch's. `kept`: of PyTorch's nearest, how many
    stay, of `neighbors`."""

    image: int
    cosine: float
    kept: int
    neighbors: int


@dataclass(frozen=True)
class Pair:
    """Two images that are nearly the same, the first being the earlier in the list."""

    first: int
    second: int
    cosine: float


@dataclass(frozen=True)
class Outlier:
    """An image that is far from all others. `cosine`: the mean of those to its ten nearest."""

    image: int
    cosine: float


@dataclass(frozen=True)
class Map:
    """Vectors in two dimensions. `images`: those that are on it. `places`: x and y of each, from 0 to 1."""

    method: str
    images: tuple[int, ...]
    places: tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class Training:
    """How a run went: a curve for each figure that was measured."""

    run: str
    curves: tuple[Curve, ...]


@dataclass(frozen=True)
class Conclusion:
    """`kind`: "ship", "doubtful" or "stop". `sentence`: faithful, worth shipping, fast? `advice`: what to do now."""

    kind: str
    sentence: str
    advice: str


@dataclass(frozen=True)
class Report:
    """What was found about encoders on the images under `data`. Images are known by their place in `images`, which
    holds their paths below `data`.

    `subject`: the encoder that the details are about, as it was named. `shipped`: whose vectors the map, the
    near-duplicates and the outliers are by: of a bundle, `default`, or the first variant that works. `broken`: what
    could not be opened or run, by name, and why. `validation`: of a bundle that PyTorch can be held against. `timings`:
    of its variants, by "variant on engine". `quantized`: the INT8 variant that `moved` is about, None without one.
    `duplicates`: the nearest first, `duplicates_found` of them before the list was cut.
    """

    subject: str
    shipped: str
    default: str | None
    data: str
    images: tuple[str, ...]
    classes: tuple[str | None, ...] | None
    comparison: Comparison
    validation: Validation | None
    timings: dict[str, Timing]
    broken: dict[str, str]
    queries: tuple[Query, ...]
    maps: tuple[Map, ...]
    quantized: str | None
    moved: tuple[Moved, ...]
    duplicates: tuple[Pair, ...]
    duplicates_found: int
    outliers: tuple[Outlier, ...]
    layers: dict[str, list[Layer]]
    training: Training | None
    provenance: Provenance
    machine: dict[str, str]
    made: str

    def to_json(self) -> dict[str, Any]:
        from .conclusion import conclude

        return {
            "schema_version": SCHEMA_VERSION,
            **asdict(self),
            "conclusion": asdict(conclude(self)),
            "comparison": self.comparison.to_json(),
            "validation": self.validation.to_json() if self.validation else None,
        }
