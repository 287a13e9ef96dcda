"""A run on disk: what training leaves behind, and all that export needs of it."""

from __future__ import annotations

import hashlib
import io
import json
import platform
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import matplotlib
import matplotlib.figure
import numpy as np
import torch
from torch import nn

from ..models.weights import WEIGHTS, EncoderSpec, save_weights
from ..runtime.errors import ImageError, OutputExistsError, RunError, UsageError
from ..runtime.files import FolderKind, check_output, to_json, whole_file, write_text
from ..runtime.preprocessing import Pixels, prepare
from .monitor import Metrics
from .recipe import Settings

CONFIG, CHECKPOINT, METRICS, CURVES = "config.json", "last.pt", "metrics.jsonl", "curves.png"
ENCODER, CALIBRATION = "encoder.json", "calibration.npz"

RUN = FolderKind("run", CONFIG, (CONFIG, CHECKPOINT, WEIGHTS, ENCODER, CALIBRATION, METRICS, CURVES))

CALIBRATION_IMAGES = 512
# Settings that do not change what is learnt, so a run may be resumed with others.
FREE_TO_CHANGE = {"workers"}


def describe_run(settings: Settings, paths: list[Path], root: Path) -> dict[str, Any]:
    """The content of config.json: settings, the set of images, versions."""
    names = "\n".join(path.relative_to(root).as_posix() if path != root else path.name for path in paths)
    return {
        "settings": settings.to_json(),
        "images": {"count": len(paths), "names_sha256": hashlib.sha256(names.encode(errors="replace")).hexdigest()},
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
        return torch.load(out / CHECKPOINT, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever a damaged pickle raises
        raise RunError(f"{out / CHECKPOINT}: damaged ({error}); start again with --overwrite") from error


def save_encoder(out: Path, backbone: nn.Module, spec: EncoderSpec, provenance: dict[str, Any]) -> None:
    """Writes the online backbone and what it takes to build it again."""
    save_weights(out / WEIGHTS, backbone)
    write_text(out / ENCODER, to_json({**spec.to_json(), "provenance": provenance}))


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


def append_metrics(out: Path, metrics: Metrics) -> None:
    """Adds an epoch's line to metrics.jsonl, dropping lines of that epoch and later ones left by a killed run."""
    kept = [line for line in read_metrics(out) if line["epoch"] < metrics.epoch]
    write_text(out / METRICS, "".join(json.dumps(line) + "\n" for line in [*kept, asdict(metrics)]))


def read_metrics(out: Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl, none if it is not there."""
    if not (out / METRICS).exists():
        return []
    try:
        return [json.loads(line) for line in (out / METRICS).read_text(encoding="utf-8").splitlines()]
    except ValueError as error:
        raise RunError(f"{out / METRICS}: damaged ({error}); take the broken line out, or delete the file") from error


def draw_curves(out: Path) -> None:
    """Draws curves.png from metrics.jsonl."""
    lines = read_metrics(out)
    epochs = [line["epoch"] for line in lines]
    panels = {
        "loss": "loss (0 to 8)",
        "projection_std": "spread of projections (0: collapsed)",
        "learning_rate": "learning rate",
    }
    with matplotlib.rc_context({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False}):
        figure = matplotlib.figure.Figure(figsize=(9, 2.8), layout="constrained")
        for axes, (key, title) in zip(figure.subplots(1, len(panels)), panels.items(), strict=True):
            axes.plot(epochs, [line[key] for line in lines], marker="o" if len(lines) < 20 else None, markersize=3)
            axes.set(title=title, xlabel="epoch", ylim=(0, None))
            axes.xaxis.get_major_locator().set_params(integer=True)
        with whole_file(out / CURVES) as part:
            figure.savefig(part, dpi=120)
