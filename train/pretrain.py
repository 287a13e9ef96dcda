"""From a folder of images to a run: what `byol-edge train` and `byol_edge.pretrain` do."""

from __future__ import annotations

import hashlib
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.tensorboard import SummaryWriter

from ..models.backbones import build_backbone, embedding_size
from ..models.checkpoint import check_tensors, load_checkpoint
from ..models.encoders import Choice
from ..models.network import InferenceNetwork, embed_pixels
from ..models.starts import find_start
from ..models.weights import load_weights
from ..runtime.errors import RunError, UsageError
from ..runtime.preprocessing import Preprocessing
from ..runtime.reading import draw_from
from ..runtime.run import BOARD, CHECKPOINT, CURVES, METRICS, VIEWS, EncoderSpec, Metrics, Run, TeacherVectors
from .config import TrainConfig
from .data import load_batches
from .dataset import ImageDataset, Sources, find_dataset
from .description import describe
from .evaluation import Evaluation, prepare_evaluation
from .failures import explained
from .loop import Training, run_epochs, save_encoder
from .monitor import describe_epoch, start_metrics
from .optimizer import build_optimizer, load_optimizer
from .plots import draw_curves, draw_views
from .rendering import PillowRenderer
from .resuming import Record, check_plan, check_same_run, fill, find_sources, read_record
from .selection import choose_network, copy_weights
from .settings import Settings, resolve
from .teacher import count_parameters, find_targets, keep
from .verdict import Verdict, judge
from .versions import versions

log = logging.getLogger(__name__)

# Images that a run keeps for export to calibrate with.
CALIBRATION_IMAGES = 512


def pretrain(
    images: str | Path | None,
    out: str | Path,
    config: TrainConfig | None = None,
    *,
    device: str = "auto",
    labels: str | Path | None = None,
    evaluation: str | Path | None = None,
    resume: bool = False,
    overwrite: bool = False,
) -> Verdict:
    """Pretrains a backbone, without labels, on the images under a folder, and writes a run to `out`.

    `device`: "cpu", "cuda" or "auto", a GPU if there is one. `labels`, `evaluation`: a CSV file of classes and a folder
    of images to measure kNN accuracy with (see find_dataset). `resume`: go on after the last finished epoch of the same
    run, or start it; a finished run is left as it is, unless `config` has more epochs. To go on, `images` and `config`
    may be None, as the run has them; what is None in a config is then as in the run. `overwrite`: replace a run at
    `out`. Logs its settings, a line per epoch, and images that cannot be read. Raises ImageError, UsageError, and
    RunError where the training collapses or cannot go on.
    """
    run = Run(Path(out))
    sources = Sources(*(None if each is None else Path(each) for each in (images, labels, evaluation)))
    if sources.images is not None and run.path.resolve().is_relative_to(sources.images.resolve()):
        raise UsageError(
            f"{{out}} lies in {sources.images}: the run's own pictures would become training images", out=run.path
        )
    if resume and overwrite:
        raise UsageError(
            "{resume} goes on with what is there, {overwrite} begins again: give one of them",
            resume=True,
            overwrite=True,
        )
    if not (resume and run.exists):
        if sources.images is None:
            missing = "there is no run to go on with, {out}; " if resume else ""
            raise UsageError(f"{missing}give {{images}} to start a run", out=run.path, images="IMAGES")
        run.check_free(overwrite)
    with run.locked():
        going_on = resume and run.exists
        if run.exists and not going_on:  # another process may have made it meanwhile
            run.check_free(overwrite)
        record = read_record(run, config.objective if config else None) if going_on else None
        if record is not None:
            sources = find_sources(record, sources)
            config = fill(config, record.config) if config else record.config
        assert sources.images is not None
        config = config or TrainConfig()
        dataset = find_dataset(sources.images, sources.labels, sources.evaluation, config.seed)
        settings = resolve(config, len(dataset.paths))
        return _train(run, dataset, settings, describe_run(settings, dataset, sources), choose_device(device), record)


def _train(
    run: Run,
    dataset: ImageDataset,
    settings: Settings,
    description: dict[str, Any],
    device: torch.device,
    record: Record | None,
) -> Verdict:
    """`description`: what config.json is to hold. `record`: what it holds, of a run that is to go on."""
    state = load_checkpoint(run) if record else None
    done = 0 if state is None else state["epoch"]
    if record is not None:
        check_same_run(record, settings, description["images"])
        check_plan(record, settings.plan.epochs, done)
    preprocessing = settings.preprocessing
    for line in describe(settings, dataset):
        log.info(line)
    # All that can fail comes before the first change to the run. What cannot be read is named when it is trained on.
    calibration = draw_from(dataset.paths, preprocessing, CALIBRATION_IMAGES, settings.seed).pixels
    mirrored = settings.views[0].flip
    evaluation = prepare_evaluation(calibration, dataset, preprocessing, settings.seed, mirrored)
    teacher = _find_teacher(run, dataset, settings, device, record is not None)
    training = set_up(run, settings, preprocessing, evaluation, device, teacher, from_scratch=state is None)
    history = restore(training, state) if state is not None else []
    if state is not None:
        training = replace(training, start=state["start"] or None)
    if record is None:
        run.start(description)
    else:
        run.save_config(description)
    if teacher is not None:
        keep(teacher, run)
    if not settings.no_images:
        run.save_calibration(calibration)
        draw_views(dataset.paths, settings, preprocessing, training.renderer, run.path / VIEWS)
    if state is None:
        start = start_metrics(evaluation.measure(training.network, with_knn=True))
        run.append_metrics(start)
        log.info(describe_epoch(start))
    else:
        # In case these are of an epoch whose checkpoint was not written any more, or the encoder was lost.
        run.append_metrics(history[-1])
        save_encoder(training, history)
        epochs = settings.plan.epochs
        log.info("finished already" if done == epochs else f"going on after epoch {done} of {epochs}")
    _run_all(training, dataset, done)
    return conclude(training)


