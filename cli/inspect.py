"""`byol-edge inspect`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from ..runtime.bundle import GOLDEN, MANIFEST, Bundle
from ..runtime.encoder import Encoder
from ..runtime.errors import ByolEdgeError, UsageError
from ..runtime.vectors import load_vectors
from .output import megabytes, print_json, print_table, say, share


@click.command(short_help="Say what a run, bundle, model file or file of vectors is.")
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print it for a program.")
def inspect(path: Path, as_json: bool) -> None:
    """Say what PATH is and what it holds: a run, a bundle, an .onnx file of a bundle, or a file of vectors.

    Example: byol-edge inspect bundles/photos
    """
    if not path.exists():
        raise UsageError(f"{path}: no such file or folder")
    try:
        if (path / MANIFEST).exists():
            _inspect_bundle(Bundle.open(path), as_json)
        elif (path / "config.json").exists():
            _inspect_run(path, as_json)
        elif path.suffix == ".onnx":
            _inspect_model(path, as_json)
        elif path.suffix in (".npz", ".parquet"):
            _inspect_vectors(path, as_json)
        else:
            raise UsageError(f"{path} is not a run, a bundle, an .onnx file or a file of vectors")
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise ByolEdgeError(f"{path}: damaged, or written by another version ({error!r})") from error


def _inspect_bundle(bundle: Bundle, as_json: bool) -> None:
    if as_json:
        print_json(bundle.manifest)
        return
    manifest = bundle.manifest
    training, export = manifest["provenance"]["training"], manifest["provenance"]["export"]
    _say_pairs(
        f"bundle {bundle.path}",
        {
            "network": f"{manifest['network']['backbone']}, {manifest['network']['stem']} stem",
            "embedding": f"{bundle.embedding_size} numbers, unit length",
            "input": f"uint8 [N, {bundle.preprocessing.image_size}, {bundle.preprocessing.image_size}, 3], RGB",
            "trained": f"{training['epoch']} of {training['epochs']} epochs, recipe {training['recipe']}, "
            f"{training['network']} network, seed {training['seed']}",
            "verdict": training["verdict"],
            "made with": ", ".join(f"{name} {number}" for name, number in export["versions"].items()),
            "default": manifest["default"],
            **{name: f"quantized with {search['kept']}" for name, search in export.get("searches", {}).items()},
            "holds": _whose_images(bundle),
        },
    )
    measured = _read_measured(bundle)
    rows = []
    for name, variant in bundle.variants.items():
        fidelity = manifest["variants"][name]["fidelity"]
        speed = measured.get(name)
        rows.append(
            (
                name,
                megabytes(bundle.size(variant)),
                f"{fidelity['cosine_mean']:.5f}",
                share(fidelity["overlap"]),
                "passed" if variant.passes else "missed",
                f"{speed['median']:.2f}" if speed else "–",
                "yes" if bundle.holds(variant) else "no",
                bundle.digest(variant),
            )
        )
    columns = ("variant", "size", "cosine", "overlap@10", "gates", "ms/image", "files here", "id")
    print_table("against PyTorch, and speed, as measured at export:", columns, rows)


def _whose_images(bundle: Bundle) -> str:
    if not (bundle.path / GOLDEN).exists():
        return "no reference images (golden.npz is not here)"
    if bundle.manifest["provenance"]["export"].get("reference_images") == "synthetic":
        return "drawn reference images (golden.npz), none of a user's"
    return "16 of the user's images or fewer, at model size, as reference (golden.npz)"


def _read_measured(bundle: Bundle) -> dict[str, Any]:
    """Speeds on the machine that exported; a bundle is whole without them."""
    try:
        return json.loads((bundle.path / "measured.json").read_text(encoding="utf-8"))["ms_per_image"]
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _inspect_run(path: Path, as_json: bool) -> None:
    config = json.loads((path / "config.json").read_text(encoding="utf-8"))
    metrics = path / "metrics.jsonl"
    epochs = [json.loads(line) for line in metrics.read_text().splitlines()] if metrics.exists() else []
    settings, images = config["settings"], config["images"]
    if as_json:
        print_json({**config, "epochs": epochs})
        return
    last = epochs[-1] if epochs and epochs[-1]["epoch"] else None  # epoch 0 is the untrained network
    encoder = path / "encoder.json"
    verdict = json.loads(encoder.read_text(encoding="utf-8"))["provenance"]["verdict"] if encoder.exists() else "–"
    _say_pairs(
        f"run {path}",
        {
            "images": str(images["count"]),
            "network": f"{settings['backbone']}, {settings['stem']} stem, {settings['image_size']} px",
            "recipe": f"{settings['recipe']}, batches of {settings['batch_size']}, {settings['optimizer']} at "
            f"{settings['learning_rate']:.2g}, seed {settings['seed']}",
            "epochs": f"{last['epoch'] if last else 0} of {settings['epochs']}",
            "last epoch": f"loss {last['loss']:.3f}, rank {last['rank']:.0f}" if last else "none finished",
            "verdict": verdict,
            "made with": ", ".join(f"{name} {number}" for name, number in config["versions"].items()),
        },
    )


def _inspect_model(path: Path, as_json: bool) -> None:
    encoder = Encoder(path)
    facts = {
        "model": encoder.id,
        "embedding_size": encoder.embedding_size,
        "preprocessing": encoder.preprocessing.to_json(),
    }
    if as_json:
        print_json(facts)
    else:
        side = encoder.preprocessing.image_size
        _say_pairs(
            f"model file {path}",
            {
                "id": encoder.id,
                "embedding": f"{encoder.embedding_size} numbers, unit length",
                "input": f"uint8 [N, {side}, {side}, 3], RGB",
            },
        )


def _inspect_vectors(path: Path, as_json: bool) -> None:
    content = load_vectors(path)
    facts = {"vectors": list(content.vectors.shape), "model": content.model}
    if as_json:
        print_json(facts)
    else:
        _say_pairs(
            f"file of vectors {path}",
            {
                "vectors": f"{content.vectors.shape[0]}, of {content.vectors.shape[1]} numbers each",
                "model": content.model,
                "sources": " … ".join(content.sources[:: max(1, len(content.sources) - 1)]),
            },
        )


def _say_pairs(title: str, pairs: dict[str, str]) -> None:
    say(title)
    for name, value in pairs.items():
        say(f"  {name:<12}{value}")
