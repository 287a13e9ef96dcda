"""Label-free fine-tuning for INT8: the network learns to give its own FP32 embeddings while its numbers are rounded.

The rounding is simulated: weights to signed 8 bits, one scale per output channel; what a layer takes to unsigned 8
bits, one scale per layer. Gradients pass straight through it (Bengio et al. 2013, arXiv:1308.3432). What comes out is a
float network again, for the quantizers to take in place of the first.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from ..models.fusion import list_backbones
from ..models.network import InferenceNetwork
from ..models.tracing import merge_branches
from ..runtime.errors import RunError
from ..runtime.preprocessing import Pixels

log = logging.getLogger(__name__)

# At ten times the rate a MobileNetV3-small got worse, with batches of 8 no better (docs/export.md).
STEPS, LEARNING_RATE, BATCH_SIZE = 600, 5e-6, 32
MOST_SECONDS = 15 * 60


def fine_tune(network: InferenceNetwork, images: Pixels) -> InferenceNetwork:
    """A copy of `network`, parallel branches merged, that loses less when it is quantized.

    `images` uint8 `[N, H, W, 3]` give the ranges, and flipped and cropped what is learned from. Takes 600 steps, or as
    many as fit in 15 minutes. The same every time, on the same machine, unless the time ran out.
    """
    student = merge_branches(network)
    pixels = torch.from_numpy(images)
    finish = simulate_int8(student, pixels)
    generator = torch.Generator().manual_seed(0)
    learned = [each for backbone in list_backbones(student).values() for each in backbone.parameters()]
    optimizer = torch.optim.Adam(learned, lr=LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
    start = time.monotonic()
    for step in range(STEPS):
        batch = _vary(pixels[torch.randint(len(pixels), (BATCH_SIZE,), generator=generator)], generator)
        with torch.no_grad():
            expected = network.unscaled(batch)
        error = (student.unscaled(batch) - expected).square().sum(1) / expected.square().sum(1).clamp(min=1e-12)
        optimizer.zero_grad()
        error.mean().backward()
        optimizer.step()
        schedule.step()
        if step % (STEPS // 5) == 0:
            log.info(f"  step {step} of {STEPS}: {error.mean().item():.5f} of the embeddings' energy is lost")
        if time.monotonic() - start > MOST_SECONDS:
            log.warning(f"  fine-tuning stopped after {step + 1} of {STEPS} steps: its time is up")
            break
    finish()
    return student


def _vary(batch: Tensor, generator: torch.Generator) -> Tensor:
    """Images uint8 `[N, H, W, 3]`, cropped to 75–100 % of a side at one place, half of the batches mirrored."""
    share, top, left, mirror = torch.rand(4, generator=generator).tolist()
    side = batch.shape[1]
    crop = math.ceil(side * (0.75 + 0.25 * share))
    top, left = int(top * (side - crop + 1)), int(left * (side - crop + 1))
    cut = batch[:, top : top + crop, left : left + crop].permute(0, 3, 1, 2).float()
    whole = nn.functional.interpolate(cut, size=(side, side), mode="bilinear", antialias=True)
    whole = whole.flip(3) if mirror < 0.5 else whole
    return whole.round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1)


def simulate_int8(network: InferenceNetwork, images: Tensor) -> Callable[[], None]:
    """Makes the backbone's layers round as INT8 does, with the ranges that `images` give; returns what undoes it."""
    modules = [each for backbone in list_backbones(network).values() for each in backbone.modules()]
    layers: list[nn.Module] = [each for each in modules if isinstance(each, (nn.Conv2d, nn.Linear))]
    if any(map(parametrize.is_parametrized, layers)):  # a copy shares its class with the network's, which would change
        raise RunError("a layer whose weight is computed from others, as by weight_norm, cannot be fine-tuned")
    roundings = [_Rounding() for _ in layers]
    hooks = [layer.register_forward_pre_hook(each) for layer, each in zip(layers, roundings, strict=True)]
    with torch.no_grad():
        for batch in images.split(8):
            network.unscaled(batch)
    for layer, rounding in zip(layers, roundings, strict=True):
        rounding.fix()
        parametrize.register_parametrization(layer, "weight", _RoundedWeight())

    def finish() -> None:
        for layer, hook in zip(layers, hooks, strict=True):
            hook.remove()
            parametrize.remove_parametrizations(layer, "weight", leave_parametrized=False)

    return finish


class _Rounding:
    """Rounds what a layer takes; until `fix`, it only watches. Its range is the mean of the calls' ranges."""

    def __init__(self) -> None:
        self._low = self._high = 0.0
        self._calls = 0
        self._scale: float | None = None

    def __call__(self, _: nn.Module, inputs: tuple[Tensor, ...]) -> Tensor:
        (values,) = inputs
        if self._scale is None:
            self._low += min(values.min().item(), 0)
            self._high += max(values.max().item(), 0)
            self._calls += 1
            return values
        zero = round(-self._low / self._scale)
        return _round(values / self._scale).clamp(-zero, 255 - zero) * self._scale

    def fix(self) -> None:
        self._low, self._high = self._low / max(self._calls, 1), self._high / max(self._calls, 1)
        self._scale = max(self._high - self._low, 1e-12) / 255


class _RoundedWeight(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        largest = weight.detach().abs().amax(tuple(range(1, weight.dim())), keepdim=True)
        scale = (largest / 127).clamp(min=1e-12)
        return _round(weight / scale) * scale


def _round(values: Tensor) -> Tensor:
    """Rounds, with the gradient of the identity."""
    return values + (values.round() - values).detach()
