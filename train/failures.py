"""What goes wrong while a network trains, told with what to do about it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from ..runtime.errors import RunError, brief
from ..runtime.run import CHECKPOINT, Run
from .monitor import Monitor
from .ranks import round_to_shares, world_size
from .settings import BF16, FP32, Settings

# Where torch defines what it raises while it compiles.
COMPILERS = ("torch._dynamo", "torch._inductor")


@contextmanager
def explained(settings: Settings) -> Iterator[None]:
    """Turns what torch raises inside the block into a RunError that says what to do.

    That a worker was killed is raised wherever the training process happens to be, in `backward` too.
    """
    try:
        yield
    except RuntimeError as error:
        text = str(error)
        if isinstance(error, torch.OutOfMemoryError) or "allocate memory" in text:
            raise _out_of_memory(settings) from error
        if type(error).__module__.startswith(COMPILERS):
            raise RunError(
                f"torch cannot compile the step here ({brief(error)}); go on with {{resume}} and {{compile}}",
                resume=True,
                compile=False,
            ) from error
        if "DataLoader worker" in text:
            raise RunError(
                "a process that decodes images was killed, out of memory perhaps; go on with {resume} and {workers}",
                resume=True,
                workers=max(0, settings.workers // 2),
            ) from error
        raise


def check_finite(monitor: Monitor, settings: Settings, run: Run) -> None:
    """Raises RunError, naming the step and what is left, once a loss is no finite number."""
    bad = monitor.first_bad_step()
    if bad is None:
        return
    step, loss = bad
    epoch = step // settings.plan.steps_per_epoch
    name, value = "learning_rate", f"{settings.plan.learning_rate / 3:.2g}"
    if settings.precision != FP32:
        name, value = "precision", FP32
    left = f"{run.path / CHECKPOINT} is that of epoch {epoch}" if epoch else "no epoch was finished"
    raise RunError(
        f"the loss is {loss} at step {step + 1}, in epoch {epoch + 1}; {left}. Start another run with {{{name}}}",
        **{name: value},
    )


def _out_of_memory(settings: Settings) -> RunError:
    size, parts = settings.plan.batch_size, settings.plan.accumulate
    at_once = settings.plan.part_size // world_size()
    ways: list[str] = []
    if size % (2 * parts * world_size()) == 0 and at_once >= 4:
        ways.append("{resume} with {accumulate} (the same batch in smaller parts)")
    if settings.precision == FP32:
        ways.append("{resume} with {precision}")
    ways.append("start again with {batch_size}")
    return RunError(
        f"out of memory with {at_once} images of {settings.image_size} px at a time: {', or '.join(ways)}",
        resume=True,
        accumulate=2 * parts,
        precision=BF16,
        batch_size=round_to_shares(size // 2, parts),
    )
