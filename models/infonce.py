"""InfoNCE with a momentum encoder, in the form of MoCo v3 (Chen, Xie, He 2021, arXiv 2104.02057).

Its networks are BYOL's. What differs is the loss: a prediction has to be nearer to what the target makes of the same
image's other view than to what it makes of the other images of the batch, the negatives.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Self

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from ..runtime.errors import UsageError
from .byol import BYOL, BYOLConfig, projection_std
from .objective import Diagnostic, Heads, Outcome, Views


@dataclass(frozen=True)
class InfoNCEConfig(BYOLConfig):
    """BYOL's settings, and one more.

    `temperature`: cosines are divided by it; the smaller, the more the nearest negatives count. MoCo v3 has 0.2 for
    batches of 4,096; on 5,000 CIFAR-10 images, batches of 64, eight epochs of conv4, kNN was 0.408 with 0.1, 0.398 with
    0.2 and 0.394 with 0.5 (one seed).
    """

    name: ClassVar[str] = "infonce"
    least_batch: ClassVar[int] = 16  # an image is to be told from the others of its batch
    # ResNet-18, 5,000 CIFAR-10 images, five epochs: kNN 0.286 at the recipe's rate, 0.333 at four times that; after
    # three epochs 0.272, 0.322, and 0.324 at eight times (one seed).
    rate: ClassVar[float] = 4.0
    loss_title: ClassVar[str] = "loss (2·ln N at chance)"
    diagnostics: ClassVar[Mapping[str, Diagnostic]] = {
        **BYOLConfig.diagnostics,
        "found": Diagnostic("views found in the batch"),
    }

    temperature: float = 0.1

    def complete(self, heads: Heads, steps: int) -> Self:
        """Every setting set. Raises UsageError for one out of range."""
        if not 0.01 <= self.temperature <= 10:
            raise UsageError("{temperature}: has to be from 0.01 to 10", temperature=self.temperature)
        return super().complete(heads, steps)

    def build(
        self, backbone: nn.Module, embedding_size: int, image_size: int, targets: Tensor | None = None
    ) -> InfoNCE:
        return InfoNCE(backbone, embedding_size, self)


class InfoNCE(BYOL):
    """BYOL's networks with a contrastive loss.

    MoCo v3 multiplies it by 2T. AdamW's steps do not depend on that; SGD, at its rate here, learns faster without: of
    800 CIFAR-10 images' views, conv4 found 0.58 after 60 steps, and with the factor 0.46 (one seed).
    """

    def __init__(self, backbone: nn.Module, embedding_size: int, config: InfoNCEConfig) -> None:
        super().__init__(backbone, embedding_size, config)
        self.temperature = config.temperature

    def compare(self, views: Views, embeddings: Sequence[Tensor]) -> Outcome:
        """The sum of both directions' losses, and the share of views whose other view is the nearest of the batch."""
        projections, predictions, targets = self.predict(views, embeddings)
        first, first_found = contrastive_loss(predictions[0], targets[1], self.temperature)
        second, second_found = contrastive_loss(predictions[1], targets[0], self.temperature)
        spread = projection_std(projections[0].detach())
        return Outcome(first + second, {"projection_std": spread, "found": (first_found + second_found) / 2})


def contrastive_loss(predictions: Tensor, targets: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """Mean over the batch of −log(exp(cos(qᵢ, zᵢ)/T) / Σⱼ exp(cos(qᵢ, zⱼ)/T)), van den Oord et al. 2018, eq. 4.

    And the share of the predictions that are nearest to their own target. Inputs `[N, D]`, row i of both being of one
    image. Where several processes share a batch, the sum goes over the targets of all of them.
    """
    exact = torch.promote_types(predictions.dtype, torch.float32)  # not in bfloat16
    with torch.autocast(predictions.device.type, enabled=False):
        q, z = F.normalize(predictions.to(exact), dim=1), F.normalize(targets.to(exact), dim=1)
        everyone, before = _gather(z)
        logits = q @ everyone.T / temperature
        own = torch.arange(len(q), device=q.device) + before
        return F.cross_entropy(logits, own), (logits.detach().argmax(1) == own).to(exact).mean()


def _gather(targets: Tensor) -> tuple[Tensor, int]:
    """The targets of all processes, whose shares are equal, and how many come before this one's."""
    if not dist.is_initialized():
        return targets, 0
    shares = [torch.empty_like(targets) for _ in range(dist.get_world_size())]
    dist.all_gather(shares, targets.contiguous())
    return torch.cat(shares), dist.get_rank() * len(targets)
