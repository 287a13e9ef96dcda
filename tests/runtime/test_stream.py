import io
import threading
import weakref
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from byol_edge.runtime import Encoder, ImageError, UsageError, find_images, prepare
from byol_edge.runtime.preprocessing import Pixels, Preprocessing
from byol_edge.runtime.stream import Chunk, stream_chunks
from numpy.typing import NDArray
from PIL import Image

SIDE = 8


def first_pixel(pixels: Pixels) -> NDArray[np.float32]:
    """In place of a network: an image's own number."""
    return pixels[:, 0, 0, :1].astype(np.float32)


def numbered(number: int) -> Pixels:
    return np.full((SIDE, SIDE, 3), number, np.uint8)


def stream(sources: object, batch_size: int = 4, workers: int = 2, errors: str = "collect") -> Iterator[Chunk]:
    return stream_chunks(first_pixel, Preprocessing(SIDE), sources, batch_size, workers, errors)  # type: ignore


def test_it_keeps_order_and_matches_errors_to_sources():
    sources = [numbered(0), numbered(1), b"x", numbered(3), b"y", numbered(5), numbered(6)]
    chunks = list(stream(iter(sources)))
    assert [len(chunk.sources) for chunk in chunks] == [3, 2]
    assert np.concatenate([chunk.vectors for chunk in chunks]).ravel().tolist() == [0, 1, 3, 5, 6]
    assert [int(source[0, 0, 0]) for chunk in chunks for source in chunk.sources] == [0, 1, 3, 5, 6]
    assert [row for chunk in chunks for row in chunk.rows] == [0, 1, 3, 5, 6]
    assert [source for chunk in chunks for source, _ in chunk.errors] == [b"x", b"y"]
    assert all(isinstance(error, ImageError) for chunk in chunks for _, error in chunk.errors)


def test_errors_are_skipped_or_raised_where_that_is_wanted():
    sources = [numbered(0), b"x", numbered(2)]
    (chunk,) = stream(sources, errors="skip")
    assert chunk.vectors.ravel().tolist() == chunk.rows == [0, 2]
    assert chunk.errors == []
    with pytest.raises(ImageError, match="an image given as bytes"):
        list(stream(sources, errors="raise"))


def test_it_takes_no_more_than_the_next_batch_and_holds_no_more_than_two():
    class Counted(np.ndarray):
        """An array that can be watched."""

    made: list[weakref.ref[Counted]] = []
    most = 0

    def sources() -> Iterator[Counted]:
        nonlocal most
        for number in range(100):
            image = numbered(number).view(Counted)
            made.append(weakref.ref(image))
            most = max(most, sum(each() is not None for each in made))
            yield image

    for chunk in stream(sources()):
        del chunk
    assert 4 <= most <= 3 * 4  # those decoded, those embedded, and those that the loop here holds


def test_an_error_holds_on_to_nothing_that_was_decoded():
    content = io.BytesIO()
    Image.effect_noise((64, 64), 50).save(content, "PNG")
    (chunk,) = stream([content.getvalue()[:2000]])
    ((_, error),) = chunk.errors
    assert "truncated" in str(error)
    assert error.__traceback__ is error.__context__ is error.__cause__ is None


@pytest.mark.parametrize(
    "one",
    [
        Path("a.jpg"),
        io.BytesIO(),
        bytearray(9),
        memoryview(b"x"),
        Image.new("RGB", (3, 3)),
        np.zeros((9, 9, 3), np.uint8),
        np.zeros((9, 9), np.uint8),
    ],
)
def test_one_image_is_not_taken_for_many(one: object):
    with pytest.raises(UsageError, match="is one image: give a list"):
        stream(one)


@pytest.mark.parametrize(
    "many", [np.zeros((2, SIDE, SIDE, 3), np.uint8), np.array(["a.jpg", "b.jpg"]), np.array([b"x", b"y"], object)]
)
def test_an_array_of_images_or_of_names_is_many(many: NDArray[np.generic]):
    (chunk,) = stream(many)
    assert len(chunk.sources) + len(chunk.errors) == 2


def test_who_stops_asking_leaves_no_thread_behind():
    before = threading.active_count()
    chunks = stream(numbered(number) for number in range(100))
    next(chunks)
    chunks.close()  # type: ignore
    assert threading.active_count() == before


def test_what_the_sources_raise_comes_through():
    def sources() -> Iterator[Pixels]:
        yield numbered(0)
        raise OSError("the camera is gone")

    with pytest.raises(OSError, match="the camera is gone"):
        list(stream(sources()))


def test_nothing_and_nothing_readable():
    assert list(stream([])) == []
    (chunk,) = stream([b"x", b"y"])
    assert (len(chunk.sources), chunk.vectors.shape, len(chunk.errors)) == (0, (0, 1), 2)


def test_what_it_would_misread_is_refused_at_once():
    with pytest.raises(UsageError, match="is one image"):
        stream("photos")
    with pytest.raises(UsageError, match="batch_size=0: has to be 1 or more"):
        stream([], batch_size=0)
    with pytest.raises(UsageError, match="workers=0"):
        stream([], workers=0)
    with pytest.raises(UsageError, match="errors='ignore'"):
        stream([], errors="ignore")


def test_an_encoders_stream_gives_what_the_engine_gives_for_each_image(finished_bundle: Path, photos: Path):
    encoder = Encoder(finished_bundle, "fp32.onnx")
    paths = find_images(photos)[:20]
    session = onnxruntime.InferenceSession(finished_bundle / "fp32.onnx", providers=["CPUExecutionProvider"])
    pixels = [prepare(path, encoder.preprocessing)[None] for path in paths]
    expected = np.concatenate([np.asarray(session.run(["embeddings"], {"images": each})[0]) for each in pixels])
    sources = [*paths[:3], b"broken", *paths[3:]]
    chunks = list(encoder.stream(sources, batch_size=7, workers=3))
    rows = [row for chunk in chunks for row in chunk.rows]
    assert rows == [0, 1, 2, *range(4, 21)]
    assert [source for chunk in chunks for source in chunk.sources] == [sources[row] for row in rows] == paths
    vectors = np.concatenate([chunk.vectors for chunk in chunks])
    np.testing.assert_allclose(vectors, expected, atol=1e-5)
    assert (vectors @ expected.T).argmax(1).tolist() == list(range(20))
    np.testing.assert_allclose(encoder.embed(paths), expected, atol=1e-5)
