"""From a folder of images to a run: what `byol-edge train` and `byol_edge.pretrain` do."""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path
from typing import Any

import torch
from torch.utils.tensorboard import SummaryWriter

from ..models.backbones import build_backbone, embedding_size
from ..models.checkpoint import load_checkpoint
from ..models.initial import initial_preprocessing, load_initial
from ..models.network import InferenceNetwork
from ..runtime.errors import RunError, UsageError
from ..runtime.preprocessing import Preprocessing
from ..runtime.reading import draw_from
from ..runtime.run import BOARD, CHECKPOINT, CONFIG, CURVES, VIEWS, EncoderSpec, Run
from .config import TrainConfig
from .data import load_batches
from .dataset import ImageDataset, find_dataset
from .description import describe
from .evaluation import Evaluation, prepare_evaluation
from .failures import explained
from .loop import Training, run_epochs, save_encoder
from .monitor import describe_epoch, start_metrics
from .optimizer import build_optimizer
from .plots import draw_curves, draw_views
from .rendering import PillowRenderer
from .settings import Settings, find_changes, resolve
from .verdict import Verdict, judge
from .versions import versions

log = logging.getLogger(__name__)

# Images that a run keeps for export to calibrate with.
CALIBRATION_IMAGES = 512


def pretrain(
    images: str | Path,
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
    run, or start it; a finished run is left as it is. `overwrite`: replace a run at `out`. Logs its settings, a line
    per epoch, and images that cannot be read. Raises ImageError, UsageError, and RunError where the training collapses
    or cannot go on.
    """
    images, run, config = Path(images), Run(Path(out)), config or TrainConfig()
    if run.path.resolve().is_relative_to(images.resolve()):
        raise UsageError(f"{{out}} lies in {images}: the run's own pictures would become training images", out=run.path)
    if not (resume and run.exists):
        run.check_free(overwrite)
    with run.locked():
        going_on = resume and run.exists
        if run.exists and not going_on:  # another process may have made it meanwhile
            run.check_free(overwrite)
        dataset = find_dataset(
            images, Path(labels) if labels else None, Path(evaluation) if evaluation else None, config.seed
        )
        return _train(run, dataset, resolve(config, len(dataset.paths)), choose_device(device), going_on)


def _train(run: Run, dataset: ImageDataset, settings: Settings, device: torch.device, going_on: bool) -> Verdict:
    record = describe_run(settings, dataset)
    if going_on:
        _check_same_run(run, settings, record)
    state = load_checkpoint(run) if going_on else None
    preprocessing = initial_preprocessing(settings.init, settings.backbone, settings.image_size, settings.fit)
    for line in describe(settings, dataset):
        log.info(line)
    # All that can fail comes before the first change to the run. What cannot be read is named when it is trained on.
    calibration = draw_from(dataset.paths, preprocessing, CALIBRATION_IMAGES, settings.seed).pixels
    evaluation = prepare_evaluation(calibration, dataset, preprocessing, settings.seed)
    training = set_up(run, settings, preprocessing, evaluation, device, from_scratch=state is None)
    if not going_on:
        run.start(record)
    if not settings.no_images:
        run.save_calibration(calibration)
        draw_views(dataset.paths, settings, preprocessing, training.renderer, run.path / VIEWS)
    if state is None:
        start = start_metrics(evaluation.measure(training.network, with_knn=True))
        run.append_metrics(start)
        log.info(describe_epoch(start))
    else:
        restore(training, state)
    _run_all(training, dataset, 0 if state is None else state["epoch"])
    return judge(run.read_metrics(), settings, training.spec.embedding_size)


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
    from_scratch: bool = True,
) -> Training:
    """Builds networks and optimizer, with weights drawn from the seed, or from `settings.init` unless others follow."""
    torch.manual_seed(settings.seed)
    backbone = build_backbone(settings.backbone, settings.image_size, settings.stem)
    if settings.init is not None and from_scratch:
        load_initial(settings.init, backbone, settings.backbone)
    size = embedding_size(backbone, settings.image_size)
    objective = settings.objective.build(backbone, size)
    # Pixels as the last dimension but one of what a convolution reads: what every engine is fastest with.
    objective = objective.to(device, memory_format=torch.channels_last)
    return Training(
        run=run,
        settings=settings,
        spec=EncoderSpec(settings.backbone, settings.stem, size, preprocessing),
        objective=objective,
        network=InferenceNetwork(objective.backbone, preprocessing).to(device),
        optimizer=build_optimizer(
            settings.optimizer, objective.parameters(), settings.plan.learning_rate, settings.weight_decay
        ),
        renderer=PillowRenderer(preprocessing),
        evaluation=evaluation,
    )


def restore(training: Training, state: dict[str, Any]) -> None:
    """Puts the run's last checkpoint back."""
    run = training.run
    try:
        training.objective.load_state_dict(state["objective"])
        training.optimizer.load_state_dict(state["optimizer"])
        training.evaluation.load_state_dict(state["evaluation"])
        torch.set_rng_state(state["random"])
        history = [each for each in run.read_metrics() if each.epoch <= state["epoch"]]
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise RunError(
            f"{run.path / CHECKPOINT}: not of this run ({reason}); start with {{overwrite}}", overwrite=True
        ) from error
    # In case it was lost, or is of an epoch whose checkpoint was not written any more.
    save_encoder(training, history)
    done, epochs = state["epoch"], training.settings.plan.epochs
    log.info("finished already" if done == epochs else f"going on after epoch {done} of {epochs}")


def describe_run(settings: Settings, dataset: ImageDataset) -> dict[str, Any]:
    """The content of config.json: settings, the set of images, versions."""
    root = dataset.root
    names = "\n".join(path.relative_to(root).as_posix() if path != root else path.name for path in dataset.paths)
    return {
        "settings": settings.to_json(),
        "images": {
            "count": len(dataset.paths),
            "names_sha256": hashlib.sha256(names.encode(errors="replace")).hexdigest(),
            "queries": len(dataset.queries.paths) if dataset.queries else 0,
        },
        "versions": versions(),
    }


def _check_same_run(run: Run, settings: Settings, record: dict[str, Any]) -> None:
    """Raises UsageError, naming the differences, if the run has other settings or images."""
    before = run.read_config()
    if not before["settings"]:
        raise RunError(f"{run.path / CONFIG}: holds no settings; start again with {{overwrite}}", overwrite=True)
    changes = find_changes(before["settings"], settings)
    was, now = before["images"], record["images"]
    if was.get("queries", now["queries"]) != now["queries"]:
        changes.append(f"other images to measure kNN on (were {was['queries']}, now {now['queries']})")
    elif was.get("names_sha256", now["names_sha256"]) != now["names_sha256"]:
        changes.append(f"other images (were {was.get('count')}, now {now['count']}, with other names)")
    if changes:
        raise UsageError(f"{run.path} cannot be resumed, since it was started otherwise: {', '.join(changes)}")


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
