import numpy as np
import pytest
from byol_edge.export.accuracy import few_shot_hits, knn_hits, mean_interval


def at_angles(*degrees: float) -> np.ndarray:
    radians = np.radians(degrees)
    return np.stack([np.cos(radians), np.sin(radians)], axis=1).astype(np.float32)


def test_the_majority_of_the_nearest_decides_and_a_row_is_not_its_own_neighbour():
    vectors = at_angles(0, 1, 3, 50, 51, 53)
    labels = np.array([0, 0, 1, 1, 1, 1])
    # Both neighbours of row 2 are of class 0; every other row has its own class nearest.
    assert knn_hits(vectors, labels, neighbours=2).tolist() == [1, 1, 0, 1, 1, 1]


def test_a_tie_goes_to_the_nearest():
    vectors = at_angles(0, 5, 9, 100)
    # Neighbours of row 0, nearest first: rows 1 and 2, one vote each.
    assert knn_hits(vectors, np.array([0, 0, 1, 1]), neighbours=2)[0] == 1
    assert knn_hits(vectors, np.array([0, 1, 0, 1]), neighbours=2)[0] == 0


def test_five_of_five_by_hand():
    vectors = at_angles(0, 1, 2, 3, 4, 5)
    labels = np.array([0, 0, 0, 0, 1, 1])
    assert knn_hits(vectors, labels).tolist() == [1, 1, 1, 1, 0, 0]


def test_fewer_rows_than_neighbours():
    assert knn_hits(at_angles(0, 1, 90), np.array([0, 0, 1])).tolist() == [1, 1, 0]


def test_few_shot_of_separate_classes_is_perfect_and_of_noise_chance(random: np.random.Generator):
    labels = np.repeat(np.arange(4), 25)
    separate = np.eye(4, dtype=np.float32)[labels] + random.normal(0, 0.01, (100, 4)).astype(np.float32)
    assert few_shot_hits(separate, labels, shots=3, draws=20, seed=0).tolist() == [1.0] * 20
    noise = random.normal(size=(100, 8)).astype(np.float32)
    assert few_shot_hits(noise, labels, shots=3, draws=200, seed=0).mean() == pytest.approx(0.25, abs=0.03)


def test_draws_are_the_same_for_all_vectors(random: np.random.Generator):
    labels = np.repeat(np.arange(4), 10)
    vectors = random.normal(size=(40, 8)).astype(np.float32)
    first, again = (few_shot_hits(scale * vectors, labels, 3, 10, seed=5) for scale in (1, 7))
    assert first.tolist() == again.tolist()


def test_the_interval_is_that_of_the_mean():
    interval = mean_interval(np.array([0.0, 1.0] * 50))
    assert interval.mean == 0.5
    assert interval.upper - interval.lower == pytest.approx(2 * 1.96 * 0.05025, abs=1e-3)
