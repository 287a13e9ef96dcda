"""Every setting of a run, computed from what a person chose and the number of images."""

from __future__ import annotations

import json
import math
from dataclasses import MISSING, Field, asdict, dataclass, fields, is_dataclass, replace
from typing import Any, TypeVar

from ..models.normalization import check_normalization
from ..models.objective import ObjectiveConfig
from ..runtime.cpus import available_cpus
from ..runtime.errors import ImageError, UsageError
from ..runtime.preprocessing import FITS, Preprocessing
from ..runtime.text import count
from .beginning import begin
from .config import TrainConfig, complete_objective
from .optimizer import RATES
from .plan import Plan
from .recipe import RECIPES, adaptation
from .renderers import RENDERERS
from .views import View, change_view

T = TypeVar("T")

SMALL_IMAGES = 64
FP32, BF16 = PRECISIONS = ("fp32", "bf16")
BATCHES = (16, 32, 64, 128, 256)
# With fewer optimizer steps than these, in all or in an epoch, a smaller batch learns more than a larger one; below 64,
# batch norm's statistics cost more than the steps bring.
STEPS, STEPS_PER_EPOCH = 4000, 20
# Weights that were trained go on at a smaller rate than heads that begin; see docs/training.md.
ADAPTED_RATE = 0.3
# What a run may be resumed with another of: how it is computed, which changes no more than rounding and the number of
# images that a batch norm sees and InfoNCE compares; and what is looked at elsewhere, as images are by their names, and
# epochs by those that are done.
FREE_TO_CHANGE = frozenset(
    {"workers", "augment", "accumulate", "precision", "compile", "deterministic", "images", "epochs"}
)


@dataclass(frozen=True)
class Settings:
    """Every setting of a run, complete: what `config.json` holds. Sizes in pixels.

    A setting added later needs a default that does what was done before it: runs without it are read with that.
    """

    recipe: str
    backbone: str
    stem: str
    init: str | None
    image_size: int
    fit: str
    plan: Plan
    optimizer: str
    weight_decay: float
    objective: ObjectiveConfig
    views: tuple[View, View]
    seed: int
    workers: int
    augment: str = "workers"
    precision: str = FP32
    compile: bool = False
    deterministic: bool = False
    no_images: bool = False
    teacher: str | None = None
    backbone_rate: float = 1.0
    frozen_norms: bool = False
    mean: tuple[float, ...] = Preprocessing.mean
    std: tuple[float, ...] = Preprocessing.std

    @property
    def preprocessing(self) -> Preprocessing:
        (r, g, b), (red, green, blue) = self.mean, self.std
        return Preprocessing(self.image_size, (r, g, b), (red, green, blue), self.fit)

    def to_json(self) -> dict[str, Any]:
        value = asdict(self)
        value["objective"]["name"] = self.objective.name
        for view, written in zip(self.views, value["views"], strict=True):
            written["geometry"]["kind"] = type(view.geometry).__name__
        return json.loads(json.dumps(value))


def resolve(config: TrainConfig, images: int) -> Settings:
    """All settings for `images` images. Raises UsageError for a value out of range, ImageError for too few images."""
    _check(config)
    objective, beginning = complete_objective(config), begin(config)
    name = config.recipe or choose_recipe(objective, config.init, beginning.image_size)
    if name not in RECIPES:
        raise UsageError(f"no recipe {name!r}; there are {', '.join(RECIPES)}", recipe=name)
    recipe = RECIPES[name]()
    optimizer = _given(config.optimizer, recipe.optimizer)
    if optimizer not in RATES:
        raise UsageError(f"no optimizer {optimizer!r}; there are {', '.join(RATES)}", optimizer=optimizer)
    rates = recipe.rates_of(optimizer)
    epochs = _given(config.epochs, compute_epochs(objective, config.init))
    _check_epochs(epochs, config)
    batch_size = _given(config.batch_size, compute_batch_size(images, epochs))
    _check_batch(batch_size, config, images, objective)
    plan = Plan(
        images=images,
        epochs=epochs,
        batch_size=batch_size,
        accumulate=config.accumulate,
        learning_rate=_given(config.learning_rate, objective.rate * rates.peak(batch_size)),
        # Ten epochs, as in the recipe of record, or a tenth of a short run.
        warmup_epochs=_given(config.warmup_epochs, min(10, epochs / 10)),
    )
    first, second = (
        change_view(view, {**config.views, **own})
        for view, own in zip(recipe.views, (config.view_1, config.view_2), strict=True)
    )
    return Settings(
        recipe=name,
        backbone=beginning.backbone,
        stem=beginning.stem,
        init=beginning.init,
        image_size=beginning.image_size,
        fit=config.fit,
        plan=plan,
        optimizer=optimizer,
        weight_decay=_given(config.weight_decay, rates.weight_decay),
        objective=objective.complete(replace(recipe.heads, shipped=config.init is None), plan.steps),
        views=(first, second),
        seed=config.seed,
        workers=_given(config.workers, available_cpus()),
        augment=_given(config.augment, Settings.augment),
        precision=Settings.precision if config.precision in (None, "auto") else config.precision,
        compile=_given(config.compile, False),
        deterministic=_given(config.deterministic, False),
        no_images=config.no_images,
        teacher=beginning.teacher,
        backbone_rate=_given(config.backbone_rate, 1.0 if config.init is None else ADAPTED_RATE),
        frozen_norms=_given(config.frozen_norms, config.init is not None),
        mean=beginning.mean,
        std=beginning.std,
    )


