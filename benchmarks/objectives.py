"""What objectives bring from random weights in the same time: a table of kNN accuracy on CIFAR-10.

    pip install -e '.[all,interop]'
    python benchmarks/objectives.py CIFAR10 --out DIR                          # 3 hours on one core
    taskset -c 0 python benchmarks/objectives.py CIFAR10 --out DIR --backbones conv4      # or one process per core,
    taskset -c 1 python benchmarks/objectives.py CIFAR10 --out DIR --backbones resnet18   # then the table: --table

CIFAR10 holds train/<class>/ and test/<class>/. What is finished is kept in DIR, and the same command goes on.

Each training gets as many epochs as fit the minutes, which are those of a processor: of the command with all of its
processes, its start and its end. So other work on the machine changes little. The chain is an autoencoder, then InfoNCE
from its weights, then BYOL from these, with a third of the minutes each. Fused are two encoders' vectors side by side,
as `byol-edge export A B --fuse` has them: twice the minutes and twice the length. kNN has k=200 and T=0.1.

lightly's side is its own modules, losses, transforms and published settings for CIFAR-10 (batches of 128, SGD at 0.06
with momentum 0.9 and weight decay 5e-4, cosine by epoch): SimCLR with T = 0.5, MoCo with T = 0.1, 4,096 negatives
in its memory and a constant tau of 0.99.
"""

# pyright: reportMissingImports=false
# lightly comes with the extra `interop` only.

from __future__ import annotations

import argparse
import copy
import itertools
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch
from byol_edge.evaluate.knn import knn_classes
from byol_edge.models.backbones import build_backbone, embedding_size
from byol_edge.models.network import InferenceNetwork, embed_pixels
from byol_edge.models.weights import load_encoder, untrained_encoder
from byol_edge.runtime import Preprocessing
from byol_edge.runtime.cpus import available_cpus
from byol_edge.runtime.fidelity import Vectors, unit_rows
from byol_edge.runtime.run import EncoderSpec, Run
from cifar10 import Labeled, add_result, cpu_seconds, link_images, load_labeled, read_results, train_by_command
from torch import nn
from torch.utils.data import DataLoader
from train_accuracy import save

SIDE, BATCH = 32, 128
OWN = ("autoencoder", "infonce", "byol")
PEERS = ("simclr", "moco")
CHAIN = "chain"
# Weights that are minutes old go on as random ones would.
GOING_ON = ("--backbone-rate", 1, "--no-frozen-norms")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=5)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--backbones", default="conv4,resnet18")
    parser.add_argument("--peers", default=",".join(PEERS))
    parser.add_argument("--table", action="store_true", help="print the table of what is finished")
    parser.add_argument("--lightly", nargs=5, help=argparse.SUPPRESS)  # how this script calls itself
    arguments = parser.parse_args()
    if arguments.lightly:
        images, method, backbone, epochs, seed = arguments.lightly
        train_peer(Path(images), arguments.out, method, backbone, int(epochs), int(seed))
        return
    if not arguments.table:
        for seed in range(arguments.seeds):
            for backbone in arguments.backbones.split(","):
                measure(arguments, backbone, seed)
    print_table(read_results(arguments.out), arguments)


def measure(arguments: argparse.Namespace, backbone: str, seed: int) -> None:
    """Trains by each objective, as far as that is not done, and adds a line for each of them, and for each pair."""
    out: Path = arguments.out
    images = link_images(arguments.data / "train", out / "images", arguments.images)
    labeled = [load_labeled(folder, Preprocessing(SIDE)) for folder in (images, arguments.data / "test")]
    done = {line["method"] for line in read_results(out) if (line["backbone"], line.get("seed")) == (backbone, seed)}
    trained: dict[str, list[Vectors]] = {}

    def add(method: str, vectors: list[Vectors], **figures: float) -> None:
        if method not in done:
            line = {"backbone": backbone, "seed": seed, "method": method, "knn": knn(vectors, *labeled), **figures}
            add_result(out, line)

    add("untrained", embed_untrained(backbone, seed, labeled))
    for method in (*OWN, *filter(None, arguments.peers.split(","))):
        run, figures = out / f"{method}-{backbone}-{seed}", {}
        if method not in done:
            epochs = fit_epochs(out, images, method, backbone, arguments.minutes)
            figures = {"epochs": epochs, "seconds": train(method, images, run, backbone, epochs, seed)}
        trained[method] = embed(run, labeled)
        add(method, trained[method], **figures)
    if CHAIN not in done:
        add_chain(arguments, images, backbone, seed, labeled)
    for pair in itertools.combinations(OWN, 2):
        fused = [unit_rows(np.concatenate(parts, 1)) for parts in zip(*(trained[each] for each in pair), strict=True)]
        add(" + ".join(pair), fused)


