"""The best network of the path from a start to an end, chosen by a figure that the tests prescribe."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from byol_edge.models.network import InferenceNetwork
from byol_edge.runtime import Preprocessing
from byol_edge.train.evaluation import Figures
from byol_edge.train.selection import SHARES, choose_network, copy_weights
from torch import nn

IMAGES = 30


class Prescribed:
    """An evaluation by the network's one weight, which goes from 0 at the start to 1 at the end."""

    def __init__(self, worth: Callable[[float], float], bonus: float = 0) -> None:
        self.worth, self.bonus = worth, bonus

    def measure(self, network: InferenceNetwork, with_knn: bool) -> Figures:
        assert with_knn
        return Figures(rank=weight_of(network), embedding_std=0.5)

    def measure_consistency(self, network: InferenceNetwork) -> np.ndarray:
        return np.full(IMAGES, self.worth(weight_of(network)))

    def score(self, network: InferenceNetwork, consistency: np.ndarray) -> float:
        return float(consistency.mean()) + self.bonus * weight_of(network)

    def floors(self, consistency: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return np.full(IMAGES, self.worth(0)), np.full(IMAGES, 0.2)

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


def weight_of(network: InferenceNetwork) -> float:
    return float(next(network.backbone.parameters()).detach())


def make_network() -> tuple[InferenceNetwork, dict[str, torch.Tensor]]:
    backbone = nn.Sequential(nn.Conv2d(1, 1, 1, bias=False), nn.BatchNorm2d(1))
    nn.init.zeros_(backbone.get_parameter("0.weight"))
    start = dict(copy_weights(backbone))
    nn.init.ones_(backbone.get_parameter("0.weight"))
    backbone.get_buffer("1.num_batches_tracked").add_(7)
    return InferenceNetwork(backbone, Preprocessing(32)), start


@pytest.mark.parametrize(
    ("worth", "best"),
    [
        (lambda share: 0.3 + 0.5 * share, 1.0),
        (lambda share: 0.5 - abs(share - 0.5) / 2, 0.5),
        (lambda share: 0.5 - abs(share - 0.7), 0.75),
        (lambda share: 0.5 - 0.2 * share, 0.0),
        (lambda share: 0.5, 1.0),  # of equal ones, the last
    ],
)
def test_the_best_of_the_path_is_taken(worth: Callable[[float], float], best: float):
    network, start = make_network()
    evidence, weights = choose_network(network, start, Prescribed(worth), margin=0.0)
    assert evidence.share == best
    assert float(weights["0.weight"]) == pytest.approx(best)
    assert weights["1.num_batches_tracked"] == 7  # a counter is no weight
    assert evidence.figures.rank == pytest.approx(best)
    assert evidence.consistency == pytest.approx(worth(best))
    assert evidence.gain.mean == pytest.approx(worth(best) - worth(0))
    assert evidence.lead.mean == pytest.approx(worth(best) - 0.2)
    assert weight_of(network) == 1.0  # left as trained


def test_a_gain_below_the_margin_does_not_count():
    for gain, best in ((0.009, 0.0), (0.011, 1.0)):
        network, start = make_network()
        found, _ = choose_network(network, start, Prescribed(lambda share, gain=gain: 0.5 + gain * share), margin=0.01)
        assert found.share == best


def test_what_the_evaluation_chooses_by_is_not_what_is_told():
    network, start = make_network()
    evidence, _ = choose_network(network, start, Prescribed(lambda share: 0.5 - 0.2 * share, bonus=0.3), margin=0.0)
    assert evidence.share == 1.0
    assert evidence.gain.mean == pytest.approx(-0.2)


def test_from_random_weights_no_path_leads():
    network, _ = make_network()
    evidence, weights = choose_network(network, None, Prescribed(lambda share: 0.5 - 0.2 * share), margin=0.0)
    assert evidence.share == SHARES[-1] == 1.0
    assert float(weights["0.weight"]) == 1.0
    assert evidence.gain.mean == pytest.approx(-0.2)
