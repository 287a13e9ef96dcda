"""What an export starts from: an encoder, and images to calibrate with and to judge by."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import Any, Generic, TypeVar

from torch import nn

from ..models.backbones import embedding_size
from ..models.checkpoint import read_projector, read_target
from ..models.encoders import Choice, load_start
from ..models.feature_maps import choose_maps
from ..models.module import name_module, prepare_module
from ..models.network import InferenceNetwork, embed_pixels
from ..models.normalization import choose_normalization
from ..models.starts import CHECKPOINT, Start, find_path, find_start
from ..models.tail import Linear, build_tail, find_components, read_layers, shorten
from ..models.weights import load_network, serialize_network, serialize_weights
from ..runtime.errors import ImageError, RunError, UsageError
from ..runtime.feature_maps import FeatureMap
from ..runtime.fidelity import LEAST_FOR_OVERLAP, Vectors, neighbor_overlap
from ..runtime.fusion import FusionSpec
from ..runtime.preprocessing import Pixels, Preprocessing
from ..runtime.reading import draw_images
from ..runtime.run import ENCODER, EncoderSpec, Provenance, Run
from .config import NETWORKS, ExportConfig
from .golden import synthetic_images
from .stand_ins import make_stand_ins

log = logging.getLogger(__name__)

Spec = TypeVar("Spec", EncoderSpec, FusionSpec)

# Of the calibration images, this many set the ranges of INT8; the rest judge it, unseen.
MOST_TO_CALIBRATE = 300
# As many as training keeps in a run.
MOST_TO_DRAW = 512
# Images that are made where there are none: a quarter of them is enough to judge neighbors by.
DRAWN = 4 * LEAST_FOR_OVERLAP
# With fewer calibration images than this, INT8's ranges and its verdict are guesses.
FEW = 100


@dataclass(frozen=True)
class Source(Generic[Spec]):
    """An encoder as export sees it. `calibrate` and `judge` are disjoint, uint8 `[N, H, W, 3]`; `drawn`: by us.

    `module`: the class of a user's own module, None for a backbone that `spec` can be built from. `features`: the maps
    that are outputs, too. `parts`: of two encoders that are fused, each one's name and where it comes from.
    """

    spec: Spec
    network: InferenceNetwork
    weights: bytes
    calibrate: Pixels
    judge: Pixels
    provenance: Provenance
    drawn: bool = False
    module: str | None = None
    features: tuple[FeatureMap, ...] = ()
    parts: tuple[tuple[str, Provenance], ...] = ()

    @property
    def feature_names(self) -> list[str]:
        return [each.name for each in self.features]

    @cached_property
    def reference(self) -> Vectors:
        """PyTorch's embeddings of `judge`, `[N, D]`: what every variant is compared with."""
        return embed_pixels(self.network, self.judge)


@dataclass(frozen=True)
class Weights(Generic[Spec]):
    """A backbone with its weights. `layers`: of its projector, if it is to be exported. `run`: if it is of one.

    `module`, `parts`: see Source.
    """

    spec: Spec
    backbone: nn.Module
    provenance: Provenance
    layers: list[Linear]
    run: Run | None = None
    module: str | None = None
    parts: tuple[tuple[str, Provenance], ...] = ()


def load_source(name: str | Path | nn.Module, config: ExportConfig) -> Source[EncoderSpec]:
    """An encoder, see find_weights, with images to calibrate with and to judge by.

    Raises RunError, naming the file and what to do, ImageError, UsageError.
    """
    if config.weight is not None:
        raise UsageError("{weight}: of two encoders that are fused; leave it out for one", weight=config.weight)
    return add_images(find_weights(name, config), config)


