"""An autoencoder: a decoder has to make the view again from its embedding alone.

Nothing is asked of two views; each is compared with its own reconstruction, by their pixels.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from .decoder import Decoder
from .objective import Diagnostic, Heads, Outcome, Views

# Below this variance of normalized pixels, all images of a batch are one.
ALIKE = 1e-6


@dataclass(frozen=True)
class AutoencoderConfig:
    """An autoencoder has no settings of its own: the decoder follows from the size of embedding and image."""

    name: ClassVar[str] = "autoencoder"
    needs_teacher: ClassVar[bool] = False
    least_batch: ClassVar[int] = 2
    rate: ClassVar[float] = 1.0
    epochs: ClassVar[int] = 100
    margin: ClassVar[float] = 0.0
    recipe: ClassVar[str | None] = None
    loss_title: ClassVar[str] = "squared error of normalized pixels"
    # 0 where each image is decoded to the mean of its batch, 1 where it is decoded to itself. No `least`: a decoder
    # starts below 0, so a collapse is seen by rank and deviation of the embeddings.
    diagnostics: ClassVar[Mapping[str, Diagnostic]] = {
        "explained": Diagnostic("share of the pixels' variance decoded"),
    }

    def complete(self, heads: Heads, steps: int) -> AutoencoderConfig:
        return self

    def build(
        self, backbone: nn.Module, embedding_size: int, image_size: int, targets: Tensor | None = None
    ) -> Autoencoder:
        return Autoencoder(backbone, embedding_size, image_size)


class Autoencoder(nn.Module):
    """The backbone as encoder, and a decoder that is left behind in training."""

    head: nn.Module | None = None

    def __init__(self, backbone: nn.Module, embedding_size: int, image_size: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.decoder = Decoder(embedding_size, image_size)

    def forward(self, views: Views) -> Outcome:
        """Mean squared error of the decoded views, in normalized pixels, and the share of their variance in them.

        Both views go through the networks as one batch: neither is to be told from the other.
        """
        images = torch.cat([views.first, views.second])
        decoded = self.decoder(self.backbone(images))
        loss = (decoded.to(images.dtype) - images).square().mean()  # not in bfloat16
        return Outcome(loss, {"explained": explained(loss.detach(), images)})

    def after_step(self, progress: float) -> dict[str, float]:
        """Nothing moves but what the optimizer moves."""
        return {}


def explained(error: Tensor, images: Tensor) -> Tensor:
    """1 − error / variance of images `[N, 3, H, W]` about their mean image: 0 for that image, 1 for no error.

    Of images that are all alike, nothing can be told; then it is 1.
    """
    variance = (images - images.mean(0)).square().mean()
    return torch.where(variance < ALIKE, torch.ones_like(variance), 1 - error / variance.clamp(min=ALIKE))