def choose_recipe(objective: ObjectiveConfig, init: str | None, image_size: int) -> str:
    """What suits the objective, more gently for weights that were trained; else what suits images of this size."""
    if objective.recipe is not None:
        return objective.recipe if init is None else adaptation.__name__
    return "small" if image_size <= SMALL_IMAGES else "photographs"


def compute_epochs(objective: ObjectiveConfig, init: str | None) -> int:
    """As many as the objective takes from random weights; of those that were trained, a quarter."""
    return objective.epochs if init is None else objective.epochs // 4


def compute_batch_size(images: int, epochs: int) -> int:
    """The largest power of two, from 16 to 256, that still gives 20 optimizer steps per epoch, and 4,000 or is 64."""
    steps = [images // size for size in BATCHES]
    fitting = [
        size
        for size, each in zip(BATCHES, steps, strict=True)
        if each >= STEPS_PER_EPOCH and (size <= 64 or each * epochs >= STEPS)
    ]
    return max(fitting, default=BATCHES[0])


def find_changes(before: dict[str, Any], settings: Settings) -> list[str]:
    """What differs from the settings that a config.json holds, in words; a missing one counts as its default."""
    return _compare(before, settings.to_json(), settings)


def _compare(before: dict[str, Any], now: dict[str, Any], kind: Any) -> list[str]:
    """`kind`: the dataclass that both were written from."""
    defaults = {each.name: _default(each) for each in fields(kind)}
    changes = []
    for name, value in now.items():
        part, was = getattr(kind, name, None), before.get(name, defaults.get(name))
        was = list(was) if isinstance(was, tuple) else was  # a default, as JSON has it
        if name in FREE_TO_CHANGE:
            continue
        if is_dataclass(part) and isinstance(was, dict):
            if was.get("name") == value.get("name"):
                changes += _compare(was, value, part)
            else:  # two objectives, whose settings do not compare
                changes.append(_tell_change(name, was.get("name"), value.get("name")))
        elif isinstance(part, tuple) and part and is_dataclass(part[0]) and isinstance(was, list):
            pairs = zip(was, value, part, strict=False)
            changes += [change for one, other, each in pairs for change in _compare(one, other, each)]
        elif was != value:
            changes.append(_tell_change(name, was, value))
    return changes


def _tell_change(name: str, was: object, now: object) -> str:
    return f"{name} (was {_short(was)}, now {_short(now)})"


def _default(field: Field[Any]) -> Any:
    return field.default if field.default is not MISSING else None


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 40 else text[:39] + "…"


def _given(value: T | None, computed: T) -> T:
    return computed if value is None else value


def _check(config: TrainConfig) -> None:
    for name, least, most in (
        ("image_size", 16, 4096),
        ("batch_size", 2, 10**6),
        ("workers", 0, 1024),
        ("seed", 0, 2**63 - 1),
        ("weight_decay", 0, 1),
    ):
        _check_range(name, getattr(config, name), least, most)
    if config.learning_rate is not None and not 0 < config.learning_rate < math.inf:
        raise UsageError("{learning_rate}: has to be above 0", learning_rate=config.learning_rate)
    check_normalization(config.mean, config.std)
    if config.augment not in (None, *RENDERERS):
        raise UsageError(f"{{augment}}: has to be {' or '.join(RENDERERS)}", augment=config.augment)
    if config.precision not in (None, "auto", *PRECISIONS):
        raise UsageError(f"{{precision}}: has to be auto, {' or '.join(PRECISIONS)}", precision=config.precision)
    if config.fit not in FITS:
        raise UsageError(f"no fit {config.fit!r}; there are {', '.join(FITS)}", fit=config.fit)


def _check_epochs(epochs: int, config: TrainConfig) -> None:
    _check_range("epochs", epochs, 1, 10**6)
    _check_range("warmup_epochs", config.warmup_epochs, 0, epochs)


def _check_range(name: str, value: float | None, least: float, most: float) -> None:
    if value is not None and not least <= value <= most:
        limit = f"at least {least}" if value < least else f"at most {most}"
        raise UsageError(f"{{{name}}}: {limit}", **{name: value})


def _check_batch(batch_size: int, config: TrainConfig, images: int, objective: ObjectiveConfig) -> None:
    parts, least = config.accumulate, objective.least_batch
    if batch_size < least:
        raise UsageError(
            f"{{batch_size}}: {objective.name} compares the images of a batch; take at least {least}",
            batch_size=batch_size,
        )
    if not 1 <= parts <= batch_size // least:
        limit = "at least 1" if parts < 1 else f"at most {batch_size // least}"
        raise UsageError(f"{{accumulate}}: {limit}", accumulate=parts)
    if batch_size % parts:
        raise UsageError(f"{{accumulate}}: does not divide a batch of {batch_size} evenly", accumulate=parts)
    if images < batch_size:
        few = f"{count(images, 'image')}, fewer than a batch of {batch_size}: "
        if config.batch_size and images >= least:
            raise ImageError(f"{few}take {{batch_size}} or smaller", batch_size=images)
        raise ImageError(f"{few}training needs more")
