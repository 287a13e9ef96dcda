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

KINDS = {"epoch": int, "objective": dict, "optimizer": dict, "evaluation": dict, "start": dict, "random": Tensor}


def save_checkpoint(run: Run, state: dict[str, Any]) -> None:
    """Writes `state`, which has the keys of KINDS, whole or not at all."""
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
    if not _is_state(state):
        raise RunError(f"{file}: not of this run; start again with {{overwrite}}", overwrite=True)
    return state


def _is_state(state: object) -> bool:
    """Whether it has the keys and types of what training saves: an epoch from 1, and tensors by name."""
    return (
        isinstance(state, dict)
        and all(isinstance(state.get(name), kind) for name, kind in KINDS.items())
        and state["epoch"] >= 1
        and state["epoch"] is not True
        and all(
            isinstance(name, str) and isinstance(tensor, Tensor)
            for part in ("objective", "evaluation", "start")
            for name, tensor in state[part].items()
        )
    )


def check_tensors(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    """Raises ValueError where tensors have another shape or type than expected, or hold NaN or infinities."""
    for name, tensor in found.items():
        wanted = expected.get(name, tensor)
        if tensor.shape != wanted.shape or tensor.dtype != wanted.dtype:
            is_and = f"{tensor.dtype} {list(tensor.shape)}, not {wanted.dtype} {list(wanted.shape)}"
            raise ValueError(f"{name} is {is_and}")
        if not tensor.isfinite().all():
            raise ValueError(f"{name} holds values that are no finite numbers")


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
