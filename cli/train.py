"""`byol-edge train`."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..runtime.errors import RunError
from .output import Bar, count, needs, note, note_unread, say

if TYPE_CHECKING:
    from ..train.dataset import ImageDataset
    from ..train.monitor import Metrics
    from ..train.recipe import Settings
    from ..train.views import View

FILE = click.Path(path_type=Path)


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
            note(f"left out: {count(self._unreadable, 'unreadable image')}")

    def start(self, settings: Settings, images: ImageDataset, first_epoch: int) -> None:
        for line in describe_settings(settings, images):
            note(line)
        if first_epoch:
            done = first_epoch == settings.epochs
            note("finished already" if done else f"going on after epoch {first_epoch} of {settings.epochs}")
        steps = len(images.paths) // settings.batch_size * settings.epochs
        self._bar = self._open.enter_context(Bar("training", steps, scale=settings.batch_size))

    def step(self, done: int, steps: int) -> None:
        assert self._bar is not None
        self._bar.update(done, steps)

    def unreadable(self, message: str) -> None:
        self._unreadable += 1
        note(f"left out: {message}")

    def epoch(self, metrics: Metrics) -> None:
        figures = [f"rank {metrics.rank:.0f}"]
        if metrics.knn is not None:
            figures.append(f"kNN {metrics.knn:.3f}")
        if metrics.epoch == 0:
            note(f"untrained: {', '.join(figures)}")
            return
        assert metrics.waiting is not None  # as is every figure of an epoch of training
        note(
            f"epoch {metrics.epoch}: loss {metrics.loss:.3f}, {', '.join(figures)}, "
            f"{metrics.images_per_s:.0f} images/s"
            + (f", {metrics.waiting:.0%} waiting for images" * (metrics.waiting > 0.1))
        )


def describe_settings(settings: Settings, images: ImageDataset) -> list[str]:
    """All settings, in lines for a person."""
    held = f"; {len(images.queries.paths)} others, of {images.classes} classes, measure kNN" if images.queries else ""
    parts = f" in {settings.accumulate} parts" if settings.accumulate > 1 else ""
    first, second = (_describe_view(view) for view in settings.views)
    return [
        f"{len(images.paths)} images{held}",
        f"{settings.backbone} ({settings.stem} stem) at {settings.image_size} px ({settings.fit}), "
        + (f"weights from {settings.init}" if settings.init else "random weights")
        + f", heads {settings.projector_hidden}-{settings.projection_size}",
        f"recipe {settings.recipe}: {settings.epochs} epochs in batches of {settings.batch_size}{parts}, "
        f"{settings.optimizer} at {settings.learning_rate:.2g} after {settings.warmup_epochs:g} epochs of warm-up, "
        f"weight decay {settings.weight_decay:g}, tau from {settings.tau_base:g}",
        f"views: {first}" if first == second else f"view 1: {first}",
        *([] if first == second else [f"view 2: {second}"]),
        f"seed {settings.seed}, {settings.workers} workers",
    ]


def _describe_view(view: View) -> str:
    def show(value: object) -> str:
        return "–".join(f"{each:.2g}" for each in value) if isinstance(value, tuple) else f"{value:g}"

    strengths = " ".join(show(value) for value in vars(view.color_jitter).values())
    chances = [
        *(f"{name} {show(value)}" for name, value in vars(view.geometry).items()),
        f"flip {show(view.flip)}",
        f"jitter {show(view.jitter)} ({strengths})",
        *(f"{name} {show(getattr(view, name))}" for name in ("grayscale", "blur", "solarize")),
    ]
    return ", ".join(chances)


@click.command(short_help="Pretrain a backbone with BYOL on a folder of images: IMAGES → run.")
@click.argument("images", type=click.Path(path_type=Path))
@click.option("--out", required=True, type=click.Path(path_type=Path), help="The run to write, a folder.")
@click.option("--backbone", help="conv4, or any network of timm's, by name.  [default: resnet18]")
@click.option("--image-size", type=int, help="Side of the network's input, in pixels.  [default: 128]")
@click.option("--epochs", type=int, help="Passes over the images.  [default: 100]")
@click.option("--batch-size", type=int, help="Images in an optimizer step.  [default: 16 to 256, by their number]")
@click.option("--recipe", help="photographs, small (up to 64 px), textures or glyphs; see below.  [default: by size]")
@click.option("--fit", help="What becomes of borders: crop, squash or pad.  [default: crop]")
@click.option("--labels", type=FILE, help="Classes to measure kNN with: a CSV file with columns image, label.")
@click.option("--eval", "evaluation", type=FILE, help="Images to measure kNN on.  [default: a tenth, held out]")
@click.option("--init", help="Start from the weights of a run or checkpoint, or, with the word timm, of the library.")
@click.option("--config", type=FILE, help="Settings by name, in TOML; flags go before them.")
@click.option("--device", default="auto", show_default=True, help="cpu, cuda, or auto: a GPU if there is one.")
@click.option("--workers", type=int, help="Processes that decode images.  [default: one a CPU]")
@click.option("--seed", type=int, help="Same seed, same machine, same run.  [default: 0]")
@click.option("--resume", is_flag=True, help="Go on after the last finished epoch of the run at --out, or start it.")
@click.option("--overwrite", is_flag=True, help="Replace the run at --out.")
@click.option("--no-images", is_flag=True, default=None, help="Keep no image in the run; export then needs some.")
@click.option("--stem", help="A ResNet's first layers: standard, small or auto.  [default: auto]")
@click.option("--accumulate", type=int, help="Parts that a batch is computed in, to save memory.  [default: 1]")
@click.option("--optimizer", help="adamw, lars or sgd.  [default: adamw]")
@click.option("--learning-rate", type=float, help="Its peak.  [default: the optimizer's, by batch size]")
@click.option("--weight-decay", type=float, help="Not for biases and norms.  [default: the optimizer's]")
@click.option("--warmup-epochs", type=float, help="Epochs to the peak.  [default: 10, or a tenth]")
@click.option(
    "--tau-base", type=float, help="How slowly the target moves, at first.  [default: by the number of steps]"
)
@click.option("--projector-hidden", type=int, help="Width of projector and predictor.  [default: the recipe's]")
@click.option("--projection-size", type=int, help="Size of a projection.  [default: the recipe's]")
def train(
    images: Path,
    out: Path,
    labels: Path | None,
    evaluation: Path | None,
    config: Path | None,
    device: str,
    resume: bool,
    overwrite: bool,
    **options: Any,
) -> None:
    """Pretrain a backbone with BYOL on the images under IMAGES, searched recursively. Labels are never needed.

    Prints after each epoch the loss (0 to 8) and the rank of the embeddings (how many dimensions they use), and at the
    end a verdict against the untrained network. Where IMAGES has a folder a class, a tenth of the images is held out
    to measure kNN accuracy. Look at views.png in the run: it is what the network sees. --resume, with the same
    options, goes on after the last epoch.

    \b
    Recipes:
      photographs  crops, flips, colors, blur: what a photograph may lose
      small        the same up to 64 px, without blur
      textures     aerial, medical, textures: color and orientation are kept
      glyphs       characters, drawings: shown whole, a little turned and moved

    Example: byol-edge train photos --out runs/photos --epochs 100
    """
    with needs("train"):
        from ..train.config import read_config
        from ..train.loop import train as run_training
        from ..train.recipe import TrainConfig
    given = {name: value for name, value in options.items() if value is not None}
    settings = TrainConfig(**{**(read_config(config) if config else {}), **given})
    note_unread(images)
    with TrainingDisplay() as display:
        verdict = run_training(images, out, settings, display, device, labels, evaluation, resume, overwrite)
    if verdict.kind == "collapsed":
        raise RunError(f"the run in {out} has {verdict}")
    say(str(verdict))
    say(f"The run is in {out}; look at views.png and curves.png. Next: byol-edge export {out} --int8 --out BUNDLE")
