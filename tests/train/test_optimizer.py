"""One step of each parameter group, against the update written out."""

import pytest
import torch
from byol_edge.train.optimizer import RATES, build_optimizer
from torch import nn

RATE, DECAY = 0.5, 0.1


@pytest.fixture
def network() -> nn.Module:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    network[2].requires_grad_(False)
    return network


def step(network: nn.Module, name: str) -> tuple[list[torch.Tensor], list[torch.Tensor], list[torch.Tensor]]:
    """One step; the trained parameters before it, their gradients, and the parameters after it."""
    optimizer = build_optimizer(name, dict(network.named_parameters()), RATE, DECAY)
    network(torch.randn(5, 3)).square().sum().backward()
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    before = [parameter.detach().clone() for parameter in trained]
    gradients = [parameter.grad.clone() for parameter in trained if parameter.grad is not None]
    optimizer.step()
    return before, gradients, [parameter.detach() for parameter in trained]


def test_lars_adapts_and_decays_weights_alone(network: nn.Module):
    before, gradients, after = step(network, "lars")
    for old, gradient, new in zip(before, gradients, after, strict=True):
        if old.ndim > 1:
            trust = 0.001 * old.norm() / (gradient.norm() + DECAY * old.norm())
            expected = old - RATE * trust * (gradient + DECAY * old)
        else:
            expected = old - RATE * gradient
        torch.testing.assert_close(new, expected)


def test_sgd_decays_weights_alone(network: nn.Module):
    before, gradients, after = step(network, "sgd")
    for old, gradient, new in zip(before, gradients, after, strict=True):
        torch.testing.assert_close(new, old - RATE * (gradient + (DECAY if old.ndim > 1 else 0) * old))


def test_adamw_decays_weights_alone(network: nn.Module):
    before, gradients, after = step(network, "adamw")
    for old, gradient, new in zip(before, gradients, after, strict=True):
        decayed = old * (1 - RATE * DECAY) if old.ndim > 1 else old
        torch.testing.assert_close(new, decayed - RATE * gradient / (gradient.abs() + 1e-8), rtol=1e-4, atol=1e-5)


def test_frozen_parameters_are_not_touched(network: nn.Module):
    optimizer = build_optimizer("adamw", dict(network.named_parameters()), RATE, DECAY)
    held = {parameter for group in optimizer.param_groups for parameter in group["params"]}
    assert held == {parameter for parameter in network.parameters() if parameter.requires_grad}


def test_lars_adapts_weights_without_decay_too(network: nn.Module):
    optimizer = build_optimizer("lars", dict(network.named_parameters()), RATE, weight_decay=0)
    network(torch.randn(5, 3)).square().sum().backward()
    weight = next(network.parameters())
    assert weight.grad is not None
    expected = weight.detach() - RATE * 0.001 * weight.detach().norm() / weight.grad.norm() * weight.grad
    optimizer.step()
    torch.testing.assert_close(weight.detach(), expected)


def test_each_optimizer_has_a_rate_of_its_own_that_grows_with_the_batch_as_it_should():
    assert len({rates.learning_rate for rates in RATES.values()}) == len(RATES)
    growth = {name: rates.peak(1024) / rates.peak(256) for name, rates in RATES.items()}
    assert growth == pytest.approx({"adamw": 2, "lars": 4, "sgd": 4})


def test_the_backbones_rate_is_a_share_of_the_others():
    network = nn.ModuleDict({"backbone": nn.Linear(3, 4), "head": nn.Linear(4, 2)})
    optimizer = build_optimizer("sgd", dict(network.named_parameters()), RATE, DECAY, backbone_rate=0.25)
    shares = {id(each): group["share"] for group in optimizer.param_groups for each in group["params"]}
    assert {name: shares[id(each)] for name, each in network.named_parameters()} == {
        "backbone.weight": 0.25,
        "backbone.bias": 0.25,
        "head.weight": 1.0,
        "head.bias": 1.0,
    }
