"""The optimizers, each with rates of its own, and which parameters they treat how."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from timm.optim.lars import Lars
from torch import Tensor
from torch.optim import Optimizer


@dataclass(frozen=True)
class Rates:
    """`learning_rate` is for a batch of 256, and grows with the batch to the power `growth`."""

    learning_rate: float
    weight_decay: float
    growth: float

    def peak(self, batch_size: int) -> float:
        return self.learning_rate * (batch_size / 256) ** self.growth


# What the names of an objective's parameters begin with that are the backbone's.
BACKBONE = "backbone."

# A rate that suits one collapses another, so none is shared.
RATES = {
    # An AdamW step grows with the square root of the batch (arXiv 2205.10287).
    "adamw": Rates(1e-3, 1e-4, 0.5),
    # DeepMind's for a ResNet-18 on Imagenette, batch 256.
    "lars": Rates(2.0, 1e-6, 1.0),
    # lightly's for CIFAR-10, halved twice, since our loss is the sum of both directions of 2 - 2cos and theirs a mean.
    "sgd": Rates(0.03, 5e-4, 1.0),
}


def build_optimizer(
    name: str, parameters: Mapping[str, Tensor], learning_rate: float, weight_decay: float, backbone_rate: float = 1.0
) -> Optimizer:
    """One of RATES over the parameters that get gradients; momentum 0.9 for LARS and SGD, no Nesterov.

    `parameters`: an objective's, by name. Each group's "share" is what its rate is of the plan's: `backbone_rate` for
    the backbone's, 1 for all others.

    Biases and norm parameters (every one-dimensional parameter) are left out of weight decay and of LARS's adaptation.
    timm's Lars does not adapt a group without weight decay, so with LARS one setting serves both, and is never quite 0.
    """
    if name == "lars":
        weight_decay = max(weight_decay, 1e-12)
    trained = {key: each for key, each in parameters.items() if each.requires_grad}
    backbone = [each for key, each in trained.items() if key.startswith(BACKBONE)]
    others = [each for key, each in trained.items() if not key.startswith(BACKBONE)]
    groups = [
        {"params": [each for each in part if (each.ndim > 1) == decays], "weight_decay": decay, "share": share}
        for part, share in ((backbone, backbone_rate), (others, 1.0))
        for decays, decay in ((True, weight_decay), (False, 0.0))
    ]
    if name == "lars":
        return Lars(groups, lr=learning_rate, momentum=0.9, trust_coeff=0.001)  # type: ignore[arg-type]
    if name == "sgd":
        return torch.optim.SGD(groups, lr=learning_rate, momentum=0.9)
    return torch.optim.AdamW(groups, lr=learning_rate, fused=True)


def load_optimizer(optimizer: Optimizer, saved: dict[str, Any]) -> None:
    """Puts the moments of a `state_dict` back; all else is of the settings, and the rate is set at each step.

    Raises KeyError, TypeError or ValueError where they are not of these parameters.
    """
    optimizer.load_state_dict({"state": saved["state"], "param_groups": optimizer.state_dict()["param_groups"]})
    for parameter, moments in optimizer.state.items():
        for name, value in moments.items():
            if isinstance(value, Tensor) and value.ndim and value.shape != parameter.shape:
                raise ValueError(f"the optimizer's {name} is {list(value.shape)}, not {list(parameter.shape)}")
            if isinstance(value, Tensor) and not value.isfinite().all():
                raise ValueError(f"the optimizer's {name} holds values that are no finite numbers")
