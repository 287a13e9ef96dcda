"""`byol-edge demo`: the whole pipeline on images that ship with a dependency."""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click
import numpy as np
from PIL import Image

from ..runtime.errors import FidelityError
from ..runtime.files import FolderKind, check_output, to_json, write_text
from ..runtime.preprocessing import prepare_all
from .output import megabytes, needs, note, print_json, print_table, say

if TYPE_CHECKING:
    from ..evaluate.scorer import Accuracy, Score

RESULT = "demo.json"
DEMO = FolderKind("demo", RESULT, (RESULT, "images", "run", "bundle"))
SIDE = 32
EPOCHS = 30
SEED = 0
SHOTS, DRAWS = 3, 200
# What the demo holds itself to, in shares of the held-out images.
LEAST_GAIN = 0.02
MOST_LOSS = 0.005


@dataclass(frozen=True)
class Row:
    """A line of the demo's table; None where a figure does not apply. `few_shot` comes with its 95% interval."""

    name: str
    engine: str
    size: int | None
    ms_per_image: float | None
    cosine: float | None
    few_shot: float
    few_shot_interval: tuple[float, float]
    knn: float


@dataclass(frozen=True)
class Result:
    """What the demo found; `failures` is empty if it keeps its promises."""

    rows: list[Row]
    failures: list[str]
    seconds: float


@click.command(short_help="The whole pipeline on handwritten digits, in one to three minutes, offline.")
@click.option(
    "--out", type=click.Path(path_type=Path), default=Path("byol-edge-demo"), show_default=True, help="Where."
)
@click.option("--overwrite", is_flag=True, help="Replace the demo at --out.")
@click.option("--json", "as_json", is_flag=True, help="Print the result for a program.")
def demo(out: Path, overwrite: bool, as_json: bool) -> None:
    """Train, export, quantize and validate a small encoder of handwritten digits, and print what came of it.

    Exits 1 if the trained encoder does not beat the untrained one and raw pixels, or a variant is not faithful.
    """
    with needs("all"):
        from ..export.bundling import export_bundle
        from ..export.config import ExportConfig
        from ..train.config import TrainConfig
        from ..train.pretrain import pretrain
    start = time.monotonic()
    check_output(out, overwrite, DEMO)
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    write_text(out / RESULT, to_json({"finished": False}))
    note(f"writing scikit-learn's handwritten digits to {out / 'images'}")
    write_digits(out / "images")
    config = TrainConfig("conv4", SIDE, EPOCHS, recipe="glyphs", seed=SEED)
    verdict = pretrain(out / "images" / "train", out / "run", config, evaluation=out / "images" / "test")
    note(str(verdict))
    export_bundle(out / "run", out / "bundle", ExportConfig(int8=True))
    note("measuring accuracy on the held-out digits")
    rows, failures = measure(out)
    result = Result(rows, failures, time.monotonic() - start)
    write_text(out / RESULT, to_json({"finished": True, **asdict(result)}))
    if as_json:
        print_json(asdict(result))
    else:
        print_result(result, out)
    if failures:
        raise FidelityError(f"the demo's pipeline is broken: {'; '.join(failures)}")


