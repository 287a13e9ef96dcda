"""How close an image is to another, pixel by pixel: PSNR and SSIM."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from ..runtime.preprocessing import Pixels

Values = NDArray[np.float64]

# What rounding to bytes costs alone, as a squared error; equal images have this PSNR, 58.9 dB, not an infinite one.
LEAST_ERROR = 1 / 255**2 / 12
# Wang et al. 2004: windows of 11 × 11 with a Gaussian of 1.5 pixels, K1 = 0.01, K2 = 0.03.
WINDOW, SIGMA, C1, C2 = 11, 1.5, 0.01**2, 0.03**2
# Images at a time.
BLOCK = 256


def squared_errors(images: Pixels, others: Pixels) -> Values:
    """The mean squared error of each of N images uint8 `[N, H, W, 3]`, with values of 0 to 1: `[N]`."""
    return np.concatenate(
        [
            np.square(_to_floats(images[at : at + BLOCK]) - _to_floats(others[at : at + BLOCK])).mean((1, 2, 3))
            for at in range(0, len(images), BLOCK)
        ]
    )


def to_decibels(errors: Values) -> Values:
    """PSNR of squared errors of values 0 to 1, in dB: −10 · log₁₀, at most 58.9."""
    return -10 * np.log10(np.maximum(errors, LEAST_ERROR))


def structural_similarity(images: Pixels, others: Pixels) -> Values:
    """SSIM of each of N images uint8 `[N, H, W, 3]`, side ≥ 1: `[N]`, 1 where they are equal.

    Wang et al. 2004, "Image quality assessment: from error visibility to structural similarity", equation 13, on
    values of 0 to 1: the mean over channels and over windows that lie within the image. Images of fewer than 11 pixels
    have one window.
    """
    return np.concatenate(
        [
            _similarity(
                *(torch.from_numpy(_to_floats(each[at : at + BLOCK])).movedim(3, 1) for each in (images, others))
            )
            for at in range(0, len(images), BLOCK)
        ]
    )


def _similarity(x: Tensor, y: Tensor) -> Values:
    mean_x, mean_y = _blur(x), _blur(y)
    variance_x, variance_y = _blur(x * x) - mean_x**2, _blur(y * y) - mean_y**2
    covariance = _blur(x * y) - mean_x * mean_y
    similarity = (2 * mean_x * mean_y + C1) * (2 * covariance + C2)
    similarity /= (mean_x**2 + mean_y**2 + C1) * (variance_x + variance_y + C2)
    return similarity.mean((1, 2, 3)).numpy()


def _blur(images: Tensor) -> Tensor:
    """Weighted means of each window, `[N, C, H, W]` → `[N, C, H − 10, W − 10]`."""
    channels = images.shape[1]
    for dimension in (2, 3):
        length = min(WINDOW, images.shape[dimension])
        places = torch.arange(length, dtype=images.dtype) - (length - 1) / 2
        weights = torch.exp(-(places**2) / (2 * SIGMA**2))
        shape = [1, 1, 1, 1]
        shape[dimension] = length
        kernel = (weights / weights.sum()).view(shape).expand(channels, 1, *shape[2:])
        images = F.conv2d(images, kernel, groups=channels)
    return images


def _to_floats(images: Pixels) -> Values:
    return images.astype(np.float64) / 255
