"""What a run holds in the end: the best network of the path from its start to its end.

It is chosen without labels, or with the handful that there is; none of these measures it.

Weights averaged with those of the start often do better than either (WiSE-FT, Wortsman et al. 2022, arXiv 2109.01903),
and where training did not help, the best is the start itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from ..evaluate.intervals import bootstrap_interval
from ..models.network import InferenceNetwork
from ..runtime.interval import Interval
from .evaluation import Evaluation, Figures
from .ranks import broadcast, is_first

# Shares of the way from the start to the end that are tried; of equal ones, the last is taken.
SHARES = (0.0, 0.5, 0.75, 1.0)

Weights = Mapping[str, Tensor]


@dataclass(frozen=True)
class Evidence:
    """What a finished run's encoder is worth, beside its start and raw pixels.

    `share` of the way from the start to the end: 1 for the network as trained. `figures`: of that network.
    `consistency`, `start`, `raw`: view consistency, the label-free figure, of it, the start and raw pixels; `gain` and
    `lead`: its differences to the start and to raw pixels, paired by image.
    """

    share: float
    figures: Figures
    consistency: float
    start: float
    raw: float
    gain: Interval
    lead: Interval


def choose_network(
    network: InferenceNetwork, start: Weights | None, evaluation: Evaluation, margin: float
) -> tuple[Evidence, Weights]:
    """The evidence on the best network of the path, and its backbone's weights.

    `network` is as trained, and is left so. `start`: the weights of its backbone before training; None if these were
    random, since no path leads from there: then the network as trained is the only one. `margin`: what a network has to
    be ahead of the start.
    """
    backbone, end = network.backbone, copy_weights(network.backbone)
    shares = SHARES if start is not None else SHARES[-1:]
    paths = {share: _blend(start or end, end, share) for share in shares}
    try:
        consistencies, scores = {}, {}
        for share, weights in paths.items():
            backbone.load_state_dict(weights)
            consistencies[share] = evaluation.measure_consistency(network)
            scores[share] = evaluation.score(network, consistencies[share]) - margin * (share > 0)
        found = max(shares, key=lambda share: (scores[share], share))
        best = broadcast(found if is_first() else None)  # of several machines, one decides
        backbone.load_state_dict(paths[best])
        figures = evaluation.measure(network, with_knn=True)
    finally:
        backbone.load_state_dict(end)
    own, of_start, of_raw = (consistencies[best], *evaluation.floors(consistencies[best]))
    evidence = Evidence(
        share=best,
        figures=figures,
        consistency=float(own.mean()),
        start=float(of_start.mean()),
        raw=float(of_raw.mean()),
        gain=bootstrap_interval(own - of_start),
        lead=bootstrap_interval(own - of_raw),
    )
    return evidence, paths[best]


def copy_weights(backbone: nn.Module) -> Weights:
    """A backbone's weights as they are now, on the CPU."""
    return {name: tensor.detach().cpu().clone() for name, tensor in backbone.state_dict().items()}


def _blend(start: Weights, end: Weights, share: float) -> Weights:
    """start·(1 − share) + end·share for each tensor of numbers; counters are the end's."""
    return {
        name: start[name].lerp(tensor, share) if tensor.is_floating_point() else tensor for name, tensor in end.items()
    }
