"""The settings of a small training: what tests need beside fixtures."""

from __future__ import annotations

from byol_edge.train.config import TrainConfig

CONFIG = TrainConfig("conv4", image_size=32, epochs=2, batch_size=16, workers=0)
