"""A run that goes on: what its config.json says of it, what a person may change, and a plan of another length."""

from __future__ import annotations

import logging
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from ..models.objective import ObjectiveConfig
from ..runtime.errors import RunError, UsageError
from ..runtime.run import CHECKPOINT, CONFIG, Run
from .config import VIEWS, TrainConfig, change_config
from .dataset import Sources
from .settings import Settings, find_changes, resolve

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Record:
    """What a config.json holds. `config`: its settings as somebody would choose them, each one set."""

    run: Run
    settings: dict[str, Any]
    images: dict[str, Any]
    config: TrainConfig


def read_record(run: Run, objective: ObjectiveConfig | None = None) -> Record:
    """`objective`: of the kind that the run learns by, where it is none of models/objectives.py. Raises RunError."""
    content = run.read_config()
    settings, images = content["settings"], content["images"]
    if not settings:
        raise RunError(f"{run.path / CONFIG}: holds no settings; start again with {{overwrite}}", overwrite=True)
    base = TrainConfig() if objective is None else TrainConfig(objective=objective)
    try:
        config = change_config(base, _by_names_of_config(settings))
        resolve(config, max(2, config.batch_size or 0))  # for what is out of range
        if config.epochs is None:
            raise UsageError("the plan has no number of epochs")
    except (UsageError, TypeError, ValueError, AttributeError, KeyError) as error:
        raise RunError(f"{run.path / CONFIG}: {error}; start again with {{overwrite}}", overwrite=True) from error
    return Record(run, settings, images, config)


def started_with(run: Run) -> TrainConfig:
    """A run's settings, for others to be put on top. Not its views: pretrain keeps them unless others are given."""
    return replace(read_record(run).config, view_1={}, view_2={})


def fill(config: TrainConfig, started: TrainConfig) -> TrainConfig:
    """`config` with what it leaves to be computed as the run has it, so that another length changes nothing else.

    Raises UsageError for fewer epochs than the run's warm-up takes.
    """
    left_open = {
        each.name: getattr(started, each.name)
        for each in fields(config)
        if getattr(config, each.name) is None and each.name != "objective"
    }
    filled = replace(config, **left_open, objective=_fill_objective(config.objective, started.objective))
    if filled.recipe == started.recipe and not any(getattr(config, name) for name in VIEWS):
        filled = replace(filled, view_1=started.view_1, view_2=started.view_2)
    warmup, epochs = started.warmup_epochs or 0, filled.epochs
    if epochs is not None and filled.warmup_epochs == started.warmup_epochs and 1 <= epochs < warmup:
        raise UsageError(f"{{epochs}}: the run's warm-up takes {warmup:g}; take as many, or more", epochs=epochs)
    return filled


def find_sources(record: Record, given: Sources) -> Sources:
    """Where the images are: as given, else where they were. Raises RunError for a place that is not there any more."""
    found: dict[str, Path | None] = {}
    for name, kind in (("images", "IMAGES"), ("labels", "FILE.csv"), ("evaluation", "DIR")):
        place, was = getattr(given, name), record.images.get("folder" if name == "images" else name)
        found[name] = place or (Path(str(was)) if was else None)
        if found[name] is None and name == "images":
            raise RunError(
                f"{record.run.path / CONFIG}: does not say where its images are; give {{images}}", images=kind
            )
        if was and not place and not _exists(Path(str(was))):
            raise RunError(
                f"{str(was)[:200]}: was used by this run, and is not there; if it has moved, give {{{name}}}",
                **{name: kind},
            )
    return Sources(**found)


def check_same_run(record: Record, settings: Settings, images: dict[str, Any]) -> None:
    """Raises UsageError, naming the differences, if other settings or images than the run's are to be used."""
    changes = find_changes(record.settings, settings)
    was = record.images
    if was.get("queries", images["queries"]) != images["queries"]:
        changes.append(f"other images to measure kNN on (were {was['queries']}, now {images['queries']})")
    elif was.get("queries_sha256", images["queries_sha256"]) != images["queries_sha256"]:
        changes.append("other images to measure kNN on (as many, with other names or classes)")
    elif was.get("names_sha256", images["names_sha256"]) != images["names_sha256"]:
        changes.append(f"other images (were {was.get('count')}, now {images['count']}, with other names)")
    if changes:
        raise UsageError(f"{record.run.path} cannot be resumed, since it was started otherwise: {', '.join(changes)}")


def check_plan(record: Record, epochs: int, done: int) -> None:
    """Says if the run is to be longer or shorter than it was. Raises UsageError if it is longer already."""
    planned = record.config.epochs or epochs
    if done > planned:
        raise RunError(
            f"{record.run.path / CHECKPOINT}: of epoch {done}, where {CONFIG} has {planned}; "
            "start again with {overwrite}",
            overwrite=True,
        )
    if epochs < done:
        raise UsageError(f"{{epochs}}: the run has finished {done}; take as many, or more", epochs=epochs)
    if epochs != planned:
        kind = "longer" if epochs > planned else "shorter"
        log.info(
            f"a {kind} plan: {epochs} epochs instead of {planned}; "
            f"the learning rate follows the {kind} schedule from epoch {done + 1}"
        )


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # no permission, or too long a name
        return False


def _fill_objective(config: ObjectiveConfig | None, started: ObjectiveConfig | None) -> ObjectiveConfig | None:
    if config is None or started is None or type(config) is not type(started):
        return config or started
    names = [each.name for each in fields(config)]  # type: ignore[arg-type]
    left_open = {name: getattr(started, name) for name in names if getattr(config, name) is None}
    return replace(config, **left_open)  # type: ignore[type-var]


def _by_names_of_config(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings as config.json has them, by the names of TrainConfig; what is unknown is passed over."""
    flat = {**settings, **settings.get("plan", {})}
    found = {each.name: flat[each.name] for each in fields(TrainConfig) if each.name in flat and each.name != "views"}
    for name, view in zip(("view_1", "view_2"), settings.get("views", ()), strict=False):
        geometry, colors = dict(view["geometry"]), view["color_jitter"]
        geometry.pop("kind", None)
        plain = {each: value for each, value in view.items() if each not in ("geometry", "color_jitter")}
        found[name] = {**plain, **geometry, **colors}
    return found
