"""The report in a real browser: on a phone and on a desk, light and dark, without a network, without scripts."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from byol_edge.report import writing
from byol_edge.report.measure import measure
from pages import check_layout, find_barriers, listen
from sabotage import double_a_scale

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def reports(finished_run: Path, finished_bundle: Path, photos: Path, tmp_path_factory) -> dict[str, Path]:
    """A report of a good bundle with its run, of a broken bundle, without pictures, and one with long names."""
    place = tmp_path_factory.mktemp("reports")
    broken = Path(shutil.copytree(finished_bundle, place / "broken"))
    double_a_scale(broken)
    good = measure([str(finished_run), str(finished_bundle)], photos)
    bad = measure([str(broken)], photos)
    encoders = good.report.comparison.encoders
    names = tuple(f"{'a very long name ' * 4}{'x' * 90}/{name}" for name in good.report.images)
    renamed = [replace(each, name=each.name.replace(str(finished_bundle), "s" * 200)) for each in encoders]
    comparison = replace(good.report.comparison, encoders=tuple(renamed))
    long = replace(
        good, report=replace(good.report, images=names, subject="s" * 200, data="d" * 200, comparison=comparison)
    )
    made = {"good": (good, True), "broken": (bad, True), "bare": (good, False), "long": (long, True)}
    with pytest.MonkeyPatch.context() as patch:
        for name, (measured, images) in made.items():
            patch.setattr(writing, "measure", lambda *_, found=measured: found)
            writing.write_report([], "", place / f"{name}.html", images=images)
    return {name: place / f"{name}.html" for name in made}


@pytest.mark.parametrize(
    ("name", "width", "scheme"),
    [
        *(("good", width, scheme) for width in (390, 1440) for scheme in ("light", "dark")),
        ("broken", 390, "dark"),
        ("bare", 1440, "light"),
        ("long", 390, "light"),
    ],
)
def test_it_reads_well(browser: Any, reports: dict[str, Path], name: str, width: int, scheme: str):
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
    page = context.new_page()
    heard, asked = listen(page), []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(reports[name].as_uri())
    page.wait_for_load_state("networkidle")
    assert heard == []
    assert [url for url in asked if not url.startswith("data:")] == [reports[name].as_uri()]
    check_layout(page)
    assert find_barriers(page) == []
    for view in page.locator(".map input").all():
        view.check()
        check_layout(page)
    context.close()


def test_what_is_checked_can_fail(browser: Any):
    page = browser.new_page(viewport={"width": 390, "height": 900})
    page.set_content("<p>one</p><p style='margin-top: -30px; color: #ddd'>other</p><img src='data:,'>")
    with pytest.raises(AssertionError):
        check_layout(page)
    assert {each.split(":")[0] for each in find_barriers(page)} >= {"color-contrast", "image-alt"}
    page.set_content("<p style='width: 500px'>wide</p>")
    with pytest.raises(AssertionError):
        check_layout(page)
    page.close()


def test_the_map_shows_the_image_under_the_pointer_and_the_keys(browser: Any, reports: dict[str, Path]):
    page = browser.new_page(viewport={"width": 1440, "height": 1200})
    page.goto(reports["good"].as_uri())
    page.get_by_label("t-SNE, points", exact=True).check()
    points = page.locator(".points:visible")
    points.scroll_into_view_if_needed()
    box = page.locator(".points:visible circle").nth(7).bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    shown = page.locator(".shown")
    assert shown.is_visible()
    name = shown.inner_text()
    assert name in page.evaluate("data.images.map((name, at) => `${name} (${data.classes[at]})`)")
    assert "data:image/webp" in page.locator(".preview").evaluate("each => each.style.backgroundImage")
    page.mouse.move(0, 0)
    assert shown.is_hidden()
    points.focus()
    page.keyboard.press("ArrowRight")
    first = shown.inner_text()
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowLeft")
    assert shown.is_visible()
    assert shown.inner_text() != first
    page.keyboard.press("Escape")
    assert shown.is_hidden()
    page.close()


def test_the_preview_is_the_image_itself(browser: Any, reports: dict[str, Path]):
    """The sheet's tile that is shown has the same place in the list as the point."""
    page = browser.new_page(viewport={"width": 1440, "height": 1200})
    page.goto(reports["good"].as_uri())
    page.get_by_label("PCA, points", exact=True).check()
    for place in (0, 33, 119):
        page.evaluate("place => show(document.querySelectorAll('.points')[1], place)", place)
        position = page.locator(".preview").evaluate("each => each.style.backgroundPosition")
        assert position == f"{-160 * (place % 32)}px {-160 * (place // 32)}px".replace("-0px", "0px")
    page.close()


def test_the_last_sheet_is_shown_in_its_own_size(browser: Any, reports: dict[str, Path]):
    page = browser.new_page(viewport={"width": 1440, "height": 1200})
    page.goto(reports["good"].as_uri())
    # As if sheets were of 4 x 4 tiles, and the second one held three.
    page.evaluate("data.sheets.across = 4; data.sheets.uris = ['a', 'b']; data.maps[0].images.length = 19")
    for place, wide in ((2, 4), (15, 4), (18, 3)):
        page.evaluate("place => show(document.querySelectorAll('.points')[0], place)", place)
        size = page.locator(".preview").evaluate("each => each.style.backgroundSize")
        assert size.split()[0] == f"{wide * 160}px"
    page.close()


def test_without_scripts_everything_is_there(browser: Any, reports: dict[str, Path]):
    context = browser.new_context(java_script_enabled=False, viewport={"width": 390, "height": 900})
    page = context.new_page()
    page.goto(reports["good"].as_uri())
    assert page.locator("table").first.is_visible()
    assert page.locator(".query img").first.is_visible()
    assert page.locator(".chart svg").first.is_visible()
    assert page.locator("#panel-1 img").is_visible()
    page.get_by_label("PCA, points", exact=True).check()
    assert page.locator("#panel-1 img").is_hidden()
    assert page.locator("#panel-3 circle").first.is_visible()
    assert page.locator(".script").is_hidden()
    context.close()


def test_it_prints(browser: Any, reports: dict[str, Path], tmp_path: Path):
    page = browser.new_page()
    page.goto(reports["good"].as_uri())
    page.emulate_media(media="print", color_scheme="dark")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert page.locator("nav").is_hidden()
    page.pdf(path=tmp_path / "report.pdf", format="A4")
    assert (tmp_path / "report.pdf").stat().st_size > 10_000
    page.close()
