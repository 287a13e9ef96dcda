"""The parts of run.sh: a proof that passes, and what has to make it fail."""

import subprocess
import sys
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from arm64.compare import compare
from arm64.embed import prove
from arm64.images import write_images
from byol_edge.runtime import find_images, load_vectors
from byol_edge.runtime.vectors import VectorFile, save_vectors

# The self-test of each variant on each engine.
pytestmark = pytest.mark.skipif(find_spec("openvino") is None, reason="openvino is not installed")

RUN = Path(__file__).with_name("run.sh")
PAIRS = [
    "fp32.onnx on onnxruntime",
    "fp32.onnx on openvino",
    "fp32.xml on openvino",
    "int8.onnx on onnxruntime",
    "int8.onnx on openvino",
    "int8.xml on openvino",
]


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("proof") / "images"
    write_images(folder)
    return folder


@pytest.fixture(scope="module")
def vectors(finished_bundle: Path, images: Path) -> Path:
    assert prove(finished_bundle, images, images.with_name("vectors"))
    return images.with_name("vectors")


def change(file: Path, out: Path, to: VectorFile) -> Path:
    out.mkdir()
    save_vectors(out / file.name, to)
    return out


def test_a_dozen_images_are_embedded_by_each_variant_on_each_engine(images: Path, vectors: Path):
    assert len(find_images(images)) == 12
    assert sorted(file.stem for file in vectors.iterdir()) == PAIRS
    assert all(len(load_vectors(file).sources) == 12 for file in vectors.iterdir())


def test_equal_vectors_pass(vectors: Path, capsys: pytest.CaptureFixture[str]):
    assert compare(vectors, vectors) == []
    printed = capsys.readouterr().out
    assert all(name in printed for name in PAIRS)
    assert printed.count("1.000000  passed") == len(PAIRS)


def test_one_vector_that_differs_fails(vectors: Path, tmp_path: Path):
    file = vectors / "fp32.onnx on onnxruntime.npz"
    whole = load_vectors(file)
    moved = whole.vectors.copy()
    moved[3] += 0.02 * np.roll(moved[3], 1)
    other = change(file, tmp_path / "other", replace(whole, vectors=moved))
    assert any("fp32.onnx on onnxruntime: lowest cosine 0.9" in failure for failure in compare(vectors, other))
    assert sum("no such file" in failure for failure in compare(vectors, other)) == len(PAIRS) - 1


def test_an_image_that_only_one_machine_can_read_fails(vectors: Path, tmp_path: Path):
    file = vectors / "int8.xml on openvino.npz"
    whole = load_vectors(file)
    fewer = change(file, tmp_path / "fewer", replace(whole, vectors=whole.vectors[1:], sources=whole.sources[1:]))
    assert "int8.xml on openvino: an image is in one file alone" in compare(fewer, vectors)
    assert "int8.xml on openvino: an image is in one file alone" in compare(vectors, fewer)


def test_no_vectors_are_no_proof(vectors: Path, tmp_path: Path):
    assert compare(tmp_path, vectors)


def test_a_variant_that_fails_is_named_and_the_others_go_on(
    bundle: Path, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    (bundle / "int8.xml").write_bytes(b"x")
    assert not prove(bundle, images, tmp_path)
    printed = capsys.readouterr().out
    assert "int8.xml on openvino: byol-edge: " in printed
    assert printed.count("self-test passed, images embedded") == len(PAIRS) - 1


def test_without_a_bundle_it_says_how_it_is_called(tmp_path: Path):
    result = subprocess.run(["bash", str(RUN), str(tmp_path)], capture_output=True, text=True)
    assert result.returncode == 2
    assert "bash tests/arm64/run.sh BUNDLE" in result.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="run.sh is for Linux")
def test_where_it_cannot_be_tried_it_is_skipped_with_a_line(finished_bundle: Path, images: Path, tmp_path: Path):
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "uname").write_text("#!/bin/sh\necho Darwin arm64\n")
    (tools / "uname").chmod(0o755)
    environment = {"PATH": f"{tools}:{Path(sys.executable).parent}:/usr/bin:/bin"}
    command = ["bash", str(RUN), str(finished_bundle), str(images.parent)]
    result = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert result.returncode == 77
    assert result.stdout == "arm64: skipped: needs Linux on x86-64 or ARM64, and this is Darwin arm64\n"
