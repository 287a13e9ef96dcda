"""What a run learns by: the part of a training that differs between BYOL and its kind.

An objective takes two views of the same images, and what a teacher makes of them if there is one, and gives a loss. It
does what it does after each step, and says which figures to report. The loop, the metrics, the verdict and the
checkpoint know what stands here, and no objective by name. `objectives.py` lists them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, TypeVar

from torch import Tensor, nn

# What the tensors of an objective's parts begin with, so that export finds them in a checkpoint: the moving average of
# the backbone, and the projector, as far as there are such.
TARGET, PROJECTOR = "target_backbone.", "projector."

C = TypeVar("C", bound="ObjectiveConfig")


@dataclass(frozen=True)
class Heads:
    """What a run suggests for heads: widths of the hidden layer and of what comes out, and whether one is shipped.

    `shipped`: if the objective has a head whose outputs make better embeddings, for a backbone from random weights.
    """

    hidden: int = 4096
    size: int = 256
    shipped: bool = False


@dataclass(frozen=True)
class Views:
    """Two views `[N, 3, H, W]`, normalized, of the same N ≥ 2 images.

    `targets`: a teacher's embeddings of these images, `[N, K]`, of unit length; None without a teacher.
    """

    first: Tensor
    second: Tensor
    targets: Tensor | None = None


@dataclass(frozen=True)
class Outcome:
    """Of one batch: the loss to go down, a scalar, and figures to report, scalars by name, all on the device."""

    loss: Tensor
    diagnostics: Mapping[str, Tensor]


@dataclass(frozen=True)
class Diagnostic:
    """A figure that an objective reports. `least`: below it, all images have become alike to the network."""

    title: str
    least: float | None = None


class Objective(Protocol):
    """Networks and loss: a torch module. `backbone` is the network that is shipped."""

    backbone: nn.Module

    @property
    def head(self) -> nn.Module | None:
        """What follows the backbone in the network that is shipped; None if embeddings are the backbone's.

        In inference, it is affine: export has it as one linear layer.
        """
        ...

    def __call__(self, views: Views) -> Outcome:
        """The loss of two views of the same images."""
        ...

    def after_step(self, progress: float) -> Mapping[str, float]:
        """Called after each optimizer step, `progress` being the share of the run's steps before it, 0 to below 1.

        Returns figures to report, by name.
        """
        ...

    def parameters(self, recurse: bool = True) -> Iterator[nn.Parameter]: ...
    def named_parameters(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, nn.Parameter]]: ...
    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any: ...
    def train(self, mode: bool = True) -> Any: ...
    def to(self, *args: Any, **kwargs: Any) -> Any: ...


class ObjectiveConfig(Protocol):
    """An objective's settings: a frozen dataclass, None being "computed"."""

    name: ClassVar[str]
    needs_teacher: ClassVar[bool]
    least_batch: ClassVar[int]  # images that have to go through at once
    rate: ClassVar[float]  # its learning rate, as a share of the recipe's
    epochs: ClassVar[int]  # that a run from random weights takes, if nobody says
    margin: ClassVar[float]  # what view consistency has to gain on the start before it counts: see train/selection.py
    recipe: ClassVar[str | None]  # train/recipe.py's that suits it, None if that depends on the images
    loss_title: ClassVar[str]
    diagnostics: ClassVar[Mapping[str, Diagnostic]]

    def complete(self: C, heads: Heads, steps: int) -> C:
        """The same with every setting set, for a run of so many optimizer steps. Raises UsageError."""
        ...

    def build(self, backbone: nn.Module, embedding_size: int, image_size: int, targets: Tensor | None) -> Objective:
        """The networks around a backbone, of a complete config. Weights are drawn from torch's global generator.

        `embedding_size`: of what the backbone makes of images of `image_size` pixels square.
        `targets`: a teacher's embeddings of all images, `[N, K]`, NaN where one could not be read; None without one.
        """
        ...
