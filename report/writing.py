"""A report on disk: the page, every figure as JSON, and the near-duplicates as CSV, side by side."""

from __future__ import annotations

import csv
import io
import logging
import os
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from PIL import Image

from ..runtime.errors import OutputExistsError, UsageError
from ..runtime.files import finite, to_json, whole_file
from ..runtime.run import VIEWS
from ..runtime.text import to_text
from .conclusion import conclude
from .findings import Conclusion, Report
from .measure import Measured, measure
from .page import Pictures, list_shown, write_page
from .thumbnails import draw_map, load_thumbnails, make_sheets, to_uri

log = logging.getLogger(__name__)


def write_report(
    sources: Sequence[str],
    data: str | Path,
    out: str | Path,
    *,
    labels: str | Path | None = None,
    images: bool = True,
    overwrite: bool = False,
) -> Conclusion:
    """Writes a page about encoders and the images under `data` to `out`, an .html file; beside it, .json and .csv.

    `sources`: as for compare_encoders; the details are about the first bundle, or the first encoder without one. A run
    among them adds how its training went. `labels`: a CSV file of classes; otherwise the sub-folders are. `images`:
    whether the page holds pictures. Raises OutputExistsError, UsageError, ImageError, and what opening a source raises;
    a broken variant is reported.

        print(write_report(["runs/photos", "bundles/photos"], "photos/test", "report.html").sentence)
    """
    page, table, figures = _name_files(Path(out), overwrite)
    measured = measure(sources, data, labels)
    report = measured.report
    log.info("drawing the page")
    html = write_page(report, _draw_pictures(measured) if images else Pictures({}), table.name, figures.name)
    contents = {page: html, table: _write_csv(report), figures: to_text(to_json(finite(report.to_json())))}
    with ExitStack() as files:  # all are written before one is put in its place
        for file, content in contents.items():
            files.enter_context(whole_file(file)).write_text(content, encoding="utf-8", newline="")
    return conclude(report)


def _name_files(page: Path, overwrite: bool) -> tuple[Path, Path, Path]:
    """The page, the table and the figures. Raises UsageError for another suffix, OutputExistsError for one that is
    taken."""
    if page.suffix.lower() != ".html":
        raise UsageError("{out}: a report is an .html file; name it so, such as report.html", out=page)
    files = page, page.with_suffix(".duplicates.csv"), page.with_suffix(".json")
    folder = next((each for each in files if each.is_dir()), None)
    if folder is not None:
        raise UsageError(f"{{out}}: {folder} is a folder, not a file to write", out=page)
    above = next(each for each in page.absolute().parents if each.exists())
    if not os.access(above, os.W_OK):
        raise UsageError(f"{{out}}: nothing can be written to {above}", out=page)
    taken = next((each for each in files if each.exists()), None)
    if taken is not None and not overwrite:
        raise OutputExistsError(
            f"{{out}}: {taken} exists already; choose another place, or replace it: {{overwrite}}",
            out=page,
            overwrite=True,
        )
    return files


def _draw_pictures(measured: Measured) -> Pictures:
    report, tiles = measured.report, measured.tiles
    first = report.maps[0]
    return Pictures(
        thumbnails=load_thumbnails(measured.paths, list_shown(report)),
        sheets=make_sheets(tiles[list(first.images)]),
        map=to_uri(draw_map(first, tiles)),
        views=_read_views(report),
    )


def _read_views(report: Report) -> str | None:
    """The run's picture of views, as it is; None where it has none."""
    try:
        with Image.open(Path(report.training.run if report.training else "") / VIEWS, formats=("PNG",)) as picture:
            return to_uri(picture.convert("RGB"))
    except (OSError, ValueError):
        return None


def _write_csv(report: Report) -> str:
    content = io.StringIO()
    rows = csv.writer(content, lineterminator="\n")
    rows.writerow(["cosine", "image", "other"])
    for pair in report.duplicates:
        names = [to_text(report.images[row]) for row in (pair.first, pair.second)]
        rows.writerow([f"{pair.cosine:.5f}", *names])
    return content.getvalue()
