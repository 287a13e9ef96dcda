"""`byol-edge train`."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .output import Bar, needs, note, say

if TYPE_CHECKING:
    from ..train.monitor import Metrics
    from ..train.recipe import Settings


class TrainingDisplay:
    """Shows a training: the settings once, a bar, a line an epoch."""

    def __init__(self) -> None:
        self._open = ExitStack()
        self._bar: Bar | None = None
        self._unreadable = 0

    def __enter__(self) -> TrainingDisplay:
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()
        if self._unreadable:
            note(f"{self._unreadable} images could not be read and were left out")

    def start(self, settings: Settings, images: int, first_epoch: int) -> None:
        note(
            f"{images} images, {settings.backbone} ({settings.stem} stem) at {settings.image_size} px, recipe "
            f"{settings.recipe}: {settings.epochs} epochs in batches of {settings.batch_size}, "
            f"{settings.optimiser} at {settings.learning_rate:.2g}, tau from {settings.tau_base}, seed {settings.seed}"
        )
        if first_epoch:
            done = first_epoch == settings.epochs
            note("finished already" if done else f"going on after epoch {first_epoch} of {settings.epochs}")
        steps = images // settings.batch_size * settings.epochs
        self._bar = self._open.enter_context(Bar("training", steps, scale=settings.batch_size))

    def step(self, done: int, steps: int) -> None:
        assert self._bar is not None
        self._bar.update(done, steps)

    def unreadable(self, message: str) -> None:
        self._unreadable += 1
        note(f"left out: {message}")

    def epoch(self, metrics: Metrics) -> None:
        note(
            f"epoch {metrics.epoch}: loss {metrics.loss:.3f}, spread {metrics.projection_std:.2f}, "
            f"{metrics.images_per_s:.0f} images/s"
        )


@click.command(short_help="Pretrain a backbone with BYOL on a folder of images: IMAGES → run.")
@click.argument("images", type=click.Path(path_type=Path))
@click.option("--out", required=True, type=click.Path(path_type=Path), help="The run to write, a folder.")
@click.option("--backbone", default="resnet18", show_default=True, help="conv4, or any network of timm's, by name.")
@click.option("--image-size", default=128, show_default=True, help="Side of the network's input, in pixels.")
@click.option("--epochs", default=100, show_default=True, help="Passes over the images.")
@click.option("--batch-size", type=int, help="Images in an optimiser step.  [default: 16 to 256, by their number]")
@click.option(
    "--recipe",
    help="photographs, small (up to 64 px), or glyphs (characters).  [default: by the size]",
)
@click.option("--stem", default="auto", show_default=True, help="A ResNet's first layers: standard, small or auto.")
@click.option("--learning-rate", type=float, help="Its peak.  [default: the recipe's, by the batch size]")
@click.option("--seed", default=0, show_default=True, help="Same seed, same machine, same run.")
@click.option("--workers", type=int, help="Processes that decode images.  [default: one a CPU]")
@click.option("--device", default="auto", show_default=True, help="cpu, cuda, or auto: a GPU if there is one.")
@click.option("--resume", is_flag=True, help="Go on after the last finished epoch of the run at --out, or start it.")
@click.option("--overwrite", is_flag=True, help="Replace the run at --out.")
def train(images: Path, out: Path, device: str, resume: bool, overwrite: bool, **dials: Any) -> None:
    """Pretrain a backbone with BYOL on the images under IMAGES, searched recursively. Labels are never needed.

    Weights start random. Each epoch prints the loss (0 to 8) and the spread of the projections (1: they fill the
    sphere, 0: the network has collapsed), and is saved; --resume, with the same options, goes on after the last one.

    Example: byol-edge train photos --out runs/photos --epochs 100
    """
    with needs("train"):
        from ..train.loop import train as run_training
        from ..train.recipe import Dials
    with TrainingDisplay() as display:
        run_training(images, out, Dials(**dials), display, device, resume, overwrite)
    say(f"The run is in {out}. Next: byol-edge export {out} --int8 --out BUNDLE")
