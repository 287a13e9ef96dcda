"""Distillation without labels: a student learns to predict a frozen teacher's embedding of the whole image.

It is BYOL with a target that stands still: plain regression on the unit sphere, through a head that is thrown away
(SimReg, Navaneet et al. 2021, arXiv 2201.05131), or kept, so that the student's vectors lie in the teacher's space.
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

# Width of the head: two numbers for each of a mobile network's 1,280, if not more.
HIDDEN = 2048
# Below this deviation, all images of a batch are one to the teacher.
ALIKE = 1e-4


@dataclass(frozen=True)
class DistillationConfig:
    """Distillation's settings; None is "computed".

    `head_hidden`: width of the head. `keep_space`: the head is shipped with the backbone, and embeddings are in the
    teacher's space.
    """

    name: ClassVar[str] = "distillation"
    needs_teacher: ClassVar[bool] = True
    epochs: ClassVar[int] = 40
    margin: ClassVar[float] = 0.0
    recipe: ClassVar[str | None] = "distillation"
    loss_title: ClassVar[str] = "loss (0 to 4)"
    # 1 where the predictions are as far apart as the teacher's embeddings.
    diagnostics: ClassVar[Mapping[str, Diagnostic]] = {
        "prediction_spread": Diagnostic("spread of the predictions", least=0.05),
    }

    head_hidden: int | None = None
    keep_space: bool = False

    def complete(self, heads: Heads, steps: int) -> DistillationConfig:
        """Every setting set. Raises UsageError for one out of range."""
        if self.head_hidden is not None and not 1 <= self.head_hidden <= 10**6:
            raise UsageError("{head_hidden}: has to be from 1 to 1000000", head_hidden=self.head_hidden)
        return replace(self, head_hidden=self.head_hidden or HIDDEN)

    def build(self, backbone: nn.Module, embedding_size: int, target_size: int | None) -> Distillation:
        assert self.head_hidden is not None
        if target_size is None:
            raise UsageError("distillation needs a {teacher}", teacher="SOURCE")
        return Distillation(backbone, embedding_size, self.head_hidden, target_size, self.keep_space)


class Distillation(nn.Module):
    """The student's backbone, and a head that makes the teacher's embedding `[N, target_size]` of the student's."""

    def __init__(
        self, backbone: nn.Module, embedding_size: int, hidden: int, target_size: int, keep_space: bool
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.projector = teacher_head(embedding_size, hidden, target_size)
        self.keep_space = keep_space

    @property
    def head(self) -> nn.Module | None:
        return self.projector if self.keep_space else None

    def forward(self, views: Views) -> Outcome:
        """The mean over both views of 2 − 2·cos to the teacher's embedding, 0 to 4.

        Both views go through the network as one batch: no target has batch statistics here that a view could leak to.
        """
        assert views.targets is not None
        both = torch.cat([views.first, views.second])
        return regress(self.projector(self.backbone(both)), torch.cat([views.targets, views.targets]))

    def after_step(self, progress: float) -> dict[str, float]:
        """Nothing moves but the student."""
        return {}


def teacher_head(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    """Linear → BatchNorm → ReLU → Linear: as BYOL's, with a bias, since a teacher's embeddings are not centered."""
    return nn.Sequential(
        nn.Linear(inputs, hidden), nn.BatchNorm1d(hidden), nn.ReLU(inplace=True), nn.Linear(hidden, outputs)
    )


def regress(predictions: Tensor, targets: Tensor) -> Outcome:
    """Mean of 2 − 2·cos to the targets, and how far apart the predictions are, of the targets; inputs `[N, K]`."""
    own, theirs = projection_std(predictions.detach()), projection_std(targets)
    alike = theirs < ALIKE  # then nothing can be told by it
    spread = torch.where(alike, torch.ones_like(own), own / theirs.clamp(min=ALIKE))
    return Outcome(regression_loss(predictions, targets), {"prediction_spread": spread})
