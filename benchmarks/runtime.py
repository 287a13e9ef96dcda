"""Compares the runtime with the engine underneath it, and with what people use instead of it.

    pip install '.[all,interop]'
    python benchmarks/runtime.py IMAGES BUNDLE...

IMAGES: photographs. Each BUNDLE: a network with INT8 at 224 px, such as export_fidelity.py writes to its --out.
Four tables: what `embed` adds to the engine's own call; the pipeline from files to vectors, beside PyTorch with
torchvision, fastembed, and OpenVINO called by hand; what a start costs; memory over 200,000 images. Leave the machine
alone meanwhile.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from byol_edge.evaluate.reference import load_own_network
from byol_edge.models.tracing import quiet
from byol_edge.runtime import Bundle, Encoder, find_images, prepare
from byol_edge.runtime.cpus import available_cpus
from byol_edge.runtime.openvino_backend import import_openvino
from numpy.typing import NDArray
from PIL import Image
from timm.utils import reparameterize_model
from torchvision import datasets, transforms

ROUNDS = 5
IMAGES_PER_ROUND = 200
BATCH = 32
CALLS = 10
FASTEMBED_NAME = "Qdrant/resnet50-onnx"  # a model that it knows; the files are ours


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", type=Path)
    parser.add_argument("bundles", type=Path, nargs="+")
    parser.add_argument("--endurance", type=int, default=200_000, help="images; 0 leaves it out")
    arguments = parser.parse_args()
    for bundle in arguments.bundles:
        print(f"\n{bundle}, {Bundle.open(bundle).manifest['network']['backbone']}, {available_cpus()} CPUs")
        print_overhead(bundle)
        print_pipeline(bundle, arguments.images)
        print_cost(bundle, find_images(arguments.images)[0])
    if arguments.endurance:
        print_endurance(arguments.bundles[-1], arguments.images, arguments.endurance)


def in_turn(ways: dict[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Seconds of each way, measured in turn, round by round, so that all meet the same conditions."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for round_number in range(-1, rounds):  # the first warms up
        for name, way in ways.items():
            start = time.perf_counter()
            way()
            if round_number >= 0:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def middle(values: list[float] | NDArray[np.float64]) -> str:
    low, median, high = np.percentile(values, (25, 50, 75))
    return f"{median:.3g} ({low:.3g}–{high:.3g})"


def print_overhead(bundle: Path) -> None:
    """`embed` of arrays of the network's size, beside the call of its own session on the same batch."""
    encoder = Encoder(bundle, "int8.onnx")
    backend: Any = encoder._backend
    session = backend._session
    side = encoder.preprocessing.image_size
    for batch in (1, BATCH):
        pixels = np.random.default_rng(0).integers(0, 256, (batch, side, side, 3), dtype=np.uint8)
        images = list(pixels)
        ways: dict[str, Callable[[], object]] = {
            "engine": lambda pixels=pixels: session.run(["embeddings"], {"images": pixels}),
            "embed": lambda images=images: encoder.embed(images if len(images) > 1 else images[0]),
        }
        # Several calls of each in turn: the engine's threads spin for a while after a call, and slow down the next way.
        blocks: dict[str, Callable[[], object]] = {name: partial(repeat, way) for name, way in ways.items()}
        seconds = in_turn(blocks, 50 if batch == 1 else 10)
        bare, whole = (1e3 / CALLS * np.array(seconds[name]) for name in ways)
        share = np.median(whole - bare) / np.median(bare)
        print(f"  batch {batch}: engine {middle(bare)} ms, embed adds {middle(whole - bare)} ms, {share:.1%}")


def repeat(way: Callable[[], object]) -> None:
    for _ in range(CALLS):
        way()


