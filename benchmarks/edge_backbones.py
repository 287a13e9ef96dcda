"""Which backbones learn, and which collapse: each edge network by its recipe, the same small budget, some seeds.

    pip install -e '.[all]'
    python benchmarks/edge_backbones.py CIFAR10 --out DIR

CIFAR10 holds train/<class>/ and test/<class>/. What is finished is kept in DIR, and the same command goes on; DIR keeps
the runs too. A network is `ok` if in every seed its RankMe is not below the untrained network's and its kNN accuracy
above it by more than the 95 % interval of the paired difference. Both are measured on all test images.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from byol_edge.models.network import InferenceNetwork, embed_pixels
from byol_edge.models.weights import EncoderSpec, load_encoder, untrained_encoder
from byol_edge.runtime import find_images
from byol_edge.runtime.cpus import available_cpus
from byol_edge.runtime.preprocessing import prepare_all
from byol_edge.train.evidence import knn_classes, rank_me
from numpy.typing import NDArray
from train_accuracy import link_images

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
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--backbones", default=",".join(BACKBONES))
    arguments = parser.parse_args()
    results = arguments.out / "results.jsonl"
    images = link_images(arguments.data / "train", arguments.out / "images", arguments.images)
    done = [json.loads(line) for line in results.read_text().splitlines()] if results.exists() else []
    for seed in range(arguments.seeds):
        for backbone in arguments.backbones.split(","):
            if any((line["backbone"], line["seed"]) == (backbone, seed) for line in done):
                continue
            run = arguments.out / f"{backbone}-{seed}"
            seconds = train(images, run, backbone, seed, arguments)
            done.append(
                {"backbone": backbone, "seed": seed, "seconds": seconds, **measure(run, arguments.data, images)}
            )
            print(json.dumps(done[-1]), flush=True)
            results.write_text("".join(json.dumps(each) + "\n" for each in done))
    print_table(done, arguments)


def train(images: Path, run: Path, backbone: str, seed: int, arguments: argparse.Namespace) -> float:
    """By the command, as anybody would; a run that collapses stops, and what it left is measured all the same."""
    command = [sys.executable, "-m", "byol_edge.cli.main", "train", images, "--out", run, "--overwrite"]
    command += ["--backbone", backbone, "--image-size", arguments.image_size, "--epochs", arguments.epochs]
    command += ["--stem", "standard", "--seed", seed]
    start = time.monotonic()
    subprocess.run([str(part) for part in command], stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    return time.monotonic() - start


def measure(run: Path, data: Path, bank: Path) -> dict[str, Any]:
    """kNN and RankMe on the test images, trained and untrained, and the paired difference with its 95 % interval."""
    content = json.loads((run / "encoder.json").read_text())
    spec = EncoderSpec.from_json(content)
    paths = [find_images(bank), find_images(data / "test")]
    classes = sorted({path.parent.name for path in paths[1]})
    labels = [np.array([classes.index(path.resolve().parent.name) for path in part]) for part in paths]
    pixels = [prepare_all(part, spec.preprocessing) for part in paths]
    trained = load_encoder((run / "encoder.safetensors").read_bytes(), spec, str(run))
    hits: dict[str, NDArray[np.float64]] = {}
    rank: dict[str, float] = {}
    for name, backbone in (("trained", trained), ("untrained", untrained_encoder(spec, content["provenance"]["seed"]))):
        network = InferenceNetwork(backbone, spec.preprocessing)
        vectors = [embed_pixels(network, part) for part in pixels]
        hits[name] = (knn_classes(vectors[0], labels[0], vectors[1]) == labels[1]).astype(float)
        rank[name] = rank_me(vectors[1])
    gain = hits["trained"] - hits["untrained"]
    return {
        "knn": hits["trained"].mean(),
        "knn_untrained": hits["untrained"].mean(),
        "gain": gain.mean(),
        "interval": 1.96 * gain.std(ddof=1) / len(gain) ** 0.5,
        "rank": rank["trained"],
        "rank_untrained": rank["untrained"],
        "size": spec.embedding_size,
        "verdict": content["provenance"]["verdict"],
    }


def print_table(lines: list[dict[str, Any]], arguments: argparse.Namespace) -> None:
    print(
        f"\nCIFAR-10, {arguments.images} training images at {arguments.image_size} px, {arguments.epochs} epochs, "
        f"{arguments.seeds} seeds, {available_cpus()} CPU(s); means, and the least favourable seed's gain and rank:"
    )
    print(f"{'backbone':<24}{'kNN':>7}{'untrained':>11}{'gain':>8}{'least':>8}{'rank':>7}{'least':>7}{'untrained':>11}"
          f"{'of':>6}{'seconds':>9}  ok")  # fmt: skip
    for backbone in arguments.backbones.split(","):
        rows = [line for line in lines if line["backbone"] == backbone]
        mean = {key: np.mean([row[key] for row in rows]) for key in rows[0] if isinstance(rows[0][key], (int, float))}
        ok = all(row["gain"] > row["interval"] and row["rank"] >= row["rank_untrained"] for row in rows)
        print(
            f"{backbone:<24}{mean['knn']:>7.3f}{mean['knn_untrained']:>11.3f}{mean['gain']:>8.3f}"
            f"{min(row['gain'] - row['interval'] for row in rows):>8.3f}{mean['rank']:>7.0f}"
            f"{min(row['rank'] for row in rows):>7.0f}{mean['rank_untrained']:>11.0f}{mean['size']:>6.0f}"
            f"{mean['seconds']:>9.0f}  {'yes' if ok else 'NO'}"
        )


if __name__ == "__main__":
    main()
