"""Recipes: what a regime of images asks for. A new one is a function and its place in RECIPES."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from ..models.objective import Heads
from .optimizer import RATES, Rates
from .views import ColorJitter, RandomAffine, RandomCrop, View


@dataclass(frozen=True)
class Recipe:
    """What a regime of images asks for; the rest follows from the config.

    `rates`: of its optimizer, if these are others than usual.
    """

    views: tuple[View, View]
    heads: Heads = field(default_factory=Heads)
    optimizer: str = "adamw"
    rates: Rates | None = None

    def rates_of(self, optimizer: str) -> Rates:
        """The rates that an optimizer, one of RATES, has with this recipe."""
        return self.rates if self.rates and optimizer == self.optimizer else RATES[optimizer]


def photographs() -> Recipe:
    """Photographs above 64 px: the asymmetric views of the paper (appendix B, table 6).

    Not measured above 64 px yet. At 64 px they are too much: three minutes of conv4 on phone photographs of clothes,
    5-NN accuracy 0.360, with `small` 0.419 (means of two seeds, benchmarks/from_scratch.py).
    """
    return Recipe((View(blur=1.0), View(blur=0.1, solarize=0.2)))


def small() -> Recipe:
    """Photographs up to 64 px: the paper's views without blur, in larger crops; little would be left to see.

    Ten minutes on one core of a server CPU, 5,000 CIFAR-10 images at 32 px: kNN accuracy on the 10,000 test images
    0.411 with conv4 (37 epochs), 0.294 with ResNet-18 and its standard stem (9 epochs); means of 3 seeds, all within
    0.01 (benchmarks/train_accuracy.py). Crops from 0.08, as in the paper, do no better: conv4 0.378, from 0.2 0.381
    (10,000 images, one seed); on phone photographs of clothes 0.266, from 0.2 0.267 (ResNet-18, 64 px, 3 epochs, 3
    seeds).
    """
    crop = RandomCrop((0.2, 1.0))
    return Recipe((View(crop), View(crop, solarize=0.2)), heads=Heads(hidden=1024))


def adaptation() -> Recipe:
    """To learn from a teacher that sees the whole image: the same weak view twice, which leaves its subject there.

    SimReg (arXiv 2201.05131) finds weak views best; docs/training.md has our own figures.
    """
    view = View(RandomCrop((0.5, 1.0)), jitter=0, grayscale=0)
    return Recipe((view, view))


def distillation() -> Recipe:
    """The same for a network with random weights, which is far from what it has to learn: six times the usual rate.

    docs/training.md has figures.
    """
    return replace(adaptation(), rates=Rates(6e-3, 0.05, 0.5))


def textures() -> Recipe:
    """Aerial, medical, textures: where color and orientation are the signal, no view changes them.

    Three minutes of conv4 at 64 px on 1,329 photographs of steel, which are gray: 5-NN accuracy 0.904, with `small`
    0.914, untrained 0.717 (means of two seeds, benchmarks/from_scratch.py). Satellite images were not measured.
    """
    view = View(RandomCrop((0.2, 1.0)), flip=0, color_jitter=ColorJitter(0.2, 0.2, 0, 0), grayscale=0)
    return Recipe((view, view))


def glyphs() -> Recipe:
    """Characters and drawings: a flip or a part is another thing, so both views show the whole, a little changed.

    1,348 handwritten digits at 32 px, conv4, 30 epochs: 3-shot accuracy 0.877, untrained 0.728, raw pixels 0.807, in
    the two minutes that the whole of `byol-edge demo` takes on two cores. Three minutes on 3,750 of MNIST: 5-NN 0.901,
    untrained 0.676, raw pixels 0.933 (means of two seeds, benchmarks/from_scratch.py).
    """
    view = View(
        RandomAffine(rotation=15, scale=(0.8, 1.2), shear=10, shift=0.1),
        flip=0,
        color_jitter=ColorJitter(0.4, 0.4, 0, 0),
        grayscale=0,
        blur=0.5,
    )
    return Recipe((view, view), heads=Heads(hidden=1024))


RECIPES: dict[str, Callable[[], Recipe]] = {
    each.__name__: each for each in (photographs, small, adaptation, distillation, textures, glyphs)
}
