"""From a folder of images to a run: what `byol-edge train` and `byol_edge.pretrain` do."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch.utils.tensorboard import SummaryWriter

from ..models.checkpoint import load_checkpoint
from ..runtime.errors import UsageError
from ..runtime.reading import draw_from
from ..runtime.run import BOARD, CURVES, VIEWS, Run
from .config import TrainConfig
from .data import load_batches
from .dataset import ImageDataset, Sources, find_dataset
from .description import describe
from .devices import choose_device, choose_for_device
from .evaluation import prepare_evaluation
from .failures import explained
from .handover import hand_over, receive, take_over
from .kernels import chosen_kernels
from .loop import Training, run_epochs, save_encoder
from .monitor import describe_epoch, start_metrics
from .plots import draw_curves, draw_views
from .precision import check_precision
from .preparation import add_cache, restore, set_up
from .ranks import broadcast, check_shares, is_first, joined
from .resident import find_room, move_to_device
from .resuming import Record, check_plan, check_same_run, fill, find_sources, read_record
from .selection import choose_network
from .settings import Settings, resolve
from .teacher import keep, prepare_teacher
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
    cache: str | Path | None = None,
) -> Verdict:
    """Pretrains a backbone, without labels, on the images under a folder, and writes a run to `out`.

    `device`: "cpu", "cuda" or "auto", a GPU if there is one. `labels`, `evaluation`: a CSV file of classes and a folder
    of images to measure kNN accuracy with (see find_dataset). `resume`: go on after the last finished epoch of the same
    run, or start it; a finished run is left as it is, unless `config` has more epochs. To go on, `images` and `config`
    may be None, as the run has them; what is None in a config is then as in the run. `overwrite`: replace a run at
    `out`. `cache`: a folder that keeps decoded images for any number of runs; only the speed depends on it. Logs its
    settings, a line per epoch, and images that cannot be read. Raises ImageError, UsageError, and RunError where the
    training collapses or cannot go on.

    Started by `torchrun`, in several processes with the same arguments, these train one network together, each with
    its share of every batch. The first one writes the run.
    """
    where = choose_device(device)
    with joined(where):
        run, folder = Run(Path(out)), None if cache is None else Path(cache)
        if is_first():
            sources = Sources(*(None if each is None else Path(each) for each in (images, labels, evaluation)))
            return _lead(run, sources, config, where, resume, overwrite, folder)
        found = receive()
        with chosen_kernels(found.settings, where):
            return _finish(take_over(found, run, where, folder), found.paths, found.done)


def _lead(
    run: Run,
    sources: Sources,
    config: TrainConfig | None,
    where: torch.device,
    resume: bool,
    overwrite: bool,
    folder: Path | None,
) -> Verdict:
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
            config = replace(config, precision=None) if config and config.precision == "auto" else config
            config = fill(config, record.config) if config else record.config
        assert sources.images is not None
        config = config or TrainConfig()
        dataset = find_dataset(sources.images, sources.labels, sources.evaluation, config.seed)
        settings = resolve(config, len(dataset.paths))
        if record is None:
            settings = choose_for_device(settings, config, where)
        check_precision(settings.precision, where)
        check_shares(settings.plan.batch_size, settings.plan.accumulate)
        with chosen_kernels(settings, where):
            return _train(run, dataset, settings, describe_run(settings, dataset, sources), where, record, folder)


def _train(
    run: Run,
    dataset: ImageDataset,
    settings: Settings,
    description: dict[str, Any],
    device: torch.device,
    record: Record | None,
    folder: Path | None,
) -> Verdict:
    """`description`: what config.json is to hold. `record`: what it holds, of a run that is to go on.

    `folder`: of a cache.
    """
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
    teacher = prepare_teacher(run, dataset.paths, settings, device, record is not None)
    training = set_up(run, settings, preprocessing, evaluation, device, teacher, from_scratch=state is None)
    history = restore(training, state) if state is not None else []
    if state is not None:
        training = replace(training, start=state["start"] or None)
    training = add_cache(training, dataset.paths, folder, done)
    hand_over(training, dataset.paths, teacher, state)
    if record is None:
        run.start(description)
    else:
        run.save_config(description)
    if teacher is not None:
        keep(teacher, run)
    if not settings.no_images:
        run.save_calibration(calibration)
        draw_views(dataset.paths, settings, preprocessing, training.renderer, run.path / VIEWS)
    if state is not None:
        # In case these are of an epoch whose checkpoint was not written any more, or the encoder was lost.
        run.append_metrics(history[-1])
        save_encoder(training, history)
        epochs = settings.plan.epochs
        log.info("finished already" if done == epochs else f"going on after epoch {done} of {epochs}")
    return _finish(training, dataset.paths, done)


def _finish(training: Training, paths: list[Path], done: int) -> Verdict:
    """Trains from after `done` epochs to the end, in each of the processes; the verdict."""
    if done == 0:
        start = start_metrics(training.evaluation.measure(training.network, with_knn=True))
        if is_first():
            training.run.append_metrics(start)
            log.info(describe_epoch(start))
    _run_all(training, paths, done)
    return conclude(training)


def conclude(training: Training) -> Verdict:
    """Lets a run whose epochs are done hold the best network between its start and its end; the verdict on it."""
    evidence, weights = choose_network(
        training.network, training.start, training.evaluation, training.settings.objective.margin
    )
    if not is_first():
        return broadcast(None)
    history = training.run.read_metrics()
    training.objective.backbone.load_state_dict(weights)
    save_encoder(training, history, evidence)
    return broadcast(judge(history, training.settings, training.spec.embedding_size, evidence))


def _run_all(training: Training, paths: list[Path], first_epoch: int) -> None:
    settings = training.settings
    device = training.network.scale.device
    with explained(settings), _recording(training, first_epoch) as board:
        training, pictures = move_to_device(training, find_room(device))
        batches = load_batches(paths, settings, training.renderer, first_epoch, pictures, device)
        run_epochs(training, batches, first_epoch, board)


@contextmanager
def _recording(training: Training, first_epoch: int) -> Iterator[SummaryWriter | None]:
    """TensorBoard's log for the block, and the run's curves after it, whatever ended it; by the first process alone."""
    if not is_first():
        yield None
        return
    run, settings = training.run, training.settings
    # What a killed run wrote to the board of this epoch and later is dropped.
    with SummaryWriter(str(run.path / BOARD), purge_step=first_epoch + 1) as board:
        try:
            yield board
        finally:
            history = run.read_metrics()
            if len(history) > 1:
                draw_curves(history, training.spec.embedding_size, settings.objective, run.path / CURVES)
                if count := history[-1].unreadable:
                    log.warning("left out: %d unreadable image%s", count, "" if count == 1 else "s")


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
    return "/".join(path.parts[len(folder.parts) :]) or path.name


def _digest(lines: list[str]) -> str:
    return hashlib.sha256("\n".join(lines).encode(errors="replace")).hexdigest()
