"""What the trials need, made once: images, a run, a bundle, and what each command gives and takes when left alone."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
from dataclasses import asdict, dataclass
from itertools import cycle
from pathlib import Path
from signal import SIGKILL

import numpy as np
from byol_edge.runtime.files import write_text
from byol_edge.runtime.run import Run
from shapes import SHAPES, draw_shape

from .commands import Limits, Signal, Usage, run_command, tell

OPENVINO = importlib.util.find_spec("openvino") is not None
PARQUET = importlib.util.find_spec("pyarrow") is not None
ENGINES = ("onnxruntime", "openvino") if OPENVINO else ("onnxruntime",)
EPOCHS = 20
COPIES = 50  # of each image, as links, for an embedding that takes a while
EXTRA_SECONDS = 20.0  # that a command may take beyond what it takes when left alone
EXTRA_MEGABYTES = 2_000.0


@dataclass(frozen=True)
class Bench:
    """The folder of all that; `whole` holds what undisturbed commands wrote, by the command's name."""

    path: Path

    @property
    def whole(self) -> Path:
        return self.path / "whole"

    @property
    def run(self) -> Path:
        return self.whole / "train"

    @property
    def half_run(self) -> Path:
        """A training that was killed some epochs before its end."""
        return self.path / "half"

    @property
    def bundle(self) -> Path:
        return self.whole / "export-int8"

    @property
    def few(self) -> Path:
        return self.path / "few"

    def command(self, name: str, out: Path) -> list[object]:
        """The command of this name, which writes to `out` if it writes at all."""
        formats = () if OPENVINO else ("--format", "onnx")
        small = ("--backbone", "conv4", "--image-size", 32, "--batch-size", 16, "--projector-hidden", 64)
        embed = ("embed", self.bundle, self.path / "many", "-o", out)
        return {
            "train": ["train", self.path / "images", "--out", out, *small, "--epochs", EPOCHS, "--workers", 1],
            "export": ["export", self.run, "--format", "onnx", "--out", out],
            "export-int8": ["export", self.run, "--int8", "--no-finetune", *formats, "--out", out],
            "embed": [*embed],
            "embed.parquet": [*embed],
            "embed-few": ["embed", self.bundle, self.few, "-o", out],
            "validate": ["validate", self.bundle, "--data", self.few],
            "self-test": ["self-test", self.bundle],
            "inspect": ["inspect", self.bundle],
            "bench": ["bench", self.bundle, "--seconds", 0.2],
        }[name]

    def result(self, name: str) -> Path:
        """What the undisturbed command wrote."""
        suffix = {"embed": ".npz", "embed-few": ".npz"}.get(name, "")
        return self.whole / f"{name}{suffix}"

    def usage(self, name: str) -> Usage:
        """What the undisturbed command took."""
        return Usage(**self._usages()[name])

    def limits(self, name: str, seconds: float = EXTRA_SECONDS) -> Limits:
        taken = self.usage(name)
        return Limits(taken.seconds + seconds, taken.megabytes + EXTRA_MEGABYTES)

    def _usages(self) -> dict[str, dict[str, float]]:
        file = self.path / "usage.json"
        return json.loads(file.read_text()) if file.exists() else {}

    def prepare(self) -> None:
        """Makes what is missing. Commands run alone: what they take then says when to disturb them."""
        if not (self.path / "many").exists():
            _draw_images(self.path)
        names = ["train", "export-int8", "export", "embed", "embed-few", "validate", "self-test", "inspect", "bench"]
        for name in [*names, *(["embed.parquet"] if PARQUET else [])]:
            usages = self._usages()
            if name in usages:
                continue
            print(f"preparing: {name}", flush=True)
            out = self.result(name)
            shutil.rmtree(out, ignore_errors=True)
            out.unlink(missing_ok=True)
            ended = run_command(*self.command(name, out), limits=Limits(600, 16_000))
            if ended.code != 0:
                raise SystemExit(f"left alone, {name} does not work: {tell(ended)}")
            usages[name] = asdict(ended.usage)
            write_text(self.path / "usage.json", json.dumps(usages))
        self._train_half()

    def _train_half(self) -> None:
        shares = cycle((0.7, 0.5, 0.8, 0.6, 0.9))  # of a time that other work on the machine may have made longer
        while not _has_epochs(self.half_run):
            shutil.rmtree(self.half_run, ignore_errors=True)
            sent = Signal(SIGKILL, next(shares) * self.usage("train").cpu_seconds)
            run_command(*self.command("train", self.half_run), send=sent)


def _has_epochs(run: Path) -> bool:
    return (run / "last.pt").exists() and 2 <= len(Run(run).read_metrics()) <= EPOCHS


def _draw_images(folder: Path) -> None:
    """`images`: 120 in three classes; `few`: 12 of them; `many`: links to them, some thousands. The last one last."""
    random = np.random.default_rng(0)
    for shape in SHAPES:
        (folder / "images" / shape).mkdir(parents=True, exist_ok=True)
        (folder / "few" / shape).mkdir(parents=True, exist_ok=True)
        for number in range(40):
            file = folder / "images" / shape / f"{number:02}.png"
            draw_shape(shape, random).save(file)
            if number < 4:
                shutil.copy(file, folder / "few" / shape)
    part = folder / "many.part"
    shutil.rmtree(part, ignore_errors=True)
    for copy in range(COPIES):
        (part / f"{copy:02}").mkdir(parents=True)
        for file in (folder / "images").rglob("*.png"):
            os.link(file, part / f"{copy:02}" / f"{file.parent.name}-{file.name}")
    part.rename(folder / "many")