def add_chain(arguments: argparse.Namespace, images: Path, backbone: str, seed: int, labeled: list[Labeled]) -> None:
    """One line per stage, the last one under the name of the chain."""
    before, epochs, seconds = None, 0, 0.0
    for stage in OWN:
        run = arguments.out / f"{CHAIN}-{stage}-{backbone}-{seed}"
        own = fit_epochs(arguments.out, images, stage, backbone, arguments.minutes / len(OWN))
        start = () if before is None else ("--init", before, *GOING_ON)
        seconds += train(stage, images, run, backbone, own, seed, *start)
        epochs, before = epochs + own, run
        line = {"backbone": backbone, "seed": seed, "knn": knn(embed(run, labeled), *labeled)}
        name = CHAIN if stage == OWN[-1] else f"{CHAIN} to {stage}"
        add_result(arguments.out, {**line, "method": name, "epochs": epochs, "seconds": seconds})


def fit_epochs(out: Path, images: Path, method: str, backbone: str, minutes: float) -> int:
    """How many epochs fit, by the seeds before this one, else by the time that two and one take."""
    key = {"timed": method, "backbone": backbone}
    lines = read_results(out)
    known = [line for line in lines if key.items() <= line.items()]
    if not known:
        scratch = out / f"timed-{backbone}"
        two, one = (train(method, images, scratch, backbone, epochs, 0) for epochs in (2, 1))
        shutil.rmtree(scratch)
        known = add_result(out, {**key, "fixed": 2 * one - two, "per_epoch": two - one})[-1:]
    fixed, per_epoch = known[0]["fixed"], known[0]["per_epoch"]
    if done := [line for line in lines if (line.get("method"), line["backbone"]) == (method, backbone)]:
        per_epoch = sum(line["seconds"] - fixed for line in done) / sum(line["epochs"] for line in done)
    return max(1, round((60 * minutes - fixed) / per_epoch))


def train(method: str, images: Path, run: Path, backbone: str, epochs: int, seed: int, *options: object) -> float:
    """Trains in a process of its own; returns the seconds that it computed."""
    before = cpu_seconds()
    if method in OWN:
        network = ("--backbone", backbone, "--stem", "standard", "--image-size", SIDE, "--batch-size", 64)
        train_by_command(images, run, "--objective", method, *network, "--epochs", epochs, "--seed", seed, *options)
    else:
        command = [sys.executable, __file__, "-", "--out", run, "--lightly", images, method, backbone, epochs, seed]
        subprocess.run([str(part) for part in command], check=True, stderr=subprocess.DEVNULL)
    return cpu_seconds() - before


def embed(run: Path, labeled: list[Labeled]) -> list[Vectors]:
    """A run's embeddings of training and test images, of unit length."""
    encoder = Run(run).read_encoder()
    network = InferenceNetwork(load_encoder(encoder.weights, encoder.spec, str(run)), encoder.spec.preprocessing)
    return [unit_rows(embed_pixels(network, part.pixels)) for part in labeled]


def embed_untrained(backbone: str, seed: int, labeled: list[Labeled]) -> list[Vectors]:
    network = InferenceNetwork(
        untrained_encoder(EncoderSpec(backbone, "standard", 1, Preprocessing(SIDE)), seed), Preprocessing(SIDE)
    )
    return [unit_rows(embed_pixels(network, part.pixels)) for part in labeled]


