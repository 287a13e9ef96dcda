"""BYOL and distillation at once: two views of an image agree, and agree with what a frozen teacher makes of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, Self

import torch
from torch import Tensor, nn

from ..runtime.errors import UsageError
from .byol import BYOL, BYOLConfig
from .distillation import DistillationConfig, TeacherSpace, linear_head
from .objective import Diagnostic, Heads, Outcome, Views


@dataclass(frozen=True)
class GuidedBYOLConfig(BYOLConfig):
    """Settings of both; None is "computed". `byol_weight`: of BYOL's loss (0 to 8), beside distillation's (0 to 4)."""

    name: ClassVar[str] = "guided-byol"
    needs_teacher: ClassVar[bool] = True
    epochs: ClassVar[int] = DistillationConfig.epochs
    recipe: ClassVar[str | None] = "adaptation"
    loss_title: ClassVar[str] = "loss"
    diagnostics: ClassVar[Mapping[str, Diagnostic]] = {**BYOLConfig.diagnostics, **DistillationConfig.diagnostics}

    components: int | None = None
    byol_weight: float = 0.5

    def complete(self, heads: Heads, steps: int) -> Self:
        """Every setting set. Raises UsageError for one out of range."""
        if not 0 < self.byol_weight <= 100:
            raise UsageError("{byol_weight}: has to be above 0, and at most 100", byol_weight=self.byol_weight)
        components = DistillationConfig(self.components).complete(heads, steps).components
        return replace(super().complete(heads, steps), components=components)

    def build(
        self, backbone: nn.Module, embedding_size: int, image_size: int, targets: Tensor | None = None
    ) -> GuidedBYOL:
        if targets is None:
            raise UsageError("guided BYOL needs a {teacher}", teacher="SOURCE")
        return GuidedBYOL(backbone, embedding_size, targets, self)


class GuidedBYOL(BYOL):
    """BYOL's networks, and a predictor of what the teacher makes of the image."""

    def __init__(self, backbone: nn.Module, embedding_size: int, targets: Tensor, config: GuidedBYOLConfig) -> None:
        super().__init__(backbone, embedding_size, config)
        assert config.components is not None
        self.space = TeacherSpace(targets, config.components)
        self.teacher_predictor = linear_head(embedding_size, self.space.size)
        self.weight = config.byol_weight

    def forward(self, views: Views) -> Outcome:
        """BYOL's loss by its weight, and distillation's."""
        assert views.targets is not None
        embeddings = [self.backbone(view) for view in (views.first, views.second)]
        byol = self.compare(views, embeddings)
        predictions = self.teacher_predictor(torch.cat(embeddings))
        taught = self.space.regress(predictions, torch.cat([views.targets, views.targets]))
        return Outcome(self.weight * byol.loss + taught.loss, {**byol.diagnostics, **taught.diagnostics})
