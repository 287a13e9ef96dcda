"""The page holds what was found, safely, and asks for nothing outside."""

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from byol_edge.report.findings import Report
from byol_edge.report.measure import Measured
from byol_edge.report.page import Pictures, list_shown, write_page
from byol_edge.report.thumbnails import load_thumbnails, make_sheets

EVIL = '"><script>alert(1)</script>\n\u202egpj.exe\x07\udcff.png'


class Reader(HTMLParser):
    """What a page's elements are, and the text of its scripts."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.text = ""
        self._inside = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._inside = tag

    def handle_data(self, data: str) -> None:
        if self._inside == "script" and data.strip():
            self.scripts.append(data)
        elif self._inside != "style":
            self.text += data

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""


def draw(report: Report, pictures: Pictures | None = None) -> Reader:
    return Reader(write_page(report, pictures or Pictures({}), "r.duplicates.csv", "r.json"))


@pytest.fixture(scope="module")
def page(measured: Measured) -> Reader:
    report = measured.report
    thumbnails = load_thumbnails(measured.paths, list_shown(report))
    return draw(report, Pictures(thumbnails, make_sheets(measured.tiles)))


def test_it_asks_for_nothing_outside(page: Reader):
    for tag, attributes in page.elements:
        for name in ("src", "href", "xlink:href", "action", "data", "srcset"):
            value = attributes.get(name)
            assert value is None or value.startswith(("data:image/webp;base64,", "#")), (tag, value)
        assert not any(name.startswith("on") for name in attributes), tag
    policy = next(each["content"] for _, each in page.elements if each.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None
    assert policy.startswith("default-src 'none'; img-src data:;")


def test_sections_have_links_and_ids_are_unique(page: Reader):
    ids = [each["id"] for _, each in page.elements if each.get("id")]
    assert len(ids) == len(set(ids))
    links = [str(each["href"])[1:] for tag, each in page.elements if tag == "a"]
    assert set(links) <= set(ids)
    assert {"encoders", "fidelity", "neighbors", "map", "moved", "duplicates", "outliers", "layers", "training"} < set(
        links
    )


def test_pictures_are_there_without_scripts_and_say_what_they_show(page: Reader, measured: Measured):
    pictures = [each for tag, each in page.elements if tag == "img"]
    shown = [each for query in measured.report.queries for each in query.by]
    assert len(pictures) >= 12 + 10 * len(shown)
    assert all(each.get("alt") for each in pictures)
    circles = [each for tag, each in page.elements if tag == "circle" and "cx" in each]
    assert len(circles) >= 2 * 120


def test_neighbors_that_differ_and_those_of_the_class_are_marked(page: Reader, measured: Measured):
    report, classes = measured.report, measured.report.classes
    assert classes is not None
    tiles = [str(each["class"]).split() for tag, each in page.elements if "tile" in str(each.get("class")).split()]
    queries = [(query, by) for query in report.queries for by in query.by]
    same = sum(classes[row] == classes[query.image] for query, by in queries for row in by.images)
    changed = 0
    for query in report.queries:
        exact, other = set(query.by[1].images), set(query.by[2].images)
        changed += len(exact ^ other)
    assert sum("same" in each for each in tiles) == same
    assert sum("changed" in each for each in tiles) == changed


def test_the_script_is_given_every_image(page: Reader, measured: Measured):
    data = json.loads(page.scripts[0])
    assert data["images"] == list(measured.report.images)
    assert len(data["maps"]) == 2
    assert data["sheets"]["side"] == 32


def test_names_do_nothing(measured: Measured):
    report = measured.report
    names = (EVIL, *report.images[1:])
    classes = (EVIL, *(report.classes or ())[1:])
    training = replace(report.training, run=EVIL) if report.training else None
    evil = replace(report, images=names, classes=classes, subject=EVIL, data=EVIL, training=training)
    comparison = replace(report.comparison, unreadable=(EVIL,))
    page = draw(replace(evil, comparison=comparison, broken={"PyTorch": EVIL}))
    assert len(page.scripts) == 2
    assert json.loads(page.scripts[0])["images"][0].startswith('"><script>')
    assert '"><script>alert(1)</script>\\n\\u202egpj.exe\\x07' in page.text
    assert not re.search("[\x00-\x08\u202e]", page.text)
    page.text.encode()


def test_without_pictures_names_stand_in_their_places(measured: Measured):
    page = draw(measured.report)
    assert [each for tag, each in page.elements if tag == "img"] == []
    assert "data:image" not in json.dumps(page.scripts)
    assert "This page holds no pictures" in page.text
    assert measured.report.images[measured.report.queries[0].image] in page.text


def test_many_classes_share_a_color(measured: Measured):
    report = measured.report
    many = tuple(f"class {number}" if number < 119 else None for number in range(120))
    page = draw(replace(report, classes=many))
    assert "other classes" in page.text
    assert "no class" in page.text
    circles = [each["class"] for tag, each in page.elements if tag == "circle" and "cx" in each]
    assert set(circles) == {*(f"c{number}" for number in range(10)), "none"}
    assert circles.count("none") == 2  # one image on two maps
    assert circles.count("c9") == 2 * (119 - 9)


def test_what_was_not_measured_is_left_out(measured: Measured):
    bare = replace(
        measured.report, validation=None, layers={}, training=None, moved=(), duplicates=(), classes=None, timings={}
    )
    page = draw(bare)
    assert "No run was given" in page.text
    assert "No two images are nearly the same" in page.text
    assert "Layer by layer" not in page.text


def test_a_page_is_made_of_files_that_are_installed():
    import byol_edge.report.page as module

    for name in ("page.html", "page.css", "page.js", "schema.json"):
        assert Path(module.__file__).with_name(name).is_file()
