"""What changes in a batch of views that were cut from images, by either renderer: packed into tensors, then applied."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from .coloring import blur, drop_color, jitter, solarize
from .views import NO_COLORS, ViewParameters


class Changes(NamedTuple):
    """One row per view, as in ViewParameters; on the CPU. None: no view of the batch is changed so."""

    colors: Tensor | None
    order: Tensor
    grayscale: Tensor | None
    blur_sigmas: Tensor | None
    solarize: Tensor | None


def pack(views: Sequence[ViewParameters]) -> Changes:
    """The numbers of a batch of views, one or more."""
    colors = [view.colors for view in views]
    return Changes(
        colors=torch.tensor(colors) if set(colors) != {NO_COLORS} else None,
        order=torch.tensor([view.order for view in views]),
        grayscale=_unless_none([view.grayscale for view in views]),
        blur_sigmas=_unless_none([view.blur_sigma for view in views]),
        solarize=_unless_none([view.solarize for view in views]),
    )


def _unless_none(values: Sequence[float]) -> Tensor | None:
    return torch.tensor(values) if any(values) else None


def apply(changes: Changes, images: Tensor) -> Tensor:
    """The views of a batch of cuts; both float `[N, 3, H, W]`, 0 to 255, on any device."""
    device = images.device
    if changes.colors is not None:
        images = jitter(images, changes.colors, changes.order)
    if changes.grayscale is not None:
        images = drop_color(images, changes.grayscale.to(device, non_blocking=True))
    if changes.blur_sigmas is not None:
        images = blur(images, changes.blur_sigmas.to(device, non_blocking=True))
    if changes.solarize is not None:
        images = solarize(images, changes.solarize.to(device, non_blocking=True))
    return images
