"""Recipes: a few dials in, every setting out."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from ..runtime.cpus import available_cpus
from ..runtime.errors import ImageError, UsageError
from .views import RandomAffine, Recolour, View

SMALL_IMAGES = 64
SMALLEST_BATCH = 16
# With fewer optimiser steps an epoch than this, a smaller batch learns more than a larger one.
STEPS_AN_EPOCH = 20


@dataclass(frozen=True)
class Recipe:
    """What a regime of images asks for. `learning_rate` is for a batch of 256 and grows with it."""

    views: tuple[View, View]
    optimiser: str
    learning_rate: float
    weight_decay: float
    tau_base: float
    projector_hidden: int
    projection_size: int = 256


_GLYPH_VIEW = View(
    RandomAffine(rotation=15, scale=(0.8, 1.2), shear=10, shift=0.1),
    flip=0,
    recolour=Recolour(0.4, 0.4, 0, 0),
    grayscale=0,
    blur=0.5,
)

RECIPES = {
    # The asymmetric views of the paper.
    "photographs": Recipe((View(blur=1.0), View(blur=0.1, solarize=0.2)), "adamw", 1e-3, 1e-4, 0.99, 4096),
    # 64 px and under: the same without blur, which would leave nothing to see.
    "small": Recipe((View(), View(solarize=0.2)), "adamw", 1e-3, 1e-4, 0.99, 4096),
    # Characters and drawings: a flip or a part is another thing, so both views show the whole, a little changed.
    "glyphs": Recipe((_GLYPH_VIEW, _GLYPH_VIEW), "adamw", 2e-3, 1e-4, 0.996, 1024),
}


@dataclass(frozen=True)
class Dials:
    """What a person chooses; None is "computed"."""

    backbone: str = "resnet18"
    image_size: int = 128
    epochs: int = 100
    batch_size: int | None = None
    recipe: str | None = None
    stem: str = "auto"
    learning_rate: float | None = None
    seed: int = 0
    workers: int | None = None


@dataclass(frozen=True)
class Settings:
    """Every setting of a run, resolved: what `config.json` holds. Sizes in pixels; `learning_rate` is the peak."""

    recipe: str
    backbone: str
    stem: str
    image_size: int
    epochs: int
    batch_size: int
    optimiser: str
    learning_rate: float
    weight_decay: float
    warmup_epochs: float
    tau_base: float
    projector_hidden: int
    projection_size: int
    views: tuple[View, View]
    seed: int
    workers: int

    def to_json(self) -> dict[str, Any]:
        value = asdict(self)
        for view, fields in zip(self.views, value["views"], strict=True):
            fields["geometry"]["kind"] = type(view.geometry).__name__
        return value


def resolve(dials: Dials, images: int) -> Settings:
    """All settings for a set of `images`. Raises UsageError for a dial out of range, ImageError for too few images."""
    _check(dials)
    name = dials.recipe or ("small" if dials.image_size <= SMALL_IMAGES else "photographs")
    if name not in RECIPES:
        raise UsageError(f"no recipe {name!r}; there are {', '.join(RECIPES)}")
    recipe = RECIPES[name]
    batch_size = dials.batch_size or compute_batch_size(images)
    if images < batch_size:
        raise ImageError(
            f"{images} images are fewer than a batch of {batch_size}: "
            + (f"take --batch-size {images} or smaller" if dials.batch_size and images > 1 else "training needs more")
        )
    return Settings(
        recipe=name,
        backbone=dials.backbone,
        stem=dials.stem,
        image_size=dials.image_size,
        epochs=dials.epochs,
        batch_size=batch_size,
        optimiser=recipe.optimiser,
        # AdamW's step grows with the square root of the batch (arXiv 2205.10287).
        learning_rate=dials.learning_rate or recipe.learning_rate * math.sqrt(batch_size / 256),
        weight_decay=recipe.weight_decay,
        # Ten epochs, as in the recipe of record, or a tenth of a short run.
        warmup_epochs=min(10, dials.epochs / 10),
        tau_base=recipe.tau_base,
        projector_hidden=recipe.projector_hidden,
        projection_size=recipe.projection_size,
        views=recipe.views,
        seed=dials.seed,
        workers=available_cpus() if dials.workers is None else dials.workers,
    )


def compute_batch_size(images: int) -> int:
    """The largest power of two, from 16 to 256, that still gives 20 optimiser steps an epoch."""
    fitting = [size for size in (16, 32, 64, 128, 256) if images // size >= STEPS_AN_EPOCH]
    return max(fitting, default=SMALLEST_BATCH)


def _check(dials: Dials) -> None:
    for name, value, least in (
        ("--image-size", dials.image_size, 16),
        ("--epochs", dials.epochs, 1),
        ("--batch-size", dials.batch_size, 2),  # batch norm needs two
        ("--workers", dials.workers, 0),
        ("--seed", dials.seed, 0),
    ):
        if value is not None and value < least:
            raise UsageError(f"{name} {value}: at least {least}")
    if dials.seed >= 2**63:
        raise UsageError(f"--seed {dials.seed}: below 2**63")
    if dials.learning_rate is not None and not 0 < dials.learning_rate < math.inf:
        raise UsageError(f"--learning-rate {dials.learning_rate}: a number above 0")
