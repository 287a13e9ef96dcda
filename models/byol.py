"""BYOL, Bootstrap Your Own Latent (Grill et al. 2020, arXiv 2006.07733).

An online network learns to predict what a slowly moving copy of itself, the target, makes of another view of the same
image. Sizes and details are those of the authors' code (deepmind-research, byol/).
"""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn


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
    return (2 - 2 * F.cosine_similarity(prediction, target, dim=1)).mean()


@torch.no_grad()
def update_target(target: nn.Module, online: nn.Module, tau: float) -> None:
    """ξ ← τ·ξ + (1 − τ)·θ for every parameter, paper eq. 1 (not buffers: the target keeps its own batch statistics)."""
    targets: list[Tensor] = list(target.parameters())
    onlines: list[Tensor] = list(online.parameters())
    torch._foreach_mul_(targets, tau)
    torch._foreach_add_(targets, onlines, alpha=1 - tau)


class BYOL(nn.Module):
    """Online backbone, projector and predictor; target backbone and projector, a copy that never gets a gradient."""

    def __init__(self, backbone: nn.Module, embedding_size: int, hidden: int, projection_size: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.projector = mlp_head(embedding_size, hidden, projection_size)
        self.predictor = mlp_head(projection_size, hidden, projection_size)
        self.target_backbone = copy.deepcopy(self.backbone).requires_grad_(False)
        self.target_projector = copy.deepcopy(self.projector).requires_grad_(False)

    def forward(self, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
        """The loss of two views of the same N images `[N, 3, H, W]`, and the first view's online projections `[N, D]`.

        The loss is the sum of both directions (0 to 8); averaging them halves the step that it takes. Each view goes
        through each network as a batch of its own, so that neither sees the other's batch statistics.
        """
        projections = [self.projector(self.backbone(view)) for view in (first, second)]
        predictions = [self.predictor(projection) for projection in projections]
        with torch.no_grad():
            targets = [self.target_projector(self.target_backbone(view)) for view in (first, second)]
        loss = regression_loss(predictions[0], targets[1]) + regression_loss(predictions[1], targets[0])
        return loss, projections[0].detach()

    def update_target(self, tau: float) -> None:
        """Moves the target towards the online network; called after each optimizer step."""
        update_target(self.target_backbone, self.backbone, tau)
        update_target(self.target_projector, self.projector, tau)
