"""Recipes: a few config in, every setting out."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any, TypeVar

from ..runtime.cpus import available_cpus
from ..runtime.errors import ImageError, UsageError
from ..runtime.preprocessing import FITS
from .optimizer import RATES
from .views import ColorJitter, RandomAffine, RandomCrop, View, change_view

T = TypeVar("T")

SMALL_IMAGES = 64
BATCHES = (16, 32, 64, 128, 256)
# With fewer optimizer steps than these, in all or in an epoch, a smaller batch learns more than a larger one; below 64,
# batch norm's statistics cost more than the steps bring.
STEPS, STEPS_AN_EPOCH = 4000, 20


@dataclass(frozen=True)
class Recipe:
    """What a regime of images asks for; the rest follows from the config."""

    views: tuple[View, View]
    projector_hidden: int = 4096
    projection_size: int = 256
    optimizer: str = "adamw"


def photographs() -> Recipe:
    """Photographs above 64 px: the asymmetric views of the paper (appendix B, table 6).

    Not measured by this project yet; at these sizes a run wants a GPU.
    """
    return Recipe((View(blur=1.0), View(blur=0.1, solarize=0.2)))


def small() -> Recipe:
    """Photographs up to 64 px: the paper's views without blur, in larger crops; little would be left to see.

    Ten minutes on one core of a server CPU, 5,000 CIFAR-10 images at 32 px: kNN accuracy on the 10,000 test images .411
    with conv4 (37 epochs), .294 with ResNet-18 and its standard stem (9 epochs); means of 3 seeds, all within .01
    (benchmarks/train_accuracy.py). Crops from .08, as in the paper, do no better: conv4 .378, from .2 .381 (10,000
    images, one seed); on phone photographs of clothes .266, from .2 .267 (ResNet-18, 64 px, 3 epochs, 3 seeds).
    """
    crop = RandomCrop((0.2, 1.0))
    return Recipe((View(crop), View(crop, solarize=0.2)), projector_hidden=1024)


def textures() -> Recipe:
    """Aerial, medical, textures: where color and orientation are the signal, no view changes them.

    Not measured by this project yet.
    """
    view = View(RandomCrop((0.2, 1.0)), flip=0, color_jitter=ColorJitter(0.2, 0.2, 0, 0), grayscale=0)
    return Recipe((view, view))


def glyphs() -> Recipe:
    """Characters and drawings: a flip or a part is another thing, so both views show the whole, a little changed.

    1,348 handwritten digits at 32 px, conv4, 30 epochs: 3-shot accuracy .879, untrained .728, raw pixels .807, in the
    two minutes that the whole of `byol-edge demo` takes on two cores.
    """
    view = View(
        RandomAffine(rotation=15, scale=(0.8, 1.2), shear=10, shift=0.1),
        flip=0,
        color_jitter=ColorJitter(0.4, 0.4, 0, 0),
        grayscale=0,
        blur=0.5,
    )
    return Recipe((view, view), projector_hidden=1024)


RECIPES: dict[str, Callable[[], Recipe]] = {each.__name__: each for each in (photographs, small, textures, glyphs)}


@dataclass(frozen=True)
class TrainConfig:
    """What a person chooses; None is "computed". The keys of a --config file.

    `views` changes both views, `view_1` and `view_2` one, by the names of View, its geometry and ColorJitter. `no_images`
    keeps all images out of the run.
    """

    backbone: str = "resnet18"
    image_size: int = 128
    epochs: int = 100
    batch_size: int | None = None
    recipe: str | None = None
    fit: str = "crop"
    init: str | None = None
    stem: str = "auto"
    accumulate: int = 1
    optimizer: str | None = None
    learning_rate: float | None = None
    weight_decay: float | None = None
    warmup_epochs: float | None = None
    tau_base: float | None = None
    projector_hidden: int | None = None
    projection_size: int | None = None
    views: dict[str, Any] = field(default_factory=dict)
    view_1: dict[str, Any] = field(default_factory=dict)
    view_2: dict[str, Any] = field(default_factory=dict)
    seed: int = 0
    workers: int | None = None
    no_images: bool = False


@dataclass(frozen=True)
class Settings:
    """Every setting of a run, resolved: what `config.json` holds. Sizes in pixels; `learning_rate` is the peak."""

    recipe: str
    backbone: str
    stem: str
    init: str | None
    image_size: int
    fit: str
    epochs: int
    batch_size: int
    accumulate: int
    optimizer: str
    learning_rate: float
    weight_decay: float
    warmup_epochs: float
    tau_base: float
    projector_hidden: int
    projection_size: int
    views: tuple[View, View]
    seed: int
    workers: int
    no_images: bool

    def to_json(self) -> dict[str, Any]:
        value = asdict(self)
        for view, fields in zip(self.views, value["views"], strict=True):
            fields["geometry"]["kind"] = type(view.geometry).__name__
        return value


def resolve(config: TrainConfig, images: int) -> Settings:
    """All settings for a set of `images`. Raises UsageError for a dial out of range, ImageError for too few images."""
    name = config.recipe or ("small" if config.image_size <= SMALL_IMAGES else "photographs")
    if name not in RECIPES:
        raise UsageError(f"no recipe {name!r}; there are {', '.join(RECIPES)}")
    recipe = RECIPES[name]()
    optimizer = _given(config.optimizer, recipe.optimizer)
    if optimizer not in RATES:
        raise UsageError(f"no optimizer {optimizer!r}; there are {', '.join(RATES)}")
    rates = RATES[optimizer]
    batch_size = _given(config.batch_size, compute_batch_size(images, config.epochs))
    first, second = (
        change_view(view, {**config.views, **own})
        for view, own in zip(recipe.views, (config.view_1, config.view_2), strict=True)
    )
    settings = Settings(
        recipe=name,
        backbone=config.backbone,
        stem=config.stem,
        init=config.init,
        image_size=config.image_size,
        fit=config.fit,
        epochs=config.epochs,
        batch_size=batch_size,
        accumulate=config.accumulate,
        optimizer=optimizer,
        learning_rate=_given(config.learning_rate, rates.peak(batch_size)),
        weight_decay=_given(config.weight_decay, rates.weight_decay),
        # Ten epochs, as in the recipe of record, or a tenth of a short run.
        warmup_epochs=_given(config.warmup_epochs, min(10, config.epochs / 10)),
        tau_base=_given(config.tau_base, compute_tau_base(images // batch_size * config.epochs)),
        projector_hidden=_given(config.projector_hidden, recipe.projector_hidden),
        projection_size=_given(config.projection_size, recipe.projection_size),
        views=(first, second),
        seed=config.seed,
        workers=_given(config.workers, available_cpus()),
        no_images=config.no_images,
    )
    _check(settings)
    if images < batch_size:
        raise ImageError(
            f"{images} images are fewer than a batch of {batch_size}: "
            + (f"take --batch-size {images} or smaller" if config.batch_size and images > 1 else "training needs more")
        )
    return settings


def compute_batch_size(images: int, epochs: int) -> int:
    """The largest power of two, from 16 to 256, that still gives 20 optimizer steps an epoch, and 4,000 or is 64."""
    steps = [images // size for size in BATCHES]
    fitting = [
        size
        for size, each in zip(BATCHES, steps, strict=True)
        if each >= STEPS_AN_EPOCH and (size <= 64 or each * epochs >= STEPS)
    ]
    return max(fitting, default=BATCHES[0])


def compute_tau_base(steps: int) -> float:
    """1 - (27 / steps)^0.6: a target that lags behind by a share of the run that shrinks as the run grows.

    For the 40, 100, 300 and 1000 epochs of the authors it gives .975, .985, .993 and .996, where they have .97, .99,
    .99 and .996; carried on to short runs, it falls further. At 630 steps on CIFAR-10 (conv4), kNN was .362 with .996,
    .370 with .99 and .375 with .97; at 1,250 steps and larger crops, .403 with .9 and .402 with .8. Lower than .9 it
    never is: at 215 steps on photographs (ResNet-18), .71 made kNN fall from epoch to epoch, .373 to .340.
    """
    return max(0.9, round(1 - (27 / max(steps, 27)) ** 0.6, 4))


def _given(value: T | None, computed: T) -> T:
    return computed if value is None else value


def _check(settings: Settings) -> None:
    for name, least, most in (
        ("image_size", 16, 4096),
        ("epochs", 1, 10**6),
        ("batch_size", 2, 10**6),
        ("accumulate", 1, settings.batch_size // 2),  # batch norm needs two
        ("workers", 0, 1024),
        ("seed", 0, 2**63 - 1),
        ("weight_decay", 0, 1),
        ("warmup_epochs", 0, settings.epochs),
        ("tau_base", 0, 1),
        ("projector_hidden", 1, 10**6),
        ("projection_size", 1, 10**6),
    ):
        value = getattr(settings, name)
        if not least <= value <= most:
            limit = f"at least {least}" if value < least else f"at most {most}"
            raise UsageError(f"--{name.replace('_', '-')} {value}: {limit}")
    if not 0 < settings.learning_rate < math.inf:
        raise UsageError(f"--learning-rate {settings.learning_rate}: a number above 0")
    if settings.batch_size % settings.accumulate:
        raise UsageError(f"--accumulate {settings.accumulate}: does not divide a batch of {settings.batch_size} evenly")
    if settings.fit not in FITS:
        raise UsageError(f"no fit {settings.fit!r}; there are {', '.join(FITS)}")
