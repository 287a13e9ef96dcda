"""The numbers that a step computes with: FP32 (on a GPU, TF32 in products), or bfloat16 where that is faster.

Weights, moving averages, batch statistics, losses and the optimizer are FP32 in any case.
"""

from __future__ import annotations

import logging
import time
from pathlib import Path

import torch
from torch import Tensor, nn

from ..models.backbones import build_backbone
from ..runtime.errors import UsageError
from .settings import BF16, FP32, Settings

log = logging.getLogger(__name__)

# How many times as fast bfloat16 has to be on a CPU: a ratio near 1 is noise.
LEAST_GAIN = 1.3
# Shorter runs, in images times epochs, are not worth measuring for: they take some minutes at most.
LEAST_IMAGES = 20_000
TIMES = 5
# What /proc/cpuinfo calls it on x86 and on ARM.
CPU_INFO, BF16_FLAGS = Path("/proc/cpuinfo"), {"avx512_bf16", "amx_bf16", "bf16"}


def choose_precision(settings: Settings, device: torch.device) -> str:
    """The faster precision for a network on a device: on a CPU, by measuring, a second or a few."""
    if device.type == "cuda":
        return BF16 if _gpu_has_bf16() else FP32
    plan = settings.plan
    if device.type != "cpu" or plan.images * plan.epochs < LEAST_IMAGES or not _cpu_has_bf16():
        return FP32
    gain = measure_gain(settings)
    log.info(f"{settings.backbone} is {gain:.2f} times as fast in bfloat16 as in FP32 here")
    return BF16 if gain >= LEAST_GAIN else FP32


def check_precision(precision: str, device: torch.device) -> None:
    """Raises UsageError for a GPU without bfloat16."""
    if precision == BF16 and device.type == "cuda" and not _gpu_has_bf16():
        raise UsageError(f"{{precision}}: {torch.cuda.get_device_name()} has no bfloat16; take fp32", precision=BF16)


def measure_gain(settings: Settings) -> float:
    """How many times as fast the backbone learns in bfloat16 on this CPU, in turn with FP32."""
    backbone = build_backbone(settings.backbone, settings.image_size, settings.stem).train()
    keep_in_float(backbone.to(memory_format=torch.channels_last))
    count = min(settings.plan.part_size, max(4, min(32, round(16 * (64 / settings.image_size) ** 2))))
    images = torch.randn(count, 3, settings.image_size, settings.image_size)
    images = images.to(memory_format=torch.channels_last)
    seconds: dict[str, list[float]] = {FP32: [], BF16: []}
    for _ in range(1 + TIMES):
        for precision, taken in seconds.items():
            start = time.perf_counter()
            with autocast(precision, images.device):
                embeddings = backbone(images)
            embeddings.float().square().mean().backward()
            taken.append(time.perf_counter() - start)
    # The first one warms up. Other work on the machine only adds to a time, so the least is the network's.
    return min(seconds[FP32][1:]) / min(seconds[BF16][1:])


def autocast(precision: str, device: torch.device) -> torch.autocast:
    """For the block that computes the loss; what it returns may be bfloat16."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == BF16)


def keep_in_float(network: nn.Module) -> None:
    """Lets convolutions in groups, such as depthwise ones, work in FP32 inside `autocast`.

    On a CPU their gradients take three times as long in bfloat16: a MobileNetV4-small at 64 px learns 0.66 times as
    fast in bfloat16 as in FP32, and 1.25 times as fast with these in FP32 (one core with AVX-512 BF16).
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d) and module.groups > 1 and not isinstance(module, _InFloat):
            module.__class__ = type("InFloat" + type(module).__name__, (_InFloat, type(module)), {})


class _InFloat(nn.Module):
    def forward(self, inputs: Tensor) -> Tensor:
        with torch.autocast(inputs.device.type, enabled=False):
            return super().forward(inputs.float())


def _gpu_has_bf16() -> bool:
    return torch.cuda.is_bf16_supported(including_emulation=False)


def _cpu_has_bf16() -> bool:
    """By the flags that Linux knows; an emulated bfloat16 is never faster."""
    try:
        return not BF16_FLAGS.isdisjoint(CPU_INFO.read_text().split())
    except OSError:
        return False
