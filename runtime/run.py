"""A run on disk: its files by name, what they say, and how they are read and written. It takes no PyTorch.

Training writes a run; export, evaluation and `byol-edge inspect` read it, all through here. The backbone's weights and
what they are lie in one file, so that they can never disagree, whenever a process dies.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import OutputExistsError, RunError
from .files import FolderKind, check_output, locked, to_json, whole_file, write_text
from .interval import Interval
from .model_file import MOST_DIMENSIONS
from .preprocessing import Pixels, Preprocessing
from .untrusted import MOST_MODEL, MOST_STATE, load_arrays, parse_json, read_bytes, read_json, to_dataclass

# Raised when a reader of today could no longer read what is written; a new field with a default is no such change.
FORMAT_VERSION = 1
# Bytes of metrics.jsonl: a million epochs.
MOST_METRICS = 2**29
# The one key of the weights file's metadata; of several, safetensors does not keep the order.
DESCRIPTION = "byol_edge"

CONFIG, CHECKPOINT, METRICS, ENCODER = "config.json", "last.pt", "metrics.jsonl", "encoder.safetensors"
CALIBRATION, CURVES, VIEWS, BOARD, LOCK = "calibration.npz", "curves.png", "views.png", "tensorboard", "lock"
TEACHER = "teacher.npz"
RUN = FolderKind(
    "run", CONFIG, (CONFIG, CHECKPOINT, METRICS, ENCODER, CALIBRATION, TEACHER, CURVES, VIEWS, BOARD, LOCK, ".*.part*")
)


@dataclass(frozen=True)
class EncoderSpec:
    """What a backbone is, apart from its weights. `stem` is resolved: see models/backbones.py."""

    backbone: str
    stem: str
    embedding_size: int
    preprocessing: Preprocessing

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @staticmethod
    def from_json(value: dict[str, Any]) -> EncoderSpec:
        """Raises KeyError, TypeError or ValueError for anything else."""
        preprocessing = Preprocessing.from_json(value["preprocessing"])
        spec = to_dataclass(EncoderSpec, {**value, "preprocessing": preprocessing})
        if not 1 <= spec.embedding_size <= MOST_DIMENSIONS:
            raise ValueError(f"an embedding of {spec.embedding_size} numbers")
        return spec


@dataclass(frozen=True)
class Provenance:
    """Where an encoder comes from; None where that is not known, or does not apply.

    `epoch` of `epochs` were trained. `init`: the weights that training started from, None for random ones, with their
    `license` and `source`. `teacher`: what it learned from. `share`: of the way from the start's weights to those that
    training ended in, 1 for the latter. `network`: "online" or "target". `assumptions`: what these weights do not
    say themselves.
    """

    epoch: int | None = None
    epochs: int | None = None
    seed: int | None = None
    recipe: str | None = None
    objective: str | None = None
    init: str | None = None
    license: str | None = None
    source: str | None = None
    teacher: str | None = None
    share: float | None = None
    network: str | None = None
    with_projector: bool | None = None
    dimensions: int | None = None
    verdict: str | None = None
    assumptions: list[str] = field(default_factory=list)
    versions: dict[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @staticmethod
    def from_json(value: dict[str, Any]) -> Provenance:
        return to_dataclass(Provenance, value)


@dataclass(frozen=True)
class Metrics:
    """Figures of one epoch. `epoch` counts from 1; 0 is the network before the first step, without training's figures.

    `diagnostics`: what the objective reports, by its names. `rank`: RankMe, 1 to D. `embedding_std`: standard deviation
    of the embeddings times √D, 0 to 1. `moved`: how far the embeddings are from epoch 0's, 1 less their mean cosine.
    `knn`: accuracy, None where it was not measured; `knn_gain`: its difference to epoch 0's, query by query; `knn_raw`:
    that of raw pixels; `knn_lead`: the difference to it. `waiting`: share of the time in which no batch was ready;
    `rendering`: share in which views were made on the device. `memory`: the most that the training process, or its GPU,
    held so far, in bytes.
    """

    epoch: int
    step: int = 0
    loss: float | None = None
    learning_rate: float | None = None
    diagnostics: dict[str, float] = field(default_factory=dict)
    rank: float = float("nan")
    embedding_std: float = float("nan")
    knn: float | None = None
    knn_gain: Interval | None = None
    knn_raw: float | None = None
    knn_lead: Interval | None = None
    moved: float | None = None
    images_per_s: float | None = None
    waiting: float | None = None
    rendering: float | None = None
    memory: int | None = None
    seconds: float = 0.0
    unreadable: int = 0

    @staticmethod
    def from_json(value: dict[str, Any]) -> Metrics:
        intervals = {name: value.get(name) for name in ("knn_gain", "knn_lead")}
        read = {name: None if each is None else to_dataclass(Interval, each) for name, each in intervals.items()}
        metrics = to_dataclass(Metrics, {**value, **read})
        if not all(isinstance(each, (int, float)) for each in metrics.diagnostics.values()):
            raise TypeError("diagnostics are no numbers")
        return metrics


@dataclass(frozen=True)
class TrainedEncoder:
    """`weights`: the bytes of a safetensors file, the online backbone's."""

    spec: EncoderSpec
    provenance: Provenance
    weights: bytes


