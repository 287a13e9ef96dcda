"""One objective in several processes: gradients averaged over all of them, and batch norms that see the whole batch."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any, cast

import torch
import torch.distributed as dist
from timm.layers import convert_sync_batchnorm
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel

from ..models.objective import Objective, Outcome, Views
from .ranks import world_size


def distribute(objective: Objective) -> Callable[[Views], Outcome]:
    """What to call instead of an objective, so that each process learns what one with all their images would.

    All have to have the same weights by then. Alone, it is the objective itself.
    """
    if world_size() == 1:
        return objective
    network = cast(nn.Module, objective)
    if next(network.parameters()).is_cuda:
        convert_sync_batchnorm(network)
    else:
        synchronize_norms(network)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # what torch 2.14 has instead, earlier ones lack
        return DistributedDataParallel(network, init_sync=False, broadcast_buffers=False, gradient_as_bucket_view=True)


@torch.no_grad()
def broadcast_state(objective: Objective) -> None:
    """Gives every process the first one's weights and buffers."""
    if world_size() > 1:
        for tensor in objective.state_dict().values():
            dist.broadcast(tensor, 0)


@torch.no_grad()
def average_buffers(objective: Objective) -> None:
    """Makes moving averages, which each process kept of its own share, those of all."""
    if world_size() == 1:
        return
    for buffer in cast(nn.Module, objective).buffers():
        if buffer.is_floating_point():
            dist.all_reduce(buffer)
            buffer /= world_size()


def synchronize_norms(network: nn.Module) -> None:
    """Lets batch norms take statistics from all processes, on a CPU, where torch's SyncBatchNorm has no kernel."""
    for module in network.modules():
        if isinstance(module, _BatchNorm) and not isinstance(module, _Synchronized):
            module.__class__ = type("Synchronized" + type(module).__name__, (_Synchronized, type(module)), {})


class _Synchronized(_BatchNorm):
    """A batch norm with mean and variance of all processes' batches, which are of one size.

    timm's have an activation in them, too.
    """

    def forward(self, input: Tensor) -> Tensor:
        if not self.training:
            return super().forward(input)
        exact = torch.promote_types(input.dtype, torch.float32)  # statistics are not in bfloat16
        values, dims = input.to(exact), [0, *range(2, input.ndim)]
        shape = [1, -1] + [1] * (input.ndim - 2)
        mean = average(values.mean(dims))
        centered = values - mean.view(shape)
        variance = average(centered.square().mean(dims))
        self._remember(mean.detach(), variance.detach(), input.numel() // input.shape[1] * world_size())
        normalized = centered * (variance + self.eps).rsqrt().view(shape)
        if self.affine:
            normalized = normalized * self.weight.view(shape) + self.bias.view(shape)
        normalized = normalized.to(input.dtype)
        for name in ("drop", "act"):
            normalized = getattr(self, name, nn.Identity())(normalized)
        return normalized

    @torch.no_grad()
    def _remember(self, mean: Tensor, variance: Tensor, count: int) -> None:
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        self.num_batches_tracked += 1
        momentum = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean, momentum)
        self.running_var.lerp_(variance * count / max(count - 1, 1), momentum)


class _Average(torch.autograd.Function):
    """The mean over processes. Each one's loss depends on it, so its gradient is the mean of theirs, too."""

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        return _mean(value)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> Tensor:
        return _mean(grad_outputs[0])


def average(value: Tensor) -> Tensor:
    """The mean over processes, through which gradients flow."""
    result: Tensor = _Average.apply(value)
    return result


def _mean(value: Tensor) -> Tensor:
    total = value.contiguous().clone()
    dist.all_reduce(total)
    return total / world_size()
