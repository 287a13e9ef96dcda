"""Everything that a report says, measured: one pass over the images for all encoders, then figures of their vectors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import cast

from ..evaluate.candidates import Candidate
from ..evaluate.compare import EmbeddedByAll, check_vectors, compare_vectors, embed_candidates
from ..evaluate.comparison import RAW, Comparison
from ..evaluate.embedding import Embed, Embedded
from ..evaluate.layers import Layer, measure_network
from ..evaluate.validate import Limits, Validation, judge
from ..models.byol import BYOLConfig
from ..runtime.encoder import find_problem
from ..runtime.errors import ByolEdgeError
from ..runtime.fidelity import Vectors
from ..runtime.images import find_images, folder_labels, read_labels
from ..runtime.preprocessing import Pixels
from ..runtime.run import Run
from ..runtime.timing import Timing, draw_noise, time_calls
from ..train.plots import find_curves
from ..train.resuming import read_record
from .findings import Report, Training
from .machine import describe_machine
from .maps import draw_maps
from .neighbors import ask, choose_queries, find_duplicates, find_moved, find_outliers
from .sources import ALL, PYTORCH, TILES, UNTRAINED, OpenedBundle, Sources, name_variant, open_sources
from .thumbnails import choose_side, make_tiles


@dataclass(frozen=True)
class Measured:
    """A report, the files of its images, and these as the encoder sees them, in small: uint8 `[N, side, side, 3]`."""

    report: Report
    paths: list[Path]
    tiles: Pixels


def measure(names: Sequence[str], data: str | Path, labels: str | Path | None = None) -> Measured:
    """Measures all that a report says. Raises UsageError, ImageError (for fewer than two images), and what opening
    another source than the subject raises."""
    paths = find_images(data)
    classes = read_labels(labels, paths, data) if labels else folder_labels(paths, data)
    sources = open_sources(names)
    side = choose_side(len(paths))
    own = list(sources.bundle.candidates.values()) if sources.bundle else []
    prepared = (own or [each for each in sources.others if each.name == sources.subject])[0].preprocessing
    # Not vectors, but they come of the same pixels.
    tiles = Candidate(TILES, cast(Embed, partial(make_tiles, side=side)), prepared)
    everything = embed_candidates([*sources.others, *own, tiles], paths)
    embedded = replace(everything, vectors=_keep_usable(everything.vectors, sources.bundle))
    report = _report(sources, embedded, Path(data), classes)
    return Measured(report, embedded.paths, cast(Pixels, everything.vectors[TILES]))


def _keep_usable(vectors: Mapping[str, Vectors], bundle: OpenedBundle | None) -> dict[str, Vectors]:
    """Those that figures can be taken of; a variant whose vectors are none of these is set apart as broken.

    Raises EngineError for another encoder.
    """
    own, broken = (bundle.candidates, bundle.broken) if bundle else ({}, {})
    vectors = {name: its for name, its in vectors.items() if name != TILES}
    for name in vectors.keys() - own.keys():
        check_vectors(name, vectors[name])
    problems = {name: find_problem(vectors[name]) for name in own}
    for name, problem in problems.items():
        if problem and name != UNTRAINED:
            broken.setdefault(name, f"it gives {problem}")
    return {name: its for name, its in vectors.items() if not problems.get(name)}


def _report(sources: Sources, embedded: EmbeddedByAll, data: Path, names: Sequence[str | None] | None) -> Report:
    bundle, vectors = sources.bundle, embedded.vectors
    classes = None if names is None else tuple(names[row] for row in embedded.rows)
    timings = _time(sources, embedded)
    comparison = _compare(sources, embedded, names, timings)
    validation = _validate(bundle, embedded, data, classes) if bundle else None
    shipped, quantized = _choose_shipped(sources, vectors, validation)
    asked = [name for name in (RAW, PYTORCH, quantized or shipped) if name in vectors]
    duplicates, found = find_duplicates(vectors[shipped], vectors[RAW])
    return Report(
        subject=sources.subject,
        shipped=shipped,
        default=bundle.default if bundle else None,
        data=str(data),
        images=tuple(path.relative_to(data).as_posix() for path in embedded.paths),
        classes=classes,
        comparison=comparison,
        validation=validation,
        timings={name: each for name, each in timings.items() if bundle and name in bundle.candidates},
        broken=dict(bundle.broken) if bundle else {},
        queries=ask(choose_queries(vectors[shipped]), {name: vectors[name] for name in asked}),
        maps=draw_maps(vectors[shipped]),
        quantized=quantized,
        moved=find_moved(vectors[PYTORCH], vectors[quantized]) if quantized and PYTORCH in vectors else (),
        duplicates=duplicates,
        duplicates_found=found,
        outliers=find_outliers(vectors[shipped]),
        layers=_measure_layers(bundle, embedded.paths) if bundle else {},
        training=_read_training(sources.run) if sources.run else None,
        provenance=sources.provenance,
        machine=describe_machine(),
        made=datetime.now(UTC).isoformat(timespec="minutes"),
    )


def _compare(
    sources: Sources, embedded: EmbeddedByAll, classes: Sequence[str | None] | None, timings: Mapping[str, Timing]
) -> Comparison:
    """The encoders side by side; of the bundle, one per precision, under the name that `compare` gives it."""
    own = sources.bundle.compared if sources.bundle else {}
    own = {name: each for name, each in own.items() if name in embedded.vectors}
    vectors = {**embedded.vectors, **{each.name: embedded.vectors[name] for name, each in own.items()}}
    comparison = compare_vectors([*sources.others, *own.values()], replace(embedded, vectors=vectors), classes)
    variants = {each.name: name for name, each in own.items()}
    encoders = [replace(each, timing=timings.get(variants.get(each.name, each.name))) for each in comparison.encoders]
    return replace(comparison, encoders=tuple(encoders))


def _time(sources: Sources, embedded: EmbeddedByAll) -> dict[str, Timing]:
    """Milliseconds per image of every encoder that gives vectors, all in turn, by name."""
    own = sources.bundle.candidates.values() if sources.bundle else []
    timed = [each for each in sources.others if each.size is not None]
    timed += [each for each in own if each.name in embedded.vectors and each.name != UNTRAINED]
    calls = [partial(each.run, draw_noise(each.preprocessing.image_size)) for each in timed]
    return dict(zip([each.name for each in timed], time_calls(calls), strict=True))


def _validate(
    opened: OpenedBundle, embedded: EmbeddedByAll, data: Path, classes: Sequence[str | None] | None
) -> Validation | None:
    """The bundle against PyTorch; None where there is no PyTorch's side, or no variant that runs."""
    vectors = embedded.vectors
    running = {name: each for name, each in opened.variants.items() if name in vectors}
    if opened.reference is None or PYTORCH not in vectors or not running:
        return None
    floors = [name for name in (UNTRAINED, RAW) if name in vectors]
    try:
        return judge(
            Embedded(
                bundle=opened.bundle,
                data=data,
                reference=opened.reference,
                encoders=list(running.values()),
                paths=embedded.paths,
                classes=list(classes) if classes else None,
                of_pytorch=vectors[PYTORCH],
                of_floors={name: vectors[name] for name in floors},
                of_variants=[vectors[name] for name in running],
                unreadable=list(embedded.unreadable),
            ),
            Limits(),
        )
    except ByolEdgeError as error:  # such as a damaged golden.npz
        opened.broken[ALL] = str(error)
        return None


