"""`nearest`: what it prints and draws, and what bad input gets."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from byol_edge.runtime import Encoder, load_vectors, save_vectors
from commands import call, fails
from PIL import Image


@pytest.fixture
def vectors(finished_bundle: Path, photos: Path, tmp_path: Path) -> Path:
    file = tmp_path / "v.npz"
    assert call("embed", finished_bundle, photos, "-o", file).exit_code == 0
    return file


def printed(*arguments: object) -> list[list[str]]:
    """Rank, cosine and source of each line."""
    result = call("nearest", *arguments)
    assert result.exit_code == 0, result.output
    return [line.split() for line in result.stdout.splitlines()[2:]]


def test_the_neighbors_of_one_of_its_images(vectors: Path, photos: Path):
    lines = printed(vectors, photos / "disc" / "07.png", "-n", 4)
    assert [rank for rank, _, _ in lines] == ["1", "2", "3", "4"]
    content = load_vectors(vectors)
    row = content.sources.index(str(photos / "disc" / "07.png"))
    cosines = content.vectors @ content.vectors[row]
    order = [place for place in np.argsort(-cosines, kind="stable") if place != row][:4]
    assert [source for _, _, source in lines] == [content.sources[place] for place in order]
    assert [cosine for _, cosine, _ in lines] == [f"{cosines[place]:.3f}" for place in order]
    assert printed(vectors, "disc/07.png", "-n", 4) == lines
    assert len(printed(vectors, "disc/07.png", "-n", 500)) == 119


def test_the_neighbors_of_another_image(vectors: Path, finished_bundle: Path, photos: Path, tmp_path: Path):
    shutil.copy(photos / "disc" / "07.png", tmp_path / "mine.png")
    (line, *_) = printed(vectors, tmp_path / "mine.png", "--encoder", finished_bundle)
    assert line == ["1", "1.000", str(photos / "disc" / "07.png")]


def test_a_bundle_is_opened_as_what_made_the_vectors(finished_bundle: Path, photos: Path, tmp_path: Path):
    pytest.importorskip("openvino")
    other = "fp32" if Encoder(finished_bundle).variant.startswith("int8") else "int8"
    options = ("--variant", f"{other}.onnx", "--backend", "openvino")
    assert call("embed", finished_bundle, photos / "disc", "-o", tmp_path / "v.npz", *options).exit_code == 0
    (line, *_) = printed(tmp_path / "v.npz", photos / "square" / "00.png", "--encoder", finished_bundle)
    assert "disc" in line[2]


def test_a_run_made_the_vectors(finished_run: Path, photos: Path, tmp_path: Path):
    assert call("embed", finished_run, photos / "disc", "-o", tmp_path / "v.npz").exit_code == 0
    assert len(printed(tmp_path / "v.npz", photos / "square" / "00.png", "--encoder", finished_run)) == 10


def test_a_sheet_is_drawn_and_not_over_another_file(vectors: Path, photos: Path, tmp_path: Path):
    sheet = tmp_path / "sheet.png"
    command = (vectors, photos / "disc" / "07.png", "--sheet", sheet)
    assert len(printed(*command)) == 10
    with Image.open(sheet) as picture:
        assert picture.format == "PNG"
        assert picture.width > picture.height
    before = sheet.read_bytes()
    assert "--overwrite" in fails(2, "nearest", *command, "-n", 1)
    assert sheet.read_bytes() == before
    printed(*command, "-n", 1, "--overwrite")
    assert sheet.read_bytes() != before


def test_bad_input_is_one_line(vectors: Path, finished_bundle: Path, finished_run: Path, photos: Path, tmp_path: Path):
    mine, broken = tmp_path / "mine.png", tmp_path / "broken.png"
    shutil.copy(photos / "disc" / "07.png", mine)
    broken.write_bytes(b"x")
    made_by = load_vectors(vectors).model
    for code, arguments, reason in (
        (1, (tmp_path / "gone.npz", mine), "gone.npz: no such file"),
        (1, (mine, mine), "not a file of vectors"),
        (1, (vectors, "gone.png"), "gone.png: no such file, and no image with a vector is named so"),
        (2, (vectors, "07.png"), "3 images are named so"),
        (2, (vectors, mine), f"give --encoder SOURCE, which made these ({made_by})"),
        (1, (vectors, mine, "--encoder", tmp_path / "gone"), "no such folder"),
        (1, (vectors, broken, "--encoder", finished_bundle), "broken.png: unreadable image"),
        (2, (vectors, mine, "--sheet", tmp_path / "s.jpg"), "--sheet"),
        (2, (vectors, mine, "-n", 0), "0 is not in the range"),
    ):
        assert reason in fails(code, "nearest", *arguments)
    line = fails(1, "nearest", vectors, mine, "--encoder", finished_run)
    assert f"{vectors}: its vectors are by {made_by}, this encoder is " in line
    assert ":fp32, and vectors of two models do not mix" in line
    lonely = replace(load_vectors(vectors), vectors=load_vectors(vectors).vectors[:1], sources=["one.png"])
    save_vectors(tmp_path / "one.npz", lonely)
    assert "no other image" in fails(1, "nearest", tmp_path / "one.npz", "one.png")
