"""The quantization search: ways to quantize, cheapest first, judged without labels on images that none has seen."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Generic, Protocol, TypeVar

from ..evaluate.layers import Layer
from ..runtime.errors import RunError
from ..runtime.fidelity import Fidelity

log = logging.getLogger(__name__)

Model = TypeVar("Model")

# Good enough to stop: above the gates (0.99 and 0.90), which are measured again on a user's own images.
GOOD_COSINE, GOOD_OVERLAP = 0.995, 0.92
# With more than this share of the multiply-adds in float, a network is INT8 in name only.
MOST_IN_FLOAT = 0.20
# Layers in float cost time and size: they have to make a variant good, or leave no more than this of its loss.
WORTHWHILE = 0.90


@dataclass(frozen=True)
class Method(Generic[Model]):
    """A way to quantize. `quantize` takes the names of the layers to leave in float."""

    name: str
    quantize: Callable[[Collection[str]], Model]


class SearchSpace(Protocol[Model]):
    """What a search tries, and how it judges what comes out."""

    @property
    def shares(self) -> Mapping[str, float]:
        """Of each layer with weights, its share of the network's multiply-adds, 0 to 1."""
        ...

    def methods(self) -> Sequence[Sequence[Method[Model]]]:
        """In groups, the cheapest first; those of a group are tried side by side."""
        ...

    def fine_tuned(self, method: Method[Model]) -> Method[Model] | None:
        """The same method on a fine-tuned network; None if nothing is to be fine-tuned."""
        ...

    def judge(self, model: Model) -> Fidelity: ...

    def measure(self, model: Model) -> Sequence[Layer]:
        """The model's layers beside those in float."""
        ...


@dataclass(frozen=True)
class Trial:
    """What a method gave: its fidelity to PyTorch, or the error that it raised; None where the other is.

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
class Search:
    """The trial that was kept, and all that were made, in order."""

    kept: Trial
    tried: tuple[Trial, ...]

    def to_json(self) -> dict[str, Any]:
        return {"kept": self.kept.name, "tried": [each.to_json() for each in self.tried]}


@dataclass(frozen=True)
class _Result(Generic[Model]):
    method: Method[Model]
    in_float: Sequence[str]
    trial: Trial
    model: Model | None


def search(space: SearchSpace[Model]) -> tuple[Model, Search]:
    """Tries each group of methods until the best is good enough, then leaves layers in float, then fine-tunes.

    The best is the one of highest 1st percentile of cosines. Its layers that lose most go into float, one, two, four, …
    of them, up to a fifth of the multiply-adds, and stay there if that is worth it. Last come the methods on a
    fine-tuned network, with the best one's layers in float. A method that raises is recorded and passed over. Raises
    RunError if all of them do.
    """
    groups = space.methods()
    results: list[_Result[Model]] = []
    for group in groups:
        results += [_try(space, method, []) for method in group]
        if _is_good(_best(results)):
            break
    best = _require(results)
    if best.model is not None and not _is_good(best):
        for layers in _growing(_most_sensitive(space.measure(best.model), space.shares)):
            results.append(_try(space, best.method, layers))
            if _is_good(results[-1]):
                break
        best = _require(results)
    in_float = best.in_float
    for group in groups:
        if _is_good(_best(results)):
            break
        results += [_try(space, tuned, in_float) for tuned in map(space.fine_tuned, group) if tuned]
    return _conclude(results)


def quantize_by(space: SearchSpace[Model], method: Method[Model]) -> tuple[Model, Search]:
    """Quantizes by one method, whatever comes of it. Raises RunError if that fails."""
    return _conclude([_try(space, method, [])])


def _conclude(results: Sequence[_Result[Model]]) -> tuple[Model, Search]:
    best = _require(results)
    assert best.model is not None
    return best.model, Search(best.trial, tuple(each.trial for each in results))


def _require(results: Sequence[_Result[Model]]) -> _Result[Model]:
    best = _best(results)
    if best is None:
        raise RunError(f"no way to quantize this network worked; the last error: {results[-1].trial.error}")
    return best


def _is_good(result: _Result[Model] | None) -> bool:
    """Whether a variant is well within INT8's gates."""
    if result is None or result.trial.fidelity is None:
        return False
    fidelity = result.trial.fidelity
    return fidelity.cosine_mean >= GOOD_COSINE and (fidelity.overlap is None or fidelity.overlap >= GOOD_OVERLAP)


def _best(results: Sequence[_Result[Model]]) -> _Result[Model] | None:
    """The one to keep, of results in the order in which they were tried."""
    best = None
    for result in results:
        if result.model is not None and (best is None or _is_better(result, best)):
            best = result
    return best


def _is_better(result: _Result[Model], other: _Result[Model]) -> bool:
    """A good one before one that is not; of these, the one of highest 1st percentile, by much if it costs more."""
    if _is_good(result) != _is_good(other):
        return _is_good(result)
    worthwhile = WORTHWHILE if len(result.in_float) > len(other.in_float) else 1.0
    return _loss(result) < worthwhile * _loss(other)


def _loss(result: _Result[Model]) -> float:
    """What is lost at the 1st percentile of cosines, 0 to 2; 3 where there are rows without a direction."""
    lowest = result.trial.fidelity.cosine_p01 if result.trial.fidelity else math.nan
    return 3.0 if math.isnan(lowest) else 1 - lowest


def _try(space: SearchSpace[Model], method: Method[Model], in_float: Sequence[str]) -> _Result[Model]:
    layers = "1 layer" if len(in_float) == 1 else f"{len(in_float)} layers"
    name = f"{method.name}, {layers} in float" if in_float else method.name
    share = sum(space.shares.get(layer, 0) for layer in in_float)
    model, fidelity, error = None, None, None
    start = time.perf_counter()
    try:
        model = method.quantize(in_float)
        fidelity = space.judge(model)
        overlap = "" if fidelity.overlap is None else f", overlap {fidelity.overlap:.3f}"
        log.info(f"  {name}: cosine {fidelity.cosine_mean:.5f}, 1st percentile {fidelity.cosine_p01:.5f}{overlap}")
    except Exception as raised:  # quantizers raise whatever they like, and the next may work
        model = None
        error = (str(raised).strip() or type(raised).__name__).splitlines()[0]
        log.warning(f"  {name}: failed ({error})")
    return _Result(method, in_float, Trial(name, fidelity, share, time.perf_counter() - start, error), model)


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
