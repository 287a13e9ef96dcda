"""Accuracy of a training beside lightly's: the same backbone, images and minutes, in turn.

    pip install -e '.[all,interop]'
    python benchmarks/train_accuracy.py CIFAR10 --out DIR                 # CPU: a table of kNN accuracy, 2 hours
    python benchmarks/train_accuracy.py CIFAR10 --out DIR --epochs 200    # GPU: this project alone, all of CIFAR-10

CIFAR10 holds train/<class>/ and test/<class>/. What is finished is kept in DIR, and the same command goes on.

lightly's side is its own modules, transforms, data set and published settings for CIFAR-10: heads 1024-256, SGD at
0.06 x batch/128 with momentum 0.9 and weight decay 5e-4, cosine by epoch, a constant tau of 0.99, batches of 128 (it
publishes .872 for them at 200 epochs, .868 for 512). Each training gets as many epochs as fit the minutes at the speed
that four of them were measured to take. kNN (k=200, T=0.1) is the same code for both, of the last epoch.
"""

# pyright: reportMissingImports=false
# lightly comes with the extra `interop` only.

from __future__ import annotations

import argparse
import copy
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from byol_edge.models.backbones import build_backbone, embedding_size
from byol_edge.models.weights import load_encoder, serialize_encoder
from byol_edge.runtime import Preprocessing
from byol_edge.runtime.cpus import available_cpus
from byol_edge.runtime.run import EncoderSpec, Provenance, Run
from cifar10 import add_result, find_neighbors, link_images, load_labeled, read_results, train_by_command
from torch import nn
from torch.utils.data import DataLoader

SIDE = 32
BATCH = 128
TRAINERS = ("byol-edge", "lightly")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--backbones", default="resnet18,conv4")
    parser.add_argument(
        "--epochs", type=int, help="train on all images for so many epochs, small stem, without lightly"
    )
    parser.add_argument("--lightly", nargs=5, help=argparse.SUPPRESS)  # how this script calls itself
    arguments = parser.parse_args()
    if arguments.lightly:
        images, out, backbone, epochs, seed = arguments.lightly
        train_lightly(Path(images), Path(out), backbone, int(epochs), int(seed))
    elif arguments.epochs:
        run_whole(arguments.data, arguments.out, arguments.epochs)
    else:
        run_beside(arguments)


def run_whole(data: Path, out: Path, epochs: int) -> None:
    run = out / "whole"
    command = [sys.executable, "-m", "byol_edge", "train", data / "train", "--out", run, "--resume"]
    command += ["--image-size", SIDE, "--epochs", epochs, "--eval", data / "test"]
    subprocess.run([str(part) for part in command], check=True)
    print(f"ResNet-18, small stem, {epochs} epochs: kNN {knn(run, data / 'train', data / 'test'):.4f}")


def run_beside(arguments: argparse.Namespace) -> None:
    out, data = arguments.out, arguments.data
    images = link_images(data / "train", out / "images", arguments.images)
    done = read_results(out)
    for seed in range(arguments.seeds):
        for backbone in arguments.backbones.split(","):
            # Each trainer first in every other pair: a machine may grow slower, or faster.
            for trainer in TRAINERS if seed % 2 == 0 else TRAINERS[::-1]:
                key = {"backbone": backbone, "trainer": trainer, "seed": seed}
                if any(key.items() <= line.items() for line in done):
                    continue
                alike = [line["epochs"] for line in done if (line["backbone"], line["trainer"]) == (backbone, trainer)]
                timed = out / "timed"
                epochs = alike[0] if alike else fit_epochs(trainer, images, timed, backbone, arguments.minutes)
                run = out / f"{trainer}-{backbone}-{seed}"
                seconds = train(trainer, images, run, backbone, epochs, seed)
                accuracy = knn(run, images, data / "test")
                figures = {"epochs": epochs, "seconds": seconds, "knn": accuracy, "cpus": available_cpus()}
                done = add_result(out, {**key, **figures})
    print_table(done, arguments)


def fit_epochs(trainer: str, images: Path, scratch: Path, backbone: str, minutes: float) -> int:
    """How many epochs fit, by the time that four and one take."""
    four, one = (train(trainer, images, scratch, backbone, epochs, seed=0) for epochs in (4, 1))
    seconds = (four - one) / 3
    return max(1, int((60 * minutes - (one - seconds)) / seconds))


