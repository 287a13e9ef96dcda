"""examples/browser in a real browser: the same pixels as Pillow's, and the same neighbors as the command's."""

from __future__ import annotations

import base64
import io
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from byol_edge.runtime import Encoder
from byol_edge.runtime.bundle import Bundle
from byol_edge.runtime.golden import read_golden
from byol_edge.runtime.nearest import find_neighbors
from byol_edge.runtime.preprocessing import FITS, Preprocessing, prepare
from byol_edge.runtime.vectors import load_vectors
from pages import check_layout, find_barriers, listen
from PIL import Image

from .conftest import serve

pytestmark = pytest.mark.slow
EXAMPLE = Path(__file__).parents[2] / "examples" / "browser"
READY = "() => /^(Ready|No variant|The page cannot)/.test(document.getElementById('status').textContent)"
FETCH = "import sys; sys.path.insert(0, sys.argv[1]); import prepare; prepare.fetch_engine()"
PREPARE = """async ([content, preprocessing, border]) => {
  const { decode, prepare } = await import("/preprocessing.js");
  const file = new Blob([Uint8Array.from(atob(content), (each) => each.charCodeAt(0))]);
  return Array.from(prepare(await decode(file), preprocessing, border));
}"""


def draw_files() -> dict[str, bytes]:
    """Noise in odd sizes, where every pixel counts, and smooth pictures in formats that lose some."""
    random = np.random.default_rng(0)

    def noise(width: int, height: int, *channels: int) -> Image.Image:
        return Image.fromarray(random.integers(0, 256, (height, width, *channels), np.uint8))

    def encode(image: Image.Image, kind: str, **options: Any) -> bytes:
        content = io.BytesIO()
        image.save(content, kind, **options)
        return content.getvalue()

    smooth = noise(12, 9, 3).resize((240, 180), Image.Resampling.BICUBIC)
    turned = Image.Exif()
    turned[0x0112] = 6
    return {
        **{f"{width}x{height}.png": encode(noise(width, height, 3), "PNG") for width, height in SIZES},
        "gray.png": encode(noise(70, 90), "PNG"),
        "alpha.png": encode(noise(70, 90, 4), "PNG"),
        "palette.png": encode(noise(70, 90, 3).quantize(50), "PNG"),
        "one.bmp": encode(noise(70, 90, 3), "BMP"),
        "one.gif": encode(noise(70, 90, 3).quantize(50), "GIF"),
        "one.webp": encode(noise(70, 90, 3), "WEBP", lossless=True),
        "turned.jpg": encode(smooth, "JPEG", exif=turned),
        "progressive.jpg": encode(smooth, "JPEG", progressive=True),
        "cmyk.jpg": encode(smooth.convert("CMYK"), "JPEG"),
    }


SIZES = ((77, 100), (100, 77), (33, 20), (50, 300), (300, 50), (64, 64), (1, 1), (1, 90), (65, 64), (400, 380))
FILES = draw_files()


@pytest.fixture(scope="module")
def module_page(browser: Any) -> Iterator[Any]:
    with serve(EXAMPLE / "page") as address:
        page = browser.new_page()
        page.goto(f"{address}style.css")
        yield page
        page.close()


@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize("name", FILES)
def test_pixels_are_pillows(module_page: Any, name: str, fit: str):
    preprocessing = Preprocessing(64, fit=fit)
    content = base64.b64encode(FILES[name]).decode()
    found = module_page.evaluate(PREPARE, [content, preprocessing.to_json(), list(preprocessing.border)])
    difference = np.abs(np.array(found).reshape(64, 64, 3) - prepare(FILES[name], preprocessing).astype(int))
    assert difference.max() <= (2 if name.endswith(".jpg") else 1)


