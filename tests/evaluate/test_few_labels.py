"""A handful of labels, on vectors made by hand."""

import numpy as np
import pytest
from byol_edge.evaluate.few_labels import add_labels, are_few, average_precision, can_choose
from byol_edge.evaluate.intervals import bootstrap_interval


def on_circle(*degrees: float) -> np.ndarray:
    angles = np.deg2rad(degrees)
    return np.stack([np.cos(angles), np.sin(angles)], 1).astype(np.float32)


def test_average_precision_by_hand():
    # The first finds its class at places 1 and 3 of 3: (1 + 2/3) / 2. The second at 1 and 3, the third at 2 and 3.
    vectors, labels = on_circle(0, 10, 40, 25), np.array([0, 0, 0, 1])
    assert average_precision(vectors, labels) == pytest.approx([(1 + 2 / 3) / 2, (1 + 2 / 3) / 2, (1 / 2 + 2 / 3) / 2])


def test_classes_that_lie_apart_are_found_in_full():
    labels = np.array([0, 0, 1, 1])
    assert average_precision(on_circle(0, 1, 90, 91), labels) == pytest.approx(np.ones(4))
    assert average_precision(on_circle(0, 90, 1, 91), labels) == pytest.approx(np.full(4, 1 / 2), abs=0.17)


def test_a_vector_that_is_not_finite_does_no_harm():
    vectors = on_circle(0, 1, 90, 91)
    vectors[1] = np.nan
    assert np.isfinite(average_precision(vectors, np.array([0, 0, 1, 1]))).all()


def test_what_labels_can_do():
    assert are_few(np.repeat([0, 1], 5))
    assert are_few(np.array([0] * 9 + [1] * 10))
    assert not are_few(np.repeat([0, 1], 10))
    assert can_choose(np.array([0, 0, 1, 1, 2]))
    assert not can_choose(np.array([0, 0, 0, 1, 2]))


def test_both_kinds_of_values_count_half():
    consistency, precision = np.full(300, 0.2), np.linspace(0.5, 0.7, 50)
    both = add_labels(consistency, precision)
    assert len(both) == 350
    assert both.mean() == pytest.approx((0.2 + 0.6) / 2)
    gain = bootstrap_interval(add_labels(consistency + 0.1, precision) - both)
    assert gain.lower < gain.mean == pytest.approx(0.05)
