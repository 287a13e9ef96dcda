"""`byol-edge validate`."""

from __future__ import annotations

import re
import sys
from contextlib import redirect_stdout
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree import ElementTree

import click

from ..runtime.errors import FidelityError, UsageError
from ..runtime.files import write_text
from ..runtime.identity import Maker
from ..runtime.text import count
from ..runtime.vector_comparison import VectorComparison, compare_vector_files
from .module import make_module, module_option
from .output import needs, note, print_json, print_maps, print_table, say, share

if TYPE_CHECKING:
    from ..evaluate.layers import Layer
    from ..evaluate.scorer import Accuracy
    from ..evaluate.validate import Validation

SHARE = click.FloatRange(0, 1)


@click.command(short_help="Compare every variant of a bundle with PyTorch on your images.")
@click.argument("bundle", type=click.Path(path_type=Path), required=False)
@click.argument("checkpoint", required=False)
@click.option("--data", type=click.Path(path_type=Path), help="A folder of images, searched recursively.")
@click.option("--variant", help="Only this one: fp32, int8, or a name such as int8.onnx.  [default: all]")
@click.option(
    "--labels",
    type=click.Path(path_type=Path),
    help="Classes, as a CSV file with columns image and label.  [default: sub-folders]",
)
@click.option(
    "--against", type=click.Path(path_type=Path), help="Compare with this run or checkpoint, not the bundle's weights."
)
@module_option("Compare with what this callable of your own returns, given CHECKPOINT, if any. Runs its code.")
@click.option("--min-cosine", type=SHARE, help="Gate on the cosine (mean for INT8, lowest for others).")
@click.option("--min-overlap", type=SHARE, help="Gate on the overlap of the ten nearest.")
@click.option("--max-accuracy-drop", type=SHARE, help="Gate on the fall of 5-NN accuracy, 0.01 for a point.")
@click.option("--layers", is_flag=True, help="Also tell where along the network each variant departs from FP32.")
@click.option("--junit", type=click.Path(path_type=Path), help="Write the gates to this file, as JUnit XML for CI.")
@click.option(
    "--vectors",
    nargs=2,
    type=click.Path(path_type=Path),
    help="Instead of a bundle: compare two files of vectors, A.npz B.npz.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the result for a program.")
def validate(
    bundle: Path | None,
    checkpoint: str | None,
    data: Path | None,
    variant: str | None,
    labels: Path | None,
    against: Path | None,
    module: str | None,
    min_cosine: float | None,
    min_overlap: float | None,
    max_accuracy_drop: float | None,
    layers: bool,
    junit: Path | None,
    vectors: tuple[Path, Path] | None,
    as_json: bool,
) -> None:
    """Compare every variant of BUNDLE, on every engine, with PyTorch on the images under --data; exit 1 when a gate
    fails.

    Where --data has one sub-folder per class, or with --labels, accuracy is compared too, and shown next to the
    untrained network and raw pixels.

    Example: byol-edge validate bundles/photos --data photos/test

    With --layers, prints the signal-to-noise ratio after each layer, and draws it in BUNDLE.report/layers.png.

    A bundle that was exported with --module needs it again, and the same CHECKPOINT.

    With --vectors, compares what two machines made of the same images: byol-edge validate --vectors a.npz b.npz
    """
    if vectors:
        others = (bundle, data, variant, labels, against, module, min_overlap, max_accuracy_drop, layers, junit)
        if any(others):
            raise UsageError("--vectors compares two files: nothing goes with it but --min-cosine and --json")
        _validate_vectors(compare_vector_files(*vectors, min_cosine), as_json)
        return
    if bundle is None or data is None:
        raise UsageError("give a BUNDLE and --data DIR, or --vectors A.npz B.npz")
    if checkpoint is not None and module is None:
        raise UsageError(f"{checkpoint}: a CHECKPOINT goes with --module; --against compares with other weights")
    if against is not None and module is not None:
        raise UsageError("--against and --module both say what to compare with: give one of them")
    with needs("export"):
        from ..evaluate.layers import measure_layers
        from ..evaluate.plots import draw_layers
        from ..evaluate.validate import Limits
        from ..evaluate.validate import validate as run_validation
    limits = Limits(min_cosine, min_overlap, max_accuracy_drop)
    with redirect_stdout(sys.stderr):  # what a user's own code prints
        network = make_module(module, checkpoint) if module is not None else None
        result = run_validation(
            bundle, data, variant=variant, labels=labels, against=against, module=network, limits=limits
        )
        by_layer = measure_layers(bundle, data, variant=variant, module=network) if layers else {}
    picture = bundle.resolve().with_name(bundle.resolve().name + ".report") / "layers.png"
    if as_json:
        layers_as_json = {name: [asdict(layer) for layer in found] for name, found in by_layer.items()}
        print_json({**result.to_json(), "layers": layers_as_json})
    else:
        print_validation(result, bundle)
        print_layers(by_layer)
        say(result.conclusion)
    if by_layer:
        draw_layers(by_layer, str(bundle), picture)
        note(f"drawn in {picture}")
    if junit:
        write_text(junit, to_junit(result, bundle))
    if result.failures:
        more = f" (and {len(result.failures) - 1} more, above)" if len(result.failures) > 1 else ""
        raise FidelityError(f"{bundle}: {result.failures[0]}{more}")


