"""What the tests share: a folder of drawn images, and a run and a bundle made from it once a session.

`pytest --bundle=PATH` tests an install without the extras, such as a device's, with a bundle that tests/small_run.py
made elsewhere. What fails for want of an extra is then skipped. Tests that start a process would fail, and so notice if
the device itself needs one.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

# Before PyTorch is loaded: with one process per core, the threads of several would compete for it.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import byol_edge  # noqa: F401  # before a test imports ONNX Runtime, whose telemetry this switches off
import numpy as np
import pytest
from byol_edge.runtime.cpus import available_cpus
from shapes import draw_shapes

# What the extras bring, as it is imported.
EXTRAS = {"cryptography", "faiss", "jsonschema", "matplotlib", "nncf", "onnx", "onnxscript", "openvino", "pyarrow"}
EXTRAS |= {"duckdb", "lancedb", "pandas", "polars", "qdrant_client", "ray"}
EXTRAS |= {"safetensors", "scipy", "sklearn", "timm", "torch", "torchvision"}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--bundle", type=Path, help="test an install without the extras, with this bundle")


@pytest.hookimpl(optionalhook=True)  # of pytest-xdist, which a device lacks
def pytest_xdist_auto_num_workers() -> int:
    """One process per core, and four at most: each takes 2 GB, and makes a run and a bundle of its own."""
    return min(4, available_cpus())


def pytest_pycollect_makemodule(module_path: Path, parent: pytest.Collector) -> pytest.Module:
    return TestFile.from_parent(parent, path=module_path)


class TestFile(pytest.Module):
    def collect(self) -> Iterable[pytest.Item | pytest.Collector]:
        with skipped_without_extras(self.config):
            return super().collect()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item: pytest.Item) -> Generator[None]:
    with skipped_without_extras(item.config):
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None]:
    with skipped_without_extras(item.config):
        return (yield)


@contextmanager
def skipped_without_extras(config: pytest.Config) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        cause: BaseException | None = error
        while cause and config.getoption("bundle"):
            if isinstance(cause, ModuleNotFoundError) and cause.name in EXTRAS:
                pytest.skip(f"{cause.name} is not installed")
            cause = cause.__cause__ or cause.__context__
        raise


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """120 images in three class folders. Not to be changed: copy it first."""
    folder = tmp_path_factory.mktemp("images") / "shapes"
    draw_shapes(folder)
    return folder


@pytest.fixture(scope="session")
def finished_run(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two epochs of conv4 at 32 px. Not to be changed: copy it first."""
    from byol_edge.train.pretrain import pretrain
    from small_run import CONFIG

    out = tmp_path_factory.mktemp("runs") / "shapes"
    pretrain(photos, out, CONFIG)
    return out


@pytest.fixture(scope="session")
def finished_bundle(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run's bundle with INT8. Not to be changed: copy it first."""
    if given := request.config.getoption("bundle"):
        return given
    from byol_edge.export.bundling import export_bundle
    from byol_edge.export.config import ExportConfig

    out = tmp_path_factory.mktemp("bundles") / "shapes"
    export_bundle(request.getfixturevalue("finished_run"), out, ExportConfig(int8=True))
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
    from byol_edge.export.bundling import export_bundle
    from byol_edge.export.config import ExportConfig

    out = tmp_path_factory.mktemp("mapped") / "shapes"
    export_bundle(finished_run, out, ExportConfig(int8=True, features=("relu4", "relu2")))
    return out
