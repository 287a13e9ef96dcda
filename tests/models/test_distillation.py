"""Regression onto a frozen teacher, against values worked out by hand."""

import pytest
import torch
from byol_edge.models.distillation import HIDDEN, Distillation, DistillationConfig
from byol_edge.models.network import InferenceNetwork
from byol_edge.models.objective import Heads, Views
from byol_edge.models.tail import build_tail, read_layers
from byol_edge.runtime.errors import UsageError
from byol_edge.runtime.preprocessing import Preprocessing
from torch import nn


def small_distillation(keep_space: bool = False) -> Distillation:
    torch.manual_seed(0)
    backbone = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return Distillation(backbone, embedding_size=8, hidden=16, target_size=5, keep_space=keep_space)


def draw_views(targets: torch.Tensor) -> Views:
    first, second = torch.randn(2, len(targets), 3, 8, 8)
    return Views(first, second, targets)


def test_the_loss_is_the_mean_over_both_views():
    student = small_distillation().eval()  # norms without a batch's statistics, so that the views can go in turn
    views = draw_views(nn.functional.normalize(torch.randn(6, 5), dim=1))
    assert views.targets is not None
    predictions = [student.projector(student.backbone(each)) for each in (views.first, views.second)]
    distances = [(nn.functional.normalize(each, dim=1) - views.targets).square().sum(1).mean() for each in predictions]
    torch.testing.assert_close(student(views).loss, torch.stack(distances).mean())


def test_a_perfect_student_has_no_loss_and_the_teachers_spread():
    student = small_distillation().eval()
    view = torch.randn(6, 3, 8, 8)
    targets = nn.functional.normalize(student.projector(student.backbone(view)), dim=1).detach()
    outcome = student(Views(view, view, targets))
    assert float(outcome.loss.detach()) == pytest.approx(0, abs=1e-6)
    assert float(outcome.diagnostics["prediction_spread"]) == pytest.approx(1, abs=1e-5)


def test_the_same_prediction_for_all_has_no_spread():
    student = small_distillation().eval()
    nn.init.zeros_(student.projector.get_parameter("3.weight"))
    outcome = student(draw_views(nn.functional.normalize(torch.randn(6, 5), dim=1)))
    assert float(outcome.diagnostics["prediction_spread"]) < 1e-3


def test_where_the_teacher_sees_one_image_the_spread_tells_nothing():
    student = small_distillation().eval()
    nn.init.zeros_(student.projector.get_parameter("3.weight"))
    outcome = student(draw_views(torch.ones(6, 5) / 5**0.5))
    assert float(outcome.diagnostics["prediction_spread"]) == 1


def test_a_few_steps_bring_the_student_closer():
    student = small_distillation()
    views = draw_views(nn.functional.normalize(torch.randn(32, 5), dim=1))
    optimizer = torch.optim.Adam(student.parameters(), 1e-2)
    losses = []
    for _ in range(30):
        optimizer.zero_grad()
        loss = student(views).loss
        loss.backward()
        optimizer.step()
        losses.append(float(loss))
    assert losses[-1] < 0.5 * losses[0]


def test_the_kept_head_gives_vectors_in_the_teachers_space():
    student = small_distillation(keep_space=True)
    student(draw_views(torch.randn(6, 5)))  # so that its norms have statistics
    student.eval()
    assert small_distillation().head is None
    assert student.head is not None
    images = torch.randint(0, 256, (4, 8, 8, 3), dtype=torch.uint8)
    preprocessing = Preprocessing(8)
    folded = build_tail(read_layers(student.head.state_dict()))
    whole, shipped = (InferenceNetwork(student.backbone, preprocessing, tail) for tail in (student.head, folded))
    assert whole(images).shape == (4, 5)
    torch.testing.assert_close(shipped(images), whole(images))


def test_settings_are_completed_and_checked():
    assert DistillationConfig().complete(Heads(), 100) == DistillationConfig(HIDDEN, False)
    with pytest.raises(UsageError, match="head_hidden=0: has to be from 1"):
        DistillationConfig(0).complete(Heads(), 100)
    with pytest.raises(UsageError, match="distillation needs a teacher"):
        DistillationConfig(16).build(nn.Flatten(), 8, None)
