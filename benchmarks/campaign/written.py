"""Whether what a command wrote is whole, whenever the command was stopped, and the same as if it had not been."""

from __future__ import annotations

import json
from pathlib import Path

from byol_edge.runtime import Encoder
from byol_edge.runtime.files import sha256
from byol_edge.runtime.run import Run
from byol_edge.runtime.untrusted import load_arrays
from byol_edge.runtime.vectors import load_vectors
from PIL import Image

SAME_IN_RUNS = ("config.json", "encoder.safetensors", "calibration.npz", "views.png")
TIMED = ("seconds", "images_per_s", "waiting", "rendering", "memory")


def check_whole(name: str, out: Path, whole: Path) -> tuple[str, str]:
    """What is at `out` in a word or two, and what is wrong with it if it is neither absent nor whole."""
    if not out.exists():
        return "shards" if [*out.parent.glob(f"{out.name}.parts/*.npz")] else "nothing yet", ""
    try:
        if name == "train":
            return _read_run(out), ""
        if name.startswith("export"):
            test = Encoder(out).self_test()
            return "a bundle", "; ".join(test.failures) or compare(name, out, whole)
        return "the file", compare(name, out, whole)
    except Exception as error:  # whatever a half-written file makes a reader raise
        return "damaged", f"{out.name} is not whole: {error!r}"


def compare(name: str, out: Path, whole: Path) -> str:
    """Where `out` differs from what the undisturbed command wrote; empty if nowhere."""
    if name == "train":
        return _compare_runs(out, whole)
    if name.startswith("export"):
        return _compare_bundles(out, whole)
    if out.read_bytes() != whole.read_bytes():
        rows, expected = load_vectors(out), load_vectors(whole)
        return f"{out.name} has other bytes: {len(rows.sources)} rows of {len(expected.sources)}"
    return ""


def find_left_over(folder: Path, *expected: str) -> str:
    """What lies in a folder and should not."""
    strangers = sorted(entry.name for entry in folder.iterdir() if entry.name not in expected)
    return f"left over: {', '.join(strangers)}" if strangers else ""


def _read_run(path: Path) -> str:
    """Reads all that a run holds."""
    run = Run(path)
    if not run.exists:
        return "nothing yet"
    run.read_config()
    epochs = run.read_metrics()
    if (path / "calibration.npz").exists():
        run.read_calibration(32)
    for picture in path.glob("*.png"):
        if not picture.name.startswith("."):
            with Image.open(picture) as image:
                image.verify()
    if (path / "last.pt").exists():
        from torch import load  # an archive with a sum for each part; nothing is built

        load(path / "last.pt", map_location="cpu", weights_only=True)
    if not (path / "encoder.safetensors").exists():
        return "no epoch yet" if len(epochs) < 2 else "metrics only"
    from safetensors.numpy import load as load_weights

    load_weights(run.read_encoder().weights)
    return "some epochs"


def _compare_runs(out: Path, whole: Path) -> str:
    if left := find_left_over(out, *(entry.name for entry in whole.iterdir())):
        return left
    for name in SAME_IN_RUNS:
        if (out / name).read_bytes() != (whole / name).read_bytes():
            return f"{name} has other bytes"
    return "" if _untimed(out) == _untimed(whole) else "metrics.jsonl holds other figures"


def _untimed(run: Path) -> list[dict[str, object]]:
    lines = (json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines())
    return [{name: value for name, value in line.items() if name not in TIMED} for line in lines]


def _compare_bundles(out: Path, whole: Path) -> str:
    files, expected = (json.loads((folder / "manifest.json").read_text())["files"] for folder in (out, whole))
    if files != expected:
        return f"other files: {sorted(name for name in {*files, *expected} if files.get(name) != expected.get(name))}"
    for name, entry in files.items():
        if sha256((out / name).read_bytes()) != entry["sha256"]:
            return f"{name} has other bytes than the manifest says"
    return find_left_over(out, *(entry.name for entry in whole.iterdir()))


def check_vectors(file: Path, count: int, expected: Path | None = None) -> str:
    """What is wrong with the vectors in an .npz file, whatever model made them; `expected`: close to these."""
    vectors = load_arrays(file)["vectors"]
    if vectors.dtype != "float32" or vectors.ndim != 2 or len(vectors) != count:
        return f"{vectors.dtype} {vectors.shape} for {count} images"
    lengths = (vectors.astype(float) ** 2).sum(1) ** 0.5
    if not (abs(lengths - 1) < 1e-3).all():
        return f"vectors of length {lengths.min()} to {lengths.max()}"
    if expected is not None:
        others = load_arrays(expected)["vectors"]
        if others.shape != vectors.shape:
            return f"{vectors.shape} where {others.shape} was expected"
        lowest = (vectors * others).sum(1).min()
        return f"wrong vectors: cosine {lowest:.3f}" if lowest < 0.95 else ""
    return ""
