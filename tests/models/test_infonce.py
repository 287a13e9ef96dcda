"""The mathematics of InfoNCE, against values worked out by hand."""

import math

import pytest
import torch
import torch.nn.functional as F
from byol_edge.models.byol import compute_tau_base
from byol_edge.models.infonce import InfoNCE, InfoNCEConfig, contrastive_loss
from byol_edge.models.objective import Heads, Views
from byol_edge.runtime.errors import UsageError
from torch import nn


def small(temperature: float = 0.2) -> InfoNCE:
    torch.manual_seed(0)
    backbone = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return InfoNCEConfig(0.9, 16, 4, temperature).build(backbone, 8, 8)


def test_the_loss_of_an_example_worked_out_by_hand():
    # Cosines: q1 with z1 and z2 is 1 and 0, q2 with z1 and z2 is 0.6 and 0.8. At T = 0.5 the losses are
    # −log(e² / (e² + 1)) = 0.126928 and −log(e^1.6 / (e^1.2 + e^1.6)) = 0.513015; lengths do not matter.
    predictions = torch.tensor([[3.0, 0.0], [0.6, 0.8]])
    targets = torch.tensor([[1.0, 0.0], [0.0, 5.0]])
    loss, found = contrastive_loss(predictions, targets, 0.5)
    assert loss == pytest.approx((0.126928 + 0.513015) / 2, abs=1e-6)
    assert found == 1


def test_the_loss_is_the_formula_of_the_paper():
    q, z = torch.randn(2, 7, 5, generator=torch.Generator().manual_seed(0)).double()
    similarities = torch.exp(F.cosine_similarity(q[:, None], z[None], dim=2) / 0.2)
    expected = -(similarities.diagonal() / similarities.sum(1)).log().mean()
    torch.testing.assert_close(contrastive_loss(q, z, 0.2)[0], expected)


def test_images_that_are_all_alike_cannot_be_told_apart():
    loss, _ = contrastive_loss(torch.ones(8, 4), torch.ones(8, 4), 0.2)
    assert loss == pytest.approx(math.log(8))


def test_a_prediction_nearer_to_another_image_is_not_found():
    targets = torch.eye(4)
    predictions = torch.stack([targets[0], targets[1], targets[3], targets[2]])
    assert contrastive_loss(predictions, targets, 0.2)[1] == 0.5


def test_both_directions_are_summed_and_each_is_compared_with_the_other_view():
    model = small()
    first, second = torch.randn(2, 6, 3, 8, 8)
    outcome = model(Views(first, second))
    online = [model.predictor(model.projector(model.backbone(view))) for view in (first, second)]
    target = [model.target_projector(model.target_backbone(view)) for view in (first, second)]
    expected = contrastive_loss(online[0], target[1], 0.2)[0] + contrastive_loss(online[1], target[0], 0.2)[0]
    torch.testing.assert_close(outcome.loss, expected)
    assert outcome.diagnostics.keys() == {"projection_std", "found"}


def test_a_lower_temperature_minds_the_nearest_negatives_more():
    views = Views(*torch.randn(2, 6, 3, 8, 8))
    assert small(0.05)(views).loss > small(0.5)(views).loss


def test_the_momentum_encoder_follows_and_never_receives_a_gradient():
    model = small()
    model(Views(*torch.randn(2, 6, 3, 8, 8))).loss.backward()
    assert all(each.grad is None for each in model.target_backbone.parameters())
    assert all(each.grad is not None for each in (*model.backbone.parameters(), *model.predictor.parameters()))
    before = model.target_backbone.get_parameter("0.weight").clone()
    with torch.no_grad():
        model.backbone.get_parameter("0.weight").add_(1)
    assert model.after_step(0.0) == {"tau": 0.9}
    torch.testing.assert_close(model.target_backbone.get_parameter("0.weight"), before + 0.1)


def test_settings_are_byols_and_a_temperature():
    complete = InfoNCEConfig().complete(Heads(512, 64), 1250)
    assert complete == InfoNCEConfig(compute_tau_base(1250), 512, 64, 0.1)
    with pytest.raises(UsageError, match="tau_base=2: at most 1"):
        InfoNCEConfig(tau_base=2).complete(Heads(), 10)
    with pytest.raises(UsageError, match=r"temperature=0: has to be from 0\.01 to 10"):
        InfoNCEConfig(temperature=0).complete(Heads(), 10)
