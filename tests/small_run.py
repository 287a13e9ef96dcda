"""A small training, and its bundle: the tests' own, and `python tests/small_run.py OUT` for the tests on a device."""

from __future__ import annotations

import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from byol_edge.export.bundling import export_bundle
from byol_edge.export.config import ExportConfig
from byol_edge.export.target import AVX2
from byol_edge.train.config import TrainConfig
from byol_edge.train.pretrain import pretrain
from shapes import draw_shapes

CONFIG = TrainConfig("conv4", image_size=32, epochs=2, batch_size=16, workers=0)


def make_bundle(out: Path) -> None:
    """A bundle whose INT8 overflows on no CPU, wherever it was made."""
    with TemporaryDirectory() as folder:
        photos, run = Path(folder) / "shapes", Path(folder) / "run"
        draw_shapes(photos)
        pretrain(photos, run, CONFIG)
        export_bundle(run, out, ExportConfig(int8=True, target=AVX2))


if __name__ == "__main__":
    make_bundle(Path(sys.argv[1]))
