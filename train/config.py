"""What a person chooses of a training: in Python, or in a --config file."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints

from ..models.objective import ObjectiveConfig
from ..models.objectives import choose_objective, find_objective
from ..runtime.errors import RunError, UsageError
from ..runtime.untrusted import MOST_JSON, read_bytes
from .spelling import suggest
from .views import check_names

IN_WORDS = {
    dict: "a table",
    str: "text in quotes",
    tuple: "three numbers, such as [0.5, 0.5, 0.5]",
    float: "a number",
    int: "a whole number",
    bool: "true or false",
}
VIEWS = ("views", "view_1", "view_2")


@dataclass(frozen=True)
class TrainConfig:
    """What a person chooses; None is "computed". The keys of a --config file.

    `objective`: what the run learns by, with its own settings; None is distillation with a teacher or a start, else
    BYOL. `teacher`: a start, as `init`, or a bundle, a model file or a file of vectors. `backbone_rate`: the backbone's
    learning rate, as a share of the heads'. `frozen_norms`: the backbone's batch norms keep their statistics. `views`
    changes both views, `view_1` and `view_2` one, by the names of View, its geometry and ColorJitter. `augment`: where
    views are made, by the "workers" that decode images or on the "device". `precision`: "fp32" or "bf16"; None and
    "auto" are the faster one. `compile`: with torch.compile. `deterministic`: the same bits on a GPU, too, as far as
    torch can. `init`: the name of a start (models/starts.py). `image_size`: None is that of the run, bundle or
    checkpoint that `init` names, else 128. `mean` and `std`, of red, green and blue: what the network sees is
    (pixel / 255 - mean) / std. `no_images` keeps all images out of the run.
    """

    backbone: str | None = None
    image_size: int | None = None
    epochs: int | None = None
    batch_size: int | None = None
    recipe: str | None = None
    fit: str = "crop"
    init: str | None = None
    teacher: str | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    stem: str = "auto"
    accumulate: int = 1
    optimizer: str | None = None
    learning_rate: float | None = None
    weight_decay: float | None = None
    warmup_epochs: float | None = None
    backbone_rate: float | None = None
    frozen_norms: bool | None = None
    objective: ObjectiveConfig | None = None
    views: dict[str, Any] = field(default_factory=dict)
    view_1: dict[str, Any] = field(default_factory=dict)
    view_2: dict[str, Any] = field(default_factory=dict)
    seed: int = 0
    workers: int | None = None
    augment: str | None = None
    precision: str | None = None
    compile: bool | None = None
    deterministic: bool | None = None
    no_images: bool = False


def read_config(file: Path, base: TrainConfig | None = None) -> TrainConfig:
    """The config that a TOML file sets, by the names of TrainConfig; what it leaves out is as in `base`.

    Raises UsageError, naming the file and the key, and RunError for a file that cannot be read.

    A file may hold, for example:

        recipe = "photographs"
        epochs = 200
        learning_rate = 5e-4
        [objective]
        name = "byol"
        tau_base = 0.99
        [views]             # both views; [view_1] and [view_2] change one
        area = [0.2, 1.0]
        hue = 0
    """
    try:
        content = tomllib.loads(read_bytes(file, MOST_JSON).decode())
    except OSError as error:
        raise RunError(f"{file}: cannot be read ({error.strerror})") from error
    except (ValueError, RecursionError) as error:  # broken TOML, not UTF-8, or a name with a NUL
        raise RunError(f"{file}: not TOML ({error})") from error
    try:
        return change_config(base or TrainConfig(), content)
    except UsageError as error:
        raise UsageError(f"{file}: {error}") from error


def change_config(config: TrainConfig, changes: dict[str, Any]) -> TrainConfig:
    """The same config with other values by name; "objective" is a table with a name and the objective's own settings.

    Raises UsageError for an unknown name, or a value of another kind.
    """
    kinds = {name: _kinds(hint) for name, hint in get_type_hints(TrainConfig).items()}
    objective = changes.get("objective", {})
    if not isinstance(objective, dict):
        raise UsageError(f'objective = {objective!r} is not a table; its name stands in it: name = "byol"')
    _check(changes, {**kinds, "objective": (dict,)}, "")
    for views in VIEWS:
        check_names(changes.get(views, {}))
    numbers = {name: tuple(value) for name, value in changes.items() if isinstance(value, list)}
    changed = replace(config, **{**changes, **numbers, "objective": config.objective})
    return replace(changed, objective=change_objective(changed, objective)) if objective else changed


def complete_objective(config: TrainConfig) -> ObjectiveConfig:
    """The objective of a config, or the one that goes without saying."""
    return config.objective or choose_objective(guided=config.teacher is not None or config.init is not None)


def change_objective(whole: TrainConfig, changes: dict[str, Any]) -> ObjectiveConfig:
    """The objective of a config with other settings by name, or another one by its "name". Raises UsageError."""
    changes, config = dict(changes), complete_objective(whole)
    name = changes.pop("name", config.name)
    _check({"name": name}, {"name": (str,)}, "")
    if name != config.name:
        config = find_objective(name)()
    _check(changes, {each: _kinds(hint) for each, hint in _own_fields(config).items()}, f" of the objective {name}")
    return replace(config, **changes)  # type: ignore[type-var]


def _own_fields(config: ObjectiveConfig) -> dict[str, Any]:
    hints = get_type_hints(type(config))
    return {each.name: hints[each.name] for each in fields(config)}  # type: ignore[arg-type]


def _check(changes: dict[str, Any], kinds: dict[str, tuple[type, ...]], whose: str) -> None:
    for name, value in changes.items():
        if name not in kinds:
            raise UsageError(f"no setting {name!r}{whose}; {suggest(name, kinds)}")
        if type(value) not in kinds[name]:
            raise UsageError(f"{name} = {value!r} is not {IN_WORDS[kinds[name][0]]}")


def _kinds(hint: Any) -> tuple[type, ...]:
    """The types that a value of this annotation may have: a whole number for a number, and a list for a tuple."""
    kinds = tuple(get_origin(each) or each for each in (get_args(hint) if get_origin(hint) is UnionType else (hint,)))
    return (*kinds, *((int,) if float in kinds else ()), *((list,) if tuple in kinds else ()))
