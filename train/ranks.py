"""Processes that train one network together, each on its share of every batch, as `torchrun` starts them.

All go through the same code. The first one, rank 0, begins the run, hands over what the others need, and is the only
one to write. What a process asks for here is that of the process group; outside of one, it is alone.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TypeVar

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import nn

from ..models.network import embed_pixels
from ..runtime.errors import RunError, UsageError
from ..runtime.preprocessing import Pixels
from ..runtime.progress import PROGRESS

T = TypeVar("T")

# A process may wait as long as this for another: torchrun ends them all as soon as one has died.
TIMEOUT = timedelta(days=2)
# What torch says where the process at the other end is gone.
LOST = ("Connection closed by peer", "Connection reset by peer", "Broken pipe", "remote process exited", "was aborted")


def rank() -> int:
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    """How many processes there are."""
    return dist.get_world_size() if dist.is_initialized() else 1


def is_first() -> bool:
    return rank() == 0


def starts_first() -> bool:
    """Whether this process is to be the first one, known before it has joined the others."""
    return _announced() == 1 or os.environ.get("RANK", "0") == "0"


def local_world_size() -> int:
    """How many processes share this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1")) if _announced() > 1 else 1


@contextmanager
def joined(device: torch.device) -> Iterator[None]:
    """The process group that torchrun's environment describes, for the block; nothing if it describes none.

    All but the first process only report errors. Raises RunError in those that lose another one.
    """
    if _announced() == 1 or dist.is_initialized():
        yield
        return
    # Objects go by way of the CPU in any case.
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    with _explained():
        dist.init_process_group(backend, timeout=TIMEOUT)
    try:
        with _explained(), _quiet(not is_first()):
            yield
    except BaseException:
        # To destroy the group takes all processes, and the others may be in the middle of something.
        getattr(dist.distributed_c10d, "_abort_process_group", dist.destroy_process_group)()
        raise
    dist.destroy_process_group()


def is_first_here() -> bool:
    """Whether this process is the first one on its machine."""
    return world_size() == 1 or os.environ.get("LOCAL_RANK", "0") == "0"


def barrier() -> None:
    """Returns when every process has come here."""
    gather(None)


def check_shares(batch_size: int, accumulate: int) -> None:
    """Raises UsageError for a batch of whose parts the processes cannot have equal shares, of two images or more."""
    part = batch_size // accumulate
    if world_size() > 1 and (part % world_size() or part < 2 * world_size()):
        raise UsageError(
            f"{{batch_size}}: {world_size()} processes cannot share {part} images evenly, two or more each; "
            f"take {round_to_shares(batch_size, accumulate)}",
            batch_size=batch_size,
        )


def round_to_shares(batch_size: int, accumulate: int) -> int:
    """The largest batch, not above `batch_size` if possible, of which in each part all processes have the same."""
    fits = world_size() * accumulate
    return max(2, batch_size // fits) * fits


def broadcast(value: T | None) -> T:
    """What the first process has, in every process; the others give None. Pickled, with tensors on the CPU."""
    box = [value]
    if world_size() > 1:
        dist.broadcast_object_list(box, 0)
    (found,) = box
    assert found is not None
    return found


def gather(value: T) -> list[T]:
    """What each process has, by rank, in every process. Pickled, with tensors on the CPU."""
    if world_size() == 1:
        return [value]
    found: list[T] = [value] * world_size()
    dist.all_gather_object(found, value)
    return found


def embed_together(network: nn.Module, pixels: Pixels) -> NDArray[np.float32]:
    """What embed_pixels gives, each process computing its share."""
    if len(pixels) < world_size():
        return embed_pixels(network, pixels)
    parts = gather(embed_pixels(network, pixels[rank() :: world_size()]))
    found = np.empty((len(pixels), parts[0].shape[1]), np.float32)
    for first, part in enumerate(parts):
        found[first :: world_size()] = part
    return found


def _announced() -> int:
    """How many processes the environment announces."""
    return int(os.environ.get("WORLD_SIZE", "1")) if "RANK" in os.environ else 1


@contextmanager
def _explained() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:  # torch's own are such
        if not any(sign in str(error) for sign in LOST):
            raise
        number = os.environ["RANK"]
        raise RunError(
            f"process {number} has lost the others; if one of them says why, heed that, and go on with {{resume}}",
            resume=True,
        ) from error


@contextmanager
def _quiet(quiet: bool) -> Iterator[None]:
    """Lets this library report only errors, where all would report the same."""
    loggers = [logging.getLogger(name) for name in ("byol_edge", PROGRESS)] if quiet else []
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
