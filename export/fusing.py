"""Two encoders to be exported as one: whether they go together, and what becomes of where they come from."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from os import PathLike
from pathlib import Path

from ..models.fusion import Fusion
from ..models.network import InferenceNetwork
from ..models.tail import build_tail
from ..models.weights import serialize_weights
from ..runtime.errors import UsageError
from ..runtime.fusion import FusionSpec, takes_same_images
from ..runtime.run import EncoderSpec, Provenance, Run
from .config import ExportConfig
from .source import Source, Weights, add_images, find_weights

log = logging.getLogger(__name__)

# Two sources, as export_bundle takes them.
Pair = tuple[str | Path, str | Path]
# Of the first encoder.
WEIGHT = 0.5


def load_pair(names: Sequence[str | Path], config: ExportConfig) -> Source[FusionSpec]:
    """Two encoders as one, see models/fusion.py, with images to calibrate with and to judge by: the first run's.

    Each is what find_weights takes, but for a module. Raises UsageError where they do not go together, and what
    find_weights and add_images raise.
    """
    if len(names) != 2 or not all(isinstance(each, (str, PathLike)) for each in names):
        raise UsageError("two encoders are fused, each a name or a path")
    first, second = _find_both(names, config)
    networks = [
        InferenceNetwork(each.backbone, each.spec.preprocessing, build_tail(each.layers)) for each in (first, second)
    ]
    contents = [serialize_weights(each.backbone, each.tail) for each in networks]
    if contents[0] == contents[1]:
        raise UsageError(
            f"{names[0]} and {names[1]} are the same encoder; fuse two that differ (a run whose training did not help "
            "holds its start)"
        )
    weight = WEIGHT if config.weight is None else config.weight
    sizes = _size(first), _size(second)
    run = first.run or second.run
    if config.calibration is None and run is not None:
        log.info(f"the images kept in {run.path} calibrate and judge")
    return add_images(
        Weights(
            spec=FusionSpec(
                replace(first.spec, embedding_size=sizes[0]),
                replace(second.spec, embedding_size=sizes[1]),
                weight,
                sum(sizes),
            ),
            backbone=Fusion(networks[0], networks[1], weight),
            provenance=_join(names, (first, second), config),
            layers=[],
            run=run,
            parts=((str(names[0]), first.provenance), (str(names[1]), second.provenance)),
        ),
        config,
    )


def _find_both(names: Sequence[str | Path], config: ExportConfig) -> tuple[Weights[EncoderSpec], Weights[EncoderSpec]]:
    """Both encoders, once they take the same images. What runs say of themselves, `config` says of the other."""
    of_run = config
    if not all(Run(Path(name)).exists for name in names):
        of_run = replace(config, backbone=None, image_size=None, mean=None, std=None, bgr=False)
    first, second = (find_weights(name, of_run if Run(Path(name)).exists else config) for name in names)
    first, second = _fit(first, second), _fit(second, first)
    one, other = first.spec.preprocessing, second.spec.preprocessing
    if takes_same_images(one, other):
        return first, second
    told = [
        f"{name} takes images of {each.image_size} px ({each.fit})"
        for name, each in zip(names, (one, other), strict=True)
    ]
    text = " and ".join(told)
    if one.image_size != other.image_size and first.run and second.run:
        raise UsageError(f"{text}; train one of them again at the other's size")
    if one.image_size != other.image_size:
        side = one.image_size if first.run else other.image_size
        raise UsageError(f"{text}; give {{image_size}}", image_size=side)
    if one.fit != other.fit:
        raise UsageError(f"{text}; train one of them again with the other's {{fit}}", fit=one.fit)
    raise UsageError(f"{text}, with borders of different colors, their means; train both with {{fit}}", fit="crop")


def _fit(weights: Weights[EncoderSpec], other: Weights[EncoderSpec]) -> Weights[EncoderSpec]:
    """Weights from elsewhere do not say how an image is made square: as the run does that they are fused with."""
    if weights.run is not None or other.run is None:
        return weights
    preprocessing = replace(weights.spec.preprocessing, fit=other.spec.preprocessing.fit)
    return replace(weights, spec=replace(weights.spec, preprocessing=preprocessing))


def _size(weights: Weights[EncoderSpec]) -> int:
    return len(weights.layers[-1][0]) if weights.layers else weights.spec.embedding_size


def _join(names: Sequence[str | Path], parts: Sequence[Weights[EncoderSpec]], config: ExportConfig) -> Provenance:
    """What holds of both; the rest is said of each (see Source.parts)."""
    licenses, sources = (
        "; ".join(dict.fromkeys(filter(None, (getattr(each.provenance, name) for each in parts)))) or None
        for name in ("license", "source")
    )
    return Provenance(
        init=f"{names[0]} and {names[1]}, fused",
        license=licenses,
        source=sources,
        network=config.network,
        with_projector=config.with_projector,
        assumptions=[
            f"{name}: {each}" for name, part in zip(names, parts, strict=True) for each in part.provenance.assumptions
        ],
    )
