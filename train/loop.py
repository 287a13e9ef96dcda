"""The training loop: read it from top to bottom."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from ..models.backbones import build_backbone, embedding_size, resolve_stem
from ..models.byol import BYOL
from ..models.network import InferenceNetwork
from ..models.weights import EncoderSpec
from ..runtime.errors import RunError, UsageError
from ..runtime.images import find_images
from ..runtime.preprocessing import Preprocessing
from . import run
from .data import Batch, load_batches
from .monitor import EpochMonitor, Metrics
from .optimiser import build_optimiser
from .recipe import Dials, Settings, resolve
from .schedule import learning_rate, tau


class Watcher(Protocol):
    """Whom the loop tells how far it is."""

    def start(self, settings: Settings, images: int, first_epoch: int) -> None:
        """Before the first step; `first_epoch` counts from 0."""
        ...

    def step(self, done: int, steps: int) -> None: ...

    def unreadable(self, message: str) -> None:
        """Once for each image that cannot be read."""
        ...

    def epoch(self, metrics: Metrics) -> None:
        """After an epoch's files are written."""
        ...


def train(
    images: Path, out: Path, dials: Dials, watcher: Watcher, device: str = "auto", resume: bool = False,
    overwrite: bool = False,
) -> None:
    """Pretrains a backbone with BYOL on a folder of images and writes a run to `out`.

    `resume`: go on after the last finished epoch of the same run, or start it; a finished run is left as it is.
    Raises ImageError, UsageError, RunError.
    """
    paths = find_images(images)
    settings = resolve(dials, len(paths))
    chosen_device = choose_device(device)
    torch.manual_seed(settings.seed)
    backbone = build_backbone(settings.backbone, settings.image_size, settings.stem)
    settings = replace(settings, stem=resolve_stem(backbone, settings.image_size, settings.stem))
    spec = EncoderSpec(
        settings.backbone, settings.stem, embedding_size(backbone, settings.image_size),
        Preprocessing(settings.image_size),
    )
    config = run.describe_run(settings, paths, images)
    going_on = resume and (out / run.CONFIG).exists()
    if going_on:
        run.check_same_run(out, config)
    else:
        run.start_run(out, config, overwrite)
    if not (out / run.CALIBRATION).exists():
        run.save_calibration(out, paths, spec, settings.seed)

    byol = BYOL(backbone, spec.embedding_size, settings.projector_hidden, settings.projection_size).to(chosen_device)
    optimiser = build_optimiser(settings.optimiser, byol, settings.learning_rate, settings.weight_decay)
    first_epoch = _restore(run.load_checkpoint(out), byol, optimiser) if going_on else 0
    watcher.start(settings, len(paths), first_epoch)
    _run_epochs(byol, optimiser, paths, settings, spec, out, first_epoch, watcher)
    run.draw_curves(out)


def _run_epochs(
    byol: BYOL, optimiser: Optimizer, paths: list[Path], settings: Settings, spec: EncoderSpec, out: Path,
    first_epoch: int, watcher: Watcher,
) -> None:
    steps_an_epoch = len(paths) // settings.batch_size
    steps = steps_an_epoch * settings.epochs
    warmup = round(settings.warmup_epochs * steps_an_epoch)
    normalise = InferenceNetwork(nn.Identity(), spec.preprocessing).to(next(byol.parameters()).device)
    unreadable: set[str] = set()
    byol.train()
    monitor = EpochMonitor()
    for step, batch in enumerate(load_batches(paths, settings, first_epoch), start=first_epoch * steps_an_epoch):
        for message in set(batch.errors) - unreadable:
            unreadable.add(message)
            watcher.unreadable(message)
        rate = learning_rate(step, steps, warmup, settings.learning_rate)
        tau_now = tau(step, steps, settings.tau_base)
        if len(batch.first) > 1:  # batch norm needs two; the others could not be read
            loss, projections = take_step(byol, optimiser, batch, normalise, rate, tau_now)
            monitor.add(loss, projections)
        watcher.step(step + 1, steps)
        if (step + 1) % steps_an_epoch == 0:
            epoch = batch.epoch + 1
            metrics = monitor.summarise(epoch, step + 1, tau_now, rate, len(unreadable))
            _finish_epoch(byol, optimiser, settings, spec, out, metrics)
            watcher.epoch(metrics)
            monitor = EpochMonitor()


def take_step(
    byol: BYOL, optimiser: Optimizer, batch: Batch, normalise: InferenceNetwork, rate: float, tau_now: float
) -> tuple[Tensor, Tensor]:
    """One optimiser step and one step of the target. Returns the loss and the online projections."""
    for group in optimiser.param_groups:
        group["lr"] = rate
    device = normalise.scale.device
    first, second = (normalise.inputs(view.to(device, non_blocking=True)) for view in (batch.first, batch.second))
    loss, projections = byol(first, second)
    optimiser.zero_grad(set_to_none=True)
    loss.backward()
    optimiser.step()
    byol.update_target(tau_now)
    return loss, projections


def _finish_epoch(
    byol: BYOL, optimiser: Optimizer, settings: Settings, spec: EncoderSpec, out: Path, metrics: Metrics
) -> None:
    """Saves all that is needed to go on, and the encoder as it is now."""
    if not math.isfinite(metrics.loss):
        raise RunError(
            f"the loss is {metrics.loss} in epoch {metrics.epoch}: "
            f"--learning-rate below {settings.learning_rate:g} may help; {out} holds the epoch before"
        )
    state = {
        "epoch": metrics.epoch,
        "byol": byol.state_dict(),
        "optimiser": optimiser.state_dict(),
        "random": torch.get_rng_state(),
    }
    run.save_checkpoint(out, state)
    run.append_metrics(out, metrics)
    provenance = {"epoch": metrics.epoch, "epochs": settings.epochs, "seed": settings.seed, "network": "online",
                  "recipe": settings.recipe, "versions": run.versions()}
    run.save_encoder(out, byol.backbone, spec, provenance)


def _restore(state: dict[str, Any] | None, byol: BYOL, optimiser: Optimizer) -> int:
    """Puts a checkpoint's state back; returns the epoch to go on with."""
    if state is None:
        return 0
    byol.load_state_dict(state["byol"])
    optimiser.load_state_dict(state["optimiser"])
    torch.set_rng_state(state["random"])
    return int(state["epoch"])


def choose_device(name: str) -> torch.device:
    """ "auto" is the first GPU, or the CPU where there is none. Raises UsageError for a GPU that is not there."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise UsageError(f"--device {name}: PyTorch {torch.__version__} sees no GPU here; take --device cpu")
    return torch.device(name)