def print_pipeline(bundle: Path, folder: Path) -> None:
    """Images per second, from files to vectors, and their share of what the parts allow, each measured alone."""
    paths = find_images(folder)[:IMAGES_PER_ROUND]
    preprocessing = Bundle.open(bundle).preprocessing
    pixels = np.stack([prepare(path, preprocessing) for path in paths])
    ours = {
        f"byol-edge {name} {engine}": Encoder(bundle, name, engine)
        for name, engine in (("int8.onnx", "onnxruntime"), ("int8.xml", "openvino"), ("fp32.onnx", "onnxruntime"))
    }
    parts: dict[str, Callable[[], object]] = {"decode": lambda: [prepare(path, preprocessing) for path in paths]}
    ways: dict[str, Callable[[], object]] = {}
    for name, encoder in ours.items():
        ways[name] = lambda encoder=encoder: list(encoder.stream(paths))
        parts[f"infer {name}"] = lambda encoder=encoder: [encoder.run(each) for each in in_batches(pixels)]
    with tempfile.TemporaryDirectory() as place:
        ways["PyTorch + torchvision"] = by_torch(bundle, paths, Path(place))
        ways["fastembed"] = by_fastembed(bundle, paths, Path(place))
        ways["OpenVINO by hand"] = by_openvino(bundle, paths)
        seconds = in_turn(ways | parts, ROUNDS)
    for name in ways:
        rates = [len(paths) / each for each in seconds[name]]
        bound = ""
        if name in ours:  # decoding takes one core, inference all of them
            core_seconds = np.median(seconds["decode"]) + available_cpus() * np.median(seconds[f"infer {name}"])
            bound = f", {np.median(rates) / (available_cpus() * len(paths) / core_seconds):.0%} of its bound"
        print(f"  {name:<32}{middle(rates)} images/s{bound}")


def in_batches(pixels: NDArray[np.uint8]) -> list[NDArray[np.uint8]]:
    return [pixels[place : place + BATCH] for place in range(0, len(pixels), BATCH)]


