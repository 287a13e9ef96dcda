import pytest
from byol_edge.train.schedule import learning_rate, tau


def test_tau_at_the_start_the_middle_and_the_end():
    assert tau(0, 1000, 0.99) == pytest.approx(0.99)
    assert tau(500, 1000, 0.99) == pytest.approx(0.995)
    assert tau(1000, 1000, 0.99) == 1


def test_tau_never_falls():
    values = [tau(step, 100, 0.96) for step in range(101)]
    assert values == sorted(values)


def test_the_rate_rises_in_a_line_then_falls_to_zero():
    rates = [learning_rate(step, 100, 10, 2.0) for step in range(101)]
    assert rates[:10] == pytest.approx([0.2 * step for step in range(1, 11)])
    assert rates[10] == pytest.approx(2.0)
    assert rates[55] == pytest.approx(1.0)
    assert rates[100] == pytest.approx(0)
    assert rates[10:] == sorted(rates[10:], reverse=True)


def test_a_run_without_warm_up_starts_at_the_peak():
    assert learning_rate(0, 10, 0, 0.5) == 0.5
