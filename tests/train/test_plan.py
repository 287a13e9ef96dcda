import dataclasses

import pytest
from byol_edge.train.plan import Plan

PLAN = Plan(images=160, epochs=10, batch_size=16, accumulate=2, learning_rate=2.0, warmup_epochs=1)


def test_steps_leave_an_epochs_short_last_batch_out():
    plan = dataclasses.replace(PLAN, images=175)
    assert (plan.steps_per_epoch, plan.steps, plan.part_size, plan.warmup_steps) == (10, 100, 8, 10)
    assert [plan.steps_of(epoch) for epoch in (0, 9)] == [range(10), range(90, 100)]


def test_the_rate_rises_in_a_line_then_falls_to_zero():
    rates = [PLAN.rate(step) for step in range(101)]
    assert rates[:10] == pytest.approx([0.2 * step for step in range(1, 11)])
    assert rates[10] == pytest.approx(2.0)
    assert rates[55] == pytest.approx(1.0)
    assert rates[100] == pytest.approx(0)
    assert rates[10:] == sorted(rates[10:], reverse=True)


def test_a_run_without_warm_up_starts_at_the_peak():
    assert dataclasses.replace(PLAN, warmup_epochs=0).rate(0) == 2.0


def test_progress_is_the_share_of_steps_before():
    assert [PLAN.progress(step) for step in (0, 50, 99)] == [0, 0.5, 0.99]


@pytest.mark.parametrize(("epochs", "times"), [(3, 3), (20, 20), (100, 20), (1000, 20)])
def test_knn_is_measured_about_twenty_times_and_at_the_end(epochs: int, times: int):
    plan = dataclasses.replace(PLAN, epochs=epochs)
    due = [epoch for epoch in range(1, epochs + 1) if plan.measures_knn(epoch)]
    assert len(due) == times
    assert due[-1] == epochs