def knn(vectors: list[Vectors], bank: Labeled, test: Labeled) -> float:
    return float((knn_classes(vectors[0], bank.classes, vectors[1]) == test.classes).mean())


class Peer(nn.Module):
    """SimCLR or MoCo of lightly's own parts, as its CIFAR-10 benchmark puts them together."""

    def __init__(self, method: str, backbone: nn.Module, size: int) -> None:
        from lightly.loss import NTXentLoss
        from lightly.models.modules import MoCoProjectionHead, SimCLRProjectionHead

        super().__init__()
        self.backbone, self.momentum = backbone, method == "moco"
        if self.momentum:
            self.projector: nn.Module = MoCoProjectionHead(size, size, 128)
            self.loss = NTXentLoss(temperature=0.1, memory_bank_size=(4096, 128))
            self.target_backbone = copy.deepcopy(backbone).requires_grad_(False)
            self.target_projector = copy.deepcopy(self.projector).requires_grad_(False)
        else:
            self.projector = SimCLRProjectionHead(size, size, 128)
            self.loss = NTXentLoss(temperature=0.5)

    def forward(self, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
        from lightly.models.utils import batch_shuffle, batch_unshuffle, update_momentum

        query = self.projector(self.backbone(first))
        if not self.momentum:
            return self.loss(query, self.projector(self.backbone(second)))
        update_momentum(self.backbone, self.target_backbone, m=0.99)
        update_momentum(self.projector, self.target_projector, m=0.99)
        with torch.no_grad():
            shuffled, order = batch_shuffle(second)
            key = batch_unshuffle(self.target_projector(self.target_backbone(shuffled)), order)
        return self.loss(query, key)


def train_peer(images: Path, out: Path, method: str, name: str, epochs: int, seed: int) -> None:
    from lightly.data import LightlyDataset
    from lightly.transforms import MoCoV2Transform, SimCLRTransform

    torch.manual_seed(seed)
    backbone = build_backbone(name, SIDE, "standard")
    if method == "moco":
        transform = MoCoV2Transform(input_size=SIDE, gaussian_blur=0.0)
    else:
        transform = SimCLRTransform(input_size=SIDE, cj_strength=0.5, gaussian_blur=0.0)
    dataset = LightlyDataset(str(images), transform=transform)
    loader = DataLoader(dataset, BATCH, shuffle=True, drop_last=True, num_workers=available_cpus())  # type: ignore[arg-type]
    model = Peer(method, backbone, embedding_size(backbone, SIDE)).train()
    learned = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(learned, lr=6e-2, momentum=0.9, weight_decay=5e-4)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    for _ in range(epochs):
        for (first, second), _, _ in loader:
            optimizer.zero_grad()
            model(first, second).backward()
            optimizer.step()
        schedule.step()
    save(out, backbone, name)


def print_table(lines: list[dict], arguments: argparse.Namespace) -> None:
    print(f"\nkNN accuracy on CIFAR-10's test images, {arguments.images} training images at {SIDE} px,")
    print(f"{arguments.minutes:g} minutes of one core per training, {arguments.seeds} seeds:")
    print(f"{'backbone':<10}{'':<24}{'mean':>7}{'lowest':>8}{'highest':>9}{'epochs':>8}{'seconds':>9}")
    found = [line for line in lines if "method" in line]
    for backbone in arguments.backbones.split(","):
        for method in dict.fromkeys(line["method"] for line in found):
            rows = [line for line in found if (line["backbone"], line["method"]) == (backbone, method)]
            if rows:
                values = np.array([row["knn"] for row in rows])
                trained = [np.mean([row[key] for row in rows if key in row] or [0]) for key in ("epochs", "seconds")]
                print(
                    f"{backbone:<10}{method:<24}{values.mean():>7.3f}{values.min():>8.3f}{values.max():>9.3f}"
                    f"{trained[0]:>8.0f}{trained[1]:>9.0f}"
                )


if __name__ == "__main__":
    main()
