"""What the tests share: a folder of drawn images, and a run and a bundle made from it once a session."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from byol_edge.export.bundling import export_run
from byol_edge.train.loop import train
from byol_edge.train.recipe import Dials

SHAPES = ("disc", "stripes", "square")


def draw_shape(shape: str, random: np.random.Generator, width: int = 48, height: int = 40) -> Image.Image:
    """A coloured shape somewhere on a coloured ground, a little noisy."""
    y, x = np.mgrid[0:height, 0:width]
    cx, cy = random.uniform(0.3, 0.7) * width, random.uniform(0.3, 0.7) * height
    size = random.uniform(7, 14)
    mask = {
        "disc": (x - cx) ** 2 + (y - cy) ** 2 < size**2,
        "stripes": np.sin((x + y) * 2 * np.pi / size) > 0,
        "square": np.maximum(abs(x - cx), abs(y - cy)) < size,
    }[shape]
    ground, ink = random.uniform(0, 255, (2, 3))
    pixels = np.where(mask[:, :, None], ink, ground) + random.normal(0, 5, (height, width, 3))
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


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


class Silent:
    """A watcher that remembers what it was told."""

    def __init__(self) -> None:
        self.messages: list[str] = []
        self.epochs: list[int] = []

    def start(self, settings: object, images: int, first_epoch: int) -> None:
        self.first_epoch = first_epoch

    def step(self, done: int, steps: int) -> None: ...

    def unreadable(self, message: str) -> None:
        self.messages.append(message)

    def epoch(self, metrics: object) -> None:
        self.epochs.append(metrics.epoch)  # type: ignore[attr-defined]


DIALS = Dials("conv4", image_size=32, epochs=2, batch_size=16, workers=0)


@pytest.fixture(scope="session")
def finished_run(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two epochs of conv4 at 32 px. Not to be changed: copy it first."""
    out = tmp_path_factory.mktemp("runs") / "shapes"
    train(photos, out, DIALS, Silent())
    return out


@pytest.fixture(scope="session")
def finished_bundle(finished_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run's bundle with INT8. Not to be changed: copy it first."""
    out = tmp_path_factory.mktemp("bundles") / "shapes"
    export_run(finished_run, out, int8=True)
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


@pytest.fixture
def watcher() -> Silent:
    return Silent()
