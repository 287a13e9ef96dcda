"""A small decoder: from vectors back to images, by upsampling convolutions."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# The side of the first map, and the largest side that is computed; beyond it, images are interpolated.
FIRST, MOST = 4, 128
# Channels of the first map; they halve as the side doubles, down to the least.
WIDTH, LEAST_WIDTH = 128, 16


class Decoder(nn.Module):
    """Vectors `[N, D]` → images `[N, 3, side, side]`, in whatever units they are compared in.

    Linear → BatchNorm → ReLU to a map of 4×4, then, until the side is reached, twice the side by nearest neighbor →
    3×3 convolution → BatchNorm → ReLU; upsampling before a convolution leaves no checkerboard (Odena et al. 2016,
    distill.pub/2016/deconv-checkerboard).
    """

    def __init__(self, embedding_size: int, side: int) -> None:
        super().__init__()
        self.side = side
        self.first = nn.Sequential(
            nn.Linear(embedding_size, WIDTH * FIRST**2, bias=False),
            nn.Unflatten(1, (WIDTH, FIRST, FIRST)),
            nn.BatchNorm2d(WIDTH),
            nn.ReLU(inplace=True),
        )
        blocks: list[nn.Module] = []
        width, now = WIDTH, FIRST
        while now < min(side, MOST):
            narrower = max(LEAST_WIDTH, width // 2)
            blocks += [
                nn.Upsample(scale_factor=2),
                nn.Conv2d(width, narrower, 3, padding=1, bias=False),
                nn.BatchNorm2d(narrower),
                nn.ReLU(inplace=True),
            ]
            width, now = narrower, 2 * now
        self.blocks = nn.Sequential(*blocks, nn.Conv2d(width, 3, 3, padding=1))

    def forward(self, vectors: Tensor) -> Tensor:
        images = self.blocks(self.first(vectors))
        if images.shape[-1] == self.side:
            return images
        images = images.to(torch.promote_types(images.dtype, torch.float32))  # not in bfloat16
        return F.interpolate(images, size=(self.side, self.side), mode="bilinear", antialias=True)
