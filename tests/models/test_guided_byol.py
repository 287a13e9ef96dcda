"""BYOL and distillation at once: the sum of the two, and one backbone."""

import pytest
import torch
from byol_edge.models.byol import compute_tau_base
from byol_edge.models.guided_byol import GuidedBYOL, GuidedBYOLConfig
from byol_edge.models.objective import Heads, Views
from byol_edge.runtime.errors import UsageError
from torch import nn

TARGETS = nn.functional.normalize(torch.randn(6, 5, generator=torch.Generator().manual_seed(1)), dim=1)


def small() -> GuidedBYOL:
    torch.manual_seed(0)
    backbone = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return GuidedBYOLConfig(0.9, 16, 4, 3, byol_weight=0.25).build(backbone, 8, 8, TARGETS)


def test_the_loss_is_the_weighted_sum():
    student = small().eval()
    first, second = torch.randn(2, 6, 3, 8, 8)
    views = Views(first, second, TARGETS)
    outcome = student(views)
    byol = student.compare(views, [student.backbone(each) for each in (views.first, views.second)])
    both = student.teacher_predictor(student.backbone(torch.cat([views.first, views.second])))
    taught = student.space.regress(both, torch.cat([TARGETS, TARGETS]))
    torch.testing.assert_close(outcome.loss, 0.25 * byol.loss + taught.loss)
    assert outcome.diagnostics.keys() == {"projection_std", "prediction_spread"}


def test_the_target_follows_and_the_heads_learn():
    student = small()
    before = student.target_backbone.get_parameter("0.weight").clone()
    first, second = torch.randn(2, 6, 3, 8, 8)
    student(Views(first, second, torch.randn(6, 5))).loss.backward()
    assert all(each.grad is not None for each in student.teacher_predictor.parameters())
    assert student.predictor.get_parameter("0.weight").grad is not None
    with torch.no_grad():
        student.backbone.get_parameter("0.weight").add_(1)
    assert student.after_step(0.0) == {"tau": 0.9}
    torch.testing.assert_close(student.target_backbone.get_parameter("0.weight"), before + 0.1)
    names = [name for name, _ in student.named_parameters() if name.startswith("backbone.")]
    assert names == ["backbone.0.weight", "backbone.0.bias", "backbone.1.weight", "backbone.1.bias"]


def test_settings_are_those_of_both():
    complete = GuidedBYOLConfig().complete(Heads(512, 64), 1250)
    assert complete == GuidedBYOLConfig(compute_tau_base(1250), 512, 64, 64, 0.5)
    with pytest.raises(UsageError, match="byol_weight=0: has to be above 0"):
        GuidedBYOLConfig(byol_weight=0).complete(Heads(), 10)
    with pytest.raises(UsageError, match="guided BYOL needs a teacher"):
        complete.build(nn.Flatten(), 8, 8, None)
