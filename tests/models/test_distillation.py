"""Regression onto a frozen teacher, against values worked out by hand."""

import pytest
import torch
from byol_edge.models.distillation import Distillation, DistillationConfig, TeacherSpace, find_directions
from byol_edge.models.network import InferenceNetwork
from byol_edge.models.objective import Heads, Views
from byol_edge.models.tail import build_tail, fold
from byol_edge.runtime.errors import UsageError
from byol_edge.runtime.preprocessing import Preprocessing
from torch import Tensor, nn


def unit_rows(count: int, size: int = 5, seed: int = 1) -> Tensor:
    return nn.functional.normalize(torch.randn(count, size, generator=torch.Generator().manual_seed(seed)), dim=1)


def small_distillation(targets: Tensor, **chosen: bool) -> Distillation:
    torch.manual_seed(0)
    backbone = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return DistillationConfig(components=4, **chosen).build(backbone, 8, 8, targets)


def draw_views(targets: Tensor) -> Views:
    first, second = torch.randn(2, len(targets), 3, 8, 8, generator=torch.Generator().manual_seed(2))
    return Views(first, second, targets)


def test_the_loss_is_the_mean_over_both_views():
    targets = unit_rows(6)
    student = small_distillation(targets).eval()  # norms without a batch's statistics, so that the views can go in turn
    views = draw_views(targets)
    predictions = [student.predictor(student.backbone(each)) for each in (views.first, views.second)]
    components = nn.functional.normalize((targets - targets.mean(0)) @ student.space.directions.T, dim=1)
    distances = [(nn.functional.normalize(each, dim=1) - components).square().sum(1).mean() for each in predictions]
    torch.testing.assert_close(student(views).loss, torch.stack(distances).mean())


def test_a_perfect_prediction_has_no_loss_and_the_teachers_spread():
    targets = unit_rows(12)
    space = TeacherSpace(targets, 4)
    outcome = space.regress(3 * (targets - targets.mean(0)) @ space.directions.T, targets)
    assert float(outcome.loss) == pytest.approx(0, abs=1e-6)
    assert float(outcome.diagnostics["prediction_spread"]) == pytest.approx(1, abs=1e-5)


def test_the_same_prediction_for_all_has_no_spread():
    targets = unit_rows(6)
    student = small_distillation(targets).eval()
    nn.init.zeros_(student.predictor.get_parameter("1.weight"))
    assert float(student(draw_views(targets)).diagnostics["prediction_spread"]) < 1e-3


def test_where_the_teacher_sees_one_image_the_spread_tells_nothing():
    targets = torch.ones(6, 5) / 5**0.5
    student = small_distillation(targets).eval()
    nn.init.zeros_(student.predictor.get_parameter("1.weight"))
    outcome = student(draw_views(targets))
    assert float(outcome.diagnostics["prediction_spread"]) == 1
    assert outcome.loss.isfinite()


def test_a_few_steps_bring_the_student_closer():
    targets = unit_rows(32)
    student, views = small_distillation(targets), draw_views(targets)
    optimizer = torch.optim.Adam(student.parameters(), 1e-2)
    losses = []
    for _ in range(30):
        optimizer.zero_grad()
        loss = student(views).loss
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.5 * losses[0]


def test_directions_are_those_of_most_variance_and_leave_out_what_is_nan():
    deviations = torch.tensor([0.1, 3.0, 0.0, 1.0])
    vectors = torch.randn(400, 4, generator=torch.Generator().manual_seed(3)) * deviations + 5
    mean, directions = find_directions(torch.cat([vectors, torch.full((2, 4), torch.nan)]), 9)
    torch.testing.assert_close(mean, vectors.mean(0))
    assert directions.shape == (3, 4)  # nothing varies in the third dimension
    torch.testing.assert_close(directions @ directions.T, torch.eye(3))
    assert directions.abs().argmax(1).tolist() == [1, 3, 0]
    assert len(find_directions(vectors, 2)[1]) == 2


@pytest.mark.parametrize(("vectors", "size"), [(torch.ones(20, 6), 1), (unit_rows(3, 6), 2), (unit_rows(1, 6), 1)])
def test_few_or_equal_vectors_have_few_directions(vectors: Tensor, size: int):
    mean, directions = find_directions(vectors.half(), 256)
    assert directions.shape == (size, 6)
    assert mean.isfinite().all() and directions.isfinite().all()


def test_predictions_of_any_length_are_brought_into_the_teachers_space():
    targets = unit_rows(50)
    space = TeacherSpace(targets, 5)
    shortened = 0.25 * (targets - targets.mean(0)) @ space.directions.T
    for _ in range(3):
        space.regress(shortened, targets)
    torch.testing.assert_close(space(shortened), targets)
    before = space.products.clone()
    space.eval().regress(-shortened, targets)
    assert torch.equal(space.products, before)


def test_what_is_shipped_is_the_backbone_the_components_or_the_teachers_space():
    targets = unit_rows(6)
    images = torch.randint(0, 256, (4, 8, 8, 3), dtype=torch.uint8)
    assert small_distillation(targets, keep_head=False).head is None
    for chosen, size in (({"keep_head": True}, 4), ({"keep_head": False, "keep_space": True}, 5)):
        student = small_distillation(targets, **chosen)
        student(draw_views(targets))  # so that its norms have statistics
        student.eval()
        assert student.head is not None
        folded = build_tail([fold(student.head, 8)])
        whole, shipped = (InferenceNetwork(student.backbone, Preprocessing(8), tail) for tail in (student.head, folded))
        assert whole(images).shape == (4, size)
        torch.testing.assert_close(shipped(images), whole(images))


def test_settings_are_completed_and_checked():
    assert DistillationConfig().complete(Heads(shipped=True), 100) == DistillationConfig(256, True, False)
    assert DistillationConfig(8).complete(Heads(), 100) == DistillationConfig(8, False, False)
    with pytest.raises(UsageError, match="components=0: has to be from 1"):
        DistillationConfig(0).complete(Heads(), 100)
    with pytest.raises(UsageError, match="distillation needs a teacher"):
        DistillationConfig(16, True).build(nn.Flatten(), 8, 8, None)
