"""Where a run trains, and what suits that place."""

from __future__ import annotations

import os
from dataclasses import replace

import torch

from ..runtime.errors import UsageError
from .config import TrainConfig
from .failures import explained
from .precision import choose_precision
from .ranks import local_world_size
from .renderers import choose_renderer
from .settings import Settings


def choose_for_device(settings: Settings, config: TrainConfig, device: torch.device) -> Settings:
    """The settings of a new run with what suits the device, where the config leaves it open."""
    augment = config.augment or choose_renderer(device)
    if config.precision not in (None, "auto"):
        return replace(settings, augment=augment)
    with explained(settings):
        return replace(settings, augment=augment, precision=choose_precision(settings, device))


def choose_device(name: str) -> torch.device:
    """ "auto" is the first GPU, or the CPU where there is none; among several processes, each has a GPU of its own.

    Raises UsageError for a GPU that is not there.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise UsageError(
            f"{{device}}: PyTorch {torch.__version__} sees no GPU here; the CPU is called cpu", device=name
        )
    if name.startswith("cuda") and local_world_size() > 1:
        name = _own_gpu(name)
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).cpu()
        if device.index is not None and device.type == "cuda":
            torch.cuda.set_device(device)
    except (RuntimeError, NotImplementedError, AssertionError) as error:
        raise UsageError(f"{{device}}: cannot be used here ({str(error).splitlines()[0]})", device=name) from error
    return device


def _own_gpu(name: str) -> str:
    """The name of this process's GPU. Raises UsageError if there are fewer of them than processes."""
    processes, gpus = local_world_size(), torch.cuda.device_count()
    if name != "cuda":
        raise UsageError("{device}: each process has a GPU of its own; take cuda", device=name)
    if processes > gpus:
        raise UsageError(
            f"{{device}}: torchrun starts {processes} processes here, and there are {gpus} GPUs; "
            "start as many as there are GPUs",
            device=name,
        )
    return f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
