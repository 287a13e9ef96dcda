"""A second run to fuse the tests' small one with, made without training."""

from __future__ import annotations

from pathlib import Path

import torch
from byol_edge.models.tail import build_tail
from byol_edge.models.weights import serialize_encoder, untrained_encoder
from byol_edge.runtime.preprocessing import Preprocessing
from byol_edge.runtime.run import EncoderSpec, Provenance, Run

# As the small run's, but for mean and deviation.
OTHER = Preprocessing(32, (0.5, 0.4, 0.3), (0.2, 0.3, 0.4))


def write_run(folder: Path, preprocessing: Preprocessing = OTHER, seed: int = 1) -> Path:
    """A run of conv4 with 16 dimensions, which keeps no calibration images."""
    generator = torch.Generator().manual_seed(seed)
    tail = build_tail([(torch.randn(16, 256, generator=generator), torch.randn(16, generator=generator))])
    spec = EncoderSpec("conv4", "standard", 16, preprocessing)
    folder.mkdir(parents=True)
    Run(folder).start({"settings": {}})
    Run(folder).save_encoder(serialize_encoder(untrained_encoder(spec, seed), spec, Provenance(seed=seed), tail))
    return folder
