import shutil
from pathlib import Path

import numpy as np
import pytest
from byol_edge.runtime import ByolEdgeError, Encoder, ImageError, OutputExistsError, find_images, load_vectors, pieces
from byol_edge.runtime.pieces import Embedded, check_free, embed_files, is_finished, parts_of


class Stopped(Exception):
    """In place of a kill."""


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pieces, "PIECE", 16)


@pytest.fixture
def images(photos: Path, tmp_path: Path) -> Path:
    """120 good images and one that is not."""
    folder = Path(shutil.copytree(photos, tmp_path / "images"))
    (folder / "disc" / "20a.jpg").write_bytes(b"x")
    return folder


@pytest.fixture(scope="module")
def encoder(finished_bundle: Path) -> Encoder:
    return Encoder(finished_bundle, "fp32.onnx")


def embed(encoder: Encoder, folder: Path, out: Path, stop_at: int = 10_000, strict: bool = False) -> Embedded:
    def watch(done: int, _: list[str]) -> None:
        if done >= stop_at:
            raise Stopped

    return embed_files(encoder, find_images(folder), out, 8, watch, strict)


def test_the_file_holds_what_embed_gives_and_the_pieces_are_gone(encoder: Encoder, images: Path, tmp_path: Path):
    result = embed(encoder, images, tmp_path / "v.npz")
    assert result.count == 120
    assert [error.split(":")[0] for error in result.errors] == [str(images / "disc" / "20a.jpg")]
    content = load_vectors(tmp_path / "v.npz")
    assert content.sources == [str(path) for path in find_images(images) if path.name != "20a.jpg"]
    np.testing.assert_allclose(content.vectors, encoder.embed(content.sources), atol=1e-6)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["images", "v.npz"]
    assert is_finished(tmp_path / "v.npz")


@pytest.mark.parametrize("name", ["v.npz", "v.parquet"])
def test_stopped_anywhere_it_ends_in_the_same_bytes(encoder: Encoder, images: Path, tmp_path: Path, name: str):
    embed(encoder, images, tmp_path / f"whole.{name}")
    for stop_at in (8, 40, 41, 100, 121):
        with pytest.raises(Stopped):
            embed(encoder, images, tmp_path / name, stop_at)
        assert not is_finished(tmp_path / name)
    assert embed(encoder, images, tmp_path / name).errors
    assert (tmp_path / name).read_bytes() == (tmp_path / f"whole.{name}").read_bytes()


def test_a_piece_that_was_not_renamed_yet_does_not_count(encoder: Encoder, images: Path, tmp_path: Path):
    embed(encoder, images, tmp_path / "whole.npz")
    with pytest.raises(Stopped):
        embed(encoder, images, tmp_path / "v.npz", 64)
    last = max(parts_of(tmp_path / "v.npz").glob("0*.npz"))
    last.rename(last.with_name(f".{last.name}.99999999.part.npz"))
    embed(encoder, images, tmp_path / "v.npz")
    assert (tmp_path / "v.npz").read_bytes() == (tmp_path / "whole.npz").read_bytes()


def test_images_that_come_are_added_and_those_that_go_are_left_out(encoder: Encoder, images: Path, tmp_path: Path):
    with pytest.raises(Stopped):
        embed(encoder, images, tmp_path / "v.npz", 64)
    (images / "disc" / "00.png").rename(images / "disc" / "00b.png")
    assert embed(encoder, images, tmp_path / "v.npz").count == 120
    sources = load_vectors(tmp_path / "v.npz").sources
    assert sorted(sources) == sorted(str(path) for path in find_images(images) if path.name != "20a.jpg")


def test_pieces_of_another_model_are_refused(finished_bundle: Path, encoder: Encoder, images: Path, tmp_path: Path):
    with pytest.raises(Stopped):
        embed(encoder, images, tmp_path / "v.npz", 64)
    with pytest.raises(ByolEdgeError, match=r"fp32\.onnx.*int8\.onnx.*do not mix"):
        embed(Encoder(finished_bundle, "int8.onnx"), images, tmp_path / "v.npz")


def test_a_damaged_piece_is_named_and_made_again(encoder: Encoder, images: Path, tmp_path: Path):
    embed(encoder, images, tmp_path / "whole.npz")
    with pytest.raises(Stopped):
        embed(encoder, images, tmp_path / "v.npz", 64)
    piece = parts_of(tmp_path / "v.npz") / "000001.npz"
    piece.write_bytes(piece.read_bytes()[:1000])
    with pytest.raises(ByolEdgeError, match=r"000001\.npz: damaged"):
        embed(encoder, images, tmp_path / "v.npz")
    piece.unlink()
    embed(encoder, images, tmp_path / "v.npz")
    assert sorted(load_vectors(tmp_path / "v.npz").sources) == sorted(load_vectors(tmp_path / "whole.npz").sources)


def test_strict_writes_nothing_and_what_it_did_is_not_lost(encoder: Encoder, images: Path, tmp_path: Path):
    with pytest.raises(ImageError, match=r"1 of 121 images cannot be read; .*--resume, without --strict"):
        embed(encoder, images, tmp_path / "v.npz", strict=True)
    assert not (tmp_path / "v.npz").exists()
    assert embed(encoder, images, tmp_path / "v.npz").count == 120


def test_where_no_image_can_be_read_nothing_is_left(encoder: Encoder, tmp_path: Path):
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.jpg").write_bytes(b"x")
    with pytest.raises(ImageError, match="1 of 1 images cannot be read"):
        embed(encoder, tmp_path / "images", tmp_path / "v.npz")
    assert [path.name for path in tmp_path.iterdir()] == ["images"]


def test_what_is_in_the_way_is_said(encoder: Encoder, images: Path, tmp_path: Path):
    out = tmp_path / "v.npz"
    with pytest.raises(Stopped):
        embed(encoder, images, out, 64)
    with pytest.raises(OutputExistsError, match=r"v\.npz\.parts is unfinished: go on with --resume"):
        check_free(out, overwrite=False)
    check_free(out, overwrite=True)
    shutil.rmtree(parts_of(out))
    parts_of(out).mkdir()
    (parts_of(out) / "holiday.jpg").write_bytes(b"mine")
    with pytest.raises(OutputExistsError, match="was not made by"):
        check_free(out, overwrite=True)
