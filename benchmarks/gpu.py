"""What training does on a GPU: one command, ten minutes, no network, no files but its own.

    pip install -e '.[train]'
    python benchmarks/gpu.py --out DIR                # everything that fits in --minutes, in order
    python benchmarks/gpu.py --out DIR --only resume
    python benchmarks/gpu.py --out DIR --long CIFAR   # 200 epochs; the same command again goes on
    python benchmarks/gpu.py --out DIR --device cpu   # the same in miniature

Images are drawn: 32 px PNGs, and JPEGs of 500 x 375 px. Every training is `byol-edge train`, three epochs, of which the
last counts; lightly's loop runs beside it if lightly is installed. Each figure is printed as it is measured. CIFAR is a
folder with train/ and test/, one folder per class in each.
"""

from __future__ import annotations

import argparse
import importlib.util
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from byol_edge.models.backbones import build_backbone, embedding_size, resolve_stem
from byol_edge.models.byol import BYOLConfig
from byol_edge.models.objective import Views
from byol_edge.runtime import Preprocessing
from byol_edge.runtime.cpus import available_cpus
from byol_edge.runtime.run import Metrics, Run
from byol_edge.train.optimizer import build_optimizer
from byol_edge.train.pictures import place, read_picture
from byol_edge.train.precision import autocast
from byol_edge.train.recipe import RECIPES
from byol_edge.train.renderers import RENDERERS
from byol_edge.train.versions import versions
from byol_edge.train.views import sample
from cifar10 import train_by_command
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor


@dataclass(frozen=True)
class Scale:
    """How much of everything: of a GPU, or in miniature for a CPU."""

    small: int  # images of 32 px
    large: int  # JPEGs
    batch: int  # at 32 px
    large_batch: int
    side: int  # of the large ones' network
    product: int  # side of the matrices that are multiplied
    steps: int


GPU = Scale(20_480, 4096, 512, 256, 224, 8192, 30)
MINIATURE = Scale(128, 64, 32, 16, 64, 512, 2)


@dataclass(frozen=True)
class Bench:
    out: Path
    device: torch.device
    scale: Scale

    @property
    def small(self) -> Path:
        return draw_set(self.out / "small", self.scale.small, draw_small)

    @property
    def large(self) -> Path:
        return draw_set(self.out / "large", self.scale.large, draw_large)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=9)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--only", choices=PARTS, help="one part")
    parser.add_argument("--long", type=Path, metavar="CIFAR", help="train a ResNet-18 for 200 epochs instead")
    arguments = parser.parse_args()
    start, device = time.monotonic(), torch.device(arguments.device)
    bench = Bench(arguments.out, device, MINIATURE if device.type == "cpu" else GPU)
    name = torch.cuda.get_device_name() if device.type == "cuda" else "no GPU: in miniature"
    print(f"{name}, {available_cpus()} CPUs, {versions()}", flush=True)
    if arguments.long:
        train_long(bench, arguments.long, 60 * arguments.minutes)
        return
    for part, run in PARTS.items():
        if arguments.only in (None, part):
            if time.monotonic() - start > 60 * arguments.minutes:
                print(f"{part}: not begun, no time is left")
                continue
            begun = time.monotonic()
            print(f"\n{part}", flush=True)
            try:
                run(bench)
            except SystemExit as error:  # a training failed, and said why
                print(f"  {str(error).strip().splitlines()[-1]}")
            print(f"  ({time.monotonic() - begun:.0f} s)", flush=True)


def draw_set(folder: Path, count: int, draw: Callable[[Path, int], None]) -> Path:
    """A folder of drawn images, made once."""
    if not (folder / "done").exists():
        folder.mkdir(parents=True, exist_ok=True)
        with ProcessPoolExecutor(available_cpus()) as pool:
            list(pool.map(partial(draw, folder), range(count), chunksize=64))
        (folder / "done").touch()
    return folder


def draw_small(folder: Path, number: int) -> None:
    pixels = np.random.default_rng(number).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    Image.fromarray(pixels).resize((32, 32), Image.Resampling.BICUBIC).save(folder / f"{number:06}.png")


def draw_large(folder: Path, number: int) -> None:
    pixels = np.random.default_rng(number).integers(0, 256, (24, 32, 3), dtype=np.uint8)
    image = Image.fromarray(pixels).resize((500, 375), Image.Resampling.BICUBIC)
    image.save(folder / f"{number:06}.jpg", quality=90)