def conclude(training: Training) -> Verdict:
    """Lets a run whose epochs are done hold the best network between its start and its end; the verdict on it."""
    history, backbone = training.run.read_metrics(), training.objective.backbone
    end = copy_weights(backbone)
    evidence, weights = choose_network(
        training.network, training.start, training.evaluation, training.settings.objective.margin
    )
    backbone.load_state_dict(weights)
    save_encoder(training, history, evidence)
    backbone.load_state_dict(end)
    return judge(history, training.settings, training.spec.embedding_size, evidence)


def _find_teacher(
    run: Run, dataset: ImageDataset, settings: Settings, device: torch.device, going_on: bool
) -> TeacherVectors | None:
    """What the teacher makes of the run's images: from the run if it lies there; None without a teacher."""
    if settings.teacher is None:
        return None
    kept = run.read_teacher(len(dataset.paths)) if going_on else None
    choice = Choice(fit=settings.fit, default_size=settings.image_size)
    if settings.teacher == settings.init:
        (r, g, b), (red, green, blue) = settings.mean, settings.std
        choice = replace(choice, backbone=settings.backbone, mean=(r, g, b), std=(red, green, blue))
    return kept or find_targets(settings.teacher, dataset.paths, choice, device)


def _run_all(training: Training, dataset: ImageDataset, first_epoch: int) -> None:
    run, settings = training.run, training.settings
    # What a killed run wrote to the board of this epoch and later is dropped.
    with explained(settings), SummaryWriter(str(run.path / BOARD), purge_step=first_epoch + 1) as board:
        try:
            batches = load_batches(dataset.paths, settings, training.renderer, first_epoch)
            run_epochs(training, batches, first_epoch, board)
        finally:
            history = run.read_metrics()
            if len(history) > 1:
                draw_curves(history, training.spec.embedding_size, settings.objective, run.path / CURVES)
                if count := history[-1].unreadable:
                    log.warning("left out: %d unreadable image%s", count, "" if count == 1 else "s")


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
        load_weights(start.read(), backbone, settings.backbone, start.name)
        if start.source:
            log.info("%s: %s, license %s", start.name, start.source, start.license or "unknown")
    origin = start or (None if from_scratch else run.find_provenance())
    size = embedding_size(backbone, settings.image_size)
    objective = settings.objective.build(backbone, size, None if teacher is None else teacher.vectors.shape[1])
    # Pixels as the last dimension but one of what a convolution reads: what every engine is fastest with.
    objective = objective.to(device, memory_format=torch.channels_last)
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
        renderer=PillowRenderer(preprocessing),
        evaluation=evaluation,
        targets=None if teacher is None else torch.from_numpy(teacher.vectors),
        # With a head that was learned for the end, the weights of no other network can be shipped.
        start=copy_weights(backbone) if start is not None and objective.head is None else None,
        license=origin and origin.license,
        source=origin and origin.source,
        assumptions=list(origin.assumptions) if origin else [],
    )


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


def describe_run(settings: Settings, dataset: ImageDataset, sources: Sources) -> dict[str, Any]:
    """The content of config.json: settings, the set of images and where they are, versions."""
    root, queries = dataset.root, dataset.queries
    names = [_name_in(root, path) for path in dataset.paths]
    classed = []  # of the queries, since their figures are compared one by one with those of epoch 0
    if queries is not None:
        folder = sources.evaluation or root
        named = zip(queries.paths, queries.labels, strict=True)
        classed = [f"{_name_in(folder, path)}\t{label}" for path, label in named]
    places = {"folder": root, "labels": sources.labels, "evaluation": sources.evaluation}
    return {
        "settings": settings.to_json(),
        "images": {
            "count": len(dataset.paths),
            "names_sha256": _digest(names),
            "queries": len(classed),
            "queries_sha256": _digest(classed),
            **{name: None if place is None else str(place.absolute()) for name, place in places.items()},
        },
        "versions": versions(),
    }


def _name_in(folder: Path, path: Path) -> str:
    return path.relative_to(folder).as_posix() if path != folder else path.name


def _digest(lines: list[str]) -> str:
    return hashlib.sha256("\n".join(lines).encode(errors="replace")).hexdigest()


def choose_device(name: str) -> torch.device:
    """ "auto" is the first GPU, or the CPU where there is none. Raises UsageError for a GPU that is not there."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise UsageError(
            f"{{device}}: PyTorch {torch.__version__} sees no GPU here; the CPU is called cpu", device=name
        )
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).cpu()
    except (RuntimeError, NotImplementedError, AssertionError) as error:
        raise UsageError(f"{{device}}: cannot be used here ({str(error).splitlines()[0]})", device=name) from error
    return device