def print_validation(result: Validation, bundle: Path) -> None:
    """Fidelity, then accuracy with its floors."""
    if result.difference:
        say(f"Note: {result.difference}.")
    rows = [
        (
            each.name,
            each.engine,
            f"{each.fidelity.cosine_mean:.5f}",
            f"{each.fidelity.cosine_p01:.5f}",
            f"{each.fidelity.cosine_min:.5f}",
            f"{each.fidelity.angle_mean:.2f}°",
            share(each.fidelity.overlap),
            share(each.fidelity.rank_correlation),
            "FAILED" if each.failures else "passed",
        )
        for each in result.variants
    ]
    columns = ("variant", "engine", "cosine", "1st pct", "lowest", "angle", "overlap", "order", "gates")
    what = f"{result.classes} classes" if result.classes else "no classes known"
    if 0 < result.labeled < result.images:
        what += f" (of {result.labeled} images)"
    print_table(f"{bundle}, to PyTorch on {count(result.images, 'image')}, {what}:", columns, rows, left=2)
    say(
        "cosine: to PyTorch's vectors, mean, 1st percentile and lowest; angle: mean. overlap: share of the ten\n"
        "nearest images that both agree on. order: rank correlation of the cosines of all pairs."
    )
    print_maps({f"{each.name} ({each.engine})": each.maps for each in result.variants})
    for unmeasured in dict.fromkeys(text for each in result.variants for text in each.unmeasured):
        say(f"Not measured, and so not judged: {unmeasured}.")
    if result.accuracy:
        _print_accuracy(result)
    for failure in result.failures:
        say(f"FAILED: {failure}")
    if result.unreadable:
        say(f"{count(len(result.unreadable), 'image')} could not be read and left out.")


def _print_accuracy(result: Validation) -> None:
    from ..evaluate.scorer import FIGURES

    assert result.accuracy is not None
    # A threshold on PyTorch's cosines means nothing to another space's.
    rows = [(name, "", *_score_cells(each)[:-2], "", "") for name, each in result.floors.items()]
    rows += [("PyTorch", "", *_score_cells(result.accuracy))]
    rows += [(each.name, each.engine, *_score_cells(each.accuracy)) for each in result.variants if each.accuracy]
    titles = [title for figure in FIGURES for title in (figure.title, "change")]
    say("")
    columns = ("", "", *titles, "same/other", "false", "missed")
    print_table("Accuracy, and its change to PyTorch with a 95 % interval:", columns, rows, left=2)
    say(
        "change: less than 0 is worse than PyTorch; for raw pixels and untrained it is good news. same/other: chance\n"
        "that two images of one class are the closer ones. false, missed: pairs told wrongly at PyTorch's threshold."
    )


def _score_cells(accuracy: Accuracy) -> tuple[str, ...]:
    from ..evaluate.scorer import FIGURES

    cells = []
    for score in (accuracy.scores.get(figure.name) for figure in FIGURES):
        change = score.change if score else None
        cells += [share(score.value.mean if score else None)]
        cells += [f"{change.lower:+.3f}…{change.upper:+.3f}" if change else ""]
    pairs = accuracy.verification
    return (*cells, share(pairs.auc), share(pairs.false_matches), share(pairs.misses))


def print_layers(measured: dict[str, list[Layer]]) -> None:
    """Signal to noise after each layer, one column per variant; nothing where none was measured."""
    if not measured:
        return
    ratios = {name: {layer.name: layer.signal_to_noise for layer in layers} for name, layers in measured.items()}
    names = dict.fromkeys(layer.name for layers in measured.values() for layer in layers)
    rows = [(name, *(_decibels(found.get(name)) for found in ratios.values())) for name in names]
    say("")
    print_table(
        "Signal to noise after each layer, dB (20: noise has a hundredth of the power):", ("layer", *ratios), rows
    )


def _decibels(ratio: float | None) -> str:
    return "–" if ratio is None else "exact" if ratio == float("inf") else f"{ratio:.1f}"


def to_junit(result: Validation, bundle: Path) -> str:
    """One test case per variant and engine, and one for what is the same for all of them."""
    cases = [("weights and decoding", result.around, None)]
    cases += [(f"{each.name} on {each.engine}", each.failures, each.cause) for each in result.variants]
    suite = ElementTree.Element(
        "testsuite",
        name=f"byol-edge validate {bundle}",
        tests=str(len(cases)),
        failures=str(sum(bool(failures) for _, failures, _ in cases)),
    )
    for name, failures, cause in cases:
        case = ElementTree.SubElement(suite, "testcase", classname="byol-edge.validate", name=name)
        if failures:
            failure = ElementTree.SubElement(case, "failure", message="; ".join(failures))
            failure.text = f"likely cause: {cause}" if cause else None
    ElementTree.indent(suite)
    text = '<?xml version="1.0" encoding="utf-8"?>\n' + ElementTree.tostring(suite, encoding="unicode") + "\n"
    return re.sub(r"[^\t\n -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", "\ufffd", text)  # XML has no other characters


def _validate_vectors(result: VectorComparison, as_json: bool) -> None:
    if as_json:
        print_json({**asdict(result), "failures": list(result.failures)})
    else:
        fidelity, both = result.fidelity, zip(result.models, result.engines, strict=True)
        makers = dict.fromkeys(str(Maker(*each)) for each in both)
        alone = f"{result.only_first} in the first alone, {result.only_second} in the second"
        say(f"{result.common} images in both files, {alone}")
        say(f"  made by:  {' and '.join(makers)}")
        say(f"  cosine:   mean {fidelity.cosine_mean:.6f}, 1st percentile {fidelity.cosine_p01:.6f}")
        say(f"  lowest:   {fidelity.cosine_min:.6f}, {result.worst}")
        say(f"  overlap:  {share(fidelity.overlap)} of the ten nearest")
        say("FAILED" if result.failures else "passed")
    if result.failures:
        raise FidelityError("; ".join(result.failures))
