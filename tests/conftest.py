"""What the tests share: a folder of drawn images, and a run and a bundle made from it once a session."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from byol_edge.export.bundling import export_bundle
from byol_edge.export.config import ExportConfig
from byol_edge.train.pretrain import pretrain
from shapes import CONFIG, SHAPES, draw_shape


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """120 images in three class folders. Not to be changed: copy it first."""
    folder = tmp_path_factory.mktemp("images") / "shapes"
    random = np.random.default_rng(0)
    for shape in SHAPES:
        (folder / shape).mkdir(parents=True)
        for number in range(40):
            draw_shape(shape, random).save(folder / shape / f"{number:02}.png")
    return folder


@pytest.fixture(scope="session")
def finished_run(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two epochs of conv4 at 32 px. Not to be changed: copy it first."""
    out = tmp_path_factory.mktemp("runs") / "shapes"
    pretrain(photos, out, CONFIG)
    return out


@pytest.fixture(scope="session")
def finished_bundle(finished_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run's bundle with INT8. Not to be changed: copy it first."""
    out = tmp_path_factory.mktemp("bundles") / "shapes"
    export_bundle(finished_run, out, ExportConfig(int8=True))
    return out


@pytest.fixture
def run(finished_run: Path, tmp_path: Path) -> Path:
    """A copy of the run, to be changed."""
    return Path(shutil.copytree(finished_run, tmp_path / "run"))


@pytest.fixture
def bundle(finished_bundle: Path, tmp_path: Path) -> Path:
    """A copy of the bundle, to be changed."""
    return Path(shutil.copytree(finished_bundle, tmp_path / "bundle"))


@pytest.fixture
def random() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture(scope="session")
def mapped_bundle(finished_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run's bundle with INT8 and two feature maps, the finer one last. Not to be changed: copy it first."""
    out = tmp_path_factory.mktemp("mapped") / "shapes"
    export_bundle(finished_run, out, ExportConfig(int8=True, features=("relu4", "relu2")))
    return out
