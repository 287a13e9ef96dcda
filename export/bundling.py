"""From an encoder to a bundle: every variant written, judged against PyTorch, timed, and the default one chosen."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from ..models.network import embed_pixels, map_pixels
from ..runtime.backend import Backend
from ..runtime.bundle import BUNDLE, MANIFEST
from ..runtime.choosing import BACKENDS
from ..runtime.cpus import available_cpus
from ..runtime.errors import EngineError, FidelityError, brief
from ..runtime.feature_maps import Maps, list_features
from ..runtime.fidelity import (
    GATES,
    MAP_IMAGES,
    OWN_COSINE,
    Fidelity,
    MapFidelity,
    Vectors,
    compare,
    compare_maps,
    cosines,
    failed_gates,
    failed_map_gates,
)
from ..runtime.files import check_output, sha256, to_json, whole_folder
from ..runtime.fusion import FusionSpec
from ..runtime.golden import PYTORCH, name_of
from ..runtime.model_file import FORMAT_READER, FORMAT_VERSION
from ..runtime.onnx_file import ONNX
from ..runtime.preprocessing import Pixels
from ..runtime.run import ENCODER
from ..runtime.signature import SIGNATURE, check_private_key, sign
from ..runtime.timing import LEAD, Timing, time_in_turn
from .config import ExportConfig
from .fusing import Pair, load_pair
from .golden import GOLDEN_IMAGES, synthetic_images, write_golden
from .search import Search
from .source import Source, load_source
from .variants import WrittenVariant, write_variants

log = logging.getLogger(__name__)

MEASURED = "measured.json"

# Golden images whose feature maps are kept: half a megabyte for two maps of a ResNet-18 at 64 px.
GOLDEN_MAPS = 2


@dataclass(frozen=True)
class ExportedVariant:
    """A variant on one engine, as exported: its figures on images that calibration has not seen, and its speed here.

    `precision`: "fp32", "fp16" or "int8". `format`: "onnx" or "xml", as in the runtime. `size`: bytes. `agreement`: the
    lowest cosine to what the variant gives on its format's own engine; 1 on that one. `maps`: fidelity of each feature
    map. `own_agreement`: see runtime's Variant.
    """

    name: str
    precision: str
    format: str
    engine: str
    size: int
    fidelity: Fidelity
    failures: tuple[str, ...]
    timing: Timing
    agreement: float
    maps: dict[str, MapFidelity] = field(default_factory=dict)
    own_agreement: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Export:
    """What an export made. `default` is a variant's name. `golden_images`: how many of the user's the bundle holds.

    `variants`: each on every engine that runs it here, its format's own first. `calibration_images` set INT8's ranges.
    `searches`: for each INT8 variant, the ways to quantize that were tried.
    """

    variants: tuple[ExportedVariant, ...]
    default: str
    golden_images: int
    calibration_images: int
    searches: dict[str, Search]


def export_bundle(
    source: str | Path | nn.Module | Pair,
    out: str | Path,
    config: ExportConfig | None = None,
    *,
    overwrite: bool = False,
) -> Export:
    """Exports `source`, a run or another start (docs/training.md), as the bundle `out`: whole, or not at all.

    `source` may also be a module of your own, images float32 `[N, 3, H, W]` to vectors `[N, D]`; `config` then has to
    say `image_size`, and `mean` and `std` if they are not ImageNet's. It is copied, and left as it is.

    Two sources, `("runs/a", "runs/b")`, are fused into one encoder: their vectors, each of unit length, side by side.

    `overwrite`: replace a bundle at `out`. Logs what is being done, and images that cannot be read. Raises RunError,
    OutputExistsError, ImageError, UsageError, EngineError, and FidelityError if an FP32 variant is not what PyTorch
    computes.
    """
    out, config = Path(out), config or ExportConfig()
    check_output(out, overwrite, BUNDLE)
    if config.sign is not None:
        check_private_key(Path(config.sign))
    run = load_pair(source, config) if isinstance(source, (tuple, list)) else load_source(source, config)
    keeps_images = not (config.no_images or run.drawn)
    side = run.spec.preprocessing.image_size
    reference = run.judge[:GOLDEN_IMAGES] if keeps_images else synthetic_images(GOLDEN_IMAGES, side)
    with whole_folder(out, overwrite, BUNDLE) as folder:
        written = write_variants(run, folder, config)
        log.info("comparing each variant with PyTorch")
        golden_maps = map_pixels(run.network, reference[:GOLDEN_MAPS], run.feature_names)
        variants, golden = _judge(run, written, reference, golden_maps)
        searches = {each.name: each.search for each in written if each.search}
        (folder / ENCODER).write_bytes(run.weights)
        write_golden(folder, reference, golden, golden_maps, run.spec.preprocessing)
        (folder / MEASURED).write_text(to_json(_describe_speed(variants, searches)))
        manifest = {
            **_describe_model(run, written, variants),
            "files": _describe_files(folder),
            "provenance": {
                "training": run.provenance.to_json(),
                **_describe_parts(run),
                "export": _describe_export(run, config, searches),
            },
        }
        content = to_json(manifest).encode()
        (folder / MANIFEST).write_bytes(content)
        if config.sign is not None:
            (folder / SIGNATURE).write_bytes(sign(content, Path(config.sign)))
    return Export(
        variants=variants,
        default=manifest["default"],
        golden_images=len(reference) if keeps_images else 0,
        calibration_images=len(run.calibrate) if searches else 0,
        searches=searches,
    )


def choose_default(variants: Sequence[ExportedVariant]) -> str:
    """The fastest variant within its gates, unless a more faithful one is nearly as fast.

    By the least time of each on its fastest engine, which other work on the machine lengthens last. A variant has to be
    within its gates on its format's own engine, which a device may have alone.

    Where there are .onnx files, only they can be the default: every device install runs them, and "auto" means one
    variant on all devices.
    """
    own = {each.name: each for each in reversed(variants)}
    passing = [each for each in variants if not each.failures and not own[each.name].failures]
    passing = [each for each in passing if each.format == ONNX.name] or passing
    fastest = min(each.timing.least for each in passing)
    near = [each for each in passing if each.timing.least <= LEAD * fastest]
    return max(near, key=lambda each: each.fidelity.cosine_mean).name


def _judge(
    run: Source[Any], written: Sequence[WrittenVariant], golden: Pixels, golden_maps: Maps
) -> tuple[tuple[ExportedVariant, ...], dict[str, Vectors]]:
    """Runs each variant on each engine; returns its figures, and embeddings of the `golden` images by who made them."""
    engines = [(each, engine) for each in written for engine in _load(each, golden[:1])]
    timings = time_in_turn([engine.run for _, engine in engines], run.spec.preprocessing.image_size)
    judged = run.judge[:MAP_IMAGES]
    of_judged = map_pixels(run.network, judged, run.feature_names)
    variants: list[ExportedVariant] = []
    embeddings = {PYTORCH: embed_pixels(run.network, golden)}
    own: dict[str, Vectors] = {}
    for (each, engine), timing in zip(engines, timings, strict=True):
        vectors = _run(engine, each.name, run.judge)
        fidelity, maps = compare(run.reference, vectors), _compare_maps(engine, judged, of_judged)
        failures = (*failed_gates(fidelity, GATES[each.precision]), *failed_map_gates(maps, each.precision))
        is_own = each.name not in own
        if failures and each.precision == "fp32" and is_own:
            raise FidelityError(f"{each.name} is not what PyTorch computes: {'; '.join(failures)}. Nothing was written")
        lowest = cosines(own.setdefault(each.name, vectors), vectors).min()
        variants.append(
            ExportedVariant(
                name=each.name,
                precision=each.precision,
                format=each.model.format,
                engine=engine.name,
                size=sum(map(len, each.model.parts)),
                fidelity=fidelity,
                failures=failures,
                timing=timing,
                agreement=1.0 if is_own else float(np.nan_to_num(lowest, nan=-1.0)),
                maps=maps,
                own_agreement={
                    name: max(-1.0, round(found.agreement_min - 1 + OWN_COSINE[each.precision], 7))
                    for name, found in _compare_maps(engine, golden[:GOLDEN_MAPS], golden_maps).items()
                },
            )
        )
        embeddings[each.name if is_own else name_of(each.name, engine.name)] = engine.run(golden)
    return tuple(variants), embeddings


def _load(variant: WrittenVariant, image: Pixels) -> list[Backend]:
    """The variant on its format's own engine, and on each other one that is installed and takes it and an image."""
    engines = [variant.format.backend.load(variant.model, available_cpus())]
    for backend in BACKENDS:
        if backend is not variant.format.backend and variant.model.format in backend.formats:
            with contextlib.suppress(EngineError):  # not installed here, or it does not run this network
                other = backend.load(variant.model, available_cpus())
                _run(other, variant.name, image)
                engines.append(other)
    return engines


