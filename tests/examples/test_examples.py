"""Runs each example in the way that its docstring shows."""

import importlib
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from byol_edge.runtime import find_images
from PIL import Image, ImageChops

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


def test_names_that_are_no_text_are_printed(finished_bundle: Path, photos: Path, tmp_path: Path):
    content = find_images(photos)[0].read_bytes()
    for name in ("caf\udce9.png", "copy.png"):
        (tmp_path / name).write_bytes(content)
    (pair,) = run("duplicates", finished_bundle, tmp_path)
    assert pair.split()[1:] == [rf"{tmp_path}/caf\udce9.png", str(tmp_path / "copy.png")]
    lines = run("nearest", finished_bundle, tmp_path, tmp_path / "copy.png")
    assert sorted(line.split()[1] for line in lines) == sorted(pair.split()[1:])


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


def draw_blots(folder: Path, random: np.random.Generator) -> None:
    """Blots of any colors, of another size in each of 16 pictures."""
    folder.mkdir()
    for number in range(16):
        blots = random.integers(0, 256, (3 + number, 3 + number, 3), dtype="uint8")
        Image.fromarray(blots).resize((64, 64), Image.Resampling.BICUBIC).save(folder / f"{number:02}.png")


def test_a_search_by_style_finds_what_was_moved(mapped_bundle: Path, tmp_path: Path, random: np.random.Generator):
    pytest.importorskip("sklearn")
    pictures, out = tmp_path / "pictures", tmp_path / "found"
    draw_blots(pictures, random)
    with Image.open(pictures / "07.png") as image:
        ImageChops.offset(image, 32, 0).save(pictures / "moved.png")
    first, *nearest = run("style_search", mapped_bundle, pictures, out, pictures / "07.png")
    assert first == f"{out}: neighbors.png, the nearest of 17 pictures to 1, and map.png"
    assert nearest[0].split()[1] == str(pictures / "moved.png")
    assert len(nearest) == 5
    assert str(pictures / "07.png") not in "".join(nearest)
    with Image.open(out / "neighbors.png") as sheet, Image.open(out / "map.png") as found:
        assert sheet.width > 11 * 128
        assert found.width == found.height == 5 * 56
        assert len(found.getcolors(1 << 24) or []) > 100
    (line,) = run("style_search", mapped_bundle, pictures, out)  # the second time, over the first
    assert line.endswith("to 6, and map.png")


def test_a_style_says_how_strong_channels_are_and_not_where(
    monkeypatch: pytest.MonkeyPatch, random: np.random.Generator
):
    monkeypatch.syspath_prepend(EXAMPLES)
    style_search = importlib.import_module("style_search")
    maps = random.normal(size=(6, 3, 4, 4)).astype(np.float32)
    statistics = style_search.measure_statistics(maps)
    assert statistics.shape == (6, 2 * 3)
    np.testing.assert_allclose(statistics[2, :3], maps[2].mean((1, 2)), atol=1e-6)
    np.testing.assert_allclose(statistics[2, 3:], maps[2].std((1, 2)), atol=1e-6)
    np.testing.assert_allclose(style_search.measure_statistics(maps[:, :, ::-1, ::-1]), statistics, atol=1e-6)
    styles = style_search.compare_with_all(statistics)
    np.testing.assert_allclose(np.linalg.norm(styles, axis=1), 1, atol=1e-5)
    # no matter how large a channel's numbers are, nor how many channels a layer has
    np.testing.assert_allclose(style_search.compare_with_all(1000 * statistics + 7), styles, atol=1e-3)
    joined = style_search.join([styles, np.eye(6, 100, dtype=np.float32)])
    np.testing.assert_allclose(np.linalg.norm(joined, axis=1), 1, atol=1e-5)
    np.testing.assert_allclose((joined @ joined.T)[0, 1], (styles @ styles.T)[0, 1] / 2, atol=1e-6)
    cosines = [cosine for _, cosine in style_search.find_nearest(styles, 2)]
    assert len(cosines) == 5
    assert cosines == sorted(cosines, reverse=True)


def test_a_search_by_style_takes_few_and_odd_pictures(mapped_bundle: Path, tmp_path: Path):
    pytest.importorskip("sklearn")
    pictures, out = tmp_path / "pictures", tmp_path / "found"
    pictures.mkdir()
    Image.new("L", (30, 20), 90).save(pictures / "gray.png")
    Image.new("RGBA", (20, 300), (200, 30, 30, 90)).save(pictures / "alpha.png")
    (pictures / "broken.jpg").write_bytes(b"no picture")
    (line,) = run("style_search", mapped_bundle, pictures, out)
    assert line == f"{out}: neighbors.png, the nearest of 2 pictures to 2, and map.png"


def test_a_search_by_style_shows_names_that_are_no_text(
    mapped_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    pytest.importorskip("sklearn")
    for name, color in (("caf\udce9.png", "red"), ("query.png", "teal")):
        Image.new("RGB", (32, 32), color).save(tmp_path / name)
    monkeypatch.syspath_prepend(EXAMPLES)
    search = importlib.import_module("style_search")
    search.main(str(mapped_bundle), str(tmp_path), str(tmp_path / "found"), str(tmp_path / "query.png"))
    assert capsys.readouterr().out.endswith("caf\\udce9.png\n")


def test_a_search_by_style_stops_without_a_traceback(monkeypatch: pytest.MonkeyPatch):
    pytest.importorskip("sklearn")

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("byol_edge.runtime.Encoder", stop)
    monkeypatch.setattr("sys.argv", ["style_search.py", "bundle", "pictures", "found"])
    with pytest.raises(SystemExit) as stopped:
        runpy.run_path(str(EXAMPLES / "style_search.py"), run_name="__main__")
    assert stopped.value.code == 130


@pytest.mark.parametrize("missing", ["features", "pictures", "query", "others"])
def test_a_search_by_style_that_cannot_be_says_why_in_a_line(
    mapped_bundle: Path, finished_bundle: Path, photos: Path, tmp_path: Path, missing: str
):
    bundle, folder, query, why = mapped_bundle, photos, find_images(photos)[0], ""
    if missing == "features":
        bundle, why = finished_bundle, "export it with --features"
    elif missing == "pictures":
        folder, why = tmp_path, "no images"
    elif missing == "query":
        query, why = tmp_path / "none.png", f"{tmp_path / 'none.png'} cannot be read"
    else:
        folder, why = query, "fewer than two pictures"
    command = [sys.executable, EXAMPLES / "style_search.py", bundle, folder, tmp_path / "found", query]
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("style_search.py: ")
    assert why in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "found").exists()
