"""Distillation without labels: a student learns to predict what a frozen teacher makes of the whole image.

It is BYOL's predictor against a target that stands still (SimReg, Navaneet et al. 2021, arXiv 2201.05131), here one
linear layer onto the principal components of the teacher's vectors. A student from random weights ships that layer,
since small networks need it (5-NN on clothes at 96 px: conv4 after 60 epochs of one view 0.723 with it, 0.581 without;
MobileNetV4-small after 20 0.728 and 0.742). A network that starts from trained weights ships without it, so that its
vectors can be compared with those of its start.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor, nn

from ..runtime.errors import UsageError
from .byol import projection_std, regression_loss
from .objective import Diagnostic, Heads, Outcome, Views

# Below this deviation, all images of a batch are one to the teacher.
ALIKE = 1e-4
# Weight of a batch in the moving averages.
MOMENTUM = 0.01
# About this many vectors are enough to find the components. A component with less than this share of the largest
# standard deviation is rounding error.
ENOUGH_VECTORS, LEAST_DEVIATION = 20_000, 1e-3


@dataclass(frozen=True)
class DistillationConfig:
    """Distillation's settings; None is "computed".

    `components`: how many principal components of the teacher's vectors are learned, at most. `keep_head`: embeddings
    are the predicted components, else the backbone's own. `keep_space`: they are vectors in the teacher's space.
    """

    name: ClassVar[str] = "distillation"
    needs_teacher: ClassVar[bool] = True
    least_batch: ClassVar[int] = 2  # as batch norm needs
    rate: ClassVar[float] = 1.0
    epochs: ClassVar[int] = 40
    margin: ClassVar[float] = 0.0
    recipe: ClassVar[str | None] = "distillation"
    loss_title: ClassVar[str] = "loss (0 to 4)"
    # 1 where the predictions are as far apart as the teacher's embeddings.
    diagnostics: ClassVar[Mapping[str, Diagnostic]] = {
        "prediction_spread": Diagnostic("spread of the predictions", least=0.05),
    }

    components: int | None = None
    keep_head: bool | None = None
    keep_space: bool = False

    def complete(self, heads: Heads, steps: int) -> DistillationConfig:
        """Every setting set. Raises UsageError for one out of range."""
        if self.components is not None and not 1 <= self.components <= 10**6:
            raise UsageError("{components}: has to be from 1 to 1000000", components=self.components)
        return replace(
            self,
            components=heads.size if self.components is None else self.components,
            keep_head=heads.shipped if self.keep_head is None else self.keep_head,
        )

    def build(self, backbone: nn.Module, embedding_size: int, image_size: int, targets: Tensor | None) -> Distillation:
        if targets is None:
            raise UsageError("distillation needs a {teacher}", teacher="SOURCE")
        return Distillation(backbone, embedding_size, targets, self)


class Distillation(nn.Module):
    """The student's backbone, and a predictor of the components that the teacher's vector of the same image has."""

    def __init__(self, backbone: nn.Module, embedding_size: int, targets: Tensor, config: DistillationConfig) -> None:
        super().__init__()
        assert config.components is not None
        self.backbone = backbone
        self.space = TeacherSpace(targets, config.components)
        self.predictor = linear_head(embedding_size, self.space.size)
        self.keep_head, self.keep_space = config.keep_head, config.keep_space

    @property
    def head(self) -> nn.Module | None:
        if self.keep_space:
            return nn.Sequential(self.predictor, self.space)
        return self.predictor if self.keep_head else None

    def forward(self, views: Views) -> Outcome:
        """The mean over both views of 2 − 2·cos to what the teacher makes of the image, 0 to 4.

        Both views go through the network as one batch: no target has batch statistics here that a view could leak to.
        """
        assert views.targets is not None
        predictions = self.predictor(self.backbone(torch.cat([views.first, views.second])))
        return self.space.regress(predictions, torch.cat([views.targets, views.targets]))

    def after_step(self, progress: float) -> dict[str, float]:
        """Nothing moves but the student."""
        return {}


class TeacherSpace(nn.Module):
    """The mean and the principal components of a teacher's vectors; `size` of these.

    The loss leaves open how long a prediction is. `products` and `squares`, moving averages over batches, say what it
    is to be multiplied by to be nearest to the teacher's components (least squares).
    """

    mean: Tensor
    directions: Tensor
    products: Tensor
    squares: Tensor

    def __init__(self, vectors: Tensor, components: int) -> None:
        """`vectors`: `[N, K]`, NaN where an image could not be read. `components`: how many, at most."""
        super().__init__()
        mean, directions = find_directions(vectors, components)
        self.register_buffer("mean", mean)
        self.register_buffer("directions", directions)
        self.register_buffer("products", torch.zeros(()))
        self.register_buffer("squares", torch.zeros(()))
        self.size = len(directions)

    def forward(self, components: Tensor) -> Tensor:
        """Vectors in the teacher's space `[N, K]`, of predicted components `[N, size]`."""
        known = self.squares > 0  # not before the first batch
        scale = torch.where(known, self.products / self.squares.clamp(min=1e-12), torch.ones_like(self.squares))
        return scale * components @ self.directions + self.mean

    def regress(self, predictions: Tensor, vectors: Tensor) -> Outcome:
        """Mean of 2 − 2·cos of predictions `[N, size]` to the components of a teacher's vectors `[N, K]`, 0 to 4.

        And how far apart the predictions are, 1 being as far as these components.
        """
        with torch.autocast(predictions.device.type, enabled=False):  # in FP32, whatever the network computed with
            predictions, components = predictions.float(), (vectors - self.mean) @ self.directions.T
            if self.training:
                self._remember(predictions.detach(), components)
            own, theirs = projection_std(predictions.detach()), projection_std(components)
            alike = projection_std(vectors) < ALIKE  # then nothing can be told by it
            spread = torch.where(alike, torch.ones_like(own), own / theirs.clamp(min=ALIKE))
            return Outcome(regression_loss(predictions, components), {"prediction_spread": spread})

    def _remember(self, predictions: Tensor, components: Tensor) -> None:
        self.products.lerp_((predictions * components).mean(), MOMENTUM)
        self.squares.lerp_(predictions.square().mean(), MOMENTUM)


def find_directions(vectors: Tensor, most: int) -> tuple[Tensor, Tensor]:
    """The mean `[K]` of vectors `[N, K]`, and the directions in which they vary most: `[1 to most, K]`, orthonormal."""
    known = vectors[vectors.isfinite().all(1)]
    sample = known[:: max(1, len(known) // ENOUGH_VECTORS)].double()
    mean = sample.mean(0)
    variances, directions = torch.linalg.eigh((sample - mean).T @ (sample - mean))
    deviations = variances.clamp(min=0).sqrt().flip(0)  # the largest first
    size = min(most, max(1, int((deviations > LEAST_DEVIATION * deviations[0]).sum())))
    return mean.float(), directions.T.flip(0)[:size].float().contiguous()


def linear_head(inputs: int, outputs: int) -> nn.Sequential:
    """BatchNorm → Linear; normalized first, since the features of a backbone have any scale."""
    return nn.Sequential(nn.BatchNorm1d(inputs), nn.Linear(inputs, outputs))
