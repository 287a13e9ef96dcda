import math

import pytest
import torch
from byol_edge.train.monitor import EpochMonitor, projection_std


def test_the_spread_of_the_sphere_is_one_and_of_a_constant_zero():
    torch.manual_seed(0)
    assert float(projection_std(torch.randn(2000, 64))) == pytest.approx(1, abs=0.02)
    assert float(projection_std(torch.ones(50, 64))) == pytest.approx(0, abs=1e-6)
    assert float(projection_std(3 * torch.randn(2000, 64) + 5)) < 0.6


def test_an_epoch_is_summed_up():
    monitor = EpochMonitor()
    monitor.add(torch.tensor(1.0), torch.randn(8, 4))
    monitor.add(torch.tensor(3.0), torch.randn(8, 4))
    metrics = monitor.summarise(epoch=5, step=10, tau=0.99, learning_rate=0.1, unreadable=2)
    assert (metrics.epoch, metrics.step, metrics.loss, metrics.unreadable) == (5, 10, 2.0, 2)
    assert metrics.images_per_s == pytest.approx(16 / metrics.seconds)


def test_an_epoch_without_a_step_has_no_loss():
    assert math.isnan(EpochMonitor().summarise(1, 1, 0.9, 0.1, 3).loss)
