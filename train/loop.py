"""The training loop: read it from top to bottom."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.utils.tensorboard import SummaryWriter

from ..evaluate.evidence import Probe, measure, prepare_probe
from ..models.backbones import build_backbone, embedding_size, resolve_stem
from ..models.byol import BYOL
from ..models.initial import TIMM, initial_preprocessing, load_initial
from ..models.network import InferenceNetwork
from ..models.weights import EncoderSpec
from ..runtime.errors import ImageError, RunError, UsageError
from . import run
from .data import Batch, load_batches
from .dataset import ImageDataset, gather
from .monitor import EpochMonitor, Metrics, Moment, untrained_metrics
from .optimizer import build_optimiser
from .plots import draw_curves, draw_views
from .recipe import Settings, TrainConfig, resolve
from .schedule import learning_rate, tau
from .verdict import Verdict, is_collapsing, judge

# kNN accuracy is measured about this many times a run.
KNN_TIMES = 20
# Steps between two looks at whether the loss is still a number; each look waits for the device.
CHECK_EVERY = 50


class Watcher(Protocol):
    """Whom the loop tells how far it is."""

    def start(self, settings: Settings, images: ImageDataset, first_epoch: int) -> None:
        """Before the first step; `first_epoch` counts from 0."""
        ...

    def step(self, done: int, steps: int) -> None: ...

    def unreadable(self, message: str) -> None:
        """Once for each image that cannot be read."""
        ...

    def epoch(self, metrics: Metrics) -> None:
        """After an epoch's files are written, and for the untrained network, epoch 0."""
        ...


@dataclass(frozen=True)
class Training:
    """What the loop works on; `network` shares BYOL's online backbone."""

    byol: BYOL
    network: InferenceNetwork
    optimizer: Optimizer
    settings: Settings
    spec: EncoderSpec
    images: ImageDataset
    out: Path

    @property
    def steps_an_epoch(self) -> int:
        return len(self.images.paths) // self.settings.batch_size


def train(
    images: Path,
    out: Path,
    config: TrainConfig,
    watcher: Watcher,
    device: str = "auto",
    labels: Path | None = None,
    evaluation: Path | None = None,
    resume: bool = False,
    overwrite: bool = False,
) -> Verdict:
    """Pretrains a backbone with BYOL on a folder of images and writes a run to `out`.

    `labels`, `evaluation`: a CSV file of classes and a folder of images to measure kNN accuracy with (see gather).
    `resume`: go on after the last finished epoch of the same run, or start it; a finished run is left as it is.
    Raises ImageError, UsageError, and RunError where the training collapses or cannot go on.
    """
    if out.resolve().is_relative_to(images.resolve()):
        raise UsageError(f"--out {out} lies in {images}: the run's own pictures would become training images")
    going_on = resume and (out / run.CONFIG).exists()
    if not going_on:
        run.check_free(out, overwrite)
    image_set = gather(images, labels, evaluation, config.seed)
    state = run.load_checkpoint(out) if going_on else None
    training = set_up(
        image_set, out, resolve(config, len(image_set.paths)), choose_device(device), from_scratch=state is None
    )
    settings, preprocessing = training.settings, training.spec.preprocessing
    config = run.describe_run(settings, image_set)
    if going_on:
        run.check_same_run(out, config)
    first_epoch = state["epoch"] if state is not None else 0
    watcher.start(settings, image_set, first_epoch)
    # All that can fail comes before the first change to `out`.
    calibration = run.draw_calibration(image_set.paths, training.spec, settings.seed)
    probe = prepare_probe(calibration, image_set, preprocessing, settings.seed)
    if not going_on:
        run.start_run(out, config)
    if not settings.no_images:
        run.save_calibration(out, calibration)
        draw_views(image_set.paths, settings, preprocessing, out / run.VIEWS)
    if not run.read_metrics(out):
        untrained = untrained_metrics(measure(training.network, probe, with_knn=True))
        run.append_metrics(out, untrained)
        watcher.epoch(untrained)
    if state is not None:
        restore(training, state)
    try:
        with run.open_board(out, first_epoch) as board:
            run_epochs(training, probe, first_epoch, board, watcher)
    finally:
        history = run.read_metrics(out)
        if len(history) > 1:
            draw_curves(history, training.spec.embedding_size, out / run.CURVES)
    return judge_run(training, history)


