import io
import os
import struct
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from byol_edge.runtime import Encoder, ImageError, Preprocessing, prepare
from byol_edge.runtime.preprocessing import REDUCED_MARGIN, Pixels, _decode, open_image
from PIL import ExifTags, Image

SIDE = 32
PREPROCESSING = Preprocessing(SIDE)


def encode(image: Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def halves(width: int = 64, height: int = 64) -> Image.Image:
    """Red above, blue below."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[: height // 2, :, 0] = 255
    pixels[height // 2 :, :, 2] = 255
    return Image.fromarray(pixels)


def test_an_image_of_that_size_is_left_alone(random: np.random.Generator):
    pixels = random.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
    assert np.array_equal(prepare(pixels, PREPROCESSING), pixels)


def test_it_is_pillows_antialiased_resize_of_the_central_square(random: np.random.Generator):
    pixels = random.integers(0, 256, (100, 160, 3), dtype=np.uint8)
    square = Image.fromarray(pixels).crop((30, 0, 130, 100))
    # A resize of the cropped square differs at the border alone, where this one still sees what was cut off.
    expected = np.asarray(square.resize((SIDE, SIDE), Image.Resampling.BICUBIC))
    assert np.array_equal(prepare(pixels, PREPROCESSING)[:, 2:-2], expected[:, 2:-2])


def test_every_kind_of_source_gives_the_same_pixels(tmp_path: Path):
    image = halves()
    file = tmp_path / "a.png"
    image.save(file)
    content = file.read_bytes()
    sources = [file, str(file), content, bytearray(content), io.BytesIO(content), image, np.asarray(image)]
    first, *others = [prepare(source, PREPROCESSING) for source in sources]  # type: ignore
    assert first.shape == (SIDE, SIDE, 3)
    assert first.dtype == np.uint8
    assert all(np.array_equal(first, other) for other in others)


@pytest.mark.parametrize(
    ("orientation", "where"), [(1, "top"), (2, "top"), (3, "bottom"), (4, "bottom"), (6, "right"), (8, "left")]
)
def test_exif_orientation_is_applied(orientation: int, where: str):
    exif = Image.Exif()
    exif[0x0112] = orientation
    pixels = prepare(encode(halves(), "JPEG", quality=95, exif=exif), PREPROCESSING)
    parts = {"top": pixels[:8], "bottom": pixels[-8:], "left": pixels[:, :8], "right": pixels[:, -8:]}
    assert parts[where][..., 0].min() > 200
    assert parts[where][..., 2].max() < 50


def test_broken_exif_counts_as_none():
    content = encode(halves(), "JPEG", exif=b"Exif\x00\x00MM\x00\x2a\xff\xff\xff\xff")
    assert prepare(content, PREPROCESSING).shape == (SIDE, SIDE, 3)


def test_alpha_lies_over_white():
    for image in (Image.new("RGBA", (SIDE, SIDE), (255, 0, 0, 0)), Image.new("LA", (SIDE, SIDE), (0, 0))):
        assert (prepare(encode(image, "PNG"), PREPROCESSING) == 255).all()
    half = Image.new("RGBA", (SIDE, SIDE), (0, 0, 0, 128))
    assert prepare(half, PREPROCESSING)[0, 0].tolist() == [127, 127, 127]


def test_a_palettes_transparent_color_lies_over_white():
    image = Image.new("P", (SIDE, SIDE), 0)
    image.putpalette([255, 0, 0, 0, 255, 0])
    assert prepare(encode(image, "PNG"), PREPROCESSING)[0, 0].tolist() == [255, 0, 0]
    assert prepare(encode(image, "PNG", transparency=0), PREPROCESSING)[0, 0].tolist() == [255, 255, 255]


def test_sixteen_bit_gray_keeps_its_tones():
    # Pillow's own conversion clips at 255: all but the darkest of these would be white.
    values = np.linspace(0, 65535, SIDE * SIDE).reshape(SIDE, SIDE).astype(np.uint16)
    for kind in ("PNG", "TIFF"):
        pixels = prepare(encode(Image.fromarray(values), kind), PREPROCESSING)
        np.testing.assert_allclose(pixels[..., 0], values / 257, atol=0.51)


@pytest.mark.parametrize("mode", ["1", "L", "CMYK", "YCbCr", "LAB", "HSV", "P"])
def test_every_mode_becomes_rgb(mode: str):
    assert prepare(halves().convert("L" if mode == "LAB" else mode), PREPROCESSING).shape == (SIDE, SIDE, 3)


def test_cmyk_keeps_its_colors():
    pixels = prepare(encode(halves().convert("CMYK"), "JPEG", quality=95), PREPROCESSING)
    assert pixels[4, 4, 0] > 200
    assert pixels[-4, 4, 2] > 200


@pytest.mark.parametrize("shape", [(1, 1), (1, 20000), (20000, 1), (3, 7)], ids=lambda shape: f"{shape[0]}x{shape[1]}")
def test_extreme_shapes(shape: tuple[int, int]):
    assert prepare(np.full((*shape, 3), 7, np.uint8), PREPROCESSING).tolist() == np.full((SIDE, SIDE, 3), 7).tolist()


def test_gray_and_rgba_arrays_are_images():
    gray = np.full((SIDE, SIDE), 9, np.uint8)
    assert (prepare(gray, PREPROCESSING) == 9).all()
    assert (prepare(gray[..., None], PREPROCESSING) == 9).all()
    assert (prepare(np.zeros((SIDE, SIDE, 4), np.uint8), PREPROCESSING) == 255).all()


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((8, 8, 3), np.float32),
        np.zeros((8, 8, 2), np.uint8),
        np.zeros((3,), np.uint8),
        np.zeros((0, 4, 3), np.uint8),
    ],
)
def test_other_arrays_are_refused_by_name(array: np.ndarray):
    with pytest.raises(ImageError, match="is not an image"):
        open_image(array)


def test_unreadable_files_are_named(tmp_path: Path):
    for name, content in {"empty.jpg": b"", "text.png": b"hello", "cut.jpg": encode(halves(), "JPEG")[:300]}.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ImageError, match=name):
            open_image(tmp_path / name)
    with pytest.raises(ImageError, match=r"gone\.jpg: no such file"):
        open_image(tmp_path / "gone.jpg")
    with pytest.raises(ImageError, match=f"{tmp_path}: .*a folder, not a file"):
        open_image(tmp_path)
    os.mkfifo(tmp_path / "pipe.jpg")  # opening it would wait for ever
    with pytest.raises(ImageError, match=r"pipe\.jpg: .*not a regular file"):
        open_image(tmp_path / "pipe.jpg")


def photograph(random: np.random.Generator, width: int, height: int) -> Image.Image:
    """Structure at every scale, as photographs have it."""
    total = np.zeros((height, width, 3))
    for step in (2, 8, 32, 128):
        coarse = random.integers(0, 256, (height // step + 2, width // step + 2, 3), dtype=np.uint8)
        total += step * np.asarray(Image.fromarray(coarse).resize((width, height)), float)
    return Image.fromarray((total / 170).clip(0, 255).astype(np.uint8))


@pytest.mark.parametrize(("width", "height", "decoded"), [(1024, 768, (256, 192)), (380, 400, (380, 400))])
def test_a_large_jpeg_is_decoded_at_reduced_scale(
    random: np.random.Generator, width: int, height: int, decoded: tuple[int, int]
):
    def squashed(content: bytes, size: tuple[int, int] | None = None) -> Pixels:
        """What Pillow makes of a file that it reads at that scale."""
        image = Image.open(io.BytesIO(content))
        image.draft(None, size)
        assert image.size == (size or (width, height))
        return np.asarray(image.resize((side, side), Image.Resampling.BICUBIC))

    side = 192 // REDUCED_MARGIN
    squash = Preprocessing(side, fit="squash")
    content, in_full = (encode(photograph(random, width, height), kind) for kind in ("JPEG", "PNG"))
    assert np.array_equal(prepare(content, squash), squashed(content, decoded))
    assert np.array_equal(prepare(content, squash), squashed(content)) == (decoded == (width, height))
    assert np.array_equal(prepare(in_full, squash), squashed(in_full))
    assert open_image(content).size == (width, height)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("fit", ["crop", "pad", "squash"])
def test_reduced_scale_shifts_nothing_whichever_way_a_jpeg_is_turned(
    random: np.random.Generator, orientation: int, fit: str
):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    smooth = photograph(random, 30, 22).resize((8 * 97 + 1, 8 * 81 + 1), Image.Resampling.BICUBIC)
    content = encode(smooth, "JPEG", exif=exif.tobytes(), quality=98, subsampling=0)
    reduced = prepare(content, Preprocessing(40, fit=fit))  # at an eighth, of which the last pixel is an eighth
    whole = prepare(open_image(content), Preprocessing(40, fit=fit))
    assert np.abs(reduced.astype(int) - whole).mean() < 1


def test_reduced_scale_hardly_moves_an_embedding(finished_bundle: Path, random: np.random.Generator):
    encoder = Encoder(finished_bundle, "fp32.onnx")
    least = REDUCED_MARGIN * SIDE  # what is left at the least: the worst case
    sides = [least * scale for scale in (2, 4, 8) for _ in range(4)]
    contents = [encode(photograph(random, side, side), "JPEG") for side in sides]
    images = [Image.open(io.BytesIO(content)) for content in contents]
    whole = np.stack([prepare(image.resize(image.size), encoder.preprocessing) for image in images])
    reduced = encoder.embed(contents)
    cosines = (reduced * encoder.run(whole)).sum(1)
    assert cosines.min() > 0.994
    assert cosines.min() < 1 - 1e-7  # it was at reduced scale


def test_formats_that_are_not_allowed_are_refused():
    with pytest.raises(ImageError, match="not one of JPEG"):
        open_image(encode(halves(), "PPM"))


def test_a_decompression_bomb_is_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(ImageError, match="unreadable"):
        open_image(encode(halves(), "PNG"))


def test_a_line_of_many_pixels_is_refused():
    """Resizing it would take more memory than Pillow allows, which is no ImageError."""
    line = np.zeros((1, 80_000_000), np.uint8)
    with pytest.raises(ImageError, match="too long: 80000000 × 1 pixels"):
        prepare(line, Preprocessing(SIDE, fit="squash"))


def test_a_jpeg_of_many_scans_is_refused():
    """Each takes eleven bytes, and as long as the whole image: eleven kilobytes of them took eleven seconds."""
    whole = encode(halves(), "JPEG", progressive=True)
    again = bytes([0xFF, 0xDA, 0, 8, 1, 1, 0, 0, 0, 0x10, 0])  # the first color again, a bit more exact
    open_image(whole[:-2] + 50 * again + whole[-2:])
    with pytest.raises(ImageError, match=r"a JPEG of \d+ scans"):
        open_image(whole[:-2] + 100 * again + whole[-2:])


def test_a_small_tiff_of_huge_tiles_is_refused():
    width, length, tile = 256, 257, (322, 323)
    tags = {width: 8, length: 8, 258: 8, 259: 8, 262: 1, 277: 1, **dict.fromkeys(tile, 2**15), 324: 8, 325: 8}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    with pytest.raises(ImageError, match="too large: 32768 × 32768 pixels"):
        open_image(b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4))


def test_a_file_that_is_cut_off_meanwhile_does_not_end_the_process(tmp_path: Path):
    """Pillow maps such a file into memory where it knows its path, and reading beyond its end is a bus error."""
    Image.new("L", (256, 256)).save(tmp_path / "frame.bmp")
    image, _ = _decode(tmp_path / "frame.bmp", None)
    os.truncate(tmp_path / "frame.bmp", 0)
    assert getattr(image, "map", None) is None
    assert np.asarray(image).shape == (256, 256)


def test_a_float_image_is_refused_and_something_else_too():
    with pytest.raises(ImageError, match="float"):
        open_image(Image.new("F", (4, 4)))
    with pytest.raises(ImageError, match="int is not an image"):
        open_image(3)  # type: ignore[arg-type]
    with pytest.raises(ImageError, match="opened as text"):
        open_image(io.StringIO("x"))  # type: ignore[arg-type]


def lazy(content: bytes) -> Image.Image:
    return Image.open(io.BytesIO(content))


def noise(form: str) -> bytes:
    content = io.BytesIO()
    Image.effect_noise((200, 200), 50).convert("RGB").save(content, form)
    return content.getvalue()


def test_a_pil_image_that_cannot_be_read_any_more_is_an_image_error():
    cut, loaded, closed = lazy(noise("JPEG")[:3000]), lazy(noise("JPEG")), lazy(noise("PNG"))
    loaded.load()
    loaded.close()
    closed.fp.close()  # type: ignore[union-attr]
    for image in (cut, loaded, closed):
        with pytest.raises(ImageError, match=r"given as \w+: unreadable image"):
            prepare(image, Preprocessing(32))


def test_an_image_not_read_yet_may_be_given_to_many_threads_at_once():
    content = noise("PNG")
    expected = prepare(content, Preprocessing(32))
    with ThreadPoolExecutor(8) as pool:
        for _ in range(20):
            image = lazy(content)
            for pixels in pool.map(lambda image: prepare(image, Preprocessing(32)), [image] * 8):
                assert np.array_equal(pixels, expected)


def test_preprocessing_survives_json():
    assert Preprocessing.from_json(PREPROCESSING.to_json()) == PREPROCESSING
