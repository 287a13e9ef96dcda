"""A report as a page: one HTML file that needs nothing else, neither a network nor scripts."""

from __future__ import annotations

import base64
import hashlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from ..evaluate.comparison import FEW_LABELS
from ..evaluate.scorer import FIGURES as ACCURACIES
from ..evaluate.validate import ValidatedVariant, Validation
from ..runtime.interval import Interval
from ..runtime.text import printable, to_text
from . import figures
from .conclusion import FIGURES, conclude, find_failures
from .findings import Neighbors, Query, Report
from .neighbors import ALIKE, ALIKE_RAW
from .sources import PYTORCH, name_variant
from .thumbnails import ACROSS, LONG, Sheets

HERE = Path(__file__).parent
VERDICTS = {"ship": "Good to ship.", "doubtful": "Not clear.", "stop": "Do not ship."}
OTHERS = "others"


@dataclass(frozen=True)
class Pictures:
    """What a page shows beside figures; empty where images must not travel.

    `thumbnails`: by the image's place in the report. `sheets`: the images on the map. `map`: the first map with
    pictures, `views`: the run's, as data URIs.
    """

    thumbnails: dict[int, str]
    sheets: Sheets | None = None
    map: str | None = None
    views: str | None = None


def write_page(report: Report, pictures: Pictures, csv_name: str, json_name: str) -> str:
    """The page's HTML. `csv_name`, `json_name`: the files beside it."""
    environment = Environment(
        loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"shown": _show, "labeled": _label}
    script = (HERE / "page.js").read_text(encoding="utf-8")
    classes = _count_classes(report)
    colors = _choose_colors(report, classes)
    return environment.get_template("page.html").render(
        report=report,
        conclusion=conclude(report),
        verdicts=VERDICTS,
        failures=find_failures(report),
        sections=_list_sections(report),
        comparison=_tabulate_comparison(report),
        validation=_tabulate_validation(report, report.validation) if report.validation else None,
        provenance=_tabulate_provenance(report),
        charts=_draw_charts(report),
        classes=classes,
        colors=colors,
        color_of=lambda row: colors.get((report.classes or {})[row] or OTHERS, colors.get(OTHERS)),
        radius=max(3, min(12, round(250 / len(report.maps[0].images) ** 0.5))),
        views=_list_views(report, pictures),
        changing=_find_changing(report),
        marks=_mark_with(report),
        thumbnails=pictures.thumbnails,
        sheets=pictures.sheets,
        training_views=pictures.views,
        sizes={"long": LONG},
        alike=(ALIKE, ALIKE_RAW),
        csv_name=csv_name,
        json_name=json_name,
        style=Markup(_write_style()),
        script=Markup(script),
        script_hash=f"sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}",
        data=_write_data(report, pictures),
    )


def _show(text: str) -> str:
    """Text that names may be part of: the page's encoding holds it, and no control character does anything."""
    return printable(to_text(text).replace("\n", "\\n").replace("\t", "\\t"))


def _label(svg: str, title: str) -> Markup:
    return Markup(svg.replace("<svg ", f'<svg aria-label="{Markup.escape(title)}" ', 1))


def _write_style() -> str:
    colors = "".join(
        f".c{number} {{ fill: {color}; background: {color}; }}\n" for number, color in enumerate(figures.COLORS)
    )
    return (HERE / "page.css").read_text(encoding="utf-8") + colors


def _write_data(report: Report, pictures: Pictures) -> dict[str, Any]:
    """What the script needs."""
    sheets = pictures.sheets
    return {
        "images": [_show(name) for name in report.images],
        "classes": report.classes,
        "maps": [{"images": each.images, "places": each.places} for each in report.maps],
        "sheets": {"side": sheets.side, "across": ACROSS, "uris": sheets.uris} if sheets else None,
    }


