import numpy as np
import pytest
from byol_edge.report import maps
from byol_edge.report.maps import draw_maps


def groups(count: int, random: np.random.Generator) -> np.ndarray:
    """Two groups of images, far apart, one after the other."""
    centers = np.repeat(np.eye(2, 8), count // 2, 0)
    return (centers + random.normal(0, 0.1, centers.shape)).astype(np.float32)


def test_groups_lie_apart_within_the_square(random: np.random.Generator):
    for drawn in draw_maps(groups(60, random)):
        places = np.array(drawn.places)
        assert places.min() >= 0
        assert places.max() <= 1
        assert drawn.images == tuple(range(60))
        one, other = places[:30], places[30:]
        spread = max(one.std(), other.std())
        assert np.linalg.norm(one.mean(0) - other.mean(0)) > spread


def test_tsne_comes_first_and_few_images_have_none(random: np.random.Generator):
    assert [each.method for each in draw_maps(groups(60, random))] == ["t-SNE", "PCA"]
    assert [each.method for each in draw_maps(groups(6, random))] == ["PCA"]


def test_the_rounding_of_equal_images_is_no_map(random: np.random.Generator):
    vectors = np.ones((30, 8)) + random.normal(0, 1e-7, (30, 8))
    (drawn,) = draw_maps(vectors.astype(np.float32))
    assert np.ptp(drawn.places, axis=0).max() < 0.01


@pytest.mark.parametrize("vectors", [np.ones((20, 4)), np.eye(2, 1) + 1, np.eye(2), np.linspace(-1, 1, 20)[:, None]])
def test_equal_vectors_and_vectors_of_one_number_have_places(vectors: np.ndarray):
    (drawn,) = draw_maps(vectors.astype(np.float32))
    assert np.isfinite(drawn.places).all()
    assert len(drawn.places) == len(vectors)


def test_of_many_images_some_are_drawn(monkeypatch: pytest.MonkeyPatch, random: np.random.Generator):
    monkeypatch.setattr(maps, "MOST_IMAGES", 20)
    for drawn in draw_maps(groups(60, random)):
        assert len(drawn.images) == len(set(drawn.images)) == 20
        assert max(drawn.images) < 60
