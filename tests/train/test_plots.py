from pathlib import Path

from byol_edge.models.byol import BYOLConfig
from byol_edge.runtime import Preprocessing, find_images
from byol_edge.runtime.run import Metrics
from byol_edge.train.config import TrainConfig
from byol_edge.train.plots import draw_curves, draw_views
from byol_edge.train.rendering import WorkerRenderer
from byol_edge.train.settings import resolve
from PIL import Image


def test_the_contact_sheet_holds_images_and_views_and_passes_over_the_unreadable(photos: Path, tmp_path: Path):
    (tmp_path / "broken.png").write_bytes(b"x")
    paths = [tmp_path / "broken.png", *find_images(photos)[:16]]
    settings = resolve(TrainConfig("conv4", 32, 2, batch_size=16), len(paths))
    draw_views(paths, settings, Preprocessing(32), WorkerRenderer(Preprocessing(32)), tmp_path / "views.png")
    with Image.open(tmp_path / "views.png") as sheet:
        assert sheet.width > 3 * sheet.height
    # Every run of the same settings shows the same.
    before = (tmp_path / "views.png").read_bytes()
    draw_views(paths, settings, Preprocessing(32), WorkerRenderer(Preprocessing(32)), tmp_path / "views.png")
    assert (tmp_path / "views.png").read_bytes() == before


def test_curves_of_one_epoch_and_without_labels(tmp_path: Path):
    history = [
        Metrics(0, rank=50.0, embedding_std=0.3),
        Metrics(1, 10, 2.0, 0.1, {"projection_std": 0.8, "tau": 0.9}, 60.0, 0.6),
    ]
    draw_curves(history, 256, BYOLConfig(), tmp_path / "curves.png")
    with Image.open(tmp_path / "curves.png") as curves:
        assert curves.width > curves.height