def write_digits(folder: Path) -> None:
    """Writes scikit-learn's digits as PNGs of 32 px to train/ (three quarters) and test/, one folder per class."""
    from sklearn.datasets import load_digits

    flat, labels = load_digits(return_X_y=True)
    held_out = set(np.random.default_rng(SEED).permutation(len(labels))[: len(labels) // 4].tolist())
    for index, (pixels, label) in enumerate(zip(np.reshape(flat, (-1, 8, 8)), labels, strict=True)):
        part = folder / ("test" if index in held_out else "train") / str(label)
        part.mkdir(parents=True, exist_ok=True)
        image = Image.fromarray((pixels * (255 / 16)).round().astype(np.uint8))
        image.resize((SIDE, SIDE), Image.Resampling.BICUBIC).save(part / f"{index:04}.png")


def measure(out: Path) -> tuple[list[Row], list[str]]:
    """The table's rows, and what falls short of what the demo promises."""
    from ..evaluate.embedding import embed_everywhere
    from ..evaluate.knn import few_shot_hits, knn_hits
    from ..evaluate.scorer import Figure, make_scorer
    from ..evaluate.validate import Limits, judge
    from ..models.network import embed_pixels
    from ..runtime.bundle import Bundle
    from ..runtime.run import ENCODER
    from ..runtime.timing import time_in_turn

    embedded = embed_everywhere(Bundle.open(out / "bundle"), out / "images" / "test")
    bundle, encoders = embedded.bundle, embedded.encoders
    validation = judge(embedded, Limits())
    runs = [partial(embed_pixels, embedded.reference.network), *(encoder.run for encoder in encoders)]
    torch_time, *times = (timing.median for timing in time_in_turn(runs, SIDE))

    few_shot = Figure("few_shot", "3-shot", partial(few_shot_hits, shots=SHOTS, draws=DRAWS, seed=SEED))
    scorer = make_scorer(embedded.of_pytorch, embedded.classes, (few_shot, Figure("knn", "5-NN", knn_hits)))
    assert scorer is not None
    raw = prepare_all(embedded.paths, bundle.preprocessing).reshape(len(embedded.paths), -1).astype(np.float32)
    scores = {
        "raw pixels": scorer.score(raw),
        "untrained": scorer.score(embedded.of_floors["untrained"]),
        "PyTorch": scorer.accuracy,
    }
    weights = bundle.manifest["files"][ENCODER]["size"]
    rows = [
        _make_row("raw pixels", "–", None, None, None, scores["raw pixels"]),
        _make_row("untrained", "PyTorch", None, None, None, scores["untrained"]),
        _make_row("PyTorch", "eager", weights, torch_time, None, scores["PyTorch"]),
    ]
    for each, vectors, ms in zip(validation.variants, embedded.of_variants, times, strict=True):
        its = scores[f"{each.name} {each.engine}"] = scorer.score(vectors)
        size = bundle.size(bundle.variants[each.name])
        rows.append(_make_row(each.name, each.engine, size, ms, each.fidelity.cosine_mean, its))
    return rows, [*validation.failures, *find_failures({name: each.scores for name, each in scores.items()})]


def _make_row(name: str, engine: str, size: int | None, ms: float | None, cosine: float | None, of: Accuracy) -> Row:
    few_shot, knn = of.scores["few_shot"].value, of.scores["knn"].value
    return Row(name, engine, size, ms, cosine, few_shot.mean, (few_shot.lower, few_shot.upper), knn.mean)


def find_failures(scores: Mapping[str, Mapping[str, Score]]) -> list[str]:
    """What falls short: training that gains too little, an INT8 variant that loses too much.

    `scores`: the figures "few_shot" and "knn" of each row of the table.
    """
    failures = []
    for floor in ("raw pixels", "untrained"):
        gain = scores["PyTorch"]["few_shot"].value.mean - scores[floor]["few_shot"].value.mean
        if not gain >= LEAST_GAIN:
            failures.append(f"3-shot accuracy of the trained encoder is {gain:+.3f} to {floor}, needs {LEAST_GAIN:+}")
    for name in (name for name in scores if name.startswith("int8")):
        for what, score in scores[name].items():
            change = score.change
            if change and change.mean < -MOST_LOSS and change.upper < 0:
                failures.append(f"{name} loses {-change.mean:.3f} of PyTorch's {what} accuracy, may lose {MOST_LOSS}")
    return failures


def print_result(result: Result, out: Path) -> None:
    rows = [
        (
            row.name,
            row.engine,
            "" if row.size is None else megabytes(row.size),
            "" if row.ms_per_image is None else f"{row.ms_per_image:.2f}",
            "" if row.cosine is None else f"{row.cosine:.5f}",
            f"{row.few_shot:.3f} ± {row.few_shot - row.few_shot_interval[0]:.3f}",
            f"{row.knn:.3f}",
        )
        for row in result.rows
    ]
    columns = ("variant", "engine", "size", "ms/image", "cosine", "3-shot", "5-NN")
    say("")
    print_table("Accuracy on handwritten digits that training has not seen, 32 px:", columns, rows, left=2)
    say(
        "\ncosine: to PyTorch's embeddings, mean. 3-shot: 1-NN from three labeled images per\n"
        f"class, mean of {DRAWS} draws with its 95 % interval. 5-NN: leave one out.\n"
        f"The whole pipeline took {result.seconds:.0f} s and lies in {out}.\n"
        "\nThe same for a folder of your own images:\n\n"
        "    byol-edge train IMAGES --out runs/mine\n"
        "    byol-edge export runs/mine --int8 --out bundles/mine\n"
        "    byol-edge validate bundles/mine --data IMAGES_KEPT_BACK"
    )