@dataclass(frozen=True)
class TeacherVectors:
    """What a teacher makes of a run's images, in their order.

    `vectors`: float16 `[N, K]`, of unit length; NaN where an image could not be read. `model`: the id of their maker,
    `parameters`: how many numbers that has learned, where it was opened by PyTorch.
    """

    vectors: NDArray[np.float16]
    model: str
    parameters: int | None = None


@dataclass(frozen=True)
class Run:
    """The folder of a run. What is read raises RunError, naming the file and what to do."""

    path: Path

    @property
    def exists(self) -> bool:
        return (self.path / CONFIG).exists()

    def check_free(self, overwrite: bool) -> None:
        """Raises OutputExistsError if the place is taken."""
        if self.exists and not overwrite:
            raise OutputExistsError(
                "{out} exists already; go on with it: {resume}, or replace it: {overwrite}",
                out=self.path, resume=True, overwrite=True,
            )  # fmt: skip
        if not self._holds_a_lock_alone():  # as a process does that was killed before it began
            check_output(self.path, overwrite, RUN)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keeps other trainings off the run while the block runs. Raises RunError.

        The folder is made if need be, and goes again if the block puts nothing into it.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        busy = RunError(
            "{out}: another `byol-edge train` is at work on this run; wait for it, or choose another", out=self.path
        )
        with locked(self.path / LOCK, busy):
            try:
                yield
            finally:
                if self._holds_a_lock_alone():
                    (self.path / LOCK).unlink()
                    self.path.rmdir()

    def _holds_a_lock_alone(self) -> bool:
        return self.path.is_dir() and [entry.name for entry in self.path.iterdir()] == [LOCK]

    def start(self, config: dict[str, Any]) -> None:
        """Makes an empty run with its config.json; of a run that was there, nothing is left."""
        shutil.rmtree(self.path / BOARD, ignore_errors=True)
        for entry in self.path.iterdir():
            if RUN.knows(entry.name) and entry.name not in (CONFIG, LOCK):
                entry.unlink()
        self.save_config(config)

    def save_config(self, config: dict[str, Any]) -> None:
        """Writes config.json, and leaves all else as it is."""
        text = to_json({"format_version": FORMAT_VERSION, **config})
        with whole_file(self.path / CONFIG) as part:
            # Of a path that is not UTF-8, JSON then holds the odd bytes as "\udc…", just as Python does.
            part.write_bytes(text.encode(errors="backslashreplace"))

    def read_config(self) -> dict[str, Any]:
        """What `start` wrote: "settings", "images" and "versions", each a dict; empty where it is missing."""
        file = self.path / CONFIG
        try:
            content = read_json(file)
            _check_version(file, content)
            return {**content, **{name: dict(content.get(name) or {}) for name in ("settings", "images", "versions")}}
        except (OSError, ValueError, TypeError, AttributeError) as error:
            raise RunError(f"{file}: unreadable ({error}); start again with {{overwrite}}", overwrite=True) from error

    def save_encoder(self, content: bytes) -> None:
        """Writes the weights file, its description in its metadata: see models/weights.py."""
        with whole_file(self.path / ENCODER) as part:
            part.write_bytes(content)

    def read_encoder(self) -> TrainedEncoder:
        file = self.path / ENCODER
        try:
            content = read_bytes(file, MOST_MODEL)
        except FileNotFoundError:
            raise RunError(f"{self.path}: {self._what_is_missing()}") from None
        except OSError as error:
            raise RunError(f"{file}: cannot be read ({error.strerror})") from error
        try:
            description = read_description(content)
            _check_version(file, description)
            return TrainedEncoder(
                EncoderSpec.from_json(description), Provenance.from_json(description["provenance"]), content
            )
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            if not self.exists:  # a bundle's weights have the same name
                raise RunError(f"{self.path}: {self._what_is_missing()}") from error
            raise RunError(f"{file}: does not say what it is ({error}); train again, or resume the run") from error

    def find_provenance(self) -> Provenance | None:
        """Where the run's encoder comes from; None where no encoder can be read."""
        try:
            return self.read_encoder().provenance
        except RunError:
            return None

    def save_checkpoint(self, content: bytes) -> None:
        """Writes all that is needed to go on: the bytes of a torch.save."""
        with whole_file(self.path / CHECKPOINT) as part:
            part.write_bytes(content)

    def read_checkpoint(self) -> bytes | None:
        """What save_checkpoint wrote, None where no epoch was finished."""
        file = self.path / CHECKPOINT
        try:
            return read_bytes(file, MOST_STATE)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise RunError(f"{file}: cannot be read ({error.strerror})") from error

    def append_metrics(self, metrics: Metrics) -> list[Metrics]:
        """Adds an epoch's line in place of any of that epoch or later, left by a killed run. Returns all lines."""
        history = [*(each for each in self.read_metrics() if each.epoch < metrics.epoch), metrics]
        write_text(self.path / METRICS, "".join(json.dumps(asdict(each)) + "\n" for each in history))
        return history

    def read_metrics(self) -> list[Metrics]:
        """All lines, in order; none where the file is missing."""
        file = self.path / METRICS
        try:
            lines = read_bytes(file, MOST_METRICS).splitlines() if file.exists() else []
            return [Metrics.from_json(parse_json(line)) for line in lines]
        except (OSError, ValueError, TypeError, AttributeError) as error:
            raise RunError(f"{file}: damaged ({error}); take the broken line out, or start again") from error

    def save_calibration(self, images: Pixels) -> None:
        with whole_file(self.path / CALIBRATION) as part, part.open("wb") as file:
            np.savez(file, images=images)

    def read_calibration(self, side: int) -> Pixels:
        """Training images that the run keeps, uint8 `[N, side, side, 3]`, N ≥ 2."""
        file = self.path / CALIBRATION
        if not file.exists():
            raise RunError(
                f"{self.path}: keeps no images to calibrate with and to judge by; give {{calibration}}",
                calibration="DIR",
            )
        try:
            images = load_arrays(file)["images"]
        except (ValueError, KeyError) as error:
            raise RunError(
                f"{file}: no calibration images ({error}); resuming the training writes them again"
            ) from error
        if images.dtype != np.uint8 or images.shape[1:] != (side, side, 3) or len(images) < 2:
            raise RunError(f"{file}: {images.dtype} {list(images.shape)}, not two or more images of {side} px")
        return images

    def save_teacher(self, content: TeacherVectors) -> None:
        with whole_file(self.path / TEACHER) as part, part.open("wb") as file:
            np.savez(file, vectors=content.vectors, model=content.model)

    def read_teacher(self, images: int) -> TeacherVectors | None:
        """What save_teacher wrote, of so many images; None where it is missing, damaged or of others."""
        try:
            found = load_arrays(self.path / TEACHER)
            vectors, model = found["vectors"], str(found["model"])
        except (OSError, ValueError, KeyError):
            return None
        fits = vectors.dtype == np.float16 and vectors.ndim == 2 and len(vectors) == images
        return TeacherVectors(vectors, model) if fits else None

    def _what_is_missing(self) -> str:
        if not self.path.is_dir():
            return "no such run; `byol-edge train IMAGES --out RUN` makes one"
        if self.exists:
            return f"the run has no finished epoch yet; `byol-edge train --resume --out {self.path}` finishes one"
        return f"not a run: it holds no {CONFIG}"


def read_description(weights: bytes) -> dict[str, Any]:
    """The metadata that training wrote into a safetensors file. Raises ValueError, KeyError or TypeError."""
    length = int.from_bytes(weights[:8], "little")
    if length > len(weights) - 8:
        raise ValueError("cut off, or not a safetensors file")
    description = parse_json(parse_json(weights[8 : 8 + length])["__metadata__"][DESCRIPTION])
    if not isinstance(description, dict):
        raise ValueError("not the description of an encoder")
    return description


def _check_version(file: Path, content: dict[str, Any]) -> None:
    version = content.get("format_version", FORMAT_VERSION)
    if not isinstance(version, int) or version > FORMAT_VERSION:
        raise RunError(f"{file}: run format {version} is newer than this byol-edge reads; install a newer byol-edge")
