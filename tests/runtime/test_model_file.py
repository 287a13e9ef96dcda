from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import onnx
import pytest
from byol_edge.runtime import BundleError, Encoder, Preprocessing, UsageError, choosing, model_file
from byol_edge.runtime.backend import ModelBytes
from byol_edge.runtime.fidelity import Vectors
from byol_edge.runtime.model_file import METADATA_KEY, find_format, precision_of, read_alone, read_essentials
from byol_edge.runtime.model_format import ModelFormat
from byol_edge.runtime.preprocessing import Pixels

NAMES = ("fp32.onnx", "int8.onnx", "fp32.xml", "int8.xml")


def label(model: Path, file: Path, text: str | None) -> Path:
    """The model with another text as its metadata."""
    content = onnx.load(model)
    del content.metadata_props[:]
    if text is not None:
        content.metadata_props.add(key=METADATA_KEY, value=text)
    file.write_bytes(content.SerializeToString())
    return file


def told_by(file: Path) -> dict[str, Any]:
    """What a model file says of itself."""
    kind = find_format(file, file.suffix[1:])
    return read_essentials(file, kind, [file.with_suffix(suffix).read_bytes() for suffix in kind.suffixes])


@pytest.mark.parametrize("name", NAMES)
def test_every_model_says_how_to_feed_it(finished_bundle: Path, name: str):
    manifest = json.loads((finished_bundle / "manifest.json").read_text())
    told = told_by(finished_bundle / name)
    assert told["variant"] == name
    assert told["precision"] == name.split(".")[0]
    assert told["preprocessing"] == manifest["preprocessing"]
    assert told["format_reader"] == manifest["format_reader"]


def test_the_onnx_package_reads_the_same_metadata(finished_bundle: Path):
    entries = {entry.key: entry.value for entry in onnx.load(finished_bundle / "fp32.onnx").metadata_props}
    assert told_by(finished_bundle / "fp32.onnx") == json.loads(entries[METADATA_KEY])


@pytest.mark.parametrize("text", [None, "", "{ half", "[1]", "7", "[" * 100_000])
def test_a_foreign_model_says_that_it_cannot_be_fed(finished_bundle: Path, tmp_path: Path, text: str | None):
    file = label(finished_bundle / "fp32.onnx", tmp_path / "foreign.onnx", text)
    with pytest.raises(BundleError, match=r"foreign\.onnx: not exported by byol-edge"):
        Encoder(file)


@pytest.mark.parametrize(
    "changes",
    [
        {"preprocessing": 7},
        {"embedding_size": "many"},
        {"format_version": None},
        {"preprocessing": {}},
        {"precision": "fp8"},
        {"precision": ["int8"]},
    ],
)
def test_odd_metadata_is_refused(finished_bundle: Path, tmp_path: Path, changes: dict[str, Any]):
    told = told_by(finished_bundle / "fp32.onnx") | changes
    with pytest.raises(BundleError, match=r"odd\.onnx: its metadata is not byol-edge's"):
        read_alone(label(finished_bundle / "fp32.onnx", tmp_path / "odd.onnx", json.dumps(told)))


def test_a_model_of_a_newer_format_says_what_to_install(finished_bundle: Path, tmp_path: Path):
    text = json.dumps({"format_version": 2, "format_reader": "byol-edge>=7.2"})
    with pytest.raises(BundleError, match=r"new\.onnx: bundle format 2 is newer .*pip install 'byol-edge>=7\.2'"):
        read_alone(label(finished_bundle / "fp32.onnx", tmp_path / "new.onnx", text))


def test_an_ir_without_metadata_is_refused(finished_bundle: Path, tmp_path: Path):
    file = tmp_path / "fp32.xml"
    shutil.copy(finished_bundle / "fp32.bin", tmp_path)
    file.write_bytes((finished_bundle / "fp32.xml").read_bytes().replace(f"<{METADATA_KEY} ".encode(), b"<other "))
    with pytest.raises(BundleError, match=r"fp32\.xml: not exported by byol-edge"):
        told_by(file)
    file.write_bytes(b"junk")
    with pytest.raises(BundleError, match=r"fp32\.xml: not an OpenVINO model"):
        told_by(file)


def test_a_file_that_needs_another_beside_it_does_not_stand_alone(finished_bundle: Path):
    for read in (Encoder, read_alone):
        with pytest.raises(BundleError, match=r"fp32\.xml: "):
            read(finished_bundle / "fp32.xml")


def test_an_id_tells_the_precision(finished_bundle: Path):
    for name in NAMES:
        assert precision_of(Encoder(finished_bundle, name).id) == name.split(".")[0]
    assert read_alone(finished_bundle / "int8.onnx").precision == "int8"
    for foreign in ("", "m", "abc:", "abc:clip.onnx", "int8.onnx"):
        assert precision_of(foreign) is None
    assert precision_of("3f9a1c0d2b4e:fp32") == "fp32"


class SumBackend:
    """An engine whose whole computation is a sum."""

    name: ClassVar[str] = "sum"
    module: ClassVar[str] = "numpy"
    formats: ClassVar[tuple[str, ...]] = ("sum",)
    fast_on: ClassVar[tuple[str, ...]] = ()

    @staticmethod
    def load(model: ModelBytes, threads: int, device: str = "cpu", low_power: bool = False) -> SumBackend:
        return SumBackend()

    def run(self, images: Pixels) -> Vectors:
        return images.sum((1, 2, 3), dtype=np.float32)[:, None]


def test_an_engine_and_a_format_take_a_line_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    kind = ModelFormat("sum", (".sum",), check=lambda content: 0, read_metadata=lambda content, _: content.decode())
    monkeypatch.setattr(model_file, "FORMATS", (*model_file.FORMATS, kind))
    monkeypatch.setattr(choosing, "BACKENDS", (*choosing.BACKENDS, SumBackend))
    told = {"format_version": 1, "variant": "fp32.sum", "precision": "fp32", "embedding_size": 1}
    (tmp_path / "a.sum").write_text(json.dumps({**told, "preprocessing": Preprocessing(2).to_json()}))
    opened = Encoder(tmp_path / "a.sum")
    assert opened.id.endswith(":fp32.sum") and opened.engine == "sum"
    assert opened.run(np.stack([np.ones((2, 2, 3), np.uint8), np.zeros((2, 2, 3), np.uint8)])).tolist() == [[12], [0]]
    with pytest.raises(UsageError, match=r"backend=onnxruntime does not run fp32\.sum"):
        Encoder(tmp_path / "a.sum", backend="onnxruntime")
