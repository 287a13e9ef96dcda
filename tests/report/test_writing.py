"""A report on disk, and the command."""

import csv
import errno
import json
from pathlib import Path

import jsonschema
import pytest
from byol_edge.report import writing
from byol_edge.report.measure import Measured
from byol_edge.runtime import files
from commands import call, fails
from PIL import Image

SCHEMA = json.loads(Path(writing.__file__).with_name("schema.json").read_text(encoding="utf-8"))


@pytest.fixture
def ready(monkeypatch: pytest.MonkeyPatch, measured: Measured) -> Measured:
    """What is measured is at hand."""
    monkeypatch.setattr(writing, "measure", lambda *_: measured)
    return measured


def report(out: Path, *more: object) -> list[object]:
    return ["report", "bundle", "--data", "images", "-o", out, *more]


def test_the_command_on_odd_images(finished_run: Path, finished_bundle: Path, photos: Path, tmp_path: Path):
    images, out = tmp_path / "images", tmp_path / "out" / "report.html"
    images.mkdir()
    for number, path in enumerate(sorted(photos.rglob("*.png"))[:12]):
        Image.open(path).resize((40 + number, 40)).save(images / f"{number}.png")
    Image.open(images / "3.png").save(images / "<script>'\n\u202e.jpg", quality=60)
    Image.new("RGB", (1, 1)).save(images / "tiny.png")
    Image.new("RGB", (3000, 2)).save(images / "wide.png")
    (images / "broken.png").write_bytes(b"x")
    result = call("report", finished_run, finished_bundle, "--data", images, "-o", out)
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines()[-1] == f"The report is {out}; its figures are {out.with_suffix('.json')}."
    assert "broken.png" in result.stderr
    figures = json.loads(out.with_suffix(".json").read_text())
    jsonschema.validate(figures, SCHEMA)
    assert result.stdout.splitlines()[0].replace("\\n", "\n") == figures["conclusion"]["sentence"]
    assert len(figures["images"]) == 15
    with out.with_suffix(".duplicates.csv").open(newline="") as lines:
        pairs = {frozenset(names): float(cosine) for cosine, *names in list(csv.reader(lines))[1:]}
    assert pairs[frozenset(("3.png", "<script>'\n\u202e.jpg"))] > 0.95
    assert "&lt;script&gt;" in out.read_text()


def test_figures_are_as_the_schema_says(ready: Measured, tmp_path: Path):
    assert call(*report(tmp_path / "r.html")).exit_code == 0
    figures = json.loads((tmp_path / "r.json").read_text())
    jsonschema.validate(figures, SCHEMA)
    assert figures["images"] == list(ready.report.images)
    assert {path.name for path in tmp_path.iterdir()} == {"r.html", "r.json", "r.duplicates.csv"}
    assert figures["layers"]["fp32.onnx"][-1]["signal_to_noise"] is None or figures["layers"]


@pytest.mark.parametrize("name", ["r.html", "r.json", "r.duplicates.csv"])
def test_nothing_is_replaced_unasked(name: str, ready: Measured, tmp_path: Path):
    (tmp_path / name).write_text("mine")
    assert f"{name} exists already" in fails(2, *report(tmp_path / "r.html"))
    assert (tmp_path / name).read_text() == "mine"
    assert call(*report(tmp_path / "r.html", "--overwrite")).exit_code == 0
    assert (tmp_path / name).read_text() != "mine"


def test_a_place_that_cannot_be_written_is_told_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    assert "a report is an .html file" in fails(2, *report(tmp_path / "report.pdf"))
    (tmp_path / "r.json").mkdir()
    assert "r.json is a folder" in fails(2, *report(tmp_path / "r.html", "--overwrite"))
    monkeypatch.setattr(writing.os, "access", lambda *_: False)
    assert "nothing can be written to" in fails(2, *report(tmp_path / "new" / "s.html"))


def test_no_images_leaves_all_pictures_out(ready: Measured, tmp_path: Path):
    call(*report(tmp_path / "with.html"))
    call(*report(tmp_path / "without.html", "--no-images"))
    with_pictures, without = ((tmp_path / f"{name}.html").read_text() for name in ("with", "without"))
    assert with_pictures.count("data:image/webp") > 300
    assert without.count("data:image") == 0
    assert (tmp_path / "with.json").read_text() == (tmp_path / "without.json").read_text()


def test_a_full_disk_leaves_nothing_half_written(ready: Measured, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def full(path: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    (tmp_path / "r.html").write_text("older")
    monkeypatch.setattr(files, "_flush", full)
    assert "the disk is full" in fails(1, *report(tmp_path / "r.html", "--overwrite"))
    assert [path.name for path in tmp_path.iterdir()] == ["r.html"]
    assert (tmp_path / "r.html").read_text() == "older"
