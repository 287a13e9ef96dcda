import math
from collections.abc import Iterator

import pytest
import torch
from byol_edge.evaluate.evidence import Evidence
from byol_edge.train import monitor as monitor_module
from byol_edge.train.monitor import EpochMonitor, Moment, projection_std


def test_the_spread_of_the_sphere_is_one_and_of_a_constant_zero():
    torch.manual_seed(0)
    assert float(projection_std(torch.randn(2000, 64))) == pytest.approx(1, abs=0.02)
    assert float(projection_std(torch.ones(50, 64))) == pytest.approx(0, abs=1e-6)
    assert float(projection_std(3 * torch.randn(2000, 64) + 5)) < 0.6


def test_an_epoch_is_summed_up():
    monitor = EpochMonitor()
    monitor.add(9, torch.tensor(1.0), torch.randn(8, 4))
    monitor.add(10, torch.tensor(3.0), torch.randn(8, 4))
    metrics = monitor.summarize(Moment(5, 10, 0.99, 0.1), 2.0, Evidence(7.0, 0.5, None), unreadable=2)
    assert (metrics.epoch, metrics.step, metrics.loss, metrics.unreadable) == (5, 10, 2.0, 2)
    assert (metrics.images_per_s, metrics.rank, metrics.knn) == (8, 7.0, None)


def test_the_first_loss_that_is_no_number_is_found():
    monitor = EpochMonitor()
    assert monitor.first_bad_step() is None
    for step, loss in enumerate([1.0, 2.0, math.inf, math.nan], start=21):
        monitor.add(step, torch.tensor(loss), torch.randn(8, 4))
    assert monitor.first_bad_step() == (23, math.inf)
    monitor.start_epoch()
    assert not monitor.has_steps


def test_waiting_for_batches_is_counted_and_working_is_not(monkeypatch: pytest.MonkeyPatch):
    now = [0.0]
    monkeypatch.setattr(monitor_module.time, "perf_counter", lambda: now[0])

    def slow_batches() -> Iterator[int]:
        for number in range(3):
            now[0] += 2
            yield number

    monitor = EpochMonitor()
    for step in monitor.watch(slow_batches()):
        now[0] += 6
        monitor.add(step, torch.tensor(1.0), torch.randn(8, 4))
    metrics = monitor.summarize(Moment(1, 3, 0.9, 0.1), monitor.seconds(), Evidence(7.0, 0.5, None), 0)
    assert (metrics.seconds, metrics.waiting) == (24, 0.25)
