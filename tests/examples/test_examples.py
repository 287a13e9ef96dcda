"""Runs each example in the way that its docstring shows."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from byol_edge.runtime import find_images
from PIL import Image

EXAMPLES = Path(__file__).parents[2] / "examples"


def run(name: str, *arguments: object) -> list[str]:
    command = [sys.executable, EXAMPLES / f"{name}.py", *arguments]
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_every_example_is_tested():
    assert {path.stem for path in EXAMPLES.glob("*.py")} == {
        "classify",
        "defects",
        "duplicates",
        "nearest",
        "nearest_with_index",
        "style_search",
    }


def test_nearest_finds_the_image_itself_first(finished_bundle: Path, photos: Path):
    query = find_images(photos)[7]
    lines = run("nearest", finished_bundle, photos, query)
    assert len(lines) == 10
    assert lines[0] == f"1.000  {query}"


def test_an_index_finds_what_numpy_finds_the_second_time_too(finished_bundle: Path, photos: Path, tmp_path: Path):
    pytest.importorskip("faiss")
    query, file = find_images(photos)[7], tmp_path / "v.npz"
    embed = [sys.executable, "-m", "byol_edge.cli.main", "embed", finished_bundle, photos, "-o", file]
    subprocess.run([str(part) for part in embed], check=True, capture_output=True)
    lines = run("nearest_with_index", finished_bundle, file, query)
    assert lines[0].endswith(str(query))
    assert (tmp_path / "v.faiss").exists()
    assert run("nearest_with_index", finished_bundle, file, query) == lines
    exact = run("nearest", finished_bundle, photos, query)
    assert len({line.split()[1] for line in lines} & {line.split()[1] for line in exact}) >= 8


def test_duplicates_finds_a_copy_at_another_size(finished_bundle: Path, tmp_path: Path, random):
    for number in range(5):
        noise = random.integers(0, 256, (6, 6, 3), dtype="uint8")
        Image.fromarray(noise).resize((96, 96)).save(tmp_path / f"{number}.png")
    with Image.open(tmp_path / "3.png") as image:
        image.resize((64, 64)).save(tmp_path / "copy.png")
    best = max(run("duplicates", finished_bundle, tmp_path, 0.5))
    assert best.split()[1:] == [str(tmp_path / "3.png"), str(tmp_path / "copy.png")]


def test_classify_is_better_than_naming_one_class(finished_bundle: Path, photos: Path):
    pytest.importorskip("sklearn")
    (line,) = run("classify", finished_bundle, photos)
    assert line.endswith("would be right for 0.333")
    assert float(line.split()[0]) > 0.4


def draw_plates(folder: Path, count: int, scratched: bool, random: np.random.Generator) -> None:
    """Striped plates, in any light; a scratch crosses the stripes."""
    folder.mkdir(parents=True)
    y, x = np.mgrid[0:64, 0:64]
    for number in range(count):
        gray = random.uniform(90, 150) + 20 * np.sin(y + random.uniform(0, 6)) + random.normal(0, 4, (64, 64))
        if scratched:
            at = random.uniform(15, 50)
            gray += 80 * ((abs(x - at - 0.3 * y + 10) < 1.5) & (abs(y - 32) < 20))
        Image.fromarray(gray.clip(0, 255).astype(np.uint8)).save(folder / f"{number:02}.png")


def test_defects_are_told_from_good_plates_alone(mapped_bundle: Path, tmp_path: Path, random: np.random.Generator):
    draw_plates(tmp_path / "known", 20, False, random)
    draw_plates(tmp_path / "test" / "good", 15, False, random)
    draw_plates(tmp_path / "test" / "scratch", 15, True, random)
    sheet = tmp_path / "sheet.png"
    first, second = run("defects", mapped_bundle, tmp_path / "known", tmp_path / "test", sheet)
    assert first == f"{sheet}: the highest scores of 30 images; 1280 patches of 20 good ones"
    assert second.endswith(", of 15 images with defects and 15 without")
    assert float(second.split()[1].strip(",")) > 0.9
    with Image.open(sheet) as picture:
        assert picture.width == 3 * (2 * 160 + 16) + 8
    unlabeled = run("defects", mapped_bundle, tmp_path / "known", tmp_path / "test" / "scratch", sheet)
    assert len(unlabeled) == 1  # without good ones beside them, there is no AUROC


def test_the_sheet_of_styles_is_a_picture_with_one_row_per_query(finished_bundle: Path, photos: Path, tmp_path: Path):
    (line,) = run("style_search", finished_bundle, photos, tmp_path / "sheet.png")
    assert line.endswith("8 pictures and the 7 nearest of 120 to each")
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.size == (8 * 134 + 6, 8 * 148 + 6)
        assert len(sheet.getcolors(1 << 24) or []) > 100
