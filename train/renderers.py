"""The renderers there are, by the name that --augment has for them."""

from __future__ import annotations

from collections.abc import Callable

import torch

from ..runtime.preprocessing import Preprocessing
from .device_rendering import DeviceRenderer
from .rendering import Renderer, WorkerRenderer

WORKERS, DEVICE = "workers", "device"
RENDERERS: dict[str, Callable[[Preprocessing], Renderer]] = {WORKERS: WorkerRenderer, DEVICE: DeviceRenderer}


def choose_renderer(device: torch.device) -> str:
    """The device if it is a GPU. On a CPU, workers can make views while the network trains."""
    return WORKERS if device.type == "cpu" else DEVICE
