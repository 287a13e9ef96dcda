import base64
import io
from pathlib import Path

import numpy as np
import pytest
from byol_edge.report.findings import Map
from byol_edge.report.thumbnails import choose_side, draw_map, load_thumbnails, make_sheets, make_tiles
from PIL import Image


def decode(uri: str) -> Image.Image:
    kind, _, content = uri.partition(",")
    assert kind == "data:image/webp;base64"
    return Image.open(io.BytesIO(base64.b64decode(content)))


def plain(*colors: int) -> np.ndarray:
    return np.stack([np.full((16, 16, 3), color, np.uint8) for color in colors])


def test_a_thumbnail_shows_the_whole_image_upright(tmp_path: Path):
    image = Image.new("RGB", (900, 300), "red")
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    image.save(tmp_path / "a.jpg", exif=exif)
    Image.new("RGB", (3, 2)).save(tmp_path / "small.png")
    found = load_thumbnails([tmp_path / "a.jpg", tmp_path / "gone.jpg", tmp_path / "small.png"], [0, 1, 2, 0])
    assert set(found) == {0, 2}
    shown = decode(found[0])
    assert shown.height == 160
    assert abs(shown.width - 53) <= 1
    assert decode(found[2]).size == (3, 2)


@pytest.mark.parametrize("size", [(1, 5000), (5000, 1), (1, 1)])
def test_images_of_odd_shapes_have_thumbnails(size: tuple[int, int], tmp_path: Path):
    Image.new("RGB", size).save(tmp_path / "a.png")
    assert decode(load_thumbnails([tmp_path / "a.png"], [0])[0]).width >= 1


def test_a_sheet_holds_tiles_row_by_row():
    sheets = make_sheets(plain(*[0] * 32, 250, *[0] * 1000))
    assert len(sheets.uris) == 2
    first = np.asarray(decode(sheets.uris[0]))
    assert first.shape == (512, 512, 3)
    assert first[16:32, 0:16].mean() > 200
    assert first[0:16].mean() < 20
    assert decode(sheets.uris[1]).size == (9 * 16, 16)


def test_tiles_are_no_larger_than_the_images():
    assert make_tiles(plain(9), 80).shape == (1, 16, 16, 3)
    assert make_tiles(plain(9), 8).shape == (1, 8, 8, 3)
    assert choose_side(10) > choose_side(10_000) == choose_side(10**6)


def test_pictures_lie_where_the_points_do_and_cover_no_other():
    corners = Map("PCA", (0, 1, 2), ((0.0, 0.0), (1.0, 1.0), (1.0, 1.0)))
    drawn = np.asarray(draw_map(corners, plain(50, 200, 201)))
    filled = drawn[..., 3] > 0
    side = drawn.shape[0] // 5
    assert filled[-side:, :side].mean() > 0.9  # the second axis points up
    assert abs(float(drawn[-side // 2, side // 2, 0]) - 50) < 2
    assert filled[:side, -side:].mean() > 0.9
    assert filled.sum() == pytest.approx(3 * (side - 2) ** 2)


def test_a_crowd_leaves_some_out():
    crowd = Map("PCA", tuple(range(30)), ((0.5, 0.5),) * 30)
    drawn = np.asarray(draw_map(crowd, plain(*range(100, 130))))
    side = drawn.shape[0] // 8
    assert (drawn[..., 3] > 0).sum() == 9 * (side - 2) ** 2
