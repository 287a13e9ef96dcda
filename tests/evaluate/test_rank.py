import numpy as np
import pytest
from byol_edge.evaluate.rank import embedding_std, rank_me


def unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def test_rank_counts_the_dimensions_that_are_used(random: np.random.Generator):
    assert rank_me(np.eye(16, dtype=np.float32)) == pytest.approx(16, rel=1e-4)
    assert rank_me(np.ones((50, 16), np.float32)) == pytest.approx(1, rel=1e-4)
    few = random.normal(size=(200, 3)) @ random.normal(size=(3, 16))
    assert 1.5 < rank_me(unit(few)) < 3.01
    assert rank_me(np.zeros((5, 4), np.float32)) == pytest.approx(1, abs=1e-6)


def test_the_deviation_of_the_sphere_is_one_and_of_a_constant_zero(random: np.random.Generator):
    assert embedding_std(unit(random.normal(size=(2000, 64)))) == pytest.approx(1, abs=0.02)
    assert embedding_std(unit(np.ones((20, 64)))) == pytest.approx(0, abs=1e-6)
