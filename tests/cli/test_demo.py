"""What the demo counts as a broken pipeline, on made-up scores; tests/test_demo.py runs it."""

import numpy as np
from byol_edge.cli.demo import find_failures
from byol_edge.evaluate.intervals import bootstrap_interval
from byol_edge.evaluate.scorer import Score

NOISE = np.random.default_rng(0).normal(0, 0.02, 200)
RIGHT = np.repeat([1.0, 0.0], [450, 50])

Hits = dict[str, dict[str, np.ndarray]]


def hits(trained: float = 0.88, untrained: float = 0.73, raw: float = 0.81, int8: float = 0.88) -> Hits:
    values = {"raw pixels": raw, "untrained": untrained, "PyTorch": trained, "fp32.onnx": trained, "int8.onnx": int8}
    return {name: {"few_shot": value + NOISE, "knn": RIGHT} for name, value in values.items()}


def failures(measured: Hits) -> list[str]:
    return find_failures(
        {
            name: {
                what: Score(bootstrap_interval(its), bootstrap_interval(its - measured["PyTorch"][what]))
                for what, its in figures.items()
            }
            for name, figures in measured.items()
        }
    )


def test_a_whole_pipeline_has_no_failures():
    assert failures(hits()) == []


def test_training_that_gains_too_little_is_a_failure():
    assert "untrained" in failures(hits(untrained=0.87))[0]
    assert "raw pixels" in failures(hits(raw=0.865))[0]


def test_int8_may_lose_half_a_point_and_no_more():
    assert failures(hits(int8=0.876)) == []
    assert "int8.onnx loses 0.010 of PyTorch's few_shot accuracy" in failures(hits(int8=0.87))[0]


def test_a_loss_within_the_paired_interval_is_none():
    changed = hits()
    noise = np.random.default_rng(1).normal(-0.006, 0.2, 200)
    changed["int8.onnx"]["few_shot"] = changed["PyTorch"]["few_shot"] + noise
    assert failures(changed) == []


def test_accuracy_of_nearest_neighbors_counts_too():
    changed = hits()
    changed["int8.onnx"]["knn"] = np.repeat([1.0, 0.0], [430, 70])
    assert "knn" in failures(changed)[0]