def _list_sections(report: Report) -> dict[str, str]:
    sections = {
        "encoders": "Which encoder?",
        "fidelity": "Is it what was trained?" if report.validation or report.broken else "",
        "neighbors": "Nearest images",
        "map": "Map of the set",
        "moved": "What INT8 changes" if report.moved else "",
        "duplicates": "Near-duplicates",
        "outliers": "Outliers",
        "layers": "Layer by layer" if report.layers else "",
        "training": "Training",
        "provenance": "Where it comes from",
    }
    return {name: title for name, title in sections.items() if title}


def _tabulate_comparison(report: Report) -> dict[str, Any]:
    comparison = report.comparison
    accuracies = [each for each in ACCURACIES if any(each.name in encoder.accuracy for encoder in comparison.encoders)]
    titles = ["with labels"] if comparison.figure == FEW_LABELS else [each.title for each in accuracies]
    rows = []
    for each in comparison.encoders:
        few = comparison.figure == FEW_LABELS
        own = [each.deciding] if few else [each.accuracy.get(accuracy.name) for accuracy in accuracies]
        rows.append(
            [
                _show(each.name),
                str(each.image_size),
                *(_with_interval(value) for value in (each.consistency, *own)),
                f"{each.gap.lower:+.3f}…{each.gap.upper:+.3f}" if each.gap else "best",
                str(each.embedding_size),
                f"{each.size / 1e6:.2f}" if each.size is not None else "–",
                f"{each.timing.median:.2f}" if each.timing else "–",
                f"{each.fidelity:.5f}" if each.fidelity is not None else "–",
            ]
        )
    return {
        "columns": ["encoder", "px", "view consistency", *titles, "to best", "D", "MB", "ms", "cosine to FP32"],
        "rows": rows,
        "legend": f"px: side of the network's input. View consistency: how much of an image is left in other views of it, "
        f"0 to 1, without labels. To best: paired difference to the best by {FIGURES[comparison.figure]}; an interval that "
        "reaches 0 is level with it. D: numbers in a vector. MB: of the model. ms: per image, one at a time, on this "
        "machine, without decoding; PyTorch runs what is not exported.",
    }


def _tabulate_validation(report: Report, validation: Validation) -> dict[str, Any]:
    accurate = validation.accuracy is not None
    rows = [_describe_variant(report, each, accurate) for each in validation.variants]
    if accurate:
        named = {**validation.floors, PYTORCH: validation.accuracy}
        for name, accuracy in named.items():
            score = accuracy.scores.get("knn") if accuracy else None
            timing = report.timings.get(name)
            cells = [_three(score.value.mean) if score else "–", _change(score.change) if score else "–"]
            rows.append([name, "eager" if name == PYTORCH else "–", *["–"] * 6, *cells,
                         f"{timing.median:.2f}" if timing else "–", "–"])  # fmt: skip
    own = ["5-NN", "change"] if accurate else []
    return {
        "columns": [
            "variant",
            "engine",
            "cosine",
            "1st pct",
            "lowest",
            "angle",
            "overlap",
            "order",
            *own,
            "ms",
            "gates",
        ],
        "rows": rows,
        "legend": "Cosine: to PyTorch's vectors, mean, 1st percentile and lowest; angle: mean. Overlap: share of the ten "
        "nearest images that both agree on. Order: rank correlation of the cosines of all pairs. Change: of 5-NN accuracy "
        "to PyTorch's, a paired interval; less than 0 is worse than PyTorch, which for raw pixels and an untrained network "
        "is good news.",
    }


def _describe_variant(report: Report, each: ValidatedVariant, accurate: bool) -> list[str]:
    fidelity, timing = each.fidelity, report.timings.get(name_variant(each.name, each.engine))
    score = each.accuracy.scores.get("knn") if each.accuracy else None
    own = [_three(score.value.mean), _change(score.change)] if score else ["–", "–"] if accurate else []
    return [
        each.name,
        each.engine,
        *(f"{value:.5f}" for value in (fidelity.cosine_mean, fidelity.cosine_p01, fidelity.cosine_min)),
        f"{fidelity.angle_mean:.2f}°",
        _three(fidelity.overlap),
        _three(fidelity.rank_correlation),
        *own,
        f"{timing.median:.2f}" if timing else "–",
        "FAILED" if each.failures else "passed",
    ]


