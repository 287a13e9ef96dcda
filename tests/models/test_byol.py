"""The mathematics of BYOL, against values worked out by hand and the paper's equations."""

import copy

import pytest
import torch
import torch.nn.functional as F
from byol_edge.models.byol import (
    BYOL,
    BYOLConfig,
    compute_tau_base,
    mlp_head,
    projection_std,
    regression_loss,
    tau,
    update_target,
)
from byol_edge.models.objective import Heads, Views
from byol_edge.runtime.errors import UsageError
from torch import nn


def small_byol() -> BYOL:
    torch.manual_seed(0)
    backbone = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return BYOLConfig(tau_base=0.9, projector_hidden=16, projection_size=4).build(backbone, 8, 8)


def test_the_loss_of_the_two_sample_example():
    # −2·Σcos of the two pairs is −3.897; a tutorial that prints −3.6218 is wrong.
    prediction = torch.tensor([[0.5, 0.2], [0.3, 0.6]])
    target = torch.tensor([[0.4, 0.3], [0.2, 0.7]])
    loss = regression_loss(prediction, target)
    assert 2 * (loss - 2) == pytest.approx(-3.897, abs=5e-4)


def test_the_loss_is_the_squared_distance_of_unit_vectors():
    # Paper, eq. 2.
    q, z = torch.randn(2, 7, 5, generator=torch.Generator().manual_seed(0))
    expected = (F.normalize(q, dim=1) - F.normalize(z, dim=1)).square().sum(1).mean()
    torch.testing.assert_close(regression_loss(q, z), expected)


def test_the_ema_of_the_three_weight_example():
    # A tutorial that prints [.101, .203, .495] is wrong.
    target, online = nn.Linear(3, 1, bias=False), nn.Linear(3, 1, bias=False)
    with torch.no_grad():
        target.weight.copy_(torch.tensor([[0.1, 0.2, 0.5]]))
        online.weight.copy_(torch.tensor([[0.2, 0.3, 0.4]]))
    update_target(target, online, tau=0.99)
    torch.testing.assert_close(target.weight.data, torch.tensor([[0.101, 0.201, 0.499]]))


def test_a_head_is_that_of_the_recipe_of_record():
    head = mlp_head(8, 4096, 256)
    assert [type(layer) for layer in head] == [nn.Linear, nn.BatchNorm1d, nn.ReLU, nn.Linear]
    assert head[0].bias is not None
    assert head[3].bias is None
    assert head(torch.randn(2, 8)).shape == (2, 256)


def test_both_directions_are_summed():
    byol = small_byol()
    first, second = torch.randn(2, 6, 3, 8, 8)
    loss = byol(Views(first, second)).loss
    online = [byol.predictor(byol.projector(byol.backbone(view))) for view in (first, second)]
    target = [byol.target_projector(byol.target_backbone(view)) for view in (first, second)]
    expected = regression_loss(online[0], target[1]) + regression_loss(online[1], target[0])
    torch.testing.assert_close(loss, expected)


def test_the_target_never_receives_a_gradient():
    byol = small_byol()
    byol(Views(*torch.randn(2, 6, 3, 8, 8))).loss.backward()
    for part in (byol.target_backbone, byol.target_projector):
        assert all(not parameter.requires_grad and parameter.grad is None for parameter in part.parameters())
    for part in (byol.backbone, byol.projector, byol.predictor):
        assert all(parameter.grad is not None for parameter in part.parameters())


def test_the_target_starts_as_a_copy_and_follows_slowly():
    byol = small_byol()
    before = copy.deepcopy(byol.target_backbone.state_dict())
    online, target = (part.get_parameter("0.weight") for part in (byol.backbone, byol.target_backbone))
    assert online is not target
    assert torch.equal(online, target)
    with torch.no_grad():
        online += 1
    assert byol.after_step(progress=0) == {"tau": 0.9}
    torch.testing.assert_close(target.detach(), before["0.weight"] + 0.1)


def test_each_view_is_a_batch_of_its_own_for_batch_norm():
    byol = small_byol()
    first, second = torch.zeros(6, 3, 8, 8), torch.full((6, 3, 8, 8), 9.0)
    projections: list[torch.Tensor] = []
    byol.projector.register_forward_hook(lambda *call: projections.append(call[2]))
    byol(Views(first, second))
    byol(Views(first, -second))
    torch.testing.assert_close(projections[0], projections[2])


def test_the_targets_batch_statistics_are_its_own():
    byol = small_byol()
    byol(Views(*torch.randn(2, 6, 3, 8, 8)))
    statistics = byol.target_backbone.get_buffer("1.running_mean")
    updated = statistics.clone()
    assert not torch.equal(updated, torch.zeros(8))
    byol.tau_base = 0.0
    byol.after_step(progress=0)
    assert torch.equal(statistics, updated)


def test_tau_at_the_start_the_middle_and_the_end():
    assert tau(0, 0.99) == pytest.approx(0.99)
    assert tau(0.5, 0.99) == pytest.approx(0.995)
    assert tau(1, 0.99) == 1


def test_tau_never_falls():
    values = [tau(step / 100, 0.96) for step in range(101)]
    assert values == sorted(values)


def test_tau_follows_the_steps_and_comes_near_the_authors_values():
    for steps, authors in ((12_500, 0.97), (31_250, 0.99), (93_750, 0.99), (312_500, 0.996)):
        assert compute_tau_base(steps) == pytest.approx(authors, abs=0.0055)
    assert compute_tau_base(1250) == pytest.approx(0.9, abs=0.001)
    assert compute_tau_base(1) == compute_tau_base(200) == 0.9


def test_the_spread_of_the_sphere_is_one_and_of_a_constant_zero():
    torch.manual_seed(0)
    assert float(projection_std(torch.randn(2000, 64))) == pytest.approx(1, abs=0.02)
    assert float(projection_std(torch.ones(50, 64))) == pytest.approx(0, abs=1e-6)
    assert float(projection_std(3 * torch.randn(2000, 64) + 5)) < 0.6


def test_what_is_not_given_is_computed_from_the_heads_and_the_steps():
    assert BYOLConfig().complete(Heads(512, 64), 1250) == BYOLConfig(compute_tau_base(1250), 512, 64)
    assert BYOLConfig(0.5, 8, 4).complete(Heads(512, 64), 1250) == BYOLConfig(0.5, 8, 4)
    with pytest.raises(UsageError, match="projection_size=0: at least 1"):
        BYOLConfig(projection_size=0).complete(Heads(), 10)
