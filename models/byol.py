"""BYOL, Bootstrap Your Own Latent (Grill et al. 2020, arXiv 2006.07733).

An online network learns to predict what a slowly moving copy of itself, the target, makes of another view of the same
image. Sizes and details are those of the authors' code (deepmind-research, byol/).
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..runtime.errors import UsageError
from .objective import Diagnostic, Heads, Outcome, Views


@dataclass(frozen=True)
class BYOLConfig:
    """BYOL's settings; None is "computed".

    `tau_base`: how slowly the target moves at first, 0 to 1. `projector_hidden`: width of projector and predictor.
    `projection_size`: length of a projection.
    """

    name: ClassVar[str] = "byol"
    needs_teacher: ClassVar[bool] = False
    least_batch: ClassVar[int] = 2  # as batch norm needs
    rate: ClassVar[float] = 1.0
    epochs: ClassVar[int] = 100
    # Invariance to views is what BYOL learns, so that a network that forgets what it knew may gain a little of it.
    margin: ClassVar[float] = 0.01
    recipe: ClassVar[str | None] = None
    loss_title: ClassVar[str] = "loss (0 to 8)"
    # The projections' deviation is near .8 in a healthy run, and 1 when they fill the sphere.
    diagnostics: ClassVar[Mapping[str, Diagnostic]] = {
        "projection_std": Diagnostic("deviation of the projections", least=0.2),
        "tau": Diagnostic("tau"),
    }

    tau_base: float | None = None
    projector_hidden: int | None = None
    projection_size: int | None = None

    def complete(self, heads: Heads, steps: int) -> Self:
        """Every setting set. Raises UsageError for one out of range."""
        complete = replace(
            self,
            tau_base=compute_tau_base(steps) if self.tau_base is None else self.tau_base,
            projector_hidden=heads.hidden if self.projector_hidden is None else self.projector_hidden,
            projection_size=heads.size if self.projection_size is None else self.projection_size,
        )
        for name, least, most in (("tau_base", 0, 1), ("projector_hidden", 1, 10**6), ("projection_size", 1, 10**6)):
            value = getattr(complete, name)
            if not least <= value <= most:
                limit = f"at least {least}" if value < least else f"at most {most}"
                raise UsageError(f"{{{name}}}: {limit}", **{name: value})
        return complete

    def build(self, backbone: nn.Module, embedding_size: int, image_size: int, targets: Tensor | None = None) -> BYOL:
        return BYOL(backbone, embedding_size, self)


class BYOL(nn.Module):
    """Online backbone, projector and predictor; target backbone and projector, a copy that never gets a gradient."""

    head: nn.Module | None = None

    def __init__(self, backbone: nn.Module, embedding_size: int, config: BYOLConfig) -> None:
        """`config`: complete."""
        super().__init__()
        hidden, size = config.projector_hidden, config.projection_size
        assert hidden is not None and size is not None and config.tau_base is not None
        self.tau_base = config.tau_base
        self.backbone = backbone
        self.projector = mlp_head(embedding_size, hidden, size)
        self.predictor = mlp_head(size, hidden, size)
        self.target_backbone = copy.deepcopy(self.backbone).requires_grad_(False)
        self.target_projector = copy.deepcopy(self.projector).requires_grad_(False)

    def forward(self, views: Views) -> Outcome:
        """The loss of two views of the same images.

        The loss is the sum of both directions (0 to 8); averaging them halves the step that it takes. Each view goes
        through each network as a batch of its own, so that neither sees the other's batch statistics.
        """
        return self.compare(views, [self.backbone(view) for view in (views.first, views.second)])

    def compare(self, views: Views, embeddings: Sequence[Tensor]) -> Outcome:
        """The same of views whose embeddings by the online backbone `[N, D]` are known."""
        projections, predictions, targets = self.predict(views, embeddings)
        loss = regression_loss(predictions[0], targets[1]) + regression_loss(predictions[1], targets[0])
        return Outcome(loss, {"projection_std": projection_std(projections[0].detach())})

    def predict(self, views: Views, embeddings: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
        """Projections, predictions and the target's projections, `[N, size]` of each view."""
        projections = [self.projector(each) for each in embeddings]
        predictions = [self.predictor(projection) for projection in projections]
        with torch.no_grad():
            targets = [self.target_projector(self.target_backbone(view)) for view in (views.first, views.second)]
        return projections, predictions, targets

    def after_step(self, progress: float) -> dict[str, float]:
        """Moves the target towards the online network, the more slowly the further the run is."""
        now = tau(progress, self.tau_base)
        update_target(self.target_backbone, self.backbone, now)
        update_target(self.target_projector, self.projector, now)
        return {"tau": now}


def mlp_head(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    """Projector or predictor: Linear → BatchNorm → ReLU → Linear without bias, the output not normalized."""
    return nn.Sequential(
        nn.Linear(inputs, hidden),
        nn.BatchNorm1d(hidden),
        nn.ReLU(inplace=True),
        nn.Linear(hidden, outputs, bias=False),
    )


def regression_loss(prediction: Tensor, target: Tensor) -> Tensor:
    """Mean over the batch of ‖q̄ − z̄‖² = 2 − 2·cos(q, z), paper eq. 2: a scalar from 0 to 4. Inputs `[N, D]`."""
    exact = torch.promote_types(prediction.dtype, torch.float32)  # not in bfloat16
    return (2 - 2 * F.cosine_similarity(prediction.to(exact), target.to(exact), dim=1)).mean()


@torch.no_grad()
def update_target(target: nn.Module, online: nn.Module, tau: float) -> None:
    """ξ ← τ·ξ + (1 − τ)·θ for every parameter, paper eq. 1 (not buffers: the target keeps its own batch statistics)."""
    targets: list[Tensor] = list(target.parameters())
    onlines: list[Tensor] = list(online.parameters())
    torch._foreach_lerp_(targets, onlines, 1 - tau)


def tau(progress: float, base: float) -> float:
    """τ = 1 − (1 − base)·(1 + cos(πk/K))/2 (paper, appendix B): `base` at progress 0, 1 at progress k/K = 1."""
    return 1 - (1 - base) * (1 + math.cos(math.pi * progress)) / 2


def compute_tau_base(steps: int) -> float:
    """1 - (27 / steps)^0.6: a target that lags behind by a share of the run that shrinks as the run grows.

    For the 40, 100, 300 and 1000 epochs of the authors it gives 0.975, 0.985, 0.993 and 0.996, where they have 0.97,
    0.99, 0.99 and 0.996; carried on to short runs, it falls further. At 630 steps on CIFAR-10 (conv4), kNN was 0.362
    with 0.996, 0.370 with 0.99 and 0.375 with 0.97; at 1,250 steps and larger crops, 0.403 with 0.9 and 0.402 with 0.8.
    It is never below 0.9: at 215 steps on photographs (ResNet-18), 0.71 made kNN fall from epoch to epoch, 0.373 to
    0.340.
    """
    return max(0.9, round(1 - (27 / max(steps, 27)) ** 0.6, 4))


def projection_std(projections: Tensor) -> Tensor:
    """Mean over dimensions of the standard deviation over the batch of unit-length projections `[N, D]`, times √D.

    1 when they fill the sphere, 0 when they are all equal.
    """
    return F.normalize(projections.float(), dim=1).std(0).mean() * projections.shape[1] ** 0.5
