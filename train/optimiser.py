"""The optimiser, and which parameters it treats how."""

from __future__ import annotations

import torch
from timm.optim.lars import Lars
from torch import nn
from torch.optim import Optimizer

from ..runtime.errors import UsageError

OPTIMISERS = ("lars", "sgd", "adamw")


def build_optimiser(name: str, network: nn.Module, learning_rate: float, weight_decay: float) -> Optimizer:
    """LARS, SGD (momentum 0.9) or AdamW over the parameters that get gradients.

    Biases and norm parameters (every one-dimensional parameter) are left out of weight decay and of LARS's adaptation.
    timm's Lars does not adapt a group without weight decay, so with LARS one setting serves both.
    """
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    groups = [
        {"params": [each for each in trained if each.ndim > 1], "weight_decay": weight_decay},
        {"params": [each for each in trained if each.ndim <= 1], "weight_decay": 0.0},
    ]
    if name == "lars":
        return Lars(groups, lr=learning_rate, momentum=0.9, trust_coeff=0.001)  # type: ignore[arg-type]
    if name == "sgd":
        return torch.optim.SGD(groups, lr=learning_rate, momentum=0.9)
    if name == "adamw":
        return torch.optim.AdamW(groups, lr=learning_rate)
    raise UsageError(f"no optimiser {name!r}; there are {', '.join(OPTIMISERS)}")