def _compare_maps(engine: Backend, images: Pixels, reference: Maps) -> dict[str, MapFidelity]:
    """How well an engine's feature maps of `images` agree with PyTorch's."""
    if not reference:
        return {}
    _, *found = engine.run_all(images)
    return {name: compare_maps(maps, its) for (name, maps), its in zip(reference.items(), found, strict=True)}


def _run(engine: Backend, variant: str, images: Pixels) -> Vectors:
    try:
        return engine.run(images)
    except Exception as error:  # each engine raises types of its own
        raise EngineError(f"{variant} failed on {engine.name}: {brief(error)}") from error


def _describe_speed(variants: Sequence[ExportedVariant], searches: dict[str, Search]) -> dict[str, Any]:
    """What differs from export to export, and so is not in the manifest."""
    speeds: dict[str, dict[str, Any]] = {each.name: {} for each in variants}
    for each in variants:
        speeds[each.name][each.engine] = asdict(each.timing)
    return {
        "threads": available_cpus(),
        "ms_per_image": speeds,
        "seconds_to_quantize": {
            name: {trial.name: trial.seconds for trial in each.tried} for name, each in searches.items()
        },
    }


def _describe_model(
    run: Source[Any], written: Sequence[WrittenVariant], variants: Sequence[ExportedVariant]
) -> dict[str, Any]:
    return {
        "format_version": FORMAT_VERSION,
        "format_reader": FORMAT_READER,
        "network": _describe_network(run),
        "embedding_size": run.spec.embedding_size,
        "preprocessing": run.spec.preprocessing.to_json(),
        **list_features(run.features),
        "default": choose_default(variants),
        "variants": {
            each.name: _describe_variant(each, [one for one in variants if one.name == each.name]) for each in written
        },
    }