def set_up(
    images: ImageDataset, out: Path, settings: Settings, device: torch.device, from_scratch: bool = True
) -> Training:
    """Builds networks and optimizer, with weights drawn from the seed, or from `settings.init` unless others follow."""
    torch.manual_seed(settings.seed)
    side = settings.image_size
    preprocessing = initial_preprocessing(settings.init, settings.backbone, side, settings.fit)
    if settings.init == TIMM and settings.stem == "auto":
        settings = replace(settings, stem="standard")  # the one that the pretrained weights are of
    backbone = build_backbone(settings.backbone, side, settings.stem)
    settings = replace(settings, stem=resolve_stem(backbone, side, settings.stem))
    if settings.init is not None and from_scratch:
        load_initial(settings.init, backbone, settings.backbone)
    spec = EncoderSpec(settings.backbone, settings.stem, embedding_size(backbone, side), preprocessing)
    byol = BYOL(backbone, spec.embedding_size, settings.projector_hidden, settings.projection_size)
    # Pixels as the last dimension but one of what a convolution reads: what every engine is fastest with.
    byol = byol.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = build_optimiser(settings.optimizer, byol, settings.learning_rate, settings.weight_decay)
    network = InferenceNetwork(byol.backbone, preprocessing).to(device)
    return Training(byol, network, optimizer, settings, spec, images, out)


def run_epochs(training: Training, probe: Probe, first_epoch: int, board: SummaryWriter, watcher: Watcher) -> None:
    """Trains from `first_epoch` (counted from 0) to the last."""
    settings = training.settings
    parts = settings.accumulate
    steps = training.steps_an_epoch * settings.epochs
    warmup = round(settings.warmup_epochs * training.steps_an_epoch)
    unreadable: set[str] = set()
    monitor = EpochMonitor()
    training.byol.train()
    batches = load_batches(training.images.paths, settings, training.spec.preprocessing, first_epoch)
    for number, batch in enumerate(
        monitor.watch(name_dead_workers(batches)), first_epoch * training.steps_an_epoch * parts
    ):
        for message in sorted(set(batch.errors) - unreadable):
            unreadable.add(message)
            watcher.unreadable(message)
        step = number // parts  # of the optimizer: tau, rate and target count nothing else
        rate = learning_rate(step, steps, warmup, settings.learning_rate)
        tau_now = tau(step, steps, settings.tau_base)
        if len(batch.first) > 1:  # batch norm needs two; the others could not be read
            monitor.add(step + 1, *add_gradient(training, batch))
        if (number + 1) % parts:
            continue
        take_step(training, rate, tau_now)
        watcher.step(step + 1, steps)
        at_end = (step + 1) % training.steps_an_epoch == 0
        if at_end or (step + 1) % CHECK_EVERY == 0:
            stop_if_not_finite(training, monitor)
        if at_end:
            moment = Moment(batch.epoch + 1, step + 1, tau_now, rate)
            history = finish_epoch(training, probe, monitor, moment, len(unreadable))
            run.log_metrics(board, history[-1])
            watcher.epoch(history[-1])
            if is_collapsing(history, settings.warmup_epochs):
                verdict = judge_run(training, history)
                raise RunError(f"stopped after epoch {moment.epoch}, since the network has {verdict}")
            monitor.start_epoch()


def add_gradient(training: Training, batch: Batch) -> tuple[Tensor, Tensor]:
    """Adds a part's gradient to that of its optimizer step. Returns the loss and the online projections."""
    device = training.network.scale.device
    try:
        first, second = (training.network.inputs(view.to(device)) for view in (batch.first, batch.second))
        loss, projections = training.byol(first, second)
        (loss / training.settings.accumulate).backward()
    except RuntimeError as error:
        if not isinstance(error, torch.OutOfMemoryError) and "allocate memory" not in str(error):
            raise
        raise RunError(_advise_on_memory(training.settings)) from error
    return loss, projections


