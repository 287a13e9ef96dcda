"""What a view changes about colors and sharpness: of a whole batch, on any device, each image by its own numbers.

Images are float `[N, 3, H, W]`, 0 to 255. They stay in this range after every step, as torchvision's do, and nothing is
rounded.
"""

from __future__ import annotations

import torch
from torch import Tensor

# ITU-R BT.601, as in Pillow and torchvision.
LUMA = (0.299, 0.587, 0.114)
# The numbers of the changes in ViewParameters.order.
BRIGHTNESS, CONTRAST, SATURATION, HUE = range(4)
MIDDLE = 128


def to_gray(images: Tensor) -> Tensor:
    """Luma `[N, 1, H, W]`."""
    red, green, blue = images.split(1, 1)
    return LUMA[0] * red + LUMA[1] * green + LUMA[2] * blue


def jitter(images: Tensor, colors: Tensor, order: Tensor) -> Tensor:
    """Brightness, contrast, saturation and hue, in each image's own order.

    `colors` `[N, 4]`: three factors, 1 for no change, and the turn of the hue as a share of the circle. `order`
    `[N, 4]`: which of the four comes first, second, third and last. Both on the CPU: only few images turn their hue at
    the same time, and a device need not say which.
    """
    for kinds, factors in zip(order.T, colors.gather(1, order).T, strict=True):
        blended = (kinds != HUE) & (factors != 1)
        if blended.any():
            images = _blend(images, kinds, torch.where(blended, factors, 1.0))
        turned = ((kinds == HUE) & (factors != 0)).nonzero().flatten()
        if len(turned):
            rows = turned.to(images.device, non_blocking=True)
            turns = factors[turned].to(images.device, images.dtype, non_blocking=True)
            images = images.index_copy(0, rows, turn_hue(images[rows], turns[:, None, None, None]))
    return images


def _blend(images: Tensor, kinds: Tensor, factors: Tensor) -> Tensor:
    """Each image moved towards another or away from it: black, its mean gray or its grays; `kinds`, `factors` `[N]`."""
    device = images.device
    kinds = kinds.to(device, non_blocking=True)[:, None, None, None]
    factors = factors.to(device, images.dtype, non_blocking=True)[:, None, None, None]
    gray = to_gray(images)
    other = torch.where(kinds == CONTRAST, gray.mean((2, 3), keepdim=True), gray)
    return torch.lerp(torch.where(kinds == BRIGHTNESS, 0.0, other), images, factors).clamp(0, 255)


def turn_hue(images: Tensor, turns: Tensor) -> Tensor:
    """The hue turned by a share of the circle `[N, 1, 1, 1]`; in HSV, saturation and value stay (Smith 1978)."""
    red, green, blue = images.split(1, 1)
    value = images.amax(1, keepdim=True)
    chroma = value - images.amin(1, keepdim=True)
    by = chroma.clamp(min=1e-6)
    from_green = torch.where(value == green, 2 + (blue - red) / by, 4 + (red - green) / by)
    sixths = torch.where(value == red, (green - blue) / by, from_green) + 6 * turns
    places = torch.arange(5, 0, -2, device=images.device).view(1, 3, 1, 1)
    around = (places + sixths).remainder(6)
    return value - chroma * torch.minimum(around, 4 - around).clamp(0, 1)


def drop_color(images: Tensor, chosen: Tensor) -> Tensor:
    """Luma in place of color where `chosen` `[N]`."""
    return torch.where(chosen[:, None, None, None], to_gray(images), images)


def blur(images: Tensor, sigmas: Tensor) -> Tensor:
    """A Gaussian blur, each image by its own sigma `[N]` in pixels, 0 for none, with reflected borders."""
    rows, columns = (blur_weights(sigmas, images.shape[axis])[:, None] for axis in (2, 3))
    return (rows @ images @ columns.mT).clamp(0, 255)


def blur_weights(sigmas: Tensor, length: int) -> Tensor:
    """Weights `[N, length, length]` of a Gaussian along one axis, with what is reflected folded in."""
    one = torch.arange(length, device=sigmas.device, dtype=sigmas.dtype)[:, None]
    other, last = one.T, length - 1
    # From a pixel to another one, and to that one's reflections in the first and the last; these have none themselves.
    distances = torch.stack([one - other, one + other, 2 * last - one - other])
    exist = torch.stack([other >= 0, other > 0, other < last])
    weights = (torch.exp(-0.5 * (distances / sigmas.clamp(min=1e-3).view(-1, 1, 1, 1)).square()) * exist).sum(1)
    return weights / weights.sum(2, keepdim=True)


def solarize(images: Tensor, chosen: Tensor) -> Tensor:
    """What is 128 or more inverted where `chosen` `[N]`."""
    return torch.where(chosen[:, None, None, None] & (images >= MIDDLE), 255 - images, images)
