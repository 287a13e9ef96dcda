import json
import shutil
from pathlib import Path
from typing import Any

import onnx
import pytest
from byol_edge.runtime import BundleError, Encoder
from byol_edge.runtime.model_file import METADATA_KEY, read_alone, read_metadata

NAMES = ("fp32.onnx", "int8.onnx", "fp32.xml", "int8.xml")


def label(model: Path, file: Path, text: str | None) -> Path:
    """The model with another text as its metadata."""
    content = onnx.load(model)
    del content.metadata_props[:]
    if text is not None:
        content.metadata_props.add(key=METADATA_KEY, value=text)
    file.write_bytes(content.SerializeToString())
    return file


@pytest.mark.parametrize("name", NAMES)
def test_every_model_says_how_to_feed_it(finished_bundle: Path, name: str):
    manifest = json.loads((finished_bundle / "manifest.json").read_text())
    told = read_metadata(finished_bundle / name, (finished_bundle / name).read_bytes())
    assert told["variant"] == name
    assert told["preprocessing"] == manifest["preprocessing"]
    assert told["format_reader"] == manifest["format_reader"]


def test_the_onnx_package_reads_the_same_metadata(finished_bundle: Path):
    entries = {entry.key: entry.value for entry in onnx.load(finished_bundle / "fp32.onnx").metadata_props}
    content = (finished_bundle / "fp32.onnx").read_bytes()
    assert read_metadata(Path("fp32.onnx"), content) == json.loads(entries[METADATA_KEY])


@pytest.mark.parametrize("text", [None, "", "{ half", "[1]", "7", "[" * 100_000])
def test_a_foreign_model_says_that_it_cannot_be_fed(finished_bundle: Path, tmp_path: Path, text: str | None):
    file = label(finished_bundle / "fp32.onnx", tmp_path / "foreign.onnx", text)
    with pytest.raises(BundleError, match=r"foreign\.onnx: not exported by byol-edge"):
        Encoder(file)


@pytest.mark.parametrize(
    "changes", [{"preprocessing": 7}, {"embedding_size": "many"}, {"format_version": None}, {"preprocessing": {}}]
)
def test_odd_metadata_is_refused(finished_bundle: Path, tmp_path: Path, changes: dict[str, Any]):
    told = read_metadata(Path("fp32.onnx"), (finished_bundle / "fp32.onnx").read_bytes()) | changes
    with pytest.raises(BundleError, match=r"odd\.onnx: its metadata is not byol-edge's"):
        read_alone(label(finished_bundle / "fp32.onnx", tmp_path / "odd.onnx", json.dumps(told)))


def test_a_model_of_a_newer_format_says_what_to_install(finished_bundle: Path, tmp_path: Path):
    text = json.dumps({"format_version": 2, "format_reader": "byol-edge>=7.2"})
    with pytest.raises(BundleError, match=r"new\.onnx: bundle format 2 is newer .*pip install 'byol-edge>=7\.2'"):
        read_alone(label(finished_bundle / "fp32.onnx", tmp_path / "new.onnx", text))


def test_an_ir_without_metadata_is_refused(finished_bundle: Path, tmp_path: Path):
    file = shutil.copy(finished_bundle / "fp32.xml", tmp_path)
    content = Path(file).read_bytes().replace(f"<{METADATA_KEY} ".encode(), b"<other ")
    with pytest.raises(BundleError, match=r"fp32\.xml: not exported by byol-edge"):
        read_metadata(Path(file), content)