def add_images(weights: Weights[Spec], config: ExportConfig) -> Source[Spec]:
    """A network with its images, and shorter vectors if asked for. Raises ImageError, RunError, UsageError."""
    spec, backbone, layers = weights.spec, weights.backbone, weights.layers
    features = choose_maps(InferenceNetwork(backbone, spec.preprocessing), config.features)
    images = _find_images(weights, config)
    most = min(MOST_TO_CALIBRATE, len(images) * 3 // 4)
    calibrate, judge = images[:most], images[most:]
    if config.dimensions is not None:
        layers = _shorten(backbone, spec, layers, config.dimensions, calibrate, judge)
    encoder = InferenceNetwork(backbone, spec.preprocessing, build_tail(layers))
    provenance = replace(weights.provenance, dimensions=config.dimensions)
    if layers:
        spec = replace(spec, embedding_size=len(layers[-1][0]))
    drawn = config.calibration is None and weights.run is None
    content = serialize_network(encoder) if weights.module else serialize_weights(backbone, encoder.tail)
    return Source(spec, encoder, content, calibrate, judge, provenance, drawn, weights.module, features, weights.parts)


def find_weights(name: str | Path | nn.Module, config: ExportConfig) -> Weights[EncoderSpec]:
    """Reads a run, or another start by its name (see models/starts.py) or path; or takes a module as it is.

    Raises RunError, naming the file and what to do, and UsageError.
    """
    if not isinstance(name, (str, PathLike)):
        return _from_module(name, config)
    run = Run(Path(name))
    if run.exists:
        return _from_run(run, config)
    known = config.backbone, config.network, config.bgr
    return _from_start(find_start(name, *known) if isinstance(name, str) else find_path(name, *known), config)


def _from_run(run: Run, config: ExportConfig) -> Weights[EncoderSpec]:
    trained = run.read_encoder()
    spec = trained.spec
    for name in ("backbone", "image_size", "mean", "std", "bgr"):
        if getattr(config, name):
            raise UsageError(f"{{{name}}}: a run has its own; leave it out", **{name: getattr(config, name)})
    file = str(run.path / ENCODER)
    network = load_network(trained.weights if config.network == "online" else read_target(run), spec, file)
    layers = read_layers(network.tail.state_dict())
    if config.with_projector:
        layers = read_layers(read_projector(run, config.network))
    side = spec.preprocessing.image_size
    size = len(layers[-1][0]) if layers and not config.with_projector else embedding_size(network.backbone, side)
    if size != spec.embedding_size:
        raise RunError(f"{file}: says embedding_size {spec.embedding_size}, where {spec.backbone} gives {size}")
    if trained.provenance.verdict:
        log.info(f"{run.path} is {trained.provenance.verdict}")
    provenance = replace(trained.provenance, network=config.network, with_projector=config.with_projector)
    return Weights(spec, network.backbone, provenance, layers, run)


def _from_module(module: nn.Module, config: ExportConfig) -> Weights[EncoderSpec]:
    """A user's own network, which says nothing of its input: `config` has to."""
    if not isinstance(module, nn.Module):
        raise UsageError(f"a name, a path or a torch.nn.Module is needed, not a {type(module).__name__}")
    if config.backbone is not None:
        raise UsageError("{backbone}: a module is a backbone itself; leave it out", backbone=config.backbone)
    if config.with_projector or config.bgr or config.network != NETWORKS[0]:
        raise UsageError("a module is one network for red, green and blue, and no projector")
    if config.image_size is None:
        raise UsageError("a module does not say how large its images are; give {image_size}", image_size="PIXELS")
    mean, std, guesses = choose_normalization(None, config.mean, config.std)
    _tell(guesses)
    preprocessing = Preprocessing(config.image_size, mean, std)
    own = prepare_module(module, preprocessing)
    size = len(embed_pixels(InferenceNetwork(own, preprocessing), synthetic_images(1, config.image_size))[0])
    name = name_module(own)
    return Weights(
        EncoderSpec(name, "", size, preprocessing),
        own,
        Provenance(init=name, assumptions=list(guesses)),
        [],
        module=name,
    )


def _tell(assumptions: Sequence[str]) -> None:
    for each in assumptions:
        log.warning(f"assumed: {each}")


def _from_start(start: Start, config: ExportConfig) -> Weights[EncoderSpec]:
    """Weights that were not trained here: what they do not say of themselves, `config` has to say."""
    if start.what == "a bundle":
        raise UsageError(f"{start.name} is a bundle already; export its run or its checkpoint")
    _check_parts(start, config)
    loaded = load_start(start, Choice(config.backbone, config.image_size, config.mean, config.std))
    log.info(f"{start.name}: {start.source or start.what}, license {start.license or 'unknown'}")
    _tell(loaded.assumptions)
    provenance = Provenance(
        init=start.name,
        license=start.license,
        source=start.source,
        network=config.network if start.what == CHECKPOINT else None,
        with_projector=config.with_projector or None,
        assumptions=list(loaded.assumptions),
    )
    layers = list(start.layers) if config.with_projector else read_layers(loaded.tail.state_dict())
    return Weights(loaded.spec, loaded.backbone, provenance, layers)


def _check_parts(start: Start, config: ExportConfig) -> None:
    """Raises UsageError where a part is asked for that this start does not have, or is not known to have."""
    if start.what != CHECKPOINT and (config.with_projector or config.bgr or config.network != NETWORKS[0]):
        raise UsageError(f"{start.name} holds one network for red, green and blue, and no projector")
    if config.with_projector and not start.layers:
        raise UsageError(f"{{with_projector}}: {start.name} holds no projector of linear layers", with_projector=True)


def _find_images(weights: Weights[Any], config: ExportConfig) -> Pixels:
    """Images to calibrate with and to judge by: a folder's, the run's, or, for want of both, stand-ins."""
    if config.calibration is not None:
        images = draw_images(Path(config.calibration), weights.spec.preprocessing, MOST_TO_DRAW)
        if len(images) < 2:
            raise ImageError(
                "{calibration} has one readable image; to calibrate and to judge takes two, better hundreds",
                calibration=config.calibration,
            )
        return images
    if weights.run is not None:
        return weights.run.read_calibration(weights.spec.preprocessing.image_size)
    images, what = make_stand_ins(DRAWN, weights.spec.preprocessing.image_size)
    log.warning(f"no folder of calibration images: {what} set INT8's ranges and judge it, so do not trust it far")
    return images


def _shorten(
    backbone: nn.Module,
    spec: EncoderSpec | FusionSpec,
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
