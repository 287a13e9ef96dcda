"""The training loop: one screen, read from top to bottom."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.tensorboard import SummaryWriter

from ..models.checkpoint import save_checkpoint
from ..models.network import InferenceNetwork
from ..models.objective import Objective, Views
from ..models.tail import build_tail, fold
from ..models.weights import serialize_encoder
from ..runtime.errors import ImageError, RunError
from ..runtime.progress import Progress, report_progress
from ..runtime.run import EncoderSpec, Metrics, Provenance, Run
from .cache import Cache
from .data import Batch
from .evaluation import Evaluation, Figures
from .failures import check_finite
from .kernels import maybe_compiled
from .monitor import Monitor, advise, describe_epoch, merge
from .precision import autocast
from .ranks import gather, rank, world_size
from .rendering import Renderer
from .selection import Evidence
from .settings import Settings
from .together import average_buffers, distribute
from .verdict import is_collapsing, judge
from .versions import versions

log = logging.getLogger(__name__)

# Steps between two looks at whether the loss is still a number; each look waits for the device.
CHECK_EVERY = 50
# In the first epoch, workers start and files are read for the first time.
FIRST_TYPICAL_EPOCH = 2


@dataclass(frozen=True)
class Training:
    """What the loop works on; `network` shares the objective's backbone, which gives vectors of `backbone_size`.

    `targets`: a teacher's embeddings of the run's images, `[N, K]`; None without a teacher. `cache`: of the
    images, if there is one. `start`: the backbone's weights before training; None if they were random. `license`,
    `source`, `assumptions`: of the weights that it started from.
    """

    run: Run
    settings: Settings
    spec: EncoderSpec
    objective: Objective
    network: InferenceNetwork
    optimizer: Optimizer
    renderer: Renderer
    evaluation: Evaluation
    backbone_size: int
    targets: Tensor | None = None
    cache: Cache | None = None
    start: Mapping[str, Tensor] | None = None
    license: str | None = None
    source: str | None = None
    assumptions: list[str] = field(default_factory=list)


def run_epochs(training: Training, batches: Iterable[Batch], first_epoch: int, board: SummaryWriter | None) -> None:
    """Trains from `first_epoch` (counted from 0) to the last; `batches` begin there.

    `board`: TensorBoard's log; None in all but the first of several processes.
    """
    plan, objective, optimizer = training.settings.plan, training.objective, training.optimizer
    monitor, batches, device = Monitor(), iter(batches), training.network.scale.device
    learn = maybe_compiled(distribute(objective), training.settings)
    set_to_train(training)
    for epoch in range(first_epoch, plan.epochs):
        for step in plan.steps_of(epoch):
            for batch in monitor.watch(islice(batches, plan.accumulate)):
                monitor.warn(batch.errors)
                if is_too_small(batch):
                    continue
                with monitor.rendering(device):
                    views = prepare_views(training, batch)
                with autocast(training.settings.precision, device):
                    outcome = learn(views)
                (outcome.loss / plan.accumulate).backward()
                monitor.add(step, batch.images, outcome)
            for group in optimizer.param_groups:
                group["lr"] = plan.rate(step) * group["share"]
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            monitor.add_moment(dict(objective.after_step(plan.progress(step))))
            monitor.tell_duration(step + 1, plan.steps)
            report_progress(Progress("training", (step + 1) * plan.batch_size, plan.steps * plan.batch_size))
            if (step + 1) % CHECK_EVERY == 0:
                check_finite(monitor, training.settings, training.run)
        finish_epoch(training, monitor, epoch + 1, board)
        monitor.start_epoch()


def is_too_small(batch: Batch) -> bool:
    """Whether a batch is passed over: batch norm needs two images, and the others could not be read.

    Processes that share a batch cannot pass over it alone. Raises ImageError if one has none of its share.
    """
    if world_size() == 1:
        return batch.images < 2
    if not batch.images:
        raise ImageError(f"process {rank()} can read no image of its share of a batch ({batch.errors[0]}); remove them")
    return False


def set_to_train(training: Training) -> None:
    """Training mode, but for the batch norms of a backbone whose statistics are to stay."""
    training.objective.train()
    if training.settings.frozen_norms:
        for module in training.objective.backbone.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()


def prepare_views(training: Training, batch: Batch) -> Views:
    """The pixels of a batch, normalized, on the device, and what the teacher makes of its images."""
    device = training.network.scale.device
    first, second = (training.network.inputs(view) for view in training.renderer.finish(batch.views, device))
    if training.targets is None:
        return Views(first, second)
    targets = training.targets[batch.rows]
    return Views(first, second, targets.to(device, torch.float32, non_blocking=True))


def finish_epoch(training: Training, monitor: Monitor, epoch: int, board: SummaryWriter | None) -> None:
    """Measures the network after `epoch` epochs, and saves it with all that is needed to go on."""
    plan = training.settings.plan
    if not monitor.has_steps:
        raise ImageError(f"no batch of epoch {epoch} had two readable images; the unreadable are named above")
    check_finite(monitor, training.settings, training.run)
    seconds = monitor.seconds()
    average_buffers(training.objective)
    figures: Figures = training.evaluation.measure(training.network, plan.measures_knn(epoch))
    steps = plan.steps_of(epoch - 1)
    monitor.warn(set().union(*gather(monitor.unreadable)))
    metrics = merge(gather(monitor.summarize(epoch, steps.stop, plan.rate(steps.stop - 1), seconds, figures)))
    if board is not None:
        record_epoch(training, metrics, board)


def record_epoch(training: Training, metrics: Metrics, board: SummaryWriter) -> None:
    """Saves what a run is after an epoch. Raises RunError if its network has collapsed."""
    run = training.run
    history = run.append_metrics(metrics)
    save_encoder(training, history)
    # Last, since a resumed run starts from it: a kill before this line repeats the epoch.
    save_checkpoint(run, pack_state(training, metrics.epoch))
    log_to_board(board, metrics)
    log.info(describe_epoch(metrics))
    if metrics.epoch == FIRST_TYPICAL_EPOCH and (
        advice := advise(metrics, training.settings.workers, training.cache is not None)
    ):
        log.warning(advice)
    if is_collapsing(history, training.settings):
        verdict = judge(history, training.settings, training.spec.embedding_size)
        what = f"the network has {verdict.kind}: {verdict.message}"
        raise RunError(f"stopped after epoch {metrics.epoch}, since {what}", **verdict.arguments)


def save_encoder(training: Training, history: list[Metrics], evidence: Evidence | None = None) -> None:
    """Writes the backbone as it is, after the last epoch of `history`, and what it is, in one file.

    `evidence`: on the network that a finished run holds, which is the backbone then.
    """
    settings = training.settings
    provenance = Provenance(
        epoch=history[-1].epoch,
        epochs=settings.plan.epochs,
        seed=settings.seed,
        recipe=settings.recipe,
        objective=settings.objective.name,
        init=settings.init,
        license=training.license,
        source=training.source,
        teacher=settings.teacher,
        share=evidence and evidence.share,
        network="online",
        assumptions=training.assumptions,
        verdict=str(judge(history, settings, training.spec.embedding_size, evidence)),
        versions=versions(),
    )
    training.run.save_encoder(
        serialize_encoder(training.objective.backbone, training.spec, provenance, fold_head(training))
    )


def fold_head(training: Training) -> nn.Module | None:
    """The head that is shipped, in inference: one linear layer, its norm folded into it."""
    head = training.objective.head
    return None if head is None else build_tail([fold(head, training.backbone_size)])


def pack_state(training: Training, epoch: int) -> dict[str, Any]:
    """All that is needed to go on after `epoch` epochs."""
    return {
        "epoch": epoch,
        "objective": training.objective.state_dict(),
        "optimizer": training.optimizer.state_dict(),
        "evaluation": training.evaluation.state_dict(),
        "start": dict(training.start or {}),
        "random": torch.get_rng_state(),
    }


def log_to_board(board: SummaryWriter, metrics: Metrics) -> None:
    """Adds an epoch's figures to TensorBoard's log."""
    figures = asdict(metrics)
    for name, value in {**figures.pop("diagnostics"), **figures}.items():
        if isinstance(value, (int, float)) and name != "epoch":
            board.add_scalar(name, value, metrics.epoch)
    board.flush()
