import numpy as np
import pytest
from byol_edge.evaluate.accuracy import draw_rows, probe_hits, verify
from byol_edge.evaluate.knn import few_shot_hits, knn_hits


def at_angles(*degrees: float) -> np.ndarray:
    radians = np.radians(degrees)
    return np.stack([np.cos(radians), np.sin(radians)], axis=1).astype(np.float32)


def test_the_majority_of_the_nearest_decides_and_a_row_is_not_its_own_neighbor():
    vectors = at_angles(0, 1, 3, 50, 51, 53)
    labels = np.array([0, 0, 1, 1, 1, 1])
    # Both neighbors of row 2 are of class 0; every other row has its own class nearest.
    assert knn_hits(vectors, labels, neighbors=2).tolist() == [1, 1, 0, 1, 1, 1]


def test_a_tie_goes_to_the_nearest():
    vectors = at_angles(0, 5, 9, 100)
    # Neighbors of row 0, nearest first: rows 1 and 2, one vote each.
    assert knn_hits(vectors, np.array([0, 0, 1, 1]), neighbors=2)[0] == 1
    assert knn_hits(vectors, np.array([0, 1, 0, 1]), neighbors=2)[0] == 0


def test_five_of_five_by_hand():
    vectors = at_angles(0, 1, 2, 3, 4, 5)
    labels = np.array([0, 0, 0, 0, 1, 1])
    assert knn_hits(vectors, labels).tolist() == [1, 1, 1, 1, 0, 0]


def test_fewer_rows_than_neighbors():
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


def test_the_linear_probe_finds_what_a_line_can_part_and_nothing_in_noise(random: np.random.Generator):
    labels = np.repeat(np.arange(3), 40)
    noise = random.normal(size=(120, 8)).astype(np.float32)
    assert probe_hits(noise, labels).mean() == pytest.approx(1 / 3, abs=0.15)
    # Neighbors are lost in the noise of other dimensions, a line reads those that tell.
    parted = noise.copy()
    parted[np.arange(120), labels] += 4
    assert probe_hits(parted, labels).mean() > 0.9


def test_the_linear_probe_needs_five_images_per_class(random: np.random.Generator):
    vectors = random.normal(size=(10, 8)).astype(np.float32)
    assert len(probe_hits(vectors, np.repeat([0, 1], 5))) == 10
    assert len(probe_hits(vectors, np.repeat([0, 1], [6, 4]))) == 0


def test_the_linear_probe_draws_from_a_large_set_once_and_for_all(random: np.random.Generator):
    vectors, labels = random.normal(size=(4200, 2)).astype(np.float32), np.arange(4200) % 2
    found = probe_hits(vectors, labels)
    assert len(found) == 4000
    assert found.tolist() == probe_hits(vectors, labels).tolist()


def test_verification_by_hand():
    vectors, labels = at_angles(0, 10, 90, 100), np.array([0, 0, 1, 1])
    found = verify(vectors, labels, threshold=float(np.cos(np.radians(15))))
    assert (found.auc, found.false_matches, found.misses) == (1, 0, 0)
    # The pairs of two classes lie at 80, 90, 90 and 100 degrees.
    assert verify(vectors, labels, threshold=float(np.cos(np.radians(95)))).false_matches == 0.75
    assert verify(vectors, labels, threshold=float(np.cos(np.radians(5)))).misses == 1


def test_the_threshold_lets_one_in_a_hundred_through(random: np.random.Generator):
    vectors = random.normal(size=(300, 16)).astype(np.float32)
    labels = np.arange(300) % 3
    found = verify(vectors, labels)
    assert verify(vectors, labels, found.threshold) == found
    assert found.false_matches == pytest.approx(0.01, abs=1e-4)
    assert found.misses == pytest.approx(0.99, abs=0.01)
    assert found.auc == pytest.approx(0.5, abs=0.02)


def test_pairs_of_both_kinds_are_drawn_from_a_large_set(random: np.random.Generator):
    vectors = random.normal(size=(3000, 4)).astype(np.float32)
    rare = np.zeros(3000, np.intp)
    rare[[17, 2000]] = 1
    assert 0 <= verify(vectors, rare).auc <= 1
    many = np.arange(3000) // 2
    assert verify(vectors, many).false_matches == pytest.approx(0.01, abs=1e-3)


def test_rows_are_drawn_once_and_for_all():
    assert draw_rows(5, 10).tolist() == [0, 1, 2, 3, 4]
    drawn = draw_rows(1000, 10)
    assert len(set(drawn.tolist())) == 10
    assert drawn.tolist() == sorted(draw_rows(1000, 10).tolist())
