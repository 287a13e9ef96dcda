"""What a frozen teacher makes of a run's images, one vector each: computed once, and kept in the run."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import nn

from ..models.eager import EagerEncoder
from ..models.encoders import Choice, ImageEncoder, open_encoder
from ..runtime.backend import ModelBytes
from ..runtime.cpus import available_cpus
from ..runtime.encoder import find_problem
from ..runtime.errors import EngineError, RunError, UsageError
from ..runtime.fidelity import Vectors
from ..runtime.onnx_file import ONNX
from ..runtime.onnxruntime_backend import OnnxRuntimeBackend
from ..runtime.preprocessing import Pixels
from ..runtime.progress import Progress, report_progress
from ..runtime.reading import read_batches
from ..runtime.run import Run, TeacherVectors
from ..runtime.vectors import SINKS, load_vectors
from .pictures import is_readable
from .settings import Settings

log = logging.getLogger(__name__)

# With fewer images, tracing a teacher for ONNX Runtime takes longer than it saves.
LEAST_TO_TRACE = 200


def prepare_teacher(
    run: Run, paths: Sequence[Path], settings: Settings, device: torch.device, going_on: bool
) -> TeacherVectors | None:
    """What the teacher makes of the images at `paths`: from the run, if that has it already; None without a teacher."""
    if settings.teacher is None:
        return None
    kept = run.read_teacher(len(paths)) if going_on else None
    choice = Choice(fit=settings.fit, default_size=settings.image_size)
    if settings.teacher == settings.init:
        (r, g, b), (red, green, blue) = settings.mean, settings.std
        choice = replace(choice, backbone=settings.backbone, mean=(r, g, b), std=(red, green, blue))
    return kept or find_targets(settings.teacher, paths, choice, device)


def find_targets(teacher: str, paths: Sequence[Path], choice: Choice, device: torch.device) -> TeacherVectors:
    """A teacher's vectors of the images at `paths`.

    `teacher`: an .npz or .parquet file that `byol-edge embed` wrote, else what open_encoder takes, with `choice`.
    Raises RunError, UsageError, EngineError, ImageError and BundleError.
    """
    if is_vector_file(teacher):
        return _from_file(Path(teacher), paths)
    encoder = open_encoder(teacher, choice, device)
    parameters = count_parameters(encoder.network) if isinstance(encoder, EagerEncoder) else None
    return TeacherVectors(_embed(encoder, teacher, paths, device).astype(np.float16), encoder.id, parameters)


def count_parameters(network: nn.Module) -> int:
    return sum(each.numel() for each in network.parameters())


def is_vector_file(teacher: str) -> bool:
    return Path(teacher).suffix in SINKS and Path(teacher).is_file()


def keep(vectors: TeacherVectors, run: Run) -> None:
    """Writes them into the run, so that it can be resumed without the teacher; says so if the disk has no room."""
    try:
        run.save_teacher(vectors)
    except OSError as error:
        log.warning("the teacher's vectors are not kept (%s): resuming computes them again", error.strerror)


def _from_file(file: Path, paths: Sequence[Path]) -> TeacherVectors:
    """Vectors by the places of their images, however these were spelled."""
    content = load_vectors(file)
    lengths = np.linalg.norm(content.vectors, axis=1, keepdims=True)
    if not np.isfinite(content.vectors).all() or not lengths.all():
        raise UsageError(f"{{teacher}}: {file} holds vectors that are zero, or no finite numbers", teacher=file)
    rows = {os.path.realpath(source): row for row, source in enumerate(content.sources)}
    found = [rows.get(os.path.realpath(path)) for path in paths]
    missing = [path for path, row in zip(paths, found, strict=True) if row is None]
    if readable := next(filter(is_readable, missing), None):
        raise RunError(
            f"{file}: holds no vector of {readable}, nor of {len(missing) - 1} more of {len(paths)} images; "
            f"embed the folder again"
        )
    unit = np.full((len(paths), content.vectors.shape[1]), np.nan, np.float16)
    for place, row in enumerate(found):
        if row is not None:
            unit[place] = content.vectors[row] / lengths[row]
    return TeacherVectors(unit, content.model)


def _embed(encoder: ImageEncoder, teacher: str, paths: Sequence[Path], device: torch.device) -> Vectors:
    run = _speed_up(encoder, len(paths), device)
    vectors = np.full((len(paths), encoder.embedding_size), np.nan, np.float32)
    done = 0
    for batch in read_batches(paths, encoder.preprocessing):
        if batch.rows:
            found = run(batch.pixels)
            if problem := find_problem(found):
                raise EngineError(f"{{teacher}} gives {problem}", teacher=teacher)
            vectors[batch.rows] = found
        done += len(batch.rows) + len(batch.unreadable)
        report_progress(Progress("teacher", done, len(paths)))
    return vectors


def _speed_up(encoder: ImageEncoder, images: int, device: torch.device) -> Callable[[Pixels], Vectors]:
    """How to run an encoder on many images: on a CPU by ONNX Runtime, which is 3 to 5 times as fast as PyTorch."""
    if not isinstance(encoder, EagerEncoder) or device.type != "cpu" or images < LEAST_TO_TRACE:
        return encoder.run
    try:
        from ..models.tracing import trace

        graph = trace(encoder.network)
        model = ModelBytes(ONNX.name, (graph.model.SerializeToString(),))
        return OnnxRuntimeBackend.load(model, available_cpus()).run
    except (ImportError, RunError, EngineError):  # not installed (the extra "export" has it), or not to be traced
        return encoder.run
