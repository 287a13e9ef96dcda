"""One name for every kind of encoder."""

from pathlib import Path

import numpy as np
import pytest
import torch
from byol_edge.models.backbones import build_backbone
from byol_edge.models.encoders import Choice, load_start, open_encoder
from byol_edge.models.starts import find_start
from byol_edge.runtime import Encoder, RunError, UsageError

PIXELS = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), np.uint8)


def test_a_run_and_its_bundle_give_the_same_vectors(finished_run: Path, finished_bundle: Path):
    run, bundle = open_encoder(str(finished_run)), open_encoder(str(finished_bundle))
    fp32 = open_encoder(str(finished_bundle / "fp32.onnx"))
    assert isinstance(bundle, Encoder) and isinstance(fp32, Encoder)
    assert run.id.endswith(":fp32") and run.engine == "pytorch"
    assert fp32.id.endswith(":fp32.onnx") and fp32.engine == "onnxruntime"
    np.testing.assert_allclose(run.run(PIXELS), fp32.run(PIXELS), atol=1e-5)
    assert run.embedding_size == bundle.embedding_size == run.run(PIXELS).shape[1]


def test_a_checkpoint_is_told_what_it_does_not_say(tmp_path: Path):
    torch.manual_seed(0)
    torch.save(build_backbone("conv4", 32).state_dict(), tmp_path / "c.pt")
    name = str(tmp_path / "c.pt")
    with pytest.raises(UsageError, match="does not say what it was trained on; give image_size"):
        open_encoder(name, Choice("conv4"))
    encoder = open_encoder(name, Choice("conv4", 32, fit="pad"))
    assert encoder.preprocessing.fit == "pad"
    assert encoder.run(PIXELS).shape == (3, 256)
    assert open_encoder(name, Choice("conv4", default_size=48)).preprocessing.image_size == 48
    loaded = load_start(find_start(name, "conv4"), Choice("conv4", 32))
    assert any("ImageNet" in each for each in loaded.assumptions)


def test_a_name_of_nothing_is_refused(tmp_path: Path):
    with pytest.raises(RunError, match="nowhere"):
        open_encoder(str(tmp_path / "nowhere"))
