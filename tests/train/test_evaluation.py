import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from byol_edge.evaluate.few_labels import average_precision
from byol_edge.evaluate.label_free import Views
from byol_edge.models.backbones import build_backbone
from byol_edge.models.network import InferenceNetwork, embed_pixels
from byol_edge.runtime import Preprocessing
from byol_edge.runtime.interval import Interval
from byol_edge.train.dataset import find_dataset
from byol_edge.train.evaluation import EmbeddingEvaluation, prepare_evaluation

ZEROS = np.zeros((4, 32, 32, 3), np.uint8)


def prepare(photos: Path) -> EmbeddingEvaluation:
    return prepare_evaluation(ZEROS, find_dataset(photos, None, None, 0), Preprocessing(32), 0)


def test_measuring_changes_nothing_in_the_network(photos: Path):
    backbone = build_backbone("conv4", 32).train()
    network = InferenceNetwork(backbone, Preprocessing(32))
    backbone.train()
    before = {name: tensor.clone() for name, tensor in backbone.state_dict().items()}
    evaluation = prepare(photos)
    figures = evaluation.measure(network, with_knn=True)
    assert figures.knn is not None
    assert evaluation.measure(network, with_knn=False).knn is None
    assert backbone.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in backbone.state_dict().items())
    assert evaluation.measure(network, with_knn=True) == figures


def test_later_networks_are_compared_with_the_first_query_by_query(photos: Path):
    first, second = (InferenceNetwork(build_backbone("conv4", 32), Preprocessing(32)) for _ in range(2))
    evaluation = prepare(photos)
    start = evaluation.measure(first, with_knn=True)
    assert start.knn_gain == Interval(0, 0, 0)
    assert start.moved == pytest.approx(0, abs=1e-6)
    later = evaluation.measure(second, with_knn=True)
    assert later.knn is not None and start.knn is not None and later.knn_gain is not None
    assert later.knn_gain.mean == pytest.approx(later.knn - start.knn)
    assert later.knn_gain.lower <= later.knn_gain.mean <= later.knn_gain.upper
    assert later.moved is not None and later.moved > 0.001
    # Raw pixels are the same, whatever the network.
    assert later.knn_raw is not None
    assert later.knn_raw == start.knn_raw
    assert later.knn_lead is not None
    assert later.knn_lead.mean == pytest.approx(later.knn - later.knn_raw)
    # A run that was resumed goes on comparing with the same start.
    resumed = prepare(photos)
    resumed.load_state_dict(evaluation.state_dict())
    assert resumed.measure(second, with_knn=True) == later


def test_without_a_bank_queries_are_classified_by_one_another(photos: Path):
    dataset = find_dataset(photos / "disc", None, photos, 0)
    evaluation = prepare_evaluation(ZEROS, dataset, Preprocessing(32), 0)
    torch.manual_seed(0)
    figures = evaluation.measure(InferenceNetwork(build_backbone("conv4", 32), Preprocessing(32)), with_knn=True)
    assert figures.knn is not None and figures.knn_raw is not None and figures.knn_lead is not None
    assert 0 < figures.knn < 1
    assert 0 < figures.knn_raw < 1  # were each its own neighbor, it would be 1
    assert figures.knn_lead.mean == pytest.approx(figures.knn - figures.knn_raw)


def test_without_classes_rank_and_deviation_are_measured_alone():
    network = InferenceNetwork(build_backbone("conv4", 32), Preprocessing(32))
    images = np.random.default_rng(0).integers(0, 256, (8, 32, 32, 3), dtype=np.uint8)
    evaluation = EmbeddingEvaluation(images, Views(images, images, images))
    figures = evaluation.measure(network, with_knn=True)
    assert (figures.knn, figures.knn_gain) == (None, None)
    assert figures.rank > 1
    assert evaluation.state_dict().keys() == {"embeddings", "consistency"}


def test_unreadable_images_are_left_out(photos: Path):
    dataset = find_dataset(photos, None, None, 0)
    assert dataset.bank is not None
    dataset.bank.paths[0] = photos / "nowhere.png"
    bank = prepare_evaluation(ZEROS, dataset, Preprocessing(32), 0).bank
    assert bank is not None
    assert len(bank.images) == len(bank.labels) == 107


def test_validation_images_add_their_average_precision_to_what_networks_are_chosen_by(photos: Path, tmp_path: Path):
    labels = tmp_path / "labels.csv"
    names = [f"{shape}/{number:02}.png,{shape}\n" for shape in ("disc", "square") for number in range(5)]
    labels.write_text("image,label\n" + "".join(names))
    network = InferenceNetwork(build_backbone("conv4", 32), Preprocessing(32))
    plain, judged = (
        prepare_evaluation(ZEROS, find_dataset(photos, file, None, 0), Preprocessing(32), 0) for file in (None, labels)
    )
    half = np.full(10, 0.5)
    assert plain.score(network, half) == 0.5
    assert judged.validation is not None
    precision = average_precision(embed_pixels(network, judged.validation.images), judged.validation.labels)
    assert judged.score(network, half) == pytest.approx(0.25 + precision.mean() / 2)
    assert judged.measure(network, with_knn=True).knn is None


def test_validation_images_that_cannot_be_read_are_left_out(photos: Path, tmp_path: Path):
    data = Path(shutil.copytree(photos, tmp_path / "data"))
    labels = tmp_path / "labels.csv"
    labels.write_text("image,label\ndisc/00.png,a\ndisc/01.png,a\nsquare/00.png,b\nsquare/01.png,b\n")
    dataset = find_dataset(data, labels, None, 0)
    (data / "disc" / "00.png").write_bytes(b"x")
    assert prepare_evaluation(ZEROS, dataset, Preprocessing(32), 0).validation is None
