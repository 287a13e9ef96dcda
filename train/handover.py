"""What the first of several processes has found out, and the others need to train along."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from ..runtime.errors import RunError
from ..runtime.run import Run, TeacherVectors
from .evaluation import Evaluation
from .loop import Training
from .optimizer import load_optimizer
from .preparation import add_cache, set_up
from .ranks import barrier, broadcast, is_first_here, rank, world_size
from .selection import Weights
from .settings import Settings
from .together import broadcast_state


@dataclass(frozen=True)
class Handover:
    """`sizes`: bytes of each image's file. `start`: see Training. `state`: a run's checkpoint, if it goes on."""

    paths: list[Path]
    sizes: list[int]
    settings: Settings
    evaluation: Evaluation
    teacher: TeacherVectors | None
    start: Weights | None
    state: dict[str, Any] | None

    @property
    def done(self) -> int:
        """Epochs that are finished."""
        return 0 if self.state is None else self.state["epoch"]


def hand_over(
    training: Training, paths: list[Path], teacher: TeacherVectors | None, state: dict[str, Any] | None
) -> None:
    """Gives the other processes, if there are any, what the first one has, its weights included."""
    if world_size() > 1:
        sizes = [_size(path) for path in paths]
        broadcast(Handover(paths, sizes, training.settings, training.evaluation, teacher, training.start, state))
        broadcast_state(training.objective)
        barrier()


def receive() -> Handover:
    """What the first process hands over. Raises RunError if it has other images than this process."""
    found: Handover = broadcast(None)
    _check_images(found.paths, found.sizes)
    return found


def take_over(found: Handover, run: Run, device: torch.device, folder: Path | None) -> Training:
    """What to train in a process that is not the first. `folder`: of a cache."""
    settings = found.settings
    training = set_up(
        run, settings, settings.preprocessing, found.evaluation, device, found.teacher, from_scratch=False
    )
    if found.state is not None:
        load_optimizer(training.optimizer, found.state["optimizer"])
        torch.set_rng_state(found.state["random"])
    broadcast_state(training.objective)
    training = replace(training, start=found.start)
    if is_first_here():  # it fills a cache that is not the first process's
        training = add_cache(training, found.paths, folder, found.done)
    barrier()
    return training if is_first_here() else add_cache(training, found.paths, folder, found.done)


def _size(path: Path) -> int:
    """-1 for a file that is not there."""
    try:
        return path.stat().st_size
    except OSError:
        return -1


def _check_images(paths: Sequence[Path], sizes: Sequence[int]) -> None:
    for path, expected in zip(paths, sizes, strict=True):
        if (size := _size(path)) != expected:
            what = "is not there" if size < 0 else f"has {size} bytes, and {expected} where the first process runs"
            raise RunError(f"process {rank()}, on {socket.gethostname()}: {path} {what}; all need the same images")
