import logging
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from byol_edge.runtime import (
    ByolEdgeError,
    Encoder,
    ImageError,
    OutputExistsError,
    UsageError,
    VectorError,
    embedding,
    find_images,
    load_vectors,
    prepare,
    shards,
)
from byol_edge.runtime.embedding import Embedded, embed_files
from byol_edge.runtime.fidelity import Vectors
from byol_edge.runtime.identity import Maker
from byol_edge.runtime.progress import PROGRESS, Progress
from byol_edge.runtime.shards import (
    check_free,
    count_missing,
    discard_shards,
    find_maker,
    hold_shards,
    is_finished,
    shard_folder,
)


class Stopped(Exception):
    """In place of a kill."""


@pytest.fixture(autouse=True)
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedding, "SHARD_IMAGES", 16)


@pytest.fixture
def images(photos: Path, tmp_path: Path) -> Path:
    """120 good images and one that is not."""
    folder = Path(shutil.copytree(photos, tmp_path / "images"))
    (folder / "disc" / "20a.jpg").write_bytes(b"x")
    return folder


@pytest.fixture(scope="module")
def encoder(finished_bundle: Path) -> Encoder:
    return Encoder(finished_bundle, "fp32.onnx")


class Watcher(logging.Handler):
    """Hands what the library says about its progress to a function."""

    def __init__(self, watch: Callable[[Progress], None]) -> None:
        super().__init__()
        self.watch = watch

    def emit(self, record: logging.LogRecord) -> None:
        self.watch(record.__dict__["progress"])


@contextmanager
def watching(watch: Callable[[Progress], None]) -> Iterator[None]:
    logger, handler = logging.getLogger(PROGRESS), Watcher(watch)
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


def stop_at(done: int) -> Callable[[Progress], None]:
    def watch(progress: Progress) -> None:
        if progress.done >= done:
            raise Stopped

    return watch


def embed(encoder: Encoder, folder: Path, out: Path, stop: int = 10_000, strict: bool = False) -> Embedded:
    paths = find_images(folder)
    with watching(stop_at(stop)):
        return embed_files(encoder, iter(paths), len(paths), out, 8, strict)


def one_by_one(encoder: Encoder, sources: list[str]) -> Vectors:
    return np.concatenate([encoder.run(prepare(source, encoder.preprocessing)[None]) for source in sources])


def test_the_file_holds_every_images_vector_and_the_shards_are_gone(encoder: Encoder, images: Path, tmp_path: Path):
    result = embed(encoder, images, tmp_path / "v.npz")
    assert result.count == 120
    assert [error.split(":")[0] for error in result.errors] == [str(images / "disc" / "20a.jpg")]
    content = load_vectors(tmp_path / "v.npz")
    assert content.sources == [str(path) for path in find_images(images) if path.name != "20a.jpg"]
    np.testing.assert_allclose(content.vectors, one_by_one(encoder, content.sources), atol=1e-5)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["images", "v.npz"]
    assert is_finished(tmp_path / "v.npz")


@pytest.mark.parametrize("name", ["v.npz", "v.parquet"])
def test_stopped_anywhere_it_ends_in_the_same_bytes(encoder: Encoder, images: Path, tmp_path: Path, name: str):
    embed(encoder, images, tmp_path / f"whole.{name}")
    for stop in (8, 40, 41, 100, 121):
        with pytest.raises(Stopped):
            embed(encoder, images, tmp_path / name, stop)
        assert not is_finished(tmp_path / name)
    assert embed(encoder, images, tmp_path / name).errors
    assert (tmp_path / name).read_bytes() == (tmp_path / f"whole.{name}").read_bytes()


@pytest.mark.parametrize("name", ["v.npz", "v.parquet"])
def test_what_was_done_by_ctrl_c_is_kept(encoder: Encoder, images: Path, tmp_path: Path, name: str):
    embed(encoder, images, tmp_path / f"whole.{name}")
    done = []
    for _ in range(4):

        def watch(progress: Progress) -> None:
            done.append(progress.done)
            if len(done) % 2 == 0:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt), watching(watch):
            embed_files(encoder, find_images(images), 121, tmp_path / name, 8)
    assert done[::2] == [0, 8, 16, 23]  # one of them cannot be read, and is tried again at the end
    embed(encoder, images, tmp_path / name)
    assert (tmp_path / name).read_bytes() == (tmp_path / f"whole.{name}").read_bytes()


