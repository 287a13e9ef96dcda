import numpy as np
import pytest
from byol_edge.evaluate.intervals import bootstrap_interval


def normal_interval(values: np.ndarray) -> tuple[float, float]:
    half = 1.96 * values.std(ddof=1) / len(values) ** 0.5
    return values.mean() - half, values.mean() + half


def test_the_interval_is_that_of_the_mean():
    values = np.array([0.0, 1.0] * 50)
    interval = bootstrap_interval(values)
    assert interval.mean == 0.5
    assert interval.upper - interval.lower == pytest.approx(2 * 1.96 * 0.05025, abs=0.01)
    # A hundred times the values, a tenth of the width.
    assert bootstrap_interval(np.tile(values, 100)).upper - 0.5 == pytest.approx(0.0098, abs=1e-3)


def test_the_bootstrap_agrees_with_the_normal_interval_where_both_hold(random: np.random.Generator):
    values = random.normal(0.2, 1, 400)
    bootstrap = bootstrap_interval(values)
    assert bootstrap.mean == values.mean()
    assert (bootstrap.lower, bootstrap.upper) == pytest.approx(normal_interval(values), abs=0.01)
    assert bootstrap_interval(values) == bootstrap


def test_of_differences_it_is_paired(random: np.random.Generator):
    first = random.normal(0, 1, 400)
    second = first + random.normal(0.05, 0.1, 400)
    assert bootstrap_interval(second - first).lower > 0
    # Apart, the two intervals overlap by far.
    assert bootstrap_interval(second).lower < bootstrap_interval(first).upper