def _advise_on_memory(settings: Settings) -> str:
    size, parts = settings.batch_size, settings.accumulate
    smaller = f"--batch-size {size // 2}"
    if size % (2 * parts) == 0:
        smaller = f"--accumulate {2 * parts} (the same batch in smaller parts), or {smaller}"
    return f"out of memory with {size // parts} images of {settings.image_size} px at a time: {smaller}"


def take_step(training: Training, rate: float, tau_now: float) -> None:
    """One optimizer step with the gradient gathered, and one step of the target."""
    for group in training.optimizer.param_groups:
        group["lr"] = rate
    training.optimizer.step()
    training.optimizer.zero_grad(set_to_none=True)
    training.byol.update_target(tau_now)


def stop_if_not_finite(training: Training, monitor: EpochMonitor) -> None:
    """Raises RunError, naming the step and what is left, once a loss is no finite number."""
    bad = monitor.first_bad_step()
    if bad is None:
        return
    step, loss = bad
    epoch = (step - 1) // training.steps_an_epoch
    left = f"{training.out / run.CHECKPOINT} is that of epoch {epoch}" if epoch else "no epoch was finished"
    raise RunError(
        f"the loss is {loss} at step {step}, in epoch {epoch + 1}; {left}. "
        f"Start another run with --learning-rate {training.settings.learning_rate / 3:.2g}"
    )


def finish_epoch(
    training: Training, probe: Probe, monitor: EpochMonitor, moment: Moment, unreadable: int
) -> list[Metrics]:
    """Measures the network, saves all that is needed to go on and the encoder as it is now; returns all metrics."""
    if not monitor.has_steps:
        raise ImageError(f"no batch of epoch {moment.epoch} had two readable images; the unreadable are named above")
    epochs = training.settings.epochs
    with_knn = moment.epoch == epochs or moment.epoch % max(1, epochs // KNN_TIMES) == 0
    seconds = monitor.seconds()
    metrics = monitor.summarize(moment, seconds, measure(training.network, probe, with_knn), unreadable)
    history = run.append_metrics(training.out, metrics)
    save_encoder(training, history)
    # Last, since a resumed run starts from it: a kill before this line repeats the epoch.
    state = {
        "epoch": moment.epoch,
        "byol": training.byol.state_dict(),
        "optimizer": training.optimizer.state_dict(),
        "random": torch.get_rng_state(),
    }
    run.save_checkpoint(training.out, state)
    return history


def judge_run(training: Training, history: list[Metrics]) -> Verdict:
    """The verdict after the last epoch of `history`."""
    queries = training.images.queries
    return judge(history, training.settings, training.spec.embedding_size, len(queries.paths) if queries else 0)


def save_encoder(training: Training, history: list[Metrics]) -> None:
    """Writes the online backbone as it is after the last epoch of `history`."""
    settings = training.settings
    provenance = {
        "epoch": history[-1].epoch,
        "epochs": settings.epochs,
        "seed": settings.seed,
        "recipe": settings.recipe,
        "init": settings.init,
        "network": "online",
        "verdict": str(judge_run(training, history)),
        "versions": run.versions(),
    }
    run.save_encoder(training.out, training.byol.backbone, training.spec, provenance)


def restore(training: Training, state: dict[str, Any]) -> None:
    """Puts the run's last checkpoint back."""
    try:
        training.byol.load_state_dict(state["byol"])
        training.optimizer.load_state_dict(state["optimizer"])
        torch.set_rng_state(state["random"])
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise RunError(
            f"{training.out / run.CHECKPOINT}: not of this run ({reason}); start with --overwrite"
        ) from error
    # In case it was lost, or is of an epoch whose checkpoint was not written any more.
    save_encoder(training, [each for each in run.read_metrics(training.out) if each.epoch <= state["epoch"]])


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