def measure_ceilings(bench: Bench) -> None:
    """What the machine can do at most: a large product in bfloat16, and a copy."""
    side = bench.scale.product
    one, other = (torch.randn(side, side, device=bench.device, dtype=torch.bfloat16) for _ in range(2))
    seconds = time_of(lambda: one @ other, bench)
    print(f"  bf16 product of {side} px matrices: {2 * side**3 / seconds / 1e12:.1f} TFLOP/s".replace(" px", ""))
    block = torch.empty(2**24 * (16 if bench.device.type == "cuda" else 1), device=bench.device)
    target = torch.empty_like(block)
    print(f"  copy: {2 * 4 * block.numel() / time_of(lambda: target.copy_(block), bench) / 1e9:.0f} GB/s")


def measure_small(bench: Bench) -> None:
    """ResNet-18 at 32 px: views on the device and in the workers, with a cache, and lightly's loop."""
    scale, cache = bench.scale, bench.out / "cache"
    for augment in RENDERERS:
        show(f"resnet18, 32 px, views by {augment}", train(bench, bench.small, "resnet18", 32, scale.batch,
                                                          "--augment", augment, "--cache", cache))  # fmt: skip
    if importlib.util.find_spec("lightly") is None:
        print("  lightly is not installed")
        return
    from train_accuracy import load_as_lightly, run_lightly

    backbone = build_backbone("resnet18", 32, "small").to(bench.device)
    *_, seconds = run_lightly(backbone, load_as_lightly(bench.small, 32, scale.batch), 32, epochs=2)
    print(f"  lightly: {scale.small // scale.batch * scale.batch / seconds:.0f} images/s")


def measure_large(bench: Bench) -> None:
    """From JPEGs, decoded in each epoch and once."""
    scale = bench.scale
    for backbone in ("resnet18", "resnet50"):
        for name, options in (("from JPEG", ()), ("with a cache", ("--cache", bench.out / "cache"))):
            metrics = train(bench, bench.large, backbone, scale.side, scale.large_batch, *options)
            show(f"{backbone}, {scale.side} px, {name}", metrics)


def compare_views(bench: Bench) -> None:
    """The same numbers, rendered by the device and by a worker: levels of 255."""
    for recipe, make in RECIPES.items():
        for side in (32, bench.scale.side):
            preprocessing = Preprocessing(side)
            loaded = []
            for path in sorted(bench.large.glob("*.jpg"))[:32]:
                picture, rng = read_picture(path, preprocessing), np.random.default_rng(len(loaded))
                views = (place(sample(view, picture.size, "crop", rng), picture, "crop") for view in make().views)
                loaded.append((picture.pixels, tuple(views)))
            drawn = []
            for name, device in (("workers", torch.device("cpu")), ("device", bench.device)):
                renderer = RENDERERS[name](preprocessing)
                collated = renderer.collate([renderer.load(row, *each) for row, each in enumerate(loaded)])
                drawn.append(torch.stack(renderer.finish(collated, device)).float().cpu())
            differs = (drawn[0] - drawn[1]).abs().flatten()
            most = differs.kthvalue(round(0.99 * len(differs))).values
            print(f"  {recipe}, {side} px: 99 % within {most:.2f}, all within {differs.max():.2f}")


def compare_steps(bench: Bench) -> None:
    """Losses of 20 steps in FP64, on the device and on the CPU."""
    losses = []
    for device in (torch.device("cpu"), bench.device):
        step = make_step(device, 32, 32, "fp32", "conv4", dtype=torch.float64)
        losses.append([float(step()) for _ in range(20)])
    furthest = max(abs(one - other) for one, other in zip(*losses, strict=True))
    print(f"  20 steps in FP64: losses within {furthest:.1e} of the CPU's, the last {losses[1][-1]:.4f}")


def compare_resumed(bench: Bench) -> None:
    """A run that is killed after its first epoch and goes on, and one that is not."""
    for options in ((), ("--deterministic",)):
        furthest = resume_killed(bench, *options)
        name = f"killed after an epoch and resumed {' '.join(options)}".strip()
        print(f"  {name}: weights within {furthest:.1e} of an uninterrupted run's", flush=True)


def resume_killed(bench: Bench, *options: object) -> float:
    """The largest difference of a weight."""
    whole, cut = bench.out / "whole", bench.out / "cut"
    size = ("resnet18", 32, bench.scale.batch)
    train(bench, bench.small, *size, *options, run=whole)
    (cut / "last.pt").unlink(missing_ok=True)
    command = [sys.executable, "-m", "byol_edge", "train", bench.small, "--out", cut, "--overwrite"]
    command = [str(part) for part in (*command, *options_of(bench, *size), *options)]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    while process.poll() is None and not (cut / "last.pt").exists():
        time.sleep(0.1)
    process.kill()
    process.wait()
    resume = [sys.executable, "-m", "byol_edge", "train", "--resume", "--out", str(cut), *map(str, options)]
    subprocess.run(resume, check=True, capture_output=True)
    one, other = (load_file(run / "encoder.safetensors") for run in (whole, cut))
    return max(float((one[name].double() - other[name].double()).abs().max()) for name in one)


