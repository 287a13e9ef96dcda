import numpy as np
from byol_edge.evaluate.knn import bank_hits, knn_classes, leave_one_out_classes, vote


def unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def test_neighbors_vote_by_likeness():
    bank = unit(np.array([[1, 0], [0.9, 0.1], [0, 1], [0.1, 0.9]]))
    labels = np.array([0, 0, 1, 1])
    assert knn_classes(bank, labels, unit(np.array([[1, 0.2], [0.2, 1]]))).tolist() == [0, 1]


def test_a_large_class_does_not_win_by_its_size(random: np.random.Generator):
    # 30 of one class, 300 of another: with all 200 voting, the smaller could never have a majority.
    rare, common = (
        unit(np.array(center) + 0.3 * random.normal(size=(count, 3)))
        for center, count in (((1, 0, 0), 30), ((0, 1, 0), 300))
    )
    bank, labels = np.concatenate([rare, common]), np.repeat([0, 1], [30, 300])
    assert (knn_classes(bank, labels, rare) == 0).mean() > 0.9
    assert (knn_classes(bank, labels, common) == 1).mean() > 0.9


def test_each_row_is_classified_by_the_others(random: np.random.Generator):
    # More rows than are compared at a time, and two of another class in the middle of the first.
    centers, labels = np.eye(3)[[0, 1]], np.repeat([0, 1], 300)
    vectors = unit(centers[labels] + 0.1 * random.normal(size=(600, 3)))
    assert (leave_one_out_classes(vectors, labels) == labels).all()
    odd = labels.copy()
    odd[[3, 500]] = 1 - odd[[3, 500]]
    assert (leave_one_out_classes(vectors, odd) == labels).all()
    # Alone in its class, a row has nobody to vote for it.
    assert leave_one_out_classes(unit(np.array([[1, 0], [1, 0.1], [0, 1]])), np.array([0, 0, 1])).tolist() == [0, 0, 0]


def test_weights_add_up_and_a_tie_goes_to_the_nearest():
    classes = np.array([[1, 0, 0], [2, 1, 0], [0, 1, 1]])
    assert vote(classes, np.ones((3, 3))).tolist() == [0, 2, 1]
    assert vote(classes, np.array([[5.0, 1, 1], [1, 2, 1], [2, 1, 1]])).tolist() == [1, 1, 0]


def test_five_of_the_bank_decide(random: np.random.Generator):
    # More queries than are compared at a time; of each class, six in the bank.
    centers = np.eye(4)
    labels, classes = np.repeat(np.arange(4), 6), np.tile(np.arange(4), 150)
    bank = unit(centers[labels] + 0.05 * random.normal(size=(24, 4)))
    queries = unit(centers[classes] + 0.05 * random.normal(size=(600, 4)))
    assert bank_hits(bank, labels, queries, classes).tolist() == [1.0] * 600
    assert bank_hits(bank, labels, queries, (classes + 1) % 4).tolist() == [0.0] * 600
    # Three of five outvote the two that are nearer.
    bank, labels = (
        unit(np.array([[1, 0], [1, 0.1], [1, 0.2], [1, 0.3], [1, 0.4], [0, 1]])),
        np.array([0, 0, 1, 1, 1, 0]),
    )
    assert bank_hits(bank, labels, unit(np.array([[1, 0]])), np.array([1])).tolist() == [1.0]
    assert bank_hits(bank[:1], labels[:1], unit(np.array([[1, 0]])), np.array([0])).tolist() == [1.0]
