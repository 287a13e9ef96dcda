"""The ladder to INT8: ways to quantize, cheapest first, judged without labels on images that none of them has seen."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Generic, TypeVar

from ..evaluate.layers import Layer
from ..runtime.errors import RunError
from ..runtime.fidelity import Fidelity

Model = TypeVar("Model")

# Good enough to stop: above the gates (.99 and .90), which are measured again on a user's own images.
GOOD_COSINE, GOOD_OVERLAP = 0.995, 0.92
# With more than this share of the multiply-adds in float, a network is INT8 in name only.
MOST_IN_FLOAT = 0.20


@dataclass(frozen=True)
class Attempt(Generic[Model]):
    """A way to quantize. `quantize` takes the names of the layers to leave in float."""

    name: str
    quantize: Callable[[Collection[str]], Model]


@dataclass(frozen=True)
class Rung:
    """What an attempt gave: its fidelity to PyTorch, or the error that it raised; None where the other is.

    `float_share`: of the network's multiply-adds, 0 to 1.
    """

    name: str
    fidelity: Fidelity | None
    float_share: float
    seconds: float
    error: str | None

    def to_json(self) -> dict[str, Any]:
        """For a manifest, which holds nothing timed."""
        figures = self.fidelity.to_json() if self.fidelity else {}
        kept = {name: figures[name] for name in ("cosine_mean", "cosine_p01", "overlap") if name in figures}
        return {"name": self.name, **kept, "float_share": round(self.float_share, 4), "error": self.error}


@dataclass(frozen=True)
class Ladder:
    """The rung that was kept, and all that were tried, in order."""

    kept: Rung
    rungs: tuple[Rung, ...]


@dataclass(frozen=True)
class _Tried(Generic[Model]):
    attempt: Attempt[Model]
    in_float: Sequence[str]
    rung: Rung
    model: Model | None


def climb(
    groups: Sequence[Sequence[Attempt[Model]]],
    judge: Callable[[Model], Fidelity],
    measure: Callable[[Model], Sequence[Layer]],
    shares: Mapping[str, float],
    fine_tuned: Sequence[Sequence[Attempt[Model]]],
    note: Callable[[str], None],
) -> tuple[Model, Ladder]:
    """Tries each group of attempts side by side until the best is good enough, then leaves layers in float.

    The best is the one of highest 1st percentile of cosines. `measure` gives a model's layers: those that lose most go
    into float, one, two, four, … of them, up to a fifth of the multiply-adds; `shares` are the layers' shares of these.
    Last come the groups on a fine-tuned network, with the best one's layers in float. An attempt that raises is
    recorded and passed over. Raises RunError if all of them do.
    """
    tried: list[_Tried[Model]] = []
    for group in groups:
        tried += [_try(attempt, [], judge, shares, note) for attempt in group]
        if _is_good(_best(tried)):
            break
    best = _best(tried)
    if best is None or best.model is None:
        raise RunError(f"no way to quantize this network worked; the last error: {tried[-1].rung.error}")
    if not _is_good(best):
        for layers in _growing(_most_sensitive(measure(best.model), shares)):
            tried.append(_try(best.attempt, layers, judge, shares, note))
            if _is_good(tried[-1]):
                break
        best = _best(tried) or best
    in_float = best.in_float
    for group in fine_tuned:
        if _is_good(best):
            break
        tried += [_try(attempt, in_float, judge, shares, note) for attempt in group]
        best = _best(tried) or best
    assert best.model is not None
    return best.model, Ladder(best.rung, tuple(each.rung for each in tried))


def _is_good(tried: _Tried[Model] | None) -> bool:
    """Whether a variant is well within INT8's gates."""
    if tried is None or tried.rung.fidelity is None:
        return False
    fidelity = tried.rung.fidelity
    return fidelity.cosine_mean >= GOOD_COSINE and (fidelity.overlap is None or fidelity.overlap >= GOOD_OVERLAP)


def _best(tried: Sequence[_Tried[Model]]) -> _Tried[Model] | None:
    """A good one before one that is not; of these, that of the highest 1st percentile."""
    return max((each for each in tried if each.rung.fidelity), key=_rank, default=None)


def _rank(tried: _Tried[Model]) -> tuple[bool, float]:
    return _is_good(tried), tried.rung.fidelity.cosine_p01 if tried.rung.fidelity else -1.0


def _try(
    attempt: Attempt[Model],
    in_float: Sequence[str],
    judge: Callable[[Model], Fidelity],
    shares: Mapping[str, float],
    note: Callable[[str], None],
) -> _Tried[Model]:
    layers = "1 layer" if len(in_float) == 1 else f"{len(in_float)} layers"
    name = f"{attempt.name}, {layers} in float" if in_float else attempt.name
    share = sum(shares.get(layer, 0) for layer in in_float)
    model, fidelity, error = None, None, None
    start = time.perf_counter()
    try:
        model = attempt.quantize(in_float)
        fidelity = judge(model)
        overlap = "" if fidelity.overlap is None else f", overlap {fidelity.overlap:.3f}"
        note(f"  {name}: cosine {fidelity.cosine_mean:.5f}, 1st percentile {fidelity.cosine_p01:.5f}{overlap}")
    except Exception as raised:  # quantizers raise whatever they like, and the next may work
        model = None
        error = (str(raised).strip() or type(raised).__name__).splitlines()[0]
        note(f"  {name}: failed ({error})")
    return _Tried(attempt, in_float, Rung(name, fidelity, share, time.perf_counter() - start, error), model)


def _most_sensitive(layers: Sequence[Layer], shares: Mapping[str, float]) -> list[str]:
    """Layers by how much signal to noise falls at them, the furthest fall first, as many as may be in float."""
    falls = {after.name: before.signal_to_noise - after.signal_to_noise for before, after in pairwise(layers)}
    chosen: list[str] = []
    for name in sorted(falls, key=lambda name: -falls[name]):
        if name in shares and sum(shares[each] for each in (*chosen, name)) <= MOST_IN_FLOAT:
            chosen.append(name)
    return chosen


def _growing(names: Sequence[str]) -> Iterator[Sequence[str]]:
    """The first name, the first two, four, …, all."""
    count = 1
    while count < len(names):
        yield names[:count]
        count *= 2
    if names:
        yield names
