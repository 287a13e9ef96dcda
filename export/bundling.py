"""From a run to a bundle: every variant written, judged against PyTorch, timed, and the default one chosen."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..models.network import embed_pixels
from ..runtime.backend import ModelBytes
from ..runtime.bundle import BUNDLE, GOLDEN, MANIFEST
from ..runtime.cpus import available_cpus
from ..runtime.errors import FidelityError
from ..runtime.fidelity import GATES, OWN_COSINE, Fidelity, compare, failed_gates
from ..runtime.files import check_output, sha256, to_json, whole_folder
from ..runtime.golden import PYTORCH
from ..runtime.model_file import FORMAT_READER, FORMAT_VERSION
from ..runtime.onnxruntime_backend import OnnxRuntimeBackend
from ..runtime.openvino_backend import OpenVinoBackend
from ..runtime.preprocessing import Pixels
from ..runtime.run import ENCODER
from ..runtime.timing import Timing, time_in_turn
from .config import ExportConfig
from .golden import FOLDER, GOLDEN_IMAGES, synthetic_images, write_golden
from .search import Ladder
from .source import Source, load_source
from .variants import Written, write_variants

# A variant this much faster than a more faithful one is worth taking; less is noise.
LEAD = 1.10


@dataclass(frozen=True)
class ExportedVariant:
    """A variant as exported: its figures on images that calibration has not seen, and its speed here."""

    name: str
    precision: str
    engine: str
    size: int
    fidelity: Fidelity
    failures: tuple[str, ...]
    timing: Timing


@dataclass(frozen=True)
class Export:
    """What an export made. `default` is a variant's name. `golden_images`: how many of the user's the bundle holds.

    `calibration_images` set INT8's ranges.

    `ladders`: for each INT8 variant, the ways to quantize that were tried.
    """

    variants: tuple[ExportedVariant, ...]
    default: str
    golden_images: int
    calibration_images: int
    ladders: dict[str, Ladder]


def export_bundle(
    run: Path,
    out: Path,
    wanted: ExportConfig,
    overwrite: bool = False,
    note: Callable[[str], None] = lambda _: None,
) -> Export:
    """Writes the bundle `out` from a run: whole, or not at all.

    `note` is told what is being done. Raises RunError, OutputExistsError, and FidelityError if an FP32 variant is not
    what PyTorch computes.
    """
    check_output(out, overwrite, BUNDLE)
    source = load_source(run, wanted, note)
    side = source.spec.preprocessing.image_size
    reference = synthetic_images(GOLDEN_IMAGES, side) if wanted.no_images else source.judge[:GOLDEN_IMAGES]
    with whole_folder(out, overwrite, BUNDLE) as folder:
        written = write_variants(source, folder, wanted, note)
        note("comparing each variant with PyTorch")
        variants, golden = _judge(source, folder, written.files, reference)
        default = choose_default(variants)
        (folder / ENCODER).write_bytes(source.weights)
        write_golden(folder, reference, golden, source.spec.preprocessing)
        measured = {each.name: {"engine": each.engine, **asdict(each.timing)} for each in variants}
        seconds = {name: {rung.name: rung.seconds for rung in each.rungs} for name, each in written.ladders.items()}
        timed = {"threads": available_cpus(), "ms_an_image": measured, "seconds_to_quantize": seconds}
        (folder / "measured.json").write_text(to_json(timed))
        (folder / MANIFEST).write_text(to_json(_manifest(source, folder, wanted, written, variants, default)))
    calibration_images = len(source.calibrate) if written.ladders else 0
    golden_images = 0 if wanted.no_images else len(reference)
    return Export(variants, default, golden_images, calibration_images, written.ladders)


def choose_default(variants: tuple[ExportedVariant, ...]) -> str:
    """The fastest variant within its gates, unless a more faithful one is nearly as fast.

    Where there are .onnx files, only they can be the default: every device install runs them, and "auto" means one
    variant on all devices.
    """
    passing = [each for each in variants if not each.failures]
    passing = [each for each in passing if each.name.endswith(".onnx")] or passing
    fastest = min(each.timing.median for each in passing)
    near = [each for each in passing if each.timing.median <= LEAD * fastest]
    return max(near, key=lambda each: each.fidelity.cosine_mean).name


def _judge(
    source: Source, folder: Path, files: dict[str, tuple[str, ...]], golden: Pixels
) -> tuple[tuple[ExportedVariant, ...], dict[str, NDArray[np.float32]]]:
    """Runs each variant on its engine; returns its figures, and embeddings of the `golden` images by who made them."""
    engines = {"onnx": OnnxRuntimeBackend, "xml": OpenVinoBackend}
    backends = {
        name: engines[name.split(".")[1]].load(
            ModelBytes(name.split(".")[1], tuple((folder / part).read_bytes() for part in parts)), available_cpus()
        )
        for name, parts in files.items()
    }
    vectors = {name: backend.run(source.judge) for name, backend in backends.items()}
    timings = time_in_turn([each.run for each in backends.values()], source.spec.preprocessing.image_size)
    variants = []
    for (name, backend), timing in zip(backends.items(), timings, strict=True):
        precision = name.split(".")[0]
        fidelity = compare(source.reference, vectors[name])
        failures = tuple(failed_gates(fidelity, GATES[precision]))
        if failures and precision == "fp32":
            raise FidelityError(f"{name} is not what PyTorch computes: {'; '.join(failures)}. Nothing was written")
        size = sum((folder / part).stat().st_size for part in files[name])
        variants.append(ExportedVariant(name, precision, backend.name, size, fidelity, failures, timing))
    embeddings = {name: backend.run(golden) for name, backend in backends.items()}
    return tuple(variants), {PYTORCH: embed_pixels(source.network, golden), **embeddings}


def _manifest(
    source: Source,
    folder: Path,
    wanted: ExportConfig,
    written: Written,
    variants: tuple[ExportedVariant, ...],
    default: str,
) -> dict[str, Any]:
    listed = [ENCODER, GOLDEN, *(part for parts in written.files.values() for part in parts)]
    listed += [f"{FOLDER}/{file.name}" for file in (folder / FOLDER).iterdir()]
    contents = {name: (folder / name).read_bytes() for name in sorted(listed)}
    return {
        "format_version": FORMAT_VERSION,
        "format_reader": FORMAT_READER,
        "network": {"backbone": source.spec.backbone, "stem": source.spec.stem},
        "embedding_size": source.spec.embedding_size,
        "preprocessing": source.spec.preprocessing.to_json(),
        "default": default,
        "variants": {
            each.name: {
                "precision": each.precision,
                "files": written.files[each.name],
                "passes": not each.failures,
                "own_cosine": OWN_COSINE[each.precision],
                "fidelity": each.fidelity.to_json(),
            }
            for each in variants
        },
        "files": {name: {"sha256": sha256(content), "size": len(content)} for name, content in contents.items()},
        "provenance": {
            "training": source.provenance.to_json(),
            "export": {
                "versions": _versions(),
                "calibration": {
                    "images": len(source.calibrate),
                    "of": "a folder" if wanted.calibration else "the run",
                    "sha256": sha256(source.calibrate.tobytes()),
                },
                "target": wanted.target,
                "reference_images": "synthetic" if wanted.no_images else "the user's",
                "judged_on": len(source.judge),
                "ladders": {
                    name: {"kept": each.kept.name, "tried": [rung.to_json() for rung in each.rungs]}
                    for name, each in written.ladders.items()
                },
            },
        },
    }


def _versions() -> dict[str, str]:
    found = {}
    for name in ("byol-edge", "torch", "timm", "onnx", "onnxruntime", "openvino", "nncf"):
        with contextlib.suppress(PackageNotFoundError):
            found[name] = version(name)
    return found
