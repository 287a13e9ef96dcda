from pathlib import Path

import numpy as np
import pytest
import torch
from byol_edge.models.backbones import conv4
from byol_edge.models.eager import EagerEncoder
from byol_edge.models.network import InferenceNetwork
from byol_edge.models.weights import load_network
from byol_edge.runtime import Encoder, EngineError, Preprocessing, find_images
from byol_edge.runtime.model_file import precision_of
from byol_edge.runtime.run import EncoderSpec, Run


def spec(mean: float = 0.5) -> EncoderSpec:
    return EncoderSpec("conv4", "standard", 256, Preprocessing(32, mean=(mean, 0.5, 0.5)))


def make(seed: int = 0, mean: float = 0.5) -> EagerEncoder:
    torch.manual_seed(seed)
    return EagerEncoder(InferenceNetwork(conv4(), spec(mean).preprocessing), spec(mean))


def test_it_gives_what_the_bundle_gives(finished_run: Path, finished_bundle: Path, photos: Path):
    trained = Run(finished_run).read_encoder()
    encoder = EagerEncoder(load_network(trained.weights, trained.spec, "run"), trained.spec)
    paths = find_images(photos)[:20]
    (chunk,) = encoder.stream(paths)
    exported = Encoder(finished_bundle, "fp32")
    np.testing.assert_allclose(chunk.vectors, exported.embed(paths), atol=1e-5)
    assert chunk.sources == paths
    assert encoder.embedding_size == exported.embedding_size == chunk.vectors.shape[1]
    assert encoder.preprocessing == exported.preprocessing


def test_its_id_is_of_the_weights_and_the_preprocessing():
    assert make().id == make().id
    assert len({make().id, make(seed=1).id, make(mean=0.4).id}) == 3
    assert make().id.endswith(":fp32")
    assert precision_of(make().id) == "fp32"


def test_what_cannot_be_read_is_set_apart(tmp_path: Path, photos: Path):
    (tmp_path / "broken.png").write_bytes(b"x")
    good = find_images(photos)[0]
    (chunk,) = make().stream([tmp_path / "broken.png", good])
    assert (chunk.sources, len(chunk.errors), chunk.vectors.shape) == ([good], 1, (1, 256))
    (chunk,) = make().stream([tmp_path / "broken.png"])
    assert chunk.vectors.shape == (0, 256)


def test_vectors_that_are_no_directions_are_an_error(photos: Path):
    backbone = conv4()
    torch.nn.init.constant_(backbone.get_parameter("bn4.bias"), float("nan"))
    with pytest.raises(EngineError, match="PyTorch gives vectors with numbers that are not finite"):
        network = InferenceNetwork(backbone, spec().preprocessing)
        list(EagerEncoder(network, spec()).stream(find_images(photos)[:1]))
