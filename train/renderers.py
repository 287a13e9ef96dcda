"""The renderers there are, by the name that --augment has for them."""

from __future__ import annotations

from collections.abc import Callable

import torch

from ..runtime.preprocessing import Preprocessing
from .device_rendering import DeviceRenderer
from .rendering import Renderer, WorkerRenderer

RENDERERS: dict[str, Callable[[Preprocessing], Renderer]] = {"workers": WorkerRenderer, "device": DeviceRenderer}


def choose_renderer(device: torch.device) -> str:
    """A GPU makes views faster than it is fed with them; a CPU's cores are the workers' and the network's anyway."""
    return "workers" if device.type == "cpu" else "device"
