"""What an export starts from: a run's encoder, and images to calibrate with and to judge by."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from torch import nn

from ..models.backbones import embedding_size
from ..models.checkpoint import read_projector, read_target
from ..models.network import InferenceNetwork, embed_pixels
from ..models.tail import Linear, build_tail, find_components, fold_projector, shorten
from ..models.weights import load_encoder, serialize_weights
from ..runtime.errors import ImageError, RunError, UsageError
from ..runtime.fidelity import LEAST_FOR_OVERLAP, Vectors, neighbor_overlap
from ..runtime.preprocessing import Pixels
from ..runtime.reading import draw_images
from ..runtime.run import ENCODER, EncoderSpec, Provenance, Run
from .config import ExportConfig

log = logging.getLogger(__name__)

# Of the calibration images, this many set the ranges of INT8; the rest judge it, unseen.
MOST_TO_CALIBRATE = 300
# As many as training keeps in a run.
MOST_TO_DRAW = 512
# With fewer calibration images than this, INT8's ranges and its verdict are guesses.
FEW = 100


@dataclass(frozen=True)
class Source:
    """A run as export sees it. `calibrate` and `judge` are disjoint, uint8 `[N, H, W, 3]`."""

    spec: EncoderSpec
    network: InferenceNetwork
    weights: bytes
    calibrate: Pixels
    judge: Pixels
    provenance: Provenance

    @cached_property
    def reference(self) -> Vectors:
        """PyTorch's embeddings of `judge`, `[N, D]`: what every variant is compared with."""
        return embed_pixels(self.network, self.judge)


def load_source(path: Path, config: ExportConfig) -> Source:
    """Reads a run. Raises RunError, naming the file and what to do, ImageError, UsageError."""
    run = Run(path)
    trained = run.read_encoder()
    spec = trained.spec
    weights = trained.weights if config.network == "online" else read_target(run)
    backbone = load_encoder(weights, spec, str(path / ENCODER))
    size = embedding_size(backbone, spec.preprocessing.image_size)
    if size != spec.embedding_size:
        raise RunError(
            f"{path / ENCODER}: says embedding_size {spec.embedding_size}, where {spec.backbone} gives {size}"
        )
    if config.calibration is None:
        images = run.read_calibration(spec.preprocessing.image_size)
    else:
        images = draw_images(Path(config.calibration), spec.preprocessing, MOST_TO_DRAW)
        if len(images) < 2:
            raise ImageError(
                "{calibration} has one readable image; to calibrate and to judge takes two, better hundreds",
                calibration=config.calibration,
            )
    most = min(MOST_TO_CALIBRATE, len(images) * 3 // 4)
    calibrate, judge = images[:most], images[most:]
    layers = fold_projector(read_projector(run, config.network)) if config.with_projector else []
    if config.dimensions is not None:
        layers = _shorten(backbone, spec, layers, config.dimensions, calibrate, judge)
    encoder = InferenceNetwork(backbone, spec.preprocessing, build_tail(layers))
    provenance = replace(
        trained.provenance,
        network=config.network,
        with_projector=config.with_projector,
        dimensions=config.dimensions,
    )
    if layers:
        spec = replace(spec, embedding_size=len(layers[-1][0]))
    return Source(spec, encoder, serialize_weights(backbone, encoder.tail), calibrate, judge, provenance)


def _shorten(
    backbone: nn.Module,
    spec: EncoderSpec,
    layers: list[Linear],
    dimensions: int,
    calibrate: Pixels,
    judge: Pixels,
) -> list[Linear]:
    """The tail with its vectors projected on fewer dimensions; says how many neighbors that keeps."""
    whole = InferenceNetwork(backbone, spec.preprocessing, build_tail(layers))
    embeddings = embed_pixels(whole, calibrate)
    most = min(embeddings.shape)
    if not 1 <= dimensions <= most:
        raise UsageError(
            f"{{dimensions}}: has to be from 1 to {most}, the embedding's length or the number of calibration images",
            dimensions=dimensions,
        )
    shorter = shorten(layers, find_components(embeddings, dimensions))
    short = InferenceNetwork(backbone, spec.preprocessing, build_tail(shorter))
    if len(judge) >= LEAST_FOR_OVERLAP:
        kept = neighbor_overlap(embed_pixels(whole, judge), embed_pixels(short, judge))
        log.info(f"{dimensions} of {embeddings.shape[1]} dimensions keep {kept:.3f} of the ten nearest neighbors")
    return shorter
