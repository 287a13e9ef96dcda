"""Paths, arrays, images and manifests of the kind that nobody means well with."""

import io
import json
import os
import resource
import socket
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from byol_edge.runtime import BundleError, Encoder, ImageError, Preprocessing, prepare
from mutations import make_corpus
from PIL import Image

PREPROCESSING = Preprocessing(32)


def png(width: int, height: int) -> bytes:
    """A PNG that claims a size and holds a few bytes of it."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return len(content).to_bytes(4) + kind + content + zlib.crc32(kind + content).to_bytes(4)

    header = width.to_bytes(4) + height.to_bytes(4) + bytes([8, 2, 0, 0, 0])
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(bytes(10_000)))
        + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("side", [20_000, 60_000, 2**31 - 1])
def test_a_decompression_bomb_is_refused_unopened(side: int):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ImageError, match=r"bomb|too large|unreadable"):
        prepare(png(side, side), PREPROCESSING)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000  # KiB


def test_the_command_refuses_a_bomb_in_one_line(finished_bundle: Path, tmp_path: Path):
    (tmp_path / "bomb.png").write_bytes(png(10_000, 10_000))
    command = [sys.executable, "-m", "byol_edge.cli.main", "embed", finished_bundle, tmp_path, "-o", tmp_path / "v.npz"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1
    assert [line.split(": ")[0] for line in done.stderr.splitlines()] == ["left out", "byol-edge"]
    assert "too large: 10000 × 10000 pixels" in done.stderr


@pytest.mark.parametrize(("side", "decoded"), [(9_400, True), (9_600, False)])
def test_the_largest_image_takes_bounded_memory_and_a_larger_one_is_refused(tmp_path: Path, side: int, decoded: bool):
    Image.new("RGBA", (side, side)).save(tmp_path / "large.png", compress_level=1)
    code = """
import sys, warnings
warnings.simplefilter("ignore")
from byol_edge.runtime import ImageError, Preprocessing, prepare
try:
    prepare(sys.argv[1], Preprocessing(32))
    print("decoded")
except ImageError as error:
    print(error)
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""
    done = subprocess.run([sys.executable, "-c", code, tmp_path / "large.png"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    result, kilobytes = done.stdout.splitlines()
    assert result == "decoded" if decoded else f"too large: {side} × {side} pixels" in result
    assert int(kilobytes) < (1_200_000 if decoded else 100_000)


def lazy_png(side: int) -> Image.Image:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Image, "MAX_IMAGE_PIXELS", None)
        return Image.open(io.BytesIO(png(side, side)))


@pytest.mark.parametrize(
    "given",
    [
        np.broadcast_to(np.uint8(7), (40_000, 40_000, 3)),
        np.broadcast_to(np.uint8(7), (40_000, 40_000, 1)),
        np.broadcast_to(np.uint8(7), (40_000, 40_000)),
        lazy_png(40_000),
    ],
)
def test_an_array_or_pil_image_past_the_limit_is_refused_uncopied(given: np.ndarray | Image.Image):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ImageError, match=r"^an image given as \w+: too large: 40000 × 40000 pixels, the limit is 8"):
        prepare(given, PREPROCESSING)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000  # KiB


@pytest.mark.filterwarnings("ignore")
def test_the_limit_of_pixels_is_pillows_and_can_be_lifted(monkeypatch: pytest.MonkeyPatch):
    image = Image.new("RGB", (20, 30))
    file = io.BytesIO()
    image.save(file, "PNG")
    for limit, fits in ((600, True), (599, False), (None, True)):
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
        for given in (image, np.asarray(image), file.getvalue(), Image.open(io.BytesIO(file.getvalue()))):
            if fits:
                assert prepare(given, PREPROCESSING).shape == (32, 32, 3)
            else:
                with pytest.raises(ImageError, match="too large: 20 × 30 pixels, the limit is 599"):
                    prepare(given, PREPROCESSING)


