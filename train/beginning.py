"""What a run begins with: its backbone, weights and normalization, as chosen, else as the weights say."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from ..models.backbones import resolve_stem
from ..models.normalization import choose_normalization
from ..models.starts import LIBRARIES, Start, find_start
from ..runtime.errors import UsageError
from .config import TrainConfig, complete_objective

log = logging.getLogger(__name__)

BACKBONE, IMAGE_SIZE = "resnet18", 128


@dataclass(frozen=True)
class Beginning:
    """`init`: the name of a start, None for random weights. `stem` is resolved."""

    backbone: str
    image_size: int
    stem: str
    init: str | None
    teacher: str | None
    mean: tuple[float, ...]
    std: tuple[float, ...]


def begin(config: TrainConfig) -> Beginning:
    """Raises UsageError where what is chosen contradicts the weights, and RunError where there are none.

    Where all is chosen, the weights are not looked for: a run that goes on does not need them any more.
    """
    chosen = config.backbone, config.image_size, config.mean, config.std
    start = find_start(config.init, config.backbone) if config.init is not None and None in chosen else None
    backbone = config.backbone or (start and start.backbone) or BACKBONE
    stem = config.stem
    if start is not None:
        start.check_backbone(backbone)
        stem = start.stem if stem == "auto" and start.stem else stem
    size = config.image_size or _find_size(start)
    mean, std, guesses = choose_normalization(start, config.mean, config.std)
    if start is not None:
        if start.verdict and start.verdict.startswith("collapsed"):
            log.warning(f"{start.name} is {start.verdict}")
        for each in (*start.assumptions, *guesses):
            log.warning("assumed: %s", each)
    return Beginning(
        backbone=backbone,
        image_size=size,
        stem=resolve_stem(backbone, size, stem),
        init=start.name if start else config.init,
        teacher=_find_teacher(config, start.name if start else config.init),
        mean=mean,
        std=std,
    )


def _find_size(start: Start | None) -> int:
    """The size of the start's images. A library's weights take any size, and the one they were trained at is slow."""
    if start is None or not start.image_size or start.name.startswith(LIBRARIES):
        return IMAGE_SIZE
    log.info(f"{start.name} takes images of {start.image_size} px, and so does this run")
    return start.image_size


def _find_teacher(config: TrainConfig, init: str | None) -> str | None:
    """As chosen, else the start itself, which `init` names. Raises UsageError if the objective has no use for it."""
    objective = complete_objective(config)
    if config.teacher is not None and not objective.needs_teacher:
        raise UsageError(
            f"{{teacher}}: {objective.name} alone has no teacher; leave it out, or take guided-byol",
            teacher=config.teacher,
        )
    teacher = config.teacher or init
    if objective.needs_teacher and teacher is None:
        raise UsageError("distillation learns from a teacher: give {teacher} or {init}", teacher="SOURCE", init="START")
    return teacher if objective.needs_teacher else None