def _describe_variant(written: WrittenVariant, judged: Sequence[ExportedVariant]) -> dict[str, Any]:
    """`judged`: the variant on each engine, its format's own first."""
    return {
        "precision": written.precision,
        "format": written.model.format,
        "files": written.files,
        "passes": not judged[0].failures,
        "own_cosine": OWN_COSINE[written.precision],
        "fidelity": judged[0].fidelity.to_json(),
        "engines": {each.engine: {"passes": not each.failures, "cosine": round(each.agreement, 7)} for each in judged},
        **_describe_maps(judged),
    }


def _describe_maps(judged: Sequence[ExportedVariant]) -> dict[str, Any]:
    """What the manifest says of a variant's feature maps; nothing where there are none."""
    if not judged[0].maps:
        return {}
    lowest = {name: min(each.own_agreement[name] for each in judged) for name in judged[0].own_agreement}
    return {"maps": {name: each.to_json() for name, each in judged[0].maps.items()}, "own_agreement": lowest}


def _describe_network(run: Source[Any]) -> dict[str, Any]:
    if run.module is not None:
        return {"module": run.module, "can_be_rebuilt": False}
    if isinstance(run.spec, FusionSpec):
        return {"fused": run.spec.to_json()}
    return {"backbone": run.spec.backbone, "stem": run.spec.stem}


def _describe_parts(run: Source[Any]) -> dict[str, Any]:
    return {"parts": [{"name": name, **each.to_json()} for name, each in run.parts]} if run.parts else {}


def _describe_files(folder: Path) -> dict[str, Any]:
    """Hash and size of all that the manifest vouches for: whatever export wrote, but for speeds."""
    names = sorted(file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file())
    contents = {name: (folder / name).read_bytes() for name in names if name != MEASURED}
    return {name: {"sha256": sha256(content), "size": len(content)} for name, content in contents.items()}


def _describe_export(run: Source[Any], config: ExportConfig, searches: dict[str, Search]) -> dict[str, Any]:
    return {
        "versions": _versions(),
        "calibration": {
            "images": len(run.calibrate),
            "of": "drawn" if run.drawn else "a folder" if config.calibration else "the run",
            "sha256": sha256(run.calibrate.tobytes()),
        },
        "target": config.chosen_target,
        "reference_images": "synthetic" if config.no_images or run.drawn else "the user's",
        "judged_on": len(run.judge),
        "searches": {name: each.to_json() for name, each in searches.items()},
    }


def _versions() -> dict[str, str]:
    found = {}
    for name in ("byol-edge", "torch", "timm", "onnx", "onnxruntime", "openvino", "nncf"):
        with contextlib.suppress(PackageNotFoundError):
            found[name] = version(name)
    return found
