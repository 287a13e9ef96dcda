"""Which of torch's kernels a training computes with: the fastest, the deterministic ones, or compiled ones."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from ..models.objective import Outcome, Views
from .settings import Settings

Learn = Callable[[Views], Outcome]


@contextmanager
def chosen_kernels(settings: Settings, device: torch.device) -> Iterator[None]:
    """On a GPU, for the block: TF32 in matrix products too, and the fastest algorithm for each convolution.

    With `settings.deterministic`, only kernels that give the same bits each time, as far as torch has such. A CPU's do.
    """
    if device.type != "cuda":
        yield
        return
    before = (
        torch.get_float32_matmul_precision(),
        torch.backends.cudnn.benchmark,
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
    )
    torch.set_float32_matmul_precision("high")
    torch.backends.cudnn.benchmark = not settings.deterministic
    if settings.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS reads it when it is first used
        torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        yield
    finally:
        precision, benchmark, deterministic, warn_only = before
        torch.set_float32_matmul_precision(precision)
        torch.backends.cudnn.benchmark = benchmark
        torch.use_deterministic_algorithms(deterministic, warn_only=warn_only)


def maybe_compiled(learn: Learn, settings: Settings) -> Learn:
    """What torch.compile makes of it, with `settings.compile`; it compiles when first called."""
    return torch.compile(learn) if settings.compile else learn
