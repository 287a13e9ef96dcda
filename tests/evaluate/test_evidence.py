from pathlib import Path

import numpy as np
import pytest
import torch
from byol_edge.evaluate.evidence import embedding_std, knn_classes, measure, prepare_probe, rank_me
from byol_edge.models.backbones import build_backbone
from byol_edge.models.network import InferenceNetwork
from byol_edge.runtime import Preprocessing
from byol_edge.train.dataset import gather


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


def test_measuring_changes_nothing_in_the_network(photos: Path):
    backbone = build_backbone("conv4", 32).train()
    network = InferenceNetwork(backbone, Preprocessing(32))
    backbone.train()
    before = {name: tensor.clone() for name, tensor in backbone.state_dict().items()}
    images = gather(photos, None, None, 0)
    probe = prepare_probe(np.zeros((4, 32, 32, 3), np.uint8), images, Preprocessing(32), 0)
    evidence = measure(network, probe, with_knn=True)
    assert evidence.knn is not None
    assert measure(network, probe, with_knn=False).knn is None
    assert backbone.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in backbone.state_dict().items())
    assert measure(network, probe, with_knn=True) == evidence


def test_unreadable_images_are_left_out_of_the_probe(photos: Path):
    images = gather(photos, None, None, 0)
    assert images.bank is not None
    images.bank.paths[0] = photos / "nowhere.png"
    probe = prepare_probe(np.zeros((4, 32, 32, 3), np.uint8), images, Preprocessing(32), 0)
    assert probe.bank is not None
    assert len(probe.bank.images) == len(probe.bank.labels) == 107
