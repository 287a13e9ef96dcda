"""The tables of a page, as text."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from ..evaluate.comparison import FEW_LABELS, Compared
from ..evaluate.scorer import FIGURES as ACCURACIES
from ..evaluate.scorer import Accuracy
from ..evaluate.validate import ValidatedVariant, Validation
from ..runtime.interval import Interval
from ..runtime.text import printable, to_text
from ..runtime.timing import Timing
from .conclusion import FIGURES
from .findings import Report
from .sources import PYTORCH, name_variant

T = TypeVar("T")
OF_ENCODERS = (
    "px: side of the network's input. View consistency: how much of an image is left in other views of it, 0 to 1, "
    "without labels. To best: paired difference to the best by {figure}; an interval that reaches 0 is level with it. "
    "D: numbers in a vector. MB: of the model. ms: per image, one at a time, on this machine, without decoding; what "
    "is not exported runs in PyTorch. Cosine to FP32: of a bundle's variant to its FP32, mean."
)
OF_VARIANTS = (
    "Cosine: to PyTorch's vectors, mean, 1st percentile and lowest; angle: mean. Overlap: share of the ten nearest "
    "images that both agree on. Order: rank correlation of the cosines of all pairs. ms: per image, one at a time."
)
OF_ACCURACY = (
    " Change: of 5-NN accuracy to PyTorch's, a paired interval; less than 0 is worse than PyTorch, which for raw "
    "pixels and an untrained network is good news."
)


@dataclass(frozen=True)
class Table:
    """`legend`: what the columns are, in sentences."""

    columns: list[str]
    rows: list[list[str]]
    legend: str


def show(text: str) -> str:
    """Text that names may be part of: the page's encoding holds it, and no control character does anything."""
    return printable(to_text(text).replace("\n", "\\n").replace("\t", "\\t"))


def tabulate_comparison(report: Report) -> Table:
    """The encoders, in the order in which they were given."""
    comparison, few = report.comparison, report.comparison.figure == FEW_LABELS
    measured = [each for each in ACCURACIES if any(each.name in encoder.accuracy for encoder in comparison.encoders)]
    titles = ["with labels"] if few else [each.title for each in measured]
    columns = ["encoder", "px", "view consistency", *titles, "to best", "D", "MB", "ms", "cosine to FP32"]
    rows = [
        _describe_encoder(each, [each.deciding] if few else [each.accuracy.get(figure.name) for figure in measured])
        for each in comparison.encoders
    ]
    return Table(columns, rows, OF_ENCODERS.format(figure=FIGURES[comparison.figure]))


def _describe_encoder(each: Compared, own: list[Interval | None]) -> list[str]:
    return [
        show(each.name),
        str(each.image_size),
        *(_if(value, "{0.mean:.3f} ({0.lower:.2f}–{0.upper:.2f})".format) for value in (each.consistency, *own)),
        _change(each.gap) if each.gap else "best",
        str(each.embedding_size),
        _if(each.size, lambda size: f"{size / 1e6:.2f}"),
        _milliseconds(each.timing),
        _if(each.fidelity, "{:.5f}".format),
    ]


def tabulate_validation(report: Report, validation: Validation) -> Table:
    """Every variant; where classes are known, also PyTorch and what it has to beat."""
    accurate = validation.accuracy is not None
    own = ["5-NN", "change"] if accurate else []
    columns = ["variant", "engine", "cosine", "1st pct", "lowest", "angle", "overlap", "order", *own, "ms", "gates"]
    rows = [_describe_variant(report, each, accurate) for each in validation.variants]
    if accurate:
        named = {PYTORCH: validation.accuracy, **validation.floors}
        empty = [_if(None, str)] * 6
        rows += [
            [name, "–", *empty, *_describe_accuracy(each), _milliseconds(report.timings.get(name)), "–"]
            for name, each in named.items()
        ]
    return Table(columns, rows, OF_VARIANTS + (OF_ACCURACY if accurate else ""))


def _describe_variant(report: Report, each: ValidatedVariant, accurate: bool) -> list[str]:
    fidelity = each.fidelity
    return [
        each.name,
        each.engine,
        *(f"{value:.5f}" for value in (fidelity.cosine_mean, fidelity.cosine_p01, fidelity.cosine_min)),
        f"{fidelity.angle_mean:.2f}°",
        _if(fidelity.overlap, "{:.3f}".format),
        _if(fidelity.rank_correlation, "{:.3f}".format),
        *(_describe_accuracy(each.accuracy) if accurate else []),
        _milliseconds(report.timings.get(name_variant(each.name, each.engine))),
        "FAILED" if each.failures else "passed",
    ]


def _describe_accuracy(accuracy: Accuracy | None) -> list[str]:
    """5-NN accuracy, and its change to PyTorch's."""
    score = accuracy.scores.get("knn") if accuracy else None
    return [_if(score, lambda known: f"{known.value.mean:.3f}"), _change(score.change if score else None)]


def tabulate_provenance(report: Report) -> list[tuple[str, str]]:
    """What is known of where the subject comes from, by what it is."""
    known = report.provenance
    trained = f"{known.epoch} of {known.epochs} epochs" if known.epochs else None
    rows = {
        "source": report.subject,
        "learned by": ", ".join(filter(None, [known.objective, known.recipe and f"recipe {known.recipe}", trained])),
        "started from": known.init or ("random weights" if known.epochs else ""),
        "its weights' license": known.license or "",
        "its weights' source": known.source or "",
        "learned from": known.teacher or "",
        "share of the way to the end": _if(known.share, "{:g}".format),
        "verdict of the training": known.verdict or "",
        "taken for granted": "; ".join(known.assumptions),
        "trained with": ", ".join(f"{name} {version}" for name, version in known.versions.items()),
        "unreadable images": str(len(report.comparison.unreadable)),
    }
    return [(name, show(text)) for name, text in rows.items() if text not in ("", "–")]


def _if(value: T | None, write: Callable[[T], str]) -> str:
    """What is known, written; a dash where nothing is."""
    return "–" if value is None else write(value)


def _change(value: Interval | None) -> str:
    return _if(value, "{0.lower:+.3f}…{0.upper:+.3f}".format)


def _milliseconds(timing: Timing | None) -> str:
    return _if(timing, lambda known: f"{known.median:.2f}")
