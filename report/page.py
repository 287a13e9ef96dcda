"""A report as a page: one HTML file that needs nothing else, neither a network nor scripts."""

from __future__ import annotations

import base64
import hashlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from ..runtime.text import count, to_text
from . import figures
from .conclusion import conclude, find_failures
from .findings import Neighbors, Query, Report
from .neighbors import ALIKE, ALIKE_RAW, SHOWN
from .sources import PYTORCH
from .tables import show, tabulate_comparison, tabulate_provenance, tabulate_validation
from .thumbnails import ACROSS, LONG, Sheets

HERE = Path(__file__).parent
VERDICTS = {"ship": "Good to ship.", "doubtful": "Think twice.", "stop": "Do not ship."}
# The color of classes that have none of their own.
REST = f"c{len(figures.COLORS) - 1}"


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
    environment.filters |= {"shown": show, "labeled": _label, "count": count}
    script = (HERE / "page.js").read_text(encoding="utf-8")
    classes = _count_classes(report)
    colors = _choose_colors(report, classes)
    page = environment.get_template("page.html").render(
        report=report,
        conclusion=conclude(report),
        verdicts=VERDICTS,
        failures=find_failures(report),
        sections=_list_sections(report),
        comparison=tabulate_comparison(report),
        validation=tabulate_validation(report, report.validation) if report.validation else None,
        provenance=tabulate_provenance(report),
        charts=_draw_charts(report),
        classes=classes,
        key=_write_key(report, classes, colors),
        color_of=lambda row: _find_color(report, colors, row),
        neighbors=len(report.queries[0].by[0].images),
        radius=max(3, min(12, round(250 / len(report.maps[0].images) ** 0.5))),
        views=_list_views(report, pictures),
        changing=_find_changing(report),
        marks=_mark_with(report),
        thumbnails=pictures.thumbnails,
        sheets=pictures.sheets,
        training_views=pictures.views,
        long=LONG,
        pairs=report.duplicates[:SHOWN],
        alike=(ALIKE, ALIKE_RAW),
        csv_name=csv_name,
        json_name=json_name,
        style=Markup(_write_style()),
        script=Markup(script),
        script_hash=f"sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}",
        data=_write_data(report, pictures),
    )
    return to_text(page)


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
        "images": [show(name) for name in report.images],
        "classes": [None if name is None else show(name) for name in report.classes] if report.classes else None,
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
    """A color's name by class; the rarest of many classes share one, and images of none are gray."""
    crowded = len(classes) > len(figures.COLORS)
    own = classes[: len(figures.COLORS) - 1] if crowded else classes
    return {name: f"c{number}" for number, name in enumerate(own)}


def _find_color(report: Report, colors: Mapping[str, str], row: int) -> str:
    name = report.classes[row] if report.classes else None
    return "none" if name is None else colors.get(name, REST)


def _write_key(report: Report, classes: Sequence[str], colors: Mapping[str, str]) -> list[tuple[str, str]]:
    """What each color means: name and color."""
    rest = [("other classes", REST)] if len(classes) > len(colors) else []
    return [*colors.items(), *rest, *([("no class", "none")] if None in (report.classes or ()) else [])]


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


def list_shown(report: Report) -> Sequence[int]:
    """The images that a page shows one by one."""
    shown = [
        row for query in report.queries for row in (query.image, *(image for by in query.by for image in by.images))
    ]
    shown += [each.image for each in (*report.moved, *report.outliers)]
    return shown + [row for pair in report.duplicates[:SHOWN] for row in (pair.first, pair.second)]