def train(trainer: str, images: Path, out: Path, backbone: str, epochs: int, seed: int) -> float:
    """Trains in a process of its own; returns its seconds."""
    if trainer == "byol-edge":
        options = ("--backbone", backbone, "--stem", "standard", "--image-size", SIDE)
        return train_by_command(images, out, *options, "--epochs", epochs, "--seed", seed)
    command = [sys.executable, __file__, "-", "--out", "-", "--lightly", images, out, backbone, epochs, seed]
    start = time.monotonic()
    subprocess.run([str(part) for part in command], check=True, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    return time.monotonic() - start


def knn(run: Path, bank: Path, test: Path) -> float:
    """kNN accuracy of a run's encoder on all test images."""
    encoder = Run(run).read_encoder()
    preprocessing = encoder.spec.preprocessing
    backbone = load_encoder(encoder.weights, encoder.spec, str(run))
    labeled = [load_labeled(folder, preprocessing) for folder in (bank, test)]
    hits, _ = find_neighbors(backbone, preprocessing, *labeled)
    return float(hits.mean())


class LightlyByol(nn.Module):
    """BYOL of lightly's own parts, as its CIFAR-10 benchmark puts them together."""

    def __init__(self, backbone: nn.Module, size: int) -> None:
        from lightly.models.modules import BYOLPredictionHead, BYOLProjectionHead
        from lightly.models.utils import deactivate_requires_grad

        super().__init__()
        self.backbone = backbone
        self.projector = BYOLProjectionHead(size, 1024, 256)
        self.predictor = BYOLPredictionHead(256, 1024, 256)
        self.target_backbone = copy.deepcopy(backbone)
        self.target_projector = copy.deepcopy(self.projector)
        deactivate_requires_grad(self.target_backbone)
        deactivate_requires_grad(self.target_projector)


def train_lightly(images: Path, out: Path, name: str, epochs: int, seed: int) -> None:
    torch.manual_seed(seed)
    backbone = build_backbone(name, SIDE, "standard")
    for _ in run_lightly(backbone, load_as_lightly(images, SIDE, BATCH), SIDE, epochs):
        pass
    save(out, backbone, name)


def run_lightly(backbone: nn.Module, loader: DataLoader, side: int, epochs: int) -> Iterator[float]:
    """Trains the backbone; after each epoch, the seconds that it took."""
    from lightly.loss import NegativeCosineSimilarity
    from lightly.models.utils import update_momentum

    device = next(backbone.parameters()).device
    model = LightlyByol(backbone.cpu(), embedding_size(backbone, side)).to(device).train()
    criterion = NegativeCosineSimilarity()
    learned = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(learned, lr=6e-2 * BATCH / 128, momentum=0.9, weight_decay=5e-4)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    for _ in range(epochs):
        start = time.perf_counter()
        for views, _, _ in loader:
            first, second = (view.to(device) for view in views)
            update_momentum(model.backbone, model.target_backbone, m=0.99)
            update_momentum(model.projector, model.target_projector, m=0.99)
            predictions = [model.predictor(model.projector(model.backbone(view))) for view in (first, second)]
            with torch.no_grad():
                targets = [model.target_projector(model.target_backbone(view)) for view in (first, second)]
            loss = 0.5 * (criterion(predictions[0], targets[1]) + criterion(predictions[1], targets[0]))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        schedule.step()
        yield time.perf_counter() - start


def load_as_lightly(images: Path, side: int, batch_size: int) -> DataLoader:
    from lightly.data import LightlyDataset
    from lightly.transforms.byol_transform import BYOLTransform, BYOLView1Transform, BYOLView2Transform

    views = BYOLTransform(
        BYOLView1Transform(input_size=side, gaussian_blur=0.0), BYOLView2Transform(input_size=side, gaussian_blur=0.0)
    )
    dataset: Any = LightlyDataset(str(images), transform=views)  # type: ignore[arg-type]
    return DataLoader(dataset, batch_size, shuffle=True, drop_last=True, num_workers=available_cpus())


def save(out: Path, backbone: nn.Module, name: str) -> None:
    out.mkdir(parents=True, exist_ok=True)
    spec = EncoderSpec(name, "standard", embedding_size(backbone, SIDE), Preprocessing(SIDE))
    Run(out).save_encoder(serialize_encoder(backbone, spec, Provenance(objective="lightly's BYOL")))


def print_table(lines: list[dict], arguments: argparse.Namespace) -> None:
    print(
        f"\nkNN accuracy on CIFAR-10's test images, {arguments.images} training images, {arguments.minutes:g} minutes,"
    )
    print(f"{available_cpus()} CPU(s), {arguments.seeds} seeds:")
    print(f"{'backbone':<12}{'trainer':<12}{'mean':>7}{'lowest':>8}{'highest':>9}{'epochs':>8}{'seconds':>9}")
    for backbone in arguments.backbones.split(","):
        scores = {}
        for trainer in TRAINERS:
            rows = [line for line in lines if (line["backbone"], line["trainer"]) == (backbone, trainer)]
            values = scores[trainer] = np.array([row["knn"] for row in sorted(rows, key=lambda row: row["seed"])])
            epochs, seconds = (np.mean([row[key] for row in rows]) for key in ("epochs", "seconds"))
            print(
                f"{backbone:<12}{trainer:<12}{values.mean():>7.3f}{values.min():>8.3f}{values.max():>9.3f}"
                f"{epochs:>8.0f}{seconds:>9.0f}"
            )
        ahead = scores["byol-edge"] - scores["lightly"]
        print(f"{'':<12}{'ahead by':<12}{ahead.mean():>7.3f}{ahead.min():>8.3f}{ahead.max():>9.3f}  (paired by seed)")


if __name__ == "__main__":
    main()