@pytest.fixture(scope="module")
def site(finished_bundle: Path, photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("browser")
    fetched = subprocess.run([sys.executable, "-c", FETCH, EXAMPLE], capture_output=True, text=True)
    if fetched.returncode and re.search("npm is not installed|is there a network", fetched.stderr):
        pytest.skip(f"needs onnxruntime-web: {fetched.stderr.strip()}")
    files = []
    for variant in ("int8.onnx", "fp32.onnx"):
        files.append(place / f"{variant}.npz")
        run("-m", "byol_edge", "embed", finished_bundle, photos, "-o", files[-1], "--variant", variant)
    made = run(EXAMPLE / "prepare.py", finished_bundle, place / "site", *files)
    assert "120 images, int8.onnx, fp32.onnx" in made
    return place / "site"


def run(*words: object, fails: bool = False) -> str:
    done = subprocess.run([sys.executable, *map(str, words)], capture_output=True, text=True)
    assert (done.returncode != 0) == fails, done.stderr
    return done.stderr if fails else done.stdout


@pytest.mark.parametrize(("width", "scheme"), [(390, "dark"), (1440, "light")])
def test_a_dropped_image_finds_what_the_command_finds(
    browser: Any, site: Path, finished_bundle: Path, width: int, scheme: str, tmp_path: Path, random
):
    image = tmp_path / "new.png"
    Image.fromarray(random.integers(0, 256, (90, 70, 3), "uint8")).save(image)
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
    page = context.new_page()
    heard = listen(page)
    with serve(site) as address:
        page.goto(address)
        page.wait_for_function(READY)
        assert page.inner_text("#status").startswith("Ready: 120 images. Golden images checked")
        check_layout(page)
        page.select_option("#variant", "int8.onnx")
        drop(page, image)
        page.wait_for_selector("#nearest li")
        found = page.eval_on_selector_all(
            "#nearest li", "all => all.map((each) => [each.dataset.name, each.dataset.cosine])"
        )
        check_layout(page)
        assert find_barriers(page) == []
    vectors = load_vectors(site.parent / "int8.onnx.npz")
    own = find_neighbors(vectors, Encoder(finished_bundle, "int8.onnx").embed(str(image)), 10)
    assert [name for name, _ in found] == ["/".join(Path(each.source).parts[-2:]) for each in own]
    np.testing.assert_allclose([float(each) for _, each in found], [each.cosine for each in own], atol=2e-3)
    assert heard == []
    context.close()


def drop(page: Any, file: Path) -> None:
    """As when a file is dragged onto the page."""
    content = base64.b64encode(file.read_bytes()).decode()
    page.evaluate(
        """([content, name]) => {
          const bytes = Uint8Array.from(atob(content), (each) => each.charCodeAt(0));
          const dataTransfer = new DataTransfer();
          dataTransfer.items.add(new File([bytes], name, { type: "image/png" }));
          document.getElementById("area").dispatchEvent(new DragEvent("drop", { dataTransfer, cancelable: true }));
        }""",
        [content, file.name],
    )


def test_what_is_no_image_is_told(browser: Any, site: Path, tmp_path: Path):
    (tmp_path / "letter.png").write_text("no image")
    page = browser.new_page()
    with serve(site) as address:
        page.goto(address)
        page.wait_for_function(READY)
        page.set_input_files("#file", tmp_path / "letter.png")
        page.wait_for_function("() => document.getElementById('status').textContent.includes('Nothing was searched')")
        assert page.inner_text("#status").startswith("letter.png: this browser cannot read it as an image")
        assert page.locator("#results").is_hidden()
    page.close()


def test_an_engine_that_gives_other_vectors_is_refused(browser: Any, site: Path, tmp_path: Path):
    other = Path(shutil.copytree(site, tmp_path / "site"))
    content = json.loads((other / "index.json").read_text())
    shifted = np.frombuffer(base64.b64decode(content["variants"]["int8.onnx"]["golden"]), np.float32)
    content["variants"]["int8.onnx"]["golden"] = base64.b64encode(np.roll(shifted, 1).tobytes()).decode()
    (other / "index.json").write_text(json.dumps(content))
    page = browser.new_page()
    with serve(other) as address:
        page.goto(address)
        page.wait_for_function(READY)
        assert "int8.onnx gives other vectors here than where it was exported" in page.inner_text("#warnings")
        assert page.locator("#variant option").all_inner_texts()[0].startswith("fp32.onnx")
        assert page.locator("#variant option").count() == 1
    page.close()


def test_golden_files_are_decoded_as_in_the_export(site: Path, finished_bundle: Path, browser: Any):
    golden = read_golden(Bundle.open(finished_bundle))
    assert {path.name for path in (site / "golden").iterdir()} == {Path(name).name for name in golden.files}
    page = browser.new_page()
    with serve(site) as address:
        page.goto(address)
        page.wait_for_function(READY)
        assert page.inner_text("#warnings") == ""
    page.close()


def test_vectors_of_another_bundle_or_engine_are_refused(
    site: Path, finished_bundle: Path, photos: Path, tmp_path: Path
):
    content = load_vectors(site.parent / "int8.onnx.npz")
    np.savez(
        tmp_path / "other.npz",
        vectors=content.vectors,
        sources=content.sources,
        model="0123:int8.onnx",
        engine="onnxruntime",
    )
    refused = run(EXAMPLE / "prepare.py", finished_bundle, tmp_path / "site", tmp_path / "other.npz", fails=True)
    assert "which is not of" in refused
    run("-m", "byol_edge", "embed", finished_bundle, photos, "-o", tmp_path / "xml.npz", "--variant", "int8.xml")
    refused = run(EXAMPLE / "prepare.py", finished_bundle, tmp_path / "site", tmp_path / "xml.npz", fails=True)
    assert "embed with an .onnx variant and --backend onnxruntime" in refused
    assert not (tmp_path / "site").exists()
