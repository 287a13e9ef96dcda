"""What the demo counts as a broken road, on made-up scores; tests/test_demo.py runs it."""

import numpy as np
from byol_edge.cli.demo import Score, find_failures


def scores(trained: float = 0.88, untrained: float = 0.73, raw: float = 0.81, int8: float = 0.88) -> dict[str, Score]:
    values = {"raw pixels": raw, "untrained": untrained, "PyTorch": trained, "fp32.onnx": trained, "int8.onnx": int8}
    noise = np.random.default_rng(0).normal(0, 0.02, 200)
    return {name: Score(value + noise, np.repeat([1.0, 0.0], [450, 50])) for name, value in values.items()}


def test_a_whole_road_has_no_failures():
    assert find_failures(scores()) == []


def test_training_that_gains_too_little_is_a_failure():
    assert "untrained" in find_failures(scores(untrained=0.87))[0]
    assert "raw pixels" in find_failures(scores(raw=0.865))[0]


def test_int8_may_lose_half_a_point_and_no_more():
    assert find_failures(scores(int8=0.876)) == []
    assert "int8.onnx loses 0.010 of PyTorch's few_shot accuracy" in find_failures(scores(int8=0.87))[0]


def test_a_loss_within_the_paired_interval_is_none():
    changed = scores()
    noise = np.random.default_rng(1).normal(-0.006, 0.2, 200)
    changed["int8.onnx"] = Score(changed["PyTorch"].few_shot + noise, changed["PyTorch"].knn)
    assert find_failures(changed) == []


def test_accuracy_of_nearest_neighbors_counts_too():
    changed = scores()
    changed["int8.onnx"] = Score(changed["PyTorch"].few_shot, np.repeat([1.0, 0.0], [430, 70]))
    assert "knn" in find_failures(changed)[0]