def _tabulate_provenance(report: Report) -> list[tuple[str, str]]:
    known = report.provenance
    trained = f"{known.epoch} of {known.epochs} epochs" if known.epochs else ""
    rows = {
        "source": report.subject,
        "learned by": ", ".join(filter(None, [known.objective, known.recipe and f"recipe {known.recipe}", trained])),
        "started from": known.init or "random weights" if known.epochs else known.init or "",
        "its weights' license": known.license or "",
        "its weights' source": known.source or "",
        "learned from": known.teacher or "",
        "share of the way to the end": f"{known.share:g}" if known.share is not None else "",
        "verdict of the training": known.verdict or "",
        "taken for granted": "; ".join(known.assumptions),
        "trained with": ", ".join(f"{name} {version}" for name, version in known.versions.items()),
        "unreadable images": str(len(report.comparison.unreadable)),
    }
    return [(name, _show(text)) for name, text in rows.items() if text]


def _draw_charts(report: Report) -> dict[str, Any]:
    validation, training = report.validation, report.training
    return {
        "worth": figures.draw_speed_and_worth(report.comparison),
        "fidelity": figures.draw_speed_and_fidelity(validation, report.timings) if validation else "",
        "layers": figures.draw_layers(report.layers) if report.layers else "",
        "training": {
            each.title: figures.draw_training(each, number)
            for number, each in enumerate(training.curves if training else ())
        },
    }


def _list_views(report: Report, pictures: Pictures) -> list[dict[str, Any]]:
    """The map with pictures first, where there are any, then each map as points."""
    points = [
        {"title": f"{each.method}, points", "map": each, "number": number, "picture": None}
        for number, each in enumerate(report.maps)
    ]
    first = {"title": f"{report.maps[0].method}, pictures", "map": None, "number": 0, "picture": pictures.map}
    return [first, *points] if pictures.map else points


def _count_classes(report: Report) -> list[str]:
    """All classes, those with most images first."""
    return [name for name, _ in Counter(each for each in report.classes or () if each is not None).most_common()]


def _choose_colors(report: Report, classes: Sequence[str]) -> dict[str, str]:
    """A color's name by class; the rarest of many classes, and images of none, share one."""
    crowded = len(classes) + (None in (report.classes or ())) > len(figures.COLORS)
    own = classes[: len(figures.COLORS) - 1] if crowded else classes
    names = [*own, OTHERS] if crowded or None in (report.classes or ()) else own
    return {name: f"c{number}" for number, name in enumerate(names)}


def _find_changing(report: Report) -> tuple[str, str] | None:
    """The two encoders whose neighbors are to be the same: PyTorch, and what was exported of it."""
    names = [each.encoder for each in report.queries[0].by] if report.queries else []
    return (names[-2], names[-1]) if PYTORCH in names[:-1] else None


def _mark_with(report: Report) -> Callable[[Query, Neighbors, int], str]:
    """How a neighbor is marked: one of the query's class, and one that only one of two encoders has."""
    changing, classes = _find_changing(report), report.classes

    def mark(query: Query, by: Neighbors, row: int) -> str:
        same = classes is not None and classes[row] is not None and classes[row] == classes[query.image]
        other = [set(each.images) for each in query.by if changing and each.encoder in changing and each is not by]
        changed = changing and by.encoder in changing and row not in other[0]
        return " ".join(["same"] * same + ["changed"] * bool(changed))

    return mark


def _with_interval(value: Interval | None) -> str:
    return f"{value.mean:.3f} ({value.lower:.2f}–{value.upper:.2f})" if value else "–"


def _change(value: Interval | None) -> str:
    return f"{value.lower:+.3f}…{value.upper:+.3f}" if value else "–"


def _three(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def list_shown(report: Report) -> Sequence[int]:
    """The images that a page shows one by one."""
    shown = [
        row for query in report.queries for row in (query.image, *(image for by in query.by for image in by.images))
    ]
    shown += [each.image for each in (*report.moved, *report.outliers)]
    return shown + [row for pair in report.duplicates[:12] for row in (pair.first, pair.second)]
