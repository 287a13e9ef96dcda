"""Which backbones learn, and which collapse: each edge network by its recipe, the same small budget, some seeds.

    pip install -e '.[all]'
    python benchmarks/edge_backbones.py CIFAR10 --out DIR

CIFAR10 holds train/<class>/ and test/<class>/. What is finished is kept in DIR, and the same command goes on; DIR keeps
the runs too. A network is `ok` if in every seed its RankMe is not below the untrained network's and its kNN accuracy
above it by more than the 95 % interval of the paired difference. Both are measured on all test images.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from byol_edge.evaluate.intervals import bootstrap_interval
from byol_edge.evaluate.rank import rank_me
from byol_edge.models.weights import load_encoder, untrained_encoder
from byol_edge.runtime.cpus import available_cpus
from byol_edge.runtime.run import Run
from cifar10 import add_result, find_neighbors, link_images, load_labeled, read_results, train_by_command

BACKBONES = (
    "resnet18",
    "resnet50",
    "mobilenetv3_small_100",
    "mobilenetv4_conv_small",
    "tf_efficientnet_lite0",
    "repvgg_a0",
    "mobileone_s0",
    "conv4",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--image-size", type=int, default=32)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--backbones", default=",".join(BACKBONES))
    arguments = parser.parse_args()
    images = link_images(arguments.data / "train", arguments.out / "images", arguments.images)
    done = read_results(arguments.out)
    for seed in range(arguments.seeds):
        for backbone in arguments.backbones.split(","):
            key = {"backbone": backbone, "seed": seed}
            if any(key.items() <= line.items() for line in done):
                continue
            run = arguments.out / f"{backbone}-{seed}"
            options = ("--backbone", backbone, "--stem", "standard", "--image-size", arguments.image_size)
            seconds = train_by_command(images, run, *options, "--epochs", arguments.epochs, "--seed", seed)
            figures = measure(run, images, arguments.data / "test", seed)
            done = add_result(arguments.out, {**key, "seconds": seconds, **figures})
    print_table(done, arguments)


def measure(run: Path, bank: Path, test: Path, seed: int) -> dict[str, Any]:
    """kNN and RankMe on the test images, trained and untrained, and the paired difference with its 95 % interval."""
    encoder = Run(run).read_encoder()
    spec, preprocessing = encoder.spec, encoder.spec.preprocessing
    labeled = [load_labeled(folder, preprocessing) for folder in (bank, test)]
    trained = load_encoder(encoder.weights, spec, str(run))
    hits, vectors = find_neighbors(trained, preprocessing, *labeled)
    hits_untrained, vectors_untrained = find_neighbors(untrained_encoder(spec, seed), preprocessing, *labeled)
    gain = bootstrap_interval(hits - hits_untrained)
    return {
        "knn": hits.mean(),
        "knn_untrained": hits_untrained.mean(),
        "gain": gain.mean,
        "least": gain.lower,
        "rank": rank_me(vectors),
        "rank_untrained": rank_me(vectors_untrained),
        "size": spec.embedding_size,
        "verdict": encoder.provenance.verdict,
    }


def print_table(lines: list[dict[str, Any]], arguments: argparse.Namespace) -> None:
    print(
        f"\nCIFAR-10, {arguments.images} training images at {arguments.image_size} px, {arguments.epochs} epochs, "
        f"{arguments.seeds} seeds, {available_cpus()} CPU(s); means, and the least favorable seed's gain and rank:"
    )
    print(f"{'backbone':<24}{'kNN':>7}{'untrained':>11}{'gain':>8}{'least':>8}{'rank':>7}{'least':>7}{'untrained':>11}"
          f"{'of':>6}{'seconds':>9}  ok")  # fmt: skip
    for backbone in arguments.backbones.split(","):
        rows = [line for line in lines if line["backbone"] == backbone]
        mean = {key: np.mean([row[key] for row in rows]) for key in rows[0] if isinstance(rows[0][key], (int, float))}
        ok = all(row["least"] > 0 and row["rank"] >= row["rank_untrained"] for row in rows)
        print(
            f"{backbone:<24}{mean['knn']:>7.3f}{mean['knn_untrained']:>11.3f}{mean['gain']:>8.3f}"
            f"{min(row['least'] for row in rows):>8.3f}{mean['rank']:>7.0f}"
            f"{min(row['rank'] for row in rows):>7.0f}{mean['rank_untrained']:>11.0f}{mean['size']:>6.0f}"
            f"{mean['seconds']:>9.0f}  {'yes' if ok else 'NO'}"
        )


if __name__ == "__main__":
    main()