def _choose_shipped(
    sources: Sources, vectors: Mapping[str, Vectors], validation: Validation | None
) -> tuple[str, str | None]:
    """The encoder whose vectors somebody would store, and a bundle's INT8 variant, if it has one that gives vectors.

    Of a bundle, that is the default, or if it fails, a variant that does not.
    """
    if sources.bundle is None:
        return sources.subject, None
    best = {precision: name for precision, name in sources.bundle.best.items() if name in vectors}
    failing = [each for each in validation.variants if each.failures] if validation else []
    failed = {name_variant(each.name, each.engine) for each in failing}
    wanted = [*(name for name in best.values() if name not in failed), PYTORCH, *best.values(), RAW]
    return next(name for name in wanted if name in vectors), best.get("int8")


def _measure_layers(opened: OpenedBundle, paths: Sequence[Path]) -> dict[str, list[Layer]]:
    """Signal to noise after each layer of the variants that can be read."""
    running = {each.variant for name, each in opened.variants.items() if name not in opened.broken}
    variants = [each for each in opened.bundle.variants.values() if each.name in running]
    if opened.reference is None or not variants:
        return {}
    return measure_network(opened.reference.network, opened.bundle, variants, paths)


def _read_training(run: Run) -> Training:
    """Without curves for a run without an epoch."""
    history = run.read_metrics()
    if len(history) < 2:
        return Training(str(run.path), ())
    objective = read_record(run).config.objective or BYOLConfig()
    size = run.read_encoder().spec.embedding_size
    return Training(str(run.path), tuple(find_curves(history, size, objective)))
