"""The renderers there are, by the name that --augment has for them."""

from __future__ import annotations

from collections.abc import Callable

import torch

from ..runtime.preprocessing import Preprocessing
from .device_rendering import DeviceRenderer
from .rendering import Renderer, WorkerRenderer

RENDERERS: dict[str, Callable[[Preprocessing], Renderer]] = {"workers": WorkerRenderer, "device": DeviceRenderer}


def choose_renderer(device: torch.device) -> str:
    """The device if it is a GPU. On a CPU, workers can make views while the network trains."""
    return "workers" if device.type == "cpu" else "device"
