"""Several encoders on the same images: their figures, which of them are level with the best, and which one to ship."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ..runtime.interval import Interval
from ..runtime.text import join
from ..runtime.timing import LEAD, Timing

RAW = "raw pixels"
# The figures that may decide: by as many classes as are known, by none, and by a handful.
KNN, CONSISTENCY, FEW_LABELS = "knn", "consistency", "few labels"


@dataclass(frozen=True)
class Compared:
    """What was measured of one encoder, on images that all were given; every interval is one of 95%.

    `image_size`: of its input, in pixels. `consistency`: view consistency, 0 to 1 (label_free.py). `accuracy`: by the
    figure's name, of FIGURES in scorer.py, empty where no classes are known, or too few. `deciding`: the figure that
    decides; `gap`: its paired difference to the best encoder's, None for the best itself. `size`: in bytes, None for
    raw pixels. `timing`: of one image at a time, None where it was not timed. `fidelity`: mean cosine to its bundle's
    FP32, None where there is nothing to reproduce.
    """

    name: str
    engine: str
    image_size: int
    embedding_size: int
    consistency: Interval
    accuracy: dict[str, Interval]
    deciding: Interval
    gap: Interval | None
    size: int | None = None
    timing: Timing | None = None
    fidelity: float | None = None

    @property
    def is_level(self) -> bool:
        """Whether it is the best, or cannot be told from it: the interval of the difference reaches 0."""
        return self.gap is None or self.gap.upper >= 0


@dataclass(frozen=True)
class Comparison:
    """What a comparison found. `images`: those that could be read. `classes`: 0 if none are known.

    `figure`: the one that decides: "knn" where classes are known, "few labels" where they are of a few images only,
    else "consistency". `judged`: images of known class, or if there are none, those that it was measured on.
    `unreadable`: one message per image that was left out for all.
    """

    images: int
    classes: int
    figure: str
    judged: int
    encoders: tuple[Compared, ...]
    unreadable: tuple[str, ...] = ()

    @property
    def best(self) -> Compared:
        return next(each for each in self.encoders if each.gap is None)

    @property
    def level(self) -> list[Compared]:
        """The best encoder and those that cannot be told from it, in the order in which they were given."""
        return [each for each in self.encoders if each.is_level]

    @property
    def ship(self) -> Compared | None:
        """The encoder to ship, None where raw pixels are as good."""
        return None if any(each.name == RAW for each in self.level) else choose(self.level)[0]

    @property
    def advice(self) -> str:
        """In a sentence, which encoder to ship, and why."""
        return advise(self)

    def to_json(self) -> dict[str, Any]:
        return {
            **asdict(self),
            "best": self.best.name,
            "level": [each.name for each in self.level],
            "ship": self.ship.name if self.ship else None,
            "advice": self.advice,
        }


def choose(level: Sequence[Compared]) -> tuple[Compared, str]:
    """Of encoders that are as good as each other, the one to ship, and what it is of these: "the fastest (3.2 ms)".

    The fastest; of several that are within 10% of it, or that were not all timed, the smallest; else the best, of which
    there is nothing to say.
    """
    medians = [each.timing.median for each in level if each.timing]
    timed = len(medians) == len(level)
    fast = [each for each in level if not timed or (each.timing and each.timing.median < LEAD * min(medians))]
    sizes = [each.size for each in fast if each.size is not None]
    if len(fast) == 1 < len(level):
        return fast[0], f"the fastest ({medians[level.index(fast[0])]:.2f} ms)"
    if len(sizes) == len(fast) and len(set(sizes)) > 1:
        (smallest, *_) = [each for each in fast if each.size == min(sizes)]
        of = "smallest" if len(fast) == len(level) else "smallest of the fastest"
        return smallest, f"the {of} ({min(sizes) / 1e6:.2f} MB)"
    return next((each for each in fast if each.gap is None), fast[0]), ""


def advise(comparison: Comparison) -> str:
    """Comparison.advice."""
    best, level = comparison.best, comparison.level
    if best.name == RAW:
        others = join([each.name for each in level if each is not best])
        reason = f"raw pixels, {_value(best)}, are better than every encoder here"
        if others:
            reason = f"raw pixels, {_value(best)}, are the best, and {others} no better"
        return f"{_basis(comparison)}, ship none of these: {reason}."
    if any(each.name == RAW for each in level):
        reason = f"raw pixels cannot be told from the best, {best.name} ({_value(best)})"
        return f"{_basis(comparison)}, ship none of these: {reason}."
    ship, quality = choose(level)
    return f"{_basis(comparison)}, ship {ship.name}: {_reason(comparison, ship, quality)}."


def _reason(comparison: Comparison, ship: Compared, quality: str) -> str:
    """Why that encoder, of those that are level."""
    best, level = comparison.best, comparison.level
    own = _value(ship)
    if len(level) == 1:
        return f"it is better than every other, with {own}"
    if ship is not best:
        among = f"{quality} of the {len(level)} that are" if quality else "nothing else tells them apart"
        return f"it is level with the best, {best.name} ({own} and {_value(best)}), and {among}"
    others = join([each.name for each in level if each is not best])
    also = f" and {quality}" if quality else ""
    return f"with {own} it is the best{also} of those that are level, {others} being the other{'s' * (len(level) > 2)}"


def _basis(comparison: Comparison) -> str:
    """Which figure decides, and on how many images."""
    if comparison.figure == KNN:
        return f"By 5-NN accuracy on {comparison.judged} images of known class"
    if comparison.figure == FEW_LABELS:
        return f"By view consistency and the average precision of {comparison.judged} images of known class"
    return f"By view consistency on {comparison.judged} images, since their classes are not known"


def _value(encoder: Compared) -> str:
    return f"{encoder.deciding.mean:.3f}"
