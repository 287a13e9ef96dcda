from pathlib import Path

import numpy as np
import pytest
from byol_edge.runtime.contact_sheet import (
    COLUMNS,
    EMPTY,
    GAP,
    LARGE,
    MARGIN,
    NAME_SIZE,
    PAPER,
    ROW,
    SMALL,
    SMALL_GAP,
    TILE,
    Strip,
    draw_sheet,
    draw_strips,
    shorten,
    wrap,
)
from byol_edge.runtime.nearest import Neighbor
from PIL import Image, ImageFont


@pytest.fixture
def colors(tmp_path: Path) -> dict[str, str]:
    """An image of each color, twice as wide as it is high."""
    for color in ("red", "green", "blue"):
        Image.new("RGB", (300, 150), color).save(tmp_path / f"{color}.png")
    return {color: str(tmp_path / f"{color}.png") for color in ("red", "green", "blue")}


def middle(place: int) -> tuple[int, int]:
    """The middle of the tile of a neighbor."""
    row, column = divmod(place, COLUMNS)
    return MARGIN + LARGE + 2 * GAP + column * (TILE + GAP) + TILE // 2, MARGIN + row * ROW + TILE // 2


def test_the_query_stands_beside_its_neighbors_in_their_order(colors: dict[str, str]):
    neighbors = [Neighbor(colors["green"], 0.9)] * COLUMNS + [Neighbor(colors["blue"], 0.5)]
    sheet = draw_sheet(colors["red"], neighbors)
    assert sheet.getpixel((MARGIN + LARGE // 2, MARGIN + LARGE // 2)) == (255, 0, 0)
    for place in range(COLUMNS):
        assert sheet.getpixel(middle(place)) == (0, 128, 0)
    assert sheet.getpixel(middle(COLUMNS)) == (0, 0, 255)
    x, y = middle(0)
    assert sheet.getpixel((x, y - TILE // 2 + 5)) == EMPTY  # the whole image is shown
    assert sheet.getpixel((2, 2)) == PAPER


def test_everything_is_within_the_sheet(colors: dict[str, str]):
    for count in (1, 4, 5, 6, 10, 11, 23):
        pixels = np.asarray(draw_sheet(colors["red"], [Neighbor(colors["green"], 0.123)] * count))
        border = np.concatenate(
            [pixels[:5].ravel(), pixels[-5:].ravel(), pixels[:, :5].ravel(), pixels[:, -5:].ravel()]
        )
        assert (border == 255).all(), count


def test_an_image_that_cannot_be_read_is_an_empty_tile(colors: dict[str, str], tmp_path: Path):
    (tmp_path / "broken.png").write_bytes(b"x")
    gone, broken = (Neighbor(str(tmp_path / name), 0.5) for name in ("gone.png", "broken.png"))
    sheet = draw_sheet(str(tmp_path / "gone.png"), [gone, broken])
    tiles = [sheet.crop((x - TILE // 2 + 2, y - 60, x + TILE // 2 - 2, y + 60)) for x, y in (middle(0), middle(1))]
    assert all(tile.getpixel((0, 0)) == EMPTY for tile in tiles)
    assert all(np.asarray(tile).min() < 150 for tile in tiles)  # a note in ink
    assert tiles[0].tobytes() != tiles[1].tobytes()


def test_names_lose_their_middle():
    font = ImageFont.load_default(NAME_SIZE)
    assert shorten("/photos/shop/dress/mug.jpg", TILE) == "dress/mug.jpg"
    long = "/photos/dress/28b09463-6bbb-491d-9ffc-f36df5c6b211.jpg"
    short = shorten(long, TILE)
    assert font.getlength(short) <= TILE
    begin, end = short.split("…")
    assert begin.startswith("dress/28b0")
    assert end.endswith("b211.jpg")
    assert shorten("W" * 80, 100).count("…") == 1
    assert shorten(long, 1) == "…"
    assert shorten("caf\udce9.jpg", TILE) == "caf\\udce9.jpg"


def test_a_name_without_end_takes_no_time(monkeypatch: pytest.MonkeyPatch):
    """A file of vectors may hold any: it is measured a few times, not once for each of its characters."""
    measured: list[str] = []
    measure = ImageFont.FreeTypeFont.getlength
    monkeypatch.setattr(
        ImageFont.FreeTypeFont, "getlength", lambda font, text: measured.append(text) or measure(font, text)
    )
    short = shorten("x" * 3000 + ".jpg", TILE)
    assert short.startswith("xxx")
    assert short.endswith(".jpg")
    assert len(measured) <= TILE


@pytest.mark.parametrize("side", [16, 50])
def test_strips_stand_below_each_other_under_a_title(side: int):
    red, green, blue = (np.full((side, side, 3), color, np.uint8) for color in np.eye(3) * 255)
    sheet = draw_strips("a title", [Strip("", [red, green]), Strip("", [None, blue], ["nothing", "blue"])])
    pixels = np.asarray(sheet)
    assert sheet.width == 2 * MARGIN + 2 * SMALL + SMALL_GAP
    middles = MARGIN + SMALL // 2, MARGIN + SMALL + SMALL_GAP + SMALL // 2
    rows = [int(np.flatnonzero((pixels[:, middles[1]] == color).all(1)).mean()) for color in ((0, 255, 0), (0, 0, 255))]
    assert rows[0] < rows[1]
    assert [tuple(pixels[rows[0], each]) for each in middles] == [(255, 0, 0), (0, 255, 0)]
    assert [tuple(pixels[rows[1], each]) for each in middles] == [PAPER, (0, 0, 255)]


def test_pixels_of_small_pictures_are_repeated_whole(random: np.random.Generator):
    tile = random.integers(0, 256, (32, 32, 3), np.uint8)
    pixels = np.asarray(draw_strips("", [Strip("", [tile])]))[-MARGIN - SMALL : -MARGIN, MARGIN:-MARGIN]
    assert np.array_equal(pixels, tile.repeat(SMALL // 32, 0).repeat(SMALL // 32, 1))


def test_a_title_is_parted_between_words():
    assert wrap("one two three", 1) == ["one", "two", "three"]
    assert wrap("one two three", 1000) == ["one two three"]
    assert wrap("", 10) == [""]
