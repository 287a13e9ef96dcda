"""Images per second and core, from files and from Parquet: one process, two by --shards, and Ray.

    pip install '.[openvino,parquet,ray]'
    python benchmarks/scale.py BUNDLE IMAGES

BUNDLE: a network with INT8. IMAGES: photographs, 1,500 or more. Every way runs in processes of its own, kept on one
core or two. What it takes to start is measured with four images and left out of the rates. docs/scale.md has the table.
Under ten minutes on two cores; leave the machine alone meanwhile.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
from byol_edge.runtime import Bundle, find_images
from byol_edge.runtime.partitions import list_partitions

ROUNDS = 2
IMAGES = 1500
FEW = 4
PARTITIONS = 10
ENGINES = {"onnxruntime": "int8.onnx", "openvino": "int8.onnx"}

# In a process of its own, since an engine takes the cores that it finds as it starts.
PARTITIONS_HERE = """
import sys
from byol_edge.runtime import Encoder
from byol_edge.runtime.cpus import available_cpus
from byol_edge.runtime.partitions import embed_partition, plan_partitions
bundle, variant, engine, source, out = sys.argv[1:]
encoder = Encoder(bundle, variant, engine)
for partition in plan_partitions(source, out):
    embed_partition(encoder, partition, workers=available_cpus())
"""
# Prints the seconds that the job takes once Ray is there.
PARTITIONS_ON_RAY = """
import sys, time
from byol_edge.ray import embed_partitions, ray
bundle, variant, engine, source, out, actors = sys.argv[1:]
ray.init(num_cpus=int(actors), include_dashboard=False, logging_level="ERROR", log_to_driver=False)
start = time.perf_counter()
embed_partitions(bundle, source, out, variant=variant, backend=engine, actors=int(actors))
print("seconds", time.perf_counter() - start)
"""


@dataclass(frozen=True)
class Sources:
    """The same images as a folder of files, as lists of their paths, and as Parquet files that hold them."""

    count: int
    folder: Path
    lists: Path
    parquet: Path


@dataclass(frozen=True)
class Variant:
    bundle: Path
    name: str
    engine: str


@dataclass(frozen=True)
class Way:
    """Seconds that it takes with sources, for one of which (files, or Parquet) it may not be meant."""

    name: str
    cores: int
    files: Callable[[Variant, Sources], float] | None
    parquet: Callable[[Variant, Sources], float] | None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("images", type=Path)
    arguments = parser.parse_args()
    paths = find_images(arguments.images)[:IMAGES]
    with tempfile.TemporaryDirectory() as folder:
        many, few = write_sources(Path(folder) / "many", paths), write_sources(Path(folder) / "few", paths[:FEW])
        network = Bundle.open(arguments.bundle).manifest["network"]["backbone"]
        size = sum(path.stat().st_size for path in paths) / len(paths)
        versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in (*ENGINES, "ray"))
        print(f"{network}, {len(paths)} images of {size / 1000:.0f} kB, {versions}")
        for engine, variant in ENGINES.items():
            print_table(Variant(arguments.bundle, variant, engine), many, few)


def write_sources(folder: Path, paths: Sequence[Path]) -> Sources:
    sources = Sources(len(paths), folder / "files", folder / "lists", folder / "parquet")
    sources.folder.mkdir(parents=True)
    sources.parquet.mkdir()
    for number, path in enumerate(paths):
        (sources.folder / f"{number:06}{path.suffix}").symlink_to(path.absolute())
    size = max(1, len(paths) // PARTITIONS)
    list_partitions(sources.folder, sources.lists, size)
    kind = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])
    for first in range(0, len(paths), size):
        images = [{"bytes": path.read_bytes(), "path": str(path)} for path in paths[first : first + size]]
        table = pyarrow.table({"image": pyarrow.array(images, kind)})
        pyarrow.parquet.write_table(table, sources.parquet / f"{first:06}.parquet", row_group_size=100)
    return sources


def print_table(variant: Variant, many: Sources, few: Sources) -> None:
    print(f"\n{variant.name} on {variant.engine}")
    print("| | cores | from files: images/s | per core | from Parquet: images/s | per core | start, s |")
    print("|---|---|---|---|---|---|---|")
    for way in WAYS:
        cells, starts = [], []
        for measure in (way.files, way.parquet):
            if measure is None:
                cells += ["–", "–"]
                continue
            start = measure(variant, few)
            seconds = np.median([measure(variant, many) for _ in range(ROUNDS)])
            rate = (many.count - few.count) / (seconds - start)
            cells += [f"{rate:.0f}", f"{rate / way.cores:.0f}"]
            starts.append(f"{start:.1f}")
        print(f"| {way.name} | {way.cores} | {' | '.join(cells)} | {', '.join(starts)} |", flush=True)


def embed_files(cores: int, processes: int, variant: Variant, sources: Sources) -> float:
    """`byol-edge embed`, in one process, or in several that have a core each and a share of the images."""
    with tempfile.TemporaryDirectory() as out:
        command = [sys.executable, "-m", "byol_edge", "embed", str(variant.bundle), str(sources.folder)]
        command += ["--variant", variant.name, "--backend", variant.engine, "-o", f"{out}/v.parquet"]
        if processes == 1:
            return run([(command, range(cores))])
        return run([([*command, "--shards", f"{each}/{processes}"], [each]) for each in range(processes)])


def embed_parquet(cores: int, variant: Variant, sources: Sources) -> float:
    with tempfile.TemporaryDirectory() as out:
        arguments = [str(variant.bundle), variant.name, variant.engine, str(sources.parquet), out]
        return run([([sys.executable, "-c", PARTITIONS_HERE, *arguments], range(cores))])


def embed_on_ray(actors: int, kind: str, variant: Variant, sources: Sources) -> float:
    """Ray and its actors share as many cores as there are actors."""
    with tempfile.TemporaryDirectory() as out:
        arguments = [str(variant.bundle), variant.name, variant.engine, str(getattr(sources, kind)), out, str(actors)]
        process = start([sys.executable, "-c", PARTITIONS_ON_RAY, *arguments], range(actors))
        printed, _ = process.communicate()
        if process.returncode:
            sys.exit(f"{printed}\nfailed")
        return float(printed.split("seconds ")[1])


def run(commands: Sequence[tuple[list[str], Sequence[int]]]) -> float:
    """Seconds until all of the commands, each on its cores, are done."""
    begun = time.perf_counter()
    processes = [start(command, cores) for command, cores in commands]
    for process in processes:
        printed, _ = process.communicate()
        if process.returncode:
            sys.exit(f"{printed}\nfailed")
    return time.perf_counter() - begun


def start(command: list[str], cores: Sequence[int]) -> subprocess.Popen[str]:
    mine = sorted(os.sched_getaffinity(0))
    pin = partial(os.sched_setaffinity, 0, [mine[core] for core in cores])
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, preexec_fn=pin)


WAYS = (
    Way("one process", 1, partial(embed_files, 1, 1), partial(embed_parquet, 1)),
    Way("one process", 2, partial(embed_files, 2, 1), partial(embed_parquet, 2)),
    Way("two processes, `--shards`", 2, partial(embed_files, 2, 2), None),
    Way("Ray, one actor", 1, partial(embed_on_ray, 1, "lists"), partial(embed_on_ray, 1, "parquet")),
    Way("Ray, two actors", 2, partial(embed_on_ray, 2, "lists"), partial(embed_on_ray, 2, "parquet")),
)

if __name__ == "__main__":
    main()
