"""The training loop: read it from top to bottom."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from ..models.backbones import build_backbone, embedding_size, resolve_stem
from ..models.byol import BYOL
from ..models.network import InferenceNetwork
from ..models.weights import EncoderSpec
from ..runtime.errors import ImageError, RunError, UsageError
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


@dataclass(frozen=True)
class Training:
    """What the loop works on; `normalise` turns uint8 views into the networks' input, on their device."""

    byol: BYOL
    optimiser: Optimizer
    normalise: InferenceNetwork
    settings: Settings
    spec: EncoderSpec
    paths: list[Path]
    out: Path


def train(
    images: Path,
    out: Path,
    dials: Dials,
    watcher: Watcher,
    device: str = "auto",
    resume: bool = False,
    overwrite: bool = False,
) -> None:
    """Pretrains a backbone with BYOL on a folder of images and writes a run to `out`.

    `resume`: go on after the last finished epoch of the same run, or start it; a finished run is left as it is.
    Raises ImageError, UsageError, RunError.
    """
    if out.resolve().is_relative_to(images.resolve()):
        raise UsageError(f"--out {out} lies in {images}: the run's own pictures would become training images")
    going_on = resume and (out / run.CONFIG).exists()
    if not going_on:
        run.check_free(out, overwrite)
    paths = find_images(images)
    training = set_up(paths, out, resolve(dials, len(paths)), choose_device(device))
    config = run.describe_run(training.settings, paths, images)
    if going_on:
        run.check_same_run(out, config)
    # All that can fail comes before the first change to `out`.
    calibration = run.draw_calibration(paths, training.spec, training.settings.seed)
    if not going_on:
        run.start_run(out, config)
    run.save_calibration(out, calibration)
    first_epoch = restore(training) if going_on else 0
    watcher.start(training.settings, len(paths), first_epoch)
    run_epochs(training, first_epoch, watcher)
    run.draw_curves(out)


def set_up(paths: list[Path], out: Path, settings: Settings, device: torch.device) -> Training:
    """Builds networks and optimiser, with weights drawn from the seed."""
    torch.manual_seed(settings.seed)
    side = settings.image_size
    backbone = build_backbone(settings.backbone, side, settings.stem)
    settings = replace(settings, stem=resolve_stem(backbone, side, settings.stem))
    spec = EncoderSpec(settings.backbone, settings.stem, embedding_size(backbone, side), Preprocessing(side))
    byol = BYOL(backbone, spec.embedding_size, settings.projector_hidden, settings.projection_size).to(device)
    optimiser = build_optimiser(settings.optimiser, byol, settings.learning_rate, settings.weight_decay)
    normalise = InferenceNetwork(nn.Identity(), spec.preprocessing).to(device)
    return Training(byol, optimiser, normalise, settings, spec, paths, out)


def run_epochs(training: Training, first_epoch: int, watcher: Watcher) -> None:
    """Trains from `first_epoch` (counted from 0) to the last."""
    settings = training.settings
    steps_an_epoch = len(training.paths) // settings.batch_size
    steps = steps_an_epoch * settings.epochs
    warmup = round(settings.warmup_epochs * steps_an_epoch)
    unreadable: set[str] = set()
    monitor = EpochMonitor()
    training.byol.train()
    batches = name_dead_workers(load_batches(training.paths, settings, first_epoch))
    for step, batch in enumerate(batches, start=first_epoch * steps_an_epoch):
        for message in sorted(set(batch.errors) - unreadable):
            unreadable.add(message)
            watcher.unreadable(message)
        rate = learning_rate(step, steps, warmup, settings.learning_rate)
        tau_now = tau(step, steps, settings.tau_base)
        if len(batch.first) > 1:  # batch norm needs two; the others could not be read
            monitor.add(*take_step(training, batch, rate, tau_now))
        watcher.step(step + 1, steps)
        if (step + 1) % steps_an_epoch == 0:
            metrics = monitor.summarise(batch.epoch + 1, step + 1, tau_now, rate, len(unreadable))
            finish_epoch(training, metrics)
            watcher.epoch(metrics)
            monitor = EpochMonitor()


def take_step(training: Training, batch: Batch, rate: float, tau_now: float) -> tuple[Tensor, Tensor]:
    """One optimiser step and one step of the target. Returns the loss and the online projections."""
    for group in training.optimiser.param_groups:
        group["lr"] = rate
    device = training.normalise.scale.device
    first, second = (training.normalise.inputs(view.to(device)) for view in (batch.first, batch.second))
    loss, projections = training.byol(first, second)
    training.optimiser.zero_grad(set_to_none=True)
    loss.backward()
    training.optimiser.step()
    training.byol.update_target(tau_now)
    return loss, projections


def finish_epoch(training: Training, metrics: Metrics) -> None:
    """Saves all that is needed to go on, and the encoder as it is now."""
    if not metrics.images_per_s:
        raise ImageError(f"no batch of epoch {metrics.epoch} had two readable images; the unreadable are named above")
    if not math.isfinite(metrics.loss):
        left = f"{training.out} holds the epoch before" if metrics.epoch > 1 else "no epoch was finished"
        raise RunError(
            f"the loss is {metrics.loss} in epoch {metrics.epoch}: "
            f"--learning-rate below {training.settings.learning_rate:g} may help; {left}"
        )
    save_encoder(training, metrics.epoch)
    run.append_metrics(training.out, metrics)
    # Last, since a resumed run starts from it: a kill before this line repeats the epoch.
    state = {
        "epoch": metrics.epoch,
        "byol": training.byol.state_dict(),
        "optimiser": training.optimiser.state_dict(),
        "random": torch.get_rng_state(),
    }
    run.save_checkpoint(training.out, state)


def save_encoder(training: Training, epoch: int) -> None:
    """Writes the online backbone as it is after `epoch` epochs."""
    settings = training.settings
    provenance = {
        "epoch": epoch,
        "epochs": settings.epochs,
        "seed": settings.seed,
        "recipe": settings.recipe,
        "network": "online",
        "versions": run.versions(),
    }
    run.save_encoder(training.out, training.byol.backbone, training.spec, provenance)


def restore(training: Training) -> int:
    """Puts the run's last checkpoint back; returns the epoch to go on with, 0 where there is none."""
    state = run.load_checkpoint(training.out)
    if state is None:
        return 0
    try:
        training.byol.load_state_dict(state["byol"])
        training.optimiser.load_state_dict(state["optimiser"])
        torch.set_rng_state(state["random"])
        epoch = int(state["epoch"])
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise RunError(
            f"{training.out / run.CHECKPOINT}: not of this run ({reason}); start with --overwrite"
        ) from error
    save_encoder(training, epoch)  # in case it was lost
    return epoch


def name_dead_workers(batches: Iterator[Batch]) -> Iterator[Batch]:
    """The same batches; a worker that was killed becomes an error that says what to do."""
    try:
        yield from batches
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        raise RunError(
            "a process that decodes images was killed, out of memory perhaps; --resume with fewer --workers"
        ) from error


def choose_device(name: str) -> torch.device:
    """ "auto" is the first GPU, or the CPU where there is none. Raises UsageError for a GPU that is not there."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise UsageError(f"--device {name}: PyTorch {torch.__version__} sees no GPU here; take --device cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).cpu()
    except (RuntimeError, NotImplementedError, AssertionError) as error:
        raise UsageError(f"--device {name}: cannot be used here ({str(error).splitlines()[0]})") from error
    return device