def by_torch(bundle: Path, paths: list[Path], place: Path) -> Callable[[], object]:
    """A data loader with torchvision's usual steps, and the network in eager mode, as in a training script."""
    network = load_own_network(Bundle.open(bundle))
    side = network.image_size
    steps = [transforms.Resize(side), transforms.CenterCrop(side), transforms.ToTensor()]
    steps.append(transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    folder = place / "loader" / "all"
    folder.mkdir(parents=True)
    for path in paths:
        (folder / path.name).symlink_to(path.absolute())
    images = datasets.ImageFolder(str(folder.parent), transforms.Compose(steps))

    def embed() -> None:
        loader = torch.utils.data.DataLoader(images, BATCH, num_workers=available_cpus())
        with torch.inference_mode():
            for batch, _ in loader:
                torch.nn.functional.normalize(network.backbone(batch))

    return embed


def by_fastembed(bundle: Path, paths: list[Path], place: Path) -> Callable[[], object]:
    """fastembed on the same network."""
    from fastembed import ImageEmbedding  # type: ignore[import-not-found]

    write_for_fastembed(bundle, place)
    model = ImageEmbedding(FASTEMBED_NAME, specific_model_path=str(place), threads=available_cpus(), cuda=False)
    return lambda: list(model.embed([str(path) for path in paths], batch_size=BATCH))


def write_for_fastembed(bundle: Path, place: Path) -> None:
    """The network as fastembed takes it: float NCHW, with a description of the steps before it."""
    side = write_float_model(bundle, place / "model.onnx")
    steps = {
        "do_resize": True,
        "size": {"shortest_edge": side},
        "do_center_crop": True,
        "crop_size": {"height": side, "width": side},
        "do_rescale": True,
        "do_normalize": True,
        "image_mean": [0.485, 0.456, 0.406],
        "image_std": [0.229, 0.224, 0.225],
        "resample": 3,
        "image_processor_type": "CLIPImageProcessor",
    }
    (place / "preprocessor_config.json").write_text(json.dumps(steps))


def write_float_model(bundle: Path, file: Path) -> int:
    """Writes the FP32 backbone, which takes normalized float images; returns their side."""
    network = load_own_network(Bundle.open(bundle))
    example = torch.zeros(2, 3, network.image_size, network.image_size)
    with quiet(), torch.no_grad():
        program = torch.onnx.export(
            reparameterize_model(network.backbone),
            (example,),
            dynamo=True,
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            external_data=False,
        )
    assert program is not None
    program.save(file)
    return network.image_size


def by_openvino(bundle: Path, paths: list[Path]) -> Callable[[], object]:
    """The INT8 model in OpenVINO, fed batch by batch, as in its documentation."""
    core = import_openvino().Core()
    model = core.read_model(bundle / "int8.xml")
    side = Bundle.open(bundle).preprocessing.image_size
    model.reshape([BATCH, side, side, 3])
    compiled = core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    fit = transforms.Compose([transforms.Resize(side), transforms.CenterCrop(side)])

    def embed() -> None:
        for start in range(0, len(paths), BATCH):
            batch = np.zeros((BATCH, side, side, 3), np.uint8)
            for row, path in enumerate(paths[start : start + BATCH]):
                batch[row] = np.asarray(fit(Image.open(path).convert("RGB")))
            _ = compiled([batch])[0]

    return embed


# Each starts a process, imports, loads a model (INT8; FP32 for fastembed) and embeds one image.
STARTS = {
    "byol-edge": 'from byol_edge.runtime import Encoder\nimported()\nEncoder(bundle, "int8.onnx").embed(image)',
    "engine alone": """
import numpy, onnxruntime
from numpy.typing import NDArray
from PIL import Image
imported()
session = onnxruntime.InferenceSession(bundle + "/int8.onnx", providers=["CPUExecutionProvider"])
side = session.get_inputs()[0].shape[1]
pixels = numpy.asarray(Image.open(image).convert("RGB").resize((side, side)))
session.run(["embeddings"], {"images": pixels[None]})
""",
    "fastembed": f"""
from fastembed import ImageEmbedding
imported()
list(ImageEmbedding({FASTEMBED_NAME!r}, specific_model_path=for_fastembed, cuda=False).embed([image]))
""",
}
MEASURE = """
import json, sys, time
bundle, image, for_fastembed = sys.argv[1:]
start = time.perf_counter()
def imported():
    global until_import
    until_import = time.perf_counter() - start
{code}
memory = next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmRSS"))
print(json.dumps([until_import, time.perf_counter() - start, memory / 1024]))
"""


def print_cost(bundle: Path, image: Path) -> None:
    """Seconds to import and to the first vector, memory at that point, and the installed size of what it takes."""
    found: dict[str, list[list[float]]] = {name: [] for name in STARTS}
    with tempfile.TemporaryDirectory() as place:
        write_for_fastembed(bundle, Path(place))
        for _ in range(2 * ROUNDS):
            for name, code in STARTS.items():
                command = [sys.executable, "-c", MEASURE.replace("{code}", code), str(bundle), str(image), place]
                found[name].append(json.loads(subprocess.run(command, check=True, capture_output=True).stdout))
    sizes = {
        "byol-edge": installed_size("byol-edge"),
        "engine alone": installed_size("numpy", "pillow", "onnxruntime"),
        "fastembed": installed_size("fastembed"),
    }
    print("\nTo start: seconds to import, to the first vector; MiB resident then; MB installed")
    for name, values in found.items():
        importing, first, memory = (middle(list(column)) for column in zip(*values, strict=True))
        print(f"  {name:<16}{importing:<26}{first:<26}{memory:<22}{sizes[name] / 1e6:.0f}")


def installed_size(*names: str) -> int:
    """Bytes of these distributions and of everything that they require, without extras."""
    found: dict[str, int] = {}
    front = list(names)
    while front:
        name = re.sub(r"[-_.]+", "-", front.pop()).lower()
        if name in found:
            continue
        try:
            distribution = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:  # for another system
            continue
        files = [Path(str(file.locate())) for file in distribution.files or ()]
        found[name] = sum(file.stat().st_size for file in files if file.exists())
        required = [each for each in distribution.requires or () if "extra ==" not in each]
        front += [re.split(r"[^A-Za-z0-9._-]", each)[0] for each in required]
    return sum(found.values())


def print_endurance(bundle: Path, folder: Path, images: int) -> None:
    """Resident memory after a tenth of the images and after all of them, through one stream."""
    code = """
import itertools, sys
from byol_edge.runtime import Encoder, find_images
images = int(sys.argv[3])
def resident():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmRSS")) / 1024
paths = itertools.islice(itertools.cycle(find_images(sys.argv[2])), images)
done = 0
for chunk in Encoder(sys.argv[1]).stream(paths):
    before, done = done, done + len(chunk.sources) + len(chunk.errors)
    if before < images // 10 <= done or done == images:
        print(done, round(resident(), 1), flush=True)
"""
    start = time.monotonic()
    command = [sys.executable, "-c", code, str(bundle), str(folder), str(images)]
    lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    (_, early), (_, late) = (line.split() for line in lines)
    print(
        f"\nEndurance: {early} MiB resident after {images // 10} images, {late} after {images} "
        f"({float(late) - float(early):+.1f}), in {time.monotonic() - start:.0f} s"
    )


if __name__ == "__main__":
    main()
