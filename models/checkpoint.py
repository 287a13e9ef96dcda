"""A run's checkpoint: all that training needs to go on, and the networks that it alone holds."""

from __future__ import annotations

import io
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from ..runtime.errors import RunError
from ..runtime.run import CHECKPOINT, Run
from .objective import PROJECTOR, TARGET

KEYS = ("epoch", "objective", "optimizer", "evaluation", "random")


def save_checkpoint(run: Run, state: dict[str, Any]) -> None:
    """Writes `state`, which has the KEYS, whole or not at all."""
    content = io.BytesIO()  # torch's own writer turns a full disk into an error of its own
    torch.save(state, content)
    run.save_checkpoint(content.getvalue())


def load_checkpoint(run: Run) -> dict[str, Any] | None:
    """What save_checkpoint wrote, on the CPU; None where no epoch was finished. Raises RunError if it is damaged."""
    content = run.read_checkpoint()
    if content is None:
        return None
    file = run.path / CHECKPOINT
    try:
        state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:  # whatever a damaged pickle raises
        raise RunError(f"{file}: damaged ({error}); start again with {{overwrite}}", overwrite=True) from error
    if not isinstance(state, dict) or not set(KEYS) <= state.keys():
        raise RunError(f"{file}: not of this run; start again with {{overwrite}}", overwrite=True)
    return state


def read_target(run: Run) -> bytes:
    """The target backbone of a run, as the bytes of a safetensors file. Raises RunError."""
    return safetensors.torch.save(_read_part(run, TARGET, "network", "target"))


def read_projector(run: Run, network: str) -> dict[str, Tensor]:
    """The projector of a run's online or target network. Raises RunError."""
    return _read_part(run, PROJECTOR if network == "online" else f"target_{PROJECTOR}", "with_projector", True)


def _read_part(run: Run, prefix: str, argument: str, value: object) -> dict[str, Tensor]:
    """The tensors of a part of the objective; `argument` is what asked for it."""
    state = load_checkpoint(run)
    if state is None:
        raise RunError(
            f"{run.path / CHECKPOINT}: not there, and it alone holds what {{{argument}}} asks for; export without it",
            **{argument: value},
        )
    tensors = state["objective"]
    part = {key.removeprefix(prefix): tensors[key].contiguous() for key in tensors if key.startswith(prefix)}
    if not part:
        raise RunError(
            f"{run.path}: its objective has no {prefix[:-1]}; export without {{{argument}}}", **{argument: value}
        )
    return part