def train_long(bench: Bench, images: Path, seconds: float) -> None:
    """kNN accuracy of a ResNet-18 after 200 epochs, in as many calls as it takes."""
    run, epochs = bench.out / "long", 2 if bench.scale == MINIATURE else 200
    command = [sys.executable, "-m", "byol_edge", "train", images / "train", "--eval", images / "test", "--out", run]
    settings = options_of(bench, "resnet18", 32, bench.scale.batch)
    command += [*settings, "--epochs", epochs, "--cache", bench.out / "cache", "--resume"]
    with suppress(subprocess.TimeoutExpired):
        subprocess.run(list(map(str, command)), timeout=seconds, check=True)
    history = Run(run).read_metrics()
    if not history:
        print("  no epoch was finished")
        return
    known = [each for each in history if each.knn is not None]
    minutes = sum(each.seconds or 0 for each in history) / 60
    print(f"  epoch {history[-1].epoch} of {epochs} after {minutes:.1f} min of training", end="")
    print(f"; kNN {known[-1].knn:.3f} after epoch {known[-1].epoch}" if known else "")


def measure_steps(bench: Bench) -> None:
    """What precision and compilation bring: the step alone, on noise."""
    scale = bench.scale
    for backbone, side, batch in (("resnet18", 32, scale.batch), ("resnet50", scale.side, scale.large_batch)):
        for precision, compiled in (("fp32", False), ("bf16", False), ("bf16", True)):
            name = f"{backbone}, {side} px, {precision}{', compiled' if compiled else ''}"
            try:
                seconds = time_of(make_step(bench.device, side, batch, precision, backbone, compiled), bench)
                print(f"  {name}: {batch / seconds:.0f} images/s", flush=True)
            except Exception as error:  # compilation fails in many ways
                print(f"  {name}: {type(error).__name__}")


def make_step(
    device: torch.device,
    side: int,
    batch: int,
    precision: str,
    backbone: str = "resnet18",
    compiled: bool = False,
    dtype: torch.dtype = torch.float32,
) -> Callable[[], Tensor]:
    """A step of BYOL on noise, which returns its loss."""
    torch.manual_seed(0)
    network = build_backbone(backbone, side, resolve_stem(backbone, side, "auto"))
    objective = BYOLConfig(0.99, 1024, 256).build(network, embedding_size(network, side), side).train()
    views = Views(*(torch.randn(batch, 3, side, side).to(device, dtype) for _ in range(2)))
    objective = objective.to(device, dtype).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = build_optimizer("adamw", dict(objective.named_parameters()), 1e-4, 1e-4)
    forward = torch.compile(objective) if compiled else objective

    def step() -> Tensor:
        with autocast(precision, device):
            loss: Tensor = forward(views).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        objective.after_step(0.5)
        return loss.detach()

    return step


def train(
    bench: Bench, images: Path, backbone: str, side: int, batch: int, *options: object, run: Path | None = None
) -> Metrics:
    """The figures of the last epoch."""
    run = run or bench.out / "run"
    train_by_command(images, run, *options_of(bench, backbone, side, batch), *options)
    return Run(run).read_metrics()[-1]


def options_of(bench: Bench, backbone: str, side: int, batch: int) -> tuple[object, ...]:
    size = ("--image-size", side, "--batch-size", batch)
    return ("--backbone", backbone, *size, "--epochs", 3, "--objective", "byol", "--device", bench.device.type)


def show(name: str, metrics: Metrics) -> None:
    shares = f"{metrics.waiting or 0:.0%} waiting, {metrics.rendering or 0:.0%} making views"
    memory = f"{(metrics.memory or 0) / 1e9:.1f} GB"
    print(f"  {name}: {metrics.images_per_s or 0:.0f} images/s, {shares}, {memory}", flush=True)


def time_of(run: Callable[[], object], bench: Bench) -> float:
    """Seconds, on average after some to warm up."""
    for _ in range(3):
        run()
    wait(bench)
    start = time.perf_counter()
    for _ in range(bench.scale.steps):
        run()
    wait(bench)
    return (time.perf_counter() - start) / bench.scale.steps


def wait(bench: Bench) -> None:
    if bench.device.type == "cuda":
        torch.cuda.synchronize()


PARTS: dict[str, Callable[[Bench], None]] = {
    "ceilings": measure_ceilings,
    "small": measure_small,
    "views": compare_views,
    "steps": measure_steps,
    "large": measure_large,
    "cpu": compare_steps,
    "resume": compare_resumed,
}

if __name__ == "__main__":
    main()
