import math

import numpy as np
import pytest
from byol_edge.runtime.fidelity import (
    GATES,
    agreement,
    choose_gates,
    compare,
    compare_maps,
    cosines,
    failed_gates,
    failed_map_gates,
    nearest,
    neighbor_overlap,
    pair_correlation,
)


def unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture
def vectors(random: np.random.Generator) -> np.ndarray:
    return unit(random.normal(size=(80, 16)))


def test_equal_vectors_are_faithful(vectors: np.ndarray):
    fidelity = compare(vectors, vectors)
    assert fidelity.images == 80
    assert fidelity.cosine_min == pytest.approx(1)
    assert fidelity.max_error == 0
    assert fidelity.overlap == 1
    assert not failed_gates(fidelity, GATES["fp32"])


def test_the_cosine_divides_both_norms_out(vectors: np.ndarray):
    # A dot product would give 2 here, and 1 for a shorter vector of another direction.
    np.testing.assert_allclose(cosines(vectors, 2 * vectors), 1)
    assert compare(vectors, 2 * vectors).norm_error == pytest.approx(1, abs=1e-6)


def test_rows_that_are_not_of_unit_length_fail_every_gate_set(vectors: np.ndarray):
    for precision in GATES:
        assert any(
            "unit length" in failure
            for failure in failed_gates(compare(vectors, vectors * np.float32(1.01)), GATES[precision])
        )


def test_one_nan_row_fails(vectors: np.ndarray):
    broken = vectors.copy()
    broken[3] = np.nan
    fidelity = compare(vectors, broken)
    assert math.isnan(fidelity.cosine_mean)
    for precision in GATES:
        assert failed_gates(fidelity, GATES[precision])


def test_a_zero_row_fails(vectors: np.ndarray):
    broken = vectors.copy()
    broken[3] = 0
    assert failed_gates(compare(vectors, broken), GATES["int8"])


def test_permuted_rows_fail(vectors: np.ndarray):
    assert failed_gates(compare(vectors, vectors[::-1]), GATES["int8"])


def test_the_nearest_leave_the_row_itself_out():
    rows = unit(np.array([[1, 0], [1, 0.1], [0, 1], [0.1, 1]]))
    assert nearest(rows, 1)[:, 0].tolist() == [1, 0, 3, 2]


def test_overlap_of_unrelated_vectors_is_chance(random: np.random.Generator):
    one, other = (unit(random.normal(size=(1100, 8))) for _ in range(2))  # more rows than one block
    assert neighbor_overlap(one, other) == pytest.approx(10 / 1099, abs=0.005)
    assert neighbor_overlap(one, one) == 1


def test_overlap_counts_shared_neighbors_by_hand():
    a = unit(np.array([[1.0, 0], [0.9, 0.1], [0.5, 0.5], [0, 1]]))
    b = a[[0, 1, 3, 2]]  # rows 2 and 3 change places
    # Nearest of each row in a: 1, 0, 1, 2; in b: 1, 0, 2, 1.
    assert neighbor_overlap(a, b, neighbors=1) == 0.5


def test_overlap_is_not_measured_on_few_images(vectors: np.ndarray):
    fidelity = compare(vectors[:49], vectors[:49])
    assert fidelity.overlap is None
    assert not failed_gates(fidelity, GATES["int8"])
    assert fidelity.to_json()["overlap"] is None


def test_a_failed_gate_names_figure_and_limit(vectors: np.ndarray, random: np.random.Generator):
    noisy = unit(vectors + random.normal(0, 0.1, vectors.shape))
    failures = failed_gates(compare(vectors, noisy), GATES["int8"])
    assert failures[0].startswith("mean cosine to PyTorch 0.9")
    assert failures[0].endswith("needs ≥ 0.99")


def test_gates_are_stricter_for_higher_precision(vectors: np.ndarray, random: np.random.Generator):
    slightly = compare(vectors, unit(vectors + random.normal(0, 0.005, vectors.shape)))
    assert failed_gates(slightly, GATES["fp32"])
    assert not failed_gates(slightly, GATES["fp16"])
    assert not failed_gates(slightly, GATES["int8"])


def test_other_shapes_are_an_error(vectors: np.ndarray):
    with pytest.raises(ValueError, match="shape"):
        compare(vectors, vectors[:-1])


def test_the_angle_is_in_degrees():
    a, b = (np.array(rows, np.float32) for rows in ([[1, 0], [1, 0]], [[1, 0], [0, 1]]))
    assert compare(a, b).angle_mean == pytest.approx(45)


def test_the_rank_correlation_is_spearmans(vectors: np.ndarray, random: np.random.Generator):
    assert pair_correlation(vectors, vectors) == pytest.approx(1)
    assert abs(pair_correlation(vectors, unit(random.normal(size=vectors.shape)))) < 0.1
    # It looks at the order of the cosines alone, which a common shift of all rows changes little.
    shifted = unit(vectors + 2 * np.ones(16) / 4)
    assert 0.5 < pair_correlation(vectors, shifted) < 1


def test_limits_can_be_changed():
    fp32 = {gate.figure: gate.limit for gate in choose_gates("fp32", min_cosine=0.9, min_overlap=0.8)}
    assert fp32 == {"cosine_min": 0.9, "max_error": 1e-4, "norm_error": 1e-3, "overlap": 0.8}
    assert {gate.figure: gate.limit for gate in choose_gates("int8", min_overlap=0.5)}["overlap"] == 0.5
    assert choose_gates("int8") == GATES["int8"]


def test_agreement_is_the_cosine_of_maps_of_one_length_and_falls_with_it(random: np.random.Generator):
    x, y = random.normal(size=(2, 8, 4, 5)).astype(np.float32)
    y *= np.linalg.norm(x) / np.linalg.norm(y)
    assert agreement(x, y) == pytest.approx(float((x * y).sum() / np.square(x).sum()), abs=1e-5)
    assert agreement(x, x) == 1
    assert agreement(x, -x) == pytest.approx(-1)
    assert agreement(x, 2 * x) == pytest.approx(0.8)  # 1 − 1 / 5, where the cosine is 1
    assert agreement(0 * x, 0 * x) == 1
    assert agreement(x, 0 * x) == 0
    assert math.isnan(agreement(x, np.full_like(x, np.nan)))


def test_maps_are_gated_by_name(random: np.random.Generator):
    maps = random.normal(size=(6, 8, 4, 4)).astype(np.float32)
    noisy = maps.copy()
    noisy[2] += 0.3 * random.normal(size=maps[2].shape)
    found = {"layer2": compare_maps(maps, maps), "layer3": compare_maps(maps, noisy)}
    assert found["layer3"].images == 6
    assert 0.9 < found["layer3"].agreement_min < 0.98
    assert found["layer3"].agreement_mean == pytest.approx((5 + found["layer3"].agreement_min) / 6)
    assert failed_map_gates(found, "int8") == []
    (failure,) = failed_map_gates(found, "fp32")
    assert failure.startswith("layer3: lowest agreement with PyTorch 0.9")
    with pytest.raises(ValueError, match="shape"):
        compare_maps(maps, maps[:, :4])


def test_a_map_with_a_nan_passes_no_gate():
    maps = np.ones((2, 3, 4, 4), np.float32)
    broken = maps.copy()
    broken[1, 0, 0, 0] = np.nan
    for precision in GATES:
        assert failed_map_gates({"a": compare_maps(maps, broken)}, precision)
