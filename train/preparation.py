"""What a training works on, built from its settings, and put back as it was when a run goes on."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from ..models.backbones import build_backbone, embedding_size
from ..models.checkpoint import check_tensors
from ..models.network import InferenceNetwork, embed_pixels
from ..models.starts import find_start
from ..models.weights import load_weights, read_tail
from ..runtime.errors import RunError
from ..runtime.preprocessing import Preprocessing
from ..runtime.run import CHECKPOINT, METRICS, EncoderSpec, Metrics, Run, TeacherVectors
from .cache import open_cache
from .evaluation import Evaluation
from .failures import explained
from .loop import Training
from .optimizer import build_optimizer, load_optimizer
from .precision import keep_in_float
from .renderers import RENDERERS
from .selection import copy_weights
from .settings import Settings
from .teacher import count_parameters

log = logging.getLogger(__name__)


def set_up(
    run: Run,
    settings: Settings,
    preprocessing: Preprocessing,
    evaluation: Evaluation,
    device: torch.device,
    teacher: TeacherVectors | None = None,
    from_scratch: bool = True,
) -> Training:
    """Builds networks and optimizer, with weights drawn from the seed, or from `settings.init` unless others follow."""
    torch.manual_seed(settings.seed)
    backbone = build_backbone(settings.backbone, settings.image_size, settings.stem)
    start = find_start(settings.init, settings.backbone) if settings.init is not None and from_scratch else None
    if start is not None:
        tensors = start.read()
        load_weights(tensors, backbone, settings.backbone, start.name)
        if len(read_tail(tensors, start.name)):
            log.info(f"{start.name}: its last layer is left out; vectors are its backbone's")
        if start.source:
            log.info("%s: %s, license %s", start.name, start.source, start.license or "unknown")
    origin = start or (None if from_scratch else run.find_provenance())
    size = embedding_size(backbone, settings.image_size)
    targets = None if teacher is None else torch.from_numpy(teacher.vectors)
    objective = settings.objective.build(backbone, size, settings.image_size, targets)
    # Pixels as the last dimension but one of what a convolution reads: what every engine is fastest with.
    objective = objective.to(device, memory_format=torch.channels_last)
    if device.type == "cpu":
        keep_in_float(objective)
    network = InferenceNetwork(objective.backbone, preprocessing, objective.head).to(device)
    _tell_sizes(backbone, teacher)
    blank = np.zeros((1, settings.image_size, settings.image_size, 3), np.uint8)
    return Training(
        run=run,
        settings=settings,
        spec=EncoderSpec(settings.backbone, settings.stem, embed_pixels(network, blank).shape[1], preprocessing),
        objective=objective,
        network=network,
        optimizer=build_optimizer(
            settings.optimizer,
            dict(objective.named_parameters()),
            settings.plan.learning_rate,
            settings.weight_decay,
            settings.backbone_rate,
        ),
        renderer=RENDERERS[settings.augment](preprocessing),
        evaluation=evaluation,
        targets=targets,
        backbone_size=size,
        # With a head that was learned for the end, the weights of no other network can be shipped.
        start=copy_weights(backbone) if start is not None and objective.head is None else None,
        license=origin and origin.license,
        source=origin and origin.source,
        assumptions=list(origin.assumptions) if origin else [],
    )


def add_cache(training: Training, paths: Sequence[Path], folder: Path | None, done: int) -> Training:
    """The training with a filled cache in `folder`, if there is one, and epochs are left after `done`."""
    settings = training.settings
    if folder is None or done >= settings.plan.epochs:
        return training
    with explained(settings):
        return replace(training, cache=open_cache(folder, paths, settings.preprocessing, settings.workers))


def _tell_sizes(student: nn.Module, teacher: TeacherVectors | None) -> None:
    own, its = count_parameters(student), teacher.parameters if teacher else None
    if its is not None and own > its:
        log.info(f"the student is larger than its teacher: {own / 1e6:.1f} and {its / 1e6:.1f} million parameters")


def restore(training: Training, state: dict[str, Any]) -> list[Metrics]:
    """Puts the run's last checkpoint back; returns its epochs' figures. Raises RunError if it is of another run."""
    run = training.run
    history = [each for each in run.read_metrics() if each.epoch <= state["epoch"]]
    if [each.epoch for each in history] != list(range(state["epoch"] + 1)):
        raise RunError(
            f"{run.path / METRICS}: not the figures of epochs 0 to {state['epoch']}; start again with {{overwrite}}",
            overwrite=True,
        )
    try:
        check_tensors(state["objective"], training.objective.state_dict())
        training.objective.load_state_dict(state["objective"])
        check_tensors(state["start"], training.objective.backbone.state_dict())
        load_optimizer(training.optimizer, state["optimizer"])
        training.evaluation.load_state_dict(state["evaluation"])
        torch.set_rng_state(state["random"])
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise RunError(
            f"{run.path / CHECKPOINT}: not of this run ({reason}); start with {{overwrite}}", overwrite=True
        ) from error
    return history