def test_progress_and_what_is_left_out_are_reported(
    encoder: Encoder, images: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    seen: list[Progress] = []
    with caplog.at_level(logging.WARNING, "byol_edge"), watching(seen.append):
        (error,) = embed_files(encoder, find_images(images), 121, tmp_path / "v.npz", 8).errors
    assert [each.done for each in seen] == [*range(0, 121, 8), 121]
    assert {(each.label, each.total, each.unit) for each in seen} == {("embedding", 121, "images")}
    assert [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING] == [
        f"left out: {error}"
    ]
    assert "20a.jpg" in error


def test_a_slow_device_saves_by_the_clock(
    encoder: Encoder, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(embedding, "SHARD_IMAGES", 10_000)
    monkeypatch.setattr(embedding, "SHARD_SECONDS", 0.0)
    with pytest.raises(Stopped):
        embed(encoder, images, tmp_path / "v.npz", 32)
    assert len(list(shard_folder(tmp_path / "v.npz").glob("0*.npz"))) == 3


def test_a_shard_that_was_not_renamed_yet_does_not_count(encoder: Encoder, images: Path, tmp_path: Path):
    embed(encoder, images, tmp_path / "whole.npz")
    with pytest.raises(Stopped):
        embed(encoder, images, tmp_path / "v.npz", 64)
    last = max(shard_folder(tmp_path / "v.npz").glob("0*.npz"))
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


def test_shards_of_another_model_are_refused(finished_bundle: Path, encoder: Encoder, images: Path, tmp_path: Path):
    with pytest.raises(Stopped):
        embed(encoder, images, tmp_path / "v.npz", 64)
    with pytest.raises(ByolEdgeError, match=r"fp32\.onnx.*int8\.onnx.*do not mix"):
        embed(Encoder(finished_bundle, "int8.onnx"), images, tmp_path / "v.npz")


def test_a_damaged_shard_is_named_and_made_again(encoder: Encoder, images: Path, tmp_path: Path):
    embed(encoder, images, tmp_path / "whole.npz")
    with pytest.raises(Stopped):
        embed(encoder, images, tmp_path / "v.npz", 64)
    shard = shard_folder(tmp_path / "v.npz") / "000001.npz"
    shard.write_bytes(shard.read_bytes()[:1000])
    with pytest.raises(ByolEdgeError, match=r"000001\.npz: damaged"):
        embed(encoder, images, tmp_path / "v.npz")
    shard.unlink()
    embed(encoder, images, tmp_path / "v.npz")
    assert sorted(load_vectors(tmp_path / "v.npz").sources) == sorted(load_vectors(tmp_path / "whole.npz").sources)


def test_strict_writes_nothing_and_what_it_did_is_not_lost(encoder: Encoder, images: Path, tmp_path: Path):
    with pytest.raises(ImageError, match=r"1 of 121 images cannot be read; .*resume=True, without strict=True"):
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
    with pytest.raises(OutputExistsError, match=r"v\.npz\.parts is unfinished; go on with it: resume=True"):
        check_free(out, resume=False, overwrite=False)
    check_free(out, resume=False, overwrite=True)
    check_free(out, resume=True, overwrite=False)
    shutil.rmtree(shard_folder(out))
    shard_folder(out).mkdir()
    (shard_folder(out) / "holiday.jpg").write_bytes(b"mine")
    for resume in (True, False):
        with pytest.raises(OutputExistsError, match=r"v\.npz\.parts is not a half-done embedding"):
            check_free(out, resume, overwrite=not resume)
    assert (shard_folder(out) / "holiday.jpg").read_bytes() == b"mine"


def test_what_is_no_file_to_write_is_said_before_the_work(tmp_path: Path):
    (tmp_path / "v.npz").mkdir()
    for name, error in (("v.npz", OutputExistsError), ("v.npy", UsageError)):
        with pytest.raises(error):
            check_free(tmp_path / name, resume=True, overwrite=False)


def test_two_at_once_are_refused(encoder: Encoder, images: Path, tmp_path: Path):
    out = tmp_path / "v.npz"
    with hold_shards(out):
        for again in (lambda: embed(encoder, images, out), lambda: discard_shards(out)):
            with pytest.raises(ByolEdgeError, match=r"another `byol-edge embed` is at work on .*v\.npz\.parts"):
                again()
    assert embed(encoder, images, out).count == 120


def test_an_image_that_failed_is_tried_again(encoder: Encoder, images: Path, tmp_path: Path):
    out, broken = tmp_path / "v.npz", images / "disc" / "20a.jpg"
    with pytest.raises(ImageError, match="1 of 121"):
        embed(encoder, images, out, strict=True)
    shutil.copy(images / "disc" / "00.png", broken)
    assert embed(encoder, images, out, strict=True) == Embedded(121, [])
    assert load_vectors(out).sources[-1] == str(broken)


def test_an_image_that_was_replaced_is_embedded_again(encoder: Encoder, images: Path, tmp_path: Path):
    out, replaced = tmp_path / "v.npz", images / "disc" / "00.png"
    with pytest.raises(Stopped):
        embed(encoder, images, out, 64)
    shutil.copyfile(find_images(images)[-1], replaced)
    os.utime(replaced, ns=(1, 1))
    assert embed(encoder, images, out).count == 120
    content = load_vectors(out)
    assert sorted(content.sources) == sorted(str(path) for path in find_images(images) if path.name != "20a.jpg")
    np.testing.assert_allclose(content.vectors, one_by_one(encoder, content.sources), atol=1e-5)


def test_a_kill_while_the_shards_are_deleted_loses_nothing(
    encoder: Encoder, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    whole, out = tmp_path / "whole.npz", tmp_path / "v.npz"
    embed(encoder, images, whole)
    unlink = Path.unlink

    def stop_at_the_third(file: Path, missing_ok: bool = False) -> None:
        if file.name == "000003.npz":
            raise Stopped
        unlink(file, missing_ok)

    monkeypatch.setattr(Path, "unlink", stop_at_the_third)
    with pytest.raises(Stopped):
        embed(encoder, images, out)
    monkeypatch.undo()
    assert not is_finished(out)
    embed(encoder, images, out)
    assert out.read_bytes() == whole.read_bytes()
    assert not shard_folder(out).exists()


@pytest.mark.parametrize("name", ["v.npz", "v.parquet"])
def test_a_finished_file_says_what_it_lacks_and_who_made_it(
    encoder: Encoder, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
):
    embed(encoder, images, tmp_path / name)
    assert find_maker(tmp_path / name) == Maker(encoder.id, encoder.engine)
    assert count_missing(tmp_path / name, encoder, find_images(images)) == 1
    monkeypatch.setattr(encoder, "id", "another")
    with pytest.raises(VectorError, match=rf"{name}: its vectors are by .*, this encoder is another, .* do not mix"):
        count_missing(tmp_path / name, encoder, [])


@pytest.mark.parametrize("name", ["n" * 245 + ".npz", "run:1/v.parquet", "x\udcff.parquet", "source=cam/v.parquet"])
def test_odd_names(encoder: Encoder, images: Path, tmp_path: Path, name: str):
    embed(encoder, images, tmp_path / name)
    assert len(load_vectors(tmp_path / name).sources) == 120


def test_a_file_is_looked_at_once_as_it_is_handed_out(
    encoder: Encoder, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    looked, handed, stamp = [], [], embedding.stamp_file
    monkeypatch.setattr(embedding, "stamp_file", lambda path: looked.append(path) or stamp(path))

    def paths() -> Iterator[Path]:
        for path in find_images(images):
            handed.append(path)
            assert len(handed) - len(looked) in (1, 2)  # the one that could not be read waits until the end
            yield path

    with pytest.raises(Stopped), watching(stop_at(64)):
        embed_files(encoder, paths(), 121, tmp_path / "v.npz", 8)
    assert len(handed) <= 64 + 2 * 8
    for _ in range(2):
        handed.clear()
        looked.clear()
        embed_files(encoder, paths(), 121, tmp_path / "v.npz", 8)
        assert sorted(looked) == find_images(images)


def test_a_shard_is_read_once_to_go_on_and_once_to_be_joined(
    encoder: Encoder, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    with pytest.raises(Stopped):
        embed(encoder, images, tmp_path / "v.npz", 64)
    begun = sorted(path.name for path in shard_folder(tmp_path / "v.npz").glob("0*.npz"))
    read, load = [], shards.load_arrays
    monkeypatch.setattr(
        shards,
        "load_arrays",
        lambda file, names=(): read.append((file.name, "vectors" in names or not names)) or load(file, names),
    )
    embed(encoder, images, tmp_path / "v.npz")
    assert [name for name, whole in read if not whole] == begun
    joined = [name for name, whole in read if whole]
    assert joined == sorted(set(joined))
    assert set(begun) < set(joined)


def test_an_image_that_is_replaced_while_it_is_read_is_embedded_again(encoder: Encoder, images: Path, tmp_path: Path):
    out, replaced = tmp_path / "v.npz", images / "disc" / "00.png"

    def replace_and_stop(progress: Progress) -> None:
        if progress.done == 16:
            shutil.copyfile(images / "stripes" / "00.png", replaced)
            os.utime(replaced, ns=(1, 1))
        if progress.done >= 64:
            raise Stopped

    with pytest.raises(Stopped), watching(replace_and_stop):
        embed_files(encoder, find_images(images), 121, out, 8)
    embed(encoder, images, out)
    content = load_vectors(out)
    assert len(content.sources) == 120
    np.testing.assert_allclose(content.vectors, one_by_one(encoder, content.sources), atol=1e-5)


def test_a_shard_that_was_copied_is_refused(encoder: Encoder, images: Path, tmp_path: Path):
    with pytest.raises(Stopped):
        embed(encoder, images, tmp_path / "v.npz", 64)
    folder = shard_folder(tmp_path / "v.npz")
    shutil.copy(folder / "000001.npz", folder / "000007.npz")
    with pytest.raises(ByolEdgeError, match=r"000007\.npz: damaged \(it holds an image twice"):
        embed(encoder, images, tmp_path / "v.npz")


@pytest.mark.parametrize("name", ["v.npz", "v.parquet"])
def test_of_no_images_the_file_holds_no_vectors(encoder: Encoder, tmp_path: Path, name: str):
    assert embed_files(encoder, [], 0, tmp_path / name, 8) == Embedded(0, [])
    content = load_vectors(tmp_path / name)
    assert content.vectors.shape == (0, encoder.embedding_size)
    assert (content.sources, content.model) == ([], encoder.id)
    assert is_finished(tmp_path / name)
