import numpy as np
import pytest
from byol_edge.report.neighbors import (
    MOST_PAIRS,
    ask,
    choose_queries,
    find_duplicates,
    find_moved,
    find_outliers,
)


def circle(degrees: list[float]) -> np.ndarray:
    angles = np.radians(degrees)
    return np.stack([np.cos(angles), np.sin(angles)], 1).astype(np.float32)


def test_the_nearest_come_first_and_no_image_is_its_own_neighbor():
    vectors = circle([0, 10, 25, 90])
    (query, other) = ask([0, 3], {"one": vectors, "mirrored": vectors[::-1]})
    assert query.image == 0
    assert query.by[0].encoder == "one"
    assert query.by[0].images == (1, 2, 3)
    np.testing.assert_allclose(query.by[0].cosines, np.cos(np.radians([10, 25, 90])), atol=1e-6)
    assert query.by[1].images == (1, 2, 3)
    assert other.by[0].images == (2, 1, 0)


def test_queries_stand_for_clusters_and_the_largest_comes_first(random: np.random.Generator):
    centers = np.eye(12, 16, dtype=np.float32)
    sizes = [30, *[5] * 11]
    vectors = np.repeat(centers, sizes, 0) + random.normal(0, 0.02, (sum(sizes), 16)).astype(np.float32)
    queries = choose_queries(vectors)
    labels = np.repeat(np.arange(12), sizes)
    assert sorted(labels[queries]) == list(range(12))
    assert labels[queries[0]] == 0


@pytest.mark.parametrize("count", [2, 5])
def test_of_few_or_equal_images_there_are_as_many_queries(count: int):
    assert sorted(choose_queries(circle([40.0 * each for each in range(count)]))) == list(range(count))
    assert len(choose_queries(circle([30.0 + 1e-5 * each for each in range(count)]))) == 1


def test_what_moved_most_comes_first_with_what_stays_of_its_neighbors(random: np.random.Generator):
    before = random.normal(size=(40, 8)).astype(np.float32)
    after = before.copy()
    after[7], after[9] = -before[7], before[9] + 0.1
    moved = find_moved(before, after)
    assert [each.image for each in moved[:2]] == [7, 9]
    assert moved[0].cosine == pytest.approx(-1)
    assert (moved[0].kept, moved[0].neighbors) == (0, 10)
    assert len(moved) == 12
    assert moved[-1].cosine == pytest.approx(1)


def test_an_outlier_is_far_from_its_nearest():
    vectors = circle([*range(30), 180])
    (first, *_) = find_outliers(vectors)
    assert first.image == 30
    assert first.cosine < 0
    assert len(find_outliers(circle([0, 5, 90]))) == 1


def test_duplicates_are_those_of_the_encoder_and_of_raw_pixels():
    vectors = circle([0, 1, 90, 91, 200])
    raw = circle([0, 1, 0, 90, 200])  # 2 and 3 are alike to the encoder alone
    pairs, found = find_duplicates(vectors, raw)
    assert [(each.first, each.second) for each in pairs] == [(0, 1)]
    assert found == 1
    assert find_duplicates(vectors, circle([0] * 5))[1] == 2


def test_of_a_film_the_nearest_pairs_are_listed_and_all_are_counted():
    vectors = circle([0.001 * each for each in range(1100)])  # more than a block
    pairs, found = find_duplicates(vectors, vectors)
    assert found == 1100 * 1099 // 2
    assert len(pairs) == MOST_PAIRS
    assert pairs[0].cosine >= pairs[-1].cosine