def test_of_broken_images_the_command_prints_a_line_each_and_nothing_of_libraries(
    finished_bundle: Path, tmp_path: Path
):
    (tmp_path / "images").mkdir()
    broken = [(name, content) for name, content in make_corpus() if name.startswith(("TIFF", "JPEG L"))][:300]
    for number, (_, content) in enumerate(broken):
        (tmp_path / "images" / f"{number:03}.tif").write_bytes(content)
    command = [sys.executable, "-m", "byol_edge", "embed", finished_bundle, tmp_path / "images"]
    done = subprocess.run([*command, "-o", tmp_path / "v.npz"], capture_output=True, text=True)
    assert done.returncode == 0
    lines = done.stderr.splitlines()
    assert len(lines) > 100
    assert [line for line in lines if not line.startswith(f"left out: {tmp_path}")] == []
    assert f"left out: {len(lines)} unreadable images" in done.stdout
    assert len(done.stdout.splitlines()) == 1


@pytest.mark.parametrize("size", [(1, 1), (1, 20_000), (20_000, 1), (2, 3)])
@pytest.mark.parametrize("fit", ["crop", "squash", "pad"])
@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_extreme_shapes_are_images_too(size: tuple[int, int], fit: str, kind: str):
    file = io.BytesIO()
    Image.new("RGB", size, (255, 0, 0)).save(file, kind)
    pixels = prepare(file.getvalue(), Preprocessing(32, fit=fit))
    assert pixels.shape == (32, 32, 3)
    assert (pixels[:, :, 0] > 240).any()


def test_paths_that_are_no_files_are_refused_by_name(tmp_path: Path):
    (tmp_path / "folder.jpg").mkdir()
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "loop.jpg").symlink_to(tmp_path / "loop.jpg")
    os.mkfifo(tmp_path / "pipe.jpg")
    with socket.socket(socket.AF_UNIX) as listener:
        here = Path.cwd()
        os.chdir(tmp_path)  # a socket's path has to be short
        try:
            listener.bind("socket.jpg")
        finally:
            os.chdir(here)
        for name in ("folder.jpg", "empty.jpg", "loop.jpg", "pipe.jpg", "socket.jpg", "gone.jpg", "a\x00b.jpg"):
            with pytest.raises(ImageError, match=name.replace("\x00", ".")):
                prepare(tmp_path / name, PREPROCESSING)
    with pytest.raises(ImageError):
        prepare("/dev/zero", PREPROCESSING)


@pytest.mark.parametrize(
    "array",
    [
        np.full((8, 8, 3), np.nan, np.float32),
        np.zeros((8, 8, 3), np.float64),
        np.zeros((8, 8, 3), np.int64),
        np.zeros((8, 8, 3), bool),
        np.zeros((8, 8, 3), object),
        np.zeros((8, 8, 2), np.uint8),
        np.zeros((8, 8, 5), np.uint8),
        np.zeros((3, 8, 8, 3), np.uint8),
        np.zeros((0, 8, 3), np.uint8),
        np.zeros(8, np.uint8),
        np.uint8(3),
    ],
)
def test_arrays_that_are_no_images_are_refused_by_name(array: np.ndarray):
    with pytest.raises(ImageError, match="not an image"):
        prepare(array, PREPROCESSING)


def test_arrays_laid_out_oddly_are_images(random: np.random.Generator):
    pixels = random.integers(0, 256, (40, 50, 3), dtype=np.uint8)
    expected = prepare(pixels, PREPROCESSING)
    for same in (np.asfortranarray(pixels), pixels[::-1][::-1], np.broadcast_to(pixels, (1, 40, 50, 3))[0]):
        assert np.array_equal(prepare(same, PREPROCESSING), expected)


@pytest.mark.parametrize("name", ["../fp32.onnx", "/etc/passwd", "a/../../x", "..\\x"])
def test_a_manifest_that_points_out_of_its_bundle_is_refused(bundle: Path, name: str):
    manifest = json.loads((bundle / "manifest.json").read_text())
    manifest["files"][name] = manifest["files"]["fp32.onnx"]
    manifest["variants"]["fp32.onnx"]["files"] = [name]
    (bundle / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(BundleError, match="points out of the bundle"):
        Encoder(bundle)
