"""A run on disk: what training leaves behind, and all that export needs of it."""

from __future__ import annotations

import hashlib
import io
import json
import platform
import shutil
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.tensorboard import SummaryWriter

from ..models.weights import DESCRIPTION, WEIGHTS, EncoderSpec, save_weights
from ..runtime.errors import ImageError, OutputExistsError, RunError, UsageError
from ..runtime.files import FolderKind, check_output, to_json, whole_file, write_text
from ..runtime.preprocessing import Pixels, prepare
from .dataset import ImageDataset
from .monitor import Metrics
from .recipe import Settings

CONFIG, CHECKPOINT, METRICS = "config.json", "last.pt", "metrics.jsonl"
CALIBRATION = "calibration.npz"
CURVES, VIEWS, BOARD = "curves.png", "views.png", "tensorboard"

RUN = FolderKind("run", CONFIG, (CONFIG, CHECKPOINT, WEIGHTS, DESCRIPTION, CALIBRATION, METRICS, CURVES, VIEWS, BOARD))

CALIBRATION_IMAGES = 512
# Settings that do not change what is learned, so a run may be resumed with others.
FREE_TO_CHANGE = {"workers"}


def describe_run(settings: Settings, images: ImageDataset) -> dict[str, Any]:
    """The content of config.json: settings, the set of images, versions."""
    root = images.root
    names = "\n".join(path.relative_to(root).as_posix() if path != root else path.name for path in images.paths)
    return {
        "settings": settings.to_json(),
        "images": {
            "count": len(images.paths),
            "names_sha256": hashlib.sha256(names.encode(errors="replace")).hexdigest(),
            "queries": len(images.queries.paths) if images.queries else 0,
        },
        "versions": versions(),
    }


def versions() -> dict[str, str]:
    """Versions of what a run or a bundle was made with."""
    packages = ("byol-edge", "torch", "timm", "numpy", "pillow")
    return {"python": platform.python_version(), **{name: version(name) for name in packages}}


def check_free(out: Path, overwrite: bool) -> None:
    """Raises OutputExistsError if `out` is taken."""
    if (out / CONFIG).exists() and not overwrite:
        raise OutputExistsError(f"{out} exists already; go on with it: --resume, or replace it: --overwrite")
    check_output(out, overwrite, RUN)


def start_run(out: Path, config: dict[str, Any]) -> None:
    """Makes an empty run with its config.json; of a run that was there, nothing is left."""
    out.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(out / BOARD, ignore_errors=True)
    for name in RUN.names:
        (out / name).unlink(missing_ok=True)
    write_text(out / CONFIG, to_json(config))


def check_same_run(out: Path, config: dict[str, Any]) -> None:
    """Raises UsageError, naming the differences, if `out` holds a run with other settings or images."""
    try:
        before = json.loads((out / CONFIG).read_text(encoding="utf-8"))
        old, new = dict(before["settings"]), json.loads(to_json(config["settings"]))
        images = dict(before["images"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(f"{out / CONFIG}: unreadable ({error}); start again with --overwrite") from error
    changes = [
        f"{key} (was {_short(old.get(key))}, now {_short(new[key])})"
        for key in new
        if key not in FREE_TO_CHANGE and old.get(key) != new[key]
    ]
    if images != config["images"]:
        changes.append(f"other images (were {images.get('count')}, now {config['images']['count']})")
    if changes:
        raise UsageError(f"{out} cannot be resumed, since it was started otherwise: {', '.join(changes)}")


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 40 else text[:39] + "…"


def save_checkpoint(out: Path, state: dict[str, Any]) -> None:
    """Writes last.pt whole or not at all."""
    content = io.BytesIO()  # torch's own writer turns a full disk into an error of its own
    torch.save(state, content)
    with whole_file(out / CHECKPOINT) as part:
        part.write_bytes(content.getbuffer())


def load_checkpoint(out: Path) -> dict[str, Any] | None:
    """last.pt, on the CPU, or None where no epoch was finished. Raises RunError if it is damaged."""
    if not (out / CHECKPOINT).exists():
        return None
    try:
        state = torch.load(out / CHECKPOINT, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever a damaged pickle raises
        raise RunError(f"{out / CHECKPOINT}: damaged ({error}); start again with --overwrite") from error
    if not isinstance(state, dict) or not {"epoch", "byol", "optimizer", "random"} <= state.keys():
        raise RunError(f"{out / CHECKPOINT}: not of this run; start again with --overwrite")
    return state


def save_encoder(out: Path, backbone: nn.Module, spec: EncoderSpec, provenance: dict[str, Any]) -> None:
    """Writes the online backbone and what it takes to build it again."""
    save_weights(out / WEIGHTS, backbone)
    write_text(out / DESCRIPTION, to_json({**spec.to_json(), "provenance": provenance}))


def draw_calibration(paths: list[Path], spec: EncoderSpec, seed: int) -> Pixels:
    """Up to 512 images, drawn with the seed from the whole set and prepared: uint8 `[N, H, W, 3]`."""
    order = np.random.default_rng(seed).permutation(len(paths))
    pixels = []
    for index in order:
        if len(pixels) == CALIBRATION_IMAGES:
            break
        try:
            pixels.append(prepare(paths[index], spec.preprocessing))
        except ImageError:  # training names it
            continue
    if not pixels:
        raise ImageError(f"none of the {len(paths)} images can be read; the first is {paths[0]}")
    return np.stack(pixels)


def save_calibration(out: Path, images: Pixels) -> None:
    """Writes calibration.npz whole or not at all."""
    with whole_file(out / CALIBRATION) as part, part.open("wb") as file:
        np.savez(file, images=images)


def append_metrics(out: Path, metrics: Metrics) -> list[Metrics]:
    """Adds an epoch's line to metrics.jsonl, dropping lines of that epoch and later ones left by a killed run.

    Returns all lines.
    """
    history = [*(each for each in read_metrics(out) if each.epoch < metrics.epoch), metrics]
    write_text(out / METRICS, "".join(json.dumps(asdict(each)) + "\n" for each in history))
    return history


def read_metrics(out: Path) -> list[Metrics]:
    """The lines of metrics.jsonl, none if it is not there. Raises RunError if it is damaged."""
    if not (out / METRICS).exists():
        return []
    try:
        return [Metrics(**json.loads(line)) for line in (out / METRICS).read_text(encoding="utf-8").splitlines()]
    except (ValueError, TypeError) as error:
        raise RunError(f"{out / METRICS}: damaged ({error}); take the broken line out, or start again") from error


def open_board(out: Path, first_epoch: int) -> SummaryWriter:
    """TensorBoard's log of a run; what a killed run wrote of `first_epoch` (counted from 0) and later is dropped."""
    return SummaryWriter(str(out / BOARD), purge_step=first_epoch + 1)


def log_metrics(board: SummaryWriter, metrics: Metrics) -> None:
    """Adds an epoch's figures to TensorBoard's log."""
    for name, value in asdict(metrics).items():
        if value is not None and name != "epoch":
            board.add_scalar(name, value, metrics.epoch)
    board.flush()
