import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from byol_edge.runtime import (
    Encoder,
    EngineError,
    ImageError,
    VectorError,
    VectorFile,
    add,
    check,
    find_images,
    open_like,
    save_vectors,
    search,
)
from byol_edge.runtime.fidelity import Vectors
from byol_edge.runtime.identity import Maker
from byol_edge.runtime.nearest import Neighbor, find_neighbors
from byol_edge.runtime.openvino_backend import OpenVinoBackend
from sabotage import change_manifest


class InMemory:
    """An index in a dictionary."""

    def __init__(self) -> None:
        self.name = "in memory"
        self.made_by: Maker | None = None
        self.rows: dict[str, Vectors] = {}
        self.inserts = 0

    def find_maker(self) -> Maker | None:
        return self.made_by

    def insert(self, sources: Sequence[str], vectors: Vectors, made_by: Maker) -> None:
        self.made_by = self.made_by or made_by
        self.inserts += 1
        self.rows |= dict(zip(sources, vectors, strict=True))

    def find_nearest(self, query: Vectors, count: int) -> list[Neighbor]:
        content = VectorFile(np.stack(list(self.rows.values())), list(self.rows), "", "")
        return find_neighbors(content, query, count)


@pytest.fixture(scope="module")
def encoder(finished_bundle: Path) -> Encoder:
    return Encoder(finished_bundle, "int8.onnx", "onnxruntime")


@pytest.fixture
def other(finished_bundle: Path) -> Encoder:
    return Encoder(finished_bundle, "fp32.onnx", "onnxruntime")


def content_of(encoder: Encoder, photos: Path) -> VectorFile:
    paths = find_images(photos)[:8]
    return VectorFile(encoder.embed(paths), [str(path) for path in paths], encoder.id, encoder.engine)


@pytest.mark.parametrize("name", ["v.npz", "v.parquet"])
def test_a_file_is_checked_by_its_name_or_its_content(
    encoder: Encoder, other: Encoder, photos: Path, tmp_path: Path, name: str
):
    content = content_of(encoder, photos)
    save_vectors(tmp_path / name, content)
    for vectors in (content, tmp_path / name, str(tmp_path / name)):
        check(vectors, encoder)
        with pytest.raises(VectorError) as refused:
            check(vectors, other)
        assert f"are by {encoder.id}, this encoder is {other.id}, and vectors of two models do not mix" in str(
            refused.value
        )
    assert str(refused.value).startswith(str(tmp_path / name))


def test_engines_mix_as_far_as_the_export_found_them_to_agree(bundle: Path, encoder: Encoder, photos: Path):
    content = content_of(encoder, photos)
    check(content, Encoder(bundle, "int8.onnx", "openvino"))
    engines = {"onnxruntime": {"passes": True, "cosine": 1.0}, "openvino": {"passes": True, "cosine": 0.984}}
    change_manifest(bundle, lambda manifest: manifest["variants"]["int8.onnx"].update(engines=engines))
    apart = Encoder(bundle, "int8.onnx", "openvino")
    with pytest.raises(VectorError, match=r"on onnxruntime, this encoder runs on openvino.*backend=onnxruntime"):
        check(content, apart)
    with pytest.raises(VectorError, match="this encoder runs on openvino"):  # a file alone does not say
        check(content, Encoder(bundle / "int8.onnx", backend="openvino"))
    check(replace(content, engine="openvino"), apart)
    with pytest.raises(VectorError, match="on openvino:gpu, this encoder"):
        check(replace(content, engine="openvino:gpu"), apart)


def test_what_made_vectors_is_opened_again(finished_bundle: Path, encoder: Encoder, photos: Path, tmp_path: Path):
    content = content_of(encoder, photos)
    save_vectors(tmp_path / "v.npz", content)
    opened = open_like(tmp_path / "v.npz", finished_bundle, threads=1)
    assert (opened.id, opened.engine) == (encoder.id, encoder.engine)
    by_openvino = open_like(replace(content, engine="openvino"), finished_bundle)
    assert (by_openvino.variant, by_openvino.engine) == ("int8.onnx", "openvino")
    assert open_like(content, finished_bundle / "int8.onnx").id == encoder.id
    for model in ("0123456789ab:int8.onnx", "3f9a1c0d2b4e:fp32", "", "nonsense:\n:"):
        with pytest.raises(VectorError, match="this encoder is"):
            open_like(replace(content, model=model), finished_bundle)


def test_an_engine_that_agrees_stands_in_for_one_that_is_missing(
    bundle: Path, encoder: Encoder, photos: Path, monkeypatch: pytest.MonkeyPatch
):
    def fail(*_: object) -> None:
        raise EngineError("not installed")

    monkeypatch.setattr(OpenVinoBackend, "load", fail)
    content = replace(content_of(encoder, photos), engine="openvino")
    assert open_like(content, bundle).engine == "onnxruntime"
    engines = {"onnxruntime": {"passes": True, "cosine": 1.0}, "openvino": {"passes": True, "cosine": 0.984}}
    change_manifest(bundle, lambda manifest: manifest["variants"]["int8.onnx"].update(engines=engines))
    with pytest.raises(VectorError, match="on openvino, this encoder runs on onnxruntime"):
        open_like(content, bundle)


def test_images_are_added_once_and_found(encoder: Encoder, photos: Path, tmp_path: Path):
    images = Path(shutil.copytree(photos, tmp_path / "images"))
    (images / "disc" / "20a.jpg").write_bytes(b"x")
    index, paths = InMemory(), find_images(images)
    for _ in range(2):
        done = add(index, encoder, iter(paths))
        assert done.count == len(index.rows) == 120
        assert len(done.errors) == 1 and "20a.jpg" in done.errors[0]
    assert index.inserts == 2  # not one for each batch
    assert index.made_by == Maker(encoder.id, encoder.engine)
    first, second = search(index, encoder, paths[7], 2)
    assert first.source == str(paths[7]) and first.cosine == pytest.approx(1, abs=1e-3)
    assert second.cosine < first.cosine
    with pytest.raises(ImageError, match="20a"):
        search(index, encoder, images / "disc" / "20a.jpg")


def test_another_encoder_neither_adds_nor_searches(encoder: Encoder, other: Encoder, photos: Path):
    index, paths = InMemory(), find_images(photos)[:8]
    add(index, encoder, paths)
    before = dict(index.rows)
    for attempt in (lambda: add(index, other, paths), lambda: search(index, other, paths[0])):
        with pytest.raises(
            VectorError, match=rf"in memory: its vectors are by {encoder.id}, this encoder is {other.id}"
        ):
            attempt()
    assert before.keys() == index.rows.keys()
    check(InMemory(), other)  # nothing to mix with
